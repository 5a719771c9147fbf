"""The text encoder learns to tell what a caption says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import world
from ...nets.checkpoint import load_into, metadata_for, save_file, to_half
from ...nets.config import TextConfig
from ...nets.text_encoder import TextEncoder, pad_tokens, tokenize
from ..data import scenes_at
from ..options import TrainOptions
from .build import Arguments, start_parts

DEFAULTS = {"learning_rate": 1e-3, "batch_size": 64, "steps": 3000}


class TextPhase:
    """Train the text encoder to tell what a caption says: every attribute of its scene, by name.

    It is frozen afterwards, as Imagen freezes its text encoder; motion words, which say nothing about a
    still image, are kept apart this way too.
    """

    name = "text"

    def __init__(self, config: TextConfig, options: TrainOptions) -> None:
        self.options, self.config = options, config
        torch.manual_seed(options.seed)
        self.labels = {k: list(v) for k, v in world.attribute_labels().items()}
        encoder = TextEncoder(config)
        heads = nn.ModuleDict({k: nn.Linear(config.width, len(v)) for k, v in self.labels.items()})
        self.module = nn.ModuleDict({"encoder": encoder, "heads": heads}).to(options.device)

    def samples_per_step(self) -> int:
        return self.options.batch_size

    def loss(self, step: int) -> Tensor:
        scenes = scenes_at(self.options, step)
        ids = pad_tokens([tokenize(scene.caption, self.config.max_bytes) for scene in scenes])
        _, pooled = self.module["encoder"](ids.to(self.options.device))
        losses = []
        for name, values in self.labels.items():
            target = torch.tensor([values.index(s.attributes.get(name, "none")) for s in scenes])
            logits = self.module["heads"][name](pooled)
            losses.append(F.cross_entropy(logits, target.to(logits.device)))
        return torch.stack(losses).mean()

    @torch.no_grad()
    def accuracy(self, count: int = 512) -> dict[str, float]:
        """Return the share of held-out captions whose attribute is read right, by attribute."""
        scenes = [world.sample_scene(10**9 + i, split="held_out") for i in range(count)]
        ids = pad_tokens([tokenize(scene.caption, self.config.max_bytes) for scene in scenes])
        _, pooled = self.module["encoder"](ids.to(self.options.device))
        result = {}
        for name, values in self.labels.items():
            guess = self.module["heads"][name](pooled).argmax(dim=1).tolist()
            right = [values[g] == s.attributes.get(name, "none") for g, s in zip(guess, scenes)]  # noqa: B905
            result[name] = sum(right) / count
        return result

    def export(self, state: dict[str, Tensor], folder: Path, facts: dict[str, str]) -> None:
        weights = {f"text.{k.removeprefix('encoder.')}": v for k, v in state.items() if k.startswith("encoder.")}
        metadata = metadata_for("lumiere text encoder", {"text": self.config.to_dict()}, **facts)
        save_file(to_half(weights), folder / "text.safetensors", metadata)

    def preview(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{name} {value:.4f}" for name, value in self.accuracy().items()]
        (folder / f"accuracy_{step:06d}.txt").write_text("\n".join(lines) + "\n")


def build(arguments: Arguments, options: TrainOptions, config: dict[str, Any]) -> TextPhase:
    """Return the phase with a fresh encoder, or the one of `--init-from`."""
    start = start_parts(arguments, "text")
    if start is None:
        return TextPhase(TextConfig.from_dict(config.get("text", {})), options)
    phase = TextPhase(start.text_config, options)
    load_into(phase.module["encoder"], start.text, f"text encoder of {arguments.init_from.name}")
    return phase
