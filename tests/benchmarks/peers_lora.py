"""A motion LoRA as `train motion-lora` writes it, read by AnimateDiff-Evolved and by this pack.

python tests/benchmarks/peers_lora.py v2

For a motion module of random weights at a fifth of the real width; the LoRA is random too, and written by the trainer's own
part. AnimateDiff-Evolved's loader is given the file on the host, and what it would add to which weight is compared with
what this pack adds. Prints as JSON how many weights both change, how many one alone does, and the largest difference of
the changes over the largest change. See peers.py for where AnimateDiff-Evolved comes from.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

from peers import VERSIONS, Stage

WIDTH, RANK = 64, 4
NAME = "own.safetensors"


class Patches:
    """Stands for AnimateDiff-Evolved's motion model: keeps what its loader adds."""

    def __init__(self, middle: bool) -> None:
        self.model = SimpleNamespace(mid_block=object() if middle else None, mm_info=SimpleNamespace(mm_version="v"))
        self.changes: dict = {}

    def add_patches(self, patches: dict, strength_patch: float) -> None:
        self.changes = {key: strength_patch * value[0] for key, value in patches.items()}


def main(version: str) -> None:
    import torch

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stage = Stage(folder / "base", evolved=True)
        family, options, _ = VERSIONS[version]
        state = stage.module(version, WIDTH)
        plain = stage.image_model(family, WIDTH)
        core = stage.host.module
        config = core("nodes.host.inflate").unet_config_of(plain)
        schedule = core("nodes.host.encoders").schedule_of(plain)
        lora = core("lumiere_core.training.motion_lora")
        layers, schedule = lora.layers_of(stage.modules / "mm.safetensors", config, schedule)
        unet = core("lumiere_core.nets.unet").UNet(config)
        models = core("lumiere_core.diffusion.models").Models(None, unet, layers, schedule)
        given = core("lumiere_core.training.given").options_for("motion-lora", "cached-clips-lora", {"rank": RANK})
        part, random = lora.MotionLoRAPart(models, given), torch.Generator().manual_seed(0)
        deltas = {k: torch.randn(v.shape, generator=random) for k, v in part.module.named_parameters()}
        loras = folder / "base" / "models" / "animatediff_motion_lora"
        part.export(deltas, loras, {})
        (loras / part.file).rename(loras / NAME)

        theirs = Patches(bool(options.get("middle")))
        evolved = next(m for n, m in sys.modules.items() if n.endswith("animatediff.model_injection"))
        evolved.load_motion_lora_as_patches(theirs, evolved.MotionLoraInfo(NAME, 1.0))
        read = core("lumiere_core.nets.motion_lora").read_motion_lora
        found, _ = read(
            core("lumiere_core.nets.checkpoint").load_file(loras / NAME)[0],
            core("lumiere_core.nets.temporal").TemporalLayers(config, layers.config).state_dict(),
            config,
            layers.config,
            NAME,
        )
        places = dict(core("lumiere_core.nets.motion_files").places(config))
        ours = {}
        for layer, parts in found.items():
            block, inner = layer.split(".inflation.")
            _, k, which = inner.split(".")
            side, number = places[block]
            end = f"{which}.0" if which == "to_out" else which
            key = f"{side}motion_modules.{number}.temporal_transformer.transformer_blocks.0.attention_blocks.{k}.{end}.weight"
            ours[key] = parts["up"].float() @ parts["down"].float()
        both = ours.keys() & theirs.changes.keys()
        fits = all(state[key].shape == theirs.changes[key].shape for key in both)
        largest = max(float(ours[key].abs().max()) for key in both)
        answer = {
            "both": len(both),
            "one alone": len(ours.keys() ^ theirs.changes.keys()),
            "of the file's weights": fits,
            "difference": max(float((ours[key] - theirs.changes[key]).abs().max()) for key in both) / largest,
        }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    # Off the path: the host must not find this folder's modules before its own.
    sys.path.remove(str(Path(__file__).resolve().parent))
    main(*sys.argv[1:])
