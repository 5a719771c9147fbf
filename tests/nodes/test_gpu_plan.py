"""The plan `nodes` of tests/gpu on the host of the tests, at small size."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.host
FILE = Path(__file__).resolve().parents[1] / "gpu" / "on_host.py"


@pytest.fixture
def plan():
    spec = importlib.util.spec_from_file_location("lumiere_gpu_nodes", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_random_checkpoint_is_one_that_the_host_knows(host, plan):
    import comfy.model_detection
    import comfy.supported_models
    import torch

    runs = plan.Runs(host, None, "fp16", Path(), small=True)
    with torch.device("meta"):
        state = {k: v.to(torch.float16) for k, v in runs.sd15().state_dict().items()}
    assert isinstance(comfy.model_detection.model_config_from_unet(state, ""), comfy.supported_models.SD15)


def test_a_mode_measures_an_inflated_model_and_the_templates(host, plan, monkeypatch, backbones):
    import folder_paths

    base = Path(folder_paths.base_path)
    ran = []
    demo = SimpleNamespace(WORKFLOWS=Path(__file__).resolve().parents[2] / "workflows" / "api")
    monkeypatch.setattr(plan.Runs, "template", lambda self, name: ran.append(name))
    narrow = backbones("SD15")
    apply = {"model": narrow, "temporal": "untrained", "frames_per_clip": 0}
    monkeypatch.setattr(plan.Runs, "inflated", lambda self: host.call("LumiereApplyTemporal", **apply)[0])
    monkeypatch.setattr(plan.Runs, "text", lambda self: backbones.text(1))
    runs = plan.Runs(host, demo, "fp16", base, small=True)
    figures = list(runs.figures())
    assert [f["name"] for f in figures] == [
        "nodes.fp16.sd15_16_frames.time",
        "nodes.fp16.sd15_80_frames_windows.time",
        "nodes.fp16.template_text_to_video.time",
    ]
    assert all(f["value"] > 0 for f in figures), figures
    assert ran == ["text_to_video"]


def test_what_fails_is_a_figure_with_its_reason(plan, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FILE.parents[1] / "benchmarks"))
    monkeypatch.setitem(plan.MODES, "none", ((), "default"))
    monkeypatch.setattr(plan, "__file__", "no such script.py")
    (figure,) = plan.one_mode("none", tmp_path, True, 60)
    assert figure.value is None and "no such script.py" in figure.note
    sys.modules.pop("figures", None)
