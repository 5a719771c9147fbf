"""Masked conditions in the host: stock nodes drive our MODEL, and core's Space-Time U-Net agrees (Lumiere §4.2)."""

import pytest
import torch

pytestmark = pytest.mark.host

WINDOWS = {"context_length": 4, "context_overlap": 2, "weighting": "uniform", "closed_loop": False}


@pytest.fixture(scope="module")
def conditioned(studio):
    """(MODEL, VAE) with a conv_cond; its other weights are those of studio.model."""
    model, _, vae = studio.load("conditioned.safetensors", conv_cond=True)
    return model, vae


def video(frames=4):
    return torch.rand(frames, 16, 16, 3, generator=torch.Generator().manual_seed(3))


def half_known(frames=4):
    """Host polarity, 1 = generate: frame 0 is known, and the left half of the others."""
    mask = torch.ones(frames, 16, 16)
    mask[0], mask[:, :, :8] = 0, 0
    return mask


def inpaint(studio, vae, frames=4, noise_mask=False, mask=None):
    return studio.host.call(
        "InpaintModelConditioning",
        positive=studio.positive,
        negative=studio.negative,
        pixels=video(frames),
        vae=vae,
        mask=half_known(frames) if mask is None else mask,
        noise_mask=noise_mask,
    )


def empty(frames=4):
    return {"samples": torch.zeros(frames, 3, 16, 16)}


def test_no_condition_is_the_model_without_conv_cond(studio, conditioned):
    model, _ = conditioned
    for frames in (1, 4, 5):
        assert torch.equal(studio.sample(model, frames), studio.sample(frames=frames))


def test_all_unknown_is_no_condition(studio, conditioned):
    model, vae = conditioned
    positive, negative, _ = inpaint(studio, vae, mask=torch.ones(4, 16, 16))
    got = studio.sample(model, positive=positive, negative=negative)
    assert torch.equal(got, studio.sample(model))


def test_inpaint_model_conditioning_drives_it(studio, conditioned, spied):
    model, vae = conditioned
    positive, negative, latent = inpaint(studio, vae)
    seen = []
    got = studio.sample(spied(model, seen), positive=positive, negative=negative, latent=empty())
    assert (got - studio.sample(model)).abs().max() > 1e-3
    shape, condition = seen[0]
    assert shape[1] == 3  # the U-Net's own input stays as it is
    clip, known = condition[:4].split([3, 1], dim=1)
    assert torch.equal(known[:, 0], 1 - half_known())
    assert torch.allclose(clip * known, (video().movedim(-1, 1) * 2 - 1) * known, atol=1e-6)


def test_a_noise_mask_alone_drives_it_too(studio, conditioned, spied):
    """SetLatentNoiseMask: the condition is the latent, and what is known stays."""
    model, vae = conditioned
    (encoded,) = studio.host.call("VAEEncode", pixels=video(), vae=vae)
    (latent,) = studio.host.call("SetLatentNoiseMask", samples=encoded, mask=half_known())
    seen = []
    got = studio.sample(spied(model, seen), latent=latent)
    known = (1 - half_known())[:, None].expand(-1, 3, -1, -1) == 1
    assert torch.allclose(got[known], encoded["samples"][known], atol=1e-5)
    assert torch.equal(seen[0][1][:4, 3:], (1 - half_known())[:, None])
    (ours,) = studio.host.call("SetLatentNoiseMask", samples=encoded, mask=half_known())
    plain = studio.sample(latent=ours)
    assert (got - plain).abs().max() > 1e-3  # the layers did see it


def test_it_is_core_s_answer(studio, conditioned, host):
    """One network call with a condition, in the host and in core, for a clip that must be padded."""
    import comfy.samplers

    model, vae = conditioned
    positive, negative, _ = inpaint(studio, vae, frames=5)
    x = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    estimate = {}

    def once(denoise, x, sigmas, extra_args=None, callback=None, disable=None):
        estimate["x"], estimate["x0"] = x, denoise(x, x.new_full([len(x)], 2.0), **extra_args)
        return x

    comfy.samplers.sample(
        model,
        x,
        positive,
        negative,
        1.0,
        model.load_device,
        comfy.samplers.KSAMPLER(once),
        torch.tensor([2.0, 0.0]),
        model.model_options,
        latent_image=torch.zeros_like(x),
        seed=0,
    )

    models, _ = host.module("lumiere_core.diffusion.models").load_models(studio.folder / "conditioned.safetensors")
    known = 1 - half_known(5)[None, None]
    condition = host.module("lumiere_core.clips.conditioning").Condition((video(5) * 2 - 1).movedim(-1, 0)[None], known)
    sigma, noised = torch.tensor([2.0]), estimate["x"].movedim(0, 1)[None]
    with torch.no_grad():
        want = models.denoiser()(noised, sigma, models.encode(["a red ball"]), condition.tensor())
    want = want[0].movedim(1, 0)
    assert (estimate["x0"] - want).abs().max() < 1e-3


def test_one_frame_is_the_image_model_all_the_same(studio, conditioned):
    model, vae = conditioned
    positive, negative, _ = inpaint(studio, vae, frames=1)
    got = studio.sample(model, 1, positive=positive, negative=negative)
    assert torch.equal(got, studio.sample(frames=1))


def test_the_image_model_is_left_as_it_was(studio, conditioned, inflate):
    """Other layers on the same MODEL bring their own answer to the question of conditions."""
    model, _ = conditioned
    assert model.get_model_object("concat_keys") == inflate.CONCAT_KEYS
    config = inflate.inflation_of(studio.model).temporal_config
    plain = inflate.inflate(model, None, config)
    studio.sample(model)
    assert plain.get_model_object("concat_keys") == () and studio.sample(plain).isfinite().all()


def test_temporal_layers_are_saved_with_conv_cond(studio, conditioned, host):
    model, _ = conditioned
    host.call("LumiereSaveTemporal", model=model, filename_prefix="conditioned/layers")
    (file,) = (host.base / "output" / "conditioned").glob("*.safetensors")
    parts = host.module("lumiere_core.nets.checkpoint").load_parts(file)
    assert parts.temporal_config.conv_cond and parts.temporal["conv_cond.weight"].any()


def test_an_inpainting_model_with_own_channels_is_refused(studio, conditioned, inflate, clips):
    model, _ = conditioned
    other = studio.model.clone()
    other.add_object_patch("concat_keys", ("mask", "masked_image"))
    state = clips.temporal_patcher(model).model.state_dict()
    config = inflate.inflation_of(model).temporal_config
    with pytest.raises(ValueError, match="inpainting or depth model.*plain image model"):
        inflate.inflate(other, state, config)


def test_a_stock_condition_that_nothing_sees_is_named(studio, conditioned, log):
    positive, negative, _ = inpaint(studio, studio.vae)
    got = studio.sample(positive=positive, negative=negative)
    assert torch.equal(got, studio.sample())  # it does nothing, and that is said
    assert "no weights for (no conv_cond)" in log() and "InpaintModelConditioning" in log()


def test_a_stock_condition_that_is_seen_is_not_named(studio, conditioned, log):
    model, vae = conditioned
    positive, negative, _ = inpaint(studio, vae)
    studio.sample(model, positive=positive, negative=negative)
    studio.sample()
    assert "no conv_cond" not in log()


def test_an_inpainting_image_model_sees_it_itself(backbones, write_temporal, stand_ins, host, log):
    """Temporal layers without conv_cond around a U-Net of nine channels."""
    image, file, vae = backbones("SD15 inpaint"), "around_inpaint.safetensors", stand_ins[1]
    write_temporal(image, file)
    (model,) = host.call("LumiereApplyTemporal", model=image, temporal=file, frames_per_clip=0)
    positive, negative, _ = host.call(
        "InpaintModelConditioning",
        positive=backbones.text(1),
        negative=backbones.text(2),
        pixels=large(4),
        vae=vae,
        mask=large_mask(4),
        noise_mask=False,
    )
    backbones.sample(model, 4, positive=positive, negative=negative)
    assert "no conv_cond" not in log()


# --- latent models ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def latent_model(backbones, write_temporal, stand_ins, host):
    """(MODEL, VAE): SD1.5's U-Net and temporal layers with a conv_cond."""
    image, file = backbones("SD15"), "latent_condition.safetensors"
    write_temporal(image, file, conv_cond=True)
    (model,) = host.call("LumiereApplyTemporal", model=image, temporal=file, frames_per_clip=0)
    return model, stand_ins[1]


def large(frames, seed=4):
    return torch.rand(frames, 64, 64, 3, generator=torch.Generator().manual_seed(seed))


def large_mask(frames):
    """Host polarity: frame 0 is known, and of the others the left half."""
    mask = torch.ones(frames, 64, 64)
    mask[0], mask[:, :, :32] = 0, 0
    return mask


def test_a_latent_model_takes_a_condition(backbones, latent_model, host, spied):
    """Around SD1.5's U-Net: four noisy channels go in, and C (four) and M (one) to the layers' convolution."""
    model, vae = latent_model
    seen, made = [], []
    mask = large_mask(5)
    for seed in (4, 5):
        condition = large(5, seed)
        positive, negative, latent = host.call(
            "LumiereApplyCondition",
            positive=backbones.text(1),
            negative=backbones.text(2),
            vae=vae,
            condition=condition,
            mask=mask,
        )
        assert latent["samples"].shape == (5, 4, 8, 8)
        spy = spied(model, seen)  # no noise mask: the layers alone make the difference
        made.append(backbones.sample(spy, 5, positive=positive, negative=negative))
    shape, given = seen[0]
    assert shape[1:] == (4, 8, 8) and given.shape[1:] == (5, 8, 8)
    clip, known = given[:5].split([4, 1], dim=1)
    assert torch.equal(known[:, 0], 1 - mask[:, ::8, ::8])
    grey = torch.where(mask[..., None] > 0.5, torch.tensor(0.5), large(5))
    expected = model.model.process_latent_in(vae.encode(grey))
    assert torch.allclose(clip, expected, atol=1e-5)
    assert (made[0] - made[1]).abs().max() > 1e-3
    plain = backbones.sample(model, 5)
    assert (made[0] - plain).abs().max() > 1e-3


def test_a_latent_model_holds_what_is_known(backbones, latent_model, host):
    model, vae = latent_model
    positive, negative, latent = host.call(
        "LumiereApplyCondition",
        positive=backbones.text(1),
        negative=backbones.text(2),
        vae=vae,
        condition=large(4),
        mask=large_mask(4),
    )
    got = backbones.sample(model, 4, positive=positive, negative=negative, latent=latent)
    known = (large_mask(4)[:, ::8, ::8] == 0)[:, None].expand_as(got)
    assert torch.allclose(got[known], latent["samples"][known], atol=1e-4)
    tall = {"samples": torch.zeros(4, 4, 16, 8)}
    with pytest.raises(ValueError, match="for 4 frames of 64x64.*clip of 4 frames of 64x128"):
        backbones.sample(model, positive=positive, negative=negative, latent=tall)


def test_windows_along_time_get_their_own_part_of_the_condition(studio, conditioned, spied):
    """Temporal Multidiffusion (Lumiere §3.2): each window sees what is known of its own frames."""
    model, vae = conditioned
    mask = half_known(8)
    mask[5] = 0
    positive, negative, _ = inpaint(studio, vae, frames=8, mask=mask)
    seen = []
    (windowed,) = studio.host.call("LumiereTemporalMultidiffusion", model=spied(model, seen), **WINDOWS)
    studio.sample(windowed, latent=empty(8), positive=positive, negative=negative, steps=1)
    parts = {tuple(condition[:4, 3].flatten(1).mean(1).tolist()) for _, condition in seen}
    known = (1 - mask).flatten(1).mean(1).tolist()
    assert parts == {tuple(known[start : start + 4]) for start in (0, 2, 4)}
