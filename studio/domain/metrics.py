"""The measures of a comparison of base and adapter, and how each is told."""

from collections.abc import Mapping
from dataclasses import dataclass

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
        return percent(value) if self.share else f"{value:,.{self.digits}f}"

    def change(self, found: Mapping[str, float]) -> tuple[str, str]:
        """Return a difference and its interval in words: +14 points, +11 to +17."""
        scale = 100 if self.share else 1
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
    "loss": Metric("Held-out loss", digits=3),
    "perplexity": Metric("Perplexity", digits=2),
}
