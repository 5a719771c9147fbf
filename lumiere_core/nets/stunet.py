"""The Space-Time U-Net: a frozen image U-Net with temporal layers in between (Lumiere §3.1)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..clips.video import fold, padded_frames, take_frames, unfold
from .block_plan import BlockPlan, LayerKinds, plan_blocks
from .ring import check_ring
from .temporal import TemporalLayers, TemporalState
from .unet import UNet, run_layer
from .unet_layers import Downsample, ResBlock, SpatialTransformer, Upsample

KINDS = LayerKinds(ResBlock, SpatialTransformer, Downsample, Upsample)


class SpaceTimeUNet(nn.Module):
    """Predict the model output of whole noised clips.

    Args:
        unet: the image model; its parameters are not touched here (the trainer freezes them).
        temporal: temporal layers built for the same `UNetConfig`.
    """

    def __init__(self, unet: UNet, temporal: TemporalLayers) -> None:
        super().__init__()
        if unet.config != temporal.unet_config:
            raise ValueError(
                "the temporal layers were built for another image U-Net: "
                f"{temporal.unet_config} instead of {unet.config}."
            )
        self.unet, self.temporal = unet, temporal
        self.plans = plan_blocks(unet, KINDS, temporal.follows)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        checkpointing: bool = False,
        known: Tensor | None = None,
        numbers: Tensor | None = None,
        clip_frames: int = 0,
        closed: bool = False,
    ) -> Tensor:
        """Return the (b, c, t, h, w) model output for noised clips of any number of frames.

        One frame is the image model alone. Other lengths are padded to the next multiple of the total
        stride by reflection in time and cropped after.

        Args:
            x: (b, c, t, h, w).
            timesteps: (b,).
            context: (b, l, d) text states; y: (b, adm) pooled text.
            checkpointing: recompute activations in the backward pass, to save memory in training.
            known: (b, c + 1, t, h, w), `Condition.tensor()`; None = nothing is known. One frame is the image
                model alone, so it is not used there.
            numbers: (t,) or (b, t) numbers of the frames in the clips that they are a window of, in any order;
                None = 0, 1, ….
            clip_frames: of the clips that the windows are from; 0 = no longer than trained.
            closed: the clips are rings, whose last frame is followed by the first.

        Raises:
            ValueError: a ring of frames that are no multiple of the total stride.
        """
        b, _, t, height, width = x.shape
        if t == 1:
            return self.unet(x[:, :, 0], timesteps, context, y)[:, :, None]
        frames = padded_frames(t, self.temporal.total_stride)
        length = frames.numel()

        def padded(video: Tensor) -> Tensor:
            return fold(video if length == t else take_frames(video, frames, dim=2))

        images = padded(x)
        if numbers is None:
            numbers, clip_frames = torch.arange(t, device=x.device), max(t, clip_frames)
        places = self.temporal.places(numbers.to(x.device).expand(b, t), clip_frames, closed)
        closed = closed and clip_frames == t  # a window of a ring is an arc, which has ends
        if closed:
            check_ring(t, self.temporal.total_stride)
        places = take_frames(places, frames, dim=1)

        def per_frame(v: Tensor | None) -> Tensor | None:
            return None if v is None else v.repeat_interleave(length, dim=0)

        timesteps, context, y = per_frame(timesteps), per_frame(context), per_frame(y)
        emb = self.unet.embed(timesteps, y, x.dtype)
        state = self.temporal.begin(length, timesteps, context, y=y, dtype=x.dtype, places=places, closed=closed)
        call = _Call(
            self.temporal, state, emb, context=context, checkpointing=checkpointing and torch.is_grad_enabled()
        )

        patches = self.unet.to_patches(images)
        h = self.unet.seen(patches)
        skips: list[Tensor] = []
        for index, block in enumerate(self.unet.input_blocks):
            h = call.block(self.plans[f"input_blocks.{index}"], block, h)
            if index == 0 and known is not None:
                h = h + self.temporal.known_features(padded(known))
            skips.append(h)
        h = call.block(self.plans["middle_block"], self.unet.middle_block, h)
        for index, block in enumerate(self.unet.output_blocks):
            h = torch.cat([h, skips.pop()], dim=1)
            size = skips[-1].shape[-2:] if skips else None
            h = call.block(self.plans[f"output_blocks.{index}"], block, h, size)
        h = self.unet.to_pixels(self.unet.out(h), patches, (height, width))
        return unfold(h, length)[:, :, :t]


class _Call:
    """One pass through the blocks, with everything per frame taken at the level's frame rate."""

    def __init__(
        self, temporal: TemporalLayers, state: TemporalState, emb: Tensor, context: Tensor | None, checkpointing: bool
    ) -> None:
        self.temporal, self.state, self.emb, self.context = temporal, state, emb, context
        self.checkpointing = checkpointing

    def block(self, plan: BlockPlan, layers: nn.ModuleList, h: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Run one block of the image U-Net and the temporal parts that follow its layers."""
        if not self.checkpointing:
            return self._block(plan, layers, h, size=size, state=self.state)
        # The recomputation must start from the same place in time, so each block works on a copy.
        start = replace(self.state)
        h = checkpoint(lambda x: self._block(plan, layers, x, size=size, state=replace(start)), h, use_reentrant=False)
        self.state.level = plan.after
        return h

    def _block(
        self, plan: BlockPlan, layers: nn.ModuleList, h: Tensor, size: tuple[int, int] | None, state: TemporalState
    ) -> Tensor:
        for layer, part in zip(layers, plan.parts, strict=True):
            h = run_layer(layer, h, state.at_level(self.emb), context=state.at_level(self.context), size=size)
            h = self.temporal.follow(part, plan.name, h, state)
        return h
