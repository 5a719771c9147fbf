"""Public motion modules on the host: where they lie, how they are read, and the noise levels that they were trained on."""

from __future__ import annotations

import dataclasses
import logging
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.lora
import comfy.model_base
import comfy.model_patcher
import comfy.utils
import folder_paths
from torch import Tensor

from ...lumiere_core.nets.checkpoint import sha256
from ...lumiere_core.nets.config import TemporalConfig, UNetConfig
from ...lumiere_core.nets.motion_files import MotionFile, Training, read_motion_module
from ...lumiere_core.nets.motion_lora import read_motion_lora
from . import models
from .handlers import temporal_patcher
from .inflate import Inflation
from .keys import KEY

# AnimateDiff-Evolved's names, so that the two packs share their files.
MODULES, LORAS = "animatediff_models", "animatediff_motion_lora"
# The host's words for the schedules: its "linear" is linear in the root of beta.
_HOST_WORDS = {"linear": "sqrt_linear", "scaled_linear": "linear"}


def register_folders() -> None:
    """Make the folders of motion modules and motion LoRAs known to the host; AnimateDiff-Evolved adds its own to them."""
    for name in (MODULES, LORAS):
        models.add_folder(name, set(folder_paths.supported_pt_extensions))


def module_names() -> list[str]:
    """Return the files of models/animatediff_models, and those of models/lumiere that are not safetensors."""
    own = folder_paths.get_filename_list(models.FOLDER)
    shown = set(models.checkpoint_names())
    return list(dict.fromkeys(n for n in (*own, *folder_paths.get_filename_list(MODULES)) if n not in shown))


def lora_names() -> list[str]:
    """Return the files of models/animatediff_motion_lora."""
    return folder_paths.get_filename_list(LORAS)


def module_path(name: str) -> Path:
    """Return the file of one of `module_names`.

    Raises:
        FileNotFoundError: it is gone.
    """
    own = folder_paths.get_full_path(models.FOLDER, name)
    return Path(own or folder_paths.get_full_path_or_raise(MODULES, name))


def lora_path(name: str) -> Path:
    """Return the file of one of `lora_names`.

    Raises:
        FileNotFoundError: it is gone.
    """
    return Path(folder_paths.get_full_path_or_raise(LORAS, name))


def lora_patches(
    path: Path, patcher: comfy.model_patcher.ModelPatcher, unet_config: UNetConfig, config: TemporalConfig
) -> tuple[dict[str, Any], list[str]]:
    """Return (the host's patches of a motion LoRA for temporal layers, layers that they do not have).

    Raises:
        ValueError: the file is damaged, no motion LoRA, or for other temporal layers.
    """
    weights = patcher.model.state_dict()
    found, left_out = read_motion_lora(read_weights(path), weights, unet_config, config=config, name=path.name)
    names = {"up": "lora_up.weight", "down": "lora_down.weight", "alpha": "alpha"}
    lora = {f"{layer}.{names[part]}": value for layer, parts in found.items() for part, value in parts.items()}
    return comfy.lora.load_lora(lora, {layer: f"{layer}.weight" for layer in found}), left_out


def with_lora(
    model: comfy.model_patcher.ModelPatcher, inflation: Inflation, path: Path, strength: float
) -> comfy.model_patcher.ModelPatcher:
    """Return a clone of a MODEL with a motion LoRA on its temporal layers, and the file among those that its label names.

    Raises:
        ValueError: see `lora_patches`.
    """
    model = model.clone()
    patcher = temporal_patcher(model)
    patches, left_out = lora_patches(path, patcher, inflation.unet_config, inflation.temporal_config)
    patcher.add_patches(patches, strength)
    if left_out:
        logging.warning(
            f"Lumiere: {path.name}: {len(left_out)} changes are for a middle block that this motion module does not follow; "
            "they are left out."
        )
    hashes = {**inflation.sha256, path.name: sha256(path)}
    model.set_attachments(KEY, dataclasses.replace(inflation, sha256=hashes))
    return model


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file of any layout by the host's loader, which takes nothing but weights from it.

    Raises:
        ValueError: it is damaged, or holds more than weights.
    """
    try:
        state = comfy.utils.load_torch_file(str(path), safe_load=True)
        return {key: value for key, value in state.items() if isinstance(value, Tensor)}  # not the number of a step
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name} holds more than weights, or is damaged, and is not loaded ({_reason(error)}). Get the "
            "file as safetensors, or from where its authors publish it."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle or archive fails as anything: KeyError, struct.error, IndexError
        raise ValueError(
            f"{path.name} ({path.stat().st_size:,} bytes) cannot be read ({_reason(error)}). It may be "
            "truncated or of another format; download or copy it again."
        ) from error


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def read_module(path: Path, unet_config: UNetConfig) -> MotionFile:
    """Read a public motion module for a MODEL's U-Net; see `read_motion_module`."""
    return read_motion_module(read_weights(path), unet_config, path.name)


def read_module_state(path: Path, unet_config: UNetConfig) -> dict[str, Tensor]:
    """Return the weights alone, for a copy of the MODEL."""
    return read_module(path, unet_config).state


def set_betas(model: comfy.model_patcher.ModelPatcher, training: Training, wanted: str = "auto") -> str:
    """Put the noise levels of a module's training on a MODEL, and return what was done as a sentence.

    A sampling that a node before has set on the MODEL (LCM, zero SNR) is its user's choice and stays.
    """
    if training.betas is None:
        return "noise schedule: the image model's, as the motion module was trained."
    kind, first, last = training.betas
    said = f"{kind.replace('_', ' ')}, beta {first:g} to {last:g}"
    if wanted == "keep":
        return f"noise schedule: the MODEL's own, as asked; the motion module was trained on {said}."
    if "model_sampling" in model.object_patches:
        text = f"noise schedule: that of the sampling node before is kept; the motion module was trained on {said}."
        logging.warning(f"Lumiere: {text}")
        return text
    settings = {"beta_schedule": _HOST_WORDS[kind], "linear_start": first, "linear_end": last}
    config = SimpleNamespace(sampling_settings=settings)
    model.add_object_patch("model_sampling", comfy.model_base.model_sampling(config, model.model.model_type))
    return f"noise schedule: {said}, as {training.title} was trained."
