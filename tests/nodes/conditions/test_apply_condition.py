"""Lumiere Apply Condition on the real host: known pixels come back bit for bit."""

import logging

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture
def made(studio, conditioned, apply):
    """Function (condition, mask) -> the clip as the workflows make it: sampled and decoded, and that pasted back."""
    model, vae = conditioned

    def make(condition, mask):
        positive, negative, latent = apply(vae, condition, mask)
        samples = studio.sample(model, latent=latent, positive=positive, negative=negative)
        (decoded,) = studio.host.call("VAEDecode", samples={"samples": samples}, vae=vae)
        (pasted,) = studio.host.call(
            "ImageCompositeMasked", destination=condition, source=decoded, x=0, y=0, resize_source=False, mask=mask
        )
        return decoded, pasted

    return make


def test_it_gives_what_inpaint_model_conditioning_gives(studio, conditioned, build, images, square, apply):
    model, vae = conditioned
    clip, mask = build("inpaint", video=images(6), region=square())
    ours = apply(vae, clip, mask)
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
    "image to video": lambda images, square: {"start_image": images()},
    "first and last": lambda images, square: {"start_image": images(), "end_image": images(seed=5)},
    "key frames": lambda images, square: {"images": images(2), "frames": "1, 4"},
    "inpaint": lambda images, square: {"video": images(6), "region": square()},
    "outpaint": lambda images, square: {"video": images(6, 16, 8), "left": 4, "right": 4},
    "cinemagraph": lambda images, square: {"image": images(), "region": square()},
}


@pytest.mark.parametrize("name", TASKS)
def test_known_pixels_come_back_bit_for_bit(made, build, images, square, name):
    task = "image to video" if name == "first and last" else name
    clip, mask = build(task, **TASKS[name](images, square))
    decoded, pasted = made(clip, mask)
    known = mask == 0
    assert torch.equal(pasted[known], clip[known])
    assert torch.equal(pasted[~known], decoded[~known])
    assert not torch.allclose(pasted[~known], clip[~known], atol=1e-2)


def test_a_feathered_edge_mixes_both_and_keeps_the_rest(made, build, images, square):
    clip, mask = build("inpaint", video=images(6), region=square(), feather=2)
    decoded, pasted = made(clip, mask)
    assert torch.equal(pasted[mask == 0], clip[mask == 0])
    edge = (mask > 0) & (mask < 1)
    share = mask[..., None]
    assert edge.any() and torch.allclose(pasted, share * decoded + (1 - share) * clip, atol=1e-6)
    assert not torch.allclose(decoded[edge], clip[edge], atol=1e-2)  # generated, not held


def test_a_cinemagraph_s_outside_is_one_still_image(made, build, images, square):
    clip, mask = build("cinemagraph", image=images(), region=square())
    _, pasted = made(clip, mask)
    outside = square()[0] == 0
    assert (pasted[:, outside] == pasted[:1, outside]).all()
    assert not torch.equal(pasted[1][~outside], pasted[2][~outside])


def test_a_model_without_conditioning_weights_says_so(studio, build, images, apply):
    clip, mask = build("image to video", start_image=images())
    positive, negative, latent = apply(studio.vae, clip, mask)
    with pytest.raises(ValueError, match="no weights for masked conditions.*train condition"):
        studio.sample(latent=latent, positive=positive, negative=negative)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda images, square: (images(4), square(3)), "mask is 3 x 16x16.*condition 4 x 16x16"),
        (lambda images, square: (images(4), square(4, 16, 24)), "mask is 4 x 24x16.*condition 4 x 16x16"),
        (lambda images, square: (images(4), torch.zeros(4, 16, 16)), "nothing to generate"),
        (lambda images, square: (images(4, 20, 20), torch.ones(1, 20, 20)), "multiples of 8"),
        (lambda images, square: (images(4, channels=1), square(4)), "red, green and blue"),
    ],
)
def test_bad_conditions(conditioned, apply, images, square, given, message):
    with pytest.raises(ValueError, match=message):
        apply(conditioned[1], *given(images, square))


def test_a_latent_goes_through_and_begins_what_is_generated(host, conditioned, studio, images, square):
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


def test_nothing_known_is_text_to_video_with_a_warning(studio, conditioned, caplog, images, apply):
    model, vae = conditioned
    with caplog.at_level(logging.WARNING):
        positive, negative, latent = apply(vae, images(4) * 0 + 0.5, torch.ones(1, 16, 16))
    assert "nothing of the clip is known" in caplog.text
    got = studio.sample(model, positive=positive, negative=negative, latent=latent)
    assert torch.equal(got, studio.sample(model))


def test_a_video_vae_is_refused(studio, build, images, square, apply):
    class WanVae:
        latent_dim = 3

    with pytest.raises(ValueError, match="WanVaceToVideo"):
        apply(WanVae(), images(4), square(4))
