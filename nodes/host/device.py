"""What nodes ask of the host while they work: its device, its memory, its progress bar, whether the user stopped them.

Nodes import these, never `comfy` itself; a change of the host is mended here.
"""

from __future__ import annotations

from typing import Any

import comfy.model_management as model_management
import comfy.utils
import torch
from comfy.cli_args import args

OUT_OF_MEMORY = model_management.OOM_EXCEPTION
ProgressBar = comfy.utils.ProgressBar  # of the node that is running


def stop_if_interrupted() -> None:
    """Raise the host's exception if the user pressed stop."""
    model_management.throw_exception_if_processing_interrupted()


def compute_device() -> torch.device:
    """Return the device that the host computes on."""
    return model_management.get_torch_device()


def free_memory() -> int:
    """Return how many bytes of the computer's own memory are free."""
    return model_management.get_free_memory(torch.device("cpu"))


def check_room(frames: int, height: int, width: int, numbers: float) -> None:
    """Raise ValueError unless a clip fits into the computer's free memory.

    Args:
        numbers: of 4 bytes for each pixel of a frame, all copies that are held at once.
    """
    wanted, free = 4 * numbers * frames * height * width, free_memory()
    if wanted > free:
        raise ValueError(
            f"{frames} frames of {width}x{height} pixels need about {wanted / 2**30:.0f} GiB while they are made; "
            f"{free / 2**30:.0f} GiB are free. Lower length, width or height."
        )


def make_room(size: int) -> torch.device:
    """Return the host's device after it has moved models away until `size` bytes are free there."""
    device = compute_device()
    model_management.free_memory(size, device)
    return device


def empty_cache() -> None:
    """Give back what torch keeps after an out-of-memory error."""
    model_management.soft_empty_cache()


def load_whole(patcher: Any) -> None:
    """Bring a MODEL to its device with its patches in the weights, so that they can be saved."""
    model_management.load_models_gpu([patcher], force_full_load=True)


def metadata_wanted() -> bool:
    """Tell whether files may say how they were made (the host's --disable-metadata)."""
    return not args.disable_metadata
