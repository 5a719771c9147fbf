"""What H.264 makes of a clip, there and back in memory."""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 16  # pixels that a side must have


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
    levels = ((even + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).movedim(1, -1).contiguous().cpu().numpy()
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = even.shape[-1], even.shape[-2], "yuv420p"
    encoder.time_base = Fraction(1, 16)
    # One thread, and no code for special processors: with them the same frames do not always give the same bits.
    encoder.options = {"crf": f"{crf:g}", "preset": "veryfast", "threads": "1", "x264-params": "asm=0"}
    # Converted here, in one way.
    pictures = [av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p") for image in levels]
    for number, picture in enumerate(pictures):
        picture.pts, picture.time_base = (
            number,
            encoder.time_base,
        )  # how long a frame is shown decides how many bits it gets
    packets = [packet for picture in pictures for packet in encoder.encode(picture)]
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    seen = [image for packet in [*packets, *encoder.encode(None)] for image in decoder.decode(packet)]
    seen += decoder.decode(None)
    # Reordered frames come in the order in which they are shown.
    back = torch.stack([torch.from_numpy(image.to_ndarray(format="rgb24")) for image in seen])
    if len(back) != count:
        raise RuntimeError(f"{count} frames were encoded and {len(back)} came back.")
    return (back.movedim(-1, 1)[..., :height, :width].to(frames) / 127.5 - 1).contiguous()
