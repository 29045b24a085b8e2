"""The Trainer that takes our batches: a step is an item, the loss a mean over labelled tokens, each step an event."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import peft
import torch
from transformers import Trainer, TrainerCallback

from studio.domain import events
from studio.domain.config import TrainingConfig
from studio.domain.errors import EngineError
from studio.engine import loss, models, parallel
from studio.engine.report import Reporter
from studio.engine.rows import Row, Table, pack, packed_batch, padded_batch


class Steps(torch.utils.data.Dataset):
    """Item i holds this process's batches of step i. Passes are shuffled by the seed alone, any can be rebuilt."""

    def __init__(self, table: Table, per_step: int, size: int, total: int, seed: int, pad: int | None) -> None:
        self.rows, self.per_step, self.size, self.total, self.seed, self.pad = table, per_step, size, total, seed, pad
        self.per_pass = math.ceil(len(table) / per_step)

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, step: int) -> list[dict[str, Any]]:
        turn, index = divmod(step, self.per_pass)
        order = np.random.default_rng((self.seed, turn)).permutation(len(self.rows))
        chosen = order[index * self.per_step : (index + 1) * self.per_step]
        mine = chosen[parallel.share(self.rows.lengths[chosen])]
        return batches(self.rows[mine], self.size, self.pad)


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


class StudioTrainer(Trainer):
    """Trainer whose item is a whole optimizer step; the loss is the mean over the step's labelled tokens."""

    tokens_seen = 0
    smoothing = 0.0  # of the labels, in training alone
    schedule = ("constant", 0.0)  # kind, and warm-up as a share of the steps

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Like transformers' schedules, but the first step already learns: theirs starts a warm-up at rate 0."""
        if self.lr_scheduler is None:
            kind, share = self.schedule
            rising = round(share * num_training_steps)

            def factor(step: int) -> float:
                if step < rising:
                    return (step + 1) / (rising + 1)
                left = 1 - (step - rising) / max(1, num_training_steps - rising)
                return {"cosine": 0.5 - 0.5 * math.cos(math.pi * left), "linear": left, "constant": 1.0}[kind]

            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)  # type: ignore[arg-type]
        return self.lr_scheduler

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(self.train_dataset, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        model.train()
        labelled, tokens = parallel.total(sum(map(labels_in, inputs)), sum(map(real_tokens, inputs)))
        total = torch.zeros((), device=self.args.device)
        for batch in parallel.even(inputs):
            value = loss_of(model, batch, self.args.device, self.smoothing) / labelled
            self.accelerator.backward(value)
            total += value.detach()
        parallel.add([total, *(value.grad for value in model.parameters() if value.grad is not None)])
        self.tokens_seen += int(tokens)
        return total


def loss_of(model: Any, batch: dict[str, Any], device: torch.device, smoothing: float = 0.0) -> torch.Tensor:
    moved = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    return (loss.packed if "lengths" in moved else loss.padded)(model, moved, smoothing)


def labels_in(batch: dict[str, Any]) -> int:
    return int((batch["labels"] != -100).sum())


def real_tokens(batch: dict[str, Any]) -> int:
    return sum(batch["lengths"]) if "lengths" in batch else int(batch["attention_mask"].sum())


@torch.no_grad()
def held_out_loss(model: Any, parts: list[dict[str, Any]], device: torch.device) -> float:
    """Mean loss over all labelled tokens of the held-out batches."""
    model.eval()
    mine = [parts[i] for i in parallel.share([real_tokens(batch) for batch in parts])]
    (total,) = parallel.total(sum(float(loss_of(model, batch, device)) for batch in parallel.even(mine)))
    return total / max(1, sum(map(labels_in, parts)))


class Tell(TrainerCallback):
    """Turns the Trainer's callbacks into events, checks held-out loss, keeps the best weights, obeys the stop file."""

    def __init__(
        self,
        reporter: Reporter,
        config: TrainingConfig,
        every: int,
        held: list[dict[str, Any]],
        stop: Callable[[], bool],
    ) -> None:
        self.reporter, self.every, self.held, self.stop = reporter, every, held, stop
        self.patience = config.evaluate.early_stopping
        self.trainer: StudioTrainer
        self.stopped = False
        self.step = 0
        self.best, self.best_step = math.inf, 0
        self.best_weights: dict[str, torch.Tensor] = {}
        self.without_progress = 0
        self.step_end = time.monotonic()
        self.counted = 0
        self.train_seconds = 0.0
        self.last_loss = math.nan

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step_end = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "grad_norm" not in (logs or {}):
            return  # the summary at the end
        seconds = time.monotonic() - self.step_end
        self.train_seconds += seconds
        self.step, self.last_loss = state.global_step, float(logs["loss"])
        if not math.isfinite(self.last_loss) or not math.isfinite(logs["grad_norm"]):
            raise EngineError(
                f"The loss is no number any more at step {state.global_step}.",
                "Start again with a learning rate three times lower.",
            )
        self.reporter.emit(
            events.Step(
                step=state.global_step,
                loss=self.last_loss,
                learning_rate=logs["learning_rate"],
                grad_norm=logs["grad_norm"],
                tokens=self.trainer.tokens_seen,
                tokens_per_second=round((self.trainer.tokens_seen - self.counted) / max(seconds, 1e-9), 2),
                memory_bytes=models.memory_bytes(args.device),
            )
        )
        self.counted = self.trainer.tokens_seen
        if self.held and (state.global_step % self.every == 0 or state.global_step == state.max_steps):
            self.check(state.global_step, control)
        self.step_end = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.stop():
            self.stopped = control.should_training_stop = True

    def check(self, step: int, control: Any = None) -> None:
        """Measure the held-out loss; remember the weights if it is the best so far."""
        model = self.trainer.model
        value = held_out_loss(model, self.held, self.trainer.args.device)
        best = value < self.best
        self.reporter.emit(events.Evaluated(step=step, loss=value, best=best))
        if best:
            self.best, self.best_step, self.without_progress = value, step, 0
            self.best_weights = {k: v.clone() for k, v in peft.get_peft_model_state_dict(model).items()} if step else {}
        elif control is not None:
            self.without_progress += 1
            if self.patience and self.without_progress >= self.patience and not control.should_training_stop:
                control.should_training_stop = True
                self.reporter.emit(
                    events.Warned(
                        words=f"No progress on the held-out rows since step {self.best_step}; training ends here.",
                        hint=f"The adapter of step {self.best_step} is kept.",
                    )
                )

    def keep_best(self) -> int:
        """Put the best weights back, where checks were made and early stopping is on; return their step."""
        if self.patience and self.best_weights and self.best_step != self.step:
            peft.set_peft_model_state_dict(self.trainer.model, self.best_weights)
            return self.best_step
        return self.step
