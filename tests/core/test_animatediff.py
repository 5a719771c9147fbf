"""AnimateDiff motion modules as a start: synthetic files in the public key layout."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from lumiere_core.animatediff import is_animatediff, warm_config, warm_start
from lumiere_core.config import TemporalConfig, UNetConfig
from lumiere_core.temporal import TemporalLayers, initial_state
from lumiere_core.temporal_layers import stretched

# SD1.x and SDXL in small: 4 and 3 levels, 2 blocks each.
SD = UNetConfig(
    in_channels=4, out_channels=4, model_channels=32, channel_mult=(1, 1, 1, 2), num_res_blocks=(2,) * 4,
    transformer_depth=(0,) * 8, transformer_depth_output=(0,) * 12, num_head_channels=32,
)  # fmt: skip
XL = dataclasses.replace(
    SD, channel_mult=(1, 1, 2), num_res_blocks=(2,) * 3, transformer_depth=(0,) * 6, transformer_depth_output=(0,) * 9
)  # fmt: skip
FILES = {"v1": (24, False), "v2": (32, True), "v3": (32, False)}


def motion_file(unet, frames=24, middle=False, prefix="", seed=0):
    """Return tensors of a motion module for a U-Net, named as the public files are."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def module(place, width):
        def add(name, *shape):
            state[f"{prefix}{place}.temporal_transformer.{name}"] = (
                torch.randn(shape, generator=generator) * 0.2
            )

        for name in (
            "norm",
            "transformer_blocks.0.norms.0",
            "transformer_blocks.0.norms.1",
            "transformer_blocks.0.ff_norm",
        ):
            add(f"{name}.weight", width)
            add(f"{name}.bias", width)
        for name in ("proj_in", "proj_out"):
            add(f"{name}.weight", width, width)
            add(f"{name}.bias", width)
        add("transformer_blocks.0.ff.net.0.proj.weight", width * 8, width)
        add("transformer_blocks.0.ff.net.2.weight", width, width * 4)
        for number in (0, 1):
            at = f"transformer_blocks.0.attention_blocks.{number}"
            for letter in "qkv":
                add(f"{at}.to_{letter}.weight", width, width)
            add(f"{at}.to_out.0.weight", width, width)
            add(f"{at}.to_out.0.bias", width)
            add(f"{at}.pos_encoder.pe", 1, frames, width)

    widths = [unet.model_channels * m for m in unet.channel_mult]
    for level, width in enumerate(widths):
        for number in (0, 1):
            module(f"down_blocks.{level}.motion_modules.{number}", width)
        for number in (0, 1, 2):
            module(f"up_blocks.{len(widths) - 1 - level}.motion_modules.{number}", width)
    if middle:
        module("mid_block.motion_modules.0", widths[-1])
    return state


def warm(unet, motion, frames=64):
    config = warm_config(unet, TemporalConfig(frames_per_clip=frames))
    layers = TemporalLayers(unet, config)
    state = initial_state(layers, torch.Generator().manual_seed(0))
    result = warm_start(state, motion, unet, config)
    layers.load_state_dict(result)
    return layers, state, result


@pytest.mark.parametrize(("unet", "kind"), [(SD, "v1"), (SD, "v2"), (SD, "v3"), (XL, "v1")])
def test_every_coarse_attention_starts_from_the_file(unet, kind):
    frames, middle = FILES[kind]
    motion = motion_file(unet, frames, middle)
    assert is_animatediff(list(motion))
    layers, state, result = warm(unet, motion)
    changed = {k for k, v in result.items() if not torch.equal(v, state[k])}
    coarse = {k for k in state if ".inflation.layers." in k}
    assert coarse and changed == coarse
    # Not a module too few: two encoder blocks, the middle, three decoder blocks, of two layers.
    assert len({k.split(".inflation")[0] for k in changed}) == 6
    assert layers.config.depth == 2
    assert layers.middle_block.inflation.layers[0].heads == 8


def test_the_middle_of_v2_is_its_own_and_elsewhere_the_one_before_it():
    with_middle, without = motion_file(SD, 32, True), motion_file(SD, 32, False)
    for motion, same in ((with_middle, False), (without, True)):
        _, _, result = warm(SD, motion)
        middle, before = (
            result[f"{n}.inflation.layers.0.to_v.weight"]
            for n in ("middle_block", "input_blocks.11")
        )
        assert torch.equal(middle, before) == same


def test_queries_and_keys_are_those_of_the_file():
    """q of ours from normed features equals W_q ((W_in y + b_in) * scale + shift + pe), for q, k and v."""
    motion = motion_file(SD, 32)
    layers, _, _ = warm(SD, motion, frames=256)  # 32 tokens: the table as it is
    attention = layers.block("input_blocks.11").inflation.layers[1]
    at = "down_blocks.3.motion_modules.1.temporal_transformer"
    block = f"{at}.transformer_blocks.0"
    y = torch.randn(5, 32, 64, generator=torch.Generator().manual_seed(1))
    inner = F.linear(y, motion[f"{at}.proj_in.weight"], motion[f"{at}.proj_in.bias"])
    inner = inner * motion[f"{block}.norms.1.weight"] + motion[f"{block}.norms.1.bias"]
    inner = inner + motion[f"{block}.attention_blocks.1.pos_encoder.pe"]
    for letter in "qkv":
        wanted = F.linear(inner, motion[f"{block}.attention_blocks.1.to_{letter}.weight"])
        got = getattr(attention, f"to_{letter}")(y + attention.position)
        assert torch.allclose(got, wanted, atol=2e-3), letter


def test_training_still_starts_at_the_image_model():
    layers, _, _ = warm(SD, motion_file(SD))
    x = torch.randn(16, 64, 2, 2, generator=torch.Generator().manual_seed(0))
    block = layers.middle_block.inflation
    assert torch.equal(block(x, 8, None), x)
    torch.nn.init.eye_(block.proj.weight[:, :, 0, 0].detach())
    with torch.no_grad():
        block.proj.weight[:, :, 0, 0] = torch.eye(64)
        assert not torch.allclose(block(x, 8, None) - x, x, atol=1e-3)  # frames see each other


def test_table_of_positions_is_stretched_with_its_ends_kept():
    table = torch.arange(24.0)[:, None].expand(24, 3)
    ten = stretched(table, 10)
    assert ten.shape == (10, 3) and ten[0, 0] == 0 and ten[-1, 0] == 23
    assert torch.allclose(ten[1:] - ten[:-1], torch.full((9, 3), 23 / 9), atol=1e-5)


def test_a_clip_of_another_length_stretches_the_table():
    layers, _, _ = warm(SD, motion_file(SD), frames=64)
    attention = layers.middle_block.inflation.layers[0]
    assert attention.position.shape == (8, 64)
    x = torch.randn(20, 64, 2, 2)
    assert attention(x, 20, None).shape == x.shape


def test_other_key_styles_and_other_files():
    motion = motion_file(SD, prefix="module.")
    assert is_animatediff(list(motion)) and warm(SD, motion)
    assert not is_animatediff(["temporal.middle_block.inflation.proj.weight"])
    config = warm_config(SD, TemporalConfig())
    state = initial_state(TemporalLayers(SD, config), torch.Generator())
    with pytest.raises(ValueError, match="no AnimateDiff motion module"):
        warm_start(state, {"x": torch.zeros(1)}, SD, config)
    with pytest.raises(ValueError, match="another kind of model: it has 3 levels, this U-Net 4"):
        warm_start(state, motion_file(XL), SD, config)
    wide = dataclasses.replace(SD, model_channels=64)
    with pytest.raises(ValueError, match="does not fit: .* would be"):
        warm_start(state, motion_file(wide), SD, config)
