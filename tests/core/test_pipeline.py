"""Text to clip without a host."""

import pytest
import torch

from lumiere_core.diffusion.generate import Request, generate
from lumiere_core.diffusion.guidance import guidance_ends
from lumiere_core.diffusion.models import Models, load_models, weight_files
from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.nets.checkpoint import load_file, metadata_for, save_file

SMALL = {"num_frames": 4, "height": 8, "width": 8, "steps": 3}


@pytest.fixture
def models(tiny):
    """A function: models with temporal layers that are fresh, "trained" or absent."""

    def build(temporal="trained", prediction="v"):
        layers = None if temporal is None else tiny.temporal(trained=temporal == "trained")
        return Models(tiny.text(), tiny.unet(), layers, Schedule("cosine", prediction))

    return build


def request(**changes):
    return Request(**{"prompt": "a red ball"} | SMALL | changes)


def test_a_clip_is_made(models):
    steps, floats = [], []
    frames = generate(models(), request(), lambda *step: steps.append(step), floats.append)
    assert frames.shape == (4, 8, 8, 3) and frames.dtype == torch.uint8
    assert frames.float().std() > 1
    assert [step for step, _, _ in steps] == [0, 1, 2]
    assert steps[0][2].shape == floats[0].shape == (1, 3, 4, 8, 8)


def test_every_field_of_a_request_matters(models):
    built = models()
    before = generate(built, request())
    assert torch.equal(before, generate(built, request()))
    for changes in (
        {"prompt": "a blue star"},
        {"negative": "snow"},
        {"seed": 1},
        {"steps": 4},
        {"cfg": 5.0},
        {"guidance_end": 1.0},
        {"sampler": "ddpm"},
        {"scheduler": "normal"},
        {"threshold": 0.5},
    ):
        assert not torch.equal(before, generate(built, request(**changes))), changes
    assert generate(built, request(num_frames=3, height=10, width=6)).shape == (3, 10, 6, 3)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_key_frames_do_not_depend_on_the_clips_length(models, sampler):
    """With fresh layers frame 0 of any clip is the still image of the same seed, to the last level."""
    fresh = models("fresh")
    still = generate(fresh, request(num_frames=1, sampler=sampler)).int()
    for frames in (2, 5, 8):
        clip = generate(fresh, request(num_frames=frames, sampler=sampler)).int()
        assert (clip[:1] - still).abs().max() <= 1
        assert (clip[1:2] - still).abs().max() > 1


def test_the_network_is_asked_once_a_step_where_there_is_no_guidance(models):
    built = models()
    calls = []
    built.unet.register_forward_pre_hook(lambda *a: calls.append(1))
    for cfg, end, wanted in ((1.0, 1.0, 3), (4.0, 1.0, 6), (4.0, 0.0, 3), (4.0, 0.5, 5), (4.0, 0.05, 4)):
        calls.clear()
        generate(built, request(num_frames=1, cfg=cfg, guidance_end=end))
        assert len(calls) == wanted, (cfg, end)


def test_the_end_of_guidance_is_a_share_of_the_noise_levels(models):
    schedule = models().schedule
    ends = [guidance_ends(schedule, end) for end in (0.0, 0.01, 0.5, 0.99, 1.0)]
    assert ends == sorted(ends, reverse=True) and ends[0] == float("inf") and ends[-1] == 0
    assert ends[2] == pytest.approx(schedule.sigma(torch.tensor((schedule.steps - 1) / 2)).item())
    with pytest.raises(ValueError, match="guidance_end is 1.5"):
        request(guidance_end=1.5)


def test_guidance_is_that_of_the_formula(models):
    built, seen = models(), {}
    for cfg in (0.0, 1.0, 3.0):
        generate(built, request(steps=1, cfg=cfg), lambda _s, _sigma, x0, cfg=cfg: seen.update({cfg: x0}))
    assert torch.allclose(seen[3.0], seen[0.0] + 3 * (seen[1.0] - seen[0.0]), atol=1e-4)


def test_thresholding_keeps_estimates_in_range(models):
    largest = []
    for threshold in (0.0, 0.9):
        request_ = request(threshold=threshold, cfg=30.0)
        estimates = []
        generate(models(), request_, lambda _s, _sigma, x0, kept=estimates: kept.append(x0.abs().max()))
        largest.append(max(estimates))
    assert largest[0] > 1 and largest[1] <= 1


@pytest.mark.parametrize("prediction", ["v", "eps", "x0"])
def test_every_prediction_is_sampled(models, prediction):
    assert generate(models(prediction=prediction), request()).shape == (4, 8, 8, 3)


def test_without_temporal_layers_there_are_single_images(models):
    alone = models(None)
    assert generate(alone, request(num_frames=1)).shape == (1, 8, 8, 3)
    assert torch.equal(generate(alone, request(num_frames=1)), generate(models(), request(num_frames=1)))
    with pytest.raises(ValueError, match="4 frames are wanted, but .* no temporal layers.*ask for 1 frame"):
        generate(alone, request())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 0}, "got 0 frames and 3 steps; both must be at least 1"),
        ({"steps": 0}, "got 4 frames and 0 steps"),
        ({"height": 0}, "the size is 8x0 pixels"),
        ({"width": -8}, "the size is -8x8 pixels"),
        ({"threshold": 99.5}, "the threshold is 99.5.*0.995"),
        ({"threshold": -0.1}, "the threshold is -0.1"),
        ({"sampler": "euler"}, "sampler 'euler'.*ddim"),
        ({"scheduler": "simple"}, "scheduler 'simple'.*karras"),
    ],
)
def test_requests_that_cannot_be_met(changes, message):
    with pytest.raises(ValueError, match=message):
        request(**changes)


def test_models_are_loaded_from_a_folder_or_a_file(weights, tmp_path):
    models, parts = load_models(weights)
    assert parts.config["size"] == [16, 16] and set(parts.sha256) == {
        f"{p}.safetensors" for p in ("text", "image", "temporal")
    }
    everything = {}
    for path in weights.iterdir():
        everything |= load_file(path)[0]
    save_file(everything, tmp_path / "all.safetensors", metadata_for("all", parts.config))
    again, _ = load_models(str(tmp_path / "all.safetensors"))
    assert torch.equal(generate(models, request()), generate(again, request()))
    for module in (models.text, models.unet, models.temporal):
        assert not module.training
        assert {p.dtype for p in module.parameters()} == {torch.float32}  # the files hold halves
        assert not any(p.requires_grad for p in module.parameters())


def test_parts_may_be_missing(weights):
    (weights / "temporal.safetensors").unlink()
    assert load_models(weights)[0].temporal is None
    (weights / "text.safetensors").unlink()
    with pytest.raises(ValueError, match="image.safetensors holds no text weights"):
        load_models(weights)


def test_weights_that_do_not_fit_are_named(weights):
    path = weights / "temporal.safetensors"
    state, metadata = load_file(path)
    del state["temporal.middle_block.inflation.proj.bias"]
    save_file(state, path, metadata)
    with pytest.raises(
        ValueError, match="temporal layers of .*temporal.safetensors.* do not fit.*middle_block.inflation.proj.bias"
    ):
        load_models(weights)


def test_names_stand_for_files(weights, tmp_path):
    assert [path.name for path in weight_files(weights)] == [
        "image.safetensors",
        "temporal.safetensors",
        "text.safetensors",
    ]
    assert weight_files("a/b.safetensors")[0].name == "b.safetensors"
    with pytest.raises(ValueError, match="holds no text and no image weights"):
        load_models(tmp_path)


@pytest.mark.parametrize("prediction", ["v", "eps", "x0"])
def test_the_denoiser_is_the_schedule_around_the_network(models, tiny, prediction):
    """What is predicted of noised data, at the schedule's input scale, made into a clean estimate."""
    built = models(prediction=prediction)
    denoiser, schedule = built.denoiser(), built.schedule
    x, sigma = tiny.inputs().x, torch.tensor([2.0])
    text = built.encode(["a red ball"])
    with torch.no_grad():
        answer = built.network()(schedule.network_input(x, sigma), schedule.timestep(sigma).float(), *text)
        assert torch.allclose(denoiser.predict(x / 5**0.5, schedule.timestep(sigma).float(), text), answer, atol=1e-4)
        assert torch.equal(denoiser(x, sigma, text), schedule.denoised(x, answer, sigma))
