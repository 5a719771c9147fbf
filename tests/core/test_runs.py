"""Runs of a workflow on many prompts: what is made, resumed, measured and compared; the host is a stand-in."""

import csv
import json

import pytest

from lumiere_core.clips.media import read_video, write_mp4
from lumiere_core.clips.video import to_uint8
from lumiere_core.commands import cli
from lumiere_core.dataset.sources import find_sources
from lumiere_core.evaluation import runs
from lumiere_core.host_process import WorkerError
from lumiere_core.lock import only_writer
from lumiere_core.world import render_clip, scene_from_caption

GRAPH = {"1": {"class_type": "KSampler", "inputs": {"seed": 1}}}


class Host:
    """Draws the prompt in the procedural world; `jobs` is all that it was asked."""

    jobs, breaks = [], None

    def __init__(self, name, workflow, base, threads):
        assert name == "workflows" and workflow.is_absolute()
        self.dark = "dark" in workflow.name

    def ask(self, job):
        if self.breaks and self.breaks in job["prompt"]:
            raise WorkerError("node 4 (KSampler) failed: out of memory")
        Host.jobs.append(job)
        clip = to_uint8(render_clip(scene_from_caption(job["prompt"], job["seed"]), 12, 8.0, 32, 32))
        write_mp4(job["output"], clip // (2 if self.dark else 1), 8.0)

    def close(self):
        pass


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(runs, "Worker", Host)
    Host.jobs, Host.breaks = [], None
    return Host


@pytest.fixture
def files(tmp_path):
    """Paths of two workflows and of a file with three prompts."""
    (tmp_path / "plain.json").write_text(json.dumps(GRAPH))
    (tmp_path / "dark.json").write_text(json.dumps(GRAPH | {"2": {"class_type": "SaveVideo", "inputs": {}}}))
    prompts = "# a comment\na red ball moving right on grass\n\na blue star spinning over the ocean\na yellow square bouncing on sand\n"
    (tmp_path / "prompts.txt").write_text(prompts)
    return tmp_path / "plain.json", tmp_path / "dark.json", tmp_path / "prompts.txt"


def test_the_paper_s_prompts_are_shipped():
    prompts = runs.read_prompts(runs.PROMPTS)
    assert len(prompts) == len(set(prompts)) == 113
    assert (
        prompts[0] == "A bear is giving a presentation in classroom." and prompts[-1] == "Yellow flowers swing in wind."
    )
    assert "A horse galloping through van Gogh’s Starry Night." in prompts
    names = [job.name for job in runs.jobs_of(prompts, 0)]
    assert len(set(names)) == 113 and all(name.isascii() for name in names)


def run(*words):
    return cli.main(["evaluate", *map(str, words)])


def test_prompts_are_made_case_by_case_and_go_on(host, files, tmp_path, capsys):
    plain, _, prompts = files
    folder = tmp_path / "clips"
    options = ("prompts", "--workflow", plain, "--prompts", prompts, "--output", folder, "--seed", 5)
    assert run(*options, "--limit", 2) == 0
    assert "2 of 3 clips; run it again" in capsys.readouterr().out
    assert run(*options) == 0 and len(host.jobs) == 3
    assert run(*options) == 0 and len(host.jobs) == 3  # nothing is made twice
    assert {job["seed"] for job in host.jobs} == {5}
    sources = find_sources(folder)  # what `prepare` takes
    assert {source.path.suffix for source in sources} == {".mp4"}
    assert [source.caption.strip() for source in sources] == runs.read_prompts(prompts)
    assert not any(source.problem for source in sources)
    rows = list(csv.reader((folder / "measures.csv").open()))
    assert len(rows) == 5 and rows[-1][0] == "mean" and "flicker" in rows[0]
    assert (folder / "sheet.jpg").stat().st_size > 1000
    sources[0].path.unlink()
    assert run(*options) == 0 and len(host.jobs) == 4
    plain.write_text(json.dumps(GRAPH | {"9": {"class_type": "Note", "inputs": {}}}))
    assert run(*options) == 0 and len(host.jobs) == 7  # another workflow, other clips


def test_a_failed_case_says_so_and_leaves_the_others(host, files, tmp_path, capsys):
    plain, _, prompts = files
    host.breaks = "star"
    options = ("prompts", "--workflow", plain, "--prompts", prompts, "--output", tmp_path / "clips")
    assert run(*options) == 1
    assert "plain.json: node 4 (KSampler) failed: out of memory" in capsys.readouterr().err
    host.breaks = None
    assert run(*options) == 0 and len(host.jobs) == 3


def test_what_is_no_workflow_is_refused_before_a_host_starts(host, files, tmp_path, capsys):
    (tmp_path / "ui.json").write_text(json.dumps({"nodes": [], "links": []}))
    for name, error in (("ui.json", "Export (API)"), ("none.json", "cannot read")):
        assert run("prompts", "--workflow", tmp_path / name, "--output", tmp_path / "o") == 1
        said = capsys.readouterr().err
        assert name in said and error in said
    (tmp_path / "empty.txt").write_text("# nothing\n")
    assert run("prompts", "--workflow", files[0], "--prompts", tmp_path / "empty.txt", "--output", tmp_path / "o") == 1
    assert "holds no prompts" in capsys.readouterr().err and host.jobs == []


def test_two_workflows_side_by_side(host, files, tmp_path, capsys):
    plain, dark, prompts = files
    folder = tmp_path / "both"
    assert run("compare", plain, dark, "--prompts", prompts, "--output", folder, "--labels", "one", "two") == 0
    said = capsys.readouterr().out
    assert "3 prompts" in said and "one" in said and "flicker" in said
    sheets = sorted((folder / "sheets").glob("*.mp4"))
    frames, rate, _ = read_video(sheets[0])
    assert len(sheets) == 3 and len(frames) == 12 and rate == 8
    assert frames[0, 20:, :32].mean() > 1.7 * frames[0, 20:, 36:68].mean()  # the second is darker
    assert (folder / "study" / "index.html").is_file() and (folder / "study.key.json").is_file()


def test_ucf101_end_to_end(host, files, tmp_path, capsys, narrow_i3d, narrow_c3d):
    """A small folder of the world under UCF101's names, and a narrow I3D of random weights."""
    from safetensors.torch import save_file

    real = tmp_path / "ucf"
    captions = {"RedBall": "a red ball moving right on grass", "BlueStar": "a blue star spinning over the ocean"}
    for name, count in (("RedBall", 4), ("BlueStar", 2)):
        for index in range(count):
            clip = to_uint8(render_clip(scene_from_caption(captions[name], index), 16, 8.0, 32, 32))
            write_mp4(real / name / f"v_{name}_g01_c{index:02d}.mp4", clip, 8.0)
    save_file(narrow_i3d(), tmp_path / "i3d.safetensors")
    save_file(narrow_c3d(), tmp_path / "c3d.safetensors")
    (tmp_path / "classes.csv").write_text("".join(f"{name},{text}\n" for name, text in captions.items()))
    options = ["ucf101", "--workflow", files[0], "--videos", real, "--i3d", tmp_path / "i3d.safetensors"]
    options += ["--clips", 3, "--frames", 10, "--class-prompts", tmp_path / "classes.csv", "--output", tmp_path / "o"]
    assert run(*options, "--limit", 1) == 1
    assert "1 of 3 clips" in capsys.readouterr().out
    assert run(*options, "--c3d", tmp_path / "c3d.safetensors") == 1  # said before clips are made
    assert "10 frames; C3D takes 16" in capsys.readouterr().err and len(host.jobs) == 1
    assert run(*options) == 0
    assert [job["prompt"] for job in host.jobs] == [captions["BlueStar"], captions["RedBall"], captions["RedBall"]]
    assert len({job["seed"] for job in host.jobs}) == 3
    said = capsys.readouterr().out
    for part in ("n = 6", "n = 3", "first 10", "332.49", "plain (measured here)", "fewer than 2048", "stretch to 224"):
        assert part in said, part


def test_shares_and_wordings_of_classes():
    from collections import Counter

    from lumiere_core.evaluation import ucf101

    counts = Counter({"A": 140, "B": 105, "C": 100})
    shares = ucf101.shared_out(counts, 100)
    assert sum(shares.values()) == 100 and shares["A"] in (40, 41)
    assert ucf101.shared_out(counts, sum(counts.values())) == dict(counts)
    assert ucf101.in_words("ApplyEyeMakeup") == "apply eye makeup" and ucf101.in_words("YoYo") == "yo yo"
    assert ucf101.in_words("TaiChi") == "tai chi"


def lines_of(folder):
    return [json.loads(line) for line in (folder / "clips.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "damage",
    [
        {"figures": None},
        {"figures": {"flicker": "x"}},
        {"size": [10**9, 2]},
        {"frames": "12"},
        {"case": 3},
        {"prompt": None},
        {"bytes": 5},
    ],
)
def test_a_line_that_is_not_whole_is_made_again(host, files, tmp_path, damage):
    plain, _, prompts = files
    options = ("prompts", "--workflow", plain, "--prompts", prompts, "--output", tmp_path / "clips")
    assert run(*options) == 0 and len(host.jobs) == 3
    lines = lines_of(tmp_path / "clips")
    lines[1] |= damage
    (tmp_path / "clips" / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, [], 7]))
    assert run(*options) == 0 and len(host.jobs) == 4


def test_a_clip_that_was_cut_short_is_made_again(host, files, tmp_path):
    plain, _, prompts = files
    options = ("prompts", "--workflow", plain, "--prompts", prompts, "--output", tmp_path / "clips")
    assert run(*options) == 0
    clip = sorted((tmp_path / "clips").glob("*.mp4"))[0]
    whole = clip.read_bytes()
    clip.write_bytes(whole[:-9])
    assert run(*options) == 0 and len(host.jobs) == 4 and len(read_video(clip)[0]) == 12


def test_one_process_makes_clips_in_a_folder(host, files, tmp_path, capsys):
    plain, _, prompts = files
    with only_writer(tmp_path / "clips", "evaluate"):
        assert run("prompts", "--workflow", plain, "--prompts", prompts, "--output", tmp_path / "clips") == 1
    assert "is being written by process" in capsys.readouterr().err and not host.jobs


@pytest.mark.parametrize(
    "graph", [[], {}, {"1": 3}, {"1": {"class_type": "X", "inputs": []}}, {"1": {"class_type": 3, "inputs": {}}}]
)
def test_a_workflow_of_another_shape_is_refused(host, tmp_path, capsys, graph):
    (tmp_path / "w.json").write_text(json.dumps(graph))
    assert run("prompts", "--workflow", tmp_path / "w.json", "--output", tmp_path / "o") == 1
    assert "is no API-format workflow" in capsys.readouterr().err and not (tmp_path / "o").exists()


def test_sheets_are_of_the_clips_that_are_there(host, files, tmp_path):
    """Another workflow under the same name makes the clips anew, and the sheets with them."""
    plain, dark, prompts = files
    options = ("compare", plain, dark, "--prompts", prompts, "--output", tmp_path / "both")
    assert run(*options) == 0
    sheets = sorted((tmp_path / "both" / "sheets").glob("*.mp4"))
    before = [sheet.stat().st_mtime_ns for sheet in sheets]
    assert run(*options) == 0 and [sheet.stat().st_mtime_ns for sheet in sheets] == before
    plain.write_text(json.dumps(GRAPH | {"9": {"class_type": "Note", "inputs": {}}}))
    assert run(*options) == 0 and all(s.stat().st_mtime_ns > b for s, b in zip(sheets, before, strict=True))
