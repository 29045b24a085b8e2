"""Chat: the conversations kept on this machine; opened, renamed, deleted, downloaded as rows to train on."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio.domain.errors import NotFound
from studio.domain.words import model_name, plural, when
from studio.services.conversations import Conversation, as_rows
from studio.storage.paths import slug, write_atomic
from studio.studio import Studio
from studio.ui.common import QUIET, Confirm, confirm, consequences
from studio.ui.lanes import name_of
from studio.ui.pieces import block, choices, muted, rows

Update = dict[Any, Any]
FIRST = 20  # conversations listed


@dataclass(frozen=True)
class History:
    """The closed group and its components; `opened` is the id of the conversation the tab shows, if it is kept."""

    studio: Studio
    opened: gr.State
    group: gr.Accordion
    keep: gr.Checkbox
    listing: gr.HTML
    one: gr.Column
    name: gr.Textbox
    save: gr.DownloadButton
    whole: gr.DownloadButton
    removal: Confirm

    @property
    def folder(self) -> Path:
        return self.studio.home.cache / "uploads" / "conversations"

    @property
    def outputs(self) -> list[Any]:
        return [self.opened, self.group, self.keep, self.listing, self.one, self.name, self.save, self.whole]

    def draw(self, id: str) -> Update:
        """Draw the list, and what can be done with the conversation that is open."""
        kept = self.studio.conversations.list()
        now = next((each for each in kept if each.id == id), None)
        models = {model.path: model_name(model.id) for model in self.studio.chat.bases()}
        items = [
            {
                "id": each.id,
                "title": each.title,
                "text": ", ".join(map(name_of, each.who)),
                "meta": [
                    plural(len(each.turns), "message"),
                    models.get(each.model, ""),
                    when(each.changed),
                ],
                "selected": each.id == id,
            }
            for each in kept[:FIRST]
        ]
        nothing = "A conversation stands here after its first answer."
        older = muted(f"{len(kept) - FIRST} older ones are in the file of all.") if len(kept) > FIRST else ""
        return {
            self.opened: now.id if now else "",
            self.group: gr.Accordion(label=f"Kept conversations: {len(kept)}", visible=True),
            self.keep: self.studio.conversations.kept,
            self.listing: rows(items, "Kept conversations", nothing) + older,
            self.one: gr.Column(visible=bool(now)),
            self.name: now.title if now else "",
            self.save: gr.DownloadButton(value=self._file(now.title, [now]) if now else None),
            self.whole: gr.DownloadButton(
                value=self._file("conversations", kept) if kept else None, visible=bool(kept)
            ),
        }

    def kept(self, conversation: Conversation) -> Update:
        """Keep a conversation as it is now, if the user wants that, and draw."""
        return self.draw(self.studio.conversations.save(conversation).id)

    def _file(self, name: str, conversations: list[Conversation]) -> str:
        """Write them where the page can offer them for download."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{slug(name, 'conversation')}.jsonl"
        write_atomic(file, as_rows(conversations), mode=0o600)
        return str(file)

    def bind(self, show: Callable[[Conversation], Update], shown: list[Any]) -> None:
        """Let the controls act. `show` draws an opened conversation on `shown`."""
        kept = self.studio.conversations

        def open_one(event: gr.SelectData) -> Update:
            try:
                return show(kept.get(str(event.index)))
            except NotFound:  # deleted in another page
                return self.draw("")

        def rename(id: str, title: str) -> Update:
            kept.rename(id, title)
            return self.draw(id)

        def remove(id: str) -> Update:
            kept.remove(id)
            shutil.rmtree(self.folder, ignore_errors=True)  # the copies for downloads; drawing makes the others again
            return self.draw("")

        def switch(on: bool, id: str) -> Update:
            kept.keep(on)
            return self.draw(id)

        self.listing.select(open_one, None, [*shown, *self.outputs], **QUIET)
        self.name.submit(rename, [self.opened, self.name], self.outputs, **QUIET)
        self.keep.input(switch, [self.keep, self.opened], self.outputs, **QUIET)
        self.removal.act.click(remove, self.opened, self.outputs, **QUIET)


def build(studio: Studio) -> History:
    """Make the group."""
    opened = gr.State("")
    with gr.Accordion("Kept conversations", open=False, elem_classes="rests") as group:
        keep = gr.Checkbox(
            label="Keep conversations on this machine",
            info="In the home folder, until you delete them. Nothing of them leaves it.",
            interactive=True,
        )
        listing = choices()
        with gr.Column(visible=False, elem_classes="card") as one:
            name = gr.Textbox(
                label="Name of the open conversation", info="Enter renames it.", max_lines=1, interactive=True
            )
            with gr.Row(elem_classes="actions"):
                save = gr.DownloadButton("Download as training data", size="sm", scale=0, min_width=180)
                delete = gr.Button("Delete…", size="sm", scale=0, min_width=80)
            removal = confirm(delete, "Delete this conversation?", "Delete it", "Keep it")
            delete.click(
                lambda: consequences(["What was asked and answered is gone from this machine. This cannot be undone."]),
                None,
                removal.lines,
                **QUIET,
            )
        whole = gr.DownloadButton("Download all as training data", size="sm", elem_classes="back", visible=False)
        block(muted("A file for training has a row for each who answered; delete the answers you would not teach."))
    return History(studio, opened, group, keep, listing, one, name, save, whole, removal)
