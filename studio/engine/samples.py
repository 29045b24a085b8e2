"""The same few questions asked at every check, to see how the answers change."""

from typing import Any

import torch

from studio.domain.config import EvaluateConfig
from studio.engine import evaluate, tokens

SHARE = 0.05  # of a run's time that all its samples may take
STEP = 14  # tokens trained in the time one token is answered to all questions, on a processor
LEAST, MOST = 8, 64  # tokens of an answer


class Samples:
    """Held-out questions and the user's own prompts, with the rendered text the model goes on from."""

    def __init__(
        self,
        tokenizer: Any,
        held: list[dict[str, Any]],
        config: EvaluateConfig,
        trained_tokens: float,
        checks: float,
        device: torch.device,
    ) -> None:
        """`held` are canonical examples; `trained_tokens` and `checks` are those of the whole run."""
        asked = [each for each in held if "messages" in each and each["messages"][-1]["content"]][: config.samples]
        asked += [{"messages": [{"role": "user", "content": each}, {"content": ""}]} for each in config.prompts]
        talks = [example["messages"] for example in asked]
        self.questions = [(talk[-2]["content"] if len(talk) > 1 else "", talk[-1]["content"]) for talk in talks]
        self.texts = [tokens.question(tokenizer, example) for example in asked]
        self.tokenizer, self.device = tokenizer, device
        room = int(SHARE * trained_tokens / checks / STEP)
        self.room = min(MOST, max(LEAST, room))

    def ask(self, model: Any) -> list[dict[str, str]]:
        """Answer greedily, at most `room` tokens each; nothing is asked when there are no questions."""
        if not self.texts:
            return []
        model.eval()
        said = evaluate.answer_all(model, self.tokenizer, self.texts, self.room, self.device, lambda done, total: None)
        return [
            {"prompt": prompt, "expected": expected, "text": text}
            for (prompt, expected), text in zip(self.questions, said, strict=True)
        ]
