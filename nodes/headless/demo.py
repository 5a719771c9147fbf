"""`make demo`: run the template Text to Video on the real host, without a browser, and show what came out.

    python nodes/headless/demo.py --prompt "a red ball bouncing on grass" --seed 7 --output clip.mp4

Without an option the environment's PROMPT, SEED, OUT and HD count, else the workflow's own values.
Beside the clip it writes <name>_sheet.png (the frames in reading order) and <name>_slice.png (one row of pixels
over time). Files appear only when the run has succeeded and the clip has been read back.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import sys
import time
import uuid
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # an isolated Python (-I) does not do it
from boot import PACK_ROOT, HeadlessHost, HostError, core_file, find_host, needs_cpu_flag, prepare_base, print_anything  # noqa: E402

sys.path.remove(str(Path(__file__).resolve().parent))

WORKFLOWS = PACK_ROOT / "workflows" / "api"
BASE = PACK_ROOT / ".host" / "base"
PROMPT_INPUTS = ("prompt", "text", "value", "string")  # the last two: of a primitive that the text comes from
SEED_INPUTS = ("seed", "noise_seed")


class DemoError(Exception):
    """The demo cannot go on, for a reason that the message explains."""


# The workflow: API format, node id to {"class_type", "inputs"}.


def read_workflow(path: Path) -> dict:
    try:
        graph = core_file("text_files").read_json(path)
    except (OSError, ValueError) as error:
        raise DemoError(f"cannot read the workflow {path}: {error}") from None
    nodes = list(graph.values()) if isinstance(graph, dict) else []
    if nodes and all(
        isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
        for node in nodes
    ):
        return graph
    raise DemoError(f"{path} is not an API-format workflow (use File > Export (API) in ComfyUI)")


def short_names() -> dict[str, str]:
    """Return {short name: name} of the pack's templates: text_to_video for "Lumiere 01 - Text to Video"."""
    names = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
    return {re.sub(r"\W+", "_", name.split(" - ", 1)[-1].lower()): name for name in names}


def template(short: str) -> Path:
    """Return the API-format twin of a template by its short name."""
    return WORKFLOWS / f"{short_names()[short]}.json"


def find_prompt(graph: dict) -> tuple[str, str]:
    """Return (node id, input name) of the text that the sampler's `positive` comes from."""
    queue = [link[0] for node in graph.values() if (link := _link(node["inputs"].get("positive")))]
    seen = set()
    while queue:
        node_id = queue.pop(0)
        if node_id in seen or node_id not in graph:  # the host names a link that leads nowhere
            continue
        seen.add(node_id)
        inputs = graph[node_id]["inputs"]
        for name in PROMPT_INPUTS:
            if isinstance(inputs.get(name), str):
                return node_id, name
        # A conditioning node in between: its own `positive` leads on, never its `negative`; a text that comes by a link before all else.
        named = {name: link for name, link in inputs.items() if _link(link)}
        leading = [named[name] for name in ("positive", *PROMPT_INPUTS) if name in named]
        follow = leading[:1] or list(named.values())
        queue.extend(link[0] for link in follow)
    raise DemoError(f"the workflow has no text ({', '.join(PROMPT_INPUTS)}) behind a `positive`")


def _link(value: object) -> list | None:
    """Return the value of an input if it is a link: [id of a node, number of its output]."""
    return value if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) else None


def find_seeds(graph: dict) -> list[tuple[str, str]]:
    """Return (node id, input name) of every seed, at least one."""
    found = [
        (node_id, name)
        for node_id, node in graph.items()
        for name in SEED_INPUTS
        if isinstance(node["inputs"].get(name), int)
    ]
    if not found:
        raise DemoError(f"the workflow has no input {' or '.join(SEED_INPUTS)}")
    return found


def fill_in(graph: dict, prompt: str | None, seed: int | None) -> tuple[str, int]:
    """Put the prompt and every seed into the graph, where given; return what it has now."""
    text_id, text_name = find_prompt(graph)
    if prompt:
        graph[text_id]["inputs"][text_name] = prompt
    seeds = find_seeds(graph)
    if seed is not None:
        for node_id, name in seeds:
            graph[node_id]["inputs"][name] = seed
    first_id, first_name = seeds[0]
    return graph[text_id]["inputs"][text_name], graph[first_id]["inputs"][first_name]


def find_node(graph: dict, class_type: str) -> dict:
    """Return the inputs of the only node of a class."""
    found = [node for node in graph.values() if node["class_type"] == class_type]
    if len(found) != 1:
        raise DemoError(f"the workflow has {len(found)} nodes {class_type}, one is wanted")
    return found[0]["inputs"]


def output_path(wanted: str | None, prompt: str, seed: int) -> Path:
    """Return where the clip goes; a folder gets a name made of the prompt and the seed."""
    name = f"{re.sub(r'[^a-z0-9]+', '_', prompt.lower()).strip('_')[:60] or 'clip'}_{seed}.mp4"
    path = Path(wanted) if wanted else PACK_ROOT / "output" / name
    if path.is_dir() or (wanted or "").endswith(("/", os.sep)):
        path = path / name
    if path.suffix.lower() != ".mp4":
        raise DemoError(f"OUT={wanted} must end in .mp4, or be a folder")
    try:
        for target in (path, path.with_name(f"{path.stem}_sheet.png")):
            core_file("files").check_target(target)
    except (OSError, ValueError) as error:
        raise DemoError(f"OUT={wanted} cannot be written: {error}") from None
    return path


# The terminal.


class ProgressBar:
    """Steps done and time left: one line redrawn on a terminal, a line every few seconds elsewhere."""

    QUIET_SECONDS = 5.0

    def __init__(self, stream=sys.stdout, clock=time.monotonic):
        self._stream, self._clock = stream, clock
        self._terminal = stream.isatty()
        self._node_began = clock()
        self._first: tuple[float, float] | None = None  # when the first step was reported, and which
        self._last: float | None = None
        self._printed = 0.0
        self._open = False

    def __call__(self, event: str, data: object) -> None:
        if event == "executing":
            self.close()
            self._node_began, self._first, self._last = self._clock(), None, None
        elif event == "progress":
            self._step(data["value"], data["max"])

    def _step(self, value: float, total: int) -> None:
        if value == self._last:  # a preview of the same step
            return
        now, self._last = self._clock(), value
        if self._first is None or value <= self._first[1]:
            # Loading is in this first estimate; the later ones count from here.
            spent, done = now - self._node_began, value
            self._first, self._printed = (now, value), 0.0
        else:
            spent, done = now - self._first[0], value - self._first[1]
        left = f"{_duration(spent / done * (total - value))} left" if done else "time left unknown"
        if self._terminal:
            filled = round(30 * value / max(1, total))
            bar = "#" * filled + "-" * (30 - filled)
            self._stream.write(f"\r  [{bar}] step {round(value, 2):g}/{total}, {left}\x1b[K")
            self._open = True
            if value >= total:
                self.close()
        elif value >= total or now - self._printed >= self.QUIET_SECONDS:
            self._stream.write(f"  step {round(value, 2):g}/{total}, {left}\n")
            self._printed = now
        self._stream.flush()

    def close(self) -> None:
        """End the line that is being redrawn, if any."""
        if self._open:
            self._stream.write("\n")
            self._open = False


def _duration(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def peak_memory_gib() -> float:
    """Return the most memory this process has held, in GiB."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


# The files.


@contextlib.contextmanager
def saved_clip(host: HeadlessHost, graph: dict, base: Path, on_event=None):
    """Run a graph with one SaveVideo; the mp4 is there inside the `with`, and nothing of it after."""
    scratch = f"demo-{uuid.uuid4().hex[:8]}"  # a folder of this run's own below the host's output
    find_node(graph, "SaveVideo")["filename_prefix"] = f"{scratch}/clip"
    try:
        yield saved_file(host.run(graph, on_event=on_event), base)
    finally:
        shutil.rmtree(base / "output" / scratch, ignore_errors=True)


def saved_file(outputs: dict, base: Path) -> Path:
    """Return the video among what the nodes showed."""
    for shown in outputs.values():
        for file in shown.get("images", ()):
            if file["filename"].endswith(".mp4"):
                return base / file["type"] / file["subfolder"] / file["filename"]
    raise DemoError("the workflow saved no mp4")


def check_clip(path: Path, frames: int, fps: float):
    """Read the clip back and return its frames (t, h, w, 3) uint8; raise if it is not what was asked for."""
    import av
    import numpy as np

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        codec, rate = stream.codec_context.name, stream.average_rate
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    if (codec, rate, len(images)) != ("h264", Fraction(fps), frames):
        raise DemoError(f"the clip is {codec}, {len(images)} frames at {rate} a second; wanted h264, {frames} at {fps}")
    return np.stack(images)


def publish(clip: Path, pixels, output: Path, media, files) -> list[Path]:
    """Put the clip and its two pictures in place, all of them or none; return their paths."""
    pictures = [output.with_name(f"{output.stem}_{kind}.png") for kind in ("sheet", "slice")]
    paths = [output, *pictures]
    new = [path for path in paths if not path.exists()]
    # The workflow enlarges every pixel; the pictures need fewer of them.
    small = max(1, pixels.shape[2] // 64)
    half = max(1, pixels.shape[2] // 128)
    try:
        with contextlib.ExitStack() as stack:
            partial = [stack.enter_context(files.atomic(path)) for path in paths]
            shutil.copyfile(clip, partial[0])
            media.save_image(media.contact_sheet(pixels[:, ::half, ::half], columns=10), partial[1])
            media.save_image(media.xt_slice(pixels[:, ::small, ::small]), partial[2])
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        raise
    return paths


# All of it.


def run(options: argparse.Namespace) -> None:
    began = time.monotonic()
    graph = read_workflow(options.workflow)
    prompt, seed = fill_in(graph, options.prompt, options.seed)
    empty = find_node(graph, "EmptyLumiereLatentVideo")
    frames, fps = empty["length"], empty["fps"]
    output = output_path(options.output, prompt, seed)

    print(f'"{prompt}", seed {seed}: {frames} frames at {fps:g} a second', flush=True)
    comfyui = find_host()
    prepare_base(options.base)
    cpu = options.cpu or needs_cpu_flag()
    print(f"starting the host in {comfyui}{' on the CPU' if cpu else ''} ...", flush=True)
    host = HeadlessHost(comfyui, options.base, ["--cpu"] if cpu else [])
    import comfy.utils

    comfy.utils.set_progress_bar_enabled(False)  # the host's own bar; ours has the time left
    booted = time.monotonic()
    print(f"  started in {booted - began:.0f} s; running {options.workflow.name}", flush=True)

    bar = ProgressBar()
    try:
        with saved_clip(host, graph, options.base, bar) as clip:
            bar.close()
            ran = time.monotonic()
            pixels = check_clip(clip, frames, fps)
            paths = publish(clip, pixels, output, *map(host.module, ("lumiere_core.clips.media", "lumiere_core.files")))
    finally:
        bar.close()

    height, width = pixels.shape[1:3]
    print(f"clip           {paths[0]}  ({len(pixels)} frames, {fps:g} fps, {width}x{height}, H.264)")
    print(f"contact sheet  {paths[1]}")
    print(f"x-t slice      {paths[2]}")
    print(
        f"took {time.monotonic() - began:.0f} s ({booted - began:.0f} s to start the host, "
        f"{ran - booted:.0f} s to run the workflow); peak memory {peak_memory_gib():.2f} GiB"
    )


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line, else of the environment, with the workflow that they choose."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    environment = os.environ.get
    parser.add_argument("--prompt", default=environment("PROMPT"), help="what the clip shows")
    parser.add_argument("--seed", default=environment("SEED") or None, help="a whole number")
    parser.add_argument("--output", default=environment("OUT"), help="an .mp4 file or a folder")
    parser.add_argument(
        "--hd",
        action="store_true",
        default=environment("HD", "") not in ("", "0"),
        help="512x512 pixels, by the super-resolution stage",
    )
    parser.add_argument("--workflow", type=Path, help="an API-format workflow; default: the pack's")
    parser.add_argument("--base", type=Path, default=BASE, help="the host's models and outputs")
    parser.add_argument("--cpu", action="store_true", help="do not use an accelerator")
    options = parser.parse_args(arguments)
    if options.workflow is None:
        options.workflow = template(f"text_to_video{'_hd' if options.hd else ''}")
    return options


def main() -> int:
    print_anything()
    options = read_options()
    try:
        if options.seed is not None:
            try:
                options.seed = int(options.seed)
            except ValueError:
                raise DemoError(f"SEED={options.seed} must be a whole number") from None
        run(options)
    except (DemoError, HostError, OSError) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; no files were written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
