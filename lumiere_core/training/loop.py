"""The training loop: resumable, interruptible, the same for every phase."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from .log import Board, Log
from .optimizers import make_optimizer
from .options import TrainOptions
from .parallel import Team
from .state import FILE, Ema, load_state, save_state, whole

logger = logging.getLogger("lumiere")
ADVICE = (
    "Resume from the last saved state, or start a new run with a lower --learning-rate; "
    "with --precision bfloat16, try float32."
)


class Phase(Protocol):
    """What is trained. All randomness of a step must come from (options.seed, step)."""

    name: str
    module: nn.Module  # its parameters, and only they, train

    def loss(self, step: int) -> Tensor:
        """Return the scalar loss of batch number `step` (from 0).

        A phase may have `pieces(step)` instead: functions whose losses add up to the batch's, to be followed by a
        backward pass each.
        """

    def samples_per_step(self) -> int:
        """Return how many images (or frames) one step trains on."""

    def export(self, state: dict[str, Tensor], folder: Path, facts: dict[str, str]) -> None:
        """Write the EMA weights for use."""

    def preview(self, folder: Path, step: int) -> None:
        """Write sample pictures; called with the EMA weights in the module."""


class Interrupt:
    """Turns SIGINT and SIGTERM into a flag, so that the state is saved before the process ends."""

    def __init__(self) -> None:
        self.raised = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._set)
            except ValueError:  # not the main thread: the caller stops us otherwise
                pass
        return self

    def _set(self, *_: object) -> None:
        self.raised = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def train(
    phase: Phase,
    options: TrainOptions,
    folder: Path,
    resume: bool = False,
    progress: bool = True,
    on_step: Callable[[int, dict[str, float]], object] | None = None,
) -> int:
    """Run a phase until its steps or minutes are over or it is interrupted; returns the last step.

    Args:
        folder: of the run: state.safetensors, log.jsonl, log.csv, loss.png, samples/, and the weights.
        resume: continue the state in `folder`; its options must be the same but for length and device.
        on_step: called with the number of steps made and the record of the last one; if it returns something true,
            the run ends as if it was interrupted, with everything saved.

    Raises:
        FileExistsError: the folder holds a run and resume is off.
        FloatingPointError: the loss is not finite; the last saved state stays.
    """
    from tqdm import tqdm

    folder = Path(folder)
    if (folder / FILE).exists() and not resume:
        raise FileExistsError(f"{folder} already holds a run. Add --resume to continue it, or choose another --output.")
    optimizer = make_optimizer(phase.module, options)
    ema, step, log = Ema(phase.module, options.ema_decay), 0, Log(folder)
    team = Team.of(phase)
    if resume:
        facts = load_state(folder, phase.module, ema, optimizer)
        if facts["identity"] != options.identity():
            raise ValueError(
                f"the run in {folder} was started with other options: "
                f"{'; '.join(options.differences(json.loads(facts['options'])))}. "
                "Give the same ones, or start a new run with --init-from and another --output."
            )
        step = int(facts["step"])
        log.rewind(step)

    def facts_at(step: int) -> dict[str, str]:
        return {
            "step": str(step),
            "phase": phase.name,
            "identity": options.identity(),
            "options": json.dumps(dataclasses.asdict(options)),
        }

    def save() -> None:
        target = folder if team.first else None
        save_state(target, phase.module, ema, optimizer, facts_at(step))
        if team.first:
            log.write_tables(phase.name)

    board = Board(folder) if team.first else None
    started = saved = time.monotonic()
    deadline = started + 60 * options.minutes if options.minutes is not None else float("inf")
    bar = tqdm(total=options.steps, initial=step, disable=not (progress and team.first), unit="step")
    with Interrupt() as interrupt:
        while step < options.steps and not team.any(interrupt.raised or time.monotonic() >= deadline):
            rate = learning_rate(options, step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, norm = _step(phase, options, optimizer, step, team)
            step += 1
            ema.update(phase.module, step)
            record = {
                "step": step,
                "loss": round(loss, 6),
                "gradient_norm": round(norm, 4),
                "learning_rate": rate,
                "seconds": round(time.monotonic() - started, 2),
            }
            if board is not None:
                log.append(record)
                board.write(record)
            if on_step is not None and on_step(step, record):
                interrupt.raised = True
            bar.update()
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            if team.any(time.monotonic() - saved > options.save_every):
                save()
                saved = time.monotonic()
            if team.draws and options.sample_every > 0 and step % options.sample_every == 0:
                _preview(phase, ema, folder, step)
        bar.close()
        save()
        weights = {k: whole(v) for k, v in ema.values.items()}
        if team.first:
            phase.export(weights, folder, facts_at(step))
            # Who interrupts wants the process to end.
            if team.draws and not interrupt.raised and options.sample_every >= 0:
                _preview(phase, ema, folder, step)
    return step


def learning_rate(options: TrainOptions, step: int) -> float:
    """Return the rate of a step: linear warm-up, constant, then linear to zero after `decay_from`."""
    rate = options.learning_rate * min(1.0, (step + 1) / max(1, options.warmup))
    start = options.decay_from * options.steps
    if step > start:
        rate *= max(0.0, (options.steps - step) / (options.steps - start))
    return rate


def _step(
    phase: Phase, options: TrainOptions, optimizer: torch.optim.Optimizer, step: int, team: Team
) -> tuple[float, float]:
    """Take one step on `accumulate` batches of every process; returns the mean loss and the gradient's norm."""
    optimizer.zero_grad(set_to_none=True)
    pieces = [
        piece
        for turn in range(options.accumulate)
        for piece in _pieces(phase, team.batch_number(step, turn, options.accumulate))
    ]
    autocast = options.precision == "bfloat16"
    losses = []
    for index, piece in enumerate(pieces):
        with team.exchange(last=index + 1 == len(pieces)):
            with torch.autocast(torch.device(options.device).type, torch.bfloat16, enabled=autocast):
                loss = piece() / options.accumulate
            loss.backward()
        losses.append(loss.detach())
    norm = nn.utils.clip_grad_norm_(phase.module.parameters(), options.gradient_clip)
    # Read together, so that a GPU is waited for once a step.
    total, norm = torch.stack([torch.stack(losses).sum(), whole(norm).to(losses[0])]).tolist()
    if not math.isfinite(total):
        raise FloatingPointError(f"the loss is {total} at step {step + 1}. {ADVICE}")
    if not math.isfinite(norm):  # one step with it would ruin every weight
        raise FloatingPointError(f"the gradient's norm is {norm} at step {step + 1}. {ADVICE}")
    optimizer.step()
    return team.mean(total), norm


def step_once(phase: Phase, options: TrainOptions, optimizer: torch.optim.Optimizer, step: int) -> tuple[float, float]:
    """Take step number `step` by itself, at its learning rate; returns the loss and the gradient's norm."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(options, step)
    return _step(phase, options, optimizer, step, Team())


def _pieces(phase: Phase, batch: int) -> list[Callable[[], Tensor]]:
    if hasattr(phase, "pieces"):
        return phase.pieces(batch)
    return [lambda: phase.loss(batch)]


def _preview(phase: Phase, ema: Ema, folder: Path, step: int) -> None:
    """Write samples with the EMA weights; a failure is reported and never ends the run."""
    parameters = dict(phase.module.named_parameters())
    own = {k: v.detach().clone() for k, v in parameters.items()}
    try:
        with torch.no_grad():
            for k, v in ema.values.items():
                parameters[k].copy_(v)
            phase.preview(folder / "samples", step)
    except Exception:
        logger.exception("the samples of step %d failed; training goes on", step)
    finally:
        with torch.no_grad():
            for k, v in own.items():
                parameters[k].copy_(v)
