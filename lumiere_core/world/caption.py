"""From attributes to a caption and back."""

from __future__ import annotations

import re
from functools import cache

from .dice import Dice, hash_text
from .families import FAMILIES, Family
from .families.base import Attributes

NONE = "none"


def write_caption(family: Family, attributes: Attributes, dice: Dice) -> str:
    """Say the attributes that are not "none" in one of the family's ways."""
    template = dice.choice(family.templates)

    def say(match: re.Match) -> str:
        slot = match.group(1)
        value = attributes.get(slot.split(".")[0], NONE)
        if value == NONE:
            return ""
        return dice.choice(family.phrases[slot][value])

    return _tidy(re.sub(r"\{([a-z.]+)\}", say, template))


def _tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip(" ,")
    text = re.sub(r"\s+,", ",", text)
    text = re.sub(r",(\s*,)+", ",", text)
    return re.sub(r"\ba (?=[aeio])", "an ", text)


@cache
def _matchers(family: str) -> tuple[tuple[str, tuple[tuple[re.Pattern, str], ...]], ...]:
    """For each attribute, patterns with the value that they mean, the longest first."""
    found = []
    entry = FAMILIES[family]
    for name in entry.attributes:
        pairs = [
            (phrase, value, synonym)
            for tables, synonym in ((entry.phrases, 0), (entry.synonyms, 1))
            for slot, table in tables.items()
            if slot.split(".")[0] == name
            for value, phrases in table.items()
            for phrase in phrases
            if phrase
        ]
        pairs.sort(key=lambda pair: (pair[2], -len(pair[0])))
        found.append((name, tuple((_pattern(phrase), value) for phrase, value, _ in pairs)))
    return tuple(found)


def _pattern(phrase: str) -> re.Pattern:
    words = _tidy(phrase.strip(" ,"))
    return re.compile(rf"(?<!\w){re.escape(words)}(?!\w)")


def find_family(caption: str) -> Family:
    """The family whose keyword comes first in the caption; the shape family otherwise."""
    text = caption.lower()
    others = [family for family in FAMILIES.values() if family.name != "shape"]
    return (
        _first(text, [(family, family.keywords) for family in others])
        or _first(text, [(FAMILIES["shape"], FAMILIES["shape"].keywords)])
        or _first(text, [(family, family.weak_keywords) for family in others])
        or FAMILIES["shape"]
    )


def _first(text: str, entries: list[tuple[Family, tuple[str, ...]]]) -> Family | None:
    best: tuple[int, int] | None = None
    found = None
    for family, keywords in entries:
        for keyword in keywords:
            match = re.search(rf"(?<!\w){keyword}(?!\w)", text)
            if match and (best is None or (match.start(), -len(keyword)) < best):
                best, found = (match.start(), -len(keyword)), family
    return found


def read_caption(caption: str) -> tuple[Family, Attributes]:
    """Find the family and the attributes that a caption names; the others are the defaults."""
    family = find_family(caption)
    text = _tidy(caption.lower().rstrip(". "))
    attributes: Attributes = {}
    for name, matchers in _matchers(family.name):
        attributes[name] = family.defaults.get(name, NONE)
        for pattern, value in matchers:
            match = pattern.search(text)
            if match:
                attributes[name] = value
                # A word counts once: the red of "a red background" is not the object's.
                text = text[: match.start()] + " ~ " + text[match.end() :]
                break
    return family, attributes


def caption_dice(seed: int) -> Dice:
    return Dice(seed, hash_text("caption"))
