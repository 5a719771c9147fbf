"""Making a clip larger, and the windows that keep memory bounded, as nodes (Lumiere §3.2)."""

from __future__ import annotations

import logging

import comfy.model_base
import comfy.model_management as model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import node_helpers
import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..lumiere_core.clips.video import clip_count
from ..lumiere_core.diffusion.multidiffusion import OVERLAP, WEIGHTINGS
from ..lumiere_core.diffusion.upscale import NOISES, noise_numbers
from .host.inflate import inflation_of
from .host.keys import GRAIN
from .host.noise import ClipNoise
from .host.ssr_model import LumiereSSRModel
from .host.windows import Windows, with_windows

CONTEXT_LENGTH = 16


def _window_inputs() -> list:
    return [
        io.Int.Input(
            "context_length",
            default=CONTEXT_LENGTH,
            min=1,
            max=4096,
            tooltip="Frames of a window: what the network sees at once, and what decides the memory. A clip that is no "
            "longer is one window.",
        ),
        io.Int.Input(
            "context_overlap",
            default=OVERLAP,
            min=0,
            max=4095,
            tooltip="Frames that neighbouring windows share and whose answers are averaged at every step. 2 in the paper; "
            "must be less than context_length.",
        ),
        io.Combo.Input(
            "weighting",
            options=list(WEIGHTINGS),
            default=WEIGHTINGS[0],
            tooltip="uniform: plain average, as in the paper. tapered: a frame counts less towards the ends of its window.",
        ),
    ]


class LumiereTemporalMultidiffusion(io.ComfyNode):
    """MODEL to MODEL: denoise in windows."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereTemporalMultidiffusion",
            display_name="Lumiere Temporal Multidiffusion",
            category="lumiere/sampling",
            description="Makes any sampler denoise a clip in overlapping windows of frames that are averaged at every "
            "step, so that memory depends on the window, not on the clip. For every MODEL with frames in the batch "
            "(image models with motion layers, Lumiere) or with 5-D video latents.",
            search_aliases=["context windows", "long video", "sliding window", "multidiffusion"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="Any video MODEL. One whose frames do not see each other gains nothing."
                ),
                *_window_inputs(),
                io.Boolean.Input(
                    "closed_loop",
                    default=False,
                    tooltip="Windows also span the end and the beginning of the clip, for clips that loop.",
                ),
                io.Boolean.Input(
                    "anchor_frame",
                    default=False,
                    optional=True,
                    tooltip="A window that begins mid-clip also sees the frame before it, whose answer is left out. For models "
                    "with causal VAEs (Wan, Hunyuan, LTX, Cosmos), whose first latent is unlike the rest: without it every "
                    "window looks like the start of a scene.",
                ),
                io.Boolean.Input(
                    "retain_first",
                    default=False,
                    optional=True,
                    tooltip="A window that begins mid-clip also sees the clip's first frame, instead of the frame before it, and "
                    "what its prompts say of that frame. For image-to-video models, whose start image is in the first frame.",
                ),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(
        cls,
        model,
        context_length: int,
        context_overlap: int,
        weighting: str,
        closed_loop: bool,
        anchor_frame: bool = False,
        retain_first: bool = False,
    ) -> io.NodeOutput:
        windows = Windows(context_length, context_overlap, weighting, closed_loop, anchor_frame, retain_first)
        return io.NodeOutput(with_windows(model, windows))


class LumiereSuperResolution(io.ComfyNode):
    """Small clip to large clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereSuperResolution",
            display_name="Lumiere Super Resolution",
            category="lumiere/sampling",
            description="Makes a clip larger (lumiere-mini-ssr: 4 times) in overlapping windows of frames that are "
            "averaged at every step, so that no seams show in time. Any number of frames and any size.",
            search_aliases=["upscale video", "ssr", "upscale", "hd"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A super-resolution MODEL: Load Lumiere with lumiere-mini-ssr, or the SD x4 upscaler.",
                ),
                io.Image.Input("image", tooltip="The small clip, all of its frames."),
                io.Conditioning.Input("positive", tooltip="What the clip shows; may be the empty prompt."),
                io.Conditioning.Input("negative", tooltip="Used where cfg is not 1."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Of the noise, which never depends on the length of the clip.",
                ),
                io.Int.Input("steps", default=4, min=1, max=10000, tooltip="Denoising steps."),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Classifier-free guidance scale. 1 is none and twice as fast.",
                ),
                io.Combo.Input("sampler_name", options=comfy.samplers.SAMPLER_NAMES, default="euler"),
                io.Combo.Input("scheduler", options=comfy.samplers.SCHEDULER_NAMES, default="karras"),
                *_window_inputs(),
                io.Float.Input(
                    "noise_augmentation",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=0.001,
                    tooltip="Share of the largest trained noise that is put on the small clip. More lets the network depart "
                    "further from it: for clips with artefacts.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Only for a MODEL that works on latents (SD x4 upscaler): decodes the result, window by window.",
                ),
                io.Combo.Input(
                    "noise",
                    options=list(NOISES),
                    default=NOISES[0],
                    optional=True,
                    tooltip="With the same noise in all frames, what stands still comes out nearly still. New noise in each frame lets "
                    "fine texture change from frame to frame.",
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(
        cls,
        model,
        image: Tensor,
        positive,
        negative,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        context_length: int,
        context_overlap: int,
        weighting: str,
        noise_augmentation: float,
        vae=None,
        noise: str = NOISES[0],
    ) -> io.NodeOutput:
        scale = _scale(model, vae)
        windows = Windows(context_length, context_overlap, weighting)
        model = with_windows(model, windows)
        low = image[..., :3].movedim(-1, 1) * 2 - 1
        frames, _, height, width = low.shape
        logging.info(
            f"Lumiere: enlarging {frames} frames from {width}x{height} to {width * scale}x{height * scale} pixels."
        )
        inflation = inflation_of(model)
        per_clip = (inflation.frames_per_clip if inflation else 0) or frames
        drawn = ClipNoise(seed, clip_count(frames, per_clip), per_clip, noise_numbers(noise, per_clip))
        values = {"concat_image": low, "noise_augmentation": noise_augmentation, GRAIN: drawn.numbers}
        positive, negative = (node_helpers.conditioning_set_values(c, values) for c in (positive, negative))
        # One number stretched to the size: an empty clip needs no memory.
        latent = torch.zeros(1).expand(_latent_shape(model, low, scale))
        sigmas = comfy.samplers.KSampler(
            model, steps, model.load_device, sampler_name, scheduler, 1.0, model.model_options
        ).sigmas
        samples = comfy.sample.sample_custom(
            model,
            drawn.initial(latent),
            cfg,
            drawn.sampler(sampler_name),
            sigmas,
            positive,
            negative,
            latent,
            callback=latent_preview.prepare_callback(model, len(sigmas) - 1),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )
        if vae is None:
            return io.NodeOutput(samples.add_(1).div_(2).clamp_(0, 1).movedim(1, -1))
        return io.NodeOutput(_decode(vae, samples, context_length))


def _scale(model, vae) -> int:
    """Return how many times larger a MODEL makes a clip.

    Raises:
        ValueError: it is no super-resolution MODEL, or has not the VAE that it needs.
    """
    network = model.model
    if isinstance(network, LumiereSSRModel):
        if vae is not None:
            raise ValueError("this super-resolution MODEL works on pixels and needs no vae: disconnect the vae input.")
        return network.ssr.scale
    if isinstance(network, comfy.model_base.SD_X4Upscaler):
        if vae is None:
            raise ValueError(
                "this MODEL (SD x4 upscaler) works on latents: connect the VAE of its checkpoint to the vae input."
            )
        return 4
    raise ValueError(
        f"this MODEL ({type(network).__name__}) makes new clips or images and cannot enlarge one. Connect a "
        "super-resolution MODEL: that of Load Lumiere with lumiere-mini-ssr, or of a checkpoint that `train ssr` wrote."
    )


def _latent_shape(model, low: Tensor, scale: int) -> tuple[int, ...]:
    latents = model.get_model_object("latent_format")
    size = [side * scale for side in low.shape[-2:]]
    if isinstance(model.model, comfy.model_base.SD_X4Upscaler):
        size = [side // 4 for side in size]  # its VAE's factor
    return (low.shape[0], latents.latent_channels, *size)


def _decode(vae, samples: Tensor, frames: int) -> Tensor:
    """Decode latents a few frames at a time into one IMAGE."""
    result, bar = None, comfy.utils.ProgressBar(samples.shape[0])
    for start in range(0, samples.shape[0], frames):
        model_management.throw_exception_if_processing_interrupted()
        part = vae.decode(samples[start : start + frames])
        if result is None:
            result = part.new_empty((samples.shape[0], *part.shape[1:]))
        result[start : start + frames] = part
        bar.update(len(part))
    return result
