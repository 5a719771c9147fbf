"""Training the super-resolution stage: pairs, parts that train, one exported file, degradations."""

import pytest
import torch
from PIL import Image

from lumiere_core import world
from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.nets.checkpoint import load_parts
from lumiere_core.nets.config import SSRConfig
from lumiere_core.training.degrade import compress, degrade
from lumiere_core.training.loop import train
from lumiere_core.training.phases.image import new_unet
from lumiere_core.training.phases.ssr import SSRPhase, psnr
from lumiere_core.training.phases.temporal import new_temporal

CONFIG = SSRConfig(level_channels=32)


@pytest.fixture
def phase(trainer):
    """Function (num_frames, size, …) -> phase of a small stage; more than one frame trains temporal layers."""

    def build(num_frames=1, size=(32, 32), **options):
        tiny = trainer.tiny
        options = trainer.options(num_frames=num_frames, **options)
        config = tiny.unet_config(in_channels=6, patch_size=4, adm_in_channels=64, disable_self_attn=True)
        layers = new_temporal(config, tiny.temporal_config(), 0) if num_frames > 1 else None
        # A fresh spatial part answers nothing, so that layers around it would not learn.
        unet = tiny.unet(config) if layers else new_unet(config, 0)
        return SSRPhase(unet, layers, tiny.text(), Schedule(prediction="x0"), CONFIG, options, size)

    return build


def copies(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def changed(module, before):
    return {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}


@pytest.mark.parametrize("num_frames", [1, 4])
def test_pairs_belong_together(phase, num_frames):
    built = phase(num_frames)
    scenes = [world.sample_scene(i, split="train") for i in range(2)]
    high, low = built.pairs(scenes, step=3)
    assert high.shape == (2, 3, num_frames, 16, 16) and low.shape == (2 * num_frames, 3, 4, 4)
    small = torch.nn.functional.avg_pool2d(high.transpose(1, 2).flatten(0, 1), 4)
    assert (small - low).abs().mean() < 0.2
    again = phase(num_frames).pairs(scenes, step=3)
    assert torch.equal(high, again[0]) and torch.equal(low, again[1])


def test_noise_is_the_same_in_all_frames(phase):
    noise = phase(4).noise((2, 3, 4, 16, 16), torch.Generator().manual_seed(0))
    assert noise.shape == (2, 3, 4, 16, 16) and (noise == noise[:, :, :1]).all()
    assert not torch.equal(noise[0], noise[1]) and 0.9 < noise.std() < 1.1


def test_one_frame_trains_the_spatial_part(phase, tmp_path):
    built = phase(steps=3)
    before, text = copies(built.models.unet), copies(built.models.text)
    built.preview = lambda *_: None
    train(built, built.options, tmp_path, progress=False)
    assert changed(built.models.unet, before) == set(before)
    assert changed(built.models.text, text) == set()
    parts = load_parts(tmp_path / "ssr.safetensors")
    assert parts.temporal is None and parts.config["ssr"] == CONFIG.to_dict()


def test_segments_train_the_temporal_layers_only(phase, tmp_path):
    built = phase(num_frames=4)
    before, layers = copies(built.models.unet), copies(built.models.temporal)
    built.preview = lambda *_: None
    train(built, built.options, tmp_path, progress=False)
    assert changed(built.models.unet, before) == set()
    assert changed(built.models.temporal, layers) == set(layers)
    parts = load_parts(tmp_path / "ssr.safetensors")
    assert parts.image is not None and parts.temporal is not None


def test_the_preview_is_a_picture_and_a_table(phase, tmp_path):
    phase().preview(tmp_path, 5)
    with Image.open(tmp_path / "step_000005.png") as picture:
        assert picture.size == (3 * 34 - 2, 4 * 34 - 2)
    assert (tmp_path / "psnr_000005.txt").read_text().count(" dB") == 8


@pytest.mark.parametrize("size", [{"height": 18}, {"width": 64}])
def test_impossible_crops_are_refused(phase, size):
    with pytest.raises(ValueError, match=f"--{next(iter(size))} is .* multiples of 4"):
        phase(**size)


def test_degradations_are_reproducible_and_differ():
    scene = world.sample_scene(3)
    frames = world.render_clip(scene, 3, 16.0, 32, 32).transpose(0, 1)
    results = [degrade(frames, 4, torch.Generator().manual_seed(seed)) for seed in range(24)]
    clean = torch.nn.functional.avg_pool2d(frames, 4)
    assert all(r.shape == (3, 3, 8, 8) and r.isfinite().all() for r in results)
    untouched = sum(torch.equal(r, clean) for r in results)
    assert 8 <= untouched <= 20
    assert torch.equal(results[5], degrade(frames, 4, torch.Generator().manual_seed(5)))


def test_compression_takes_any_size_and_loses_little():
    image = world.render_clip(world.sample_scene(3), 1, 16.0, 20, 28).transpose(0, 1) / 2 + 0.5
    out = compress(image, torch.tensor([90.0]))
    assert out.shape == image.shape and 0 < (out - image).abs().mean() < 0.1


def test_psnr():
    black = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    assert psnr(black, black + 255) == 0
    assert psnr(black, black + 1) == pytest.approx(48.13, abs=0.01)


def test_the_temporal_part_needs_a_spatial_one(trainer):
    from types import SimpleNamespace

    from lumiere_core.training.phases.ssr import build

    text = SimpleNamespace(text=None, image=None, init_from=None)
    with pytest.raises(ValueError, match="--text is missing"):
        build(text, trainer.options(), {})
