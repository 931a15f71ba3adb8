"""Looking ahead: before a window of messages is carried out, the memory they will need is read once.

A message in a deep book waits for four or five reads from main memory, each of which tells where the next one is; so
message after message they would wait in line.  A window's reads of the same step do not depend on each other, and the
processor does a dozen of them at a time.  What is read is not used: it only comes into the cache, and nothing that an
engine says depends on it.  While a book is small enough to be there anyway, this is left out.

A touch pass of plain loads, after one that was measured in C++; there is no prefetch instruction to be had here.
"""

from typing import Final

from librt.strings import read_i64_le
from librt.vecs import vec
from mypy_extensions import i32, i64

from ferrox.fast.index import bucket
from ferrox.fast.instruments import book_of
from ferrox.fast.ladder import level_key
from ferrox.fast.layout import (
    CANCEL_ORDER,
    HALF,
    INSTRUMENT_MAX,
    KEY,
    LEVEL_HEADS,
    LINKS,
    NEW_ORDER,
    RECORD_SIZE,
    REPLACE_ORDER,
    SINK,
    TICK,
    TICK_NUMBER_ZERO,
    WINDOW,
)

WINDOW_MESSAGES: Final = 32
DEEP: Final = 1 << 16
"""Resting orders from which on looking ahead pays: 4 MB of slots, more than the second cache of most processors."""


def look_ahead(slots: vec[i64], heads: vec[i32], records: bytes, at: i64, size: i64) -> i64:
    """Read what the messages from `at` on will need; return where the window ends."""
    end = at + WINDOW_MESSAGES * RECORD_SIZE
    if end > size:
        end = size
    count = (end - at) // RECORD_SIZE
    # First the heads of the chains: that of the order which is named, or of the level where a new order may rest.
    for n in range(count):
        place = at + n * RECORD_SIZE
        head = read_i64_le(records, place + 32)
        kind = head & 0xFF
        first: i64 = 0
        if kind == NEW_ORDER:
            instrument = (head >> 32) & HALF
            book: i64 = 0  # no conditional expression: one with an i64 and a literal is an object
            if instrument <= INSTRUMENT_MAX:
                book = book_of(slots, heads, instrument)
            if book != 0:
                price = read_i64_le(records, place + 48)
                tick = slots[book + TICK]
                tick_number = (price if tick == 1 else price // tick) + TICK_NUMBER_ZERO
                key = level_key(slots, book, (head >> 8) & 3, tick_number)
                first = i64(heads[bucket(slots, slots[LEVEL_HEADS], key)])
        elif kind == CANCEL_ORDER or kind == REPLACE_ORDER:
            first = i64(heads[bucket(slots, 0, read_i64_le(records, place + 40))])
        slots[WINDOW + n] = first
    # Then the slots they lead to; then the neighbours of those.
    for n in range(count):
        slot = slots[WINDOW + n]
        if slot != 0:
            slots[WINDOW + n] = slots[slot + LINKS]
    sink: i64 = 0
    for n in range(count):
        links = slots[WINDOW + n]
        sink ^= slots[(links & HALF) + KEY] ^ slots[(links >> 32) + KEY]
    slots[SINK] = sink
    return end
