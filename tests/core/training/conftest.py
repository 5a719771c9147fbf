"""Tiny training phases: 16x16 pixels, 8 frames, 2 clips a step, the procedural world as data."""

import dataclasses
import signal

import pytest

from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.nets.checkpoint import load_file
from lumiere_core.training.loop import train
from lumiere_core.training.options import TrainOptions
from lumiere_core.training.phases import condition, image, temporal, text

OPTIONS = TrainOptions(
    steps=6, batch_size=2, learning_rate=1e-2, warmup=2, height=16, width=16, num_frames=8, save_every=1e9
)


class Trainer:
    """Builds phases and runs them; previews are off unless a test wants them."""

    def __init__(self, tiny):
        self.tiny = tiny

    def options(self, **changes):
        return dataclasses.replace(OPTIONS, **changes)

    def phase(self, name, options=OPTIONS, preview=False, **unet):
        tiny, schedule = self.tiny, Schedule()
        if name == "text":
            phase = text.TextPhase(tiny.text_config(), options)
        elif name == "image":
            unet = image.new_unet(tiny.unet_config(**unet), seed=options.seed)
            phase = image.ImagePhase(unet, tiny.text(), schedule, options)
        else:
            config = tiny.unet_config(**unet)
            conditioned = name == "condition"
            temporal_config = tiny.temporal_config(conv_cond=conditioned)
            layers = temporal.new_temporal(config, temporal_config, seed=options.seed)
            kind = condition.ConditionPhase if conditioned else temporal.TemporalPhase
            phase = kind(tiny.unet(config), layers, tiny.text(), schedule, options)
        if not preview:
            phase.preview = lambda folder, step: None
        return phase

    def run(self, name, folder, interrupt_at=None, resume=False, **changes):
        """Train a fresh phase; `interrupt_at` raises SIGINT in the middle of that step (from 1)."""
        options = self.options(**changes)
        phase = self.phase(name, options)
        loss = phase.loss

        def interrupted(step):
            if step + 1 == interrupt_at:
                signal.raise_signal(signal.SIGINT)
            return loss(step)

        phase.loss = interrupted
        last = train(phase, options, folder, resume, progress=False)
        return phase, last


@pytest.fixture
def trainer(tiny):
    return Trainer(tiny)


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
