"""`sample`: from prompts to files."""

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumiere_core.clips.media import read_video
from lumiere_core.commands.cli import main
from lumiere_core.nets.checkpoint import load_file, save_file

PACKAGE = Path(__file__).resolve().parents[3] / "lumiere_core"
QUICK = ["--frames", "4", "--steps", "2", "--cfg", "1"]


@pytest.fixture
def sample(weights, tmp_path):
    """A function that runs the verb in this process and returns its exit status."""

    def run(*arguments):
        return main(["sample", "--weights", str(weights), *QUICK, *map(str, arguments)])

    return run


def test_one_prompt(sample, weights, tmp_path, capsys):
    path = tmp_path / "new" / "clip.mp4"
    assert sample("--prompt", "a red ball", "--output", path, "--seed", 7, "--sheet") == 0
    frames, fps, metadata = read_video(path)
    assert frames.shape == (4, 64, 64, 3) and fps == 16  # 16 pixels, the trained size, times 4
    comment = metadata["comment"]
    assert "generated" in comment and "prompt: a red ball" in comment and "seed: 7" in comment
    for file in weights.iterdir():
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert f"{file.name} sha256 {digest[:16]}" in comment
    with Image.open(path.with_suffix(".png")) as sheet:
        assert sheet.size == (4 * (32 + 2) - 2, 32)
    assert f"{path} (4 frames" in capsys.readouterr().out
    assert sorted(os.listdir(path.parent)) == ["clip.mp4", "clip.png"]


def test_a_file_of_prompts(sample, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red ball\n\n  a blue star ☆ \n", encoding="utf-8")
    assert sample("--prompts", prompts, "--output", tmp_path / "clips") == 0
    assert sorted(os.listdir(tmp_path / "clips")) == ["000.mp4", "001.mp4"]
    first, second = (read_video(tmp_path / "clips" / f"00{i}.mp4") for i in (0, 1))
    assert "prompt: a blue star ☆;" in second[2]["comment"]
    assert not np.array_equal(first[0], second[0])
    assert sample("--prompt", "a red ball", "--output", tmp_path / "alone.mp4") == 0
    assert np.array_equal(read_video(tmp_path / "alone.mp4")[0], first[0])


def test_sizes_and_rates_can_be_chosen(sample, tmp_path):
    path = tmp_path / "x.mp4"
    size = ["--height", 18, "--width", 14, "--scale", 1, "--fps", 8]
    assert sample("--prompt", "x", "--output", path, *size) == 0
    frames, fps, _ = read_video(path)
    assert frames.shape == (4, 18, 14, 3) and fps == 8


def test_what_lies_outside_the_training_is_said(sample, tmp_path, caplog):
    """The tiny model: 8 frames of 16x16 pixels, 256 bytes of text."""
    long = "ä" * 20 + " ball" * 70
    larger = ["--frames", 9, "--width", 18, "--negative", "x" * 255 + "ä"]
    assert sample("--prompt", long, "--output", tmp_path / "x.mp4", *larger) == 0
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"the prompt has 390 bytes; the text encoder reads the first 256: {long[:40]!r} …",
        f"the prompt has 257 bytes; the text encoder reads the first 255: {'x' * 40!r} …",
        "a clip of 9 frames; these weights were trained on 8. Longer clips may lose their motion.",
        "a clip of 18x16 pixels; these weights were trained on 16x16. Other sizes may look worse.",
    ]


def test_nothing_is_said_inside_the_training(sample, tmp_path, caplog):
    assert sample("--prompt", "a" * 256, "--output", tmp_path / "x.mp4", "--frames", 8) == 0
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


PROMPT = ["--prompt", "x", "--output", "{folder}/x.mp4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "x", "--output", "{folder}/x.gif"], "x.gif; with --prompt it must end in .mp4"),
        (["--prompts", "{folder}/none.txt", "--output", "{folder}"], "no prompts file at .*none.txt"),
        (["--prompts", "{folder}/empty.txt", "--output", "{folder}"], "empty.txt holds no prompt"),
        ([*PROMPT, "--sampler", "euler"], "sampler 'euler'.*ddim"),
        ([*PROMPT, "--scheduler", "simple"], "scheduler 'simple'.*karras"),
        ([*PROMPT, "--height", "15", "--scale", "1"], "16x15 pixels.*even"),
        ([*PROMPT, "--height", "8192"], "16x32768|64x32768 pixels; H.264 has at most 16,384"),
        ([*PROMPT, "--device", "abacus"], "device.*abacus"),
        ([*PROMPT, "--weights", "{folder}/none.safetensors"], "no weights at .*none.safetensors"),
        ([*PROMPT, "--style", "{folder}/none.safetensors"], "no style .*none.safetensors"),
        ([*PROMPT, "--weights", "{folder}/empty.txt"], "empty.txt .*not a complete safetensors"),
        ([*PROMPT, "--weights", "{folder}/other.safetensors"], "other.safetensors is no Lumiere checkpoint"),
        ([*PROMPT, "--weights", "{folder}/weights/text.safetensors"], "text.safetensors holds no image"),
    ],
    ids=lambda value: " ".join(value[2:])[-40:] if isinstance(value, list) else "",
)
def test_bad_arguments_exit_1_with_one_line_before_any_work(sample, tmp_path, capsys, monkeypatch, arguments, message):
    (tmp_path / "empty.txt").write_text("\n")
    save_file({}, tmp_path / "other.safetensors", {"format": "pt"})
    monkeypatch.setattr("lumiere_core.diffusion.noise.torch.randn", no_work)
    assert sample(*(argument.format(folder=tmp_path) for argument in arguments)) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert re.search(message, errors)
    assert not (tmp_path / "x.mp4").exists()


def no_work(*_args, **_more):
    raise AssertionError("sampling began although the arguments are wrong")


def test_broken_weights_are_reported(sample, weights, tmp_path, capsys):
    state, metadata = load_file(weights / "image.safetensors")
    state["image.out.2.bias"][:] = float("nan")
    save_file(state, weights / "image.safetensors", metadata)
    assert sample(*(argument.format(folder=tmp_path) for argument in PROMPT)) == 1
    assert "hold NaN or infinite numbers in 1 tensors: out.2.bias" in capsys.readouterr().err
    assert not (tmp_path / "x.mp4").exists()


@pytest.mark.parametrize("isolated", [[], ["-I"]], ids=["plain", "isolated"])
def test_it_runs_by_path_from_any_folder(spawn, weights, tmp_path, isolated):
    """As portable Windows builds start Python: isolated, from wherever."""
    arguments = ["--weights", "weights", "--prompt", "snow", "--output", "x.mp4", *QUICK]
    process = spawn("sample", *arguments, command=[*isolated, PACKAGE], cwd=tmp_path)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert output.startswith("x.mp4 (4 frames")
    assert len(read_video(tmp_path / "x.mp4")[0]) == 4
