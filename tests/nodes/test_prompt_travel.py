"""Lumiere Prompt Travel: a row of text for each frame, on every MODEL whose frames lie in the batch."""

import pytest
import torch

pytestmark = pytest.mark.host

FRAMES = 8
TEXT = "0: a red ball\n7: a blue ball of snow"


@pytest.fixture
def travel(host):
    def call(model, clip, prompts=TEXT, length=FRAMES, fps=16.0, interpolation="linear"):
        return host.call(
            "LumierePromptTravel",
            model=model,
            clip=clip,
            prompts=prompts,
            length=length,
            fps=fps,
            interpolation=interpolation,
        )[0]

    return call


@pytest.fixture
def encode(host):
    return lambda clip, text: host.call("CLIPTextEncode", clip=clip, text=text)[0]


class Words:
    """A CLIP of 77 tokens for each started ten words, as long prompts have; pooled as SDXL's."""

    WIDTH = 64

    def tokenize(self, text):
        return text.split()

    def encode_from_tokens_scheduled(self, words):
        generator = torch.Generator().manual_seed(len(" ".join(words)))
        chunks = 1 + len(words) // 10
        states = torch.randn(1, 77 * chunks, self.WIDTH, generator=generator)
        return [[states, {"pooled_output": torch.randn(1, 1280, generator=generator)}]]


def test_rows(studio, travel, encode):
    """The states and pooled vectors are those of CLIP Text Encode, and mixed in between."""
    ((states, values),) = travel(studio.model, studio.clip, "0: a red ball\n7: (snow:1.2)")
    first, last = (encode(studio.clip, text)[0] for text in ("a red ball", "(snow:1.2)"))
    assert states.shape == (FRAMES, *first[0].shape[1:])
    assert torch.equal(states[0], first[0][0]) and torch.equal(states[7], last[0][0])
    assert torch.allclose(states[3], states[0] * (4 / 7) + states[7] * (3 / 7), atol=1e-6)
    pooled = values["pooled_output"]
    assert pooled.shape[0] == FRAMES and torch.equal(pooled[7], last[1]["pooled_output"][0])
    assert not torch.allclose(encode(studio.clip, "snow")[0][0], last[0])


def test_the_node_shows_its_plan(host, studio, monkeypatch):
    """Which prompt counts how much, at every frame of a short clip and at some of a long one."""
    node = host.nodes_by_id["LumierePromptTravel"]
    given = {"model": studio.model, "clip": studio.clip, "fps": 16.0, "interpolation": "linear"}

    def shown(length):
        node.GET_SCHEMA()
        with torch.inference_mode():
            return node.PREPARE_CLASS_CLONE(None).EXECUTE_NORMALIZED(prompts=TEXT, length=length, **given).ui

    assert shown(FRAMES) is None  # no page watches
    monkeypatch.setattr(host.module("nodes.host.live"), "watched", lambda: True)
    (plan,) = shown(FRAMES)["lumiere_prompts"]
    assert plan["length"] == FRAMES
    assert [(p["frame"], p["text"]) for p in plan["prompts"]] == [(0, "a red ball"), (7, "a blue ball of snow")]
    shares = torch.tensor([p["shares"] for p in plan["prompts"]])
    assert shares.shape == (2, FRAMES) and (shares.sum(0) - 1).abs().max() < 2e-3
    assert (shares[1] - torch.arange(FRAMES) / 7).abs().max() < 1e-3
    (plan,) = shown(4096)["lumiere_prompts"]
    assert plan["length"] == 4096 and all(len(p["shares"]) == 256 for p in plan["prompts"])
    assert plan["prompts"][1]["shares"][-1] == 1


def test_one_prompt_is_clip_text_encode(studio, travel, encode):
    plain = studio.sample(positive=encode(studio.clip, "snow"), frames=FRAMES)
    one = studio.sample(positive=travel(studio.model, studio.clip, "0: snow"), frames=FRAMES)
    assert torch.allclose(one, plain, atol=1e-5)


def test_prompts_of_other_lengths_are_repeated(backbones, travel):
    clip = Words()
    long = "a white dog that runs and runs over the snow in the late evening sun"
    ((states, _),) = travel(backbones("SD15"), clip, f"0: a red ball\n7: {long}")
    first, last = (clip.encode_from_tokens_scheduled(text.split())[0][0] for text in ("a red ball", long))
    assert first.shape[1] == 77 and last.shape[1] == 154
    assert torch.equal(states[0], first.repeat(1, 2, 1)[0]) and torch.equal(states[7], last[0])


@pytest.mark.parametrize("name", ["SD15", "SDXL"])
def test_frames_of_image_models_are_those_of_their_own_prompts(backbones, travel, name):
    """In a batch of pictures each is what its prompt alone makes; the middle is neither."""
    clip, model = Words(), backbones(name)
    texts = ("a red ball", "a white dog that runs and runs over the snow in the late evening sun")
    positive = travel(model, clip, f"0: {texts[0]}\n7: {texts[1]}")
    made = backbones.sample(model, positive=positive)
    alone = [backbones.sample(model, positive=clip.encode_from_tokens_scheduled(t.split())) for t in texts]
    assert torch.allclose(made[0], alone[0][0], atol=1e-4)
    assert torch.allclose(made[7], alone[1][7], atol=1e-4)
    assert not any(torch.allclose(made[4], pictures[4], atol=1e-2) for pictures in alone)


@pytest.mark.parametrize("name", ["SD15", "SDXL"])
def test_inflated_models_see_the_row_of_each_frame(host, backbones, travel, name):
    """At every level the rows are those of its frames."""
    from comfy.ldm.modules.attention import SpatialTransformer

    (model,) = host.call("LumiereApplyTemporal", model=backbones(name), temporal="untrained", frames_per_clip=0)
    seen = []
    for module in model.model.diffusion_model.modules():
        if isinstance(module, SpatialTransformer):
            hook = module.register_forward_pre_hook(lambda m, args: seen.append(args[1]))
            seen.append(hook)
    hooks, seen[:] = list(seen), []
    positive = travel(model, Words(), "0: a red ball\n7: a dog on snow")
    try:
        backbones.sample(model, positive=positive, cfg=1.0)
    finally:
        for hook in hooks:
            hook.remove()
    rows = {text.shape[0]: text for text in seen}
    assert len(rows) > 1
    for count, text in rows.items():
        assert torch.allclose(text, positive[0][0][:: FRAMES // count], atol=1e-5)


@pytest.mark.parametrize("own", [True, False])
def test_windows_see_their_frames(host, backbones, travel, own):
    """Without temporal layers windows change nothing, if each frame keeps its prompt."""
    model = backbones("SD15")
    positive = travel(model, Words(), "0: a red ball\n7: a dog on snow")
    whole = backbones.sample(model, positive=positive)
    if own:
        (cut,) = host.call(
            "LumiereTemporalMultidiffusion",
            model=model,
            context_length=4,
            context_overlap=2,
            weighting="uniform",
            closed_loop=False,
        )
    else:
        from comfy_extras.nodes_context_windows import ContextWindowsManualNode

        cut = ContextWindowsManualNode.execute(
            model, 4, 2, "standard_static", 1, False, "flat", 0, False, "", False, "", False
        ).args[0]
    assert torch.allclose(backbones.sample(cut, positive=positive), whole, atol=1e-4)


def test_models_that_take_one_prompt_are_refused(travel, video_models):
    for name in ("Wan", "LTX", "Hunyuan", "Cosmos", "Mochi"):
        model, _ = video_models.video_model(name)
        with pytest.raises(ValueError, match="from one prompt.*inflated image model"):
            travel(model, Words())


def test_what_cannot_be_mixed_is_named(backbones, travel):
    class Masked(Words):
        def encode_from_tokens_scheduled(self, words):
            ((states, values),) = super().encode_from_tokens_scheduled(words)
            return [[states, {**values, "attention_mask": torch.ones(1, len(words))}]]

    with pytest.raises(ValueError, match="'attention_mask', which cannot change over time"):
        travel(backbones("SD15"), Masked())
    with pytest.raises(ValueError, match="holds no text encoder"):
        travel(backbones("SD15"), None)


def test_long_prompts_are_cut_at_the_limit(backbones, travel):
    class Odd(Words):
        def encode_from_tokens_scheduled(self, words):
            return [[torch.ones(1, 100 + len(words), self.WIDTH), {}]]

    ((states, _),) = travel(backbones("SD15"), Odd(), "0: a b c\n4: a b c d")
    assert states.shape == (FRAMES, 1024, Words.WIDTH)
