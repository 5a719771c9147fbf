"""Recipes as data: what is shipped, its stages one after the other, and averages."""

import json
from types import SimpleNamespace

import pytest
import torch

from lumiere_core.commands.cli import main
from lumiere_core.nets.checkpoint import WEIGHTS, average_files, load_file, load_parts, save_file
from lumiere_core.training import recipes
from lumiere_core.training.recipes import Kitchen, load_recipe

QUICK = {"batch_size": 2, "warmup": 1, "sample_every": -1}
SIZE = QUICK | {"height": 16, "width": 16}
CLIPS = SIZE | {"num_frames": 4}


@pytest.fixture
def small(tiny, tmp_path):
    """A recipe file of a tiny model: text, image, two runs of its layers and their average."""
    both = {"text": "text", "image": "image"}
    layers = {"stage": "temporal", "model": "tiny", "source": "clips", "trains": "temporal layers", **both}
    values = {
        "models": {
            "tiny": {
                "text": tiny.text_config().to_dict(),
                "unet": tiny.unet_config().to_dict(),
                "temporal": tiny.temporal_config().to_dict(),
                "schedule": {"kind": "cosine", "prediction": "v"},
            }
        },
        "stages": [
            {
                **{"name": "text", "stage": "text", "model": "tiny", "source": "captions", "trains": "text encoder"},
                "options": QUICK | {"steps": 2},
            },
            {
                **{"name": "image", "stage": "image", "model": "tiny", "source": "stills", "trains": "image U-Net"},
                **{"text": "text", "options": SIZE | {"steps": 2}, "export": "tiny-image.safetensors"},
            },
            {"name": "one", **layers, "options": CLIPS | {"steps": 3}},
            {"name": "two", **layers, "from": "one", "options": CLIPS | {"steps": 2, "seed": 1}},
            {"name": "layers", "average": {"one": 0.25, "two": 0.75}, "export": "tiny-temporal.safetensors"},
        ],
    }
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(values))
    return path


def test_the_recipe_of_what_is_shipped_names_every_file():
    """Each line's options are honoured by its source, and the files are those in weights/."""
    recipe = load_recipe("mini")
    exported = {stage.export for stage in recipe.stages.values()} - {""}
    shipped = {str(path.relative_to(WEIGHTS)) for path in WEIGHTS.rglob("*.safetensors")}
    assert exported == shipped
    parts = load_parts(sorted(WEIGHTS.glob("mini-[it]*.safetensors"))[1:])
    config = recipe.models["mini"]
    assert parts.unet_config == type(parts.unet_config).from_dict(config["unet"])
    assert parts.temporal_config.coordinates and parts.temporal_config.shared_noise == 0.8


def test_stages_follow_each_other_and_go_on_where_they_stopped(small, tmp_path, monkeypatch):
    recipe, output = load_recipe(str(small)), tmp_path / "run"
    steps = []
    original = recipes.train

    def stopped(run, folder, resume=False, **more):
        """Stops stage `one` after its second step, the first time."""
        steps.append((folder.name, resume))
        stop = (lambda step, record: step == 2) if folder.name == "one" and not resume else None
        return original(run, folder, resume, progress=False, on_step=stop)

    monkeypatch.setattr(recipes, "train", stopped)
    assert not Kitchen(recipe, output).run()
    assert steps == [("text", False), ("image", False), ("one", False)]
    assert Kitchen(recipe, output).run()
    assert steps[3:] == [("one", True), ("two", False)]
    assert Kitchen(recipe, output).run() and len(steps) == 5  # all of it is finished
    one, two, mean = (load_file(output / name / "temporal.safetensors")[0] for name in ("one", "two", "layers"))
    key = next(k for k in one if not torch.equal(one[k], two[k]))
    assert torch.allclose(mean[key].float(), 0.25 * one[key].float() + 0.75 * two[key].float(), atol=1e-3)
    gathered = sorted(path.name for path in (output / "weights").iterdir())
    assert gathered == ["tiny-image.safetensors", "tiny-temporal.safetensors"]
    assert "0.25 " in load_parts(output / "weights" / "tiny-temporal.safetensors").metadata["lumiere.average"]


def test_one_stage_alone_from_weights_with_other_options(small, weights, tmp_path):
    recipe, output = load_recipe(str(small)), tmp_path / "run"
    with pytest.raises(ValueError, match="stage text is not trained yet in .*run"):
        Kitchen(recipe, output).run("image")
    for name in ("text", "image"):
        (output / name).mkdir(parents=True)
        (output / name / f"{name}.safetensors").write_bytes((weights / f"{name}.safetensors").read_bytes())
    with pytest.raises(ValueError, match="no stage 'three'; it has text, image, one, two, layers"):
        Kitchen(recipe, output).run("three")


def test_photographs_are_fetched_once_into_the_run(small, tmp_path, monkeypatch):
    values = json.loads(small.read_text())
    line = {"stage": "ssr", "model": "tiny", "source": "crops", "trains": "super-resolution"}
    values["stages"] = [
        {**line, "name": name, "options": {"num_frames": 1, "photographs": share}}
        for name, share in (("plain", 0.0), ("first", 0.5), ("second", 0.5))
    ]
    small.write_text(json.dumps(values))
    fetched, given = [], []

    def gather(name, folder):
        fetched.append((name, folder))
        (folder / recipes.CREDITS).write_text("of nobody")

    def build(stage, files, options, config):
        given.append(files.images)
        return SimpleNamespace(part=SimpleNamespace(name=line["trains"]), source=SimpleNamespace(name="crops"))

    monkeypatch.setattr(recipes, "gather", gather)
    monkeypatch.setattr(recipes, "build", build)
    monkeypatch.setattr(recipes, "train", lambda run, folder, resume: 10**9)
    assert Kitchen(load_recipe(str(small)), tmp_path / "run").run()
    folder = tmp_path / "run" / "photographs"
    assert fetched == [("photographs", folder)] and given == [None, str(folder), str(folder)]


def test_the_verb_trains_a_recipe(small, tmp_path, capsys):
    output = ["--output", str(tmp_path / "run"), "--threads", "1"]
    assert main(["train", "--recipe", str(small), *output, "--minutes", "0"]) == 0
    assert not (tmp_path / "run" / "image").exists()  # no time, so it stopped with the first stage saved
    assert main(["train", "--recipe", str(small), *output, "--stage", "text", "--steps", "1"]) == 0
    assert load_file(tmp_path / "run" / "text" / "state.safetensors")[1]["step"] == "1"
    for more, message in (
        (["--batch-size", "1"], "--batch-size with --recipe"),
        (["--text", "x"], "--text with --recipe"),
    ):
        assert main(["train", "--recipe", str(small), *output, *more]) == 1
        assert message in capsys.readouterr().err
    assert main(["train", "--recipe", "nowhere", *output]) == 1
    assert "'nowhere' is no recipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"change_weight": 1.0}}, "--change-weight does nothing"),
        ({"image": "later"}, "stage image of .* needs later before it"),
        ({"wings": 2}, "is no recipe"),
        ({"name": "../../precious"}, "a stage is called '../../precious'"),
        ({"name": "con"}, "a stage is called 'con'"),
        ({"name": "text"}, "two stages text"),
        ({"export": "../../precious.safetensors"}, "export of image is '../../precious.safetensors'"),
        ({"export": "/etc/x.safetensors"}, "export of image"),
        ({"text": []}, "text of a stage is"),
        ({"options": []}, "options of a stage is"),
        ({"options": {"wings": 2}}, "there is no option 'wings'"),
        ({"options": {"steps": "many"}}, "steps is 'many'"),
        ({"stage": "sing"}, "there is no `train sing`"),
        ({"source": "songs"}, "there is no `train image` on 'songs'"),
        ({"model": "huge"}, "is of the model 'huge', which is not there"),
        ({"average": {"text": float("nan"), "one": 1}}, "average of image is"),
        ({"average": {"text": 1.0}}, "average of image is"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(small, change, message):
    values = json.loads(small.read_text())
    values["stages"][1] |= change
    small.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        load_recipe(str(small))


def test_files_are_averaged_by_the_verb(weights, tmp_path, capsys):
    state, facts = load_file(weights / "temporal.safetensors")
    files = []
    for number, value in enumerate((0.0, 1.0)):
        files.append(str(tmp_path / f"{number}.safetensors"))
        save_file({k: torch.full_like(v, value) for k, v in state.items()}, files[-1], facts)
    output = tmp_path / "mean.safetensors"
    assert main(["average", *files, "--shares", "0.3", "0.7", "--output", str(output)]) == 0
    mean, metadata = load_file(output)
    assert all(value.dtype == state[key].dtype for key, value in mean.items())
    assert all(abs(v.float().mean().item() - 0.7) < 1e-3 for v in mean.values())
    assert metadata["lumiere.config"] == facts["lumiere.config"] and metadata["lumiere.average"].startswith("0.3 ")
    for arguments, message in (
        ([*files, "--shares", "0.5"], "a share of at least 0 for each, 1 in all"),
        ([*files, "--shares", "0.5", "0.6"], "1 in all"),
        ([files[0], str(weights / "image.safetensors"), "--shares", "0.5", "0.5"], "do not fit this architecture"),
    ):
        assert main(["average", *arguments, "--output", str(output)]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tiny": []}, "tiny is no architecture"),
        ({"tiny": {"wings": {}}}, "tiny is no architecture"),
        ({"tiny": {"unet": []}}, '"unet" of tiny'),
        ({"tiny": {"schedule": {"wings": 2}}}, "does not know"),
        ({"tiny": {"size": [10**9, 64]}}, '"size" of tiny'),
    ],
)
def test_an_architecture_that_cannot_be_is_refused(small, tmp_path, capsys, change, message):
    values = json.loads(small.read_text())
    values["models"] = change
    small.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        load_recipe(str(small))
    small.write_text(json.dumps(change["tiny"]))
    assert main(["train", "text", "--config", str(small), "--output", str(tmp_path / "run")]) == 1
    assert message.replace("tiny", "tiny.json") in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_average_never_writes_what_is_not_finite_or_over_an_input(weights, tmp_path, capsys):
    file = tmp_path / "a.safetensors"
    file.write_bytes((weights / "temporal.safetensors").read_bytes())
    words = ["average", str(file), str(weights / "temporal.safetensors"), "--shares", "0.5", "0.5", "--output"]
    assert main([*words, str(file)]) == 1 and "is read, so it cannot be what is written" in capsys.readouterr().err
    assert file.read_bytes() == (weights / "temporal.safetensors").read_bytes()
    with pytest.raises(ValueError, match="the shares nan, nan"):
        average_files([file, file], [float("nan")] * 2, tmp_path / "mean.safetensors")
    assert main(["double", "--weights", str(weights), "--output", str(weights)]) == 1
    assert "is read, so it cannot be what is written" in capsys.readouterr().err
