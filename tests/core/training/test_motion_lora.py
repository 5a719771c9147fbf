"""`train motion-lora`: only low-rank changes learn, of either kind of temporal layers, and their file loads again."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from lumiere_core.commands.cli import main
from lumiere_core.dataset.reader import open_clips
from lumiere_core.diffusion.models import Models
from lumiere_core.nets.checkpoint import load_file, load_parts
from lumiere_core.nets.config import TemporalConfig
from lumiere_core.nets.motion_files import read_motion_module
from lumiere_core.nets.motion_lora import read_motion_lora
from lumiere_core.nets.temporal import TemporalLayers
from lumiere_core.training.backbone import load_backbone
from lumiere_core.training.given import options_for
from lumiere_core.training.loop import train
from lumiere_core.training.stages import lora_clips_run

MOTION = TemporalConfig(kind="motion_module", stride=1, table_frames=8, frames_per_clip=8, middle=True)


@pytest.fixture(params=["lumiere", "motion_module"])
def make(request, cache, weights, tiny):
    """Function (**options) -> a run around trained temporal layers of either kind."""

    def build(**given):
        clips = open_clips(cache)
        unet, schedule = load_backbone(weights, clips.cache.backbone)
        config = MOTION if request.param == "motion_module" else tiny.temporal_config()
        layers = tiny.temporal(unet.config, config, trained=True)
        options = options_for("motion-lora", "cached-clips-lora", {"steps": 3, "rank": 2, "warmup": 0, **given})
        run = lora_clips_run("motion-lora", Models(None, unet, layers, schedule), clips, options)
        run.preview = lambda folder, step: None
        return run

    return build


def test_only_the_changes_learn_and_begin_at_nothing(make, tmp_path):
    run = make(learning_rate=1e-2)
    layers = run.part.models.temporal
    before = {k: v.clone() for k, v in layers.state_dict().items() if k.endswith("original")}
    first = run.loss(0).item()
    train(run, tmp_path, progress=False)
    assert all(torch.equal(v, before[k]) for k, v in layers.state_dict().items() if k in before)
    assert all(p.grad is None for p in layers.parameters() if not any(p is q for q in run.module.parameters()))
    state = load_file(tmp_path / "motion_lora.safetensors")[0]
    assert all(v.any() for k, v in state.items() if "up" in k.split(".")[-2])
    assert run.loss(0).item() != first


def test_the_file_s_changes_are_those_that_were_trained(make, tmp_path, tiny):
    run = make(ema_decay=0.0, learning_rate=1e-2)
    train(run, tmp_path, progress=False)
    trained = run.part.models.temporal
    plain = tiny.temporal(trained.unet_config, trained.config, trained=True)
    state, metadata = load_file(tmp_path / "motion_lora.safetensors")
    assert metadata["modelspec.architecture"].endswith("/motion-lora") and "lumiere.config" not in metadata
    if trained.config.kind == "motion_module":
        assert all("attention_blocks" in key and "processor.to_" in key for key in state)  # as other programs name them
    found, left_out = read_motion_lora(state, plain.state_dict(), trained.unet_config, trained.config, "own")
    assert found and not left_out
    for layer, parts in found.items():
        own = plain.get_submodule(layer).weight
        change = (parts["up"].float().flatten(1) @ parts["down"].float().flatten(1)).view_as(own)
        assert torch.allclose(own + change, trained.get_submodule(layer).weight, atol=2e-3), layer


def test_recomputed_activations_see_the_changes_too(make):
    gradients = []
    for checkpointing in (False, True):
        run = make(checkpointing=checkpointing)
        with torch.no_grad():
            for parameter in run.module.parameters():
                parameter += 0.05
        run.loss(0).backward()
        gradients.append([p.grad.clone() for p in run.module.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))
    assert all(g.any() for g in gradients[0])


def test_the_command_line_on_a_public_motion_module(cache, weights, tmp_path, public_motion, tiny):
    """From AnimateDiff's layout, with its noise levels, to a LoRA in its layout."""
    config = load_parts(sorted(weights.glob("*.safetensors"))).unet_config
    widths = [config.model_channels * m for m in config.channel_mult]
    module = public_motion.motion_file(widths, config.num_res_blocks, frames=24)
    save_file(module, tmp_path / "mm.safetensors")
    arguments = [
        "train",
        "motion-lora",
        "--data",
        cache,
        "--checkpoint",
        weights,
        "--init-from",
        tmp_path / "mm.safetensors",
    ]
    output = tmp_path / "pan.safetensors"
    assert (
        main([*map(str, arguments), "--output", str(output), "--steps", "2", "--sample-every", "-1", "--rank", "3"])
        == 0
    )
    state, metadata = load_file(output)
    assert metadata["lumiere.started_from"] == "mm.safetensors"
    found = read_motion_module(module, config, "mm")
    changes, _ = read_motion_lora(state, found.state, config, found.config, "pan")
    assert {parts["up"].shape[1] for parts in changes.values()} == {3}
    assert len(changes) == 2 * 4 * len(list(public_motion.modules(widths, config.num_res_blocks, False)))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--init-from is missing"),
        (["--init-from", "mm.ckpt"], "mm.ckpt is no safetensors file"),
        (["--rank", "0"], "--rank is 0; a motion LoRA has one"),
        (["--only", "proj"], "--only does nothing when"),
    ],
)
def test_what_it_cannot_do_is_refused(cache, weights, tmp_path, more, message, capsys):
    arguments = ["train", "motion-lora", "--data", cache, "--checkpoint", weights, "--output", tmp_path / "run"]
    assert main([*map(str, arguments), *more])
    assert message in capsys.readouterr().err


def test_rank_is_of_no_use_to_whole_layers():
    with pytest.raises(ValueError, match="--rank does nothing when training on your own clips"):
        options_for("temporal", "cached-clips", {"rank": 4})


def test_a_parametrised_network_computes_what_the_plain_one_does(tiny):
    """At the start the changes are nothing, also in the resizes' convolutions, which use their weights by themselves."""
    from lumiere_core.nets.stunet import SpaceTimeUNet
    from lumiere_core.training.motion_lora import MotionLoRAPart

    config = tiny.unet_config()
    layers = tiny.temporal(config, trained=True)
    unet, inputs = tiny.unet(config), tiny.inputs(frames=8)
    with torch.no_grad():
        before = SpaceTimeUNet(unet, layers)(*inputs)
    options = dataclasses.replace(options_for("motion-lora", "cached-clips-lora", {}), rank=2)
    part = MotionLoRAPart(Models(None, unet, layers, None), options)
    with torch.no_grad():
        assert torch.equal(part.network(*inputs), before)
    assert isinstance(layers, TemporalLayers)
