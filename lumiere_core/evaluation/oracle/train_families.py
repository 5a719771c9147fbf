"""Training the family network: `python -m lumiere_core evaluate oracle --train`.

Scenes are of the training split; the network is measured on held-out ones. k - frames, n - clips.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...clips.video import to_uint8
from ...nets.checkpoint import save_file
from ...world import FAMILIES, Scene, render_frames, sample_scene
from ...world.canvas import CLIP_SECONDS
from .appearance import smooth
from .families import LOOKS, SIDE, WEIGHTS, FamilyNet
from .track import NONE

CLIPS = 120  # rendered for each family
BATCH = 48
STEPS = 360
RATE = 4e-3
NOTHING = 0.2  # share of a batch that shows none of the families
TIMELESS = ("sunrise",)  # still itself without its object


def train_families(report: Callable[[str], None], steps: int = STEPS, clips: int = CLIPS) -> float:
    """Train, write the weights and return the accuracy on held-out scenes."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    names = tuple(FAMILIES)
    started = time.monotonic()
    bank = {name: _render([sample_scene(seed, "train", name) for seed in range(clips)]) for name in names}
    empty = _render([scene for seed in range(clips) if (scene := _emptied(seed))])
    report(f"{len(names)} families drawn ({time.monotonic() - started:.0f} s)")
    network = FamilyNet(len(names) + 1)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for step in range(steps):
        frames, labels = _batch(bank, empty, names, generator)
        loss = F.cross_entropy(network(frames), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 20 == 19:
            report(f"step {step + 1}: loss {loss.item():.4f} ({time.monotonic() - started:.0f} s)")
    accuracy = _accuracy(network.eval(), names)
    state = {k: v.half() for k, v in network.state_dict().items() if v.is_floating_point()}
    metadata = {"classes": json.dumps([*names, NONE]), "accuracy": f"{accuracy:.4f}"}
    save_file(state, WEIGHTS, metadata)
    return accuracy


def _render(scenes: list[Scene]) -> Tensor:
    """The frames that the network looks at, (n, k, 3, side, side) uint8."""
    times = torch.linspace(0, CLIP_SECONDS * 79 / 80, LOOKS)
    repeated = [scene for scene in scenes for _ in range(LOOKS)]
    frames = render_frames(repeated, times.repeat(len(scenes)), SIDE, SIDE)
    levels = to_uint8(frames.transpose(0, 1))  # (n k) h w c
    return levels.permute(0, 3, 1, 2).view(len(scenes), LOOKS, 3, SIDE, SIDE)


def _emptied(seed: int) -> Scene | None:
    """A scene whose object has shrunk to nothing; None where the family is more than its object."""
    names = [name for name in FAMILIES if name not in TIMELESS]
    scene = sample_scene(seed, "train", names[seed % len(names)])
    sizes = [name for name in ("size", "size_end") if name in scene.parameters]
    if not sizes:
        return None
    shrunk = scene.parameters | dict.fromkeys(sizes, 1e-3)
    return dataclasses.replace(scene, parameters=shrunk)


def _batch(bank: dict[str, Tensor], empty: Tensor, names, generator) -> tuple[Tensor, Tensor]:
    """Frames (n, k, 3, side, side) in [-1, 1] and labels; shapes come as often as three others."""
    odds = torch.tensor([3.0 if name == "shape" else 1.0 for name in names])
    odds = torch.cat([odds, odds.sum().view(1) * NOTHING / (1 - NOTHING)])
    labels = torch.multinomial(odds, BATCH, replacement=True, generator=generator)
    clips = []
    for label in labels.tolist():
        clip = _nothing(bank, empty, names, generator) if label == len(names) else _draw(bank[names[label]], generator)
        clips.append(clip)
    return torch.stack([_worn(clip, generator) for clip in clips]), labels


def _draw(clips: Tensor, generator) -> Tensor:
    """One clip of a bank in [-1, 1], mirrored half of the time."""
    clip = clips[_integer(len(clips), generator)].float() / 127.5 - 1
    return clip.flip(-1) if _uniform(generator) < 0.5 else clip


def _nothing(bank, empty: Tensor, names, generator) -> Tensor:
    """What must not pass for a scene."""
    kind = _uniform(generator)
    if kind < 0.45:
        return _draw(empty, generator)
    first = _draw(bank[names[_integer(len(names), generator)]], generator)
    if kind < 0.65:
        other = _draw(bank[names[_integer(len(names), generator)]], generator)
        return (first + other.roll(SIDE // 2, -1)) / 2
    if kind < 0.85:  # the right pieces in the wrong places
        side = 8
        count = SIDE // side
        pieces = first.view(LOOKS, 3, count, side, count, side).permute(2, 4, 0, 1, 3, 5)
        order = torch.randperm(count * count, generator=generator)
        pieces = pieces.flatten(0, 1)[order].view(count, count, LOOKS, 3, side, side)
        return pieces.permute(2, 3, 0, 4, 1, 5).reshape(LOOKS, 3, SIDE, SIDE)
    colour = torch.rand(1, 3, 1, 1, generator=generator) * 2 - 1
    noise = torch.randn(LOOKS, 3, SIDE // 8, SIDE // 8, generator=generator) * _uniform(generator)
    return (colour + F.interpolate(noise, SIDE, mode="bilinear")).clamp(-1, 1)


def _worn(clip: Tensor, generator) -> Tensor:
    """Wear a clip as a small model's output is worn: moved, blurred, off in tone, noisy."""
    shift = [_integer(9, generator) - 4 for _ in range(2)]
    clip = F.pad(clip, (4, 4, 4, 4), mode="replicate")
    clip = clip[..., 4 + shift[0] : 4 + shift[0] + SIDE, 4 + shift[1] : 4 + shift[1] + SIDE]
    for _ in range(_integer(4, generator)):
        clip = smooth(clip)
    gain, lift = 1 + 0.2 * (_uniform(generator) - 0.5), 0.2 * (_uniform(generator) - 0.5)
    noise = torch.randn(clip.shape, generator=generator) * 0.3 * _uniform(generator) ** 2
    return (clip * gain + lift + noise).clamp(-1, 1)


def _accuracy(network: FamilyNet, names: tuple[str, ...], clips: int = 24) -> float:
    right = total = 0
    for index, name in enumerate(names):
        frames = _render([sample_scene(10_000 + seed, "held_out", name) for seed in range(clips)])
        with torch.no_grad():
            answers = network(frames.float() / 127.5 - 1).argmax(1)
        right, total = right + int((answers == index).sum()), total + len(answers)
    return right / total


def _uniform(generator) -> float:
    return float(torch.rand((), generator=generator))


def _integer(count: int, generator) -> int:
    return int(torch.randint(count, (), generator=generator))
