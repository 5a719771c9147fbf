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

# Settings and mixes of weights are chosen on the first, figures are reported on the second: no prompt is in both.
SPLITS = ("tuning", "reporting")


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


def mini_cases(split: str) -> list[Case]:
    """144 prompts of the world's held-out split, static camera, half of them shapes.

    Args:
        split: one of SPLITS. Families with few held-out combinations have the same ones in both, in other words and
            with other seeds.

    Raises:
        ValueError: another split.
    """
    if split not in SPLITS:
        raise ValueError(f"the split is {split!r}; one of {SPLITS} is wanted.")
    prompts: set[str] = set()
    cases = [_case(index, *entry, prompts) for index, entry in enumerate(_combinations())]
    half = len(cases) // 2
    return cases[:half] if split == SPLITS[0] else cases[half:]


def _combinations() -> list[tuple[str, dict[str, str]]]:
    """Choose the (family, attributes) of both splits, one after the other, each with the same counts."""
    counts = {"shape": MINI_SHAPES} | dict.fromkeys((name for name in FAMILIES if name != "shape"), 0)
    counts["walking figure"] = MINI_WALKERS
    rest = [name for name in counts if name not in ("shape", "walking figure")]
    for index in range(MINI_OTHERS - MINI_WALKERS):
        counts[rest[index % len(rest)]] += 1
    chosen = {name: _balanced(name, 2 * count) for name, count in counts.items()}
    return [
        entry
        for second in (False, True)
        for name, count in counts.items()
        for entry in (chosen[name][count:] if second else chosen[name][:count])
    ]


def _case(index: int, family: str, attributes: dict[str, str], prompts: set[str]) -> Case:
    """Phrase the attributes in a way that no other case has, where there is one left."""
    said = Scene(family, "", attributes, parameters={}, seed=0)
    wordings = (recaption(said, hash_text(f"wording {index} {n}")) for n in range(40))
    readable = [text for text in wordings if _reads(text, family, attributes)]
    prompt = next((text for text in readable if text not in prompts), readable[0])
    prompts.add(prompt)
    digest = hash_text(f"{index}|{prompt}")
    return Case(f"{index:03d}-{digest % 16**6:06x}", prompt, digest % 2**31, 1000 + index)


def reworded(scene: Scene, changes: dict[str, str]) -> str:
    """Return a caption of a scene with other attributes, that is read back as it was written.

    Raises:
        ValueError: no wording is.
    """
    changed = Scene(scene.family, "", scene.attributes | changes, parameters={}, seed=0)
    for wording in range(40):
        text = recaption(changed, wording)
        if _reads(text, scene.family, changes):
            return text
    raise ValueError(f"no wording of {changes} is read back as it was written.")


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
