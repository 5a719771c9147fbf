"""Apply Lumiere Temporal Layers: which MODELs it inflates, which files it refuses, and what untrained layers do."""

import pytest
import torch

pytestmark = pytest.mark.host

FAMILIES = ["SD15", "SD15 inpaint", "SD21", "SDXL", "SD x4"]


@pytest.fixture
def apply(host):
    def run(model, temporal="untrained", frames_per_clip=0):
        (result,) = host.call("LumiereApplyTemporal", model=model, temporal=temporal, frames_per_clip=frames_per_clip)
        return result

    return run


def one_call(backbones, model, x, sigma=2.0):
    """Return the clean estimate of (frames, c, h, w) noised latents at one network call inside a run."""
    import comfy.samplers

    found = {}

    def once(denoise, noise, sigmas, extra_args=None, callback=None, disable=None):
        found["x0"] = denoise(x, x.new_full([len(x)], sigma), **extra_args)
        return noise

    comfy.samplers.sample(
        model,
        x,
        backbones.text(1),
        backbones.text(2),
        1.0,
        model.load_device,
        comfy.samplers.KSAMPLER(once),
        torch.tensor([sigma, 0.0]),
        model.model_options,
        latent_image=torch.zeros_like(x),
        seed=0,
    )
    return found["x0"]


def latent(frames=16, size=8):
    return torch.randn(frames, 4, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", FAMILIES)
def test_untrained_layers_leave_every_nth_frame_to_the_image_model(backbones, apply, clips, name, log):
    """N follows from the resizes: 8 for three of them, 4 for SDXL's two."""
    plain = backbones(name)
    inflated = apply(plain)
    stride = clips.temporal_patcher(inflated).model.total_stride
    assert stride == (4 if name == "SDXL" else 8)
    difference = one_call(backbones, inflated, latent()) - one_call(backbones, plain, latent())
    difference = difference.abs().amax(dim=(1, 2, 3))
    assert difference[::stride].max() < 1e-5
    assert difference[1] > 1e-3
    assert "could not be applied" not in log()


@pytest.mark.parametrize("name", FAMILIES)
def test_trained_layers_change_the_clip_and_one_frame_is_the_image_model(backbones, apply, write_temporal, name):
    plain = backbones(name)
    write_temporal(plain, "family.safetensors")
    inflated = apply(plain, "family.safetensors")
    samples, images = backbones.sample(inflated), backbones.sample(plain)
    assert samples.shape == images.shape and samples.isfinite().all()
    assert (samples - images).abs().amax(dim=(1, 2, 3)).min() > 1e-3  # every frame
    assert torch.equal(backbones.sample(inflated, frames=1), backbones.sample(plain, frames=1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights(backbones, apply, write_temporal, clips, dtype):
    """The temporal layers take the dtype of the image model and come near to float32."""
    write_temporal(backbones("SD15"), "half.safetensors")
    half = apply(backbones("SD15", dtype=dtype), "half.safetensors")
    assert {p.dtype for p in clips.temporal_patcher(half).model.parameters()} == {dtype}
    exact = one_call(backbones, apply(backbones("SD15"), "half.safetensors"), latent(8))
    got = one_call(backbones, half, latent(8))
    assert (got - exact).abs().mean() < 0.03 * exact.abs().mean()


def test_eight_bit_weights_get_temporal_layers_of_more(backbones, apply, clips):
    model = apply(backbones("SD15", dtype=torch.float8_e4m3fn))
    dtypes = {p.dtype for p in clips.temporal_patcher(model).model.parameters()}
    assert dtypes == {torch.float16}
    assert backbones.sample(model).isfinite().all()


@pytest.mark.parametrize(
    ("trained", "trained_values", "got", "message"),
    [
        ("SD15", {}, "SDXL", r"trained for SD1\.x, but this MODEL is SDXL"),
        ("SDXL", {}, "SD15", r"trained for SDXL, but this MODEL is SD1\.x"),
        ("SD15", {"context_dim": 1024}, "SD15", r"trained for SD2\.x, but this MODEL is SD1\.x"),
    ],
)
def test_temporal_layers_of_another_family_are_refused_by_name(
    backbones, apply, write_temporal, inflate, monkeypatch, host, trained, trained_values, got, message
):
    """The configurations have the widths of the real checkpoints, the weights are small."""
    import dataclasses

    real = {"SD15": {"context_dim": 768}, "SDXL": {"context_dim": 2048}}
    module = host.module("nodes.apply")

    def full(name, **more):
        config = inflate.unet_config_of(backbones(name))
        depth = {
            "transformer_depth": (0, 0, 2, 2, 10, 10),
            "num_res_blocks": (2, 2, 2),
            "transformer_depth_output": (0, 0, 0, 2, 2, 2, 10, 10, 10),
        }
        values = {"model_channels": 320, **real[name], **(depth if name == "SDXL" else {}), **more}
        return dataclasses.replace(config, **values)

    from lumiere_core.nets import checkpoint

    config = {"unet": full(trained, **trained_values).to_dict()}
    path = host.base / "models" / "lumiere" / "other.safetensors"
    checkpoint.save_file({"temporal.x": torch.zeros(1)}, path, checkpoint.metadata_for("other", config))
    monkeypatch.setattr(module, "unet_config_of", lambda model: full(got))
    with pytest.raises(ValueError, match=f"other.safetensors was {message}"):
        apply(backbones(got), "other.safetensors")


def test_layers_of_the_plain_model_fit_its_inpainting_variant(backbones, apply, write_temporal):
    write_temporal(backbones("SD15"), "plain.safetensors")
    samples = backbones.sample(apply(backbones("SD15 inpaint"), "plain.safetensors"))
    assert samples.isfinite().all()


def test_file_without_temporal_layers_is_refused(backbones, apply, host):
    from lumiere_core.nets import checkpoint

    path = host.base / "models" / "lumiere" / "none.safetensors"
    checkpoint.save_file({"image.x": torch.zeros(1)}, path, checkpoint.metadata_for("none", {}))
    with pytest.raises(ValueError, match="none.safetensors holds no temporal weights"):
        apply(backbones("SD15"), "none.safetensors")


def test_lumiere_mini_takes_its_own_layers(studio, apply, host):
    """Load Lumiere's MODEL already has them; applying them again gives the same clip."""
    assert torch.equal(studio.sample(apply(studio.model, "tiny.safetensors")), studio.sample())


def test_frames_per_clip(backbones, apply, write_temporal):
    write_temporal(backbones("SD15"), "family.safetensors")
    four = apply(backbones("SD15"), "family.safetensors", 4)
    whole = apply(backbones("SD15"), "family.safetensors")
    x = latent(8)
    both = one_call(backbones, four, x)
    first = one_call(backbones, whole, x[:4])
    assert torch.allclose(both[:4], first, atol=1e-5)
    assert not torch.allclose(both, one_call(backbones, whole, x), atol=1e-3)


def test_deep_copy_reads_the_file_again(backbones, apply, write_temporal, clips):
    write_temporal(backbones("SD15"), "family.safetensors")
    patcher = clips.temporal_patcher(apply(backbones("SD15"), "family.safetensors"))
    again = patcher.clone(force_deepcopy=True)
    assert again.model is not patcher.model
    for key, value in patcher.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key])


def test_a_file_written_again_is_loaded_again(backbones, write_temporal, host):
    import os

    write_temporal(backbones("SD15"), "again.safetensors")
    node = host.nodes_by_id["LumiereApplyTemporal"]
    before = node.fingerprint_inputs(temporal="again.safetensors")
    os.utime(host.base / "models" / "lumiere" / "again.safetensors", ns=(1, 1))
    assert node.fingerprint_inputs(temporal="again.safetensors") != before
    assert node.fingerprint_inputs(temporal="untrained") == []


def test_the_image_checkpoint_is_read_once_for_all_runs(backbones, apply, clips, host, tmp_path, monkeypatch):
    """Gigabytes take seconds: the file's hash is kept for its path, size and time."""
    checkpoint = host.module("lumiere_core.nets.checkpoint")
    opened = []
    monkeypatch.setattr(checkpoint, "open", lambda *args: opened.append(args) or open(*args), raising=False)
    file = tmp_path / "photos.safetensors"
    file.write_bytes(b"weights")
    hashes = []
    for _ in range(3):
        model = backbones("SD15")
        model.cached_patcher_init = (None, (str(file),), 0)  # as the host's loaders leave it
        hashes.append(apply(model).attachments[clips.KEY].sha256)
    assert len(opened) == 1 and hashes == [{"photos.safetensors": checkpoint.sha256(file)}] * 3
