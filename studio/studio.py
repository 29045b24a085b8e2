"""The studio: every service, built once, for the page, the command line and scripts."""

from pathlib import Path
from typing import Any

from studio.services.adapters import Adapters
from studio.services.chat import Chat
from studio.services.conversations import Conversations
from studio.services.datasets import Datasets
from studio.services.estimate import Estimates
from studio.services.evaluate import Evaluate
from studio.services.export import Export
from studio.services.hung import Hung
from studio.services.inspect import Inspect
from studio.services.machine import Machine
from studio.services.models import Models
from studio.services.notify import Notify
from studio.services.power import Power
from studio.services.programs import Programs
from studio.services.queue import Queue
from studio.services.recommend import recommend
from studio.services.rooms import Rooms
from studio.services.runs import Runs
from studio.services.share import Fitted, fit
from studio.services.usage import Meter
from studio.services.versions import Versions
from studio.services.vllm import Vllm
from studio.storage.locks import Lock
from studio.storage.paths import Home
from studio.storage.store import Store


class Studio:
    """One home folder and the services on it. Building it starts nothing and makes only the folders."""

    recommend = staticmethod(recommend)

    def __init__(self, home: str | Path | None = None) -> None:
        self.home = Home(home).prepare()
        self.store = Store(self.home)
        self.models = Models(self.home)
        self.machine = Machine(self.home)
        self.datasets = Datasets(self.home)
        self.adapters = Adapters(self.home, self.store)
        self.runs = Runs(self.home, self.store, self.models, self.datasets, self.adapters, self.machine)
        self.lock = Lock(self.home)  # not taken: only a studio that serves the page takes it
        self.notify = Notify(self.home, self.runs)
        self.hung = Hung(self.runs, self.machine)
        self.queue = Queue(self.runs, self.machine, self.lock, self._watch)
        self.runs.ring = self.queue.ring
        self.power = Power(self.home, self.machine)
        self.estimates = Estimates(self.home, self.runs, self.models, self.datasets, self.machine, self.power)
        self.runs.quote = self.estimates.of
        self.evaluate = Evaluate(self.home, self.models, self.adapters, self.datasets)
        self.versions = Versions(self.adapters)
        self.rooms = Rooms(self.home, self.adapters, self.runs)
        self.export = Export(self.home, self.models, self.adapters)
        self.chat = Chat(self.home, self.models, self.adapters)
        self.programs = Programs(self.home, self.chat, self.runs, self.machine, self.lock)
        self.conversations = Conversations(self.home)
        self.vllm = Vllm(self.home, self.models, self.adapters)
        self.inspect = Inspect(self.home)
        self.meter = Meter(self.machine)

    def fit(self, document: Any) -> Fitted:
        """Check settings that were passed on against this machine, and change what cannot be here."""
        return fit(document, self.models, self.datasets, self.machine, self.estimates)

    def _watch(self) -> float | None:
        """Tell what is new and end what hangs; return the seconds to the next look, None where nothing is at work."""
        waits = [each for each in (self.hung.look(), self.notify.look()) if each is not None]
        return min(waits, default=None)
