"""Findings on the page: the worst first, each with rows that have it, what a repair would change, and its switch."""

from typing import Any

from studio.domain import words
from studio.services.check import Check
from studio.ui.pieces import html, section

LISTED = 5  # problems shown
ROWS = 8  # row numbers shown
# Kinds that may be meant; the others are never good for a model.
MILD = {"near-duplicates", "length-outliers", "languages", "label-imbalance", "over-length"}
KEPT_AS_IT_IS = "The original file is never changed. A repair is done to the copy the studio keeps."


def shown(check: Check, kept: bool = False) -> str:
    """Return what was found in a file, with a switch for each repair unless the data set is already `kept`."""
    items = [*_problems(check), *({"word": "Should fix", "tone": "warn", "title": text} for text in check.warnings)]
    for finding in check.findings:
        mild = finding.kind in MILD
        more = finding.count - len(finding.rows[:ROWS])
        items.append(
            {
                "word": "Look at" if mild else "Should fix",
                "tone": "" if mild else "warn",
                "title": finding.title,
                "lines": [finding.why],
                "rows": ("Rows " if finding.count > 1 else "Row ")
                + ", ".join(f"{row:,}" for row in finding.rows[:ROWS])
                + (f" and {more:,} more" if more else ""),
                "examples": finding.examples,
                "repair": "" if kept else finding.repair,
                "remedy": finding.remedy,
            }
        )
    done = [f"{kind}, {words.plural(number, 'row')}" for kind, number in check.repaired.items()]
    if done:
        items.insert(0, {"word": "Repaired", "tone": "good", "title": f"When it was added: {'; '.join(done)}"})
    return section("Findings", KEPT_AS_IT_IS if not kept else "") + listed(items) if items else ""


def _problems(check: Check) -> list[dict[str, Any]]:
    bad, problems = check.problem_count, check.problems[:LISTED]
    if not bad:
        return []
    remedies = list(dict.fromkeys(each.remedy for each in problems))
    same = len(remedies) == 1  # then it is said once
    lines = [each.problem if same else f"{each.problem} {each.remedy}" for each in problems]
    more = f"And {bad - len(problems):,} more." if bad > len(problems) else ""
    lines += [f"{more} {remedies[0] if same else ''}".strip()]
    title = f"{words.plural(bad, 'row')} cannot be used"
    return [{"word": "Must fix", "tone": "bad", "title": title, "lines": [line for line in lines if line]}]


def listed(items: list[dict[str, Any]]) -> str:
    """Return the list. A switch has the repair as its id, which a block of `choices` answers to."""
    return html(
        """<ul class="findings">{% for it in items %}<li><em class="{{ it.tone }}">{{ it.word }}</em>
<div><b>{{ it.title }}</b>{% for line in it.lines %}<p>{{ line | code }}</p>{% endfor %}
{% if it.rows %}<details><summary>{{ it.rows }}</summary>
{% for each in it.examples %}<dl class="change"><dt>Row {{ each.row }}</dt>
<dd>{% if each.after is none %}{{ each.before }} <i>left out by the repair</i>{% if each.like %}</dd>
<dt>Row {{ each.like }} stays</dt><dd>{{ each.like_text }}{% endif %}
{% else %}<del>{{ each.before }}</del><ins>{{ each.after }}</ins>{% endif %}</dd></dl>{% endfor %}</details>{% endif %}
{% if it.repair %}<label><input type="checkbox" data-id="{{ it.repair }}">
<span><b>Repair this</b> {{ it.remedy }}</span></label>
{% elif it.remedy %}<p>{{ it.remedy }}</p>{% endif %}</div></li>{% endfor %}</ul>""",
        items=items,
    )


def toggled(file: dict[str, Any], repair: str) -> dict[str, Any]:
    """Return the file being added with a repair switched on or off."""
    chosen = [each for each in file["repairs"] if each != repair]
    return file | {"repairs": chosen if len(chosen) < len(file["repairs"]) else [*chosen, repair]}


def bad_rows(file: dict[str, Any]) -> int:
    """Return how many rows cannot be used once the chosen repairs are done."""
    return int(file["bad"]) - sum(file["mends"].get(repair, 0) for repair in file["repairs"])
