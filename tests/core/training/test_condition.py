"""The `condition` phase: what it trains, what its masks are, and that it starts from a text-to-video model (§4.2)."""

import argparse
import collections

import pytest
import torch

from lumiere_core import world
from lumiere_core.diffusion.models import load_models
from lumiere_core.nets.checkpoint import load_parts
from lumiere_core.training import masks
from lumiere_core.training.loop import train
from lumiere_core.training.phases import condition, temporal
from lumiere_core.world.dice import Dice

SIZE = (12, 24, 32)


def always(monkeypatch, task):
    monkeypatch.setattr(condition, "draw_task", lambda dice: task)


def known(task, seed, size=SIZE, cover=None):
    scene = world.sample_scene(seed, family="shape")

    def object_of_the_scene():
        if cover is not None:
            return cover
        t, h, w = size
        return world.render_clip(scene, t, 4.0, h, w, masks=True)[1][0]

    return masks.draw_known(task, Dice(seed), size, object_of_the_scene)


def test_where_nothing_is_known_it_is_the_temporal_phase(trainer, monkeypatch):
    """Same clips, noise and loss, also with a conv_cond that has learnt something."""
    always(monkeypatch, "text")
    plain, phase = trainer.phase("temporal"), trainer.phase("condition")
    assert phase.module.conv_cond.weight.abs().max() == 0
    torch.nn.init.normal_(phase.module.conv_cond.weight)
    shared = {k: v for k, v in phase.module.state_dict().items() if k != "conv_cond.weight"}
    plain.module.load_state_dict(shared)
    for step in range(3):
        assert phase.loss(step) == plain.loss(step)


def test_what_is_known_changes_the_answer(trainer, monkeypatch):
    phase, seen = trainer.phase("condition"), []
    torch.nn.init.normal_(phase.module.conv_cond.weight)
    for task in ("text", "first frame"):
        always(monkeypatch, task)
        seen.append(phase.loss(0).item())
    assert seen[0] != seen[1]


def test_the_network_gets_the_clean_clip_where_it_is_known(trainer, monkeypatch):
    always(monkeypatch, "region")
    phase, seen = trainer.phase("condition"), []
    network = phase.network
    phase.network = lambda *args, known, **more: seen.append(known) or network(*args, known=known, **more)
    phase.loss(0)
    ((clips, _),) = condition.clips_at(phase.scenes([0]), phase.options, [0])
    clip, mask = seen[0].split([3, 1], dim=1)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(clip, clips * mask)


def test_only_temporal_layers_and_conv_cond_train(trainer, tmp_path):
    options = trainer.options()
    phase = trainer.phase("condition", options)
    frozen = [*phase.models.unet.parameters(), *phase.models.text.parameters()]
    before = [p.clone() for p in frozen]
    start = {k: v.clone() for k, v in phase.module.state_dict().items()}
    train(phase, options, tmp_path, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before, frozen, strict=True))
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    changed = {k for k, v in phase.module.state_dict().items() if not torch.equal(v, start[k])}
    assert changed == set(start) and "conv_cond.weight" in changed


def test_every_parameter_gets_a_gradient(trainer, monkeypatch):
    always(monkeypatch, "first frame")
    phase = trainer.phase("condition")
    trainer.tiny.randomise(phase.module, torch.Generator().manual_seed(0))
    phase.loss(0).backward()
    silent = [k for k, p in phase.module.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def files(trainer, folder):
    """Part files of tiny networks, with temporal layers that know no condition."""
    paths = {}
    for name in ("text", "image", "temporal"):
        trainer.run(name, folder / name, steps=1)
        paths[name] = folder / name / f"{name}.safetensors"
    return argparse.Namespace(text=paths["text"], image=paths["image"], init_from=paths["temporal"])


def test_it_starts_from_an_ordinary_temporal_file(trainer, tmp_path):
    arguments, options = files(trainer, tmp_path), trainer.options()
    phase = condition.build(arguments, options, {})
    before = temporal.build(arguments, options, {})
    assert not load_parts(arguments.init_from).temporal_config.conv_cond
    assert phase.module.config.conv_cond and not phase.module.conv_cond.weight.any()
    for key, value in before.module.state_dict().items():
        assert torch.equal(phase.module.state_dict()[key], value)


def test_its_export_is_a_temporal_file_that_it_can_start_from(trainer, tmp_path):
    arguments, options = files(trainer, tmp_path), trainer.options(steps=2)
    phase = condition.build(arguments, options, {})
    phase.preview = lambda folder, step: None
    train(phase, options, tmp_path / "run", progress=False)
    exported = tmp_path / "run" / "temporal.safetensors"
    parts = load_parts(exported)
    assert parts.temporal_config.conv_cond and parts.metadata["lumiere.phase"] == "condition"
    for number, file in enumerate((arguments.text, arguments.image, exported)):
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / f"{number}.safetensors").symlink_to(file)
    models, _ = load_models(tmp_path / "model")
    assert models.temporal.conv_cond.weight.any()
    arguments.init_from = exported
    again = condition.build(arguments, options, {})
    assert torch.equal(again.module.conv_cond.weight, models.temporal.conv_cond.weight)


def test_layers_without_coordinates_get_them_where_the_recipe_asks(trainer, tmp_path):
    arguments, options = files(trainer, tmp_path), trainer.options()
    plain = temporal.build(arguments, options, {}).module
    asked = {"temporal": {"condition_channels": 32, "coordinates": True}}
    layers = temporal.build(arguments, options, asked).module
    assert layers.config.coordinates and not plain.config.coordinates
    state = layers.state_dict()
    assert all(torch.equal(state[k], v) for k, v in plain.state_dict().items())
    new = set(state) - set(plain.state_dict())
    assert {k.split(".")[-2] for k in new} == {"clip_position", "ramps"}
    assert not any(state[k].any() for k in new if ".ramps." in k)


def test_previews_begin_with_a_given_frame(trainer, tmp_path, monkeypatch):
    phase, seen = trainer.phase("condition", preview=True), []
    network = phase.network_module.forward

    def spy(*args, known=None, **kwargs):
        seen.append(known is not None)
        return network(*args, known=known, **kwargs)

    phase.network_module.forward = spy
    monkeypatch.setattr("lumiere_core.diffusion.models.SpaceTimeUNet", lambda *_: phase.network_module)
    phase.preview_prompts = ("a red ball on grass", "snow")
    phase.preview(tmp_path, 1)
    assert seen[: len(seen) // 2] == [True] * (len(seen) // 2)
    assert seen[len(seen) // 2 :] == [False] * (len(seen) // 2)
    assert (tmp_path / "step_000001.png").is_file()


# --- the masks --------------------------------------------------------------------------------------------


def test_tasks_come_as_often_as_is_said():
    drawn = collections.Counter(masks.draw_task(Dice(seed)) for seed in range(4000))
    assert sum(masks.SHARES.values()) == pytest.approx(1)
    for task, share in masks.SHARES.items():
        assert drawn[task] / 4000 == pytest.approx(share, abs=0.025), task


@pytest.mark.parametrize("task", masks.SHARES)
def test_masks_follow_from_the_seed(task):
    assert all(torch.equal(known(task, seed), known(task, seed)) for seed in range(3))
    if task not in ("text", "first frame", "first and last"):
        assert len({known(task, seed).sum().item() for seed in range(8)}) > 2


def test_frames_that_are_known():
    for seed in range(6):
        assert not known("text", seed).any()
        for task, frames in (("first frame", {0}), ("first and last", {0, 11})):
            mask = known(task, seed)
            assert mask[sorted(frames)].all() and mask.any(dim=(1, 2)).sum() == len(frames)
        some = known("key frames", seed)
        assert 1 <= some.any(dim=(1, 2)).sum() <= 4
        for task in ("key frames", "frames"):
            mask = known(task, seed)
            assert torch.equal(mask.any(dim=(1, 2)), mask.all(dim=2).all(dim=1))


def test_regions_stand_still_or_move():
    fixed = [bool((mask == mask[:1]).all()) for mask in (known("region", s) for s in range(24))]
    assert 3 <= sum(fixed) <= 20
    shares = [known("region", seed).float().mean().item() for seed in range(24)]
    assert min(shares) < 0.6 and max(shares) > 0.85 and all(share < 1 for share in shares)


def test_object_masks_cover_the_object():
    for seed in range(12):
        scene = world.sample_scene(seed, family="shape")
        cover = world.render_clip(scene, 12, 4.0, 24, 32, masks=True)[1][0] > 0.5
        mask = known("object", seed)
        assert not mask[cover].any() or mask[cover].all()  # the object, or all but the object


def test_a_scene_without_an_object_gets_a_region():
    nothing = torch.zeros(SIZE)
    for task in masks.NEEDS_OBJECT:
        mask = known(task, 3, cover=nothing)
        assert mask.any() and not mask.all()


def test_outside_is_a_border():
    for seed in range(12):
        mask = known("outside", seed)
        rows, columns = mask[0].any(dim=1), mask[0].any(dim=0)
        assert torch.equal(mask, (rows[:, None] & columns[None]).expand(SIZE))
        assert 0.09 <= mask.float().mean() <= 0.92


def test_a_cinemagraph_knows_frame_0_and_a_fixed_outside():
    for seed in range(12):
        mask = known("cinemagraph", seed)
        assert mask[0].all() and not mask[1].all() and mask[1].any()
        assert (mask[1:] == mask[1]).all()
