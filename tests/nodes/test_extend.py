"""Lumiere Extend on the host: pieces of a clip in latents, prompts by the line, batches of clips."""

import pytest
import torch

pytestmark = pytest.mark.host

FRAMES, OVERLAP = 8, 2


@pytest.fixture
def extend(host, studio):
    def call(model, latent, prompts="snow", clip=None, **options):
        settings = {
            "negative_prompt": "",
            "pieces": 2,
            "overlap": OVERLAP,
            "anchor": 0.0,
            "seed": 1,
            "steps": 2,
            "cfg": 1.0,
            "sampler_name": "euler",
            "scheduler": "karras",
            **options,
        }
        clip = studio.clip if clip is None else clip
        (result,) = host.call("LumiereExtend", model=model, clip=clip, latent=latent, prompts=prompts, **settings)
        return result["samples"]

    return call


@pytest.fixture(scope="module")
def masked(studio):
    return studio.load("extend.safetensors", conv_cond=True)[0]


def frames(count=FRAMES, channels=3, size=16):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_the_clip_stays_and_pieces_follow(extend, masked, spied):
    seen = []
    latent = {"samples": frames(), "noise_mask": torch.ones(FRAMES, 1, 16, 16), "batch_index": list(range(FRAMES))}
    made = extend(spied(masked, seen), latent)
    assert made.shape == (FRAMES + 2 * (FRAMES - OVERLAP), 3, 16, 16) and made.isfinite().all()
    assert torch.equal(made[:FRAMES], latent["samples"]) and len(latent) == 3
    # The network is told the last frames, of the clip and then of the first piece, and that nothing else is known.
    known = [c for _, c in seen]
    for piece, end in ((known[0], FRAMES), (known[-1], 2 * FRAMES - OVERLAP)):
        assert torch.allclose(piece[:OVERLAP, :3], made[end - OVERLAP : end], atol=1e-5)
        assert (piece[:OVERLAP, 3] == 1).all() and (piece[OVERLAP:, 3] == 0).all()


def test_a_piece_is_what_the_sampler_makes_of_the_same_latent(host, studio, extend, masked):
    """The known frames are not encoded anew, and each piece has its own noise."""
    latent = {"samples": frames()}
    made = extend(masked, latent, pieces=1, seed=5)
    mask = torch.ones(FRAMES, 1, 16, 16)
    mask[:OVERLAP] = 0
    begun = torch.cat([latent["samples"][-OVERLAP:], torch.zeros(FRAMES - OVERLAP, 3, 16, 16)])
    (text,) = host.call("CLIPTextEncode", clip=studio.clip, text="snow")
    piece = studio.sample(
        masked,
        node="LumiereSampler",
        latent={"samples": begun, "noise_mask": mask},
        positive=text,
        cfg=1.0,
        seed=5 + 1_000_003,
    )
    assert torch.equal(made[FRAMES:], piece[OVERLAP:])
    assert not torch.equal(made, extend(masked, latent, pieces=1, seed=6))


def test_a_prompt_for_each_piece(extend, masked):
    latent = {"samples": frames()}
    same = extend(masked, latent, "snow")
    changed = extend(masked, latent, "snow\n\nfire\nnever reached")
    first = 2 * FRAMES - OVERLAP
    assert torch.equal(same[:first], changed[:first]) and not torch.equal(same[first:], changed[first:])
    assert torch.equal(extend(masked, latent, "snow\nsnow"), same)


def test_prompts_that_no_piece_uses_are_said(extend, masked, log):
    extend(masked, {"samples": frames()}, "snow\nfire", pieces=1)
    assert "2 prompts for 1 pieces; the last 1 are not used" in log()


def test_a_model_of_loops_is_refused(host, extend, masked):
    (model,) = host.call("LumiereLoop", model=masked)
    with pytest.raises(ValueError, match="this MODEL makes loops"):
        extend(model, {"samples": frames()})


def test_frames_with_sound_are_refused(extend, masked):
    import comfy.nested_tensor

    both = comfy.nested_tensor.NestedTensor([torch.ones(1, 128, 2, 4, 4), torch.ones(1, 8, 4, 16)])
    with pytest.raises(ValueError, match="frames as a batch are wanted"):
        extend(masked, {"samples": both})


def test_colours_of_the_new_frames(extend, masked):
    latent = {"samples": frames() * 0.2 + 0.5}
    wild, tame = (extend(masked, latent, anchor=anchor, pieces=3) for anchor in (0.0, 1.0))
    end = slice(-(FRAMES - OVERLAP) + OVERLAP, None)

    def drift(x):
        return (x[end].mean((0, 2, 3)) - latent["samples"].mean((0, 2, 3))).abs().max()

    assert drift(tame) < drift(wild) / 2


def test_several_clips_of_a_batch(studio, extend):
    model = studio.load("extend2.safetensors", conv_cond=True, frames_per_clip=FRAMES)[0]
    both = frames(2 * FRAMES)
    made = extend(model, {"samples": both}, pieces=1)
    length = 2 * FRAMES - OVERLAP
    assert made.shape[0] == 2 * length
    for clip in (0, 1):
        assert torch.equal(made[clip * length :][:FRAMES], both[clip * FRAMES :][:FRAMES])
    alone = extend(model, {"samples": both[:FRAMES]}, pieces=1)
    assert torch.allclose(made[:length], alone, atol=1e-4)


def test_inflated_image_models(host, backbones, extend):
    """Without weights for known frames the noise mask holds them."""
    from types import SimpleNamespace

    (model,) = host.call("LumiereApplyTemporal", model=backbones("SD15"), temporal="untrained", frames_per_clip=0)
    clip = SimpleNamespace(tokenize=len, encode_from_tokens_scheduled=backbones.text)
    made = extend(model, {"samples": frames(channels=4, size=8)}, clip=clip, pieces=1, anchor=1.0)
    assert made.shape[0] == 2 * FRAMES - OVERLAP and made.isfinite().all()


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        (torch.zeros(1, 16, 3, 4, 4), {}, "5 axes.*frames as a batch"),
        (torch.zeros(FRAMES, 3, 16, 16), {}, "latent is empty"),
        (torch.ones(1, 3, 16, 16), {"overlap": 1}, "the clip has one frame"),
        (torch.ones(FRAMES, 3, 16, 16), {"overlap": FRAMES}, "overlap is 8 and the clip has 8 frames"),
    ],
)
def test_what_cannot_be_continued_is_refused(extend, masked, samples, options, message):
    with pytest.raises(ValueError, match=message):
        extend(masked, {"samples": samples}, **options)
