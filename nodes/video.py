"""A VIDEO that says, in the file that any node saves of it, that it was generated and by which weights."""

from __future__ import annotations

import json
import os
import tempfile
import time
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import torch
from comfy_api.v0_0_2 import Input, InputImpl, Types, io, ui

from ..lumiere_core.files import atomic
from ..lumiere_core.provenance import generated_by, watermark
from ..lumiere_core.provenance.credentials import sign_if_wanted, wanted
from ..lumiere_core.provenance.read import read_origin
from .host import device
from .host.inflate import image_hashes, inflation_of


class LabelledVideo(Input.Video):
    """Another VIDEO with a metadata field more in its files; files appear only when they are complete."""

    def __init__(self, video: Input.Video, label: str) -> None:
        self.video, self.label = video, label

    def save_to(
        self,
        path: str | BytesIO,
        format: Types.VideoContainer = Types.VideoContainer.AUTO,
        codec: Types.VideoCodec = Types.VideoCodec.AUTO,
        metadata: dict | None = None,
        **kwargs,
    ) -> None:
        """Write the video with the host's metadata and ours."""
        if device.metadata_wanted():
            metadata = {**(metadata or {}), "comment": self.label}
        width, height = self.video.get_dimensions()
        if width % 2 or height % 2:
            raise ValueError(
                f"the video has frames of {width}x{height} pixels; H.264 needs an even width and height. "
                "Scale the images to an even size, for example with Upscale Image, before Create Video."
            )
        if not isinstance(path, (str, os.PathLike)):
            self.video.save_to(path, format=format, codec=codec, metadata=metadata, **kwargs)
            return
        # The host opens the final name at once: a full disk would leave half a file there.
        with atomic(path) as partial:
            self.video.save_to(str(partial), format=format, codec=codec, metadata=metadata, **kwargs)
            sign_if_wanted(partial, self.label)

    def get_components(self) -> Types.VideoComponents:
        return self.video.get_components()

    def get_dimensions(self) -> tuple[int, int]:
        return self.video.get_dimensions()

    def get_duration(self) -> float:
        return self.video.get_duration()

    def get_frame_count(self) -> int:
        return self.video.get_frame_count()

    def get_frame_rate(self) -> Fraction:
        return self.video.get_frame_rate()

    def get_bit_depth(self) -> int:
        return self.video.get_bit_depth()

    def as_trimmed(self, *args, **kwargs) -> Input.Video | None:
        trimmed = self.video.as_trimmed(*args, **kwargs)
        return trimmed and LabelledVideo(trimmed, self.label)


class LumiereLabelVideo(io.ComfyNode):
    """Provenance of a generated clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereLabelVideo",
            display_name="Label Video as Generated (Lumiere)",
            category="lumiere/video",
            description="Adds to the saved file a comment that says the clip was generated, and the SHA-256 of the "
            "weights. Put it between Create Video and Save Video; where two MODELs made the clip, once for each.",
            search_aliases=["provenance", "metadata", "watermark"],
            inputs=[
                io.Video.Input("video"),
                io.Model.Input("model", tooltip="The MODEL that made the clip; it knows its weights."),
                io.Boolean.Input(
                    "watermark",
                    default=False,
                    optional=True,
                    tooltip="Put an invisible mark into every frame too, which a new encoding leaves; needs the package "
                    "invisible-watermark and 256x256 pixels.",
                ),
            ],
            outputs=[io.Video.Output()],
        )

    @classmethod
    def execute(cls, video, model, watermark: bool = False) -> io.NodeOutput:
        wanted()  # a certificate that is not there is said now, not when the file is saved
        inflation = inflation_of(model)
        sha256 = image_hashes(model) if inflation is None else inflation.sha256
        if inflation is None and not sha256:
            raise ValueError(
                "this MODEL does not know its weights: it has no temporal layers of Lumiere, and its loader left no word of "
                "its file. Connect the MODEL that sampled the clip."
            )
        remarks = ["image checkpoint not recorded"] if inflation and not inflation.image_recorded else []
        if model.patches:
            remarks.append("image weights changed by patches (LoRA or merge)")
        label = generated_by(sha256, remarks)
        if isinstance(video, LabelledVideo):  # another MODEL made it first
            video, label = video.video, f"{video.label}; {label}"
        return io.NodeOutput(LabelledVideo(_marked(video) if watermark else video, label))


class LumiereReadLabel(io.ComfyNode):
    """What a video says of how it was made."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereReadLabel",
            display_name="Read Label (Lumiere)",
            category="lumiere",
            description="Says what made a video, as far as its file says it: the label of this pack, ComfyUI's workflow "
            "with its weights and seeds, Content Credentials, and the invisible mark. For files of any model.",
            search_aliases=["provenance", "metadata", "c2pa", "content credentials", "watermark"],
            inputs=[
                io.Video.Input("video", tooltip="From Load Video: the file is read as it is."),
                io.Boolean.Input(
                    "look_for_watermark",
                    default=False,
                    tooltip="Look for this pack's invisible mark in the first frames; needs invisible-watermark.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="text", tooltip="Everything, line by line."),
                io.Boolean.Output(display_name="generated", tooltip="Whether anything says that a model made it."),
                io.String.Output(display_name="label", tooltip="The sentence of this pack; empty without one."),
                io.String.Output(display_name="workflow", tooltip="ComfyUI's graph as JSON; empty without one."),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> float:
        return time.time()  # a file may be another under the same name

    @classmethod
    def execute(cls, video, look_for_watermark: bool) -> io.NodeOutput:
        try:
            source = video.get_stream_source()
        except Exception as error:  # frames of the graph, which no encoder takes
            raise ValueError(
                f"this VIDEO comes from no file, and its frames cannot be put into one ({error}). Connect Load Video, or "
                "frames of an even width and height."
            ) from error
        if isinstance(source, (str, os.PathLike)):
            origin = read_origin(source, look_for_watermark)
        else:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "video.mp4"
                file.write_bytes(source.read())
                origin = read_origin(file, look_for_watermark)
        text = "\n".join(origin.lines())
        workflow = json.dumps(origin.workflow) if origin.workflow else ""
        return io.NodeOutput(text, origin.generated, origin.label, workflow, ui=ui.PreviewText(text))


def _marked(video: Input.Video) -> Input.Video:
    """A video with the invisible mark in every frame."""
    parts = video.get_components()
    frames = ((image[..., :3] * 255).round().byte().cpu().numpy() for image in parts.images)
    images = torch.stack([torch.from_numpy(frame).float() / 255.0 for frame in watermark.mark(frames)])
    return InputImpl.VideoFromComponents(
        Types.VideoComponents(images=images, audio=parts.audio, frame_rate=parts.frame_rate)
    )
