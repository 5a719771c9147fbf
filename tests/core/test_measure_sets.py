"""Distances between sets of clips: known answers, no bias, and everything printed that a figure depends on."""

import json
import math
import os
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from lumiere_core.clips.media import write_mp4
from lumiere_core.clips.video import to_uint8
from lumiere_core.evaluation.video_set import Protocol, frames_of, read_set, videos_in
from lumiere_core.measures.features import Network, load_network
from lumiere_core.measures.features.network import resized
from lumiere_core.measures.sets import compare_sets, frechet_distance, inception_score, kernel_distance
from lumiere_core.measures.sets.report import ClipSet
from lumiere_core.measures.sets.statistics import Moments, kernel_interval
from lumiere_core.provenance import generated_by
from lumiere_core.world import render_clip, sample_scene


def gaussian(count, width=8, shift=0.0, scale=1.0, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale + shift


def test_frechet_distance_of_known_gaussians():
    """|m1 - m2|² + sum of (s1 - s2)² for diagonal covariances, exact once the samples are whitened."""
    white = gaussian(400)
    white = white - white.mean(0)
    values, vectors = torch.linalg.eigh(white.T @ white / 399)
    white = white @ vectors / values.sqrt()
    assert frechet_distance(white, white) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(white, white + 2) == pytest.approx(8 * 4)
    assert frechet_distance(white, white * 3) == pytest.approx(8 * (3 - 1) ** 2)
    assert frechet_distance(white, gaussian(400, shift=0.5, seed=1)) == pytest.approx(
        frechet_distance(gaussian(400, shift=0.5, seed=1), white)
    )


def test_moments_in_pieces_are_the_moments_of_all():
    features = gaussian(100, shift=1000.0)
    pieces = Moments()
    for part in features.split(17):
        pieces.add(part)
    assert torch.allclose(pieces.covariance(), features.T.cov())
    assert torch.allclose(pieces.mean, features.mean(0))
    other = gaussian(100, seed=2)
    assert frechet_distance(pieces, other) == pytest.approx(frechet_distance(features, other))


def test_few_clips_bias_the_frechet_distance_and_not_the_kernel_one():
    pairs = [(gaussian(24, 16, seed=2 * i), gaussian(24, 16, seed=2 * i + 1)) for i in range(40)]
    frechet = torch.tensor([frechet_distance(*pair) for pair in pairs])
    kernel = torch.tensor([kernel_distance(*pair) for pair in pairs])
    assert frechet.mean() > 3  # of equal distributions
    assert abs(kernel.mean()) < 3 * kernel.std() / 40**0.5


def test_kernel_distance_by_its_definition_and_its_interval():
    first, second = gaussian(9, seed=1), gaussian(7, shift=0.3, seed=2)

    def kernel(a, b):
        return (a @ b.T / 8 + 1) ** 3

    within = [kernel(x, x).fill_diagonal_(0).sum() / (len(x) * (len(x) - 1)) for x in (first, second)]
    wanted = float(sum(within) - 2 * kernel(first, second).mean())
    assert kernel_distance(first, second) == pytest.approx(wanted)
    first, second = gaussian(200, seed=1), gaussian(200, shift=1.0, seed=2)
    low, high = kernel_interval(first, second)
    assert 0 < low < kernel_distance(first, second) < high
    assert kernel_interval(first, second) == (low, high)  # the same draws
    # Every second draw of two clips is one of them twice.
    low, high = kernel_interval(gaussian(2), gaussian(3, seed=1))
    assert -math.inf < low <= high < math.inf


def test_inception_score():
    sure = torch.eye(5).repeat(40, 1) * 100
    assert inception_score(sure)[0] == pytest.approx(5)
    assert inception_score(torch.zeros(200, 5)) == (pytest.approx(1), pytest.approx(0))
    assert inception_score(sure * 50)[0] == pytest.approx(5)  # chances too small for a float64
    assert inception_score(sure[:1].repeat(20, 1) * 50) == (pytest.approx(1), pytest.approx(0))
    with pytest.raises(ValueError, match="fewer parts"):
        inception_score(torch.zeros(3, 5))


def test_bad_sets_are_refused():
    with pytest.raises(ValueError, match="1 and 5 clips"):
        frechet_distance(gaussian(1), gaussian(5))
    with pytest.raises(ValueError, match="8 and 4 features"):
        frechet_distance(gaussian(5), gaussian(5, 4))
    bad = gaussian(5)
    bad[3, 2] = float("nan")
    with pytest.raises(ValueError, match="clip 3 are no numbers"):
        kernel_distance(bad, gaussian(5))


def test_the_report_says_what_its_figures_depend_on():
    real = ClipSet("real", gaussian(60), Counter({"64x64": 60}), Counter({"25": 60}), Counter({"h264": 60}))
    made = ClipSet("made", gaussian(40, shift=1.0, seed=1), Counter({"64x64": 30, "32x32": 10}), Counter({"16": 40}))
    made.codecs, made.skipped = Counter({"h264": 40}), {"short.mp4": "3 frames, 16 are wanted"}
    report = compare_sets(real, made, {"features": "I3D, weights sha256 abc"}, classes=True)
    text = report.table()
    for part in (
        "n = 60",
        "n = 40",
        "64x64 (30), 32x32 (10)",
        "fps 25",
        "sha256 abc",
        "half to half",
        "divided by n - 1",
    ):
        assert part in text
    for warning in ("fewer than 2048", "differ in size", "frame sizes", "frame rates", "short.mp4: 3 frames"):
        assert warning in text
    assert report.values["half_frechet"] < report.values["frechet"] and report.values["kernel_low"] > 0
    assert 1 <= report.values["inception"] <= 8


@pytest.fixture(scope="session")
def i3d_file(tmp_path_factory, narrow_i3d):
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("nets") / "i3d.safetensors"
    save_file(narrow_i3d(), path)
    return path


@pytest.fixture(scope="session")
def i3d(i3d_file):
    return load_network(i3d_file)


@pytest.fixture(scope="session")
def c3d(tmp_path_factory, narrow_c3d):
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("nets") / "c3d.safetensors"
    save_file(narrow_c3d(), path)
    return load_network(path)


def clip(seed=0, frames=16, side=32):
    return to_uint8(render_clip(sample_scene(seed), frames, 16.0, side, side))


def test_i3d_and_c3d_are_told_by_their_weights(i3d, c3d):
    assert (i3d.name, c3d.name) == ("I3D", "C3D") and len(i3d.sha256) == 64
    first = i3d.features(clip(0))
    assert first.shape == (7,) and torch.equal(first, i3d.features(clip(0)))
    assert not torch.allclose(first, i3d.features(clip(1)))
    assert not torch.allclose(first, i3d.features(clip(0).flip(0)))  # time matters
    assert c3d.features(clip(0)).shape == (5,)
    with pytest.raises(ValueError, match="9 frames; I3D takes at least 10"):
        i3d.features(clip(0, frames=9))
    with pytest.raises(ValueError, match="C3D takes 16"):
        c3d.features(clip(0, frames=20))


def test_videomae_through_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.VideoMAEConfig(
        image_size=32,
        patch_size=16,
        num_frames=4,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    transformers.VideoMAEModel(config).save_pretrained(tmp_path)
    network = load_network(tmp_path)
    assert network.name == "VideoMAE" and network.frames == 4 and not network.classes
    assert network.features(clip(0, frames=4)).shape == (16,)


def test_vjepa_through_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.VJEPA2Config(
        patch_size=16,
        crop_size=32,
        frames_per_clip=4,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        mlp_ratio=2.0,
        pred_hidden_size=32,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
    )
    torch.manual_seed(0)
    model = transformers.VJEPA2Model(config).eval()
    model.save_pretrained(tmp_path)
    network = load_network(tmp_path)
    assert (network.name, network.frames, network.size, network.classes) == ("V-JEPA 2", 4, 32, False)
    frames = clip(0, frames=4)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        wanted = model((frames.movedim(-1, 1) / 255 - mean)[None] / std, skip_predictor=True).last_hidden_state
    assert torch.allclose(network.features(frames), wanted.mean(1)[0], atol=1e-5)
    assert not torch.allclose(network.features(frames.flip(0)), wanted.mean(1)[0], atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "frames", "exact", "size"),
    [([1, 3, 8, 32, 32], 8, True, 32), (["n", 3, "t", "h", "w"], 10, False, 224), ([1, 8, 3, 32, 32], 8, True, 32)],
)
def test_onnx_files_say_what_they_take(tmp_path, monkeypatch, shape, frames, exact, size):
    """onnxruntime is no part of the development set: its session is played here."""
    path, seen = tmp_path / "net.onnx", []
    path.write_bytes(b"a network")

    class Session:
        def __init__(self, file, providers):
            assert file == str(path)

        def get_inputs(self):
            return [SimpleNamespace(name="x", shape=shape)]

        def run(self, outputs, feed):
            seen.append(feed["x"])
            return [feed["x"].mean((3, 4)).reshape(1, -1)]

    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=Session))
    network = load_network(path)
    assert (network.frames, network.exact, network.size) == (frames, exact, size)
    assert network.features(clip(0, frames=frames)).shape == (3 * frames,)
    assert seen[0].shape[2 if shape[1] == 8 else 1] == 3 and -1.001 <= seen[0].min() < seen[0].max() <= 1.001
    shape[:] = [1, 3, 32, 32]
    with pytest.raises(ValueError, match=r"takes \[1, 3, 32, 32\]; \(batch, 3, frames"):
        load_network(path)


def test_a_network_that_lacks_weights_says_which(tmp_path, narrow_c3d):
    from safetensors.torch import save_file

    state = narrow_c3d()
    save_file({f"module.{name}": value for name, value in state.items()}, tmp_path / "parallel.safetensors")
    assert load_network(tmp_path / "parallel.safetensors").features(clip(0)).shape == (5,)
    state.pop("fc8.bias")
    save_file(state, tmp_path / "lacking.safetensors")
    with pytest.raises(ValueError, match="lacking.safetensors lacks fc8.bias"):
        load_network(tmp_path / "lacking.safetensors").features(clip(0))
    (tmp_path / "torn.safetensors").write_bytes(b"xx")
    with pytest.raises(ValueError, match="torn.safetensors is damaged"):
        load_network(tmp_path / "torn.safetensors")


def test_files_that_are_no_network_are_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError, match="none.safetensors.*Publishers: I3D"):
        load_network(tmp_path / "none.safetensors")
    pickle = tmp_path / "i3d_torchscript.pt"
    pickle.touch()
    with pytest.raises(ValueError, match="can run code"):
        load_network(pickle)
    save_file({"a.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="neither I3D .* nor C3D"):
        load_network(tmp_path / "other.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        load_network(tmp_path / "folder")


def test_resizing_is_named_and_does_what_it_says():
    frames = torch.rand(2, 3, 20, 40) * 255
    frames[..., :10] = 0
    assert resized(frames, 20, "crop").equal(frames[..., 10:30])
    assert resized(frames, 20, "stretch").shape == (2, 3, 20, 20)
    assert resized(frames, 20, "stretch")[..., :4].max() < 1e-3
    assert not torch.allclose(resized(frames, 10, "crop"), resized(frames, 10, "crop-antialias"))
    with pytest.raises(ValueError, match="stretch-antialias"):
        resized(frames, 20, "squeeze")


@pytest.fixture
def folder(tmp_path):
    for seed in range(3):
        write_mp4(tmp_path / f"set/{seed}.mp4", clip(seed), 8.0)
    write_mp4(tmp_path / "set/short.mp4", clip(0, frames=5), 8.0)
    (tmp_path / "set/broken.mp4").write_bytes(b"nothing")
    return tmp_path / "set"


def test_a_folder_is_read_once(folder, i3d, tmp_path):
    ran = []
    counting = Network(**{**vars(i3d), "run": lambda x: ran.append(1) or i3d.run(x)})
    files, cache = videos_in(folder), tmp_path / "cache.jsonl"
    done = []
    found = read_set(files, "made", counting, Protocol(), cache, lambda *counts: done.append(counts))
    assert found.features.shape == (3, 7) and len(ran) == 3 and done[-1] == (5, 5)
    assert found.sizes == {"32x32": 3} and found.rates == {"8": 3} and found.codecs == {"h264": 3}
    assert found.skipped["short.mp4"] == "5 frames, 16 are wanted" and "broken.mp4" in found.skipped
    again = read_set(files, "made", counting, Protocol(), cache)
    assert again.features.equal(found.features) and again.skipped == found.skipped and len(ran) == 3
    read_set(files, "made", counting, Protocol(resize="stretch"), cache)
    assert len(ran) == 6  # another protocol, other features
    write_mp4(folder / "1.mp4", clip(9), 8.0)
    read_set(files, "made", counting, Protocol(), cache)
    assert len(ran) == 7  # another clip under the same name


def test_a_set_of_one_clip_says_why(folder, i3d):
    with pytest.raises(ValueError, match="0 clips of few can be used; at least 2 are wanted. broken.mp4: "):
        read_set([folder / "broken.mp4", folder / "short.mp4"], "few", i3d, Protocol())


def test_frames_of_a_file_come_as_they_are_in_it(folder):
    frames, rate = frames_of(folder / "short.mp4")
    assert rate == 8 and len(list(frames)) == 5


@pytest.mark.parametrize(
    "change", [{"features": "%%%"}, {"features": ""}, {"features": "AADAfwAAwH8="}, {"features": 3}, {"size": None}]
)
def test_a_damaged_line_of_the_cache_is_made_again(folder, i3d, tmp_path, change):
    files, cache = videos_in(folder), tmp_path / "cache.jsonl"
    found = read_set(files, "made", i3d, Protocol(), cache)
    lines = [json.loads(line) for line in cache.read_text().splitlines()]
    lines[0] |= change
    cache.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {}, {"key": lines[0]["key"]}]))
    assert read_set(files, "made", i3d, Protocol(), cache).features.equal(found.features)


def test_a_failure_is_not_remembered(folder, i3d, tmp_path):
    """A clip that could not be read is read the next time: neither its size nor its time need have changed."""
    cache, file = tmp_path / "cache.jsonl", folder / "2.mp4"
    whole, facts = file.read_bytes(), file.stat()
    file.write_bytes(bytes(len(whole)))
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert "2.mp4" in read_set(videos_in(folder), "made", i3d, Protocol(), cache).skipped
    file.write_bytes(whole)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert len(read_set(videos_in(folder), "made", i3d, Protocol(), cache).features) == 3


def test_clips_of_this_pack_are_measured_too(folder):
    """They are no source of training, and what else would be judged?"""
    comment = generated_by({"mini.safetensors": "ab" * 32})
    write_mp4(folder / "ours.mp4", clip(0), 8.0, metadata={"comment": comment})
    frames, _ = frames_of(folder / "ours.mp4")
    assert len(list(frames)) == 16
