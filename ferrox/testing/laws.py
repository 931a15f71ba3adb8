"""The laws of matching, and an auditor that holds any engine's reports against them.

The auditor does not match.  It keeps a naive list of the orders that the *reports* say are resting, oldest first, and
asks of each report whether it was allowed to happen: did a better price or an older order rest when this trade was
made, was the price the maker's, is nothing left that should have traded?  A list that is searched from end to end for
every question is slow and hard to get wrong; it shares no code with an engine.  The reasons of rejects.md stand here as
two tables of (reason, when), and the smallest that applies is the one an engine must give.

    check_laws(records, reports)                    from an empty engine, all laws
    check_laws(records, reports, after=snapshot)    and the state it came to
    Auditor(capacity).audit(records, reports)       step by step, for streams that go on
    check_conservation(reports)                     what the reports alone can show
    check_splits(make, records, sizes)              DET-2, and check_restart for DET-5

A broken law raises `LawBroken`, which names the rule, the command and its reports.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from attrs import define

from ferrox.engine import Capacity, Engine
from ferrox.messages import COMMAND, COMMAND_SIZE, RECORD, RECORD_SIZE, Report, unpack_reports
from ferrox.state import SNAPSHOT_HEADER, SNAPSHOT_ORDER
from ferrox.terms import (
    RULES_VERSION,
    TIME_MAX,
    Annotation,
    CommandKind,
    Limit,
    OrderFlag,
    Reason,
    ReportFlag,
    ReportKind,
    Scope,
    SelfTrade,
    Side,
    TimeInForce,
    TradingState,
)
from ferrox.testing.sessions import apply_all
from ferrox.text import format_command, format_report

# Plain integers: a member of an enum costs a look-up on every report.
NEW_ORDER, CANCEL_ORDER, REPLACE_ORDER, MASS_CANCEL, DEFINE_INSTRUMENT = map(int, list(CommandKind)[:5])
SET_TRADING_STATE, SET_LIMIT = map(int, list(CommandKind)[5:])
NEW, TRADE, CANCELED, REPLACED, EXPIRED, REJECTED, CANCEL_REJECTED, REPLACE_REJECTED = map(int, list(ReportKind)[:8])
MASS_CANCELED, INSTRUMENT_DEFINED, STATE_CHANGED, LIMIT_SET = map(int, list(ReportKind)[8:])
AGGRESSOR, PRIORITY_KEPT, SLID, LAST = map(int, ReportFlag)
ALLOW, CANCEL_TAKER, CANCEL_MAKER, CANCEL_BOTH, DECREMENT = map(int, SelfTrade)
GTC, IOC, FOK = map(int, TimeInForce)
BUY, SELL = map(int, Side)
PRE_OPEN, OPEN = int(TradingState.PRE_OPEN), int(TradingState.OPEN)
MARKET, POST_ONLY, SLIDE = map(int, OrderFlag)
OF_ORDERS: Final = (NEW_ORDER, REPLACE_ORDER)


class LawBroken(AssertionError):
    """An engine that broke a law: the rule, what is wrong, the command and its reports."""


class Given(NamedTuple):
    """A command as it came: the kind and size of its record's envelope, then the common shape of all commands."""

    envelope_kind: int
    size: int
    kind: int
    a: int
    b: int
    c: int
    instrument: int
    ident: int
    price: int
    quantity: int
    display: int

    @property
    def mode(self) -> int:
        """The self-trade mode of an order."""
        return self.c >> 4 & 7


# ------------------------------------------------------------------------------ the reasons of the frame (decode)

FRAME_SIZES: Final = {
    NEW_ORDER: 32,
    CANCEL_ORDER: 16,
    REPLACE_ORDER: 32,
    MASS_CANCEL: 16,
    DEFINE_INSTRUMENT: 32,
    SET_TRADING_STATE: 16,
    SET_LIMIT: 32,
}
RESERVED: Final = {
    NEW_ORDER: (),
    CANCEL_ORDER: ("a", "b", "c", "price", "quantity", "display"),
    REPLACE_ORDER: (),
    MASS_CANCEL: ("b", "c", "price", "quantity", "display"),
    DEFINE_INSTRUMENT: ("b", "c"),
    SET_TRADING_STATE: ("b", "c", "ident", "price", "quantity", "display"),
    SET_LIMIT: ("b", "c", "quantity", "display"),
}
"""Fields of the shape that are zero in each kind (WIRE-2, WIRE-4)."""
VALUE_BITS: Final[dict[int, int]] = {
    Limit.KILL: 1,
    Limit.MAX_QUANTITY: 31,
    Limit.MAX_NOTIONAL: 62,
    Limit.COLLAR: 40,
    Limit.MAX_OPEN_ORDERS: 31,
    Limit.MAX_EXPOSURE: 62,
    Limit.ORDER_RATE: 31,
    Limit.CANCEL_RATE: 31,
}
"""Each limit, and how many bits its value may have."""


def _bad_flags(given: Given) -> bool:
    post_only, slide, market = given.c & POST_ONLY, given.c & SLIDE, given.c & MARKET
    return bool(
        given.c & 0b1000_1000
        or given.mode > DECREMENT
        or (post_only and (market or given.b != GTC))
        or (slide and not post_only)
        or (market and given.kind == REPLACE_ORDER)
    )


def _bad_instrument(given: Given) -> bool:
    in_range = 1 <= given.instrument <= 2**20 - 1
    if given.kind == SET_LIMIT:
        takes_one = given.a in (Limit.KILL, Limit.COLLAR) or given.a not in VALUE_BITS
        return given.instrument != 0 and not (takes_one and in_range)
    if given.kind != MASS_CANCEL or given.a in (Scope.INSTRUMENT, Scope.ACCOUNT_IN_INSTRUMENT):
        return not in_range
    if given.a in (Scope.ACCOUNT, Scope.VENUE):
        return given.instrument != 0
    return not (in_range or given.instrument == 0)


def _bad_account(given: Given) -> bool:
    if given.kind == SET_LIMIT:
        takes_none = given.a == Limit.COLLAR or (given.a == Limit.KILL and given.instrument != 0)
        return not 0 <= given.ident <= (0 if takes_none else 2**23 - 1)
    if given.a in (Scope.ACCOUNT, Scope.ACCOUNT_IN_INSTRUMENT):
        return not 0 <= given.ident <= 2**23 - 1
    return given.ident != 0


REASONS_OF_FRAME: Final[tuple[tuple[Reason, tuple[int, ...], Callable[[Given], bool]], ...]] = (
    (
        Reason.MALFORMED,
        tuple(FRAME_SIZES),
        lambda given: (
            given.size != FRAME_SIZES[given.kind]
            or given.envelope_kind != given.kind
            or any(getattr(given, name) for name in RESERVED[given.kind])
        ),
    ),
    (Reason.BAD_SIDE, OF_ORDERS, lambda given: given.a not in (1, 2)),
    (
        Reason.BAD_TIME_IN_FORCE,
        OF_ORDERS,
        lambda given: given.b not in (1, 2, 3) or (given.kind == REPLACE_ORDER and given.b != GTC),
    ),
    (Reason.BAD_TIME_IN_FORCE, (NEW_ORDER,), lambda given: bool(given.c & MARKET) and given.b == GTC),
    (Reason.BAD_FLAGS, OF_ORDERS, _bad_flags),
    (Reason.BAD_INSTRUMENT, tuple(FRAME_SIZES), _bad_instrument),
    (Reason.BAD_ORDER_ID, (*OF_ORDERS, CANCEL_ORDER), lambda given: not 1 <= given.ident <= 2**63 - 1),
    (
        Reason.BAD_PRICE,
        OF_ORDERS,
        lambda given: abs(given.price) > 2**40 - 1 or (bool(given.c & MARKET) and given.price != 0),
    ),
    (Reason.BAD_QUANTITY, OF_ORDERS, lambda given: not 1 <= given.quantity <= 2**31 - 1),
    (Reason.BAD_DISPLAY, OF_ORDERS, lambda given: given.display != 0),
    (Reason.BAD_SCOPE, (MASS_CANCEL,), lambda given: given.a not in (1, 2, 3, 4)),
    (Reason.BAD_ACCOUNT, (MASS_CANCEL, SET_LIMIT), _bad_account),
    (Reason.BAD_TICK, (DEFINE_INSTRUMENT,), lambda given: not 1 <= given.quantity <= 2**31 - 1),
    (Reason.BAD_LOT, (DEFINE_INSTRUMENT,), lambda given: not 1 <= given.display <= 2**31 - 1),
    (
        Reason.BAD_BAND,
        (DEFINE_INSTRUMENT,),
        lambda given: abs(given.ident) > 2**40 - 1 or abs(given.price) > 2**40 - 1 or given.ident > given.price,
    ),
    (Reason.BAD_STATE, (DEFINE_INSTRUMENT, SET_TRADING_STATE), lambda given: given.a not in (1, 2, 3, 4)),
    (Reason.BAD_LIMIT, (SET_LIMIT,), lambda given: given.a not in VALUE_BITS),
    (
        Reason.BAD_VALUE,
        (SET_LIMIT,),
        lambda given: given.a in VALUE_BITS and not 0 <= given.price < 2 ** VALUE_BITS[given.a],
    ),
)
"""Each reason of the frame alone, the kinds it can meet, and when it applies: REJECT-2 .. REJECT-18, as they read."""


def reasons_of_frame(given: Given) -> list[Reason]:
    """Return every reason against a frame, in order of precedence; UNKNOWN_KIND leaves no room for another."""
    if given.kind not in FRAME_SIZES:
        return [Reason.UNKNOWN_KIND]
    return sorted({reason for reason, kinds, applies in REASONS_OF_FRAME if given.kind in kinds and applies(given)})


# -------------------------------------------------------------------------------------------------- the auditor


@define
class Standing:
    """An order as the reports have told it so far."""

    order_id: int
    instrument: int
    side: int
    price: int
    leaves: int
    filled: int = 0

    @property
    def account(self) -> int:
        """The high 23 bits of the id (LIM-4)."""
        return self.order_id >> 40


@define
class Listing:
    """An instrument as the reports have told it so far."""

    state: int
    low: int
    high: int
    tick: int
    lot: int


class Auditor:
    """What an engine has said so far, and the judge of what it says next."""

    def __init__(self, capacity: Capacity | None = None, snapshot: bytes | None = None) -> None:
        """Begin with an empty engine of a capacity, or with the state and the capacities that a snapshot says."""
        capacity = capacity or Capacity()
        self.order_capacity, self.instrument_capacity = capacity.orders, capacity.instruments
        self.sequence = self.time_ns = 0
        self.instruments: dict[int, Listing] = {}
        self.standing: list[Standing] = []
        """Every resting order of the venue; at one price, the one that has its place longer comes first."""
        self.given = Given(*(0,) * 11)
        self.reports: list[Report] = []
        if snapshot is not None:
            self._read(snapshot)

    def audit(self, records: bytes, reports: bytes) -> None:
        """Judge the reports that an engine gave to records that follow those before; raise `LawBroken`."""
        unpacked = unpack_reports(reports)
        place = 0
        for _, _, sequence, time_ns, envelope_kind, size, _, _, *shape in RECORD.iter_unpack(records):
            self.given = Given(envelope_kind, size, *shape)
            start = place
            while place < len(unpacked) and unpacked[place].sequence == sequence:
                place += 1
            self.reports = unpacked[start:place]
            self._law("DET-3", sequence == self.sequence + 1, f"record {sequence} was taken after {self.sequence}")
            self.sequence = sequence
            if self.time_ns < time_ns <= TIME_MAX:
                self.time_ns = time_ns
            if envelope_kind in (Annotation.MARK, Annotation.SEAL) and size == 0:
                self._law("DET-8", not self.reports, "an annotation gives no report")
            else:
                self._law("REPORT-1", self.reports, "every command gives at least one report")
                lasts = [bool(report.flags & LAST) for report in self.reports]
                self._law("REPORT-4", lasts == [False] * (len(lasts) - 1) + [True], "exactly the last report says LAST")
                self._judge()
        if place < len(unpacked):
            raise LawBroken(
                f"REPORT-2: report {place} of {len(unpacked)} is of sequence {unpacked[place].sequence}, "
                f"which is not the next command's: {unpacked[place]}"
            )

    def snapshot(self) -> bytes:
        """Return the only snapshot that an engine which said all this can have (SNAP-1 .. SNAP-4, DET-4)."""
        parts = [
            SNAPSHOT_HEADER.pack(
                b"FRXSTATE",
                1,
                RULES_VERSION,
                0,
                self.sequence,
                self.time_ns,
                self.order_capacity,
                self.instrument_capacity,
                len(self.instruments),
                len(self.standing),
            )
        ]
        for number, listing in sorted(self.instruments.items()):
            parts.append(
                COMMAND.pack(
                    DEFINE_INSTRUMENT,
                    listing.state,
                    0,
                    0,
                    number,
                    listing.low,
                    listing.high,
                    listing.tick,
                    listing.lot,
                )
            )
        parts += [
            SNAPSHOT_ORDER.pack(order.order_id, order.price, order.leaves, order.filled, order.instrument, order.side)
            for order in self._canonical(self.standing)
        ]
        return b"".join(parts)

    def check_snapshot(self, snapshot: bytes) -> None:
        """Raise `LawBroken` when an engine's state is not the one that its reports tell."""
        if snapshot != self.snapshot():
            raise LawBroken(
                f"SNAP-1 .. SNAP-4: the state at sequence {self.sequence} is not what the reports tell:\n"
                f"  told   {self.snapshot().hex(' ', 32)}\n  stored {snapshot.hex(' ', 32)}"
            )

    # ------------------------------------------------------------------------------------------- one command

    def _judge(self) -> None:
        """Judge the reports of one command: a reject that is due, or what its kind does."""
        given, first = self.given, self.reports[0]
        reason = self._reason()
        if reason:
            kind = {CANCEL_ORDER: CANCEL_REJECTED, REPLACE_ORDER: REPLACE_REJECTED}.get(given.kind, REJECTED)
            without = given.kind in (MASS_CANCEL, DEFINE_INSTRUMENT, SET_TRADING_STATE, SET_LIMIT)
            self._is(first, "REJECT-0", kind, 0 if without else given.ident, reason=reason)
            self._law("REPORT-2", len(self.reports) == 1, "a reject stands alone")
        elif given.kind == NEW_ORDER:
            self._new()
        elif given.kind == CANCEL_ORDER:
            self._law("REPORT-2", len(self.reports) == 1, "a cancel has one report")
            self._canceled(first, "CANCEL-1", self._order(given.ident), 0)
        elif given.kind == REPLACE_ORDER:
            self._replace()
        elif given.kind == MASS_CANCEL:
            self._mass_cancel()
        elif given.kind == SET_LIMIT:
            self._law("REPORT-2", len(self.reports) == 1, "a limit has one report")
            self._is(first, "LIMIT-1", LIMIT_SET, given.ident << 40, given.price, side=given.a)
        else:
            self._law("REPORT-2", len(self.reports) == 1, "an instrument's change has one report")
            if given.kind == DEFINE_INSTRUMENT:
                low, high, tick, lot = given.ident, given.price, given.quantity, given.display
                self._is(first, "INSTR-1", INSTRUMENT_DEFINED, 0, high, low, tick, lot, given.a)
                self.instruments[given.instrument] = Listing(given.a, low, high, tick, lot)
            else:
                self._is(first, "STATE-4", STATE_CHANGED, 0, side=given.a)
                self.instruments[given.instrument].state = given.a

    def _reason(self) -> int:
        """Return the smallest reason against the command in the present state, or 0 (REJECT-0)."""
        of_frame = reasons_of_frame(self.given)
        if of_frame:
            return of_frame[0]
        return min((reason for reason, applies in REASONS_OF_STATE if applies(self, self.given)), default=0)

    def _new(self) -> None:
        """Judge a new order: entered at its price, or slid; then what it did as a taker (NEW-1)."""
        given, first = self.given, self.reports[0]
        price = self._entry_price()
        slid = SLID if price != given.price else 0
        self._is(first, "NEW-1", NEW, given.ident, 0, price, given.quantity, given.quantity, given.a, 0, slid)
        taker = Standing(given.ident, given.instrument, given.a, price, given.quantity)
        fillable = self._fillable(taker) if given.b == FOK else 0
        if given.b == FOK and fillable < given.quantity:
            self._law("TIF-3", len(self.reports) == 2, "a fill-or-kill order that cannot be filled only expires")
            self._law("TIF-3", self.reports[1].kind == EXPIRED, "a fill-or-kill order that cannot be filled expires")
        elif given.b == FOK:
            traded = sum(report.quantity for report in self.reports if report.kind == TRADE)
            self._law(
                "TIF-3", traded == given.quantity, f"a fill-or-kill order that can be filled trades whole: {traded}"
            )
        self._follow(taker, given.b)

    def _replace(self) -> None:
        """Judge a replace: the rest canceled, the place kept, or a new entry (RPL-3 .. RPL-5)."""
        given, first = self.given, self.reports[0]
        order = self._order(given.ident)
        leaves = given.quantity - order.filled
        if leaves <= 0:
            self._law("REPORT-2", len(self.reports) == 1, "a total already filled has one report")
            self._canceled(first, "RPL-3", order, Reason.TOTAL_FILLED)
        elif given.price == order.price and leaves <= order.leaves:
            self._law("RPL-4", len(self.reports) == 1, "an order that keeps its place has one report")
            self._is(
                first,
                "RPL-4",
                REPLACED,
                given.ident,
                0,
                order.price,
                given.quantity,
                leaves,
                order.side,
                0,
                PRIORITY_KEPT,
            )
            order.leaves = leaves
        else:
            price = self._entry_price()
            slid = SLID if price != given.price else 0
            self._is(first, "RPL-5", REPLACED, given.ident, 0, price, given.quantity, leaves, order.side, 0, slid)
            self.standing.remove(order)
            self._follow(Standing(given.ident, given.instrument, order.side, price, leaves, order.filled), GTC)

    def _mass_cancel(self) -> None:
        """Judge a mass cancel: every order of its scope, in canonical order, then their count (MASS-1, MASS-2)."""
        given = self.given
        of_account = given.a in (Scope.ACCOUNT, Scope.ACCOUNT_IN_INSTRUMENT)
        scope = [
            order
            for order in self._canonical(self.standing)
            if given.instrument in (0, order.instrument) and (not of_account or order.account == given.ident)
        ]
        told = [report.order_id for report in self.reports[:-1]]
        self._law(
            "MASS-1", sorted(told) == sorted(order.order_id for order in scope), "exactly the orders of the scope"
        )
        self._law("MASS-2", told == [order.order_id for order in scope], "orders leave in canonical order")
        for report, order in zip(self.reports, scope, strict=False):
            self._canceled(report, "MASS-1", order, Reason.MASS_CANCEL)
        account = given.ident if of_account else 0
        self._is(self.reports[-1], "MASS-2", MASS_CANCELED, account << 40, quantity=len(scope), side=given.a)

    # --------------------------------------------------------------------------------------------- the taker

    def _follow(self, taker: Standing, time_in_force: int) -> None:
        """Ask of each report of a taker whether it was allowed, and at the end whether anything is missing."""
        owed: Report | None = None  # the maker's cancel after which the taker's own is due (STP-5, STP-6)
        for report in self.reports[1:]:
            self._law("MATCH-1", taker.leaves > 0, f"{report} comes when nothing of the taker is left")
            if owed is not None:
                self._taker_canceled(report, taker, owed)
                owed = None
            elif report.kind == TRADE:
                self._trade(report, taker)
            elif report.kind == EXPIRED:
                self._expired(report, taker, time_in_force)
            else:
                self._law("REPORT-2", report.kind == CANCELED, f"{report} cannot follow an order's entry")
                owed = self._self_trade(report, taker)
        self._law("STP-5", owed is None, "the taker's own cancel is due after the maker's")
        if taker.leaves:
            rule = "MATCH-1" if time_in_force == GTC else "TIF-2"
            self._law(rule, self._first_maker(taker) is None, f"{taker} ends while an order rests that it could meet")
            self._law("TIF-2", time_in_force == GTC, f"{taker} may not rest")
            self.standing.append(taker)

    def _trade(self, report: Report, taker: Standing) -> None:
        """Judge one trade by the book as it is before it (MATCH-1 .. MATCH-4)."""
        maker = self._order(report.contra_id, "MATCH-4")
        rivals = self._opposite(taker)
        self._law("MATCH-7", maker in rivals, f"{maker} is on the opposite side of the same book")
        better = [order for order in rivals if self._rank(order) < self._rank(maker)]
        older = [order for order in rivals if order.price == maker.price]
        self._law("MATCH-1", not better, f"{better[:1]} has a better price than {maker}")
        self._law("MATCH-2", older[0] is maker, f"{older[0]} has its place longer than {maker}")
        self._law("MATCH-1", self._within(taker, maker.price), f"{maker} is beyond the limit of {taker}")
        self._law("MATCH-3", report.price == maker.price, f"a trade happens at the price of {maker}")
        self._law("STP-2", not self._own(taker, maker), f"{maker} is of the taker's own account")
        quantity = min(taker.leaves, maker.leaves)
        taker.leaves -= quantity
        taker.filled += quantity
        maker.leaves -= quantity
        maker.filled += quantity
        self._is(
            report,
            "MATCH-3",
            TRADE,
            taker.order_id,
            maker.order_id,
            maker.price,
            quantity,
            taker.leaves,
            taker.side,
            flags=AGGRESSOR,
        )
        if not maker.leaves:
            self.standing.remove(maker)

    def _expired(self, report: Report, taker: Standing, time_in_force: int) -> None:
        """Judge an expiry: the order may not rest, and met nothing more or could not be filled (TIF-2, TIF-3)."""
        self._law("TIF-1", time_in_force != GTC, "a good-till-canceled order does not expire")
        if time_in_force == IOC:
            left = self._first_maker(taker)
            self._law("TIF-2", left is None, f"{taker} expires while {left} rests within its limit")
        self._is(report, "TIF-2", EXPIRED, taker.order_id, 0, taker.price, taker.leaves, 0, taker.side)
        taker.leaves = 0

    def _self_trade(self, report: Report, taker: Standing) -> Report | None:
        """Judge the cancel that an own maker brings; return it when the taker's is due after it (STP-2 .. STP-6)."""
        maker = self._first_maker(taker)
        mode = self.given.mode
        if maker is None or not self._own(taker, maker):
            raise self._broken("STP-2", f"{taker} meets no order of its own account, it meets {maker}")
        if mode == CANCEL_TAKER:
            self._is(
                report,
                "STP-3",
                CANCELED,
                taker.order_id,
                maker.order_id,
                taker.price,
                taker.leaves,
                0,
                taker.side,
                Reason.SELF_TRADE,
            )
            taker.leaves = 0
            return None
        quantity = min(maker.leaves, taker.leaves) if mode == DECREMENT else maker.leaves
        maker.leaves -= quantity
        rule = {CANCEL_MAKER: "STP-4", CANCEL_BOTH: "STP-5", DECREMENT: "STP-6"}[mode]
        self._is(
            report,
            rule,
            CANCELED,
            maker.order_id,
            taker.order_id,
            maker.price,
            quantity,
            maker.leaves,
            maker.side,
            Reason.SELF_TRADE,
        )
        if not maker.leaves:
            self.standing.remove(maker)
        return None if mode == CANCEL_MAKER else report

    def _taker_canceled(self, report: Report, taker: Standing, owed: Report) -> None:
        """Judge the second half of *cancel-both* and of *decrement* (STP-5, STP-6)."""
        rule, quantity = ("STP-6", owed.quantity) if self.given.mode == DECREMENT else ("STP-5", taker.leaves)
        taker.leaves -= quantity
        self._is(
            report,
            rule,
            CANCELED,
            taker.order_id,
            owed.order_id,
            taker.price,
            quantity,
            taker.leaves,
            taker.side,
            Reason.SELF_TRADE,
        )

    # --------------------------------------------------------------------------------------------- questions

    def _order(self, order_id: int, rule: str = "CANCEL-1") -> Standing:
        """Return the resting order of an id."""
        for order in self.standing:
            if order.order_id == order_id:
                return order
        raise self._broken(rule, f"no order {order_id} rests")

    def _opposite(self, taker: Standing) -> list[Standing]:
        """Return the orders on the other side of the taker's book, in order of age at each price."""
        return [order for order in self.standing if order.instrument == taker.instrument and order.side != taker.side]

    def _within(self, taker: Standing, price: int) -> bool:
        """Say whether a price is at least as good as the taker's limit (MATCH-1, MARKET-1)."""
        if self.given.kind == NEW_ORDER and self.given.c & MARKET:
            return True
        return price <= taker.price if taker.side == BUY else price >= taker.price

    def _first_maker(self, taker: Standing) -> Standing | None:
        """Return the order that the taker meets next, or None."""
        rivals = [order for order in self._opposite(taker) if self._within(taker, order.price)]
        return min(rivals, key=self._rank, default=None)  # of equals the first, which is the oldest

    def _own(self, taker: Standing, maker: Standing) -> bool:
        """Say whether the taker's mode forbids it to trade with this maker (STP-1, STP-2)."""
        return self.given.mode != ALLOW and taker.account == maker.account

    def _fillable(self, taker: Standing) -> int:
        """Return how much of a fill-or-kill order could trade (TIF-3, TIF-4)."""
        quantity = 0
        for maker in sorted(self._opposite(taker), key=self._rank):
            if not self._within(taker, maker.price):
                break
            if not self._own(taker, maker):
                quantity += maker.leaves
            elif self.given.mode != CANCEL_MAKER:
                break
        return quantity

    def _entry_price(self) -> int:
        """Return the price at which the command's order enters: its own, or one tick behind the touch (POST-2)."""
        given = self.given
        touch = self._touch(given)
        if touch is None or not given.c & SLIDE:
            return given.price
        tick = self.instruments[given.instrument].tick
        return touch - tick if given.a == BUY else touch + tick

    def _touch(self, given: Given) -> int | None:
        """Return the best opposite price if the command's order would trade with it at once, else None."""
        taker = Standing(given.ident, given.instrument, given.a, given.price, given.quantity)
        maker = self._first_maker(taker)
        return None if maker is None else maker.price

    @staticmethod
    def _rank(order: Standing) -> int:
        """Return a number that is the smaller, the better the order's price."""
        return -order.price if order.side == BUY else order.price

    def _canonical(self, orders: Iterable[Standing]) -> list[Standing]:
        """Return orders as SNAP-2 and MASS-2 have them: by instrument, side, price, age."""
        return sorted(orders, key=lambda order: (order.instrument, order.side, self._rank(order)))

    # ---------------------------------------------------------------------------------------------- verdicts

    def _canceled(self, report: Report, rule: str, order: Standing, reason: int) -> None:
        """Judge the cancel of a resting order, which is gone then."""
        self._is(
            report,
            rule,
            CANCELED,
            order.order_id,
            0,
            order.price,
            order.leaves,
            0,
            order.side,
            reason,
            instrument=order.instrument,
        )
        self.standing.remove(order)

    def _is(
        self,
        report: Report,
        rule: str,
        kind: int,
        order_id: int,
        contra_id: int = 0,
        price: int = 0,
        quantity: int = 0,
        leaves: int = 0,
        side: int = 0,
        reason: int = 0,
        flags: int = 0,
        instrument: int | None = None,
    ) -> None:
        """Compare a whole report, all but LAST, with the fields that REPORT-3 gives it."""
        due = Report(
            self.sequence,
            order_id,
            contra_id,
            price,
            quantity,
            leaves,
            self.given.instrument if instrument is None else instrument,
            kind,
            side,
            reason,
            flags | report.flags & LAST,
        )
        if report != due:
            raise self._broken(f"{rule}, REPORT-3", f"{due!r} is due, not {report!r}")

    def _law(self, rule: str, holds: object, sentence: str) -> None:
        """Raise `LawBroken` unless a law holds."""
        if not holds:
            raise self._broken(rule, sentence)

    def _broken(self, rule: str, sentence: str) -> LawBroken:
        """Return the error that shows the law, the command, its reports and the orders that rest."""
        frame = COMMAND.pack(*self.given[2:])
        command = format_command(frame[: 16 if self.given.size == 16 else COMMAND_SIZE])
        shown = [f"{rule}: {sentence}", f"  command {self.sequence}: {command}"]
        shown += [f"  report {format_report(report)}" for report in self.reports]
        shown += [f"  rests {order}" for order in self.standing]
        return LawBroken("\n".join(shown))

    def _read(self, snapshot: bytes) -> None:
        """Take over the state that a snapshot says, as it stands."""
        _, _, _, _, self.sequence, self.time_ns, self.order_capacity, self.instrument_capacity, count, _ = (
            SNAPSHOT_HEADER.unpack_from(snapshot)
        )
        middle = SNAPSHOT_HEADER.size + COMMAND_SIZE * count
        for _, state, _, _, number, low, high, tick, lot in COMMAND.iter_unpack(
            snapshot[SNAPSHOT_HEADER.size : middle]
        ):
            self.instruments[number] = Listing(state, low, high, tick, lot)
        for order_id, price, leaves, filled, instrument, side in SNAPSHOT_ORDER.iter_unpack(snapshot[middle:]):
            self.standing.append(Standing(order_id, instrument, side, price, leaves, filled))


# ------------------------------------------------------------------------------- the reasons of the state (apply)


def _unknown_instrument(book: Auditor, given: Given) -> bool:
    names_none = given.kind == MASS_CANCEL and given.a in (Scope.ACCOUNT, Scope.VENUE)
    return (
        given.kind not in (DEFINE_INSTRUMENT, SET_LIMIT) and not names_none and given.instrument not in book.instruments
    )


def _not_open(book: Auditor, given: Given) -> bool:
    if given.kind not in OF_ORDERS or given.instrument not in book.instruments:
        return False
    state = book.instruments[given.instrument].state
    return state != OPEN and not (state == PRE_OPEN and given.b == GTC and not given.c & MARKET)


def _resting(book: Auditor, given: Given) -> Standing | None:
    """Return the order that a cancel or replace names, if it rests in the instrument that it names."""
    for order in book.standing:
        if (order.order_id, order.instrument) == (given.ident, given.instrument):
            return order
    return None


def _priced(book: Auditor, given: Given) -> Listing | None:
    """Return the instrument of an order that has a price, if it is known."""
    if given.kind in OF_ORDERS and not given.c & MARKET:
        return book.instruments.get(given.instrument)
    return None


def _off_lot(book: Auditor, given: Given) -> bool:
    listing = book.instruments.get(given.instrument)
    return given.kind in OF_ORDERS and listing is not None and given.quantity % listing.lot != 0


def _would_cross(book: Auditor, given: Given) -> bool:
    listing = _priced(book, given)
    if listing is None or (listing.state == OPEN and not given.c & POST_ONLY):
        return False
    order = _resting(book, given)
    if given.kind == REPLACE_ORDER and order is not None:
        leaves = given.quantity - order.filled
        if leaves <= 0 or (given.price == order.price and leaves <= order.leaves):
            return False  # it does not enter again (RPL-3, RPL-4)
    touch = book._touch(given)  # noqa: SLF001  # the table is a part of the auditor
    if touch is None:
        return False
    slid = touch - listing.tick if given.a == BUY else touch + listing.tick
    return not given.c & SLIDE or not listing.low <= slid <= listing.high


REASONS_OF_STATE: Final[tuple[tuple[Reason, Callable[[Auditor, Given], bool]], ...]] = (
    (Reason.UNKNOWN_INSTRUMENT, _unknown_instrument),
    (Reason.NOT_OPEN, _not_open),
    (
        Reason.UNKNOWN_ORDER,
        lambda book, given: given.kind in (CANCEL_ORDER, REPLACE_ORDER) and _resting(book, given) is None,
    ),
    (
        Reason.DUPLICATE_ORDER_ID,
        lambda book, given: given.kind == NEW_ORDER and any(order.order_id == given.ident for order in book.standing),
    ),
    (
        Reason.SIDE_MISMATCH,
        lambda book, given: (
            given.kind == REPLACE_ORDER and (order := _resting(book, given)) is not None and order.side != given.a
        ),
    ),
    (
        Reason.OFF_TICK,
        lambda book, given: (listing := _priced(book, given)) is not None and given.price % listing.tick != 0,
    ),
    (Reason.OFF_LOT, _off_lot),
    (
        Reason.OUTSIDE_BAND,
        lambda book, given: (
            (listing := _priced(book, given)) is not None and not listing.low <= given.price <= listing.high
        ),
    ),
    (
        Reason.BOOK_NOT_EMPTY,
        lambda book, given: (
            given.kind == DEFINE_INSTRUMENT and any(order.instrument == given.instrument for order in book.standing)
        ),
    ),
    (
        Reason.INSTRUMENTS_FULL,
        lambda book, given: (
            given.kind == DEFINE_INSTRUMENT
            and given.instrument not in book.instruments
            and len(book.instruments) >= book.instrument_capacity
        ),
    ),
    (
        Reason.ORDERS_FULL,
        lambda book, given: given.kind == NEW_ORDER and given.b == GTC and len(book.standing) >= book.order_capacity,
    ),
    (Reason.WOULD_CROSS, _would_cross),
)
"""Each reason of the frame and the state, and when it applies: REJECT-32 .. REJECT-43, as they read."""


# ---------------------------------------------------------------------------------------------- laws in one call


def check_laws(
    records: bytes,
    reports: bytes,
    *,
    capacity: Capacity | None = None,
    before: bytes | None = None,
    after: bytes | None = None,
) -> Auditor:
    """Hold the reports of records against every law and return the auditor; raise `LawBroken`.

    The records begin with sequence 1 on an empty engine of `capacity`, or follow the snapshot `before`, whose
    capacities count then.  The snapshot `after` is compared with the state that the reports tell.
    """
    auditor = Auditor(capacity, before)
    auditor.audit(records, reports)
    check_conservation(reports, before)
    if after is not None:
        auditor.check_snapshot(after)
        check_book(after)
    return auditor


def check_conservation(reports: bytes, before: bytes | None = None) -> None:
    """Raise `LawBroken` unless, of every order, entered = traded + taken off + leaves at each report (REPORT-6).

    The reports alone are asked, without the commands; orders that rest in the snapshot `before` count as entered.
    """
    ledger: dict[int, list[int]] = {}  # order id: entered, traded, taken off
    if before is not None:
        for order in Auditor(snapshot=before).standing:
            ledger[order.order_id] = [order.leaves + order.filled, order.filled, 0]
    for index, report in enumerate(unpack_reports(reports)):
        if report.kind == NEW:
            ledger[report.order_id] = [report.quantity, 0, 0]
        elif report.kind == REPLACED:
            ledger[report.order_id][0] = report.quantity
            ledger[report.order_id][2] = 0
        elif report.kind == TRADE:
            ledger[report.order_id][1] += report.quantity
            ledger[report.contra_id][1] += report.quantity
        elif report.kind in (CANCELED, EXPIRED):
            ledger[report.order_id][2] += report.quantity
        else:
            continue
        entered, traded, taken_off = ledger[report.order_id]
        if report.leaves != entered - traded - taken_off or report.quantity <= 0:
            raise LawBroken(
                f"REPORT-6: report {index} leaves {report.leaves} of order {report.order_id}, of which {entered} were "
                f"entered, {traded} traded and {taken_off} taken off: {report}"
            )
        if report.kind == TRADE and sum(ledger[report.contra_id][1:]) > ledger[report.contra_id][0]:
            raise LawBroken(f"REPORT-6: report {index} overfills its maker, order {report.contra_id}: {report}")


def check_book(snapshot: bytes) -> None:
    """Raise `LawBroken` unless no book of a snapshot is crossed, no id stands twice and no leaves are 0 (SNAP-5)."""
    orders = Auditor(snapshot=snapshot).standing
    for order in orders:
        if order.leaves <= 0:
            raise LawBroken(f"SNAP-5: nothing of {order} is left, and it rests")
        for other in orders:
            if other is not order and other.order_id == order.order_id:
                raise LawBroken(f"NEW-2: {order} and {other} have one id")
            if (order.side, other.side, order.instrument) == (
                BUY,
                SELL,
                other.instrument,
            ) and order.price >= other.price:
                raise LawBroken(f"MATCH-1: {order} and {other} cross and both rest")


def check_unchanged(before: bytes, after: bytes) -> None:
    """Raise `LawBroken` unless two snapshots differ in sequence and time alone, as they do after a reject (RPL-1)."""
    if before[:16] + before[32:] != after[:16] + after[32:]:
        raise LawBroken(f"REJECT-0: a command that was rejected changed the state:\n  {before.hex()}\n  {after.hex()}")


def check_splits(make: Callable[[], Engine], records: bytes, sizes: Sequence[int]) -> None:
    """Raise `LawBroken` unless two fresh engines agree, one given all records and one batches of `sizes` (DET-2)."""
    whole, split = make(), make()
    together = apply_all(whole, records)
    apart, start = bytearray(), 0
    for size in sizes:
        apart += apply_all(split, records[start * RECORD_SIZE : (start + size) * RECORD_SIZE])
        start += size
    _check_equal(
        "DET-2", f"batches of {list(sizes)} give", (together, whole.snapshot()), (bytes(apart), split.snapshot())
    )


def check_restart(make: Callable[[], Engine], records: bytes, count: int) -> None:
    """Raise `LawBroken` unless an engine restored after `count` records goes on as one that never stopped (DET-5)."""
    straight, first, second = make(), make(), make()
    together = apply_all(straight, records)
    apart = apply_all(first, records[: count * RECORD_SIZE])
    second.restore(first.snapshot())
    if second.snapshot() != first.snapshot():
        raise LawBroken(f"DET-5: an engine restored after {count} records has another state than its snapshot")
    apart += apply_all(second, records[count * RECORD_SIZE :])
    _check_equal(
        "DET-5", f"a restart after {count} records gives", (together, straight.snapshot()), (apart, second.snapshot())
    )


def _check_equal(rule: str, sentence: str, one: tuple[bytes, bytes], other: tuple[bytes, bytes]) -> None:
    """Compare reports and snapshots by their digests (DET-7), and tell the first report that differs."""
    if [hashlib.sha256(part).digest() for part in one] == [hashlib.sha256(part).digest() for part in other]:
        return
    pairs = zip(unpack_reports(one[0]), unpack_reports(other[0]), strict=False)
    first = next((f"{left} and {right}" for left, right in pairs if left != right), "the count of reports or the state")
    raise LawBroken(f"{rule}: {sentence} other bytes; the first difference is {first}")


def by_command(reports: bytes) -> list[list[Report]]:
    """Return the reports of each command together, in order."""
    return [list(group) for _, group in groupby(unpack_reports(reports), key=lambda report: report.sequence)]
