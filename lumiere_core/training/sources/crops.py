"""Large crops of the world with the small ones that they are to be made from (Lumiere §3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import world
from ...clips.video import fold, unfold
from ...nets.config import SSRConfig
from ...nets.ssr import augment, pooled_with_level, upsample
from ...nets.text_encoder import Text
from ..batch import Batch
from ..degrade import degrade
from ..draws import CROP, LEVEL, MOMENT, PHOTO, Draws
from ..options import TrainOptions
from ..photographs import Photographs
from .worlds import Encode, WorldSource

CROPS_TRIED = 8  # the one that loses most when it is made small is taken: most of a frame is plain
ANY_CROP = 0.25  # share of clips whose first crop is taken


class WorldCrops(WorldSource):
    """Crops of single frames or of short segments; `low` is the enlarged small clip with noise of its level.

    Args:
        size: (height, width) in pixels of the frames that are drawn; crops have the size of the options.
        photographs: that the share `options.photographs` of the clips shows.

    Raises:
        ValueError: the crops are larger than the frames, or no multiples of the scale; photographs are missing.
    """

    name = "crops"

    def __init__(
        self,
        options: TrainOptions,
        encode: Encode,
        config: SSRConfig,
        size: tuple[int, int],
        photographs: Photographs | None = None,
    ) -> None:
        super().__init__(options, encode)
        if options.photographs and photographs is None:
            raise ValueError(
                "--photographs is a share of the clips, but there are none: give their folder with --images."
            )
        self.photographs = photographs
        for name, crop, full in zip(("height", "width"), (options.height, options.width), size, strict=True):
            if crop % config.scale or crop > full:
                raise ValueError(
                    f"--{name} is {crop} pixels; crops must be multiples of {config.scale} and at most the "
                    f"frame's {full}."
                )
        self.config, self.size = config, size

    def facts(self) -> dict[str, str]:
        photographs = self.photographs.digest() if self.photographs is not None and self.options.photographs else ""
        return {"size": "x".join(map(str, self.size)), **({"photographs": photographs} if photographs else {})}

    def frames(self) -> int:
        return self.options.num_frames

    @torch.no_grad()
    def draw(self, numbers: Sequence[int]) -> list[Batch]:
        batches, options = [self.samples(number) for number in numbers], self.options
        scenes, t = self.scenes(batches), options.num_frames
        slack = max(0.0, world.CLIP_SECONDS * options.fps - t)
        places = [Draws(options.seed, samples, MOMENT).uniform() * slack + torch.arange(t) for samples in batches]
        shown = [self._photographs(samples, t) for samples in batches]
        # Scenes whose place a photograph takes are not drawn.
        drawn = [
            (
                [scene for row, scene in enumerate(chosen) if row not in mine],
                place[[r for r in range(len(place)) if r not in mine]],
            )
            for chosen, place, mine in zip(scenes, places, shown, strict=True)
        ]
        parts = [(chosen, place / options.fps) for chosen, place in drawn if chosen]
        rendered = iter(self.render(*map(list, zip(*parts, strict=True)), False, self.size)) if parts else iter(())
        found = []
        for number, samples, chosen, place, mine, (left, _) in zip(
            numbers, batches, scenes, places, shown, drawn, strict=True
        ):
            clips = iter(next(rendered)[0] if left else ())
            frames = [mine[row].to(options.device) if row in mine else next(clips) for row in range(len(chosen))]
            captions = ["" if row in mine else scene.caption for row, scene in enumerate(chosen)]
            found.append(self._batch(number, samples, frames, place=place, text=self.text(captions, samples)))
        return found

    def _photographs(self, samples: Sequence[int], frames: int) -> dict[int, Tensor]:
        """Return by row the clips of photographs, which have no caption, that take a scene's place.

        They have the crops' size already: what they show is theirs to choose.
        """
        if not self.options.photographs:
            return {}
        random = Draws(self.options.seed, samples, PHOTO)
        chosen = (random.uniform()[:, 0] < self.options.photographs).nonzero().flatten().tolist()
        size = self.options.height, self.options.width
        return {row: self.photographs.clip(random.generators[row], frames, *size) for row in chosen}

    def _batch(self, number: int, samples: range, frames: Sequence[Tensor], place: Tensor, text: Text) -> Batch:
        options, scale = self.options, self.config.scale
        high, low = self.pairs(frames, samples)
        random = Draws(options.seed, samples, LEVEL)
        level = (random.uniform()[:, 0] * 2 - 1).clamp(min=0)
        t, shape = high.shape[2], low.shape[1:]
        grain = random.normal((shape[0], 1, *shape[1:]), low.device).expand(-1, -1, t, -1, -1)
        low = augment(low, fold(grain), level.repeat_interleave(t), self.config)
        text = Text(text.context, pooled_with_level(text.pooled, level, self.config))
        whole = round(world.CLIP_SECONDS * options.fps)
        more = {"low": unfold(upsample(low, scale), t), "numbers": place.to(high.device), "clip_frames": whole}
        return Batch(number, samples, high, text, more=more)

    def pairs(self, frames: Sequence[Tensor], samples: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return large crops (b, 3, t, H, W) of clips (3, t, …) and their degraded small ones ((b t), 3, h, w)."""
        random = Draws(self.options.seed, samples, CROP)
        high, low = [], []
        for clip, generator in zip(frames, random.generators, strict=True):
            crop = self._crop(clip.transpose(0, 1), generator)
            high.append(crop)
            low.append(degrade(crop, self.config.scale, generator))
        return torch.stack(high).transpose(1, 2), torch.cat(low)

    def _crop(self, clip: Tensor, random: torch.Generator) -> Tensor:
        """Return a random crop of (t, c, H, W), the same in all frames; mostly one that loses detail when small."""
        scale, best = self.config.scale, None
        tried = 1 if torch.rand(1, generator=random).item() < ANY_CROP else CROPS_TRIED
        for _ in range(tried):
            places = torch.rand(2, generator=random).tolist()
            (top, left) = (
                scale * round(place * (full - crop) / scale)
                for place, full, crop in zip(
                    places, clip.shape[-2:], (self.options.height, self.options.width), strict=True
                )
            )
            crop = clip[:, :, top : top + self.options.height, left : left + self.options.width]
            first = crop[:1]
            lost = (first - upsample(F.avg_pool2d(first, scale), scale)).square().mean().item()
            if best is None or lost > best[0]:
                best = lost, crop
        return best[1]
