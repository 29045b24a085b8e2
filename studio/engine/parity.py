"""Does an exported model answer as the adapter does? Its next tokens are compared with the adapter's own."""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch.nn import functional

from studio.engine import generate

ROOM = 24  # tokens of an answer that are compared
AGREE, DIVERGE = 0.95, 0.05  # tokens that must be the same; nats a token the predictions may differ by on average
TIE = 0.1  # nats between two tokens that the adapter itself finds as good as equal


@dataclass(frozen=True)
class Parity:
    """`agreement` is the share of answer tokens that both find likeliest; a tie of the adapter's own is no difference.

    `divergence` is the mean KL divergence from the adapter's predictions, in nats a token.
    """

    ok: bool
    prompts: int
    tokens: int
    agreement: float
    divergence: float
    same_tokens: bool  # whether the exported tokenizer gives the same tokens
    by: str  # what read the export
    words: str

    def facts(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Answer:
    """What the adapter said to one prompt: all tokens [T], where the answer begins, and its logits there [A, V]."""

    text: str
    ids: torch.Tensor
    start: int
    logits: torch.Tensor


def answers(model: Any, tokenizer: Any, prompts: list[str]) -> list[Answer]:
    """Let a model answer rendered prompts, always with the likeliest token."""
    found = []
    for text in prompts:
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"].to(model.device)
        chosen = generate.settings(model, tokenizer, ROOM)
        with torch.inference_mode():
            whole = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=chosen
            )  # [1, T]
        found.append(Answer(text, whole[0], ids.shape[1], _logits(model, whole[0], ids.shape[1])))
    return found


class Reader(Protocol):
    """An exported model and its tokenizer, whoever reads them."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, token: int) -> str: ...

    def logs(self, answer: Answer) -> torch.Tensor:
        """Return the log probabilities of all tokens at each place of the answer [A, V]."""


@dataclass(frozen=True)
class Transformers:
    """A model read by transformers."""

    model: Any
    tokenizer: Any

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, token: int) -> str:
        return str(self.tokenizer.decode([token]))

    def logs(self, answer: Answer) -> torch.Tensor:
        return functional.log_softmax(_logits(self.model, answer.ids, answer.start), -1)


def compare(reader: Reader, expected: list[Answer], by: str = "transformers") -> Parity:
    """Return how far a model's predictions for the adapter's answers are the adapter's own."""
    same = total = 0
    divergence, parted, tokens_equal = 0.0, "", True
    for number, answer in enumerate(expected):
        tokens_equal &= reader.encode(answer.text) == answer.ids[: answer.start].tolist()
        logs = functional.log_softmax(answer.logits, -1), reader.logs(answer)
        left, right = (each.argmax(-1) for each in logs)
        best, other = (logs[0].gather(1, each[:, None])[:, 0] for each in (left, right))
        equal = best - other < TIE
        same, total = same + int(equal.sum()), total + len(equal)
        divergence += float(functional.kl_div(logs[1], logs[0], log_target=True, reduction="sum"))
        if not parted and not equal.all():
            place = int((~equal).nonzero()[0])
            pair = (reader.decode(int(each[place])) for each in (left, right))
            parted = "They part at token {} of answer {}: “{}” there, “{}” here.".format(place + 1, number + 1, *pair)
    agreement, mean = same / max(total, 1), divergence / max(total, 1)
    ok = tokens_equal and agreement >= AGREE and mean <= DIVERGE
    words = f"{same:,} of {total:,} tokens are the adapter's own"
    if mean > DIVERGE:
        words += f"; its predictions are {mean:.2g} nats a token away"
    if not tokens_equal:
        words += "; its tokenizer gives other tokens"
    return Parity(ok, len(expected), total, agreement, mean, tokens_equal, by, f"{words}. {parted}".strip())


def _logits(model: Any, ids: torch.Tensor, start: int) -> torch.Tensor:
    """Return the predictions of the tokens from `start` on, in fp32 on the processor [A, V]."""
    with torch.inference_mode():
        out = model(input_ids=ids[None].to(model.device)).logits[0, start - 1 : -1]
    return out.float().cpu()
