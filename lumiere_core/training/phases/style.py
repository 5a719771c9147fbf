"""The image model learns a style (Lumiere §4.1): from the world redrawn in it, or from a person's own pictures.

Either low-rank deltas beside the frozen weights (LoRA), or the whole image U-Net. The temporal layers are not even
loaded. A style's words stand in half of the captions, so it works with them in the prompt and without.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...diffusion.models import Models
from ...diffusion.schedule import Schedule
from ...nets.checkpoint import WEIGHTS, load_into, metadata_for, save_file, sha256, to_half
from ...nets.lora import LAYERS, LowRank
from ...nets.text_encoder import TextEncoder
from ...nets.unet import UNet
from ...world.styles import STYLES, stylise
from ..data import drop_prompts, generator_at, images_at
from ..options import TrainOptions
from ..pictures import crops, load_pictures
from .build import Arguments, image_model, start_parts, text_encoder
from .diffusion import Batch, DiffusionPhase

DEFAULTS: dict[str, Any] = {
    "steps": 400,
    "batch_size": 8,
    "learning_rate": 4e-3,
    "warmup": 20,
    "ema_decay": 0.98,
    "decay_from": 0.4,
}
AUTO = "auto"
WORDS_SHARE = 0.5  # of the captions name the style


@dataclass(frozen=True)
class Options(TrainOptions):
    """Options of a style run; all of them must stay the same when it is resumed."""

    style: str = ""  # of world.styles, or a name for the pictures
    images: str = ""  # folder of pictures; "" = the world
    words: str = ""  # how captions name the style; "" = the style's own, none with pictures
    rank: int = 8  # of the deltas; 0 = fine-tune all weights
    layers: str = AUTO  # see lora.LowRank; "auto" = all of a Lumiere, the attention of other models

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers not in (AUTO, *LAYERS) or self.rank < 0:
            raise ValueError(
                f"got rank {self.rank} of {self.layers!r} layers; wanted 0 (all weights) or more, of {(AUTO, *LAYERS)}."
            )
        if not self.images and self.style not in STYLES:
            raise ValueError(
                f"got style {self.style!r}; give --style with one of {', '.join(STYLES)}, or --images with "
                "a folder of pictures."
            )

    @property
    def title(self) -> str:
        return self.style or Path(self.images).name

    @property
    def style_words(self) -> str:
        return self.words or (STYLES[self.style].words if not self.images else "")


class StylePhase(DiffusionPhase):
    """Train an image model, or low-rank deltas of it, on stylised pictures."""

    name = "style"

    def __init__(self, unet: UNet, text: TextEncoder, schedule: Schedule, options: Options, base: str = "") -> None:
        """`base` is the name and hash of the image model's file, for the metadata of the deltas."""
        self.options, self.base = options, base
        self.deltas: LowRank | None = None
        for frozen in (unet, text):
            frozen.to(options.device).eval().requires_grad_(False)
        self.module: nn.Module = unet
        if options.rank:
            layers = "all" if options.layers == AUTO else options.layers
            self.deltas = LowRank(unet, options.rank, layers, options.seed)
            self.module = self.deltas.to(options.device)
        self.module.requires_grad_(True)
        self.models = Models(text, unet, None, schedule)
        self.pictures = load_pictures(Path(options.images), options.height, options.width) if options.images else None

    @property
    def file(self) -> str:
        """Name of the file that `export` writes."""
        return "lora.safetensors" if self.deltas is not None else "image.safetensors"

    def samples_per_step(self) -> int:
        return self.options.batch_size

    def draw(self, steps: Sequence[int]) -> list[Batch]:
        weighted = self.options.object_weight > 0
        batches = []
        for x0, captions, objects in self.pictured(steps):
            with torch.no_grad():
                context, pooled = self.models.encode(captions)
            batches.append(Batch(x0, context, pooled, objects if weighted else None))
        return batches

    def pictured(self, steps: Sequence[int]) -> list[tuple[Tensor, list[str], Tensor | None]]:
        """Return, for each step, (b, 3, h, w) stylised pictures, their captions, and the objects of the world's."""
        options, batches = self.options, []
        if self.pictures is None:
            scenes = self.scenes(steps)
            drawn = images_at(scenes, options, steps, masks=True)
        for index, step in enumerate(steps):
            random, objects = generator_at(options, step, 4), None
            if self.pictures is not None:
                size = options.batch_size, options.height, options.width
                x0, captions = crops(self.pictures, *size, random)
                x0 = x0.to(options.device)
            else:
                plain, objects = drawn[index]
                x0 = stylise(plain, options.style, objects, random)
                captions = [scene.caption for scene in scenes[index]]
            named = torch.rand(len(captions), generator=random) < WORDS_SHARE
            captions = [
                with_words(caption, options.style_words) if says else caption
                for caption, says in zip(captions, named.tolist(), strict=True)
            ]
            batches.append((x0, drop_prompts(captions, options, step), objects))
        return batches

    def network(self, x: Tensor, timestep: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
        inputs = (x, timestep, context, pooled)
        if self.deltas is None:
            return self.answer(self.module, *inputs)
        unet = self.models.unet
        return self.answer(unet, *inputs, weights=self.deltas.merged(unet))

    def preview(self, folder: Path, step: int) -> None:
        plain = self.models
        if self.deltas is not None:
            with torch.no_grad():
                unet = copy.deepcopy(plain.unet)
                unet.load_state_dict(self.deltas.merged(plain.unet), strict=False)
            self.models = dataclasses.replace(plain, unet=unet)
        try:
            super().preview(folder, step)
        finally:
            self.models = plain

    def export(self, state: dict[str, Tensor], folder: Path, facts: dict[str, str]) -> None:
        """Write lora.safetensors, or image.safetensors when all weights were trained."""
        options = self.options
        style = {"name": options.title, "words": options.style_words, "base": self.base}
        if self.deltas is not None:
            config = {"style": style | {"rank": options.rank, "layers": options.layers}}
            metadata = metadata_for(f"{options.title} style", config, **facts)
            metadata["modelspec.architecture"] += "/lora"
            save_file(self.deltas.file_state(state), folder / self.file, metadata)
            return
        config = {
            "unet": self.models.unet.config.to_dict(),
            "schedule": self.models.schedule.to_dict(),
            "size": [options.height, options.width],
            "style": style,
        }
        metadata = metadata_for(f"lumiere text-to-image U-Net, {options.title}", config, **facts)
        weights = to_half({f"image.{k}": v for k, v in {**self.module.state_dict(), **state}.items()})
        save_file(weights, folder / self.file, metadata)


def with_words(caption: str, words: str) -> str:
    """Return "a red ball, in line drawing style"."""
    return ", ".join(part for part in (caption, words) if part)


@dataclass(frozen=True)
class _Files:
    """The files that the command line names, lumiere-mini's where it names none."""

    text: Path
    image: Path
    init_from: Path | None


def build(arguments: Arguments, options: Options, config: dict[str, Any]) -> StylePhase:
    """Return the phase around an image model; `--init-from` holds one to go on from (rank 0)."""
    files = _Files(
        arguments.text or WEIGHTS / "mini-text.safetensors",
        arguments.image or WEIGHTS / "mini-image.safetensors",
        arguments.init_from,
    )
    text, (unet, schedule) = text_encoder(files), image_model(files)
    start = start_parts(files, "image")
    if start:
        load_into(unet, start.image, f"image U-Net of {files.init_from.name}")
    return StylePhase(unet, text, schedule, options, f"{files.image.name} {sha256(files.image)}")
