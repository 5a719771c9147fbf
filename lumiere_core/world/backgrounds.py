"""Landscapes behind the objects, at any time of day.

Parameters used: `variation` in [0, 1) shifts the layout, `daylight` is 0 at night, 1 at dusk and
2 by day, `plain_r/g/b` is the colour of a plain background. Sky, sea and snow keep clear of the
hue bands of the colours that BACKGROUND_COLOURS does not list for them (see palette.py).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import sdf
from .canvas import Canvas, Parameters, draw_by_kind

PLAIN = tuple(f"plain {name}" for name in ("red", "orange", "yellow", "green", "blue", "purple", "white", "black"))
BACKGROUNDS = (*PLAIN, "night sky", "grass", "beach at sunset", "snow", "ocean", "city", "street")

# Colours of the palette that a background itself shows: an object never has one of them.
BACKGROUND_COLOURS: dict[str, tuple[str, ...]] = {
    **{name: (name.split()[1],) for name in PLAIN},
    "night sky": ("black", "blue"),
    "grass": ("green",),
    "beach at sunset": ("orange", "yellow"),
    "snow": ("white",),
    "ocean": ("blue",),
    "city": (),
    "street": (),
}

# Named landscapes as (kind, daylight); families with a time of day use the kinds directly.
LANDSCAPES: dict[str, tuple[str, float]] = {
    **{name: ("plain", 2.0) for name in PLAIN},
    "night sky": ("sky", 0.0),
    "grass": ("grass", 2.0),
    "beach at sunset": ("beach", 1.0),
    "snow": ("snow", 2.0),
    "ocean": ("ocean", 2.0),
    "city": ("city", 2.0),
    "street": ("street", 2.0),
}
KINDS = ("plain", "sky", "grass", "beach", "snow", "ocean", "city", "street", "forest", "mountains")

HORIZON = -0.15  # height of the horizon as a share of half the frame


def landscape_parameters(kind: str, daylight: float, variation: float) -> dict[str, float]:
    """Scene parameters that choose a landscape of KINDS."""
    return {"landscape": float(KINDS.index(kind)), "daylight": daylight, "variation": variation}


def draw_landscape(
    canvas: Canvas,
    parameters: Parameters,
    daylight: Tensor | None = None,
    behind: Tensor | None = None,
    light: Tensor | None = None,
) -> None:
    """Fill the canvas with the landscape of each scene, batched by kind.

    Args:
        daylight: (n, 1, 1), where it changes in time; else the scenes' own.
        behind: coverage (n, h, w) of the main object where that is in the sky, behind the land, in
            the colour `light` (n or 1, 3, 1, 1).
    """
    canvas.daylight = parameters["daylight"] if daylight is None else daylight
    if behind is not None:
        canvas.layers |= {"behind": behind, "light": light}
    height, width = canvas.y.shape[1], canvas.x.shape[2]

    masked = canvas.visible is not None

    def draw(kind, part: Canvas, values: Parameters) -> Tensor:
        _DRAW[KINDS[int(kind)]](part, values)
        frames = max(part.image.shape[0], len(values))
        image = part.image.expand(frames, 3, height, width)
        if not masked:
            return image
        return torch.cat([image, part.visible.expand(frames, height, width)[:, None]], 1)

    drawn = draw_by_kind(canvas, parameters, parameters.listed("landscape"), draw)
    canvas.image = drawn[:, :3]
    if masked:
        canvas.visible = drawn[:, 3]


# Parts of landscapes.


def sky(canvas: Canvas, parameters: Parameters) -> None:
    """Fill with a vertical gradient by time of day, with stars at night."""
    top = canvas.tone((0.03, 0.04, 0.13), (0.48, 0.28, 0.41), (0.45, 0.78, 0.90))
    low = canvas.tone((0.08, 0.09, 0.24), (0.98, 0.58, 0.28), (0.80, 0.93, 0.97))
    share = (canvas.y / canvas.half_height * 0.8 + 0.15).clamp(0.0, 1.0)[:, None]
    canvas.fill(low + share * (top - low))
    if min(parameters.listed("daylight")) < 0.6:
        stars(canvas, parameters)
    if "behind" in canvas.layers:
        canvas.paint(canvas.layers["behind"], canvas.layers["light"], "subject")


def stars(canvas: Canvas, parameters: Parameters) -> None:
    """Twinkling stars in rows: each row repeats along x, so only the distance is per pixel."""
    variation = parameters["variation"]
    row = torch.arange(6.0, device=canvas.x.device).view(6, 1, 1, 1)
    phase = sdf.centred_remainder(row * 0.618 + variation, 1.0)
    gap = sdf.centred_remainder(canvas.x + phase * 1.3 + row * 0.37, 0.62 + 0.09 * (row % 3))
    offset = canvas.y - (0.92 - 0.17 * row) * canvas.half_height - 0.07 * torch.sin(phase * 40.0)
    nearest = None
    for across, up in zip(gap * gap, offset * offset, strict=True):
        squared = across + up
        nearest = squared if nearest is None else torch.minimum(nearest, squared)
    radius = 0.026 + 0.006 * torch.sin(canvas.time * 3.0 + variation * 6.0)
    alpha = canvas.cover(torch.sqrt(nearest) - radius, 1.0)
    alpha = alpha * (1.0 - 1.8 * canvas.daylight).clamp(0.0, 1.0)
    canvas.paint(alpha, canvas.constant((0.82, 0.82, 0.70)))


def below(canvas: Canvas, level, colour: Tensor, slope: float = 1.0) -> None:
    """Paint everything under a height; `level` may depend on x, (n, 1, w)."""
    canvas.paint(canvas.cover((canvas.y - level) * slope), colour)


def ground(canvas: Canvas, near: Tensor, far: Tensor, level: float = HORIZON) -> None:
    """Flat ground up to the horizon, with a gradient towards the viewer; colours (n, 3, 1, 1)."""
    level = level * canvas.half_height
    share = ((level - canvas.y) / canvas.half_height * 1.3).clamp(0.0, 1.0)[:, None]
    canvas.paint(canvas.cover(canvas.y - level), far + share * (near - far))


def ridge(canvas: Canvas, parameters: Parameters, base: float, height: float, period: float):
    """Height of a mountain range along x, (n, 1, w)."""
    x = canvas.x / period + parameters["variation"] * 3.0
    wave = sdf.triangle_wave(x) + 0.45 * sdf.triangle_wave(x * 1.7 + 0.3)
    return base * canvas.half_height + height * wave * canvas.half_height


def sea(canvas: Canvas, level: float = HORIZON) -> None:
    """Water up to the horizon with three rows of rolling crests."""
    near = canvas.tone((0.03, 0.07, 0.20), (0.20, 0.25, 0.42), (0.02, 0.38, 0.60))
    far = canvas.tone((0.06, 0.12, 0.30), (0.62, 0.42, 0.45), (0.15, 0.55, 0.74))
    ground(canvas, near, far, level)
    crest = canvas.tone((0.13, 0.20, 0.40), (0.75, 0.52, 0.48), (0.45, 0.76, 0.88))
    alpha = None
    for row, (depth, period) in enumerate(((0.14, 0.9), (0.38, 1.2), (0.68, 1.6))):
        drift = canvas.time * (0.5 + 0.2 * row) * (-1.0) ** row
        line = (level - depth) * canvas.half_height + 0.035 * torch.sin(
            canvas.x * (2.0 * math.pi / period) + drift * 3.0 + row
        )
        part = canvas.cover((canvas.y - line).abs() - 0.018 * (1 + row * 0.5))
        alpha = part if alpha is None else torch.maximum(alpha, part)
    canvas.paint(alpha * 0.7, crest)


def skyline(canvas: Canvas, parameters: Parameters, base: float = -0.55) -> None:
    """A row of tower blocks with windows that are lit at night."""
    variation = parameters["variation"] * 6.28
    base = base * canvas.half_height
    shade = canvas.tone((0.07, 0.07, 0.12), (0.30, 0.22, 0.28), (0.50, 0.51, 0.54))
    front = canvas.tone((0.12, 0.12, 0.18), (0.22, 0.16, 0.22), (0.38, 0.39, 0.42))
    step = 0.42
    for layer, colour in ((0, shade), (1, front)):
        # A column of pixels meets one block at most, so heights are one-dimensional.
        number = torch.round(canvas.x / step - 0.5 * layer)
        across = canvas.x - (number + 0.5 * layer) * step
        rise = torch.sin(number * 2.4 + layer * 1.7 + variation)
        top = base + (0.52 - 0.27 * layer + 0.26 * rise) * canvas.half_height
        alpha = canvas.cover(canvas.y - top) * canvas.cover(across.abs() - (0.15 + 0.02 * layer))
        canvas.paint(alpha, colour)
    light = canvas.tone((0.95, 0.82, 0.42), (0.90, 0.66, 0.40), (0.30, 0.34, 0.40))
    # Windows sit on the axes of the front blocks, in every second storey.
    across = canvas.cover(sdf.centred_remainder(canvas.x - 0.5 * step + 0.07, step).abs() - 0.032)
    across = across + canvas.cover(sdf.centred_remainder(canvas.x - 0.5 * step - 0.07, step).abs() - 0.032)
    up = canvas.cover(sdf.centred_remainder(canvas.y - base, 0.19).abs() - 0.038)
    canvas.paint(alpha * (across * up), light)
    below(
        canvas,
        base - 0.25 * canvas.half_height,
        canvas.tone((0.08, 0.08, 0.11), (0.18, 0.14, 0.18), (0.36, 0.36, 0.37)),
    )


def firs(canvas: Canvas, parameters: Parameters, base: float, height: float, period: float) -> Tensor:
    """Height of a row of fir trees along x, (n, 1, w)."""
    x = canvas.x / period + parameters["variation"] * 2.0
    wave = sdf.triangle_wave(x)
    varied = 0.8 + 0.2 * torch.sin(torch.floor(x) * 2.1)
    return base * canvas.half_height + height * wave * varied * canvas.half_height


# Whole landscapes.


def _plain(canvas: Canvas, parameters: Parameters) -> None:
    canvas.fill(parameters.rgb("plain"))


def _sky(canvas: Canvas, parameters: Parameters) -> None:
    sky(canvas, parameters)


def _grass(canvas: Canvas, parameters: Parameters) -> None:
    sky(canvas, parameters)
    hills = (HORIZON + 0.05) * canvas.half_height + 0.07 * torch.sin(canvas.x * 2.2 + parameters["variation"] * 6.28)
    below(canvas, hills, canvas.tone((0.05, 0.16, 0.10), (0.24, 0.32, 0.14), (0.38, 0.68, 0.30)))
    ground(
        canvas,
        canvas.tone((0.04, 0.14, 0.07), (0.20, 0.30, 0.10), (0.20, 0.52, 0.14)),
        canvas.tone((0.07, 0.20, 0.10), (0.34, 0.40, 0.16), (0.42, 0.74, 0.28)),
        HORIZON - 0.12,
    )


def _beach(canvas: Canvas, parameters: Parameters) -> None:
    sky(canvas, parameters)
    glow = canvas.tone((0.80, 0.80, 0.72), (1.00, 0.86, 0.48), (1.00, 0.97, 0.80))
    x = canvas.x - (parameters["variation"] - 0.5) * 1.1 * canvas.half_width
    height = HORIZON * canvas.half_height + 0.10
    canvas.paint(canvas.cover(sdf.circle(x, canvas.y - height, 0.24)), glow)
    sea(canvas)
    shore = -0.52 * canvas.half_height + 0.06 * torch.sin(canvas.x * 1.6 + canvas.time * 1.3)
    foam = canvas.tone((0.40, 0.42, 0.52), (0.92, 0.76, 0.68), (0.93, 0.96, 0.97))
    below(canvas, shore + 0.06, foam)
    below(canvas, shore, canvas.tone((0.22, 0.20, 0.20), (0.66, 0.47, 0.36), (0.86, 0.76, 0.56)))


def _snow(canvas: Canvas, parameters: Parameters) -> None:
    sky(canvas, parameters)
    trees = firs(canvas, parameters, HORIZON - 0.08, height=0.30, period=0.30)
    below(canvas, trees, canvas.tone((0.06, 0.12, 0.16), (0.24, 0.24, 0.30), (0.36, 0.48, 0.50)), 0.6)
    hills = (HORIZON - 0.02) * canvas.half_height + 0.06 * torch.sin(canvas.x * 2.0 + parameters["variation"] * 6.28)
    below(canvas, hills, canvas.tone((0.36, 0.40, 0.54), (0.78, 0.66, 0.70), (0.94, 0.96, 0.99)))


def _ocean(canvas: Canvas, parameters: Parameters) -> None:
    sky(canvas, parameters)
    sea(canvas)


def _city(canvas: Canvas, parameters: Parameters) -> None:
    sky(canvas, parameters)
    skyline(canvas, parameters)


def _street(canvas: Canvas, parameters: Parameters) -> None:
    """A street seen from the side: a house front, a pavement and a road with dashes."""
    canvas.fill(canvas.tone((0.22, 0.19, 0.20), (0.56, 0.44, 0.40), (0.78, 0.72, 0.64)))
    period = 0.66
    x = sdf.centred_remainder(canvas.x + parameters["variation"] * period, period)
    y = sdf.centred_remainder(canvas.y / canvas.half_height - 0.62, 0.72) * canvas.half_height
    windows = canvas.cover(x.abs() - 0.17) * canvas.cover(y.abs() - 0.19 * canvas.half_height)
    canvas.paint(windows, canvas.tone((0.90, 0.76, 0.38), (0.70, 0.56, 0.45), (0.42, 0.52, 0.56)))
    below(canvas, -0.36 * canvas.half_height, canvas.tone((0.24, 0.24, 0.27), (0.54, 0.48, 0.48), (0.70, 0.70, 0.69)))
    below(canvas, -0.50 * canvas.half_height, canvas.tone((0.11, 0.11, 0.14), (0.26, 0.23, 0.26), (0.33, 0.33, 0.35)))
    dash = sdf.centred_remainder(canvas.x + parameters["variation"], 0.56)
    dashes = canvas.cover(dash.abs() - 0.15) * canvas.cover((canvas.y + 0.77 * canvas.half_height).abs() - 0.035)
    canvas.paint(dashes, canvas.tone((0.45, 0.45, 0.42), (0.70, 0.64, 0.58), (0.82, 0.82, 0.78)))


def _forest(canvas: Canvas, parameters: Parameters) -> None:
    sky(canvas, parameters)
    far = firs(canvas, parameters, HORIZON - 0.05, height=0.55, period=0.34)
    below(canvas, far, canvas.tone((0.04, 0.11, 0.11), (0.28, 0.24, 0.24), (0.28, 0.52, 0.38)), 0.55)
    near = firs(canvas, parameters, HORIZON - 0.25, height=0.50, period=0.46)
    below(canvas, near, canvas.tone((0.02, 0.07, 0.06), (0.16, 0.16, 0.14), (0.12, 0.36, 0.22)), 0.6)
    below(
        canvas,
        (HORIZON - 0.22) * canvas.half_height,
        canvas.tone((0.05, 0.09, 0.06), (0.24, 0.20, 0.14), (0.30, 0.42, 0.20)),
    )


def _mountains(canvas: Canvas, parameters: Parameters) -> None:
    sky(canvas, parameters)
    far = ridge(canvas, parameters, HORIZON - 0.05, height=0.48, period=1.3)
    below(canvas, far, canvas.tone((0.10, 0.11, 0.20), (0.44, 0.30, 0.42), (0.54, 0.60, 0.66)), 0.75)
    # Snow caps: what rises over a fixed height.
    caps = canvas.cover((canvas.y - far) * 0.75) * canvas.cover(0.34 * canvas.half_height - canvas.y)
    canvas.paint(caps, canvas.tone((0.30, 0.32, 0.44), (0.86, 0.62, 0.58), (0.80, 0.86, 0.88)))
    near = ridge(canvas, parameters, HORIZON - 0.35, height=0.30, period=0.9)
    below(canvas, near, canvas.tone((0.05, 0.08, 0.10), (0.26, 0.20, 0.24), (0.30, 0.44, 0.34)), 0.75)
    below(
        canvas,
        (HORIZON - 0.35) * canvas.half_height,
        canvas.tone((0.05, 0.07, 0.07), (0.22, 0.20, 0.16), (0.40, 0.52, 0.28)),
    )


_DRAW = {
    "plain": _plain,
    "sky": _sky,
    "grass": _grass,
    "beach": _beach,
    "snow": _snow,
    "ocean": _ocean,
    "city": _city,
    "street": _street,
    "forest": _forest,
    "mountains": _mountains,
}
