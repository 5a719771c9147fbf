"""Sampling whole clips: an empty clip, and a KSampler whose noise does not depend on the clip's length."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable

import comfy.model_management as model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..lumiere_core import guidance
from ..lumiere_core.noise import COMMON, frame_noise, frame_seed, mix_noise
from ..lumiere_core.video import clip_count
from .inflate import inflation_of
from .run import OWN_NOISE

# These draw their noise from one random path over all noise levels, not step by step.
BROWNIAN = ("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde")


class EmptyLumiereLatentVideo(io.ComfyNode):
    """Frames as a batch of pixels."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyLumiereLatentVideo",
            display_name="Empty Lumiere Latent Video",
            category="lumiere",
            description="An empty clip to be sampled. Frames lie in the batch axis. Works with every image model that "
            "was inflated too: the sampler converts it to the model's latent size.",
            search_aliases=["empty latent", "video size", "number of frames"],
            inputs=[
                io.Int.Input(
                    "width", default=64, min=16, max=4096, step=8,
                    tooltip="Pixels. lumiere-mini was trained on 64.",
                ),
                io.Int.Input(
                    "height", default=64, min=16, max=4096, step=8,
                    tooltip="Pixels. lumiere-mini was trained on 64.",
                ),
                io.Int.Input(
                    "length", default=80, min=1, max=4096,
                    tooltip="Frames of a clip: 80 are 5 seconds at 16 frames a second. Any number works; 1 is a still "
                    "image made without the temporal layers.",
                ),
                io.Int.Input(
                    "batch_size", default=1, min=1, max=64,
                    tooltip="Clips. For more than one, set frames_per_clip of the loader to length.",
                ),
            ],
            outputs=[io.Latent.Output()],
        )  # fmt: skip

    @classmethod
    def execute(cls, width: int, height: int, length: int, batch_size: int) -> io.NodeOutput:
        samples = torch.zeros(
            [batch_size * length, 3, height, width], device=model_management.intermediate_device()
        )
        # The key tells the host how to turn an empty clip into the latent size of any model.
        return io.NodeOutput({"samples": samples, "downscale_ratio_spacial": 1})


class LumiereSampler(io.ComfyNode):
    """KSampler for clips."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereSampler",
            display_name="Lumiere Sampler",
            category="lumiere",
            description="Samples clips like KSampler does, with noise that depends on the seed and the number of the "
            "frame only: a longer clip with the same seed begins with the same noise.",
            search_aliases=["ksampler", "text to video", "sample video"],
            inputs=[
                io.Model.Input("model", tooltip="A MODEL with temporal layers, such as that of Load Lumiere."),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                    tooltip="Clip k of a batch uses seed + k.",
                ),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="Denoising steps."),
                io.Float.Input(
                    "cfg", default=3.0, min=0.0, max=100.0, step=0.1, round=0.01,
                    tooltip="Classifier-free guidance scale: how much the prompt counts. 1 is none and twice as fast.",
                ),
                io.Combo.Input("sampler_name", options=comfy.samplers.SAMPLER_NAMES, default="euler"),
                io.Combo.Input("scheduler", options=comfy.samplers.SCHEDULER_NAMES, default="karras"),
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Latent.Input("latent_image", tooltip="The clip to denoise; frames in the batch axis."),
                io.Float.Input(
                    "denoise", default=1.0, min=0.0, max=1.0, step=0.01,
                    tooltip="1 makes a new clip; less keeps that much of latent_image's structure (SDEdit).",
                ),
                io.Float.Input(
                    "dynamic_threshold", default=0.0, min=0.0, max=1.0, step=0.005, round=0.001,
                    tooltip="Percentile of dynamic thresholding (Imagen §2.3), such as 0.995: keeps the clean estimate of "
                    "a clip in [-1, 1] at high cfg. 0 and 1 turn it off. For models that work on pixels.",
                ),
            ],
            outputs=[io.Latent.Output()],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, seed: int, steps: int, cfg: float, sampler_name: str, scheduler: str, positive, negative,
        latent_image: dict, denoise: float, dynamic_threshold: float,
    ) -> io.NodeOutput:  # fmt: skip
        samples = comfy.sample.fix_empty_latent_channels(
            model,
            latent_image["samples"],
            latent_image.get("downscale_ratio_spacial"),
            latent_image.get("downscale_ratio_temporal"),
        )
        inflation = inflation_of(model)
        frames = (inflation.frames_per_clip if inflation else 0) or samples.shape[0]
        clips = clip_count(samples.shape[0], frames)
        share = inflation.temporal_config.shared_noise if inflation and frames > 1 else 0.0
        noise = ClipNoise(seed, clips, frames, share=share)
        model = with_own_noise(model)
        if 0 < dynamic_threshold < 1:
            model = with_dynamic_threshold(model, dynamic_threshold, frames)
        sigmas = comfy.samplers.KSampler(
            model, steps, model.load_device, sampler_name, scheduler, denoise, model.model_options
        ).sigmas
        result = comfy.sample.sample_custom(
            model,
            noise.initial(samples),
            cfg,
            noise.sampler(sampler_name),
            sigmas,
            positive,
            negative,
            samples,
            noise_mask=latent_image.get("noise_mask"),
            callback=latent_preview.prepare_callback(model, len(sigmas) - 1),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )
        out = {k: v for k, v in latent_image.items() if not k.startswith("downscale_ratio")}
        return io.NodeOutput({**out, "samples": result})


class ClipNoise:
    """All noise of one run: that of a frame depends on the seed, the step and the frame's number only.

    Args:
        seed: of the first clip; clip k has seed + k.
        clips, frames: of the batch, clip-major.
        numbers: of the frames whose noise each frame of a clip gets; None = its own.
        share: of the variance, what all frames of a clip have in common.
    """

    def __init__(
        self, seed: int, clips: int, frames: int, numbers: list[int] | None = None,
        share: float = 0.0,
    ) -> None:  # fmt: skip
        self.seeds, self.numbers = [seed + k for k in range(clips)], numbers or list(range(frames))
        self.share = share

    def at_step(self, shape: torch.Size, step: int) -> Tensor:
        """Return (clips * frames, c, h, w) noise on the CPU; step 0 is the initial noise."""
        size = tuple(shape[1:])
        return torch.cat([frame_noise(s, self.numbers, size, step, self.share) for s in self.seeds])

    def initial(self, samples: Tensor) -> Tensor:
        """Return the noise that the run starts from."""
        return self.at_step(samples.shape, 0)

    def sampler(self, name: str) -> comfy.samplers.KSAMPLER:
        """Return a sampler of the host that adds this noise, if it adds any."""
        sampler = comfy.samplers.sampler_object(name)
        function = sampler.sampler_function
        if "noise_sampler" in inspect.signature(function).parameters:
            source = self._path if name.removesuffix("_gpu") in BROWNIAN else self._steps

            @functools.wraps(function)
            def with_clip_noise(model, x, sigmas, **kwargs):
                return function(model, x, sigmas, noise_sampler=source(x, sigmas), **kwargs)

            sampler.sampler_function = with_clip_noise
        return sampler

    def _steps(self, x: Tensor, sigmas: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """New noise at every call; a sampler calls in the same order whatever the clip's length."""
        steps = itertools.count(1)
        return lambda sigma, following: self.at_step(x.shape, next(steps)).to(x)

    def _path(self, x: Tensor, sigmas: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """One random path for each frame, over all noise levels, and one for what a clip's frames have in common."""
        seeds = [frame_seed(s, frame, 1) for s in self.seeds for frame in self.numbers]
        low, high = sigmas[sigmas > 0].min(), sigmas.max()
        own = BrownianTreeNoiseSampler(x, low, high, seed=seeds, cpu=True)
        if not self.share:
            return own
        frames = len(self.numbers)
        seeds = [frame_seed(s, COMMON, 1) for s in self.seeds]
        common = BrownianTreeNoiseSampler(x[::frames], low, high, seed=seeds, cpu=True)
        return lambda *sigma: mix_noise(
            own(*sigma), common(*sigma).repeat_interleave(frames, 0), self.share
        )


def with_own_noise(model):
    """Return a clone of a MODEL whose run starts from the noise given, whatever its temporal layers have in common."""
    model = model.clone()
    model.model_options["transformer_options"][OWN_NOISE] = True
    return model


def with_dynamic_threshold(model, percentile: float, frames: int):
    """Return a clone of a MODEL whose clean estimates are thresholded clip by clip.

    Raises:
        ValueError: the MODEL does not work on pixels.
    """
    channels = model.get_model_object("latent_format").latent_channels
    if channels != 3:
        raise ValueError(
            f"dynamic_threshold is {percentile}, but this MODEL works on latents of {channels} channels, which "
            "have no [-1, 1] to stay in. Set dynamic_threshold to 0."
        )

    def threshold(args: dict) -> Tensor:
        clips = args["denoised"].unflatten(0, (-1, frames))
        return guidance.dynamic_threshold(clips, percentile).flatten(0, 1)

    model = model.clone()
    model.set_model_sampler_post_cfg_function(threshold)
    return model
