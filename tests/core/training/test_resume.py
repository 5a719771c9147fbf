"""A run that was stopped and resumed ends where an uninterrupted one ends, bit for bit."""

import json
import shutil

import pytest
import torch

from lumiere_core.nets.checkpoint import load_file
from lumiere_core.training.log import Log
from lumiere_core.training.loop import train

PHASES = ["text", "image", "temporal", "condition"]

WEIGHTS = {"condition": "temporal.safetensors"}  # it goes on with the temporal layers


def losses(folder):
    return [(r["step"], r["loss"], r["gradient_norm"], r["learning_rate"]) for r in Log(folder).read()]


@pytest.mark.parametrize("name", PHASES)
def test_an_interrupted_run_resumes_bit_for_bit(trainer, tmp_path, assert_same_files, name):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes = {"decay_from": 0.5}
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
    with pytest.raises(ValueError, match="weights of the run in .*run do not fit.*missing"):
        trainer.run("temporal", tmp_path / "run", resume=True)
    options = trainer.options()
    for levels, problem in ((1, "unknown: model."), (3, "missing: model.")):
        phase = trainer.phase("image", options, levels=levels)
        with pytest.raises(ValueError, match=problem):
            train(phase, options, tmp_path / "run", resume=True, progress=False)


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
    phase, _ = trainer.run("image", tmp_path, steps=4)
    tensors, facts = load_file(tmp_path / "state.safetensors")
    kinds = {k.split(".")[0] for k in tensors}
    assert kinds == {"model", "ema", "optimizer"}
    for name, parameter in phase.module.named_parameters():
        assert torch.equal(tensors[f"model.{name}"], parameter)
        assert tensors[f"optimizer.exp_avg.{name}"].shape == parameter.shape
        assert tensors[f"optimizer.step.{name}"] == 4
    assert not torch.equal(tensors["ema.out.2.weight"], tensors["model.out.2.weight"])
    assert json.loads(facts["options"])["batch_size"] == 2 and facts["phase"] == "image"
