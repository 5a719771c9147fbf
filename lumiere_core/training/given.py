"""What a stage is given: files, options and the architecture of what is new, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..diffusion.models import weight_files
from ..nets.checkpoint import SCHEDULE, Parts, is_size, load_parts, sha256
from .defaults import STAGES
from .options import CACHED, FIELDS, TrainOptions

Config = dict[str, Any]
SECTIONS = {"text", "unet", "schedule", "temporal", "ssr"}  # of an architecture, besides its size


@dataclass(frozen=True)
class Files:
    """What a stage is given beside its options."""

    text: Path | None = None  # text encoder weights
    image: Path | None = None  # image U-Net weights
    init_from: Path | None = None  # weights that the part starts from
    data: str | None = None  # cache of one's own clips: a folder, or an address
    checkpoint: str | None = None  # the model that the cache was prepared with, or that a style is for
    images: str | None = None  # folder of pictures
    encoded: Path | None = None  # where the pictures are as latents

    def source(self, stage: str) -> str:
        """Return the name of the source that these files are for.

        Raises:
            ValueError: the stage has no use for one of them.
        """
        if self.images is not None and stage == "style":
            name = "pictures" if self.checkpoint is None else "encoded-pictures"
        elif self.data is not None:
            name = next((name for name in STAGES[stage] if name.startswith("cached")), "")
        else:
            name = next(iter(STAGES[stage]))
        needed = {name: ("data", "checkpoint") for name in CACHED}
        needed |= {"pictures": ("images",), "encoded-pictures": ("images", "checkpoint")}
        for field in ("data", "checkpoint", "images"):
            given, wanted = getattr(self, field) is not None, field in needed.get(name, ())
            if field == "images" and name == "crops":
                continue  # a part of what is trained on, as --photographs says
            if given and not wanted:
                more = "give --images with a folder of pictures" if stage == "style" else "leave it out"
                raise ValueError(f"--{field} is of no use for `train {stage}`{' here' * bool(name)}: {more}.")
            if wanted and not given:
                what = "a cache of `prepare`" if field == "data" else "the model that the cache was prepared with"
                raise ValueError(f"--{field} is missing: give {what if field != 'images' else 'a folder of pictures'}.")
        return name

    def frozen(self, stage: str, options: TrainOptions) -> dict[str, str]:
        """Return hashes of the weights that are read and not trained: a run is resumed with the same only.

        Those around a cache are not among them: the cache says its own model (see `load_backbone`).
        """
        files = {"text": self.text, "image": self.image}
        # Where all of what --init-from holds trains, the state has it.
        if stage in ("style", "motion-lora") or (stage == "ssr" and options.num_frames > 1):
            files["init-from"] = self.init_from
        hashes = {name: sha256(file)[:16] for name, file in files.items() if file is not None}
        if stage == "style" and self.checkpoint is not None:
            hashes["checkpoint"] = " ".join(sha256(file)[:16] for file in weight_files(self.checkpoint))
        return hashes

    def start(self, part: str) -> Parts | None:
        """Return what `init_from` holds, or None for fresh weights."""
        if self.init_from is None:
            return None
        parts = load_parts(self.init_from)
        parts.require(part)
        return parts


def options_for(stage: str, source: str, given: Config) -> TrainOptions:
    """Return the options of a stage on a source.

    Args:
        given: values that were asked for.

    Raises:
        ValueError: the source cannot honour one of them.
    """
    if source not in STAGES.get(stage, {}):
        raise ValueError(f"there is no `train {stage}` on {source!r}; sources of stages are {_listed(STAGES)}.")
    if unknown := sorted(given.keys() - FIELDS.keys()):
        raise ValueError(f"there is no option {', '.join(map(repr, unknown))}; `train --list-options` names them all.")
    options = TrainOptions(**STAGES[stage][source] | given)
    options.refuse(source, given)
    if options.known_every and stage != "condition":
        raise ValueError(f"--known-every is for `train condition`, not for `train {stage}`. Leave it out.")
    return options


def _listed(stages: dict[str, dict[str, Any]]) -> str:
    return "; ".join(f"{stage}: {', '.join(sources)}" for stage, sources in stages.items())


def check_config(config: Any, name: str) -> Config:
    """Return an architecture as it was read from a file.

    Args:
        name: of the file or model, for the message.

    Raises:
        ValueError: it is none, or a section of it is of another kind.
    """
    if not isinstance(config, dict) or not config.keys() <= SECTIONS | {"size"}:
        raise ValueError(
            f"{name} is no architecture; a JSON object of {', '.join(sorted(SECTIONS))} and size is wanted."
        )
    wrong = [section for section in sorted(SECTIONS & config.keys()) if not isinstance(config[section], dict)]
    if wrong:
        raise ValueError(f'"{wrong[0]}" of {name} is {config[wrong[0]]!r:.60}; a JSON object is wanted.')
    unknown = sorted(config.get("schedule", {}).keys() - SCHEDULE)
    if unknown:
        raise ValueError(f'"schedule" of {name} does not know {unknown}; it may have {", ".join(sorted(SCHEDULE))}.')
    if "size" in config and not is_size(config["size"]):
        raise ValueError(f'"size" of {name} is {config["size"]!r:.60}; height and width in pixels are wanted.')
    return config
