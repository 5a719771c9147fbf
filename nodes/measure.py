"""What can be said of a clip of any model: figures, a slice through time, and two clips side by side."""

from __future__ import annotations

import json
import re

import numpy as np
import torch
from comfy_api.v0_0_2 import Input, io, ui
from torch import Tensor

from ..lumiere_core.clips.media import line_over_time
from ..lumiere_core.clips.video import check_pixels
from ..lumiere_core.measures import measure_clip
from ..lumiere_core.measures.beside import side_by_side
from ..lumiere_core.measures.embeddings import Consistency
from ..lumiere_core.measures.plot import draw_curves
from .host import device as host_device
from .host import live, vision

FIGURES = (  # that have an output of their own
    "flicker",
    "acceleration",
    "high_frequencies",
    "motion",
    "warping_error",
    "drift_mean",
    "seam",
    "loop_seam",
    "frozen",
    "psnr",
    "ssim",
    "outside_exact",
    "clip_neighbours",
    "clip_text",
)


MOST_PIXELS = 1 << 26  # of a slice, which takes 0.8 GB of memory then


class LumiereMeasureClip(io.ComfyNode):
    """All figures of one clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereMeasureClip",
            display_name="Measure Clip (Lumiere)",
            category="lumiere/measure",
            description="Says of a clip of any model how much it flickers, moves, drifts and freezes, whether it loops, "
            "whether one sees where windows meet, and how far it is from a reference.",
            search_aliases=["flicker", "temporal consistency", "evaluate video", "psnr", "ssim", "vbench"],
            inputs=[
                io.Image.Input("images", tooltip="The frames of one clip."),
                io.Image.Input("reference", optional=True, tooltip="What the clip should be, as many frames."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="More than 0 where the clip was generated: outside of it, it must equal the reference.",
                ),
                io.String.Input(
                    "borders",
                    default="",
                    optional=True,
                    tooltip="Frames that begin a new window or clip, such as 16, 32; or every 16.",
                ),
                io.Custom("OPTICAL_FLOW").Input(
                    "optical_flow", optional=True, tooltip="RAFT, by Load Optical Flow Model; without it OpenCV's DIS."
                ),
                io.ClipVision.Input("clip_vision", optional=True, tooltip="For consistency and text alignment."),
                io.Clip.Input(
                    "clip", optional=True, tooltip="Text encoder of the same CLIP model, for text alignment."
                ),
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="What the clip should show; needs a clip.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="table", tooltip="Every figure with unit, range and meaning."),
                io.Image.Output(display_name="plot", tooltip="What changes over time, a panel each."),
                io.String.Output(display_name="figures", tooltip="All figures as JSON."),
                *(
                    io.Float.Output(display_name=name, tooltip="NaN where it was not measured; see the table.")
                    for name in FIGURES
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        images: Tensor,
        reference: Tensor | None = None,
        mask: Tensor | None = None,
        borders: str = "",
        optical_flow=None,
        clip_vision=None,
        clip=None,
        text: str = "",
    ) -> io.NodeOutput:
        if mask is not None and reference is None:
            raise ValueError("a mask says where the clip must equal the reference; connect the reference too.")
        if text.strip() and (clip is None or clip_vision is None):
            raise ValueError(
                "text alignment needs clip_vision and clip, of one CLIP model; connect both or empty text."
            )
        more = []
        if clip_vision is not None:
            wanted = vision.text_features(clip, text) if text.strip() else None
            more.append(Consistency(vision.image_encoder(clip_vision), wanted))
        check_pixels(images)
        numbers = border_frames(borders, len(images))
        progress = host_device.ProgressBar(len(images))

        def on_frame() -> None:
            host_device.stop_if_interrupted()
            progress.update(1)

        report = measure_clip(
            images,
            reference=reference,
            known=None if mask is None else (mask.reshape(-1, *mask.shape[-2:]) <= 0).float(),
            borders=numbers,
            flow=None if optical_flow is None else vision.optical_flow(optical_flow),
            more=more,
            on_frame=on_frame,
        )
        plot = torch.from_numpy(np.asarray(draw_curves(report.curves, numbers)).copy())[None] / 255.0
        floats = [report.values.get(name, float("nan")) for name in FIGURES]
        shown = {**ui.PreviewImage(plot, cls=cls).as_dict(), "text": (report.table(),)}
        return io.NodeOutput(report.table(), plot, json.dumps(report.values), *floats, ui=shown)


class LumiereXTSlice(io.ComfyNode):
    """One line of pixels over time, as in the paper's figure 2."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereXTSlice",
            display_name="X-T Slice (Lumiere)",
            category="lumiere/measure",
            description="Lays one row or column of pixels of every frame below that of the frame before. What moves "
            "steadily draws a slanted line, what repeats draws waves, a cut draws a step.",
            search_aliases=["slit scan", "temporal slice", "space-time slice"],
            inputs=[
                io.Image.Input("images", tooltip="The frames of one clip."),
                io.Combo.Input("direction", options=["row", "column"], default="row", tooltip="The line of pixels."),
                io.Float.Input(
                    "position",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where the line is: 0 = top or left, 1 = bottom or right.",
                ),
                io.Int.Input("scale", default=4, min=1, max=64, tooltip="Pixels become squares of so many pixels."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="Time runs downwards, a line a frame.")],
        )

    @classmethod
    def execute(cls, images: Tensor, direction: str, position: float, scale: int) -> io.NodeOutput:
        check_pixels(images)
        images = images.float()  # a host may keep images in half precision
        side, length = images.shape[1:3] if direction == "row" else images.shape[2:0:-1]
        wide, high = length * scale, len(images) * scale
        if wide * high > MOST_PIXELS:
            raise ValueError(f"the picture would have {wide}x{high} pixels; a scale below {scale} is wanted.")
        line = line_over_time(images, direction, min(side - 1, int(position * side)), scale)
        return io.NodeOutput(torch.from_numpy(np.ascontiguousarray(line[..., :3]))[None])


class LumiereCompareClips(io.ComfyNode):
    """Two clips side by side."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereCompareClips",
            display_name="Compare Clips (Lumiere)",
            category="lumiere/measure",
            description="Lays two clips side by side with labels above and what differs between them at the right.",
            search_aliases=["side by side", "ab test", "difference", "video compare"],
            has_intermediate_output=True,
            inputs=[
                io.MultiType.Input(
                    io.Image.Input("images_a", tooltip="The clip at the left: images or a video."), [io.Image, io.Video]
                ),
                io.MultiType.Input(
                    io.Image.Input("images_b", tooltip="The clip at its right, scaled to the same height."),
                    [io.Image, io.Video],
                ),
                io.String.Input("label_a", default="A"),
                io.String.Input("label_b", default="B"),
                io.Float.Input(
                    "difference",
                    default=4.0,
                    min=0.0,
                    max=255.0,
                    step=0.5,
                    tooltip="How often the difference is multiplied to be seen; 0 = leave it out.",
                ),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="As long as the shorter clip.")],
        )

    @classmethod
    def execute(
        cls,
        images_a: Tensor | Input.Video,
        images_b: Tensor | Input.Video,
        label_a: str,
        label_b: str,
        difference: float,
    ) -> io.NodeOutput:
        a, b = (clip if torch.is_tensor(clip) else clip.get_components().images for clip in (images_a, images_b))
        check_pixels(a, "images_a")
        check_pixels(b, "images_b")
        frames = side_by_side(_bytes(a), _bytes(b), (label_a, label_b), difference)
        shown = {"a": live.sheet_of(a), "b": live.sheet_of(b), "labels": [label_a, label_b]} if live.watched() else None
        images = torch.stack([torch.from_numpy(frame).float() / 255.0 for frame in frames])
        return io.NodeOutput(images, ui=shown and {"lumiere_compare": (shown,)})


def border_frames(text: str, length: int) -> list[int]:
    """Read "16, 32" or "every 16" as numbers of frames of a clip.

    Raises:
        ValueError: other words.
    """
    every = re.fullmatch(r"\s*every\s+([1-9]\d{0,8})\s*", text)
    if every:
        step = int(every[1])
        return list(range(step, length, step))
    words = text.replace(",", " ").split()
    if not all(word.isdecimal() and len(word) < 10 for word in words):
        raise ValueError(f"the borders are {text!r}; frame numbers such as 16, 32 are wanted, or every 16.")
    return [int(word) for word in words]


def _bytes(images: Tensor):
    """Yield the frames of an IMAGE as (h, w, 3) uint8."""
    for image in images:
        if image.shape[-1] < 3:  # grey, perhaps with alpha
            image = image[..., :1].expand(-1, -1, 3)
        yield (image[..., :3].float() * 255).round().clamp(0, 255).byte().cpu().numpy()
