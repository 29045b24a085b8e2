"""A model elsewhere says which of two answers is better: any endpoint that speaks OpenAI's chat completions.

Each pair is asked twice, the second time in the other order: a judge that prefers what stands first cancels itself out.
The key is read from the environment (PEFT_STUDIO_JUDGE_KEY), sent to the endpoint alone and kept nowhere.
"""

import os
import random
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from studio.domain.errors import StudioError
from studio.domain.events import Phase, Report, ignore

KEY = "PEFT_STUDIO_JUDGE_KEY"
TIMEOUT, TRIES, PAUSE = 120.0, 4, 2.0  # seconds for an answer, attempts, seconds before the second one
RESAMPLES = 2000
TASK = (
    "You compare two answers to a question. Judge by how right and helpful they are, measured by the reference answer; "
    "not by length or order. Reply with one letter: A if answer A is better, B if answer B is better, T for a tie."
)
ASKED = (
    "Question:\n{prompt}\n\nReference answer:\n{expected}\n\nAnswer A:\n{first}\n\nAnswer B:\n{second}\n\n"
    "Which is better: A, B or T?"
)


@dataclass(frozen=True)
class Judge:
    """An endpoint such as http://localhost:11434/v1, and the name of a model there."""

    url: str
    model: str

    def compare(self, samples: Sequence[Mapping[str, str]], seed: int = 42, report: Report = ignore) -> dict[str, Any]:
        """Return how often the adapter's answer is better than the base's, with the mean preference from -1 to 1.

        A pair's preference is the mean of its two askings. `swayed` counts pairs of which the order decided.
        """
        if not samples:
            raise StudioError("There are no answers to judge.", "Let both models write some: --answers 24.")
        preferences, swayed = [], 0
        with httpx.Client(timeout=TIMEOUT, headers=self._headers()) as client:
            for done, pair in enumerate(samples):
                report(Phase(words=f"Asking {self.model}", done=done, total=len(samples), unit="pairs"))
                one = -self._ask(client, pair, pair["base"], pair["adapter"])
                two = self._ask(client, pair, pair["adapter"], pair["base"])
                preferences.append((one + two) / 2)
                swayed += one * two < 0
        found = difference(preferences, seed)
        wins, losses = (sum(sign * each > 0 for each in preferences) for sign in (1, -1))
        ties = len(samples) - wins - losses
        word = "Better" if found["low"] > 0 else "Worse" if found["high"] < 0 else "Not better"
        return {
            "model": self.model,
            "pairs": len(samples),
            "wins": wins,
            "ties": ties,
            "losses": losses,
            "swayed": swayed,
            "difference": found,
            "verdict": f"{word} by {self.model}: of {len(samples)} pairs {wins} won, {losses} lost, {ties} tied.",
        }

    def _headers(self) -> dict[str, str]:
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise StudioError(f"{self.url} is no address of a judge.", "It looks like http://localhost:11434/v1.")
        key = os.environ.get(KEY)
        if key and address.scheme == "http" and address.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise StudioError(f"The key would cross the network readable to all: {self.url}.", "Use an https address.")
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _ask(self, client: httpx.Client, pair: Mapping[str, str], first: str, second: str) -> int:
        """Return 1 when the first of two answers is preferred, -1 when the second is, 0 for a tie."""
        asked = ASKED.format(prompt=pair["prompt"], expected=pair["expected"], first=first, second=second)
        messages = [{"role": "system", "content": TASK}, {"role": "user", "content": asked}]
        body = {"model": self.model, "messages": messages, "temperature": 0}
        for attempt in range(TRIES):
            try:
                answer = client.post(f"{self.url.rstrip('/')}/chat/completions", json=body)
            except httpx.HTTPError as error:
                raise StudioError(
                    f"The judge at {self.url} does not answer.", "Check the address, or start it."
                ) from error
            if answer.status_code != 429 and answer.status_code < 500:
                break
            if attempt < TRIES - 1:
                time.sleep(PAUSE * 2**attempt)
        return _read(answer, self.url)


def _read(answer: httpx.Response, url: str) -> int:
    """Return a judge's choice; what names neither answer is a tie."""
    if answer.status_code in (401, 403):
        raise StudioError(f"The judge at {url} refuses the key.", f"Set {KEY} to one that is valid there.")
    try:
        answer.raise_for_status()
        said = str(answer.json()["choices"][0]["message"]["content"] or "")
    except httpx.HTTPStatusError as error:
        raise StudioError(
            f"The judge at {url} answers with an error, {answer.status_code}.",
            "Check the address and the model's name.",
        ) from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise StudioError(
            f"{url} does not speak the chat completions protocol.", "The address often ends in /v1."
        ) from error
    found = re.findall(r"\b([ABT])\b(?! tie)", said)
    return {"A": 1, "B": -1}.get(found[-1] if found else "", 0)


def difference(preferences: Sequence[float], seed: int) -> dict[str, float]:
    """Return the mean of paired preferences with its 95 % interval and p, by a bootstrap over the pairs."""
    chance = random.Random(seed)
    drawn = sorted(statistics.fmean(chance.choices(preferences, k=len(preferences))) for _ in range(RESAMPLES))
    beyond = 2 * min(sum(each <= 0 for each in drawn), sum(each >= 0 for each in drawn)) / RESAMPLES
    return {
        "mean": statistics.fmean(preferences),
        "low": drawn[round(0.025 * (RESAMPLES - 1))],
        "high": drawn[round(0.975 * (RESAMPLES - 1))],
        "p": min(1.0, max(beyond, 1 / RESAMPLES)),
    }
