"""Temporal layers for the SD x4 upscaler: crops of a cache, their small clips, and the stage `ssr`."""

import dataclasses

import pytest
import torch

from lumiere_core.commands.cli import main
from lumiere_core.dataset.cache import Cache, check_clip
from lumiere_core.dataset.reader import open_clips
from lumiere_core.nets.checkpoint import load_parts, save_file
from lumiere_core.nets.low import MOST_LEVEL, LatentUpscaler, noised
from lumiere_core.training.given import Files
from lumiere_core.training.loop import train
from lumiere_core.training.options import TrainOptions
from lumiere_core.training.sources.cached_crops import CachedCrops
from lumiere_core.training.stages import build

OPTIONS = TrainOptions(
    steps=2, batch_size=2, learning_rate=1e-2, warmup=1, height=16, width=24, num_frames=0, placed=0.0, save_every=1e9
)


@pytest.fixture
def make(upscaler_cache):
    """Function (changes of the options) -> a run of the stage on the cache."""
    cache, checkpoint = upscaler_cache

    def build_run(**changes):
        files = Files(data=str(cache), checkpoint=str(checkpoint))
        return build("ssr", files, dataclasses.replace(OPTIONS, **changes), {})

    return build_run


def test_the_small_clip_is_cut_where_the_latents_are(make):
    """The stand-in's latents are the small clip: what differs is the noise, where the class says that there is some."""
    source, places = make(batch_size=64).source, set()
    (batch,) = source.draw([0])
    low, level = batch.more["low"], batch.text.pooled
    assert batch.x0.shape == (64, 4, 8, 4, 6) and low.shape == (64, 3, 8, 4, 6)
    assert level.dtype == torch.long and level.min() == 0 and 300 < level.max() <= MOST_LEVEL
    assert 20 < (level > 0).sum() < 44
    clean = level == 0
    assert torch.allclose(batch.x0[clean, :3], low[clean], atol=1e-3)
    off = (batch.x0[:, :3] - low).flatten(1).std(dim=1)
    assert off[~clean].min() > 0.005 and off[level > 250].min() > off[(level > 0) & (level < 60)].max()
    for x in batch.x0[clean]:
        places.add(round(float(x.sum()), 2))
    assert len(places) > 10


def test_small_clips_are_noised_as_by_a_diffusion_step():
    low, noise = torch.ones(3, 3, 2, 4, 4), torch.full((3, 3, 2, 4, 4), 2.0)
    out = noised(low, noise, torch.tensor([0, 20, 350]))
    assert torch.equal(out[0], low[0])
    kept = (1 - torch.linspace(0.0001**0.5, 0.02**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
    for row, level in ((1, 20), (2, 350)):
        want = kept[level].sqrt() + (1 - kept[level]).sqrt() * 2
        assert out[row].flatten().tolist() == pytest.approx([float(want)] * 96, abs=1e-5)


def test_a_smaller_clip_is_taken_whole(make):
    (batch,) = make(height=64, width=8).source.draw([0])
    assert batch.x0.shape[3:] == (8, 2)
    with pytest.raises(ValueError, match="--width is 30 pixels; crops must be multiples of 4"):
        make(width=30)


def test_only_temporal_layers_train(make, tmp_path):
    run = make(sample_every=1)
    assert isinstance(run.source, CachedCrops) and isinstance(run.network, LatentUpscaler)
    assert run.module.config.coordinates and run.module.config.shared_noise == 0
    assert run.part.models.shared_noise == 1
    before = {k: v.clone() for k, v in run.part.models.unet.state_dict().items()}
    start = {k: v.clone() for k, v in run.module.state_dict().items()}
    train(run, tmp_path, progress=False)
    assert all(torch.equal(v, before[k]) for k, v in run.part.models.unet.state_dict().items())
    assert all(p.grad is None for p in run.part.models.unet.parameters())
    assert any(not torch.equal(v, start[k]) for k, v in run.module.state_dict().items())
    assert (tmp_path / "samples" / "step_000002.png").is_file()


def test_the_small_clip_and_its_noise_level_reach_the_answer(make):
    run = make()
    (batch,) = run.source.draw([0])
    loss = run.losses(batch)
    other = dataclasses.replace(batch, more={**batch.more, "low": -batch.more["low"]})
    class_ = dataclasses.replace(batch, text=batch.text._replace(pooled=(batch.text.pooled + 1) % 350))
    assert not torch.allclose(loss, run.losses(other)) and not torch.allclose(loss, run.losses(class_))


def test_the_verb_makes_weights_that_load_and_start_another_run(upscaler_cache, tmp_path):
    cache, checkpoint = upscaler_cache
    output = tmp_path / "motion.safetensors"
    arguments = ["train", "ssr", "--checkpoint", str(checkpoint), "--data", str(cache), "--threads", "1"]
    arguments += ["--steps", "1", "--height", "16", "--width", "16", "--sample-every", "-1"]
    assert main([*arguments, "--output", str(output)]) == 0
    parts = load_parts(output)
    assert parts.unet_config.num_classes == 1000 and parts.unet_config.text_only_levels == (1,)
    assert parts.image is None and parts.temporal_config.frames_per_clip == 8
    assert main([*arguments, "--output", str(tmp_path / "more"), "--init-from", str(output)]) == 0


@pytest.mark.parametrize(
    ("stage", "more", "message"),
    [
        ("temporal", [], "its temporal layers are trained by `train ssr --data`"),
        ("condition", [], "its temporal layers are trained by `train ssr --data`"),
        ("ssr", ["--images", "folder"], "--images is of no use for `train ssr` here"),
        ("ssr", ["--photographs", "0.5"], "--photographs does nothing when training on crops of your own clips"),
    ],
)
def test_what_does_not_fit_is_refused(upscaler_cache, tmp_path, capsys, stage, more, message):
    cache, checkpoint = upscaler_cache
    arguments = ["train", stage, "--checkpoint", str(checkpoint), "--data", str(cache), "--output", str(tmp_path / "x")]
    assert main([*arguments, *more]) == 1
    assert message in capsys.readouterr().err


def test_a_cache_of_an_image_model_is_refused(cache, weights, tmp_path, capsys):
    arguments = ["--checkpoint", str(weights), "--data", str(cache), "--output", str(tmp_path / "x")]
    assert main(["train", "ssr", *arguments]) == 1
    assert "`train ssr --data` is for the SD x4 upscaler" in capsys.readouterr().err


def test_a_clip_without_its_small_one_is_damaged(upscaler_cache, tmp_path):
    cache = Cache.open(upscaler_cache[0])
    clip = cache.clips()[0]
    tensors = open_clips(upscaler_cache[0])[0].tensors
    for low in (None, tensors["low"][:, :4], tensors["low"] * float("nan")):
        changed = {k: v for k, v in tensors.items() if k != "low"} | ({} if low is None else {"low": low})
        save_file(changed, tmp_path / "clip.safetensors", {"caption": clip.caption})
        with pytest.raises(ValueError, match="holds a small clip"):
            check_clip((tmp_path / "clip.safetensors").read_bytes(), clip, cache.backbone)
