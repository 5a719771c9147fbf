"""What the live clip costs: sampling on the real server while a page asks for nothing, for sheets, for the clip.

The settings take turns, with one seed; the server's time between the start and the end of the sampler counts.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from figures import Figure

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / "workflows" / "api" / "Lumiere 01 - Text to Video.json"
MODES = ("off", "sheet", "clip")
BAR = 1.03
STEPS = 8  # the first sheet is always sent: a longer run pays less for it
SAMPLER = "LumiereSampler"
NEEDED = ("LumiereLoader", "LumiereTextEncode", "EmptyLumiereLatentVideo", SAMPLER)


def measure(clock: str, allocator: dict[str, str], turns: int) -> Iterator[Figure]:
    """Yield the time of sampling with sheets and with the clip, and of a host that keeps its buffers, over that with neither.

    Args:
        clock: "wall" or "cpu", the server's own.
        allocator: environment with the allocator settings of the Makefile; without them that one is left out.
        turns: runs of each setting.
    """
    from pairs import Turns

    if clock == "cpu":
        os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for one another count as work
    headless, workflows = _module(ROOT / "nodes/headless/boot.py"), _module(ROOT / "tests/workflows/conftest.py")
    with contextlib.ExitStack() as stack:

        def page(environment: dict[str, str]) -> Page:
            base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            headless.prepare_base(base)
            server = stack.enter_context(workflows.start(headless.find_host(), base, environment))
            return Page(server, workflows.WebSocket, clock)

        stock = page({})
        settings = {mode: (stock, mode) for mode in MODES}
        if allocator:
            settings["kept"] = (page(allocator), "off")
        seconds: dict[str, list[float]] = {name: [] for name in settings}
        sent = dict.fromkeys(settings, 0)
        for turn in range(turns + 1):
            for name in list(settings) if turn % 2 == 0 else reversed(list(settings)):
                chosen, mode = settings[name]
                taken, messages = chosen.run(mode)
                if turn > 0:  # the first run loads the model
                    seconds[name].append(taken)
                    sent[name] += messages
    timed = Turns(seconds)
    what = f"{STEPS} steps of 80 frames, {timed.median('off'):.1f} s of {clock} time; medians of {turns} turns"
    yield Figure("live.sheet_over_off", timed.ratio("sheet", "off"), "ratio", BAR, f"eight frames a step; {what}")
    note = f"{sent['clip'] / turns:.1f} clips sent a run; {what}"
    yield Figure("live.clip_over_off", timed.ratio("clip", "off"), "ratio", BAR, note)
    if allocator:
        note = f"a host started with {', '.join(allocator)}; {what}"
        yield Figure("live.kept_buffers_over_off", timed.ratio("kept", "off"), "ratio", note=note)


class Page:
    """A page that queues one workflow again and again.

    Args:
        server: a running `Server` of tests/workflows.
        connect: its `WebSocket`.
        clock: "wall" or "cpu".
    """

    def __init__(self, server, connect: Callable, clock: str) -> None:
        import psutil

        self.server, self.clock, self.client = server, clock, str(uuid.uuid4())
        self.process = psutil.Process(server.process.pid)
        self.socket = connect("127.0.0.1", server.port, f"/ws?clientId={self.client}")
        nodes = json.loads(WORKFLOW.read_text(encoding="utf-8"))
        (self.key,) = (key for key, node in nodes.items() if node["class_type"] == SAMPLER)
        nodes[self.key]["inputs"]["steps"] = STEPS
        self.graph = {key: node for key, node in nodes.items() if node["class_type"] in NEEDED}
        self.graph["end"] = {
            "class_type": "SaveLatent",
            "inputs": {"samples": [self.key, 0], "filename_prefix": "live"},
        }
        (self.empty,) = (n for n in nodes.values() if n["class_type"] == "EmptyLumiereLatentVideo")
        self.runs = 0

    def run(self, mode: str) -> tuple[float, int]:
        """Return the seconds of one sampling, and how many clips were sent meanwhile."""
        self.server.call("/lumiere/live", {"client": self.client, "mode": mode})
        self.runs += 1
        self.empty["inputs"]["fps"] = 16 + self.runs / 100  # or the host takes the last run's clip
        prompt_id = self.server.queue(self.graph, self.client)
        began, taken, clips = None, 0.0, 0
        while True:
            message = self.socket.receive(600)
            kind, data = message["type"], message["data"]
            if kind == "execution_error" and data["prompt_id"] == prompt_id:
                raise RuntimeError(data["exception_message"])
            clips += kind == "lumiere.clip"
            if kind == "executing" and data.get("prompt_id") == prompt_id:
                if data["node"] == self.key:
                    began = self._now()
                elif began is not None and not taken:
                    taken = self._now() - began
                if data["node"] is None:
                    return taken, clips

    def _now(self) -> float:
        if self.clock == "wall":
            return time.perf_counter()
        times = self.process.cpu_times()
        return times.user + times.system


def _module(path: Path):
    spec = importlib.util.spec_from_file_location(f"live_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
