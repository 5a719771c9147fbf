"""The page of the user study in a real Chromium, from the file system: thirty raters whose preference is known."""

import json

import numpy as np
import pytest

from lumiere_core.clips.media import write_mp4
from lumiere_core.evaluation.study.analysis import analyse, read_answers, wilson
from lumiere_core.evaluation.study.page import write_page

RATERS, PAIRS, PREFERENCE, WAIT = 30, 4, 0.7, 0.05

# A rater watches both clips, waits, and answers by what each file is, which the test tells; 1 of 6 is careless.
RATE = """async ([roles, prefers, careless, random]) => {
    const wait = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));
    const get = id => document.getElementById(id);
    const early = [], gaps = [];
    let draw = 0, last = 0;
    for (const side of ['left', 'right']) get(side).addEventListener('ended', () => { last = performance.now(); });
    while (get('end').hidden) {
        early.push(!get('ready').disabled);
        const end = performance.now() + 20000;
        while (get('ready').disabled) {
            if (performance.now() > end) throw new Error('never ready: ' + get('place').textContent);
            await wait(10);
        }
        gaps.push(performance.now() - last);
        get('ready').click();
        for (const question of [0, 1]) {
            const files = ['left', 'right'].map(side => get(side).src.split('/').pop());
            const first = files.findIndex(file => ['a', 'right'].includes(roles[file]));
            const check = files.some(file => roles[file] === 'wrong');
            const takes = check ? !careless : random[draw++] < prefers;
            get(`q${question}_${takes ? first : 1 - first}`).click();
        }
        get('next').click();
        await wait(0);
    }
    // The first pair may be over before this runs.
    return { early: early.slice(1), gaps: gaps.slice(1), text: csv() };
}"""


def clip(level, frames=3):
    made = np.full((frames, 32, 32, 3), level, dtype=np.uint8)
    for number, frame in enumerate(made):
        frame[:, 8 * number : 8 * number + 6] = 255 - level
    return made


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(address of the page, key); webm, for Chromium builds without H.264."""
    root = tmp_path_factory.mktemp("study")
    for number in range(PAIRS):
        for side, level in (("a", 60), ("b", 160)):
            write_mp4(root / side / f"{number}.mp4", clip(level + number), 30.0)
            (root / side / f"{number}.txt").write_text(f"prompt {number}")
    key = write_page(root / "a", root / "b", root / "page", wait=WAIT, side=32, container="webm")
    return (root / "page" / "index.html").as_uri(), key


@pytest.fixture
def page(browser):
    page = browser.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    page.close()


def test_thirty_raters_of_known_preference(page, study, tmp_path):
    address, key = study
    random, files, places = np.random.default_rng(0), [], []
    for rater in range(RATERS):
        page.goto(address)
        draws = random.random(2 * PAIRS).tolist()
        found = page.evaluate(RATE, [key["files"], PREFERENCE, rater % 6 == 5, draws])
        assert not any(found["early"])  # never ready before both clips were seen
        assert min(found["gaps"]) >= 1000 * WAIT - 2  # a timer may be a little early
        files.append(tmp_path / f"{rater}.csv")
        files[-1].write_text(found["text"], newline="")
        places.append(found["text"].splitlines()[1].split(",")[2])
    assert page.errors == [] and len(set(places)) > 2  # the order is another for every rater
    result = analyse(read_answers(files), key)
    assert len(result.raters) == 25 and len(result.excluded) == 5
    for ours, theirs in result.wins.values():
        low, high = wilson(ours, ours + theirs)
        assert ours + theirs == 25 * PAIRS and low < PREFERENCE < high


def test_keyboard_and_download(page, study, tmp_path):
    address, key = study
    page.goto(address)
    shown = len(key["pairs"])
    for _ in range(shown):
        page.wait_for_function("() => !document.getElementById('ready').disabled", timeout=20_000)
        for name in ("Enter", "1", "2", "Enter"):
            page.keyboard.press(name)
    page.get_by_text("Thank you").wait_for()
    with page.expect_download() as download:
        page.get_by_text("Save the answers").click()
    download.value.save_as(tmp_path / "answers.csv")
    rows = read_answers([tmp_path / "answers.csv"])
    assert len(rows) == 2 * shown and {row["pair"] for row in rows} == set(key["pairs"])
    assert json.dumps(page.errors) == "[]"
