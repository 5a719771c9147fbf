"""`train`: from arguments to stages."""

import argparse
import json
import re

import pytest
import torch

from lumiere_core.commands import train as command
from lumiere_core.commands.cli import main
from lumiere_core.nets.checkpoint import load_file, load_parts, save_file
from lumiere_core.nets.config import TextConfig, UNetConfig
from lumiere_core.training.defaults import STAGES
from lumiere_core.training.given import Files
from lumiere_core.training.options import TrainOptions
from lumiere_core.training.stages import build

QUICK = "--steps 1 --batch-size 2 --threads 1".split()
SIZE = "--height 16 --width 16".split()


@pytest.fixture(autouse=True)
def no_previews(monkeypatch):
    for sheet in ("readings", "prompts_sheet"):
        monkeypatch.setattr(f"lumiere_core.training.previews.{sheet}", lambda *_: None)


@pytest.fixture
def config(tiny, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {
                "text": tiny.text_config().to_dict(),
                "unet": tiny.unet_config().to_dict(),
                "temporal": tiny.temporal_config().to_dict(),
                "schedule": {"kind": "cosine", "prediction": "eps"},
            }
        )
    )
    return path


@pytest.fixture
def train(config, tmp_path):
    """A function that runs the verb in this process and returns its exit status."""

    def run(stage, output, *more):
        size = [] if stage == "text" else SIZE
        frames = ["--num-frames", 4] if stage == "temporal" else []
        arguments = ["--config", config, "--output", tmp_path / output, *QUICK, *size, *frames, *more]
        return main(["train", stage, *map(str, arguments)])

    return run


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(["text", "--output", "x", *arguments])


def test_the_three_phases_follow_each_other(train, tmp_path, tiny):
    assert train("text", "text") == 0
    text = tmp_path / "text" / "text.safetensors"
    assert train("image", "image", "--text", text) == 0
    image = tmp_path / "image" / "image.safetensors"
    assert train("temporal", "temporal", "--text", text, "--image", image) == 0
    parts = load_parts([text, image, tmp_path / "temporal" / "temporal.safetensors"])
    assert parts.text_config == tiny.text_config()
    assert parts.unet_config == tiny.unet_config()
    assert parts.temporal_config == tiny.temporal_config()
    assert parts.schedule["prediction"] == "eps"


def test_a_style_is_trained_with_its_own_options(train, weights, tmp_path):
    files = ["--text", weights / "text.safetensors", "--image", weights / "image.safetensors"]
    assert train("style", "neon", *files, "--style", "neon", "--rank", "3", "--words", "aglow") == 0
    file, metadata = load_file(tmp_path / "neon" / "lora.safetensors")
    style = json.loads(metadata["lumiere.config"])["style"]
    assert (style["name"], style["words"], style["rank"]) == ("neon", "aglow", 3)
    assert file["lora_unet_out_2.alpha"] == 3
    assert style["base"].startswith("image.safetensors ")
    assert train("style", "whole", *files, "--style", "sticker", "--rank", "0") == 0
    assert train("style", "bundled", "--style", "neon", "--steps", "1") == 0  # without files: mini
    assert "lora_unet_out_2.alpha" in load_file(tmp_path / "bundled" / "lora.safetensors")[0]
    assert load_parts(tmp_path / "whole" / "image.safetensors").config["style"]["name"] == "sticker"


def test_a_run_may_start_from_weights(train, tmp_path):
    assert train("text", "first") == 0
    weights = tmp_path / "first" / "text.safetensors"
    assert train("text", "second", "--init-from", weights, "--learning-rate", "0") == 0
    first, second = (load_file(tmp_path / run / "text.safetensors")[0] for run in ("first", "second"))
    # The heads' weight decay aside, a rate of 0 leaves the encoder where it started.
    assert all(torch.allclose(first[k], second[k], atol=1e-3) for k in first)


@pytest.mark.parametrize(
    ("stage", "other", "named"),
    [
        ("image", "text", "text differ"),
        ("temporal", "image", "image differ"),
        ("style", "image", "image differ"),
        ("style", "init-from", "init-from differ"),
    ],
)
def test_a_run_is_resumed_around_the_same_weights_only(train, weights, tmp_path, capsys, stage, other, named):
    """Another file of the same shape is refused, by the name of its option; the same one under another name is taken."""
    files = {"text": weights / "text.safetensors", "image": weights / "image.safetensors"}
    files = {k: v for k, v in files.items() if k == "text" or stage != "image"}
    if stage == "style":
        files["init-from"] = weights / "image.safetensors"

    def resumed(**changes):
        more = [word for name, file in (files | changes).items() for word in (f"--{name}", file)]
        return train(stage, "run", *more, *(["--style", "neon"] if stage == "style" else []), *extra)

    extra = []
    assert resumed() == 0
    state, metadata = load_file(files[other])
    state = {k: v + 0.01 for k, v in state.items()}
    changed, renamed = tmp_path / "changed.safetensors", tmp_path / "renamed.safetensors"
    save_file(state, changed, metadata)
    renamed.write_bytes(files[other].read_bytes())
    extra = ["--resume"]
    assert resumed(**{other: changed}) == 1
    assert f"started on other data or another model: {named}" in capsys.readouterr().err
    assert resumed(**{other: renamed}) == 0


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("save-every", "0", 0.0),
        ("text-dropout", "0", 0.0),
        ("warmup", "0", 0),
        ("seed", "0", 0),
        ("minutes", "0", 0.0),
        ("steps", "12", 12),
        ("precision", "bfloat16", "bfloat16"),
    ],
)
def test_every_option_reaches_the_run_even_if_it_is_0(train, weights, monkeypatch, name, value, wanted):
    seen = []
    monkeypatch.setattr("lumiere_core.training.loop.train", lambda run, *_: seen.append(run.options))
    assert train("image", "run", "--text", weights / "text.safetensors", f"--{name}", value) == 0
    assert getattr(seen[0], name.replace("-", "_")) == wanted


def test_options_left_out_keep_the_stages_defaults(config, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("lumiere_core.training.loop.train", lambda run, *_: seen.append(run.options))
    assert main(["train", "text", "--config", str(config), "--output", str(tmp_path)]) == 0
    assert seen == [TrainOptions(**STAGES["text"]["captions"])]


def test_every_training_option_can_be_given():
    assert set(TrainOptions.__dataclass_fields__) <= set(vars(parsed()))


def test_without_a_configuration_lumiere_mini_is_trained(tmp_path):
    """Text encoder, image model and temporal layers of the recipe fit each other."""
    recipe = command.read_config(None, "image", "stills")
    run = build("text", Files(), TrainOptions(batch_size=1), recipe)
    assert run.part.config == TextConfig.from_dict(recipe["text"])
    run.part.export(dict(run.module.named_parameters()), tmp_path, {})
    run = build(
        "image", Files(text=tmp_path / "text.safetensors"), TrainOptions(batch_size=1, height=16, width=16), recipe
    )
    assert run.module.config == UNetConfig.from_dict(recipe["unet"])
    assert torch.isfinite(run.loss(0))


@pytest.mark.parametrize(
    ("stage", "arguments", "message"),
    [
        ("image", [], "--text is missing: give the weights that `train text` wrote"),
        ("temporal", ["--text", "{weights}/text.safetensors"], "--image is missing.*`train image`"),
        ("image", ["--text", "{weights}/image.safetensors"], "image.safetensors holds no text weights"),
        (
            "temporal",
            ["--text", "{weights}/text.safetensors", "--image", "{weights}/text.safetensors"],
            "text.safetensors holds no image weights",
        ),
        ("text", ["--init-from", "{weights}/image.safetensors"], "image.safetensors holds no text weights"),
        ("text", ["--init-from", "{weights}/none.safetensors"], "no weights at"),
        ("text", ["--config", "{weights}/none.json"], "none.json"),
        ("text", ["--config", "{weights}/text.safetensors"], "text.safetensors line 1 is not UTF-.* text"),
        ("text", ["--resume"], "state.safetensors"),
        ("text", ["--precision", "float8"], "precision.*float8"),
        ("text", ["--device", "abacus"], "device.*abacus"),
        ("text", ["--batch-size", "0"], "batch_size is 0; 1 to 65536"),
        ("text", ["--num-frames", "4"], "--num-frames does nothing when training on captions of the world"),
        (
            "image",
            ["--change-weight", "1"],
            "--change-weight does nothing when .* it is for clips, crops, cached-clips",
        ),
        ("image", ["--data", "nowhere"], "--data is of no use for `train image`"),
        ("temporal", ["--data", "nowhere"], "--checkpoint is missing"),
        ("temporal", ["--moving", "bouncing"], "--moving chooses among the scenes of --moving-share"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_bad_arguments_exit_1_with_one_line(train, weights, capsys, stage, arguments, message):
    assert train(stage, "run", *(argument.format(weights=weights) for argument in arguments)) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and re.search(message, errors[0])
