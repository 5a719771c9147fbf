"""Pictures redrawn in the styles of the paper's stylised clips, as data for fine-tuning (Lumiere §4.1).

Each style is a plain filter of the frame, so any clip of the world, or any picture, has a version in each. Lengths
are in units of 1/64 of the shorter side: a style looks the same at every resolution.

Shapes: n - images, h, w - height, width. Colours are in [0, 1] inside this file and [-1, 1] at its edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

UNITS = 64  # of the shorter side
CARD = (0.004, 0.6)  # share of the frame that an object may cover to be cut out as a sticker


@dataclass(frozen=True)
class Sheet:
    """What a style is drawn on: the picture, where its object is, and one random field an image."""

    colour: Tensor  # (n, 3, h, w) in [0, 1]
    mask: Tensor | None  # (n, 1, h, w) in [0, 1], the coverage of the main object
    field: Tensor  # (n or 1, 4, 16, 16) normal numbers
    unit: float  # pixels

    def blur(self, x: Tensor, units: float) -> Tensor:
        """Gaussian blur of (n, c, h, w); `units` is sigma in sheet units."""
        return blur(x, units * self.unit)

    def noise(self, channel: int, cells: int) -> Tensor:
        """Smooth noise (n or 1, 1, h, w) of about unit variance with `cells` bumps along a side."""
        grid = self.field[:, channel : channel + 1, :cells, :cells]
        return F.interpolate(grid, self.colour.shape[-2:], mode="bicubic", align_corners=True).clamp(-2.5, 2.5)


@torch.no_grad()
def stylise(
    images: Tensor,
    style: str,
    masks: Tensor | None = None,
    generator: torch.Generator | None = None,
    one_clip: bool = False,
) -> Tensor:
    """Redraw pictures in a style.

    Args:
        images: (n, 3, h, w) in [-1, 1].
        style: one of STYLES.
        masks: (n, 1, h, w) coverage of the main object in [0, 1], for the sticker; without one the whole
            picture is the sticker.
        generator: of the paper's grain and the like, on the CPU; None is seed 0.
        one_clip: the images are frames of one clip and lie on one sheet of paper.

    Returns:
        (n, 3, h, w) in [-1, 1].

    Raises:
        ValueError: there is no such style.
    """
    if style not in STYLES:
        raise ValueError(f"got style {style!r}, want one of {', '.join(STYLES)}")
    generator = generator or torch.Generator().manual_seed(0)
    field = torch.randn(1 if one_clip else len(images), 4, 16, 16, generator=generator)
    unit = min(images.shape[-2:]) / UNITS
    sheet = Sheet((images + 1) / 2, masks, field.to(images.device), unit)
    return STYLES[style].draw(sheet).clamp(0, 1) * 2 - 1


def watercolor(sheet: Sheet) -> Tensor:
    """Thin pigment on paper: edges wander, pigment pools along them, the paper shines through.

    Returns (n, 3, h, w) in [0, 1].
    """
    wet = _displace(sheet.blur(sheet.colour, 0.7), sheet, 0.6)
    pigment = (1 - wet) * 0.78
    pigment = pigment.lerp(pigment.mean(1, keepdim=True), 0.12)  # a little less saturated
    pigment = pigment * (1 + 0.22 * sheet.noise(2, 6) + 0.10 * sheet.noise(3, 16))
    rim = sheet.blur(edges(wet, sheet), 0.6)
    return 1 - pigment * (1 + 0.7 * rim) - 0.03


def line_drawing(sheet: Sheet) -> Tensor:
    """Pencil lines along the edges and hatching in the dark, on white. Returns (n, 3, h, w) in [0, 1]."""
    lines = (1.6 * edges(sheet.colour, sheet)).clamp(0, 1)
    dark = (0.55 - luminance(sheet.blur(sheet.colour, 1.0))).clamp(min=0) * 1.5
    h, w = sheet.colour.shape[-2:]
    y = torch.arange(h, device=dark.device).view(-1, 1)
    x = torch.arange(w, device=dark.device)
    stripes = 0.5 + 0.5 * torch.sin((x + y) * (2 * math.pi / (4 * sheet.unit)))
    paper = 0.97 - dark * stripes
    return (paper * (1 - lines) + 0.12 * lines).expand(-1, 3, -1, -1)


def flat_cartoon(sheet: Sheet) -> Tensor:
    """Few flat, saturated colours with black outlines. Returns (n, 3, h, w) in [0, 1]."""
    grey = luminance(sheet.colour)
    vivid = (grey + (sheet.blur(sheet.colour, 0.5) - grey) * 1.35).clamp(0, 1)
    flat = (vivid * 3).round() / 3
    outline = ((edges(sheet.colour, sheet) - 0.25) * 4).clamp(0, 1)
    return flat * (1 - outline)


def neon(sheet: Sheet) -> Tensor:
    """Glowing outlines in pure colours in the dark. Returns (n, 3, h, w) in [0, 1]."""
    peak = sheet.colour.amax(1, keepdim=True)
    low = sheet.colour.amin(1, keepdim=True)
    pure = (sheet.colour - low) / (peak - low).clamp_min(1e-3)
    cyan = sheet.colour.new_tensor([0.25, 0.85, 1.0]).view(1, 3, 1, 1)
    hue = cyan.lerp(pure, ((peak - low) * 3).clamp(0, 1))  # what has no colour glows in cyan
    tubes = edges(sheet.colour, sheet) * hue
    night = sheet.colour.new_tensor([0.03, 0.02, 0.09]).view(1, 3, 1, 1)
    glow = 1.1 * sheet.blur(tubes, 1.5) + 1.3 * sheet.blur(tubes, 4.0)
    return night + 0.10 * sheet.colour * peak + 0.9 * tubes + glow


def pixel_art(sheet: Sheet) -> Tensor:
    """Sixteen blocks along the shorter side, four levels of each colour. Returns (n, 3, h, w) in [0, 1]."""
    h, w = sheet.colour.shape[-2:]
    side = min(h, w, 16)
    cells = round(side * h / min(h, w)), round(side * w / min(h, w))
    blocks = F.adaptive_avg_pool2d(sheet.colour, cells)
    return F.interpolate((blocks * 3).round() / 3, (h, w), mode="nearest-exact")


def sticker(sheet: Sheet) -> Tensor:
    """The object cut out with a white rim and a shadow, on a plain sheet. Returns (n, 3, h, w) in [0, 1]."""
    cut = _card(sheet)
    if sheet.mask is not None:
        share = sheet.mask.mean((1, 2, 3), keepdim=True)
        cut = torch.where((share > CARD[0]) & (share < CARD[1]), sheet.mask, cut)
    rim = _grow(cut, 2.2 * sheet.unit)
    offset = max(1, round(1.6 * sheet.unit))
    shadow = sheet.blur(torch.roll(rim, (offset, offset), (2, 3)), 1.2)
    plain = sheet.colour.new_tensor([0.74, 0.80, 0.88]).view(1, 3, 1, 1) * (1 - 0.45 * shadow)
    paper = plain.lerp(torch.ones_like(plain), rim)
    grey = luminance(sheet.colour)
    return paper.lerp((grey + (sheet.colour - grey) * 1.15).clamp(0, 1), cut)


@dataclass(frozen=True)
class Style:
    """A filter and how a caption names it."""

    draw: Callable[[Sheet], Tensor]
    words: str  # appended to a caption: "a red ball, in watercolor style"


STYLES = {
    "watercolor": Style(watercolor, "in watercolor painting style"),
    "line_drawing": Style(line_drawing, "in line drawing style"),
    "flat_cartoon": Style(flat_cartoon, "in flat cartoon style"),
    "neon": Style(neon, "in glowing neon style"),
    "pixel_art": Style(pixel_art, "in pixel art style"),
    "sticker": Style(sticker, "in sticker style"),
}


def luminance(colour: Tensor) -> Tensor:
    """(n, 3, h, w) -> (n, 1, h, w), Rec. 601 weights."""
    return (colour * colour.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, True)


def edges(colour: Tensor, sheet: Sheet) -> Tensor:
    """Strength of the strongest edge of any colour, (n, 1, h, w) in [0, 1]."""
    x = F.pad(sheet.blur(colour, 0.6), (1, 1, 1, 1), mode="replicate")
    across = x[..., 1:-1, 2:] - x[..., 1:-1, :-2]
    down = x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
    strength = (across.square() + down.square()).sqrt().amax(1, keepdim=True)
    return (strength * sheet.unit * 1.8).clamp(0, 1)


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (n, c, h, w); sigma in pixels."""
    radius = min(max(1, math.ceil(2.5 * sigma)), min(x.shape[-2:]) - 1)
    if radius < 1:
        return x
    steps = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (steps / max(sigma, 1e-3)) ** 2)
    kernel = (kernel / kernel.sum()).repeat(x.shape[1], 1, 1)
    x = F.pad(x, (radius, radius, radius, radius), mode="replicate")
    x = F.conv2d(x, kernel[:, :, None, :], groups=x.shape[1])
    return F.conv2d(x, kernel[:, :, :, None], groups=x.shape[1])


def _displace(x: Tensor, sheet: Sheet, units: float) -> Tensor:
    """Let every pixel come from up to about `units` beside it."""
    h, w = x.shape[-2:]
    ys = (torch.arange(h, device=x.device) + 0.5) * 2 / h - 1
    xs = (torch.arange(w, device=x.device) + 0.5) * 2 / w - 1
    shift = units * sheet.unit * 2
    dx = sheet.noise(0, 12)[:, 0] * shift / w
    dy = sheet.noise(1, 12)[:, 0] * shift / h
    grid = torch.stack([xs.view(1, 1, w) + dx, ys.view(1, h, 1) + dy], -1)
    grid = grid.expand(len(x), -1, -1, -1)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _grow(mask: Tensor, radius: float) -> Tensor:
    """Widen a mask by about `radius` pixels, with a soft edge."""
    size = 2 * max(1, round(radius)) + 1
    wide = F.max_pool2d(mask, size, stride=1, padding=size // 2)
    return ((blur(wide, radius / 3) - 0.5) * 3 + 0.5).clamp(0, 1).maximum(mask)


def _card(sheet: Sheet) -> Tensor:
    """A card with round corners inside the frame, (1, 1, h, w)."""
    h, w = sheet.colour.shape[-2:]
    x = torch.arange(w, device=sheet.colour.device) + 0.5 - w / 2
    y = torch.arange(h, device=sheet.colour.device) + 0.5 - h / 2
    corner = 8 * sheet.unit
    dx = (x.abs() - (w / 2 - 7 * sheet.unit - corner)).clamp(min=0)
    dy = (y.abs() - (h / 2 - 7 * sheet.unit - corner)).clamp(min=0)
    distance = (dx.view(1, -1).square() + dy.view(-1, 1).square()).sqrt() - corner
    return (0.5 - distance).clamp(0, 1)[None, None].to(sheet.colour.dtype)
