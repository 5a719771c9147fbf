"""The stages of training: each is a source, what trains, options and the file that is written.

The procedural world and a person's own checkpoint, clips and pictures take the same path; they differ in the source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..dataset.reader import Clips, open_clips
from ..diffusion.models import Models
from ..diffusion.schedule import Schedule
from ..nets.backbones import family_name
from ..nets.checkpoint import WEIGHTS, load_into, load_parts, sha256
from ..nets.config import SSRConfig, TextConfig, UNetConfig
from ..nets.ssr import ssr_config
from ..nets.text_encoder import TextEncoder
from ..nets.unet import UNet
from ..world.styles import STYLES
from . import previews
from .backbone import load_backbone
from .double import DETAIL_WIDTH, doubled
from .given import Config, Files
from .layers import own_config, start_layers
from .memory import predicted_bytes, readable
from .motion_lora import MotionLoRAPart, layers_of
from .options import TrainOptions
from .parts import DeltasPart, DetailsPart, ImagePart, Part, TemporalPart, TextPart, UpscalerPart, new_unet
from .photographs import Photographs
from .run import ReadingRun, Run
from .sources.base import Source
from .sources.cached import CachedClips, CachedClipsForLoRA
from .sources.cached_crops import CachedCrops
from .sources.captions import Captions
from .sources.crops import WorldCrops
from .sources.pictures import EncodedPictures, Pictures
from .sources.worlds import StyledStills, WorldClips, WorldStills


def build(stage: str, files: Files, options: TrainOptions, config: Config) -> Run:
    """Return a stage with its networks, loaded or fresh.

    Args:
        config: of the architecture of what is new: `text`, `unet`, `schedule`, `temporal`, `ssr`, `size`.

    Raises:
        FileNotFoundError, ValueError: a file is missing, or of another kind.
    """
    if stage == "style" and files.checkpoint is None:
        text, image = files.text or WEIGHTS / "mini-text.safetensors", files.image or WEIGHTS / "mini-image.safetensors"
        files = replace(files, text=text, image=image)
    run = _BUILDERS[stage](stage, files, options, config)
    run.frozen = files.frozen(stage, options)
    if files.init_from is not None:
        run.facts["started_from"] = files.init_from.name
    return run


def text_run(stage: str, files: Files, options: TrainOptions, config: Config) -> Run:
    """Return the run of a fresh text encoder, or of the one of `init_from`."""
    start = files.start("text")
    part = TextPart(start.text_config if start else TextConfig.from_dict(config.get("text", {})), options)
    if start:
        load_into(part.module.encoder, start.text, f"text encoder of {files.init_from.name}")
    return ReadingRun(
        stage, options, Captions(options, part.config.max_bytes), part=part, preview=partial(previews.readings, part)
    )


def image_run(stage: str, files: Files, options: TrainOptions, config: Config) -> Run:
    """Return the run of a fresh image U-Net, or of the one of `init_from`."""
    text, start = _text_encoder(files.text), files.start("image")
    unet = new_unet(start.unet_config if start else UNetConfig.from_dict(config.get("unet", {})), options.seed)
    if start:
        load_into(unet, start.image, f"image U-Net of {files.init_from.name}")
    schedule = start.schedule if start and "schedule" in start.config else config.get("schedule", {})
    models = Models(text, unet, None, Schedule(**schedule))
    part = ImagePart(models, options)
    return Run(stage, options, WorldStills(options, models.encode), part=part, preview=_sheet(part, options, 1))


def details_run(stage: str, files: Files, options: TrainOptions, config: Config) -> Run:
    """Return the run of what makes an image model one for twice the size; `init_from` holds such details."""
    text, image = _text_encoder(files.text), _required(files.image, "--image", "train image")
    if files.init_from is None:
        parts = doubled(load_parts(image), detail_width=DETAIL_WIDTH)
    else:
        parts = load_parts([image, files.init_from])
    unet = UNet(parts.unet_config)
    load_into(unet, parts.image, f"image U-Net of {image.name} with details")
    if unet.details is None:
        raise ValueError(f"{files.init_from.name} holds no details. Give a file that `train details` wrote.")
    part = DetailsPart(Models(text, unet, None, Schedule(**parts.schedule)), options)
    return Run(stage, options, WorldStills(options, part.models.encode), part=part, preview=_sheet(part, options, 1))


def temporal_run(stage: str, files: Files, options: TrainOptions, config: Config) -> Run:
    """Return the run of temporal layers, of clips of the world or of a cache; of stage `condition` with conv_cond."""
    conditional = stage == "condition"
    if files.data is None:
        start = files.start("temporal")
        text, (unet, schedule) = _text_encoder(files.text), _image_model(files.image)
        layers = start_layers(unet.config, config.get("temporal", {}), options, start=start, conv_cond=conditional)
        return world_clips_run(stage, Models(text, unet, layers, schedule), options)
    return _own_clips_run(stage, files, options, config)


def _own_clips_run(stage: str, files: Files, options: TrainOptions, config: Config) -> Run:
    start, (clips, unet, schedule) = files.start("temporal"), _own_clips(stage, files, options)
    asked, settings = config.get("temporal"), clips.cache.settings
    clip = {"frames_per_clip": settings.frames, "fps": settings.fps}
    if asked is None:
        asked = own_config(unet.config) if start is None else {}
    layers = start_layers(unet.config, asked, options, start=start, conv_cond=stage == "condition", **clip)
    return cached_clips_run(stage, Models(None, unet, layers, schedule), clips, options)


def _own_clips(stage: str, files: Files, options: TrainOptions) -> tuple[Clips, UNet, Schedule]:
    """Return the clips of a cache, and the frozen image model that they were prepared with."""
    clips = open_clips(files.data)
    backbone = clips.cache.backbone
    check_enlarges(stage, UNetConfig.from_dict(backbone["unet"]))
    return clips, *load_backbone(files.checkpoint, backbone, _frozen_dtype(options))


def check_enlarges(stage: str, config: UNetConfig) -> None:
    """Raise ValueError unless `train ssr` is for a model that enlarges clips, and any other stage for one that does not."""
    if config.low_channels and stage != "ssr":
        raise ValueError(
            f"`train {stage}` is for a model that makes new clips, but the {family_name(config)} enlarges them: its temporal "
            "layers are trained by `train ssr --data`."
        )
    if stage == "ssr" and not config.low_channels:
        raise ValueError(
            f"`train ssr --data` is for the SD x4 upscaler, but the cache was prepared with {family_name(config)}. Prepare "
            "it with the upscaler's checkpoint; lumiere-mini-ssr learns from the world, without --data."
        )


def world_clips_run(stage: str, models: Models, options: TrainOptions) -> Run:
    """Return the run of the temporal layers of models that are there, on clips of the world."""
    conditional = stage == "condition"
    part = TemporalPart(models, options, conditional, [options.height, options.width])
    source = WorldClips(options, models.encode, conditional)
    _check_moves(source)
    known = previews.every_other_begins if conditional else previews.nothing_known
    sheet = _sheet(part, options, options.num_frames, prompts=previews.MOVING_PROMPTS, known=known)
    return Run(stage, options, source, part=part, preview=sheet)


def cached_clips_run(stage: str, models: Models, clips: Clips, options: TrainOptions) -> Run:
    """Return the run of the temporal layers of models that are there, on clips of a cache."""
    conditional, stride = stage == "condition", models.temporal.total_stride
    if stage == "ssr":
        source = CachedCrops(options, clips, stride)
    else:
        source = CachedClips(options, clips, stride, conditional)
    _check_moves(source)
    ratio = clips.cache.backbone["ratio"]
    shapes = {tuple(clip.shape[2:]) for clip in clips.flat}
    size = [side * ratio for side in shapes.pop()] if len(shapes) == 1 and stage != "ssr" else None
    part = TemporalPart(models, options, conditional, size)
    sheet = partial(previews.clips_sheet, models, source, options.device)
    return Run(stage, options, source, part=part, preview=sheet, about=_about(models, clips, source, options))


def motion_lora_run(stage: str, files: Files, options: TrainOptions, config: Config) -> Run:
    """Return the run of a motion LoRA: low-rank changes of temporal layers, or of a motion module, on clips of a cache."""
    if files.init_from is None:
        raise ValueError(
            "--init-from is missing: give the temporal layers or the motion module that the motion LoRA is for, as safetensors."
        )
    clips, unet, schedule = _own_clips(stage, files, options)
    layers, schedule = layers_of(files.init_from, unet.config, schedule)
    return lora_clips_run(stage, Models(None, unet, layers, schedule), clips, options)


def lora_clips_run(stage: str, models: Models, clips: Clips, options: TrainOptions) -> Run:
    """Return the run of a motion LoRA for temporal layers that are there, on clips of a cache."""
    source = CachedClipsForLoRA(options, clips, models.temporal.total_stride)
    _check_moves(source)
    about, sheet = _about(models, clips, source, options), partial(previews.clips_sheet, models, source, options.device)
    return Run(stage, options, source, part=MotionLoRAPart(models, options), preview=sheet, about=about)


def ssr_run(stage: str, files: Files, options: TrainOptions, config: Config) -> Run:
    """Return the run of the spatial part of super-resolution (one frame), or of its temporal layers (more frames).

    Raises:
        ValueError: temporal layers are to be trained without a trained spatial part.
    """
    if files.data is not None:  # the temporal layers of the SD x4 upscaler
        return _own_clips_run(stage, files, options, config)
    text, start = _text_encoder(files.text), files.start("image")
    if start is None and options.num_frames > 1:
        raise ValueError(
            f"--num-frames is {options.num_frames}: the temporal layers are trained around a trained spatial "
            "part. Give its ssr.safetensors with --init-from, or train it first with --num-frames 1."
        )
    ssr = ssr_config(start) if start else SSRConfig.from_dict(config.get("ssr", {}))
    unet_config = start.unet_config if start else UNetConfig.from_dict(config.get("unet", {}))
    unet, temporal = new_unet(unet_config, options.seed), None
    if start:
        load_into(unet, start.image, f"super-resolution U-Net of {files.init_from.name}")
    if options.num_frames > 1:
        has = start if start.temporal else None
        temporal = start_layers(unet_config, config.get("temporal", {}), options, has)
    schedule = Schedule(**(start.schedule if start else config.get("schedule", {})))
    models, size = Models(text, unet, temporal, schedule=schedule, ssr=ssr), tuple(config.get("size", (256, 256)))
    photographs = None if files.images is None else Photographs(Path(files.images))
    source = WorldCrops(options, models.encode, ssr, size=size, photographs=photographs)
    sheet = partial(previews.enlarged_sheet, models, size, options.num_frames)
    return Run(stage, options, source, part=UpscalerPart(models, options), preview=sheet)


def style_run(stage: str, files: Files, options: TrainOptions, config: Config) -> Run:
    """Return the run of low-rank deltas, or of all weights (rank 0), of an image model in a style (Lumiere §4.1).

    The temporal layers are not even loaded. `init_from` holds an image model to go on from.
    """
    if files.checkpoint is not None:
        return _encoded_style_run(stage, files, options)
    text, (unet, schedule), start = _text_encoder(files.text), _image_model(files.image), files.start("image")
    if start:
        load_into(unet, start.image, f"image U-Net of {files.init_from.name}")
    models, words = Models(text, unet, None, schedule), options.words
    if files.images is None:
        source, words = StyledStills(options, models.encode), words or STYLES[options.style].words
    else:
        source = Pictures(options, models.encode, Path(files.images))
    style = {"name": _title(files, options), "words": words, "base": f"{files.image.name} {sha256(files.image)}"}
    part = DeltasPart(models, options, style) if options.rank else ImagePart(models, options, style)
    return Run(stage, options, source, part=part, preview=_sheet(part, options, 1))


def _encoded_style_run(stage: str, files: Files, options: TrainOptions) -> Run:
    """A LoRA in the latents of any checkpoint; what it makes is seen in a workflow, where the VAE is."""
    source = EncodedPictures(options, files.encoded)
    unet, schedule = load_backbone(files.checkpoint, source.backbone, _frozen_dtype(options))
    hashes = source.backbone["sha256"]
    base = f"{' '.join(hashes)} {' '.join(hashes.values())}"
    style = {"name": _title(files, options), "words": options.words, "base": base}
    part = DeltasPart(Models(None, unet, None, schedule), options, style, auto="attention")
    return Run(stage, options, source, part)


_BUILDERS: dict[str, Callable[[str, Files, TrainOptions, Config], Run]] = {
    "text": text_run,
    "image": image_run,
    "details": details_run,
    "temporal": temporal_run,
    "ssr": ssr_run,
    "condition": temporal_run,
    "motion-lora": motion_lora_run,
    "style": style_run,
}


def _title(files: Files, options: TrainOptions) -> str:
    return options.style or Path(files.images).name


def _sheet(
    part: Part,
    options: TrainOptions,
    frames: int,
    prompts: tuple[str, ...] = previews.PROMPTS,
    known: previews.Known = previews.nothing_known,
) -> Callable[[Path, int], None]:
    size = options.height, options.width
    return partial(previews.prompts_sheet, part, size, frames, prompts, known)


def _text_encoder(file: Path | None) -> TextEncoder:
    parts = load_parts(_required(file, "--text", "train text"))
    parts.require("text")
    text = TextEncoder(parts.text_config)
    load_into(text, parts.text, f"text encoder of {file.name}")
    return text


def _image_model(file: Path | None) -> tuple[UNet, Schedule]:
    parts = load_parts(_required(file, "--image", "train image"))
    parts.require("image")
    unet = UNet(parts.unet_config)
    load_into(unet, parts.image, f"image U-Net of {file.name}")
    return unet, Schedule(**parts.schedule)


def _required(path: Path | None, flag: str, verb: str) -> Path:
    if path is None:
        raise ValueError(f"{flag} is missing: give the weights that `{verb}` wrote.")
    return path


def _frozen_dtype(options: TrainOptions) -> torch.dtype:
    """On a GPU the frozen weights may be kept in half precision; a CPU's kernels want one kind."""
    half = options.precision == "bfloat16" and torch.device(options.device).type != "cpu"
    return torch.bfloat16 if half else torch.float32


def _check_moves(source: Source) -> None:
    if source.frames() < 2:
        raise ValueError(
            "a sample would have 1 frame, in which temporal layers do not run: nothing would be learnt. Set num_frames to 2 "
            "or more, or to 0 for whole clips, and prepare clips of 2 frames or more."
        )


def _about(models: Models, clips: Clips, source: CachedClips, options: TrainOptions) -> str:
    """Say what will be trained and how much memory that will take."""
    unet, layers = models.unet, models.temporal
    frozen, trained = (sum(p.numel() for p in module.parameters()) for module in (unet, layers))
    height, width = max(map(source.size_of, clips.flat), key=lambda size: size[0] * size[1])
    shape = [clips.flat[0].shape[0], source.frames(), height, width]
    bytes_ = predicted_bytes(unet, layers, shape, context=tuple(clips[0].tensors["context"].shape), options=options)
    return (
        f"{family_name(unet.config)}: {frozen / 1e6:.0f} M parameters frozen, {trained / 1e6:.0f} M in training; "
        f"{source.describe()}; predicted peak memory {readable(bytes_)}"
    )
