"""How close an answer is to the expected one, as a share: exact, by words, and by more where answers are long."""

import re
import statistics
from collections import Counter
from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Indel
from sacrebleu.metrics import CHRF

LONG = 4  # words of the median answer, from which on exact matches say little, order and overlap of characters more
CHARACTERS = CHRF()


def scores(said: Sequence[str], expected: Sequence[str]) -> dict[str, np.ndarray]:
    """Return a share for each answer, by each measure that suits the expected ones."""
    measures = {"exact_match": exact, "token_f1": token_f1}
    if expected and statistics.median(len(text.split()) for text in expected) >= LONG:
        measures |= {"rouge_l": rouge_l, "chrf": chrf}
    return {
        name: np.array([measure(a, b) for a, b in zip(said, expected, strict=True)])
        for name, measure in measures.items()
    }


def exact(said: str, expected: str) -> float:
    """White space folded; nothing else is forgiven in an exact match."""
    return float(said.split() == expected.split())


def token_f1(said: str, expected: str) -> float:
    """Overlap of words, as SQuAD measures it: the harmonic mean of precision and recall."""
    a, b = _words(said), _words(expected)
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))


def rouge_l(said: str, expected: str) -> float:
    """Twice the longest common subsequence of words by all words: ROUGE-L's F1 (Lin 2004), in any alphabet."""
    return float(Indel.normalized_similarity(_words(said), _words(expected)))


def chrf(said: str, expected: str) -> float:
    """Overlap of up to six characters in a row (Popović 2015), which needs no words and forgives endings."""
    return float(CHARACTERS.sentence_score(said, [expected]).score) / 100


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
