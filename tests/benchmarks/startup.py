"""What importing the pack adds to the host's start: the time the host itself logs for a node pack."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from figures import Figure

ROOT = Path(__file__).resolve().parents[2]
BAR = 0.15  # seconds


def measure(clock: str, turns: int) -> Iterator[Figure]:
    """Yield the median of fresh processes.

    Args:
        clock: "wall" or "cpu".
    """
    name = "startup.import_of_the_pack"
    seconds = []
    for _ in range(turns + 1):  # the first also compiles the pack
        result = subprocess.run([sys.executable, __file__], check=False, capture_output=True, text=True)
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            yield Figure(name, None, "s", BAR, f"the host did not start: {reason}")
            return
        seconds.append(json.loads(result.stdout.splitlines()[-1])[clock])
    yield Figure(name, statistics.median(seconds[1:]), "s", BAR)


def _import_once() -> dict[str, float]:
    """Boot the host without a pack, then load this one as the host loads packs."""
    sys.path.append(str(ROOT / "nodes" / "headless"))
    import boot

    sys.path.remove(str(ROOT / "nodes" / "headless"))
    comfyui = boot.find_host()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        for name in boot.BASE_FOLDERS:
            (base / name).mkdir()
        boot.HeadlessHost(comfyui, base, ["--cpu"] if boot.needs_cpu_flag() else [])
        import nodes

        sys.dont_write_bytecode = False  # a user's second start finds the pack compiled
        boot.prepare_base(base)
        wall, cpu = time.perf_counter(), time.process_time()
        loaded = asyncio.run(nodes.load_custom_node(str(base / "custom_nodes" / "lumiere")))
        times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    if not loaded:
        raise RuntimeError("the host could not load the pack")
    return times


if __name__ == "__main__":
    # Off the path: the host must not find this folder's modules before its own.
    sys.path.remove(str(Path(__file__).resolve().parent))
    print(json.dumps(_import_once()))
