"""The training loop: a step is a few batches, its loss the mean over labelled tokens; each step is told and kept."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from studio.domain import events
from studio.domain.config import TrainingConfig
from studio.domain.errors import EngineError
from studio.engine import checkpoints, loss, memory, models, parallel
from studio.engine.batches import Steps, labels_in, real_tokens, rows_in, schedule
from studio.engine.guard import Decision, Guard
from studio.engine.history import History
from studio.engine.lanes import Lanes
from studio.engine.report import Reporter, Wishes
from studio.engine.samples import Samples

LONG = 5.0  # seconds a step may still take when a pause is asked for; a longer one is left and done again


def loss_of(model: Any, batch: dict[str, Any], device: torch.device, smoothing: float = 0.0) -> torch.Tensor:
    """Summed loss of a batch; the labels of a packed one stay where they are (see `loss.packed`)."""
    here = ("labels",) if "lengths" in batch else ()
    moved = {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) and key not in here else value
        for key, value in batch.items()
    }
    return (loss.packed if "lengths" in moved else loss.padded)(model, moved, smoothing)


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
        self.lanes = Lanes(steps.lanes)
        self.announce: Callable[[int | None], None] = lambda resumed_from: None
        self.guard = Guard(config.guard)
        planned = max(group["lr"] for group in optimizer.param_groups)
        self.history = History(planned, steps.size, config.evaluate.early_stopping)
        self.state = State(steps.size)
        self.device = next(model.parameters()).device
        self.weights = [value for value in model.parameters() if value.requires_grad]
        self.shared = parallel.sharded(model)
        self.saved = time.monotonic()
        self.kept: dict[str, Any] = {}  # the state the newest checkpoint holds
        self.ended = ""  # stopped or paused, when that is how it ended; early when the guard ended it

    def load(self, place: Path) -> None:
        """Go on from a checkpoint: weights, optimizer, random numbers and counts as they were."""
        planned = [group.get("planned_lr", group["lr"]) for group in self.optimizer.param_groups]
        self.kept = checkpoints.read(place, self.model, self.optimizer)
        self.state = State(**self.kept)
        if parallel.leads():
            self.keeper.forget_after(self.state.step)
        self.steps.size = self.state.size = min(self.steps.size, self.state.size)
        for group, rate in zip(self.optimizer.param_groups, planned, strict=True):
            if group.get("planned_lr", rate) != rate:  # the user chose another one
                group["planned_lr"], self.state.slower = rate, 1.0
        self.saved = time.monotonic()
        self._in_force()

    def remember(self, told: Iterable[events.AnyEvent | None]) -> None:
        """Take the history of a resumed run from its events."""
        for event in told:
            if event is not None:
                self.history.follow(event)
            if isinstance(event, events.Warned):
                self.guard.heard(event)
        self.history.back(self.state.step)

    def _in_force(self) -> None:
        """Let the guard know which settings are in force."""
        planned = max(group.get("planned_lr", group["lr"]) for group in self.optimizer.param_groups)
        self.history.learning_rate, self.history.batch_tokens = planned * self.state.slower, self.steps.size

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
            value, norm, rate = self.correct(parts)
        except (Left, RuntimeError, MemoryError) as error:
            self.optimizer.zero_grad()
            checkpoints.set_torch_rng(rng)  # as it was when the step began
            if isinstance(error, Left) or not memory.mendable(error):
                raise
            self._shrink(parts, error)
            return
        seconds = time.monotonic() - begin
        counted = int(parallel.total(sum(map(real_tokens, parts)))[0])
        share = parallel.agree(round(1000 * memory.share_in_use(self.device))) / 1000
        self.history.step(state.step + 1, value, norm, rate, share)
        if not math.isfinite(value) or not math.isfinite(norm):
            self.optimizer.zero_grad()
            self._obey(self.guard.look(self.history))
            if not self.ended and self.history.last > state.step:  # it was only to be told
                raise EngineError(
                    f"The loss is no number any more at step {state.step + 1}.",
                    "Resume with a learning rate three times lower.",
                )
            return
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
        self._obey(self.guard.look(self.history))

    def _obey(self, decisions: list[Decision]) -> None:
        """Tell what the guard saw, and do what is to be done about it."""
        for decision in decisions:
            finding, action = decision.finding, decision.action
            if self.state.step >= self.steps.total:
                action = "tell"  # nothing is left to be done otherwise
            did: Literal["told", "paused", "acted"] = (
                "told" if action == "tell" else "paused" if action == "pause" else "acted"
            )
            self.reporter.emit(
                events.Warned(
                    words=finding.words,
                    hint=finding.hint,
                    step=self.state.step,
                    rule=finding.rule,
                    did=did,
                    edit=finding.edit,
                )
            )
            if action == "shrink":
                self._take(self.steps.size // 2)
            elif action == "end":
                self.ended = "early"
            elif action == "back":
                rate = self.state.slower
                self._back(finding.since)
                self.state.slower = rate / 3
                self._in_force()
                self.announce(self.state.step)
            elif action == "pause":
                if finding.since < self.state.step or finding.rule == "invalid":
                    self._back(finding.since)
                raise Left

    def _back(self, step: int) -> None:
        """Return to the newest checkpoint not after a step, or the oldest there is."""
        there = sorted(self.keeper.steps())
        good = [each for each in there if each <= step] or there[:1]
        with parallel.leader_first():
            self.load(self.keeper.folder / f"step-{good[-1]}")
        self.history.back(self.state.step)

    def _take(self, size: int) -> None:
        """Take so many tokens at once from now on."""
        self.steps.size = self.state.size = size
        self._in_force()
        memory.give_back(self.device)

    def _shrink(self, parts: list[dict[str, Any]], error: BaseException) -> None:
        """Take half as many tokens at once: the same result in more, smaller pieces."""
        before = self.steps.size
        if parallel.agree(max(map(rows_in, parts), default=0)) == 1:
            longest = parallel.agree(max(map(real_tokens, parts), default=0))
            raise EngineError(
                f"The memory is not enough for one example of {longest:,} tokens at a time.",
                "Resume with train.recompute on, shorten data.max_length, or choose QLoRA or a smaller model.",
            ) from error
        self._take(before // 2)
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

    def correct(self, parts: list[dict[str, Any]]) -> tuple[float, float, float]:
        """One optimizer step over the batches: return its loss, gradient norm and learning rate."""
        train, state = self.config.train, self.state
        self.model.train()
        labelled, begin, done = parallel.total(sum(map(labels_in, parts)))[0], time.monotonic(), 0

        def gradients(batch: dict[str, Any]) -> tuple[torch.Tensor, tuple[torch.Tensor | None, ...]]:
            """Loss and gradients of one batch; the latter are added in order, whichever lane was first."""
            if done and (time.monotonic() - begin) / done * (len(parts) - done) > LONG and self._leaves():
                raise Left
            value = loss_of(self.model, batch, self.device, train.label_smoothing) / labelled
            return value.detach(), torch.autograd.grad(value, self.weights, allow_unused=True)

        total = torch.zeros((), device=self.device)
        with memory.together(alone=self.shared):
            for value, its in self.lanes.map(gradients, parallel.even(parts)):
                for weight, gradient in zip(self.weights, its, strict=True):
                    if gradient is not None:
                        weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
                total += value
                done += 1
        parallel.add([total, *(value.grad for value in self.weights if value.grad is not None)])
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights, train.max_grad_norm))
        result = float(total)
        share = schedule(train.schedule, train.warmup, self.steps.total, state.step) * state.slower
        for group in self.optimizer.param_groups:
            group.setdefault("planned_lr", group["lr"])
            group["lr"] = group["planned_lr"] * share
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        if math.isfinite(result) and math.isfinite(norm):  # else the weights stay what they are
            self.optimizer.step()
            self.optimizer.zero_grad()
        return result, norm, rate

    def _check_due(self) -> bool:
        step = self.state.step
        due = step % self.every == 0 or step == self.steps.total
        return bool(self.held) and due and self.state.checked != step

    def check(self) -> None:
        """Measure the held-out loss, ask the fixed questions; keep a checkpoint of the best."""
        state, step = self.state, self.state.step
        value = self.held_out_loss()
        best = state.best is None or value < state.best
        state.checked = step
        if best:
            state.best, state.best_step = value, step
        self.reporter.emit(events.Evaluated(step=step, loss=value, best=best))
        answers = self.samples.ask(self.model)
        if answers:
            self.reporter.emit(events.Sampled(step=step, answers=answers))
        if best:
            self.save()
        self.history.check(step, value)
        self._obey(self.guard.look(self.history))

    def held_out_loss(self) -> float:
        """Mean loss over all labelled tokens of the held-out batches."""
        self.model.eval()
        mine = [self.held[place] for place in parallel.share([real_tokens(batch) for batch in self.held])]

        @torch.no_grad()
        def measured(batch: dict[str, Any]) -> float:
            if self._leaves():
                raise Left
            return float(loss_of(self.model, batch, self.device))

        (total,) = parallel.total(sum(self.lanes.map(measured, parallel.even(mine))))
        return total / max(1, sum(map(labels_in, self.held)))

    def _leaves(self) -> bool:
        """Whether what is being done is left for a pause. Several processes end it: they can leave only together."""
        return parallel.size() == 1 and self.wishes.pause()

    def _save_due(self) -> bool:
        plan, state = self.config.checkpoint, self.state
        if not self.kept:
            return True  # whatever comes, there is a state to go back to
        by_step = plan.every_steps and state.step % plan.every_steps == 0
        by_time = parallel.agree(time.monotonic() - self.saved > 60 * plan.every_minutes)
        return bool(by_step or by_time or self.wishes.save())

    def save(self) -> None:
        """Write a checkpoint of where it is, unless the newest one holds just this."""
        now = asdict(self.state)
        if now == self.kept:
            return
        with parallel.by_leader(checkpoints.NoRoom) as leads:
            if leads:
                place = self.keeper.write(self.model, self.optimizer, now)
                path = f"{checkpoints.FOLDER}/{place.name}"
                self.reporter.emit(events.Saved(step=self.state.step, path=path, bytes=self.keeper.bytes))
        self.saved, self.kept = time.monotonic(), now

    def keep_best(self) -> int:
        """Put the best weights back, where checks were made and early stopping is on; return their step."""
        state = self.state
        place = self.keeper.folder / f"step-{state.best_step}"
        if self.config.evaluate.early_stopping and 0 < state.best_step != state.step and not checkpoints.damage(place):
            checkpoints.read(place, self.model)
            return state.best_step
        return state.step
