"""Enlarge clips in the host's own context windows: the other side of `python -m lumiere_core evaluate seams`.

    python nodes/headless/context_windows.py WEIGHTS THREADS

Does jobs (`boot.do_jobs`) with small and large (.npy files of (t, h, w, 3) uint8 frames, to read and to write), prompt,
seed, steps, length and overlap.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # an isolated Python (-I) does not do it
from boot import do_jobs, prepare_base, start_host  # noqa: E402

sys.path.remove(str(Path(__file__).resolve().parent))


def main(weights: str, threads: str) -> None:
    with tempfile.TemporaryDirectory() as base:
        do_jobs(lambda: _prepare(Path(base), weights, int(threads)))


def _prepare(base: Path, weights: str, threads: int):
    """Load the stage and return the function that does a job."""
    prepare_base(base)
    file = Path(weights)
    if file.is_file():
        target = base / "models" / "lumiere" / file.name
        target.parent.mkdir(parents=True)
        shutil.copyfile(file, target)
        weights = file.name
    host = start_host(base)
    import numpy as np
    import torch

    torch.set_num_threads(threads)

    def loaded(name: str) -> tuple:
        return host.call("LumiereLoader", checkpoint=name, dtype="fp32", frames_per_clip=0)

    model, clip, _ = loaded(weights)
    clip = clip or loaded("lumiere-mini")[1]

    def run(job: dict) -> None:
        (cut,) = host.call(
            "ContextWindowsManual",
            model=model,
            context_length=job["length"],
            context_overlap=job["overlap"],
            context_schedule="standard_static",
            context_stride=1,
            closed_loop=False,
            fuse_method="pyramid",
            dim=0,
            freenoise=False,
        )
        prompts = host.call("LumiereTextEncode", clip=clip, prompt=job["prompt"], negative_prompt="")
        # Windows longer than the clip: the node lets it pass, and the host's windows cut it.
        (large,) = host.call(
            "LumiereSuperResolution",
            model=cut,
            image=torch.from_numpy(np.load(job["small"])) / 255,
            positive=prompts[0],
            negative=prompts[1],
            seed=job["seed"],
            steps=job["steps"],
            cfg=1.0,
            sampler_name="euler",
            scheduler="karras",
            context_length=4096,
            context_overlap=job["overlap"],
            weighting="uniform",
            noise_augmentation=0.0,
        )
        levels = (large * 255).round().to(torch.uint8)
        np.save(job["large"], levels.numpy())

    return run


if __name__ == "__main__":
    main(*sys.argv[1:])
