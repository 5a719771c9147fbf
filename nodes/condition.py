"""Giving a model what is known of a clip."""

from __future__ import annotations

import logging

import node_helpers
import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from .builder import BLANK, colours
from .run import NEEDS_CONDITION


class LumiereApplyCondition(io.ComfyNode):
    """Condition clip and mask into the conditioning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereApplyCondition",
            display_name="Lumiere Apply Condition",
            category="lumiere",
            description="Gives the model a clip of which something is known: adds it to the prompts, and makes the "
            "latent to sample, in which only the rest is made.",
            search_aliases=["inpaint model conditioning", "image to video", "masked video"],
            inputs=[
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Vae.Input("vae", tooltip="The VAE of the loader that the MODEL came from."),
                io.Image.Input("condition", tooltip="All frames of the clip; anything where it is not known."),
                io.Mask.Input(
                    "mask",
                    tooltip="More than 0 where the clip is to be generated; one for all frames, or one for each.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(display_name="latent"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, positive, negative, vae, condition: Tensor, mask: Tensor) -> io.NodeOutput:
        condition = colours(condition)
        if vae.latent_dim != 2:
            raise ValueError(
                "this VAE makes latents of whole videos, and Lumiere's models take frames as a batch of images. "
                "For another video model use its own node, such as WanVaceToVideo; the builder's outputs fit it."
            )
        made = generated(condition, mask)
        blanked = torch.where(made[..., None] > 0.5, condition.new_tensor(BLANK), condition)
        known = {
            "concat_latent_image": vae.encode(blanked),
            "concat_mask": made[:, None],
            NEEDS_CONDITION: True,
        }
        prompts = (
            node_helpers.conditioning_set_values(prompt, known) for prompt in (positive, negative)
        )
        latent = {"samples": vae.encode(condition), "noise_mask": made[:, None]}
        return io.NodeOutput(*prompts, latent)


def generated(condition: Tensor, mask: Tensor) -> Tensor:
    """Return (t, h, w), 1 where the clip is to be generated: wherever the mask is not 0.

    A feathered edge is generated too, so that the paste-back mixes it with what was there.

    Raises:
        ValueError: the mask belongs to another clip, or leaves nothing to generate.
    """
    mask = mask.reshape(-1, *mask.shape[-2:])
    (frames, height, width), masks = condition.shape[:3], len(mask)
    if masks not in (1, frames) or mask.shape[1:] != (height, width):
        raise ValueError(
            f"the mask is {masks} x {mask.shape[2]}x{mask.shape[1]} (frames x width x height) and the condition "
            f"{frames} x {width}x{height}; the same size is wanted, and one mask or one for each frame. "
            "Make both with Lumiere Condition Builder."
        )
    if height % 8 or width % 8:
        raise ValueError(
            f"the condition is {width}x{height} pixels; multiples of 8 are wanted. Scale or crop it."
        )
    made = (mask > 0).to(condition.dtype).expand(frames, -1, -1)
    if not bool(made.any()):
        raise ValueError(
            "there is nothing to generate: the mask is 0 everywhere. It must be more than 0 where the clip is to be "
            "made; invert it if it means the opposite."
        )
    if bool(made.all()):
        logging.warning("Lumiere: the mask is 1 everywhere, so nothing of the clip is known.")
    return made
