"""What a command does to the book: a claim for each rule of specs/matching.md, held by every engine.

Where the name of a test says less than its rule, the docstring cites it.  Every line compares all reports of a command.
"""

# ruff: noqa: E501  # a line of a session holds all reports of its command

import pytest

from ferrox.state import unpack_state
from ferrox.testing.sessions import apply_all, format_book, read_session, run_session, to_record
from ferrox.text import STATES, parse_command

# ------------------------------------------------------------------------------------------------- instruments


def test_an_instrument_keeps_its_tick_lot_band_and_state(play):
    """INSTR-1: both ends of the band are included."""
    play("""
        instrument 1 tick 5 lot 10 band -10 20 open -> instrument-defined 1 tick 5 lot 10 band -10 20 open
        buy  #1 10 @ -15                            -> rejected #1 outside-band
        buy  #1 10 @ -10                            -> new #1 10 @ -10
        sell #2 10 @ 25                             -> rejected #2 outside-band
        sell #2 10 @ 20                             -> new #2 10 @ 20
        buy  #3 10 @ 4                              -> rejected #3 off-tick
        buy  #3 5 @ 5                               -> rejected #3 off-lot
        state 1 halted                              -> state-changed 1 halted
        buy  #3 10 @ 5                              -> rejected #3 not-open
    """)


def test_an_instrument_is_defined_again_only_while_it_is_empty(play):
    """INSTR-2."""
    play("""
        instrument 1 tick 5 lot 1 band 0 100 open  -> instrument-defined 1 tick 5 lot 1 band 0 100 open
        instrument 2 tick 1 lot 1 band 0 100 open  -> instrument-defined 2 tick 1 lot 1 band 0 100 open
        buy  #1 2 @ 50                             -> new #1 2 @ 50
        instrument 1 tick 1 lot 2 band 0 10 halted -> rejected #0 book-not-empty
        buy  #2 1 @ 51                             -> rejected #2 off-tick
        sell #3 1 @ 50                             -> new #3 1 @ 50; trade #3 1 @ 50 with #1
        instrument 1 tick 1 lot 2 band 0 10 open   -> rejected #0 book-not-empty
        instrument 2 tick 3 lot 1 band 0 9 open    -> instrument-defined 2 tick 3 lot 1 band 0 9 open
        cancel #1                                  -> canceled #1 1 @ 50
        instrument 1 tick 1 lot 2 band 0 10 open   -> instrument-defined 1 tick 1 lot 2 band 0 10 open
        buy  #1 2 @ 7                              -> new #1 2 @ 7
        buy  #2 1 @ 7                              -> rejected #2 off-lot
        buy  #2 2 @ 11                             -> rejected #2 outside-band
    """)


def test_zero_and_negative_prices_are_prices_like_any_other(play):
    """INSTR-3: multiples of the tick on both sides of zero."""
    play("""
        instrument 1 tick 3 lot 2 band -9 9 open -> instrument-defined 1 tick 3 lot 2 band -9 9 open
        buy  #1 2 @ -4                           -> rejected #1 off-tick
        buy  #1 2 @ -2                           -> rejected #1 off-tick
        buy  #1 2 @ -3                           -> new #1 2 @ -3
        buy  #2 2 @ 0                            -> new #2 2 @ 0
        sell #3 3 @ -9                           -> rejected #3 off-lot
        sell #3 4 @ -9                           -> new #3 4 @ -9; trade #3 2 @ 0 with #2 leaves 2; trade #3 2 @ -3 with #1
        sell #4 2 @ -6                           -> new #4 2 @ -6
        book 1                                   -> ask -6: #4 2
        buy  #5 2 @ -9                           -> new #5 2 @ -9
        book 1                                   -> bid -9: #5 2; ask -6: #4 2
    """)


# ----------------------------------------------------------------------------------------------- trading states


def test_an_open_instrument_takes_every_command(play):
    """STATE-1."""
    play("""
        instrument 1 tick 1 lot 1 band 0 1000 open -> instrument-defined 1 tick 1 lot 1 band 0 1000 open
        buy  #1 1 @ 10            -> new #1 1 @ 10
        replace buy #1 2 @ 11     -> replaced #1 2 @ 11
        sell #2 1 market          -> new #2 1 @ 0; trade #2 1 @ 11 with #1
        sell #3 1 @ 12 ioc        -> new #3 1 @ 12; expired #3 1 @ 12
        sell #4 1 @ 12 fok        -> new #4 1 @ 12; expired #4 1 @ 12
        sell #5 1 @ 12 post-only  -> new #5 1 @ 12
        cancel #1                 -> canceled #1 1 @ 11
        mass-cancel on 1          -> canceled #5 1 @ 12 mass-cancel; mass-canceled 1 on 1
        state 1 open              -> state-changed 1 open
        instrument 1 tick 1 lot 1 band 0 5 open -> instrument-defined 1 tick 1 lot 1 band 0 5 open
    """)


def test_a_pre_open_instrument_takes_what_rests_without_crossing(play):
    """STATE-2: cancels, and GTC orders that cross nothing, new or replacing."""
    play("""
        state 1 pre-open                   -> state-changed 1 pre-open
        buy  #1 10 @ 100                   -> new #1 10 @ 100
        sell #2 10 @ 99                    -> rejected #2 would-cross
        sell #2 10 @ 100                   -> rejected #2 would-cross
        sell #2 10 market                  -> rejected #2 not-open
        sell #2 10 market fok              -> rejected #2 not-open
        sell #2 10 @ 101 ioc               -> rejected #2 not-open
        sell #2 10 @ 101 fok               -> rejected #2 not-open
        sell #2 10 @ 101                   -> new #2 10 @ 101
        sell #3 10 @ 100 post-only slide   -> new #3 10 @ 101 slid
        buy  #4 10 @ 101 post-only         -> rejected #4 would-cross
        replace sell #2 10 @ 100           -> replace-rejected #2 would-cross
        replace sell #2 5 @ 101            -> replaced #2 5 @ 101 kept
        replace sell #2 6 @ 102            -> replaced #2 6 @ 102
        replace buy #1 10 @ 105 post-only slide -> replaced #1 10 @ 100 slid
        book 1                             -> bid 100: #1 10; ask 101: #3 10; ask 102: #2 6
        cancel #1                          -> canceled #1 10 @ 100
        mass-cancel on 1                   -> canceled #3 10 @ 101 mass-cancel; canceled #2 6 @ 102 mass-cancel; mass-canceled 2 on 1
    """)


@pytest.mark.parametrize("state", ["halted", "closed"])
def test_a_halted_or_closed_instrument_takes_cancels_only(play, state: str):
    """STATE-3."""
    play(f"""
        buy  #1 10 @ 100           -> new #1 10 @ 100
        buy  #2 10 @ 99            -> new #2 10 @ 99
        state 1 {state}            -> state-changed 1 {state}
        buy  #3 10 @ 98            -> rejected #3 not-open
        sell #3 10 @ 100 ioc       -> rejected #3 not-open
        sell #3 10 @ 100 fok       -> rejected #3 not-open
        sell #3 10 market          -> rejected #3 not-open
        sell #3 10 @ 101 post-only -> rejected #3 not-open
        replace buy #1 5 @ 100     -> replace-rejected #1 not-open
        replace buy #9 5 @ 100     -> replace-rejected #9 not-open
        cancel #9                  -> cancel-rejected #9 unknown-order
        book 1                     -> bid 100: #1 10; bid 99: #2 10
        cancel #1                  -> canceled #1 10 @ 100
        mass-cancel all            -> canceled #2 10 @ 99 mass-cancel; mass-canceled 1 all
    """)


@pytest.mark.parametrize("source", STATES)
@pytest.mark.parametrize("target", STATES)
def test_any_state_leads_to_any_state_and_no_order_moves(play, source: str, target: str):
    """STATE-4."""
    play(f"""
        buy  #1 10 @ 100 -> new #1 10 @ 100
        sell #2 10 @ 101 -> new #2 10 @ 101
        state 1 {source} -> state-changed 1 {source}
        state 1 {target} -> state-changed 1 {target}
        book 1           -> bid 100: #1 10; ask 101: #2 10
    """)


# ------------------------------------------------------------------------------------------------ a new order


def test_a_new_order_is_reported_then_trades_then_rests_or_ends(play):
    """NEW-1."""
    play("""
        sell #1 2 @ 10                      -> new #1 2 @ 10
        sell #2 2 @ 11                      -> new #2 2 @ 11
        sell #3 2 @ 12                      -> new #3 2 @ 12
        buy  #4 3 @ 10                      -> new #4 3 @ 10; trade #4 2 @ 10 with #1 leaves 1
        cancel #4                           -> canceled #4 1 @ 10
        buy  #5 3 @ 11 ioc                  -> new #5 3 @ 11; trade #5 2 @ 11 with #2 leaves 1; expired #5 1 @ 11
        buy  #6 3 @ 12 stp=cancel-taker     -> new #6 3 @ 12; canceled #6 3 @ 12 with #3 self-trade
        book 1                              -> ask 12: #3 2
    """)


def test_an_order_id_is_taken_while_its_order_rests_anywhere(play):
    """NEW-2: whatever the instrument, the side and the time in force of the second."""
    play("""
        instrument 1 tick 1 lot 1 band 0 1000 open -> instrument-defined 1 tick 1 lot 1 band 0 1000 open
        instrument 2 tick 1 lot 1 band 0 1000 open -> instrument-defined 2 tick 1 lot 1 band 0 1000 open
        buy  #1 10 @ 100                           -> new #1 10 @ 100
        sell #1 10 @ 100 ioc on 2                  -> rejected #1 duplicate-order-id on 2
        sell #1 10 market                          -> rejected #1 duplicate-order-id
        sell #1 10 @ 100 fok                       -> rejected #1 duplicate-order-id
        buy  #1 10 @ 100                           -> rejected #1 duplicate-order-id
        book 1                                     -> bid 100: #1 10
    """)


def test_an_order_id_is_free_again_once_its_order_is_gone(play):
    """NEW-2: filled, canceled, expired, mass-canceled or never accepted."""
    play("""
        buy  #1 10 @ 100       -> new #1 10 @ 100
        sell #2 10 @ 100       -> new #2 10 @ 100; trade #2 10 @ 100 with #1
        buy  #2 10 @ 100       -> new #2 10 @ 100
        cancel #2              -> canceled #2 10 @ 100
        sell #2 10 @ 100 ioc   -> new #2 10 @ 100; expired #2 10 @ 100
        sell #2 10 @ 2000000   -> rejected #2 outside-band
        sell #2 10 @ 100       -> new #2 10 @ 100
        mass-cancel all        -> canceled #2 10 @ 100 mass-cancel; mass-canceled 1 all
        buy  #2 10 @ 100       -> new #2 10 @ 100
        replace buy #2 7 @ 90  -> replaced #2 7 @ 90
        buy  #1 1 @ 90         -> new #1 1 @ 90
        book 1                 -> bid 90: #2 7, #1 1
    """)


def test_an_id_used_again_has_none_of_its_former_place(play):
    """NEW-2, MATCH-2."""
    play("""
        buy  #1 10 @ 100 -> new #1 10 @ 100
        buy  #2 10 @ 100 -> new #2 10 @ 100
        cancel #1        -> canceled #1 10 @ 100
        buy  #1 10 @ 100 -> new #1 10 @ 100
        book 1           -> bid 100: #2 10, #1 10
        sell #3 15 @ 100 -> new #3 15 @ 100; trade #3 10 @ 100 with #2 leaves 5; trade #3 5 @ 100 with #1
    """)


def test_a_full_engine_takes_only_orders_that_never_rest(play):
    """NEW-3: a GTC order is rejected even if it would be filled at once, and the book stays as it was."""
    play(
        """
        buy  #1 10 @ 100              -> new #1 10 @ 100
        buy  #2 10 @ 99               -> new #2 10 @ 99
        buy  #3 10 @ 98               -> rejected #3 orders-full
        sell #3 1 @ 100               -> rejected #3 orders-full
        sell #3 1 @ 100 post-only     -> rejected #3 orders-full
        book 1                        -> bid 100: #1 10; bid 99: #2 10
        sell #3 1 @ 100 ioc           -> new #3 1 @ 100; trade #3 1 @ 100 with #1
        sell #3 1 @ 100 fok           -> new #3 1 @ 100; trade #3 1 @ 100 with #1
        sell #3 1 market              -> new #3 1 @ 0; trade #3 1 @ 100 with #1
        sell #3 1 @ 101 ioc           -> new #3 1 @ 101; expired #3 1 @ 101
        replace buy #1 20 @ 101       -> replaced #1 20 @ 101 leaves 17
        sell #3 17 @ 101 ioc          -> new #3 17 @ 101; trade #3 17 @ 101 with #1
        buy  #3 10 @ 98               -> new #3 10 @ 98
        buy  #4 10 @ 97               -> rejected #4 orders-full
        cancel #2                     -> canceled #2 10 @ 99
        buy  #4 10 @ 97               -> new #4 10 @ 97
        """,
        orders=2,
    )


# ---------------------------------------------------------------------------------------------------- matching


def test_the_best_price_trades_first_as_far_as_the_limit(play):
    """MATCH-1, for both sides."""
    play("""
        sell #1 1 @ 103   -> new #1 1 @ 103
        sell #2 1 @ 101   -> new #2 1 @ 101
        sell #3 1 @ 102   -> new #3 1 @ 102
        buy  #4 3 @ 102   -> new #4 3 @ 102; trade #4 1 @ 101 with #2 leaves 2; trade #4 1 @ 102 with #3 leaves 1
        book 1            -> bid 102: #4 1; ask 103: #1 1
        buy  #5 1 @ 100   -> new #5 1 @ 100
        buy  #6 1 @ 101   -> new #6 1 @ 101
        sell #7 4 @ 101   -> new #7 4 @ 101; trade #7 1 @ 102 with #4 leaves 3; trade #7 1 @ 101 with #6 leaves 2
        book 1            -> bid 100: #5 1; ask 101: #7 2; ask 103: #1 1
    """)


def test_orders_at_one_price_are_filled_oldest_first(play):
    """MATCH-2: by time in the queue, not by id or size."""
    play("""
        sell #9 1 @ 100  -> new #9 1 @ 100
        sell #1 9 @ 100  -> new #1 9 @ 100
        sell #5 5 @ 100  -> new #5 5 @ 100
        cancel #1        -> canceled #1 9 @ 100
        sell #1 9 @ 100  -> new #1 9 @ 100
        buy  #2 10 @ 100 -> new #2 10 @ 100; trade #2 1 @ 100 with #9 leaves 9; trade #2 5 @ 100 with #5 leaves 4; trade #2 4 @ 100 with #1
        book 1           -> ask 100: #1 5
    """)


def test_a_trade_is_at_the_makers_price_for_the_smaller_leaves(play):
    """MATCH-3."""
    play("""
        buy  #1 7 @ 100 -> new #1 7 @ 100
        sell #2 3 @ 90  -> new #2 3 @ 90; trade #2 3 @ 100 with #1
        sell #3 9 @ 80  -> new #3 9 @ 80; trade #3 4 @ 100 with #1 leaves 5
        buy  #4 5 @ 200 -> new #4 5 @ 200; trade #4 5 @ 80 with #3
        book 1          -> empty
    """)


def test_a_partly_filled_maker_keeps_its_place_and_a_filled_one_is_gone(play):
    """MATCH-4."""
    play("""
        sell #1 10 @ 100 -> new #1 10 @ 100
        sell #2 10 @ 100 -> new #2 10 @ 100
        buy  #3 4 @ 100  -> new #3 4 @ 100; trade #3 4 @ 100 with #1
        book 1           -> ask 100: #1 6, #2 10
        buy  #4 6 @ 100  -> new #4 6 @ 100; trade #4 6 @ 100 with #1
        book 1           -> ask 100: #2 10
        cancel #1        -> cancel-rejected #1 unknown-order
    """)


def test_what_is_left_of_a_gtc_order_rests_at_the_back_of_its_queue(play):
    """MATCH-5."""
    play("""
        sell #1 4 @ 99   -> new #1 4 @ 99
        buy  #2 10 @ 98  -> new #2 10 @ 98
        buy  #3 10 @ 99  -> new #3 10 @ 99; trade #3 4 @ 99 with #1 leaves 6
        buy  #4 10 @ 99  -> new #4 10 @ 99
        book 1           -> bid 99: #3 6, #4 10; bid 98: #2 10
    """)


def test_priority_follows_the_sequence_when_the_clock_goes_backward(make):
    """MATCH-6, DET-4."""
    engine = make()
    commands = [
        ("instrument 1 tick 1 lot 1 band 0 1000 open", 9000),
        ("sell #1 1 @ 100", 5000),
        ("sell #2 1 @ 100", 1000),
        ("sell #3 1 @ 100", 0),
    ]

    for sequence, (command, time_ns) in enumerate(commands, 1):
        apply_all(engine, to_record(sequence, parse_command(command), time_ns))

    assert format_book(unpack_state(engine.snapshot()).orders, 1) == "ask 100: #1 1, #2 1, #3 1"


def test_the_books_of_different_instruments_never_meet(play):
    """MATCH-7: orders of two instruments at one price stay, and commands name their own book."""
    play("""
        instrument 1 tick 1 lot 1 band 0 1000 open -> instrument-defined 1 tick 1 lot 1 band 0 1000 open
        instrument 2 tick 1 lot 1 band 0 1000 open -> instrument-defined 2 tick 1 lot 1 band 0 1000 open
        buy  #1 10 @ 100                           -> new #1 10 @ 100
        sell #2 10 @ 90 on 2                       -> new #2 10 @ 90 on 2
        sell #3 10 @ 95 ioc on 2                   -> new #3 10 @ 95 on 2; expired #3 10 @ 95 on 2
        buy  #4 10 market on 2                     -> new #4 10 @ 0 on 2; trade #4 10 @ 90 with #2 on 2
        replace buy #1 5 @ 100 on 2                -> replace-rejected #1 unknown-order on 2
        cancel #1 on 2                             -> cancel-rejected #1 unknown-order on 2
        state 2 halted                             -> state-changed 2 halted
        sell #5 4 @ 100                            -> new #5 4 @ 100; trade #5 4 @ 100 with #1
        book 1                                     -> bid 100: #1 6
        book 2                                     -> empty
    """)


# ----------------------------------------------------------------------------------------------- time in force


def test_gtc_works_until_it_is_filled_or_canceled(play):
    """TIF-1: gtc is what an order is when it says nothing, and halting does not end it."""
    play("""
        buy  #1 10 @ 100 gtc -> new #1 10 @ 100
        state 1 closed       -> state-changed 1 closed
        state 1 open         -> state-changed 1 open
        sell #2 4 @ 100      -> new #2 4 @ 100; trade #2 4 @ 100 with #1
        sell #3 7 @ 100      -> new #3 7 @ 100; trade #3 6 @ 100 with #1 leaves 1
        cancel #3            -> canceled #3 1 @ 100
        book 1               -> empty
    """)


def test_ioc_trades_what_it_can_and_the_rest_expires(play):
    """TIF-2."""
    play("""
        buy  #1 4 @ 100     -> new #1 4 @ 100
        buy  #2 4 @ 98      -> new #2 4 @ 98
        sell #3 9 @ 99 ioc  -> new #3 9 @ 99; trade #3 4 @ 100 with #1 leaves 5; expired #3 5 @ 99
        sell #4 9 @ 99 ioc  -> new #4 9 @ 99; expired #4 9 @ 99
        sell #5 4 @ 98 ioc  -> new #5 4 @ 98; trade #5 4 @ 98 with #2
        book 1              -> empty
    """)


def test_fok_trades_all_or_nothing(play):
    """TIF-3: over several levels, exactly enough, one lot short, and one level beyond the limit."""
    play("""
        sell #1 4 @ 100      -> new #1 4 @ 100
        sell #2 4 @ 101      -> new #2 4 @ 101
        sell #3 4 @ 102      -> new #3 4 @ 102
        buy  #4 9 @ 101 fok  -> new #4 9 @ 101; expired #4 9 @ 101
        buy  #4 13 @ 102 fok -> new #4 13 @ 102; expired #4 13 @ 102
        book 1               -> ask 100: #1 4; ask 101: #2 4; ask 102: #3 4
        buy  #4 8 @ 101 fok  -> new #4 8 @ 101; trade #4 4 @ 100 with #1 leaves 4; trade #4 4 @ 101 with #2
        buy  #5 3 @ 102 fok  -> new #5 3 @ 102; trade #5 3 @ 102 with #3
        book 1               -> ask 102: #3 1
    """)


def test_an_untraded_fok_has_changed_nothing(make):
    """TIF-3: the state is the same but for sequence and clock."""
    lines = "sell #1 4 @ 100 -> new #1 4 @ 100\n"
    engine = run_session(read_session(lines), make())
    before = unpack_state(engine.snapshot())

    apply_all(engine, to_record(3, parse_command("buy #2 5 @ 100 fok")))

    assert unpack_state(engine.snapshot()) == before._replace(sequence=3, time_ns=3000)


@pytest.mark.parametrize("mode", ["cancel-taker", "cancel-both", "decrement"])
def test_fok_counts_nothing_from_its_first_own_maker_on(play, mode: str):
    """TIF-4."""
    play(f"""
        sell #8/1 5 @ 100                -> new #8/1 5 @ 100
        sell #7/1 5 @ 101                -> new #7/1 5 @ 101
        sell #8/2 5 @ 101                -> new #8/2 5 @ 101
        buy  #7/2 6 @ 101 fok stp={mode} -> new #7/2 6 @ 101; expired #7/2 6 @ 101
        book 1                           -> ask 100: #8/1 5; ask 101: #7/1 5, #8/2 5
        buy  #7/2 5 @ 101 fok stp={mode} -> new #7/2 5 @ 101; trade #7/2 5 @ 100 with #8/1
        book 1                           -> ask 101: #7/1 5, #8/2 5
    """)


def test_fok_with_cancel_maker_counts_past_its_own_makers(play):
    """TIF-4: and cancels only those it comes to."""
    play("""
        sell #7/1 5 @ 100                        -> new #7/1 5 @ 100
        sell #8/1 5 @ 100                        -> new #8/1 5 @ 100
        sell #7/2 5 @ 101                        -> new #7/2 5 @ 101
        sell #8/2 5 @ 102                        -> new #8/2 5 @ 102
        sell #7/3 5 @ 102                        -> new #7/3 5 @ 102
        buy  #7/9 11 @ 102 fok stp=cancel-maker  -> new #7/9 11 @ 102; expired #7/9 11 @ 102
        buy  #7/9 10 @ 102 fok stp=cancel-maker  -> new #7/9 10 @ 102; canceled #7/1 5 @ 100 with #7/9 self-trade; trade #7/9 5 @ 100 with #8/1 leaves 5; canceled #7/2 5 @ 101 with #7/9 self-trade; trade #7/9 5 @ 102 with #8/2
        book 1                                   -> ask 102: #7/3 5
    """)


def test_fok_that_allows_self_trades_counts_its_own_makers(play):
    """TIF-4, STP-2."""
    play("""
        sell #7/1 5 @ 100     -> new #7/1 5 @ 100
        buy  #7/2 5 @ 100 fok -> new #7/2 5 @ 100; trade #7/2 5 @ 100 with #7/1
    """)


# ---------------------------------------------------------------------------------------------- market orders


def test_a_market_order_trades_at_any_price(play):
    """MARKET-1: at both ends of the band."""
    play("""
        sell #1 5 @ 1000000  -> new #1 5 @ 1000000
        buy  #2 5 @ -1000000 -> new #2 5 @ -1000000
        buy  #3 4 market     -> new #3 4 @ 0; trade #3 4 @ 1000000 with #1
        sell #4 4 market fok -> new #4 4 @ 0; trade #4 4 @ -1000000 with #2
        sell #5 4 market ioc -> new #5 4 @ 0; trade #5 1 @ -1000000 with #2 leaves 3; expired #5 3 @ 0
        buy  #6 2 market fok -> new #6 2 @ 0; expired #6 2 @ 0
        book 1               -> ask 1000000: #1 1
    """)


def test_the_price_of_a_market_order_is_held_to_no_tick_and_no_band(play):
    """MARKET-2: its price field is 0, which is outside this band."""
    play("""
        instrument 1 tick 7 lot 2 band 70 700 open -> instrument-defined 1 tick 7 lot 2 band 70 700 open
        sell #1 4 @ 700                            -> new #1 4 @ 700
        buy  #2 3 market                           -> rejected #2 off-lot
        buy  #2 2 market                           -> new #2 2 @ 0; trade #2 2 @ 700 with #1
        buy  #3 2 market gtc                       -> rejected #3 bad-time-in-force
        raw 0101020101000000030000000000000046000000000000000200000000000000 -> rejected #3 bad-price
    """)


# --------------------------------------------------------------------------------------------------- post-only


def test_a_post_only_order_never_takes(play):
    """POST-1: a limit equal to the best opposite price would trade."""
    play("""
        sell #1 10 @ 100           -> new #1 10 @ 100
        buy  #2 10 @ 101 post-only -> rejected #2 would-cross
        buy  #2 10 @ 100 post-only -> rejected #2 would-cross
        buy  #2 10 @ 99 post-only  -> new #2 10 @ 99
        sell #3 10 @ 98 post-only  -> rejected #3 would-cross
        sell #3 10 @ 99 post-only  -> rejected #3 would-cross
        sell #3 10 @ 100 post-only -> new #3 10 @ 100
        book 1                     -> bid 99: #2 10; ask 100: #1 10, #3 10
    """)


def test_a_post_only_order_of_one_account_is_held_back_by_its_own_maker_too(play):
    """POST-1, STP-2: to post is decided before any maker is met."""
    play("""
        sell #7/1 10 @ 100                            -> new #7/1 10 @ 100
        buy  #7/2 10 @ 100 post-only stp=cancel-maker -> rejected #7/2 would-cross
        book 1                                        -> ask 100: #7/1 10
    """)


def test_a_sliding_order_enters_one_tick_behind_the_best_opposite_price(play):
    """POST-2: by the instrument's tick, and only if it would trade."""
    play("""
        instrument 1 tick 5 lot 1 band -50 50 open -> instrument-defined 1 tick 5 lot 1 band -50 50 open
        sell #1 1 @ 5                              -> new #1 1 @ 5
        buy  #2 1 @ -5 post-only slide             -> new #2 1 @ -5
        buy  #3 1 @ 50 post-only slide             -> new #3 1 @ 0 slid
        buy  #4 1 @ 5 post-only slide              -> new #4 1 @ 0 slid
        sell #5 1 @ -50 post-only slide            -> new #5 1 @ 5 slid
        book 1                                     -> bid 0: #3 1, #4 1; bid -5: #2 1; ask 5: #1 1, #5 1
    """)


def test_a_slide_out_of_the_band_is_rejected(play):
    """POST-3: at both ends."""
    play("""
        instrument 1 tick 5 lot 1 band 0 10 open -> instrument-defined 1 tick 5 lot 1 band 0 10 open
        sell #1 1 @ 0                            -> new #1 1 @ 0
        buy  #2 1 @ 10 post-only slide           -> rejected #2 would-cross
        cancel #1                                -> canceled #1 1 @ 0
        buy  #3 1 @ 10                           -> new #3 1 @ 10
        sell #4 1 @ 0 post-only slide            -> rejected #4 would-cross
        book 1                                   -> bid 10: #3 1
    """)


def test_a_slide_to_the_very_end_of_the_band_is_taken(play):
    """POST-3: at both ends."""
    play("""
        instrument 1 tick 5 lot 1 band 0 10 open -> instrument-defined 1 tick 5 lot 1 band 0 10 open
        sell #1 1 @ 5                            -> new #1 1 @ 5
        buy  #2 1 @ 5 post-only slide            -> new #2 1 @ 0 slid
        mass-cancel all                          -> canceled #2 1 @ 0 mass-cancel; canceled #1 1 @ 5 mass-cancel; mass-canceled 2 all
        buy  #3 1 @ 5                            -> new #3 1 @ 5
        sell #4 1 @ 5 post-only slide            -> new #4 1 @ 10 slid
    """)


def test_a_band_that_is_no_multiple_of_the_tick_still_bounds_a_slide(play):
    """POST-3: the band's end itself need not be a price."""
    play("""
        instrument 1 tick 5 lot 1 band 1 12 open -> instrument-defined 1 tick 5 lot 1 band 1 12 open
        sell #1 1 @ 5                            -> new #1 1 @ 5
        buy  #2 1 @ 5 post-only slide            -> rejected #2 would-cross
        cancel #1                                -> canceled #1 1 @ 5
        buy  #3 1 @ 10                           -> new #3 1 @ 10
        sell #4 1 @ 5 post-only slide            -> rejected #4 would-cross
    """)


@pytest.mark.parametrize(
    "order",
    [
        "buy #1 1 @ 1 ioc post-only",
        "buy #1 1 @ 1 fok post-only slide",
        "buy #1 1 @ 1 slide",
        "raw 0101020301000000010000000000000000000000000000000100000000000000",
    ],
)
def test_a_post_only_order_is_gtc_and_slide_stands_beside_post_only(play, order: str):
    """POST-4: the last one is a market order, which no words but its bytes can ask to post."""
    play(f"{order} -> rejected #1 bad-flags")


# ------------------------------------------------------------------------------------------------------ cancel


def test_a_cancel_takes_an_order_out_wherever_it_stands(play):
    """CANCEL-1: first, middle, last and only, and reports what it still had."""
    play("""
        buy  #1 5 @ 100 -> new #1 5 @ 100
        buy  #2 5 @ 100 -> new #2 5 @ 100
        buy  #3 5 @ 100 -> new #3 5 @ 100
        buy  #4 5 @ 100 -> new #4 5 @ 100
        sell #5 2 @ 100 -> new #5 2 @ 100; trade #5 2 @ 100 with #1
        cancel #2       -> canceled #2 5 @ 100
        book 1          -> bid 100: #1 3, #3 5, #4 5
        cancel #4       -> canceled #4 5 @ 100
        book 1          -> bid 100: #1 3, #3 5
        cancel #1       -> canceled #1 3 @ 100
        book 1          -> bid 100: #3 5
        cancel #3       -> canceled #3 5 @ 100
        book 1          -> empty
    """)


def test_a_cancel_of_what_does_not_rest_there_has_one_reason(play):
    """CANCEL-2: unknown, filled, canceled, expired or elsewhere."""
    play("""
        instrument 1 tick 1 lot 1 band 0 100 open -> instrument-defined 1 tick 1 lot 1 band 0 100 open
        instrument 2 tick 1 lot 1 band 0 100 open -> instrument-defined 2 tick 1 lot 1 band 0 100 open
        cancel #1                                 -> cancel-rejected #1 unknown-order
        buy  #1 5 @ 10                            -> new #1 5 @ 10
        cancel #1 on 2                            -> cancel-rejected #1 unknown-order on 2
        sell #2 5 @ 10                            -> new #2 5 @ 10; trade #2 5 @ 10 with #1
        cancel #1                                 -> cancel-rejected #1 unknown-order
        cancel #2                                 -> cancel-rejected #2 unknown-order
        buy  #3 5 @ 10 ioc                        -> new #3 5 @ 10; expired #3 5 @ 10
        cancel #3                                 -> cancel-rejected #3 unknown-order
        buy  #4 5 @ 10                            -> new #4 5 @ 10
        cancel #4                                 -> canceled #4 5 @ 10
        cancel #4                                 -> cancel-rejected #4 unknown-order
    """)


# ----------------------------------------------------------------------------------------------------- replace


@pytest.mark.parametrize(
    ("replace", "reason"),
    [
        ("replace buy #9 5 @ 100", "replace-rejected #9 unknown-order"),
        ("replace sell #1 5 @ 100", "replace-rejected #1 side-mismatch"),
        ("replace buy #1 6 @ 101", "replace-rejected #1 off-tick"),
        ("replace buy #1 7 @ 100", "replace-rejected #1 off-lot"),
        ("replace buy #1 6 @ 1002", "replace-rejected #1 outside-band"),
        ("replace buy #1 6 @ 104 post-only", "replace-rejected #1 would-cross"),
        ("replace buy #1 1 @ 101", "replace-rejected #1 off-tick"),
        ("replace buy #1 1 @ 100", "replace-rejected #1 off-lot"),
        ("replace buy #1 0 @ 100", "replace-rejected #1 bad-quantity"),
    ],
)
def test_a_rejected_replace_changes_nothing(play, replace: str, reason: str):
    """RPL-1."""
    play(f"""
        instrument 1 tick 2 lot 2 band 0 1000 open -> instrument-defined 1 tick 2 lot 2 band 0 1000 open
        buy  #1 10 @ 100                           -> new #1 10 @ 100
        buy  #2 10 @ 100                           -> new #2 10 @ 100
        sell #3 10 @ 104                           -> new #3 10 @ 104
        sell #4 2 @ 100                            -> new #4 2 @ 100; trade #4 2 @ 100 with #1
        {replace}                                  -> {reason}
        book 1                                     -> bid 100: #1 8, #2 10; ask 104: #3 10
        replace buy #1 10 @ 102                    -> replaced #1 10 @ 102 leaves 8
    """)


def test_the_quantity_of_a_replace_is_the_new_total(play):
    """RPL-2: what is filled counts, also what was filled as taker and before an earlier replace."""
    play("""
        sell #1 2 @ 100         -> new #1 2 @ 100
        buy  #2 10 @ 100        -> new #2 10 @ 100; trade #2 2 @ 100 with #1 leaves 8
        sell #3 3 @ 100         -> new #3 3 @ 100; trade #3 3 @ 100 with #2
        replace buy #2 8 @ 100  -> replaced #2 8 @ 100 leaves 3 kept
        replace buy #2 20 @ 101 -> replaced #2 20 @ 101 leaves 15
        sell #4 5 @ 101         -> new #4 5 @ 101; trade #4 5 @ 101 with #2
        replace buy #2 12 @ 101 -> replaced #2 12 @ 101 leaves 2 kept
        book 1                  -> bid 101: #2 2
    """)


def test_what_self_trade_prevention_took_off_is_not_filled(play):
    """RPL-2, STP-6: the total of a decremented order is its leaves and what it traded."""
    play("""
        sell #7/1 10 @ 100                 -> new #7/1 10 @ 100
        buy  #8/1 2 @ 100                  -> new #8/1 2 @ 100; trade #8/1 2 @ 100 with #7/1
        buy  #7/2 3 @ 100 stp=decrement    -> new #7/2 3 @ 100; canceled #7/1 3 @ 100 with #7/2 leaves 5 self-trade; canceled #7/2 3 @ 100 with #7/1 self-trade
        replace sell #7/1 7 @ 100          -> replaced #7/1 7 @ 100 leaves 5 kept
        replace sell #7/1 8 @ 100          -> replaced #7/1 8 @ 100 leaves 6
        book 1                             -> ask 100: #7/1 6
    """)


@pytest.mark.parametrize("total", [1, 3, 4])
def test_a_total_already_filled_cancels_the_rest(play, total: int):
    """RPL-3: below and at what is filled, at the same or another price."""
    play(f"""
        buy  #1 10 @ 100             -> new #1 10 @ 100
        sell #2 4 @ 100              -> new #2 4 @ 100; trade #2 4 @ 100 with #1
        sell #3 5 @ 105              -> new #3 5 @ 105
        replace buy #1 {total} @ 105 -> canceled #1 6 @ 100 total-filled
        cancel #1                    -> cancel-rejected #1 unknown-order
        book 1                       -> ask 105: #3 5
    """)


def test_a_total_already_filled_cancels_before_post_only_is_asked(play):
    """RPL-3: an order that ends cannot cross."""
    play("""
        buy  #1 10 @ 100                 -> new #1 10 @ 100
        sell #2 4 @ 100                  -> new #2 4 @ 100; trade #2 4 @ 100 with #1
        sell #3 5 @ 105                  -> new #3 5 @ 105
        replace buy #1 4 @ 105 post-only -> canceled #1 6 @ 100 total-filled
    """)


def test_fewer_or_equal_leaves_at_the_same_price_keep_the_place(play):
    """RPL-4: whatever the flags say."""
    play("""
        buy  #1 10 @ 100                                  -> new #1 10 @ 100
        buy  #2 10 @ 100                                  -> new #2 10 @ 100
        replace buy #1 10 @ 100                           -> replaced #1 10 @ 100 kept
        replace buy #1 9 @ 100 post-only slide            -> replaced #1 9 @ 100 kept
        sell #3 4 @ 100                                   -> new #3 4 @ 100; trade #3 4 @ 100 with #1
        replace buy #1 9 @ 100                            -> replaced #1 9 @ 100 leaves 5 kept
        replace buy #1 5 @ 100 stp=cancel-taker           -> replaced #1 5 @ 100 leaves 1 kept
        book 1                                            -> bid 100: #1 1, #2 10
    """)


def test_more_leaves_or_another_price_lose_the_place(play):
    """RPL-5."""
    play("""
        buy  #1 10 @ 100         -> new #1 10 @ 100
        buy  #2 10 @ 100         -> new #2 10 @ 100
        buy  #3 10 @ 99          -> new #3 10 @ 99
        replace buy #1 11 @ 100  -> replaced #1 11 @ 100
        book 1                   -> bid 100: #2 10, #1 11; bid 99: #3 10
        replace buy #2 5 @ 99    -> replaced #2 5 @ 99
        book 1                   -> bid 100: #1 11; bid 99: #3 10, #2 5
        replace buy #2 5 @ 100   -> replaced #2 5 @ 100
        book 1                   -> bid 100: #1 11, #2 5; bid 99: #3 10
    """)


def test_a_replace_that_crosses_trades_as_a_taker(play):
    """RPL-5: at the makers' prices, and what is left rests."""
    play("""
        sell #1 3 @ 101          -> new #1 3 @ 101
        sell #2 3 @ 102          -> new #2 3 @ 102
        buy  #3 10 @ 100         -> new #3 10 @ 100
        replace buy #3 4 @ 101   -> replaced #3 4 @ 101; trade #3 3 @ 101 with #1 leaves 1
        book 1                   -> bid 101: #3 1; ask 102: #2 3
        replace buy #3 6 @ 105   -> replaced #3 6 @ 105 leaves 3; trade #3 3 @ 102 with #2
        book 1                   -> empty
        cancel #3                -> cancel-rejected #3 unknown-order
    """)


def test_the_only_order_of_a_level_can_be_replaced_at_its_own_price(play):
    """RPL-5: its level vanishes and returns."""
    play("""
        buy  #1 1 @ 100        -> new #1 1 @ 100
        replace buy #1 2 @ 100 -> replaced #1 2 @ 100
        book 1                 -> bid 100: #1 2
    """)


def test_the_flags_of_a_replace_govern_its_re_entry_only(play):
    """RPL-6: neither the flags of the order nor those of an earlier replace are remembered."""
    play("""
        sell #8/1 5 @ 105                                -> new #8/1 5 @ 105
        buy  #7/1 10 @ 100 post-only slide               -> new #7/1 10 @ 100
        replace buy #7/1 10 @ 105 post-only              -> replace-rejected #7/1 would-cross
        replace buy #7/1 10 @ 105 post-only slide        -> replaced #7/1 10 @ 104 slid
        replace buy #7/1 10 @ 105                        -> replaced #7/1 10 @ 105; trade #7/1 5 @ 105 with #8/1 leaves 5
        sell #7/2 5 @ 106                                -> new #7/2 5 @ 106
        replace buy #7/1 6 @ 106 stp=cancel-taker        -> replaced #7/1 6 @ 106 leaves 1; canceled #7/1 1 @ 106 with #7/2 self-trade
        buy  #7/3 5 @ 100 stp=cancel-taker               -> new #7/3 5 @ 100
        replace buy #7/3 5 @ 106                         -> replaced #7/3 5 @ 106; trade #7/3 5 @ 106 with #7/2
        book 1                                           -> empty
    """)


def test_a_replace_may_meet_its_own_account(play):
    """RPL-6, STP-4, STP-5, STP-6: as a taker, under the replace's mode."""
    play("""
        sell #7/1 4 @ 101                           -> new #7/1 4 @ 101
        sell #7/2 4 @ 102                           -> new #7/2 4 @ 102
        sell #7/3 4 @ 103                           -> new #7/3 4 @ 103
        buy  #7/4 6 @ 100                           -> new #7/4 6 @ 100
        replace buy #7/4 6 @ 101 stp=decrement      -> replaced #7/4 6 @ 101; canceled #7/1 4 @ 101 with #7/4 self-trade; canceled #7/4 4 @ 101 with #7/1 leaves 2 self-trade
        replace buy #7/4 2 @ 102 stp=cancel-maker   -> replaced #7/4 2 @ 102; canceled #7/2 4 @ 102 with #7/4 self-trade
        book 1                                      -> bid 102: #7/4 2; ask 103: #7/3 4
        replace buy #7/4 2 @ 103 stp=cancel-both    -> replaced #7/4 2 @ 103; canceled #7/3 4 @ 103 with #7/4 self-trade; canceled #7/4 2 @ 103 with #7/3 self-trade
        book 1                                      -> empty
    """)


def test_a_replace_is_gtc_not_market_and_of_its_orders_side(play):
    """RPL-7: the raw frame is a market replace."""
    play("""
        buy  #1 5 @ 100            -> new #1 5 @ 100
        replace sell #1 5 @ 100    -> replace-rejected #1 side-mismatch
        replace buy #1 4 @ 100 ioc -> replace-rejected #1 bad-time-in-force
        replace buy #1 4 @ 100 fok -> replace-rejected #1 bad-time-in-force
        raw 0301010101000000010000000000000000000000000000000400000000000000 -> replace-rejected #1 bad-flags
        book 1                     -> bid 100: #1 5
    """)


# ------------------------------------------------------------------------------------------ self-trade prevention


@pytest.mark.parametrize(
    ("maker", "taker", "same"),
    [
        ("#1", "#2", True),
        ("#7/1", "#7/1099511627775", True),
        ("#8388607/1", "#8388607/2", True),
        ("#7/1", "#8/1", False),
        ("#1", "#1/1", False),
        ("#1099511627775", "#1/0", False),
    ],
)
def test_an_account_is_the_high_part_of_an_order_id(play, maker: str, taker: str, same: bool):
    """STP-1, LIM-4: account 0 is an account like any other."""
    met = f"canceled {taker} 5 @ 100 with {maker} self-trade" if same else f"trade {taker} 5 @ 100 with {maker}"

    play(f"""
        sell {maker} 5 @ 100                  -> new {maker} 5 @ 100
        buy  {taker} 5 @ 100 stp=cancel-taker -> new {taker} 5 @ 100; {met}
    """)


def test_the_takers_mode_decides_and_allow_trades(play):
    """STP-2: the maker's mode, given when it was new, is not asked."""
    play("""
        sell #7/1 5 @ 100 stp=cancel-both   -> new #7/1 5 @ 100
        buy  #7/2 3 @ 100                   -> new #7/2 3 @ 100; trade #7/2 3 @ 100 with #7/1
        buy  #7/3 2 @ 100 stp=allow         -> new #7/3 2 @ 100; trade #7/3 2 @ 100 with #7/1
        book 1                              -> empty
    """)


def test_a_maker_is_met_in_queue_order_and_only_within_the_limit(play):
    """STP-2: own orders beyond the limit or behind the last maker are not met."""
    play("""
        sell #8/1 5 @ 100                    -> new #8/1 5 @ 100
        sell #7/1 5 @ 100                    -> new #7/1 5 @ 100
        sell #7/2 5 @ 101                    -> new #7/2 5 @ 101
        buy  #7/3 5 @ 100 stp=cancel-both    -> new #7/3 5 @ 100; trade #7/3 5 @ 100 with #8/1
        buy  #7/4 9 @ 99 stp=cancel-both     -> new #7/4 9 @ 99
        buy  #7/5 9 @ 100 stp=cancel-maker   -> new #7/5 9 @ 100; canceled #7/1 5 @ 100 with #7/5 self-trade
        book 1                               -> bid 100: #7/5 9; bid 99: #7/4 9; ask 101: #7/2 5
    """)


def test_cancel_taker_cancels_the_rest_of_the_taker(play):
    """STP-3, for an IOC and a market order too: canceled, not expired."""
    play("""
        buy  #7/1 5 @ 100                       -> new #7/1 5 @ 100
        sell #7/2 9 @ 100 stp=cancel-taker      -> new #7/2 9 @ 100; canceled #7/2 9 @ 100 with #7/1 self-trade
        sell #7/3 9 @ 100 ioc stp=cancel-taker  -> new #7/3 9 @ 100; canceled #7/3 9 @ 100 with #7/1 self-trade
        sell #7/4 9 market stp=cancel-taker     -> new #7/4 9 @ 0; canceled #7/4 9 @ 0 with #7/1 self-trade
        book 1                                  -> bid 100: #7/1 5
    """)


def test_cancel_maker_cancels_the_makers_and_the_taker_goes_on(play):
    """STP-4: through a level that empties."""
    play("""
        buy  #7/1 5 @ 100                      -> new #7/1 5 @ 100
        buy  #7/2 5 @ 100                      -> new #7/2 5 @ 100
        buy  #8/1 5 @ 99                       -> new #8/1 5 @ 99
        buy  #7/3 5 @ 99                       -> new #7/3 5 @ 99
        sell #7/4 9 @ 99 ioc stp=cancel-maker  -> new #7/4 9 @ 99; canceled #7/1 5 @ 100 with #7/4 self-trade; canceled #7/2 5 @ 100 with #7/4 self-trade; trade #7/4 5 @ 99 with #8/1 leaves 4; canceled #7/3 5 @ 99 with #7/4 self-trade; expired #7/4 4 @ 99
        book 1                                 -> empty
    """)


def test_cancel_both_cancels_the_maker_first_and_ends_the_taker(play):
    """STP-5."""
    play("""
        buy  #7/1 5 @ 100                   -> new #7/1 5 @ 100
        buy  #7/2 5 @ 100                   -> new #7/2 5 @ 100
        sell #7/3 20 @ 100 stp=cancel-both  -> new #7/3 20 @ 100; canceled #7/1 5 @ 100 with #7/3 self-trade; canceled #7/3 20 @ 100 with #7/1 self-trade
        book 1                              -> bid 100: #7/2 5
    """)


def test_decrement_takes_the_smaller_leaves_off_both(play):
    """STP-6: maker larger, equal, smaller; the maker's cancel stands first and a partly decremented one keeps its place."""
    play("""
        buy  #7/1 5 @ 100                   -> new #7/1 5 @ 100
        buy  #7/2 5 @ 100                   -> new #7/2 5 @ 100
        buy  #8/1 5 @ 100                   -> new #8/1 5 @ 100
        sell #7/3 2 @ 100 stp=decrement     -> new #7/3 2 @ 100; canceled #7/1 2 @ 100 with #7/3 leaves 3 self-trade; canceled #7/3 2 @ 100 with #7/1 self-trade
        book 1                              -> bid 100: #7/1 3, #7/2 5, #8/1 5
        sell #7/4 3 @ 100 stp=decrement     -> new #7/4 3 @ 100; canceled #7/1 3 @ 100 with #7/4 self-trade; canceled #7/4 3 @ 100 with #7/1 self-trade
        sell #7/5 9 @ 100 stp=decrement     -> new #7/5 9 @ 100; canceled #7/2 5 @ 100 with #7/5 self-trade; canceled #7/5 5 @ 100 with #7/2 leaves 4 self-trade; trade #7/5 4 @ 100 with #8/1
        book 1                              -> bid 100: #8/1 1
    """)


@pytest.mark.parametrize("mode", ["cancel-taker", "cancel-both"])
def test_trades_before_the_own_order_stand(play, mode: str):
    """STP-7."""
    own = "" if mode == "cancel-taker" else "canceled #7/1 5 @ 101 with #7/2 self-trade; "
    left = "ask 101: #7/1 5; " if mode == "cancel-taker" else ""

    play(f"""
        sell #8/1 5 @ 100              -> new #8/1 5 @ 100
        sell #7/1 5 @ 101              -> new #7/1 5 @ 101
        sell #8/2 5 @ 102              -> new #8/2 5 @ 102
        buy  #7/2 12 @ 102 stp={mode}  -> new #7/2 12 @ 102; trade #7/2 5 @ 100 with #8/1 leaves 7; {own}canceled #7/2 7 @ 102 with #7/1 self-trade
        book 1                         -> {left}ask 102: #8/2 5
    """)


# ------------------------------------------------------------------------------------------------- mass cancel

BOOKS = """
    instrument 2 tick 1 lot 1 band 0 1000 open -> instrument-defined 2 tick 1 lot 1 band 0 1000 open
    instrument 1 tick 1 lot 1 band 0 1000 open -> instrument-defined 1 tick 1 lot 1 band 0 1000 open
    sell #7/1 1 @ 202 on 2                     -> new #7/1 1 @ 202 on 2
    sell #8/2 1 @ 201 on 2                     -> new #8/2 1 @ 201 on 2
    buy  #7/3 1 @ 100 on 2                     -> new #7/3 1 @ 100 on 2
    buy  #7/4 1 @ 101 on 2                     -> new #7/4 1 @ 101 on 2
    buy  #8/5 1 @ 101 on 2                     -> new #8/5 1 @ 101 on 2
    buy  #7/6 1 @ 101 on 2                     -> new #7/6 1 @ 101 on 2
    sell #7/7 1 @ 300                          -> new #7/7 1 @ 300
    buy  #8/8 1 @ 299                          -> new #8/8 1 @ 299
"""


@pytest.mark.parametrize(
    ("scope", "canceled", "left_1", "left_2"),
    [
        (
            "on 2",
            "#7/4 1 @ 101, #8/5 1 @ 101, #7/6 1 @ 101, #7/3 1 @ 100, #8/2 1 @ 201, #7/1 1 @ 202",
            "bid 299: #8/8 1; ask 300: #7/7 1",
            "empty",
        ),
        ("account 8", "#8/8 1 @ 299, #8/5 1 @ 101, #8/2 1 @ 201", "ask 300: #7/7 1", None),
        ("account 7 on 2", "#7/4 1 @ 101, #7/6 1 @ 101, #7/3 1 @ 100, #7/1 1 @ 202", None, None),
        (
            "all",
            (
                "#8/8 1 @ 299, #7/7 1 @ 300, #7/4 1 @ 101, #8/5 1 @ 101, #7/6 1 @ 101, #7/3 1 @ 100, "
                "#8/2 1 @ 201, #7/1 1 @ 202"
            ),
            "empty",
            "empty",
        ),
        ("account 0", "", "bid 299: #8/8 1; ask 300: #7/7 1", None),
    ],
)
def test_a_mass_cancel_takes_its_scope_in_canonical_order(play, scope: str, canceled: str, left_1, left_2):
    """MASS-1, MASS-2: by instrument number, not by when it was defined; bids first; best first; oldest first."""
    orders = canceled.split(", ") if canceled else []
    in_1 = ("#7/7", "#8/8")
    on = ["" if order.startswith(in_1) else " on 2" for order in orders]
    reports = [f"canceled {order} mass-cancel{where}" for order, where in zip(orders, on, strict=True)]
    looks = [f"book {number} -> {left}" for number, left in ((1, left_1), (2, left_2)) if left]

    play(
        "\n".join(
            [
                BOOKS,
                f"mass-cancel {scope} -> {'; '.join([*reports, f'mass-canceled {len(orders)} {scope}'])}",
                *looks,
                f"mass-cancel {scope} -> mass-canceled 0 {scope}",
            ]
        )
    )


@pytest.mark.parametrize("state", STATES)
def test_a_mass_cancel_works_in_every_state_and_succeeds_with_nothing(play, state: str):
    """MASS-3: an account that never traded included."""
    play(f"""
        buy #7/1 1 @ 100            -> new #7/1 1 @ 100
        state 1 {state}             -> state-changed 1 {state}
        mass-cancel account 8       -> mass-canceled 0 account 8
        mass-cancel account 8 on 1  -> mass-canceled 0 account 8 on 1
        mass-cancel on 1            -> canceled #7/1 1 @ 100 mass-cancel; mass-canceled 1 on 1
        mass-cancel on 1            -> mass-canceled 0 on 1
        mass-cancel all             -> mass-canceled 0 all
    """)


LIMITS = [
    "kill 1",
    "kill 0 account 7",
    "kill 1 on 1",
    "kill 1 on 9",
    "max-quantity 1",
    "max-notional 1 account 7",
    "collar 1 on 1",
    "max-open-orders 1 account 7",
    "max-exposure 4611686018427387903 account 8388607",
    "order-rate 1",
    "cancel-rate 1",
]


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_changes_nothing_and_is_repeated(play, limit: str):
    """LIMIT-1: what it would forbid goes on, whether the instrument is defined or not, and the snapshot forgets it."""
    before = "buy #7/1 10 @ 100 -> new #7/1 10 @ 100"
    after = """
        buy  #7/2 10 @ 101          -> new #7/2 10 @ 101
        sell #7/3 5 @ 1             -> new #7/3 5 @ 1; trade #7/3 5 @ 101 with #7/2
        cancel #7/2                 -> canceled #7/2 5 @ 101
        book 1                      -> bid 100: #7/1 10
    """

    with_one = play(f"{before}\nlimit {limit} -> limit-set {limit}\n{after}")
    without = play(f"{before}\ncancel #99 -> cancel-rejected #99 unknown-order\n{after}")

    assert with_one.snapshot() == without.snapshot()


@pytest.mark.parametrize("state", STATES)
def test_a_limit_is_repeated_in_every_state(play, state: str):
    """LIMIT-1."""
    play(f"""
        state 1 {state}         -> state-changed 1 {state}
        limit collar 50 on 1    -> limit-set collar 50 on 1
        limit kill 1 on 1       -> limit-set kill 1 on 1
    """)
