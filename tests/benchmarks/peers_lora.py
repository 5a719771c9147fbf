"""A motion LoRA that this pack's trainer made, in this pack and in AnimateDiff-Evolved on the same host.

python tests/benchmarks/peers_lora.py v2

Prints as JSON: `change`, the largest change that the LoRA makes here over the largest value; `difference`, between the
changes that it makes here and there, over the largest of them. The motion module and the image model are those of peers.py,
the LoRA is trained for two steps on two clips. See peers.py for where AnimateDiff-Evolved comes from.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from peers import FRAMES, SIZE, VERSIONS, Stage

STEPS, RATE, RANK = 2, 0.05, 4
NAME = "own.safetensors"


class Noise:
    """Stands for an SD1.5 VAE and text encoder: what they make is noise, as the image model's weights are."""

    def __init__(self, unet: dict, schedule: dict) -> None:
        self.backbone = {"unet": unet, "schedule": schedule, "prefix": "", "sha256": {"random": "0" * 64}}
        self.backbone |= {"ratio": 8, "multiple": 64}

    def encode(self, frames):
        import torch

        return torch.randn(4, len(frames), SIZE, SIZE, generator=torch.Generator().manual_seed(2))

    def decode(self, latents):
        import torch

        return torch.zeros(latents.shape[1], 8 * SIZE, 8 * SIZE, 3, dtype=torch.uint8)

    def embed(self, caption: str, height: int, width: int) -> dict:
        import torch

        return {"context": torch.randn(77, 768, generator=torch.Generator().manual_seed(len(caption)))}


def train_lora(stage: Stage, plain, folder: Path, output: Path) -> None:
    """Train a motion LoRA for the motion module of the stage by the runs of `train motion-lora`, and write its file."""
    import torch

    core = stage.host.module
    config = core("nodes.host.inflate").unet_config_of(plain)
    schedule = core("nodes.host.encoders").schedule_of(plain)
    videos, cache = folder / "videos", folder / "cache"
    videos.mkdir()
    for number in range(2):
        frames = torch.full((FRAMES, 8 * SIZE, 8 * SIZE, 3), 80 * number, dtype=torch.uint8)
        core("lumiere_core.clips.media").write_mp4(videos / f"{number}.mp4", frames)
        (videos / f"{number}.txt").write_text("a clip" * (number + 1))
    settings = core("lumiere_core.dataset.index").Settings(frames=FRAMES, size=8 * SIZE)
    encoders = Noise(config.to_dict(), schedule.to_dict())
    core("lumiere_core.dataset.prepare").prepare(videos, cache, encoders, settings, progress=False)
    unet = core("lumiere_core.nets.unet").UNet
    with torch.device("meta"):
        unet = unet(config)
    unet.load_state_dict(plain.model.diffusion_model.state_dict(), assign=True)
    layers, schedule = core("lumiere_core.training.motion_lora").layers_of(
        stage.modules / "mm.safetensors", config, schedule
    )
    stages = core("lumiere_core.training.stages")
    given = {"steps": STEPS, "learning_rate": RATE, "warmup": 0, "rank": RANK, "sample_every": -1, "stills": 0.0}
    options = stages.options_for("motion-lora", "cached-clips-lora", given)
    models = core("lumiere_core.diffusion.models").Models(None, unet, layers, schedule)
    clips = core("lumiere_core.dataset.reader").open_clips(cache)
    run = stages.lora_clips_run("motion-lora", models, clips, options)
    with torch.inference_mode(False), torch.enable_grad():
        core("lumiere_core.training.loop").train(run, folder / "run", progress=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    core("lumiere_core.files").copy(folder / "run" / "motion_lora.safetensors", output)


def main(version: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stage = Stage(folder / "base", evolved=True)
        family, _, clip_norms = VERSIONS[version]
        stage.module(version)
        plain = stage.image_model(family)
        train_lora(stage, plain, folder, folder / "base" / "models" / "animatediff_motion_lora" / NAME)
        ours = stage.ours(plain, "clip" if clip_norms else "frame")
        (changed,) = stage.host.call("LumiereLoadMotionLoRA", model=ours, lora_name=NAME, strength=1.0)
        (lora,) = stage.host.call("ADE_AnimateDiffLoRALoader", name=NAME, strength=1.0)
        before, after = stage.sample(ours), stage.sample(changed)
        theirs = stage.sample(stage.theirs(plain, lora)) - stage.sample(stage.theirs(plain))
        mine = after - before
        answer = {
            "change": float(mine.abs().max() / before.abs().max()),
            "difference": float((mine - theirs).abs().max() / mine.abs().max()),
        }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    # Off the path: the host must not find this folder's modules before its own.
    sys.path.remove(str(Path(__file__).resolve().parent))
    main(*sys.argv[1:])
