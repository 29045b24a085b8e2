"""What damaged files do to the reader: `python -m tests.benchmarks.bad_inputs --count 2000`.

Files of every container are damaged in many ways by a seeded script and checked by the service, in a child process
that is measured. A crash is an error that is no DataError; a message must name the file or the row and a remedy.
"""

import argparse
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from studio.domain.errors import DataError
from studio.services.check import check_file
from tests.benchmarks.shapes import CONTAINERS, STRUCTURES, numbered

Random = random.Random
WORDS = [b"\0", b'"', b"{", b"[", b"}", b"NaN", b"1e999", b"\xff\xfe", b"\x1f\x8b", b"PK\x03\x04", b"PAR1", b"\r"]
WORDS += [b"9" * 6000, b'{"a":' * 3000, b"[" * 3000, b"\xed\xa0\x80", b"=cmd|'/C calc'!A0", b"\x1b$B", b"sep=;\n"]
WORDS += [b"\\u0000", b"\xc3", b"\\ud800"]
LARGE = b"x" * (17 * 2**20)


def place(data: bytes, by: Random) -> int:
    return by.randrange(len(data) + 1)


def flipped(data: bytes, by: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(by.choice([1, 3, 30])):
        changed[by.randrange(len(changed))] ^= 1 << by.randrange(8)
    return bytes(changed)


def replaced(data: bytes, by: Random) -> bytes:
    start = place(data, by)
    return data[:start] + by.randbytes(by.choice([1, 16, 400])) + data[start + by.choice([1, 16, 400]) :]


def inserted(data: bytes, by: Random) -> bytes:
    start = place(data, by)
    return data[:start] + by.choice(WORDS) + data[start:]


def doubled(data: bytes, by: Random) -> bytes:
    start, end = sorted((place(data, by), place(data, by)))
    return data[:end] + data[start:end] + data[end:]


def missing(data: bytes, by: Random) -> bytes:
    start, end = sorted((place(data, by), place(data, by)))
    return data[:start] + data[end:]


def recoded(data: bytes, by: Random) -> bytes:
    return data.decode("utf-8", "replace").encode(by.choice(["utf-16", "utf-32", "utf-7"]))


def remarked(data: bytes, by: Random) -> bytes:
    return data.replace(by.choice([b'"', b",", b":", b"{"]), by.choice([b"'", b"", b";", b"\t"]))


def lengthened(data: bytes, by: Random) -> bytes:
    start = place(data, by)
    return data[:start] + LARGE + data[start:]


DAMAGES: dict[str, Callable[[bytes, Random], bytes]] = {
    "bits flipped": flipped,
    "bytes replaced": replaced,
    "cut off": lambda data, by: data[: place(data, by)],
    "beginning gone": lambda data, by: data[place(data, by) :],
    "hostile bytes inserted": inserted,
    "a part twice": doubled,
    "a part missing": missing,
    "nothing but noise": lambda data, by: by.randbytes(len(data)),
    "noise behind": lambda data, by: data + by.randbytes(300),
    "another encoding": recoded,
    "line ends changed": lambda data, by: data.replace(b"\n", by.choice([b"\r", b"\r\n", b"\n\n", b"", b"\x85"])),
    "marks changed": remarked,
    "two files in one": lambda data, by: data + data,
    "17 MB without an end": lengthened,
}


class Outcome(NamedTuple):
    """How one input ended: read, refused or a fault; and the processor seconds it took."""

    file: str
    damage: str
    kind: str
    told: str
    seconds: float


def sources() -> list[tuple[str, bytes]]:
    """Return the sound files: each container with one structure after the other."""
    structures = list(STRUCTURES.values())
    return [
        (name, write([numbered(structures[(place + n) % len(structures)].row, row) for row in range(12)]))
        for place, (name, write) in enumerate(CONTAINERS.items())
        for n in range(3)
    ]


def tried(path: Path, damage: str) -> Outcome:
    """Check one file; say what is wrong with how it was met."""
    began = time.process_time()
    kind, told = "read", ""
    try:
        check = check_file(path)
        if any(not each.problem.startswith(f"Row {each.row} ") or not each.remedy for each in check.problems):
            kind, told = "fault", "a problem without its row or a remedy"
        json.dumps(check.model_dump(), allow_nan=False, ensure_ascii=False).encode()  # strict JSON, and text
    except DataError as error:
        kind, told = "refused", error.message
        names = path.name in told or "`" in told or "row" in told.lower()
        if not error.hint or not names:
            kind = "fault"
    except Exception as error:  # noqa: BLE001 - what is counted
        kind, told = "fault", f"{type(error).__name__}: {error}"
    return Outcome(path.name, damage, kind, told, time.process_time() - began)


def attempts(count: int, seed: int) -> list[Outcome]:
    """Damage and check `count` files."""
    by = random.Random(seed)
    sound, damages = sources(), list(DAMAGES)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            name, data = sound[number % len(sound)]
            # the large ones take a hundred times as long to make as to refuse: a few will do
            damage = damages[number // len(sound) % len(damages)] if number % 7 else by.choice(damages[:-1])
            path = Path(folder) / name
            path.write_bytes(DAMAGES[damage](data, by))
            found.append(tried(path, damage))
            if found[-1].kind == "fault":
                print(f"{number}: {name}, {damage}: {found[-1].told}", file=sys.stderr)
    return found


def _child(count: int, seed: int, sender: "multiprocessing.connection.Connection") -> None:
    found = attempts(count, seed)
    sender.send((found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))  # kilobytes on Linux


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("spawn").Process(target=_child, args=(options.count, options.seed, sender))
    child.start()
    sender.close()
    try:
        found, peak = receiver.recv()
    except EOFError:
        raise SystemExit("The child died: a crash.") from None
    child.join()
    kinds = Counter(each.kind for each in found)
    found.sort(key=lambda each: each.seconds)
    classes = len({(each.damage, each.file) for each in found})
    middle, late, last = (found[place] for place in (len(found) // 2, len(found) * 99 // 100, -1))
    print(f"{len(found):,} inputs in {classes} classes: " + ", ".join(f"{n:,} {kind}" for kind, n in kinds.items()))
    print(f"processor seconds: p50 {middle.seconds:.3f}, p99 {late.seconds:.2f}, most {last.seconds:.2f} "
          f"({last.damage} in {last.file}); peak memory {peak / 1e6:.2f} GB")  # fmt: skip


if __name__ == "__main__":
    main()
