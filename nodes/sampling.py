"""Sampling whole clips: an empty clip, and a KSampler whose noise does not depend on the clip's length."""

from __future__ import annotations

from comfy_api.v0_0_2 import io
from torch import Tensor

from ..lumiere_core.clips.video import clip_count
from ..lumiere_core.diffusion import guidance
from .host import device, sampling
from .host.inflate import inflation_of
from .host.keys import OWN_NOISE
from .host.noise import ClipNoise
from .widgets import fps_widget, sampling_widgets, size_widgets


class EmptyLumiereLatentVideo(io.ComfyNode):
    """Frames as a batch of pixels."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyLumiereLatentVideo",
            display_name="Empty Lumiere Latent Video",
            category="lumiere/latent",
            description="An empty clip to be sampled. Frames lie in the batch axis. Works with every image model that "
            "was inflated too: the sampler converts it to the model's latent size.",
            search_aliases=["empty latent", "video size", "number of frames"],
            inputs=[
                *size_widgets("Pixels. lumiere-mini was trained on 64."),
                io.Int.Input(
                    "length",
                    default=80,
                    min=1,
                    max=4096,
                    tooltip="Frames of a clip: 80 are 5 seconds at 16 frames a second. lumiere-mini moves as asked "
                    "at 40 to 81, less surely at 16 and 24, and loses its motion far above 80. 1 is a still image.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="Clips. For more than one, set frames_per_clip of the loader to length.",
                ),
                fps_widget(
                    "Frames a second that the model makes; only handed on, for Create Video. lumiere-mini: 16.",
                    optional=True,
                ),
            ],
            outputs=[
                io.Latent.Output(),
                io.Float.Output(display_name="fps", tooltip="For Create Video, so that the clip plays at its speed."),
            ],
        )

    @classmethod
    def execute(cls, width: int, height: int, length: int, batch_size: int, fps: float = 16.0) -> io.NodeOutput:
        device.check_room(batch_size * length, height, width, 3 / 64)  # an eighth of the pixels
        return io.NodeOutput(sampling.empty_clip(width, height, batch_size * length), fps)


class LumiereSampler(io.ComfyNode):
    """KSampler for clips."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereSampler",
            display_name="Lumiere Sampler",
            category="lumiere/sampling",
            description="Samples clips like KSampler does, with noise that depends on the seed and the number of the "
            "frame only: a longer clip with the same seed begins with the same noise.",
            search_aliases=["ksampler", "text to video", "sample video"],
            inputs=[
                io.Model.Input("model", tooltip="A MODEL with temporal layers, such as that of Load Lumiere."),
                *sampling_widgets(
                    seed="Clip k of a batch uses seed + k.",
                    steps="Denoising steps.",
                    cfg="Classifier-free guidance scale: how much the prompt counts. 1 is none and twice as fast.",
                ),
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Latent.Input("latent_image", tooltip="The clip to denoise; frames in the batch axis."),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="1 makes a new clip; less keeps that much of latent_image's structure (SDEdit).",
                ),
                io.Float.Input(
                    "dynamic_threshold",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    round=0.001,
                    tooltip="Percentile of dynamic thresholding (Imagen §2.3), such as 0.995: keeps the clean estimate of "
                    "a clip in [-1, 1] at high cfg. 0 and 1 turn it off. For models that work on pixels.",
                ),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(
        cls,
        model,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive,
        negative,
        latent_image: dict,
        denoise: float,
        dynamic_threshold: float,
    ) -> io.NodeOutput:
        check_prompts(positive, negative, cfg)
        samples = sampling.fitted_samples(model, latent_image)
        out = {k: v for k, v in latent_image.items() if not k.startswith("downscale_ratio")}
        sigmas = sampling.sigmas_of(model, steps, sampler_name, scheduler=scheduler, denoise=denoise)
        if not len(sigmas):  # denoise 0: nothing is to be changed
            return io.NodeOutput({**out, "samples": samples})
        inflation = inflation_of(model)
        frames = (inflation.frames_per_clip if inflation else 0) or samples.shape[0]
        clip_count(samples.shape[0], frames)
        share = inflation.temporal_config.shared_noise if inflation and frames > 1 else 0.0
        numbers = latent_image.get("batch_index") or range(samples.shape[0])
        noise = ClipNoise.of_rows(seed, numbers, samples.shape[0], frames=frames, share=share)
        model = model.clone()
        model.model_options["transformer_options"][OWN_NOISE] = True
        if 0 < dynamic_threshold < 1:
            model = with_dynamic_threshold(model, dynamic_threshold, frames)
        result = sampling.sample(
            model,
            noise,
            sampler_name,
            sigmas=sigmas,
            samples=samples,
            positive=positive,
            negative=negative,
            cfg=cfg,
            seed=seed,
            noise_mask=latent_image.get("noise_mask"),
        )
        return io.NodeOutput({**out, "samples": result})


def check_prompts(positive: list, negative: list, cfg: float) -> None:
    """Raise ValueError if a CONDITIONING that counts holds no prompt: the host would take zeros for the answer."""
    for name, prompt in (("positive", positive), ("negative", negative)):
        if not prompt and (name == "positive" or cfg != 1.0):
            raise ValueError(f"{name} holds no prompt. Connect Lumiere Text Encode; an empty text is a prompt too.")


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
