"""Pixels that come in half precision (--fp16-intermediates, other packs' loaders), and clips that hold none."""

import pytest
import torch

pytestmark = pytest.mark.host


def picture(frames=5, channels=3, seed=0):
    return torch.rand(frames, 16, 16, channels, generator=torch.Generator().manual_seed(seed))


def hole(frames=1):
    mask = torch.zeros(frames, 16, 16)
    mask[:, 6:10, 6:10] = 1
    return mask


def builder(task, **given):
    base = {"width": 16, "height": 16, "length": 5, "resize": "crop", "grow": 0, "feather": 1}
    return lambda host, images, mask: host.call(
        "LumiereConditionBuilder",
        task={"task": task, **{k: {"images": images, "region": mask}.get(v, v) for k, v in given.items()}},
        **base,
    )


NODES = {
    "image to video": builder("image to video", images="images", start_frames=1),
    "key frames": builder("key frames", images="images", frames="0, 1, 2, 3, 4"),
    "inpaint": builder("inpaint", images="images", region="region", source_fps=0.0, fps=16.0),
    "outpaint": builder("outpaint", images="images", left=4, top=0, right=0, bottom=0, source_fps=0.0, fps=16.0),
    "cinemagraph": builder("cinemagraph", images="images", region="region"),
    "blend": lambda host, images, mask: host.call(
        "LumiereBlendKnown", images=images, condition=images.flip(0), mask=mask, reach=5, tolerance=0.15
    ),
    "slice": lambda host, images, mask: host.call("LumiereXTSlice", images=images, **defaults(host, "LumiereXTSlice")),
    "compare": lambda host, images, mask: host.call(
        "LumiereCompareClips", images_a=images, images_b=images.flip(1), **defaults(host, "LumiereCompareClips")
    ),
}


def defaults(host, node):
    """The values that the widgets of a node begin with."""
    inputs = host.nodes_by_id[node].GET_SCHEMA().inputs
    return {i.id: i.default for i in inputs if getattr(i, "default", None) is not None}


def tensors(outputs):
    return [value.float() for value in outputs if torch.is_tensor(value)]


@pytest.mark.parametrize("name", NODES)
def test_half_precision_gives_what_single_gives(host, name):
    """The same values, as far as the input's own rounding goes: nothing is computed in half precision."""
    images, mask = picture().half(), hole().half()
    kept = images.clone(), mask.clone()
    got, wanted = (tensors(NODES[name](host, *given)) for given in ((images, mask), (images.float(), mask.float())))
    assert got and all(torch.allclose(a, b, atol=1e-3) for a, b in zip(got, wanted, strict=True))
    assert torch.equal(images, kept[0]) and torch.equal(mask, kept[1])


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("shape", [(0, 16, 16, 3), (2, 0, 16, 3), (2, 16, 0, 3)])
def test_clips_of_nothing_are_refused_in_words(host, name, shape):
    with pytest.raises(ValueError, match=r"\w+ .*\w+") as error:
        NODES[name](host, torch.zeros(shape), hole())
    assert not any(word in str(error.value) for word in ("tensor", "dimension", "non-empty", "reshape"))


def test_half_latents_are_sampled(studio):
    latent = {"samples": torch.rand(4, 3, 16, 16).half()}
    samples = studio.sample(latent=latent, node="LumiereSampler", denoise=0.5)
    single = studio.sample(latent={"samples": latent["samples"].float()}, node="LumiereSampler", denoise=0.5)
    assert torch.allclose(samples.float(), single, atol=1e-3)


def test_a_moving_picture_becomes_a_cinemagraph_of_its_first_frame(host):
    """Load Image gives a GIF's frames and as many masks."""
    gif, masks = picture(4), hole(4)
    moving = NODES["cinemagraph"](host, gif, masks)
    first = NODES["cinemagraph"](host, gif[:1], masks[:1])
    assert all(map(torch.equal, tensors(moving), tensors(first)))
