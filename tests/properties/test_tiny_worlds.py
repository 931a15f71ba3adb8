"""All tiny worlds: every sequence of a few orders, against a naive matcher written from specs/matching.md and the laws.

A random stream may miss the one case that matters; here none is missed.  The naive matcher keeps each side of a book
as one list in priority order, and says every report on its own.  It knows nothing of the engine's levels, ranks and
tombstones, nor of the laws' auditor, which judges the same reports.
"""

from collections.abc import Iterable, Iterator
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrox.engine import Capacity
from ferrox.messages import (
    REPORT,
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
from ferrox.reference import ReferenceEngine
from ferrox.terms import OrderFlag, Reason, ReportFlag, ReportKind, Scope, SelfTrade, Side, TimeInForce, TradingState
from ferrox.testing.laws import check_laws
from ferrox.testing.sessions import to_records
from ferrox.testing.strategies import World, describe, streams
from ferrox.text import format_report

pytestmark = pytest.mark.exhaustive  # the fast engine has worlds of its own in test_engines_agree.py

BUY, SELL = map(int, Side)
GTC, IOC, FOK = map(int, TimeInForce)
MARKET, POST_ONLY, SLIDE = map(int, OrderFlag)
PRE_OPEN, OPEN, HALTED, CLOSED = map(int, TradingState)
ALLOW, CANCEL_TAKER, CANCEL_MAKER, CANCEL_BOTH, DECREMENT = map(int, SelfTrade)
CAPACITY = Capacity(orders=8, instruments=2)


# ------------------------------------------------------------------------------------------- the naive matcher


class Naive:
    """Two lists for each instrument, best and oldest first, whose entries are [id, price, leaves, filled]."""

    def __init__(self, capacity: Capacity = CAPACITY) -> None:
        self.capacity = capacity
        self.sequence = 0
        self.defined: dict[int, DefineInstrument] = {}
        self.sides: dict[tuple[int, int], list[list[int]]] = {}
        self.said: list[tuple[int, ...]] = []

    def reports(self, commands: Iterable[Command]) -> list[tuple[int, ...]]:
        """Return every report to commands, as the fields of its frame."""
        for command in commands:
            self.sequence += 1
            reason = self.carry_out(command)
            if reason:
                kind = {CancelOrder: ReportKind.CANCEL_REJECTED, ReplaceOrder: ReportKind.REPLACE_REJECTED}.get(
                    type(command), ReportKind.REJECTED
                )
                self.say(kind, getattr(command, "order_id", 0), 0, 0, 0, 0, command.instrument, reason=reason)
            self.said[-1] = (*self.said[-1][:-1], self.said[-1][-1] | ReportFlag.LAST)
        return self.said

    def say(self, kind, order_id, contra_id, price, quantity, leaves, instrument, side=0, reason=0, flags=0) -> None:
        self.said.append(
            (self.sequence, order_id, contra_id, price, quantity, leaves, instrument, kind, side, reason, flags)
        )

    def carry_out(self, command: Command) -> int:
        number = command.instrument
        if isinstance(command, DefineInstrument):
            if any(self.sides.get((number, side)) for side in (BUY, SELL)):
                return Reason.BOOK_NOT_EMPTY
            if number not in self.defined and len(self.defined) == self.capacity.instruments:
                return Reason.INSTRUMENTS_FULL
            self.defined[number] = command
            self.sides[number, BUY], self.sides[number, SELL] = [], []
            state, _, low, high, tick, lot = command
            self.say(ReportKind.INSTRUMENT_DEFINED, 0, high, low, tick, lot, number, state)
            return 0
        if isinstance(command, MassCancel):
            return self.mass_cancel(command)
        if isinstance(command, SetLimit):
            self.say(ReportKind.LIMIT_SET, command.account << 40, command.value, 0, 0, 0, number, command.limit)
            return 0
        if number not in self.defined:
            return Reason.UNKNOWN_INSTRUMENT
        if isinstance(command, SetTradingState):
            self.defined[number] = self.defined[number]._replace(state=command.state)
            self.say(ReportKind.STATE_CHANGED, 0, 0, 0, 0, 0, number, command.state)
            return 0
        if isinstance(command, CancelOrder):
            side, order = self.find(number, command.order_id)
            if not order:
                return Reason.UNKNOWN_ORDER
            self.sides[number, side].remove(order)
            self.say(ReportKind.CANCELED, order[0], 0, order[1], order[2], 0, number, side)
            return 0
        return self.new(command) if isinstance(command, NewOrder) else self.replace(command)

    def find(self, number: int, order_id: int) -> tuple[int, list[int]]:
        for side in (BUY, SELL):
            for order in self.sides[number, side]:
                if order[0] == order_id:
                    return side, order
        return 0, []

    def new(self, command: NewOrder) -> int:
        side, time_in_force, flags, number, order_id, price, quantity, _ = command
        state = self.defined[number].state
        if state in (HALTED, CLOSED) or (state == PRE_OPEN and (time_in_force != GTC or flags & MARKET)):
            return Reason.NOT_OPEN
        if any(order[0] == order_id for orders in self.sides.values() for order in orders):
            return Reason.DUPLICATE_ORDER_ID
        if reason := self.off(command):
            return reason
        if time_in_force == GTC and sum(map(len, self.sides.values())) == self.capacity.orders:
            return Reason.ORDERS_FULL
        entry = self.entry(command)
        if entry is None:
            return Reason.WOULD_CROSS
        slid = ReportFlag.SLID if entry != price else 0
        self.say(ReportKind.NEW, order_id, 0, entry, quantity, quantity, number, side, flags=slid)
        taker = [order_id, entry, quantity, 0]
        if time_in_force != FOK or self.would_fill(command):
            self.trade(command, taker)
        if taker[2] and time_in_force == GTC:
            self.rest(number, side, taker)
        elif taker[2]:
            self.say(ReportKind.EXPIRED, order_id, 0, entry, taker[2], 0, number, side)
        return 0

    def replace(self, command: ReplaceOrder) -> int:
        side, _, _, number, order_id, price, total, _ = command
        if self.defined[number].state in (HALTED, CLOSED):
            return Reason.NOT_OPEN
        its_side, order = self.find(number, order_id)
        if not order:
            return Reason.UNKNOWN_ORDER
        if its_side != side:
            return Reason.SIDE_MISMATCH
        if reason := self.off(command):
            return reason
        _, old_price, old_leaves, filled = order
        if total <= filled:
            self.sides[number, side].remove(order)
            self.say(
                ReportKind.CANCELED, order_id, 0, old_price, old_leaves, 0, number, side, reason=Reason.TOTAL_FILLED
            )
            return 0
        leaves = total - filled
        if price == old_price and leaves <= old_leaves:
            order[2] = leaves
            kept = ReportFlag.PRIORITY_KEPT
            self.say(ReportKind.REPLACED, order_id, 0, price, total, leaves, number, side, flags=kept)
            return 0
        entry = self.entry(command)
        if entry is None:
            return Reason.WOULD_CROSS
        self.sides[number, side].remove(order)
        slid = ReportFlag.SLID if entry != price else 0
        self.say(ReportKind.REPLACED, order_id, 0, entry, total, leaves, number, side, flags=slid)
        taker = [order_id, entry, leaves, filled]
        self.trade(command, taker)
        if taker[2]:
            self.rest(number, side, taker)
        return 0

    def off(self, command: NewOrder | ReplaceOrder) -> int:
        definition = self.defined[command.instrument]
        market = command.flags & MARKET
        if not market and command.price % definition.tick:
            return Reason.OFF_TICK
        if command.quantity % definition.lot:
            return Reason.OFF_LOT
        if not market and not definition.band_low <= command.price <= definition.band_high:
            return Reason.OUTSIDE_BAND
        return 0

    def entry(self, command: NewOrder | ReplaceOrder) -> int | None:
        """Return the price that an order enters at, or None when it would cross and may not."""
        definition = self.defined[command.instrument]
        makers = self.sides[command.instrument, BUY + SELL - command.side]
        if not makers or not self.good(command, command.price, makers[0][1]):
            return command.price
        if definition.state == OPEN and not command.flags & POST_ONLY:
            return command.price
        if not command.flags & SLIDE:
            return None
        behind = makers[0][1] + (definition.tick if command.side == SELL else -definition.tick)
        return behind if definition.band_low <= behind <= definition.band_high else None

    def good(self, command: NewOrder | ReplaceOrder, limit: int, price: int) -> bool:
        return bool(command.flags & MARKET) or (price <= limit if command.side == BUY else price >= limit)

    def own(self, command: NewOrder | ReplaceOrder, maker: list[int]) -> bool:
        return command.flags >> 4 != ALLOW and maker[0] >> 40 == command.order_id >> 40

    def would_fill(self, command: NewOrder) -> bool:
        wanted = command.quantity
        for maker in self.sides[command.instrument, BUY + SELL - command.side]:
            if not self.good(command, command.price, maker[1]):
                break
            if self.own(command, maker):
                if command.flags >> 4 == CANCEL_MAKER:
                    continue
                break
            wanted -= maker[2]
        return wanted <= 0

    def trade(self, command: NewOrder | ReplaceOrder, taker: list[int]) -> None:
        side, number = command.side, command.instrument
        other = BUY + SELL - side
        makers = self.sides[number, other]
        while taker[2] and makers and self.good(command, taker[1], makers[0][1]):
            maker = makers[0]
            quantity = min(taker[2], maker[2])
            if not self.own(command, maker):
                for order in (taker, maker):
                    order[2] -= quantity
                    order[3] += quantity
                self.say(
                    ReportKind.TRADE,
                    taker[0],
                    maker[0],
                    maker[1],
                    quantity,
                    taker[2],
                    number,
                    side,
                    flags=ReportFlag.AGGRESSOR,
                )
            else:
                mode = command.flags >> 4
                off_maker = {CANCEL_TAKER: 0, DECREMENT: quantity}.get(mode, maker[2])
                off_taker = {CANCEL_MAKER: 0, DECREMENT: quantity}.get(mode, taker[2])
                for order, off, its_side in ((maker, off_maker, other), (taker, off_taker, side)):
                    if off:
                        order[2] -= off
                        with_id = taker[0] if order is maker else maker[0]
                        self.say(
                            ReportKind.CANCELED,
                            order[0],
                            with_id,
                            order[1],
                            off,
                            order[2],
                            number,
                            its_side,
                            reason=Reason.SELF_TRADE,
                        )
            if not maker[2]:
                del makers[0]

    def rest(self, number: int, side: int, order: list[int]) -> None:
        queue = self.sides[number, side]
        place = 0
        while place < len(queue) and (queue[place][1] >= order[1] if side == BUY else queue[place][1] <= order[1]):
            place += 1
        queue.insert(place, order)

    def mass_cancel(self, command: MassCancel) -> int:
        scope, number, account = command
        if number and number not in self.defined:
            return Reason.UNKNOWN_INSTRUMENT
        count = 0
        for its_number, side in sorted(self.sides):
            for order in self.sides[its_number, side].copy():
                right_account = scope not in (Scope.ACCOUNT, Scope.ACCOUNT_IN_INSTRUMENT) or order[0] >> 40 == account
                if number in (0, its_number) and right_account:
                    self.sides[its_number, side].remove(order)
                    self.say(
                        ReportKind.CANCELED,
                        order[0],
                        0,
                        order[1],
                        order[2],
                        0,
                        its_number,
                        side,
                        reason=Reason.MASS_CANCEL,
                    )
                    count += 1
        self.say(ReportKind.MASS_CANCELED, account << 40, 0, 0, count, 0, number, scope)
        return 0


# -------------------------------------------------------------------------------------------------- the worlds

SIDES, PRICES, QUANTITIES = (BUY, SELL), (4, 5), (1, 2)
PLAIN = [(side, price, quantity) for side in SIDES for price in PRICES for quantity in QUANTITIES]
STYLES = [(GTC, 0), (IOC, 0), (FOK, 0), (GTC, POST_ONLY), (GTC, POST_ONLY | SLIDE)]
MODES = [int(mode) << 4 for mode in SelfTrade]


def definition(state: int = OPEN) -> DefineInstrument:
    """Prices 4 and 5 with one tick of room below and none above, so that one slide leaves the band and one does not."""
    return DefineInstrument(state, 1, 3, 5, 1, 1)


def plain(ident: int, time_in_force: int = GTC, flags: int = 0) -> list[Command]:
    return [NewOrder(side, time_in_force, flags, 1, ident, price, quantity) for side, price, quantity in PLAIN]


def any_style(ident: int) -> list[Command]:
    """8 plain orders in each of five styles, and 4 market orders: 44."""
    market: list[Command] = [
        NewOrder(side, IOC, MARKET, 1, ident, 0, quantity) for side in SIDES for quantity in QUANTITIES
    ]
    return [order for style in STYLES for order in plain(ident, *style)] + market


def account(number: int, reference: int) -> int:
    return number << 40 | reference


def three_of_any_style() -> Iterator[tuple[Command, ...]]:
    first: list[Command] = [definition()]
    return product(first, any_style(1), any_style(2), any_style(3))


def four_plain() -> Iterator[tuple[Command, ...]]:
    first: list[Command] = [definition()]
    return product(first, plain(1), plain(2), plain(3), plain(4) + plain(4, IOC))


def one_and_one_self(reference: int) -> list[Command]:
    return plain(account(1, reference)) + plain(account(2, reference))


def self_trades() -> Iterator[tuple[Command, ...]]:
    """Two resting orders, of account 1 and of either, and a third of either account in every mode and time in force."""
    first: list[Command] = [definition()]
    takers = [
        order
        for number in (1, 2)
        for mode in MODES
        for time_in_force in (GTC, IOC, FOK)
        for order in plain(account(number, 3), time_in_force, mode)
    ]
    return product(first, plain(account(1, 1)), one_and_one_self(2), takers)


def replaced_takers() -> Iterator[tuple[Command, ...]]:
    """Two orders, then a replace of either at every price, total, style and mode: both may meet, or their own."""
    styles = [0, POST_ONLY, POST_ONLY | SLIDE]
    for one, other in product(plain(account(1, 1)), one_and_one_self(2)):
        for old in (one, other):
            assert isinstance(old, NewOrder)
            for price, total, style, mode in product(PRICES, (1, 2, 3), styles, MODES):
                yield (
                    definition(),
                    one,
                    other,
                    ReplaceOrder(old.side, GTC, style | mode, 1, old.order_id, price, total),
                )


def replaced_in_a_queue() -> Iterator[tuple[Command, ...]]:
    """Three orders, then a replace of the first or second: one that is rejected must keep its place in the queue."""
    for one, other, third in product(plain(1), plain(2), plain(3)):
        for old in (one, other):
            assert isinstance(old, NewOrder)
            for price, total, flags in product(PRICES, (1, 2, 3), (0, POST_ONLY, POST_ONLY | SLIDE)):
                yield definition(), one, other, third, ReplaceOrder(old.side, GTC, flags, 1, old.order_id, price, total)


def cancels_and_replaces() -> Iterator[tuple[Command, ...]]:
    """One order, then three commands: another order, or a cancel or replace of the first or the second one."""
    for one in plain(1):
        assert isinstance(one, NewOrder)
        for two in _changes({1: one.side}, 2):
            sides = {1: one.side, 2: two.side if isinstance(two, NewOrder) else BUY}
            for three, four in product(_changes(sides, 3), _changes(sides, 4)):
                yield (definition(), one, two, three, four)


def _changes(sides: dict[int, int], ident: int) -> list[Command]:
    """8 new orders, and for each order that may rest, a cancel and 6 replaces."""
    changes: list[Command] = plain(ident)
    for old, side in sides.items():
        changes.append(CancelOrder(1, old))
        changes += [ReplaceOrder(side, GTC, 0, 1, old, price, total) for price in PRICES for total in (1, 2, 3)]
    return changes


def before_the_open() -> Iterator[tuple[Command, ...]]:
    first: list[Command] = [definition(PRE_OPEN)]
    opened: list[Command] = [SetTradingState(OPEN, 1)]
    return product(first, any_style(1), any_style(2), opened, plain(3))


def play(worlds: Iterable[tuple[Command, ...]]) -> int:
    """Hold the engine's whole report stream and state in every world against the naive matcher and the laws."""
    count = 0
    for world in worlds:
        records = to_records(command.pack() for command in world)
        engine = ReferenceEngine(CAPACITY)
        _, reports = engine.apply(records)
        expected = Naive().reports(world)
        if list(REPORT.iter_unpack(reports)) != expected:
            raise AssertionError(explain(world, bytes(reports), expected))
        check_laws(records, bytes(reports), capacity=CAPACITY, after=engine.snapshot())
        engine.check()
        count += 1
    return count


def explain(world: Iterable[Command], reports: bytes, expected: list[tuple[int, ...]]) -> str:
    lines = ["world", *(f"  {line}" for line in describe(list(world)))]
    lines += ["engine", *(f"  {report.sequence} {format_report(report)}" for report in unpack_reports(reports))]
    lines += ["naive", *(f"  {fields[0]} {format_report(Report._make(fields))}" for fields in expected)]
    return "\n".join(lines)


def test_every_world_of_three_orders_of_any_style_comes_out_as_the_rules_say():
    """85,184 worlds: 44 orders, three times (MATCH-1 .. MATCH-5, TIF-1 .. TIF-3, MARKET-1, POST-1 .. POST-3)."""
    assert play(three_of_any_style()) == 44**3 == 85_184


def test_every_world_of_four_plain_orders_comes_out_as_the_rules_say():
    """8,192 worlds: three good-till-canceled orders and one that may also expire (MATCH-1 .. MATCH-5)."""
    assert play(four_plain()) == 8**3 * 16 == 8_192


def test_every_world_of_two_accounts_comes_out_as_the_rules_say():
    """30,720 worlds: 8 orders of account 1, 16 of either, 240 takers in five modes (STP-1 .. STP-7, TIF-4)."""
    assert play(self_trades()) == 8 * 16 * 240 == 30_720


def test_every_world_of_a_replaced_taker_comes_out_as_the_rules_say():
    """23,040 worlds: 128 pairs of orders, one of the two replaced in 90 ways (RPL-2 .. RPL-7, STP-2)."""
    assert play(replaced_takers()) == 128 * 2 * 90 == 23_040


def test_every_world_of_a_replace_in_a_queue_comes_out_as_the_rules_say():
    """18,432 worlds: three orders, the first or second replaced in 18 ways (RPL-1, RPL-4 .. RPL-6, POST-1, POST-2)."""
    assert play(replaced_in_a_queue()) == 8**3 * 2 * 18 == 18_432


def test_every_world_of_cancels_and_replaces_comes_out_as_the_rules_say():
    """58,080 worlds: 8 orders, then 15, 22 and 22 changes (CANCEL-1, CANCEL-2, RPL-1 .. RPL-5, NEW-2)."""
    assert play(cancels_and_replaces()) == 8 * 15 * 22 * 22 == 58_080


def test_every_world_before_the_open_comes_out_as_the_rules_say():
    """15,488 worlds: two orders of any style in a pre-open book, then it opens for a plain one (STATE-1, STATE-2)."""
    assert play(before_the_open()) == 44 * 44 * 8 == 15_488


WORLDS = (World(), World(low=-2, high=2, accounts=1, references=8), World(instruments=3, quantity_max=2**31 - 6))


@given(st.sampled_from(WORLDS).flatmap(streams))
def test_the_naive_matcher_and_the_engine_agree_in_larger_worlds(stream):
    """MATCH-7, MASS-1, MASS-2, STATE-3, INSTR-2: what tiny worlds are too small for."""
    engine = ReferenceEngine(CAPACITY)

    _, reports = engine.apply(to_records(command.pack() for command in stream))

    expected = Naive().reports(stream)
    assert list(REPORT.iter_unpack(reports)) == expected, explain(stream, bytes(reports), expected)
