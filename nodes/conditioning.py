"""Giving a model what is known of a clip, and fitting what it made to that."""

from __future__ import annotations

import logging

import node_helpers
import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..lumiere_core.clips.blend import REACH, TOLERANCE, blend_known
from ..lumiere_core.clips.conditioning import Condition
from ..lumiere_core.clips.masks import SHARE, is_known
from ..lumiere_core.clips.video import images_to_video, video_to_images
from .condition_builder import BLANK, colours
from .host import device as host_device
from .host.keys import NEEDS_CONDITION
from .host.latents import known_in_latent

# What a soft mask means, in every node; the paste-back mixes what was generated and what was there by it.
GENERATED = f"1 where the clip is to be generated. All above {SHARE} is: a feathered edge too."
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
                io.Mask.Input("mask", tooltip=f"{GENERATED} One for all frames, or one for each."),
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
        known = known_part(condition, mask)
        blanked = torch.where(is_known(known)[..., None], condition, condition.new_tensor(BLANK))
        samples = vae.encode(condition)
        cells = known_in_latent(vae, samples, known)
        given = {
            "concat_latent_image": vae.encode(blanked),
            "concat_mask": 1 - is_known(cells).to(cells),
            NEEDS_CONDITION: True,
        }
        prompts = (node_helpers.conditioning_set_values(prompt, given) for prompt in (positive, negative))
        if latent is not None:
            samples = begun(samples, latent, cells, known.shape[1:])
        return io.NodeOutput(*prompts, {"samples": samples, "noise_mask": 1 - cells})


def begun(samples: Tensor, latent: dict, known: Tensor, size: torch.Size) -> Tensor:
    """Return the latents of a condition with those of another clip where it is to be generated.

    Args:
        samples: (t, c, h, w) of the condition.
        latent: LATENT of the other clip; an empty one changes nothing.
        known: (t, 1, h, w), how much of each cell is known.
        size: height and width in pixels.

    Raises:
        ValueError: the other clip has another length or size.
    """
    other = latent["samples"]
    pixels = latent.get("downscale_ratio_spacial")  # an empty clip, which the sampler would bring to the model's size
    empty, ratio = pixels is not None, pixels or 1
    height, width = size if empty else samples.shape[2:]
    found = [side * ratio for side in other.shape[2:]]
    if other.ndim != 4 or (len(other), *found) != (len(samples), height, width):
        unit = "pixels" if empty else "latent pixels"
        raise ValueError(
            f"the latent has {len(other)} frames of {found[-1]}x{found[-2]} {unit} and the condition "
            f"{len(samples)} of {width}x{height}; the same is wanted. Set width, height and length of both nodes alike."
        )
    if empty:
        return samples
    if other.shape[1] != samples.shape[1]:
        raise ValueError(
            f"the latent has {other.shape[1]} channels and the VAE gives {samples.shape[1]}: it comes from another model's "
            "VAE. Connect a latent of this one."
        )
    return torch.where(is_known(known), samples, other.to(samples))


def known_part(condition: Tensor, mask: Tensor) -> Tensor:
    """Return (t, h, w), how much of a clip is known by the host's mask, as soft as that is.

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
    known = (1 - mask.float()).expand(frames, -1, -1)
    check_mask(known)
    return known


def check_mask(known: Tensor) -> None:
    """Warn if nothing is known; `known` is (t, h, w) or (n, 1, h, w).

    Raises:
        ValueError: all is known.
    """
    hard = is_known(known)
    if bool(hard.all()):
        raise ValueError(
            f"there is nothing to generate: the mask is 0 everywhere (nowhere more than {SHARE}). It must be 1 where the clip is to be "
            "made; invert it if it means the opposite."
        )
    if not bool(hard.any()):
        logging.warning(f"Lumiere: the mask is 1 everywhere (more than {SHARE}), so nothing of the clip is known.")


class LumiereMaskLatent(io.ComfyNode):
    """A noise mask that a latent of any VAE keeps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereMaskLatent",
            display_name="Lumiere Mask Latent",
            category="lumiere/latent",
            description="Sets the noise mask of a latent of any image or video model so that what is known stays exactly "
            "known. Set Latent Noise Mask interpolates the mask, which loses the first frame of video latents and thin "
            "masks.",
            search_aliases=["set latent noise mask", "video noise mask", "image to video mask", "first last frame"],
            inputs=[
                io.Latent.Input("latent", tooltip="The encoded clip or pictures, of any size."),
                io.Mask.Input(
                    "mask",
                    tooltip="1 where the clip is to be generated, in pixels: one mask for all frames, or one for each. A "
                    "cell of the latent, and a group of frames that a video VAE packs into one latent frame (1, then "
                    "4 and 4 in Wan), is generated whole if any part of it is: to keep the last frame, give all of its "
                    "group. Soft values stay soft, for Differential Diffusion.",
                ),
                io.Vae.Input("vae", tooltip="The VAE that the latent was made with; it says how large its cells are."),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, latent: dict, mask: Tensor, vae) -> io.NodeOutput:
        known = 1 - mask.reshape(-1, *mask.shape[-2:]).float()
        check_mask(known)
        cells = known_in_latent(vae, latent["samples"], known)
        if bool(is_known(known).any()) and not bool(is_known(cells).any()):
            logging.warning(
                "Lumiere: no cell of the latent is known as a whole, so all of it is generated. A video VAE packs "
                "several frames into one latent frame: give all frames of a group, and regions of whole cells."
            )
        return io.NodeOutput({**latent, "noise_mask": 1 - cells})


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
                    "mask",
                    tooltip="The mask that the clip was made with; 1 where it was generated. One for all frames, or one "
                    "for each.",
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
        known = known_part(condition, mask)
        bar = host_device.ProgressBar(max(1, reach))

        def on_step(number: int) -> None:
            host_device.stop_if_interrupted()
            bar.update_absolute(number + 1)

        def blend(device: torch.device) -> Tensor:
            given = Condition(images_to_video(condition).to(device), known[None, None].to(device))
            clip = images_to_video(images).to(device)
            return blend_known(clip, given, reach, tolerance, on_step=on_step)

        try:
            made = blend(host_device.make_room(BYTES * known.numel()))
        except host_device.OUT_OF_MEMORY:
            logging.warning("Lumiere: not enough memory to blend on the GPU; it goes on on the CPU.")
            host_device.empty_cache()
            made = blend(torch.device("cpu"))
        return io.NodeOutput(video_to_images(made.to(images.device)))
