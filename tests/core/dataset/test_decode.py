"""Videos of every kind: frames at the wanted rate, or a reason."""

import wave

import av
import numpy as np
import pytest

from lumiere_core.dataset.decode import Report, Unusable, frames_at


def decode(path, fps=16.0):
    report = Report()
    frames = list(frames_at(path, fps, report))
    return frames, report


def position(frame):
    """Column of the ball's middle."""
    bright = frame[..., 0].astype(int) > 120
    return np.nonzero(bright)[1].mean()


def test_the_same_rate_keeps_every_frame(make_video, balls, tmp_path):
    frames, report = decode(make_video(tmp_path / "a.mp4", balls(20)))
    assert len(frames) == report.decoded == 20 and report.notes == []
    assert report.seconds == pytest.approx(20 / 16)
    assert [round(position(f)) for f in frames] == list(range(8, 28))
    assert (report.height, report.width) == (48, 64)


@pytest.mark.parametrize(("fps", "wanted"), [(8.0, 10), (32.0, 40), (12.0, 15)])
def test_another_rate_takes_the_frame_on_screen(make_video, balls, tmp_path, fps, wanted):
    frames, report = decode(make_video(tmp_path / "a.mp4", balls(20)), fps)
    assert len(frames) == wanted
    expected = [8 + int(i / fps * 16 + 1e-4) for i in range(wanted)]
    assert [round(position(f)) for f in frames] == expected
    assert any("frames are repeated" in note for note in report.notes) == (fps > 30)


def test_variable_frame_rate_goes_by_the_times(make_video, balls, tmp_path):
    """One frame stays for half a second; the others come every 1/16 s."""
    times = [0, 62, 125, 625, 687, 750]
    path = make_video(tmp_path / "a.mkv", balls(6), times=times)
    frames, report = decode(path)
    assert [round(position(f)) - 8 for f in frames] == [0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 4, 5]
    assert "variable frame rate" in report.notes and report.decoded == 6


def test_ten_bits(make_video, balls, tmp_path):
    frames, report = decode(make_video(tmp_path / "a.mp4", balls(4), pix_fmt="yuv420p10le"))
    assert frames[0].dtype == np.uint8 and round(position(frames[3])) == 11
    assert report.notes == ["10 bits a channel, rounded to 8"]


def test_transparency_is_laid_over_black(make_video, balls, tmp_path):
    pictures = [np.dstack([f, np.full(f.shape[:2], 255, np.uint8)]) for f in balls(3)]
    for picture in pictures:
        picture[:10] = (255, 255, 255, 0)
    path = make_video(tmp_path / "a.mov", pictures, codec="png", pix_fmt="rgba", form="rgba")
    frames, report = decode(path)
    assert frames[0][:10].max() == 0 and frames[0][30].max() > 0
    assert report.notes == ["transparent, laid over black"]


def test_rotation_is_applied(make_video, balls, tmp_path, monkeypatch):
    """A phone's video: wide pictures with the mark "turn me"."""
    from lumiere_core.dataset import decode as module

    path = make_video(tmp_path / "a.mp4", balls(3))
    upright, _ = decode(path)

    class Turned:
        def __init__(self, frame):
            self.frame, self.rotation = frame, 90

        def __getattr__(self, name):
            return getattr(self.frame, name)

    original = module._picture
    monkeypatch.setattr(module, "_picture", lambda frame, size, report: original(Turned(frame), size, report))
    frames, report = decode(path)
    assert frames[0].shape == (64, 48, 3) and "turned by 90 degrees" in report.notes
    assert np.array_equal(frames[0], np.rot90(upright[0]))


def test_non_ascii_name(make_video, balls, tmp_path):
    assert len(decode(make_video(tmp_path / "größe 舟.mp4", balls(5)))[0]) == 5


def test_reasons(tmp_path, make_video, balls):
    empty, text = tmp_path / "empty.mp4", tmp_path / "text.mp4"
    empty.write_bytes(b"")
    text.write_text("this is no video at all")
    sound = tmp_path / "sound.wav"
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * 800)
    for path, reason in (
        (empty, "the file is empty"),
        (text, "no video that can be opened"),
        (sound, "no video stream, only sound"),
    ):
        with pytest.raises(Unusable, match=reason):
            decode(path)


def test_a_video_without_frames(tmp_path):
    path = tmp_path / "none.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    with pytest.raises(Unusable):
        decode(path)


def test_a_clock_that_leaps_fills_no_disk(make_video, balls, tmp_path):
    """Eleven days between two frames are not a million pictures."""
    frames, report = decode(
        make_video(tmp_path / "a.mkv", balls(6), times=[0, 62, 125, 10**9, 10**9 + 62, 10**9 + 125])
    )
    assert [round(position(f)) - 8 for f in frames] == [0, 1, 2, 3, 4, 5]
    assert "a gap of 1000000 s between two frames, closed" in report.notes


@pytest.mark.parametrize("height", [1, 2])
def test_frames_that_cannot_be_meant(make_video, tmp_path, height):
    path = make_video(tmp_path / "a.mkv", [np.zeros((height, 1000, 3), np.uint8)] * 3, codec="ffv1", pix_fmt="bgr0")
    with pytest.raises(Unusable, match=f"frames of 1000x{height} pixels, larger or narrower"):
        decode(path)


def test_words_in_another_encoding_are_no_damage(tmp_path):
    """AVI files of older programs name things in the encoding of their machine."""
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "XXXXX"
        stream = container.add_stream("mpeg4", rate=16)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame(32, 16, "yuv420p")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"XXXXX", "Grüße".encode("latin-1")))
    assert len(decode(path)[0]) == 4


def test_a_cut_off_file_gives_what_came_before(make_video, balls, tmp_path):
    path = make_video(tmp_path / "a.mkv", balls(40))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    frames, report = decode(path)
    assert 5 < len(frames) < 40 and report.decoded < 40
