"""Small clips as they may come in practice, made from large ones (Lumiere §3.2; recipe ours).

Blur, resize, noise and compression, on frames (n, c, h, w) in [-1, 1]. All frames of a clip are blurred, resized and
compressed alike; the noise is new in each frame. Blur and JPEG are kornia's, H.264 is PyAV's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clips.h264 import SMALLEST, encode_video

CLEAN = 0.4  # share of clips that are only averaged, as the world draws small clips
SENT = 0.3  # share of clips that are averaged and compressed as H.264, as most videos come
BLURRED = 0.5  # share of the degraded clips that are blurred before they are made small
MAX_BLUR = 3.0  # std of the Gaussian in pixels of the large clip
MOVED = 0.25  # share of the degraded clips that are blurred along a line, as by motion while a shutter is open
LONGEST = 15  # pixels of the large clip that such a line is long at most
MAX_NOISE = 0.06  # std on values in [-1, 1]
COMPRESSED = 0.7  # share of the degraded clips that are compressed
VIDEO = 0.6  # share of those that are compressed as H.264; the others as JPEG
QUALITY = (40.0, 95.0)  # of JPEG
CRF = (18.0, 35.0)  # of H.264, the lower the better


def degrade(frames: Tensor, scale: int, generator: torch.Generator) -> Tensor:
    """Return one clip's frames at 1 / scale of their size.

    Args:
        frames: (t, c, scale h, scale w) in [-1, 1].
        generator: on the CPU; the same one gives the same result.

    Returns:
        (t, c, h, w) in [-1, 1].
    """
    chance = torch.rand(10, generator=generator).tolist()
    noise = torch.randn(
        frames.shape[0], frames.shape[1], frames.shape[2] // scale, frames.shape[3] // scale, generator=generator
    )
    crf = CRF[0] + chance[5] * (CRF[1] - CRF[0])
    if chance[0] < CLEAN + SENT:
        low = F.avg_pool2d(frames, scale)
        sent = chance[0] >= CLEAN and min(low.shape[-2:]) >= SMALLEST
        return encode_video(low, crf) if sent else low
    import kornia

    if chance[6] < MOVED:
        length = 3 + 2 * int(chance[7] * (LONGEST - 1) / 2)
        frames = kornia.filters.motion_blur(
            frames, length, angle=360 * chance[8], direction=0.0, border_type="replicate", mode="bilinear"
        )
    if chance[9] < BLURRED:
        sigma = 0.3 + chance[1] * (MAX_BLUR - 0.3)
        size = 2 * round(2.5 * sigma) + 1
        frames = kornia.filters.gaussian_blur2d(frames, (size, size), (sigma, sigma))
    if chance[2] < 1 / 3:
        low = F.avg_pool2d(frames, scale)
    else:
        mode = "bilinear" if chance[2] < 2 / 3 else "bicubic"
        low = F.interpolate(frames, scale_factor=1 / scale, mode=mode, antialias=True)
    low = (low + noise.to(low) * (chance[3] * MAX_NOISE)).clamp(-1, 1)
    if chance[4] < COMPRESSED * VIDEO and min(low.shape[-2:]) >= SMALLEST:
        return encode_video(low, crf)
    if chance[4] < COMPRESSED:
        quality = torch.tensor([QUALITY[0] + chance[5] * (QUALITY[1] - QUALITY[0])])
        low = compress((low + 1) / 2, quality.to(low)) * 2 - 1
    return low.clamp(-1, 1)


def compress(images: Tensor, quality: Tensor) -> Tensor:
    """Return (n, 3, h, w) images in [0, 1] after JPEG compression of any size."""
    import kornia

    height, width = images.shape[-2:]
    padded = F.pad(images, (0, -width % 16, 0, -height % 16), mode="replicate").clamp(0, 1)
    out = kornia.enhance.jpeg_codec_differentiable(padded, quality.expand(len(images)))
    return out[..., :height, :width]
