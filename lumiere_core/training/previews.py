"""What a stage makes so far: sheets of samples, written while it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import world
from ..clips.conditioning import Condition, key_frames
from ..clips.media import contact_sheet, evenly_spaced, save_image, write_mp4
from ..clips.video import fold, to_uint8, unfold
from ..dataset.contact import contact_frames
from ..dataset.prepare import to_pixels
from ..diffusion.denoiser import Denoiser
from ..diffusion.generate import Request, generate
from ..diffusion.guidance import guided
from ..diffusion.models import Models
from ..diffusion.noise import frame_noise
from ..diffusion.sampling import SCHEDULERS, sample_ddim
from ..diffusion.upscale import UpscaleRequest, upscale
from ..files import write_text
from ..nets.ssr import upsample
from ..nets.text_encoder import Text, pad_tokens, tokenize
from .parts import Part, TextPart
from .sources.cached import CachedClips
from .sources.captions import LABELS

PROMPTS = (
    "a red ball on grass",
    "a blue square on a white background",
    "a yellow star moving right in front of a night sky",
    "a green triangle bouncing on the street",
    "fireworks over a city at night",
    "a boat sailing left on the ocean at sunset",
    "a campfire burning at night",
    "a stick figure walking right",
)
MOVING_PROMPTS = PROMPTS[2::2] + PROMPTS[3::4]
HELD_OUT = range(10**9, 10**9 + 4)  # scenes
SHOWN, STEPS, SEED = 2, 16, 7  # clips of a cache, sampling steps, seed of the noise

Known = Callable[[int, Request], Condition | None]


def readings(part: TextPart, folder: Path, step: int) -> None:
    """Write accuracy_N.txt."""
    lines = [f"{name} {value:.4f}\n" for name, value in accuracy(part).items()]
    write_text(folder / f"accuracy_{step:06d}.txt", "".join(lines))


@torch.no_grad()
def accuracy(part: TextPart, count: int = 512) -> dict[str, float]:
    """Return the share of held-out captions whose attribute is read right, by attribute."""
    scenes = [world.sample_scene(10**9 + i, split="held_out") for i in range(count)]
    ids = pad_tokens([tokenize(scene.caption, part.config.max_bytes) for scene in scenes])
    logits = part.network(ids.to(next(part.module.parameters()).device))
    result = {}
    for name, values in LABELS.items():
        guess = logits[name].argmax(dim=1).tolist()
        right = [values[g] == s.attributes.get(name, "none") for g, s in zip(guess, scenes, strict=True)]
        result[name] = sum(right) / count
    return result


def prompts_sheet(
    part: Part, size: tuple[int, int], frames: int, prompts: tuple[str, ...], known: Known, folder: Path, step: int
) -> None:
    """Write step_N.png: stills, or eight frames of a clip in a row, of each prompt.

    Args:
        size: (height, width) in pixels.
        known: returns what is known of the sample of a prompt's number.
    """
    models, made = part.finished(), []
    for index, prompt in enumerate(prompts):
        request = Request(prompt, seed=index, num_frames=frames, steps=STEPS, height=size[0], width=size[1])
        clip = generate(models, request, known=known(index, request))
        made.append(clip[evenly_spaced(clip.shape[0], 8)])
    sheet = contact_sheet(torch.cat(made), 4 if frames == 1 else 8, scale=2)
    save_image(sheet, folder / f"step_{step:06d}.png")


def nothing_known(index: int, request: Request) -> None:
    """Plain text-to-video."""


def every_other_begins(index: int, request: Request) -> Condition | None:
    """Every other sample begins with the first frame of the prompt's own scene."""
    if index % 2:
        return None
    scene = world.scene_from_caption(request.prompt, request.seed)
    first = world.render_clip(scene, 1, height=request.height, width=request.width)
    return key_frames(first[None], [0], request.num_frames)


def enlarged_sheet(models: Models, size: tuple[int, int], frames: int, folder: Path, step: int) -> None:
    """Write small, enlarged and true frames in rows, and their distances.

    Args:
        size: (height, width) in pixels of the true frames.
    """
    rows, lines, scale = [], [], models.ssr.scale
    for number in HELD_OUT:
        scene = world.sample_scene(number, split="held_out")
        small, large = (
            world.render_clip(scene, max(2, frames), height=h, width=w)
            for h, w in ((size[0] // scale, size[1] // scale), size)
        )
        made = upscale(models, to_uint8(small), UpscaleRequest(scene.caption, seed=number))
        cubic = to_uint8(unfold(upsample(fold(small[None]), scale), small.shape[1])[0])
        true = to_uint8(large)
        rows += [cubic[:1], made[:1], true[:1]]
        lines.append(f"{scene.caption}: bicubic {psnr(cubic, true):.2f} dB, SSR {psnr(made, true):.2f} dB\n")
    save_image(contact_sheet(torch.cat(rows), 3), folder / f"step_{step:06d}.png")
    write_text(folder / f"psnr_{step:06d}.txt", "".join(lines))


def psnr(frames: Tensor, true: Tensor) -> float:
    """Return the peak signal-to-noise ratio of uint8 frames in dB. Both are (t, h, w, 3)."""
    return float(10 * torch.log10(255**2 / F.mse_loss(frames.double(), true.double()).clamp(min=1e-9)))


def clips_sheet(models: Models, source: CachedClips, device: str, folder: Path, step: int) -> None:
    """Write step_N.mp4 and step_N.png: for some captions, the real clip and what the model makes, by colours alone."""
    clips, cache = source.clips, source.clips.cache
    rgb = cache.dataset["rgb"]
    cfg = 3.0 if cache.backbone["ratio"] == 1 else 7.0
    videos, words = [], []
    for index in range(min(SHOWN, len(clips))):
        clip = clips[index * max(1, len(clips) // SHOWN)]
        latents = clip.tensors["latents"].float()
        text, empty, more = source.shown(clip, device)
        made = sample_clip(
            models.denoiser(), text, empty=empty, shape=latents.shape, cfg=cfg, seed=SEED + index, device=device, **more
        )
        videos += [to_pixels(latents, rgb).numpy(), to_pixels(made.cpu(), rgb).numpy()]
        words += [f"real: {clip.caption}", f"step {step}: {clip.caption}"]
    frames = contact_frames(videos, words, columns=2)
    write_mp4(folder / f"step_{step:06d}.mp4", frames, cache.settings.fps)
    rows = [video[evenly_spaced(len(video), 8)] for video in videos if video.shape == videos[0].shape]
    sheet = contact_sheet(torch.cat([torch.from_numpy(row) for row in rows]), 8, scale=2)
    save_image(sheet, folder / f"step_{step:06d}.png")


@torch.no_grad()
def sample_clip(
    denoiser: Denoiser, text: Text, empty: Text, shape: torch.Size, cfg: float, seed: int, device: str, **more: Any
) -> Tensor:
    """Return the (c, t, h, w) latents that a network makes from noise for one caption.

    Args:
        more: what else it takes; see `Denoiser`.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return guided(lambda words: denoiser(x, sigma, words, **more).float(), text, empty, cfg)

    sigmas = SCHEDULERS["karras"](STEPS, denoiser.schedule).to(device)
    noise = frame_noise(seed, shape[1], (shape[0], *shape[2:]), share=denoiser.shared_noise).transpose(0, 1)[None]
    return sample_ddim(denoise, noise.to(device) * (1 + sigmas[0] ** 2).sqrt(), sigmas)[0]
