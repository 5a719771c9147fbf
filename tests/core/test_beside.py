"""Two clips on one picture."""

import numpy as np
import pytest

from lumiere_core.measures.beside import matched


def ramp(height, width):
    """(h, w, 3): brighter to the right."""
    return np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8)[None, :, None], (height, width, 3))


@pytest.mark.parametrize(("height", "width"), [(8, 32), (8, 4), (32, 8), (5, 17), (1, 4096), (4096, 1)])
def test_a_frame_is_brought_to_a_size_about_its_middle(height, width):
    """A line of pixels too, whose whole width at that height no memory holds."""
    found = matched(ramp(height, width), 16, 24)
    assert found.shape == (16, 24, 3)
    middle = found[8, 12].astype(int).mean()
    assert middle == pytest.approx(127, abs=45) or width == 1
    shown = found[8, :, 0][found[8, :, 0] > 0].astype(int)
    assert (np.diff(shown) >= 0).all()


def test_the_right_size_is_left_as_it_is():
    frame = ramp(16, 24)
    assert matched(frame, 16, 24) is frame
