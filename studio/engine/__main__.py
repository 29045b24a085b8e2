"""`python -m studio.engine JOB DIR`: train, evaluate, convert, chat or inspect in this process."""

import errno
import os
import sys
import traceback
from pathlib import Path

from filelock import Timeout

from studio.domain.config import TrainingConfig
from studio.domain.errors import StudioError
from studio.domain.events import Failed
from studio.engine.report import MEETING, Reporter, bound_log, identify, settings, sole

JOBS = ("train", "evaluate", "tasks", "export", "convert", "keep", "measure", "chat", "inspect")


def main() -> int:
    if len(sys.argv) != 3 or sys.argv[1] not in JOBS:
        print(f"usage: python -m studio.engine {'|'.join(JOBS)} DIRECTORY", file=sys.stderr)  # noqa: T201
        return 2
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # engines work from local files
    job, directory = sys.argv[1], Path(sys.argv[2])
    bound_log()
    if job == "chat":
        from studio.engine import chat

        chat.run(directory)
        return 0
    if job == "inspect":
        # a tokenizer needs no torch, whose import is most of the wait for the first look
        sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that torch was not found
        from studio.engine import inspect

        inspect.run(directory)
        return 0
    several = MEETING in os.environ  # this is one of several processes of a run
    try:
        if job == "train" and not several:
            sole(directory)
    except Timeout:  # the events are the other one's to write
        print(f"Another engine is at work in {directory}.", file=sys.stderr)  # noqa: T201
        return 3
    reporter = Reporter(directory, silent=several and os.environ["RANK"] != "0")
    try:
        if not several:
            identify(directory)
        reporter.phase("Starting the engine")
        if job == "train":
            config = settings(directory)
            _leave_out_bitsandbytes(config)
            from studio.engine import parallel

            if not several and (number := parallel.processes(config.hardware)) > 1:
                return parallel.launch(directory, number)
            from studio.engine import train

            train.run(directory, reporter)
        elif job == "evaluate":
            from studio.engine import evaluate

            evaluate.run(directory, reporter)
        elif job == "tasks":
            from studio.engine import tasks

            tasks.run(directory, reporter)
        elif job == "export":
            from studio.engine import export

            export.run(directory, reporter)
        elif job == "keep":
            from studio.engine import keep

            keep.run(directory, reporter)
        elif job == "measure":
            _leave_out_bitsandbytes(settings(directory))
            from studio.engine import measure

            measure.run(directory, reporter)
        else:
            from studio.engine import models

            request = models.request(directory)
            reporter.phase("Converting the model")
            models.convert(Path(request["gguf"]), Path(request["out"]))
    except StudioError as error:
        return _fail(reporter, Failed(message=error.message, hint=error.hint))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            full = Failed(message="The disk is full.", hint="Free some space, then resume: nothing saved is lost.")
            return _fail(reporter, full)
        what = f"{error.strerror or error}{': ' + str(error.filename) if error.filename else ''}"
        return _fail(
            reporter,
            Failed(message=f"A file could not be read or written: {what}.", hint="Check disk space and permissions."),
        )
    except (RuntimeError, MemoryError) as error:
        from studio.engine import memory

        if not memory.ran_out(error):
            raise
        return _fail(
            reporter,
            Failed(
                message="The memory was not enough.",
                hint="Halve train.batch_tokens, or choose QLoRA or a smaller model.",
            ),
        )
    return 0


def _leave_out_bitsandbytes(config: TrainingConfig) -> None:
    """Treat bitsandbytes as not installed in a run without it: PEFT imports it, and a fifth of a start goes to that."""
    if config.quantization == "none" and config.train.optimizer == "adamw":
        sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]


def _fail(reporter: Reporter, event: Failed) -> int:
    traceback.print_exc()  # into worker.log, never onto the page
    if MEETING in os.environ:
        from studio.engine import parallel

        parallel.give_reason(event)
    else:
        try:
            reporter.emit(event)
        except OSError as error:  # the studio tells a full disk by the code
            return error.errno or 1
    return 1


if __name__ == "__main__":
    sys.exit(main())
