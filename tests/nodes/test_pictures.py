"""`make pictures`: what is drawn of a clip; the templates themselves run in tests/workflows."""

import shutil

import numpy as np
import pytest

from lumiere_core.clips import media


class Host:
    """Answers with one clip for every graph."""

    def __init__(self, base, clip):
        self.base, self.clip, self.graphs = base, clip, []

    def run(self, graph, on_event=None):
        self.graphs.append(graph)
        prefix = next(n["inputs"]["filename_prefix"] for n in graph.values() if n["class_type"] == "SaveVideo")
        target = self.base / "output" / f"{prefix}.mp4"
        target.parent.mkdir(parents=True)
        shutil.copyfile(self.clip, target)
        folder, name = target.relative_to(self.base / "output").parts
        return {"9": {"images": [{"filename": name, "subfolder": folder, "type": "output"}]}}

    def module(self, name):
        return media


@pytest.fixture
def pictures(script, monkeypatch, tmp_path):
    module = script("pictures")
    monkeypatch.setattr(module, "BASE", tmp_path / "base")
    monkeypatch.setattr(module, "PACK_ROOT", tmp_path / "pack")
    return module


def test_a_template_s_picture_plays_its_clip(pictures, tmp_path):
    from PIL import Image

    levels = np.linspace(20, 230, 80).astype(np.uint8)
    clip = tmp_path / "clip.mp4"
    media.write_mp4(clip, np.broadcast_to(levels[:, None, None, None], (80, 512, 512, 3)).copy())
    pictures.draw(Host(tmp_path / "base", clip), "text_to_video_hd")
    (path,) = (tmp_path / "pack" / "workflows").glob("*.jpg")
    assert path.stem.endswith("Text to Video HD")
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("WEBP", (pictures.SIDE,) * 2)
        assert 10 < picture.n_frames <= pictures.FRAMES  # the encoder joins frames that look alike
        first, played = picture.convert("RGB").getpixel((10, 10))[0], 0
        for number in range(picture.n_frames):
            picture.seek(number)
            picture.load()
            played += picture.info["duration"]
        last = picture.convert("RGB").getpixel((10, 10))[0]
    assert [first, last] == pytest.approx([20, 230], abs=8)  # from the first frame to the last
    assert played == pytest.approx(5000, abs=100)  # milliseconds
    assert not any((tmp_path / "base" / "output").iterdir())
    with Image.open(tmp_path / "pack" / "workflows" / "pictures" / "demo.png") as picture:
        assert picture.size == (1038, 128)


def test_a_training_template_shows_its_samples(pictures, tmp_path):
    from PIL import Image

    clip = tmp_path / "clip.mp4"
    media.write_mp4(clip, np.zeros((2, 16, 16, 3), np.uint8))
    folder = tmp_path / "base" / "output" / "lumiere" / pictures.RUN / "samples"
    for step in pictures.SAMPLES:
        media.save_image(Image.new("RGB", (20, 10), (step, 0, 0)), folder / f"step_{step:06d}.png")
    pictures.draw(Host(tmp_path / "base", clip), pictures.TRAINED)
    name = f"workflows/{pictures.short_names()[pictures.TRAINED]}.jpg"
    drawn = {p.relative_to(tmp_path / "pack").as_posix() for p in (tmp_path / "pack").rglob("*.*")}
    assert drawn == {name, "js/docs/overfit_0050.jpg", "js/docs/overfit_0100.jpg", "js/docs/overfit_0200.jpg"}
    with Image.open(tmp_path / "pack" / name) as picture:
        assert picture.getpixel((5, 5))[0] == pytest.approx(200, abs=8)


def test_an_unknown_template_is_named(pictures, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pictures.py", "text_to_vidoe"])
    assert pictures.main() == 1
    assert "no such template: text_to_vidoe; there are text_to_video, text_to_video_hd" in capsys.readouterr().err
