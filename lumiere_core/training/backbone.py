"""The frozen image U-Net of a cache, out of the checkpoint that the cache was prepared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..diffusion.models import weight_files
from ..diffusion.schedule import Schedule
from ..nets.backbones import family_name
from ..nets.checkpoint import check_state, sha256
from ..nets.config import UNetConfig
from ..nets.unet import UNet


def load_backbone(
    checkpoint: str | Path, backbone: dict[str, Any], dtype: torch.dtype = torch.float32
) -> tuple[UNet, Schedule]:
    """Return the frozen U-Net and its noise schedule.

    Args:
        checkpoint: a file, a folder of part files, or lumiere-mini.
        backbone: of the cache (see `dataset.encoders.Encoders`).

    Raises:
        ValueError: the cache was prepared with another checkpoint, or the U-Net is not what the cache says.
    """
    files = weight_files(checkpoint)
    found = {file.name: sha256(file) for file in files}
    if set(found.values()) != set(backbone["sha256"].values()):
        raise ValueError(
            f"the cache was prepared with {', '.join(backbone['sha256'])} (sha256 "
            f"{', '.join(h[:12] for h in backbone['sha256'].values())}), not with {', '.join(found)} (sha256 "
            f"{', '.join(h[:12] for h in found.values())}). Give that file as --checkpoint, or prepare again."
        )
    config = UNetConfig.from_dict(backbone["unet"])
    state = read_prefixed(files, backbone["prefix"], dtype)
    with torch.device("meta"):
        unet = UNet(config)
    check_state(unet.state_dict(), state, f"the {family_name(config)} U-Net of {', '.join(found)}")
    unet.load_state_dict(state, assign=True)
    return unet.eval().requires_grad_(False), Schedule(**backbone["schedule"])


def read_prefixed(files: list[Path], prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the tensors of files whose names begin with a prefix, without it; nothing else is read. A state dict."""
    from safetensors import safe_open

    state = {}
    for path in files:
        with safe_open(str(path), framework="pt") as file:
            for key in file.keys():
                if key.startswith(prefix):
                    state[key.removeprefix(prefix)] = file.get_tensor(key).to(dtype)
    return state
