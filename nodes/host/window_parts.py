"""What a window gets of the parts of a prompt (`model_conds`) that video models of the host have besides text.

The host's model classes cut most of them themselves (`resize_cond_for_context_window`); here are those that it hands to
every window as they are, or cuts along an axis that they do not have.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...lumiere_core.clips.video import take_frames

# Frames that the clip begins with, which the network writes over its first ones or puts before them.
STARTS = ("time_dim_replace", "guiding_frame_index", "reference_motion")
# Of Wan Animate: counted from the clip's second latent frame, for the first is a picture of reference.
AFTER_FIRST = ("pose_latents", "face_pixel_values")
# Pictures beside the clip, which may be as many as it has frames.
REFERENCES = ("time_dim_concat", "reference_latent", "ref_latent")
# Of the host's model classes with sound: its axis of time, and how many of its rows belong to a latent frame; 0 = all of
# it is spread over the clip.
SOUND, KEY = {"WAN22_S2V": (3, 4), "WAN21_HuMo": (1, 1), "WAN22_WanDancer": (1, 0)}, "audio_embed"


def starts_of(key: str, entry: Any, numbers: list[int]) -> Any:
    """Return what a window gets of the frames that a clip begins with; None = nothing, for it begins elsewhere.

    Args:
        key: one of `STARTS`. numbers: frames of the window, in the order in which the network sees them.

    Raises:
        ValueError: the clip's first frame is not the first that the network sees.
    """
    check_beginning(key, numbers)
    if 0 not in numbers:
        return None
    if key != "time_dim_replace":
        return entry
    alike = next((i for i, number in enumerate(numbers) if number != i), len(numbers))
    return entry._copy_with(entry.cond[:, :, :alike])


def check_beginning(key: str, numbers: list[int]) -> None:
    """Raise ValueError where a clip's first frame is in a window and not the first that the network sees; see `starts_of`."""
    if 0 in numbers[1:]:
        raise ValueError(
            f"the prompt brings what the clip begins with ({key}, of HunyuanImageToVideo, Kandinsky5ImageToVideo, "
            "WanAnimateToVideo or WanSoundImageToVideo), and a loop has no beginning. Remove the loop, or the start image."
        )


def sound_of(model: Any, sound: Tensor, numbers: Tensor, frames: int) -> Tensor | None:
    """Return the sound of a window's frames, or None for models of whose sound nothing is known.

    Args:
        model: the host's. sound: (1, …), the whole clip's.
        numbers: (k,) latent frames of the window. frames: latent frames of the clip.
    """
    axis, each = next((SOUND[kind.__name__] for kind in type(model).__mro__ if kind.__name__ in SOUND), (0, 0))
    if axis == 0 or sound.ndim <= axis:
        return None
    count = sound.shape[axis]
    if each == 0:  # 8 or so rows a latent frame, by the frame rates
        edges = (torch.arange(frames + 1) * count / frames).round().long()
        rows = torch.cat([torch.arange(edges[i], max(edges[i + 1], edges[i] + 1)) for i in numbers.tolist()])
    else:
        rows = (numbers[:, None] * each + torch.arange(each)).flatten()
    return take_frames(sound, rows.clamp(max=count - 1), dim=axis)
