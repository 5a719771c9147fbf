"""`evaluate VERB`: each verb has its own flags, and refuses those of the others.

Verbs with stored lines: run plainly, a few random stored cases are run again and must come out as stored; the table is
made from the file. `--all` runs what the file lacks and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..flags import MANY, guidance_flag, real, threads_flag, use_threads, whole

SPLITS = ("reporting", "tuning")
RESULTS_PAGE = Path(__file__).parents[2] / "docs" / "results.md"


@dataclass(frozen=True)
class Verb:
    """One line of `evaluate --help`.

    Attributes:
        module: of lumiere_core.evaluation; imported only for its verb.
        name: class of an evaluation with stored lines (`evaluation.stored`). "" where the module has `add_arguments`
            and `main` of its own.
        flags: what the class reads, besides the flags of every evaluation with stored lines.
        more: flags of further runs that have a table, besides plain ones.
    """

    text: str
    module: str
    name: str = ""
    flags: tuple[Callable[[argparse.ArgumentParser], object], ...] = ()
    more: tuple[tuple[str, ...], ...] = ()


def stored_flags(parser: argparse.ArgumentParser) -> None:
    """How many cases are run, and where their lines are."""
    parser.add_argument("--all", action="store_true", help="run every case that the file lacks")
    parser.add_argument(
        "--check",
        type=whole(0, 10_000),
        default=4,
        metavar="N",
        help="run N random stored cases again and compare (without --all)",
    )
    parser.add_argument("--limit", type=whole(1, MANY), metavar="N", help="with --all: run at most N cases now")
    parser.add_argument("--minutes", type=real(0, MANY), metavar="M", help="with --all: stop after M minutes")
    parser.add_argument(
        "--part",
        type=part,
        default=(1, 1),
        metavar="K/N",
        help="with --all: the K-th of N equal parts of the cases; start N processes to share the work",
    )
    parser.add_argument("--only", metavar="TEXT", help="with --all: cases whose prompt holds TEXT")
    parser.add_argument("--results", type=Path, help="file of JSON lines; default: kept with the code")
    threads_flag(parser)


def device_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu")


def weights_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", default="lumiere-mini", help="file, folder, lumiere-mini or lumiere-mini-128")


def sampling_flags(parser: argparse.ArgumentParser) -> None:
    """What makes the clips."""
    step_flags(parser)
    parser.add_argument("--frames", type=whole(1, 4096), default=80)


def step_flags(parser: argparse.ArgumentParser) -> None:
    """What makes clips of lengths that the verb knows."""
    weights_flag(parser)
    device_flag(parser)
    parser.add_argument("--steps", type=whole(1, 10_000), default=10)
    parser.add_argument("--cfg", type=real(0, 100), default=3.0, help="guidance scale; 1 = none")
    guidance_flag(parser)
    parser.add_argument("--sampler", default="ddim", help="ddim or ddpm")
    parser.add_argument("--scheduler", default="karras", help="karras or normal")


def clips_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=Path, help="with --all: folder that keeps the clips, and is read first")


def trained_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trained", type=Path, default=Path("runs/cascade"), help="folder of `train --recipe cascade`")


def split_flag(parser: argparse.ArgumentParser) -> None:
    """Figures are reported on prompts that nothing was chosen on."""
    parser.add_argument("--split", choices=SPLITS, default="reporting", help="settings are chosen on tuning")


def train_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--train", action="store_true", help="train the oracle's network anew first")


VERBS = {
    "mini": Verb(
        "held-out prompts of the world",
        "mini",
        "Mini",
        (sampling_flags, clips_flag, split_flag),
        more=(("--weights", "lumiere-mini-128"),),
    ),
    "oracle": Verb("the judge of the other verbs, on real clips", "oracle_check", "OracleCheck", (train_flag,)),
    "conditioning": Verb(
        "clips of which a part is given", "conditioning", "Conditioning", (sampling_flags, split_flag)
    ),
    "style": Verb("styles by interpolated weights", "style", "StyleEvaluation", (sampling_flags, clips_flag)),
    "seams": Verb("super-resolution in windows", "seams", "Seams", (weights_flag, device_flag)),
    "lengths": Verb("clips of 16 to 81 frames", "lengths", "Lengths", (step_flags, clips_flag, split_flag)),
    "loop": Verb("clips that loop", "loop", "Loop", (sampling_flags, clips_flag)),
    "extend": Verb("clips longer than the model", "extend", "Extend", (sampling_flags,)),
    "cascade": Verb(
        "a temporal cascade against a Space-Time U-Net", "cascade", "Cascade", (trained_flag, device_flag, clips_flag)
    ),
    "initialisation": Verb("first weights of the resizes", "initialisation", "Initialisation", (device_flag,)),
    "enlarging": Verb("super-resolution of real clips against bicubic", "enlarging"),
    "own-clips": Verb("a checkpoint and clips as a person brings them: do they learn to move?", "own_clips"),
    "by-heart": Verb("one real clip, learnt by heart by a person's own commands", "by_heart"),
    "prompts": Verb("clips of any workflow for the paper's prompts", "prompts"),
    "compare": Verb("two workflows on the same prompts", "compare"),
    "ucf101": Verb("zero-shot FVD and IS of any workflow", "ucf101"),
    "study": Verb("the page of a user study, and its answers", "study.verb"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--markdown",
        type=Path,
        nargs="?",
        const=RESULTS_PAGE,
        help="write docs/results.md, or FILE, from the stored lines",
    )
    verbs = parser.add_subparsers(dest="what", metavar="VERB", parser_class=LazyParser)
    for name, verb in VERBS.items():
        verbs.add_parser(name, help=verb.text, description=verb.text).verb = verb


class LazyParser(argparse.ArgumentParser):
    """The parser of one verb, which gets its flags when it is used: the other verbs' modules stay unread."""

    verb: Verb | None = None

    def parse_known_args(self, args=None, namespace=None):
        if self.verb is not None:
            verb, self.verb = self.verb, None
            for add in (stored_flags, *verb.flags) if verb.name else (_module(verb).add_arguments,):
                add(self)
        return super().parse_known_args(args, namespace)


def part(text: str) -> tuple[int, int]:
    """Read "2/3", the second of three parts."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"got {text!r}; K/N is wanted, such as 1/2 and 2/2 for two processes")
    return int(number), int(count)


def main(options: argparse.Namespace) -> int:
    if options.markdown is not None:
        from ..files import write_text

        write_text(options.markdown, results_page())
        sys.stdout.write(f"{options.markdown}\n")
        return 0
    if options.what is None:
        raise ValueError(f"nothing to evaluate: give one of {', '.join(VERBS)}, or --markdown.")
    verb = VERBS[options.what]
    if not verb.name:
        return _module(verb).main(options)
    from ..evaluation.stored import run_stored

    use_threads(options.threads)
    if not options.all:
        options.clips = None  # a check makes its clips anew
    if getattr(options, "train", False):
        _train_oracle()
    return run_stored(getattr(_module(verb), verb.name)(options), options)


def results_page() -> str:
    """Return docs/results.md as the stored lines of the shipped weights make it, the reporting split first."""
    from ..evaluation import report
    from ..evaluation.stored import lines_of

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    rows = []
    for name, verb in VERBS.items():
        if not verb.name:
            continue
        splits = ((), ("--split", "tuning")) if split_flag in verb.flags else ((),)
        for extra in (*splits, *verb.more):
            options = parser.parse_args([name, *extra])
            options.clips = None
            evaluation = getattr(_module(verb), verb.name)(options)
            command = " ".join(["python -m lumiere_core evaluate", name, *extra])
            rows.append((command, evaluation, lines_of(options)))
    return report.results_page(rows)


def _module(verb: Verb):
    return importlib.import_module(f"..evaluation.{verb.module}", __package__)


def _train_oracle() -> None:
    from ..evaluation.oracle.train_families import train_families

    write: Callable[[str], object] = lambda text: sys.stdout.write(text + "\n")  # noqa: E731
    accuracy = train_families(write)
    write(f"scene family on held-out scenes: {100 * accuracy:.1f} %")
