"""The books in a snapshot, level by level, without an object for every order.

In a snapshot the orders of a level stand together (SNAP-2), so levels are the runs of equal instrument, side and price,
and whole arrays find them: a state of a million orders takes 0.1 s and no more memory than itself once again.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ferrox.depth import Depth, Level, Top
from ferrox.messages import COMMAND_SIZE, DEFINE_INSTRUMENT_DTYPE
from ferrox.state import SNAPSHOT_HEADER, SNAPSHOT_ORDER_DTYPE
from ferrox.terms import Side
from ferrox.text import STATE_WORDS


class Snapshot(NamedTuple):
    """The parts of a snapshot, as views of its bytes."""

    sequence: int
    time_ns: int
    order_capacity: int
    instrument_capacity: int
    instruments: "NDArray[np.void]"
    orders: "NDArray[np.void]"


class BookLevels(NamedTuple):
    """One instrument of a snapshot and the levels of its book."""

    instrument: int
    sequence: int
    state: int
    tick: int
    lot: int
    band_low: int
    band_high: int
    order_count: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]

    @property
    def state_word(self) -> str:
        """The trading state in words."""
        return STATE_WORDS.get(self.state, str(self.state))

    def top(self) -> Top:
        """Return the best bid and the best ask, L1."""
        bid, ask = (side[0] if side else None for side in (self.bids, self.asks))
        return Top(
            self.instrument,
            self.sequence,
            bid.price if bid else None,
            bid.quantity if bid else 0,
            ask.price if ask else None,
            ask.quantity if ask else 0,
        )

    def depth(self, levels: int | None = None) -> Depth:
        """Return the best `levels` of both sides, or all, L2."""
        return Depth(self.instrument, self.sequence, self.bids[:levels], self.asks[:levels])


def view_snapshot(snapshot: bytes) -> Snapshot:
    """Return the parts of a snapshot; of one that is cut short, the whole instruments and orders that are left."""
    fields = SNAPSHOT_HEADER.unpack_from(snapshot)
    _, _, _, _, sequence, time_ns, order_capacity, instrument_capacity, instrument_count, order_count = fields
    body = memoryview(snapshot)[SNAPSHOT_HEADER.size :]
    instrument_count = min(instrument_count, len(body) // COMMAND_SIZE)
    orders = body[COMMAND_SIZE * instrument_count :]
    order_count = min(order_count, len(orders) // SNAPSHOT_ORDER_DTYPE.itemsize)
    return Snapshot(
        sequence,
        time_ns,
        order_capacity,
        instrument_capacity,
        np.frombuffer(body, DEFINE_INSTRUMENT_DTYPE, instrument_count),
        np.frombuffer(orders, SNAPSHOT_ORDER_DTYPE, order_count),
    )


def books_of(snapshot: bytes, levels: int | None = None) -> Iterator[BookLevels]:
    """Give the books of a snapshot by ascending instrument, with the best `levels` of each side, or all."""
    parts = view_snapshot(snapshot)
    orders = parts.orders
    starts = level_starts(orders)
    ends = np.append(starts[1:], len(orders))
    quantities = np.add.reduceat(orders["leaves"].astype(np.int64), starts) if len(orders) else starts
    instruments, sides, prices = (orders[name][starts] for name in ("instrument", "side", "price"))
    for definition in parts.instruments:
        instrument = int(definition["instrument"])
        first, last = np.searchsorted(instruments, [instrument, instrument + 1])
        middle = first + int(np.count_nonzero(sides[first:last] == Side.BUY))

        def side(begin: int, end: int) -> tuple[Level, ...]:
            end = end if levels is None else min(end, begin + levels)
            chosen = slice(begin, end)
            rows = zip(prices[chosen].tolist(), quantities[chosen].tolist(), strict=True)
            counts = (ends[chosen] - starts[chosen]).tolist()
            return tuple(Level(price, quantity, count) for (price, quantity), count in zip(rows, counts, strict=True))

        yield BookLevels(
            instrument,
            parts.sequence,
            int(definition["state"]),
            int(definition["tick"]),
            int(definition["lot"]),
            int(definition["band_low"]),
            int(definition["band_high"]),
            int(ends[last - 1] - starts[first]) if last > first else 0,
            side(first, middle),
            side(middle, last),
        )


def level_starts(orders: "NDArray[np.void]") -> "NDArray[np.intp]":
    """Return the index of the first order of each level."""
    if not len(orders):
        return np.zeros(0, np.intp)
    changes = np.zeros(len(orders), bool)
    changes[0] = True
    for name in ("instrument", "side", "price"):
        column = orders[name]
        changes[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(changes)


def book_json(book: BookLevels, *, depth: bool) -> dict[str, Any]:
    """Return a book as JSON has it: the top, and with `depth` every level as [price, quantity, orders]."""
    top = book.top()
    value: dict[str, Any] = {
        "instrument": book.instrument,
        "state": book.state_word,
        "orders": book.order_count,
        "bid": top.bid,
        "bid_quantity": top.bid_quantity,
        "ask": top.ask,
        "ask_quantity": top.ask_quantity,
    }
    if depth:
        value |= {"bids": [list(level) for level in book.bids], "asks": [list(level) for level in book.asks]}
    return value
