"""Training the super-resolution stage: pairs, parts that train, one exported file, degradations."""

from functools import partial

import pytest
import torch
from PIL import Image

from lumiere_core import world
from lumiere_core.diffusion.models import Models
from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.nets.checkpoint import load_parts
from lumiere_core.nets.config import SSRConfig
from lumiere_core.training import previews
from lumiere_core.training.degrade import compress, degrade, encode_video
from lumiere_core.training.given import Files
from lumiere_core.training.layers import new_layers
from lumiere_core.training.loop import train
from lumiere_core.training.parts import UpscalerPart, new_unet
from lumiere_core.training.run import Run
from lumiere_core.training.sources.crops import WorldCrops
from lumiere_core.training.stages import build

CONFIG = SSRConfig(level_channels=32)


@pytest.fixture
def stage(trainer):
    """Function (num_frames, size, …) -> run of a small stage; more than one frame trains temporal layers."""

    def make(num_frames=1, size=(32, 32), **options):
        tiny = trainer.tiny
        options = trainer.options(num_frames=num_frames, **options)
        config = tiny.unet_config(in_channels=6, patch_size=4, adm_in_channels=64, disable_self_attn=True)
        layers = new_layers(config, tiny.temporal_config(), 0) if num_frames > 1 else None
        # A fresh spatial part answers nothing, so that layers around it would not learn.
        unet = tiny.unet(config) if layers else new_unet(config, 0)
        models = Models(tiny.text(), unet, layers, Schedule(prediction="x0"), CONFIG)
        source, part = WorldCrops(options, models.encode, CONFIG, size), UpscalerPart(models, options)
        return Run("ssr", options, source, part)

    return make


def copies(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def changed(module, before):
    return {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}


@pytest.mark.parametrize("num_frames", [1, 4])
def test_pairs_belong_together(stage, num_frames):
    (batch,), (again,) = (stage(num_frames, size=(32, 40)).source.draw([3]) for _ in range(2))
    assert batch.x0.shape == batch.more["low"].shape == (2, 3, num_frames, 16, 16)
    assert (batch.x0 - batch.more["low"]).abs().mean() < 0.4
    assert torch.equal(batch.x0, again.x0) and torch.equal(batch.more["low"], again.more["low"])
    small = [b for n in (6, 7) for b in stage(num_frames, size=(32, 40), batch_size=1).source.draw([n])]
    assert torch.allclose(torch.cat([b.x0 for b in small]), batch.x0, atol=1e-5)
    assert batch.more["numbers"].shape == (2, num_frames) and batch.more["clip_frames"] == 80
    assert batch.text.pooled.shape == (2, 64)  # pooled text and the level of the noise


def test_noise_is_the_same_in_all_frames(stage):
    run, seen = stage(4), []
    forward = run.part.network.forward
    run.part.network.forward = lambda x, *rest, **more: seen.append(x) or forward(x, *rest, **more)
    run.loss(0)
    (batch,) = run.source.draw([0])
    still = stage(4)
    assert run.denoiser.shared_noise == still.denoiser.shared_noise == 1.0
    noise = seen[0] - batch.x0 * ((seen[0] * batch.x0).sum() / batch.x0.square().sum())
    assert noise.diff(dim=2).abs().mean() < 0.5 * noise.abs().mean()


def test_some_clips_get_noise_that_is_new_in_each_frame(stage):
    """As the node's `noise` may ask for; the others, and the rest of a sample's randomness, are as without."""

    def inputs(**options):
        run, seen = stage(4, batch_size=8, **options), []
        forward = run.part.network.forward
        run.part.network.forward = lambda x, *rest, **more: seen.append(x) or forward(x, *rest, **more)
        run.loss(0)
        return seen[0]

    plain, mixed, fresh = inputs(), inputs(fresh_noise=0.5), inputs(fresh_noise=1.0)
    changed = [not torch.equal(a, b) for a, b in zip(plain, mixed, strict=True)]
    assert 0 < sum(changed) < 8
    assert all(torch.equal(a, b) for a, b, new in zip(mixed, fresh, changed, strict=True) if new)
    still, moving = (clips.diff(dim=2).square().mean() for clips in (plain, fresh))
    assert moving > 2 * still


def test_one_frame_trains_the_spatial_part(stage, tmp_path):
    run = stage(steps=3)
    models = run.part.models
    before, text = copies(models.unet), copies(models.text)
    train(run, tmp_path, progress=False)
    assert set(before) - {"patch_basis"} <= changed(models.unet, before)
    assert changed(models.text, text) == set()
    parts = load_parts(tmp_path / "ssr.safetensors")
    assert parts.temporal is None and parts.config["ssr"] == CONFIG.to_dict()


def test_segments_train_the_temporal_layers_only(stage, tmp_path):
    run = stage(num_frames=4)
    models = run.part.models
    before, layers = copies(models.unet), copies(models.temporal)
    train(run, tmp_path, progress=False)
    assert changed(models.unet, before) == set()
    assert changed(models.temporal, layers) == set(layers)
    parts = load_parts(tmp_path / "ssr.safetensors")
    assert parts.image is not None and parts.temporal is not None


def test_the_samples_are_a_picture_and_a_table(stage, tmp_path):
    partial(previews.enlarged_sheet, stage().part.models, (32, 32), 1)(tmp_path, 5)
    with Image.open(tmp_path / "step_000005.png") as picture:
        assert picture.size == (3 * 34 - 2, 4 * 34 - 2)
    assert (tmp_path / "psnr_000005.txt").read_text().count(" dB") == 8


@pytest.mark.parametrize("size", [{"height": 18}, {"width": 64}])
def test_impossible_crops_are_refused(stage, size):
    with pytest.raises(ValueError, match=f"--{next(iter(size))} is .* multiples of 4"):
        stage(**size)


def clip(frames=3, side=64):
    return world.render_clip(world.sample_scene(3), frames, 16.0, side, side).transpose(0, 1)


def test_degradations_are_reproducible_and_differ():
    frames = clip()
    results = [degrade(frames, 4, torch.Generator().manual_seed(seed)) for seed in range(24)]
    clean = torch.nn.functional.avg_pool2d(frames, 4)
    assert all(r.shape == (3, 3, 16, 16) and r.isfinite().all() for r in results)
    assert all(r.abs().max() <= 1 for r in results)
    untouched = sum(torch.equal(r, clean) for r in results)
    assert 5 <= untouched <= 15
    assert all(
        torch.equal(result, degrade(frames, 4, torch.Generator().manual_seed(seed)))
        for seed, result in enumerate(results)
    )


def test_some_clips_are_compressed_and_nothing_else(monkeypatch):
    from lumiere_core.training import degrade as module

    sent = []
    monkeypatch.setattr(module, "encode_video", lambda low, crf: sent.append((low, crf)) or low)
    frames = clip()
    for seed in range(40):
        degrade(frames, 4, torch.Generator().manual_seed(seed))
    clean = torch.nn.functional.avg_pool2d(frames, 4)
    plain = [crf for low, crf in sent if torch.equal(low, clean)]
    assert 4 <= len(plain) <= 20 and len(plain) < len(sent)
    assert all(module.CRF[0] <= crf <= module.CRF[1] for crf in plain)


def test_small_and_large_clips_are_degraded_alike_but_for_the_codec():
    """Eight pixels are too few for H.264; JPEG takes its place."""
    assert all(degrade(clip(2, 32), 4, torch.Generator().manual_seed(seed)).shape == (2, 3, 8, 8) for seed in range(12))


def test_every_kind_of_degradation_occurs(monkeypatch):
    import kornia

    from lumiere_core.training import degrade as module

    seen = set()

    def noted(name, function):
        return lambda *arguments, **named: seen.add(name) or function(*arguments, **named)

    monkeypatch.setattr(module, "encode_video", noted("H.264", module.encode_video))
    monkeypatch.setattr(module, "compress", noted("JPEG", module.compress))
    monkeypatch.setattr(kornia.filters, "motion_blur", noted("motion", kornia.filters.motion_blur))
    for seed in range(40):
        degrade(clip(2), 4, torch.Generator().manual_seed(seed))
    assert seen == {"H.264", "JPEG", "motion"}


def test_video_compression_keeps_frames_in_order_and_loses_more_at_a_higher_factor():
    scene = world.scene_from_caption("a red ball moving right on a white background", 0)
    frames = world.render_clip(scene, 9, 4.0, 37, 37).transpose(0, 1)
    weak, strong = (encode_video(frames, crf) for crf in (12, 40))
    assert weak.shape == strong.shape == frames.shape
    errors = [(out - frames).abs().mean() for out in (weak, strong)]
    assert 0 < errors[0] < errors[1] < 0.2
    nearest = [(weak - frames[n]).square().flatten(1).mean(1).argmin().item() for n in (0, 4, 8)]
    assert nearest == [0, 4, 8]
    assert torch.equal(weak, encode_video(frames, 12))
    with pytest.raises(ValueError, match="3 x 8 x 8.*16 pixels"):
        encode_video(torch.zeros(1, 3, 8, 8), 23)


def test_compression_takes_any_size_and_loses_little():
    image = world.render_clip(world.sample_scene(3), 1, 16.0, 20, 28).transpose(0, 1) / 2 + 0.5
    out = compress(image, torch.tensor([90.0]))
    assert out.shape == image.shape and 0 < (out - image).abs().mean() < 0.1


def test_psnr():
    black = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    assert previews.psnr(black, black + 255) == 0
    assert previews.psnr(black, black + 1) == pytest.approx(48.13, abs=0.01)


def test_the_temporal_part_needs_a_spatial_one(trainer, weights):
    with pytest.raises(ValueError, match="--text is missing"):
        build("ssr", Files(), trainer.options(), {})
    with pytest.raises(ValueError, match="trained around a trained spatial part"):
        build("ssr", Files(text=weights / "text.safetensors"), trainer.options(num_frames=4), {})
