"""Lumiere Blend Known on the real host: the same as core, clear errors, and memory that runs out."""

import pytest
import torch

pytestmark = pytest.mark.host


def clip(frames=5, h=16, w=16, seed=0):
    return torch.rand(frames, h, w, 3, generator=torch.Generator().manual_seed(seed)) * 0.5


def hole(frames=1):
    mask = torch.zeros(frames, 16, 16)
    mask[:, 4:12, 4:12] = 1
    return mask


def blend(host, images, condition, mask, reach=20, tolerance=0.15):
    return host.call(
        "LumiereBlendKnown", images=images, condition=condition, mask=mask, reach=reach, tolerance=tolerance
    )[0]


def test_a_tinted_hole_is_fitted_and_inputs_stay(host):
    given = torch.full((5, 16, 16, 3), 0.4)
    made = given.clone()
    made[:, 4:12, 4:12] += 0.05
    before = made.clone(), given.clone()
    for mask in (hole(), hole(5), hole(5) * 0.3):  # one for all, one for each, a feathered one
        fitted = blend(host, made, given, mask, reach=100)
        assert fitted.shape == made.shape
        assert (fitted - given).abs().max() < 0.02
    assert torch.equal(made, before[0]) and torch.equal(given, before[1])


def test_it_is_core_s(host):
    blend_core = host.module("lumiere_core.clips.blend")
    conditioning, video = (host.module("lumiere_core.clips.conditioning"), host.module("lumiere_core.clips.video"))
    made, given = clip(seed=1), clip(seed=2)
    mask = torch.ones(5, 16, 16)
    mask[0] = 0
    condition = conditioning.Condition(video.images_to_video(given), 1 - mask[None, None])
    wanted = blend_core.blend_known(video.images_to_video(made), condition, 20, 0.15)
    assert torch.allclose(blend(host, made, given, mask), video.video_to_images(wanted), atol=1e-5)


def test_transparent_pictures_are_taken(host):
    given = torch.cat([clip(), torch.ones(5, 16, 16, 1)], dim=-1)
    assert blend(host, clip(seed=1), given, hole()).shape == (5, 16, 16, 3)


def test_other_sizes_are_refused(host):
    with pytest.raises(ValueError, match="5 frames of 32x16 and condition 5 frames of 16x16"):
        blend(host, clip(w=32), clip(), hole())
    with pytest.raises(ValueError, match="4 frames of 16x16 and condition 5"):
        blend(host, clip(4), clip(), hole())
    with pytest.raises(ValueError, match="the mask is 2 x 16x16"):
        blend(host, clip(), clip(), hole(2))
    with pytest.raises(ValueError, match="nothing to generate"):
        blend(host, clip(), clip(), torch.zeros(1, 16, 16))


def test_it_goes_on_where_memory_runs_out(host, monkeypatch):
    module = host.module("nodes.conditioning")
    wanted, calls = blend(host, clip(), clip(seed=1), hole()), []
    whole = module.blend_known

    def scarce(*args, **options):
        calls.append(1)
        if len(calls) == 1:
            raise module.host_device.OUT_OF_MEMORY
        return whole(*args, **options)

    monkeypatch.setattr(module, "blend_known", scarce)
    assert torch.equal(blend(host, clip(), clip(seed=1), hole()), wanted)
    assert len(calls) == 2


def test_it_can_be_interrupted(host):
    import comfy.model_management as management

    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        blend(host, clip(), clip(seed=1), hole())
    assert blend(host, clip(), clip(seed=1), hole()).shape == (5, 16, 16, 3)
