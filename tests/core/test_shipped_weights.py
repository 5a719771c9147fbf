"""The shipped weights draw what two held-out prompts ask for; weights that know nothing do not."""

import json

import pytest
import torch

from lumiere_core.diffusion.generate import Request, generate
from lumiere_core.diffusion.models import load_models
from lumiere_core.evaluation.cases import mini_cases
from lumiere_core.evaluation.clips import mean_levels
from lumiere_core.evaluation.oracle import judge
from lumiere_core.evaluation.stored import NEAR, RESULTS
from lumiere_core.files import JsonLines

CASES = 2
MOTION = "moving"  # of the cases: seen in the path, which a still picture has not


@pytest.fixture(scope="module")
def chosen():
    """The first reporting prompts, in the order of the file, that were right in every attribute when they were stored."""
    stored = JsonLines(RESULTS / "mini.jsonl").read()
    right = [r for r in stored if all(r["right"].values()) and r["motion"].startswith(MOTION)]
    cases = {case.id: case for case in mini_cases("reporting")}
    return [(cases[record["case"]], record) for record in right[:CASES]]


@pytest.fixture(scope="module")
def models():
    return load_models()[0]


def draw(models, case, record):
    height, width = record["size"]
    return generate(
        models,
        Request(
            case.prompt,
            seed=case.seed,
            num_frames=record["frames"],
            height=height,
            width=width,
            steps=record["steps"],
            cfg=record["cfg"],
            guidance_end=record["guidance_end"],
            sampler=record["sampler"],
            scheduler=record["scheduler"],
        ),
    )


def test_held_out_prompts_come_out_as_they_were_stored(chosen, models):
    assert len(chosen) == CASES
    for case, record in chosen:
        frames = draw(models, case, record)
        right = judge(frames, case.scene).right(case.scene)
        assert set(right) == set(record["right"]) and all(right.values()), (case.prompt, right)
        off = max(abs(a - b) for a, b in zip(mean_levels(frames), record["levels"], strict=True))
        assert off < NEAR, (case.prompt, json.dumps(record["levels"]))


def test_temporal_layers_that_learned_nothing_fail_the_same_judge(chosen, models):
    """The image model draws the object all the same; what moves it are the temporal layers."""
    case, record = chosen[0]
    before = {name: value.clone() for name, value in models.temporal.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    try:
        for value in models.temporal.parameters():
            value.copy_(value.flatten()[torch.randperm(value.numel(), generator=generator)].view_as(value))
        right = judge(draw(models, case, record | {"steps": 4}), case.scene).right(case.scene)
    finally:
        models.temporal.load_state_dict(before)
    assert not all(right.values()), right
