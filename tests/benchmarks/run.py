"""`make bench`: measure speed and memory side by side, and hold them against their bars.

    python tests/benchmarks/run.py                    everything, about 20 minutes on two idle cores
    python tests/benchmarks/run.py --quick            one turn of everything
    python tests/benchmarks/run.py --only flops network

The figures are stored in results.json and shown in docs/measured.md. One line a figure: `name value unit (bar …) ok|short`, and at last `bars held: n/m`. The exit status is 0 only when every
bar holds; what could not be measured does not.
The comparisons run with the C library's own allocator, as in a host that was started by hand; the demo runs
with the settings that `make demo` gives it.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import stored
from figures import Figure

ROOT = Path(__file__).resolve().parents[2]
ALLOCATOR = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
KEPT = "LUMIERE_BENCH_"  # prefix under which the Makefile's allocator settings wait for the demo


def main() -> int:
    arguments = _arguments()
    if any(name in os.environ for name in ALLOCATOR):
        _start_again_without_allocator_settings()
    sys.path.insert(0, str(ROOT))
    groups = _groups(arguments)

    kept: list[Figure] = []
    status = report((figure for name in arguments.only for figure in groups[name]()), kept)
    if not arguments.quick:  # one turn tells whether it runs, not how fast
        stored.store(kept, _machine())
    return status


def report(figures: Iterable[Figure], kept: list[Figure] | None = None) -> int:
    """Print each figure as it comes, then how many bars hold; return the exit status.

    Args:
        kept: gets the figures that could be measured.
    """
    counted, failed = 0, []
    for figure in figures:
        if kept is not None and figure.value is not None:
            kept.append(figure)
        print(figure.line(), flush=True)
        counted += figure.counts
        if not figure.holds:
            failed.append(figure.name)
    if failed:
        print(f"# short: {', '.join(failed)}")
    print(f"bars held: {counted - len(failed)}/{counted}", flush=True)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ("flops", "network", "startup", "demo", "world", "checkpoints", "windows", "live")
    # Beside other programs, which it has to fetch first: only where it is asked for.
    parser.add_argument("--only", nargs="+", choices=(*names, "peers"), default=names)
    parser.add_argument("--quick", action="store_true", help="one turn of everything, which is not stored")
    parser.add_argument("--turns", type=int, help="how often the things compared take turns")
    parser.add_argument(
        "--clock",
        choices=("auto", "wall", "cpu"),
        default="auto",
        help="wall time on all threads, or CPU time of one; auto: CPU time on a busy machine",
    )
    return parser.parse_args()


def _groups(arguments: argparse.Namespace) -> dict[str, Callable[[], Iterator]]:
    import checkpoints
    import demo
    import flops
    import live
    import network
    import peers
    import startup
    import windows
    import world
    from pairs import Clock

    clock = Clock(arguments.clock)
    print(f"# {_machine()}; {clock.description}", flush=True)

    def turns(default: int) -> int:
        return 1 if arguments.quick else arguments.turns or default

    return {
        "flops": flops.measure,
        "network": lambda: network.measure(clock, turns(3)),
        "startup": lambda: startup.measure(clock.kind, turns(5)),
        "checkpoints": checkpoints.measure,
        "demo": lambda: demo.measure(clock.kind, _allocator_settings(), turns(3)),
        "world": lambda: world.measure(turns(5)),
        "windows": lambda: windows.measure(turns(3)),
        "live": lambda: live.measure(clock.kind, _allocator_settings(), turns(7)),
        "peers": lambda: peers.measure(clock.kind, turns(5)),
    }


def _machine() -> str:
    """Describe the machine in one line."""
    import torch

    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(v.split(":")[1].strip() for v in lines if v.startswith("model name"))
    except (OSError, StopIteration):
        pass
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{processor}, {os.cpu_count()} cores, {capability}{gpu}, torch {torch.__version__}"


def _start_again_without_allocator_settings() -> None:
    """glibc reads its settings when a process starts, so they can be dropped only by starting again."""
    environment = dict(os.environ)
    for name in ALLOCATOR:
        if name in environment:
            environment[KEPT + name] = environment.pop(name)
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def _allocator_settings() -> dict[str, str]:
    """Return the allocator settings that this process was started with."""
    return {n: os.environ[KEPT + n] for n in ALLOCATOR if KEPT + n in os.environ}


if __name__ == "__main__":
    sys.exit(main())
