"""Networks of the host that look at frames: CLIP vision, CLIP text and optical flow, as core's measures take them."""

from __future__ import annotations

from typing import Any

import comfy.model_management as model_management
import torch
import torch.nn.functional as F
from torch import Tensor

from ...lumiere_core.measures.embeddings import Encoder
from ...lumiere_core.measures.motion import Flow


def image_encoder(clip_vision: Any) -> Encoder:
    """Return the host's CLIP_VISION as a function of (3, h, w) levels; the centre square is seen, as CLIP does."""

    def encode(frame: Tensor) -> Tensor:
        images = (frame.movedim(0, -1)[None] / 255).clamp(0, 1)
        found = clip_vision.encode_image(images)["image_embeds"]
        if found is None:
            raise ValueError("this CLIP_VISION has no image embeddings; load a CLIP or SigLIP one.")
        return found[0]

    return encode


def text_features(clip: Any, text: str) -> Tensor:
    """Return the projected embedding (features,) of a text by the host's CLIP.

    Raises:
        ValueError: the CLIP has no trained projection, so that its vectors lie in another space than the images'.
    """
    projections = [
        part.text_projection.weight
        for part in clip.cond_stage_model.modules()
        if isinstance(getattr(getattr(part, "text_projection", None), "weight", None), Tensor)
    ]
    # The host fills a missing projection with the identity.
    if len(projections) != 1 or _is_identity(projections[0]):
        raise ValueError(
            "this CLIP has no text projection of its own, as in checkpoints of SD1.x, or it is no single CLIP model. "
            "Load the text encoder that belongs to the CLIP vision model with Load CLIP, such as clip_l.safetensors "
            "for CLIP ViT-L/14, which comfyanonymous publishes in flux_text_encoders."
        )
    _, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
    return pooled[0]


def optical_flow(patcher: Any) -> Flow:
    """Return the host's OPTICAL_FLOW (torchvision's RAFT) as core's measures take a flow."""
    model_management.load_model_gpu(patcher)
    model, device = patcher.model, patcher.load_device

    @torch.inference_mode()
    def flow(first: Tensor, second: Tensor) -> Tensor:
        height, width = first.shape[1:]
        # RAFT takes multiples of 8, of 128 pixels at least.
        size = [max(128, -(-side // 8) * 8) for side in (height, width)]
        pair = [
            F.interpolate(frame[None].to(device) / 127.5 - 1, size, mode="bilinear", align_corners=False)
            for frame in (first, second)
        ]
        found = F.interpolate(model(*pair)[-1], (height, width), mode="bilinear", align_corners=False)[0].cpu()
        return found * torch.tensor([width / size[1], height / size[0]]).view(2, 1, 1)

    return flow


def _is_identity(weight: Tensor) -> bool:
    return weight.shape[0] == weight.shape[1] and bool(torch.equal(weight.cpu().float(), torch.eye(len(weight))))
