"""Weights on disk: round trips, messages about files that do not fit, atomic writing."""

import errno
import hashlib
import json
import os

import pytest
import safetensors.torch
import torch

from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.nets import checkpoint
from lumiere_core.nets.checkpoint import (
    bundled_files,
    check_state,
    load_file,
    load_into,
    load_parts,
    metadata_for,
    save_file,
    sha256,
    to_half,
)
from lumiere_core.nets.config import TextConfig, UNetConfig
from lumiere_core.nets.text_encoder import TextEncoder
from lumiere_core.nets.unet import UNet


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(4, 3, generator=generator),
        "a.bias": torch.randn(4, generator=generator).half(),
        "steps": torch.tensor(7),
    }


def test_round_trip(tmp_path, state):
    path = tmp_path / "new" / "folder" / "x.safetensors"
    save_file(state, path, {"lumiere.note": "é"})
    got, metadata = load_file(path)
    assert metadata == {"lumiere.note": "é"}
    assert got.keys() == state.keys()
    for key, value in state.items():
        assert got[key].dtype == value.dtype and torch.equal(got[key], value)
    assert os.listdir(path.parent) == ["x.safetensors"]


def test_views_and_parameters_are_saved_too(tmp_path):
    square = torch.arange(6.0).reshape(2, 3)
    module = torch.nn.Linear(3, 2)
    save_file({"t": square.T, "w": module.weight}, tmp_path / "x.safetensors", {})
    got, _ = load_file(str(tmp_path / "x.safetensors"))
    assert torch.equal(got["t"], square.T) and torch.equal(got["w"], module.weight)


# ---- files that are not what was wanted


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at .*nothing.safetensors.*Check"):
        load_file(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 60, -1], ids=lambda n: f"first{n}bytes")
def test_a_truncated_file_is_said_to_be_truncated(tmp_path, state, keep):
    path = tmp_path / "cut.safetensors"
    save_file(state, path, {})
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    size = len(whole[:keep])
    with pytest.raises(ValueError, match=rf"cut.safetensors \({size} bytes\) is not a complete.*again"):
        load_file(path)


@pytest.mark.parametrize("content", [b"PK\x03\x04" + bytes(200), b"<html>404</html>" * 9], ids=["zip", "html"])
def test_another_format_is_said_to_be_another_format(tmp_path, content):
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="model.ckpt .* is not a complete safetensors file.*of another format"):
        load_file(path)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_file(tmp_path)


# ---- states that do not fit


def test_keys_and_shapes_that_do_not_fit_are_named():
    wanted = {"a": torch.zeros(2, 3), "b": torch.zeros(1), "c": torch.zeros(5)}
    with pytest.raises(ValueError) as error:
        check_state(wanted, {"a": torch.zeros(3, 2), "x": torch.zeros(1), "c": torch.zeros(5)}, "layers of f")
    assert str(error.value) == (
        "layers of f do not fit this architecture: 1 missing: b; 1 unknown: x; "
        "1 of another shape: a is (3, 2), wanted (2, 3). "
        "The file was made for another backbone or configuration."
    )


def test_long_lists_are_cut():
    with pytest.raises(ValueError, match="5 missing: 0, 1, 2 …"):
        check_state({str(i): torch.zeros(1) for i in range(5)}, {}, "layers")


def test_load_into_checks_and_keeps_the_modules_type(state):
    module = torch.nn.Linear(3, 4)
    load_into(module, {"weight": state["a.weight"].double(), "bias": state["a.bias"]}, "layer")
    assert module.bias.dtype == torch.float32
    assert torch.equal(module.weight, state["a.weight"])
    assert torch.equal(module.bias, state["a.bias"].float())
    before = module.weight.clone()
    with pytest.raises(ValueError, match="layer do not fit.*1 missing: bias"):
        load_into(module, {"weight": torch.zeros(4, 3)}, "layer")
    assert torch.equal(module.weight, before)


# ---- models in one file or several


CONFIG = {"text": {"width": 32, "depth": 1, "num_heads": 2, "tokens": 4}}


UNET = UNetConfig(model_channels=32, num_head_channels=32)


def save_part(folder, part, config, name="m", **extra):
    path = folder / f"{name}-{part}.safetensors"
    network = UNet(UNET) if part == "image" else TextEncoder(TextConfig(**CONFIG["text"]))
    state = {f"{part}.{key}": value for key, value in network.state_dict().items()}
    save_file(state, path, metadata_for(f"a {part}", config, **extra))
    return path


def test_metadata_is_for_other_tools_and_for_us():
    metadata = metadata_for("t", CONFIG, step="3")
    assert metadata["modelspec.architecture"] == "lumiere" and metadata["modelspec.title"] == "t"
    assert metadata["lumiere.step"] == "3"
    assert json.loads(metadata["lumiere.config"]) == CONFIG


def test_parts_come_from_several_files(tmp_path):
    files = [
        save_part(tmp_path, "text", CONFIG, step="1"),
        save_part(tmp_path, "image", {"unet": UNET.to_dict(), "schedule": {"kind": "cosine"}}),
    ]
    parts = load_parts(files)
    assert "out.2.bias" in parts.image and "out.2.bias" not in parts.text and parts.temporal is None
    assert parts.text_config.width == 32 and parts.unet_config == UNET
    assert parts.schedule == {"kind": "cosine"}
    assert parts.sha256 == {file.name: sha256(file) for file in files}
    assert parts.metadata["lumiere.step"] == "1"
    parts.require("text", "image")
    with pytest.raises(ValueError, match="m-text.safetensors, m-image.safetensors holds no temporal.*temporal."):
        parts.require("text", "temporal")


def test_a_file_is_hashed_again_only_when_it_was_written(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(checkpoint, "open", lambda *args: opened.append(args) or open(*args), raising=False)
    file = tmp_path / "large.safetensors"
    file.write_bytes(b"one")
    assert sha256(file) == sha256(str(file)) == hashlib.sha256(b"one").hexdigest() and len(opened) == 1
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))  # of the same size
    assert sha256(file) == hashlib.sha256(b"two").hexdigest() and len(opened) == 2
    file.write_bytes(b"longer")
    os.utime(file, ns=(1, 1))  # at the same time
    assert sha256(file) == hashlib.sha256(b"longer").hexdigest() and len(opened) == 3
    with pytest.raises(FileNotFoundError):
        sha256(tmp_path / "gone.safetensors")


def test_parts_come_from_one_file(tmp_path):
    path = tmp_path / "all.safetensors"
    save_file({"text.a": torch.ones(1), "temporal.b": torch.ones(1)}, path, metadata_for("all", {}))
    parts = load_parts(str(path))
    assert list(parts.text) == ["a"] and list(parts.temporal) == ["b"] and parts.image is None


def test_a_file_that_is_no_lumiere_checkpoint_is_told_by_its_content(tmp_path, state):
    path = tmp_path / "sd15.safetensors"
    save_file(state, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"sd15.* no lumiere.config \(found \['format'\].*a\.bias.*inflated instead"):
        load_parts(path)


@pytest.mark.parametrize("config", ["{half", "[]", '"text"'])
def test_a_broken_configuration_is_named(tmp_path, config):
    path = tmp_path / "x.safetensors"
    save_file({"text.w": torch.ones(1)}, path, {"lumiere.config": config})
    with pytest.raises(ValueError, match="lumiere.config of x.safetensors.*JSON object is wanted"):
        load_parts(path)


def test_a_missing_configuration_is_named(tmp_path):
    parts = load_parts(save_part(tmp_path, "text", CONFIG))
    for name, key in (("unet_config", "unet"), ("temporal_config", "temporal"), ("schedule", "schedule")):
        with pytest.raises(ValueError, match=f'm-text.safetensors.*no "{key}"'):
            getattr(parts, name)


def test_a_configuration_of_a_newer_version_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"TextConfig does not know \['wings'\].*[Uu]pdate"):
        load_parts(save_part(tmp_path, "text", {"text": {"width": 32, "wings": 2}}))


def test_bundled_files_are_found_by_name(tmp_path):
    files = [save_part(tmp_path, part, {}, name="mini") for part in ("text", "image")]
    save_part(tmp_path, "text", {}, name="other")
    assert bundled_files("mini", tmp_path) == files
    with pytest.raises(FileNotFoundError, match="no files big-.*install it again"):
        bundled_files("big", tmp_path)


def test_half_precision_copies(state):
    half = to_half(state)
    assert all(v.dtype == torch.float16 for v in half.values())
    assert state["a.weight"].dtype == torch.float32


# ---- writing


def full_disk(*_args, **_more):
    raise OSError(errno.ENOSPC, "No space left on device")


def half_a_file(_state, path, _metadata=None):
    with open(path, "wb") as file:
        file.write(b"half")
    full_disk()


@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("fails", ["write", "rename"])
def test_a_full_disk_leaves_no_file_and_no_partial_one(tmp_path, state, monkeypatch, fails, there_before):
    path = tmp_path / "x.safetensors"
    if there_before:
        save_file({"old": torch.ones(1)}, path, {})
    with monkeypatch.context() as patch:
        if fails == "write":
            patch.setattr(safetensors.torch, "save_file", half_a_file)
        else:
            patch.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="No space left"):
            save_file(state, path, {})
    assert os.listdir(tmp_path) == (["x.safetensors"] if there_before else [])
    if there_before:
        assert list(load_file(path)[0]) == ["old"]


def test_the_real_writer_reports_a_full_disk_as_an_os_error(tmp_path):
    """The writer's own exception is no OSError; a limit on file sizes makes it fail for real."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="x.safetensors.*too large"):
            save_file({"w": torch.zeros(10_000)}, tmp_path / "x.safetensors", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


# ---- what a file says is not trusted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["unet"].update(model_channels=4096),
            "image U-Net weights of image.* do not fit this architecture",
        ),
        (lambda c: c["unet"].update(model_channels="64"), "model_channels of UNetConfig is '64'; wanted: a whole"),
        (lambda c: c["unet"].update(channel_mult=[1] * 4000), "channel_mult of UNetConfig is .*; wanted: whole"),
        (lambda c: c.update(unet=[]), '"unet" in the lumiere.config of .* is no JSON object'),
        (lambda c: c.update(size=[16, 1e300]), r'"size" in the lumiere.config of .* is \[16, 1e\+300\]'),
        (lambda c: c["schedule"].update(steps=10**9), "the schedule has 1000000000 steps"),
        (lambda c: c["schedule"].update(sigma_max=float("nan")), "sigma_max is nan"),
        (lambda c: c["schedule"].update(wings=2), r"does not know \['wings'\]"),
    ],
)
def test_a_damaged_configuration_is_named(weights, change, message):
    """And is found before any memory is asked for."""
    file = weights / "image.safetensors"
    state, metadata = load_file(file)
    config = json.loads(metadata["lumiere.config"])
    change(config)
    save_file(state, file, metadata | {"lumiere.config": json.dumps(config)})
    with pytest.raises(ValueError, match=message):
        Schedule(**load_parts(file).schedule)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda v: v.long(), "are no weights: 1 tensors are of another type than floating point: out.2.bias is int64"),
        (lambda v: v > 0, "out.2.bias is bool"),
        (lambda v: v.to(torch.complex64), "out.2.bias is complex64"),
        (lambda v: v * float("nan"), "hold NaN or infinite numbers in 1 tensors: out.2.bias"),
        (lambda v: v - float("inf"), "hold NaN or infinite numbers"),
    ],
)
def test_weights_that_are_no_finite_numbers_are_named(weights, value, message):
    file = weights / "image.safetensors"
    state, metadata = load_file(file)
    state["image.out.2.bias"] = value(state["image.out.2.bias"])
    save_file(state, file, metadata)
    with pytest.raises(ValueError, match=message):
        load_parts(file)
