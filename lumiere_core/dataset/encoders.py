"""What turns pixels and captions into what a backbone is trained on; a Lumiere checkpoint's own, without a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..clips.video import to_uint8
from ..diffusion.models import BUNDLED, weight_files
from ..nets.checkpoint import Parts, load_into, load_metadata, load_parts
from ..nets.text_encoder import TextEncoder, pad_tokens, tokenize


class Encoders(Protocol):
    """The VAE and the text encoder of one checkpoint.

    Attributes:
        backbone: plain JSON: `unet` (UNetConfig), `schedule` (of Schedule), `prefix` of the U-Net's keys in the
            checkpoint, `checkpoint` and `sha256`, `ratio` (pixels of a latent), `multiple` (pixels that sizes are
            multiples of).
    """

    backbone: dict[str, Any]

    def encode(self, frames: Tensor) -> Tensor:
        """(t, h, w, 3) uint8 -> (c, t, h / ratio, w / ratio), scaled as the U-Net sees it."""

    def decode(self, latents: Tensor) -> Tensor:
        """Return (t, h, w, 3) uint8 on the CPU for (c, t, h / ratio, w / ratio)."""

    def embed(self, caption: str, height: int, width: int) -> dict[str, Tensor]:
        """Return `context` (l, d) text states and, if the U-Net wants it, `y` (adm,), for clips of a size in pixels."""


class PixelEncoders:
    """Of a Lumiere checkpoint: pixels as they are, and the byte-level text encoder."""

    def __init__(self, parts: Parts) -> None:
        parts.require("text", "image")
        config = parts.unet_config
        self.text = TextEncoder(parts.text_config).eval().requires_grad_(False)
        load_into(self.text, parts.text, "the text encoder of the checkpoint")
        self.backbone = {
            "unet": config.to_dict(),
            "schedule": parts.schedule,
            "prefix": "image.",
            "sha256": dict(parts.sha256),
            "ratio": 1,
            # Every spatial resize halves; other sizes work, but frames of a batch should not need padding.
            "multiple": config.patch_size * 2 ** (config.num_levels - 1),
        }

    def encode(self, frames: Tensor) -> Tensor:
        """Return (3, t, h, w) in [-1, 1] for frames (t, h, w, 3) uint8: pixels are their own latents."""
        return (frames.float() / 127.5 - 1).permute(3, 0, 1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Return frames (t, h, w, 3) for (3, t, h, w)."""
        return to_uint8(latents)

    @torch.no_grad()
    def embed(self, caption: str, height: int, width: int) -> dict[str, Tensor]:
        """Return `context` (l, d) and `y` (adm,) of a caption; the size does not matter."""
        context, pooled = self.text(pad_tokens([tokenize(caption, self.text.config.max_bytes)]))
        embedding = {"context": context[0]}
        if self.backbone["unet"]["adm_in_channels"]:
            embedding["y"] = pooled[0]
        return embedding


def lumiere_encoders(checkpoint: str | Path) -> PixelEncoders | None:
    """Return the encoders of a Lumiere checkpoint, or None if it is another kind of file.

    Args:
        checkpoint: a file, a folder of part files, or lumiere-mini.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if str(checkpoint) != BUNDLED and not Path(checkpoint).exists():
        raise FileNotFoundError(f"no checkpoint at {checkpoint}. Check the path and the file name.")
    files = weight_files(checkpoint)
    if not all(is_lumiere(file) for file in files):
        return None
    return PixelEncoders(load_parts(files))


def is_lumiere(path: Path) -> bool:
    """Tell from a file's header whether this pack wrote it."""
    try:
        return "lumiere.config" in load_metadata(path)
    except (OSError, ValueError):
        return False
