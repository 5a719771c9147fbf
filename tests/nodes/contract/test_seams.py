"""One test for each row of nodes/host/SEAMS.md: what the host does that it promises nowhere."""

import copy
import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytestmark = pytest.mark.host

ROOT = Path(__file__).parents[3]


def test_every_seam_has_its_test():
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "nodes" / "host" / "SEAMS.md").read_text("utf-8"), flags=re.M)
    tests = [name.removeprefix("test_") for name in globals() if name.startswith("test_")]
    assert sorted(rows) == sorted(name for name in tests if name != "every_seam_has_its_test") and rows


def test_unet_forward(host):
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    names = list(inspect.signature(UNetModel._forward).parameters)
    assert names[:7] == ["self", "x", "timesteps", "context", "y", "control", "transformer_options"]
    assert "_forward" in inspect.getsource(UNetModel.forward)


def test_register_schedule(host):
    import comfy.model_sampling

    sampling = comfy.model_sampling.ModelSamplingDiscrete()
    sampling._register_schedule(given_betas=torch.linspace(0.001, 0.02, 50), timesteps=50)
    assert len(sampling.sigmas) == 50 and (sampling.sigmas.diff() > 0).all()


def test_cond_copy(host):
    import comfy.conds

    for kind in (comfy.conds.CONDRegular, comfy.conds.CONDNoiseShape, comfy.conds.CONDCrossAttn):
        made = kind(torch.zeros(4, 2, 3))._copy_with(torch.ones(2, 2, 3))
        assert type(made) is kind and made.cond.shape == (2, 2, 3)
        assert made.process_cond(batch_size=6, area=None).cond.shape[0] == 6
    assert issubclass(comfy.conds.CONDConstant, comfy.conds.CONDRegular)


def test_control_hints(host):
    import comfy.controlnet

    control = comfy.controlnet.ControlBase().set_cond_hint(torch.zeros(8, 3, 8, 8))
    part = copy.copy(control)
    part.cond_hint_original = torch.ones(2, 3, 8, 8)
    assert control.cond_hint_original.shape[0] == 8 and part.cond_hint is None and part.extra_concat is None
    source = inspect.getsource(comfy.controlnet.ControlNet.get_control)
    assert "self.cond_hint is None" in source and "self.cond_hint_original" in source
    assert "extra_concat_orig" in source


def seen_in_run(studio, kind, frames=2, model=None):
    """Arguments and class_obj of the first call of a wrapper in a run."""
    found = []

    def spy(executor, *args, **kwargs):
        found.append((executor.class_obj, args, kwargs))
        return executor(*args, **kwargs)

    model = (model or studio.model).clone()
    model.add_wrapper_with_key(kind, "contract", spy)
    studio.sample(model, frames=frames, steps=1)
    return found[0]


def test_class_obj(studio):
    import comfy.samplers
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.model_base import BaseModel
    from comfy.patcher_extension import WrappersMP

    for kind, cls in (
        (WrappersMP.OUTER_SAMPLE, comfy.samplers.CFGGuider),
        (WrappersMP.APPLY_MODEL, BaseModel),
        (WrappersMP.DIFFUSION_MODEL, UNetModel),
    ):
        assert isinstance(seen_in_run(studio, kind)[0], cls)


def test_current_patcher(studio):
    from comfy.patcher_extension import WrappersMP

    patchers = []

    def spy(executor, *args, **kwargs):
        patchers.append(executor.class_obj.current_patcher)
        return executor(*args, **kwargs)

    model = studio.model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "contract", spy)
    studio.sample(model, frames=2, steps=1)
    assert patchers[0] is model or patchers[0].model is model.model
    assert model.model.current_patcher is None


def test_cached_patcher_init(host, studio):
    function, arguments = studio.model.cached_patcher_init
    again = function(*arguments, disable_dynamic=True)
    assert again.model is not studio.model.model
    import comfy.sd

    assert "cached_patcher_init" in inspect.getsource(comfy.sd.load_checkpoint_guess_config)


def test_layer_handlers(studio):
    from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, forward_timestep_embed

    called = []

    class First(torch.nn.Module):
        pass

    def handler(layer, x, emb, context, options, *rest):
        called.append(type(layer))
        return x

    options = {"patches": {"forward_timestep_embed_patch": [(First, handler), (torch.nn.Module, None)]}}
    x = torch.zeros(1, 2)
    assert forward_timestep_embed([First()], x, None, transformer_options=options) is x
    assert called == [First] and inspect.isclass(ResBlock)


def test_object_patches(studio, backbones):
    import comfy.model_base

    model = backbones("SD15")
    model.add_object_patch("concat_keys", ("mask",))
    assert model.object_patches["concat_keys"] == ("mask",) and model.get_model_object("concat_keys") == ("mask",)
    source = inspect.getsource(comfy.model_base.BaseModel.concat_cond)
    assert "self.concat_keys" in source and "blank_inpaint_image_like" in source


def test_patches(backbones):
    model = backbones("SD15")
    assert not model.patches
    key = "diffusion_model.middle_block.0.in_layers.2.weight"
    model.add_patches({key: ("diff", (torch.zeros(1),))})
    assert list(model.patches) == [key]


def test_guider_state(studio):
    from comfy.patcher_extension import WrappersMP

    guiders = []

    def spy(executor, *args, **kwargs):
        guider = executor.class_obj
        guiders.append(guider)
        guider.conds = {name: [dict(entry) for entry in entries] for name, entries in guider.conds.items()}
        guider.model_options["transformer_options"]["contract"] = True
        return executor(*args, **kwargs)

    model = studio.model.clone()
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "contract", spy)
    studio.sample(model, frames=2, steps=1)
    assert "contract" not in guiders[0].model_options["transformer_options"]
    assert "contract" not in model.model_options["transformer_options"]


def test_folder_table(host):
    import folder_paths

    paths, extensions = folder_paths.folder_names_and_paths["lumiere"]
    assert ".safetensors" in extensions and str(host.base / "models" / "lumiere") in paths


def test_late_patcher(host):
    import comfy.model_patcher

    assert issubclass(comfy.model_patcher.CoreModelPatcher, comfy.model_patcher.ModelPatcher)
    assert callable(comfy.model_patcher.ModelPatcher.is_dynamic)


def test_archive_dtypes(host):
    import comfy.model_management

    layer = torch.nn.Linear(2, 2).half()
    comfy.model_management.archive_model_dtypes(layer)
    layer.load_state_dict({"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, assign=False)
    assert layer.weight.dtype == torch.float16


def test_sampler_function(host):
    import comfy.samplers

    adds = comfy.samplers.sampler_object("euler_ancestral").sampler_function
    adds_none = comfy.samplers.sampler_object("euler").sampler_function
    assert "noise_sampler" in inspect.signature(adds).parameters
    assert "noise_sampler" not in inspect.signature(adds_none).parameters


def test_brownian_names(host):
    import comfy.k_diffusion.sampling as sampling
    import comfy.samplers

    known = host.module("nodes.host.noise").BROWNIAN
    functions = {name: getattr(sampling, f"sample_{name}", None) for name in comfy.samplers.SAMPLER_NAMES}
    found = {
        name.removesuffix("_gpu")
        for name, function in functions.items()
        if function is not None and "BrownianTreeNoiseSampler(" in inspect.getsource(function)
    }
    assert found == set(known)


def test_noise_scaling(host, studio):
    from comfy_extras.nodes_custom_sampler import AddNoise

    assert "noise_scaling" in inspect.getsource(AddNoise.execute)
    assert 'get_model_object("model_sampling")' in inspect.getsource(AddNoise.execute)


def test_window_state(host):
    from comfy.context_windows import IndexListContextWindow

    cut = host.module("nodes.host.window_cut")
    x = torch.arange(8.0).reshape(8, 1, 1, 1)
    model = SimpleNamespace(latent_format=SimpleNamespace(temporal_downscale_ratio=1))
    whole = cut.WholeClip(model, [[{"model_conds": {}}]], x, 0, 2)
    assert [latent.shape for latent in whole.latents] == [x.shape] and not whole.state.is_multimodal
    window = IndexListContextWindow([4, 5], dim=0, total_frames=8)
    window.causal_anchor_index = 0
    assert window.get_tensor(x).flatten().tolist() == [0, 4, 5]


def test_resize_cond(host):
    import comfy.model_base

    names = list(inspect.signature(comfy.model_base.BaseModel.resize_cond_for_context_window).parameters)
    assert names[:6] == ["self", "cond_key", "cond_value", "window", "x_in", "device"]
    source = inspect.getsource(comfy.model_base.LTXAV.resize_cond_for_context_window)
    assert "keyframe_idxs" in source and "super()" not in source
    assert not issubclass(comfy.model_base.LTXAV, comfy.model_base.LTXV)


def test_packed_latents(host):
    import comfy.samplers
    import comfy.utils

    parts = [torch.rand(1, 2, 3, 4, 4), torch.rand(1, 5, 6)]
    packed, shapes = comfy.utils.pack_latents(parts)
    assert packed.ndim == 3 and all(map(torch.equal, comfy.utils.unpack_latents(packed, shapes), parts))
    assert torch.zeros(1).is_nested is False
    assert "latent_shapes" in inspect.signature(comfy.samplers.CFGGuider.outer_sample).parameters


def test_emphasis(host):
    from comfy.sd1_clip import escape_important, token_weights, unescape_important

    assert token_weights("a (b:1.5)", 1.0) == [("a ", 1.0), ("b", 1.5)]
    assert unescape_important(escape_important(r"\(a\)")) == "(a)"


def test_clip_protocol(studio):
    tokens = studio.clip.tokenize("a ball")
    assert list(tokens) == ["lumiere"]
    with torch.no_grad():
        states, pooled = studio.clip.encode_from_tokens(tokens, return_pooled=True)
    assert states.ndim == 3 and pooled.ndim == 2
    skipped = studio.clip.clone()
    skipped.clip_layer(-2)
    with torch.no_grad():
        assert torch.equal(skipped.encode_from_tokens(tokens), states)


def test_pixel_vae(studio):
    samples = torch.rand(2, 3, 8, 8) * 2 - 1
    assert torch.allclose(studio.vae.decode(samples), (samples.movedim(1, -1) + 1) / 2, atol=1e-6)


def test_unet_config(backbones):
    values = backbones("SD15").model.model_config.unet_config
    assert {"in_channels", "model_channels", "channel_mult", "num_res_blocks", "transformer_depth"} <= set(values)


def test_memory_formula(backbones):
    model = backbones("SD15").model
    assert 1.9 < model.memory_required([8, 4, 8, 8]) / model.memory_required([4, 4, 8, 8]) < 2.1


def test_empty_ratio(host, backbones):
    import comfy.sample

    latent = {"samples": torch.zeros(2, 4, 4, 8), "downscale_ratio_spacial": 16}
    fitted = comfy.sample.fix_empty_latent_channels(backbones("SD15"), latent["samples"], 16)
    assert fitted.shape == (2, 4, 8, 16)
    (larger,) = host.call(
        "LatentUpscale", samples=latent, upscale_method="bilinear", width=64, height=64, crop="disabled"
    )
    assert larger["downscale_ratio_spacial"] == 16


def test_sag_name(host, backbones):
    features = host.module("nodes.host.features")
    (model,) = host.call("SelfAttentionGuidance", model=backbones("SD15"), scale=0.5, blur_sigma=2.0)
    assert features.self_attention_guidance(model.model_options["transformer_options"])
    assert not features.self_attention_guidance(backbones("SD15").model_options["transformer_options"])


def test_gligen_patch(host):
    import comfy.gligen
    import comfy.samplers

    assert "middle_patch" in inspect.getsource(comfy.samplers.get_area_and_mult)
    assert "repeat(batch, 1, 1)" in inspect.getsource(comfy.gligen.Gligen.set_position)
    # `boxes` gives it lists for each frame, one frame at a time, and joins what it makes of them.
    source = inspect.getsource(comfy.gligen.Gligen.set_position)
    assert set(re.findall(r"self\.(\w+)", source)) == {"max_objs", "key_dim", "_set_position"}
    assert list(inspect.signature(comfy.gligen.Gligen._set_position).parameters)[1:] == [
        "boxes",
        "masks",
        "positive_embeddings",
    ]


def test_areas_in_time(host):
    """(t, h, w, first frame, top, left) of the whole clip, before windows are cut; a window's are of its own frames."""
    import comfy.samplers

    conds = [{"area": ("percentage", 0.5, 1.0, 1.0, 0.25, 0.0, 0.0)}]
    comfy.samplers.resolve_areas_and_cond_masks_multidim(conds, (8, 4, 4), "cpu")
    assert tuple(conds[0]["area"]) == (4, 4, 4, 2, 0, 0)


def test_sound_of_models(host):
    from comfy.ldm.wan.model import HumoWanModel, WanModel_S2V
    from comfy.ldm.wan.model_wandancer import WanDancerModel

    assert "x.shape[-3] * 4" in inspect.getsource(WanModel_S2V.forward_orig)
    assert "audio_embed[:, :, :, :num_embeds]" in inspect.getsource(WanModel_S2V.forward_orig)
    assert "torch.cat([audio_embed, zero_audio_pad], dim=1)" in inspect.getsource(HumoWanModel.forward_orig)
    assert "interpolate(music_feature" in inspect.getsource(WanDancerModel.forward_orig)


def test_starts_of_clips(host):
    from comfy.ldm.hunyuan_video.model import HunyuanVideo
    from comfy.ldm.kandinsky5.model import Kandinsky5
    from comfy.ldm.wan.model import WanModel_S2V

    assert "(0, frame_tokens, 0)" in inspect.getsource(HunyuanVideo.forward_orig)
    assert ":time_dim_replace.shape[2]] = time_dim_replace" in inspect.getsource(Kandinsky5._forward)
    assert "self.frame_packer(reference_motion" in inspect.getsource(WanModel_S2V.forward_orig)


def test_open_windows(host):
    import comfy.context_windows as windows

    names = {name for key, name in vars(windows.ContextSchedules).items() if key.isupper()}
    assert names == {"standard_static", "standard_uniform", "looped_uniform", "batched"}
    around = {}
    for name in names:
        schedule = windows.get_matching_context_schedule(name)
        fuse = windows.get_matching_fuse_method("flat")
        handler = windows.IndexListContextHandler(schedule, fuse, context_length=4, context_overlap=2, closed_loop=True)
        handler._step = 1
        around[name] = any(w[0] > w[-1] for w in schedule.func(8, handler, {}))
    assert [name for name in names if around[name]] == [windows.ContextSchedules.UNIFORM_LOOPED]


def test_uni3c_name(host):
    from comfy_extras.nodes_model_patch import WanUni3CCnetPatch

    assert "frames = frames[:target_frames]" in inspect.getsource(WanUni3CCnetPatch.encode_render_video)


def test_sound_on_the_model(host):
    from comfy_extras.nodes_wan import WanInfiniteTalkToVideo

    assert 'model_options["transformer_options"]["audio_embeds"]' in inspect.getsource(WanInfiniteTalkToVideo.execute)


def test_layer_options(backbones):
    told = []

    def patch(q, k, v, options):
        told.append(options.get("ad_params"))
        return q

    model = backbones("SD15")
    model.set_model_attn2_replace(patch, "input", 1)
    model.model_options["transformer_options"]["ad_params"] = {"sub_idxs": None}
    backbones.sample(model, frames=1, steps=1)
    assert told[0] == {"sub_idxs": None}


def test_guidance_step(studio):
    import comfy.samplers

    asked = []

    def spy(args):
        asked.append([cond is not None for cond in args["conds"]])
        assert args["model"].model_sampling.percent_to_sigma(1.0) == 0
        return comfy.samplers.calc_cond_batch(
            args["model"], [args["conds"][0], None], args["input"], args["sigma"], args["model_options"]
        )

    model = studio.model.clone()
    model.set_model_sampler_calc_cond_batch_function(spy)
    studio.sample(model, frames=2, steps=1, cfg=2.0)
    assert asked == [[True, True]]


def test_headless_executor(host):
    import execution

    assert callable(execution.PromptExecutor.execute)
    parameters = inspect.signature(execution.PromptExecutor.__init__).parameters
    assert {"cache_type", "cache_args"} <= set(parameters)
    assert "history_result" in inspect.getsource(execution.PromptExecutor)
