"""Messages in bytes: packing and unpacking mirror each other, and arrays are views."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrox.messages import (
    CANCEL_ORDER_DTYPE,
    COMMAND,
    COMMAND_DTYPE,
    DEFINE_INSTRUMENT_DTYPE,
    ENVELOPE,
    FRAME_SIZE,
    HALF,
    MASS_CANCEL_DTYPE,
    NEW_ORDER_DTYPE,
    RECORD,
    RECORD_DTYPE,
    REPLACE_ORDER_DTYPE,
    REPORT,
    REPORT_DTYPE,
    SET_LIMIT_DTYPE,
    SET_TRADING_STATE_DTYPE,
    CancelOrder,
    Command,
    DefineInstrument,
    MassCancel,
    NewOrder,
    ReplaceOrder,
    Report,
    SetLimit,
    SetTradingState,
    unpack_command,
    unpack_reports,
)
from ferrox.terms import CommandKind, Reason, ReportFlag, ReportKind, Side, account_of, compose_order_id

u8 = st.integers(0, 255)
u32 = st.integers(0, 2**32 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
orders = (u8, u8, u8, u32, i64, i64, u32, u32)
commands = st.one_of(
    st.builds(NewOrder, *orders),
    st.builds(ReplaceOrder, *orders),
    st.builds(CancelOrder, u32, i64),
    st.builds(MassCancel, u8, u32, i64),
    st.builds(DefineInstrument, u8, u32, i64, i64, u32, u32),
    st.builds(SetTradingState, u8, u32),
    st.builds(SetLimit, u8, u32, i64, i64),
)
reports = st.builds(Report, i64, i64, i64, i64, u32, u32, u32, u8, u8, u8, u8)

DTYPES = {
    NewOrder: NEW_ORDER_DTYPE,
    ReplaceOrder: REPLACE_ORDER_DTYPE,
    CancelOrder: CANCEL_ORDER_DTYPE,
    MassCancel: MASS_CANCEL_DTYPE,
    DefineInstrument: DEFINE_INSTRUMENT_DTYPE,
    SetTradingState: SET_TRADING_STATE_DTYPE,
    SetLimit: SET_LIMIT_DTYPE,
}


@given(commands)
def test_a_command_comes_back_from_its_frame(command: Command):
    frame = command.pack()

    assert unpack_command(frame) == command
    assert type(unpack_command(frame)) is type(command)
    assert len(frame) == FRAME_SIZE[CommandKind(frame[0])]


@given(st.lists(reports, max_size=5))
def test_reports_come_back_from_their_frames(several: list[Report]):
    frames = b"".join(report.pack() for report in several)

    assert unpack_reports(frames) == several
    assert unpack_reports(memoryview(frames)) == several


@given(commands)
def test_a_frame_read_as_an_array_has_the_fields_of_the_message(command: Command):
    dtype = DTYPES[type(command)]

    row = np.frombuffer(command.pack(), dtype)[0]

    assert dtype.names is not None
    assert dtype.names[0] == "kind"
    assert {name: int(row[name]) for name in dtype.names[1:]} == command._asdict()


@given(reports)
def test_reports_read_as_an_array_have_the_fields_of_the_message(report: Report):
    row = np.frombuffer(report.pack(), REPORT_DTYPE)[0]

    assert tuple(int(row[name]) for name in Report._fields) == tuple(report)
    assert REPORT_DTYPE.names == Report._fields


def test_an_array_of_frames_is_a_view():
    data = bytearray(CancelOrder(1, 1).pack() + CancelOrder(2, 2).pack())

    array = np.frombuffer(data, CANCEL_ORDER_DTYPE)
    data[8] = 77

    assert array["order_id"].tolist() == [77, 2]
    assert array["instrument"].tolist() == [1, 2]


def test_a_command_of_16_bytes_reads_in_the_common_shape_with_zeros_behind():
    """WIRE-2."""
    frame = CancelOrder(3, 5).pack()

    assert COMMAND.unpack(frame.ljust(32, b"\0")) == (2, 0, 0, 0, 3, 5, 0, 0, 0)
    assert HALF.unpack(frame) == (2, 0, 0, 0, 3, 5)


def test_frames_have_the_sizes_of_the_specification():
    """WIRE-1."""
    assert (COMMAND.size, HALF.size, REPORT.size, ENVELOPE.size, RECORD.size) == (32, 16, 48, 32, 64)
    assert FRAME_SIZE == {1: 32, 2: 16, 3: 32, 4: 16, 5: 32, 6: 16, 7: 32}
    assert COMMAND_DTYPE.itemsize == 32
    assert RECORD_DTYPE.itemsize == 64


def test_a_record_is_its_envelope_and_the_shape():
    fields = (1, 2, 3, 4, 5, 6, 7, 8)
    shape = (9, 10, 11, 12, 13, 14, 15, 16, 17)

    assert RECORD.pack(*fields, *shape) == ENVELOPE.pack(*fields) + COMMAND.pack(*shape)


def test_integers_are_little_endian():
    frame = NewOrder(1, 2, 3, 0x04050607, 0x08090A0B0C0D0E0F, -2, 0x10111213, 0x14151617).pack()

    assert frame.hex(" ", 4) == "01010203 07060504 0f0e0d0c 0b0a0908 feffffff ffffffff 13121110 17161514"


@pytest.mark.parametrize(
    "command",
    [NewOrder(256, 1, 0, 1, 1, 1, 1), NewOrder(1, 1, 0, 2**32, 1, 1, 1), CancelOrder(1, 2**63), MassCancel(-1)],
)
def test_a_field_that_does_not_fit_its_width_is_not_packed(command: Command):
    with pytest.raises(struct.error):
        command.pack()


@pytest.mark.parametrize("size", [0, 15, 17, 31, 33, 48, 64])
def test_a_frame_of_another_size_is_not_unpacked(size: int):
    with pytest.raises(ValueError, match=f"this frame has {size}"):
        unpack_command(bytes([2]).ljust(size, b"\0")[:size])


def test_a_frame_of_unknown_kind_is_not_unpacked():
    with pytest.raises(ValueError, match="command kind 9 is not one of"):
        unpack_command(bytes([9]) + bytes(15))


def test_a_report_reads_as_its_terms_without_its_zeros():
    trade = Report(7, 1, 2, 100, 5, 0, 3, ReportKind.TRADE, Side.SELL, 0, ReportFlag.AGGRESSOR | ReportFlag.LAST)
    reject = Report(8, 1, 0, 0, 0, 0, 0, ReportKind.REJECTED, 0, Reason.BAD_SIDE, 0)
    mass = Report(9, 0, 0, 0, 0, 0, 0, ReportKind.MASS_CANCELED, 4, 0, 0)

    assert repr(trade) == "<TRADE #1 price=100 quantity=5 contra_id=2 instrument=3 sequence=7 SELL AGGRESSOR LAST>"
    assert repr(reject) == "<REJECTED #1 sequence=8 BAD_SIDE>"
    assert repr(mass) == "<MASS_CANCELED #0 sequence=9 VENUE>"
    assert repr(trade._replace(kind=99, side=9)).startswith("<ReportKind(99) #1")
    assert (trade.last, reject.last) == (True, False)


@given(st.integers(0, 2**23 - 1), st.integers(0, 2**40 - 1))
def test_an_order_id_holds_its_account(account: int, reference: int):
    """LIM-4."""
    if account == reference == 0:
        reference = 1

    order_id = compose_order_id(account, reference)

    assert 1 <= order_id <= 2**63 - 1
    assert account_of(order_id) == account
    assert order_id % 2**40 == reference


@pytest.mark.parametrize(("account", "reference"), [(-1, 1), (2**23, 1), (1, -1), (1, 2**40), (0, 0)])
def test_an_order_id_outside_its_limits_is_not_composed(account: int, reference: int):
    """LIM-3, LIM-4."""
    with pytest.raises(ValueError, match=r"account|reference"):
        compose_order_id(account, reference)
