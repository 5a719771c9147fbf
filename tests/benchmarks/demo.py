"""lumiere-mini as it is used: time and memory of `make demo`, and frames a second sampled and trained."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from figures import Figure

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "a red ball bouncing on grass"
WORKFLOW = ROOT / "workflows" / "api" / "Lumiere 01 - Text to Video.json"
MOST_MEMORY, MOST_SECONDS, MOST_SECONDS_HD = 4, 180, 360  # GiB, seconds


def workflow_settings() -> tuple[int, int]:
    """Return the frames and steps of the demo's workflow."""
    inputs = {}
    for node in json.loads(WORKFLOW.read_text(encoding="utf-8")).values():
        inputs |= node["inputs"]
    return inputs["length"], inputs["steps"]


FRAMES, STEPS = workflow_settings()


def measure(clock: str, allocator: dict[str, str], turns: int) -> Iterator[Figure]:
    """Run the demo and a speed test, each in a process of its own.

    Args:
        clock: "wall" or "cpu"; the demo's own time is always wall time.
        allocator: environment with the allocator settings of the Makefile.
        turns: sampling and training steps that are timed.
    """
    environment = os.environ | allocator
    yield from _demo(environment)
    yield from _demo_hd(environment)
    command = [sys.executable, __file__, clock, str(turns)]
    result = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        yield Figure("mini.sampled", None, "frames/s", note=reason)
        return
    values = json.loads(result.stdout.splitlines()[-1])
    sampled = f"{FRAMES} frames of 64x64 pixels, {STEPS} steps with guidance"
    yield Figure("mini.sampled", values["sampled"], "frames/s", note=sampled)
    yield Figure("mini.trained", values["trained"], "frames/s", note="temporal layers, batch of 2 clips")


def _demo(environment: dict[str, str]) -> Iterator[Figure]:
    memory, seconds, reason = _run_demo(environment)
    note = reason or f"{FRAMES} frames, with the host"
    yield Figure("demo.peak_memory", memory, "GiB", MOST_MEMORY, note)
    note = reason or "wall time, with the host's start"
    yield Figure("demo.seconds", seconds, "s", MOST_SECONDS, note)


def _demo_hd(environment: dict[str, str]) -> Iterator[Figure]:
    memory, seconds, reason = _run_demo(environment, "--hd")
    note = reason or f"HD=1, wall time, with the host's start; peak memory {memory:g} GiB"
    yield Figure("demo.hd_seconds", seconds, "s", MOST_SECONDS_HD, note)


def _run_demo(environment: dict[str, str], *options: str) -> tuple[float | None, float | None, str]:
    """Return (peak memory in GiB, seconds, ""), or (None, None, why it failed)."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "nodes" / "headless" / "demo.py"), "--prompt", PROMPT, *options]
        command += ["--seed", "7", "--output", str(Path(folder) / "clip.mp4")]
        result = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    memory = re.search(r"peak memory ([\d.]+) GiB", result.stdout)
    seconds = re.search(r"took (\d+) s", result.stdout)
    if result.returncode or not (memory and seconds):
        return None, None, (result.stderr.strip().splitlines() or ["no reason given"])[-1]
    return float(memory[1]), float(seconds[1]), ""


def _speeds(clock: str, turns: int) -> dict[str, float]:
    """Return frames a second, sampled and trained."""
    sys.path.insert(0, str(ROOT))
    import torch
    from pairs import Clock

    from lumiere_core.diffusion.generate import Request, generate
    from lumiere_core.diffusion.models import load_models
    from lumiere_core.training.options import TrainOptions
    from lumiere_core.training.stages import world_clips_run

    clock = Clock(clock)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models, _ = load_models(device=device)
    now = time.perf_counter if clock.kind == "wall" else time.process_time
    stamps = []
    request = Request(PROMPT, num_frames=FRAMES, steps=turns + 1)
    generate(models, request, on_step=lambda *_: stamps.append(now()))
    step = statistics.median(b - a for a, b in zip(stamps, stamps[1:], strict=False))

    options = TrainOptions(batch_size=2, num_frames=FRAMES, device=device)
    run = world_clips_run("temporal", models, options)
    optimizer = torch.optim.AdamW(run.module.parameters(), lr=0.0)
    train = statistics.median(clock.time(_training_step(run, optimizer, index)) for index in range(turns))
    return {"sampled": FRAMES / (step * STEPS), "trained": options.batch_size * FRAMES / train}


def _training_step(run, optimizer, index: int) -> Callable[[], None]:
    def step() -> None:
        optimizer.zero_grad()
        run.loss(index).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    print(json.dumps(_speeds(sys.argv[1], int(sys.argv[2]))))
