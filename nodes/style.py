"""Stylised generation: spatial weights between a model's and a style's, as patches on a clone."""

from __future__ import annotations

import dataclasses

from comfy_api.v0_0_2 import io

from ..lumiere_core.nets.checkpoint import check_state
from ..lumiere_core.nets.details import without_details
from ..lumiere_core.nets.interpolate import alphas_by_key, joined_hashes
from .host.encoders import prediction_of
from .host.inflate import inflation_of, unet_config_of
from .host.keys import KEY
from .widgets import level_values, level_widgets

PREFIX = "diffusion_model."


class LumiereStyleInterpolate(io.ComfyNode):
    """W = alpha * W_style + (1 - alpha) * W_orig over the image model (Lumiere §4.1)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereStyleInterpolate",
            display_name="Lumiere Style Interpolate",
            category="lumiere/style",
            description="Moves the image weights of a MODEL towards those of a style MODEL of the same architecture. "
            "The temporal layers of the first MODEL stay as they are, so the motion is kept. For a style that is a "
            "LoRA use the stock LoRA loader; its strength is alpha.",
            search_aliases=["stylized generation", "style merge", "model merge video"],
            inputs=[
                io.Model.Input("model", tooltip="The MODEL whose motion is kept, with or without temporal layers."),
                io.Model.Input(
                    "style_model",
                    tooltip="A fine-tune of the same image model. Its own temporal layers, if any, are ignored.",
                ),
                io.Float.Input(
                    "alpha",
                    default=0.7,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="0: the first model, 1: the style. The paper uses 0.5 to 1, chosen for each style.",
                ),
                *level_widgets("Alpha of", "alpha", 1.0),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, style_model, alpha: float, **levels: float) -> io.NodeOutput:
        chosen = level_values(levels)
        refuse_predictions(model, style_model)
        own, style = (m.model_state_dict(PREFIX) for m in (model, style_model))
        check_state(*(without_details(state, PREFIX) for state in (own, style)), "the weights of style_model")
        patches = without_details(style_model.get_key_patches(PREFIX), PREFIX)
        # Levels ask for a U-Net; one alpha serves any architecture.
        config = unet_config_of(model) if chosen else None
        plain = [key.removeprefix(PREFIX) for key in patches]
        shares = alphas_by_key(plain, alpha, chosen, config)

        mixed = model.clone()
        for key, patch in patches.items():
            share = shares[key.removeprefix(PREFIX)]
            mixed.add_patches({key: patch}, share, 1.0 - share)
        _remember(mixed, style_model)
        return io.NodeOutput(mixed)


def refuse_predictions(model, style_model) -> None:
    """Raise ValueError if the networks predict different things: weights between them predict neither.

    SD2.x has checkpoints of both kinds, and so have SDXL's fine-tunes.
    """
    names = {"eps": "the noise (eps)", "v": "v", "x0": "the clean picture (x0)", None: "a flow"}
    own, style = prediction_of(model), prediction_of(style_model)
    if own != style:
        raise ValueError(
            f"model predicts {names[own]} and style_model {names[style]}: weights between the two predict neither. Choose a "
            "style of the same prediction, or correct one with ModelSamplingDiscrete if its file was read wrongly."
        )


def _remember(mixed, style_model) -> None:
    """Add the style's files to what the MODEL knows of its weights, for the label on the clip."""
    own, style = inflation_of(mixed), inflation_of(style_model)
    if own is not None and style is not None:
        sha256 = joined_hashes(own.sha256, style.sha256)
        mixed.set_attachments(KEY, dataclasses.replace(own, sha256=sha256))
