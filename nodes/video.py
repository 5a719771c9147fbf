"""A VIDEO that says, in the file that any node saves of it, that it was generated and by which weights."""

from __future__ import annotations

import os
from fractions import Fraction
from io import BytesIO

from comfy.cli_args import args
from comfy_api.v0_0_2 import Input, Types, io

from ..lumiere_core.files import atomic
from ..lumiere_core.provenance import generated_by
from .host.inflate import inflation_of


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
        if not args.disable_metadata:
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
            ],
            outputs=[io.Video.Output()],
        )

    @classmethod
    def execute(cls, video, model) -> io.NodeOutput:
        inflation = inflation_of(model)
        if inflation is None:
            raise ValueError(
                "this MODEL does not know its weights: it has no temporal layers of Lumiere. "
                "Connect the MODEL that sampled the clip."
            )
        remarks = [] if inflation.image_recorded else ["image checkpoint not recorded"]
        if model.patches:
            remarks.append("image weights changed by patches (LoRA or merge)")
        label = generated_by(inflation.sha256, remarks)
        if isinstance(video, LabelledVideo):  # another MODEL made it first
            video, label = video.video, f"{video.label}; {label}"
        return io.NodeOutput(LabelledVideo(video, label))
