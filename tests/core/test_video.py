"""Folding, padding in time and conversions."""

import pytest
import torch

from lumiere_core.clips.video import (
    clip_count,
    fold,
    from_uint8,
    images_to_video,
    padded_frames,
    take_frames,
    to_uint8,
    unfold,
    video_to_images,
)


@pytest.fixture
def video():
    return torch.rand(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_fold_is_clip_major(video):
    images = fold(video)
    assert images.shape == (8, 3, 5, 6)
    for clip in range(2):
        for frame in range(4):
            assert torch.equal(images[clip * 4 + frame], video[clip, :, frame])
    assert torch.equal(unfold(images, 4), video)


@pytest.mark.parametrize(
    ("frames", "multiple", "wanted"),
    [
        (8, 4, [0, 1, 2, 3, 4, 5, 6, 7]),
        (6, 4, [0, 1, 2, 3, 4, 5, 4, 3]),
        (5, 4, [0, 1, 2, 3, 4, 3, 2, 1]),
        (3, 8, [0, 1, 2, 1, 0, 1, 2, 1]),
        (2, 8, [0, 1, 0, 1, 0, 1, 0, 1]),
        (1, 4, [0, 0, 0, 0]),
        (7, 1, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_padding_reflects_in_time(frames, multiple, wanted):
    assert padded_frames(frames, multiple).tolist() == wanted


def test_padding_is_to_the_next_multiple_and_keeps_the_clip():
    for frames in range(1, 98):
        for multiple in (1, 2, 4, 8, 16):
            numbers = padded_frames(frames, multiple)
            assert numbers[:frames].tolist() == list(range(frames))
            assert len(numbers) % multiple == 0 and len(numbers) - frames < multiple
            assert numbers.min() >= 0 and numbers.max() < frames
            assert (numbers.diff().abs() <= 1).all()  # time never jumps


def test_clip_count():
    assert clip_count(32, 16) == 2 and clip_count(5, 5) == 1 and clip_count(3, 1) == 3


@pytest.mark.parametrize(("batch", "frames"), [(10, 4), (4, 10), (6, 0), (0, 4), (6, -1)])
def test_batches_that_are_no_whole_number_of_clips(batch, frames):
    with pytest.raises(ValueError) as error:
        clip_count(batch, frames)
    legal = [n for n in range(1, batch + 1) if batch % n == 0]
    assert f"a batch of {batch} frames is no whole number of clips of {frames} frames" in str(error.value)
    assert f"one of {legal}, or to 0" in str(error.value)


def test_unfold_checks_the_batch(video):
    with pytest.raises(ValueError, match="batch of 8 frames .* clips of 3"):
        unfold(fold(video), 3)


def test_all_256_levels_survive():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(2, 16, 16, 3)
    clip = from_uint8(levels)
    assert clip.shape == (3, 2, 16, 16) and clip.min() == -1 and clip.max() == 1
    assert torch.equal(to_uint8(clip), levels)


def test_values_out_of_range_are_clipped():
    clip = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]).reshape(1, 1, 1, 5)
    assert to_uint8(clip).flatten().tolist() == [0, 0, 128, 255, 255]


def test_host_images_round_trip(video):
    images = video_to_images(video)
    assert images.shape == (8, 5, 6, 3) and images.min() >= 0 and images.max() <= 1
    assert torch.allclose(images[5], (video[1, :, 1].permute(1, 2, 0) + 1) / 2)
    assert torch.allclose(images_to_video(images[:4]), video[:1], atol=1e-6)
    assert video_to_images(video * 5).max() == 1


def test_frames_are_taken_from_every_clip_in_any_order():
    rows = torch.arange(12).reshape(12, 1)
    numbers = torch.tensor([3, 0, 0])
    assert take_frames(rows, numbers, clips=3).flatten().tolist() == [3, 0, 0, 7, 4, 4, 11, 8, 8]
    assert take_frames(rows.T, numbers, clips=3, dim=-1).flatten().tolist() == [3, 0, 0, 7, 4, 4, 11, 8, 8]
    assert take_frames(rows, torch.tensor([11, 2])).flatten().tolist() == [11, 2]


def test_rows_that_are_no_whole_clips_are_refused():
    with pytest.raises(ValueError, match="no whole number of clips"):
        take_frames(torch.zeros(7, 2), torch.tensor([0]), clips=2)
