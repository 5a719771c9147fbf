"""Loading what a phase starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ...diffusion.schedule import Schedule
from ...nets.checkpoint import Parts, load_into, load_parts
from ...nets.text_encoder import TextEncoder
from ...nets.unet import UNet


class Arguments(Protocol):
    """Files that the command line names."""

    text: Path | None
    image: Path | None
    init_from: Path | None


def start_parts(arguments: Arguments, part: str) -> Parts | None:
    """Return what `--init-from` holds, or None for fresh weights."""
    if arguments.init_from is None:
        return None
    parts = load_parts(arguments.init_from)
    parts.require(part)
    return parts


def text_encoder(arguments: Arguments) -> TextEncoder:
    """Return the text encoder of `--text`."""
    parts = load_parts(_required(arguments.text, "--text", "train text"))
    parts.require("text")
    text = TextEncoder(parts.text_config)
    load_into(text, parts.text, f"text encoder of {arguments.text.name}")
    return text


def image_model(arguments: Arguments) -> tuple[UNet, Schedule]:
    """Return the image U-Net of `--image` and its noise schedule."""
    parts = load_parts(_required(arguments.image, "--image", "train image"))
    parts.require("image")
    unet = UNet(parts.unet_config)
    load_into(unet, parts.image, f"image U-Net of {arguments.image.name}")
    return unet, Schedule(**parts.schedule)


def _required(path: Path | None, flag: str, verb: str) -> Path:
    if path is None:
        raise ValueError(f"{flag} is missing: give the weights that `{verb}` wrote.")
    return path
