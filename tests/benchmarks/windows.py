"""Super-resolution in windows: memory that does not grow with the clip, and time that goes into the windows.

python tests/benchmarks/windows.py memory 80       peak memory of one run, as JSON
python tests/benchmarks/windows.py time            seconds of the node, of its windows, of the host's windows
python tests/benchmarks/windows.py large           80 frames of 1024x1024, 2 steps: six minutes, 16 GiB
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from figures import Figure

ROOT = Path(__file__).resolve().parents[2]
SIDE = 64  # pixels of the small clip
SHORT, LONG = 80, 320  # frames
COPIES = 8  # float32 copies of the clip that the peak may grow by
STEPS = 2
LENGTH, OVERLAP = 16, 2
TIMED = 30  # frames of the timed clip: two windows
MIB = 1 << 20


def measure(turns: int) -> Iterator[Figure]:
    """Run each measurement in a process of its own.

    Args:
        turns: how often the node and the host's windows take turns.
    """
    peaks = {}
    for frames in (SHORT, LONG):
        answer = _child("memory", str(frames))
        if "error" in answer:
            yield Figure("windows.memory_growth", None, "copies", COPIES, answer["error"])
            break
        peaks[frames] = answer["peak"]
        yield Figure(
            f"windows.peak_{frames}_frames",
            answer["peak"] / MIB,
            "MiB",
            note=f"predicted beside the host's start: {answer['predicted'] / MIB:.0f} MiB; "
            f"before the run {answer['before'] / MIB:.0f} MiB",
        )
    else:
        copy = 3 * (4 * SIDE) ** 2 * 4 * (LONG - SHORT)
        growth = (peaks[LONG] - peaks[SHORT]) / copy
        yield Figure(
            "windows.memory_growth",
            growth,
            "copies",
            COPIES,
            f"float32 copies of the clip, {SHORT} to {LONG} frames of 256x256",
        )
    answer = _child("time", str(turns))
    if "error" in answer:
        yield Figure("windows.node_over_its_windows", None, "ratio", 1.05, answer["error"])
        return
    yield Figure(
        "windows.node_over_its_windows",
        answer["node_over_windows"],
        "ratio",
        1.05,
        f"{TIMED} frames, {STEPS} steps; median of {turns} turns",
    )
    yield Figure(
        "windows.node_over_host_windows",
        answer["node_over_host"],
        "ratio",
        1.0,
        "the host's Context Windows on the same MODEL, the same windows",
    )


def _child(*arguments: str) -> dict:
    result = subprocess.run([sys.executable, __file__, *arguments], check=False, capture_output=True, text=True)
    if result.returncode:
        return {"error": (result.stderr.strip().splitlines() or ["no reason given"])[-1]}
    return json.loads(result.stdout.splitlines()[-1])


class Stage:
    """The real host with the bundled stage, in this process."""

    def __init__(self, folder: str) -> None:
        sys.path.append(str(ROOT / "nodes" / "headless"))
        import boot

        sys.path.remove(str(ROOT / "nodes" / "headless"))
        base = Path(folder)
        boot.prepare_base(base)
        arguments = ["--cpu"] if boot.needs_cpu_flag() else []
        self.host = boot.HeadlessHost(boot.find_host(), base, arguments)
        self.model, clip, _ = self.host.call(
            "LumiereLoader", checkpoint="lumiere-mini-ssr", dtype="fp32", frames_per_clip=0
        )
        self.positive, self.negative = self.host.call(
            "LumiereTextEncode", clip=clip, prompt="a red ball bouncing on grass", negative_prompt=""
        )

    def small(self, frames: int, side: int = SIDE):
        """Return a clip of the world as an IMAGE."""
        world = self.host.module("lumiere_core.world")
        clip = world.render_clip(world.sample_scene(3), frames, 16.0, side, side)
        return (clip.permute(1, 2, 3, 0) + 1) / 2

    def enlarge(self, image, model=None, length: int = LENGTH, steps: int = STEPS):
        """Run the node."""
        return self.host.call(
            "LumiereSuperResolution",
            model=self.model if model is None else model,
            image=image,
            positive=self.positive,
            negative=self.negative,
            seed=1,
            steps=steps,
            cfg=1.0,
            sampler_name="euler",
            scheduler="karras",
            context_length=length,
            context_overlap=OVERLAP,
            weighting="uniform",
            noise_augmentation=0.0,
        )[0]


def _peak() -> int:
    """Return the most bytes that this process has held."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def _memory(stage: Stage, frames: int, side: int = SIDE, steps: int = 1) -> dict[str, float]:
    import torch

    windows = stage.host.module("nodes.host.windows")
    image = stage.small(frames, side)
    stage.enlarge(image[:1], steps=1)  # what is loaded once
    shape = torch.Size((frames, 3, 4 * side, 4 * side))
    before, began = _peak(), time.monotonic()
    out = stage.enlarge(image, steps=steps)
    return {
        "before": before,
        "peak": _peak(),
        "seconds": time.monotonic() - began,
        "shape": list(out.shape),
        "predicted": sum(windows.predicted_peak(stage.model, shape, [LENGTH, *shape[1:]]).values()),
    }


def _time(stage: Stage, turns: int) -> dict[str, float]:
    """Return medians of ratios of CPU time; the node's windows and the host's take turns."""
    import statistics

    windows = stage.host.module("nodes.host.windows")
    inside = [0.0]
    plain = windows.in_windows

    def timed(executor, *rest):
        def one_window(*arguments):
            began = time.process_time()
            out = executor(*arguments)
            inside[0] += time.process_time() - began
            return out

        return plain(one_window, *rest)

    windows.in_windows = timed
    image = stage.small(TIMED)
    (stock,) = stage.host.call(
        "ContextWindowsManual",
        model=stage.model,
        context_length=LENGTH,
        context_overlap=OVERLAP,
        context_schedule="standard_static",
        context_stride=1,
        closed_loop=False,
        fuse_method="flat",
        dim=0,
        freenoise=False,
        causal_window_fix=False,
    )

    def seconds(model, length: int) -> float:
        inside[0], began = 0.0, time.process_time()
        stage.enlarge(image, model, length)
        return time.process_time() - began

    seconds(stage.model, LENGTH)  # what is made once
    over_windows, over_host = [], []
    for _ in range(turns):
        ours = seconds(stage.model, LENGTH)
        over_windows.append(ours / inside[0])
        # Windows longer than the clip: the host's node cuts it, ours lets it pass.
        over_host.append(ours / seconds(stock, 4096))
    return {"node_over_windows": statistics.median(over_windows), "node_over_host": statistics.median(over_host)}


def main(what: str, *rest: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(folder)
        if what == "memory":
            answer = _memory(stage, int(rest[0]))
        elif what == "large":
            answer = _memory(stage, SHORT, 256, STEPS)
        else:
            answer = _time(stage, int(rest[0]) if rest else 3)
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    # Off the path: the host must not find this folder's modules before its own.
    sys.path.remove(str(Path(__file__).resolve().parent))
    main(*sys.argv[1:])
