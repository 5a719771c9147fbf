"""The image U-Net: key layout and size of the known models, sizes, inputs."""

import pytest
import torch

from lumiere_core.nets.config import UNetConfig
from lumiere_core.nets.unet import UNet, block_names, patchify, unpatchify

SD15 = UNetConfig(
    in_channels=4,
    out_channels=4,
    model_channels=320,
    channel_mult=(1, 2, 4, 4),
    num_res_blocks=(2, 2, 2, 2),
    transformer_depth=(1, 1, 1, 1, 1, 1, 0, 0),
    transformer_depth_output=(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0),
    context_dim=768,
    num_heads=8,
    num_head_channels=-1,
)
SDXL = UNetConfig(
    in_channels=4,
    out_channels=4,
    model_channels=320,
    channel_mult=(1, 2, 4),
    num_res_blocks=(2, 2, 2),
    transformer_depth=(0, 0, 2, 2, 10, 10),
    transformer_depth_output=(0, 0, 0, 2, 2, 2, 10, 10, 10),
    transformer_depth_middle=10,
    context_dim=2048,
    use_linear_in_transformer=True,
    adm_in_channels=2816,
)


@pytest.mark.parametrize(
    ("config", "keys", "parameters"), [(SD15, 686, 859_520_964), (SDXL, 1680, 2_567_463_684)], ids=["sd15", "sdxl"]
)
def test_known_models_have_their_published_size(config, keys, parameters):
    with torch.device("meta"):
        state = UNet(config).state_dict()
    assert len(state) == keys
    assert sum(value.numel() for value in state.values()) == parameters


def test_keys_are_those_of_latent_diffusion():
    with torch.device("meta"):
        state = UNet(SD15).state_dict()
    for key, shape in {
        "time_embed.2.weight": (1280, 1280),
        "input_blocks.0.0.weight": (320, 4, 3, 3),
        "input_blocks.3.0.op.weight": (320, 320, 3, 3),
        "input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
        "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, 768),
        "input_blocks.11.0.out_layers.3.weight": (1280, 1280, 3, 3),
        "middle_block.1.transformer_blocks.0.ff.net.0.proj.weight": (10240, 1280),
        "output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        "output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
        "output_blocks.11.0.in_layers.2.weight": (320, 640, 3, 3),
        "out.2.weight": (4, 320, 3, 3),
    }.items():
        assert tuple(state[key].shape) == shape, key


@pytest.mark.parametrize("config", [SD15, SDXL], ids=["sd15", "sdxl"])
def test_block_names_describe_the_blocks(config):
    with torch.device("meta"):
        unet = UNet(config)
    names = [name for name, *_ in block_names(config)]
    built = [f"input_blocks.{i}" for i in range(len(unet.input_blocks))] + ["middle_block"]
    assert names == built + [f"output_blocks.{i}" for i in range(len(unet.output_blocks))]
    for name, level, channels, resize in block_names(config):
        layers = [type(layer).__name__ for layer in unet.get_submodule(name)]
        assert ("Downsample" in layers) == (resize == "down")
        assert ("Upsample" in layers) == (resize == "up")
        if "ResBlock" in layers:
            assert unet.get_submodule(name)[0].out_layers[3].out_channels == channels
            assert channels == config.model_channels * config.channel_mult[level]


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 12), (9, 11), (5, 21)])
@pytest.mark.parametrize("patch_size", [1, 2])
def test_any_size_works(tiny, height, width, patch_size):
    unet = tiny.unet(tiny.unet_config(2, patch_size=patch_size))
    x, *rest = tiny.inputs(height=height, width=width)
    out = unet(x[:, :, 0], *rest)
    assert out.shape == (1, 3, height, width) and torch.isfinite(out).all()


@torch.no_grad()
def test_images_of_a_batch_do_not_influence_each_other(tiny):
    unet = tiny.unet(tiny.unet_config(3)).double()
    x, *rest = tiny.inputs(clips=3, dtype=torch.float64)
    together = unet(x[:, :, 0], *rest)
    for i in range(3):
        alone = unet(x[i : i + 1, :, 0], *(value[i : i + 1] for value in rest))
        assert torch.allclose(together[i : i + 1], alone, atol=1e-12)


@torch.no_grad()
def test_every_input_matters(tiny):
    unet, inputs = tiny.unet(), tiny.inputs(frames=1)
    answer = lambda i: unet(i.x[:, :, 0], i.timesteps, i.context, i.y)  # noqa: E731
    before = answer(inputs)
    for name in ("x", "timesteps", "context", "y"):
        changed = inputs.replace(**{name: getattr(inputs, name) * 0.5 + 0.3})
        assert (answer(changed) - before).abs().max() > 1e-4, name


def test_pooled_text_is_wanted_or_refused(tiny):
    x, timesteps, context, y = tiny.inputs()
    with pytest.raises(ValueError, match="needs the pooled text vector y .adm_in_channels is 32"):
        tiny.unet()(x[:, :, 0], timesteps, context)
    without = tiny.unet(tiny.unet_config(adm_in_channels=None))
    with pytest.raises(ValueError, match="no input for the pooled text vector y .adm_in_channels is None"):
        without(x[:, :, 0], timesteps, context, y)


@pytest.mark.parametrize("patch_size", [1, 2, 4])
@pytest.mark.parametrize("size", [(8, 8), (8, 12), (7, 9), (1, 1)])
def test_patches_round_trip(patch_size, size):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    patches = patchify(x, patch_size)
    rows, columns = (-(-n // patch_size) for n in size)
    assert patches.shape == (2, 3 * patch_size**2, rows, columns)
    assert torch.equal(unpatchify(patches, patch_size, size), x)


@torch.no_grad()
def test_the_attention_function_is_used_everywhere(tiny):
    """A host passes its own; core's must not be called behind its back."""
    calls = []

    def attention(q, k, v, heads):
        calls.append(heads)
        return v[:, :1].expand_as(q)

    x, *rest = tiny.inputs()
    UNet(tiny.unet_config(), attention=attention)(x[:, :, 0], *rest)
    assert calls == [4] * 2 * (1 + 1 + 2)  # self and cross; encoder, middle, decoder; 64 / 16 heads


def test_a_class_is_a_whole_number(tiny):
    """As in the SD x4 upscaler: `label_emb.weight` holds a vector for each class."""
    unet = tiny.unet(tiny.unet_config(adm_in_channels=None, num_classes=7, text_only_levels=(1,)))
    assert unet.state_dict()["label_emb.weight"].shape == (7, 128)
    x, steps, context = torch.randn(2, 3, 8, 8), torch.tensor([1.0, 500.0]), torch.randn(2, 4, 32)
    one, other = (unet(x, steps, context, torch.tensor([0, k])) for k in (0, 6))
    assert torch.equal(one[0], other[0]) and not torch.allclose(one[1], other[1])
    for y in (None, torch.zeros(2), torch.zeros(2, 7, dtype=torch.long)):
        with pytest.raises(ValueError, match="takes y as .n,. whole numbers below 7"):
            unet(x, steps, context, y)
