"""What a run tells the page: the sheet of the clip, its cost, windows, warnings, and who else draws previews."""

import base64
from io import BytesIO

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def live(host):
    return host.module("nodes.host.live")


@pytest.fixture
def seen(live, monkeypatch):
    """Every message, and a page that wants the clip."""
    messages = []
    monkeypatch.setattr(live, "send", lambda event, data: messages.append((event, data)))
    monkeypatch.setattr(live, "chosen_mode", lambda: "clip")
    return messages


def picture(message):
    from PIL import Image

    return Image.open(BytesIO(base64.b64decode(message["sheet"])))


def test_sheet_holds_every_frame_in_its_cell(live):
    frames = torch.linspace(0, 1, 7)[:, None, None, None].expand(7, 3, 16, 16)
    message = live.sheet(frames)
    assert (message["frames"], message["columns"], message["width"], message["height"]) == (7, 3, 16, 16)
    shown = picture(message)
    assert shown.size == (48, 48)
    for number in range(7):
        level = shown.getpixel((number % 3 * 16 + 8, number // 3 * 16 + 8))[0]
        assert abs(level - 255 * number / 6) < 8


def test_what_a_node_shows_is_exact_unless_it_is_large(live, monkeypatch):
    images = torch.randint(0, 256, (7, 16, 24, 3), generator=torch.Generator().manual_seed(0)) / 255
    message = live.sheet_of(images)
    shown, (columns, width) = picture(message).convert("RGB"), (message["columns"], message["width"])
    assert message["type"] == "image/webp" and width == 24
    pixel = shown.getpixel((4 % columns * 24 + 5, 4 // columns * 16 + 6))
    assert pixel == tuple((images[4, 6, 5] * 255).round().int().tolist())
    monkeypatch.setattr(live, "EXACT", 100)
    message = live.sheet_of(images)
    assert message["type"] == "image/jpeg" and picture(message).format == "JPEG"


@pytest.mark.parametrize("node", ["KSampler", "LumiereSampler"])
def test_every_sampler_shows_the_whole_clip(studio, seen, node):
    studio.sample(frames=6, node=node, steps=3)
    clips = [data for event, data in seen if event == "clip"]
    assert clips and (clips[0]["step"], clips[0]["total"], clips[0]["frames"], clips[0]["fps"]) == (1, 3, 6, 16.0)
    assert picture(clips[0]).size == (48, 32)


def test_a_still_image_has_none(studio, seen):
    studio.sample(frames=1)
    assert not [event for event, _ in seen if event == "clip"]


def test_windows_are_shown_one_by_one_in_their_place(host, studio, seen, live, monkeypatch):
    monkeypatch.setattr(live, "SHARE", 1e9)
    monkeypatch.setattr(live, "EVERY", 0.0)
    (model,) = host.call(
        "LumiereTemporalMultidiffusion",
        model=studio.model,
        context_length=4,
        context_overlap=1,
        weighting="uniform",
        closed_loop=False,
    )
    studio.sample(model, frames=7, steps=2)
    windows = [(data["windows"], data["window"]) for _, data in seen if "windows" in data]
    assert windows == [([[0, 3], [3, 6]], 0), ([[0, 3], [3, 6]], 1)] * 2


def test_no_more_than_its_share_of_the_time(live, seen, monkeypatch):
    """A run of 100 steps of a second each, on a machine where a sheet takes 0.2 s."""
    clock = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])

    class Format:
        latent_rgb_factors, latent_rgb_factors_bias = torch.eye(3).tolist(), None

    def slow(frames):
        clock[0] += 0.2
        return {}

    monkeypatch.setattr(live, "sheet", slow)
    clip = live.LiveClip(Format, 4, 100, 16.0)
    for step in range(1, 101):
        clock[0] += 1.0
        clip.show(step, torch.zeros(4, 3, 8, 8))
    assert 8 <= len(seen) and clip.spent <= live.SHARE * 100 + 0.2
    assert seen[0][1]["step"] == 1


def test_large_clips_are_sent_small(live, seen):
    class Format:
        latent_rgb_factors, latent_rgb_factors_bias = torch.eye(3).tolist(), None

    live.LiveClip(Format, 80, 4, 16.0).show(1, torch.zeros(80, 3, 256, 256))
    assert max(picture(seen[0][1]).size) <= live.SIDE


def test_another_pack_s_previews_are_left_alone(host, studio, seen, monkeypatch):
    """As VideoHelperSuite does it: a previewer of its own in the place of the host's."""
    import latent_preview
    from comfy.cli_args import LatentPreviewMethod, args

    class Animated(latent_preview.LatentPreviewer):
        frames = 0

        def decode_latent_to_preview_image(self, preview_format, x0):
            Animated.frames += len(x0)
            return None

    def previewer(device, latent_format):
        assert latent_format.latent_rgb_factors_reshape is None
        return Animated()

    monkeypatch.setattr(latent_preview, "get_previewer", previewer)
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Latent2RGB)
    studio.sample(frames=6)
    assert Animated.frames == 12
    assert not [event for event, _ in seen if event == "clip"]


def test_lengths_and_sizes_outside_of_training_are_said(studio, seen):
    studio.sample(frames=5)  # trained on 16
    studio.sample(frames=17)
    texts = [data["text"] for event, data in seen if event == "warning"]
    assert any("5 frames; these weights were trained on 16" in text and "less than 7" in text for text in texts)
    assert any("17 frames" in text and "lose their motion" in text for text in texts)
    seen.clear()
    studio.sample(frames=8)
    assert not [event for event, _ in seen if event == "warning"]
