"""What each stage trains and exports; the image model stays frozen under the temporal layers (§3.1)."""

import pytest
import torch
from PIL import Image

from lumiere_core import world
from lumiere_core.diffusion.models import load_models
from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.nets.checkpoint import load_parts
from lumiere_core.training import previews
from lumiere_core.training.layers import start_layers, strides_for
from lumiere_core.training.loop import train
from lumiere_core.training.parts import new_unet


def copies(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def same(module, before):
    return all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_only_temporal_layers_train(trainer, tmp_path):
    run = trainer.stage("temporal")
    models = run.part.models
    unet, text, layers = copies(models.unet), copies(models.text), copies(run.module)
    train(run, tmp_path, progress=False)
    assert same(models.unet, unet) and same(models.text, text)
    assert not models.unet.training and not models.text.training
    frozen = [*models.unet.parameters(), *models.text.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    changed = {k for k, v in run.module.state_dict().items() if not torch.equal(v, layers[k])}
    assert changed == set(layers)  # and every one of them does


def test_every_temporal_parameter_gets_a_gradient_once_the_projections_moved(trainer):
    run = trainer.stage("temporal")
    trainer.tiny.randomise(run.module, torch.Generator().manual_seed(0))
    run.loss(0).backward()
    silent = {k for k, p in run.module.named_parameters() if p.grad is None or not p.grad.any()}
    # A bias before a softmax shifts all tokens alike: its gradient is zero, but for rounding.
    assert silent <= {"condition.score.bias"}


def test_chosen_parameters_train_alone(trainer, tmp_path):
    run = trainer.stage("temporal", trainer.options(only="proj, temporal_norm"))
    layers = copies(run.module)
    train(run, tmp_path, progress=False)
    changed = {k for k, v in run.module.state_dict().items() if not torch.equal(v, layers[k])}
    assert changed == {k for k in layers if "proj" in k or "temporal_norm" in k}


def test_a_choice_of_no_parameter_is_refused(trainer):
    with pytest.raises(ValueError, match="only is 'wings', .* no temporal parameter has such a name"):
        trainer.stage("temporal", trainer.options(only="wings"))


def test_at_the_start_only_last_projections_and_resizes_get_a_gradient(trainer):
    """Zero projections hide what is before them, so training starts at the image model and grows from it."""
    run = trainer.stage("temporal")
    run.loss(0).backward()
    for name, parameter in run.module.named_parameters():
        moves = parameter.grad is not None and bool(parameter.grad.any())
        assert moves == (".inflation.proj." in name or ".down." in name or ".up." in name), name


def test_the_image_stage_trains_the_image_model_only(trainer, tmp_path):
    run = trainer.stage("image")
    text, unet = copies(run.part.models.text), copies(run.module)
    train(run, tmp_path, progress=False)
    assert same(run.part.models.text, text) and not same(run.module, unet)
    assert {k for k, v in run.module.state_dict().items() if torch.equal(v, unet[k])} <= {"patch_basis"}


def test_a_fresh_image_model_answers_nothing_and_follows_the_seed(trainer):
    x, *rest = trainer.tiny.inputs()
    config = trainer.tiny.unet_config()
    first, again, other = (new_unet(config, seed) for seed in (3, 3, 4))
    assert first(x[:, :, 0], *rest).abs().max() == 0
    assert same(first, copies(again)) and not same(first, copies(other))


def test_exported_parts_make_one_model(trainer, tmp_path):
    """The files of three stages load into the pipeline."""
    for name in ("text", "image", "temporal"):
        train(trainer.stage(name, trainer.options(steps=1)), tmp_path / name, progress=False)
    files = [tmp_path / name / f"{name}.safetensors" for name in ("text", "image", "temporal")]
    models, parts = load_models(files)
    assert models.unet.config == trainer.tiny.unet_config()
    assert models.temporal.config == trainer.tiny.temporal_config(conv_cond=False)
    assert models.text.config == trainer.tiny.text_config()
    assert models.schedule.to_dict() == Schedule().to_dict()
    assert parts.config["size"] == [16, 16]
    assert not any(p.requires_grad for p in models.temporal.parameters())
    assert load_parts(files[0]).metadata["lumiere.phase"] == "text"


def test_the_text_stage_learns_every_attribute_of_the_world(trainer):
    run = trainer.stage("text")
    labels = world.attribute_labels()
    assert run.module.heads.keys() == labels.keys()
    accuracy = previews.accuracy(run.part, count=32)
    assert accuracy.keys() == labels.keys()
    assert all(0 <= value <= 1 for value in accuracy.values())


@pytest.mark.parametrize(
    ("name", "prompts", "size"),
    [("image", ("a red ball", "snow"), (2 * 34 - 2, 32)), ("temporal", ("snow",), (8 * 34 - 2, 32))],
)
def test_samples_are_contact_sheets(trainer, tmp_path, name, prompts, size):
    """Enlarged twice with gaps of 2: stills beside each other, or the frames of a clip in a row."""
    run = trainer.stage(name)
    frames = 1 if name == "image" else 8
    previews.prompts_sheet(run.part, (16, 16), frames, prompts, previews.nothing_known, tmp_path / "samples", 7)
    with Image.open(tmp_path / "samples" / "step_000007.png") as picture:
        assert picture.size == size


def test_the_text_samples_are_a_table_of_accuracies(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(previews, "accuracy", lambda part: {"colour": 0.5, "shape": 1.0})
    previews.readings(trainer.stage("text").part, tmp_path / "samples", 12)
    text = (tmp_path / "samples" / "accuracy_000012.txt").read_text()
    assert text == "colour 0.5000\nshape 1.0000\n"


@pytest.mark.parametrize(
    ("frames", "levels", "strides"),
    [(80, 4, (2, 2, 2)), (16, 4, (2, 1, 1)), (32, 4, (2, 2, 1)), (8, 4, (1, 1, 1)), (24, 3, (2, 1)), (80, 1, ())],
)
def test_strides_leave_eight_frames_at_the_coarsest_level(trainer, frames, levels, strides):
    """The paper's 80 frames keep its strides and 10 frames; 16 frames keep 8."""
    config = trainer.tiny.unet_config(levels) if levels < 4 else trainer.tiny.unet_config(4)
    assert strides_for(trainer.options(), frames, config) == strides
    asked = {"frames_per_clip": frames, "condition_channels": 32}
    layers = start_layers(config, asked, trainer.options())
    assert layers.config.strides == strides
    if strides and frames >= 8:
        assert -(-frames // layers.total_stride) >= 8


def test_strides_may_be_asked_for(trainer):
    config = trainer.tiny.unet_config(4)
    asked = {"condition_channels": 32}
    assert start_layers(config, asked, trainer.options(strides="4,1,2")).total_stride == 8
    assert start_layers(config, asked | {"stride": 1}, trainer.options()).total_stride == 1
    for wrong in ("2,1", "3,1,1", "2,x,1"):
        with pytest.raises(ValueError, match=f"--strides is '{wrong}'; 3 numbers of 1, 2 or 4"):
            start_layers(config, asked, trainer.options(strides=wrong))
