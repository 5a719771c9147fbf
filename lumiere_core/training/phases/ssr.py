"""The super-resolution stage learns from large clips and degraded small ones (Lumiere §3.2).

Its spatial part is trained on crops of single frames (`--num-frames 1`, the default), then its temporal layers
on crops of short segments around the frozen spatial part (`--num-frames 8 --init-from …/ssr.safetensors`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import world
from ...clips.media import contact_sheet, save_image
from ...clips.video import fold, to_uint8, unfold
from ...diffusion.models import Models
from ...diffusion.schedule import Schedule
from ...diffusion.upscale import UpscaleRequest, upscale
from ...nets.checkpoint import load_into, metadata_for, save_file, to_half
from ...nets.config import SSRConfig, TemporalConfig, UNetConfig
from ...nets.ssr import SSRNetwork, augment, pooled_with_level, ssr_config, upsample
from ...nets.temporal import TemporalLayers
from ...nets.text_encoder import TextEncoder
from ...nets.unet import UNet
from ..data import generator_at, on_device
from ..degrade import degrade
from ..options import TrainOptions
from .build import Arguments, start_parts, text_encoder
from .diffusion import Batch, DiffusionPhase
from .image import new_unet
from .temporal import new_temporal

DEFAULTS: dict[str, Any] = {
    "num_frames": 1,
    "batch_size": 8,
    "height": 64,
    "width": 64,
    "learning_rate": 1e-3,
    "sigma_shift": 4.0,
}
CROPS_TRIED = 8  # the one that loses most when it is made small is taken: most of a frame is plain
ANY_CROP = 0.25  # share of clips whose first crop is taken
PREVIEW_SCENES = range(10**9, 10**9 + 4)  # of the held-out split


class SSRPhase(DiffusionPhase):
    """Train the spatial part on frames, or the temporal layers on segments.

    Args:
        unet: the spatial part.
        temporal: its temporal layers; None trains the spatial part.
        text: frozen.
        size: (height, width) in pixels of the frames that are drawn; crops have the size of the options.
    """

    name = "ssr"

    def __init__(
        self,
        unet: UNet,
        temporal: TemporalLayers | None,
        text: TextEncoder,
        schedule: Schedule,
        config: SSRConfig,
        options: TrainOptions,
        size: tuple[int, int],
    ) -> None:
        for name, crop, full in zip(("height", "width"), (options.height, options.width), size, strict=True):
            if crop % config.scale or crop > full:
                raise ValueError(
                    f"--{name} is {crop} pixels; crops must be multiples of {config.scale} and at most the "
                    f"frame's {full}."
                )
        self.options, self.size, self.config = options, size, config
        text.to(options.device).eval().requires_grad_(False)
        unet.to(options.device)
        if temporal is not None:
            unet.eval().requires_grad_(False)
            temporal.to(options.device)
        self.module = unet if temporal is None else temporal
        self.models = Models(text, unet, temporal, schedule, config)
        self.network_module = SSRNetwork(unet, temporal, config)

    def samples_per_step(self) -> int:
        return self.options.batch_size * self.options.num_frames

    def draw(self, steps: Sequence[int]) -> list[Batch]:
        return [self._batch(scenes, step) for step, scenes in zip(steps, self.scenes(steps), strict=True)]

    def _batch(self, scenes: list[world.Scene], step: int) -> Batch:
        context, pooled = self.prompts(scenes, step)
        with torch.no_grad():
            high, low = self.pairs(scenes, step)
            random = generator_at(self.options, step, 5)
            count, t = high.shape[0], self.options.num_frames
            level = (torch.rand(count, generator=random) * 2 - 1).clamp(min=0)
            grain = self.noise((count, low.shape[-3], t, *low.shape[-2:]), on_device(random, low.device))
            low = augment(low, fold(grain), level.repeat_interleave(t), self.config)
            condition = unfold(upsample(low, self.config.scale), t)
            y = pooled_with_level(pooled, level, self.config)
        return Batch(high, context, y, conditions={"low": condition})

    def network(self, x: Tensor, timestep: Tensor, context: Tensor, pooled: Tensor, low: Tensor) -> Tensor:
        """Return the clean clip; `pooled` holds the noise level too, `low` is the enlarged small clip."""
        inputs = x, timestep, context, pooled, low, self.options.checkpointing
        return self.answer(self.network_module, *inputs)

    def noise(self, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
        """Return noise that is the same in all frames of a clip, as `upscale` gives it by default."""
        b, c, t, h, w = shape
        return torch.randn((b, c, 1, h, w), generator=random, device=random.device).expand(shape)

    def pairs(self, scenes: list[world.Scene], step: int) -> tuple[Tensor, Tensor]:
        """Return large crops (b, 3, t, H, W) and their degraded small ones ((b t), 3, h, w)."""
        options, random = self.options, generator_at(self.options, step, 4)
        t, fps, device = options.num_frames, options.fps, options.device
        last = max(0.0, world.CLIP_SECONDS - t / fps)
        starts = torch.rand(len(scenes), generator=random) * last
        times = starts[:, None] + torch.arange(t) / fps
        frames = world.render_frames(
            [s for s in scenes for _ in range(t)], times.flatten(), *self.size, device=device
        ).unflatten(0, (-1, t))
        high, low = [], []
        for clip in frames:  # t c H W
            crop = self._crop(clip, random)
            high.append(crop)
            low.append(degrade(crop, self.config.scale, random))
        return torch.stack(high).transpose(1, 2), torch.cat(low)

    def _crop(self, clip: Tensor, random: torch.Generator) -> Tensor:
        """Return a random crop of (t, c, H, W), the same in all frames; mostly one that loses detail when small."""
        scale, best = self.config.scale, None
        tried = 1 if torch.rand(1, generator=random).item() < ANY_CROP else CROPS_TRIED
        for _ in range(tried):
            places = torch.rand(2, generator=random).tolist()
            (top, left) = (
                scale * round(place * (full - crop) / scale)
                for place, full, crop in zip(places, self.size, (self.options.height, self.options.width), strict=True)
            )
            crop = clip[:, :, top : top + self.options.height, left : left + self.options.width]
            first = crop[:1]
            lost = (first - upsample(F.avg_pool2d(first, scale), scale)).square().mean().item()
            if best is None or lost > best[0]:
                best = lost, crop
        return best[1]

    def export(self, state: dict[str, Tensor], folder: Path, facts: dict[str, str]) -> None:
        """Write one file: the spatial part, and the temporal layers once they are trained."""
        models = self.models
        config = {
            "ssr": self.config.to_dict(),
            "unet": models.unet.config.to_dict(),
            "schedule": models.schedule.to_dict(),
        }
        if models.temporal is None:
            weights = {f"image.{k}": v for k, v in state.items()}
        else:
            config["temporal"] = models.temporal.config.to_dict()
            weights = {f"image.{k}": v for k, v in models.unet.state_dict().items()}
            weights |= {f"temporal.{k}": v for k, v in state.items()}
        metadata = metadata_for("lumiere super-resolution", config, **facts)
        save_file(to_half(weights), folder / "ssr.safetensors", metadata)

    def preview(self, folder: Path, step: int) -> None:
        """Write small, enlarged and true frames in rows, and their distances."""
        rows, lines = [], []
        h, w = (side // self.config.scale for side in self.size)
        for number in PREVIEW_SCENES:
            scene = world.sample_scene(number, split="held_out")
            small, large = (
                world.render_clip(scene, max(2, self.options.num_frames), height=a, width=b)
                for a, b in ((h, w), self.size)
            )
            made = upscale(self.models, to_uint8(small), UpscaleRequest(scene.caption, seed=number))
            cubic = to_uint8(unfold(upsample(fold(small[None]), self.config.scale), small.shape[1])[0])
            true = to_uint8(large)
            rows += [cubic[:1], made[:1], true[:1]]
            lines.append(f"{scene.caption}: bicubic {psnr(cubic, true):.2f} dB, SSR {psnr(made, true):.2f} dB")
        save_image(contact_sheet(torch.cat(rows), 3), folder / f"step_{step:06d}.png")
        (folder / f"psnr_{step:06d}.txt").write_text("\n".join(lines) + "\n", "utf-8")


def psnr(frames: Tensor, true: Tensor) -> float:
    """Return the peak signal-to-noise ratio of uint8 frames in dB."""
    error = (frames.double() - true.double()).square().mean()
    return float(10 * torch.log10(255**2 / error.clamp(min=1e-9)))


def build(arguments: Arguments, options: TrainOptions, config: dict[str, Any]) -> SSRPhase:
    """Return the phase with fresh networks, or those of `--init-from`.

    Raises:
        ValueError: temporal layers are to be trained without a trained spatial part.
    """
    text, start = text_encoder(arguments), start_parts(arguments, "image")
    if start is None and options.num_frames > 1:
        raise ValueError(
            f"--num-frames is {options.num_frames}: the temporal layers are trained around a trained spatial "
            "part. Give its ssr.safetensors with --init-from, or train it first with --num-frames 1."
        )
    ssr = ssr_config(start) if start else SSRConfig.from_dict(config.get("ssr", {}))
    unet_config = start.unet_config if start else UNetConfig.from_dict(config.get("unet", {}))
    unet, temporal = new_unet(unet_config, options.seed), None
    if start:
        load_into(unet, start.image, f"super-resolution U-Net of {arguments.init_from.name}")
    if options.num_frames > 1:
        temporal_config = (
            start.temporal_config if start.temporal else TemporalConfig.from_dict(config.get("temporal", {}))
        )
        temporal = new_temporal(unet_config, temporal_config, options.seed)
        if start.temporal:
            load_into(temporal, start.temporal, f"temporal layers of {arguments.init_from.name}")
    schedule = Schedule(**(start.schedule if start else config.get("schedule", {})))
    size = tuple(config.get("size", (256, 256)))
    return SSRPhase(unet, temporal, text, schedule, ssr, options, size)
