"""Clips that loop."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from .host.loop import with_loop


class LumiereLoop(io.ComfyNode):
    """MODEL to a MODEL of loops."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereLoop",
            display_name="Lumiere Loop",
            category="lumiere/sampling",
            description="Makes clips that loop: the last frame is followed by the first. Lumiere's layers see the clip as a "
            "ring; any other video MODEL sees it turned by some frames, others at every step.",
            search_aliases=["seamless loop", "looping video", "closed loop", "gif"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A MODEL of clips: with Lumiere's layers or a motion module, of AnimateDiff-Evolved, or of latents "
                    "with an axis of frames.",
                )
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model) -> io.NodeOutput:
        return io.NodeOutput(with_loop(model))
