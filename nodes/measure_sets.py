"""How far a folder of clips is from another, by a network of features that the user supplies."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.v0_0_2 import io, ui

from ..lumiere_core.measures.features.network import PUBLISHERS, RESIZES
from .host import device as host_device
from .host.models import FEATURES


class LumiereMeasureSets(io.ComfyNode):
    """How far a folder of clips is from a folder of real ones."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = folder_paths.get_filename_list(FEATURES)
        return io.Schema(
            node_id="LumiereMeasureSets",
            display_name="Measure Sets of Clips (Lumiere)",
            category="lumiere/measure",
            description="Fréchet and kernel distance (FVD, KVD) of two folders of clips, and the Inception Score, by a "
            "network of features that you supply. Clips already seen are not read again.",
            search_aliases=["fvd", "kvd", "frechet video distance", "inception score"],
            inputs=[
                io.String.Input("real", default="real", tooltip="Folder of the real clips, below input or output."),
                io.String.Input("made", default="made", tooltip="Folder of the clips to judge, below output or input."),
                io.Combo.Input(
                    "network",
                    options=names or ["i3d.safetensors"],
                    tooltip=f"File in models/{FEATURES}: I3D or C3D as safetensors, an ONNX file, or a folder of "
                    "VideoMAE or V-JEPA 2.",
                ),
                io.Int.Input("frames", default=16, min=1, max=512, tooltip="Frames of each clip, from its first."),
                io.Float.Input(
                    "fps", default=0.0, min=0.0, max=240.0, step=0.01, tooltip="Frames a second; 0 = each clip's own."
                ),
                io.Combo.Input(
                    "resize",
                    options=list(RESIZES),
                    default="crop",
                    tooltip="; ".join(f"{name}: {text}" for name, text in RESIZES.items()),
                ),
            ],
            outputs=[
                io.String.Output(display_name="table", tooltip="Every figure with all that it depends on."),
                io.Float.Output(display_name="frechet", tooltip="Fréchet distance; FVD with I3D. 0 = equal."),
                io.Float.Output(display_name="kernel", tooltip="Unbiased kernel distance; the one for few clips."),
                io.Float.Output(display_name="inception", tooltip="Inception Score; NaN without classes."),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, network: str):
        path = folder_paths.get_full_path(FEATURES, network)
        if path is not None:
            return True
        folder = folder_paths.get_folder_paths(FEATURES)[0]
        return f"no file {network} in {folder}. Put a network of features there. Publishers: {PUBLISHERS}."

    @classmethod
    def execute(cls, real: str, made: str, network: str, frames: int, fps: float, resize: str) -> io.NodeOutput:
        from ..lumiere_core.evaluation.video_set import Protocol, read_set, videos_in
        from ..lumiere_core.measures.features import load_network
        from ..lumiere_core.measures.sets import compare_sets

        folders = [clip_folder(name) for name in (real, made)]
        path = Path(folder_paths.get_full_path_or_raise(FEATURES, network))
        device = host_device.compute_device()
        net = load_network(path.parent if (path.parent / "config.json").is_file() else path, str(device))
        protocol = Protocol(frames, fps, resize)
        files = [videos_in(folder) for folder in folders]
        progress = host_device.ProgressBar(sum(map(len, files)))

        def on_clip(done: int, total: int) -> None:
            host_device.stop_if_interrupted()
            progress.update(1)

        cache = Path(folder_paths.get_user_directory()) / "lumiere" / "features.jsonl"
        sets = [
            read_set(paths, folder.name, net, protocol=protocol, cache=cache, on_clip=on_clip)
            for paths, folder in zip(files, folders, strict=True)
        ]
        report = compare_sets(*sets, protocol.text(net), classes=net.classes)
        value = report.values
        table = report.table()
        return io.NodeOutput(
            table, value["frechet"], value["kernel"], value.get("inception", float("nan")), ui=ui.PreviewText(table)
        )


def clip_folder(name: str) -> Path:
    """Return a folder of clips below the host's output or input folder.

    Raises:
        ValueError: it lies elsewhere.
        FileNotFoundError: there is none.
    """
    roots = [folder_paths.get_output_directory(), folder_paths.get_input_directory()]
    for root in roots:
        path = (Path(root) / name).resolve()
        if not folder_paths.is_within_directory(root, str(path)):
            raise ValueError(f"the folder {name!r} lies outside of ComfyUI's output and input folders; move it there.")
        if path.is_dir():
            return path
    raise FileNotFoundError(f"no folder {name!r} in {roots[0]} or {roots[1]}.")
