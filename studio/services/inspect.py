"""What a model would learn of an example: asked of an engine, which reads it as a run would, and judged."""

from collections.abc import Iterator, Sequence
from contextlib import closing

from studio.domain.config import TrainingConfig
from studio.domain.errors import EngineError
from studio.domain.events import Phase
from studio.domain.records import Model
from studio.domain.supervision import Supervision, judge
from studio.services import jobs
from studio.services.sample import Subject
from studio.services.serving import Server
from studio.storage.paths import Home


class Inspect:
    """Looks at examples with one model's tokenizer at a time; its engine leaves when nobody looks for some minutes."""

    def __init__(self, home: Home, command: Sequence[str] = jobs.ENGINE) -> None:
        self.server = Server("inspect", home, command)

    def look(self, model: Model, subject: Subject, config: TrainingConfig) -> Iterator[Phase | Supervision]:
        """Yield phases while the engine comes up, then what is learned of the subject's example with these settings."""
        request = {
            "do": "look",
            "example": subject.example,
            "kind": subject.kind,
            "sample": subject.path,
            "of": subject.of,
            "config": config.model_dump(),
        }
        seen = None
        with self.server.turn, closing(self.server.ask(model, request)) as lines:
            for line in lines:
                if line["type"] == "phase":
                    yield Phase.model_validate(line)
                else:
                    seen = Supervision.model_validate(line)
        if seen is None:
            raise EngineError("The look at the example was stopped.", "Ask again.")
        yield seen.model_copy(update={"findings": judge(seen)})
