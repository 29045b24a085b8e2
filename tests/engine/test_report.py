"""What an engine leaves in its directory: one engine at a time writes there, and no log without end."""

import subprocess
import sys

HOLD = "import sys, time; from pathlib import Path; from studio.engine import report; "
FIRST = HOLD + "report.sole(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
SECOND = HOLD + (
    "from studio.engine.__main__ import main; report.HANDOVER = 0.3; sys.argv[:2] = ['engine', 'train', sys.argv[1]]; "
    "sys.exit(main())"
)


def test_a_second_engine_leaves_the_run_to_the_first_and_may_have_it_when_that_is_killed(tmp_path):
    events = tmp_path / "events.jsonl"
    events.write_bytes(b'{"torn')  # whoever opens the events mends this first
    first = subprocess.Popen([sys.executable, "-c", FIRST, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        second = subprocess.run([sys.executable, "-c", SECOND, str(tmp_path)], capture_output=True, text=True)
        assert second.returncode == 3
        assert second.stderr.strip() == f"Another engine is at work in {tmp_path}."
        assert events.read_bytes() == b'{"torn'
    finally:
        first.kill()
        first.communicate()
    third = subprocess.run([sys.executable, "-c", SECOND, str(tmp_path)], capture_output=True, text=True)
    assert third.returncode == 1  # it had the run, in which there are no settings
    assert "config.yaml" in events.read_text()


FLOOD = """
import os, sys, time
from studio.engine import report
report.LOOK, report.LOG_MOST, report.LOG_KEPT = 0.02, 50_000, 1_000
report.bound_log()
print("the first line", file=sys.stderr)
limit = time.monotonic() + 20
while os.fstat(2).st_size < 50_000 and time.monotonic() < limit:
    print("again " * 100, file=sys.stderr)
while os.fstat(2).st_size > 50_000 and time.monotonic() < limit:
    time.sleep(0.02)
print("the last line", file=sys.stderr)
"""


def test_a_flood_of_words_does_not_fill_the_disk(tmp_path):
    with open(tmp_path / "worker.log", "ab") as file:
        subprocess.run([sys.executable, "-c", FLOOD], stderr=file, check=True)
    log = (tmp_path / "worker.log").read_text()
    assert len(log) < 50_000
    assert log.startswith("the first line")
    assert "bytes of the log were cut here]" in log
    assert log.endswith("the last line\n")
