"""`evaluate own-clips`: does a person's own way, from a folder of videos to a graph, teach a checkpoint to move?

A checkpoint that this pack did not make and 480 videos of it take the commands that the documentation names: `prepare`,
`train temporal --checkpoint --data`, *Apply Lumiere Temporal Layers* in a workflow on the host (`evaluate prompts`). The
world's oracle judges the clips. The same is done without what the trainer adds to the paper, and with a motion module.
They train in turns of a few minutes, so that what else the machine does meets all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ..files import JsonLines, Record, copy, write_text
from ..text_files import read_json

RECIPE = Path(__file__).parent / "data" / "own_clips.json"
ROOT = Path(__file__).parents[2]
TURN = 4.0  # minutes that one trains before the next one does
DIRECTION, COLOUR, STEADY = 0.85, 0.95, 1.5  # wanted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, help="folder of all that is made; run again to go on")
    parser.add_argument("--minutes", type=float, default=12.0, help="of training, for each of the three")
    parser.add_argument(
        "--recipe", type=Path, default=RECIPE, help="JSON file with clips, options and what is compared"
    )
    parser.add_argument("--only", help="names of the recipe's variants, set apart by commas; default: all")
    parser.add_argument("--prompts", type=int, help="clips that are judged; default: the recipe's")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; default: all")


def main(options: argparse.Namespace) -> int:
    from .narrow import write_checkpoint, write_clips

    recipe, proof = read_json(options.recipe), Proof(options.output.resolve(), options.threads)
    names = options.only.split(",") if options.only else list(recipe["variants"])
    unknown = sorted(set(names) - set(recipe["variants"]))
    if unknown:
        raise ValueError(f"--only names {', '.join(unknown)}; there is {', '.join(recipe['variants'])}.")
    if not proof.checkpoint.is_file():
        write_checkpoint(proof.base)
    if not (proof.cache / "report.csv").is_file():
        began = time.monotonic()
        count = write_clips(proof.videos, recipe["clips"])
        sys.stdout.write(f"{count} videos in {proof.videos} ({time.monotonic() - began:.0f} s)\n")
        proof.prepare(recipe["clips"])
    while turns := [name for name in names if proof.trained(name) < options.minutes]:
        for name in turns:
            proof.train(name, recipe, min(TURN, options.minutes - proof.trained(name)))
        if any(proof.trained(name) < options.minutes for name in names):
            for name in names:  # the curve; the whole set follows at the end
                proof.judge(name, recipe, (options.prompts or recipe["prompts"]) // 2)
    for name in names:
        proof.judge(name, recipe, options.prompts or recipe["prompts"])
    text = table(proof.lines.read(), recipe)
    write_text(proof.folder / "table.md", text)
    sys.stdout.write(text)
    return 0


class Proof:
    """The folder of one proof and the commands that fill it."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.folder, self.threads = folder, threads
        self.base, self.videos, self.cache = folder / "base", folder / "videos", folder / "cache"
        self.checkpoint = self.base / "models" / "checkpoints" / "narrow.safetensors"
        self.lines = JsonLines(folder / "judged.jsonl")
        self.turns = JsonLines(folder / "turns.jsonl")

    def prepare(self, clips: dict[str, Any]) -> None:
        """Let the host encode the videos."""
        size = "--size", clips["size"], "--frames", clips["frames"], "--fps", clips["fps"]
        self._run(
            "prepare", self.videos, "--checkpoint", self.checkpoint, "--base", self.base, "--output", self.cache, *size
        )

    def trained(self, name: str) -> float:
        """Return the minutes that a variant has trained."""
        return sum(turn["minutes"] for turn in self.turns.read() if turn["variant"] == name)

    def weights(self, name: str) -> Path:
        """Return the file of a variant's temporal layers, where Apply Lumiere Temporal Layers finds it."""
        return self.base / "models" / "lumiere" / f"{name}.safetensors"

    def train(self, name: str, recipe: dict[str, Any], minutes: float) -> None:
        """Train a variant for some minutes more."""
        variant, run = recipe["variants"][name], self.folder / name
        given = (
            {"steps": 100000, "sample-every": -1, "save-every": 3600} | recipe["options"] | variant.get("options", {})
        )
        arguments = [word for key, value in given.items() for word in (f"--{key}", value)]
        arguments += ["--no-checkpointing"]
        if "temporal" in variant:
            write_text(self.folder / f"{name}.json", json.dumps({"temporal": variant["temporal"]}))
            arguments += ["--config", self.folder / f"{name}.json"]
        if (run / "state.safetensors").is_file():
            arguments += ["--resume"]
        if self.threads:
            arguments += ["--threads", self.threads]
        source = "--checkpoint", self.checkpoint, "--data", self.cache
        self._run("train", "temporal", *source, "--output", run, "--minutes", round(minutes, 3), *arguments)
        copy(run / "temporal.safetensors", self.weights(name))
        steps = read_last(run / "log.jsonl")["step"]
        self.turns.append({"variant": name, "minutes": round(minutes, 3), "step": steps}, durable=True)

    def judge(self, name: str, recipe: dict[str, Any], count: int) -> None:
        """Make clips on the host and let the oracle look at them."""
        from .narrow import prompts, speed
        from .oracle import judge
        from .runs import Job, run_workflow
        from .video_set import frames_of

        minutes, clips = round(self.trained(name), 2), recipe["clips"]
        found = prompts(count, clips)
        folder = self.folder / "clips" / f"{name}_{minutes:g}"
        workflow = folder / "workflow.json"
        write_text(workflow, json.dumps(graph(self.weights(name).name, recipe), indent=1))
        jobs = [Job(f"{i:03d}", scene.caption, seed=i) for i, scene in enumerate(found)]
        run_workflow(workflow, jobs, folder, base=str(self.base), fps=clips["fps"], threads=self.threads)
        judged = {(r["variant"], r["minutes"], r["case"]) for r in self.lines.read()}
        for job, scene in zip(jobs, found, strict=True):
            if (name, minutes, job.name) in judged:
                continue
            frames, _ = frames_of(folder / f"{job.name}.mp4")
            import numpy as np
            import torch

            verdict = judge(torch.from_numpy(np.stack(list(frames))), scene, speed(clips))
            self.lines.append(
                {
                    "variant": name,
                    "minutes": minutes,
                    "step": read_last(self.folder / name / "log.jsonl")["step"],
                    "case": job.name,
                    "prompt": scene.caption,
                    "seen": verdict.seen,
                    "right": verdict.right(scene),
                    **verdict.measures,
                }
            )

    def _run(self, *words: object) -> None:
        """Run a command of this pack.

        Raises:
            ValueError: it failed; it has said why.
        """
        command = [sys.executable, "-m", "lumiere_core", *map(str, words)]
        sys.stdout.write(f"$ {' '.join(command[1:])}\n")
        sys.stdout.flush()
        done = subprocess.run(command, cwd=ROOT, check=False, env=os.environ)
        if done.returncode:
            raise ValueError(
                f"`{' '.join(command[1:4])}` ended with status {done.returncode}; the lines above say why."
            )


def read_last(path: Path) -> Record:
    """Return the last line of a log."""
    return JsonLines(path).read()[-1]


def graph(temporal: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the workflow, in API format, that a person builds for a checkpoint with temporal layers."""
    clips = recipe["clips"]
    nodes = {
        "load": ("CheckpointLoaderSimple", {"ckpt_name": "narrow.safetensors"}),
        "apply": ("LumiereApplyTemporal", {"model": ["load", 0], "temporal": temporal, "frames_per_clip": 0}),
        "prompt": ("CLIPTextEncode", {"text": "{prompt}", "clip": ["load", 1]}),
        "empty": ("CLIPTextEncode", {"text": "", "clip": ["load", 1]}),
        "frames": (
            "EmptyLumiereLatentVideo",
            {"width": clips["size"], "height": clips["size"], "length": clips["frames"], "batch_size": 1},
        ),
        "sample": (
            "LumiereSampler",
            {"model": ["apply", 0], "positive": ["prompt", 0], "negative": ["empty", 0], "latent_image": ["frames", 0]}
            | {"seed": 0, "denoise": 1.0, **recipe["sampling"]},
        ),
        "decode": ("VAEDecode", {"samples": ["sample", 0], "vae": ["load", 2]}),
        "video": ("CreateVideo", {"images": ["decode", 0], "fps": clips["fps"]}),
        "save": (
            "SaveVideo",
            {"video": ["video", 0], "filename_prefix": "own_clips", "format": "mp4", "codec": "h264"},
        ),
    }
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def table(lines: list[Record], recipe: dict[str, Any]) -> str:
    """Return the figures of every variant after every turn, as Markdown."""
    rows = ["| trained | minutes, steps | clips | direction right | colour right | shape right | flicker over real |"]
    rows.append("| --- | --- | --- | --- | --- | --- | --- |")
    for name, variant in recipe["variants"].items():
        mine = [line for line in lines if line["variant"] == name]
        for minutes in sorted({line["minutes"] for line in mine}):
            now = [line for line in mine if line["minutes"] == minutes]
            shares = [sum(line["right"].get(key, False) for line in now) for key in ("motion", "colour", "shape")]
            ratios = [line["flicker_ratio"] for line in now if "flicker_ratio" in line]
            flicker = sum(ratios) / len(ratios) if ratios else float("nan")
            wanted = (DIRECTION, COLOUR, 0.0)
            cells = [_cell(f"{s} of {len(now)}", s >= bar * len(now)) for s, bar in zip(shares, wanted, strict=True)]
            cells.append(_cell(f"{flicker:.2f}", flicker <= STEADY))
            rows.append(f"| {variant['title']} | {minutes:g}, {now[0]['step']} | {len(now)} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _cell(text: str, held: bool) -> str:
    """Return a figure; bold where it falls short of its bar."""
    return text if held else f"**{text}**"
