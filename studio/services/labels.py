"""Labels: answers that are few and short, and which of them are too rare beside the others."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from statistics import median_low

from studio.domain.records import Difference
from studio.domain.words import count, plural

MOST, LONGEST = 500, 60  # answers that differ, and their characters, up to which answers are labels
UNEVEN = 20  # times as many rows of the most frequent label as of a rare one
ROWS, SHOWN = 20, 3  # row numbers kept of a label, and rows shown that a repair leaves out


@dataclass
class Label:
    """What is kept of one label while the rows go by: the last ones are those that a repair leaves out."""

    count: int = 0
    rows: list[int] = field(default_factory=list)
    last: deque[Callable[[], Difference]] = field(default_factory=lambda: deque(maxlen=SHOWN))


@dataclass(frozen=True)
class Uneven:
    """The rows of rare labels; `kept` is how many of each label a repair keeps, "" where none could lose any."""

    count: int
    rows: list[int]
    words: str
    kept: str = ""
    examples: list[Difference] = field(default_factory=list)


class Labels:
    """Counts the answers for as long as they may be labels."""

    def __init__(self) -> None:
        self.found: dict[str, Label] = {}
        self.are_labels = True

    def add(self, row: int, answers: list[str], difference: Callable[[], Difference]) -> None:
        """Take in the answers of a row; `difference` tells of leaving it out."""
        if not self.are_labels or not answers:
            return
        if len(answers) > 1 or len(answers[0]) > LONGEST or len(self.found) > MOST:
            self.found, self.are_labels = {}, False
            return
        label = self.found.setdefault(answers[0], Label())
        label.count += 1
        label.last.append(difference)
        if len(label.rows) < ROWS:
            label.rows.append(row)

    def uneven(self) -> Uneven | None:
        """Return which labels are rare, and how the others could be cut; None where none is."""
        counts = [label.count for label in self.found.values()]
        if not 2 <= len(counts) <= sum(counts) / 5:
            return None
        most = max(self.found, key=lambda name: self.found[name].count)
        frequent = self.found[most]
        rare = {name: label for name, label in self.found.items() if label.count * UNEVEN < frequent.count}
        if not rare:
            return None
        named = ", ".join(f"`{name}` {count(label.count)}" for name, label in list(rare.items())[:5])
        words = f"`{most}` has {plural(frequent.count, 'row')}; {named}."
        number = sum(label.count for label in rare.values())
        rows = sorted(chain.from_iterable(label.rows for label in rare.values()))
        # the usual label stays whole, however rare the rarest is
        kept = max(UNEVEN * min(counts), median_low(counts))
        beyond = sum(max(0, each - kept) for each in counts)
        if not beyond:
            return Uneven(number, rows, words)
        words += f" With at most {count(kept)} of each, {plural(beyond, 'row')} would be left out."
        last = list(frequent.last)[kept - frequent.count :]
        return Uneven(number, rows, words, str(kept), [difference() for difference in last])
