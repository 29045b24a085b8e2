"""Several processes for one run: started and watched, each with its share of the rows, their gradients added.

Every process holds the adapter and the optimizer whole and makes the same step, so any of them can write what a single
process would, and any number can go on from it.
"""

import heapq
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import distributed as dist
from torch.distributed.fsdp import FSDPModule, fully_shard

from studio.domain.config import HardwareConfig
from studio.domain.errors import EngineError, StudioError
from studio.domain.events import Failed
from studio.engine.report import MEETING, Reporter
from studio.engine.rows import Row
from studio.engine.tensors import padded_batch

LAUNCHER = "PEFT_STUDIO_LAUNCHER"  # number of the process that started this one
PATIENCE = timedelta(days=7)  # waiting is no failure: whoever dies is seen by the process that started it
WATCH = 0.5  # seconds between two looks at the processes
IDLE = padded_batch([Row(np.zeros(1, np.int32), np.zeros(1, np.bool_))], 0)  # one token, nothing to learn


def processes(hardware: HardwareConfig) -> int:
    """How many processes the run is to have."""
    if hardware.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # whoever is started from here sees none either
    cards, wanted = torch.cuda.device_count(), hardware.processes
    if wanted == "auto":
        return max(1, cards)
    if cards and wanted > cards:
        raise EngineError(
            f"{wanted} processes need {wanted} CUDA cards; there are {cards}.",
            f"Set hardware.processes to {cards} or less, or hardware.device to cpu.",
        )
    return wanted


def launch(directory: Path, number: int) -> int:
    """Train in `number` processes and return the exit code. When one dies the others are ended; the event says why.

    torchrun's own agent starts and watches them. It and they meet in files: what they would otherwise open is a port
    that anybody on the network may write to.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    begin = time.monotonic()
    signal.signal(signal.SIGTERM, _PassOn())
    with tempfile.TemporaryDirectory(prefix="peft-studio-") as folder:
        os.environ |= {MEETING: f"{folder}/workers", LAUNCHER: str(os.getpid())}
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=number,
            run_id=directory.name,
            max_restarts=0,
            monitor_interval=WATCH,
            rdzv_backend="c10d",
            rdzv_endpoint=f"{folder}/agent",
            rdzv_configs={"store_type": "file"},
            local_addr="127.0.0.1",
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            virtual_local_rank=torch.cuda.is_available(),  # each sees one card, as number 0
            signals_to_handle="SIGINT",
        )
        try:
            elastic_launch(config, sys.executable)("-m", "studio.engine", "train", str(directory))
        except ChildFailedError as error:
            if all(failure.exitcode == -signal.SIGTERM for failure in error.failures.values()):
                signal.signal(signal.SIGTERM, signal.SIG_DFL)  # ended from outside before they could listen
                os.kill(os.getpid(), signal.SIGTERM)
            reporter = Reporter(directory)
            reporter.begin = begin
            reporter.emit(_why(error.failures, number))
            return 1
    return 0


class _PassOn:
    """SIGTERM is for the processes to obey, at the end of their step; a second one ends them at once."""

    again = False

    def __call__(self, number: int, frame: Any) -> None:
        for child in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):
                child.kill() if self.again else child.terminate()
        if self.again:
            os._exit(128 + number)
        self.again = True


def _why(failures: dict[int, Any], number: int) -> Failed:
    """Say why the run ended: the words of a process, else who was killed; the others fail only as it is gone."""

    def cause(rank: int) -> tuple[bool, bool, int]:
        failure = failures[rank]
        killed = failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM
        return "hint" not in failure.error_file_data, not killed, failure.timestamp

    rank = min(failures, key=cause)
    failure = failures[rank]
    if "hint" in failure.error_file_data:
        return Failed(message=failure.message, hint=failure.error_file_data["hint"])
    who = f"Process {rank + 1} of {number}"
    if failure.exitcode == -signal.SIGKILL:
        return Failed(
            message=f"{who} was ended by the system, most often for lack of memory.",
            hint="Lower hardware.processes, or halve train.batch_tokens.",
        )
    how = f"was ended by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with code {failure.exitcode}"
    return Failed(message=f"{who} {how}.", hint="The log of the run says more.")


def give_reason(event: Failed) -> None:
    """Leave a failure's words to the process that started this one: it alone writes the end of such a run."""
    words = {"message": event.message, "hint": event.hint, "timestamp": int(time.time())}
    Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(json.dumps(words), encoding="utf-8")


def join(device: torch.device) -> None:
    """Meet the other processes of the run, if it has others."""
    if MEETING not in os.environ:
        return
    threading.Thread(target=_leave_with, args=(int(os.environ[LAUNCHER]),), daemon=True).start()
    count = int(os.environ["WORLD_SIZE"])
    local = next(name for name, has in psutil.net_if_addrs().items() if any(a.address == "127.0.0.1" for a in has))
    os.environ |= {"GLOO_SOCKET_IFNAME": local, "NCCL_SOCKET_IFNAME": local}  # not heard outside this machine
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=dist.FileStore(os.environ[MEETING], count),
        rank=int(os.environ["RANK"]),
        world_size=count,
        timeout=PATIENCE,
    )


def _leave_with(launcher: int) -> None:
    """End this process when the one that watches it is gone: nobody could stop it, or would know of it."""
    while os.getppid() == launcher and psutil.pid_exists(launcher):
        time.sleep(WATCH)
    os._exit(1)


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def leads() -> bool:
    """Whether this is the process that writes events and files."""
    return rank() == 0


def total(*numbers: float) -> list[float]:
    """Each number summed over the processes."""
    return _reduced(numbers, dist.ReduceOp.SUM)


def agree(number: int) -> int:
    """The largest number any process says."""
    return int(_reduced([number], dist.ReduceOp.MAX)[0])


def either(asked: bool) -> bool:
    """Whether any process says so: what one was asked, all do."""
    return bool(agree(asked))


def wait() -> None:
    """Return when all processes have come here."""
    agree(0)


def _reduced(numbers: Sequence[float], how: Any) -> list[float]:
    if size() == 1:
        return list(numbers)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    values = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(values, how)
    return values.tolist()


@contextmanager
def leader_first() -> Iterator[None]:
    """Let one process make what the others then find."""
    if not leads():
        wait()
    yield
    if leads():
        wait()


@contextmanager
def by_leader(foreseen: type[StudioError]) -> Iterator[bool]:
    """Let one process do something for all; when it fails in the way foreseen, it fails so in all."""
    error: StudioError | None = None
    try:
        yield leads()
    except foreseen as caught:
        error = caught
    if either(error is not None):
        raise error or foreseen("The process that writes the files could not.")


def shares(lengths: Sequence[int] | np.ndarray, parts: int) -> list[np.ndarray]:
    """Divide rows, by their place: the longest first, each to whoever has the fewest tokens yet."""
    found: list[list[int]] = [[] for _ in range(parts)]
    load = [(0, part) for part in range(parts)]
    for place in np.argsort(-np.asarray(lengths, np.int64), kind="stable"):
        tokens, part = load[0]
        found[part].append(int(place))
        heapq.heapreplace(load, (tokens + int(lengths[place]), part))
    return [np.array(sorted(part), np.int64) for part in found]


def share(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Places of the rows that are this process's."""
    return shares(lengths, size())[rank()]


def even(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fill up with idle batches to the largest number a process has: a shared layer is put together by all or none."""
    return batches + [IDLE] * (agree(len(batches)) - len(batches))


def add(tensors: Sequence[torch.Tensor]) -> None:
    """Sum each tensor over the processes, in place and all in one message."""
    if size() == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def shard(model: Any, layers: list[Any], device: torch.device) -> None:
    """Leave each process its part of every frozen layer; a layer is put together while it computes (FSDP2).

    What stays whole: the adapter, which is small, and embeddings, last norm and head, which are needed from the first
    moment of a pass to its last. The model may be larger than a card while it is on the processor.
    """
    if size() == 1:
        return
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    mesh = dist.init_device_mesh(device.type, (size(),))
    whole = {value for value in model.parameters() if value.requires_grad}
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params=whole)
    whole |= set(inner.base_model.parameters()) - {value for layer in layers for value in layer.parameters()}
    fully_shard(inner.base_model, mesh=mesh, ignored_params=whole)  # no weights of its own: it knows what comes next
    inner._is_fsdp_managed_module = True  # transformers: answer until all processes have answered
    if device.type != "cpu":
        model.to(device)


def sharded(model: torch.nn.Module) -> bool:
    return any(isinstance(module, FSDPModule) for module in model.modules())
