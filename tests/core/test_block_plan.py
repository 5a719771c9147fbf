"""Which temporal part follows which layer."""

import pytest

from lumiere_core.nets.block_plan import plan_blocks
from lumiere_core.nets.stunet import KINDS
from lumiere_core.nets.unet import UNet, block_names


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_the_plan_agrees_with_the_blocks_of_the_configuration(tiny, levels):
    config = tiny.unet_config(levels)
    plans = plan_blocks(UNet(config), KINDS, tiny.temporal(config).follows)
    for (name, level, _, resize), (key, plan) in zip(block_names(config), plans.items(), strict=True):
        assert name == key == plan.name
        assert plan.after == (level - 1 if resize == "up" else level)
        assert plan.level == (level - 1 if resize == "down" else level)
        assert ("downsample" in plan.parts) == (resize == "down")
        assert ("upsample" in plan.parts) == (resize == "up")
        assert ("inflate" in plan.parts) == (resize in ("", "up"))


def test_the_temporal_part_follows_the_last_layer_of_the_group(tiny):
    config = tiny.unet_config(3)
    plans = plan_blocks(UNet(config), KINDS, tiny.temporal(config).follows)
    assert plans["input_blocks.5"].parts == (None, "inflate")  # residual, then attention
    assert plans["middle_block"].parts == (None, None, "inflate")
    assert plans["output_blocks.1"].parts[-2:] == ("inflate", "upsample")
