"""Chat: one message, answered by a base model and its adapters, each in its own lane."""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.errors import StudioError
from studio.domain.events import Phase
from studio.domain.records import Adapter, Model
from studio.services.chat import Token, belongs
from studio.studio import Studio
from studio.ui.common import QUIET, Shell, Tab, go, problem
from studio.ui.lanes import (
    Turn,
    bare,
    figures,
    figures_of,
    lane_head,
    name_of,
    sampling,
    spoken,
    talk,
    waiting_for,
    worn,
)
from studio.ui.pieces import block, head, muted, note

LANES = 3
REDRAW = 0.08  # seconds between two drawings of an answer that is being written
Update = dict[Any, Any]  # component: value
LOOK = 10  # seconds between two looks at whether the model is still in memory


def build(studio: Studio, shell: Shell) -> Tab:
    """Build the tab. The conversation lives in the visitor's session, the model in the chat service."""
    item = shell.items["chat"]
    turns, at, lined = gr.State([]), gr.State(""), gr.State([])  # the conversation, the model's folder, who answers
    timer = gr.Timer(LOOK, active=False)

    with gr.Row(elem_classes="head"):
        block(head("Chat"))
        base = gr.Dropdown(
            [],
            label="Base model",
            show_label=False,
            container=False,
            scale=0,
            min_width=220,
            visible=False,
            interactive=True,
        )
        who = gr.Dropdown(
            [],
            value=[],
            multiselect=True,
            max_choices=LANES,
            label="Who answers, up to three",
            show_label=False,
            container=False,
            scale=0,
            min_width=560,
            interactive=True,
        )
    said = block()
    with gr.Row(elem_classes="lanes"):
        lanes, heads, talks = [], [], []
        for _ in range(LANES):
            with gr.Column(visible=False, min_width=260, elem_classes="lane") as lane:
                heads.append(block())
                talks.append(block(elem_classes="talk"))
            lanes.append(lane)
    with gr.Row(elem_classes="ask", visible=False) as bottom:
        ask = gr.Textbox(
            "",
            placeholder="Write a message",
            label="Message",
            show_label=False,
            container=False,
            submit_btn="Send",
            lines=1,
            max_lines=8,
            elem_id="ask",
        )
    with gr.Row(elem_classes="actions"):
        clear = gr.Button("Clear the conversation", size="sm", visible=False, scale=0, min_width=160)
        engine = block()
    train = gr.Button(
        "New run", variant="primary", size="md", visible=False, elem_classes="back", scale=0, min_width=120
    )
    with gr.Accordion(sampling(0.7, 256), open=False, visible=False) as settings:
        instruction = gr.Textbox(
            "",
            label="Instruction",
            info="Told to the model before the conversation. Empty: what the model's own format says.",
            lines=2,
            interactive=True,
        )
        temperature = gr.Slider(
            0,
            1.5,
            0.7,
            step=0.1,
            label="Temperature",
            info="0 gives the same answer each time, 1 is lively.",
            buttons=[],
            interactive=True,
        )
        longest = gr.Slider(
            16,
            2048,
            256,
            step=16,
            label="Longest answer, tokens",
            info="An answer that is longer is cut. A word is about one and a half tokens.",
            buttons=[],
            interactive=True,
        )

    def pick(model: Model, chosen: list[str], history: list[Turn]) -> Update:
        """Offer the model and its adapters, and draw a lane for each that is chosen."""
        known = [bare(model), *(adapter.ref for adapter in studio.chat.adapters_of(model))]
        kept = [choice for choice in chosen if choice in known][:LANES]
        chosen = kept or known[:1]
        named = [(name_of(choice), choice) for choice in known]
        there = {who: gr.update(choices=named, value=chosen), at: model.path, lined: chosen, turns: history}
        return there | draw(chosen, history)

    def draw(chosen: list[str], history: list[Turn]) -> Update:
        """Draw the lanes of those who are chosen."""
        drawn: Update = {clear: gr.update(visible=bool(history))}
        for i in range(LANES):
            choice = chosen[i] if i < len(chosen) else ""
            drawn[lanes[i]] = gr.update(visible=bool(choice))
            drawn[heads[i]] = lane_head(choice, figures_of(choice, history)) if choice else ""
            drawn[talks[i]] = talk(choice, history) if choice else ""
        return drawn

    def refresh(ref: str, path: str, chosen: list[str], history: list[Turn]) -> Update:
        """Fill the tab; an adapter that was handed over answers alone, in a new conversation."""
        models = studio.chat.bases()
        there: Update = {each: gr.update(visible=bool(models)) for each in (who, bottom, settings)}
        there |= engine_now() | {said: "", item: "", train: gr.update(visible=not models)}
        if not models:
            hint = "Train on your data: the model comes with the first run, and can be asked before and after it."
            return there | {said: note("No model is on this machine yet.", hint), base: gr.update(visible=False)}
        model = next((each for each in models if each.path == path), models[0])
        if not ref and not path:  # the first visit: the newest adapter answers
            ref = next((adapter.ref for adapter in studio.chat.adapters_of(model)), "")
        if ref:
            try:
                adapter = studio.adapters.get(ref)
                model = next((each for each in models if belongs(adapter, each)), model)
                chosen, history = [adapter.ref], []
                there[instruction] = instruction_of(studio, adapter)
            except StudioError as error:
                there[said] = problem(error, "Not found")
        names = [(words.model_name(each.id), each.path) for each in models]
        there[base] = gr.Dropdown(choices=names, value=model.path, visible=len(models) > 1)
        return there | pick(model, chosen, history)

    def answer(
        text: str, path: str, chosen: list[str], history: list[Turn], told: str, heat: float, room: float
    ) -> Iterator[Update]:
        """Let all who are chosen answer, a lane each: at the same time where the adapters allow it."""
        asked = text.strip()
        if not asked or not chosen:
            yield {said: "" if chosen else note("Nobody answers.", "Choose a model or an adapter above.")}
            return
        turn: Turn = {"asked": asked, "answers": {}}
        history = [*history, turn]
        yield (
            draw(chosen, history) | choosing(False) | {said: "", ask: gr.Textbox("", submit_btn=False, stop_btn="Stop")}
        )
        errors: dict[str, str] = {}  # message: note; the same reason is told once
        name = next((words.model_name(each.id) for each in studio.chat.bases() if each.path == path), "the model")
        asking = [(worn(choice), spoken(choice, history, told.strip())) for choice in chosen]
        replies: list[Turn] = [{"text": "", "figures": "", "over": False, "stopped": False} for _ in chosen]
        turn["answers"] = dict(zip(chosen, replies, strict=True))
        drawn, ended = [0.0] * len(chosen), set()
        rounds = [list(range(len(chosen)))]  # lanes that are asked at the same time
        while rounds:
            now = rounds.pop(0)
            try:
                for piece in studio.chat.answers(
                    path, [asking[lane] for lane in now], max_new_tokens=int(room), temperature=heat
                ):
                    if isinstance(piece, Phase):
                        yield {talks[lane]: talk(chosen[lane], history, waiting_for(piece, name)) for lane in now}
                        continue
                    lane = now[piece.lane]
                    choice, reply = chosen[lane], replies[lane]
                    if isinstance(piece, Token):
                        reply["text"] += piece.text
                        if time.monotonic() - drawn[lane] > REDRAW:
                            drawn[lane] = time.monotonic()
                            yield {talks[lane]: talk(choice, history)}
                    else:
                        ended.add(lane)
                        reply |= {"text": piece.text or reply["text"], "figures": figures(piece)}
                        reply |= {"over": not piece.stopped, "stopped": piece.stopped}
                        told_now = {
                            talks[lane]: talk(choice, history),
                            heads[lane]: lane_head(choice, reply["figures"]),
                        }
                        yield engine_now() | told_now
            except StudioError as error:
                if len(now) == 1:
                    errors.setdefault(str(error), problem(error, name_of(chosen[now[0]])))
                else:  # one of them may be the reason: the others can do without it
                    rounds = [[lane] for lane in now if lane not in ended]
                    for lane in set(now) - ended:
                        replies[lane]["text"] = ""
            if any(reply["stopped"] for reply in replies):
                break
        turn["answers"] = {choice: reply for choice, reply in turn["answers"].items() if reply["text"] or reply["over"]}
        back = None if turn["answers"] else text  # nobody answered: the message goes back where it came from
        history = history if turn["answers"] else history[:-1]
        yield (draw(chosen, history) | ready(back) | {turns: history, said: "".join(errors.values())})

    def ready(text: str | None = None) -> Update:
        """Take the next message."""
        kept: dict[str, Any] = {} if text is None else {"value": text}
        return choosing(True) | {ask: gr.update(submit_btn="Send", stop_btn=False, **kept)}

    def choosing(can: bool) -> Update:
        """Whom to ask can be changed between answers; while one is written there is nothing to clear."""
        return {each: gr.Dropdown(interactive=can) for each in (base, who)} | (
            {} if can else {clear: gr.update(visible=False)}
        )

    def engine_now() -> Update:
        """Say what is in memory, and keep looking while something is."""
        loaded = studio.chat.loaded
        if not loaded:
            return {engine: "", timer: gr.Timer(active=False)}
        size = words.size(studio.chat.memory_bytes or 0)
        return {engine: muted(f"{words.model_name(loaded)} is in memory, {size}."), timer: gr.Timer(active=True)}

    def look() -> Update:
        """Say it when the model has gone from memory."""
        if studio.chat.loaded:
            return {engine: gr.skip()}
        return {
            engine: muted("The model has left the memory; the next message loads it again."),
            timer: gr.Timer(active=False),
        }

    parts = [*lanes, *heads, *talks, clear]
    shown = [said, base, who, bottom, settings, train, instruction, item, turns, at, lined, engine, timer, *parts]
    asking = ask.submit(
        answer,
        [ask, at, lined, turns, instruction, temperature, longest],
        [said, ask, base, who, turns, engine, timer, *parts],
        **QUIET,
    )
    asking.failure(lambda: ready(), None, [ask, base, who], **QUIET)
    ask.stop(lambda: studio.chat.stop(), None, None, queue=False, **QUIET)
    who.input(lambda a, b: {lined: a} | draw(a, b), [who, turns], [lined, *parts], **QUIET)
    base.input(
        lambda path: pick(next(each for each in studio.chat.bases() if each.path == path), [], []),
        base,
        [who, turns, at, lined, *parts],
        **QUIET,
    )
    clear.click(lambda chosen: {turns: []} | draw(chosen, []), lined, [turns, *parts], **QUIET)
    train.click(lambda: go("train"), None, shell.to("train"), **QUIET)
    gr.on(
        [temperature.release, longest.release],
        lambda heat, room: gr.Accordion(label=sampling(heat, int(room))),
        [temperature, longest],
        settings,
        **QUIET,
    )
    timer.tick(look, None, [engine, timer], **QUIET)
    return Tab(refresh, shown, [timer], [at, lined, turns])


def instruction_of(studio: Studio, adapter: Adapter) -> str:
    """Return the instruction of the first example the adapter learned from: it answers best when told the same."""
    with suppress(StudioError):  # the run or its data may be deleted
        dataset = studio.datasets.get(studio.runs.get(adapter.run).dataset)
        first = studio.datasets.example(dataset.id, 0).get("messages", [{}])[0]
        return str(first["content"]) if first.get("role") == "system" else ""
    return ""
