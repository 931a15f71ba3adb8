"""`ferrox.reference`: its structures, the `check` that guards them, and the seam."""

from collections.abc import Callable

import pytest

from ferrox.engine import Capacity
from ferrox.errors import SnapshotCorrupt
from ferrox.messages import DefineInstrument, unpack_reports
from ferrox.reference import ReferenceEngine
from ferrox.reference.book import Book, BookSide, Level, Order, same_account
from ferrox.terms import ReportKind, Side, compose_order_id
from ferrox.testing.sessions import apply_all, read_session, run_session, session_records, to_record, to_records
from ferrox.text import format_report, parse_command

CAPACITY = Capacity(orders=16, instruments=4)


def play(text: str) -> ReferenceEngine:
    """Apply the commands of a session, whatever comes out."""
    engine = ReferenceEngine(CAPACITY)
    apply_all(engine, session_records(read_session(text)))
    return engine


def order(ident: int, price: int = 5, leaves: int = 1, side: int = Side.BUY) -> Order:
    return Order(ident, 1, side, price, leaves)


# ---------------------------------------------------------------------------------------------- level and side


def test_a_level_gives_its_orders_oldest_first():
    """MATCH-2, MATCH-5."""
    level = Level(5)
    orders = [order(ident) for ident in (3, 1, 2)]
    for each in orders:
        level.append(each)

    assert list(level.orders()) == orders
    assert level.oldest() is orders[0]


def test_an_order_that_left_is_passed_over():
    side = BookSide(Side.BUY)
    orders = [order(ident) for ident in range(1, 5)]
    for each in orders:
        side.rest(each)

    side.leave(orders[0])
    side.leave(orders[2])

    [level] = side.in_order()
    assert list(side.orders()) == [orders[1], orders[3]]
    assert level.oldest() is orders[1]
    assert level.count == 2


@pytest.mark.parametrize(("side", "best_first"), [(Side.BUY, [3, 1, 0, -2]), (Side.SELL, [-2, 0, 1, 3])])
def test_a_side_stands_best_price_first(side: int, best_first: list[int]):
    """MATCH-1, INSTR-3: zero and negative prices are prices like any other."""
    book_side = BookSide(side)
    for ident, price in enumerate((1, -2, 3, 0), 1):
        book_side.rest(order(ident, price, side=side))

    best = book_side.best()

    assert [level.price for level in book_side.in_order()] == best_first
    assert best is not None
    assert best.price == best_first[0]


def test_the_last_order_of_a_level_takes_it_along():
    side = BookSide(Side.SELL)
    orders = [order(ident, price, side=Side.SELL) for ident, price in enumerate((1, 2, 3), 1)]
    for each in orders:
        side.rest(each)

    side.leave(orders[1])
    assert [level.price for level in side.in_order()] == [1, 3]
    side.leave(orders[0])
    side.leave(orders[2])

    assert side.best() is None
    assert not side.levels


def test_an_empty_side_reaches_no_limit():
    side = BookSide(Side.SELL)

    assert not side.reaches(-(2**63))
    assert side.best_within(-(2**63)) is None


def test_a_limit_is_reached_by_the_same_price_and_better():
    """MATCH-1."""
    side = BookSide(Side.SELL)
    side.rest(order(1, 5, side=Side.SELL))

    assert [side.reaches(-limit) for limit in (4, 5, 6)] == [False, True, True]
    assert [side.best_within(-limit) is not None for limit in (4, 5, 6)] == [False, True, True]


def test_orders_are_of_one_account_by_their_high_bits():
    """STP-1."""
    one, same, other = (order(compose_order_id(*pair)) for pair in ((7, 1), (7, 2), (8, 1)))

    assert same_account(one, same)
    assert not same_account(one, other)
    assert same_account(order(1), order(2)), "account 0 is an account"


class Counted:
    """An order that counts how often a structure looks at it."""

    looks = 0

    def __init__(self, leaves: int = 1) -> None:
        self.price = 5
        self.number = leaves

    @property
    def leaves(self) -> int:
        Counted.looks += 1
        return self.number

    @leaves.setter
    def leaves(self, number: int) -> None:
        self.number = number


def counted() -> Order:
    made: object = Counted()
    assert isinstance(made, Counted)
    return made  # type: ignore[return-value]  # it has what a queue asks of an order


def test_a_queue_stays_short_and_cancels_stay_cheap_when_orders_come_and_go_behind_a_resting_head():
    """100,000 orders come and go: the queue is bounded by the living, and no cancel walks it."""
    side = BookSide(Side.BUY)
    side.rest(counted())
    Counted.looks = longest = 0

    for _ in range(100_000):
        each = counted()
        side.rest(each)
        side.leave(each)
        longest = max(longest, len(side.levels[5].queue))

    assert longest <= 2 * 2 + 16 + 1
    assert Counted.looks <= 4 * 100_000


def test_a_queue_that_only_loses_orders_is_swept_as_well():
    """100,000 orders leave from behind a resting head, and none comes: memory is bounded by the living."""
    side = BookSide(Side.BUY)
    orders = [counted() for _ in range(100_001)]
    for each in orders:
        side.rest(each)
    Counted.looks = 0

    for each in orders[1:]:
        side.leave(each)

    assert list(side.orders()) == orders[:1]
    assert len(side.levels[5].queue) <= 2 * 1 + 16
    assert Counted.looks <= 4 * 100_000


def test_a_sweep_keeps_the_living_in_their_order():
    level = Level(5)
    orders = [order(ident) for ident in range(1, 41)]
    kept = orders[::4]
    for each in orders:
        level.append(each)
        if each not in kept:
            each.leaves = 0
            level.count -= 1

    level.append(order(99))

    assert [each.id for each in level.orders()] == [*(each.id for each in kept), 99]


# ------------------------------------------------------------------------------------------- ids that come again


def test_an_id_that_is_used_again_does_not_revive_its_old_place():
    """NEW-2, MATCH-2: the old place is passed over, the new one is at the back."""
    session = read_session("""
        buy  #9 1 @ 100    -> new #9 1 @ 100
        buy  #1 1 @ 100    -> new #1 1 @ 100
        buy  #2 1 @ 100    -> new #2 1 @ 100
        cancel #1          -> canceled #1 1 @ 100
        buy  #1 1 @ 100    -> new #1 1 @ 100
        book 1             -> bid 100: #9 1, #2 1, #1 1
        sell #3 2 @ 100    -> new #3 2 @ 100; trade #3 1 @ 100 with #9 leaves 1; trade #3 1 @ 100 with #2
        book 1             -> bid 100: #1 1
    """)

    engine = run_session(session, ReferenceEngine(CAPACITY))

    assert isinstance(engine, ReferenceEngine)
    engine.check()


def test_an_order_that_goes_and_comes_back_to_a_price_stands_at_the_back_once():
    """RPL-5: twice moved, three tombstones, one place."""
    session = read_session("""
        buy  #1 1 @ 100            -> new #1 1 @ 100
        buy  #2 1 @ 100            -> new #2 1 @ 100
        replace buy #1 1 @ 101     -> replaced #1 1 @ 101
        replace buy #1 1 @ 100     -> replaced #1 1 @ 100
        replace buy #1 2 @ 100     -> replaced #1 2 @ 100
        book 1                     -> bid 100: #2 1, #1 2
        sell #3 3 @ 100            -> new #3 3 @ 100; trade #3 1 @ 100 with #2 leaves 2; trade #3 2 @ 100 with #1
        book 1                     -> empty
    """)

    run_session(session, ReferenceEngine(CAPACITY))


def test_an_id_that_comes_back_on_the_other_side_or_in_another_instrument_is_one_order():
    """NEW-2, CANCEL-2."""
    engine = play("""
        instrument 1 tick 1 lot 1 band 0 9 open -> defined
        instrument 2 tick 1 lot 1 band 0 9 open -> defined
        buy #1 1 @ 5      -> new
        cancel #1         -> canceled
        sell #1 1 @ 5     -> new
        cancel #1         -> canceled
        buy #1 1 @ 5 on 2 -> new
    """)

    engine.check()
    assert [len(list(book.orders())) for book in engine.books.values()] == [0, 1]


# -------------------------------------------------------------------------------------------------- the check


def traded() -> ReferenceEngine:
    """Two instruments, three levels, a partly filled order and a tombstone."""
    engine = play("""
        instrument 1 tick 2 lot 5 band 0 100 open -> defined
        instrument 2 tick 1 lot 1 band 0 100 open -> defined
        buy  #1 10 @ 50 -> new
        buy  #2 10 @ 50 -> new
        buy  #3 10 @ 48 -> new
        sell #4 10 @ 60 -> new
        sell #5 5 @ 50  -> new
        cancel #2       -> canceled
    """)
    engine.check()
    return engine


def change_leaves(engine: ReferenceEngine) -> None:
    engine.orders[3].leaves = 7


def change_filled(engine: ReferenceEngine) -> None:
    engine.orders[3].filled = -5


def empty_an_order(engine: ReferenceEngine) -> None:
    engine.orders[3].leaves = 0


def make_leaves_negative(engine: ReferenceEngine) -> None:
    engine.orders[3].leaves = -5


def change_a_price(engine: ReferenceEngine) -> None:
    engine.orders[3].price = 50


def change_a_side(engine: ReferenceEngine) -> None:
    engine.orders[3].side = Side.SELL


def change_an_instrument(engine: ReferenceEngine) -> None:
    engine.orders[3].instrument = 2


def forget_an_id(engine: ReferenceEngine) -> None:
    del engine.orders[3]


def know_an_id_too_many(engine: ReferenceEngine) -> None:
    engine.orders[6] = order(6)


def find_another_order(engine: ReferenceEngine) -> None:
    engine.orders[3] = order(3, 48, 10)


def exchange_ids(engine: ReferenceEngine) -> None:
    engine.orders[1], engine.orders[3] = engine.orders[3], engine.orders[1]


def count_wrongly(engine: ReferenceEngine) -> None:
    engine.books[1].bids.levels[50].count = 2


def forget_a_level(engine: ReferenceEngine) -> None:
    del engine.books[1].bids.levels[48]


def keep_an_empty_level(engine: ReferenceEngine) -> None:
    engine.books[1].bids.levels[46] = Level(46)
    engine.books[1].bids.ranks.insert(0, 46)


def name_a_level_wrongly(engine: ReferenceEngine) -> None:
    engine.books[1].bids.levels[48].price = 46


def forget_a_rank(engine: ReferenceEngine) -> None:
    engine.books[1].bids.ranks.pop()


def rank_twice(engine: ReferenceEngine) -> None:
    engine.books[1].bids.ranks.insert(0, 48)


def rank_out_of_order(engine: ReferenceEngine) -> None:
    engine.books[1].bids.ranks.reverse()


def cross_the_book(engine: ReferenceEngine) -> None:
    ask = Order(7, 1, Side.SELL, 50, 5)
    engine.books[1].asks.rest(ask)
    engine.orders[7] = ask


def narrow_the_band(engine: ReferenceEngine) -> None:
    engine.books[1].high = 58


def turn_the_band(engine: ReferenceEngine) -> None:
    engine.books[2].low, engine.books[2].high = 9, 8


def change_the_tick(engine: ReferenceEngine) -> None:
    engine.books[1].tick = 4


def change_the_lot(engine: ReferenceEngine) -> None:
    engine.books[1].lot = 10


def change_the_state(engine: ReferenceEngine) -> None:
    engine.books[1].state = 5


def misplace_a_book(engine: ReferenceEngine) -> None:
    engine.books[3] = engine.books.pop(2)


def rest_twice(engine: ReferenceEngine) -> None:
    engine.books[1].bids.rest(engine.orders[3])


def shrink_the_orders(engine: ReferenceEngine) -> None:
    engine.capacity = Capacity(2, 4)


def shrink_the_instruments(engine: ReferenceEngine) -> None:
    engine.capacity = Capacity(16, 1)


CORRUPTIONS: list[Callable[[ReferenceEngine], None]] = [
    change_leaves,
    change_filled,
    empty_an_order,
    make_leaves_negative,
    change_a_price,
    change_a_side,
    change_an_instrument,
    forget_an_id,
    know_an_id_too_many,
    find_another_order,
    exchange_ids,
    count_wrongly,
    forget_a_level,
    keep_an_empty_level,
    name_a_level_wrongly,
    forget_a_rank,
    rank_twice,
    rank_out_of_order,
    cross_the_book,
    narrow_the_band,
    turn_the_band,
    change_the_tick,
    change_the_lot,
    change_the_state,
    misplace_a_book,
    rest_twice,
    shrink_the_orders,
    shrink_the_instruments,
]


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: corrupt.__name__)
def test_a_corrupt_engine_fails_its_check(corrupt: Callable[[ReferenceEngine], None]):
    engine = traded()

    corrupt(engine)

    with pytest.raises(AssertionError):
        engine.check()


# --------------------------------------------------------------------------------------------------- the seam


def test_no_records_give_no_reports():
    engine = ReferenceEngine(CAPACITY)
    before = engine.snapshot()

    taken, reports = engine.apply(b"")

    assert (taken, bytes(reports)) == (0, b"")
    assert engine.snapshot() == before


def test_reports_cannot_be_written_and_stay_valid_until_the_next_call():
    engine = ReferenceEngine(CAPACITY)

    _, reports = engine.apply(to_records([parse_command("instrument 1 tick 1 lot 1 band 0 9 open")]))

    assert reports.readonly
    engine.snapshot()
    assert unpack_reports(reports)[0].kind == ReportKind.INSTRUMENT_DEFINED


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_records_may_stand_in_any_buffer(kind: type):
    engine = ReferenceEngine(CAPACITY)
    records = to_records([parse_command("instrument 1 tick 1 lot 1 band 0 9 open")])

    taken, _ = engine.apply(kind(records))

    assert taken == 1


@pytest.mark.parametrize("size", [1, 63, 65])
def test_a_part_of_a_record_is_a_value_error(size: int):
    with pytest.raises(ValueError, match=f"whole frames of 64 bytes, these are {size}"):
        ReferenceEngine(CAPACITY).apply(bytes(size))


def test_an_engine_without_a_capacity_has_the_default_one():
    """LIM-7, LIM-8."""
    assert ReferenceEngine().capacity == Capacity(1_048_576, 16_384)


@pytest.mark.parametrize("capacity", [Capacity(15, 4), Capacity(16, 5)])
def test_a_snapshot_of_other_capacities_is_refused_with_both(capacity: Capacity):
    """SNAP-5."""
    engine = traded()
    before = engine.snapshot()

    with pytest.raises(SnapshotCorrupt, match=f"{capacity.orders} orders and {capacity.instruments} instruments, this"):
        engine.restore(ReferenceEngine(capacity).snapshot())

    assert engine.snapshot() == before


def test_a_restored_engine_has_forgotten_what_it_held():
    engine = traded()

    engine.restore(ReferenceEngine(CAPACITY).snapshot())

    engine.check()
    assert not engine.orders
    assert not engine.books


def test_an_instrument_defined_again_has_a_new_book():
    """INSTR-2."""
    engine = play("""
        instrument 1 tick 1 lot 1 band 0 9 closed -> defined
        instrument 1 tick 5 lot 2 band -5 5 open  -> defined
    """)

    assert engine.books[1].definition() == DefineInstrument(2, 1, -5, 5, 5, 2)


def test_a_book_is_empty_when_no_order_rests_on_either_side():
    book = Book(DefineInstrument(2, 1, 0, 9, 1, 1))

    assert book.empty()
    book.asks.rest(order(1, side=Side.SELL))
    assert not book.empty()


def test_a_fill_or_kill_order_is_decided_before_anything_changes():
    """TIF-3."""
    engine = play("""
        sell #1 5 @ 100 -> new
        sell #2 5 @ 101 -> new
    """)
    before = engine.snapshot()

    _, reports = engine.apply(to_record(4, parse_command("buy #3 11 @ 101 fok")))

    assert [format_report(report) for report in unpack_reports(reports)] == [
        "new #3 11 @ 101",
        "expired #3 11 @ 101",
    ]
    assert engine.snapshot()[32:] == before[32:]
