"""What a run comes to: one number, what it means, and one sentence of advice.

The score is the share of the base model's held-out loss that the adapter took away, in percent: of the surprise, in
bits a token, that the held-out answers were to the base model. It is 0 where the 95 % interval of the difference
reaches zero, so a lucky draw of rows earns nothing. It is no school mark: 100 would be to know every answer word for
word, and 20 is much for free text. It is 0 too where the answers do not follow from the questions, as after training
on shuffled ones. It tells runs on the same data apart, not one data set from another. Where there are answers to
compare, the verdict looks at those too, and the advice follows the verdict.
"""

from dataclasses import dataclass, field
from typing import Any

from studio.engine.guard import flat, overfitting, slower
from studio.engine.history import History
from studio.engine.verdict import forgot, linked

STILL_FALLING = 0.99  # of the lowest held-out loss before


@dataclass(frozen=True)
class Closing:
    """`score` is None where nothing was measured; `edit` is the change of settings for the next run."""

    score: int | None
    words: str
    advice: str
    edit: dict[str, Any] = field(default_factory=dict)


def closing(history: History, report: dict[str, Any] | None) -> Closing:
    """Judge a run by its history and the comparison of base and adapter (see evaluate.report)."""
    loss = ((report or {}).get("difference") or {}).get("loss")
    if not report or not loss:
        return Closing(None, "None: there was nothing held out to compare on.", "Hold out a tenth of the rows.")
    base, adapter = report["base"]["loss"], report["adapter"]["loss"]
    better, worse = loss["high"] < 0, loss["low"] > 0
    learned = better and linked(report)
    score = round(100 * (base - adapter) / base) if learned and base else 0
    if learned:
        words = f"{score} of 100: the held-out loss is {score} % below the base model's."
    elif better:
        words = "0 of 100: the answers do not follow from the questions."
    else:
        words = f"0 of 100: the held-out loss is {'above' if worse else 'not clearly below'} the base model's."
    return Closing(score, words, *_advice(history, report, better, worse))


def _advice(history: History, report: dict[str, Any], better: bool, worse: bool) -> tuple[str, dict[str, Any]]:
    """Return what to do next, and its edit: the first that applies."""
    if better and not linked(report):
        return "Look whether each answer stands beside its own question; mixed-up rows or columns look like this.", {}
    if worse:
        return "Train again with a third of the learning rate.", slower(history)
    if report["verdict"].startswith(("Mixed", "Worse")):
        return "Read the answers beside the base model's: they are farther from the expected ones.", {}
    if found := flat(history):
        return found.hint, found.edit
    if found := overfitting(history):
        return "More or more varied examples would help; more passes would not.", found.edit
    if forgot(report):
        words = "It forgot some of what the base knew: train with a third of the learning rate"
        return f"{words}, for fewer passes, with a lower rank, or with general rows mixed in.", slower(history)
    checks = [value for _, value in history.checks]
    if len(checks) > 2 and checks[-1] < STILL_FALLING * min(checks[:-1]):
        return "It was still learning at the end: train longer.", {"train.max_steps": 2 * history.last}
    if not better:
        return "More examples to learn from, or more rows held out, would tell.", {}
    return "Nothing looks wrong: try it in Chat.", {}
