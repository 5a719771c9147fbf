"""Recipes: the architecture and the stages of what is shipped, as data in recipes/NAME.json.

A stage has a `name`, what `train` calls it (`stage`), the `model` whose architecture is new, its `source`, what it
`trains`, `options`, the names of the stages whose files are its `text` and `image` and that it starts `from`, and the
file that is shipped (`export`). An `average` of earlier stages' files is a stage too, and so is a file of the pack that
others need as it is (`shipped`).
"""

from __future__ import annotations

import dataclasses
import logging
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..dataset.public import CREDITS, gather
from ..files import RESERVED, check_target, copy
from ..nets.checkpoint import WEIGHTS, average_files
from ..text_files import read_json
from .given import Files, check_config, options_for
from .loop import train
from .parallel import first, joined, wait
from .stages import build
from .state import FILE, saved_step

FOLDER = Path(__file__).parents[1] / "recipes"
_NAME = re.compile(r"[A-Za-z0-9][\w-]{0,59}", re.ASCII)
_EXPORT = re.compile(r"(?:[A-Za-z0-9][\w-]*/)?[A-Za-z0-9][\w.-]*\.safetensors", re.ASCII)
logger = logging.getLogger("lumiere")


@dataclass(frozen=True)
class Stage:
    """One line of a recipe."""

    name: str
    stage: str = ""
    model: str = ""
    source: str = ""
    trains: str = ""
    text: str = ""
    image: str = ""
    start: str = ""  # "from" in the file
    options: dict[str, Any] = field(default_factory=dict)
    average: dict[str, float] = field(default_factory=dict)
    export: str = ""
    shipped: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError where a line is of other types, or names a folder or file outside of the output."""
        for entry in dataclasses.fields(self):
            kind = dict if entry.name in ("options", "average") else str
            if not isinstance(getattr(self, entry.name), kind):
                raise ValueError(
                    f"{entry.name} of a stage is {getattr(self, entry.name)!r:.60}; not what belongs there"
                )
        if not _NAME.fullmatch(self.name) or self.name.lower() in RESERVED:
            raise ValueError(f"a stage is called {self.name!r:.60}; letters, digits, - and _ make a name")
        if self.export and not _EXPORT.fullmatch(self.export):
            raise ValueError(
                f"export of {self.name} is {self.export!r:.60}; a NAME.safetensors or FOLDER/NAME.safetensors"
            )
        if self.shipped and not (_EXPORT.fullmatch(self.shipped) and (WEIGHTS / self.shipped).is_file()):
            raise ValueError(f"shipped of {self.name} is {self.shipped!r:.60}; a file of the pack's weights")
        shares = self.average.values()
        if self.average and not (
            len(shares) > 1 and all(type(s) in (int, float) and s >= 0 for s in shares) and abs(sum(shares) - 1) < 1e-6
        ):
            raise ValueError(f"average of {self.name} is {self.average!r:.60}; two names or more with shares, 1 in all")


@dataclass(frozen=True)
class Recipe:
    """Architectures by name, and the stages in the order in which they are trained."""

    models: dict[str, dict[str, Any]]
    stages: dict[str, Stage]

    def chosen(self, name: str) -> list[Stage]:
        """Return one stage by its name, or all of them.

        Raises:
            ValueError: there is no such stage.
        """
        if name and name not in self.stages:
            raise ValueError(f"the recipe has no stage {name!r}; it has {', '.join(self.stages)}.")
        return [self.stages[name]] if name else list(self.stages.values())


def load_recipe(name: str) -> Recipe:
    """Return a recipe by its name ("mini"), or of a JSON file.

    Raises:
        ValueError: there is none, or it is not complete; what is wrong is named.
    """
    known = {path.stem: path for path in FOLDER.glob("*.json")}
    path = known.get(name, Path(name))
    try:
        values = read_json(path)
        lines = [{("start" if k == "from" else k): v for k, v in line.items()} for line in values["stages"]]
        stages = [Stage(**line) for line in lines]
        models = {key: check_config(model, key) for key, model in values["models"].items()}
        recipe = Recipe(models, {stage.name: stage for stage in stages})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{name!r} is no recipe ({error}). There is {', '.join(known)}; or give a JSON file."
        ) from error
    seen: set[str] = set()
    for stage in stages:
        needed = {stage.text, stage.image, stage.start, *stage.average} - {""}
        if needed - seen:
            raise ValueError(f"stage {stage.name} of {path.name} needs {', '.join(sorted(needed - seen))} before it.")
        if stage.name in seen:
            raise ValueError(f"{path.name} has two stages {stage.name}; their runs would be one.")
        seen.add(stage.name)
        if not stage.average and not stage.shipped:
            options_for(stage.stage, stage.source, stage.options)
            if stage.model not in models:
                raise ValueError(
                    f"stage {stage.name} of {path.name} is of the model {stage.model!r}, which is not there."
                )
    return recipe


def architecture(model: str, recipe: str = "mini") -> dict[str, Any]:
    """Return the configurations of a model of a recipe: "mini", the base model, or "ssr"."""
    return load_recipe(recipe).models[model]


class Kitchen:
    """Trains the stages of a recipe in the folders OUTPUT/NAME; the shipped files are gathered in OUTPUT/weights.

    Args:
        given: options that stand in for the recipe's, such as the device.
        start: weights that the first stage starts from, in place of what the recipe says.
        minutes: for all of the stages together; None = no limit.
        strategy: of several processes; see `parallel.shared`.
    """

    def __init__(
        self,
        recipe: Recipe,
        output: Path,
        given: dict[str, Any] | None = None,
        start: Path | None = None,
        minutes: float | None = None,
        strategy: str = "ddp",
    ) -> None:
        self.recipe, self.output, self.given, self.start = recipe, output, given or {}, start
        self.strategy = strategy
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes

    def run(self, name: str = "") -> bool:
        """Train a stage, or all of them, going on where they stopped; returns whether they are finished."""
        stages = self.recipe.chosen(name)
        for stage in stages:  # before days of work, not after
            if stage.export and first():
                check_target(self.output / "weights" / stage.export)
        for stage in stages:
            if self.finished(stage):
                logger.info(f"{stage.name} is finished: {self.weights(stage)}")
                continue
            done = self._average(stage) if stage.average else self._train(stage, alone=bool(name))
            wait()
            if not done:
                logger.info(f"{stage.name} is not finished; the same command goes on with it")
                return False
            if stage.export and first():
                copy(self.weights(stage), self.output / "weights" / stage.export)
            self.start = None
        return True

    def finished(self, stage: Stage) -> bool:
        """Whether a stage has made all its steps and written its file."""
        if stage.shipped:
            return True
        if stage.average:
            return (self.output / stage.name / "temporal.safetensors").is_file()
        steps = options_for(stage.stage, stage.source, stage.options | self.given).steps
        folder = self.output / stage.name
        return (folder / FILE).is_file() and saved_step(folder) >= steps and self.weights(stage) is not None

    def weights(self, stage: Stage) -> Path | None:
        """Return the file that a stage wrote, if it did."""
        if stage.shipped:
            return WEIGHTS / stage.shipped
        files = [
            f for f in (self.output / stage.name).glob("*.safetensors") if f.name not in (FILE, "pictures.safetensors")
        ]
        return files[0] if files else None

    def _input(self, name: str, alone: bool) -> Path | None:
        """Return the file of an earlier stage; that of the shipped model where a stage is trained alone.

        Raises:
            ValueError: there is none yet.
        """
        if not name:
            return None
        stage = self.recipe.stages[name]
        found = self.weights(stage) if self.finished(stage) or not alone else None
        shipped = WEIGHTS / stage.export if stage.export else None
        if found is None and alone and shipped is not None and shipped.is_file():
            logger.info(f"{name} was not trained in {self.output}; {shipped.name} of the pack takes its place")
            found = shipped
        if found is None:
            raise ValueError(f"stage {name} is not trained yet in {self.output}. Train it first, or give --from.")
        return found

    def _train(self, stage: Stage, alone: bool) -> bool:
        minutes = {} if self.deadline is None else {"minutes": max(0.0, (self.deadline - time.monotonic()) / 60)}
        options = options_for(stage.stage, stage.source, stage.options | self.given | minutes)
        start = self.start or self._input(stage.start, alone)
        photographs = self._photographs() if options.photographs else None
        files = Files(self._input(stage.text, alone), self._input(stage.image, alone), start, images=photographs)
        run = build(stage.stage, files, options, self.recipe.models[stage.model])
        if run.part.name != stage.trains or run.source.name != stage.source:
            raise ValueError(
                f"stage {stage.name} says that {stage.trains} train on {stage.source}, but with its options "
                f"{run.part.name} train on {run.source.name}. Correct the recipe."
            )
        if joined():
            run.share(self.strategy)
        folder = self.output / stage.name
        logger.info(f"{stage.name}: {stage.trains} from {stage.source}, into {folder}")
        return train(run, folder, resume=(folder / FILE).is_file()) >= options.steps

    def _photographs(self) -> str:
        """Return the folder of photographs of this run, which are fetched when they are first needed."""
        folder = self.output / "photographs"
        if first() and not (folder / CREDITS).is_file():
            logger.info(f"fetching photographs into {folder}")
            folder.mkdir(parents=True, exist_ok=True)
            gather("photographs", folder)
        wait()
        return str(folder)

    def _average(self, stage: Stage) -> bool:
        files = {self._input(name, alone=False): share for name, share in stage.average.items()}
        if first():
            average_files(list(files), list(files.values()), self.output / stage.name / "temporal.safetensors")
        return True
