"""A person's own pictures as training data: 1 to 20 of them make a style (StyleDrop, Sohn et al. 2023).

The caption of `bird.png` is the text in `bird.txt` beside it, else its file name ("bird").
Shapes: n - pictures, b - batch, h, w - height, width.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..text_files import read_text
from .draws import Draws

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
MOST = 20  # pictures
logger = logging.getLogger("lumiere")
ROOM = 1.2  # of the shorter side over a crop's: how far crops of one picture may lie apart


@dataclass(frozen=True)
class Picture:
    """One picture with its caption."""

    pixels: Tensor  # (3, h, w) in [-1, 1]
    caption: str


def load_pictures(folder: Path, height: int, width: int) -> list[Picture]:
    """Read all pictures of a folder, by name, resized so that a crop of height x width pixels fits in.

    Raises:
        FileNotFoundError: there is no such folder, or no picture in it.
        ValueError: there are more than 20, or a file is no picture; it is named.
    """
    folder = Path(folder)
    files = picture_files(folder)
    if not files:
        raise FileNotFoundError(
            f"no pictures in {folder}. Put 1 to {MOST} files ({', '.join(SUFFIXES)}) of one style there."
        )
    if len(files) > MOST:
        raise ValueError(
            f"{len(files)} pictures in {folder}; a style is learnt from 1 to {MOST}. Leave the most typical ones there."
        )
    return [Picture(_read(file, height, width), caption_of(file)) for file in files]


def picture_files(folder: Path) -> list[Path]:
    """Return the pictures of a folder by name; what is none is named in the log."""
    files = sorted(f for f in folder.glob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    others = [f.name for f in folder.glob("*") if f not in files and f.suffix.lower() != ".txt"]
    if others:
        logger.warning(f"not read as pictures in {folder}: {', '.join(sorted(others)[:10])}")
    return files


def _read(file: Path, height: int, width: int) -> Tensor:
    import numpy as np

    pixels = np.asarray(open_picture(file)).copy()
    return with_room(torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1, height, width)


def open_picture(file: Path, most: int | None = None) -> Image.Image:
    """Return a picture upright, in 8 bits of red, green and blue, over white where it is transparent.

    Args:
        most: pixels of a side; larger ones are made smaller.

    Raises:
        ValueError: it cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            image = _eight_bits(ImageOps.exif_transpose(opened)).convert("RGBA")
    except MemoryError:
        raise
    except Exception as error:  # a damaged file fails as anything: SyntaxError, struct.error, a decompression bomb
        raise ValueError(f"{file} is not a picture that can be read ({str(error)[:200]}).") from error
    if most is not None:
        image.thumbnail((most, most))
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def with_room(pixels: Tensor, height: int, width: int) -> Tensor:
    """Return a picture (3, h, w) in [-1, 1], resized so that a crop of height x width pixels fits in."""
    scale = ROOM * max(height / pixels.shape[1], width / pixels.shape[2])
    size = [max(n, round(scale * m)) for n, m in zip((height, width), pixels.shape[1:], strict=True)]
    return F.interpolate(pixels[None].float(), size, mode="bilinear", antialias=True, align_corners=False)[0].clamp(
        -1, 1
    )


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a grey picture of 16 bits in 8: Pillow's own conversion cuts everything above 255 off."""
    import numpy as np
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.float32)
    return Image.fromarray((values / 257).round().clip(0, 255).astype(np.uint8))


def caption_of(file: Path) -> str:
    """Return the text beside a picture, or its name in words."""
    text = file.with_suffix(".txt")
    if text.is_file():
        return " ".join(read_text(text).split())
    return " ".join(re.sub(r"[_\-.]+|\d+", " ", file.stem).split())


WORDS_SHARE = 0.5  # of the captions name the style


def with_words(caption: str, words: str) -> str:
    """Return "a red ball, in line drawing style"."""
    return ", ".join(part for part in (caption, words) if part)


def named(captions: list[str], words: str, random: Draws) -> list[str]:
    """Return captions, some of them with the style's words, so that it works with them in the prompt and without."""
    says = (random.uniform()[:, 0] < WORDS_SHARE).tolist()
    return [with_words(caption, words) if say else caption for caption, say in zip(captions, says, strict=True)]


def crop(picture: Picture, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Return a random (3, h, w) crop; half of them are mirrored."""
    across, down, mirrored = torch.rand(3, generator=generator).tolist()
    pixels = picture.pixels
    top = int(down * (pixels.shape[1] - height + 1))
    left = int(across * (pixels.shape[2] - width + 1))
    cut = pixels[:, top : top + height, left : left + width]
    return cut.flip(-1) if mirrored < 0.5 else cut
