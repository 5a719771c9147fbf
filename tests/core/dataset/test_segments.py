"""Shots, clip lengths and sizes."""

import numpy as np
import pytest

from lumiere_core.dataset.segments import Leftover, best_bucket, buckets, fit, split


def pieces(frames, length, size=(32, 32)):
    found = list(split(frames, length, [size]))
    return [(p.start, len(p.frames)) if not isinstance(p, Leftover) else (p.start, -p.length) for p in found]


def test_clips_follow_each_other_and_the_rest_is_reported(balls):
    assert pieces(balls(40), 16) == [(0, 16), (16, 16), (32, -8)]
    assert pieces(balls(16), 16) == [(0, 16)]
    assert pieces([], 16) == []


def test_no_clip_crosses_a_cut(balls):
    """Two scenes of 20 frames: the second has other colours."""
    second = [255 - frame for frame in balls(20)]
    assert pieces(balls(20) + second, 16) == [(0, 16), (16, -4), (20, 16), (36, -4)]


def test_fast_motion_and_a_fade_are_no_cuts():
    noise = np.random.default_rng(0)
    shaking = [noise.integers(0, 255, (32, 32, 3)).astype(np.uint8) for _ in range(16)]
    assert pieces(shaking, 16) == [(0, 16)]
    fade = [np.full((32, 32, 3), 255 - i * 16, np.uint8) for i in range(16)]
    assert pieces(fade, 16) == [(0, 16)]


def test_sizes_keep_the_area_and_the_multiple():
    sizes = buckets(512, 64)
    assert (512, 512) in sizes and (576, 448) in sizes and (448, 576) in sizes
    assert all(h % 64 == w % 64 == 0 for h, w in sizes)
    assert all(0.8 < h * w / 512**2 < 1.25 for h, w in sizes)
    assert all(max(h, w) / min(h, w) <= 2 for h, w in sizes)
    assert buckets(64, 16) == sorted({(h, w) for h, w in buckets(64, 16)})
    with pytest.raises(ValueError, match="the size is 32; at least 64"):
        buckets(32, 64)


@pytest.mark.parametrize(
    ("video", "wanted"),
    [
        ((1080, 1920), (384, 640)),
        ((1920, 1080), (640, 384)),
        ((480, 640), (448, 576)),
        ((300, 300), (512, 512)),
        ((100, 900), (384, 704)),
    ],
)
def test_the_nearest_aspect_ratio(video, wanted):
    size = best_bucket(*video, buckets(512, 64))
    ratios = [abs(np.log(w / h) - np.log(video[1] / video[0])) for h, w in buckets(512, 64)]
    assert abs(np.log(size[1] / size[0]) - np.log(video[1] / video[0])) == min(ratios)
    assert (size[1] > size[0]) == (wanted[1] > wanted[0])


def test_fit_covers_and_crops_the_middle():
    frame = np.zeros((40, 80, 3), np.uint8)
    frame[:, 38:42] = 255  # a line in the middle
    small = fit(frame, (20, 20))
    assert small.shape == (20, 20, 3)
    assert small[:, 9:11].min() > 100 and small[:, :5].max() == 0
    assert np.array_equal(fit(frame, (40, 80)), frame)
