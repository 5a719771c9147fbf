"""`prepare` and `train` on a file in SD1.5's layout, from the command line: the verbs start the host themselves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(3000)]

ROOT = Path(__file__).resolve().parents[2]


def write_checkpoint(path):
    """Random weights that the host takes for an SD1.5 checkpoint: real text encoder and VAE shapes, a short U-Net."""
    import comfy.ops
    import comfy.sd1_clip
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from safetensors.torch import save_file

    unet = UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=320,
        channel_mult=[1, 1],
        num_res_blocks=[1, 1],
        transformer_depth=[0, 1],
        transformer_depth_output=[0, 0, 1, 1],
        transformer_depth_middle=1,
        context_dim=768,
        num_heads=8,
        use_spatial_transformer=True,
        legacy=False,
        operations=comfy.ops.disable_weight_init,
    )
    vae = AutoencoderKL(
        embed_dim=4,
        ddconfig={
            "double_z": True,
            "z_channels": 4,
            "resolution": 256,
            "in_channels": 3,
            "out_ch": 3,
            "ch": 128,
            "ch_mult": [1, 2, 4, 4],
            "num_res_blocks": 2,
            "attn_resolutions": [],
            "dropout": 0.0,
        },
    )
    text = comfy.sd1_clip.SD1ClipModel(dtype=torch.float16)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for prefix, module in (
        ("model.diffusion_model.", unet),
        ("first_stage_model.", vae),
        ("cond_stage_model.", text.clip_l),
    ):
        for key, value in module.state_dict().items():
            if not value.is_floating_point():
                state[prefix + key] = value.clone()
            elif value.ndim > 1:
                scale = value[0].numel() ** -0.5
                state[prefix + key] = (torch.randn(value.shape, generator=generator) * scale).half()
            else:
                one = key.endswith("weight") and "norm" in key
                state[prefix + key] = torch.full(value.shape, float(one)).half()
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(host, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "sd.safetensors")


@pytest.fixture
def run(comfyui):
    """Function (*arguments) -> the finished process of `python -m lumiere_core …`."""

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "lumiere_core", *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "COMFYUI_PATH": str(comfyui)},
            check=False,
        )

    return call


def test_prepare_and_train_from_the_command_line(host, checkpoint, run, tmp_path):
    media = host.module("lumiere_core.clips.media")
    frames = torch.randint(0, 256, (16, 64, 64, 3), dtype=torch.uint8)
    media.write_mp4(tmp_path / "videos" / "clip ü.mp4", frames)
    (tmp_path / "videos" / "clip ü.txt").write_text("noise of all colours", "utf-8")

    prepare = (
        "prepare",
        tmp_path / "videos",
        "--checkpoint",
        checkpoint,
        "--output",
        tmp_path / "cache",
        "--frames",
        8,
        "--size",
        64,
    )
    first = run(*prepare)
    assert first.returncode == 0, first.stderr[-3000:]
    assert "2 clips of 1 videos kept, 2 of them new" in first.stdout
    again = run(*prepare)
    assert "2 clips of 1 videos kept, 0 of them new" in again.stdout, again.stderr[-3000:]
    open_clips = host.module("lumiere_core.dataset.reader").open_clips
    clip = open_clips(tmp_path / "cache")[0]
    assert clip.tensors["latents"].shape == (4, 8, 8, 8) and clip.tensors["latents"].isfinite().all()
    assert clip.tensors["context"].shape == (77, 768)
    output = host.base / "models" / "lumiere" / "from_the_verb.safetensors"
    trained = run(
        "train",
        "temporal",
        "--checkpoint",
        checkpoint,
        "--data",
        tmp_path / "cache",
        "--output",
        output,
        "--steps",
        1,
        "--threads",
        1,
        "--sample-every",
        0,
    )
    assert trained.returncode == 0, trained.stderr[-3000:]
    assert "measured peak memory" in trained.stderr and "samples of step" not in trained.stderr
    import comfy.sd

    model, *_ = comfy.sd.load_checkpoint_guess_config(str(checkpoint), output_vae=False, output_clip=False)
    (applied,) = host.call("LumiereApplyTemporal", model=model, temporal="from_the_verb.safetensors", frames_per_clip=0)
    assert host.module("nodes.host.handlers").temporal_patcher(applied) is not None


def test_a_style_of_one_s_own_pictures_from_the_command_line(host, checkpoint, run, tmp_path):
    """`train style --images` starts the host for the pictures' latents, then trains without it."""
    media = host.module("lumiere_core.clips.media")
    for name in ("one", "two"):
        noise = torch.randint(0, 256, (80, 64, 3), dtype=torch.uint8)
        media.save_image(Image.fromarray(noise.numpy()), tmp_path / "pictures" / f"{name}.png")
    output = host.base / "models" / "loras" / "from_the_verb"
    trained = run(
        "train",
        "style",
        "--checkpoint",
        checkpoint,
        "--images",
        tmp_path / "pictures",
        "--style",
        "noise",
        "--output",
        output,
        "--height",
        64,
        "--width",
        64,
        "--steps",
        2,
        "--warmup",
        1,
        "--rank",
        2,
        "--learning-rate",
        0.1,
        "--ema-decay",
        0,
        "--threads",
        1,
        "--sample-every",
        0,
    )
    assert trained.returncode == 0, trained.stderr[-3000:]
    import comfy.sd

    model, *_ = comfy.sd.load_checkpoint_guess_config(str(checkpoint), output_vae=False, output_clip=False)
    (styled,) = host.call(
        "LoraLoaderModelOnly", model=model, lora_name="from_the_verb/lora.safetensors", strength_model=1.0
    )
    assert len(styled.patches) > 10
    assert all(key.startswith("diffusion_model.") for key in styled.patches)
