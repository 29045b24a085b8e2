"""What other programs take of the processors: a speed that was reached beside them is not that of a free machine."""

import time

import psutil


class Others:
    """Watches from when it is made."""

    def __init__(self) -> None:
        self.begin = _used()

    def share(self) -> float:
        """Return the share of all processors that others took since then, 0 to 1."""
        others, whole = (now - before for now, before in zip(_used(), self.begin, strict=True))
        return round(min(1.0, max(0.0, others / whole)), 3) if whole else 0.0


def _used() -> tuple[float, float]:
    """Return the seconds that others have worked so far, and the seconds there were, of all processors together."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)  # not on every system
    whole = times.user + times.system + getattr(times, "nice", 0.0) + getattr(times, "steal", 0.0) + idle
    return whole - idle - time.process_time(), whole
