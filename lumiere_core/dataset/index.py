"""What a cache says of itself, checked before anything of it is used as a path, a shape, a size or a count."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from ..diffusion.schedule import Schedule
from ..nets.checkpoint import SCHEDULE
from ..nets.config import UNetConfig, is_number

VERSION = 1
ID = re.compile(r"[0-9a-f]{1,64}")
KEY = re.compile(r"([0-9a-f]{1,64})-([0-9]{6,12})")  # of a clip: its video's id, its first frame
SHARD = re.compile(r"([0-9]{6,12})\.tar")
MOST_FPS, MOST_FRAMES, MOST_SIZE = 1000.0, 4096, 8192
MOST_CHANNELS, MOST_RATIO = 256, 64
MOST_CONDITIONS = 64
MOST_TEXT = 64 * 2**20  # bytes of a clip's text states
MOST_WORDS = 1 << 16  # characters of a caption, a reason, a name


@dataclass(frozen=True)
class Settings:
    """The one rule that makes clips of all videos alike."""

    fps: float = 16.0
    frames: int = 16  # of a clip
    size: int = 512  # pixels; clips have about size x size, in the aspect ratio of their video
    conditions: int = 0  # copies of each clip with a part greyed before it is encoded, for `train condition`

    def __post_init__(self) -> None:
        for name, whole, most in (("fps", False, MOST_FPS), ("frames", True, MOST_FRAMES), ("size", True, MOST_SIZE)):
            value = getattr(self, name)
            if not is_number(value, 1 if whole else 1e-3, most, whole=whole):
                raise ValueError(
                    f"{name} of the clips is {value!r:.60}; {'a whole number' if whole else 'a number'} above 0, of at "
                    f"most {most:g}, is wanted."
                )
        if not is_number(self.conditions, 0, MOST_CONDITIONS):
            raise ValueError(
                f"conditions are {self.conditions!r:.60}; 0 to {MOST_CONDITIONS} copies of a clip are possible."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, without what caches of earlier versions do not name and this one does not use."""
        return {k: v for k, v in asdict(self).items() if k != "conditions" or v}


@dataclass
class Clip:
    """One training clip in the index."""

    key: str
    caption: str
    start: int  # frame of the resampled video
    shape: list[int]  # of the latents: c, t, h, w
    shard: str = ""  # tar file that holds it; "" = clips/KEY.safetensors
    conditions: int = 0  # see `Settings`

    @property
    def most_bytes(self) -> int:
        """No file of this clip is larger."""
        return 4 * math.prod(self.shape) * (1 + 2 * self.conditions) + MOST_TEXT


@dataclass
class Entry:
    """What became of one video."""

    id: str  # hash of bytes, caption, settings and backbone
    source: str
    clips: list[Clip] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)  # why something, or all of it, was left out
    notes: list[str] = field(default_factory=list)
    decoded: int = 0
    seconds: float = 0.0
    size: str = ""
    again: bool = False  # a failure that may pass, or an index that was lost: the next run looks at the video again

    def line(self) -> str:
        """Return the entry as a line of the index."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


def parse_dataset(data: bytes, where: str) -> dict[str, Any]:
    """Return the checked content of dataset.json.

    Raises:
        ValueError: it is no cache's, of another version, or damaged; what is wrong is named.
    """
    try:
        dataset = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is no cache of clips ({error}). {MAKE}") from error
    if not isinstance(dataset, dict):
        raise ValueError(f"{where} is no cache of clips (its dataset.json is no JSON object). {MAKE}")
    if dataset.get("version") != VERSION:
        raise ValueError(f"{where} is of version {dataset.get('version')!r:.20}, wanted {VERSION}. Prepare it again.")
    try:
        settings = dataset.get("settings")
        if not isinstance(settings, dict) or settings.keys() - Settings.__dataclass_fields__.keys():
            raise ValueError(f"settings are {settings!r:.60}")
        if missing := {"fps", "frames", "size"} - settings.keys():
            raise ValueError(f"settings lack {sorted(missing)}")
        Settings(**settings)
        check_backbone(dataset.get("backbone"))
        if "rgb" in dataset:
            _check_colours(dataset["rgb"])
    except ValueError as error:
        raise ValueError(f"the dataset.json of {where} is damaged: {error}. Prepare the cache again.") from error
    return dataset


MAKE = "Make one with `python -m lumiere_core prepare`."


def check_backbone(backbone: Any) -> None:
    """Raise ValueError unless a JSON value describes a backbone (see `encoders.Encoders`); the wrong entry is named."""
    _want(isinstance(backbone, dict), "backbone", backbone)
    hashes, unet, schedule = (backbone.get(name) for name in ("sha256", "unet", "schedule"))
    _want(isinstance(hashes, dict) and all(map(_is_text, hashes.values())), "backbone.sha256", hashes)
    _want(is_number(backbone.get("ratio"), 1, MOST_RATIO), "backbone.ratio", backbone.get("ratio"))
    _want(is_number(backbone.get("multiple"), 1, MOST_SIZE), "backbone.multiple", backbone.get("multiple"))
    _want(isinstance(schedule, dict) and schedule.keys() <= SCHEDULE, "backbone.schedule", schedule)
    Schedule(**schedule)
    _want(_is_text(backbone.get("prefix", "")), "backbone.prefix", backbone.get("prefix"))
    UNetConfig.from_dict(unet)


def low_channels(backbone: dict[str, Any]) -> int:
    """Return the channels of the small clip that a backbone enlarges; 0 for a model that makes new clips."""
    return UNetConfig.from_dict(backbone["unet"]).low_channels


def _check_colours(rgb: Any) -> None:
    """The linear preview: a (c, 3) matrix and 3 biases."""
    fits = isinstance(rgb, dict) and isinstance(rgb.get("matrix"), list) and 1 <= len(rgb["matrix"]) <= MOST_CHANNELS
    for row in [*rgb["matrix"], rgb.get("bias")] if fits else []:
        fits = fits and isinstance(row, list) and len(row) == 3
        fits = fits and all(is_number(v, -1e6, 1e6, whole=False) for v in row)
    _want(fits, "rgb", rgb)


def parse_index(data: bytes, dataset: dict[str, Any]) -> tuple[list[Entry], list[str]]:
    """Return the entries of index.jsonl, and what is wrong with the lines that hold none."""
    entries, wrong = [], []
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            _want(isinstance(row, dict), "the line", row)
            if str(row.get("id")).startswith("unused "):  # as earlier versions wrote of files without a caption
                continue
            entries.append(_entry(row, dataset))
        except (ValueError, RecursionError) as error:
            wrong.append(f"line {number}: {str(error)[:200]}")
    return entries, wrong


def _entry(row: dict[str, Any], dataset: dict[str, Any]) -> Entry:
    _want(_matches(ID, row.get("id")), "id", row.get("id"))
    _want(_is_text(row.get("source")), "source", row.get("source"))
    for name in ("reasons", "notes"):
        _want(isinstance(row.get(name, []), list) and all(map(_is_text, row.get(name, []))), name, row.get(name))
    _want(is_number(row.get("decoded", 0), 0, 1e9), "decoded", row.get("decoded"))
    _want(is_number(row.get("seconds", 0.0), 0, 1e9, whole=False), "seconds", row.get("seconds"))
    _want(_is_text(row.get("size", "")), "size", row.get("size"))
    _want(isinstance(row.get("again", False), bool), "again", row.get("again"))
    _want(isinstance(row.get("clips"), list), "clips", row.get("clips"))
    clips = [parse_clip(clip, row["id"], dataset) for clip in row["clips"]]
    _want(len({clip.key for clip in clips}) == len(clips), "the number of clips, some of them twice,", len(clips))
    known = {name: row[name] for name in Entry.__dataclass_fields__ if name in row}
    return Entry(**{**known, "clips": clips})


def parse_clip(row: Any, identity: str, dataset: dict[str, Any]) -> Clip:
    """Return a checked clip of the video `identity`.

    Raises:
        ValueError: a field is not what it must be; it is named.
    """
    _want(isinstance(row, dict), "a clip", row)
    key = row.get("key")
    match = KEY.fullmatch(key) if isinstance(key, str) else None
    _want(match is not None and match[1] == identity, "key", key)
    _want(_is_text(row.get("caption")), "caption", row.get("caption"))
    _want(is_number(row.get("start"), 0, 10**9), "start", row.get("start"))
    shard = row.get("shard", "")
    _want(shard == "" or _matches(SHARD, shard), "shard", shard)
    shape, ratio = row.get("shape"), dataset["backbone"]["ratio"]
    _want(isinstance(shape, list) and len(shape) == 4 and all(is_number(n, 1, 1 << 16) for n in shape), "shape", shape)
    inside = shape[0] <= MOST_CHANNELS and shape[1] == dataset["settings"]["frames"]
    # Of about size x size pixels, and at most twice as wide as high or as high as wide.
    most = 4 * (dataset["settings"]["size"] + dataset["backbone"]["multiple"])
    _want(inside and max(shape[2:]) * ratio <= most, "shape", shape)
    conditions = dataset["settings"].get("conditions", 0)
    return Clip(key, row["caption"], row["start"], shape=list(shape), shard=shard, conditions=conditions)


def _want(fits: bool, name: str, value: Any) -> None:
    if not fits:
        raise ValueError(f"{name} is {value!r:.80}")


def _matches(pattern: re.Pattern, value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MOST_WORDS
