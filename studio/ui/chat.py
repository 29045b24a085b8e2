"""Chat: one message, answered by a base model and its adapters, each in its own lane."""

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.errors import StudioError
from studio.domain.events import Phase
from studio.domain.records import Model
from studio.services.chat import SHRUNK, Token, belongs
from studio.services.conversations import Conversation
from studio.studio import Studio
from studio.ui import chat_history, chat_knobs
from studio.ui.chat_origin import OFFERED, instruction_of, questions
from studio.ui.common import QUIET, Shell, Tab, go, problem
from studio.ui.lanes import Turn, bare, figures, figures_of, lane_head, name_of, spoken, talk, waiting_for, worn
from studio.ui.pieces import block, choices, head, muted, note, rows

LANES = 6
REDRAW = 0.08  # seconds between two drawings of an answer that is being written
Update = dict[Any, Any]  # component: value
LOOK = 10  # seconds between two looks at whether the model is still in memory


def build(studio: Studio, shell: Shell) -> Tab:
    """Build the tab. The conversation lives in the visitor's session, the model in the chat service."""
    item = shell.items["chat"]
    turns, at, lined = gr.State([]), gr.State(""), gr.State([])  # the conversation, the model's folder, who answers
    edited = gr.State(None)  # the place of the message that is being changed
    offered, reached = gr.State([]), gr.State(0)  # questions that are shown, and how many held-out rows were before
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
            label="Who answers, up to six",
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
                talks.append(choices(elem_classes="talk"))
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
        again = gr.Button("Answer again", size="sm", visible=False, scale=0, min_width=110)
        cancel = gr.Button("Leave the message as it was", size="sm", visible=False, scale=0, min_width=180)
        clear = gr.Button("New conversation", size="sm", visible=False, scale=0, min_width=140)
        engine = block()
    train = gr.Button(
        "New run", variant="primary", size="md", visible=False, elem_classes="back", scale=0, min_width=120
    )
    with gr.Accordion("Questions it was not trained on", open=True, visible=False, elem_classes="rests") as held:
        listing = choices()
        more = gr.Button("Show others", size="sm", elem_classes="back", scale=0, min_width=110)
    knobs = chat_knobs.build()
    history = chat_history.build(studio)

    def pick(model: Model, chosen: list[str], now: list[Turn]) -> Update:
        """Offer the model and its adapters, and draw a lane for each that is chosen."""
        known = [bare(model), *(adapter.ref for adapter in studio.chat.adapters_of(model))]
        kept = [choice for choice in chosen if choice in known][:LANES]
        chosen = kept or known[:1]
        named = [(name_of(choice), choice) for choice in known]
        there = {who: gr.update(choices=named, value=chosen), at: model.path, lined: chosen, turns: now}
        return there | draw(chosen, now) | offer(chosen, 0)

    def offer(chosen: list[str], first: int) -> Update:
        """Offer held-out questions of the run of an adapter that is chosen."""
        found = questions(studio, chosen, first)
        items = [{"id": str(place), "title": each["asked"]} for place, each in enumerate(found)]
        return {
            offered: found,
            reached: first,
            held: gr.Accordion(visible=bool(found)),
            listing: rows(items, "Questions it was not trained on") if found else "",
        }

    def draw(chosen: list[str], now: list[Turn]) -> Update:
        """Draw the lanes of those who are chosen."""
        drawn: Update = {each: gr.update(visible=bool(now)) for each in (clear, again)}
        for i in range(LANES):
            choice = chosen[i] if i < len(chosen) else ""
            drawn[lanes[i]] = gr.update(visible=bool(choice))
            drawn[heads[i]] = lane_head(choice, figures_of(choice, now)) if choice else ""
            drawn[talks[i]] = talk(choice, now) if choice else ""
        return drawn

    def refresh(ref: str, path: str, chosen: list[str], now: list[Turn], opened: str) -> Update:
        """Fill the tab; an adapter that was handed over answers alone, in a new conversation."""
        models = studio.chat.bases()
        there: Update = {each: gr.update(visible=bool(models)) for each in (who, bottom, knobs.group)}
        there |= engine_now() | {said: "", item: "", train: gr.update(visible=not models)}
        if not models:
            hint = "Train on your data: the model comes with the first run, and can be asked before and after it."
            gone = {each: gr.update(visible=False) for each in (base, history.group)}
            return there | gone | {said: note("No model is on this machine yet.", hint)}
        model = next((each for each in models if each.path == path), models[0])
        if not ref and not path:  # the first visit: the newest adapter answers
            ref = next((adapter.ref for adapter in studio.chat.adapters_of(model)), "")
        if ref:
            try:
                adapter = studio.adapters.get(ref)
                model = next((each for each in models if belongs(adapter, each)), model)
                chosen, now, opened = [adapter.ref], [], ""
                there[knobs.instruction] = instruction_of(studio, adapter)
            except StudioError as error:
                there[said] = problem(error, "Not found")
        names = [(words.model_name(each.id), each.path) for each in models]
        there[base] = gr.Dropdown(choices=names, value=model.path, visible=len(models) > 1)
        return there | pick(model, chosen, now) | history.draw(opened)

    def answer(
        text: str, place: int | None, path: str, chosen: list[str], now: list[Turn], opened: str, told: str, *how: Any
    ) -> Iterator[Update]:
        """Let all who are chosen answer the message, which takes the place of the one that was changed."""
        undo = {turns: now, edited: place, ask: text, cancel: gr.update(visible=place is not None)}
        yield from reply({"asked": text.strip()}, now[:place], undo, path, chosen, opened, told, *how)

    def answer_again(path: str, chosen: list[str], now: list[Turn], opened: str, told: str, *how: Any) -> Any:
        """Let all answer the last message anew."""
        yield from reply(now[-1], now[:-1], {turns: now}, path, chosen, opened, told, *how)

    def answer_held(
        event: gr.SelectData, found: list[dict[str, str]], path: str, chosen: list[str], told: str, *how: Any
    ) -> Iterator[Update]:
        """Begin a conversation with a held-out question; what its data answers stands below the answers."""
        question = found[int(event.index)]
        told = question["told"] or told
        undo = {turns: [], ask: question["asked"]}
        yield {knobs.instruction: told}
        yield from reply(dict(question), [], undo, path, chosen, "", told, *how)

    def reply(
        asked: Turn, before: list[Turn], undo: Update, path: str, chosen: list[str], opened: str, told: str, *how: Any
    ) -> Iterator[Update]:
        """Let all who are chosen answer, a lane each: at the same time where the adapters allow it.

        Where nobody can, `undo` brings back what was there before.
        """
        if not asked["asked"] or not chosen:
            yield {said: "" if chosen else note("Nobody answers.", "Choose a model or an adapter above.")}
            return
        turn: Turn = {"asked": asked["asked"], "expected": asked.get("expected", ""), "answers": {}}
        now = [*before, turn]
        started = {said: "", edited: None, history.opened: opened}
        yield draw(chosen, now) | choosing(False) | started | {ask: gr.Textbox("", submit_btn=False, stop_btn="Stop")}
        errors: dict[str, str] = {}  # message: note; the same reason is told once
        name = next((words.model_name(each.id) for each in studio.chat.bases() if each.path == path), "the model")
        asking = [(worn(choice), spoken(choice, now, told.strip())) for choice in chosen]
        replies: list[Turn] = [{"text": "", "figures": "", "over": False, "stopped": False} for _ in chosen]
        turn["answers"] = dict(zip(chosen, replies, strict=True))
        drawn, ended = [0.0] * len(chosen), set()
        rounds = [list(range(len(chosen)))]  # lanes that are asked at the same time
        while rounds:
            group = rounds.pop(0)
            try:
                for piece in studio.chat.answers(path, [asking[lane] for lane in group], **chat_knobs.sampling(*how)):
                    if isinstance(piece, Phase):
                        yield {talks[lane]: talk(chosen[lane], now, waiting_for(piece, name)) for lane in group}
                        continue
                    lane = group[piece.lane]
                    choice, words_now = chosen[lane], replies[lane]
                    if isinstance(piece, Token):
                        words_now["text"] += piece.text
                        if time.monotonic() - drawn[lane] > REDRAW:
                            drawn[lane] = time.monotonic()
                            yield {talks[lane]: talk(choice, now)}
                    else:
                        ended.add(lane)
                        words_now |= {"text": piece.text or words_now["text"], "figures": figures(piece)}
                        words_now |= {"over": not piece.stopped, "stopped": piece.stopped}
                        lane_now = {
                            talks[lane]: talk(choice, now),
                            heads[lane]: lane_head(choice, words_now["figures"]),
                        }
                        yield engine_now() | lane_now
            except StudioError as error:
                if len(group) == 1:
                    errors.setdefault(str(error), problem(error, name_of(chosen[group[0]])))
                else:  # one of them may be the reason: the others can do without it
                    rounds = [[lane] for lane in group if lane not in ended]
                    for lane in set(group) - ended:
                        replies[lane]["text"] = ""
            if any(each["stopped"] for each in replies):
                break
        turn["answers"] = {choice: each for choice, each in turn["answers"].items() if each["text"] or each["over"]}
        if not turn["answers"]:
            back = {ask: gr.update(submit_btn="Send", stop_btn=False, value=undo.get(ask, ""))}
            yield draw(chosen, undo[turns]) | ready() | undo | back | {said: "".join(errors.values())}
            return
        shown = draw(chosen, now) | ready() | {turns: now}
        try:
            shown |= history.kept(Conversation(id=opened, model=path, who=chosen, instruction=told.strip(), turns=now))
        except StudioError as error:
            errors.setdefault(str(error), problem(error, "Not kept"))
        yield shown | {said: "".join(errors.values())}

    def edit(event: gr.SelectData, now: list[Turn]) -> Update:
        """Put a message back where it was written; it and what follows is answered anew."""
        place = int(event.index)
        return {edited: place, ask: now[place]["asked"], cancel: gr.update(visible=True)}

    def ready() -> Update:
        """Take the next message."""
        return choosing(True) | {ask: gr.update(submit_btn="Send", stop_btn=False)}

    def choosing(can: bool) -> Update:
        """Whom to ask can be changed between answers; while one is written there is nothing to clear."""
        hidden = [cancel] if can else [cancel, clear, again]
        return {each: gr.Dropdown(interactive=can) for each in (base, who)} | {
            each: gr.update(visible=False) for each in hidden
        }

    def engine_now() -> Update:
        """Say what is in memory, and keep looking while something is."""
        loaded = studio.chat.loaded
        if not loaded:
            return {engine: "", timer: gr.Timer(active=False)}
        size = words.size(studio.chat.memory_bytes or 0)
        less = f" {SHRUNK}" if studio.chat.shrunk else ""
        return {engine: muted(f"{words.model_name(loaded)} is in memory, {size}.{less}"), timer: gr.Timer(active=True)}

    def look() -> Update:
        """Say it when the model has gone from memory."""
        if studio.chat.loaded:
            return {engine: gr.skip()}
        return {
            engine: muted("The model has left the memory; the next message loads it again."),
            timer: gr.Timer(active=False),
        }

    def show(kept: Conversation) -> Update:
        """Show a kept conversation, with those who answered as far as they are still here."""
        model = next((each for each in studio.chat.bases() if each.path == kept.model), None)
        if model is None:
            return {
                said: note("Its model is not on this machine any more.", "It can be downloaded, not continued.")
            } | (history.draw(kept.id))
        there = {base: model.path, knobs.instruction: kept.instruction, said: "", edited: None}
        return there | pick(model, kept.who, kept.turns) | history.draw(kept.id)

    parts = [*lanes, *heads, *talks, clear, again]
    offering = [held, listing, offered, reached]
    shown = [said, base, who, bottom, knobs.group, train, knobs.instruction, item, turns, at, lined, engine, timer]
    shown += [*parts, *offering, *history.outputs]
    written = [said, ask, base, who, turns, edited, cancel, engine, timer, knobs.instruction, *parts, *history.outputs]
    told = [at, lined, turns, history.opened, *knobs.inputs]
    for event, handler, inputs in (
        (ask.submit, answer, [ask, edited, *told]),
        (again.click, answer_again, told),
        (listing.select, answer_held, [offered, at, lined, *knobs.inputs]),
    ):
        asked = event(handler, inputs, written, **QUIET)
        asked.failure(lambda: ready(), None, [ask, base, who, cancel], **QUIET)
    ask.stop(lambda: studio.chat.stop(), None, None, queue=False, **QUIET)
    for each in talks:
        each.select(edit, turns, [edited, ask, cancel], **QUIET)
    cancel.click(
        lambda: {edited: None, ask: "", cancel: gr.update(visible=False)}, None, [edited, ask, cancel], **QUIET
    )
    who.input(lambda a, b: {lined: a} | draw(a, b) | offer(a, 0), [who, turns], [lined, *parts, *offering], **QUIET)
    base.input(
        lambda path: pick(next(each for each in studio.chat.bases() if each.path == path), [], []),
        base,
        [who, turns, at, lined, *parts, *offering],
        **QUIET,
    )
    more.click(lambda a, b: offer(a, b + OFFERED), [lined, reached], offering, **QUIET)
    clear.click(
        lambda chosen: {turns: [], edited: None} | draw(chosen, []) | history.draw(""),
        lined,
        [turns, edited, *parts, *history.outputs],
        **QUIET,
    )
    train.click(lambda: go("train"), None, shell.to("train"), **QUIET)
    history.bind(show, [base, knobs.instruction, said, edited, who, turns, at, lined, *parts, *offering])
    timer.tick(look, None, [engine, timer], **QUIET)
    return Tab(refresh, shown, [timer], [at, lined, turns, history.opened])
