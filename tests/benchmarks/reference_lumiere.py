"""`lumiere-pytorch`, the other open implementation, made comparable: installed aside and wired rightly.

Its documentation names the wrong modules for the resizes and its wrapper passes no text; both are put right
here, so that it computes the same layers at the same places and lengths as ours. Its own code is not changed.
"""

from __future__ import annotations

import copy
import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from torch import Tensor, nn

from lumiere_core.nets.unet import UNet
from lumiere_core.nets.unet_layers import Downsample, Upsample

FOLDER = Path(__file__).resolve().parents[2] / ".host" / "bench"
# Without dependencies: torch is there, and the example extras would be large. Pinned, or figures would drift.
PACKAGES = (
    "lumiere-pytorch==0.0.24",
    "x-transformers==2.31.10",
    "beartype==0.23.1",
    "einx==0.4.3",
    "loguru==0.7.3",
    "frozendict==2.5.1",
    "torch-einops-utils==0.2.0",
)


class Unavailable(Exception):
    """The package is not here and could not be installed."""


def load() -> ModuleType:
    """Return lumiere_pytorch.lumiere; the first call installs it into .host/bench.

    Raises:
        Unavailable: with the reason.
    """
    if not (FOLDER / "lumiere_pytorch").is_dir():
        _install()
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    try:
        return importlib.import_module("lumiere_pytorch.lumiere")
    except ImportError as error:
        raise Unavailable(f"{PACKAGES[0]} is in {FOLDER} but cannot be imported: {error}") from error


def _install() -> None:
    partial = FOLDER.with_name(FOLDER.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--target", str(partial), *PACKAGES]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Unavailable(f"{PACKAGES[0]} could not be installed: {reason}")
    shutil.rmtree(FOLDER, ignore_errors=True)
    partial.rename(FOLDER)


class TextShim(nn.Module):
    """The image U-Net as its wrapper wants it: callable without text, and copied without its weights.

    The wrapper runs a mock image through the model with nothing but the time, and deep-copies the model.
    """

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None) -> Tensor:
        if context is None:
            context = x.new_zeros(x.shape[0], 1, self.unet.config.context_dim)
        return self.unet(x, timesteps, context)

    def __deepcopy__(self, memo: dict) -> TextShim:
        memo.update({id(p): p for p in self.unet.parameters()})
        return TextShim(copy.deepcopy(self.unet, memo))


def wrap(unet: UNet, size: int, heads: int, depth: int) -> nn.Module:
    """Return its wrapper around our image U-Net, blocks at the places where ours are.

    Args:
        size: height and width of the images; it takes square ones only.
        heads: of its temporal attention, 64 channels each, as ours.
        depth: attention layers of a block, as ours.
    """
    module = load()
    convs, attentions, downs, ups = _places(unet)
    return module.Lumiere(
        TextShim(unet),
        image_size=size,
        unet_time_kwarg="timesteps",
        conv_module_names=convs,
        attn_module_names=attentions,
        downsample_module_names=downs,
        upsample_module_names=ups,
        channels=unet.config.in_channels,
        attn_inflation_kwargs={"depth": depth, "heads": heads, "dim_head": 64},
    ).eval()


def _places(unet: UNet) -> tuple[list[str], list[str], list[str], list[str]]:
    """Return the module names for its conv, attention, down and up blocks."""
    convs, attentions, downs, ups = [], [], [], []
    coarsest, level = unet.config.num_levels - 1, 0
    blocks = [(f"unet.input_blocks.{i}", b) for i, b in enumerate(unet.input_blocks)][1:]
    blocks.append(("unet.middle_block", unet.middle_block))
    blocks += [(f"unet.output_blocks.{i}", b) for i, b in enumerate(unet.output_blocks)]
    for name, layers in blocks:
        if isinstance(layers[0], Downsample):
            level += 1
            downs.append(f"{name}.0")
            continue
        resized = isinstance(layers[-1], Upsample)
        last = len(layers) - 1 - resized
        (attentions if level == coarsest else convs).append(f"{name}.{last}")
        if resized:
            level -= 1
            ups.append(f"{name}.{last + 1}")
    return convs, attentions, downs, ups


def conv_block(channels: int) -> nn.Module:
    """Return its convolution block."""
    return _for_one_clip(load().ConvolutionInflationBlock(dim=channels))


def attention_block(channels: int, depth: int) -> nn.Module:
    """Return its attention block with heads of 64 channels, as ours."""
    block = load().AttentionInflationBlock
    return _for_one_clip(block(dim=channels, depth=depth, heads=channels // 64, dim_head=64))


def downsample(channels: int) -> nn.Module:
    """Return its temporal downsampling."""
    return _for_one_clip(load().TemporalDownsample(channels))


def upsample(channels: int) -> nn.Module:
    """Return its temporal upsampling."""
    return _for_one_clip(load().TemporalUpsample(channels))


def _for_one_clip(module: nn.Module) -> nn.Module:
    module.batch_dim = 1  # clips in a batch; its wrapper sets this before every call
    return module
