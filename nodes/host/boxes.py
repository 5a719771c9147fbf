"""GLIGEN boxes that move: a list of boxes for each frame, as KJNodes' *GLIGENTextBoxApplyBatchCoords* writes them.

The host's own sampling knows one list for all frames and leaves others out without a word. Here the host's GLIGEN gets
a row of objects for each frame, so that they reach every window and level as other per-frame things do.
"""

from __future__ import annotations

from typing import Any

import torch

from .frames import row_numbers, rows_of_call

BATCHED, ONE = "position_batched", "position"


class MovingBoxes:
    """In place of a GLIGEN model's patcher in a conditioning: has what the host asks of it while it samples."""

    def __init__(self, patcher: Any) -> None:
        self.patcher = patcher

    @property
    def model(self) -> MovingBoxes:
        return self

    def set_position(self, shape: torch.Size, boxes: list[list[tuple]], device: torch.device) -> Any:
        """Return the patch of a batch; `boxes` are those of each of its rows. `shape` is (n, c, h, w)."""
        net = self.patcher.model
        rows = [type(net).set_position(_Objects(net), (1, *shape[1:]), row, device) for row in boxes]
        return net._set_position(*(torch.cat(parts) for parts in zip(*rows, strict=True)))


class _Objects:
    """Stands in for a GLIGEN model: gives back what the host's `set_position` makes of boxes."""

    def __init__(self, net: Any) -> None:
        self.max_objs, self.key_dim = net.max_objs, net.key_dim

    def _set_position(self, *objects: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return objects


def moving(gligen: tuple) -> bool:
    """Tell whether the boxes of a conditioning are lists for each frame."""
    return gligen[0] == BATCHED or isinstance(gligen[1], MovingBoxes)


def of_rows(gligen: tuple, rows: list[int], total: int) -> tuple:
    """Return a conditioning's `gligen` for some rows of a batch of `total`, in words that the host knows."""
    if not moving(gligen):
        return gligen
    patcher, lists = gligen[1], gligen[2]
    lists = [lists[number] for number in row_numbers(len(lists), total)]
    return (ONE, patcher if isinstance(patcher, MovingBoxes) else MovingBoxes(patcher), [lists[row] for row in rows])


def for_each_row(executor, model, conds, x_in, timestep, model_options):
    """CALC_COND_BATCH: hand lists of boxes for each frame to the host in its own words."""
    seen = rows_of_call(model_options.get("transformer_options", {}), x_in.shape[0], 0)
    rows = seen.rows.flatten().tolist()

    def entry(values: dict) -> dict:
        found = values.get("gligen")
        return values if found is None else {**values, "gligen": of_rows(found, rows, seen.total)}

    conds = [entries and [entry(values) for values in entries] for entries in conds]
    return executor(model, conds, x_in, timestep, model_options)
