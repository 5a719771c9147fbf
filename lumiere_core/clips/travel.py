"""Prompts over time: which prompt counts how much at each frame of a clip.

Shapes: t - frames, k - prompts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from ..text_files import LINE_END

SHAPES = ("linear", "smooth", "step")
LAST = 10**9  # frame that a prompt may stand at
# The colon of Japanese and Chinese keyboards, too.
_BREAK = re.compile(rf"{LINE_END.pattern}|\s/\s+(?=-?\d+(?:\.\d+)?\s*s?\s*[:：])")
_LINE = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*(s?)\s*[:：]\s*(.*)", re.DOTALL)


def parse_travel(text: str, length: int, fps: float) -> list[tuple[float, str]]:
    """Read lines like "0: a red ball", "40: a blue ball", "2.5s: a green ball" or "-1: a ball of snow".

    Args:
        text: a line for each prompt; " / " before a time is a line break too.
        length: frames of the clip; a negative frame number counts from its end.
        fps: frames a second, for times in seconds.

    Returns:
        (frame, prompt) in the order of the frames, which need not be whole and may lie after the clip's end.

    Raises:
        ValueError: a line has no time, a time lies before any clip or after it or occurs twice, or there is no line.
    """
    found: dict[float, str] = {}
    for line in filter(str.strip, _BREAK.split(text)):
        match = _LINE.match(line)
        if match is None:
            raise ValueError(
                f"the line {line.strip()[:60]!r} has no time. Each line begins with a frame or a second, such as "
                '"40: a blue ball" or "2.5s: a blue ball".'
            )
        number, unit, prompt = match[1], match[2], match[3].strip()
        frame = float(number) * (fps if unit else 1.0)
        frame = frame + length if number.startswith("-") and not unit else frame
        if frame < 0:
            raise ValueError(f"the time {number}{unit} lies before the clip of {length} frames. Count from 0.")
        if frame > LAST:
            raise ValueError(f"the time {number[:20]}{unit} lies after any clip's end, frame {LAST:,}.")
        if frame in found:
            raise ValueError(f"there are two prompts for frame {frame:g}. Give each a time of its own.")
        found[frame] = prompt
    if not found:
        raise ValueError('there is no prompt. Write one a line with its frame, such as "0: a red ball".')
    return sorted(found.items())


def travel_weights(frames: Sequence[float], length: int, shape: str = "linear") -> Tensor:
    """Return (t, k) weights of prompts at the frames of a clip; each row sums to 1.

    Args:
        frames: ascending, where each prompt stands alone; before the first and after the last nothing changes.
        length: t.
        shape: between two prompts "linear", "smooth" (slow at both ends), or "step": the earlier one until the later.

    Raises:
        ValueError: the shape is unknown.
    """
    if shape not in SHAPES:
        raise ValueError(f"got {shape!r}; one of {SHAPES} is wanted.")
    places = torch.tensor(frames, dtype=torch.float64)
    now = torch.arange(length, dtype=torch.float64)
    after = torch.searchsorted(places, now, right=True).clamp(1, max(1, len(frames) - 1))
    weights = torch.zeros(length, len(frames))
    if len(frames) == 1:
        return weights + 1
    first, second = places[after - 1], places[after]
    share = ((now - first) / (second - first)).clamp(0, 1)
    if shape == "smooth":
        share = share * share * (3 - 2 * share)
    elif shape == "step":
        share = share.floor()
    share = share.float()
    rows = torch.arange(length)
    weights[rows, after - 1], weights[rows, after] = 1 - share, share
    return weights


def mix_rows(rows: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Return (t, …), at each frame the mixture of k tensors (1, …) of one shape, in float32.

    Args:
        weights: (t, k).
    """
    stacked = torch.cat([row.float() for row in rows])
    return torch.einsum("tk,k...->t...", weights.to(stacked), stacked).to(rows[0].dtype)
