"""The cache: what is in it, what is made again, and what is refused."""

import csv
import json

import pytest
import torch

from lumiere_core.clips.media import read_video
from lumiere_core.dataset.cache import Cache
from lumiere_core.dataset.encoders import PixelEncoders, is_lumiere, lumiere_encoders
from lumiere_core.dataset.index import Settings
from lumiere_core.dataset.prepare import prepare, to_pixels
from lumiere_core.dataset.reader import open_clips
from lumiere_core.dataset.shards import read


def test_clips_captions_and_reasons(folder, tmp_path, run):
    summary = run(folder, tmp_path / "cache")
    entries = {e.source.rsplit("/", 1)[-1]: e for e in summary.entries}
    assert {k: len(e.clips) for k, e in entries.items()} == {
        "a.mp4": 2,
        "b.mp4": 2,
        "short.mp4": 0,
        "broken.mp4": 0,
        "silent.mp4": 0,
    }
    assert entries["a.mp4"].reasons == ["4 frames from 1.00 s on: a clip has 8"]
    assert entries["short.mp4"].reasons == ["5 frames from 0.00 s on: a clip has 8"]
    assert entries["broken.mp4"].reasons[0].startswith("no video that can be opened")
    assert entries["silent.mp4"].reasons[0].startswith("no caption")
    assert entries["b.mp4"].size == "32x32"
    text = "\n".join(summary.lines())
    assert "4 clips of 2 videos kept, 4 of them new; 3 videos gave none" in text
    assert "no caption: write a .txt" in text
    rows = list(csv.reader((tmp_path / "cache" / "report.csv").open(encoding="utf-8")))
    assert len(rows) == 6 and rows[0][0] == "video"


def test_what_is_stored(folder, tmp_path, run):
    run(folder, tmp_path / "cache")
    clips = open_clips(tmp_path / "cache")
    assert len(clips) == 4
    one = next(clips[i] for i in range(4) if clips[i].caption == "clip a")
    assert one.tensors["latents"].shape == (4, 8, 4, 4)
    assert one.tensors["latents"].dtype == torch.float16
    assert one.tensors["context"].unique().tolist() == [6.0]  # len("clip a")
    assert one.tensors["y"].tolist() == [32, 32]
    assert clips.cache.read_empty(32, 32)["context"].unique().tolist() == [0.0]


def test_latents_are_those_of_the_pixels(folder, tmp_path, run, Encoders):
    encoders = Encoders()
    run(folder, tmp_path / "cache", encoders)
    clips = open_clips(tmp_path / "cache")
    one = next(clips[i] for i in range(4) if clips[i].caption == "clip a")
    frames, _, _ = read_video(folder / "a.mp4")
    starts = {int(c.key.rsplit("-", 1)[1]) for c in clips.flat if c.caption == "clip a"}
    assert starts == {0, 8}
    wanted = [encoders.encode(torch.from_numpy(frames[s : s + 8])) for s in (0, 8)]
    distances = [(one.tensors["latents"].float() - w).abs().max() for w in wanted]
    assert min(distances) < 2e-3


def test_running_again_makes_only_what_is_missing(folder, tmp_path, make_video, balls, run, Encoders):
    cache = tmp_path / "cache"
    run(folder, cache)
    encoders = Encoders()
    assert run(folder, cache, encoders).made == 0 and encoders.calls == 0
    make_video(folder / "new.mp4", balls(8, shift=3))
    (folder / "new.txt").write_text("new")
    (folder / "b.txt").write_text("another caption")  # its clips are made again
    (folder / "a.mp4").unlink()
    next((cache / "clips").glob("*")).unlink()
    encoders = Encoders()
    summary = run(folder, cache, encoders)
    assert encoders.calls == 3 and summary.made == 3
    captions = sorted(clip.caption for clip in Cache.open(cache).clips())
    assert captions == ["another caption", "another caption", "new"]
    assert len(list((cache / "clips").iterdir())) == 3  # those of a.mp4 and of the old caption are gone
    assert any("no longer there" in line for line in summary.lines())


def test_a_renamed_video_is_known_by_its_content(folder, tmp_path, run, Encoders):
    run(folder, tmp_path / "cache")
    (folder / "a.mp4").rename(folder / "z.mp4")
    (folder / "a.txt").rename(folder / "z.txt")
    encoders = Encoders()
    summary = run(folder, tmp_path / "cache", encoders)
    assert encoders.calls == 0 and len(summary.cache.clips()) == 4


def test_the_same_video_twice_counts_once(folder, tmp_path, run):
    (folder / "copy.mp4").write_bytes((folder / "a.mp4").read_bytes())
    (folder / "copy.txt").write_text("clip a")
    summary = run(folder, tmp_path / "cache")
    assert len(summary.cache.clips()) == 4
    assert any("the same video and caption as" in " ".join(e.reasons) for e in summary.entries)


def test_another_setting_or_checkpoint_is_refused(folder, tmp_path, run, Encoders):
    run(folder, tmp_path / "cache")
    with pytest.raises(ValueError, match="other settings: settings.frames was 8, now 4"):
        prepare(folder, tmp_path / "cache", Encoders(), Settings(frames=4, size=32), progress=False)
    with pytest.raises(ValueError, match="backbone.sha256.a was 'one', now 'two'"):
        run(folder, tmp_path / "cache", Encoders("two"))
    with pytest.raises(ValueError, match="holds other files"):
        run(folder, folder)
    with pytest.raises(ValueError, match="is no cache of clips"):
        Cache.open(folder)


def test_a_failing_vae_is_a_reason_not_the_end(folder, tmp_path, run, Encoders):
    encoders = Encoders()
    encode = encoders.encode
    encoders.encode = lambda frames: encode(frames) * (float("nan") if encoders.calls == 3 else 1)
    summary = run(folder, tmp_path / "cache", encoders)
    reasons = [r for e in summary.entries for r in e.reasons if "NaN" in r]
    assert reasons == [
        "failed, and is tried again the next time: the VAE gave NaN or infinite values for the clip at frame 0"
    ]
    assert len(summary.cache.clips()) == 2


def test_preview_and_linear_colours(folder, tmp_path, run, Encoders):
    """The preview shows what was stored; the linear colours come near to it."""
    encoders = Encoders()
    run(folder, tmp_path / "cache", encoders)
    frames, rate, _ = read_video(tmp_path / "cache" / "preview.mp4")
    assert len(frames) == 8 and rate == 16
    clips = open_clips(tmp_path / "cache")
    latents = clips[0].tensors["latents"].float()
    exact = encoders.decode(latents)[:, 4::8, 4::8].float()
    linear = to_pixels(latents, clips.cache.dataset["rgb"]).float()
    assert (exact - linear).abs().mean() < 3


@pytest.mark.parametrize("address", [False, True])
def test_shards_hold_the_same_clips(folder, tmp_path, address, run):
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    run(folder, plain)
    summary = run(folder, packed, shards=0.002)
    names = sorted(p.name for p in (packed / "shards").iterdir())
    assert len(names) > 1 and names[0] == "000000.tar"
    assert list((packed / "clips").iterdir()) == []
    keys = [key for name in names for key in read(Cache.open(packed), name)]
    assert sorted(keys) == [clip.key for clip in summary.cache.clips()]

    first = open_clips(plain)
    if address:
        import functools
        import http.server
        import threading

        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

        handler = functools.partial(Quiet, directory=str(packed))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        second = open_clips(f"http://127.0.0.1:{server.server_port}/")
    else:
        second = open_clips(packed)
    stored = {clip.key: i for i, clip in enumerate(second.flat)}
    for index, clip in enumerate(first.flat):
        theirs = second[stored[clip.key]]
        assert theirs.caption == clip.caption
        for name, value in first[index].tensors.items():
            assert torch.equal(theirs.tensors[name], value)
    assert second.cache.read_empty(32, 32)["y"].tolist() == [32, 32]
    if address:
        server.shutdown()


def test_more_clips_make_more_shards(folder, tmp_path, make_video, balls, run, Encoders):
    run(folder, tmp_path / "cache", shards=100)
    make_video(folder / "new.mp4", balls(8, shift=3))
    (folder / "new.txt").write_text("new")
    encoders = Encoders()
    run(folder, tmp_path / "cache", encoders, shards=100)
    assert encoders.calls == 1
    names = sorted(p.name for p in (tmp_path / "cache" / "shards").iterdir())
    assert names == ["000000.tar", "000001.tar"] and len(open_clips(tmp_path / "cache")) == 5


def test_a_damaged_shard_is_named(folder, tmp_path, run):
    run(folder, tmp_path / "cache", shards=100)
    path = tmp_path / "cache" / "shards" / "000000.tar"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ValueError, match="000000.tar is no complete tar file of clips"):
        read(Cache.open(tmp_path / "cache"), "000000.tar")


def test_every_clip_comes_once_a_round_and_the_order_follows_the_seed(folder, tmp_path, run):
    run(folder, tmp_path / "cache", shards=0.002)
    clips = open_clips(tmp_path / "cache")
    rounds = [[clips.at(r * 4 + i, seed=1) for i in range(4)] for r in range(8)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in rounds)
    assert len({tuple(order) for order in rounds}) > 2
    assert [clips.at(i, 1) for i in range(8)] == [*rounds[0], *rounds[1]]
    assert [clips.at(i, 2) for i in range(32)] != [clips.at(i, 1) for i in range(32)]


def test_a_lumiere_checkpoint_brings_its_own_encoders(weights, tmp_path):
    encoders = lumiere_encoders(weights)
    assert isinstance(encoders, PixelEncoders)
    assert encoders.backbone["ratio"] == 1 and encoders.backbone["prefix"] == "image."
    frames = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    half = encoders.encode(frames).half().float()
    assert torch.equal(encoders.decode(half), frames)  # float16 loses no level
    embedding = encoders.embed("a red ball", 16, 16)
    assert embedding["context"].ndim == 2 and embedding["y"].ndim == 1
    other = tmp_path / "sd.safetensors"
    from safetensors.torch import save_file

    save_file({"model.diffusion_model.x": torch.zeros(1)}, other)
    assert not is_lumiere(other) and lumiere_encoders(other) is None
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        lumiere_encoders(tmp_path / "gone")


def test_the_verb(folder, tmp_path, weights, capsys):
    from lumiere_core.commands.cli import main

    arguments = ["prepare", str(folder), "--checkpoint", str(weights), "--frames", "8", "--size", "32"]
    assert main([*arguments, "--output", str(tmp_path / "cache")]) == 0
    out = capsys.readouterr().out
    assert "4 clips of 2 videos kept" in out and "preview.mp4" in out
    dataset = json.loads((tmp_path / "cache" / "dataset.json").read_text())
    assert dataset["settings"] == {"fps": 16.0, "frames": 8, "size": 32}
    assert dataset["rgb"]["matrix"][0] == [1.0, 0.0, 0.0]
    for name in ("a.mp4", "b.mp4"):
        (folder / name).unlink()
    assert main([*arguments, "--output", str(tmp_path / "none")]) == 1
    assert "no clip is left" in capsys.readouterr().err


def test_settings_are_checked():
    with pytest.raises(ValueError, match="fps of the clips is 0; a number above 0"):
        Settings(fps=0)
