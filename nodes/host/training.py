"""The command line's trainer on a MODEL and on videos of the graph."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
from pathlib import Path
from typing import Any

import comfy.model_management as model_management
import comfy.sd
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.v0_0_2 import io, ui
from torch import Tensor

from ...lumiere_core.dataset.cache import Settings
from ...lumiere_core.dataset.reader import open_clips
from ...lumiere_core.diffusion.models import Models
from ...lumiere_core.diffusion.schedule import Schedule
from ...lumiere_core.files import check_target, copy
from ...lumiere_core.nets.checkpoint import Parts, load_parts, sha256
from ...lumiere_core.nets.config import TemporalConfig
from ...lumiere_core.nets.temporal import TemporalLayers
from ...lumiere_core.nets.unet import UNet
from ...lumiere_core.training.layers import own_config, start_layers
from ...lumiere_core.training.loop import train
from ...lumiere_core.training.memory import measured_bytes, readable
from ...lumiere_core.training.options import FIELDS, TrainOptions
from ...lumiere_core.training.parts import DeltasPart
from ...lumiere_core.training.run import Run
from ...lumiere_core.training.sources.pictures import EncodedPictures
from ...lumiere_core.training.stages import cached_clips_run, check_enlarges, lora_clips_run
from ...lumiere_core.training.state import FILE, is_of
from . import models, motion
from .encoders import HostEncoders
from .handlers import temporal_patcher
from .inflate import image_hashes, inflate, inflation_of, unet_config_of
from .live_training import TrainingNews
from .training_data import clips_of, pictures_of

LORA = "motion-lora"
PREFIX = "diffusion_model."
PREVIEW_SIZE = 512
COPIES = 4  # of each clip, with a part greyed before it is encoded


def run(
    node: type[io.ComfyNode],
    model: Any,
    clip: Any,
    vae: Any,
    videos: list,
    texts: list[str],
    name: str,
    wanted: Settings,
    stage: str,
    options: dict[str, Any],
    changed: set[str],
) -> io.NodeOutput:
    """Train, publish the file, and return the node's outputs.

    Args:
        node: whose preview is shown.
        name: of the file in models/lumiere, of a style's in models/loras, or of a motion LoRA's in its folder.
        stage: temporal, condition, style or motion-lora.
        options: of `TrainOptions`.
        changed: names of those that differ from the node's defaults.

    Raises:
        ValueError: the stage cannot honour an option, the MODEL cannot be trained, or no video gives a clip.
    """
    captions, device = _captions(texts, len(videos)), model_management.get_torch_device()
    if stage == LORA and inflation_of(model) is None:
        raise ValueError(
            "a motion LoRA changes temporal layers, and this MODEL has none. Put Apply Lumiere Temporal Layers before this node."
        )
    chosen = _options(stage, options, changed, wanted=wanted, device=str(device))
    stem = _stem(name)
    # Graphs run in inference mode; what is made in it can never have gradients.
    with torch.inference_mode(False), torch.enable_grad():
        frozen, encoders = _image_model(model, clip, vae)
        if stage == "style":
            trainer = _style(
                frozen, encoders, videos=videos, captions=captions, wanted=wanted, options=chosen, name=stem
            )
        else:
            check_enlarges(stage, frozen.unet.config)
            copies = COPIES if stage == "condition" and encoders.backbone["ratio"] > 1 else 0
            cache = clips_of(encoders, videos, captions, dataclasses.replace(wanted, conditions=copies))
            layers = _layers(model, frozen, wanted, options=chosen, conv_cond=stage == "condition")
            build = lora_clips_run if stage == LORA else cached_clips_run
            trainer = build(stage, dataclasses.replace(frozen, temporal=layers), open_clips(cache.folder), chosen)
        model_management.unload_all_models()
        target, folder = _place(stem, {"style": "loras", LORA: motion.LORAS}.get(stage, models.FOLDER), trainer)
        logging.info(f"Lumiere: {trainer.about}")
        watch = _Watch(folder, chosen.steps)
        train(trainer, folder, resume=(folder / FILE).is_file(), progress=False, on_step=watch)
        logging.info(f"Lumiere: measured peak memory {readable(measured_bytes(str(device)))}")
        copy(folder / trainer.part.file, target)
        logging.info(f"Lumiere: {trainer.part.name} saved to {target}")
    model_management.throw_exception_if_processing_interrupted()  # saved; now the graph may stop
    if stage == "style":
        trained = _styled(model, target)
    elif stage == LORA:
        trained = motion.with_lora(model, inflation_of(model), target, 1.0)
    else:
        trained = _inflated(model, trainer.part.models.temporal.config, target)
    sheets = sorted((folder / "samples").glob("*.png"))
    shown = ui.PreviewImage(_picture(sheets[-1]), cls=node).as_dict() if sheets else {}
    text = f"{target.name}: {trainer.source.describe()}, {len(watch.losses)} steps; log and samples in {folder}"
    return io.NodeOutput(trained, {"loss": watch.losses}, target.name, ui={**shown, "text": (text,)})


def _options(stage: str, options: dict[str, Any], changed: set[str], wanted: Settings, device: str) -> TrainOptions:
    """Return the trainer's options of a stage; what the stage has no use for must be as it was."""
    source = {"style": "encoded-pictures", LORA: "cached-clips-lora"}.get(stage, "cached-clips")
    mine = {k: v for k, v in options.items() if source in FIELDS[k].metadata["sources"]}
    size = {"height": wanted.size, "width": wanted.size} if stage == "style" else {}
    mine["minutes"] = mine["minutes"] or None
    mine["warmup"] = mine["warmup"] or min(100, max(1, mine["steps"] // 10))
    chosen = TrainOptions(device=device, **mine, **size)
    chosen.refuse(source, changed)
    return chosen


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


def _stem(name: str) -> str:
    """Return a name that came with a workflow, without its suffix and what is no part of a file's name.

    Raises:
        ValueError: nothing is left of it.
    """
    stem = re.sub(r"[^\w\- ]+", "_", name.removesuffix(".safetensors")).strip(" _")
    if not stem:
        raise ValueError(f"the name {name!r} has no letter or digit; wanted is one for a file.")
    return stem


def _place(stem: str, kind: str, trainer: Run) -> tuple[Path, Path]:
    """Return where the file goes, and the folder of the run: of the first number after the name that is free.

    A run that was killed before it gave a file goes on where it was; one with other clips or options stays as it is.
    """
    output, number = Path(folder_paths.get_output_directory()) / "lumiere", 1
    while True:
        name = stem if number == 1 else f"{stem}_{number}"
        target, folder = Path(folder_paths.get_folder_paths(kind)[0]) / f"{name}.safetensors", output / name
        check_target(target)
        taken = (folder / FILE).is_file() and not is_of(folder, trainer.name, trainer.options, trainer.data)
        if not target.exists() and not taken:
            return target, folder
        number += 1


def _image_model(model: Any, clip: Any, vae: Any) -> tuple[Models, HostEncoders]:
    """Copy the MODEL's U-Net, with its patches, into the trainer's classes."""
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
    inflation = inflation_of(model)
    with torch.device("meta"):
        unet = UNet(inflation.unet_config if inflation else unet_config_of(model))
    unet.load_state_dict(state, assign=True)
    return Models(None, unet, None, Schedule(**encoders.backbone["schedule"])), encoders


def _layers(model: Any, frozen: Models, wanted: Settings, options: TrainOptions, conv_cond: bool) -> TemporalLayers:
    """Return the MODEL's own temporal layers, or fresh ones."""
    config, clips = frozen.unet.config, {"frames_per_clip": wanted.frames, "fps": wanted.fps}
    inflation, patcher = inflation_of(model), temporal_patcher(model)
    if inflation is None or patcher is None:
        return start_layers(config, own_config(config), options, start=None, conv_cond=conv_cond, **clips)
    own = {"unet": config.to_dict(), "temporal": inflation.temporal_config.to_dict()}
    state = {k: torch.empty(v.shape).copy_(v) for k, v in patcher.model.state_dict().items()}
    parts = Parts(config=own, temporal=state, sha256={inflation.title: ""})
    return start_layers(config, {}, options, start=parts, conv_cond=conv_cond, **clips)


def _style(
    frozen: Models,
    encoders: HostEncoders,
    videos: list,
    captions: list[str],
    wanted: Settings,
    options: TrainOptions,
    name: str,
) -> Run:
    """Return the run of a LoRA on the frames of videos, which are pictures of a style."""
    file = Path(folder_paths.get_temp_directory()) / "lumiere" / f"{name} pictures.safetensors"
    pictures_of(encoders, videos, captions, size=wanted.size, words=options.words, file=file)
    style = {"name": name, "words": options.words, "base": f"MODEL {encoders.backbone['sha256']['MODEL']}"}
    auto = "all" if encoders.backbone["ratio"] == 1 else "attention"
    source, part = EncodedPictures(options, file), DeltasPart(frozen, options, style, auto)
    return Run("style", options, source, part, about=f"a style of {source.describe()}")


def _inflated(model: Any, config: TemporalConfig, target: Path) -> Any:
    """Return the MODEL with the layers of a file."""
    before, image = inflation_of(model), image_hashes(model)
    training = before.training if before else None
    return inflate(
        model,
        load_parts(target).temporal,
        config,
        before.frames_per_clip if before else 0,
        title=target.name,
        sha256={**image, **(before.sha256 if before else {}), target.name: sha256(target)},
        image_recorded=bool(image),
        training=training,
        norms="clip" if training is not None and training.clip_norms else "frame",
    )


def _styled(model: Any, target: Path) -> Any:
    """Return the MODEL with a LoRA file at full strength, as the stock loader gives it."""
    lora = comfy.utils.load_torch_file(str(target), safe_load=True)
    return comfy.sd.load_lora_for_models(model, None, lora, strength_model=1.0, strength_clip=0.0)[0]


def _picture(path: Path) -> Tensor:
    from PIL import Image

    with Image.open(path) as picture:
        return torch.from_numpy(np.asarray(picture.convert("RGB")).astype(np.float32) / 255)[None]
