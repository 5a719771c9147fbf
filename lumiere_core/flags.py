"""Flags of the command line whose numbers are within bounds, or refused by name before anything starts."""

from __future__ import annotations

import argparse
from collections.abc import Callable

MOST_THREADS = 1024
MOST_SEED = 2**64 - 1
LEAST_FPS, MOST_FPS = 0.01, 1000.0
MOST_FRAMES, MOST_STEPS, MOST_SCALE = 4096, 10_000, 64
MOST_SIDE = 16_384  # pixels; H.264 has no more
GUIDANCE_END = 0.5  # of the clips that are made; why, in diffusion/guidance.py
MANY = 10**9  # clips, minutes: more than anybody waits for


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a `type` of argparse: whole numbers from `least` to `most`."""
    return lambda text: _within(int, text, least, most=most, what="a whole number")


def real(least: float, most: float) -> Callable[[str], float]:
    """Return a `type` of argparse: numbers from `least` to `most`; neither NaN nor infinite."""
    return lambda text: _within(float, text, least, most=most, what="a number")


def _within(kind: type, text: str, least: float, most: float, what: str):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not least <= value <= most:  # not NaN either
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}; {what} from {least:g} to {most:g} is wanted")
    return value


def guidance_flag(parser: argparse.ArgumentParser) -> None:
    """Add --guidance-end."""
    parser.add_argument(
        "--guidance-end",
        type=real(0, 1),
        default=GUIDANCE_END,
        help="share of the noise levels, from the strongest on, at which --cfg counts; 1 = at every step",
    )


def threads_flag(parser: argparse.ArgumentParser) -> None:
    """Add --threads; `use_threads` takes it."""
    parser.add_argument("--threads", type=whole(1, MOST_THREADS), help="CPU threads; default: all")


def use_threads(count: int | None) -> None:
    """Let torch use so many CPU threads; None = all."""
    if count is not None:
        import torch

        torch.set_num_threads(count)
