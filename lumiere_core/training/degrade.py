"""Small clips as they may come in practice, made from large ones (Lumiere §3.2; recipe ours).

Blur, resize, noise and compression, on frames (n, c, h, w) in [-1, 1]. All frames of a clip are blurred, resized and
compressed alike; the noise is new in each frame. Blur and JPEG are kornia's, H.264 is PyAV's.
"""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

CLEAN = 0.6  # share of clips that are only averaged, as the world draws small clips
MAX_BLUR = 3.0  # std of the Gaussian in pixels of the large clip
MOVED = 0.25  # share of the degraded clips that are blurred along a line, as by motion while a shutter is open
LONGEST = 15  # pixels of the large clip that such a line is long at most
MAX_NOISE = 0.06  # std on values in [-1, 1]
COMPRESSED = 0.7  # share of the degraded clips that are compressed
VIDEO = 0.6  # share of those that are compressed as H.264; the others as JPEG
QUALITY = (40.0, 95.0)  # of JPEG
CRF = (18.0, 35.0)  # of H.264, the lower the better
SMALLEST = 16  # pixels that a side must have for H.264


def degrade(frames: Tensor, scale: int, generator: torch.Generator) -> Tensor:
    """Return one clip's frames at 1 / scale of their size.

    Args:
        frames: (t, c, scale h, scale w) in [-1, 1].
        generator: on the CPU; the same one gives the same result.

    Returns:
        (t, c, h, w) in [-1, 1].
    """
    chance = torch.rand(9, generator=generator).tolist()
    noise = torch.randn(
        frames.shape[0], frames.shape[1], frames.shape[2] // scale, frames.shape[3] // scale, generator=generator
    )
    if chance[0] < CLEAN:
        return F.avg_pool2d(frames, scale)
    import kornia

    if chance[6] < MOVED:
        length = 3 + 2 * int(chance[7] * (LONGEST - 1) / 2)
        frames = kornia.filters.motion_blur(frames, length, 360 * chance[8], 0.0, "replicate", "bilinear")
    sigma = 0.3 + chance[1] * (MAX_BLUR - 0.3)
    size = 2 * round(2.5 * sigma) + 1
    low = kornia.filters.gaussian_blur2d(frames, (size, size), (sigma, sigma))
    if chance[2] < 1 / 3:
        low = F.avg_pool2d(low, scale)
    else:
        mode = "bilinear" if chance[2] < 2 / 3 else "bicubic"
        low = F.interpolate(low, scale_factor=1 / scale, mode=mode, antialias=True)
    low = (low + noise.to(low) * (chance[3] * MAX_NOISE)).clamp(-1, 1)
    if chance[4] < COMPRESSED * VIDEO and min(low.shape[-2:]) >= SMALLEST:
        return encode_video(low, CRF[0] + chance[5] * (CRF[1] - CRF[0]))
    if chance[4] < COMPRESSED:
        quality = torch.tensor([QUALITY[0] + chance[5] * (QUALITY[1] - QUALITY[0])])
        low = compress((low + 1) / 2, quality.to(low)) * 2 - 1
    return low.clamp(-1, 1)


def encode_video(frames: Tensor, crf: float) -> Tensor:
    """Return (t, 3, h, w) frames in [-1, 1] after H.264 compression, colour at half the size as in most videos.

    Args:
        crf: of x264, 0 to 51; 23 is its default.

    Raises:
        ValueError: a side is shorter than `SMALLEST` pixels, or there are not three channels.
    """
    import av

    count, channels, height, width = frames.shape
    if min(height, width) < SMALLEST or channels != 3:
        raise ValueError(
            f"frames are {channels} x {height} x {width}; three channels of {SMALLEST} pixels or more a side are wanted."
        )
    even = F.pad(frames, (0, width % 2, 0, height % 2), mode="replicate")
    levels = ((even + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).movedim(1, -1).cpu().numpy()
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = even.shape[-1], even.shape[-2], "yuv420p"
    encoder.time_base = Fraction(1, 16)
    # One thread: with more, a frame's bits depend on their number.
    encoder.options = {"crf": f"{crf:g}", "preset": "veryfast", "threads": "1"}
    packets = [packet for image in levels for packet in encoder.encode(av.VideoFrame.from_ndarray(image, "rgb24"))]
    decoder = av.CodecContext.create("h264", "r")
    seen = [image for packet in [*packets, *encoder.encode(None)] for image in decoder.decode(packet)]
    seen += decoder.decode(None)
    # Reordered frames come in the order in which they are shown.
    back = torch.stack([torch.from_numpy(image.to_ndarray(format="rgb24")) for image in seen])
    if len(back) != count:
        raise RuntimeError(f"{count} frames were encoded and {len(back)} came back.")
    return (back.movedim(-1, 1)[..., :height, :width].to(frames) / 127.5 - 1).contiguous()


def compress(images: Tensor, quality: Tensor) -> Tensor:
    """Return (n, 3, h, w) images in [0, 1] after JPEG compression of any size."""
    import kornia

    height, width = images.shape[-2:]
    padded = F.pad(images, (0, -width % 16, 0, -height % 16), mode="replicate").clamp(0, 1)
    out = kornia.enhance.jpeg_codec_differentiable(padded, quality.expand(len(images)))
    return out[..., :height, :width]
