"""`make gpu PLAN=bench|train|nodes MINUTES=9`: a prepared plan on a bare machine with a card.

Needs torch and what the plan imports (`pack.py` gathers it); no network. Figures and weights go to $OUT, or runs/gpu,
as they come; called again with what came back there, it goes on. Without a card it runs on the CPU, for hours; with
`--small` in seconds, to see that it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import plan

PLANS = ("bench", "train", "nodes")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("plan", choices=PLANS)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--device", default=None, help="default: cuda where there is one")
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("OUT") or plan.ROOT / "runs" / "gpu"))
    parser.add_argument("--small", action="store_true", help="tiny networks: only whether it runs")
    options = parser.parse_args(arguments)
    device = options.device or ("cuda" if plan.torch.cuda.is_available() else "cpu")
    deadline = plan.Deadline(options.minutes)
    if options.plan == "train":
        import train

        return train.run(options.output, device, deadline, options.small)
    kept = plan.Kept(options.output / f"{options.plan}.json", plan.machine(device))
    if options.plan == "bench":
        import bench

        waiting = plan.run(bench.Bench(device, options.small).tasks(), kept, deadline)
    else:
        import on_host

        with tempfile.TemporaryDirectory() as folder:
            waiting = plan.run(on_host.tasks(Path(folder), options.small, deadline.left), kept, deadline)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{options.plan}.md").write_text(plan.table(kept), encoding="utf-8")
    failed = [figure.name for figure in kept.figures() if figure.value is None]
    for title, names in (("not measured", failed), ("no time was left for", waiting)):
        if names:
            print(f"# {title}: {', '.join(names)}")
    return 1 if failed or waiting else 0


if __name__ == "__main__":
    sys.exit(main())
