"""A small checkpoint and a folder of clips that stand for a person's own, for `own_clips`.

The checkpoint is lumiere-mini's image model for 128x128 pixels (`training.double`), written as other people's checkpoints
are: U-Net, text encoder and VAE under the names that SD has, the patches' basis as a VAE of 64 channels, eight times
smaller. Its own temporal layers are left out. `nodes/headless/narrow.py` teaches the host to load it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from ..clips.media import write_mp4
from ..clips.video import to_uint8
from ..diffusion.models import weight_files
from ..files import write_text
from ..host_process import SCRIPTS
from ..nets.checkpoint import load_file, load_parts, save_file
from ..nets.unet import unpatchify
from ..training.double import doubled
from ..world import CLIP_SECONDS, Scene, render_clip, sample_scene

CHECKPOINT = "narrow.safetensors"
RATIO = 8  # pixels of a latent
MULTIPLE = 32  # of pixels: two resizes halve the latents
VAE = "first_stage_model.taesd_decoder.1.weight"
PROMPT_SEEDS = 10**6  # the first scene of the prompts; those of the clips begin at 0


def write_checkpoint(base: Path) -> Path:
    """Write the checkpoint, and the pack that loads it, into a folder of models and custom_nodes; returns the file."""
    parts = doubled(load_parts(weight_files("lumiere-mini")))
    unet = dict(parts.image)
    basis = unet.pop("patch_basis").flatten(1)
    state = {f"model.diffusion_model.{key}": value for key, value in unet.items()}
    state |= {f"cond_stage_model.encoder.{key}": value for key, value in parts.text.items()}
    state[VAE] = basis.T[:, :, None, None]
    path = base / "models" / "checkpoints" / CHECKPOINT
    save_file(state, path, {"modelspec.title": "narrow"})
    write_text(base / "custom_nodes" / "narrow.py", (SCRIPTS / "narrow.py").read_text(encoding="utf-8"))
    return path


def decode(checkpoint: Path, latents: Tensor) -> Tensor:
    """Return the video (3, t, h, w) in about [-1, 1] of latents (c, t, h / 8, w / 8)."""
    basis = load_file(checkpoint)[0][VAE][:, :, 0, 0].T.unflatten(1, (3, RATIO, RATIO))
    size = tuple(side * RATIO for side in latents.shape[-2:])
    return unpatchify(latents.transpose(0, 1), RATIO, size, basis).transpose(0, 1)


def scenes(split: str, start: int, motions: list[str], backgrounds: list[str]) -> Iterator[Scene]:
    """Yield scenes of one moving shape, the motions by turns, each named in its caption."""
    seed, turn = start, 0
    while True:
        scene = sample_scene(seed, split, "shape")
        seed += 1
        said = scene.attributes
        if said["motion"] == motions[turn % len(motions)] and said["background"] in backgrounds:
            turn += 1
            yield scene


def speed(clips: dict[str, Any]) -> float:
    """Return the world's frames a second: a clip shows the whole of a scene, whatever it is played at."""
    return clips["frames"] / CLIP_SECONDS


def write_clips(folder: Path, clips: dict[str, Any]) -> int:
    """Draw the clips that a folder lacks, each with its caption beside it; returns how many it has."""
    found = scenes("train", 0, clips["motions"], clips["backgrounds"])
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(clips["count"]):
        scene, path = next(found), folder / f"{number:04d}.mp4"
        if not path.is_file():
            video = render_clip(scene, clips["frames"], speed(clips), height=clips["size"], width=clips["size"])
            write_text(path.with_suffix(".txt"), scene.caption + "\n")
            write_mp4(path, to_uint8(video), clips["fps"])
    return clips["count"]


def prompts(count: int, clips: dict[str, Any]) -> list[Scene]:
    """Return scenes of combinations that none of the clips shows."""
    found = scenes("held_out", PROMPT_SEEDS, clips["motions"], clips["backgrounds"])
    return [next(found) for _ in range(count)]
