"""The one objective: the error of a denoiser's answer on freshly noised data, whatever the source and the network."""

from __future__ import annotations

import torch
from torch import Tensor

from ..clips.framing import grown
from ..diffusion.denoiser import Denoiser
from ..diffusion.noise import mix_noise
from .batch import Batch
from .draws import FRESH, Draws
from .options import TrainOptions

# Noise levels (sigma) up to which errors near an object weigh more: the object can still be made out there. Above,
# the weight would follow what the network cannot know, and objects would be drawn where there are none.
OBJECTS_UNTIL = 3.0
LESS_SHARED = 0.2  # of the clips


def objective(denoiser: Denoiser, batch: Batch, options: TrainOptions, random: Draws) -> Tensor:
    """Return the (b,) losses of a batch's samples.

    The squared error of what the network predicts, weighted as the schedule says; for clips also of its changes from
    frame to frame and of how its frames differ from their mean, where the options ask for it.

    Args:
        random: of the batch's samples.
    """
    schedule, x0 = denoiser.schedule, batch.x0
    timestep = schedule.shifted(random.spread(), options.sigma_shift).to(x0.device)
    alone = random.uniform()[:, 0] < options.pure_noise
    timestep = timestep.where(~alone.to(x0.device), schedule.steps - 1)
    eps = training_noise(random, x0.shape[1:], denoiser.shared_noise, x0.device)
    if options.fresh_noise:
        draws = Draws(options.seed, batch.samples, FRESH)
        fresh = (draws.uniform() < options.fresh_noise).to(x0.device)
        eps = torch.where(fresh[:, :, None, None, None], draws.normal(x0.shape[1:], x0.device), eps)
    noised, target = schedule.training_pair(x0, eps, timestep)
    if alone.any():
        # The last level still shows a clip to who can average 80 frames; sampling starts without one
        # (Lin et al. 2024, "Common diffusion noise schedules and sample steps are flawed").
        noised[alone] = eps[alone]
    more = {**batch.more, "checkpointing": True} if options.checkpointing else batch.more
    off = denoiser.predict(noised, timestep, batch.text, batch.known, **more).float() - target
    error = off.square()
    if options.object_weight and batch.objects is not None:
        near = schedule.angle(timestep).tan() <= OBJECTS_UNTIL
        error = error * object_weights(batch.objects, near, options.object_weight)
    error = error.flatten(1).mean(dim=1)
    if off.shape[2] > 1:
        parts = (options.change_weight, off.diff(dim=2)), (options.motion_weight, off - off.mean(dim=2, keepdim=True))
        for weight, part in parts:
            if weight:
                error = error + weight * part.square().flatten(1).mean(dim=1)
    return error * schedule.loss_weight(timestep)


def object_weights(objects: Tensor, near: Tensor, weight: float) -> Tensor:
    """Return (b, 1, …, h, w) weights with a mean of 1 for each sample.

    An object covers a few percent of a picture, and a small model would learn its surroundings first.

    Args:
        objects: (b, 1, …, h, w) coverage in [0, 1]; an eighth of the height around it counts too.
        near: (b,) whether a sample is weighted at all.
        weight: of the region, over 1 elsewhere; 0 = none.
    """
    region = grown(objects, objects.shape[-2] // 8)
    weights = 1 + weight * region * near.reshape(-1, *([1] * (objects.ndim - 1)))
    return weights / weights.flatten(1).mean(dim=1).reshape(-1, *([1] * (objects.ndim - 1)))


def training_noise(random: Draws, shape: torch.Size, share: float, device: torch.device) -> Tensor:
    """Return (b, c, t, h, w) noise whose frames have the share of the variance in common; in some clips less.

    Less, because samplers that add noise of their own at each step lose the common part as they go.

    Args:
        shape: (c, t, h, w).
        share: `Denoiser.shared_noise`; at 1 all frames have the same noise.
    """
    frames = shape[1]
    if share == 1:
        return random.normal((shape[0], 1, *shape[2:]), device).expand(-1, -1, frames, -1, -1)
    own = random.normal(shape, device)
    if not share or frames == 1:
        return own
    common = random.normal((shape[0], 1, *shape[2:]), device)
    less, part = random.uniform(2).to(device).unbind(dim=1)
    return mix_noise(own, common, (share * torch.where(less < LESS_SHARED, part, 1.0)).reshape(-1, 1, 1, 1, 1))
