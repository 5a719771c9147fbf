"""Making a clip larger, and the windows that keep memory bounded, as nodes (Lumiere §3.2)."""

from __future__ import annotations

import logging

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..lumiere_core.clips.video import check_pixels, clip_count
from ..lumiere_core.diffusion.multidiffusion import OVERLAP, WEIGHTINGS
from ..lumiere_core.diffusion.upscale import NOISES, check_noise, noise_numbers
from .host import device, sampling, upscaler
from .host.inflate import inflation_of
from .host.keys import GRAIN
from .host.loop import with_loop
from .host.noise import ClipNoise
from .host.windows import Windows, with_windows
from .sampling import check_prompts
from .widgets import sampling_widgets

NUMBERS = 2 * 3  # of a pixel of the large clip: its colours, as sampled and as put out
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
                    tooltip="For clips that loop: windows also span the end and the beginning of the clip, and a clip of one "
                    "window is made as by Lumiere Loop.",
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
        windows = Windows(
            context_length,
            context_overlap,
            weighting,
            closed_loop=closed_loop,
            anchor_frame=anchor_frame,
            retain_first=retain_first,
        )
        return io.NodeOutput(with_windows(with_loop(model) if closed_loop else model, windows))


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
                *sampling_widgets(
                    seed="Of the noise, which never depends on the length of the clip.",
                    steps="Denoising steps.",
                    cfg="Classifier-free guidance scale. 1 is none and twice as fast.",
                    default_steps=4,
                    default_cfg=1.0,
                ),
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
                    "fine texture change from frame to frame; it is for a MODEL without temporal layers, or with layers that were "
                    "trained with it, and refused for others, such as lumiere-mini-ssr.",
                ),
                io.Int.Input(
                    "back_projection",
                    default=upscaler.OF_MODEL,
                    min=upscaler.OF_MODEL,
                    max=100,
                    optional=True,
                    tooltip="Times that what the result, made small again, lacks of the small clip is enlarged and added to it. -1: as "
                    "the MODEL's file says. 0: none, for clips with artefacts that must not come back.",
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
        back_projection: int = upscaler.OF_MODEL,
    ) -> io.NodeOutput:
        scale = upscaler.scale_of(model, vae)
        check_prompts(positive, negative, cfg)
        low = pixels(image).movedim(-1, 1) * 2 - 1
        frames, _, height, width = low.shape
        inflation = inflation_of(model)
        per_clip = (inflation.frames_per_clip if inflation else 0) or frames
        check_noise(noise, inflation and inflation.temporal_config, min(context_length, per_clip))
        device.check_room(frames, height * scale, width * scale, NUMBERS)
        model = with_windows(model, Windows(context_length, context_overlap, weighting))
        logging.info(
            f"Lumiere: enlarging {frames} frames from {width}x{height} to {width * scale}x{height * scale} pixels."
        )
        numbers = noise_numbers(noise, per_clip)
        drawn = ClipNoise.of_clips(seed, clip_count(frames, per_clip), per_clip, numbers)
        values = {"concat_image": low, "noise_augmentation": noise_augmentation, GRAIN: numbers}
        positive, negative = ([[t, {**kept, **values}] for t, kept in prompt] for prompt in (positive, negative))
        # One number stretched to the size: an empty clip needs no memory.
        latent = torch.zeros(1).expand(upscaler.latent_shape(model, low.shape, scale))
        sigmas = sampling.sigmas_of(model, steps, sampler_name, scheduler)
        samples = sampling.sample(
            model,
            drawn,
            sampler_name,
            sigmas=sigmas,
            samples=latent,
            positive=positive,
            negative=negative,
            cfg=cfg,
            seed=seed,
        )
        if vae is None:
            large = samples.float().add_(1).div_(2).clamp_(0, 1)
        else:
            large = upscaler.decode(vae, samples, context_length).movedim(-1, 1)
        iterations = upscaler.back_projection_of(model, back_projection)
        return io.NodeOutput(upscaler.kept_to(large, low, iterations).movedim(1, -1))


def pixels(image: Tensor) -> Tensor:
    """Return the colours (t, h, w, 3) of an IMAGE in float32: grey for one channel, without alpha for more than three.

    Raises:
        ValueError: it has no frames, no pixels, or two channels.
    """
    check_pixels(image, "image")
    if image.shape[-1] == 2:
        raise ValueError("image has 2 channels; 1 (grey), 3 (RGB) or 4 (RGBA) are wanted.")
    return image[..., :3].float().expand(-1, -1, -1, 3)
