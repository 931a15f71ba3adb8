"""A venue in a notebook: commands as methods or whole arrays, reports as results, books at three depths.

`Venue` keeps what the seam asks for and a person does not want to think of: the sequence number, the time, the 64-byte
record, the next free order id.  It judges nothing.  What fits the wire goes to the engine and comes back as a reject
if need be; only what no frame can say (a price of 10.5, a quantity of 2^32) raises.

Two things keep one call a command cheap.  A record is packed by a `Struct` that joins neighbouring constant fields, so
a new order is eight arguments instead of seventeen; and a `Result` keeps the bytes and decodes when it is looked at.
Books cost nothing until the first look at one: then they are seeded from the engine's snapshot, and from there on the
reports between two looks are kept, and folded in at the next (`ferrox.depth`).  When too many have gathered, they are
dropped, and the next look seeds again.
"""

import operator
import os
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import Any, Final, NoReturn, Self, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ferrox.columns import Reports, assign, term_of
from ferrox.depth import Books, Depth, Orders, QueuePosition, Top
from ferrox.engine import ENGINES, Capacity, Engine, check_name, make_engine
from ferrox.errors import DiskLow, JournalFailed, SequenceError, SnapshotCorrupt, UsageError
from ferrox.journal import Journal, Tally
from ferrox.journal.layout import MARK_NAME
from ferrox.journal.reader import Reading
from ferrox.journal.tally import parts
from ferrox.messages import (
    COMMAND_SIZE,
    FRAME_SIZE,
    HALF_SIZE,
    RECORD_DTYPE,
    RECORD_SIZE,
    REPORT,
    REPORT_SIZE,
    CancelOrder,
    Command,
    DefineInstrument,
    MassCancel,
    NewOrder,
    ReplaceOrder,
    Report,
    SetLimit,
    SetTradingState,
    unpack_reports,
)
from ferrox.snapshot import latest_snapshot, read_snapshot, write_snapshot
from ferrox.state import SNAPSHOT_HEADER, STATE_MAGIC, RestingOrder, State, digest, unpack_state
from ferrox.terms import (
    ACCOUNT_SHIFT,
    INSTRUMENT_CAPACITY,
    ORDER_CAPACITY,
    PRICE_MAX,
    REFERENCE_MAX,
    SELF_TRADE_SHIFT,
    Annotation,
    CommandKind,
    Limit,
    OrderFlag,
    Reason,
    ReportKind,
    Scope,
    SelfTrade,
    Side,
    TimeInForce,
    TradingState,
    compose_order_id,
)
from ferrox.text import format_report

# Plain integers: a member of an enum costs a look-up on every command.
NEW_ORDER, CANCEL_ORDER, REPLACE_ORDER, MASS_CANCEL, DEFINE_INSTRUMENT = map(int, list(CommandKind)[:5])
BUY, SELL = map(int, Side)
GTC, IOC, _ = map(int, TimeInForce)
MARKET, POST_ONLY, SLIDE = map(int, OrderFlag)
ALLOW: Final = SelfTrade.ALLOW
TRADE: Final = int(ReportKind.TRADE)
OF_NO_ORDER: Final = (int(ReportKind.MASS_CANCELED), int(ReportKind.LIMIT_SET))  # their ids are accounts
INSTRUMENT_DEFINED: Final = int(ReportKind.INSTRUMENT_DEFINED)
FIRST_ANNOTATION: Final = int(min(Annotation))
FIRST_REJECTION, LAST_REJECTION = int(ReportKind.REJECTED), int(ReportKind.REPLACE_REJECTED)

# Records (WIRE-7) with their constant neighbours joined: kind and size of the envelope are one u16, the first four
# bytes of a command one u32, and what the journal fills in, and what is 0, is padding.
ORDER_RECORD: Final = Struct("<8x qq H6x II qq I4x")  # sequence, time, kind|size, head, instrument, id, price, quantity
HALF_RECORD: Final = Struct("<8x qq H6x II q 16x")  # sequence, time, kind|size, head, instrument, ident
FRAME_RECORD: Final = Struct("<8x qq BB6x 32s")  # sequence, time, kind, size, frame
WHOLE_RECORD: Final = Struct("<8x qq BB6x BBBBIqqII")  # sequence, time, kind, size, and all of a command
assert ORDER_RECORD.size == HALF_RECORD.size == FRAME_RECORD.size == WHOLE_RECORD.size == RECORD_SIZE
_order_record, _half_record = ORDER_RECORD.pack, HALF_RECORD.pack
_frame_record, _whole_record = FRAME_RECORD.pack, WHOLE_RECORD.pack
_order_id_of: Final = Struct("<8xq").unpack_from
_leaves_of: Final = Struct("<8xq 20xI").unpack_from  # order id and leaves of a report

NEW_ENVELOPE: Final = NEW_ORDER | COMMAND_SIZE << 8
REPLACE_ENVELOPE: Final = REPLACE_ORDER | COMMAND_SIZE << 8
CANCEL_ENVELOPE: Final = CANCEL_ORDER | HALF_SIZE << 8
BUY_HEAD: Final = NEW_ORDER | BUY << 8
SELL_HEAD: Final = NEW_ORDER | SELL << 8
BUY_LIMIT, SELL_LIMIT = BUY_HEAD | GTC << 16, SELL_HEAD | GTC << 16
WHOLE_KINDS: Final[dict[type, int]] = {NewOrder: NEW_ORDER, ReplaceOrder: REPLACE_ORDER}
"""The typed commands whose fields stand in a frame one after the other."""

REPORT_KIND: Final = 44  # the byte of a report that holds its kind
REPORT_REASON: Final = 46

CHUNK: Final = 65_536
"""Commands of an array that become records at a time: 4 MB, so memory does not grow with the array."""
HELD_MAX: Final = 1024
"""How many commands' reports are counted for the journal at once: one by one, it would cost more than the command."""
HELD_SIZE: Final = 1 << 16
"""Bytes of reports to one command that are not held any longer."""
BACKLOG_BYTES: Final = 131_072 * REPORT_SIZE
"""Reports that wait for a look at a book; beyond, seeding from a snapshot is as quick as folding them, and smaller."""
SIZE_OF_KIND: Final = np.full(256, COMMAND_SIZE, np.uint8)
SIZE_OF_KIND[[int(kind) for kind in FRAME_SIZE]] = list(FRAME_SIZE.values())

# Where each kind of command keeps its words in the common shape (`ferrox.messages`).
PLACES: Final = {
    "kind": "kind",
    "side": "side",
    "scope": "side",
    "state": "side",
    "limit": "side",
    "time_in_force": "time_in_force",
    "flags": "flags",
    "instrument": "instrument",
    "order_id": "order_id",
    "account": "order_id",
    "band_low": "order_id",
    "price": "price",
    "band_high": "price",
    "value": "price",
    "quantity": "quantity",
    "tick": "quantity",
    "display": "display",
    "lot": "display",
}
U8, U32, I64 = (0, 2**8 - 1), (0, 2**32 - 1), (-(2**63), 2**63 - 1)
WIDTHS: Final = {
    "side": U8,
    "scope": U8,
    "state": U8,
    "limit": U8,
    "time_in_force": U8,
    "flags": U8,
    "self_trade": (0, 7),
    "instrument": U32,
    "quantity": U32,
    "display": U32,
    "tick": U32,
    "lot": U32,
    "order_id": I64,
    "account": I64,
    "price": I64,
    "band_low": I64,
    "band_high": I64,
    "value": I64,
    "time_ns": (0, 2**62),
}
"""What each field holds on the wire; what it may say is narrower, and the engine's to judge (specs/limits.md)."""


def _known(terms: "type[Side | TimeInForce | SelfTrade]") -> dict[object, int]:
    """Return the usual spellings of each term, for a look-up before the slow way."""
    return {key: int(term) for term in terms for key in (int(term), term.name, term.name.lower())}


SIDES: Final = _known(Side)
TIMES_IN_FORCE: Final = _known(TimeInForce)
SELF_TRADES: Final = _known(SelfTrade)

SideLike = Side | str | int
TimeInForceLike = TimeInForce | str | int
SelfTradeLike = SelfTrade | str | int
StateLike = TradingState | str | int
LimitLike = Limit | str | int
Integer = Union[int, "np.integer[Any]"]
Commands = Union["NDArray[np.void]", bytes, bytearray, memoryview, Iterable[Command | bytes]]


class Result:
    """What one command came to: its reports, decoded when they are looked at; true when it was accepted.

    Prices are in ticks, quantities in lots.
    """

    __slots__ = ("frames",)

    frames: bytes
    """The command's reports as 48-byte frames."""

    def __init__(self, frames: bytes) -> None:
        self.frames = frames

    @property
    def reports(self) -> list[Report]:
        """Return all reports of the command, in order."""
        return unpack_reports(self.frames)

    @property
    def accepted(self) -> bool:
        """Whether the command was carried out; an order that expired at once was accepted too."""
        return not FIRST_REJECTION <= self.frames[REPORT_KIND] <= LAST_REJECTION

    @property
    def rejected(self) -> bool:
        """Whether the command was rejected, and so changed nothing."""
        return FIRST_REJECTION <= self.frames[REPORT_KIND] <= LAST_REJECTION

    @property
    def reason(self) -> Reason:
        """Why the command was rejected; `Reason.NONE` when it was not."""
        return Reason(self.frames[REPORT_REASON]) if self.rejected else Reason.NONE

    @property
    def sequence(self) -> int:
        """The command's sequence number."""
        return int.from_bytes(self.frames[:8], "little", signed=True)

    @property
    def order_id(self) -> int:
        """The order that the command was about; 0 for commands about none."""
        if self.frames[REPORT_KIND - REPORT_SIZE] in OF_NO_ORDER:
            return 0  # the first report of a mass cancel is about whichever order left first
        return int.from_bytes(self.frames[8:16], "little", signed=True)

    @property
    def trades(self) -> list[Report]:
        """The trades that the command made at once."""
        return [report for report in self.reports if report.kind == TRADE]

    @property
    def filled(self) -> int:
        """What the order traded by this command, in lots."""
        return sum(fields[4] for fields in REPORT.iter_unpack(self.frames) if fields[7] == TRADE)

    @property
    def leaves(self) -> int:
        """What the order still works after this command, in lots; 0 when the command was rejected."""
        frames, order_id = self.frames, self.order_id
        if order_id:
            for offset in range(len(frames) - REPORT_SIZE, -1, -REPORT_SIZE):
                other_id, leaves = _leaves_of(frames, offset)
                if other_id == order_id:  # a maker's report says nothing of this order
                    return int(leaves)
        return 0

    @property
    def average_price(self) -> float | None:
        """The mean price of what traded at once, in ticks; None when nothing did."""
        trades = self.trades
        if not trades:
            return None
        return sum(report.price * report.quantity for report in trades) / sum(report.quantity for report in trades)

    def __bool__(self) -> bool:
        return not FIRST_REJECTION <= self.frames[REPORT_KIND] <= LAST_REJECTION

    def __len__(self) -> int:
        return len(self.frames) // REPORT_SIZE

    def __iter__(self) -> Iterator[Report]:
        return map(Report._make, REPORT.iter_unpack(self.frames))

    def __eq__(self, other: object) -> bool:
        return self.frames == other.frames if isinstance(other, Result) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.frames)

    def __repr__(self) -> str:
        """Show the reports as a line of a session does, the middle of many left out."""
        lines = [format_report(report) for report in self]
        if len(lines) > 6:
            lines[4:-1] = [f"... {len(lines) - 5:,} more ..."]
        return f"<Result {'; '.join(lines)}>"


class Venue:
    """A deterministic venue: one engine, one sequence, and the commands as methods.

    The same calls give the same bytes, always: by default a command's time is its own sequence number.  Give a `clock`,
    or set `time_ns`, to have times that mean something; no rule of matching reads them (DET-4).
    """

    def __init__(
        self,
        engine: "str | Engine" = "reference",
        *,
        orders: int | None = None,
        instruments: int | None = None,
        clock: Callable[[], int] | None = None,
        journal: "str | os.PathLike[str] | Journal | None" = None,
    ) -> None:
        """Make a venue over an engine, "reference", "fast" or an object with the three methods of the seam.

        `orders` and `instruments` are the capacities of an engine made here, 1,048,576 and 16,384 by default (LIM-7,
        LIM-8); an engine object has its own, and may have a past, which the venue goes on from.  `clock` is called
        before each command and returns nanoseconds, 0 .. 2^62; 0 is taken as 1, because a record with time 0 asks the
        journal for its own clock.  `journal` is a new directory, into which every command is written before the engine
        sees it, or an open journal that stands where the engine does; `load` goes on with one that exists.

        Raise `UsageError` for an unknown engine, for capacities beside an engine object, for a directory that is
        taken, and for a journal that stands elsewhere.
        """
        _check_clock(clock)
        if isinstance(engine, str):
            self._engine = make_engine(
                engine,
                Capacity(
                    ORDER_CAPACITY if orders is None else orders,
                    INSTRUMENT_CAPACITY if instruments is None else instruments,
                ),
            )
            self._name = engine
        else:
            if orders is not None or instruments is not None:
                raise UsageError(
                    "an engine object has its own capacities; give orders and instruments with a name only"
                )
            self._engine = engine
            self._name = type(engine).__name__
        self._apply = self._engine.apply
        self._clock = clock
        self._time_ns = 0
        self._free: dict[int, int] = {}  # the next free order id by account: one above the greatest that was seen
        self._books: Books | None = None
        self._backlog: list[bytes] | None = None  # None: no one has looked, or too many reports have gathered
        self._backlog_bytes = 0
        self._tally: Tally | None = None  # what the journal is to state of the engine (JRN-21)
        self._held: list[bytes] = []  # reports that are not in it yet
        self._watched = False  # whether backlog or tally wants the reports
        self._journal: Journal | None = None
        self._origin = (bytes(16), 0)  # the journal that this was read from, and the sequence number at its end
        self._adopt()
        if journal is not None:
            self._attach(journal)

    def _adopt(self) -> None:
        """Take sequence, instruments and used order ids from the engine's state."""
        snapshot = self._engine.snapshot()
        fields = SNAPSHOT_HEADER.unpack_from(snapshot)
        self._sequence: int = fields[4]
        self._instruments: set[int] = set()
        if fields[8]:
            state = unpack_state(snapshot)
            self._instruments = {definition.instrument for definition in state.instruments}
            self._use_ids(np.array([order.order_id for order in state.orders], np.int64))
        self._settle()

    def _attach(self, journal: "str | os.PathLike[str] | Journal") -> None:
        """Write every command from here on into a journal, which must stand where the engine does."""
        at = journal.sequence if isinstance(journal, Journal) else 0
        if at != self._sequence:
            raise UsageError(
                f"the engine is at sequence {self._sequence} and the journal at {at}; "
                "give a new engine with a new directory, or go on with a journal by Venue.load"
            )
        fields = SNAPSHOT_HEADER.unpack_from(self._engine.snapshot())
        capacity = Capacity(fields[6], fields[7])
        if not isinstance(journal, Journal):
            journal = Journal.create(journal, capacity)
        elif journal.capacity != capacity:
            raise UsageError(f"the engine has {capacity} and the journal {journal.capacity}; make them equal")
        self._journal = journal
        self._watch(Tally(self._sequence + 1))

    def _settle(self) -> None:
        """Remember which instrument an order is in when only one is defined; 0 when one must look."""
        (self._home,) = self._instruments if len(self._instruments) == 1 else (0,)

    # ------------------------------------------------------------------------------------------- one by one

    def define(
        self,
        instrument: int = 1,
        *,
        tick: int = 1,
        lot: int = 1,
        band: tuple[int, int] = (-PRICE_MAX, PRICE_MAX),
        state: StateLike = TradingState.OPEN,
    ) -> Result:
        """Define an instrument, or an empty one again: the steps of prices and quantities, and the band (INSTR-1).

        Both ends of the band are allowed prices; by default it is all there are, ±(2^40-1).
        """
        low, high = band
        return self.send(DefineInstrument(_term(TradingState, state, "state"), instrument, low, high, tick, lot))

    def set_state(self, instrument: int, state: StateLike) -> Result:
        """Move an instrument to pre-open, open, halted or closed (STATE-4)."""
        return self.send(SetTradingState(_term(TradingState, state, "state"), instrument))

    def set_limit(self, limit: LimitLike, value: Integer, *, account: Integer = 0, instrument: Integer = 0) -> Result:
        """Say a limit, for an account or an instrument, 0 for none or every one; a gateway keeps it (LIMIT-1)."""
        return self.send(
            SetLimit(
                _term(Limit, limit, "limit"),
                _integer("instrument", instrument),
                _integer("account", account),
                _integer("value", value),
            )
        )

    def buy(
        self,
        quantity: Integer,
        price: Integer | None = None,
        *,
        order_id: Integer | None = None,
        instrument: Integer = 1,
        time_in_force: TimeInForceLike | None = None,
        post_only: bool = False,
        slide: bool = False,
        self_trade: SelfTradeLike = ALLOW,
        account: Integer = 0,
    ) -> Result:
        """Send an order to buy; see `submit`."""
        head = BUY_LIMIT
        if price is None or time_in_force is not None or post_only or slide or self_trade is not ALLOW:
            head = BUY_HEAD | _options(price is None, time_in_force, post_only, slide, self_trade)
        return self._enter(head, quantity, price, order_id, instrument, account)

    def sell(
        self,
        quantity: Integer,
        price: Integer | None = None,
        *,
        order_id: Integer | None = None,
        instrument: Integer = 1,
        time_in_force: TimeInForceLike | None = None,
        post_only: bool = False,
        slide: bool = False,
        self_trade: SelfTradeLike = ALLOW,
        account: Integer = 0,
    ) -> Result:
        """Send an order to sell; see `submit`."""
        head = SELL_LIMIT
        if price is None or time_in_force is not None or post_only or slide or self_trade is not ALLOW:
            head = SELL_HEAD | _options(price is None, time_in_force, post_only, slide, self_trade)
        return self._enter(head, quantity, price, order_id, instrument, account)

    def submit(
        self,
        side: SideLike,
        quantity: Integer,
        price: Integer | None = None,
        *,
        order_id: Integer | None = None,
        instrument: Integer = 1,
        time_in_force: TimeInForceLike | None = None,
        post_only: bool = False,
        slide: bool = False,
        self_trade: SelfTradeLike = ALLOW,
        account: Integer = 0,
    ) -> Result:
        """Send a new order: a quantity in lots, at a price in ticks or, without one, at the market (NEW-1, MARKET-1).

        Terms are members, numbers or names in any case ("buy", "ioc", "cancel-maker").  The time in force is GTC, of
        a market order IOC.  Without an `order_id` the order takes the account's next free reference: one above every
        reference that this venue has seen of it (LIM-4).  Raise TypeError or ValueError for what no frame can say;
        whatever else is wrong comes back as a rejection.
        """
        code = SIDES.get(side) if isinstance(side, (int, str)) else None
        if code is None:
            code = _term(Side, side, "side")
        head = NEW_ORDER | code << 8 | _options(price is None, time_in_force, post_only, slide, self_trade)
        return self._enter(head, quantity, price, order_id, instrument, account)

    def _enter(self, head: int, quantity: Any, price: Any, order_id: Any, instrument: Any, account: Any) -> Result:
        """Pack a new order's record in one go, and cross the seam; `head` is the first four bytes of its frame."""
        if price is None:
            price = 0  # MARKET-2
        free = self._free
        if order_id is None:
            if type(account) is not int:
                account = _integer("account", account)
            given = free.get(account, 0)
            if not given or given >> ACCOUNT_SHIFT != account:
                given = compose_order_id(account, REFERENCE_MAX + 1 if given else 1)
        else:
            if type(order_id) is not int:
                order_id = _integer("order_id", order_id)
            given = order_id
            account = given >> ACCOUNT_SHIFT
        sequence = self._sequence + 1
        time_ns = self._time_ns or sequence if self._clock is None else self._read_clock()
        try:
            record = _order_record(sequence, time_ns, NEW_ENVELOPE, head, instrument, given, price, quantity)
        except struct.error:
            _misfit(quantity=quantity, price=price, order_id=given, instrument=instrument)
        # From here on as `_step` does; a call would cost more than these lines.
        if self._journal is not None:
            record = self._journal.append(record)
        if order_id is None or given >= free.get(account, 0):
            free[account] = given + 1  # it is sent, so the reference is used
        _, reports = self._apply(record)
        self._sequence = sequence
        frames = reports.tobytes()  # the view is valid until the next call only
        if self._watched:
            self._keep(frames)
        return Result(frames)

    def cancel(self, order_id: Integer, instrument: Integer | None = None) -> Result:
        """Take a resting order out (CANCEL-1).

        Without an `instrument`, it is the only one that is defined, or the one in which the order rests, which is
        looked up in the books; an order that rests nowhere is asked for in the first instrument, and rejected.
        """
        if instrument is None:
            instrument = self._home or self._instrument_of(order_id)
        sequence = self._sequence + 1
        time_ns = self._time_ns or sequence if self._clock is None else self._read_clock()
        try:
            record = _half_record(sequence, time_ns, CANCEL_ENVELOPE, CANCEL_ORDER, instrument, order_id)
        except struct.error:
            _misfit(order_id=order_id, instrument=instrument)
        return self._step(sequence, record)

    def replace(
        self,
        order_id: Integer,
        *,
        price: Integer | None = None,
        quantity: Integer | None = None,
        side: SideLike | None = None,
        instrument: Integer | None = None,
        post_only: bool = False,
        slide: bool = False,
        self_trade: SelfTradeLike = ALLOW,
    ) -> Result:
        """Give a resting order a new price in ticks and a new total in lots, what has filled included (RPL-1 .. RPL-7).

        What is left out stays as it is, and is looked up in the books, as is the side; give `price`, `quantity` and
        `side` where every microsecond counts.
        """
        if price is None or quantity is None or side is None:
            order = self.order(order_id)
            if order is None:  # any valid order does: the engine knows no such order either (REJECT-34)
                order = RestingOrder(int(order_id), 0, 1, 0, 0, BUY)
            price = order.price if price is None else price
            quantity = order.leaves + order.filled if quantity is None else quantity
            side = order.side if side is None else side
        if instrument is None:
            instrument = self._home or self._instrument_of(order_id)
        code = SIDES.get(side) if isinstance(side, (int, str)) else None
        if code is None:
            code = _term(Side, side, "side")
        sequence = self._sequence + 1
        time_ns = self._time_ns or sequence if self._clock is None else self._read_clock()
        try:
            head = REPLACE_ORDER | code << 8 | _options(False, GTC, post_only, slide, self_trade)
            record = _order_record(sequence, time_ns, REPLACE_ENVELOPE, head, instrument, order_id, price, quantity)
        except struct.error:
            _misfit(quantity=quantity, price=price, order_id=order_id, instrument=instrument)
        return self._step(sequence, record)

    def mass_cancel(self, *, instrument: int | None = None, account: int | None = None) -> Result:
        """Take out every resting order of an instrument, of an account, of both, or, without either, of the venue."""
        scopes = {(True, False): Scope.INSTRUMENT, (False, True): Scope.ACCOUNT, (False, False): Scope.VENUE}
        scope = scopes.get((instrument is not None, account is not None), Scope.ACCOUNT_IN_INSTRUMENT)
        return self.send(
            MassCancel(
                int(scope),
                0 if instrument is None else _integer("instrument", instrument),
                0 if account is None else _integer("account", account),
            )
        )

    def send(self, command: "Command | bytes | bytearray | memoryview") -> Result:
        """Send a typed command of `ferrox.messages`, or a frame of 16 or 32 bytes, and return what it came to.

        Raise ValueError for a frame of another length, TypeError or ValueError for a field that does not fit its width.
        """
        sequence = self._sequence + 1
        time_ns = self._time_ns or sequence if self._clock is None else self._read_clock()
        whole = WHOLE_KINDS.get(type(command))
        if whole is not None:  # without the detour over a frame
            fields: Any = command
            try:
                record = _whole_record(sequence, time_ns, whole, COMMAND_SIZE, whole, *fields)
            except struct.error:
                _misfit(**fields._asdict())
            result = self._step(sequence, record)
            if whole == NEW_ORDER:
                self._use_id(int(fields.order_id))
            return result
        frame = command if type(command) is bytes else _frame(command)
        size = len(frame)
        if size not in (HALF_SIZE, COMMAND_SIZE):
            raise ValueError(f"a command has {HALF_SIZE} or {COMMAND_SIZE} bytes, this frame has {size}")
        kind = frame[0]
        if kind >= FIRST_ANNOTATION:
            _refuse_annotation(kind)
        result = self._step(sequence, _frame_record(sequence, time_ns, kind, size, frame))
        if kind == NEW_ORDER:
            self._use_id(_order_id_of(frame)[0])
        elif kind == DEFINE_INSTRUMENT and result:
            self._instruments.add(int.from_bytes(frame[4:8], "little"))
            self._settle()
        return result

    def _step(self, sequence: int, record: bytes) -> Result:
        """Cross the seam with one record, which the journal has first."""
        if self._journal is not None:
            record = self._journal.append(record)
        _, reports = self._apply(record)
        self._sequence = sequence
        frames = reports.tobytes()  # the view is valid until the next call only
        if self._watched:
            self._keep(frames)
        return Result(frames)

    def _keep(self, frames: bytes) -> None:
        """Keep the reports to a command for those who want them."""
        if self._tally is not None:
            held = self._held
            held.append(frames)
            if len(held) >= HELD_MAX or len(frames) > HELD_SIZE:
                self._count(b"")
                self._state_if_due()
        if self._backlog is not None:
            self._put_by(frames)

    def _put_by(self, frames: bytes) -> None:
        """Keep reports for the next look at a book, unless too many wait already."""
        assert self._backlog is not None
        self._backlog.append(frames)
        self._backlog_bytes += len(frames)
        if self._backlog_bytes > BACKLOG_BYTES:
            self._backlog = self._books = None
            self._watched = self._tally is not None

    def _watch(self, tally: Tally) -> None:
        """Count the reports from here on, to state them in the journal."""
        self._tally, self._watched = tally, True

    def _count(self, frames: bytes) -> None:
        """Count reports for the journal, with those that are held."""
        if self._tally is not None:
            self._tally.note(b"".join([*self._held, frames]))
            self._held.clear()

    def _state_if_due(self) -> None:
        """State in the journal what the engine has said, which moves the sequence number by one (JRN-21)."""
        if self._journal is None or self._tally is None or self._sequence < self._tally.due:
            return
        if self._journal.closed or self._journal.sequence != self._sequence:  # an engine failed, and said nothing
            return
        with suppress(DiskLow, JournalFailed):  # the command was written; the next one tells of it
            self._apply(self._journal.mark(*self._tally.statement(self._sequence)))
            self._sequence += 1
            self._tally.restart(self._sequence + 1, anchored=True)

    # --------------------------------------------------------------------------------------- whole arrays at once

    def apply(self, commands: Commands, *, time_ns: "ArrayLike | None" = None) -> Reports:
        """Apply many commands and return all their reports.

        `commands` is an array of `COMMAND_DTYPE` (`ferrox.new_orders` makes one) or of any other dtype of a command in
        `ferrox.messages`, or an iterable of typed commands and frames; or whole journal records, as an array of
        `RECORD_DTYPE` or in bytes, which bring their own sequence numbers and times.  `time_ns` is one time for all, or
        one for each of an array.  A clock is read once for every 65,536 commands.

        Raise ValueError or TypeError for what is none of this, and `SequenceError` for records that do not follow
        (DET-3); nothing of the chunk of 65,536 that is at fault has been applied then.
        """
        return Reports(b"".join([reports.frames for reports in self.stream(commands, time_ns=time_ns)]))

    def stream(self, commands: Commands, *, time_ns: "ArrayLike | None" = None) -> Iterator[Reports]:
        """Apply many commands as `apply` does, and give the reports of each 65,536 as soon as they are there.

        Memory stays constant.  What has not been asked for has not been applied.
        """
        if isinstance(commands, (bytes, bytearray, memoryview)):
            if len(commands) % RECORD_SIZE:
                raise ValueError(f"records come in whole frames of {RECORD_SIZE} bytes, these are {len(commands)}")
            commands = np.frombuffer(commands, RECORD_DTYPE)
        if not isinstance(commands, np.ndarray):
            return self._stream_iterable(commands, time_ns)
        if commands.dtype.names is None:
            raise TypeError(f"an array of commands has a dtype of ferrox.messages, this one has {commands.dtype}")
        if commands.ndim != 1:
            raise ValueError(f"an array of commands has one dimension, this one has {commands.ndim}")
        if commands.dtype == RECORD_DTYPE:
            if time_ns is not None:
                raise ValueError("records bring their own times; leave time_ns out")
            return self._stream_records(commands)
        return self._stream_array(commands, time_ns)

    def _stream_records(self, records: "NDArray[np.void]") -> Iterator[Reports]:
        """Apply records as they stand."""
        for start in range(0, len(records), CHUNK):
            chunk = records[start : start + CHUNK]
            first = self._sequence + 1
            follows = chunk["sequence"] == np.arange(first, first + len(chunk))
            if not follows.all():
                at = int(follows.argmin())
                raise SequenceError(
                    f"record {start + at} has sequence {int(chunk['sequence'][at])}, and {first + at} follows on this "
                    "venue; apply its commands instead (records['command']), or a venue of the right past"
                )
            yield self._batch(chunk, stating=False)  # what follows brings the sequence numbers that follow

    def _stream_array(self, commands: "NDArray[np.void]", time_ns: "ArrayLike | None") -> Iterator[Reports]:
        """Put a structured array of commands into records, a column at a time: padding may hold anything."""
        names = commands.dtype.names or ()
        unknown = [name for name in names if name not in PLACES]
        if unknown or "kind" not in names:
            fault = f"a field {unknown[0]!r}" if unknown else "no field 'kind'"
            raise TypeError(f"this array has {fault}; its fields are those of a command (ferrox.COMMAND_DTYPE)")
        times = None if time_ns is None else np.asarray(time_ns)
        if times is not None and times.shape not in ((), commands.shape):
            raise ValueError(f"there are {len(commands)} commands and times of shape {times.shape}")
        for start in range(0, len(commands), CHUNK):
            chunk = commands[start : start + CHUNK]
            records = self._blank_records(len(chunk), times if times is None or not times.ndim else times[start:])
            for name in names:
                if chunk.dtype[name].kind not in "iu":
                    raise TypeError(f"the field {name!r} is {chunk.dtype[name]}; the fields of a command are integers")
                assign(records["command"], PLACES[name], chunk[name])
            self._name_kinds(records)
            records["size"] = HALF_SIZE if chunk.dtype.itemsize == HALF_SIZE else SIZE_OF_KIND[records["kind"]]
            yield self._batch(records)

    def _stream_iterable(self, commands: "Iterable[Command | bytes]", time_ns: "ArrayLike | None") -> Iterator[Reports]:
        """Put typed commands and frames into records."""
        if np.ndim(time_ns if time_ns is not None else 0):
            raise ValueError("times one by one go with an array of commands; give one time for all")
        several = iter(commands)
        while frames := list(map(_frame, islice(several, CHUNK))):
            wrong = next((frame for frame in frames if len(frame) not in (HALF_SIZE, COMMAND_SIZE)), None)
            if wrong is not None:
                raise ValueError(f"a command has {HALF_SIZE} or {COMMAND_SIZE} bytes, this frame has {len(wrong)}")
            records = self._blank_records(len(frames), None if time_ns is None else np.asarray(time_ns))
            padded = b"".join([frame.ljust(COMMAND_SIZE, b"\0") for frame in frames])
            # As bytes, because a copy by fields would lose reserved bytes that are set (WIRE-4).
            records.view(np.uint8).reshape(-1, RECORD_SIZE)[:, 32:] = np.frombuffer(padded, np.uint8).reshape(-1, 32)
            self._name_kinds(records)
            records["size"] = [len(frame) for frame in frames]
            yield self._batch(records)

    def _name_kinds(self, records: "NDArray[np.void]") -> None:
        """Repeat the kinds of the commands in the envelopes (WIRE-7)."""
        kinds = records["command"]["kind"]
        if len(kinds) and kinds.max() >= FIRST_ANNOTATION:
            _refuse_annotation(int(kinds.max()))
        records["kind"] = kinds

    def _blank_records(self, count: int, times: "NDArray[Any] | None") -> "NDArray[np.void]":
        """Return records with their sequence numbers and times, and nothing else."""
        records = np.zeros(count, RECORD_DTYPE)
        records["sequence"] = np.arange(self._sequence + 1, self._sequence + 1 + count)
        if times is not None:
            times = times[:count] if times.ndim else times
            if times.dtype.kind not in "iu" or (count and not 0 <= times.min() <= times.max() <= WIDTHS["time_ns"][1]):
                raise ValueError("times are integers, nanoseconds from 0 to 2^62 (LIM-11)")
            records["time_ns"] = np.maximum(times, 1)
        elif self._clock is None and not self._time_ns:
            records["time_ns"] = records["sequence"]
        else:
            records["time_ns"] = self._time_ns if self._clock is None else self._read_clock()
        return records

    def _batch(self, records: "NDArray[np.void]", *, stating: bool = True) -> Reports:
        """Cross the seam with many records, as often as the engine stops early; then state what is due."""
        data, count, done = records.tobytes(), len(records), 0
        if self._journal is not None:
            data = self._journal.append(data)
        wanted = count
        parts: list[bytes] = []
        while done < count:
            given = min(wanted, count - done)
            part = data if given == count else data[done * RECORD_SIZE : (done + given) * RECORD_SIZE]
            taken, reports = self._apply(part)
            parts.append(reports.tobytes())
            self._sequence += taken
            done += taken
            if taken < given:  # an engine that stops early may do so again, and slices should stay small
                wanted = 2 * taken
        frames = parts[0] if len(parts) == 1 else b"".join(parts)
        self._note(records["command"], frames)
        if stating:
            self._state_if_due()
        return Reports(frames)

    def _note(self, commands: "NDArray[np.void]", frames: bytes) -> None:
        """Remember what a batch has used and defined, and its reports for the next look at a book."""
        kinds = commands["kind"]
        self._use_ids(commands["order_id"][kinds == NEW_ORDER])
        if (kinds == DEFINE_INSTRUMENT).any():
            defined = Reports(frames).where(kind=INSTRUMENT_DEFINED)
            self._instruments |= {int(number) for number in defined.instrument}
            self._settle()
        self._count(frames)
        if self._backlog is not None:
            self._put_by(frames)

    # --------------------------------------------------------------------------------------------- order ids, time

    def _use_id(self, order_id: int) -> None:
        """Note that an order id is used, so that the next free one of its account is above it."""
        account = order_id >> ACCOUNT_SHIFT
        if order_id >= self._free.get(account, 0):
            self._free[account] = order_id + 1

    def _use_ids(self, order_ids: "NDArray[np.int64]") -> None:
        """Note that many order ids are used; sorted, the greatest of an account stands last before the next account."""
        ids = np.sort(order_ids[order_ids > 0])
        if len(ids):
            lasts = np.append(np.flatnonzero(np.diff(ids >> ACCOUNT_SHIFT)), len(ids) - 1)
            for order_id in ids[lasts].tolist():
                self._use_id(order_id)

    def _instrument_of(self, order_id: Integer) -> int:
        """Return where an order rests, or the first instrument."""
        order = self.order(order_id)
        return order.instrument if order is not None else min(self._instruments, default=1)

    def _read_clock(self) -> int:
        assert self._clock is not None
        time_ns = operator.index(self._clock())
        if not 0 <= time_ns <= WIDTHS["time_ns"][1]:
            raise ValueError(f"the clock says {time_ns}; a time is in nanoseconds, from 0 to 2^62 (LIM-11)")
        return time_ns or 1

    @property
    def time_ns(self) -> int:
        """The time that the next commands carry, in nanoseconds; 0 for their own sequence numbers."""
        return self._time_ns

    @time_ns.setter
    def time_ns(self, time_ns: int) -> None:
        if self._clock is not None:
            raise UsageError("this venue has a clock, which gives the time of every command")
        time_ns = _integer("time_ns", time_ns)
        if not 0 <= time_ns <= WIDTHS["time_ns"][1]:
            raise ValueError(f"time_ns is {time_ns}; a time is in nanoseconds, from 0 to 2^62 (LIM-11)")
        self._time_ns = time_ns

    # ------------------------------------------------------------------------------------------------------ to look

    @property
    def engine(self) -> Engine:
        """The engine; records given to it directly are unknown to the venue, which then goes wrong."""
        return self._engine

    @property
    def sequence(self) -> int:
        """The sequence number of the last command, 0 before the first."""
        return self._sequence

    @property
    def books(self) -> Books:
        """The books as they are now (`ferrox.depth`); they move on when the venue is asked for them again."""
        if self._books is None or self._backlog is None:
            self._books = Books(unpack_state(self._engine.snapshot()))
        elif self._backlog:
            self._books.fold(b"".join(self._backlog))
        self._backlog, self._backlog_bytes = [], 0
        self._watched = True
        return self._books

    @property
    def instruments(self) -> list[DefineInstrument]:
        """The definitions, by ascending number, in their present trading states."""
        return self.books.definitions()

    def top(self, instrument: int = 1) -> Top:
        """Return the best bid and ask of an instrument with their quantities, L1; raise `UsageError` if undefined."""
        return self.books[instrument].top()

    def depth(self, instrument: int = 1, levels: int | None = None) -> Depth:
        """Return the best `levels` of both sides, or all, L2; raise `UsageError` if the instrument is undefined."""
        return self.books[instrument].depth(levels)

    def orders(self, instrument: int = 1) -> Orders:
        """Return every resting order in priority order, L3; raise `UsageError` if the instrument is undefined."""
        return self.books[instrument].orders()

    def order(self, order_id: Integer) -> RestingOrder | None:
        """Return an order as it rests now, or None when it does not rest."""
        return self.books.order(_integer("order_id", order_id))

    def queue_position(self, order_id: int) -> QueuePosition:
        """Return what stands ahead of a resting order at its price; raise `UsageError` when it does not rest."""
        order = self.order(order_id)
        return self.books[order.instrument if order else min(self._instruments, default=1)].queue_position(order_id)

    def state(self) -> State:
        """Return the whole state as values."""
        return unpack_state(self._engine.snapshot())

    def snapshot(self) -> bytes:
        """Return the whole state in canonical bytes (SNAP-1)."""
        return self._engine.snapshot()

    def digest(self) -> str:
        """Return the state digest: the SHA-256 of the snapshot (DET-7)."""
        return digest(self._engine.snapshot())

    # ---------------------------------------------------------------------------------------------------- to last

    @classmethod
    def from_snapshot(
        cls,
        snapshot: "bytes | str | os.PathLike[str]",
        engine: str = "reference",
        *,
        clock: Callable[[], int] | None = None,
    ) -> Self:
        """Return a venue that goes on from a snapshot, in bytes or in a file, whichever engine took it.

        The next free references are those above the resting orders'.  Raise `SnapshotCorrupt` when it breaks a rule.
        """
        if not isinstance(snapshot, bytes):
            snapshot = read_snapshot(snapshot)
        capacity = Capacity(1, 1)
        if len(snapshot) >= SNAPSHOT_HEADER.size and snapshot.startswith(STATE_MAGIC):  # else the engine says so
            fields = SNAPSHOT_HEADER.unpack_from(snapshot)
            try:
                capacity = Capacity(fields[6], fields[7])
            except ValueError as error:
                raise SnapshotCorrupt(f"the snapshot's capacities are beyond LIM-7 or LIM-8: {error}") from None
        made = make_engine(engine, capacity)
        made.restore(snapshot)
        venue = cls(made, clock=clock)
        venue._name = engine
        return venue

    @classmethod
    def load(
        cls,
        directory: "str | os.PathLike[str]",
        engine: str = "reference",
        *,
        until: int | None = None,
        read_only: bool = False,
        snapshots: bool = False,
        clock: Callable[[], int] | None = None,
    ) -> Self:
        """Return a venue that has replayed a journal, and goes on writing to it.

        With `until` it stops after that sequence number, and what follows is a branch in memory only, as it is with
        `read_only`; the directory is left untouched then.  `snapshots` begins at the newest snapshot that is kept in
        the directory, instead of the first record; where the first record is archived, that is the only way (JRN-20).
        What is damaged and could be passed over, a snapshot (SNAP-9) or a slot of the commit mark (JRN-13), is told as
        a RuntimeWarning.  Raise `UsageError` when there is no journal or
        another process writes to it, `CorruptInput` when it is damaged, `NotDeterministic` when the engine says
        something else than the journal states of the one that ran with it (JRN-21).
        """
        check_name(engine)
        if until is not None and (until := _integer("until", until)) < 0:
            raise UsageError(f"until is a sequence number, from 0, not {until}")
        with Reading(directory) as reading:
            reading.load()
            header, told = reading.segments[0].header, reading.warnings
        venue = cls(engine, orders=header.order_capacity, instruments=header.instrument_capacity, clock=clock)
        if snapshots or header.base_sequence > 1:
            latest = latest_snapshot(directory, header.uuid, until)
            told += latest.warnings
            if latest.path:
                venue = cls.from_snapshot(latest.state, engine, clock=clock)
        # Opening begins a segment, so whatever can be wrong with the call has been found by now.
        journal = None if read_only or until is not None else Journal.open(directory)
        try:
            with Reading(directory) as reading:  # again: opening has cut off a torn tail
                reading.load()
                tally = Tally(venue.sequence + 1)
                for records in reading.batches(venue.sequence + 1, until, CHUNK):
                    for part in parts(records):
                        tally.note(venue._batch(np.frombuffer(part, RECORD_DTYPE)).frames)  # noqa: SLF001
                        tally.compare(part)
            if journal is not None:
                venue._journal = journal  # noqa: SLF001
                venue._watch(tally)  # noqa: SLF001
            if until is None and venue.sequence <= reading.durable:
                venue._origin = header.uuid, venue.sequence  # noqa: SLF001
            for warning in told:
                warnings.warn(warning, RuntimeWarning, stacklevel=2)
        except BaseException:
            if journal is not None:
                journal.close()
            raise
        return venue

    @property
    def journal(self) -> Journal | None:
        """The journal that is being written, or None."""
        return self._journal

    def sync(self) -> None:
        """Return when every command so far is on disk; without a journal there is nothing to do."""
        if self._journal is not None:
            self._journal.sync()

    def save_snapshot(self, directory: "str | os.PathLike[str] | None" = None) -> Path:
        """Write the state as `SEQUENCE.snapshot`, beside the journal or into a directory, and return its path.

        It names the journal that led to the state: the one that is written, or the one that was loaded, if no command
        of its own came since.  Raise `UsageError` when there is neither journal nor directory, and when the directory
        holds a journal that does not have this state on disk: another one, or one that this is a branch of.
        """
        uuid, end = self._origin
        if self._journal is not None:
            if not self._journal.closed:
                self._journal.sync()
            uuid, end = self._journal.uuid, min(self._journal.durable, self._sequence)
        if end != self._sequence:
            uuid = bytes(16)  # a snapshot never knows more than the journal on disk (SNAP-10)
        if directory is None:
            if self._journal is None:
                raise UsageError("this venue has no journal to keep the snapshot beside; name a directory")
            directory = self._journal.directory
        _check_place(directory, uuid, self._sequence)
        return write_snapshot(directory, self.snapshot(), uuid)

    def close(self) -> None:
        """Sync and seal the journal, if there is one; the venue can still be looked at.

        The SEAL is a record, which moves the venue's sequence number as it moves that of every replay.
        """
        if self._journal is None:
            return
        seal = self._journal.close()
        if seal and self._journal.sequence == self._sequence + 1:  # else an engine failed after its command was written
            self._apply(seal)
            self._sequence += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def branch(self, engine: str | None = None) -> Self:
        """Return a second venue that goes on from here by itself, in memory: what if?  It may have another engine."""
        name = engine or (self._name if self._name in ENGINES else "reference")
        venue = type(self).from_snapshot(self._engine.snapshot(), name, clock=self._clock)
        venue._time_ns, venue._free = self._time_ns, dict(self._free)  # noqa: SLF001
        return venue

    def __repr__(self) -> str:
        fields = SNAPSHOT_HEADER.unpack_from(self._engine.snapshot())
        instruments, orders = fields[8], fields[9]
        return (
            f"<Venue {self._name}: {instruments:,} instrument{'' if instruments == 1 else 's'}, "
            f"{orders:,} order{'' if orders == 1 else 's'}, sequence {self._sequence:,}"
            f"{f', journal {self._journal.directory}' if self._journal is not None else ''}>"
        )


# ------------------------------------------------------------------------------------------ what cannot be taken


def _check_clock(clock: object) -> None:
    """Raise TypeError for a clock that cannot be called."""
    if clock is not None and not callable(clock):
        raise TypeError(f"clock is a function that returns nanoseconds, not {clock!r} ({type(clock).__name__})")


def _check_place(directory: "str | os.PathLike[str]", uuid: bytes, sequence: int) -> None:
    """Raise `UsageError` when a directory holds a journal that does not have this state on disk."""
    place = Path(directory)
    if not (place / MARK_NAME).exists() and not any(place.glob("*.wal")):
        return
    with Reading(directory) as reading:
        reading.load()
    if reading.mark.uuid != uuid or sequence > reading.durable:
        raise UsageError(
            f"{directory}: the journal that is kept here does not have this state on disk; name another directory, "
            "or load that journal without until, and save before any command"
        )


# ------------------------------------------------------------------------------------------ what no frame says


def _term(terms: "type[Side | TimeInForce | SelfTrade | TradingState | Limit]", value: object, what: str) -> int:
    """Return the number of a term that fits its byte; what the number means is the engine's to judge."""
    number = term_of(terms, value, what)
    low, high = WIDTHS[what]
    if not low <= number <= high:
        raise ValueError(f"{what} {number} does not fit its field, {low} .. {high}")
    return number


def _options(
    market: bool, time_in_force: TimeInForceLike | None, post_only: bool, slide: bool, self_trade: SelfTradeLike
) -> int:
    """Return time in force and flags at their places in the first four bytes of an order."""
    if time_in_force is None:
        code = IOC if market else GTC
    else:
        known = TIMES_IN_FORCE.get(time_in_force) if isinstance(time_in_force, (int, str)) else None
        code = _term(TimeInForce, time_in_force, "time_in_force") if known is None else known
    known = SELF_TRADES.get(self_trade) if isinstance(self_trade, (int, str)) else None
    mode = _term(SelfTrade, self_trade, "self_trade") if known is None else known
    flags = mode << SELF_TRADE_SHIFT
    if market:
        flags |= MARKET
    if post_only:
        flags |= POST_ONLY
    if slide:
        flags |= SLIDE
    return code << 16 | flags << 24


def _frame(command: object) -> bytes:
    """Return the frame of whatever says a command; raise TypeError or ValueError that names what is wrong with it."""
    if isinstance(command, (bytes, bytearray, memoryview)):
        return bytes(command)
    if not isinstance(
        command, (NewOrder, ReplaceOrder, CancelOrder, MassCancel, DefineInstrument, SetTradingState, SetLimit)
    ):
        raise TypeError(f"a command is one of ferrox.messages or a frame in bytes, this is {command!r}")
    try:
        return command.pack()
    except struct.error:
        _misfit(**command._asdict())


def _integer(name: str, value: object) -> int:
    """Return a value as an integer, or raise the error that names it."""
    try:
        return int(operator.index(value))  # type: ignore[arg-type]  # what has no index raises, and is told
    except TypeError:
        _misfit(**{name: value})


def _misfit(**fields: object) -> NoReturn:
    """Raise the error that names the first of these fields that does not fit the wire."""
    for name, value in fields.items():
        try:
            number = operator.index(value)  # type: ignore[arg-type]  # what has no index raises, and is told
        except TypeError:
            unit = {"price": "a whole number of ticks", "quantity": "a whole number of lots"}.get(name, "an integer")
            raise TypeError(f"{name} is {unit}, not {value!r} ({type(value).__name__})") from None
        low, high = WIDTHS[name]
        if not low <= number <= high:
            raise ValueError(f"{name} {number} does not fit its field, {low} .. {high}") from None
    raise AssertionError(f"every field fits: {fields}")


def _refuse_annotation(kind: int) -> NoReturn:
    """Raise: an engine would pass over such a record without a report (DET-8)."""
    raise ValueError(f"command kind {kind} is the journal's own; those of commands are below {FIRST_ANNOTATION}")
