"""What a sampling run shows while it runs: several frames of the clip, side by side."""

from __future__ import annotations

import torch
from torch import Tensor

FRAMES, COLUMNS = 8, 4


def tile_frames(x0: Tensor, frames: int = FRAMES, columns: int = COLUMNS) -> Tensor:
    """Return one picture (1, c, rows h, columns w) of evenly spaced frames of a clip (t, c, h, w).

    First and last frame included, in reading order; unused places are repeats of the last frame.
    """
    count = x0.shape[0]
    shown = min(frames, count)
    columns = min(columns, shown)
    numbers = [round(i * (count - 1) / max(1, shown - 1)) for i in range(shown)]
    numbers += numbers[-1:] * (-shown % columns)
    picked = x0[torch.tensor(numbers, device=x0.device)]
    rows = picked.unflatten(0, (-1, columns))  # rows columns c h w
    return rows.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)[None]


def preview_image(x0: Tensor, latent_format: object):
    """Return a PIL image of a clip's clean estimate, or None for latents whose colours are not known.

    Args:
        x0: (t, c, h, w) in the model's latent space.
        latent_format: the host's, with `latent_rgb_factors`.
    """
    from PIL import Image

    factors = latent_format.latent_rgb_factors
    if factors is None or x0.ndim != 4 or len(factors) != x0.shape[1]:
        return None
    picture = tile_frames(x0)[0].float()
    colours = torch.tensor(factors, device=picture.device, dtype=picture.dtype)
    rgb = torch.einsum("chw,ck->hwk", picture, colours)
    if latent_format.latent_rgb_factors_bias is not None:
        rgb = rgb + torch.tensor(latent_format.latent_rgb_factors_bias, device=rgb.device)
    levels = ((rgb + 1) * 127.5).nan_to_num().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(levels.cpu().numpy())
