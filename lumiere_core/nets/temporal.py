"""The temporal layers as one module tree, and the state of one call that two drivers share.

Core's `SpaceTimeUNet` and the host's handlers both walk a frozen image U-Net layer by layer and call
`TemporalLayers` after the layers it inflates, so the order of operations is written once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..clips.video import take_frames
from .attention import AttentionFunction, scaled_dot_product
from .config import TemporalConfig, UNetConfig
from .motion_module import KIND as MOTION_MODULE
from .motion_module import MotionModule, sine_table
from .ring import ring_places
from .strength import Strength
from .temporal_layers import (
    AttentionInflationBlock,
    ConvInflationBlock,
    FrameVector,
    TemporalDownsample,
    TemporalUpsample,
)
from .unet import block_names, patchify
from .unet_layers import timestep_embedding


@dataclass
class TemporalState:
    """Where one call of the network is in time; made anew for every call.

    Attributes:
        num_frames: frames of a clip as it enters the network, a multiple of the total stride.
        strides: of every level, `TemporalConfig.level_strides`.
        frame_vector: ((b t), d) at full frame rate, what the blocks are told of noise level, text and place; or None.
        level: that is being computed; 0 is the finest.
        calls: how many temporal parts ran.
        closed: the last frame is followed by the first.
        ends: (b,) of which clips the ends are repeated beyond them, where not of all.
        strength: how much they count; None = as trained.
    """

    num_frames: int
    strides: tuple[int, ...] = (1,)
    frame_vector: Tensor | None = None
    level: int = 0
    calls: int = 0
    closed: bool = False
    ends: Tensor | None = None
    strength: Strength | None = None

    @property
    def stride(self) -> int:
        """Frames of the clip that one frame of the current level stands for."""
        return self.strides[self.level]

    @property
    def level_frames(self) -> int:
        """Frames of a clip at the current level."""
        return self.num_frames // self.stride

    @property
    def numbers(self) -> Tensor:
        """Numbers (level_frames,) of the frames that reach the current level: every stride-th, never an average."""
        return torch.arange(0, self.num_frames, self.stride)

    def at_level(self, x: Tensor | None) -> Tensor | None:
        """Take what the current level sees of a ((b t), …) tensor at full frame rate."""
        if x is None or self.stride == 1:
            return x
        return take_frames(x, self.numbers, x.shape[0] // self.num_frames)

    def mixed(self, level: int, before: Callable[[], Tensor], after: Tensor) -> Tensor:
        """Return features between those before and after a temporal part of a level, at the current frame rate.

        Features are ((b t), c, h, w).
        """
        if self.strength is None:
            return after
        return self.strength.mixed(level, self.at_level(self.strength.mask), before(), after)


class TemporalBlock(nn.Module):
    """The temporal parts after one block of the image U-Net; any of them may be absent."""

    def __init__(
        self, inflation: nn.Module | None = None, down: nn.Module | None = None, up: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.inflation, self.down, self.up = inflation, down, up


class TemporalLayers(nn.Module):
    """All trainable parts of the Space-Time U-Net (Lumiere §3.1), keyed by the block they follow.

    State dict keys read `input_blocks.4.inflation.…`, `middle_block.inflation.…`,
    `output_blocks.5.up.…`. Convolution blocks at every level but the coarsest, attention blocks there;
    a temporal resize directly after each spatial resize. `conv_cond`, if the configuration has it, widens the
    U-Net's first convolution by the masked condition (§4.2); it starts at zero.

    Args:
        unet_config: the image U-Net that is inflated.
        config: the temporal layers.
        operations: namespace with Linear, Conv2d, GroupNorm.
        attention: function (q, k, v, heads).
    """

    def __init__(
        self,
        unet_config: UNetConfig,
        config: TemporalConfig,
        operations: Any = nn,
        attention: AttentionFunction = scaled_dot_product,
    ) -> None:
        super().__init__()
        self.unet_config, self.config = unet_config, config
        self.strides = config.level_strides(unet_config.num_levels)
        self.input_blocks, self.output_blocks = nn.ModuleDict(), nn.ModuleDict()
        for name, level, channels, resize in block_names(unet_config):
            if resize == "first":
                continue
            inflation = down = up = None
            factor = self.strides[level] // self.strides[level - 1] if level else 1
            resized = channels, config.temporal_kernel, operations, factor, config.repeat_ends
            if resize != "down":
                inflation = self._inflation(name, level, channels, operations=operations, attention=attention)
            elif config.kind != MOTION_MODULE:
                down = TemporalDownsample(*resized)
            if resize == "up" and config.kind != MOTION_MODULE:
                up = TemporalUpsample(*resized)
            block = TemporalBlock(inflation, down, up)
            if name == "middle_block":
                self.middle_block = block
            else:
                side, index = name.split(".")
                getattr(self, side)[index] = block
        # The name is that of the keys in weights files; what it makes is the frame vector.
        self.condition = FrameVector(unet_config, config, operations) if config.condition_channels else None
        self.conv_cond = None
        if config.conv_cond:
            known = (unet_config.in_channels + 1) * unet_config.patch_size**2
            # No bias: where nothing is known its input is zero, and then it must not change anything.
            self.conv_cond = operations.Conv2d(known, unet_config.model_channels, 3, padding=1, bias=False)

    def _inflation(
        self, name: str, level: int, channels: int, operations: Any, attention: AttentionFunction
    ) -> nn.Module | None:
        config = self.config
        if config.kind == MOTION_MODULE:
            if name == "middle_block" and not config.middle:
                return None
            return MotionModule(channels, config, operations, attention)
        if level == self.unet_config.num_levels - 1:
            return AttentionInflationBlock(channels, config, operations, attention)
        return ConvInflationBlock(channels, config, operations)

    def known_features(self, known: Tensor) -> Tensor:
        """Return what a masked clip adds to the output of the U-Net's first convolution.

        conv(J) + conv_cond([C, M]) is one convolution of the concatenated channels.

        Args:
            known: ((b t), c + 1, h, w), [C * M, M] at full frame rate.

        Returns:
            ((b t), model_channels, ceil(h / p), ceil(w / p)).

        Raises:
            ValueError: these layers have no conv_cond.
        """
        if self.conv_cond is None:
            raise ValueError(
                "these temporal layers were not trained for masked conditions (they have no conv_cond): they can make "
                "clips from text only. Load weights of `train condition`."
            )
        return self.conv_cond(patchify(known, self.unet_config.patch_size))

    @property
    def total_stride(self) -> int:
        """N: every N-th frame reaches the coarsest level; legal clip lengths are its multiples."""
        return self.strides[-1]

    def places(self, numbers: Tensor, clip_frames: int = 0, closed: bool = False) -> Tensor:
        """Return the places of frames in their clip: 0 is its first frame, 1 one past its last.

        Args:
            numbers: (…, t) frame numbers in the clip, of a window whole, strided or wrapped.
            clip_frames: of the whole clip; a shorter one than trained is the beginning of such a clip.
            closed: the clip is a ring of `clip_frames`; see `ring_places`.
        """
        if closed:
            return ring_places(numbers, clip_frames)
        return numbers.float() / max(clip_frames, self.config.frames_per_clip)

    def begin(
        self,
        num_frames: int,
        timesteps: Tensor,
        context: Tensor | None,
        y: Tensor | None,
        dtype: torch.dtype,
        places: Tensor | None = None,
        closed: bool = False,
    ) -> TemporalState:
        """Make the state of one call.

        Args:
            num_frames: frames of a clip, a multiple of `total_stride`.
            timesteps: ((b t),) noise levels as the image U-Net gets them.
            context: ((b t), l, d) text states or None; y: ((b t), adm) pooled text or None.
            dtype: dtype of the features.
            places: (b, num_frames) of `places`; None = of the first frames of a clip.
            closed: the last frame is followed by the first.

        Raises:
            ValueError: a ring that these layers have no places for.
        """
        if closed and self.config.kind == MOTION_MODULE:
            raise ValueError("a motion module has a table of places with two ends; loop it by a roll at every step.")
        frame_vector = None
        if self.condition is not None:
            channels = self.config.condition_channels
            embedding = timestep_embedding(timesteps, channels).to(dtype)
            if places is None:
                places = self.places(torch.arange(num_frames), num_frames).expand(len(timesteps) // num_frames, -1)
            place = position_embedding(places.flatten().to(timesteps.device), channels).to(dtype)
            frame_vector = self.condition(embedding, context, y, place)
        ends = timesteps[::num_frames] <= self.config.ends_until if self.config.ends_until else None
        return TemporalState(num_frames, self.strides, frame_vector, closed=closed, ends=ends)

    def block(self, name: str) -> TemporalBlock | None:
        """Return the parts after the block `input_blocks.N`, `middle_block` or `output_blocks.N`."""
        if name == "middle_block":
            return self.middle_block
        side, index = name.split(".")
        blocks = getattr(self, side)
        return blocks[index] if index in blocks else None

    def follows(self, transformers: Sequence[bool]) -> int:
        """Return after which of a block's residual and transformer layers its inflation block runs.

        Lumiere's follow the last one: the paper draws them after the whole group (figure 4). A motion module follows the
        transformer, which in the middle block has a residual layer after it, and without one the first residual layer, as
        the public files were trained.

        Args:
            transformers: of each such layer in turn, whether it is a transformer.
        """
        if self.config.kind != MOTION_MODULE:
            return len(transformers) - 1
        return max((i for i, transformer in enumerate(transformers) if transformer), default=0)

    def follow(self, part: str | None, name: str, h: Tensor, state: TemporalState) -> Tensor:
        """Run the temporal part, one of `BlockPlan.parts`, that follows a layer of a block; None leaves h as it is.

        Features are ((b t), c, h, w).
        """
        return h if part is None else getattr(self, part)(name, h, state)

    def inflate(self, name: str, h: Tensor, state: TemporalState) -> Tensor:
        """Run the inflation block after the last residual or transformer layer of a block.

        Features are ((b t), c, h, w).
        """
        block = self.block(name)
        if block is None or block.inflation is None:
            return h
        if state.strength is not None and not state.strength.levels[state.level]:
            return h
        state.calls += 1
        vector = state.at_level(state.frame_vector)
        more = {"closed": True} if state.closed else {}
        if state.ends is not None and isinstance(block.inflation, ConvInflationBlock):
            more["ends"] = state.ends
        after = block.inflation(h, state.level_frames, vector, **more)
        return state.mixed(state.level, lambda: h, after)

    def downsample(self, name: str, h: Tensor, state: TemporalState) -> Tensor:
        """Shorten time after a spatial downsampling, unless these layers keep every frame.

        ((b t), c, h, w) -> ((b t/s), c, h, w).
        """
        down, frames = self.block(name).down, state.level_frames
        after = h if down is None else down(h, frames, state.closed, state.ends)
        state.level += 1
        if down is None:
            return h
        state.calls += 1
        kept = torch.arange(0, frames, frames // state.level_frames)
        return state.mixed(state.level, lambda: take_frames(h, kept, len(h) // frames), after)

    def upsample(self, name: str, h: Tensor, state: TemporalState) -> Tensor:
        """Lengthen time after a spatial upsampling, unless these layers keep every frame.

        ((b t), c, h, w) -> ((b t s), c, h, w).
        """
        up, level = self.block(name).up, state.level
        after = h if up is None else up(h, state.level_frames, state.closed, state.ends)
        state.level -= 1
        if up is None:
            return h
        state.calls += 1
        return state.mixed(level, lambda: h.repeat_interleave(len(after) // len(h), dim=0), after)


def position_embedding(places: Tensor, channels: int) -> Tensor:
    """Return (n, channels) sines and cosines of (n,) places, from a quarter of a turn to 16 turns over a clip."""
    half = channels // 2
    turns = 0.25 * 64 ** (torch.arange(half, device=places.device) / max(1, half - 1))
    angles = 2 * math.pi * places[:, None] * turns
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def initial_state(layers: TemporalLayers, generator: torch.Generator) -> dict[str, Tensor]:
    """Return a complete state dict at the paper's initialisation.

    Resizes are the identity (nearest neighbour in time), the last projection of every inflation block is
    zero as are conv_cond and the modulation, everything else is torch's default, without biases. A state dict, because
    a host's layers may hold no memory yet.

    Args:
        layers: built with any operations.
        generator: source of the random weights, on the CPU.
    """
    state = {}
    for key, value in layers.state_dict().items():
        owner, _, kind = key.rpartition(".")
        shape = tuple(value.shape)
        state[key] = torch.zeros(shape)
        if kind != "weight" or owner == "conv_cond" or owner.endswith((".proj", ".ramps", "modulation.linear")):
            continue
        elif owner.endswith((".down.conv", ".up.conv")):
            nn.init.dirac_(state[key])
        elif owner.endswith("norm"):
            state[key] += 1
        elif owner.endswith(".table"):
            state[key] = sine_table(*shape)
        else:
            state[key] = (torch.rand(shape, generator=generator) * 2 - 1) * value[0].numel() ** -0.5
    return state
