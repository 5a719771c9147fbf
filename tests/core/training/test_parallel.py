"""Two processes over gloo, started by torchrun, train as one process with the doubled batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lumiere_core.clips.media import write_mp4
from lumiere_core.commands.cli import main
from lumiere_core.dataset.cache import Settings
from lumiere_core.dataset.encoders import lumiere_encoders
from lumiere_core.dataset.prepare import prepare
from lumiere_core.nets.checkpoint import load_file
from lumiere_core.training.log import Log

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def command(weights, tmp_path):
    """Function (output, batch, …) -> arguments of a short training on four clips."""
    generator = torch.Generator().manual_seed(0)
    for number in range(4):
        frames = torch.randint(0, 256, (8, 16, 16, 3), generator=generator, dtype=torch.uint8)
        write_mp4(tmp_path / "videos" / f"{number}.mp4", frames)
    encoders = lumiere_encoders(weights)
    prepare(
        tmp_path / "videos", tmp_path / "cache", encoders, Settings(frames=8, size=16), caption="noise", progress=False
    )

    def arguments(output, batch, *more):
        return [
            "train",
            "temporal",
            "--checkpoint",
            str(weights),
            "--data",
            str(tmp_path / "cache"),
            "--output",
            str(tmp_path / output),
            "--batch-size",
            str(batch),
            "--threads",
            "1",
            "--optimizer",
            "SGD",
            "--learning-rate",
            "0.1",
            "--warmup",
            "1",
            "--sample-every",
            "-1",
            *more,
        ]

    return arguments


def torchrun(arguments, folder):
    # The loopback by name: a sandbox may not know its own host name.
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--local-addr",
        "127.0.0.1",
        str(ROOT / "lumiere_core" / "__main__.py"),
        *arguments,
    ]
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=400,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **loopback},
    )
    assert done.returncode == 0, done.stderr[-3000:]


def same(first, second, tolerance):
    for key, value in first.items():
        if key.startswith(("model.", "ema.")):
            assert torch.allclose(value, second[key], atol=tolerance), key


@pytest.mark.parametrize(
    ("strategy", "resumed"),
    [
        ("ddp", False),
        pytest.param("ddp", True, marks=pytest.mark.slow),
        pytest.param("fsdp", True, marks=pytest.mark.slow),
    ],
)
def test_two_processes_equal_the_doubled_batch(command, tmp_path, strategy, resumed):
    """Three steps of 2 x 1 x 2 clips each (two turns of accumulation), the last one perhaps after a resume."""
    assert main(command("one", 2, "--steps", "3", "--accumulate", "2")) == 0
    more = ("--accumulate", "2", "--strategy", strategy)
    if resumed:
        torchrun(command("two", 1, "--steps", "2", *more), tmp_path)
        more = ("--resume", *more)
    torchrun(command("two", 1, "--steps", "3", *more), tmp_path)
    one, two = (tmp_path / n for n in ("one", "two"))
    same(load_file(one / "state.safetensors")[0], load_file(two / "state.safetensors")[0], 1e-5)
    losses = [[r["loss"] for r in Log(folder).read()] for folder in (one, two)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5) and len(losses[1]) == 3
    exported = [load_file(folder / "temporal.safetensors")[0] for folder in (one, two)]
    assert exported[0].keys() == exported[1].keys()


@pytest.fixture
def stage_command(weights, tiny, tmp_path):
    """Function (stage, output, batch, …) -> arguments of two short steps on the world."""
    config = {
        "text": tiny.text_config().to_dict(),
        "unet": tiny.unet_config().to_dict(),
        "temporal": tiny.temporal_config().to_dict(),
        "schedule": {"kind": "cosine", "prediction": "v"},
    }
    upscaler = tiny.unet_config(in_channels=6, patch_size=4, adm_in_channels=64, disable_self_attn=True)
    files = {
        "base": config,
        "ssr": config | {"unet": upscaler.to_dict(), "ssr": {"level_channels": 32}, "size": [32, 32]},
    }
    for name, values in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(values))
    text, image = (("--" + name, str(weights / f"{name}.safetensors")) for name in ("text", "image"))
    given = {
        "text": (),
        "image": text,
        "temporal": (*text, *image, "--num-frames", "4"),
        "condition": (*text, *image, "--num-frames", "4"),
        "style": (*text, *image, "--style", "neon", "--rank", "2"),
        "ssr": text,
    }

    def arguments(stage, output, batch, *more):
        size = () if stage == "text" else ("--height", "16", "--width", "16")
        numbers = ("--batch-size", str(batch), "--steps", "2", "--threads", "1", "--sample-every", "-1")
        rate = ("--optimizer", "SGD", "--learning-rate", "0.1", "--warmup", "1")
        config = ("--config", str(tmp_path / ("ssr.json" if stage == "ssr" else "base.json")))
        output = ("--output", str(tmp_path / output))
        return ["train", stage, *config, *output, *given[stage], *size, *numbers, *rate, *more]

    return arguments


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("stage", ["text", "image", "temporal", "condition", "style", "ssr"])
def test_every_stage_runs_in_two_processes(stage_command, tmp_path, stage, strategy):
    assert main(stage_command(stage, "one", 2)) == 0
    torchrun(stage_command(stage, "two", 1, "--strategy", strategy), tmp_path)
    states = [load_file(tmp_path / name / "state.safetensors")[0] for name in ("one", "two")]
    same(*states, 2e-5)
    losses = [[r["loss"] for r in Log(tmp_path / name).read()] for name in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], abs=2e-5) and len(losses[1]) == 2
