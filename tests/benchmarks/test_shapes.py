"""Every file shape is read right, asked about or refused in words; none is wrong in silence."""

from pathlib import Path

from studio.domain.errors import DataError
from studio.services.check import Check, check_file
from tests.benchmarks import shapes


def test_no_shape_is_wrong_in_silence(tmp_path: Path) -> None:
    def found(path: Path) -> Check | DataError:
        try:
            return check_file(path)
        except DataError as error:
            return error

    verdicts = {name: shapes.judge(found(path), expected) for name, path, expected in shapes.make(tmp_path)}
    assert {name: verdict for name, verdict in verdicts.items() if verdict.startswith("wrong")} == {}
    assert len(verdicts) >= 40
