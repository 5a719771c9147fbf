"""Interpolation of the spatial weights (§4.1): the formula, levels, refusals, and what is never touched."""

import hashlib
import json

import pytest
import torch
from safetensors import safe_open

from lumiere_core.nets.checkpoint import bundled_files, bundled_names, load_parts, metadata_for, save_file
from lumiere_core.nets.interpolate import (
    alphas_by_key,
    bundled_styles,
    interpolate,
    interpolate_parts,
    joined_hashes,
    level_of,
    stylise_parts,
)


def digest(state):
    lines = [k.encode() + v.numpy().tobytes() for k, v in sorted(state.items())]
    return hashlib.sha256(b"".join(lines)).hexdigest()


@pytest.fixture
def pair(tiny):
    return tiny.unet(seed=0).state_dict(), tiny.unet(seed=5).state_dict()


def test_weights_are_the_formula_s(pair):
    original, style = pair
    mixed = interpolate(original, style, 0.3)
    for key, value in mixed.items():
        assert torch.allclose(value, 0.3 * style[key] + 0.7 * original[key], atol=1e-7), key
    moved = [k for k in original if not torch.equal(original[k], style[k])]
    assert moved and all(not torch.equal(mixed[k], original[k]) for k in moved)


def test_the_ends_are_the_two_models_bit_for_bit(pair):
    original, style = pair
    assert digest(interpolate(original, style, 0.0)) == digest(original)
    assert digest(interpolate(original, style, 1.0)) == digest(style)


def test_half_precision_is_rounded_once(pair):
    original, style = ({k: v.half() for k, v in state.items()} for state in pair)
    mixed = interpolate(original, style, 0.4)
    key = "input_blocks.1.0.in_layers.2.weight"
    want = (0.6 * original[key].double() + 0.4 * style[key].double()).half()
    assert mixed[key].dtype == torch.float16
    assert (mixed[key] == want).float().mean() > 0.995  # float32 may round a tie the other way
    assert torch.allclose(mixed[key].float(), want.float(), rtol=2**-10, atol=1e-7)


def test_levels_have_their_own_alpha(tiny):
    config = tiny.unet_config(levels=3)
    want = {
        "input_blocks.1.0.in_layers.2.weight": 1.0,  # level 0
        "out.2.weight": 1.0,
        "input_blocks.2.0.op.weight": 0.5,  # leads into level 1
        "middle_block.1.proj_in.weight": 0.0,
        "output_blocks.5.0.in_layers.2.weight": 1.0,
        "output_blocks.0.0.in_layers.2.weight": 0.0,
        "time_embed.0.weight": 0.5,  # of no level
    }
    keys = list(tiny.unet(config).state_dict())
    assert alphas_by_key(keys, 0.5, [1.0, None, 0.0], config).items() >= want.items()


def test_every_weight_has_a_level_but_the_embeddings(tiny):
    config = tiny.unet_config(levels=3)
    levels = {key: level_of(key, config) for key in tiny.unet(config).state_dict()}
    none = {key.split(".")[0] for key, level in levels.items() if level is None}
    assert none == {"time_embed", "label_emb"}
    assert {level for level in levels.values() if level is not None} == {0, 1, 2}


def test_equal_alphas_of_levels_are_one_alpha(tiny, pair):
    keys = list(pair[0])
    assert alphas_by_key(keys, 0.25, [0.25, 0.25], tiny.unet_config()) == alphas_by_key(keys, 0.25)


def test_another_architecture_is_refused_and_the_first_key_named(tiny, pair):
    original, _ = pair
    wider = tiny.unet(tiny.unet_config(model_channels=64)).state_dict()
    with pytest.raises(ValueError, match=r"do not fit.*of another shape: input_blocks.0.0.bias is"):
        interpolate(original, wider, 0.5)
    deeper = tiny.unet(tiny.unet_config(levels=3)).state_dict()
    with pytest.raises(ValueError, match=r"unknown: input_blocks.4.0.op.bias"):
        interpolate(original, deeper, 0.5)


@pytest.mark.parametrize("alpha", [-0.1, 1.01, float("nan")])
def test_alpha_outside_0_to_1_is_refused(pair, alpha):
    with pytest.raises(ValueError, match=r"a number from 0 \(original\) to 1 \(style\)"):
        interpolate(*pair, alpha)


def test_more_levels_than_the_u_net_has_are_refused(tiny):
    keys = ["out.2.weight"]
    with pytest.raises(ValueError, match="alphas for 3 levels were given, this U-Net has 2"):
        alphas_by_key(keys, 0.5, [0.1, 0.2, 0.3], tiny.unet_config())
    alphas_by_key(keys, 0.5, [0.1, None, None], tiny.unet_config())  # unset ones do no harm


def test_temporal_and_text_parts_are_never_touched(weights, tiny):
    original, style = load_parts(sorted(weights.glob("*"))), load_parts(sorted(weights.glob("*")))
    style.image = tiny.unet(seed=5).state_dict()
    for parts in (original, style):  # layers that take a condition clip have one more
        parts.temporal = parts.temporal | {"conv_cond.weight": torch.ones(4, 4, 3, 3)}
    style.temporal = {k: v + 1 for k, v in style.temporal.items()}
    style.text = {k: v + 1 for k, v in style.text.items()}
    before = {part: digest(getattr(original, part)) for part in ("text", "image", "temporal")}
    mixed = interpolate_parts(original, style, 0.8)
    assert digest(mixed.temporal) == before["temporal"] and digest(mixed.text) == before["text"]
    assert digest(mixed.image) != before["image"]
    assert digest(original.image) == before["image"]  # nor is the input


@pytest.fixture
def lora(lora_file):
    """A LoRA file for the tiny image model."""
    return lora_file("oils", 0.1)


def test_a_lora_and_a_fine_tune_style_a_model_alike(weights, lora, tmp_path):
    original = load_parts(sorted(weights.glob("*")))
    whole = stylise_parts(original, lora, 1.0)
    config = {"unet": original.unet_config.to_dict()}
    fine_tune = tmp_path / "fine_tune.safetensors"
    image = {f"image.{k}": v.float() for k, v in whole.image.items()}
    save_file(image, fine_tune, metadata_for("fine-tune", config))
    by_lora, mixed = (stylise_parts(original, file, 0.4) for file in (lora, fine_tune))
    for key, value in by_lora.image.items():
        assert torch.allclose(value.float(), mixed.image[key].float(), atol=2e-3), key
    assert digest(by_lora.temporal) == digest(original.temporal)
    assert set(by_lora.sha256) == {*original.sha256, "oils.safetensors"}
    assert digest(stylise_parts(original, lora, 0.0).image) == digest(original.image)
    with pytest.raises(ValueError, match="alpha is 1.5"):
        stylise_parts(original, lora, 1.5)


def test_a_style_that_is_not_there_is_named(weights):
    with pytest.raises(FileNotFoundError, match="no style 'oils': give one of "):
        stylise_parts(load_parts(sorted(weights.glob("*"))), "oils", 0.5)


def test_whole_fine_tunes_are_models_of_the_pack(tmp_path):
    """mini-STYLE is mini with another image file; a style that is not there is an error, not mini."""
    for name in ("text", "image", "temporal", "image-oils"):
        (tmp_path / f"mini-{name}.safetensors").touch()
    assert bundled_names(tmp_path) == ["mini", "mini-oils"]
    plain = [file.name for file in bundled_files("mini", tmp_path)]
    styled = [file.name for file in bundled_files("mini-oils", tmp_path)]
    assert "mini-image.safetensors" in plain
    assert styled == [name.replace("-image.", "-image-oils.") for name in plain]
    with pytest.raises(FileNotFoundError, match="mini-image-neon.safetensors"):
        bundled_files("mini-neon", tmp_path)


def test_files_of_one_name_keep_both_hashes():
    assert joined_hashes({"a": "1", "b": "2"}, {"a": "3", "b": "2"}) == {"a": "1", "b": "2", "style a": "3"}


def test_the_pack_s_styles_fit_the_pack_s_image_model():
    """At least four small LoRA files and one whole fine-tune; each changes what lumiere-mini draws."""
    original = load_parts(bundled_files())
    styles = bundled_styles()
    whole = {name for name in styles if name.endswith("-full")}
    assert len(styles) - len(whole) >= 4 and len(whole) == 1
    for name, file in styles.items():
        assert file.stat().st_size <= (15 * 2**20 if name in whole else 2 * 2**20), name
        styled = stylise_parts(original, name, 1.0).image
        moved = [k for k, v in styled.items() if not torch.equal(v, original.image[k])]
        assert len(moved) > len(styled) / 2, name
        assert all(v.isfinite().all() for v in styled.values()), name
        with safe_open(file, "pt") as opened:
            base = json.loads(opened.metadata()["lumiere.config"])["style"]["base"]
        # A style of other image weights pulls lumiere-mini back to these: train it again after `train image`.
        assert base.split()[-1] == original.sha256["mini-image.safetensors"], name
