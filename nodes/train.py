"""Training temporal layers on one's own clips inside the graph; `host/training.py` does it."""

from __future__ import annotations

from comfy_api.v0_0_2 import io


class LumiereTrainTemporal(io.ComfyNode):
    """MODEL and captioned clips to a MODEL with trained temporal layers, and their file in models/lumiere."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereTrainTemporal",
            display_name="Train Lumiere Temporal Layers",
            category="lumiere/training",
            description="Trains the temporal layers of a MODEL on captioned clips; the image model stays as it is. The "
            "file goes to models/lumiere, for Apply Lumiere Temporal Layers. Stop saves what was trained so far.",
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
                io.Int.Input("steps", default=200, min=1, max=1_000_000, tooltip="Optimiser steps."),
                io.Int.Input("batch_size", default=1, min=1, max=256, tooltip="Clips a step."),
                io.Float.Input(
                    "learning_rate",
                    default=0.001,
                    min=0.0,
                    max=1.0,
                    step=0.00001,
                    tooltip="Of AdamW. 0.001 suits lumiere-mini, 0.0001 a real checkpoint.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Order of the clips, and their noise.",
                ),
                io.Float.Input(
                    "stills",
                    default=0.1,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Share of clips that stand still: keeps single frames sharp.",
                ),
                io.Combo.Input(
                    "precision",
                    options=["float32", "bfloat16"],
                    default="float32",
                    advanced=True,
                    tooltip="bfloat16 takes about half the memory on a GPU.",
                ),
                io.Boolean.Input(
                    "checkpointing",
                    default=True,
                    advanced=True,
                    tooltip="Recompute activations: less memory, about a third slower.",
                ),
                io.Int.Input(
                    "sample_every",
                    default=50,
                    min=0,
                    max=100_000,
                    tooltip="Steps between sample clips, beside the real ones. 0: only at the end.",
                ),
            ],
            outputs=[
                io.Model.Output(),
                io.Custom("LOSS_MAP").Output(display_name="loss_map", tooltip="For Plot Loss Graph."),
                io.String.Output(display_name="file", tooltip="Name of the file in models/lumiere."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        clip,
        vae,
        videos,
        texts,
        name,
        length,
        fps,
        size,
        steps,
        batch_size,
        learning_rate,
        seed,
        stills,
        precision,
        checkpointing,
        sample_every,
    ) -> io.NodeOutput:
        from ..lumiere_core.dataset.cache import Settings  # the trainer is not needed to start the host
        from .host.training import run

        return run(
            cls,
            model[0],
            clip[0],
            vae[0],
            videos,
            texts,
            name[0],
            Settings(fps[0], length[0], size[0]),
            steps=steps[0],
            batch_size=batch_size[0],
            learning_rate=learning_rate[0],
            seed=seed[0],
            stills=stills[0],
            precision=precision[0],
            checkpointing=checkpointing[0],
            sample_every=sample_every[0],
        )
