"""Which sources each stage can learn from, and what differs there from the defaults of `TrainOptions`."""

from __future__ import annotations

from typing import Any

_OWN_CLIPS = {
    "batch_size": 1,
    "learning_rate": 1e-4,
    "checkpointing": True,
    "stills": 0.1,
    "steps": 2000,
    "sample_every": 250,
    "save_every": 300.0,
    "num_frames": 0,
    "pure_noise": 0.1,
}
_STYLE = {"steps": 400, "batch_size": 8, "learning_rate": 4e-3, "warmup": 20, "ema_decay": 0.98, "decay_from": 0.4}
# The first source of a stage is the world's.
STAGES: dict[str, dict[str, dict[str, Any]]] = {
    "text": {"captions": {"learning_rate": 1e-3, "batch_size": 64, "steps": 3000}},
    "image": {"stills": {}},
    "details": {"stills": {"height": 128, "width": 128, "sigma_shift": 0.3}},
    "temporal": {"clips": {"batch_size": 2, "sigma_shift": 4.0}, "cached-clips": _OWN_CLIPS},
    "ssr": {
        "crops": {"num_frames": 1, "batch_size": 8, "learning_rate": 1e-3, "sigma_shift": 4.0},
        "cached-crops": {**_OWN_CLIPS, "height": 256, "width": 256, "pure_noise": 0.0},
    },
    "condition": {"clips": {"batch_size": 2, "sigma_shift": 4.0, "learning_rate": 1e-3}, "cached-clips": _OWN_CLIPS},
    "motion-lora": {
        "cached-clips-lora": {**_OWN_CLIPS, "steps": 500, "learning_rate": 5e-4, "warmup": 20, "ema_decay": 0.98}
    },
    "style": {
        "styled-stills": _STYLE,
        "pictures": _STYLE,
        "encoded-pictures": {
            **{"steps": 500, "batch_size": 1, "learning_rate": 1e-4, "warmup": 20},
            **{"ema_decay": 0.99, "height": 512, "width": 512},
        },
    },
}
