"""The phase `style` for SD1.5-type checkpoints: a LoRA from a person's pictures, in the model's own latents.

The host's VAE and text encoder made the latents and text states beforehand; nothing here needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...commands.host_process import run_verb
from ...diffusion.models import Models
from ...diffusion.schedule import Schedule
from ...nets.checkpoint import metadata_for, save_file
from ...nets.lora import LowRank
from ...nets.unet import UNet
from ..data import generator_at
from ..latent_pictures import LatentPictures
from .diffusion import Batch, DiffusionPhase
from .style import AUTO, WORDS_SHARE, Options

DEFAULTS: dict[str, Any] = {
    "steps": 500,
    "batch_size": 1,
    "learning_rate": 1e-4,
    "warmup": 20,
    "ema_decay": 0.99,
    "height": 512,
    "width": 512,
}


class LatentStylePhase(DiffusionPhase):
    """Train low-rank deltas of a frozen latent image model on a few pictures."""

    name, file = "style", "lora.safetensors"

    def __init__(self, unet: UNet, schedule: Schedule, pictures: LatentPictures, options: Options, base: str) -> None:
        if not options.rank:
            raise ValueError("--rank is 0; for this kind of checkpoint a LoRA is trained: give 4 to 64.")
        self.options, self.pictures, self.base = options, pictures, base
        self.layers = "attention" if options.layers == AUTO else options.layers
        self.unet = unet.to(options.device).eval().requires_grad_(False)
        self.module: nn.Module = LowRank(unet, options.rank, self.layers, options.seed)
        self.module.to(options.device)
        # Text was encoded beforehand; only the loss needs what Models holds.
        self.models = Models(None, unet, None, schedule)

    def samples_per_step(self) -> int:
        return self.options.batch_size

    def draw(self, steps: Sequence[int]) -> list[Batch]:
        return [self._batch(step) for step in steps]

    def _batch(self, step: int) -> Batch:
        x0, context, y = self.pictures.batch(
            self.options.batch_size, self.options.text_dropout, WORDS_SHARE, generator_at(self.options, step, 4)
        )
        device = self.options.device
        context, y = context.to(device), None if y is None else y.to(device)
        return Batch(x0.to(device), context, y)

    def network(self, x: Tensor, timestep: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
        merged = self.module.merged(self.unet)
        return self.answer(self.unet, x, timestep, context, pooled, weights=merged)

    def preview(self, folder: Path, step: int) -> None:
        """Nothing: pictures would need the host's VAE; look at the LoRA in a workflow."""

    def export(self, state: dict[str, Tensor], folder: Path, facts: dict[str, str]) -> None:
        options = self.options
        style = {"name": options.title, "words": options.style_words, "base": self.base}
        config = {"style": style | {"rank": options.rank, "layers": self.layers}}
        metadata = metadata_for(f"{options.title} style", config, **facts)
        metadata["modelspec.architecture"] += "/lora"
        save_file(self.module.file_state(state), folder / self.file, metadata)


def build(arguments: Any, options: Options, config: dict[str, Any]) -> LatentStylePhase:
    """Return the phase around the U-Net of `--checkpoint`; the host encodes the pictures of `--images` first.

    Raises:
        ValueError: `--images` is missing, or the host cannot encode with this checkpoint.
    """
    from ..backbone import load_backbone

    if not options.images:
        raise ValueError(
            f"--checkpoint {arguments.checkpoint} learns a style from pictures: give --images with a folder."
        )
    file = arguments.output.with_suffix("") / "pictures.safetensors"
    if not (arguments.resume and file.is_file()):
        status = run_verb(
            "pictures",
            options.images,
            "--checkpoint",
            arguments.checkpoint,
            "--output",
            file,
            "--height",
            options.height,
            "--width",
            options.width,
            "--words",
            options.style_words,
        )
        if status:
            raise ValueError("the host could not encode the pictures; the lines above say why.")
    pictures = LatentPictures(file)
    unet, schedule = load_backbone(arguments.checkpoint, pictures.backbone)
    base = " ".join(pictures.backbone["sha256"]) + " " + " ".join(pictures.backbone["sha256"].values())
    return LatentStylePhase(unet, schedule, pictures, options, base)
