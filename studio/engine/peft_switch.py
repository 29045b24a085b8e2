"""Adapters that peft itself holds on the base and switches, a walk over all layers each time: all but LoRA and DoRA."""

import contextlib
from pathlib import Path
from typing import Any

import peft

KEEP = 8  # adapters held in memory; the one unused for longest goes first
ALONE = "VERA"  # its adapters share two matrices, which fit the first of them


class PeftSwitch:
    """Adapters of one of peft's kinds, held side by side; one of another kind takes their place."""

    def __init__(self, base: Any) -> None:
        self.model = base  # peft's model while there are adapters
        self.loaded: dict[Path, str] = {}  # adapter folder → name in peft, least recently used first
        self.kind = ""  # of the adapters in peft's words
        self.silence = contextlib.ExitStack()  # open while the base answers through peft's model
        self.count = 0

    def load(self, adapter: Path, kind: str) -> None:
        """Hold an adapter. Raise what peft raises; where none is loaded after that, the base is spoilt."""
        if kind != self.kind or kind == ALONE:
            self.take_off()
        self.count += 1
        name = f"studio{self.count}"  # no part of a kind's own names, such as a3 of ia3_
        try:
            if self.loaded:
                self.model.load_adapter(str(adapter), name)
            else:
                self.model = peft.PeftModel.from_pretrained(self.model, str(adapter), adapter_name=name)
        except (RuntimeError, ValueError, KeyError):
            if self.loaded and name in self.model.peft_config:
                self.model.delete_adapter(name)
            raise
        self.model.eval()
        self.kind, self.loaded[adapter] = kind, name
        if len(self.loaded) > KEEP:
            self.model.delete_adapter(self.loaded.pop(next(iter(self.loaded))))

    def use(self, adapter: Path | None) -> None:
        """Make this adapter (None: the base) answer next."""
        self.silence.close()
        if adapter:
            name = self.loaded[adapter] = self.loaded.pop(adapter)
            self.model.set_adapter(name)
        elif self.loaded:
            self.silence.enter_context(self.model.disable_adapter())

    def take_off(self) -> None:
        """Take all adapters off the base."""
        self.silence.close()
        if self.loaded:
            virtual = self.model.active_peft_config.is_prompt_learning  # then the base has no part of peft in it
            self.model = self.model.base_model if virtual else self.model.unload()
            self.loaded.clear()
