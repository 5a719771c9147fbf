"""Photographs as clips, and in the crops that super-resolution learns from."""

import numpy as np
import pytest
import torch
from PIL import Image

from lumiere_core.diffusion.models import Models
from lumiere_core.nets.config import SSRConfig
from lumiere_core.training.given import Files
from lumiere_core.training.options import TrainOptions
from lumiere_core.training.photographs import Photographs
from lumiere_core.training.sources.crops import WorldCrops


@pytest.fixture
def folder(tmp_path):
    """Two photographs of noise, one smaller than the clips, and a file that is none."""
    for number, size in enumerate(((90, 120), (20, 24))):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "CREDITS.txt").write_text("nobody")
    return tmp_path


def clip(photographs, seed, frames=6, side=32):
    return photographs.clip(torch.Generator().manual_seed(seed), frames, side, side)


def test_clips_follow_from_the_generator_and_move(folder):
    photographs = Photographs(folder)
    clips = [clip(photographs, seed) for seed in range(8)]
    assert all(c.shape == (3, 6, 32, 32) and c.isfinite().all() and c.abs().max() <= 1 for c in clips)
    assert all(torch.equal(c, clip(photographs, seed)) for seed, c in enumerate(clips))
    assert max(c.diff(dim=1).abs().mean() for c in clips) > 0.05
    assert clip(photographs, 0, frames=1).shape == (3, 1, 32, 32)


def test_the_camera_moves_steadily(folder):
    """Frame by frame it goes on in one direction: two steps are about one of twice the length."""
    (folder / "0.png").unlink()
    (folder / "1.png").unlink()
    ramp = np.linspace(0, 255, 400).astype(np.uint8)
    Image.fromarray(np.stack([np.broadcast_to(ramp, (400, 400))] * 3, -1)).save(folder / "ramp.png")
    photographs = Photographs(folder)
    for seed in range(6):
        steps = clip(photographs, seed).mean((0, 2, 3)).diff()
        assert (steps - steps.mean()).abs().max() < 0.01


def test_a_share_of_the_crops_are_photographs_without_a_caption(folder, tiny):
    def batch(share, **changes):
        options = TrainOptions(
            batch_size=8, height=16, width=16, num_frames=2, text_dropout=0.0, photographs=share, **changes
        )
        told = []
        encode = Models(tiny.text(), None, None, None).encode
        photographs = Photographs(folder) if share else None
        source = WorldCrops(
            options, lambda c: told.extend(c) or encode(c), SSRConfig(level_channels=32), (32, 32), photographs
        )
        (drawn,) = source.draw([0])
        return drawn, told

    (plain, captions), (mixed, fewer) = batch(0.0), batch(0.5)
    empty = [caption == "" for caption in fewer]
    assert not any(caption == "" for caption in captions) and 1 <= sum(empty) <= 7
    for row, photograph in enumerate(empty):
        assert torch.equal(plain.x0[row], mixed.x0[row]) != photograph
    assert torch.equal(mixed.x0, batch(0.5)[0].x0)


def test_what_is_missing_is_named(tmp_path, tiny):
    with pytest.raises(ValueError, match="holds no photographs.*gather photographs"):
        Photographs(tmp_path)
    options = TrainOptions(height=16, width=16, num_frames=1, photographs=0.5)
    with pytest.raises(ValueError, match="give their folder with --images"):
        WorldCrops(options, None, SSRConfig(), (32, 32))
    assert Files(images=str(tmp_path)).source("ssr") == "crops"
    with pytest.raises(ValueError, match="--images is of no use for `train image`"):
        Files(images=str(tmp_path)).source("image")


def test_every_kind_of_picture_is_taken_and_others_are_named(tmp_path, caplog):
    """16 bits of grey keep their values, transparency lies over white, and what is no picture is said."""
    Image.fromarray(np.full((40, 40), 1 << 15, np.uint16)).save(tmp_path / "deep.tif")
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "clear.gif")
    Image.new("RGB", (40, 40), (9, 9, 9)).save(tmp_path / "old.bmp")
    (tmp_path / "notes.md").write_text("no picture")
    photographs = Photographs(tmp_path)
    assert [file.name for file in photographs.files] == ["clear.gif", "deep.tif", "old.bmp"]
    assert "not read as pictures" in caplog.text and "notes.md" in caplog.text
    levels = sorted({round(float(clip(photographs, seed).mean()), 1) for seed in range(16)})
    assert levels == [-0.9, 0.0, 1.0]
    (tmp_path / "half.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    with pytest.raises(ValueError, match="half.png is not a picture that can be read"):
        Photographs(tmp_path)
