"""Guidance that ends at weak noise, with the host's own samplers."""

import pytest
import torch

pytestmark = pytest.mark.host
STEPS = 4  # at sigmas 80, 11.7, 0.73 and 0.002 of the small model


@pytest.fixture
def ended(host, studio):
    """A function: the studio's MODEL with guidance up to a share of the noise levels."""
    end_guidance = host.module("nodes.host.guidance").end_guidance
    whole = studio.host.call(
        "LumiereLoader", checkpoint="tiny.safetensors", dtype="default", frames_per_clip=0, guidance_end=1.0
    )[0]
    return lambda end, model=whole: end_guidance(model, end)


def asked(model, prompts):
    """A clone that notes how many prompts each step asks the network about."""
    from comfy.patcher_extension import WrappersMP

    model = model.clone()

    def spy(executor, *args, **kwargs):
        options = next(a for a in (*args, *kwargs.values()) if isinstance(a, dict) and "cond_or_uncond" in a)
        prompts.append(options["cond_or_uncond"])
        return executor(*args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test_guidance", spy)
    return model


def test_after_its_end_a_step_asks_for_the_prompt_alone(ended, studio):
    for end, wanted in ((0.5, 2), (0.0, 0), (1.0, STEPS)):
        prompts = []
        studio.sample(asked(ended(end), prompts), steps=STEPS)
        assert [len(step) for step in prompts] == [2] * wanted + [1] * (STEPS - wanted), end
        assert all(step == [0] for step in prompts[wanted:])


def test_it_is_the_same_as_two_samplers_of_the_host(host, ended, studio):
    settings = {"steps": STEPS, "cfg": 3.0}
    made = studio.sample(ended(0.5), **settings)
    whole = ended(1.0)
    latent = {"samples": torch.zeros(4, 3, studio.SIZE, studio.SIZE)}
    common = {
        "noise_seed": 1,
        "steps": STEPS,
        "sampler_name": "euler",
        "scheduler": "karras",
        "positive": studio.positive,
        "negative": studio.negative,
    }
    first = {"add_noise": "enable", "cfg": 3.0, "start_at_step": 0, "end_at_step": 2}
    (half,) = host.call(
        "KSamplerAdvanced", model=whole, latent_image=latent, return_with_leftover_noise="enable", **common, **first
    )
    second = {"add_noise": "disable", "cfg": 1.0, "start_at_step": 2, "end_at_step": STEPS}
    (both,) = host.call(
        "KSamplerAdvanced", model=whole, latent_image=half, return_with_leftover_noise="disable", **common, **second
    )
    assert torch.allclose(made, both["samples"], atol=1e-4)
    assert (made - studio.sample(whole, **settings)).abs().max() > 1e-2


def test_the_loader_ends_it_at_half(ended, studio):
    assert torch.equal(studio.sample(steps=STEPS), studio.sample(ended(0.5), steps=STEPS))


def test_patches_of_the_negative_prompt_still_see_it(ended, studio):
    """Self-Attention Guidance asks for both, whatever cfg is."""
    model, prompts = ended(0.5), []
    model.model_options["disable_cfg1_optimization"] = True
    made = studio.sample(asked(model, prompts), steps=STEPS)
    assert [len(step) for step in prompts] == [2] * STEPS
    assert torch.allclose(made, studio.sample(ended(0.5), steps=STEPS), atol=1e-4)


def test_another_pack_s_function_is_still_asked(ended, studio):
    import comfy.samplers

    sigmas = []

    def other(args):
        sigmas.append(float(args["sigma"].max()))
        return comfy.samplers.calc_cond_batch(
            args["model"], args["conds"], args["input"], args["sigma"], args["model_options"]
        )

    model = ended(1.0).clone()
    model.set_model_sampler_calc_cond_batch_function(other)
    made = studio.sample(ended(0.5, model), steps=STEPS)
    assert len(sigmas) == STEPS and torch.equal(made, studio.sample(ended(0.5), steps=STEPS))


def test_nothing_is_written_into_the_model(ended):
    whole = ended(1.0)
    before = dict(whole.model_options)
    assert ended(0.5, whole) is not whole and whole.model_options == before and ended(1.0, whole) is whole
