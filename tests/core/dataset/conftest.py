"""Small videos of every kind that people have, written with PyAV."""

import fractions

import av
import numpy as np
import pytest


def ball(number, height=48, width=64, shift=0):
    """A bright ball that moves right on a dark ground; (h, w, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    inside = (y - height / 2) ** 2 + (x - 8 - number - shift) ** 2 < 36
    frame = np.full((height, width, 3), (20, 30, 60), dtype=np.uint8)
    frame[inside] = (230, 200, 60)
    return frame


def write(path, frames, fps=16, codec="libx264", pix_fmt="yuv420p", times=None, rotate=0, form="rgb24", crf="4"):
    """Write frames as a video; `times` are presentation times in 1/1000 s."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if codec.startswith("lib"):
            stream.options = {"crf": crf}
        if times is not None:
            stream.codec_context.time_base = fractions.Fraction(1, 1000)
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format=form)
            if times is not None:
                frame.pts, frame.time_base = times[index], fractions.Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def make_video():
    return write


@pytest.fixture
def balls():
    return lambda count, **options: [ball(i, **options) for i in range(count)]
