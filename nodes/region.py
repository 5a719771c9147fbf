"""A region that moves, drawn over a clip's own frames, as a batch of masks."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..lumiere_core.clips import region as regions
from ..lumiere_core.clips.video import check_pixels
from .host import device, live
from .widgets import size_widgets

NUMBERS = 2  # of a pixel: the masks, and in bytes what is drawn and what is covered


class LumiereRegion(io.ComfyNode):
    """Shapes with key frames to masks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereRegion",
            display_name="Lumiere Moving Region",
            category="lumiere/conditioning",
            description="Draws a region that moves: boxes, ellipses and lassos with key frames, over the frames of a clip. Out "
            "comes a mask for each frame, for inpainting, cinemagraphs, regional prompts, or any other node.",
            search_aliases=["mask painter", "animated mask", "moving mask", "rotoscope", "lasso", "draw mask"],
            has_intermediate_output=True,
            inputs=[
                io.String.Input(
                    "region",
                    default='{"shapes": []}',
                    tooltip="What was drawn, as text: copy it, share it, or write it by hand (the help page says how).",
                ),
                *size_widgets("Pixels, if no images are connected."),
                io.Int.Input("length", default=80, min=1, max=4096, tooltip="Frames, if no images are connected."),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="The clip to draw over; the masks get its size and length. Its frames show after the first run.",
                ),
            ],
            outputs=[io.Mask.Output(display_name="mask", tooltip="1 inside of the shapes; one mask for each frame.")],
        )

    @classmethod
    def execute(cls, region: str, width: int, height: int, length: int, images=None) -> io.NodeOutput:
        if images is not None:
            check_pixels(images)
            length, height, width = images.shape[:3]
        device.check_room(length, height, width, NUMBERS)
        masks = regions.masks(regions.parse(region), length, height, width, on_place=device.stop_if_interrupted)
        shown = {"lumiere_sheet": (live.sheet_of(images),)} if images is not None and live.watched() else None
        return io.NodeOutput(masks, ui=shown)
