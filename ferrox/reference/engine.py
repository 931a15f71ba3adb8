"""The reference engine: `specs/matching.md` once more, in Python.

It is the oracle, so it is written to be read: find a rule, then the method that cites it.  `apply` unpacks a record,
has `decode` judge the frame, and calls the method of its kind; that method checks the command against the state in the
order of specs/rejects.md, and only then changes anything.  Reports are packed at once, into one growing buffer.
"""

from collections.abc import Iterable
from typing import Final

from ferrox.decode import (
    CANCEL_ORDER,
    DEFINE_INSTRUMENT,
    FOK,
    GTC,
    MARKET,
    MASS_CANCEL,
    NEW_ORDER,
    POST_ONLY,
    REPLACE_ORDER,
    SET_LIMIT,
    SET_TRADING_STATE,
    SIZES,
    SLIDE,
    fault,
)
from ferrox.engine import Capacity
from ferrox.errors import SequenceError, SnapshotCorrupt
from ferrox.messages import RECORD, RECORD_SIZE, REPORT, DefineInstrument
from ferrox.reference.book import Book, BookSide, Order, same_account
from ferrox.state import RestingOrder, State, pack_state, unpack_state
from ferrox.terms import (
    ACCOUNT_SHIFT,
    SELF_TRADE_MASK,
    SELF_TRADE_SHIFT,
    SEQUENCE_MAX,
    TIME_MAX,
    Annotation,
    Reason,
    ReportFlag,
    ReportKind,
    Scope,
    SelfTrade,
    TradingState,
    account_of,
)

# Plain integers: a member of an enum costs a look-up on every command.
NEW, TRADE, CANCELED, REPLACED, EXPIRED, REJECTED, CANCEL_REJECTED, REPLACE_REJECTED = map(int, list(ReportKind)[:8])
MASS_CANCELED, INSTRUMENT_DEFINED, STATE_CHANGED, LIMIT_SET = map(int, list(ReportKind)[8:])
AGGRESSOR, PRIORITY_KEPT, SLID, LAST = map(int, ReportFlag)
ALLOW, CANCEL_TAKER, CANCEL_MAKER, CANCEL_BOTH, DECREMENT = map(int, SelfTrade)
PRE_OPEN, OPEN = int(TradingState.PRE_OPEN), int(TradingState.OPEN)
MARK, SEAL = map(int, Annotation)
NO_LIMIT: Final = -(2**63)  # the rank that any price reaches: a market order's (MARKET-1)

REJECTIONS: Final = {CANCEL_ORDER: CANCEL_REJECTED, REPLACE_ORDER: REPLACE_REJECTED}
WITHOUT_ORDER: Final = (MASS_CANCEL, DEFINE_INSTRUMENT, SET_TRADING_STATE, SET_LIMIT)


class ReferenceEngine:
    """The engine to believe; see `ferrox.engine.Engine` for what the three methods of the seam promise."""

    def __init__(self, capacity: Capacity | None = None) -> None:
        self.capacity = capacity or Capacity()
        self.sequence = 0
        self.time_ns = 0
        self.books: dict[int, Book] = {}
        self.orders: dict[int, Order] = {}
        self.reports = bytearray()

    def apply(self, records: bytes) -> tuple[int, memoryview]:
        """Apply whole 64-byte records; return how many were taken and their reports (REPORT-2, DET-2, DET-3)."""
        if len(records) % RECORD_SIZE:
            raise ValueError(f"records come in whole frames of {RECORD_SIZE} bytes, these are {len(records)}")
        self.reports = bytearray()
        before = self.sequence
        for _, _, sequence, time_ns, kind, size, _, _, *command in RECORD.iter_unpack(records):
            if sequence != self.sequence + 1 or sequence > SEQUENCE_MAX:
                if self.sequence > before:
                    break  # what was taken has its reports; the next call refuses this one
                raise SequenceError(f"the engine is at sequence {self.sequence} and was given record {sequence}")
            self.sequence = sequence
            if self.time_ns < time_ns <= TIME_MAX:  # DET-4
                self.time_ns = time_ns
            if kind in (MARK, SEAL) and not size:  # DET-8
                continue
            self.command(kind, size, *command)
            self.reports[-1] |= LAST  # the flags are a report's last byte
        return self.sequence - before, memoryview(self.reports).toreadonly()

    def command(
        self,
        envelope_kind: int,
        size: int,
        kind: int,
        a: int,
        b: int,
        c: int,
        instrument: int,
        ident: int,
        price: int,
        quantity: int,
        display: int,
    ) -> None:
        """Carry out one command, or reject it; either way there is a report (REPORT-1)."""
        reason: int
        if kind in SIZES and (envelope_kind != kind or size != SIZES[kind]):
            reason = Reason.MALFORMED
        else:
            reason = fault(kind, a, b, c, instrument, ident, price, quantity, display)
        if not reason:
            book = self.books.get(instrument)
            if kind == DEFINE_INSTRUMENT:
                reason = self.define(DefineInstrument(a, instrument, ident, price, quantity, display))
            elif kind == MASS_CANCEL:
                reason = self.mass_cancel(a, instrument, ident)
            elif kind == SET_LIMIT:
                reason = self.set_limit(a, instrument, ident, price)
            elif book is None:
                reason = Reason.UNKNOWN_INSTRUMENT
            elif kind == NEW_ORDER:
                reason = self.new(book, Order(ident, instrument, a, price, quantity), b, c)
            elif kind == CANCEL_ORDER:
                reason = self.cancel(book, ident)
            elif kind == REPLACE_ORDER:
                reason = self.replace(book, ident, a, price, quantity, c)
            else:
                reason = self.set_state(book, a)
        if reason:
            order_id = 0 if kind in WITHOUT_ORDER else ident
            self.report(REJECTIONS.get(kind, REJECTED), order_id, instrument, reason=reason)

    # ------------------------------------------------------------------------------------------------ commands

    def new(self, book: Book, taker: Order, time_in_force: int, flags: int) -> int:
        """Match an order, then let what is left rest or expire (NEW-1 .. NEW-3); return why not, or 0."""
        if book.state != OPEN and not (book.state == PRE_OPEN and time_in_force == GTC):
            return Reason.NOT_OPEN  # a market order is never GTC (STATE-2, STATE-3)
        if taker.id in self.orders:
            return Reason.DUPLICATE_ORDER_ID
        if reason := self.off_grid(book, taker.price, taker.leaves, flags):
            return reason
        if time_in_force == GTC and len(self.orders) >= self.capacity.orders:
            return Reason.ORDERS_FULL
        slid = self.slid_price(book, taker.side, taker.price, flags)
        if slid is None:
            return Reason.WOULD_CROSS

        flag = SLID if slid != taker.price else 0
        taker.price = slid
        self.report_order(NEW, taker, taker.leaves, flags=flag)
        mode = (flags & SELF_TRADE_MASK) >> SELF_TRADE_SHIFT
        makers = book.opposite(taker.side)
        limit = NO_LIMIT if flags & MARKET else taker.price * makers.sign
        if time_in_force == FOK and self.fillable(makers, taker, limit, mode) < taker.leaves:
            self.expire(taker)
            return 0
        self.match(book, taker, makers, limit, mode)
        if taker.leaves:
            if time_in_force == GTC:
                self.rest(book, taker)
            else:
                self.expire(taker)
        return 0

    def cancel(self, book: Book, order_id: int) -> int:
        """Take a resting order out (CANCEL-1, CANCEL-2); return why not, or 0."""
        order = self.resting_in(book, order_id)
        if order is None:
            return Reason.UNKNOWN_ORDER
        self.cancel_resting(book, order, 0)
        return 0

    def replace(self, book: Book, order_id: int, side: int, price: int, total: int, flags: int) -> int:
        """Change a resting order's price and total (RPL-1 .. RPL-7); return why not, or 0."""
        if book.state not in (OPEN, PRE_OPEN):
            return Reason.NOT_OPEN
        order = self.resting_in(book, order_id)
        if order is None:
            return Reason.UNKNOWN_ORDER
        if side != order.side:
            return Reason.SIDE_MISMATCH
        if reason := self.off_grid(book, price, total, flags):
            return reason
        leaves = total - order.filled
        if leaves <= 0:
            self.cancel_resting(book, order, Reason.TOTAL_FILLED)
            return 0
        if price == order.price and leaves <= order.leaves:
            order.leaves = leaves
            self.report_order(REPLACED, order, total, flags=PRIORITY_KEPT)
            return 0
        slid = self.slid_price(book, side, price, flags)
        if slid is None:
            return Reason.WOULD_CROSS

        self.leave(book, order)
        taker = Order(order_id, book.instrument, side, slid, leaves, order.filled)
        self.report_order(REPLACED, taker, total, flags=SLID if slid != price else 0)
        makers = book.opposite(side)
        self.match(book, taker, makers, slid * makers.sign, (flags & SELF_TRADE_MASK) >> SELF_TRADE_SHIFT)
        if taker.leaves:
            self.rest(book, taker)
        return 0

    def mass_cancel(self, scope: int, instrument: int, account: int) -> int:
        """Take out every resting order in a scope, in canonical order (MASS-1 .. MASS-3); return why not, or 0."""
        if instrument and instrument not in self.books:
            return Reason.UNKNOWN_INSTRUMENT
        books: Iterable[Book] = (
            [self.books[instrument]] if instrument else [self.books[number] for number in sorted(self.books)]
        )
        of_account = scope in (Scope.ACCOUNT, Scope.ACCOUNT_IN_INSTRUMENT)
        count = 0
        for book in books:
            for order in list(book.orders()):
                if not of_account or account_of(order.id) == account:
                    self.cancel_resting(book, order, Reason.MASS_CANCEL)
                    count += 1
        self.report(MASS_CANCELED, account << ACCOUNT_SHIFT, instrument, quantity=count, side=scope)
        return 0

    def define(self, definition: DefineInstrument) -> int:
        """Define an instrument, or define an empty one again (INSTR-1, INSTR-2); return why not, or 0."""
        book = self.books.get(definition.instrument)
        if book is not None and not book.empty():
            return Reason.BOOK_NOT_EMPTY
        if book is None and len(self.books) >= self.capacity.instruments:
            return Reason.INSTRUMENTS_FULL
        self.books[definition.instrument] = Book(definition)
        self.report(
            INSTRUMENT_DEFINED,
            0,
            definition.instrument,
            contra_id=definition.band_high,
            price=definition.band_low,
            quantity=definition.tick,
            leaves=definition.lot,
            side=definition.state,
        )
        return 0

    def set_state(self, book: Book, state: int) -> int:
        """Move an instrument to another trading state (STATE-4)."""
        book.state = state
        self.report(STATE_CHANGED, 0, book.instrument, side=state)
        return 0

    def set_limit(self, limit: int, instrument: int, account: int, value: int) -> int:
        """Repeat a limit, which is the gateway's to keep (LIMIT-1)."""
        self.report(LIMIT_SET, account << ACCOUNT_SHIFT, instrument, contra_id=value, side=limit)
        return 0

    # ---------------------------------------------------------------------------------------------- their parts

    def off_grid(self, book: Book, price: int, quantity: int, flags: int) -> int:
        """Return why a price or quantity does not fit the instrument, or 0 (INSTR-3, REJECT-37 .. REJECT-39)."""
        market = flags & MARKET
        if price % book.tick and not market:
            return Reason.OFF_TICK
        if quantity % book.lot:
            return Reason.OFF_LOT
        if not book.low <= price <= book.high and not market:
            return Reason.OUTSIDE_BAND
        return 0

    def slid_price(self, book: Book, side: int, price: int, flags: int) -> int | None:
        """Return the price an order enters at, or None if it would trade and may not (POST-1 .. POST-3, STATE-2)."""
        if book.state == OPEN and not flags & POST_ONLY:
            return price
        makers = book.opposite(side)
        if not makers.reaches(price * makers.sign):
            return price
        best = makers.best()
        if best is None or not flags & SLIDE:
            return None
        behind = best.price + makers.sign * book.tick  # one tick above the bid, or below the ask
        return behind if book.low <= behind <= book.high else None

    def match(self, book: Book, taker: Order, makers: BookSide, limit: int, mode: int) -> None:
        """Trade with the best maker as long as there is one within the limit (MATCH-1 .. MATCH-4, STP-2)."""
        while taker.leaves and (level := makers.best_within(limit)):
            maker = level.oldest()
            if mode != ALLOW and same_account(taker, maker):
                self.prevent_self_trade(book, taker, maker, mode)
            else:
                self.trade(book, taker, maker)

    def trade(self, book: Book, taker: Order, maker: Order) -> None:
        """Trade the smaller of the two leaves at the maker's price (MATCH-3, MATCH-4)."""
        quantity = min(taker.leaves, maker.leaves)
        taker.leaves -= quantity
        taker.filled += quantity
        maker.filled += quantity
        if quantity == maker.leaves:
            self.leave(book, maker)
        else:
            maker.leaves -= quantity
        self.report(
            TRADE,
            taker.id,
            taker.instrument,
            contra_id=maker.id,
            price=maker.price,
            quantity=quantity,
            leaves=taker.leaves,
            side=taker.side,
            flags=AGGRESSOR,
        )

    def prevent_self_trade(self, book: Book, taker: Order, maker: Order, mode: int) -> None:
        """Do what the taker's mode says when it meets its own order (STP-3 .. STP-7)."""
        from_maker, from_taker = {
            CANCEL_TAKER: (0, taker.leaves),
            CANCEL_MAKER: (maker.leaves, 0),
            CANCEL_BOTH: (maker.leaves, taker.leaves),
            DECREMENT: (min(maker.leaves, taker.leaves),) * 2,
        }[mode]
        if from_maker:
            remaining = maker.leaves - from_maker
            if not remaining:
                self.leave(book, maker)
            maker.leaves = remaining
            self.report_order(CANCELED, maker, from_maker, contra_id=taker.id, reason=Reason.SELF_TRADE)
        if from_taker:
            taker.leaves -= from_taker
            self.report_order(CANCELED, taker, from_taker, contra_id=maker.id, reason=Reason.SELF_TRADE)

    def fillable(self, makers: BookSide, taker: Order, limit: int, mode: int) -> int:
        """Return how much of a FOK order would trade at once, up to its quantity; change nothing (TIF-3, TIF-4)."""
        quantity = 0
        for level in makers.in_order():
            if level.price * makers.sign < limit:
                break
            for maker in level.orders():
                if mode != ALLOW and same_account(taker, maker):
                    if mode == CANCEL_MAKER:
                        continue
                    return quantity
                quantity += maker.leaves
                if quantity >= taker.leaves:
                    return quantity
        return quantity

    def resting_in(self, book: Book, order_id: int) -> Order | None:
        """Return the order if it rests in this instrument (CANCEL-2)."""
        order = self.orders.get(order_id)
        return order if order is not None and order.instrument == book.instrument else None

    def rest(self, book: Book, order: Order) -> None:
        """Let an order rest at the back of its queue (MATCH-5)."""
        book.own(order.side).rest(order)
        self.orders[order.id] = order

    def leave(self, book: Book, order: Order) -> None:
        """Take a resting order out of the book and the order table."""
        book.own(order.side).leave(order)
        del self.orders[order.id]

    def cancel_resting(self, book: Book, order: Order, reason: int) -> None:
        """Take a resting order out and report what it still had (CANCEL-1, REPORT-5)."""
        quantity = order.leaves
        self.leave(book, order)
        self.report_order(CANCELED, order, quantity, reason=reason)

    def expire(self, taker: Order) -> None:
        """Report the rest of a taker as expired (TIF-2, TIF-3); it never was in the book."""
        quantity, taker.leaves = taker.leaves, 0
        self.report_order(EXPIRED, taker, quantity)

    # -------------------------------------------------------------------------------------------------- reports

    def report_order(
        self, kind: int, order: Order, quantity: int, *, contra_id: int = 0, reason: int = 0, flags: int = 0
    ) -> None:
        """Report something that happened to one order, with its price, side and leaves as they are now."""
        self.report(
            kind,
            order.id,
            order.instrument,
            contra_id=contra_id,
            price=order.price,
            quantity=quantity,
            leaves=order.leaves,
            side=order.side,
            reason=reason,
            flags=flags,
        )

    def report(
        self,
        kind: int,
        order_id: int,
        instrument: int,
        *,
        contra_id: int = 0,
        price: int = 0,
        quantity: int = 0,
        leaves: int = 0,
        side: int = 0,
        reason: int = 0,
        flags: int = 0,
    ) -> None:
        """Pack one report (REPORT-3)."""
        self.reports += REPORT.pack(
            self.sequence, order_id, contra_id, price, quantity, leaves, instrument, kind, side, reason, flags
        )

    # -------------------------------------------------------------------------------------------------- the state

    def snapshot(self) -> bytes:
        """Return the whole state in the canonical layout (SNAP-1 .. SNAP-4)."""
        books = [self.books[number] for number in sorted(self.books)]
        return pack_state(
            State(
                sequence=self.sequence,
                time_ns=self.time_ns,
                order_capacity=self.capacity.orders,
                instrument_capacity=self.capacity.instruments,
                instruments=[book.definition() for book in books],
                orders=[
                    RestingOrder(order.id, order.price, order.leaves, order.filled, order.instrument, order.side)
                    for book in books
                    for order in book.orders()
                ],
            )
        )

    def restore(self, snapshot: bytes) -> None:
        """Replace the whole state with a snapshot, or raise `SnapshotCorrupt` and keep the state (SNAP-5)."""
        state = unpack_state(snapshot)
        if (state.order_capacity, state.instrument_capacity) != (self.capacity.orders, self.capacity.instruments):
            raise SnapshotCorrupt(
                f"the snapshot is of an engine for {state.order_capacity} orders and {state.instrument_capacity} "
                f"instruments, this one is for {self.capacity.orders} and {self.capacity.instruments}; "
                "make the engine with the snapshot's capacities"
            )
        self.sequence, self.time_ns = state.sequence, state.time_ns
        self.books = {definition.instrument: Book(definition) for definition in state.instruments}
        self.orders = {}
        for resting in state.orders:
            order = Order(
                resting.order_id, resting.instrument, resting.side, resting.price, resting.leaves, resting.filled
            )
            self.rest(self.books[order.instrument], order)

    def check(self) -> None:
        """Assert the whole invariant of every book and of the tables that lead to them, slowly."""
        assert len(self.books) <= self.capacity.instruments
        for number, book in self.books.items():
            assert book.instrument == number
            book.check()
        resting = [order for book in self.books.values() for order in book.orders()]
        assert len(resting) == len(self.orders) <= self.capacity.orders
        assert all(self.orders.get(order.id) is order for order in resting), "every resting order is found by its id"
