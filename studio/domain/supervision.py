"""What a model learns of an example: its text in spans, what is cut off, and what is wrong with it, with remedies."""

from typing import Literal

from pydantic import BaseModel

from studio.domain.words import count, percent, plural

READS = "The model reads all of this and learns to write the marked part."
LEVELS = {"must": "Must fix", "should": "Should fix", "note": "Note"}  # of a finding, the gravest first
NOTHING = "Nothing of this example is learned"


class Span(BaseModel):
    """A stretch of the text. `cut`: beyond the length limit. `end`: the terminator it ends with, if it is an answer."""

    text: str
    trained: bool
    cut: bool = False
    end: str = ""


class Terminator(BaseModel):
    """The token that ends the last answer, and whether the model learns to write it."""

    text: str
    trained: bool


class Sample(BaseModel):
    """The answers of some rows, in tokens. `of`: the usable rows there are; None: more than were looked at."""

    rows: int
    of: int | None
    longest: int  # tokens
    longer: int  # rows beyond the limit
    empty: int  # rows with nothing to learn at any length
    answer_tokens: int
    lost_tokens: int

    @property
    def lost(self) -> float:
        """The share of the answers' tokens that lies beyond the limit, from 0 to 1."""
        return self.lost_tokens / self.answer_tokens if self.answer_tokens else 0.0

    @property
    def words(self) -> str:
        """What a share of this sample is a share of."""
        if self.of == self.rows:
            return f"all {plural(self.rows, 'example')}"
        rest = f"of {count(self.of)}" if self.of else "from the beginning of the file"
        return f"a sample: {count(self.rows)} examples {rest}"


class Finding(BaseModel):
    """Something about the example or its data set. `must`: nothing good comes of training so."""

    level: Literal["must", "should", "note"]
    title: str
    why: str
    remedy: str


class Supervision(BaseModel):
    """One example as the model gets it: the contract of `data show --json`. Lengths are in tokens."""

    row: int
    text: str
    spans: list[Span]
    tokens: int
    trained_tokens: int
    truncated_tokens: int
    lost_tokens: int  # of the answers, among the truncated
    limit: int
    context: int  # what the model reads at most
    over: Literal["ask", "drop", "split"]  # what a run does with longer examples
    pieces: int  # that a split example becomes
    answers: int  # turns of the assistant
    taught: int  # of these, those that are trained
    terminator: Terminator
    sample: Sample
    findings: list[Finding] = []


def judge(seen: Supervision) -> list[Finding]:
    """Return what is wrong with an example as it would be trained, the gravest first."""
    checks = (_nothing, _endless, _too_long, _beyond_the_model, _lost, _empty, _skipped)
    found = [finding for check in checks if (finding := check(seen))]
    return sorted(found, key=lambda finding: list(LEVELS).index(finding.level))


def _raise_limit(seen: Supervision, wanted: int) -> str:
    """Return how to make room for `wanted` tokens."""
    if wanted <= seen.context:
        return f"Set the longest example (`data.max_length`) to {count(wanted)} tokens, or to auto."
    return f"This model reads {count(seen.context)} tokens at most: shorten the examples, or choose another model."


def _nothing(seen: Supervision) -> Finding | None:
    if seen.trained_tokens:
        return None
    if seen.lost_tokens:
        why = f"Its answer begins beyond {count(seen.limit)} tokens."
        return Finding(level="must", title=NOTHING, why=why, remedy=_raise_limit(seen, seen.tokens))
    if not seen.answers:
        why = "No turn of it is the assistant's."
        return Finding(level="must", title=NOTHING, why=why, remedy="Say which column holds the answer.")
    why = "This model's chat template rewrites the answers, so they cannot be told from the rest."
    return Finding(level="must", title=NOTHING, why=why, remedy="Choose another model.")


def _endless(seen: Supervision) -> Finding | None:
    if seen.terminator.trained or not seen.trained_tokens:
        return None
    title = "The end of the answer is not trained"
    if seen.lost_tokens:
        why = "The length limit cuts it off. The model would not learn to stop here."
        return Finding(level="must", title=title, why=why, remedy=_raise_limit(seen, seen.tokens))
    why = "This model's template ends an answer with nothing that stops it. The model would never stop."
    remedy = "Choose a model trained for chat, whose tokenizer names the token that ends a turn."
    return Finding(level="must", title=title, why=why, remedy=remedy)


def _too_long(seen: Supervision) -> Finding | None:
    if seen.pieces > 1:
        title = f"This example is trained in {seen.pieces} pieces"
        why = f"It has {count(seen.tokens)} tokens, and {count(seen.limit)} fit. No piece sees those before it."
        return Finding(level="note", title=title, why=why, remedy=_raise_limit(seen, seen.tokens))
    if not seen.truncated_tokens:
        return None
    then = "leaves it out" if seen.over == "drop" else "stops before it begins and asks"
    title = f"{plural(seen.truncated_tokens, 'token')} of this example do not fit"
    why = f"It has {count(seen.tokens)}, and {count(seen.limit)} fit. A run with these settings {then}."
    return Finding(level="should", title=title, why=why, remedy=_raise_limit(seen, seen.tokens))


def _beyond_the_model(seen: Supervision) -> Finding | None:
    if seen.limit <= seen.context:
        return None
    title = "The longest example is longer than the model reads"
    why = f"The limit is {count(seen.limit)} tokens, the model reads {count(seen.context)}."
    return Finding(level="must", title=title, why=why, remedy="Set `data.max_length` to auto.")


def _lost(seen: Supervision) -> Finding | None:
    sample = seen.sample
    if not sample.lost_tokens:
        return None
    share = percent(sample.lost) if sample.lost >= 0.005 else "Less than 1 %"
    title = f"{share} of what the answers hold lies beyond {count(seen.limit)} tokens"
    longer = f"{plural(sample.longer, 'example is', 'examples are')} longer, counted in {sample.words}."
    if seen.over == "split":
        remedy = _raise_limit(seen, sample.longest)
        why = f"{longer} They are trained in pieces that do not see one another."
        return Finding(level="note", title=title, why=why, remedy=remedy)
    then = "They are left out whole." if seen.over == "drop" else "A run stops before it begins and asks."
    remedy = f"{_raise_limit(seen, sample.longest)} Or train on pieces (`data.over_length=split`)."
    return Finding(level="should", title=title, why=f"{longer} {then}", remedy=remedy)


def _empty(seen: Supervision) -> Finding | None:
    sample = seen.sample
    if not sample.empty:
        return None
    title = f"{plural(sample.empty, 'example has', 'examples have')} nothing to learn"
    why = f"Counted in {sample.words}. A run leaves them out."
    return Finding(level="should", title=title, why=why, remedy="Look at the answer column, or choose another model.")


def _skipped(seen: Supervision) -> Finding | None:
    if not 0 < seen.taught < seen.answers or seen.truncated_tokens:
        return None
    title = f"{seen.taught} of {seen.answers} answers are trained"
    why = "This model's chat template writes earlier answers in another way than the last one."
    remedy = "To train them all, make an example of each answer, with what came before it."
    return Finding(level="note", title=title, why=why, remedy=remedy)
