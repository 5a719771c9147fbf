"""`evaluate conditioning`: its cases, its numbers on clips whose answer is known, and the command end to end."""

import argparse
import json

import pytest
import torch

from lumiere_core.commands import evaluate as command
from lumiere_core.evaluation import conditioning
from lumiere_core.evaluation.condition_cases import EACH, STRENGTHS, TASKS, condition_cases, condition_of, truth
from lumiere_core.measures import region as measures
from lumiere_core.nets.checkpoint import metadata_for, save_file, to_half
from lumiere_core.world import is_held_out


@pytest.fixture(scope="module")
def cases():
    return condition_cases("reporting")


def case_of(cases, task, number=0):
    return [case for case in cases if case.task == task][number]


def test_cases_are_many_and_held_out(cases):
    assert cases == condition_cases("reporting") and len({case.id for case in cases}) == len(cases)
    for task in TASKS:
        mine = [case for case in cases if case.task == task]
        assert len(mine) >= EACH
        assert all(is_held_out("shape", case.given.attributes) for case in mine)
    strengths = [case.denoise for case in cases if case.task == "sdedit"]
    assert {strengths.count(strength) for strength in STRENGTHS} == {8}


def test_replacements_change_the_colour_and_nothing_else(cases):
    for case in cases:
        given, wanted = case.given.attributes, case.wanted.attributes
        changed = {name for name in given if given[name] != wanted[name]}
        assert changed == ({"colour"} if case.task in ("inpaint", "sdedit") else set()), case


def test_what_is_known_is_the_task_s(cases):
    share = {}
    for task in TASKS[:-1]:
        case = case_of(cases, task, 3)
        clip, cover = truth(case, 8, 32, 32)
        made = condition_of(case, clip, cover)
        share[task] = made.known[0, 0].flatten(1).mean(1)
        known = made.known.bool().expand_as(clip)
        if task != "cinemagraph":
            assert torch.equal(made.clip[known], clip[known])
    assert share["first frame"].tolist() == [1, *[0] * 7]
    assert share["first and last"].tolist() == [1, *[0] * 6, 1]
    assert share["outpaint"].tolist() == [20 / 32] * 8
    assert all(0.5 < value < 1 for value in share["inpaint"])
    assert share["cinemagraph"][0] == 1 and 0 < share["cinemagraph"][1] < 1
    case = case_of(cases, "sdedit")
    assert condition_of(case, *truth(case, 4, 16, 16)) is None


def levels(task, cases, change=lambda clip, known: clip, number=3):
    """Numbers of a clip that is the truth but for a change."""
    case = case_of(cases, task, number)
    clip, cover = truth(case, 8, 32, 32)
    condition = condition_of(case, clip, cover)
    real = measures.levels(clip)
    made = change(real.clone(), condition.known[0, 0] > 0.5)
    return conditioning.numbers_of(case, made, real, condition, cover)


@pytest.mark.parametrize("task", ["inpaint", "outpaint"])
def test_a_seam_shows(cases, task):
    def darker(clip, known):
        return torch.where(known, clip, clip - 60)

    assert levels(task, cases)["seam"] <= 1 + 1e-6
    assert levels(task, cases, darker)["seam"] > conditioning.SEAM


def test_another_background_outside_shows(cases):
    def other(clip, known):
        return torch.where(known, clip, 255 - clip)

    assert levels("outpaint", cases)["border_error"] == 0
    assert levels("outpaint", cases, other)["border_error"] > conditioning.BORDER_ERROR


@pytest.mark.parametrize("task", ["first frame", "first and last"])
def test_a_jump_after_a_given_frame_shows(cases, task):
    def jumping(clip, known):
        return torch.where(known, clip, 255 - clip)

    assert levels(task, cases)["jump"] <= 1
    assert levels(task, cases, jumping)["jump"] > conditioning.JUMP


def test_cinemagraphs_move_inside_only(cases):
    def frozen(clip, known):
        return clip[:, :1].expand_as(clip)

    def restless(clip, known):
        return clip + torch.arange(8.0)[None, :, None, None] * 4

    still, moving = levels("cinemagraph", cases, frozen), levels("cinemagraph", cases, restless)
    assert still["inside"] == 0 and still["outside"] == 0
    assert moving["inside"] > conditioning.FLOOR and moving["outside"] >= 28
    assert still["real_inside"] > 0


def test_a_halo_shows_around_an_inpainted_object(cases):
    """Only next to the object: the object itself may have any colour."""

    def recoloured(clip, known):
        cover = truth(case_of(cases, "inpaint", 3), 8, 32, 32)[1]
        return torch.where(cover >= 0.01, 255 - clip, clip)

    def glowing(clip, known):
        return torch.where(known, clip, 255 - clip)

    assert levels("inpaint", cases)["halo"] == levels("inpaint", cases, recoloured)["halo"] == 0
    assert levels("inpaint", cases, glowing)["halo"] > conditioning.HALO


@pytest.mark.parametrize("task", ["first frame", "cinemagraph"])
def test_lost_detail_shows(cases, task):
    def blurred(clip, known):
        soft = torch.nn.functional.avg_pool2d(clip, 5, stride=1, padding=2, count_include_pad=False)
        return torch.cat([clip[:, :1], soft[:, 1:]], dim=1)

    assert levels(task, cases)["detail"] > 0.8
    assert levels(task, cases, blurred)["detail"] < conditioning.DETAIL


def test_lines_of_before_a_measure_was_made_have_no_bar_for_it():
    bars = conditioning.task_bars("inpaint", [{"copy_error": 1.0, "seam": 1.0, "right": {}}])
    assert not any("halo" in bar.name for bar in bars)
    (bar,) = conditioning.later_bar("x", [{"y": 1.0}, {"y": 3.0}, {}], "y", least=1.5)
    assert bar.held and "median of 2" in bar.got


def test_the_copy_is_measured_where_it_is_known():
    clip, known = torch.zeros(1, 3, 2, 4, 4), torch.zeros(1, 1, 2, 4, 4)
    known[:, :, 0] = 1
    estimate = clip.clone()
    estimate[:, :, 0], estimate[:, :, 1] = 0.1, 1
    assert measures.copy_error(estimate, clip, known) == pytest.approx(12.75)


def test_bars_hold_for_good_records_only(cases):
    def record(case, right=True, **numbers):
        return {
            "task": case.task,
            "denoise": case.denoise,
            "copy_error": 1.0,
            "jump": 1.0,
            "seam": 1.0,
            "border_error": 1.0,
            "halo": 1.0,
            "detail": 0.9,
            "inside": 8.0,
            "real_inside": 9.0,
            "outside": 0.0,
            "right": dict.fromkeys(("colour", "shape", "motion"), right),
            **numbers,
        }

    evaluation = conditioning.Conditioning.__new__(conditioning.Conditioning)
    good = [bar.held for bar in evaluation.bars([record(case) for case in cases])]
    assert all(held in (True, None) for held in good)
    for worse in (
        {"copy_error": 9.0},
        {"jump": 3.0},
        {"seam": 2.0},
        {"border_error": 30.0},
        {"inside": 0.5},
        {"inside": 6.0},
        {"halo": 9.0},
        {"detail": 0.5},
        {"outside": 1.0},
        {"right": False},
    ):
        bars = evaluation.bars([record(case, **worse) for case in cases])
        assert False in [bar.held for bar in bars], worse
    assert [bar.held for bar in evaluation.bars([])].count(True) == 0


@pytest.fixture
def conditioned(tiny, weights):
    """The part files with temporal layers that have a conv_cond."""
    config = tiny.temporal_config(conv_cond=True)
    layers = tiny.temporal(config=config, trained=True)
    state = to_half({f"temporal.{k}": v for k, v in layers.state_dict().items()})
    config = {"unet": tiny.unet_config().to_dict(), "temporal": config.to_dict()}
    save_file(state, weights / "temporal.safetensors", metadata_for("conditioned", config))
    return weights


def test_the_command_runs_cases_stores_them_and_checks_them(conditioned, tmp_path, capsys):
    def run(*arguments):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        files = ("--weights", str(conditioned), "--results", str(tmp_path / "lines.jsonl"))
        options = ("conditioning", "--frames", "4", "--steps", "2", *files, *arguments)
        return command.main(parser.parse_args(options))

    assert run("--all", "--limit", "1") == 1
    assert run("--all", "--limit", "1") == 1
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert len(lines) == 2 == len({line["case"] for line in lines})
    assert all(line["sha256"] and line["frames"] == 4 for line in lines)
    capsys.readouterr()
    assert run("--check", "1") == 1
    table = capsys.readouterr().out
    assert "stored lines come out again" in table and "1/1" in table
    assert "bars held:" in table.splitlines()[-1]
