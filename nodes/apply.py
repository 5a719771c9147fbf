"""Make the user's own image checkpoint a Lumiere."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from comfy_api.v0_0_2 import io
from torch import Tensor

from ..lumiere_core import checkpoint as weights
from ..lumiere_core.config import TemporalConfig
from ..lumiere_core.families import check_backbone
from . import host
from .inflate import image_hashes, inflate, unet_config_of

UNTRAINED = "untrained"


class LumiereApplyTemporal(io.ComfyNode):
    """Image MODEL to video MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereApplyTemporal",
            display_name="Apply Lumiere Temporal Layers",
            category="lumiere",
            description="Inflates an image MODEL (SD1.x, SD2.x, SDXL, the SD x4 upscaler, lumiere-mini and their "
            "fine-tunes) over time. Frames lie in the batch axis; any sampler, LoRA or ControlNet works on the result.",
            search_aliases=["motion module", "inflate", "animate checkpoint", "video model from image model"],
            inputs=[
                io.Model.Input("model", tooltip="An image MODEL, such as that of Load Checkpoint, with or without LoRA."),
                io.Combo.Input(
                    "temporal", options=[UNTRAINED, *host.checkpoint_names()],
                    tooltip="Trained temporal layers from models/lumiere. untrained: every frame that reaches the "
                    "coarsest level is what the image model makes; the frames between repeat its features.",
                ),
                io.Int.Input(
                    "frames_per_clip", default=0, min=0, max=4096,
                    tooltip="Frames of one clip in a batch of several. 0: the whole batch is one clip.",
                ),
            ],
            outputs=[io.Model.Output()],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, temporal: str, **_) -> list:
        """Load again when a file was written again."""
        try:
            return [(f.name, f.stat().st_mtime_ns) for f in _files(temporal)]
        except OSError:
            return [temporal]

    @classmethod
    def execute(cls, model, temporal: str, frames_per_clip: int) -> io.NodeOutput:
        image = image_hashes(model)
        if temporal == UNTRAINED:
            inflated = inflate(
                model, None, TemporalConfig(), frames_per_clip,
                title=UNTRAINED, sha256=image, image_recorded=bool(image),
            )  # fmt: skip
            return io.NodeOutput(inflated)
        files = _files(temporal)
        parts = weights.load_parts(files)
        parts.require("temporal")
        check_backbone(parts.unet_config, unet_config_of(model), temporal)
        height, width = parts.config.get("size", (0, 0))
        inflated = inflate(
            model, parts.temporal, parts.temporal_config, frames_per_clip,
            title=temporal, sha256=image | parts.sha256, image_recorded=bool(image),
            trained_size=(width, height) if width and height else None,
            reload=partial(_read_temporal, files),
        )  # fmt: skip
        return io.NodeOutput(inflated)


def _files(temporal: str) -> list[Path]:
    return [] if temporal == UNTRAINED else host.checkpoint_files(temporal)


def _read_temporal(files: list[Path]) -> dict[str, Tensor]:
    return weights.load_parts(files).temporal
