"""Decoding is total and names the smallest reason: held against the tables of `ferrox.testing.laws`."""

from itertools import combinations, product

from hypothesis import given
from hypothesis import strategies as st

from ferrox.decode import fault, frame_fault
from ferrox.engine import Capacity
from ferrox.messages import COMMAND, FRAME_SIZE, unpack_reports
from ferrox.reference import ReferenceEngine
from ferrox.terms import CommandKind, Reason
from ferrox.testing.laws import FRAME_SIZES, REASONS_OF_FRAME, Given, reasons_of_frame
from ferrox.testing.sessions import to_record
from ferrox.testing.strategies import FIELD_EDGES, hostile_frames

# One command of each kind with nothing wrong, as fields of the shape behind the kind.
GOOD = {
    1: (1, 1, 0, 1, 1, 100, 1, 0),
    2: (0, 0, 0, 1, 1, 0, 0, 0),
    3: (2, 1, 0, 1, 1, 100, 1, 0),
    4: (3, 0, 0, 1, 1, 0, 0, 0),
    5: (2, 0, 0, 1, -5, 5, 1, 1),
    6: (2, 0, 0, 1, 0, 0, 0, 0),
    7: (4, 0, 0, 1, 0, 5, 0, 0),
}


def expected(kind: int, fields: tuple[int, ...]) -> int:
    """Return the smallest reason of the table for a command in a record that is itself in order."""
    return min(reasons_of_frame(Given(kind, FRAME_SIZE.get(CommandKind(kind), 0), kind, *fields)), default=0)


def expected_of_frame(frame: bytes) -> int:
    kind = frame[0] if frame else 0
    if kind not in FRAME_SIZES:
        return Reason.UNKNOWN_KIND
    shape = COMMAND.unpack(frame[:32].ljust(32, b"\0"))
    return min(reasons_of_frame(Given(kind, len(frame), *shape)), default=0)


def overwritten(kind: int, changes: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    fields = list(GOOD[kind])
    for index, value in changes:
        fields[index] = value
    return tuple(fields)


EDGES = [(index, value) for index, edges in enumerate(FIELD_EDGES[1:]) for value in edges]


def test_the_good_commands_have_nothing_wrong():
    assert [fault(kind, *fields) for kind, fields in GOOD.items()] == [0] * 7


def test_any_one_or_two_wrong_fields_are_named_by_the_smallest_reason():
    """REJECT-0, REJECT-2 .. REJECT-18: every pair of values at and beyond every limit, in every kind."""
    wrong = 0
    for kind in GOOD:
        for changes in combinations(EDGES, 2):
            fields = overwritten(kind, changes)
            reason = fault(kind, *fields)
            assert reason == expected(kind, fields), (kind, fields)
            wrong += reason > 0

    assert wrong > 20_000


def test_any_side_time_in_force_and_flags_are_named_by_the_smallest_reason():
    """REJECT-3 .. REJECT-5, MARKET-2, POST-4, RPL-7: all 256 values of the flags."""
    for kind, side, time_in_force, flags in product((1, 3), (0, 1, 2, 3), range(5), range(256)):
        fields = (side, time_in_force, flags, *GOOD[kind][3:5], 0, 1, 0)
        assert fault(kind, *fields) == expected(kind, fields), (kind, fields)


def test_any_scope_instrument_and_account_are_named_by_the_smallest_reason():
    """REJECT-6, REJECT-11, REJECT-12: beside an unknown scope, instrument 0 is in order."""
    for scope, instrument, account in product(range(7), FIELD_EDGES[4], FIELD_EDGES[5]):
        fields = (scope, 0, 0, instrument, account, 0, 0, 0)
        assert fault(4, *fields) == expected(4, fields), fields


def test_any_limit_instrument_account_and_value_are_named_by_the_smallest_reason():
    """REJECT-6, REJECT-12, REJECT-17, REJECT-18: beside an unknown limit, what is within its range is in order."""
    for limit, instrument, account, value in product(range(10), FIELD_EDGES[4], FIELD_EDGES[5], FIELD_EDGES[6]):
        fields = (limit, 0, 0, instrument, account, value, 0, 0)
        assert fault(7, *fields) == expected(7, fields), fields


u8, u32, i64 = st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(-(2**63), 2**63 - 1)


@given(u8, st.tuples(u8, u8, u8, u32, i64, i64, u32, u32))
def test_decoding_is_total_on_any_fields(kind, fields):
    """WIRE-5: a reason, never an exception."""
    reason = fault(kind, *fields)

    assert reason == (expected(kind, fields) if kind in GOOD else Reason.UNKNOWN_KIND)


@given(st.one_of(st.binary(max_size=40), hostile_frames().map(lambda frame: frame.pack())))
def test_decoding_is_total_on_any_bytes(frame):
    """WIRE-1, WIRE-5: of any length, none included."""
    assert frame_fault(frame) == expected_of_frame(frame)


@given(hostile_frames())
def test_an_engine_finds_the_fault_that_a_gateway_finds(command):
    """REJECT-1 .. REJECT-18 come before every reason of the state."""
    frame = command.pack()
    engine = ReferenceEngine(Capacity(1, 1))

    _, reports = engine.apply(to_record(1, frame))

    reason = frame_fault(frame)
    told = unpack_reports(reports)[0].reason
    assert told == reason if reason else told == 0 or told >= Reason.UNKNOWN_INSTRUMENT


def test_every_reason_of_the_frame_is_in_the_table():
    """REJECT-1 .. REJECT-18."""
    in_table = {Reason.UNKNOWN_KIND, *(reason for reason, _, _ in REASONS_OF_FRAME)}

    assert in_table == {reason for reason in Reason if 1 <= reason <= 18}
