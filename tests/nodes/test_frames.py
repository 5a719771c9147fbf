"""One rule for per-frame things: which frames a window and a level see, and their places in the clip."""

import inspect

import pytest
import torch

LENGTH, OVERLAP = 4, 2


@pytest.fixture
def seen(host, monkeypatch):
    """A list of the places (b, padded t) that the temporal layers are told of, one entry a call of the network."""
    layers = host.module("lumiere_core.nets.temporal").TemporalLayers
    begin, found = layers.begin, []

    def spy(*args, **named):
        found.append(inspect.signature(begin).bind(*args, **named).arguments["places"])
        return begin(*args, **named)

    monkeypatch.setattr(layers, "begin", spy)
    return found


@pytest.fixture
def published(host, monkeypatch):
    """A list of what the attention layers of the image U-Net are told, one entry a layer: rows, whole length, frames."""
    from comfy.ldm.modules.attention import SpatialTransformer

    forward, found = SpatialTransformer.forward, []

    def spy(self, x, context, transformer_options):
        told = transformer_options.get("ad_params")
        chunks = len(transformer_options["cond_or_uncond"])
        found.append((told["sub_idxs"], told["full_length"], x.shape[0] // chunks) if told else None)
        return forward(self, x, context, transformer_options)

    monkeypatch.setattr(SpatialTransformer, "forward", spy)
    return found


@pytest.fixture
def stock_windows(host):
    """A function (MODEL, settings) -> MODEL with the host's own Context Windows."""

    def make(model, schedule="standard_static", stride=1, closed_loop=False, anchor=False):
        (model,) = host.call(
            "ContextWindowsManual",
            model=model,
            context_length=LENGTH,
            context_overlap=OVERLAP,
            context_schedule=schedule,
            context_stride=stride,
            closed_loop=closed_loop,
            fuse_method="flat",
            dim=0,
            freenoise=False,
            cond_retain_index_list="",
            split_conds_to_windows=False,
            latent_retain_index_list="",
            causal_window_fix=anchor,
        )
        return model

    return make


@pytest.fixture
def own_windows(host):
    def make(model, closed_loop=False):
        settings = {"context_length": LENGTH, "context_overlap": OVERLAP, "weighting": "uniform"}
        (model,) = host.call("LumiereTemporalMultidiffusion", model=model, closed_loop=closed_loop, **settings)
        return model

    return make


def frames_of(places, length):
    """The frame numbers that stand behind places in a clip of `length` frames."""
    return [(row * length).round().int().tolist() for row in places]


def trained(studio):
    return studio.host.module("nodes.host.inflate").inflation_of(studio.model).temporal_config.frames_per_clip


def test_whole_clips_have_their_places_whatever_the_padding(studio, seen):
    frames = trained(studio) + 1
    studio.sample(frames=frames, steps=1)
    assert frames_of(seen[0], frames)[0][:frames] == list(range(frames))


def test_every_frame_of_our_windows_has_its_place(host, studio, seen, own_windows):
    """Wrapped windows too: those of a closed loop go around, there and back."""
    length = max(10, trained(studio))
    studio.sample(own_windows(studio.model), frames=10, steps=1)
    windows = {tuple(row) for places in seen for row in frames_of(places, length)}
    assert {(0, 1, 2, 3), (2, 3, 4, 5), (6, 7, 8, 9)} <= windows
    seen.clear()
    studio.sample(own_windows(studio.model, closed_loop=True), frames=10, steps=1)
    wrapped = host.module("lumiere_core.nets.ring").ring_places(torch.tensor([8, 9, 0, 1]), 10)
    assert any(torch.allclose(row, wrapped, atol=1e-6) for places in seen for row in places)


@pytest.mark.parametrize("schedule", ["standard_uniform", "looped_uniform"])
def test_every_frame_of_the_hosts_windows_has_its_place(studio, seen, stock_windows, schedule):
    """Its windows may be strided (0, 2, 4, 6), or wrap around the end."""
    length = max(16, trained(studio))
    model = stock_windows(studio.model, schedule, stride=2, closed_loop=True)
    studio.sample(model, frames=16, steps=2)
    windows = {tuple(row) for places in seen for row in frames_of(places, length)}
    assert (0, 2, 4, 6) in windows
    if schedule == "looped_uniform":
        assert any(list(window) != sorted(window) for window in windows)


def test_the_anchor_frame_of_the_hosts_windows_has_its_place(studio, seen, stock_windows):
    studio.sample(stock_windows(studio.model, anchor=True), frames=8, steps=1)
    windows = {tuple(row)[:5] for places in seen for row in frames_of(places, max(8, trained(studio)))}
    assert (1, 2, 3, 4, 5) in windows  # the window 2 … 5, and the frame before it


def test_the_hosts_windows_over_two_clips_are_refused(studio, stock_windows):
    model = studio.load("tiny.safetensors", 6)[0]
    with pytest.raises(ValueError, match="frames of several clips of 6 frames"):
        studio.sample(stock_windows(model), frames=12, steps=1)


def test_layers_are_told_the_rows_that_their_level_sees(studio, published):
    """At the coarsest level every second frame of the tiny model, padding as the frames that it repeats."""
    studio.sample(frames=5, steps=1, cfg=1.0)
    assert published and None not in published
    for rows, whole, frames in published:
        assert whole == 5 and len(rows) == frames
        assert rows in ([0, 1, 2, 3, 4, 3], [0, 2, 4])
    assert [0, 2, 4] in [rows for rows, *_ in published]


def test_layers_are_told_the_rows_of_our_window(studio, published, own_windows):
    studio.sample(own_windows(studio.model), frames=8, steps=1, cfg=1.0)
    coarse = [rows for rows, whole, frames in published if frames == LENGTH // 2 and whole == 8]
    assert coarse and {tuple(rows) for rows in coarse} == {(0, 2), (2, 4), (4, 6)}


def test_layers_are_told_the_rows_of_the_hosts_window(studio, published, stock_windows):
    studio.sample(stock_windows(studio.model, anchor=False), frames=8, steps=1, cfg=1.0)
    assert {tuple(rows) for rows, *_ in published} == {(0, 2), (2, 4), (4, 6)}


def test_layers_are_told_the_rows_of_the_second_clip(studio, published):
    studio.sample(studio.load("tiny.safetensors", 4)[0], frames=8, steps=1, cfg=1.0)
    assert {tuple(rows) for rows, *_ in published} == {(0, 2, 4, 6)}
