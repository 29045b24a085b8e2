"""Every setting is chosen for a user who says nothing, kept for one who says something, and has a reason."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain.config import TrainingConfig
from studio.domain.document import flat, from_document, override
from studio.domain.errors import ModelError
from studio.domain.methods import METHODS
from studio.domain.profiles import PROFILES, Profile
from studio.domain.records import Dataset, Model
from studio.services.check import Lengths
from studio.services.machine import Gpu, MachineFacts
from studio.services.recommend import recommend

ENGINE_DECIDES = {
    "data.max_length",
    "train.precision",
    "train.packing",
    "evaluate.max_new_tokens",
    "hardware.device",
    "hardware.processes",
    "train.recompute",
}
NO_REASON_NEEDED = {"model.id", "model.revision", "data.path", "data.format", "data.map"}  # what is said, not chosen
KEYS = {
    f"{group}.{name}"
    for group, field in TrainingConfig.model_fields.items()
    if group not in ("name", "profile")
    for name in field.annotation.model_fields  # type: ignore[union-attr]
}


def settled(
    *assignments: str,
    parameters: int = 135_000_000,
    rows: int = 180,
    kind: str = "chat",
    card: bool = False,
    **more: Any,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return `group.key` → value and the reasons, for a small machine unless `card`."""
    document = override({"model": {"id": "starter"}, "data": {"path": "a.csv"}}, list(assignments))
    gpu = Gpu(name="Card", memory_bytes=24 * 10**9, memory_free_bytes=0, bf16=True) if card else None
    sizes = {"memory_bytes": 16 * 10**9, "memory_free_bytes": 10**10, "disk_free_bytes": 10**11}
    facts = MachineFacts(processor="", cores=2, gpu=gpu, bf16=card, words="", **sizes)
    model = Model(id="starter", path="", source="", parameters=parameters, context=more.get("context", 8192))
    dataset = Dataset.model_validate(
        dict.fromkeys(("id", "name", "path", "source", "sha256", "format", "created"), "")
        | {"kind": kind, "rows": rows, "usable": rows, "train_rows": rows, "eval_rows": more.get("held", 20)}
    )
    lengths = Lengths(total=more.get("characters", 100 * rows))
    config, reasons = recommend(from_document(document), model, dataset, facts, lengths)
    return flat(config.model_dump(exclude={"name", "profile"})), reasons


def test_much_text_goes_before_the_usual_rank_of_a_purpose() -> None:
    few, _ = settled("profile=domain-text", kind="text", characters=10**6)
    assert few["method.rank"] == 64
    much, reasons = settled("profile=domain-text", kind="text", characters=3 * 10**8)
    assert (much["method.rank"], much["method.alpha"]) == (128, 256)
    assert "trained tokens" in reasons["method.rank"]
    small, _ = settled("profile=small-memory", characters=10**10)
    assert small["method.rank"] == 8, "memory was what mattered"


@pytest.mark.spec("U21.5")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["chat", "text"])
@pytest.mark.parametrize("card", [True, False])
@pytest.mark.parametrize("profile", PROFILES)
def test_model_and_data_are_enough(method: str, kind: str, card: bool, profile: str) -> None:
    values, reasons = settled(f"method.name={method}", f"profile={profile}", kind=kind, card=card)
    unused = {f"method.{knob}" for knob in ("rank", "alpha") if knob not in METHODS[method].knobs}
    assert {key for key, value in values.items() if value == "auto"} <= ENGINE_DECIDES | {"data.format"} | unused
    assert all(METHODS[method].title in reasons[key] for key in unused)
    assert set(reasons) >= KEYS - NO_REASON_NEEDED
    assert all(reason.endswith(".") and "\n" not in reason for reason in reasons.values())
    mine = [key for key, reason in reasons.items() if "You set this" in reason]
    assert mine == [], "nothing but the method was set"


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "train.epochs": st.integers(1, 50),
            "train.learning_rate": st.sampled_from([1e-5, 3e-4, 0.01]),
            "train.effective_rows": st.integers(1, 64),
            "train.batch_tokens": st.integers(64, 10_000),
            "train.max_steps": st.integers(0, 500),
            "train.seed": st.integers(0, 100),
            "evaluate.every": st.integers(1, 50),
            "method.rank": st.integers(1, 128),
            "method.alpha": st.integers(1, 256),
            "data.max_length": st.integers(64, 4096),
        },
    ),
    st.integers(1, 100_000),
    st.sampled_from(["chat", "text"]),
    st.sampled_from(list(PROFILES)),
)
def test_what_the_user_sets_stays(chosen: dict[str, Any], rows: int, kind: str, profile: str) -> None:
    purpose = f"profile={profile}"
    values, reasons = settled(purpose, *(f"{key}={value}" for key, value in chosen.items()), rows=rows, kind=kind)
    assert {key: values[key] for key in chosen} == chosen
    resolved = (f"{key}={value}" for key, value in values.items() if value not in ("auto", "", {}))
    again, why = settled(purpose, *resolved, rows=rows, kind=kind)
    assert again == values, "settings that were resolved once are taken as they are"
    assert set(why) == set(reasons)


def test_a_choice_of_the_user_s_stands_beside_the_recommendation() -> None:
    _, reasons = settled("train.epochs=9", "train.seed=7")
    assert reasons["train.epochs"].startswith("You set this. Recommended: 3.")
    assert reasons["train.seed"].startswith("You set this. Usual: 42. Any number does")


@pytest.mark.spec("U4.3")
def test_larger_models_get_smaller_rates() -> None:
    rates = [settled(parameters=size)[0]["train.learning_rate"] for size in (10**8, 10**9, 4 * 10**9, 7 * 10**10)]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == 4


@pytest.mark.spec("U4.3")
@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_more_rows_mean_fewer_passes_and_larger_steps(one: int, other: int) -> None:
    (few, _), (many, _) = (settled(rows=rows) for rows in sorted((one, other)))
    assert few["train.epochs"] >= many["train.epochs"]
    assert few["train.effective_rows"] <= many["train.effective_rows"] <= max(one, other)


@pytest.mark.spec("U22.2", "U4.3")
def test_what_is_done_at_once_and_how_exactly_follows_from_the_machine() -> None:
    (card, why), (alone, _) = settled(card=True), settled(card=False)
    assert card["train.batch_tokens"] > alone["train.batch_tokens"]
    assert card["train.effective_rows"] == alone["train.effective_rows"], "a correction is the same on both"
    assert card["train.precision"] == "auto", "the engine tries which is faster here"
    assert "hardware" in why["train.precision"]


def test_a_step_limit_alone_says_how_long() -> None:
    values, reasons = settled("train.max_steps=15")
    assert values["train.epochs"] == "auto"
    assert values["evaluate.every"] == 3
    assert "alone" in reasons["train.max_steps"]


def test_the_held_out_loss_is_checked_about_five_times() -> None:
    values, _ = settled("train.effective_rows=8", "train.epochs=4", rows=800)
    assert values["evaluate.every"] == 80  # of 400 steps


def test_a_long_text_counts_as_many_pieces() -> None:
    values, reasons = settled(kind="text", rows=1, held=0, characters=4 * 1024 * 900)
    assert values["data.max_length"] == 1024
    assert "900 pieces" in reasons["train.epochs"]
    assert settled(kind="text", context=512)[0]["data.max_length"] == 512


def test_a_model_of_unknown_size_gets_a_rate_all_the_same() -> None:
    values, reasons = settled(parameters=0)
    assert values["train.learning_rate"] > 0
    assert "not known" in reasons["train.learning_rate"]


@pytest.mark.spec("U23.2", "U21.2")
@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_a_purpose_sets_its_values_with_their_reasons(profile: Profile) -> None:
    kind = profile.kind or "chat"
    values, reasons = settled(f"profile={profile.name}", kind=kind)
    usual, _ = settled(kind=kind)
    for key, (value, why) in profile.settings.items():
        assert values[key] == value != usual[key]
        assert reasons[key] == why
    for key, (factor, why) in profile.times.items():
        assert values[key] == usual[key] * factor
        assert reasons[key].endswith(why)
    mine = {key: usual[key] for key in profile.settings if usual[key] != "auto"}
    own, _ = settled(f"profile={profile.name}", *(f"{key}={value}" for key, value in mine.items()), kind=kind)
    assert {key: own[key] for key in mine} == mine, "what the user sets goes before the purpose"


@pytest.mark.spec("U23.4")
def test_a_chatbot_reads_as_far_as_a_conversation() -> None:
    values, _ = settled("profile=chatbot")
    assert (values["data.max_length"], values["data.over_length"]) == (2048, "split")
    assert settled("profile=chatbot", context=1024)[0]["data.max_length"] == 1024, "as far as the model reaches"


@pytest.mark.spec("U23.5")
def test_code_learns_whole_files_calmly() -> None:
    values, reasons = settled("profile=code")
    usual, _ = settled()
    assert values["data.max_length"] == 4096
    assert values["train.learning_rate"] < usual["train.learning_rate"]
    assert values["method.rank"] > usual["method.rank"]
    assert "sign" in reasons["train.learning_rate"]


def test_a_method_is_not_asked_for_what_it_cannot_do() -> None:
    values, reasons = settled("profile=small-memory", "method.name=prefix")
    assert values["train.recompute"] == "auto"
    assert "recompute" not in reasons["train.recompute"]
    assert settled("profile=small-memory", "method.name=pissa")[0]["model.quantization"] == "none"
    assert settled("profile=small-memory", "hardware.sharding=fsdp")[0]["model.quantization"] == "none"


def test_a_length_beyond_the_models_context_is_refused() -> None:
    document, _ = settled("data.max_length=2048")
    assert document["data.max_length"] == 2048
    with pytest.raises(ModelError, match="is 999,999 tokens"):
        settled("data.max_length=999999")
