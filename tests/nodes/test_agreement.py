"""Core and host compute the same: U-Nets, noise schedules, whole runs."""

import json

import pytest
import torch

pytestmark = pytest.mark.host

SD15 = {
    "model_channels": 32,
    "channel_mult": (1, 2, 4, 4),
    "num_res_blocks": (2, 2, 2, 2),
    "transformer_depth": (1, 1, 1, 1, 1, 1, 0, 0),
    "transformer_depth_output": (1,) * 9 + (0,) * 3,
    "transformer_depth_middle": 1,
    "context_dim": 64,
    "num_heads": 8,
    "num_head_channels": -1,
    "in_channels": 4,
    "out_channels": 4,
}
SDXL = {
    "model_channels": 32,
    "channel_mult": (1, 2, 4),
    "num_res_blocks": (2, 2, 2),
    "transformer_depth": (0, 0, 2, 2, 3, 3),
    "transformer_depth_output": (0, 0, 0, 2, 2, 2, 3, 3, 3),
    "transformer_depth_middle": 3,
    "context_dim": 64,
    "num_head_channels": 16,
    "use_linear_in_transformer": True,
    "adm_in_channels": 2816,
    "in_channels": 4,
    "out_channels": 4,
}
MINI = {
    "model_channels": 64,
    "channel_mult": (1, 1, 2, 2),
    "num_res_blocks": (1, 1, 1, 1),
    "transformer_depth": (0, 0, 0, 1),
    "transformer_depth_output": (0, 0, 0, 0, 0, 0, 1, 1),
    "context_dim": 32,
    "use_scale_shift_norm": True,
    "adm_in_channels": 32,
    "patch_size": 2,
}

BASIS = {**MINI, "patch_size": 4, "patch_channels": 20}
DETAILS = {**BASIS, "detail_width": 8}

# The SD x4 upscaler's: a class for the noise level, self-attention at the coarsest level and in the middle alone.
X4 = {
    **SD15,
    "use_linear_in_transformer": True,
    "in_channels": 7,
    "num_classes": 1000,
    "text_only_levels": (0, 1, 2),
    "transformer_depth": (0, 0, 1, 1, 1, 1, 1, 1),
    "transformer_depth_output": (0,) * 3 + (1,) * 9,
}


def randomise(module, seed=0):
    """Give every layer weights that matter; some start at zero."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: torch.randn(value.shape, generator=generator) * (value[0].numel() if value.ndim > 1 else 9) ** -0.5
        for key, value in module.state_dict().items()
    }
    module.load_state_dict(state)
    return state


def inputs(config, images=4, size=16):
    generator = torch.Generator().manual_seed(1)
    adm, classes = config.adm_in_channels, torch.tensor([0, 20, 137, 350])[:images]
    y = torch.randn(images, adm, generator=generator) if adm else None
    return {
        "x": torch.randn(images, config.in_channels, size, size, generator=generator),
        "timesteps": torch.tensor([3.0, 250.0, 600.0, 999.0])[:images],
        "context": torch.randn(images, 5, config.context_dim, generator=generator),
        "y": classes if config.num_classes else y,
    }


@pytest.mark.parametrize(
    "shape", [SD15, SDXL, MINI, BASIS, DETAILS, X4], ids=["sd15", "sdxl", "mini", "basis", "details", "x4"]
)
def test_image_u_net_equals_the_host_s(host, shape):
    import comfy.ops

    config = host.module("lumiere_core.nets.config").UNetConfig(**shape)
    ours = host.module("lumiere_core.nets.unet").UNet(config)
    seam = host.module("nodes.host.image_model")
    theirs = seam.LumiereUNet(**seam.unet_arguments(config), operations=comfy.ops.disable_weight_init)
    theirs.load_state_dict(randomise(ours))  # strict: the same keys
    arguments = inputs(config)
    with torch.no_grad():
        difference = ours(**arguments) - theirs(**arguments)
    assert difference.abs().max() < 1e-5


def stable_diffusion(name, shape):
    """A MODEL of the host's own SD1.5 or SDXL class with narrow random weights."""
    import comfy.model_base
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    values = dict(shape)
    config = getattr(comfy.supported_models, name)(
        {
            "image_size": 32,
            "use_spatial_transformer": True,
            "legacy": False,
            **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()},
            "num_classes": "sequential" if values.get("adm_in_channels") else None,
        }
    )
    heads = {"num_heads": values.get("num_heads", -1), "num_head_channels": values["num_head_channels"]}
    config.unet_config.update(heads)
    config.set_inference_dtype(torch.float32, None)
    base = comfy.model_base.SDXL if name == "SDXL" else comfy.model_base.BaseModel
    model = base(config, device="cpu")
    randomise(model.diffusion_model)
    return comfy.model_patcher.CoreModelPatcher(
        model,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


@pytest.mark.parametrize(
    ("name", "shape", "strides"), [("SD15", SD15, ()), ("SD15", SD15, "other"), ("SDXL", SDXL, ())]
)
def test_any_u_net_of_the_host_can_be_inflated(host, studio, inflate, clips, name, shape, strides):
    """Its U-Net is described as core's, and the clips are core's Space-Time U-Net's."""
    core = host.module("lumiere_core.nets.config")
    temporal = host.module("lumiere_core.nets.temporal")
    image = stable_diffusion(name, shape)
    assert inflate.unet_config_of(image) == core.UNetConfig(**shape)

    resizes = len(shape["channel_mult"]) - 1
    # Another stride at each resize: the last one keeps all frames, the first takes every fourth.
    strides = (4, 2, 1, 1)[:resizes] if strides else ()
    config = core.TemporalConfig(depth=1, num_head_channels=32, condition_channels=32, strides=strides)
    layers = temporal.TemporalLayers(core.UNetConfig(**shape), config)
    model = inflate.inflate(image, randomise(layers), config)
    text = {"pooled_output": torch.randn(1, 1280)} if name == "SDXL" else {}
    cond = [[torch.randn(1, 7, 64), text]]
    samples = studio.sample(model, latent={"samples": torch.zeros(5, 4, 8, 8)}, steps=1, positive=cond, negative=cond)
    assert samples.shape == (5, 4, 8, 8) and samples.isfinite().all()

    unet = host.module("lumiere_core.nets.unet").UNet(core.UNetConfig(**shape))
    unet.load_state_dict(image.model.diffusion_model.state_dict())
    both = host.module("lumiere_core.nets.stunet").SpaceTimeUNet(unet, layers)
    arguments = inputs(unet.config, images=1, size=8)
    clip = torch.randn(1, 4, 5, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        want = both(clip, *(arguments[k] for k in ("timesteps", "context", "y")))
        got = host_call(clips, model, clip[0].transpose(0, 1), arguments)
    assert (got.transpose(0, 1)[None] - want).abs().max() < 1e-4


def test_the_x4_upscaler_is_core_s(host, backbones, inflate, clips):
    """The host's own class, inflated, is core's network of the stage `train ssr --data`, and so is its noise."""
    low = host.module("lumiere_core.nets.low")
    image = backbones("SD x4")
    config = inflate.unet_config_of(image)
    assert (config.num_classes, config.text_only_levels, config.low_channels) == (1000, (0, 1, 2), 3)
    temporal = host.module("lumiere_core.nets.temporal")
    core = host.module("lumiere_core.nets.config")
    layers = temporal.TemporalLayers(config, core.TemporalConfig(depth=1, num_head_channels=32, condition_channels=32))
    model = inflate.inflate(image, randomise(layers), layers.config)
    unet = host.module("lumiere_core.nets.unet").UNet(config)
    unet.load_state_dict(image.model.diffusion_model.state_dict())  # strict: the same keys
    arguments = inputs(config, images=1, size=8)
    generator = torch.Generator().manual_seed(2)
    clip, small = (torch.randn(1, c, 5, 8, 8, generator=generator) for c in (4, 3))
    arguments["y"] = torch.tensor([137])
    with torch.no_grad():
        want = low.LatentUpscaler(unet, layers)(clip, *(arguments[k] for k in ("timesteps", "context", "y")), small)
        got = host_call(clips, model, torch.cat([clip, small], dim=1)[0].transpose(0, 1), arguments)
    assert (got.transpose(0, 1)[None] - want).abs().max() < 1e-4

    theirs, level = image.model.noise_augmentor, torch.tensor([20])
    mixed, _ = theirs(small[:, :, 0], noise_level=level, seed=3)
    noise = torch.randn(small[:, :, 0].shape, generator=torch.manual_seed(3))
    assert torch.allclose(low.noised(small[:, :, :1], noise[:, :, None], level)[:, :, 0], mixed, atol=1e-6)
    assert theirs.max_noise_level == low.MOST_LEVEL


def host_call(clips, model, frames, arguments):
    """Call the host's U-Net with the MODEL's wrappers and handlers, as a sampler does."""
    per_frame = {k: v if v is None else v.expand(len(frames), *v.shape[1:]) for k, v in arguments.items()}
    options = {**model.model_options["transformer_options"], "wrappers": model.wrappers}
    options[clips.LAYERS] = clips.temporal_patcher(model).model
    per_frame.pop("x")
    return model.model.diffusion_model(frames, **per_frame, transformer_options=options)


def with_schedule(schedule):
    """For `studio.load`: a checkpoint that was trained with another noise schedule."""

    def change(state, metadata):
        config = json.loads(metadata["lumiere.config"])
        metadata["lumiere.config"] = json.dumps({**config, "schedule": schedule.to_dict()})

    return change


@pytest.mark.parametrize("kind", ["cosine", "scaled_linear"])
@pytest.mark.parametrize("prediction", ["v", "eps", "x0"])
@pytest.mark.parametrize("sigma_data", [1.0, 2.0])
def test_noise_schedules_are_equal(host, studio, kind, prediction, sigma_data):
    ours = host.module("lumiere_core.diffusion.schedule").Schedule(kind, prediction, sigma_data=sigma_data)
    model, _, _ = studio.load("other_schedule.safetensors", change=with_schedule(ours))
    theirs = model.get_model_object("model_sampling")
    assert torch.allclose(theirs.sigmas, ours.sigmas, rtol=1e-5)
    assert abs(float(theirs.sigma_max) / ours.sigma_max - 1) < 1e-5
    between = ours.sigmas[:-1] * 0.7 + ours.sigmas[1:] * 0.3
    sigmas = torch.cat([ours.sigmas, between])
    assert torch.equal(theirs.timestep(sigmas), ours.timestep(sigmas))
    timesteps = torch.linspace(0, 999, 777)
    assert torch.allclose(theirs.sigma(timesteps), ours.sigma(timesteps), rtol=1e-5)
    x, v = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    sigma = torch.tensor([0.002, 0.5, 3.0, 80.0])
    assert torch.allclose(theirs.calculate_denoised(sigma, v, x), ours.denoised(x, v, sigma), atol=1e-5)
    assert torch.allclose(theirs.calculate_input(sigma, x), ours.network_input(x, sigma), atol=1e-6)


@pytest.mark.parametrize(("sampler", "core_sampler"), [("euler", "ddim"), ("euler_ancestral", "ddpm")])
@pytest.mark.parametrize("scheduler", ["karras", "normal"])
@pytest.mark.parametrize(("prediction", "sigma_data"), [("v", 1.0), ("x0", 1.0), ("x0", 2.0)])
def test_whole_runs_agree(host, studio, sampler, core_sampler, scheduler, prediction, sigma_data):
    """Same weights, seed, sampler and steps: clips in [-1, 1] agree to 1e-4 (float32; measured 2e-6)."""
    pipeline = host.module("lumiere_core.diffusion.generate")
    schedule = host.module("lumiere_core.diffusion.schedule").Schedule(prediction=prediction, sigma_data=sigma_data)
    model, _, _ = studio.load("run.safetensors", change=with_schedule(schedule))
    models, _ = host.module("lumiere_core.diffusion.models").load_models(studio.folder / "run.safetensors")
    kept = []
    request = pipeline.Request(
        "a red ball",
        seed=5,
        num_frames=5,
        height=16,
        width=16,
        steps=6,
        cfg=3.0,
        sampler=core_sampler,
        scheduler=scheduler,
        threshold=0.995,
    )
    pipeline.generate(models, request, keep_float=kept.append)
    got = studio.sample(
        model,
        frames=5,
        node="LumiereSampler",
        seed=5,
        steps=6,
        cfg=3.0,
        sampler_name=sampler,
        scheduler=scheduler,
        dynamic_threshold=0.995,
    )
    difference = (got.transpose(0, 1)[None] - kept[0]).abs().max()
    assert difference < 1e-4


@pytest.mark.parametrize(("sampler", "core_sampler"), [("euler", "ddim"), ("euler_ancestral", "ddpm")])
@pytest.mark.parametrize(
    ("known", "hidden", "tolerance"),
    [("frames", 0.5, 1e-4), ("border", 0.5, 1e-4), ("border", None, 0.03)],
    ids=["key frames", "inpaint", "inpaint a video"],
)
def test_conditioned_runs_agree(host, studio, known, hidden, tolerance, sampler, core_sampler):
    """With Lumiere Apply Condition too: clips in [-1, 1] agree to 1e-4 (float32; measured 2e-6).

    Where a video goes on under the mask they agree to 0.03 (measured 0.009): the host starts from noise on top of
    what is hidden, core from noise alone.
    """
    pipeline = host.module("lumiere_core.diffusion.generate")
    model, _, vae = studio.load("conditioned_run.safetensors", conv_cond=True)
    models, _ = host.module("lumiere_core.diffusion.models").load_models(studio.folder / "conditioned_run.safetensors")
    clip = torch.rand(5, 16, 16, 3, generator=torch.Generator().manual_seed(7))
    mask = torch.zeros(5, 16, 16)
    if known == "frames":
        mask[1:4] = 1
    else:
        mask[:, 4:12, 4:12] = 1
    if hidden is not None:
        clip[mask > 0] = hidden
    condition = host.module("lumiere_core.clips.conditioning").Condition(
        (clip * 2 - 1).movedim(-1, 0)[None], 1 - mask[None, None]
    )
    kept = []
    request = pipeline.Request(
        "a red ball",
        seed=5,
        num_frames=5,
        height=16,
        width=16,
        steps=6,
        cfg=3.0,
        sampler=core_sampler,
        scheduler="karras",
    )
    pipeline.generate(models, request, keep_float=kept.append, known=condition)
    positive, negative, latent = host.call(
        "LumiereApplyCondition", positive=studio.positive, negative=studio.negative, vae=vae, condition=clip, mask=mask
    )
    got = studio.sample(
        model,
        node="LumiereSampler",
        latent=latent,
        positive=positive,
        negative=negative,
        seed=5,
        steps=6,
        cfg=3.0,
        sampler_name=sampler,
        scheduler="karras",
    )
    difference = (got.transpose(0, 1)[None] - kept[0]).abs().max()
    assert difference < tolerance
