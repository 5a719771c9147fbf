"""Configurations: JSON round trips, and messages about values that make no network."""

import dataclasses
import json

import pytest

from lumiere_core.nets.config import SSRConfig, TemporalConfig, TextConfig, UNetConfig


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(),
        UNetConfig(patch_size=4, num_heads=8, num_head_channels=-1, adm_in_channels=16),
        UNetConfig(in_channels=6, num_classes=1000, text_only_levels=(0, 1)),
        TemporalConfig(stride=4, depth=1),
        TextConfig(width=64),
    ],
)
def test_json_round_trip(config):
    again = type(config).from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config and hash(again) == hash(config)  # lists came back as tuples


@pytest.mark.parametrize("kind", [UNetConfig, TemporalConfig, TextConfig])
def test_unknown_names_are_refused(kind):
    with pytest.raises(ValueError, match=rf"{kind.__name__} does not know \['wings'\].*newer version"):
        kind.from_dict({"wings": 2})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_res_blocks": (1, 1)}, "num_res_blocks has 2 entries, channel_mult has 3"),
        ({"transformer_depth": (0, 1)}, "transformer_depth has 2 entries, wanted .* 3 encoder"),
        ({"transformer_depth_output": (0, 1)}, "transformer_depth_output has 2 entries, wanted 6"),
        ({"model_channels": 48}, "model_channels is 48; .* multiple of 32"),
        ({"num_heads": 8}, "exactly one of num_heads and num_head_channels"),
        ({"num_head_channels": -1}, "exactly one of num_heads and num_head_channels"),
        ({"num_classes": 10, "adm_in_channels": 16}, "num_classes is 10 and adm_in_channels 16"),
        ({"text_only_levels": (0, 3)}, "levels from 0 to 2 are wanted"),
    ],
)
def test_image_configurations_that_make_no_network(changes, message):
    with pytest.raises(ValueError, match=message):
        UNetConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temporal_kernel": 4}, "odd, got spatial 3, temporal 4"),
        ({"spatial_kernel": 2}, "odd, got spatial 2, temporal 3"),
        ({"stride": 3}, "stride is 3"),
        ({"shared_noise": 1.0}, "at least 0 and less than 1"),
        ({"coordinates": True}, "condition_channels is 0; give it a width"),
    ],
)
def test_temporal_configurations_that_make_no_network(changes, message):
    with pytest.raises(ValueError, match=message):
        TemporalConfig(**changes)


def test_heads():
    assert UNetConfig(num_head_channels=64).heads(320) == (5, 64)
    assert UNetConfig(num_heads=8, num_head_channels=-1).heads(320) == (8, 40)


def test_files_of_earlier_versions_are_written_as_before():
    """A cache is refused when its backbone's configuration differs, so a new field must not show while it is unused."""
    assert not {"num_classes", "text_only_levels"} & UNetConfig().to_dict().keys()
    assert UNetConfig(num_classes=5).to_dict()["num_classes"] == 5


def test_the_host_is_told_the_patched_channels():
    kwargs = UNetConfig(patch_size=4, adm_in_channels=16).host_kwargs()
    assert kwargs["in_channels"] == kwargs["out_channels"] == 48
    assert (kwargs["num_classes"], kwargs["adm_in_channels"]) == ("sequential", 16)
    assert UNetConfig().host_kwargs()["num_classes"] is None


# ---- damaged files


@pytest.mark.parametrize("kind", [UNetConfig, TemporalConfig, TextConfig, SSRConfig])
def test_every_value_has_its_type_and_its_limits(kind):
    """Whatever a damaged file holds: a configuration, or a ValueError that names the field."""
    damaged = [None, True, 0, -1, 1.5, 1e9, 10**30, 10**400, float("nan"), "x", [], [0], [10**6] * 3, {}]
    for name in (field.name for field in dataclasses.fields(kind)):
        accepted = []
        for value in damaged:
            try:
                kind.from_dict({name: value})
                accepted.append(value)
            except ValueError as error:
                assert name in str(error) or "entries" in str(error)
        assert not {"x", 10**30} & {v for v in accepted if isinstance(v, (str, int))}, name
    for values in ([], None, "x"):
        with pytest.raises(ValueError, match="is read from names and values"):
            kind.from_dict(values)
