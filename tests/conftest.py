"""Rules for every tier of tests.

core/ needs no host; nodes/ boots the real host in this process; workflows/ starts the real server.
Without a host the last two are skipped, unless LUMIERE_REQUIRE_HOST is set (`make test` sets it).
`make test` shares the files out to two processes (pytest-xdist), each with a host, folders and ports of its own.
"""

import importlib.util
import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config):
    """Share the cores out among pytest-xdist's workers, and what they start, before torch is imported."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))


@pytest.hookimpl(tryfirst=True)  # xdist's own reads the marks
def pytest_collection_modifyitems(config, items):
    """Keep the tests of a file in one worker, for its fixtures; those of the server too, so that only one starts."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            group = "server" if "server" in getattr(item, "fixturenames", ()) else item.path.stem
            item.add_marker(pytest.mark.xdist_group(group))
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="needs an accelerator"))


@pytest.fixture(scope="session")
def headless():
    """The pack's nodes/headless/boot.py, loaded by path: importing nodes/ as a package needs the host first."""
    file = ROOT / "nodes" / "headless" / "boot.py"
    spec = importlib.util.spec_from_file_location("lumiere_headless", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def public_motion():
    """The module tests/public_motion.py: motion modules in the layouts of the public files."""
    spec = importlib.util.spec_from_file_location("public_motion", ROOT / "tests" / "public_motion.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def comfyui(headless):
    """The host's folder; without one the test is skipped, or fails if a host is required."""
    try:
        return headless.find_host()
    except headless.HostError as error:
        if os.environ.get("LUMIERE_REQUIRE_HOST"):
            raise
        pytest.skip(str(error))


def tiny_model(seed=0, conv_cond=False, **unet):
    """Random weights of a very small Lumiere: (state dict with prefixes, metadata). Every layer matters."""
    import torch

    from lumiere_core.diffusion import schedule
    from lumiere_core.nets import checkpoint, config, temporal
    from lumiere_core.nets import text_encoder as text
    from lumiere_core.nets import unet as image

    unet_config = config.UNetConfig(
        **{
            "patch_size": 2,
            "model_channels": 32,
            "channel_mult": (1, 2),
            "num_res_blocks": (1, 1),
            "transformer_depth": (0, 1),
            "transformer_depth_output": (0, 0, 1, 1),
            "context_dim": 32,
            "num_head_channels": 32,
            "use_scale_shift_norm": True,
            "adm_in_channels": 32,
            **unet,
        }
    )
    temporal_config = config.TemporalConfig(
        depth=1,
        num_head_channels=32,
        condition_channels=32,
        frames_per_clip=16,
        conv_cond=conv_cond,
        coordinates=True,
        shared_noise=0.8,
    )
    text_config = config.TextConfig(width=32, depth=1, num_heads=2, tokens=4, max_bytes=64)
    modules = {
        "text": text.TextEncoder(text_config),
        "image": image.UNet(unet_config),
        "temporal": temporal.TemporalLayers(unet_config, temporal_config),
    }
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for part, module in modules.items():
        for key, value in module.state_dict().items():
            noise = torch.randn(value.shape, generator=generator)
            if "norm" in key.rpartition(".")[0].rpartition(".")[2] and key.endswith("weight"):
                value = 1 + noise * 0.1
            elif value.ndim < 2:
                value = noise * 0.05
            else:
                value = noise * value[0].numel() ** -0.5
            state[f"{part}.{key}"] = value
    configs = {
        "unet": unet_config.to_dict(),
        "temporal": temporal_config.to_dict(),
        "text": text_config.to_dict(),
        "schedule": schedule.Schedule().to_dict(),
        "size": [16, 16],
    }
    return state, checkpoint.metadata_for("tiny", configs)


@pytest.fixture(scope="session")
def write_tiny():
    """Function (path, seed=0, change=None, conv_cond=False, **unet options): write a very small Lumiere checkpoint.

    `change(state, metadata)` may damage it first.
    """

    def write(path, seed=0, change=None, **unet):
        from lumiere_core.nets import checkpoint

        state, metadata = tiny_model(seed, **unet)
        if change:
            change(state, metadata)
        checkpoint.save_file(state, path, metadata)
        return path

    return write


def as_ssr(state, metadata, fresh_noise=0.0, **ssr):
    """Change what `write_tiny` writes into a super-resolution stage; use with `TINY_SSR`.

    Args:
        fresh_noise: of its temporal layers; ssr: of its SSRConfig.
    """
    import json

    config = json.loads(metadata["lumiere.config"])
    config["ssr"] = {"scale": 4, "max_noise": 0.3, "level_channels": 32, **ssr}
    config["schedule"]["prediction"] = "x0"
    config["temporal"]["fresh_noise"] = fresh_noise
    config["temporal"]["shared_noise"] = 0.0  # that of this stage is an option of its node
    del config["size"]
    metadata["lumiere.config"] = json.dumps(config)


TINY_SSR = {"in_channels": 6, "adm_in_channels": 64, "patch_size": 4, "disable_self_attn": True}


@pytest.fixture(scope="session")
def tiny_ssr():
    """Options of `write_tiny` and `Studio.load` for a very small super-resolution stage; call with what `as_ssr` takes."""

    def options(**ssr):
        return {"change": lambda *args: as_ssr(*args, **ssr), **TINY_SSR}

    return options


@pytest.fixture(scope="session")
def write_tiny_style():
    """Function (path, seed=1): write a LoRA for the image model of `write_tiny`; every layer matters."""

    def write(path, seed=1):
        import torch

        from lumiere_core.nets import checkpoint, config, lora
        from lumiere_core.nets import unet as image

        values = json.loads(tiny_model()[1]["lumiere.config"])["unet"]
        deltas = lora.LowRank(image.UNet(config.UNetConfig.from_dict(values)), rank=2)
        generator = torch.Generator().manual_seed(seed)
        state = {name: 0.1 * torch.randn(value.shape, generator=generator) for name, value in deltas.named_parameters()}
        checkpoint.save_file(deltas.file_state(state), path, checkpoint.metadata_for("tiny", {}))
        return path

    return write


@pytest.fixture(scope="session")
def write_tiny_motion(public_motion):
    """Function (models): write a motion module and a motion LoRA for the model of tests/workflows/tiny_models there."""

    def write(models):
        import torch
        from safetensors.torch import save_file

        for folder in ("animatediff_models", "animatediff_motion_lora"):
            (models / folder).mkdir(parents=True, exist_ok=True)
        state = public_motion.motion_file((32, 32, 64, 64), (1,) * 4, middle=True, frames=32)
        save_file(state, models / "animatediff_models" / "tiny_motion.safetensors")
        base = next(public_motion.modules((32,), (1,), False))[0]
        base += ".temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_q_lora"
        change = {f"{base}.up.weight": torch.ones(32, 2), f"{base}.down.weight": torch.ones(2, 32)}
        save_file(change, models / "animatediff_motion_lora" / "tiny_style.safetensors")

    return write
