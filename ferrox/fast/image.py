"""The state as others see it: the canonical snapshot, written and read back, and the invariant of all columns."""

from typing import Final

from librt.strings import read_i64_le
from librt.vecs import vec
from mypy_extensions import i32, i64

from ferrox.errors import SnapshotCorrupt
from ferrox.fast.columns import aligned_at, make_empty, zeros
from ferrox.fast.decode import fault
from ferrox.fast.index import bucket, find
from ferrox.fast.instruments import book_of, define
from ferrox.fast.ladder import check_ladder, worse
from ferrox.fast.layout import (
    BEST,
    BLOCKS,
    BUY,
    CLOCK,
    CONTROL,
    DEFINE_INSTRUMENT,
    FIRST_BOOK,
    FRESH,
    HALF,
    HIGH,
    INSTRUMENT,
    INSTRUMENT_CAPACITY,
    INSTRUMENTS,
    KEY,
    LEVELS,
    LINKS,
    LOT,
    LOW,
    NEXT,
    ORDER_CAPACITY,
    ORDERS,
    OWNER,
    PRICE,
    QUANTITY_MAX,
    RESTING,
    RULES_VERSION,
    SELL,
    SEQUENCE,
    SIZES,
    SLOT,
    STATE,
    TICK,
    WRITTEN,
)
from ferrox.fast.matching import rest

MAGIC: Final = int.from_bytes(b"FRXSTATE", "little")
HEADER_SIZE: Final = 64
ENTRY_SIZE: Final = 32  # of an instrument, and of an order


def save(slots: vec[i64]) -> bytes:
    """Return the whole state in the canonical layout (SNAP-1 .. SNAP-4).

    An instrument is stored as four words that are its command, an order as three words of its slot and its owner.
    """
    words = zeros((HEADER_SIZE + ENTRY_SIZE * (slots[INSTRUMENTS] + slots[RESTING])) // 8)
    words[0] = MAGIC
    words[1] = 1 | RULES_VERSION << 16
    words[2] = slots[SEQUENCE]
    words[3] = slots[CLOCK]
    words[4] = slots[ORDER_CAPACITY] | slots[INSTRUMENT_CAPACITY] << 32
    words[5] = slots[INSTRUMENTS] | slots[RESTING] << 32
    at: i64 = HEADER_SIZE // 8
    book = slots[FIRST_BOOK]
    while book != 0:
        words[at] = DEFINE_INSTRUMENT | slots[book + STATE] << 8 | slots[book + INSTRUMENT] << 32
        words[at + 1] = slots[book + LOW]
        words[at + 2] = slots[book + HIGH]
        words[at + 3] = slots[book + TICK] | slots[book + LOT] << 32
        at += 4
        book = slots[book + NEXT]
    book = slots[FIRST_BOOK]
    while book != 0:
        for side in (BUY, SELL):
            level = slots[book + BEST + side]
            while level != 0:
                order = slots[level + LINKS] >> 32
                while order != level:
                    words[at] = slots[order + KEY]
                    words[at + 1] = slots[order + PRICE]
                    words[at + 2] = slots[order + SIZES]
                    words[at + 3] = slots[order + OWNER]
                    at += 4
                    order = slots[order + LINKS] >> 32
                level = worse(slots, side, level)
        book = slots[book + NEXT]
    return bytes(memoryview(words))


def load(slots: vec[i64], heads: vec[i32], out: vec[i64], snapshot: bytes) -> None:
    """Replace the whole state with a snapshot that was examined; `heads` are all nobody."""
    make_empty(slots)
    counts = read_i64_le(snapshot, 40)
    at: i64 = HEADER_SIZE
    for _ in range(counts & HALF):
        head, low = read_i64_le(snapshot, at), read_i64_le(snapshot, at + 8)
        high, sizes = read_i64_le(snapshot, at + 16), read_i64_le(snapshot, at + 24)
        slots[WRITTEN] = 0  # nobody reads these reports
        define(slots, heads, out, (head >> 8) & 0xFF, head >> 32, low, high, sizes)
        at += ENTRY_SIZE
    slots[WRITTEN] = 0
    for _ in range(counts >> 32):
        order_id, price = read_i64_le(snapshot, at), read_i64_le(snapshot, at + 8)
        sizes, owner = read_i64_le(snapshot, at + 16), read_i64_le(snapshot, at + 24)
        book, place = book_of(slots, heads, owner & HALF), bucket(slots, 0, order_id)
        rest(slots, heads, book, owner >> 32, place, order_id, price, sizes)
        at += ENTRY_SIZE
    slots[SEQUENCE] = read_i64_le(snapshot, 16)
    slots[CLOCK] = read_i64_le(snapshot, 24)


def examine(slots: vec[i64], snapshot: bytes) -> None:
    """Raise `SnapshotCorrupt` unless a snapshot obeys SNAP-1 .. SNAP-5 and is of this engine's capacities."""
    size = len(snapshot)
    if size < HEADER_SIZE:
        raise SnapshotCorrupt(f"a snapshot has at least {HEADER_SIZE} bytes, this one has {size}")
    if snapshot[:8] != b"FRXSTATE":
        raise SnapshotCorrupt(f"a snapshot begins with b'FRXSTATE', this one with {snapshot[:8]!r}")
    versions = read_i64_le(snapshot, 8)
    if versions != 1 | RULES_VERSION << 16:
        raise SnapshotCorrupt(
            f"the snapshot has format {versions & 0xFFFF} and rules {(versions >> 16) & 0xFFFF} and reserved bytes "
            f"{(versions >> 32) & HALF}, this version of Ferrox reads format 1 and rules {RULES_VERSION}"
        )
    sequence, time_ns = read_i64_le(snapshot, 16), read_i64_le(snapshot, 24)
    capacities, counts = read_i64_le(snapshot, 32), read_i64_le(snapshot, 40)
    if not (0 <= sequence <= 2**62 and 0 <= time_ns <= 2**62) or any(snapshot[48:64]):
        raise SnapshotCorrupt("the snapshot's header has a reserved byte that is not zero, or breaks LIM-11")
    if capacities != slots[ORDER_CAPACITY] | slots[INSTRUMENT_CAPACITY] << 32:
        raise SnapshotCorrupt(
            f"the snapshot is of an engine for {capacities & HALF} orders and {(capacities >> 32) & HALF} "
            f"instruments, this one is for {slots[ORDER_CAPACITY]} and {slots[INSTRUMENT_CAPACITY]}; "
            "make the engine with the snapshot's capacities"
        )
    instruments, orders = counts & HALF, (counts >> 32) & HALF
    if size != HEADER_SIZE + ENTRY_SIZE * (instruments + orders):
        raise SnapshotCorrupt(f"the snapshot names {instruments} instruments and {orders} orders and has {size} bytes")
    if instruments > slots[INSTRUMENT_CAPACITY] or orders > slots[ORDER_CAPACITY]:
        raise SnapshotCorrupt(f"the snapshot holds more ({instruments}, {orders}) than its own capacities allow")
    places: dict[int, int] = {}
    before: i64 = 0
    at: i64 = HEADER_SIZE
    for _ in range(instruments):
        head = read_i64_le(snapshot, at)
        low, high = read_i64_le(snapshot, at + 8), read_i64_le(snapshot, at + 16)
        instrument = (head >> 32) & HALF
        if head & 0xFF != DEFINE_INSTRUMENT or fault(32 << 8 | 5, head, low, high, read_i64_le(snapshot, at + 24)):
            raise SnapshotCorrupt(f"the instrument at offset {at} of the snapshot is not a valid DefineInstrument")
        if instrument <= before:
            raise SnapshotCorrupt(f"instrument {instrument} of the snapshot stands after {before}")
        before = instrument
        places[int(instrument)] = int(at)
        at += ENTRY_SIZE
    seen: set[int] = set()
    group: i64 = 0  # instrument and side of the order before
    rank: i64 = 0
    best_bid: i64 = 0
    bid_of: i64 = 0  # the instrument that `best_bid` is of
    for _ in range(orders):
        order_id, price = read_i64_le(snapshot, at), read_i64_le(snapshot, at + 8)
        sizes, owner = read_i64_le(snapshot, at + 16), read_i64_le(snapshot, at + 24)
        instrument = owner & HALF
        side = owner >> 32
        place: i64 = places.get(int(instrument), 0)
        if place == 0 or (side != BUY and side != SELL):
            raise SnapshotCorrupt(f"the order at offset {at} of the snapshot has no book or no side: {owner:#x}")
        tick_lot = read_i64_le(snapshot, place + 24)
        tick, lot = tick_lot & HALF, tick_lot >> 32
        leaves, filled = sizes & HALF, (sizes >> 32) & HALF
        if (
            order_id <= 0
            or int(order_id) in seen
            or leaves == 0
            or leaves + filled > QUANTITY_MAX
            or leaves % lot != 0
            or filled % lot != 0
            or price % tick != 0
            or price < read_i64_le(snapshot, place + 8)
            or price > read_i64_le(snapshot, place + 16)
        ):
            raise SnapshotCorrupt(f"the order at offset {at} of the snapshot, id {order_id}, cannot rest as it stands")
        order_group = instrument * 2 + side
        order_rank = -price if side == BUY else price
        if order_group < group or (order_group == group and order_rank < rank):
            raise SnapshotCorrupt(f"the order at offset {at} of the snapshot is not in canonical order")
        if side == BUY and order_group != group:
            best_bid, bid_of = price, instrument
        if side == SELL and bid_of == instrument and price <= best_bid:
            raise SnapshotCorrupt(f"the snapshot's book of instrument {instrument} is crossed at {price}")
        group, rank = order_group, order_rank
        seen.add(int(order_id))
        at += ENTRY_SIZE


def check(slots: vec[i64], heads: vec[i32]) -> None:
    """Assert the whole invariant of the columns, slowly."""
    resting: i64 = 0
    instruments: i64 = 0
    before: i64 = 0
    book = slots[FIRST_BOOK]
    while book != 0:
        instruments += 1
        number = slots[book + INSTRUMENT]
        assert book_of(slots, heads, number) == book
        assert number > before, "books are listed in the order of their instruments"
        before = number
        for side in (BUY, SELL):
            check_ladder(slots, heads, book, side)
            level = slots[book + BEST + side]
            while level != 0:
                order = slots[level + LINKS] >> 32
                assert order != level, "a level holds at least one order"
                previous = level
                while order != level:
                    key = slots[order + KEY]
                    assert slots[order + LINKS] & HALF == previous, "a queue is linked both ways"
                    assert slots[order + PRICE] == slots[level + PRICE]
                    assert slots[order + OWNER] == number | i64(side) << 32
                    assert slots[order + SIZES] & HALF > 0
                    assert find(slots, heads, bucket(slots, 0, key), key) == order
                    resting += 1
                    previous = order
                    order = slots[order + LINKS] >> 32
                assert slots[level + LINKS] & HALF == previous
                level = worse(slots, side, level)
        bid, ask = slots[book + BEST + BUY], slots[book + BEST + SELL]
        assert bid == 0 or ask == 0 or slots[bid + PRICE] < slots[ask + PRICE], "a book is never crossed"
        book = slots[book + NEXT]
    assert instruments == slots[INSTRUMENTS]
    assert resting == slots[RESTING]
    assert resting <= slots[ORDER_CAPACITY]
    assert resting == in_use(slots, ORDERS, 0)
    levels = in_use(slots, LEVELS, 1)
    assert in_use(slots, BLOCKS, 2) <= levels <= resting


def in_use(slots: vec[i64], pool: i64, before: i64) -> i64:
    """Return how many slots of a pool are in use; `before` it lie that many pools of the same size."""
    start = CONTROL + aligned_at(slots) + before * slots[ORDER_CAPACITY] * SLOT
    used = (slots[pool + FRESH] - start) // SLOT
    free = slots[pool]
    while free != 0:
        used -= 1
        free = slots[free + LINKS] >> 32
    return used
