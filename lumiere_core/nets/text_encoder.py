"""The byte-level text encoder of lumiere-mini.

Shapes: n - prompts, l - bytes with the start token, k - output tokens, d - width. The answer has a fixed
number of tokens whatever the prompt's length, so prompts of different lengths always share a batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import TextConfig

START, PAD = 256, 257


class Text(NamedTuple):
    """What a network is told of prompts."""

    context: Tensor  # (b, l, d) text states
    pooled: Tensor | None = None  # (b, adm); None where the network takes none

    def at(self, rows: slice) -> Text:
        """Return the text of some of the prompts."""
        return Text(self.context[rows], None if self.pooled is None else self.pooled[rows])

    def to(self, *where: Any) -> Text:
        """Return it on another device or in another dtype."""
        return Text(self.context.to(*where), None if self.pooled is None else self.pooled.to(*where))


def prompt_bytes(text: str) -> bytes:
    """Return a prompt as the encoder reads it: UTF-8, lower case, words joined by one space."""
    # JSON may hold half a surrogate pair.
    return " ".join(text.lower().split()).encode(errors="replace")


def tokenize(text: str, max_bytes: int = 256) -> list[int]:
    """Return the start token and the bytes of a prompt, cut between characters."""
    raw = prompt_bytes(text)
    if len(raw) > max_bytes:
        raw = raw[:max_bytes].decode(errors="ignore").encode()
    return [START, *raw]


def pad_tokens(rows: list[list[int]]) -> Tensor:
    """Return (n, l) token ids, padded to the longest row."""
    length = max(len(row) for row in rows)
    return torch.tensor([row + [PAD] * (length - len(row)) for row in rows])


class TextBlock(nn.Module):
    """Convolution over neighbouring bytes, self-attention, feed-forward; pre-norm residuals."""

    def __init__(self, config: TextConfig, operations: Any) -> None:
        super().__init__()
        ops, width = operations, config.width
        self.heads = config.num_heads
        self.norm1, self.norm2, self.norm3 = (ops.LayerNorm(width) for _ in range(3))
        self.conv = ops.Conv1d(width, width, 5, padding=2)
        self.qkv = ops.Linear(width, width * 3)
        self.out = ops.Linear(width, width)
        self.ff = nn.Sequential(ops.Linear(width, width * 4), nn.GELU(), ops.Linear(width * 4, width))

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """x (n, l, d); keep (n, l, 1), 0 at padding."""
        x = x + F.gelu(self.conv((self.norm1(x) * keep).transpose(1, 2)).transpose(1, 2))
        q, k, v = self.qkv(self.norm2(x)).chunk(3, dim=-1)
        x = x + self.out(_attend(q, k, v, heads=self.heads, bias=keep.squeeze(-1).log()))
        return x + self.ff(self.norm3(x))


class TextEncoder(nn.Module):
    """Turn prompts into a fixed number of text states and one pooled vector.

    Args:
        config: the architecture.
        operations: namespace with Linear, Conv1d, LayerNorm, Embedding.
    """

    def __init__(self, config: TextConfig, operations: Any = nn) -> None:
        super().__init__()
        ops, width = operations, config.width
        self.config = config
        self.embedding = ops.Embedding(258, width)
        self.blocks = nn.ModuleList(TextBlock(config, ops) for _ in range(config.depth))
        self.norm = ops.LayerNorm(width)
        self.queries = ops.Embedding(config.tokens, width)
        self.to_q, self.to_k, self.to_v = (ops.Linear(width, width) for _ in range(3))
        self.to_out = ops.Linear(width, width)
        self.out_norm = ops.LayerNorm(width)
        self.pool = ops.Linear(width * config.tokens, width)
        self.pool_norm = ops.LayerNorm(width)

    def forward(self, ids: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (text states (n, k, d), pooled (n, d)).

        Args:
            ids: (n, l) tokens from `tokenize`, padded with `PAD`.
            weights: (n, l) emphasis of each byte, 1 = as written: a byte of weight 2 counts as two.
        """
        x = self.embedding(ids)
        keep = (ids != PAD).to(x.dtype)
        for block in self.blocks:
            x = block(x, keep[..., None])
        x = self.norm(x)
        emphasis = keep if weights is None else keep * weights.to(x.dtype).clamp(min=1e-4)
        tokens = torch.arange(self.config.tokens, device=ids.device).expand(ids.shape[0], -1)
        h = self.queries(tokens)
        h = h + self.to_out(
            _attend(self.to_q(h), self.to_k(x), self.to_v(x), heads=self.config.num_heads, bias=emphasis.log())
        )
        context = self.out_norm(h)
        return context, self.pool_norm(self.pool(context.flatten(1)))


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor) -> Tensor:
    """Attention with an additive (n, keys) bias; -inf hides a key."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    mask = bias[:, None, None].expand(-1, 1, q.shape[2], -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
