"""Distances between sets of feature vectors, in float64.

n, m - clips of a set, f - features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 1024  # rows of a kernel matrix that are held at a time
SPLITS = 10  # parts of the Inception Score


@dataclass
class Moments:
    """Mean and covariance of vectors that arrive in pieces (Chan et al. 1983)."""

    count: int = 0
    mean: Tensor | None = None
    scatter: Tensor | None = None  # sum of outer products of the deviations

    def add(self, features: Tensor) -> Moments:
        """Take in (n, f) vectors."""
        features = checked(features)
        count, mean = len(features), features.mean(0)
        scatter = (features - mean).T @ (features - mean)
        if self.count:
            gap = mean - self.mean
            total = self.count + count
            scatter = scatter + self.scatter + torch.outer(gap, gap) * (self.count * count / total)
            mean = self.mean + gap * (count / total)
        self.count, self.mean, self.scatter = self.count + count, mean, scatter
        return self

    def covariance(self, correction: int = 1) -> Tensor:
        """Return the (d, d) covariance, divided by n - correction."""
        return self.scatter / (self.count - correction)


def frechet_distance(first: Tensor | Moments, second: Tensor | Moments, correction: int = 1) -> float:
    """Return the Fréchet distance of two Gaussians (Dowson and Landau 1982; FID, Heusel et al. 2017; FVD,
    Unterthiner et al. 2018), 0 = equal; biased upwards for few clips, hugely below some 2,000.

    The square root of the product is taken by eigenvalues of symmetric matrices: no `sqrtm`, no complex remainders.

    Args:
        first, second: (n, f) features, at least two of them, or their moments.
        correction: 1 divides the covariance by n - 1 (TensorFlow GAN, torch-fidelity), 0 by n (StyleGAN-V, cd-fvd).

    Raises:
        ValueError: fewer than two clips, no numbers, or features of different networks.
    """
    first, second = (part if isinstance(part, Moments) else Moments().add(part) for part in (first, second))
    if min(first.count, second.count) < 2:
        raise ValueError(
            f"the sets have {first.count} and {second.count} clips; a distance between sets needs at least 2 of each."
        )
    _same_width(first.mean, second.mean)
    one, other = first.covariance(correction), second.covariance(correction)
    values, vectors = torch.linalg.eigh(one)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    return float((first.mean - second.mean).square().sum() + one.trace() + other.trace() - 2 * cross)


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """Return the squared maximum mean discrepancy with the kernel (x·y / f + 1)³, unbiased (KID, Bińkowski et al. 2018;
    of video features KVD): about 0 for sets of one distribution, whatever their size; it may be below 0.

    Args:
        first, second: (n, f) and (m, f).
    """
    ones = torch.ones(1, len(first)), torch.ones(1, len(second))
    return float(_weighted(first, second, *ones)[0])


def kernel_interval(
    first: Tensor, second: Tensor, share: float = 0.95, draws: int = 200, seed: int = 0
) -> tuple[float, float]:
    """Return a percentile bootstrap interval of `kernel_distance`: clips are drawn again with replacement.

    Features are (n, d).

    A clip that was drawn twice is not compared with itself, or the distance would be biased; a draw that is nothing but one
    clip, as every second one of two clips is, says nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = [
        torch.stack([torch.bincount(torch.randint(n, (n,), generator=generator), minlength=n) for _ in range(draws)])
        for n in (len(first), len(second))
    ]
    told = torch.stack([drawn.amax(1) < drawn.sum(1) for drawn in weights]).all(0)
    found = _weighted(first, second, *(drawn[told] for drawn in weights))
    ends = torch.tensor([(1 - share) / 2, (1 + share) / 2], dtype=found.dtype)
    low, high = found.quantile(ends).tolist()
    return low, high


def inception_score(logits: Tensor, splits: int = SPLITS) -> tuple[float, float]:
    """Return mean and standard deviation over parts of the Inception Score (Salimans et al. 2016), 1 … classes.

    Args:
        logits: (n, classes), in any order that is not sorted by class.
        splits: parts; the same clips score lower in more parts.
    """
    logits = checked(logits)
    if len(logits) < splits:
        raise ValueError(f"{len(logits)} clips cannot be parted into {splits}; ask for fewer parts.")
    scores = []
    for index in range(splits):
        part = logits[index * len(logits) // splits : (index + 1) * len(logits) // splits]
        chance, log = part.softmax(1), part.log_softmax(1)
        mean = log.logsumexp(0) - math.log(len(part))  # in logarithms, where a chance may be 0
        scores.append((chance * (log - mean)).sum(1).mean().exp())
    stacked = torch.stack(scores)
    return float(stacked.mean()), float(stacked.std(correction=0))


def checked(features: Tensor) -> Tensor:
    """(n, f) in float64.

    Raises:
        ValueError: other shapes, or values that are no numbers.
    """
    if features.ndim != 2:
        raise ValueError(f"the features have shape {tuple(features.shape)}; (clips, features) is wanted.")
    if not bool(torch.isfinite(features).all()):
        wrong = int((~torch.isfinite(features).all(1)).nonzero()[0])
        raise ValueError(f"the features of clip {wrong} are no numbers (NaN or infinity).")
    return features.double()


def _weighted(first: Tensor, second: Tensor, ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the unbiased distances (b,) under weights of the clips, (b, n) and (b, m)."""
    first, second = checked(first), checked(second)
    _same_width(first[0], second[0])
    if min(len(first), len(second)) < 2:
        raise ValueError(f"the sets have {len(first)} and {len(second)} clips; at least 2 of each are wanted.")
    ours, theirs = ours.double(), theirs.double()
    cross = _sum(first, second, ours, theirs) / (ours.sum(1) * theirs.sum(1))
    return _within(first, ours) + _within(second, theirs) - 2 * cross


def _within(features: Tensor, weights: Tensor) -> Tensor:
    """Mean of the kernel over pairs of different clips."""
    alone = (features.square().sum(1) / features.shape[1] + 1) ** 3
    pairs = _sum(features, features, weights, weights) - weights.square() @ alone
    return pairs / (weights.sum(1).square() - weights.square().sum(1))


def _sum(first: Tensor, second: Tensor, ours: Tensor, theirs: Tensor) -> Tensor:
    """Sum of weight · kernel · weight, some rows of the kernel matrix at a time."""
    total = torch.zeros(len(ours), dtype=torch.float64)
    for start in range(0, len(first), ROWS):
        rows = slice(start, start + ROWS)
        kernel = (first[rows] @ second.T / first.shape[1] + 1) ** 3
        total += (ours[:, rows] * (theirs @ kernel.T)).sum(1)
    return total


def _same_width(one: Tensor, other: Tensor) -> None:
    if one.shape != other.shape:
        raise ValueError(
            f"the sets have {one.numel()} and {other.numel()} features a clip: they are not of one network."
        )
