"""Chat, below the conversation: what is told before it, and how the next word is chosen."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.ui.common import QUIET


@dataclass(frozen=True)
class Knobs:
    """The closed group, and what is in it."""

    group: gr.Accordion
    instruction: gr.Textbox
    temperature: gr.Slider
    top_p: gr.Slider
    longest: gr.Slider
    seed: gr.Number

    @property
    def inputs(self) -> list[Any]:
        return [self.instruction, self.temperature, self.top_p, self.longest, self.seed]


def build() -> Knobs:
    """Make the group; its label says what is set."""
    with gr.Accordion(summary(0.7, 256), open=False, visible=False) as group:
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
            info="0 always takes the likeliest word and gives the same answer each time, 1 is lively.",
            buttons=[],
            interactive=True,
        )
        top_p = gr.Slider(
            0.05,
            1,
            0.95,
            step=0.05,
            label="Top-p",
            info="Words are drawn from the likeliest that together have this share. Lower is safer; 1 leaves none out.",
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
        seed = gr.Number(
            None,
            label="Seed",
            info="The same seed, the same answer to the same question. Empty: another each time.",
            precision=0,
            interactive=True,
        )
    gr.on(
        [temperature.release, longest.release],
        lambda heat, room: gr.Accordion(label=summary(heat, int(room))),
        [temperature, longest],
        group,
        **QUIET,
    )
    return Knobs(group, instruction, temperature, top_p, longest, seed)


def summary(heat: float, room: int) -> str:
    return f"Instruction and sampling: temperature {heat:g}, up to {room:,} tokens"


def sampling(heat: float, share: float, room: float, seed: float | None) -> dict[str, Any]:
    """Return what is set, as the chat takes it."""
    chosen = None if seed is None else int(seed)
    return {"temperature": heat, "top_p": share, "max_new_tokens": int(room), "seed": chosen}
