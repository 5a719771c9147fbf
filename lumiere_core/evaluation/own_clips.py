"""`evaluate own-clips`: does a person's own way, from a folder of videos to a graph, teach a checkpoint to move?

A checkpoint that this pack did not make and 480 videos take the commands that the documentation names: `prepare`, `train
temporal --checkpoint --data`, *Apply Lumiere Temporal Layers* in a workflow on the host. The world's oracle judges the
clips. The same is done without what the trainer adds to the paper, and with a motion module. All train for the same time of
the processor.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..files import JsonLines, Record, check_target, write_text
from ..flags import MANY, real, threads_flag, whole
from ..text_files import read_json

RECIPE = Path(__file__).parent / "data" / "own_clips.json"
MOST_CLIPS = 100_000
DIRECTION, COLOUR, STEADY = 0.85, 0.95, 1.5  # wanted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, help="folder of all that is made; run again to go on")
    parser.add_argument(
        "--minutes", type=real(0, MANY), default=9.0, help="of processor time, for each of the recipe's variants"
    )
    parser.add_argument(
        "--recipe", type=Path, default=RECIPE, help="JSON file with clips, options and what is compared"
    )
    parser.add_argument("--only", help="names of the recipe's variants, set apart by commas; default: all")
    parser.add_argument(
        "--points",
        type=whole(1, 1000),
        default=1,
        help="of the curve: clips are judged so often while a variant trains",
    )
    parser.add_argument(
        "--finish",
        type=whole(0, MANY),
        default=0,
        help="steps after the minutes, while the rate falls to zero; 0 = none",
    )
    parser.add_argument(
        "--prompts", type=whole(1, MANY), help="clips that are judged at the end; default: the recipe's"
    )
    threads_flag(parser)


def main(options: argparse.Namespace) -> int:
    from .own_way import OwnWay

    recipe, folder = read_recipe(options.recipe), options.output.resolve()
    names = options.only.split(",") if options.only else list(recipe["variants"])
    unknown = sorted(set(names) - set(recipe["variants"]))
    if unknown:
        raise ValueError(f"--only names {', '.join(unknown)}; there is {', '.join(recipe['variants'])}.")
    check_target(folder / "table.md")
    way, lines = OwnWay(folder, options.threads), JsonLines(folder / "judged.jsonl")
    count = options.prompts or recipe["prompts"]
    if not (folder / "cache" / "report.csv").is_file():
        from .narrow import write_clips

        write_clips(folder / "videos", recipe["clips"])
        way.prepare(folder / "videos", folder / "cache", recipe["clips"])
    for point in range(1, options.points + 1):
        for name in names:
            new = way.train_until(options.minutes * point / options.points, name, recipe, cache=folder / "cache")
            if new and point < options.points:
                judge_variant(way, lines, name, recipe=recipe, count=count)
    for name in names:
        way.finish(options.finish, name, recipe, cache=folder / "cache")
        judge_variant(way, lines, name, recipe=recipe, count=count)
    text = table(lines.read(), recipe)
    write_text(folder / "table.md", text)
    sys.stdout.write(text)
    return 0


def read_recipe(path: Path) -> dict:
    """Return a recipe of this verb: clips, variants, options of the training and of the sampling.

    Raises:
        ValueError: it is none; what is wrong is named.
    """
    from ..dataset.index import Settings
    from ..world.backgrounds import BACKGROUND_COLOURS
    from ..world.families.shapes import MOTIONS

    recipe = read_json(path)
    try:
        clips, variants = recipe["clips"], recipe["variants"]
        Settings(clips["fps"], clips["frames"], clips["size"])
        for name, words in (("motions", MOTIONS), ("backgrounds", BACKGROUND_COLOURS)):
            if not clips[name] or set(clips[name]) - set(words):
                raise ValueError(f"{name} are {clips[name]!r:.80}; some of {', '.join(words)} are wanted")
        counts = {"clips": clips["count"], "prompts": recipe["prompts"]}
        if not all(type(count) is int and 1 <= count <= MOST_CLIPS for count in counts.values()):
            raise ValueError(f"the counts are {counts}; 1 to {MOST_CLIPS:,} are wanted")
        titles = [str(variant["title"]) for variant in variants.values()]
        if not titles or not all(isinstance(recipe[name], dict) for name in ("options", "sampling")):
            raise ValueError("it has no variants, or options that are none")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path.name} is no recipe of own-clips ({error!s:.200}); compare it with {RECIPE}."
        ) from error
    return recipe


def judge_variant(way, lines: JsonLines, name: str, recipe: dict, count: int) -> None:
    """Make clips of held-out prompts and add a line for each; the first ones are the same whatever the count."""
    from .narrow import prompts, speed
    from .oracle import judge

    scenes, minutes = prompts(count, recipe["clips"]), round(way.trained(name), 2)
    done = {(line["variant"], line["minutes"], line["prompt"]) for line in lines.read()}
    clips = way.clips(name, recipe, [scene.caption for scene in scenes])
    for scene, frames in zip(scenes, clips, strict=True):
        if (name, minutes, scene.caption) in done:
            continue
        verdict = judge(frames, scene, speed(recipe["clips"]))
        facts = {"variant": name, "minutes": minutes, "step": way.steps(name), "prompt": scene.caption}
        lines.append({**facts, "seen": verdict.seen, "right": verdict.right(scene), **verdict.measures})


def table(lines: list[Record], recipe: dict) -> str:
    """Return the figures of every variant after every turn, as Markdown; **bold** falls short of its bar."""
    rows = ["| trained | minutes, steps | clips | direction right | colour right | shape right | flicker over real |"]
    rows.append("| --- | --- | --- | --- | --- | --- | --- |")
    for name, variant in recipe["variants"].items():
        mine = [line for line in lines if line["variant"] == name]
        for minutes in sorted({line["minutes"] for line in mine}):
            now = [line for line in mine if line["minutes"] == minutes]
            cells = [f"{minutes:g}, {now[0]['step']}", str(len(now))]
            for key, bar in (("motion", DIRECTION), ("colour", COLOUR), ("shape", 0.0)):
                right = sum(line["right"].get(key, False) for line in now)
                cells.append(_cell(f"{right} of {len(now)}", right >= bar * len(now)))
            ratios = [line["flicker_ratio"] for line in now if "flicker_ratio" in line]
            mean = sum(ratios) / len(ratios) if ratios else float("nan")
            cells.append(_cell(f"{mean:.2f}", mean <= STEADY))
            rows.append(f"| {variant['title']} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _cell(text: str, held: bool) -> str:
    return text if held else f"**{text}**"
