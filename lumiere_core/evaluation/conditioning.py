"""`evaluate conditioning`: is what is known kept, and is the rest right, for every task of Lumiere §4.2 and SDEdit?"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timezone

from torch import Tensor

from ..clips.blend import blend_known
from ..clips.conditioning import Condition, hold_known
from ..clips.video import from_uint8, to_uint8
from ..files import Record
from ..measures import region as measures
from .clips import ClipMaker, device_name, mean_levels
from .condition_cases import EACH, STRENGTHS, TASKS, ConditionCase, condition_cases, condition_of, truth
from .oracle import judge, oracle_version
from .table import Bar, share_bar

VERSION = 4  # counted up when a case, the sampling or a measure changes
COPY = 8.0  # levels that the network's own copy of what is known may be off
SEAM = 1.5  # step across the border over the truth's
JUMP = 2.0  # change after a given frame over the truth's
LEAST_CHANGE = 1.0  # levels: as much as the truth's change counts at least, where nothing moves
FLOOR = 2.0  # levels of motion inside a cinemagraph's region
INSIDE = 0.7  # deviation over time inside a cinemagraph's region over the real clip's
DETAIL, LEAST_DETAIL = 0.6, 4.0  # of the middle frame over the given one's; squared levels that count at least
HALO = 8.0  # levels that the background next to an inpainted object may be off
BORDER_ERROR = 16.0  # levels that an outpainted background may be off
RIGHT = {"colour": 0.90, "shape": 0.80, "motion": 0.85}
KEPT, TAKEN = 0.90, 0.90  # motion kept at the lowest strengths, colour taken at the highest


NOTES = {
    "reporting": "Nothing was chosen on these scenes.",
    "tuning": "The three weights of Blend Known were chosen on 16 of the 128 cases with a border.",
}


class Conditioning:
    """Cases, measurement and bars of the evaluation."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.clips, self.split = ClipMaker(options), options.split
        self.title = f"lumiere-mini with masked conditions, on held-out scenes of one object, {self.split} split"
        self.notes = NOTES[self.split]
        self.run = {**self.clips.run, "oracle": oracle_version(), "conditioning": VERSION}

    def cases(self) -> list[ConditionCase]:
        return condition_cases(self.split)

    def measure(self, case: ConditionCase) -> Record:
        """Make the clip of a case, and hold it against the prompt and the truth."""
        frames, (height, width) = self.run["frames"], self.run["size"]
        clip, cover = truth(case, frames, height, width)
        condition = condition_of(case, clip, cover)
        started = time.monotonic()
        made, copy = self._make(case, clip, condition)
        seconds = round(time.monotonic() - started, 1)
        wanted = case.wanted
        verdict = judge(made, wanted)
        found = {k: v for k, v in verdict.seen.items() if k in RIGHT}
        right = {k: v for k, v in verdict.right(wanted).items() if k in RIGHT}
        numbers = numbers_of(case, levels_of(made), measures.levels(clip), condition=condition, cover=cover)
        if condition is not None:
            numbers["copy_error"] = measures.copy_error(copy, condition.clip, condition.known)
        return {
            "case": case.id,
            "task": case.task,
            "prompt": case.prompt,
            "source": case.source,
            "denoise": case.denoise,
            "seed": case.seed,
            **self.run,
            "sha256": self.clips.sha256,
            "device": device_name(self.clips.device),
            "seconds": seconds,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "seen": found,
            "right": right,
            **{name: round(value, 3) for name, value in numbers.items()},
            "levels": mean_levels(made),
        }

    def _make(self, case: ConditionCase, clip: Tensor, condition: Condition | None) -> tuple[Tensor, Tensor]:
        """The clip (t, h, w, 3) uint8, and the last estimate before what is known was put in."""
        from ..diffusion.generate import generate

        last: list[Tensor] = []

        def keep(estimate: Tensor) -> None:
            last[:] = [estimate.cpu()]

        request = replace(self.clips.request, prompt=case.prompt, seed=case.seed, denoise=case.denoise)
        source = clip if condition is None else None
        made = generate(self.clips.models(), request, known=condition, source=source, keep_copy=keep)
        made = made.cpu()
        if condition is not None:  # as the templates do
            made = to_uint8(hold_known(blend_known(from_uint8(made)[None], condition), condition)[0])
        return made, last[0]

    def bars(self, records: list[Record]) -> list[Bar]:
        """What is asked of the model, task by task."""
        bars = []
        for task in TASKS:
            mine = [r for r in records if r["task"] == task]
            count = len(mine)
            bars.append(Bar(f"{task}: cases", f">= {EACH}", str(count), count >= EACH))
            bars += sdedit_bars(mine) if task == "sdedit" else task_bars(task, mine)
        return bars


def levels_of(made: Tensor) -> Tensor:
    """(t, h, w, 3) uint8 -> (3, t, h, w) in levels of 255."""
    return measures.levels(from_uint8(made)[None])


def numbers_of(
    case: ConditionCase, made: Tensor, real: Tensor, condition: Condition | None, cover: Tensor
) -> dict[str, float]:
    """What is measured on a task's clip; `made` and `real` are (3, t, h, w)."""
    if condition is None:
        return {}
    known = condition.known[0, 0] > 0.5
    if case.task == "first frame":
        jump = ratio(measures.jump(made, 0), measures.jump(real, 0), LEAST_CHANGE)
        return {"jump": jump, "detail": detail_kept(made)}
    if case.task == "first and last":
        ends = (0, made.shape[1] - 2)
        steps = [ratio(measures.jump(made, n), measures.jump(real, n), LEAST_CHANGE) for n in ends]
        return {"jump": sum(steps) / 2}
    if case.task == "cinemagraph":
        region = ~known[1]
        return {
            "inside": measures.motion_inside(made, region),
            "real_inside": measures.motion_inside(real, region),
            "outside": measures.change_outside(made, region),
            "detail": detail_kept(made, region),
        }
    numbers = {"seam": ratio(measures.seam(made, known), measures.seam(real, known), measures.LEAST_STEP)}
    beside = measures.mean_error(made, real, ~known & (cover < 0.01))
    return numbers | {"border_error" if case.task == "outpaint" else "halo": beside}


def detail_kept(made: Tensor, region: Tensor | None = None) -> float:
    """Fine detail of the middle frame over that of the given first one, in a (h, w) region or everywhere."""
    middle = measures.detail(made[:, made.shape[1] // 2], region)
    return ratio(middle, measures.detail(made[:, 0], region), LEAST_DETAIL)


def ratio(value: float, real: float, least: float) -> float:
    """A value over the truth's, which counts as so many levels at least."""
    return value / max(real, least)


def task_bars(task: str, records: list[Record]) -> list[Bar]:
    """Bars of one task with a mask."""
    bars = [median_bar(f"  {task}: own copy error, levels", records, "copy_error", COPY)]
    if task in ("first frame", "first and last"):
        bars.append(median_bar(f"  {task}: change after it over real", records, "jump", JUMP))
    if task in ("inpaint", "outpaint"):
        bars.append(median_bar(f"  {task}: step across the border over real", records, "seam", SEAM))
    if task == "inpaint":
        bars += later_bar(f"  {task}: halo around the object, levels", records, "halo", most=HALO)
    if task in ("first frame", "cinemagraph"):
        bars += later_bar(f"  {task}: detail kept in the middle", records, "detail", least=DETAIL)
    if task == "outpaint":
        bars.append(median_bar(f"  {task}: background error, levels", records, "border_error", BORDER_ERROR))
    if task == "cinemagraph":
        moves = [float(r["inside"]) >= FLOOR for r in records]
        note = means(records, "inside", "real_inside")
        bars.append(share_bar(f"  {task}: moves inside by {FLOOR} levels", moves, 0.95, note))
        shares = [{"share": float(r["inside"]) / max(float(r["real_inside"]), LEAST_CHANGE)} for r in records]
        bars += later_bar(f"  {task}: deviation inside over real", shares, "share", least=INSIDE)
        still = [float(r["outside"]) == 0 for r in records]
        return [*bars, share_bar(f"  {task}: nothing changes outside", still, 1.0)]
    return bars + [share_bar(f"  {task}: {name} right", answers(records, name), least) for name, least in RIGHT.items()]


def sdedit_bars(records: list[Record]) -> list[Bar]:
    """The curve over the strength: what is kept of the source, what is taken of the prompt."""
    low = [r for r in records if float(r["denoise"]) <= STRENGTHS[2]]
    high = [r for r in records if float(r["denoise"]) >= STRENGTHS[-2]]
    bars = [
        share_bar(f"  sdedit: motion kept to {STRENGTHS[2]}", answers(low, "motion"), KEPT),
        share_bar(f"  sdedit: colour taken from {STRENGTHS[-2]}", answers(high, "colour"), TAKEN),
    ]
    for strength in STRENGTHS:
        mine = [r for r in records if r["denoise"] == strength]
        note = ", ".join(
            f"{name} {sum(answers(mine, name))}/{len(answers(mine, name))}" for name in ("shape", "motion")
        )
        colour = answers(mine, "colour")
        bars.append(share_bar(f"    denoise {strength}: new colour", colour, None, note))
    return bars


def answers(records: Iterable[Record], name: str) -> list[bool]:
    return [bool(r["right"][name]) for r in records if name in r["right"]]


def later_bar(name: str, records: list[Record], key: str, most: float | None = None, least: float = 0.0) -> list[Bar]:
    """A bar on the median of what not every stored line holds: lines of before it was measured do not count."""
    values = sorted(float(r[key]) for r in records if key in r)
    if not values:
        return []
    middle = statistics.median(values)
    wanted, holds = (f"<= {most}", middle <= most) if most is not None else (f">= {least}", middle >= least)
    note = f"mean {statistics.fmean(values):.2f}, worst {values[0] if most is None else values[-1]:.2f}"
    return [Bar(name, wanted, f"{middle:6.2f} (median of {len(values)})", held=holds, note=note)]


def means(records: list[Record], *names: str) -> str:
    if not records:
        return ""
    return ", ".join(f"{name} {statistics.fmean(float(r[name]) for r in records):.1f}" for name in names)


def median_bar(name: str, records: list[Record], key: str, most: float) -> Bar:
    """The median over the cases, with mean and worst beside it."""
    values = sorted(float(r[key]) for r in records)
    if not values:
        return Bar(name, f"<= {most}", "no cases", False)
    middle = statistics.median(values)
    note = f"mean {statistics.fmean(values):.2f}, worst {values[-1]:.2f}"
    return Bar(name, f"<= {most}", f"{middle:6.2f} (median of {len(values)})", held=middle <= most, note=note)
