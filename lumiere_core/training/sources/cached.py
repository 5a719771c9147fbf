"""A person's own clips, out of a cache that `prepare` made, in the latents of any image model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...clips.conditioning import Condition
from ...dataset.index import Clip
from ...dataset.reader import Clips, Loaded
from ...nets.text_encoder import Text
from ...world.dice import Dice
from ..batch import Batch
from ..draws import COPY, MASK, MOMENT, Draws
from ..masks import INSIDE, draw_known, draw_task
from ..options import TrainOptions
from .base import Source


class CachedClips(Source):
    """Every clip once in each round; a batch of clips of several sizes has a `Batch` for each.

    Args:
        total_stride: of the temporal layers: how long stills are.
        known: something of each clip is known; see `masks.SHARES`. Nothing says where an object is, so any shape stands
            for it.

    Raises:
        ValueError: the cache holds no clip, or shorter ones than are asked for.
    """

    name = "cached-clips"

    def __init__(self, options: TrainOptions, clips: Clips, total_stride: int = 1, known: bool = False) -> None:
        super().__init__(options)
        if not len(clips):
            raise ValueError("the cache holds no clip to train on; its report.csv says why.")
        if options.num_frames > clips.cache.settings.frames:
            raise ValueError(
                f"--num-frames is {options.num_frames}, but the clips of the cache have {clips.cache.settings.frames} "
                "frames. Give fewer, or prepare longer clips."
            )
        self.clips, self.total_stride, self.known = clips, total_stride, known
        self.copies = clips.cache.settings.conditions if known else 0
        self._videos = _frames_of_videos(clips)

    def frames(self) -> int:
        return self.options.num_frames or self.clips.cache.settings.frames

    def facts(self) -> dict[str, str]:
        digest = hashlib.sha256(" ".join(clip.key for clip in self.clips.flat).encode())
        base = ", ".join(f"{h[:16]}" for h in self.clips.cache.backbone["sha256"].values())
        return {"data": digest.hexdigest()[:16], "base": base, "clips": str(len(self.clips))}

    def describe(self) -> str:
        settings = self.clips.cache.settings
        return f"{len(self.clips)} clips of {settings.frames} frames at {settings.fps:g} a second"

    def draw(self, numbers: Sequence[int]) -> list[Batch]:
        return [batch for number in numbers for batch in self._batches(number)]

    def _batches(self, number: int) -> list[Batch]:
        groups: dict[tuple, list[Sample]] = {}
        for sample in self.samples(number):
            found = self.sample(sample)
            groups.setdefault((found.latents.shape, found.text.context.shape), []).append(found)
        return [self._batch(number, group) for group in groups.values()]

    def _batch(self, number: int, group: list[Sample]) -> Batch:
        device, samples = self.options.device, [sample.number for sample in group]
        pooled = [sample.text.pooled for sample in group]
        text = Text(
            torch.stack([sample.text.context for sample in group]), None if pooled[0] is None else torch.stack(pooled)
        )
        x0 = torch.stack([sample.latents for sample in group])
        copies = None
        if self.copies:
            channels = x0.shape[1] // 2
            x0, copies = x0[:, :channels], x0[:, channels:]
        known = self.condition(x0, samples, copies).to(device) if self.known else None
        place = torch.stack([sample.place for sample in group]).to(device)
        return Batch(
            number, samples, x0=x0.to(device), text=text.to(device), objects=None, known=known, more={"numbers": place}
        )

    def sample(self, number: int) -> Sample:
        """Return sample `number` of the run: which clip, which of its frames, and whether its text is dropped."""
        options, settings = self.options, self.clips.cache.settings
        index = self.clips.at(number, options.seed)
        clip, entry = self.clips[index], self.clips.flat[index]
        still, told, where = Draws(options.seed, [number], MOMENT).uniform(3)[0].tolist()
        latents = self.seen(clip, number)
        length = min(latents.shape[1], options.num_frames or latents.shape[1])
        first = round(where * (latents.shape[1] - length))
        if still < options.stills and length > 1:
            # A picture: one frame for a short while, each with noise of its own (one frame alone skips the layers).
            first = int(where * latents.shape[1])
            length = min(length, max(2, self.total_stride))
            latents = latents[:, first : first + 1].expand(-1, length, -1, -1)
        else:
            latents = latents[:, first : first + length]
        place = first + torch.arange(length, dtype=torch.float32)
        if told < options.placed:
            # In frames of a clip of the trained length, which a longer video takes the place of.
            place = (place + entry.start) * min(1.0, settings.frames / self._videos[entry.key])
        text = self.empty(latents) if self.dropped([number])[0] else text_of(clip.tensors)
        return Sample(number, latents, text, place)

    def seen(self, clip: Loaded, number: int) -> Tensor:
        """Return (c, t, h, w): what sample `number` draws of a clip, with one of its greyed copies and the mask behind it."""
        latents = clip.tensors["latents"].float()
        if not self.copies:
            return latents
        which = int(Draws(self.options.seed, [number], COPY).uniform() * self.copies)
        return torch.cat([latents, *(clip.tensors[name][which].float() for name in ("greyed", "known"))])

    def size_of(self, clip: Clip) -> tuple[int, int]:
        """Return the height and width of the latents that are drawn of a clip."""
        return tuple(clip.shape[2:])

    def shown(self, clip: Loaded, device: str) -> tuple[Text, Text, dict[str, Any]]:
        """Return what a sample of a whole clip is told: its text, the empty one, and what else the network takes."""
        texts = text_of(clip.tensors), self.empty(clip.tensors["latents"])
        return *(Text(*(None if v is None else v[None] for v in text)).to(device) for text in texts), {}

    def empty(self, latents: Tensor) -> Text:
        """Return the empty prompt for latents of a size. Latents are (b, c, t, h, w), the text states (b, l, d)."""
        ratio = self.clips.cache.backbone["ratio"]
        return text_of(self.clips.cache.read_empty(*(side * ratio for side in latents.shape[-2:])))

    def condition(self, clips: Tensor, samples: Sequence[int], copies: Tensor | None = None) -> Tensor:
        """Return (b, c + 1, t, h, w): what is known of clips.

        Where a mask's border runs through frames, a copy that was greyed before it was encoded says what is known, as in a
        workflow. A VAE of pictures encodes each frame by itself, so whole frames may be masked after it.

        Args:
            clips: (b, c, t, h, w).
            copies: (b, c + 1, t, h, w), greyed copies and their masks; without them C is masked after the VAE.
        """
        size = tuple(clips.shape[2:])
        dice = [Dice(seed) for seed in Draws(self.options.seed, samples, MASK).integers()]
        given, known = clips.clone(), []
        for row, die in enumerate(dice):
            task = draw_task(die)
            if copies is not None and task in INSIDE:
                given[row] = copies[row, :-1]
                known.append(copies[row, -1])
            else:
                known.append(draw_known(task, die, size, lambda: torch.zeros(size)).to(clips))
        return Condition(given, torch.stack(known)[:, None]).tensor()


class CachedClipsForLoRA(CachedClips):
    """The same clips for a motion LoRA, which has other options."""

    name = "cached-clips-lora"


@dataclass
class Sample:
    """One clip with all but its noise."""

    number: int
    latents: Tensor
    text: Text
    place: Tensor


def text_of(tensors: dict[str, Tensor]) -> Text:
    """Return the text (l, d) and (adm,) of one clip of a cache."""
    y = tensors.get("y")
    return Text(tensors["context"].float(), None if y is None else y.float())


def _frames_of_videos(clips: Clips) -> dict[str, int]:
    """Return the frames of the video that each clip, by its key, is from, as far as clips were made of it."""
    found = {}
    for entry in clips.cache.entries.values():
        last = max((clip.start for clip in entry.clips), default=0) + clips.cache.settings.frames
        found |= {clip.key: last for clip in entry.clips}
    return found
