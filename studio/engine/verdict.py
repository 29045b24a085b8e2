"""Is the difference of base and adapter real, and does it come from the questions? Figures, intervals, one sentence.

An adapter trained on shuffled answers is better than its base at looking like an answer, and only at that. So Better
asks for more than a lower loss: the answers have to follow from the questions (see `link`).
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

RESAMPLES = 2000
FEW = 4  # rows a different answer, from which on the answers count as a list to choose from
FORGOT = -0.01  # of the general score: one point lost is told as forgetting
TENTH = 0.1  # exact matches make the headline from here on; below, the overlap of words says more
UNLINKED = "it learned what answers look like, not which belongs to which question"


def difference(
    base: np.ndarray,
    adapter: np.ndarray,
    weights: np.ndarray,
    rng: np.random.Generator,
    scale: Callable[[Any], Any] = lambda value: value,
) -> dict[str, float]:
    """Return adapter − base of two weighted means over the same rows, by a paired bootstrap: mean, 95 %, p."""
    pick = rng.integers(0, len(weights), (RESAMPLES, len(weights)))
    total = weights[pick].sum(1)
    drawn = scale(adapter[pick].sum(1) / total) - scale(base[pick].sum(1) / total)
    mean = scale(adapter.sum() / weights.sum()) - scale(base.sum() / weights.sum())
    low, high = np.percentile(drawn, [2.5, 97.5])
    # two-sided bootstrap p: twice the share of resamples on the other side of zero, never below 1/RESAMPLES
    p = min(1.0, max(2 * min((drawn <= 0).mean(), (drawn >= 0).mean()), 1 / RESAMPLES))
    return {"mean": float(mean), "low": float(low), "high": float(high), "p": float(p)}


def report(sides: dict[str, Any], seed: int, general: dict[str, Any] | None = None) -> dict[str, Any]:
    """Turn per-row figures of both sides into means, differences with intervals, and a verdict.

    A side has `sums` and `counts` of the loss a row, what it `said` where what was `expected`, and a share an answer
    for each of `scores`. For `link` it has `swapped`: the loss of some answers after their own question and after
    another's, and their tokens; and `labels`: the answers of all rows, where these are a few that repeat.
    """
    base, counts = sides["base"], sides["base"]["counts"]
    summary = {side: _summary(values) for side, values in sides.items()}
    result: dict[str, Any] = {"rows": len(counts), "answers": len(base["said"]), **summary, "difference": {}}
    if "adapter" in sides and len(counts):
        adapter, rng = sides["adapter"], np.random.default_rng(seed)
        found = result["difference"]
        found["loss"] = difference(base["sums"], adapter["sums"], counts, rng)
        found["perplexity"] = difference(base["sums"], adapter["sums"], counts, rng, _perplexity)
        for name, shares in base["scores"].items():
            if len(shares):
                found[name] = difference(shares, adapter["scores"][name], np.ones(len(shares)), rng)
        result["link"] = link(base, adapter, rng)
    if general:
        result["general"] = general
    result["verdict"] = verdict(result)
    return result


def repeats(expected: list[str]) -> bool:
    """Whether the answers are a few that occur again and again, as labels do."""
    return 1 < len(set(expected)) <= len(expected) / FEW


def link(base: dict[str, Any], adapter: dict[str, Any], rng: np.random.Generator) -> dict[str, Any] | None:
    """Return how much the question tells an adapter about the answer, as a difference above zero where it does.

    Each answer has to be likelier after its own question than after another's: by `swap`, in nats a token. Where the
    answers are labels, the base may see that too and training on wrong ones leaves some of it, so it has to be more
    than the base's; or the labels have to be right more often than the commonest would be. None: it cannot be told.
    """
    labels = adapter["labels"]
    found: dict[str, Any] | None = None
    own, other, counts = adapter["swapped"]
    if len(own):
        before = base["swapped"][1] - base["swapped"][0] if labels else np.zeros(len(own))
        found = {"by": "swap"} | difference(before if before.sum() > 0 else 0 * before, other - own, counts, rng)
    right = adapter["scores"]["exact_match"]
    if labels and len(right) and (found is None or found["low"] <= 0):
        common = Counter(labels).most_common(1)[0][0]
        constant = np.array([float(answer == common) for answer in adapter["expected"]])
        found = {"by": "commonest"} | difference(constant, right, np.ones(len(right)), rng)
    return found


def _perplexity(loss: Any) -> Any:
    return np.exp(np.minimum(loss, 50))


def _summary(values: dict[str, Any]) -> dict[str, Any]:
    loss = float(values["sums"].sum() / max(1, values["counts"].sum()))
    shares = {name: float(each.mean()) if len(each) else None for name, each in values["scores"].items()}
    return {"loss": loss, "perplexity": float(_perplexity(loss)), **shares}


def verdict(result: dict[str, Any]) -> str:
    """One plain sentence. Better and Worse need the whole 95 % interval on one side of zero."""
    if not result["difference"]:
        return "Not measured: there is no adapter or there are no held-out rows to compare on."
    word = _word(result["difference"])
    learned = word not in ("Better", "Mixed") or linked(result)
    said = [f"{word if learned else 'Not better'} on yours: {_own(result)}"]
    if not learned:
        said.append(UNLINKED)
    if general := (result.get("general") or {}).get("difference"):
        said.append(f"general {_points(general['score'])}" + (", so it forgot" if forgot(result) else ""))
    return "; ".join(said) + "."


def linked(result: dict[str, Any]) -> bool:
    """Whether the answers follow from the questions, as far as it can be told."""
    return bool((result.get("link") or {"low": 1.0})["low"] > 0)


def forgot(result: dict[str, Any]) -> bool:
    """Whether the adapter clearly lost a point or more on the general set."""
    score = ((result.get("general") or {}).get("difference") or {}).get("score", {"high": 0.0, "mean": 0.0})
    return bool(score["high"] < 0 and score["mean"] <= FORGOT)


def _word(found: dict[str, Any]) -> str:
    lower, raised = found["loss"]["high"] < 0, found["loss"]["low"] > 0
    answers = found.get("token_f1", {"low": 0.0, "high": 0.0})
    closer, farther = answers["low"] > 0, answers["high"] < 0
    if (closer and raised) or (farther and lower):
        return "Mixed"
    if closer or lower:
        return "Better"
    return "Worse" if farther or raised else "Not better"


def _own(result: dict[str, Any]) -> str:
    """Return the headline of the user's own rows: exact answers, else the overlap of words, and the loss."""
    base, adapter, found = result["base"], result["adapter"], result["difference"]
    losses = f"held-out loss {adapter['loss']:.3f} against {base['loss']:.3f}"
    if "token_f1" not in found:
        return losses
    exact = max(base["exact_match"], adapter["exact_match"]) >= TENTH
    name, words = (
        ("exact_match", f"of {result['answers']} answers exactly right") if exact else ("token_f1", "word overlap")
    )
    shares = f"{100 * adapter[name]:.0f} % against {100 * base[name]:.0f} %"
    return f"{shares} {words}, {_points(found[name], 0)}, {losses}"


def _points(found: dict[str, float], digits: int = 1) -> str:
    """Return a difference of shares and half its interval in points: +59 ± 7."""
    mean, half = 100 * found["mean"], 50 * (found["high"] - found["low"])
    sign = "+" if round(mean, digits) > 0 else "−" if round(mean, digits) < 0 else ""
    return f"{sign}{abs(mean):.{digits}f} ± {half:.{digits}f}"
