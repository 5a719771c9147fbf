"""The plan `bench`: how fast the Space-Time U-Net is on a card, and beside what else.

In order of worth: the card's matrix peak, SD1.5's size at 80, 32 and 16 frames of 64x64 latents, the same with constant
temporal length and by `lumiere-pytorch`, compiled, SDXL's size, and super-resolution in windows. Random weights, bfloat16.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial

import checkpoints
import reference_lumiere
import sd15
import torch
from figures import Figure
from plan import Task, peak_gib, seconds
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lumiere_core.diffusion.models import Models
from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.diffusion.upscale import UpscaleRequest, upscale
from lumiere_core.nets.config import SSRConfig, TemporalConfig, TextConfig, UNetConfig
from lumiere_core.nets.stunet import SpaceTimeUNet
from lumiere_core.nets.temporal import TemporalLayers
from lumiere_core.nets.text_encoder import TextEncoder
from lumiere_core.nets.unet import UNet

TURNS = 5
FORWARD, TRAINING = 0.50, 0.40  # least share of the card's matrix peak, SD1.5 at 80 frames
SMALL = UNetConfig(
    in_channels=4,
    out_channels=4,
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=(1, 1),
    transformer_depth=(1, 1),
    transformer_depth_output=(1, 1, 1, 1),
    context_dim=32,
    num_head_channels=16,
)
SSR = UNetConfig(
    in_channels=6,
    out_channels=3,
    patch_size=4,
    model_channels=128,
    channel_mult=(1, 2, 4),
    num_res_blocks=(1, 2, 2),
    transformer_depth=(0, 0, 0, 1, 1),
    transformer_depth_output=(0, 0, 0, 0, 0, 1, 1, 1),
    context_dim=128,
    num_head_channels=64,
    use_scale_shift_norm=True,
    adm_in_channels=256,
    disable_self_attn=True,
)


class Bench:
    """Builds networks on the device and measures them.

    Args:
        small: tiny networks, for a test on a CPU.
    """

    def __init__(self, device: str, small: bool) -> None:
        self.device, self.small = device, small
        self.turns = 1 if small else TURNS
        self.dtype = torch.float32 if small else torch.bfloat16  # which some processors only emulate
        self.peak = 0.0  # FLOP/s of a large matrix product

    def tasks(self) -> list[Task]:
        """Return what is measured, in order of worth."""
        frames = (8, 4) if self.small else (80, 32, 16)
        tasks: list[Task] = [("peak", self.matrix_peak)]
        tasks += [(f"sd15.{n}", partial(self.network, "sd15", n)) for n in frames]
        tasks += [(f"constant.{n}", partial(self.network, "sd15", n, 1)) for n in frames]
        tasks += [(f"lumiere_pytorch.{n}", partial(self.reference, n)) for n in frames]
        tasks += [(f"compiled.{n}", partial(self.compiled, n)) for n in frames[:1]]
        tasks += [(f"sdxl.{n}", partial(self.network, "sdxl", n)) for n in frames]
        return [*tasks, ("windows", self.windows)]

    def matrix_peak(self) -> Iterator[Figure]:
        side = 256 if self.small else 8192
        a, b = (torch.randn(side, side, device=self.device, dtype=self.dtype) for _ in range(2))
        self.peak = 2 * side**3 / seconds(lambda: a @ b, self.device, 2 * self.turns + 1)
        yield Figure("gpu.matrix_peak", self.peak / 1e12, "TFLOP/s", note=f"{self.dtype}, {side} x {side}")

    def network(self, name: str, frames: int, stride: int = 2) -> Iterator[Figure]:
        """Forward, and forward and backward to the temporal layers, of one clip."""
        network, inputs = self.built(name, stride), self.inputs(name, frames)
        kind = name if stride > 1 else f"{name}_constant_length"
        bars = (FORWARD, TRAINING) if kind == "sd15" and frames == 80 else (None, None)

        def forward() -> None:
            with torch.no_grad():
                network(*inputs)

        def training() -> None:
            network.zero_grad(set_to_none=True)
            network(*inputs).float().square().mean().backward()

        for way, call, bar in (("forward", forward, bars[0]), ("training", training, bars[1])):
            label = f"gpu.{kind}.{frames}.{way}"
            try:
                took, held = seconds(call, self.device, self.turns), peak_gib(call, self.device)
            except torch.OutOfMemoryError:
                yield Figure(f"{label}.time", None, "s", note="out of memory")
                continue
            yield Figure(f"{label}.time", took, "s")
            if held is not None:
                yield Figure(f"{label}.memory", held, "GiB", note="weights and activations")
            flops = self.flops(name, frames, stride, way)
            if not self.peak:
                list(self.matrix_peak())
            yield Figure(f"{label}.share_of_peak", flops / took / self.peak, "share", bar, at_least=True)

    def compiled(self, frames: int) -> Iterator[Figure]:
        network, inputs = self.built("sd15", 2), self.inputs("sd15", frames)
        fast = torch.compile(network, backend="eager" if self.small else "inductor")
        with torch.no_grad():
            plain = seconds(lambda: network(*inputs), self.device, self.turns)
            took = seconds(lambda: fast(*inputs), self.device, self.turns)
        yield Figure(f"gpu.sd15.{frames}.forward.compiled_over_plain", took / plain, "ratio")

    def reference(self, frames: int) -> Iterator[Figure]:
        """`lumiere-pytorch` around the same image model, in turns with ours."""
        ours, inputs = self.built("sd15", 2).float(), self.inputs("sd15", frames)
        name = f"gpu.sd15.{frames}.forward.ours_over_lumiere_pytorch"
        try:
            theirs = reference_lumiere.wrap(ours.unet, inputs[0].shape[-1], sd15.HEADS, sd15.DEPTH)
        except reference_lumiere.Unavailable as error:
            yield Figure(name, None, "ratio", note=str(error))
            return
        # Wrapped in float32: the wrapper calls the image model with a picture of its own. Both share that model.
        theirs, ours = theirs.to(self.device, self.dtype), ours.to(self.dtype)
        x, timesteps, context = inputs
        with torch.no_grad():
            mine = seconds(lambda: ours(*inputs), self.device, self.turns)
            # Some of its layers compute in float32 and hand that on.
            with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=not self.small):
                other = seconds(lambda: theirs(x, timesteps=timesteps, context=context), self.device, self.turns)
        yield Figure(name, mine / other, "ratio")

    def windows(self) -> Iterator[Figure]:
        """128 to 1024 pixels, 80 frames in windows of 16, 2 steps."""
        side, frames = (8, 6) if self.small else (128, 80)
        text = TextConfig(depth=1)
        tiny = {"model_channels": 32, "num_head_channels": 32}
        config = dataclasses.replace(SSR, **tiny) if self.small else SSR
        temporal = TemporalConfig(depth=1, condition_channels=64, frames_per_clip=16)
        models = Models(
            TextEncoder(text), UNet(config), TemporalLayers(config, temporal), Schedule(prediction="x0"), SSRConfig(8)
        )
        for module in (models.text, models.unet, models.temporal):
            module.to(self.device).eval().requires_grad_(False)
        clip = torch.randint(0, 256, (frames, side, side, 3), dtype=torch.uint8)
        request = UpscaleRequest("a red ball", steps=1 if self.small else 2, context_length=4 if self.small else 16)

        def call() -> None:
            with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=not self.small):
                upscale(models, clip, request)

        took = seconds(call, self.device, 1)
        label = f"gpu.windows.{side}_to_{8 * side}"
        yield Figure(f"{label}.time", took, "s", note=f"{frames} frames, {request.steps} steps, random weights")
        held = peak_gib(call, self.device)
        if held is not None:
            yield Figure(f"{label}.memory", held, "GiB")

    def built(self, name: str, stride: int) -> SpaceTimeUNet:
        config = self.config(name)
        with torch.device(self.device):
            unet = UNet(config).eval().requires_grad_(False)
            depth = 1 if self.small else sd15.DEPTH
            heads = 16 if self.small else 64
            layers = TemporalLayers(config, TemporalConfig(stride=stride, depth=depth, num_head_channels=heads))
        sd15.randomise_projections(layers)
        return SpaceTimeUNet(unet, layers).to(self.dtype)

    def config(self, name: str) -> UNetConfig:
        if self.small:
            return SMALL
        return sd15.CONFIG if name == "sd15" else checkpoints.SDXL

    def inputs(self, name: str, frames: int, device: str = "") -> tuple[Tensor, ...]:
        """Return one clip of 64x64 latents, its timestep, text states, and for SDXL the pooled text."""
        config, side = self.config(name), 8 if self.small else 64
        place = {"device": device or self.device, "dtype": self.dtype}
        x = torch.randn(1, 4, frames, side, side, **place)
        timestep = torch.full((1,), 500.0, device=place["device"])
        context = torch.randn(1, sd15.TOKENS, config.context_dim, **place)
        if not config.adm_in_channels:
            return x, timestep, context
        return x, timestep, context, torch.randn(1, config.adm_in_channels, **place)

    def flops(self, name: str, frames: int, stride: int, way: str) -> int:
        """Count on the meta device, where nothing is computed."""
        config = self.config(name)
        with torch.device("meta"):
            depth, heads = (1, 16) if self.small else (sd15.DEPTH, 64)
            layers = TemporalLayers(config, TemporalConfig(stride=stride, depth=depth, num_head_channels=heads))
            network: nn.Module = SpaceTimeUNet(UNet(config).requires_grad_(False), layers).to(self.dtype)
        inputs = self.inputs(name, frames, "meta")
        with FlopCounterMode(display=False) as counter:
            if way == "forward":
                with torch.no_grad():
                    network(*inputs)
            else:
                network(*inputs).float().square().mean().backward()
        return counter.get_total_flops()
