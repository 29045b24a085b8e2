"""The glossary: the field's terms in plain words, for the page where they stand and for the docs."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """A term, what it means in one or two sentences, and the other words it goes by."""

    name: str
    text: str
    also: tuple[str, ...] = ()


TERMS: tuple[Term, ...] = (
    Term(
        "activations",
        "What each layer works out on the way through. They are kept for the correction and take the most "
        "memory of a step.",
    ),
    Term(
        "adapter",
        "A small set of numbers beside a model that changes how it answers. The model itself stays as it is.",
        ("adapters",),
    ),
    Term("alpha", "How strongly the adapter acts on the model. Twice the rank is usual."),
    Term(
        "base model",
        "The ready-made model you start from. It is read, never changed.",
        ("base models", "the base"),
    ),
    Term("batch", "The examples looked at together for one correction."),
    Term("bf16", "Numbers of 16 bits with a wide range: half the memory of fp32, exact enough for training."),
    Term("checkpoint", "A saved state of a run, from which it can go on exactly.", ("checkpoints",)),
    Term("context", "How many tokens a model can read at once."),
    Term(
        "continued pre-training",
        "Learning from plain text, without questions and answers, to take up a field's language.",
    ),
    Term("cosine", "A schedule: the learning rate falls along a smooth curve, slowly at first and at the end."),
    Term("dropout", "Leaving out some numbers at random while learning, so that nothing is learned by heart."),
    Term("early stop", "Ending a run when the held-out loss no longer falls.", ("early stopping",)),
    Term("fp32", "Numbers of 32 bits: exact, and twice the memory of bf16."),
    Term("gradient", "The direction in which the numbers have to change to answer better.", ("gradients",)),
    Term(
        "graphics card",
        "The processor that does most of the work of training; its own memory limits the size of the model.",
        ("GPU",),
    ),
    Term(
        "held out",
        "Set aside before training and never learned from, to see whether the model understood or only memorised.",
        ("held-out",),
    ),
    Term("label", "The fixed word or name a text is sorted under.", ("labels",)),
    Term(
        "layer",
        "One stage of a model; a model is a stack of them, each made of a few large tables of numbers.",
        ("layers",),
    ),
    Term(
        "learning rate",
        "How big each correction is. Too big and the model loses what it knew; too small and it learns little.",
    ),
    Term("LoRA", "Two thin tables of numbers beside each large one of the model: the usual kind of adapter."),
    Term("loss", "How surprised the model is by the right answer. Lower is better."),
    Term("NF4", "Numbers of 4 bits, spaced the way a model's numbers usually lie. A quarter of the memory of bf16."),
    Term(
        "optimiser",
        "The rule that turns gradients into corrections. It keeps notes for each number it may change.",
    ),
    Term(
        "overfitting",
        "Learning the examples by heart instead of what they have in common.",
        ("memorise", "memorises"),
    ),
    Term(
        "packing",
        "Putting several short examples side by side into one row, so that no work is wasted on padding.",
    ),
    Term("padding", "Filler behind short examples, so that all rows are of one length."),
    Term("parameters", "The numbers a model is made of. More of them know more, and need more memory and time."),
    Term("pass", "Looking at every example once; also called an epoch.", ("passes", "epoch", "epochs")),
    Term("precision", "How many bits a number has while it is computed with."),
    Term("QLoRA", "LoRA on a base model held in 4 bits, for a quarter of its memory."),
    Term(
        "quantisation",
        "Holding a model's numbers in fewer bits to save memory, at a small loss of exactness.",
        ("quantised",),
    ),
    Term("rank", "How much an adapter can hold: the width of its thin tables."),
    Term("rsLoRA", "LoRA with a scale that keeps high ranks learning."),
    Term("schedule", "How the learning rate changes from the first step to the last."),
    Term("seed", "The number that chance starts from. The same seed gives the same run."),
    Term("step", "One correction of the adapter, from the examples of one batch.", ("steps",)),
    Term("token", "A piece of text as a model reads it: a short word, or a part of a longer one.", ("tokens",)),
    Term(
        "template",
        "The marks by which a model tells who speaks. Each family of models has its own.",
        ("chat template",),
    ),
    Term("warm-up", "The first steps, in which the learning rate rises to its full size."),
)
BY_WORD: dict[str, Term] = {word.casefold(): term for term in TERMS for word in (term.name, *term.also)}
_ANY = re.compile(
    rf"(?<![\w-])({'|'.join(sorted(map(re.escape, BY_WORD), key=len, reverse=True))})(?![\w-])", re.IGNORECASE
)


def split(text: str) -> list[tuple[str, Term | None]]:
    """Cut a text into pieces that join to it; the first piece for each term has the term beside it."""
    pieces: list[tuple[str, Term | None]] = []
    seen: set[str] = set()
    end = 0
    for match in _ANY.finditer(text):
        term = BY_WORD[match[0].casefold()]
        if term.name not in seen:
            seen.add(term.name)
            pieces += [(text[end : match.start()], None), (match[0], term)]
            end = match.end()
    return [piece for piece in [*pieces, (text[end:], None)] if piece[0]]
