"""Apply Lumiere Temporal Layers with public motion modules: the same answers as a plain reference, and what comes with them."""

import dataclasses
import pickle
import random

import pytest
import torch

pytestmark = pytest.mark.host

WIDTHS = {"SD15": (32, 32, 64, 64), "SDXL": (32, 64, 64)}
FILES = {  # family, options of the file
    "v1": ("SD15", {"frames": 24}),
    "v2": ("SD15", {"frames": 32, "middle": True}),
    "v3": ("SD15", {"frames": 32}),
    "SDXL": ("SDXL", {"frames": 32}),
}


@pytest.fixture
def folder(host):
    path = host.base / "models" / "animatediff_models"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture
def module(public_motion, folder):
    """Function (version) -> (file name, state dict); the file lies in models/animatediff_models."""
    made = {}

    def write(version, name=None):
        family, options = FILES[version]
        widths = WIDTHS[family]
        state = public_motion.motion_file(widths, (1,) * len(widths), **options)
        name = name or f"{version}.ckpt"
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 1}, folder / name)
        made[name] = state
        return name, state

    yield write
    for name in made:
        (folder / name).unlink(missing_ok=True)


@pytest.fixture
def apply(host):
    def run(model, temporal, frames_per_clip=0, **options):
        (result,) = host.call(
            "LumiereApplyTemporal", model=model, temporal=temporal, frames_per_clip=frames_per_clip, **options
        )
        return result

    return run


def referenced(public_motion, model, state, frames, norms="frame"):
    """A clone of an image MODEL whose U-Net is walked layer by layer here, with the file's modules in between."""
    from comfy.ldm.modules.attention import SpatialTransformer
    from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, Upsample
    from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
    from comfy.patcher_extension import WrappersMP

    def place_of(unet):
        """The layer that each module of the file follows."""
        found = {}
        for side, blocks in (("down_blocks", unet.input_blocks[1:]), ("up_blocks", unet.output_blocks)):
            level, number = 0, 0
            for block in blocks:
                if isinstance(block[0], Downsample):
                    level, number = level + 1, 0
                    continue
                anchor = next((m for m in block if isinstance(m, SpatialTransformer)), block[0])
                found[anchor] = f"{side}.{level}.motion_modules.{number}"
                number += 1
                if isinstance(block[-1], Upsample):
                    level, number = level + 1, 0
        found[unet.middle_block[1]] = "mid_block.motion_modules.0"
        return found

    def forward(executor, x, timesteps, context=None, y=None, *_, **__):
        unet = executor.class_obj
        places = place_of(unet)
        emb = unet.time_embed(timestep_embedding(timesteps, unet.model_channels))
        emb = emb if y is None else emb + unet.label_emb(y)

        def run(block, h, size=None):
            for layer in block:
                if isinstance(layer, ResBlock):
                    h = layer(h, emb)
                elif isinstance(layer, SpatialTransformer):
                    h = layer(h, context)
                elif isinstance(layer, Upsample):
                    h = layer(h, output_shape=size)
                else:
                    h = layer(h)
                place = places.get(layer)
                if place and f"{place}.temporal_transformer.norm.weight" in state:
                    h = public_motion.reference(state, place, h, frames, norms != "frame")
            return h

        hooks = []
        if norms == "clip":
            for norm in (m for m in unet.modules() if isinstance(m, torch.nn.GroupNorm)):
                seen = lambda m, i, o: public_motion.clip_norm(i[0], frames, m.weight, m.bias, m.eps)  # noqa: E731
                hooks.append(norm.register_forward_hook(seen))
        h, skips = x, []
        for block in unet.input_blocks:
            h = run(block, h)
            skips.append(h)
        h = run(unet.middle_block, h)
        for block in unet.output_blocks:
            h = torch.cat([h, skips.pop()], dim=1)
            h = run(block, h, skips[-1].shape if skips else None)
        h = unet.out(h)
        for hook in hooks:
            hook.remove()
        return h

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "reference", forward)
    return model


@pytest.mark.parametrize("norms", ["frame", "module", "clip"])
@pytest.mark.parametrize("version", FILES)
def test_the_clip_is_the_reference_s(public_motion, backbones, module, apply, version, norms):
    """Two steps; 1e-4 of the largest value, in float32."""
    name, state = module(version)
    plain = backbones(FILES[version][0])
    ours = apply(plain, name, group_norm=norms)
    theirs = referenced(public_motion, plain, state, 6, norms)
    theirs.add_object_patch("model_sampling", ours.get_model_object("model_sampling"))
    options = {"cfg": 1.0, "latent": {"samples": torch.zeros(6, 4, 4, 4)}}
    got, wanted = backbones.sample(ours, **options), backbones.sample(theirs, **options)
    assert (got - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    still = backbones.sample(plain, **options)
    assert (got - still).abs().amax(dim=(1, 2, 3)).min() > 1e-2  # and every frame moves


@pytest.mark.parametrize(("version", "clip"), [("v1", True), ("v2", False), ("v3", False), ("SDXL", False)])
def test_norms_over_the_clip_where_the_module_was_trained_so(backbones, module, apply, version, clip):
    name, _ = module(version)
    samples = {
        n: backbones.sample(apply(backbones(FILES[version][0]), name, group_norm=n)) for n in ("auto", "frame", "clip")
    }
    assert torch.equal(samples["auto"], samples["clip" if clip else "frame"])
    assert not torch.equal(samples["frame"], samples["clip"])


def test_one_frame_is_the_image_model(backbones, module, apply):
    name, _ = module("v1")
    plain = backbones("SD15")
    moved = apply(plain, name, beta_schedule="keep")
    assert torch.equal(backbones.sample(moved, frames=1), backbones.sample(plain, frames=1))


def test_frames_per_clip_sets_clips_apart(backbones, module, apply):
    name, _ = module("v2")
    latent = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    both = backbones.sample(apply(backbones("SD15"), name, 4), latent={"samples": latent}, denoise=0.5)
    alone = backbones.sample(apply(backbones("SD15"), name), latent={"samples": latent[:4]}, denoise=0.5)
    assert torch.allclose(both[:4], alone, atol=1e-4)


@pytest.mark.parametrize(
    ("version", "first", "last", "root"), [("v3", 0.00085, 0.012, False), ("SDXL", 0.00085, 0.020, True)]
)
def test_noise_levels_of_the_module_s_training(backbones, module, apply, version, first, last, root, caplog):
    """AnimateDiff's betas are linear; SDXL's are linear in their root, to another end."""
    name, _ = module(version)
    plain = backbones(FILES[version][0])
    caplog.set_level("INFO")
    found = apply(plain, name).get_model_object("model_sampling").sigmas
    steps = torch.linspace(0, 1, 1000, dtype=torch.float64)
    betas = (first**0.5 + (last**0.5 - first**0.5) * steps) ** 2 if root else first + (last - first) * steps
    kept = torch.cumprod(1 - betas, dim=0)
    assert torch.allclose(found.double(), ((1 - kept) / kept).sqrt(), rtol=1e-4)
    assert f"beta {first:g} to {last:g}" in caplog.text
    own = plain.get_model_object("model_sampling")
    assert apply(plain, name, beta_schedule="keep").get_model_object("model_sampling") is own


def test_a_sampling_node_before_is_its_user_s_choice(host, backbones, module, apply, log):
    name, _ = module("v3")
    (lcm,) = host.call("ModelSamplingDiscrete", model=backbones("SD15"), sampling="lcm", zsnr=False)
    assert apply(lcm, name).get_model_object("model_sampling") is lcm.get_model_object("model_sampling")
    assert "that of the sampling node before is kept" in log()


def test_longer_clips_in_windows_of_the_trained_length(host, backbones, module, apply):
    """16 frames that overlap by 4; the node after sets others; stretched, all frames are seen at once."""
    name, _ = module("v1")
    windows = host.module("nodes.host.windows")
    model = apply(backbones("SD15"), name)
    assert model.attachments["lumiere_windows"] == windows.Windows(16, 4, "tapered")
    latent = {"samples": torch.zeros(40, 4, 4, 4)}
    (plain,) = host.call(
        "LumiereTemporalMultidiffusion",
        model=apply(backbones("SD15"), name, long_clips="stretch"),
        context_length=16,
        context_overlap=4,
        weighting="tapered",
        closed_loop=False,
    )
    cut = backbones.sample(model, latent=latent)
    assert torch.equal(cut, backbones.sample(plain, latent=latent))
    whole = backbones.sample(apply(backbones("SD15"), name, long_clips="stretch"), latent=latent)
    assert whole.isfinite().all() and not torch.allclose(cut, whole, atol=1e-3)


def test_windows_that_were_set_before_stay(host, backbones, module, apply):
    name, _ = module("v1")
    windows = host.module("nodes.host.windows")
    (cut,) = host.call(
        "LumiereTemporalMultidiffusion",
        model=backbones("SD15"),
        context_length=12,
        context_overlap=2,
        weighting="uniform",
        closed_loop=True,
    )
    assert apply(cut, name).attachments["lumiere_windows"] == windows.Windows(12, 2, "uniform", True)


def test_safetensors_and_hotshot_s_names(public_motion, backbones, module, apply, folder):
    from safetensors.torch import save_file

    name, state = module("SDXL")
    save_file(public_motion.hotshot(state), folder / "hsxl.safetensors")
    model = apply(backbones("SDXL"), "hsxl.safetensors", group_norm="frame")
    same = apply(backbones("SDXL"), name, beta_schedule="keep", long_clips="stretch")
    assert torch.equal(backbones.sample(model), backbones.sample(same))
    assert "model_sampling" not in model.object_patches  # HotshotXL keeps SDXL's


def test_a_file_in_models_lumiere_is_offered_once(host, public_motion, module, folder):
    name, state = module("v3")
    own = host.base / "models" / "lumiere" / name
    own.parent.mkdir(exist_ok=True)
    torch.save(state, own)
    try:
        schema = host.nodes_by_id["LumiereApplyTemporal"].GET_SCHEMA()
        (options,) = (i.options for i in schema.inputs if i.id == "temporal")
        assert options.count(name) == 1
        assert host.module("nodes.host.motion").module_path(name) == own
        loader = host.nodes_by_id["LumiereLoader"].GET_SCHEMA().inputs[0].options
        assert name not in loader  # which reads this pack's files only
    finally:
        own.unlink()


def test_code_in_a_pickle_is_not_run(backbones, apply, folder, tmp_path):
    mark = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (open, (str(mark), "w"))

    (folder / "bad.ckpt").write_bytes(pickle.dumps({"down_blocks.0": Payload()}))
    torch.save({"down_blocks.0.motion_modules.0.norm.weight": Payload()}, folder / "worse.ckpt")
    for name in ("bad.ckpt", "worse.ckpt"):
        with pytest.raises(ValueError, match=f"{name} (holds more than weights|.*cannot be read)"):
            apply(backbones("SD15"), name)
        (folder / name).unlink()
    assert not mark.exists()


@pytest.mark.parametrize("layout", ["archive", "pickle", "safetensors"])
def test_every_damaged_file_is_named(host, module, tmp_path, layout):
    """Cut, flipped and overwritten bytes: tensors, or a sentence with the file's name; never another error."""
    from safetensors.torch import save_file

    _, state = module("v3")
    state = {key: value[:2].clone() for key, value in list(state.items())[:4]}
    path = tmp_path / ("a.safetensors" if layout == "safetensors" else "a.ckpt")
    if layout == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "step": 3}, path, _use_new_zipfile_serialization=layout == "archive")
    read, dice = host.module("nodes.host.motion").read_weights, random.Random(1)
    whole, refused = path.read_bytes(), 0
    assert read(path).keys() == state.keys()
    for number in range(150):
        data = bytearray(whole)
        # What says how the file is built lies at its ends.
        at = dice.choice([dice.randrange(min(400, len(data))), len(data) - 1 - dice.randrange(min(900, len(data)))])
        if number % 3 == 0:
            data = data[:at]
        elif number % 3 == 1:
            data[at] ^= 1 << dice.randrange(8)
        else:
            data[at : at + 8] = dice.randbytes(8)
        path.write_bytes(data)
        try:
            assert all(isinstance(value, torch.Tensor) for value in read(path).values())
        except ValueError as error:
            assert path.name in str(error) and "()" not in str(error)
            refused += 1
    assert refused > 40
    for other in ([1, 2], 7, {"state_dict": None}):
        torch.save(other, tmp_path / "b.ckpt")
        with pytest.raises(ValueError, match="b.ckpt .* cannot be read"):
            read(tmp_path / "b.ckpt")


def test_a_truncated_file_is_named(backbones, module, apply, folder):
    name, _ = module("v1")
    (folder / name).write_bytes((folder / name).read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"v1.ckpt \(5,000 bytes\) cannot be read"):
        apply(backbones("SD15"), name)


def test_two_kinds_on_one_model_are_refused(host, backbones, module, apply, write_temporal):
    plain = backbones("SD15")
    write_temporal(plain, "kind.safetensors")
    name, _ = module("v1")
    with pytest.raises(
        ValueError, match="has Lumiere's temporal layers already .kind.safetensors., and v1.ckpt is a motion"
    ):
        apply(apply(plain, "kind.safetensors"), name)
    with pytest.raises(ValueError, match="has a motion module already"):
        apply(apply(plain, name), "kind.safetensors")
    other = plain.clone()
    other.set_additional_models("ADE", [plain.clone()])
    with pytest.raises(ValueError, match="AnimateDiff-Evolved already"):
        apply(other, name)


def test_saved_and_loaded_again(host, backbones, module, apply):
    """What the weights do not say (noise levels, norms) is kept in the file."""
    name, _ = module("v1")
    model = apply(backbones("SD15"), name)
    host.call("LumiereSaveTemporal", model=model, filename_prefix="motion/saved")
    (file,) = (host.base / "output" / "motion").glob("saved*.safetensors")
    file.rename(host.base / "models" / "lumiere" / "saved.safetensors")
    again = apply(backbones("SD15"), "saved.safetensors")
    inflation = host.module("nodes.host.inflate").inflation_of
    assert inflation(again).training == inflation(model).training
    assert dataclasses.asdict(inflation(again).temporal_config) == dataclasses.asdict(inflation(model).temporal_config)
    latent = {"samples": torch.zeros(20, 4, 4, 4)}
    assert torch.equal(backbones.sample(again, latent=latent), backbones.sample(model, latent=latent))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_near(backbones, module, apply, dtype):
    name, _ = module("v2")
    exact = backbones.sample(apply(backbones("SD15"), name), steps=1, cfg=1.0)
    half = backbones.sample(apply(backbones("SD15", dtype=dtype), name), steps=1, cfg=1.0)
    assert (half - exact).abs().mean() < 0.05 * exact.abs().mean()
