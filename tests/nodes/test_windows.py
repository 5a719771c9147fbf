"""Temporal Multidiffusion on MODELs of the host: the same windows for networks, conditions and hints."""

import pytest
import torch

pytestmark = pytest.mark.host

FRAMES = 10


@pytest.fixture(scope="module")
def windows(host):
    return host.module("nodes.host.windows")


@pytest.fixture
def apply(host):
    def call(model, length=4, overlap=2, weighting="uniform", closed_loop=False):
        return host.call(
            "LumiereTemporalMultidiffusion",
            model=model,
            context_length=length,
            context_overlap=overlap,
            weighting=weighting,
            closed_loop=closed_loop,
        )[0]

    return call


@pytest.fixture
def watched():
    """Function (MODEL) -> (clone, list): the list gets (frames, c_concat's first values) of every call."""
    from comfy.patcher_extension import WrappersMP

    def watch(model):
        seen = []

        def spy(executor, x, t, c_concat=None, *args, **kwargs):
            options = args[2] if len(args) > 2 else kwargs.get("transformer_options", {})
            prompts = len(options.get("cond_or_uncond", (0,)))
            first = None if c_concat is None else c_concat[:, 0, 0, 0].tolist()
            seen.append((x.shape[0] // prompts, first))
            return executor(x, t, None, *args, **kwargs)

        model = model.clone()
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "spy", spy)
        return model, seen

    return watch


def test_equal_to_the_host_s_flat_static_windows(host, studio, apply):
    """The host's node with its causal anchor off, flat fusion and the frames on axis 0."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    (stock,) = ContextWindowsManualNode.execute(
        studio.model, 4, 2, "standard_static", 1, False, "flat", 0, False, "", False, "", False
    ).args
    mine = studio.sample(apply(studio.model), frames=FRAMES)
    assert torch.allclose(mine, studio.sample(stock, frames=FRAMES), atol=1e-5)
    assert not torch.allclose(mine, studio.sample(frames=FRAMES), atol=1e-3)


@pytest.mark.parametrize("weighting", ["uniform", "tapered"])
def test_a_window_over_the_whole_clip_changes_nothing(studio, apply, weighting):
    plain = studio.sample(frames=6)
    assert torch.equal(studio.sample(apply(studio.model, 6, 2, weighting), frames=6), plain)
    assert torch.equal(studio.sample(apply(studio.model, 99, 2, weighting), frames=6), plain)


def test_weighting_and_closed_loop_change_the_result(studio, apply):
    results = [
        studio.sample(apply(studio.model, 4, 2, *rest), frames=FRAMES)
        for rest in (("uniform", False), ("tapered", False), ("uniform", True))
    ]
    for i, one in enumerate(results):
        assert not any(torch.allclose(one, other, atol=1e-4) for other in results[:i])


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2m_sde", "uni_pc"])
@pytest.mark.parametrize("node", ["KSampler", "LumiereSampler"])
def test_stock_samplers_run(studio, apply, watched, sampler, node):
    model, seen = watched(apply(studio.model))
    out = studio.sample(model, frames=FRAMES, node=node, sampler_name=sampler, cfg=1.0)
    assert out.isfinite().all() and {frames for frames, _ in seen} == {4}


def test_the_model_is_not_changed_and_windows_are_replaced(studio, apply, watched):
    before = studio.sample(frames=FRAMES)
    twice = apply(apply(studio.model, 4, 2), 5, 1)
    model, seen = watched(twice)
    studio.sample(model, frames=FRAMES)
    assert {frames for frames, _ in seen} == {5}
    assert torch.equal(studio.sample(frames=FRAMES), before)


def test_clips_of_a_batch_have_windows_of_their_own(host, studio, apply):
    model, _, _ = studio.load("tiny.safetensors", frames_per_clip=6)
    both = studio.sample(apply(model), frames=12, node="LumiereSampler", seed=5)
    alone = studio.sample(apply(studio.model), frames=6, node="LumiereSampler", seed=6)
    assert torch.allclose(both[6:], alone, atol=1e-5)


def test_conditions_of_every_frame_are_sliced(studio, apply, watched):
    import node_helpers

    ramp = torch.arange(float(FRAMES)).view(-1, 1, 1, 1).expand(-1, 3, 16, 16).contiguous()
    model, seen = watched(apply(studio.model))
    prompts = [
        node_helpers.conditioning_set_values(c, {"noise_concat": ramp}) for c in (studio.positive, studio.negative)
    ]
    studio.sample(model, frames=FRAMES, steps=1, positive=prompts[0], negative=prompts[1])
    starts = [0, 2, 4, 6]
    assert [first[:4] for _, first in seen] == [[s + i for i in range(4)] for s in starts]


class TinyControl(torch.nn.Module):
    """A ControlNet that notes the hints that it gets."""

    dtype = torch.float32

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.hints = []

    def forward(self, x, hint, timesteps, context, **kwargs):
        self.hints.append((hint[:, 0, 0, 0] * 10).round().int().tolist())
        residual = torch.zeros(x.shape[0], 64, 4, 4)
        return {"input": [None] * 4, "middle": [residual], "output": []}


def test_controlnet_hints_are_sliced(host, studio, apply):
    import comfy.controlnet
    import comfy.model_management as model_management

    network = TinyControl()
    control = comfy.controlnet.ControlNet(
        network, load_device=model_management.get_torch_device(), manual_cast_dtype=None, compression_ratio=1
    )
    hint = (torch.arange(float(FRAMES)) / 10).view(-1, 1, 1, 1).expand(-1, 16, 16, 3)
    positive, negative = host.call(
        "ControlNetApplyAdvanced",
        positive=studio.positive,
        negative=studio.negative,
        control_net=control,
        image=hint,
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
    )
    # The end of the chain is what prompts hold: its hints and those before it are sliced alike.
    positive, negative = host.call(
        "ControlNetApplyAdvanced",
        positive=positive,
        negative=negative,
        control_net=control,
        image=hint,
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
    )
    studio.sample(apply(studio.model), frames=FRAMES, steps=1, positive=positive, negative=negative)
    assert len(network.hints) == 8  # two nets, four windows; both prompts in one call
    for number, hints in enumerate(network.hints):
        start = 2 * (number // 2)
        assert hints == [start + i for i in range(4)] * 2


def accelerator_error():
    error = torch.AcceleratorError("CUDA error")
    error.error_code = 2  # cudaErrorMemoryAllocation
    return error


OUT_OF_MEMORY = {
    "CUDA": lambda: torch.OutOfMemoryError("CUDA out of memory"),
    "another call of CUDA": accelerator_error,
    "MPS": lambda: RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"),
    "CPU": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"),
}


@pytest.mark.parametrize(
    ("fits", "kind"), [(4, "CUDA"), (2, "CUDA"), (1, "CUDA"), (4, "another call of CUDA"), (4, "MPS"), (4, "CPU")]
)
def test_out_of_memory_halves_the_windows_and_goes_on(studio, apply, watched, log, fits, kind):
    from comfy.patcher_extension import WrappersMP

    model, seen = watched(apply(studio.model, 8, 2))

    def small_memory(executor, x, *args, **kwargs):
        if x.shape[0] > fits:
            raise OUT_OF_MEMORY[kind]()
        return executor(x, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "small", small_memory)
    out = studio.sample(model, frames=FRAMES, cfg=1.0)
    assert out.isfinite().all() and seen[-1][0] == fits
    assert f"out of memory with windows of 8 frames; going on with {8 // 2}" in log()
    assert log().count("out of memory") == {4: 1, 2: 2, 1: 3}[fits]  # once a run, not once a step


@pytest.mark.parametrize(
    ("raised", "reported"),
    [
        ("[enforce fail] DefaultCPUAllocator: not enough memory", "windows of one frame"),
        ("something else", "something else"),
    ],
)
def test_memory_that_is_never_enough_and_other_errors_pass(studio, apply, raised, reported):
    from comfy.patcher_extension import WrappersMP

    model = apply(studio.model, 4, 2)

    def failing(executor, *args, **kwargs):
        raise RuntimeError(raised)

    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "failing", failing)
    with pytest.raises(RuntimeError, match=reported):
        studio.sample(model, frames=FRAMES)


def test_the_host_is_asked_for_the_memory_of_a_window(studio, apply, windows):
    from comfy.patcher_extension import WrappersMP

    asked = []

    def note(executor, model, shape, conds, **kwargs):
        asked.append(shape[0])
        return executor(model, shape, conds, **kwargs)

    model = apply(studio.model, 4, 2)
    model.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, "zz", note)
    studio.sample(model, frames=12)
    assert asked and asked[0] <= 5  # the temporal layers' share on top
    shape = torch.Size((40, 3, 16, 16))
    short, long = (windows.predicted_peak(model, shape, [length, *shape[1:]]) for length in (4, 8))
    assert long["one window"] == 2 * short["one window"]
    assert short["clip"] == long["clip"] == windows.CLIP_COPIES * 4 * shape.numel()


@pytest.mark.parametrize(("length", "overlap"), [(4, 4), (4, 9), (1, 1)])
def test_an_overlap_that_is_no_overlap_is_refused(apply, studio, length, overlap):
    with pytest.raises(ValueError, match=f"context_overlap is {overlap} frames with windows of"):
        apply(studio.model, length, overlap)


def test_a_model_that_does_not_mix_frames_gains_nothing(studio, apply, clips):
    """What the help page says: the answers of all windows are the same, so is their mean."""
    still, _, _ = studio.load("tiny.safetensors")
    for kind in list(still.wrappers):
        still.remove_wrappers_with_key(kind, clips.KEY)
    still.remove_additional_models(clips.KEY)
    cut, whole = (studio.sample(m, frames=FRAMES, cfg=1.0) for m in (apply(still), still))
    assert torch.allclose(cut, whole, atol=1e-4)  # kernels depend on the batch size


def test_the_bar_moves_with_every_window(studio, apply, monkeypatch):
    """Between the sampler's own reports, in parts of a step."""
    import comfy.utils

    shown = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *rest, **more: shown.append((value, total))
    )
    for limit in ("PROGRESS_THROTTLE_MIN_INTERVAL", "PROGRESS_THROTTLE_MIN_PERCENT"):
        monkeypatch.setattr(comfy.utils, limit, 0)
    studio.sample(apply(studio.model, 4, 2), frames=FRAMES, steps=2)
    assert list(dict.fromkeys(shown)) == [(i / 4, 2) for i in range(1, 9)]
