"""From examples to tokens: render with the model's template, mark what the assistant writes, keep the result."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from studio.domain.errors import DataError, ModelError
from studio.engine import quick_tokens
from studio.engine.quick_tokens import Differs, Quick
from studio.engine.rows import Row, Table, Writer
from studio.engine.templates import RefusedError, render_all, warm

# For base models without a chat template; it travels with the adapter.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
BATCH = 1000  # rows tokenised at once
VERSION = 1  # of what `encode` makes; a new one tokenises again
Message = dict[str, Any]
Tokens = tuple[np.ndarray, np.ndarray]  # ids [T], and which of them are trained [T]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model folder, with a token to pad with."""
    warm()  # its template will be asked next
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"The tokenizer in {folder.name} cannot be loaded: {error}", "Fetch the model again, or choose another."
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def template_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the chat template, giving the tokenizer the plain one when it has none."""
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
    if not isinstance(tokenizer.chat_template, str):  # several named ones: take the default
        tokenizer.chat_template = tokenizer.get_chat_template()
    return str(tokenizer.chat_template)


def template_hash(template: str) -> str:
    return hashlib.sha256(template.encode()).hexdigest()


def render(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], prompt: bool = False, tools: list[Any] | None = None
) -> str:
    """Return the text of a conversation; with `prompt`, up to where the assistant begins to write."""
    try:
        return render_all(tokenizer, [messages], prompt, tools)[0]
    except RefusedError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise DataError(
            f"The model's chat template refuses a conversation of {roles}: {error.message.rstrip('.')}.",
            "Most templates want user and assistant in turn, with at most one instruction first.",
        ) from error


def question(tokenizer: PreTrainedTokenizerBase, example: dict[str, Any]) -> str:
    """Return the text of an example up to its last answer."""
    return render(tokenizer, example["messages"][:-1], prompt=True, tools=example.get("tools"))


def spans(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    text: str = "",
    before_last: str = "",
    tools: list[Any] | None = None,
) -> tuple[str, list[tuple[int, int]]]:
    """Return the rendered text and the character spans the assistant writes, each with its terminator.

    A turn's span is what the text up to it, with the generation prompt, lacks to the text including it. Templates
    that render an early turn differently once others follow (Qwen3 drops its thinking) train the last turn only.
    `text` and `before_last` are the whole conversation and what comes before its last turn, where they are known.
    """
    text, found, last = text or render(tokenizer, messages, tools=tools), [], len(messages) - 1
    _must_tell_tools(tokenizer, text, messages, tools)
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or message.get("weight") == 0:
            continue
        known = before_last if index == last else ""
        before = known or render(tokenizer, messages[:index], prompt=True, tools=tools)
        after = render(tokenizer, messages[: index + 1], tools=tools) if index < last else text
        if text.startswith(before) and text.startswith(after) and len(after) > len(before):
            found.append((len(before), len(after)))
    eos = str(tokenizer.eos_token or "")
    if eos and found and found[-1][1] == len(text) and eos not in text[slice(*found[-1])]:
        text += eos  # the template ends without a terminator: the model would never learn to stop
        found[-1] = (found[-1][0], len(text))
    return text, [(start, start + len(text[start:end].rstrip())) for start, end in found]


def _must_tell_tools(tokenizer: Any, text: str, messages: list[Message], tools: list[Any] | None) -> None:
    """Refuse a template that leaves tools or their calls out: the model would learn to answer with nothing."""
    bare = [{key: value for key, value in message.items() if key != "tool_calls"} for message in messages]
    for what, there, less in (("tools", tools, (messages, None)), ("tool calls", bare != messages, (bare, tools))):
        try:
            left_out = there and render(tokenizer, less[0], tools=less[1]) == text
        except DataError:  # it misses them
            continue
        if left_out:
            raise DataError(
                f"The model's chat template leaves out {what}.",
                "Choose a model whose template knows tools, or data without them.",
            )


def _rendered(tokenizer: Any, examples: list[dict[str, Any]]) -> list[tuple[str, list[tuple[int, int]]]]:
    """Return text and spans of each example. All are rendered in two calls."""
    talks = [example["messages"] for example in examples if "messages" in example and "tools" not in example]
    try:
        texts = render_all(tokenizer, talks)
        befores = render_all(tokenizer, [talk[:-1] for talk in talks], prompt=True)
    except RefusedError:  # one by one then: the one refused is named
        texts = befores = [""] * len(talks)
    known = zip(texts, befores, strict=True)
    end = str(tokenizer.eos_token or "")
    found = []
    for example in examples:
        if "tools" in example:
            found.append(spans(tokenizer, example["messages"], tools=example["tools"]))
        elif "messages" in example:
            found.append(spans(tokenizer, example["messages"], *next(known)))
        else:
            found.append((text := example["text"] + end, [(0, len(text))]))
    return found


def encode(tokenizer: PreTrainedTokenizerBase, examples: list[dict[str, Any]], quick: Quick | None = None) -> list[Row]:
    """Tokenise canonical examples: of a conversation the assistant's spans are trained, of plain text every token.

    `quick` gives the same tokens sooner, or raises Differs.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            "This model's tokenizer cannot tell where its tokens stand in the text.", "Choose another model."
        )
    rendered = _rendered(tokenizer, examples)
    texts, wanted = [text for text, _ in rendered], [found for _, found in rendered]
    _whole(tokenizer)
    made = zip(
        _apart(tokenizer, texts, wanted, quick) if splits(tokenizer) else _by_offsets(tokenizer, texts, wanted),
        examples,
        strict=True,
    )
    return [Row(ids, trained, int(example.get("row", 0))) for (ids, trained), example in made]


def _whole(tokenizer: Any) -> Any:
    """Return what tokenises, set to give whole texts: some are saved otherwise, or were left so by a padded batch."""
    backend = tokenizer.backend_tokenizer
    if backend.truncation or backend.padding:
        backend.no_truncation()
        backend.no_padding()
    return backend


def placed(tokenizer: Any, example: dict[str, Any]) -> tuple[str, Row, list[int]]:
    """Return an example's text, its row as `encode` makes it, and where in the text each token begins."""
    ((text, found),) = _rendered(tokenizer, [example])
    (row,) = encode(tokenizer, [example])
    edges = [0, *(edge for span in found for edge in span), len(text)]
    backend = tokenizer.backend_tokenizer
    cuts, parts = [0], [backend.encode(text, add_special_tokens=False)]
    if parts[0].ids != row.ids.tolist():  # prompt and answers were tokenised apart
        cuts = edges[:-1]
        parts = [backend.encode(text[start:end], add_special_tokens=False) for start, end in pairwise(edges)]
    starts, reached = [], 0
    for start, end in ((cut + a, cut + b) for cut, part in zip(cuts, parts, strict=True) for a, b in part.offsets):
        # some tokenizers leave the space before a word out of its place: it belongs to the word, as it does in the id
        starts.append(next((edge for edge in edges if reached <= edge <= start), reached))
        reached = max(reached, end)
    return text, row, starts


def splits(tokenizer: Any) -> bool:
    """Whether prompt and answer give the same tokens apart as side by side; tokenizers that mark a beginning do not."""
    whole = ["<s>user\n", "The sky", " is blue.", str(tokenizer.eos_token or ""), "\n", "user\nWhere?"]
    backend = tokenizer.backend_tokenizer
    parts = [token for each in backend.encode_batch(whole, add_special_tokens=False) for token in each.ids]
    return bool(parts == backend.encode("".join(whole), add_special_tokens=False).ids)


def _apart(
    tokenizer: Any, texts: list[str], wanted: list[list[tuple[int, int]]], quick: Quick | None = None
) -> Iterator[Tokens]:
    """Tokenise prompt and answers apart, as they are when the model is asked; no place of a token is needed then."""
    pieces, answers, number = [], [], []  # pieces of all texts, whether each is an answer, and how many a text has
    for text, found in zip(texts, wanted, strict=True):
        edges = [0, *(edge for span in found for edge in span), len(text)]
        pieces += [text[start:end] for start, end in pairwise(edges)]
        answers += [index % 2 == 1 for index in range(len(edges) - 1)]
        number.append(len(edges) - 1)
    ids, lengths = quick(pieces) if quick else quick_tokens.encode(tokenizer.backend_tokenizer, pieces)
    trained = np.repeat(answers, lengths)
    ends = np.cumsum(lengths)[np.cumsum(number) - 1]
    for start, end in pairwise([0, *ends]):
        yield ids[start:end], trained[start:end]


def _by_offsets(tokenizer: Any, texts: list[str], wanted: list[list[tuple[int, int]]]) -> Iterator[Tokens]:
    """Tokenise whole texts and look where each token stands; apart only where a token would span prompt and answer."""
    encoded = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    for text, row, found in zip(texts, encoded, wanted, strict=True):
        starts, ends = np.asarray(row.offsets, np.int64).reshape(-1, 2).T
        if any(((starts < edge) & (edge < ends)).any() for span in found for edge in span):
            yield from _apart(tokenizer, [text], [found])
            continue
        trained = np.zeros(len(starts), bool)
        for start, end in found:
            trained |= (starts >= start) & (starts < end)
        yield np.asarray(row.ids, np.int32), trained


def read(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield the canonical examples of a file in batches."""
    batch: list[dict[str, Any]] = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            batch.append(json.loads(line))
            if len(batch) == BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def _ahead(pool: ThreadPoolExecutor, tokenizer: Any, examples: Path, quick: Quick | None) -> Iterator[list[Row]]:
    """Encode a few batches ahead: one is rendered while the tokenizer, which needs no Python, works on another."""
    pending: deque[Future[list[Row]]] = deque()
    for batch in read(examples):
        pending.append(pool.submit(encode, tokenizer, batch, quick))
        if len(pending) > 2:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _quick(tokenizer: Any, examples: Path) -> Quick | None:
    """Return the quicker encoder where there is much to do and it is known to give the same."""
    backend = _whole(tokenizer)
    if examples.stat().st_size < quick_tokens.WORTH or not quick_tokens.known(backend):
        return None
    try:
        return Quick(backend)
    except (ImportError, ValueError):  # no build for this system, or a tokenizer it cannot read
        return None


def tokenise(
    tokenizer: PreTrainedTokenizerBase, examples: Path, template: str, told: Callable[[int], None] = lambda rows: None
) -> Table:
    """Return a file's examples as rows, from the copy kept beside it if there is one.

    The copy is found by the file's bytes, the tokenizer and the template; a length limit is applied later. It is
    mapped into memory, not read.
    """
    if not examples.exists():
        return Table.of([])
    digest = hashlib.sha256(f"{VERSION} {version('tokenizers')} {version('transformers')}".encode())
    with open(examples, "rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    backend: Any = tokenizer.backend_tokenizer
    digest.update(backend.to_str().encode())
    digest.update(f"{template}\0{tokenizer.special_tokens_map}".encode())
    kept = examples.parent / "tokens" / f"{examples.stem}-{digest.hexdigest()[:16]}"
    if not kept.exists():
        try:
            _keep(tokenizer, examples, kept, _quick(tokenizer, examples), told)
        except Differs:
            _keep(tokenizer, examples, kept, None, told)
    return Table.load(kept)


def _keep(tokenizer: Any, examples: Path, kept: Path, quick: Quick | None, told: Callable[[int], None]) -> None:
    done = 0
    with Writer(kept) as writer, ThreadPoolExecutor(2) as pool:
        for rows in _ahead(pool, tokenizer, examples, quick):
            writer.add(rows)
            told(done := done + len(rows))
