"""Every message in bytes: commands of 32 and 16, reports of 48, the journal record of 64.

The one trick: all commands share **one shape**, so that one unpack reads any of them.  A 16-byte command is the first
half of the shape, and the absent half reads as zeros:

    offset  0        1   2   3   4           8         16        24            28
            kind u8  a   b   c   instrument  ident i64 price i64 quantity u32  display u32

NewOrder and ReplaceOrder use every name as it stands.  The others lend the places other meanings (specs/wire.md):
MassCancel puts its scope in `a` and the account in `ident`; DefineInstrument puts the trading state in `a`, the band in
`ident` and `price`, the tick in `quantity` and the lot in `display`; SetLimit puts the limit in `a`, the account in
`ident` and the value in `price`.

Layouts are written once, here; the assertions tie them to `specs/wire.md`, and `tests/specs` compares the tables.
Typed messages are named tuples in wire order, because packing a tuple is one call: `REPORT.pack(*report)`.
"""

from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple, Union

import numpy as np

from ferrox.terms import CommandKind, Limit, Reason, ReportFlag, ReportKind, Scope, Side, TradingState

COMMAND: Final = Struct("<BBBBIqqII")  # the shape: kind, a, b, c, instrument, ident, price, quantity, display
HALF: Final = Struct("<BBBBIq")  # the first half of the shape, all that a 16-byte command has
REPORT: Final = Struct("<qqqqIIIBBBB")
ENVELOPE: Final = Struct("<IIqqBBHI")  # crc, prev_crc, sequence, time_ns, kind, size, session, lag
RECORD: Final = Struct("<IIqqBBHI BBBBIqqII")  # envelope and shape together

COMMAND_SIZE: Final = 32
HALF_SIZE: Final = 16
REPORT_SIZE: Final = 48
ENVELOPE_SIZE: Final = 32
RECORD_SIZE: Final = 64

assert COMMAND.size == COMMAND_SIZE
assert HALF.size == HALF_SIZE
assert REPORT.size == REPORT_SIZE
assert ENVELOPE.size == ENVELOPE_SIZE
assert RECORD.size == RECORD_SIZE

FRAME_SIZE: Final = {
    CommandKind.NEW_ORDER: 32,
    CommandKind.CANCEL_ORDER: 16,
    CommandKind.REPLACE_ORDER: 32,
    CommandKind.MASS_CANCEL: 16,
    CommandKind.DEFINE_INSTRUMENT: 32,
    CommandKind.SET_TRADING_STATE: 16,
    CommandKind.SET_LIMIT: 32,
}
"""Bytes of a command's frame by its kind."""


class NewOrder(NamedTuple):
    """A new order: price in ticks, quantity in lots, flags of `OrderFlag` and a `SelfTrade` mode in bits 4 to 6."""

    side: int
    time_in_force: int
    flags: int
    instrument: int
    order_id: int
    price: int
    quantity: int
    display: int = 0

    def pack(self) -> bytes:
        """Return the 32-byte frame; raise `struct.error` when a field does not fit its width."""
        return COMMAND.pack(CommandKind.NEW_ORDER, *self)


class ReplaceOrder(NamedTuple):
    """A change of a resting order: `quantity` is the new total, filled included (RPL-2)."""

    side: int
    time_in_force: int
    flags: int
    instrument: int
    order_id: int
    price: int
    quantity: int
    display: int = 0

    def pack(self) -> bytes:
        """Return the 32-byte frame; raise `struct.error` when a field does not fit its width."""
        return COMMAND.pack(CommandKind.REPLACE_ORDER, *self)


class CancelOrder(NamedTuple):
    """The end of one resting order."""

    instrument: int
    order_id: int

    def pack(self) -> bytes:
        """Return the 16-byte frame; raise `struct.error` when a field does not fit its width."""
        return HALF.pack(CommandKind.CANCEL_ORDER, 0, 0, 0, self.instrument, self.order_id)


class MassCancel(NamedTuple):
    """The end of every resting order in a scope; fields that the scope does not name are 0."""

    scope: int
    instrument: int = 0
    account: int = 0

    def pack(self) -> bytes:
        """Return the 16-byte frame; raise `struct.error` when a field does not fit its width."""
        return HALF.pack(CommandKind.MASS_CANCEL, self.scope, 0, 0, self.instrument, self.account)


class DefineInstrument(NamedTuple):
    """An instrument: tick, lot, price band in ticks (both ends allowed) and trading state."""

    state: int
    instrument: int
    band_low: int
    band_high: int
    tick: int
    lot: int

    def pack(self) -> bytes:
        """Return the 32-byte frame; raise `struct.error` when a field does not fit its width."""
        return COMMAND.pack(
            CommandKind.DEFINE_INSTRUMENT,
            self.state,
            0,
            0,
            self.instrument,
            self.band_low,
            self.band_high,
            self.tick,
            self.lot,
        )


class SetTradingState(NamedTuple):
    """A change of an instrument's trading state."""

    state: int
    instrument: int

    def pack(self) -> bytes:
        """Return the 16-byte frame; raise `struct.error` when a field does not fit its width."""
        return HALF.pack(CommandKind.SET_TRADING_STATE, self.state, 0, 0, self.instrument, 0)


class SetLimit(NamedTuple):
    """A change of what a gateway keeps an account or an instrument within; 0 names none, or every one."""

    limit: int
    instrument: int
    account: int
    value: int

    def pack(self) -> bytes:
        """Return the 32-byte frame; raise `struct.error` when a field does not fit its width."""
        return COMMAND.pack(CommandKind.SET_LIMIT, self.limit, 0, 0, self.instrument, self.account, self.value, 0, 0)


Command = Union[NewOrder, ReplaceOrder, CancelOrder, MassCancel, DefineInstrument, SetTradingState, SetLimit]


class Report(NamedTuple):
    """One execution report, 48 bytes in this order; what each field means under each kind is REPORT-3."""

    sequence: int
    order_id: int
    contra_id: int
    price: int
    quantity: int
    leaves: int
    instrument: int
    kind: int
    side: int
    reason: int
    flags: int

    def pack(self) -> bytes:
        """Return the 48-byte frame."""
        return REPORT.pack(*self)

    @property
    def last(self) -> bool:
        """Whether this is the last report of its command."""
        return bool(self.flags & ReportFlag.LAST)

    def __repr__(self) -> str:
        """Name the terms, and leave out what is zero."""
        shown = [f"{_name(ReportKind, self.kind)} #{self.order_id}"]
        numbers = ("price", "quantity", "leaves", "contra_id", "instrument", "sequence")
        shown += [f"{name}={getattr(self, name)}" for name in numbers if getattr(self, name)]
        if self.side:
            shown.append(_name(_SIDE_MEANS.get(self.kind, Side), self.side))
        if self.reason:
            shown.append(_name(Reason, self.reason))
        shown += [flag.name or "" for flag in ReportFlag if self.flags & flag]
        return f"<{' '.join(shown)}>"


# What the place of the side holds where a report is not about an order (REPORT-3).
_SIDE_MEANS: Final[dict[int, type[IntEnum]]] = {
    ReportKind.MASS_CANCELED: Scope,
    ReportKind.INSTRUMENT_DEFINED: TradingState,
    ReportKind.STATE_CHANGED: TradingState,
    ReportKind.LIMIT_SET: Limit,
}


def _name(words: type[IntEnum], number: int) -> str:
    """Return the word for a number, or the number where it has none."""
    return words(number).name if number in set(words) else f"{words.__name__}({number})"


def unpack_command(frame: bytes) -> Command:
    """Return the typed command of one frame of 16, 32 bytes; raise ValueError for an unknown kind or another length.

    The fields are taken as they stand: `ferrox.decode` says whether they may be.
    """
    if len(frame) not in (HALF_SIZE, COMMAND_SIZE):
        raise ValueError(f"a command has 16 or 32 bytes, this frame has {len(frame)}")
    kind, a, b, c, instrument, ident, price, quantity, display = COMMAND.unpack(frame.ljust(COMMAND_SIZE, b"\0"))
    if kind == CommandKind.NEW_ORDER:
        return NewOrder(a, b, c, instrument, ident, price, quantity, display)
    if kind == CommandKind.REPLACE_ORDER:
        return ReplaceOrder(a, b, c, instrument, ident, price, quantity, display)
    if kind == CommandKind.CANCEL_ORDER:
        return CancelOrder(instrument, ident)
    if kind == CommandKind.MASS_CANCEL:
        return MassCancel(a, instrument, ident)
    if kind == CommandKind.DEFINE_INSTRUMENT:
        return DefineInstrument(a, instrument, ident, price, quantity, display)
    if kind == CommandKind.SET_TRADING_STATE:
        return SetTradingState(a, instrument)
    if kind == CommandKind.SET_LIMIT:
        return SetLimit(a, instrument, ident, price)
    raise ValueError(f"command kind {kind} is not one of {[int(k) for k in CommandKind]}")


def unpack_reports(reports: "bytes | memoryview") -> list[Report]:
    """Return the typed reports of a whole number of 48-byte frames."""
    return [Report._make(fields) for fields in REPORT.iter_unpack(reports)]


# Whole arrays of a message: `np.frombuffer(data, NEW_ORDER_DTYPE)` and `np.memmap` are views without a copy.
# Field names are those of the typed messages; padding keeps the offsets of the wire.
_U1, _U2, _U4, _I8 = np.dtype("u1"), np.dtype("<u2"), np.dtype("<u4"), np.dtype("<i8")


def _dtype(itemsize: int, /, **fields: "tuple[np.dtype[np.generic], int]") -> "np.dtype[np.void]":
    return np.dtype(
        {
            "names": list(fields),
            "formats": [form for form, _ in fields.values()],
            "offsets": [offset for _, offset in fields.values()],
            "itemsize": itemsize,
        }
    )


NEW_ORDER_DTYPE: Final = _dtype(
    COMMAND_SIZE,
    kind=(_U1, 0),
    side=(_U1, 1),
    time_in_force=(_U1, 2),
    flags=(_U1, 3),
    instrument=(_U4, 4),
    order_id=(_I8, 8),
    price=(_I8, 16),
    quantity=(_U4, 24),
    display=(_U4, 28),
)
REPLACE_ORDER_DTYPE: Final = NEW_ORDER_DTYPE
COMMAND_DTYPE: Final = NEW_ORDER_DTYPE  # the shape: any command, a 16-byte one padded with zeros
CANCEL_ORDER_DTYPE: Final = _dtype(HALF_SIZE, kind=(_U1, 0), instrument=(_U4, 4), order_id=(_I8, 8))
MASS_CANCEL_DTYPE: Final = _dtype(HALF_SIZE, kind=(_U1, 0), scope=(_U1, 1), instrument=(_U4, 4), account=(_I8, 8))
DEFINE_INSTRUMENT_DTYPE: Final = _dtype(
    COMMAND_SIZE,
    kind=(_U1, 0),
    state=(_U1, 1),
    instrument=(_U4, 4),
    band_low=(_I8, 8),
    band_high=(_I8, 16),
    tick=(_U4, 24),
    lot=(_U4, 28),
)
SET_TRADING_STATE_DTYPE: Final = _dtype(HALF_SIZE, kind=(_U1, 0), state=(_U1, 1), instrument=(_U4, 4))
SET_LIMIT_DTYPE: Final = _dtype(
    COMMAND_SIZE, kind=(_U1, 0), limit=(_U1, 1), instrument=(_U4, 4), account=(_I8, 8), value=(_I8, 16)
)
REPORT_DTYPE: Final = _dtype(
    REPORT_SIZE,
    sequence=(_I8, 0),
    order_id=(_I8, 8),
    contra_id=(_I8, 16),
    price=(_I8, 24),
    quantity=(_U4, 32),
    leaves=(_U4, 36),
    instrument=(_U4, 40),
    kind=(_U1, 44),
    side=(_U1, 45),
    reason=(_U1, 46),
    flags=(_U1, 47),
)
RECORD_DTYPE: Final = _dtype(
    RECORD_SIZE,
    crc=(_U4, 0),
    prev_crc=(_U4, 4),
    sequence=(_I8, 8),
    time_ns=(_I8, 16),
    kind=(_U1, 24),
    size=(_U1, 25),
    session=(_U2, 26),
    lag=(_U4, 28),
    command=(COMMAND_DTYPE, 32),
)

__all__ = [
    "CANCEL_ORDER_DTYPE",
    "COMMAND",
    "COMMAND_DTYPE",
    "COMMAND_SIZE",
    "DEFINE_INSTRUMENT_DTYPE",
    "ENVELOPE",
    "ENVELOPE_SIZE",
    "FRAME_SIZE",
    "HALF",
    "HALF_SIZE",
    "MASS_CANCEL_DTYPE",
    "NEW_ORDER_DTYPE",
    "RECORD",
    "RECORD_DTYPE",
    "RECORD_SIZE",
    "REPLACE_ORDER_DTYPE",
    "REPORT",
    "REPORT_DTYPE",
    "REPORT_SIZE",
    "SET_LIMIT_DTYPE",
    "SET_TRADING_STATE_DTYPE",
    "CancelOrder",
    "Command",
    "DefineInstrument",
    "MassCancel",
    "NewOrder",
    "ReplaceOrder",
    "Report",
    "SetLimit",
    "SetTradingState",
    "unpack_command",
    "unpack_reports",
]
