"""What an engine leaves in its directory: one engine at a time writes there."""

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
