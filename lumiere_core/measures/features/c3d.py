"""C3D (Tran et al. 2015) as a function of its weights: the network of the Inception Score on UCF101 (Saito et al. 2020).

Weights are named conv1 … fc8, or conv1a … as in the first release. Widths are read from the weights.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
SIZE = 112  # pixels
FRAMES = 16
MARKS = ("conv1.weight", "conv1a.weight")
LAYERS = (
    ("conv1", 1),
    ("conv2", 2),
    ("conv3a", 0),
    ("conv3b", 2),
    ("conv4a", 0),
    ("conv4b", 2),
    ("conv5a", 0),
    ("conv5b", 2),
)


def c3d_logits(x: Tensor, state: State) -> Tensor:
    """(b, 3, 16, 112, 112) -> (b, classes), with the range and the order of channels that the weights were trained on."""
    for name, pool in LAYERS:
        name = name if f"{name}.weight" in state else f"{name}a"
        x = F.relu(F.conv3d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))
        if pool:
            window = (1, 2, 2) if name.startswith("conv1") else (2, 2, 2)
            x = F.max_pool3d(x, window, window, padding=(0, 1, 1) if name == "conv5b" else 0)
    x = x.flatten(1)
    for name in ("fc6", "fc7"):
        x = F.relu(F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"]))
    return F.linear(x, state["fc8.weight"], state["fc8.bias"])
