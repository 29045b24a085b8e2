"""Inputs that a coverage-guided fuzzer makes up for the data reader: `python -m tests.benchmarks.fuzz --seconds 600`.

Needs `pip install atheris`, which is no dependency of the project. It begins with sound files of every container and
keeps what reaches new code. The first byte of an input chooses the file's name. Each fault is told once.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["studio"]):
    from studio.services import check, formats, json_rows, packed, readers, recognise, sniff, structures, turns
    from tests.benchmarks.bad_inputs import sources, tried

    LOOKED_INTO = (check, formats, json_rows, packed, readers, recognise, sniff, structures, turns)

EVERY = 1_000  # inputs between two reports
SLOW = 5.0  # seconds of the processor from which an input is a fault


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    options = parser.parse_args()
    sound = sources()
    names = sorted({name for name, _ in sound})
    kinds = {"read": 0, "refused": 0, "fault": 0}
    told: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, (name, data) in enumerate(sound):
            (corpus / str(number)).write_bytes(bytes([names.index(name)]) + data)

        def one(data: bytes) -> None:
            path = Path(folder, names[data[0] % len(names)] if data else names[0])
            path.write_bytes(data[1:])
            found = tried(path, "fuzzed")
            kind = "fault" if found.seconds > SLOW else found.kind
            kinds[kind] += 1
            words = found.told[:100] or f"{found.seconds:.1f} s"
            if kind == "fault" and words not in told:
                told.add(words)
                print(f"FAULT {path.name}: {found.told}, {found.seconds:.1f} s: {data[:300]!r}", flush=True)
            if not sum(kinds.values()) % EVERY:
                print(kinds, flush=True)

        limits = [f"-max_total_time={options.seconds}", "-max_len=20000", "-rss_limit_mb=1500", "-timeout=60"]
        atheris.Setup([sys.argv[0], *limits, str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
