"""The other side of `evaluate seams`: a host in a process of its own that enlarges clips in its own windows."""

import pytest
import torch

pytestmark = [pytest.mark.host, pytest.mark.slow]


def test_clips_come_back_enlarged(host, write_tiny, tiny_ssr, tmp_path, comfyui, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui))
    windows = host.module("lumiere_core.evaluation.host_windows")
    other = windows.HostWindows(write_tiny(tmp_path / "stage.safetensors", **tiny_ssr()))
    small = torch.randint(0, 256, (10, 8, 8, 3), dtype=torch.uint8)
    made = other.upscale(small, "a red ball", 3, 2, 4, 2)
    assert made.shape == (10, 32, 32, 3) and made.dtype == torch.uint8
    assert torch.equal(other.upscale(small, "a red ball", 3, 2, 4, 2), made)
    whole = other.upscale(small, "a red ball", 3, 2, 99, 2)
    assert not torch.equal(whole, made)
    # The same model and noise as the clips that it is compared with.
    models, upscale = host.module("lumiere_core.diffusion.models"), host.module("lumiere_core.diffusion.upscale")
    models, _ = models.load_upscaler([tmp_path / "stage.safetensors"])
    request = upscale.UpscaleRequest("a red ball", seed=3, steps=2, context_length=99)
    assert (upscale.upscale(models, small, request).int() - whole.int()).abs().max() <= 2
    with pytest.raises(RuntimeError, match="context windows: failed"):
        other.upscale(small[:0], "a red ball", 3, 2, 4, 2)
