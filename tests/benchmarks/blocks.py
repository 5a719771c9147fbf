"""Time of the temporal blocks alone, against lumiere-pytorch's of equal width, kernel and depth.

The sums are over all blocks of SD1.5's levels at 32x32 latents and 16 frames, each at its level's size and
length: as many of each as the network has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import reference_lumiere
import sd15
import torch
from figures import Figure
from pairs import Clock, weighted_sum
from torch import Tensor, nn

from lumiere_core.attention import scaled_dot_product
from lumiere_core.temporal_layers import (
    AttentionInflationBlock,
    ConvInflationBlock,
    TemporalDownsample,
    TemporalUpsample,
)

BAR_FORWARD, BAR_FORWARD_BACKWARD = 0.70, 0.62


@dataclass(frozen=True)
class Case:
    """One kind of block at one level."""

    kind: str
    channels: int
    size: int  # latent pixels
    frames: int  # that enter the block
    count: int  # blocks of this shape in the network

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.channels}x{self.size}x{self.size}x{self.frames}"

    def build(
        self,
    ) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], list[nn.Module]]:
        """Return our block and theirs as functions of ((b t), c, h, w), and the modules."""
        c, t = self.channels, self.frames
        if self.kind == "conv":
            ours, theirs = ConvInflationBlock(c, 3, 3, 0, nn), reference_lumiere.conv_block(c)
        elif self.kind == "attention":
            ours = AttentionInflationBlock(c, sd15.DEPTH, 64, 0, nn, scaled_dot_product)
            theirs = reference_lumiere.attention_block(c, sd15.DEPTH)
        elif self.kind == "down":
            ours, theirs = TemporalDownsample(c, 3, 2, nn), reference_lumiere.downsample(c)
        else:
            ours, theirs = TemporalUpsample(c, 3, 2, nn), reference_lumiere.upsample(c)
        for module in (ours, theirs):
            sd15.randomise_projections(module)
        extra = (None,) if self.kind in ("conv", "attention") else ()  # no condition vector
        return lambda x: ours(x, t, *extra), theirs, [ours, theirs]


CASES = (
    Case("conv", 320, 32, 16, 5), Case("conv", 640, 16, 8, 5), Case("conv", 1280, 8, 4, 5),
    Case("attention", 1280, 4, 2, 6),
    Case("down", 320, 16, 16, 1), Case("down", 640, 8, 8, 1), Case("down", 1280, 4, 4, 1),
    Case("up", 1280, 8, 2, 1), Case("up", 1280, 16, 4, 1), Case("up", 640, 32, 8, 1),
)  # fmt: skip


def measure(clock: Clock, turns: int) -> Iterator[Figure]:
    """Yield the ratio of every case and of the sums."""
    for way, bar in (("forward", BAR_FORWARD), ("forward_backward", BAR_FORWARD_BACKWARD)):
        name = f"blocks.{way}"
        try:
            reference_lumiere.load()
        except reference_lumiere.Unavailable as reason:
            yield Figure(f"{name}.sum_over_lumiere_pytorch", None, "ratio", bar, str(reason))
            continue
        parts, inflation = [], []
        for case in CASES:
            result = clock.turns(_runs(case, way == "forward_backward"), turns)
            parts.append((result, case.count))
            if case.kind in ("conv", "attention"):
                inflation.append((result, case.count))
            yield Figure(f"{name}.{case.name}.ours", result.median("ours"), "s")
            yield Figure(f"{name}.{case.name}.ratio", result.ratio("ours", "theirs"), "ratio")
        total = weighted_sum(parts)
        yield Figure(f"{name}.sum.ours", total.median("ours"), "s")
        yield Figure(f"{name}.sum.lumiere_pytorch", total.median("theirs"), "s")
        yield Figure(
            f"{name}.sum_without_resizes.ratio",
            weighted_sum(inflation).ratio("ours", "theirs"), "ratio",
        )  # fmt: skip
        yield Figure(f"{name}.sum.ratio", total.ratio("ours", "theirs"), "ratio", bar)


def _runs(case: Case, backward: bool) -> dict[str, Callable[[], object]]:
    ours, theirs, modules = case.build()
    x = torch.randn(case.frames, case.channels, case.size, case.size)
    if not backward:
        return {"ours": _without_gradients(ours, x), "theirs": _without_gradients(theirs, x)}
    x.requires_grad_()
    gradient = torch.randn_like(ours(x))

    def step(run: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def both() -> None:
            for module in modules:
                module.zero_grad()
            x.grad = None
            run(x).backward(gradient)

        return both

    return {"ours": step(ours), "theirs": step(theirs)}


def _without_gradients(run: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    def forward() -> Tensor:
        with torch.no_grad():
            return run(x)

    return forward
