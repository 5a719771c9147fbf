"""The condition nodes on the real host: every task, bad input, and known pixels that come back bit for bit."""

import logging

import pytest
import torch

pytestmark = pytest.mark.host

SIZE = {"width": 16, "height": 16}


@pytest.fixture(scope="module")
def conditioned(studio):
    """(MODEL, VAE) with a conv_cond."""
    model, _, vae = studio.load("conditioned.safetensors", conv_cond=True)
    return model, vae


@pytest.fixture(scope="module")
def build(host):
    """Function (task, length, resize=…, grow=…, feather=…, **what is given) -> (condition, mask)."""

    def call(task, length=6, resize="crop", grow=0, feather=0, size=SIZE, **given):
        if task in ("inpaint", "outpaint"):
            given = {"source_fps": 0.0, "fps": 16.0, **given}
        if task == "image to video":
            given = {"start_frames": 1, **given}
        if task == "outpaint":
            given = {"left": 0, "top": 0, "right": 0, "bottom": 0, **given}
        return host.call(
            "LumiereConditionBuilder",
            task={"task": task, **given},
            **size,
            length=length,
            resize=resize,
            grow=grow,
            feather=feather,
        )

    return call


def images(frames=1, h=16, w=16, channels=3, seed=0):
    """Whole levels of 256, as files have them."""
    levels = torch.randint(256, (frames, h, w, channels), generator=torch.Generator().manual_seed(seed))
    return levels.float() / 255


def square(frames=1, h=16, w=16):
    region = torch.zeros(frames, h, w)
    region[:, 4:12, 6:10] = 1
    return region


# --- the builder ------------------------------------------------------------------------------------------


def test_image_to_video(build):
    start, end = images(seed=1), images(seed=2)
    clip, mask = build("image to video", start_image=start)
    assert clip.shape == (6, 16, 16, 3) and mask.shape == (6, 16, 16)
    assert torch.equal(clip[:1], start) and (clip[1:] == 0.5).all()
    assert not mask[0].any() and (mask[1:] == 1).all()
    clip, mask = build("image to video", start_image=start, end_image=end)
    assert torch.equal(clip[[0, -1]], torch.cat([start, end]))
    assert mask.flatten(1).mean(1).tolist() == [0, 1, 1, 1, 1, 0]


def test_saved_workflows_with_the_older_names_load(host, build):
    start, clip, region = images(seed=1), images(6), square()
    new = build("image to video", images=start)
    rest = {**SIZE, "length": 6, "resize": "crop", "grow": 0, "feather": 0}
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


def test_what_is_not_connected_is_named(build):
    with pytest.raises(ValueError, match="images and region of the task inpaint is not connected"):
        build("inpaint")
    with pytest.raises(ValueError, match="region of the task cinemagraph is not connected"):
        build("cinemagraph", images=images())


def test_a_clip_is_continued(build):
    given = images(9)
    clip, mask = build("image to video", start_image=given, start_frames=4, end_image=images())
    assert torch.equal(clip[:4], given[:4])
    assert mask.flatten(1).mean(1).tolist() == [0, 0, 0, 0, 1, 0]


def test_start_and_end_of_different_sizes(build):
    clip, mask = build("image to video", start_image=images(h=32, w=32), end_image=images(h=9, w=30))
    assert clip.shape == (6, 16, 16, 3) and not mask[0].any() and not mask[-1].any()


def test_key_frames(build):
    given = images(3)
    clip, mask = build("key frames", images=given, frames="0, 2 -1")
    assert torch.equal(clip[[0, 2, 5]], given)
    assert mask.flatten(1).mean(1).tolist() == [0, 1, 0, 1, 1, 0]


def test_inpaint_keeps_what_is_under_the_mask(build):
    video = images(6)
    clip, mask = build("inpaint", video=video, region=square())
    assert torch.equal(clip, video) and torch.equal(mask, square(6))


def test_inpaint_a_moving_region(build):
    region = torch.stack([square()[0].roll(i, 1) for i in range(6)])
    assert torch.equal(build("inpaint", video=images(6), region=region)[1], region)


def test_what_a_video_lacks_is_made_up_and_what_it_has_too_much_is_left_out(build):
    video = images(4)
    clip, mask = build("inpaint", length=6, video=video, region=square())
    assert torch.equal(clip[:4], video) and (clip[4:] == 0.5).all()
    assert torch.equal(mask[:4], square(4)) and (mask[4:] == 1).all()
    clip, mask = build("inpaint", length=3, video=video, region=square())
    assert torch.equal(clip, video[:3]) and len(mask) == 3
    assert len(build("inpaint", length=0, video=video, region=square())[0]) == 4


def test_outpaint(build):
    video = images(6, 16, 8)
    clip, mask = build("outpaint", video=video, left=4, right=4)
    assert torch.equal(clip[:, :, 4:12], video) and (clip[:, :, :4] == 0.5).all()
    assert not mask[:, :, 4:12].any() and (mask[:, :, :4] == 1).all() and (mask[:, :, 12:] == 1).all()


def test_cinemagraph(build):
    picture = images()
    clip, mask = build("cinemagraph", image=picture, region=square())
    assert torch.equal(clip, picture.expand(6, -1, -1, -1))
    assert not mask[0].any() and torch.equal(mask[1:], square(5))


def test_grow_and_feather(build):
    mask = build("inpaint", video=images(6), region=square(), grow=1, feather=2)[1]
    assert mask[0, 8].tolist()[2:9] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1, 1, 1])
    shrunk = build("inpaint", video=images(6), region=square(), grow=-1)[1]
    assert shrunk[0].sum() == 6 * 2
    mask = build("image to video", start_image=images(), grow=3, feather=3)[1]
    assert not mask[0].any()  # never over from one frame into another


@pytest.mark.parametrize(("resize", "unknown"), [("crop", 0), ("pad", 0.5), ("stretch", 0)])
def test_another_aspect_ratio(build, resize, unknown):
    clip, mask = build("image to video", start_image=images(h=16, w=32), resize=resize)
    assert clip.shape == (6, 16, 16, 3) and mask[0].mean() == unknown
    assert (clip[0][mask[0] == 1] == 0.5).all()


def test_a_video_of_another_frame_rate(build):
    video = images(60)
    clip, mask = build("inpaint", length=0, video=video, region=square(60), source_fps=30000 / 1001, fps=16.0)
    assert len(clip) == len(mask) == 32
    assert torch.equal(clip[:4], video[[0, 1, 3, 5]])


def test_transparency_is_no_colour(build):
    given = images(channels=4)
    assert torch.equal(build("image to video", start_image=given)[0][:1], given[..., :3])


def test_nothing_given_is_changed(build):
    video, region = images(6), square(6)
    before = video.clone(), region.clone()
    build("inpaint", video=video, region=region, grow=2, feather=2)
    assert torch.equal(video, before[0]) and torch.equal(region, before[1])


BAD = {
    "mask of another size": (
        {"task": "inpaint", "video": images(4), "region": torch.ones(1, 64, 32)},
        "mask is 32x64 pixels and the picture 16x16.*mask editor",
    ),
    "mask of other frames": (
        {"task": "inpaint", "video": images(4), "region": square(3)},
        "mask has 3 frames and the clip 4",
    ),
    "all known": (
        {"task": "inpaint", "video": images(4), "region": torch.zeros(1, 16, 16)},
        "nothing to generate.*0 everywhere",
    ),
    "all unknown": (
        {"task": "inpaint", "video": images(4), "region": torch.ones(1, 16, 16)},
        "nothing of the picture is known.*invert",
    ),
    "the empty mask of Load Image": (
        {"task": "cinemagraph", "image": images(), "region": torch.zeros(1, 64, 64)},
        "nothing to generate",
    ),
    "a fully transparent picture": (
        {"task": "cinemagraph", "image": images(), "region": torch.ones(1, 16, 16)},
        "transparent all over",
    ),
    "an alpha channel only": (
        {"task": "image to video", "start_image": images(channels=1)},
        "1 channel.*red, green and blue",
    ),
    "a video of one frame": (
        {"task": "inpaint", "video": images(1), "region": square()},
        "one frame only.*cinemagraph",
    ),
    "no borders": ({"task": "outpaint", "video": images(6)}, "left, top, right and bottom are 0"),
    "only borders": ({"task": "outpaint", "video": images(6), "left": 8, "right": 8}, "something must be left"),
    "a frame that is not there": (
        {"task": "key frames", "images": images(2), "frames": "0, 6"},
        "numbers from -6 to 5",
    ),
    "one image for two frames": (
        {"task": "key frames", "images": images(1), "frames": "0, -1"},
        "1 images for 2 frame numbers",
    ),
    "words for frames": ({"task": "key frames", "images": images(1), "frames": "first"}, "'first'.*whole numbers"),
    "no length": ({"task": "cinemagraph", "image": images(), "region": square(), "length": 0}, "Set it"),
    "fewer images than are asked for": (
        {"task": "image to video", "start_image": images(2), "start_frames": 3},
        "start_frames is 3, but images has 2",
    ),
    "a clip that is too short": (
        {"task": "image to video", "start_image": images(7), "start_frames": 7},
        "length is 6, and 7 frame",
    ),
    "no length for an image": ({"task": "image to video", "start_image": images(), "length": 0}, "length is 0"),
}


@pytest.mark.parametrize(("given", "message"), BAD.values(), ids=BAD)
def test_bad_input(build, given, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        build(**given)


# --- applying it ------------------------------------------------------------------------------------------


def apply(studio, vae, condition, mask):
    return studio.host.call(
        "LumiereApplyCondition",
        positive=studio.positive,
        negative=studio.negative,
        vae=vae,
        condition=condition,
        mask=mask,
    )


def made(studio, conditioned, condition, mask):
    """The clip as the workflows make it: sampled, decoded, and pasted back."""
    model, vae = conditioned
    positive, negative, latent = apply(studio, vae, condition, mask)
    samples = studio.sample(model, latent=latent, positive=positive, negative=negative)
    (decoded,) = studio.host.call("VAEDecode", samples={"samples": samples}, vae=vae)
    (pasted,) = studio.host.call(
        "ImageCompositeMasked", destination=condition, source=decoded, x=0, y=0, resize_source=False, mask=mask
    )
    return decoded, pasted


def test_it_gives_what_inpaint_model_conditioning_gives(studio, conditioned, build):
    model, vae = conditioned
    clip, mask = build("inpaint", video=images(6), region=square())
    ours = apply(studio, vae, clip, mask)
    theirs = studio.host.call(
        "InpaintModelConditioning",
        positive=studio.positive,
        negative=studio.negative,
        pixels=clip,
        vae=vae,
        mask=mask,
        noise_mask=True,
    )
    samples = [
        studio.sample(model, positive=positive, negative=negative, latent=latent)
        for positive, negative, latent in (ours, theirs)
    ]
    assert torch.allclose(*samples, atol=1e-4)
    assert not torch.allclose(samples[0], studio.sample(model, frames=6), atol=1e-2)


TASKS = {
    "image to video": {"start_image": images()},
    "first and last": {"start_image": images(), "end_image": images(seed=5)},
    "key frames": {"images": images(2), "frames": "1, 4"},
    "inpaint": {"video": images(6), "region": square()},
    "outpaint": {"video": images(6, 16, 8), "left": 4, "right": 4},
    "cinemagraph": {"image": images(), "region": square()},
}


@pytest.mark.parametrize("name", TASKS)
def test_known_pixels_come_back_bit_for_bit(studio, conditioned, build, name):
    task = "image to video" if name == "first and last" else name
    clip, mask = build(task, **TASKS[name])
    decoded, pasted = made(studio, conditioned, clip, mask)
    known = mask == 0
    assert torch.equal(pasted[known], clip[known])
    assert torch.equal(pasted[~known], decoded[~known])
    assert not torch.allclose(pasted[~known], clip[~known], atol=1e-2)


def test_a_feathered_edge_mixes_both_and_keeps_the_rest(studio, conditioned, build):
    clip, mask = build("inpaint", video=images(6), region=square(), feather=2)
    decoded, pasted = made(studio, conditioned, clip, mask)
    assert torch.equal(pasted[mask == 0], clip[mask == 0])
    edge = (mask > 0) & (mask < 1)
    share = mask[..., None]
    assert edge.any() and torch.allclose(pasted, share * decoded + (1 - share) * clip, atol=1e-6)
    assert not torch.allclose(decoded[edge], clip[edge], atol=1e-2)  # generated, not held


def test_a_cinemagraph_s_outside_is_one_still_image(studio, conditioned, build):
    clip, mask = build("cinemagraph", image=images(), region=square())
    _, pasted = made(studio, conditioned, clip, mask)
    outside = square()[0] == 0
    assert (pasted[:, outside] == pasted[:1, outside]).all()
    assert not torch.equal(pasted[1][~outside], pasted[2][~outside])


def test_a_model_without_conditioning_weights_says_so(studio, build):
    clip, mask = build("image to video", start_image=images())
    positive, negative, latent = apply(studio, studio.vae, clip, mask)
    with pytest.raises(ValueError, match="no weights for masked conditions.*train condition"):
        studio.sample(latent=latent, positive=positive, negative=negative)


@pytest.mark.parametrize(
    ("condition", "mask", "message"),
    [
        (images(4), square(3), "mask is 3 x 16x16.*condition 4 x 16x16"),
        (images(4), square(4, 16, 24), "mask is 4 x 24x16.*condition 4 x 16x16"),
        (images(4), torch.zeros(4, 16, 16), "nothing to generate"),
        (images(4, 20, 20), torch.ones(1, 20, 20), "multiples of 8"),
        (images(4, channels=1), square(4), "red, green and blue"),
    ],
)
def test_bad_conditions(studio, conditioned, condition, mask, message):
    with pytest.raises(ValueError, match=message):
        apply(studio, conditioned[1], condition, mask)


def test_a_latent_goes_through_and_begins_what_is_generated(host, conditioned, studio):
    _, vae = conditioned
    condition, mask = images(4), square(4)
    give = {"positive": studio.positive, "negative": studio.negative, "vae": vae, "condition": condition, "mask": mask}
    *_, plain = host.call("LumiereApplyCondition", **give)
    empty, fps = host.call("EmptyLumiereLatentVideo", width=16, height=16, length=4, batch_size=1)
    assert fps == 16.0
    *_, same = host.call("LumiereApplyCondition", **give, latent=empty)
    assert torch.equal(plain["samples"], same["samples"])
    other = torch.randn(4, *plain["samples"].shape[1:], generator=torch.Generator().manual_seed(0))
    *_, begun = host.call("LumiereApplyCondition", **give, latent={"samples": other})
    made = torch.nn.functional.adaptive_max_pool2d(mask[:, None], other.shape[2:]).expand_as(other) > 0
    assert torch.equal(begun["samples"][made], other[made])
    assert torch.equal(begun["samples"][~made], plain["samples"][~made])
    wrong, _ = host.call("EmptyLumiereLatentVideo", width=16, height=16, length=5, batch_size=1)
    with pytest.raises(ValueError, match="latent has 5 frames of 16x16 pixels and the condition 4 of 16x16"):
        host.call("LumiereApplyCondition", **give, latent=wrong)


def test_nothing_known_is_text_to_video_with_a_warning(studio, conditioned, caplog):
    model, vae = conditioned
    with caplog.at_level(logging.WARNING):
        positive, negative, latent = apply(studio, vae, images(4) * 0 + 0.5, torch.ones(1, 16, 16))
    assert "nothing of the clip is known" in caplog.text
    got = studio.sample(model, positive=positive, negative=negative, latent=latent)
    assert torch.equal(got, studio.sample(model))


def test_a_video_vae_is_refused(studio, build):
    class WanVae:
        latent_dim = 3

    with pytest.raises(ValueError, match="WanVaceToVideo"):
        apply(studio, WanVae(), images(4), square(4))


# --- a condition and a batch that differ ------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips_of_four(studio):
    """(MODEL, VAE) with a conv_cond that takes a batch as clips of 4 frames."""
    model, _, vae = studio.load("clips_of_four.safetensors", frames_per_clip=4, conv_cond=True)
    return model, vae


@pytest.mark.parametrize("node", ["LumiereApplyCondition", "InpaintModelConditioning"])
def test_every_clip_of_a_batch_gets_the_whole_condition(studio, clips_of_four, build, spied, node, log):
    model, vae = clips_of_four
    clip, mask = build("key frames", length=4, images=images(2), frames="0, 2")
    if node == "LumiereApplyCondition":
        positive, negative, latent = apply(studio, vae, clip, mask)
    else:
        positive, negative, latent = studio.host.call(
            node, positive=studio.positive, negative=studio.negative, pixels=clip, vae=vae, mask=mask, noise_mask=True
        )
    (twice,) = studio.host.call("RepeatLatentBatch", samples=latent, amount=2)
    seen = []
    given = {key: value.clone() for key, value in positive[0][1].items() if torch.is_tensor(value)}
    spy = spied(model, seen)
    samples = studio.sample(spy, positive=positive, negative=negative, latent=twice)
    condition = seen[0][1]
    known = condition[:8, 3].flatten(1).mean(1)
    assert known.tolist() == [1, 0, 1, 0] * 2
    assert torch.equal(condition[:4], condition[4:8]) and "resampled" not in log()
    for part in samples.split(4):
        assert torch.allclose(part[0], latent["samples"][0], atol=1e-5)
    for key, value in given.items():
        assert torch.equal(positive[0][1][key], value)


def test_a_condition_for_the_whole_batch_is_taken_as_it_is(studio, clips_of_four, build, spied):
    model, vae = clips_of_four
    clip, mask = build("key frames", length=8, images=images(2), frames="0, 6")
    positive, negative, latent = apply(studio, vae, clip, mask)
    seen = []
    studio.sample(spied(model, seen), positive=positive, negative=negative, latent=latent)
    assert seen[0][1][:8, 3].flatten(1).mean(1).tolist() == [1, 0, 0, 0, 0, 0, 1, 0]


def test_a_condition_for_another_length_is_refused(studio, conditioned, build):
    model, vae = conditioned
    clip, mask = build("image to video", start_image=images())
    positive, negative, latent = apply(studio, vae, clip, mask)
    with pytest.raises(ValueError, match="for 6 frames of 16x16.*clip of 5 frames of 16x16"):
        studio.sample(model, frames=5, positive=positive, negative=negative)
    (twice,) = studio.host.call("RepeatLatentBatch", samples=latent, amount=2)
    with pytest.raises(ValueError, match="clip of 12 frames.*frames_per_clip to 6"):
        studio.sample(model, latent=twice, positive=positive, negative=negative)


def test_a_condition_for_another_size_is_refused(studio, conditioned, build):
    model, vae = conditioned
    clip, mask = build("image to video", start_image=images())
    positive, negative, _ = apply(studio, vae, clip, mask)
    wide = {"samples": torch.zeros(6, 3, 16, 24)}
    with pytest.raises(ValueError, match="for 6 frames of 16x16.*clip of 6 frames of 24x16"):
        studio.sample(model, latent=wide, positive=positive, negative=negative)


def test_the_stock_node_s_condition_for_another_length_is_named(studio, conditioned, log):
    model, vae = conditioned
    positive, negative, _ = studio.host.call(
        "InpaintModelConditioning",
        positive=studio.positive,
        negative=studio.negative,
        pixels=images(4),
        vae=vae,
        mask=square(4),
        noise_mask=False,
    )
    studio.sample(model, frames=6, positive=positive, negative=negative)
    assert "for 4 frames of 16x16 pixels, and a clip of 6 frames" in log()


# --- the same outputs in nodes of other models ------------------------------------------------------------


def test_wan_vace_takes_the_builder_s_outputs(studio, build):
    """Inactive is what is known, on grey; reactive is what is to be made; the mask is 1 there."""
    sizes = {"width": 32, "height": 32}
    right = torch.zeros(1, 32, 32)
    right[..., 16:] = 1
    clip, mask = build("inpaint", length=5, size=sizes, video=images(5, 32, 32), region=right)
    encoded = []

    class Vae:
        def encode(self, pixels):
            encoded.append(pixels)
            return torch.zeros(1, 16, 2, 4, 4)

    positive, _, latent, _ = studio.host.call(
        "WanVaceToVideo",
        positive=studio.positive,
        negative=studio.negative,
        vae=Vae(),
        **sizes,
        length=5,
        batch_size=1,
        strength=1.0,
        control_video=clip,
        control_masks=mask,
    )
    for pixels, given, grey in zip(encoded, (slice(16), slice(16, 32)), (slice(16, 32), slice(16))):  # noqa: B905
        assert torch.allclose(pixels[:, :, given], clip[:, :, given], atol=1e-6)
        assert (pixels[:, :, grey] == 0.5).all()
    (vace_mask,) = positive[0][1]["vace_mask"]
    assert latent["samples"].shape[2] == vace_mask.shape[2] == 2
    assert not vace_mask[..., :2].any() and vace_mask[..., 2:].all()


def test_vae_encode_for_inpaint_takes_them_too(studio, conditioned, build):
    clip, mask = build("inpaint", video=images(6), region=square())
    (latent,) = studio.host.call("VAEEncodeForInpaint", pixels=clip, vae=conditioned[1], mask=mask, grow_mask_by=0)
    region = square(6).bool()
    samples = latent["samples"].movedim(1, -1)
    assert torch.equal(latent["noise_mask"][:, 0], square(6))
    assert (samples[region].abs() < 1e-6).all()
    assert torch.allclose(samples[~region], clip[~region] * 2 - 1, atol=1e-6)


def test_sam_s_tracked_objects_are_a_region(host, build):
    """SAM3 Track to Mask: a mask for each frame, in the video's size."""
    from comfy.ldm.sam3.tracker import pack_masks

    objects = torch.zeros(6, 2, 16, 16)
    for frame in range(6):
        objects[frame, 1, 4:12, frame : frame + 6] = 1
    track = {"packed_masks": pack_masks(objects > 0.5), "orig_size": (16, 16), "n_frames": 6}
    (region,) = host.call("SAM3_TrackToMask", track_data=track, object_indices="1")
    mask = build("inpaint", video=images(6), region=region)[1]
    assert torch.equal(mask, objects[:, 1])


def test_a_mask_comes_from_a_video_file(host, build, tmp_path):
    """A black-and-white video, read by core's nodes: white frames' regions are to be made anew."""
    shown = torch.zeros(6, 32, 32)
    for frame in range(6):
        shown[frame, 8:24, 2 * frame : 2 * frame + 16] = 1
    (video,) = host.call("CreateVideo", images=shown[..., None].expand(-1, -1, -1, 3).contiguous(), fps=16.0)
    path = host.base / "input" / "matte.mp4"
    video.save_to(str(path))
    (read,) = host.call("LoadVideo", file=path.name)
    frames = host.call("GetVideoComponents", video=read)[0]
    (region,) = host.call("ImageToMask", image=frames, channel="red")
    size = {"width": 32, "height": 32}
    mask = build("inpaint", video=images(6, 32, 32), region=region, size=size)[1]
    assert mask.shape == shown.shape
    assert ((mask > 0.5) == (shown > 0.5)).float().mean() > 0.98  # H.264 moves an edge now and then


# --- something to begin with ------------------------------------------------------------------------------


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
