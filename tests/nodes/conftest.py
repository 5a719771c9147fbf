"""The real host, booted once in this process, with the pack in its custom_nodes.

Import core through the pack here (`host.module("lumiere_core.clips.video")`): a plain `import lumiere_core` is a second
copy with different classes.
"""

import os
import shlex
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def host(headless, comfyui, tmp_path_factory):
    """The booted host: .pack, .module(name), .nodes_by_id, .run(prompt) -> outputs, .call(node_id, **inputs) -> tuple,
    .events, .base, .HostError.

    It runs on the CPU, so that numbers are the same everywhere; LUMIERE_HOST_ARGS replaces "--cpu".
    """
    if hasattr(headless, "booted"):  # the tests of another folder, in the same process: there is one host in each
        return headless.booted
    base = tmp_path_factory.mktemp("base")
    headless.prepare_base(base)
    arguments = shlex.split(os.environ.get("LUMIERE_HOST_ARGS", "--cpu"))
    booted = headless.HeadlessHost(comfyui, base, arguments)
    booted.base = base
    booted.HostError = headless.HostError
    headless.booted = booted
    return booted


class Studio:
    """Very small random weights, loaded by Load Lumiere, and one call to sample with them."""

    SIZE = 16  # pixels

    def __init__(self, host, write_tiny):
        self.host, self.write_tiny = host, write_tiny
        self.folder = host.base / "models" / "lumiere"
        self.model, self.clip, self.vae = self.load("tiny.safetensors")
        self.positive, self.negative = host.call(
            "LumiereTextEncode", clip=self.clip, prompt="a red ball", negative_prompt=""
        )

    def load(self, name, frames_per_clip=0, dtype="default", **options):
        """Write a checkpoint and load it: (MODEL, CLIP, VAE)."""
        self.write_tiny(self.folder / name, **options)
        return self.host.call("LumiereLoader", checkpoint=name, dtype=dtype, frames_per_clip=frames_per_clip)

    def sample(self, model=None, frames=4, node="KSampler", latent=None, **options):
        """Return the (frames, 3, 16, 16) samples of a short run."""
        import torch

        settings = {
            "seed": 1,
            "steps": 2,
            "cfg": 3.0,
            "sampler_name": "euler",
            "scheduler": "karras",
            "positive": self.positive,
            "negative": self.negative,
            "denoise": 1.0,
            **options,
        }
        if node == "LumiereSampler":
            settings.setdefault("dynamic_threshold", 0.0)
        if latent is None:
            latent = {"samples": torch.zeros(frames, 3, self.SIZE, self.SIZE)}
        model = self.model if model is None else model
        (result,) = self.host.call(node, model=model, latent_image=latent, **settings)
        return result["samples"]


@pytest.fixture(scope="session")
def studio(host, write_tiny):
    """See `Studio`."""
    return Studio(host, write_tiny)


@pytest.fixture
def log(caplog):
    """Function: the host's warnings so far, as one text."""
    caplog.set_level("WARNING")
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


@pytest.fixture(scope="session")
def inflate(host):
    return host.module("nodes.host.inflate")


@pytest.fixture(scope="session")
def clips(host):
    return host.module("nodes.host.handlers")


@pytest.fixture
def spied(clips):
    """Function (MODEL, seen) -> a clone that notes the U-Net's input shape and what its layers get as condition."""
    from comfy.patcher_extension import WrappersMP

    def spy_on(model, seen):
        def spy(executor, x, *args, **kwargs):
            options = args[-1] if isinstance(args[-1], dict) else kwargs["transformer_options"]
            seen.append((tuple(x.shape), options.get(clips.CONDITION)))
            return executor(x, *args, **kwargs)

        model = model.clone()
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "spy", spy)
        return model

    return spy_on


class Backbones:
    """Image MODELs in the layouts of real checkpoints, by the host's own model classes; narrow, random weights."""

    SIZE = 8  # latent pixels
    WIDTH = 64  # of the text states

    def __init__(self, host):
        self.host, self.made = host, {}

    def __call__(self, name, dtype=None, seed=0, **changes):
        """Return a clone of the MODEL: "SD15", "SD15 inpaint", "SD21", "SDXL" or "SD x4"."""
        import torch

        dtype = dtype or torch.float32
        key = (name, dtype, seed, repr(changes))
        if key not in self.made:
            self.made[key] = self._make(name, dtype, seed, changes)
        return self.made[key].clone()

    def _make(self, name, dtype, seed, changes):
        import comfy.model_management as management
        import comfy.model_patcher
        import comfy.supported_models as supported
        import torch

        deep = {
            "num_res_blocks": [1] * 4,
            "channel_mult": [1, 1, 2, 2],
            "transformer_depth": [1, 1, 1, 0],
            "transformer_depth_output": [1, 1, 1, 1, 1, 1, 0, 0],
            "transformer_depth_middle": 1,
        }
        wide = {
            "num_res_blocks": [1] * 3,
            "channel_mult": [1, 2, 2],
            "transformer_depth": [0, 1, 2],
            "transformer_depth_output": [0, 0, 1, 1, 2, 2],
            "transformer_depth_middle": 2,
        }
        family, layout = {
            "SD15": (supported.SD15, deep),
            "SD15 inpaint": (supported.SD15, {**deep, "in_channels": 9}),
            "SD21": (supported.SD20, {**deep, "use_linear_in_transformer": True}),
            "SDXL": (
                supported.SDXL,
                {**wide, "use_linear_in_transformer": True, "num_classes": "sequential", "adm_in_channels": 2816},
            ),
            "SD x4": (
                supported.SD_X4Upscaler,
                {**deep, "in_channels": 7, "use_linear_in_transformer": True, "num_classes": 1000},
            ),
        }[name]
        config = family(
            {
                "image_size": 32,
                "in_channels": 4,
                "out_channels": 4,
                "model_channels": 32,
                "context_dim": self.WIDTH,
                "use_spatial_transformer": True,
                "legacy": False,
                "adm_in_channels": None,
                **layout,
                **changes,
            }
        )
        config.unet_config.update({"num_heads": -1, "num_head_channels": 32})
        config.set_inference_dtype(dtype, None if dtype == torch.float32 else torch.float32)
        model = config.get_model({}, "")
        model.load_model_weights(self._random(model.diffusion_model, seed), "")
        return comfy.model_patcher.CoreModelPatcher(
            model, load_device=management.get_torch_device(), offload_device=management.unet_offload_device()
        )

    @staticmethod
    def _random(unet, seed):
        import torch

        generator = torch.Generator().manual_seed(seed)
        state = {}
        for key, value in unet.state_dict().items():
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim > 1:
                state[key] = noise * value[0].numel() ** -0.5
            else:
                state[key] = noise * 0.05 + (1.0 if "norm" in key and key.endswith("weight") else 0.0)
        return state

    def text(self, seed=0, frames=1):
        """Return a conditioning; SDXL reads its pooled vector."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        states = torch.randn(frames, 77, self.WIDTH, generator=generator)
        return [[states, {"pooled_output": torch.randn(1, 1280, generator=generator)}]]

    def sample(self, model, frames=8, positive=None, node="KSampler", latent=None, **options):
        """Return the (frames, 4, 8, 8) samples of a short run."""
        import torch

        settings = {
            "seed": 1,
            "steps": 2,
            "cfg": 3.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1.0,
            "positive": positive or self.text(1),
            "negative": self.text(2),
            **options,
        }
        latent = latent or {"samples": torch.zeros(frames, 4, self.SIZE, self.SIZE)}
        (result,) = self.host.call(node, model=model, latent_image=latent, **settings)
        return result["samples"]


@pytest.fixture(scope="session")
def backbones(host):
    """See `Backbones`."""
    return Backbones(host)


class MeansVae:
    """Means of so many pixels a side as latents, four channels, with the interface of the host's VAE."""

    first_stage_model = object()
    latent_dim = 2

    def __init__(self, ratio):
        self.ratio = ratio

    def encode(self, pixels):
        import torch
        import torch.nn.functional as F

        small = F.avg_pool2d(pixels.movedim(-1, 1) * 2 - 1, self.ratio)
        return torch.cat([small, small[:, :1]], dim=1)

    def decode(self, latents):
        large = latents[:, :3].repeat_interleave(self.ratio, -1).repeat_interleave(self.ratio, -2)
        return ((large + 1) / 2).clamp(0, 1).movedim(1, -1)

    def spacial_compression_encode(self):
        return self.ratio


@pytest.fixture(scope="session")
def hosts_windows(host):
    """A function (MODEL, schedule, closed_loop) -> MODEL with the host's windows of four frames."""

    def cut(model, schedule="standard_static", closed_loop=False):
        settings = {
            "context_length": 4,
            "context_overlap": 2,
            "context_schedule": schedule,
            "context_stride": 1,
            "closed_loop": closed_loop,
            "fuse_method": "flat",
            "dim": 0,
            "freenoise": False,
            "cond_retain_index_list": "",
            "split_conds_to_windows": False,
            "latent_retain_index_list": "",
            "causal_window_fix": False,
        }
        return host.call("ContextWindowsManual", model=model, **settings)[0]

    return cut


@pytest.fixture(scope="session")
def means_vae():
    """Function ratio -> a VAE without weights."""
    return MeansVae


@pytest.fixture(scope="session")
def stand_ins(backbones):
    """(CLIP, VAE) for an SD-type image model, with the host's interfaces and without weights."""
    import torch

    class Clip:
        """The length of the text everywhere."""

        def tokenize(self, text):
            return text

        def encode_from_tokens(self, tokens, return_pooled=False):
            value = float(len(tokens))
            return torch.full((1, 77, backbones.WIDTH), value), torch.full((1, 1280), value)

    return Clip(), MeansVae(8)


@pytest.fixture(scope="session")
def pair(backbones, inflate):
    """A function width, name -> (image MODEL, the same with temporal layers at their initialisation).

    These leave the key frames, every second one, to the image model alone.
    """
    small = {
        "num_res_blocks": [1, 1],
        "channel_mult": [1, 2],
        "transformer_depth": [1, 1],
        "transformer_depth_output": [1, 1, 1, 1],
        "transformer_depth_middle": 1,
    }
    config = backbones.host.module("lumiere_core.nets.config").TemporalConfig(depth=1, num_head_channels=32)

    def make(width=32, name="SD15"):
        model = backbones(name, model_channels=width, **small)
        return model, inflate.inflate(model.clone(), None, config)

    return make


@pytest.fixture(scope="session")
def windows(host):
    """A function (MODEL, frames of a window = 4) -> MODEL with our windows, which overlap by two frames."""

    def cut(model, length=4):
        settings = {"context_length": length, "context_overlap": 2, "weighting": "uniform", "closed_loop": False}
        return host.call("LumiereTemporalMultidiffusion", model=model, **settings)[0]

    return cut


@pytest.fixture(scope="session")
def write_temporal(host):
    """Function (MODEL, file name, **config): write temporal layers of random weights for it into models/lumiere."""
    import torch

    from lumiere_core.nets import checkpoint

    core = {name: host.module(f"lumiere_core.nets.{name}") for name in ("config", "temporal")}
    inflate = host.module("nodes.host.inflate")

    def write(model, name, unet_config=None, **config):
        unet_config = unet_config or inflate.unet_config_of(model)
        temporal_config = core["config"].TemporalConfig(
            **{"depth": 1, "num_head_channels": 32, "condition_channels": 32, **config}
        )
        layers = core["temporal"].TemporalLayers(unet_config, temporal_config)
        generator = torch.Generator().manual_seed(3)
        state = core["temporal"].initial_state(layers, generator)
        for key, value in state.items():
            if ".proj." in key or "modulation" in key or key.startswith("conv_cond"):
                state[key] = torch.randn(value.shape, generator=generator) * 0.3 * value[0].numel() ** -0.5
        configs = {"unet": unet_config.to_dict(), "temporal": temporal_config.to_dict()}
        checkpoint.save_file(
            {f"temporal.{k}": v for k, v in state.items()},
            host.base / "models" / "lumiere" / name,
            checkpoint.metadata_for(name, configs),
        )
        return state

    return write


@pytest.fixture(scope="session")
def script():
    """Function (name) -> the module nodes/`name`.py, as when it is run as a script."""
    import importlib.util
    import sys

    folder = Path(__file__).resolve().parents[2] / "nodes" / "headless"

    def load(name):
        sys.path.insert(0, str(folder))
        try:
            spec = importlib.util.spec_from_file_location(f"lumiere_{name}", folder / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(folder))
        return module

    return load


@pytest.fixture(scope="session")
def video_models(host):
    """The module video_models.py: very small video MODELs of the host, and its VAEs."""
    import importlib.util

    path = Path(__file__).with_name("video_models.py")
    spec = importlib.util.spec_from_file_location("lumiere_video_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
