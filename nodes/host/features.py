"""Features of the host that keep data for every row of the batch inside a U-Net.

Most patches of a U-Net's layers look at the rows that they are given, so they work at every temporal level. Those here
bring or keep a row for each frame of the call and know nothing of levels, padding or windows. They are called at full
frame rate: each frame with what its level has for it, and the answers of the frames that the level keeps are taken.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...lumiere_core.clips.video import take_frames
from ...lumiere_core.nets.temporal import TemporalState
from .frames import Rows
from .keys import FRAMES, HANDLERS
from .keys import KEY as LUMIERE

# Of the host: the class and the function of a patch, which has no other name.
SELF_ATTENTION_GUIDANCE = ("SelfAttentionGuidance", "attn_and_record")
# Of Advanced-ControlNet: ControlLLLite's hints, a row for each frame of the call, put into the attention of every level.
HINTS_IN_ATTENTION = "LLLitePatch"
REFERENCE = "refcn_present_in_conds"  # Advanced-ControlNet says so in the options of a call
WHOLE_CLIP = ("LeapfusionHunyuanI2V.", "WanUni3CCnetPatch")  # a first frame (KJNodes), a camera's video (the host)
AROUND_THE_NETWORK = (WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)


def _records_attention(patch: Any) -> bool:
    parts = getattr(patch, "__qualname__", "").split(".")
    return (parts[0], parts[-1]) == SELF_ATTENTION_GUIDANCE


def self_attention_guidance(options: dict) -> bool:
    """Tell whether the host's Self-Attention Guidance is among the patches in transformer_options."""
    replaced = options.get("patches_replace", {}).get("attn1", {})
    return any(map(_records_attention, replaced.values()))


def refuse_in_windows(
    options: dict, around: Callable | None = None, frames: int = 0, axis: int = 0, by: str = "in windows"
) -> None:
    """Raise ValueError for what keeps data of the whole clip or of one call, which no window could be given its part of.

    Args:
        options: transformer_options.
        around: the MODEL's function wrapper (model_options["model_function_wrapper"]), of which it has one at most.
        frames: of the latents; 0 = data that wrappers and patches keep for each of them are not looked for.
        axis: of the frames in latents: 0 or 2.
        by: what shows the network other frames than the whole clip's in their order.
    """
    if self_attention_guidance(options):
        raise ValueError(
            "Self-Attention Guidance keeps the attention of one call of the U-Net, whose frames are others than the clip's "
            f"{by}, and would blur the clip by the wrong ones. Remove one of the two from this MODEL; Perturbed-Attention "
            "Guidance works."
        )
    if "audio_embeds" in options:
        raise ValueError(
            "WanInfiniteTalkToVideo puts the sound of the whole clip and its first frames on the MODEL, where they cannot be "
            f"cut {by}. Remove one of the two; the node continues long clips itself (previous_frames)."
        )
    wrappers = options.get("wrappers", {})
    found = [
        w for kind in AROUND_THE_NETWORK for key, ws in wrappers.get(kind, {}).items() if key != LUMIERE for w in ws
    ]
    found += [*([] if around is None else [around]), *(patch for _, patch in patches_of(options))]
    for patch in found:
        if _named(patch).startswith(WHOLE_CLIP) or (frames > 1 and keeps_rows(patch, frames, axis) and not told(patch)):
            raise ValueError(
                f"{_named(patch).split('.')[0]} puts frames of the whole clip into each call of the network, which sees others "
                f"{by}. Remove one of the two from this MODEL."
            )


def refuse_at_levels(options: dict) -> None:
    """Raise ValueError for what keeps numbers of the rows of one call, and reads them where a level has fewer.

    Args:
        options: transformer_options.
    """
    if options.get(REFERENCE):
        raise ValueError(
            "Reference ControlNet (Advanced-ControlNet) keeps which rows are the negative prompt's, and these temporal layers "
            "have levels with fewer frames. Remove it, use IPAdapter for the look of a picture, or take a motion module, whose "
            "levels have all frames."
        )


def patches_of(options: dict) -> Iterator[tuple[str, Callable]]:
    """Yield (place, patch) of all patches of layers in transformer_options."""
    for place, patches in options.get("patches", {}).items():
        yield from () if place == HANDLERS else ((place, patch) for patch in patches)
    for place, patches in options.get("patches_replace", {}).items():
        yield from ((place, patch) for patch in patches.values())


def told(thing: Any, depth: int = 3) -> bool:
    """Tell whether a patch, or a function that it holds or calls, reads which rows a layer sees (`FRAMES`)."""
    call = thing if hasattr(thing, "__code__") or not callable(thing) else type(thing).__call__
    code = getattr(call, "__code__", None)
    if code is not None:
        codes = [code, *(c for c in code.co_consts if hasattr(c, "co_consts"))]
        if any(FRAMES in c.co_consts for c in codes):
            return True
        called = [call.__globals__.get(name) for c in codes for name in c.co_names]
    else:
        called = []
    if depth == 0 or torch.is_tensor(thing) or isinstance(thing, (torch.nn.Module, ModelPatcher, type)):
        return False
    return any(
        told(each, depth - 1) for each in (*called, *_held(thing)) if callable(each) or isinstance(each, (list, dict))
    )


def _named(thing: Any) -> str:
    return getattr(thing, "__qualname__", type(thing).__qualname__)


def keeps_rows(thing: Any, frames: int, axis: int, depth: int = 2) -> bool:
    """Tell whether a wrapper or patch holds a tensor with a row for each frame, in what it closes over or has as attributes.

    Modules and other models' patchers are not looked into: their weights are no rows. Nor are functions that it holds: what
    those close over may be left of an earlier call (Token Merging).
    """
    if torch.is_tensor(thing):
        return thing.ndim > (axis + 2 if axis else 1) and thing.shape[axis] == frames
    if depth == 0 or isinstance(thing, (torch.nn.Module, ModelPatcher, type)):
        return False
    return any(keeps_rows(each, frames, axis, depth - 1) for each in _held(thing) if not hasattr(each, "__code__"))


def _held(thing: Any) -> Iterable:
    """Yield what a thing holds: entries, attributes, what a function closes over, what a partial was given."""
    if isinstance(thing, (list, tuple)):
        yield from thing
    elif isinstance(thing, dict):
        yield from thing.values()
    else:
        for cell in getattr(thing, "__closure__", None) or ():
            with contextlib.suppress(ValueError):  # empty yet
                yield cell.cell_contents
        yield getattr(thing, "__self__", None)
        yield from getattr(thing, "__dict__", {}).values()
        if isinstance(thing, functools.partial):
            yield from (thing.func, *thing.args, *thing.keywords.values())


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
            parts = answer if isinstance(answer, tuple) else (answer,)  # of a patch of q, k and v
            parts = [part.unflatten(0, (clips, self.frames)) for part in parts]
            for row, frame in enumerate(kept):
                if slots[frame] == row:
                    answers[row] = [part[:, frame] for part in parts]
        whole = tuple(torch.stack(rows, dim=1).flatten(0, 1) for rows in zip(*answers, strict=True))
        return whole if isinstance(answer, tuple) else whole[0]

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


def at_full_rate(options: dict, frames: int, wrap: Callable[[Callable], FullRate]) -> dict:
    """Return transformer_options whose row-keeping patches are called at full frame rate.

    They are Self-Attention Guidance's, GLIGEN's, whose objects come with a row for each frame, ControlLLLite's, and any that
    holds a tensor with a row for each of the call's frames and does not read which of them a level sees.
    """

    def fitted(place: str, patch: Callable) -> Callable:
        keeps = (
            place == "middle_patch"
            or type(patch).__name__ == HINTS_IN_ATTENTION
            or _records_attention(patch)
            or (keeps_rows(patch, frames, 0) and not told(patch))
        )
        return wrap(patch) if keeps else patch

    out = dict(options)
    out["patches"] = {
        place: patches if place == HANDLERS else [fitted(place, patch) for patch in patches]
        for place, patches in options.get("patches", {}).items()
    }
    out["patches_replace"] = {
        place: {key: fitted(place, patch) for key, patch in patches.items()}
        for place, patches in options.get("patches_replace", {}).items()
    }
    return out
