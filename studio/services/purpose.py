"""What a data set looks made for: a purpose to begin with, and what in the data speaks for it."""

import json
import re
from functools import lru_cache
from pathlib import Path
from statistics import median

from pydantic import BaseModel

from studio.domain.profiles import GENERAL
from studio.domain.records import Dataset
from studio.domain.words import plural

LOOKED_AT = 256  # examples, spread evenly over the file
FEWEST = 20  # examples; fewer say nothing
LABEL_WORDS = 12  # a label or a few fields have no more
LABEL_SHARE = 0.5  # of the answers differ at most, where they are labels
LONG_WORDS, SHORTER = 120, 4  # a text to summarise, and how much shorter its summary is
TURNS = 3  # more than a question and an answer
CODE = re.compile(r"```|^\s*(def|class|import|from|function|const|let|public|#include|SELECT|return)\b.*[({;:=]", re.M)


class Suggestion(BaseModel):
    """The name of a profile, and why."""

    profile: str
    why: str


def suggest(dataset: Dataset) -> Suggestion:
    """Return the purpose a data set looks made for, from its kind, its columns and a sample of its examples."""
    return _suggest(dataset.path, dataset.kind)


@lru_cache(maxsize=64)  # a data set never changes, and every step of the page asks
def _suggest(folder: str, kind: str) -> Suggestion:
    if kind == "text":
        return Suggestion(profile="domain-text", why="The data is plain text.")
    talks = [example["messages"] for example in _sample(Path(folder, "train.jsonl")) if example.get("messages")]
    if len(talks) < FEWEST:
        return Suggestion(profile=GENERAL, why="The examples are too few to tell what they are for.")
    answers = [turns[-1]["content"] for turns in talks]
    kinds, looked = len(set(answers)), f"{len(answers)} examples looked at"
    length = median(len(answer.split()) for answer in answers)
    asked = median(sum(len(turn["content"].split()) for turn in turns[:-1]) for turns in talks)
    if kinds <= LABEL_SHARE * len(answers) and length <= LABEL_WORDS:
        return Suggestion(
            profile="classification", why=f"The answers repeat: {plural(kinds, 'short answer')} in {looked}."
        )
    if sum(_fields(answer) for answer in answers) > len(answers) / 2:
        return Suggestion(profile="classification", why=f"Most answers are fields written as JSON, in {looked}.")
    if sum(bool(CODE.search(answer)) for answer in answers) > len(answers) / 2:
        return Suggestion(profile="code", why=f"Most answers hold code, in {looked}.")
    if median(sum(turn["role"] != "system" for turn in turns) for turns in talks) >= TURNS:
        return Suggestion(profile="chatbot", why="The examples are conversations of several turns.")
    if asked >= LONG_WORDS and asked >= SHORTER * length:
        why = f"Long texts with short answers: usually {asked:.0f} words and {length:.0f}."
        return Suggestion(profile="summarisation", why=why)
    return Suggestion(profile="instruction", why="Each example is one request and one answer, and the answers differ.")


def _sample(file: Path) -> list[dict]:  # type: ignore[type-arg]
    """Return examples from all over a file, in constant time: rows of a file are often sorted."""
    found = {}
    with open(file, "rb") as source:
        size = source.seek(0, 2)
        for place in range(LOOKED_AT):
            source.seek(size * place // LOOKED_AT)
            if place:
                source.readline()  # the rest of a line
            start = source.tell()
            if start not in found and (line := source.readline()):
                found[start] = json.loads(line)
    return list(found.values())


def _fields(answer: str) -> bool:
    if not answer.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(answer), dict)
    except ValueError:
        return False
