"""Whether a periodic motion keeps its period: a fit on the first half, the phase at the end.

t - frames. A signal is one number a frame: the height of a bouncing ball, the place of a pendulum's
bob, how far a walker's feet are apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

HARMONICS = 2  # a bounce is no sine
HALF = 0.5  # share of the variance that the fit must explain in each half
LOST = 0.5  # phase error in periods of a signal that has no period (or loses it)


@dataclass(frozen=True)
class Fit:
    """Least squares of a line and two harmonics."""

    frequency: float  # periods a frame
    explained: float  # share of the variance left by the line alone
    phase: float  # of the fundamental at frame 0 of the signal, in periods
    amplitude: float  # of the fundamental


def _fit(signal: np.ndarray, frequency: float, harmonics: int) -> tuple[float, np.ndarray]:
    """Explained share of the variance and coefficients (level, slope, cos 1, sin 1, cos 2, …)."""
    time = np.arange(len(signal), dtype=float)
    columns = [np.ones_like(time), time - time.mean()]
    for harmonic in range(1, harmonics + 1):
        turn = 2 * math.pi * harmonic * frequency * time
        columns += [np.cos(turn), np.sin(turn)]
    table = np.stack(columns, 1)
    line = table[:, :2]
    plain = signal - line @ np.linalg.lstsq(line, signal, rcond=None)[0]
    coefficients = np.linalg.lstsq(table, signal, rcond=None)[0]
    rest = signal - table @ coefficients
    total = float((plain**2).sum())
    return (1.0 - float((rest**2).sum()) / total if total > 1e-12 else 0.0), coefficients


def fit_period(signal: np.ndarray, slowest: float, fastest: float, harmonics: int = HARMONICS) -> Fit | None:
    """Find the best period of a signal.

    Args:
        slowest, fastest: periods in 80 frames (5 s), the ends of the search.

    Returns:
        None for a constant signal.
    """
    candidates = np.geomspace(slowest, fastest, 60) / 80
    scores = np.array([_fit(signal, frequency, harmonics)[0] for frequency in candidates])
    # With harmonics a signal is also explained at half its frequency: take the highest good peak.
    padded = np.pad(scores, 1, constant_values=-1.0)
    peaks = (scores >= padded[:-2]) & (scores >= padded[2:]) & (scores >= scores.max() - 0.05)
    best = int(np.flatnonzero(peaks)[-1])
    low, high = candidates[max(0, best - 1)], candidates[min(len(candidates) - 1, best + 1)]
    finer = np.linspace(low, high, 21)
    winner = finer[int(np.argmax([_fit(signal, frequency, harmonics)[0] for frequency in finer]))]
    explained, coefficients = _fit(signal, winner, harmonics)
    if explained <= 0.0:
        return None
    cosine, sine = coefficients[2:4]
    phase = math.atan2(-sine, cosine) / (2 * math.pi)  # of cos(2 pi (f t + phase))
    return Fit(float(winner), explained, phase, math.hypot(cosine, sine))


def phase_error(signal: np.ndarray, slowest: float, fastest: float, regular: float = 0.8, swing: float = 0.0) -> float:
    """Drift of the phase at the end against the period of the first half, in periods, 0 to LOST.

    The phase is followed from window to window, each a period and a half long, so that a drift of a
    whole period does not pass for none. A clip or a half without a regular oscillation counts as LOST,
    and so does one whose swing dies down to a quarter.

    Args:
        slowest, fastest: see `fit_period`.
        regular: share of the variance that one sine over the whole clip must explain. Half a clip
            alone proves nothing: five jumps in 40 frames pass for a period.
        swing: least amplitude of that sine, in units of the signal.
    """
    whole = fit_period(signal, slowest, fastest, harmonics=1)
    if whole is None or whole.explained < regular or whole.amplitude < swing:
        return LOST
    half = len(signal) // 2
    first = fit_period(signal[:half], slowest, fastest)
    if first is None or first.explained < HALF:
        return LOST
    second = fit_period(signal[half:], slowest, fastest)
    if second is None or second.explained < HALF or second.amplitude < first.amplitude / 4:
        return LOST
    length = min(half, math.ceil(1.5 / first.frequency))
    starts = np.unique(np.linspace(0, len(signal) - length, 25).round().astype(int))
    phases = []
    for start in starts:
        _, coefficients = _fit(signal[start : start + length], first.frequency, 1)
        phase = math.atan2(-coefficients[3], coefficients[2]) / (2 * math.pi)
        phases.append(phase - first.frequency * start)  # constant while the period is kept
    phases = np.unwrap(np.array(phases), period=1.0)
    early = phases[starts + length <= half]
    known = early.mean() if len(early) else phases[0]
    return float(min(LOST, abs(phases[-1] - known)))
