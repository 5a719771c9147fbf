"""What nodes show of clips: several frames side by side while a run goes on, a small video of what was given."""

from __future__ import annotations

import uuid
from pathlib import Path

import torch
from torch import Tensor

FRAMES, COLUMNS = 8, 4
SHOWN_SIDE = 256  # pixels that the shorter side of a shown clip has at least, or players blur it
TINT = (1.0, 0.25, 0.6)  # of what is to be generated


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


def colours(x0: Tensor, latent_format: object) -> Tensor:
    """Return the approximate colours (t, 3, h, w), about [0, 1], of latents (t, c, h, w)."""
    factors = torch.tensor(latent_format.latent_rgb_factors, device=x0.device)
    rgb = torch.einsum("tchw,ck->tkhw", x0.float(), factors)
    if latent_format.latent_rgb_factors_bias is not None:
        rgb = rgb + torch.tensor(latent_format.latent_rgb_factors_bias, device=rgb.device)[:, None, None]
    return (rgb + 1) / 2


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
    rgb = colours(tile_frames(x0), latent_format)[0].movedim(0, -1)
    return Image.fromarray((rgb * 255).nan_to_num().clamp(0, 255).to(torch.uint8).cpu().numpy())


def tinted(images: Tensor, mask: Tensor) -> Tensor:
    """Return host images (t, h, w, 3) with a colour over what a mask (1 or t, h, w) says is to be generated."""
    cover = mask[..., None].to(images) * 0.5
    return images[..., :3] * (1 - cover) + images.new_tensor(TINT) * cover


def shown_clip(images: Tensor, fps: float = 16.0):
    """Return the host's UI value that plays a clip (t, h, w, 3) in [0, 1] in a node, from a temporary file.

    One frame is shown as a picture.
    """
    import folder_paths
    from comfy_api.v0_0_2 import io, ui

    from ...lumiere_core.clips.media import write_mp4

    name = f"lumiere_{uuid.uuid4().hex[:12]}.mp4"
    images = images[:, : images.shape[1] // 2 * 2 or None, : images.shape[2] // 2 * 2 or None, :3]
    scale = max(1, -(-SHOWN_SIDE // min(images.shape[1:3])))
    if len(images) == 1:
        return ui.PreviewImage(images.repeat_interleave(scale, 1).repeat_interleave(scale, 2))
    levels = (images * 255).round().clamp(0, 255).to(torch.uint8)
    write_mp4(Path(folder_paths.get_temp_directory()) / name, levels, fps, scale=scale, crf=18)
    return ui.PreviewVideo([ui.SavedResult(name, "", io.FolderType.temp)])
