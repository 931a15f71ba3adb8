"""Instruments: from a number to its book, and the commands about instruments themselves."""

from librt.vecs import vec
from mypy_extensions import i32, i64

from ferrox.fast.layout import (
    BEST,
    BOOK_HEADS,
    BOOK_NOT_EMPTY,
    BOOK_SLOTS,
    BOOKS_AT,
    BUY,
    HALF,
    HIGH,
    HIGHEST_INSTRUMENT,
    INSTRUMENT,
    INSTRUMENT_CAPACITY,
    INSTRUMENT_DEFINED,
    INSTRUMENTS,
    INSTRUMENTS_FULL,
    LOT,
    LOW,
    ROOT,
    SELL,
    SLOT,
    STATE,
    STATE_CHANGED,
    TICK,
    UNKNOWN_INSTRUMENT,
)
from ferrox.fast.reports import report, tail_of


def book_of(slots: vec[i64], heads: vec[i32], instrument: i64) -> i64:
    """Return the place of an instrument's book, or 0 while it is not defined; the number is within its limits."""
    return i64(heads[slots[BOOK_HEADS] + instrument])


def next_book(slots: vec[i64], heads: vec[i32], instrument: i64) -> i64:
    """Return the book with the next greater instrument, or 0; from 0 on, that goes through all books in order."""
    instrument += 1
    while instrument <= slots[HIGHEST_INSTRUMENT]:
        book = book_of(slots, heads, instrument)
        if book != 0:
            return book
        instrument += 1
    return 0


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
        if instrument > slots[HIGHEST_INSTRUMENT]:
            slots[HIGHEST_INSTRUMENT] = instrument
        slots[book + INSTRUMENT] = instrument
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
