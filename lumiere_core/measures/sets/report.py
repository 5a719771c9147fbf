"""Two sets of clips side by side: every distance, with all that its number depends on.

n - clips, f - features.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .statistics import SPLITS, frechet_distance, inception_score, kernel_distance, kernel_interval

ENOUGH = 2048  # clips, under which a Fréchet distance says more of their number than of the clips


@dataclass
class ClipSet:
    """The features of a set of clips, and what is known of its files.

    Attributes:
        features: (n, f).
        sizes, rates, codecs: how many clips have which.
        skipped: files that could not be used, and why.
    """

    name: str
    features: Tensor
    sizes: Counter[str] = field(default_factory=Counter)
    rates: Counter[str] = field(default_factory=Counter)
    codecs: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)

    def line(self) -> str:
        parts = [f"n = {len(self.features)}"]
        for name, counted in (("size", self.sizes), ("fps", self.rates), ("codec", self.codecs)):
            most = ", ".join(f"{key} ({count})" if len(counted) > 1 else key for key, count in counted.most_common(4))
            parts.append(f"{name} {most}" + (f" and {len(counted) - 4} more" if len(counted) > 4 else ""))
        return f"{self.name}: " + "; ".join(parts)


@dataclass(frozen=True)
class SetReport:
    """Distances of a set from the real one.

    Attributes:
        how: what the features are of: network, weights' SHA-256, frames, rate, resizing.
        values: figures by name; those that could not be had are missing.
        warnings: what keeps the figures from being compared.
    """

    real: ClipSet
    made: ClipSet
    how: dict[str, str]
    values: dict[str, float]
    warnings: tuple[str, ...]

    def table(self) -> str:
        """Return everything as lines of text: no figure without what it depends on."""
        value = self.values
        lines = [self.real.line(), self.made.line(), *(f"{name}: {text}" for name, text in self.how.items()), ""]
        lines.append(f"Fréchet distance           {value['frechet']:12.4f}   0 = equal; lower is nearer")
        if "half_frechet" in value:
            lines.append(
                f"  real set, half to half   {value['half_frechet']:12.4f}   what equal sets of half the size have"
            )
        bounds = f"95 % interval {value['kernel_low']:.5g} to {value['kernel_high']:.5g}"
        lines.append(f"kernel distance (unbiased) {value['kernel']:12.5g}   {bounds}")
        if "half_kernel" in value:
            lines.append(f"  real set, half to half   {value['half_kernel']:12.5g}")
        if "inception" in value:
            lines.append(
                f"Inception Score            {value['inception']:12.4f}   ± {value['inception_std']:.4f}, {SPLITS} parts"
            )
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines)


def compare_sets(
    real: ClipSet, made: ClipSet, how: dict[str, str], *, correction: int = 1, classes: bool = False, seed: int = 0
) -> SetReport:
    """Measure how far a set is from the real one.

    Args:
        how: what the features are of, for the table.
        correction: see `frechet_distance`.
        classes: the features are logits: the Inception Score of the made set is given too.
        seed: of the halves and of the bootstrap.

    Raises:
        ValueError: a set of fewer than two clips, or features of different networks.
    """
    values = {
        "frechet": frechet_distance(real.features, made.features, correction),
        "kernel": kernel_distance(real.features, made.features),
    }
    values["kernel_low"], values["kernel_high"] = kernel_interval(real.features, made.features, seed=seed)
    count = len(real.features)
    if count >= 4:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        one, other = real.features[order[: count // 2]], real.features[order[count // 2 :]]
        values["half_frechet"] = frechet_distance(one, other, correction)
        values["half_kernel"] = kernel_distance(one, other)
    if classes and len(made.features) >= SPLITS:
        values["inception"], values["inception_std"] = inception_score(made.features)
    how = {**how, "covariance": f"divided by n - {correction}" if correction else "divided by n"}
    return SetReport(real, made, how, values=values, warnings=tuple(_warnings(real, made)))


def _warnings(real: ClipSet, made: ClipSet) -> list[str]:
    found = []
    few = min(len(real.features), len(made.features))
    if few < ENOUGH:
        found.append(
            f"{few} clips are fewer than {ENOUGH}: the Fréchet distance is too large by far, and to be compared only "
            "with others of as many clips. The kernel distance has no such bias."
        )
    if len(real.features) != len(made.features):
        found.append("the sets differ in size, and so does the bias that each brings to the Fréchet distance.")
    for what, of in (("frame sizes", "sizes"), ("frame rates", "rates"), ("codecs", "codecs")):
        if set(getattr(real, of)) != set(getattr(made, of)):
            found.append(f"the sets differ in {what}; part of the distance is of that.")
    for part in (real, made):
        if part.skipped:
            name, reason = next(iter(part.skipped.items()))
            found.append(f"{len(part.skipped)} files of {part.name} were left out, such as {name}: {reason}")
    return found
