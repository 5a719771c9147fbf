"""Noise of clips on the host: by frame number where a node of ours draws it, with its common part where the host does."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable

import comfy.samplers
import torch
from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler
from torch import Tensor

from ...lumiere_core.clips.video import clip_count
from ...lumiere_core.diffusion.noise import COMMON, frame_noise, frame_seed, mix_noise
from .keys import OWN_NOISE

# These draw their noise from one random path over all noise levels, not step by step.
BROWNIAN = ("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde")


class ClipNoise:
    """All noise of one run: that of a frame depends on the seed, the step and the frame's number only.

    Args:
        seed: of the first clip; clip k has seed + k.
        clips, frames: of the batch, clip-major.
        numbers: of the frames whose noise each frame of a clip gets; None = its own.
        share: of the variance, what all frames of a clip have in common.
    """

    def __init__(
        self, seed: int, clips: int, frames: int, numbers: list[int] | None = None, share: float = 0.0
    ) -> None:
        self.seeds, self.numbers = [seed + k for k in range(clips)], numbers or list(range(frames))
        self.share = share

    def at_step(self, shape: torch.Size, step: int) -> Tensor:
        """Return (clips * frames, c, h, w) noise on the CPU; step 0 is the initial noise."""
        size = tuple(shape[1:])
        return torch.cat([frame_noise(s, self.numbers, size, step, self.share) for s in self.seeds])

    def initial(self, samples: Tensor) -> Tensor:
        """Return the noise that the run starts from."""
        return self.at_step(samples.shape, 0)

    def sampler(self, name: str) -> comfy.samplers.KSAMPLER:
        """Return a sampler of the host that adds this noise, if it adds any."""
        sampler = comfy.samplers.sampler_object(name)
        function = sampler.sampler_function
        source = self._path if name.removesuffix("_gpu") in BROWNIAN else self._steps
        if "noise_sampler" in inspect.signature(function).parameters:

            @functools.wraps(function)
            def with_clip_noise(model, x, sigmas, **kwargs):
                return function(model, x, sigmas, noise_sampler=source(x, sigmas), **kwargs)

            sampler.sampler_function = with_clip_noise
        return sampler

    def _steps(self, x: Tensor, sigmas: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """New noise at every call; a sampler calls in the same order whatever the clip's length."""
        steps = itertools.count(1)
        return lambda sigma, following: self.at_step(x.shape, next(steps)).to(x)

    def _path(self, x: Tensor, sigmas: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """One random path for each frame, over all noise levels, and one for what a clip's frames have in common."""
        seeds = [frame_seed(s, frame, 1) for s in self.seeds for frame in self.numbers]
        low, high = sigmas[sigmas > 0].min(), sigmas.max()
        own = BrownianTreeNoiseSampler(x, low, high, seed=seeds, cpu=True)
        if not self.share:
            return own
        frames = len(self.numbers)
        seeds = [frame_seed(s, COMMON, 1) for s in self.seeds]
        common = BrownianTreeNoiseSampler(x[::frames], low, high, seed=seeds, cpu=True)
        return lambda *sigma: mix_noise(own(*sigma), common(*sigma).repeat_interleave(frames, 0), self.share)


class ShareNoise:
    """OUTER_SAMPLE: give the host's noise the common part that the temporal layers were trained with.

    The host draws noise for every frame of the batch; its samplers and masks then use what is made of it here.

    Args:
        frames_per_clip: 0 = the whole batch is one clip.
        share: `TemporalConfig.shared_noise`.
    """

    def __init__(self, frames_per_clip: int, share: float) -> None:
        self.frames_per_clip, self.share = frames_per_clip, share

    def __call__(
        self,
        executor,
        noise: Tensor,
        latent_image,
        sampler,
        sigmas,
        denoise_mask=None,
        callback=None,
        disable_pbar=False,
        seed=None,
        **kwargs,
    ):
        options = executor.class_obj.model_options.get("transformer_options", {})
        frames = self.frames_per_clip or noise.shape[0]
        # Without noise (add_noise: disable) the latent brings what an earlier sampler left.
        if self.share and frames > 1 and not options.get(OWN_NOISE) and noise.any():
            clips = clip_count(noise.shape[0], frames)
            common = ClipNoise(seed or 0, clips, frames, [COMMON] * frames).initial(noise)
            noise = mix_noise(noise, common.to(noise), self.share)
        return executor(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed, **kwargs)
