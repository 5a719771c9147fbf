"""Very small random weights under the names of public files, which the host's own loaders take: Wan 2.1 and a ControlNet."""

from pathlib import Path

import comfy.cldm.cldm
import comfy.ldm.wan.model
import comfy.ldm.wan.vae
import comfy.ops
import folder_paths
import torch
from safetensors.torch import save_file

# What the host does not read from the shapes of a file is as in the public ones.
WAN = {"dim": 128, "ffn_dim": 64, "num_heads": 1, "num_layers": 1, "in_dim": 16, "out_dim": 16}
WAN_VAE = {"dim": 8, "z_dim": 16, "temperal_downsample": [False, True, True]}


def wan(kind, **options):
    made = comfy.ldm.wan.model.WanModel if kind == "t2v" else comfy.ldm.wan.model.VaceWanModel
    return made(model_type=kind, **WAN, **options, operations=comfy.ops.disable_weight_init)


def controlnet(layout):
    return comfy.cldm.cldm.ControlNet(**layout, hint_channels=3, operations=comfy.ops.disable_weight_init)


def random_state(module, seed=0):
    """Return a state dict of a module: all layers matter, and nothing gets large."""
    random = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in module.state_dict().items():
        noise = torch.randn(value.shape, generator=random)
        scale = key.endswith("gamma") or ("norm" in key and key.endswith("weight"))
        state[key] = scale + noise * (value[0].numel() ** -0.5 if value.ndim > 1 and not scale else 0.05)
    return state


def write(layout):
    """Write the files into the host's folders of models. `layout` is of the U-Net that the ControlNet is for."""
    modules = {
        "diffusion_models/wan2.1_t2v_1.3B_fp16": wan("t2v"),
        "diffusion_models/wan2.1_vace_1.3B_fp16": wan("vace", vace_layers=1, vace_in_dim=96),
        "vae/wan_2.1_vae": comfy.ldm.wan.vae.WanVAE(**WAN_VAE),
        "controlnet/control_v11p_sd15_canny_fp16": controlnet(layout),
    }
    for name, module in modules.items():
        path = Path(folder_paths.models_dir) / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(random_state(module), path)
