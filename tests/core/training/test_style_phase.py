"""The phase `style`: what it trains, on what, and what it writes."""

import dataclasses

import pytest
import torch
from PIL import Image

from lumiere_core import world
from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.nets.checkpoint import load_file, load_parts
from lumiere_core.nets.lora import apply
from lumiere_core.training.loop import train
from lumiere_core.training.phases.style import Options, StylePhase
from lumiere_core.world.styles import stylise

OPTIONS = Options(
    steps=3, batch_size=4, learning_rate=1e-2, warmup=1, height=16, width=16, style="neon", rank=2, ema_decay=0.0
)


@pytest.fixture
def make(tiny):
    def phase(**changes):
        options = dataclasses.replace(OPTIONS, **changes)
        made = StylePhase(tiny.unet(), tiny.text(), Schedule(), options, "image.safetensors abc")
        made.preview = lambda folder, step: None
        return made

    return phase


def copies(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def test_deltas_train_and_the_image_model_does_not(make, tmp_path):
    phase = make()
    before, text = copies(phase.models.unet), copies(phase.models.text)
    train(phase, phase.options, tmp_path, progress=False)
    for module, state in ((phase.models.unet, before), (phase.models.text, text)):
        assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    file, metadata = load_file(tmp_path / "lora.safetensors")
    assert metadata["modelspec.architecture"] == "lumiere/lora"
    assert '"words": "in glowing neon style"' in metadata["lumiere.config"]
    assert "image.safetensors abc" in metadata["lumiere.config"]
    changed = apply(before, file, 1.0)
    moved = {k for k, v in changed.items() if not torch.equal(v, before[k])}
    assert {k for k in before if k.endswith("weight") and before[k].ndim > 1} <= moved


def test_what_was_trained_is_what_the_file_says(make, tmp_path, tiny):
    """The network with the file's deltas answers as the phase's network does."""
    phase = make()
    train(phase, phase.options, tmp_path, progress=False)
    unet = tiny.unet()
    unet.load_state_dict(apply(unet.state_dict(), load_file(tmp_path / "lora.safetensors")[0], 1.0))
    x, *rest = tiny.inputs()
    with torch.no_grad():
        want = phase.network(x[:, :, 0], *rest)
        assert (unet(x[:, :, 0], *rest) - want).abs().max() < 5e-3  # the file is float16
        assert (tiny.unet()(x[:, :, 0], *rest) - want).abs().max() > 0.05


def test_rank_0_trains_the_whole_image_model(make, tmp_path):
    phase = make(rank=0)
    before = copies(phase.module)
    train(phase, phase.options, tmp_path, progress=False)
    parts = load_parts(tmp_path / "image.safetensors")
    assert parts.config["size"] == [16, 16] and parts.config["style"]["name"] == "neon"
    assert parts.unet_config == phase.module.config and parts.temporal is None
    assert {k for k, v in phase.module.state_dict().items() if torch.equal(v, before[k])} == set()


def test_batches_are_the_world_s_in_the_style(make):
    phase = make(batch_size=16, text_dropout=0.0)
    x0, captions, _ = phase.pictured([0])[0]
    named = [caption.endswith(", in glowing neon style") for caption in captions]
    assert 2 < sum(named) < 14
    plain = [caption.removesuffix(", in glowing neon style") for caption in captions]
    scenes = [world.sample_scene(i, split="train") for i in range(16)]
    assert plain == [scene.caption for scene in scenes]
    again, _, objects = phase.pictured([0])[0]
    assert torch.equal(x0, again) and objects.shape == (16, 1, 16, 16)
    assert not torch.equal(x0, phase.pictured([1])[0][0])
    assert (stylise(x0, "neon") - x0).abs().mean() > 0.01


def test_pictures_train_too(make, tmp_path, tiny):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (20, 20), (0, 200, 0)).save(folder / "a_leaf.png")
    phase = make(images=str(folder), style="green", words="in green", text_dropout=0.0)
    x0, captions, objects = phase.pictured([0])[0]
    assert objects is None and set(captions) == {"a leaf", "a leaf, in green"}
    assert torch.allclose(x0[:, 1], torch.tensor(200 / 127.5 - 1), atol=1e-3)
    train(phase, phase.options, tmp_path / "run", progress=False)
    assert load_file(tmp_path / "run" / "lora.safetensors")[0]


def test_a_run_is_resumed_with_its_own_style_only(make, tmp_path, assert_same_files):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(make(), OPTIONS, whole, progress=False)
    shorter = dataclasses.replace(OPTIONS, steps=1)
    train(make(), shorter, parts, progress=False)
    with pytest.raises(ValueError, match="style was 'neon', now 'sticker'"):
        other = dataclasses.replace(OPTIONS, style="sticker")
        train(make(style="sticker"), other, parts, resume=True, progress=False)
    train(make(), OPTIONS, parts, resume=True, progress=False)
    assert_same_files(whole / "lora.safetensors", parts / "lora.safetensors")


def test_previews_show_the_style(tiny, tmp_path):
    phase = StylePhase(tiny.unet(), tiny.text(), Schedule(), OPTIONS)
    phase.preview_prompts = ("snow",)
    unet = copies(phase.models.unet)
    phase.preview(tmp_path, 0)
    with torch.no_grad():
        phase.deltas.bias["lora_unet_out_2"] += 1.0
    phase.preview(tmp_path, 1)
    pictures = [Image.open(tmp_path / f"step_{i:06d}.png").tobytes() for i in (0, 1)]
    assert pictures[0] != pictures[1]
    assert all(torch.equal(v, unet[k]) for k, v in phase.models.unet.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"style": "oils"}, "got style 'oils'; give --style with one of watercolor"),
        ({"layers": "some"}, "of 'some' layers"),
        ({"rank": -1}, "got rank -1"),
    ],
)
def test_bad_options(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(OPTIONS, **changes)
