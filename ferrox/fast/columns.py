"""The columns of an engine, made once: how long they are and where everything in them begins."""

import ctypes
import os
import sys
from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i32, i64

from ferrox.fast.bits import make_tables
from ferrox.fast.layout import (
    BLOCK_HEADS,
    BLOCKS,
    BOOK_HEADS,
    BOOK_ROOT,
    BOOK_SLOTS,
    BOOKS_AT,
    CLOCK,
    CONTROL,
    FIRST_BOOK,
    FRESH,
    INSTRUMENT_CAPACITY,
    INSTRUMENT_MAX,
    INSTRUMENTS,
    LEVEL_HEADS,
    LEVELS,
    LINE_MASK,
    LINE_SHIFT,
    MULTIPLIER,
    ORDER_CAPACITY,
    ORDERS,
    REPORT_LIMIT,
    REPORT_WORDS,
    RESTING,
    SEQUENCE,
    SLOT,
)

HUGE_PAGE: Final = 2 * 1024 * 1024
MADV_HUGEPAGE: Final = 14
MADV_COLLAPSE: Final = 25  # Linux 6.1: now, instead of when the kernel finds the time


def zeros(count: i64) -> vec[i64]:
    """Return a column of so many zeros."""
    return vec[i64]([0] * count)


def address_of(column: vec[i64] | vec[i32]) -> int:
    """Return where a column lies in memory; it never moves."""
    return int(np.frombuffer(memoryview(column), dtype=np.uint8).__array_interface__["data"][0])


def aligned_at(column: vec[i64]) -> i64:
    """Return the first index, 0 .. 7, whose item begins a cache line of 64 bytes."""
    return -address_of(column) % 64 // 8


def use_huge_pages(column: vec[i64] | vec[i32]) -> None:
    """Ask Linux to lay a column on pages of 2 MiB; a wish, which a system without them may leave ungranted.

    A deep book touches a few lines of many pages, and with pages of 4 KiB most of a command's time goes to finding
    them: on the deep flow of benchmarks/engine.py this is worth a quarter of the time.
    """
    if sys.platform != "linux":
        return
    buffer = memoryview(column)
    start = -(-address_of(column) // HUGE_PAGE) * HUGE_PAGE
    size = (address_of(column) + buffer.nbytes - start) // HUGE_PAGE * HUGE_PAGE
    if size > 0:
        madvise = ctypes.CDLL(None).madvise
        for advice in (MADV_HUGEPAGE, MADV_COLLAPSE):
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice)


def make_slots(order_capacity: i64, instrument_capacity: i64) -> vec[i64]:
    """Return the column of control words and slots, empty, for so many orders and instruments.

    There may be as many levels as orders, and as many blocks as levels; a replaced order has left before it rests
    again, so no pool ever needs more slots than orders can rest.
    """
    slots = zeros(CONTROL + (3 * order_capacity + BOOK_SLOTS * instrument_capacity + 1) * SLOT)
    slots[ORDER_CAPACITY] = order_capacity
    slots[INSTRUMENT_CAPACITY] = instrument_capacity
    line_bits: i64 = 0
    lines: i64 = 1
    while lines * 16 < order_capacity:
        lines += lines
        line_bits += 1
    slots[LINE_MASK] = lines - 1
    slots[LINE_SHIFT] = 64 - line_bits if line_bits != 0 else 0
    multiplier: i64 = int.from_bytes(os.urandom(8), "little") >> 1 | 1
    slots[MULTIPLIER] = multiplier
    slots[LEVEL_HEADS] = lines * 16
    slots[BLOCK_HEADS] = lines * 32
    slots[BOOK_HEADS] = lines * 48
    # The worst a command can do is to cancel every maker against itself, two reports each, and say so.
    slots[REPORT_LIMIT] = (2 * order_capacity + 64) * REPORT_WORDS
    make_tables(slots)
    make_empty(slots)
    return slots


def make_heads(slots: vec[i64]) -> vec[i32]:
    """Return the column of the index's heads and the places of books, all of them nobody."""
    return vec[i32]([0] * (slots[BOOK_HEADS] + INSTRUMENT_MAX + 1))


def make_empty(slots: vec[i64]) -> None:
    """Forget every order and instrument: all slots are free, and were never used."""
    capacity = slots[ORDER_CAPACITY]
    place = CONTROL + aligned_at(slots)
    for pool in (ORDERS, LEVELS, BLOCKS):
        slots[pool] = 0
        slots[pool + FRESH] = place
        place += capacity * SLOT
    slots[BOOKS_AT] = place
    for word in (INSTRUMENTS, BOOK_ROOT, FIRST_BOOK, RESTING, SEQUENCE, CLOCK):
        slots[word] = 0
