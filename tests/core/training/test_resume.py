"""A run that was stopped and resumed ends where an uninterrupted one ends, bit for bit."""

import json
import shutil

import pytest
import torch

from lumiere_core.lock import only_writer
from lumiere_core.nets.checkpoint import load_file, save_file
from lumiere_core.training.log import Log
from lumiere_core.training.loop import train

STAGES = ["text", "image", "temporal", "condition", "style"]

WEIGHTS = {"condition": "temporal.safetensors", "style": "lora.safetensors"}


def losses(folder):
    return [(r["step"], r["loss"], r["gradient_norm"], r["learning_rate"]) for r in Log(folder).read()]


@pytest.mark.parametrize("name", STAGES)
def test_an_interrupted_run_resumes_bit_for_bit(trainer, tmp_path, assert_same_files, name):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes = {"decay_from": 0.5, **({"style": "neon"} if name == "style" else {})}
    assert trainer.run(name, whole, **changes)[1] == 6
    assert trainer.run(name, parts, interrupt_at=3, **changes)[1] == 3
    assert load_file(parts / "state.safetensors")[1]["step"] == "3"
    weights = WEIGHTS.get(name, f"{name}.safetensors")
    halfway = load_file(parts / weights)[0]
    assert trainer.run(name, parts, resume=True, **changes)[1] == 6
    assert_same_files(whole / "state.safetensors", parts / "state.safetensors")
    assert_same_files(whole / weights, parts / weights)
    assert losses(whole) == losses(parts) and len(losses(whole)) == 6
    final = load_file(parts / weights)[0]
    assert any(not torch.equal(final[k], v) for k, v in halfway.items())  # steps 4 to 6 did something


def test_more_steps_may_be_asked_for_on_resume(trainer, tmp_path, assert_same_files):
    trainer.run("image", tmp_path / "whole", steps=4)
    trainer.run("image", tmp_path / "parts", steps=2)
    trainer.run("image", tmp_path / "parts", steps=4, save_every=0.0, resume=True)
    assert_same_files(
        tmp_path / "whole" / "state.safetensors", tmp_path / "parts" / "state.safetensors", ignore=["options"]
    )


def test_resuming_a_finished_run_changes_nothing(trainer, tmp_path, assert_same_files):
    trainer.run("text", tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert trainer.run("text", tmp_path / "run", resume=True)[1] == 6
    for file in ("state.safetensors", "text.safetensors"):
        assert_same_files(tmp_path / "run" / file, tmp_path / "copy" / file)


def test_gradient_checkpointing_may_be_switched_on_resume(trainer, tmp_path):
    """It changes no result, only memory (to rounding)."""
    trainer.run("temporal", tmp_path / "whole", steps=3)
    trainer.run("temporal", tmp_path / "parts", steps=2)
    trainer.run("temporal", tmp_path / "parts", steps=3, checkpointing=True, resume=True)
    a, b = (load_file(tmp_path / run / "state.safetensors")[0] for run in ("whole", "parts"))
    for key, value in a.items():
        assert torch.allclose(value, b[key], atol=1e-5), key


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 2e-2}, ["learning_rate was 0.01, now 0.02"]),
        ({"seed": 5}, ["seed was 0, now 5"]),
        ({"batch_size": 3, "height": 32}, ["batch_size was 2, now 3", "height was 16, now 32"]),
        ({"text_dropout": 0.0}, ["text_dropout was 0.1, now 0.0"]),
    ],
)
def test_another_option_on_resume_is_refused_by_name(trainer, tmp_path, changes, named):
    trainer.run("image", tmp_path / "run", steps=1)
    with pytest.raises(ValueError) as error:
        trainer.run("image", tmp_path / "run", resume=True, **changes)
    message = str(error.value)
    assert f"the run in {tmp_path / 'run'} was started with other options: {'; '.join(named)}." in message
    assert "--init-from" in message


def test_another_model_on_resume_is_refused(trainer, tmp_path):
    trainer.run("image", tmp_path / "run", steps=1)
    with pytest.raises(ValueError, match="holds a run of `train image`, not of `train temporal`"):
        trainer.run("temporal", tmp_path / "run", resume=True)
    options = trainer.options()
    with pytest.raises(ValueError, match="architecture differ"):
        train(trainer.stage("image", options, levels=1), tmp_path / "run", resume=True, progress=False)
    # The state of an earlier version does not name it.
    tensors, facts = load_file(tmp_path / "run" / "state.safetensors")
    facts = {k: v for k, v in facts.items() if k != "data.architecture"}
    save_file(tensors, tmp_path / "run" / "state.safetensors", facts)
    for levels, problem in ((1, "unknown: model."), (3, "missing: model.")):
        run = trainer.stage("image", options, levels=levels)
        with pytest.raises(ValueError, match=problem):
            train(run, tmp_path / "run", resume=True, progress=False)


def test_a_run_is_never_overwritten(trainer, tmp_path, assert_same_files):
    trainer.run("text", tmp_path / "run", steps=1)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    with pytest.raises(FileExistsError, match="already holds a run. Add --resume"):
        trainer.run("text", tmp_path / "run", steps=1)
    assert_same_files(tmp_path / "run" / "state.safetensors", tmp_path / "copy" / "state.safetensors")


def test_there_must_be_something_to_resume(trainer, tmp_path):
    with pytest.raises(FileNotFoundError, match="state.safetensors"):
        trainer.run("text", tmp_path / "nothing", resume=True)


def test_a_damaged_state_is_named(trainer, tmp_path):
    trainer.run("text", tmp_path / "run", steps=1)
    state = tmp_path / "run" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-10])
    with pytest.raises(ValueError, match="state.safetensors .* not a complete safetensors file"):
        trainer.run("text", tmp_path / "run", resume=True)


def damaged(change, tensors, facts):
    """The tensors and facts of a state, changed."""
    key = next(k for k in tensors if k.startswith("optimizer.exp_avg."))
    if change == "no average":
        tensors = {k: v for k, v in tensors.items() if not k.startswith("ema.")}
    elif change == "no optimiser":
        tensors = {k: v for k, v in tensors.items() if not k.startswith("optimizer.")}
    elif change == "part of the optimiser":
        tensors = {k: v for k, v in tensors.items() if k != key}
    elif change == "NaN":
        tensors[key] = tensors[key] * float("nan")
    elif change == "another shape":
        tensors[key] = torch.zeros(2)
    elif change == "step":
        facts = facts | {"step": "-5"}
    elif change == "deep":
        facts = facts | {"options": "[" * 100_000}
    else:
        groups = {
            "groups": "{",
            "no groups": "[]",
            "words": '[{"eps": "x"}]',
            "NaN too": '[{"eps": NaN}]',
            "parameters": '[{"params": 1}]',
        }
        facts = facts | {"groups": groups[change]}
    return tensors, facts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no average", "do not fit.*missing: ema."),
        ("no optimiser", "tensors of its optimiser are missing"),
        ("part of the optimiser", "tensors of its optimiser are missing"),
        ("another shape", "of another shape"),
        ("NaN", r"optimizer.exp_avg.* is not finite"),
        ("step", "damaged: its step is '-5'"),
        ("groups", "damaged.*its optimiser '{'"),
        ("no groups", r"damaged.*the settings of its optimiser are \[\]"),
        ("NaN too", "damaged.*the settings of its optimiser are"),
        ("words", "damaged.*the settings of its optimiser are"),
        ("parameters", "damaged.*the settings of its optimiser are"),
        ("deep", "damaged.*its options are"),
    ],
)
def test_a_state_is_checked_before_it_is_taken(trainer, tmp_path, change, message):
    """Whatever is wrong with a state is named, and what it exported before stays."""
    trainer.run("text", tmp_path, steps=1)
    before = (tmp_path / "text.safetensors").read_bytes()
    state = tmp_path / "state.safetensors"
    tensors, facts = damaged(change, *load_file(state))
    save_file(tensors, state, facts)
    with pytest.raises(ValueError, match=message):
        trainer.run("text", tmp_path, resume=True)
    assert (tmp_path / "text.safetensors").read_bytes() == before


def test_a_run_on_other_data_is_not_resumed(trainer, tmp_path):
    """The facts of the source are kept in the state."""
    run = trainer.stage("text", trainer.options(steps=1))
    run.source.facts = lambda: {"data": "one"}
    train(run, tmp_path, progress=False)
    other = trainer.stage("text", trainer.options(steps=2))
    other.source.facts = lambda: {"data": "two"}
    with pytest.raises(ValueError, match="started on other data or another model: data differ"):
        train(other, tmp_path, resume=True, progress=False)


@pytest.mark.parametrize("error", [OSError("the drive is gone"), ValueError("clip 3 is damaged")])
def test_what_was_learnt_is_saved_before_reading_fails(trainer, tmp_path, assert_same_files, error):
    """No step is lost, though nothing was to be saved for an hour; the run goes on from there, bit for bit."""
    trainer.run("image", tmp_path / "whole")
    run = trainer.stage("image")

    def failing(number, loss):
        if number == 4:
            raise error
        return loss(number)

    trainer.watch(run, failing)
    with pytest.raises(type(error), match=str(error)):
        train(run, tmp_path / "parts", progress=False)
    assert load_file(tmp_path / "parts" / "state.safetensors")[1]["step"] == "4"
    trainer.run("image", tmp_path / "parts", resume=True)
    for file in ("state.safetensors", "image.safetensors"):
        assert_same_files(tmp_path / "whole" / file, tmp_path / "parts" / file)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_nothing_that_is_not_finite_is_written(trainer, tmp_path):
    run = trainer.stage("text", trainer.options(steps=2))

    def ruin(step, record):
        with torch.no_grad():
            run.module.encoder.pool.weight.mul_(float("nan"))

    with pytest.raises(FloatingPointError, match=r"model.encoder.pool.weight is not finite at step 1|loss is nan"):
        train(run, tmp_path, progress=False, on_step=ruin)
    assert not (tmp_path / "text.safetensors").exists() and not (tmp_path / "state.safetensors").exists()


def test_one_process_trains_in_a_folder(trainer, tmp_path):
    with only_writer(tmp_path, "train text"), pytest.raises(ValueError, match="being written by process .*train text"):
        trainer.run("text", tmp_path)


def test_the_log_is_rewound_to_the_state(trainer, tmp_path):
    """A kill after the last save leaves records of steps that will be made again, and half a line."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer.run("text", whole)
    trainer.run("text", parts, interrupt_at=4)
    assert load_file(parts / "state.safetensors")[1]["step"] == "4"
    with (parts / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": 5, "loss": 9.0}) + "\n")
        file.write('{"step": 6, "lo')
    trainer.run("text", parts, resume=True)
    assert losses(parts) == losses(whole)


def test_states_hold_weights_average_and_optimizer(trainer, tmp_path):
    run, _ = trainer.run("image", tmp_path, steps=4)
    tensors, facts = load_file(tmp_path / "state.safetensors")
    kinds = {k.split(".")[0] for k in tensors}
    assert kinds == {"model", "ema", "optimizer"}
    for name, parameter in run.module.named_parameters():
        assert torch.equal(tensors[f"model.{name}"], parameter)
        assert tensors[f"optimizer.exp_avg.{name}"].shape == parameter.shape
        assert tensors[f"optimizer.step.{name}"] == 4
    assert not torch.equal(tensors["ema.out.2.weight"], tensors["model.out.2.weight"])
    assert json.loads(facts["options"])["batch_size"] == 2 and facts["phase"] == "image"
