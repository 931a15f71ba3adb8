"""Book views: the books of a venue, kept from its reports alone, at three depths.

A report stream says everything that happened, so whoever holds a snapshot and reads the reports after it has the books:
a venue in a notebook, or a subscriber of a feed at the end of a wire.  `Books` is that fold.  It matches nothing and
knows no rule of matching; it believes the reports, and raises `ForeignReport` when they cannot belong to its books.

The one trick: a taker is held *in flight* until the last report of its command (REPORT-4) and only then rests with
what it has left (MATCH-5), because only then is it known that it neither traded, nor expired, nor was canceled.

A level's queue is a dict by order id: it keeps the order of arrival, and an order in its middle leaves in constant
time.  Prices stand in a sorted list, ranked so that the better is always the greater, as in the reference engine.
"""

import operator
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final, NamedTuple, NoReturn, overload

import numpy as np
from attrs import Factory, define, frozen
from numpy.typing import NDArray

from ferrox.errors import CorruptInput, UsageError
from ferrox.messages import REPORT, DefineInstrument, Report
from ferrox.state import SNAPSHOT_ORDER_DTYPE, RestingOrder, State
from ferrox.terms import ReportFlag, ReportKind, Side, TradingState
from ferrox.text import format_order_id, format_report

# Plain integers: a member of an enum costs a look-up on every report.
NEW, TRADE, CANCELED, REPLACED, EXPIRED = map(int, list(ReportKind)[:5])
REJECTIONS: Final = tuple(map(int, list(ReportKind)[5:8]))
MASS_CANCELED, INSTRUMENT_DEFINED, STATE_CHANGED, LIMIT_SET = map(int, list(ReportKind)[8:])
PASSED_OVER: Final = (MASS_CANCELED, LIMIT_SET, *REJECTIONS)  # they say nothing of a book by themselves
PRIORITY_KEPT, LAST = int(ReportFlag.PRIORITY_KEPT), int(ReportFlag.LAST)
BUY, SELL = map(int, Side)

LEVEL_DTYPE: Final = np.dtype([("price", "<i8"), ("quantity", "<i8"), ("orders", "<i8")])
"""One level of `Depth.bids` and `Depth.asks`: price in ticks, the sum of leaves in lots, the count of orders."""


class ForeignReport(CorruptInput):
    """A report that cannot follow on the books it was given to: the streams differ, or reports are missing.

    The books are left between two states; make new ones from a snapshot.
    """

    def __init__(self, report: Report, found: str) -> None:
        """Name the report, by its sequence number and in the words of specs/text.md, and what is wrong with it."""
        self.report, self.found = report, found
        super().__init__(
            f"sequence {report.sequence}: the report '{format_report(report)}' cannot belong to these books: {found}; "
            "reports are missing before it, or it is of another venue. Begin again from a snapshot"
        )


# ---------------------------------------------------------------------------------------------- what a look gives


class Level(NamedTuple):
    """One price of a book: the sum of its orders' leaves in lots, and how many they are."""

    price: int
    quantity: int
    orders: int


class Top(NamedTuple):
    """The top of a book, L1: prices in ticks, None where a side is empty, and the sums of leaves there in lots."""

    instrument: int
    sequence: int
    bid: int | None
    bid_quantity: int
    ask: int | None
    ask_quantity: int

    @property
    def spread(self) -> int | None:
        """Return the ask less the bid in ticks, or None when a side is empty."""
        return None if self.bid is None or self.ask is None else self.ask - self.bid

    @property
    def middle(self) -> float | None:
        """Return the price half-way between bid and ask, or None when a side is empty."""
        return None if self.bid is None or self.ask is None else (self.bid + self.ask) / 2

    def __repr__(self) -> str:
        bid = "no bid" if self.bid is None else f"{self.bid_quantity:,} @ {self.bid}"
        ask = "no ask" if self.ask is None else f"{self.ask_quantity:,} @ {self.ask}"
        return f"<Top of {self.instrument}: {bid} | {ask}>"


@frozen(repr=False)
class Depth:
    """The levels of a book, L2: bids and asks, each with the best first."""

    instrument: int
    sequence: int
    """Of the last command in it."""
    bid_levels: tuple[Level, ...]
    ask_levels: tuple[Level, ...]

    @property
    def bids(self) -> "NDArray[np.void]":
        """Return the bids as an array of `LEVEL_DTYPE`, best first: `depth.bids["price"]`."""
        return _read_only(self.bid_levels, LEVEL_DTYPE)

    @property
    def asks(self) -> "NDArray[np.void]":
        """Return the asks as an array of `LEVEL_DTYPE`, best first: `depth.asks["quantity"]`."""
        return _read_only(self.ask_levels, LEVEL_DTYPE)

    def __repr__(self) -> str:
        """Draw a ladder: the highest price on top, bids on the left, asks on the right."""
        head = f"<Depth of {self.instrument} at sequence {self.sequence:,}: "
        if not (self.bid_levels or self.ask_levels):
            return f"{head}empty>"
        rows = [
            ("", "", str(price), f"{quantity:,}", f"({orders})") for price, quantity, orders in self.ask_levels[::-1]
        ]
        rows += [(f"({orders})", f"{quantity:,}", str(price), "", "") for price, quantity, orders in self.bid_levels]
        table = [("", "bids", "price", "asks", ""), *rows]
        widths = [max(len(row[column]) for row in table) for column in range(5)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        counts = f"{_count(len(self.bid_levels), 'bid level')}, {_count(len(self.ask_levels), 'ask level')}"
        return "\n".join([f"{head}{counts}>", *(f"  {line}" for line in lines)])

    def _repr_html_(self) -> str:
        """Draw the ladder for a notebook."""
        cell = '<td style="text-align:right">{}</td>'
        rows = [("", price, f"{quantity:,} ({orders})") for price, quantity, orders in self.ask_levels[::-1]]
        rows += [(f"({orders}) {quantity:,}", price, "") for price, quantity, orders in self.bid_levels]
        body = "".join(f"<tr>{''.join(cell.format(escape(str(value))) for value in row)}</tr>" for row in rows)
        return (
            f"<table><caption>instrument {self.instrument}, sequence {self.sequence:,}</caption>"
            f"<thead><tr><th>bids</th><th>price</th><th>asks</th></tr></thead><tbody>{body}</tbody></table>"
        )


class Orders(Sequence[RestingOrder]):
    """The orders of a book, L3: bids, then asks, best level first, oldest order first (SNAP-2)."""

    __slots__ = ("_orders", "instrument", "sequence")

    def __init__(self, instrument: int, sequence: int, orders: Sequence[RestingOrder]) -> None:
        self.instrument, self.sequence = instrument, sequence
        self._orders = tuple(orders)

    def __len__(self) -> int:
        return len(self._orders)

    @overload
    def __getitem__(self, index: int) -> RestingOrder: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[RestingOrder, ...]: ...
    def __getitem__(self, index: int | slice) -> RestingOrder | tuple[RestingOrder, ...]:
        return self._orders[index]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Orders):
            return NotImplemented
        return (self.instrument, self._orders) == (other.instrument, other._orders)

    def __hash__(self) -> int:
        return hash((self.instrument, self._orders))

    @property
    def bids(self) -> "NDArray[np.void]":
        """Return the bids as an array of order_id, price, leaves, filled, instrument and side, in priority order."""
        return _read_only([order for order in self._orders if order.side == BUY], SNAPSHOT_ORDER_DTYPE)

    @property
    def asks(self) -> "NDArray[np.void]":
        """Return the asks as an array of order_id, price, leaves, filled, instrument and side, in priority order."""
        return _read_only([order for order in self._orders if order.side == SELL], SNAPSHOT_ORDER_DTYPE)

    def __repr__(self) -> str:
        """Show a level a line, in the words of a session's `book` line."""
        head = f"<Orders of {self.instrument} at sequence {self.sequence:,}: {_count(len(self), 'order')}>"
        levels: dict[tuple[int, int], list[str]] = {}
        for order in self._orders:
            queue = levels.setdefault((order.side, order.price), [])
            queue.append(f"{format_order_id(order.order_id)} {order.leaves}")
        shown = [
            f"  {'bid' if side == BUY else 'ask'} {price}: {_abridge(queue, ', ')}"
            for (side, price), queue in levels.items()
        ]
        return "\n".join([head, *shown])


class QueuePosition(NamedTuple):
    """Where an order stands in the queue of its level: what trades before it, and what after it, at its price."""

    order_id: int
    price: int
    leaves: int
    orders_ahead: int
    quantity_ahead: int
    orders_behind: int
    quantity_behind: int


def _read_only(rows: Sequence[tuple[int, ...]], dtype: "np.dtype[np.void]") -> "NDArray[np.void]":
    """Return named tuples as a structured array that cannot be written to."""
    array = np.array(list(map(tuple, rows)), dtype=dtype)
    array.flags.writeable = False
    return array


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _abridge(parts: Sequence[str], between: str) -> str:
    """Join parts, leaving out the middle of many."""
    if len(parts) > 8:
        parts = [*parts[:6], f"... {len(parts) - 7} more ...", parts[-1]]
    return between.join(parts)


# ------------------------------------------------------------------------------------------------ what is kept


@define(eq=False)
class _Order:
    """An order in a book, or in flight; the fields of `RestingOrder`, to be changed in place."""

    id: int
    instrument: int
    side: int
    price: int
    leaves: int
    filled: int

    def resting(self) -> RestingOrder:
        return RestingOrder(self.id, self.price, self.leaves, self.filled, self.instrument, self.side)


@define(eq=False)
class _Level:
    """The orders of one price by id, in queue order, and the sum of their leaves."""

    quantity: int = 0
    queue: dict[int, _Order] = Factory(dict)


class _Side:
    """The bids or the asks of one book."""

    __slots__ = ("levels", "ranks", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.levels: dict[int, _Level] = {}
        self.ranks: list[int] = []  # ascending, so the best stands at the end, where a list is quick

    def rest(self, order: _Order) -> None:
        """Put an order at the back of its level's queue."""
        level = self.levels.get(order.price)
        if level is None:
            level = self.levels[order.price] = _Level()
            insort(self.ranks, order.price * self.sign)
        level.queue[order.id] = order
        level.quantity += order.leaves

    def reduce(self, order: _Order, quantity: int) -> None:
        """Take a quantity off an order where it stands, and the order out when nothing is left of it."""
        level = self.levels[order.price]
        level.quantity -= quantity
        order.leaves -= quantity
        if not order.leaves:
            self.forget(order, level)

    def leave(self, order: _Order) -> None:
        """Take an order out, with its leaves."""
        level = self.levels[order.price]
        level.quantity -= order.leaves
        self.forget(order, level)

    def forget(self, order: _Order, level: _Level) -> None:
        """Drop an order from its queue, and its level when it was the last there."""
        del level.queue[order.id]
        if not level.queue:
            del self.levels[order.price]
            rank = order.price * self.sign
            if self.ranks[-1] == rank:
                self.ranks.pop()
            else:
                del self.ranks[bisect_left(self.ranks, rank)]

    def best(self, count: int | None = None) -> Iterator[Level]:
        """Go through the levels, best first, `count` of them at most."""
        stop = None if count is None else -count - 1
        for rank in self.ranks[:stop:-1]:
            price = rank * self.sign
            level = self.levels[price]
            yield Level(price, level.quantity, len(level.queue))

    def orders(self) -> Iterator[RestingOrder]:
        """Go through the orders, best level first, oldest first."""
        for rank in reversed(self.ranks):
            for order in self.levels[rank * self.sign].queue.values():
                yield order.resting()


class BookView:
    """The book of one instrument; it moves on with the `Books` it is of, and what its methods return does not."""

    def __init__(self, books: "Books", definition: DefineInstrument) -> None:
        self._books = books
        self._bids, self._asks = _Side(1), _Side(-1)
        self.definition = definition

    @property
    def instrument(self) -> int:
        """Return the instrument's number."""
        return self.definition.instrument

    @property
    def state(self) -> TradingState:
        """Return the trading state the instrument is in."""
        return TradingState(self.definition.state)

    def top(self) -> Top:
        """Return the best bid and the best ask with their quantities, L1."""
        bid, ask = next(self._bids.best(1), None), next(self._asks.best(1), None)
        return Top(
            self.instrument,
            self._books.sequence,
            bid.price if bid else None,
            bid.quantity if bid else 0,
            ask.price if ask else None,
            ask.quantity if ask else 0,
        )

    def depth(self, levels: int | None = None) -> Depth:
        """Return the levels of both sides, L2, the best `levels` (1 or more) of each, or all."""
        if levels is not None and levels < 1:
            raise ValueError(f"levels is {levels}; ask for 1 or more, or leave it out for all")
        return Depth(
            self.instrument, self._books.sequence, tuple(self._bids.best(levels)), tuple(self._asks.best(levels))
        )

    def orders(self) -> Orders:
        """Return every order in priority order, L3."""
        return Orders(self.instrument, self._books.sequence, [*self._bids.orders(), *self._asks.orders()])

    def queue_position(self, order_id: int) -> QueuePosition:
        """Return what stands ahead of a resting order at its price, and what behind it; raise `UsageError` if none."""
        order = self._books.held(order_id)
        if order is None or order.instrument != self.instrument:
            raise UsageError(
                f"order {format_order_id(order_id)} does not rest in instrument {self.instrument}, "
                "so it stands in no queue"
            )
        level = self.side(order.side).levels[order.price]
        ahead_count = ahead_quantity = 0
        for other in level.queue.values():
            if other is order:
                break
            ahead_count += 1
            ahead_quantity += other.leaves
        behind_count = len(level.queue) - ahead_count - 1
        behind_quantity = level.quantity - ahead_quantity - order.leaves
        return QueuePosition(
            order_id, order.price, order.leaves, ahead_count, ahead_quantity, behind_count, behind_quantity
        )

    def side(self, side: int) -> _Side:
        """Return the side that an order of this side rests on."""
        return self._bids if side == BUY else self._asks

    def empty(self) -> bool:
        """Say whether no order rests here."""
        return not (self._bids.ranks or self._asks.ranks)

    def check(self) -> None:
        """Assert the whole invariant of a book, slowly."""
        for side, number in ((self._bids, BUY), (self._asks, SELL)):
            assert side.ranks == sorted(price * side.sign for price in side.levels), "ranks name every level once"
            for price, level in side.levels.items():
                assert level.queue, "a level holds at least one order"
                assert level.quantity == sum(order.leaves for order in level.queue.values())
                for order_id, order in level.queue.items():
                    assert self._books.held(order_id) is order, "every order is found by its id"
                    assert (order.id, order.instrument, order.side) == (order_id, self.instrument, number)
                    assert order.price == price
                    assert order.leaves > 0
                    assert order.filled >= 0
        top = self.top()
        assert top.bid is None or top.ask is None or top.bid < top.ask, "a book is never crossed"

    def __repr__(self) -> str:
        return f"<BookView of {self.instrument}, {self.state.name.lower()}: {self.top()!r}>"


class Books:
    """All books of a venue, seeded from a state and moved on by reports; `books[1]` is the view of instrument 1.

    Iterating gives the defined instruments, ascending.  What was read with a lookup before is up to date after a fold,
    as views stay; the values they return are of the moment.
    """

    def __init__(self, state: State | None = None) -> None:
        """Take the books of a snapshot's state (`ferrox.state.unpack_state`), or of a venue that has seen nothing."""
        self.sequence = 0
        """Of the last command whose reports are folded in whole."""
        self._views: dict[int, BookView] = {}
        self._orders: dict[int, _Order] = {}
        self._taker: _Order | None = None
        self._open: int | None = None  # the sequence number of a command whose last report has not come yet
        if state is not None:
            self.sequence = state.sequence
            self._views = {definition.instrument: BookView(self, definition) for definition in state.instruments}
            for order_id, price, leaves, filled, instrument, side in state.orders:
                self._rest(_Order(order_id, instrument, side, price, leaves, filled))

    # ------------------------------------------------------------------------------------------------- to look

    def __getitem__(self, instrument: int) -> BookView:
        try:
            view = self._views.get(operator.index(instrument))
        except TypeError:
            raise TypeError(f"instrument is an integer, not {instrument!r} ({type(instrument).__name__})") from None
        if view is None:
            raise UsageError(f"instrument {instrument} is not defined; {self._defined()}")
        return view

    def __contains__(self, instrument: object) -> bool:
        return instrument in self._views

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._views))

    def __len__(self) -> int:
        return len(self._views)

    def order(self, order_id: int) -> RestingOrder | None:
        """Return an order as it rests now, or None when it does not rest."""
        order = self._orders.get(order_id)
        return None if order is None else order.resting()

    def held(self, order_id: int) -> "_Order | None":
        """Return the order itself, for the views."""
        return self._orders.get(order_id)

    @property
    def order_count(self) -> int:
        """Return how many orders rest."""
        return len(self._orders)

    def definitions(self) -> list[DefineInstrument]:
        """Return the definitions by ascending instrument, in their present trading states (SNAP-3)."""
        return [self._views[instrument].definition for instrument in self]

    def orders(self) -> list[RestingOrder]:
        """Return every resting order in the canonical order of a snapshot (SNAP-2)."""
        return [order for instrument in self for order in self._views[instrument].orders()]

    def check(self) -> None:
        """Assert the whole invariant of all books, slowly."""
        assert self._taker is None or self._open is not None, "an order is in flight only inside a command"
        assert len(self._orders) == sum(len(view.orders()) for view in self._views.values())
        for view in self._views.values():
            view.check()

    def __repr__(self) -> str:
        counts = f"{_count(len(self), 'instrument')}, {_count(self.order_count, 'order')}"
        return f"<Books: {counts}, sequence {self.sequence:,}>"

    def _defined(self) -> str:
        shown = _abridge([str(instrument) for instrument in self], ", ")
        return f"defined are: {shown}" if shown else "none is defined"

    # ------------------------------------------------------------------------------------------------- to fold

    def fold(self, reports: "bytes | memoryview") -> None:
        """Move the books on by whole 48-byte reports; a command's reports may be split over several calls.

        Reports of a sequence number that the books already hold are passed over, so a stream may begin before the
        snapshot it follows on, and be given twice.  Raise `ForeignReport` when a report cannot belong to these books,
        and ValueError when the length is not a multiple of 48.
        """
        if len(reports) % REPORT.size:
            raise ValueError(f"reports come in whole frames of {REPORT.size} bytes, these are {len(reports)}")
        orders, views = self._orders, self._views
        for frame in REPORT.iter_unpack(reports):
            sequence, order_id, contra_id, price, quantity, leaves, instrument, kind, side, _, flags = frame
            if sequence != self._open:
                if sequence <= self.sequence:
                    continue
                if self._open is not None:
                    _refuse(frame, f"the last report of command {self._open} has not come yet (REPORT-4)")
                self._open = sequence

            if kind == NEW:
                if instrument not in views:
                    _refuse(frame, f"its instrument is unknown; {self._defined()}")
                if order_id in orders or self._taker is not None:
                    _refuse(frame, f"order {format_order_id(order_id)} already works")
                self._taker = _Order(order_id, instrument, side, price, leaves, 0)
            elif kind == TRADE:
                self._trade(frame, orders.get(contra_id))
            elif kind == CANCELED:
                self._cancel(frame)
            elif kind == REPLACED:
                self._replace(frame)
            elif kind == EXPIRED:
                taker = self._taker
                if taker is None or taker.id != order_id or taker.leaves != quantity:
                    _refuse(frame, _in_flight(taker))
                self._taker = None
            elif kind == INSTRUMENT_DEFINED:
                view = views.get(instrument)
                if view is not None and not view.empty():
                    _refuse(frame, "orders rest in that instrument (INSTR-2)")
                definition = DefineInstrument(side, instrument, price, contra_id, quantity, leaves)
                if view is None:
                    views[instrument] = BookView(self, definition)
                else:
                    view.definition = definition
            elif kind == STATE_CHANGED:
                if instrument not in views:
                    _refuse(frame, f"its instrument is unknown; {self._defined()}")
                views[instrument].definition = views[instrument].definition._replace(state=side)
            elif kind not in PASSED_OVER:
                _refuse(frame, f"report kind {kind} is not one of {[int(known) for known in ReportKind]}")

            if flags & LAST:
                taker, self._taker = self._taker, None
                if taker is not None and taker.leaves:
                    self._rest(taker)
                self.sequence, self._open = sequence, None

    def _trade(self, frame: tuple[int, ...], maker: _Order | None) -> None:
        """Take a trade off both of its orders (MATCH-3, MATCH-4)."""
        _, order_id, contra_id, price, quantity, leaves, instrument, _, side, _, _ = frame
        taker = self._taker
        if maker is None:
            _refuse(frame, f"its maker {format_order_id(contra_id)} does not rest")
        if taker is None or (taker.id, taker.instrument, taker.leaves) != (order_id, instrument, leaves + quantity):
            _refuse(frame, _in_flight(taker))
        if (maker.instrument, maker.price) != (instrument, price) or maker.side == side or maker.leaves < quantity:
            _refuse(frame, f"its maker rests as {maker.resting()}")
        makers = self._views[instrument].side(maker.side)
        if makers.ranks[-1] != price * makers.sign:
            _refuse(frame, f"the best price opposite is {makers.ranks[-1] * makers.sign} (MATCH-1)")
        taker.leaves = leaves
        taker.filled += quantity
        maker.filled += quantity
        makers.reduce(maker, quantity)
        if not maker.leaves:
            del self._orders[contra_id]

    def _cancel(self, frame: tuple[int, ...]) -> None:
        """Take a canceled quantity off the taker, or off a resting order (CANCEL-1, STP-3 .. STP-6, RPL-3)."""
        _, order_id, _, price, quantity, leaves, instrument, _, side, _, _ = frame
        taker = self._taker
        if taker is not None and taker.id == order_id:
            if taker.leaves != leaves + quantity:
                _refuse(frame, _in_flight(taker))
            taker.leaves = leaves
            return
        order = self._orders.get(order_id)
        if order is None:
            _refuse(frame, "no such order rests")
        if (order.instrument, order.side, order.price, order.leaves) != (instrument, side, price, leaves + quantity):
            _refuse(frame, f"that order rests as {order.resting()}")
        self._views[instrument].side(side).reduce(order, quantity)
        if not leaves:
            del self._orders[order_id]

    def _replace(self, frame: tuple[int, ...]) -> None:
        """Give an order its new price and total, in its place or in flight (RPL-2, RPL-4, RPL-5, REPORT-3)."""
        _, order_id, _, price, total, leaves, instrument, _, side, _, flags = frame
        order = self._orders.get(order_id)
        if order is None or self._taker is not None:
            _refuse(frame, "no such order rests")
        if (order.instrument, order.side, order.filled) != (instrument, side, total - leaves):
            _refuse(frame, f"that order rests as {order.resting()}")
        own = self._views[instrument].side(side)
        if flags & PRIORITY_KEPT:
            if order.price != price or order.leaves < leaves:
                _refuse(frame, f"it keeps its place (RPL-4), and rests as {order.resting()}")
            own.reduce(order, order.leaves - leaves)
        else:
            own.leave(order)
            del self._orders[order_id]
            self._taker = _Order(order_id, instrument, side, price, leaves, order.filled)

    def _rest(self, order: _Order) -> None:
        """Let an order rest at the back of its queue (MATCH-5)."""
        self._orders[order.id] = order
        self._views[order.instrument].side(order.side).rest(order)


def _in_flight(taker: _Order | None) -> str:
    """Say which order is in flight, where a report speaks of another one."""
    return "no order is in flight" if taker is None else f"the order in flight is {taker.resting()}"


def _refuse(frame: tuple[int, ...], found: str) -> NoReturn:
    raise ForeignReport(Report._make(frame), found)
