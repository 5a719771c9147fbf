"""Numbers on the command line are within bounds, or the flag is named before anything starts."""

import pytest

from lumiere_core.commands import cli

SAMPLE = ["sample", "--prompt", "x", "--output", "y.mp4"]
PREPARE = ["prepare", "x", "--checkpoint", "y", "--output", "z"]


@pytest.mark.parametrize(
    "words",
    [
        *([*SAMPLE, f"--{name}", "0"] for name in ("frames", "steps", "height", "fps", "scale")),
        *([*SAMPLE, f"--{name}", "1" + "0" * 18] for name in ("frames", "steps", "width", "scale", "cfg")),
        *([*SAMPLE, f"--{name}", value] for name in ("cfg", "fps", "alpha", "threshold") for value in ("nan", "inf")),
        [*SAMPLE, "--threshold", "99.5"],
        [*SAMPLE, "--seed", "9" * 30],
        *(["world", "--output", "y.mp4", f"--{name}", "0"] for name in ("frames", "fps", "scale", "count")),
        *(["world", "--output", "y.mp4", f"--{name}", "9" * 5000] for name in ("frames", "scale", "count", "seed")),
        *([*PREPARE, f"--{name}", "nan"] for name in ("fps", "shards")),
        *([*PREPARE, f"--{name}", "0"] for name in ("frames", "size")),
        [*PREPARE, "--conditions", "-1"],
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
