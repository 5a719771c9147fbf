"""The frame around evaluations: cases, stored lines, the table and the command."""

import argparse
import json

import pytest

from lumiere_core.commands import evaluate as command
from lumiere_core.evaluation.cases import Case, mini_cases
from lumiere_core.evaluation.mini import Mini
from lumiere_core.evaluation.store import Store, fingerprint
from lumiere_core.evaluation.table import Bar, print_table, share_bar
from lumiere_core.world import COLOURS, FAMILIES, MOTIONS, SHAPES, is_held_out


@pytest.fixture(scope="module")
def cases():
    return mini_cases("reporting")


def test_cases_are_held_out_and_many(cases):
    assert len(cases) >= 128
    assert len({case.id for case in cases}) == len(cases)
    scenes = [case.scene for case in cases]
    assert all(is_held_out(scene.family, scene.attributes) for scene in scenes)
    assert {scene.family for scene in scenes} == set(FAMILIES)
    assert cases == mini_cases("reporting")


def test_nothing_is_chosen_on_the_prompts_that_are_reported(cases):
    tuning = mini_cases("tuning")
    assert len(tuning) == len(cases)
    assert not {case.prompt for case in tuning} & {case.prompt for case in cases}

    def shapes(chosen):
        return {tuple(sorted(scene.attributes.items())) for c in chosen if (scene := c.scene).family == "shape"}

    assert not shapes(tuning) & shapes(cases)
    with pytest.raises(ValueError, match="tuning"):
        mini_cases("training")


def test_shape_cases_cover_every_value_evenly(cases):
    shapes = [scene.attributes for case in cases if (scene := case.scene).family == "shape"]
    assert len(shapes) >= len(cases) // 2
    assert len({tuple(sorted(attributes.items())) for attributes in shapes}) == len(shapes)
    for name, values in (("motion", MOTIONS), ("colour", COLOURS), ("shape", SHAPES)):
        counts = [sum(attributes[name] == value for attributes in shapes) for value in values]
        assert max(counts) - min(counts) <= 2, (name, counts)
    assert {attributes["camera"] for attributes in shapes} == {"static"}


def test_store_resumes_after_a_cut_line(tmp_path):
    store = Store(tmp_path / "lines.jsonl")
    store.append({"case": "a", "weights": "1", "value": 1})
    store.append({"case": "a", "weights": "2", "value": 2})
    with store.path.open("a") as file:
        file.write('{"case": "b", "wei')
    store.append({"case": "c", "weights": "1", "value": 3})
    assert set(store.of_run({"weights": "1"})) == {"a", "c"}
    assert store.of_run({"weights": "2"})["a"]["value"] == 2
    store.keep([{"case": "c"}])
    assert store.read() == [{"case": "c"}]
    assert [path.name for path in tmp_path.iterdir()] == ["lines.jsonl"]


def test_fingerprint_looks_at_the_hashes_not_the_names():
    assert fingerprint({"a": "1", "b": "2"}) == fingerprint({"d": "2", "c": "1"})
    assert fingerprint({"a": "1"}) != fingerprint({"a": "2"})


@pytest.mark.parametrize(("right", "held"), [(9, True), (8, False)])
def test_table_ends_with_the_bars_held(right, held):
    lines = []
    bars = [share_bar("colour", [True] * right + [False] * (10 - right), 0.9), Bar("seen", "", "7")]
    assert print_table("Title", bars, lines.append) is held
    assert lines[-1].strip() == f"bars held: {int(held)}/1"


def test_no_cases_hold_no_bar():
    assert share_bar("colour", [], 0.9).held is False


def test_mini_bars_count_what_was_asked():
    def record(**values):
        return {
            "case": "0",
            "prompt": "a red ball bouncing on grass",
            "family": "shape",
            "motion": "bouncing",
            "right": {"family": True, "colour": True, "shape": True, "motion": True},
            "flicker_ratio": 1.0,
            "phase_error": 0.1,
            **values,
        }

    good = {bar.name: bar for bar in Mini.bars(None, [record(), record(motion="spinning")] * 72)}
    assert all(bar.held in (None, True) for bar in good.values())
    wrong = {"family": False, "colour": False, "shape": False, "motion": False}
    of_both = {"right": wrong, "flicker_ratio": 3.0, "phase_error": 0.5}
    spoilt = [record(**of_both), record(motion="spinning", **of_both)] * 50
    bad = {bar.name: bar for bar in Mini.bars(None, spoilt)}
    assert not any(bar.held for bar in bad.values())  # 100 cases are too few, too


class FakeEvaluation:
    """Cases that count how often they are run."""

    title = "fake"

    def __init__(self, options):
        self.run = {"weights": options.weights}
        self.ran = []

    def cases(self):
        return [Case(f"{i}", f"prompt {i}", i, i) for i in range(6)]

    def measure(self, case):
        self.ran.append(case.id)
        return {
            "case": case.id,
            "prompt": case.prompt,
            **self.run,
            "date": "2026-01-01",
            "seen": {"colour": "red"},
            "right": {"colour": True},
            "levels": [1.0],
        }

    def bars(self, records):
        return [share_bar("colour", [record["right"]["colour"] for record in records], 0.9)]


@pytest.fixture
def evaluate(tmp_path, monkeypatch, capsys):
    """Function (*arguments) -> (exit status, printed text, ids of the cases run)."""
    made = []

    def fake(options):
        made.append(FakeEvaluation(options))
        return made[-1]

    module = argparse.Namespace(Fake=fake)
    monkeypatch.setattr(command, "VERBS", {"mini": command.Verb("fake", "fake", "Fake", (command.sampling_flags,))})
    monkeypatch.setattr(command.importlib, "import_module", lambda name, package: module)

    def run(*arguments):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        results = ["--results", str(tmp_path / "lines.jsonl")]
        status = command.main(parser.parse_args(["mini", *results, *arguments]))
        return status, capsys.readouterr().out, made[-1].ran

    return run


def test_evaluate_runs_what_is_missing_and_resumes(evaluate, tmp_path):
    status, text, ran = evaluate("--all", "--limit", "2")
    assert (status, len(ran)) == (1, 2) and "all cases run" in text
    status, text, later = evaluate("--all")
    assert status == 0 and sorted(ran + later) == ["0", "1", "2", "3", "4", "5"]
    assert ran + later != sorted(ran + later)  # a part of the set is no family after the other
    assert text.splitlines()[-1] == "bars held: 1/1"
    assert len((tmp_path / "lines.jsonl").read_text().splitlines()) == 6


def test_parts_share_the_cases(evaluate):
    _, _, first = evaluate("--all", "--part", "1/2")
    _, _, second = evaluate("--all", "--part", "2/2")
    assert (len(first), len(second)) == (3, 3)
    assert sorted(first + second) == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize("part", ["0/2", "3/2", "2", "a/b", "1/0"])
def test_a_part_that_is_none_is_refused(evaluate, part, capsys):
    with pytest.raises(SystemExit):
        evaluate("--all", "--part", part)
    assert "K/N is wanted" in capsys.readouterr().err


def test_evaluate_checks_stored_lines(evaluate, tmp_path):
    evaluate("--all")
    status, text, ran = evaluate("--check", "3")
    assert status == 0 and len(set(ran)) == 3 and "3/3" in text
    path = tmp_path / "lines.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line | {"seen": {"colour": "blue"}}) + "\n" for line in lines))
    status, text, _ = evaluate()
    assert status == 1 and "colour was 'blue', is 'red'" in text


def test_evaluate_forgets_other_weights_once_complete(evaluate, tmp_path):
    evaluate("--all", "--weights", "old")
    evaluate("--all", "--weights", "new", "--limit", "5")
    assert len((tmp_path / "lines.jsonl").read_text().splitlines()) == 11
    evaluate("--all", "--weights", "new")
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [line["weights"] for line in lines] == ["new"] * 6


def test_evaluate_without_lines_says_what_to_do(evaluate):
    with pytest.raises(ValueError, match="evaluate mini --all"):
        evaluate()


def test_a_verb_refuses_the_flags_of_another(capsys):
    """A flag that would do nothing is an error, not silence."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    for words in (["oracle", "--cfg", "3"], ["mini", "--train"], ["seams", "--steps", "4"], ["style", "--videos", "x"]):
        with pytest.raises(SystemExit):
            parser.parse_args(words)
        assert f"unrecognized arguments: {' '.join(words[1:])}" in capsys.readouterr().err


@pytest.mark.parametrize("verb", list(command.VERBS))
def test_every_evaluation_has_a_help(verb, capsys):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    with pytest.raises(SystemExit) as end:
        parser.parse_args([verb, "--help"])
    assert end.value.code == 0 and "usage" in capsys.readouterr().out


def test_mini_evaluates_a_tiny_model(write_tiny, tmp_path, capsys):
    weights = write_tiny(tmp_path / "tiny.safetensors")
    results = tmp_path / "lines.jsonl"
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    common = [
        "mini",
        "--weights",
        str(weights),
        "--results",
        str(results),
        "--frames",
        "16",
        "--steps",
        "1",
        "--clips",
        str(tmp_path / "clips"),
    ]
    assert command.main(parser.parse_args([*common, "--all", "--limit", "2"])) == 1
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert {"case", "prompt", "weights", "sha256", "seed", "steps", "device", "date", "seen", "right"} <= set(line)
        assert line["sha256"].keys() == {"tiny.safetensors"} and line["device"] == "cpu"
    assert len(list((tmp_path / "clips").rglob("*.npz"))) == 2
    assert command.main(parser.parse_args([*common, "--check", "1"])) == 1
    assert "stored lines come out again" in capsys.readouterr().out
