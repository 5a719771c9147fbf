"""Texts of every program: read right, or refused with the file and the line; and every verb reads them alike."""

import argparse
import codecs
import json
import os

import pytest

from lumiere_core.commands.sample import _jobs
from lumiere_core.commands.train import read_config
from lumiere_core.evaluation.runs import load_graph, read_prompts
from lumiere_core.evaluation.study.analysis import COLUMNS, load_key, read_answers
from lumiere_core.evaluation.ucf101 import prompts_of_classes, reference
from lumiere_core.text_files import lines_of, read_json, read_text, shown
from lumiere_core.training.pictures import caption_of
from lumiere_core.training.recipes import load_recipe

TEXT = "a ship – ein Schiff – 舟\r\nsecond\n"
ENCODINGS = {
    "utf-8": TEXT.encode(),
    "utf-8 with a mark": codecs.BOM_UTF8 + TEXT.encode(),
    "utf-16 little": codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
    "utf-16 big": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "utf-32": codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
    "utf-16 without a mark": TEXT.encode("utf-16-le"),
    "utf-16 big without a mark": TEXT.encode("utf-16-be"),
}
# What str.splitlines takes for ends of lines, and no editor does.
WITHIN = "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e"


def in_utf16(path, text):
    path.write_bytes(codecs.BOM_UTF16_LE + text.encode("utf-16-le"))
    return path


def in_cp1252(path, text="first\nein Schläfer\n"):
    path.write_bytes(text.encode("cp1252"))
    return path


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes(ENCODINGS[encoding])
    assert read_text(path) == TEXT
    assert lines_of(read_text(path)) == ["a ship – ein Schiff – 舟", "second"]


def test_what_is_no_text_is_refused_with_its_line(tmp_path):
    path = tmp_path / "a.txt"
    for data, message in (
        (
            "one\r\ntwo\rein Schläfer".encode("cp1252"),
            r"a.txt line 3 is not UTF-8 text \(byte 0xe4\); save the file as",
        ),
        (codecs.BOM_UTF16_LE + b"a\0\n\0\x00\xd8", "a.txt line 2 is not UTF-16-LE text"),
        (b"x" * 5000 + b"\n\0", "a.txt line 2 holds a zero byte"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            read_text(path)
    path.write_bytes(b"x" * 101)
    with pytest.raises(ValueError, match="a.txt is larger than 100 bytes"):
        read_text(path, 100)


@pytest.mark.parametrize("letter", WITHIN)
def test_lines_end_at_line_ends_only(letter):
    assert lines_of(f"a{letter}b\r\nc\rd\n\n") == [f"a{letter}b", "c", "d", ""]
    assert lines_of("") == [] and lines_of("a") == ["a"]


def test_json(tmp_path):
    path = in_utf16(tmp_path / "a.json", '{"ä": 1}')
    assert read_json(path) == {"ä": 1}
    for text, message in (
        ('{"a": 1,\n "b": }', r"a.json line 2 is no JSON that can be read \(Expecting value"),
        ('{"a": ' + "1" * 10_000 + "}", "a.json is no JSON that can be read .*digit"),
        ("[" * 100_000, "a.json is no JSON that can be read"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_json(path)


def test_names_that_are_no_text_are_spelt_out():
    assert shown(b"gr\xf6\xdfe.mp4".decode("utf-8", "surrogateescape")) == r"gr\xf6\xdfe.mp4"
    assert shown("half \ud800 a letter") == r"half \ud800 a letter" and shown("größe 舟") == "größe 舟"


# Every input of the verbs.


def of_sample(path):
    return _jobs(argparse.Namespace(prompt=None, prompts=path, output=path.parent))[0]


@pytest.mark.parametrize("read", [of_sample, read_prompts])
def test_prompts(tmp_path, read):
    path = in_utf16(tmp_path / "prompts.txt", f"a ship\r\n\r\none{WITHIN[0]}two{WITHIN[2]}three\r\n")
    assert read(path) == ["a ship", "one\u2028two\u0085three"]
    with pytest.raises(ValueError, match="prompts.txt line 2 is not UTF-8 text"):
        read(in_cp1252(path))


def of_config(path):
    return read_config(path, "image", "world-stills")


@pytest.mark.parametrize("read", [of_config, load_key])
def test_configurations_and_keys(tmp_path, read):
    text = '{"unet": {}}' if read is of_config else '{"labels": ["a", "b"], "pairs": {}, "files": {}}'
    path = in_utf16(tmp_path / "a.json", text)
    assert read(path) == json.loads(text)
    with pytest.raises(ValueError, match="a.json line 2 is not UTF-8 text"):
        read(in_cp1252(path))
    path.write_text('{"unet":\n oops}')
    with pytest.raises(ValueError, match="a.json line 2 is no JSON"):
        read(path)


def test_recipes(tmp_path):
    from lumiere_core.training.recipes import FOLDER

    path = in_utf16(tmp_path / "own.json", (FOLDER / "mini.json").read_text("utf-8"))
    assert load_recipe(str(path)).stages.keys() == load_recipe("mini").stages.keys()
    with pytest.raises(ValueError, match="is no recipe .*own.json line 2 is not UTF-8 text"):
        load_recipe(str(in_cp1252(path)))


def test_workflows(tmp_path):
    graph = {"1": {"class_type": "A", "inputs": {"text": "舟"}}}
    assert load_graph(in_utf16(tmp_path / "a.json", json.dumps(graph, ensure_ascii=False))) == graph
    with pytest.raises(ValueError, match="a.json line 2 is not UTF-8 text"):
        load_graph(in_cp1252(tmp_path / "a.json"))


def test_captions_of_pictures(tmp_path):
    in_utf16(tmp_path / "a.txt", f"eine  Brücke{WITHIN[0]} at dawn")
    assert caption_of(tmp_path / "a.png") == "eine Brücke at dawn"
    in_cp1252(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="a.txt line 2 is not UTF-8 text"):
        caption_of(tmp_path / "a.png")


def test_tables_of_the_evaluations(tmp_path):
    classes = in_utf16(tmp_path / "classes.csv", "Archery,a person shoots an arrow\r\n")
    assert prompts_of_classes(classes) == {"Archery": "a person shoots an arrow"}
    classes.write_text("Archery," + "x" * 140_000)
    with pytest.raises(ValueError, match="classes.csv is no table of class and prompt .*field larger"):
        prompts_of_classes(classes)
    video = tmp_path / "v_Archery_g01_c01.avi"
    assert reference([video], in_utf16(tmp_path / "list.txt", "Archery/v_Archery_g01_c01.avi 1\r\n")) == [video]
    row = ["r", "1", "p", "1"] + ["x"] * (len(COLUMNS) - 4)
    answers = in_utf16(tmp_path / "answers.csv", f"{','.join(COLUMNS)}\r\n{','.join(row)}\r\n")
    assert len(read_answers([answers])) == 1
    with pytest.raises(ValueError, match="answers.csv line 2 is not UTF-8 text"):
        read_answers([in_cp1252(answers)])
    answers.write_text(f"{','.join(COLUMNS)}\n{','.join(row[:-1])},{'x' * 140_000}\n")
    with pytest.raises(ValueError, match="answers.csv line 2 is no row of answers .*field larger"):
        read_answers([answers])


def test_words_of_a_command_line_in_the_c_locale(tmp_path, weights):
    """They come as bytes that are no ASCII, in names of surrogates; a clip says them, and so does the page of a study."""
    from lumiere_core.clips.media import read_video
    from lumiere_core.commands.cli import main
    from lumiere_core.evaluation.study.page import write_page

    words = "舟 🚤".encode().decode("ascii", "surrogateescape")
    clip = tmp_path / "a" / "clip.mp4"
    sample = ["--weights", str(weights), "--frames", "2", "--steps", "1", "--scale", "2", "--output", str(clip)]
    assert main(["sample", "--prompt", words, "--negative", words, *sample]) == 0
    assert "prompt: 舟 🚤" in read_video(clip)[2]["comment"]
    name = os.fsdecode("Grüße".encode())
    for folder in ("a", "b"):
        for stem in (name, "z"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{stem}.mp4").write_bytes(clip.read_bytes())
    key = write_page(tmp_path / "a", tmp_path / "b", tmp_path / "page", labels=(words, "x"), side=16)
    assert key["labels"] == ["舟 🚤", "x"] and "Grüße" in {pair["name"] for pair in key["pairs"].values()}
