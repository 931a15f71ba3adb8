"""Single bits of a 64-bit word.

`1 << n` with a constant on the left is compiled to a 32-bit constant, so masks come from a table; and counting the
zeros of a word is a multiplication with a de Bruijn sequence, whose top six bits tell where the only set bit stood.
"""

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

DE_BRUIJN: Final = 0x03F79D71B4CB0A89


class Bits:
    """The two tables, made once."""

    def __init__(self) -> None:
        self.mask = vec[i64]([1 << n if n < 63 else -(1 << 63) for n in range(64)])
        places = [0] * 64
        for n in range(64):
            places[((DE_BRUIJN << n) & 0xFFFFFFFFFFFFFFFF) >> 58] = n
        self.place = vec[i64](places)


def lowest(bits: Bits, word: i64) -> i64:
    """Return the place of the lowest set bit, 0 .. 63; the word is not 0."""
    only = word & -word
    return bits.place[((only * DE_BRUIJN) >> 58) & 63]


def highest(bits: Bits, word: i64) -> i64:
    """Return the place of the highest set bit, 0 .. 63; the word is not 0."""
    if word < 0:
        return 63
    word |= word >> 1
    word |= word >> 2
    word |= word >> 4
    word |= word >> 8
    word |= word >> 16
    word |= word >> 32
    only = word - (word >> 1)
    return bits.place[((only * DE_BRUIJN) >> 58) & 63]
