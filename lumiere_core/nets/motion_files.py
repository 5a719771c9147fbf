"""Public motion modules: what kind of file it is, and its weights in the names of `TemporalLayers`.

Known layouts: AnimateDiff's own (v1, v2, v3, SDXL), HotshotXL's, and that of diffusers' `MotionAdapter`. A module's place in
a file, such as `down_blocks.1.motion_modules.0`, counts the same blocks as `block_names`; only the words differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .backbones import family_name
from .checkpoint import StateDict
from .config import LEVELS, TemporalConfig, UNetConfig
from .motion_module import KIND
from .unet import block_names

DAMAGED = "The file is damaged: download or copy it again."
_FIRST_TABLE = 24  # frames in the tables of the first generation, whose U-Net had its norms over the clip
_SD1, _SDXL = (320, 640, 1280, 1280), (320, 640, 1280)

# Where a module lies in a file, and what of it follows.
_PLACE = re.compile(
    r"(?P<place>(?:down_blocks|up_blocks|mid_block)\.(?:\d{1,3}\.)?)(?:motion_modules|temporal_attentions)\.(?P<number>\d{1,3})\."
    r"(?:temporal_transformer\.)?(?P<rest>.+)"
)
# Names inside a module: AnimateDiff's and HotshotXL's, then diffusers'.
_INSIDE = (
    (r"(norm|proj_in)\.(weight|bias)", r"\1.\2"),
    (r"proj_out\.(weight|bias)", r"proj.\1"),
    (r"transformer_blocks\.0\.attention_blocks\.(\d{1,2})\.to_(q|k|v)\.weight", r"layers.\1.to_\2.weight"),
    (r"transformer_blocks\.0\.attention_blocks\.(\d{1,2})\.to_out\.0\.(weight|bias)", r"layers.\1.to_out.\2"),
    (
        r"transformer_blocks\.0\.attention_blocks\.(\d{1,2})\.pos_encoder\.(?:pe|positional_encoding)",
        r"layers.\1.table.weight",
    ),
    (r"transformer_blocks\.0\.norms\.(\d{1,2})\.(weight|bias)", r"layers.\1.norm.\2"),
    (r"transformer_blocks\.0\.ff\.net\.0\.proj\.(weight|bias)", r"ff_in.\1"),
    (r"transformer_blocks\.0\.ff\.net\.2\.(weight|bias)", r"ff_out.\1"),
    (r"transformer_blocks\.0\.(?:ff_norm|norm3)\.(weight|bias)", r"ff_norm.\1"),
)
_DIFFUSERS_INSIDE = (
    (r"transformer_blocks\.0\.attn([12])\.to_(q|k|v)\.weight", r"layers.{}.to_\2.weight"),
    (r"transformer_blocks\.0\.attn([12])\.to_out\.0\.(weight|bias)", r"layers.{}.to_out.\2"),
    (r"transformer_blocks\.0\.norm([12])\.(weight|bias)", r"layers.{}.norm.\2"),
)
_SHARED_TABLE = "transformer_blocks.0.pos_embed.pe"  # diffusers: one for both attention layers


@dataclass(frozen=True)
class Training:
    """What a motion module was trained with that its weights do not say; kept in files that this pack writes of it."""

    title: str  # "AnimateDiff v3", "HotshotXL", …
    # ("linear" or "scaled_linear", first, last); None = the image model's
    betas: tuple[str, float, float] | None = None
    clip_norms: bool = False  # the U-Net's group norms saw all frames of a clip

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"title": self.title, "betas": self.betas and list(self.betas), "clip_norms": self.clip_norms}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Training:
        """Build from `to_dict` output.

        Raises:
            ValueError: it is none.
        """
        fits = isinstance(values, dict) and isinstance(values.get("title"), str)
        fits = fits and isinstance(values.get("clip_norms"), bool)
        betas = values.get("betas") if fits else None
        if not fits or not (betas is None or _are_betas(betas)):
            raise ValueError(
                f'"motion" in the lumiere.config is {values!r:.100}; a title, betas and clip_norms are wanted. The file is '
                "damaged: write it again with Save Lumiere Temporal Layers."
            )
        return cls(values["title"], betas and tuple(betas), values["clip_norms"])

    @classmethod
    def of_file(cls, config: dict[str, Any]) -> Training | None:
        """Return what a file of this pack keeps of it, by its `lumiere.config`; None where it is no public motion module."""
        return cls.from_dict(config["motion"]) if "motion" in config else None


def _are_betas(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 3 or value[0] not in ("linear", "scaled_linear"):
        return False
    return all(type(beta) is float for beta in value[1:]) and 0 < value[1] < value[2] < 1


@dataclass(frozen=True)
class MotionFile:
    """A public motion module, ready for `TemporalLayers(unet_config, config)`."""

    state: StateDict
    config: TemporalConfig
    training: Training


def read_motion_module(state: StateDict, unet_config: UNetConfig, name: str) -> MotionFile:
    """Return a public motion module for an image U-Net.

    Args:
        state: of the file, in one of the layouts above.
        name: of the file, for messages.

    Raises:
        ValueError: it is another kind of file, has no table of positions, or is for another image U-Net.
    """
    state = _unwrapped(state)
    refuse_other_files(state, name)
    modules = _modules(state, name)
    downs = [int(place.split(".")[1]) for place, _ in modules if place.startswith("down_blocks")]
    if not downs or max(downs) >= LEVELS:
        raise ValueError(
            f"{name} has modules of {len(modules)} blocks, but none that a U-Net's way down has. {DAMAGED}"
        )
    levels = 1 + max(downs)
    _check_family(modules, levels, unet_config, name)
    tables = {t["layers.0.table.weight"].shape[0] for t in modules.values() if "layers.0.table.weight" in t}
    if not tables or any("layers.0.table.weight" not in tensors for tensors in modules.values()):
        raise ValueError(
            f"{name} is a motion module without its table of positions (no pos_encoder.pe), so nothing says which frame "
            "is the first. AnimateLCM's files are like that and made for another sampler; choose one of AnimateDiff's "
            "v1, v2, v3 or SDXL, or HotshotXL's."
        )
    middle = any(place.startswith("mid_block") for place, _ in modules)
    frames = min(tables)
    hotshot = any("temporal_attentions." in key for key in state)
    training, window = _generation(levels, middle, frames, hotshot)
    depth = 1 + max(int(key.split(".")[1]) for key in next(iter(modules.values())) if key.startswith("layers."))
    config = TemporalConfig(
        kind=KIND,
        stride=1,
        depth=depth,
        table_frames=frames,
        middle=middle,
        frames_per_clip=min(window, frames),
        fps=8.0,
    )
    return MotionFile(_placed(modules, unet_config, name), config, training)


def _unwrapped(state: StateDict) -> StateDict:
    """Return the tensors, without the wrapper that a multi-GPU trainer leaves in their names."""
    return {k.removeprefix("module."): v for k, v in state.items() if isinstance(v, Tensor)}


def refuse_other_files(state: StateDict, name: str) -> None:
    """Raise ValueError where a file is something else than a motion module, and say what.

    Args:
        state: names as in `_unwrapped`.
    """

    def has(*words: str) -> bool:
        return any(word in key for word in words for key in state)

    motion = has("motion_modules.", "temporal_attentions.")
    what = None
    if has("lora_", "_lora", ".lora"):
        what = (
            "a motion LoRA: load it with Lumiere Load Motion LoRA, onto a MODEL that has its motion module"
            if motion
            else "a LoRA of the image model: load it with a LoRA loader, before or after this node"
        )
    elif has("controlnet_", "control_model.", "zero_convs.", "input_hint_block"):
        what = "a ControlNet (SparseCtrl, for example): load it with a ControlNet loader"
    elif has(
        "model.diffusion_model.", "input_blocks.", "first_stage_model.", "down_blocks.0.resnets", "double_blocks."
    ):
        what = "an image model: load it with Load Checkpoint and connect its MODEL here"
    elif not motion and has("decoder.up", "text_model.", "transformer.h."):
        what = "a VAE or a text encoder"
    elif motion and has("conv_in.", "img_encoder.", "fps_embedding.", "qkv_merge"):
        what = (
            "a motion module with parts of its own beside the modules (PIA, AnimateLCM-I2V, FancyVideo or CameraCtrl), "
            "which would be lost; choose a plain one"
        )
    elif not motion:
        what = f"no motion module (its first keys are {', '.join(sorted(state)[:3]) or 'none at all'})"
    if what:
        raise ValueError(
            f"{name} is {what}. Temporal layers are a file of this pack, or a motion module of AnimateDiff (v1, v2, v3, "
            "SDXL) or HotshotXL."
        )


def _modules(state: StateDict, name: str) -> dict[tuple[str, int], StateDict]:
    """Return the tensors of each module in this pack's names, keyed by ("down_blocks.1.", number).

    Raises:
        ValueError: a key is none of a motion module.
    """
    modules: dict[tuple[str, int], StateDict] = {}
    unknown = []
    for key, value in state.items():
        found = _PLACE.fullmatch(key)
        names = _names_inside(found["rest"]) if found else []
        if not names:
            unknown.append(key)
            continue
        tensors = modules.setdefault((found["place"], int(found["number"])), {})
        for inner in names:
            tensors[inner] = value.squeeze(0) if inner.endswith("table.weight") and value.ndim == 3 else value
            if tensors[inner].ndim < (2 if inner.endswith("table.weight") else 1):
                raise ValueError(f"{name} has {key} with the shape {tuple(value.shape)}. {DAMAGED}")
    if unknown:
        raise ValueError(
            f"{name} has {len(unknown)} tensors that are of no motion module known here: {', '.join(sorted(unknown)[:3])}. "
            "Choose a motion module of AnimateDiff (v1, v2, v3, SDXL) or HotshotXL."
        )
    return modules


def _names_inside(rest: str) -> list[str]:
    """Return this pack's names of a tensor inside a module; none where it is not known."""
    if rest == _SHARED_TABLE:
        return ["layers.0.table.weight", "layers.1.table.weight"]
    for pattern, name in _INSIDE:
        if re.fullmatch(pattern, rest):
            return [re.sub(pattern, name, rest)]
    for pattern, name in _DIFFUSERS_INSIDE:
        if found := re.fullmatch(pattern, rest):
            return [re.sub(pattern, name.format(int(found[1]) - 1), rest)]
    return []


def module_key(key: str) -> tuple[tuple[str, int] | None, str]:
    """Return (place of the module, name of the layer in it) of a weight in a public file; (None, "") if it is none."""
    found = _PLACE.fullmatch(key)
    names = _names_inside(found["rest"]) if found else []
    return ((found["place"], int(found["number"])), names[0].removesuffix(".weight")) if names else (None, "")


def _generation(levels: int, middle: bool, frames: int, hotshot: bool) -> tuple[Training, int]:
    """Return how a file was trained, and on how many frames; nothing in it says so but its shape.

    From AnimateDiff's published settings (inference-v1, -v2, -v3 and the SDXL branch) and HotshotXL's code.
    """
    if hotshot:
        return Training("HotshotXL", clip_norms=True), 8
    if levels == len(_SDXL):
        return Training("AnimateDiff SDXL", ("scaled_linear", 0.00085, 0.020)), 16
    linear = ("linear", 0.00085, 0.012)
    if frames <= _FIRST_TABLE and not middle:
        return Training("AnimateDiff v1", linear, clip_norms=True), 16
    return Training("AnimateDiff v2" if middle else "AnimateDiff v3", linear), 16


def _check_family(modules: dict[tuple[str, int], StateDict], levels: int, unet_config: UNetConfig, name: str) -> None:
    """Raise ValueError where a file of the public widths is for another family, or the U-Net has other levels."""
    norms = [modules.get((f"down_blocks.{i}.", 0), {}).get("norm.weight") for i in range(levels)]
    widths = tuple(0 if norm is None else norm.shape[0] for norm in norms)
    wanted = {_SD1: "SD1.x", _SDXL: "SDXL"}.get(widths)
    got = family_name(unet_config)
    own = tuple(unet_config.model_channels * mult for mult in unet_config.channel_mult)
    if widths != own or (wanted and wanted not in got and own in (_SD1, _SDXL)):
        for_what = wanted or f"a U-Net of widths {widths}"
        raise ValueError(
            f"{name} is a motion module for {for_what}, but this MODEL is {got}. Choose a checkpoint of the same family, or "
            "a motion module that was trained for this one."
        )


def places(unet_config: UNetConfig) -> Iterator[tuple[str, tuple[str, int]]]:
    """Yield (name of a block, its module's place in a public file) of every block that a module may follow."""
    counted: dict[str, int] = {}
    for name, level, _, resize in block_names(unet_config):
        if resize in ("first", "down"):
            continue
        if name == "middle_block":
            yield name, ("mid_block.", 0)
            continue
        place = (
            f"down_blocks.{level}." if name.startswith("input") else f"up_blocks.{unet_config.num_levels - 1 - level}."
        )
        yield name, (place, counted.get(place, 0))
        counted[place] = counted.get(place, 0) + 1


def _placed(modules: dict[tuple[str, int], StateDict], unet_config: UNetConfig, name: str) -> StateDict:
    """Return the modules' tensors under the names of the blocks that they follow."""
    left = dict(modules)
    state = {}
    for block, place in places(unet_config):
        for key, value in left.pop(place, {}).items():
            state[f"{block}.inflation.{key}"] = value
    if left:
        raise ValueError(
            f"{name} has modules for blocks that this MODEL's U-Net does not have: "
            f"{', '.join(f'{place}{number}' for place, number in sorted(left)[:3])}. It was made for another image model."
        )
    return state
