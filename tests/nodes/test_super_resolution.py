"""Lumiere Super Resolution on the host: sizes, lengths, agreement with core, and what it refuses."""

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def ssr(studio, tiny_ssr):
    """MODEL of a very small stage."""
    return studio.load("tiny-ssr.safetensors", **tiny_ssr())[0]


@pytest.fixture(scope="module")
def ssr_of_any_noise(studio, tiny_ssr):
    """MODEL of the same stage, whose layers say that they know noise that is new in each frame."""
    return studio.load("tiny-fresh.safetensors", frames_per_clip=4, **tiny_ssr(fresh_noise=0.5))[0]


@pytest.fixture
def enlarge(host, studio, ssr):
    def call(image, model=None, **options):
        settings = {
            "seed": 3,
            "steps": 2,
            "cfg": 1.0,
            "sampler_name": "euler",
            "scheduler": "karras",
            "context_length": 4,
            "context_overlap": 2,
            "weighting": "uniform",
            "noise_augmentation": 0.0,
            "positive": studio.positive,
            "negative": studio.negative,
            **options,
        }
        return host.call("LumiereSuperResolution", model=ssr if model is None else model, image=image, **settings)[0]

    return call


def clip(frames=6, height=8, width=8, seed=0):
    levels = torch.randint(0, 256, (frames, height, width, 3), generator=torch.Generator().manual_seed(seed))
    return levels / 255


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 8, 8), (2, 8, 8), (3, 7, 13), (9, 8, 8), (33, 5, 5)])
def test_any_length_and_size(enlarge, frames, height, width):
    out = enlarge(clip(frames, height, width), steps=1)
    assert out.shape == (frames, 4 * height, 4 * width, 3)
    assert out.min() >= 0 and out.max() <= 1 and out.isfinite().all()


def test_another_factor_comes_from_the_checkpoint(enlarge, studio, tiny_ssr):
    model, _, _ = studio.load("tiny-x2.safetensors", **tiny_ssr(scale=2))
    assert enlarge(clip(3), model).shape == (3, 16, 16, 3)


def test_still_image_and_alpha_channel(enlarge):
    image = clip(1)
    with_alpha = torch.cat([image, torch.ones(1, 8, 8, 1)], dim=-1)
    assert torch.equal(enlarge(with_alpha), enlarge(image))


@pytest.mark.parametrize("noise_augmentation", [0.0, 0.5])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_equal_to_core(host, enlarge, cfg, noise_augmentation):
    """Same weights, noise, windows and steps with and without the host."""
    models, upscale = host.module("lumiere_core.diffusion.models"), host.module("lumiere_core.diffusion.upscale")
    models, _ = models.load_upscaler([host.base / "models" / "lumiere" / "tiny-ssr.safetensors"])
    image = clip(7)
    request = upscale.UpscaleRequest(
        "a red ball", seed=3, steps=2, cfg=cfg, context_length=4, noise_augmentation=noise_augmentation
    )
    core = upscale.upscale(models, (image * 255).round().to(torch.uint8), request)
    ours = (enlarge(image, cfg=cfg, noise_augmentation=noise_augmentation) * 255).round().int() - core.int()
    assert ours.abs().max() <= 2 and (ours != 0).float().mean() < 0.05


def test_back_projection_is_the_file_s_unless_it_is_asked_for(host, studio, tiny_ssr, enlarge):
    core = host.module("lumiere_core.diffusion.back_projection")
    image, (kept, _, _) = clip(5), studio.load("tiny-kept.safetensors", **tiny_ssr(back_projection=3))
    plain = enlarge(image)
    assert torch.equal(enlarge(image, back_projection=0), plain)
    wanted = core.back_project(plain.movedim(-1, 1), image.movedim(-1, 1), 3).clamp(0, 1).movedim(1, -1)
    for made in (enlarge(image, back_projection=3), enlarge(image, kept)):
        assert torch.allclose(made, wanted, atol=1e-5)
    assert not torch.allclose(plain, wanted, atol=1e-2)
    assert torch.equal(enlarge(image, kept, back_projection=0), plain)


def test_frames_of_a_longer_clip_begin_with_the_same_noise(enlarge):
    """No window, no temporal layers (one frame each): the noise alone decides."""
    image = clip(1).expand(5, -1, -1, -1)
    alone = {"context_length": 1, "context_overlap": 0, "noise": "new in each frame"}
    long, short = enlarge(image, **alone), enlarge(image[:2], **alone)
    assert torch.allclose(long[:2], short, atol=1e-5)
    assert not torch.allclose(long[0], long[1], atol=1e-4)


@pytest.mark.parametrize("sampler_name", ["euler", "euler_ancestral", "dpmpp_2m_sde"])
def test_what_stands_still_comes_out_still(enlarge, sampler_name):
    """One noise for all frames, that of every step included, unless it is asked for otherwise."""
    alone = {"context_length": 1, "context_overlap": 0, "sampler_name": sampler_name, "steps": 3}
    for noise_augmentation in (0.0, 0.5):
        made = enlarge(clip(1).expand(3, -1, -1, -1), noise_augmentation=noise_augmentation, **alone)
        assert torch.allclose(made, made[:1].expand_as(made), atol=1e-5)


def test_noise_that_the_layers_never_saw_is_refused(ssr_of_any_noise, enlarge):
    new = {"noise": "new in each frame"}
    with pytest.raises(ValueError, match="'new in each frame', but the temporal layers.*Choose 'same in all frames'"):
        enlarge(clip(4), **new)
    assert torch.equal(enlarge(clip(1), **new), enlarge(clip(1)))
    assert not torch.allclose(enlarge(clip(4), ssr_of_any_noise, **new), enlarge(clip(4), ssr_of_any_noise), atol=1e-4)


def test_each_clip_of_a_batch_gets_its_own_noise(ssr_of_any_noise, enlarge):
    """Also on the small clip: clip k of a batch is the clip of seed + k."""
    model = ssr_of_any_noise
    image = torch.cat([clip(4, seed=1), clip(4, seed=2)])
    for noise in ("same in all frames", "new in each frame"):
        options = {"noise": noise, "noise_augmentation": 0.6, "context_length": 4}
        both = enlarge(image, model, seed=3, **options)
        second = enlarge(image[4:], model, seed=4, **options)
        assert torch.allclose(both[4:], second, atol=1e-4)


def test_noise_augmentation_is_told_and_reproducible(enlarge):
    image = clip(3)
    plain, noisy = enlarge(image), enlarge(image, noise_augmentation=0.7)
    assert not torch.allclose(plain, noisy, atol=1e-3)
    assert torch.equal(noisy, enlarge(image, noise_augmentation=0.7))


def test_inputs_are_left_as_they_are(enlarge, studio, ssr):
    image = clip(3)
    before, wrappers = image.clone(), {k: dict(v) for k, v in ssr.wrappers.items()}
    enlarge(image)
    assert torch.equal(image, before)
    assert "concat_image" not in studio.positive[0][1]
    assert {k: dict(v) for k, v in ssr.wrappers.items()} == wrappers


def test_stock_sampler_with_the_windows_node(host, studio, tiny_ssr, enlarge):
    """KSampler on the MODEL, the small clip in the conditioning: what the node does in one step."""
    import node_helpers

    image = clip(6)
    values = {"concat_image": image.movedim(-1, 1) * 2 - 1, "noise_augmentation": 0.0}
    ssr, _, _ = studio.load("tiny-fresh.safetensors", **tiny_ssr(fresh_noise=0.5))
    prompts = [node_helpers.conditioning_set_values(c, values) for c in (studio.positive, studio.negative)]
    (model,) = host.call(
        "LumiereTemporalMultidiffusion",
        model=ssr,
        context_length=4,
        context_overlap=2,
        weighting="uniform",
        closed_loop=False,
    )
    samples = studio.sample(
        model,
        node="LumiereSampler",
        latent={"samples": torch.zeros(6, 3, 32, 32)},
        cfg=1.0,
        seed=3,
        positive=prompts[0],
        negative=prompts[1],
    )
    wanted = enlarge(image, ssr, noise="new in each frame")
    assert torch.allclose(((samples + 1) / 2).clamp(0, 1).movedim(1, -1), wanted, atol=1e-5)


def test_bad_input_is_named(enlarge, studio, tiny_ssr, host):
    with pytest.raises(ValueError, match="LumiereModel.*makes new clips.*super-resolution MODEL"):
        enlarge(clip(3), studio.model)
    with pytest.raises(ValueError, match="needs no vae"):
        enlarge(clip(3), vae=studio.vae)
    with pytest.raises(ValueError, match="context_overlap is 4 frames with windows of 4"):
        enlarge(clip(3), context_overlap=4)
    with pytest.raises(ValueError, match="must hold the small clip"):
        studio.sample(studio.load("tiny-ssr.safetensors", **tiny_ssr())[0])
    assert enlarge(clip(3)).shape == (3, 32, 32, 3)  # nothing is left behind


def test_a_stage_without_a_text_encoder_loads(studio, tiny_ssr):
    options = tiny_ssr()
    change = options.pop("change")

    def no_text(state, metadata):
        change(state, metadata)
        for key in [k for k in state if k.startswith("text.")]:
            del state[key]

    model, text, _ = studio.load("no-text.safetensors", change=no_text, **options)
    assert text is None and model.model.ssr.scale == 4


def test_memory_holds_one_window(host, studio, ssr, enlarge):
    """The network never sees more frames than a window, the small clip is upsampled a window at a time."""
    from comfy.patcher_extension import WrappersMP

    sizes = []

    def spy(executor, x, t, c_concat=None, *args, **kwargs):
        sizes.append((x.shape[0], c_concat.shape))
        return executor(x, t, c_concat, *args, **kwargs)

    model = ssr.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "spy", spy)
    enlarge(clip(11), model)
    assert {(n, tuple(shape)) for n, shape in sizes} == {(4, (4, 3, 32, 32))}


def test_the_predicted_peak_is_said_before(enlarge, caplog):
    caplog.set_level("INFO")
    enlarge(clip(11))
    lines = [r.getMessage() for r in caplog.records if "predicted peak" in r.getMessage()]
    assert len(lines) == 1 and "11 frames in 5 windows of 4" in lines[0]
    assert np.isfinite(float(lines[0].split("predicted peak ")[1].split(" MiB")[0]))


class EnlargingVae:
    """Decodes 4x4 pixels from each latent pixel, and notes how many frames it was given at once."""

    def __init__(self):
        self.frames = []

    def decode(self, samples):
        self.frames.append(samples.shape[0])
        return torch.nn.functional.interpolate(samples[:, :3].sigmoid(), scale_factor=4).movedim(1, -1)


def test_sd_x4_upscaler(enlarge, backbones):
    """The host's own latent upscaler: the small clip is sliced too, and decoding goes window by window."""
    upscaler, vae = backbones("SD x4"), EnlargingVae()
    prompts = {"positive": backbones.text(1), "negative": backbones.text(2)}
    image = clip(6)
    out = enlarge(image, upscaler, vae=vae, **prompts)
    assert out.shape == (6, 32, 32, 3) and vae.frames == [4, 2]
    whole = enlarge(image, upscaler, vae=EnlargingVae(), context_length=6, **prompts)
    assert torch.allclose(out, whole, atol=1e-3)  # it does not mix frames
    assert not torch.allclose(out, enlarge(1 - image, upscaler, vae=vae, **prompts), atol=1e-2)
    with pytest.raises(ValueError, match="works on latents: connect the VAE"):
        enlarge(image, upscaler, **prompts)
