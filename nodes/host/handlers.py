"""One call of an inflated U-Net: the wrappers and handlers that the host runs around its layers.

A handler for each kind of layer (`forward_timestep_embed_patch`) runs the temporal parts after it; a wrapper
around the U-Net starts a `TemporalState` for every call. Shapes: n - chunks (prompts) of a call, t - frames of one
of them, both in the batch axis.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import comfy.model_patcher
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, UNetModel, Upsample
from torch import Tensor

from ...lumiere_core.clips.video import padded_frames, take_frames
from ...lumiere_core.nets.block_plan import BlockPlan, LayerKinds, plan_blocks
from ...lumiere_core.nets.ring import check_ring
from ...lumiere_core.nets.temporal import TemporalLayers, TemporalState
from . import features, models
from .clip_norms import clip_norms
from .features import FullRate
from .frames import Rows, rows_of_call
from .keys import CONDITION, FRAMES, KEY, LAYERS, LOOP, RUN
from .keys import HANDLERS as PATCH
from .shared_text import SharedText, projected_once, shared_text
from .strength import at_sigma, still_rows, strength_of_call

KINDS = LayerKinds(ResBlock, SpatialTransformer, Downsample, Upsample)


def temporal_patcher(model: comfy.model_patcher.ModelPatcher) -> comfy.model_patcher.ModelPatcher | None:
    """Return the patcher of a MODEL's temporal layers; weight patches on it work as on any other."""
    found = model.get_additional_models_with_key(KEY)
    return found[0] if found else None


@dataclass
class _Call:
    """The state of one call of the U-Net, in its transformer_options; made anew for every call."""

    layers: TemporalLayers
    state: TemporalState
    places: dict[int, tuple[str, str | None]]  # by a layer's id: its block, and the temporal part that follows it
    first: torch.nn.Module  # the U-Net's first convolution
    rows: Rows  # padded
    known: Tensor | None = None  # what the condition adds to the first convolution's output
    text: SharedText | None = None  # where all frames of a clip have the same

    def conditioned(self, layer: torch.nn.Module, h: Tensor) -> Tensor:
        """Add the masked condition after the first convolution; the sum is one wider convolution."""
        return h if self.known is None or layer is not self.first else h + self.known

    def text_at_level(self, context: Tensor | None) -> Tensor | None:
        """Take what the current level sees of text states ((b t), l, d)."""
        if self.text is not None and self.text.frames_of(context):
            return self.text.at(self.state.level_frames)
        return self.state.at_level(context)

    def after(self, layer: torch.nn.Module, h: Tensor) -> Tensor:
        """Run the temporal part that follows a layer, if any does; none follows layers of some other network."""
        block, part = self.places.get(id(layer), ("", None))
        return self.layers.follow(part, block, h, self.state)

    def tell(self, options: dict) -> None:
        """Tell patches with data for every frame, in a call's options, which rows of the whole batch the level sees."""
        options[FRAMES] = self.rows.published(self.state.numbers)


@dataclass(frozen=True)
class _Plans:
    """What is known of one U-Net with one kind of temporal layers."""

    plans: dict[str, BlockPlan]
    places: dict[int, tuple[str, str | None]]


# By U-Net, because copies on other devices have layers of other ids, then by the kind of temporal layers.
_plans: weakref.WeakKeyDictionary[UNetModel, dict[str, _Plans]] = weakref.WeakKeyDictionary()


def _plans_of(unet: UNetModel, layers: TemporalLayers) -> _Plans:
    kinds = _plans.setdefault(unet, {})
    kind = layers.config.kind
    if kind not in kinds:
        plans = plan_blocks(unet, KINDS, layers.follows)
        places = {
            id(layer): (name, part)
            for name, plan in plans.items()
            for layer, part in zip(unet.get_submodule(name), plan.parts, strict=True)
        }
        kinds[kind] = _Plans(plans, places)
    return kinds[kind]


def find_layers(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs):
    """APPLY_MODEL: hand over the temporal layers of the patcher that is really running.

    Outside of a sampling run there is none; whoever calls the model then may have put them in. The masked condition
    (n, c + 1, h, w) goes to the temporal layers' own convolution; the host would widen the U-Net's input by it.
    """
    options = dict(transformer_options or {})
    patcher = executor.class_obj.current_patcher
    found = temporal_patcher(patcher) if patcher is not None else None
    if found is not None:
        options[LAYERS] = found.model
    layers = options.get(LAYERS)
    if layers is not None and layers.conv_cond is not None:
        options[CONDITION], c_concat = c_concat, None
    at_sigma(options, executor.class_obj.model_sampling, t)
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


class Clips:
    """DIFFUSION_MODEL: tell clips apart, pad them in time, and start the state of the call.

    Args:
        frames_per_clip: 0 = the whole batch is one clip.
        norms: which group norms see all frames of a clip; see `clip_norms.NORMS`.
    """

    def __init__(self, frames_per_clip: int, norms: str = "frame") -> None:
        self.frames_per_clip, self.norms = frames_per_clip, norms

    def __call__(
        self, executor, x, timesteps=None, context=None, y=None, control=None, transformer_options=None, **kwargs
    ):
        options = dict(transformer_options or {})
        rows = rows_of_call(options, x.shape[0] // len(options.get("cond_or_uncond", (0,))), self.frames_per_clip)
        frames = rows.rows.shape[1]
        if frames == 1:
            return executor(x, timesteps, context, y, control, options, **kwargs)
        layers = options.get(LAYERS)
        if layers is None:
            raise RuntimeError(
                f"the temporal layers were not found for a call with clips of {frames} frames: the model was "
                f"called outside of a sampler. Put them into transformer_options[{LAYERS!r}]."
            )
        if rows.rows.numel() < rows.total:
            features.refuse_in_windows(options)
        if layers.total_stride > 1:
            features.refuse_at_levels(options)
        strength = strength_of_call(options, rows, x)
        still = still_rows(strength) if layers.total_stride > 1 else None
        images = None
        if still is not None or (strength is not None and strength.silent):
            # Frames that nothing may move are the image model's; a strided level has no frame of its own for each.
            copy = control and {name: list(entries) for name, entries in control.items()}  # the host empties its lists
            images = executor(x, timesteps, context, y, copy, options, **kwargs)
        if strength is not None and strength.silent:
            if RUN in options:
                options[RUN].temporal_calls += 1  # they had their say, which is nothing
            return images
        clips = x.shape[0] // frames  # of all prompts
        loop = options.get(LOOP) is True
        whole_loop = loop and frames == rows.clip_frames  # a window of a loop is an arc, which has ends
        if whole_loop:
            check_ring(frames, layers.total_stride)
        padding = padded_frames(frames, layers.total_stride)
        unpadded, rows = rows, rows.padded(padding)
        length = padding.numel()

        def padded(value: Tensor | None) -> Tensor | None:
            if value is None:
                return None
            if value.shape[0] == 1:  # one prompt for all frames
                value = value.expand(x.shape[0], *value.shape[1:])
            if length == frames or value.shape[0] != x.shape[0]:
                return value
            return take_frames(value, padding, clips)

        steps, text, pooled = padded(timesteps), padded(context), padded(y)
        unet = executor.class_obj
        with models.attention_options(options), clip_norms(self.norms, unet, layers, length):
            places = layers.places(rows.numbers, rows.clip_frames, loop).repeat(clips // len(rows.numbers), 1)
            state = layers.begin(length, steps, context=text, y=pooled, dtype=x.dtype, places=places, closed=whole_loop)
            if strength is not None:
                state.strength = replace(strength, mask=padded(strength.mask))
            known = padded(options.get(CONDITION))
            if known is not None:
                clip, mask = known.to(x).split([known.shape[1] - 1, 1], dim=1)
                known = layers.known_features(torch.cat([clip * mask, mask], dim=1))
            options = features.at_full_rate(
                options, unpadded.rows.numel(), partial(FullRate, state, padding, frames, unpadded)
            )
            plans = _plans_of(unet, layers)
            shared = shared_text(text, length)
            text = text if shared is None else shared.at(length)
            first = unet.input_blocks[0][0]
            call = options[KEY] = _Call(layers, state, plans.places, first=first, rows=rows, known=known, text=shared)
            call.tell(options)
            control = control_at_levels(control, plans.plans, state, clips=clips, padded=padded)
            with projected_once(shared, unet):
                out = executor(padded(x), steps, text, pooled, control, options, **kwargs)
        if RUN in options:
            options[RUN].temporal_calls += state.calls
        out = out.unflatten(0, (clips, length))[:, :frames].flatten(0, 1)
        return out if still is None else torch.where(still[:, None, None, None], images, out)


def control_at_levels(
    control: dict[str, list] | None,
    plans: dict[str, BlockPlan],
    state: TemporalState,
    clips: int,
    padded: Callable[[Tensor | None], Tensor | None],
) -> dict[str, list] | None:
    """Take ControlNet residuals at the frame rate of the block that they are added to, never averaged.

    Residuals are (n, c, h, w).

    The host pops the last entry of a list for each block: `input` runs with the encoder, `output` holds the
    residuals of the encoder's skips and runs with the decoder, from the deepest skip up.

    Args:
        clips: of all prompts of the call.
        padded: puts a tensor at full frame rate on the padded frames.
    """
    if control is None:
        return None
    levels = [plan.after for name, plan in plans.items() if name.startswith("input_blocks.")]
    middle = plans["middle_block"].level

    def take(value: Tensor | None, level: int) -> Tensor | None:
        value = padded(value)
        if value is None or value.shape[0] != clips * state.num_frames:
            return value
        return replace(state, level=level).at_level(value)

    def taken(name: str, entries: list) -> list:
        count = len(entries)
        if name == "input":
            at = (levels + [0] * count)[:count][::-1]
        elif name == "output":
            at = ([0] * count + levels)[len(levels) :]
        elif name == "middle":
            at = [middle] * count
        else:
            return entries
        return [take(value, level) for value, level in zip(entries, at, strict=True)]

    return {name: taken(name, entries) for name, entries in control.items()}


# --- handlers: the host calls them in place of a layer ----------------------------------------------------


def _convolution(layer, x, emb, context, options, *_):
    call, h = options.get(KEY), layer(x)
    return h if call is None else call.conditioned(layer, h)


def _residual(layer, x, emb, context, options, *_):
    call = options.get(KEY)
    if call is None:
        return layer(x, emb)
    return call.after(layer, layer(x, call.state.at_level(emb)))


def _attention(layer, x, emb, context, options, *_):
    call = options.get(KEY)
    if call is not None:
        context = call.text_at_level(context)
    x = layer(x, context, options)
    if "transformer_index" in options:
        options["transformer_index"] += 1
    return x if call is None else call.after(layer, x)


def _downsample(layer, x, emb, context, options, *_):
    return _resized(layer, layer(x), options)


def _upsample(layer, x, emb, context, options, output_shape=None, *_):
    return _resized(layer, layer(x, output_shape=output_shape), options)


def _resized(layer, x, options):
    call = options.get(KEY)
    if call is None:
        return x
    x = call.after(layer, x)
    call.tell(options)
    return x


HANDLERS = (
    (torch.nn.Conv2d, _convolution),
    (ResBlock, _residual),
    (SpatialTransformer, _attention),
    (Downsample, _downsample),
    (Upsample, _upsample),
)


def add_handlers(model: comfy.model_patcher.ModelPatcher) -> None:
    """Register the handlers once, in front of those of other packs."""
    patches = model.model_options["transformer_options"].setdefault("patches", {})
    others = [entry for entry in patches.get(PATCH, []) if entry not in HANDLERS]
    patches[PATCH] = [*HANDLERS, *others]


def warn_of_hidden_handlers(executor, *args, **kwargs):
    """OUTER_SAMPLE: the host calls one handler for a layer, so those of other nodes do not run."""
    options = executor.class_obj.model_options.get("transformer_options", {})
    hidden = [
        f"{getattr(handler, '__qualname__', handler)} for {cls.__name__}"
        for cls, handler in options.get("patches", {}).get(PATCH, [])
        if (cls, handler) not in HANDLERS
        and any(issubclass(cls, ours) or issubclass(ours, cls) for ours, _ in HANDLERS)
    ]
    if hidden:
        logging.warning(
            "Lumiere: another node has its own handlers for the U-Net layers that Lumiere inflates, and the host "
            f"calls one of them only; these will not run: {', '.join(hidden)}. Remove that node from this MODEL."
        )
    return executor(*args, **kwargs)
