"""Text that all frames of a clip share is projected once, and what comes out is what came out before."""

import pytest
import torch

pytestmark = pytest.mark.host
FRAMES = 6


@pytest.fixture
def seam(host):
    return host.module("nodes.host.shared_text")


@pytest.fixture(params=[("SD15", False), ("SD15", True), ("SDXL", True)], ids=lambda p: f"{p[0]}{'-strided' * p[1]}")
def model(request, host, backbones, write_temporal):
    """A video MODEL whose coarser levels have fewer frames, or as many."""
    family, strided = request.param
    plain = backbones(family)
    write_temporal(plain, "shared_text.safetensors", stride=2 if strided else 1)
    (made,) = host.call("LumiereApplyTemporal", model=plain, temporal="shared_text.safetensors", frames_per_clip=0)
    yield made
    (host.base / "models" / "lumiere" / "shared_text.safetensors").unlink()


def rows_seen(model, run):
    """Return the rows that the first layer for the text's keys projected, at each of its calls."""
    from comfy.ldm.modules.attention import BasicTransformerBlock

    rows = []
    unet = model.model.diffusion_model
    layer = next(m for m in unet.modules() if isinstance(m, BasicTransformerBlock)).attn2.to_k
    forward = layer.forward
    layer.forward = lambda x: (rows.append(len(x)), forward(x))[1]
    try:
        return run(), rows
    finally:
        layer.forward = forward


def test_the_samples_are_those_without_it(model, backbones, seam, host, monkeypatch):
    got, rows = rows_seen(model, lambda: backbones.sample(model, FRAMES))
    assert set(rows) <= {1, 2}  # prompts that the host puts into one call
    handlers = host.module("nodes.host.handlers")
    monkeypatch.setattr(handlers, "shared_text", lambda context, frames: None)
    wanted, before = rows_seen(model, lambda: backbones.sample(model, FRAMES))
    assert min(before) >= FRAMES // 2
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_prompts_that_change_over_the_clip_are_projected_frame_by_frame(model, backbones, seam):
    text = backbones.text(1, FRAMES)
    _, rows = rows_seen(model, lambda: backbones.sample(model, FRAMES, positive=text, negative=text))
    assert min(rows) >= FRAMES // 2


def test_a_hook_gives_way_to_whoever_changes_the_text(model, backbones, seam):
    """A patch of another pack hands the layers text of its own."""
    patched = model.clone()
    patched.set_model_attn2_patch(lambda n, context, value, options: (n, context * 0.5, value * 0.5))
    got, rows = rows_seen(patched, lambda: backbones.sample(patched, FRAMES))
    assert min(rows) >= FRAMES // 2
    assert not torch.allclose(got, backbones.sample(model, FRAMES), atol=1e-3)


def test_nothing_is_left_on_the_unet(model, backbones, seam):
    backbones.sample(model, FRAMES)
    layers = seam._layers(model.model.diffusion_model)
    assert layers and not any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)


def test_which_text_is_shared(seam):
    text = torch.randn(2, 3, 4)
    both = text.repeat_interleave(5, dim=0)
    shared = seam.shared_text(both, 5)
    assert torch.equal(shared.unique, text) and torch.equal(shared.at(5), both) and shared.at(5) is shared.at(5)
    assert shared.frames_of(shared.at(5)) == 5 and not shared.frames_of(both)
    both[7, 0, 0] += 1
    assert seam.shared_text(both, 5) is None and seam.shared_text(None, 5) is None
    assert seam.shared_text(text, 1) is None
