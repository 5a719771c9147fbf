"""What the tests of condition nodes share: a model that takes conditions, the builder, and small pictures."""

import pytest
import torch

SIZE = {"width": 16, "height": 16}


@pytest.fixture(scope="module")
def conditioned(studio):
    """(MODEL, VAE) with a conv_cond."""
    model, _, vae = studio.load("conditioned.safetensors", conv_cond=True)
    return model, vae


@pytest.fixture(scope="module")
def build(host):
    """Function (task, length, resize=…, grow=…, feather=…, **what is given) -> (condition, mask)."""

    def call(task, length=6, resize="crop", grow=0, feather=0, size=SIZE, **given):
        if task in ("inpaint", "outpaint"):
            given = {"source_fps": 0.0, "fps": 16.0, **given}
        if task == "image to video":
            given = {"start_frames": 1, **given}
        if task == "outpaint":
            given = {"left": 0, "top": 0, "right": 0, "bottom": 0, **given}
        return host.call(
            "LumiereConditionBuilder",
            task={"task": task, **given},
            **size,
            length=length,
            resize=resize,
            grow=grow,
            feather=feather,
        )

    return call


@pytest.fixture(scope="session")
def images():
    """Function (frames, h, w, channels, seed) -> pictures in whole levels of 256, as files have them."""

    def make(frames=1, h=16, w=16, channels=3, seed=0):
        levels = torch.randint(256, (frames, h, w, channels), generator=torch.Generator().manual_seed(seed))
        return levels.float() / 255

    return make


@pytest.fixture(scope="session")
def square():
    """Function (frames, h, w) -> a mask that is 1 in the same rectangle of every frame."""

    def make(frames=1, h=16, w=16):
        region = torch.zeros(frames, h, w)
        region[:, 4:12, 6:10] = 1
        return region

    return make


@pytest.fixture(scope="module")
def apply(studio):
    """Function (vae, condition, mask) -> what Lumiere Apply Condition makes of them."""

    def call(vae, condition, mask):
        return studio.host.call(
            "LumiereApplyCondition",
            positive=studio.positive,
            negative=studio.negative,
            vae=vae,
            condition=condition,
            mask=mask,
        )

    return call
