"""A folder of pictures as training data."""

import numpy as np
import pytest
import torch
from PIL import Image

from lumiere_core.training.draws import Draws
from lumiere_core.training.pictures import caption_of, crop, load_pictures, named


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (40, 30), (255, 0, 0)).save(tmp_path / "red_bird-2.png")
    Image.new("RGBA", (20, 60), (0, 0, 0, 0)).save(tmp_path / "b.PNG")
    (tmp_path / "b.txt").write_text("a tall\n tower ")
    (tmp_path / "notes.md").write_text("no picture")
    return tmp_path


def test_pictures_have_room_for_crops_and_captions(folder):
    pictures = load_pictures(folder, 16, 16)
    assert [p.caption for p in pictures] == ["a tall tower", "red bird"]
    for picture in pictures:
        assert min(picture.pixels.shape[1:]) == 19  # 1.2 times a crop
    assert pictures[0].pixels.shape[1:] == (58, 19)
    assert torch.allclose(pictures[0].pixels, torch.ones(1))  # what is transparent is paper
    assert pictures[1].pixels.amax((1, 2)).tolist() == pytest.approx([1, -1, -1], abs=1e-5)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_of_16_bits_keeps_its_range(tmp_path, suffix):
    """A ramp from black to white has the mean 0; cut at 255, as Pillow would, it were nearly all white."""
    ramp = np.linspace(0, 65535, 64).round().astype(np.uint16)
    Image.fromarray(np.tile(ramp, (64, 1))).save(tmp_path / f"ramp{suffix}")
    (picture,) = load_pictures(tmp_path, 32, 32)
    assert picture.pixels.mean().abs() < 0.01
    assert picture.pixels.amin() < -0.95 and picture.pixels.amax() > 0.95
    rows = picture.pixels[0].mean(0)
    assert (rows.diff() > 0).all() and torch.allclose(picture.pixels[0], picture.pixels[2])


def test_crops_follow_the_generator(folder):
    picture = load_pictures(folder, 16, 12)[0]
    cuts = [crop(picture, 16, 12, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert cuts[0].shape == (3, 16, 12) and torch.equal(cuts[0], cuts[1])


def test_half_of_the_captions_name_the_style():
    captions = named(["rain"] * 40, "in oils", Draws(0, range(40), 1))
    assert set(captions) == {"rain", "rain, in oils"} and 10 < captions.count("rain") < 30
    assert named(["rain"] * 40, "", Draws(0, range(40), 1)) == ["rain"] * 40


def test_caption_without_a_text_is_the_name(tmp_path):
    assert caption_of(tmp_path / "old.oak_tree 03.jpg") == "old oak tree"


def test_an_empty_folder_and_a_broken_file_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no pictures in .*Put 1 to 20 files \(.png, .jpg"):
        load_pictures(tmp_path, 8, 8)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="broken.png is not a picture that can be read"):
        load_pictures(tmp_path, 8, 8)


def test_more_than_20_pictures_are_refused(tmp_path):
    for number in range(20):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    assert len(load_pictures(tmp_path, 8, 8)) == 20
    Image.new("RGB", (8, 8)).save(tmp_path / "20.jpg")
    with pytest.raises(ValueError, match="21 pictures in .*learnt from 1 to 20"):
        load_pictures(tmp_path, 8, 8)
