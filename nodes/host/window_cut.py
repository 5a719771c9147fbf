"""What of latents and prompts belongs to one window of a clip.

Latents are cut by the host's own window state, which knows the guide frames of LTX-Video and the sound that LTX-2
packs behind the frames. Of a prompt the host's models know their odd parts (`resize_cond_for_context_window`: the
hints of VACE, audio, keyframes, poses, …); everything else that has a row for each frame is fitted to the whole clip
as the host fits it (repeated, then cut) and then cut, so that frame i gets the same with and without windows.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import comfy.conds
import comfy.model_base
import comfy.utils
import torch
from comfy.context_windows import (
    ContextSchedules,
    IndexListContextHandler,
    IndexListContextWindow,
    get_matching_context_schedule,
    get_matching_fuse_method,
)
from torch import Tensor

from ...lumiere_core.clips.video import take_frames
from ...lumiere_core.diffusion.multidiffusion import Window
from . import window_parts
from .boxes import of_rows
from .frames import fitted, published
from .keys import FRAMES, WINDOW


class WholeClip:
    """The whole latents and prompts of one evaluation, from which windows are cut.

    Args:
        model: the host's model, which knows its own conditions.
        conds: of all kinds of prompt; any may be None.
        x: noised latents: (t, c, h, w), (b, c, t, h, w), or packed with others.
        axis: of the frames: 0 or 2.
        overlap: of neighbouring windows.

    Raises:
        ValueError: the model packs latents that cannot be mapped to windows of its frames.
    """

    def __init__(self, model: Any, conds: list[list[dict] | None], x: Tensor, axis: int, overlap: int) -> None:
        self.model, self.conds, self.x, self.axis, self.overlap = model, conds, x, axis, overlap
        handler = IndexListContextHandler(
            get_matching_context_schedule(ContextSchedules.STATIC_STANDARD), get_matching_fuse_method("flat"), dim=axis
        )
        self.state = handler._build_window_state(x, conds, model)
        self.latents = self.state.latents  # of frames, then of sound; without guide frames
        if self.state.is_multimodal and not hasattr(model, "map_context_window_to_modalities"):
            raise ValueError(
                f"{type(model).__name__} packs {len(self.latents)} kinds of latents and does not say which of them belong "
                "to which frames, so its clips cannot be cut into windows. Remove Lumiere Temporal Multidiffusion."
            )

    @property
    def frames(self) -> int:
        """Frames of all clips, without guide frames."""
        return self.latents[0].shape[self.axis]

    def cut(self, rows: Window, anchor: int | None) -> OneWindow:
        """Return the window of some rows; `anchor` is a row that it sees first and does not answer."""
        window = IndexListContextWindow(
            list(rows), dim=self.axis, total_frames=self.frames, context_overlap=self.overlap
        )
        window = self.state.prepare_window(window, self.model)
        if anchor is not None:
            window.causal_anchor_index = anchor
        latents, guides = self.state.slice_for_window(window, [])
        x, shapes = (latents[0], [latents[0].shape]) if len(latents) == 1 else comfy.utils.pack_latents(latents)
        numbers = [*([] if anchor is None else [anchor]), *rows]
        return OneWindow(self, window, torch.tensor(numbers), x=x, shapes=shapes, guides=guides)

    def joined(self, latents: list[Tensor]) -> Tensor:
        """Return whole answers in the layout of `x`; guide frames are answered by themselves, as the host does.

        Each is (b, c, t, …).
        """
        guides = self.state.guide_latents
        whole = [
            latent if guide is None else torch.cat([latent, guide], dim=self.axis)
            for latent, guide in zip(latents, guides, strict=True)
        ]
        return whole[0] if len(whole) == 1 else comfy.utils.pack_latents(whole)[0]


@dataclass(frozen=True)
class OneWindow:
    """One window of a clip.

    Attributes:
        whole: what it is cut from.
        window: in the host's words.
        numbers: (k,) rows that the network sees, an anchor first.
        x: its latents.
        shapes: of its kinds of latents, before packing.
        guides: how many guide frames follow each kind of latents.
    """

    whole: WholeClip
    window: IndexListContextWindow
    numbers: Tensor
    x: Tensor
    shapes: list[torch.Size]
    guides: list[int]

    def options(self) -> dict[str, Any]:
        """Return what the layers are told, in transformer_options: the rows, under our name and AnimateDiff-Evolved's."""
        rows = self.numbers.tolist()
        if self.whole.axis:
            return {WINDOW: tuple(rows)}
        return {WINDOW: tuple(rows), FRAMES: published(self.numbers[None], self.whole.frames)}

    def timestep(self, timestep: Tensor) -> Tensor:
        """Return the noise levels of the window's rows. (n,) -> (k,)."""
        per_frame = self.whole.axis == 0 and len(timestep) == self.whole.frames
        return take_frames(timestep, self.numbers) if per_frame else timestep

    def answers(self, answer: Tensor) -> Iterator[tuple[Tensor, list[int], int]]:
        """Yield (answer, its places, overlap of neighbours) of each kind of latents, anchor and guides left out."""
        parts = comfy.utils.unpack_latents(answer, self.shapes)
        for index, part in enumerate(parts):
            window = self.window.get_window_for_modality(index)
            before = len(self.numbers) - len(window.index_list) if index == 0 else 0
            part = part.narrow(self.whole.axis, before, len(window.index_list))
            yield part, window.index_list, min(window.context_overlap, len(window.index_list) - 1)

    def conds(self) -> list[list[dict] | None]:
        """Return the prompts of the window."""
        controls: dict[int, Any] = {}  # shared by the prompts of a window, or they are not batched
        parts = [
            entries and [self._entry(part, controls) for entry in entries for part in self._areas(entry)]
            for entries in self.whole.conds
        ]
        self.whole.state.patch_latent_shapes(parts, self.shapes)
        return parts

    def _entry(self, entry: dict, controls: dict[int, Any]) -> dict:
        parts = {key: self._condition(key, part) for key, part in entry["model_conds"].items()}
        out = {**entry, "model_conds": {key: part for key, part in parts.items() if part is not None}}
        if "uuid" in entry:  # by which EasyCache keeps answers
            out["uuid"] = uuid.uuid5(entry["uuid"], repr(self.numbers.tolist()))
        mask = entry.get("mask")
        if torch.is_tensor(mask):
            if self.whole.axis == 0:
                out["mask"] = self._rows(mask)
            elif mask.ndim == 4 and mask.shape[1] == self.whole.frames:  # b t h w
                out["mask"] = take_frames(mask, self.numbers, dim=1)
        if entry.get("gligen") is not None and self.whole.axis == 0:
            out["gligen"] = of_rows(entry["gligen"], self.numbers.tolist(), self.whole.frames)
        if entry.get("control") is not None:
            out["control"] = self._control(entry["control"], controls)
        return out

    def _areas(self, entry: dict) -> Iterator[dict]:
        """Yield a prompt for each run of the window's frames that its area holds; an area of the picture holds all.

        Areas in time are those of *ConditioningSetAreaPercentageVideo*: (t, h, w, first frame, top, left) of the whole clip.
        """
        area = entry.get("area")
        if area is None or len(area) != 6 or self.whole.axis == 0:
            yield entry
            return
        (count, height, width), (first, top, left) = area[:3], area[3:]
        held = [first <= number < first + count for number in self.numbers.tolist()]
        for inside, run in groupby(range(len(held)), held.__getitem__):
            if inside:
                places = list(run)
                yield {**entry, "area": (len(places), height, width, places[0], top, left)}

    def _rows(self, value: Tensor) -> Tensor:
        """Return the window's rows of what has one for each frame, or one for all."""
        value = fitted(value, self.whole.frames)
        return value if len(value) == 1 else take_frames(value, self.numbers)

    def _condition(self, key: str, entry: Any) -> Any:
        """Return one entry of `model_conds` for the window; None = it has no part of it."""
        if key == "num_video_frames":  # Stable Video Diffusion folds the batch by it
            return entry._copy_with(len(self.numbers))
        whole = self.whole
        if key in window_parts.STARTS:
            return window_parts.starts_of(key, entry, self.numbers.tolist())
        if key in window_parts.AFTER_FIRST and isinstance(whole.model, comfy.model_base.WAN22_Animate):
            window_parts.check_beginning(key, self.numbers.tolist())
        if key == window_parts.KEY and torch.is_tensor(entry.cond):
            sound = window_parts.sound_of(whole.model, entry.cond, self.numbers, whole.frames)
            if sound is not None:
                return entry._copy_with(sound)
        latent = whole.latents[0]
        resize = whole.model.resize_cond_for_context_window
        if isinstance(
            whole.model, comfy.model_base.LTXV
        ):  # has guides as LTX-2 has, but the host cuts them for that only
            resize = partial(comfy.model_base.LTXAV.resize_cond_for_context_window, whole.model)
        own = resize(key, entry, self.window, latent, latent.device)
        if own is not None:
            return own
        value = getattr(entry, "cond", None)
        if isinstance(entry, comfy.conds.CONDList) and whole.axis == 0:  # pictures of reference
            return entry._copy_with([self._rows(part) for part in value])
        if not torch.is_tensor(value) or isinstance(entry, comfy.conds.CONDConstant) or value.ndim == 0:
            return entry
        if whole.axis == 0:
            return entry._copy_with(self._rows(value))
        # All else of a 5-D model (text, …) is per clip.
        if value.ndim == 5 and value.shape[2] == whole.frames and key not in window_parts.REFERENCES:
            return entry._copy_with(take_frames(value, self.numbers, dim=2))
        return entry

    def _control(self, control: Any, made: dict[int, Any]) -> Any:
        """Return a copy of a ControlNet chain whose hints are those of the window's frames.

        The host would show every window the hints of the first frames. A copy builds its hint anew from the images;
        it lives for one window, so hints take no more memory than a window.
        """
        if id(control) in made:
            return made[id(control)]
        part = copy.copy(control)  # with what `pre_run` set, such as the time range
        part.cond_hint, part.extra_concat = None, None
        if hasattr(control, "sub_idxs"):  # Advanced-ControlNet takes hints, weights and masks by the rows itself
            rows = self.numbers.tolist()
            part.sub_idxs, part.full_latent_length, part.context_length = rows, self.whole.frames, len(rows)
        elif self.whole.axis == 0:
            part.cond_hint_original = self._hint(control.cond_hint_original)
            part.extra_concat_orig = [self._hint(value) for value in control.extra_concat_orig]
        if control.previous_controlnet is not None:
            part.previous_controlnet = self._control(control.previous_controlnet, made)
        made[id(control)] = part
        return part

    def _hint(self, value: Any) -> Any:
        return self._rows(value) if torch.is_tensor(value) and value.ndim >= 3 else value
