"""The options of training, each declared once: they make the command line, the node's inputs and what a run that goes on must keep.

A source that cannot honour an option refuses it by name before anything is loaded; `table` prints which source honours
which.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..nets.config import LORA_LAYERS

PRECISIONS = ("float32", "bfloat16")
SCENES = ("all", "rhythms", "tempi")
AUTO = "auto"

# Where batches come from; `training.sources` has a class for each.
SOURCES = {
    "captions": "captions of the world",
    "stills": "single frames of the world",
    "clips": "clips of the world",
    "crops": "large crops of the world with their small ones",
    "styled-stills": "single frames of the world in another style",
    "cached-clips": "your own clips, out of a cache of `prepare`",
    "cached-clips-lora": "your own clips, for a motion LoRA",
    "cached-crops": "crops of your own clips with their small ones, for the SD x4 upscaler",
    "pictures": "your own pictures",
    "encoded-pictures": "your own pictures in the latents of a checkpoint",
}
EVERY = tuple(SOURCES)
NOISED = tuple(name for name in EVERY if name != "captions")
WORLD = ("captions", "stills", "clips", "crops", "styled-stills")
MOVING = ("clips", "crops", "cached-clips", "cached-clips-lora", "cached-crops")
WHOLE = tuple(name for name in MOVING if name != "cached-clips-lora")  # all of the temporal layers may train
CACHED = ("cached-clips", "cached-clips-lora", "cached-crops")
STYLED = ("styled-stills", "pictures", "encoded-pictures")
DRAWN = ("stills", "clips", "crops", "cached-crops", *STYLED)  # at a size that is asked for
# Without a second frame these do nothing.
NEED_FRAMES = ("change_weight", "motion_weight", "checkpointing", "only", "strides", "fresh_noise")


def option(
    default: Any,
    text: str,
    unit: str = "",
    sources: tuple[str, ...] = EVERY,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
    free: bool = False,
) -> Any:
    """Return a field of `TrainOptions`.

    Args:
        text: what it means, for the help of the command line and the node.
        sources: that honour it.
        choices: what it may be; least, most: bounds of a number.
        free: it may change when a run is resumed.
    """
    facts = {"help": text, "unit": unit, "sources": sources, "choices": choices, "least": least, "most": most}
    return dataclasses.field(default=default, metadata={**facts, "free": free})


@dataclass(frozen=True)
class TrainOptions:
    """What a training run is asked to do; every field names its meaning, unit and sources in its metadata."""

    steps: int = option(10_000, "optimiser steps", "steps", least=0, most=10**9, free=True)
    minutes: float | None = option(
        None, "stop after this much time, with everything saved", "minutes", least=0, free=True
    )
    batch_size: int = option(32, "pictures or clips a step", "samples", least=1, most=65_536)
    accumulate: int = option(1, "batches whose gradients are added up before a step", "batches", least=1, most=65_536)
    optimizer: str = option("AdamW", "AdamW, Muon, a name of torch.optim, or a dotted path to any installed class")
    learning_rate: float = option(8e-4, "of the optimiser", least=0, most=100)
    warmup: int = option(100, "steps of linear warm-up of the rate", "steps", least=0, most=10**9)
    decay_from: float = option(
        1.0, "share of the steps after which the rate falls linearly to zero; 1 = never", least=0, most=1, free=True
    )
    weight_decay: float = option(0.01, "of the optimiser", least=0, most=100)
    gradient_clip: float = option(1.0, "largest norm of the gradient", least=0)
    ema_decay: float = option(0.999, "of the running mean of the weights, which is what is written", least=0, most=1)
    seed: int = option(0, "of the order of the data and of all noise", least=0, most=2**32 - 1)
    precision: str = option("float32", "bfloat16 runs the whole network in half precision", choices=PRECISIONS)
    device: str = option("cpu", "for example cpu or cuda", free=True)
    save_every: float = option(60.0, "seconds between full-state checkpoints", "seconds", least=0, free=True)
    sample_every: int = option(
        0, "steps between samples; 0 = at the end only, -1 = none", "steps", least=-1, most=10**9, free=True
    )
    checkpointing: bool = option(
        False, "recompute activations: less memory, about a third slower", sources=MOVING, free=True
    )
    sigma_shift: float = option(
        2.0,
        "factor of the noise levels that are trained on; above 1 trains more on strong noise",
        "",
        NOISED,
        least=1e-3,
        most=1e3,
    )
    pure_noise: float = option(
        0.0, "share of the samples that are noise alone, as sampling starts", "", NOISED, least=0, most=1
    )
    text_dropout: float = option(
        0.1, "share of the prompts that are replaced by the empty one, for guidance", "", NOISED, least=0, most=1
    )
    object_weight: float = option(
        0.0,
        "how much more errors near the main object weigh; 0 = no more",
        "",
        ("stills", "clips", "styled-stills"),
        least=0,
        most=1e6,
    )
    change_weight: float = option(
        0.0, "of errors in changes from frame to frame; 0 = frames alone count", "", MOVING, least=0, most=1e6
    )
    motion_weight: float = option(
        0.0, "of errors in how frames differ from the clip's mean, slow motion too", "", MOVING, least=0, most=1e6
    )
    height: int = option(64, "of pictures, clips or crops", "pixels", DRAWN, least=1, most=16_384)
    width: int = option(64, "of pictures, clips or crops", "pixels", DRAWN, least=1, most=16_384)
    num_frames: int = option(
        80,
        "of a training clip; of a cache's clips a window, 0 = the whole of them",
        "frames",
        MOVING,
        least=0,
        most=10_000,
    )
    shortest: int = option(
        0,
        "least length of clips with lengths of their own, from this to num_frames; 0 = all have num_frames",
        "frames",
        ("clips",),
        least=0,
        most=10_000,
    )
    every: int = option(
        1,
        "train on every so many frames of a clip: key frames, of which num_frames are in a sample; 1 = all",
        "frames",
        ("clips",),
        least=1,
        most=10_000,
    )
    known_every: int = option(
        0,
        "of `train condition`: every so many frames of each sample are known, from its first on, and nothing else; 0 = what is "
        "known is drawn",
        "frames",
        ("clips",),
        least=0,
        most=10_000,
    )
    fps: float = option(16.0, "of the world's clips", "frames a second", ("clips", "crops"), least=0.01, most=1000)
    scenes: str = option(
        "all",
        "of the world: all of them, or only bounces and swings in front of black whose rhythm no word tells (rhythms), or bounces "
        "in one of four tempi (tempi)",
        "",
        WORLD,
        choices=SCENES,
    )
    moving_share: float = option(
        0.0, "share of the scenes at least whose caption names how they move", "", WORLD, least=0, most=1
    )
    moving: str = option(
        "",
        "motions or families of those scenes, set apart by commas, each as often as the world has it, or with shares as in 'spinning*3,bouncing'; empty = any",
        "",
        WORLD,
    )
    stills: float = option(
        0.0, "share of the clips that are one frame, repeated: keeps single frames sharp", "", CACHED, least=0, most=1
    )
    placed: float = option(
        0.5,
        "share of the clips that are told where in their video they are; the others are told they are whole",
        "",
        CACHED,
        least=0,
        most=1,
    )
    photographs: float = option(
        0.0,
        "share of the clips that are photographs of the folder --images under a moving camera",
        "",
        ("crops",),
        least=0,
        most=1,
    )
    fresh_noise: float = option(
        0.0,
        "share of the clips whose noise is new in each frame; the others have the same in all",
        "",
        ("crops", "cached-crops"),
        least=0,
        most=1,
    )
    only: str = option("", "train only temporal parameters with one of these words in their name", "", WHOLE)
    strides: str = option(
        "", "temporal stride of each resize of new layers, such as 2,1,1; empty = by the clip's length", "", WHOLE
    )
    style: str = option("", "a style of the world; of your own pictures the name that the file is given", "", STYLED)
    words: str = option("", 'how captions name the style, for example "in oils"', "", STYLED)
    rank: int = option(
        8,
        "of the low-rank deltas (LoRA); 0 = fine-tune all weights",
        "",
        (*STYLED, "cached-clips-lora"),
        least=0,
        most=4096,
    )
    layers: str = option(
        AUTO,
        "that the deltas change; auto = all of a Lumiere, the attention of other models",
        "",
        STYLED,
        choices=(AUTO, *LORA_LAYERS),
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))

    def differences(self, earlier: dict[str, Any]) -> list[str]:
        """Name the options that decide what a run computes and differ from an earlier run's.

        An option that an earlier version of the program did not have does by default what that version did.

        Args:
            earlier: names and values, as a run's state has them.
        """
        mine = json.loads(json.dumps(dataclasses.asdict(self)))
        free = {f.name for f in dataclasses.fields(self) if f.metadata["free"]}
        before = json.loads(json.dumps({f.name: f.default for f in dataclasses.fields(self)})) | earlier
        return [
            f"{name} was {before[name]!r}, now {mine.get(name)!r}"
            for name in before
            if name not in free and before[name] != mine.get(name)
        ]

    def refuse(self, source: str, given: Iterable[str]) -> None:
        """Refuse what a source cannot honour.

        Args:
            source: one of SOURCES.
            given: names of the options that were asked for.

        Raises:
            ValueError: naming them, and where they can be used.
        """
        given = list(given)
        for name in given:
            sources = FIELDS[name].metadata["sources"]
            if source not in sources:
                raise ValueError(
                    f"{flag(name)} does nothing when training on {SOURCES[source]} ({source}): it is for "
                    f"{', '.join(sources)}. Leave it out."
                )
        if source == "crops" and self.num_frames == 1 and (idle := [n for n in given if n in NEED_FRAMES]):
            raise ValueError(f"{flag(idle[0])} does nothing with single frames: give --num-frames, or leave it out.")
        if "moving" in given and not self.moving_share:
            raise ValueError("--moving chooses among the scenes of --moving-share, which is 0: give a share of them.")
        if self.scenes != SCENES[0] and "moving_share" in given:
            raise ValueError(
                f"--moving-share chooses among all scenes, but --scenes is {self.scenes}: leave one of them out."
            )
        if source == "clips" and self.num_frames < 2:
            raise ValueError(f"--num-frames is {self.num_frames}; temporal layers learn from 2 frames on.")
        if self.shortest and not 2 <= self.shortest <= self.num_frames:
            raise ValueError(
                f"--shortest is {self.shortest} and --num-frames {self.num_frames}; lengths from 2 frames to num_frames are "
                "drawn."
            )
        if source == "styled-stills":
            from ..world.styles import STYLES  # with torch, which --help does without

            if self.style not in STYLES:
                raise ValueError(
                    f"got style {self.style!r}; give --style with one of {', '.join(STYLES)}, or --images with a folder "
                    "of pictures."
                )
        if source == "encoded-pictures" and not self.rank:
            raise ValueError("--rank is 0; for this kind of checkpoint a LoRA is trained: give 4 to 64.")
        if source == "cached-clips-lora" and not self.rank:
            raise ValueError(
                "--rank is 0; a motion LoRA has one: give 1 to 64, or train all weights: `train temporal`."
            )


def _check(field: dataclasses.Field, value: Any) -> None:
    """Raise ValueError unless a value is one of an option's."""
    kind, optional = kind_of(field)
    facts = field.metadata
    if value is None and optional:
        return
    right = isinstance(value, (int, float)) and not isinstance(value, bool) if kind is float else type(value) is kind
    if not right:
        raise ValueError(f"{field.name} is {value!r}; a value of type {kind.__name__} is wanted.")
    if facts["choices"] and value not in facts["choices"]:
        raise ValueError(f"{field.name} is {value!r}; one of {facts['choices']} is wanted.")
    least, most = facts["least"], facts["most"]
    low, high = float("-inf") if least is None else least, float("inf") if most is None else most
    if kind in (int, float) and not (low <= value <= high and value < float("inf")):
        wanted = f"at least {least:g}" if most is None else f"{least:g} to {most:g}"
        raise ValueError(f"{field.name} is {value}; {wanted} is wanted.")


def kind_of(field: dataclasses.Field) -> tuple[type, bool]:
    """Return the plain type of an option, and whether it may be None."""
    hint = HINTS[field.name]
    if isinstance(hint, types.UnionType):
        return next(t for t in typing.get_args(hint) if t is not type(None)), True
    return hint, False


HINTS = typing.get_type_hints(TrainOptions)
FIELDS = {field.name: field for field in dataclasses.fields(TrainOptions)}


def flag(name: str) -> str:
    """Return how the command line calls an option."""
    return f"--{name.replace('_', '-')}"


def listed(words: str) -> list[str]:
    """Return the words of an option, which commas set apart."""
    return [word.strip() for word in words.split(",") if word.strip()]
