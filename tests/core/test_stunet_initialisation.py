"""At initialisation the Space-Time U-Net repeats the frozen image model (Lumiere §3.1, App. B)."""

import pytest
import torch

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def image_model(net, inputs, frames):
    """What the image model alone says about some frames of every clip: (b, c, len(frames), h, w)."""
    each = [net.unet(inputs.x[:, :, i], inputs.timesteps, inputs.context, inputs.y) for i in frames]
    return torch.stack(each, dim=2)


@torch.no_grad()
def assert_key_frames_equal(net, inputs, stride):
    assert net.temporal.total_stride == stride
    keys = range(0, inputs.x.shape[2], stride)
    got, wanted = net(*inputs)[:, :, ::stride], image_model(net, inputs, keys)
    assert got.shape == wanted.shape
    assert wanted.std() > 0.01  # an image model that says nothing would prove nothing
    assert (got - wanted).abs().max() < TOLERANCE[inputs.x.dtype]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("levels", "stride"), [(3, 4), (4, 8)])
def test_every_nth_frame_equals_the_image_model(tiny, levels, stride, dtype):
    net = tiny.spacetime(levels).to(dtype)
    inputs = tiny.inputs(clips=2, frames=2 * stride, height=16, width=16, dtype=dtype)
    assert_key_frames_equal(net, inputs, stride)


@pytest.mark.parametrize("frames", [2, 3, 5, 9, 11], ids=lambda t: f"{t}frames")
def test_it_does_so_in_clips_that_are_padded(tiny, frames):
    """9 frames: the last multiple (8) is the last frame, and everything after it is reflection."""
    net = tiny.spacetime(3).double()
    assert_key_frames_equal(net, tiny.inputs(frames=frames, dtype=torch.float64), stride=4)


@pytest.mark.parametrize("patch_size", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(16, 8), (9, 14), (11, 9)])
def test_it_does_so_at_any_size(tiny, patch_size, height, width):
    net = tiny.spacetime(3, patch_size=patch_size).double()
    inputs = tiny.inputs(frames=5, height=height, width=width, dtype=torch.float64)
    assert net(*inputs).shape == inputs.x.shape
    assert_key_frames_equal(net, inputs, stride=4)


@pytest.mark.parametrize(("temporal_stride", "stride"), [(1, 1), (4, 16)])
def test_it_does_so_for_other_temporal_strides(tiny, temporal_stride, stride):
    """With stride 1 there is no temporal resize and every frame is a key frame."""
    net = tiny.spacetime(3, temporal={"stride": temporal_stride}).double()
    assert_key_frames_equal(net, tiny.inputs(frames=17, dtype=torch.float64), stride)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_scale_shift_norm": True},
        {"use_linear_in_transformer": True},
        {"num_res_blocks": (2, 1), "transformer_depth": (1, 0, 2), "transformer_depth_output": (1, 0, 1, 1, 2)},
        {"transformer_depth_middle": -1},
    ],
    ids=["scale-shift", "linear", "deeper", "plain-middle"],
)
def test_it_does_so_for_other_image_models(tiny, changes):
    net = tiny.spacetime(2, **changes).double()
    assert_key_frames_equal(net, tiny.inputs(frames=5, dtype=torch.float64), stride=2)


@torch.no_grad()
def test_frames_between_key_frames_do_not_equal_the_image_model(tiny):
    """They share the coarse features of the key frame before them: only stride 1 is the image model."""
    net = tiny.spacetime(3).double()
    inputs = tiny.inputs(frames=4, dtype=torch.float64)
    assert (net(*inputs) - image_model(net, inputs, range(4)))[:, :, 1:].abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("frames", [8, 7])
def test_a_constant_clip_stays_constant(tiny, frames):
    net = tiny.spacetime(3).double()
    inputs = tiny.inputs(frames=frames, dtype=torch.float64)
    inputs = inputs.replace(x=inputs.x[:, :, :1].expand_as(inputs.x))
    out = net(*inputs)
    assert (out - out[:, :, :1]).abs().max() < 1e-10


@torch.no_grad()
@pytest.mark.parametrize("patch_size", [1, 2])
def test_one_frame_is_the_image_model_before_and_after_training(tiny, patch_size):
    for trained in (False, True):
        net = tiny.spacetime(3, trained=trained, patch_size=patch_size)
        inputs = tiny.inputs(clips=2, frames=1)
        assert torch.equal(net(*inputs), image_model(net, inputs, [0]))


@torch.no_grad()
def test_trained_layers_change_the_answer(tiny):
    """The guard of all tests that use "trained" layers: they do something."""
    inputs = tiny.inputs(frames=4)
    fresh, trained = tiny.spacetime(trained=False), tiny.spacetime(trained=True)
    assert (fresh(*inputs) - trained(*inputs)).abs().mean() > 0.01
