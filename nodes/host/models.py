"""The seam to ComfyUI: model folders, choice of dtypes, patchers, and the layers and attention that core is given."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.model_management as model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import folder_paths
import torch
from comfy.ldm.modules.attention import attention_sub_quad, optimized_attention
from torch import Tensor

from ...lumiere_core.diffusion.models import BUNDLED_SSR, weight_files
from ...lumiere_core.files import check_target
from ...lumiere_core.nets.attention import scaled_dot_product
from ...lumiere_core.nets.checkpoint import bundled_names
from ...lumiere_core.nets.interpolate import STYLES

FOLDER = "lumiere"
FEATURES = "video_features"  # folder below models/ of networks that measures take features from
DTYPES = {"default": None, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_attention_overrides: contextvars.ContextVar[dict] = contextvars.ContextVar("lumiere_attention_overrides")


def register_folder() -> None:
    """Make models/lumiere and models/video_features model folders of the host; extra_model_paths.yaml may add more."""
    add_folder(FOLDER, set(folder_paths.supported_pt_extensions))
    add_folder(FEATURES, {".safetensors", ".onnx"})
    # The pack's styles, for the stock LoRA loaders; a user's own folder comes first.
    folder_paths.add_model_folder_path("loras", str(STYLES))


def add_folder(name: str, suffixes: set[str]) -> None:
    """Make models/`name` a folder of the host, beside those that it has under this name."""
    known = folder_paths.folder_names_and_paths
    paths, extensions = known.get(name, ([], set()))
    # add_model_folder_path alone leaves a new folder without extensions, which lists every file.
    known[name] = (paths, set(extensions) | suffixes)
    folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name), is_default=True)


def checkpoint_names() -> list[str]:
    """Return what a loader offers: the weights in the pack, then the safetensors files in models/lumiere."""
    files = [name for name in folder_paths.get_filename_list(FOLDER) if name.endswith(".safetensors")]
    return [*bundled(), BUNDLED_SSR, *files]


def bundled() -> list[str]:
    """Return the names of the models in the pack, lumiere-mini first."""
    return [f"lumiere-{name}" for name in bundled_names()]


def checkpoint_files(name: str) -> list[Path]:
    """Return the files of one entry of `checkpoint_names`.

    Raises:
        FileNotFoundError: the file is gone.
    """
    if name in (*bundled(), BUNDLED_SSR):
        return weight_files(name)
    return [Path(folder_paths.get_full_path_or_raise(FOLDER, name))]


def output_path(prefix: str, suffix: str) -> tuple[Path, str, str]:
    """Return the next free (path, file name, subfolder) in the host's output folder.

    Raises:
        ValueError: the prefix leads out of it, or is no name of a file.
        OSError: it cannot be written to.
    """
    try:
        found = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    except Exception as error:  # the host raises nothing narrower
        raise ValueError(f"nothing can be saved under {prefix[:80]!r}: {' '.join(str(error).split())[:300]}") from error
    folder, name, counter, subfolder, _ = found
    file = f"{name}_{counter:05}_{suffix}"
    check_target(Path(folder) / file)
    return Path(folder) / file, file, subfolder


def weight_file(model: comfy.model_patcher.ModelPatcher) -> Path | None:
    """Return the file that one of the host's loaders read a MODEL from, or None where it left no word of it."""
    # Host 0.30.0: (function that loads the MODEL again, its arguments), the file's path the first of them.
    arguments = (getattr(model, "cached_patcher_init", None) or (None, ()))[1]
    known = bool(arguments) and isinstance(arguments[0], str) and os.path.isfile(arguments[0])
    return Path(arguments[0]) if known else None


def pixel_vae() -> comfy.sd.VAE:
    """Return the host's VAE that changes nothing but the layout.

    In float32: bfloat16, which the host may choose, has no room for 256 levels.
    """
    return comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)}, dtype=torch.float32)


def choose_dtypes(name: str, parameters: int, load_device: torch.device) -> tuple[torch.dtype, torch.dtype | None]:
    """Return (dtype of the weights, dtype to compute in or None if the same) for an entry of DTYPES."""
    supported = [torch.float16, torch.bfloat16, torch.float32]
    dtype = DTYPES[name] or model_management.unet_dtype(model_params=parameters, supported_dtypes=supported)
    return dtype, model_management.unet_manual_cast(dtype, load_device, supported)


@functools.cache
def operations(dtype: torch.dtype | None, device: torch.device | str) -> SimpleNamespace:
    """Return the layer classes for core modules: cast to the input's dtype and device at every call."""
    names = ("Linear", "Conv1d", "Conv2d", "GroupNorm", "LayerNorm", "Embedding")
    return SimpleNamespace(**{name: made_on(getattr(comfy.ops.manual_cast, name), dtype, device) for name in names})


def made_on(cls: type, dtype: torch.dtype | None, device: torch.device | str) -> type:
    """Return a subclass (core derives layers from it) whose weights are made with a dtype on a device."""

    class Layer(cls):
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs, dtype=dtype, device=device)

    Layer.__name__ = cls.__name__
    return Layer


def set_wrappers(model: comfy.model_patcher.ModelPatcher, key: str, wrappers: Sequence[tuple[str, Callable]]) -> None:
    """Give a MODEL wrappers, each with its kind (`WrappersMP`), in place of those of these kinds that it has by the key."""
    for kind, _ in wrappers:
        model.remove_wrappers_with_key(kind, key)
    for kind, wrapper in wrappers:
        model.add_wrapper_with_key(kind, key, wrapper)


def new_patcher(
    module: torch.nn.Module, load_device: torch.device, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """Wrap a module for the host's memory management."""
    # Looked up now: main.py rebinds CoreModelPatcher after packs were imported.
    patcher = comfy.model_patcher
    cls = patcher.ModelPatcher if disable_dynamic else patcher.CoreModelPatcher
    return cls(module, load_device=load_device, offload_device=model_management.unet_offload_device())


def load_state(patcher: comfy.model_patcher.ModelPatcher, module: torch.nn.Module, state: dict[str, Tensor]) -> None:
    """Load a state dict whose keys were checked before; the patcher decides whether it is copied."""
    model_management.archive_model_dtypes(module)
    # With DynamicVRAM the linear layers hold no memory until they are given tensors.
    module.load_state_dict(state, assign=patcher.is_dynamic())


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """The host's attention for core modules. (n, k, heads * d) each.

    The attn1/attn2 patches of the image model never come here: they are made for pixels, not for frames. Where the host
    has no better choice than one that cuts long sequences up, frames, which are few, take torch's own: two to four times as
    fast on a CPU.
    """
    if optimized_attention is attention_sub_quad and not _attention_overrides.get({}):
        return scaled_dot_product(q, k, v, heads)
    return optimized_attention(q, k, v, heads, transformer_options=_attention_overrides.get({}))


@contextlib.contextmanager
def attention_options(transformer_options: dict[str, Any]) -> Iterator[None]:
    """Let `attention` use the sampling run's choice of kernel (optimized_attention_override)."""
    key = "optimized_attention_override"
    chosen = {key: transformer_options[key]} if key in transformer_options else {}
    token = _attention_overrides.set(chosen)
    try:
        yield
    finally:
        _attention_overrides.reset(token)
