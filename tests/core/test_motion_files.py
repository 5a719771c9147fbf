"""Which public files are known, what each is said to be, and which files are refused by name."""

import dataclasses
import json

import pytest
import torch

from lumiere_core.nets.checkpoint import load_into
from lumiere_core.nets.motion_files import Training, read_motion_module
from lumiere_core.nets.temporal import TemporalLayers

X = torch.zeros(1)


@pytest.fixture
def config(tiny):
    return tiny.unet_config(3, num_res_blocks=(1, 1, 1))


@pytest.fixture
def four(tiny):
    return tiny.unet_config(4)


@pytest.fixture
def public(public_motion):
    """Function (UNetConfig, **options) -> a file in AnimateDiff's layout for that U-Net."""

    def make(config, **options):
        widths = [config.model_channels * m for m in config.channel_mult]
        return public_motion.motion_file(widths, config.num_res_blocks, **options)

    return make


@pytest.mark.parametrize(
    ("levels", "options", "title", "betas", "clip_norms", "frames"),
    [
        (4, {"frames": 24}, "AnimateDiff v1", ("linear", 0.00085, 0.012), True, 16),
        (4, {"frames": 32, "middle": True}, "AnimateDiff v2", ("linear", 0.00085, 0.012), False, 16),
        (4, {"frames": 32}, "AnimateDiff v3", ("linear", 0.00085, 0.012), False, 16),
        (3, {"frames": 32}, "AnimateDiff SDXL", ("scaled_linear", 0.00085, 0.020), False, 16),
        (3, {"frames": 24, "hotshot": True}, "HotshotXL", None, True, 8),
    ],
)
def test_what_a_file_is_said_to_be(tiny, levels, options, title, betas, clip_norms, frames, public, public_motion):
    config = tiny.unet_config(levels)
    options = dict(options)
    hotshot = options.pop("hotshot", False)
    state = public(config, dtype=torch.float16, **options)
    found = read_motion_module(public_motion.hotshot(state) if hotshot else state, config, "mm")
    assert found.training == Training(title, betas, clip_norms)
    assert Training.from_dict(json.loads(json.dumps(found.training.to_dict()))) == found.training
    assert found.config.frames_per_clip == frames
    assert found.config.table_frames == options["frames"]
    assert {v.dtype for v in found.state.values()} == {torch.float16}


@pytest.mark.parametrize(
    ("state", "what"),
    [
        (
            {"down_blocks.0.motion_modules.0.temporal_transformer.x_lora.down.weight": X},
            "a motion LoRA: load it with Lumiere",
        ),
        ({"lora_unet_input_blocks_1.lora_up.weight": X}, "a LoRA of the image model"),
        ({"down_blocks.0.attentions.0.attn1.processor.to_q_lora.up.weight": X}, "a LoRA of the image model"),
        ({"control_model.input_blocks.0.0.weight": X}, "a ControlNet"),
        ({"controlnet_cond_embedding.conv_in.weight": X, "down_blocks.0.motion_modules.0.norm": X}, "a ControlNet"),
        ({"model.diffusion_model.input_blocks.0.0.weight": X}, "an image model"),
        ({"down_blocks.0.resnets.0.norm1.weight": X}, "an image model"),
        ({"encoder.down.0.x": X, "decoder.up.0.x": X}, "a VAE"),
        ({"conv_in.weight": X, "down_blocks.0.motion_modules.0.norm": X}, "PIA"),
        ({"something": X}, r"no motion module \(its first keys are something\)"),
        ({}, "none at all"),
    ],
)
def test_another_kind_of_file_is_called_by_its_name(config, state, what):
    with pytest.raises(ValueError, match=f"^file.ckpt is (a motion module with parts .*|no motion module .*)?{what}"):
        read_motion_module(state, config, "file.ckpt")


def test_a_module_without_its_table(config, public):
    state = {k: v for k, v in public(config).items() if "pos_encoder" not in k}
    with pytest.raises(ValueError, match="mm is a motion module without its table of positions"):
        read_motion_module(state, config, "mm")


def test_a_tensor_too_many_is_named(config, public):
    state = {**public(config), "down_blocks.0.motion_modules.0.temporal_transformer.extra": X}
    with pytest.raises(ValueError, match="1 tensors that are of no motion module.*extra"):
        read_motion_module(state, config, "mm")


def test_a_module_of_another_family_is_refused_by_the_families_names(config, four, tiny):
    """The widths of the real checkpoints; only the norms are looked at, so the rest may be small."""

    def real(widths):
        places = [f"down_blocks.{i}.motion_modules.0.norm.weight" for i in range(len(widths))]
        return {place: torch.zeros(width) for place, width in zip(places, widths, strict=True)}

    sd1 = dataclasses.replace(four, model_channels=320, channel_mult=(1, 2, 4, 4), context_dim=768)
    sd2 = dataclasses.replace(sd1, context_dim=1024)
    sdxl = dataclasses.replace(
        config,
        model_channels=320,
        channel_mult=(1, 2, 4),
        context_dim=2048,
        num_res_blocks=(2, 2, 2),
        transformer_depth=(0, 0, 2, 2, 10, 10),
        transformer_depth_output=(0, 0, 0, 2, 2, 2, 10, 10, 10),
    )
    for widths, got, message in (
        ((320, 640, 1280, 1280), sdxl, r"for SD1\.x, but this MODEL is SDXL"),
        ((320, 640, 1280), sd1, r"for SDXL, but this MODEL is SD1\.x"),
        ((320, 640, 1280, 1280), sd2, r"for SD1\.x, but this MODEL is SD2\.x"),
        ((320, 640, 1280, 1280), config, r"for SD1\.x, but this MODEL is a U-Net of 32 channels"),
        ((64, 64, 128), config, r"for a U-Net of widths \(64, 64, 128\), but"),
    ):
        with pytest.raises(ValueError, match=f"mm is a motion module {message}"):
            read_motion_module(real(widths), got, "mm")


def test_a_module_for_more_blocks_than_the_u_net_has(tiny, config, public):
    deeper = tiny.unet_config(
        3, num_res_blocks=(2, 2, 2), transformer_depth=(0,) * 6, transformer_depth_output=(0,) * 9
    )
    with pytest.raises(ValueError, match="blocks that this MODEL's U-Net does not have: down_blocks.0.1"):
        read_motion_module(public(deeper), config, "mm")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight", torch.tensor(1.0)),
        ("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight", torch.zeros(0)),
        ("down_blocks.77.motion_modules.0.temporal_transformer.norm.weight", torch.zeros(32)),
        (f"down_blocks.{'9' * 5000}.motion_modules.0.temporal_transformer.norm.weight", torch.zeros(32)),
        ("mid_block.motion_modules.9.temporal_transformer.norm.weight", torch.zeros(32)),
    ],
)
def test_a_damaged_module_is_named(config, public, key, value):
    with pytest.raises(ValueError, match=r"mm\.ckpt"):
        read_motion_module(public(config, frames=24) | {key: value}, config, "mm.ckpt")


def test_a_module_of_parts_of_its_layers_is_named(config, public):
    state = public(config, frames=24)
    tables = [key for key in state if key.endswith(".pe")]
    for change in (
        {key: torch.zeros(1) for key in tables},
        {key: torch.zeros(1, 10**5, 1) for key in tables},
        dict.fromkeys(state, torch.zeros(())),
    ):
        with pytest.raises(ValueError, match=r"mm\.ckpt|table_frames"):
            found = read_motion_module(state | change, config, "mm.ckpt")
            load_into(TemporalLayers(config, found.config), found.state, "the layers of mm.ckpt")
    with pytest.raises(ValueError, match=r"mm\.ckpt"):
        read_motion_module({k: v for k, v in state.items() if k.startswith("up_blocks")}, config, "mm.ckpt")


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {"title": 3, "betas": None, "clip_norms": False},
        {"title": "x", "betas": ["other", 0.1, 0.2], "clip_norms": False},
        {"title": "x", "betas": ["linear", float("nan"), 0.2], "clip_norms": False},
        {"title": "x", "betas": ["linear", 0.2, 0.1], "clip_norms": False},
        {"title": "x", "betas": "linear", "clip_norms": False},
        {"title": "x", "betas": None},
    ],
)
def test_what_a_file_says_of_its_training_is_checked(values):
    with pytest.raises(ValueError, match='"motion" in the lumiere.config is'):
        Training.from_dict(values)
