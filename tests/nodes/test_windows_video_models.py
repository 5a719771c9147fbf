"""Temporal Multidiffusion on video MODELs of the host: frames in the batch (SVD), and 5-D latents (Wan)."""

import pytest
import torch

pytestmark = pytest.mark.host

FRAMES = 8
WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "dim": 48,
    "out_dim": 16,
    "in_dim": 16,
    "num_heads": 2,
    "ffn_dim": 64,
    "num_layers": 1,
    "patch_size": (1, 2, 2),
    "freq_dim": 32,
    "text_dim": 24,
    "window_size": (-1, -1),
    "qk_norm": True,
    "cross_attn_norm": True,
    "eps": 1e-6,
}
SVD = {
    "image_size": 32,
    "in_channels": 8,
    "out_channels": 4,
    "model_channels": 64,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 0],
    "transformer_depth_output": [1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 24,
    "adm_in_channels": 768,
    "num_classes": "sequential",
    "num_head_channels": 16,
    "num_heads": -1,
    "legacy": False,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "use_temporal_attention": True,
    "use_temporal_resblock": True,
    "extra_ff_mix_layer": True,
    "merge_strategy": "learned_with_images",
    "merge_factor": 0.0,
    "video_kernel_size": [3, 1, 1],
    "max_ddpm_temb_period": 10000,
}


def random_model(kind, unet_config):
    """Return a very small MODEL of one of the host's kinds, with random weights."""
    import comfy.model_patcher
    import comfy.supported_models

    config = getattr(comfy.supported_models, kind)(dict(unet_config))
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device="cpu")
    torch.manual_seed(0)
    for parameter in model.diffusion_model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model.eval(), cpu, cpu)


@pytest.fixture(scope="module")
def wan(host):
    """MODEL of Wan 2.1, whose latents are 5-D."""
    return random_model("WAN21_T2V", WAN)


@pytest.fixture(scope="module")
def vace(host):
    """MODEL of Wan 2.1 VACE, whose hint clips have frames on axis 3."""
    return random_model("WAN21_Vace", WAN | {"model_type": "vace", "vace_layers": 1, "vace_in_dim": 96})


@pytest.fixture(scope="module")
def svd(host):
    """MODEL of Stable Video Diffusion, whose frames are the batch."""
    return random_model("SVD_img2vid", SVD)


@pytest.fixture
def apply(host):
    def call(model, length=4, overlap=2):
        return host.call(
            "LumiereTemporalMultidiffusion",
            model=model,
            context_length=length,
            context_overlap=overlap,
            weighting="uniform",
            closed_loop=False,
        )[0]

    return call


def stock(model, axis):
    """Return a MODEL with the host's own windows: flat fusion, no causal anchor."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    return ContextWindowsManualNode.execute(
        model, 4, 2, "standard_static", 1, False, "flat", axis, False, "", False, "", False
    ).args[0]


def prompt(width=24, **values):
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(1, 4, width, generator=generator), values]]


def watched(model):
    """Return a clone, and the list of the frames that each call of its network sees."""
    from comfy.patcher_extension import WrappersMP

    seen = []

    def spy(executor, x, *args, **kwargs):
        seen.append(x.shape[2] if x.ndim == 5 else x.shape[0])
        return executor(x, *args, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "spy", spy)
    return model, seen


def test_wan(studio, apply, wan):
    def sample(model, frames=9):
        latent = {"samples": torch.zeros(1, 16, frames, 4, 4)}
        return studio.sample(model, latent=latent, positive=prompt(), negative=prompt())

    model, seen = watched(wan)
    whole = sample(model)
    assert set(seen) == {9}
    seen.clear()
    cut = sample(apply(model))
    assert set(seen) == {4} and cut.shape == whole.shape and cut.isfinite().all()
    assert not torch.allclose(cut, whole, atol=1e-3)
    assert torch.equal(sample(apply(model, 9, 2)), whole)


def test_hint_clips_of_vace_are_cut_with_the_frames(studio, apply, vace):
    generator = torch.Generator().manual_seed(2)
    hints = {
        "vace_frames": [torch.randn(1, 32, FRAMES, 4, 4, generator=generator)],
        "vace_mask": [torch.ones(1, 64, FRAMES, 4, 4)],
    }

    def sample(model):
        latent = {"samples": torch.zeros(1, 16, FRAMES, 4, 4)}
        text = prompt(**hints)
        return studio.sample(model, latent=latent, positive=text, negative=text)

    cut = sample(apply(vace))
    assert torch.allclose(cut, sample(stock(vace, 2)), atol=1e-4)
    assert not torch.allclose(cut, sample(vace), atol=1e-3)


@pytest.mark.parametrize("cfg", [1.0, 2.5])
def test_svd_is_told_the_frames_of_a_window(studio, apply, svd, cfg):
    """Half the clip a window: two prompts of a window are as many frames as the clip."""
    image = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))

    def sample(model):
        latent = {"samples": torch.zeros(FRAMES, 4, 8, 8)}
        prompts = (prompt(concat_latent_image=image), prompt(concat_latent_image=torch.zeros_like(image)))
        return studio.sample(model, latent=latent, cfg=cfg, positive=prompts[0], negative=prompts[1])

    model, seen = watched(svd)
    cut = sample(apply(model))
    assert set(seen) <= {4, 8} and cut.isfinite().all()
    assert torch.allclose(cut, sample(stock(svd, 0)), atol=1e-4)
    assert not torch.allclose(cut, sample(svd), atol=1e-3)
