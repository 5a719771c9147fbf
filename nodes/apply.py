"""An image MODEL becomes a video MODEL: temporal layers of this pack, or a public motion module, around its U-Net."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from comfy_api.v0_0_2 import io
from torch import Tensor

from ..lumiere_core.nets import checkpoint as weights
from ..lumiere_core.nets.backbones import check_backbone
from ..lumiere_core.nets.config import TemporalConfig, UNetConfig
from ..lumiere_core.nets.motion_files import Training
from ..lumiere_core.nets.motion_module import KIND as MOTION_MODULE
from .host import models, motion
from .host.clip_norms import NORMS
from .host.inflate import image_hashes, inflate, unet_config_of
from .host.keys import WINDOWS
from .host.windows import Windows, with_windows
from .loaders import loadable, read_temporal
from .widgets import frames_per_clip_widget

UNTRAINED = "untrained"
LONG_CLIPS = ("windows", "stretch")
GROUP_NORMS = ("auto", *NORMS)
BETAS = ("auto", "keep")


class LumiereApplyTemporal(io.ComfyNode):
    """Image MODEL to video MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereApplyTemporal",
            display_name="Apply Lumiere Temporal Layers",
            category="lumiere/loaders",
            description="Inflates an image MODEL (SD1.x, SD2.x, SDXL, the SD x4 upscaler, lumiere-mini and their "
            "fine-tunes) over time, by temporal layers or by a public AnimateDiff or HotshotXL motion module. Frames lie in "
            "the batch axis; any sampler, LoRA or ControlNet works on the result.",
            search_aliases=[
                "motion module",
                "animatediff",
                "inflate",
                "animate checkpoint",
                "video model from image model",
            ],
            inputs=[
                io.Model.Input(
                    "model", tooltip="An image MODEL, such as that of Load Checkpoint, with or without LoRA."
                ),
                io.Combo.Input(
                    "temporal",
                    options=[UNTRAINED, *loadable("temporal"), *motion.module_names()],
                    tooltip="Trained temporal layers from models/lumiere, or a motion module from models/animatediff_models. "
                    "untrained: every frame that reaches the coarsest level is what the image model makes; the frames between "
                    "repeat its features.",
                ),
                frames_per_clip_widget(),
                io.Combo.Input(
                    "long_clips",
                    options=list(LONG_CLIPS),
                    default=LONG_CLIPS[0],
                    optional=True,
                    tooltip="For motion modules and clips of more frames than they were trained on (16, HotshotXL 8). windows: in "
                    "overlapping windows of that length; Lumiere Temporal Multidiffusion after this node sets others. stretch: "
                    "in one piece, with the module's table of positions stretched where it is too short.",
                ),
                io.Combo.Input(
                    "group_norm",
                    options=list(GROUP_NORMS),
                    default=GROUP_NORMS[0],
                    optional=True,
                    advanced=True,
                    tooltip="For motion modules: which group norms see all frames of a clip at once. frame: none. module: the modules' "
                    "own, as in diffusers. clip: the U-Net's too. auto: clip for AnimateDiff v1 and HotshotXL, whose U-Net was so "
                    "in training, else frame.",
                ),
                io.Combo.Input(
                    "beta_schedule",
                    options=list(BETAS),
                    default=BETAS[0],
                    optional=True,
                    advanced=True,
                    tooltip="For motion modules: the noise levels. auto: those that the module was trained on, unless a sampling "
                    "node before this one has set others. keep: the MODEL's own.",
                ),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, temporal: str, **_) -> list:
        """Load again when a file was written again."""
        try:
            return [(f.name, f.stat().st_mtime_ns) for f in _files(temporal)]
        except OSError:
            return [temporal]

    @classmethod
    def execute(
        cls,
        model,
        temporal: str,
        frames_per_clip: int,
        long_clips: str = LONG_CLIPS[0],
        group_norm: str = GROUP_NORMS[0],
        beta_schedule: str = BETAS[0],
    ) -> io.NodeOutput:
        image = image_hashes(model)
        layers = _load(temporal, unet_config_of(model))
        training = layers.training
        norms = group_norm
        if group_norm == "auto":
            norms = "clip" if training is not None and training.clip_norms else "frame"
        elif layers.config.kind != MOTION_MODULE:
            raise ValueError(
                f"group_norm is {group_norm}, but {temporal} is no motion module, and Lumiere's layers were trained with norms of "
                "one frame at a time. Set group_norm to auto."
            )
        inflated = inflate(
            model,
            layers.state,
            layers.config,
            frames_per_clip,
            title=temporal,
            sha256=image | layers.sha256,
            image_recorded=bool(image),
            trained_size=layers.size,
            training=training,
            norms=norms,
            reload=layers.reload,
        )
        if layers.config.kind != MOTION_MODULE:
            return io.NodeOutput(inflated)
        text = [f"{temporal}: {training.title if training else 'a motion module of this pack'}."]
        if training is not None:
            text.append(motion.set_betas(inflated, training, beta_schedule))
        if long_clips == "windows":
            inflated = _in_windows(inflated, layers.config.frames_per_clip, text)
        logging.info(f"Lumiere: {' '.join(text)}")
        return io.NodeOutput(inflated, ui={"text": text})


@dataclass
class _Layers:
    """Temporal layers as a file has them."""

    state: dict[str, Tensor] | None
    config: TemporalConfig
    reload: Callable[[], dict[str, Tensor]] | None = None
    sha256: dict[str, str] = field(default_factory=dict)
    size: tuple[int, int] | None = None  # width and height in pixels
    training: Training | None = None


def _load(temporal: str, unet_config: UNetConfig) -> _Layers:
    """Read one choice of the node for a MODEL's U-Net.

    Raises:
        ValueError: the file is damaged, of another kind, or for another image model.
    """
    if temporal == UNTRAINED:
        return _Layers(None, TemporalConfig())
    files = _files(temporal)
    if len(files) == 1 and not _is_own(files[0]):
        found = motion.read_module(files[0], unet_config)
        reload = partial(motion.read_module_state, files[0], unet_config)
        hashes = {files[0].name: weights.sha256(files[0])}
        return _Layers(found.state, found.config, reload, hashes, training=found.training)
    parts = weights.load_parts(files)
    parts.require("temporal")
    check_backbone(parts.unet_config, unet_config, temporal)
    return _Layers(
        parts.temporal,
        parts.temporal_config,
        partial(read_temporal, files),
        sha256=parts.sha256,
        size=parts.trained_size,
        training=Training.of_file(parts.config),
    )


def _files(temporal: str) -> list[Path]:
    if temporal == UNTRAINED:
        return []
    return (
        models.checkpoint_files(temporal) if temporal in models.checkpoint_names() else [motion.module_path(temporal)]
    )


def _is_own(path: Path) -> bool:
    """Whether this pack wrote a file; one that is damaged is left to the reader of its kind."""
    return path.suffix == ".safetensors" and "lumiere.config" in weights.load_metadata(path)


def _in_windows(model, length: int, text: list[str]):
    """Return the MODEL in windows of the trained length, unless a node before has set windows; say which."""
    windows = model.attachments.get(WINDOWS)
    if windows is None:
        windows = Windows(length, length // 4, "tapered")
        model = with_windows(model, windows)
    text.append(f"Clips of more than {windows.length} frames: windows of {windows.length}, overlap {windows.overlap}.")
    return model
