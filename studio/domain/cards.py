"""Graphics cards by name, as their makers describe them, to say what would fit on one that is not here."""

from dataclasses import dataclass

from studio.domain.errors import NotFound


@dataclass(frozen=True)
class Card:
    """One card: memory in bytes, 10¹² operations a second, and whether its arithmetic units take bf16 and fp8."""

    name: str
    memory_bytes: int
    tflops: int  # in 16 bits summed in 32, without sparsity; in fp32 where there are no such units
    bf16: bool = True
    fp8: bool = False


def _gib(number: float) -> int:
    return int(number * 2**30)


# From the data sheets of NVIDIA; bf16 came with Ampere (8.0), fp8 with Ada and Hopper (8.9, 9.0).
CARDS: tuple[Card, ...] = (
    Card("GTX 1080 Ti", _gib(11), 11, bf16=False),
    Card("T4", _gib(16), 65, bf16=False),
    Card("V100 16 GB", _gib(16), 112, bf16=False),
    Card("V100 32 GB", _gib(32), 112, bf16=False),
    Card("RTX 2080 Ti", _gib(11), 54, bf16=False),
    Card("RTX 3060", _gib(12), 25),
    Card("RTX 3080", _gib(10), 60),
    Card("RTX 3090", _gib(24), 71),
    Card("RTX A4000", _gib(16), 77),
    Card("RTX A6000", _gib(48), 155),
    Card("A10", _gib(24), 125),
    Card("A40", _gib(48), 150),
    Card("A100 40 GB", _gib(40), 312),
    Card("A100 80 GB", _gib(80), 312),
    Card("RTX 4060 Ti", _gib(16), 44, fp8=True),
    Card("RTX 4070", _gib(12), 58, fp8=True),
    Card("RTX 4080", _gib(16), 97, fp8=True),
    Card("RTX 4090", _gib(24), 165, fp8=True),
    Card("L4", _gib(24), 121, fp8=True),
    Card("L40", _gib(48), 181, fp8=True),
    Card("L40S", _gib(48), 362, fp8=True),
    Card("RTX 6000 Ada", _gib(48), 364, fp8=True),
    Card("RTX 5080", _gib(16), 113, fp8=True),
    Card("RTX 5090", _gib(32), 210, fp8=True),
    Card("H100", _gib(80), 989, fp8=True),
    Card("H200", _gib(141), 989, fp8=True),
    Card("B200", _gib(180), 2250, fp8=True),
)


MAKER = {"nvidia", "geforce", "tesla"}


def card(name: str) -> Card:
    """Return the card a name means: `4090`, `rtx 4090` or `NVIDIA GeForce RTX 4090`; of several, the one with most."""
    wanted = set(name.casefold().replace("-", " ").replace("gb", " gb").split()) - MAKER
    exact = [each for each in CARDS if _words(each) <= wanted]
    found = exact or [each for each in CARDS if wanted and wanted <= _words(each)]
    if not found:
        raise NotFound(f"The card {name!r} is not known.", f"Known are: {', '.join(each.name for each in CARDS)}.")
    return max(found, key=lambda each: (len(_words(each)), each.memory_bytes))


def _words(card: Card) -> set[str]:
    return set(card.name.casefold().split())
