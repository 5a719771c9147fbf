"""Loading and saving checkpoints: what is listed, what is refused and how."""

import contextlib
import errno
import json
import os
import signal

import pytest
import torch

pytestmark = pytest.mark.host


def load(host, name, **options):
    return host.call("LumiereLoader", **{"checkpoint": name, "dtype": "default", "frames_per_clip": 0, **options})


def test_lists_the_bundled_weights_and_the_folder(host, studio):
    (names,) = (i.options for i in host.nodes_by_id["LumiereLoader"].GET_SCHEMA().inputs if i.id == "checkpoint")
    assert names[0] == "lumiere-mini"
    assert "tiny.safetensors" in names
    (studio.folder / "notes.txt").write_text("x")
    assert "notes.txt" not in host.module("nodes.host.models").checkpoint_names()


def test_inflation_knows_its_weights(host, studio):
    model, _, _ = studio.load("known.safetensors")
    inflation = host.module("nodes.host.inflate").inflation_of(model)
    digest = host.module("lumiere_core.nets.checkpoint").sha256(studio.folder / "known.safetensors")
    assert inflation.sha256 == {"known.safetensors": digest}
    assert inflation.trained_size == (16, 16)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_dtypes(studio, dtype):
    model, _, _ = studio.load("tiny.safetensors", dtype=dtype)
    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    assert model.model.diffusion_model.dtype == wanted
    assert (studio.sample(model) - studio.sample()).abs().max() < 0.5


def damaged(studio, change, name="damaged.safetensors"):
    studio.write_tiny(studio.folder / name, change=change)
    return name


def test_missing_keys_are_named(host, studio):
    name = damaged(studio, lambda state, _: state.pop("image.out.2.weight"))
    with pytest.raises(ValueError, match="image U-Net weights of damaged.*1 missing: out.2.weight"):
        load(host, name)


def test_missing_part_is_named(host, studio):
    def change(state, _):
        for key in [k for k in state if k.startswith("temporal.")]:
            del state[key]

    with pytest.raises(ValueError, match="damaged.safetensors holds no temporal weights"):
        load(host, damaged(studio, change))


def test_temporal_layers_of_another_backbone_are_refused(host, studio):
    def change(state, metadata):
        for key in [k for k in state if k.startswith("temporal.middle_block")]:
            state[key] = torch.zeros(7)

    with pytest.raises(ValueError, match="temporal layers of damaged.*another shape.*another backbone"):
        load(host, damaged(studio, change))


def test_image_checkpoint_is_refused(host, studio):
    from safetensors.torch import save_file

    save_file({"model.diffusion_model.x": torch.zeros(1)}, studio.folder / "sd15.safetensors")
    with pytest.raises(ValueError, match="sd15.safetensors is no Lumiere checkpoint"):
        load(host, "sd15.safetensors")


def test_truncated_file_is_refused(host, studio):
    path = studio.write_tiny(studio.folder / "half.safetensors")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="half.safetensors.*not a complete safetensors file"):
        load(host, "half.safetensors")


def test_file_of_another_format_is_refused(host, studio):
    (studio.folder / "text.safetensors").write_text("not a tensor in sight, but long enough to have a header")
    with pytest.raises(ValueError, match="text.safetensors.*not a complete safetensors file"):
        load(host, "text.safetensors")


def test_unknown_name_and_traversal_are_refused(host):
    for name in ("nothing.safetensors", "../../secret.safetensors"):
        with pytest.raises(FileNotFoundError):
            load(host, name)


def test_file_written_again_is_loaded_again(host, studio):
    node = host.nodes_by_id["LumiereLoader"]
    path = studio.write_tiny(studio.folder / "again.safetensors")
    before = node.fingerprint_inputs(checkpoint="again.safetensors")
    assert node.fingerprint_inputs(checkpoint="again.safetensors") == before
    os.utime(path, (1, 1))
    assert node.fingerprint_inputs(checkpoint="again.safetensors") != before


def saved(host):
    return sorted((host.base / "output" / "lumiere").glob("*.safetensors"))


def test_save_temporal_round_trip(host, studio, clips):
    """With patches applied; the file holds what the loader needs of the temporal layers."""
    inflate, checkpoint = host.module("nodes.host.inflate"), host.module("lumiere_core.nets.checkpoint")
    model = studio.model.clone()
    key = "middle_block.inflation.proj.weight"
    state = {k: v.clone() for k, v in clips.temporal_patcher(model).model.state_dict().items()}
    clips.temporal_patcher(model).add_patches({key: ("diff", (torch.ones_like(state[key]),))})
    host.call("LumiereSaveTemporal", model=model, filename_prefix="lumiere/temporal")

    path = saved(host)[-1]
    parts = checkpoint.load_parts(path)
    assert parts.temporal.keys() == state.keys()
    assert torch.allclose(parts.temporal[key], state[key] + 1)
    assert torch.equal(parts.temporal["condition.text.weight"], state["condition.text.weight"])
    assert parts.unet_config == inflate.inflation_of(model).unet_config
    assert parts.temporal_config == inflate.inflation_of(model).temporal_config
    assert parts.metadata["modelspec.architecture"]
    again = inflate.inflate(studio.model, parts.temporal, parts.temporal_config)
    assert torch.allclose(studio.sample(again), studio.sample(model), atol=1e-5)


def test_save_temporal_needs_temporal_layers(host, studio, clips):
    plain = studio.model.clone()
    plain.remove_additional_models(clips.KEY)
    with pytest.raises(ValueError, match="no temporal layers to save"):
        host.call("LumiereSaveTemporal", model=plain, filename_prefix="lumiere/temporal")


def test_save_outside_of_the_output_folder_is_refused(host, studio):
    with pytest.raises(Exception, match="outside the output folder"):
        host.call("LumiereSaveTemporal", model=studio.model, filename_prefix="../../x")


@contextlib.contextmanager
def full_disk():
    """Files of this process end after 4 kB, as on a full disk.

    Around one call only: the limit holds for the report of pytest too, where that is written into a file.
    """
    resource = pytest.importorskip("resource")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def test_full_disk_leaves_no_half_written_weights(host, studio):
    before = saved(host)
    with full_disk(), pytest.raises(Exception, match=f"{os.strerror(errno.EFBIG)}|File too large"):
        host.call("LumiereSaveTemporal", model=studio.model, filename_prefix="lumiere/temporal")
    assert saved(host) == before


def test_full_disk_leaves_no_half_written_video(host, studio):
    (host.base / "output" / "full").mkdir(exist_ok=True)
    (video,) = host.call("CreateVideo", images=torch.rand(40, 64, 64, 3), fps=16.0)
    (labelled,) = host.call("LumiereLabelVideo", video=video, model=studio.model)
    with full_disk(), pytest.raises(OSError):
        labelled.save_to(str(host.base / "output" / "full" / "clip.mp4"))
    assert list((host.base / "output" / "full").iterdir()) == []


def metadata(path):
    import av

    with av.open(str(path)) as container:
        return dict(container.metadata)


def test_label_is_in_the_saved_file(host, studio):
    prompt = {
        "1": {
            "class_type": "LumiereLoader",
            "inputs": {"checkpoint": "tiny.safetensors", "dtype": "default", "frames_per_clip": 0},
        },
        "2": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 3, "color": 255}},
        "3": {"class_type": "CreateVideo", "inputs": {"images": ["2", 0], "fps": 16.0}},
        "4": {"class_type": "LumiereLabelVideo", "inputs": {"video": ["3", 0], "model": ["1", 0]}},
        "5": {
            "class_type": "SaveVideo",
            "inputs": {"video": ["4", 0], "filename_prefix": "label/x", "format": "mp4", "codec": "h264"},
        },
    }
    (file,) = host.run(prompt)["5"]["images"]
    fields = metadata(host.base / "output" / file["subfolder"] / file["filename"])
    digest = host.module("lumiere_core.nets.checkpoint").sha256(studio.folder / "tiny.safetensors")
    assert f"generated by Lumiere node pack (tiny.safetensors sha256 {digest[:16]})" in fields["comment"]
    assert json.loads(fields["prompt"])["1"]["class_type"] == "LumiereLoader"


def label(host, model, video=None):
    """Return (the labelled VIDEO, its label)."""
    if video is None:
        (video,) = host.call("CreateVideo", images=torch.rand(2, 16, 16, 3), fps=16.0)
    (labelled,) = host.call("LumiereLabelVideo", video=video, model=model)
    return labelled, labelled.label


def test_label_says_that_patches_changed_the_image_weights(host, studio, write_tiny_style):
    write_tiny_style(host.base / "models" / "loras" / "label.safetensors")
    (patched,) = host.call("LoraLoaderModelOnly", model=studio.model, lora_name="label.safetensors", strength_model=0.5)
    remark = "; image weights changed by patches (LoRA or merge))"
    assert label(host, patched)[1].endswith(remark)
    assert remark not in label(host, studio.model)[1]


def test_labels_of_two_models_add_up(host, studio, tmp_path):
    other, _, _ = studio.load("second.safetensors", seed=2)
    video, first = label(host, studio.model)
    both, text = label(host, other, video)
    assert text.startswith(f"{first}; generated by") and "second.safetensors sha256" in text
    assert video.label == first  # the input is as it was
    both.save_to(str(tmp_path / "clip.mp4"))
    assert json.loads(metadata(tmp_path / "clip.mp4")["comment"]) == text


def test_label_of_an_inflated_checkpoint_names_it_where_the_host_does(host, backbones, write_temporal, tmp_path):
    write_temporal(backbones("SD15"), "label.safetensors")
    file = tmp_path / "photos.safetensors"
    file.write_bytes(b"weights")
    digest = host.module("lumiere_core.nets.checkpoint").sha256(file)[:16]
    for temporal, layers in (("untrained", ""), ("label.safetensors", "label.safetensors sha256 ")):
        named = []
        for loader in (None, (None, (str(file),), 0)):  # as the host's loaders leave it
            model = backbones("SD15")
            model.cached_patcher_init = loader
            (inflated,) = host.call("LumiereApplyTemporal", model=model, temporal=temporal, frames_per_clip=0)
            named.append(label(host, inflated)[1])
        unknown, known = named
        assert unknown.endswith("image checkpoint not recorded)") and layers in unknown
        assert f"(photos.safetensors sha256 {digest}" in known and layers in known
        assert "not recorded" not in known


def test_label_of_a_model_without_temporal_layers_names_its_file(host, backbones, tmp_path):
    """Such as Wan's, which the templates use too."""
    file = tmp_path / "wan.safetensors"
    file.write_bytes(b"weights")
    model = backbones("SD15")
    model.cached_patcher_init = None
    with pytest.raises(ValueError, match="does not know its weights"):
        label(host, model)
    model.cached_patcher_init = (None, (str(file),), 0)
    digest = host.module("lumiere_core.nets.checkpoint").sha256(file)[:16]
    assert label(host, model)[1] == f"generated by Lumiere node pack (wan.safetensors sha256 {digest})"


def test_label_survives_trimming_and_reading_as_a_stream(host, studio):
    import av

    (video,) = host.call("CreateVideo", images=torch.rand(16, 16, 16, 3), fps=16.0)
    (labelled,) = host.call("LumiereLabelVideo", video=video, model=studio.model)
    assert labelled.get_dimensions() == (16, 16) and labelled.get_frame_count() == 16
    trimmed = labelled.as_trimmed(0.0, 0.5)
    for source in (labelled.get_stream_source(), trimmed.get_stream_source()):
        with av.open(source) as container:
            assert "generated by Lumiere" in container.metadata["comment"]


def test_label_is_left_out_if_the_host_writes_no_metadata(host, studio, monkeypatch, tmp_path):
    from comfy.cli_args import args

    monkeypatch.setattr(args, "disable_metadata", True)
    (video,) = host.call("CreateVideo", images=torch.rand(4, 16, 16, 3), fps=16.0)
    (labelled,) = host.call("LumiereLabelVideo", video=video, model=studio.model)
    labelled.save_to(str(tmp_path / "clip.mp4"))
    assert "comment" not in metadata(tmp_path / "clip.mp4")


def test_odd_frames_are_refused_with_advice(host, studio, tmp_path):
    (video,) = host.call("CreateVideo", images=torch.rand(4, 15, 17, 3), fps=16.0)
    (labelled,) = host.call("LumiereLabelVideo", video=video, model=studio.model)
    with pytest.raises(ValueError, match="17x15 pixels; H.264 needs an even width and height"):
        labelled.save_to(str(tmp_path / "clip.mp4"))


def test_layers_that_hold_no_memory_before_loading(studio, monkeypatch):
    """As DynamicVRAM builds them on NVIDIA: linear layers without weights, then tensors are assigned."""
    import comfy.memory_management
    import comfy.model_patcher

    monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", True)
    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "is_dynamic", lambda self: True)
    model, clip, _ = studio.load("tiny.safetensors")
    monkeypatch.undo()
    (positive,) = studio.host.call("CLIPTextEncode", clip=clip, text="a red ball")
    assert torch.allclose(positive[0][0], studio.positive[0][0], atol=1e-6)
    assert torch.allclose(studio.sample(model), studio.sample(), atol=1e-6)


def test_bundled_weights(host, studio):
    """They load and sample."""
    model, clip, _ = load(host, "lumiere-mini")
    (positive,) = host.call("CLIPTextEncode", clip=clip, text="a red ball bouncing on grass")
    latent = {"samples": torch.zeros(8, 3, 64, 64)}
    samples = studio.sample(model, latent=latent, steps=1, positive=positive, negative=positive)
    assert samples.isfinite().all()
