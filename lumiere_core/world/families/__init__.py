"""All scene families, by name."""

from . import creatures, nature, shapes, sky, things
from .base import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        shapes.FAMILY,
        *sky.FAMILIES,
        *nature.FAMILIES,
        *creatures.FAMILIES,
        *things.FAMILIES,
    )
}

__all__ = ["FAMILIES", "Family"]
