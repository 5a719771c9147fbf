"""The Space-Time U-Net with "trained" temporal layers: lengths, batches, gradients."""

import pytest
import torch

from lumiere_core.nets.stunet import SpaceTimeUNet


@torch.no_grad()
def test_any_number_of_frames_works(tiny):
    net = tiny.spacetime(2, trained=True, temporal={"stride": 4})
    for frames in range(1, 98):
        out = net(*tiny.inputs(frames=frames, height=4, width=4))
        assert out.shape == (1, 3, frames, 4, 4)
        assert torch.isfinite(out).all(), f"{frames} frames"


@torch.no_grad()
def test_padding_is_reflection_in_time(tiny):
    """6 frames are frames 0 … 5, 4, 3 of an 8-frame clip, cropped."""
    net = tiny.spacetime(3, trained=True).double()
    inputs = tiny.inputs(frames=6, dtype=torch.float64)
    longer = inputs.replace(x=inputs.x[:, :, [0, 1, 2, 3, 4, 5, 4, 3]])
    assert torch.allclose(net(*inputs), net(*longer)[:, :, :6], atol=1e-12)


@torch.no_grad()
def test_permuting_the_clips_permutes_the_answer(tiny):
    net = tiny.spacetime(3, trained=True).double()
    inputs, order = tiny.inputs(clips=3, frames=5, dtype=torch.float64), [2, 0, 1]
    assert torch.allclose(net(*inputs.clips(order)), net(*inputs)[order], atol=1e-12)


@torch.no_grad()
def test_clips_of_a_batch_do_not_influence_each_other(tiny):
    net = tiny.spacetime(3, trained=True).double()
    inputs = tiny.inputs(clips=2, frames=5, dtype=torch.float64)
    together = net(*inputs)
    for clip in (0, 1):
        alone = net(*inputs.clips(slice(clip, clip + 1)))
        assert torch.allclose(together[clip : clip + 1], alone, atol=1e-12)


@torch.no_grad()
def test_every_frame_can_influence_every_other(tiny):
    """Attention at the coarsest level sees the whole clip, first to last and last to first."""
    net = tiny.spacetime(3, trained=True).double()
    inputs = tiny.inputs(frames=16, dtype=torch.float64)
    before = net(*inputs)
    for changed in (0, 15):
        x = inputs.x.clone()
        x[:, :, changed] += 1
        moved = (net(*inputs.replace(x=x)) - before).abs().amax(dim=(0, 1, 3, 4))
        assert moved.min() > 1e-6, f"frame {changed} does not reach {(moved <= 1e-6).nonzero()}"


@torch.no_grad()
@pytest.mark.parametrize("name", ["timesteps", "context", "y"])
def test_noise_level_and_text_are_those_of_the_clip(tiny, name):
    """Changing one clip's conditions changes that clip only."""
    net = tiny.spacetime(trained=True).double()
    inputs = tiny.inputs(clips=2, frames=3, dtype=torch.float64)
    value = getattr(inputs, name).clone()
    value[1] = value[1] * 0.5 + 0.3
    difference = (net(*inputs.replace(**{name: value})) - net(*inputs)).abs().amax(dim=(1, 2, 3, 4))
    assert difference[0] < 1e-12 and difference[1] > 1e-4


@torch.no_grad()
def test_text_reaches_the_frames_through_the_temporal_condition(tiny):
    """The image model is deaf here; only the temporal layers' own path hears the text."""
    net = tiny.spacetime(trained=True)
    for name, parameter in net.unet.named_parameters():
        if "attn2.to_out" in name or "label_emb" in name:
            parameter.zero_()
    inputs = tiny.inputs(frames=4)
    other = inputs.replace(context=-inputs.context, y=-inputs.y)
    assert (net(*inputs) - net(*other)).abs().max() > 1e-4
    image = inputs.x[:, :, :1]
    assert torch.equal(net(*inputs.replace(x=image)), net(*other.replace(x=image)))


@torch.no_grad()
def test_inputs_are_left_as_they_were(tiny):
    net, inputs = tiny.spacetime(trained=True), tiny.inputs(frames=3)
    before = [value.clone() for value in inputs]
    net(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


@torch.no_grad()
def test_temporal_parts_follow_the_layers_that_they_belong_to(tiny):
    """Inflation after the whole residual(+attention) group; resizes directly after the spatial ones (fig. 4)."""
    net, order = tiny.spacetime(3), {}
    for name, layers in net.unet.named_modules():
        if isinstance(layers, torch.nn.ModuleList) and name.count(".") == ("middle" not in name):
            for layer in layers:
                layer.register_forward_hook(
                    lambda layer, *_, name=name: order.setdefault(name, []).append(type(layer).__name__)
                )
            if block := name != "input_blocks.0" and net.temporal.block(name):
                for part, module in block.named_children():
                    module.register_forward_hook(
                        lambda *_, name=name, part=part: order.setdefault(name, []).append(part)
                    )
    net(*tiny.inputs(frames=4))
    group = ["ResBlock", "SpatialTransformer"]
    assert order == {
        "input_blocks.0": ["Conv2d"],
        "input_blocks.1": ["ResBlock", "inflation"],
        "input_blocks.2": ["Downsample", "down"],
        "input_blocks.3": ["ResBlock", "inflation"],
        "input_blocks.4": ["Downsample", "down"],
        "input_blocks.5": [*group, "inflation"],
        "middle_block": [*group, "ResBlock", "inflation"],
        "output_blocks.0": [*group, "inflation"],
        "output_blocks.1": [*group, "inflation", "Upsample", "up"],
        "output_blocks.2": ["ResBlock", "inflation"],
        "output_blocks.3": ["ResBlock", "inflation", "Upsample", "up"],
        "output_blocks.4": ["ResBlock", "inflation"],
        "output_blocks.5": ["ResBlock", "inflation"],
    }


def test_gradient_checkpointing_gives_the_same_gradients(tiny):
    net = tiny.spacetime(3, trained=True).double()
    net.unet.requires_grad_(False)
    inputs = tiny.inputs(clips=2, frames=5, dtype=torch.float64)
    gradients, outputs = [], []
    for checkpointing in (False, True):
        net.zero_grad()
        outputs.append(net(*inputs, checkpointing=checkpointing))
        outputs[-1].square().mean().backward()
        gradients.append({k: p.grad.clone() for k, p in net.temporal.named_parameters()})
    assert torch.equal(*outputs)
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-14), name
    assert sum(g.abs().sum() for g in gradients[0].values()) > 0


def test_checkpointing_keeps_fewer_activations(tiny):
    net = tiny.spacetime(3, trained=True)
    net.unet.requires_grad_(False)
    kept = []
    for checkpointing in (False, True):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            net(*tiny.inputs(frames=8), checkpointing=checkpointing)
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_temporal_layers_of_another_image_model_are_refused(tiny):
    other = tiny.temporal(tiny.unet_config(patch_size=2))
    with pytest.raises(ValueError, match="another image U-Net.*patch_size=2.*instead of"):
        SpaceTimeUNet(tiny.unet(), other)
