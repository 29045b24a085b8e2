"""The training loop: a step is a few batches, its loss the mean over labelled tokens; each step is told and kept."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studio.domain import events
from studio.domain.config import TrainingConfig
from studio.domain.errors import EngineError
from studio.engine import checkpoints, loss, memory, models
from studio.engine.report import Reporter, Wishes
from studio.engine.rows import Row, Table, pack, packed_batch, padded_batch
from studio.engine.samples import Samples

LONG = 5.0  # seconds a step may still take when a pause is asked for; a longer one is left and done again


class Steps:
    """Item i holds the batches of optimizer step i. Passes are shuffled by the seed alone, any can be rebuilt."""

    def __init__(self, table: Table, per_step: int, size: int, total: int, seed: int, pad: int | None) -> None:
        self.rows, self.per_step, self.size, self.total, self.seed, self.pad = table, per_step, size, total, seed, pad
        self.per_pass = math.ceil(len(table) / per_step)

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, step: int) -> list[dict[str, Any]]:
        turn, index = divmod(step, self.per_pass)
        order = np.random.default_rng((self.seed, turn)).permutation(len(self.rows))
        chosen = order[index * self.per_step : (index + 1) * self.per_step]
        return batches(self.rows[chosen], self.size, self.pad)


def batches(rows: Sequence[Row], size: int, pad: int | None) -> list[dict[str, Any]]:
    """Cut rows into batches of at most `size` tokens: packed, or padded with token `pad` and sorted by length."""
    if pad is None:
        return [packed_batch(group) for group in pack(rows, size)]
    groups: list[list[Row]] = []
    for row in sorted(rows, key=len, reverse=True):
        if groups and len(groups[-1][0]) * (len(groups[-1]) + 1) <= size:
            groups[-1].append(row)
        else:
            groups.append([row])
    return [padded_batch(group, pad) for group in groups]


def loss_of(model: Any, batch: dict[str, Any], device: torch.device, smoothing: float = 0.0) -> torch.Tensor:
    moved = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    return (loss.packed if "lengths" in moved else loss.padded)(model, moved, smoothing)


def labels_in(batch: dict[str, Any]) -> int:
    return int((batch["labels"] != -100).sum())


def rows_in(batch: dict[str, Any]) -> int:
    return len(batch["lengths"]) if "lengths" in batch else len(batch["input_ids"])


def real_tokens(batch: dict[str, Any]) -> int:
    return sum(batch["lengths"]) if "lengths" in batch else int(batch["attention_mask"].sum())


def schedule(kind: str, warmup: float, total: int, step: int) -> float:
    """The share of the learning rate after `step` steps of `total`; the first step of a warm-up already learns."""
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    left = 1 - (step - rising) / max(1, total - rising)
    return {"cosine": 0.5 - 0.5 * math.cos(math.pi * left), "linear": left, "constant": 1.0}[kind]


@dataclass
class State:
    """What a run knows at the end of a step, besides weights and optimizer; a checkpoint holds it as JSON."""

    size: int  # tokens in one forward pass, less after the memory ran out
    step: int = 0
    tokens: int = 0
    train_seconds: float = 0.0
    last_loss: float | None = None
    slower: float = 1.0  # share of the planned learning rate, after the guard lowered it
    checked: int = -1  # the step whose held-out loss was measured last
    best: float | None = None  # held-out loss
    best_step: int = 0
    without_progress: int = 0


class Left(Exception):
    """A step or a check is left in the middle: the run is to pause, and what is left would take too long."""


class Trainer:
    """Trains the weights that ask for a gradient, from the state it is given to the last step."""

    def __init__(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        steps: Steps,
        config: TrainingConfig,
        every: int,
        held: list[dict[str, Any]],
        samples: Samples,
        reporter: Reporter,
        wishes: Wishes,
        keeper: checkpoints.Keeper,
    ) -> None:
        self.model, self.optimizer, self.steps, self.config = model, optimizer, steps, config
        self.every, self.held, self.samples = every, held, samples
        self.reporter, self.wishes, self.keeper = reporter, wishes, keeper
        self.state = State(steps.size)
        self.device = next(model.parameters()).device
        self.weights = [value for value in model.parameters() if value.requires_grad]
        self.saved = time.monotonic()
        self.kept: dict[str, Any] = {}  # the state the newest checkpoint holds
        self.ended = ""  # stopped or paused, when that is how it ended; early when the guard ended it

    def load(self, place: Path) -> None:
        """Go on from a checkpoint: weights, optimizer, random numbers and counts as they were."""
        planned = [group["lr"] for group in self.optimizer.param_groups]
        self.kept = checkpoints.read(place, self.model, self.optimizer)
        self.state = State(**self.kept)
        self.keeper.forget_after(self.state.step)
        self.steps.size = min(self.steps.size, self.state.size)
        for group, rate in zip(self.optimizer.param_groups, planned, strict=True):
            if group.get("planned_lr", rate) != rate:  # the user chose another one
                group["planned_lr"], self.state.slower = rate, 1.0
        self.saved = time.monotonic()

    def run(self) -> None:
        """Train until the last step, or until asked to end."""
        try:
            while not self.ended:
                if self._check_due():
                    self.check()
                if self._save_due():
                    self.save()
                if self.ended or self.state.step >= self.steps.total:
                    return
                if self.wishes.stop():
                    self.ended = "stopped"
                elif self.wishes.pause():
                    raise Left
                else:
                    self._step()
        except Left:
            self.save()
            self.ended = "paused"

    def _step(self) -> None:
        """Make one correction and tell it. If the memory runs out, the step comes again with less at once."""
        state, begin, rng = self.state, time.monotonic(), checkpoints.torch_rng()
        parts = self.steps[state.step]
        try:
            value, norm, rate = self._correct(parts)
        except (Left, RuntimeError, MemoryError) as error:
            self.optimizer.zero_grad()
            checkpoints.set_torch_rng(rng)  # as it was when the step began
            if isinstance(error, Left) or not memory.ran_out(error):
                raise
            self._shrink(parts, error)
            return
        seconds = time.monotonic() - begin
        counted = sum(map(real_tokens, parts))
        state.step += 1
        state.tokens += counted
        state.train_seconds += seconds
        state.last_loss = value
        self.reporter.emit(
            events.Step(
                step=state.step,
                loss=value,
                learning_rate=rate,
                grad_norm=norm,
                tokens=state.tokens,
                tokens_per_second=round(counted / max(seconds, 1e-9), 2),
                memory_bytes=models.memory_bytes(self.device),
            )
        )

    def _shrink(self, parts: list[dict[str, Any]], error: BaseException) -> None:
        """Take half as many tokens at once: the same result in more, smaller pieces."""
        before = self.steps.size
        if max(map(rows_in, parts)) == 1:
            raise EngineError(
                f"The memory is not enough for one example of {max(map(real_tokens, parts)):,} tokens at a time.",
                "Resume with train.recompute on, shorten data.max_length, or choose QLoRA or a smaller model.",
            ) from error
        self.steps.size = self.state.size = before // 2
        memory.give_back(self.device)
        self.reporter.emit(
            events.Warned(
                words=f"The memory was not enough for {before:,} tokens at once; it goes on with {before // 2:,}.",
                hint="The result is the same, a little later.",
                step=self.state.step,
                rule="memory",
                did="acted",
                edit={"train.batch_tokens": before // 2},
            )
        )

    def _correct(self, parts: list[dict[str, Any]]) -> tuple[float, float, float]:
        """One optimizer step over the batches: return its loss, gradient norm and learning rate."""
        train, state = self.config.train, self.state
        self.model.train()
        labelled, begin = sum(map(labels_in, parts)), time.monotonic()
        total = torch.zeros((), device=self.device)
        for done, batch in enumerate(parts):
            if done and (time.monotonic() - begin) / done * (len(parts) - done) > LONG and self.wishes.pause():
                raise Left
            value = loss_of(self.model, batch, self.device, train.label_smoothing) / labelled
            value.backward()
            total += value.detach()
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights, train.max_grad_norm))
        result = float(total)
        if not math.isfinite(result) or not math.isfinite(norm):
            raise EngineError(
                f"The loss is no number any more at step {state.step + 1}.",
                "Start again with a learning rate three times lower.",
            )
        share = schedule(train.schedule, train.warmup, self.steps.total, state.step) * state.slower
        for group in self.optimizer.param_groups:
            group.setdefault("planned_lr", group["lr"])
            group["lr"] = group["planned_lr"] * share
        self.optimizer.step()
        self.optimizer.zero_grad()
        return result, norm, max(group["lr"] for group in self.optimizer.param_groups)

    def _check_due(self) -> bool:
        step = self.state.step
        due = step % self.every == 0 or step == self.steps.total
        return bool(self.held) and due and self.state.checked != step

    def check(self) -> None:
        """Measure the held-out loss, ask the fixed questions; keep a checkpoint of the best."""
        state, step = self.state, self.state.step
        value = self._held_out_loss()
        best = state.best is None or value < state.best
        state.checked = step
        if best:
            state.best, state.best_step, state.without_progress = value, step, 0
        elif step:
            state.without_progress += 1
        self.reporter.emit(events.Evaluated(step=step, loss=value, best=best))
        answers = self.samples.ask(self.model)
        if answers:
            self.reporter.emit(events.Sampled(step=step, answers=answers))
        if best:
            self.save()
        patience = self.config.evaluate.early_stopping
        if patience and state.without_progress >= patience and step < self.steps.total:
            self.ended = "early"
            self.reporter.emit(
                events.Warned(
                    words=f"No progress on the held-out rows since step {state.best_step}; training ends here.",
                    hint=f"The adapter of step {state.best_step} is kept.",
                    step=step,
                )
            )

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        """Mean loss over all labelled tokens of the held-out batches."""
        self.model.eval()
        total = 0.0
        for batch in self.held:
            if self.wishes.pause():
                raise Left
            total += float(loss_of(self.model, batch, self.device))
        return total / max(1, sum(map(labels_in, self.held)))

    def _save_due(self) -> bool:
        plan, state = self.config.checkpoint, self.state
        if not self.kept:
            return True  # whatever comes, there is a state to go back to
        by_step = plan.every_steps and state.step % plan.every_steps == 0
        by_time = time.monotonic() - self.saved > 60 * plan.every_minutes
        return bool(by_step or by_time or self.wishes.save())

    def save(self) -> None:
        """Write a checkpoint of where it is, unless the newest one holds just this."""
        now = asdict(self.state)
        if now == self.kept:
            return
        place = self.keeper.write(self.model, self.optimizer, now)
        self.saved, self.kept = time.monotonic(), now
        path = f"{checkpoints.FOLDER}/{place.name}"
        self.reporter.emit(events.Saved(step=self.state.step, path=path, bytes=self.keeper.bytes))

    def keep_best(self) -> int:
        """Put the best weights back, where checks were made and early stopping is on; return their step."""
        state = self.state
        place = self.keeper.folder / f"step-{state.best_step}"
        if self.config.evaluate.early_stopping and 0 < state.best_step != state.step and not checkpoints.damage(place):
            checkpoints.read(place, self.model)
            return state.best_step
        return state.step
