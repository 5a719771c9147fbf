"""Stylised renderings: all styles differ, follow the picture, and look the same at any size."""

import pytest
import torch

from lumiere_core import world
from lumiere_core.world.styles import STYLES, blur, stylise

CAPTIONS = ("a red ball bouncing on grass", "a yellow star moving right in front of a night sky")


@pytest.fixture(scope="module")
def drawn():
    scenes = [world.scene_from_caption(caption, 3) for caption in CAPTIONS]
    return world.render_frames(scenes, torch.tensor([1.0, 1.0]), masks=True)


def test_every_style_is_a_picture_of_its_own(drawn):
    images, masks = drawn
    seen = [images]
    for style in STYLES:
        picture = stylise(images, style, masks)
        assert picture.shape == images.shape and picture.abs().max() <= 1
        assert all((picture - other).abs().mean() > 0.08 for other in seen), style
        seen.append(picture)


def test_inputs_stay_and_a_seed_gives_one_picture(drawn):
    images, masks = drawn
    before = images.clone()
    first, again, other = (stylise(images, "watercolor", masks, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(images, before)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_frames_of_one_clip_share_their_paper():
    still = torch.full((3, 3, 32, 32), 0.2)
    clip = stylise(still, "watercolor", one_clip=True)
    assert torch.equal(clip[0], clip[2])
    apart = stylise(still, "watercolor")
    assert not torch.equal(apart[0], apart[2])


def test_line_drawing_is_grey_and_pixel_art_is_blocks(drawn):
    images, masks = drawn
    lines = stylise(images, "line_drawing", masks)
    assert (lines.amax(1) - lines.amin(1)).max() < 1e-6
    blocks = stylise(images, "pixel_art").unfold(2, 4, 4).unfold(3, 4, 4)
    assert (blocks.amax((-1, -2)) - blocks.amin((-1, -2))).max() == 0
    levels = (stylise(images, "pixel_art") + 1) * 1.5
    assert (levels - levels.round()).abs().max() < 1e-5


def test_sticker_keeps_the_object_and_hides_what_is_around(drawn):
    images, masks = drawn
    picture = stylise(images, "sticker", masks)
    inside = (masks > 0.99).expand_as(images)
    far = ~(blur(masks, 3.0) > 0.001).expand_as(images)
    assert (picture - images)[inside].abs().mean() < 0.15
    assert picture[0][far[0]].view(3, -1).std(dim=1).max() < 0.01  # one plain colour
    whole = stylise(images, "sticker")  # without masks: the whole picture, on a card
    assert torch.allclose(whole[:, :, 0, 0], picture[:, :, 0, 0], atol=0.3)
    assert (whole - picture).abs().mean() > 0.1


def test_neon_glows_in_the_dark(drawn):
    images, _ = drawn
    picture = stylise(images, "neon")
    assert picture.median() < -0.5 and picture.max() > 0.9


@pytest.mark.parametrize("style", STYLES)
def test_a_larger_picture_looks_the_same(style):
    scene = world.scene_from_caption(CAPTIONS[0], 3)
    pictures = []
    for side in (64, 128):
        images, masks = world.render_frames([scene], torch.tensor([1.0]), side, side, masks=True)
        pictures.append(stylise(images, style, masks))
    small = torch.nn.functional.avg_pool2d(pictures[1], 2)
    assert (blur(small, 2.0) - blur(pictures[0], 2.0)).abs().mean() < 0.06


def test_any_size_and_an_unknown_style():
    for size in ((5, 9), (16, 8), (96, 64)):
        for style in STYLES:
            assert stylise(torch.zeros(2, 3, *size), style).shape == (2, 3, *size)
    with pytest.raises(ValueError, match="got style 'oils', want one of watercolor, line_drawing"):
        stylise(torch.zeros(1, 3, 8, 8), "oils")
