"""Single bits of a 64-bit word.

`1 << n` with a constant on the left is compiled to a 32-bit constant, so masks come from a table; and counting the
zeros of a word is a multiplication with a de Bruijn sequence, whose top six bits tell where the only set bit stood.
Both tables stand in the control words.
"""

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from ferrox.fast.layout import BIT_PLACES, MASKS

DE_BRUIJN: Final = 0x03F79D71B4CB0A89


def make_tables(slots: vec[i64]) -> None:
    """Fill in the two tables."""
    mask: int = 1
    for n in range(64):
        slots[MASKS + n] = mask if n < 63 else -mask
        slots[BIT_PLACES + ((DE_BRUIJN * mask & 0xFFFFFFFFFFFFFFFF) >> 58)] = n
        mask += mask


def lowest(slots: vec[i64], word: i64) -> i64:
    """Return the place of the lowest set bit, 0 .. 63; the word is not 0."""
    only = word & -word
    return slots[BIT_PLACES + (((only * DE_BRUIJN) >> 58) & 63)]


def highest(slots: vec[i64], word: i64) -> i64:
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
    return slots[BIT_PLACES + (((only * DE_BRUIJN) >> 58) & 63)]
