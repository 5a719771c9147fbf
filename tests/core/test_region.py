"""Moving regions: what a text covers at each frame, and which texts are refused."""

import json

import pytest
import torch

from lumiere_core.clips.region import masks, parse


def text(*shapes):
    return json.dumps({"shapes": shapes})


def key(frame=0, x=0.5, y=0.5, w=0.5, h=0.5):
    return {"frame": frame, "x": x, "y": y, "w": w, "h": h}


def test_a_box_covers_its_pixels():
    (mask,) = masks(parse(text({"kind": "box", "keys": [key()]})), 1, 8, 16)
    assert mask.sum() == 4 * 8
    assert mask[2:6, 4:12].all()


def test_an_ellipse_has_its_area_and_is_symmetric():
    (mask,) = masks(parse(text({"kind": "ellipse", "keys": [key(w=0.8, h=0.6)]})), 1, 200, 200)
    assert mask.mean().item() == pytest.approx(torch.pi * 0.4 * 0.3, rel=0.01)
    assert torch.equal(mask, mask.flip(0)) and torch.equal(mask, mask.flip(1))


def test_a_lasso_is_its_outline_by_the_even_odd_rule():
    triangle = {"kind": "lasso", "points": [[0, 0], [1, 0], [0, 1]], "keys": [key(w=1, h=1)]}
    (mask,) = masks(parse(text(triangle)), 1, 64, 64)
    assert mask.mean().item() == pytest.approx(0.5, abs=0.01)
    assert mask[5, 5] == 1 and mask[60, 60] == 0
    square = {"kind": "lasso", "points": [[0, 0], [1, 0], [1, 1], [0, 1]], "keys": [key()]}
    box = {"kind": "box", "keys": [key()]}
    assert torch.equal(masks(parse(text(square)), 1, 32, 32), masks(parse(text(box)), 1, 32, 32))


def test_between_keys_it_moves_evenly_and_outside_it_stays():
    shape = {"kind": "box", "keys": [key(12, x=0.75, w=0.25), key(4, x=0.25, w=0.25)]}  # in any order
    clip = masks(parse(text(shape)), 20, 8, 160)
    columns = torch.arange(160, dtype=torch.float32) + 0.5
    middles = (clip.sum(1) * columns).sum(1) / clip.sum((1, 2)) / 160
    want = torch.cat([torch.full((4,), 0.25), torch.linspace(0.25, 0.75, 9), torch.full((7,), 0.75)])
    torch.testing.assert_close(middles, want, atol=1 / 160, rtol=0)


def test_several_shapes_add_up_and_no_shape_covers_nothing():
    shapes = [{"kind": "box", "keys": [key(x=x, w=0.25, h=1)]} for x in (0.25, 0.75)]
    assert masks(parse(text(*shapes)), 3, 16, 16).mean() == 0.5
    assert not masks(parse(""), 3, 16, 16).any()
    assert not masks(parse(text()), 3, 16, 16).any()
    assert not masks(parse(text({"kind": "box", "keys": [key(w=0)]})), 3, 16, 16).any()


def test_the_same_shares_at_every_size():
    shapes = parse(text({"kind": "ellipse", "keys": [key(0, x=0.3), key(9, x=0.6)]}))
    small, large = masks(shapes, 10, 32, 32), masks(shapes, 10, 64, 64)
    pooled = torch.nn.functional.avg_pool2d(large[:, None], 2)[:, 0]
    assert (pooled - small).abs().mean() < 0.03


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{", "no JSON"),
        ("[]", "must be"),
        ('{"shapes": 3}', "must be"),
        (text({"kind": "star", "keys": [key()]}), "kind must be one of box, ellipse, lasso"),
        (text({"kind": "box"}), "has no keys"),
        (text({"kind": "box", "keys": [{"frame": 0}]}), "key or a point that is none"),
        (text({"kind": "box", "keys": [key(x="left")]}), "key or a point that is none"),
        (text({"kind": "box", "keys": [key(frame=-1)]}), "before 0"),
        (text({"kind": "lasso", "keys": [key()], "points": [[0, 0], [1, 1]]}), "at least 3"),
        (text(*[{"kind": "box", "keys": [key()]}] * 65), "at most 64"),
        ("[" * 100_000, "no JSON"),
        (text({"kind": "box", "keys": [key(frame=1)]}).replace("1,", "9" * 10_000 + ",", 1), "no JSON"),
        (text({"kind": "box", "keys": [key(frame=10**400)]}), "after 1,000,000,000"),
        (text({"kind": "box", "keys": [key(frame=float("inf"))]}), "key or a point that is none"),
        (text({"kind": "box", "keys": [key(x=10**400)]}), "key or a point that is none"),
        (text({"kind": "lasso", "keys": [key()], "points": [[0, 0]] * 4097}), "at most 4,096"),
    ],
)
def test_bad_texts_say_what_is_wrong(given, message):
    with pytest.raises(ValueError, match=message):
        parse(given)


def test_drawing_can_be_stopped():
    lasso = {"kind": "lasso", "keys": [key(), key(frame=79, x=0.9)], "points": [[0, 0], [1, 0], [0, 1]]}

    def stop():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        masks(parse(text(lasso)), 80, 16, 16, stop)


def test_not_a_number_is_refused():
    with pytest.raises(ValueError, match="no number"):
        parse('{"shapes": [{"kind": "box", "keys": [{"frame": 0, "x": NaN, "y": 0, "w": 1, "h": 1}]}]}')
