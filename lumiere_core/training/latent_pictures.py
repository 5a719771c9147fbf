"""A person's pictures as latents and text states, for image models whose VAE and text encoder are the host's.

One safetensors file: `latents.N` (k, c, h, w) are k crops of picture N, `plain.N.*` and `named.N.*` the text states of
its caption without and with the style's words, `empty.*` those of no text; `*` is `context` (l, d) and perhaps `y`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..nets.checkpoint import load_file, metadata_for, save_file
from .pictures import Picture, crops

CROPS = 8  # of each picture; a VAE is too slow to run at every step
TEXTS = ("plain", "named")
BACKBONE = "lumiere.backbone"


def encode_pictures(pictures: list[Picture], encoders: Any, file: Path, height: int, width: int, words: str) -> None:
    """Write the file.

    Args:
        encoders: with `encode` ((t, h, w, 3) uint8 -> (c, t, h, w) latents), `embed` (caption, height, width ->
            context and perhaps y) and `backbone` (what the trainer must know of the model).
        words: how captions name the style; "" = not at all.

    Raises:
        ValueError: the size is none that the model takes, or the VAE made NaN.
    """
    from .phases.style import with_words

    multiple = encoders.backbone["multiple"]
    if height % multiple or width % multiple:
        raise ValueError(
            f"the pictures are to be {width}x{height} pixels, but this model wants multiples of {multiple}. "
            "Change --width and --height."
        )
    random = torch.Generator().manual_seed(0)
    tensors: dict[str, Tensor] = {}
    for number, picture in enumerate(pictures):
        cut, _ = crops([picture], CROPS, height, width, random)
        frames = ((cut + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
        # One at a time: a VAE that knows video must not take crops for a clip.
        each = [encoders.encode(frame[None])[:, 0] for frame in frames]
        tensors[f"latents.{number}"] = torch.stack(each)
        if not torch.isfinite(tensors[f"latents.{number}"]).all():
            raise ValueError("the VAE made NaN or infinite latents; try another VAE.")
        for kind, text in zip(TEXTS, (picture.caption, with_words(picture.caption, words)), strict=True):
            found = encoders.embed(text, height, width)
            tensors |= {f"{kind}.{number}.{k}": v for k, v in found.items()}
    tensors |= {f"empty.{k}": v for k, v in encoders.embed("", height, width).items()}
    metadata = metadata_for("pictures of a style", {})
    save_file(tensors, file, metadata | {BACKBONE: json.dumps(encoders.backbone)})


class LatentPictures:
    """Batches of such a file."""

    def __init__(self, file: Path) -> None:
        self.tensors, metadata = load_file(file)
        if BACKBONE not in metadata:
            raise ValueError(f"{file.name} holds no encoded pictures; delete it to encode them again.")
        self.backbone: dict[str, Any] = json.loads(metadata[BACKBONE])
        self.count = sum(key.startswith("latents.") for key in self.tensors)

    def batch(
        self, count: int, text_dropout: float, words_share: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return latents (b, c, h, w), context (b, l, d) and y (b, adm) or None, chosen at random.

        Text states of one batch are as long as the longest; shorter ones repeat their last state.
        """
        latents, contexts, pooled = [], [], []
        for _ in range(count):
            number = int(torch.randint(self.count, (1,), generator=generator))
            dropped, named = torch.rand(2, generator=generator).tolist()
            cuts = self.tensors[f"latents.{number}"]
            latents.append(cuts[int(torch.randint(len(cuts), (1,), generator=generator))])
            kind = TEXTS[named < words_share]
            text = "empty" if dropped < text_dropout else f"{kind}.{number}"
            contexts.append(self.tensors[f"{text}.context"])
            pooled.append(self.tensors.get(f"{text}.y"))
        longest = max(len(context) for context in contexts)
        contexts = [torch.cat([c, c[-1:].expand(longest - len(c), -1)]) for c in contexts]
        y = None if pooled[0] is None else torch.stack(pooled)
        return torch.stack(latents), torch.stack(contexts), y
