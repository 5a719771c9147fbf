"""All scene families, by name."""

from . import creatures, fire, plants, shapes, sky, things, weather
from .base import Family

# Seeds choose by position: append, so that a seed keeps its scene.
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        shapes.FAMILY,
        fire.FIREWORKS,
        sky.SUNRISE,
        sky.MOONRISE,
        sky.SHOOTING_STAR,
        sky.EARTH,
        fire.CAMPFIRE,
        weather.SNOWFALL,
        weather.RAIN,
        plants.FLOWERS,
        creatures.WALKER,
        creatures.HORSE,
        creatures.TURTLE,
        things.BOAT,
        things.FLAG,
        things.CAR,
    )
}

__all__ = ["FAMILIES", "Family"]
