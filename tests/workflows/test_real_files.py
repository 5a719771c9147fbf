"""The conditional workflows with files in place of the drawn clip, as users have them, on the real server.

PNG with transparency, JPEG that is to be turned by its EXIF tag, mp4 with sound at 30000/1001 frames a second, mp4 with
a variable frame rate, vertical mp4. What is known is read back before any encoding, from PNG frames.
"""

import json
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.host

API = Path(__file__).resolve().parents[2] / "workflows" / "api"
FRAMES = 6
HOLE = (slice(4, 12), slice(5, 11))  # rows and columns that are transparent in the PNG


def picture(seed, h=16, w=16):
    """Smooth colours: what a lossy codec leaves recognisable."""
    y, x = np.mgrid[0:h, 0:w]
    waves = [np.sin((x * a + y * b) / 9 + seed) for a, b in ((1, 0.3), (0.2, 1), (0.7, -0.6))]
    return ((np.stack(waves, -1) + 1) * 127).astype(np.uint8)


def write_video(path, size, times, rate, sound=False):
    """H.264 frames at the given times in seconds; with sound, a quiet AAC track."""
    width, height = size
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p"
        stream.options = {"crf": "4"}
        stream.codec_context.time_base = Fraction(1, 90_000)
        if sound:
            audio = file.add_stream("aac", rate=16_000)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number / 5, height, width))
            frame.pts, frame.time_base = round(time * 90_000), Fraction(1, 90_000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if sound:
            samples = np.zeros((1, round(16_000 * times[-1])), dtype=np.float32)
            part = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            part.sample_rate, part.pts = 16_000, 0
            file.mux(audio.encode(part))
            file.mux(audio.encode())


def write_transparent(path, width, hole):
    """A PNG 16 pixels high, transparent in the hole."""
    image = Image.fromarray(picture(0, 16, width)).convert("RGBA")
    alpha = np.full((16, width), 255, dtype=np.uint8)
    alpha[hole] = 0
    image.putalpha(Image.fromarray(alpha))
    image.save(path)


@pytest.fixture(scope="module")
def files(server, write_tiny):
    """The server with very small weights and the files in its input folder."""
    write_tiny(server.base / "models" / "lumiere" / "tiny.safetensors", conv_cond=True)
    folder = server.base / "input"
    folder.mkdir(exist_ok=True)
    write_transparent(folder / "alpha.png", 16, HOLE)
    # Its middle 16 columns have the same hole.
    write_transparent(folder / "wide_alpha.png", 24, (HOLE[0], slice(9, 15)))
    turned = Image.fromarray(picture(2, 16, 24))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise: 16 wide, 24 high
    turned.save(folder / "turned.jpg", exif=exif, quality=95)
    ntsc = Fraction(30_000, 1001)
    write_video(folder / "sound.mp4", (16, 16), [float(i / ntsc) for i in range(15)], ntsc, True)
    write_video(folder / "vertical.mp4", (16, 28), [i / 16 for i in range(FRAMES)], 16)
    uneven = [0, 0.03, 0.1, 0.12, 0.3, 0.34, 0.36, 0.5]
    write_video(folder / "uneven.mp4", (24, 16), uneven, 16)
    write_video(folder / "large.mp4", (1920, 1080), [i / 30 for i in range(FRAMES)], 30)
    return server


def workflow(name):
    """A twin with very small weights and a picture of every frame before it is made a video."""
    (path,) = (p for p in API.glob("*.json") if p.stem.partition(" - ")[2].lower() == name.replace("_", " "))
    graph = json.loads(path.read_text())
    for node in graph.values():
        inputs = node["inputs"]
        for key, value in {"checkpoint": "tiny.safetensors", "steps": 2}.items():
            if key in inputs:
                inputs[key] = value
        if node["class_type"] == "EmptyLumiereLatentVideo":
            inputs |= {"width": 16, "height": 16, "length": FRAMES}
        if node["class_type"] == "LumiereConditionBuilder":
            inputs |= {"width": 16, "height": 16, "length": FRAMES, "grow": 0, "feather": 0}
    pasted = [key for key, n in graph.items() if n["class_type"] == "ImageCompositeMasked"]
    (shown,) = pasted or ["5"]
    graph["99"] = {"class_type": "SaveImage", "inputs": {"images": [shown, 0], "filename_prefix": f"real/{name}"}}
    return graph


def load_image(file):
    return {"class_type": "LoadImage", "inputs": {"image": file}}


def load_video(graph, file, number="11"):
    """Put a file in place of the drawn clip: its frames are output 0 of node `number`."""
    graph[number] = {"class_type": "GetVideoComponents", "inputs": {"video": ["20", 0]}}
    graph["20"] = {"class_type": "LoadVideo", "inputs": {"file": file}}


def frames_of(server, graph, rate=16):
    """Run it; return its frames (t, h, w, 3). The saved video has as many, at `rate` a second."""
    outputs = server.run(graph)
    pictures = [Image.open(BytesIO(server.view(file))) for file in outputs["99"]["images"]]
    (file,) = outputs["9"]["images"]
    with av.open(BytesIO(server.view(file))) as container:
        stream = container.streams.video[0]
        count = sum(1 for _ in container.decode(stream))
        assert float(stream.average_rate) == pytest.approx(rate, abs=0.01)
    shown = np.stack([np.asarray(p.convert("RGB")) for p in pictures])
    assert count == len(shown)
    return shown


def decoded(server, file):
    """The frames of a video or a picture as the host's own nodes give them (t, h, w, 3)."""
    graph = {
        "11": load_image(file),
        "99": {"class_type": "SaveImage", "inputs": {"images": ["11", 0], "filename_prefix": f"real/{file}"}},
    }
    if file.endswith("mp4"):
        load_video(graph, file)
    names = server.run(graph)["99"]["images"]
    return np.stack([np.asarray(Image.open(BytesIO(server.view(name))).convert("RGB")) for name in names])


def test_image_to_video_from_a_transparent_png(files):
    graph = workflow("image_to_video")
    graph["11"] = load_image("alpha.png")
    shown = frames_of(files, graph)
    assert len(shown) == FRAMES and (shown[0] == picture(0)).all()
    assert (shown[1:] != shown[:1]).any()


def test_image_to_video_from_a_turned_jpeg(files):
    """The picture stands upright, and is cropped, not stretched, to the square frame."""
    graph = workflow("image_to_video")
    graph["11"] = load_image("turned.jpg")
    shown = frames_of(files, graph)
    (upright,) = decoded(files, "turned.jpg")
    assert upright.shape == (24, 16, 3)
    assert abs(upright.astype(int) - np.rot90(picture(2, 16, 24), -1)).max() < 32
    assert (shown[0] == upright[4:20]).all()


def test_first_and_last_frame(files):
    graph = workflow("first_and_last_frame")
    graph["11"], graph["14"] = load_image("alpha.png"), load_image("turned.jpg")
    shown = frames_of(files, graph)
    assert (shown[0] == picture(0)).all() and (shown[-1] != shown[0]).any()


@pytest.mark.parametrize(
    ("file", "mask", "taken"),
    [
        ("sound.mp4", "alpha.png", [0, 1, 3, 5, 7, 9]),
        ("uneven.mp4", "wide_alpha.png", [0, 0, 1, 2, 3, 4]),  # 15.9 a second, on average
    ],
)
def test_inpainting_a_video(files, file, mask, taken):
    """Frames of another rate are taken at 16 a second; the mask is a picture's transparency."""
    graph = workflow("inpainting")
    load_video(graph, file)
    graph["21"] = load_image(mask)
    graph["12"]["inputs"] |= {"task.region": ["21", 1], "task.source_fps": ["11", 2]}
    shown, source = frames_of(files, graph), decoded(files, file)
    left = (source.shape[2] - 16) // 2  # cropped, not stretched, to the square frame
    source = source[taken][:, :, left : left + 16]
    known = np.ones((16, 16), dtype=bool)
    known[HOLE] = False
    assert (shown[:, known] == source[:, known]).all()
    assert (shown[:, ~known] != source[:, ~known]).any()


def test_outpainting_a_vertical_video(files):
    graph = workflow("outpainting")
    load_video(graph, "vertical.mp4")
    graph["12"]["inputs"] |= {"height": 32, "task.left": 0, "task.right": 0, "task.top": 4}
    graph["15"]["inputs"]["height"] = 32
    shown, source = frames_of(files, graph), decoded(files, "vertical.mp4")
    assert shown.shape == (FRAMES, 32, 16, 3)
    assert (shown[:, 4:] == source).all()


def test_cinemagraph_of_a_transparent_png(files):
    graph = workflow("cinemagraph")
    graph["11"] = load_image("alpha.png")
    shown = frames_of(files, graph)
    known = np.ones((16, 16), dtype=bool)
    known[HOLE] = False
    assert (shown[:, known] == picture(0)[known]).all()
    assert (shown[1:, ~known] != picture(0)[~known]).any()


@pytest.mark.parametrize("file", ["sound.mp4", "uneven.mp4", "large.mp4"])
def test_video_to_video_of_a_file_keeps_its_speed(files, file):
    """As the template's note says: frames into its resize, the file's rate into Create Video."""
    graph = workflow("video_to_video")
    load_video(graph, file)
    graph["13"]["inputs"] |= {"image": ["11", 0], "width": 16, "height": 16}
    graph["7"]["inputs"]["fps"] = ["11", 2]
    with av.open(str(files.base / "input" / file)) as source:
        rate, frames = source.streams.video[0].average_rate, source.streams.video[0].frames
    shown = frames_of(files, graph, rate=float(rate))
    assert shown.shape == (frames, 16, 16, 3)


def test_video_to_video_works_at_the_model_s_size_as_it_is_shipped(files):
    """Only the source is exchanged; the size is the template's own."""
    graph = workflow("video_to_video")
    load_video(graph, "large.mp4")
    assert frames_of(files, graph).shape[1:] == (64, 64, 3)


def test_a_picture_without_transparency_has_no_region(files):
    """Load Image gives an empty mask; the message says what to do."""
    graph = workflow("cinemagraph")
    graph["11"] = load_image("turned.jpg")
    with pytest.raises(Exception, match="mask is 64x64 pixels and the picture 16x24.*mask editor"):
        files.run(graph)
