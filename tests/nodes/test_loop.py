"""Lumiere Loop: rings in our layers, turns at every step for any other MODEL."""

import pytest
import torch

pytestmark = pytest.mark.host

FRAMES = 8


@pytest.fixture
def loop(host):
    return lambda model: host.call("LumiereLoop", model=model)[0]


@pytest.fixture
def windows(host):
    def call(model, length=4, closed_loop=False):
        return host.call(
            "LumiereTemporalMultidiffusion",
            model=model,
            context_length=length,
            context_overlap=2,
            weighting="uniform",
            closed_loop=closed_loop,
        )[0]

    return call


@pytest.fixture
def watched(clips):
    """Function (MODEL) -> a clone, and what its temporal layers are told at each call: (places, closed)."""
    from comfy.patcher_extension import WrappersMP

    def watch(model, monkeypatch):
        seen = []
        layers = clips.temporal_patcher(model).model
        begin = layers.begin

        def spy(*args, places=None, closed=False, **named):
            seen.append((places, closed))
            return begin(*args, places=places, closed=closed, **named)

        monkeypatch.setattr(layers, "begin", spy)
        return seen

    assert WrappersMP
    return watch


def inputs_of(model):
    """Return a clone, and a list of what each call of its network gets."""
    from comfy.patcher_extension import WrappersMP

    seen = []

    def spy(executor, x, t, c_concat=None, c_crossattn=None, *args, **kwargs):
        seen.append((x, c_crossattn))
        return executor(x, t, c_concat, c_crossattn, *args, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "spy", spy)
    return model, seen


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


def test_windows_of_our_loops_go_around(studio, loop, windows, watched, monkeypatch):
    for model in (windows(loop(studio.model)), loop(windows(studio.model)), windows(studio.model, closed_loop=True)):
        with monkeypatch.context() as patch:
            seen = watched(model, patch)
            studio.sample(model, frames=FRAMES, cfg=1.0)
        assert not any(ring for _, ring in seen)  # an arc has ends
        rows = {tuple(round(p, 3) for p in places[0].tolist()) for places, _ in seen}
        # One of them goes over the end: its places fall to the first frame's, 0, and rise again.
        assert any(0.0 in row[1:-1] for row in rows)


def test_closed_loop_of_one_window_is_a_loop(studio, loop, windows):
    one = studio.sample(windows(studio.model, FRAMES, closed_loop=True), frames=FRAMES)
    assert torch.equal(one, studio.sample(loop(studio.model), frames=FRAMES))


def test_lengths_that_do_not_close_are_refused(studio, loop):
    with pytest.raises(ValueError, match="loop of 7 frames does not close"):
        studio.sample(loop(studio.model), frames=7)
    assert studio.sample(loop(studio.model), frames=1).isfinite().all()


def test_other_models_are_turned_at_every_step(backbones, loop):
    """Each picture keeps its noise and its own prompt, so models without a sense of time make the same."""
    text = torch.cat([backbones.text(i)[0][0] for i in range(FRAMES)])
    positive = [[text, backbones.text(1)[0][1]]]
    model, seen = inputs_of(backbones("SD15"))
    made = backbones.sample(loop(model), positive=positive, cfg=1.0, steps=4)
    first = [next(i for i in range(FRAMES) if torch.equal(c[0], text[i])) for _, c in seen]
    assert len(first) == 4 and len(set(first)) == 4 and first[0] == 0
    for (_, context), start in zip(seen, first, strict=True):
        assert torch.equal(context, text.roll(-start, 0))
    assert torch.allclose(made, backbones.sample(backbones("SD15"), positive=positive, cfg=1.0, steps=4), atol=1e-4)


def test_clips_of_a_batch_are_turned_each_by_itself(backbones, loop, host, clips):
    turns = host.module("nodes.host.loop").Turns(4, 2, 0, torch.Size([8, 4, 8, 8]))
    for step in range(6):
        rows = turns.rows(step)
        assert sorted(rows) == list(range(8)) and all(r // 4 == i // 4 for i, r in enumerate(rows))
        assert [(b - a) % 4 for a, b in zip(rows[:4], rows[1:4], strict=False)] == [1, 1, 1]


@pytest.mark.parametrize("schedule", ["standard_static", "standard_uniform", "batched", "looped_uniform"])
def test_the_hosts_windows_must_go_around(hosts_windows, backbones, studio, loop, schedule):
    """Otherwise no window sees both ends, and nothing loops."""
    for model, sample in ((backbones("SD15"), backbones.sample), (studio.model, studio.sample)):
        cut = hosts_windows(loop(model), schedule, closed_loop=True)
        assert sample(cut, frames=4).isfinite().all()  # one window
        if schedule == "looped_uniform":
            assert sample(cut, frames=FRAMES).isfinite().all()
            continue
        with pytest.raises(ValueError, match=f"schedule {schedule} of Context Windows"):
            sample(cut, frames=FRAMES)


@pytest.mark.parametrize("name", ["Wan", "Hunyuan", "Cosmos", "Mochi", "LTX"])
def test_video_models_are_turned(host, video_models, loop, name):
    model, channels = video_models.video_model(name)
    model, seen = inputs_of(model)
    values = {"pooled_output": torch.ones(1, 24), "attention_mask": torch.ones(1, 4).long()}
    prompt = video_models.prompt(**values)
    latent = {"samples": torch.zeros(1, channels, 5, 4, 4)}

    def sample(model):
        settings = {"seed": 1, "steps": 3, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
        return host.call("KSampler", model=model, positive=prompt, negative=prompt, latent_image=latent, **settings)[0][
            "samples"
        ]

    closed = sample(loop(model))
    turned = [x for x, _ in seen]
    seen.clear()
    plain = sample(model)
    assert torch.equal(turned[0], seen[0][0])  # the first step is not turned
    assert closed.shape == plain.shape and closed.isfinite().all() and not torch.allclose(closed, plain, atol=1e-3)
