"""Widgets that several nodes have: the same order, names and ranges."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from .host import sampling

LEVELS = 4  # of SD1.x and SD2.x, the most that a U-Net of the host has
UNSET = -1.0  # of a level's widget


def sampling_widgets(seed: str, steps: str, cfg: str, default_steps: int = 20, default_cfg: float = 3.0) -> list:
    """Return the inputs seed, steps, cfg, sampler_name and scheduler.

    Args:
        seed, steps, cfg: tooltips, which say what is the node's own.
    """
    return [
        io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip=seed),
        io.Int.Input("steps", default=default_steps, min=1, max=10000, tooltip=steps),
        io.Float.Input("cfg", default=default_cfg, min=0.0, max=100.0, step=0.1, round=0.01, tooltip=cfg),
        io.Combo.Input("sampler_name", options=sampling.SAMPLERS, default="euler"),
        io.Combo.Input("scheduler", options=sampling.SCHEDULERS, default="karras"),
    ]


def size_widgets(tooltip: str) -> list:
    """Return the inputs width and height in pixels."""
    return [io.Int.Input(name, default=64, min=16, max=4096, step=8, tooltip=tooltip) for name in ("width", "height")]


def fps_widget(tooltip: str, **more: Any) -> io.Float.Input:
    """Return the input fps, frames a second."""
    values = {"default": 16.0, "min": 0.1, "max": 1000.0, "step": 0.01, "round": 0.0001}
    return io.Float.Input("fps", **values, tooltip=tooltip, **more)


def frames_per_clip_widget(**more: Any) -> io.Int.Input:
    """Return the input frames_per_clip of nodes that make a MODEL of clips."""
    tooltip = "Frames of one clip in a batch of several. 0: the whole batch is one clip."
    return io.Int.Input("frames_per_clip", default=0, min=0, max=4096, tooltip=tooltip, **more)


def level_widgets(what: str, instead: str, most: float) -> list:
    """Return the inputs level_0, level_1, … of the levels of a U-Net; `level_values` reads them.

    Args:
        what: each sets; instead: what it is where it is not set.
    """
    return [
        io.Float.Input(
            f"level_{level}",
            default=UNSET,
            min=UNSET,
            max=most,
            step=0.01,
            optional=True,
            advanced=True,
            tooltip=f"{what} level {level} of the U-Net (0 is the finest); below 0: as {instead}.",
        )
        for level in range(LEVELS)
    ]


def level_values(given: dict[str, float]) -> list[float | None]:
    """Return the value of each level up to the last that is set; None = not set."""
    values = [given.get(f"level_{level}", UNSET) for level in range(LEVELS)]
    count = max((level + 1 for level, value in enumerate(values) if value >= 0), default=0)
    return [value if value >= 0 else None for value in values[:count]]
