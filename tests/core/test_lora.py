"""Low-rank deltas: nothing at the start, the same weights from module and file, refusals."""

import pytest
import torch
from torch.func import functional_call

from lumiere_core.nets.lora import LowRank, apply


@pytest.fixture
def unet(tiny):
    return tiny.unet()


@pytest.fixture
def trained(unet):
    deltas = LowRank(unet, rank=2)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in deltas.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return deltas


def test_fresh_deltas_change_nothing(unet):
    state = unet.state_dict()
    for name, value in LowRank(unet, rank=4).merged(unet).items():
        assert torch.equal(value, state[name])


def test_every_linear_and_convolution_moves_and_the_network_does_not(unet, trained, tiny):
    before = {k: v.clone() for k, v in unet.state_dict().items()}
    merged = trained.merged(unet)
    names = {
        f"{name}.{part}"
        for name, layer in unet.named_modules()
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
        for part, _ in layer.named_parameters(recurse=False)
    }
    assert merged.keys() == names
    assert all(not torch.equal(value, before[name]) for name, value in merged.items())
    x, *rest = tiny.inputs()
    plain = unet(x[:, :, 0], *rest)
    changed = functional_call(unet, merged, (x[:, :, 0], *rest))
    assert not torch.allclose(plain, changed, atol=1e-3)
    assert all(torch.equal(v, before[k]) for k, v in unet.state_dict().items())
    assert torch.equal(unet(x[:, :, 0], *rest), plain)


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_a_file_gives_the_weights_of_the_module(unet, trained, strength):
    file = trained.file_state(dict(trained.named_parameters()))
    before, merged = unet.state_dict(), trained.merged(unet)
    want = before | {name: torch.lerp(before[name], value, strength) for name, value in merged.items()}
    for key, value in apply(unet.state_dict(), file, strength).items():
        assert torch.allclose(value, want[key], atol=2e-3), key  # the file is float16


def test_strength_is_the_alpha_of_the_interpolation(unet, trained):
    """W_orig + alpha * delta = alpha * W_style + (1 - alpha) * W_orig (§4.1)."""
    from lumiere_core.nets.interpolate import interpolate

    file = trained.file_state(dict(trained.named_parameters()))
    original, style = unet.state_dict(), apply(unet.state_dict(), file, 1.0)
    mixed = interpolate(original, style, 0.6)
    for key, value in apply(original, file, 0.6).items():
        assert torch.allclose(value, mixed[key], atol=1e-6), key


def test_attention_layers_only(unet):
    deltas = LowRank(unet, rank=4, layers="attention")
    assert deltas.names and all(".transformer_blocks." in n for n in deltas.names.values())
    assert not deltas.bias


def test_keys_are_kohya_s(unet, trained):
    keys = trained.file_state(dict(trained.named_parameters()))
    base = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q"
    assert {f"{base}.lora_up.weight", f"{base}.lora_down.weight", f"{base}.alpha"} <= keys.keys()
    assert keys[f"{base}.alpha"] == 2
    assert "lora_unet_out_2.diff_b" in keys


def test_refusals(unet, trained, tiny):
    file = trained.file_state(dict(trained.named_parameters()))
    wider = tiny.unet(tiny.unet_config(model_channels=64)).state_dict()
    with pytest.raises(ValueError, match="neon.safetensors does not fit this image model: "):
        apply(wider, file, 1.0, "neon.safetensors")
    with pytest.raises(ValueError, match="1 unknown keys: lora_unet_nowhere.lora_up.weight"):
        apply(unet.state_dict(), {"lora_unet_nowhere.lora_up.weight": torch.zeros(1)}, 1.0)
    with pytest.raises(ValueError, match="got rank 0"):
        LowRank(unet, rank=0)
    with pytest.raises(ValueError, match="has no attention layers"):
        LowRank(torch.nn.Sequential(torch.nn.Linear(2, 2)), rank=1, layers="attention")


@pytest.mark.parametrize("change", ["no down", "rank", "number", "alpha", "bias"])
def test_a_damaged_file_is_refused(unet, trained, change):
    weights = unet.state_dict()
    file = trained.file_state({name: value.detach() for name, value in trained.named_parameters()})
    key = next(k for k in file if k.endswith(".lora_up.weight")).removesuffix(".lora_up.weight")
    up, down = f"{key}.lora_up.weight", f"{key}.lora_down.weight"
    if change == "no down":
        del file[down]
    elif change == "bias":
        name = next(k for k in weights if k.endswith(".weight") and k.removesuffix("weight") + "bias" not in weights)
        file[f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}.diff_b"] = torch.zeros(3)
    else:
        file |= {
            "rank": {up: file[up][:, :1]},
            "number": {down: torch.zeros(())},
            "alpha": {f"{key}.alpha": torch.zeros(3)},
        }[change]
    with pytest.raises(ValueError, match="the LoRA does not fit this image model"):
        apply(weights, file, 1.0)
