"""What the model makes of the training captions, beside the clips that it learns from, as mp4 and PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..clips.media import contact_sheet, evenly_spaced, save_image, write_mp4
from ..dataset.contact import contact_frames
from ..dataset.prepare import to_pixels
from ..diffusion.denoiser import Denoiser
from ..diffusion.guidance import guided
from ..diffusion.noise import frame_noise
from ..diffusion.sampling import SCHEDULERS, sample_ddim
from ..nets.text_encoder import Text

if TYPE_CHECKING:
    from .phases.own_clips import OwnClipsPhase

SHOWN, STEPS, SEED = 2, 16, 7  # clips, sampling steps, seed of the noise


@torch.no_grad()
def sample_clip(
    phase: OwnClipsPhase, embedding: dict[str, Tensor], shape: list[int], cfg: float, seed: int, steps: int = STEPS
) -> Tensor:
    """Return (c, t, h, w) latents that the network makes from noise for one caption.

    Args:
        embedding: `context` (l, d) and perhaps `y` (adm,); shape: (c, t, h, w).
    """
    device, schedule = phase.options.device, phase.schedule
    ratio = phase.clips.cache.backbone["ratio"]
    empty = phase.clips.cache.read_empty(shape[2] * ratio, shape[3] * ratio)

    denoiser = Denoiser(phase.network_module, schedule)

    def text(tensors: dict[str, Tensor]) -> Text:
        return Text(*(None if (v := tensors.get(k)) is None else v[None].float().to(device) for k in ("context", "y")))

    words, nothing = text(embedding), text(empty)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return guided(lambda chosen: denoiser(x, sigma, chosen).float(), words, nothing, cfg)

    sigmas = SCHEDULERS["karras"](steps, schedule).to(device)
    shared = phase.module.config.shared_noise
    noise = frame_noise(seed, shape[1], (shape[0], *shape[2:]), share=shared).transpose(0, 1)[None]
    return sample_ddim(denoise, noise.to(device) * (1 + sigmas[0] ** 2).sqrt(), sigmas)[0]


def write_samples(phase: OwnClipsPhase, folder: Path, step: int) -> None:
    """Write step_N.mp4 and step_N.png: for the first captions, the real clip and what the model makes."""
    cache = phase.clips.cache
    rgb = cache.dataset["rgb"]
    cfg = 3.0 if cache.backbone["ratio"] == 1 else 7.0
    videos, words = [], []
    for index in range(min(SHOWN, len(phase.clips))):
        clip = phase.clips[index * max(1, len(phase.clips) // SHOWN)]
        latents = clip.tensors["latents"].float()
        made = sample_clip(phase, clip.tensors, list(latents.shape), cfg, SEED + index)
        videos += [to_pixels(latents, rgb).numpy(), to_pixels(made.cpu(), rgb).numpy()]
        words += [f"real: {clip.caption}", f"step {step}: {clip.caption}"]
    frames = contact_frames(videos, words, columns=2)
    write_mp4(folder / f"step_{step:06d}.mp4", frames, cache.settings.fps)
    rows = [video[evenly_spaced(len(video), 8)] for video in videos if video.shape == videos[0].shape]
    sheet = contact_sheet(torch.cat([torch.from_numpy(row) for row in rows]), 8, scale=2)
    save_image(sheet, folder / f"step_{step:06d}.png")
