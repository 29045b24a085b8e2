"""Findings: what lowers the quality of rows that can be read, from the worst to the least, with how to repair each."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappush, heappushpop
from typing import NamedTuple

from studio.domain.records import Difference, Finding
from studio.domain.words import percent, plural
from studio.services import private, repair
from studio.services.formats import Problem
from studio.services.labels import Labels
from studio.services.languages import language, named
from studio.services.near import Near
from studio.services.recognise import RowValue
from studio.services.repair import Example
from studio.services.structures import Layout

ROWS, SHOWN = 20, 3  # row numbers kept of each kind, and rows shown
WINDOW, BEFORE = 160, 40  # characters shown of a text, and of them before the first difference
MAX_TOKENS = 8192  # of an example, where nothing else is said: what the starter model reads at most
FAR = 8  # times the length that 95 of 100 rows keep to
FEWEST_ROWS = 50  # to speak of usual lengths, languages and labels
SAMPLED = 2_000  # rows whose language is asked one by one; beyond, of one in SPARSE
SPARSE = 50


class Kind(NamedTuple):
    """What is said of a kind: a title that goes on with "in 3 rows", why it hurts, and what its repair does."""

    title: str
    why: str
    remedy: str


KINDS = {
    "secrets": Kind(
        "Keys or tokens",
        "A model can be made to repeat them, and whoever gets the adapter gets them. Passwords in words are not found.",
        "Put [secret] in their place, and make them invalid where they are used.",
    ),
    "leakage": Kind(
        "Nearly the same example in training and held out",
        "The score then measures what was learned by heart. Exact repeats stay on one side by themselves.",
        "Leave out the later of nearly equal rows, or of those that the held-out file has too.",
    ),
    "template-marks": Kind(
        "Marks of a chat template",
        "The model takes them for the end of a turn, so it learns to stop, or to speak for the user.",
        "Take the marks out of the text.",
    ),
    "encoding": Kind(
        "Characters read in a wrong encoding",
        "The model learns to write them that way.",
        "Write the characters as they were meant.",
    ),
    "lost-characters": Kind(
        "Characters lost for good",
        "A sign like \ufffd stands where the file was once read wrongly. The model learns to write it.",
        "Leave these rows out, or take them from the source again.",
    ),
    "empty-answer": Kind(
        "Nothing in place of an answer",
        "A row without an answer, or with one like N/A, teaches the model to say nothing.",
        "Leave these rows out.",
    ),
    "looping-answer": Kind(
        "An answer that repeats itself",
        "The model learns to get stuck in the same words.",
        "Leave these rows out.",
    ),
    "role-order": Kind(
        "Turns out of order",
        "The conversation cannot be used until question and answer alternate and an answer comes last.",
        "Join neighbours of one role, and leave out an answer before the first question or a question after the last.",
    ),
    "personal-data": Kind(
        "Personal data",
        "A model can repeat it to anyone. E-mail addresses, phone, card, account and US social security numbers are "
        "looked for; names and postal addresses are not found.",
        "Put [email], [phone] and the like in their place.",
    ),
    "duplicates": Kind(
        "An earlier example, word for word,",
        "Repeated rows weigh more in training.",
        "Keep the first of each.",
    ),
    "near-duplicates": Kind(
        "Nearly the same as an earlier example",
        "Such rows weigh more in training.",
        "Keep the first of each; exact repeats go too.",
    ),
    "over-length": Kind(
        "Longer than what is read at once",
        "The end of such an example, mostly of its answer, is cut off, or the run is refused. Estimated from bytes.",
        "Leave these rows out, or split them.",
    ),
    "length-outliers": Kind(
        "Far longer than the others",
        "One such row costs as much time and memory as many, and is often a row that went wrong.",
        "Leave these rows out.",
    ),
    "languages": Kind(
        "Another language",
        "The model may answer in a language it was not asked in.",
        "Leave these rows out, if the mix is not meant.",
    ),
    "label-imbalance": Kind(
        "Rare labels",
        "The model sees them so seldom that it will rarely give them.",
        "Keep only the first rows of the frequent ones. To add examples of the rare ones is better.",
    ),
}
SAME_REPAIR = {"leakage": "near-duplicates"}


@dataclass
class _Found:
    """What is kept of one kind while the rows go by."""

    count: int = 0
    unusable: int = 0
    rows: list[int] = field(default_factory=list)
    examples: list[Difference] = field(default_factory=list)

    def add(self, row: int, difference: Callable[[], Difference]) -> None:
        self.count += 1
        if len(self.rows) < ROWS:
            self.rows.append(row)
        if len(self.examples) < SHOWN:
            self.examples.append(difference())


class Findings:
    """Looks at each row as it goes by; memory grows by 8 bytes a row, and by 16 more for one that nearly repeats."""

    def __init__(
        self, layout: Layout, first: Sequence[Example], max_tokens: int, languages: bool, held: Near | None
    ) -> None:
        self._layout, self._limit, self._tells_languages = layout, max_tokens, languages
        self._found: dict[str, _Found] = defaultdict(_Found)
        self._near, self._held = Near(first), held
        self._marks = array("Q", [0])  # of each row, whose numbers begin at 1
        self._pairs: list[array[int]] = [array("Q"), array("Q")]  # nearly equal rows: the later and the earlier
        self._longest: list[tuple[int, int, str]] = []
        self._languages: dict[str, _Found] = defaultdict(_Found)
        self._judged = self._examples = 0
        self._labels = Labels()

    def problem(self, row: RowValue, problem: Problem) -> None:
        """Look at a row that cannot be used; there may be a repair for it."""
        self._mark(problem.row, 0)
        before = problem.problem.replace("`", "")
        if repair.lacks_answer(row, self._layout):
            self._found["empty-answer"].unusable += 1
            self._found["empty-answer"].add(problem.row, lambda: _left_out(problem.row, before))
            return
        _, example = repair.in_order(problem.row, row, self._layout, problem)
        if not isinstance(example, Problem):
            self._found["role-order"].unusable += 1
            self._found["role-order"].add(
                problem.row, lambda: Difference(row=problem.row, before=before, after=_turns(example))
            )

    def example(self, row: int, example: Example, mark: int, is_new: bool, characters: int) -> None:
        """Look at an example; `mark` is its hash, `is_new` whether no earlier one is equal."""
        self._mark(row, mark)
        self._examples += 1
        self._look_at_texts(row, example)
        leave_out = lambda: _left_out(row, in_brief(example))  # noqa: E731
        for kind, test in repair.ROWS.items():
            if test(example):
                self._found[kind].add(row, leave_out)
        if repair.tokens(example) > self._limit:
            self._found["over-length"].add(row, leave_out)
        if not is_new:
            self._found["duplicates"].add(row, leave_out)
        elif earlier := self._near.add(example, row):
            self._found["near-duplicates"].add(row, lambda: Difference(row=row, before="", like=earlier))
            for side, number in zip(self._pairs, (row, earlier), strict=True):
                side.append(number)
        if self._held and (same := self._held.find(example)):
            told = f"{in_brief(example)} (row {same:,} of the held-out file)"
            self._found["leakage"].add(row, lambda: _left_out(row, told))
        if len(self._longest) < ROWS or characters > self._longest[0][0]:
            add = heappush if len(self._longest) < ROWS else heappushpop
            add(self._longest, (characters, row, in_brief(example)))
        self._look_at_answer(row, example, leave_out)

    def result(self, lengths: Counter[int], p95: int, bound: int) -> list[Finding]:
        """Return what was found, the worst first.

        `lengths` counts the examples of each length in characters, `bound` is the hash below which rows are held out.
        """
        self._weigh_lengths(lengths, p95)
        self._weigh_sides(bound)
        told = {"languages": self._weigh_languages(), "label-imbalance": self._weigh_labels()}
        limits = {"over-length": str(self._limit), "length-outliers": str(FAR * p95)}
        limits |= {kind: limit for kind, (limit, _) in told.items()}
        return [
            self._finding(kind, limits.get(kind, ""), told.get(kind, ("", ""))[1])
            for kind in KINDS
            if self._found[kind].count
        ]

    def _finding(self, kind: str, limit: str, told: str) -> Finding:
        title, why, remedy = KINDS[kind]
        found = self._found[kind]
        about = kind == "languages" and self._judged < self._examples
        return Finding(
            kind=kind,
            title=f"{title} in {'about ' if about else ''}{plural(found.count, 'row')}",
            count=found.count,
            about=about,
            unusable=found.unusable,
            rows=found.rows,
            why=f"{told} {why}".strip(),
            remedy=remedy,
            repair=self._repair(kind, limit),
            examples=found.examples,
        )

    def _repair(self, kind: str, limit: str) -> str:
        if kind in repair.NEED_BOUND:
            return f"{kind}:{limit}" if limit else ""
        return kind if kind == "leakage" and self._held else SAME_REPAIR.get(kind, kind)

    def _mark(self, row: int, mark: int) -> None:
        self._marks.extend([0] * (row - len(self._marks)))
        self._marks.append(mark)

    def _look_at_texts(self, row: int, example: Example) -> None:
        texts = repair.texts(example)
        for kind, mend in repair.TEXTS.items():
            for text in texts:
                after = mend(text)
                if after is not text:
                    self._found[kind].add(row, lambda: around(row, kind, text, after))  # noqa: B023 - called at once
                    break

    def _look_at_answer(self, row: int, example: Example, difference: Callable[[], Difference]) -> None:
        if self._tells_languages and (self._examples <= SAMPLED or not self._examples % SPARSE):
            self._judged += 1
            if code := language("\n".join(repair.answers(example))):
                self._languages[code].add(row, difference)
        self._labels.add(row, [] if "text" in example else repair.answers(example), difference)

    def _weigh_lengths(self, lengths: Counter[int], p95: int) -> None:
        if lengths.total() < FEWEST_ROWS:
            return
        far = sum(number for length, number in lengths.items() if length > FAR * p95)
        for length, row, text in sorted(self._longest, reverse=True):
            if length > FAR * p95:
                self._found["length-outliers"].add(row, partial(_left_out, row, text))
        if far:
            self._found["length-outliers"].count = far
            self._found["length-outliers"].rows.sort()

    def _weigh_sides(self, bound: int) -> None:
        if self._held:  # then no row is to be set aside
            return
        for later, earlier in zip(*self._pairs, strict=True):
            if (self._marks[later] < bound) != (self._marks[earlier] < bound):
                self._found["leakage"].add(later, partial(Difference, row=later, before="", like=earlier))

    def _weigh_languages(self) -> tuple[str, str]:
        """Return the language most rows are in, and which others there are."""
        ranked = sorted(self._languages, key=lambda code: -self._languages[code].count)
        told = sum(found.count for found in self._languages.values())
        others = told - self._languages[ranked[0]].count if ranked else 0
        if told < FEWEST_ROWS or others < max(3, told / 100):
            return "", ""
        found = self._found["languages"]
        for code in ranked[1:]:
            each = self._languages[code]
            found.rows = sorted({*found.rows, *each.rows})[:ROWS]
            found.examples = [*found.examples, *each.examples][:SHOWN]
        found.count = others if self._judged == self._examples else round(others * self._examples / self._judged)
        shares = [f"{named(code)} {percent(self._languages[code].count / told)}" for code in ranked[:4]]
        return ranked[0], f"{', '.join(shares)} of the rows whose language is clear."

    def _weigh_labels(self) -> tuple[str, str]:
        """Return how many rows of a label a repair keeps, if that helps, and which labels are rare."""
        uneven = self._labels.uneven() if self._examples >= FEWEST_ROWS else None
        if not uneven:
            return "", ""
        found = self._found["label-imbalance"]
        found.count, found.rows, found.examples = uneven.count, uneven.rows[:ROWS], uneven.examples
        return uneven.kept, uneven.words


def shorten(text: str, length: int = WINDOW) -> str:
    """Return the beginning of a text."""
    return text if len(text) <= length else f"{text[:length]}…"


def in_brief(example: Example) -> str:
    """Return the last question and answer of an example, shortened."""
    return " → ".join(shorten(text, WINDOW // 2) for text in repair.texts(example)[-2:])


def _turns(example: Example) -> str:
    return shorten("\n".join(f"{turn['role']}: {shorten(turn['content'], 60)}" for turn in example["messages"]), 400)


def _left_out(row: int, text: str) -> Difference:
    return Difference(row=row, before=text)


def around(row: int, kind: str, before: str, after: str) -> Difference:
    """Return both texts where they first differ; a secret is not shown in full."""
    if kind == "secrets":
        before = private.SECRETS.sub(lambda found: f"{found[0][:6]}…", before)
    same = next((place for place, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(after))
    start = max(same - BEFORE, 0)
    old, new = (f"{'…' if start else ''}{shorten(text[start:])}" for text in (before, after))
    return Difference(row=row, before=old, after=new)
