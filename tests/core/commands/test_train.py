"""`train`: from arguments to phases."""

import argparse
import json
import re

import pytest
import torch

from lumiere_core.commands import train as command
from lumiere_core.commands.cli import main
from lumiere_core.nets.checkpoint import load_file, load_parts, metadata_for, save_file
from lumiere_core.nets.config import TextConfig, UNetConfig
from lumiere_core.training.options import TrainOptions

QUICK = "--steps 1 --batch-size 2 --height 16 --width 16 --num-frames 4 --threads 1".split()


@pytest.fixture(autouse=True)
def no_previews(monkeypatch):
    for phase in ("text.TextPhase", "diffusion.DiffusionPhase"):
        monkeypatch.setattr(f"lumiere_core.training.phases.{phase}.preview", lambda *_: None)


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

    def run(phase, output, *more):
        arguments = ["--config", config, "--output", tmp_path / output, *QUICK, *more]
        return main(["train", phase, *map(str, arguments)])

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
def test_every_option_reaches_the_run_even_if_it_is_0(train, monkeypatch, name, value, wanted):
    seen = []
    monkeypatch.setattr("lumiere_core.training.loop.train", lambda phase, options, *_: seen.append(options))
    assert train("text", "run", f"--{name}", value) == 0
    assert getattr(seen[0], name.replace("-", "_")) == wanted


def test_options_left_out_keep_the_phases_defaults(config, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("lumiere_core.training.loop.train", lambda phase, options, *_: seen.append(options))
    assert main(["train", "text", "--config", str(config), "--output", str(tmp_path)]) == 0
    assert seen == [TrainOptions(**command.phase_module("text").DEFAULTS)]


def test_every_training_option_can_be_given():
    given = vars(parsed())
    for name in TrainOptions.__dataclass_fields__:
        assert name in given or name == "fps", name


def test_without_a_configuration_lumiere_mini_is_trained(tmp_path):
    """Text encoder, image model and temporal layers of the recipe fit each other."""
    recipe = json.loads(command.RECIPE.read_text())
    options = parsed()
    phase = command.build_phase(options, TrainOptions(batch_size=1))
    assert phase.config == TextConfig.from_dict(recipe["text"])
    state = {f"text.{k}": v for k, v in phase.module["encoder"].state_dict().items()}
    save_file(state, tmp_path / "text.safetensors", metadata_for("t", {"text": recipe["text"]}))
    options.phase, options.text = "image", tmp_path / "text.safetensors"
    small = TrainOptions(batch_size=1, height=16, width=16)
    phase = command.build_phase(options, small)
    assert phase.module.config == UNetConfig.from_dict(recipe["unet"])
    assert torch.isfinite(phase.loss(0))


@pytest.mark.parametrize(
    ("phase", "arguments", "message"),
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
        ("text", ["--config", "{weights}/text.safetensors"], "text.safetensors is no JSON file"),
        ("text", ["--resume"], "state.safetensors"),
        ("text", ["--precision", "float8"], "precision.*float8"),
        ("text", ["--device", "abacus"], "device.*abacus"),
        ("text", ["--batch-size", "0"], "batch_size is 0; at least 1"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_bad_arguments_exit_1_with_one_line(train, weights, capsys, phase, arguments, message):
    assert train(phase, "run", *(argument.format(weights=weights) for argument in arguments)) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and re.search(message, errors[0])


def test_a_copy_that_fails_leaves_nothing(tmp_path, monkeypatch):
    """A full disk: half of the file is there when it is noticed."""

    def copyfile(source, target):
        target.write_bytes(source.read_bytes()[:3])
        raise OSError(28, "No space left on device", str(target))

    source, target = tmp_path / "run" / "w.safetensors", tmp_path / "w.safetensors"
    source.parent.mkdir()
    source.write_bytes(b"weights")
    monkeypatch.setattr("shutil.copyfile", copyfile)
    with pytest.raises(OSError):
        command.copy_whole(source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    monkeypatch.undo()
    command.copy_whole(source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "w.safetensors"]
