"""`evaluate seams`: its measures find what they are made for, and its bars can fail."""

import argparse

import pytest
import torch

from lumiere_core.evaluation import seams
from lumiere_core.evaluation.host_windows import HostWindows
from lumiere_core.evaluation.stored import difference


def moving(frames=32):
    """A bright bar that moves one pixel a frame: the same change between all neighbours."""
    clip = torch.zeros(frames, 8, frames + 8, 3, dtype=torch.uint8)
    for i in range(frames):
        clip[i, :, i : i + 4] = 200
    return clip


def test_steady_motion_has_no_seam_and_a_jump_at_a_border_has_one():
    clip = moving()
    assert seams.seam_ratio(clip, 0) == pytest.approx(1, abs=0.01)
    assert seams.seam_ratio(clip, 2) == pytest.approx(1, abs=0.01)
    jumping = clip.clone()
    jumping[8:16] += 40  # one window without overlap is brighter
    assert seams.seam_ratio(jumping, 0) > 1.5
    still = clip[:1].repeat(32, 1, 1, 1)
    still[8, 0, 0, 0] += 1  # nobody sees that
    assert seams.seam_ratio(still, 0) == 1
    inside = clip.clone()
    inside[12:] += 1  # no border there
    assert seams.seam_ratio(inside, 0) < 1.1


def test_distances_are_of_frames_and_of_their_changes():
    true = moving(6)
    brighter = true + 10
    result = seams.distances(brighter, true)
    assert result["psnr"] == pytest.approx(28.13, abs=0.01)
    assert result["change_psnr"] > 100  # the same change everywhere
    flickering = true.clone()
    flickering[::2] += 10
    assert seams.distances(flickering, true)["change_psnr"] < 30


def test_errors_are_averaged_not_decibels():
    """A still clip without any error does not outweigh all others."""
    assert seams.of_mean_error([30.0, 30.0]) == pytest.approx(30)
    assert seams.of_mean_error([30.0, 108.0]) == pytest.approx(33.01, abs=0.01)


def record(ours=1.02, plain=1.4, gain=3.0, steadier=0.5):
    kinds = {"no overlap": plain, "host's context windows": 1.1, "ours": ours, "ours, tapered": ours}
    truth = {
        "bicubic": {"psnr": 30.0, "change_psnr": 31.0},
        "frame by frame": {"psnr": 30.0 + gain, "change_psnr": 31.0 + gain - steadier},
        "ours": {"psnr": 30.0 + gain, "change_psnr": 31.0 + gain},
    }
    return {"seams": kinds, "truth": truth}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({}, set()),
        ({"ours": 1.2}, {"change at borders over median: ours", "change at borders over median: ours, tapered"}),
        ({"plain": 1.01}, {"change at borders over median: no overlap"}),
        ({"gain": 1.9}, {"PSNR over bicubic", "PSNR of changes over bicubic"}),
        ({"steadier": -0.1}, {"PSNR of changes over single frames"}),
    ],
)
def test_bars(change, failing):
    bars = seams.Seams.bars(None, [record(**change)] * seams.CASES)
    assert {bar.name for bar in bars if bar.held is False} == failing
    few = seams.Seams.bars(None, [record()])
    assert [bar.name for bar in few if bar.held is False] == ["clips"]


def test_cases_are_many_and_of_many_families():
    cases = seams.Seams.cases(None)
    assert len({case.id for case in cases}) == seams.CASES
    assert len({case.scene.family for case in cases}) >= 10


def test_without_a_host_its_windows_are_left_out(monkeypatch, tmp_path):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    windows = HostWindows(tmp_path / "none.safetensors")
    assert windows.upscale(moving(4), "", 0, 1, 4, 2) is None
    assert windows.upscale(moving(4), "", 0, 1, 4, 2) is None  # it is not started again


def test_a_base_model_is_refused(weights):
    options = argparse.Namespace(weights=weights / "image.safetensors", device="cpu")
    with pytest.raises(ValueError, match="no super-resolution model"):
        seams.Seams(options)


def test_a_line_that_does_not_come_out_again_is_found():
    """The figures of the bars count, not only the verdicts."""
    stored = {"seen": {}, **record()}
    assert difference(stored, {"seen": {}, **record()}, seams.Seams.tolerances) == ""
    close = {"seen": {}, **record(ours=1.03, gain=3.05)}
    assert difference(stored, close, seams.Seams.tolerances) == ""
    for changed, name in ((record(ours=1.05), "seams, ours"), (record(gain=2.5), "truth, frame by frame")):
        found = difference(stored, {"seen": {}, **changed}, seams.Seams.tolerances)
        assert found.startswith(name)
