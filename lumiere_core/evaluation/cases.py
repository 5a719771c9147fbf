"""The held-out prompts that a model is measured on: the same list everywhere, from the world alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import product

from ..world import FAMILIES, Scene, is_held_out, recaption, scene_from_caption
from ..world.dice import hash_text

MINI_SHAPES = 72  # eight of each motion, nine of each colour, eighteen of each shape
MINI_OTHERS = 72  # shared evenly by the other families
MINI_WALKERS = 8  # as many as of each motion: their period is measured too


@dataclass(frozen=True)
class Case:
    """One prompt with the seeds that go with it."""

    id: str  # number and a hash of the rest: a changed case is another case
    prompt: str
    scene_seed: int  # of the real clip that the oracle compares with
    seed: int  # of the sample

    @property
    def scene(self) -> Scene:
        return scene_from_caption(self.prompt, self.scene_seed)


def mini_cases() -> list[Case]:
    """144 prompts of the world's held-out split, static camera, half of them shapes."""
    chosen = _balanced("shape", MINI_SHAPES)
    others = [name for name in FAMILIES if name != "shape"]
    counts = dict.fromkeys(others, 0)
    if "walking figure" in counts:
        counts["walking figure"] = MINI_WALKERS
    for index in range(MINI_OTHERS - sum(counts.values())):
        rest = [name for name in others if name != "walking figure"]
        counts[rest[index % len(rest)]] += 1
    for name, count in counts.items():
        chosen += _balanced(name, count)
    prompts: set[str] = set()
    return [_case(index, *entry, prompts) for index, entry in enumerate(chosen)]


def _case(index: int, family: str, attributes: dict[str, str], prompts: set[str]) -> Case:
    """Phrase the attributes in a way that no other case has, where there is one left."""
    said = Scene(family, "", attributes, {}, 0)
    wordings = (recaption(said, hash_text(f"wording {index} {n}")) for n in range(40))
    readable = [text for text in wordings if _reads(text, family, attributes)]
    prompt = next((text for text in readable if text not in prompts), readable[0])
    prompts.add(prompt)
    digest = hash_text(f"{index}|{prompt}")
    return Case(f"{index:03d}-{digest % 16**6:06x}", prompt, digest % 2**31, 1000 + index)


def _reads(text: str, family: str, attributes: dict[str, str]) -> bool:
    """Whether the caption is read back as what it was written from."""
    scene = scene_from_caption(text)
    return scene.family == family and all(scene.attributes[name] == value for name, value in attributes.items())


def _balanced(family: str, count: int) -> list[tuple[str, dict[str, str]]]:
    """Choose held-out combinations so that every value of every attribute comes as evenly as it can.

    Combinations are taken again where there are fewer than `count`.
    """
    entry = FAMILIES[family]
    names = list(entry.attributes)
    choices = entry.attributes | ({"camera": ("static",)} if _unsplit_camera(family) else {})
    pool = [
        attributes
        for values in product(*(choices[name] for name in names))
        if entry.allowed(attributes := dict(zip(names, values, strict=True))) and is_held_out(family, attributes)
    ]
    pool.sort(key=lambda attributes: hash_text("case|" + "|".join(attributes.values())))
    seen: Counter[tuple[str, str]] = Counter()
    taken: Counter[int] = Counter()
    chosen = []
    for _ in range(count):
        index = min(range(len(pool)), key=lambda i: (taken[i], _crowding(pool[i], seen, choices)))
        taken[index] += 1
        seen.update(pool[index].items())
        chosen.append((family, pool[index]))
    return chosen


def _crowding(attributes: dict[str, str], seen: Counter, choices) -> float:
    """How often the values were chosen already; an attribute with few values weighs as much as any."""
    return sum((seen[name, value] * len(choices[name])) ** 2 for name, value in attributes.items())


def _unsplit_camera(family: str) -> bool:
    return "camera" in FAMILIES[family].unhashed
