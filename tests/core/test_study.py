"""The page of the user study, without a browser, and what is made of its answers."""

import csv
import json
import re

import numpy as np
import pytest

from lumiere_core.clips.media import read_video, write_mp4
from lumiere_core.commands import cli
from lumiere_core.evaluation.study.analysis import COLUMNS, analyse, load_key, read_answers, wilson
from lumiere_core.evaluation.study.page import square, trimmed, write_page


def clip(level, count, height=24, width=40):
    frames = np.full((count, height, width, 3), level, dtype=np.uint8)
    for number, frame in enumerate(frames):
        frame[:, number : number + 4] = 255
    return frames


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(folder of the page, key) of three pairs of different sizes, lengths and rates."""
    root = tmp_path_factory.mktemp("study")
    for number in range(3):
        write_mp4(root / "a" / f"{number}.mp4", clip(60 + number, 12), 8.0)
        write_mp4(root / "b" / f"{number}.mp4", clip(160 + number, 16, 32, 32), 16.0)
        for side in "ab":
            (root / side / f"{number}.txt").write_text(f"prompt {number} </script>")
    key = write_page(root / "a", root / "b", root / "page", labels=("ours", "theirs"), side=32)
    return root / "page", key


def test_the_page_is_whole_and_tells_raters_nothing(study):
    folder, key = study
    text = (folder / "index.html").read_text()
    assert "ours" not in text and "theirs" not in text and '"STUDY"' not in text
    assert "http" not in text.replace("http-equiv", "")  # nothing is fetched
    assert text.count("</script>") == 1  # a prompt cannot end it
    named = set(key["files"])
    assert {path.name for path in folder.iterdir()} == named | {"index.html"} and len(named) == 10
    assert json.loads((folder.parent / "page.key.json").read_text()) == key
    assert sorted(pair["kind"] for pair in key["pairs"].values()) == ["compared"] * 3 + ["noise", "still"]


def test_clips_of_a_pair_are_equally_long_and_square(study):
    folder, key = study
    for name, role in key["files"].items():
        frames, rate, _ = read_video(folder / name)
        assert frames.shape[1:] == (32, 32, 3)
        if role in "ab":
            assert len(frames) / rate == 1  # the shorter one's 16 frames at 16
    first, second = trimmed((clip(0, 12), 8.0), (clip(0, 16), 16.0))
    assert (len(first[0]), len(second[0])) == (8, 16) and first[0][0, 0, 2].max() == 255  # two cut at each end
    assert square(clip(9, 1)[0], 48).shape == (48, 48, 3)


def answers(key, rater, prefers=0.7, careless=False, seed=0):
    """Rows of one simulated rater; `prefers` is the chance of the first side."""
    random = np.random.default_rng(seed)
    files = {}
    rows = []
    ids = list(key["pairs"])
    names = list(key["files"])
    for number, pair in enumerate(ids):
        files[pair] = names[2 * number : 2 * number + 2]
        for question in "12":
            kind = key["pairs"][pair]["kind"]
            right = random.random() < prefers if kind == "compared" else not careless
            chosen = files[pair][not right]
            rows.append([rater, number + 1, pair, question, chosen, files[pair][right], "1.0"])
    return rows


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return path


def test_preferences_are_counted_and_careless_raters_are_not(study, tmp_path):
    folder, key = study
    files = [write(tmp_path / f"{n}.csv", answers(key, f"r{n}", 0.7, seed=n)) for n in range(40)]
    files += [write(tmp_path / f"bad{n}.csv", answers(key, f"bad{n}", 0.0, careless=True)) for n in range(5)]
    rows = read_answers([*files, files[0]])  # one file twice
    result = analyse(rows, key)
    assert len(result.raters) == 40 and sorted(result.excluded) == [f"bad{n}" for n in range(5)]
    for ours, theirs in result.wins.values():
        low, high = wilson(ours, ours + theirs)
        assert ours + theirs == 120 and low < 0.7 < high
    assert len(result.prompts) == 3 and "ours over theirs" in result.text()
    assert len(analyse(rows, key, tolerated=3).raters) == 45


def test_wilson_s_interval():
    assert wilson(0, 0) == (0, 1)
    low, high = wilson(81, 263)
    assert (low, high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))  # Newcombe 1998, case (a)
    assert wilson(0, 20)[0] == 0 and wilson(0, 20)[1] > 0.1


def test_bad_answers_are_refused(study, tmp_path):
    _, key = study
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="x.csv has the columns"):
        read_answers([tmp_path / "x.csv"])
    rows = read_answers([write(tmp_path / "y.csv", answers(key, "r"))])
    with pytest.raises(ValueError, match="not in the key"):
        analyse([row | {"pair": "other"} for row in rows], key)
    careless = read_answers([write(tmp_path / "z.csv", answers(key, "r", careless=True))])
    with pytest.raises(ValueError, match="every rater failed"):
        analyse(careless, key)


@pytest.mark.parametrize(
    ("separator", "encoding", "head"),
    [(";", "utf-8-sig", ""), (";", "utf-8-sig", "sep=;\r\n"), ("\t", "utf-16", ""), (",", "utf-8", "")],
)
def test_answers_that_a_spreadsheet_saved_are_the_same_answers(study, tmp_path, separator, encoding, head):
    _, key = study
    rows = answers(key, "rater, the first")
    plain = read_answers([write(tmp_path / "plain.csv", rows)])
    order = [4, 0, 1, 2, 3, 5, 6]
    path = tmp_path / "saved.csv"
    with path.open("w", newline="", encoding=encoding) as file:
        file.write(head)
        writer = csv.writer(file, delimiter=separator)
        writer.writerow([*(COLUMNS[i] for i in order), "remark"])
        writer.writerows([*([row[i] for i in order] + [""] for row in rows), [""] * 8])
    assert read_answers([path]) == [{name: row[name] for name in COLUMNS} for row in plain]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("question", "3", "r.csv line 2 is no row of answers"),
        ("chosen", "", "r.csv line 2 is no row of answers"),
        ("chosen", "elsewhere.mp4", "1 entries of the column chosen are not in the key, such as elsewhere.mp4"),
    ],
)
def test_rows_that_say_nothing_are_named(study, tmp_path, column, value, message):
    _, key = study
    rows = answers(key, "r")
    rows[0][COLUMNS.index(column)] = value
    with pytest.raises(ValueError, match=re.escape(message)):
        analyse(read_answers([write(tmp_path / "r.csv", rows)]), key)


def test_another_file_is_no_key(tmp_path):
    (tmp_path / "page.key.json").write_text("[1]")
    with pytest.raises(ValueError, match="is no key of a page"):
        load_key(tmp_path / "page.key.json")


def test_the_verb(study, tmp_path, capsys):
    folder, key = study
    root = folder.parent
    page = tmp_path / "page"
    words = ["evaluate", "study", str(root / "a"), str(root / "b"), "--output", str(page), "--side", "32"]
    assert cli.main(words) == 0 and "3 pairs" in capsys.readouterr().out
    file = write(tmp_path / "r.csv", answers(json.loads((tmp_path / "page.key.json").read_text()), "r"))
    read = ["evaluate", "study", "--analyse", str(file), "--output", str(tmp_path / "results")]
    assert cli.main([*read, "--key", str(tmp_path / "page.key.json")]) == 0
    assert "1 raters counted" in capsys.readouterr().out and (tmp_path / "results" / "study.png").is_file()
    assert cli.main(read) == 1 and "--key" in capsys.readouterr().err
    assert cli.main(["evaluate", "study", str(root / "a")]) == 1
    (tmp_path / "empty").mkdir()
    write_mp4(tmp_path / "empty" / "other.mp4", clip(3, 4), 8.0)
    assert cli.main(["evaluate", "study", str(root / "a"), str(tmp_path / "empty"), "--output", str(page)]) == 1
    assert "0 clips of the same name" in capsys.readouterr().err


def test_a_damaged_row_is_named(study, tmp_path):
    _, key = study
    rows = answers(key, "r")
    for damage in (rows[0][:5], [*rows[0], "more"], [*rows[0][:3], "7", *rows[0][4:]], ["x" * 200_000, *rows[0][1:]]):
        with pytest.raises(ValueError, match=r"y.csv line \d+ is no row of answers"):
            read_answers([write(tmp_path / "y.csv", [damage, *rows])])
    (whole,) = read_answers([write(tmp_path / "y.csv", rows[:1])])
    for column in ("chosen", "pair"):
        with pytest.raises(ValueError, match=f"column {column} are not in the key"):
            analyse([whole | {column: "../x"}], key)
    wrong = next(name for name, role in key["files"].items() if role == "right")
    with pytest.raises(ValueError, match="which does not show it"):
        analyse([whole | {"chosen": wrong}], key)


@pytest.mark.parametrize(
    "change",
    [[], {"labels": ["one"]}, {"pairs": []}, {"pairs": {"p": {"kind": "other", "prompt": "x"}}}, {"files": {"f": 3}}],
)
def test_a_key_of_another_shape_is_refused(study, tmp_path, change):
    _, key = study
    (tmp_path / "key.json").write_text(json.dumps(key | change if change else change))
    with pytest.raises(ValueError, match="key.json is no key of a page"):
        load_key(tmp_path / "key.json")


def test_a_clip_that_cannot_be_read_is_named(study, tmp_path, capsys):
    root = study[0].parent
    for side in "ab":
        (tmp_path / side).mkdir()
        for number in range(2):
            (tmp_path / side / f"{number}.mp4").write_bytes((root / side / f"{number}.mp4").read_bytes())
    (tmp_path / "b" / "1.mp4").write_bytes(b"nothing")
    words = ["evaluate", "study", str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(tmp_path / "page")]
    assert cli.main([*words, "--side", "32"]) == 1
    assert "error: no video that can be opened" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "page" / "index.html").exists()
