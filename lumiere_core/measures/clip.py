"""One clip: all measures in a single pass, and what came out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from .drift import Drift
from .figure import Figure, Measure, Unmeasurable
from .motion import Flow, Motion
from .reference import Fidelity, Kept, Similarity
from .region import Border
from .spectrum import HighFrequencies
from .steadiness import Flicker, Frozen, Loop, Seams
from .walk import Frame, walk

# Measures that need nothing but the clip and what is compared with it.
EVERY: tuple[type[Measure], ...] = (
    Flicker,
    HighFrequencies,
    Drift,
    Seams,
    Loop,
    Frozen,
    Motion,
    Kept,
    Border,
    Fidelity,
    Similarity,
)


@dataclass(frozen=True)
class Report:
    """What was measured on a clip.

    Attributes:
        values: figures by name.
        curves: name -> numbers over time.
        missing: what could not be measured, and why.
    """

    frames: int
    size: tuple[int, int]  # height, width
    values: dict[str, float]
    curves: dict[str, list[float]]
    missing: dict[str, str]
    figures: tuple[Figure, ...]

    def table(self) -> str:
        """Return the figures with unit, range and meaning as lines of text."""
        height, width = self.size
        lines = [f"{self.frames} frames of {width}x{height} pixels"]
        names = max(len(figure.name) for figure in self.figures)
        units = max(len(figure.unit) for figure in self.figures)
        for figure in self.figures:
            if figure.name not in self.values:
                continue
            value = f"{self.values[figure.name]:10.4f}"
            bounds = "[{}, {}]".format(*("-" if end is None else f"{end:g}" for end in figure.bounds))
            row = f"{figure.name:<{names}}  {value}  {figure.unit:<{units}}  {bounds:<14}"
            lines.append(f"{row}  {figure.text} ({figure.source})")
        lines += [f"{name:<{names}}  not measured: {reason}" for name, reason in self.missing.items()]
        return "\n".join(lines)


def measure_clip(
    frames: Iterable[Frame],
    *,
    reference: Iterable[Frame] | None = None,
    known: Iterable[Tensor] | None = None,
    borders: Sequence[int] = (),
    flow: Flow | None = None,
    more: Sequence[Measure] = (),
    on_frame: Callable[[], None] | None = None,
) -> Report:
    """Measure a clip of any length, frame by frame.

    Args:
        frames: (h, w, 3) each, uint8 or float in [0, 1].
        reference: what the clip should be, frame by frame.
        known: (h, w) masks, 1 where the reference should have been kept: one for each frame, or one for all.
        borders: numbers of the frames that begin a new window or clip.
        flow: an optical flow instead of OpenCV's.
        more: measures of the caller's, such as `Consistency`.
        on_frame: called after each frame; it may raise to stop.

    Raises:
        ValueError: no frames, frames that do not fit each other, or values that are no numbers.
    """
    measures = [Motion(flow) if kind is Motion else Seams(borders) if kind is Seams else kind() for kind in EVERY]
    given = {"reference": reference is not None, "known": known is not None}
    measures = [m for m in (*measures, *more) if all(given[need] for need in m.needs)]
    missing: dict[str, str] = {}
    failed: set[int] = set()
    count, size = 0, (0, 0)
    for step in walk(frames, reference, known):
        count, size = step.number + 1, tuple(step.frame.shape[1:])
        for index, measure in enumerate(measures):
            if index in failed:
                continue
            try:
                measure.see(step)
            except Unmeasurable as error:
                failed.add(index)
                missing |= {figure.name: str(error) for figure in measure.figures}
        if on_frame is not None:
            on_frame()
    if not count:
        raise ValueError("the clip has no frames; at least one is wanted.")
    values, curves = {}, {}
    for index, measure in enumerate(measures):
        if index in failed:
            continue
        if count < measure.frames:
            reason = f"needs {measure.frames} frames, the clip has {count}"
            missing |= {figure.name: reason for figure in measure.figures}
            continue
        values |= measure.values()
        curves |= measure.curves()
    return Report(
        count, size, values, curves=curves, missing=missing, figures=tuple(f for m in measures for f in m.figures)
    )
