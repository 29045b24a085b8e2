"""The page: the bar above, the tabs, addresses; and how it is served."""

import logging
import os
import sys
import time
import webbrowser
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from starlette.middleware import Middleware

from studio.domain import words
from studio.domain.errors import StudioError
from studio.domain.records import Run, Status
from studio.storage.paths import FOLDERS
from studio.studio import Studio
from studio.ui import adapters, api, chat, data, guard, home, runs, settings, train
from studio.ui.common import QUIET, Shell, Tab, edge, go, pace
from studio.ui.endpoint import Endpoint
from studio.ui.pieces import bar, choices
from studio.ui.theme import StudioTheme

TABS: dict[str, Callable[[Studio, Shell], Tab]] = {
    "home": home.build,
    "data": data.build,
    "train": train.build,
    "runs": runs.build,
    "adapters": adapters.build,
    "chat": chat.build,
    "settings": settings.build,
}
LAST = ("settings",)  # set apart at the end
PRIVATE = ("chat.json", "notify.json", "notices.json", "api.json", "vault")  # in the home folder, never served
PULSE = 5  # seconds between two looks at active runs
LOOK = 0.08  # seconds between two looks at the queue: not felt by a user, and under 1 % of a processor
# The page's title and icon show how far the run is.
TITLE = """h => {
  const bar = new DOMParser().parseFromString(h, 'text/html').querySelector('.bar'), share = bar.dataset.share;
  document.title = bar.dataset.title;
  let icon = document.querySelector("link[rel~='icon']");
  if (!icon) document.head.append(icon = Object.assign(document.createElement('link'), {rel: 'icon'}));
  window.studioIcon ??= icon.href;
  if (!share) { if (icon.href !== window.studioIcon) icon.href = window.studioIcon; return; }
  const canvas = Object.assign(document.createElement('canvas'), {width: 32, height: 32});
  const pen = canvas.getContext('2d'), ring = (colour, part) => {
    pen.strokeStyle = colour; pen.beginPath();
    pen.arc(16, 16, 12, -Math.PI / 2, (part * 2 - .5) * Math.PI); pen.stroke();
  };
  pen.lineWidth = 7; ring('#a1a8b1', 1); ring('#4864e0', Number(share));
  icon.href = canvas.toDataURL();
}"""
# Gradio's timers rest while the page is hidden. Its title is looked at then most of all: the bar goes on, slowly.
HIDDEN = """setInterval(() => document.hidden && element.querySelector('.now') && trigger('tick'), 30000);
document.addEventListener('visibilitychange', () => element.querySelector('.now') && trigger('tick'));"""
# The tab stands in the address, so that a reloaded page opens there. While the page opens, others are selected on the
# way to the one its address names; until it is there, the address stays.
ADDRESS = """() => {
  const there = (new URLSearchParams(location.search).get("view") || "home") === "NAME";
  if (!there && window.studioOpened) history.replaceState(history.state, "", "?view=NAME");
  window.studioOpened ||= there;
}"""
WORDS = {
    "upload_text.drop_file": "Drop a file here",
    "upload_text.click_to_upload": "choose one",
    "common.or": "or",
}


def create(studio: Studio) -> gr.Blocks:
    """Build the page. Tabs hold no data yet: each is filled when it is selected."""
    _log_to(studio.home.logs / "studio.log")
    uploads = studio.home.cache / "uploads"
    uploads.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # not the system's shared folder
    with gr.Blocks(title="PEFT Studio", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)) as demo:
        top = choices(elem_id="bar", more=HIDDEN)
        pulse = gr.Timer(PULSE, active=False)
        beat = gr.State(("", 0.0))  # the page's title, and since when it is that
        items = {name: gr.State("") for name in TABS}
        panes, tabs = {}, {}
        with gr.Tabs(elem_id="shell", overflow_behavior="wrap") as shell_tabs:
            shell = Shell(shell_tabs, items)
            for name, build in TABS.items():
                side: Literal["left", "right"] = "right" if name in LAST else "left"
                with gr.Tab(name.capitalize(), id=name, alignment=side) as panes[name]:
                    tabs[name] = build(studio, shell)
        for name, tab in tabs.items():
            panes[name].select(None, js=ADDRESS.replace("NAME", name), api_visibility="private")
            changed = [panes[name].select, items[name].change]
            inputs = [items[name], *tab.inputs]
            gr.on(changed, tab.refresh, inputs, list(tab.outputs), trigger_mode="always_last", **QUIET)
            others = [timer for other in tabs.values() if other is not tab for timer in other.timers]
            off = [gr.Timer(active=False) for _ in others]
            panes[name].select(
                lambda beat_now, off=off: [*_pulse(studio, beat_now), *off], beat, [top, pulse, beat, *others], **QUIET
            )
        gr.on([pulse.tick, top.tick], lambda now: _pulse(studio, now), beat, [top, pulse, beat], **QUIET)
        top.select(_open_active, None, shell.to("runs"), **QUIET)
        for script in (TITLE, settings.NOTICES):
            top.change(None, top, js=script, api_visibility="private")

        def route(request: gr.Request) -> list[Any]:
            view = request.query_params.get("view", "home")
            view = view if view in TABS else "home"
            item = request.query_params.get(view.rstrip("s"), request.query_params.get("item", ""))
            opened = [item if name == view else "" for name in TABS]
            return [gr.Tabs(selected=view), *opened, *_pulse(studio, ("", 0.0))]

        demo.load(route, None, [shell_tabs, *items.values(), top, pulse, beat], **QUIET)
        demo.load(tabs["home"].refresh, items["home"], list(tabs["home"].outputs), **QUIET)
        api.publish(studio)
    for event in demo.fns.values():
        if event.renderable is not None:
            event.api_visibility = "private"  # Gradio calls what it renders undocumented, not private
        elif event.fn is not None:
            event.fn = edge(event.fn)
    demo.queue(max_size=64, default_concurrency_limit=16, api_open=False)
    # Gradio looks a thousand times a second whether anything waits, which takes 8 % of a processor for nothing.
    demo._queue.sleep_when_free, demo._queue.progress_update_sleep_when_free = LOOK, 10 * LOOK
    return demo


def launch(studio: Studio | None = None, demo: gr.Blocks | None = None, **options: Any) -> None:
    """Serve the page until it is interrupted; `options` are those of `serve`."""
    studio = studio or Studio()
    page = serve(studio, demo, **options)
    if page.is_running:
        try:
            page.block_thread()
        finally:
            studio.lock.release()


def launch_options(studio: Studio, hosts: set[str]) -> dict[str, Any]:
    """Return what the page is launched with wherever it is served; `hosts` are the names it answers to."""
    home = studio.home
    private = [home.root / name for name in (*FOLDERS, home.database.name, "serving.json", *PRIVATE) if name != "cache"]
    for_programs = Middleware(Endpoint, programs=studio.programs)
    return {
        "theme": StudioTheme(),
        "css_paths": [Path(__file__).parent / "style.css"],
        "i18n": gr.I18n(en=WORDS),
        "footer_links": [],
        "quiet": True,
        "show_error": False,
        "ssr_mode": False,
        "mcp_server": False,
        "run_history": False,
        "enable_monitoring": False,
        "num_workers": 0,
        "pwa": False,
        "inbrowser": False,
        "prevent_thread_lock": True,
        "max_file_size": guard.MAX_UPLOAD,
        "blocked_paths": [str(path) for path in private],
        "app_kwargs": {"middleware": [*guard.middleware(hosts), for_programs], "docs_url": None, "redoc_url": None},
    }


def serve(
    studio: Studio | None = None,
    demo: gr.Blocks | None = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    browser: bool = True,
    auth: tuple[str, str] | None = None,
    path: str = "",
    **more: Any,
) -> gr.Blocks:
    """Serve the page in the background and return it.

    `path` is what the browser opens, such as `/?view=runs&run=…`. `more` overrides `launch_options`.
    """
    if host == "127.0.0.1":  # not chosen here: a Space says it in the environment
        host = os.environ.get("GRADIO_SERVER_NAME", host)
    if auth is None and os.environ.get("PEFT_STUDIO_PASSWORD"):
        auth = ("studio", os.environ["PEFT_STUDIO_PASSWORD"])
    if auth is None and (share or host not in ("localhost", "127.0.0.1", "::1")):
        raise StudioError(
            "A studio that others can reach needs a password.",
            "Set PEFT_STUDIO_PASSWORD; the name to log in with is studio.",
        )
    studio = studio or Studio()
    studio.lock.take()
    demo = demo or create(studio)
    hosts = guard.known_hosts(host)
    served = {"server_name": host, "server_port": port, "share": share, "auth": auth}
    try:
        demo.launch(**(launch_options(studio, hosts) | served | more))
    except OSError as error:
        if port is None:
            raise
        raise StudioError(
            f"Port {port} is in use by another program.", f"Start with --port {port + 1}, or end the other program."
        ) from error
    if not demo.is_running:  # `gradio app.py` read a changed file again: the page is served already
        return demo
    if demo.share_url:
        hosts.add(demo.share_url.split("//")[1].rstrip("/"))
    address = str(demo.share_url or demo.local_url).rstrip("/")
    studio.lock.tell(address, studio.queue.keep())
    sys.stderr.write(f"PEFT Studio is at {address} (end it with Ctrl+C)\n")
    if browser:
        webbrowser.open(address + path)
    return demo


def _open_active(picked: gr.SelectData) -> tuple[gr.Tabs, str]:
    """Open the run named on the bar, or the list when there are several."""
    return go("runs", str(picked.index))


def _pulse(studio: Studio, beat: tuple[str, float]) -> list[Any]:
    """Return the bar, the timer that keeps it fresh only while a run is active, and since when its title is this."""
    facts, live = studio.machine.facts(), studio.machine.live()
    if facts.gpu:
        machine = f"{facts.gpu.name} · {_free(live.gpu_free_bytes or 0, facts.gpu.memory_bytes)}"
    else:
        machine = f"{facts.cores} cores · {_free(live.memory_free_bytes, facts.memory_bytes)}"
    known = studio.runs.list()
    studio.notify.look(known)
    active = [run for run in known if run.status.active]
    active = [run for run in active if run.status.working] or active  # those that wait only where nothing else goes on
    title, now, share = "PEFT Studio", None, 0.0
    if len(active) == 1:
        run = active[0]
        name, figure = words.run_title(run.id), _figure(run)
        share = run.step / run.steps if run.steps else 0.0
        left = f"{words.interval(*run.seconds_left)} left" if run.seconds_left else ""
        title, now = f"{figure} · {name}", {"id": run.id, "name": name, "figure": figure, "left": left}
    elif active:
        soonest = min((run.seconds_left[1] for run in active if run.seconds_left), default=None)
        left = f"next ready in {words.duration(soonest)}" if soonest is not None else ""
        title, now = f"{len(active)} runs", {"id": "", "name": f"{len(active)} runs", "figure": "", "left": left}
    since = beat[1] if title == beat[0] else time.monotonic()
    told = settings.as_json(studio.notify.recent())
    return [bar(title, machine, now, share, told), gr.Timer(pace(PULSE, since), active=bool(active)), (title, since)]


def _free(free: int, total: int) -> str:
    return f"{free / 1e9:.1f} of {words.size(total)} free"


def _figure(run: Run) -> str:
    """Return how far a run is: a percentage while it trains, else its state."""
    if run.status == Status.TRAINING and run.steps:
        return words.percent(run.step / run.steps)
    return run.status.capitalize()


def _log_to(path: Path) -> None:
    """Keep what went wrong in a file; the page only shows its reference."""
    log = logging.getLogger("studio")
    for old in [each for each in log.handlers if isinstance(each, RotatingFileHandler)]:
        log.removeHandler(old)
        old.close()
    handler = RotatingFileHandler(path, maxBytes=1_000_000, backupCount=2, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    log.addHandler(handler)
