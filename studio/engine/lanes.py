"""Several batches at the same time on a processor: a thread each, instead of all threads on one batch.

The cores that share one matrix product wait for each other at its end, hundreds of times a layer; two batches side by
side do not. Torch gives up Python's lock while it computes, so threads are enough. Results are taken in order: what is
computed does not depend on who was first.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from studio.domain.lanes import LANE
from studio.engine import parallel

T = TypeVar("T")
LEAST = LANE


class Lanes:
    """`number` threads with their share of the cores. One lane is no thread: the work is done where it is asked for."""

    def __init__(self, number: int = 1) -> None:
        self.number = number
        each = max(1, torch.get_num_threads() // number)
        self.pool = (
            ThreadPoolExecutor(number, "lane", initializer=torch.set_num_threads, initargs=(each,))
            if number > 1
            else None
        )

    def map(self, function: Callable[[T], Any], items: Sequence[T]) -> Iterator[Any]:
        """Yield the results in the order of the items. An error comes when all that had begun has ended."""
        if self.pool is None:
            yield from map(function, items)
            return
        futures = deque(self.pool.submit(function, item) for item in items)
        try:
            while futures:
                yield futures.popleft().result()  # let go of at once: a batch's gradients are as large as the adapter
        finally:
            for future in futures:
                future.cancel()
            for future in futures:
                if not future.cancelled():
                    future.exception()


def lanes_for(model: torch.nn.Module, device: torch.device, size: int) -> int:
    """How many lanes a model may have with `size` tokens in flight: one where order or other threads matter.

    Dropout draws from one source of random numbers, so two lanes would not give the same result twice; two products of
    bitsandbytes were not tried; layers held in parts are put together in the same order by all processes.
    """
    if device.type != "cpu" or _by_bitsandbytes(model) or _draws(model) or parallel.sharded(model):
        return 1
    return max(1, min(torch.get_num_threads(), size // LEAST))


def _by_bitsandbytes(model: Any) -> bool:
    """Whether a layer held in fewer bits computes its own product, and not the fused linear around it."""
    fused = [module for module in model.modules() if "forward" in vars(module) and hasattr(module, "base_layer")]
    around = {id(module.base_layer) for module in fused}
    held = [module for module in model.modules() if type(module).__module__.startswith("bitsandbytes.")]
    return any(isinstance(module, torch.nn.Linear) and id(module) not in around for module in held)


def _draws(model: torch.nn.Module) -> bool:
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
