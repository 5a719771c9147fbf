"""Features of the host that keep data for every row of the batch inside a U-Net.

Most patches of a U-Net's layers look at the rows that they are given, so they work at every temporal level. Those here
bring or keep a row for each frame of the call and know nothing of levels, padding or windows. They are called at full
frame rate: each frame with what its level has for it, and the answers of the frames that the level keeps are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...lumiere_core.clips.video import take_frames
from ...lumiere_core.nets.temporal import TemporalState
from .frames import Rows
from .keys import FRAMES

# By its class and function: the host gives patches no other name.
SELF_ATTENTION_GUIDANCE = ("SelfAttentionGuidance", "attn_and_record")


def _is(patch: Any, which: tuple[str, str]) -> bool:
    parts = getattr(patch, "__qualname__", "").split(".")
    return (parts[0], parts[-1]) == which


def self_attention_guidance(options: dict) -> bool:
    """Tell whether the host's Self-Attention Guidance is among the patches in transformer_options."""
    replaced = options.get("patches_replace", {}).get("attn1", {})
    return any(_is(patch, SELF_ATTENTION_GUIDANCE) for patch in replaced.values())


def refuse_in_windows(options: dict) -> None:
    """Raise ValueError for what keeps maps of one call of the U-Net and reads them as those of the whole clip.

    Args:
        options: transformer_options.
    """
    if self_attention_guidance(options):
        raise ValueError(
            "Self-Attention Guidance keeps the attention of one call of the U-Net, which in windows is that of the last "
            "window, and would blur the clip by the wrong frames. Remove it or the windows from this MODEL; Perturbed-"
            "Attention Guidance works in windows."
        )


@dataclass(frozen=True)
class FullRate:
    """A patch of a layer that is called with a row for every frame of the call.

    Attributes:
        state: of the call, which knows the current level.
        padding: (padded t,) numbers of the frames that stand in the padded clip.
        frames: of a clip before it was padded.
        rows: of the call, before padding.
        patch: the host's or another pack's.
    """

    state: TemporalState
    padding: Tensor
    frames: int
    rows: Rows
    patch: Callable

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        kept = self.padding[self.state.numbers].tolist()  # the frame of each row of the level
        if kept == list(range(self.frames)):
            return self.patch(*arguments, **named)
        stride, answers = self.state.stride, [None] * len(kept)
        clips = arguments[0].shape[0] // len(kept)
        for slots in reversed(_rounds(kept, self.frames, stride)):  # the frames' own last: what is kept is theirs
            answer = self.patch(*(self._spread(value, torch.tensor(slots), clips) for value in arguments), **named)
            answer = answer.unflatten(0, (clips, self.frames))
            for row, frame in enumerate(kept):
                if slots[frame] == row:
                    answers[row] = answer[:, frame]
        return torch.stack(answers, dim=1).flatten(0, 1)

    def _spread(self, value: Any, slots: Tensor, clips: int) -> Any:
        if torch.is_tensor(value):
            return take_frames(value, slots, clips)
        if isinstance(value, dict):  # extra_options
            return {**value, FRAMES: self.rows.published(torch.arange(self.frames))}
        return value


def _rounds(kept: list[int], frames: int, stride: int) -> list[list[int]]:
    """Return for each call of a patch which row of the level stands for each frame; every row stands once at least.

    Each frame has the row of its key frame. Rows that only pad stand for the frames that they repeat, in more calls.
    """
    own = [frame // stride for frame in range(frames)]
    rounds, taken = [own], [set(range(frames))]
    for row, frame in enumerate(kept):
        if row * stride < frames:
            continue
        number = next((i for i, frames_taken in enumerate(taken) if frame not in frames_taken), len(rounds))
        if number == len(rounds):
            rounds.append(list(own))
            taken.append(set())
        rounds[number][frame] = row
        taken[number].add(frame)
    return rounds


def at_full_rate(options: dict, wrap: Callable[[Callable], FullRate]) -> dict:
    """Return transformer_options whose row-keeping patches are called at full frame rate.

    They are Self-Attention Guidance's and GLIGEN's, whose objects come with a row for each frame.
    """
    out = dict(options)
    if self_attention_guidance(options):
        replaced = options["patches_replace"]
        attention = {
            key: wrap(patch) if _is(patch, SELF_ATTENTION_GUIDANCE) else patch
            for key, patch in replaced["attn1"].items()
        }
        out["patches_replace"] = {**replaced, "attn1": attention}
    if options.get("patches", {}).get("middle_patch"):
        patches = options["patches"]
        out["patches"] = {**patches, "middle_patch": [wrap(patch) for patch in patches["middle_patch"]]}
    return out
