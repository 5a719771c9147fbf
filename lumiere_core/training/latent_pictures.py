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

from ..dataset.index import check_backbone, low_channels
from ..nets.checkpoint import StateDict, check_values, load_file, metadata_for, save_file
from ..nets.config import UNetConfig
from .pictures import Picture, crop, with_words

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
        ValueError: the model enlarges, the size is none that the model takes, or the VAE made NaN.
    """
    if low_channels(encoders.backbone):
        raise ValueError("this model enlarges pictures and draws none, so it learns no style. Give an image model.")
    multiple = encoders.backbone["multiple"]
    if height % multiple or width % multiple:
        raise ValueError(
            f"the pictures are to be {width}x{height} pixels, but this model wants multiples of {multiple}. "
            "Change --width and --height."
        )
    random = torch.Generator().manual_seed(0)
    tensors: dict[str, Tensor] = {}
    for number, picture in enumerate(pictures):
        cut = torch.stack([crop(picture, height, width, random) for _ in range(CROPS)])
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


def read_pictures(file: Path) -> tuple[StateDict, dict[str, Any], int]:
    """Return the tensors of a file of `encode_pictures`, its backbone, and the number of pictures.

    Raises:
        ValueError: it is none, or damaged; what is wrong is named.
    """
    again = "Delete it to encode the pictures again."
    tensors, metadata = load_file(file)
    if BACKBONE not in metadata:
        raise ValueError(f"{file.name} holds no encoded pictures. {again}")
    try:
        backbone = json.loads(metadata[BACKBONE])
        check_backbone(backbone)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} is damaged ({str(error)[:200]}). {again}") from error
    check_values(tensors, f"the encoded pictures of {file.name}")
    count = sum(key.startswith("latents.") for key in tensors)
    config = UNetConfig.from_dict(backbone["unet"])
    texts = ["empty", *(f"{kind}.{number}" for kind in TEXTS for number in range(count))]
    wanted = {f"latents.{number}": (4, 1, config.in_channels) for number in range(count)}
    wanted |= {f"{text}.context": (2, 1, config.context_dim) for text in texts}
    if config.adm_in_channels:
        wanted |= {f"{text}.y": (1, 0, config.adm_in_channels) for text in texts}
    wrong = [
        key
        for key, (axes, axis, width) in wanted.items()
        if key not in tensors
        or tensors[key].ndim != axes
        or tensors[key].shape[axis] != width
        or not tensors[key].numel()
    ]
    if wrong or not count or len({tensors[f"latents.{n}"].shape[1:] for n in range(count)}) > 1:
        raise ValueError(f"{file.name} is damaged ({', '.join(wrong[:3]) or 'its latents'}). {again}")
    return tensors, backbone, count
