"""Motion LoRA files: every public spelling of a name finds its layer, what does not fit is refused, what is written is read."""

import pytest
import torch

from lumiere_core.nets.config import TemporalConfig
from lumiere_core.nets.motion_lora import lora_file, read_motion_lora
from lumiere_core.nets.temporal import TemporalLayers

MOTION = TemporalConfig(kind="motion_module", stride=1, table_frames=8)
PLACE = "down_blocks.1.motion_modules.0"
LAYER = "input_blocks.3.inflation.layers.1.to_out"


@pytest.fixture
def config(tiny):
    return tiny.unet_config(3, num_res_blocks=(1, 1, 1))


def weights(config, temporal):
    with torch.device("meta"):
        return TemporalLayers(config, temporal).state_dict()


def pair(width, rank=2, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(width, rank, generator=random), torch.randn(rank, width, generator=random)


SPELLINGS = [
    "{}.temporal_transformer.transformer_blocks.0.attention_blocks.1.processor.to_out_lora.{}.weight",
    "module.{}.temporal_transformer.transformer_blocks.0.attention_blocks.1.processor.to_out_lora.{}.weight",
    "{}.transformer_blocks.0.attn2.processor.to_out_lora.{}.weight",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_animatediff_s_names(config, spelling):
    up, down = pair(32)
    state = {spelling.format(PLACE, "up"): up, spelling.format(PLACE, "down"): down}
    found, left_out = read_motion_lora(state, weights(config, MOTION), config, MOTION, "zoom.ckpt")
    assert not left_out and torch.equal(found[LAYER]["up"], up) and torch.equal(found[LAYER]["down"], down)


def test_peft_s_names_with_an_alpha(config):
    up, down = pair(32)
    base = f"unet.{PLACE}.transformer_blocks.0.attn2.to_out.0"
    state = {f"{base}.lora_B.weight": up, f"{base}.lora_A.weight": down, f"{base}.alpha": torch.tensor(4.0)}
    found, _ = read_motion_lora(state, weights(config, MOTION), config, MOTION, "zoom")
    assert found[LAYER]["alpha"] == 4 and torch.equal(found[LAYER]["up"], up)


def test_what_is_written_is_read_again(tiny, config):
    """In AnimateDiff's layout for a motion module, in the pack's for Lumiere's layers, whose convolutions count too."""
    up, down = pair(32)
    state = lora_file({LAYER: {"up": up, "down": down}}, config, MOTION)
    assert set(state) == {SPELLINGS[0].format(PLACE, part) for part in ("up", "down")}
    found, _ = read_motion_lora(state, weights(config, MOTION), config, MOTION, "own")
    assert torch.equal(found[LAYER]["up"], up.half())
    lumiere, layer = tiny.temporal_config(), "input_blocks.1.inflation.temporal_conv.conv"
    deltas = {layer: {"up": torch.ones(32, 2, 1, 1), "down": torch.ones(2, 32, 3, 1)}}
    state = lora_file(deltas, config, lumiere)
    found, _ = read_motion_lora(state, weights(config, lumiere), config, lumiere, "own")
    assert found[layer]["down"].shape == (2, 32, 3, 1)


def test_changes_for_a_middle_block_that_is_not_followed_are_said(config):
    up, down = pair(64)
    middle = SPELLINGS[0].replace("attention_blocks.1", "attention_blocks.0")
    state = {middle.format("mid_block.motion_modules.0", part): v for part, v in (("up", up), ("down", down))}
    small = dict(zip((SPELLINGS[0].format(PLACE, p) for p in ("up", "down")), pair(32), strict=True))
    found, left_out = read_motion_lora(state | small, weights(config, MOTION), config, MOTION, "v2")
    assert list(found) == [LAYER] and left_out == ["middle_block.inflation.layers.0.to_out"]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"lora_unet_input_blocks_1_1.lora_up.weight": torch.zeros(1)}, "a LoRA of the image model"),
        ({f"{PLACE}.temporal_transformer.norm.weight": torch.zeros(1)}, "no motion LoRA"),
        ({SPELLINGS[0].format("down_blocks.7.motion_modules.0", "up"): torch.zeros(1, 1)}, "does not fit this MODEL"),
        ({SPELLINGS[0].format(PLACE, "up"): torch.zeros(32, 2)}, "does not fit this MODEL: its change of"),
        (
            dict(zip((SPELLINGS[0].format(PLACE, p) for p in ("up", "down")), pair(48), strict=True)),
            "another image model",
        ),
        ({}, "does not fit this MODEL"),
    ],
)
def test_what_does_not_fit_is_refused(config, state, message):
    with pytest.raises(ValueError, match=f"zoom.ckpt .*{message}"):
        read_motion_lora(state, weights(config, MOTION), config, MOTION, "zoom.ckpt")


def test_a_lora_of_another_kind_is_refused(tiny, config):
    state = dict(zip((SPELLINGS[0].format(PLACE, p) for p in ("up", "down")), pair(32), strict=True))
    lumiere = tiny.temporal_config()
    with pytest.raises(ValueError, match="which has Lumiere's temporal layers: there is no layer input_blocks.3"):
        read_motion_lora(state, weights(config, lumiere), config, lumiere, "zoom")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"down": torch.zeros(())}, "does not fit"),
        ({"up": torch.zeros(0)}, "does not fit"),
        ({"up": torch.zeros(32, 3)}, "does not fit"),  # another rank than down's
        ({"down": torch.zeros(0, 32), "up": torch.zeros(32, 0)}, "does not fit"),
        ({"up": torch.full((32, 2), float("nan"))}, "hold NaN"),
        ({"up": torch.zeros(32, 2, dtype=torch.int64)}, "of another type than floating point"),
        ({"alpha": torch.zeros(3)}, "does not fit"),
        ({"alpha": torch.tensor(float("inf"))}, "hold NaN or infinite"),
    ],
)
def test_damaged_changes_are_refused(config, change, message):
    up, down = pair(32)
    parts = {"up": up, "down": down} | change
    names = {"up": "lora_B.weight", "down": "lora_A.weight", "alpha": "alpha"}
    state = {f"{PLACE}.transformer_blocks.0.attn2.to_out.0.{names[part]}": value for part, value in parts.items()}
    with pytest.raises(ValueError, match=message):
        read_motion_lora(state, weights(config, MOTION), config, MOTION, "zoom")
