"""Weights for twice the size: the old model with its pixels repeated, before any training."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from lumiere_core.clips.conditioning import Condition
from lumiere_core.commands import cli
from lumiere_core.diffusion.generate import Request, generate
from lumiere_core.diffusion.models import load_models
from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.nets.checkpoint import Parts, bundled_files, bundled_names, load_parts
from lumiere_core.nets.details import means_of_pixels
from lumiere_core.nets.interpolate import interpolate_parts
from lumiere_core.nets.stunet import SpaceTimeUNet
from lumiere_core.nets.temporal import TemporalLayers
from lumiere_core.nets.unet import UNet
from lumiere_core.training import double
from lumiere_core.training.double import doubled, patch_basis
from lumiere_core.training.given import Files
from lumiere_core.training.loop import train
from lumiere_core.training.stages import build


def large(video):
    """(b, c, t, h, w) with every pixel repeated 2x2."""
    return video.repeat_interleave(2, 3).repeat_interleave(2, 4)


@pytest.fixture(params=[0, 8], ids=["wider", "details"])
def pair(tiny, request):
    """A patchwise pixel model with conditions, and what it becomes: with wider convolutions, or details after it."""
    unet, temporal = tiny.unet_config(patch_size=2), tiny.temporal_config(conv_cond=True)
    config = {"unet": unet.to_dict(), "temporal": temporal.to_dict(), "schedule": Schedule(prediction="x0").to_dict()}
    layers = tiny.temporal(unet, temporal, trained=True)
    parts = Parts(config, image=tiny.unet(unet).state_dict(), temporal=layers.state_dict())
    frames = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return parts, doubled(parts, components=5, frames=frames, detail_width=request.param)


def estimate(tiny, parts, x, sigma, known=None):
    """The clean estimate of a clip with noise of strength sigma."""
    unet, temporal = UNet(parts.unet_config), TemporalLayers(parts.unet_config, parts.temporal_config)
    unet.load_state_dict(parts.image), temporal.load_state_dict(parts.temporal)
    schedule, sigma = Schedule(**parts.schedule), torch.tensor([sigma])
    texts = tiny.inputs()
    inputs = schedule.network_input(x, sigma), schedule.timestep(sigma).float(), texts.context, texts.y
    with torch.no_grad():
        return schedule.denoised(x, SpaceTimeUNet(unet, temporal)(*inputs, known=known), sigma)


def test_the_basis_is_orthonormal_and_begins_with_the_means():
    frames = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    basis = patch_basis(frames, 8, 7)
    rows = basis.flatten(1)
    assert basis.shape == (48 + 7, 3, 8, 8)
    assert torch.allclose(rows @ rows.T, torch.eye(55), atol=1e-5)
    means = F.conv2d(frames, basis[:48], stride=8)  # of 2x2 pixels, times two, in the order of 4x4 patches
    assert torch.allclose(means, F.pixel_unshuffle(2 * F.avg_pool2d(frames, 2), 4), atol=1e-5)
    assert torch.equal(rows[:48], means_of_pixels(3, 8))


def test_the_components_hold_most_of_what_the_means_leave_out():
    """Stripes that the means cannot hold are one component."""
    stripes = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 1, 16, 16)
    rows = patch_basis(stripes * torch.linspace(0.1, 1, 5).view(-1, 1, 1, 1), 8, 1).flatten(1)
    patch = stripes[0, 0, :8, :8].flatten()
    assert torch.allclose(patch @ rows.T @ rows, patch, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 30.0])
def test_untrained_it_is_the_old_model_with_repeated_pixels(tiny, pair, sigma):
    before, after = pair
    x = tiny.inputs(frames=4, height=16, width=16).x * (1 + sigma)
    known = (tiny.inputs(frames=4, channels=1, seed=5).x > 0).float()
    known = Condition(tiny.inputs(frames=4, seed=6).x, known).tensor()
    small = F.avg_pool3d(x, (1, 2, 2))
    wanted = estimate(tiny, before, small, sigma, known)
    assert torch.allclose(estimate(tiny, after, x, 2 * sigma, large(known)), large(wanted), atol=1e-5)
    wanted = estimate(tiny, before, small[:, :, :1], sigma)  # the image model alone
    assert torch.allclose(estimate(tiny, after, x[:, :, :1], 2 * sigma), large(wanted), atol=1e-5)


def test_what_is_known_reaches_it_in_single_pixels(tiny, pair):
    """The mask's pixels are not averaged once conv_cond was trained on them."""
    _, after = pair
    assert after.temporal["conv_cond.weight"].shape[1] == 4 * 4 * 4
    after.temporal["conv_cond.weight"] = torch.randn(after.temporal["conv_cond.weight"].shape)
    x = torch.zeros(1, 3, 4, 16, 16)
    one, other = torch.zeros(2, 1, 4, 4, 16, 16)
    one[..., 5, 5], other[..., 5, 4] = 1, 1
    found = [estimate(tiny, after, x, 1.0, known) for known in (one, other)]
    assert not torch.allclose(*found, atol=1e-3)


def test_the_command_writes_a_model_that_makes_clips_of_twice_the_size(weights, tmp_path):
    parts = load_parts(sorted(weights.glob("*.safetensors")))
    assert (
        cli.main(
            [
                "double",
                "--weights",
                str(weights),
                "--output",
                str(tmp_path / "big"),
                "--components",
                "2",
                "--scenes",
                "8",
            ]
        )
        == 0
    )
    models, after = load_models(tmp_path / "big")
    assert after.config["size"] == [2 * side for side in parts.config["size"]]
    assert models.schedule.sigma_data == 2
    clip = generate(models, Request("a red ball", num_frames=4, height=32, width=32, steps=1))
    assert clip.shape == (4, 32, 32, 3)


def test_weights_are_doubled_once(pair):
    with pytest.raises(ValueError, match="doubled before"):
        doubled(pair[1])


def test_an_image_model_alone_is_doubled_too(pair):
    after = doubled(dataclasses.replace(pair[0], temporal=None), 2, torch.randn(1, 3, 32, 32))
    details = after.unet_config.detail_width > 0
    assert after.temporal is None and after.unet_config.first_channels == 3 * 4 + (0 if details else 2)


@pytest.mark.parametrize("pair", [8], indirect=True)
def test_trained_details_leave_the_means_of_pixels_as_they_were(tiny, pair):
    before, after = pair
    for name in [name for name in after.image if name.startswith("details.")]:
        after.image[name] = torch.randn(after.image[name].shape, generator=torch.Generator().manual_seed(len(name)))
    x = tiny.inputs(frames=4, height=16, width=16).x
    made = estimate(tiny, after, x, 2.0)
    small = estimate(tiny, before, F.avg_pool3d(x, (1, 2, 2)), 1.0)
    assert torch.allclose(F.avg_pool3d(made, (1, 2, 2)), small, atol=1e-5)
    assert not torch.allclose(made, large(small), atol=1e-2)


@pytest.fixture
def details(trainer, weights, tmp_path, monkeypatch):
    """What a run of `train details` on tiny weights wrote, and the run."""
    monkeypatch.setattr(double, "world_frames", lambda height, width, count: torch.randn(8, 3, height, width))
    files = Files(text=weights / "text.safetensors", image=weights / "image.safetensors")
    options = trainer.options(height=32, width=32, steps=2)
    run = build("details", files, options, {})
    before = {k: v.clone() for k, v in run.part.models.unet.state_dict().items()}
    train(run, tmp_path / "run", progress=False)
    now = run.part.models.unet.state_dict()
    assert {k for k in now if not torch.equal(now[k], before[k])} == {k for k in now if k.startswith("details.")}
    return tmp_path / "run" / "details.safetensors", run


def test_details_alone_train_and_are_read_with_the_model_before(details, weights, tmp_path):
    file, run = details
    files = [*sorted(weights.glob("*.safetensors")), file]
    for order in (files, files[::-1]):
        models, parts = load_models(order)
        assert parts.config["size"] == [32, 32] and models.schedule.sigma_data == 2
        assert models.unet.config == run.part.models.unet.config
    assert generate(models, Request("a red ball", num_frames=4, height=32, width=32, steps=1)).shape == (4, 32, 32, 3)
    with pytest.raises(ValueError, match="twice the size, but not the model"):
        load_parts(file)
    further = Files(text=weights / "text.safetensors", image=weights / "image.safetensors", init_from=file)
    again = build("details", further, run.options, {}).part.models.unet.details.state_dict()
    assert all(torch.equal(value.half(), parts.image[f"details.{key}"]) for key, value in again.items())
    with pytest.raises(ValueError, match="text.safetensors holds no details"):
        build("details", dataclasses.replace(further, init_from=weights / "text.safetensors"), run.options, {})


def test_a_style_of_the_model_before_fits(details, weights):
    """By a LoRA and by interpolated weights; the details stay."""
    original = load_parts([*sorted(weights.glob("*.safetensors")), details[0]])
    style = load_parts(weights / "image.safetensors")
    style.image = {key: value + 1 for key, value in style.image.items()}
    mixed = interpolate_parts(original, style, 1.0).image
    for key, value in original.image.items():
        same = key == "patch_basis" or key.startswith("details.")
        assert torch.equal(mixed[key], value) == same, key


def test_a_file_of_details_is_a_model_of_the_pack(tmp_path):
    for name in ("text", "image", "temporal", "image-oils", "details-128"):
        (tmp_path / f"mini-{name}.safetensors").touch()
    assert bundled_names(tmp_path) == ["mini", "mini-oils", "mini-128"]
    files = [file.name for file in bundled_files("mini-128", tmp_path)]
    assert files == [f"mini-{name}.safetensors" for name in ("text", "image", "temporal", "details-128")]
    with pytest.raises(FileNotFoundError, match="mini-details-256"):
        bundled_files("mini-256", tmp_path)
