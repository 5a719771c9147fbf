"""`evaluate style`: what interpolating the spatial weights does to the look and to the motion (Lumiere §4.1).

The paper says that the style's weights alone (alpha 1, plug and play) distort or freeze the motion, and that some
alpha in [0.5, 1) balances both. Every style of the pack is tried at alpha 0, 0.1 … 1 on a few held-out prompts.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..files import Record
from ..measures.motion import coarse_change
from ..measures.steadiness import acceleration
from ..world.styles import STYLES
from .cases import Case, mini_cases
from .clips import Clip, ClipMaker, mean_levels
from .oracle import judge, oracle_version
from .style_look import measure_look, real_clip
from .table import Bar

if TYPE_CHECKING:
    from ..diffusion.generate import Request

MOTIONS = ("moving right", "moving down", "bouncing", "moving left")  # one prompt of each
ALPHAS = (1.0, 0.5, 0.7, 0.9, 0.3, 0.6, 0.8, 0.1, 0.2, 0.4)  # coarse first: a part of a run says something
ORIGINAL = "original"  # alpha 0, the same clip for every style
SHEET_COLUMNS = 8  # frames of a clip on a contact sheet
LAG, CELL = 4, 4  # frames and pixels that an object's motion is averaged over

STYLED = 0.5  # of the way from the look of alpha 0 to the style's
MOVES = (0.7, 1.5)  # amount of motion over that of alpha 0
CALM = 1.5  # flicker over that of alpha 0
FROZEN = 0.5  # amount of motion under which a clip counts as frozen


@dataclass(frozen=True)
class StyleCase:
    """One prompt in one style at one alpha."""

    id: str
    prompt: str
    style: str  # of style.bundled_styles(), or ORIGINAL
    alpha: float
    base: Case


class StyledClips(ClipMaker):
    """Makes clips with interpolated image weights."""

    style, alpha = ORIGINAL, 0.0

    def _generate(self, request: Request) -> Clip:
        from ..diffusion.models import load_models
        from ..nets.checkpoint import load_into
        from ..nets.interpolate import stylise_parts

        if self._models is None:
            self._models, self.parts = load_models(self.weights, self.device)
        styled = self.parts
        if self.style != ORIGINAL:
            styled = stylise_parts(self.parts, self.style, self.alpha)
        load_into(self._models.unet, styled.image, f"image weights of {self.style}")
        return super()._generate(request)


class StyleEvaluation:
    """Cases, measurement and bars of the evaluation."""

    title = "Styles of lumiere-mini by interpolated spatial weights"
    in_order = True  # of the cases, when they are run

    def __init__(self, options: argparse.Namespace) -> None:
        from ..nets.checkpoint import sha256
        from ..nets.interpolate import bundled_styles

        self.files = bundled_styles()
        if not self.files:
            raise FileNotFoundError("the pack has no styles to evaluate; train some with `train style`.")
        self.clips = StyledClips(options)
        self.hashes = {name: sha256(file) for name, file in self.files.items()}
        self.run = {**self.clips.run, "oracle": oracle_version()}

    def cases(self) -> list[StyleCase]:
        cases = []
        for base in base_cases():
            cases.append(StyleCase(f"{base.id}-{ORIGINAL}", base.prompt, ORIGINAL, alpha=0.0, base=base))
            cases += [
                StyleCase(self.case_id(base, style, alpha), base.prompt, style, alpha=alpha, base=base)
                for alpha in ALPHAS
                for style in self.files
            ]
        return cases

    def case_id(self, base: Case, style: str, alpha: float) -> str:
        """A style whose file changed is another case; the other styles' lines stay."""
        return f"{base.id}-{style}-{self.hashes[style][:6]}-{alpha:.1f}"

    def measure(self, case: StyleCase) -> Record:
        """Make the clip of a case, look at it, and with `--clips` draw its sheet."""
        self.clips.style, self.clips.alpha = case.style, case.alpha
        clip = self.clips.make(case.id, case.prompt, case.base.seed)
        scene = case.base.scene
        verdict = judge(clip.frames, scene)
        amount, jitter = motion_of(clip.frames)
        kinds = STYLES if case.style == ORIGINAL else [kind_of(case.style)]
        looks = {kind: measure_look(clip.frames, case.prompt, kind) for kind in kinds}
        record = {
            "case": case.id,
            "prompt": case.prompt,
            "base": case.base.id,
            "style": case.style,
            "alpha": case.alpha,
            **self.run,
            "sha256": self.clips.sha256,
            "device": clip.device,
            "seconds": clip.seconds,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "seen": verdict.seen,
            "right": verdict.right(scene),
            "place": {name: place for name, (place, _) in looks.items()},
            "look": next(iter(looks.values()))[1],
            "amount": amount,
            "jitter": jitter,
            "levels": mean_levels(clip.frames),
        }
        if case.alpha == 1.0:  # how well the measures work on a perfect clip of this style
            count, side = len(clip.frames), clip.frames.shape[1]
            real = real_clip(scene, kind_of(case.style), count, fps=16.0, side=side)
            record["real_right"] = judge(real, scene).right(scene)
            record["real_place"] = measure_look(real, case.prompt, kind_of(case.style))[0]
        return record

    def bars(self, records: list[Record]) -> list[Bar]:
        """For each style, whether some alpha in [0.5, 1) balances look and motion, and what alpha 1 does."""
        bars: list[Bar] = []
        for style in self.files:
            bars += style_bars(style, summary(style, records))
        return bars

    def write_sheets(self, folder: Path) -> list[Path]:
        """Write a contact sheet of each style and prompt whose clips are all kept: a row for each alpha."""
        from ..clips.media import contact_sheet, evenly_spaced, save_image

        written = []
        for case in base_cases():
            for style in self.files:
                names = [self.case_id(case, style, alpha) for alpha in sorted(ALPHAS)]
                names.insert(0, f"{case.id}-{ORIGINAL}")
                if not all(self.clips.path(name).is_file() for name in names):
                    continue
                rows = []
                for name in names:
                    frames = self.clips.make(name, case.prompt, case.seed).frames
                    rows.append(frames[evenly_spaced(len(frames), SHEET_COLUMNS)])
                written.append(folder / f"{style}-{case.id}.png")
                save_image(contact_sheet(torch.cat(rows), len(rows[0])), written[-1])
        return written


@cache
def base_cases() -> list[Case]:
    """The first held-out prompt of each of MOTIONS."""
    every = [case for case in mini_cases("tuning") if case.scene.family == "shape"]
    return [next(c for c in every if c.scene.attributes["motion"] == name) for name in MOTIONS]


def kind_of(style: str) -> str:
    """The world's style that a file was trained on: "watercolor" for "watercolor-full"."""
    return style.removesuffix("-full")


def motion_of(frames: Tensor) -> tuple[float, float]:
    """Amount of motion and of flicker of a clip, both as shares of its contrast.

    Motion is the mean change from each LAG frames to the next LAG, averaged over 4 x 4 pixels; flicker the
    mean distance of a frame from the mean of its two neighbours, which steady motion hardly has.

    Args:
        frames: (t, h, w, 3) uint8.
    """
    grey = frames.float().mean(-1)[:, None] / 255
    contrast = float(grey.std((1, 2, 3)).mean()) + 1e-3
    if len(frames) < 2 * LAG:
        return 0.0, 0.0
    amount = coarse_change(grey, LAG, CELL)
    jitter = mean(acceleration(*three) for three in zip(grey, grey[1:], grey[2:], strict=False))
    return round(amount / contrast, 5), round(jitter / contrast, 5)


@dataclass(frozen=True)
class Point:
    """What one style does at one alpha: means over the prompts that have both it and alpha 0."""

    alpha: float
    clips: int
    place: float  # 0 plain, 1 the style
    start: float  # the place of alpha 0
    recognised: int  # clips whose nearest look is the style
    amount: float  # of motion, over alpha 0
    jitter: float  # over alpha 0
    right: int  # clips whose motion the oracle finds right
    real_right: list[bool]  # the same on perfect clips, at alpha 1
    real_place: list[float]

    @property
    def balanced(self) -> bool:
        wanted = self.start + STYLED * (1 - self.start)
        moves = MOVES[0] <= self.amount <= MOVES[1] and self.jitter <= CALM
        return self.place >= wanted and moves

    @property
    def fault(self) -> str:
        """What is wrong with the motion, or ""."""
        if self.amount < FROZEN:
            return "freezes"
        if self.amount > MOVES[1] or self.jitter > CALM:
            return "distorts"
        return "" if self.amount >= MOVES[0] else "slows down"

    def text(self) -> str:
        return (
            f"look {self.place:5.2f}, motion x{self.amount:.2f}, flicker x{self.jitter:.2f}, "
            f"motion right {self.right}/{self.clips}"
        )


def summary(style: str, records: list[Record]) -> list[Point]:
    """The style's points by rising alpha, alpha 0 among them."""
    originals = {r["base"]: r for r in records if r["style"] == ORIGINAL}
    kind, points = kind_of(style), []
    for alpha in (0.0, *sorted(ALPHAS)):
        mine = (
            list(originals.values())
            if alpha == 0
            else [r for r in records if r["style"] == style and r["alpha"] == alpha and r["base"] in originals]
        )
        if not mine:
            continue
        firsts = [originals[r["base"]] for r in mine]

        def mean_place(group: list) -> float:
            return sum(r["place"][kind] for r in group) / len(group)

        def ratio(key: str, mine: list = mine, firsts: list = firsts) -> float:
            """Of the sums: a clip that hardly moves to begin with weighs little."""
            return sum(r[key] for r in mine) / max(1e-5, sum(r[key] for r in firsts))

        points.append(
            Point(
                alpha,
                len(mine),
                place=mean_place(mine),
                start=mean_place(firsts),
                recognised=sum(r["look"] == kind for r in mine),
                amount=ratio("amount"),
                jitter=ratio("jitter"),
                right=sum(bool(r["right"].get("motion")) for r in mine),
                real_right=[bool(r["real_right"].get("motion")) for r in mine if "real_right" in r],
                real_place=[r["real_place"] for r in mine if "real_place" in r],
            )
        )
    return points


def style_bars(style: str, points: list[Point]) -> list[Bar]:
    """The two halves of the paper's claim for one style, then a line for each alpha."""
    by_alpha = {point.alpha: point for point in points}
    inside = [p for p in points if 0.5 <= p.alpha < 1]
    wanted = f"look {100 * STYLED:.0f} % of the way, motion x{MOVES[0]}-{MOVES[1]}, flicker <= x{CALM}"
    name = f"{style}: an alpha in [0.5, 1) balances"
    balanced = [p for p in inside if p.balanced]
    if not inside:
        return [Bar(name, wanted, "no cases", False)]
    best = max(balanced or inside, key=lambda p: p.place if p.balanced else -abs(p.amount - 1))
    got = f"alpha {best.alpha}: {best.text()}" if balanced else f"none; nearest {best.alpha}: {best.text()}"
    bars = [Bar(name, wanted, got, held=bool(balanced), note=f"{len(balanced)} of {len(inside)} alphas do")]
    if 1.0 in by_alpha:
        whole = by_alpha[1.0]
        verdict = f"shown: {whole.fault}" if whole.fault else "refuted: it moves as alpha 0 does"
        real = whole.real_right
        note = f"the oracle on perfect clips: {sum(real)}/{len(real)} motions right" if real else ""
        bars.append(Bar(f"{style}: alpha 1 spoils the motion", "", verdict, held=None, note=note))
    for p in points:
        note = f"{p.recognised} of {p.clips} look most like it"
        bars.append(Bar(f"  {style}, alpha {p.alpha:.1f}", "", p.text(), held=None, note=note))
    return bars
