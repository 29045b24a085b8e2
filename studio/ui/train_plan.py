"""What is chosen in Train so far and what follows from it: every step is drawn from one plan."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from studio.domain.config import TrainingConfig
from studio.domain.document import flat, from_document, to_yaml
from studio.domain.errors import NotFound, StudioError
from studio.domain.profiles import GENERAL, PROFILES, Profile
from studio.domain.quote import Quote
from studio.domain.records import Dataset, Model
from studio.services.models import CONVERTED_BYTES, STARTER
from studio.services.purpose import Suggestion, suggest
from studio.services.recommend import recommend
from studio.services.share import Fitted
from studio.studio import Studio
from studio.ui import knobs
from studio.ui.pieces import note

PURPOSE, DATA, MODEL, SETTINGS, REVIEW = 1, 2, 3, 4, 5  # the steps
# What is chosen: a purpose ("" is the suggested one), data, a model, settings that have no control; what the controls
# were set to last, which of them the user changed, and the text of the YAML that was shown last.
NOTHING: dict[str, Any] = {"profile": "", "data": "", "model": "", "more": {}, "shown": {}, "changed": [], "text": ""}
# What is known of the starter before it is fetched.
AHEAD = Model(id=STARTER, path="", source="", parameters=134_515_008, context=8192, bytes=CONVERTED_BYTES)
SCHEMA = knobs.fields()

Update = dict[Any, Any]  # component: value
Chosen = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a run would be. `config` is there when data is chosen and nothing is wrong; `error` says what is.

    `instead` maps each setting the user changed to what it is when that is taken back.
    """

    chosen: Chosen
    document: dict[str, Any]  # what the user chose and set
    datasets: list[Dataset]
    models: list[Model]
    dataset: Dataset | None
    model: Model | None
    suggestion: Suggestion | None
    profile: Profile
    mine: Mapping[str, Any]  # the settings that are the user's, by key
    config: TrainingConfig | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    instead: dict[str, Any] = field(default_factory=dict)
    error: StudioError | None = None

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def base(self) -> Model | None:
        """The model as far as its size is known: the starter's is before it is fetched."""
        return self.model or (AHEAD if self.chosen["model"] == STARTER else None)

    @property
    def values(self) -> dict[str, Any]:
        """The settings as they will run, by key."""
        return flat(self.config.model_dump()) if self.config else {}


def make(studio: Studio, chosen: Chosen, name: str, mine: Mapping[str, Any]) -> Plan:
    """Return the plan of what is chosen; `mine` are the user's own settings, by key. The rest is recommended anew."""
    kept, here = studio.datasets.list(), studio.models.list()
    dataset = next((each for each in kept if each.id == chosen["data"]), kept[0] if kept else None)
    id = chosen["model"] or (here[0].id if here else STARTER)
    chosen = chosen | {"data": dataset.id if dataset else "", "model": id}
    suggestion = suggest(dataset) if dataset else None
    profile = PROFILES[chosen["profile"] or (suggestion.profile if suggestion else GENERAL)]
    wanted = document(chosen | {"profile": profile.name}, name, mine)
    plan = Plan(chosen, wanted, kept, here, dataset, None, suggestion, profile, mine)
    if not dataset:
        return plan
    try:
        plan = replace(plan, model=studio.models.find(id))
        lengths, facts = studio.datasets.profile(dataset.id).characters, studio.machine.facts()

        def resolve(own: Mapping[str, Any]) -> tuple[TrainingConfig, dict[str, str]]:
            config = from_document(document(chosen | {"profile": profile.name}, name, own))
            if plan.base is None:  # its size is not known yet
                return config, {}
            return recommend(config, plan.base, dataset, facts, lengths)

        config, reasons = resolve(mine)
        instead = {}
        for key in mine:
            if reasons.get(key, "").startswith("You set this"):
                other, _ = resolve({each: value for each, value in mine.items() if each != key})
                instead[key] = flat(other.model_dump())[key]
    except StudioError as error:
        return replace(plan, error=error)
    return replace(plan, config=config, reasons=reasons, instead=instead)


def takes(studio: Studio, plan: Plan) -> dict[str, Quote]:
    """Return what each purpose that suits this data would need with it and the model, by its name."""
    if not (plan.config and plan.dataset and plan.base):
        return {}
    configs = {}
    lengths, facts = studio.datasets.profile(plan.dataset.id).characters, studio.machine.facts()
    for each in PROFILES.values():
        if each.kind not in ("", plan.dataset.kind):
            continue
        with suppress(StudioError):  # what the user set may not go with it
            config = from_document(document(plan.chosen | {"profile": each.name}, plan.name, plan.mine))
            configs[each.name] = recommend(config, plan.base, plan.dataset, facts, lengths)[0]
    return dict(zip(configs, studio.estimates.glance(configs.values(), plan.base, plan.dataset), strict=True))


def document(chosen: Chosen, name: str, mine: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the user chose and set as a document; what is left out is recommended."""
    result: dict[str, Any] = {"name": name, "profile": chosen["profile"] or GENERAL}
    values = chosen["more"] | {"model.id": chosen["model"], "data.path": chosen["data"]} | dict(mine)
    for key, value in values.items():
        group, own = key.split(".")
        result.setdefault(group, {})[own] = value
    return result


def text(plan: Plan) -> str:
    """Return the plan as YAML, without the reasons, which stand beside the form."""
    return to_yaml(plan.config) if plan.config else ""


def remembered(plan: Plan, unread: bool) -> Chosen:
    """Return what is chosen, with what the controls and, unless its text could not be read, the YAML show now."""
    if not plan.config:
        return plan.chosen
    shown = {key: knobs.shown(plan.values[key], field) for key, field in SCHEMA.items()}
    kept = plan.chosen | {"shown": shown, "changed": list(plan.mine)}
    return kept if unread else kept | {"text": text(plan)}


def edited(
    studio: Studio, chosen: Chosen, code: str | None, name: str, seen: dict[str, Any]
) -> tuple[Chosen, str, dict[str, Any]]:
    """Take over what was changed in the YAML since it was shown: what is chosen, the name, the controls' values.

    Raises StudioError when it is no document; then nothing is taken over.
    """
    code = code or ""
    if code.strip() == chosen["text"].strip():
        return chosen, name, seen
    new, old = flat(from_document(parse(code)).model_dump()), flat(parse(chosen["text"]) or {})
    edits = {key: value for key, value in new.items() if key not in old or old[key] != value}
    if "data.path" in edits:
        chosen = chosen | {"data": studio.datasets.get(edits.pop("data.path")).id}
    chosen = chosen | {"profile": edits.pop("profile", chosen["profile"])}
    chosen |= {"model": edits.pop("model.id", chosen["model"])}
    name = edits.pop("name", name)
    own = {key: knobs.shown(value, SCHEMA[key]) for key, value in edits.items() if key in SCHEMA}
    more = {key: value for key, value in edits.items() if key not in SCHEMA}
    return chosen | {"more": chosen["more"] | more}, name, seen | own


def taken(studio: Studio, document: Any) -> tuple[Chosen, str, dict[str, Any], str]:
    """Return what a whole document chooses, its name, what the controls show, and a note if its data is not here.

    Its values become the user's.
    """
    config = from_document(document)
    data, missing = "", ""
    try:
        data = studio.datasets.get(config.data.path).id
    except NotFound:
        words = f"The data of these settings, {Path(config.data.path).name}, is not here."
        missing = note(words, "Choose the data to train on, or add it; the other settings stay.", word="Data")
    own, all_ = flat(document), flat(config.model_dump())
    elsewhere = ("name", "profile", "model.id", "data.path")
    chosen = NOTHING | {
        "profile": config.profile,
        "data": data,
        "model": config.model.id,
        "more": {key: value for key, value in own.items() if key not in SCHEMA and key not in elsewhere},
        "changed": [key for key in SCHEMA if own.get(key, "auto") != "auto"],
    }
    return chosen, config.name, {key: knobs.shown(all_[key], field) for key, field in SCHEMA.items()}, missing


def fitting(fitted: Fitted) -> str:
    """Say what was changed so that imported settings can run here."""
    if not (fitted.changes or fitted.open):
        return note("The settings were imported. All of them can run on this machine.", word="Imported")
    title = (
        "The settings were imported and changed for this machine." if fitted.changes else "The settings were imported."
    )
    return note(title, " ".join([*fitted.changes, *fitted.open]), word="Imported", tone="warn")


def parse(yaml_text: str) -> Any:
    """Read YAML, or JSON, which is YAML too."""
    try:
        return yaml.safe_load(yaml_text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"Line {mark.line + 1} is" if mark else "This is"
        raise StudioError(f"{where} not YAML.", "Each line is `key: value`, indented below its group.") from error


def load(file: Path) -> Any:
    """Read a file of settings."""
    try:
        return parse(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, StudioError) as error:
        raise StudioError(f"{file.name} is not a settings file.", "Choose the YAML file a studio saved.") from error
