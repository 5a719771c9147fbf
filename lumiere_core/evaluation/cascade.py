"""`evaluate cascade`: does a temporal cascade lose the rhythms that a Space-Time U-Net keeps (Lumiere, figure 2)?

Both are made of the same parts around the same frozen image model and trained by the recipe `cascade` on the same clips,
the two models of the cascade together as long as the U-Net. The scenes are `world.tempo_scene`: no word tells the tempo, so
it must be chosen once and held for the whole clip. There are few such clips, and all of them were trained on: what is asked is
whether a clip keeps its tempo, not whether it is new. Every case is a scene:

- "stunet": all frames in one pass.
- "cascade": key frames at constant length, then windows between them that know nothing of each other; the same steps.
- "cascade, equal compute": the same with as many steps as the U-Net's FLOPs pay for.
- "oracle": the windows between true key frames: what is lost by filling in alone.
- "real": the world's own clip, which says how far the measure can be trusted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from statistics import fmean, median

import numpy as np
from torch import Tensor

from ..clips.video import from_uint8, to_uint8
from ..diffusion.generate import Request, generate
from ..diffusion.models import Models, load_models
from ..files import Record
from ..nets.checkpoint import WEIGHTS, sha256
from ..text_files import read_json
from ..training.recipes import FOLDER, load_recipe
from ..world import Scene, render_clip, rhythm_scene, tempo_scene
from ..world.rhythms import TEMPI
from .cascade_clips import Plan, fill, key_clip
from .cascade_cost import forward_flops, training_facts
from .cascade_sheet import courses_sheet
from .clips import device_name, mean_levels
from .rhythm import Rhythm, rhythm_in, rhythm_of
from .rhythm_limits import ideal_places
from .store import fingerprint
from .table import Bar, share_bar

RECIPE = FOLDER / "cascade.json"
VERSION = 2  # counted up when a case, the sampling or the measure changes
CASES, FIRST = 24, 10**12  # scenes; the first one's seed
FRAMES, FPS, SIDE = 80, 16.0, 16
PLAN = Plan(FRAMES, every=8, intervals=2)
IDEAL = (1, 2, 5, 10)  # intervals between key frames in a window
MORE = 2  # scenes a case that perfect windows are tried on: they cost next to nothing
STEPS, CFG = 10, 1.0  # without guidance: a step is one call of the network
STAGES = ("stunet", "keyframes", "tsr")
KINDS = ("real", "stunet", "cascade", "cascade, equal compute", "oracle")
TRUE = 0.1  # a period counts as the true one if it is off by less than this share
SHEET = len(TEMPI)  # scenes on the picture of slices


@dataclass(frozen=True)
class RhythmCase:
    """One scene; its clip is made by every kind with the same seed."""

    number: int

    @property
    def id(self) -> str:
        return f"{self.number:03d}-{self.scene.seed % 16**6:06x}"

    @property
    def scene(self) -> Scene:
        return tempo_scene(FIRST + self.number, TEMPI[self.number % len(TEMPI)])

    @property
    def prompt(self) -> str:
        return self.scene.caption

    @property
    def seed(self) -> int:
        return 5000 + self.number

    @property
    def period(self) -> float:
        """Of the scene, in frames."""
        return period_of(self.scene)


class Cascade:
    """Cases, measurement and bars of the evaluation.

    Attributes:
        trained: folder of the recipe's stages; the table from stored lines needs none.
    """

    title = "A temporal cascade against a Space-Time U-Net of the same parts (figure 2 of the paper)"

    def __init__(self, options: argparse.Namespace) -> None:
        self.trained, self.device = Path(options.trained), options.device
        self.run: Record = {
            "recipe": hashlib.sha256(json.dumps(read_json(RECIPE), sort_keys=True).encode()).hexdigest()[:16],
            "measured": VERSION,
            "steps": STEPS,
            "cfg": CFG,
            "every": PLAN.every,
            "window": PLAN.window,
            "frames": FRAMES,
            "size": [SIDE, SIDE],
        }
        self._models: dict[str, Models] = {}
        self._costs: dict[str, float] = {}
        self._made: dict[int, tuple[dict[str, Tensor], dict[str, float]]] = {}

    def cases(self) -> list[RhythmCase]:
        return [RhythmCase(number) for number in range(CASES)]

    def files(self) -> dict[str, list[Path]]:
        """Return the files of each stage.

        Raises:
            FileNotFoundError: a stage was not trained.
        """
        found = {"image": self.trained / "image" / "image.safetensors"}
        found |= {stage: self.trained / stage / "temporal.safetensors" for stage in STAGES}
        missing = [path for path in found.values() if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{missing[0]} is missing: train the recipe first, `python -m lumiere_core train --recipe cascade --output "
                f"{self.trained}`, or give its folder with --trained."
            )
        text = WEIGHTS / "mini-text.safetensors"
        return {stage: [text, found["image"], found[stage]] for stage in STAGES}

    def models(self) -> dict[str, Models]:
        """Return the models of the stages, loaded once."""
        if not self._models:
            self._models = {stage: load_models(files, self.device)[0] for stage, files in self.files().items()}
        return self._models

    def costs(self) -> dict[str, float]:
        """Return the FLOPs of a clip at one step for the U-Net, the key frames and all windows."""
        if not self._costs:
            models = self.models()
            self._costs = {
                "stunet": forward_flops(models["stunet"], FRAMES, SIDE),
                "keyframes": forward_flops(models["keyframes"], PLAN.keys, SIDE),
                "tsr": forward_flops(models["tsr"], PLAN.window + 1, SIDE, known=True) * PLAN.windows,
            }
        return self._costs

    def measure(self, case: RhythmCase) -> Record:
        """Make the clip of a case in every way and measure its rhythm."""
        motion = case.scene.attributes["motion"]
        made, seconds = self.clips(case)
        rhythms = {kind: rhythm_of(frames, motion) for kind, frames in made.items()}
        files = self.files()
        hashes = {stage: sha256(paths[-1]) for stage, paths in files.items()}
        hashes["image"] = sha256(files["stunet"][1])
        kept = {kind: rhythm.kept for kind, rhythm in rhythms.items()}
        steps = self.equal_steps()
        stages = load_recipe(str(RECIPE)).stages
        cascade = self.costs()["keyframes"] + self.costs()["tsr"]
        return {
            "case": case.id,
            "prompt": case.prompt,
            "motion": motion,
            "seed": case.seed,
            **self.run,
            "weights": fingerprint(hashes),
            "sha256": hashes,
            "device": device_name(self.device),
            "date": datetime.now(timezone.utc).date().isoformat(),
            "seen": kept,
            "right": kept,
            "true_period": round(case.period, 3),
            "told_apart": told_apart(case.scene.parameters["periods"]),
            "rhythms": {kind: numbers_of(rhythm, rhythms["real"]) for kind, rhythm in rhythms.items()},
            "ideal": self.ideal(case),
            "seconds": seconds,
            "tflops": {
                "stunet": round(STEPS * self.costs()["stunet"] / 1e12, 3),
                "cascade": round(STEPS * cascade / 1e12, 3),
                "cascade, equal compute": round(steps * cascade / 1e12, 3),
            },
            "equal_steps": steps,
            "training": {
                stage: training_facts(self.trained / stage, stages[stage].options["batch_size"]) for stage in STAGES
            },
            "levels": mean_levels(made["stunet"]),
        }

    def ideal(self, case: RhythmCase) -> list[Record]:
        """Return the true period of some scenes, and by the length of windows what perfect ones make of it."""
        found = []
        for number in range(MORE):
            seed = 1000 + MORE * case.number + number
            scene, windows = rhythm_scene(FIRST + seed), {}
            for intervals in IDEAL:
                rhythm = rhythm_in(ideal_places(scene, FRAMES, PLAN.every, intervals=intervals, seed=5000 + seed))
                windows[str(intervals * PLAN.every)] = {"period": round(rhythm.period, 3), "kept": rhythm.kept}
            found.append({"true_period": round(period_of(scene), 3), "windows": windows})
        return found

    def equal_steps(self) -> int:
        """Return the steps of the cascade that cost no more than the U-Net's."""
        costs = self.costs()
        return max(1, int(STEPS * costs["stunet"] / (costs["keyframes"] + costs["tsr"])))

    def clips(self, case: RhythmCase) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Return the (t, h, w, 3) uint8 clip of every kind, and the seconds that those of the models took."""
        if case.number in self._made:
            return self._made[case.number]
        models, seconds = self.models(), {}
        sampling = {"steps": STEPS, "cfg": CFG, "guidance_end": 1.0}
        request = Request(case.prompt, seed=case.seed, num_frames=FRAMES, height=SIDE, width=SIDE, **sampling)
        real = render_clip(case.scene, PLAN.keys * PLAN.every, FPS, height=SIDE, width=SIDE)
        made = {"real": to_uint8(real)[:FRAMES]}
        started = time.monotonic()
        made["stunet"] = generate(models["stunet"], request).cpu()
        seconds["stunet"] = round(time.monotonic() - started, 2)
        for kind, steps in (("cascade", STEPS), ("cascade, equal compute", self.equal_steps())):
            started = time.monotonic()
            asked = replace(request, steps=steps)
            keys = key_clip(models["keyframes"], asked, PLAN)
            made[kind] = to_uint8(fill(models["tsr"], keys, asked, PLAN)[0]).cpu()
            seconds[kind] = round(time.monotonic() - started, 2)
        keys = from_uint8(to_uint8(real)[:: PLAN.every][: PLAN.keys])[None].to(self.device)
        made["oracle"] = to_uint8(fill(models["tsr"], keys, request, PLAN)[0]).cpu()
        if case.number < SHEET:  # on the picture
            self._made[case.number] = made, seconds
        return made, seconds

    @property
    def notes(self) -> str:
        return (
            "A rhythm is kept if the phase at the end is off by less than a quarter of a period from that of the first half. "
            f"Key frames are {PLAN.every} frames apart; the tempi are {', '.join(f'{FRAMES / tempo:.1f}' for tempo in TEMPI)} frames "
            "a period, of which the first and third look the same on key frames. Nothing here has a bar: the paper's claim is shown "
            "or not. Training is in minutes of processor time. What the figures say is in [how it "
            "works](how-it-works.md#why-no-temporal-cascade-figure-2)."
        )

    def bars(self, records: list[Record]) -> list[Bar]:
        """Return what is kept, and at what cost."""
        first = records[0]
        hashes = ", ".join(f"{name} {value[:8]}" for name, value in sorted(first["sha256"].items()))
        bars = [Bar("clips of each kind", "", str(len(records)), note=hashes)]
        for kind in KINDS:
            numbers = [r["rhythms"][kind] for r in records]
            bars.append(share_bar(f"{kind}: rhythm kept", kept_by(records, kind), note=_spread(numbers)))
            counts = Counter(tempo for kept, n in _kept_numbers(records, kind) if kept and (tempo := tempo_of(n)))
            note = ", ".join(f"{count} of {FRAMES / tempo:.1f}" for tempo, count in sorted(counts.items())) or "none"
            bars.append(Bar("  kept, and one of the tempi", "", str(counts.total()), note=f"frames a period: {note}"))
        for name, chosen in split([scene for r in records for scene in r["ideal"]]):
            bars.append(Bar(f"perfect windows, {name}", "", f"{len(chosen)} scenes"))
            for length in chosen[0]["windows"]:
                made = [(scene["windows"][length], scene["true_period"]) for scene in chosen]
                right = sum(_near(window["period"], true) for window, true in made)
                note = f"the true period in {right} of {len(made)}"
                bars.append(share_bar(f"  of {length} frames: rhythm kept", [w["kept"] for w, _ in made], note=note))
        for told in (True, False):
            chosen = [r for r in records if r["told_apart"] == told]
            if not chosen:
                continue
            name = "that tell the tempo" if told else "that fit two tempi"
            bars.append(Bar(f"true key frames {name}", "", f"{len(chosen)} clips"))
            for kind in ("real", "oracle"):
                numbers = [r["rhythms"][kind] for r in chosen]
                right = [_near(r["rhythms"][kind]["period"], r["true_period"]) for r in chosen]
                note = f"median distance from the true place {median(n['off'] for n in numbers):.3f} sides of the frame"
                bars.append(share_bar(f"  {kind}: rhythm kept", kept_by(chosen, kind), note=note))
                bars.append(share_bar(f"  {kind}: the true period", right))
        for kind, tflops in first["tflops"].items():
            steps = first["equal_steps"] if "equal" in kind else STEPS
            spent = fmean(r["seconds"][kind] for r in records)
            bars.append(Bar(f"{kind}: cost of a clip", "", f"{tflops:.2f} TFLOP", note=f"{steps} steps, {spent:.1f} s"))
        for stage, facts in first["training"].items():
            got = f"{facts['core_minutes']:.1f} minutes"
            bars.append(Bar(f"{stage}: training", "", got, note=f"{facts['clips']} clips, loss {facts['loss']:.4f}"))
        return bars

    def write_sheets(self, folder: Path) -> list[Path]:
        """Write slices over time of some cases, side by side."""
        from ..clips.media import save_image

        path = Path(folder) / "cascade.png"
        chosen = sorted(self.cases()[:SHEET], key=lambda case: -case.period)
        rows = []
        for case in chosen:
            made = self.clips(case)[0]
            shown = {kind: clip for kind, clip in made.items() if "equal" not in kind}
            rows.append((f"{case.period:.1f}", case.scene.attributes["motion"], shown))
        save_image(courses_sheet(rows), path)
        return [path]


def numbers_of(rhythm: Rhythm, real: Rhythm) -> Record:
    """Return what a line says of a clip; `off` is the median distance from where the object truly is."""
    off = np.abs(rhythm.places - real.places)
    return {
        "period": round(rhythm.period, 3),
        "explained": round(rhythm.explained, 3),
        "phase_error": round(rhythm.phase_error, 3),
        "off": round(float(np.median(off)) if np.isfinite(off).all() else 1.0, 4),
    }


def period_of(scene: Scene) -> float:
    """Return the frames of a period."""
    return FRAMES / scene.parameters["periods"]


def told_apart(tempo: float) -> bool:
    """Whether no other of the tempi has the same key frames: all begin at rest, so n and m periods do if n ± m is a multiple
    of the key frames in a clip."""
    keys = FRAMES // PLAN.every
    return all((other - tempo) % keys and (other + tempo) % keys for other in TEMPI if other != tempo)


def tempo_of(numbers: Record) -> float | None:
    """Return the one of TEMPI that a clip has, if it has one."""
    return next((tempo for tempo in TEMPI if _near(numbers["period"], FRAMES / tempo)), None)


def split(records: list[Record]) -> list[tuple[str, list[Record]]]:
    """Return the records by whether key frames can tell the rhythm of the scene (Nyquist)."""
    limit = 2 * PLAN.every
    slow = [r for r in records if r["true_period"] >= limit]
    fast = [r for r in records if r["true_period"] < limit]
    groups = [(f"periods of {limit} frames and more", slow), (f"periods of less than {limit} frames", fast)]
    return [(name, chosen) for name, chosen in groups if chosen]


def kept_by(records: Iterable[Record], kind: str) -> list[bool]:
    return [bool(r["seen"][kind]) for r in records]


def _kept_numbers(records: Iterable[Record], kind: str) -> Iterator[tuple[bool, Record]]:
    return ((bool(r["seen"][kind]), r["rhythms"][kind]) for r in records)


def _near(period: float, true: float) -> bool:
    return abs(period / true - 1) <= TRUE


def _spread(numbers: list[Record]) -> str:
    errors, shares = [n["phase_error"] for n in numbers], [n["explained"] for n in numbers]
    return f"phase error: median {median(errors):.2f} periods; one sine explains {fmean(shares):.2f}"
