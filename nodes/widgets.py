"""The widgets of a sampler, which every node has that samples: the same order, names and ranges."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from .host import sampling


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
