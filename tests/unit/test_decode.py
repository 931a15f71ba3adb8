"""`ferrox.decode`, by example: for each reason the frame that differs from a good one in a single field."""

import pytest

from ferrox.decode import fault, frame_fault
from ferrox.messages import (
    CancelOrder,
    Command,
    DefineInstrument,
    MassCancel,
    NewOrder,
    ReplaceOrder,
    SetLimit,
    SetTradingState,
)
from ferrox.terms import Reason

NEW = NewOrder(side=1, time_in_force=1, flags=0, instrument=1, order_id=1, price=100, quantity=1)
REPLACE = ReplaceOrder(side=1, time_in_force=1, flags=0, instrument=1, order_id=1, price=100, quantity=1)
CANCEL = CancelOrder(instrument=1, order_id=1)
MASS = MassCancel(scope=3, instrument=1, account=1)
DEFINE = DefineInstrument(state=2, instrument=1, band_low=0, band_high=9, tick=1, lot=1)
STATE = SetTradingState(state=2, instrument=1)
LIMIT = SetLimit(limit=1, instrument=1, account=0, value=1)


@pytest.mark.parametrize(
    "command", [NEW, REPLACE, CANCEL, MASS, DEFINE, STATE, LIMIT], ids=lambda command: type(command).__name__
)
def test_a_good_command_has_no_fault(command: Command):
    assert frame_fault(command.pack()) == 0


@pytest.mark.parametrize(
    "command",
    [
        NEW._replace(order_id=2**63 - 1, price=2**40 - 1, quantity=2**31 - 1, instrument=2**20 - 1),
        NEW._replace(price=1 - 2**40),
        NEW._replace(time_in_force=2, flags=1, price=0),
        NEW._replace(time_in_force=3, flags=1 | 4 << 4, price=0),
        NEW._replace(flags=2 | 4 | 3 << 4),
        REPLACE._replace(flags=2 | 4 | 4 << 4),
        MassCancel(1, 2**20 - 1, 0),
        MassCancel(2, 0, 2**23 - 1),
        MassCancel(3, 1, 0),
        MassCancel(4, 0, 0),
        DEFINE._replace(band_low=1 - 2**40, band_high=2**40 - 1, tick=2**31 - 1, lot=2**31 - 1, state=4),
        DEFINE._replace(band_low=7, band_high=7),
        SetLimit(1, 0, 2**23 - 1, 1),
        SetLimit(3, 0, 2**23 - 1, 2**62 - 1),
        SetLimit(4, 2**20 - 1, 0, 2**40 - 1),
        SetLimit(8, 0, 0, 2**31 - 1),
    ],
)
def test_a_command_at_the_limits_has_no_fault(command: Command):
    """LIM-1 .. LIM-6, MARKET-2, POST-4."""
    assert frame_fault(command.pack()) == 0


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (NEW._replace(side=0), Reason.BAD_SIDE),
        (NEW._replace(side=3), Reason.BAD_SIDE),
        (NEW._replace(time_in_force=0), Reason.BAD_TIME_IN_FORCE),
        (NEW._replace(time_in_force=4), Reason.BAD_TIME_IN_FORCE),
        (NEW._replace(flags=1, price=0), Reason.BAD_TIME_IN_FORCE),
        (REPLACE._replace(time_in_force=2), Reason.BAD_TIME_IN_FORCE),
        (NEW._replace(flags=8), Reason.BAD_FLAGS),
        (NEW._replace(flags=128), Reason.BAD_FLAGS),
        (NEW._replace(flags=5 << 4), Reason.BAD_FLAGS),
        (NEW._replace(flags=4), Reason.BAD_FLAGS),
        (NEW._replace(flags=2, time_in_force=2), Reason.BAD_FLAGS),
        (NEW._replace(flags=3, time_in_force=2, price=0), Reason.BAD_FLAGS),
        (REPLACE._replace(flags=1, price=0), Reason.BAD_FLAGS),
        (NEW._replace(instrument=0), Reason.BAD_INSTRUMENT),
        (NEW._replace(instrument=2**20), Reason.BAD_INSTRUMENT),
        (CANCEL._replace(instrument=0), Reason.BAD_INSTRUMENT),
        (MASS._replace(instrument=0), Reason.BAD_INSTRUMENT),
        (MassCancel(2, 1, 1), Reason.BAD_INSTRUMENT),
        (MassCancel(9, 2**20, 1), Reason.BAD_INSTRUMENT),
        (NEW._replace(order_id=0), Reason.BAD_ORDER_ID),
        (CANCEL._replace(order_id=-1), Reason.BAD_ORDER_ID),
        (NEW._replace(price=2**40), Reason.BAD_PRICE),
        (NEW._replace(price=-(2**40)), Reason.BAD_PRICE),
        (NEW._replace(flags=1, time_in_force=2, price=1), Reason.BAD_PRICE),
        (NEW._replace(quantity=0), Reason.BAD_QUANTITY),
        (NEW._replace(quantity=2**31), Reason.BAD_QUANTITY),
        (REPLACE._replace(quantity=0), Reason.BAD_QUANTITY),
        (NEW._replace(display=1), Reason.BAD_DISPLAY),
        (MassCancel(0, 0, 2**23), Reason.BAD_SCOPE),
        (MassCancel(5, 1, 1), Reason.BAD_SCOPE),
        (MASS._replace(account=2**23), Reason.BAD_ACCOUNT),
        (MASS._replace(account=-1), Reason.BAD_ACCOUNT),
        (MassCancel(4, 0, 1), Reason.BAD_ACCOUNT),
        (DEFINE._replace(tick=0), Reason.BAD_TICK),
        (DEFINE._replace(tick=2**31), Reason.BAD_TICK),
        (DEFINE._replace(lot=0), Reason.BAD_LOT),
        (DEFINE._replace(band_low=10), Reason.BAD_BAND),
        (DEFINE._replace(band_low=-(2**40)), Reason.BAD_BAND),
        (DEFINE._replace(band_high=2**40), Reason.BAD_BAND),
        (DEFINE._replace(state=0), Reason.BAD_STATE),
        (STATE._replace(state=5), Reason.BAD_STATE),
    ],
)
def test_a_wrong_field_is_named(command: Command, reason: Reason):
    """REJECT-3 .. REJECT-16."""
    assert frame_fault(command.pack()) == reason


@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_reserved_byte_of_a_cancel_is_malformed(place: int):
    """REJECT-2, WIRE-4."""
    frame = bytearray(CANCEL.pack())
    frame[place] = 1

    assert frame_fault(bytes(frame)) == Reason.MALFORMED


@pytest.mark.parametrize(
    ("frame", "places"),
    [(MASS.pack(), (2, 3)), (DEFINE.pack(), (2, 3)), (STATE.pack(), (2, 3, 8, 15)), (LIMIT.pack(), (2, 3, 24, 31))],
)
def test_a_reserved_byte_of_other_commands_is_malformed(frame: bytes, places: tuple[int, ...]):
    """REJECT-2, WIRE-4."""
    for place in places:
        assert frame_fault(frame[:place] + b"\1" + frame[place + 1 :]) == Reason.MALFORMED


def test_what_stands_behind_a_short_command_is_reserved():
    """WIRE-2: a 16-byte command reads as if 16 zero bytes followed, so anything else there is malformed."""
    for place in range(6, 9):
        shape = [2, 0, 0, 0, 1, 1, 0, 0, 0]
        shape[place] = 1
        assert fault(*shape) == Reason.MALFORMED


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", Reason.UNKNOWN_KIND),
        (b"\0", Reason.UNKNOWN_KIND),
        (b"\x08" + bytes(15), Reason.UNKNOWN_KIND),
        (b"\xff" * 32, Reason.UNKNOWN_KIND),
        (b"\1", Reason.MALFORMED),
        (NEW.pack()[:16], Reason.MALFORMED),
        (NEW.pack() + b"\0", Reason.MALFORMED),
        (CANCEL.pack() + bytes(16), Reason.MALFORMED),
    ],
    ids=["empty", "zero", "eight", "ones", "one byte", "short", "long", "padded"],
)
def test_a_frame_of_any_length_has_an_answer(frame: bytes, reason: Reason):
    """WIRE-1, WIRE-5, REJECT-1, REJECT-2."""
    assert frame_fault(frame) == reason


def test_of_two_faults_the_smaller_number_is_named():
    """REJECT-0."""
    everything_wrong = NewOrder(side=9, time_in_force=9, flags=255, instrument=0, order_id=0, price=2**50, quantity=0)

    mended = [everything_wrong]
    for change in ({"side": 1}, {"time_in_force": 2}, {"flags": 0}, {"instrument": 1}, {"order_id": 1}, {"price": 1}):
        mended.append(mended[-1]._replace(**change))

    assert [frame_fault(command.pack()) for command in mended] == [
        Reason.BAD_SIDE,
        Reason.BAD_TIME_IN_FORCE,
        Reason.BAD_FLAGS,
        Reason.BAD_INSTRUMENT,
        Reason.BAD_ORDER_ID,
        Reason.BAD_PRICE,
        Reason.BAD_QUANTITY,
    ]
