"""Numbers on the command line are within bounds, or the flag is named before anything starts."""

import pytest

from lumiere_core.commands import cli


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "mini", "--threads", "-1"],
        ["evaluate", "mini", "--frames", "0"],
        ["evaluate", "mini", "--cfg", "nan"],
        ["evaluate", "mini", "--all", "--minutes", "-5"],
        ["evaluate", "prompts", "--workflow", "x", "--output", "y", "--limit", "-1"],
        ["evaluate", "prompts", "--workflow", "x", "--output", "y", "--fps", "inf"],
        ["evaluate", "prompts", "--workflow", "x", "--output", "y", "--seed", "9" * 30],
        ["evaluate", "prompts", "--workflow", "x", "--output", "y", "--seed", "9" * 9000],
        ["evaluate", "ucf101", "--workflow", "x", "--videos", "y", "--i3d", "z", "--output", "o", "--clips", "0"],
        [
            "evaluate",
            "ucf101",
            "--workflow",
            "x",
            "--videos",
            "y",
            "--i3d",
            "z",
            "--output",
            "o",
            "--resize",
            "squeeze",
        ],
        ["evaluate", "study", "a", "b", "--output", "y", "--wait", "1e99"],
        ["evaluate", "study", "a", "b", "--output", "y", "--side", "1000000000"],
        ["evaluate", "enlarging", "a.mp4", "--frames", "1"],
        ["average", "a", "b", "--shares", "nan", "nan", "--output", "y"],
        ["double", "--output", "y", "--scenes", "1000000000000"],
        ["double", "--output", "y", "--components", "-1"],
        ["train", "text", "--output", "y", "--threads", "0"],
    ],
)
def test_a_number_that_cannot_be_is_refused_by_its_flag(words, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    flag = next(word for word in reversed(words) if word.startswith("--"))
    flag = "--shares" if "--shares" in words else flag
    assert end.value.code == 2 and f"argument {flag}: " in capsys.readouterr().err
