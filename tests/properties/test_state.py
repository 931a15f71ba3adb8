"""Snapshots: canonical, complete, and refused when anything in them is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrox.engine import Capacity
from ferrox.errors import SnapshotCorrupt
from ferrox.messages import COMMAND
from ferrox.reference import ReferenceEngine
from ferrox.state import SNAPSHOT_HEADER, SNAPSHOT_ORDER, digest, pack_state, unpack_state
from ferrox.testing.laws import Given, reasons_of_frame
from ferrox.testing.sessions import apply_all, read_session, session_records, to_records
from ferrox.testing.strategies import World, streams

SMALL = Capacity(orders=6, instruments=3)

SESSION = """
    instrument 3 tick 5 lot 10 band -100 100 pre-open -> defined
    instrument 1 tick 1 lot 2 band 0 9 open           -> defined
    buy  #1/1 4 @ 5                                   -> new
    buy  #2/1 8 @ 5                                   -> new
    sell #1/2 2 @ 4                                   -> new
    buy  #1/3 2 @ 4                                   -> new
    sell #1/4 6 @ 7                                   -> new
    sell #3/1 10 @ -20 on 3                           -> new
    state 1 halted                                    -> changed
"""


def example() -> bytes:
    """A state of two instruments and five orders, one of them partly filled."""
    engine = ReferenceEngine(SMALL)
    apply_all(engine, session_records(read_session(SESSION)))
    return engine.snapshot()


def wrongs(snapshot: bytes) -> list[str]:
    """Return what is wrong with a snapshot, by the text of SNAP-1 .. SNAP-5 and of limits.md; nothing if it may be."""
    if len(snapshot) < 64:
        return ["shorter than its header"]
    magic, form, rules, zero, sequence, time_ns, orders_max, instruments_max, instruments, orders = (
        SNAPSHOT_HEADER.unpack_from(snapshot)
    )
    if len(snapshot) != 64 + 32 * instruments + 32 * orders:
        return ["not of the size that its header says"]
    found = [
        sentence
        for sentence, is_so in (
            ("not a snapshot", magic != b"FRXSTATE"),
            ("another version", (form, rules) != (1, 1)),
            ("a reserved byte", zero or any(snapshot[48:64])),
            ("a sequence beyond LIM-11", not 0 <= sequence <= 2**62),
            ("a time beyond LIM-11", not 0 <= time_ns <= 2**62),
            ("other capacities", (orders_max, instruments_max) != (SMALL.orders, SMALL.instruments)),
            ("more than the capacities", orders > orders_max or instruments > instruments_max),
        )
        if is_so
    ]
    middle = 64 + 32 * instruments
    frames = list(COMMAND.iter_unpack(snapshot[64:middle]))
    numbers = [frame[4] for frame in frames]
    found += ["a wrong definition" for frame in frames if frame[0] != 5 or reasons_of_frame(Given(5, 32, *frame))]
    found += ["instruments out of order"] if numbers != sorted(set(numbers)) else []
    defined = {frame[4]: frame[5:] for frame in frames}
    rows = list(SNAPSHOT_ORDER.iter_unpack(snapshot[middle:]))
    found += ["one id twice"] if len({row[0] for row in rows}) < len(rows) else []
    ranks = [(row[4], row[5], -row[1] if row[5] == 1 else row[1]) for row in rows]
    found += ["orders out of order"] if ranks != sorted(ranks) else []
    for index, (order_id, price, leaves, filled, instrument, side) in enumerate(rows):
        if instrument not in defined:
            found.append("an order without its instrument")
            continue
        low, high, tick, lot = defined[instrument]
        found += [
            f"order {order_id}: {sentence}"
            for sentence, is_so in (
                ("an id beyond LIM-3", order_id < 1),
                ("no side", side not in (1, 2)),
                ("a reserved byte", any(snapshot[middle + 32 * index + 29 : middle + 32 * index + 32])),
                ("nothing left", leaves < 1),
                ("a quantity beyond LIM-2", leaves + filled > 2**31 - 1),
                ("off its tick", tick and price % tick),
                ("off its lot", lot and (leaves % lot or (leaves + filled) % lot)),
                ("outside its band", not low <= price <= high),
            )
            if is_so
        ]
    crossed = any(
        one[5] == 1 and other[5] == 2 and one[4] == other[4] and one[1] >= other[1] for one in rows for other in rows
    )
    return found + (["a crossed book"] if crossed else [])


def hold(changed: bytes) -> bool:
    """Hold an engine against one snapshot that may be wrong (SNAP-5); return whether it took it."""
    engine = ReferenceEngine(SMALL)
    engine.restore(KEPT)
    wrong = wrongs(changed)
    if wrong:
        try:
            engine.restore(changed)
        except SnapshotCorrupt:
            assert engine.snapshot() == KEPT
            return False
        raise AssertionError(f"an engine took a snapshot with {wrong}: {changed.hex(' ', 32)}")
    engine.restore(changed)
    engine.check()
    assert engine.snapshot() == changed == pack_state(unpack_state(changed))
    return True


KEPT = example()
FIELDS = [
    *((name, offset, size) for name, offset, size in (("magic", 0, 8), ("versions", 8, 4), ("zero", 12, 4))),
    ("sequence", 16, 8),
    ("time_ns", 24, 8),
    *((name, 32 + 4 * index, 4) for index, name in enumerate(("order_capacity", "instrument_capacity"))),
    *((name, 40 + 4 * index, 4) for index, name in enumerate(("instruments", "orders"))),
    ("zero", 48, 16),
]
for start in (64, 96):  # definitions
    FIELDS += [("kind", start, 1), ("state", start + 1, 1), ("zero", start + 2, 2), ("instrument", start + 4, 4)]
    FIELDS += [("low", start + 8, 8), ("high", start + 16, 8), ("tick", start + 24, 4), ("lot", start + 28, 4)]
for start in range(128, len(KEPT), 32):  # orders
    FIELDS += [("order_id", start, 8), ("price", start + 8, 8), ("leaves", start + 16, 4), ("filled", start + 20, 4)]
    FIELDS += [("instrument", start + 24, 4), ("side", start + 28, 1), ("zero", start + 29, 3)]
VALUES = [*range(-12, 13), 20, 99, 100, 101, 2**20 - 1, 2**20, 2**31 - 2, 2**31 - 1, 2**31, 2**40 - 1, 2**40, -(2**40)]
VALUES += [2**62, 2**62 + 1, 2**63 - 1, -(2**63), *(account << 40 | 1 for account in (1, 2, 3))]


def test_every_field_of_the_example_is_known():
    assert len({offset for _, offset, _ in FIELDS}) == len(FIELDS)
    assert sum(size for _, _, size in FIELDS) == len(KEPT) == 64 + 2 * 32 + 5 * 32
    assert not wrongs(KEPT)


@pytest.mark.parametrize(("name", "offset", "size"), FIELDS, ids=[f"{name}-{offset}" for name, offset, _ in FIELDS])
def test_every_value_of_a_field_is_refused_or_packed_again_as_it_stands(name: str, offset: int, size: int):
    """SNAP-5, LIM-1 .. LIM-6, LIM-11: and what is refused leaves the state as it was."""
    fields = [(value & (1 << 8 * size) - 1).to_bytes(size, "little") for value in VALUES]

    taken = [hold(KEPT[:offset] + field + KEPT[offset + size :]) for field in fields]

    assert not all(taken), f"no field may be anything, and {name} may"


def test_every_change_of_one_byte_is_refused_or_packed_again_as_it_stands():
    """SNAP-5: every bit of every byte."""
    taken = sum(
        hold(KEPT[:place] + bytes([KEPT[place] ^ 1 << bit]) + KEPT[place + 1 :])
        for place in range(len(KEPT))
        for bit in range(8)
    )

    assert 0 < taken < len(KEPT) * 4


def test_every_shorter_and_every_longer_snapshot_is_refused():
    """SNAP-1: with nothing between or after them."""
    for size in range(len(KEPT)):
        assert not hold(KEPT[:size])
    for size in (1, 32, 64):
        assert not hold(KEPT + bytes(size))


def test_orders_and_instruments_in_any_other_order_are_refused():
    """SNAP-1, SNAP-2: but two orders of one level may have come the other way round, which is another state."""
    blocks = [KEPT[start : start + 32] for start in range(64, len(KEPT), 32)]
    taken = []
    for one in range(len(blocks)):
        for other in range(one + 1, len(blocks)):
            swapped = blocks.copy()
            swapped[one], swapped[other] = swapped[other], swapped[one]
            if hold(KEPT[:64] + b"".join(swapped)):
                taken.append((one, other))

    assert taken == [(2, 3)]


@given(
    st.sampled_from((World(), World(instruments=3, low=-3, high=3))).flatmap(streams),
    st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_any_changed_bytes_of_any_state_are_refused_or_packed_again_as_they_stand(stream, changes):
    """SNAP-5."""
    engine = ReferenceEngine(SMALL)
    apply_all(engine, to_records(command.pack() for command in stream))
    changed = bytearray(engine.snapshot())

    assert hold(bytes(changed))
    for place, value in changes:
        changed[place % len(changed)] = value
    hold(bytes(changed))


@given(streams())
def test_a_state_is_what_its_bytes_say(stream):
    """SNAP-1 .. SNAP-4: pack and unpack mirror each other, and equal states have equal digests."""
    engine, other = ReferenceEngine(SMALL), ReferenceEngine(SMALL)
    for each in (engine, other):
        apply_all(each, to_records(command.pack() for command in stream))

    snapshot = engine.snapshot()

    assert pack_state(unpack_state(snapshot)) == snapshot
    assert digest(snapshot) == digest(other.snapshot())


@given(streams(World(instruments=1)))
def test_nothing_of_the_past_is_stored_that_changes_no_future_report(stream):
    """SNAP-4: a venue that was emptied is a venue that was always empty, but for its sequence and time."""
    engine, fresh = ReferenceEngine(SMALL), ReferenceEngine(SMALL)
    lines = [command.pack() for command in stream]
    end = read_session("""
        mass-cancel all -> mass-canceled
        instrument 1 tick 1 lot 1 band 0 9 open -> defined
        instrument 2 tick 1 lot 1 band 0 9 open -> defined
    """)
    count = len(lines) + 3
    apply_all(engine, to_records(lines) + renumbered(session_records(end), len(lines)))
    apply_all(fresh, renumbered(session_records(end), 0))

    emptied, empty = engine.snapshot(), fresh.snapshot()

    assert int.from_bytes(emptied[16:24], "little") == count
    assert emptied[:16] + emptied[32:] == empty[:16] + empty[32:]


def renumbered(records: bytes, after: int) -> bytes:
    """Return records in sequence from `after` + 1, at equal times."""
    parts = [bytearray(records[start : start + 64]) for start in range(0, len(records), 64)]
    for sequence, part in enumerate(parts, after + 1):
        part[8:16] = sequence.to_bytes(8, "little")
    return b"".join(map(bytes, parts))
