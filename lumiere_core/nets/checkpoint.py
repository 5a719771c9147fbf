"""Reading and writing weights: safetensors only, every key and shape checked, written atomically.

Layout: keys carry the prefix of their part (`text.`, `image.`, `temporal.`), and the metadata field
`lumiere.config` holds a JSON object with the configurations ("text", "unet", "temporal", "schedule"). The
parts of one model may lie in one file or in several; a bundled model is a set `NAME-*.safetensors`. A file of `details.`
makes the model that it is read with one for twice the size (see `details.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..files import atomic
from .config import TemporalConfig, TextConfig, UNetConfig, is_number
from .details import with_large_patches

StateDict = dict[str, Tensor]
WEIGHTS = Path(__file__).parents[1] / "weights"
PREFIXES = ("text", "image", "temporal")
DETAILS = "details"  # prefix of what is put onto the image weights of half the size
SCHEDULE = {"kind", "prediction", "sigma_min", "sigma_max", "steps", "sigma_data", "betas"}  # arguments of `Schedule`
LARGEST = 1 << 14  # pixels of a trained size


def load_file(path: str | Path) -> tuple[StateDict, dict[str, str]]:
    """Read a safetensors file; returns (state dict on the CPU, metadata).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no complete safetensors file.
    """
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})


def load_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata of a safetensors file; its tensors are not read. Errors as of `load_file`."""
    with _opened(path) as file:
        return dict(file.metadata() or {})


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}. Check the path and the file name.")
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{path.name} ({path.stat().st_size:,} bytes) is not a complete safetensors file ({error}). "
            "It may be truncated or of another format; download or copy it again."
        ) from error


def save_file(state: StateDict, path: str | Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file as write

    with atomic(path) as partial:
        partial.touch()
        mode = partial.stat().st_mode  # safetensors makes files that only their owner can read
        try:
            write({k: v.detach().contiguous().cpu() for k, v in state.items()}, str(partial), metadata)
        except SafetensorError as error:  # how the library reports a full disk
            raise OSError(f"could not write {path} ({error}). Is the disk full, or the folder not writable?") from error
        partial.chmod(mode)


def load_into(module: nn.Module, state: StateDict, what: str) -> None:
    """Load a state dict after checking every key and shape.

    Args:
        what: name of the part for the message, for example "temporal layers of clip.safetensors".

    Raises:
        ValueError: keys are missing or left over, or a shape differs; the first ones are named.
    """
    check_state(module.state_dict(), state, what)
    own = next(iter(module.state_dict().values()))
    module.load_state_dict({k: v.to(own.dtype) for k, v in state.items()})


def check_state(wanted: StateDict, got: StateDict, what: str) -> None:
    """Raise ValueError unless both state dicts have the same keys and shapes."""
    missing, extra = sorted(wanted.keys() - got.keys()), sorted(got.keys() - wanted.keys())
    shapes = [
        f"{k} is {tuple(got[k].shape)}, wanted {tuple(wanted[k].shape)}"
        for k in sorted(wanted.keys() & got.keys())
        if got[k].shape != wanted[k].shape
    ]
    problems = [
        f"{len(found)} {title}: {', '.join(found[:3])}{' …' if len(found) > 3 else ''}"
        for title, found in (("missing", missing), ("unknown", extra), ("of another shape", shapes))
        if found
    ]
    if problems:
        raise ValueError(
            f"{what} do not fit this architecture: {'; '.join(problems)}. "
            "The file was made for another backbone or configuration."
        )
    check_values(got, what)


def check_values(state: StateDict, what: str) -> None:
    """Raise ValueError unless all tensors are floating point and finite; the first others are named."""
    kinds = [
        f"{k} is {str(v.dtype).removeprefix('torch.')}" for k, v in sorted(state.items()) if not v.is_floating_point()
    ]
    if kinds:
        raise ValueError(
            f"{what} are no weights: {len(kinds)} tensors are of another type than floating point: "
            f"{', '.join(kinds[:3])}. Export or download the file again."
        )
    bad = [k for k, v in sorted(state.items()) if v.device.type != "meta" and not _is_finite(v)]
    if bad:
        raise ValueError(
            f"{what} hold NaN or infinite numbers in {len(bad)} tensors: {', '.join(bad[:3])}. The run that made them "
            "had diverged, or the file is damaged: take an earlier one."
        )


def _is_finite(value: Tensor) -> bool:
    if not value.numel():
        return True
    value = value if value.element_size() > 1 else value.float()  # float8 has no order
    return all(math.isfinite(end) for end in torch.aminmax(value))  # NaN passes through; 8 times as fast as isfinite


@dataclass
class Parts:
    """The parts of one model as read from disk; a part that is absent is None."""

    config: dict[str, Any] = field(default_factory=dict)
    text: StateDict | None = None
    image: StateDict | None = None
    temporal: StateDict | None = None
    sha256: dict[str, str] = field(default_factory=dict)  # file name -> hash
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def unet_config(self) -> UNetConfig:
        return self._config(UNetConfig, "unet")

    @property
    def temporal_config(self) -> TemporalConfig:
        return self._config(TemporalConfig, "temporal")

    @property
    def text_config(self) -> TextConfig:
        return self._config(TextConfig, "text")

    @property
    def schedule(self) -> dict[str, Any]:
        section = self._section("schedule")
        unknown = sorted(section.keys() - SCHEDULE)
        if unknown:
            raise ValueError(f"the schedule of {self._names()} does not know {unknown}. Update the node pack.")
        return section

    @property
    def trained_size(self) -> tuple[int, int] | None:
        """Width and height in pixels; None if the files do not say."""
        height, width = self.config.get("size", (0, 0))
        return (width, height) if width and height else None

    def _names(self) -> str:
        return ", ".join(self.sha256) or "the checkpoint"

    def _config(self, kind: type, name: str):
        try:
            return kind.from_dict(self._section(name))
        except ValueError as error:
            raise ValueError(f"the lumiere.config of {self._names()} cannot be used: {error}") from error

    def _section(self, name: str) -> dict[str, Any]:
        if name not in self.config:
            raise ValueError(
                f'{self._names()} has no "{name}" in its lumiere.config, only '
                f"{sorted(self.config)}. Choose the file that holds this part of the model."
            )
        if not isinstance(self.config[name], dict):
            raise ValueError(
                f'"{name}" in the lumiere.config of {self._names()} is no JSON object. Get the file again.'
            )
        return self.config[name]

    def require(self, *parts: str) -> None:
        """Raise ValueError unless the named parts were in the files."""
        missing = [part for part in parts if getattr(self, part) is None]
        if missing:
            raise ValueError(
                f"{self._names()} holds no {' and no '.join(missing)} weights; "
                f"keys with the prefixes {', '.join(p + '.' for p in missing)} are wanted."
            )


def bundled_names(folder: Path = WEIGHTS) -> list[str]:
    """Return the models that are shipped with the pack: "mini", its whole fine-tunes, "mini-STYLE", then "mini-SIZE"."""
    kinds = ("mini-image-", f"mini-{DETAILS}-")
    files = [(kind, file) for kind in kinds for file in sorted(folder.glob(f"{kind}*.safetensors"))]
    return ["mini", *(f"mini-{file.stem.removeprefix(kind)}" for kind, file in files)]


def bundled_files(name: str = "mini", folder: Path = WEIGHTS) -> list[Path]:
    """Return the files of a model that is shipped with the pack.

    Args:
        name: "mini"; "mini-STYLE" for a style's image weights with the other parts of mini; "mini-SIZE" for mini with
            the details that make its clips so many pixels high and wide.

    Raises:
        FileNotFoundError: none of them is there, or not the style's or the size's.
    """
    base, _, kind = name.partition("-")
    paths = {part: folder / f"{base}-{part}.safetensors" for part in PREFIXES}
    if kind:
        part = DETAILS if kind.isdigit() else "image"
        paths[part] = folder / f"{base}-{part}-{kind}.safetensors"
    files = [path for path in paths.values() if path.is_file()]
    if not files or (kind and paths[part] not in files):
        raise FileNotFoundError(
            f"no files {', '.join(path.name for path in paths.values())} in {folder}. "
            "The pack is incomplete: install it again."
        )
    return files


def load_parts(paths: Path | str | list[Path]) -> Parts:
    """Read a model from one file or several.

    Raises:
        ValueError: a file is broken or is no Lumiere checkpoint.
    """
    parts, details, larger = Parts(), {}, {}
    for path in [Path(paths)] if isinstance(paths, (str, Path)) else paths:
        state, metadata = load_file(path)
        config = metadata.get("lumiere.config")
        if config is None:
            raise ValueError(
                f"{Path(path).name} is no Lumiere checkpoint: its metadata has no lumiere.config (found "
                f"{sorted(metadata)[:5] or 'no metadata'}; first keys {sorted(state)[:3]}). "
                "Choose a file written by this pack; an image checkpoint must be inflated instead."
            )
        has = _parse_config(config, Path(path).name)
        found = {k.removeprefix(f"{DETAILS}."): v for k, v in state.items() if k.startswith(f"{DETAILS}.")}
        if found:
            details, larger = found, has
        parts.config |= has
        parts.metadata |= metadata
        parts.sha256[Path(path).name] = sha256(path)
        for prefix in PREFIXES:
            found = {k.removeprefix(f"{prefix}."): v for k, v in state.items() if k.startswith(f"{prefix}.")}
            if found:
                setattr(parts, prefix, found)
    if details:
        parts.config |= larger
        _put_on(parts, details)
    _check_parts(parts)
    return parts


def _put_on(parts: Parts, details: StateDict) -> None:
    """Make parts of a pixel model those for twice the size. `details` is a state dict.

    Raises:
        ValueError: the image weights are not there, or of patches of another size.
    """
    from .unet import UNet

    if parts.image is None:
        raise ValueError(
            f"{parts._names()} holds what makes a model one for twice the size, but not the model. Give the file together "
            "with those of the model that it was trained for."
        )
    new = parts.unet_config
    with torch.device("meta"):
        old = UNet(dataclasses.replace(new, patch_size=new.patch_size // 2, patch_channels=0, detail_width=0))
    check_state(old.state_dict(), parts.image, f"image U-Net weights of {parts._names()}")
    parts.image |= {k if k == "patch_basis" else f"{DETAILS}.{k}": v for k, v in details.items()}
    if parts.temporal is not None:
        parts.temporal = with_large_patches(parts.temporal, new.in_channels, new.patch_size)


def parts_in(path: Path) -> set[str] | None:
    """Return which parts ("text", "image", "temporal") a file holds, by its header; None if it cannot be read."""
    facts = os.stat(path)
    return _parts_in(os.path.realpath(path), facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _parts_in(path: str, *written: int) -> frozenset[str] | None:
    """Read the header of a file; `written` changes whenever it was written."""
    try:
        with _opened(path) as file:
            return frozenset(key.split(".")[0] for key in file.keys()) & set(PREFIXES)  # noqa: SIM118
    except (OSError, ValueError):
        return None


def _check_parts(parts: Parts) -> None:
    """Raise ValueError unless every part that was read is of its configuration's architecture, in finite numbers.

    The networks are made without memory: a damaged configuration must not ask for more than there is.
    """
    from .temporal import TemporalLayers
    from .text_encoder import TextEncoder
    from .unet import UNet

    makers = [
        (parts.text, ("text",), "text encoder weights", lambda: TextEncoder(parts.text_config)),
        (parts.image, ("unet",), "image U-Net weights", lambda: UNet(parts.unet_config)),
        (
            parts.temporal,
            ("unet", "temporal"),
            "the temporal layers",
            lambda: TemporalLayers(parts.unet_config, parts.temporal_config),
        ),
    ]
    for state, sections, title, make in makers:
        if state is not None and set(sections) <= parts.config.keys():
            with torch.device("meta"):
                network = make()
            check_state(network.state_dict(), state, f"{title} of {parts._names()}")


def _parse_config(text: str, name: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise ValueError(
            f"the metadata field lumiere.config of {name} is {text[:40]!r}; a JSON object is wanted. "
            "The file is damaged: download or export it again."
        )
    size = config.get("size")
    if size is not None and not is_size(size):
        raise ValueError(
            f'"size" in the lumiere.config of {name} is {size!r:.60}; height and width in pixels are wanted, each '
            f"from 1 to {LARGEST}. The file is damaged: download or export it again."
        )
    return config


def is_size(value: Any) -> bool:
    """Tell whether a value of JSON is a height and a width in pixels."""
    return isinstance(value, list) and len(value) == 2 and all(is_number(side, 1, LARGEST) for side in value)


def sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file; one that was not written since is not read again."""
    path = os.path.realpath(path)
    facts = os.stat(path)
    return _sha256(path, facts.st_size, facts.st_mtime_ns, facts.st_ino)


@functools.lru_cache(maxsize=1024)
def _sha256(path: str, *written: int) -> str:
    """Read and hash a file; `written` changes whenever it was written: gigabytes take seconds."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def metadata_for(title: str, config: dict[str, Any], **extra: str) -> dict[str, str]:
    """Return metadata fields: modelspec for other tools, lumiere.* for this pack."""
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "lumiere",
        "modelspec.implementation": "lumiere_core",
        "modelspec.title": title,
        "lumiere.config": json.dumps(config, sort_keys=True),
        **{f"lumiere.{key}": value for key, value in extra.items()},
    }


def to_half(state: StateDict) -> StateDict:
    """Return float16 copies, for shipping."""
    return {k: v.to(torch.float16) for k, v in state.items()}


def average_files(files: list[Path], shares: list[float], output: Path) -> None:
    """Write the weighted mean of weights files of one architecture; the last one's metadata, and the shares.

    Args:
        shares: of each file; they add up to 1.

    Raises:
        ValueError: there are fewer than two files, the shares do not fit, or the files are of different architectures.
    """
    if len(files) < 2 or len(shares) != len(files) or not (abs(sum(shares) - 1) <= 1e-6 and min(shares) >= 0):
        raise ValueError(
            f"got {len(files)} files and the shares {', '.join(f'{s:g}' for s in shares)}; wanted are two files or more, and "
            "a share of at least 0 for each, 1 in all."
        )
    loaded = [load_file(file) for file in files]
    state, facts = loaded[-1]
    total: StateDict = {}
    for (values, metadata), file, share in zip(loaded, files, shares, strict=True):
        check_state(state, values, f"the weights of {file.name}")
        if metadata.get("lumiere.config") != facts.get("lumiere.config"):
            raise ValueError(
                f"{file.name} and {files[-1].name} are of different configurations; only alike ones can be averaged."
            )
        for key, value in values.items():
            part = value.double() * share if value.is_floating_point() else value
            total[key] = total[key] + part if key in total and value.is_floating_point() else part
    words = " + ".join(f"{share:g} {sha256(file)[:16]}" for file, share in zip(files, shares, strict=True))
    mean = {key: value.to(state[key].dtype) for key, value in total.items()}
    save_file(mean, output, {**facts, "lumiere.average": words})
