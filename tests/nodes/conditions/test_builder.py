"""The condition builder on the real host: every task, and what it refuses."""

import pytest
import torch

pytestmark = pytest.mark.host


def test_image_to_video(build, images):
    start, end = images(seed=1), images(seed=2)
    clip, mask = build("image to video", start_image=start)
    assert clip.shape == (6, 16, 16, 3) and mask.shape == (6, 16, 16)
    assert torch.equal(clip[:1], start) and (clip[1:] == 0.5).all()
    assert not mask[0].any() and (mask[1:] == 1).all()
    clip, mask = build("image to video", start_image=start, end_image=end)
    assert torch.equal(clip[[0, -1]], torch.cat([start, end]))
    assert mask.flatten(1).mean(1).tolist() == [0, 1, 1, 1, 1, 0]


def test_saved_workflows_with_the_older_names_load(host, build, images, square):
    start, clip, region = images(seed=1), images(6), square()
    new = build("image to video", images=start)
    rest = {"width": 16, "height": 16, "length": 6, "resize": "crop", "grow": 0, "feather": 0}
    # As the host passes links to inputs that it does not know.
    old = host.call(
        "LumiereConditionBuilder",
        task={"task": "image to video", "start_frames": 1},
        **{"task.start_image": start},
        **rest,
    )
    assert all(torch.equal(a, b) for a, b in zip(new, old, strict=True))
    for task, name, given in (("inpaint", "video", clip), ("cinemagraph", "image", start)):
        a, b = build(task, images=given, region=region), build(task, **{name: given}, region=region)
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_what_is_not_connected_is_named(build, images):
    with pytest.raises(ValueError, match="images and region of the task inpaint is not connected"):
        build("inpaint")
    with pytest.raises(ValueError, match="region of the task cinemagraph is not connected"):
        build("cinemagraph", images=images())


def test_a_clip_is_continued(build, images):
    given = images(9)
    clip, mask = build("image to video", start_image=given, start_frames=4, end_image=images())
    assert torch.equal(clip[:4], given[:4])
    assert mask.flatten(1).mean(1).tolist() == [0, 0, 0, 0, 1, 0]


def test_start_and_end_of_different_sizes(build, images):
    clip, mask = build("image to video", start_image=images(h=32, w=32), end_image=images(h=9, w=30))
    assert clip.shape == (6, 16, 16, 3) and not mask[0].any() and not mask[-1].any()


def test_key_frames(build, images):
    given = images(3)
    clip, mask = build("key frames", images=given, frames="0, 2 -1")
    assert torch.equal(clip[[0, 2, 5]], given)
    assert mask.flatten(1).mean(1).tolist() == [0, 1, 0, 1, 1, 0]


def test_inpaint_keeps_what_is_under_the_mask(build, images, square):
    video = images(6)
    clip, mask = build("inpaint", video=video, region=square())
    assert torch.equal(clip, video) and torch.equal(mask, square(6))


def test_inpaint_a_moving_region(build, images, square):
    region = torch.stack([square()[0].roll(i, 1) for i in range(6)])
    assert torch.equal(build("inpaint", video=images(6), region=region)[1], region)


def test_what_a_video_lacks_is_made_up_and_what_it_has_too_much_is_left_out(build, images, square):
    video = images(4)
    clip, mask = build("inpaint", length=6, video=video, region=square())
    assert torch.equal(clip[:4], video) and (clip[4:] == 0.5).all()
    assert torch.equal(mask[:4], square(4)) and (mask[4:] == 1).all()
    clip, mask = build("inpaint", length=3, video=video, region=square())
    assert torch.equal(clip, video[:3]) and len(mask) == 3
    assert len(build("inpaint", length=0, video=video, region=square())[0]) == 4


def test_outpaint(build, images):
    video = images(6, 16, 8)
    clip, mask = build("outpaint", video=video, left=4, right=4)
    assert torch.equal(clip[:, :, 4:12], video) and (clip[:, :, :4] == 0.5).all()
    assert not mask[:, :, 4:12].any() and (mask[:, :, :4] == 1).all() and (mask[:, :, 12:] == 1).all()


def test_cinemagraph(build, images, square):
    picture = images()
    clip, mask = build("cinemagraph", image=picture, region=square())
    assert torch.equal(clip, picture.expand(6, -1, -1, -1))
    assert not mask[0].any() and torch.equal(mask[1:], square(5))


def test_grow_and_feather(build, images, square):
    mask = build("inpaint", video=images(6), region=square(), grow=1, feather=2)[1]
    assert mask[0, 8].tolist()[2:9] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1, 1, 1])
    shrunk = build("inpaint", video=images(6), region=square(), grow=-1)[1]
    assert shrunk[0].sum() == 6 * 2
    mask = build("image to video", start_image=images(), grow=3, feather=3)[1]
    assert not mask[0].any()  # never over from one frame into another


@pytest.mark.parametrize(("resize", "unknown"), [("crop", 0), ("pad", 0.5), ("stretch", 0)])
def test_another_aspect_ratio(build, resize, unknown, images):
    clip, mask = build("image to video", start_image=images(h=16, w=32), resize=resize)
    assert clip.shape == (6, 16, 16, 3) and mask[0].mean() == unknown
    assert (clip[0][mask[0] == 1] == 0.5).all()


def test_a_video_of_another_frame_rate(build, images, square):
    video = images(60)
    clip, mask = build("inpaint", length=0, video=video, region=square(60), source_fps=30000 / 1001, fps=16.0)
    assert len(clip) == len(mask) == 32
    assert torch.equal(clip[:4], video[[0, 1, 3, 5]])


def test_transparency_is_no_colour(build, images):
    given = images(channels=4)
    assert torch.equal(build("image to video", start_image=given)[0][:1], given[..., :3])


def test_nothing_given_is_changed(build, images, square):
    video, region = images(6), square(6)
    before = video.clone(), region.clone()
    build("inpaint", video=video, region=region, grow=2, feather=2)
    assert torch.equal(video, before[0]) and torch.equal(region, before[1])


# Name: (function of `images` and `square` that returns the builder's inputs, message).
BAD = {
    "mask of another size": (
        lambda images, square: {"task": "inpaint", "video": images(4), "region": torch.ones(1, 64, 32)},
        "mask is 32x64 pixels and the picture 16x16.*mask editor",
    ),
    "mask of other frames": (
        lambda images, square: {"task": "inpaint", "video": images(4), "region": square(3)},
        "mask has 3 frames and the clip 4",
    ),
    "all known": (
        lambda images, square: {"task": "inpaint", "video": images(4), "region": torch.zeros(1, 16, 16)},
        "nothing to generate.*0 everywhere",
    ),
    "all unknown": (
        lambda images, square: {"task": "inpaint", "video": images(4), "region": torch.ones(1, 16, 16)},
        "nothing of the picture is known.*invert",
    ),
    "the empty mask of Load Image": (
        lambda images, square: {"task": "cinemagraph", "image": images(), "region": torch.zeros(1, 64, 64)},
        "nothing to generate",
    ),
    "a fully transparent picture": (
        lambda images, square: {"task": "cinemagraph", "image": images(), "region": torch.ones(1, 16, 16)},
        "transparent all over",
    ),
    "an alpha channel only": (
        lambda images, square: {"task": "image to video", "start_image": images(channels=1)},
        "1 channel.*red, green and blue",
    ),
    "a video of one frame": (
        lambda images, square: {"task": "inpaint", "video": images(1), "region": square()},
        "one frame only.*cinemagraph",
    ),
    "no borders": (
        lambda images, square: {"task": "outpaint", "video": images(6)},
        "left, top, right and bottom are 0",
    ),
    "only borders": (
        lambda images, square: {"task": "outpaint", "video": images(6), "left": 8, "right": 8},
        "something must be left",
    ),
    "a frame that is not there": (
        lambda images, square: {"task": "key frames", "images": images(2), "frames": "0, 6"},
        "numbers from -6 to 5",
    ),
    "one image for two frames": (
        lambda images, square: {"task": "key frames", "images": images(1), "frames": "0, -1"},
        "1 images for 2 frame numbers",
    ),
    "words for frames": (
        lambda images, square: {"task": "key frames", "images": images(1), "frames": "first"},
        "'first'.*whole numbers",
    ),
    "no length": (
        lambda images, square: {"task": "cinemagraph", "image": images(), "region": square(), "length": 0},
        "Set it",
    ),
    "fewer images than are asked for": (
        lambda images, square: {"task": "image to video", "start_image": images(2), "start_frames": 3},
        "start_frames is 3, but images has 2",
    ),
    "a clip that is too short": (
        lambda images, square: {"task": "image to video", "start_image": images(7), "start_frames": 7},
        "length is 6, and 7 frame",
    ),
    "no length for an image": (
        lambda images, square: {"task": "image to video", "start_image": images(), "length": 0},
        "length is 0",
    ),
}


@pytest.mark.parametrize(("given", "message"), BAD.values(), ids=BAD)
def test_bad_input(build, images, square, given, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        build(**given(images, square))


def test_world_clips_come_with_the_mask_of_their_object(host):
    clip, mask = host.call(
        "LumiereWorldClip", prompt="a red ball moving right on grass", seed=3, width=32, height=24, length=5, fps=2.0
    )
    assert clip.shape == (5, 24, 32, 3) and mask.shape == (5, 24, 32)
    on = mask > 0.9
    red, green, blue = clip[on].mean(0)
    assert on.flatten(1).any(1).all() and red > 2 * green and red > 2 * blue
    places = [frame.nonzero()[:, 1].float().mean() for frame in on]
    assert places == sorted(places) and places[-1] > places[0] + 5
    assert torch.equal((clip * 255).round() / 255, clip)
