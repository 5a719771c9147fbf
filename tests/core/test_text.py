"""The byte-level text encoder: cutting, padding, emphasis."""

import pytest
import torch

from lumiere_core.nets.text_encoder import PAD, START, pad_tokens, tokenize

PROMPTS = ["a red ball", "", "a yellow star moving right in front of a night sky", "שלום 🐢 été"]


def text_of(tokens):
    assert tokens[0] == START
    return bytes(tokens[1:]).decode()  # fails on half a character


def ids(*prompts, length=0):
    rows = [tokenize(prompt) for prompt in prompts]
    return torch.nn.functional.pad(pad_tokens(rows), (0, length), value=PAD)


def test_tokens_are_bytes_in_lower_case_with_single_spaces():
    assert text_of(tokenize("  A Red\n\tBall ")) == "a red ball"
    assert tokenize("") == tokenize("  \n") == [START]


@pytest.mark.parametrize(("character", "size"), [("x", 1), ("é", 2), ("ש", 2), ("日", 3), ("🐢", 4)], ids=ascii)
def test_long_prompts_are_cut_between_characters(character, size):
    for before in range(4):
        cut = text_of(tokenize("a" * before + character * 10_000, max_bytes=256))
        assert set(cut[before:]) == {character}
        assert 256 - size < len(cut.encode()) <= 256


def test_prompts_that_fit_are_not_cut():
    assert text_of(tokenize("🐢" * 64, max_bytes=256)) == "🐢" * 64
    assert len(text_of(tokenize("🐢" * 65, max_bytes=256))) == 64


def test_right_to_left_text_is_kept_in_logical_order():
    assert text_of(tokenize("כדור אדום")) == "כדור אדום"


def test_half_a_surrogate_pair_is_no_error():
    """JSON can hold one ("\\ud83d"); a prompt box must not fail on it."""
    assert text_of(tokenize("a \ud83d ball")) == "a ? ball"


def test_padding():
    assert pad_tokens([[START], [START, 97, 98]]).tolist() == [[START, PAD, PAD], [START, 97, 98]]


@torch.no_grad()
def test_the_answer_has_one_size_whatever_the_prompt(tiny):
    text = tiny.text()
    for prompt in PROMPTS:
        context, pooled = text(ids(prompt))
        assert context.shape == (1, 4, 32) and pooled.shape == (1, 32)
        assert torch.isfinite(context).all() and torch.isfinite(pooled).all()


@torch.no_grad()
def test_padding_changes_nothing(tiny):
    text = tiny.text(depth=3)
    together = text(ids(*PROMPTS, length=50))
    for index, prompt in enumerate(PROMPTS):
        alone = text(ids(prompt))
        for got, wanted in zip(together, alone, strict=True):
            assert torch.allclose(got[index], wanted[0], atol=1e-5), prompt


@torch.no_grad()
def test_the_batchs_order_changes_nothing(tiny):
    text, order = tiny.text(), [2, 0, 3, 1]
    got, wanted = text(ids(*PROMPTS)[order]), text(ids(*PROMPTS))
    assert all(torch.allclose(g, w[order], atol=1e-6) for g, w in zip(got, wanted, strict=True))


@torch.no_grad()
def test_prompts_and_the_order_of_words_matter(tiny):
    context, pooled = tiny.text(depth=2)(ids("red ball blue star", "blue ball red star", "ball"))
    for value in (context, pooled):
        assert (value[0] - value[1]).abs().max() > 1e-3
        assert (value[0] - value[2]).abs().max() > 1e-3


@torch.no_grad()
def test_a_words_weight(tiny):
    text, tokens = tiny.text(), ids("a red ball", length=3)
    word = torch.zeros(tokens.shape)
    word[0, 3:6] = 1  # "red"; position 0 is the start token
    plain, _ = text(tokens)
    assert torch.equal(text(tokens, torch.ones(tokens.shape))[0], plain)
    answers = {weight: text(tokens, 1 + (weight - 1) * word)[0] for weight in (0.0, 0.5, 1.3, 2.0)}
    for weight, answer in answers.items():
        assert torch.isfinite(answer).all()
        assert (answer - plain).abs().max() > 1e-4, weight
    distance = {weight: (answer - plain).norm() for weight, answer in answers.items()}
    assert distance[2.0] > distance[1.3] and distance[0.0] > distance[0.5]


@torch.no_grad()
def test_weight_2_counts_a_byte_twice(tiny):
    """Checked against attention over a list in which the byte really stands twice."""
    text, tokens = tiny.text(), ids("ab")
    weights = torch.tensor([[1.0, 2.0, 1.0]])
    got, _ = text(tokens, weights)
    states = []
    text.norm.register_forward_hook(lambda *a: states.append(a[2]))
    text(tokens)
    doubled = states[0][:, [0, 1, 1, 2]]
    h = text.queries.weight[None]
    q, k, v = text.to_q(h), text.to_k(doubled), text.to_v(doubled)
    heads = [t.unflatten(-1, (2, -1)).transpose(1, 2) for t in (q, k, v)]
    attended = torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    assert torch.allclose(text.out_norm(h + text.to_out(attended)), got, atol=1e-5)


@torch.no_grad()
def test_a_weight_on_padding_stays_without_effect(tiny):
    text, tokens = tiny.text(), ids("a ball", length=4)
    weights = torch.ones(tokens.shape)
    weights[:, -4:] = 5
    assert torch.equal(text(tokens, weights)[0], text(tokens)[0])
