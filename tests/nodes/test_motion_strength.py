"""Lumiere Motion Strength and Lumiere Load Motion LoRA on MODELs of both kinds."""

import pytest
import torch

pytestmark = pytest.mark.host

WIDTHS = (32, 32, 64, 64)


@pytest.fixture(params=["lumiere", "motion_module"])
def moved(request, host, public_motion, backbones, write_temporal):
    """(MODEL in SD1.5's layout with trained temporal layers, the same without)."""
    plain, name = backbones("SD15"), f"strength_{request.param}.safetensors"
    if request.param == "lumiere":
        write_temporal(plain, name)
    else:
        from safetensors.torch import save_file

        folder = host.base / "models" / "animatediff_models"
        folder.mkdir(exist_ok=True)
        save_file(public_motion.motion_file(WIDTHS, (1,) * 4, middle=True, frames=32), folder / name)
    (model,) = host.call("LumiereApplyTemporal", model=plain, temporal=name, frames_per_clip=0, beta_schedule="keep")
    model.kind = request.param
    return model, plain


@pytest.fixture
def strength(host):
    def run(model, value, **options):
        return host.call("LumiereMotionStrength", model=model, strength=value, **options)[0]

    return run


def test_nothing_and_all(backbones, moved, strength):
    """0: the image model's pictures, every frame of them. 1: as trained."""
    model, plain = moved
    assert torch.equal(backbones.sample(strength(model, 0.0)), backbones.sample(plain))
    assert torch.equal(backbones.sample(strength(model, 1.0)), backbones.sample(model))
    half = backbones.sample(strength(model, 0.5))
    for other in (plain, model):
        assert (half - backbones.sample(other)).abs().max() > 1e-3


def test_a_mask_keeps_frames_still(backbones, moved, strength):
    """Those frames are the image model's pictures, also where a level has no frame of its own for each."""
    model, plain = moved
    mask = torch.ones(8, 64, 64)
    mask[2:4] = 0
    got, images = backbones.sample(strength(model, 1.0, mask=mask)), backbones.sample(plain)
    changed = (got - images).abs().amax(dim=(1, 2, 3))
    assert changed[2:4].max() < 1e-4 and changed[[0, 1, 4, 5, 6, 7]].min() > 1e-3
    whole = torch.zeros(1, 16, 16)
    assert torch.equal(backbones.sample(strength(model, 1.0, mask=whole)), images)


def test_a_mask_in_space(backbones, moved, strength):
    model, plain = moved
    mask = torch.zeros(1, 8, 8)
    mask[..., :4] = 1
    got, images = (backbones.sample(m, steps=1, cfg=1.0) for m in (strength(model, 1.0, mask=mask), plain))
    assert got.isfinite().all() and (got - images).abs().max() > 1e-3


def test_masks_of_any_shape(backbones, moved, strength):
    """Other nodes give them with two or four axes, or in half precision."""
    mask = torch.zeros(1, 8, 8)
    mask[..., :4] = 1
    wanted = backbones.sample(strength(moved[0], 1.0, mask=mask), steps=1)
    for other in (mask[0], mask[None], mask.half()):
        assert torch.equal(backbones.sample(strength(moved[0], 1.0, mask=other), steps=1), wanted)


def test_a_range_that_ends_before_it_starts_is_refused(moved, strength):
    with pytest.raises(ValueError, match="start_percent is 0.7 and end_percent 0.3"):
        strength(moved[0], 0.5, start_percent=0.7, end_percent=0.3)


def test_a_mask_of_other_frames_is_refused(backbones, moved, strength):
    with pytest.raises(ValueError, match="has 3 frames, and the clip has 8"):
        backbones.sample(strength(moved[0], 1.0, mask=torch.ones(3, 8, 8)))


def test_a_mask_in_windows_follows_the_frames(host, backbones, moved, strength):
    model, plain = moved
    (cut,) = host.call(
        "LumiereTemporalMultidiffusion",
        model=model,
        context_length=8,
        context_overlap=2,
        weighting="uniform",
        closed_loop=False,
    )
    mask = torch.ones(14, 8, 8)
    mask[10] = 0
    got, images = backbones.sample(strength(cut, 1.0, mask=mask), frames=14), backbones.sample(plain, frames=14)
    changed = (got - images).abs().amax(dim=(1, 2, 3))
    assert changed[10] < 1e-4 and changed[[9, 11]].min() > 1e-3


def test_a_part_of_the_sampling(backbones, moved, strength):
    """Before the start and after the end the layers are as trained."""
    model, plain = moved
    run = lambda m: backbones.sample(m, steps=4)  # noqa: E731
    assert torch.equal(run(strength(model, 0.0, start_percent=0.0, end_percent=1.0)), run(plain))
    early, late = run(strength(model, 0.0, end_percent=0.5)), run(strength(model, 0.0, start_percent=0.5))
    for a, b in ((early, late), (early, run(model)), (late, run(model)), (early, run(plain)), (late, run(plain))):
        assert (a - b).abs().max() > 1e-3


def test_levels_and_several_nodes(backbones, moved, strength):
    model, _ = moved
    coarse = backbones.sample(strength(model, 1.0, level_3=0.0))
    assert (coarse - backbones.sample(model)).abs().max() > 1e-3
    assert torch.equal(backbones.sample(strength(strength(model, 0.5), 0.5)), backbones.sample(strength(model, 0.25)))


def test_a_level_that_the_u_net_does_not_have(host, backbones, strength):
    (model,) = host.call("LumiereApplyTemporal", model=backbones("SDXL"), temporal="untrained", frames_per_clip=0)
    with pytest.raises(ValueError, match="level_3 set, but the U-Net of this MODEL has levels 0 to 2 only"):
        strength(model, 1.0, level_3=0.5)


def test_an_image_model_has_no_motion_to_scale(backbones, strength):
    with pytest.raises(ValueError, match="no temporal layers whose strength"):
        strength(backbones("SD15"), 0.5)


# --- motion LoRA ----------------------------------------------------------------------------------------------


@pytest.fixture
def lora(host):
    """Function (MODEL, file name, state, strength) -> the MODEL with that file's changes."""
    from safetensors.torch import save_file

    folder = host.base / "models" / "animatediff_motion_lora"
    folder.mkdir(exist_ok=True)

    def run(model, state, strength=1.0, name="zoom.safetensors"):
        (folder / name).unlink(missing_ok=True)
        if name.endswith(".ckpt"):
            torch.save({"state_dict": state}, folder / name)
        else:
            save_file(state, folder / name)
        return host.call("LumiereLoadMotionLoRA", model=model, lora_name=name, strength=strength)[0]

    return run


def changes(kind, seed=0):
    """A file's tensors for one attention layer of the coarsest level, in the layout of a kind."""
    random = torch.Generator().manual_seed(seed)
    up, down = torch.randn(64, 2, generator=random) * 0.3, torch.randn(2, 64, generator=random) * 0.3
    if kind == "lumiere":
        base = "lumiere_temporal.middle_block.inflation.layers.0.to_v.lora_"
        return (
            {f"{base}up.weight": up, f"{base}down.weight": down},
            "middle_block.inflation.layers.0.to_v.weight",
            up @ down,
        )
    base = (
        "mid_block.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_v_lora."
    )
    return (
        {f"{base}up.weight": up, f"{base}down.weight": down},
        "middle_block.inflation.layers.0.to_v.weight",
        up @ down,
    )


@pytest.mark.parametrize("name", ["zoom.safetensors", "zoom.ckpt"])
def test_its_change_is_added_to_the_weight(host, backbones, clips, moved, lora, name):
    """As if the weights themselves had been changed, with the strength; the MODEL before stays as it is."""
    model, _ = moved
    state, key, delta = changes(model.kind)
    before = backbones.sample(model)
    patched = lora(model, state, 0.7, name)
    weights = clips.temporal_patcher(model).model.state_dict()[key].clone()
    got = backbones.sample(patched)
    assert (got - before).abs().max() > 1e-4
    assert torch.equal(backbones.sample(model), before)
    patcher = clips.temporal_patcher(model)
    with torch.inference_mode():
        patcher.model.get_parameter(key).copy_(weights + 0.7 * delta)
    try:
        assert torch.allclose(backbones.sample(model), got, atol=1e-4)
    finally:
        with torch.inference_mode():
            patcher.model.get_parameter(key).copy_(weights)
    assert torch.allclose(backbones.sample(lora(model, state, 0.0, name)), before, atol=1e-5)


def test_two_add_up_and_the_label_names_them(host, backbones, moved, lora):
    model, _ = moved
    one, two = changes(model.kind, 1)[0], changes(model.kind, 2)[0]
    both = lora(lora(model, one, name="one.safetensors"), two, name="two.safetensors")
    assert (backbones.sample(both) - backbones.sample(lora(model, one))).abs().max() > 1e-4
    hashes = host.module("nodes.host.inflate").inflation_of(both).sha256
    assert {"one.safetensors", "two.safetensors"} <= set(hashes)


def test_another_kind_s_lora_and_an_image_model_are_refused(backbones, moved, lora):
    model, plain = moved
    other = changes("motion_module" if model.kind == "lumiere" else "lumiere")[0]
    wrong = {
        k.replace("mid_block", "down_blocks.0").replace("middle_block", "input_blocks.1"): v for k, v in other.items()
    }
    with pytest.raises(ValueError, match="zoom.safetensors does not fit this MODEL"):
        lora(model, wrong)
    with pytest.raises(ValueError, match="no temporal layers that a motion LoRA could change"):
        lora(plain, changes("lumiere")[0])
