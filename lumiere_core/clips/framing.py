"""Bringing pictures, clips and masks to one size and frame rate; nothing here stretches unless it is asked to.

Shapes: n - images or frames, c - channels, h, w - height, width. Regions are 1 = to generate, in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .masks import covered

POLICIES = ("crop", "pad", "stretch")
LONGEST = 1 << 16  # frames, and pixels of a side before it is cropped


def fit(
    images: Tensor, height: int, width: int, policy: str, region: bool = False
) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Scale images to a size; those that have it come back as they are, bit for bit.

    Args:
        images: (n, c, h, w).
        policy: "crop" covers the frame and cuts off what is over, "pad" shows all and leaves borders of zeros,
            "stretch" changes the aspect ratio.
        region: they are masks, of which the smallest part stays and nothing is blurred; see `masks.covered`.

    Returns:
        (n, c, height, width), and the borders (left, top, right, bottom) in pixels that hold no picture.

    Raises:
        ValueError: the policy is unknown, or the images are lines that cannot be cropped.
    """
    if policy not in POLICIES:
        raise ValueError(f"got {policy!r}; one of {POLICIES} is wanted.")
    scaled = _largest if region else _scaled
    h, w = images.shape[-2:]
    if policy == "stretch" or h * width == w * height:
        return scaled(images, height, width), (0, 0, 0, 0)
    choose = max if policy == "crop" else min
    scale = choose(height / h, width / w)
    size = max(1, round(h * scale)), max(1, round(w * scale))
    if max(size) > LONGEST:
        raise ValueError(
            f"pictures of {w}x{h} pixels are too narrow to fill {width}x{height}. Crop them first, or choose pad or stretch."
        )
    images = scaled(images, *size)
    h, w = images.shape[-2:]
    if policy == "crop":
        top, left = max(0, (h - height) // 2), max(0, (w - width) // 2)
        return images[..., top : top + height, left : left + width], (0, 0, 0, 0)
    top, left = (height - h) // 2, (width - w) // 2
    borders = (left, top, width - w - left, height - h - top)
    return bordered(images, borders), borders


def _scaled(images: Tensor, height: int, width: int) -> Tensor:
    if images.shape[-2:] == (height, width):
        return images
    scaled = F.interpolate(images, (height, width), mode="bilinear", antialias=True)
    return scaled.clamp(images.min(), images.max())


def _largest(region: Tensor, height: int, width: int) -> Tensor:
    return covered(region.flatten(0, 1), height, width).unflatten(0, region.shape[:2])


def bordered(images: Tensor, borders: tuple[int, int, int, int], value: float = 0.0) -> Tensor:
    """Add (left, top, right, bottom) pixels around images."""
    left, top, right, bottom = borders
    return F.pad(images, (left, right, top, bottom), value=value) if any(borders) else images


def place(
    images: Tensor,
    height: int,
    width: int,
    policy: str,
    borders: tuple[int, int, int, int] = (0, 0, 0, 0),
    region: Tensor | None = None,
    blank: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Fit images and the region in them into what the borders leave of a frame.

    Args:
        images: (n, c, h, w).
        borders: pixels (left, top, right, bottom) of the frame that the images do not reach.
        region: (n or 1, h, w), 1 where the images are to be made anew, less where softly; None = nowhere.
        blank: value of the borders.

    Returns:
        (n, c, height, width) and the region (n or 1, height, width), as soft as it was, with all borders in it.

    Raises:
        ValueError: the borders leave nothing.
    """
    left, top, right, bottom = borders
    inner = height - top - bottom, width - left - right
    if min(inner) < 1 or min(borders) < 0:
        raise ValueError(
            f"the borders are {left}, {top}, {right} and {bottom} pixels (left, top, right, bottom) of a frame of "
            f"{width}x{height}; 0 or more are wanted, and something must be left of the picture."
        )
    images, bars = fit(images, *inner, policy)
    sides = tuple(a + b for a, b in zip(bars, borders, strict=True))
    inside = (1, height - sides[1] - sides[3], width - sides[0] - sides[2])
    outside = bordered(images.new_zeros(inside), sides, 1.0)
    made = outside
    if region is not None:
        fitted = fit(region[:, None].to(images.dtype), *inner, policy, region=True)[0][:, 0]
        made = torch.maximum(bordered(fitted, borders, 1.0), outside)
    images = bordered(images, borders)
    if any(sides):
        images = torch.where(outside[:, None] > 0.5, images.new_tensor(blank), images)
    return images, made


def frames_at(count: int, source_fps: float, fps: float) -> Tensor:
    """Return the numbers of the frames that are shown at each tick of another frame rate. They are (ticks,), int64.

    The nearest earlier frame, so that no frame is mixed of two.

    Args:
        count: frames of the source.

    Raises:
        ValueError: a frame rate is not positive, or the clip would be longer than any that is made.
    """
    if source_fps <= 0 or fps <= 0:
        raise ValueError(f"the frame rates are {source_fps} and {fps}; both must be above 0.")
    length = count / source_fps * fps
    if not length <= LONGEST:
        raise ValueError(
            f"{count} frames at {source_fps:g} a second become {length:.3g} at {fps:g}; at most {LONGEST:,} are taken. "
            "Correct the frame rates."
        )
    times = torch.arange(max(1, round(length)), dtype=torch.float64) / fps
    return (times * source_fps + 1e-6).long().clamp(max=count - 1)


def grown(region: Tensor, pixels: int, on_frame: Callable[[], None] | None = None) -> Tensor:
    """Grow a (…, h, w) region in [0, 1] by a square brush of so many pixels to each side; negative shrinks it.

    Args:
        on_frame: called before each of the first dimension's frames; it may raise to stop.
    """
    if on_frame is not None and pixels:
        frames = []
        for frame in region.split(1):
            on_frame()
            frames.append(grown(frame, pixels))
        return torch.cat(frames)
    if pixels < 0:
        return 1 - grown(1 - region, -pixels)
    if pixels == 0:
        return region
    for axis in (-1, -2):  # the square is a row, then a column
        region = _largest_near(region, pixels, axis)
    return region


def _largest_near(values: Tensor, reach: int, axis: int) -> Tensor:
    """Return the largest of the 2 * reach + 1 values around each one along an axis (-1 or -2).

    Windows are doubled until two of them cover it, so the work grows with the logarithm of the reach.
    """
    wanted, length, width = 2 * reach + 1, values.shape[axis], 1
    values = F.pad(values, (reach, reach) if axis == -1 else (0, 0, reach, reach))
    while 2 * width <= wanted:
        count = values.shape[axis] - width
        values = torch.maximum(values.narrow(axis, 0, count), values.narrow(axis, width, count))
        width *= 2
    last = values.narrow(axis, wanted - width, length)
    return torch.maximum(values.narrow(axis, 0, length), last)


def feathered(region: Tensor, pixels: int, on_frame: Callable[[], None] | None = None) -> Tensor:
    """Let an (n, h, w) region fade out over so many pixels around it: 1 inside, then down to 0.

    Outwards only, so that nothing of what is to be replaced shows through.

    Args:
        on_frame: called before each frame; it may raise to stop.
    """
    if pixels == 0:
        return region
    faded = torch.empty_like(region)
    for number, frame in enumerate(region):  # one at a time stays in the processor's cache
        if on_frame is not None:
            on_frame()
        faded[number] = _faded(frame, pixels)
    return faded


def _faded(frame: Tensor, pixels: int) -> Tensor:
    fading = reached = frame
    for step in range(1, pixels + 1):
        reached = grown(reached, 1)
        fading = torch.maximum(fading, reached * (1 - step / (pixels + 1)))
    return fading
