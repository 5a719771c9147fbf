"""Nodes that show what they are given, the moving region and the style sweep."""

import json

import pytest
import torch

pytestmark = pytest.mark.host

BOX = json.dumps({"shapes": [{"kind": "box", "keys": [{"frame": 0, "x": 0.25, "y": 0.5, "w": 0.5, "h": 1}]}]})


@pytest.fixture
def page(host, monkeypatch):
    """A page that watches."""
    monkeypatch.setattr(host.module("nodes.host.live"), "watched", lambda: True)


def shown(host, node_id, **inputs):
    """Run one node and return what it shows."""
    node = host.nodes_by_id[node_id]
    node.GET_SCHEMA()
    with torch.inference_mode():
        ui = node.PREPARE_CLASS_CLONE(None).EXECUTE_NORMALIZED(**inputs).ui
    return ui if ui is None or isinstance(ui, dict) else ui.as_dict()


WORLD = {"prompt": "a red ball moving right on grass", "seed": 3, "width": 16, "height": 16, "fps": 16.0}
BUILD = {"width": 16, "height": 16, "length": 6, "resize": "crop", "grow": 0, "feather": 0}


def test_nothing_is_drawn_for_scripts(host):
    assert shown(host, "LumiereWorldClip", **WORLD, length=4) is None


def test_a_clip_is_played_and_a_still_is_a_picture(host, page):
    import av
    import folder_paths

    ui = shown(host, "LumiereWorldClip", **WORLD, length=4)
    (file,) = ui["images"]
    assert ui["animated"] and file["type"] == "temp"
    with av.open(f"{folder_paths.get_temp_directory()}/{file['filename']}") as video:
        assert sum(1 for _ in video.decode(video=0)) == 4
    (file,) = shown(host, "LumiereWorldClip", **WORLD, length=1)["images"]
    assert file["filename"].endswith(".png")


def test_the_builder_tints_what_is_made(host, page):
    preview = host.module("nodes.host.preview")
    images, mask = torch.full((2, 4, 4, 3), 0.5), torch.zeros(2, 4, 4)
    mask[1] = 1
    tinted = preview.tinted(images, mask)
    assert torch.equal(tinted[0], images[0]) and (tinted[1] != 0.5).any() and (images == 0.5).all()
    clip = torch.rand(6, 16, 16, 3)
    region = torch.zeros(1, 16, 16)
    region[:, 4:8] = 1
    task = {"task": "inpaint", "images": clip, "region": region, "source_fps": 0.0, "fps": 16.0}
    assert "animated" in shown(host, "LumiereConditionBuilder", task=task, **BUILD)
    task = {"task": "key frames", "images": clip[:2], "frames": "0, -1"}
    (sheet,) = shown(host, "LumiereConditionBuilder", task=task, **BUILD)["lumiere_sheet"]
    assert (sheet["frames"], sheet["length"]) == (2, 6)


def test_region_has_the_clip_s_size_and_length(host, page):
    (mask,) = host.call("LumiereRegion", region=BOX, width=32, height=24, length=5)
    assert mask.shape == (5, 24, 32) and mask[:, :, :16].all() and not mask[:, :, 16:].any()
    images = torch.rand(3, 8, 12, 3)
    (mask,) = host.call("LumiereRegion", region=BOX, width=32, height=24, length=5, images=images)
    assert mask.shape == (3, 8, 12)
    inputs = {"region": BOX, "width": 32, "height": 24, "length": 5}
    assert shown(host, "LumiereRegion", **inputs) is None
    assert shown(host, "LumiereRegion", **inputs, images=images)["lumiere_sheet"][0]["frames"] == 3


def test_sweep_is_each_alpha_in_its_cell(host, studio, page):
    style, *_ = studio.load("sweep_style.safetensors", seed=5)
    latent = {"samples": torch.zeros(3, 3, 16, 16)}
    common = {
        **{"positive": studio.positive, "negative": studio.negative, "latent_image": latent, "seed": 4, "steps": 2},
        **{"cfg": 1.0, "sampler_name": "euler", "scheduler": "karras"},
    }
    given = {"model": studio.model, "style_model": style, "vae": studio.vae, "alphas": "0, 0.4 1", **common}
    (images,) = host.call("LumiereStyleSweep", **given)
    assert images.shape == (3, 32, 32, 3)
    for number, alpha in enumerate((0.0, 0.4, 1.0)):
        (mixed,) = host.call("LumiereStyleInterpolate", model=studio.model, style_model=style, alpha=alpha)
        made = studio.sample(
            mixed, node="LumiereSampler", **{k: v for k, v in common.items() if k != "latent_image"}, frames=3
        )
        want = studio.vae.decode(made)
        row, column = number // 2 * 16, number % 2 * 16
        assert (images[:, row : row + 16, column : column + 16] - want).abs().max() < 1e-5
    assert (images[:, 16:, 16:] == 0.5).all()
    (sweep,) = shown(host, "LumiereStyleSweep", **given)["lumiere_sweep"]
    assert (sweep["alphas"], sweep["across"], sweep["frames"]) == ([0.0, 0.4, 1.0], 2, 3)


@pytest.mark.parametrize("alphas", ["", "x", "0, 2", "-0.1", ", ".join(["0.5"] * 17)])
def test_bad_alphas(host, alphas):
    with pytest.raises(ValueError, match="wanted are 1 to 16 numbers"):
        host.module("nodes.style_sweep").parse_alphas(alphas)
