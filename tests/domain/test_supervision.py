"""What is wrong with an example, in words with a remedy."""

from typing import Any

from studio.domain.supervision import Sample, Supervision, judge

SAMPLE: dict[str, Any] = {
    "rows": 10,
    "of": 10,
    "longest": 80,
    "longer": 0,
    "empty": 0,
    "answer_tokens": 200,
    "lost_tokens": 0,
}


def seen(sample: dict[str, Any] | None = None, **facts: Any) -> Supervision:
    whole: dict[str, Any] = {
        "row": 1,
        "text": "Q A",
        "spans": [{"text": "Q ", "trained": False}, {"text": "A", "trained": True, "end": "A"}],
        "tokens": 50,
        "trained_tokens": 20,
        "truncated_tokens": 0,
        "lost_tokens": 0,
        "limit": 80,
        "context": 256,
        "over": "ask",
        "pieces": 1,
        "answers": 1,
        "taught": 1,
        "terminator": {"text": "A", "trained": True},
        "sample": SAMPLE | (sample or {}),
    }
    return Supervision.model_validate(whole | facts)


def told(found: Supervision) -> list[tuple[str, str]]:
    return [(finding.level, f"{finding.title}. {finding.why} {finding.remedy}") for finding in judge(found)]


def test_a_sound_example_has_no_findings() -> None:
    assert told(seen()) == []


def test_an_example_without_a_label_says_why() -> None:
    untaught = {"trained_tokens": 0, "taught": 0, "terminator": {"text": "A", "trained": False}}
    level, beyond = told(seen(**untaught, lost_tokens=9, tokens=90, limit=40))[0]
    assert level == "must"
    assert "begins beyond 40 tokens. Set the longest example (`data.max_length`) to 90 tokens" in beyond
    ((_, nobody),) = told(seen(**untaught | {"answers": 0}))
    assert "Say which column holds the answer" in nobody
    ((_, rewritten),) = told(seen(**untaught))
    assert "Choose another model" in rewritten


def test_an_answer_whose_end_is_not_trained_blocks() -> None:
    open_end = {"terminator": {"text": "A", "trained": False}}
    ((level, never),) = told(seen(**open_end))
    assert level == "must"
    assert "The model would never stop" in never
    found = told(seen(**open_end, lost_tokens=3, truncated_tokens=5, tokens=300, limit=256))
    assert [level for level, _ in found] == ["must", "should"]
    assert "reads 256 tokens at most: shorten the examples" in found[0][1]


def test_what_a_run_does_with_a_longer_example_is_said() -> None:
    longer = {"truncated_tokens": 10, "tokens": 90}
    assert "stops before it begins and asks" in told(seen(**longer))[0][1]
    assert "leaves it out" in told(seen(**longer, over="drop"))[0][1]
    (piece,) = told(seen(tokens=90, pieces=2, over="split"))
    assert piece[0] == "note"
    assert "trained in 2 pieces" in piece[1]


def test_the_share_lost_says_what_it_was_counted_in() -> None:
    lost = {"longer": 3, "lost_tokens": 50}
    ((level, all_of_them),) = told(seen(lost))
    assert level == "should"
    assert all_of_them.startswith("25\u202f% of what the answers hold lies beyond 80 tokens. 3 examples are longer")
    assert "counted in all 10 examples." in all_of_them
    assert "a sample: 10 examples of 4,000" in told(seen(lost | {"of": 4000}))[0][1]
    assert "a sample: 10 examples from the beginning of the file" in told(seen(lost | {"of": None}))[0][1]
    assert "Less than 1" in told(seen({"longer": 1, "lost_tokens": 1, "answer_tokens": 900}))[0][1]
    assert "left out whole" in told(seen(lost, over="drop"))[0][1]
    assert told(seen(lost, over="split"))[0][0] == "note"


def test_a_sample_without_answers_has_lost_none() -> None:
    assert Sample(**SAMPLE | {"answer_tokens": 0}).lost == 0


def test_limits_beyond_the_model_and_rows_without_answers_are_told() -> None:
    ((level, beyond),) = told(seen(limit=300))
    assert level == "must"
    assert "the model reads 256" in beyond
    ((_, empty),) = told(seen({"empty": 2}))
    assert empty.startswith("2 examples have nothing to learn")
    ((level, skipped),) = told(seen(answers=3))
    assert (level, skipped[:27]) == ("note", "1 of 3 answers are trained.")
