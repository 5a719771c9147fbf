"""Lumiere Style Interpolate on the host: equal to its merge, motion untouched, any architecture, any order."""

import pytest
import torch

pytestmark = pytest.mark.host
KEY = "diffusion_model.middle_block.0.in_layers.2.weight"


@pytest.fixture(scope="module")
def style(studio):
    """Another model of the same architecture."""
    return studio.load("style.safetensors", seed=7)[0]


def mix(host, model, style_model, alpha, **levels):
    (mixed,) = host.call("LumiereStyleInterpolate", model=model, style_model=style_model, alpha=alpha, **levels)
    return mixed


def originals(studio, *others):
    """Copies of the models' weights; a plain run first, since clones patch a shared network."""
    studio.sample(steps=1)
    return [{k: v.clone() for k, v in m.model.state_dict().items()} for m in (studio.model, *others)]


def digest(state):
    return {key: hash(value.cpu().numpy().tobytes()) for key, value in state.items()}


def test_uniform_alpha_equals_model_merge_simple(host, studio, style):
    first, second = (state[KEY] for state in originals(studio, style))
    ours = mix(host, studio.model, style, 0.75)
    (theirs,) = host.call("ModelMergeSimple", model1=studio.model, model2=style, ratio=0.25)
    samples = studio.sample(ours)
    assert torch.allclose(ours.model.state_dict()[KEY], 0.25 * first + 0.75 * second, atol=1e-6)
    assert torch.equal(samples, studio.sample(theirs))


def test_ends_are_the_two_image_models(host, studio, style):
    before = studio.sample()
    assert torch.allclose(studio.sample(mix(host, studio.model, style, 0.0)), before, atol=1e-5)
    whole = mix(host, studio.model, style, 1.0)
    still = studio.sample(whole, frames=1)
    assert torch.allclose(still, studio.sample(style, frames=1), atol=1e-5)
    assert not torch.allclose(still, studio.sample(frames=1), atol=1e-2)
    assert torch.equal(studio.sample(), before)  # the inputs are as they were


def test_temporal_layers_are_those_of_the_first_model(host, studio, style, clips):
    own = clips.temporal_patcher(studio.model).model
    before = digest(own.state_dict())
    mixed = mix(host, studio.model, style, 0.9)
    samples = studio.sample(mixed)
    assert clips.temporal_patcher(mixed).model is own
    assert digest(own.state_dict()) == before
    assert not clips.temporal_patcher(mixed).patches
    assert not torch.allclose(samples, studio.sample(), atol=1e-2)


def test_levels(host, studio, style):
    """Level 0 is the style, level 1 the original; the embeddings follow alpha."""
    mixed = mix(host, studio.model, style, 0.5, level_0=1.0, level_1=0.0)
    original, other = originals(studio, style)
    studio.sample(mixed)
    got = mixed.model.state_dict()
    for key, alpha in (
        ("input_blocks.1.0.in_layers.2.weight", 1.0),
        ("out.2.weight", 1.0),
        ("input_blocks.2.0.op.weight", 0.0),
        ("middle_block.0.in_layers.2.weight", 0.0),
        ("time_embed.0.weight", 0.5),
    ):
        key = f"diffusion_model.{key}"
        assert torch.allclose(got[key], torch.lerp(original[key], other[key], alpha), atol=1e-6), key
    studio.sample()
    with pytest.raises(ValueError, match="this U-Net has 2"):
        mix(host, studio.model, style, 0.5, level_3=0.2)


def test_patches_of_both_models_count(host, studio, style):
    """A LoRA on the style is interpolated; one on the first model before it too."""
    lora = style.clone()
    delta = torch.ones_like(style.model.state_dict()[KEY])
    lora.add_patches({KEY: ("diff", (delta,))})
    mixed = mix(host, studio.model, lora, 0.5)
    first, second = (state[KEY] for state in originals(studio, style))
    studio.sample(mixed)
    want = 0.5 * first + 0.5 * (second + 1)
    assert torch.allclose(mixed.model.state_dict()[KEY], want, atol=1e-6)
    studio.sample()


@pytest.mark.parametrize("layers", ["all", "attention"])
def test_stock_lora_loader_reads_our_styles(host, studio, log, layers):
    """Every key of a file of `train style` is used, and strength is alpha."""
    core = host.module("lumiere_core.nets.lora")
    unet = host.module("lumiere_core.nets.unet").UNet(
        host.module("lumiere_core.nets.config").UNetConfig(**studio_config(host))
    )
    deltas = core.LowRank(unet, rank=4, layers=layers)
    generator = torch.Generator().manual_seed(0)
    values = {k: 0.1 * torch.randn(v.shape, generator=generator) for k, v in deltas.named_parameters()}
    file = deltas.file_state(values)
    folder = host.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    host.module("lumiere_core.nets.checkpoint").save_file(file, folder / f"ours_{layers}.safetensors", {})
    (original,) = originals(studio)
    (model,) = host.call(
        "LoraLoaderModelOnly", model=studio.model, lora_name=f"ours_{layers}.safetensors", strength_model=0.6
    )
    assert "not loaded" not in log() and "ERROR" not in log()
    samples = studio.sample(model)
    plain = {k.removeprefix("diffusion_model."): v for k, v in original.items()}
    weights = {k: v for k, v in plain.items() if k in unet.state_dict()}
    assert weights.keys() == unet.state_dict().keys()
    want = core.apply(weights, file, 0.6)
    got = model.model.diffusion_model.state_dict()
    moved = [k for k in want if not torch.equal(want[k], weights[k])]
    assert len(moved) >= len(deltas.names)
    for key, value in want.items():
        assert torch.allclose(got[key], value, atol=1e-5), key
    assert not torch.allclose(samples, studio.sample(), atol=1e-3)


def studio_config(host):
    """Arguments of the tiny checkpoint's U-Net configuration."""
    import json

    checkpoint = host.module("lumiere_core.nets.checkpoint")
    _, metadata = checkpoint.load_file(host.base / "models" / "lumiere" / "tiny.safetensors")
    values = json.loads(metadata["lumiere.config"])["unet"]
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def test_styles_of_the_pack_are_offered(host):
    """LoRA files by the stock loader, whole fine-tunes by Load Lumiere; nothing else is."""
    import folder_paths

    ours = host.module("nodes.host.models")
    style = host.module("lumiere_core.nets.interpolate")
    offered = folder_paths.get_filename_list("loras")
    for name, file in style.bundled_styles().items():
        if name.endswith("-full"):
            assert f"lumiere-mini-{name.removesuffix('-full')}" in ours.checkpoint_names()
        else:
            assert file.name in offered
            assert folder_paths.get_full_path("loras", file.name) == str(file)
    assert ours.checkpoint_names()[0] == "lumiere-mini"
    assert str(style.STYLES) in folder_paths.get_folder_paths("loras")
    assert folder_paths.get_folder_paths("loras")[0] != str(style.STYLES)


def test_another_architecture_is_refused(host, studio):
    wider, _, _ = studio.load("wider.safetensors", model_channels=64)
    with pytest.raises(ValueError, match="style_model do not fit.*input_blocks.0.0.bias is"):
        mix(host, studio.model, wider, 0.5)


def test_the_label_names_both_models(host, studio, style, inflate):
    known = inflate.inflation_of(mix(host, studio.model, style, 0.5)).sha256
    assert set(known) == {"tiny.safetensors", "style.safetensors"}
    assert set(inflate.inflation_of(studio.model).sha256) == {"tiny.safetensors"}


def test_stable_diffusion_before_and_after_inflation(host, studio, inflate, backbones):
    """Two SD1.5 fine-tunes: mixing then inflating is inflating then mixing."""
    core, temporal = host.module("lumiere_core.nets.config"), host.module("lumiere_core.nets.temporal")
    first, second = (backbones("SD15", seed=seed) for seed in (0, 1))
    config = core.TemporalConfig(depth=1, num_head_channels=32, condition_channels=0)
    layers = temporal.TemporalLayers(inflate.unet_config_of(first), config)
    state = {k: v + 0.01 for k, v in layers.state_dict().items()}
    before = mix(host, inflate.inflate(first, state, config), second, 0.6, level_3=0.9)
    after = inflate.inflate(mix(host, first, second, 0.6, level_3=0.9), state, config)
    cond = [[torch.randn(1, 7, 64), {}]]
    options = {"positive": cond, "negative": cond, "steps": 1}
    clip = {"samples": torch.zeros(5, 4, 8, 8)}
    one = studio.sample(before, latent=clip, **options)
    assert one.isfinite().all()
    assert torch.equal(one, studio.sample(after, latent=clip, **options))
    plain = inflate.inflate(first, state, config)
    assert not torch.allclose(one, studio.sample(plain, latent=clip, **options), atol=1e-3)


def test_a_style_of_half_the_size_leaves_the_details(host, studio, style):
    model, _, _ = studio.load("details.safetensors", patch_size=4, patch_channels=16, detail_width=8)
    plain = studio.sample(model)
    before, other = ({k: v.clone() for k, v in m.model.state_dict().items()} for m in (model, style))
    mixed = mix(host, model, style, 1.0)
    assert not torch.allclose(studio.sample(mixed), plain, atol=1e-2)
    got = mixed.model.state_dict()
    assert torch.allclose(got[KEY], other[KEY], atol=1e-6)
    own = [key for key in got if key not in other]
    assert len(own) == 7 and all(torch.equal(got[key], before[key]) for key in own)
