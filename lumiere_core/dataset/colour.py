"""High dynamic range to what screens show: PQ and HLG frames (ITU-R BT.2100) as 8-bit colours of BT.709.

White of 203 nits (BT.2408's reference) becomes 255; what is brighter is clipped. The result is for a display with the
gamma 2.4 of BT.1886.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

WHITE = 203.0  # nits
PEAK, SYSTEM_GAMMA = 1000.0, 1.2  # of the display that HLG is defined on, nits
PQ, HLG = 16, 18  # AVColorTransferCharacteristic
TRANSFERS = {PQ: "PQ", HLG: "HLG"}
FULL_RANGE = 2  # AVColorRange
KR, KG, KB = 0.2627, 0.6780, 0.0593  # luminance of BT.2020's primaries
# Linear BT.2020 to linear BT.709 (BT.2087).
TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
STEPS = 1 << 16  # of the tables


def tone_mapped(frame: Any, transfer: int) -> np.ndarray:
    """Return the (h, w, 3) uint8 picture of a PyAV frame in PQ or HLG."""
    linear = _table(transfer)[np.clip(_coded_rgb(frame) * (STEPS - 1), 0, STEPS - 1).astype(np.uint16)]
    if transfer == HLG:
        luminance = linear @ np.array([KR, KG, KB], np.float32)
        linear *= np.maximum(luminance, 1e-6)[..., None] ** np.float32(SYSTEM_GAMMA - 1)
        linear *= PEAK / WHITE
    linear = np.clip(linear @ TO_709.T, 0, 1)
    return _shown()[(linear * (STEPS - 1)).astype(np.uint16)]


def _coded_rgb(frame: Any) -> np.ndarray:
    """Return (h, w, 3) float32 coded colours in [0, 1]; RGB as it is, YCbCr by BT.2020's matrix."""
    if frame.format.is_rgb:
        return frame.to_ndarray(format="rgb48le").astype(np.float32) / 65535
    full = frame.color_range == FULL_RANGE
    planes = frame.reformat(format="yuv444p16le").planes
    values = [
        np.frombuffer(plane, np.uint16).reshape(plane.height, -1)[:, : plane.width].astype(np.float32) / 256
        for plane in planes
    ]
    y = values[0] / 255 if full else (values[0] - 16) / 219
    cb, cr = ((value - 128) / (255 if full else 224) for value in values[1:])
    red, blue = y + 2 * (1 - KR) * cr, y + 2 * (1 - KB) * cb
    return np.stack([red, (y - KR * red - KB * blue) / KG, blue], axis=-1)


@functools.cache
def _table(transfer: int) -> np.ndarray:
    """Coded value to light: of PQ over WHITE, of HLG scene light in [0, 1]."""
    x = np.linspace(0, 1, STEPS)
    if transfer == PQ:
        power = x ** (32 / 2523)
        light = (np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)
        return (light * 10_000 / WHITE).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(x <= 0.5, x**2 / 3, (np.exp((x - c) / a) + b) / 12).astype(np.float32)


@functools.cache
def _shown() -> np.ndarray:
    """Light in [0, 1] to 8 bits."""
    return (np.linspace(0, 1, STEPS) ** (1 / 2.4) * 255).round().astype(np.uint8)
