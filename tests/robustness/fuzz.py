"""Random inputs for every node of the pack, from its schema, and what became of each run.

A run is *fine* (outputs), *clear* (an error that the pack raises with a sentence) or *unclear* (any other exception).
Widgets stay in the range that the host enforces; tensors do not: no frames, one channel, odd sizes, NaN, half numbers.
Models are very small and steps few, so that hundreds run in a minute.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch

# Widgets whose largest value would take minutes: (least, most) instead of the schema's.
SMALL = {
    **dict.fromkeys(("width", "height"), (16, 48)),
    **dict.fromkeys(("length", "num_frames", "frames", "batch_size", "frames_per_clip"), (1, 9)),
    **dict.fromkeys(("steps", "pieces", "rank", "batch"), (1, 2)),
    **dict.fromkeys(("grow", "feather", "reach"), (-6, 6)),
    "context_length": (2, 9),
    "context_overlap": (0, 5),
    "size": (16, 32),
    # Some of the host's own samplers fail with larger ones, under KSampler too.
    **dict.fromkeys(("seed", "noise_seed"), (0, 2**63 - 1)),
}
# What needs files that only a user can bring.
LEFT_OUT = {"LumiereMeasureSets", "LumiereLoadMotionLoRA"}
WORDS = (
    "a red ball",
    "",
    "a boat at sea, (sunset:1.3)",
    "☃ \u2028 𝔘𝔫𝔦",
    "x" * 5000,
    "0, 4, -1",
    "1\n2",
    "../../x",
    "(((",
    "nan",
    "[" * 100_000,
    "9" * 400 + ": a",
    '{"shapes": [{"kind": "box", "keys": [{"frame": 1e999, "x": 0, "y": 0, "w": 1, "h": 1}]}]}',
)
CLEAR = (ValueError, OSError, FloatingPointError)


class Tally:
    """What became of the runs so far."""

    def __init__(self) -> None:
        self.runs: Counter = Counter()
        self.unclear: dict[str, str] = {}  # node and error -> one traceback
        self.changed: list[str] = []  # inputs that a node wrote into
        self.slow: list[str] = []  # longer than SLOW seconds


SLOW = 20.0
RARE = {"LumiereTrainTemporal": 5}  # seconds each: run in one of so many rounds


class Fuzzer:
    """Makes inputs from a seed and runs nodes of a booted host on them."""

    def __init__(self, host: Any, studio: Any, ssr: Any, seed: int) -> None:
        self.host, self.studio, self.ssr, self.random = host, studio, ssr, random.Random(seed)
        self.nodes = sorted(n for n in host.nodes_by_id if "Lumiere" in n and n not in LEFT_OUT)
        self.pack = Path(host.pack.__file__).resolve().parent
        self.tally = Tally()
        self.usual, self.node = (4, 16, 16), ""  # frames, height and width of the run's clip

    def run(self, count: int, seconds: float = float("inf")) -> Tally:
        """Run `count` nodes, one after the other, or as many as fit into the time."""
        end = time.monotonic() + seconds
        turn = 0
        while sum(self.tally.runs.values()) < count and time.monotonic() < end:
            round_, place = divmod(turn, len(self.nodes))
            turn += 1
            if round_ % RARE.get(self.nodes[place], 1) == 0:
                self.once(self.nodes[place])
        return self.tally

    def once(self, node: str) -> str:
        """Run a node on new inputs; returns what became of it."""
        self.usual, self.node = self._shape(), node
        kind = self.host.nodes_by_id[node]
        inputs = self._inputs(kind.INPUT_TYPES())
        if getattr(kind, "INPUT_IS_LIST", False):
            inputs = {name: [value] for name, value in inputs.items()}
        before, began = _hashes(inputs), time.monotonic()
        try:
            self.host.call(node, **inputs)
            outcome = "fine"
        except Exception as error:
            sentence = isinstance(error, CLEAR) and self._is_ours(error) and len(str(error)) > 20
            outcome = "clear" if sentence else "unclear"
            if not sentence:
                place = traceback.format_exc().strip().splitlines()
                self.tally.unclear.setdefault(f"{node}: {place[-1][:160]}", "\n".join([_words(inputs), *place[-24:]]))
        if _hashes(inputs) != before:
            self.tally.changed.append(f"{node}: {_words(inputs)}")
        if time.monotonic() - began > SLOW:
            self.tally.slow.append(f"{node} ({time.monotonic() - began:.0f} s): {_words(inputs)}")
        self.tally.runs[outcome] += 1
        return outcome

    def _is_ours(self, error: Exception) -> bool:
        """Whether the error comes from a `raise` of the pack: its innermost frame lies in the pack's folder."""
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return self.pack in Path(frame.filename).resolve().parents

    def _inputs(self, types: dict) -> dict[str, Any]:
        chosen = {}
        for kind in ("required", "optional"):
            for name, (what, *options) in types.get(kind, {}).items():
                if kind == "optional" and self.random.random() < 0.5:
                    continue
                value = self._value(name, what, options[0] if options else {})
                if value is not None:
                    chosen[name] = value
        return chosen

    def _value(self, name: str, what: Any, options: dict) -> Any:
        if isinstance(what, list) or what == "COMBO":
            entries = what if isinstance(what, list) else options["options"]
            return self.random.choice(entries)
        if what == "COMFY_DYNAMICCOMBO_V3":
            option = self.random.choice(options["options"])
            return {name: option["key"], **self._inputs(option["inputs"])}
        what = self.random.choice(what.split(","))  # of an input that takes several types
        maker = getattr(self, f"_{what.lower()}", None)
        return maker(name, options) if maker else None

    def _int(self, name: str, options: dict) -> int:
        least, most = SMALL.get(name, (options.get("min", 0), options.get("max", 1 << 31)))
        least, most = max(least, options.get("min", least)), min(most, options.get("max", most))
        step = options.get("step", 1)
        value = self.random.choice([least, most, self.random.randint(least, most), self.random.randint(least, most)])
        return max(least, value - (value - least) % step) if name not in ("seed", "noise_seed") else value

    def _float(self, name: str, options: dict) -> float:
        least, most = options.get("min", 0.0), options.get("max", 100.0)
        return self.random.choice([least, most, options.get("default", least), self.random.uniform(least, most)])

    def _boolean(self, *_: Any) -> bool:
        return self.random.random() < 0.5

    def _string(self, name: str, options: dict) -> str:
        return self.random.choice([options.get("default", ""), *WORDS])

    def _shape(self) -> tuple[int, int, int]:
        pick = self.random.choice
        return pick((0, 1, 2, 4, 5, 8)), pick((1, 7, 16, 16, 16, 16, 24)), pick((1, 9, 16, 16, 16, 16, 24))

    def _usual(self) -> tuple[int, int, int]:
        """Four of five tensors of a run are of one clip, so that more than the first check is reached."""
        return self.usual if self.random.random() < 0.8 else self._shape()

    def _tensor(self, *shape: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.random.getrandbits(32))
        value = torch.rand(shape, generator=generator)
        fault = self.random.random()
        if fault < 0.04 and value.numel():
            value.view(-1)[0] = float("nan")
        return value.half() if 0.04 < fault < 0.08 else value

    def _image(self, *_: Any) -> torch.Tensor:
        return self._tensor(*self._usual(), self.random.choice((3, 3, 3, 3, 3, 4, 1)))

    def _mask(self, *_: Any) -> torch.Tensor:
        return self._tensor(*self._usual()).round()

    def _latent(self, *_: Any) -> dict[str, Any]:
        frames, height, width = self._usual()
        latent = {"samples": self._tensor(frames, self.random.choice((3, 3, 3, 3, 3, 4)), height, width)}
        if self.random.random() < 0.2:
            latent["noise_mask"] = self._tensor(frames, 1, height, width).round()
        return latent

    def _model(self, *_: Any) -> Any:
        fitting = self.node == "LumiereSuperResolution" and self.random.random() < 0.8
        return (self.ssr if fitting else self.studio.model).clone()

    def _clip(self, *_: Any) -> Any:
        return self.studio.clip

    def _vae(self, *_: Any) -> Any:
        return self.studio.vae

    def _conditioning(self, *_: Any) -> list:
        pick = (self.studio.positive,) * 4 + (self.studio.negative,) * 4 + ([],)
        return self.random.choice(pick)

    def _video(self, *_: Any) -> Any:
        from fractions import Fraction

        from comfy_api.latest import InputImpl, Types

        images = self._tensor(*self._usual(), self.random.choice((3, 3, 4)))
        rate = Fraction(self.random.choice((1, 16, 30)))
        return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=rate))


def _tensors(value: Any):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _hashes(inputs: dict[str, Any]) -> list[tuple]:
    """Shapes and content of every tensor among the inputs, and the keys of every dictionary."""
    found: list[tuple] = [
        (
            tuple(t.shape),
            t.dtype,
            hashlib.sha256(t.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()).digest(),
        )
        for t in _tensors(inputs)
    ]
    return [*found, *((name, tuple(value)) for name, value in inputs.items() if isinstance(value, dict))]


def _words(inputs: dict[str, Any]) -> str:
    """Return the inputs in one line."""
    words = []
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor):
            value = f"{tuple(value.shape)} {value.dtype}".replace("torch.", "")
        elif isinstance(value, dict) and "samples" in value:
            value = f"latent {tuple(value['samples'].shape)}"
        words.append(f"{name}={str(value)[:60]}")
    return ", ".join(words)


@contextlib.contextmanager
def watched(*folders: Path):
    """Yield a list that holds, after the block, every file of these folders that was made, changed or removed in it."""

    def state() -> dict[str, tuple[int, int]]:
        files = [f for folder in folders for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
        return {str(f): (f.stat().st_size, f.stat().st_mtime_ns) for f in files}

    before, touched = state(), []
    yield touched
    after = state()
    touched.extend(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)))
