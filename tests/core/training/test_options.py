"""Every option and every source: either it changes what is trained, or it is refused by name before anything is loaded."""

import argparse
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from lumiere_core.commands.cli import main
from lumiere_core.dataset.reader import open_clips
from lumiere_core.diffusion.models import Models
from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.nets.checkpoint import load_file
from lumiere_core.nets.config import SSRConfig
from lumiere_core.nets.unet import UNet
from lumiere_core.training import loop
from lumiere_core.training.backbone import load_backbone
from lumiere_core.training.defaults import STAGES
from lumiere_core.training.given import Files, options_for
from lumiere_core.training.latent_pictures import encode_pictures
from lumiere_core.training.layers import start_layers
from lumiere_core.training.loop import train
from lumiere_core.training.option_page import add_options, given_options, table
from lumiere_core.training.options import CACHED, FIELDS, SOURCES, TrainOptions, flag
from lumiere_core.training.parts import DeltasPart, ImagePart, UpscalerPart
from lumiere_core.training.photographs import Photographs
from lumiere_core.training.pictures import load_pictures
from lumiere_core.training.run import Run
from lumiere_core.training.sources.crops import WorldCrops
from lumiere_core.training.sources.pictures import EncodedPictures, Pictures
from lumiere_core.training.stages import cached_clips_run, lora_clips_run

# Another value of each option, and what goes with it. Where it acts: on batches, on the gradient of a batch, on the
# loop, on where and how the network runs, on what there is of weights, or on the file that is written.
CHANGES = {
    "steps": ("loop", {"steps": 3}),
    "minutes": ("loop", {"minutes": 0.0}),
    "batch_size": ("batch", {"batch_size": 3}),
    "accumulate": ("loop", {"accumulate": 2}),
    "optimizer": ("loop", {"optimizer": "SGD"}),
    "learning_rate": ("loop", {"learning_rate": 1e-3}),
    "warmup": ("loop", {"warmup": 50}),
    "decay_from": ("loop", {"decay_from": 0.0}),
    "weight_decay": ("loop", {"weight_decay": 10.0}),
    "gradient_clip": ("loop", {"gradient_clip": 1e-4, "optimizer": "SGD"}),
    "ema_decay": ("loop", {"ema_decay": 0.0}),
    "seed": ("batch", {"seed": 1}),
    "precision": ("gradient", {"precision": "bfloat16"}),
    "device": ("place", {"device": "meta"}),
    "save_every": ("saves", {"save_every": 0.0}),
    "sample_every": ("samples", {"sample_every": 1}),
    "checkpointing": ("memory", {"checkpointing": True}),
    "sigma_shift": ("gradient", {"sigma_shift": 8.0}),
    "pure_noise": ("gradient", {"pure_noise": 1.0}),
    "text_dropout": ("batch", {"text_dropout": 1.0}),
    "object_weight": ("gradient", {"object_weight": 9.0, "sigma_shift": 0.1}),
    "change_weight": ("gradient", {"change_weight": 3.0}),
    "motion_weight": ("gradient", {"motion_weight": 3.0}),
    "height": ("batch", {"height": 24}),
    "width": ("batch", {"width": 24}),
    "num_frames": ("batch", {"num_frames": 3}),
    "fps": ("batch", {"fps": 4.0}),
    "shortest": ("batch", {"shortest": 2, "num_frames": 12}),
    "scenes": ("batch", {"scenes": "rhythms"}),
    "every": ("batch", {"every": 3}),
    "known_every": ("known", {"known_every": 1}),
    "moving_share": ("batch", {"moving_share": 1.0}),
    "moving": ("batch", {"moving": "bouncing", "moving_share": 1.0}),
    "stills": ("batch", {"stills": 1.0}),
    "photographs": ("batch", {"photographs": 1.0}),
    "placed": ("batch", {"placed": 1.0, "batch_size": 8}),
    "fresh_noise": ("gradient", {"fresh_noise": 1.0}),
    "only": ("weights", {"only": "proj"}),
    "strides": ("weights", {"strides": "4"}),
    "style": ("style", {"style": "sticker"}),
    "words": ("batch", {"words": "in oils", "text_dropout": 0.0, "batch_size": 8}),
    "rank": ("weights", {"rank": 3}),
    "layers": ("weights", {"layers": "attention"}),
}
BASE = TrainOptions(
    steps=2,
    batch_size=2,
    learning_rate=1e-2,
    warmup=1,
    height=16,
    width=16,
    num_frames=2,
    save_every=1e9,
    sample_every=-1,
    placed=0.0,
    text_dropout=0.0,
    weight_decay=0.0,
    ema_decay=0.9,
    rank=2,
)
OWN = {"cached-clips": {"num_frames": 0}, "styled-stills": {"style": "neon"}, "encoded-pictures": {"layers": "all"}}


@pytest.fixture
def stage_of(trainer, request, weights, halving, tmp_path):
    """Function (source, options) -> a run of tiny networks on it; the same weights every time."""
    tiny = trainer.tiny

    def pictures():
        folder = tmp_path / "pictures"
        if not folder.is_dir():
            folder.mkdir()
            noise = torch.randint(0, 256, (30, 40, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
            Image.fromarray(noise.numpy()).save(folder / "a_leaf.png")
        return folder

    def styled(source, options, models, auto="all"):
        style = {"name": options.style or "pictures", "words": options.words, "base": ""}
        part = DeltasPart(models, options, style, auto) if options.rank else ImagePart(models, options, style)
        return Run("style", options, source, part)

    def make(source, options):
        if source in ("captions", "stills"):
            return trainer.stage({"captions": "text", "stills": "image"}[source], options, fresh=False)
        if source == "clips":
            asked = tiny.temporal_config().to_dict() | {"stride": 2}
            asked = {k: v for k, v in asked.items() if k not in ("stride", "strides")}
            models = dataclasses.replace(trainer.models(options), temporal=None)
            models.temporal = start_layers(models.unet.config, asked, options)
            from lumiere_core.training.stages import world_clips_run

            return world_clips_run("condition" if options.known_every else "temporal", models, options)
        if source in CACHED:
            data, checkpoint = request.getfixturevalue("cache"), weights
            if source == "cached-crops":
                data, checkpoint = request.getfixturevalue("upscaler_cache")
            clips = open_clips(data)
            unet, schedule = load_backbone(checkpoint, clips.cache.backbone)
            asked = {"depth": 1, "num_head_channels": 32, "condition_channels": 16, "frames_per_clip": 8}
            layers = start_layers(unet.config, asked, options)
            build = lora_clips_run if source == "cached-clips-lora" else cached_clips_run
            return build(
                "ssr" if source == "cached-crops" else source, Models(None, unet, layers, schedule), clips, options
            )
        if source == "crops":
            config = tiny.unet_config(in_channels=6, patch_size=4, adm_in_channels=64, disable_self_attn=True)
            ssr, layers = SSRConfig(level_channels=32), None
            if options.num_frames > 1:
                layers = start_layers(config, {"condition_channels": 32, "frames_per_clip": 8}, options)
            models = Models(tiny.text(), tiny.unet(config), layers, Schedule(prediction="x0"), ssr)
            return Run(
                "ssr",
                options,
                WorldCrops(options, models.encode, ssr, (32, 32), Photographs(pictures())),
                UpscalerPart(models, options),
            )
        if source == "styled-stills":
            return trainer.stage("style", options)
        if source == "pictures":
            models = trainer.models(options)
            return styled(Pictures(options, models.encode, pictures()), options, models)
        file = tmp_path / f"{options.words}-{options.height}-{options.width}.safetensors"
        loaded = load_pictures(pictures(), options.height, options.width)
        encode_pictures(loaded, halving(), file, options.height, options.width, options.words)
        torch.manual_seed(0)
        unet = UNet(tiny.unet_config(in_channels=4, out_channels=4, adm_in_channels=None))
        models = Models(None, unet, None, Schedule("scaled_linear", "eps"))
        return styled(EncodedPictures(options, file), options, models, "attention")

    def build(source, **changes):
        run = make(source, dataclasses.replace(BASE, **OWN.get(source, {}) | changes))
        run.preview = lambda folder, step: None
        trainer.tiny.randomise(run.module, torch.Generator().manual_seed(3))
        return run

    return build


def batches(run):
    found = run.source.draw([0])
    values = []
    for batch in found:
        values += [batch.x0, batch.text.context, *(v for v in batch.more.values() if isinstance(v, torch.Tensor))]
    return values


def differ(first, second):
    return len(first) != len(second) or any(
        a.shape != b.shape or not torch.equal(a, b) for a, b in zip(first, second, strict=True)
    )


def gradients(run):
    for piece in run.pieces(0):
        with torch.autocast("cpu", torch.bfloat16, enabled=run.options.precision == "bfloat16"):
            loss = piece()
        loss.backward()
    return [p.grad for p in run.module.parameters() if p.grad is not None]


def trained(run, folder):
    """Tensors of a run's state, and its step."""
    run.source.draw = _remembered(run.source.draw)
    train(run, folder, progress=False)
    tensors, facts = load_file(folder / "state.safetensors")
    averages = {k: v for k, v in tensors.items() if k.startswith(("model.", "ema."))}
    return [*averages.values(), torch.tensor(int(facts["step"]))]


def _remembered(draw):
    found = {}

    def drawn(numbers):
        return [b for n in numbers for b in found.setdefault(n, None) or found.__setitem__(n, draw([n])) or found[n]]

    return drawn


def saved_bytes(run):
    """Bytes that a forward pass keeps for the backward pass."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        run.loss(0)
    return sum(kept)


def seen(kind, run, folder, monkeypatch):
    """What shows of an option where it is said to act."""
    if kind == "batch" or (kind == "style" and run.source.name == "styled-stills"):
        return batches(run)
    if kind == "known":
        return [batch.known for batch in run.source.draw([0]) if batch.known is not None]
    if kind == "gradient":
        return gradients(run)
    if kind == "loop":
        return trained(run, folder)
    if kind in ("saves", "samples"):
        calls = []
        if kind == "saves":
            monkeypatch.setattr(loop, "save_state", lambda *_, **__: calls.append(1))
        run.preview = lambda folder, step: calls.append(step)
        train(run, folder, progress=False)
        return [torch.tensor(calls)]
    if kind == "place":
        return [torch.tensor([p.device.type == "meta" for p in run.network.parameters()])]
    if kind == "memory":
        return [torch.tensor(saved_bytes(run))]
    if kind == "style":
        run.part.export(dict(run.module.named_parameters()), folder, {})
        metadata = load_file(folder / run.part.file)[1]
        return [torch.tensor([ord(c) for c in json.loads(metadata["lumiere.config"])["style"]["name"]])]
    stride = getattr(run.module, "total_stride", 0)
    shapes = [torch.empty(p.shape, device="meta").shape for p in run.module.parameters() if p.requires_grad]
    return [torch.tensor([stride, len(shapes), sum(s.numel() for s in shapes)])]


@pytest.mark.parametrize("source", SOURCES)
def test_every_option_acts_on_every_source_or_is_refused(stage_of, source, tmp_path, monkeypatch):
    """The table of options and sources is true, pair by pair."""
    assert set(CHANGES) == set(FIELDS)
    stage = next(name for name, sources in STAGES.items() if source in sources)
    known = {}

    def base_of(kind, companions):
        """The same without the option; looked at once."""
        key = kind, tuple(sorted(companions.items()))
        if key not in known:
            with monkeypatch.context() as patched:
                known[key] = seen(kind, stage_of(source, **companions), tmp_path / f"base{len(known)}", patched)
        return known[key]

    for name, (kind, changes) in CHANGES.items():
        companions = {k: v for k, v in changes.items() if k != name}
        if source not in FIELDS[name].metadata["sources"]:
            with pytest.raises(ValueError, match=rf"{flag(name)} does nothing when training on .*\({source}\)"):
                options_for(stage, source, {name: changes[name], **OWN.get(source, {})})
            continue
        if source == "crops" and name in ("height", "width"):
            changes = {name: 32}  # crops are multiples of the scale
        with monkeypatch.context() as patched:
            other = seen(kind, stage_of(source, **changes), tmp_path / name, patched)
        assert differ(base_of(kind, companions), other), f"{name} changes nothing on {source}"
    if ("memory", ()) in known:  # less of it, and the same gradient
        saving = stage_of(source, checkpointing=True)
        assert saved_bytes(saving) < 0.9 * known["memory", ()][0]
        plain = gradients(stage_of(source))
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(plain, gradients(saving), strict=True))


def test_refusals_come_before_anything_is_loaded(tmp_path, capsys):
    """The files that are named do not exist; the option is what is said to be wrong."""
    output = ["--output", str(tmp_path / "run")]
    for arguments, message in (
        (["image", "--text", "none", "--only", "proj"], "--only does nothing"),
        (
            ["temporal", "--data", "none", "--checkpoint", "none", "--object-weight", "2"],
            "--object-weight does nothing",
        ),
        (["condition", "--data", "none", "--checkpoint", "none", "--moving-share", "1"], "--moving-share does nothing"),
        (["style", "--style", "neon", "--text", "none", "--pure-noise", "2"], "pure_noise is 2.0; 0 to 1 is wanted"),
        (["ssr", "--text", "none", "--change-weight", "1"], "--change-weight does nothing with single frames"),
        (["temporal", "--text", "none", "--num-frames", "1"], "--num-frames is 1; temporal layers learn from 2"),
        (["temporal", "--text", "none", "--known-every", "4"], "--known-every is for `train condition`"),
        (
            ["temporal", "--text", "none", "--scenes", "rhythms", "--moving-share", "1"],
            "--moving-share chooses among all scenes, but --scenes is rhythms",
        ),
    ):
        assert main(["train", *arguments, *output]) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_every_option_is_a_flag_with_help():
    parser = argparse.ArgumentParser()
    add_options(parser)
    text = parser.format_help()
    assert all(flag(name) in text for name in FIELDS)
    assert given_options(parser.parse_args([])) == {}
    given = given_options(parser.parse_args(["--warmup", "0", "--no-checkpointing", "--only", ""]))
    assert given == {"warmup": 0, "checkpointing": False, "only": ""}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": -1}, "steps is -1; 0 to"),
        ({"batch_size": True}, "batch_size is True; a value of type int"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"fps": float("inf")}, "fps is inf"),
        ({"precision": "float8"}, "precision is 'float8'; one of"),
        ({"text_dropout": 1.5}, "text_dropout is 1.5; 0 to 1"),
    ],
)
def test_values_are_checked(values, message):
    with pytest.raises(ValueError, match=message):
        TrainOptions(**values)


def test_files_say_where_batches_come_from():
    assert Files().source("temporal") == "clips"
    assert Files(data="x", checkpoint="y").source("condition") == "cached-clips"
    assert Files(images="x").source("style") == "pictures"
    assert Files(images="x", checkpoint="y").source("style") == "encoded-pictures"
    with pytest.raises(ValueError, match="--images is of no use for `train temporal`"):
        Files(images="x").source("temporal")
    with pytest.raises(ValueError, match="--checkpoint is of no use for `train style`.*give --images"):
        Files(checkpoint="x").source("style")


def test_the_table_has_every_option_and_source():
    lines = table().splitlines()
    assert len(lines) == 2 + len(FIELDS)
    assert all(source in lines[0] for source in SOURCES)
    row = next(line for line in lines if line.startswith("| `--object-weight`"))
    assert row.count("yes") == len(FIELDS["object_weight"].metadata["sources"])


def test_the_page_in_docs_is_the_present_one(capsys):
    """`python -m lumiere_core train --list-options > docs/options.md` writes it anew."""
    assert main(["train", "--list-options"]) == 0
    docs = Path(__file__).resolve().parents[3] / "docs" / "options.md"
    assert capsys.readouterr().out == docs.read_text("utf-8")
