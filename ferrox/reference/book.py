"""One instrument's book: orders queue at levels, levels stand by price, and a side knows its best.

Two small tricks keep it quick without hiding what it does.  A *rank* is a price turned so that the better one is
always the greater, which lets buy and sell share every line.  And an order that leaves from the middle of a queue is
only marked: `deque.remove` would walk the queue, so the queue passes over the marked ones when they come to its head,
and is swept once they outnumber the living.  A queue holds the order *itself*, not its id, so an id that is used again
never revives an old place.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator

from attrs import Factory, define

from ferrox.messages import DefineInstrument
from ferrox.terms import Side, TradingState, account_of


@define(eq=False)
class Order:
    """An order while it works: quantity = leaves + filled; leaves is 0 once it has left the book."""

    id: int
    instrument: int
    side: int
    price: int
    leaves: int
    filled: int = 0


@define(eq=False)
class Level:
    """The orders of one price, oldest first; `count` of them rest, the others have left and wait to be passed over."""

    price: int
    queue: deque[Order] = Factory(deque)
    count: int = 0

    def append(self, order: Order) -> None:
        """Put an order at the back of the queue (MATCH-5)."""
        self.queue.append(order)
        self.count += 1
        self.sweep()

    def leave(self, order: Order) -> None:
        """Mark an order as gone, wherever it stands."""
        order.leaves = 0
        self.count -= 1
        self.sweep()

    def sweep(self) -> None:
        """Drop the marked orders once they outnumber the resting ones, so that each is looked at twice at the most."""
        if len(self.queue) > 2 * self.count + 16:
            self.queue = deque(resting for resting in self.queue if resting.leaves)

    def oldest(self) -> Order:
        """Return the order that has had its place longest (MATCH-2); the level may not be empty."""
        while not self.queue[0].leaves:
            self.queue.popleft()
        return self.queue[0]

    def orders(self) -> Iterator[Order]:
        """Go through the resting orders, oldest first."""
        return (order for order in self.queue if order.leaves)


class BookSide:
    """The bids or the asks of a book."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.sign = 1 if side == Side.BUY else -1
        self.levels: dict[int, Level] = {}
        self.ranks: list[int] = []  # ascending, so the best stands at the end, where a list is quick

    def best(self) -> Level | None:
        """Return the best level, or None when the side is empty."""
        return self.levels[self.ranks[-1] * self.sign] if self.ranks else None

    def best_within(self, limit: int) -> Level | None:
        """Return the best level if its rank reaches `limit` (MATCH-1), else None."""
        if self.ranks and self.ranks[-1] >= limit:
            return self.levels[self.ranks[-1] * self.sign]
        return None

    def reaches(self, limit: int) -> bool:
        """Say whether an opposite order of this limiting rank would trade at once."""
        return bool(self.ranks) and self.ranks[-1] >= limit

    def rest(self, order: Order) -> None:
        """Let an order rest at the back of its level's queue (MATCH-5)."""
        level = self.levels.get(order.price)
        if level is None:
            level = self.levels[order.price] = Level(order.price)
            insort(self.ranks, order.price * self.sign)
        level.append(order)

    def leave(self, order: Order) -> None:
        """Take out an order, wherever it stands: mark it, and drop its level when it was the last."""
        level = self.levels[order.price]
        level.leave(order)
        if not level.count:
            del self.levels[order.price]
            rank = order.price * self.sign
            if self.ranks[-1] == rank:
                self.ranks.pop()
            else:
                del self.ranks[bisect_left(self.ranks, rank)]

    def in_order(self) -> Iterator[Level]:
        """Go through the levels, best first."""
        return (self.levels[rank * self.sign] for rank in reversed(self.ranks))

    def orders(self) -> Iterator[Order]:
        """Go through the resting orders, best level first, oldest first."""
        return (order for level in self.in_order() for order in level.orders())


class Book:
    """One instrument: its definition, its trading state, its bids and its asks."""

    def __init__(self, definition: DefineInstrument) -> None:
        self.instrument = definition.instrument
        self.tick, self.lot = definition.tick, definition.lot
        self.low, self.high = definition.band_low, definition.band_high
        self.state = definition.state
        self.bids, self.asks = BookSide(Side.BUY), BookSide(Side.SELL)

    def own(self, side: int) -> BookSide:
        """Return the side that an order of this side rests on."""
        return self.bids if side == Side.BUY else self.asks

    def opposite(self, side: int) -> BookSide:
        """Return the side that an order of this side trades with."""
        return self.asks if side == Side.BUY else self.bids

    def definition(self) -> DefineInstrument:
        """Return the command that would define this instrument in its present state (SNAP-3)."""
        return DefineInstrument(self.state, self.instrument, self.low, self.high, self.tick, self.lot)

    def orders(self) -> Iterator[Order]:
        """Go through all resting orders in the canonical order: bids, then asks (SNAP-2, MASS-2)."""
        yield from self.bids.orders()
        yield from self.asks.orders()

    def empty(self) -> bool:
        """Say whether no order rests here."""
        return not (self.bids.ranks or self.asks.ranks)

    def check(self) -> None:
        """Assert the whole invariant of a book, slowly; the engine checks its own tables."""
        assert self.low <= self.high
        assert self.state in tuple(TradingState)
        for side in (self.bids, self.asks):
            assert side.ranks == sorted({price * side.sign for price in side.levels}), "ranks name every level once"
            for price, level in side.levels.items():
                resting = list(level.orders())
                assert level.price == price
                assert level.count == len(resting) > 0, "a level holds at least one order"
                for order in resting:
                    assert (order.instrument, order.side, order.price) == (self.instrument, side.side, price)
                    assert order.leaves > 0
                    assert order.filled >= 0
                    assert order.leaves % self.lot == 0
                    assert order.price % self.tick == 0
                    assert self.low <= order.price <= self.high
        bid, ask = self.bids.best(), self.asks.best()
        assert bid is None or ask is None or bid.price < ask.price, "a book is never crossed"


def same_account(taker: Order, maker: Order) -> bool:
    """Say whether two orders are of one account (STP-1)."""
    return account_of(taker.id) == account_of(maker.id)
