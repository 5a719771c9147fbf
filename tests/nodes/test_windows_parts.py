"""What of latents and prompts is cut with the frames: one test for each row of the help page's table."""

import pytest
import torch

pytestmark = pytest.mark.host

NAMES = ("Wan", "LTX", "Hunyuan", "Cosmos", "Mochi")
FRAMES, LENGTH, OVERLAP = 8, 4, 2
SIZE = 4
SOUND = {
    "image_model": "ltxav",
    "caption_channels": 24,
    "audio_cross_attention_dim": 32,
    "audio_attention_head_dim": 16,
    "audio_num_attention_heads": 2,
    "connector_attention_head_dim": 12,
    "connector_num_attention_heads": 2,
    "connector_num_layers": 1,
    "caption_proj_before_connector": False,
}


def prompt(**values):
    """A conditioning of random text states."""
    states = torch.randn(1, 4, 24, generator=torch.Generator().manual_seed(1))
    return [[states, {"attention_mask": torch.ones(1, 4, dtype=torch.long), **values}]]


@pytest.fixture
def ours(host):
    def apply(model, length=LENGTH, **options):
        settings = {"context_length": length, "context_overlap": OVERLAP, "weighting": "uniform", "closed_loop": False}
        return host.call("LumiereTemporalMultidiffusion", model=model, **settings, **options)[0]

    return apply


def hosts(model, anchor=False, retain=""):
    """The MODEL with the host's own windows."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    return ContextWindowsManualNode.execute(
        model, LENGTH, OVERLAP, "standard_static", 1, False, "flat", 2, False, retain, False, retain, anchor
    ).args[0]


def noise(channels, frames=FRAMES, seed=1):
    return torch.randn(1, channels, frames, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def denoised(model, start, positive=None, latent=None, mask=None):
    """One step: the clean estimate of a clip whose noise is `start`."""
    import comfy.sample
    import comfy.samplers

    if getattr(start, "is_nested", False):  # LTX-2 lengthens its text, and the mask would not fit
        positive = [[t, {**v, "attention_mask": None}] for t, v in positive or prompt()]
    positive = positive or prompt()
    latent = torch.zeros_like(start) if latent is None else latent
    sigmas = torch.tensor([0.9, 0.0])
    sampler = comfy.samplers.sampler_object("euler")
    options = {"disable_pbar": True, "seed": 1, "noise_mask": mask}
    return comfy.sample.sample_custom(model, start, 1.0, sampler, sigmas, positive, positive, latent, **options)


@pytest.fixture(scope="module")
def models(video_models):
    return {name: video_models.video_model(name) for name in NAMES}


@pytest.mark.parametrize("anchor", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_latents_are_cut_as_the_host_cuts_them(models, ours, name, anchor):
    """With and without the frame before each window."""
    model, channels = models[name]
    start, text = noise(channels), prompt(**({"pooled_output": torch.ones(1, 24)} if name == "Hunyuan" else {}))
    got = denoised(ours(model, anchor_frame=anchor), start, text)
    assert torch.allclose(got, denoised(hosts(model, anchor), start, text), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(got, denoised(model, start, text), rtol=1e-2, atol=1e-2)


def test_an_area_in_time_is_that_of_the_whole_clip(host, models, ours):
    """A prompt for frames 3 to 6 of 8, in a network that looks at each frame alone: windows must change nothing."""
    from comfy.patcher_extension import WrappersMP

    seen = []

    def alone(executor, x, t, c_concat, c_crossattn, *args, **kwargs):
        seen.append(x.shape[2])
        return x * 0.1 + c_crossattn.mean()

    model = models["Wan"][0].clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "alone", alone)
    part = {"width": 1.0, "height": 1.0, "temporal": 0.5, "x": 0.0, "y": 0.0, "z": 0.375, "strength": 1.0}
    other = [[states * 5 + 3, values] for states, values in prompt()]
    (area,) = host.call("ConditioningSetAreaPercentageVideo", conditioning=other, **part)
    text, start = [*prompt(), *area], noise(16)
    whole = denoised(model, start, text)
    assert set(seen) == {FRAMES, 4}
    seen.clear()
    assert torch.allclose(denoised(ours(model), start, text), whole, atol=1e-5)
    assert sorted(set(seen)) == [1, 3, 4]  # of the part: one of the first window, three of the others
    assert not torch.allclose(whole, denoised(model, start, prompt()), atol=1e-2)


@pytest.fixture(scope="module")
def image_to_video(video_models):
    config = video_models.WAN | {"model_type": "i2v", "in_dim": 36}
    return video_models.random_model("WAN21_I2V", config)


def test_every_window_sees_the_first_frame_of_an_image_to_video_model(image_to_video, ours):
    start = noise(16)
    image = noise(16, seed=2)
    text = prompt(concat_latent_image=image, concat_mask=torch.ones(1, 1, FRAMES, SIZE, SIZE))
    got = denoised(ours(image_to_video, retain_first=True), start, text)
    assert torch.allclose(got, denoised(hosts(image_to_video, True, "0"), start, text), rtol=1e-3, atol=1e-3)
    other = prompt(
        concat_latent_image=image.index_fill(2, torch.tensor([0]), 5.0), concat_mask=text[0][1]["concat_mask"]
    )
    changed = (denoised(ours(image_to_video, retain_first=True), start, other) - got).abs().amax(dim=(0, 1, 3, 4))
    alone = (denoised(ours(image_to_video), start, other) - denoised(ours(image_to_video), start, text)).abs()
    assert changed.min() > 1e-4  # in every frame
    assert alone.amax(dim=(0, 1, 3, 4))[LENGTH:].max() == 0  # without, only the first window knows


def guided(channels=128):
    """(prompt, guide latent): a guide of one frame at latent frame 5, as LTXVAddGuide leaves it."""
    from comfy_extras.nodes_lt import LTXVAddGuide, _append_guide_attention_entry

    guide = noise(channels, 1, seed=3) * 3
    text = LTXVAddGuide.add_keyframe_index(prompt(), 5 * 8, guide, (8, 32, 32))
    text, _ = _append_guide_attention_entry(text, text, SIZE * SIZE, [1, SIZE, SIZE])
    return text, guide


@pytest.mark.parametrize("kind", ["LTX", "LTX-2"])
def test_guides_of_ltx_reach_the_windows_that_hold_their_place(models, audio_video, ours, kind):
    """Frames 6 and 7 are in the last window alone, which must answer as if it were the whole clip."""
    text, guide = guided()
    start = torch.cat([noise(128), guide * 0], dim=2)
    latent = torch.cat([torch.zeros_like(noise(128)), guide], dim=2)
    mask = torch.ones(1, 1, FRAMES + 1, SIZE, SIZE)
    mask[:, :, FRAMES:] = 0
    model = models["LTX"][0]
    if kind == "LTX-2":
        pytest.importorskip("comfy.nested_tensor")
        model = audio_video
        start, latent = with_sound(start), with_sound(latent, 0.0)
    got, plain = (
        denoised(ours(model), s, t, la, m)
        for s, t, la, m in ((start, text, latent, mask), without_guide(start, latent))
    )
    if kind == "LTX-2":
        got, plain = got.unbind()[0], plain.unbind()[0]
    change = (got[:, :, :FRAMES] - plain).abs().amax(dim=(0, 1, 3, 4))
    assert change[4:].min() > 1e-3  # the windows 2 … 5 and 4 … 7 hold frame 5
    assert change[:2].max() < 1e-4  # the window 0 … 3 does not
    assert got.shape[2] == FRAMES + 1


def without_guide(start, latent):
    if hasattr(start, "unbind") and getattr(start, "is_nested", False):
        import comfy.nested_tensor

        cut = [comfy.nested_tensor.NestedTensor([t.unbind()[0][:, :, :FRAMES], t.unbind()[1]]) for t in (start, latent)]
        return cut[0], None, cut[1], None
    return start[:, :, :FRAMES], None, latent[:, :, :FRAMES], None


@pytest.fixture(scope="module")
def audio_video(video_models):
    """MODEL of LTX-2, whose latents are those of frames and of sound, packed."""
    return video_models.random_model("LTXAV", video_models.LTX | SOUND)


def with_sound(video, scale=1.0, frames=16):
    import comfy.nested_tensor

    sound = torch.randn(1, 8, frames, 16, generator=torch.Generator().manual_seed(6)) * scale
    return comfy.nested_tensor.NestedTensor([video, sound])


@pytest.mark.parametrize("anchor", [False, True])
def test_sound_is_cut_with_the_frames(audio_video, ours, anchor):
    start = with_sound(noise(128))
    latent = with_sound(torch.zeros_like(noise(128)), 0.0)
    got, wanted, whole = (
        denoised(model, start, latent=latent).unbind()
        for model in (ours(audio_video, anchor_frame=anchor), hosts(audio_video, anchor), audio_video)
    )
    for mine, theirs, uncut in zip(got, wanted, whole, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(mine, uncut, rtol=1e-2, atol=1e-2)


def test_packed_latents_of_models_that_map_nothing_are_refused(host, ours, audio_video, monkeypatch):
    import comfy.model_base

    monkeypatch.delattr(comfy.model_base.LTXAV, "map_context_window_to_modalities")
    start = with_sound(noise(128))
    with pytest.raises(ValueError, match="LTXAV packs 2 kinds of latents"):
        denoised(ours(audio_video), start, latent=with_sound(torch.zeros_like(noise(128)), 0.0))


@pytest.fixture
def received(backbones):
    """A function (MODEL, prompt) -> what its U-Net gets of each frame: {frame: (first text value, hint value)}."""
    from comfy.patcher_extension import WrappersMP

    def run(model, positive, frames):
        found = {}

        def spy(executor, x, steps, context, y, control, options, **kwargs):
            rows = options.get("ad_params", {}).get("sub_idxs") or range(frames)
            hints = control["middle"][0][:, 0, 0, 0].expand(len(x)).tolist()
            for row, text, hint in zip(rows, context[:, 0, 0].tolist(), hints, strict=False):
                found.setdefault(row, set()).add((text, hint))
            return executor(x, steps, context, y, control, options, **kwargs)

        model = model.clone()
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "spy", spy)
        backbones.sample(model, frames=frames, positive=positive, cfg=1.0, steps=1)
        return found

    return run


@pytest.fixture
def hinted(host):
    """A function (prompt, number of hints) -> the prompt with a ControlNet whose residual is its hint's value."""
    import comfy.controlnet

    class Values(comfy.controlnet.ControlBase):
        """The first value of every hint, as the residual of the middle block."""

        def get_control(self, x, t, cond, chunks, options):
            if self.cond_hint is None:
                self.cond_hint = comfy.controlnet.broadcast_image_to(self.cond_hint_original, len(x), chunks)
            return {"middle": [self.cond_hint[:, :1, :1, :1] * 1e-3], "input": [], "output": []}

        def copy(self):
            made = Values()
            self.copy_to(made)
            return made

        def get_models(self):
            return []

    def apply(positive, count):
        control = Values().set_cond_hint(torch.arange(1.0, count + 1)[:, None, None, None].expand(count, 3, 8, 8))
        return [[text, {**values, "control": control, "control_apply_to_uncond": False}] for text, values in positive]

    return apply


@pytest.mark.parametrize("count", [20, 16, 12, 4, 1])
def test_frame_i_gets_the_same_with_and_without_windows(backbones, ours, received, hinted, count):
    """Too many rows are cut off, too few repeated, before anything is sliced: for text and for hints."""
    text = torch.arange(1.0, count + 1)[:, None, None].expand(count, 77, backbones.WIDTH).clone()
    positive = hinted([[text, {"pooled_output": torch.zeros(1, 1280)}]], count)
    model = backbones("SD15")
    whole, cut = (received(m, positive, 16) for m in (model, ours(model, length=8)))
    assert cut == whole and len(cut) == 16
    assert all(len(values) == 1 for values in cut.values())
    assert {row: next(iter(values))[0] for row, values in cut.items()} == {i: 1.0 + i % count for i in range(16)}


def test_masks_of_conditionings_are_fitted_then_cut(backbones, ours):
    """4 masks for 8 frames: the second window has those of its own frames."""
    torch.manual_seed(0)
    masks = torch.rand(4, 8, 8).round()
    model = backbones("SD15")
    ((states, values),) = backbones.text(1)
    positive = [
        [states, {**values, "mask": masks, "set_area_to_bounds": False, "mask_strength": 1.0}],
        *backbones.text(3),
    ]
    whole, cut = (backbones.sample(m, frames=8, positive=positive, steps=1) for m in (model, ours(model)))
    assert torch.allclose(whole, cut, atol=1e-3, rtol=1e-3)  # an image model answers the same in every window


def test_advanced_controlnet_is_told_the_rows_and_keeps_its_hints(host):
    """It takes hints, weights and masks of a window itself."""
    from types import SimpleNamespace

    cut = host.module("nodes.host.window_cut")
    hints = torch.zeros(20, 3, 8, 8)
    control = SimpleNamespace(
        sub_idxs=None, cond_hint_original=hints, extra_concat_orig=[], previous_controlnet=None, cond_hint=1
    )
    window = SimpleNamespace(numbers=torch.tensor([4, 5, 6]), whole=SimpleNamespace(frames=16, axis=0))
    part = cut.OneWindow._control(window, control, {})
    assert part.sub_idxs == [4, 5, 6] and part.full_latent_length == 16 and part.cond_hint_original is hints
    assert control.sub_idxs is None and control.cond_hint == 1


def test_easycache_keeps_the_answers_of_each_window_apart(host, backbones, ours):
    """It keeps answers by the prompts' identities, which are those of the window: others in each, the same at each step."""
    from comfy.patcher_extension import WrappersMP

    seen = {}

    def spy(executor, *args, **kwargs):
        options = args[-1]
        seen.setdefault(tuple(options["ad_params"]["sub_idxs"]), []).append(tuple(options["uuids"]))
        return executor(*args, **kwargs)

    model = backbones("SD15")
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "spy", spy)
    backbones.sample(ours(model), frames=8, steps=2)
    assert len(seen) == 3 and all(first == second for first, second in seen.values())
    assert len({uuids for (uuids, _) in seen.values()}) == 3
    (cached,) = host.call(
        "EasyCache", model=backbones("SD15"), reuse_threshold=3.0, start_percent=0.0, end_percent=1.0, verbose=False
    )
    skipping = backbones.sample(ours(cached), frames=8, steps=8)
    exact = backbones.sample(ours(backbones("SD15")), frames=8, steps=8)
    assert skipping.isfinite().all() and not torch.allclose(skipping, exact, atol=1e-3)


PARTS = [  # (model class, part of its prompt, shape, axis of the frames, frames of the window 2 … 5 on it)
    ("WAN21_HuMo", "audio_embed", (1, FRAMES, 2, 3), 1, [2, 3, 4, 5]),
    ("WAN21_HuMo", "audio_embed", (1, FRAMES + 1, 2, 3), 1, [2, 3, 4, 5]),  # silence, as WanHuMoImageToVideo makes it
    ("WAN22_S2V", "audio_embed", (1, 2, 3, 4 * FRAMES + 5), 3, [*range(8, 24)]),
    ("WAN22_WanDancer", "audio_embed", (1, 8 * FRAMES, 3), 1, [*range(16, 48)]),
    ("WAN22_WanDancer", "audio_embed", (1, 20, 3), 1, [*range(5, 15)]),
    ("WAN22_S2V", "reference_motion", (1, 4, FRAMES, 2, 2), 2, None),
    ("HunyuanVideo", "guiding_frame_index", (1,), 0, None),
    ("Kandinsky5", "time_dim_replace", (1, 4, 1, 2, 2), 2, None),
    ("WAN21_Vace", "vace_context", (1, 1, 6, FRAMES, 2, 2), 3, [2, 3, 4, 5]),
    ("WAN22_Animate", "pose_latents", (1, 4, FRAMES - 1, 2, 2), 2, [2, 3, 4]),
    ("WAN22_Animate", "face_pixel_values", (1, 3, 4 * (FRAMES - 1), 2, 2), 2, [*range(8, 20)]),
    ("WAN21_SCAIL", "pose_latents", (1, 4, FRAMES, 2, 2), 2, [2, 3, 4, 5]),
    ("WAN21_Camera", "camera_conditions", (1, 6, FRAMES, 2, 2), 2, [2, 3, 4, 5]),
    ("WAN22_S2V", "control_video", (1, 4, FRAMES, 2, 2), 2, [2, 3, 4, 5]),
    ("WAN22", "denoise_mask", (1, 1, FRAMES, 2, 2), 2, [2, 3, 4, 5]),
    ("WAN21_HuMo", "reference_latent", (1, 4, 1, 2, 2), 2, [0]),
    ("WAN21_SCAIL", "reference_latent", (1, 4, FRAMES, 2, 2), 2, [*range(FRAMES)]),  # as many as the clip has frames
    ("WAN21", "time_dim_concat", (1, 4, FRAMES, 2, 2), 2, [*range(FRAMES)]),
    ("WAN21", "c_crossattn", (1, 4, FRAMES), 2, [*range(FRAMES)]),
]


@pytest.mark.parametrize(("kind", "key", "shape", "axis", "frames"), PARTS)
def test_parts_of_prompts_are_cut_for_the_hosts_model_classes(host, kind, key, shape, axis, frames):
    """References and text, which have no frames, stay whole; what a clip begins with is no window's that begins later."""
    import comfy.conds
    import comfy.model_base

    cut = host.module("nodes.host.window_cut")
    kind = getattr(comfy.model_base, kind)
    model = kind.__new__(kind)  # its methods without its network
    torch.nn.Module.__init__(model)
    object.__setattr__(model, "latent_format", type("Format", (), {"temporal_downscale_ratio": 4}))
    whole = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    conds = [[{"model_conds": {key: comfy.conds.CONDRegular(whole)}}]]
    clip = cut.WholeClip(model, conds, torch.zeros(1, 4, FRAMES, 2, 2), 2, OVERLAP)
    ((entry,),) = clip.cut((2, 3, 4, 5), None).conds()
    if frames is None:
        assert key not in entry["model_conds"]
        return
    wanted = whole.index_select(axis, torch.tensor(frames))
    assert torch.equal(entry["model_conds"][key].cond, wanted)


def test_frames_that_a_clip_begins_with(host):
    """They are in windows that see its first frame first; where a loop puts it in the middle they are refused."""
    import comfy.conds

    parts = host.module("nodes.host.window_parts")
    start = comfy.conds.CONDRegular(torch.arange(2.0).reshape(1, 1, 2, 1, 1))
    for numbers, kept in (([0, 1, 2], 2), ([0, 5, 6], 1), ([3, 4, 5], None)):
        got = parts.starts_of("time_dim_replace", start, numbers)
        assert (got and got.cond.shape[2]) == kept
        assert parts.starts_of("guiding_frame_index", start, numbers) is (start if kept else None)
    with pytest.raises(ValueError, match="a loop has no beginning"):
        parts.starts_of("time_dim_replace", start, [6, 7, 0, 1])


def test_poses_of_wan_animate_in_loops_are_refused(host):
    """They are counted from the second frame, for the first is a picture of reference."""
    import comfy.conds
    import comfy.model_base

    cut = host.module("nodes.host.window_cut")
    model = comfy.model_base.WAN22_Animate.__new__(comfy.model_base.WAN22_Animate)
    torch.nn.Module.__init__(model)
    object.__setattr__(model, "latent_format", type("Format", (), {"temporal_downscale_ratio": 4}))
    conds = [[{"model_conds": {"pose_latents": comfy.conds.CONDRegular(torch.zeros(1, 4, FRAMES - 1, 2, 2))}}]]
    clip = cut.WholeClip(model, conds, torch.zeros(1, 4, FRAMES, 2, 2), 2, OVERLAP)
    with pytest.raises(ValueError, match="pose_latents.*a loop has no beginning"):
        clip.cut((6, 7, 0, 1), None).conds()
    assert clip.cut((0, 1, 2, 3), None).conds()[0][0]["model_conds"]["pose_latents"].cond.shape[2] == 3


def test_the_start_image_of_hunyuan_is_the_first_window_s(models, ours):
    """A network that is told of it calls its first frame known (token replacement)."""
    from comfy.patcher_extension import WrappersMP

    told = []

    def spy(executor, x, *args, **kwargs):
        told.append(kwargs.get("guiding_frame_index", args[7] if len(args) > 7 else None) is not None)
        return executor(x, *args, **kwargs)

    model = models["Hunyuan"][0].clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "spy", spy)
    text = prompt(pooled_output=torch.ones(1, 24), guiding_frame_index=0)
    assert denoised(ours(model), noise(16), text).isfinite().all()
    assert told == [True, False, False]


def test_the_start_image_of_kandinsky_is_the_first_window_s(video_models, ours):
    """The network writes it over the first frames that it sees."""
    model = video_models.random_model("Kandinsky5", video_models.KANDINSKY)
    values = {"pooled_output": torch.ones(1, 24), "attention_mask": None}
    plain, begun = prompt(**values), prompt(**values, time_dim_replace=noise(16, 1, seed=4))
    for cut, frames in ((ours(model), slice(LENGTH)), (ours(model, retain_first=True), slice(FRAMES))):
        change = (denoised(cut, noise(16), begun) - denoised(cut, noise(16), plain)).abs().amax(dim=(0, 1, 3, 4))
        assert change[frames].min() > 1e-4 and not change[frames.stop :].any()


def test_sound_of_wan_s2v_is_that_of_a_window_s_frames(video_models, ours):
    """The host gives every window the sound of the first."""
    model = video_models.random_model("WAN22_S2V", video_models.S2V)
    sound = torch.randn(1, 25, 16, 4 * FRAMES, generator=torch.Generator().manual_seed(2))
    later = torch.cat([sound[..., :24], sound[..., 24:] + 3], dim=-1)  # frames 6 and 7
    made = [denoised(ours(model), noise(16), prompt(audio_embed=value)) for value in (sound, later)]
    change = (made[0] - made[1]).abs().amax(dim=(0, 1, 3, 4))
    assert change[:LENGTH].max() == 0 and change[6:].min() > 1e-4


@pytest.mark.parametrize("count", [20, 8, 3, 1])
def test_a_picture_of_reference_for_each_frame(host, count):
    """`reference_latents` are lists; each of a list is fitted to the clip and cut."""
    import comfy.conds
    import comfy.model_base

    cut = host.module("nodes.host.window_cut")
    model = comfy.model_base.Flux.__new__(comfy.model_base.Flux)
    torch.nn.Module.__init__(model)
    object.__setattr__(model, "latent_format", type("Format", (), {"temporal_downscale_ratio": 1}))
    pictures = torch.arange(float(count))[:, None, None, None].expand(count, 4, 2, 2)
    conds = [[{"model_conds": {"ref_latents": comfy.conds.CONDList([pictures, pictures[:1]])}}]]
    clip = cut.WholeClip(model, conds, torch.zeros(FRAMES, 4, 2, 2), 0, OVERLAP)
    ((entry,),) = clip.cut((2, 3, 4, 5), None).conds()
    own, common = entry["model_conds"]["ref_latents"].process_cond(batch_size=4).cond
    assert own[:, 0, 0, 0].tolist() == [i % count for i in (2, 3, 4, 5)] and not common.any()
