"""The host's VAE and text encoder as the trainer's; `prepare` by way of the host."""

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture
def encoders(host, backbones, stand_ins):
    module = host.module("nodes.host.encoders")

    def build(name, **changes):
        model = backbones(name, **changes)
        return module.HostEncoders(model, *stand_ins, {"x.safetensors": "0"})

    return build


@pytest.mark.parametrize(
    ("name", "prediction", "multiple"), [("SD15", "eps", 64), ("SD21", "eps", 64), ("SDXL", "eps", 32)]
)
def test_what_the_trainer_is_told(host, encoders, inflate, name, prediction, multiple):
    made = encoders(name)
    assert made.backbone["schedule"] == {"kind": "scaled_linear", "prediction": prediction, "steps": 1000}
    assert made.backbone["multiple"] == multiple and made.backbone["ratio"] == 8
    config = host.module("lumiere_core.nets.config").UNetConfig.from_dict(made.backbone["unet"])
    assert config == inflate.unet_config_of(made.model)


def test_v_prediction_is_seen(host, backbones):
    import comfy.model_sampling

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION):
        pass

    model = backbones("SD21")
    model.add_object_patch("model_sampling", Sampling(model.model.model_config))
    assert host.module("nodes.host.encoders").schedule_of(model).to_dict()["prediction"] == "v"


def test_lumiere_mini_keeps_its_schedule(host, studio):
    """The cosine schedule and the pixel VAE, found through the host's objects only."""
    module = host.module("nodes.host.encoders")
    made = module.HostEncoders(studio.model, studio.clip, studio.vae, {})
    assert made.backbone["schedule"]["kind"] == "cosine" and made.backbone["ratio"] == 1
    schedule = host.module("lumiere_core.diffusion.schedule").Schedule(**made.backbone["schedule"])
    sigmas = studio.model.get_model_object("model_sampling").sigmas
    assert torch.allclose(schedule.sigmas, sigmas.float(), rtol=1e-3)
    frames = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    latents = made.encode(frames)
    assert latents.shape == (3, 2, 16, 16) and latents.min() >= -1
    assert torch.equal(made.decode(latents), frames)
    context = made.embed("a red ball", 16, 16)["context"]
    assert torch.allclose(context, studio.positive[0][0][0].float(), atol=1e-5)


def test_latents_are_scaled_as_the_u_net_sees_them(encoders):
    made = encoders("SD15")
    frames = torch.full((3, 64, 64, 3), 255, dtype=torch.uint8)
    latents = made.encode(frames)
    assert latents.shape == (4, 3, 8, 8)
    assert torch.allclose(latents, torch.full_like(latents, 0.18215), atol=1e-5)
    assert torch.equal(made.decode(latents), frames)


def test_the_size_is_part_of_sdxls_vector(encoders):
    made = encoders("SDXL")
    one, other = (made.embed("x", 64, width)["y"] for width in (64, 96))
    assert one.shape == (2816,) and torch.equal(one[:1280], other[:1280])
    assert not torch.equal(one[1280:], other[1280:])
    assert "y" not in encoders("SD15").embed("x", 64, 64)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SD15 inpaint", "9 input channels takes more than noised latents"),
        ("SD x4", "4 times smaller than the clip, but this VAE makes them 8 times smaller"),
    ],
)
def test_models_that_cannot_be_trained_are_named(encoders, name, message):
    with pytest.raises(ValueError, match=message):
        encoders(name)


def test_an_unknown_noise_schedule_is_refused(host, backbones):
    import comfy.model_sampling

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
        pass

    model = backbones("SD15")
    sampling = Sampling(model.model.model_config, zsnr=True)
    model.add_object_patch("model_sampling", sampling)
    with pytest.raises(ValueError, match="noise schedule .* is none that the trainer has"):
        host.module("nodes.host.encoders").schedule_of(model)


def test_prepare_train_apply(host, encoders, backbones, tmp_path, monkeypatch):
    """A round trip in SD1.5's layout: clips, cache, training, and the result in Apply Lumiere Temporal Layers."""
    from safetensors.torch import save_file

    core = {
        n: host.module(f"lumiere_core.{n}")
        for n in (
            "dataset.prepare",
            "dataset.cache",
            "clips.media",
            "commands.train",
            "commands.cli",
            "nets.checkpoint",
        )
    }
    made = encoders("SD15")
    checkpoint = tmp_path / "model.safetensors"
    state = made.model.model.diffusion_model.state_dict()
    save_file({f"model.diffusion_model.{k}": v.clone() for k, v in state.items()}, checkpoint)
    made.backbone["sha256"] = {checkpoint.name: core["nets.checkpoint"].sha256(checkpoint)}
    frames = torch.randint(0, 256, (8, 64, 64, 3), dtype=torch.uint8)
    core["clips.media"].write_mp4(tmp_path / "videos" / "a.mp4", frames)
    with torch.inference_mode():
        core["dataset.prepare"].prepare(
            tmp_path / "videos",
            tmp_path / "cache",
            made,
            core["dataset.cache"].Settings(frames=8, size=64),
            caption="noise",
            progress=False,
        )
    output = host.base / "models" / "lumiere" / "motion.safetensors"
    status = core["commands.cli"].main(
        [
            "train",
            "temporal",
            "--checkpoint",
            str(checkpoint),
            "--data",
            str(tmp_path / "cache"),
            "--output",
            str(output),
            "--steps",
            "2",
            "--learning-rate",
            "0.01",
        ]
    )
    assert status == 0
    (model,) = host.call(
        "LumiereApplyTemporal", model=backbones("SD15"), temporal="motion.safetensors", frames_per_clip=0
    )
    (fresh,) = host.call("LumiereApplyTemporal", model=backbones("SD15"), temporal="untrained", frames_per_clip=0)
    difference = (backbones.sample(model) - backbones.sample(fresh)).abs().max()
    assert difference > 1e-5


def test_the_x4_upscaler_learns_motion_and_enlarges(host, backbones, stand_ins, means_vae, tmp_path):
    """Prepare, `train ssr --data`, Apply Lumiere Temporal Layers, Lumiere Super Resolution; and what no image model is."""
    from safetensors.torch import save_file

    upscaler, vae = backbones("SD x4"), means_vae(4)
    checkpoint = tmp_path / "x4.safetensors"
    state = upscaler.model.diffusion_model.state_dict()
    save_file({f"model.diffusion_model.{k}": v.clone() for k, v in state.items()}, checkpoint)
    hashes = {checkpoint.name: host.module("lumiere_core.nets.checkpoint").sha256(checkpoint)}
    made = host.module("nodes.host.encoders").HostEncoders(upscaler, stand_ins[0], vae, hashes)
    assert made.backbone["ratio"] == 4 and made.backbone["schedule"]["betas"] == [0.0001, 0.02]
    assert made.backbone["schedule"]["prediction"] == "v"
    schedule = host.module("lumiere_core.diffusion.schedule").Schedule(**made.backbone["schedule"])
    assert torch.allclose(schedule.sigmas, upscaler.get_model_object("model_sampling").sigmas.float(), rtol=1e-3)
    frames = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    host.module("lumiere_core.clips.media").write_mp4(tmp_path / "videos" / "a.mp4", frames)
    settings = host.module("lumiere_core.dataset.cache").Settings(frames=8, size=32)
    with torch.inference_mode():
        host.module("lumiere_core.dataset.prepare").prepare(
            tmp_path / "videos", tmp_path / "cache", made, settings, caption="noise", progress=False
        )
    output = host.base / "models" / "lumiere" / "x4_motion.safetensors"
    arguments = ["train", "ssr", "--checkpoint", str(checkpoint), "--data", str(tmp_path / "cache")]
    arguments += ["--output", str(output), "--steps", "2", "--learning-rate", "0.01"]
    assert host.module("lumiere_core.commands.cli").main(arguments) == 0

    image = torch.rand(6, 8, 8, 3, generator=torch.Generator().manual_seed(1))
    prompts = {"positive": backbones.text(1), "negative": backbones.text(2)}
    large = []
    for temporal in ("x4_motion.safetensors", "untrained"):
        (model,) = host.call("LumiereApplyTemporal", model=upscaler, temporal=temporal, frames_per_clip=0)
        (out,) = host.call(
            "LumiereSuperResolution",
            **{"model": model, "image": image, "vae": vae, **prompts, "seed": 3, "steps": 2, "cfg": 1.0},
            **{"sampler_name": "euler", "scheduler": "karras", "context_length": 4, "context_overlap": 2},
            **{"weighting": "uniform", "noise_augmentation": 0.1},
        )
        large.append(out)
    assert large[0].shape == (6, 32, 32, 3) and large[0].isfinite().all()
    assert (large[0] - large[1]).abs().max() > 1e-5

    module = host.module("lumiere_core.training.latent_pictures")
    with pytest.raises(ValueError, match="enlarges pictures and draws none"):
        module.encode_pictures([], made, tmp_path / "pictures.safetensors", 32, 32, "")


@pytest.mark.parametrize("name", ["SD15", "SDXL"])
def test_a_style_from_pictures_is_a_lora_that_the_stock_loader_reads(host, encoders, studio, log, tmp_path, name):
    """Pictures, the host's encoders, core's trainer, the stock loader: every key lands in the U-Net."""
    core = {
        part: host.module(f"lumiere_core.{part}")
        for part in (
            "nets.config",
            "nets.lora",
            "diffusion.schedule",
            "nets.unet",
            "nets.checkpoint",
            "training.loop",
            "training.pictures",
            "training.latent_pictures",
            "training.options",
            "training.parts",
            "training.run",
            "training.sources.pictures",
            "diffusion.models",
        )
    }
    made = encoders(name)
    side = 2 * made.backbone["multiple"]  # one position alone would leave self-attention untrained
    picture = core["training.pictures"].Picture(torch.rand(3, side + 9, side + 9) * 2 - 1, "a tower")
    file = tmp_path / "pictures.safetensors"
    core["training.latent_pictures"].encode_pictures([picture], made, file, side, side, "in oils")
    options = core["training.options"].TrainOptions(
        steps=2, batch_size=2, learning_rate=0.1, style="oils", rank=2, ema_decay=0.0
    )
    pictures = core["training.sources.pictures"].EncodedPictures(options, file)
    unet = core["nets.unet"].UNet(core["nets.config"].UNetConfig.from_dict(pictures.backbone["unet"]))
    import comfy.model_management

    # Clones of another test may have left their patches in the weights that they share.
    comfy.model_management.load_models_gpu([made.model], force_full_load=True)
    plain = {
        k.removeprefix("diffusion_model."): v.clone()
        for k, v in made.model.model_state_dict("diffusion_model.").items()
    }
    unet.load_state_dict(plain)
    schedule = core["diffusion.schedule"].Schedule(**pictures.backbone["schedule"])
    models = core["diffusion.models"].Models(None, unet, None, schedule)
    style = {"name": "oils", "words": "in oils", "base": ""}
    part = core["training.parts"].DeltasPart(models, options, style, auto="attention")
    run = core["training.run"].Run("style", options, pictures, part)
    folder = host.base / "models" / "loras"
    core["training.loop"].train(run, folder / name, progress=False)
    lora, _ = core["nets.checkpoint"].load_file(folder / name / "lora.safetensors")

    (styled,) = host.call(
        "LoraLoaderModelOnly", model=made.model, lora_name=f"{name}/lora.safetensors", strength_model=0.7
    )
    assert "not loaded" not in log()
    comfy.model_management.load_models_gpu([styled], force_full_load=True)
    got = styled.model.diffusion_model.state_dict()
    want = core["nets.lora"].apply(plain, lora, 0.7)
    assert sum(not torch.equal(want[k], plain[k]) for k in want) == len(run.module.names)
    for key, value in want.items():
        assert torch.allclose(got[key], value, atol=1e-5), key
