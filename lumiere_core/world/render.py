"""Drawing scenes: many scenes at one time each, or one scene as a clip."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .canvas import CLIP_SECONDS, Canvas, Parameters
from .families import FAMILIES
from .scene import Scene

FRAMES_AT_ONCE = 64  # 64x64 frames per batch on a CPU: many small operations, so not too few
_PIXELS_AT_ONCE = FRAMES_AT_ONCE * 64 * 64


@torch.no_grad()
def render_frames(
    scenes: Sequence[Scene],
    times: Tensor,
    height: int = 64,
    width: int = 64,
    device: str | torch.device = "cpu",
    masks: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Draw one frame of each scene, batched by family.

    Args:
        times: (n,) seconds since the start of each scene's clip.
        masks: also return the coverage of each main object, (n, 1, h, w) in [0, 1].

    Returns:
        (n, 3, h, w) in [-1, 1], float32, on `device`.

    Raises:
        ValueError: times and scenes do not match in number, or a size is not positive.
    """
    times = torch.as_tensor(times, dtype=torch.float32).to(device).flatten()
    if len(times) != len(scenes):
        raise ValueError(f"got {len(scenes)} scenes and {len(times)} times, want one time per scene")
    _check_size(height, width)
    images = torch.empty(len(scenes), 3, height, width, device=device)
    covers = torch.empty(len(scenes), 1, height, width, device=device) if masks else None
    groups: dict[str, list[int]] = {}
    for row, scene in enumerate(scenes):
        groups.setdefault(scene.family, []).append(row)
    step = _batch_size(height, width, device)
    for rows in groups.values():
        for start in range(0, len(rows), step):
            chosen = rows[start : start + step]
            index = torch.tensor(chosen, device=device)
            group = [scenes[row] for row in chosen]
            image, mask = _draw(group, times[index], height, width=width, masked=masks)
            images[index] = image
            if covers is not None:
                covers[index] = mask[:, None]
    return images if covers is None else (images, covers)


@torch.no_grad()
def render_clip(
    scene: Scene,
    num_frames: int = 80,
    fps: float = 16.0,
    height: int = 64,
    width: int = 64,
    device: str | torch.device = "cpu",
    masks: bool = False,
    on_part: Callable[[], None] | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Draw the first `num_frames` frames of a scene at any frame rate.

    Args:
        on_part: called before each batch of frames; it may raise to stop.

    Returns:
        (3, t, h, w) in [-1, 1], float32, on `device`; with `masks` also the coverage of the main
        object, (1, t, h, w) in [0, 1].

    Raises:
        ValueError: the number of frames, the frame rate or a size is not positive.
    """
    _check_size(height, width)
    if num_frames < 1 or fps <= 0:
        raise ValueError(f"got {num_frames} frames at {fps} fps, want both above 0")
    times = torch.arange(num_frames, dtype=torch.float32, device=device) / fps
    step = _batch_size(height, width, device)
    images, covers = [], []
    for part in times.split(step):
        if on_part is not None:
            on_part()
        image, mask = _draw([scene], part, height, width=width, masked=masks)
        images.append(image.transpose(0, 1))
        if masks:
            covers.append(mask[None])
    clip = torch.cat(images, 1)
    return (clip, torch.cat(covers, 1)) if masks else clip


def to_uint8(images: Tensor) -> Tensor:
    """Turn (n, 3, h, w) in [-1, 1] into (n, h, w, 3) in 0..255 on the CPU."""
    return ((images + 1.0) * 127.5).round().to(torch.uint8).movedim(1, -1).cpu()


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"got a frame of {height}x{width} pixels, want at least 1x1")


def _batch_size(height: int, width: int, device) -> int:
    # A GPU takes about as long for one frame as for thousands.
    room = _PIXELS_AT_ONCE if torch.device(device).type == "cpu" else _PIXELS_AT_ONCE * 128
    return max(1, room // (height * width))


def _draw(
    scenes: Sequence[Scene], times: Tensor, height: int, width: int, masked: bool
) -> tuple[Tensor, Tensor | None]:
    """Draw scenes of one family: (n, 3, h, w) and coverage (n, h, w) or None for n times."""
    family = FAMILIES[scenes[0].family]
    names = tuple(scenes[0].parameters)
    rows = [[scene.parameters[name] for name in names] for scene in scenes]
    device = times.device
    parameters = Parameters(names, rows, device)
    side = math.sqrt(height * width)
    half_width, half_height, pixel = width / side, height / side, 2.0 / side
    x = (torch.arange(width, device=device) + 0.5) * pixel - half_width
    y = half_height - (torch.arange(height, device=device) + 0.5) * pixel
    x, y, time = x.view(1, 1, -1), y.view(1, -1, 1), times.view(-1, 1, 1)
    if "pan" in parameters and (any(parameters.listed("pan")) or any(parameters.listed("zoom"))):
        progress = time / CLIP_SECONDS - 0.5
        scale = torch.exp(-parameters["zoom"] * progress)
        x = x * scale + parameters["pan"] * progress * (2.0 * half_width)
        y = y * scale
        pixel = pixel * scale
    canvas = Canvas(x, y, time, pixel=pixel, half_width=half_width, half_height=half_height)
    if masked:
        canvas.visible = torch.zeros(1, 1, 1, device=device)
    family.draw(canvas, parameters)
    image = canvas.image.clamp(-1.0, 1.0)
    mask = canvas.visible.expand(len(times), height, width) if masked else None
    return image.expand(len(times), 3, height, width), mask
