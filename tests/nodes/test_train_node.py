"""Train Lumiere Temporal Layers: the trainer inside the host, on a MODEL and videos."""

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture
def clip_video(host):
    """A video of the host: a bright square that moves right over 8 frames of 16 x 16 pixels."""
    images = torch.zeros(8, 16, 16, 3)
    for i in range(8):
        images[i, 4:10, i : i + 6] = torch.tensor([1.0, 0.2, 0.1])
    return host.call("CreateVideo", images=images, fps=16.0)[0]


@pytest.fixture
def train(host, studio, clip_video):
    def run(**changes):
        values = {
            "model": studio.model,
            "clip": studio.clip,
            "vae": studio.vae,
            "videos": clip_video,
            "texts": "a red square moving right",
            "name": "learnt",
            "length": 8,
            "fps": 16.0,
            "size": 16,
            "steps": 3,
            "batch_size": 1,
            "learning_rate": 0.01,
            "seed": 0,
            "stills": 0.0,
            "precision": "float32",
            "checkpointing": True,
            "sample_every": 2,
            **changes,
        }
        return host.call("LumiereTrainTemporal", **{k: v if isinstance(v, list) else [v] for k, v in values.items()})

    return run


def test_the_trained_model_and_its_file_are_the_same(host, studio, train, clips):
    frozen = {k: v.clone() for k, v in studio.model.model.state_dict().items()}
    model, losses, file = train()
    assert len(losses["loss"]) == 3 and file.startswith("learnt")
    assert all(torch.equal(v, frozen[k]) for k, v in studio.model.model.state_dict().items())
    before = clips.temporal_patcher(studio.model).model.state_dict()
    after = clips.temporal_patcher(model).model.state_dict()
    assert any((after[k] - before[k]).abs().max() > 1e-3 for k in before)
    (applied,) = host.call("LumiereApplyTemporal", model=studio.model, temporal=file, frames_per_clip=0)
    assert torch.equal(studio.sample(applied), studio.sample(model))
    assert not torch.allclose(studio.sample(model), studio.sample(), atol=1e-4)
    folder = host.base / "output" / "lumiere" / file.removesuffix(".safetensors")
    assert {"log.jsonl", "log.csv", "loss.png", "samples"} <= {p.name for p in folder.iterdir()}
    assert sorted(p.name for p in (folder / "samples").glob("*.png")) == ["step_000002.png", "step_000003.png"]


def test_it_goes_on_from_the_layers_of_the_model(train):
    """Of a MODEL that was trained, the first loss is near the last one before, not near the start."""
    first, one, _ = train(steps=12, name="first")
    _, two, _ = train(model=first, steps=1, learning_rate=0.0, name="second")
    _, zero, _ = train(steps=1, learning_rate=0.0, name="third")
    assert zero["loss"][0] == pytest.approx(one["loss"][0], abs=1e-4)
    assert two["loss"][0] != pytest.approx(zero["loss"][0], abs=1e-4)


def test_an_existing_file_is_kept(train, host):
    names = [train(steps=1, name="same")[2] for _ in range(2)]
    assert names == ["same.safetensors", "same_2.safetensors"]
    assert train(steps=1, name="../../out/of here")[2] == "out_of here.safetensors"
    assert (host.base / "models" / "lumiere" / "out_of here.safetensors").is_file()
    with pytest.raises(ValueError, match="has no letter or digit"):
        train(name="../..")


def test_stop_is_heard_while_clips_are_encoded(train, host, backbones, stand_ins):
    """A long video is much work before the first step."""
    import comfy.model_management as management

    clip, vae = stand_ins

    class Pressed(type(vae)):
        calls = 0

        def encode(self, pixels):
            type(self).calls += 1
            management.interrupt_current_processing(True)
            return super().encode(pixels)

    video = host.call("CreateVideo", images=torch.rand(64, 64, 64, 3), fps=16.0)[0]
    values = {"model": backbones("SD15"), "clip": clip, "vae": Pressed(vae.ratio), "videos": video, "size": 64}
    try:
        with pytest.raises(management.InterruptProcessingException):
            train(steps=1, name="stopped_early", **values)
    finally:
        management.interrupt_current_processing(False)
    assert Pressed.calls == 1


def test_stop_saves_and_then_ends_the_graph(train, host, monkeypatch):
    import comfy.model_management as management

    loop = host.module("nodes.host.training")
    original, steps = loop.train, []

    def interrupted(run, folder, **more):
        watch = more["on_step"]

        def press_stop(step, record):
            steps.append(step)
            if step == 2:
                management.interrupt_current_processing(True)
            return watch(step, record)

        return original(run, folder, **{**more, "on_step": press_stop})

    monkeypatch.setattr(loop, "train", interrupted)
    with pytest.raises(management.InterruptProcessingException):
        train(steps=50, name="stopped")
    assert steps == [1, 2]
    assert (host.base / "models" / "lumiere" / "stopped.safetensors").is_file()
    management.interrupt_current_processing(False)


def test_videos_without_a_clip_are_named(train, host):
    short = host.call("CreateVideo", images=torch.zeros(3, 16, 16, 3), fps=16.0)[0]
    with pytest.raises(ValueError, match="no video gives a clip of 8 frames.*video 0: 3 frames"):
        train(videos=[short])
    with pytest.raises(ValueError, match="1 videos and 2 texts"):
        train(texts=["a", "b"])


def test_each_clip_is_encoded_as_it_is(train, host, clip_video, monkeypatch):
    """Reversed, it has the same pixels, and cut out of a file it has fewer: neither is taken for the clip before."""
    seen = []
    encoders, training = (host.module(f"nodes.host.{name}") for name in ("encoders", "training"))
    encode = encoders.HostEncoders.encode
    monkeypatch.setattr(encoders.HostEncoders, "encode", lambda self, x: (seen.append(x), encode(self, x))[1])

    class Stopped(Exception):
        """Ends the node before it trains."""

    def stopped(*_, **__):
        raise Stopped

    monkeypatch.setattr(training, "train", stopped)

    def encoded(video):
        with pytest.raises(Stopped):
            train(videos=[video])

    images = clip_video.get_components().images / 2
    for clip in (images, images.flip(0)):
        encoded(host.call("CreateVideo", images=clip, fps=16.0)[0])
    assert len(seen) == 2 and torch.equal(seen[0], seen[1].flip(0))
    file = host.base / "input" / "long.mp4"
    host.module("lumiere_core.clips.media").write_mp4(file, (torch.cat([images, 1 - images]) * 255).byte(), 16.0)
    encoded(host.call("LoadVideo", file=file.name)[0].as_trimmed(start_time=0.5, duration=0.5))
    assert len(seen) == 3 and seen[2].float().mean() > 128  # the second half alone


def test_an_image_model_gets_fresh_layers(train, host, backbones, write_temporal, stand_ins):
    """SD1.5's layout with a VAE: the layers start as the paper does and fit Apply Lumiere Temporal Layers."""
    clip, vae = stand_ins
    model = backbones("SD15")
    images = torch.rand(8, 64, 64, 3)
    video = host.call("CreateVideo", images=images, fps=16.0)[0]
    trained, losses, file = train(
        model=model, clip=clip, vae=vae, videos=[video], size=64, steps=1, name="sd", sample_every=0
    )
    assert len(losses["loss"]) == 1
    (applied,) = host.call("LumiereApplyTemporal", model=backbones("SD15"), temporal=file, frames_per_clip=0)
    assert torch.equal(backbones.sample(applied), backbones.sample(trained))


def test_the_host_s_dataset_loader_feeds_it(train, host):
    """Two videos with captions in a folder of the host's input; files are decoded by their presentation times."""
    folder = host.base / "input" / "dataset"
    media = host.module("lumiere_core.clips.media")
    for name in ("one", "two"):
        frames = torch.randint(0, 256, (16, 16, 16, 3), dtype=torch.uint8)
        media.write_mp4(folder / f"{name}.mp4", frames, 16.0)
        (folder / f"{name}.txt").write_text(f"clip {name}")
    videos, texts = host.call("LoadVideoTextDataSetFromFolder", folder="dataset")
    assert texts == ["clip one", "clip two"]
    _, losses, file = train(videos=videos, texts=texts, steps=1, name="folder", sample_every=0)
    load = host.module("lumiere_core.nets.checkpoint").load_parts
    parts = load(host.base / "models" / "lumiere" / file)
    assert parts.metadata["lumiere.clips"] == "4" and len(losses["loss"]) == 1


def test_a_killed_run_goes_on_where_it_was(train, host, monkeypatch):
    """Nothing was published, so the same graph takes the state; other options leave it alone and take the next name."""
    loop, folder = host.module("nodes.host.training"), host.base / "output" / "lumiere"
    original, resumed = loop.train, []

    def killed(run, where, **more):
        resumed.append((where.name, more["resume"]))
        if len(resumed) == 1:
            original(run, where, **{**more, "on_step": lambda step, record: step == 2})
            raise KeyboardInterrupt
        return original(run, where, **more)

    monkeypatch.setattr(loop, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        train(steps=4, name="cut")
    assert not (host.base / "models" / "lumiere" / "cut.safetensors").exists()
    other = train(steps=1, name="cut", seed=5)[2]
    assert other == "cut_2.safetensors"
    _, losses, file = train(steps=4, name="cut")
    assert file == "cut.safetensors" and len(losses["loss"]) == 2  # steps 3 and 4
    assert resumed == [("cut", False), ("cut_2", False), ("cut", True)]
    assert not list(folder.glob("cut*.old*"))


def test_the_stage_condition_trains_masked_conditions(train, host, clips, studio):
    model, _, file = train(stage="condition", steps=2, name="masked")
    assert clips.temporal_patcher(model).model.conv_cond.weight.any()
    load = host.module("lumiere_core.nets.checkpoint").load_parts
    parts = load(host.base / "models" / "lumiere" / file)
    assert parts.temporal_config.conv_cond and parts.metadata["lumiere.phase"] == "condition"


def test_on_latents_what_is_known_is_encoded_greyed(train, host, backbones, stand_ins):
    """As Lumiere Apply Condition does: four copies of the clip go through the VAE beside the clip itself."""
    clip, vae = stand_ins
    images = torch.rand(8, 64, 64, 3, generator=torch.Generator().manual_seed(4))
    video = host.call("CreateVideo", images=images, fps=16.0)[0]

    class Watched(type(vae)):
        seen = []

        def encode(self, pixels):
            self.seen.append(((pixels * 255).round() == 128).all(dim=-1).float().mean().item())
            return super().encode(pixels)

    values = {
        "model": backbones("SD15"),
        "clip": clip,
        "vae": Watched(vae.ratio),
        "videos": video,
        "size": 64,
        "sample_every": -1,
    }
    train(stage="condition", steps=1, name="greyed", **values)
    whole, *greyed = Watched.seen
    assert whole < 0.01 and len(greyed) == 4 and all(share > 0.01 for share in greyed)


def test_the_x4_upscaler_is_sent_to_its_own_stage(train, host, backbones, stand_ins, means_vae):
    with pytest.raises(ValueError, match="its temporal layers are trained by `train ssr --data`"):
        train(model=backbones("SD x4"), clip=stand_ins[0], vae=means_vae(4))


def test_the_stage_style_makes_a_lora_from_pictures(train, host, studio):
    """Every frame is a picture; the MODEL that comes out is the stock loader's with the file."""
    pictures = host.call("CreateVideo", images=torch.rand(2, 20, 20, 3), fps=1.0)[0]
    model, losses, file = train(
        stage="style",
        stills=0.1,
        videos=[pictures],
        texts="a leaf",
        name="leaves",
        words="in green",
        rank=2,
        learning_rate=0.05,
    )
    assert (host.base / "models" / "loras" / file).is_file() and len(losses["loss"]) == 3
    (stock,) = host.call("LoraLoaderModelOnly", model=studio.model, lora_name=file, strength_model=1.0)
    assert torch.equal(studio.sample(stock), studio.sample(model))
    assert not torch.allclose(studio.sample(model), studio.sample(), atol=1e-4)


def test_what_a_stage_cannot_honour_is_refused_by_name(train):
    with pytest.raises(ValueError, match="--strides does nothing when training on your own pictures"):
        train(stage="style", stills=0.1, strides="2,1")
    with pytest.raises(ValueError, match="--rank does nothing when training on your own clips"):
        train(rank=4)


def test_a_motion_lora_for_the_model_s_layers(train, host, studio, inflate):
    """The MODEL that comes out is the one that the file gives; the layers themselves stay as they were."""
    model, losses, file = train(stage="motion-lora", name="pan", rank=2, steps=3)
    assert len(losses["loss"]) == 3
    assert (host.base / "models" / "animatediff_motion_lora" / file).is_file()
    (loaded,) = host.call("LumiereLoadMotionLoRA", model=studio.model, lora_name=file, strength=1.0)
    got = studio.sample(model)
    assert torch.equal(studio.sample(loaded), got)
    assert not torch.allclose(got, studio.sample(), atol=1e-5)
    assert file in inflate.inflation_of(model).sha256
    with pytest.raises(ValueError, match="--only does nothing"):
        train(stage="motion-lora", only="proj")


def test_a_motion_lora_wants_temporal_layers(train, backbones, stand_ins):
    clip, vae = stand_ins
    with pytest.raises(ValueError, match="this MODEL has none. Put Apply Lumiere Temporal Layers before"):
        train(stage="motion-lora", model=backbones("SD15"), clip=clip, vae=vae)
