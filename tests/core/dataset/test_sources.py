"""Which videos are found, and with which captions."""

import json

import pytest

from lumiere_core.dataset.sources import find_sources


@pytest.fixture
def folder(tmp_path):
    for name in ("b.mp4", "a.MOV", "sub/ünï code.webm", "notes.txt", "picture.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "b.txt").write_text("\ufeffa boat\n  at sea ", "utf-8")
    (tmp_path / "sub/ünï code.txt").write_text("ein Schiff – 舟", "utf-8")
    return tmp_path


def test_a_folder_with_captions_beside_the_videos(folder):
    sources = find_sources(folder)
    found = {s.path.name: (s.caption, s.problem) for s in sources}
    assert found["b.mp4"] == ("a boat at sea", "")
    assert found["ünï code.webm"] == ("ein Schiff – 舟", "")
    assert found["a.MOV"][1].startswith("no caption")
    assert found["notes.txt"][1] == "a caption without a video of the same name"
    assert found["picture.png"][1] == "not a known kind of video (.png), and it has no caption"
    assert len(found) == 5  # nothing is dropped in silence


def test_one_caption_for_those_without(folder):
    found = {s.path.name: (s.caption, s.problem) for s in find_sources(folder, "something")}
    assert found["a.MOV"] == ("something", "") and found["b.mp4"] == ("a boat at sea", "")
    videos = [s for s in find_sources(folder, "") if s.path.suffix not in (".png", ".txt")]
    assert len(videos) == 3 and {s.problem for s in videos} == {""}  # an empty one is a choice


def test_jsonl(folder):
    rows = [
        json.dumps({"video_path": "b.mp4", "caption": "one"}),
        json.dumps({"path": str(folder / "a.MOV"), "text": "two"}),
        "",
        "{broken",
        json.dumps({"caption": "no path"}),
        json.dumps({"path": "gone.mp4", "caption": "x"}),
        json.dumps(["a list"]),
    ]
    (folder / "list.jsonl").write_text("\n".join(rows))
    sources = find_sources(folder / "list.jsonl")
    assert [(s.path.name, s.caption) for s in sources[:2]] == [("b.mp4", "one"), ("a.MOV", "two")]
    problems = [s.problem for s in sources[2:]]
    assert problems[0].startswith("no JSON") and problems[1].startswith("no path: wanted one of")
    assert problems[2:] == ["no such file", "no JSON object"]
    assert sources[2].path.name == "list.jsonl:4"


def test_csv(folder):
    (folder / "list.csv").write_text('path,text\nb.mp4,"a boat, at sea"\n,missing\n', "utf-8")
    first, second = find_sources(folder / "list.csv")
    assert (first.caption, first.problem) == ("a boat, at sea", "")
    assert second.problem.startswith("no path")


def test_nothing_to_find(tmp_path):
    with pytest.raises(ValueError, match="holds no video; wanted is a folder of video files"):
        find_sources(tmp_path)
    with pytest.raises(ValueError, match="no folder of videos and no .jsonl or .csv list"):
        find_sources(tmp_path / "nothing")


def test_a_caption_in_another_encoding_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "a.txt").write_bytes("ein Schläfer".encode("latin-1"))
    assert find_sources(tmp_path, "x")[0].problem.startswith("a.txt line 1 is not UTF-8 text")
