"""Clips longer than the model."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..lumiere_core.clips.video import clip_count
from ..lumiere_core.diffusion.extend import check_overlap, extend
from ..lumiere_core.text_files import lines_of
from .host import live
from .host.inflate import inflation_of
from .host.keys import LOOP
from .sampling import LumiereSampler
from .text import encoded
from .widgets import sampling_widgets

SEEDS = 1_000_003  # between those of two pieces, so that clips of a batch never share noise


class LumiereExtend(io.ComfyNode):
    """A clip goes on by pieces."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereExtend",
            display_name="Lumiere Extend",
            category="lumiere/sampling",
            description="Continues a sampled clip by pieces of its own length, each with a prompt: a piece begins with the last "
            "frames of what is there, and its colours are brought back to those of the first.",
            search_aliases=["longer video", "continue clip", "extend video", "infinite", "loop sampler"],
            inputs=[
                io.Model.Input("model", tooltip="The MODEL that sampled the clip; frames in the batch axis."),
                io.Clip.Input("clip", tooltip="The CLIP output of the loader that the MODEL came from."),
                io.Latent.Input("latent", tooltip="The clip as it left the sampler: the first piece."),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    dynamic_prompts=True,
                    default="a red ball moving right on grass",
                    tooltip="A line for each piece; where there are fewer lines, the last one goes on.",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    tooltip="What the clip should not show, for all pieces.",
                ),
                io.Int.Input("pieces", default=4, min=1, max=64, tooltip="How many pieces follow the clip."),
                io.Int.Input(
                    "overlap",
                    default=20,
                    min=1,
                    max=4096,
                    tooltip="Last frames of what is there that a piece begins with. Each piece adds the frames of the clip less "
                    "these: 80 and four times 60 are 320.",
                ),
                io.Float.Input(
                    "anchor",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How far mean and contrast of each new piece are brought back to the first piece's. Less where a "
                    "prompt is to change the colours; 0 lets them drift.",
                ),
                *sampling_widgets(
                    seed="Of the noise; each piece has its own.",
                    steps="Denoising steps of each piece.",
                    cfg="Classifier-free guidance scale: how much the prompt counts.",
                ),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(
        cls,
        model,
        clip,
        latent: dict,
        prompts: str,
        negative_prompt: str,
        pieces: int,
        overlap: int,
        anchor: float,
        seed: int,
        **sampling,
    ) -> io.NodeOutput:
        if model.attachments.get(LOOP):
            raise ValueError(
                "this MODEL makes loops (Lumiere Loop), and a clip that goes on is none: each piece would return to its own "
                "beginning. Connect the MODEL from before Lumiere Loop."
            )
        first = clips_of(latent["samples"], inflation_of(model))
        check_overlap(first.shape[2], overlap)
        texts = [line.strip() for line in lines_of(prompts) if line.strip()] or [""]
        if len(texts) > pieces:
            live.warn(f"{len(texts)} prompts for {pieces} pieces; the last {len(texts) - pieces} are not used.")
        negative = encoded(clip, negative_prompt)
        positive = [encoded(clip, text) for text in texts[:pieces]]

        def sample(number: int, known: Tensor) -> Tensor:
            prompts = {"positive": positive[min(number, len(positive) - 1)], "negative": negative}
            return piece(model, known, first.shape[2], seed=seed_of(seed, number), **prompts, **sampling)

        clip = extend(first, pieces, overlap, sample=sample, anchor=anchor)
        return io.NodeOutput({"samples": clip.transpose(1, 2).flatten(0, 1)})


def clips_of(samples: Tensor, inflation) -> Tensor:
    """Return (b, c, t, h, w) of frames in the batch axis.

    Raises:
        ValueError: the latent is none of frames, or empty.
    """
    if samples.is_nested or samples.ndim != 4:
        raise ValueError(
            f"the latent has {samples.ndim} axes; frames as a batch are wanted, as Lumiere, AnimateDiff and image models make "
            "them. Video models with latents of whole clips have continuation nodes of their own."
        )
    frames = (inflation.frames_per_clip if inflation else 0) or samples.shape[0]
    clips = clip_count(samples.shape[0], frames)
    if not bool(samples.any()):
        raise ValueError("the latent is empty: there is no clip to continue. Sample it first, with Lumiere Sampler.")
    return samples.unflatten(0, (clips, frames)).transpose(1, 2)


def seed_of(seed: int, number: int) -> int:
    """Return the seed of a piece; the clip itself has `seed`."""
    return (seed + (number + 1) * SEEDS) % (1 << 64)


def piece(model, known: Tensor, frames: int, **sampling: Any) -> Tensor:
    """Sample a clip of some frames that begins with known ones; all are (b, c, t, h, w)."""
    b, c, overlap, h, w = known.shape
    samples = torch.cat([known, known.new_zeros(b, c, frames - overlap, h, w)], dim=2).transpose(1, 2).flatten(0, 1)
    made = torch.ones(b, frames, 1, h, w)
    made[:, :overlap] = 0
    latent = {"samples": samples, "noise_mask": made.flatten(0, 1)}
    (result,) = LumiereSampler.execute(model, latent_image=latent, denoise=1.0, dynamic_threshold=0.0, **sampling).args
    return result["samples"].unflatten(0, (b, frames)).transpose(1, 2)
