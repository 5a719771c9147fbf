"""Tiny stages: 16x16 pixels, 8 frames, 2 clips a step, the procedural world as data."""

import dataclasses
import signal

import pytest
import torch

from lumiere_core.clips.media import write_mp4
from lumiere_core.clips.video import to_uint8
from lumiere_core.dataset.cache import Settings
from lumiere_core.dataset.encoders import PixelEncoders
from lumiere_core.dataset.prepare import prepare
from lumiere_core.diffusion.models import Models
from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.nets.checkpoint import load_file, load_parts, save_file, sha256
from lumiere_core.nets.config import UNetConfig
from lumiere_core.nets.low import LOW_BETAS, small_frames
from lumiere_core.training.layers import new_layers
from lumiere_core.training.loop import train
from lumiere_core.training.options import TrainOptions
from lumiere_core.training.parts import DeltasPart, ImagePart, TextPart, new_unet
from lumiere_core.training.run import ReadingRun, Run
from lumiere_core.training.sources.captions import Captions
from lumiere_core.training.sources.worlds import StyledStills, WorldStills
from lumiere_core.training.stages import world_clips_run

OPTIONS = TrainOptions(
    steps=6, batch_size=2, learning_rate=1e-2, warmup=2, height=16, width=16, num_frames=8, save_every=1e9
)


class Encoders:
    """A VAE that keeps every second pixel and a mean, and text states that tell texts apart.

    Args:
        backbone: what differs from the one below.
    """

    backbone = {
        "sha256": {"sd.safetensors": "abc"},
        "ratio": 2,
        "multiple": 4,
        "unet": UNetConfig(in_channels=4, out_channels=4, context_dim=32).to_dict(),
        "schedule": {"kind": "scaled_linear", "prediction": "eps"},
    }

    def __init__(self, **backbone):
        self.backbone = self.backbone | backbone
        self.texts = []

    def encode(self, frames):
        x = frames.float().permute(3, 0, 1, 2)[:, :, ::2, ::2] / 127.5 - 1
        return torch.cat([x, x.mean(0, keepdim=True)])

    def embed(self, caption, height, width):
        self.texts.append(caption)
        return {"context": torch.full((1 + len(caption) % 3, 32), float(len(caption)))}


@pytest.fixture(scope="session")
def halving():
    """Class of encoders that stand for a checkpoint with latents."""
    return Encoders


class Trainer:
    """Builds stages and runs them; samples are off unless a test wants them."""

    def __init__(self, tiny):
        self.tiny = tiny

    def options(self, **changes):
        return dataclasses.replace(OPTIONS, **changes)

    def models(self, options=OPTIONS, temporal=None, fresh=False, **unet):
        """Models of the tiny networks; `temporal` holds changes of the layers' configuration, None = no layers."""
        config, layers = self.tiny.unet_config(**unet), None
        if temporal is not None:
            layers = new_layers(config, self.tiny.temporal_config(**temporal), options.seed)
        unet = new_unet(config, options.seed) if fresh else self.tiny.unet(config)
        return Models(self.tiny.text(), unet, layers, Schedule())

    def stage(self, name, options=OPTIONS, preview=False, temporal=None, fresh=True, **unet):
        if name == "text":
            part = TextPart(self.tiny.text_config(), options)
            run = ReadingRun("text", options, Captions(options, 64), part)
        elif name == "image":
            models = self.models(options, fresh=fresh, **unet)
            run = Run("image", options, WorldStills(options, models.encode), ImagePart(models, options))
        elif name == "style":
            models = self.models(options, **unet)
            style = {"name": "neon", "words": "in glowing neon style", "base": "image.safetensors abc"}
            part = DeltasPart(models, options, style) if options.rank else ImagePart(models, options, style)
            run = Run("style", options, StyledStills(options, models.encode), part)
        else:
            layers = {"conv_cond": name == "condition", **(temporal or {})}
            run = world_clips_run(name, self.models(options, temporal=layers, **unet), options)
        if not preview:
            run.preview = lambda folder, step: None
        return run

    def watch(self, run, change):
        """Let change(number, loss) make the loss of each batch."""
        pieces = run.pieces

        def loss(number):
            return torch.stack([piece() for piece in pieces(number)]).sum()

        run.pieces = lambda number: [lambda: change(number, loss)]

    def run(self, name, folder, interrupt_at=None, resume=False, **changes):
        """Train a fresh stage; `interrupt_at` raises SIGINT in the middle of that step (from 1)."""
        run = self.stage(name, self.options(**changes))

        def interrupted(number, loss):
            if number + 1 == interrupt_at:
                signal.raise_signal(signal.SIGINT)
            return loss(number)

        self.watch(run, interrupted)
        last = train(run, folder, resume, progress=False)
        return run, last


@pytest.fixture
def trainer(tiny):
    return Trainer(tiny)


@pytest.fixture
def cache(weights, tmp_path):
    """Five clips of 8 frames, 16 x 16 and 24 x 8 pixels, for the tiny Lumiere; clip 3's video has two of them."""
    videos = tmp_path / "videos"
    generator = torch.Generator().manual_seed(0)
    for number in range(4):
        height, width = (8, 24) if number == 2 else (16, 16)
        frame = torch.randint(0, 256, (1, height, width, 3), generator=generator, dtype=torch.uint8)
        frames = torch.cat([frame.roll(i, dims=2) for i in range(16 if number == 3 else 8)])
        write_mp4(videos / f"{number}.mp4", frames)
        (videos / f"{number}.txt").write_text(f"clip {number}")
    folder = tmp_path / "cache"
    encoders = PixelEncoders(load_parts(sorted(weights.glob("*.safetensors"))))
    encoders.backbone["multiple"] = 8
    prepare(videos, folder, encoders, Settings(frames=8, size=16), progress=False)
    return folder


class UpscalerEncoders:
    """The SD x4 upscaler's: a VAE of 4 x 4 pixels a latent, whose first three channels are the small clip itself."""

    def __init__(self, tiny, file):
        config = tiny.unet_config(
            in_channels=7, out_channels=4, adm_in_channels=None, num_classes=1000, text_only_levels=(1,)
        )
        unet = tiny.unet(config)
        save_file({f"model.diffusion_model.{k}": v for k, v in unet.state_dict().items()}, file, {})
        self.backbone = {
            "unet": config.to_dict(),
            "schedule": Schedule("scaled_linear", "v", betas=LOW_BETAS).to_dict(),
            "prefix": "model.diffusion_model.",
            "sha256": {file.name: sha256(file)},
            "ratio": 4,
            "multiple": 8,
        }

    def encode(self, frames):
        small = small_frames(frames)
        return torch.cat([small, small[:1]])

    def decode(self, latents):
        return to_uint8(latents[:3].repeat_interleave(4, -1).repeat_interleave(4, -2))

    def embed(self, caption, height, width):
        return {"context": torch.full((2, 32), float(len(caption)))}


@pytest.fixture
def upscaler_cache(tiny, tmp_path):
    """(cache, checkpoint) of three clips of 8 frames of 32 x 32 pixels, two of them of one video, for a tiny upscaler."""
    videos, generator = tmp_path / "large", torch.Generator().manual_seed(0)
    for number, frames in enumerate((8, 16)):
        frame = torch.randint(0, 256, (1, 32, 32, 3), generator=generator, dtype=torch.uint8)
        write_mp4(videos / f"{number}.mp4", torch.cat([frame.roll(4 * i, dims=2) for i in range(frames)]))
        (videos / f"{number}.txt").write_text(f"clip {number}")
    folder, checkpoint = tmp_path / "upscaler-cache", tmp_path / "x4.safetensors"
    encoders = UpscalerEncoders(tiny, checkpoint)
    prepare(videos, folder, encoders, Settings(frames=8, size=32), progress=False)
    return folder, checkpoint


@pytest.fixture
def assert_same_files():
    """A function that compares two safetensors files: keys, types, every byte, and the metadata."""

    def compare(first, second, ignore=()):
        (a, facts_a), (b, facts_b) = load_file(first), load_file(second)
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert value.dtype == b[key].dtype
            assert value.numpy().tobytes() == b[key].numpy().tobytes(), key
        drop = lambda facts: {k: v for k, v in facts.items() if k not in ignore}  # noqa: E731
        assert drop(facts_a) == drop(facts_b)

    return compare
