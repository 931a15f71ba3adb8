"""The canonical state: what an engine's snapshot says, in bytes and as values (specs/snapshot.md).

`pack_state` and `unpack_state` mirror each other.  Unpacking is strict: what it returns obeys every rule of SNAP-5 but
the capacities, which only the engine that asks can judge.
"""

import hashlib
from struct import Struct
from typing import Final, NamedTuple

import numpy as np

from ferrox.decode import fault
from ferrox.errors import SnapshotCorrupt
from ferrox.messages import COMMAND, COMMAND_DTYPE, DEFINE_INSTRUMENT_DTYPE, DefineInstrument
from ferrox.terms import QUANTITY_MAX, RULES_VERSION, SEQUENCE_MAX, TIME_MAX, CommandKind, Side

SNAPSHOT_HEADER: Final = Struct("<8sHHIqqIIII16x")
SNAPSHOT_ORDER: Final = Struct("<qqIIIB3x")
assert SNAPSHOT_HEADER.size == 64
assert SNAPSHOT_ORDER.size == 32

STATE_MAGIC: Final = b"FRXSTATE"
STATE_FORMAT: Final = 1

SNAPSHOT_HEADER_DTYPE: Final = np.dtype(
    {
        "names": [
            "magic",
            "format_version",
            "rules_version",
            "sequence",
            "time_ns",
            "order_capacity",
            "instrument_capacity",
            "instruments",
            "orders",
        ],
        "formats": ["S8", "<u2", "<u2", "<i8", "<i8", "<u4", "<u4", "<u4", "<u4"],
        "offsets": [0, 8, 10, 16, 24, 32, 36, 40, 44],
        "itemsize": SNAPSHOT_HEADER.size,
    }
)
SNAPSHOT_ORDER_DTYPE: Final = np.dtype(
    {
        "names": ["order_id", "price", "leaves", "filled", "instrument", "side"],
        "formats": ["<i8", "<i8", "<u4", "<u4", "<u4", "u1"],
        "offsets": [0, 8, 16, 20, 24, 28],
        "itemsize": SNAPSHOT_ORDER.size,
    }
)
assert COMMAND_DTYPE.itemsize == DEFINE_INSTRUMENT_DTYPE.itemsize == 32


class RestingOrder(NamedTuple):
    """One resting order as a snapshot stores it: price in ticks, leaves and filled in lots."""

    order_id: int
    price: int
    leaves: int
    filled: int
    instrument: int
    side: int


class State(NamedTuple):
    """A whole engine: instruments by ascending number, orders in canonical order (SNAP-2)."""

    sequence: int
    time_ns: int
    order_capacity: int
    instrument_capacity: int
    instruments: list[DefineInstrument]
    orders: list[RestingOrder]


def digest(snapshot: bytes) -> str:
    """Return the state digest of a snapshot: its SHA-256 in hexadecimal (DET-7)."""
    return hashlib.sha256(snapshot).hexdigest()


def pack_state(state: State) -> bytes:
    """Return the canonical bytes of a state (SNAP-1); its lists must stand in canonical order."""
    header = SNAPSHOT_HEADER.pack(
        STATE_MAGIC,
        STATE_FORMAT,
        RULES_VERSION,
        0,
        state.sequence,
        state.time_ns,
        state.order_capacity,
        state.instrument_capacity,
        len(state.instruments),
        len(state.orders),
    )
    instruments = [definition.pack() for definition in state.instruments]
    orders = [SNAPSHOT_ORDER.pack(*order) for order in state.orders]
    return b"".join([header, *instruments, *orders])


def unpack_state(snapshot: bytes) -> State:
    """Return the state that a snapshot says; raise `SnapshotCorrupt` when it breaks a rule of SNAP-1 .. SNAP-5."""
    if len(snapshot) < SNAPSHOT_HEADER.size:
        raise SnapshotCorrupt(f"a snapshot has at least {SNAPSHOT_HEADER.size} bytes, this one has {len(snapshot)}")
    fields = SNAPSHOT_HEADER.unpack_from(snapshot)
    magic, format_version, rules_version, zero, sequence, time_ns, orders_max, instruments_max, instruments, orders = (
        fields
    )
    if magic != STATE_MAGIC:
        raise SnapshotCorrupt(f"a snapshot begins with {STATE_MAGIC!r}, this one with {magic!r}")
    if format_version != STATE_FORMAT or rules_version != RULES_VERSION:
        raise SnapshotCorrupt(
            f"the snapshot has format {format_version} and rules {rules_version}, this version of Ferrox reads "
            f"format {STATE_FORMAT} and rules {RULES_VERSION}; use the version that wrote it"
        )
    if zero or any(snapshot[48:64]) or not 0 <= sequence <= SEQUENCE_MAX or not 0 <= time_ns <= TIME_MAX:
        raise SnapshotCorrupt(
            "the snapshot's header has a reserved byte that is not zero, or a sequence or time beyond LIM-11"
        )
    size = SNAPSHOT_HEADER.size + COMMAND.size * instruments + SNAPSHOT_ORDER.size * orders
    if len(snapshot) != size:
        raise SnapshotCorrupt(
            f"the snapshot names {instruments} instruments and {orders} orders, which take {size} bytes, "
            f"and has {len(snapshot)}"
        )
    if instruments > instruments_max or orders > orders_max:
        raise SnapshotCorrupt(f"the snapshot holds more ({instruments}, {orders}) than its own capacities allow")
    middle = SNAPSHOT_HEADER.size + COMMAND.size * instruments
    definitions = _unpack_instruments(snapshot[SNAPSHOT_HEADER.size : middle])
    return State(
        sequence,
        time_ns,
        orders_max,
        instruments_max,
        list(definitions.values()),
        _unpack_orders(snapshot[middle:], definitions),
    )


def _unpack_instruments(frames: bytes) -> dict[int, DefineInstrument]:
    """Return the definitions by number, each a valid command, ascending (SNAP-3)."""
    definitions: dict[int, DefineInstrument] = {}
    before = 0
    for index, (kind, a, b, c, instrument, low, high, tick, lot) in enumerate(COMMAND.iter_unpack(frames)):
        if kind != CommandKind.DEFINE_INSTRUMENT or fault(kind, a, b, c, instrument, low, high, tick, lot):
            raise SnapshotCorrupt(f"instrument {index} of the snapshot is not a valid DefineInstrument frame")
        if instrument <= before:
            raise SnapshotCorrupt(f"instrument {instrument} of the snapshot stands after {before}")
        definitions[instrument] = DefineInstrument(a, instrument, low, high, tick, lot)
        before = instrument
    return definitions


def _unpack_orders(frames: bytes, definitions: dict[int, DefineInstrument]) -> list[RestingOrder]:
    """Return the orders: each within its instrument, no id twice, all in canonical order, no book crossed."""
    orders: list[RestingOrder] = []
    seen: set[int] = set()
    place = (0, 0, 0)
    best_bids: dict[int, int] = {}
    for index, fields in enumerate(SNAPSHOT_ORDER.iter_unpack(frames)):
        order = RestingOrder._make(fields)
        definition = definitions.get(order.instrument)
        if definition is None:
            raise SnapshotCorrupt(
                f"order {index} of the snapshot rests in instrument {order.instrument}, which it lacks"
            )
        if not (
            order.side in (Side.BUY, Side.SELL)
            and order.order_id > 0
            and order.order_id not in seen
            and order.leaves > 0
            and order.leaves + order.filled <= QUANTITY_MAX
            and order.leaves % definition.lot == order.filled % definition.lot == 0
            and order.price % definition.tick == 0
            and definition.band_low <= order.price <= definition.band_high
            and not any(frames[SNAPSHOT_ORDER.size * index + 29 : SNAPSHOT_ORDER.size * index + 32])
        ):
            raise SnapshotCorrupt(
                f"order {index} of the snapshot, id {order.order_id}, cannot rest as it stands: {order}"
            )
        rank = -order.price if order.side == Side.BUY else order.price
        if (order.instrument, order.side, rank) < place:
            raise SnapshotCorrupt(f"order {index} of the snapshot, id {order.order_id}, is not in canonical order")
        if order.side == Side.BUY:
            best_bids.setdefault(order.instrument, order.price)
        elif order.price <= best_bids.get(order.instrument, order.price - 1):
            raise SnapshotCorrupt(f"the snapshot's book of instrument {order.instrument} is crossed at {order.price}")
        place = (order.instrument, order.side, rank)
        seen.add(order.order_id)
        orders.append(order)
    return orders
