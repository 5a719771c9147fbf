"""`evaluate ucf101`: zero-shot FVD and IS of any workflow, after the paper's section 5.2 and appendix B.2.

What the paper does not say is an option, and its default says so in the help: the reference videos, their frame rate, the
prompts' wording (PYoCo's list is not public as a whole), the resizing, and the networks' weights.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from collections import Counter
from pathlib import Path

from ..flags import MOST_FPS, real, whole
from ..measures.features.network import RESIZES
from ..text_files import lines_of, read_text
from .prompts import add_run_arguments, run_options

CLIPS = 10_235  # that the paper makes
NAME = re.compile(r"v_([A-Za-z]+)_g\d+_c\d+$")
PUBLISHED = (  # Table 1 of the paper: FVD, IS
    ("MagicVideo", 655.00, None),
    ("Emu Video", 606.20, 42.70),
    ("Video LDM", 550.61, 33.45),
    ("Show-1", 394.46, 35.42),
    ("Make-A-Video", 367.23, 33.00),
    ("PYoCo", 355.19, 47.76),
    ("SVD", 242.02, None),
    ("Lumiere", 332.49, 37.54),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workflow", type=Path, required=True, help="API-format workflow of any model")
    parser.add_argument("--videos", type=Path, required=True, help="folder of UCF101, files named v_CLASS_g01_c01")
    parser.add_argument("--i3d", required=True, help="I3D as safetensors or ONNX, or a VideoMAE or V-JEPA 2 folder")
    parser.add_argument("--c3d", help="C3D as safetensors, trained on UCF101, for the Inception Score")
    parser.add_argument(
        "--clips", type=whole(2, 1_000_000), default=CLIPS, help=f"how many to make; the paper: {CLIPS}"
    )
    parser.add_argument("--list", type=Path, help="text file that names the reference videos; the paper is silent: all")
    parser.add_argument(
        "--wording",
        choices=("words", "bare"),
        default="words",
        help="of the prompts: the class's name in words, or as it is (SVD); the paper uses PYoCo's list",
    )
    parser.add_argument("--class-prompts", type=Path, help="CSV of class and prompt, in place of --wording")
    parser.add_argument("--frames", type=whole(0, 4096), default=16, help="from the first; the paper: 16")
    parser.add_argument(
        "--video-fps", type=real(0, MOST_FPS), default=0, help="of all clips; the paper is silent: each its own"
    )
    parser.add_argument(
        "--resize", choices=RESIZES, default="stretch", help="of frames to the network's size; the paper is silent"
    )
    parser.add_argument(
        "--size", type=whole(0, 4096), default=0, help="pixels; the paper says 244 (sic); default: the network's"
    )
    parser.add_argument("--correction", type=int, choices=(0, 1), default=1, help="covariance over n - 1, or over n")
    parser.add_argument("--device", default="cpu", help="of the networks of features")
    parser.add_argument("--output", type=Path, required=True, help="folder of the clips and of the features")
    add_run_arguments(parser)


def main(options: argparse.Namespace) -> int:
    from ..device import check_device
    from ..files import check_target, write_text
    from ..measures.features import load_network
    from ..measures.sets import compare_sets, inception_score
    from ..measures.sets.statistics import SPLITS
    from .runs import load_graph, run_workflow
    from .video_set import Protocol, read_set, videos_in

    if options.prompts:
        raise ValueError("--prompts is not for ucf101, whose prompts are of its classes; use --class-prompts.")
    check_device(options.device)
    load_graph(options.workflow)
    network = load_network(options.i3d, options.device)
    scorer = load_network(options.c3d, options.device) if options.c3d else None
    for used in filter(None, (network, scorer)):  # before the clips are made, not after
        used.check_frames(options.frames or used.frames)
    check_target(options.output / "ucf101.txt")
    real = reference(videos_in(options.videos), options.list)
    jobs = class_jobs(real, options)
    lines = run_workflow(options.workflow, jobs, options.output / "clips", **run_options(options))
    if len(lines) < len(jobs):
        sys.stdout.write(f"{len(lines)} of {len(jobs)} clips; run it again to go on. Figures come with the last one.\n")
        return 1
    made = [options.output / "clips" / f"{line['case']}.mp4" for line in lines]
    protocol = Protocol(options.frames, options.video_fps, options.resize, options.size)
    cache = options.output / "features.jsonl"
    sets = [
        read_set(files, name, network, protocol=protocol, cache=cache, on_clip=_count(name))
        for name, files in (("UCF101", real), ("made", made))
    ]
    report = compare_sets(*sets, protocol.text(network), correction=options.correction)
    score = None
    text = report.table()
    if scorer is not None:
        scored = read_set(made, "made", scorer, protocol=protocol, cache=cache, on_clip=_count("made, for the score"))
        if len(scored.features) >= SPLITS:
            score, spread = inception_score(scored.features)
            text += f"\nInception Score {score:.4f} ± {spread:.4f} by {scorer.name}, weights sha256 {scorer.sha256}"
        else:
            text += f"\nno Inception Score: {len(scored.features)} clips, {SPLITS} at least are wanted"
    text += "\n\n" + table_1(options.workflow.stem, report.values["frechet"], score)
    write_text(options.output / "ucf101.txt", text + "\n")
    sys.stdout.write(f"\n{text}\n")
    return 0


def reference(files: list[Path], chosen: Path | None) -> list[Path]:
    """Return the reference videos: those with a class in their name, or those that a list names.

    Raises:
        ValueError: there are none.
    """
    found = [file for file in files if NAME.match(file.stem)]
    if chosen is not None:
        # UCF's own lists have "Class/v_Class_g01_c01.avi 1".
        names = {Path(line.split()[0]).stem for line in lines_of(read_text(chosen)) if line.strip()}
        found = [file for file in found if file.stem in names]
    if not found:
        raise ValueError("no reference videos: files named like v_ApplyEyeMakeup_g01_c01.avi are wanted.")
    return found


def class_jobs(real: list[Path], options: argparse.Namespace) -> list:
    """Return the clips that are wanted, with the classes of the reference in the same shares."""
    from .runs import Job

    texts = prompts_of_classes(options.class_prompts) if options.class_prompts else {}
    counts = Counter(NAME.match(file.stem)[1] for file in real)
    missing = sorted(set(counts) - set(texts)) if texts else []
    if missing:
        raise ValueError(f"{options.class_prompts} has no prompt for {', '.join(missing[:5])}.")
    jobs = []
    for name, count in shared_out(counts, options.clips).items():
        prompt = texts.get(name) or (name if options.wording == "bare" else in_words(name))
        jobs += [Job(f"{name}_{index:04d}", prompt, options.seed + len(jobs) + index) for index in range(count)]
    return jobs


def shared_out(counts: Counter[str], total: int) -> dict[str, int]:
    """Share a number out in proportion, by largest remainders."""
    whole = sum(counts.values())
    exact = {name: total * count / whole for name, count in sorted(counts.items())}
    shares = {name: int(value) for name, value in exact.items()}
    order = sorted(exact, key=lambda name: (shares[name] - exact[name], name))
    for name in order[: total - sum(shares.values())]:
        shares[name] += 1
    return {name: share for name, share in shares.items() if share}


def in_words(name: str) -> str:
    """ApplyEyeMakeup -> "apply eye makeup"."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|[a-z]+", name)).lower()


def prompts_of_classes(path: Path) -> dict[str, str]:
    """Read a CSV of class and prompt."""
    try:
        return {
            row[0].strip(): row[1].strip()
            for row in csv.reader(io.StringIO(read_text(path), newline=""))
            if len(row) > 1
        }
    except csv.Error as error:
        raise ValueError(f"{path} is no table of class and prompt ({error}).") from error


def table_1(name: str, frechet: float, score: float | None) -> str:
    """Return the paper's Table 1 with ours below it."""
    lines = [f"{'Table 1 of the paper':<24} {'FVD':>8} {'IS':>7}"]
    for method, fvd, inception in (*PUBLISHED, (f"{name} (measured here)", frechet, score)):
        lines.append(f"{method:<24} {fvd:8.2f} {'-' if inception is None else f'{inception:.2f}':>7}")
    lines.append(
        "The rows above ours are as printed; their protocols differ in clips, prompts, resizing and weights, and the "
        "paper's own is not known in full."
    )
    return "\n".join(lines)


def _count(name: str):
    def show(done: int, total: int) -> None:
        if done % 100 == 0 or done == total:
            sys.stderr.write(f"\rfeatures of {name}: {done}/{total}" + "\n" * (done == total))

    return show
