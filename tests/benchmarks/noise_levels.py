"""How much of a clip's motion the shipped model sees through noise of each strength.

    PYTHONPATH=. python tests/benchmarks/noise_levels.py [--count 5] [--temporal other.safetensors]

One answer of the network for each noised clip of the world (held-out prompts, no guidance): the share of the clip's changes
around its mean picture that it explains, 1 - squared error / variance, for motions whose phase no caption tells.
"""

from __future__ import annotations

import argparse

import torch

from lumiere_core.diffusion.models import Models, load_models
from lumiere_core.diffusion.noise import frame_noise
from lumiere_core.evaluation.cases import Case, mini_cases
from lumiere_core.nets.checkpoint import load_into, load_parts
from lumiere_core.world import render_clip

MOTIONS = ("bouncing", "swinging", "spinning")
SIGMAS = (5.0, 10.0, 20.0, 40.0, 80.0)


@torch.no_grad()
def explained(models: Models, case: Case, sigma: float, frames: int = 80, size: int = 64) -> float:
    """Return the explained share of one clip's changes."""
    clip = render_clip(case.scene, frames, 16.0, size, size)[None]
    shared = models.temporal.config.shared_noise
    noise = frame_noise(case.seed, frames, (3, size, size), share=shared).transpose(0, 1)[None]
    noised = clip + noise * sigma
    off = models.denoiser()(noised, torch.tensor([sigma]), models.encode([case.prompt])) - clip

    def changes(x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(dim=2, keepdim=True)).square().sum()

    return 1 - (changes(off) / changes(clip)).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5, help="clips of each motion")
    parser.add_argument("--temporal", help="other temporal layers around the shipped image model")
    options = parser.parse_args()
    models, _ = load_models()
    if options.temporal:
        load_into(models.temporal, load_parts([options.temporal]).temporal, options.temporal)
    print("motion    " + "".join(f"sigma {sigma:<4.0f} " for sigma in SIGMAS))
    for motion in MOTIONS:
        cases = [c for c in mini_cases("tuning") if c.scene.attributes["motion"] == motion]
        shares = []
        for sigma in SIGMAS:
            clips = [explained(models, case, sigma) for case in cases[: options.count]]
            shares.append(sum(clips) / len(clips))
        print(f"{motion:<10}" + "".join(f"{share:<11.2f}" for share in shares))


if __name__ == "__main__":
    main()
