"""What the raters said: preference with Wilson intervals, by prompt, and a bar chart like the paper's figure 10."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...text_files import read_json, read_text, shown

if TYPE_CHECKING:
    from PIL import Image

COLUMNS = ("rater", "number", "pair", "question", "chosen", "other", "seconds")
TITLES = {"1": "matches the text", "2": "better: motion and quality"}
KINDS = ("compared", "noise", "still")  # of pairs; the last two check attention
NORMAL = 1.959964  # of a 95 % interval


@dataclass
class Result:
    """Answers of the raters that are counted.

    Attributes:
        wins: question -> [for the first, for the second].
        prompts: prompt -> question -> the same.
        excluded: rater -> checks that were failed.
    """

    labels: tuple[str, str]
    raters: set[str] = field(default_factory=set)
    excluded: dict[str, int] = field(default_factory=dict)
    wins: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    prompts: dict[str, dict[str, list[int]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(lambda: [0, 0]))
    )

    def text(self) -> str:
        """Return the results as lines."""
        first, second = self.labels
        lines = [f"{len(self.raters)} raters counted, {len(self.excluded)} left out for failed checks of attention"]
        for question, (ours, theirs) in sorted(self.wins.items()):
            share, (low, high) = ours / (ours + theirs), wilson(ours, ours + theirs)
            lines.append(
                f"{TITLES[question]}: {first} over {second} {100 * share:.1f} % "
                f"(95 % interval {100 * low:.1f} to {100 * high:.1f}, {ours + theirs} judgements)"
            )
        lines += ["", f"by prompt, judgements for {first}:{second}"]
        for prompt, answers in sorted(self.prompts.items()):
            counts = "   ".join(f"{TITLES[q]} {a}:{b}" for q, (a, b) in sorted(answers.items()))
            lines.append(f"  {prompt[:70]:<70}  {counts}")
        return "\n".join(lines) + "\n"


def wilson(right: int, count: int, normal: float = NORMAL) -> tuple[float, float]:
    """Return Wilson's interval of a share (1927); it stays within 0 and 1, also for few answers."""
    if not count:
        return 0.0, 1.0
    share, square = right / count, normal**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = normal * math.sqrt(share * (1 - share) / count + square / (4 * count**2)) / (1 + square / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def read_answers(files: list[Path]) -> list[dict[str, str]]:
    """Return the rows of all files; a file that comes twice counts once.

    A spreadsheet may have saved them again: with semicolons or tabs, a `sep=` line, columns in another order, empty rows.

    Raises:
        ValueError: a file is not of the page, or a row of it is damaged; the line is named.
    """
    rows: dict[tuple, dict[str, str]] = {}
    for path in files:
        text = read_text(path)
        first, _, rest = text.partition("\n")
        if first.strip().strip('"').lower().startswith("sep="):
            text = rest
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
        try:
            names = [(name or "").strip() for name in reader.fieldnames or ()]
            if not set(COLUMNS) <= set(names):
                raise ValueError(f"{path} has the columns {names}; {', '.join(COLUMNS)} are wanted.")
            reader.fieldnames = names
            for row in reader:
                answer = {name: (row[name] or "").strip() for name in COLUMNS}
                if not any(answer.values()):
                    continue
                lacking = [name for name in ("rater", "pair", "question", "chosen") if not answer[name]]
                if None in row or None in row.values() or lacking or answer["question"] not in TITLES:
                    raise ValueError(
                        f"{path} line {reader.line_num} is no row of answers: {', '.join(COLUMNS)} are wanted, and a "
                        f"question of {', '.join(TITLES)}. Let the rater send the file again, or leave it out."
                    )
                rows[answer["rater"], answer["pair"], answer["question"]] = answer
        except csv.Error as error:
            raise ValueError(f"{path} line {reader.reader.line_num} is no row of answers ({error}).") from error
    return list(rows.values())


def _delimiter(text: str) -> str:
    """Return what sets the columns of the first line apart: a comma, or what spreadsheets of some countries write."""
    head = text.partition("\n")[0]
    return max(",;\t", key=head.count)


def analyse(rows: list[dict[str, str]], key: dict, tolerated: int = 0) -> Result:
    """Count the answers of the raters that passed the checks.

    Noise must lose both questions, a still picture the second one; the paper does not say its rule.

    Args:
        tolerated: wrong answers to checks that a rater may give.

    Raises:
        ValueError: the answers belong to another page.
    """
    _check_rows(rows, key)
    failed: Counter[str] = Counter()
    for row in rows:
        kind = key["pairs"][row["pair"]]["kind"]
        asked = kind == "noise" or (kind == "still" and row["question"] == "2")
        failed[row["rater"]] += asked and key["files"][row["chosen"]] == "wrong"
    result = Result(tuple(map(shown, key["labels"])))
    result.excluded = {rater: count for rater, count in failed.items() if count > tolerated}
    result.raters = set(failed) - set(result.excluded)
    for row in rows:
        pair = key["pairs"][row["pair"]]
        if row["rater"] in result.raters and pair["kind"] == "compared":
            index = "ab".index(key["files"][row["chosen"]])
            result.wins[row["question"]][index] += 1
            result.prompts[shown(pair["prompt"])][row["question"]][index] += 1
    if not result.wins:
        raise ValueError("no answers are left to count: every rater failed a check, or the files are empty.")
    return result


def _check_rows(rows: list[dict[str, str]], key: dict) -> None:
    """Raise ValueError unless every row answers a pair of the key with a clip of its kind."""
    for column, known in (("pair", key["pairs"]), ("chosen", key["files"])):
        if unknown := sorted({row[column] for row in rows} - set(known)):
            raise ValueError(
                f"{len(unknown)} entries of the column {column} are not in the key, such as {unknown[0]:.40}: the answers are "
                "of another page, or changed."
            )
    for row in rows:
        compared = key["pairs"][row["pair"]]["kind"] == "compared"
        if key["files"][row["chosen"]] not in (("a", "b") if compared else ("right", "wrong")):
            raise ValueError(
                f"rater {row['rater']:.40} chose {row['chosen']} of pair {row['pair']}, which does not show it."
            )


def bar_chart(result: Result) -> Image.Image:
    """Draw the share of each side for each question, with the interval, as figure 10 does."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (760, 70 + 90 * len(result.wins)), "white")
    draw = ImageDraw.Draw(image)
    first, second = (label.encode("ascii", "replace").decode() for label in result.labels)
    draw.text((20, 14), first, fill=(30, 90, 200))
    draw.text((740 - 6 * len(second), 14), second, fill=(200, 60, 40))
    left, right = 20, 740
    for index, (question, (ours, theirs)) in enumerate(sorted(result.wins.items())):
        top, count = 60 + 90 * index, ours + theirs
        split = left + (right - left) * ours / count
        draw.text((left, top - 18), TITLES[question], fill="black")
        draw.rectangle((left, top, split, top + 40), fill=(120, 160, 230))
        draw.rectangle((split, top, right, top + 40), fill=(240, 150, 130))
        low, high = (left + (right - left) * end for end in wilson(ours, count))
        draw.line((low, top + 20, high, top + 20), fill="black", width=2)
        for end in (low, high):
            draw.line((end, top + 12, end, top + 28), fill="black", width=2)
        draw.text((left + 6, top + 14), f"{100 * ours / count:.1f} %", fill="black")
        draw.text((right - 46, top + 14), f"{100 * theirs / count:.1f} %", fill="black")
    middle = (left + right) / 2
    draw.line((middle, 40, middle, image.height - 10), fill=(120, 120, 120))
    return image


def load_key(path: Path) -> dict:
    """Read the key that `write_page` left beside the page's folder.

    Raises:
        FileNotFoundError, ValueError: there is none, or the file is no key.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no key {path}; it lies beside the folder of the page.")
    key = read_json(path)
    if not _is_key(key):
        raise ValueError(
            f"{path} is no key of a page: labels, pairs and files are wanted. It lies beside the page's folder."
        )
    return key


def _is_key(key: Any) -> bool:
    """Whether a JSON value is laid out as `write_page` leaves it."""
    if not isinstance(key, dict) or not all(isinstance(key.get(name), dict) for name in ("pairs", "files")):
        return False
    labels, pairs, roles = key.get("labels"), key["pairs"].values(), key["files"].values()
    return (
        isinstance(labels, list)
        and len(labels) == 2
        and all(isinstance(label, str) for label in labels)
        and all(isinstance(p, dict) and isinstance(p.get("prompt"), str) and p.get("kind") in KINDS for p in pairs)
        and all(role in ("a", "b", "right", "wrong") for role in roles)
    )
