"""What the host's nodes write into a LATENT, and how latents that are none of ours are taken."""

import pytest
import torch

pytestmark = pytest.mark.host


def run(studio, latent, node="LumiereSampler", model=None, **options):
    return studio.sample(model, latent=latent, node=node, **{"steps": 1, "seed": 5, **options})


@pytest.fixture(scope="module")
def first_noise(host):
    """A function (run) -> the noise that its sampler starts from."""

    def seen(call, monkeypatch):
        import comfy.samplers

        outer, found = comfy.samplers.CFGGuider.inner_sample, []

        def spy(self, noise, *args, **kwargs):
            found.append(noise.clone())
            return outer(self, noise, *args, **kwargs)

        monkeypatch.setattr(comfy.samplers.CFGGuider, "inner_sample", spy)
        call()
        return found[-1]

    return seen


@pytest.mark.parametrize("node", ["LumiereSampler", "KSampler"])
def test_frames_taken_from_a_batch_keep_their_noise(host, studio, first_noise, monkeypatch, node):
    clip = {"samples": torch.zeros(8, 3, 16, 16)}
    (part,) = host.call("LatentFromBatch", samples=clip, batch_index=4, length=4)
    assert part["batch_index"] == [4, 5, 6, 7]
    whole = first_noise(lambda: run(studio, clip, node), monkeypatch)
    taken = first_noise(lambda: run(studio, part, node), monkeypatch)
    assert torch.allclose(taken, whole[4:], atol=1e-6)


def test_rows_of_several_clips_keep_their_clips_noise(host, studio, first_noise, monkeypatch):
    model = studio.load("tiny.safetensors", 4)[0]
    clips = {"samples": torch.zeros(8, 3, 16, 16)}
    (second,) = host.call("LatentFromBatch", samples=clips, batch_index=4, length=4)
    whole = first_noise(lambda: run(studio, clips, model=model), monkeypatch)
    (both,) = host.call("RepeatLatentBatch", samples=second, amount=2)
    taken = first_noise(lambda: run(studio, both, model=model), monkeypatch)
    assert torch.allclose(taken[:4], whole[4:], atol=1e-6)
    assert not torch.allclose(taken[4:], whole[4:], atol=1e-3)


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m_sde"])
def test_the_noise_of_later_steps_is_that_of_the_frames_too(host, studio, sampler):
    """One frame a clip, so that the frames do not see each other."""
    still = studio.load("tiny.safetensors", 1)[0]
    clip = {"samples": torch.zeros(4, 3, 16, 16)}
    (part,) = host.call("LatentFromBatch", samples=clip, batch_index=2, length=2)
    options = {"model": still, "sampler_name": sampler, "steps": 3, "cfg": 1.0}
    assert torch.allclose(run(studio, clip, **options)[2:], run(studio, part, **options), atol=5e-3)


def test_numbers_that_fit_no_frames_are_refused(studio):
    latent = {"samples": torch.zeros(4, 3, 16, 16), "batch_index": [0, 1]}
    with pytest.raises(ValueError, match="batch_index.*has 4"):
        run(studio, latent)


@pytest.mark.parametrize("node", ["LumiereSampler", "KSampler"])
def test_latents_of_video_models_are_refused(studio, node):
    latent = {"samples": torch.ones(1, 3, 5, 16, 16)}
    with pytest.raises(ValueError, match="Use Empty Lumiere Latent Video"):
        run(studio, latent, node)


def test_latents_with_sound_are_refused(studio):
    import comfy.nested_tensor

    both = comfy.nested_tensor.NestedTensor([torch.zeros(1, 3, 5, 16, 16), torch.zeros(1, 8, 4, 16)])
    with pytest.raises(ValueError, match="frames and sound together"):
        run(studio, {"samples": both})


def test_a_video_models_latent_is_sampled_by_it(studio, video_models):
    model, channels = video_models.video_model("Wan")
    text = [[torch.randn(1, 4, 24), {}]]
    samples = run(studio, {"samples": torch.zeros(1, channels, 3, 4, 4)}, model=model, positive=text, negative=text)
    assert samples.shape == (1, channels, 3, 4, 4) and samples.isfinite().all()


@pytest.mark.parametrize("denoise", [0.0])
def test_denoise_0_gives_the_latent_back(studio, denoise):
    samples = torch.rand(4, 3, 16, 16)
    assert torch.equal(run(studio, {"samples": samples}, denoise=denoise), samples)


@pytest.mark.parametrize("shape", [(0, 3, 16, 16), (4, 3, 0, 16), (4, 3, 16, 0)])
def test_empty_latents_are_refused(studio, shape):
    with pytest.raises(ValueError, match="the latent is empty"):
        run(studio, {"samples": torch.zeros(shape)})


@pytest.mark.parametrize("node", ["LatentUpscale", "LatentUpscaleBy"])
def test_upscaling_an_empty_clip_to_a_size_gives_that_size(host, studio, backbones, node):
    latent, _ = host.call("EmptyLumiereLatentVideo", width=64, height=32, length=2, batch_size=1)
    to = {"width": 128, "height": 64, "crop": "disabled"} if node == "LatentUpscale" else {"scale_by": 2.0}
    (larger,) = host.call(node, samples=latent, upscale_method="nearest-exact", **to)
    assert run(studio, larger).shape == (2, 3, 64, 128)
    assert backbones.sample(backbones("SD15"), latent=larger, steps=1).shape == (2, 4, 8, 16)


def test_an_empty_clip_of_any_size(host, studio):
    latent, _ = host.call("EmptyLumiereLatentVideo", width=20, height=18, length=2, batch_size=1)
    assert run(studio, latent).shape == (2, 3, 18, 20)


def test_noise_that_is_added_before_has_the_frames_common_part(host, studio, backbones):
    """Add Noise, then a sampler without noise: frames of the clip correlate by 0.8, as its layers were trained."""
    noise = host.call("RandomNoise", noise_seed=3)[0]
    sigmas = torch.tensor([40.0, 0.0])
    for model, channels, wanted in ((studio.model, 3, 0.8), (backbones("SD15"), 4, 0.0)):
        latent = {"samples": torch.zeros(6, channels, 32, 32)}
        (added,) = host.call("AddNoise", model=model, noise=noise, sigmas=sigmas, latent_image=latent)
        rows = added["samples"].flatten(1)
        assert rows.std(dim=1).allclose(torch.full((6,), rows.std().item()), rtol=0.1)
        assert torch.corrcoef(rows)[0, 1:].mean() == pytest.approx(wanted, abs=0.05)


def test_noise_of_a_run_is_shared_once(host, studio, first_noise, monkeypatch):
    model = studio.model
    noise = first_noise(lambda: run(studio, {"samples": torch.zeros(6, 3, 32, 32)}, "KSampler", model), monkeypatch)
    scaled = []
    sampling = model.get_model_object("model_sampling")
    scaling = type(sampling).noise_scaling

    def spy(self, sigma, noise, *args, **kwargs):
        scaled.append(scaling(self, sigma, noise, *args, **kwargs) / (1 + sigma**2) ** 0.5)
        return scaling(self, sigma, noise, *args, **kwargs)

    monkeypatch.setattr(type(sampling), "noise_scaling", spy)
    run(studio, {"samples": torch.zeros(6, 3, 32, 32)}, "KSampler", model)
    assert torch.allclose(scaled[0], noise, atol=1e-3)


def test_clip_skip_is_said_to_do_nothing(host, studio, log):
    (clip,) = host.call("CLIPSetLastLayer", clip=studio.clip, stop_at_clip_layer=-2)
    (skipped,) = host.call("CLIPTextEncode", clip=clip, text="a red ball")
    assert torch.equal(skipped[0][0], studio.positive[0][0])
    assert "CLIP Set Last Layer (-2) changes nothing" in log()


def test_a_book_is_no_prompt(host, studio):
    with pytest.raises(ValueError, match="2,000,000 characters"):
        host.call("LumiereTextEncode", clip=studio.clip, prompt="a " * 1_000_000, negative_prompt="")


def test_styles_of_another_prediction_are_refused(host, backbones):
    (other,) = host.call("ModelSamplingDiscrete", model=backbones("SD21"), sampling="v_prediction", zsnr=False)
    (eps,) = host.call("ModelSamplingDiscrete", model=backbones("SD21"), sampling="eps", zsnr=False)
    with pytest.raises(ValueError, match=r"model predicts the noise \(eps\) and style_model v"):
        host.call("LumiereStyleInterpolate", model=eps, style_model=other, alpha=0.5)


@pytest.mark.parametrize(
    ("shape", "error"),
    [((0, 4, 4, 3), "0 frames"), ((2, 0, 4, 3), "at least one frame of 1x1"), ((2, 4, 4, 2), "2 channels")],
)
def test_super_resolution_refuses_what_is_no_clip(host, studio, small_ssr, shape, error):
    with pytest.raises(ValueError, match=error):
        small_ssr(torch.zeros(shape))


@pytest.fixture(scope="module")
def small_ssr(host, studio, tiny_ssr):
    model = studio.load("latents-ssr.safetensors", **tiny_ssr())[0]

    def enlarge(image, **options):
        settings = {
            "positive": studio.positive,
            "negative": studio.negative,
            "seed": 0,
            "steps": 1,
            "cfg": 1.0,
            "sampler_name": "euler",
            "scheduler": "karras",
            "context_length": 4,
            "context_overlap": 2,
            "weighting": "uniform",
            "noise_augmentation": 0.0,
        }
        return host.call("LumiereSuperResolution", model=model, image=image, **settings | options)[0]

    return enlarge


def test_super_resolution_of_grey_and_transparent_clips(small_ssr):
    grey = torch.rand(2, 4, 4, 1)
    colours = small_ssr(grey.expand(-1, -1, -1, 3))
    assert torch.equal(small_ssr(grey), colours)
    assert torch.equal(small_ssr(torch.cat([grey.expand(-1, -1, -1, 3), grey], dim=-1)), colours)


def test_super_resolution_of_half_precision_is_computed_in_single(small_ssr):
    clip = torch.rand(2, 4, 4, 3)
    assert torch.allclose(small_ssr(clip.half()), small_ssr(clip.half().float()))


def test_a_single_pixel_that_a_network_cannot_normalise(small_ssr):
    """The coarsest level of 32 channels would have one value in each group."""
    with pytest.raises(ValueError, match="frames of .* are too small for this MODEL"):
        small_ssr(torch.rand(1, 1, 1, 3))


@pytest.mark.parametrize("which", ["positive", "negative"])
def test_super_resolution_without_a_prompt_says_so(small_ssr, which):
    with pytest.raises(ValueError, match=f"{which} holds no prompt"):
        small_ssr(torch.rand(1, 4, 4, 3), cfg=2.0, **{which: []})
