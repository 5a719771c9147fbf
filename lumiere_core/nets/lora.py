"""Low-rank deltas of an image U-Net's weights (LoRA, Hu et al. 2021), in files that ComfyUI's stock loaders read.

A weight W of shape (o, i, …) becomes W + strength * up @ down with up (o, r) and down (r, i …). For a style the
strength is the alpha of Lumiere §4.1: alpha * W_style + (1 - alpha) * W_orig with W_style = W_orig + up @ down.

Keys are kohya's: `lora_unet_` and the LDM name with underscores, then `.lora_up.weight`, `.lora_down.weight`,
`.alpha` (the rank, so that the scale is 1) and `.diff_b` for the delta of a bias.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .checkpoint import StateDict
from .config import LORA_LAYERS

PREFIX = "lora_unet_"
UP, DOWN, BIAS, ALPHA = ".lora_up.weight", ".lora_down.weight", ".diff_b", ".alpha"


class LowRank(nn.Module):
    """Trainable deltas for the layers of a frozen network; at the start they change nothing.

    Args:
        network: with LDM names; it is neither changed nor kept.
        rank: r; a layer narrower than it gets its own width.
        layers: "all" linear layers and 2-D convolutions with their biases, or those inside "attention"
            blocks without their biases (the custom for SD1.5, smaller files).
        seed: of the `down` matrices; `up` and the biases begin at zero.
        chosen: function of a layer's name that says whether it is changed, in place of `layers`; without biases.

    Raises:
        ValueError: the rank is not positive, `layers` is unknown, or the network has no such layer.
    """

    def __init__(
        self,
        network: nn.Module,
        rank: int,
        layers: str = "all",
        seed: int = 0,
        chosen: Callable[[str], bool] | None = None,
    ) -> None:
        super().__init__()
        if rank < 1 or layers not in LORA_LAYERS:
            raise ValueError(f"got rank {rank} of {layers!r} layers; at least 1, of {LORA_LAYERS}.")
        generator = torch.Generator().manual_seed(seed)
        self.names: dict[str, str] = {}  # key without suffix -> name of the layer
        self.up, self.down, self.bias = (nn.ParameterDict() for _ in range(3))
        for name, layer in network.named_modules():
            if not isinstance(layer, (nn.Linear, nn.Conv2d)):
                continue
            wanted = chosen(name) if chosen else layers == "all" or ".transformer_blocks." in name
            if not wanted:
                continue
            key, shape = key_of(name), layer.weight.shape
            self.names[key] = name
            own = min(rank, shape[0], shape[1:].numel())
            down = torch.randn(own, *shape[1:], generator=generator) * shape[1:].numel() ** -0.5
            self.down[key] = nn.Parameter(down)
            self.up[key] = nn.Parameter(torch.zeros(shape[0], own, *(1,) * (len(shape) - 2)))
            if layers == "all" and chosen is None and layer.bias is not None:
                self.bias[key] = nn.Parameter(torch.zeros_like(layer.bias, device="cpu"))
        if not self.names:
            raise ValueError(f"{type(network).__name__} has no {layers} layers to adapt.")

    def merged(self, network: nn.Module) -> dict[str, Tensor]:
        """Return the network's changed weights by name, for `torch.func.functional_call`."""
        own = dict(network.named_parameters())
        state = {}
        for key, name in self.names.items():
            weight = own[f"{name}.weight"]
            delta = self.up[key].flatten(1) @ self.down[key].flatten(1)
            state[f"{name}.weight"] = weight + delta.view_as(weight)
            if key in self.bias:
                state[f"{name}.bias"] = own[f"{name}.bias"] + self.bias[key]
        return state

    def file_state(self, values: dict[str, Tensor]) -> StateDict:
        """Return the tensors of a LoRA file, float16, from values by this module's parameter names. A state dict."""
        state: StateDict = {}
        for name, value in values.items():
            kind, key = name.split(".", 1)
            state[key + {"up": UP, "down": DOWN, "bias": BIAS}[kind]] = value.to(torch.float16)
        for key in self.names:
            state[key + ALPHA] = torch.tensor(float(self.down[key].shape[0]))
        return state


def key_of(name: str) -> str:
    """Return kohya's key of a layer: `middle_block.0.in_layers.2` -> `lora_unet_middle_block_0_in_layers_2`."""
    return PREFIX + name.replace(".", "_")


def apply(weights: StateDict, lora: StateDict, strength: float, what: str = "the LoRA") -> StateDict:
    """Return image weights with a LoRA file's deltas added (float32 sums, rounded once).

    Raises:
        ValueError: keys or shapes of the file do not fit the weights; the first are named.
    """
    layers = {key_of(k.removesuffix(".weight")): k for k in weights if k.endswith(".weight")}
    result = dict(weights)
    unknown = [k for k in sorted(lora) if k.split(".", 1)[0] not in layers]
    if unknown:
        raise _misfit(what, f"{len(unknown)} unknown keys: {', '.join(unknown[:3])}")
    for key, name in layers.items():
        if key + UP in lora:
            up, down, scale = _delta_of(lora, key, what)
            delta = scale * (up.flatten(1) @ down.flatten(1))
            result[name] = _add(weights[name], delta, strength, name=name, what=what)
        if key + BIAS in lora:
            bias = f"{name.removesuffix('.weight')}.bias"
            if bias not in weights:
                raise _misfit(what, f"{name.removesuffix('.weight')} has no bias to change")
            result[bias] = _add(weights[bias], lora[key + BIAS], strength, name=bias, what=what)
    return result


def _delta_of(lora: StateDict, key: str, what: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return up (o, r, …), down (r, i, …) and the scale of a layer's delta, in float32."""
    up, down = lora[key + UP], lora.get(key + DOWN, torch.empty(0))
    rank = len(down) if down.ndim > 1 else 0
    alpha = lora.get(key + ALPHA, torch.tensor(float(rank)))
    if up.ndim < 2 or up.shape[1:].numel() != rank or not rank or alpha.numel() != 1:
        raise _misfit(
            what, f"{key} has the shapes {tuple(up.shape)} and {tuple(down.shape)}, alpha {tuple(alpha.shape)}"
        )
    return up.float(), down.float(), alpha.float().reshape(()) / rank


def _add(weight: Tensor, delta: Tensor, strength: float, name: str, what: str) -> Tensor:
    if weight.numel() != delta.numel():
        raise _misfit(what, f"{name} has {weight.numel()} numbers, its delta {delta.numel()}")
    return (weight.float() + strength * delta.float().view_as(weight)).to(weight.dtype)


def _misfit(what: str, problem: str) -> ValueError:
    return ValueError(f"{what} does not fit this image model: {problem}. It was made for another one.")
