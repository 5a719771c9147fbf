"""The networks compared, at the widths of Stable Diffusion 1.5, with random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lumiere_core.nets.config import TemporalConfig, UNetConfig
from lumiere_core.nets.stunet import SpaceTimeUNet
from lumiere_core.nets.temporal import TemporalLayers
from lumiere_core.nets.unet import UNet

CONFIG = UNetConfig(
    in_channels=4,
    out_channels=4,
    model_channels=320,
    channel_mult=(1, 2, 4, 4),
    num_res_blocks=(2, 2, 2, 2),
    transformer_depth=(1, 1, 1, 1, 1, 1, 0, 0),
    transformer_depth_output=(1,) * 9 + (0,) * 3,
    transformer_depth_middle=1,
    context_dim=768,
    num_heads=8,
    num_head_channels=-1,
)
TOKENS = 77  # of a text
HEADS = 20  # of the temporal attention, 64 channels each
DEPTH = TemporalConfig().depth


def unet() -> UNet:
    """Return the frozen image model."""
    return UNet(CONFIG).eval().requires_grad_(False)


def space_time(image_model: UNet, stride: int = TemporalConfig().stride) -> SpaceTimeUNet:
    """Inflate the image model; stride 1 keeps the temporal length constant, as AnimateDiff does."""
    return SpaceTimeUNet(image_model, TemporalLayers(CONFIG, TemporalConfig(stride=stride)))


def share_temporal(target: SpaceTimeUNet, source: SpaceTimeUNet) -> None:
    """Let two inflations use one memory for their temporal weights."""
    target.temporal.load_state_dict(source.temporal.state_dict(), assign=True)


def inputs(frames: int, size: int, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Return one clip (1, 4, t, size, size), its timestep (1,) and text states (1, l, d)."""
    x = torch.randn(1, CONFIG.in_channels, frames, size, size, device=device)
    timesteps = torch.full((1,), 500.0, device=device)
    return x, timesteps, torch.randn(1, TOKENS, CONFIG.context_dim, device=device)


def frame_by_frame(image_model: UNet, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
    """Run the image model on every frame of one clip as a batch."""
    frames = x[0].transpose(0, 1)
    n = frames.shape[0]
    return image_model(frames, timesteps.expand(n), context.expand(n, -1, -1))


def randomise_projections(module: nn.Module) -> None:
    """Fill the zero-initialised last layers, so that gradients and activations are those of training."""
    for name, parameter in module.named_parameters():
        if "proj" in name and parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
