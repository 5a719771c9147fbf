"""The temporal layers in the host: any length, one frame, checks, and agreement with core."""

import dataclasses

import pytest
import torch

pytestmark = pytest.mark.host


def image_model(clips, model):
    """A clone of a MODEL without its temporal layers."""
    plain = model.clone()
    plain.remove_additional_models(clips.KEY)
    for kind in list(plain.wrappers):
        plain.remove_wrappers_with_key(kind, clips.KEY)
    plain.model_options["transformer_options"]["patches"].clear()
    plain.object_patches.pop("model_sampling", None)  # Add Noise's common part
    return plain


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 13])
def test_any_number_of_frames(studio, frames):
    samples = studio.sample(frames=frames)
    assert samples.shape == (frames, 3, 16, 16)
    assert samples.isfinite().all()


def test_every_number_of_frames_to_97(studio):
    for frames in range(1, 98):
        latent = {"samples": torch.zeros(frames, 3, 8, 8)}
        samples = studio.sample(latent=latent, steps=1, cfg=1.0)
        assert samples.shape == (frames, 3, 8, 8) and samples.isfinite().all(), frames


def test_one_frame_is_the_image_model(studio, clips):
    plain = studio.sample(image_model(clips, studio.model), frames=1)
    assert torch.equal(studio.sample(frames=1), plain)
    frames = studio.sample(frames=4) - studio.sample(image_model(clips, studio.model), frames=4)
    assert frames.abs().max() > 1e-3  # and more frames are not


def test_every_nth_frame_is_the_image_at_initialisation(studio, inflate, clips):
    plain = image_model(clips, studio.model)
    config = inflate.inflation_of(studio.model).temporal_config
    # The image model alone has no noise in common to its frames.
    fresh = inflate.inflate(plain, None, dataclasses.replace(config, shared_noise=0.0))
    stride = clips.temporal_patcher(fresh).model.total_stride
    latent = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images, clip = (network_call(studio, model)(latent) for model in (plain, fresh))
    difference = (clip - images).abs().amax(dim=(1, 2, 3))
    assert difference[::stride].max() < 1e-5
    assert difference[1] > 1e-3


def test_padding_in_time_is_reflection(studio, host, monkeypatch):
    """5 frames give what 6 frames with the reflected end give, at one network call, but for the sixth frame's place."""
    layers = host.module("lumiere_core.nets.temporal").TemporalLayers
    monkeypatch.setattr(layers, "places", lambda self, numbers, clip_frames=0, closed=False: torch.zeros(numbers.shape))
    video = host.module("lumiere_core.clips.video")
    numbers = video.padded_frames(5, 2)
    assert numbers.tolist() == [0, 1, 2, 3, 4, 3]
    latent = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    call = network_call(studio, studio.model)
    assert torch.allclose(call(latent), call(latent[numbers])[:5], atol=1e-5)


def network_call(studio, model, sigma=2.0):
    """Function (frames, 3, h, w) -> clean estimate, by one call of the host's model in a run."""
    import comfy.samplers

    def call(x):
        estimate = {}

        def once(denoise, x, sigmas, extra_args=None, callback=None, disable=None):
            estimate["x0"] = denoise(x, x.new_full([len(x)], sigma), **extra_args)
            return x

        comfy.samplers.sample(
            model,
            x,
            studio.positive,
            studio.negative,
            1.0,
            model.load_device,
            comfy.samplers.KSAMPLER(once),
            torch.tensor([sigma, 0.0]),
            model.model_options,
            latent_image=torch.zeros_like(x),
            seed=0,
        )
        return estimate["x0"]

    return call


def test_clips_in_a_batch_do_not_touch(studio):
    two, _, _ = studio.load("tiny.safetensors", frames_per_clip=4)
    one = {"samples": torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))}
    both = {"samples": torch.cat([one["samples"], torch.zeros(4, 3, 16, 16)])}
    options = {"denoise": 0.5, "sampler_name": "euler", "steps": 2}
    first = studio.sample(two, latent=both, **options)[:4]
    assert torch.allclose(first, studio.sample(latent=one, **options), atol=1e-4)


def test_batch_that_is_no_multiple_of_the_clip_is_refused(studio):
    four, _, _ = studio.load("tiny.safetensors", frames_per_clip=4)
    with pytest.raises(ValueError, match=r"batch of 6 frames.*clips of 4 frames.*\[1, 2, 3, 6\]"):
        studio.sample(four, frames=6)


def test_run_without_temporal_layers_is_an_error(studio):
    from comfy.patcher_extension import WrappersMP

    model = studio.model.clone()

    def replaces(executor, x, *args, **kwargs):
        return torch.zeros_like(x)

    wrappers = model.wrappers[WrappersMP.DIFFUSION_MODEL]
    model.wrappers[WrappersMP.DIFFUSION_MODEL] = {"other": [replaces], **wrappers}
    with pytest.raises(RuntimeError, match="no temporal layer ran"):
        studio.sample(model)
    assert studio.sample(model, frames=1).shape[0] == 1


def test_handlers_of_another_pack_are_named(studio, log):
    from comfy.ldm.modules.diffusionmodules.openaimodel import Upsample

    def their_handler(layer, x, *args):
        return layer(x)

    model = studio.model.clone()
    model.set_model_forward_timestep_embed_patch((Upsample, their_handler))
    studio.sample(model)
    assert "their_handler for Upsample" in log()


def test_nan_stops_the_run_and_names_the_step(studio):
    def damage(state, metadata):
        state["image.out.2.weight"].fill_(3e38)  # finite, as far as a file goes

    model, _, _ = studio.load("nan.safetensors", change=damage)
    with pytest.raises(FloatingPointError, match=r"step 1 of 2 \(sigma 80"):
        studio.sample(model)
    assert studio.sample().isfinite().all()  # the next run is none the worse


def test_warnings_outside_the_trained_size_and_length(studio, log):
    studio.sample(frames=8)
    assert "trained on" not in log()
    studio.sample(latent={"samples": torch.zeros(18, 3, 16, 24)})
    assert "18 frames; these weights were trained on 16" in log()
    assert "24x16 pixels; these weights were trained on 16x16" in log()


def test_memory_of_the_temporal_layers_is_asked_for(studio, monkeypatch):
    import comfy.sampler_helpers

    asked = []
    original = comfy.sampler_helpers.estimate_memory

    def estimate(model, shape, conds):
        asked.append(list(shape))
        return original(model, shape, conds)

    monkeypatch.setattr(comfy.sampler_helpers, "estimate_memory", estimate)
    studio.sample(frames=8)
    assert asked[0][0] > 8 and asked[0][1:] == [3, 16, 16]


def test_temporal_layers_are_loaded_and_patched_as_a_model(studio, clips):
    model = studio.model.clone()
    before = studio.sample()
    patcher = clips.temporal_patcher(model)
    key = "middle_block.inflation.proj.weight"
    assert patcher.add_patches({key: ("diff", (torch.ones_like(patcher.model.state_dict()[key]),))})
    assert not torch.allclose(studio.sample(model), before)
    assert torch.equal(studio.sample(), before)  # and reverts


def test_deep_copy_is_made_from_the_files(studio, clips):
    copy = studio.model.clone(force_deepcopy=True)
    temporal = clips.temporal_patcher(studio.model)
    again = temporal.clone(force_deepcopy=True)
    assert copy.model is not studio.model.model and again.model is not temporal.model
    for key, value in temporal.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key])
    assert torch.equal(studio.sample(copy), studio.sample())


def test_model_that_is_no_u_net_is_refused(inflate):
    class Model:
        class model:
            class model_config:
                unet_config = {}

        @staticmethod
        def get_model_object(name):
            return torch.nn.Linear(1, 1)

    with pytest.raises(ValueError, match="cannot be inflated: its network is a Linear"):
        inflate.unet_config_of(Model)


def test_inflating_twice_does_not_stack(studio, inflate, clips):
    config = inflate.inflation_of(studio.model).temporal_config
    state = clips.temporal_patcher(studio.model).model.state_dict()
    twice = inflate.inflate(studio.model, state, config)
    assert torch.equal(studio.sample(twice), studio.sample())
