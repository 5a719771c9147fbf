"""Temporal layers around any U-Net MODEL of the host (Lumiere §3.1), without touching the host's forward.

The temporal layers are an additional model, so the host loads, offloads and patches them beside the image model,
and LoRA, ControlNet, merges and the like see the U-Net they know. `clips.py` runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management as model_management
import comfy.model_patcher
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel, VideoResBlock
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...lumiere_core.nets.checkpoint import check_state
from ...lumiere_core.nets.checkpoint import sha256 as sha256_of
from ...lumiere_core.nets.config import KINDS, TemporalConfig, UNetConfig
from ...lumiere_core.nets.motion_files import Training
from ...lumiere_core.nets.temporal import TemporalLayers, initial_state
from . import models
from .boxes import for_each_row
from .handlers import Clips, add_handlers, find_layers, warn_of_hidden_handlers
from .keys import EVOLVED, KEY
from .noise import ShareNoise, share_added_noise
from .run import WatchRun, budget

StateDict = dict[str, Tensor]
CONCAT_KEYS = ("masked_image", "mask_inverted")  # C and M, in the host's words


@dataclass(frozen=True)
class Inflation:
    """What an inflated MODEL knows about itself; `inflation_of` reads it from a MODEL."""

    unet_config: UNetConfig
    temporal_config: TemporalConfig
    frames_per_clip: int  # 0 = a batch is one clip
    title: str = "untitled"
    sha256: dict[str, str] = field(default_factory=dict)  # file name -> hash of the weights
    image_recorded: bool = False  # whether the files of the image weights are among them
    trained_size: tuple[int, int] | None = None  # width and height in pixels
    training: Training | None = None  # of a public motion module


def inflation_of(model: comfy.model_patcher.ModelPatcher) -> Inflation | None:
    """Return what `inflate` knew when it made this MODEL, or None for an image model."""
    return model.attachments.get(KEY)


def image_hashes(model: comfy.model_patcher.ModelPatcher) -> dict[str, str]:
    """Return the hashes, by file name, of the files that a MODEL's image weights come from; {} = not known."""
    inflation = inflation_of(model)
    if inflation is not None:
        return inflation.sha256 if inflation.image_recorded else {}
    file = models.weight_file(model)
    return {} if file is None else {file.name: sha256_of(file)}


def inflate(
    model: comfy.model_patcher.ModelPatcher,
    state: StateDict | None,
    config: TemporalConfig,
    frames_per_clip: int = 0,
    *,
    title: str = "untitled",
    sha256: dict[str, str] | None = None,
    image_recorded: bool = False,
    trained_size: tuple[int, int] | None = None,
    training: Training | None = None,
    norms: str = "frame",
    reload: Callable[[], StateDict] | None = None,
) -> comfy.model_patcher.ModelPatcher:
    """Return a MODEL that generates clips: a clone of an image MODEL with temporal layers.

    Args:
        model: of any U-Net family (lumiere-mini, SD1.x, SD2.x, SDXL, the SD x4 upscaler).
        state: of the temporal layers; None starts them as the paper does (resizes are the identity).
        config: of the temporal layers.
        frames_per_clip: frames of one clip in a batch; 0 = the whole batch is one clip.
        title, sha256: of the weights, for the metadata of what they generate.
        image_recorded: whether `sha256` names the files of the image weights too; see `image_hashes`.
        trained_size: width and height in pixels, for a warning outside it.
        training: of a public motion module, to be kept with the MODEL.
        norms: which group norms see all frames of a clip at once; see `clip_norms.NORMS`.
        reload: reads `state` again, where a copy of the MODEL is needed; without it `state` is kept.

    Raises:
        ValueError: the MODEL has no U-Net of this kind, or the weights do not fit it.
    """
    unet_config = unet_config_of(model)
    _refuse_two_kinds(model, config, title)
    with torch.device("meta"):
        template = TemporalLayers(unet_config, config)
    if state is None:
        state = initial_state(template, torch.Generator().manual_seed(0))
    check_state(template.state_dict(), state, f"the temporal layers of {title}")
    if config.conv_cond and tuple(model.get_model_object("concat_keys")) not in ((), CONCAT_KEYS):
        raise ValueError(
            "this MODEL is an inpainting or depth model with own extra input channels, and these temporal layers bring "
            "theirs for masked conditions. Use the plain image model, or temporal layers without conv_cond."
        )

    dtype = _temporal_dtype(model)
    source = reload or _Keep(state)
    patcher = _temporal_patcher(state, unet_config, config, dtype=dtype, load_device=model.load_device)
    patcher.cached_patcher_init = (_reload_temporal_patcher, (source, unet_config, config, dtype, model.load_device))

    inflated = model.clone()
    _take_conditions(inflated, config.conv_cond)
    inflated.set_additional_models(KEY, [patcher])
    inflated.set_attachments(
        KEY,
        Inflation(
            unet_config,
            config,
            frames_per_clip=frames_per_clip,
            title=title,
            sha256=dict(sha256 or {}),
            image_recorded=image_recorded,
            trained_size=trained_size,
            training=training,
        ),
    )
    watch = WatchRun(
        frames_per_clip, config.frames_per_clip, trained_size, takes_conditions=config.conv_cond, fps=config.fps
    )
    wrappers = [
        (WrappersMP.OUTER_SAMPLE, warn_of_hidden_handlers),
        (WrappersMP.OUTER_SAMPLE, watch),
        (WrappersMP.OUTER_SAMPLE, ShareNoise(frames_per_clip, config.shared_noise)),
        (WrappersMP.PREPARE_SAMPLING, budget),
        (WrappersMP.CALC_COND_BATCH, for_each_row),
        (WrappersMP.APPLY_MODEL, find_layers),
        (WrappersMP.DIFFUSION_MODEL, Clips(frames_per_clip, norms)),
    ]
    models.set_wrappers(inflated, KEY, wrappers)
    share_added_noise(inflated, frames_per_clip, config.shared_noise)
    add_handlers(inflated)
    return inflated


def _refuse_two_kinds(model: comfy.model_patcher.ModelPatcher, config: TemporalConfig, title: str) -> None:
    """Raise ValueError if a MODEL has temporal layers of another kind; those of its own kind are replaced."""
    before = inflation_of(model)
    if before is not None and before.temporal_config.kind != config.kind:
        raise ValueError(
            f"this MODEL has {KINDS[before.temporal_config.kind]} already ({before.title}), and {title} is "
            f"{KINDS[config.kind]}: a MODEL takes one kind. Connect the image MODEL, as Load Checkpoint gives it."
        )
    if model.get_additional_models_with_key(EVOLVED):
        raise ValueError(
            "this MODEL has a motion module of AnimateDiff-Evolved already, and both would move every frame. Connect the "
            "image MODEL, as Load Checkpoint gives it."
        )


def unet_config_of(model: comfy.model_patcher.ModelPatcher) -> UNetConfig:
    """Return core's description of a MODEL's U-Net.

    Raises:
        ValueError: the MODEL is no U-Net that Lumiere can inflate.
    """
    unet = model.get_model_object("diffusion_model")
    values = model.model.model_config.unet_config
    problem = None
    if not isinstance(unet, UNetModel):
        problem = f"its network is a {type(unet).__name__}"
    elif any(isinstance(layer, VideoResBlock) for layer in unet.modules()):
        problem = "it is a video model already"
    elif unet.middle_block is None or not values.get("use_spatial_transformer"):
        problem = "its U-Net has no middle block or no spatial transformers"
    elif values.get("resblock_updown") or values.get("dims", 2) != 2:
        problem = "its U-Net resizes inside residual blocks or is not two-dimensional"
    if problem:
        raise ValueError(
            f"this MODEL cannot be inflated: {problem}. "
            "Use a U-Net image model: lumiere-mini, SD1.x, SD2.x, SDXL or the SD x4 upscaler."
        )
    patch, pixels = values.get("patch_size", 1), values.get("pixels", 0)
    details, width = values.get("details") or (0, 0)
    levels = len(values["channel_mult"])
    blocks = values["num_res_blocks"]
    heads = values.get("num_heads", -1)
    classes = values.get("num_classes")
    text_only = [i for i, off in enumerate(values.get("disable_self_attentions") or ()) if off]
    everywhere = len(text_only) == levels and bool(values.get("disable_middle_self_attn"))
    return UNetConfig(
        in_channels=pixels or values["in_channels"] // patch**2,
        out_channels=pixels or values.get("out_channels", 4) // patch**2,
        patch_size=patch,
        patch_channels=values["in_channels"] + details if pixels else 0,
        detail_width=width,
        model_channels=values["model_channels"],
        channel_mult=tuple(values["channel_mult"]),
        num_res_blocks=(blocks,) * levels if isinstance(blocks, int) else tuple(blocks),
        transformer_depth=tuple(values["transformer_depth"]),
        transformer_depth_output=tuple(values["transformer_depth_output"]),
        transformer_depth_middle=values["transformer_depth_middle"],
        context_dim=values.get("context_dim"),
        num_heads=heads,
        num_head_channels=values.get("num_head_channels", -1) if heads == -1 else -1,
        use_linear_in_transformer=bool(values.get("use_linear_in_transformer")),
        use_scale_shift_norm=bool(values.get("use_scale_shift_norm")),
        adm_in_channels=values.get("adm_in_channels"),
        disable_self_attn=everywhere,
        num_classes=classes if isinstance(classes, int) else 0,
        text_only_levels=() if everywhere else tuple(text_only),
    )


def _take_conditions(model: comfy.model_patcher.ModelPatcher, wanted: bool) -> None:
    """Let the host make the masked condition of every run: [C, M] with M = 1 where it is known.

    It comes from InpaintModelConditioning, or from a noise mask on the latent alone; without any, nothing is known.
    """
    if wanted:
        model.add_object_patch("concat_keys", CONCAT_KEYS)
        model.add_object_patch("blank_inpaint_image_like", torch.zeros_like)
    elif model.object_patches.get("concat_keys") == CONCAT_KEYS:  # of other temporal layers
        del model.object_patches["concat_keys"], model.object_patches["blank_inpaint_image_like"]


def _temporal_dtype(model: comfy.model_patcher.ModelPatcher) -> torch.dtype:
    """Return the dtype of the image weights; 8-bit ones are too coarse for layers that were trained in more."""
    dtype = model.get_model_object("diffusion_model").dtype
    return dtype if dtype in models.DTYPES.values() else torch.float16


class _Keep:
    """Hand a state dict out again (a function would be compared by the host's caches)."""

    def __init__(self, state: StateDict) -> None:
        self.state = state

    def __call__(self) -> StateDict:
        return self.state


def _temporal_patcher(
    state: StateDict,
    unet_config: UNetConfig,
    config: TemporalConfig,
    dtype: torch.dtype,
    load_device: torch.device,
    disable_dynamic: bool = False,
) -> comfy.model_patcher.ModelPatcher:
    layers = TemporalLayers(
        unet_config, config, models.operations(dtype, model_management.unet_offload_device()), models.attention
    )
    layers.eval().requires_grad_(False)
    patcher = models.new_patcher(layers, load_device, disable_dynamic)
    models.load_state(patcher, layers, state)
    return patcher


def _reload_temporal_patcher(
    source: Callable[[], StateDict], *args: Any, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """Make the temporal layers again, unpatched: the host asks for it on other devices."""
    return _temporal_patcher(source(), *args, disable_dynamic=disable_dynamic)
