"""One size and one frame rate for pictures, clips and masks; never stretched unasked."""

import pytest
import torch
import torch.nn.functional as F

from lumiere_core.clips import framing


def picture(h, w, n=1):
    return torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("policy", framing.POLICIES)
def test_the_right_size_is_left_bit_for_bit(policy):
    images = picture(8, 12)
    fitted, bars = framing.fit(images, 8, 12, policy)
    assert torch.equal(fitted, images) and bars == (0, 0, 0, 0)


def test_crop_fills_the_frame_from_the_middle():
    images = picture(8, 16)
    fitted, bars = framing.fit(images, 8, 8, "crop")
    assert torch.equal(fitted, images[..., 4:12]) and bars == (0, 0, 0, 0)


def test_pad_shows_all_between_bars():
    images = picture(8, 16)
    fitted, bars = framing.fit(images, 16, 16, "pad")
    assert bars == (0, 4, 0, 4)
    assert torch.equal(fitted[..., 4:12, :], images)
    assert not fitted[..., :4, :].any() and not fitted[..., 12:, :].any()


@pytest.mark.parametrize(("policy", "wide"), [("crop", 8), ("pad", 8), ("stretch", 4)])
def test_only_stretch_changes_the_shape_of_things(policy, wide):
    """A square of 8 pixels in a picture twice as wide as the frame stays one, or is halved."""
    images = torch.zeros(1, 3, 32, 64)
    images[..., 12:20, 28:36] = 1
    fitted, _ = framing.fit(images, 32, 32, policy)
    shown = fitted[0, 0] > 0.5
    height, width = int(shown.any(dim=1).sum()), int(shown.any(dim=0).sum())
    assert width == (wide if policy != "pad" else 4)
    assert height == (8 if policy != "pad" else 4)


@pytest.mark.parametrize("policy", framing.POLICIES)
@pytest.mark.parametrize("size", [(7, 93), (93, 7), (40, 41), (1, 1)])
def test_any_aspect_ratio(policy, size):
    fitted, bars = framing.fit(picture(*size), 24, 16, policy)
    assert fitted.shape == (1, 3, 24, 16) and fitted.isfinite().all()
    assert 0 <= fitted.min() and fitted.max() <= 1
    assert bars[0] + bars[2] < 16 and bars[1] + bars[3] < 24


def test_an_unknown_policy():
    with pytest.raises(ValueError, match="'squeeze'.*crop.*pad.*stretch"):
        framing.fit(picture(8, 8), 8, 9, "squeeze")


def test_place_marks_borders_and_bars_as_to_be_made():
    images, made = framing.place(picture(8, 16), 32, 32, "pad", (8, 0, 8, 0), blank=0.5)
    assert images.shape == (1, 3, 32, 32) and made.shape == (1, 32, 32)
    assert made[0, 12:20, 8:24].sum() == 0 and made.sum() == 32 * 32 - 8 * 16
    assert (images[:, :, made[0] > 0] == 0.5).all()


def test_place_takes_a_region_along():
    region = torch.zeros(2, 8, 16)
    region[1, 2:6, 4:8] = 1
    _, made = framing.place(picture(8, 16, 2), 8, 8, "crop", region=region)
    assert made.shape == (2, 8, 8) and not made[0].any()
    assert torch.equal(made[1], region[1, :, 4:12])


def test_borders_must_leave_something():
    with pytest.raises(ValueError, match="something must be left"):
        framing.place(picture(8, 8), 32, 32, "crop", (16, 0, 16, 0))


@pytest.mark.parametrize(
    ("count", "source", "rate", "expected"),
    [
        (6, 30, 30, [0, 1, 2, 3, 4, 5]),
        (6, 32, 16, [0, 2, 4]),
        (3, 8, 16, [0, 0, 1, 1, 2, 2]),
        (30, 30000 / 1001, 16, [0, 1, 3, 5, 7, 9, 11, 13, 14, 16, 18, 20, 22, 24, 26, 28]),
    ],
)
def test_frames_at_another_rate(count, source, rate, expected):
    assert framing.frames_at(count, source, rate).tolist() == expected


def test_a_frame_rate_is_positive():
    with pytest.raises(ValueError, match="above 0"):
        framing.frames_at(5, 30, 0)
    for source, rate in ((1e-300, 16), (0.001, 1000), (5e-324, 1e308)):
        with pytest.raises(ValueError, match="at most 65,536 are taken. Correct the frame rates"):
            framing.frames_at(80, source, rate)


def test_a_line_of_pixels_is_not_enlarged_to_be_cropped():
    with pytest.raises(ValueError, match="pictures of 1x4000 pixels are too narrow to fill 512x512"):
        framing.fit(torch.zeros(1, 3, 4000, 1), 512, 512, "crop")
    assert framing.fit(torch.zeros(1, 3, 4000, 1), 32, 32, "pad")[0].shape == (1, 3, 32, 32)


def test_growing_and_shrinking():
    region = torch.zeros(2, 9, 9)
    region[1, 3:6, 3:6] = 1
    assert framing.grown(region, 0) is region
    assert framing.grown(region, 2)[1].nonzero().aminmax() == (1, 7)
    assert framing.grown(region, 2).sum() == 49 and framing.grown(region, -1).sum() == 1
    assert not framing.grown(region, 2)[0].any()


def test_feathering_fades_outwards():
    region = torch.zeros(1, 9, 9)
    region[0, 4, 4] = 1
    faded = framing.feathered(region, 3)[0]
    assert faded[4].tolist() == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0]
    assert torch.equal(framing.feathered(region, 0), region)


def spots(n=3, h=13, w=10):
    return (torch.rand(n, h, w, generator=torch.Generator().manual_seed(1)) > 0.9).float()


def brushed(region, pixels):
    """The formula: the largest value under a square brush."""
    return F.max_pool2d(region[:, None], 2 * pixels + 1, 1, pixels)[:, 0] if pixels else region


@pytest.mark.parametrize("pixels", [0, 1, 2, 3, 4, 7, 8, 20])
def test_growing_is_a_square_brush(pixels):
    region = spots()
    assert torch.equal(framing.grown(region, pixels), brushed(region, pixels))
    assert torch.equal(framing.grown(region, -pixels), 1 - brushed(1 - region, pixels))
    assert torch.equal(framing.grown(region[:, None], pixels)[:, 0], brushed(region, pixels))


@pytest.mark.parametrize("pixels", [1, 2, 5, 20])
def test_feathering_is_brushes_of_every_size(pixels):
    region = spots()
    parts = [brushed(region, step) * (1 - step / (pixels + 1)) for step in range(pixels + 1)]
    assert torch.equal(framing.feathered(region, pixels), torch.stack(parts).amax(0))


def test_feathering_can_be_stopped():
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        framing.feathered(spots(), 2, stop)
    assert len(calls) == 2
