"""What can be put into a conditioning, with a row for each frame or without: frame i gets the same with and without
windows, at every temporal level.

At their initialisation the temporal layers leave the key frames to the image model alone; and an image model makes each
frame alone, so that windows must change nothing.
"""

import pytest
import torch

FRAMES, SIZE = 8, 16


def moving(rows=FRAMES):
    """A MASK of some frames whose region moves on."""
    mask = torch.zeros(rows, SIZE * 8, SIZE * 8)
    for row in range(rows):
        mask[row, :, row % 8 * 16 : row % 8 * 16 + 32] = 1
    return mask


def by_mask(host, plain, other, rows=FRAMES, kind="default"):
    settings = {"mask": moving(rows), "strength": 1.0, "set_cond_area": kind}
    return [*plain, *host.call("ConditioningSetMask", conditioning=other, **settings)[0]]


def by_area(host, plain, other):
    settings = {"width": 64, "height": 64, "x": 32, "y": 0, "strength": 1.0}
    return [*plain, *host.call("ConditioningSetArea", conditioning=other, **settings)[0]]


def by_share(host, plain, other):
    settings = {"width": 0.5, "height": 0.5, "x": 0.2, "y": 0.5, "strength": 1.0}
    return [*plain, *host.call("ConditioningSetAreaPercentage", conditioning=other, **settings)[0]]


def by_time(host, plain, other):
    parts = [(plain, 0.0, 0.5), (other, 0.5, 1.0)]
    ranged = [host.call("ConditioningSetTimestepRange", conditioning=c, start=a, end=b)[0] for c, a, b in parts]
    return [*ranged[0], *ranged[1]]


def by_default(host, plain, other):
    settings = {"mask": moving(), "strength": 1.0, "set_cond_area": "default"}
    (masked,) = host.call("ConditioningSetMask", conditioning=plain, **settings)
    return host.call("ConditioningSetDefaultCombine", cond=masked, cond_DEFAULT=other)[0]


def by_hook(host, plain, other):
    """A LoRA for one prompt, in a region that moves."""
    import comfy.hooks

    random = torch.Generator().manual_seed(3)
    layer = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q"
    lora = {
        f"{layer}.lora_up.weight": torch.randn(32, 4, generator=random) * 0.3,
        f"{layer}.lora_down.weight": torch.randn(4, 32, generator=random),
    }
    hooks = comfy.hooks.create_hook_lora(lora=lora, strength_model=1.0, strength_clip=0.0)
    settings = {"strength": 1.0, "set_cond_area": "default", "mask": moving(), "hooks": hooks}
    return [*plain, *host.call("ConditioningSetProperties", cond_NEW=other, **settings)[0]]


KINDS = {
    "mask": by_mask,
    "mask with more rows": lambda *args: by_mask(*args, rows=20),
    "mask, its bounds as the area": lambda *args: by_mask(*args, kind="mask bounds"),
    "area": by_area,
    "area in percent": by_share,
    "timestep ranges": by_time,
    "default": by_default,
    "hooks": by_hook,
}


@pytest.fixture(scope="module")
def agree(backbones, pair, windows):
    """A function (name of the MODEL, inputs of the sampler): every way to make the key frames gives the same."""

    def check(name="SD15", **inputs):
        latent = inputs.pop("latent", {"samples": torch.zeros(FRAMES, 4, SIZE, SIZE)})
        image, clip = pair(name=name)
        made = [
            backbones.sample(model, latent=latent, seed=4, **{"steps": 1, **inputs})
            for model in (image, windows(image), clip, windows(clip))
        ]
        assert torch.allclose(made[1], made[0], atol=1e-3)
        assert torch.allclose(made[2][::2], made[0][::2], atol=1e-3)
        assert torch.allclose(made[3][::2], made[0][::2], atol=1e-3)
        return made[0]

    return check


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_prompt_reach_every_window_and_level(host, backbones, pair, agree, kind):
    text = KINDS[kind](host, backbones.text(1), backbones.text(5))
    steps = 3 if kind == "timestep ranges" else 1
    made = agree(positive=text, steps=steps)
    latent = {"samples": torch.zeros(FRAMES, 4, SIZE, SIZE)}
    plain = backbones.sample(pair()[0], latent=latent, seed=4, steps=steps)
    assert not torch.allclose(made, plain, atol=1e-2)


@pytest.mark.parametrize("rows", [3, FRAMES, 12])
def test_concatenated_latents_and_noise_masks(backbones, agree, rows):
    """The host resamples what is concatenated to the clip's length, and repeats a mask."""
    random = torch.Generator().manual_seed(6)
    image, mask = torch.randn(rows, 4, SIZE, SIZE, generator=random), moving(rows)
    text = [[states, {**v, "concat_latent_image": image, "concat_mask": mask}] for states, v in backbones.text(1)]
    latent = {"samples": torch.randn(FRAMES, 4, SIZE, SIZE, generator=random), "noise_mask": moving(rows)[:, None]}
    agree("SD15 inpaint", positive=text, latent=latent, steps=2)


@pytest.mark.parametrize("rows", [1, FRAMES, 12])
def test_texts_of_every_frame(backbones, agree, rows):
    agree(positive=backbones.text(1, frames=rows))
