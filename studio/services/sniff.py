"""Looking at bytes: what a file is whatever its name says, in which encoding, and what stands between its cells."""

import codecs
import io
import re
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO, NamedTuple

from studio.domain.errors import DataError
from studio.services import readers

USE = "Use CSV, TSV, JSON, JSON lines, Parquet or plain text, as it is or packed (.gz, .bz2, .xz, .zst, .zip)."
MAGIC = (
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF87a", "a picture"),
    (b"GIF89a", "a picture"),
    (b"II*\0", "a picture"),
    (b"%PDF-", "a PDF document"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!\x1a", "a RAR archive"),
    (b"SQLite format 3\0", "a database"),
    (b"GGUF\x03\0", "a model"),
    (b"ARROW1\0", "an Arrow file"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x7fELF", "a program"),
    *((bytes((0x80, version)), "a Python pickle") for version in range(2, 6)),
)
BOMS = (  # UTF-32 first: its mark begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Encodings of one or two bytes that are still met, with the names people know them by.
FAMILIES = {
    "cp1252": "Latin-1",
    "cp1250": "Central European (Windows-1250)",
    "cp1251": "Cyrillic (Windows-1251)",
    "cp1253": "Greek (Windows-1253)",
    "cp1254": "Turkish (Windows-1254)",
    "cp1255": "Hebrew (Windows-1255)",
    "cp1256": "Arabic (Windows-1256)",
    "koi8_r": "Cyrillic (KOI8-R)",
    "cp932": "Shift-JIS",
    "euc_jp": "EUC-JP",
    "gb18030": "GB 18030",
    "big5": "Big5",
    "cp949": "Korean (EUC-KR)",
}
CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))
BROKEN = re.compile("[\ud800-\udfff]")  # how a byte that is no text, or half a character, shows after decoding
FOREIGN = re.compile("[^\0-\x7f\ud800-\udfff]")
SAMPLE = 2**16  # bytes of lines with letters beyond ASCII, by which their encoding is found
DELIMITERS = {
    ",": "Comma-separated",
    ";": "Semicolon-separated",
    "\t": "Tab-separated",
    "|": "Bar-separated",
    "^": "Caret-separated",
    "~": "Tilde-separated",
    "¦": "Bar-separated",
    "\x01": "Separated by control characters",
    "\x1f": "Separated by control characters",
    ":": "Colon-separated",
}


class Encoding(NamedTuple):
    """A codec, what is done with bytes it does not know, its name for people, and the bytes of the whole text."""

    codec: str
    errors: str
    name: str
    size: int = 0


def what(head: bytes) -> str:
    """Return what a file that begins like this is, when it is no data: "a picture"."""
    if head[257:262] == b"ustar":
        return "a tar archive"
    return next((words for magic, words in MAGIC if head.startswith(magic)), "")


def encoding(head: bytes, file: BinaryIO, name: str, most: int | None = None) -> Encoding:
    """Find the encoding. The whole file is looked at, as the first accent may come late, or for a look `most` bytes."""
    for mark, codec in BOMS:
        if head.startswith(mark):
            return Encoding(codec, "surrogatepass", codec.upper(), _size(file))
    even, odd = head[::2].count(0), head[1::2].count(0)
    if len(head) >= 8 and max(even, odd) > 0.2 * len(head) and not min(even, odd):
        return Encoding("utf-16-be" if even else "utf-16-le", "surrogatepass", "UTF-16", _size(file))
    if len(head.translate(None, CONTROL)) < 0.95 * len(head):
        raise DataError(f"{name} is not text.", USE)
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    broken = foreign = False
    size, sample, escapes = 0, b"", False
    while (most is None or size < most) and (piece := file.read(2**20)):
        size += len(piece)
        if b"\0" in piece:
            raise DataError(f"{name} holds NUL bytes, so it is not text.", USE)
        escapes = escapes or b"\x1b$B" in piece or b"\x1b$@" in piece
        text = decoder.decode(piece)
        if not text.isascii():
            broken = broken or _holds_broken(text)
            foreign = foreign or FOREIGN.search(text) is not None
            if len(sample) < SAMPLE:
                sample += b"".join(line for line in piece.splitlines(True) if not line.isascii())[:SAMPLE]
    broken = broken or bool(most is None and decoder.getstate()[0])
    if escapes and not broken and not foreign:
        return Encoding("iso2022_jp", "surrogateescape", "ISO-2022-JP", size)
    if broken and (codec := _family(sample, foreign)):
        return Encoding(codec, "surrogateescape", FAMILIES[codec], size)
    return Encoding("utf-8-sig", "surrogateescape", "UTF-8", size)


def _family(sample: bytes, foreign: bool) -> str:
    """Return the codec of text that is not UTF-8; nothing for UTF-8 with a few bytes that are damaged."""
    from charset_normalizer import from_bytes

    if foreign:  # in other encodings a few bytes are valid UTF-8 by chance
        damaged = len(BROKEN.findall(sample.decode("utf-8", "surrogateescape")))
        if damaged < 0.45 * sum(byte > 127 for byte in sample):
            return ""
    best, most = "cp1252", float("-inf")
    for match in from_bytes(sample, cp_isolation=list(FAMILIES)):
        for codec in FAMILIES:  # the most usual first: it wins a tie, as after a few accents
            score = match.percent_coherence - match.percent_chaos
            if codec in match.could_be_from_charset and (score, codec == "cp1252") > (most, best == "cp1252"):
                best, most = codec, score
    return best


def _holds_broken(text: str) -> bool:
    """Tell whether some of the bytes were no text; encoding again is ten times as fast as a search."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _size(file: BinaryIO) -> int:
    return sum(len(piece) for piece in iter(lambda: file.read(2**20), b""))


def delimiter(sample: str) -> str:
    """Return the character that splits most rows into as many cells as the header."""
    lines = list(io.StringIO(sample, newline=""))
    lines = lines[:-1] or lines  # the last line may be cut off
    best, most = ",", (0, 0)
    for character in DELIMITERS:
        counts = [len(cells) for cells in islice(readers.records(iter(lines), character), 50) if cells]
        if counts and counts[0] > 1 and (counts.count(counts[0]), counts[0]) > most:
            best, most = character, (counts.count(counts[0]), counts[0])
    return best


def stated_delimiter(line: str) -> str:
    """Return the delimiter a spreadsheet wrote into the first line: "sep=;"."""
    match = re.fullmatch(r'"?sep=(.)"?\s*', line, re.IGNORECASE)
    return match[1] if match else ""


def is_no_header(cells: list[str]) -> bool:
    """Tell whether the first record looks like a row: it holds a sentence or a number, which names seldom are."""
    return any(re.fullmatch(r"[\d.,]+|.{61,}|.+ .+[.?!]", cell.strip(), re.DOTALL) for cell in cells)


def is_table(lines: Iterator[str]) -> bool:
    """Tell whether every line has the same number of tabs, as a table saved as text has and a text has not."""
    counts = [line.count("\t") for line in islice((line for line in lines if line.strip()), 20)]
    return len(counts) > 2 and len(set(counts)) == 1 and counts[0] > 0
