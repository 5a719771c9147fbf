"""I3D, the inflated Inception of Carreira and Zisserman (2017), as a function of its weights.

The names of the weights are those of the public PyTorch conversion (Conv3d_1a_7x7.conv3d.weight …), as in the files
i3d_pretrained_400 and rgb_imagenet. Widths are read from the weights. x - (b, channels, t, h, w).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
SIZE = 224  # pixels that it was trained on
LEAST_FRAMES = 10
MARK = "Conv3d_1a_7x7.conv3d.weight"  # a name by which a file is known
BLOCKS = (  # name, and the max-pooling before it: window and stride
    ("Mixed_3b", ((1, 3, 3), (1, 2, 2))),
    ("Mixed_3c", None),
    ("Mixed_4b", ((3, 3, 3), (2, 2, 2))),
    ("Mixed_4c", None),
    ("Mixed_4d", None),
    ("Mixed_4e", None),
    ("Mixed_4f", None),
    ("Mixed_5b", ((2, 2, 2), (2, 2, 2))),
    ("Mixed_5c", None),
)


def i3d_logits(x: Tensor, state: State) -> Tensor:
    """(b, 3, t, h, w) in [-1, 1], 10 or more frames -> (b, classes): what FVD takes as features."""
    x = _unit(x, state, "Conv3d_1a_7x7", (2, 2, 2))
    x = _pool(x, (1, 3, 3), (1, 2, 2))
    x = _unit(x, state, "Conv3d_2b_1x1")
    x = _unit(x, state, "Conv3d_2c_3x3")
    for name, pool in BLOCKS:
        if pool:
            x = _pool(x, *pool)
        x = _mixed(x, state, name)
    x = F.avg_pool3d(x, (min(2, x.shape[2]), 7, 7), stride=1)
    logits = F.conv3d(x, state["logits.conv3d.weight"], state["logits.conv3d.bias"])
    return logits.mean((2, 3, 4))


def _mixed(x: Tensor, state: State, name: str) -> Tensor:
    parts = [
        _unit(x, state, f"{name}.b0"),
        _unit(_unit(x, state, f"{name}.b1a"), state, f"{name}.b1b"),
        _unit(_unit(x, state, f"{name}.b2a"), state, f"{name}.b2b"),
        _unit(_pool(x, (3, 3, 3), (1, 1, 1)), state, f"{name}.b3b"),
    ]
    return torch.cat(parts, 1)


def _unit(x: Tensor, state: State, name: str, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
    """Convolution without bias, batch normalisation, ReLU."""
    weight = state[f"{name}.conv3d.weight"]
    x = F.conv3d(_same(x, weight.shape[2:], stride), weight, stride=stride)
    norm = [state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    return F.relu(F.batch_norm(x, *norm, eps=1e-5))


def _pool(x: Tensor, window: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    return F.max_pool3d(_same(x, window, stride), window, stride)


def _same(x: Tensor, window, stride) -> Tensor:
    """Pad with zeros as TensorFlow does: as many outputs as inputs over stride, the odd one at the end."""
    pads: list[int] = []
    for size, width, step in zip(reversed(x.shape[2:]), reversed(tuple(window)), reversed(stride), strict=True):
        over = max(width - (step if size % step == 0 else size % step), 0)
        pads += [over // 2, over - over // 2]
    return F.pad(x, pads)
