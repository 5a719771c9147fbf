"""Small videos of every kind that people have, written with PyAV."""

import fractions

import av
import numpy as np
import pytest
import torch

from lumiere_core.dataset.index import Settings
from lumiere_core.dataset.prepare import prepare

SETTINGS = Settings(fps=16.0, frames=8, size=32)


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


class StandIn:
    """Stands for a checkpoint with a VAE of 8 x 8 pixels a latent; counts its calls."""

    def __init__(self, name="one"):
        self.calls = 0
        self.backbone = {"sha256": {"a": name}, "ratio": 8, "multiple": 16, "unet": {}, "schedule": {}}

    def encode(self, frames):
        self.calls += 1
        x = frames.float().permute(3, 0, 1, 2) / 127.5 - 1
        small = torch.nn.functional.avg_pool2d(x, 8)
        return torch.cat([small * 2 + 1, small[:1] * 0], dim=0)

    def decode(self, latents):
        x = ((latents[:3] - 1) / 2).repeat_interleave(8, -1).repeat_interleave(8, -2)
        return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0)

    def embed(self, caption, height, width):
        return {"context": torch.full((3, 4), float(len(caption))), "y": torch.tensor([height, width])}


@pytest.fixture
def folder(make_video, balls, tmp_path):
    videos = tmp_path / "videos"
    for name, count, height in (("a", 20, 32), ("b", 16, 64), ("short", 5, 32)):
        make_video(videos / f"{name}.mp4", balls(count, height=height, width=32))
        (videos / f"{name}.txt").write_text(f"clip {name}")
    (videos / "broken.mp4").write_bytes(b"nothing" * 100)
    (videos / "broken.txt").write_text("broken")
    make_video(videos / "silent.mp4", balls(16, shift=9))
    return videos


@pytest.fixture
def Encoders():
    return StandIn


@pytest.fixture
def run():
    """A function (folder of videos, cache, encoders, options of `prepare`): prepare clips of 8 frames, 32 x 32."""

    def call(folder, cache, encoders=None, **options):
        return prepare(folder, cache, encoders or StandIn(), SETTINGS, progress=False, **options)

    return call
