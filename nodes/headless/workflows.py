"""Run an API-format workflow of any packs again and again: the other side of `python -m lumiere_core evaluate prompts`.

    python nodes/headless/workflows.py WORKFLOW BASE THREADS

BASE is the folder with models, custom_nodes, input and output; "" = that of the ComfyUI that this pack lies in. Says
"ready", then does jobs (`boot.do_jobs`) with prompt, seed, output (an .mp4) and fps.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # an isolated Python (-I) does not do it
from boot import PACK_ROOT, core_file, do_jobs, prepare_base, start_host  # noqa: E402
from demo import fill_in, find_seeds, read_workflow  # noqa: E402

sys.path.remove(str(Path(__file__).resolve().parent))

VIDEOS = (".mp4", ".webm", ".mkv", ".mov", ".gif")
PLACE = "{prompt}"  # where a workflow says itself where the prompt goes


def main(workflow: str, base: str, threads: str) -> None:
    def prepare():
        graph, folder = read_workflow(Path(workflow)), base_folder(base)
        host = start_host(folder)
        import torch

        if int(threads):
            torch.set_num_threads(int(threads))
        media = host.module("lumiere_core.clips.media") if host.pack else None

        def run(job: dict) -> None:
            shown = host.run(filled(graph, job["prompt"], job["seed"]))
            publish(shown, folder, Path(job["output"]), fps=job["fps"], media=media)

        return run

    do_jobs(prepare)


def base_folder(given: str) -> Path:
    """Return the folder of models and packs: the given one, else that of the ComfyUI around the pack, else .host/base."""
    if given:
        return Path(given).resolve()
    around = PACK_ROOT.parent.parent
    if PACK_ROOT.parent.name == "custom_nodes" and (around / "main.py").is_file():
        return around
    base = PACK_ROOT / ".host" / "base"
    prepare_base(base)
    return base


def filled(graph: dict, prompt: str, seed: int) -> dict:
    """Return a copy of the graph with the prompt and every seed in it.

    A text that holds {prompt} says where it goes; else it is the text behind the sampler's `positive`.
    """
    graph = json.loads(json.dumps(graph))
    places = [
        (node["inputs"], name)
        for node in graph.values()
        for name, value in node["inputs"].items()
        if isinstance(value, str) and PLACE in value
    ]
    for inputs, name in places:
        inputs[name] = inputs[name].replace(PLACE, prompt)
    if places:
        for node_id, name in find_seeds(graph):
            graph[node_id]["inputs"][name] = seed
    else:
        fill_in(graph, prompt, seed)
    return graph


def publish(outputs: dict, base: Path, target: Path, fps: float, media) -> None:
    """Put what a run saved in its place: its video as it is, or its pictures as an mp4.

    Raises:
        ValueError: it saved neither.
    """
    files = [
        base / entry.get("type", "output") / entry.get("subfolder", "") / entry["filename"]
        for shown in outputs.values()
        for key in ("images", "gifs", "videos")
        for entry in shown.get(key, ())
        if isinstance(entry, dict) and "filename" in entry
    ]
    saved = [file for file in files if file.suffix.lower() in VIDEOS]
    if saved:
        core_file("files").copy(saved[-1], target)
        return
    if len(files) < 2 or media is None:
        raise ValueError("the workflow saved no video and no two pictures; end it in Save Video.")
    import numpy as np
    from PIL import Image

    frames = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    media.write_mp4(target, frames, fps)


if __name__ == "__main__":
    main(*sys.argv[1:])
