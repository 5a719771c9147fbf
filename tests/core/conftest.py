"""Tiny networks with fixed seeds for tests of `lumiere_core`; no host, no bundled weights, one thread.

The `tiny` fixture builds everything: 32 channels, 2 or 3 levels, 8 or 16 pixels. "Trained" layers are random
ones, with no projection left at zero, so that a wrong axis or a forgotten bypass changes the answer.
"""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.nets.checkpoint import metadata_for, save_file, to_half
from lumiere_core.nets.config import TemporalConfig, TextConfig, UNetConfig
from lumiere_core.nets.lora import LowRank
from lumiere_core.nets.stunet import SpaceTimeUNet
from lumiere_core.nets.temporal import TemporalLayers, initial_state
from lumiere_core.nets.text_encoder import TextEncoder
from lumiere_core.nets.unet import UNet

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 32  # of the text states and of the finest level


@pytest.fixture(autouse=True)
def one_thread():
    """Tests share the machine's cores with whatever else runs; tiny networks gain nothing from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclasses.dataclass
class Inputs:
    """What a network is called with."""

    x: torch.Tensor
    timesteps: torch.Tensor
    context: torch.Tensor
    y: torch.Tensor

    def __iter__(self):
        return iter((self.x, self.timesteps, self.context, self.y))

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)

    def clips(self, index):
        """The same inputs for some of the clips."""
        return Inputs(self.x[index], self.timesteps[index], self.context[index], self.y[index])


class Tiny:
    """Builders of small configurations, networks and inputs."""

    width = WIDTH

    def unet_config(self, levels=2, **changes):
        mult = {1: (1,), 2: (1, 2), 3: (1, 1, 2), 4: (1, 1, 1, 2)}[levels]
        values = {
            "model_channels": WIDTH,
            "channel_mult": mult,
            "num_res_blocks": (1,) * levels,
            "transformer_depth": (0,) * (levels - 1) + (1,),
            "transformer_depth_output": (0,) * (2 * levels - 2) + (1, 1),
            "context_dim": WIDTH,
            "num_head_channels": 16,
            "adm_in_channels": WIDTH,
        }
        return UNetConfig(**values | changes)

    def temporal_config(self, **changes):
        values = {"num_head_channels": 16, "condition_channels": WIDTH, "frames_per_clip": 8}
        return TemporalConfig(**values | changes)

    def text_config(self, **changes):
        return TextConfig(**{"width": WIDTH, "depth": 1, "num_heads": 2, "tokens": 4} | changes)

    def unet(self, config=None, seed=0):
        torch.manual_seed(seed)
        return UNet(config or self.unet_config()).eval()

    def text(self, seed=0, **changes):
        torch.manual_seed(seed)
        return TextEncoder(self.text_config(**changes)).eval()

    def temporal(self, unet_config=None, config=None, trained=False, seed=1):
        layers = TemporalLayers(unet_config or self.unet_config(), config or self.temporal_config())
        generator = torch.Generator().manual_seed(seed)
        layers.load_state_dict(initial_state(layers, generator))
        if trained:
            self.randomise(layers, generator)
        return layers.eval()

    def randomise(self, module, generator):
        """Move every parameter away from its initialisation."""
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)

    def spacetime(self, levels=2, trained=False, temporal=None, **unet):
        """A Space-Time U-Net; `temporal` holds changes of the TemporalConfig, the rest of the UNetConfig."""
        config = self.unet_config(levels, **unet)
        layers = self.temporal(config, self.temporal_config(**temporal or {}), trained)
        return SpaceTimeUNet(self.unet(config), layers)

    def inputs(self, clips=1, frames=4, height=8, width=8, dtype=torch.float32, channels=3, seed=2):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        return Inputs(
            normal(clips, channels, frames, height, width),
            (torch.rand(clips, generator=generator) * 999).to(dtype),
            normal(clips, 4, WIDTH),
            normal(clips, WIDTH),
        )


@pytest.fixture(scope="session")
def tiny():
    return Tiny()


@pytest.fixture
def weights(tiny, tmp_path):
    """A folder of part files as the trainer exports them: 16x16 pixels, "trained" temporal layers."""
    folder, config = tmp_path / "weights", tiny.unet_config().to_dict()
    parts = {
        "text": (tiny.text(), {"text": tiny.text_config().to_dict()}),
        "image": (tiny.unet(), {"unet": config, "schedule": Schedule().to_dict(), "size": [16, 16]}),
        "temporal": (tiny.temporal(trained=True), {"unet": config, "temporal": tiny.temporal_config().to_dict()}),
    }
    for name, (module, config) in parts.items():
        state = to_half({f"{name}.{k}": v for k, v in module.state_dict().items()})
        save_file(state, folder / f"{name}.safetensors", metadata_for(f"tiny {name}", config))
    return folder


@pytest.fixture
def lora_file(tiny, tmp_path):
    """Function (name, strength) -> a LoRA file for the tiny image model."""

    def write(name, strength):
        deltas = LowRank(tiny.unet(), rank=2)
        generator = torch.Generator().manual_seed(1)
        values = {k: strength * torch.randn(v.shape, generator=generator) for k, v in deltas.named_parameters()}
        path = tmp_path / f"{name}.safetensors"
        save_file(deltas.file_state(values), path, metadata_for(name, {}))
        return path

    return write


@pytest.fixture
def spawn():
    """A function that starts `python -m lumiere_core …` as a process with one thread; ended with the test."""
    processes = []

    def start(*arguments, command=("-m", "lumiere_core"), cwd=ROOT, env=os.environ):
        process = subprocess.Popen(
            [sys.executable, *map(str, command), *map(str, arguments)],
            cwd=cwd,
            env={**env, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def narrow_i3d():
    """Function () -> weights of a very narrow I3D, by the names of the public files."""

    def make(width=2, classes=7, seed=0):
        """Weights of a very narrow I3D, by the names of the public files."""
        generator, state = torch.Generator().manual_seed(seed), {}

        def unit(name, channels, kernel):
            state[f"{name}.conv3d.weight"] = torch.randn(width, channels, *kernel, generator=generator) * 0.3
            for part in ("running_mean", "bias"):
                state[f"{name}.bn.{part}"] = torch.randn(width, generator=generator) * 0.1
            for part in ("running_var", "weight"):
                state[f"{name}.bn.{part}"] = torch.rand(width, generator=generator) + 0.5

        unit("Conv3d_1a_7x7", 3, (7, 7, 7))
        unit("Conv3d_2b_1x1", width, (1, 1, 1))
        unit("Conv3d_2c_3x3", width, (3, 3, 3))
        channels = width
        for block in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c"):
            for part in ("b0", "b1a", "b2a", "b3b"):
                unit(f"Mixed_{block}.{part}", channels, (1, 1, 1))
            for part in ("b1b", "b2b"):
                unit(f"Mixed_{block}.{part}", width, (3, 3, 3))
            channels = 4 * width
        state["logits.conv3d.weight"] = torch.randn(classes, channels, 1, 1, 1, generator=generator)
        state["logits.conv3d.bias"] = torch.randn(classes, generator=generator)
        return state

    return make


@pytest.fixture(scope="session")
def narrow_c3d():
    """Function () -> weights of a very narrow C3D."""

    def make(width=2, classes=5):
        generator, state, channels = torch.Generator().manual_seed(0), {}, 3
        for name in ("conv1", "conv2", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b"):
            state[f"{name}.weight"] = torch.randn(width, channels, 3, 3, 3, generator=generator) * 0.3
            state[f"{name}.bias"] = torch.zeros(width)
            channels = width
        for name, size, out in (("fc6", 16 * width, 8), ("fc7", 8, 8), ("fc8", 8, classes)):
            state[f"{name}.weight"] = torch.randn(out, size, generator=generator) * 0.1
            state[f"{name}.bias"] = torch.zeros(out)
        return state

    return make
