"""How far two sets of clips are from each other, by the features of a network that the user supplies."""

from .report import SetReport, compare_sets
from .statistics import frechet_distance, inception_score, kernel_distance

__all__ = ["SetReport", "compare_sets", "frechet_distance", "inception_score", "kernel_distance"]
