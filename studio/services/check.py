"""The check of a data file: every row is read, counted and measured, and what cannot be used is told."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from studio.domain.errors import DataError, NeedsMapping
from studio.domain.events import Phase, Report, ignore
from studio.domain.records import Difference, Finding
from studio.services import structures
from studio.services.formats import Problem, Source
from studio.services.pieces import count
from studio.services.seen import ENCODE, Seen, mark_of
from studio.services.structures import Layout, Sure

if TYPE_CHECKING:
    from studio.services.near import Near

LISTED = 50  # problems kept with their sentences; all are counted
FEWEST, ADVISED = 4, 20  # examples
LOOKED_AT = 2**25  # bytes whose encoding is looked at when only the first rows are read
REPORT_EVERY = 5_000  # rows
PIECES, COUNTED = 500, 2_000  # examples whose tokens are guessed at, and characters of a text for that

HELD_OUT, SEED = 0.1, 42  # share of the rows kept for testing, and what chooses them, where nothing else is said
Sink = Callable[[int, str], object]


class Lengths(BaseModel):
    """How long the examples are, of all turns together."""

    total: int = 0
    mean: float = 0
    median: int = 0
    p95: int = 0
    longest: int = 0
    longest_row: int = 0
    a_token: float = 4.0  # characters that a token takes, about


class Check(BaseModel):
    """What a data file is and whether it can be trained on."""

    format: str
    kind: Literal["chat", "text"]
    why: str
    sure: Sure = "certain"
    file: str
    bytes: int = 0
    rows: int = 0
    usable: int = 0
    complete: bool = True
    columns: list[str] = []
    samples: dict[str, str] = {}
    map: dict[str, str] = {}
    problems: list[Problem] = []
    problem_count: int = 0
    duplicates: int = 0
    warnings: list[str] = []
    findings: list[Finding] = []
    repaired: dict[str, int] = {}  # rows changed or left out when the data set was made, by repair
    examples: list[dict[str, Any]] = []
    words: Lengths = Lengths()
    characters: Lengths = Lengths()
    answers: Lengths = Lengths()  # of the last ones, in characters


class _Tally:
    """Counts how often each length occurs, for the mean and the quantiles."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.longest, self.longest_row = 0, 0

    def add(self, length: int, row: int) -> None:
        self.counts[length] += 1
        if length > self.longest:
            self.longest, self.longest_row = length, row

    def summary(self) -> Lengths:
        number, total = self.counts.total(), sum(length * count for length, count in self.counts.items())
        return Lengths(
            total=total,
            mean=round(total / number, 1) if number else 0,
            median=self._quantile(0.5),
            p95=self._quantile(0.95),
            longest=self.longest,
            longest_row=self.longest_row,
        )

    def _quantile(self, share: float) -> int:
        wanted, below = share * self.counts.total(), 0
        for length in sorted(self.counts):
            below += self.counts[length]
            if below >= wanted:
                return length
        return 0


def open_file(
    path: str | Path, format: str = "auto", map: dict[str, str] | None = None, most: int | None = None
) -> tuple[Source, Layout]:
    """Open a data file and find out how its rows are laid out; its encoding by its first `most` bytes, if so said."""
    source = Source(path, most)
    try:
        return source, structures.detect(source.head(), format, map)
    except NeedsMapping as asked:
        hint = " ".join([asked.hint, *source.notes])
        raise NeedsMapping(asked.message, hint, asked.columns, asked.suggestion, asked.samples) from asked


def examples(source: Source, layout: Layout) -> Iterator[dict[str, Any] | Problem]:
    """Yield each row as a canonical example with its row number, or as a problem."""
    for number, row in source.rows():
        example = row if isinstance(row, Problem) else structures.convert(number, row, layout)
        yield example if isinstance(example, Problem) else {**example, "row": number}


def first_examples(source: Source, layout: Layout) -> list[dict[str, Any]]:
    """Return the examples of the first rows."""
    found = (structures.convert(number, row, layout) for number, row in enumerate(source.head(), 1))
    return [example for example in found if not isinstance(example, Problem)]


def held_out_rows(
    path: str | Path | None, layout: Layout, first: Sequence[dict[str, Any]], format: str, map: dict[str, str] | None
) -> "Near | None":
    """Return the rows of a held-out file, to be looked up; `first` and `layout` are those of the file they test."""
    if path is None:
        return None
    from studio.services.near import Near

    source, its = open_file(path, format, map)
    if its.kind != layout.kind:
        raise DataError(f"{source.name} holds other examples: {its.why}", "Name a file of the same structure.")
    near = Near(first)
    for example in examples(source, its):
        if not isinstance(example, Problem):
            near.add(example, example["row"])
    return near


def check_file(
    path: str | Path,
    *,
    format: str = "auto",
    map: dict[str, str] | None = None,
    limit: int | None = None,
    max_tokens: int | None = None,
    held_out: str | Path | None = None,
    report: Report = ignore,
) -> Check:
    """Read a file row by row and say what it holds; with a limit only its first rows. Nothing is stored.

    Rows that a file `held_out` has too are told of.
    """
    source, layout = open_file(path, format, map, LOOKED_AT if limit else None)
    held = held_out_rows(held_out, layout, first_examples(source, layout), format, map)
    return survey(source, layout, Seen(), limit=limit, max_tokens=max_tokens, held=held, report=report)


def survey(
    source: Source,
    layout: Layout,
    seen: Seen,
    *,
    seed: int = SEED,
    eval_fraction: float = HELD_OUT,
    limit: int | None = None,
    max_tokens: int | None = None,
    repairs: Sequence[str] = (),
    held: "Near | None" = None,
    report: Report = ignore,
    sink: Sink | None = None,
) -> Check:
    """Go through the rows once, repaired; hand each example's hash and line to `sink`."""
    result = Check(
        format=layout.format,
        kind=layout.kind,
        why=layout.why,
        sure=layout.sure,
        file=source.words,
        bytes=source.size,
        columns=layout.columns,
        samples=layout.samples,
        map=layout.map,
    )
    # libraries that the page can start without
    from studio.services.findings import MAX_TOKENS, Findings
    from studio.services.repair import Repairs

    words, characters, answers = _Tally(), _Tally(), _Tally()
    first = first_examples(source, layout)
    # telling languages takes a second to load
    findings = Findings(layout, first, max_tokens or MAX_TOKENS, languages=limit is None, held=held)
    mending = Repairs(repairs, layout, first)
    found = source.rows()
    rows = counted = 0
    pieces = 0.0
    for rows, (number, raw) in enumerate(islice(found, limit), 1):
        example: dict[str, Any] | Problem | str
        raw, example = (raw, raw) if isinstance(raw, Problem) else mending.read(number, raw)
        if rows % REPORT_EVERY == 0:
            told = f"Reading: {rows:,} rows so far"
            report(Phase(words=told, done=source.bytes_read(), total=source.size, unit="bytes"))
        if isinstance(example, str):
            continue
        if isinstance(example, Problem):
            result.problem_count += 1
            if result.problem_count <= LISTED:
                result.problems.append(example)
            if not isinstance(raw, Problem):
                findings.problem(raw, example)
            continue
        if len(result.examples) < 5:
            result.examples.append({**example, "row": number})
        texts = [example["text"]] if "text" in example else [turn["content"] for turn in example["messages"]]
        length = sum(len(text) for text in texts)
        words.add(sum(len(text.split()) for text in texts), number)
        characters.add(length, number)
        if words.counts.total() <= PIECES:
            pieces += sum(count(text[:COUNTED]) for text in texts)
            counted += sum(len(text[:COUNTED]) for text in texts)
        if "messages" in example:
            answers.add(len(texts[-1]), number)
        line = ENCODE(example)
        mark = mark_of(line, seed)
        is_new = seen.add(mark)
        findings.example(number, example, mark, is_new, length)
        if sink:
            sink(mark, f'{line[:-1]}, "row": {number}}}\n')
    result.rows, result.usable = rows, rows - result.problem_count - mending.left_out.total()
    result.repaired = dict(+mending.changed + mending.left_out)
    result.duplicates = result.usable - seen.count
    result.complete = limit is None or next(found, None) is None
    result.words, result.characters = words.summary(), characters.summary()
    result.answers = answers.summary()
    if pieces:
        result.characters.a_token = round(counted / pieces, 2)
    result.warnings = [*layout.notes, *_warnings(result, source)]
    bound = seen.bound(result.usable, eval_fraction)
    result.findings = findings.result(characters.counts, result.characters.p95, bound)
    _show_pairs(source, layout, [each for finding in result.findings for each in finding.examples if each.like])
    return result


def _show_pairs(source: Source, layout: Layout, pairs: list[Difference]) -> None:
    """Fill in the texts of nearly equal rows: only now it is known which were."""
    from studio.services.findings import in_brief

    wanted = {row for each in pairs for row in (each.row, each.like)}
    texts = dict.fromkeys(wanted, "")
    for number, row in islice(source.rows(), max(wanted, default=0)):
        if number in wanted and not isinstance(row, Problem):
            example = structures.convert(number, row, layout)
            texts[number] = example.problem if isinstance(example, Problem) else in_brief(example)
    for each in pairs:
        each.before, each.like_text = texts[each.row], texts[each.like]


def _warnings(check: Check, source: Source) -> list[str]:
    found = [*source.notes]
    if check.complete and check.usable < ADVISED:
        found.append(
            f"Only {check.usable} usable examples. Add at least {ADVISED}, or the model has nothing to generalise from."
        )
    return found


def refuse_unusable(check: Check, name: str, skip_bad: bool) -> None:
    """Raise unless enough rows are usable and the bad ones may be left out."""
    if check.problem_count and not skip_bad:
        shown = " ".join(problem.problem for problem in check.problems[:5])
        more = f" And {check.problem_count - 5:,} more." if check.problem_count > 5 else ""
        raise DataError(
            f"{check.problem_count:,} of {check.rows:,} rows of {name} cannot be used. {shown}{more}",
            "Correct them, or choose to leave bad rows out (the tick box on the page, or --skip-bad-rows).",
        )
    if check.usable < FEWEST:
        count = f"Only {check.usable} usable example{'' if check.usable == 1 else 's'}"
        raise DataError(f"{count} in {name}.", f"Add at least {ADVISED}, or the model has nothing to generalise from.")
