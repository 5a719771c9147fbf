"""Loading Lumiere checkpoints, giving an image checkpoint temporal layers, and saving those."""

from __future__ import annotations

import json
import logging
from functools import partial

from comfy_api.v0_0_2 import io
from torch import Tensor

from ..lumiere_core.diffusion.models import BUNDLED, BUNDLED_SSR
from ..lumiere_core.flags import GUIDANCE_END
from ..lumiere_core.nets import checkpoint as weights
from ..lumiere_core.nets.config import TextConfig
from ..lumiere_core.nets.ssr import ssr_config
from .host import device, models
from .host.clip import build_clip, reload_text_patcher
from .host.guidance import end_guidance
from .host.handlers import temporal_patcher
from .host.image_model import build_image_model
from .host.inflate import inflate, inflation_of
from .host.ssr_model import LumiereSSRModel
from .widgets import frames_per_clip_widget


def loadable(part: str) -> list[str]:
    """Return the names of models that hold a part, and of files that say nothing: loading those tells what is wrong."""
    names = []
    for name in models.checkpoint_names():
        try:
            found = [weights.parts_in(file) for file in models.checkpoint_files(name)]
        except OSError:  # gone since it was listed
            continue
        if any(parts is None or part in parts for parts in found):
            names.append(name)
    return names


class LumiereLoader(io.ComfyNode):
    """Checkpoint to MODEL, CLIP and VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereLoader",
            display_name="Load Lumiere",
            category="lumiere/loaders",
            description="Loads a Lumiere checkpoint: the image model with its temporal layers, its text encoder and "
            "the pixel VAE. A still image (one frame) uses the image model alone.",
            search_aliases=["lumiere checkpoint", "text to video", "load video model"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=loadable("image"),
                    tooltip=f"{BUNDLED} (64x64 pixels), {BUNDLED}-128 (the same with details of 128x128 pixels, in "
                    f"1.2 times the time) and {BUNDLED_SSR} (super-resolution, x4) are part of the pack; the others lie in "
                    "models/lumiere.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(models.DTYPES),
                    default="default",
                    advanced=True,
                    tooltip="Number format of the weights. default: what the host chooses for the device.",
                ),
                frames_per_clip_widget(advanced=True),
                io.Float.Input(
                    "guidance_end",
                    default=GUIDANCE_END,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Share of the noise levels, from the strongest on, at which cfg counts, as the end_percent of "
                    "other nodes; after it the negative prompt is not computed, which is faster, flickers less and keeps "
                    "light even. 1 = cfg at every step. For samplers that go by cfg.",
                ),
            ],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str, **_) -> list:
        """Load again when a file was written again."""
        try:
            return [(f.name, f.stat().st_mtime_ns) for f in models.checkpoint_files(checkpoint)]
        except OSError:
            return [checkpoint]

    @classmethod
    def execute(
        cls, checkpoint: str, dtype: str, frames_per_clip: int, guidance_end: float = GUIDANCE_END
    ) -> io.NodeOutput:
        files = models.checkpoint_files(checkpoint)
        parts = weights.load_parts(files)
        # A super-resolution stage may come without a text encoder: its clips are made by another model.
        parts.require(*(weights.PREFIXES[1:] if "ssr" in parts.config else weights.PREFIXES))
        model = _image_patcher(files, dtype, parts=parts)
        model.cached_patcher_init = (_image_patcher, (files, dtype))
        model = inflate(
            model,
            parts.temporal,
            parts.temporal_config,
            frames_per_clip,
            title=checkpoint,
            sha256=parts.sha256,
            image_recorded=True,
            trained_size=parts.trained_size,
            reload=partial(read_temporal, files),
        )
        clip = None
        if parts.text is not None:
            clip = build_clip(parts.text, parts.text_config, checkpoint)
            clip.patcher.cached_patcher_init = (reload_text_patcher, (partial(_read_text, files),))
        return io.NodeOutput(end_guidance(model, guidance_end), clip, models.pixel_vae())


def _image_patcher(files: list, dtype: str, disable_dynamic: bool = False, parts: weights.Parts | None = None):
    parts = parts or weights.load_parts(files)
    name = ", ".join(parts.sha256)
    kind = {}
    if "ssr" in parts.config:
        kind["new_model"] = partial(LumiereSSRModel, ssr=ssr_config(parts))
    return build_image_model(
        parts.image, parts.unet_config, parts.schedule, name=name, dtype=dtype, disable_dynamic=disable_dynamic, **kind
    )


def read_temporal(files: list) -> dict[str, Tensor]:
    """Return the temporal layers alone, for a copy of a MODEL. A state dict."""
    return weights.load_parts(files).temporal


def _read_text(files: list) -> tuple[dict[str, Tensor], TextConfig, str]:
    parts = weights.load_parts(files)
    return parts.text, parts.text_config, ", ".join(parts.sha256)


class LumiereSaveTemporal(io.ComfyNode):
    """The part of a MODEL that the host's own save nodes leave out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereSaveTemporal",
            display_name="Save Lumiere Temporal Layers",
            category="lumiere/loaders",
            description="Writes the temporal layers of a MODEL, with patches applied, as one safetensors file. "
            "Save Checkpoint and Save Model write the image model only.",
            search_aliases=["export temporal layers"],
            inputs=[
                io.Model.Input("model", tooltip="A MODEL with temporal layers, such as that of Load Lumiere."),
                io.String.Input(
                    "filename_prefix",
                    default="lumiere/temporal",
                    tooltip="Folder and beginning of the name in the output folder.",
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model, filename_prefix: str) -> io.NodeOutput:
        inflation, patcher = inflation_of(model), temporal_patcher(model)
        if inflation is None or patcher is None:
            raise ValueError("this MODEL has no temporal layers to save. Connect one that was loaded by Load Lumiere.")
        device.load_whole(patcher)
        state = {f"temporal.{key}": value for key, value in patcher.model_state_dict_for_saving().items()}
        config = {"unet": inflation.unet_config.to_dict(), "temporal": inflation.temporal_config.to_dict()}
        path, file, subfolder = models.output_path(filename_prefix, ".safetensors")
        if inflation.training is not None:
            config["motion"] = inflation.training.to_dict()
        metadata = weights.metadata_for(
            f"{inflation.title} temporal layers", config, source=json.dumps(inflation.sha256)
        )
        weights.save_file(state, path, metadata)
        logging.info(f"Lumiere: temporal layers saved to {path}")
        return io.NodeOutput(ui={"text": [f"{subfolder}/{file}" if subfolder else file]})
