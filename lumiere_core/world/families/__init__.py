"""All scene families, by name."""

from . import nature, shapes, sky
from .base import Family

FAMILIES: dict[str, Family] = {
    family.name: family for family in (shapes.FAMILY, *sky.FAMILIES, *nature.FAMILIES)
}

__all__ = ["FAMILIES", "Family"]
