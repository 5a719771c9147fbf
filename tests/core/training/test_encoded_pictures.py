"""The stage `style` on latents: the file that the host's encoders fill, and the deltas trained from it."""

import dataclasses
import json

import pytest
import torch

from lumiere_core.diffusion.models import Models
from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.nets.checkpoint import load_file, save_file
from lumiere_core.nets.lora import apply
from lumiere_core.nets.unet import UNet
from lumiere_core.training.given import options_for
from lumiere_core.training.latent_pictures import CROPS, encode_pictures
from lumiere_core.training.loop import train
from lumiere_core.training.options import TrainOptions
from lumiere_core.training.parts import DeltasPart
from lumiere_core.training.pictures import Picture
from lumiere_core.training.run import Run
from lumiere_core.training.sources.pictures import EncodedPictures

OPTIONS = TrainOptions(
    steps=3, batch_size=4, learning_rate=1e-2, warmup=1, style="oils", words="in oils", rank=2, ema_decay=0.0
)


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(0)
    make = lambda: torch.rand(3, 20, 24, generator=generator) * 2 - 1  # noqa: E731
    return [Picture(make(), "a tower"), Picture(make(), "rain")]


@pytest.fixture
def encoded(pictures, halving, tmp_path):
    encode_pictures(pictures, halving(), tmp_path / "p.safetensors", 16, 16, "in oils")
    return tmp_path / "p.safetensors"


@pytest.fixture
def make(encoded, tiny):
    def run(**changes):
        config = tiny.unet_config(in_channels=4, out_channels=4, adm_in_channels=None)
        torch.manual_seed(0)
        options = dataclasses.replace(OPTIONS, **changes)
        models = Models(None, UNet(config), None, Schedule("scaled_linear", "eps"))
        style = {"name": "oils", "words": "in oils", "base": "sd abc"}
        part = DeltasPart(models, options, style, auto="attention")
        return Run("style", options, EncodedPictures(options, encoded), part)

    return run


def test_the_file_holds_crops_and_every_text(pictures, encoded, halving, tmp_path):
    encoders = halving()
    encode_pictures(pictures, encoders, tmp_path / "again.safetensors", 16, 16, "in oils")
    assert encoders.texts == ["a tower", "a tower, in oils", "rain", "rain, in oils", ""]
    source = EncodedPictures(OPTIONS, encoded)
    assert source.count == 2 and source.tensors["latents.1"].shape == (CROPS, 4, 8, 8)
    assert source.backbone == json.loads(json.dumps(halving.backbone))
    again = EncodedPictures(OPTIONS, tmp_path / "again.safetensors").tensors
    assert all(torch.equal(v, again[k]) for k, v in source.tensors.items())
    with pytest.raises(ValueError, match="to be 18x16 pixels, but this model wants multiples of 4"):
        encode_pictures(pictures, encoders, tmp_path / "odd.safetensors", 16, 18, "")


def test_batches_mix_pictures_and_texts(encoded):
    options = dataclasses.replace(OPTIONS, batch_size=64, text_dropout=0.2)
    (batch,) = EncodedPictures(options, encoded).draw([0])
    context = batch.text.context
    assert batch.x0.shape == (64, 4, 1, 8, 8) and context.shape == (64, 2, 32) and batch.text.pooled is None
    said = {length: int((context[:, 0, 0] == length).sum()) for length in (0, 4, 7, 13, 16)}
    assert sum(said.values()) == 64 and all(said.values())
    assert torch.equal(context[:, 0], context[:, 1])  # short ones repeat their last state


def test_deltas_of_the_attention_train_and_the_model_does_not(make, tmp_path):
    run = make()
    unet = run.part.models.unet
    before = {k: v.clone() for k, v in unet.state_dict().items()}
    train(run, tmp_path / "run", progress=False)
    assert all(torch.equal(v, before[k]) for k, v in unet.state_dict().items())
    file, metadata = load_file(tmp_path / "run" / "lora.safetensors")
    changed = apply(before, file, 1.0)
    moved = {k for k, v in changed.items() if not torch.equal(v, before[k])}
    assert moved and all(".transformer_blocks." in key for key in moved)
    assert '"base": "sd abc"' in metadata["lumiere.config"]


def test_a_resumed_run_is_the_whole_one(make, tmp_path, assert_same_files):
    train(make(), tmp_path / "whole", progress=False)
    train(make(steps=1), tmp_path / "parts", progress=False)
    train(make(), tmp_path / "parts", resume=True, progress=False)
    assert_same_files(tmp_path / "whole" / "lora.safetensors", tmp_path / "parts" / "lora.safetensors")


def test_a_whole_fine_tune_is_refused():
    with pytest.raises(ValueError, match="--rank is 0"):
        options_for("style", "encoded-pictures", {"rank": 0})


@pytest.mark.parametrize(
    "change",
    [
        {"latents.0": None},
        {"latents.0": torch.zeros(8, 3, 8, 8)},
        {"latents.0": torch.zeros(0, 4, 8, 8)},
        {"latents.1": torch.zeros(8, 4, 4, 8)},
        {"named.1.context": None},
        {"plain.0.context": torch.zeros(2, 7)},
        {"empty.context": torch.full((1, 32), float("nan"))},
        {"latents.0": torch.zeros(8, 4, 8, 8, dtype=torch.int64)},
        "{",
        '{"sha256": []}',
    ],
)
def test_a_damaged_file_is_refused(encoded, change):
    tensors, metadata = load_file(encoded)
    if isinstance(change, str):
        metadata["lumiere.backbone"] = change
    else:
        tensors = {key: value for key, value in (tensors | change).items() if value is not None}
    save_file(tensors, encoded, metadata)
    with pytest.raises(ValueError, match="p.safetensors"):
        EncodedPictures(OPTIONS, encoded)
