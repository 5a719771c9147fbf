"""Walking through a clip, frame by frame, with its neighbours and what it is compared with.

h, w - pixels. Frames become (3, h, w) float32 in levels of 255.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

Frame = Tensor | np.ndarray
WHOLE = {torch.uint8: 1.0, torch.uint16: 1 / 257, torch.bool: 255.0}  # what a step of each is in levels
BEYOND = 0.5  # of the range, that a model's floats may be off
ONE_MASK = "one mask for all or one for each frame is wanted"


@dataclass
class Step:
    """One frame of a clip.

    Attributes:
        number: from 0.
        frame, previous, before: the frame, the one before it and the one before that; (3, h, w) levels.
        reference: the frame of the clip that this one is compared with; (3, h, w) levels.
        known: (h, w) bool, true where the clip was given and should have been kept.
    """

    number: int
    frame: Tensor
    previous: Tensor | None = None
    before: Tensor | None = None
    reference: Tensor | None = None
    known: Tensor | None = None

    @cached_property
    def change(self) -> float:
        """Mean absolute difference to the previous frame, in levels."""
        return change(self.previous, self.frame)

    @cached_property
    def grey(self) -> Tensor:
        """(h, w) mean of the channels."""
        return self.frame.mean(0)


def change(first: Tensor, second: Tensor, where: Tensor | None = None) -> float:
    """Return the mean absolute difference of two (3, h, w) frames, in their unit.

    Args:
        where: (h, w) bool; None or an empty one = everywhere.
    """
    difference = (second - first).abs()
    if where is not None and bool(where.any()):
        difference = difference[:, where]
    return float(difference.mean())


def levels(frame: Frame, number: int = 0) -> Tensor:
    """(h, w, c) uint8, uint16, or float in [0, 1] -> (3, h, w) float32 levels; transparency (a fourth channel) is left out.

    Floats a little beyond [0, 1] are clipped, as they are when a clip is shown or saved.

    Raises:
        ValueError: not a frame, of another type or range, or with values that are no numbers.
    """
    frame = torch.tensor(frame) if isinstance(frame, np.ndarray) else torch.as_tensor(frame).detach()
    if frame.ndim != 3 or frame.shape[-1] not in (1, 3, 4) or 0 in frame.shape:
        raise ValueError(f"frame {number} has shape {tuple(frame.shape)}; (height, width, 3) is wanted.")
    frame = frame[..., :3].movedim(-1, 0)
    if frame.dtype in WHOLE:
        return (frame.float() * WHOLE[frame.dtype]).expand(3, -1, -1)
    if not frame.is_floating_point():
        raise ValueError(f"frame {number} holds {frame.dtype}; uint8 from 0 to 255, or floats from 0 to 1, are wanted.")
    frame = frame.float()
    if not bool(torch.isfinite(frame).all()):
        raise ValueError(
            f"frame {number} holds values that are no numbers (NaN or infinity): the model that made it failed. "
            "Sample it again in fp32, or with another VAE precision."
        )
    low, high = (float(value) for value in frame.aminmax())
    if not -BEYOND <= low <= high <= 1 + BEYOND:
        raise ValueError(
            f"frame {number} holds values from {low:.3g} to {high:.3g}; floats from 0 to 1 are wanted. Bring them there first: "
            "(x + 1) / 2 from [-1, 1], x / 255 from levels."
        )
    return (frame.clamp(0, 1) * 255).expand(3, -1, -1)


def walk(
    frames: Iterable[Frame], reference: Iterable[Frame] | None = None, known: Iterable[Tensor] | None = None
) -> Iterator[Step]:
    """Yield every frame of a clip with its neighbours; at most a handful of frames are held at any time.

    Args:
        frames: (h, w, 3) each; a (t, h, w, 3) tensor will do.
        reference: as many frames of the same size.
        known: (h, w) of 1 = known, for every frame, or a single one for all.

    Raises:
        ValueError: sizes differ within the clip, or between it and what it is compared with; lengths differ.
    """
    previous = before = None
    if isinstance(known, Tensor | np.ndarray) and known.ndim == 2:
        known = known[None]
    given = iter(known) if known is not None else None
    masks = _masks(given)
    others = iter(reference) if reference is not None else None
    number = -1
    for number, frame in enumerate(frames):
        step = Step(number, levels(frame, number), previous, before)
        if previous is not None and previous.shape != step.frame.shape:
            raise ValueError(
                f"frame {number} is {_size(step.frame)} and those before it are {_size(previous)}; "
                "one size is wanted. Scale the frames first."
            )
        if others is not None:
            other = next(others, None)
            if other is None:
                raise ValueError(f"the reference has {number} frames and the clip more; trim the longer one.")
            step.reference = levels(other, number)
            if step.reference.shape != step.frame.shape:
                raise ValueError(
                    f"the reference is {_size(step.reference)} and the clip {_size(step.frame)}; one size is wanted."
                )
        step.known = next(masks, None)
        if step.known is not None and step.known.shape != step.frame.shape[1:]:
            raise ValueError(
                f"the mask is {step.known.shape[1]}x{step.known.shape[0]} and the clip {_size(step.frame)}; "
                "one size is wanted."
            )
        yield step
        previous, before = step.frame, previous
    if others is not None and number >= 0 and next(others, None) is not None:
        raise ValueError(f"the clip has {number + 1} frames and the reference more; trim the longer one.")
    if given is not None and number >= 0 and next(given, None) is not None:
        raise ValueError(f"the clip has {number + 1} frames and there are more masks; {ONE_MASK}.")


def _masks(known: Iterable[Tensor] | None) -> Iterator[Tensor | None]:
    """Yield a mask for every frame for ever: the only one again and again.

    Raises:
        ValueError: there are several masks or none, and more frames.
    """
    mask, count = None, 0
    for given in known if known is not None else ():
        count += 1
        mask = torch.as_tensor(given) > 0.5
        yield mask
    while known is None or count == 1:
        yield mask
    raise ValueError(f"there are {count} masks and more frames; {ONE_MASK}.")


def _size(frame: Tensor) -> str:
    return f"{frame.shape[2]}x{frame.shape[1]} pixels"
