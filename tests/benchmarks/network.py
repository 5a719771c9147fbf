"""Time of the whole network at SD1.5's widths, 32x32 latents and 16 frames, forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import reference_lumiere
import sd15
import torch
from figures import Figure
from pairs import Clock

SIZE, FRAMES = 32, 16
LARGE = (64, 80)  # measured on an accelerator only
BAR_CONSTANT, BAR_REFERENCE, WANTED_REFERENCE = 0.60, 0.90, 0.90


def measure(clock: Clock, turns: int) -> Iterator[Figure]:
    """Yield times, and ratios to (a) the image model, (b) constant length and (c) lumiere-pytorch."""
    yield from _measure(clock, turns, SIZE, FRAMES, "cpu")
    if torch.cuda.is_available():
        yield from _measure(clock, turns, *LARGE, "cuda")


def _measure(clock: Clock, turns: int, size: int, frames: int, device: str) -> Iterator[Figure]:
    name = f"network.forward.{device}.{size}x{size}x{frames}"
    bars = {"image_model": None, "constant_length": BAR_CONSTANT, "lumiere_pytorch": BAR_REFERENCE}
    runs = _networks(size, device)
    x, timesteps, context = sd15.inputs(frames, size, device)

    def call(network: Callable) -> Callable[[], object]:
        def forward() -> object:
            with torch.inference_mode():
                return network(x, timesteps, context)

        return forward

    # On a CPU one call takes most of a minute, and the median leaves a slow first turn out by itself.
    warm_up = device != "cpu"
    result = clock.turns({key: call(run) for key, run in runs.items()}, turns, warm_up)
    for key in runs:
        yield Figure(f"{name}.{key}", result.median(key), "s")
    for other, bar in bars.items():
        if other not in runs:
            yield Figure(f"{name}.ours_over_{other}", None, "ratio", bar, "lumiere-pytorch is missing")
            continue
        note = f"{WANTED_REFERENCE} wanted" if other == "lumiere_pytorch" else ""
        yield Figure(f"{name}.ours_over_{other}", result.ratio("ours", other), "ratio", bar, note)


def _networks(size: int, device: str) -> dict[str, Callable]:
    """Return the four networks; all share one image model, and (b) has our temporal weights."""
    image = sd15.unet()
    ours, constant = sd15.space_time(image).eval(), sd15.space_time(image, stride=1).eval()
    sd15.randomise_projections(ours.temporal)
    sd15.share_temporal(constant, ours)
    networks = {
        "ours": ours,
        "image_model": lambda *inputs: sd15.frame_by_frame(image, *inputs),
        "constant_length": constant,
    }
    try:
        theirs = reference_lumiere.wrap(image, size, sd15.HEADS, sd15.DEPTH)
        for blocks in (theirs.convs, theirs.attns):
            sd15.randomise_projections(blocks)
        networks["lumiere_pytorch"] = theirs.to(device)
    except reference_lumiere.Unavailable:
        pass
    ours.to(device), constant.to(device)
    return networks
