"""A node pack for tests: one node that stands in for Load Checkpoint, with a very small model in SD1.5's layout.

The host tells SD1.5 by its width of 320, so that no file of a small one exists that Load Checkpoint would take.
"""

import comfy.model_management as management
import comfy.model_patcher
import comfy.supported_models
import torch

WIDTH = 64  # of the text states


class Clip:
    """Text states that follow from the length of the text."""

    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, tokens):
        states = torch.full((1, 77, WIDTH), len(tokens) / 100)
        return [[states, {"pooled_output": torch.zeros(1, 768)}]]


class Vae:
    """8 x 8 pixels a latent, the first three channels as colours."""

    def decode(self, latents):
        large = latents[:, :3].repeat_interleave(8, -1).repeat_interleave(8, -2)
        return ((large + 1) / 2).clamp(0, 1).movedim(1, -1)


def model(seed):
    """Return a MODEL of four levels of 32, 32, 64 and 64 channels, random weights."""
    layout = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 32,
        "context_dim": WIDTH,
        "use_spatial_transformer": True,
        "legacy": False,
        "adm_in_channels": None,
        "num_res_blocks": [1] * 4,
        "channel_mult": [1, 1, 2, 2],
        "transformer_depth": [1, 1, 1, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_middle": 1,
    }
    config = comfy.supported_models.SD15(layout)
    config.unet_config.update({"num_heads": -1, "num_head_channels": 32})
    config.set_inference_dtype(torch.float32, None)
    made = config.get_model({}, "")
    random = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in made.diffusion_model.state_dict().items():
        noise = torch.randn(value.shape, generator=random)
        state[key] = noise * (value[0].numel() ** -0.5 if value.ndim > 1 else 0.05)
    made.load_model_weights(state, "")
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
        made = model(len(ckpt_name))
        made.cached_patcher_init = (model, (__file__,))  # the host's loaders leave the file here, for the label
        return made, Clip(), Vae()


NODE_CLASS_MAPPINGS = {"TinyCheckpoint": TinyCheckpoint}
