"""What each phase trains and exports; the image model stays frozen under the temporal layers (§3.1)."""

import pytest
import torch
from PIL import Image

from lumiere_core import world
from lumiere_core.diffusion.models import load_models
from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.nets.checkpoint import load_parts
from lumiere_core.training.loop import train
from lumiere_core.training.phases.diffusion import object_weights
from lumiere_core.training.phases.image import new_unet
from lumiere_core.training.phases.temporal import LESS_SHARED, training_noise


def copies(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def same(module, before):
    return all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_only_temporal_layers_train(trainer, tmp_path):
    options = trainer.options()
    phase = trainer.phase("temporal", options)
    unet, text = copies(phase.models.unet), copies(phase.models.text)
    layers = copies(phase.module)
    train(phase, options, tmp_path, progress=False)
    assert same(phase.models.unet, unet) and same(phase.models.text, text)
    assert not phase.models.unet.training and not phase.models.text.training
    frozen = [*phase.models.unet.parameters(), *phase.models.text.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    changed = {k for k, v in phase.module.state_dict().items() if not torch.equal(v, layers[k])}
    assert changed == set(layers)  # and every one of them does


def test_every_temporal_parameter_gets_a_gradient_once_the_projections_moved(trainer):
    phase = trainer.phase("temporal")
    trainer.tiny.randomise(phase.module, torch.Generator().manual_seed(0))
    phase.loss(0).backward()
    silent = {k for k, p in phase.module.named_parameters() if p.grad is None or not p.grad.any()}
    # A bias before a softmax shifts all tokens alike: its gradient is zero, but for rounding.
    assert silent <= {"condition.score.bias"}


def test_chosen_parameters_train_alone(trainer, tmp_path):
    options = trainer.options(only="proj, temporal_norm")
    phase = trainer.phase("temporal", options)
    layers = copies(phase.module)
    train(phase, options, tmp_path, progress=False)
    changed = {k for k, v in phase.module.state_dict().items() if not torch.equal(v, layers[k])}
    assert changed == {k for k in layers if "proj" in k or "temporal_norm" in k}


def test_a_choice_of_no_parameter_is_refused(trainer):
    with pytest.raises(ValueError, match="only is 'wings', .* no temporal parameter has such a name"):
        trainer.phase("temporal", trainer.options(only="wings"))


def test_at_the_start_only_last_projections_and_resizes_get_a_gradient(trainer):
    """Zero projections hide what is before them, so training starts at the image model and grows from it."""
    phase = trainer.phase("temporal")
    phase.loss(0).backward()
    for name, parameter in phase.module.named_parameters():
        moves = parameter.grad is not None and bool(parameter.grad.any())
        assert moves == (".inflation.proj." in name or ".down." in name or ".up." in name), name


def test_the_image_phase_trains_the_image_model_only(trainer, tmp_path):
    options = trainer.options()
    phase = trainer.phase("image", options)
    text, unet = copies(phase.models.text), copies(phase.module)
    train(phase, options, tmp_path, progress=False)
    assert same(phase.models.text, text) and not same(phase.module, unet)
    assert {k for k, v in phase.module.state_dict().items() if torch.equal(v, unet[k])} == set()


def test_a_fresh_image_model_answers_nothing_and_follows_the_seed(trainer):
    x, *rest = trainer.tiny.inputs()
    config = trainer.tiny.unet_config()
    first, again, other = (new_unet(config, seed) for seed in (3, 3, 4))
    assert first(x[:, :, 0], *rest).abs().max() == 0
    assert same(first, copies(again)) and not same(first, copies(other))


def test_exported_parts_make_one_model(trainer, tmp_path):
    """The files of the three phases, renamed as bundled ones are, load into the pipeline."""
    options = trainer.options(steps=1)
    for name in ("text", "image", "temporal"):
        train(trainer.phase(name, options), options, tmp_path / name, progress=False)
    files = [tmp_path / name / f"{name}.safetensors" for name in ("text", "image", "temporal")]
    folder = tmp_path / "weights"
    folder.mkdir()
    for file in files:
        (folder / file.name).symlink_to(file)
    models, parts = load_models(folder)
    assert models.unet.config == trainer.tiny.unet_config()
    assert models.temporal.config == trainer.tiny.temporal_config()
    assert models.text.config == trainer.tiny.text_config()
    assert models.schedule.to_dict() == Schedule().to_dict()
    assert parts.config["size"] == [16, 16]
    assert not any(p.requires_grad for p in models.temporal.parameters())
    assert load_parts(files[0]).metadata["lumiere.phase"] == "text"


def test_the_text_phase_learns_every_attribute_of_the_world(trainer):
    phase = trainer.phase("text")
    labels = world.attribute_labels()
    assert phase.module["heads"].keys() == labels.keys()
    accuracy = phase.accuracy(count=32)
    assert accuracy.keys() == labels.keys()
    assert all(0 <= value <= 1 for value in accuracy.values())


@pytest.mark.parametrize(
    ("name", "prompts", "size"),
    [("image", ("a red ball", "snow"), (2 * 34 - 2, 32)), ("temporal", ("snow",), (8 * 34 - 2, 32))],
)
def test_previews_are_contact_sheets(trainer, tmp_path, name, prompts, size):
    """Enlarged twice with gaps of 2: stills beside each other, or the frames of a clip in a row."""
    phase = trainer.phase(name, preview=True)
    phase.preview_prompts = prompts
    phase.preview(tmp_path / "samples", 7)
    with Image.open(tmp_path / "samples" / "step_000007.png") as picture:
        assert picture.size == size


def test_the_text_preview_is_a_table_of_accuracies(trainer, tmp_path, monkeypatch):
    phase = trainer.phase("text", preview=True)
    monkeypatch.setattr(phase, "accuracy", lambda: {"colour": 0.5, "shape": 1.0})
    phase.preview(tmp_path / "samples", 12)
    text = (tmp_path / "samples" / "accuracy_000012.txt").read_text()
    assert text == "colour 0.5000\nshape 1.0000\n"


def test_noise_levels_of_a_batch_cover_the_range(trainer):
    """Each clip of a batch gets another part of the noise levels."""
    options = trainer.options(batch_size=8, sigma_shift=1.0)
    phase, seen = trainer.phase("image", options), []
    phase.network = lambda x, timestep, *_: seen.append(timestep) or x
    for step in range(3):
        phase.loss(step)
    for timesteps in seen:
        parts = (timesteps / 1000 * 8).floor().sort().values
        assert parts.tolist() == list(range(8))


@pytest.mark.parametrize("frames", [(), (3,)])
def test_errors_near_an_object_weigh_more(frames):
    """Around the object by an eighth of the height, where it can be made out, and not more in all."""
    objects = torch.zeros(2, 1, *frames, 32, 32)
    objects[..., 15:17, 15:17] = 1
    weights = object_weights(objects, torch.tensor([True, False]), 4.0)
    assert weights.shape == objects.shape
    assert torch.allclose(weights.flatten(1).mean(dim=1), torch.ones(2))
    assert (weights[1] == 1).all()
    high = weights[0] > weights[0].min()
    assert torch.allclose(weights[0][high], 5 * weights[0].min())
    assert (high.flatten(0, -3).sum(dim=(-1, -2)) == 10**2).all()


@pytest.mark.parametrize("name", ["image", "temporal"])
def test_object_weight_changes_the_loss(trainer, name):
    plain, weighted = (
        trainer.phase(name, trainer.options(object_weight=weight, sigma_shift=0.2)).loss(0).item()
        for weight in (0.0, 8.0)
    )
    assert plain != weighted and weighted > 0


@pytest.mark.parametrize("option, gain", [("change_weight", 4), ("motion_weight", 1)])
def test_errors_of_motion_count_when_asked(trainer, monkeypatch, option, gain):
    """An answer that is off by the same in all frames costs no more; one that flickers does."""

    def loss(weight, off):
        phase = trainer.phase("temporal", trainer.options(**{option: weight}))
        target = torch.zeros(())
        monkeypatch.setattr(phase.models.schedule, "training_pair", lambda x0, eps, t: (x0, target.expand(x0.shape)))
        monkeypatch.setattr(phase, "network", lambda x, *_, **__: off.expand(x.shape))
        return phase.loss(0)

    frames = trainer.options().num_frames
    steady = torch.ones(1, 1, 1, 1, 1)
    flickering = steady * torch.tensor([(-1.0) ** i for i in range(frames)]).reshape(1, 1, -1, 1, 1)
    assert torch.allclose(loss(0.0, steady), loss(3.0, steady))
    assert torch.allclose(loss(0.0, steady), loss(0.0, flickering))
    assert torch.allclose(loss(3.0, flickering), loss(0.0, steady) * (1 + 3 * gain))


def test_nothing_of_the_clip_is_left_in_pure_noise(trainer, monkeypatch):
    """Sampling starts from noise alone; the last noise level still shows a clip to who can average it."""

    def network_input(share, brightness):
        phase, seen = trainer.phase("temporal", trainer.options(pure_noise=share)), []

        def network(x, timestep, *_, **__):
            seen.extend([x, timestep])
            return x

        monkeypatch.setattr(phase, "network", network)
        phase.diffusion_loss(torch.full((2, 3, 8, 16, 16), brightness), None, None, step=0)
        return seen

    (dark, level), (bright, _) = network_input(1.0, -1.0), network_input(1.0, 1.0)
    assert torch.equal(dark, bright) and (level == 999).all()
    assert dark.std().item() == pytest.approx(1, abs=0.05)
    assert not torch.equal(network_input(0.0, -1.0)[0], network_input(0.0, 1.0)[0])


def test_training_noise_is_shared_as_the_layers_say_and_less_in_some_clips():
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(200, 3, 4, 16, 16, generator=generator)
    assert training_noise(own, 0.0, generator) is own
    assert training_noise(own[:, :, :1], 0.8, generator).equal(own[:, :, :1])
    noise = training_noise(own, 0.8, generator)
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    shares = (noise[:, :, 0] * noise[:, :, 3]).flatten(1).mean(dim=1)
    full = (shares > 0.65).float().mean().item()
    assert full == pytest.approx(1 - LESS_SHARED * 0.8, abs=0.08) and shares.max() < 1.0
