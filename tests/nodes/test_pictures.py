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


@pytest.mark.parametrize(("name", "size"), [("text_to_video", (518, 518)), ("style_alpha_sweep", (514, 514))])
def test_a_template_s_picture_shows_its_clip(pictures, tmp_path, name, size):
    from PIL import Image

    levels = np.linspace(20, 230, 80).astype(np.uint8)
    clip = tmp_path / "clip.mp4"
    media.write_mp4(clip, np.broadcast_to(levels[:, None, None, None], (80, 256, 256, 3)).copy())
    host = Host(tmp_path / "base", clip)
    pictures.draw(host, name)
    with Image.open(tmp_path / "pack" / "workflows" / f"{name}.jpg") as picture:
        assert picture.size == size
        corners = [picture.getpixel((10, 10))[0], picture.getpixel((size[0] - 10, size[1] - 10))[0]]
    assert corners == pytest.approx([20, 230], abs=8)  # from the first frame to the last
    assert not any((tmp_path / "base" / "output").iterdir())
    source = tmp_path / "base" / "input" / pictures.SOURCE
    if name == "text_to_video":  # at its own size, for super_resolution
        assert media.read_video(source)[0].shape == (80, 64, 64, 3)
        with Image.open(tmp_path / "pack" / "workflows" / "pictures" / "demo.png") as picture:
            assert picture.size == (1038, 258)
    else:
        assert not source.exists()


def test_a_training_template_shows_its_samples(pictures, tmp_path):
    from PIL import Image

    clip = tmp_path / "clip.mp4"
    media.write_mp4(clip, np.zeros((2, 16, 16, 3), np.uint8))
    folder = tmp_path / "base" / "output" / "lumiere" / pictures.TRAINED / "samples"
    for step in pictures.SAMPLES:
        media.save_image(Image.new("RGB", (20, 10), (step, 0, 0)), folder / f"step_{step:06d}.png")
    pictures.draw(Host(tmp_path / "base", clip), pictures.TRAINED)
    drawn = {p.relative_to(tmp_path / "pack").as_posix() for p in (tmp_path / "pack").rglob("*.*")}
    assert drawn == {
        "workflows/overfit_one_clip.jpg",
        "workflows/pictures/overfit_0050.png",
        "workflows/pictures/overfit_0200.png",
        "js/docs/overfit_0050.jpg",
        "js/docs/overfit_0100.jpg",
        "js/docs/overfit_0200.jpg",
    }
    with Image.open(tmp_path / "pack" / "workflows" / "overfit_one_clip.jpg") as picture:
        assert picture.getpixel((5, 5))[0] == pytest.approx(200, abs=8)


def test_an_unknown_template_is_named(pictures, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pictures.py", "text_to_vidoe"])
    assert pictures.main() == 1
    assert "no such template: text_to_vidoe; there are text_to_video, cinemagraph" in capsys.readouterr().err
