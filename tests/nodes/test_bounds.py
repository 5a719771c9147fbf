"""What no memory holds is refused within a moment, by every node that makes a clip of a size that a widget says."""

import pytest
import torch

pytestmark = pytest.mark.host

LARGEST = {"width": 4096, "height": 4096, "length": 4096}
BOX = '{"shapes": [{"kind": "box", "keys": [{"frame": 0, "x": 0.5, "y": 0.5, "w": 0.5, "h": 0.5}]}]}'
BUILT = {"resize": "crop", "grow": 0, "feather": 0}
RED = {"prompt": "a red ball", "seed": 0, "fps": 16.0}


def inpaint(source_fps):
    given = {"images": torch.zeros(80, 16, 16, 3), "region": torch.zeros(1, 16, 16)}
    return {"task": "inpaint", **given, "source_fps": source_fps, "fps": 1000.0}


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("LumiereWorldClip", RED),
        ("LumiereRegion", {"region": BOX}),
        ("LumiereConditionBuilder", {"task": inpaint(0.0), **BUILT}),
        ("EmptyLumiereLatentVideo", {"batch_size": 64}),
    ],
)
def test_the_largest_clip_of_the_widgets(host, node, inputs):
    with pytest.raises(ValueError, match="frames of 4096x4096 pixels need about .* GiB.*Lower length"):
        host.call(node, **inputs, **LARGEST)


@pytest.mark.parametrize("rate", [1e-300, 0.01])
def test_a_rate_that_makes_clips_without_an_end(host, rate):
    with pytest.raises(ValueError, match="80 frames at .* become .* at 1000; at most 65,536 are taken"):
        host.call("LumiereConditionBuilder", task=inpaint(rate), width=16, height=16, length=4, **BUILT)


def test_prompts_without_an_end(host, studio):
    with pytest.raises(ValueError, match="the prompts have 120,000 characters together; at most 100,000"):
        prompts = "\n".join(f"{number:05d}: red" for number in range(10_909))[:120_000].ljust(120_000, "x")
        host.call(
            "LumierePromptTravel",
            model=studio.model,
            clip=studio.clip,
            prompts=prompts,
            length=8,
            fps=16.0,
            interpolation="linear",
        )
