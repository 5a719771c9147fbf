"""The plan `nodes`: the real host on the card.

One process for each way of the host to use memory (`MODES`), since its options are read when it starts. In each: a MODEL
of SD1.5's size with random weights, inflated, 512x512, 16 frames in one piece and 80 in windows of 16; in the first
one every template at its own size, too.

    python tests/gpu/on_host.py MODE FOLDER [small]        one mode; prints a JSON list of figures
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Name to (options of the host, weight_dtype of Load Diffusion Model).
MODES = {
    "fp16": (("--fp16-unet",), "default"),
    "bf16": (("--bf16-unet",), "default"),
    "fp8": ((), "fp8_e4m3fn"),
    "fp16_lowvram": (("--fp16-unet", "--lowvram"), "default"),
    "fp16_novram": (("--fp16-unet", "--novram"), "default"),
}
STEPS = 4


def tasks(folder: Path, small: bool, seconds_left) -> list:
    """Return a task for each mode.

    Args:
        folder: for the host's models and output.
        seconds_left: function; a mode is stopped when it answers 0.
    """
    return [(mode, lambda mode=mode: one_mode(mode, folder, small, seconds_left())) for mode in MODES]


def one_mode(mode: str, folder: Path, small: bool, timeout: float) -> Iterator:
    """Run a mode in a process of its own and yield its figures."""
    from figures import Figure

    command = [sys.executable, __file__, mode, str(folder), *(["small"] if small else [])]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    try:
        result = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=max(1.0, timeout), env=environment
        )
        output, errors = result.stdout, result.stderr
    except subprocess.TimeoutExpired as expired:
        output, errors = (expired.stdout or b"").decode(), "no time was left"
    lines = [line for line in output.splitlines() if line.startswith("{")]
    yield from (Figure(**json.loads(line)) for line in lines)
    if not lines:
        reason = (errors.strip().splitlines() or ["no reason given"])[-1]
        yield Figure(f"nodes.{mode}", None, "s", note=reason[:200])


def booted(mode: str, folder: Path):
    """Start the host in this process with the options of a mode; returns it and the module `demo` beside it."""
    sys.path.append(str(ROOT / "nodes" / "headless"))
    import boot
    import demo

    sys.path.remove(str(ROOT / "nodes" / "headless"))
    boot.prepare_base(folder)
    options = ["--cpu"] if boot.needs_cpu_flag() else list(MODES[mode][0])
    return boot.HeadlessHost(boot.find_host(), folder, options), demo


class Runs:
    """What is measured on a booted host.

    Args:
        host: see `booted`.
        demo: the module that reads workflows and runs them.
        mode: one of `MODES`.
        folder: with the host's models and output.
        small: clips of 64x64 pixels and one template.
    """

    def __init__(self, host, demo, mode: str, folder: Path, small: bool) -> None:
        self.host, self.demo, self.mode, self.base, self.small = host, demo, mode, folder, small
        self.weight_dtype = MODES[mode][1]

    def figures(self) -> Iterator[dict]:
        """Yield the mode's figures as they come."""
        model = self.inflated()
        yield from self.timed("sd15_16_frames", lambda: self.sample(model, 16))
        yield from self.timed("sd15_80_frames_windows", lambda: self.sample(self.windows(model), 80))
        if self.mode == next(iter(MODES)):
            names = sorted(path.stem for path in self.demo.WORKFLOWS.glob("*.json"))
            names.sort(key=lambda name: name != "text_to_video")  # super_resolution loads its clip
            for name in ["text_to_video"] if self.small else names:
                yield from self.timed(f"template_{name}", lambda name=name: self.template(name))

    def inflated(self):
        """A MODEL of SD1.5's layout with random weights, from a file, with temporal layers."""
        import torch
        from safetensors.torch import save_file

        file = self.base / "models" / "diffusion_models" / "random_sd15.safetensors"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.manual_seed(0)
            save_file({k: v.to(torch.float16) for k, v in self.sd15().state_dict().items()}, str(file))
        (model,) = self.host.call("UNETLoader", unet_name=file.name, weight_dtype=self.weight_dtype)
        (model,) = self.host.call("LumiereApplyTemporal", model=model, temporal="untrained", frames_per_clip=0)
        return model

    def sd15(self):
        """Core's U-Net in the layout of SD1.5."""
        config = self.host.module("lumiere_core.nets.config").UNetConfig(
            in_channels=4,
            out_channels=4,
            model_channels=320,
            channel_mult=(1, 2, 4, 4),
            num_res_blocks=(2, 2, 2, 2),
            transformer_depth=(1, 1, 1, 1, 1, 1, 0, 0),
            transformer_depth_output=(1,) * 9 + (0,) * 3,
            transformer_depth_middle=1,
            context_dim=768,
            num_heads=8,
            num_head_channels=-1,
        )
        return self.host.module("lumiere_core.nets.unet").UNet(config)

    def text(self):
        """A CONDITIONING of no words."""
        import torch

        return [[torch.zeros(1, 77, 768), {}]]

    def windows(self, model):
        (model,) = self.host.call(
            "LumiereTemporalMultidiffusion",
            model=model,
            context_length=16,
            context_overlap=2,
            weighting="uniform",
            closed_loop=False,
        )
        return model

    def sample(self, model, frames: int) -> None:
        import torch

        text = self.text()
        side = 8 if self.small else 64
        (latent,) = self.host.call(
            "LumiereSampler",
            model=model,
            seed=1,
            steps=1 if self.small else STEPS,
            cfg=3.0,
            sampler_name="euler",
            scheduler="karras",
            positive=text,
            negative=text,
            latent_image={"samples": torch.zeros(frames, 4, side, side)},
            denoise=1.0,
            dynamic_threshold=0.0,
        )
        if latent["samples"].shape[0] != frames or not torch.isfinite(latent["samples"]).all():
            raise RuntimeError("the clip has another length, or values that are not finite")

    def template(self, name: str) -> None:
        graph = self.demo.read_workflow(self.demo.WORKFLOWS / f"{name}.json")
        with self.demo.saved_clip(self.host, graph, self.base):
            pass

    def timed(self, name: str, call) -> Iterator[dict]:
        """Yield time, peak and what stays on the card, or why there is none."""
        import torch

        cuda = torch.cuda.is_available()
        label = f"nodes.{self.mode}.{name}"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        before, began = torch.cuda.memory_allocated() if cuda else 0, time.perf_counter()
        try:
            call()
        except Exception as error:  # the next figure may still come
            reason = str(error).splitlines() or [""]
            yield {"name": f"{label}.time", "value": None, "unit": "s", "note": f"{type(error).__name__}: {reason[0]}"}
            return
        yield {"name": f"{label}.time", "value": time.perf_counter() - began, "unit": "s"}
        if cuda:
            yield {"name": f"{label}.peak", "value": torch.cuda.max_memory_allocated() / 2**30, "unit": "GiB"}
            stays = (torch.cuda.memory_allocated() - before) / 2**30
            yield {"name": f"{label}.stays", "value": stays, "unit": "GiB", "note": "after the run over before it"}


def main(mode: str, folder: str, *small: str) -> None:
    base = Path(folder).resolve()
    for figure in Runs(*booted(mode, base), mode, base, bool(small)).figures():
        sys.stdout.write(json.dumps(figure) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    # Off the path: the host must not find this folder's modules before its own.
    sys.path.remove(str(Path(__file__).resolve().parent))
    main(*sys.argv[1:])
