"""How fast the procedural world is drawn: 64x64 frames of many scenes, in one batch, on all threads."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from figures import Figure

ROOT = Path(__file__).resolve().parents[2]
SCENES = 512
BAR = 300  # frames a second


def measure(turns: int) -> Iterator[Figure]:
    """Yield the frames a second of a process of its own: this one may be down to one thread."""
    command = [sys.executable, __file__, str(turns)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    values = {"drawn": None}
    if result.returncode:
        note = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
    else:
        values = json.loads(result.stdout.splitlines()[-1])
        note = f"64x64 pixels, {SCENES} scenes, wall time on {values['threads']} threads"
    yield Figure("world.drawn", values["drawn"], "frames/s", BAR, note, at_least=True)


def _speed(turns: int) -> dict[str, float]:
    """Draw each scene at one moment; return frames a second, the median of the turns, and the threads."""
    sys.path.insert(0, str(ROOT))
    import torch

    from lumiere_core import world

    scenes = [world.sample_scene(number) for number in range(SCENES)]
    times = torch.rand(SCENES, generator=torch.Generator().manual_seed(0)) * world.CLIP_SECONDS
    world.render_frames(scenes[:64], times[:64])  # the first call is slower
    seconds = []
    for _ in range(turns):
        began = time.perf_counter()
        world.render_frames(scenes, times)
        seconds.append(time.perf_counter() - began)
    return {"drawn": SCENES / statistics.median(seconds), "threads": torch.get_num_threads()}


if __name__ == "__main__":
    print(json.dumps(_speed(int(sys.argv[1]))))
