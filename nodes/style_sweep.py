"""One clip in several strengths of a style, side by side."""

from __future__ import annotations

import math

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from .condition_builder import BLANK
from .host import device, live
from .sampling import LumiereSampler
from .style import LumiereStyleInterpolate
from .widgets import sampling_widgets

MOST = 16  # clips of one sweep


class LumiereStyleSweep(io.ComfyNode):
    """MODEL, style MODEL and alphas to a grid of clips."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereStyleSweep",
            display_name="Lumiere Style Sweep",
            category="lumiere/style",
            description="Samples one clip with several alphas of Lumiere Style Interpolate, same seed and prompt, and plays them "
            "as a grid. A click on a cell puts its alpha into Lumiere Style Interpolate.",
            search_aliases=["alpha sweep", "xy plot", "compare styles", "style strength"],
            has_intermediate_output=True,
            inputs=[
                io.Model.Input("model", tooltip="The MODEL whose motion is kept."),
                io.Model.Input("style_model", tooltip="A fine-tune of the same image model."),
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Latent.Input("latent_image", tooltip="The clip to denoise; frames in the batch axis."),
                io.Vae.Input("vae", tooltip="Decodes the clips."),
                io.String.Input(
                    "alphas",
                    default="0, 0.5, 0.7, 1",
                    tooltip="Numbers from 0 (the model) to 1 (the style), with commas between them. The paper uses 0.5 to 1.",
                ),
                *sampling_widgets(
                    seed="Of the noise, the same for all.",
                    steps="Denoising steps of each clip.",
                    cfg="Classifier-free guidance scale: how much the prompt counts. 1 is none and twice as fast.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images",
                    tooltip="The grid, frame by frame: alphas in reading order, as square as can be.",
                )
            ],
        )

    @classmethod
    def execute(cls, model, style_model, vae, alphas: str, **sampling) -> io.NodeOutput:
        values = parse_alphas(alphas)
        clips = []
        for alpha in values:
            device.stop_if_interrupted()
            (mixed,) = LumiereStyleInterpolate.execute(model, style_model, alpha).args
            (made,) = LumiereSampler.execute(mixed, denoise=1.0, dynamic_threshold=0.0, **sampling).args
            clips.append(vae.decode(made["samples"]))
        images, columns = grid(clips)
        shown = None
        if live.watched():
            shown = {"lumiere_sweep": ({"alphas": values, "across": columns, **live.sheet_of(images)},)}
        return io.NodeOutput(images, ui=shown)


def parse_alphas(text: str) -> list[float]:
    """Read "0, 0.5, 1".

    Raises:
        ValueError: there is no number in [0, 1], or too many of them.
    """
    try:
        values = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        values = []
    if not 1 <= len(values) <= MOST or not all(0 <= value <= 1 for value in values):
        raise ValueError(
            f"alphas is {text!r}; wanted are 1 to {MOST} numbers from 0 to 1 with commas between them, such as 0, 0.5, 1."
        )
    return values


def grid(clips: list[Tensor]) -> tuple[Tensor, int]:
    """Lay clips (t, h, w, c) of one size out in reading order; returns (t, rows h, columns w, c) and the columns."""
    columns = math.ceil(math.sqrt(len(clips)))
    blank = torch.full_like(clips[0], BLANK)
    places = clips + [blank] * (-len(clips) % columns)
    rows = [torch.cat(places[start : start + columns], 2) for start in range(0, len(places), columns)]
    return torch.cat(rows, 1), columns
