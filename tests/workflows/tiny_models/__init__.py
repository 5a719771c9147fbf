"""A node pack for tests: stand-ins for loaders whose public files cannot be made small, and files for the others.

The host tells SD1.5 by its width of 320, and Wan's text encoder is always one of 5.7 billion weights.
"""

import comfy.model_management as management
import comfy.model_patcher
import comfy.supported_models
import torch
import torch.nn.functional as F

from . import files

WIDTH = 64  # of the text states
LAYOUT = {
    "image_size": 32,
    "in_channels": 4,
    "model_channels": 32,
    "context_dim": WIDTH,
    "use_spatial_transformer": True,
    "legacy": False,
    "adm_in_channels": None,
    "num_res_blocks": [1] * 4,
    "channel_mult": [1, 1, 2, 2],
    "transformer_depth": [1, 1, 1, 0],
    "transformer_depth_middle": 1,
}
# The host takes heads of 64 channels for a ControlNet of no known kind: only the coarser levels have as many.
CONTROLNET = {**LAYOUT, "transformer_depth": [0, 0, 1, 0], "num_heads": -1, "num_head_channels": 64}


class Clip:
    """Text states that follow from the length of the text."""

    def __init__(self, width):
        self.width = width

    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, tokens):
        states = torch.full((1, 77, self.width), len(tokens) / 100)
        return [[states, {"pooled_output": torch.zeros(1, 768)}]]


class Vae:
    """8 x 8 pixels a latent, the first three channels as colours."""

    def encode(self, pixels):
        small = F.avg_pool2d(pixels.movedim(-1, 1) * 2 - 1, 8)
        return torch.cat([small, small[:, :1]], dim=1)

    def decode(self, latents):
        large = latents[:, :3].repeat_interleave(8, -1).repeat_interleave(8, -2)
        return ((large + 1) / 2).clamp(0, 1).movedim(1, -1)


def model(name):
    """Return a MODEL of four levels of 32, 32, 64 and 64 channels, random weights; one for inpainting by its name."""
    layout = {**LAYOUT, "out_channels": 4, "transformer_depth_output": [1, 1, 1, 1, 1, 1, 0, 0]}
    if "inpainting" in name:
        layout["in_channels"] = 9
    config = comfy.supported_models.SD15(layout)
    config.unet_config.update({"num_heads": -1, "num_head_channels": 32})
    config.set_inference_dtype(torch.float32, None)
    made = config.get_model({}, "")
    made.load_model_weights(files.random_state(made.diffusion_model, len(name)), "")
    return comfy.model_patcher.CoreModelPatcher(
        made, load_device=management.get_torch_device(), offload_device=management.unet_offload_device()
    )


class TinyCheckpoint:
    """As Load Checkpoint, without a file: the name is the seed."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"ckpt_name": ("STRING", {})}}

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load"

    def load(self, ckpt_name):
        made = model(ckpt_name)
        made.cached_patcher_init = (model, (__file__,))  # the host's loaders leave the file here, for the label
        return made, Clip(WIDTH), Vae()


class TinyTextEncoder:
    """As Load CLIP, without a file: states of the width of Wan's."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {name: ("STRING", {}) for name in ("clip_name", "type", "device")}}

    RETURN_TYPES = ("CLIP",)
    FUNCTION = "load"

    def load(self, **names):
        return (Clip(4096),)


files.write(CONTROLNET)
NODE_CLASS_MAPPINGS = {"TinyCheckpoint": TinyCheckpoint, "TinyTextEncoder": TinyTextEncoder}
