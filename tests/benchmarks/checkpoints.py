"""Real checkpoints at their full size, inflated: parameters, FLOPs, memory of training, and time on an accelerator.

Random weights; SD1.5 at 512 x 512 and SDXL at 1024 x 1024 pixels, for 16, 32 and 80 frames. Everything but times and
measured memory is counted on the meta device, so it needs no accelerator and no download.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import sd15
import torch
from figures import Figure
from torch.utils.flop_counter import FlopCounterMode

from lumiere_core.nets.config import TemporalConfig, UNetConfig
from lumiere_core.nets.stunet import SpaceTimeUNet
from lumiere_core.nets.temporal import TemporalLayers
from lumiere_core.nets.unet import UNet
from lumiere_core.training.memory import activation_bytes

SDXL = UNetConfig(
    in_channels=4,
    out_channels=4,
    model_channels=320,
    channel_mult=(1, 2, 4),
    num_res_blocks=(2, 2, 2),
    transformer_depth=(0, 0, 2, 2, 10, 10),
    transformer_depth_output=(0, 0, 0, 2, 2, 2, 10, 10, 10),
    transformer_depth_middle=10,
    context_dim=2048,
    num_head_channels=64,
    use_linear_in_transformer=True,
    adm_in_channels=2816,
)
MODELS = {"sd15": (sd15.CONFIG, 64), "sdxl": (SDXL, 128)}  # configuration, size of the latents
FRAMES = (16, 32, 80)
TRAINED = (("sd15", 32, 16), ("sd15", 64, 16), ("sd15", 64, 32), ("sdxl", 64, 16), ("sdxl", 128, 16))
SMALL = ("sd15", 8, 16)  # timed on a CPU


def measure() -> Iterator[Figure]:
    """Yield parameters and FLOPs, then memory of training, then what the machine at hand can run."""
    for name, (config, size) in MODELS.items():
        network = _network(config, "meta")
        millions = [sum(p.numel() for p in m.parameters()) / 1e6 for m in (network.unet, network.temporal)]
        yield Figure(f"checkpoints.{name}.parameters.frozen", millions[0], "M")
        yield Figure(f"checkpoints.{name}.parameters.temporal", millions[1], "M")
        for frames in FRAMES:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(*_inputs(config, frames, size, "meta"))
            flops = counter.get_total_flops() / 1e12
            yield Figure(f"checkpoints.{name}.forward.{size}x{size}x{frames}", flops, "TFLOP")
    for name, size, frames in TRAINED:
        config = MODELS[name][0]
        temporal = _network(config, "meta").temporal
        for checkpointing in (True, False):
            count = activation_bytes(
                config, temporal, (4, frames, size, size), (77, config.context_dim), 1, checkpointing
            )
            how = "checkpointing" if checkpointing else "plain"
            yield Figure(
                f"checkpoints.{name}.activations.{how}.{size}x{size}x{frames}",
                count / 2**30,
                "GiB",
                note="predicted, float32, with gradients",
            )
    yield from _timed("cpu", [SMALL])
    if torch.cuda.is_available():
        yield from _timed("cuda", [(n, s, f) for n, (_, s) in MODELS.items() for f in FRAMES])


def _timed(device: str, cases: list[tuple[str, int, int]]) -> Iterator[Figure]:
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    for name, size, frames in cases:
        config = MODELS[name][0]
        network = _network(config, device).to(dtype).eval()
        inputs = [v.to(dtype) for v in _inputs(config, frames, size, device)]
        seconds = []
        with torch.inference_mode():
            for _ in range(2):
                _wait(device)
                began = time.perf_counter()
                network(*inputs)
                _wait(device)
                seconds.append(time.perf_counter() - began)
        where = f"checkpoints.{name}.{device}.{size}x{size}x{frames}"
        yield Figure(f"{where}.forward", min(seconds), "s")
        if device == "cuda":
            yield Figure(f"{where}.peak", torch.cuda.max_memory_allocated() / 2**30, "GiB")
            torch.cuda.reset_peak_memory_stats()


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _network(config: UNetConfig, device: str) -> SpaceTimeUNet:
    with torch.device(device):
        unet = UNet(config).requires_grad_(False)
        return SpaceTimeUNet(unet, TemporalLayers(config, TemporalConfig(condition_channels=256)))


def _inputs(config: UNetConfig, frames: int, size: int, device: str) -> list[torch.Tensor]:
    x, timesteps, _ = sd15.inputs(frames, size, device)
    context = torch.randn(1, sd15.TOKENS, config.context_dim, device=device)
    y = [torch.randn(1, config.adm_in_channels, device=device)] if config.adm_in_channels else []
    return [x, timesteps, context, *y]
