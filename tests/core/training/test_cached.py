"""Training on a cache of one's own clips."""

import dataclasses
import json

import pytest
import torch

from lumiere_core.commands.cli import main
from lumiere_core.dataset.cache import Cache
from lumiere_core.dataset.reader import open_clips
from lumiere_core.diffusion.models import Models
from lumiere_core.nets.checkpoint import load_file, load_parts
from lumiere_core.nets.config import TemporalConfig, UNetConfig
from lumiere_core.training.backbone import load_backbone
from lumiere_core.training.layers import new_layers
from lumiere_core.training.log import Log
from lumiere_core.training.loop import train
from lumiere_core.training.memory import activation_bytes
from lumiere_core.training.options import TrainOptions
from lumiere_core.training.sources import cached
from lumiere_core.training.stages import cached_clips_run

OPTIONS = TrainOptions(
    steps=4,
    batch_size=2,
    learning_rate=1e-2,
    warmup=1,
    sigma_shift=2.0,
    stills=0.2,
    num_frames=0,
    placed=0.0,
    save_every=1e9,
)


@pytest.fixture
def make(cache, weights):
    """Function (options, stage) -> a run on the cache; its layers are the same for every stage."""

    def build(options=OPTIONS, stage="temporal", condition=16, data=cache):
        clips = open_clips(data)
        unet, schedule = load_backbone(weights, clips.cache.backbone)
        config = TemporalConfig(
            depth=1,
            num_head_channels=32,
            condition_channels=condition,
            frames_per_clip=8,
            conv_cond=stage == "condition",
        )
        layers = new_layers(unet.config, config, options.seed)
        run = cached_clips_run(stage, Models(None, unet, layers, schedule), clips, options)
        run.preview = lambda folder, step: None
        return run

    return build


def changed(options=OPTIONS, **values):
    return dataclasses.replace(options, **values)


def gradients(run, step=0):
    for piece in run.pieces(step):
        piece().backward()
    return {k: p.grad for k, p in run.module.named_parameters()}


def test_the_image_model_stays_as_it_is(make, tmp_path, weights):
    run = make()
    before = {k: v.clone() for k, v in run.part.models.unet.state_dict().items()}
    train(run, tmp_path / "run", progress=False)
    assert all(torch.equal(v, before[k]) for k, v in run.part.models.unet.state_dict().items())
    assert all(p.grad is None for p in run.part.models.unet.parameters())
    layers = load_file(tmp_path / "run" / "temporal.safetensors")[0]
    fresh = make().module.state_dict()
    assert any(not torch.allclose(v.float(), fresh[k[9:]], atol=1e-3) for k, v in layers.items())


def test_one_big_batch_is_two_small_ones(make):
    """The samples of a batch do not depend on how it is shared out, whatever their shapes."""
    big, small = make(changed(batch_size=4)), make(changed(batch_size=2))
    whole = gradients(big)
    gradients(small, 0)
    parts = gradients(small, 1)
    for key, value in whole.items():
        if value is not None:
            assert torch.allclose(value, parts[key] / 2, atol=1e-6), key


def test_accumulated_batches_make_the_steps_of_a_big_one(make, tmp_path):
    """With plain gradient steps: Adam would make full steps out of the rounding of gradients that are zero."""
    plain = changed(optimizer="SGD", learning_rate=0.1)
    train(make(changed(plain, batch_size=4)), tmp_path / "big", progress=False)
    options = changed(plain, batch_size=2, accumulate=2)
    train(make(options), tmp_path / "small", progress=False)
    big, small = (load_file(tmp_path / n / "state.safetensors")[0] for n in ("big", "small"))
    for key, value in big.items():
        assert torch.allclose(value, small[key], atol=1e-6), key
    first, second = (Log(tmp_path / n).read() for n in ("big", "small"))
    assert [r["loss"] for r in first] == pytest.approx([r["loss"] for r in second], abs=1e-5)


def test_samples_follow_from_their_number(make):
    first, again, other = (make(o).source for o in (OPTIONS, OPTIONS, changed(seed=1)))
    found = [[source.sample(number) for number in range(10)] for source in (first, again, other)]
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(*found[:2], strict=True))
    assert any(
        a.latents.shape != c.latents.shape or not torch.equal(a.latents, c.latents)
        for a, c in zip(found[0], found[2], strict=True)
    )


def test_stills_are_one_frame_repeated(make):
    run = make(changed(stills=1.0))
    latents = run.source.sample(0).latents
    assert latents.shape[1] == max(2, run.module.total_stride)
    assert torch.equal(latents[:, 0], latents[:, 1])
    clips = [make(changed(stills=0.0)).source.sample(i) for i in range(5)]
    assert all(s.latents.shape[1] == 8 for s in clips)


def test_text_is_dropped_to_the_empty_prompt(make):
    always, never = (make(changed(text_dropout=share, stills=0.0)).source for share in (1.0, 0.0))
    for number in range(5):
        sample = always.sample(number)
        assert torch.equal(sample.text.context, always.empty(sample.latents).context)
        assert not torch.equal(never.sample(number).text.context, sample.text.context)


def test_a_segment_is_told_where_in_its_video_it_is(make):
    """Clip 3's video is twice as long as a clip: its segments are the halves of a clip of the trained length."""
    told, whole = (make(changed(placed=share, stills=0.0)).source for share in (1.0, 0.0))
    places = [told.sample(number).place.tolist() for number in range(5)]
    halves = [p for p in places if p[1] - p[0] != 1]
    assert sorted(halves) == [[0.5 * i for i in range(8)], [4 + 0.5 * i for i in range(8)]]
    assert [p for p in places if p[1] - p[0] == 1] == [list(range(8))] * 3
    assert all(whole.sample(number).place.tolist() == list(range(8)) for number in range(5))


def test_shorter_windows_are_cut_out_of_the_clips(make):
    source = make(changed(num_frames=3, stills=0.0)).source
    firsts = set()
    for number in range(10):
        sample = source.sample(number)
        first = int(sample.place[0])
        clip = source.clips[source.clips.at(number, 0)].tensors["latents"].float()
        assert torch.equal(sample.latents, clip[:, first : first + 3])
        assert sample.place.tolist() == [first, first + 1, first + 2]
        firsts.add(first)
    assert len(firsts) > 2
    with pytest.raises(ValueError, match="--num-frames is 9, but the clips of the cache have 8"):
        make(changed(num_frames=9))
    with pytest.raises(ValueError, match="1 frame, in which temporal layers do not run"):
        make(changed(num_frames=1))


def test_interrupted_and_resumed_equals_uninterrupted(make, tmp_path):
    train(make(), tmp_path / "whole", progress=False)

    class Stop(Exception):
        pass

    def stop(step, record):
        if step == 2:
            raise Stop

    options = changed(save_every=0.0)
    with pytest.raises(Stop):
        train(make(options), tmp_path / "parts", progress=False, on_step=stop)
    run = make()
    # The state of step 1 was the last one that was saved.
    train(run, tmp_path / "parts", resume=True, progress=False)
    whole, parts = (load_file(tmp_path / n / "state.safetensors")[0] for n in ("whole", "parts"))
    assert all(torch.equal(v, parts[k]) for k, v in whole.items())


@pytest.mark.parametrize("name", ["Muon", "SGD", "torch.optim.RAdam", "Adagrad"])
def test_any_optimiser_by_name(make, tmp_path, name):
    options = changed(optimizer=name)
    train(make(options), tmp_path / "whole", progress=False)
    half = changed(options, steps=2)
    train(make(half), tmp_path / "parts", progress=False)
    train(make(options), tmp_path / "parts", resume=True, progress=False)
    whole, parts = (load_file(tmp_path / n / "state.safetensors")[0] for n in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.allclose(v, parts[k], atol=1e-6) for k, v in whole.items())


@pytest.mark.parametrize(
    ("name", "message"),
    [("NoSuch", "cannot be imported"), ("no.such.Thing", "cannot be imported"), ("torch.nn.Linear", "is no optimiser")],
)
def test_an_unknown_optimiser_is_named(make, tmp_path, name, message):
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        train(make(changed(optimizer=name)), tmp_path, progress=False)


def test_checkpointing_changes_memory_only(make):
    plain = gradients(make())
    saving = gradients(make(changed(checkpointing=True)))
    for key, value in plain.items():
        assert (value is None) == (saving[key] is None)
        assert value is None or torch.allclose(value, saving[key], atol=1e-6), key


def test_predicted_activations(make):
    """They grow with frames and batch, and fall with checkpointing; weights alone are a lower bound."""
    run = make()

    def count(frames=8, batch=1, checkpointing=False):
        return activation_bytes(
            run.part.models.unet.config, run.module, (3, frames, 16, 16), (4, 32), batch, checkpointing
        )

    weights = sum(p.numel() * 4 for p in run.module.parameters())
    assert count() > weights
    assert 1.5 < (count(16) - weights) / (count(8) - weights) < 2.5
    assert count(batch=2) == pytest.approx(count(16), rel=0.1)
    assert count(32, checkpointing=True) < 0.7 * count(32)


def test_predicted_activations_are_what_a_real_pass_holds(make):
    """The same count around a real forward and backward pass on the CPU."""
    from lumiere_core.nets.stunet import SpaceTimeUNet
    from lumiere_core.nets.temporal import TemporalLayers
    from lumiere_core.nets.unet import UNet
    from lumiere_core.training.memory import _Peak

    run = make()
    config = run.part.models.unet.config
    predicted = activation_bytes(config, run.module, (3, 8, 16, 16), (4, 32), 1, False)
    network = SpaceTimeUNet(UNet(config).requires_grad_(False), TemporalLayers(config, run.module.config))
    inputs = (
        torch.randn(1, 3, 8, 16, 16),
        torch.zeros(1),
        torch.randn(1, 4, config.context_dim),
        torch.randn(1, config.adm_in_channels),
    )
    with _Peak() as peak:
        network(*inputs).square().mean().backward()
    assert peak.most == pytest.approx(predicted, rel=0.15)


def test_the_verb_makes_weights_that_load(cache, weights, tmp_path, capsys):
    output = tmp_path / "out" / "motion.safetensors"
    arguments = [
        "train",
        "temporal",
        "--checkpoint",
        str(weights),
        "--data",
        str(cache),
        "--output",
        str(output),
        "--steps",
        "2",
        "--batch-size",
        "1",
        "--threads",
        "1",
        "--sample-every",
        "1",
    ]
    assert main(arguments) == 0
    parts = load_parts(output)
    assert parts.temporal_config.frames_per_clip == 8
    assert parts.unet_config == UNetConfig.from_dict(Cache.open(cache).backbone["unet"])
    assert parts.metadata["lumiere.clips"] == "5" and "options" not in parts.metadata
    assert "clip 0" not in json.dumps(parts.metadata) and str(cache) not in json.dumps(parts.metadata)
    folder = tmp_path / "out" / "motion"
    names = {p.name for p in folder.iterdir()}
    assert {"state.safetensors", "log.jsonl", "log.csv", "loss.png", "samples", "temporal.safetensors"} <= names
    assert {p.name for p in (folder / "samples").iterdir()} == {
        f"step_{n:06d}.{kind}" for n in (1, 2) for kind in ("mp4", "png")
    }
    more = tmp_path / "more"
    arguments[arguments.index(str(output))] = str(more)
    assert main([*arguments, "--init-from", str(output), "--sample-every", "-1"]) == 0
    assert load_parts(more / "temporal.safetensors").metadata["lumiere.started_from"] == "motion.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, w: [x for x in a if x not in ("--checkpoint", str(w))], "--checkpoint is missing"),
        (lambda a, w: [*a, "--data", "nowhere"], "nowhere is no cache of clips"),
        (lambda a, w: [*a, "--init-from", str(w / "image.safetensors")], "holds no temporal weights"),
    ],
)
def test_bad_arguments(cache, weights, tmp_path, capsys, change, message):
    arguments = [
        "train",
        "temporal",
        "--checkpoint",
        str(weights),
        "--data",
        str(cache),
        "--output",
        str(tmp_path / "x"),
    ]
    assert main(change(arguments, weights)) == 1
    assert message in capsys.readouterr().err


def test_another_checkpoint_is_refused(cache, weights, tmp_path):
    image = weights / "image.safetensors"
    state, metadata = load_file(image)
    from lumiere_core.nets.checkpoint import save_file

    state["image.out.2.bias"] += 1
    save_file(state, image, metadata)
    with pytest.raises(ValueError, match=r"the cache was prepared with .*Give that file as --checkpoint"):
        load_backbone(weights, Cache.open(cache).backbone)


def test_samples_that_fail_do_not_end_the_run(make, tmp_path):
    run = make(changed(sample_every=1))

    def fail(folder, step):
        raise MemoryError("not enough")

    run.preview = fail
    assert train(run, tmp_path, progress=False) == 4


def test_masked_conditions_of_own_clips(make, monkeypatch):
    """`train condition --data` has the clips, noise and loss of `train temporal --data` where nothing is known."""
    plain, run = make(), make(stage="condition")
    shared = {k: v for k, v in plain.module.state_dict().items()}
    run.module.load_state_dict(shared | {"conv_cond.weight": run.module.conv_cond.weight})
    assert run.loss(0) == plain.loss(0)  # a conv_cond of zeros
    torch.nn.init.normal_(run.module.conv_cond.weight)
    monkeypatch.setattr(cached, "draw_task", lambda dice: "text")
    assert run.loss(0) == plain.loss(0)  # nothing known
    monkeypatch.setattr(cached, "draw_task", lambda dice: "region")
    (batch, *_), (again, *_) = run.source.draw([1]), run.source.draw([1])
    clip, known = batch.known.split([3, 1], dim=1)
    assert torch.equal(batch.known, again.known) and 0 < known.mean() < 1
    assert torch.equal(clip, batch.x0 * known)
    assert run.loss(0) != plain.loss(0)
    assert gradients(run)["conv_cond.weight"].any()


def test_new_layers_of_own_clips_have_the_whole_recipe(cache, weights, tmp_path):
    """Places and shared noise, which the world's recipe found necessary; a file with a configuration may say otherwise."""
    from lumiere_core.training.given import Files, options_for
    from lumiere_core.training.stages import build

    files = Files(data=str(cache), checkpoint=str(weights))
    options = options_for("temporal", "cached-clips", {"steps": 1})
    config = build("temporal", files, options, {}).module.config
    assert config.coordinates and config.shared_noise == 0.8 and config.condition_channels == 64
    assert (config.frames_per_clip, config.fps) == (8, 16.0)
    other = build("temporal", files, options, {"temporal": {"condition_channels": 16}}).module.config
    assert not other.coordinates and other.shared_noise == 0.0


def test_the_condition_verb_on_own_clips(cache, weights, tmp_path):
    output = tmp_path / "conditioned.safetensors"
    arguments = [
        "train",
        "condition",
        "--checkpoint",
        str(weights),
        "--data",
        str(cache),
        "--output",
        str(output),
        "--steps",
        "2",
        "--batch-size",
        "1",
        "--threads",
        "1",
    ]
    assert main(arguments) == 0
    assert load_parts(output).temporal_config.conv_cond
    arguments[1], arguments[arguments.index(str(output))] = "temporal", str(tmp_path / "more")
    assert main([*arguments, "--init-from", str(output)]) == 0
    kept, before = (
        load_parts(f).temporal["conv_cond.weight"] for f in (tmp_path / "more" / "temporal.safetensors", output)
    )
    assert torch.equal(kept, before)  # it rests where clips have no condition
