"""What others put on a U-Net MODEL or into a conditioning, on an inflated MODEL: every feature of the host by name.

At their initialisation the temporal layers leave the key frames to the image model alone, so a feature that reaches
every level with the right rows gives key frames that are those of the image model with the same feature.
"""

import pytest
import torch

FRAMES, SIZE = 5, 16
EXACT = {
    "SelfAttentionGuidance": {"scale": 0.5, "blur_sigma": 2.0},
    "PerturbedAttentionGuidance": {"scale": 3.0},
    "NAGuidance": {"nag_scale": 5.0, "nag_alpha": 0.5, "nag_tau": 1.5},
    "FreeU": {"b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2},
    "FreeU_V2": {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2},
    "PatchModelAddDownscale": {
        "block_number": 1,
        "downscale_factor": 2.0,
        "start_percent": 0.0,
        "end_percent": 1.0,
        "downscale_after_skip": True,
        "downscale_method": "bilinear",
        "upscale_method": "bilinear",
    },
    "UNetSelfAttentionMultiply": {"q": 1.1, "k": 1.0, "v": 0.9, "out": 1.0},
    "UNetCrossAttentionMultiply": {"q": 1.1, "k": 1.0, "v": 0.9, "out": 1.0},
    "UNetTemporalAttentionMultiply": {
        "self_structural": 1.0,
        "self_temporal": 1.0,
        "cross_structural": 1.0,
        "cross_temporal": 1.0,
    },
    "VideoLinearCFGGuidance": {"min_cfg": 1.0},
    "VideoTriangleCFGGuidance": {"min_cfg": 1.0},
    "CFGNorm": {"strength": 0.8},
    "RescaleCFG": {"multiplier": 0.7},
    "TCFG": {},
    "APG": {"eta": 0.5, "norm_threshold": 5.0, "momentum": 0.0},
    "CFGZeroStar": {},
    "FreSca": {"scale_low": 1.0, "scale_high": 1.25, "freq_cutoff": 4},
    "Epsilon Scaling": {"scaling_factor": 1.01},
}
COUPLED = {  # they draw by the batch's shape which tokens they merge or tile, or look at a mean over the batch
    "Mahiro": {},
    "TomePatchModel": {"ratio": 0.3},
    "HyperTile": {"tile_size": 64, "swap_size": 2, "max_depth": 0, "scale_depth": False},
    "EasyCache": {"reuse_threshold": 0.2, "start_percent": 0.15, "end_percent": 0.95, "verbose": False},
}


@pytest.fixture(scope="module")
def key_frames(backbones):
    """A function MODELs -> the samples of their key frames, by the same noise."""

    def run(*models, frames=FRAMES, **options):
        latent = {"samples": torch.zeros(frames, 4, SIZE, SIZE)}
        return [backbones.sample(model, latent=latent, seed=4, **{"steps": 1, **options})[::2] for model in models]

    return run


def test_without_a_feature_key_frames_are_the_image_models(pair, key_frames):
    image, clip = key_frames(*pair())
    assert torch.allclose(image, clip, atol=1e-4)


@pytest.mark.parametrize("node", EXACT)
def test_key_frames_are_the_image_models_with_the_same_feature(host, pair, key_frames, node):
    patched = [host.call(node, model=model, **EXACT[node])[0] for model in pair()]
    image, clip = key_frames(*patched)
    assert torch.allclose(image, clip, atol=1e-3)
    if node != "UNetTemporalAttentionMultiply":  # patches layers that only video models have
        assert not torch.allclose(image, key_frames(pair()[0])[0], atol=1e-4)


@pytest.mark.parametrize("node", COUPLED)
def test_features_that_look_at_the_whole_batch_run(host, pair, key_frames, windows, node):
    """In windows, at levels and in turns, also when a run before has left something in their patches."""
    image, clip = (host.call(node, model=model, **COUPLED[node])[0] for model in pair())
    for model in (clip, windows(clip), host.call("LumiereLoop", model=image)[0], windows(image)):
        assert key_frames(model, frames=8, steps=2)[0].isfinite().all()


@pytest.mark.parametrize(("width", "frames"), [(32, 8), (128, 5)])
def test_self_attention_guidance_blurs_each_frame_by_its_own_map(host, pair, key_frames, width, frames):
    """With 2 heads its maps did not fit the batch, with 8 they fitted by mixing frames and heads."""
    patched = [host.call("SelfAttentionGuidance", model=m, **EXACT["SelfAttentionGuidance"])[0] for m in pair(width)]
    image, clip = key_frames(*patched, frames=frames)
    assert torch.allclose(image, clip, atol=1e-3)


def test_self_attention_guidance_in_windows_is_refused(host, pair, key_frames, windows):
    for model in pair():
        (model,) = host.call("SelfAttentionGuidance", model=model, **EXACT["SelfAttentionGuidance"])
        with pytest.raises(ValueError, match="Self-Attention Guidance keeps the attention of one call"):
            key_frames(windows(model), frames=8)


@pytest.mark.parametrize("schedule", ["standard_static", "looped_uniform"])
def test_self_attention_guidance_in_the_hosts_windows_is_refused(host, pair, key_frames, hosts_windows, schedule):
    (model,) = host.call("SelfAttentionGuidance", model=pair()[1], **EXACT["SelfAttentionGuidance"])
    cut = hosts_windows(model, schedule)
    with pytest.raises(ValueError, match="Self-Attention Guidance keeps the attention of one call"):
        key_frames(cut, frames=8)
    assert key_frames(cut, frames=4)[0].isfinite().all()  # one window


@pytest.fixture(scope="module")
def gligen(backbones):
    """A conditioning with one box, whose GLIGEN model has random weights."""
    import comfy.gligen
    import comfy.model_patcher

    torch.manual_seed(5)
    widths = [32, 64, 64, 64, 64, 32, 32]  # of the attention layers in the order in which they run
    modules = [comfy.gligen.GatedSelfAttentionDense(w, backbones.WIDTH, w // 32, 32) for w in widths]
    model = comfy.gligen.Gligen(modules, comfy.gligen.PositionNet(backbones.WIDTH, backbones.WIDTH), backbones.WIDTH)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    cpu = torch.device("cpu")
    patcher = comfy.model_patcher.ModelPatcher(model, cpu, cpu)
    ((states, values),) = backbones.text(1)
    box = (torch.randn(1, backbones.WIDTH), 8, 8, 2, 2)
    return [[states, {**values, "gligen": ("position", patcher, [box])}]]


@pytest.mark.parametrize("frames", [5, 8])
def test_gligen_boxes_reach_every_level(pair, key_frames, gligen, frames):
    image, clip = key_frames(*pair(), frames=frames, positive=gligen)
    assert torch.allclose(image, clip, atol=1e-3)
    assert not torch.allclose(image, key_frames(pair()[0], frames=frames)[0], atol=1e-3)


def test_gligen_in_windows(pair, key_frames, gligen, windows):
    image, clip = key_frames(*(windows(model) for model in pair()), frames=8, positive=gligen)
    assert torch.allclose(image, clip, atol=1e-3)


def test_gligen_boxes_that_move_are_in_their_frames(backbones, pair, gligen, windows):
    """The host's sampling leaves boxes for each frame out, as GLIGENTextBoxApplyBatchCoords of KJNodes writes them."""
    ((states, values),) = gligen
    _, patcher, ((words, *_),) = values["gligen"]
    boxes = [[(words, 6, 6, i, i)] for i in range(8)]

    def sample(model, kind, boxes):
        positive = [[states, {**values, "gligen": (kind, patcher, boxes)}]]
        return backbones.sample(
            model, latent={"samples": torch.zeros(8, 4, SIZE, SIZE)}, seed=4, steps=1, positive=positive
        )

    image, clip = pair()
    wanted = torch.cat([sample(image, "position", boxes[i])[i : i + 1] for i in range(0, 8, 2)])
    assert (wanted[0] - wanted[3]).abs().mean() > 0.01
    for model in (clip, windows(clip), windows(image)):
        assert torch.allclose(sample(model, "position_batched", boxes)[::2], wanted, atol=1e-3)
    longer = sample(clip, "position_batched", [*boxes, *boxes[:3]])  # the node counts the rows of a noise mask too
    assert torch.allclose(longer[::2], wanted, atol=1e-3)


class LLLitePatch:
    """Hints in the attention of every level, a row for each frame of the call, as Advanced-ControlNet's ControlLLLite."""

    def __init__(self, rows):
        self.rows = rows

    def __call__(self, q, k, v, options):
        assert q.shape[0] == len(self.rows) * len(options["cond_or_uncond"])
        return q + self.rows.repeat(len(options["cond_or_uncond"]), 1)[:, None], k, v


@pytest.mark.parametrize("frames", [5, 8])
def test_hints_of_control_lllite_reach_every_level(pair, key_frames, frames):
    patched = []
    for model in pair():
        model.set_model_attn1_patch(LLLitePatch(torch.linspace(-2, 2, frames)[:, None]))
        patched.append(model)
    image, clip = key_frames(*patched, frames=frames)
    assert torch.allclose(image, clip, atol=1e-3)
    assert not torch.allclose(image, key_frames(pair()[0], frames=frames)[0], atol=1e-2)


def like(rows, h):
    """A row for each of a batch's rows, of its number of axes."""
    return rows.repeat(len(h) // len(rows), 1).reshape(-1, *[1] * (h.ndim - 1))


PLACES = {  # patches that close over a row for each frame and read nothing of what they are told
    "attn1_patch": lambda rows: lambda q, k, v, _: (q + like(rows, q), k, v),
    "attn2_patch": lambda rows: lambda q, k, v, _: (q + like(rows, q), k, v),
    "attn1_output_patch": lambda rows: lambda h, _: h + like(rows, h),
    "attn2_output_patch": lambda rows: lambda h, _: h + like(rows, h),
    "input_block_patch": lambda rows: lambda h, _: h + like(rows, h),
    "output_block_patch": lambda rows: lambda h, skip, _: (h + like(rows, h), skip),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("frames", [5, 8])
def test_patches_that_keep_a_row_for_each_frame_reach_every_level(
    pair, key_frames, windows, hosts_windows, place, frames
):
    """In windows, which they know nothing of either, they are refused by name."""
    models = pair()
    for model in models:
        model.set_model_patch(PLACES[place](torch.linspace(-2, 2, frames)[:, None]), place)
    image, clip = key_frames(*models, frames=frames)
    assert torch.allclose(image, clip, atol=1e-3)
    assert not torch.allclose(image, key_frames(pair()[0], frames=frames)[0], atol=1e-2)
    for model in (*map(windows, models), hosts_windows(models[1])):
        with pytest.raises(ValueError, match="puts frames of the whole clip into each call"):
            key_frames(model, frames=frames)


def test_what_an_earlier_call_left_is_not_refused(pair, key_frames, windows, hosts_windows):
    """A wrapper of an inflated MODEL that remembers: two prompts of a window are as many rows as the clip."""
    from comfy.patcher_extension import WrappersMP

    def remembering(kept):
        def remember(executor, x, *args, **named):
            kept.append(x)
            return executor(x, *args, **named)

        return remember

    for cut in (windows, hosts_windows):
        kept, model = [], pair()[1]
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", remembering(kept))
        assert key_frames(cut(model), frames=8, steps=2)[0].isfinite().all() and len(kept[0]) == 8


def test_patches_of_blocks_are_told_the_rows_of_their_level(backbones, pair, windows):
    """Also after a resize, where no attention of the level ran before."""
    told = []

    def patch(h, options):
        told.append((len(h) // len(options["cond_or_uncond"]), options["ad_params"]["sub_idxs"]))
        return h

    _, model = pair()
    model.set_model_patch(patch, "input_block_patch")
    backbones.sample(model, frames=8, steps=1)
    assert {tuple(rows) for _, rows in told} == {(*range(8),), (0, 2, 4, 6)}
    assert all(count == len(rows) for count, rows in told)
    told.clear()
    backbones.sample(windows(model), frames=8, steps=1)
    assert {(2, 3, 4, 5), (4, 6)} <= {tuple(rows) for _, rows in told}
    assert all(count == len(rows) for count, rows in told)


def test_a_camera_s_video_is_refused_in_windows_by_name(pair, key_frames, windows):
    """The host's Uni3C patch encodes as many frames of it as a call has, from the first on."""
    from comfy_extras.nodes_model_patch import WanUni3CCnetPatch

    model = pair()[0]
    model.set_model_double_block_patch(WanUni3CCnetPatch(None, torch.zeros(29, 8, 8, 3), None, None, 1.0, 1.0, 0.0))
    with pytest.raises(ValueError, match="WanUni3CCnetPatch puts frames of the whole clip"):
        key_frames(windows(model), frames=8)


def test_what_keeps_the_whole_clip_is_refused_in_turns(host, pair, key_frames):
    """A loop of an image model shows it the frames in another order at every step."""
    model, rows = pair()[0], torch.zeros(8, 4, SIZE, SIZE)
    lit = model.clone()
    lit.set_model_unet_function_wrapper(lit_by(rows))
    (guided,) = host.call("SelfAttentionGuidance", model=model, **EXACT["SelfAttentionGuidance"])
    for model, name in ((lit, "lit_by puts frames"), (guided, "Self-Attention Guidance keeps the attention")):
        with pytest.raises(ValueError, match=f"{name}.*in turns"):
            key_frames(host.call("LumiereLoop", model=model)[0], frames=8)


class ReferenceFrames:
    """A wrapper that keeps the whole clip, as Time-to-Move of KJNodes."""

    def __init__(self, clip):
        self.clip = clip

    def __call__(self, executor, x, *args, **kwargs):
        return executor(x + self.clip.repeat(x.shape[0] // len(self.clip), 1, 1, 1), *args, **kwargs)


def lit_by(clip):
    """A function wrapper that closes over the whole clip, as IC-Light's."""

    def unet_wrapper(apply_model, args):
        rows = clip.repeat(len(args["input"]) // len(clip), 1, 1, 1)
        return apply_model(args["input"] + rows, args["timestep"], **args["c"])

    return unet_wrapper


def test_wrappers_that_keep_the_whole_clip_are_refused_in_windows_by_name(pair, key_frames, windows):
    from comfy.patcher_extension import WrappersMP

    rows = torch.zeros(8, 4, SIZE, SIZE)
    lit, kept, late, harmless = (pair()[1] for _ in range(4))
    lit.set_model_unet_function_wrapper(lit_by(rows))
    kept.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", ReferenceFrames(rows))

    def put_in(executor, *args, **kwargs):
        wrappers = executor.class_obj.model_options["transformer_options"]["wrappers"]
        wrappers.setdefault(WrappersMP.APPLY_MODEL, {})["test"] = [ReferenceFrames(rows)]
        return executor(*args, **kwargs)

    late.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "test", put_in)
    harmless.set_model_unet_function_wrapper(lit_by(rows[:1]))
    for model, name in ((lit, "lit_by"), (kept, "ReferenceFrames"), (late, "ReferenceFrames")):
        assert key_frames(model, frames=8)[0].isfinite().all()  # without windows they work
        with pytest.raises(ValueError, match=f"{name} puts frames of the whole clip into each call"):
            key_frames(windows(model), frames=8)
    assert key_frames(windows(harmless), frames=8)[0].isfinite().all()


def test_sound_of_the_whole_clip_is_refused_in_windows(pair, key_frames, windows):
    (model, _) = pair()
    model.model_options["transformer_options"]["audio_embeds"] = torch.zeros(1, 8, 1, 4)
    with pytest.raises(ValueError, match="WanInfiniteTalkToVideo puts the sound"):
        key_frames(windows(model), frames=8)


def test_reference_controlnet_is_refused_where_levels_have_fewer_frames(pair, key_frames):
    image, clip = pair()
    for model in (image, clip):
        model.model_options["transformer_options"]["refcn_present_in_conds"] = True
    assert key_frames(image)[0].isfinite().all()
    with pytest.raises(ValueError, match="Reference ControlNet"):
        key_frames(clip)


class PicturePerFrame:
    """An attention patch with a picture for each frame, which reads `ad_params` as IPAdapter_plus does."""

    def __init__(self, pictures):
        self.pictures = pictures

    def __call__(self, q, k, v, options):
        told = options["ad_params"]
        pictures = self.pictures[: told["full_length"]][told["sub_idxs"]]
        assert len(pictures) * len(options["cond_or_uncond"]) == len(q)
        return q + pictures.repeat(len(options["cond_or_uncond"]), 1)[:, None, :1]


def with_pictures(model, pictures):
    model = model.clone()
    for block, number in (("input", 1), ("input", 4), ("middle", 0), ("output", 0), ("output", 2)):
        model.set_model_attn2_replace(PicturePerFrame(pictures), block, number)
    return model


@pytest.mark.parametrize("length", [None, 4])
def test_a_picture_for_each_frame_reaches_every_level_and_window(host, backbones, pair, length, windows):
    """Frame i of the clip is as the image model makes it with picture i."""
    pictures = torch.linspace(-2, 2, 8)[:, None]
    image, clip = (with_pictures(model, pictures) for model in pair())
    latent = {"samples": torch.zeros(8, 4, SIZE, SIZE)}
    if length:
        image, clip = (windows(model, length) for model in (image, clip))
    else:
        (image,) = host.call(
            "LumiereTemporalMultidiffusion",
            model=image,
            context_length=7,
            context_overlap=6,
            weighting="uniform",
            closed_loop=False,
        )
    wanted, got = (backbones.sample(model, latent=latent, seed=4, steps=1) for model in (image, clip))
    assert torch.allclose(wanted[::2], got[::2], atol=1e-3)
    assert (wanted[0] - wanted[6]).abs().mean() > 0.05
