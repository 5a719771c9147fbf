"""The host's own nodes in the place of ours."""

from types import SimpleNamespace

import pytest
import torch

pytestmark = pytest.mark.host


def test_clip_text_encode(host, studio):
    (positive,) = host.call("CLIPTextEncode", clip=studio.clip, text="a red ball")
    assert torch.equal(positive[0][0], studio.positive[0][0])
    assert torch.equal(positive[0][1]["pooled_output"], studio.positive[0][1]["pooled_output"])


def test_conditioning_zero_out_and_combine(host, studio):
    (nothing,) = host.call("ConditioningZeroOut", conditioning=studio.positive)
    (both,) = host.call("ConditioningCombine", conditioning_1=studio.positive, conditioning_2=studio.negative)
    assert studio.sample(positive=both, negative=nothing).isfinite().all()


def test_empty_latent_image(host, studio):
    """The host's empty latent, 4 channels at an eighth of the size, becomes pixels of the asked size."""
    (latent,) = host.call("EmptyLatentImage", width=16, height=24, batch_size=4)
    assert studio.sample(latent=latent).shape == (4, 3, 24, 16)


def test_ksampler_advanced(host, studio):
    (out,) = host.call(
        "KSamplerAdvanced",
        model=studio.model,
        add_noise="enable",
        noise_seed=1,
        steps=4,
        cfg=2.0,
        sampler_name="dpmpp_2m",
        scheduler="normal",
        positive=studio.positive,
        negative=studio.negative,
        latent_image={"samples": torch.zeros(4, 3, 16, 16)},
        start_at_step=0,
        end_at_step=2,
        return_with_leftover_noise="enable",
    )
    assert out["samples"].shape == (4, 3, 16, 16)


def test_sampler_custom_advanced(host, studio):
    (guider,) = host.call("CFGGuider", model=studio.model, positive=studio.positive, negative=studio.negative, cfg=3.0)
    (noise,) = host.call("RandomNoise", noise_seed=1)
    (sampler,) = host.call("KSamplerSelect", sampler_name="euler")
    (sigmas,) = host.call("BasicScheduler", model=studio.model, scheduler="karras", steps=2, denoise=1.0)
    latent = {"samples": torch.zeros(4, 3, 16, 16)}
    out, _ = host.call(
        "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent
    )
    assert torch.equal(out["samples"], studio.sample())


def test_vae_decode_and_encode(host, studio):
    pixels = torch.arange(256.0).div(255).view(1, 16, 16, 1).expand(2, 16, 16, 3)
    (latent,) = host.call("VAEEncode", pixels=pixels, vae=studio.vae)
    assert latent["samples"].shape == (2, 3, 16, 16)
    (image,) = host.call("VAEDecode", samples=latent, vae=studio.vae)
    assert torch.equal((image * 255).round(), (pixels * 255).round())


def test_pixel_vae_of_the_host(host, studio):
    (vae,) = host.call("VAELoader", vae_name="pixel_space")
    latent = {"samples": torch.rand(2, 3, 16, 16) * 2 - 1}
    (ours,) = host.call("VAEDecode", samples=latent, vae=studio.vae)
    (theirs,) = host.call("VAEDecode", samples=latent, vae=vae)
    assert torch.allclose(ours, theirs, atol=1 / 255)


def test_image_to_image_by_denoise(host, studio):
    """SDEdit: the host's VAEEncode and KSampler with denoise below 1."""
    (latent,) = host.call("VAEEncode", pixels=torch.rand(4, 16, 16, 3), vae=studio.vae)
    little = studio.sample(latent=latent, denoise=0.1, steps=2) - latent["samples"]
    much = studio.sample(latent=latent, denoise=0.9, steps=2) - latent["samples"]
    assert little.abs().mean() < much.abs().mean()


def test_latent_noise_mask_keeps_frames(host, studio):
    (latent,) = host.call("VAEEncode", pixels=torch.rand(4, 16, 16, 3), vae=studio.vae)
    mask = torch.ones(4, 16, 16)
    mask[:2] = 0
    (masked,) = host.call("SetLatentNoiseMask", samples=latent, mask=mask)
    out = studio.sample(latent=masked)
    assert torch.allclose(out[:2], latent["samples"][:2], atol=1e-5)
    assert not torch.allclose(out[2:], latent["samples"][2:], atol=1e-2)


def test_lora_loader_model_only(host, studio):
    from safetensors.torch import save_file

    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q"
    lora = {f"{key}.lora_A.weight": torch.ones(4, 64), f"{key}.lora_B.weight": torch.ones(64, 4)}
    folder = host.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    save_file(lora, folder / "style.safetensors")
    (model,) = host.call("LoraLoaderModelOnly", model=studio.model, lora_name="style.safetensors", strength_model=1.0)
    before = studio.sample()
    assert not torch.allclose(studio.sample(model), before, atol=1e-4)
    assert torch.equal(studio.sample(), before)


def test_model_merge_simple_keeps_the_temporal_layers(host, studio):
    """The merge's image weights are W = a W1 + (1 - a) W2; the temporal layers are those of the first."""
    other, _, _ = studio.load("other.safetensors", seed=7)
    (merged,) = host.call("ModelMergeSimple", model1=studio.model, model2=other, ratio=0.25)
    weight = "diffusion_model.middle_block.0.in_layers.2.weight"
    first, second = (m.model.state_dict()[weight].clone() for m in (studio.model, other))
    samples = studio.sample(merged)
    assert torch.allclose(merged.model.state_dict()[weight], 0.25 * first + 0.75 * second, atol=1e-6)
    assert not torch.allclose(samples, studio.sample(), atol=1e-3)
    (same,) = host.call("ModelMergeSimple", model1=studio.model, model2=other, ratio=1.0)
    assert torch.allclose(studio.sample(same), studio.sample(), atol=1e-4)


def test_freeu(host, studio):
    (model,) = host.call("FreeU_V2", model=studio.model, b1=1.3, b2=1.4, s1=0.9, s2=0.2)
    samples = studio.sample(model)
    assert samples.isfinite().all() and not torch.allclose(samples, studio.sample(), atol=1e-4)


def test_easycache_after_ours(host, studio):
    """It skips calls of the U-Net, where guidance counts; the run still counts its temporal layers."""
    guided, _, _ = host.call(
        "LumiereLoader", checkpoint="tiny.safetensors", dtype="default", frames_per_clip=0, guidance_end=1.0
    )
    unet, calls = guided.model.diffusion_model, []
    hook = unet.middle_block[0].register_forward_hook(lambda *_: calls.append(1))
    try:
        studio.sample(guided, steps=10)
        every = len(calls)
        calls.clear()
        (model,) = host.call(
            "EasyCache", model=guided, reuse_threshold=0.9, start_percent=0.1, end_percent=0.95, verbose=False
        )
        assert studio.sample(model, steps=10).isfinite().all()
        assert 0 < len(calls) < every
    finally:
        hook.remove()


def test_hypertile_and_rescale_cfg(host, studio):
    (model,) = host.call("HyperTile", model=studio.model, tile_size=32, swap_size=2, max_depth=0, scale_depth=False)
    (model,) = host.call("RescaleCFG", model=model, multiplier=0.7)
    assert studio.sample(model).isfinite().all()


def test_attention_override_reaches_temporal_attention(host, studio):
    shapes = []

    def override(function, *args, **kwargs):
        shapes.append(tuple(args[0].shape))
        return function(*args, **kwargs)

    model = studio.model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    studio.sample(model, frames=8, steps=1, cfg=1.0)
    assert (16, 4, 64) in shapes  # 4 x 4 pixels at the coarsest level, 8 / 2 frames


def test_attention_patches_stay_out_of_temporal_attention(host, studio):
    seen = []

    def patch(q, k, v, extra_options):
        seen.append(q.shape[1])
        return q, k, v

    model = studio.model.clone()
    model.set_model_attn1_patch(patch)
    studio.sample(model, frames=8, steps=1)
    assert seen and set(seen) == {16}  # pixels, never frames


class ControlNetwork(torch.nn.Module):
    """A ControlNet that adds a constant of the frame's number to the encoder's skips."""

    dtype = torch.float32

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, hint, timesteps, context, **kwargs):
        frames = x.new_tensor(range(len(x)))[:, None, None, None] * 0.05

        def residual(channels, size):
            return frames.expand(-1, channels, size, size).clone()

        skips = [residual(32, 8), residual(32, 8), residual(32, 4), residual(64, 4)]
        return {"input": [], "middle": [residual(64, 4)], "output": skips}


def test_control_net(host, studio, log):
    import comfy.controlnet
    import comfy.model_management

    control = comfy.controlnet.ControlNet(
        ControlNetwork(), load_device=comfy.model_management.get_torch_device(), compression_ratio=1
    )
    hint = torch.rand(6, 16, 16, 3)
    positive, negative = host.call(
        "ControlNetApplyAdvanced",
        positive=studio.positive,
        negative=studio.negative,
        control_net=control,
        image=hint,
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
    )
    samples = studio.sample(frames=6, positive=positive, negative=negative)
    assert "control could not be applied" not in log()
    assert not torch.allclose(samples, studio.sample(frames=6), atol=1e-3)


def test_control_residuals_are_strided(host, clips):
    """A key frame gets its own residual at every level, not a mean over frames."""
    unet = host.module("nodes.host.image_model").LumiereUNet(
        **host.module("lumiere_core.nets.config")
        .UNetConfig(
            model_channels=32,
            channel_mult=(1, 2),
            num_res_blocks=(1, 1),
            transformer_depth=(0, 0),
            transformer_depth_output=(0, 0, 0, 0),
            context_dim=32,
        )
        .host_kwargs()
    )
    numbers = torch.arange(8.0).view(8, 1, 1, 1)  # two clips of 4 frames
    control = {"output": [numbers, None, numbers, numbers], "middle": [numbers], "input": [numbers, numbers]}
    temporal = host.module("lumiere_core.nets.temporal")
    layers = SimpleNamespace(config=host.module("lumiere_core.nets.config").TemporalConfig())
    plans = clips.plan_blocks(unet, clips.KINDS, lambda seen: temporal.TemporalLayers.follows(layers, seen))
    state = temporal.TemporalState(4, (1, 2))
    strided = clips.control_at_levels(control, plans, state, 2, lambda value: value)
    every = [0, 1, 2, 3, 4, 5, 6, 7]
    frames = {k: [v if v is None else v.flatten().tolist() for v in e] for k, e in strided.items()}
    assert frames["output"] == [every, None, [0, 2, 4, 6], [0, 2, 4, 6]]
    assert frames["middle"] == [[0, 2, 4, 6]]
    assert frames["input"] == [every, every]  # popped from the end: for the first two encoder blocks


def test_stock_context_windows(host, studio):
    (model,) = host.call(
        "ContextWindowsManual",
        model=studio.model,
        context_length=4,
        context_overlap=2,
        context_schedule="standard_static",
        context_stride=1,
        closed_loop=False,
        fuse_method="flat",
        dim=0,
        freenoise=False,
        cond_retain_index_list="",
        split_conds_to_windows=False,
        latent_retain_index_list="",
        causal_window_fix=False,
    )
    assert studio.sample(model, frames=8).isfinite().all()


def test_model_save_and_checkpoint_save(host, studio):
    """They write the image model (the temporal layers have a node of their own)."""
    import comfy_extras.nodes_model_merging as merging
    from safetensors import safe_open

    merging.CheckpointSave().save(studio.model, studio.clip, studio.vae, "stock/checkpoint")
    path = sorted((host.base / "output" / "stock").glob("checkpoint*.safetensors"))[-1]
    with safe_open(str(path), framework="pt") as file:
        keys = list(file.keys())
    assert "model.diffusion_model.input_blocks.0.0.weight" in keys
    assert any(key.startswith("cond_stage_model.") for key in keys)
