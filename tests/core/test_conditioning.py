"""C and M of every task, and how they enter the Space-Time U-Net (Lumiere §4.2)."""

import pytest
import torch

from lumiere_core.clips import conditioning
from lumiere_core.diffusion.generate import Request, generate
from lumiere_core.diffusion.models import load_models
from lumiere_core.nets.checkpoint import load_into


def video(t=4, h=8, w=8, b=1):
    return torch.rand(b, 3, t, h, w, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_image_to_video_knows_the_first_frame():
    image = video(t=1)
    made = conditioning.key_frames(image, [0], 5)
    assert torch.equal(made.clip[:, :, :1], image) and not made.clip[:, :, 1:].any()
    assert made.known[:, :, 0].all() and not made.known[:, :, 1:].any()


def test_key_frames_lie_where_they_are_asked_for():
    images = video(t=3)
    made = conditioning.key_frames(images, [0, 3, -1], 6)
    assert torch.equal(made.clip[:, :, [0, 3, 5]], images)
    assert made.known.flatten(3).all(dim=3)[0, 0].tolist() == [True, False, False, True, False, True]


@pytest.mark.parametrize(
    ("frames", "problem"), [([0], "2 images for 1 frame"), ([0, 6], "in a clip of 6"), ([5, -1], "different numbers")]
)
def test_frame_numbers_that_cannot_be(frames, problem):
    with pytest.raises(ValueError, match=problem):
        conditioning.key_frames(video(t=2), frames, 6)


def test_inpainting_blanks_the_region():
    clip, known = video(), torch.ones(1, 1, 1, 8, 8)
    known[..., 2:4, 2:4] = 0
    given, mask = conditioning.inpaint(clip, known).tensor().split([3, 1], dim=1)
    assert torch.equal(mask, known.expand(1, 1, 4, 8, 8)) and torch.equal(given, clip * mask)
    assert not given[..., 2:4, 2:4].any()


def test_a_cinemagraph_repeats_the_picture_and_knows_its_first_frame():
    image, still = video()[:, :, 0], torch.ones(1, 1, 8, 8)
    still[..., 4:] = 0
    made = conditioning.cinemagraph(image, still, 5)
    assert torch.equal(made.clip, image[:, :, None].expand(-1, -1, 5, -1, -1))
    assert made.known[:, :, 0].all()
    assert torch.equal(made.known[:, :, 1:], still[:, :, None].expand(-1, -1, 4, -1, -1))


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match="the mask is .* wanted \\(1, 1, 4, 8, 8\\)"):
        conditioning.Condition(video(), torch.ones(1, 1, 3, 8, 8))


# --- in the network ---------------------------------------------------------------------------------------


def network(tiny, frames=6, **unet):
    """ "Trained" layers with a conv_cond, the same without, and inputs."""
    with_cond = tiny.spacetime(trained=True, temporal={"conv_cond": True}, **unet)
    without = tiny.spacetime(trained=True, **unet)
    shared = with_cond.temporal.state_dict()
    assert shared.pop("conv_cond.weight").any()
    load_into(without.temporal, shared, "the same layers")
    return with_cond, without, tiny.inputs(frames=frames)


@pytest.mark.parametrize("patch", [1, 2])
def test_nothing_known_is_text_to_video(tiny, patch):
    conditioned, plain, inputs = network(tiny, patch_size=patch)
    expected = plain(*inputs)
    nothing = conditioning.Condition(inputs.x, torch.zeros_like(inputs.x[:, :1]))
    assert torch.equal(conditioned(*inputs), expected)
    assert torch.equal(conditioned(*inputs, known=nothing.tensor()), expected)


@pytest.mark.parametrize("patch", [1, 2])
def test_it_is_one_wider_convolution(tiny, patch):
    """conv(J) + conv_cond([C, M]) = the convolution with the weights side by side, of <J, C, M>."""
    conditioned, _, inputs = network(tiny, frames=4, patch_size=patch)
    made = conditioning.inpaint(video(), torch.rand(1, 1, 4, 8, 8).round()).tensor()
    first, seen = conditioned.unet.input_blocks[1], []
    first[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    conditioned(*inputs, known=made)
    own, extra = conditioned.unet.input_blocks[0][0], conditioned.temporal.conv_cond
    wide = torch.cat([inputs.x, made], dim=1).transpose(1, 2).flatten(0, 1)
    unshuffled = torch.nn.functional.pixel_unshuffle(wide, patch)
    expected = torch.nn.functional.conv2d(unshuffled, torch.cat([own.weight, extra.weight], dim=1), own.bias, padding=1)
    assert extra.weight.shape[1] == 4 * patch**2
    assert torch.allclose(seen[0], expected, atol=1e-5)


def test_the_condition_is_padded_like_the_clip(tiny):
    """5 frames run as 6, with frame 3 again: the answer to the padded clip and condition is the same."""
    conditioned, _, inputs = network(tiny, frames=5)
    made = conditioning.key_frames(video(t=1), [0], 5).tensor()
    longer = [0, 1, 2, 3, 4, 3]
    padded = inputs.replace(x=inputs.x[:, :, longer])
    expected = conditioned(*padded, known=made[:, :, longer])[:, :, :5]
    assert torch.allclose(conditioned(*inputs, known=made), expected, atol=1e-6)


def test_checkpointing_changes_nothing(tiny):
    conditioned, _, inputs = network(tiny, frames=4)
    made = conditioning.key_frames(video(t=1), [0], 4).tensor()
    outs = [conditioned(*inputs, checkpointing=on, known=made) for on in (False, True)]
    assert torch.allclose(*outs, atol=1e-6)


def test_one_frame_is_the_image_model(tiny):
    conditioned, _, inputs = network(tiny, frames=1)
    made = conditioning.key_frames(video(t=1), [0], 1).tensor()
    assert torch.equal(conditioned(*inputs, known=made), conditioned(*inputs))


def test_layers_without_conv_cond_refuse_a_condition(tiny):
    _, plain, inputs = network(tiny, frames=4)
    made = conditioning.key_frames(video(t=1), [0], 4).tensor()
    with pytest.raises(ValueError, match="no conv_cond.*train condition"):
        plain(*inputs, known=made)


# --- a whole clip -----------------------------------------------------------------------------------------


def test_a_generated_clip_holds_what_is_known(tiny, weights):
    models, _ = load_models(weights)
    models.temporal = tiny.temporal(config=tiny.temporal_config(conv_cond=True), trained=True)
    known = torch.ones(1, 1, 6, 16, 16)
    known[..., 4:12, 4:12] = 0
    made = conditioning.inpaint(video(6, 16, 16), known)
    request = Request("a red ball", num_frames=6, height=16, width=16, steps=2)
    clips = []
    generate(models, request, keep_float=clips.append, known=made)
    inside = known.expand(1, 3, 6, 16, 16) == 1
    assert torch.equal(clips[0][inside], made.clip[inside])
    generate(models, request, keep_float=clips.append)
    assert not torch.allclose(clips[0], clips[1], atol=1e-2)
    short = Request("a red ball", num_frames=5, height=16, width=16, steps=2)
    with pytest.raises(ValueError, match="the known clip is .* is wanted"):
        generate(models, short, known=made)


def test_the_network_sees_what_is_known_as_noisy_as_the_rest(tiny, weights):
    """Clip + sigma * the noise of the start, at every step of an ancestral sampler too."""
    models, _ = load_models(weights)
    models.temporal = tiny.temporal(config=tiny.temporal_config(conv_cond=True), trained=True)
    made, seen = conditioning.key_frames(video(1, 16, 16), [0], 4), []
    request = Request("a red ball", num_frames=4, height=16, width=16, steps=3, cfg=1.0, sampler="ddpm")
    network = models.network()

    def spy(x, timestep, *rest, **known):
        seen.append((x, models.schedule.sigma(timestep)))
        return network(x, timestep, *rest, **known)

    models.network = lambda: spy
    generate(models, request, known=made)
    noises = [(x[:, :, 0] * (1 + sigma**2).sqrt() - made.clip[:, :, 0]) / sigma for x, sigma in seen]
    for noise in noises:
        assert torch.allclose(noise, noises[0], atol=1e-2)


# --- SDEdit -----------------------------------------------------------------------------------------------


def test_denoise_keeps_some_of_a_source(weights):
    models, _ = load_models(weights)
    source, clips = video(4, 16, 16), []
    for denoise in (0.05, 0.9):
        request = Request("a red ball", num_frames=4, height=16, width=16, steps=2, denoise=denoise, cfg=1.0)
        generate(models, request, keep_float=clips.append, source=source)
    near, far = ((clip - source).abs().mean() for clip in clips)
    assert near < far


@pytest.mark.parametrize("denoise", [0.0, -1.0, 1.5])
def test_denoise_is_a_share(denoise):
    with pytest.raises(ValueError, match="more than 0 and at most 1"):
        Request("snow", denoise=denoise)


def test_denoise_wants_a_source(weights):
    models, _ = load_models(weights)
    with pytest.raises(ValueError, match="no source clip"):
        generate(models, Request("snow", num_frames=2, height=16, width=16, denoise=0.5))


def test_latent_models_take_nine_channels(tiny):
    """4 noisy + 4 masked + 1 mask; nothing known is text-to-video there too."""
    conditioned, plain, _ = network(tiny, in_channels=4, out_channels=4)
    inputs = tiny.inputs(frames=4, channels=4)
    assert conditioned.temporal.conv_cond.weight.shape[1] == 5
    made = conditioning.Condition(inputs.x, torch.ones_like(inputs.x[:, :1]))
    nothing = conditioning.Condition(inputs.x, torch.zeros_like(inputs.x[:, :1]))
    assert torch.equal(conditioned(*inputs, known=nothing.tensor()), plain(*inputs))
    assert not torch.allclose(conditioned(*inputs, known=made.tensor()), plain(*inputs))
