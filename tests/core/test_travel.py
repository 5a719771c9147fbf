"""Prompts over time: how lines are read and how much each counts at each frame."""

import pytest
import torch

from lumiere_core.clips.travel import mix_rows, parse_travel, travel_weights


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0: a red ball\n40: a blue ball", [(0, "a red ball"), (40, "a blue ball")]),
        ("0: a red ball / 40: a blue ball", [(0, "a red ball"), (40, "a blue ball")]),
        ("2.5s: snow\n 0 : rain / sun", [(0, "rain / sun"), (40, "snow")]),
        ("-1: end\n\n0.5: (word:1.3), 16:9", [(0.5, "(word:1.3), 16:9"), (79, "end")]),
        ("0:", [(0, "")]),
        ("100: later", [(100, "later")]),
        ("1s: a\n2 s:b", [(16, "a"), (32, "b")]),
        ("40: b\r0: a\r\n50: c", [(0, "a"), (40, "b"), (50, "c")]),
        ("0：赤いボール / 40： 青いボール", [(0, "赤いボール"), (40, "青いボール")]),
    ],
)
def test_lines(text, found):
    assert parse_travel(text, 80, 16.0) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no prompt"),
        ("a red ball", "'a red ball' has no time"),
        ("0: a\nand more", "'and more' has no time"),
        ("1s: a\n16: b", "two prompts for frame 16"),
        ("-81: a", "-81 lies before the clip of 80"),
        ("-1s: a", "-1s lies before"),
        (f"{'9' * 400}: a", "lies after any clip's end"),
        (f"{'9' * 5000}s: a", "lies after any clip's end"),
    ],
)
def test_lines_that_cannot_be_read(text, message):
    with pytest.raises(ValueError, match=message):
        parse_travel(text, 80, 16.0)


def test_weights():
    linear = travel_weights([2, 6], 9)
    assert linear[:, 1].tolist() == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    smooth = travel_weights([2, 6], 9, "smooth")
    assert smooth[:, 1].tolist() == [0, 0, 0, 0.15625, 0.5, 0.84375, 1, 1, 1]
    step = travel_weights([2, 6], 9, "step")
    assert step[:, 1].tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1]
    between = travel_weights([0, 2.5, 20], 4)
    assert torch.allclose(between[3], torch.tensor([0, 17 / 17.5, 0.5 / 17.5]))
    for shape in ("linear", "smooth", "step"):
        weights = travel_weights([0, 5, 6, 30], 20, shape)
        assert torch.allclose(weights.sum(1), torch.ones(20)) and weights.min() >= 0
    assert travel_weights([3], 4).tolist() == [[1.0]] * 4
    with pytest.raises(ValueError, match="'cubic'"):
        travel_weights([0, 1], 2, "cubic")


def test_mixing_in_half_precision():
    rows = [torch.full((1, 2, 3), value).half() for value in (1.0, 3.0)]
    mixed = mix_rows(rows, travel_weights([0, 4], 5))
    assert mixed.dtype == torch.float16 and mixed.shape == (5, 2, 3)
    assert mixed[:, 0, 0].tolist() == [1, 1.5, 2, 2.5, 3]
