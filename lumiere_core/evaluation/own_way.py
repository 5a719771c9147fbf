"""The commands that a person with a checkpoint and videos gives, run one after the other in a folder.

`prepare` and `train temporal` are started as processes, as from a shell; the clips are made by a workflow on the host.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files import JsonLines, copy, write_text
from . import narrow
from .runs import Job, run_workflow
from .video_set import frames_of

TURN = 15.0  # minutes by the clock at most, before the state is kept
LONGEST = 600.0  # minutes by the clock for the steps at the end
ENOUGH = 0.03  # share of the minutes that may be lacking
ROOT = Path(__file__).parents[2]
Recipe = dict[str, Any]


class OwnWay:
    """A folder with a ComfyUI's models and packs (base), caches, runs and clips.

    Args:
        threads: of the CPU; None = all.
    """

    def __init__(self, folder: Path, threads: int | None) -> None:
        self.folder, self.threads, self.base = folder, threads, folder / "base"
        self.checkpoint = self.base / "models" / "checkpoints" / narrow.CHECKPOINT
        self.turns = JsonLines(folder / "turns.jsonl")
        if not self.checkpoint.is_file():
            narrow.write_checkpoint(self.base)

    def prepare(self, videos: Path, cache: Path, clips: dict[str, Any], caption: str = "") -> None:
        """Let the host encode videos; nothing is encoded twice. `caption` is for videos without one."""
        given = {"checkpoint": self.checkpoint, "base": self.base, "output": cache}
        given |= {name: clips[name] for name in ("size", "frames", "fps")}
        self._run("prepare", videos, *flags(given | ({"caption": caption} if caption else {})))

    def trained(self, name: str) -> float:
        """Return the minutes of processor time that a variant has trained: what else the machine does counts less."""
        return sum(turn["minutes"] for turn in self.turns.read() if turn["variant"] == name)

    def steps(self, name: str) -> int:
        """Return the steps that a variant has made."""
        return JsonLines(self.folder / name / "log.jsonl").read()[-1]["step"]

    def train_until(self, minutes: float, name: str, recipe: Recipe, cache: Path) -> bool:
        """Train a variant until it has had its minutes; returns whether anything was left to do."""
        done = [turn for turn in self.turns.read() if turn["variant"] == name]
        new = False
        while (left := minutes - self.trained(name)) > ENOUGH * minutes:
            # On a busy machine a minute of the processor takes several of the clock.
            busy = done[-1]["clock"] / max(done[-1]["minutes"], 0.01) if done else 1.0
            done.append(self.train(name, recipe, min(TURN, left * busy), cache))
            new = True
        return new

    def finish(self, steps: int, name: str, recipe: Recipe, cache: Path) -> None:
        """Train a variant for some steps more while the rate falls to zero, once."""
        if steps and not any(turn.get("falling") for turn in self.turns.read() if turn["variant"] == name):
            self.train(name, recipe, LONGEST, cache, falling=steps)

    def train(self, name: str, recipe: Recipe, minutes: float, cache: Path, *, falling: int = 0) -> dict[str, Any]:
        """Train a variant for some minutes more, by the clock; its file lies where Apply Lumiere Temporal Layers finds it.

        Args:
            falling: steps at most, in which the rate falls to zero; 0 = any number, at the full rate.
        """
        variant, run, minutes = recipe["variants"][name], self.folder / name, round(minutes, 3)
        given = {"checkpoint": self.checkpoint, "data": cache, "output": run, "minutes": minutes, "steps": 10**6}
        given |= {"sample-every": -1, "save-every": 3600} | recipe["options"] | variant.get("options", {})
        if falling:
            before = self.steps(name)
            given |= {"steps": before + falling, "decay-from": before / (before + falling)}
        if "temporal" in variant:
            given["config"] = self.folder / f"{name}.json"
            write_text(given["config"], json.dumps({"temporal": variant["temporal"]}))
        if self.threads:
            given["threads"] = self.threads
        resume = ["--resume"] if (run / "state.safetensors").is_file() else []
        before = processor_seconds()
        self._run("train", "temporal", *flags(given), "--no-checkpointing", *resume)
        spent = (processor_seconds() - before) / 60 or minutes
        copy(run / "temporal.safetensors", self.base / "models" / "lumiere" / f"{name}.safetensors")
        turn = {
            "variant": name,
            "clock": minutes,
            "minutes": round(spent, 3),
            "step": self.steps(name),
            "falling": falling,
        }
        self.turns.append(turn, durable=True)
        return turn

    def clips(self, name: str, recipe: Recipe, prompts: list[str]) -> list[Tensor]:
        """Return what a workflow on the host makes of prompts, (t, h, w, 3) uint8 each; clips that are there are kept."""
        folder, fps = self.folder / "clips" / f"{name}_{self.trained(name):g}", recipe["clips"]["fps"]
        workflow = folder / "workflow.json"
        write_text(workflow, json.dumps(graph(f"{name}.safetensors", recipe), indent=1))
        jobs = [Job(f"{number:03d}", prompt, seed=number) for number, prompt in enumerate(prompts)]
        run_workflow(workflow, jobs, folder, base=str(self.base), fps=fps, threads=self.threads)
        return [torch.from_numpy(np.stack(list(frames_of(folder / f"{job.name}.mp4")[0]))) for job in jobs]

    def _run(self, *words: object) -> None:
        """Run a command of this pack.

        Raises:
            ValueError: it failed; it has said why.
        """
        command = [sys.executable, "-m", "lumiere_core", *map(str, words)]
        sys.stdout.write(f"$ python {' '.join(command[1:])}\n")
        sys.stdout.flush()
        done = subprocess.run(command, cwd=ROOT, check=False, env=os.environ)
        if done.returncode:
            raise ValueError(
                f"`{' '.join(command[2:5])}` ended with status {done.returncode}; the lines above say why."
            )


def processor_seconds() -> float:
    """Return the processor time of the commands that have ended; 0 where the system does not say."""
    times = os.times()
    return times.children_user + times.children_system


def flags(given: dict[str, object]) -> list[str]:
    """Return options as words of a command line."""
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def graph(temporal: str, recipe: Recipe) -> dict[str, Any]:
    """Return the workflow, in API format, that a person builds for a checkpoint with temporal layers."""
    clips = recipe["clips"]
    height, width = clips.get("height", clips["size"]), clips.get("width", clips["size"])
    nodes = {
        "load": ("CheckpointLoaderSimple", {"ckpt_name": narrow.CHECKPOINT}),
        "apply": ("LumiereApplyTemporal", {"model": ["load", 0], "temporal": temporal, "frames_per_clip": 0}),
        "prompt": ("CLIPTextEncode", {"text": "{prompt}", "clip": ["load", 1]}),
        "empty": ("CLIPTextEncode", {"text": "", "clip": ["load", 1]}),
        "frames": (
            "EmptyLumiereLatentVideo",
            {"width": width, "height": height, "length": clips["frames"], "batch_size": 1},
        ),
        "sample": (
            "LumiereSampler",
            {"model": ["apply", 0], "positive": ["prompt", 0], "negative": ["empty", 0], "latent_image": ["frames", 0]}
            | {"seed": 0, "denoise": 1.0, "dynamic_threshold": 0.0, **recipe["sampling"]},
        ),
        "decode": ("VAEDecode", {"samples": ["sample", 0], "vae": ["load", 2]}),
        "video": ("CreateVideo", {"images": ["decode", 0], "fps": clips["fps"]}),
        "save": (
            "SaveVideo",
            {"video": ["video", 0], "filename_prefix": "own", "format": "mp4", "codec": "h264"}
            | {"codec.encoding": "re-encode", "codec.encoding.crf": 4.0},
        ),
    }
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}
