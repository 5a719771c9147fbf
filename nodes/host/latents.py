"""What a VAE of the host makes of pixels and frames: which of them a cell of its latents stands for."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...lumiere_core.clips.masks import known_cells, latent_groups


def frame_groups(vae: Any, count: int) -> list[tuple[int, int]]:
    """Return the frames, as (first, one past the last), of each of `count` latent frames of a video VAE.

    1 + kn frames for VAEs that see the first frame alone (Wan, Hunyuan, LTX, Cosmos, Mochi, …), kn for others, and
    whatever rule a host's VAE states: it is asked how many frames so many latents make.
    """
    ratio = vae.upscale_ratio[0]
    made = (ratio(k) if callable(ratio) else round(k * ratio) for k in range(1, count + 1))
    return latent_groups([0, *made])


def known_in_latent(vae: Any, samples: Tensor, known: Tensor) -> Tensor:
    """Bring a mask of pixels to the cells of a latent, as the VAE makes them; see `masks.known_cells`.

    Args:
        vae: that the latent belongs to.
        samples: (n, c, h, w), each of the n a frame or picture, or (b, c, l, h, w) of video.
        known: (t, height, width) in pixels, 1 = known: one mask for all, one for each of the n, or for video one for
            each frame.

    Returns:
        (n, 1, h, w), or (1, 1, l, h, w) for video.

    Raises:
        ValueError: the latent is none of this VAE, or the mask is of another length or shape than what it holds.
    """
    if getattr(samples, "is_nested", False):
        raise ValueError(
            "this latent holds video and sound. Take them apart with Separate AV Latent, mask the video latent, and put "
            "them together again with Concat AV Latent, which keeps the mask."
        )
    axes = vae.latent_dim
    sound = axes == 1 or getattr(vae, "extra_1d_channel", None) is not None
    if sound or samples.ndim not in (4, 5) or (samples.ndim == 5 and axes != 3):
        raise ValueError(
            f"the latent has {samples.ndim} axes, and this VAE {'is for sound' if sound else f'works in {axes}'}; a latent "
            "of pictures or video is wanted, and the VAE that it was made with."
        )
    h, w = samples.shape[-2:]
    known = _fitted(vae, known, h, w)
    if samples.ndim == 4 or getattr(vae, "not_video", False):
        return _of_pictures(known, samples)
    groups = frame_groups(vae, samples.shape[2])
    frames = groups[-1][1]
    if len(known) == 1:
        known = known.expand(frames, -1, -1)
    if not frames <= len(known) < frames + _frames_of_next(vae, groups):
        raise ValueError(
            f"the mask has {len(known)} frames, and the latent holds {frames} (in {len(groups)} latent frames); one mask "
            "for all is wanted, or one for each frame. Make the latent for as many frames as the mask, or cut one of them."
        )
    return known_cells(known[None, None], h, w, groups)


def _frames_of_next(vae: Any, groups: list[tuple[int, int]]) -> int:
    """Return how many frames more would make one latent frame more: VAEs drop the rest of an encoded clip."""
    count, frames = len(groups), groups[-1][1]
    first, end = frame_groups(vae, count + 1)[count]
    return max(1, end - max(first, frames))


def _fitted(vae: Any, known: Tensor, h: int, w: int) -> Tensor:
    """Return the part of the mask that the latent shows: the host crops what is no multiple of the VAE's cells.

    Raises:
        ValueError: it has another aspect ratio.
    """
    height, width = known.shape[-2:]
    ratio = vae.spacial_compression_encode()
    if (height // ratio, width // ratio) == (h, w):
        top, left = (height % ratio) // 2, (width % ratio) // 2
        return known[:, top : top + h * ratio, left : left + w * ratio]
    if abs(height * w - width * h) > max(h, w, height, width):  # more than a cell off
        raise ValueError(
            f"the mask is {width}x{height} pixels, and the latent is of {w * ratio}x{h * ratio}: they do not belong "
            "together. Scale or crop the mask as you did the pictures."
        )
    return known


def _of_pictures(known: Tensor, samples: Tensor) -> Tensor:
    """Return (n, 1, h, w), or (n, 1, 1, h, w) where each picture is a video of one frame; n is 1 for a mask for all."""
    count, masks = samples.shape[0], len(known)
    if masks != 1 and count % masks:
        raise ValueError(
            f"the mask has {masks} frames and the latent {count}; one mask for all is wanted, or one for each. Cut the "
            "longer one."
        )
    cells = known_cells(known[None, None], *samples.shape[-2:])[0, 0]
    if masks > 1:
        cells = cells.repeat(count // masks, 1, 1)
    return cells[:, None] if samples.ndim == 4 else cells[:, None, None]
