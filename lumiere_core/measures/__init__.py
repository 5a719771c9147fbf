"""What can be said of any clip of any model: no model of ours is needed.

A clip is walked through once, frame by frame (`walk`), and every `Measure` sees each frame with its neighbours, so that
memory does not grow with the clip. `measure_clip` is the way in; `measures.sets` compares sets of clips.
Frames are (h, w, 3), uint8 or float in [0, 1]; figures are in levels of 255 unless they say otherwise.
"""

from .clip import EVERY, Report, measure_clip
from .figure import Figure, Measure
from .walk import Step, walk

__all__ = ["EVERY", "Figure", "Measure", "Report", "Step", "measure_clip", "walk"]
