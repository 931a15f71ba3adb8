"""Each reason of specs/rejects.md, with the frames just inside and just outside it.

A frame is written as the fields it changes in a valid one.  `first_fault` asks an engine that holds a small world
(an open, a halted and a pre-open instrument) and asserts that nothing moved, so every rejection here is also a proof
that a wrong command leaves the state alone.
"""

from collections.abc import Callable
from typing import Final

import pytest

from ferrox.decode import frame_fault
from ferrox.engine import Engine
from ferrox.messages import (
    RECORD,
    CancelOrder,
    Command,
    DefineInstrument,
    MassCancel,
    NewOrder,
    ReplaceOrder,
    SetLimit,
    SetTradingState,
    unpack_reports,
)
from ferrox.state import unpack_state
from ferrox.terms import (
    ACCOUNT_MAX,
    INSTRUMENT_MAX,
    LOT_MAX,
    ORDER_ID_MAX,
    PRICE_MAX,
    QUANTITY_MAX,
    TICK_MAX,
    Limit,
    Reason,
    ReportKind,
)
from ferrox.testing.sessions import apply_all, read_session, run_session, to_record

WORLD: Final = """
    instrument 1 tick 5 lot 10 band -1000 1000 open -> instrument-defined 1 tick 5 lot 10 band -1000 1000 open
    instrument 2 tick 1 lot 1 band 0 1000 halted    -> instrument-defined 2 tick 1 lot 1 band 0 1000 halted
    instrument 3 tick 1 lot 1 band 0 1000 open      -> instrument-defined 3 tick 1 lot 1 band 0 1000 open
    buy  #1 10 @ 100                                -> new #1 10 @ 100
    sell #2 10 @ 200                                -> new #2 10 @ 200
    sell #3 10 @ 200 on 3                           -> new #3 10 @ 200 on 3
    state 3 pre-open                                -> state-changed 3 pre-open
"""
NEW: Final = NewOrder(side=1, time_in_force=1, flags=0, instrument=1, order_id=9, price=100, quantity=10)
REPLACE: Final = ReplaceOrder(side=1, time_in_force=1, flags=0, instrument=1, order_id=1, price=105, quantity=10)
CANCEL: Final = CancelOrder(instrument=1, order_id=1)
MASS: Final = MassCancel(scope=3, instrument=1, account=0)
DEFINE: Final = DefineInstrument(state=2, instrument=4, band_low=0, band_high=10, tick=1, lot=1)
STATE: Final = SetTradingState(state=3, instrument=1)
LIMIT: Final = SetLimit(limit=2, instrument=0, account=7, value=500)

REJECTED_AS: Final = {2: ReportKind.CANCEL_REJECTED, 3: ReportKind.REPLACE_REJECTED}


@pytest.fixture
def world(make: Callable[..., Engine]) -> Callable[..., Engine]:
    """Make an engine that holds the small world."""

    def fresh(**capacity: int) -> Engine:
        return run_session(read_session(WORLD), make(**capacity))

    return fresh


def first_fault(engine: Engine, frame: bytes, *, kind: int | None = None, size: int | None = None) -> Reason:
    """Send a frame; return why it is rejected, or NONE, and assert that a reject changes nothing."""
    before = unpack_state(engine.snapshot())
    fields = list(RECORD.unpack(to_record(before.sequence + 1, frame)))
    fields[4] = frame[0] if kind is None else kind
    fields[5] = len(frame) if size is None else size

    reports = unpack_reports(apply_all(engine, RECORD.pack(*fields)))

    reason = Reason(reports[0].reason)
    if not reason or reports[0].kind not in (6, 7, 8):
        return Reason.NONE
    after = unpack_state(engine.snapshot())
    order_id = 0 if frame[0] in (4, 5, 6, 7) else int.from_bytes(frame[8:16], "little", signed=True)
    assert after == before._replace(sequence=after.sequence, time_ns=after.time_ns)
    assert [report.order_id for report in reports] == [order_id]
    assert [report.instrument for report in reports] == [int.from_bytes(frame[4:8], "little")]
    assert [report.kind for report in reports] == [REJECTED_AS.get(frame[0], ReportKind.REJECTED)]
    if kind is size is None:
        judged = frame_fault(frame)  # a gateway finds what needs no book, and only that
        assert judged == (reason if reason < Reason.UNKNOWN_INSTRUMENT else Reason.NONE)
    return reason


def faults(world: Callable[..., Engine], *commands: Command, **capacity: int) -> set[Reason]:
    """Return the reasons that these commands are rejected with, each in a world of its own."""
    return {first_fault(world(**capacity), command.pack()) for command in commands}


def test_the_valid_frames_are_in_order(world):
    assert faults(world, NEW, REPLACE, CANCEL, MASS, DEFINE, STATE, LIMIT) == {Reason.NONE}


# ------------------------------------------------------------------------------------------------------- decode


def test_an_unknown_kind_is_told(world):
    """REJECT-1, WIRE-3: in both sizes."""
    known = range(1, 8)

    for kind in {*range(256)} - {*known, 254, 255}:
        for size in (16, 32):
            frame = bytes([kind, *NEW.pack()[1:size]])
            assert frame_fault(frame) == Reason.UNKNOWN_KIND
    for kind in (0, 8, 128, 253):
        assert first_fault(world(), bytes([kind, *NEW.pack()[1:]])) == Reason.UNKNOWN_KIND
    assert all(frame_fault(bytes([kind]) + bytes(15)) != Reason.UNKNOWN_KIND for kind in known)


def test_an_empty_frame_has_no_kind():
    """REJECT-1: and so is none of WIRE-3."""
    assert frame_fault(b"") == Reason.UNKNOWN_KIND


@pytest.mark.parametrize("command", [NEW, REPLACE, CANCEL, MASS, DEFINE, STATE, LIMIT])
def test_another_size_or_kind_in_the_envelope_is_malformed(world, command: Command):
    """REJECT-2."""
    frame = command.pack()

    for size in {0, 1, 15, 16, 17, 31, 32, 33, 255} - {len(frame)}:
        assert first_fault(world(), frame, size=size) == Reason.MALFORMED
    for kind in {0, 1, 2, 3, 4, 5, 6, 7, 8, 253} - {frame[0]}:
        assert first_fault(world(), frame, kind=kind) == Reason.MALFORMED
    for size in {1, 15, 17, 31, 33, 64, 48 - len(frame)}:
        assert frame_fault(frame.ljust(size, b"\0")[:size]) == Reason.MALFORMED


def test_a_side_is_buy_or_sell(world):
    """REJECT-3."""
    wrong = [0, 3, 4, 128, 255]

    assert faults(world, *(NEW._replace(side=side) for side in wrong)) == {Reason.BAD_SIDE}
    assert faults(world, *(REPLACE._replace(side=side) for side in wrong)) == {Reason.BAD_SIDE}
    assert faults(world, NEW._replace(side=1), NEW._replace(side=2)) == {Reason.NONE}


def test_a_time_in_force_is_one_of_three_and_fits_the_kind(world):
    """REJECT-4."""
    market = NEW._replace(flags=1, price=0)

    assert faults(world, *(NEW._replace(time_in_force=number) for number in (0, 4, 128, 255))) == {
        Reason.BAD_TIME_IN_FORCE
    }
    assert faults(world, *(REPLACE._replace(time_in_force=number) for number in (0, 2, 3, 4, 255))) == {
        Reason.BAD_TIME_IN_FORCE
    }
    assert faults(world, market) == {Reason.BAD_TIME_IN_FORCE}
    assert faults(world, market._replace(time_in_force=2), market._replace(time_in_force=3)) == {Reason.NONE}
    assert faults(world, *(NEW._replace(time_in_force=number) for number in (1, 2, 3))) == {Reason.NONE}


def test_flags_are_known_and_fit_each_other(world):
    """REJECT-5: every value of the byte, under every time in force."""
    for flags in range(256):
        known = not flags & 0x88 and flags >> 4 <= 4
        market, post_only, slide = flags & 1, flags & 2, flags & 4
        for time_in_force in (1, 2, 3):
            sensible = not (post_only and (market or time_in_force != 1)) and not (slide and not post_only)
            frame = NEW._replace(flags=flags, time_in_force=time_in_force, price=0 if market else 100).pack()
            if market and time_in_force == 1:
                assert frame_fault(frame) == Reason.BAD_TIME_IN_FORCE
            else:
                assert frame_fault(frame) == (Reason.NONE if known and sensible else Reason.BAD_FLAGS), frame.hex()
        sensible = not market and not (slide and not post_only)
        frame = REPLACE._replace(flags=flags).pack()
        assert frame_fault(frame) == (Reason.NONE if known and sensible else Reason.BAD_FLAGS), frame.hex()


@pytest.mark.parametrize("flags", [0x08, 0x80, 0x50, 0x70, 0x04, 0x01])
def test_an_engine_rejects_bad_flags(world, flags: int):
    """REJECT-5: what decode finds, the engine finds as well; a market replace is the last."""
    order = REPLACE if flags == 0x01 else NEW

    assert faults(world, order._replace(flags=flags)) == {Reason.BAD_FLAGS}


def test_an_instrument_is_within_its_limit_and_0_where_none_is_asked_for(world):
    """REJECT-6, LIM-5."""
    wrong = [0, INSTRUMENT_MAX + 1, 2**32 - 1]

    for command in (NEW, REPLACE, CANCEL, MASS, MASS._replace(scope=1), DEFINE, STATE):
        assert faults(world, *(command._replace(instrument=number) for number in wrong)) == {Reason.BAD_INSTRUMENT}
        assert frame_fault(command._replace(instrument=INSTRUMENT_MAX).pack()) == Reason.NONE
    assert faults(world, MassCancel(2, 1, 0), MassCancel(4, 1, 0)) == {Reason.BAD_INSTRUMENT}
    assert faults(world, MassCancel(2, 0, 0), MassCancel(4, 0, 0)) == {Reason.NONE}
    assert faults(world, MassCancel(9, INSTRUMENT_MAX + 1, 0)) == {Reason.BAD_INSTRUMENT}
    for limit in range(256):
        takes_one = limit in (Limit.KILL, Limit.COLLAR) or limit not in list(Limit)
        least = INSTRUMENT_MAX + 1 if takes_one else 1
        for number in (least, INSTRUMENT_MAX + 1, 2**32 - 1):
            assert frame_fault(SetLimit(limit, number, -1, -1).pack()) == Reason.BAD_INSTRUMENT
        assert frame_fault(SetLimit(limit, least - 1, 0, 0).pack()) in (Reason.NONE, Reason.BAD_LIMIT)
    assert faults(world, *(SetLimit(limit, 2**20, 0, 0) for limit in range(10))) == {Reason.BAD_INSTRUMENT}
    assert faults(world, *(SetLimit(limit, 1, 0, 0) for limit in (2, 3, 5, 6, 7, 8))) == {Reason.BAD_INSTRUMENT}
    assert faults(world, *(SetLimit(limit, INSTRUMENT_MAX, 0, 0) for limit in (1, 4))) == {Reason.NONE}


def test_an_order_id_is_positive(world):
    """REJECT-7, LIM-3."""
    for command in (NEW, REPLACE, CANCEL):
        assert faults(world, *(command._replace(order_id=number) for number in (0, -1, -(2**63)))) == {
            Reason.BAD_ORDER_ID
        }
    assert faults(world, NEW._replace(order_id=ORDER_ID_MAX)) == {Reason.NONE}


def test_a_price_is_within_its_limits_and_0_in_a_market_order(world):
    """REJECT-8, LIM-1."""
    wrong = [PRICE_MAX + 1, -PRICE_MAX - 1, 2**63 - 1, -(2**63)]
    market = NEW._replace(flags=1, time_in_force=2)

    assert faults(world, *(NEW._replace(price=price) for price in wrong)) == {Reason.BAD_PRICE}
    assert faults(world, *(REPLACE._replace(price=price) for price in wrong)) == {Reason.BAD_PRICE}
    assert faults(world, market._replace(price=100), market._replace(price=-5)) == {Reason.BAD_PRICE}
    assert frame_fault(NEW._replace(price=PRICE_MAX).pack()) == Reason.NONE
    assert frame_fault(NEW._replace(price=-PRICE_MAX).pack()) == Reason.NONE


def test_a_quantity_is_within_its_limits(world):
    """REJECT-9, LIM-2."""
    for command in (NEW, REPLACE):
        assert faults(world, *(command._replace(quantity=number) for number in (0, QUANTITY_MAX + 1, 2**32 - 1))) == {
            Reason.BAD_QUANTITY
        }
        assert frame_fault(command._replace(quantity=QUANTITY_MAX).pack()) == Reason.NONE
        assert frame_fault(command._replace(quantity=1).pack()) == Reason.NONE


def test_a_display_quantity_is_0(world):
    """REJECT-10, WIRE-4."""
    for command in (NEW, REPLACE):
        assert faults(world, *(command._replace(display=number) for number in (1, 10, 2**32 - 1))) == {
            Reason.BAD_DISPLAY
        }


def test_a_scope_is_one_of_four(world):
    """REJECT-11: beside an unknown scope, an instrument may be 0."""
    assert faults(world, MassCancel(0), MassCancel(5, 1), MassCancel(255, 0, -1)) == {Reason.BAD_SCOPE}


def test_an_account_is_within_its_limits_and_0_where_none_is_asked_for(world):
    """REJECT-12, LIM-4."""
    wrong = [-1, ACCOUNT_MAX + 1, 2**63 - 1, -(2**63)]

    assert faults(world, *(MassCancel(2, 0, account) for account in wrong)) == {Reason.BAD_ACCOUNT}
    assert faults(world, *(MassCancel(3, 1, account) for account in wrong)) == {Reason.BAD_ACCOUNT}
    assert faults(world, MassCancel(1, 1, 7), MassCancel(4, 0, 7)) == {Reason.BAD_ACCOUNT}
    assert faults(world, MassCancel(2, 0, 0), MassCancel(3, 1, ACCOUNT_MAX)) == {Reason.NONE}
    for limit in range(10):
        assert faults(world, *(SetLimit(limit, 0, account, -1) for account in wrong)) == {Reason.BAD_ACCOUNT}
    assert faults(world, SetLimit(4, 0, 7, 50), SetLimit(4, 1, 7, 50), SetLimit(1, 1, 7, 1)) == {Reason.BAD_ACCOUNT}
    assert faults(world, *(SetLimit(limit, 0, ACCOUNT_MAX, 0) for limit in (1, 2, 3, 5, 6, 7, 8))) == {Reason.NONE}
    assert faults(world, *(SetLimit(limit, 0, 0, 0) for limit in Limit)) == {Reason.NONE}


def test_a_tick_is_within_its_limits(world):
    """REJECT-13, LIM-6."""
    assert faults(world, *(DEFINE._replace(tick=tick) for tick in (0, TICK_MAX + 1, 2**32 - 1))) == {Reason.BAD_TICK}
    assert faults(world, DEFINE._replace(tick=TICK_MAX)) == {Reason.NONE}


def test_a_lot_is_within_its_limits(world):
    """REJECT-14, LIM-6."""
    assert faults(world, *(DEFINE._replace(lot=lot) for lot in (0, LOT_MAX + 1, 2**32 - 1))) == {Reason.BAD_LOT}
    assert faults(world, DEFINE._replace(lot=LOT_MAX)) == {Reason.NONE}


def test_a_band_is_within_the_prices_and_not_upside_down(world):
    """REJECT-15, LIM-1: one price is a band."""
    wrong = [(1, 0), (-PRICE_MAX - 1, 0), (0, PRICE_MAX + 1), (2**63 - 1, -(2**63)), (-(2**63), 2**63 - 1)]
    right = [(7, 7), (-PRICE_MAX, PRICE_MAX), (-PRICE_MAX, -PRICE_MAX)]

    assert faults(world, *(DEFINE._replace(band_low=low, band_high=high) for low, high in wrong)) == {Reason.BAD_BAND}
    assert faults(world, *(DEFINE._replace(band_low=low, band_high=high) for low, high in right)) == {Reason.NONE}


def test_a_trading_state_is_one_of_four(world):
    """REJECT-16."""
    for command in (DEFINE, STATE):
        assert faults(world, *(command._replace(state=number) for number in (0, 5, 255))) == {Reason.BAD_STATE}
        assert faults(world, *(command._replace(state=number) for number in (1, 2, 3, 4))) == {Reason.NONE}


def test_a_limit_is_one_of_eight(world):
    """REJECT-17: beside an unknown limit, an instrument and an account within their ranges are in order."""
    places = [(0, 0), (INSTRUMENT_MAX, 0), (0, ACCOUNT_MAX), (INSTRUMENT_MAX, ACCOUNT_MAX)]

    for limit in (0, 9, 128, 255):
        unknown = [SetLimit(limit, instrument, account, -1) for instrument, account in places]
        assert faults(world, *unknown) == {Reason.BAD_LIMIT}
    assert faults(world, *(SetLimit(limit, 0, 0, 1) for limit in range(1, 9))) == {Reason.NONE}


@pytest.mark.parametrize("limit", Limit)
def test_the_value_of_a_limit_is_within_its_range(world, limit: Limit):
    """REJECT-18."""
    bits = {Limit.KILL: 1, Limit.COLLAR: 40, Limit.MAX_NOTIONAL: 62, Limit.MAX_EXPOSURE: 62}.get(limit, 31)
    command = SetLimit(limit, 0, 0, 0)

    wrong = [2**bits, 2**bits + 1, 2**63 - 1, -1, -(2**62), -(2**63)]
    assert faults(world, *(command._replace(value=value) for value in wrong)) == {Reason.BAD_VALUE}
    right = [0, 1, 2**bits - 1]
    assert faults(world, *(command._replace(value=value) for value in right)) == {Reason.NONE}


# -------------------------------------------------------------------------------------------------------- apply


def test_an_instrument_that_is_not_defined_is_told(world):
    """REJECT-32: DefineInstrument and SetLimit excepted."""
    for command in (NEW, REPLACE, CANCEL, MASS, MASS._replace(scope=1), STATE):
        assert faults(world, command._replace(instrument=9)) == {Reason.UNKNOWN_INSTRUMENT}
    assert faults(world, DEFINE._replace(instrument=9), SetLimit(4, 9, 0, 50)) == {Reason.NONE}


def test_a_state_that_does_not_take_the_command_is_told(world):
    """REJECT-33, STATE-2, STATE-3."""
    pre_open = NEW._replace(instrument=3)

    assert faults(world, NEW._replace(instrument=2), REPLACE._replace(instrument=2)) == {Reason.NOT_OPEN}
    assert faults(world, pre_open._replace(time_in_force=2), pre_open._replace(time_in_force=3)) == {Reason.NOT_OPEN}
    assert faults(world, pre_open._replace(time_in_force=2, flags=1, price=0)) == {Reason.NOT_OPEN}
    assert faults(world, pre_open) == {Reason.NONE}


def test_an_order_that_does_not_rest_there_is_told(world):
    """REJECT-34."""
    for command in (CANCEL, REPLACE):
        assert faults(world, command._replace(order_id=77), command._replace(instrument=3)) == {Reason.UNKNOWN_ORDER}


def test_an_order_id_that_is_taken_is_told(world):
    """REJECT-35: by an order of this or another instrument."""
    assert faults(world, *(NEW._replace(order_id=number) for number in (1, 2, 3))) == {Reason.DUPLICATE_ORDER_ID}


def test_a_replace_of_the_other_side_is_told(world):
    """REJECT-36."""
    assert faults(world, REPLACE._replace(side=2), REPLACE._replace(order_id=2)) == {Reason.SIDE_MISMATCH}


def test_a_price_between_the_ticks_is_told(world):
    """REJECT-37: market orders excepted, whose price is 0."""
    for command in (NEW, REPLACE):
        assert faults(world, *(command._replace(price=price) for price in (101, -1, -99, 1001))) == {Reason.OFF_TICK}
    assert faults(world, NEW._replace(price=0), NEW._replace(price=-5)) == {Reason.NONE}


def test_a_quantity_between_the_lots_is_told(world):
    """REJECT-38: market orders included."""
    for command in (NEW, REPLACE, NEW._replace(flags=1, price=0, time_in_force=2)):
        assert faults(world, *(command._replace(quantity=quantity) for quantity in (1, 9, 11))) == {Reason.OFF_LOT}
        assert faults(world, command._replace(quantity=20)) == {Reason.NONE}


def test_a_price_outside_the_band_is_told(world):
    """REJECT-39: market orders excepted."""
    for command in (NEW._replace(flags=2), REPLACE._replace(flags=6)):
        assert faults(world, *(command._replace(price=price) for price in (1005, -1005, PRICE_MAX // 5 * 5))) == {
            Reason.OUTSIDE_BAND
        }
    assert faults(world, NEW._replace(price=1000), NEW._replace(side=2, price=-1000)) == {Reason.NONE}


def test_an_instrument_that_holds_orders_is_not_defined_again(world):
    """REJECT-40."""
    assert faults(world, DEFINE._replace(instrument=1), DEFINE._replace(instrument=3)) == {Reason.BOOK_NOT_EMPTY}
    assert faults(world, DEFINE._replace(instrument=2)) == {Reason.NONE}


def test_an_instrument_more_than_the_capacity_is_told(world):
    """REJECT-41, LIM-8: defining an empty one again is none more."""
    assert faults(world, DEFINE, instruments=3) == {Reason.INSTRUMENTS_FULL}
    assert faults(world, DEFINE._replace(instrument=2), instruments=3) == {Reason.NONE}
    assert faults(world, DEFINE, instruments=4) == {Reason.NONE}


def test_a_gtc_order_more_than_the_capacity_is_told(world):
    """REJECT-42, LIM-7: an order that never rests is taken, and so is a replace."""
    assert faults(world, NEW, NEW._replace(side=2), orders=3) == {Reason.ORDERS_FULL}
    assert faults(world, NEW._replace(time_in_force=2), NEW._replace(time_in_force=3), orders=3) == {Reason.NONE}
    assert faults(world, REPLACE, REPLACE._replace(price=200), orders=3) == {Reason.NONE}
    assert faults(world, NEW, orders=4) == {Reason.NONE}


def test_an_order_that_may_not_trade_and_would_is_told(world):
    """REJECT-43."""
    crossing = NEW._replace(price=200)

    assert faults(world, crossing._replace(flags=2), REPLACE._replace(price=200, flags=2)) == {Reason.WOULD_CROSS}
    assert faults(world, crossing._replace(instrument=3)) == {Reason.WOULD_CROSS}
    assert faults(world, crossing, crossing._replace(flags=6), REPLACE._replace(price=200)) == {Reason.NONE}
