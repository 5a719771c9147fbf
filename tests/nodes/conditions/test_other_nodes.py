"""The condition builder's outputs in nodes of other models, and other nodes' outputs in the builder."""

import pytest
import torch

pytestmark = pytest.mark.host


def test_wan_vace_takes_the_builder_s_outputs(studio, build, images):
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


def test_vae_encode_for_inpaint_takes_them_too(studio, conditioned, build, images, square):
    clip, mask = build("inpaint", video=images(6), region=square())
    (latent,) = studio.host.call("VAEEncodeForInpaint", pixels=clip, vae=conditioned[1], mask=mask, grow_mask_by=0)
    region = square(6).bool()
    samples = latent["samples"].movedim(1, -1)
    assert torch.equal(latent["noise_mask"][:, 0], square(6))
    assert (samples[region].abs() < 1e-6).all()
    assert torch.allclose(samples[~region], clip[~region] * 2 - 1, atol=1e-6)


def test_sam_s_tracked_objects_are_a_region(host, build, images):
    """SAM3 Track to Mask: a mask for each frame, in the video's size."""
    from comfy.ldm.sam3.tracker import pack_masks

    objects = torch.zeros(6, 2, 16, 16)
    for frame in range(6):
        objects[frame, 1, 4:12, frame : frame + 6] = 1
    track = {"packed_masks": pack_masks(objects > 0.5), "orig_size": (16, 16), "n_frames": 6}
    (region,) = host.call("SAM3_TrackToMask", track_data=track, object_indices="1")
    mask = build("inpaint", video=images(6), region=region)[1]
    assert torch.equal(mask, objects[:, 1])


def test_a_mask_comes_from_a_video_file(host, build, tmp_path, images):
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
