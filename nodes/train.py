"""Training temporal layers on one's own clips inside the graph; `host/training.py` does it."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from ..lumiere_core.training.option_page import described
from ..lumiere_core.training.options import FIELDS

STAGES = ("temporal", "condition", "style", "motion-lora")
# Options of the trainer: those that have a widget beside the others, and those behind `stage`.
FIRST = ("steps", "batch_size", "learning_rate", "seed", "stills", "precision", "checkpointing", "sample_every")
LATER = (
    *("sigma_shift", "pure_noise", "text_dropout", "change_weight", "motion_weight", "num_frames", "placed", "only"),
    *("strides", "optimizer", "accumulate", "warmup", "decay_from", "weight_decay", "gradient_clip", "ema_decay"),
    *("minutes", "save_every", "words", "rank", "layers"),
)
# What they are here if nobody says otherwise, where that is not the trainer's own default.
OWN = {
    "steps": 200,
    "batch_size": 1,
    "learning_rate": 0.001,
    "stills": 0.1,
    "checkpointing": True,
    "sample_every": 50,
    "num_frames": 0,
    "warmup": 0,
    "minutes": 0.0,
    "save_every": 300.0,
}
DEFAULTS = {name: OWN.get(name, FIELDS[name].default) for name in (*FIRST, *LATER)}
HINTS = {
    "warmup": "0: a tenth of them all, at most 100",
    "minutes": "0: no limit",
    "pure_noise": "0.1 suits new layers",
    "words": "Stage style",
    "rank": "Stages style and motion-lora",
    "layers": "Stage style",
}


class LumiereTrainTemporal(io.ComfyNode):
    """MODEL and captioned clips to a MODEL with trained temporal layers, and their file in models/lumiere."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereTrainTemporal",
            display_name="Train Lumiere Temporal Layers",
            category="lumiere/training",
            description="Trains the temporal layers of a MODEL on captioned clips; the image model stays as it is. The "
            "file goes to models/lumiere, for Apply Lumiere Temporal Layers. Stop saves what was trained so far; after a "
            "crash the same graph goes on where it was. Stage style makes a LoRA from pictures instead.",
            search_aliases=["train motion", "motion lora", "fine-tune video", "overfit"],
            is_input_list=True,  # the dataset loaders hand over lists
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model", tooltip="lumiere-mini or an image MODEL. One that has temporal layers goes on from them."
                ),
                io.Clip.Input("clip", tooltip="Text encoder of the same checkpoint."),
                io.Vae.Input("vae", tooltip="VAE of the same checkpoint."),
                io.Video.Input("videos", tooltip="From Load Video, or a list from Load Video-Text (from Folder)."),
                io.String.Input("texts", force_input=True, tooltip="A caption for each video, or one for all of them."),
                io.String.Input(
                    "name",
                    default="my_motion",
                    tooltip="Of the file in models/lumiere. An existing one is not overwritten: a number is appended.",
                ),
                io.Int.Input("length", default=16, min=2, max=1024, tooltip="Frames of a training clip."),
                io.Float.Input(
                    "fps",
                    default=16.0,
                    min=1.0,
                    max=120.0,
                    step=0.01,
                    tooltip="Frames a second that videos are brought to.",
                ),
                io.Int.Input(
                    "size",
                    default=64,
                    min=8,
                    max=2048,
                    step=8,
                    tooltip="Clips have about size x size pixels, in their own aspect ratio: 64 for lumiere-mini, 512 "
                    "for SD1.x.",
                ),
                widget("steps", least=1, most=1_000_000),
                widget("batch_size", most=256),
                widget(
                    "learning_rate", most=1.0, step=0.00001, text="0.001 suits lumiere-mini, 0.0001 a real checkpoint"
                ),
                widget("seed", control_after_generate=io.ControlAfterGenerate.fixed),
                widget("stills", advanced=True),
                widget("precision", advanced=True),
                widget("checkpointing", advanced=True),
                widget("sample_every", least=0, most=100_000),
                io.Combo.Input(
                    "stage",
                    options=list(STAGES),
                    default="temporal",
                    optional=True,
                    tooltip="temporal: motion from clips. condition: also image-to-video, inpainting and the like. style: a "
                    "LoRA in models/loras from pictures, which are the frames of the videos (1 to 20 in all, size x size "
                    "pixels each; Create Video makes a video of pictures). motion-lora: a motion LoRA for the MODEL's temporal layers "
                    "or motion module, from 1 to 20 clips, in models/animatediff_motion_lora.",
                ),
                *(widget(name, text=HINTS.get(name, ""), optional=True, advanced=True) for name in LATER),
            ],
            outputs=[
                io.Model.Output(),
                io.Custom("LOSS_MAP").Output(display_name="loss_map", tooltip="For Plot Loss Graph."),
                io.String.Output(display_name="file", tooltip="Name of the file in models/lumiere."),
            ],
        )

    @classmethod
    def execute(cls, model, clip, vae, videos, texts, name, length, fps, size, stage=("temporal",), **widgets):
        from ..lumiere_core.dataset.cache import Settings  # the trainer is not needed to start the host
        from .host.training import run

        options = DEFAULTS | {key: value[0] for key, value in widgets.items()}
        return run(
            cls,
            model[0],
            clip=clip[0],
            vae=vae[0],
            videos=videos,
            texts=texts,
            name=name[0],
            wanted=Settings(fps[0], length[0], size[0]),
            stage=stage[0],
            options=options,
            changed={key for key, value in options.items() if value != DEFAULTS[key]},
        )


def widget(name: str, least: float | None = None, most: float | None = None, text: str = "", **more: Any):
    """Return the input of an option of the trainer, with its bounds and its help.

    Args:
        least, most: bounds that are narrower here than for the command line.
        text: what else to say of it.
    """
    facts, default = FIELDS[name].metadata, DEFAULTS[name]
    about = described(name)
    more |= {"default": default, "tooltip": ". ".join(filter(None, [about[0].upper() + about[1:], text])) + "."}
    if facts["choices"]:
        return io.Combo.Input(name, options=list(facts["choices"]), **more)
    if isinstance(default, bool):
        return io.Boolean.Input(name, **more)
    if isinstance(default, str):
        return io.String.Input(name, **more)
    bounds = {"min": facts["least"] if least is None else least, "max": facts["most"] if most is None else most}
    bounds = {key: value for key, value in bounds.items() if value is not None}
    if isinstance(default, int):
        return io.Int.Input(name, **bounds, **more)
    return io.Float.Input(name, **{"step": 0.01, "round": 0.00001} | bounds | more)
