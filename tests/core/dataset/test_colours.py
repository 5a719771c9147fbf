"""Colours and shapes of videos come out as people see them: values, not only notes."""

import fractions

import av
import numpy as np
import pytest

from lumiere_core.dataset.colour import HLG, PQ
from lumiere_core.dataset.decode import Report, frames_at

# Luminance of red and blue in the matrices that files name (ITU-R BT.601, BT.709 and BT.2020), and their numbers there.
MATRICES = {"BT.601": (0.299, 0.114, 6), "BT.709": (0.2126, 0.0722, 1), "BT.2020": (0.2627, 0.0593, 9)}


def plane(value, bits, chroma=False):
    """A coded value in the limited range; chroma lies around the middle."""
    levels = 128 + 224 * value if chroma else 16 + 219 * value
    return round(levels * 2 ** (bits - 8))


def coded(red, green, blue, matrix, bits):
    """Y, Cb and Cr of a colour whose channels lie in [0, 1]."""
    kr, kb, _ = MATRICES[matrix]
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))
    return plane(y, bits), plane(cb, bits, True), plane(cr, bits, True)


def write_flat(path, colour, matrix, bits=8, transfer=None, codec="ffv1"):
    """Write two frames of one colour, without loss, with what the file says about its colours."""
    form, size = ("yuv444p", np.uint8) if bits == 8 else (f"yuv444p{bits}le", np.uint16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=16)
        stream.width, stream.height, stream.pix_fmt = 32, 16, form
        context = stream.codec_context
        context.colorspace, context.color_range = MATRICES[matrix][2], 1
        if transfer is not None:
            context.color_trc, context.color_primaries = transfer, 9
        for index in range(2):
            frame = av.VideoFrame(32, 16, form)
            for target, value in zip(frame.planes, coded(*colour, matrix, bits), strict=True):
                width = target.line_size // np.dtype(size).itemsize
                target.update(np.full((16, width), value, size).tobytes())
            frame.colorspace, frame.color_range = MATRICES[matrix][2], 1
            if transfer is not None:
                frame.color_trc = transfer
            frame.pts, frame.time_base = index, fractions.Fraction(1, 16)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def first_frame(path):
    report = Report()
    return next(iter(frames_at(path, 16.0, report))), report


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("colour", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])
def test_colours_of_each_matrix(tmp_path, matrix, colour):
    """Read with the wrong matrix, a pure red is off by up to 50 levels."""
    frame, _ = first_frame(write_flat(tmp_path / "a.mkv", colour, matrix))
    assert np.abs(frame.reshape(-1, 3).astype(int) - np.array(colour) * 255).max() <= 3


def pq(nits):
    """The coded value of a brightness (SMPTE ST 2084)."""
    power = (nits / 10_000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


@pytest.mark.parametrize(("transfer", "white"), [(PQ, pq(203)), (HLG, 0.75)])
def test_reference_white_of_hdr_is_white(tmp_path, transfer, white):
    """203 nits (BT.2408) is 255; black is black; half the light is darker; what is brighter is cut, not wrapped."""
    levels = {}
    for name, value in (("black", 0.0), ("below", white * 0.8), ("white", white), ("above", min(1.0, white * 1.3))):
        path = write_flat(tmp_path / f"{name}.mkv", (value,) * 3, "BT.2020", 10, transfer)
        frame, report = first_frame(path)
        assert "tone-mapped, 203 nits are white" in report.notes[0]
        assert np.ptp(frame.astype(int)) <= 1  # grey stays grey
        levels[name] = int(frame.mean().round())
    assert levels["white"] >= 252 and levels["above"] == 255 and levels["black"] <= 1
    assert 60 < levels["below"] < 220


def test_half_the_light_of_pq_is_half_the_light(tmp_path):
    """101.5 nits shine half as bright as 203 on a display of gamma 2.4."""
    frame, _ = first_frame(write_flat(tmp_path / "a.mkv", (pq(101.5),) * 3, "BT.2020", 10, PQ))
    assert frame.mean() == pytest.approx(255 * 0.5 ** (1 / 2.4), abs=2)


@pytest.mark.parametrize(("ratio", "width", "height"), [((2, 1), 48, 96), ((1, 2), 96, 48), ((16, 11), 66, 96)])
def test_a_circle_stays_round(tmp_path, ratio, width, height):
    """A circle in pixels that are not square, as DVDs have them."""
    path, shape = tmp_path / "a.mp4", fractions.Fraction(*ratio)
    y, x = np.mgrid[:height, :width]
    radius = 0.35 * min(width * shape, height)
    picture = np.full((height, width, 3), 20, np.uint8)
    picture[((x - width / 2) * float(shape)) ** 2 + (y - height / 2) ** 2 < float(radius) ** 2] = 235
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.sample_aspect_ratio = shape
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    frame, report = first_frame(path)
    assert f"pixels of {ratio[0]}:{ratio[1]} made square" in report.notes
    bright = frame[..., 0] > 128
    across, down = bright.any(0).sum(), bright.any(1).sum()
    assert across == pytest.approx(down, abs=3) and across > 20
    assert (report.height, report.width) == frame.shape[:2]


def test_vp9_with_alpha_lies_over_black(tmp_path):
    """What the alpha stream hides is black, whatever colour lies below; what it shows stays."""
    path = tmp_path / "a.webm"
    picture = np.full((64, 64, 4), 255, np.uint8)
    picture[:, :32, 3] = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=16)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuva420p"
        stream.options = {"crf": "4", "b": "0", "cpu-used": "8"}
        stream.metadata["alpha_mode"] = "1"
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format="yuva420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frame, report = first_frame(path)
    assert frame[:, :28].max() <= 8 and frame[:, 36:].min() >= 247
    assert "transparent, laid over black" in report.notes
