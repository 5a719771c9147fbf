"""Names of the image U-Nets that people know, so that a message can say which one a file was trained for."""

from __future__ import annotations

import dataclasses

from .config import UNetConfig

# (width of the text states, model channels) -> name. SDXL has smaller relatives of the same widths.
_NAMES = {
    (768, 320): "SD1.x",
    (1024, 320): "SD2.x",
    (2048, 320): "SDXL",
    (1280, 384): "SDXL refiner",
    (1024, 256): "SD x4 upscaler",
    (128, 64): "lumiere-mini",
}
_SDXL_DEPTH = (0, 0, 2, 2, 10, 10)

# The temporal layers do not touch these: an inpainting variant has more input channels, a pixel model other outputs.
_FREE = ("in_channels", "out_channels")


def family_name(config: UNetConfig) -> str:
    """Return what people call an image U-Net, for example "SD1.x"; its widths where it has no name."""
    name = _NAMES.get((config.context_dim, config.model_channels))
    if name is None:
        return (
            f"a U-Net of {config.model_channels} channels x {config.channel_mult} with text states of width "
            f"{config.context_dim}"
        )
    if name == "SDXL" and config.transformer_depth != _SDXL_DEPTH:
        return f"a small SDXL of transformer depths {config.transformer_depth}"
    return name


def check_backbone(trained: UNetConfig, got: UNetConfig, file: str) -> None:
    """Raise ValueError unless temporal layers of one image U-Net belong around another.

    More input channels (inpainting variants) make no difference; shapes alone are no proof, since SD1.x and SD2.x
    have the same ones.
    """
    mine, theirs = dataclasses.asdict(trained), dataclasses.asdict(got)
    different = [k for k in mine if k not in _FREE and mine[k] != theirs[k]]
    if different:
        details = ", ".join(f"{k} {mine[k]} and {theirs[k]}" for k in different[:3])
        raise ValueError(
            f"{file} was trained for {family_name(trained)}, but this MODEL is {family_name(got)} ({details}). "
            "Choose a checkpoint of the same family, or temporal layers that were trained for this one."
        )
