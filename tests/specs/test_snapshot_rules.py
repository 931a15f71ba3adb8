"""The canonical state, for the rules of specs/snapshot.md that concern an engine: SNAP-1 .. SNAP-5."""

from collections.abc import Callable

import pytest

from ferrox.engine import Engine
from ferrox.errors import SnapshotCorrupt
from ferrox.messages import DefineInstrument, MassCancel
from ferrox.state import SNAPSHOT_HEADER, SNAPSHOT_ORDER, RestingOrder, State, pack_state, unpack_state
from ferrox.testing.sessions import apply_all, to_records
from ferrox.text import parse_command, parse_commands

DEFINE = ["instrument 2 tick 1 lot 1 band 0 1000 open", "instrument 1 tick 5 lot 2 band -50 500 open"]
COMMANDS = [
    *DEFINE,
    "sell #8/1 1 @ 30 on 2",
    "buy #8/2 1 @ 20 on 2",
    "sell #8/3 2 @ 25",
    "sell #8/4 2 @ 20",
    "buy #8/5 4 @ 5",
    "buy #8/6 2 @ 10",
    "buy #8/7 6 @ 5",
    "sell #8/8 4 @ 5",
    "state 1 halted",
]


def engine_after(make: Callable[..., Engine], commands: list[str]) -> Engine:
    engine = make()
    apply_all(engine, to_records(parse_commands(commands)))
    return engine


def order(reference: int, price: int, leaves: int, filled: int, instrument: int, side: int) -> bytes:
    return SNAPSHOT_ORDER.pack(8 << 40 | reference, price, leaves, filled, instrument, side)


def test_a_snapshot_is_header_instruments_and_orders(make):
    """SNAP-1, SNAP-2, SNAP-3: every byte of it, written by hand."""
    snapshot = engine_after(make, COMMANDS).snapshot()

    assert snapshot[:64] == (
        b"FRXSTATE" + bytes([1, 0, 1, 0, 0, 0, 0, 0])
        + (11).to_bytes(8, "little") + (11000).to_bytes(8, "little")
        + (4096).to_bytes(4, "little") + (64).to_bytes(4, "little")
        + (2).to_bytes(4, "little") + (6).to_bytes(4, "little") + bytes(16)
    )  # fmt: skip
    assert snapshot[64:96] == parse_command("instrument 1 tick 5 lot 2 band -50 500 halted")
    assert snapshot[96:128] == parse_command(DEFINE[0])
    assert snapshot[128:] == b"".join(
        [
            order(5, 5, 2, 2, 1, 1),
            order(7, 5, 6, 0, 1, 1),
            order(4, 20, 2, 0, 1, 2),
            order(3, 25, 2, 0, 1, 2),
            order(2, 20, 1, 0, 2, 1),
            order(1, 30, 1, 0, 2, 2),
        ]
    )


def test_a_fresh_engine_is_a_header_alone(make):
    """SNAP-1: at sequence 0 and time 0."""
    assert unpack_state(make().snapshot()) == State(0, 0, 4096, 64, [], [])


def test_an_instrument_is_stored_as_the_frame_that_defines_it_as_it_is(make):
    """SNAP-3: the state it was moved to, not the one it was defined with."""
    for state in ("pre-open", "open", "halted", "closed"):
        snapshot = engine_after(make, [*DEFINE, f"state 2 {state}"]).snapshot()
        assert snapshot[96:128] == parse_command(f"instrument 2 tick 1 lot 1 band 0 1000 {state}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["buy #1 1 @ 5 on 2", "buy #2 1 @ 6 on 2", "cancel #1 on 2"], ["buy #2 1 @ 6 on 2"]),
        (["buy #1 2 @ 5 on 2", "replace buy #1 1 @ 5 on 2"], ["buy #1 1 @ 5 on 2"]),
        (["buy #1 1 @ 5 on 2", "buy #2 1 @ 5 on 2", "cancel #1 on 2", "buy #1 1 @ 5 on 2"],
         ["buy #2 1 @ 5 on 2", "buy #1 1 @ 5 on 2"]),
        (["sell #9 1 @ 7 on 2", "buy #8 1 @ 7 on 2", "buy #1 1 @ 9 post-only on 2"], ["buy #1 1 @ 9 on 2"]),
        (["state 2 closed", "state 2 open", "instrument 3 tick 0 lot 0 band 0 0 open"], []),
        (["buy #1 1 @ 5 stp=cancel-both on 2"], ["buy #1 1 @ 5 on 2"]),
    ],
)  # fmt: skip
def test_histories_that_lead_to_one_state_leave_one_snapshot(make, one: list[str], other: list[str]):
    """SNAP-4: but for the sequence and the clock, which the shorter history makes up with cancels of nothing."""
    longest = max(len(one), len(other))

    snapshots = {
        engine_after(make, [*DEFINE, *commands, *["mass-cancel account 999"] * (longest - len(commands))]).snapshot()
        for commands in (one, other)
    }

    assert len(snapshots) == 1


GOOD = State(
    sequence=9,
    time_ns=900,
    order_capacity=4096,
    instrument_capacity=64,
    instruments=[
        DefineInstrument(state=2, instrument=1, band_low=-50, band_high=500, tick=5, lot=2),
        DefineInstrument(state=3, instrument=2, band_low=0, band_high=1000, tick=1, lot=1),
    ],
    orders=[
        RestingOrder(order_id=5, price=10, leaves=2, filled=2, instrument=1, side=1),
        RestingOrder(order_id=7, price=5, leaves=6, filled=0, instrument=1, side=1),
        RestingOrder(order_id=4, price=20, leaves=2, filled=0, instrument=1, side=2),
        RestingOrder(order_id=3, price=25, leaves=2, filled=0, instrument=1, side=2),
        RestingOrder(order_id=2, price=20, leaves=1, filled=0, instrument=2, side=1),
    ],
)
PACKED = pack_state(GOOD)
HEADER = SNAPSHOT_HEADER.size


def with_order(index: int, **fields: int) -> bytes:
    orders = list(GOOD.orders)
    orders[index] = orders[index]._replace(**fields)
    return pack_state(GOOD._replace(orders=orders))


def with_instrument(index: int, **fields: int) -> bytes:
    instruments = list(GOOD.instruments)
    instruments[index] = instruments[index]._replace(**fields)
    return pack_state(GOOD._replace(instruments=instruments))


def with_byte(offset: int, value: int) -> bytes:
    return PACKED[:offset] + bytes([value]) + PACKED[offset + 1 :]


def in_order(*indices: int) -> bytes:
    return pack_state(GOOD._replace(orders=[GOOD.orders[index] for index in indices]))


BROKEN = {
    "nothing": b"",
    "half a header": PACKED[: HEADER - 1],
    "a byte short": PACKED[:-1],
    "a byte too long": PACKED + b"\0",
    "an order short": PACKED[: -SNAPSHOT_ORDER.size],
    "another magic": with_byte(0, ord("X")),
    "another format": with_byte(8, 2),
    "other rules": with_byte(10, 2),
    "a reserved byte in the header": with_byte(12, 1),
    "the last reserved byte in the header": with_byte(63, 1),
    "a negative sequence": pack_state(GOOD._replace(sequence=-1)),
    "a negative time": pack_state(GOOD._replace(time_ns=-1)),
    "a sequence beyond its limit": pack_state(GOOD._replace(sequence=2**62 + 1)),
    "a time beyond its limit": pack_state(GOOD._replace(time_ns=2**62 + 1)),
    "another order capacity": pack_state(GOOD._replace(order_capacity=4097)),
    "another instrument capacity": pack_state(GOOD._replace(instrument_capacity=65)),
    "one instrument too many by its count": with_byte(40, 3),
    "one order too many by its count": with_byte(44, 6),
    "an instrument of another kind": with_byte(HEADER, 1),
    "a reserved byte in an instrument": with_byte(HEADER + 2, 1),
    "an instrument without a state": with_instrument(0, state=0),
    "an instrument without a tick": with_instrument(0, tick=0),
    "an instrument with its band upside down": with_instrument(1, band_low=1001),
    "an instrument number 0": with_instrument(0, instrument=0),
    "one instrument twice": with_instrument(1, instrument=1),
    "instruments that descend": with_instrument(0, instrument=3),
    "an order of an instrument that is not there": with_order(4, instrument=9),
    "an order id 0": with_order(0, order_id=0),
    "a negative order id": with_order(0, order_id=-5),
    "one order id twice in a book": with_order(0, order_id=7),
    "one order id twice in two books": with_order(4, order_id=7),
    "an order with nothing left": with_order(0, leaves=0),
    "leaves beyond their limit": with_order(4, leaves=2**31),
    "a total beyond its limit": with_order(4, leaves=2**31 - 1, filled=1),
    "an order off its tick": with_order(1, price=6),
    "an order off its lot": with_order(1, leaves=5),
    "an order whose total is off its lot": with_order(1, filled=1),
    "an order below its band": with_order(1, price=-55),
    "an order above its band": with_order(3, price=505),
    "an order without a side": with_order(0, side=0),
    "an order of a third side": with_order(4, side=3),
    "a reserved byte in an order": with_byte(len(PACKED) - 1, 1),
    "a crossed book": with_order(0, price=25),
    "a locked book": with_order(0, price=20),
    "bids from worst to best": in_order(1, 0, 2, 3, 4),
    "asks from worst to best": in_order(0, 1, 3, 2, 4),
    "asks before bids": in_order(2, 3, 0, 1, 4),
    "orders by descending instrument": in_order(4, 0, 1, 2, 3),
}


def test_the_snapshot_that_the_others_break_is_taken(make):
    """SNAP-5: none of the refusals below is for another reason."""
    engine = make()

    engine.restore(PACKED)

    assert engine.snapshot() == PACKED


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_snapshot_is_refused_and_the_state_kept(make, broken: str):
    """SNAP-5."""
    engine = engine_after(make, COMMANDS)
    before = engine.snapshot()

    with pytest.raises(SnapshotCorrupt) as refusal:
        engine.restore(BROKEN[broken])

    assert "\n" not in str(refusal.value)
    assert engine.snapshot() == before
    assert apply_all(engine, to_records([MassCancel(4).pack()], 12))


@pytest.mark.parametrize("place", ["orders", "instruments"])
def test_a_snapshot_of_more_than_the_capacity_is_refused(make, place: str):
    """SNAP-5, LIM-7, LIM-8."""
    capacity = {"orders": (4, 64), "instruments": (4096, 1)}[place]

    with pytest.raises(SnapshotCorrupt):
        make(*capacity).restore(pack_state(GOOD._replace(order_capacity=capacity[0], instrument_capacity=capacity[1])))


@pytest.mark.parametrize("capacity", [(5, 2), (5, 64), (4096, 2)])
def test_a_snapshot_that_fills_the_capacity_is_taken(make, capacity: tuple[int, int]):
    """SNAP-5, LIM-7, LIM-8."""
    full = pack_state(GOOD._replace(order_capacity=capacity[0], instrument_capacity=capacity[1]))
    engine = make(*capacity)

    engine.restore(full)

    assert engine.snapshot() == full
