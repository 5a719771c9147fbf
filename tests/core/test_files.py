"""Files that appear whole or not at all, and the lock of a folder."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path, PureWindowsPath

import pytest

from lumiere_core.files import JsonLines, atomic, check_target, copy, is_running, sweep, windows_problem, write_text
from lumiere_core.lock import only_writer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def names(folder):
    return sorted(p.name for p in folder.rglob("*"))


# ---- one writer


def test_a_file_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with atomic(target) as partial:
        partial.write_text("all of it")
        assert partial.suffix == ".txt" and not target.exists()
    assert target.read_text() == "all of it" and names(tmp_path) == ["a.txt", "new"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    write_text(tmp_path / "a", "old")
    with pytest.raises(type(error)), atomic(tmp_path / "a") as partial:
        partial.write_text("half")
        (partial.parent / ".tmpAbCdEf").write_text("a library's own temporary file")
        raise error
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    """The system says neither of which file it speaks nor that a line was cut short."""
    with (
        pytest.raises(OSError, match="No space left on device; make room there, .*'.*clip.mp4'"),
        atomic(tmp_path / "clip.mp4"),
    ):
        raise OSError(28, "No space left on device")
    log = JsonLines(tmp_path / "log.jsonl")
    log.append({"step": 1})
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda handle, data, really=os.write: really(handle, data[:5]))
        with pytest.raises(OSError, match="No space left on device; make room there, .*'.*log.jsonl'"):
            log.append({"step": 2})
    log.append({"step": 3})
    assert log.read() == [{"step": 1}, {"step": 3}] and names(tmp_path) == ["log.jsonl"]


def test_names_of_the_longest_length_are_written(tmp_path):
    for name in ("x" * 255, "ü" * 125 + ".mp4", "a." + "y" * 253):
        write_text(tmp_path / name, "x")
        copy(tmp_path / name, tmp_path / name)
    assert len(names(tmp_path)) == 3


def test_the_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda handle, really=os.fsync: (calls.append("fsync"), really(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b, really=os.replace: (calls.append("replace"), really(a, b)))
    write_text(tmp_path / "a", "x")
    assert calls == ["fsync", "replace", "fsync"]


def test_what_killed_processes_left_is_swept(tmp_path, dead):
    with atomic(tmp_path / "a") as partial:
        living = partial.parent
        machine = living.name.split("-")[1]
        gone = tmp_path / f".part-{machine}-{dead}-0"
        gone.mkdir()
        (gone / "file.mp4").write_text("half")
        (gone / ".tmpAbCdEf").write_text("half")
        left = [f".clip.mp4.{dead}.partial", f".clip.{dead}.partial.mp4", ".tmpAbCdEf", f".part-000000-{dead}-0"]
        kept = [".clip.mp4", f".clip.{os.getpid()}.partial", ".tmpfiles", ".git", ".holiday.2020.mp4"]
        for name in [*left, *kept]:
            (tmp_path / name).write_text("x")
        sweep(tmp_path)
        assert names(tmp_path) == sorted([*kept, *left[2:], living.name])  # of those nothing says whose they are
        partial.write_text("x")
        for name in left[2:]:
            os.utime(tmp_path / name, (time.time() - 7200,) * 2)
        sweep(tmp_path)
        assert names(tmp_path) == sorted([*kept, living.name, partial.name])


def test_sweeping_follows_no_link(tmp_path, dead):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").write_text("x")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / f".x.{dead}.partial").symlink_to(tmp_path / "other")
    sweep(tmp_path / "here", alone=True)
    assert names(tmp_path) == ["here", "other", "precious"]


def test_processes_that_run():
    assert is_running(os.getpid()) and not is_running(2**22 + 1) and not is_running(10**30)


def test_what_cannot_be_written_is_found_before_the_work(tmp_path):
    check_target(tmp_path / "new" / "a.mp4")
    assert names(tmp_path) == ["new"]
    with pytest.raises(ValueError, match="has 262 bytes; at most 255 fit"):
        check_target(tmp_path / ("x" * 262))
    for name in ("CON", "nul.mp4", "com1.safetensors", "lpt\u00b2.mp4", "aux .tar.gz"):
        with pytest.raises(ValueError, match="the name of a device on Windows"):
            check_target(tmp_path / name)
    with pytest.raises(ValueError, match="is a folder"):
        check_target(tmp_path / "new")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="cannot write into"):
        check_target(tmp_path / "file" / "a.mp4")


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (r"C:\Users\me\ComfyUI\output\clip.mp4", ""),
        (r"..\runs\a.b c\clip 舟.mp4", ""),
        (r"\\server\share\clips\clip.mp4", ""),
        (r"D:\aux\clip.mp4", "'aux' is the name of a device"),
        (r"runs\Com3.old\clip.mp4", "'Com3.old' is the name of a device"),
        (r"runs\CONOUT$", "name of a device"),
        (r"D:\runs\a:b.mp4", "holds ':'"),
        ("runs/what?.mp4", r"holds '\?'"),
        ("runs/a\tb.mp4", "holds"),
        (r"D:\runs.\clip.mp4", "'runs.' ends in a dot or a space"),
        ("clip ", "ends in a dot or a space"),
    ],
)
def test_paths_that_windows_cannot_have(path, problem):
    found = windows_problem(PureWindowsPath(path))
    assert re.search(problem, found) if problem else found == ""


# ---- JSON lines


def test_lines_are_split_at_line_ends_only(tmp_path):
    file = JsonLines(tmp_path / "log.jsonl")
    records = [{"text": "a\u2028b\x85c\x0bd"}, {"text": "\r\n"}]
    for record in records:
        file.append(record)
    assert file.read() == records
    with file.path.open("ab") as handle:
        handle.write(b'[1]\n{"n": ' + b"9" * 10_000 + b'}\n\xff\n{"cut')
    assert file.read() == records
    file.append({"n": 1})
    assert file.read() == [*records, {"n": 1}]


# ---- one writer for a folder

HOLD = (
    "import sys, time; sys.path.insert(0, {root!r})\n"
    "from lumiere_core.lock import only_writer\n"
    "with only_writer({folder!r}, 'prepare'):\n"
    "    print('held', flush=True); time.sleep(600)"
)


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_a_lock_that_is_no_file_touches_nothing(tmp_path, kind):
    """A folder from elsewhere may bring one."""
    folder, lock = tmp_path / "run", tmp_path / "run" / ".lock"
    folder.mkdir()
    (tmp_path / "precious").write_text("mine")
    if kind == "pipe" and not hasattr(os, "mkfifo"):
        pytest.skip("no pipes")
    {"link": lambda: lock.symlink_to(tmp_path / "precious"), "folder": lock.mkdir, "pipe": lambda: os.mkfifo(lock)}[
        kind
    ]()
    with pytest.raises(ValueError, match="is a link or no file"), only_writer(folder, "train"):
        raise AssertionError("held")
    assert (tmp_path / "precious").read_text() == "mine" and lock.is_symlink() == (kind == "link")


def test_the_second_writer_is_told_who_the_first_is(tmp_path):
    folder = tmp_path / "run"
    code = HOLD.format(root=str(ROOT), folder=str(folder))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        facts = json.loads((folder / ".lock").read_text())
        assert facts["pid"] == process.pid and facts["host"]
        with pytest.raises(ValueError, match=rf"by process {process.pid} on {facts['host']} \(prepare, since 20"):
            with only_writer(folder, "train"):
                raise AssertionError("two writers")
        process.kill()
        process.wait()
    (folder / ".tmpAbCdEf").write_text("left by the killed one")
    with only_writer(folder, "train"):  # a lock does not outlive its process
        assert names(folder) == [".lock"]
        with pytest.raises(ValueError, match=f"by process {os.getpid()} "), only_writer(folder, "train"):
            raise AssertionError("two writers in one process")
    assert names(folder) == []
