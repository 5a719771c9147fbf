"""Public AnimateDiff motion modules as a start for the coarsest level's temporal attention. Experimental.

AnimateDiff (Guo et al. 2023) puts a temporal transformer after every block at the full frame rate; Lumiere has temporal
attention at the coarsest level only, where a token stands for N frames. So the clock differs: the table of positions is
stretched over the clip, and the rest must be learnt. The last projection of each block stays zero: training starts at
the image model, as always, with attention that already knows something of motion.

Keys: `down_blocks.I.motion_modules.J.temporal_transformer.…`, `mid_block.motion_modules.0.…` (v2 only),
`up_blocks.I.motion_modules.J.…`; in each: `norm`, `proj_in`, `transformer_blocks.0.attention_blocks.{0,1}` with to_q,
to_k, to_v, to_out.0 and pos_encoder.pe, `transformer_blocks.0.norms.{0,1}`, `proj_out`.
"""

from __future__ import annotations

import dataclasses
import re

import torch
from torch import Tensor

from .config import TemporalConfig, UNetConfig
from .temporal_layers import stretched
from .unet import block_names

StateDict = dict[str, Tensor]
HEADS = 8  # of every public motion module
_MODULE = re.compile(
    r"(?:module\.)?(down_blocks|mid_block|up_blocks)\.(?:(\d+)\.)?motion_modules\.(\d+)\.temporal_transformer\.(.+)"
)


def is_animatediff(keys: list[str]) -> bool:
    """Tell a motion module file from its keys."""
    return any(_MODULE.fullmatch(key) for key in keys)


def warm_config(unet: UNetConfig, base: TemporalConfig) -> TemporalConfig:
    """Return a configuration whose attention has the shape of the motion modules: two layers, 8 heads, a table."""
    width = unet.model_channels * unet.channel_mult[-1]
    tokens = -(-base.frames_per_clip // base.stride ** (unet.num_levels - 1))
    return dataclasses.replace(
        base, depth=2, num_head_channels=width // HEADS, position_frames=max(2, tokens)
    )


def warm_start(
    state: StateDict, motion: StateDict, unet: UNetConfig, config: TemporalConfig
) -> StateDict:
    """Return temporal weights whose coarsest attention starts from motion modules.

    The transformer's input projection, its norms' scales and shifts and its output projection are multiplied into
    the attention's own matrices, and a table of positions is solved for that has the same effect in front of them.
    The normalisation inside the transformer and its feed-forward layer have no counterpart and are left out.

    Args:
        state: initial temporal weights of `config`; the result is a copy with some of them replaced.
        motion: of the file.

    Raises:
        ValueError: it is no motion module, or one for another width.
    """
    modules = _modules(motion)
    if not modules:
        raise ValueError(
            f"this is no AnimateDiff motion module (first keys {sorted(motion)[:3]}); keys with "
            "`motion_modules.0.temporal_transformer` are wanted."
        )
    result = dict(state)
    for block, source in _pairs(unet, modules):
        for layer in range(config.depth):
            prefix = f"{block}.inflation.layers.{layer}"
            for name, value in _layer(modules[source], layer, config.position_frames).items():
                key = f"{prefix}.{name}"
                if key not in state or state[key].shape != value.shape:
                    wanted = tuple(state[key].shape) if key in state else "none"
                    raise ValueError(
                        f"the motion module does not fit: {key} would be {tuple(value.shape)}, wanted {wanted}. SD1.x "
                        "models take v1, v2 and v3 files, SDXL takes SDXL files."
                    )
                result[key] = value
    return result


def _modules(motion: StateDict) -> dict[tuple[str, int, int], StateDict]:
    """Group the tensors by module: (side, block, number) -> name inside the module -> tensor."""
    modules: dict[tuple[str, int, int], StateDict] = {}
    for key, value in motion.items():
        if match := _MODULE.fullmatch(key):
            side, block, number, rest = match.groups()
            place = side, int(block or 0), int(number)
            modules.setdefault(place, {})[rest] = value.float()
    return modules


def _pairs(
    unet: UNetConfig, modules: dict[tuple[str, int, int], StateDict]
) -> list[tuple[str, tuple]]:
    """Pair the blocks of the coarsest level with the modules at the same places.

    v1, v3 and SDXL files have none in the middle: the last one before it serves there too.
    """
    coarsest = unet.num_levels - 1
    names = [
        n for n, level, _, resize in block_names(unet) if level == coarsest and resize != "down"
    ]
    encoder = [n for n in names if n.startswith("input")]
    decoder = [n for n in names if n.startswith("output")]
    last = max((block for side, block, _ in modules if side == "down_blocks"), default=0)
    if (
        last != coarsest
    ):  # widths alone do not tell: the coarsest level of SD1.x and of SDXL has 1280 channels
        raise ValueError(
            f"the motion module is of another kind of model: it has {last + 1} levels, this U-Net {unet.num_levels}. "
            "SD1.x models take v1, v2 and v3 files, SDXL takes SDXL files."
        )
    pairs: list[tuple[str, tuple]] = [
        (name, ("down_blocks", last, number)) for number, name in enumerate(encoder)
    ]
    pairs += [(name, ("up_blocks", 0, number)) for number, name in enumerate(decoder)]
    middle = ("mid_block", 0, 0)
    pairs.append(("middle_block", middle if middle in modules else pairs[len(encoder) - 1][1]))
    missing = [place for _, place in pairs if place not in modules]
    if missing:
        raise ValueError(
            f"the motion module has no {missing[0]}; found {sorted(modules)[:4]} …. It is of another kind of model."
        )
    return pairs


def _layer(module: StateDict, number: int, positions: int) -> StateDict:
    """Return the weights of one TemporalAttention; see `warm_start`."""
    at = f"transformer_blocks.0.attention_blocks.{number}"
    norm = f"transformer_blocks.0.norms.{number}"
    into = module["proj_in.weight"].flatten(1)  # some files have it as a 1 x 1 convolution
    out = module["proj_out.weight"].flatten(1)
    scaled = module[f"{norm}.weight"][:, None] * into
    # In front of q, k and v stand norm(h) * scale + shift + pe; ours has W (y + p) with W = W_q diag(scale) W_in.
    shift = module[f"{norm}.bias"] + module[f"{norm}.weight"] * module["proj_in.bias"]
    table = (
        stretched(module[f"{at}.pos_encoder.pe"].reshape(-1, scaled.shape[0]), positions) + shift
    )
    position = torch.linalg.lstsq(scaled.double(), table.double().T).solution.T.float()
    return {
        "norm.weight": module["norm.weight"],
        "norm.bias": module["norm.bias"],
        "position": position,
        **{f"to_{n}.weight": module[f"{at}.to_{n}.weight"] @ scaled for n in "qkv"},
        "to_out.weight": out @ module[f"{at}.to_out.0.weight"],
        "to_out.bias": out @ module[f"{at}.to_out.0.bias"],
    }
