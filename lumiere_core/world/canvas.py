"""What a scene is drawn on: coordinates, time, anti-aliasing and blending.

n - frames (or 1 where all frames agree), h, w - pixels. The unit of length is half the side of the
square with the frame's area, so that a size covers the same share of any frame; the frame spans
[-half_width, half_width] x [-half_height, half_height] with y upwards and half_width * half_height = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

CLIP_SECONDS = 5.0


class Parameters:
    """Numbers of n scenes as tensors (n, 1, 1), by name."""

    def __init__(self, names: Sequence[str], rows: Sequence[Sequence[float]], device):
        values = torch.tensor(rows, dtype=torch.float32).to(device)
        self._set({name: index for index, name in enumerate(names)}, rows, values)

    def _set(self, columns: dict[str, int], rows: Sequence[Sequence[float]], values: Tensor):
        self._columns = columns
        self._rows = rows
        self._values = values[:, :, None, None]  # (n, names, 1, 1)
        self._parts = self._values.unbind(1)  # once: slicing costs as much as drawing a line

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> Tensor:
        return self._parts[self._columns[name]]

    def __len__(self) -> int:
        return len(self._rows)

    def listed(self, name: str) -> list[float]:
        """The plain numbers, for decisions in Python that must not wait for a device."""
        column = self._columns[name]
        return [row[column] for row in self._rows]

    def rgb(self, key: str = "colour") -> Tensor:
        """The colour stored as `<key>_r`, `<key>_g`, `<key>_b`, (n, 3, 1, 1)."""
        return self._values.narrow(1, self._columns[f"{key}_r"], 3)

    def select(self, rows: Sequence[int], index: Tensor) -> Parameters:
        """The parameters of some of the scenes; `index` (k,) holds the same numbers as `rows`, on the device."""
        chosen = object.__new__(Parameters)
        values = self._values[index, :, 0, 0]
        chosen._set(self._columns, [self._rows[row] for row in rows], values)
        return chosen


class Canvas:
    """The picture so far and the coordinates to draw in."""

    def __init__(self, x, y, time, pixel, half_width, half_height, daylight=None):
        self.x = x  # (n, 1, w)
        self.y = y  # (n, h, 1)
        self.time = time  # seconds, (n, 1, 1)
        self.pixel = pixel  # length of a pixel, (n, 1, 1) or float
        self.half_width = half_width
        self.half_height = half_height
        self.daylight: Tensor | None = daylight  # 0 night, 1 dusk, 2 day; (n, 1, 1)
        self._tone_weights: Tensor | None = None  # of the night, dusk and day colour, (n, 3, 1)
        self.image: Tensor | None = None  # (n, 3, h or 1, w or 1)
        # Coverage of the main object as far as nothing hides it, (n, h, w); None = not wanted.
        self.visible: Tensor | None = None
        self.layers: dict[str, Tensor] = {}  # what later steps need, first axis n or 1

    @property
    def progress(self) -> Tensor:
        """Share of the clip that has passed, 0 to 1 over CLIP_SECONDS, (n, 1, 1)."""
        return self.time / CLIP_SECONDS

    def constant(self, rgb: Sequence[float]) -> Tensor:
        """A fixed colour in [0, 1] as (1, 3, 1, 1) in [-1, 1]."""
        values = [channel * 2.0 - 1.0 for channel in rgb]
        return torch.tensor(values, dtype=torch.float32, device=self.x.device).view(1, 3, 1, 1)

    def tone(self, night, dusk, day) -> Tensor:
        """Blend three fixed colours in [0, 1] by the time of day, (n, 3, 1, 1)."""
        stops = [[channel * 2.0 - 1.0 for channel in stop] for stop in (night, dusk, day)]
        stops = torch.tensor(stops, dtype=torch.float32, device=self.x.device)
        if self._tone_weights is None:
            level = self.daylight.reshape(-1, 1)
            low, high = 1.0 - level, level - 1.0
            middle = 1.0 - high.abs()
            self._tone_weights = torch.cat([low, middle, high], 1).clamp_(0.0, 1.0)[:, :, None]
        # Not a matrix product: those may round to fewer digits on a GPU.
        return (self._tone_weights * stops).sum(1)[:, :, None, None]

    def cover(self, distance: Tensor, softness: float = 0.75) -> Tensor:
        """Coverage of a pixel by a shape: smoothstep of the distance in pixels, in [0, 1]."""
        # In place: a coverage is computed for every part of every scene.
        ramp = distance * (-0.5 / (self.pixel * softness))
        ramp.add_(0.5).clamp_(0.0, 1.0)
        square = ramp * ramp
        return ramp.mul_(-2.0).add_(3.0).mul_(square)

    def fill(self, colour: Tensor) -> None:
        """Make the whole picture one colour, (n or 1, 3, 1, 1)."""
        self.image = colour

    def paint(self, alpha: Tensor, colour: Tensor, part: str = "scenery") -> None:
        """Lay a colour (n, 3, 1 or h, 1 or w) over the picture where alpha (n, h, w) says so.

        Args:
            part: what it means for the mask. "subject" belongs to the main object, "surface" is
                drawn on what is there and changes no outline, "scenery" hides the object.
        """
        self.image = torch.lerp(self.image, colour, alpha[:, None])
        if self.visible is not None and part != "surface":
            self.visible = torch.lerp(self.visible, alpha.new_tensor(part == "subject"), alpha)

    def add(self, alpha: Tensor, colour: Tensor) -> None:
        """Add light of a colour (n, 3, 1, 1) where alpha (n, h, w) says so; `finish` limits the sum."""
        self.image = self.image + alpha[:, None] * (colour + 1.0)

    def select(self, index: Tensor) -> Canvas:
        """The canvas of some of the frames, whose numbers are (k,), without their picture."""

        def part(value):
            return value[index] if isinstance(value, Tensor) and value.shape[0] > 1 else value

        chosen = Canvas(
            part(self.x),
            part(self.y),
            time=part(self.time),
            pixel=part(self.pixel),
            half_width=self.half_width,
            half_height=self.half_height,
            daylight=part(self.daylight),
        )
        chosen.visible = part(self.visible)
        chosen.layers = {name: part(value) for name, value in self.layers.items()}
        return chosen


def draw_by_kind(
    canvas: Canvas, parameters: Parameters, kinds: Sequence, draw: Callable[[object, Canvas, Parameters], Tensor]
) -> Tensor:
    """Call `draw` once for each distinct kind with the scenes of that kind; put results in order.

    What `draw` returns is (k, …) for k scenes.
    """
    groups: dict[object, list[int]] = {}
    for row, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(row)
    if len(groups) == 1:
        return draw(kinds[0], canvas, parameters)
    parts, order = [], []
    for kind, rows in groups.items():
        index = torch.tensor(rows, device=canvas.x.device)
        parts.append(draw(kind, canvas.select(index), parameters.select(rows, index)))
        order.extend(rows)
    inverse = torch.empty(len(order), dtype=torch.long)
    inverse[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(parts)[inverse.to(canvas.x.device)]
