"""The paper's scale, on paper: `python tests/benchmarks/scale.py` counts it on the meta device and writes docs/scale.md.

Nothing is run at this size. Networks are core's, in the shapes that are published for Imagen (arXiv 2205.11487); Lumiere
does not say which of its models it inflates. The counts lie in scale.json beside this file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COUNTS, PAGE = Path(__file__).with_suffix(".json"), ROOT / "docs" / "scale.md"

CLIPS, FRAMES, SIDE, LARGE, WINDOW = 30_000_000, 80, 128, 1024, 16  # the paper's, but for the window: it gives none
PEAK = 989.4e12  # FLOP/s of an H100 SXM in dense bfloat16, by its data sheet
FORWARD, TRAINING = 0.50, 0.40  # shares of it: the bars of `make gpu`, not measured yet
CARD = 80e9  # bytes of such a card
CARDS, DEGREES = (8, 64, 256, 1024), (1, 8, 64, 256)
STEPS, SSR_STEPS = 256, 32  # of sampling; examples, the paper gives none
TOKENS, TEXT = 128, 4096  # text states of T5-XXL
RESULTS = ROOT / "tests" / "gpu" / "results.json"


def networks() -> dict:
    """Return name to (configuration, height and width in pixels, frames counted)."""
    from lumiere_core.nets.config import UNetConfig

    imagen = {
        "model_channels": 512,
        "channel_mult": (1, 2, 3, 4),
        "num_res_blocks": (3, 3, 3, 3),
        "transformer_depth": (0,) * 3 + (1,) * 9,
        "transformer_depth_output": (0,) * 4 + (1,) * 12,
        "context_dim": TEXT,
        "num_head_channels": 64,
        "use_scale_shift_norm": True,
        "adm_in_channels": TEXT,
    }
    efficient = {
        "in_channels": 6,
        "out_channels": 3,
        "model_channels": 128,
        "channel_mult": (1, 2, 4, 8),
        "num_res_blocks": (2, 4, 8, 8),
        "transformer_depth": (0,) * 21 + (1,),
        "transformer_depth_output": (0,) * 25 + (1,),
        "context_dim": TEXT,
        "num_head_channels": 64,
        "use_scale_shift_norm": True,
        "adm_in_channels": TEXT,
        "disable_self_attn": True,
    }
    return {
        "base, 2x2 pixels a place": (UNetConfig(patch_size=2, **imagen), SIDE, FRAMES),
        "base, a pixel a place": (UNetConfig(**imagen), SIDE, FRAMES),
        "SSR": (UNetConfig(**efficient), LARGE, WINDOW),
    }


def count(config, side: int, frames: int) -> dict[str, float]:
    """Return parameters, and FLOPs and activations of one clip, forward and with the backward pass of the temporal layers."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from lumiere_core.nets.config import TemporalConfig
    from lumiere_core.nets.stunet import SpaceTimeUNet
    from lumiere_core.nets.temporal import TemporalLayers
    from lumiere_core.nets.unet import UNet
    from lumiere_core.training.memory import activation_bytes

    with torch.device("meta"):
        unet = UNet(config).requires_grad_(False)
        layers = TemporalLayers(config, TemporalConfig(condition_channels=256))
        network = SpaceTimeUNet(unet, layers)
        inputs = (
            torch.randn(1, config.in_channels, frames, side, side),
            torch.full((1,), 500.0),
            torch.randn(1, TOKENS, TEXT),
            torch.randn(1, TEXT),
        )
        with FlopCounterMode(display=False) as forward, torch.no_grad():
            network(*inputs)
        with FlopCounterMode(display=False) as training:
            network(*inputs).sum().backward()
    shape = (config.in_channels, frames, side, side)
    return {
        "frozen": sum(p.numel() for p in unet.parameters()),
        "temporal": sum(p.numel() for p in layers.parameters()),
        "forward": forward.get_total_flops(),
        "training": training.get_total_flops(),
        "activations": activation_bytes(config, layers, shape, (TOKENS, TEXT), 1, True) / 2,  # of bfloat16
    }


def page(counts: dict[str, dict[str, float]]) -> str:
    """Return docs/scale.md for the counts of `networks`."""
    lines = [
        "# The paper's scale, on paper",
        "",
        "Written by `python tests/benchmarks/scale.py`; a test holds this page to it. **Nothing here was run**: networks of the sizes "
        "published for Imagen (a base of 512 channels, an Efficient U-Net for super-resolution) are counted on the meta device, with "
        "core's temporal layers. Lumiere does not say which image model it inflates, nor its batch, steps or hardware.",
        "",
        f"Times are for an H100 SXM ({PEAK / 1e12:.0f} TFLOP/s in bfloat16 by its data sheet) at {FORWARD:.0%} of it forward and "
        f"{TRAINING:.0%} in training: the bars of `make gpu PLAN=bench`, **{measured()}**.",
        "",
        "## Networks",
        "",
        "| network | input | frozen | temporal | forward | training | activations |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    shapes = networks()
    for name, mine in counts.items():
        _, side, frames = shapes[name]
        lines.append(
            f"| {name} | {side}x{side}x{frames} | {mine['frozen'] / 1e9:.2f} G | {mine['temporal'] / 1e9:.2f} G | "
            f"{mine['forward'] / 1e12:,.0f} TFLOP | {mine['training'] / 1e12:,.0f} TFLOP | {mine['activations'] / 2**30:,.0f} GiB |"
        )
    lines += [
        "",
        "Training is forward, and backward to the temporal layers alone, of one clip or window; activations are those of bfloat16 with "
        "`--checkpointing`. FLOPs count a multiplication and an addition as two. Imagen's own base has 2 G parameters, its last SSR 0.4 G: "
        "core's U-Net of these widths has more, in its text attention and its decoder.",
        "",
        f"## Training on {CLIPS / 1e6:.0f} million clips, each seen once",
        "",
        "| network | samples | GPU-hours | " + " | ".join(f"days on {n}" for n in CARDS) + " |",
        "| --- | --- | --- |" + " --- |" * len(CARDS),
    ]
    for name, mine in counts.items():
        hours = CLIPS * mine["training"] / (PEAK * TRAINING) / 3600
        days = " | ".join(f"{hours / 24 / n:,.1f}" for n in CARDS)
        what = "clips" if name.startswith("base") else f"windows of {WINDOW} whole frames"
        lines.append(f"| {name} | {CLIPS / 1e6:.0f} M {what} | {hours:,.0f} | {days} |")
    lines += [
        "",
        "The SSR's row is the worst case: crops of 256x256 pixels, as its image model was trained on, cost a sixteenth.",
        "",
        "## Memory of a card by the number of cards that share the weights (`--strategy fsdp`)",
        "",
        "Frozen weights in bfloat16 (2 bytes each) and trained ones with gradient, EMA, and Adam's two averages in float32 (20 bytes "
        "each), spread evenly; one clip's activations on each card. Gathered layers and buffers come on top.",
        "",
        "| network | "
        + " | ".join(f"{n} card{'s' if n > 1 else ''}" for n in DEGREES)
        + f" | fits {CARD / 1e9:.0f} GB |",
        "| --- |" + " --- |" * (len(DEGREES) + 1),
    ]
    for name, mine in counts.items():
        sizes = [held(mine, degree) for degree in DEGREES]
        fits = [degree for degree, size in zip(DEGREES, sizes, strict=True) if size < CARD]
        lines.append(
            f"| {name} | "
            + " | ".join(f"{size / 1e9:,.0f} GB" for size in sizes)
            + f" | {fit(fits, mine['activations'])} |"
        )
    lines += ["", "## Data", "", *data(counts), "", "## Checkpoints", "", *checkpoints(counts), "", "## Sampling", ""]
    base, ssr = counts["base, 2x2 pixels a place"], counts["SSR"]
    windows = -(-(FRAMES - 2) // (WINDOW - 2))
    one = STEPS * 2 * base["forward"] / (PEAK * FORWARD)
    large = SSR_STEPS * windows * ssr["forward"] / (PEAK * FORWARD)
    lines += [
        f"A clip of {FRAMES} frames: {STEPS} steps with guidance (two evaluations each) of the base with 2x2 pixels a place take "
        f"{one / 60:,.1f} minutes of a card, {SSR_STEPS} steps of the SSR in {windows} windows of {WINDOW} frames {large / 60:,.1f}. "
        "The numbers of steps are examples.",
        "",
        "## What runs as it stands",
        "",
        *stands(),
    ]
    return "\n".join(lines) + "\n"


def measured() -> str:
    """Return whether the shares were measured."""
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    return "not measured: no plan was run on a GPU" if rows[0][1] == "not run on a GPU" else rows[0][1]


def held(mine: dict[str, float], degree: int) -> float:
    """Return the bytes on a card: weights over the degree, and one clip's activations."""
    return (2 * mine["frozen"] + 20 * mine["temporal"]) / degree + mine["activations"]


def fit(degrees: list[int], activations: float) -> str:
    """Return from how many cards on it fits."""
    if degrees:
        return f"from {degrees[0]}" if degrees[0] > 1 else "on one"
    return f"no: activations alone are {activations / 1e9:,.0f} GB"


def data(counts: dict[str, dict[str, float]]) -> list[str]:
    """Return the lines on storage and how fast it is read."""
    pixels = FRAMES * SIDE**2 * 3
    kinds = {
        f"{SIDE}x{SIDE} pixels as they are, 8 bits": pixels,
        f"latents of {SIDE}x{SIDE} pixels (4 channels, an eighth of the size, float16)": FRAMES
        * 4
        * (SIDE // 8) ** 2
        * 2,
        "latents of 512x512 pixels": FRAMES * 4 * 64**2 * 2,
        f"text states, {TOKENS} of T5-XXL in float16": TOKENS * TEXT * 2,
    }
    rate = CARDS[2] * PEAK * TRAINING / counts["base, 2x2 pixels a place"]["training"]
    lines = [
        f"The cache of `prepare` holds latents and text states; `--shards` writes tar files. Clips of {FRAMES} frames, "
        f"{CLIPS / 1e6:.0f} million of them; read by {CARDS[2]} cards that train the base with 2x2 pixels a place "
        f"({rate:,.0f} clips a second):",
        "",
        "| kind | a clip | all | read rate |",
        "| --- | --- | --- | --- |",
    ]
    for name, size in kinds.items():
        lines.append(
            f"| {name} | {size / 1e6:,.2f} MB | {size * CLIPS / 1e12:,.1f} TB | {size * rate / 1e9:,.2f} GB/s |"
        )
    return lines


def checkpoints(counts: dict[str, dict[str, float]]) -> list[str]:
    """Return the lines on saved states and exported weights."""
    lines = ["| network | state (weights, EMA and Adam's averages, float32) | exported temporal layers, float16 |"]
    lines.append("| --- | --- | --- |")
    for name, mine in counts.items():
        lines.append(f"| {name} | {16 * mine['temporal'] / 1e9:,.1f} GB | {2 * mine['temporal'] / 1e9:,.1f} GB |")
    return lines


def stands() -> list[str]:
    """Return what of it the trainer does today."""
    return [
        "- `torchrun --nproc-per-node N -m lumiere_core train … --strategy fsdp` spreads frozen and trained weights, gradients and "
        "optimiser over all processes; `tests/core/training/test_parallel.py` runs it with two processes at small size.",
        "- A saved state is gathered to one process and written as one file. At the sizes above that takes the memory of the whole "
        "state there; sharded checkpoints are not written.",
        "- One clip must fit a card: frames and pixels are not spread over cards.",
        "- FSDP takes AdamW, not Muon, which needs whole matrices.",
        "- Captions' states come from the cache; a T5-XXL is not loaded while training.",
        "- 30 million captioned clips: not there. The cascade's image models: not there.",
    ]


def main() -> int:
    sys.path.insert(0, str(ROOT))
    counts = {name: count(*shape) for name, shape in networks().items()}
    COUNTS.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(counts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
