"""A condition and a batch that differ: several clips, another length, another size."""

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def clips_of_four(studio):
    """(MODEL, VAE) with a conv_cond that takes a batch as clips of 4 frames."""
    model, _, vae = studio.load("clips_of_four.safetensors", frames_per_clip=4, conv_cond=True)
    return model, vae


@pytest.mark.parametrize("node", ["LumiereApplyCondition", "InpaintModelConditioning"])
def test_every_clip_of_a_batch_gets_the_whole_condition(studio, clips_of_four, build, spied, node, log, images, apply):
    model, vae = clips_of_four
    clip, mask = build("key frames", length=4, images=images(2), frames="0, 2")
    if node == "LumiereApplyCondition":
        positive, negative, latent = apply(vae, clip, mask)
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


def test_a_condition_for_the_whole_batch_is_taken_as_it_is(studio, clips_of_four, build, spied, images, apply):
    model, vae = clips_of_four
    clip, mask = build("key frames", length=8, images=images(2), frames="0, 6")
    positive, negative, latent = apply(vae, clip, mask)
    seen = []
    studio.sample(spied(model, seen), positive=positive, negative=negative, latent=latent)
    assert seen[0][1][:8, 3].flatten(1).mean(1).tolist() == [1, 0, 0, 0, 0, 0, 1, 0]


def test_a_condition_for_another_length_is_refused(studio, conditioned, build, images, apply):
    model, vae = conditioned
    clip, mask = build("image to video", start_image=images())
    positive, negative, latent = apply(vae, clip, mask)
    with pytest.raises(ValueError, match="for 6 frames of 16x16.*clip of 5 frames of 16x16"):
        studio.sample(model, frames=5, positive=positive, negative=negative)
    (twice,) = studio.host.call("RepeatLatentBatch", samples=latent, amount=2)
    with pytest.raises(ValueError, match="clip of 12 frames.*frames_per_clip to 6"):
        studio.sample(model, latent=twice, positive=positive, negative=negative)


def test_a_condition_for_another_size_is_refused(studio, conditioned, build, images, apply):
    model, vae = conditioned
    clip, mask = build("image to video", start_image=images())
    positive, negative, _ = apply(vae, clip, mask)
    wide = {"samples": torch.zeros(6, 3, 16, 24)}
    with pytest.raises(ValueError, match="for 6 frames of 16x16.*clip of 6 frames of 24x16"):
        studio.sample(model, latent=wide, positive=positive, negative=negative)


def test_the_stock_node_s_condition_for_another_length_is_named(studio, conditioned, log, images, square):
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
