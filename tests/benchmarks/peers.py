"""Motion modules beside the programs that are known for them: the same answers, time and memory.

python tests/benchmarks/peers.py diffusers v1         largest difference from diffusers' UNetMotionModel, as JSON
python tests/benchmarks/peers.py evolved v2 wall 5   … from AnimateDiff-Evolved on the same host, with seconds of both
python tests/benchmarks/peers.py memory v2 ours         peak memory of one run; or `evolved`

Files of random weights at the real widths; in the U-Nets the transformers are one layer deep, and SDXL has no others than
that changed. diffusers comes from the package index into .host/peers. AnimateDiff-Evolved is a checkout named by
ANIMATEDIFF_EVOLVED, or is cloned into .host/peers; neither is part of this repository.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from figures import Figure
from pairs import Clock

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".host" / "peers"
EVOLVED = "https://github.com/Kosinkadink/ComfyUI-AnimateDiff-Evolved"
DIFFUSERS = "diffusers==0.42.1"
VERSIONS = {  # family, options of the file, whether AnimateDiff-Evolved's norms see the whole clip
    "v1": ("sd15", {"frames": 24}, True),
    "v2": ("sd15", {"frames": 32, "middle": True}, False),
    "v3": ("sd15", {"frames": 32}, False),
    "sdxl": ("sdxl", {"frames": 32}, True),
}
FRAMES, SIZE = 16, 16  # latent pixels
ALLOWED = 1e-4  # of the largest value, float32
MIB = 1 << 20


def measure(clock: str, turns: int) -> Iterator[Figure]:
    """Run each comparison in a process of its own.

    Args:
        clock: kind of `pairs.Clock`, "wall" or "cpu".
        turns: how often ours and AnimateDiff-Evolved's take turns.
    """
    problem = _get_diffusers()
    for version in VERSIONS:
        answer = {"error": problem} if problem else _child("diffusers", version)
        yield _difference(f"peers.{version}.diffusers", answer)
    problem = _get_evolved()
    for version in VERSIONS:
        answer = {"error": problem} if problem else _child("evolved", version, clock, str(turns))
        yield _difference(f"peers.{version}.evolved", answer)
        if "error" in answer:
            continue
        yield Figure(
            f"peers.{version}.moved", answer["moved"], "relative", 0.01, "by the motion module at all", at_least=True
        )
        note = f"{FRAMES} frames of {8 * SIZE}x{8 * SIZE}; {answer['ours']:.1f} s and {answer['theirs']:.1f} s, {turns} turns"
        yield Figure(f"peers.{version}.time_over_evolved", answer["ratio"], "ratio", 1.0, note)
    if problem:
        return
    peaks = {who: _child("memory", "v2", who) for who in ("ours", "evolved")}
    errors = [answer["error"] for answer in peaks.values() if "error" in answer]
    if errors:
        yield Figure("peers.v2.memory_over_evolved", None, "ratio", 1.0, errors[0])
        return
    ours, theirs = (peaks[who]["peak"] / MIB for who in ("ours", "evolved"))
    note = f"peak over the image model's: {ours:.0f} and {theirs:.0f} MiB"
    yield Figure("peers.v2.memory_over_evolved", ours / theirs, "ratio", 1.0, note)


def _difference(name: str, answer: dict) -> Figure:
    note = answer.get("error") or "largest difference over the largest value, float32"
    return Figure(f"{name}.difference", answer.get("difference"), "relative", ALLOWED, note)


def _child(*arguments: str) -> dict:
    # Freed memory goes back to the system at once, or a peak would be that of what was freed before.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    result = subprocess.run(
        [sys.executable, __file__, *arguments], check=False, capture_output=True, text=True, env=env
    )
    if result.returncode:
        return {"error": (result.stderr.strip().splitlines() or ["no reason given"])[-1]}
    return json.loads(result.stdout.splitlines()[-1])


def _get_diffusers() -> str:
    """Install diffusers beside the environment; return what is wrong, or ""."""
    if (PEERS / "site" / "diffusers").is_dir():
        return ""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--target",
        str(PEERS / "site"),
        DIFFUSERS,
        "huggingface_hub",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"{DIFFUSERS} could not be installed: {done.stderr.strip().splitlines()[-1]}"


def _get_evolved() -> str:
    """Get a checkout of AnimateDiff-Evolved; return what is wrong, or ""."""
    if _evolved().is_dir():
        return ""
    done = subprocess.run(
        ["git", "clone", "--depth", "1", EVOLVED, str(_evolved())], check=False, capture_output=True, text=True
    )
    return "" if done.returncode == 0 else "no checkout of AnimateDiff-Evolved; name one by ANIMATEDIFF_EVOLVED"


def _evolved() -> Path:
    return Path(os.environ.get("ANIMATEDIFF_EVOLVED") or PEERS / "ComfyUI-AnimateDiff-Evolved")


# --- in the child process -----------------------------------------------------------------------------------------


class Stage:
    """The real host with the pack, and with AnimateDiff-Evolved where it is asked for."""

    def __init__(self, base: Path, evolved: bool = False) -> None:
        sys.path.append(str(ROOT / "nodes" / "headless"))
        import boot

        sys.path.remove(str(ROOT / "nodes" / "headless"))
        boot.prepare_base(base)
        self.modules = base / "models" / "animatediff_models"
        self.modules.mkdir(parents=True)
        if evolved:
            # A copy: it makes folders beside its own code.
            shutil.copytree(
                _evolved(), base / "custom_nodes" / "AnimateDiff-Evolved", ignore=shutil.ignore_patterns(".git")
            )
        arguments = ["--cpu"] if boot.needs_cpu_flag() else []
        self.host = boot.HeadlessHost(boot.find_host(), base, arguments)

    def image_model(self, family: str, width: int = 320):
        """Return an image MODEL of random weights."""
        import comfy.model_management as management
        import comfy.model_patcher
        import comfy.supported_models as supported
        import torch

        layout = {
            "image_size": 32,
            "in_channels": 4,
            "out_channels": 4,
            "model_channels": width,
            "use_spatial_transformer": True,
            "legacy": False,
            "adm_in_channels": None,
        }
        if family == "sd15":
            layout |= {
                "num_res_blocks": [2] * 4,
                "channel_mult": [1, 2, 4, 4],
                "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
                "transformer_depth_output": [1] * 9 + [0] * 3,
                "transformer_depth_middle": 1,
                "context_dim": 768,
                "num_heads": 8,
            }
            made = supported.SD15(layout)
        else:
            layout |= {
                "num_res_blocks": [2] * 3,
                "channel_mult": [1, 2, 4],
                "transformer_depth": [0, 0, 1, 1, 1, 1],
                "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1],
                "transformer_depth_middle": 1,
                "context_dim": 2048,
                "num_head_channels": 64,
                "use_linear_in_transformer": True,
                "num_classes": "sequential",
                "adm_in_channels": 2816,
            }
            made = supported.SDXL(layout)
        heads = {"num_heads": layout.get("num_heads", -1), "num_head_channels": layout.get("num_head_channels", -1)}
        made.unet_config.update(heads)
        made.set_inference_dtype(torch.float32, None)
        model = made.get_model({}, "")
        model.load_model_weights(_random(model.diffusion_model), "")
        return comfy.model_patcher.CoreModelPatcher(
            model, load_device=management.get_torch_device(), offload_device=management.unet_offload_device()
        )

    def module(self, version: str, width: int = 320) -> dict:
        """Write a motion module of random weights, and return its tensors."""
        from safetensors.torch import save_file

        family, options, _ = VERSIONS[version]
        mult = (1, 2, 4, 4) if family == "sd15" else (1, 2, 4)
        public = _public_motion()
        state = public.motion_file([width * m for m in mult], [2] * len(mult), **options)
        state = public.one_table(state)
        save_file(state, self.modules / "mm.safetensors")
        return state

    def ours(self, model, norms: str):
        """Return the MODEL with the motion module by this pack."""
        (model,) = self.host.call(
            "LumiereApplyTemporal", model=model, temporal="mm.safetensors", frames_per_clip=0, group_norm=norms
        )
        return model

    def theirs(self, model):
        """Return the MODEL with the motion module by AnimateDiff-Evolved."""
        (module,) = self.host.call("ADE_LoadAnimateDiffModel", model_name="mm.safetensors")
        (group,) = self.host.call("ADE_ApplyAnimateDiffModelSimple", motion_model=module)
        (model,) = self.host.call("ADE_UseEvolvedSampling", model=model, beta_schedule="autoselect", m_models=group)
        return model

    def sample(self, model, steps: int = 1):
        """Return the latents of a short run without guidance."""
        import torch

        width = model.model.model_config.unet_config["context_dim"]
        random = torch.Generator().manual_seed(1)
        text = [
            [torch.randn(1, 77, width, generator=random), {"pooled_output": torch.randn(1, 1280, generator=random)}]
        ]
        (result,) = self.host.call(
            "KSampler",
            model=model,
            seed=1,
            steps=steps,
            cfg=1.0,
            sampler_name="euler",
            scheduler="normal",
            positive=text,
            negative=text,
            latent_image={"samples": torch.zeros(FRAMES, 4, SIZE, SIZE)},
            denoise=1.0,
        )
        return result["samples"]


def _public_motion():
    import importlib.util

    spec = importlib.util.spec_from_file_location("public_motion", ROOT / "tests" / "public_motion.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _random(unet) -> dict:
    import torch

    random = torch.Generator().manual_seed(0)
    state = {}
    for key, value in unet.state_dict().items():
        noise = torch.randn(value.shape, generator=random)
        if value.ndim > 1:
            state[key] = noise * value[0].numel() ** -0.5
        else:
            norm = "norm" in key or ".in_layers.0." in key or ".out_layers.0." in key or key.startswith("out.0.")
            state[key] = noise * 0.05 + (1.0 if norm and key.endswith("weight") else 0.0)
    return state


def _relative(got, wanted) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max())


def _beside_evolved(version: str, clock: str, turns: int, folder: Path) -> dict:
    stage = Stage(folder, evolved=True)
    family, _, clip_norms = VERSIONS[version]
    stage.module(version)
    plain = stage.image_model(family)
    models = {"ours": stage.ours(plain, "clip" if clip_norms else "frame"), "theirs": stage.theirs(plain)}
    results = {who: stage.sample(model, 2) for who, model in models.items()}  # and warm
    runs = {who: partial(stage.sample, model) for who, model in models.items()}
    times = Clock(clock).turns(runs, turns, warm_up=False)
    still = stage.sample(plain, 2)
    return {
        "difference": _relative(results["ours"], results["theirs"]),
        "moved": _relative(results["ours"], still),
        "ratio": times.ratio("ours", "theirs"),
        **{who: times.median(who) for who in models},
    }


def _memory(version: str, who: str, folder: Path) -> dict:
    """Return the bytes that loading the module and sampling with it add to the image model's, at their peak."""
    import ctypes
    import gc

    stage = Stage(folder, evolved=True)
    family, _, clip_norms = VERSIONS[version]
    stage.module(version)
    plain = stage.image_model(family)
    stage.sample(plain)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _resident("VmRSS")
    model = stage.ours(plain, "clip" if clip_norms else "frame") if who == "ours" else stage.theirs(plain)
    stage.sample(model)
    return {"peak": _resident("VmHWM") - before, "before": before}


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def _beside_diffusers(version: str, folder: Path) -> dict:
    """Compare one call of the U-Net, at a fifth of the width: diffusers' U-Net from the same weights in its own names."""
    import torch

    stage = Stage(folder)
    family, options, _ = VERSIONS[version]
    width = 64
    state = stage.module(version, width)
    plain = stage.image_model(family, width)
    model = stage.ours(plain, "module")
    seen = {}

    def keep(executor, x, timesteps=None, context=None, y=None, *args, **kwargs):
        out = executor(x, timesteps, context, y, *args, **kwargs)
        seen.update(x=x, timesteps=timesteps, context=context, y=y, out=out)
        return out

    from comfy.patcher_extension import WrappersMP

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "keep", keep)
    stage.sample(model)
    sys.path.append(str(PEERS / "site"))
    import comfy.utils
    from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

    unet = plain.model.diffusion_model
    mult = (1, 2, 4, 4) if family == "sd15" else (1, 2, 4)
    channels = tuple(width * m for m in mult)
    cross, whole = ("CrossAttnDownBlock2D", "DownBlock2D"), family == "sd15"
    down = (cross[0],) * 3 + (cross[1],) if whole else (cross[1], cross[0], cross[0])
    up = tuple(kind.replace("Down", "Up") for kind in reversed(down))
    heads = 8 if whole else tuple(c // 64 for c in channels)
    extra = (
        {}
        if whole
        else {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
            "transformer_layers_per_block": 1,
            "use_linear_projection": True,
        }
    )
    theirs = UNet2DConditionModel(
        block_out_channels=channels,
        down_block_types=down,
        up_block_types=up,
        cross_attention_dim=plain.model.model_config.unet_config["context_dim"],
        attention_head_dim=heads,
        **extra,
    )
    names = comfy.utils.unet_to_diffusers(plain.model.model_config.unet_config)
    own = unet.state_dict()
    theirs.load_state_dict({k: own[names[k]] for k in theirs.state_dict()})
    adapter = MotionAdapter(
        block_out_channels=channels,
        use_motion_mid_block=bool(options.get("middle")),
        motion_max_seq_length=options["frames"],
        motion_num_attention_heads=8,
    )
    adapter.load_state_dict(_public_motion().diffusers(state))
    moving = UNetMotionModel.from_unet2d(theirs, adapter).eval()
    if not whole:  # which it leaves as it was made
        moving.add_embedding.load_state_dict(theirs.add_embedding.state_dict())
    with torch.no_grad():
        added = None if whole else {"text_embeds": seen["y"][:1, :1280], "time_ids": _time_ids(seen["y"])}
        answer = moving(
            seen["x"].transpose(0, 1)[None],
            seen["timesteps"][:1],
            seen["context"],
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
    return {"difference": _relative(seen["out"], answer[0].transpose(0, 1))}


def _time_ids(y):
    """Return the six sizes that the host has embedded in SDXL's vector: all of the latent's default."""
    import torch

    size = float(8 * SIZE)
    return torch.tensor([[size, size, 0.0, 0.0, size, size]])


def main(what: str, version: str, *rest: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if what == "diffusers":
            answer = _beside_diffusers(version, Path(folder))
        elif what == "evolved":
            answer = _beside_evolved(version, rest[0], int(rest[1]), Path(folder))
        else:
            answer = _memory(version, rest[0], Path(folder))
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    # Off the path: the host must not find this folder's modules before its own.
    sys.path.remove(str(Path(__file__).resolve().parent))
    main(*sys.argv[1:])
