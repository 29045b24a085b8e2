"""What others take of the processors is told apart from what this process does."""

import subprocess
import sys
import time

from studio.engine.others import Others


def test_the_work_of_another_process_is_seen_and_its_own_is_not() -> None:
    others = Others()
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(1.5)
        beside = others.share()
    finally:
        busy.kill()
        busy.wait()
    others, end = Others(), time.process_time() + 1.0
    while time.process_time() < end:
        pass
    own = others.share()
    assert beside > 0.01, "one of the cores there are, or what is left of it"
    assert 0 <= own <= 1
