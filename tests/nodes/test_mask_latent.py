"""Lumiere Mask Latent on the host's models and VAEs, and the one rule for soft masks in all nodes."""

import pytest
import torch

pytestmark = pytest.mark.host

SIZE = 4  # cells
# VAE: (model, pixels and frames of a clip of three latent frames, first frame and end of the last group)
VIDEO = {
    "Wan": (8, 9, (5, 9)),
    "LTX": (32, 17, (9, 17)),
    "Hunyuan": (8, 9, (5, 9)),
    "Cosmos": (8, 17, (9, 17)),
    "Mochi": (8, 13, (7, 13)),
}
TEXT = {"pooled_output": torch.ones(1, 24), "attention_mask": torch.ones(1, 4).long()}


@pytest.fixture
def mask_latent(host):
    def call(latent, mask, vae):
        before = {key: value.clone() for key, value in latent.items() if torch.is_tensor(value)}
        (result,) = host.call("LumiereMaskLatent", latent=latent, mask=mask, vae=vae)
        assert all(torch.equal(latent[key], value) for key, value in before.items()) and len(before) == len(latent)
        return result

    return call


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def sampled(host, model, latent, prompt):
    (result,) = host.call(
        "KSampler",
        model=model,
        seed=1,
        steps=3,
        cfg=1.0,
        sampler_name="euler",
        scheduler="normal",
        positive=prompt,
        negative=prompt,
        denoise=1.0,
        latent_image=latent,
    )
    return result["samples"]


def kept(before, after):
    """Greatest change of each latent frame."""
    return (before - after).abs().amax(dim=(0, 1, 3, 4))


@pytest.mark.parametrize("name", VIDEO)
def test_known_frames_of_video_models_come_back(host, mask_latent, video_models, name):
    """First, then first and last frame: the host's own interpolation calls all of it unknown."""
    cell, frames, (first, end) = VIDEO[name]
    model, channels = video_models.video_model(name)
    vae = video_models.vae(name)
    samples = random(1, channels, 3, SIZE, SIZE)
    mask = torch.ones(frames, SIZE * cell, SIZE * cell)
    mask[0] = 0
    latent = mask_latent({"samples": samples}, mask, vae)
    assert latent["noise_mask"].shape == (1, 1, 3, SIZE, SIZE)
    made = sampled(host, model, latent, video_models.prompt(**TEXT))
    changes = kept(samples, made)
    assert changes[0] < 1e-5 and changes[1:].min() > 0.1
    mask[first:end] = 0
    latent = mask_latent({"samples": samples}, mask, vae)
    changes = kept(samples, sampled(host, model, latent, video_models.prompt(**TEXT)))
    assert changes[::2].max() < 1e-5 and changes[1] > 0.1
    # Set Latent Noise Mask would lose the first frame.
    (latent,) = host.call("SetLatentNoiseMask", samples={"samples": samples}, mask=mask)
    assert kept(samples, sampled(host, model, latent, video_models.prompt(**TEXT)))[0] > 0.1


@pytest.mark.parametrize("name", VIDEO)
def test_a_partly_known_group_is_generated_whole(mask_latent, video_models, log, name):
    cell, frames, (first, end) = VIDEO[name]
    latent = {"samples": torch.zeros(1, 2, 3, SIZE, SIZE)}
    for number in range(frames):
        mask = torch.zeros(frames, SIZE * cell, SIZE * cell)
        mask[number, 0, -1] = 1  # a pixel of a frame
        result = mask_latent(latent, mask, video_models.vae(name))["noise_mask"]
        group = 0 if number == 0 else 1 if number < first else 2
        assert result[0, 0, group, 0, -1] == 1 and result.sum() == 1
    mask = torch.ones(frames, SIZE * cell, SIZE * cell)
    mask[-1] = 0
    assert (mask_latent(latent, mask, video_models.vae(name))["noise_mask"] == 1).all()
    assert "packs several frames" in log()


@pytest.mark.parametrize("name", ["SD15", "SDXL"])
def test_thin_masks_of_image_models(host, mask_latent, backbones, video_models, name):
    """Four pixels wide, in one frame only: the host rounds that away."""
    model, vae = backbones(name), video_models.vae("SD1.5")
    samples = random(6, 4, 8, 8)
    mask = torch.zeros(6, 64, 64)
    mask[2, :, 30:34] = 1
    latent = mask_latent({"samples": samples}, mask, vae)
    made = backbones.sample(model, latent=latent, frames=6)
    cells = torch.zeros(6, 1, 8, 8)
    cells[2, 0, :, 3:5] = 1
    assert torch.equal(latent["noise_mask"], cells)
    known = (cells == 0).expand_as(samples)
    assert (made - samples)[known].abs().max() < 1e-5
    assert (made - samples)[~known].abs().min() > 1e-4


def test_one_mask_for_all_and_one_for_each_clip_of_a_batch(mask_latent, video_models):
    vae = video_models.vae("SD1.5")
    mask = torch.zeros(3, 64, 64)
    mask[1, :8] = 1
    one = mask_latent({"samples": torch.zeros(6, 4, 8, 8)}, mask[1:2], vae)["noise_mask"]
    assert one.shape == (1, 1, 8, 8) and one[0, 0, 0].min() == 1 and one.sum() == 8
    each = mask_latent({"samples": torch.zeros(6, 4, 8, 8)}, mask, vae)["noise_mask"]
    assert each.shape == (6, 1, 8, 8) and each.sum(dim=(1, 2, 3)).tolist() == [0, 8, 0, 0, 8, 0]
    video = mask_latent({"samples": torch.zeros(1, 16, 3, 8, 8)}, mask[1], video_models.vae("Wan"))["noise_mask"]
    assert video.shape == (1, 1, 3, 8, 8) and video.sum() == 24


def test_sizes_that_the_vae_crops(mask_latent, video_models):
    """70 pixels are 8 cells after the host's crop of 3 at each side."""
    mask = torch.zeros(1, 70, 70)
    mask[:, 3, 3] = 1
    result = mask_latent({"samples": torch.zeros(1, 4, 8, 8)}, mask, video_models.vae("SD1.5"))["noise_mask"]
    assert result[0, 0, 0, 0] == 1 and result.sum() == 1
    outside = torch.zeros(1, 70, 70)
    outside[:, 3, 3], outside[:, 0, 0] = 1, 1
    again = mask_latent({"samples": torch.zeros(1, 4, 8, 8)}, outside, video_models.vae("SD1.5"))["noise_mask"]
    assert torch.equal(again, result)


def test_a_mask_of_another_size_and_the_same_shape(mask_latent, video_models):
    mask = torch.zeros(1, 128, 256)
    mask[:, 127, 255] = 1
    result = mask_latent({"samples": torch.zeros(1, 4, 4, 8)}, mask, video_models.vae("SD1.5"))["noise_mask"]
    assert result[0, 0, 3, 7] == 1 and result.sum() == 1


def test_frames_that_the_vae_drops(mask_latent, video_models):
    """Ten to twelve frames make three latent frames of Wan, as nine do; thirteen make four."""
    latent = {"samples": torch.zeros(1, 16, 3, 4, 4)}
    for count in (9, 10, 12):
        mask = torch.zeros(count, 32, 32)
        mask[8] = 1
        result = mask_latent(latent, mask, video_models.vae("Wan"))["noise_mask"]
        assert result[0, 0].amax(dim=(1, 2)).tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match="mask has 13 frames, and the latent holds 9"):
        mask_latent(latent, torch.ones(13, 32, 32), video_models.vae("Wan"))
    with pytest.raises(ValueError, match="mask has 8 frames, and the latent holds 9"):
        mask_latent(latent, torch.ones(8, 32, 32), video_models.vae("Wan"))


def test_blocks_of_a_vae_with_another_rule(mask_latent, video_models):
    """MiniMax H3: 22 frames are 7 latent frames, of which the last 5 share 17."""
    mask = torch.zeros(22, 32, 32)
    mask[10] = 1
    result = mask_latent({"samples": torch.zeros(1, 24, 7, 2, 2)}, mask, video_models.vae("MiniMax"))["noise_mask"]
    assert result[0, 0].amax(dim=(1, 2)).tolist() == [0, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("samples", "mask", "vae", "message"),
    [
        (torch.zeros(5, 4, 8, 8), torch.ones(3, 64, 64), "SD1.5", "mask has 3 frames and the latent 5"),
        (torch.zeros(1, 4, 8, 8), torch.ones(1, 64, 128), "SD1.5", "128x64 pixels, and the latent is of 64x64"),
        (torch.zeros(1, 4, 3, 8, 8), torch.ones(1, 64, 64), "SD1.5", "5 axes, and this VAE works in 2"),
        (torch.zeros(1, 8, 16, 8), torch.ones(1, 64, 64), "sound", "for sound"),
        (torch.zeros(1, 4, 8, 8), torch.zeros(1, 64, 64), "SD1.5", "nothing to generate"),
    ],
)
def test_what_does_not_fit_is_refused(mask_latent, video_models, samples, mask, vae, message):
    with pytest.raises(ValueError, match=message):
        mask_latent({"samples": samples}, mask, video_models.vae(vae))


def test_video_with_sound_is_refused(host, video_models):
    from comfy.nested_tensor import NestedTensor

    both = NestedTensor((torch.zeros(1, 128, 3, 4, 4), torch.zeros(1, 8, 16, 8)))
    with pytest.raises(ValueError, match="Separate AV Latent"):
        host.call("LumiereMaskLatent", latent={"samples": both}, mask=torch.ones(1, 8, 8), vae=video_models.vae("LTX"))


def test_soft_masks_stay_soft_for_differential_diffusion(host, mask_latent, video_models):
    model, channels = video_models.video_model("Wan")
    samples = random(1, channels, 2, SIZE, SIZE)
    mask = torch.full((5, SIZE * 8, SIZE * 8), 0.3)
    mask[0], mask[1, 0, 0] = 0.0, 0.7
    latent = mask_latent({"samples": samples}, mask, video_models.vae("Wan"))
    wanted = torch.tensor([0.0, 0.3, 0.7])
    assert torch.allclose(latent["noise_mask"].unique(), wanted, atol=1e-6)
    assert latent["noise_mask"][0, 0, 1, 0, 0] == pytest.approx(0.7)
    (differential,) = host.call("DifferentialDiffusion", model=model, strength=1.0)
    made = sampled(host, differential, latent, video_models.prompt(**TEXT))
    assert kept(samples, made)[0] < 1e-5 < kept(samples, made)[1]
    assert not torch.allclose(made, sampled(host, model, latent, video_models.prompt(**TEXT)), atol=1e-2)


@pytest.mark.parametrize(("value", "made"), [(1.0, True), (0.49, True), (0.1, True), (0.03, True), (0.01, False)])
def test_one_rule_for_soft_masks_in_all_nodes(host, studio, value, made):
    """The builder keeps it soft; what the network is told, what is blanked and what is blended agree."""
    picture = torch.rand(4, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    region = torch.zeros(1, 16, 16)
    region[:, :8], region[:, 15, 15] = value, 1.0
    task = {"task": "inpaint", "video": picture, "region": region, "source_fps": 0.0, "fps": 16.0}
    sizes = {"width": 16, "height": 16, "length": 4, "resize": "crop", "grow": 0, "feather": 0}
    clip, mask = host.call("LumiereConditionBuilder", task=task, **sizes)
    assert mask[0, 0, 0] == pytest.approx(value)
    prompts = {"positive": studio.positive, "negative": studio.negative}
    positive, _, latent = host.call("LumiereApplyCondition", **prompts, vae=studio.vae, condition=clip, mask=mask)
    given = positive[0][1]
    assert given["concat_mask"][0, 0, 0, 0] == float(made)
    assert (given["concat_latent_image"][0, :, 0, 0].abs().max() < 1e-6) == made  # blank
    assert latent["noise_mask"][0, 0, 0, 0] == pytest.approx(value)
    made_clip = (clip + 0.05).clamp(0, 1)
    (blended,) = host.call("LumiereBlendKnown", images=made_clip, condition=clip, mask=mask, reach=0, tolerance=0.15)
    # A pixel at the border is corrected if it was generated and meets one that is known.
    assert ((blended - made_clip)[:, 7].abs().max() > 1e-4) == made


def test_a_soft_mask_is_hard_in_the_sampler_unless_it_is_made_for_soft_ones(host, studio, write_tiny):
    model, _, vae = studio.load("masked.safetensors", conv_cond=True)
    picture = torch.rand(4, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    seen = []

    def sample(model, mask):
        prompts = {"positive": studio.positive, "negative": studio.negative}
        positive, negative, latent = host.call(
            "LumiereApplyCondition", **prompts, vae=vae, condition=picture, mask=mask
        )
        return studio.sample(model, latent=latent, positive=positive, negative=negative)

    soft, hard = torch.zeros(4, 16, 16), torch.zeros(4, 16, 16)
    soft[:, :8], hard[:, :8] = 0.4, 1.0
    assert torch.equal(sample(model, soft), sample(model, hard))
    (differential,) = host.call("DifferentialDiffusion", model=model, strength=1.0)
    differential.set_model_denoise_mask_function(
        lambda sigma, mask, extra_options: seen.append(mask.max().item()) or mask
    )
    sample(differential, soft)
    assert seen and all(value == pytest.approx(0.4) for value in seen)


def test_a_noise_mask_alone_tells_the_network_the_same(host, studio, spied):
    model, _, vae = studio.load("masked.safetensors", conv_cond=True)
    seen = []
    mask = torch.zeros(4, 16, 16)
    mask[:, :8] = 0.4
    (latent,) = host.call("LumiereMaskLatent", latent={"samples": random(4, 3, 16, 16)}, mask=mask, vae=vae)
    studio.sample(spied(model, seen), latent=latent)
    known = seen[0][1][:, -1]
    assert (known[:, :8] == 0).all() and (known[:, 8:] == 1).all()
