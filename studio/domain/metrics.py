"""The measures of a comparison of base and adapter, and how each is told."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from studio.domain.words import percent, signed


@dataclass(frozen=True)
class Metric:
    """One measure. A `share` of 1 is shown in percent, and higher is better; of the others, lower."""

    name: str
    share: bool = False
    digits: int = 0

    @property
    def good(self) -> str:
        """Which way is better, in words."""
        return "higher is better" if self.share else "lower is better"

    def value(self, value: float) -> str:
        """Return a value in words: 62 %, 1.234."""
        return percent(value, self.digits) if self.share else f"{value:,.{self.digits}f}"

    def change(self, found: Mapping[str, float]) -> tuple[str, str]:
        """Return a difference and its interval in words: +14 points, +11 to +17; no interval where it has none."""
        scale = 100 if self.share else 1
        if "low" not in found:
            return signed(found["mean"] * scale, self.digits), ""
        mean, low, high = (signed(found[name] * scale, self.digits) for name in ("mean", "low", "high"))
        return f"{mean} points" if self.share else mean, f"{low} to {high}"

    def tone(self, found: Mapping[str, float]) -> str:
        """Return good or bad when the whole interval lies on one side of zero."""
        if found["low"] > 0:
            return "good" if self.share else "bad"
        if found["high"] < 0:
            return "bad" if self.share else "good"
        return ""


METRICS = {
    "exact_match": Metric("Exactly right", share=True),
    "token_f1": Metric("Word overlap (F1)", share=True),
    "rouge_l": Metric("Words in order (ROUGE-L)", share=True),
    "chrf": Metric("Character overlap (chrF)", share=True),
    "loss": Metric("Held-out loss", digits=3),
    "perplexity": Metric("Perplexity", digits=2),
}

# On the general set: what an adapter forgot.
GENERAL = {
    "score": Metric("General texts", share=True, digits=1),
    "accuracy": Metric("General questions", share=True),
}


@dataclass(frozen=True)
class Line:
    """One measure of a comparison. `found` is the difference: mean, low and high of the 95 % interval, and p."""

    key: str
    metric: Metric
    base: float
    adapter: float
    found: Mapping[str, float] | None

    @property
    def difference(self) -> str:
        """The difference in words: +59 points, +52 to +66, p < 0.001."""
        if not self.found:
            return ""
        p = self.found.get("p")
        chance = "" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.1f}"
        return ", ".join(filter(None, [*self.metric.change(self.found), chance]))


def lines(report: Mapping[str, Any]) -> Iterator[Line]:
    """Yield what both sides of a comparison have: on the held-out rows, then on the general set."""
    for metrics, part in ((METRICS, report), (GENERAL, report.get("general") or {})):
        base, adapter, difference = (part.get(name) or {} for name in ("base", "adapter", "difference"))
        for key, metric in metrics.items():
            if base.get(key) is not None and adapter.get(key) is not None:
                yield Line(key, metric, base[key], adapter[key], difference.get(key))
