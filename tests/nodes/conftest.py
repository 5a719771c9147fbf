"""The real host, booted once in this process, with the pack in its custom_nodes.

Import core through the pack here (`host.module("lumiere_core.video")`): a plain `import lumiere_core` is a second
copy with different classes.
"""

import os
import shlex

import pytest


@pytest.fixture(scope="session")
def host(headless, comfyui, tmp_path_factory):
    """The booted host: .pack, .module(name), .nodes_by_id, .run(prompt) -> outputs, .call(node_id, **inputs) -> tuple,
    .events, .base, .HostError.

    It runs on the CPU, so that numbers are the same everywhere; LUMIERE_HOST_ARGS replaces "--cpu".
    """
    base = tmp_path_factory.mktemp("base")
    headless.prepare_base(base)
    arguments = shlex.split(os.environ.get("LUMIERE_HOST_ARGS", "--cpu"))
    booted = headless.HeadlessHost(comfyui, base, arguments)
    booted.base = base
    booted.HostError = headless.HostError
    return booted


class Studio:
    """Very small random weights, loaded by Load Lumiere, and one call to sample with them."""

    SIZE = 16  # pixels

    def __init__(self, host, write_tiny):
        self.host, self.write_tiny = host, write_tiny
        self.folder = host.base / "models" / "lumiere"
        self.model, self.clip, self.vae = self.load("tiny.safetensors")
        self.positive, self.negative = host.call(
            "LumiereTextEncode", clip=self.clip, prompt="a red ball", negative_prompt=""
        )

    def load(self, name, frames_per_clip=0, dtype="default", **options):
        """Write a checkpoint and load it: (MODEL, CLIP, VAE)."""
        self.write_tiny(self.folder / name, **options)
        return self.host.call(
            "LumiereLoader", checkpoint=name, dtype=dtype, frames_per_clip=frames_per_clip
        )

    def sample(self, model=None, frames=4, node="KSampler", latent=None, **options):
        """Return the (frames, 3, 16, 16) samples of a short run."""
        import torch

        settings = {
            "seed": 1, "steps": 2, "cfg": 3.0, "sampler_name": "euler", "scheduler": "karras",
            "positive": self.positive, "negative": self.negative, "denoise": 1.0, **options,
        }  # fmt: skip
        if node == "LumiereSampler":
            settings.setdefault("dynamic_threshold", 0.0)
        if latent is None:
            latent = {"samples": torch.zeros(frames, 3, self.SIZE, self.SIZE)}
        model = self.model if model is None else model
        (result,) = self.host.call(node, model=model, latent_image=latent, **settings)
        return result["samples"]


@pytest.fixture(scope="session")
def studio(host, write_tiny):
    """See `Studio`."""
    return Studio(host, write_tiny)


@pytest.fixture
def log(caplog):
    """Function: the host's warnings so far, as one text."""
    caplog.set_level("WARNING")
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


@pytest.fixture(scope="session")
def inflate(host):
    return host.module("nodes.inflate")


@pytest.fixture(scope="session")
def clips(host):
    return host.module("nodes.clips")
