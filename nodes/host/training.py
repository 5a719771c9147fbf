"""The command line's trainer on a MODEL and on videos of the graph."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import comfy.model_management as model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.v0_0_2 import io, ui
from torch import Tensor

from ...lumiere_core.dataset.cache import Cache, Entry, Settings
from ...lumiere_core.dataset.decode import Report, Unusable, frames_at
from ...lumiere_core.dataset.prepare import linear_preview, store_pieces
from ...lumiere_core.dataset.reader import open_clips
from ...lumiere_core.dataset.segments import buckets, split
from ...lumiere_core.diffusion.models import Models
from ...lumiere_core.diffusion.schedule import Schedule
from ...lumiere_core.files import copy
from ...lumiere_core.nets.checkpoint import load_parts, sha256
from ...lumiere_core.nets.temporal import TemporalLayers
from ...lumiere_core.nets.unet import UNet
from ...lumiere_core.training.layers import own_config, start_layers
from ...lumiere_core.training.loop import train
from ...lumiere_core.training.memory import measured_bytes, readable
from ...lumiere_core.training.options import TrainOptions
from ...lumiere_core.training.stages import cached_clips_run
from . import models
from .encoders import HostEncoders
from .handlers import temporal_patcher
from .inflate import image_hashes, inflate, inflation_of, unet_config_of
from .live_training import TrainingNews

PREFIX = "diffusion_model."
PREVIEW_SIZE = 512


def run(
    node: type[io.ComfyNode],
    model: Any,
    clip: Any,
    vae: Any,
    videos: list,
    texts: list[str],
    name: str,
    wanted: Settings,
    **options: Any,
) -> io.NodeOutput:
    """Train, publish the file, and return the node's outputs.

    Args:
        node: whose preview is shown.
        name: of the file in models/lumiere.
        options: of `TrainOptions`.

    Raises:
        ValueError: the MODEL cannot be trained, or no video gives a clip.
    """
    captions = _captions(texts, len(videos))
    target = _free_path(name)
    device = model_management.get_torch_device()
    chosen = TrainOptions(
        device=str(device), save_every=300.0, num_frames=0, warmup=min(100, max(1, options["steps"] // 10)), **options
    )
    # Graphs run in inference mode; what is made in it can never have gradients.
    with torch.inference_mode(False), torch.enable_grad():
        unet, temporal, encoders = _parts(model, clip, vae, wanted, chosen)
        cache = _cache(encoders, videos, captions, wanted)
        model_management.unload_all_models()
        networks = Models(None, unet, temporal, Schedule(**encoders.backbone["schedule"]))
        trainer = cached_clips_run("temporal", networks, open_clips(cache.folder), chosen)
        logging.info(f"Lumiere: {trainer.about}")
        folder = Path(folder_paths.get_output_directory()) / "lumiere" / target.stem
        watch = _Watch(folder, chosen.steps)
        train(trainer, _fresh(folder), progress=False, on_step=watch)
        logging.info(f"Lumiere: measured peak memory {readable(measured_bytes(str(device)))}")
        state = _publish(watch.folder / "temporal.safetensors", target)
    model_management.throw_exception_if_processing_interrupted()  # saved; now the graph may stop
    before = inflation_of(model)
    image = image_hashes(model)
    hashes = {**image, **(before.sha256 if before else {}), target.name: sha256(target)}
    trained = inflate(
        model,
        state,
        temporal.config,
        before.frames_per_clip if before else 0,
        title=target.name,
        sha256=hashes,
        image_recorded=bool(image),
    )
    sheets = sorted((watch.folder / "samples").glob("*.png"))
    shown = ui.PreviewImage(_picture(sheets[-1]), cls=node).as_dict() if sheets else {}
    text = f"{target.name}: {trainer.source.facts()['clips']} clips, {len(watch.losses)} steps; log and samples in {watch.folder}"
    return io.NodeOutput(trained, {"loss": watch.losses}, target.name, ui={**shown, "text": (text,)})


class _Watch:
    """Called after each step: progress bar, the newest samples as its picture, and Stop."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps = folder, steps
        self.losses: list[float] = []
        self.bar = comfy.utils.ProgressBar(steps)
        self.shown = ""
        self.news = TrainingNews(folder.name, steps)

    def __call__(self, step: int, record: dict[str, float]) -> bool:
        """Return whether to stop; the state and the weights are saved then."""
        self.losses.append(record["loss"])
        if model_management.processing_interrupted():
            return True
        self._show(step)
        return False

    def _show(self, step: int) -> None:
        sheets = sorted((self.folder / "samples").glob("*.png"))
        self.news(step, self.losses[-1], sheets[-1] if sheets else None)
        preview = None
        if sheets and sheets[-1].name != self.shown:
            from PIL import Image

            self.shown = sheets[-1].name
            with Image.open(sheets[-1]) as picture:
                preview = ("PNG", picture.convert("RGB"), PREVIEW_SIZE)
        try:
            self.bar.update_absolute(step, self.steps, preview)
        except model_management.InterruptProcessingException:
            # The bar checks for Stop too; that it was pressed must not be forgotten before all is saved.
            model_management.interrupt_current_processing(True)


def _captions(texts: list[str], count: int) -> list[str]:
    if len(texts) not in (1, count):
        raise ValueError(
            f"{count} videos and {len(texts)} texts were given; wanted is one text, or one for each video."
        )
    return list(texts) * (count if len(texts) == 1 else 1)


def _free_path(name: str) -> Path:
    """Return a free path in models/lumiere for a name that came with a workflow.

    Raises:
        ValueError: the name is none.
    """
    stem = re.sub(r"[^\w\- ]+", "_", name.removesuffix(".safetensors")).strip(" _")
    if not stem:
        raise ValueError(f"the name {name!r} has no letter or digit; wanted is one for a file.")
    folder = Path(folder_paths.get_folder_paths(models.FOLDER)[0])
    path, number = folder / f"{stem}.safetensors", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}_{number}.safetensors"
    return path


def _fresh(run: Path) -> Path:
    """Empty the folder of an earlier run of the same name whose weights are gone."""
    if run.exists():
        number = 2
        while run.with_name(f"{run.name}.old{number}").exists():
            number += 1
        run.rename(run.with_name(f"{run.name}.old{number}"))
    return run


def _parts(
    model: Any, clip: Any, vae: Any, wanted: Settings, options: TrainOptions
) -> tuple[UNet, TemporalLayers, HostEncoders]:
    """Copy the MODEL's U-Net, with its patches, into the trainer's classes; temporal layers of its own or fresh."""
    digest = hashlib.sha256()
    encoders = HostEncoders(model, clip, vae, {})
    with torch.inference_mode():  # loading applies LoRA and the like
        model_management.load_models_gpu([model], force_full_load=True)
        weights = model.model_state_dict(PREFIX)
        state = {k.removeprefix(PREFIX): v.detach().float().cpu().clone() for k, v in weights.items()}
    state = {k: torch.empty_like(v).copy_(v) for k, v in state.items()}  # no inference tensors
    for key in sorted(state):
        digest.update(state[key].flatten()[:64].numpy().tobytes())
    encoders.backbone["sha256"] = {"MODEL": digest.hexdigest()}
    inflation, patcher = inflation_of(model), temporal_patcher(model)
    config = inflation.unet_config if inflation else None
    config = config or unet_config_of(model)
    with torch.device("meta"):
        unet = UNet(config)
    unet.load_state_dict(state, assign=True)
    clips = {"frames_per_clip": wanted.frames, "fps": wanted.fps}
    if inflation is None or patcher is None:
        return unet, start_layers(config, own_config(config), options, **clips), encoders
    own = dataclasses.replace(inflation.temporal_config, **clips)
    temporal = TemporalLayers(config, own)
    temporal.load_state_dict({k: torch.empty(v.shape).copy_(v) for k, v in patcher.model.state_dict().items()})
    return unet, temporal, encoders


def _cache(encoders: HostEncoders, videos: list, captions: list[str], settings: Settings) -> Cache:
    """Encode the clips of all videos into a cache in the host's temporary folder.

    Raises:
        ValueError: no video gives a clip; the reasons are named.
    """
    key = hashlib.sha256(repr((settings, encoders.backbone["sha256"], captions)).encode())
    for video in videos:
        key.update(_fingerprint(video))
    folder = Path(folder_paths.get_temp_directory()) / "lumiere" / key.hexdigest()[:16]
    cache = Cache.create(folder, settings, encoders.backbone)
    sizes = buckets(settings.size, encoders.backbone["multiple"])
    bar = comfy.utils.ProgressBar(len(videos))
    reasons = []
    for number, (video, caption) in enumerate(zip(videos, captions, strict=True)):
        entry = Entry(id=f"{number:05d}", source=f"video {number}")
        report = Report()
        try:
            frames = _frames(video, settings.fps, report)
            with torch.inference_mode():  # what is stored is read back without it
                store_pieces(cache, encoders, caption, entry, split(frames, settings.frames, sizes))
        except Unusable as error:
            entry.reasons.append(str(error))
        entry.notes = report.notes
        reasons += [f"video {number}: {reason}" for reason in (*entry.reasons, *entry.notes)]
        cache.entries[entry.id] = entry
        bar.update(1)
    cache.write_index()
    for reason in reasons:
        logging.info(f"Lumiere: {reason}")
    if not cache.clips():
        raise ValueError(
            f"no video gives a clip of {settings.frames} frames at {settings.fps:g} a second: {'; '.join(reasons[:5])}. "
            "Use longer videos, or a smaller length."
        )
    with torch.inference_mode():
        linear_preview(cache, encoders)
    return cache


def _fingerprint(video: Any) -> bytes:
    source = video.get_stream_source() if hasattr(video, "get_stream_source") else None
    if isinstance(source, str):
        facts = Path(source).stat()
        return f"{source} {facts.st_size} {facts.st_mtime_ns}".encode()
    images = video.get_components().images
    return repr((tuple(images.shape), float(images.double().sum()))).encode()


def _frames(video: Any, fps: float, report: Report) -> Iterator[np.ndarray]:
    """Yield (h, w, 3) uint8 frames at a rate; files by their presentation times."""
    source = video.get_stream_source() if hasattr(video, "get_stream_source") else None
    if isinstance(source, str):
        yield from frames_at(Path(source), fps, report)
        return
    parts = video.get_components()
    images, rate = parts.images, Fraction(parts.frame_rate)
    report.decoded = len(images)
    for number in range(int(len(images) * fps / rate + 1e-6)):
        index = min(len(images) - 1, int(number * rate / Fraction(fps) + Fraction(1, 10**6)))
        yield (images[index, ..., :3] * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def _publish(source: Path, target: Path) -> dict[str, Tensor]:
    """Copy the weights into models/lumiere and return them."""
    copy(source, target)
    logging.info(f"Lumiere: temporal layers saved to {target}")
    return load_parts(target).temporal


def _picture(path: Path) -> Tensor:
    from PIL import Image

    with Image.open(path) as picture:
        return torch.from_numpy(np.asarray(picture.convert("RGB")).astype(np.float32) / 255)[None]
