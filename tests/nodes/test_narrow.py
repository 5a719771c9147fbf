"""The pack of `evaluate own-clips`: the host's own loader reads a checkpoint of a family that it did not know."""

import importlib.util
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.host
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def taught(host, monkeypatch):
    """The host with the pack, until the test ends."""
    import comfy.supported_models
    import comfy.taesd.taesd

    monkeypatch.setattr(comfy.taesd.taesd, "TAESD", comfy.taesd.taesd.TAESD)
    monkeypatch.setattr(comfy.supported_models, "models", list(comfy.supported_models.models))
    spec = importlib.util.spec_from_file_location("narrow_pack", ROOT / "nodes" / "headless" / "narrow.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return host


def test_a_checkpoint_of_another_family_is_encoded_and_trained_as_any(taught, tmp_path):
    core = taught.module
    narrow = core("lumiere_core.evaluation.narrow")
    path = narrow.write_checkpoint(tmp_path)
    encoders = core("nodes.host.encoders").HostEncoders.load(path)
    backbone = encoders.backbone
    assert (backbone["ratio"], backbone["multiple"]) == (narrow.RATIO, narrow.MULTIPLE)
    assert backbone["schedule"]["prediction"] == "x0" and backbone["schedule"]["sigma_data"] == 2

    world = core("lumiere_core.world")
    clip = world.render_clip(world.sample_scene(4), 2, 16.0, height=64, width=64)
    frames = core("lumiere_core.clips.video").to_uint8(clip)
    latents = encoders.encode(frames)
    assert latents.shape == (64, 2, 8, 8)
    error = (encoders.decode(latents).float() - frames.float()).square().mean()
    assert 10 * torch.log10(255**2 / error) > 28

    # The trainer's U-Net of the file, on latents, is lumiere-mini's at twice the size, on pixels.
    unet, schedule = core("lumiere_core.training.backbone").load_backbone(path, backbone)
    doubled = core("lumiere_core.training.double").doubled
    parts = core("lumiere_core.nets.checkpoint").load_parts(
        core("lumiere_core.diffusion.models").weight_files("lumiere-mini")
    )
    whole = doubled(parts)
    pixels = core("lumiere_core.nets.unet").UNet(whole.unet_config)
    core("lumiere_core.nets.checkpoint").load_into(pixels, whole.image, "the doubled model")
    text = encoders.embed("a red ball", 64, 64)
    told = {"context": text["context"][None].expand(2, -1, -1), "y": text["y"][None].expand(2, -1)}
    steps = torch.tensor([300.0, 700.0])
    with torch.no_grad():
        mine = unet(latents.transpose(0, 1), steps, **told)
        theirs = pixels(narrow.decode(path, latents).transpose(0, 1), steps, **told)
    assert schedule.to_dict() == core("lumiere_core.diffusion.schedule").Schedule(**whole.schedule).to_dict()
    assert torch.allclose(narrow.decode(path, mine.transpose(0, 1)).transpose(0, 1), theirs, atol=2e-4)
