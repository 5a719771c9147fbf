"""Classifier-free guidance at strong noise only, for every sampler of the host."""

from __future__ import annotations

import comfy.model_patcher
import comfy.samplers
from torch import Tensor


def end_guidance(model: comfy.model_patcher.ModelPatcher, end: float) -> comfy.model_patcher.ModelPatcher:
    """Return a clone of a MODEL for which cfg counts as 1 at weak noise; the negative prompt is then not computed.

    See `lumiere_core.diffusion.guidance.guidance_ends`, which ends guidance at the same sigma.

    Args:
        end: share of the noise levels, from the strongest on, with guidance; 1 = all, and the MODEL stays as it is.
    """
    if end >= 1:
        return model
    model = model.clone()
    before = model.model_options.get("sampler_calc_cond_batch_function", _estimates)

    def estimates(args: dict) -> list[Tensor]:
        # A node behind this one may have changed the noise levels.
        ends = args["model"].model_sampling.percent_to_sigma(end)
        if args["sigma"].max() > ends:
            return before(args)
        # Patches that work on the negative prompt's rows (Self-Attention Guidance) turn this off, and get them.
        both = args["model_options"].get("disable_cfg1_optimization", False)
        cond = before(args if both else args | {"conds": [args["conds"][0], None]})[0]
        return [cond, cond]

    model.set_model_sampler_calc_cond_batch_function(estimates)
    return model


def _estimates(args: dict) -> list[Tensor]:
    return comfy.samplers.calc_cond_batch(
        args["model"], args["conds"], args["input"], timestep=args["sigma"], model_options=args["model_options"]
    )
