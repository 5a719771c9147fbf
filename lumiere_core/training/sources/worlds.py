"""Captions, single frames and clips of the procedural world."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ... import world
from ...clips.conditioning import Condition, key_frames
from ...nets.text_encoder import Text
from ...world.dice import Dice
from ...world.styles import STYLES, stylise
from ..batch import Batch
from ..draws import LENGTH, MASK, MOMENT, PICTURE, Draws
from ..masks import draw_known, draw_task
from ..options import TrainOptions
from ..pictures import named
from .base import Source
from .scenes import Scenes

Encode = Callable[[list[str]], Text]
LENGTHS = 12  # that clips have at most, where they have lengths of their own


class WorldSource(Source):
    """What shows scenes of the world.

    Args:
        encode: prompts to the text that the network is told.
    """

    def __init__(self, options: TrainOptions, encode: Encode) -> None:
        super().__init__(options)
        self.scenes, self._encode = Scenes(options), encode

    @torch.no_grad()
    def text(self, captions: list[str], samples: Sequence[int]) -> Text:
        """Return the text of samples with these captions, some of them dropped."""
        return self._encode(self.drop(captions, samples))

    def render(
        self, scenes: list[list[world.Scene]], times: list[Tensor], masks: bool, size: tuple[int, int] | None = None
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Return for each batch its frames (b, 3, t, h, w) and, with `masks`, their objects (b, 1, t, h, w).

        All of them are drawn together: many small operations, whatever the number of pictures.

        Args:
            times: (b, t) seconds, for each batch.
            size: (height, width) in pixels; the options' if there is none.
        """
        options = self.options
        flat = [s for chosen, t in zip(scenes, times, strict=True) for scene in chosen for s in [scene] * t.shape[1]]
        drawn = world.render_frames(
            flat,
            torch.cat([t.flatten() for t in times]),
            *(size or (options.height, options.width)),
            device=options.device,
            masks=masks,
        )
        counts = [t.numel() for t in times]

        def clips(frames: Tensor) -> list[Tensor]:
            parts = zip(frames.split(counts), times, strict=True)
            return [part.unflatten(0, tuple(t.shape)).transpose(1, 2) for part, t in parts]

        if not masks:
            return [(frames, None) for frames in clips(drawn)]
        return list(zip(clips(drawn[0]), clips(drawn[1]), strict=True))


class WorldStills(WorldSource):
    """Each scene at a random moment."""

    name = "stills"

    def draw(self, numbers: Sequence[int]) -> list[Batch]:
        batches = [self.samples(number) for number in numbers]
        scenes = self.scenes(batches)
        pictures = self.pictures(scenes, batches, masks=self.options.object_weight > 0)
        return [
            Batch(number, samples, x0, text=self.text([scene.caption for scene in chosen], samples), objects=objects)
            for number, samples, chosen, (x0, objects) in zip(numbers, batches, scenes, pictures, strict=True)
        ]

    def pictures(
        self, scenes: list[list[world.Scene]], batches: list[range], masks: bool
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Return (b, 3, 1, h, w) of each batch, and with `masks` the objects."""
        moments = [Draws(self.options.seed, samples, MOMENT).uniform() * world.CLIP_SECONDS for samples in batches]
        return self.render(scenes, moments, masks)


class StyledStills(WorldStills):
    """The same, redrawn in a style (Lumiere §4.1); half of the captions name it."""

    name = "styled-stills"

    @property
    def words(self) -> str:
        return self.options.words or STYLES[self.options.style].words

    def draw(self, numbers: Sequence[int]) -> list[Batch]:
        batches, options = [self.samples(number) for number in numbers], self.options
        scenes = self.scenes(batches)
        drawn = []
        for number, samples, chosen, (plain, objects) in zip(
            numbers, batches, scenes, self.pictures(scenes, batches, masks=True), strict=True
        ):
            random = Draws(options.seed, samples, PICTURE)
            styled = [
                stylise(plain[row : row + 1, :, 0], options.style, objects[row : row + 1, :, 0], generator)
                for row, generator in enumerate(random.generators)
            ]
            captions = named([scene.caption for scene in chosen], self.words, random)
            weights = objects if options.object_weight > 0 else None
            drawn.append(
                Batch(
                    number, samples, torch.cat(styled)[:, :, None], text=self.text(captions, samples), objects=weights
                )
            )
        return drawn


class WorldClips(WorldSource):
    """Windows of scenes; the whole clip where it is no longer than a window.

    Args:
        known: something of each clip is known; see `masks.SHARES`.
    """

    name = "clips"

    def __init__(self, options: TrainOptions, encode: Encode, known: bool = False) -> None:
        super().__init__(options, encode)
        self.known = known

    def frames(self) -> int:
        return self.options.num_frames

    def by_length(self, samples: Sequence[int]) -> list[tuple[int, Sequence[int]]]:
        """Return the lengths of clips, in frames, with the samples that have each of them."""
        shortest, longest = self.options.shortest, self.options.num_frames
        if not shortest:
            return [(longest, samples)]
        # A few lengths, so that a batch holds few shapes; not multiples of one number, which the padding would favour.
        known = torch.linspace(shortest, longest, LENGTHS).round().int().tolist()
        chosen = (Draws(self.options.seed, samples, LENGTH).uniform()[:, 0] * LENGTHS).int().tolist()
        groups: dict[int, list[int]] = {}
        for sample, index in zip(samples, chosen, strict=True):
            groups.setdefault(known[index], []).append(sample)
        return sorted(groups.items())

    def draw(self, numbers: Sequence[int]) -> list[Batch]:
        parts = [(number, *part) for number in numbers for part in self.by_length(self.samples(number))]
        scenes = self.scenes([samples for _, _, samples in parts])
        places = [self.numbers(samples, length) for _, length, samples in parts]
        masks = self.known or self.options.object_weight > 0
        clips = self.render(scenes, [self.seconds(place) for place in places], masks)
        return [
            Batch(
                number,
                samples,
                x0=x0,
                text=self.text([scene.caption for scene in chosen], samples),
                objects=objects,
                known=self.condition(x0, objects, samples) if self.known else None,
                more={"numbers": place.to(x0.device)} | ({"clip_frames": length} if length > self.whole else {}),
            )
            for (number, length, samples), chosen, place, (x0, objects) in zip(
                parts, scenes, places, clips, strict=True
            )
        ]

    @property
    def whole(self) -> int:
        """Frames of a scene."""
        return round(world.CLIP_SECONDS * self.options.fps)

    def numbers(self, samples: Sequence[int], length: int) -> Tensor:
        """Return (b, t) numbers, not whole ones, of the frames of windows in their clips.

        Of clips with lengths of their own every other one is the beginning, as a short clip is when it is sampled.
        """
        every = self.options.every
        slack = max(0.0, world.CLIP_SECONDS * self.options.fps - (length - 1) * every - 1)
        start, first = Draws(self.options.seed, samples, MOMENT).uniform(2).split(1, dim=1)
        if self.options.shortest:
            start = start * (first < 0.5)
        return start * slack + torch.arange(length) * every

    def seconds(self, numbers: Tensor) -> Tensor:
        """Return the moments of frames; a clip of more frames than a scene shows the scene more slowly.

        (b, t), as the numbers.
        """
        return numbers / self.options.fps * min(1.0, self.whole / numbers.shape[1])

    def condition(self, clips: Tensor, covers: Tensor, samples: Sequence[int]) -> Tensor:
        """Return (b, 4, t, h, w): what is known of clips, given the coverage of their objects."""
        if self.options.known_every:
            return key_frames(
                clips[:, :, :: self.options.known_every],
                range(0, clips.shape[2], self.options.known_every),
                clips.shape[2],
            ).tensor()
        dice = [Dice(seed) for seed in Draws(self.options.seed, samples, MASK).integers()]
        size = tuple(clips.shape[2:])
        with torch.device(clips.device):  # where masks are made
            known = torch.stack(
                [draw_known(draw_task(die), die, size, lambda row=row: covers[row, 0]) for row, die in enumerate(dice)]
            )
        return Condition(clips, known[:, None].to(clips)).tensor()
