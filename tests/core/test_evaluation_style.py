"""The evaluation of styles: what its measures say of real clips, and how its table is made."""

import argparse

import pytest
import torch

from lumiere_core.clips.video import to_uint8
from lumiere_core.evaluation import style as evaluation
from lumiere_core.evaluation.style import ALPHAS, ORIGINAL, StyleEvaluation, motion_of, summary
from lumiere_core.evaluation.style_look import PLAIN, measure_look, real_clip
from lumiere_core.world import render_clip, scene_from_caption
from lumiere_core.world.styles import STYLES

PROMPT = "a red ball moving right on grass"


@pytest.fixture(scope="module")
def scene():
    return scene_from_caption(PROMPT, 77)


@pytest.mark.parametrize("style", STYLES)
def test_a_perfect_clip_of_a_style_is_known_by_its_look(scene, style):
    place, nearest = measure_look(real_clip(scene, style, 10, 2.0, 64), PROMPT, style)
    assert nearest == style and place == pytest.approx(1, abs=0.25)
    plain = to_uint8(render_clip(scene, 10, 2.0))
    place, nearest = measure_look(plain, PROMPT, style)
    assert nearest == PLAIN and place == pytest.approx(0, abs=0.25)


def test_half_a_style_is_half_way(scene):
    plain = to_uint8(render_clip(scene, 10, 2.0)).float()
    styled = real_clip(scene, "line_drawing", 10, 2.0, 64).float()
    mixed = ((plain + styled) / 2).round().to(torch.uint8)
    assert 0.2 < measure_look(mixed, PROMPT, "line_drawing")[0] < 0.8


def test_motion_and_flicker_are_told_apart(scene):
    clip = to_uint8(render_clip(scene, 32, 16.0))
    amount, jitter = motion_of(clip)
    still = clip[:1].expand_as(clip)
    assert motion_of(still) == (0.0, 0.0)
    slower = to_uint8(render_clip(scene, 32, 32.0))
    assert 0.4 < motion_of(slower)[0] / amount < 0.7
    generator = torch.Generator().manual_seed(0)
    noisy = (clip + 8 * torch.randn(clip.shape, generator=generator)).clamp(0, 255).to(torch.uint8)
    assert motion_of(noisy)[1] > 5 * jitter
    assert motion_of(noisy)[0] < 2 * amount


def record(style, alpha, base="a", place=0.0, amount=1.0, jitter=1.0, right=True):
    values = {
        "case": f"{base}-{style}-{alpha}",
        "base": base,
        "style": style,
        "alpha": alpha,
        "place": {"neon": place},
        "look": "neon",
        "amount": amount,
        "jitter": jitter,
        "right": {"motion": right},
    }
    return values | ({"real_right": {"motion": True}, "real_place": 1.0} if alpha == 1.0 else {})


def test_points_are_ratios_to_the_same_prompts_at_alpha_0():
    records = [
        record(ORIGINAL, 0.0, amount=2.0),
        record(ORIGINAL, 0.0, "b", amount=4.0),
        record("neon", 0.5, place=0.6, amount=1.0, jitter=3.0),
        record("neon", 0.5, "c", amount=9.0),  # its alpha 0 was not run
    ]
    start, half = summary("neon", records)
    assert (start.alpha, start.clips, start.amount) == (0.0, 2, 1.0)
    assert (half.alpha, half.clips, half.place, half.amount, half.jitter) == (0.5, 1, 0.6, 0.5, 3.0)


@pytest.mark.parametrize(
    ("half", "whole", "held", "verdict"),
    [
        ({"place": 0.7}, {"place": 1.0, "amount": 0.2}, True, "shown: freezes"),
        ({"place": 0.7}, {"place": 1.0, "jitter": 2.0}, True, "shown: distorts"),
        ({"place": 0.7}, {"place": 1.0, "amount": 0.6}, True, "shown: slows down"),
        ({"place": 0.7}, {"place": 1.0}, True, "refuted: it moves as alpha 0 does"),
        ({"place": 0.4}, {"place": 1.0}, False, "refuted"),
        ({"place": 0.7, "amount": 0.6}, {"place": 1.0}, False, "refuted"),
        ({"place": 0.7, "jitter": 1.6}, {"place": 1.0}, False, "refuted"),
    ],
)
def test_the_claim_is_shown_or_refuted(half, whole, held, verdict):
    records = [record(ORIGINAL, 0.0), record("neon", 0.7, **half), record("neon", 1.0, **whole)]
    balance, claim, *lines = evaluation.style_bars("neon", summary("neon", records))
    assert balance.held is held and ("alpha 0.7" in balance.got) == held
    assert claim.held is None and verdict in claim.got
    assert [line.name.strip() for line in lines] == [f"neon, alpha {a}" for a in (0.0, 0.7, 1.0)]


def test_no_records_hold_nothing():
    assert evaluation.style_bars("neon", summary("neon", []))[0].held is False


@pytest.fixture
def styled(weights, lora_file, tmp_path, monkeypatch):
    """An evaluation of the tiny model with one style, "neon"."""
    path = lora_file("lumiere-mini_neon", 0.3)
    monkeypatch.setattr("lumiere_core.nets.interpolate.bundled_styles", lambda: {"neon": path})
    options = argparse.Namespace(
        weights=weights,
        device="cpu",
        clips=tmp_path / "clips",
        frames=4,
        steps=1,
        cfg=1.0,
        guidance_end=1.0,
        sampler="ddim",
        scheduler="karras",
    )
    return StyleEvaluation(options)


def test_cases_are_every_alpha_of_every_style(styled):
    cases = styled.cases()
    assert len(cases) == 4 * (1 + len(ALPHAS)) == len({case.id for case in cases})
    assert sorted({case.alpha for case in cases}) == [i / 10 for i in range(11)]
    motions = {case.base.scene.attributes["motion"] for case in cases}
    assert motions == {"moving right", "moving down", "bouncing", "moving left"}


def test_clips_are_made_with_the_style_and_without_again(styled, tmp_path):
    clips = styled.clips
    made = []
    for name, style, alpha in (("a", ORIGINAL, 0.0), ("b", "neon", 1.0), ("c", ORIGINAL, 0.0)):
        clips.style, clips.alpha = style, alpha
        made.append(clips.make(name, "a red ball", 3).frames)
    assert torch.equal(made[0], made[2])
    assert (made[0].float() - made[1].float()).abs().mean() > 1


def test_sheets_have_a_row_for_each_alpha(styled, tmp_path):
    from PIL import Image

    base = styled.cases()[0].base
    for case in styled.cases()[: 1 + len(ALPHAS)]:
        styled.clips.style, styled.clips.alpha = case.style, case.alpha
        styled.clips.make(case.id, case.prompt, case.base.seed)
    (path,) = styled.write_sheets(tmp_path / "sheets")
    assert path.name == f"neon-{base.id}.png"
    with Image.open(path) as sheet:
        assert sheet.size == (4 * 18 - 2, 11 * 18 - 2)
