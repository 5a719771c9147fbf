"""The Lumiere Sampler: noise, thresholding, previews, errors in the middle of a run."""

import argparse
import gc
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.host


def run(studio, frames=4, **options):
    return studio.sample(frames=frames, node="LumiereSampler", **options)


@pytest.fixture
def still_model(host, studio, clips):
    """A MODEL whose frames have nothing to do with each other: differences come from the noise alone."""
    model, _, _ = studio.load("tiny.safetensors", frames_per_clip=0)
    for kind in list(model.wrappers):
        model.remove_wrappers_with_key(kind, clips.KEY)
    model.remove_additional_models(clips.KEY)
    return model


ADDS_NOISE = [
    "euler_ancestral",
    "euler_ancestral_cfg_pp",
    "dpm_2_ancestral",
    "dpmpp_2s_ancestral",
    "dpmpp_2s_ancestral_cfg_pp",
    "dpmpp_sde",
    "dpmpp_sde_gpu",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu",
    "dpmpp_2m_sde_heun",
    "dpmpp_2m_sde_heun_gpu",
    "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu",
    "ddpm",
    "lcm",
    "er_sde",
    "seeds_2",
    "seeds_3",
    "sa_solver",
    "sa_solver_pece",
    "res_multistep_ancestral",
    "res_multistep_ancestral_cfg_pp",
    "exp_heun_2_x0_sde",
]
ADDS_NONE = [
    "euler",
    "euler_cfg_pp",
    "heun",
    "heunpp2",
    "exp_heun_2_x0",
    "dpm_2",
    "lms",
    "dpm_fast",
    "dpmpp_2m",
    "dpmpp_2m_cfg_pp",
    "ddim",
    "uni_pc",
    "uni_pc_bh2",
    "deis",
    "ipndm",
    "ipndm_v",
    "res_multistep",
    "res_multistep_cfg_pp",
    "gradient_estimation",
    "gradient_estimation_cfg_pp",
]
BY_THE_BATCH = ["dpm_adaptive"]  # the error over all frames chooses the next step
HELP = Path(__file__).resolve().parents[2] / "js" / "docs" / "LumiereSampler.md"


@pytest.mark.parametrize("sampler", [*ADDS_NOISE, *ADDS_NONE])
def test_noise_of_a_frame_does_not_depend_on_the_length(still_model, studio, sampler):
    options = {"model": still_model, "sampler_name": sampler, "steps": 3, "cfg": 1.0, "seed": 5}
    long, short = run(studio, 5, **options), run(studio, 2, **options)
    # Other noise is off by 0.1 and more; rounding, which the batch's size changes and dpm_fast blows up, by far less.
    assert torch.allclose(long[:2], short, atol=5e-3)
    assert (long[0] - long[1]).abs().mean() > 0.01


def test_every_sampler_of_the_host_is_known(host):
    """A new one must be sorted into the lists above and the help page."""
    import inspect

    import comfy.samplers

    assert sorted(ADDS_NOISE + ADDS_NONE + BY_THE_BATCH) == sorted(comfy.samplers.SAMPLER_NAMES)
    page = HELP.read_text("utf-8")
    assert [name for name in ADDS_NONE + BY_THE_BATCH if f"`{name}`" not in page] == []
    takes_noise = {
        name
        for name in comfy.samplers.SAMPLER_NAMES
        if "noise_sampler" in inspect.signature(comfy.samplers.sampler_object(name).sampler_function).parameters
    }
    brownian = {n for n in takes_noise if n.removesuffix("_gpu") in host.module("nodes.host.noise").BROWNIAN}
    source = inspect.getsource(comfy.samplers.k_diffusion_sampling)
    for name in takes_noise:
        function = source.split(f"def sample_{name}(")[1].split("\n@torch")[0]
        assert ("BrownianTreeNoiseSampler(" in function) == (name in brownian) or name.endswith("heun"), name


def test_initial_noise_is_core_s(host, studio):
    nodes_noise, noise = host.module("nodes.host.noise"), host.module("lumiere_core.diffusion.noise")
    ours = nodes_noise.ClipNoise.of_clips(9, clips=2, frames=3).initial(torch.zeros(6, 3, 16, 16))
    assert torch.equal(ours[:3], noise.frame_noise(9, 3, (3, 16, 16)))
    assert torch.equal(ours[3:], noise.frame_noise(10, 3, (3, 16, 16)))


def test_initial_noise_of_the_host_begins_alike(studio):
    """What the help page says of KSampler."""
    from comfy.sample import prepare_noise

    long, short = (prepare_noise(torch.zeros(n, 3, 16, 16), 3) for n in (20, 7))
    assert torch.equal(long[:7], short)


@pytest.mark.parametrize("node", ["KSampler", "LumiereSampler"])
def test_frames_begin_with_as_much_noise_in_common_as_the_layers_were_trained_on(host, studio, node):
    """Of the MODEL, not of the sampler node: every node of the host draws it for each frame alone."""
    noise = host.module("lumiere_core.diffusion.noise")
    two, _, _ = studio.load("tiny.safetensors", frames_per_clip=3)
    model, seen = two.clone(), []

    def spy(apply, arguments):
        seen.append(arguments["input"][:6].clone())  # the first calls hold positive and negative
        return apply(arguments["input"], arguments["timestep"], **arguments["c"])

    model.set_model_unet_function_wrapper(spy)
    studio.sample(model, 6, node=node, seed=9, cfg=1.0)
    own = noise.frame_noise(9, 3, (3, 16, 16)), noise.frame_noise(10, 3, (3, 16, 16))
    if node == "KSampler":
        from comfy.sample import prepare_noise

        own = prepare_noise(torch.zeros(6, 3, 16, 16), 9).split(3)
    common = [noise.frame_noise(seed, [noise.COMMON], (3, 16, 16)) for seed in (9, 10)]
    wanted = torch.cat([noise.mix_noise(*pair, 0.8) for pair in zip(own, common, strict=True)])
    assert torch.allclose(seen[0] / seen[0].std(), wanted / wanted.std(), atol=1e-4)


def test_a_latent_that_gets_no_noise_gets_none_in_common_either(host):
    noise, seen = host.module("nodes.host.noise"), []

    def executor(noise, *_, **__):
        seen.append(noise)

    executor.class_obj = argparse.Namespace(model_options={})
    share = noise.ShareNoise(0, 0.8)
    share(executor, torch.zeros(4, 3, 8, 8), None, None, None, seed=3)
    share(executor, torch.ones(4, 3, 8, 8), None, None, None, seed=3)
    assert not seen[0].any() and seen[1].std() > 0.5


def test_clips_of_a_batch_are_those_of_the_next_seeds(studio):
    two, _, _ = studio.load("tiny.safetensors", frames_per_clip=3)
    both = run(studio, 6, model=two, seed=4, sampler_name="euler_ancestral", steps=3)
    second = run(studio, 3, seed=5, sampler_name="euler_ancestral", steps=3)
    assert torch.allclose(both[3:], second, atol=1e-4)


def test_works_on_a_model_without_temporal_layers(still_model, studio):
    assert run(studio, 2, model=still_model).shape == (2, 3, 16, 16)


def test_dynamic_threshold_keeps_the_range(studio):
    wild = run(studio, cfg=30.0, steps=3)
    tame = run(studio, cfg=30.0, steps=3, dynamic_threshold=0.9)
    assert wild.abs().max() > 1.01 and tame.abs().max() <= 1.0001
    assert torch.equal(run(studio, cfg=30.0, steps=3, dynamic_threshold=1.0), wild)


def test_dynamic_threshold_on_latents_is_refused(host):
    sampling = host.module("nodes.sampling")

    class Latents:
        latent_channels = 4

    class Model:
        get_model_object = staticmethod(lambda name: Latents)

    with pytest.raises(ValueError, match="latents of 4 channels.*Set dynamic_threshold to 0"):
        sampling.with_dynamic_threshold(Model, 0.99, 4)


@pytest.mark.parametrize("node", ["LumiereSampler", "KSampler"])
def test_preview_shows_the_clip(host, studio, monkeypatch, node):
    import comfy.utils

    pictures = []

    def hook(value, total, preview, prompt_id=None, node_id=None):
        if preview is not None:
            pictures.append((value, preview[1]))

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    studio.sample(frames=16, node=node, steps=3)
    assert [value for value, _ in pictures] == [1, 2, 3]
    assert {image.size for _, image in pictures} == {(64, 32)}  # 8 frames of 16 x 16, 4 in a row


def test_where_the_host_draws_previews_ours_does_not(host, studio, monkeypatch):
    import comfy.utils
    from comfy.cli_args import LatentPreviewMethod, args

    pictures = []

    def hook(value, total, preview, prompt_id=None, node_id=None):
        pictures.append(preview and preview[1].size)

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Latent2RGB)
    studio.sample(frames=16, steps=2)
    assert pictures == [(16, 16)] * 2  # the host's, of one frame


def test_tiles_are_in_reading_order(host):
    preview = host.module("nodes.host.preview")
    clip = torch.arange(15.0).view(15, 1, 1, 1)
    assert preview.tile_frames(clip)[0, 0].tolist() == [[0, 2, 4, 6], [8, 10, 12, 14]]
    assert preview.tile_frames(clip[:5])[0, 0].tolist() == [[0, 1, 2, 3], [4, 4, 4, 4]]
    assert preview.tile_frames(clip[:1])[0, 0].tolist() == [[0]]


def live_tensors():
    gc.collect()
    return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize("node", ["KSampler", "LumiereSampler"])
def test_a_sampler_that_makes_no_step_is_named(studio, node):
    """dpm_adaptive goes from the first noise level to the last but one: of one step, they are the same."""
    with pytest.raises(ValueError, match="the sampler made no step .* in 1 steps, so the clip is noise still"):
        studio.sample(node=node, steps=1, sampler_name="dpm_adaptive", scheduler="simple", denoise=0.3)
    assert studio.sample(node=node, steps=2, sampler_name="dpm_adaptive", scheduler="simple").isfinite().all()


@pytest.mark.parametrize("node", ["LumiereSampler", "KSampler"])
def test_no_prompt_at_all_is_named(studio, node):
    """What no network answered is no clip; another node is not to blame."""
    with pytest.raises(ValueError, match="an empty text is a prompt too"):
        studio.sample(frames=4, node=node, positive=[], negative=[])


def test_a_prompt_that_counts_is_wanted(studio):
    with pytest.raises(ValueError, match="negative holds no prompt"):
        run(studio, negative=[], cfg=3.0)
    assert run(studio, negative=[], cfg=1.0).isfinite().all()


def test_interrupt_in_the_middle_gives_the_memory_back(studio, monkeypatch):
    import comfy.model_management as management
    import comfy.utils

    want = run(studio)
    before = live_tensors()

    def hook(value, total, preview, prompt_id=None, node_id=None):
        if value == 2:
            management.interrupt_current_processing()
        management.throw_exception_if_processing_interrupted()

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    with pytest.raises(management.InterruptProcessingException):
        run(studio, steps=5)
    monkeypatch.undo()
    assert live_tensors() <= before
    assert torch.equal(run(studio), want)  # the next run is none the worse


def test_error_in_the_middle_gives_the_memory_back(studio, monkeypatch):
    import comfy.utils

    want = run(studio)
    before = live_tensors()

    def hook(*args, **kwargs):
        raise MemoryError("as if the device were full")

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    try:
        run(studio)
    except MemoryError as error:
        error.__traceback__ = None
    monkeypatch.undo()
    assert live_tensors() <= before
    assert torch.equal(run(studio), want)


def test_empty_latent_video(host):
    latent, fps = host.call("EmptyLumiereLatentVideo", width=32, height=24, length=5, batch_size=2, fps=12.5)
    assert fps == 12.5
    assert latent["samples"].shape == (10, 3, 24 // 8, 32 // 8) and latent["downscale_ratio_spacial"] == 8


def test_zero_frames_are_refused_by_the_host(host):
    prompt = {
        "1": {
            "class_type": "EmptyLumiereLatentVideo",
            "inputs": {"width": 16, "height": 16, "length": 0, "batch_size": 1},
        },
        "2": {"class_type": "LatentFlip", "inputs": {"samples": ["1", 0], "flip_method": "x-axis: vertically"}},
        "3": {"class_type": "SaveLatent", "inputs": {"samples": ["2", 0], "filename_prefix": "x"}},
    }
    with pytest.raises(host.HostError, match="length.*smaller than min of 1|smaller than min of 1.*length"):
        host.run(prompt)


@pytest.mark.parametrize("size", [(15, 17), (16, 19), (1, 1)])
def test_odd_sizes_work(studio, size):
    latent = {"samples": torch.zeros(3, 3, *size)}
    assert run(studio, latent=latent).shape == (3, 3, *size)
