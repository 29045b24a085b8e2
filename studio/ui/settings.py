"""Settings: what the user is told and when not, what electricity costs, whether programs may ask.

Each change applies at once.
"""

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from studio.domain.errors import StudioError
from studio.domain.notices import Notice
from studio.services.notify import has_desktop
from studio.studio import Studio
from studio.ui.common import QUIET, Shell, Tab, problem
from studio.ui.pieces import block, head, note, section
from studio.ui.programs import Section

WHEN = {
    "quarters": "A run is at 25, 50, 75 and 100 %",
    "failed": "A run fails or is interrupted",
    "paused": "A run pauses and nobody asked for it",
}
WAYS = {"desktop": "Desktop", "webhook": "Webhook"}
HOURS = [("Never", ""), *((f"{hour:02d}:00", f"{hour:02d}:00") for hour in range(24))]
# Whether this browser shows notices is kept in the browser, with those it has shown: each of them is shown once,
# however many pages are open.
HERE = "window.Notification?.permission === 'granted' && localStorage.studioNotify === 'on'"
SOUND = "localStorage.studioSound === 'on'"
SHOWN = f"() => [!!({HERE}), {SOUND}]"
# Browsers play nothing on a page that was never pressed.
TONE = """{
  const box = new AudioContext(), tone = box.createOscillator(), level = box.createGain(), end = box.currentTime + 0.9;
  tone.frequency.value = 523;
  level.gain.setValueAtTime(0.06, box.currentTime);
  level.gain.exponentialRampToValueAtTime(0.0001, end);
  tone.connect(level).connect(box.destination);
  tone.onended = () => box.close();
  tone.start();
  tone.stop(end);
}"""
PAST = """{  // what has happened before is no news
    const past = JSON.parse(document.querySelector('.bar')?.dataset.notices || '[]').map(each => each.id);
    localStorage.studioTold = JSON.stringify(past);
  }"""
CHOOSE_SOUND = f"""on => {{
  localStorage.studioSound = on ? 'on' : '';
  if (on) {{ {PAST} {TONE} }}
  return on;
}}"""
CHOOSE = f"""async on => {{
  if (on && window.Notification) on = await Notification.requestPermission() === 'granted'; else if (on) on = null;
  localStorage.studioNotify = on ? 'on' : '';
  if (on) {PAST}
  return [!!on, on === false && Notification.permission === 'denied' || on === null ? 'REFUSED' : ''];
}}"""
NOTICES = f"""h => {{
  const shows = {HERE}, sounds = {SOUND};
  if (!shows && !sounds) return;
  const bar = new DOMParser().parseFromString(h, 'text/html').querySelector('.bar');
  const all = JSON.parse(bar.dataset.notices), locks = navigator.locks;
  const tell = () => {{
    const told = JSON.parse(localStorage.studioTold || '[]');
    const fresh = all.filter(each => !told.includes(each.id));
    if (!fresh.length) return;
    localStorage.studioTold = JSON.stringify([...told, ...fresh.map(each => each.id)].slice(-200));
    if (sounds && fresh.some(each => each.ends)) {TONE}
    if (shows) for (const each of fresh) {{
      const how = {{body: each.words, tag: each.id, requireInteraction: each.urgent}};
      const shown = new Notification('PEFT Studio', how);
      shown.onclick = () => {{ window.focus(); location.search = '?view=runs&run=' + encodeURIComponent(each.run); }};
    }}
  }};
  if (all.length) locks ? locks.request('studio-notices', tell) : tell();
}}"""
TRY = f"""() => {{
  if ({SOUND}) {TONE}
  if (!({HERE})) return '';
  new Notification('PEFT Studio', {{body: 'This is a test. Notices arrive here.', tag: 'test'}});
  return 'SHOWN';
}}"""
REFUSED = note(
    "This browser does not let the page tell you.",
    "Allow notifications for this address in the browser's own settings, then tick the box again.",
    word="Refused",
    tone="warn",
)
Update = dict[Any, Any]


def build(studio: Studio, shell: Shell) -> Tab:
    """Build the tab."""
    title = block()
    block(section("Tell me when"))
    when = gr.CheckboxGroup(
        [(words, key) for key, words in WHEN.items()],
        label="Tell me when",
        show_label=False,
        container=False,
        interactive=True,
        elem_classes="stacked",
    )
    block(section("Where", "The page's title shows how far a run is, whatever is chosen here."))
    with gr.Column(elem_classes="list"):
        with gr.Row(elem_classes="item"):
            here = gr.Checkbox(
                label="In this browser",
                info="While a page of the studio is open. The browser asks for your permission.",
                interactive=True,
            )
        with gr.Row(elem_classes="item"):
            sound = gr.Checkbox(
                label="A quiet sound when a run ends",
                info="In this browser, while a page of the studio is open. It needs one press on the page first.",
                interactive=True,
            )
        with gr.Row(elem_classes="item", visible=has_desktop()):
            desktop = gr.Checkbox(
                label="On the desktop", info="Of the machine the studio runs on, also without a page.", interactive=True
            )
        with gr.Row(elem_classes="item"):
            hook = gr.Textbox(
                label="Webhook",
                info="An address that gets each notice as JSON: run, event, percent, words. Empty: none.",
                placeholder="https://",
                max_lines=1,
                interactive=True,
            )
    refused = block()
    said = block()
    block(section("Quiet hours", "What happens meanwhile is told when they are over, of each run the last."))
    with gr.Row(elem_classes="quiet"):
        start = gr.Dropdown(HOURS, label="From", interactive=True, scale=0, min_width=140)
        end = gr.Dropdown(HOURS[1:], label="To", interactive=True, scale=0, min_width=140)
    with gr.Row(elem_classes="actions"):
        test = gr.Button("Send a test", size="md", scale=0, min_width=120)
    result = block()
    result_here = block()
    failures = block()
    block(section("Electricity", "For the cost of a run, before it starts and after. A card tells its own power."))
    with gr.Row(elem_classes="quiet three"):
        cost = gr.Number(label="Price of a kWh", minimum=0, interactive=True, scale=0, min_width=140)
        money = gr.Textbox(label="Currency", placeholder="EUR", max_length=8, interactive=True, scale=0, min_width=140)
        watts = gr.Number(label="Watts while training", minimum=0, interactive=True, scale=0, min_width=140)
    unpriced = block()
    programs = Section(studio)

    def refresh(_: str = "") -> Update:
        now, power = studio.notify.settings, studio.power.settings
        return programs.now() | {
            cost: power.price,
            money: power.currency,
            watts: power.watts,
            unpriced: "",
            title: head("Settings", "Each change applies at once."),
            when: [key for key in WHEN if getattr(now, key)],
            desktop: now.desktop,
            hook: now.webhook,
            start: now.quiet_from,
            end: gr.update(value=now.quiet_to or None, visible=bool(now.quiet_from)),
            said: "",
            result: "",
            result_here: "",
            failures: failed(),
        }

    def failed() -> str:
        found = studio.notify.outbox.failed
        return "".join(note(WAYS[way], words, word="Not told", tone="bad") for way, words in found.items())

    def change(**values: Any) -> str:
        try:
            studio.notify.change(**values)
        except StudioError as error:
            return problem(error, "Not changed")
        return ""

    def send(shows: bool, sounds: bool) -> tuple[str, str]:
        found = studio.notify.test()
        if not found and not shows and not sounds:
            return note("Nothing is switched on.", "Choose above where you want to be told.", word="Test"), failed()
        sent = [f"{WAYS[way]}: sent." for way, wrong in found.items() if not wrong]
        return "".join(note(words, word="Test", tone="good") for words in sent), failed()

    def charge(price: float | None, currency: str, power: float | None) -> str:
        try:
            studio.power.change(price=price or None, currency=currency.strip(), watts=power or None)
        except StudioError as error:
            return problem(error, "Not changed")
        return ""

    electricity: list[Any] = [cost, money, watts]
    gr.on([event for each in electricity for event in (each.submit, each.blur)], charge, electricity, unpriced, **QUIET)
    when.input(lambda chosen: change(**{key: key in chosen for key in WHEN}), when, said, **QUIET)
    desktop.input(lambda on: change(desktop=on), desktop, said, **QUIET)
    gr.on([hook.submit, hook.blur], lambda address: change(webhook=address), hook, said, **QUIET)
    gr.on(
        [start.input, end.input],
        lambda a, b: (change(quiet_from=a, quiet_to=b or ""), gr.update(visible=bool(a))),
        [start, end],
        [said, end],
        trigger_mode="always_last",
        **QUIET,
    )
    here.input(None, here, [here, refused], js=CHOOSE.replace("'REFUSED'", json.dumps(REFUSED)), **QUIET)
    sound.input(None, sound, sound, js=CHOOSE_SOUND, **QUIET)
    title.change(None, None, [here, sound], js=SHOWN, **QUIET)
    shown = note("This browser: shown.", word="Test", tone="good")
    test.click(None, None, result_here, js=TRY.replace("'SHOWN'", json.dumps(shown)), **QUIET)
    test.click(send, [here, sound], [result, failures], **QUIET)
    told = [title, when, desktop, hook, start, end, said, result, result_here, failures]
    return Tab(refresh, [*told, *electricity, unpriced, *programs.outputs])


def as_json(notices: Sequence[Notice]) -> str:
    """Return what the page's script tells."""
    urgent = ("failed", "interrupted")
    return json.dumps(
        [
            {
                "id": f"{each.run}:{each.key}",
                "run": each.run,
                "words": each.words,
                "urgent": each.event in urgent,
                "ends": each.event in (*urgent, "finished"),
            }
            for each in notices
        ]
    )
