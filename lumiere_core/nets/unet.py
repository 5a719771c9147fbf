"""The image U-Net that Lumiere inflates, in the key layout of latent diffusion (LDM).

A state dict of SD1.x, SD2.x, SDXL or the SD x4 upscaler (prefix `model.diffusion_model.` removed) loads into it, and one of
ours loads into ComfyUI's `UNetModel`. Shapes: n - images, c - channels, h, w - height, width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import AttentionFunction, scaled_dot_product
from .config import UNetConfig
from .details import new_details
from .unet_layers import Downsample, ResBlock, SpatialTransformer, Upsample, timestep_embedding


class UNet(nn.Module):
    """Predict the model output (v or noise) of noised images.

    Args:
        config: the architecture.
        attention: function (q, k, v, heads) used by all attention layers.
    """

    def __init__(self, config: UNetConfig, attention: AttentionFunction = scaled_dot_product) -> None:
        super().__init__()
        self.config = config
        width, emb = config.model_channels, config.model_channels * 4
        depth_in, depth_out = list(config.transformer_depth), list(config.transformer_depth_output)

        # Not trained: what the weights mean depends on it, so it is stored with them.
        self.register_buffer("patch_basis", new_basis(config))
        self.time_embed = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        if config.adm_in_channels:
            self.label_emb = nn.Sequential(
                nn.Sequential(nn.Linear(config.adm_in_channels, emb), nn.SiLU(), nn.Linear(emb, emb))
            )
        if config.num_classes:
            self.label_emb = nn.Embedding(config.num_classes, emb)

        def residual(channels: int, out_channels: int) -> ResBlock:
            return ResBlock(channels, emb, out_channels, scale_shift=config.use_scale_shift_norm)

        def transformer(channels: int, depth: int, level: int | None) -> SpatialTransformer:
            return SpatialTransformer(channels, depth, level, config=config, attention=attention)

        first = nn.Conv2d(config.first_channels, width, 3, padding=1)
        self.input_blocks = nn.ModuleList([nn.ModuleList([first])])
        channels, skips = width, [width]
        for level, mult in enumerate(config.channel_mult):
            for _ in range(config.num_res_blocks[level]):
                layers: list[nn.Module] = [residual(channels, width * mult)]
                channels = width * mult
                if depth := depth_in.pop(0):
                    layers.append(transformer(channels, depth, level))
                self.input_blocks.append(nn.ModuleList(layers))
                skips.append(channels)
            if level + 1 < config.num_levels:
                self.input_blocks.append(nn.ModuleList([Downsample(channels)]))
                skips.append(channels)

        middle: list[nn.Module] = [residual(channels, channels)]
        if config.transformer_depth_middle >= 0:
            middle += [transformer(channels, config.transformer_depth_middle, None), residual(channels, channels)]
        self.middle_block = nn.ModuleList(middle)

        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            for i in range(config.num_res_blocks[level] + 1):
                layers = [residual(channels + skips.pop(), width * mult)]
                channels = width * mult
                if depth := depth_out.pop():
                    layers.append(transformer(channels, depth, level))
                if level and i == config.num_res_blocks[level]:
                    layers.append(Upsample(channels))
                self.output_blocks.append(nn.ModuleList(layers))

        self.out = nn.Sequential(
            nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, config.last_channels, 3, padding=1)
        )
        self.details = new_details(config)

    def embed(self, timesteps: Tensor, y: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Return the (n, 4 * model_channels) embedding of (n,) timesteps and (n, adm) pooled text, or (n,) classes.

        Raises:
            ValueError: y is missing, or given to a network without `label_emb`.
        """
        if self.config.num_classes:
            if y is None or y.is_floating_point() or y.ndim != 1:
                raise ValueError(
                    f"this U-Net takes y as (n,) whole numbers below {self.config.num_classes}, the classes of its images; got "
                    f"{None if y is None else (tuple(y.shape), str(y.dtype))}."
                )
        elif (y is None) != (self.config.adm_in_channels is None):
            raise ValueError(
                f"this U-Net {'needs' if y is None else 'has no input for'} the pooled text vector y "
                f"(adm_in_channels is {self.config.adm_in_channels})."
            )
        emb = self.time_embed(timestep_embedding(timesteps, self.config.model_channels).to(dtype))
        return emb if y is None else emb + self.label_emb(y if self.config.num_classes else y.to(dtype))

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """Return the (n, out_channels, h, w) model output for (n, in_channels, h, w) noised images.

        Args:
            timesteps: (n,), 0 to 999, fractions allowed.
            context: (n, l, context_dim) text states.
            y: (n, adm_in_channels) pooled text vector; with `num_classes` (n,) whole numbers.
        """
        emb = self.embed(timesteps, y, x.dtype)
        patches = self.to_patches(x)
        h = self.seen(patches)
        skips: list[Tensor] = []
        for block in self.input_blocks:
            h = run_block(block, h, emb, context)
            skips.append(h)
        h = run_block(self.middle_block, h, emb, context)
        for block in self.output_blocks:
            h = torch.cat([h, skips.pop()], dim=1)
            h = run_block(block, h, emb, context=context, size=skips[-1].shape[-2:] if skips else None)
        return self.to_pixels(self.out(h), patches, x.shape[-2:])

    def to_patches(self, x: Tensor) -> Tensor:
        """Return (n, c, h, w) images as patches."""
        return patchify(x, self.config.patch_size, self.patch_basis)

    def seen(self, patches: Tensor) -> Tensor:
        """Return what the first convolution takes of (n, c, h, w) patches: all but the details."""
        return patches if self.details is None else patches[:, : self.config.first_channels]

    def to_pixels(self, h: Tensor, patches: Tensor, size: tuple[int, int]) -> Tensor:
        """Return (n, c, h, w) images of a size from what the last convolution answers to patches."""
        if self.details is not None:
            h = self.details(h, patches)
        return unpatchify(h, self.config.patch_size, size, self.patch_basis)


def run_layer(layer: nn.Module, h: Tensor, emb: Tensor, context: Tensor | None, size: tuple[int, int] | None) -> Tensor:
    """Call one layer of a block on (n, c, h, w) features, with the inputs that its class takes."""
    if isinstance(layer, ResBlock):
        return layer(h, emb)
    if isinstance(layer, SpatialTransformer):
        return layer(h, context)
    if isinstance(layer, Upsample):
        return layer(h, size)
    return layer(h)


def run_block(
    block: nn.ModuleList, h: Tensor, emb: Tensor, context: Tensor | None, size: tuple[int, int] | None = None
) -> Tensor:
    """Call the layers of one U-Net block in order on (n, c, h, w) features; emb is (n, e), context (n, l, d)."""
    for layer in block:
        h = run_layer(layer, h, emb, context=context, size=size)
    return h


def new_basis(config: UNetConfig) -> Tensor | None:
    """Return (patch_channels, c, p, p), the first values of a patch, for weights to be loaded over; None without one."""
    if not config.patch_channels:
        return None
    values = config.in_channels * config.patch_size**2
    return torch.eye(config.patch_channels, values).unflatten(1, (-1, config.patch_size, config.patch_size))


def patchify(x: Tensor, patch_size: int, basis: Tensor | None = None) -> Tensor:
    """Move p x p pixels into channels: (n, c, h, w) -> (n, c p p, ceil(h / p), ceil(w / p)).

    Sizes that are no multiple of p are extended by repeating the border; `unpatchify` crops it off.

    Args:
        basis: (k, c, p, p) with orthonormal rows: k channels, the parts of a patch along them. White noise stays
            white noise of the same strength.
    """
    if patch_size == 1:
        return x
    pad_h, pad_w = -x.shape[-2] % patch_size, -x.shape[-1] % patch_size
    if pad_h or pad_w:
        x = F.pad(x, (0, pad_w, 0, pad_h), mode="replicate")
    return F.pixel_unshuffle(x, patch_size) if basis is None else F.conv2d(x, basis.to(x), stride=patch_size)


def unpatchify(x: Tensor, patch_size: int, size: tuple[int, int], basis: Tensor | None = None) -> Tensor:
    """Inverse of `patchify` for images of the given height and width; with a basis, of what lies in its span.

    (n, k, h / p, w / p) -> (n, c, h, w).
    """
    if patch_size == 1:
        return x
    if basis is not None:  # faster than a transposed convolution
        x = F.conv2d(x, basis.to(x).flatten(1).T[..., None, None])
    return F.pixel_shuffle(x, patch_size)[..., : size[0], : size[1]]


def block_names(config: UNetConfig) -> Iterator[tuple[str, int, int, str]]:
    """Yield (name, level, channels, resize) of every block of a `UNet` in order.

    Names are those of the state dict (`input_blocks.4`, `middle_block`, `output_blocks.7`). `level` counts
    from 0, the finest, and is the level of the block's residual layers; `resize` is "down" for a block
    that only downsamples *into* `level`, "up" where an upsampling ends the block, "first" for the first
    convolution, else "".
    """
    width = config.model_channels
    yield "input_blocks.0", 0, width, "first"
    index = 1
    for level, mult in enumerate(config.channel_mult):
        if level:
            yield f"input_blocks.{index}", level, width * config.channel_mult[level - 1], "down"
            index += 1
        for _ in range(config.num_res_blocks[level]):
            yield f"input_blocks.{index}", level, width * mult, ""
            index += 1
    yield "middle_block", config.num_levels - 1, width * config.channel_mult[-1], ""
    index = 0
    for level, mult in reversed(list(enumerate(config.channel_mult))):
        for i in range(config.num_res_blocks[level] + 1):
            up = bool(level) and i == config.num_res_blocks[level]
            yield f"output_blocks.{index}", level, width * mult, "up" if up else ""
            index += 1
