"""The training loop: resumable, interruptible, the same for every stage."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ..files import Record
from ..lock import only_writer
from .log import Board, Log
from .optimizers import make_optimizer
from .options import TrainOptions
from .parallel import Team
from .run import Run
from .state import FILE, Ema, load_state, save_state, whole

logger = logging.getLogger("lumiere")
ADVICE = (
    "Resume from the last saved state, or start a new run with a lower --learning-rate; "
    "with --precision bfloat16, try float32."
)


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
    run: Run,
    folder: Path,
    resume: bool = False,
    progress: bool = True,
    on_step: Callable[[int, Record], object] | None = None,
) -> int:
    """Train until a run's steps or minutes are over or it is interrupted; returns the last step.

    Args:
        folder: of the run: state.safetensors, log.jsonl, log.csv, loss.png, samples/, and the weights.
        resume: continue the state in `folder`; stage, data and options must be the same but for length and device.
        on_step: called with the number of steps made and the record of the last one; if it returns something true,
            the run ends as if it was interrupted, with everything saved.

    Raises:
        FileExistsError: the folder holds a run and resume is off.
        ValueError: another process writes there, or the state is of another run; see `load_state`.
        OSError, ValueError: a sample cannot be read; the steps before it are saved.
        FloatingPointError: the loss is not finite; the last saved state stays.
    """
    folder, team = Path(folder), Team.of(run.network)
    with only_writer(folder, f"train {run.name}") if team.first else contextlib.nullcontext():
        return _train(run, folder, team, resume=resume, progress=progress, on_step=on_step)


def _train(
    run: Run, folder: Path, team: Team, resume: bool, progress: bool, on_step: Callable[[int, Record], object] | None
) -> int:
    from tqdm import tqdm

    options = run.options
    if (folder / FILE).exists() and not resume:
        raise FileExistsError(f"{folder} already holds a run. Add --resume to continue it, or choose another --output.")
    optimizer = make_optimizer(run.module, options)
    ema, step, log = Ema(run.module, options.ema_decay), 0, Log(folder)
    if resume:
        step = load_state(
            folder, run.module, ema=ema, optimizer=optimizer, name=run.name, options=options, data=run.data
        )
    if team.first:
        log.rewind(step)

    def facts_at(step: int) -> dict[str, str]:
        return {"step": str(step), "phase": run.name, "options": json.dumps(dataclasses.asdict(options))}

    def save() -> None:
        save_state(
            folder if team.first else None, run.module, ema, optimizer=optimizer, facts=facts_at(step) | run.data
        )
        if team.first:
            log.write_tables(run.name)

    started, worked = time.monotonic(), time.process_time()
    saved = started
    deadline = started + 60 * options.minutes if options.minutes is not None else float("inf")
    bar = tqdm(total=options.steps, initial=step, disable=not (progress and team.first), unit="step")
    with Board(folder if team.first else None) as board, Interrupt() as interrupt:
        while step < options.steps and not team.any(interrupt.raised or time.monotonic() >= deadline):
            rate = learning_rate(options, step)
            try:
                loss, norm = step_once(run, optimizer, step, team)
            except (OSError, ValueError):  # a clip that cannot be read, or no longer is what it was
                if not team.spread:  # where no process has the whole network, saving needs the others
                    save()
                raise
            step += 1
            ema.update(run.module, step)
            record = {
                "step": step,
                "loss": round(loss, 6),
                "gradient_norm": round(norm, 4),
                "learning_rate": rate,
                "seconds": round(time.monotonic() - started, 2),
                "core_seconds": round(time.process_time() - worked, 2),
            }
            if team.first:
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
                _preview(run, ema, folder, step)
        bar.close()
        save()
        weights = {k: whole(v) for k, v in ema.values.items()}
        if team.first:
            run.part.export(weights, folder, facts_at(step) | run.source.facts() | run.facts)
            # Who interrupts wants the process to end.
            if team.draws and not interrupt.raised and options.sample_every >= 0:
                _preview(run, ema, folder, step)
    return step


def learning_rate(options: TrainOptions, step: int) -> float:
    """Return the rate of a step: linear warm-up, constant, then linear to zero after `decay_from`."""
    rate = options.learning_rate * min(1.0, (step + 1) / max(1, options.warmup))
    start = options.decay_from * options.steps
    if step > start:
        rate *= max(0.0, (options.steps - step) / (options.steps - start))
    return rate


def step_once(run: Run, optimizer: torch.optim.Optimizer, step: int, team: Team | None = None) -> tuple[float, float]:
    """Take step number `step` on `accumulate` batches of every process; returns the mean loss and the gradient's norm."""
    options, team = run.options, team or Team()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(options, step)
    optimizer.zero_grad(set_to_none=True)
    turns = range(options.accumulate)
    pieces = [p for turn in turns for p in run.pieces(team.batch_number(step, turn, options.accumulate))]
    pieces = team.in_step(pieces)
    losses = []
    for index, piece in enumerate(pieces):
        with team.exchange(last=index + 1 == len(pieces)):
            with _autocast(options):
                loss = piece() / options.accumulate
            loss.backward()
        losses.append(loss.detach())
    norm = nn.utils.clip_grad_norm_(run.module.parameters(), options.gradient_clip)
    # Read together, so that a GPU is waited for once a step.
    total, norm = torch.stack([torch.stack(losses).sum(), whole(norm).to(losses[0])]).tolist()
    if not math.isfinite(total):
        raise FloatingPointError(f"the loss is {total} at step {step + 1}. {ADVICE}")
    if not math.isfinite(norm):  # one step with it would ruin every weight
        raise FloatingPointError(f"the gradient's norm is {norm} at step {step + 1}. {ADVICE}")
    optimizer.step()
    return team.mean(total), norm


def _autocast(options: TrainOptions) -> torch.autocast:
    """Return the context in which a network is called; see `precision.Lowered`, which leaves it again."""
    return torch.autocast(torch.device(options.device).type, torch.bfloat16, enabled=options.precision == "bfloat16")


def _preview(run: Run, ema: Ema, folder: Path, step: int) -> None:
    """Write samples with the EMA weights; a failure is reported and never ends the run."""
    parameters = dict(run.module.named_parameters())
    own = {k: v.detach().clone() for k, v in parameters.items()}
    try:
        with torch.no_grad():
            for k, v in ema.values.items():
                parameters[k].copy_(v)
            with _autocast(run.options):
                run.preview(folder / "samples", step)
    except Exception:
        logger.exception("the samples of step %d failed; training goes on", step)
    finally:
        with torch.no_grad():
            for k, v in own.items():
                parameters[k].copy_(v)
