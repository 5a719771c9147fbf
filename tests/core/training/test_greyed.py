"""`prepare --conditions`: what is known of a clip is encoded after it was greyed, as at inference."""

import dataclasses
import hashlib

import pytest
import torch
import torch.nn.functional as F

from lumiere_core.clips.media import write_mp4
from lumiere_core.clips.video import to_uint8
from lumiere_core.dataset.cache import Cache, Settings, check_clip
from lumiere_core.dataset.decode import Report, frames_at
from lumiere_core.dataset.prepare import prepare
from lumiere_core.dataset.reader import open_clips
from lumiere_core.nets.checkpoint import load_file, save_file
from lumiere_core.training.masks import INSIDE, draw_inside
from lumiere_core.training.options import TrainOptions
from lumiere_core.training.sources import cached
from lumiere_core.training.sources.cached import CachedClips

OPTIONS = TrainOptions(batch_size=2, num_frames=0, placed=0.0, text_dropout=0.0, stills=0.0)


class BlurringEncoders:
    """A VAE of 4 x 4 pixels a latent whose cells see their neighbours, as those of real ones do."""

    backbone = {"sha256": {"a": "b"}, "ratio": 4, "multiple": 8, "unet": {}, "schedule": {}}

    def encode(self, frames):
        x = frames.float().permute(0, 3, 1, 2) / 127.5 - 1
        small = F.avg_pool2d(F.pad(x, (4, 4, 4, 4), mode="replicate"), 12, stride=4)
        return torch.cat([small, small[:, :1]], dim=1).transpose(0, 1)

    def decode(self, latents):
        return to_uint8(latents[:3].repeat_interleave(4, -1).repeat_interleave(4, -2))

    def embed(self, caption, height, width):
        return {"context": torch.full((2, 128), float(len(caption)))}


@pytest.fixture
def made(tmp_path):
    """Function (conditions, shards) -> a cache of one clip of 8 frames of 32 x 32 pixels."""

    def make(conditions, shards=0.0, encoders=None):
        frames = torch.randint(0, 256, (8, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        write_mp4(tmp_path / "videos" / "a.mp4", frames)
        folder = tmp_path / f"cache{conditions}"
        settings = Settings(frames=8, size=32, conditions=conditions)
        with_masks = {"caption": "noise", "shards": shards, "masks": draw_inside, "progress": False}
        summary = prepare(tmp_path / "videos", folder, encoders or BlurringEncoders(), settings, **with_masks)
        return folder, summary

    return make


def test_what_is_masked_is_what_a_workflow_encodes(made, monkeypatch):
    """Known cells next to a border differ from those of the whole clip, and are the same as of the greyed pixels."""
    folder, _ = made(3)
    clips = open_clips(folder)
    key, tensors = clips.flat[0].key, clips[0].tensors
    whole = tensors["latents"].float()
    pixels = BlurringEncoders()
    frames = torch.stack([torch.from_numpy(f) for f in frames_at(folder.parent / "videos" / "a.mp4", 16.0, Report())])
    different = 0
    for number in range(3):
        seed = int(hashlib.sha256(f"{key} {number}".encode()).hexdigest()[:15], 16)
        mask = draw_inside(seed, (8, 32, 32))
        greyed = torch.where(mask[..., None], frames, torch.tensor(128, dtype=torch.uint8))
        assert torch.allclose(tensors["greyed"][number].float(), pixels.encode(greyed), atol=2e-3)
        cells = mask.unflatten(2, (8, 4)).unflatten(1, (8, 4)).all(dim=4).all(dim=2)
        assert torch.equal(tensors["known"][number, 0] > 0, cells)
        different += int(((tensors["greyed"][number].float() - whole).abs() * cells).max() > 0.01)
    assert different  # the border shows in the cells that are known

    monkeypatch.setattr(cached, "draw_task", lambda dice: "region")
    (batch,) = CachedClips(OPTIONS, clips, known=True).draw([0])
    assert batch.x0.shape == (2, 4, 8, 8, 8) and torch.allclose(batch.x0[0], whole)
    for row in batch.known:
        fits = [
            torch.allclose(row[:4], (g * k).float()) and torch.allclose(row[4:], k.float())
            for g, k in zip(tensors["greyed"], tensors["known"], strict=True)
        ]
        assert sum(fits) == 1


def test_whole_frames_are_those_of_the_clip(made, monkeypatch):
    folder, _ = made(2)
    clips = open_clips(folder)
    monkeypatch.setattr(cached, "draw_task", lambda dice: "first frame")
    options = dataclasses.replace(OPTIONS, num_frames=3)
    (batch,) = CachedClips(options, clips, known=True).draw([0])
    assert torch.equal(batch.known[:, :4, 0], batch.x0[:, :, 0]) and not batch.known[:, :, 1:].any()
    assert CachedClips(OPTIONS, clips).draw([0])[0].x0.shape[1] == 4  # of no use for plain clips, and left out


def test_a_cache_with_copies_is_found_again_and_packed(made):
    folder, summary = made(2)
    assert summary.made == 1
    assert made(2)[1].made == 0
    folder, _ = made(2, shards=1.0)
    assert open_clips(folder)[0].tensors["greyed"].shape == (2, 4, 8, 8, 8)
    assert "conditions" not in Cache.open(made(0)[0]).dataset["settings"]  # as caches of earlier versions


def test_damage_and_misuse_are_named(made, tmp_path):
    folder, _ = made(1)
    cache = Cache.open(folder)
    clip = cache.clips()[0]
    tensors, metadata = load_file(cache.clip_path(clip.key))
    del tensors["known"], metadata["digest"]
    save_file(tensors, tmp_path / "clip.safetensors", metadata)
    with pytest.raises(ValueError, match="holds known None, wanted"):
        check_clip((tmp_path / "clip.safetensors").read_bytes(), clip, cache.backbone)
    pixels = BlurringEncoders()
    pixels.backbone = {**pixels.backbone, "ratio": 1}
    with pytest.raises(ValueError, match="--conditions is 4, but this model works on pixels"):
        made(4, encoders=pixels)
    with pytest.raises(ValueError, match="0 to 64 copies"):
        Settings(conditions=65)


def test_masks_cut_through_frames():
    masks = [draw_inside(seed, (4, 16, 16)) for seed in range(40)]
    assert all(torch.equal(m, draw_inside(i, (4, 16, 16))) for i, m in enumerate(masks))
    inside = [any(f.any() and not f.all() for f in mask) for mask in masks]
    assert sum(inside) > 30 and len(INSIDE) == 4
