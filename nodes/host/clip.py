"""lumiere-mini's byte-level text encoder as a CLIP of the host."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import comfy.model_management as model_management
import comfy.sd
import torch
from comfy.sd1_clip import escape_important, token_weights, unescape_important
from comfy.supported_models_base import ClipTarget
from torch import Tensor

from ...lumiere_core.nets.checkpoint import check_state
from ...lumiere_core.nets.config import TextConfig
from ...lumiere_core.nets.text_encoder import TextEncoder, tokenize
from . import models

NAME = "lumiere"  # of the encoder in the host's token dictionaries
MAX_WEIGHT = 10.0


class ByteTokenizer:
    """Prompts to (byte, weight) pairs, with the host's (word:1.3) emphasis."""

    def __init__(self, embedding_directory=None, tokenizer_data=None, max_bytes: int = 256) -> None:
        self.max_bytes = max_bytes

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs) -> dict[str, list[list[tuple]]]:
        plain, weights = weighted_bytes(text)
        ids = tokenize(plain, self.max_bytes)
        if len(weights) > self.max_bytes:
            logging.warning(
                f"Lumiere: the prompt has {len(weights)} bytes; the text encoder reads the first {len(ids) - 1}: "
                f"{plain[:40]!r} …"
            )
        pairs = list(zip(ids, [1.0, *weights], strict=False))
        if return_word_ids:
            pairs = [(*pair, 0) for pair in pairs]
        return {NAME: [pairs]}

    def untokenize(self, pairs: list[tuple]) -> list[tuple]:
        return [(pair, chr(pair[0]) if pair[0] < 128 else "") for pair in pairs]

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def state_dict(self) -> dict:
        return {}


def weighted_bytes(text: str) -> tuple[str, list[float]]:
    """Return (prompt without the marks of emphasis, weight of each byte that core's `tokenize` makes of it).

    `(word)` weighs 1.1, `(word:1.3)` weighs 1.3, `\\(` is a bracket.
    """
    text = text.encode(errors="replace").decode()  # half a surrogate pair is no character
    try:
        parts = token_weights(escape_important(text), 1.0)
    except RecursionError:  # thousands of open brackets
        parts = [(text, 1.0)]
    plain, weights = [], []
    for part, weight in parts:
        weight = min(max(weight, 0.0), MAX_WEIGHT) if math.isfinite(weight) else 1.0
        for char in unescape_important(part):
            if char.isspace():
                if not plain or plain[-1] == " ":  # core's tokenize joins words by one space
                    continue
                char = " "
            plain.append(char)
            weights += [weight] * len(char.lower().encode())
    if plain and plain[-1] == " ":
        plain.pop()
        weights.pop()
    return "".join(plain), weights


class TextModel(torch.nn.Module):
    """What `comfy.sd.CLIP` wants of a text encoder, around core's."""

    def __init__(self, config: TextConfig, device="cpu", dtype=None, model_options: dict | None = None) -> None:
        super().__init__()
        self.encoder = TextEncoder(config, models.operations(dtype, device)).eval()
        self.dtypes = {dtype}
        self.execution_device = None

    def set_clip_options(self, options: dict) -> None:
        if options.get("layer") not in (None, -1):
            logging.warning(
                f"Lumiere: CLIP Set Last Layer ({options['layer']}) changes nothing: lumiere-mini's text encoder has one kind "
                "of output, the one that its U-Net was trained on."
            )
        self.execution_device = options.get("execution_device", self.execution_device)

    def reset_clip_options(self) -> None:
        self.execution_device = None

    def encode_token_weights(self, tokens: dict) -> tuple[Tensor, Tensor]:
        """Return (text states (1, k, d), pooled (1, d))."""
        (pairs,) = tokens[NAME]
        ids = torch.tensor([[pair[0] for pair in pairs]], device=self.execution_device)
        weights = torch.tensor([[pair[1] for pair in pairs]], device=self.execution_device)
        context, pooled = self.encoder(ids, weights)
        device = model_management.intermediate_device()
        return context.to(device), pooled.to(device)

    def load_sd(self, state: dict[str, Tensor]) -> tuple[list[str], list[str]]:
        """Load a state dict; returns (missing keys, unexpected keys)."""
        assign = getattr(self, "can_assign_sd", False)
        return self.encoder.load_state_dict(state, strict=False, assign=assign)

    def memory_estimation_function(self, tokens: dict, device=None) -> int:
        return 64 << 20


def build_clip(state: dict[str, Tensor], config: TextConfig, name: str, disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """Return the text encoder as a CLIP; `name` is the checkpoint's, for messages. `state` is a state dict.

    Raises:
        ValueError: keys or shapes do not fit.
    """
    with torch.device("meta"):
        check_state(TextEncoder(config).state_dict(), state, f"text encoder weights of {name}")
    target = ClipTarget(partial(ByteTokenizer, max_bytes=config.max_bytes), partial(TextModel, config))
    return comfy.sd.CLIP(
        target,
        parameters=sum(v.numel() for v in state.values()),
        state_dict=[dict(state)],
        # A few million weights: float32 costs nothing and is what they were trained in.
        model_options={"dtype": torch.float32},
        disable_dynamic=disable_dynamic,
    )


def reload_text_patcher(source: Callable[[], Any], disable_dynamic: bool = False):
    """Make the text encoder again, unpatched; `source` returns (state dict, config, name)."""
    return build_clip(*source(), disable_dynamic=disable_dynamic).patcher
