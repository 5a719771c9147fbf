"""Damaged files of weights and caches: an answer, or a sentence that names the file; never a crash, never a hang."""

import json
import os
import random
import time
from collections import Counter

import pytest
import torch

from lumiere_core.dataset.index import Settings
from lumiere_core.dataset.prepare import prepare
from lumiere_core.dataset.reader import open_clips
from lumiere_core.diffusion.models import load_models
from lumiere_core.nets.checkpoint import load_file, save_file

COUNT = int(os.environ.get("LUMIERE_FUZZ", "0")) // 5 or 60  # of each kind
SECONDS = 20.0  # for one file, at most
VALUES = [
    None,
    True,
    0,
    -1,
    1.5,
    7,
    1e9,
    1e308,
    float("nan"),
    10**30,
    10**400,
    "x",
    "",
    [],
    [0],
    [10**6] * 3,
    {},
    {"a": 1},
    65535,
]


def paths(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths(item, (*path, key))


def changed(value, dice):
    """A JSON value with another value at one place of it."""
    value = json.loads(json.dumps(value))
    *way, last = dice.choice([path for path in paths(value) if path])
    at = value
    for key in way:
        at = at[key]
    at[last] = dice.choice(VALUES)
    return value


def damaged(data, dice):
    """Bytes that were cut, flipped, repeated or overwritten."""
    data, at = bytearray(data), dice.randrange(len(data))
    kind = dice.randrange(4)
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        for _ in range(dice.choice((1, 8, 64))):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        return bytes(data)
    if kind == 2:
        return bytes(data[:at] + data[at // 2 :])
    data[at : at + 64] = dice.randbytes(64)
    return bytes(data)


def judge(tally, what, work, clear=(ValueError, OSError)):
    """Run `work`, count what became of it, and fail on an unclear error or a hang."""
    began = time.monotonic()
    try:
        work()
        outcome = "fine"
    except clear as error:
        outcome = "clear"
        assert len(str(error)) > 20, (what, error)
    seconds = time.monotonic() - began
    assert seconds < SECONDS, f"{what}: {seconds:.0f} s"
    tally[outcome] += 1


def test_damaged_weights(weights, figures):
    dice, tally = random.Random(COUNT), Counter()
    file = weights / "image.safetensors"
    (state, metadata), whole = load_file(file), file.read_bytes()
    config = json.loads(metadata["lumiere.config"])
    for number in range(COUNT):
        if number % 2:
            file.write_bytes(damaged(whole, dice))
        else:
            save_file(state, file, metadata | {"lumiere.config": json.dumps(changed(config, dice))})
        judge(tally, f"weights {number}", lambda: load_models(weights))
    figures("damaged files of weights: read / refused in a sentence", [tally["fine"], tally["clear"]])
    assert tally["clear"] > COUNT / 4


class Encoders:
    """Pixels as latents of 8 x 8 means, and no text to speak of."""

    backbone = {"sha256": {"a": "b"}, "ratio": 8, "multiple": 16, "unet": {}, "schedule": {}}

    def encode(self, frames):
        return torch.nn.functional.avg_pool2d(frames.float().permute(3, 0, 1, 2) / 127.5 - 1, 8)

    def decode(self, latents):
        x = latents.repeat_interleave(8, -1).repeat_interleave(8, -2)
        return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0)

    def embed(self, caption, height, width):
        return {"context": torch.full((3, 4), float(len(caption)))}


@pytest.mark.parametrize("shards", [0, 0.001])
def test_damaged_caches(make_video, balls, tmp_path, figures, shards):
    """Reading refuses in a sentence; `prepare` heals, or refuses dataset.json; and nothing outside is touched."""
    dice, tally, healed = random.Random(COUNT), Counter(), Counter()
    videos, outside = tmp_path / "videos", tmp_path / "precious.safetensors"
    outside.write_bytes(b"precious")
    make_video(videos / "a.mp4", balls(20, height=32, width=32))
    (videos / "a.txt").write_text("a ball")

    def make(folder):
        prepare(videos, folder, Encoders(), Settings(16.0, 8, 32), shards=shards, progress=False)

    def read(folder):
        clips = open_clips(folder)
        return [clips[i].tensors["latents"] for i in range(len(clips))]

    good = tmp_path / "cache"
    make(good)
    wanted = read(good)
    files = [p for p in good.rglob("*") if p.is_file() and p.suffix in (".json", ".jsonl", ".safetensors", ".tar")]
    for number in range(COUNT // 2):
        file = dice.choice(files)
        data = file.read_bytes()
        if file.suffix.startswith(".json") and number % 2:
            file.write_text(
                json.dumps(changed(json.loads(data.split(b"\n")[0] if file.suffix == ".jsonl" else data), dice))
            )
        else:
            file.write_bytes(damaged(data, dice))
        judge(tally, f"cache {number} {file.name}", lambda: read(good))
        judge(healed, f"prepare {number} {file.name}", lambda: make(good))
        if file.name != "dataset.json":
            again = read(good)
            assert len(again) == len(wanted) and all(map(torch.equal, again, wanted)), (number, file.name)
        file.write_bytes(data)
        make(good)
        files = [p for p in good.rglob("*") if p.is_file() and p.suffix in (".json", ".jsonl", ".safetensors", ".tar")]
        assert outside.read_bytes() == b"precious"
    kind = "shards" if shards else "single files"
    figures(f"damaged caches of {kind}: read / refused in a sentence", [tally["fine"], tally["clear"]])
    figures(f"damaged caches of {kind}: healed by prepare / refused in a sentence", [healed["fine"], healed["clear"]])


def kept(folder):
    """When each whole clip was written."""
    clips = folder / "clips"
    return (
        {p.name: p.stat().st_mtime_ns for p in clips.iterdir() if p.suffix == ".safetensors"} if clips.is_dir() else {}
    )


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_prepare_that_is_killed_at_any_moment_loses_nothing(spawn, weights, make_video, balls, tmp_path, figures):
    kills = int(os.environ.get("LUMIERE_FUZZ", "0")) // 25 or 20
    videos, dice, before, again = tmp_path / "videos", random.Random(kills), {}, 0
    for number in range(12):
        make_video(videos / f"{number}.mp4", balls(40, shift=number, height=32, width=32))
        (videos / f"{number}.txt").write_text(f"ball {number}")
    options = ["--checkpoint", str(weights), "--frames", "8", "--size", "32"]

    def command(folder):
        return spawn("prepare", str(videos), *options, "--output", str(tmp_path / folder))

    whole = command("whole")
    began = time.monotonic()
    assert whole.wait(300) == 0
    seconds = time.monotonic() - began
    for _ in range(kills):
        process = command("killed")
        time.sleep(dice.uniform(0.3, 1.0) * seconds)
        process.kill()
        process.communicate()
        now = kept(tmp_path / "killed")
        again += sum(now.get(name) != when for name, when in before.items())
        before = now
    last = command("killed")
    assert last.wait(300) == 0
    now = kept(tmp_path / "killed")
    again += sum(now.get(name) != when for name, when in before.items())
    figures("`prepare` killed at random moments: kills / clips that were lost or made twice", [kills, again])
    assert not again
    first, second = (open_clips(tmp_path / name) for name in ("whole", "killed"))
    assert [clip.key for clip in first.flat] == [clip.key for clip in second.flat]
    assert all(torch.equal(first[i].tensors["latents"], second[i].tensors["latents"]) for i in range(len(first)))
    assert not list((tmp_path / "killed").rglob(".part-*"))
