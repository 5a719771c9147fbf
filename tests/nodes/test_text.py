"""The text encoder as a CLIP of the host."""

import pytest
import torch

pytestmark = pytest.mark.host


def encode(host, studio, prompt, negative=""):
    return host.call("LumiereTextEncode", clip=studio.clip, prompt=prompt, negative_prompt=negative)


def test_equals_core(host, studio):
    models, _ = host.module("lumiere_core.diffusion.models").load_models(studio.folder / "tiny.safetensors")
    context, pooled = models.encode(["A  red\nball", ""])
    for index, cond in enumerate(encode(host, studio, "A  red\nball")):
        assert torch.allclose(cond[0][0], context[index : index + 1], atol=1e-5)
        assert torch.allclose(cond[0][1]["pooled_output"], pooled[index : index + 1], atol=1e-5)


def test_weighted_bytes(host):
    weighted = host.module("nodes.host.clip").weighted_bytes
    assert weighted("a (red:1.3) ball") == ("a red ball", [1.0] * 2 + [1.3] * 3 + [1.0] * 5)
    assert weighted("(é)") == ("é", [1.1, 1.1])
    assert weighted(r"\(x\)") == ("(x)", [1.0] * 3)
    assert weighted("  a \n b ") == ("a b", [1.0] * 3)
    assert weighted("(a:inf)(b:nan)(c:-3)")[1] == [1.0, 1.0, 0.0]


PROMPTS = ["", " ", "a red ball", "İstanbul ΣΑΣ ǅ", "🎈 a balloon 🎈", "שלום עולם", "a\u2003b\u00a0c", "ß" * 40]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_tokens_are_core_s(host, studio, prompt):
    """One weight for each byte of whatever core's tokenize makes of a prompt."""
    (pairs,) = studio.clip.tokenize(prompt)["lumiere"]
    ids = host.module("lumiere_core.nets.text_encoder").tokenize(prompt, 64)
    assert [pair[0] for pair in pairs] == ids
    plain, weights = host.module("nodes.host.clip").weighted_bytes(prompt)
    assert len(weights) == len(" ".join(plain.lower().split()).encode())


@pytest.mark.parametrize("prompt", [*PROMPTS, "x" * 10_000, "(" * 5000, "\ud800"])
def test_any_prompt_gives_finite_states(host, studio, prompt):
    for cond in encode(host, studio, prompt, prompt):
        assert cond[0][0].shape == (1, 4, 32)
        assert cond[0][0].isfinite().all() and cond[0][1]["pooled_output"].isfinite().all()


def test_long_prompt_is_cut_with_a_warning(host, studio, log):
    encode(host, studio, "a" * 10_000)
    assert "the prompt has 10000 bytes; the text encoder reads the first 64" in log()


def test_emphasis_changes_the_states(host, studio):
    plain, _ = encode(host, studio, "a red ball")
    strong, _ = encode(host, studio, "a (red:1.8) ball")
    assert (plain[0][0] - strong[0][0]).abs().max() > 1e-3


def test_conditioning_of_another_encoder_is_refused(studio):
    wide = [[torch.zeros(1, 77, 768), {"pooled_output": torch.zeros(1, 32)}]]
    with pytest.raises(ValueError, match="text states of width 768, this model wants 32.*CLIP output"):
        studio.sample(positive=wide)
    bare = [[torch.zeros(1, 4, 32), {}]]
    with pytest.raises(ValueError, match="pooled text vector of width 32, got none"):
        studio.sample(positive=bare)


def test_copy_is_made_from_the_file(studio):
    copy = studio.clip.patcher.clone(force_deepcopy=True)
    assert copy.model is not studio.clip.patcher.model
    for key, value in studio.clip.patcher.model.state_dict().items():
        assert torch.equal(value, copy.model.state_dict()[key])


def test_missing_clip_is_named(host):
    with pytest.raises(ValueError, match="clip input is empty"):
        host.call("LumiereTextEncode", clip=None, prompt="", negative_prompt="")
