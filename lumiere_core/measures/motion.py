"""Motion by optical flow, and how well frames agree when they are moved along it."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .figure import Figure, Measure, Unmeasurable
from .walk import Step

# (3, h, w) levels of two frames -> (2, h, w): where each pixel of the first is in the second, in pixels (x, y).
Flow = Callable[[Tensor, Tensor], Tensor]
LEAST_SIDE = 12  # pixels, of what OpenCV's DIS takes
FASTEST = 0.05  # share of a frame's pixels that `motion_fast` is the mean of


class Motion(Measure):
    """How much moves, and whether it is the same thing that arrives.

    Args:
        flow: default: `dis_flow`.
    """

    frames = 2
    figures = (
        Figure(
            "motion", "pixels a frame", (0, None), "mean length of the optical flow", source="DIS, Kroeger et al. 2016"
        ),
        Figure(
            "motion_fast",
            "pixels a frame",
            (0, None),
            "mean of the fastest twentieth of each frame's pixels",
            source="after VBench's dynamic degree",
        ),
        Figure(
            "warping_error",
            "levels",
            (0, 255),
            "mean absolute difference of a frame and the next one moved back along the flow, where nothing is hidden",
            source="Lai et al. 2018, with the flow and the unit of this pack",
        ),
        Figure(
            "hidden",
            "share",
            (0, 1),
            "pixels without a partner in the next frame: flow there and back do not meet",
            source="Sundaram et al. 2010",
        ),
    )

    def __init__(self, flow: Flow | None = None) -> None:
        self.flow = flow or dis_flow
        self._amounts: list[float] = []
        self._fast: list[float] = []
        self._errors: list[float] = []
        self._hidden: list[float] = []

    def see(self, step: Step) -> None:
        if step.previous is None:
            return
        there, back = self.flow(step.previous, step.frame), self.flow(step.frame, step.previous)
        length = there.square().sum(0).sqrt().flatten()
        self._amounts.append(float(length.mean()))
        self._fast.append(float(length.topk(max(1, round(FASTEST * length.numel()))).values.mean()))
        seen = meets(there, back)
        self._hidden.append(1 - float(seen.float().mean()))
        if bool(seen.any()):
            error = (warp(step.frame, there) - step.previous).abs().mean(0)
            self._errors.append(float(error[seen].mean()))

    def values(self) -> dict[str, float]:
        found = {"motion": mean(self._amounts), "motion_fast": mean(self._fast), "hidden": mean(self._hidden)}
        return found | ({"warping_error": mean(self._errors)} if self._errors else {})

    def curves(self) -> dict[str, list[float]]:
        return {"motion": self._amounts}


def dis_flow(first: Tensor, second: Tensor) -> Tensor:
    """Dense inverse search by OpenCV (Kroeger et al. 2016), medium preset; see `Flow`.

    Frames are (3, h, w) in levels of 255.

    Raises:
        Unmeasurable: frames of less than 12 pixels, or OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise Unmeasurable("optical flow needs OpenCV: install opencv-python (any variant of cv2).") from error

    if min(first.shape[1:]) < LEAST_SIDE:
        raise Unmeasurable(
            f"frames of {first.shape[2]}x{first.shape[1]} pixels are too small for optical flow; at least "
            f"{LEAST_SIDE} pixels are wanted."
        )
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    pair = [frame.mean(0).round().clamp(0, 255).byte().cpu().numpy() for frame in (first, second)]
    return torch.from_numpy(np.moveaxis(search.calc(*pair, None), -1, 0).copy())


def warp(frame: Tensor, flow: Tensor) -> Tensor:
    """Fetch for every pixel what the flow says lies there: (c, h, w) and (2, h, w) -> (c, h, w), bilinear."""
    height, width = flow.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([(x + flow[0]) / max(1, width - 1), (y + flow[1]) / max(1, height - 1)], -1) * 2 - 1
    return F.grid_sample(frame[None], place[None].to(frame), align_corners=True, padding_mode="border")[0]


def coarse_change(frames: Tensor, lag: int, cell: int) -> float:
    """Return the mean absolute change from each so many frames to the next as many, of means over cells of pixels.

    Motion without flicker and without an optical flow; (t, 1, h, w) frames, in their unit.

    Args:
        lag: frames that are averaged; a clip of less than two times as many has no change.
        cell: pixels of a cell's side.
    """
    coarse = F.avg_pool3d(frames.transpose(0, 1), (lag, cell, cell))
    return float((coarse[:, 1:] - coarse[:, :-1]).abs().mean())


def meets(there: Tensor, back: Tensor) -> Tensor:
    """(h, w) bool: whether the flow to the next frame and the one back from there cancel (Sundaram et al. 2010)."""
    returned = warp(back, there)
    gap = (there + returned).square().sum(0)
    return gap < 0.01 * (there.square().sum(0) + returned.square().sum(0)) + 0.5
