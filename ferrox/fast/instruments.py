"""Instruments: from a number to its book, and the commands about instruments themselves."""

from librt.vecs import vec
from mypy_extensions import i32, i64

from ferrox.fast.layout import (
    BEST,
    BOOK_HEADS,
    BOOK_NOT_EMPTY,
    BOOK_ROOT,
    BOOK_SLOTS,
    BOOKS_AT,
    BUY,
    FIRST_BOOK,
    HALF,
    HIGH,
    INSTRUMENT,
    INSTRUMENT_CAPACITY,
    INSTRUMENT_DEFINED,
    INSTRUMENTS,
    INSTRUMENTS_FULL,
    LEAF,
    LOT,
    LOW,
    NEXT,
    PREVIOUS,
    ROOT,
    SELL,
    SLOT,
    STATE,
    STATE_CHANGED,
    TICK,
    UNKNOWN_INSTRUMENT,
)
from ferrox.fast.reports import report, tail_of
from ferrox.fast.tree import plant


def book_of(slots: vec[i64], heads: vec[i32], instrument: i64) -> i64:
    """Return the place of an instrument's book, or 0 while it is not defined; the number is within its limits."""
    return i64(heads[slots[BOOK_HEADS] + instrument])


def enlist(slots: vec[i64], book: i64) -> None:
    """Put a new book, its instrument set, into the list of books in the order of instruments."""
    beside = plant(slots, BOOK_ROOT, book + LEAF)
    before: i64 = 0
    after: i64 = 0
    if beside > 0:
        after = beside - LEAF
        before = slots[after + PREVIOUS]
    elif beside < 0:
        before = -beside - LEAF
        after = slots[before + NEXT]
    slots[book + PREVIOUS] = before
    slots[book + NEXT] = after
    if before != 0:
        slots[before + NEXT] = book
    else:
        slots[FIRST_BOOK] = book
    if after != 0:
        slots[after + PREVIOUS] = book


def define(
    slots: vec[i64], heads: vec[i32], out: vec[i64], state: i64, instrument: i64, low: i64, high: i64, sizes: i64
) -> i64:
    """Define an instrument, or define an empty one again (INSTR-1, INSTR-2); return why not, or 0."""
    book = book_of(slots, heads, instrument)
    if book == 0:
        if slots[INSTRUMENTS] >= slots[INSTRUMENT_CAPACITY]:
            return INSTRUMENTS_FULL
        book = slots[BOOKS_AT] + slots[INSTRUMENTS] * BOOK_SLOTS * SLOT
        heads[slots[BOOK_HEADS] + instrument] = i32(book)
        slots[INSTRUMENTS] += 1
        slots[book + INSTRUMENT] = instrument
        enlist(slots, book)
        for side in (BUY, SELL):
            slots[book + BEST + side] = 0
            slots[book + ROOT + side] = 0
    elif slots[book + BEST + BUY] != 0 or slots[book + BEST + SELL] != 0:
        return BOOK_NOT_EMPTY
    slots[book + STATE] = state
    slots[book + TICK] = sizes & HALF
    slots[book + LOT] = sizes >> 32
    slots[book + LOW] = low
    slots[book + HIGH] = high
    report(slots, out, 0, high, low, sizes, tail_of(instrument, INSTRUMENT_DEFINED, state, 0, 0))
    return 0


def set_state(slots: vec[i64], heads: vec[i32], out: vec[i64], state: i64, instrument: i64) -> i64:
    """Move an instrument to another trading state (STATE-4); return why not, or 0."""
    book = book_of(slots, heads, instrument)
    if book == 0:
        return UNKNOWN_INSTRUMENT
    slots[book + STATE] = state
    report(slots, out, 0, 0, 0, 0, tail_of(instrument, STATE_CHANGED, state, 0, 0))
    return 0
