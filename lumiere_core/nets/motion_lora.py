"""Motion LoRA: low-rank changes of temporal layers, in the public layouts and in this pack's.

AnimateDiff's files name a motion module's layers, `….attention_blocks.0.processor.to_q_lora.down.weight`; diffusers' say
`….attn1.to_q.lora_A.weight`. A LoRA of Lumiere's own layers, which no other program has, uses this pack's names:
`lumiere_temporal.input_blocks.4.inflation.layers.0.to_q.lora_down.weight`. Scales are 1: `up @ down` is the change.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from .checkpoint import StateDict, check_values
from .config import KINDS, TemporalConfig, UNetConfig
from .motion_files import module_key, places
from .motion_module import KIND

OWN = "lumiere_temporal."
_WRAPPERS = re.compile(r"^(?:module\.|base_model\.model\.|unet\.|motion_adapter\.)+")
_DOWN = re.compile(r"(?:_lora\.down|\.lora_down|\.lora_A(?:\.default)?|\.lora\.down)\.weight$")
_UP = re.compile(r"(?:_lora\.up|\.lora_up|\.lora_B(?:\.default)?|\.lora\.up)\.weight$")
_ALPHA = re.compile(r"(?:_lora)?\.alpha$")


def read_motion_lora(
    state: StateDict, weights: Mapping[str, Tensor], unet_config: UNetConfig, config: TemporalConfig, name: str
) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Return ({name of a layer: its "up", "down" and perhaps "alpha"}, what was left out) of a motion LoRA file.

    Args:
        state: of the file.
        weights: of the temporal layers that it is for; only shapes are looked at.
        unet_config, config: of those layers.
        name: of the file, for messages.

    Raises:
        ValueError: it is no motion LoRA, or does not fit the layers; the first that do not are named.
    """
    found: dict[str, dict[str, Tensor]] = {}
    unknown, foreign, missing = [], 0, set()
    at = {place: block for block, place in places(unet_config)}
    for key, value in state.items():
        part = next((p for p, end in (("down", _DOWN), ("up", _UP), ("alpha", _ALPHA)) if end.search(key)), None)
        if part is None or not isinstance(value, Tensor):
            unknown.append(key)
            continue
        base = {"down": _DOWN, "up": _UP, "alpha": _ALPHA}[part].sub("", _WRAPPERS.sub("", key))
        if base.startswith(OWN):
            layer = base.removeprefix(OWN)
        else:
            place, inner = module_key(_weight_name(base))
            if place is None:
                foreign += "motion_modules" not in base and "temporal" not in base
                unknown.append(key)
                continue
            layer = f"{at.get(place, '.'.join(map(str, place)))}.inflation.{inner}"
        if f"{layer}.weight" not in weights:
            missing.add(layer)
            continue
        found.setdefault(layer, {})[part] = value
    _check(found, weights, unknown=unknown, foreign=foreign, missing=missing, config=config, name=name)
    return found, sorted(missing)


def _weight_name(base: str) -> str:
    """Return the name of the changed weight in a motion module's file."""
    base = base.replace(".processor.", ".")
    return (f"{base}.0" if base.endswith(".to_out") else base) + ".weight"


def _check(
    found: dict[str, dict[str, Tensor]],
    weights: Mapping[str, Tensor],
    unknown: list[str],
    foreign: int,
    missing: set[str],
    config: TemporalConfig,
    name: str,
) -> None:
    if unknown:
        what = "a LoRA of the image model: load it with a LoRA loader" if foreign == len(unknown) else "no motion LoRA"
        raise ValueError(
            f"{name} is {what} ({len(unknown)} tensors are of no temporal layer: {', '.join(sorted(unknown)[:2])}). A motion "
            "LoRA of AnimateDiff, or one that `train motion-lora` wrote, is wanted."
        )
    check_values(
        {f"{k}.{part}": v for k, parts in found.items() for part, v in parts.items()}, f"the weights of {name}"
    )
    middle = {layer for layer in missing if layer.startswith(("middle_block", "mid_block"))}
    if not found or missing - middle:
        raise ValueError(
            f"{name} does not fit this MODEL, which has {KINDS[config.kind]}: there is no layer "
            f"{', '.join(sorted(missing)[:2]) or 'for it'}. Load it onto the temporal layers that it was made for."
        )
    for layer, parts in found.items():
        weight = weights[f"{layer}.weight"]
        shapes = {part: tuple(value.shape) for part, value in parts.items()}
        up, down = shapes.get("up", ()), shapes.get("down", ())
        fits = (
            min(len(up), len(down)) > 1
            and (up[0], math.prod(down[1:])) == (weight.shape[0], weight[0].numel())
            and math.prod(up[1:]) == down[0] > 0
            and math.prod(shapes.get("alpha", ())) == 1
        )
        if not fits:
            raise ValueError(
                f"{name} does not fit this MODEL: its change of {layer} has the shapes {shapes}, for a weight of "
                f"{tuple(weight.shape)}. It was made for another image model."
            )


def lora_file(deltas: Mapping[str, dict[str, Tensor]], unet_config: UNetConfig, config: TemporalConfig) -> StateDict:
    """Return the tensors of a file, float16: in AnimateDiff's layout for a motion module, else in this pack's.

    Args:
        deltas: by layer, "up" (o, r, …) and "down" (r, i, …).
    """
    at = dict(places(unet_config))
    state = {}
    for layer, parts in deltas.items():
        if config.kind == KIND:
            block, inner = layer.split(".inflation.")
            place, number = at[block]
            _, k, which = inner.split(".")  # layers.K.to_q
            base = (
                f"{place}motion_modules.{number}.temporal_transformer.transformer_blocks.0.attention_blocks.{k}."
                f"processor.{which}_lora."
            )
            names = {"up": f"{base}up.weight", "down": f"{base}down.weight"}
        else:
            names = {"up": f"{OWN}{layer}.lora_up.weight", "down": f"{OWN}{layer}.lora_down.weight"}
        for part, key in names.items():
            state[key] = parts[part].to(torch.float16)
    return state
