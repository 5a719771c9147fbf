"""Prompts of a clip: both in one node, and prompts that change over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..lumiere_core.clips.travel import SHAPES, mix_rows, parse_travel, travel_weights
from .host import device, live
from .widgets import fps_widget

MOST = 100_000  # characters of a prompt: text encoders read some hundreds
LONGEST = 1024  # tokens of a prompt that is repeated to the length of another
DRAWN = 256  # places at most at which the node shows how much each prompt counts
TEXT_OF_ALL = ("pooled_output",)  # what a text encoder makes besides the text states, and mixes as they do


class LumiereTextEncode(io.ComfyNode):
    """Both prompts in one node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereTextEncode",
            display_name="Lumiere Text Encode",
            category="lumiere/conditioning",
            description="Encodes the prompt and the negative prompt of a clip, as two CLIP Text Encode nodes would.",
            search_aliases=["prompt", "negative prompt", "text to video"],
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP output of the loader that the MODEL came from."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What the clip shows. (word:1.3) weighs a word. lumiere-mini reads the first 256 bytes.",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    tooltip="What the clip should not show. Empty is what the models were trained with.",
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="positive"), io.Conditioning.Output(display_name="negative")],
        )

    @classmethod
    def execute(cls, clip, prompt: str, negative_prompt: str) -> io.NodeOutput:
        return io.NodeOutput(*(encoded(clip, text) for text in (prompt, negative_prompt)))


def encoded(clip, text: str) -> list:
    """Return the CONDITIONING that CLIP Text Encode would.

    Raises:
        ValueError: there is no text encoder, or the text is a book.
    """
    if clip is None:
        raise ValueError("the clip input is empty: the checkpoint holds no text encoder. Load one with another node.")
    if len(text) > MOST:
        raise ValueError(
            f"the prompt has {len(text):,} characters; at most {MOST:,} are taken, and text encoders read some hundreds. Was "
            "a file connected to it?"
        )
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


class LumierePromptTravel(io.ComfyNode):
    """A prompt for each frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumierePromptTravel",
            display_name="Lumiere Prompt Travel",
            category="lumiere/conditioning",
            description="Encodes prompts that change over the clip: a line for each, with its frame or second, and between "
            "them a mixture. For every MODEL whose frames lie in the batch: Lumiere, AnimateDiff, image models.",
            search_aliases=["prompt schedule", "batch prompt schedule", "prompt interpolation", "keyframe prompts"],
            has_intermediate_output=True,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The MODEL that is sampled. Those that take one prompt for a whole clip (Wan, LTX-Video, Hunyuan "
                    "Video, …) are refused.",
                ),
                io.Clip.Input("clip", tooltip="The CLIP output of the loader that the MODEL came from."),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    dynamic_prompts=True,
                    default="0: a red ball on grass\n-1: a blue ball on grass",
                    tooltip="A line for each prompt, with its frame (0 is the first, -1 the last) or second: 0: a red ball, "
                    "40: a green ball, 3.5s: a blue ball. Weights, (word:1.3), and embeddings as everywhere.",
                ),
                io.Int.Input("length", default=80, min=1, max=4096, tooltip="Frames of the clip."),
                fps_widget("Frames a second, for times in seconds."),
                io.Combo.Input(
                    "interpolation",
                    options=list(SHAPES),
                    default="linear",
                    tooltip="Between two prompts. linear: evenly. smooth: slowly at both. step: the earlier until the later.",
                ),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, model, clip, prompts: str, length: int, fps: float, interpolation: str) -> io.NodeOutput:
        if model.get_model_object("latent_format").latent_dimensions != 2:
            raise ValueError(
                f"this MODEL ({type(model.model).__name__}) makes a whole clip from one prompt, so its prompt cannot "
                "change over time. Use a MODEL whose frames lie in the batch, such as an inflated image model, or sample "
                "the parts one after the other."
            )
        if len(prompts) > MOST:
            raise ValueError(f"the prompts have {len(prompts):,} characters together; at most {MOST:,} are taken.")
        frames, texts = zip(*parse_travel(prompts, length, fps), strict=True)
        weights = travel_weights(frames, length, interpolation)
        # With scheduled hooks a prompt has several entries, for all prompts of a CLIP the same.
        entries = []
        for text in texts:
            device.stop_if_interrupted()
            entries.append(encoded(clip, text))
        schedules = zip(*entries, strict=True)
        shown = {"lumiere_prompts": (plan(frames, texts, weights),)} if live.watched() else None
        return io.NodeOutput([mixed(entries, weights) for entries in schedules], ui=shown)


def plan(frames: Sequence[float], texts: Sequence[str], weights: Tensor) -> dict[str, Any]:
    """Return what the node shows: each prompt, its frame, and how much it counts along the clip.

    Args:
        weights: (frames, prompts), each row sums to 1.
    """
    length = len(weights)
    drawn = torch.linspace(0, length - 1, min(DRAWN, length)).round().long()
    shares = weights[drawn].T.mul(1000).round().div(1000).tolist()
    prompts = [{"frame": f, "text": t, "shares": s} for f, t, s in zip(frames, texts, shares, strict=True)]
    return {"length": length, "prompts": prompts}


def mixed(entries: tuple, weights: Tensor) -> list:
    """Return an entry of a CONDITIONING with a row for each frame, from those of the prompts.

    `weights` is (frames, prompts).

    Raises:
        ValueError: the text encoder makes something that cannot be mixed.
    """
    states = [entry[0] for entry in entries]
    count = min(LONGEST, math.lcm(*(state.shape[1] for state in states)))
    values = dict(entries[0][1])
    for key, value in values.items():
        others = [entry[1].get(key) for entry in entries]
        if key in TEXT_OF_ALL and all(map(torch.is_tensor, others)):
            values[key] = mix_rows(others, weights)
        elif torch.is_tensor(value) and not all(torch.is_tensor(v) and torch.equal(v, value) for v in others):
            raise ValueError(f"the text encoder of this CLIP makes {key!r}, which cannot change over time.")
    return [mix_rows([repeated(state, count) for state in states], weights), values]


def repeated(states: Tensor, count: int) -> Tensor:
    """Return (1, count, d) text states: attention does not change when all of them come equally often."""
    return states.repeat(1, -(-count // states.shape[1]), 1)[:, :count]
