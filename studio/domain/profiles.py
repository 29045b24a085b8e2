"""The purposes a model is trained for, a row each: the settings that differ from the usual, with the reason of each."""

from dataclasses import dataclass, field
from typing import Any

GENERAL = "general"
Reasoned = tuple[Any, str]  # a value, and why


@dataclass(frozen=True)
class Profile:
    """One row. `settings` are values, by group.key; `times` are factors on what the usual rule gives.

    A value has its reason as a sentence, a factor as the end of one.
    `asks` and `answers` are one example of the data; a purpose that reads plain text has no question.
    """

    name: str
    title: str
    text: str
    needs: str
    asks: str
    answers: str
    kind: str = "chat"  # of the data it needs; "" where any will do
    settings: dict[str, Reasoned] = field(default_factory=dict)
    times: dict[str, tuple[float, str]] = field(default_factory=dict)


PROFILES: dict[str, Profile] = {
    row.name: row
    for row in (
        Profile(
            "chatbot",
            "Hold a conversation",
            "A chatbot: answers over several turns, in your manner and with your facts.",
            "Conversations, or questions with answers. 200 make a difference; 1,000 and more make a habit.",
            "My parcel has not come. — When did you order it? — On Monday.",
            "Then it is due tomorrow. I have sent you the tracking link.",
            settings={
                "data.max_length": (2_048, "A conversation of some twenty turns fits, and the memory stays small."),
                "data.over_length": ("split", "A longer conversation is learned in pieces; nothing of it is left out."),
                "evaluate.samples": (3, "The tone of a chatbot shows in its answers before it shows in the loss."),
            },
        ),
        Profile(
            "instruction",
            "Follow instructions",
            "Does what it is told: answers, rewrites, translates, plans.",
            "Instructions with the wanted result, as different from one another as later use. 500 and more.",
            "Rewrite this more politely: Send me the report now.",
            "Could you send me the report when you have a moment?",
            settings={
                "method.rank": (32, "Many different tasks need more room than one."),
                "evaluate.answers": (48, "Different tasks need more questions for a sure verdict."),
            },
        ),
        Profile(
            "code",
            "Write code",
            "Writes or completes programs in your languages and with your libraries.",
            "Tasks with the code that solves them. 1,000 and more, tried and working.",
            "Return the even numbers of a list.",
            "def even(numbers):\n    return [n for n in numbers if n % 2 == 0]",
            settings={
                "method.rank": (32, "Names, libraries and syntax are more to hold than a tone."),
                "data.max_length": (4_096, "A whole file fits."),
                "data.over_length": ("split", "A longer file is learned in pieces."),
                "evaluate.answers": (12, "Programs are long to write, so fewer are asked for."),
            },
            times={"train.learning_rate": (0.5, "every sign has to be right, and what is known is not to be lost.")},
        ),
        Profile(
            "classification",
            "Sort and extract",
            "Gives each text a label, or picks fields out of it.",
            "Texts with their label or fields, written the same way each time. 20 and more of each label.",
            "My card still has not arrived.",
            "card_arrival",
            settings={
                "evaluate.answers": (
                    64,
                    "Short answers are quickly asked for; more make the verdict sure.",
                ),
            },
            times={
                "train.epochs": (2, "labels that look alike are told apart in a second round."),
                "train.learning_rate": (2, "labels are a few short words, which are learned faster so."),
            },
        ),
        Profile(
            "summarisation",
            "Summarise",
            "Writes the short version of a long text.",
            "Long texts with the summary you would write. 300 and more, all summaries of one kind.",
            "(the minutes of a meeting, two pages)",
            "The launch moves to May. Anna writes the announcement.",
            settings={
                "data.over_length": ("drop", "A summary that lost part of its text would teach to invent."),
                "evaluate.answers": (16, "Long texts take long to read, so fewer are asked about."),
            },
        ),
        Profile(
            "style",
            "Write in a style",
            "Keeps a tone of voice, a format or the manner of one author.",
            "Requests with answers in that style. 50 are a start, and every one counts.",
            "Tell me about the weather.",
            "Grey again, dear reader, and the gulls are in a temper.",
            settings={
                "method.rank": (8, "A tone needs little room."),
                "method.dropout": (0.05, "A little keeps few examples from being learned by heart."),
                "evaluate.samples": (3, "Style is judged by reading."),
            },
        ),
        Profile(
            "domain-text",
            "Know a field",
            "Reads plain text of a field and takes up its language: continued pre-training.",
            "Plain text: manuals, articles, notes. A megabyte and more.",
            "",
            "Torque the M6 bolts to 9 Nm in a cross pattern, then once more after the first heat.",
            kind="text",
            settings={
                "method.name": ("rslora", "It keeps a high rank learning, and a field needs a high rank."),
                "method.rank": (64, "New knowledge needs four times the room of a new manner."),
                "train.warmup": (0.1, "A slow beginning keeps what the model knows."),
            },
            times={"train.learning_rate": (0.5, "less is forgotten so.")},
        ),
        Profile(
            "small-memory",
            "Fit a small machine",
            "Any purpose, in as little memory as can be; slower.",
            "What your purpose needs. Short examples need less memory than long ones.",
            "Where is my parcel?",
            "It is at the depot. You can fetch it from 9 o'clock.",
            kind="",
            settings={
                "model.quantization": (
                    "nf4",
                    "The base takes a quarter of the memory; it is slightly less exact.",
                ),
                "method.rank": (8, "Half the usual adapter, and half the memory of its optimiser."),
                "train.batch_tokens": (512, "Little at once needs little memory; the result is the same."),
                "train.recompute": ("on", "Half the memory for activations, a third slower."),
            },
        ),
        Profile(
            GENERAL,
            "Something else",
            "The usual settings, which suit most data.",
            "Questions with answers, conversations or plain text. 100 and more.",
            "Who looks after the greenhouse?",
            "Mr Park does, from Monday to Thursday.",
            kind="",
        ),
    )
}
