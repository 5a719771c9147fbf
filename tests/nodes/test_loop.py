"""Lumiere Loop: rings in our layers, turns at every step for any other MODEL."""

import pytest
import torch

pytestmark = pytest.mark.host

FRAMES = 8


@pytest.fixture
def loop(host):
    return lambda model: host.call("LumiereLoop", model=model)[0]


@pytest.fixture
def watched(clips):
    """Function (MODEL) -> a clone, and what its temporal layers are told at each call: (places, closed)."""
    from comfy.patcher_extension import WrappersMP

    def watch(model, monkeypatch):
        seen = []
        layers = clips.temporal_patcher(model).model
        begin = layers.begin

        def spy(*args):
            seen.append(args[5:7])
            return begin(*args)

        monkeypatch.setattr(layers, "begin", spy)
        return seen

    assert WrappersMP
    return watch


def test_our_layers_see_a_ring(studio, loop, watched, monkeypatch):
    model = loop(studio.model)
    seen = watched(model, monkeypatch)
    closed = studio.sample(model, frames=FRAMES)
    open_ended = studio.sample(frames=FRAMES)
    (places, ring), *_ = seen
    assert ring and torch.allclose(places[0, 1:], places[0].flip(0)[:-1]) and places.max() == 1
    assert not torch.allclose(closed, open_ended, atol=1e-4)
    assert not seen[-1][1] and seen[-1][0][0].diff().min() > 0  # the MODEL that was given stays as it was


def test_core_and_host_make_the_same_ring(host, studio, loop, clips):
    """One call of the network, by core's driver and by the host's."""
    import comfy.samplers

    models = host.module("lumiere_core.diffusion.models")
    core, _ = models.load_models(studio.folder / "tiny.safetensors")
    x = torch.randn(FRAMES, 3, studio.SIZE, studio.SIZE, generator=torch.Generator().manual_seed(0))
    found = {}

    def once(denoise, noise, sigmas, extra_args=None, callback=None, disable=None):
        found["x0"] = denoise(x, x.new_full([FRAMES], 2.0), **extra_args)
        return noise

    model = loop(studio.model)
    sampler = comfy.samplers.KSAMPLER(once)
    comfy.samplers.sample(
        model,
        x,
        studio.positive,
        studio.negative,
        1.0,
        model.load_device,
        sampler,
        torch.tensor([2.0, 0.0]),
        model.model_options,
        latent_image=torch.zeros_like(x),
        seed=0,
    )
    text = core.encode(["a red ball"])
    with torch.no_grad():
        wanted = core.denoiser()(x.transpose(0, 1)[None], torch.tensor([2.0]), text, closed=True)
    assert torch.allclose(found["x0"], wanted[0].transpose(0, 1), atol=1e-4)


def test_lengths_that_do_not_close_are_refused(studio, loop):
    with pytest.raises(ValueError, match="loop of 7 frames does not close"):
        studio.sample(loop(studio.model), frames=7)
    assert studio.sample(loop(studio.model), frames=1).isfinite().all()
