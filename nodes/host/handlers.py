"""One call of an inflated U-Net: the wrappers and handlers that the host runs around its layers.

A handler for each kind of layer (`forward_timestep_embed_patch`) runs the temporal parts after it; a wrapper
around the U-Net starts a `TemporalState` for every call. Shapes: n - chunks (prompts) of a call, t - frames of one
of them, both in the batch axis.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import comfy.model_patcher
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, UNetModel, Upsample
from torch import Tensor

from ...lumiere_core.clips.video import clip_count, padded_frames
from ...lumiere_core.nets.temporal import TemporalLayers, TemporalState
from . import models
from .run import RUN, WINDOW, WINDOWS

KEY = "lumiere"  # of wrappers, the additional model, the attachment and our entry in transformer_options
LAYERS = "lumiere_layers"
CONDITION = "lumiere_condition"
PATCH = "forward_timestep_embed_patch"


def temporal_patcher(model: comfy.model_patcher.ModelPatcher) -> comfy.model_patcher.ModelPatcher | None:
    """Return the patcher of a MODEL's temporal layers; weight patches on it work as on any other."""
    found = model.get_additional_models_with_key(KEY)
    return found[0] if found else None


@dataclass(frozen=True)
class _Role:
    """Where a layer stands: its block, and whether the block's temporal part follows it."""

    block: str
    last: bool


@dataclass
class _Call:
    """The state of one call of the U-Net, in its transformer_options; made anew for every call."""

    layers: TemporalLayers
    state: TemporalState
    roles: dict[int, _Role]
    first: torch.nn.Module  # the U-Net's first convolution
    known: Tensor | None = None  # what the condition adds to its output

    def conditioned(self, layer: torch.nn.Module, h: Tensor) -> Tensor:
        """Add the masked condition after the first convolution; the sum is one wider convolution."""
        return h if self.known is None or layer is not self.first else h + self.known

    def after(self, layer: torch.nn.Module, h: Tensor) -> Tensor:
        """Run the temporal part if `layer` is the last of its residual and attention group."""
        role = self.roles.get(id(layer))
        return self.layers.inflate(role.block, h, self.state) if role and role.last else h

    def resized(self, layer: torch.nn.Module, h: Tensor, resize: Callable) -> Tensor:
        """Run the temporal resize that follows a spatial one; `resize` is a method of the temporal layers."""
        role = self.roles.get(id(layer))  # None: a layer of some other network
        return resize(role.block, h, self.state) if role else h


_roles: weakref.WeakKeyDictionary[UNetModel, dict[int, _Role]] = weakref.WeakKeyDictionary()


def _roles_of(unet: UNetModel) -> dict[int, _Role]:
    """Return the role of every layer by its id; per U-Net, because copies on other devices have other ids."""
    if unet not in _roles:
        blocks = [("middle_block", unet.middle_block)]
        blocks += [(f"input_blocks.{i}", block) for i, block in enumerate(unet.input_blocks)]
        blocks += [(f"output_blocks.{i}", block) for i, block in enumerate(unet.output_blocks)]
        roles = {}
        for name, block in blocks:
            group = [layer for layer in block if isinstance(layer, (ResBlock, SpatialTransformer))]
            for layer in block:
                roles[id(layer)] = _Role(name, bool(group) and layer is group[-1])
        _roles[unet] = roles
    return _roles[unet]


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
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


class Clips:
    """DIFFUSION_MODEL: tell clips apart, pad them in time, and start the state of the call."""

    def __init__(self, frames_per_clip: int) -> None:
        self.frames_per_clip = frames_per_clip

    def __call__(
        self, executor, x, timesteps=None, context=None, y=None, control=None, transformer_options=None, **kwargs
    ):
        options = dict(transformer_options or {})
        chunk = x.shape[0] // len(options.get("cond_or_uncond", (0,)))
        # A window of a clip is shorter than a clip and is taken as one.
        frames = min(self.frames_per_clip or chunk, chunk)
        clips = clip_count(x.shape[0], frames)
        if frames == 1:
            return executor(x, timesteps, context, y, control, options, **kwargs)
        layers = options.get(LAYERS)
        if layers is None:
            raise RuntimeError(
                f"the temporal layers were not found for a call with clips of {frames} frames: the model was "
                f"called outside of a sampler. Put them into transformer_options[{LAYERS!r}]."
            )
        numbers = padded_frames(frames, layers.total_stride).to(x.device)
        length = numbers.numel()

        def padded(value: Tensor | None) -> Tensor | None:
            if value is None:
                return None
            if value.shape[0] == 1:  # one prompt for all frames
                value = value.expand(x.shape[0], *value.shape[1:])
            if length == frames or value.shape[0] != x.shape[0]:
                return value
            return value.unflatten(0, (clips, frames)).index_select(1, numbers).flatten(0, 1)

        steps, text, pooled = padded(timesteps), padded(context), padded(y)
        unet = executor.class_obj
        with models.attention_options(options):
            first, whole = window_place(options)
            starts = torch.full((clips,), float(first), device=steps.device)
            state = layers.begin(length, steps, text, pooled, x.dtype, starts, whole)
            known = padded(options.get(CONDITION))
            if known is not None:
                clip, mask = known.to(x).split([known.shape[1] - 1, 1], dim=1)
                known = layers.known_features(torch.cat([clip * mask, mask], dim=1))
            options[KEY] = _Call(layers, state, _roles_of(unet), unet.input_blocks[0][0], known)
            control = strided_control(control, unet, layers.config.stride, clips, length, padded)
            out = executor(padded(x), steps, text, pooled, control, options, **kwargs)
        if RUN in options:
            options[RUN].temporal_calls += state.calls
        return out.unflatten(0, (clips, length))[:, :frames].flatten(0, 1)


def window_place(options: dict) -> tuple[int, int]:
    """Return the first frame of a window, ours or the host's, and the frames of its clip; (0, 0) for a whole clip."""
    run, numbers = options.get(WINDOWS), options.get(WINDOW)
    if run is not None and numbers is not None:
        return numbers[0] % run.frames, run.frames
    window = options.get("context_window")  # of the host's Context Windows
    return (0, 0) if window is None else (window.index_list[0], window.total_frames)


def strided_control(
    control: dict[str, list] | None,
    unet: UNetModel,
    stride: int,
    clips: int,
    length: int,
    padded: Callable[[Tensor | None], Tensor | None],
) -> dict[str, list] | None:
    """Take ControlNet residuals at the frame rate of the block that they are added to, never averaged.

    The host pops the last entry of a list for each block: `input` runs with the encoder, `output` holds the
    residuals of the encoder's skips and runs with the decoder, from the deepest skip up.
    """
    if control is None:
        return None
    strides, current = [], 1
    for block in unet.input_blocks:
        if any(isinstance(layer, Downsample) for layer in block):
            current *= stride
        strides.append(current)

    def take(value: Tensor | None, step: int) -> Tensor | None:
        value = padded(value)
        if value is None or step == 1 or value.shape[0] != clips * length:
            return value
        return value.unflatten(0, (clips, length))[:, ::step].flatten(0, 1)

    def taken(name: str, entries: list) -> list:
        count = len(entries)
        if name == "input":
            at = (strides + [1] * count)[:count][::-1]
        elif name == "output":
            at = ([1] * count + strides)[len(strides) :]
        elif name == "middle":
            at = [current] * count
        else:
            return entries
        return [take(value, step) for value, step in zip(entries, at, strict=True)]

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
    x = layer(x, context if call is None else call.state.at_level(context), options)
    if "transformer_index" in options:
        options["transformer_index"] += 1
    return x if call is None else call.after(layer, x)


def _downsample(layer, x, emb, context, options, *_):
    call, x = options.get(KEY), layer(x)
    return x if call is None else call.resized(layer, x, call.layers.downsample)


def _upsample(layer, x, emb, context, options, output_shape=None, *_):
    call, x = options.get(KEY), layer(x, output_shape=output_shape)
    return x if call is None else call.resized(layer, x, call.layers.upsample)


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
