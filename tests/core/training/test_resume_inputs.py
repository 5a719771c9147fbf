"""A run goes on with its own files only: another cache, checkpoint, weights file or photograph is refused by name.

With its own it ends, bit for bit, where a run without an interruption ends.
"""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.nets.checkpoint import load_file, save_file, sha256
from lumiere_core.nets.config import SSRConfig
from lumiere_core.training.given import Files, options_for
from lumiere_core.training.latent_pictures import encode_pictures
from lumiere_core.training.loop import train
from lumiere_core.training.pictures import Picture
from lumiere_core.training.stages import build

QUICK = {"steps": 3, "warmup": 0, "learning_rate": 1e-2, "sample_every": -1, "save_every": 1e9}


def other(file, target=None):
    """A copy of a weights file with other numbers in its first tensor, under the same name in another folder."""
    state, metadata = load_file(file)
    key = next(iter(state))
    target = (target or file.parent / "other") / file.name
    save_file(state | {key: state[key] + 0.5}, target, metadata)
    return target


class Case:
    """A stage with its files, its options and what a resumed run must not be given: (change of the files, message)."""

    def __init__(self, stage, files, options, config, others):
        self.stage, self.files, self.config, self.others = stage, files, config, others
        self.options = QUICK | options

    def run(self, folder, steps=3, resume=False, config=None, **changes):
        files = dataclasses.replace(self.files, **changes)
        options = options_for(self.stage, files.source(self.stage), self.options | {"steps": steps})
        run = build(self.stage, files, options, self.config if config is None else config)
        return train(run, folder, resume, progress=False)


@pytest.fixture
def ssr(tiny, weights, tmp_path):
    """The temporal layers of super-resolution, on the world and on photographs."""
    config = {
        "unet": tiny.unet_config(in_channels=6, out_channels=3, adm_in_channels=64, disable_self_attn=True).to_dict(),
        "ssr": SSRConfig(level_channels=32).to_dict(),
        "schedule": Schedule().to_dict(),
        "temporal": tiny.temporal_config().to_dict(),
        "size": [32, 32],
    }
    small = {"height": 16, "width": 16, "batch_size": 2, "photographs": 0.5}
    for folder, level in (("photographs", 0), ("others", 9)):
        (tmp_path / folder).mkdir()
        pixels = np.random.default_rng(level).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / folder / "a.png")
    files = Files(text=weights / "text.safetensors", images=str(tmp_path / "photographs"))
    spatial = Case("ssr", files, small | {"num_frames": 1}, config, [])
    spatial.run(tmp_path / "spatial", steps=1)
    start = tmp_path / "spatial" / "ssr.safetensors"
    others = [
        ({"init_from": other(start)}, "init-from differ"),
        ({"text": other(weights / "text.safetensors")}, "text differ"),
        ({"images": str(tmp_path / "others")}, "photographs differ"),
        ({"config": config | {"size": [48, 32]}}, "size differ"),
        ({"config": config | {"temporal": tiny.temporal_config(shared_noise=0.3).to_dict()}}, "architecture differ"),
    ]
    return Case("ssr", dataclasses.replace(files, init_from=start), small | {"num_frames": 2}, config, others)


@pytest.fixture
def cached(upscaler_cache, tmp_path):
    """The temporal layers of the SD x4 upscaler, on a cache."""
    cache, checkpoint = upscaler_cache
    shutil.copytree(cache, tmp_path / "fewer")
    lines = (tmp_path / "fewer" / "index.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "fewer" / "index.jsonl").write_text(lines[0])
    files = Files(data=str(cache), checkpoint=str(checkpoint))
    others = [
        ({"data": str(tmp_path / "fewer")}, "clips, data differ"),
        ({"checkpoint": str(other(checkpoint))}, "the cache was prepared with x4.safetensors"),
    ]
    return Case("ssr", files, {"batch_size": 2, "height": 16, "width": 24}, {}, others)


@pytest.fixture
def motion_lora(cache, weights, tmp_path):
    """A motion LoRA of Lumiere's layers."""
    start = weights / "temporal.safetensors"
    shutil.copytree(cache, tmp_path / "fewer")
    lines = (tmp_path / "fewer" / "index.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "fewer" / "index.jsonl").write_text("".join(lines[:2]))
    whole = tmp_path / "whole model"
    shutil.copytree(weights, whole)
    shutil.copy(other(weights / "image.safetensors", tmp_path / "x"), whole / "image.safetensors")
    files = Files(data=str(cache), checkpoint=str(weights), init_from=start)
    others = [
        ({"init_from": other(start, tmp_path / "other")}, "init-from differ"),
        ({"data": str(tmp_path / "fewer")}, "clips, data differ"),
        ({"checkpoint": str(whole)}, "the cache was prepared with image.safetensors"),
    ]
    return Case("motion-lora", files, {"batch_size": 2, "rank": 2}, {}, others)


@pytest.fixture
def style(tiny, halving, tmp_path):
    """A LoRA in the latents of a checkpoint."""
    config = tiny.unet_config(in_channels=4, out_channels=4, adm_in_channels=None)
    checkpoint = tmp_path / "sd.safetensors"
    save_file({f"model.diffusion_model.{k}": v for k, v in tiny.unet(config).state_dict().items()}, checkpoint, {})

    encoders = halving(
        unet=config.to_dict(), prefix="model.diffusion_model.", sha256={checkpoint.name: sha256(checkpoint)}
    )
    generator = torch.Generator().manual_seed(0)
    for name in ("pictures", "others"):
        picture = Picture(torch.rand(3, 20, 24, generator=generator) * 2 - 1, "a tower")
        encode_pictures([picture], encoders, tmp_path / f"{name}.safetensors", 16, 16, "in oils")
    files = Files(images=str(tmp_path), checkpoint=str(checkpoint), encoded=tmp_path / "pictures.safetensors")
    others = [
        ({"encoded": tmp_path / "others.safetensors"}, "data differ"),
        ({"checkpoint": str(other(checkpoint))}, "the cache was prepared with sd.safetensors"),
    ]
    return Case("style", files, {"batch_size": 2, "rank": 2, "words": "in oils"}, {}, others)


@pytest.mark.parametrize("name", ["ssr", "cached", "motion_lora", "style"])
def test_its_own_files_go_on_and_others_are_refused(request, tmp_path, assert_same_files, name):
    case = request.getfixturevalue(name)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert case.run(whole) == 3 and case.run(parts, steps=1) == 1
    before = {file.name: file.read_bytes() for file in parts.glob("*.safetensors")}
    assert len(before) == 2
    for changes, message in case.others:
        with pytest.raises(ValueError, match=message):
            case.run(parts, resume=True, **changes)
        assert {file.name: file.read_bytes() for file in parts.glob("*.safetensors")} == before
    assert case.run(parts, resume=True) == 3
    for file in before:
        assert_same_files(whole / file, parts / file)


def test_another_noise_schedule_is_refused(trainer, tmp_path):
    """The same shapes, another objective."""
    trainer.run("image", tmp_path, steps=1)
    run = trainer.stage("image", trainer.options(steps=2))
    run.part.models.schedule = Schedule(prediction="x0")
    with pytest.raises(ValueError, match="architecture differ"):
        train(run, tmp_path, resume=True, progress=False)


def test_states_of_earlier_versions_go_on(trainer, tmp_path):
    """They name neither the architecture nor photographs."""
    trainer.run("image", tmp_path, steps=1)
    tensors, facts = load_file(tmp_path / "state.safetensors")
    save_file(tensors, tmp_path / "state.safetensors", {k: v for k, v in facts.items() if k != "data.architecture"})
    assert trainer.run("image", tmp_path, steps=2, resume=True)[1] == 2
