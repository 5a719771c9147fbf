"""The oracle: says what a clip shows, so that it can be held against what its prompt asked for.

- Scene family: a small network trained on the world (families.py); an object whose outline fits a
  shape closely is of the shape family, whatever the network says.
- Colour: the object is found by its colour among those that rendered scenes with the same
  surroundings have (appearance.py, track.py).
- Shape: the object's outline against templates of the same area at any rotation (silhouette.py).
- Motion and direction: the track of the object's centre, area and rotation (motion.py); of clips that show only the
  beginning of a scene, by rates and pieces of waves (part.py, which `judge` does not use).
- Period: a fit on the first half of the clip, the phase at the end (periodic.py, gait.py).
- Flicker: change from frame to frame where the object never comes (flicker.py).

It is told the prompt's family and surroundings, never the colour, shape, motion or direction that are
asked for, and it answers "none" or "other" where a clip shows none of what the world has.
"""

from .families import WEIGHTS
from .judge import Verdict, judge
from .track import NONE

VERSION = 2  # counted up when a change of the rules may change an answer


def oracle_version() -> str:
    """The rules and the network that an answer came from."""
    from ...nets.checkpoint import sha256

    return f"{VERSION}-{sha256(WEIGHTS)[:8]}"


__all__ = ["NONE", "Verdict", "judge", "oracle_version"]
