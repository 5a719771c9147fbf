"""Scenes: sampling from a seed, the held-out split, and reading a caption as a scene."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

from .caption import NONE, caption_dice, read_caption, write_caption
from .dice import Dice, hash_text
from .families import FAMILIES, Family
from .families.base import Attributes

SPLITS = ("train", "held_out", "all")
HELD_OUT_SHARE = 8  # one combination in this many is held out
SHAPE_SHARE = 0.5  # share of the scenes that are of the shape family


@dataclass(frozen=True)
class Scene:
    """One clip's worth of world: what it shows, how it is called and the numbers that draw it."""

    family: str
    caption: str
    attributes: dict[str, str]  # what the caption names; what it leaves open is "none"
    parameters: dict[str, float]
    seed: int


def attribute_labels() -> dict[str, tuple[str, ...]]:
    """Every attribute with all its values, "none" first; `Scene.attributes` has all these names."""
    labels: dict[str, dict[str, None]] = {"family": dict.fromkeys((NONE, *FAMILIES))}
    for family in FAMILIES.values():
        for name, values in family.attributes.items():
            labels.setdefault(name, {NONE: None}).update(dict.fromkeys(values))
    labels.setdefault("direction", {NONE: None}).update(dict.fromkeys(("left", "right", "up", "down")))
    return {name: tuple(values) for name, values in labels.items()}


def is_held_out(family: str, attributes: Attributes) -> bool:
    """Whether a combination of (colour, shape, motion, background), or of a family's own attributes,
    is kept out of training."""
    return _combination(FAMILIES[family], attributes) in _held_out(family)


def _combination(family: Family, attributes: Attributes) -> tuple[str, ...]:
    names = sorted(name for name in family.attributes if name not in family.unhashed)
    return tuple(attributes[name] for name in names)


@cache
def _held_out(family: str) -> frozenset[tuple[str, ...]]:
    """The eighth of a family's combinations with the smallest hashes: never empty."""
    entry = FAMILIES[family]
    names = sorted(name for name in entry.attributes if name not in entry.unhashed)
    neutral = {name: entry.defaults[name] for name in entry.unhashed}
    combinations = [
        values
        for values in product(*(entry.attributes[name] for name in names))
        if entry.allowed(neutral | dict(zip(names, values, strict=True)))
    ]
    combinations.sort(key=lambda values: hash_text("|".join((family, *values))))
    return frozenset(combinations[: max(1, len(combinations) // HELD_OUT_SHARE)])


def _roll(family: Family, dice: Dice, fixed: Attributes) -> Attributes:
    """Draw the attributes that are not fixed, in the family's order."""
    attributes = {}
    for name, values in family.attributes.items():
        if fixed.get(name, NONE) != NONE:
            attributes[name] = fixed[name]
            continue
        weights = family.weights.get(name, {})
        mark = dice.uniform(0.0, sum(weights.get(value, 1.0) for value in values))
        for value in values:
            mark -= weights.get(value, 1.0)
            if mark <= 0.0:
                break
        attributes[name] = value
    return attributes


def _named(family: Family, attributes: Attributes) -> Attributes:
    """All the names of `attribute_labels`, "none" where the scene says nothing."""
    named = {name: NONE for name in _label_names()} | attributes | {"family": family.name}
    if family.derived is not None and NONE not in attributes.values():
        named |= family.derived(attributes)
    elif family.derived is not None:
        named |= family.derived({name: attributes.get(name, NONE) for name in family.attributes})
    return named


@cache
def _label_names() -> tuple[str, ...]:
    return tuple(attribute_labels())


def sample_scene(seed: int, split: str = "train", family: str | None = None) -> Scene:
    """Draw the scene of a seed; half are of the shape family, the others share the rest evenly.

    Args:
        split: "train" never shows a held-out combination, "held_out" shows nothing else,
            "all" does not look.
        family: one of FAMILIES, or None for any.

    Raises:
        ValueError: the split or the family is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"got split {split!r}, want one of {', '.join(SPLITS)}")
    if family is not None and family not in FAMILIES:
        raise ValueError(f"got family {family!r}, want one of {', '.join(FAMILIES)}")
    dice = Dice(seed, hash_text("scene"))
    if family is None:
        others = [name for name in FAMILIES if name != "shape"]
        family = "shape" if dice.chance(SHAPE_SHARE) else dice.choice(others)
    entry = FAMILIES[family]
    while True:
        attributes = _roll(entry, dice, {})
        if not entry.allowed(attributes):
            continue
        if split == "all" or is_held_out(family, attributes) == (split == "held_out"):
            break
    said = dict(attributes)
    if split != "held_out":
        for name, chance in entry.optional.items():
            if dice.chance(chance):
                said[name] = NONE
    return Scene(
        family=family,
        caption=write_caption(entry, said, caption_dice(seed)),
        attributes=_named(entry, said),
        parameters=entry.parameters(attributes, dice),
        seed=seed,
    )


def scene_from_caption(caption: str, seed: int = 0) -> Scene:
    """Read a caption of the world's grammar as a scene; words it does not know are passed over.

    What the caption leaves open is drawn from the seed. A combination that the sampler would not
    choose, such as a green ball on grass, is drawn as it is asked for.
    """
    family, said = read_caption(caption)
    dice = Dice(seed, hash_text("scene from caption"))
    for _ in range(64):
        attributes = _roll(family, dice, said)
        if family.allowed(attributes):
            break
    return Scene(
        family=family.name,
        caption=caption,
        attributes=_named(family, said),
        parameters=family.parameters(attributes, dice),
        seed=seed,
    )


def recaption(scene: Scene, seed: int) -> str:
    """Say the same scene in another way; the seed chooses which."""
    return write_caption(FAMILIES[scene.family], scene.attributes, caption_dice(seed))
