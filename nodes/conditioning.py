"""Giving a model what is known of a clip, and fitting what it made to that."""

from __future__ import annotations

import logging

import comfy.model_management as model_management
import comfy.utils
import node_helpers
import torch
import torch.nn.functional as F
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..lumiere_core.clips.blend import REACH, TOLERANCE, blend_known
from ..lumiere_core.clips.conditioning import Condition
from ..lumiere_core.clips.video import images_to_video, video_to_images
from .condition_builder import BLANK, colours
from .host.run import NEEDS_CONDITION

BYTES = 4 * 28  # of all that is held for a pixel of a frame, at the peak


class LumiereApplyCondition(io.ComfyNode):
    """Condition clip and mask into the conditioning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereApplyCondition",
            display_name="Lumiere Apply Condition",
            category="lumiere/conditioning",
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
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="A latent of the same length and size, such as that of Empty Lumiere Latent Video. A bypassed node "
                    "hands it on, so bypass shows the clip without the condition. What it holds where the mask is not 0 "
                    "is what denoise below 1 begins with.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(display_name="latent"),
            ],
        )

    @classmethod
    def execute(
        cls, positive, negative, vae, condition: Tensor, mask: Tensor, latent: dict | None = None
    ) -> io.NodeOutput:
        condition = colours(condition)
        if vae.latent_dim != 2:
            raise ValueError(
                "this VAE makes latents of whole videos, and Lumiere's models take frames as a batch of images. "
                "For another video model use its own node, such as WanVaceToVideo; the builder's outputs fit it."
            )
        made = generated(condition, mask)
        blanked = torch.where(made[..., None] > 0.5, condition.new_tensor(BLANK), condition)
        known = {"concat_latent_image": vae.encode(blanked), "concat_mask": made[:, None], NEEDS_CONDITION: True}
        prompts = (node_helpers.conditioning_set_values(prompt, known) for prompt in (positive, negative))
        samples = vae.encode(condition)
        if latent is not None:
            samples = begun(samples, latent, made)
        return io.NodeOutput(*prompts, {"samples": samples, "noise_mask": made[:, None]})


def begun(samples: Tensor, latent: dict, made: Tensor) -> Tensor:
    """Return the latents of a condition with those of another clip where it is to be generated.

    Args:
        samples: (t, c, h, w) of the condition.
        latent: LATENT of the other clip; an empty one changes nothing.
        made: (t, height, width) in pixels, 1 where the clip is to be generated.

    Raises:
        ValueError: the other clip has another length or size.
    """
    other = latent["samples"]
    empty = "downscale_ratio_spacial" in latent  # zeros in pixels: the sampler would bring them to the model's size
    height, width = made.shape[1:] if empty else samples.shape[2:]
    if other.ndim != 4 or (len(other), *other.shape[2:]) != (len(samples), height, width):
        unit = "pixels" if empty else "latent pixels"
        raise ValueError(
            f"the latent has {len(other)} frames of {other.shape[-1]}x{other.shape[-2]} {unit} and the condition "
            f"{len(samples)} of {width}x{height}; the same is wanted. Set width, height and length of both nodes alike."
        )
    if empty:
        return samples
    cells = F.adaptive_max_pool2d(made[:, None].to(samples), samples.shape[2:])
    return torch.where(cells > 0, other.to(samples), samples)


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
        raise ValueError(f"the condition is {width}x{height} pixels; multiples of 8 are wanted. Scale or crop it.")
    made = (mask > 0).to(condition.dtype).expand(frames, -1, -1)
    if not bool(made.any()):
        raise ValueError(
            "there is nothing to generate: the mask is 0 everywhere. It must be more than 0 where the clip is to be "
            "made; invert it if it means the opposite."
        )
    if bool(made.all()):
        logging.warning("Lumiere: the mask is 1 everywhere, so nothing of the clip is known.")
    return made


class LumiereBlendKnown(io.ComfyNode):
    """Made clip, condition and mask to a clip without seams."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereBlendKnown",
            display_name="Lumiere Blend Known",
            category="lumiere/conditioning",
            description="Corrects the colours of what was made so that it meets what was given: no seam at the mask's "
            "border, no jump after a given frame. For clips of any model. Image Composite Masked comes after it.",
            search_aliases=["poisson blending", "color match", "seam", "harmonize", "first frame flash"],
            inputs=[
                io.Image.Input("images", tooltip="The clip that was made: all its frames, as they left VAE Decode."),
                io.Image.Input("condition", tooltip="All frames of the clip that was given, of the same size."),
                io.Mask.Input(
                    "mask", tooltip="More than 0 where the clip was generated; one for all frames, or one for each."
                ),
                io.Int.Input(
                    "reach",
                    default=REACH,
                    min=0,
                    max=10000,
                    tooltip="Steps in which the correction spreads and fades: 100 are felt over some ten frames, four times as "
                    "many twice as far. 0: only where both meet.",
                ),
                io.Float.Input(
                    "tolerance",
                    default=TOLERANCE,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Where both sides differ by more than this share of the range from black to white, they are "
                    "taken for a real edge, and stay. More corrects more; too much leaves ghosts behind what moves.",
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, images: Tensor, condition: Tensor, mask: Tensor, reach: int, tolerance: float) -> io.NodeOutput:
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
            logging.warning("Lumiere: not enough memory to blend on the GPU; it goes on on the CPU.")
            model_management.soft_empty_cache()
            made = blend(torch.device("cpu"))
        return io.NodeOutput(video_to_images(made.to(images.device)))
