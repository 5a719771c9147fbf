"""Which videos are found, and with which captions."""

import json
import os

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


def test_one_bad_row_is_one_row_of_the_table(tmp_path):
    """Numbers of 10,000 digits, names too long for any disk, halves of letters: the rows around them are read."""
    (tmp_path / "a.mp4").write_bytes(b"x")
    good = json.dumps({"path": "a.mp4", "caption": "one\u2028two"}, ensure_ascii=False)
    bad = [
        '{"path": "a.mp4", "caption": "x", "n": ' + "1" * 10_000 + "}",
        "[" * 100_000,
        json.dumps({"path": "x" * 5000, "caption": "x"}),
        json.dumps({"path": "a\0.mp4", "caption": "x"}),
        json.dumps({"path": "\ud800.mp4", "caption": "x"}),
        json.dumps({"path": "a.mp4", "caption": "half \ud800 a letter"}),
        json.dumps({"path": ["a.mp4"], "caption": "x"}),
        "null",
    ]
    lines = [line for row in bad for line in (row, good)]
    (tmp_path / "list.jsonl").write_text("\n".join(lines), "utf-8")
    sources = find_sources(tmp_path / "list.jsonl")
    assert len(sources) == 2 * len(bad)
    assert {s.caption for s in sources[1::2]} == {"one two"} and not any(s.problem for s in sources[1::2])
    for source, reason in zip(
        sources[::2],
        ["no JSON", "no JSON", "cannot be one", "cannot be one|no such file", "cannot be one|no such file"]
        + ["half a character", "no path", "no JSON object"],
        strict=True,
    ):
        assert any(part in source.problem for part in reason.split("|")), (source.problem, reason)
        assert source.problem.encode()  # can be printed and written


def test_a_field_larger_than_csv_reads_is_one_row(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    rows = ["path,caption", "a.mp4,first", f"a.mp4,{'x' * 140_000}", "a.mp4,last\x0bword"]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n", "utf-8")
    first, large, last = find_sources(tmp_path / "list.csv")
    assert (first.caption, last.caption) == ("first", "last word") and not first.problem and not last.problem
    assert "no CSV row (field larger than field limit" in large.problem and large.path.name == "list.csv:3"


@pytest.mark.parametrize(
    ("suffix", "text"), [(".jsonl", '{"path": "a.mp4", "caption": "舟"}\r\n'), (".csv", "path,text\r\na.mp4,舟\r\n")]
)
def test_lists_in_utf16_and_cp1252(tmp_path, suffix, text):
    (tmp_path / "a.mp4").write_bytes(b"x")
    path = tmp_path / f"list{suffix}"
    path.write_bytes(text.encode("utf-16"))
    assert [s.caption for s in find_sources(path)] == ["舟"]
    path.write_bytes(text.replace("舟", "Schläfer").encode("cp1252"))
    with pytest.raises(ValueError, match=f"list{suffix} line .* is not UTF-8 text"):
        find_sources(path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no names that are no text")
def test_a_name_that_is_no_utf8_is_prepared_and_shown(tmp_path, make_video, balls, run):
    name = os.fsdecode(b"gr\xf6\xdfe")
    try:
        make_video(tmp_path / "videos" / "a.mp4", balls(16, height=32, width=32)).rename(
            tmp_path / "videos" / f"{name}.mp4"
        )
    except OSError:
        pytest.skip("this disk takes no such name")
    (tmp_path / "videos" / f"{name}.txt").write_text("a ball")
    summary = run(tmp_path / "videos", tmp_path / "cache")
    assert len(summary.cache.clips()) == 2
    assert any(r"gr\xf6\xdfe.mp4" in line for line in summary.lines())
    assert "\n".join(summary.lines()).encode()
