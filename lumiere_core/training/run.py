"""A stage that is ready to train: its source, what trains, its options, and what its samples look like."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion.denoiser import Denoiser
from ..diffusion.models import Models
from .batch import Batch
from .draws import LOSS, Draws
from .objective import objective
from .options import TrainOptions
from .parallel import joined, shared
from .parts import Part
from .precision import Lowered
from .prefetch import Ahead
from .sources.base import Source

Preview = Callable[[Path, int], None]


class Run:
    """Losses of the batches of a source, for the parameters of a part.

    Args:
        name: of the stage, as in `train NAME`.
        preview: writes samples into a folder for a step; called with the running means in the module.
        about: a line for the log; "" = nothing to say.

    Attributes:
        facts: metadata of the file beside the source's.
        frozen: hashes of weights files that are read and not trained.
    """

    def __init__(
        self,
        name: str,
        options: TrainOptions,
        source: Source,
        part: Part,
        preview: Preview = lambda folder, step: None,
        about: str = "",
    ) -> None:
        self.name, self.options, self.source, self.part = name, options, source, part
        self.preview, self.about = preview, about
        self.facts: dict[str, str] = {}
        self.frozen: dict[str, str] = {}
        self.network: nn.Module = part.network  # that processes share
        self.batches: Ahead[list[Batch]] = Ahead(self._draw, options.device)
        self._denoiser: Denoiser | None = None

    @property
    def module(self) -> nn.Module:
        """The module whose parameters train."""
        return self.part.module

    @property
    def data(self) -> dict[str, str]:
        """What names the data and the model in a state; it is resumed on the same only."""
        facts = self.source.facts() | self.frozen
        if self.part.models is not None:
            facts["architecture"] = _architecture(self.part.models)
        return {f"data.{k}": v for k, v in facts.items()}

    def share(self, strategy: str = "ddp") -> None:
        """Let the processes that torchrun started train the network together; see `parallel.shared`."""
        self.network = shared(self.network, strategy)

    def pieces(self, number: int) -> list[Callable[[], Tensor]]:
        """Return functions whose losses add up to the mean of a batch's; each is to be followed by a backward pass.

        Each is a scalar.
        """
        return [partial(self._piece, batch) for batch in self.batches(number)]

    def loss(self, number: int) -> Tensor:
        """Return the mean loss of a batch. A scalar."""
        return torch.stack([piece() for piece in self.pieces(number)]).sum()

    def losses(self, batch: Batch) -> Tensor:
        """Return the (b,) losses of samples."""
        return objective(self.denoiser, batch, self.options, Draws(self.options.seed, batch.samples, LOSS))

    @property
    def denoiser(self) -> Denoiser:
        """The network as it is called in training, in the precision that is asked for."""
        if self._denoiser is None:
            models, network = self.part.models, self.network
            # Processes that train together want to see their own network's call; autocast serves them.
            if self.options.precision == "bfloat16" and not joined():
                network = Lowered(network)
            self._denoiser = Denoiser(network, models.schedule, models.shared_noise)
        return self._denoiser

    def _piece(self, batch: Batch) -> Tensor:
        return self.losses(batch.used()).sum() / self.options.batch_size

    def _draw(self, numbers: Sequence[int]) -> list[list[Batch]]:
        found: dict[int, list[Batch]] = {number: [] for number in numbers}
        for batch in self.source.draw(numbers):
            found[batch.number].append(batch)
        return [found[number] for number in numbers]


def _architecture(models: Models) -> str:
    """Return a hash of what weights of the right shapes do not say: the schedule, and what else configurations hold."""
    configs = {"unet": models.unet.config, "temporal": models.temporal and models.temporal.config, "ssr": models.ssr}
    values = {name: config and config.to_dict() for name, config in configs.items()}
    text = json.dumps({**values, "schedule": models.schedule.to_dict()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class ReadingRun(Run):
    """The text encoder learns to tell what a caption says: every attribute of its scene, by name.

    Motion words, which say nothing about a still image, are kept apart this way too.
    """

    def losses(self, batch: Batch) -> Tensor:
        """Return (b,) cross-entropies, the mean over the attributes of a scene."""
        logits = self.network(batch.x0)
        parts = [F.cross_entropy(logits[name], target, reduction="none") for name, target in batch.more.items()]
        return torch.stack(parts).mean(dim=0)
