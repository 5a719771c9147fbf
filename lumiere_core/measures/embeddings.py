"""Consistency and text alignment by the embeddings of an image encoder such as CLIP; the encoder is passed in."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor

from .figure import Figure, Measure
from .walk import Step

Encoder = Callable[[Tensor], Tensor]  # (3, h, w) levels -> (features,)


class Consistency(Measure):
    """Whether the frames show the same thing, and the thing that the text asks for.

    Args:
        encode: the image encoder.
        text: (features,) embedding of the prompt by the same model.
    """

    frames = 2
    figures = (
        Figure("clip_neighbours", "cosine", (-1, 1), "mean similarity of neighbouring frames", source="VBench, CLIP"),
        Figure("clip_first", "cosine", (-1, 1), "mean similarity of a frame to the first one", source="VBench, CLIP"),
        Figure(
            "clip_loss",
            "cosine",
            (-2, 2),
            "similarity at distance 1 less that at half the clip: slow drift, which neighbours do not show",
        ),
        Figure(
            "clip_text",
            "cosine",
            (-1, 1),
            "mean similarity of the frames to the text",
            source="CLIPScore, Hessel et al. 2021",
        ),
    )

    def __init__(self, encode: Encoder, text: Tensor | None = None) -> None:
        self.encode = encode
        self.text = None if text is None else F.normalize(text.float().flatten(), dim=0)
        self._seen: list[Tensor] = []  # a few hundred numbers a frame

    def see(self, step: Step) -> None:
        self._seen.append(F.normalize(self.encode(step.frame).float().flatten().cpu(), dim=0))

    def values(self) -> dict[str, float]:
        every = torch.stack(self._seen)
        by_distance = similarity_by_distance(every)
        found = {
            "clip_neighbours": by_distance[1],
            "clip_first": float((every[1:] @ every[0]).mean()),
            "clip_loss": by_distance[1] - by_distance[max(by_distance)],
        }
        if self.text is not None:
            if self.text.shape != every.shape[1:]:
                raise ValueError(
                    f"the text has {self.text.numel()} features and the frames {every.shape[1]}: they come from two "
                    "different models. Use the CLIP text encoder and the CLIP vision encoder of one model."
                )
            found["clip_text"] = mean((every @ self.text.cpu()).tolist())
        return found

    def curves(self) -> dict[str, list[float]]:
        every = torch.stack(self._seen)
        return {"clip_first": (every @ every[0]).tolist()}


def similarity_by_distance(every: Tensor) -> dict[int, float]:
    """Return the mean cosine of (t, features) unit vectors at distances 1, 2, 4, … up to half the clip."""
    found, distance = {}, 1
    while distance == 1 or distance <= len(every) // 2:
        found[distance] = float((every[distance:] * every[:-distance]).sum(1).mean())
        distance *= 2
    return found
