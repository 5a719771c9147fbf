"""Clips as files and pictures."""

import errno
import os

import av
import numpy as np
import pytest
import torch

from lumiere_core.clips.media import contact_sheet, enlarge, evenly_spaced, read_video, save_image, write_mp4, xt_slice


@pytest.fixture
def frames():
    """(10, 16, 24, 3): a bright square that moves right, and frame i is darker than frame i + 1."""
    clip = np.zeros((10, 16, 24, 3), dtype=np.uint8)
    for i in range(10):
        clip[i] = 8 * i
        clip[i, 4:12, 2 * i : 2 * i + 4] = (250, 120, 20)
    return clip


def test_mp4_round_trip(tmp_path, frames):
    path = tmp_path / "folder" / "clip.mp4"
    write_mp4(path, torch.from_numpy(frames), fps=16, metadata={"comment": "made by é; seed: 3"}, crf=0)
    got, fps, metadata = read_video(path)
    assert got.shape == frames.shape and got.dtype == np.uint8
    assert fps == 16
    assert metadata["comment"] == "made by é; seed: 3"
    assert np.abs(got.astype(int) - frames).mean() < 6  # half the colour resolution is lost
    brightness = got[:, 0, 0].astype(int).sum(axis=1)
    assert (np.diff(brightness) > 0).all()  # the order of frames
    assert os.listdir(path.parent) == ["clip.mp4"]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.frames == 10
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert float(container.duration / av.time_base) == pytest.approx(10 / 16, abs=0.01)


@pytest.mark.parametrize("fps", [8.0, 12.5, 23.976, 30.0])
def test_frame_rates(tmp_path, frames, fps):
    write_mp4(tmp_path / "x.mp4", frames, fps)
    assert float(read_video(tmp_path / "x.mp4")[1]) == pytest.approx(fps, rel=1e-4)


@pytest.mark.parametrize("count", [1, 2])
def test_short_clips(tmp_path, frames, count):
    write_mp4(tmp_path / "x.mp4", frames[:count])
    assert len(read_video(tmp_path / "x.mp4")[0]) == count


def test_scale_repeats_pixels(tmp_path, frames):
    write_mp4(tmp_path / "x.mp4", frames, scale=2)
    assert read_video(tmp_path / "x.mp4")[0].shape == (10, 32, 48, 3)
    assert np.array_equal(enlarge(frames, 2)[:, 1::2, ::2], frames)
    assert enlarge(frames, 1) is frames


@pytest.mark.parametrize(("height", "width"), [(15, 24), (16, 23)])
def test_odd_sizes_are_refused_and_leave_no_file(tmp_path, height, width):
    with pytest.raises(ValueError, match=f"{width}x{height} pixels; H.264 needs even sizes.*even scale"):
        write_mp4(tmp_path / "x.mp4", np.zeros((2, height, width, 3), dtype=np.uint8))
    assert os.listdir(tmp_path) == []
    write_mp4(tmp_path / "x.mp4", np.zeros((2, height, width, 3), dtype=np.uint8), scale=2)


def full_disk(*_args):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_no_partial_file(tmp_path, frames, monkeypatch):
    write_mp4(tmp_path / "old.mp4", frames[:2])
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_mp4(tmp_path / "old.mp4", frames)
    with pytest.raises(OSError, match="No space left"):
        save_image(xt_slice(frames), tmp_path / "x.png")
    assert os.listdir(tmp_path) == ["old.mp4"]
    assert len(read_video(tmp_path / "old.mp4")[0]) == 2


def test_contact_sheet(frames):
    sheet = contact_sheet(frames, columns=4, gap=2)
    assert sheet.size == (4 * 26 - 2, 3 * 18 - 2)  # 10 frames: 3 rows
    pixels = np.asarray(sheet)
    for index in (0, 3, 4, 9):  # reading order
        row, column = divmod(index, 4)
        cell = pixels[row * 18 : row * 18 + 16, column * 26 : column * 26 + 24]
        assert np.array_equal(cell, frames[index])
    assert contact_sheet(frames[:2], columns=8, scale=3, gap=0).size == (2 * 72, 48)


def test_xt_slice(frames):
    picture = xt_slice(torch.from_numpy(frames), scale=4)
    assert picture.size == (24 * 4, 10 * 4)
    assert np.array_equal(np.asarray(picture)[::4, ::4], frames[:, 8])  # the middle row
    assert np.array_equal(np.asarray(xt_slice(frames, row=0, scale=1)), frames[:, 0])


@pytest.mark.parametrize(
    ("count", "wanted", "numbers"),
    [(80, 5, [0, 20, 40, 59, 79]), (80, 2, [0, 79]), (80, 1, [0]), (3, 8, [0, 1, 2]), (1, 8, [0])],
)
def test_evenly_spaced(count, wanted, numbers):
    assert evenly_spaced(count, wanted) == numbers


def test_evenly_spaced_holds_both_ends_and_ascends():
    for count in range(2, 40):
        for wanted in range(2, 20):
            numbers = evenly_spaced(count, wanted)
            assert numbers[0] == 0 and numbers[-1] == count - 1
            assert all(a < b for a, b in zip(numbers, numbers[1:], strict=False))
            assert len(numbers) == min(count, wanted)
