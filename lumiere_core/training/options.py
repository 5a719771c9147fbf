"""What a training run is asked to do."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class TrainOptions:
    """Options of a run. `identity` names those that must not change when it is resumed."""

    steps: int = 10_000  # stop after this many optimiser steps
    minutes: float | None = None  # stop after this much time of this process; None = no limit
    batch_size: int = 32  # images, or clips
    learning_rate: float = 8e-4
    warmup: int = 100  # steps of linear warm-up
    decay_from: float = 1.0  # share of `steps` after which the rate falls linearly to zero; 1 = never
    weight_decay: float = 0.01
    gradient_clip: float = 1.0  # largest norm of the gradient
    ema_decay: float = 0.999
    text_dropout: float = 0.1  # share of prompts replaced by "" (classifier-free guidance)
    sigma_shift: float = 2.0  # more than 1 trains more on high noise; see schedule.shifted_timesteps
    object_weight: float = 0.0  # how much more errors near the main object weigh; 0 = no more
    height: int = 64  # pixels
    width: int = 64
    num_frames: int = 80  # of a training clip
    fps: float = 16.0
    seed: int = 0
    checkpointing: bool = False  # recompute activations in the backward pass
    precision: str = "float32"  # or "bfloat16"
    device: str = "cpu"
    save_every: float = 60.0  # seconds between full-state checkpoints
    sample_every: int = 0  # steps between sample pictures; 0 = only at the end, -1 = none
    accumulate: int = 1  # batches whose gradients are added up before a step
    optimizer: str = "AdamW"  # or "Muon", or any class that can be imported: "bitsandbytes.optim.AdamW8bit"
    change_weight: float = 0.0  # of errors in changes from frame to frame; 0 = frames alone count
    motion_weight: float = 0.0  # of errors in how frames differ from the clip's mean; 0 = no more
    moving_share: float = 0.0  # of the scenes at least, whose caption names a motion or a direction
    moving: str = ""  # motions or families that those scenes are of, set apart by commas; "" = any
    pure_noise: float = 0.0  # share of the samples that are noise alone, as sampling starts
    only: str = ""  # train only temporal parameters with one of these words in their name; "" = all
    stills: float = 0.0  # share of clips that are one frame, repeated (phase temporal on own clips)

    _FREE = ("steps", "minutes", "save_every", "sample_every", "device", "checkpointing", "decay_from")
    # Younger than the first saved states: at its default such an option leaves the identity as it was.
    _LATER = (
        "accumulate",
        "optimizer",
        "stills",
        "change_weight",
        "motion_weight",
        "moving_share",
        "moving",
        "only",
        "pure_noise",
    )

    def __post_init__(self) -> None:
        for name in ("batch_size", "height", "width", "num_frames", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1 is wanted.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; one of {PRECISIONS} is wanted.")

    def identity(self) -> str:
        """Return a hash of the options that decide what the run computes."""
        values = {k: v for k, v in dataclasses.asdict(self).items() if k not in self._FREE}
        for field in dataclasses.fields(self):
            if field.name in self._LATER and values[field.name] == field.default:
                del values[field.name]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, earlier: dict[str, Any]) -> list[str]:
        """Name the options that must not change and differ from an earlier run's."""
        mine = json.loads(json.dumps(dataclasses.asdict(self)))
        return [
            f"{name} was {earlier.get(name)!r}, now {mine.get(name)!r}"
            for name in mine | earlier
            if name not in self._FREE and earlier.get(name) != mine.get(name)
        ]


def listed(words: str) -> list[str]:
    """Return the words of an option, which commas set apart."""
    return [word.strip() for word in words.split(",") if word.strip()]
