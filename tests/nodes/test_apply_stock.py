"""The host's own nodes on an inflated MODEL in SD1.5's layout: they run, and they change the clip as they should."""

import pytest
import torch

pytestmark = pytest.mark.host

KEY = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_v"
WEIGHT = f"{KEY}.weight"


@pytest.fixture
def plain(backbones):
    return backbones("SD15")


@pytest.fixture
def model(host, backbones, write_temporal, plain):
    """The MODEL with trained temporal layers."""
    write_temporal(plain, "stock.safetensors")
    return inflated(host, plain)


def inflated(host, model, frames_per_clip=0):
    (result,) = host.call(
        "LumiereApplyTemporal", model=model, temporal="stock.safetensors", frames_per_clip=frames_per_clip
    )
    return result


def changes(a, b, least=1e-3):
    """Whether every frame of two clips differs."""
    assert a.shape == b.shape and a.isfinite().all() and b.isfinite().all()
    return bool((a - b).abs().amax(dim=(1, 2, 3)).min() > least)


def lora(host, plain, name="stock.safetensors"):
    from safetensors.torch import save_file

    width = plain.model.state_dict()[WEIGHT].shape[0]
    folder = host.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    state = {f"{KEY}.lora_A.weight": torch.ones(4, width), f"{KEY}.lora_B.weight": torch.ones(width, 4)}
    save_file(state, folder / name)
    return name


def test_sampler_custom_advanced_equals_ksampler(host, backbones, model):
    (guider,) = host.call("CFGGuider", model=model, positive=backbones.text(1), negative=backbones.text(2), cfg=3.0)
    (noise,) = host.call("RandomNoise", noise_seed=1)
    (sampler,) = host.call("KSamplerSelect", sampler_name="euler")
    (sigmas,) = host.call("BasicScheduler", model=model, scheduler="normal", steps=2, denoise=1.0)
    out, _ = host.call(
        "SamplerCustomAdvanced",
        noise=noise,
        guider=guider,
        sampler=sampler,
        sigmas=sigmas,
        latent_image={"samples": torch.zeros(8, 4, 8, 8)},
    )
    assert torch.equal(out["samples"], backbones.sample(model))


def test_lora_before_and_after(host, backbones, plain, model):
    """Both orders patch the same weight of the image model: the same clip, and another one than without."""
    name = lora(host, plain)
    load = lambda m: host.call(  # noqa: E731
        "LoraLoaderModelOnly", model=m, lora_name=name, strength_model=1.0
    )[0]
    before, after = backbones.sample(inflated(host, load(plain))), backbones.sample(load(model))
    without = backbones.sample(model)
    assert torch.equal(before, after) and changes(before, without)
    assert torch.equal(backbones.sample(model), without)  # and it is taken off again


def test_hook_lora_on_a_part_of_the_schedule(host, backbones, plain, model):
    """A LoRA on the conditioning, from half of the steps on, acts between none and all."""
    name = lora(host, plain)

    def hooked(start):
        (hooks,) = host.call("CreateHookLoraModelOnly", lora_name=name, strength_model=1.0, prev_hooks=None)
        if start:
            (frames,) = host.call("CreateHookKeyframe", strength_mult=0.0, start_percent=0.0, prev_hook_kf=None)
            (frames,) = host.call("CreateHookKeyframe", strength_mult=1.0, start_percent=start, prev_hook_kf=frames)
            (hooks,) = host.call("SetHookKeyframes", hooks=hooks, hook_kf=frames)
        (positive,) = host.call(
            "ConditioningSetProperties", cond_NEW=backbones.text(1), hooks=hooks, strength=1.0, set_cond_area="default"
        )
        return backbones.sample(model, positive=positive, steps=4)

    none, half, whole = backbones.sample(model, steps=4), hooked(0.5), hooked(0.0)
    assert changes(half, none) and changes(whole, none) and changes(half, whole)
    assert torch.equal(backbones.sample(model, steps=4), none)


class Controls(torch.nn.Module):
    """A ControlNet whose residual of a frame is the hint's brightness, at every skip."""

    dtype = torch.float32

    def __init__(self, skips):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(1))
        self.skips = skips  # (channels, size) of each input block, and of the middle block

    def forward(self, x, hint, timesteps, context, **_):
        level = hint.mean(dim=(1, 2, 3))

        def residual(channels, size):
            return level.view(-1, 1, 1, 1).expand(-1, channels, size, size).clone()

        *skips, middle = [residual(*skip) for skip in self.skips]
        return {"input": [], "middle": [middle], "output": skips}


SKIPS = [(32, 8), (32, 8), (32, 4), (32, 4), (32, 2), (64, 2), (64, 1), (64, 1), (64, 1)]


def controlled(host, backbones, hint):
    import comfy.controlnet

    net = comfy.controlnet.ControlNet(
        Controls(SKIPS), load_device=torch.device("cpu"), manual_cast_dtype=None, compression_ratio=1
    )
    return host.call(
        "ControlNetApplyAdvanced",
        positive=backbones.text(1),
        negative=backbones.text(2),
        control_net=net,
        image=hint,
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
    )


def test_controlnet_of_its_own_hint_for_every_frame(host, backbones, model, plain, log):
    """Residuals reach every block; frames that reach the coarsest level take exactly their own hint."""
    hint = torch.linspace(0, 1, 16).view(16, 1, 1, 1).expand(16, 8, 8, 3)
    positive, negative = controlled(host, backbones, hint)
    samples = backbones.sample(model, frames=16, positive=positive, negative=negative)
    assert "could not be applied" not in log()
    assert (samples - backbones.sample(model, frames=16)).abs().amax(dim=(1, 2, 3))[-1] > 1e-3
    (fresh,) = host.call("LumiereApplyTemporal", model=plain, temporal="untrained", frames_per_clip=0)
    one = {"steps": 1, "cfg": 1.0, "frames": 16, "positive": positive, "negative": negative}
    key = (backbones.sample(fresh, **one) - backbones.sample(plain, **one))[::8]
    assert key.abs().max() < 1e-4  # strided, not averaged


@pytest.mark.parametrize(
    ("node", "settings"),
    [
        ("FreeU", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}),
        ("FreeU_V2", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}),
        ("PerturbedAttentionGuidance", {"scale": 3.0}),
    ],
)
def test_patches_change_the_clip(host, backbones, node, settings):
    """FreeU acts on 2 x and 4 x the model's width, so the coarser levels have these."""
    model = backbones("SD15", channel_mult=[1, 2, 4, 4])
    (fresh,) = host.call("LumiereApplyTemporal", model=model, temporal="untrained", frames_per_clip=0)
    (patched,) = host.call(node, model=fresh, **settings)
    latent = {"samples": torch.zeros(8, 4, 16, 16)}  # more than one pixel at the coarsest level
    assert changes(backbones.sample(patched, latent=latent), backbones.sample(fresh, latent=latent))


def test_token_merging(host, backbones, model):
    """It reads the height and width of the latent: a clip that is padded in time is no trouble."""
    (merged,) = host.call("TomePatchModel", model=model, ratio=0.5)
    assert changes(backbones.sample(merged, frames=11), backbones.sample(model, frames=11))


def test_hypertile(host, backbones, model):
    (tiled,) = host.call("HyperTile", model=model, tile_size=32, swap_size=1, max_depth=0, scale_depth=False)
    latent = {"samples": torch.zeros(8, 4, 16, 16)}
    assert changes(backbones.sample(tiled, latent=latent), backbones.sample(model, latent=latent))


def test_attention_replacement_as_ipadapter_uses_it(backbones, model):
    """A replacement of one cross-attention sees the frames of its level, and the prompts of those frames."""
    from comfy.ldm.modules.attention import optimized_attention

    seen, image = [], torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(0))

    def replace(q, k, v, options):
        seen.append((q.shape[0], k.shape[0], options["cond_or_uncond"]))
        extra = image.expand(q.shape[0], -1, -1)[..., : q.shape[-1]]
        plain = optimized_attention(q, k, v, options["n_heads"])
        return plain + optimized_attention(q, extra, extra, options["n_heads"])

    adapted = model.clone()
    adapted.set_model_attn2_replace(replace, "input", 5, 0)  # the third level: a quarter of the frames
    samples = backbones.sample(adapted)
    assert seen and all(q == k == 2 * len(chunks) for q, k, chunks in seen)
    assert changes(samples, backbones.sample(model))


def test_easycache_skips_calls(host, backbones, model):
    unet, calls = model.model.diffusion_model, []
    hook = unet.middle_block[0].register_forward_hook(lambda *_: calls.append(1))
    try:
        every = backbones.sample(model, steps=10)
        full = len(calls)
        calls.clear()
        (cached,) = host.call(
            "EasyCache", model=model, reuse_threshold=0.9, start_percent=0.1, end_percent=0.95, verbose=False
        )
        samples = backbones.sample(cached, steps=10)
        assert 0 < len(calls) < full and changes(samples, every, least=0.0)
    finally:
        hook.remove()


def test_merge_of_checkpoints_keeps_the_temporal_layers(host, backbones, model):
    """ModelMergeSimple is the style interpolation: W = a W1 + (1 - a) W2 on the image weights."""
    other = backbones("SD15", seed=5)
    (merged,) = host.call("ModelMergeSimple", model1=model, model2=other, ratio=0.25)
    first, second = (m.model.state_dict()[WEIGHT].clone() for m in (model, other))
    samples = backbones.sample(merged)
    assert torch.allclose(merged.model.state_dict()[WEIGHT], 0.25 * first + 0.75 * second, atol=1e-6)
    (images,) = host.call("ModelMergeSimple", model1=backbones("SD15"), model2=other, ratio=0.25)
    assert changes(samples, backbones.sample(model)) and changes(samples, backbones.sample(images))
    (again,) = host.call("ModelMergeSimple", model1=backbones("SD15"), model2=other, ratio=0.25)
    assert torch.allclose(backbones.sample(inflated(host, again)), samples, atol=1e-5)


def test_context_windows_of_the_host(host, backbones, model):
    (windows,) = host.call(
        "ContextWindowsManual",
        model=model,
        context_length=8,
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
    assert changes(backbones.sample(windows, frames=14), backbones.sample(model, frames=14))
    assert torch.allclose(backbones.sample(windows, frames=8), backbones.sample(model), atol=1e-5)


def test_inpaint_conditioning_of_nine_channels(host, backbones, model, write_temporal):
    """An inpainting checkpoint sees mask and masked latents for every frame."""
    inpaint = inflated(host, backbones("SD15 inpaint"))

    class Vae:
        """Stands for an image VAE: 8 x 8 pixels become one."""

        @staticmethod
        def encode(pixels):
            small = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)
            return torch.cat([small, small[:, :1]], dim=1)

        @staticmethod
        def spacial_compression_encode():
            return 8

    pixels = torch.rand(8, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(8, 64, 64)
    mask[4:] = 1

    def sample(pixels, mask):
        positive, negative, latent = host.call(
            "InpaintModelConditioning",
            positive=backbones.text(1),
            negative=backbones.text(2),
            pixels=pixels,
            vae=Vae(),
            mask=mask,
            noise_mask=False,
        )
        return backbones.sample(inpaint, positive=positive, negative=negative, latent=latent)

    known = sample(pixels, mask)
    assert changes(known, sample(1 - pixels, mask)) and changes(known, sample(pixels, 1 - mask))


def test_x4_upscaler_sees_the_low_resolution_clip(host, backbones, write_temporal):
    upscaler = backbones("SD x4")
    write_temporal(upscaler, "x4.safetensors")
    (model,) = host.call("LumiereApplyTemporal", model=upscaler, temporal="x4.safetensors", frames_per_clip=0)

    def sample(images):
        positive, negative, latent = host.call(
            "SD_4XUpscale_Conditioning",
            images=images,
            positive=backbones.text(1),
            negative=backbones.text(2),
            scale_ratio=4.0,
            noise_augmentation=0.1,
        )
        return backbones.sample(model, positive=positive, negative=negative, latent=latent)

    images = torch.rand(8, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    assert changes(sample(images), sample(1 - images))


def test_cfg_one_leaves_the_negative_prompt_out(backbones, model):
    calls = []
    unet = model.model.diffusion_model
    hook = unet.middle_block[0].register_forward_hook(lambda _, x, y: calls.append(y.shape[0]))
    try:
        one = backbones.sample(model, cfg=1.0)
        assert calls == [1, 1]  # an eighth of 8 frames, of one prompt
        assert torch.equal(one, backbones.sample(model, cfg=1.0, negative=backbones.text(9)))
    finally:
        hook.remove()


def test_several_clips_in_one_batch(host, backbones, model, plain):
    """Two clips of one batch are the two clips made alone: the noise of both is given."""
    four = inflated(host, plain, frames_per_clip=4)
    start = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    settings = {"denoise": 0.5}
    both = backbones.sample(four, latent={"samples": start}, **settings)
    alone = {"samples": start[:4], "batch_index": [0, 1, 2, 3]}
    assert torch.allclose(both[:4], backbones.sample(model, latent=alone, **settings), atol=1e-4)
    second = {"samples": start[4:], "batch_index": [4, 5, 6, 7]}
    assert torch.allclose(both[4:], backbones.sample(model, latent=second, **settings), atol=1e-4)


def test_prompts_of_their_own_for_every_frame(backbones, model):
    """A conditioning of one row a frame: changing the last frames' rows changes the last frames most."""
    same = backbones.text(1)[0][0].expand(16, -1, -1).clone()
    other = same.clone()
    other[8:] = backbones.text(7)[0][0]
    one = {"frames": 16, "cfg": 1.0, "steps": 1}
    first = backbones.sample(model, positive=[[same, {}]], **one)
    assert torch.allclose(first, backbones.sample(model, positive=[[same[:1], {}]], **one), atol=1e-5)
    moved = (backbones.sample(model, positive=[[other, {}]], **one) - first).abs().mean(dim=(1, 2, 3))
    assert moved[8:].mean() > 1.5 * moved[:8].mean() > 0


def test_multidiffusion_windows(host, backbones, model):
    """A window of the whole clip is the clip; shorter ones change it, controls and per-frame prompts included."""

    def windows(length, overlap):
        return host.call(
            "LumiereTemporalMultidiffusion",
            model=model,
            context_length=length,
            context_overlap=overlap,
            weighting="uniform",
            closed_loop=False,
        )[0]

    hint = torch.linspace(0, 1, 16).view(16, 1, 1, 1).expand(16, 8, 8, 3)
    positive, negative = controlled(host, backbones, hint)
    same = positive[0][0].expand(16, -1, -1).clone()
    settings = {"frames": 16, "positive": [[same, positive[0][1]]], "negative": negative}
    whole = backbones.sample(model, **settings)
    assert torch.allclose(backbones.sample(windows(16, 2), **settings), whole, atol=1e-5)
    assert changes(backbones.sample(windows(8, 2), **settings), whole)


def test_style_interpolator_on_an_inflated_model(host, backbones, model):
    """It moves the image weights only: alpha 1 is the style's image model under the same temporal layers."""
    style = backbones("SD15", seed=5)

    def mixed(alpha):
        (result,) = host.call("LumiereStyleInterpolate", model=model, style_model=style, alpha=alpha)
        return backbones.sample(result)

    assert torch.allclose(mixed(1.0), backbones.sample(inflated(host, style)), atol=1e-4)
    assert torch.allclose(mixed(0.0), backbones.sample(model), atol=1e-4)
    assert changes(mixed(0.5), mixed(0.0)) and changes(mixed(0.5), mixed(1.0))
