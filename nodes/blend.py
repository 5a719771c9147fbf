"""Fitting what a model made to what was given, before the paste-back."""

from __future__ import annotations

import logging

import comfy.model_management as model_management
import comfy.utils
import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..lumiere_core.blend import REACH, TOLERANCE, blend_known
from ..lumiere_core.conditioning import Condition
from ..lumiere_core.video import images_to_video, video_to_images
from .builder import colours
from .condition import generated

BYTES = 4 * 28  # of all that is held for a pixel of a frame, at the peak


class LumiereBlendKnown(io.ComfyNode):
    """Made clip, condition and mask to a clip without seams."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereBlendKnown",
            display_name="Lumiere Blend Known",
            category="lumiere",
            description="Corrects the colours of what was made so that it meets what was given: no seam at the mask's "
            "border, no jump after a given frame. For clips of any model. Image Composite Masked comes after it.",
            search_aliases=["poisson blending", "color match", "seam", "harmonize", "first frame flash"],
            inputs=[
                io.Image.Input("images", tooltip="The clip that was made: all its frames, as they left VAE Decode."),
                io.Image.Input("condition", tooltip="All frames of the clip that was given, of the same size."),
                io.Mask.Input(
                    "mask",
                    tooltip="More than 0 where the clip was generated; one for all frames, or one for each.",
                ),
                io.Int.Input(
                    "reach", default=REACH, min=0, max=10000,
                    tooltip="Steps in which the correction spreads and fades: 100 are felt over some ten frames, four times as "
                    "many twice as far. 0: only where both meet.",
                ),
                io.Float.Input(
                    "tolerance", default=TOLERANCE, min=0.01, max=1.0, step=0.01,
                    tooltip="Where both sides differ by more than this share of the range from black to white, they are "
                    "taken for a real edge, and stay. More corrects more; too much leaves ghosts behind what moves.",
                ),
            ],
            outputs=[io.Image.Output()],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, images: Tensor, condition: Tensor, mask: Tensor, reach: int, tolerance: float
    ) -> io.NodeOutput:
        images, condition = colours(images), colours(condition)
        if images.shape != condition.shape:
            sizes = (f"{len(x)} frames of {x.shape[2]}x{x.shape[1]}" for x in (images, condition))
            raise ValueError(
                "images is {} and condition {}; the same is wanted. Give the clip as it left VAE Decode, before it is "
                "enlarged, and the condition that it was made from.".format(*sizes)
            )
        known = 1 - generated(condition, mask)
        bar = comfy.utils.ProgressBar(max(1, reach))

        def on_step(number: int) -> None:
            model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(number + 1)

        def blend(device: torch.device) -> Tensor:
            given = Condition(images_to_video(condition).to(device), known[None, None].to(device))
            clip = images_to_video(images).to(device)
            return blend_known(clip, given, reach, tolerance, on_step=on_step)

        device = model_management.get_torch_device()
        model_management.free_memory(BYTES * known.numel(), device)
        try:
            made = blend(device)
        except model_management.OOM_EXCEPTION:
            logging.warning(
                "Lumiere: not enough memory to blend on the GPU; it goes on on the CPU."
            )
            model_management.soft_empty_cache()
            made = blend(torch.device("cpu"))
        return io.NodeOutput(video_to_images(made.to(images.device)))
