"""Noise of clips on the host: by frame number where a node of ours draws it, with its common part where the host does."""

from __future__ import annotations

import contextvars
import copy
import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from operator import itemgetter

import comfy.model_patcher
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
        rows: (seed of its clip, frame number) whose noise each row of the batch gets.
        share: of the variance, what all frames of a clip have in common.
    """

    def __init__(self, rows: list[tuple[int, int]], share: float = 0.0) -> None:
        self.rows, self.share = rows, share

    @classmethod
    def of_clips(cls, seed: int, clips: int, frames: int, numbers: list[int] | None = None) -> ClipNoise:
        """Return the noise of whole clips, clip after clip; clip k has seed + k.

        Args:
            numbers: of the frames whose noise each frame of a clip gets; None = its own.
        """
        numbers = numbers or list(range(frames))
        return cls([(seed + k, number) for k in range(clips) for number in numbers])

    @classmethod
    def of_rows(cls, seed: int, numbers: Sequence[int], count: int, frames: int, share: float = 0.0) -> ClipNoise:
        """Return the noise of rows of a batch, such as those that Latent From Batch took.

        Args:
            seed: of the batch's first clip.
            numbers: of the rows in the batch that they were in (`batch_index` of a LATENT).
            count: rows that are sampled. frames: of a clip; all of them are one clip if there is no more than one.

        Raises:
            ValueError: there is not one number for each row.
        """
        if len(numbers) != count:
            raise ValueError(
                f"the latent says of {len(numbers)} frames where they are in their batch (batch_index), and has {count}. "
                "Another node changed its frames: encode them anew, or take them with Latent From Batch."
            )
        if frames == count:
            return cls([(seed, number) for number in numbers], share)
        return cls([(seed + number // frames, number % frames) for number in numbers], share)

    def at_step(self, shape: torch.Size, step: int) -> Tensor:
        """Return (rows, c, h, w) noise on the CPU; step 0 is the initial noise."""
        size = tuple(shape[1:])
        clips = itertools.groupby(self.rows, key=itemgetter(0))
        return torch.cat(
            [
                frame_noise(seed, [number for _, number in rows], size, step=step, share=self.share)
                for seed, rows in clips
            ]
        )

    def initial(self, samples: Tensor) -> Tensor:
        """Return the noise that the run starts from. (n, c, h, w), as the samples."""
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
        seeds = [frame_seed(seed, number, 1) for seed, number in self.rows]
        low, high = sigmas[sigmas > 0].min(), sigmas.max()
        own = BrownianTreeNoiseSampler(x, low, high, seed=seeds, cpu=True)
        if not self.share:
            return own
        clips = sorted({seed for seed, _ in self.rows})
        of_row = torch.tensor([clips.index(seed) for seed, _ in self.rows])
        seeds = [frame_seed(seed, COMMON, 1) for seed in clips]
        common = BrownianTreeNoiseSampler(x[: len(clips)], low, high, seed=seeds, cpu=True)
        return lambda *sigma: mix_noise(own(*sigma), common(*sigma)[of_row.to(x.device)], self.share)


class SharingNoise:
    """Mixed into a MODEL's `model_sampling`: Add Noise, which has no run, gets the common part too.

    That node asks for the scaled noise by itself; its seed is not known here, so the common part is drawn by a seed from
    the first frame's noise. In a run the noise has its common part already (`ShareNoise`).
    """

    lumiere_frames, lumiere_share = 0, 0.0  # frames of a clip, 0 = all; `TemporalConfig.shared_noise`

    def noise_scaling(self, sigma, noise: Tensor, latent_image, *args, **kwargs) -> Tensor:
        """Return the noised (n, c, h, w) samples, with the common part in the noise of a clip's frames."""
        frames = self.lumiere_frames or len(noise)
        if self.lumiere_share and not _in_run.get() and frames > 1 and noise.ndim == 4 and noise.any():
            noise = with_common(noise, int(noise[0].double().sum().mul(1 << 40)), frames, self.lumiere_share)
        return super().noise_scaling(sigma, noise, latent_image, *args, **kwargs)


_in_run: contextvars.ContextVar[bool] = contextvars.ContextVar("lumiere_in_run", default=False)


def share_added_noise(model: comfy.model_patcher.ModelPatcher, frames_per_clip: int, share: float) -> None:
    """Let noise that is added before a run (Add Noise) have the frames' common part."""
    sampling = copy.copy(model.get_model_object("model_sampling"))
    kind = type(sampling)
    if not share and not issubclass(kind, SharingNoise):
        return
    if not issubclass(kind, SharingNoise):
        sampling.__class__ = type(kind.__name__, (SharingNoise, kind), {})
    sampling.lumiere_frames, sampling.lumiere_share = frames_per_clip, share
    model.add_object_patch("model_sampling", sampling)


def with_common(noise: Tensor, seed: int, frames: int, share: float) -> Tensor:
    """Return a batch's noise (clips * frames, c, h, w) with `share` of its variance common to the frames of a clip."""
    clips = clip_count(noise.shape[0], frames)
    common = ClipNoise.of_clips(seed, clips, frames, [COMMON] * frames).initial(noise)
    return mix_noise(noise, common.to(noise), share)


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
            noise = with_common(noise, seed or 0, frames, self.share)
        token = _in_run.set(True)
        try:
            return executor(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed, **kwargs)
        finally:
            _in_run.reset(token)
