"""Stylised generation: interpolate the spatial weights, keep the motion (Lumiere §4.1).

W = alpha * W_style + (1 - alpha) * W_orig over the image U-Net only; the temporal layers and those of the
conditioning never change. The paper chooses alpha in [0.5, 1] by hand for each style. Levels are counted from 0,
the finest; an alpha of its own for each level is our addition.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from .checkpoint import WEIGHTS, Parts, StateDict, check_state, check_values, load_file, load_parts, sha256
from .config import UNetConfig
from .details import without_details
from .lora import PREFIX, apply
from .unet import block_names

STYLES = WEIGHTS / "styles"
BUNDLED_FOR = "lumiere-mini_"  # beginning of the names of the pack's own LoRA files


def bundled_styles() -> dict[str, Path]:
    """Return the styles in the pack by name: LoRA files, and whole fine-tunes as "NAME-full"."""
    files = {f.stem.removeprefix(BUNDLED_FOR): f for f in sorted(STYLES.glob("*.safetensors"))}
    for file in sorted(WEIGHTS.glob("mini-image-*.safetensors")):
        files[f"{file.stem.removeprefix('mini-image-')}-full"] = file
    return files


def style_file(style: str | Path) -> Path:
    """Return the file of a style of the pack by its name, or any other file by its path.

    Raises:
        FileNotFoundError: it is neither.
    """
    known = bundled_styles()
    path = known.get(str(style), Path(style))
    if not path.is_file():
        raise FileNotFoundError(
            f"no style {str(style)!r}: give one of {', '.join(known) or '(none are bundled)'}, or the path "
            "of a LoRA or of an image model."
        )
    return path


def stylise_parts(original: Parts, style: str | Path, alpha: float) -> Parts:
    """Return a model in a style: a LoRA at strength alpha, or a fine-tune interpolated by alpha.

    Raises:
        FileNotFoundError, ValueError: there is no such style, or it was made for another image model.
    """
    path = style_file(style)
    state, _ = load_file(path)
    check_values(state, path.name)
    if not any(key.startswith(PREFIX) for key in state):
        return interpolate_parts(original, load_parts(path), alpha)
    original.require("image")
    alphas_by_key((), alpha)  # the same range for both kinds
    image = apply(original.image, state, alpha, path.name)
    hashes = joined_hashes(original.sha256, {path.name: sha256(path)})
    return dataclasses.replace(original, image=image, sha256=hashes)


def interpolate(original: StateDict, style: StateDict, alpha: float) -> StateDict:
    """Return alpha * style + (1 - alpha) * original, in float32 and rounded to the original's dtypes once.

    Args:
        original, style: weights of two image U-Nets of one architecture (LDM keys, no prefix). What makes the original
            one for twice the size stays as it is.
        alpha: 0 is the original, 1 the style.

    Raises:
        ValueError: the architectures differ (the first key is named), or alpha is outside [0, 1].
    """
    check_state(without_details(original), without_details(style), "the weights of the style")
    alphas_by_key((), alpha)
    mixed = {}
    for key, value in original.items():
        if not value.is_floating_point() or key not in style:
            mixed[key] = value
            continue
        sum_ = value.float() * (1 - alpha) + style[key].float() * alpha
        mixed[key] = sum_.to(value.dtype)
    return mixed


def interpolate_parts(original: Parts, style: Parts, alpha: float) -> Parts:
    """Return a model with interpolated image weights; every other part is the original's, untouched.

    Raises:
        ValueError: see `interpolate`; or one of the two has no image weights.
    """
    original.require("image")
    style.require("image")
    image = interpolate(original.image, style.image, alpha)
    sha256 = joined_hashes(original.sha256, style.sha256)
    return dataclasses.replace(original, image=image, sha256=sha256)


def joined_hashes(original: dict[str, str], style: dict[str, str]) -> dict[str, str]:
    """Return the hashes of both models' files by name; a second file of one name is called the style's."""
    new = {k if original.get(k, v) == v else f"style {k}": v for k, v in style.items()}
    return original | new


def alphas_by_key(
    keys: Sequence[str], alpha: float, levels: Sequence[float | None] = (), config: UNetConfig | None = None
) -> dict[str, float]:
    """Return the alpha of every weight.

    Args:
        levels: alpha of each U-Net level, finest first; None or a missing one takes `alpha`, as do the
            embeddings of time and text, which belong to no level.
        config: of the U-Net; needed with `levels` only.

    Raises:
        ValueError: an alpha is no number in [0, 1], or the U-Net has fewer levels than were given.
    """
    for value in (alpha, *levels):
        if value is not None and not (math.isfinite(value) and 0 <= value <= 1):
            raise ValueError(f"alpha is {value}; a number from 0 (original) to 1 (style) is wanted.")
    if all(value is None for value in levels):
        return dict.fromkeys(keys, alpha)
    if config is None:
        raise ValueError("alphas of levels need the U-Net's configuration; only one alpha was meant.")
    if any(value is not None for value in levels[config.num_levels :]):
        raise ValueError(
            f"alphas for {len(levels)} levels were given, this U-Net has {config.num_levels}. "
            "Leave out those of the coarsest ones."
        )
    chosen = {level: value for level, value in enumerate(levels) if value is not None}
    return {key: chosen.get(level_of(key, config), alpha) for key in keys}


def level_of(key: str, config: UNetConfig) -> int | None:
    """Return the level of a weight by its key, or None for the embeddings of time and text.

    A downsampling layer counts to the level that it leads into, an upsampling one to the level it leaves.
    """
    first, *rest = key.split(".")
    if first == "out":
        return 0
    name = f"{first}.{rest[0]}" if first in ("input_blocks", "output_blocks") else first
    return _levels(config).get(name)


@cache
def _levels(config: UNetConfig) -> dict[str, int]:
    return {name: level for name, level, _, _ in block_names(config)}
