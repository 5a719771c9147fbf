"""`evaluate lengths`: its cases, its judge on real and spoilt clips, its bars, and the command end to end."""

import argparse
import json
import re

import pytest
import torch

from lumiere_core.commands import evaluate as command
from lumiere_core.evaluation import lengths
from lumiere_core.evaluation.lengths import (
    EACH,
    FIRST_STEP,
    LEAST,
    REAL,
    SPOILT,
    Lengths,
    first_step,
    length_cases,
    look,
    other_scene,
    real_clip,
    real_scenes,
    rejected,
)
from lumiere_core.evaluation.oracle import NONE, judge
from lumiere_core.evaluation.stored import RESULTS
from lumiere_core.world import MOTIONS, is_held_out, scene_from_caption

SHORT = (16, 24, 40)
STORED = RESULTS / "lengths.jsonl"


@pytest.fixture(scope="module")
def cases():
    return length_cases("reporting")


def first_of_each_motion(cases, frames):
    chosen = {}
    for case in cases:
        if case.frames == frames:
            chosen.setdefault(case.scene.attributes["motion"], case)
    return list(chosen.values())


def test_cases_are_held_out_and_every_length_has_every_motion(cases):
    assert len({case.id for case in cases}) == len(cases) <= 110
    for frames, each in EACH.items():
        scenes = [case.scene for case in cases if case.frames == frames]
        assert all(is_held_out("shape", scene.attributes) for scene in scenes)
        motions = [scene.attributes["motion"] for scene in scenes]
        assert {motions.count(motion) for motion in MOTIONS} == {each}
    assert not {case.prompt for case in length_cases("tuning")} & {case.prompt for case in cases}


@pytest.mark.parametrize("frames", SHORT)
def test_the_judge_knows_the_beginning_of_every_motion_and_finds_spoilt_ones_wrong(cases, frames):
    missed = []
    for case in first_of_each_motion(cases, frames):
        clip = real_clip(real_scenes(case)[0], frames, 64, 64)
        seen = look(clip, case.scene)
        assert seen.motion == case.scene.attributes["motion"] and seen.present, (case.prompt, seen)
        answers = rejected(case, clip)
        missed += [(case.prompt, kind) for kind, found in zip(SPOILT, answers, strict=True) if found is False]
    assert len(missed) <= 1, missed


@pytest.mark.parametrize("frames", [80, 81])
def test_a_whole_scene_is_judged_as_ever(cases, frames):
    case = first_of_each_motion(cases, frames)[4]
    clip = real_clip(case.scene, frames, 64, 64)
    seen, verdict = look(clip, case.scene), judge(clip, case.scene)
    assert {"motion": seen.motion, "shape": seen.shape} == {name: verdict.seen[name] for name in ("motion", "shape")}
    assert seen.right(case.scene) == {"motion": True, "shape": True} and seen.present


def test_more_frames_show_the_same_scene_more_slowly():
    scene = scene_from_caption("a red ball moving left on grass", 3)
    slow, usual = real_clip(scene, 160, 64, 64), real_clip(scene, 80, 64, 64)
    assert torch.equal(slow[::2], usual)
    assert torch.equal(real_clip(scene, 16, 64, 64), usual[:16])


def test_another_motion_is_another_motion_of_the_same_object(cases):
    for case in cases[:9]:
        asked, other = case.scene.attributes, other_scene(case).attributes
        assert {name for name in asked if asked[name] != other[name]} - {"direction"} == {"motion"}


def test_what_dissolves_is_not_there_to_the_end():
    scene = scene_from_caption("a red ball standing still in front of a plain green background", 3)
    clip = real_clip(scene, 20, 64, 64)
    assert look(clip, scene).present
    gone = clip.clone()
    gone[-1] = clip[0, 0, 0]
    seen = look(gone, scene)
    assert seen.shape == "ball" and not seen.present
    small = clip.clone()  # a spot of its middle is left
    small[-2:] = clip[0, 0, 0]
    rows, columns = (clip[0] != clip[0, 0, 0]).any(-1).nonzero().float().mean(0).round().int().tolist()
    spot = (slice(-2, None), slice(rows - 3, rows + 4), slice(columns - 3, columns + 4))
    small[spot] = clip[spot]
    assert look(small, scene).shape == "ball" and not look(small, scene).present
    grey = look(torch.full_like(clip, 128), scene)
    assert (grey.motion, grey.shape, grey.present) == (NONE, NONE, False)
    other = scene_from_caption("a blue ball standing still in front of a plain green background", 3)
    assert not look(clip, other).present


def test_a_brighter_first_frame_shows():
    clip = torch.arange(16, dtype=torch.uint8).view(-1, 1, 1, 1).expand(16, 8, 8, 3).clone()
    assert first_step(clip) == 1.0
    clip[0] = 7
    assert first_step(clip) == 6.0 > FIRST_STEP
    assert first_step(torch.zeros(16, 8, 8, 3, dtype=torch.uint8)) == 1.0


def record(frames, right=True, step=1.0):
    return {
        "frames": frames,
        "motion": "bouncing",
        "right": {"motion": right, "shape": right},
        "present": right,
        "first_step": step,
        "real": {"motion": REAL if right else 0, "present": REAL, "first_step": 0.5},
        "rejected": [right, right, None, right],
    }


def test_bars_hold_for_good_records_only():
    good = Lengths.bars(None, [record(frames) for frames in EACH for _ in range(4)])
    assert all(bar.held in (None, True) for bar in good)
    assert sum(bar.held is True for bar in good) == 3 * len(EACH) + 2
    shuffled = next(bar for bar in good if bar.name.strip() == "shuffled")
    assert shuffled.got == "no cases"
    bad = Lengths.bars(None, [record(frames, right=False, step=3.0) for frames in EACH for _ in range(4)])
    assert not any(bar.held for bar in bad)
    mixed = {bar.name: bar for bar in Lengths.bars(None, [record(16), record(24, right=False)])}
    assert mixed["16 frames: motion right"].held and not mixed["24 frames: motion right"].held
    assert mixed["  motion: bouncing"].note == "16: 1/1, 24: 0/1"


@pytest.mark.skipif(not STORED.exists(), reason="no lines of these weights are stored")
def test_the_stored_judge_is_right_on_real_clips():
    evaluation = Lengths(options())
    lines = [json.loads(line) for line in STORED.read_text().splitlines()]
    assert {line["case"] for line in lines} == {case.id for case in evaluation.cases()}
    judged = [bar for bar in evaluation.bars(lines) if bar.name.startswith("judge")]
    assert len(judged) == 2 and all(bar.held for bar in judged), judged
    assert LEAST >= 0.97


def options(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    chosen = parser.parse_args(["lengths", *words])
    if not chosen.all:
        chosen.clips = None
    return chosen


def test_the_command_runs_cases_stores_them_and_checks_them(cases, write_tiny, tmp_path, capsys, monkeypatch):
    few = [case for case in cases if case.frames in (16, 24)][26:29]
    monkeypatch.setattr(lengths, "length_cases", lambda split: few)
    weights, results = write_tiny(tmp_path / "tiny.safetensors"), tmp_path / "lines.jsonl"
    common = ["--weights", str(weights), "--results", str(results), "--steps", "1"]
    clips = tmp_path / "clips"
    assert command.main(options(*common, "--all", "--limit", "2", "--clips", str(clips))) == 1
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert line["case"].endswith(f"-{line['frames']}") and len(line["rejected"]) == len(SPOILT)
        assert line["real"]["motion"] <= REAL
    assert len(list(clips.rglob("*.npz"))) == 2
    assert {path.name for path in clips.glob("*.png")} == {f"lengths-{line['frames']}.png" for line in lines}
    command.main(options(*common, "--check", "1"))
    assert re.search("stored lines come out again +all +1/1", capsys.readouterr().out)
    with pytest.raises(SystemExit):
        options("--frames", "16")
