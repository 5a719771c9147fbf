"""`evaluate enlarging`: real clips enlarged in both ways."""

import pytest
import torch

from lumiere_core import world
from lumiere_core.clips.media import write_mp4
from lumiere_core.commands import cli
from lumiere_core.diffusion.models import load_upscaler
from lumiere_core.diffusion.upscale import UpscaleRequest
from lumiere_core.evaluation.enlarging import FIGURES, Pair, compare, figures, middle, read


@pytest.fixture(scope="module")
def clip():
    return world.render_clip(world.sample_scene(3), 4, 16.0, 80, 96).transpose(0, 1)


def test_the_middle_of_a_clip_fits_the_scale(clip):
    assert middle(clip, 64, 8).shape == (4, 3, 64, 64)
    assert middle(clip, 90, 8).shape == (4, 3, 80, 88)
    assert torch.equal(middle(clip, 64, 8), clip[:, :, 8:72, 16:80])


def test_a_clip_is_its_own_best_and_a_pair_must_win_in_every_figure(clip):
    levels = ((clip.transpose(0, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 3, 0)
    same = figures(levels, levels)
    assert same["psnr"] > 100 and same["ssim"] == pytest.approx(1, abs=1e-6)
    base = dict.fromkeys(FIGURES, 20.0)
    assert Pair(base, {**base, "psnr": 20.5, "ssim": 20.1}).holds
    for worse in ({"psnr": 20.4}, {"ssim": 20.0}, {"change_psnr": 19.9}):
        assert not Pair(base, {"psnr": 21.0, "ssim": 20.1, "change_psnr": 20.0, **worse}).holds


def test_both_ways_are_measured_with_compression_and_without(clip):
    models, _ = load_upscaler()
    request = UpscaleRequest(steps=1)
    plain, coded = (compare(models, middle(clip, 80, 8), request, crf) for crf in (None, 28.0))
    assert set(plain.ours) == set(FIGURES)
    assert coded.bicubic["psnr"] < plain.bicubic["psnr"]
    assert plain.gain("psnr") > 1  # the world is what it was trained on


def test_the_command_reads_files_and_names_what_is_none(clip, tmp_path, capsys):
    frames = ((clip.transpose(0, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 3, 0)
    write_mp4(tmp_path / "a.mp4", frames)
    assert read(tmp_path / "a.mp4", 3).shape == (3, 3, 80, 96)
    code = cli.main(["evaluate", "enlarging", str(tmp_path / "a.mp4"), "--frames", "2", "--side", "64", "--steps", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and "a.mp4 at crf 28: psnr" in lines[1] and "of 2" in lines[2]
    assert code in (0, 1)
    (tmp_path / "b.mp4").write_bytes(b"no video")
    write_mp4(tmp_path / "small.mp4", frames[:, :4, :4])
    clips = [str(tmp_path / name) for name in ("b.mp4", "small.mp4", "a.mp4")]  # one bad clip is not the end
    assert cli.main(["evaluate", "enlarging", *clips, "--frames", "2", "--side", "64", "--steps", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "b.mp4 is left out: b.mp4 is no video" in lines[0] and "small.mp4 is left out: the clip has 4x4" in lines[1]
    assert "a.mp4 at crf 28" in lines[3]
