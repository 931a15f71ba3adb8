"""Books kept from reports are the engine's own, at three depths, whatever the reports say and however they come."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrox.depth import Books, ForeignReport, Level, QueuePosition, Top
from ferrox.engine import Capacity
from ferrox.errors import UsageError
from ferrox.messages import (
    RECORD,
    REPORT_SIZE,
    CancelOrder,
    DefineInstrument,
    MassCancel,
    NewOrder,
    ReplaceOrder,
    Report,
    SetLimit,
    SetTradingState,
    unpack_reports,
)
from ferrox.reference.engine import ReferenceEngine
from ferrox.state import RestingOrder, unpack_state
from ferrox.terms import OrderFlag, ReportFlag, ReportKind, SelfTrade, compose_order_id
from ferrox.text import parse_command

POST_ONLY, SLIDE, MARKET = OrderFlag.POST_ONLY, OrderFlag.SLIDE, OrderFlag.MARKET
LAST = int(ReportFlag.LAST)


class Told:
    """A reference engine that is told one command after the other, and its reports."""

    def __init__(self):
        self.engine = ReferenceEngine(Capacity(orders=24, instruments=4))
        self.sequence = 0

    def tell(self, frame):
        self.sequence += 1
        padded = frame.ljust(32, b"\0")
        record = RECORD.pack(0, 0, self.sequence, self.sequence, frame[0], len(frame), 0, 0, *unshape(padded))
        return bytes(self.engine.apply(record)[1])

    def tell_lines(self, lines):
        return b"".join(self.tell(parse_command(line)) for line in lines.strip().splitlines())

    def state(self):
        return unpack_state(self.engine.snapshot())


def unshape(frame):
    return np.frombuffer(frame, "<u1,<u1,<u1,<u1,<u4,<i8,<i8,<u4,<u4")[0].tolist()


def random_command(rng):
    """One command of a crowded little world, where everything meets everything."""
    instrument = rng.choice((1, 1, 1, 2))
    order_id = compose_order_id(rng.randrange(3), rng.randrange(1, 12))
    side, price, quantity = rng.choice((1, 2)), rng.randrange(0, 9), rng.randrange(1, 9)
    stp = rng.choice(list(SelfTrade)) << 4
    kind = rng.random()
    if kind < 0.45:
        flags = stp | rng.choice((0, 0, 0, POST_ONLY, POST_ONLY | SLIDE))
        time_in_force = 1 if flags & POST_ONLY else rng.choice((1, 1, 1, 2, 3))
        return NewOrder(side, time_in_force, flags, instrument, order_id, price, quantity)
    if kind < 0.52:
        return NewOrder(side, rng.choice((2, 3)), MARKET | stp, instrument, order_id, 0, quantity)
    if kind < 0.75:
        flags = stp | rng.choice((0, 0, POST_ONLY, POST_ONLY | SLIDE))
        return ReplaceOrder(side, 1, flags, instrument, order_id, price, quantity)
    if kind < 0.88:
        return CancelOrder(instrument, order_id)
    if kind < 0.91:
        scope = rng.choice((1, 2, 3, 4))
        return MassCancel(scope, instrument if scope in (1, 3) else 0, rng.randrange(3) if scope in (2, 3) else 0)
    if kind < 0.92:
        return SetLimit(1, 0, rng.randrange(3), rng.choice((0, 1)))
    if kind < 0.95:
        return SetTradingState(rng.choice((1, 2, 2, 2, 2, 3, 4)), instrument)
    return DefineInstrument(2, rng.choice((1, 2, 3)), 0, rng.choice((6, 8)), rng.choice((1, 2)), 1)


def opening():
    return [DefineInstrument(2, instrument, 0, 8, 1, 1) for instrument in (1, 2)]


def assert_same(books, state):
    assert books.definitions() == state.instruments
    assert books.orders() == state.orders
    assert books.order_count == len(state.orders)
    books.check()


@given(st.randoms(use_true_random=False), st.integers(1, 120))
def test_books_of_reports_equal_the_engines_snapshot_after_every_command(rng, count):
    told, books = Told(), Books()
    for command in [*opening(), *(random_command(rng) for _ in range(count))]:
        books.fold(told.tell(command.pack()))

        assert_same(books, told.state())
        assert books.sequence == told.sequence


def test_the_little_world_gives_reports_of_every_kind_and_flag():
    rng = random.Random(7)
    told = Told()
    commands = [*opening(), *(random_command(rng) for _ in range(4000))]
    reports = unpack_reports(b"".join(told.tell(command.pack()) for command in commands))

    assert {report.kind for report in reports} == set(ReportKind)
    assert {flag for flag in ReportFlag if any(report.flags & flag for report in reports)} == set(ReportFlag)
    assert {report.reason for report in reports} >= {64, 65, 66}
    assert any(report.kind == ReportKind.CANCELED and report.reason == 64 and report.leaves for report in reports)


@given(st.randoms(use_true_random=False), st.integers(1, 80), st.data())
def test_reports_may_begin_before_the_snapshot_come_twice_and_be_split_anywhere(rng, count, data):
    told = Told()
    stream = b"".join(told.tell(command.pack()) for command in opening())
    states = []
    for _ in range(count):
        states.append(told.state())
        stream += told.tell(random_command(rng).pack())
    state = data.draw(st.sampled_from(states))
    books = Books(state)

    frames = len(stream) // REPORT_SIZE
    cuts = sorted(data.draw(st.lists(st.integers(0, frames), max_size=6)))
    for start, stop in zip([0, *cuts], [*cuts, frames], strict=True):
        books.fold(stream[start * REPORT_SIZE : stop * REPORT_SIZE])
    books.fold(memoryview(stream))

    assert_same(books, told.state())
    assert books.sequence == told.sequence


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def books(told):
    """A book with two levels a side; see the ladder below."""
    lines = """
        instrument 1 tick 1 lot 1 band 0 1000 open
        buy #1 10 @ 99
        buy #2 5 @ 99
        buy #7/1 1200 @ 98
        sell #3 4 @ 101
        sell #4 6 @ 103
        sell #5 2 @ 103
        sell #6 3 @ 99
    """
    books = Books()
    books.fold(told.tell_lines(lines))
    return books


def test_the_top_is_both_best_prices_with_all_that_rests_there(books):
    top = books[1].top()

    assert top == Top(instrument=1, sequence=8, bid=99, bid_quantity=12, ask=101, ask_quantity=4)
    assert (top.spread, top.middle) == (2, 100.0)
    assert repr(top) == "<Top of 1: 12 @ 99 | 4 @ 101>"


def test_the_top_of_an_empty_side_is_none(told, books):
    books.fold(told.tell_lines("mass-cancel all"))

    assert books[1].top() == Top(1, 9, None, 0, None, 0)
    assert books[1].top().spread is None
    assert books[1].top().middle is None
    assert repr(books[1].top()) == "<Top of 1: no bid | no ask>"
    assert repr(books[1].depth()) == "<Depth of 1 at sequence 9: empty>"


def test_depth_sums_the_orders_of_each_level(books):
    depth = books[1].depth()

    assert depth.bid_levels == (Level(99, 12, 2), Level(98, 1200, 1))
    assert depth.ask_levels == (Level(101, 4, 1), Level(103, 8, 2))
    assert depth.bids["price"].tolist() == [99, 98]
    assert depth.asks["quantity"].tolist() == [4, 8]
    assert not depth.asks.flags.writeable
    assert books[1].depth(1).ask_levels == (Level(101, 4, 1),)
    assert books[1].depth(9) == depth
    with pytest.raises(ValueError, match="levels is 0"):
        books[1].depth(0)


def test_depth_is_drawn_as_a_ladder(books):
    assert repr(books[1].depth()).splitlines() == [
        "<Depth of 1 at sequence 8: 2 bid levels, 2 ask levels>",
        "        bids  price  asks",
        "                103     8  (2)",
        "                101     4  (1)",
        "  (2)     12     99",
        "  (1)  1,200     98",
    ]
    html = books[1].depth()._repr_html_()
    assert html.count("<tr>") == 5
    assert "8 (2)" in html


def test_orders_stand_in_priority_order(books):
    orders = books[1].orders()

    assert [order.order_id for order in orders] == [1, 2, (7 << 40) + 1, 3, 4, 5]
    assert orders[0] == RestingOrder(order_id=1, price=99, leaves=7, filled=3, instrument=1, side=1)
    assert orders.bids["leaves"].tolist() == [7, 5, 1200]
    assert orders.asks["order_id"].tolist() == [3, 4, 5]
    assert orders[1:3] == tuple(orders)[1:3]
    assert orders == books[1].orders()
    assert hash(orders) == hash(books[1].orders())
    assert orders != 1
    assert repr(orders).splitlines() == [
        "<Orders of 1 at sequence 8: 6 orders>",
        "  bid 99: #1 7, #2 5",
        "  bid 98: #7/1 1200",
        "  ask 101: #3 4",
        "  ask 103: #4 6, #5 2",
    ]


def test_a_long_queue_is_abridged(told, books):
    books.fold(told.tell_lines("\n".join(f"buy #{number} 1 @ 50" for number in range(100, 112))))

    assert "bid 50: #100 1, #101 1, #102 1, #103 1, #104 1, #105 1, ... 5 more ..., #111 1" in repr(books[1].orders())


def test_a_queue_position_tells_what_stands_ahead_and_behind(told, books):
    assert books[1].queue_position(2) == QueuePosition(2, 99, 5, 1, 7, 0, 0)
    assert books[1].queue_position(1) == QueuePosition(1, 99, 7, 0, 0, 1, 5)

    books.fold(told.tell_lines("replace buy #1 20 @ 99"))

    assert books[1].queue_position(1) == QueuePosition(1, 99, 17, 1, 5, 0, 0)
    with pytest.raises(UsageError, match="order #9 does not rest in instrument 1"):
        books[1].queue_position(9)


def test_values_stay_and_views_move_on(told, books):
    view = books[1]
    before = view.depth()

    books.fold(told.tell_lines("state 1 halted\ncancel #3"))

    assert before.ask_levels[0].price == 101
    assert view.depth().ask_levels[0].price == 103
    assert view.state.name == "HALTED"
    assert repr(view) == "<BookView of 1, halted: <Top of 1: 12 @ 99 | 8 @ 103>>"


def test_books_are_a_collection_of_instruments(books):
    assert (list(books), len(books), 1 in books, 2 in books) == ([1], 1, True, False)
    assert repr(books) == "<Books: 1 instrument, 6 orders, sequence 8>"
    assert books.order(3) == RestingOrder(3, 101, 4, 0, 1, 2)
    assert books.order(6) is None
    with pytest.raises(UsageError, match="instrument 2 is not defined; defined are: 1"):
        books[2]
    with pytest.raises(UsageError, match="none is defined"):
        Books()[1]


def report(
    kind, order_id=0, *, sequence=9, contra_id=0, price=0, quantity=0, leaves=0, instrument=1, side=0, flags=LAST
):
    return Report(sequence, order_id, contra_id, price, quantity, leaves, instrument, kind, side, 0, flags).pack()


NEW_8 = report(ReportKind.NEW, 8, price=101, quantity=9, leaves=9, side=1, flags=0)
TRADE_8 = {"price": 101, "quantity": 4, "leaves": 5, "side": 1, "contra_id": 3}


@pytest.mark.parametrize(
    ("frames", "found"),
    [
        (NEW_8 + report(ReportKind.TRADE, 8, **TRADE_8 | {"contra_id": 77}), "its maker #77 does not rest"),
        (NEW_8 + report(ReportKind.TRADE, 8, **TRADE_8 | {"price": 100}), "its maker rests as RestingOrder"),
        (NEW_8 + report(ReportKind.TRADE, 8, **TRADE_8 | {"quantity": 5, "leaves": 4}), "its maker rests as"),
        (NEW_8 + report(ReportKind.TRADE, 8, **TRADE_8 | {"side": 2}), "its maker rests as"),
        (NEW_8 + report(ReportKind.TRADE, 8, **TRADE_8 | {"leaves": 4}), "the order in flight is RestingOrder"),
        (
            NEW_8 + report(ReportKind.TRADE, 8, **TRADE_8 | {"contra_id": 4, "price": 103}),
            "the best price opposite is 101",
        ),
        (report(ReportKind.TRADE, 8, **TRADE_8), "no order is in flight"),
        (report(ReportKind.EXPIRED, 8, quantity=9), "no order is in flight"),
        (report(ReportKind.NEW, 1, price=9, quantity=9, leaves=9, side=1), "order #1 already works"),
        (report(ReportKind.NEW, 8, instrument=2, side=1), "its instrument is unknown; defined are: 1"),
        (report(ReportKind.STATE_CHANGED, instrument=2, side=1), "its instrument is unknown"),
        (report(ReportKind.INSTRUMENT_DEFINED, side=2, quantity=1, leaves=1), "orders rest in that instrument"),
        (report(ReportKind.CANCELED, 77, quantity=1), "no such order rests"),
        (report(ReportKind.CANCELED, 1, price=99, quantity=6, side=1), "that order rests as RestingOrder"),
        (NEW_8 + report(ReportKind.CANCELED, 8, quantity=4), "the order in flight is"),
        (report(ReportKind.REPLACED, 77), "no such order rests"),
        (report(ReportKind.REPLACED, 1, quantity=9, leaves=9, side=1), "that order rests as"),
        (
            report(ReportKind.REPLACED, 1, price=98, quantity=8, leaves=5, side=1, flags=LAST | 2),
            "it keeps its place",
        ),
        (NEW_8 + report(ReportKind.REJECTED, sequence=10), "the last report of command 9 has not come yet"),
        (report(99), "report kind 99 is not one of"),
    ],
)
def test_a_report_that_cannot_follow_is_refused_by_name(books, frames, found):
    with pytest.raises(ForeignReport, match=found) as caught:
        books.fold(frames)

    assert "sequence" in str(caught.value)
    assert "cannot belong to these books" in str(caught.value)
    assert caught.value.report.sequence in (9, 10)


def test_half_a_frame_is_refused(books):
    with pytest.raises(ValueError, match="whole frames of 48 bytes, these are 47"):
        books.fold(bytes(47))
