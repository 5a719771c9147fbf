"""The conventions that the oracle relies on (palette, sizes, paths), measured on drawn clips."""

import pytest
import torch

from lumiere_core.world import COLOURS, FAMILIES, MOTIONS, Scene, colour_mask, render_clip, render_frames, sample_scene
from lumiere_core.world.families.shapes import SHAPES, place

DIRECTED = [name for name, family in FAMILIES.items() if "direction" in family.attributes]
SOLID = [
    "walking figure",
    "galloping horse",
    "swimming turtle",
    "sailing boat",
    "waving flag",
    "car",
    "rotating earth",
    "swaying flowers",
]


def shape_scenes(count: int, **wanted: str) -> list[Scene]:
    found, seed = [], 0
    while len(found) < count:
        scene = sample_scene(seed, "all", "shape")
        seed += 1
        if all(scene.attributes[name] == value for name, value in wanted.items()):
            found.append(scene)
    return found


def centres(masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre of each mask (t, h, w) as shares of the frame, x to the right and y upwards."""
    _, height, width = masks.shape
    total = masks.sum((1, 2))
    x = (masks.sum(1) * (torch.arange(width) + 0.5)).sum(1) / total / width
    y = 1.0 - (masks.sum(2) * (torch.arange(height) + 0.5)).sum(1) / total / height
    return x, y


@pytest.mark.parametrize("motion", [motion for motion in MOTIONS if motion.startswith("moving")])
@pytest.mark.parametrize("size", [(48, 48), (36, 64)])
def test_direction_words_move_a_shape(motion, size):
    for scene in shape_scenes(8, motion=motion):
        _, masks = render_clip(scene, 11, 2.0, *size, masks=True)
        x, y = centres(masks[0])
        across, up = (x[-1] - x[0]).item(), (y[-1] - y[0]).item()
        along, aside = (across, up) if motion.split()[1] in ("left", "right") else (up, across)
        sign = 1.0 if motion.split()[1] in ("right", "up") else -1.0
        assert 0.3 <= along * sign <= 0.7
        assert abs(aside) < 0.02
        area = masks.sum((0, 2, 3))
        assert area.min() >= 0.8 * area.max()


@pytest.mark.parametrize("family", DIRECTED)
def test_direction_words_move_a_family(family):
    for seed in range(6):
        scene = sample_scene(seed, "all", family)
        _, masks = render_clip(scene, 11, 2.0, 48, 48, masks=True)
        x, _ = centres(masks[0])
        moved = (x[-1] - x[0]).item() * scene.parameters["direction"]
        assert 0.3 <= moved <= 0.7, scene.caption
        # Limbs cross and sails dip, so the silhouette changes; leaving the frame would cost more.
        area = masks.sum((0, 2, 3))
        assert area.min() >= 0.6 * area.max(), scene.caption
        side = scene.attributes["direction"]
        assert side in ("none", "right" if scene.parameters["direction"] > 0 else "left")


@pytest.mark.parametrize("motion", ["bouncing", "swinging"])
def test_periods(motion):
    for scene in shape_scenes(8, motion=motion, camera="static"):
        assert 2.0 <= scene.parameters["periods"] <= 5.0
        _, masks = render_clip(scene, 100, 20.0, 32, 32, masks=True)
        x, y = centres(masks[0])
        path = y if motion == "bouncing" else x
        assert path.max() - path.min() > 0.15
        turns = (path.diff().sign().diff().abs() > 1).sum().item()
        # A period has two turning points; the clip may begin and end between them.
        assert 2 * 2 - 1 <= turns <= 2 * 5 + 1


@pytest.mark.parametrize(
    "family, motion, phase, periods",
    [
        ("shape", "bouncing", 0.5, 3.0),
        ("shape", "swinging", 0.25, 2.6),
        ("walking figure", None, 0.0, 4.8),
        ("galloping horse", None, 0.0, 7.2),
        ("waving flag", None, 0.0, 4.0),
    ],
)
def test_rhythms_have_a_usual_way_and_one_scene_in_ten_another(family, motion, phase, periods):
    scenes = [sample_scene(seed, "all", family) for seed in range(4000 if motion else 600)]
    scenes = [scene for scene in scenes if scene.attributes["motion"] == (motion or scene.attributes["motion"])]
    usual = [scene for scene in scenes if scene.parameters["phase"] == phase]
    assert 0.05 < 1 - len(usual) / len(scenes) < 0.15
    tempi = [scene.parameters["periods"] / periods for scene in usual]
    assert 0.979 < min(tempi) < 0.985 and 1.015 < max(tempi) < 1.021
    free = [scene.parameters["periods"] / periods for scene in scenes if scene not in usual]
    assert max(free) - min(free) > 0.15


def test_a_ball_is_dropped_a_pendulum_let_go_at_the_right_and_a_spin_goes_with_the_clock():
    scenes = {
        motion: shape_scenes(40, motion=motion, camera="static") for motion in ("bouncing", "swinging", "spinning")
    }
    for motion in ("bouncing", "swinging"):
        for scene in [s for s in scenes[motion] if s.parameters["phase"] in (0.5, 0.25)][:4]:
            _, masks = render_clip(scene, 80, 16.0, 32, 32, masks=True)
            x, y = centres(masks[0])
            path = y if motion == "bouncing" else x
            assert path[0] >= path.max() - 0.01
    turns = [scene.parameters["turns"] for scene in scenes["spinning"]]
    usual = [turn for turn in turns if abs(turn + 1.7) < 0.05]
    assert len(usual) >= 30 and len(usual) < 40


def test_only_a_spinning_shape_turns_and_only_a_growing_one_grows():
    for motion in ("spinning", "growing", "standing still"):
        for scene in shape_scenes(3, motion=motion, camera="static"):
            clip, masks = render_clip(scene, 6, 1.0, 32, 32, masks=True)
            area = masks.mean((0, 2, 3))
            growth = (area[5] / area[0]).item()
            assert (growth > 2.5) if motion == "growing" else (0.9 < growth < 1.1)
            inside = masks[0].amin(0) == 1.0
            change = (clip[:, 1] - clip[:, 0]).abs().amax(0)[inside].amax()
            if motion == "spinning":
                assert change > 0.2
            else:
                assert change < 1e-4


def test_shapes_cover_2_to_25_percent():
    scenes = [sample_scene(seed, "all", "shape") for seed in range(200)]
    for moment in (0.0, 2.5, 5.0):
        _, masks = render_frames(scenes, torch.full((200,), moment), 32, 32, masks=True)
        cover = masks.mean((1, 2, 3))
        assert cover.min() >= 0.02 and cover.max() <= 0.25


@pytest.mark.parametrize("family", SOLID)
def test_families_cover_2_to_25_percent(family):
    scenes = [sample_scene(seed, "all", family) for seed in range(24)]
    _, masks = render_frames(scenes, torch.linspace(0.0, 5.0, 24), 48, 48, masks=True)
    cover = masks.mean((1, 2, 3))
    assert cover.min() >= 0.02 and cover.max() <= 0.25


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_the_area_its_size_says(shape):
    scene = shape_scenes(1, shape=shape, motion="standing still", camera="static")[0]
    _, mask = render_clip(scene, 1, height=96, width=96, masks=True)
    expected = torch.pi * scene.parameters["size"] ** 2 / 4.0
    assert mask.mean().item() == pytest.approx(expected, rel=0.03)


def test_masks_are_exact():
    """Out of the mask a picture is its background, in it the object's own colours."""
    for scene in shape_scenes(12, motion="standing still"):
        hidden = {**scene.parameters, "size": 1e-4, "size_end": 1e-4}
        empty = Scene(scene.family, scene.caption, scene.attributes, hidden, scene.seed)
        image, mask = render_clip(scene, 1, masks=True)
        background = render_clip(empty, 1)
        outside = mask[0, 0] == 0.0
        place_of_dot = 16  # what is left of the object without size: a few pixels
        assert ((image - background).abs().amax(0)[0][outside] > 1e-5).sum() <= place_of_dot
        colour = torch.tensor([scene.parameters[f"colour_{c}"] for c in "rgb"])
        inside = mask[0, 0] == 1.0
        assert inside.any()
        assert (image[:, 0, inside] - colour[:, None]).abs().max() < 1e-5


def test_object_and_background_never_share_a_hue():
    scenes = shape_scenes(150, camera="static")
    times = torch.linspace(0.0, 5.0, 150)
    images, masks = render_frames(scenes, times, 32, 32, masks=True)
    for scene, image, mask in zip(scenes, images, masks, strict=True):
        colour = scene.attributes["colour"]
        seen = colour_mask(image[None], colour)[0]
        assert (seen & (mask[0] == 0.0)).float().mean() < 0.01, scene.caption
        if scene.attributes["motion"] != "spinning":
            assert seen[mask[0] > 0.99].float().mean() > 0.99, scene.caption


def test_colour_bands_do_not_meet():
    for name in COLOURS:
        scenes = shape_scenes(3, colour=name, motion="standing still")
        images, masks = render_frames(scenes, torch.zeros(3), 24, 24, masks=True)
        for other in COLOURS:
            seen = colour_mask(images, other)[masks[:, 0] > 0.99].float().mean()
            assert seen == (1.0 if other == name else 0.0), (name, other)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_pan_moves_what_is_seen_the_other_way(side):
    scene = shape_scenes(1, motion="standing still", camera=f"pan {side}")[0]
    _, masks = render_clip(scene, 11, 2.0, 48, 48, masks=True)
    x, _ = centres(masks[0])
    moved = (x[-1] - x[0]).item()
    assert 0.3 <= abs(moved) <= 0.7 and (moved > 0) == (side == "left")


@pytest.mark.parametrize(("camera", "grows"), [("zoom in", True), ("zoom out", False)])
def test_a_zoom_changes_the_size(camera, grows):
    scene = shape_scenes(1, motion="standing still", camera=camera)[0]
    _, masks = render_clip(scene, 11, 2.0, 48, 48, masks=True)
    area = masks.mean((0, 2, 3))
    ratio = (area[-1] / area[0]).item()
    assert ratio > 2.0 if grows else ratio < 0.5


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "shape"])
def test_every_family_moves_smoothly(family):
    """Consecutive frames differ a little: nothing stands still (some shapes do, on purpose), nothing jumps."""
    for seed in range(2):
        clip = render_clip(sample_scene(seed, "all", family), 80, height=32, width=32)
        change = clip.diff(dim=1).abs().mean((0, 2, 3))
        assert clip.std(dim=1).mean() > 0.004
        assert change.max() < (0.2 if family == "rain" else 0.12)


def test_place_is_what_is_drawn():
    from lumiere_core.world.canvas import Canvas, Parameters

    scene = shape_scenes(1, motion="moving right", shape="ball")[0]
    time = torch.tensor([0.0, 5.0]).view(2, 1, 1)
    axis = torch.zeros(1, 1, 1)
    parameters = Parameters(tuple(scene.parameters), [list(scene.parameters.values())], "cpu")
    x = place(Canvas(axis, axis, time, 0.1, 1.0, 1.0), parameters)[:, 0].flatten()
    _, masks = render_frames([scene] * 2, time, 48, 48, masks=True)
    seen, _ = centres(masks[:, 0])
    torch.testing.assert_close(seen, (x + 1.0) / 2.0, atol=0.01, rtol=0.0)


def test_what_land_hides_is_not_in_the_mask():
    for seed in range(8):
        scene = sample_scene(seed, "all", "moonrise")
        clip, masks = render_clip(scene, 6, 1.0, 48, 48, masks=True)
        area = masks.mean((0, 2, 3))
        assert area[0] < area[-1]
        colour = torch.tensor([scene.parameters[f"colour_{c}"] for c in "rgb"])
        assert (clip[:, masks[0] == 1.0] - colour[:, None]).abs().max() < 1e-5
        if scene.attributes["colour"] == "red":  # nothing else is red at night
            assert not (colour_mask(clip.movedim(1, 0), "red") & (masks[0] == 0.0)).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_asking_for_masks_does_not_change_the_picture(family):
    scenes = [sample_scene(seed, "all", family) for seed in range(6)]
    times = torch.linspace(0.0, 5.0, 6)
    images, masks = render_frames(scenes, times, 32, 32, masks=True)
    assert torch.equal(images, render_frames(scenes, times, 32, 32))
    assert masks.amax() > 0.5
