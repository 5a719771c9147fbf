"""The stage `condition`: what it trains, and that it starts from a text-to-video model (§4.2)."""

import pytest
import torch

from lumiere_core.diffusion.models import load_models
from lumiere_core.nets.checkpoint import load_parts
from lumiere_core.training.given import Files
from lumiere_core.training.loop import train
from lumiere_core.training.sources import worlds
from lumiere_core.training.stages import build


def always(monkeypatch, task):
    monkeypatch.setattr(worlds, "draw_task", lambda dice: task)


def test_where_nothing_is_known_it_is_the_temporal_stage(trainer, monkeypatch):
    """Same clips, noise and loss, also with a conv_cond that has learnt something."""
    always(monkeypatch, "text")
    plain, run = trainer.stage("temporal"), trainer.stage("condition")
    assert run.module.conv_cond.weight.abs().max() == 0
    torch.nn.init.normal_(run.module.conv_cond.weight)
    shared = {k: v for k, v in run.module.state_dict().items() if k != "conv_cond.weight"}
    plain.module.load_state_dict(shared)
    for step in range(2):
        assert run.loss(step) == plain.loss(step)


def test_what_is_known_changes_the_answer(trainer, monkeypatch):
    run, seen = trainer.stage("condition"), []
    torch.nn.init.normal_(run.module.conv_cond.weight)
    for task in ("text", "first frame"):
        always(monkeypatch, task)
        seen.append(run.loss(0).item())
    assert seen[0] != seen[1]


def test_only_temporal_layers_and_conv_cond_train(trainer, tmp_path):
    run = trainer.stage("condition")
    models = run.part.models
    frozen = [*models.unet.parameters(), *models.text.parameters()]
    before = [p.clone() for p in frozen]
    start = {k: v.clone() for k, v in run.module.state_dict().items()}
    train(run, tmp_path, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before, frozen, strict=True))
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    changed = {k for k, v in run.module.state_dict().items() if not torch.equal(v, start[k])}
    assert changed == set(start) and "conv_cond.weight" in changed


def test_every_parameter_gets_a_gradient(trainer, monkeypatch):
    always(monkeypatch, "first frame")
    run = trainer.stage("condition")
    trainer.tiny.randomise(run.module, torch.Generator().manual_seed(0))
    run.loss(0).backward()
    silent = [k for k, p in run.module.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.fixture
def files(weights):
    """Part files of tiny networks, with temporal layers that know no condition."""
    return Files(*(weights / f"{name}.safetensors" for name in ("text", "image", "temporal")))


def test_it_starts_from_an_ordinary_temporal_file(trainer, files):
    options = trainer.options()
    run, before = (build(stage, files, options, {}) for stage in ("condition", "temporal"))
    assert not load_parts(files.init_from).temporal_config.conv_cond
    assert run.module.config.conv_cond and not run.module.conv_cond.weight.any()
    for key, value in before.module.state_dict().items():
        assert torch.equal(run.module.state_dict()[key], value)


def test_its_export_is_a_temporal_file_that_it_can_start_from(trainer, files, tmp_path):
    options = trainer.options(steps=2)
    run = build("condition", files, options, {})
    run.preview = lambda folder, step: None
    train(run, tmp_path / "run", progress=False)
    exported = tmp_path / "run" / "temporal.safetensors"
    parts = load_parts(exported)
    assert parts.temporal_config.conv_cond and parts.metadata["lumiere.phase"] == "condition"
    models, _ = load_models([files.text, files.image, exported])
    assert models.temporal.conv_cond.weight.any()
    again = build("condition", Files(files.text, files.image, exported), options, {})
    assert torch.equal(again.module.conv_cond.weight, models.temporal.conv_cond.weight)


def test_layers_without_coordinates_get_them_where_the_recipe_asks(trainer, files):
    options = trainer.options()
    plain = build("temporal", files, options, {}).module
    asked = {"temporal": {"condition_channels": 32, "coordinates": True, "shared_noise": 0.5}}
    layers = build("temporal", files, options, asked).module
    assert layers.config.coordinates and layers.config.shared_noise == 0.5 and not plain.config.coordinates
    state = layers.state_dict()
    assert all(torch.equal(state[k], v) for k, v in plain.state_dict().items())
    new = set(state) - set(plain.state_dict())
    assert {k.split(".")[-2] for k in new} == {"clip_position", "ramps"}
    assert not any(state[k].any() for k in new if ".ramps." in k)


def test_samples_begin_with_a_given_frame(trainer, tmp_path, monkeypatch):
    run, seen = trainer.stage("condition", preview=True), []
    network = run.part.network.forward

    def spy(*args, known=None, **kwargs):
        seen.append(known is not None)
        return network(*args, known=known, **kwargs)

    monkeypatch.setattr(run.part.network, "forward", spy)
    monkeypatch.setattr("lumiere_core.diffusion.models.SpaceTimeUNet", lambda *_: run.part.network)
    monkeypatch.setattr("lumiere_core.training.previews.STEPS", 2)
    run.preview(tmp_path, 1)
    assert (tmp_path / "step_000001.png").is_file()
    each = len(seen) // 5
    assert seen == ([True] * each + [False] * each) * 2 + [True] * each
