"""The stage `style`: what it trains, on what, and what it writes."""

import pytest
import torch
from PIL import Image

from lumiere_core.nets.checkpoint import load_file, load_parts
from lumiere_core.nets.lora import apply
from lumiere_core.training import previews
from lumiere_core.training.given import Files, options_for
from lumiere_core.training.loop import train
from lumiere_core.training.stages import build

OPTIONS = {
    "steps": 3,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "warmup": 1,
    "height": 16,
    "width": 16,
    "rank": 2,
    "ema_decay": 0.0,
}


@pytest.fixture
def make(trainer):
    def run(**changes):
        return trainer.stage("style", trainer.options(**OPTIONS | {"style": "neon"} | changes))

    return run


def copies(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def test_deltas_train_and_the_image_model_does_not(make, tmp_path):
    run = make()
    models = run.part.models
    before, text = copies(models.unet), copies(models.text)
    train(run, tmp_path, progress=False)
    for module, state in ((models.unet, before), (models.text, text)):
        assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    file, metadata = load_file(tmp_path / "lora.safetensors")
    assert metadata["modelspec.architecture"] == "lumiere/lora"
    assert '"words": "in glowing neon style"' in metadata["lumiere.config"]
    assert "image.safetensors abc" in metadata["lumiere.config"]
    changed = apply(before, file, 1.0)
    moved = {k for k, v in changed.items() if not torch.equal(v, before[k])}
    assert {k for k in before if k.endswith("weight") and before[k].ndim > 1} <= moved


def test_what_was_trained_is_what_the_file_says(make, tmp_path, tiny):
    """The network with the file's deltas answers as the run's network does."""
    run = make()
    train(run, tmp_path, progress=False)
    unet = tiny.unet()
    unet.load_state_dict(apply(unet.state_dict(), load_file(tmp_path / "lora.safetensors")[0], 1.0))
    x, *rest = tiny.inputs(frames=1)
    with torch.no_grad():
        want = run.network(x, *rest)[:, :, 0]
        assert (unet(x[:, :, 0], *rest) - want).abs().max() < 5e-3  # the file is float16
        assert (tiny.unet()(x[:, :, 0], *rest) - want).abs().max() > 0.05


def test_rank_0_trains_the_whole_image_model(make, tmp_path):
    run = make(rank=0)
    before = copies(run.module)
    train(run, tmp_path, progress=False)
    parts = load_parts(tmp_path / "image.safetensors")
    assert parts.config["size"] == [16, 16] and parts.config["style"]["name"] == "neon"
    assert parts.unet_config == run.module.config and parts.temporal is None
    assert {k for k, v in run.module.state_dict().items() if torch.equal(v, before[k])} <= {"patch_basis"}


def test_pictures_train_too(weights, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (20, 20), (0, 200, 0)).save(folder / "a_leaf.png")
    files = Files(weights / "text.safetensors", weights / "image.safetensors", images=str(folder))
    assert files.source("style") == "pictures"
    options = options_for("style", "pictures", OPTIONS | {"style": "green", "words": "in green", "text_dropout": 0.0})
    run = build("style", files, options, {})
    run.preview = lambda *_: None
    x0, captions = run.source.pictured(range(8))
    assert set(captions) == {"a leaf", "a leaf, in green"}
    assert torch.allclose(x0[:, 1], torch.tensor(200 / 127.5 - 1), atol=1e-3)
    train(run, tmp_path / "run", progress=False)
    assert '"name": "green"' in load_file(tmp_path / "run" / "lora.safetensors")[1]["lumiere.config"]
    Image.new("RGB", (20, 20), (200, 0, 0)).save(folder / "a_leaf.png")  # other pictures under the same name
    with pytest.raises(ValueError, match="other data or another model: data differ"):
        train(build("style", files, options, {}), tmp_path / "run", resume=True, progress=False)


def test_a_run_is_resumed_with_its_own_style_only(make, tmp_path, assert_same_files):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(make(), whole, progress=False)
    train(make(steps=1), parts, progress=False)
    with pytest.raises(ValueError, match="style was 'neon', now 'sticker'"):
        train(make(style="sticker"), parts, resume=True, progress=False)
    train(make(), parts, resume=True, progress=False)
    assert_same_files(whole / "lora.safetensors", parts / "lora.safetensors")


def test_samples_show_the_style(make, tmp_path):
    run = make()
    unet = copies(run.part.models.unet)

    def sheet(step):
        previews.prompts_sheet(run.part, (16, 16), 1, ("snow",), previews.nothing_known, tmp_path, step)

    sheet(0)
    with torch.no_grad():
        run.module.bias["lora_unet_out_2"] += 1.0
    sheet(1)
    pictures = [Image.open(tmp_path / f"step_{i:06d}.png").tobytes() for i in (0, 1)]
    assert pictures[0] != pictures[1]
    assert all(torch.equal(v, unet[k]) for k, v in run.part.models.unet.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"style": "oils"}, "got style 'oils'; give --style with one of watercolor"),
        ({}, "got style ''; give --style with one of watercolor"),
        ({"style": "neon", "layers": "some"}, "layers is 'some'; one of"),
        ({"style": "neon", "rank": -1}, "rank is -1; 0 to"),
    ],
)
def test_bad_options(changes, message):
    with pytest.raises(ValueError, match=message):
        options_for("style", "styled-stills", changes)
