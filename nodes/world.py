"""Clips of the procedural world that lumiere-mini was trained on: something to start from without any file."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io

from ..lumiere_core import world
from ..lumiere_core.clips.video import to_uint8
from .host import device, live, preview
from .widgets import size_widgets

NUMBERS = 3 * 4  # of a pixel: colours and mask, at once in parts, their sum and levels


class LumiereWorldClip(io.ComfyNode):
    """A drawn clip, and the mask of its object."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereWorldClip",
            display_name="Draw World Clip (Lumiere)",
            category="lumiere/video",
            description="Draws a clip of the small world that lumiere-mini knows, with the mask of its main object. "
            "Something to try the other nodes on; use Load Image or Load Video for your own.",
            has_intermediate_output=True,
            search_aliases=["example", "test clip", "procedural"],
            inputs=[
                io.String.Input(
                    "prompt",
                    default="a red ball moving right on grass",
                    multiline=True,
                    tooltip="What it shows: a colour, a shape, a motion, a background; or a scene such as fireworks. Words "
                    "it does not know are passed over.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Chooses what the prompt leaves open, such as sizes and places.",
                ),
                *size_widgets("Pixels."),
                io.Int.Input("length", default=80, min=1, max=4096, tooltip="Frames; 1 is a still picture."),
                io.Float.Input(
                    "fps",
                    default=16.0,
                    min=0.1,
                    max=1000.0,
                    step=0.01,
                    tooltip="Frames a second. What is drawn moves for 5 seconds.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images"),
                io.Mask.Output(display_name="mask", tooltip="1 on the main object; empty where there is none."),
            ],
        )

    @classmethod
    def execute(cls, prompt: str, seed: int, width: int, height: int, length: int, fps: float) -> io.NodeOutput:
        scene = world.scene_from_caption(prompt, seed)
        device.check_room(length, height, width, NUMBERS)
        clip, cover = world.render_clip(
            scene, length, fps, height=height, width=width, masks=True, on_part=device.stop_if_interrupted
        )
        # Whole levels of 256, as in a file.
        images = to_uint8(clip).to(torch.float32) / 255.0
        return io.NodeOutput(images, cover[0], ui=preview.shown_clip(images, fps) if live.watched() else None)
