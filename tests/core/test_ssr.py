"""The super-resolution stage: what it sees, where it starts, which files it takes, and clips made by windows."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from lumiere_core.clips.video import from_uint8, to_uint8
from lumiere_core.diffusion.models import Models, load_upscaler
from lumiere_core.diffusion.multidiffusion import denoise_in_windows
from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.diffusion.upscale import NOISES, UpscaleRequest, upscale
from lumiere_core.nets.checkpoint import WEIGHTS, load_parts, metadata_for, save_file
from lumiere_core.nets.config import SSRConfig, UNetConfig
from lumiere_core.nets.ssr import SSRNetwork, augment, bundled_ssr_files, pooled_with_level, ssr_config, upsample
from lumiere_core.nets.unet import UNet
from lumiere_core.nets.unet_layers import SpatialTransformer
from lumiere_core.training.parts import new_unet
from lumiere_core.training.recipes import architecture

CONFIG = SSRConfig(level_channels=32)


@pytest.fixture
def stage(tiny):
    """Function (fresh=False, temporal=True) -> networks of a small stage."""

    def build(fresh=False, temporal=True):
        config = tiny.unet_config(in_channels=6, patch_size=4, adm_in_channels=64, disable_self_attn=True)
        unet = new_unet(config, 0) if fresh else tiny.unet(config)
        layers = tiny.temporal(config, trained=not fresh) if temporal else None
        models = Models(tiny.text(), unet, layers, Schedule(prediction="x0"), CONFIG)
        for part in (models.text, unet, layers):
            if part is not None:
                part.eval().requires_grad_(False)
        return models

    return build


def clip(frames=6, height=8, width=8):
    return torch.randint(0, 256, (frames, height, width, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_a_fresh_network_upsamples(stage):
    """Its last convolution is zero, so it starts at the bicubic enlargement of the small clip."""
    frames = clip()
    made = upscale(stage(fresh=True), frames, UpscaleRequest(context_length=4))
    wanted = upsample(from_uint8(frames).transpose(0, 1), 4).transpose(0, 1)
    assert (made.int() - to_uint8(wanted).int()).abs().max() <= 1


@pytest.mark.parametrize("temporal", [True, False])
@pytest.mark.parametrize(("frames", "height", "width"), [(1, 8, 8), (5, 7, 9)])
def test_any_length_and_size(stage, temporal, frames, height, width):
    models = stage(temporal=temporal)
    made = upscale(models, clip(frames, height, width), UpscaleRequest(steps=1, context_length=4))
    assert made.shape == (frames, 4 * height, 4 * width, 3)


def test_one_window_over_all_is_no_window(stage, monkeypatch):
    models, frames = stage(), clip()
    planned = []

    def planning(denoise, x, windows, weights):
        planned.append(windows)
        return denoise_in_windows(denoise, x, windows, weights)

    monkeypatch.setattr("lumiere_core.diffusion.upscale.denoise_in_windows", planning)
    whole = upscale(models, frames, UpscaleRequest(steps=2, context_length=99))
    assert planned == [[tuple(range(6))]] * 2
    cut = upscale(models, frames, UpscaleRequest(steps=2, context_length=4))
    assert not torch.equal(whole, cut)


def test_back_projection_is_the_weights_unless_it_is_asked_for(stage):
    models, frames = stage(), clip()
    plain = upscale(models, frames, UpscaleRequest(steps=1))
    models.ssr = dataclasses.replace(CONFIG, back_projection=4)
    kept = upscale(models, frames, UpscaleRequest(steps=1))
    assert torch.equal(upscale(models, frames, UpscaleRequest(steps=1, back_projection=0)), plain)
    assert torch.equal(upscale(models, frames, UpscaleRequest(steps=1, back_projection=4)), kept)
    small = from_uint8(frames)
    off = [(F.avg_pool3d(from_uint8(made), (1, 4, 4)) - small).abs().mean() for made in (plain, kept)]
    assert off[1] < 0.7 * off[0]
    with pytest.raises(ValueError, match="back_projection is -1"):
        UpscaleRequest(back_projection=-1)


def test_noise_levels_and_the_small_clip_reach_the_network(stage, tiny):
    models = stage()
    network = SSRNetwork(models.unet, models.temporal, CONFIG)
    x, timesteps, context, pooled = tiny.inputs(frames=4, height=16, width=16)
    low = torch.randn(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(4))
    level = torch.tensor([0.0, 0.9])

    def answer(low=low, level=level[:1]):
        return network(x, timesteps, context, pooled_with_level(pooled, level, CONFIG), low)

    first = answer()
    assert first.shape == (1, 3, 4, 16, 16)
    assert not torch.allclose(first, answer(level=level[1:]), atol=1e-4)
    assert not torch.allclose(first - low, answer(low.flip(2)) - low.flip(2), atol=1e-3)


def test_augmentation_adds_noise_of_the_level():
    low, noise = torch.zeros(3, 3, 8, 8), torch.ones(3, 3, 8, 8)
    out = augment(low, noise, torch.tensor([0.0, 0.5, 1.0]), CONFIG)
    assert torch.allclose(out[:, 0, 0, 0], torch.tensor([0.0, 0.15, 0.3]))


def test_without_self_attention_a_far_pixel_changes_nothing(tiny):
    """Attention is over the text only: the transformer works on every pixel by itself, but for its norm."""
    config = tiny.unet_config(disable_self_attn=True)
    block = next(m for m in tiny.unet(config).modules() if isinstance(m, SpatialTransformer))
    norm = block.norm
    block.norm = torch.nn.Identity()  # it sees the whole image
    x = torch.randn(1, norm.num_channels, 4, 4, generator=torch.Generator().manual_seed(0))
    context = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(1))
    changed = x.clone()
    changed[..., 3, 3] += 1
    same = (block(x, context) - block(changed, context)).abs().amax(dim=1)[0]
    assert same[3, 3] > 1e-3 and same.flatten()[:-1].max() < 1e-6


def test_cost_grows_with_the_pixels_only():
    """FLOPs are linear in the area: nothing but the text is attended to."""
    from torch.utils.flop_counter import FlopCounterMode

    config = UNetConfig(
        in_channels=6,
        model_channels=64,
        channel_mult=(1, 2),
        num_res_blocks=(1, 1),
        transformer_depth=(0, 1),
        transformer_depth_output=(0, 0, 1, 1),
        adm_in_channels=256,
        disable_self_attn=True,
    )
    flops = []
    with torch.device("meta"):
        network = SSRNetwork(UNet(config), None, SSRConfig())
        for side in (256, 1024):
            x = torch.empty(1, 3, 1, side, side)
            with FlopCounterMode(display=False) as counter:
                out = network(x, torch.empty(1), torch.empty(1, 8, 128), torch.empty(1, 256), x)
            assert out.shape == x.shape
            flops.append(counter.get_total_flops())
    assert flops[1] / flops[0] == pytest.approx(16, rel=0.01)


@pytest.mark.slow
def test_the_papers_size_is_built_and_counted():
    """128 -> 1024 in 16 frames, on the meta device: shape, parameters, FLOPs a frame and the largest activation."""
    from torch.utils.flop_counter import FlopCounterMode

    from lumiere_core.nets.config import TemporalConfig
    from lumiere_core.nets.temporal import TemporalLayers

    config = UNetConfig(
        in_channels=6,
        model_channels=128,
        channel_mult=(1, 2, 4, 8),
        num_res_blocks=(2, 4, 8, 8),
        transformer_depth=(0,) * 14 + (1,) * 8,
        transformer_depth_output=(0,) * 17 + (1,) * 9,
        context_dim=4096,
        adm_in_channels=256,
        disable_self_attn=True,
    )
    with torch.device("meta"):
        layers = TemporalLayers(config, TemporalConfig())
        network = SSRNetwork(UNet(config), layers, SSRConfig(scale=8)).requires_grad_(False)
        x = torch.empty(1, 3, 16, 1024, 1024)
        largest = []
        for module in network.modules():
            module.register_forward_hook(lambda m, i, o: largest.append(o.numel()))
        with FlopCounterMode(display=False) as counter:
            out = network(x, torch.empty(1), torch.empty(1, 8, 4096), torch.empty(1, 256), x)
    assert out.shape == x.shape
    assert max(largest) == 16 * (256 + 128) * 1024 * 1024  # upsampled features beside a skip
    assert 10e12 < counter.get_total_flops() / 16 < 100e12
    assert 0.5e9 < sum(p.numel() for p in network.parameters()) < 5e9


def test_files(tmp_path, weights, stage, tiny):
    models = stage()
    config = {
        "ssr": CONFIG.to_dict(),
        "unet": models.unet.config.to_dict(),
        "schedule": models.schedule.to_dict(),
        "temporal": models.temporal.config.to_dict(),
    }
    state = {f"image.{k}": v for k, v in models.unet.state_dict().items()}
    state |= {f"temporal.{k}": v for k, v in models.temporal.state_dict().items()}
    file = tmp_path / "ssr.safetensors"
    save_file(state, file, metadata_for("ssr", config))
    loaded, parts = load_upscaler([weights / "text.safetensors", file])
    request = UpscaleRequest(steps=1, context_length=4)
    difference = upscale(loaded, clip(), request).int() - upscale(models, clip(), request).int()
    assert difference.abs().float().mean() < 1  # the text encoder's file holds halves
    assert ssr_config(parts) == CONFIG
    with pytest.raises(ValueError, match='no super-resolution model.*no "ssr"'):
        load_upscaler([weights / "text.safetensors", weights / "image.safetensors"])
    with pytest.raises(ValueError, match="no text weights"):
        load_upscaler([file])
    with pytest.raises(FileNotFoundError, match=r"mini-text.*install it again"):
        bundled_ssr_files(tmp_path)


def test_what_stands_still_comes_out_still(stage):
    """With one noise for all frames, where frames do not see each other; else each frame gets its own."""
    still = clip(1).expand(5, -1, -1, -1)
    models = stage(temporal=False)
    same, new = (upscale(models, still, UpscaleRequest(noise=noise)) for noise in NOISES)
    assert (same == same[:1]).all() and torch.equal(same[0], new[0])
    assert not (new == new[:1]).all()


def test_noise_that_the_layers_never_saw_is_refused(stage, tiny):
    new = UpscaleRequest(noise=NOISES[1], steps=1, context_length=4)
    with pytest.raises(ValueError, match="trained with the same noise in all frames.*--fresh-noise"):
        upscale(stage(), clip(), new)
    trained = stage()
    trained.temporal.config = dataclasses.replace(trained.temporal.config, fresh_noise=0.5)
    for models, request in (trained, new), (stage(), dataclasses.replace(new, context_length=1, context_overlap=0)):
        assert not torch.equal(
            upscale(models, clip(), request), upscale(models, clip(), dataclasses.replace(request, noise=NOISES[0]))
        )


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"noise_augmentation": 1.5}, {"noise": "none"}])
def test_requests_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        UpscaleRequest(**wrong)


def test_the_recipe_is_a_stage():
    recipe = architecture("ssr")
    unet, ssr = UNetConfig.from_dict(recipe["unet"]), SSRConfig.from_dict(recipe["ssr"])
    assert unet.in_channels == 6 and unet.disable_self_attn and unet.out_channels == 3
    text = load_parts(WEIGHTS / "mini-text.safetensors").text_config
    assert unet.adm_in_channels == text.width + ssr.level_channels
