"""Nothing that was encoded is lost, and nothing that failed for a passing reason is remembered."""

import json
import os

import pytest
import torch

from lumiere_core.dataset.cache import Cache
from lumiere_core.dataset.reader import open_clips
from lumiere_core.lock import only_writer


def shards_of(cache):
    return {path.name: path.read_bytes() for path in (cache / "shards").iterdir()}


def contents(cache):
    clips = open_clips(cache)
    return {clip.key: (clip.caption, clips[i].tensors["latents"]) for i, clip in enumerate(clips.flat)}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key, (caption, latents) in first.items():
        assert second[key][0] == caption and torch.equal(second[key][1], latents)


def flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


# ---- passing failures


def test_a_full_disk_is_not_remembered(folder, tmp_path, run, Encoders, monkeypatch):
    write, calls = Cache.write_clip, []

    def full(self, clip, tensors):
        calls.append(clip.key)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        write(self, clip, tensors)

    monkeypatch.setattr(Cache, "write_clip", full)
    summary = run(folder, tmp_path / "cache")
    assert any("tried again the next time" in r for e in summary.entries for r in e.reasons)
    assert len(summary.cache.clips()) == 3
    monkeypatch.setattr(Cache, "write_clip", write)
    encoders = Encoders()
    assert len(run(folder, tmp_path / "cache", encoders).cache.clips()) == 4
    assert encoders.calls == 1  # what had been stored was found


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_missing_permission_is_not_remembered(folder, tmp_path, run):
    (folder / "a.mp4").chmod(0)
    assert len(run(folder, tmp_path / "cache").cache.clips()) == 2
    (folder / "a.mp4").chmod(0o600)
    assert len(run(folder, tmp_path / "cache").cache.clips()) == 4


def test_clips_of_a_file_that_is_missing_today_are_kept(folder, tmp_path, run, Encoders):
    rows = [{"path": f"{name}.mp4", "caption": name} for name in ("a", "b")]
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(folder / "list.jsonl", tmp_path / "cache")
    (folder / "a.mp4").rename(tmp_path / "elsewhere.mp4")
    summary = run(folder / "list.jsonl", tmp_path / "cache")
    assert len(summary.cache.clips()) == 4 and summary.entries[0].reasons == ["no such file"]
    (tmp_path / "elsewhere.mp4").rename(folder / "a.mp4")
    encoders = Encoders()
    assert len(run(folder / "list.jsonl", tmp_path / "cache", encoders).cache.clips()) == 4 and encoders.calls == 0


def test_what_is_wrong_with_the_video_is_remembered(folder, tmp_path, run, monkeypatch):
    run(folder, tmp_path / "cache")
    monkeypatch.setattr("lumiere_core.dataset.prepare.frames_at", lambda *_: pytest.fail("looked at again"))
    entries = run(folder, tmp_path / "cache").entries
    assert sorted(len(entry.reasons) for entry in entries) == [0, 1, 1, 1, 1]


def test_ctrl_c_writes_the_index(folder, tmp_path, run, Encoders):
    encoders = Encoders()
    encode = encoders.encode

    def interrupted(frames):
        if encoders.calls == 3:
            raise KeyboardInterrupt
        return encode(frames)

    encoders.encode = interrupted
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "cache", encoders)
    assert len(Cache.open(tmp_path / "cache").clips()) == 3
    assert not (tmp_path / "cache" / ".lock").exists()
    encoders = Encoders()
    run(folder, tmp_path / "cache", encoders)
    assert encoders.calls == 1


def test_one_writer(folder, tmp_path, run):
    with only_writer(tmp_path / "cache", "prepare"), pytest.raises(ValueError, match=f"by process {os.getpid()} on"):
        run(folder, tmp_path / "cache")


# ---- damage


@pytest.mark.parametrize("how", ["bit", "cut", "empty", "gone"])
@pytest.mark.parametrize("what", ["clips", "empty"])
def test_a_damaged_file_is_made_again(folder, tmp_path, run, Encoders, how, what):
    cache = tmp_path / "cache"
    run(folder, cache)
    before = contents(cache)
    path = sorted((cache / what).iterdir())[0]
    data = path.read_bytes()
    if how == "bit":
        flip(path)
    elif how == "gone":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2 if how == "cut" else 0])
    encoders = Encoders()
    run(folder, cache, encoders)
    assert encoders.calls == (what == "clips")
    assert_same(before, contents(cache))


@pytest.mark.parametrize("how", ["gone", "cut", "garbage", "binary"])
def test_a_lost_index_is_made_anew_from_the_clips(folder, tmp_path, run, Encoders, caplog, how):
    cache = tmp_path / "cache"
    run(folder, cache)
    before, index = contents(cache), cache / "index.jsonl"
    data = index.read_bytes()
    if how == "gone":
        index.unlink()
    else:
        index.write_bytes({"cut": data[:-30], "garbage": b'{"id": 1}\n[]\n', "binary": bytes(range(256))}[how])
        with pytest.raises(ValueError, match="index.jsonl of .* is damaged .line 1|index.jsonl of .* is damaged"):
            open_clips(cache)
    encoders = Encoders()
    run(folder, cache, encoders)
    assert encoders.calls == 0 and "made anew from the clips" in caplog.text
    assert_same(before, contents(cache))


def test_an_index_of_shards_is_made_anew(folder, tmp_path, run, Encoders):
    cache = tmp_path / "cache"
    run(folder, cache, shards=0.001)
    before, shards = contents(cache), shards_of(cache)
    (cache / "index.jsonl").unlink()
    encoders = Encoders()
    run(folder, cache, encoders, shards=0.001)
    assert encoders.calls == 0 and shards_of(cache) == shards
    assert_same(before, contents(cache))


@pytest.mark.parametrize("how", ["gone", "cut", "bit"])
def test_a_lost_shard_is_made_again_and_the_others_stay(folder, tmp_path, run, Encoders, how):
    cache = tmp_path / "cache"
    run(folder, cache, shards=0.001)
    before, shards = contents(cache), shards_of(cache)
    assert len(shards) > 2
    lost = cache / "shards" / "000001.tar"
    count = sum(clip.shard == lost.name for clip in Cache.open(cache).clips())
    if how == "gone":
        lost.unlink()
    elif how == "cut":
        lost.write_bytes(lost.read_bytes()[:600])
    else:
        flip(lost, at=900)  # in the first clip
        with pytest.raises(ValueError, match="000001.tar|is damaged|no whole safetensors"):
            contents(cache)
    encoders = Encoders()
    run(folder, cache, encoders, shards=0.001)
    assert 1 <= encoders.calls <= count
    after = shards_of(cache)
    assert {name: after[name] for name in shards if name != lost.name} == {
        name: data for name, data in shards.items() if name != lost.name
    }
    assert f"{len(shards):06d}.tar" in after and lost.name not in after  # a number is never used twice
    assert_same(before, contents(cache))


def test_a_caches_numbers_go_on_after_the_highest(folder, tmp_path, run, make_video, balls):
    cache = tmp_path / "cache"
    run(folder, cache, shards=100)
    (cache / "shards" / "000000.tar").rename(cache / "shards" / "000007.tar")
    index = cache / "index.jsonl"
    index.write_text(index.read_text().replace("000000.tar", "000007.tar"))
    make_video(folder / "new.mp4", balls(8, shift=3))
    (folder / "new.txt").write_text("new")
    run(folder, cache, shards=100)
    assert sorted(shards_of(cache)) == ["000007.tar", "000008.tar"]
