"""The nodes that measure, on the real host, with its own CLIP and flow classes."""

import json
import math
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def clip(host):
    images, _ = host.call(
        "LumiereWorldClip", prompt="a red ball moving right on grass", seed=1, width=48, height=48, length=16, fps=16.0
    )
    return images


@pytest.fixture(scope="module")
def node(host):
    import importlib

    return importlib.import_module(f"{host.pack.__name__}.nodes.measure")


def named(node, outputs):
    return dict(zip(("table", "plot", "figures", *node.FIGURES), outputs, strict=True))


def test_a_clip_s_figures(host, node, clip):
    found = named(node, host.call("LumiereMeasureClip", images=clip, borders="every 8"))
    assert found["motion"] > 0 and found["seam"] > 0 and math.isnan(found["psnr"])
    assert json.loads(found["figures"])["flicker"] == found["flicker"]
    assert "levels" in found["table"] and found["plot"].shape[-1] == 3 and found["plot"].min() < 0.5


def test_what_was_given_and_kept(host, node, clip):
    mask = torch.zeros(1, 48, 48)
    mask[:, :, 30:] = 1  # 1 = generated
    made = clip.clone()
    made[:, :, 30:] = 0
    before = made.clone()
    found = named(node, host.call("LumiereMeasureClip", images=made, reference=clip, mask=mask))
    assert found["outside_exact"] == 1 and found["psnr"] < 40 and made.equal(before)
    with pytest.raises(ValueError, match="connect the reference"):
        host.call("LumiereMeasureClip", images=made, mask=mask)
    with pytest.raises(ValueError, match="every 16"):
        host.call("LumiereMeasureClip", images=made, borders="here and there")
    with pytest.raises(ValueError, match="needs clip_vision and clip"):
        host.call("LumiereMeasureClip", images=made, text="a ball")


def test_the_host_s_clip_vision_and_text(host, node, clip):
    """A small CLIP of random weights in the host's own classes: cosines, and a refused encoder without projection."""
    import comfy.clip_vision
    import comfy.sd1_clip

    config = {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "hidden_act": "quick_gelu",
        "image_size": 28,
        "patch_size": 14,
        "num_channels": 3,
        "projection_dim": 16,
        "torch_dtype": "float32",
    }
    vision = comfy.clip_vision.ClipVisionModel(config)
    torch.manual_seed(0)
    for parameter in vision.model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)

    class Projection(torch.nn.Module):
        def __init__(self, weight):
            super().__init__()
            self.text_projection = torch.nn.Linear(16, 16, bias=False)
            self.text_projection.weight = torch.nn.Parameter(weight)

    class Text:
        def __init__(self, weight):
            self.cond_stage_model = Projection(weight)

        def tokenize(self, text):
            return text

        def encode_from_tokens(self, tokens, return_pooled):
            return None, torch.ones(1, 16)

    text = Text(torch.randn(16, 16))
    found = named(node, host.call("LumiereMeasureClip", images=clip, clip_vision=vision, clip=text, text="a ball"))
    assert -1 <= found["clip_text"] <= 1 and 0 < found["clip_neighbours"] <= 1
    with pytest.raises(ValueError, match="no text projection"):
        host.call("LumiereMeasureClip", images=clip, clip_vision=vision, clip=Text(torch.eye(16)), text="a ball")


def test_the_host_s_optical_flow(host, node, clip):
    """torchvision's RAFT in a patcher, as Load Optical Flow Model gives it; random weights."""
    import comfy.model_management as management
    import comfy.model_patcher
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    model = raft_small(weights=None).eval()
    patcher = comfy.model_patcher.ModelPatcher(model, management.get_torch_device(), torch.device("cpu"))
    found = named(node, host.call("LumiereMeasureClip", images=clip[:3], optical_flow=patcher))
    assert math.isfinite(found["motion"])
    assert found["motion"] != named(node, host.call("LumiereMeasureClip", images=clip[:3]))["motion"]


def test_a_slice_and_two_clips_side_by_side(host, clip):
    (row,) = host.call("LumiereXTSlice", images=clip, direction="row", position=0.5, scale=2)
    assert row.shape == (1, 32, 96, 3) and row[0, ::2, ::2].equal(clip[:, 24])
    (column,) = host.call("LumiereXTSlice", images=clip, direction="column", position=1.0, scale=1)
    assert column[0].equal(clip[:, :, -1])
    options = {"label_a": "one", "label_b": "two", "difference": 4.0}
    (both,) = host.call("LumiereCompareClips", images_a=clip, images_b=clip[:10], **options)
    assert both.shape == (10, 68, 3 * 48 + 8, 3)
    assert both[:, 20:, 2 * 52 :].max() == 0 and torch.allclose(both[:, 20:, :48], clip[:10], atol=1 / 255)
    (two,) = host.call("LumiereCompareClips", images_a=clip, images_b=clip, **options | {"difference": 0.0})
    assert two.shape[2] == 2 * 48 + 4
    bad = clip.clone()
    bad[3, 0, 0, 0] = math.nan
    for name, inputs in (
        ("LumiereXTSlice", {"images": bad, "direction": "row", "position": 0.5, "scale": 1}),
        ("LumiereCompareClips", {"images_a": bad, "images_b": clip, **options}),
        ("LumiereMeasureClip", {"images": bad}),
    ):
        with pytest.raises(ValueError, match=r"frame 3 of images\w* holds values that are no numbers"):
            host.call(name, **inputs)
    with pytest.raises(ValueError, match="would have 64000x64000 pixels; a scale below 64"):
        host.call(
            "LumiereXTSlice",
            images=clip[:1, :1, :1].expand(1000, -1, 1000, -1),
            direction="row",
            position=0.0,
            scale=64,
        )


def test_sets_of_clips(host, clip, tmp_path):
    import folder_paths

    from lumiere_core.clips.media import write_mp4

    output, network = Path(folder_paths.get_output_directory()), "videomae/model.safetensors"
    for number in range(3):
        for name in ("real", "made"):
            frames = (clip.roll(number + (name == "made"), 2) * 255).byte()
            write_mp4(output / "sets" / name / f"{number}.mp4", frames, 16.0)
    transformers = pytest.importorskip("transformers")
    config = transformers.VideoMAEConfig(
        image_size=32,
        patch_size=16,
        num_frames=4,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    folder = Path(folder_paths.get_folder_paths("video_features")[0])
    transformers.VideoMAEModel(config).save_pretrained(folder / "videomae")
    options = {"real": "sets/real", "made": "sets/made", "frames": 4, "fps": 0.0, "resize": "crop"}
    table, frechet, kernel, inception = host.call("LumiereMeasureSets", network=network, **options)
    assert frechet > 0 and math.isnan(inception) and "VideoMAE" in table and "fewer than 2048" in table
    for wrong, error in (("../../etc", "outside"), ("none", "no folder")):
        with pytest.raises((ValueError, FileNotFoundError), match=error):
            host.call("LumiereMeasureSets", network=network, **options | {"real": wrong})


def test_a_missing_network_is_named(host):
    node = host.nodes_by_id["LumiereMeasureSets"]
    said = node.validate_inputs(network="i3d_other.safetensors")
    assert "i3d_other.safetensors" in said and "video_features" in said and "Publishers" in said


def test_read_label_of_a_saved_and_of_an_unsaved_video(host, clip, tmp_path):
    from lumiere_core.clips.media import write_mp4

    write_mp4(tmp_path / "other.mp4", (clip * 255).byte(), metadata={"comment": "made by somebody"})
    from comfy_api.v0_0_2 import InputImpl

    text, generated, label, workflow = host.call(
        "LumiereReadLabel", video=InputImpl.VideoFromFile(str(tmp_path / "other.mp4")), look_for_watermark=False
    )
    assert "made by somebody" in text and not generated and (label, workflow) == ("", "")
    (video,) = host.call("CreateVideo", images=clip, fps=16.0)
    text, generated, label, _ = host.call("LumiereReadLabel", video=video, look_for_watermark=False)
    assert not generated and "workflow: none" in text


def test_a_labelled_video_is_marked_and_signed_when_asked(host, clip, tmp_path, monkeypatch):
    """The mark goes into frames before they are saved; the signature onto the whole file before it has its name."""
    import importlib
    import types

    video_nodes = importlib.import_module(f"{host.pack.__name__}.nodes.video")
    signed = []
    monkeypatch.setattr(
        video_nodes, "inflation_of", lambda model: types.SimpleNamespace(sha256={}, image_recorded=True)
    )
    monkeypatch.setattr(video_nodes, "sign_if_wanted", lambda path, label: signed.append((path.exists(), label)))
    monkeypatch.setattr(video_nodes.watermark, "mark", lambda frames: (255 - frame for frame in frames))
    (video,) = host.call("CreateVideo", images=clip, fps=16.0)
    model = types.SimpleNamespace(patches={})
    (plain,) = host.call("LumiereLabelVideo", video=video, model=model)
    (marked,) = host.call("LumiereLabelVideo", video=video, model=model, watermark=True)
    assert torch.allclose(marked.get_components().images, 1 - plain.get_components().images, atol=1 / 255)
    marked.save_to(str(tmp_path / "clip.mp4"))
    assert signed == [(True, marked.label)] and [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
    text, generated, label, _ = host.call("LumiereReadLabel", video=marked, look_for_watermark=False)
    assert generated and label.startswith("generated by") and label in text
