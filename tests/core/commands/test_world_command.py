"""`world`: a clip and a sheet from the command line."""

import pytest

from lumiere_core.commands.cli import main
from lumiere_core.commands.world import parse_size


def test_draws_a_clip(tmp_path, capsys):
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    arguments = ["world", "--caption", "a red ball bouncing on grass", "--output", str(path)]
    assert main([*arguments, "--frames", "5", "--size", "16", "--scale", "2"]) == 0
    assert "a red ball bouncing on grass (shape)" in capsys.readouterr().out
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 5 and (frames[0].width, frames[0].height) == (32, 32)


def test_draws_a_sheet(tmp_path):
    path = tmp_path / "sheet.png"
    assert main(["world", "--sheet", str(path), "--count", "2", "--size", "16"]) == 0
    assert path.stat().st_size > 0


def test_says_what_is_missing(capsys):
    assert main(["world"]) == 1
    assert "--output" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "expected"), [("64", (64, 64)), ("96x64", (96, 64))])
def test_reads_a_size(text, expected):
    assert parse_size(text) == expected


def test_refuses_a_size_that_is_none():
    with pytest.raises(ValueError, match="WIDTHxHEIGHT"):
        parse_size("big")
