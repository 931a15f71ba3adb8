"""Defects that other matching engines had, each of them told here as a session that every engine has to get right.

A test names the defect; its docstring says who had it.  Each session is played three ways, command by command, in one
batch, and from a snapshot of the line before, and the whole report stream is compared every time.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from ferrox.engine import ENGINES, Capacity, Engine, make_engine
from ferrox.errors import SequenceError
from ferrox.messages import REPORT_DTYPE, unpack_reports
from ferrox.state import unpack_state
from ferrox.terms import PRICE_MAX, QUANTITY_MAX, ReportKind
from ferrox.testing.sessions import apply_all, read_session, run_session, to_record, to_records
from ferrox.testing.workload import Shape, Workload
from ferrox.text import format_report, parse_command

CAPACITY = Capacity(orders=4096, instruments=64)


@pytest.fixture(params=ENGINES)
def engine_name(request) -> str:
    return str(request.param)


@pytest.fixture
def make(engine_name: str) -> Callable[..., Engine]:
    def fresh(orders: int = 4096) -> Engine:
        engine: Engine = make_engine(engine_name, Capacity(orders, 64))
        return engine

    return fresh


@pytest.fixture(params=["one by one", "in one batch", "from snapshots"])
def play(request, make) -> Callable[..., Engine]:
    """Play a session in one of three ways and compare all its reports."""

    def restored(engine: Engine) -> Engine:
        fresh: Engine = make(unpack_state(engine.snapshot()).order_capacity)
        fresh.restore(engine.snapshot())
        return fresh

    def run(lines: str, orders: int = 4096) -> Engine:
        return run_session(
            read_session(lines),
            make(orders),
            batched=request.param == "in one batch",
            between=restored if request.param == "from snapshots" else None,
        )

    return run


def lines_of(reports: bytes) -> list[str]:
    return [format_report(report) for report in unpack_reports(reports)]


def book_of(engine: Engine) -> bytes:
    """Return the snapshot without sequence and time: all that a command may not have changed."""
    snapshot = engine.snapshot()
    return snapshot[:16] + snapshot[32:]


# ------------------------------------------------------------------------------- prices, queues, levels


def test_the_best_price_is_not_stale_after_an_ioc_and_a_cancel(play):
    """nanobook 0.19.2: the best bid stayed at an empty level, and the next market order never returned."""
    play("""
        buy  #1 10 @ 9995      -> new #1 10 @ 9995
        buy  #2 10 @ 9995      -> new #2 10 @ 9995
        sell #3 15 @ 9995 ioc  -> new #3 15 @ 9995; trade #3 10 @ 9995 with #1 leaves 5; trade #3 5 @ 9995 with #2
        cancel #2              -> canceled #2 5 @ 9995
        book 1                 -> empty
        sell #4 5 market       -> new #4 5 @ 0; expired #4 5 @ 0
        sell #5 5 @ 9995       -> new #5 5 @ 9995
    """)


def test_a_trade_happens_at_the_makers_price_whichever_side_takes(play):
    """litebook 0.0.1 (sells traded at their own price), robaho, dx1ngy (MATCH-3)."""
    play("""
        buy  #1 10 @ 100  -> new #1 10 @ 100
        sell #2 10 @ 95   -> new #2 10 @ 95; trade #2 10 @ 100 with #1
        sell #3 10 @ 100  -> new #3 10 @ 100
        buy  #4 10 @ 105  -> new #4 10 @ 105; trade #4 10 @ 100 with #3
        sell #5 10 @ 90   -> new #5 10 @ 90
        buy  #6 10 market -> new #6 10 @ 0; trade #6 10 @ 90 with #5
        buy  #7 10 @ 90   -> new #7 10 @ 90
        sell #8 10 market -> new #8 10 @ 0; trade #8 10 @ 90 with #7
    """)


@pytest.mark.parametrize("times", [[7, 7, 7, 7], [9, 8, 7, 6], [0, 0, 0, 0]], ids=["equal", "backward", "none"])
def test_the_first_to_arrive_trades_first_at_equal_and_at_backward_times(make, times):
    """bourse 0.4.0: time was the priority key, so equal time stamps swapped the queue (MATCH-6)."""
    commands = [
        "instrument 1 tick 1 lot 1 band 0 1000 open",
        "buy #2 10 @ 100",
        "buy #1 10 @ 100",
        "sell #3 10 @ 100",
    ]
    records = b"".join(
        to_record(sequence, parse_command(command), time)
        for sequence, (command, time) in enumerate(zip(commands, times, strict=True), 1)
    )

    assert lines_of(apply_all(make(), records)) == [
        "instrument-defined 1 tick 1 lot 1 band 0 1000 open",
        "new #2 10 @ 100",
        "new #1 10 @ 100",
        "new #3 10 @ 100",
        "trade #3 10 @ 100 with #2",
    ]


def test_a_partly_filled_maker_keeps_its_place(play):
    """OrderBook-rs #88: the rest of a maker went to the back of its queue (MATCH-4)."""
    play("""
        sell #1 10 @ 100  -> new #1 10 @ 100
        sell #2 10 @ 100  -> new #2 10 @ 100
        buy  #3 4 @ 100   -> new #3 4 @ 100; trade #3 4 @ 100 with #1
        buy  #4 8 @ 100   -> new #4 8 @ 100; trade #4 6 @ 100 with #1 leaves 2; trade #4 2 @ 100 with #2
        book 1            -> ask 100: #2 8
    """)


def test_a_reprice_through_the_spread_trades(play):
    """Several engines of one survey: the replaced order rested, and the book stood crossed (RPL-5)."""
    play("""
        sell #1 10 @ 100         -> new #1 10 @ 100
        sell #2 10 @ 102         -> new #2 10 @ 102
        buy  #3 15 @ 90          -> new #3 15 @ 90
        replace buy #3 15 @ 101  -> replaced #3 15 @ 101; trade #3 10 @ 100 with #1 leaves 5
        book 1                   -> bid 101: #3 5; ask 102: #2 10
        replace sell #2 10 @ 99  -> replaced #2 10 @ 99; trade #2 5 @ 101 with #3 leaves 5
        book 1                   -> ask 99: #2 5
    """)


def test_a_sweep_of_several_levels_neither_stops_early_nor_passes_its_limit(play):
    """AlphaTrade #49, geseq #25: a sweep ended after its first level, or went beyond its limit (MATCH-1)."""
    play("""
        sell #1 1 @ 100  -> new #1 1 @ 100
        sell #2 1 @ 101  -> new #2 1 @ 101
        sell #3 1 @ 103  -> new #3 1 @ 103
        sell #4 1 @ 104  -> new #4 1 @ 104
        buy  #5 9 @ 103  -> new #5 9 @ 103; trade #5 1 @ 100 with #1 leaves 8; trade #5 1 @ 101 with #2 leaves 7; trade #5 1 @ 103 with #3 leaves 6
        book 1           -> bid 103: #5 6; ask 104: #4 1
        buy  #6 1 @ 102  -> new #6 1 @ 102
        buy  #7 1 @ 99   -> new #7 1 @ 99
        sell #8 9 @ 102 ioc -> new #8 9 @ 102; trade #8 6 @ 103 with #5 leaves 3; trade #8 1 @ 102 with #6 leaves 2; expired #8 2 @ 102
        book 1           -> bid 99: #7 1; ask 104: #4 1
    """)  # noqa: E501  # a line of a session is one line


def test_no_phantom_level_is_left_by_a_cancel(play):
    """Several engines: a level without orders kept its price or its quantity (CANCEL-1)."""
    play("""
        sell #1 10 @ 100            -> new #1 10 @ 100
        sell #2 10 @ 101            -> new #2 10 @ 101
        cancel #1                   -> canceled #1 10 @ 100
        buy  #3 10 @ 100 post-only  -> new #3 10 @ 100
        buy  #4 10 @ 100 fok        -> new #4 10 @ 100; expired #4 10 @ 100
        buy  #5 10 @ 101 post-only slide -> new #5 10 @ 100 slid
        cancel #3                   -> canceled #3 10 @ 100
        cancel #5                   -> canceled #5 10 @ 100
        sell #6 1 market            -> new #6 1 @ 0; expired #6 1 @ 0
        book 1                      -> ask 101: #2 10
    """)


def test_the_orders_of_a_level_that_comes_back_are_only_the_new_ones(play):
    """Lazily emptied levels: what was there before must not come back with the price."""
    play("""
        buy  #1 10 @ 100  -> new #1 10 @ 100
        cancel #1         -> canceled #1 10 @ 100
        buy  #2 10 @ 100  -> new #2 10 @ 100
        sell #3 10 @ 100  -> new #3 10 @ 100; trade #3 10 @ 100 with #2
        buy  #4 1 @ 100   -> new #4 1 @ 100
        sell #5 2 @ 100 ioc -> new #5 2 @ 100; trade #5 1 @ 100 with #4 leaves 1; expired #5 1 @ 100
        book 1            -> empty
    """)


# ---------------------------------------------------------------------------------------- ids and cancels


def test_a_cancel_of_a_filled_order_is_refused(play):
    """lightmatchingengine #18 and others: it was acknowledged, or ended in an assertion (CANCEL-2)."""
    play("""
        sell #1 10 @ 100         -> new #1 10 @ 100
        buy  #2 10 @ 100         -> new #2 10 @ 100; trade #2 10 @ 100 with #1
        cancel #1                -> cancel-rejected #1 unknown-order
        cancel #2                -> cancel-rejected #2 unknown-order
        replace sell #1 5 @ 100  -> replace-rejected #1 unknown-order
        buy  #3 10 @ 100 ioc     -> new #3 10 @ 100; expired #3 10 @ 100
        cancel #3                -> cancel-rejected #3 unknown-order
    """)


def test_a_duplicate_of_a_live_id_does_not_touch_the_queue(play):
    """Kautenja #4: the second order overwrote the first one's entry, and the queue was corrupt (NEW-2)."""
    play("""
        buy  #1 10 @ 100  -> new #1 10 @ 100
        buy  #2 10 @ 100  -> new #2 10 @ 100
        buy  #1 99 @ 101  -> rejected #1 duplicate-order-id
        sell #2 5 @ 100   -> rejected #2 duplicate-order-id
        buy  #1 1 market  -> rejected #1 duplicate-order-id
        book 1            -> bid 100: #1 10, #2 10
        sell #3 15 @ 100  -> new #3 15 @ 100; trade #3 10 @ 100 with #1 leaves 5; trade #3 5 @ 100 with #2
        cancel #2         -> canceled #2 5 @ 100
    """)


def test_an_id_that_is_used_again_does_not_revive_its_old_place(play):
    """Queues of ids: the id was still in line, and the new order took the old one's place."""
    play("""
        buy  #1 10 @ 100         -> new #1 10 @ 100
        buy  #2 10 @ 100         -> new #2 10 @ 100
        buy  #3 10 @ 100         -> new #3 10 @ 100
        cancel #2                -> canceled #2 10 @ 100
        buy  #2 10 @ 100         -> new #2 10 @ 100
        replace buy #1 11 @ 100  -> replaced #1 11 @ 100
        book 1                   -> bid 100: #3 10, #2 10, #1 11
        sell #4 25 @ 100         -> new #4 25 @ 100; trade #4 10 @ 100 with #3 leaves 15; trade #4 10 @ 100 with #2 leaves 5; trade #4 5 @ 100 with #1
        replace buy #1 12 @ 100  -> replaced #1 12 @ 100 leaves 7
    """)  # noqa: E501  # a line of a session is one line


def test_a_refused_replace_changes_nothing(play):
    """Engines that cancel first and refuse afterwards lost the order (RPL-1)."""
    play("""
        instrument 1 tick 5 lot 10 band 0 200 open  -> instrument-defined 1 tick 5 lot 10 band 0 200 open
        buy  #1 10 @ 100                            -> new #1 10 @ 100
        buy  #2 10 @ 100                            -> new #2 10 @ 100
        sell #3 10 @ 105                            -> new #3 10 @ 105
        replace buy #1 10 @ 101                     -> replace-rejected #1 off-tick
        replace buy #1 15 @ 100                     -> replace-rejected #1 off-lot
        replace buy #1 10 @ 205                     -> replace-rejected #1 outside-band
        replace sell #1 10 @ 100                    -> replace-rejected #1 side-mismatch
        replace buy #1 20 @ 105 post-only           -> replace-rejected #1 would-cross
        replace buy #1 0 @ 100                      -> replace-rejected #1 bad-quantity
        state 1 halted                              -> state-changed 1 halted
        replace buy #1 20 @ 100                     -> replace-rejected #1 not-open
        book 1                                      -> bid 100: #1 10, #2 10; ask 105: #3 10
    """)


def test_a_smaller_quantity_keeps_the_place_and_a_larger_one_loses_it(play):
    """liquibook, nanobook: a smaller quantity went to the back; others let a larger one stay (RPL-4, RPL-5)."""
    play("""
        sell #1 10 @ 100         -> new #1 10 @ 100
        sell #2 10 @ 100         -> new #2 10 @ 100
        replace sell #1 5 @ 100  -> replaced #1 5 @ 100 kept
        buy  #3 1 @ 100          -> new #3 1 @ 100; trade #3 1 @ 100 with #1
        replace sell #1 6 @ 100  -> replaced #1 6 @ 100 leaves 5
        book 1                   -> ask 100: #2 10, #1 5
    """)


def test_an_order_filled_while_a_replace_was_under_way_is_not_overfilled(play):
    """Amends to new leaves instead of a new total: the fill in flight was given away twice (RPL-2, RPL-3)."""
    play("""
        buy  #1 10 @ 100         -> new #1 10 @ 100
        sell #2 6 @ 100          -> new #2 6 @ 100; trade #2 6 @ 100 with #1
        replace buy #1 8 @ 100   -> replaced #1 8 @ 100 leaves 2 kept
        replace buy #1 6 @ 100   -> canceled #1 2 @ 100 total-filled
        book 1                   -> empty
    """)


# --------------------------------------------------------------------------------- time in force, quantities


def test_the_rest_of_an_ioc_never_rests(play):
    """liquibook #43 (TIF-2)."""
    play("""
        sell #1 10 @ 100      -> new #1 10 @ 100
        buy  #2 15 @ 100 ioc  -> new #2 15 @ 100; trade #2 10 @ 100 with #1 leaves 5; expired #2 5 @ 100
        book 1                -> empty
        sell #3 5 @ 100       -> new #3 5 @ 100
        cancel #2             -> cancel-rejected #2 unknown-order
    """)


def test_no_trade_has_a_quantity_of_zero(play):
    """Engines that met an exhausted order or taker once more, and ones that took an order for nothing."""
    play("""
        sell #1 10 @ 100  -> new #1 10 @ 100
        sell #2 10 @ 100  -> new #2 10 @ 100
        buy  #3 10 @ 100  -> new #3 10 @ 100; trade #3 10 @ 100 with #1
        buy  #4 0 @ 100   -> rejected #4 bad-quantity
        buy  #5 10 @ 100  -> new #5 10 @ 100; trade #5 10 @ 100 with #2
        book 1            -> empty
    """)


def test_a_fok_that_expires_leaves_no_trace(make):
    """An engine that executed and rolled back had moved its last price, and a stop fired (TIF-3, TIF-4)."""
    lines = """
        sell #7/1 10 @ 100                       -> new #7/1 10 @ 100
        sell #8/1 10 @ 100                       -> new #8/1 10 @ 100
        sell #8/2 10 @ 101                       -> new #8/2 10 @ 101
    """
    attempts = """
        buy  #7/2 31 @ 101 fok                   -> new #7/2 31 @ 101; expired #7/2 31 @ 101
        buy  #7/3 21 @ 101 fok stp=cancel-maker  -> new #7/3 21 @ 101; expired #7/3 21 @ 101
        buy  #7/4 1 @ 101 fok stp=cancel-taker   -> new #7/4 1 @ 101; expired #7/4 1 @ 101
        buy  #7/5 1 @ 101 fok stp=cancel-both    -> new #7/5 1 @ 101; expired #7/5 1 @ 101
        buy  #7/6 1 @ 101 fok stp=decrement      -> new #7/6 1 @ 101; expired #7/6 1 @ 101
        buy  #9/1 31 market fok                  -> new #9/1 31 @ 0; expired #9/1 31 @ 0
    """
    before = book_of(run_session(read_session(lines), make()))

    after = book_of(run_session(read_session(lines + attempts), make()))

    assert after == before


def test_a_fok_trades_over_several_levels_if_they_are_enough_together(play):
    """Pre-checks that looked at the best level only."""
    play("""
        sell #1 10 @ 100      -> new #1 10 @ 100
        sell #2 10 @ 101      -> new #2 10 @ 101
        buy  #3 20 @ 101 fok  -> new #3 20 @ 101; trade #3 10 @ 100 with #1 leaves 10; trade #3 10 @ 101 with #2
        book 1                -> empty
    """)


def test_prices_and_quantities_work_at_their_limits(play):
    """QuantCup aborted at an integer price ceiling; others overflowed a level's sum (LIM-1, LIM-2, LIM-9)."""
    low, high, most = -PRICE_MAX, PRICE_MAX, QUANTITY_MAX
    play(f"""
        instrument 1 tick 1 lot 1 band {low} {high} open -> instrument-defined 1 tick 1 lot 1 band {low} {high} open
        sell #1 {most} @ {high}   -> new #1 {most} @ {high}
        sell #2 {most} @ {high}   -> new #2 {most} @ {high}
        sell #3 {most} @ {high}   -> new #3 {most} @ {high}
        buy  #4 {most} @ {low}    -> new #4 {most} @ {low}
        buy  #5 {most} @ {low}    -> new #5 {most} @ {low}
        buy  #6 1 @ {high + 1}    -> rejected #6 bad-price
        buy  #7 {most} @ {high} fok -> new #7 {most} @ {high}; trade #7 {most} @ {high} with #1
        sell #8 {most} market     -> new #8 {most} @ 0; trade #8 {most} @ {low} with #4
        book 1                    -> bid {low}: #5 {most}; ask {high}: #2 {most}, #3 {most}
    """)


# ------------------------------------------------------------------------------------------------ self-trades


def test_a_maker_that_self_trade_prevention_cancels_is_reported(play):
    """An engine's differential tests found makers that vanished without an event (STP-4, STP-5, REPORT-6)."""
    play("""
        sell #7/1 4 @ 100                    -> new #7/1 4 @ 100
        sell #8/1 5 @ 100                    -> new #8/1 5 @ 100
        sell #7/2 6 @ 100                    -> new #7/2 6 @ 100
        buy  #7/3 7 @ 100 stp=cancel-maker   -> new #7/3 7 @ 100; canceled #7/1 4 @ 100 with #7/3 self-trade; trade #7/3 5 @ 100 with #8/1 leaves 2; canceled #7/2 6 @ 100 with #7/3 self-trade
        cancel #7/1                          -> cancel-rejected #7/1 unknown-order
        cancel #7/2                          -> cancel-rejected #7/2 unknown-order
        sell #7/4 1 @ 100 stp=cancel-both    -> new #7/4 1 @ 100; canceled #7/3 2 @ 100 with #7/4 self-trade; canceled #7/4 1 @ 100 with #7/3 self-trade
        book 1                               -> empty
    """)  # noqa: E501  # a line of a session is one line


def test_self_trade_prevention_acts_on_encounter_and_not_before(play):
    """Engines that canceled every own order of a level ahead of trading, those beyond the fill too (STP-2)."""
    play("""
        sell #8/1 5 @ 100                    -> new #8/1 5 @ 100
        sell #7/1 5 @ 100                    -> new #7/1 5 @ 100
        buy  #7/2 5 @ 100 stp=cancel-maker   -> new #7/2 5 @ 100; trade #7/2 5 @ 100 with #8/1
        book 1                               -> ask 100: #7/1 5
    """)


def test_self_trade_prevention_leaves_no_crossed_book(play):
    """An engine skipped own orders, rested the taker and stood crossed with itself (STP-3 .. STP-6)."""
    for mode in ("cancel-taker", "cancel-maker", "cancel-both", "decrement"):
        engine = play(f"""
            sell #7/1 5 @ 100              -> new #7/1 5 @ 100
            buy  #7/2 9 @ 101 stp={mode}   -> {CROSSED[mode]}
        """)
        sides = {order.side for order in unpack_state(engine.snapshot()).orders}
        assert len(sides) <= 1, mode


CROSSED = {
    "cancel-taker": "new #7/2 9 @ 101; canceled #7/2 9 @ 101 with #7/1 self-trade",
    "cancel-maker": "new #7/2 9 @ 101; canceled #7/1 5 @ 100 with #7/2 self-trade",
    "cancel-both": "new #7/2 9 @ 101; canceled #7/1 5 @ 100 with #7/2 self-trade; "
    "canceled #7/2 9 @ 101 with #7/1 self-trade",
    "decrement": "new #7/2 9 @ 101; canceled #7/1 5 @ 100 with #7/2 self-trade; "
    "canceled #7/2 5 @ 101 with #7/1 leaves 4 self-trade",
}


# -------------------------------------------------------------------------------------------------- capacity


def test_an_exhausted_pool_is_told_and_takes_nothing_with_it(play):
    """tembolo dropped orders in silence beyond 8,192 orders or 512 levels (NEW-3)."""
    play(
        """
        sell #1 10 @ 100         -> new #1 10 @ 100
        sell #2 10 @ 101         -> new #2 10 @ 101
        buy  #3 10 @ 90          -> rejected #3 orders-full
        buy  #3 20 @ 101         -> rejected #3 orders-full
        buy  #3 5 @ 100 ioc      -> new #3 5 @ 100; trade #3 5 @ 100 with #1
        replace sell #1 12 @ 99  -> replaced #1 12 @ 99 leaves 7
        cancel #2                -> canceled #2 10 @ 101
        buy  #3 10 @ 90          -> new #3 10 @ 90
        book 1                   -> bid 90: #3 10; ask 99: #1 7
        """,
        orders=2,
    )


def test_many_orders_on_many_levels_are_all_there(make):
    """tembolo again: what is accepted is in the book, far beyond anyone's fixed tables."""
    orders, levels = 10_000, 1_000
    commands = ["instrument 1 tick 1 lot 1 band 0 2000 open"]
    commands += [f"sell #{number} 1 @ {1000 + number % levels}" for number in range(1, orders + 1)]
    commands += [f"buy #{orders + 1} {orders} @ 2000"]
    engine = make(orders + 1)

    reports = unpack_reports(apply_all(engine, to_records(map(parse_command, commands))))

    trades = [report for report in reports if report.kind == ReportKind.TRADE]
    expected = sorted(range(1, orders + 1), key=lambda number: (number % levels, number))
    assert [trade.contra_id for trade in trades] == expected
    assert [trade.price for trade in trades] == [1000 + number % levels for number in expected]
    assert not unpack_state(engine.snapshot()).orders


# ------------------------------------------------------------------------------------------------ replay traps


def test_a_mass_cancel_reports_in_the_order_of_the_books(play):
    """OrderBook-rs 0.10 to 0.12 went by the iteration of a hash map, and fixed it twice (MASS-2)."""
    play("""
        instrument 2 tick 1 lot 1 band 0 1000 open -> instrument-defined 2 tick 1 lot 1 band 0 1000 open
        instrument 1 tick 1 lot 1 band 0 1000 open -> instrument-defined 1 tick 1 lot 1 band 0 1000 open
        sell #7/9 1 @ 102       -> new #7/9 1 @ 102
        sell #7/8 1 @ 101 on 2  -> new #7/8 1 @ 101 on 2
        buy  #7/7 1 @ 99        -> new #7/7 1 @ 99
        sell #7/6 1 @ 101       -> new #7/6 1 @ 101
        buy  #7/5 1 @ 100       -> new #7/5 1 @ 100
        buy  #7/4 1 @ 99        -> new #7/4 1 @ 99
        buy  #7/3 1 @ 100 on 2  -> new #7/3 1 @ 100 on 2
        buy  #8/1 1 @ 100       -> new #8/1 1 @ 100
        mass-cancel account 7   -> canceled #7/5 1 @ 100 mass-cancel; canceled #7/7 1 @ 99 mass-cancel; canceled #7/4 1 @ 99 mass-cancel; canceled #7/6 1 @ 101 mass-cancel; canceled #7/9 1 @ 102 mass-cancel; canceled #7/3 1 @ 100 mass-cancel on 2; canceled #7/8 1 @ 101 mass-cancel on 2; mass-canceled 7 account 7
        book 1                  -> bid 100: #8/1 1
    """)  # noqa: E501  # a line of a session is one line


def test_a_restored_snapshot_keeps_the_queue_after_an_order_grew(make):
    """OrderBook-rs lost the demotion of an upsized order in its snapshot, so its replay traded otherwise (DET-5)."""
    past = """
        buy  #1 10 @ 100         -> new #1 10 @ 100
        buy  #2 10 @ 100         -> new #2 10 @ 100
        buy  #3 10 @ 100         -> new #3 10 @ 100
        sell #4 4 @ 100          -> new #4 4 @ 100; trade #4 4 @ 100 with #1
        replace buy #1 20 @ 100  -> replaced #1 20 @ 100 leaves 16
        replace buy #2 3 @ 100   -> replaced #2 3 @ 100 kept
    """
    future = [
        parse_command(line) for line in ("sell #5 20 @ 100", "replace buy #1 12 @ 100", "sell #6 20 @ 100", "cancel #1")
    ]
    original, restored = run_session(read_session(past), make()), make()
    restored.restore(original.snapshot())
    records = to_records(future, first=unpack_state(original.snapshot()).sequence + 1)

    reports = apply_all(original, records)

    assert lines_of(reports) == [
        "new #5 20 @ 100",
        "trade #5 3 @ 100 with #2 leaves 17",
        "trade #5 10 @ 100 with #3 leaves 7",
        "trade #5 7 @ 100 with #1",
        "replaced #1 12 @ 100 leaves 1 kept",
        "new #6 20 @ 100",
        "trade #6 1 @ 100 with #1 leaves 19",
        "cancel-rejected #1 unknown-order",
    ]
    assert apply_all(restored, records) == reports
    assert restored.snapshot() == original.snapshot()


def test_the_sequence_is_restored_with_the_state(make):
    """OrderBook-rs: the engine's own sequence began anew after a restore (DET-3, SNAP-1)."""
    session = read_session("buy #1 10 @ 100 -> new #1 10 @ 100")
    engine, restored = run_session(session, make()), make()

    restored.restore(engine.snapshot())

    assert unpack_state(restored.snapshot()).sequence == 2
    with pytest.raises(SequenceError):
        restored.apply(to_record(2, parse_command("cancel #1")))
    assert lines_of(apply_all(restored, to_record(3, parse_command("cancel #1")))) == ["canceled #1 10 @ 100"]


def test_states_that_differ_in_a_queue_alone_differ(make):
    """OrderBook-rs: its equality check did not compare the queues (SNAP-2)."""
    one = run_session(read_session("buy #1 5 @ 9 -> new #1 5 @ 9\nbuy #2 5 @ 9 -> new #2 5 @ 9"), make())
    other = run_session(read_session("buy #2 5 @ 9 -> new #2 5 @ 9\nbuy #1 5 @ 9 -> new #1 5 @ 9"), make())

    assert book_of(one) != book_of(other)


def test_times_change_no_report(make):
    """Engines that put the wall clock in their trades or statistics replayed differently (DET-1, DET-4)."""
    records = np.concatenate(list(Workload(3, 2_000, shape=SMALL)))
    engine, reports = make(), []
    reports.append(apply_all(engine, records.tobytes()))
    records["time_ns"] = 5

    reports.append(apply_all(make(), records.tobytes()))

    assert reports[0] == reports[1]


def test_two_engines_in_one_process_do_not_feel_each_other(make):
    """akhil4n: ids came from a counter of the module, so the second run differed (DET-1)."""
    records = np.concatenate(list(Workload(4, 2_000, shape=SMALL)))
    alone, first, second = make(), make(), make()
    expected = apply_all(alone, records.tobytes())

    parts: tuple[list[bytes], list[bytes]] = ([], [])
    for start in range(0, len(records), 100):
        for engine, part in ((first, parts[0]), (second, parts[1])):
            part.append(apply_all(engine, records[start : start + 100].tobytes()))

    assert b"".join(parts[0]) == b"".join(parts[1]) == expected
    assert first.snapshot() == second.snapshot() == alone.snapshot()


def test_queues_do_not_depend_on_the_hash_seed(engine_name):
    """StockSharp #681, nautilus #3914: queues and lists came out of sets and hash maps (DET-1)."""
    program = (
        "import hashlib, sys\n"
        "from ferrox.engine import Capacity, make_engine\n"
        "from ferrox.testing.sessions import apply_all\n"
        "engine = make_engine(sys.argv[1], Capacity(4096, 64))\n"
        "reports = apply_all(engine, sys.stdin.buffer.read())\n"
        "print(hashlib.sha256(reports + engine.snapshot()).hexdigest())\n"
    )
    records = np.concatenate(list(Workload(5, 2_000, shape=SMALL))).tobytes()
    engine = make_engine(engine_name, CAPACITY)
    expected = hashlib.sha256(apply_all(engine, records) + engine.snapshot()).hexdigest()

    digests = [
        subprocess.run(
            [sys.executable, "-c", program, engine_name],
            input=records,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        )
        .stdout.decode()
        .strip()
        for seed in ("0", "1", "20261123")
    ]

    assert digests == [expected] * 3


SMALL = Shape(instruments=3, accounts=5, half_width=100, prefill=20, immigrants=64, sweeps=50, mass_cancels=2_000)


def test_a_simulated_flow_keeps_what_every_report_promises(make):
    """No trade of nothing, and the quantity of every order adds up (REPORT-6)."""
    records = np.concatenate(list(Workload(6, 3_000, shape=SMALL)))
    engine = make()

    reports = np.frombuffer(apply_all(engine, records.tobytes()), REPORT_DTYPE)

    trades = reports[reports["kind"] == ReportKind.TRADE]
    assert len(trades) > 100
    assert (trades["quantity"] > 0).all()
    working: dict[int, int] = {}
    for report in unpack_reports(reports.tobytes()):
        if report.kind in (ReportKind.NEW, ReportKind.REPLACED):
            working[report.order_id] = report.leaves
        elif report.kind in (ReportKind.TRADE, ReportKind.CANCELED, ReportKind.EXPIRED):
            working[report.order_id] -= report.quantity
            assert working[report.order_id] == report.leaves, report
            if report.kind == ReportKind.TRADE:
                working[report.contra_id] -= report.quantity
                assert working[report.contra_id] >= 0, report
    resting = {order.order_id: order.leaves for order in unpack_state(engine.snapshot()).orders}
    assert {order_id: leaves for order_id, leaves in working.items() if leaves} == resting


def test_the_session_runner_sees_these_defects():
    """A test that cannot fail proves nothing: the same sessions, with one word changed, are told apart."""
    wrong = "sell #1 10 @ 100 -> new #1 10 @ 100\nbuy #2 10 @ 105 -> new #2 10 @ 105; trade #2 10 @ 105 with #1"

    with pytest.raises(AssertionError, match="> trade #2 10 @ 100 with #1"):
        run_session(read_session(wrong), make_engine("reference", CAPACITY))
