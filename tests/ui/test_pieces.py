"""Whatever stands in a name, a cell or an error, the page shows it and never runs it."""

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.ui import pieces

PIECES: dict[str, Callable[[str], str]] = {
    "head": lambda t: pieces.head(t, t),
    "section": lambda t: pieces.section(t, t),
    "muted": pieces.muted,
    "bar": lambda t: pieces.bar(t, t, {"id": t, "name": t, "figure": t, "left": t}),
    "facts": lambda t: pieces.facts([{"label": t, "value": t, "unit": t, "note": t, "tone": t}]),
    "rows": lambda t: pieces.rows(
        [{"id": t, "title": t, "text": t, "meta": [t], "state": t, "tone": t, "percent": 3}], t
    ),
    "rows, empty": lambda t: pieces.rows([], t, t),
    "note": lambda t: pieces.note(t, t, word=t, tone=t),
    "busy": lambda t: pieces.busy(t, 1, 2),
    "definitions": lambda t: pieces.definitions([(t, t)]),
    "example": lambda t: pieces.example({"messages": [{"role": t, "content": t}]}),
    "text": lambda t: pieces.example({"text": t}),
}
NASTY = [
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)",
    "${alert(1)}",
    "{{ 7 * 7 }}{% for x in y %}",
    "`<b>x</b>` \\` \\",
    "&lt;script&gt;",
]


class Reader(HTMLParser):
    """Collects tags, attribute names and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("text", NASTY)
def test_text_stays_text(name: str, text: str) -> None:
    plain, filled = read(PIECES[name]("word")), read(PIECES[name](text))
    assert set(filled.tags) - {"code"} == set(plain.tags)
    assert filled.attributes == plain.attributes
    assert text.replace("`", "") in filled.text.replace("`", "")


@given(text=st.text(min_size=1, max_size=40))
@pytest.mark.parametrize("name", PIECES)
def test_any_text_stays_text(name: str, text: str) -> None:
    ours = {"code", "dfn", "button", "span", "b"}  # names in backticks, terms that are explained
    assert set(read(PIECES[name](text)).tags) - ours <= set(read(PIECES[name]("word")).tags)


def test_names_in_backticks_are_shown_as_code() -> None:
    assert "<code>agent_reply</code>" in pieces.note("Row 41 has no `agent_reply`.", "Map it.")
    assert "<code>&lt;b&gt;</code>" in pieces.note("`<b>`")


def test_the_trained_part_of_an_example_is_marked() -> None:
    turns = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}]
    shown = pieces.example({"messages": turns})
    assert re.findall("<p><mark>(.*?)</mark></p>", shown) == ["There."]
    assert "Where?" in shown
    assert "<mark>A whole text.</mark>" in pieces.example({"text": "A whole text."})


def test_rows_are_buttons_in_a_labelled_list() -> None:
    shown = pieces.rows([{"id": 1, "title": "a", "selected": True}, {"id": 2, "title": "b", "selected": False}], "Runs")
    assert shown.count("<button") == 2
    assert 'aria-label="Runs"' in shown
    assert re.findall('aria-pressed="(.*?)"', shown) == ["true", "false"]


def test_a_figure_without_a_value_is_left_out() -> None:
    cells = [{"label": "Loss", "value": ""}, {"label": "Speed", "value": None}, {"label": "Rows", "value": "0"}]
    shown = pieces.facts(cells)
    assert "Loss" not in shown
    assert "Speed" not in shown
    assert "Rows" in shown


def test_progress_is_full_only_as_far_as_it_is_known() -> None:
    assert 'max="200"' in pieces.busy("Reading", 50, 200)
    assert "max=" not in pieces.busy("Reading")


@pytest.mark.spec("U21.4")
def test_a_term_says_what_it_means_where_it_stands() -> None:
    shown = pieces.section("Settings", "The rank, and `rank` again; <b>loss</b>.")
    id = re.search('popovertarget="(.+?)">rank</button>', shown)
    assert id
    assert f'<span popover id="{id[1]}" role="note"><b>rank</b> How much an adapter can hold' in shown
    assert shown.count(">rank</button>") == 1, "once in a text"
    assert "<code>rank</code>" in shown
    assert "&lt;b&gt;" in shown
    assert pieces.section("Settings", "The rank, and `rank` again; <b>loss</b>.") == shown, "nothing moves"
