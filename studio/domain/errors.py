"""The errors a user may see: what is wrong, and the next step."""


class StudioError(Exception):
    """Something the user can act on. `message` says what is wrong with which thing, `hint` the next step."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class DataError(StudioError):
    """The data file cannot be used as it is."""


class NeedsMapping(DataError):
    """The columns are readable but their meaning is not clear; the user must map them.

    `suggestion` is a map to begin with, `samples` the first value of each column.
    """

    def __init__(
        self,
        message: str,
        hint: str,
        columns: list[str] | None = None,
        suggestion: dict[str, str] | None = None,
        samples: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint)  # the rest has defaults, so that the error can be pickled
        self.columns = columns or []
        self.suggestion = suggestion or {}
        self.samples = samples or {}


class SeveralFiles(DataError):
    """An archive holds more than one data file; `files` are the paths of those that can be meant."""

    def __init__(self, message: str, hint: str, files: list[str] | None = None) -> None:
        super().__init__(message, hint)  # a default, so that the error can be pickled
        self.files = files or []


class NotFound(StudioError):
    """There is no run, adapter, data set or model of that name."""


class Taken(StudioError):
    """Another studio serves this home folder; its page is at `address`, if that is known."""

    def __init__(self, message: str, hint: str = "", address: str = "") -> None:
        super().__init__(message, hint)
        self.address = address


class ModelError(StudioError):
    """A model or adapter cannot be had or may not be loaded."""


class TooLong(ModelError):
    """A conversation has more tokens than the model reads."""


class EngineError(StudioError):
    """An engine process ended with this reason, or told it: `kind` is then the name of its own error."""

    def __init__(self, message: str, hint: str = "", kind: str = "") -> None:
        super().__init__(message, hint)
        self.kind = kind
