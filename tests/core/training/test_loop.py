"""The training loop: what it writes, when it stops, what it refuses."""

import json
import logging
import signal

import pytest
import torch

from lumiere_core.nets.checkpoint import load_file
from lumiere_core.training.log import Log
from lumiere_core.training.loop import learning_rate, train
from lumiere_core.training.options import TrainOptions


def test_what_a_run_leaves_behind(trainer, tmp_path):
    trainer.run("text", tmp_path / "run")
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {"state.safetensors", "text.safetensors", "log.jsonl", "log.csv", "loss.png"}
    records = Log(tmp_path / "run").read()
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert set(records[0]) == {"step", "loss", "gradient_norm", "learning_rate", "seconds", "core_seconds"}
    weights, facts = load_file(tmp_path / "run" / "text.safetensors")
    assert all(value.dtype == torch.float16 for value in weights.values())
    assert facts["lumiere.step"] == "6" and json.loads(facts["lumiere.options"])["batch_size"] == 2


def test_weights_are_the_average_not_the_last(trainer, tmp_path):
    trainer.run("image", tmp_path)
    weights, _ = load_file(tmp_path / "image.safetensors")
    state, _ = load_file(tmp_path / "state.safetensors")
    key = "out.2.weight"
    assert torch.equal(weights[f"image.{key}"], state[f"ema.{key}"].half())
    assert not torch.equal(weights[f"image.{key}"], state[f"model.{key}"].half())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_state(trainer, tmp_path, bad):
    options = trainer.options(save_every=0.0)
    run = trainer.stage("text", options)
    trainer.watch(run, lambda step, loss: loss(step) * (bad if step == 3 else 1))
    with pytest.raises(FloatingPointError, match=f"loss is {bad} at step 4.*lower --learning-rate"):
        train(run, tmp_path, progress=False)
    state, facts = load_file(tmp_path / "state.safetensors")
    assert facts["step"] == "3"
    assert all(torch.isfinite(value).all() for value in state.values())


def test_a_gradient_that_is_no_number_stops_the_run_before_it_ruins_the_weights(trainer, tmp_path):
    options = trainer.options()
    run = trainer.stage("text", options)
    run.module.encoder.pool.weight.register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(FloatingPointError, match="gradient's norm is nan at step 1"):
        train(run, tmp_path, progress=False)
    assert all(torch.isfinite(parameter).all() for parameter in run.module.parameters())


def test_minutes_end_a_run_in_good_order(trainer, tmp_path):
    assert trainer.run("text", tmp_path / "none", minutes=0.0)[1] == 0
    assert load_file(tmp_path / "none" / "state.safetensors")[1]["step"] == "0"
    _, last = trainer.run("text", tmp_path / "some", steps=10**6, minutes=0.005)
    assert 0 < last < 10**6
    assert load_file(tmp_path / "some" / "state.safetensors")[1]["step"] == str(last)


def test_states_are_saved_while_the_run_goes_on(trainer, tmp_path):
    steps = []
    for save_every in (0.0, 1e9):
        options, seen = trainer.options(save_every=save_every), []
        folder = tmp_path / str(save_every)
        run = trainer.stage("text", options)

        def watched(step, loss, folder=folder, seen=seen):
            state = folder / "state.safetensors"
            seen.append(int(load_file(state)[1]["step"]) if state.exists() else None)
            return loss(step)

        trainer.watch(run, watched)
        train(run, folder, progress=False)
        steps.append(seen)
    assert steps == [[None, 1, 2, 3, 4, 5], [None] * 6]


def test_samples_are_drawn_with_the_average_and_training_goes_on_unchanged(trainer, tmp_path, assert_same_files):
    options = trainer.options(sample_every=2)
    run, seen = trainer.stage("image", options), []

    def preview(folder, step):
        seen.append((step, run.module.out[2].weight.detach().clone()))
        torch.manual_seed(step)  # whatever it does with random numbers is its own affair

    run.preview = preview
    train(run, tmp_path / "with", progress=False)
    trainer.run("image", tmp_path / "without", sample_every=0)
    assert [step for step, _ in seen] == [2, 4, 6, 6]
    state, _ = load_file(tmp_path / "with" / "state.safetensors")
    assert torch.equal(seen[-1][1], state["ema.out.2.weight"])
    assert_same_files(tmp_path / "with" / "state.safetensors", tmp_path / "without" / "state.safetensors", ["options"])


def test_a_failing_preview_is_reported_and_never_ends_a_run(trainer, tmp_path, caplog):
    options = trainer.options(sample_every=3)
    run = trainer.stage("text", options)

    def preview(folder, step):
        raise RuntimeError("no space for pictures")

    run.preview = preview
    with caplog.at_level(logging.ERROR, logger="lumiere"):
        assert train(run, tmp_path, progress=False) == 6
    assert "samples of step 3 failed" in caplog.text and "no space for pictures" in caplog.text


@pytest.mark.parametrize(("every", "drawn"), [(4, [4, 6]), (0, [6]), (-1, [])])
def test_samples_come_as_often_as_is_said(trainer, tmp_path, every, drawn):
    options = trainer.options(sample_every=every)
    run, seen = trainer.stage("text", options), []
    run.preview = lambda folder, step: seen.append(step)
    train(run, tmp_path, progress=False)
    assert seen == drawn


def test_an_interrupted_run_draws_no_samples(trainer, tmp_path):
    options = trainer.options()
    run, drawn = trainer.stage("text", options), []
    run.preview = lambda folder, step: drawn.append(step)

    def interrupted(step, loss):
        signal.raise_signal(signal.SIGTERM)
        return loss(step)

    trainer.watch(run, interrupted)
    assert train(run, tmp_path, progress=False) == 1
    assert drawn == [] and (tmp_path / "text.safetensors").exists()


def test_learning_rate():
    options = TrainOptions(steps=100, learning_rate=1.0, warmup=10, decay_from=0.8)
    rates = [learning_rate(options, step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert rates[10:81] == [1.0] * 71
    assert rates[90] == pytest.approx(0.5) and rates[99] == pytest.approx(0.05)
    assert all(rate > 0 for rate in rates)
    constant = TrainOptions(steps=100, learning_rate=1.0, warmup=0)
    assert {learning_rate(constant, step) for step in range(100)} == {1.0}


@pytest.mark.parametrize("name", ["text", "image", "temporal"])
def test_training_lowers_the_loss_of_a_batch(trainer, tmp_path, name):
    """The same batch again and again: every stage must be able to learn it."""
    options = trainer.options(steps=8, warmup=0, learning_rate=5e-3)
    run = trainer.stage(name, options)
    trainer.watch(run, lambda step, loss: loss(0))
    train(run, tmp_path, progress=False)
    losses = [record["loss"] for record in Log(tmp_path).read()]
    assert losses[-1] < 0.95 * losses[0]


def test_a_run_goes_on_with_the_options_that_it_began_with():
    options = TrainOptions()
    began = json.loads(json.dumps(vars(options)))
    assert not TrainOptions(steps=7, minutes=2, device="cuda").differences(began)
    for changes in ({"seed": 1}, {"learning_rate": 1e-3}, {"precision": "bfloat16"}, {"num_frames": 16}):
        assert len(TrainOptions(**changes).differences(began)) == 1


def test_an_option_that_an_earlier_version_did_not_have_is_its_default():
    began = json.loads(json.dumps(vars(TrainOptions())))
    del began["every"]
    assert not TrainOptions().differences(began)
    assert TrainOptions(every=8).differences(began) == ["every was 1, now 8"]
    assert TrainOptions().differences(began | {"restarts": 4}) == ["restarts was 4, now None"]
