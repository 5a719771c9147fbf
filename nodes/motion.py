"""How much the temporal layers of a MODEL move, and small changes to how: strength and motion LoRA."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from .host import motion
from .host.inflate import inflation_of
from .host.keys import STRENGTH
from .host.strength import MotionStrength
from .widgets import level_values, level_widgets


class LumiereMotionStrength(io.ComfyNode):
    """MODEL to MODEL: scale the temporal layers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereMotionStrength",
            display_name="Lumiere Motion Strength",
            category="lumiere/motion",
            description="Scales what the temporal layers or motion module of a MODEL change: everywhere, by level, by a mask "
            "over frames and space, or for a part of the sampling. At 0 every frame is the image model's own picture; at 1 the "
            "layers are as trained. Several of these nodes multiply.",
            search_aliases=["motion scale", "effect multival", "less motion", "animatediff scale"],
            inputs=[
                io.Model.Input("model", tooltip="A MODEL with temporal layers or a motion module."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="0: the image model's pictures, 1: as trained; more exaggerates.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Times strength: where it is 0 nothing of the temporal layers is left. One frame for the whole clip, or "
                    "one for each of its frames, at any size.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    optional=True,
                    tooltip="Share of the sampling after which the strength acts; before, the layers are as trained.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    optional=True,
                    tooltip="Share of the sampling up to which the strength acts; after, the layers are as trained.",
                ),
                *level_widgets("Strength at", "strength", 2.0),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(
        cls, model, strength: float, mask=None, start_percent: float = 0.0, end_percent: float = 1.0, **levels: float
    ) -> io.NodeOutput:
        inflation = inflation_of(model)
        if inflation is None:
            raise ValueError(
                "this MODEL has no temporal layers whose strength could be set. Put this node after Load Lumiere or Apply "
                "Lumiere Temporal Layers."
            )
        if start_percent > end_percent:
            raise ValueError(
                f"start_percent is {start_percent:g} and end_percent {end_percent:g}: the strength would act nowhere. Give the "
                "earlier one first; for a part in the middle that stays as trained use two of these nodes."
            )
        count, given = inflation.unet_config.num_levels, level_values(levels)
        beyond = [f"level_{level}" for level, value in enumerate(given) if value is not None and level >= count]
        if beyond:
            raise ValueError(f"{', '.join(beyond)} set, but the U-Net of this MODEL has levels 0 to {count - 1} only.")
        given += [None] * (count - len(given))
        values = tuple(strength if value is None else value for value in given)
        model = model.clone()
        options = model.model_options["transformer_options"]
        mask = None if mask is None else mask.reshape(-1, *mask.shape[-2:])
        own = MotionStrength(values, mask, start_percent, end_percent)
        options[STRENGTH] = [*options.get(STRENGTH, ()), own]
        return io.NodeOutput(model)


class LumiereLoadMotionLoRA(io.ComfyNode):
    """MODEL to MODEL: a motion LoRA on its temporal layers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereLoadMotionLoRA",
            display_name="Lumiere Load Motion LoRA",
            category="lumiere/motion",
            description="Puts a motion LoRA on the temporal layers or motion module of a MODEL: AnimateDiff's camera moves, or "
            "one that was trained here. The stock LoRA loaders reach the image model only. Several of these nodes add up.",
            search_aliases=["animatediff lora", "camera motion", "zoom pan lora"],
            inputs=[
                io.Model.Input("model", tooltip="A MODEL with temporal layers or a motion module."),
                io.Combo.Input(
                    "lora_name", options=motion.lora_names(), tooltip="A file in models/animatediff_motion_lora."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How much of the change: 0 none, 1 as trained; below 0 the other way.",
                ),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name: str, **_) -> list:
        """Load again when a file was written again."""
        try:
            return [lora_name, motion.lora_path(lora_name).stat().st_mtime_ns]
        except OSError:
            return [lora_name]

    @classmethod
    def execute(cls, model, lora_name: str, strength: float) -> io.NodeOutput:
        inflation = inflation_of(model)
        if inflation is None:
            raise ValueError(
                "this MODEL has no temporal layers that a motion LoRA could change. Put this node after Load Lumiere or Apply "
                "Lumiere Temporal Layers."
            )
        return io.NodeOutput(motion.with_lora(model, inflation, motion.lora_path(lora_name), strength))
