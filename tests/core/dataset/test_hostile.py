"""A cache that another person made, or a server: nothing of it is trusted."""

import functools
import http.server
import io
import json
import os
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch

from lumiere_core.dataset import place
from lumiere_core.dataset.cache import Cache
from lumiere_core.dataset.index import parse_index
from lumiere_core.dataset.reader import open_clips
from lumiere_core.dataset.shards import read
from lumiere_core.nets.checkpoint import load_file, save_file

# ---- the index and dataset.json


def entry_with(cache, **changes):
    """The first line of an index with clips, changed."""
    lines = [json.loads(line) for line in (cache / "index.jsonl").read_text().splitlines()]
    row = next(row for row in lines if row["clips"])
    if changes == {"clips": "twice"}:
        changes = {"clips": row["clips"] * 2}
    for name, value in changes.items():
        (row if name in row and name != "shard" else row["clips"][0])[name] = value
    return row


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "../../precious"},
        {"key": "/etc/passwd"},
        {"key": "a" * 24 + "-000000"},  # of another video
        {"key": "0-\u0661\u0662\u0663\u0661\u0662\u0663"},
        {"key": 7},
        {"id": "../x"},
        {"shard": "../000000.tar"},
        {"shard": "http://evil/000000.tar"},
        {"shape": [4, 8, 4]},
        {"shape": [4, 8, "4", 4]},
        {"shape": [4, 8, 1 << 40, 4]},
        {"shape": [4, 8, -4, 4]},
        {"shape": [4, 9, 4, 4]},
        {"shape": [1e9, 8, 4, 4]},
        {"caption": None},
        {"caption": "x" * 10**6},
        {"start": -1},
        {"start": 1e300},
        {"start": 10**400},
        {"clips": {"key": "x"}},
        {"clips": "twice"},
        {"reasons": "x"},
        {"seconds": float("nan")},
        {"decoded": True},
    ],
)
def test_a_line_of_the_index_is_checked(folder, tmp_path, run, changes):
    cache = tmp_path / "cache"
    run(folder, cache)
    row = entry_with(cache, **changes)
    entries, wrong = parse_index(json.dumps(row).encode(), Cache.open(cache).dataset)
    assert not entries and len(wrong) == 1 and wrong[0].startswith("line 1: ")
    (cache / "index.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match="index.jsonl of .* is damaged"):
        open_clips(cache)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["settings", "frames"], 10**12),
        (["settings", "frames"], "8"),
        (["settings", "fps"], float("inf")),
        (["settings", "size"], True),
        (["settings"], [8]),
        (["settings", "wings"], 2),
        (["backbone", "ratio"], 0),
        (["backbone", "ratio"], "8"),
        (["backbone", "unet"], {"model_channels": 1e9}),
        (["backbone", "unet"], None),
        (["backbone", "sha256"], ["x"]),
        (["backbone", "schedule"], 3),
        (["backbone"], None),
        (["rgb"], {"matrix": [[1, 2]], "bias": [0, 0, 0]}),
        (["rgb"], {"matrix": "x", "bias": 3}),
    ],
)
def test_dataset_json_is_checked(folder, tmp_path, run, path, value):
    cache = tmp_path / "cache"
    run(folder, cache)
    dataset = json.loads((cache / "dataset.json").read_text())
    at = dataset
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    (cache / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(ValueError, match="the dataset.json of .* is damaged: "):
        Cache.open(cache)
    with pytest.raises(ValueError, match="the dataset.json of .* is damaged: "):
        run(folder, cache)


def test_a_hostile_cache_touches_nothing_outside(folder, tmp_path, run):
    """Links that lead out, and clips that are "no longer there"."""
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    run(folder, cache)
    (cache / "clips").rename(outside)
    (cache / "clips").symlink_to(outside)
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    for name in ("a", "b"):
        (folder / f"{name}.mp4").unlink()
    with pytest.raises(ValueError, match="leads out of"):
        run(folder, cache)
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_waited_for(folder, tmp_path, run):
    """In a cache and among the videos: opening one would last until somebody writes."""
    os.mkfifo(folder / "c.mp4")
    (folder / "c.txt").write_text("a pipe")
    cache = tmp_path / "cache"
    assert any("a pipe or a device" in reason for entry in run(folder, cache).entries for reason in entry.reasons)
    clip = sorted((cache / "clips").iterdir())[0]
    clip.unlink()
    os.mkfifo(clip)
    with pytest.raises(ValueError, match="is a pipe or a device"):
        open_clips(cache)[0]


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "int64", "complex64"])
@pytest.mark.parametrize("name", ["latents", "context"])
def test_numbers_of_another_kind_are_refused(folder, tmp_path, run, Encoders, name, kind):
    run(folder, tmp_path / "cache")
    path = sorted((tmp_path / "cache" / "clips").iterdir())[0]
    tensors, metadata = load_file(path)
    tensors[name] = tensors[name].to(getattr(torch, kind))
    save_file(tensors, path, {k: v for k, v in metadata.items() if k != "digest"})
    with pytest.raises(ValueError, match=f"no cache has: {name} .{kind}"):
        open_clips(tmp_path / "cache")[0]
    encoders = Encoders()
    run(folder, tmp_path / "cache", encoders)
    assert encoders.calls == 1 and len(open_clips(tmp_path / "cache")) == 4


def test_a_link_to_itself(folder, tmp_path, run):
    run(folder, tmp_path / "cache")
    path = sorted((tmp_path / "cache" / "clips").iterdir())[0]
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        open_clips(tmp_path / "cache")[0]


# ---- shards


def packed(folder, cache, run):
    run(folder, cache, shards=100)
    return cache / "shards" / "000000.tar", Cache.open(cache)


def test_a_member_that_claims_gigabytes_is_refused(folder, tmp_path, run):
    path, cache = packed(folder, tmp_path / "cache", run)
    data = bytearray(path.read_bytes())
    header = tarfile.TarInfo.frombuf(bytes(data[:512]), "utf-8", "strict")
    for name, kind in ((header.name, tarfile.REGTYPE), ("././@LongLink", tarfile.GNUTYPE_LONGNAME)):
        claim = tarfile.TarInfo(name)
        claim.size, claim.type = 6 * 2**30, kind
        path.write_bytes(claim.tobuf(tarfile.GNU_FORMAT) + bytes(data))
        with pytest.raises(ValueError, match="claims 6,442,450,944 bytes|ends too early"):
            read(cache, path.name)


def test_members_with_other_names_are_passed_over(folder, tmp_path, run):
    path, cache = packed(folder, tmp_path / "cache", run)
    wanted = read(cache, path.name)
    with tarfile.open(path, "a") as tar:
        for name in ("../../evil.safetensors", "/etc/evil.safetensors", "ffff-000000.safetensors"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
    assert read(cache, path.name).keys() == wanted.keys()
    assert not list(tmp_path.rglob("*evil*"))


# ---- servers


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; `faults` holds what goes wrong with the next answers to requests of shards."""

    faults: list[str] = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        fault = self.faults.pop(0) if self.faults and self.path.endswith(".tar") else ""
        data = Path(self.directory, self.path.lstrip("/"))
        if fault.isdigit():
            self.send_error(int(fault))
        elif fault:
            body = data.read_bytes()
            self.send_response(200)
            if fault != "no length":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if fault == "bit":
                self.wfile.write(body[:900] + bytes([body[900] ^ 1]) + body[901:])
            else:
                self.wfile.write(body[:700])
            if fault == "silence":
                self.wfile.flush()
                time.sleep(3)
            self.close_connection = True
        else:
            super().do_GET()


@pytest.fixture
def serve(monkeypatch):
    """A function (folder, faults): its address."""
    monkeypatch.setattr(place, "WAITS", (0.01, 0.02, 0.03))
    monkeypatch.setattr(place, "SILENCE", 1)
    servers = []

    def start(folder, faults=()):
        handler = type("Faulty", (Handler,), {"faults": list(faults)})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("fault", ["500", "503", "429", "cut", "no length", "bit", "silence"])
def test_what_may_pass_is_tried_again(folder, tmp_path, run, serve, fault, monkeypatch):
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *_, **__: pytest.fail("a temporary folder"))
    packed(folder, tmp_path / "cache", run)
    clips = open_clips(serve(tmp_path / "cache", [fault, fault]))
    assert [clips[i].tensors["latents"].shape for i in range(len(clips))] == [(4, 8, 4, 4)] * 4


def test_what_does_not_pass_is_said(folder, tmp_path, run, serve):
    packed(folder, tmp_path / "cache", run)
    with pytest.raises(OSError, match=r"000000.tar cannot be read, tried 4 times \(503"):
        open_clips(serve(tmp_path / "cache", ["503"] * 9))[0]
    with pytest.raises(OSError, match="403"):
        try:
            open_clips(serve(tmp_path / "cache", ["403"]))[0]
        except Exception as error:
            raise OSError(str(error)) from error
    (tmp_path / "cache" / "shards" / "000000.tar").unlink()
    with pytest.raises(FileNotFoundError):
        open_clips(serve(tmp_path / "cache"))[0]
    with pytest.raises(ValueError, match="is no cache of clips"):
        open_clips(serve(tmp_path))


def test_an_endless_answer_ends(folder, tmp_path, run, serve, monkeypatch):
    packed(folder, tmp_path / "cache", run)
    (tmp_path / "cache" / "index.jsonl").write_bytes(b"{}\n" * 10**6)
    monkeypatch.setattr("lumiere_core.dataset.cache.MOST_INDEX", 10**6)
    with pytest.raises(ValueError, match="larger than anything that can belong there"):
        open_clips(serve(tmp_path / "cache"))


def test_clips_in_single_files_are_not_streamed(folder, tmp_path, run, serve):
    run(folder, tmp_path / "cache")
    with pytest.raises(ValueError, match="4 clips of http.* lie in single files; run `prepare --shards 256`"):
        open_clips(serve(tmp_path / "cache"))
