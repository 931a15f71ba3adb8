"""Numbers at their limits: the greatest of everything trades exactly, for each rule of specs/limits.md."""

import pytest

from ferrox.messages import unpack_reports
from ferrox.state import SNAPSHOT_HEADER, unpack_state
from ferrox.testing.sessions import apply_all, to_record
from ferrox.text import parse_command

P, Q = 2**40 - 1, 2**31 - 1
WIDE = f"instrument 1 tick 1 lot 1 band -{P} {P} open -> instrument-defined 1 tick 1 lot 1 band -{P} {P} open"


def test_prices_reach_their_limits(play):
    """LIM-1."""
    play(f"""
        {WIDE}
        buy  #1 1 @ -{P}    -> new #1 1 @ -{P}
        sell #2 1 @ {P}     -> new #2 1 @ {P}
        buy  #3 1 @ {P + 1} -> rejected #3 bad-price
        sell #3 1 @ -{P + 1} -> rejected #3 bad-price
        book 1              -> bid -{P}: #1 1; ask {P}: #2 1
        buy  #3 1 @ {P}     -> new #3 1 @ {P}; trade #3 1 @ {P} with #2
        sell #4 1 @ -{P}    -> new #4 1 @ -{P}; trade #4 1 @ -{P} with #1
    """)


def test_a_slide_at_the_limits_of_the_price_stays_within_them(play):
    """LIM-1, POST-3."""
    play(f"""
        {WIDE}
        sell #1 1 @ -{P}                 -> new #1 1 @ -{P}
        buy  #2 1 @ {P} post-only slide  -> rejected #2 would-cross
        cancel #1                        -> canceled #1 1 @ -{P}
        buy  #3 1 @ {P}                  -> new #3 1 @ {P}
        sell #4 1 @ -{P} post-only slide -> rejected #4 would-cross
    """)


def test_quantities_reach_their_limit_as_total_and_as_leaves(play):
    """LIM-2: a replace raises an order that has traded to the greatest total."""
    play(f"""
        buy  #1 {Q} @ 1             -> new #1 {Q} @ 1
        buy  #2 {Q + 1} @ 1         -> rejected #2 bad-quantity
        sell #3 {Q} @ 1             -> new #3 {Q} @ 1; trade #3 {Q} @ 1 with #1
        buy  #1 2 @ 1               -> new #1 2 @ 1
        sell #3 1 @ 1               -> new #3 1 @ 1; trade #3 1 @ 1 with #1
        replace buy #1 {Q} @ 1      -> replaced #1 {Q} @ 1 leaves {Q - 1}
        replace buy #1 {Q + 1} @ 1  -> replace-rejected #1 bad-quantity
        book 1                      -> bid 1: #1 {Q - 1}
    """)


def test_order_ids_reach_their_limit(play):
    """LIM-3, LIM-4: the greatest id is the greatest reference of the greatest account."""
    play("""
        buy  #9223372036854775807 1 @ 1         -> new #8388607/1099511627775 1 @ 1
        sell #8388607/1099511627775 1 @ 9       -> rejected #8388607/1099511627775 duplicate-order-id
        buy  #-9223372036854775808 1 @ 1        -> rejected #-9223372036854775808 bad-order-id
        mass-cancel account 8388607             -> canceled #8388607/1099511627775 1 @ 1 mass-cancel; \
mass-canceled 1 account 8388607
        mass-cancel account 8388608             -> rejected #0 bad-account
    """)


def test_instruments_reach_their_limit(play):
    """LIM-5."""
    play("""
        instrument 1048575 tick 1 lot 1 band 0 9 open -> instrument-defined 1048575 tick 1 lot 1 band 0 9 open
        instrument 1048576 tick 1 lot 1 band 0 9 open -> rejected #0 bad-instrument on 1048576
        buy #1 1 @ 1 on 1048575                       -> new #1 1 @ 1 on 1048575
        mass-cancel on 1048575                        -> canceled #1 1 @ 1 mass-cancel on 1048575; \
mass-canceled 1 on 1048575
    """)


def test_ticks_and_lots_reach_their_limits(play):
    """LIM-6: the slide of one greatest tick included."""
    play(f"""
        instrument 1 tick {Q} lot {Q} band -{P} {P} open -> instrument-defined 1 tick {Q} lot {Q} band -{P} {P} open
        sell #1 {Q} @ {Q * 512}                          -> new #1 {Q} @ {Q * 512}
        buy  #2 {Q} @ {Q * 512} post-only slide          -> new #2 {Q} @ {Q * 511} slid
        sell #3 {Q} @ -{Q * 512}                         -> new #3 {Q} @ -{Q * 512}; trade #3 {Q} @ {Q * 511} with #2
        buy  #4 {Q - 1} @ 0                              -> rejected #4 off-lot
        buy  #4 {Q} @ {Q * 511 + 1}                      -> rejected #4 off-tick
    """)


def test_an_engine_holds_its_order_capacity_and_no_more(play):
    """LIM-7: a place is free again whichever way its order left."""
    play(
        """
        buy  #1 5 @ 10       -> new #1 5 @ 10
        buy  #2 5 @ 10       -> rejected #2 orders-full
        cancel #1            -> canceled #1 5 @ 10
        buy  #2 5 @ 10       -> new #2 5 @ 10
        sell #3 5 @ 10 ioc   -> new #3 5 @ 10; trade #3 5 @ 10 with #2
        buy  #4 5 @ 10       -> new #4 5 @ 10
        mass-cancel all      -> canceled #4 5 @ 10 mass-cancel; mass-canceled 1 all
        buy  #5 5 @ 10       -> new #5 5 @ 10
        sell #6 5 @ 10 stp=cancel-both -> rejected #6 orders-full
        sell #6 5 @ 10 ioc stp=cancel-both -> new #6 5 @ 10; canceled #5 5 @ 10 with #6 self-trade; \
canceled #6 5 @ 10 with #5 self-trade
        buy  #7 5 @ 10       -> new #7 5 @ 10
        """,
        orders=1,
    )


def test_an_engine_holds_its_instrument_capacity_and_no_more(play):
    """LIM-8."""
    play(
        """
        instrument 7 tick 1 lot 1 band 0 9 open -> instrument-defined 7 tick 1 lot 1 band 0 9 open
        instrument 3 tick 1 lot 1 band 0 9 open -> instrument-defined 3 tick 1 lot 1 band 0 9 open
        instrument 5 tick 1 lot 1 band 0 9 open -> rejected #0 instruments-full on 5
        instrument 7 tick 2 lot 1 band 0 9 open -> instrument-defined 7 tick 2 lot 1 band 0 9 open
        """,
        instruments=2,
    )


def test_a_level_of_the_greatest_quantities_is_counted_exactly(play):
    """LIM-9: five orders of 2^31-1 are more than 2^33; an order for one of them and a fill-or-kill see them all."""
    play(f"""
        sell #1 {Q} @ 1                      -> new #1 {Q} @ 1
        sell #2 {Q} @ 1                      -> new #2 {Q} @ 1
        sell #3 {Q} @ 1                      -> new #3 {Q} @ 1
        sell #4 {Q} @ 2                      -> new #4 {Q} @ 2
        sell #5 {Q} @ 2                      -> new #5 {Q} @ 2
        buy  #6 {Q} @ 2 fok                  -> new #6 {Q} @ 2; trade #6 {Q} @ 1 with #1
        buy  #7 {Q - 1} market               -> new #7 {Q - 1} @ 0; trade #7 {Q - 1} @ 1 with #2
        buy  #8 {Q} market fok               -> new #8 {Q} @ 0; trade #8 1 @ 1 with #2 leaves {Q - 1}; \
trade #8 {Q - 1} @ 1 with #3
        buy  #9 {Q} @ 9                      -> new #9 {Q} @ 9; trade #9 1 @ 1 with #3 leaves {Q - 1}; \
trade #9 {Q - 1} @ 2 with #4
        mass-cancel all                      -> canceled #4 1 @ 2 mass-cancel; canceled #5 {Q} @ 2 mass-cancel; \
mass-canceled 2 all
    """)


def test_the_greatest_quantity_trades_at_the_greatest_price(play):
    """LIM-10: their product, which is never made, would have 71 bits."""
    play(f"""
        {WIDE}
        sell #1 {Q} @ {P}  -> new #1 {Q} @ {P}
        buy  #2 {Q} @ {P}  -> new #2 {Q} @ {P}; trade #2 {Q} @ {P} with #1
        buy  #3 {Q} @ -{P} -> new #3 {Q} @ -{P}
        sell #4 {Q} market fok -> new #4 {Q} @ 0; trade #4 {Q} @ -{P} with #3
    """)


@pytest.mark.parametrize("time_ns", [0, 2**62])
def test_sequence_and_time_reach_their_limits(make, time_ns: int):
    """LIM-11."""
    engine = make()
    header = list(SNAPSHOT_HEADER.unpack(engine.snapshot()))
    header[4] = 2**62 - 1
    engine.restore(SNAPSHOT_HEADER.pack(*header))

    reports = apply_all(engine, to_record(2**62, parse_command("state 1 open"), time_ns))

    state = unpack_state(engine.snapshot())
    assert [report.sequence for report in unpack_reports(reports)] == [2**62]
    assert (state.sequence, state.time_ns) == (2**62, time_ns)
