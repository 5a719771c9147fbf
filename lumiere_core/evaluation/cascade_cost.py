"""What the models of `evaluate cascade` cost: FLOPs of a pass, and what was spent on their training."""

from __future__ import annotations

from pathlib import Path

import torch

from ..clips.conditioning import key_frames
from ..diffusion.models import Models
from ..files import JsonLines, Record


@torch.no_grad()
def forward_flops(models: Models, frames: int, side: int, known: bool = False) -> int:
    """Return the FLOPs of one pass of one clip.

    Args:
        side: pixels of a square frame.
        known: some frames are known.
    """
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.zeros(1, models.unet.config.in_channels, frames, side, side, device=next(models.unet.parameters()).device)
    seen = key_frames(x[:, :, :1], [0], frames).tensor() if known else None
    text = models.encode([""])
    with FlopCounterMode(display=False) as counter:
        models.denoiser().predict(x, torch.full((1,), 500.0, device=x.device), text, seen)
    return counter.get_total_flops()


def training_facts(folder: Path, batch_size: int) -> Record:
    """Return clips, minutes of processor time and the mean loss of the last tenth of the steps of a run.

    Args:
        folder: of the run.
        batch_size: clips of a step.
    """
    lines = JsonLines(folder / "log.jsonl").read()
    seconds = [float(line["core_seconds"]) for line in lines]
    # A run that was resumed counts its seconds anew.
    ends = [now for now, later in zip(seconds, [*seconds[1:], 0.0], strict=True) if later < now]
    tail = lines[-max(1, len(lines) // 10) :]
    return {
        "clips": len(lines) * batch_size,
        "core_minutes": round(sum(ends) / 60, 2),
        "loss": round(sum(float(line["loss"]) for line in tail) / len(tail), 5),
    }
