"""Frozen, validated descriptions of the networks; what a checkpoint's metadata holds as JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from typing import Any

# Options that files of earlier versions name at the one value that still exists.
RETIRED = {"position_frames": 0}
KINDS = {"lumiere": "Lumiere's temporal layers", "motion_module": "a motion module"}  # of temporal layers
LORA_LAYERS = ("all", "attention")  # that low-rank deltas may be of
# Least and most of a number, of each entry of a tuple; MANY where a name is not here. No network that a machine of
# today can hold is outside; a damaged file is, and must not ask for terabytes.
MANY = (0, 1 << 16)
LIMITS = {
    "in_channels": (1, 256),
    "out_channels": (1, 256),
    "patch_size": (1, 64),
    "model_channels": (32, 4096),
    "channel_mult": (1, 16),
    "num_res_blocks": (1, 16),
    "transformer_depth": (0, 64),
    "transformer_depth_output": (0, 64),
    "transformer_depth_middle": (-1, 64),
    "context_dim": (1, 1 << 16),
    "num_heads": (-1, 256),
    "num_head_channels": (-1, 4096),
    "text_only_levels": (0, 11),
    "depth": (1, 64),
    "spatial_kernel": (1, 31),
    "temporal_kernel": (1, 31),
    "frames_per_clip": (1, 4096),
    "fps": (1e-3, 1000),
    "width": (1, 1 << 14),
    "tokens": (1, 4096),
    "max_bytes": (1, 1 << 16),
    "scale": (2, 64),
    "level_channels": (2, 1 << 14),
    "max_noise": (0, 100),
    "fresh_noise": (0, 1),
    "back_projection": (0, 100),
    "heads": (1, 256),
    "table_frames": (1, 4096),
    "ends_until": (0, 100_000),
}
LEVELS = 12
# Left out of what is written while they are at their defaults, as in files and caches of earlier versions.
LATER = {
    "num_classes": 0,
    "text_only_levels": (),
    "back_projection": 0,
    "detail_width": 0,
    "fresh_noise": 0.0,
    "ends_until": 0,
}


class _Config:
    """JSON round trip and plain checks shared by the configurations: every value has its field's type and limits."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(self, field)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if k not in LATER or v != LATER[k]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]):
        """Build from `to_dict` output; lists become tuples.

        Raises:
            ValueError: a name that this version does not know, or a value of another type or out of bounds.
        """
        if not isinstance(values, dict):
            raise ValueError(f"{cls.__name__} is read from names and values, got {values!r:.60}.")
        values = {k: v for k, v in values.items() if k not in RETIRED or v != RETIRED[k]}
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"{cls.__name__} does not know {unknown}; the file was written by a newer version. "
                "Update the node pack."
            )
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _check(config: _Config, field: dataclasses.Field) -> None:
    """Raise ValueError unless a field holds what its annotation says, within its limits."""
    value, kind = getattr(config, field.name), str(field.type)
    if value is None and "None" in kind:
        return
    least, most = LIMITS.get(field.name, MANY)
    if kind == "str":
        fits, wanted = isinstance(value, str), "a word"
    elif kind == "bool":
        fits, wanted = isinstance(value, bool), "true or false"
    elif kind.startswith("tuple"):
        fits = isinstance(value, tuple) and len(value) <= LEVELS * most
        fits, wanted = fits and all(is_number(v, least, most) for v in value), f"whole numbers from {least} to {most}"
    elif kind == "float":
        fits, wanted = is_number(value, least, most, whole=False), f"a number from {least:g} to {most:g}"
    else:
        fits, wanted = is_number(value, least, most), f"a whole number from {least} to {most}"
    if not fits:
        raise ValueError(f"{field.name} of {type(config).__name__} is {value!r:.60}; wanted: {wanted}.")


def is_number(value: Any, least: float, most: float, whole: bool = True) -> bool:
    """Tell whether a value of JSON is a number from `least` to `most`; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        return False
    return least <= value <= most  # neither NaN nor infinite; whole numbers of any length


@dataclass(frozen=True)
class UNetConfig(_Config):
    """An image U-Net with the key layout of latent diffusion (LDM), as in SD1.x, SD2.x and SDXL."""

    in_channels: int = 3  # of the image or latent, before patching
    out_channels: int = 3
    patch_size: int = 1  # p: p x p pixels are moved into channels before the first layer and back after the last
    patch_channels: int = 0  # channels that a patch is brought to by `UNet.patch_basis`; 0 = all of its values
    detail_width: int = 0  # of the network that answers what a patch holds beside means of 2x2 pixels; 0 = none
    model_channels: int = 64  # width of the finest level
    channel_mult: tuple[int, ...] = (1, 2, 2)  # width of each level over model_channels
    num_res_blocks: tuple[int, ...] = (1, 1, 1)  # residual blocks of each encoder level
    transformer_depth: tuple[int, ...] = (0, 0, 1)  # transformer layers after each encoder block
    transformer_depth_output: tuple[int, ...] = (0, 0, 0, 0, 1, 1)  # decoder, same (fine to coarse) order
    transformer_depth_middle: int = 1
    context_dim: int | None = 128  # width of the text states; None = no cross-attention
    num_heads: int = -1  # -1: from num_head_channels
    num_head_channels: int = 64  # -1: from num_heads
    use_linear_in_transformer: bool = False
    use_scale_shift_norm: bool = False  # time and text scale and shift the second norm (Imagen)
    adm_in_channels: int | None = None  # width of the pooled text vector `y`; None = none
    disable_self_attn: bool = False  # transformers attend to the text only: fully convolutional
    num_classes: int = 0  # `y` is the number of one of so many classes, such as noise levels of a small picture
    text_only_levels: tuple[int, ...] = ()  # levels, 0 the finest, whose transformers attend to the text only

    def __post_init__(self) -> None:
        super().__post_init__()
        levels = len(self.channel_mult)
        if not 1 <= levels <= LEVELS:
            raise ValueError(f"channel_mult has {levels} entries; 1 to {LEVELS} levels are wanted.")
        if len(self.num_res_blocks) != levels:
            raise ValueError(
                f"num_res_blocks has {len(self.num_res_blocks)} entries, channel_mult has {levels}; "
                "both need one entry a level."
            )
        if len(self.transformer_depth) != sum(self.num_res_blocks):
            raise ValueError(
                f"transformer_depth has {len(self.transformer_depth)} entries, wanted one for each of "
                f"the {sum(self.num_res_blocks)} encoder residual blocks."
            )
        if len(self.transformer_depth_output) != sum(self.num_res_blocks) + levels:
            raise ValueError(
                f"transformer_depth_output has {len(self.transformer_depth_output)} entries, wanted "
                f"{sum(self.num_res_blocks) + levels} (one more a level than the encoder)."
            )
        if self.model_channels % 32:
            raise ValueError(f"model_channels is {self.model_channels}; it must be a multiple of 32 (GroupNorm).")
        if self.patch_channels and self.in_channels != self.out_channels:
            raise ValueError(
                f"patch_channels is {self.patch_channels} with {self.in_channels} input and {self.out_channels} output "
                "channels; one basis serves both sides, so they must be as many."
            )
        if not 0 <= self.patch_channels <= self.in_channels * self.patch_size**2:
            raise ValueError(
                f"patch_channels is {self.patch_channels}; a patch has {self.in_channels * self.patch_size**2} values."
            )
        if self.detail_width and (self.patch_size % 2 or self.detail_channels < 1):
            raise ValueError(
                f"detail_width is {self.detail_width}, but of {self.patch_channels} channels of patches of "
                f"{self.patch_size}x{self.patch_size} pixels none is left beside the means of 2x2 pixels."
            )
        if (self.num_heads == -1) == (self.num_head_channels == -1) or 0 in (self.num_heads, self.num_head_channels):
            raise ValueError("give exactly one of num_heads and num_head_channels; the other is -1.")
        if self.num_classes and self.adm_in_channels:
            raise ValueError(
                f"num_classes is {self.num_classes} and adm_in_channels {self.adm_in_channels}; `y` is the number of a class or "
                "a vector, so one of them is wanted."
            )
        if any(level >= levels for level in self.text_only_levels):
            raise ValueError(f"text_only_levels is {self.text_only_levels}; levels from 0 to {levels - 1} are wanted.")

    @property
    def first_channels(self) -> int:
        """Channels that the first convolution takes."""
        own = self.detail_channels if self.detail_width else 0
        return self.patch_channels - own or self.in_channels * self.patch_size**2

    @property
    def last_channels(self) -> int:
        """Channels that the last convolution answers with."""
        return self.first_channels if self.patch_channels else self.out_channels * self.patch_size**2

    @property
    def detail_channels(self) -> int:
        """Channels of a patch beside the means of 2x2 pixels."""
        return self.patch_channels - self.in_channels * self.patch_size**2 // 4

    @property
    def num_levels(self) -> int:
        """Number of resolutions; there is one spatial resize fewer."""
        return len(self.channel_mult)

    @property
    def low_channels(self) -> int:
        """Channels of the small clip that the SD x4 upscaler sees behind the noised latents; 0 for any other model."""
        return max(0, self.in_channels - self.out_channels) if self.num_classes else 0

    def text_only(self, level: int | None) -> bool:
        """Whether the transformers of a level attend to the text only; None is the middle block."""
        return self.disable_self_attn or level in self.text_only_levels

    def heads(self, channels: int) -> tuple[int, int]:
        """Return (heads, channels a head) for a layer of the given width."""
        if self.num_head_channels == -1:
            return self.num_heads, channels // self.num_heads
        return channels // self.num_head_channels, self.num_head_channels

    def host_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments that build the same network as ComfyUI's `UNetModel`."""
        return {
            "image_size": 32,  # unused by the host's forward
            "in_channels": self.first_channels,
            "out_channels": self.last_channels,
            "model_channels": self.model_channels,
            "channel_mult": list(self.channel_mult),
            "num_res_blocks": list(self.num_res_blocks),
            "transformer_depth": list(self.transformer_depth),
            "transformer_depth_output": list(self.transformer_depth_output),
            "transformer_depth_middle": self.transformer_depth_middle,
            "context_dim": self.context_dim,
            "num_heads": self.num_heads,
            "num_head_channels": self.num_head_channels,
            "use_spatial_transformer": True,
            "use_linear_in_transformer": self.use_linear_in_transformer,
            "use_scale_shift_norm": self.use_scale_shift_norm,
            "legacy": False,
            "disable_self_attentions": [self.text_only(level) for level in range(self.num_levels)],
            "disable_middle_self_attn": self.text_only(None),
            "num_classes": "sequential" if self.adm_in_channels else self.num_classes or None,
            "adm_in_channels": self.adm_in_channels,
        }


@dataclass(frozen=True)
class TemporalConfig(_Config):
    """The temporal layers. Where the paper is silent (lumiere.md §13) the value is ours and an option."""

    kind: str = "lumiere"  # or "motion_module": attention at every level, stride 1, a table of positions
    depth: int = 2  # L, temporal attention layers in an AttentionInflationBlock, or in a motion module
    num_head_channels: int = 64  # of the temporal attention
    spatial_kernel: int = 3  # 2-D convolution of a ConvInflationBlock
    temporal_kernel: int = 3  # 1-D convolutions over time; odd
    stride: int = 2  # temporal factor of every resize, if `strides` does not say otherwise
    condition_channels: int = 0  # width of the text/noise-level vector fed to the blocks; 0 = none
    frames_per_clip: int = 80  # trained clip length, frames
    fps: float = 16.0
    coordinates: bool = False  # the blocks are told places in the clip and in the frame
    shared_noise: float = 0.0  # share of the noise's variance that all frames have in common
    fresh_noise: float = 0.0  # of super-resolution: share of the trained clips whose noise was new in each frame
    conv_cond: bool = False  # has the convolution of the masked condition <C, M> (Lumiere §4.2)
    repeat_ends: bool = False  # convolutions over time see the first and last frame repeated beyond a clip, not zeros
    ends_until: int = 0  # last timestep at which ends are repeated; 0 = at all. Strong noise is then seen as trained
    heads: int = 8  # of a motion module's attention, at every width
    table_frames: int = 32  # frames in a motion module's table of positions
    middle: bool = False  # whether a motion module follows the middle block's attention too
    strides: tuple[int, ...] = ()  # temporal factor of each resize, from the finest; () = `stride` at all of them

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_head_channels < 1:
            raise ValueError(f"num_head_channels is {self.num_head_channels}; at least 1 is wanted.")
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; one of {', '.join(KINDS)} is wanted.")
        if self.kind == "motion_module":
            self._check_motion_module()
        if self.temporal_kernel % 2 == 0 or self.spatial_kernel % 2 == 0:
            raise ValueError(
                f"kernels must be odd, got spatial {self.spatial_kernel}, temporal {self.temporal_kernel}."
            )
        if self.coordinates and not self.condition_channels:
            raise ValueError(
                "coordinates reach the blocks through the condition vector, but condition_channels is 0; give it "
                "a width."
            )
        if not 0 <= self.shared_noise < 1:
            raise ValueError(
                f"shared_noise is {self.shared_noise}; at least 0 and less than 1 is wanted (at 1 the difference of "
                "two frames would be known at any noise level)."
            )
        if self.ends_until and not self.repeat_ends:
            raise ValueError(f"ends_until is {self.ends_until}, but ends are not repeated: repeat_ends is false.")
        if not {self.stride, *self.strides} <= {1, 2, 4}:
            raise ValueError(
                f"stride is {self.stride}, strides are {list(self.strides)}; 1 (no temporal resize), 2 or 4 are supported."
            )

    def resizes(self, num_levels: int) -> tuple[int, ...]:
        """Return the temporal factor of each resize of a U-Net, from the finest.

        Raises:
            ValueError: `strides` is for another number of levels.
        """
        if self.strides and len(self.strides) != num_levels - 1:
            raise ValueError(
                f"strides are {list(self.strides)}, but an image U-Net of {num_levels} levels has {num_levels - 1} resizes."
            )
        return self.strides or (self.stride,) * (num_levels - 1)

    def level_strides(self, num_levels: int) -> tuple[int, ...]:
        """Return how many frames of the clip one frame of each level stands for, from the finest level (1) down."""
        return tuple(accumulate((1, *self.resizes(num_levels)), mul))

    def _check_motion_module(self) -> None:
        refused = [name for name in ("condition_channels", "coordinates") if getattr(self, name)]
        if {self.stride, *self.strides} != {1} or refused:
            raise ValueError(
                f"a motion module keeps every frame and is told neither text nor places: stride is {self.stride}"
                f"{''.join(f', {name} {getattr(self, name)}' for name in refused)}; wanted are stride 1 and neither "
                "condition_channels nor coordinates."
            )
        if self.table_frames < 2:
            raise ValueError(f"table_frames is {self.table_frames}; at least 2 are wanted.")


@dataclass(frozen=True)
class TextConfig(_Config):
    """A byte-level text encoder: no vocabulary to outgrow."""

    width: int = 128
    depth: int = 3
    num_heads: int = 4
    tokens: int = 16  # text states that the U-Net sees, whatever the prompt's length
    max_bytes: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_heads < 1 or self.width % self.num_heads:
            raise ValueError(f"num_heads is {self.num_heads}; a divisor of the width {self.width} is wanted.")


@dataclass(frozen=True)
class SSRConfig(_Config):
    """What makes a Space-Time U-Net a super-resolution stage. The paper gives none of these values."""

    scale: int = 4  # large over small size
    max_noise: float = 0.3  # largest noise on the small clip, as std of values in [-1, 1]
    level_channels: int = 128  # width of the augmentation level's embedding, after the pooled text
    back_projection: int = 0  # iterations that keep the result to the small clip, where nothing else is asked for
