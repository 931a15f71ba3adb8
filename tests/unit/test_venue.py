"""A venue in a notebook: every call is one command, and what comes back is what the engine said."""

import random
import shutil
from typing import Any

import numpy as np
import pytest
from crc32c import crc32c

import ferrox as fx
from ferrox import venue as venue_module
from ferrox.engine import Capacity
from ferrox.errors import JournalFailed, NotDeterministic, SequenceError, UsageError
from ferrox.journal import Journal, Tally, identify, read, scan
from ferrox.journal.layout import MARK
from ferrox.messages import (
    CANCEL_ORDER_DTYPE,
    COMMAND_DTYPE,
    DEFINE_INSTRUMENT_DTYPE,
    MASS_CANCEL_DTYPE,
    RECORD,
    RECORD_DTYPE,
    RECORD_SIZE,
    SET_TRADING_STATE_DTYPE,
    CancelOrder,
    Command,
    DefineInstrument,
    MassCancel,
    NewOrder,
    ReplaceOrder,
    Report,
    SetLimit,
    SetTradingState,
)
from ferrox.reference.engine import ReferenceEngine
from ferrox.snapshot import read_snapshot
from ferrox.state import unpack_state
from ferrox.terms import Limit, Reason, ReportKind, Scope, SelfTrade, Side, TimeInForce, TradingState
from ferrox.text import format_report

SMALL: Any = {"orders": 64, "instruments": 8}


@pytest.fixture
def venue():
    """A venue with one open instrument."""
    made = fx.Venue(**SMALL)
    made.define(1, band=(-1000, 1000))
    return made


def lines(result):
    return "; ".join(map(format_report, result))


class Recorder:
    """The reference engine, which keeps the records it was given."""

    def __init__(self, most=None):
        self.inner = ReferenceEngine(Capacity(64, 8))
        self.records = b""
        self.most = most

    def apply(self, records):
        records = records[: None if self.most is None else self.most * RECORD_SIZE]
        self.records += records
        return self.inner.apply(records)

    def snapshot(self):
        return self.inner.snapshot()

    def restore(self, snapshot):
        self.inner.restore(snapshot)

    def commands(self):
        """The commands that came, each as the rest of its record after the checksums."""
        return [self.records[start + 8 : start + 64] for start in range(0, len(self.records), RECORD_SIZE)]


# -------------------------------------------------------------------------------------------------------- one by one


def test_each_method_is_one_command(venue):
    assert lines(venue.sell(10, 100)) == "new #1 10 @ 100"
    assert lines(venue.buy(15, 101)) == "new #2 15 @ 101; trade #2 10 @ 100 with #1 leaves 5"
    assert lines(venue.replace(2, price=99, quantity=14)) == "replaced #2 14 @ 99 leaves 4"
    assert lines(venue.cancel(2)) == "canceled #2 4 @ 99"
    assert lines(venue.submit("sell", 3, 50, account=7)) == "new #7/1 3 @ 50"
    assert lines(venue.mass_cancel(account=7)) == "canceled #7/1 3 @ 50 mass-cancel; mass-canceled 1 account 7"
    assert lines(venue.set_state(1, "pre-open")) == "state-changed 1 pre-open"
    assert lines(venue.define(2, tick=5, lot=10, band=(0, 50), state=TradingState.HALTED)) == (
        "instrument-defined 2 tick 5 lot 10 band 0 50 halted"
    )
    assert lines(venue.set_limit("max_quantity", 500, account=7)) == "limit-set max-quantity 500 account 7"
    assert lines(venue.set_limit(Limit.KILL, True, instrument=2)) == "limit-set kill 1 on 2"
    assert venue.sequence == 11


def test_a_limit_is_about_no_order_and_moves_no_book(venue):
    venue.buy(5, 100, account=7)
    before = venue.orders()

    result = venue.set_limit("order-rate", 3, account=7)

    assert (bool(result), result.order_id, result.leaves) == (True, 0, 0)
    assert venue.orders() == before


def test_calls_typed_commands_and_frames_make_the_same_records():
    by_calls, by_types, by_frames = (Recorder() for _ in range(3))
    calls = fx.Venue(by_calls)
    calls.define(3, tick=1, lot=1, band=(-5, 500), state="Pre_Open")
    calls.set_state(3, 2)
    calls.buy(5, -3, instrument=3)
    calls.sell(6, 7, instrument=3, account=2, post_only=True, slide=True, self_trade="cancel-maker")
    calls.submit(Side.SELL, 7, instrument=3, order_id=np.int64(99), self_trade=SelfTrade.DECREMENT)
    calls.submit("BUY", np.uint8(8), np.int32(9), instrument=3, time_in_force="fok", account=np.int64(2))
    calls.replace(1, price=4, quantity=9, side="buy", instrument=3, post_only=True)
    calls.cancel(1, 3)
    calls.mass_cancel()
    calls.mass_cancel(instrument=3)
    calls.mass_cancel(account=2)
    calls.mass_cancel(instrument=3, account=2)
    calls.set_limit("kill", 1, instrument=3)
    calls.set_limit(5, np.int64(9), account=np.int64(2))
    account = 2 << 40
    commands: list[Command] = [
        DefineInstrument(TradingState.PRE_OPEN, 3, -5, 500, 1, 1),
        SetTradingState(TradingState.OPEN, 3),
        NewOrder(Side.BUY, TimeInForce.GTC, 0, 3, 1, -3, 5),
        NewOrder(Side.SELL, TimeInForce.GTC, 0x26, 3, account + 1, 7, 6),
        NewOrder(Side.SELL, TimeInForce.IOC, 0x41, 3, 99, 0, 7),
        NewOrder(Side.BUY, TimeInForce.FOK, 0, 3, account + 2, 9, 8),
        ReplaceOrder(Side.BUY, TimeInForce.GTC, 2, 3, 1, 4, 9),
        CancelOrder(3, 1),
        MassCancel(Scope.VENUE),
        MassCancel(Scope.INSTRUMENT, 3),
        MassCancel(Scope.ACCOUNT, 0, 2),
        MassCancel(Scope.ACCOUNT_IN_INSTRUMENT, 3, 2),
        SetLimit(Limit.KILL, 3, 0, 1),
        SetLimit(Limit.MAX_OPEN_ORDERS, 0, 2, 9),
    ]
    types, frames = fx.Venue(by_types), fx.Venue(by_frames)

    results = [types.send(command) for command in commands]
    others = [frames.send(bytearray(command.pack())) for command in commands]

    assert by_calls.commands() == by_types.commands() == by_frames.commands()
    assert results == others
    assert calls.snapshot() == types.snapshot() == frames.snapshot()
    assert [types.buy(1, 1, instrument=3).order_id, frames.buy(1, 1, instrument=3).order_id] == [100, 100]


def test_a_record_carries_what_an_engine_reads_and_zeros_for_the_journal():
    recorder = Recorder()
    venue = fx.Venue(recorder)

    venue.buy(5, 100, order_id=7)
    venue.cancel(7, 1)

    first, second = (recorder.records[start : start + 64] for start in (0, 64))
    assert RECORD.unpack(first) == (0, 0, 1, 1, 1, 32, 0, 0, 1, 1, 1, 0, 1, 7, 100, 5, 0)
    assert RECORD.unpack(second) == (0, 0, 2, 2, 2, 16, 0, 0, 2, 0, 0, 0, 1, 7, 0, 0, 0)


def test_whatever_fits_the_wire_comes_back_as_a_rejection(venue):
    rejections = {
        Reason.BAD_QUANTITY: venue.buy(0, 100),
        Reason.BAD_PRICE: venue.buy(1, 2**62),
        Reason.BAD_INSTRUMENT: venue.buy(1, 1, instrument=0),
        Reason.UNKNOWN_INSTRUMENT: venue.buy(1, 1, instrument=9),
        Reason.OUTSIDE_BAND: venue.buy(1, 1001),
        Reason.BAD_SIDE: venue.submit(3, 1, 1),
        Reason.BAD_TIME_IN_FORCE: venue.buy(1, time_in_force="gtc"),
        Reason.BAD_FLAGS: venue.buy(1, 1, slide=True),
        Reason.BAD_ORDER_ID: venue.buy(1, 1, order_id=-4),
        Reason.UNKNOWN_ORDER: venue.cancel(77),
        Reason.BAD_BAND: venue.define(1, band=(5, 4)),
        Reason.BAD_STATE: venue.set_state(1, 9),
        Reason.BAD_LIMIT: venue.set_limit(9, 1),
        Reason.BAD_VALUE: venue.set_limit("kill", 2),
        Reason.BAD_ACCOUNT: venue.mass_cancel(account=2**40),
        Reason.UNKNOWN_KIND: venue.send(bytes([9]) + bytes(15)),
    }

    assert {reason: result.reason for reason, result in rejections.items()} == {reason: reason for reason in rejections}
    assert not any(rejections.values())


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda venue: venue.buy(1, 10.5), TypeError, r"price is a whole number of ticks, not 10.5 \(float\)"),
        (lambda venue: venue.buy(1.0, 10), TypeError, r"quantity is a whole number of lots, not 1.0 \(float\)"),
        (lambda venue: venue.buy(1, np.float64(10)), TypeError, "price is a whole number of ticks"),
        (lambda venue: venue.buy("1", 10), TypeError, r"quantity is a whole number of lots, not '1' \(str\)"),
        (lambda venue: venue.buy(1, 10, order_id=1.5), TypeError, "order_id is an integer, not 1.5"),
        (lambda venue: venue.buy(1, 10, account="x"), TypeError, "account is an integer, not 'x'"),
        (lambda venue: venue.buy(2**32, 10), ValueError, "quantity 4294967296 does not fit its field, 0 .. 4294967295"),
        (lambda venue: venue.buy(-1, 10), ValueError, "quantity -1 does not fit"),
        (lambda venue: venue.buy(1, 2**63), ValueError, "price 9223372036854775808 does not fit"),
        (lambda venue: venue.buy(1, 10, order_id=2**63), ValueError, "order_id 9223372036854775808 does not fit"),
        (lambda venue: venue.buy(1, 10, instrument=-1), ValueError, "instrument -1 does not fit"),
        (lambda venue: venue.buy(1, 10, account=2**23), ValueError, "account 8388608 is outside 0 .. 8388607"),
        (lambda venue: venue.buy(1, 10, account=-1), ValueError, "account -1 is outside"),
        (lambda venue: venue.submit("hold", 1, 10), ValueError, "side 'hold' is none of: buy, sell"),
        (lambda venue: venue.submit(256, 1, 10), ValueError, "side 256 does not fit its field, 0 .. 255"),
        (lambda venue: venue.submit(1.5, 1, 10), TypeError, "side 1.5 is neither a name nor an integer"),
        (lambda venue: venue.buy(1, 10, time_in_force="day"), ValueError, "time_in_force 'day' is none of: gtc, ioc"),
        (
            lambda venue: venue.buy(1, 10, self_trade="no"),
            ValueError,
            "self_trade 'no' is none of: allow, cancel-taker",
        ),
        (lambda venue: venue.buy(1, 10, self_trade=8), ValueError, "self_trade 8 does not fit its field, 0 .. 7"),
        (lambda venue: venue.cancel("7"), TypeError, "order_id is an integer"),
        (lambda venue: venue.replace(1, price=1.5, quantity=1, side=1), TypeError, "price is a whole number of ticks"),
        (lambda venue: venue.define(1, tick=0.5), TypeError, "tick is an integer, not 0.5"),
        (lambda venue: venue.set_state(1, "shut"), ValueError, "state 'shut' is none of: pre-open, open"),
        (lambda venue: venue.set_limit("speed", 1), ValueError, "limit 'speed' is none of: kill, max-quantity"),
        (lambda venue: venue.set_limit("kill", 2**63), ValueError, "value 9223372036854775808 does not fit"),
        (lambda venue: venue.set_limit("kill", 0.5), TypeError, "value is an integer, not 0.5"),
        (
            lambda venue: venue.send(NewOrder._make((1, 1, 0, 1, 1, 1.5, 1, 0))),
            TypeError,
            "price is a whole number of ticks",
        ),
        (lambda venue: venue.send(bytes(17)), ValueError, "16 or 32 bytes, this frame has 17"),
        (lambda venue: venue.send(bytes([254]) + bytes(15)), ValueError, "command kind 254 is the journal's own"),
        (lambda venue: venue.send("buy 1 @ 5"), TypeError, "a command is one of ferrox.messages or a frame in bytes"),
        (lambda venue: venue.send((1, 2)), TypeError, "a command is one of ferrox.messages or a frame in bytes"),
        (lambda venue: setattr(venue, "time_ns", -1), ValueError, "time_ns is -1"),
    ],
)
def test_what_no_frame_can_say_raises_and_changes_nothing(venue, call, error, text):
    before = venue.snapshot()

    with pytest.raises(error, match=text):
        call(venue)

    assert (venue.snapshot(), venue.sequence) == (before, 1)
    assert venue.buy(1, 1).order_id == 1


# ------------------------------------------------------------------------------------------------------------ results


def test_a_result_sums_up_its_reports(venue):
    venue.sell(10, 100)
    venue.sell(10, 103)

    result = venue.buy(25, 105)

    assert result
    assert (result.accepted, result.rejected, result.reason) == (True, False, Reason.NONE)
    assert (result.order_id, result.sequence, len(result)) == (3, 4, 3)
    assert (result.filled, result.leaves, result.average_price) == (20, 5, 101.5)
    assert [trade.contra_id for trade in result.trades] == [1, 2]
    assert result.reports == list(result)
    assert result.reports[0] == Report(4, 3, 0, 105, 25, 25, 1, ReportKind.NEW, Side.BUY, 0, 0)
    assert repr(result) == (
        "<Result new #3 25 @ 105; trade #3 10 @ 100 with #1 leaves 15; trade #3 10 @ 103 with #2 leaves 5>"
    )
    assert result == fx.Result(result.frames)
    assert hash(result) == hash(fx.Result(result.frames))
    assert result != result.frames


def test_a_rejected_result_is_false_and_says_why(venue):
    result = venue.buy(1, 5000)

    assert not result
    assert (result.rejected, result.reason, result.leaves, result.filled) == (True, Reason.OUTSIDE_BAND, 0, 0)
    assert result.average_price is None
    assert repr(result) == "<Result rejected #1 outside-band>"


def test_a_result_tells_what_its_own_order_still_works(venue):
    venue.sell(10, 100, order_id=7 << 40 | 1)

    taken = venue.buy(25, 100, time_in_force="ioc")
    venue.sell(4, 100, account=7)
    decremented = venue.buy(10, 100, account=7, self_trade="decrement")

    assert (taken.filled, taken.leaves) == (10, 0)
    assert (decremented.filled, decremented.leaves) == (0, 6)
    assert venue.cancel(decremented.order_id).leaves == 0


def test_a_mass_cancel_is_about_no_order_and_a_long_result_is_abridged(venue):
    for price in range(10):
        venue.buy(1, price)

    result = venue.mass_cancel(instrument=1)

    assert (result.order_id, result.leaves, len(result)) == (0, 0, 11)
    assert repr(result) == (
        "<Result canceled #10 1 @ 9 mass-cancel; canceled #9 1 @ 8 mass-cancel; canceled #8 1 @ 7 mass-cancel; "
        "canceled #7 1 @ 6 mass-cancel; ... 6 more ...; mass-canceled 10 on 1>"
    )


# ------------------------------------------------------------------------------------------------ order ids and time


def test_an_order_without_an_id_takes_the_next_free_reference_of_its_account(venue):
    assert [venue.buy(1, 1).order_id for _ in range(2)] == [1, 2]
    assert venue.buy(1, 1, account=7).order_id == 7 << 40 | 1
    venue.buy(1, 1, order_id=50)
    venue.buy(1, 1, order_id=9)
    assert venue.buy(1, 1).order_id == 51
    venue.apply(fx.new_orders("buy", 1, 1, order_id=[7 << 40 | 20, 60, 8 << 40 | 3, 7 << 40 | 4]))
    assert venue.buy(1, 1).order_id == 61
    assert venue.buy(1, 1, account=7).order_id == 7 << 40 | 21
    assert venue.buy(1, 1, account=8).order_id == 8 << 40 | 4
    venue.send(NewOrder(1, 1, 0, 1, 70, 1, 1))
    venue.send(NewOrder(1, 1, 0, 1, 80, 1, 1).pack())
    assert venue.buy(1, 1).order_id == 81


def test_an_account_that_has_used_its_last_reference_has_no_next_one(venue):
    venue.buy(1, 1, order_id=2**40 - 1)

    with pytest.raises(ValueError, match="reference 1099511627776 is outside"):
        venue.buy(1, 1)
    assert venue.buy(1, 1, account=1).order_id == 1 << 40 | 1


def times_of(recorder):
    return [record[2] for record in (RECORD.unpack(bytes(8) + part)[1:] for part in recorder.commands())]


def test_times_are_sequence_numbers_unless_they_are_given():
    recorder = Recorder()
    venue = fx.Venue(recorder)

    venue.define()
    venue.buy(1, 1)
    venue.time_ns = 5_000
    venue.cancel(1)
    venue.apply([CancelOrder(1, 1)])
    venue.time_ns = 0
    venue.apply(fx.cancel_orders([1, 1]))
    venue.apply(fx.cancel_orders([1, 1]), time_ns=[0, 9_000])
    venue.apply([CancelOrder(1, 1)], time_ns=9_500)

    assert times_of(recorder) == [1, 2, 5_000, 5_000, 5, 6, 1, 9_000, 9_500]
    assert venue.state().time_ns == 9_500


def test_a_clock_is_read_for_each_command_and_once_for_a_batch():
    recorder = Recorder()
    ticks = iter(range(100, 200, 10))
    venue = fx.Venue(recorder, clock=lambda: next(ticks))

    venue.define()
    venue.buy(1, 1)
    venue.replace(1, price=2, quantity=3, side=1)
    venue.cancel(1)
    venue.apply(fx.cancel_orders([1, 1]))

    assert times_of(recorder) == [100, 110, 120, 130, 140, 140]
    with pytest.raises(UsageError, match="this venue has a clock"):
        venue.time_ns = 5
    with pytest.raises(ValueError, match="the clock says -1"):
        fx.Venue(clock=lambda: -1, **SMALL).buy(1, 1)
    assert fx.Venue(clock=lambda: 0, **SMALL).buy(1, 1).rejected


def test_the_same_calls_give_the_same_bytes():
    def run():
        venue = fx.Venue(**SMALL)
        rng = random.Random(7)
        frames = [venue.define(band=(0, 100)).frames]
        frames += [venue.submit(rng.choice((1, 2)), rng.randrange(1, 9), rng.randrange(9)).frames for _ in range(50)]
        return b"".join(frames), venue.snapshot()

    assert run() == run()


# ------------------------------------------------------------------------------------ instruments that are left out


def test_a_cancel_finds_the_instrument_of_its_order():
    venue = fx.Venue(**SMALL)
    for instrument in (2, 5):
        venue.define(instrument)
    venue.buy(1, 1, instrument=5)

    assert lines(venue.cancel(9)) == "cancel-rejected #9 unknown-order on 2"
    assert lines(venue.replace(1, quantity=3)) == "replaced #1 3 @ 1 on 5"
    assert lines(venue.cancel(1)) == "canceled #1 3 @ 1 on 5"
    assert lines(venue.replace(1, quantity=3)) == "replace-rejected #1 unknown-order on 2"
    assert lines(fx.Venue(**SMALL).cancel(9)) == "cancel-rejected #9 unknown-instrument"


def test_the_only_instrument_needs_no_look_at_the_books(venue, monkeypatch):
    venue.buy(1, 1)
    monkeypatch.setattr(venue_module, "Books", None)

    assert venue.cancel(1)


def test_a_replace_keeps_what_it_does_not_name(venue):
    venue.sell(4, 10)
    venue.buy(10, 10)

    assert lines(venue.replace(2, price=11)) == "replaced #2 10 @ 11 leaves 6"
    assert lines(venue.replace(2, quantity=7)) == "replaced #2 7 @ 11 leaves 3 kept"
    assert lines(venue.replace(2, side="Sell ", price=12)) == "replace-rejected #2 side-mismatch"


# --------------------------------------------------------------------------------------------------------- arrays


def random_commands(count, seed=7):
    rng = random.Random(seed)
    commands: list[Command] = [DefineInstrument(2, 1, 0, 20, 1, 1), DefineInstrument(2, 2, 0, 20, 1, 1)]
    for _ in range(count):
        kind = rng.random()
        order_id, instrument = rng.randrange(1, 30), rng.choice((1, 2))
        if kind < 0.6:
            order = (rng.choice((1, 2)), rng.choice((1, 1, 2)), 0, instrument, order_id, rng.randrange(20), 3)
            commands.append(NewOrder(*order))
        elif kind < 0.8:
            commands.append(CancelOrder(instrument, order_id))
        elif kind < 0.97:
            commands.append(ReplaceOrder(rng.choice((1, 2)), 1, 0, instrument, order_id, rng.randrange(20), 4))
        else:
            commands.append(MassCancel(Scope.INSTRUMENT, instrument))
    return commands


def in_shape(commands):
    return np.frombuffer(b"".join(command.pack().ljust(32, b"\0") for command in commands), COMMAND_DTYPE)


def test_arrays_lists_and_records_come_to_the_same_as_one_by_one(monkeypatch):
    monkeypatch.setattr(venue_module, "CHUNK", 37)
    commands = random_commands(300)
    single, recorder = fx.Venue(**SMALL), Recorder()
    expected = fx.Reports(b"".join(single.send(command).frames for command in commands))

    venues = [fx.Venue(recorder), *(fx.Venue(**SMALL) for _ in range(4))]
    reports = [
        venues[0].apply(commands),
        venues[1].apply(in_shape(commands)),
        venues[2].apply(command.pack() for command in commands),
        venues[3].apply(recorder.records),
        venues[4].apply(np.frombuffer(recorder.records, RECORD_DTYPE)),
    ]

    assert all(one == expected for one in reports)
    assert {venue.snapshot() for venue in venues} == {single.snapshot()}
    assert {venue.sequence for venue in venues} == {302}
    greatest = max(command.order_id for command in commands if isinstance(command, NewOrder))
    assert {venue.buy(1, 1).order_id for venue in [single, *venues]} == {greatest + 1}


def test_every_dtype_of_a_command_can_be_applied():
    venue = fx.Venue(**SMALL)
    define = np.zeros(2, DEFINE_INSTRUMENT_DTYPE)
    define["kind"], define["state"], define["instrument"] = 5, 1, [1, 2]
    define["band_high"], define["tick"], define["lot"] = 100, 1, 1
    state = np.zeros(1, SET_TRADING_STATE_DTYPE)
    state["kind"], state["state"], state["instrument"] = 6, 2, 1
    cancel = np.zeros(2, CANCEL_ORDER_DTYPE)
    cancel["kind"], cancel["instrument"], cancel["order_id"] = 2, 1, [1, 2]
    mass = np.zeros(1, MASS_CANCEL_DTYPE)
    mass["kind"], mass["scope"], mass["instrument"], mass["account"] = 4, 3, 1, 7

    reports = [
        *venue.apply(define),
        *venue.apply(state),
        *venue.apply(fx.new_orders("buy", 1, 5, order_id=[1, 7 << 40 | 1])),
        *venue.apply(cancel),
        *venue.apply(mass),
    ]

    assert [format_report(report) for report in reports] == [
        "instrument-defined 1 tick 1 lot 1 band 0 100 pre-open",
        "instrument-defined 2 tick 1 lot 1 band 0 100 pre-open",
        "state-changed 1 open",
        "new #1 1 @ 5",
        "new #7/1 1 @ 5",
        "canceled #1 1 @ 5",
        "cancel-rejected #2 unknown-order",
        "canceled #7/1 1 @ 5 mass-cancel",
        "mass-canceled 1 account 7 on 1",
    ]


def test_wide_columns_and_dirty_padding_are_no_matter(venue):
    fields = ["side", "kind", "order_id", "quantity", "instrument", "time_in_force"]
    wide = np.zeros(2, [*((name, "i8") for name in fields), ("price", "i4")])
    wide["kind"] = wide["side"] = wide["instrument"] = wide["time_in_force"] = 1
    wide["order_id"], wide["price"], wide["quantity"] = [1, 2], [-5, 5], 3
    dirty = np.frombuffer(b"\xff" * 16, CANCEL_ORDER_DTYPE).copy()
    dirty["kind"], dirty["instrument"], dirty["order_id"] = 2, 1, 1

    assert venue.apply(wide).price.tolist() == [-5, 5]
    assert venue.apply(dirty).kind.tolist() == [ReportKind.CANCELED]


def test_reserved_bytes_of_frames_reach_the_engine(venue):
    frame = bytes.fromhex("02000001010000000100000000000000")

    assert venue.apply([frame]).reason.tolist() == [Reason.MALFORMED]
    assert venue.send(frame).reason == Reason.MALFORMED
    assert venue.apply([bytes([1]) + bytes(15)]).reason.tolist() == [Reason.MALFORMED]


def test_both_engines_answer_a_venue_alike():
    commands = random_commands(400)
    reference, fast = fx.Venue("reference", **SMALL), fx.Venue("fast", **SMALL)

    assert [reference.send(command) for command in commands[:200]] == [fast.send(command) for command in commands[:200]]
    assert reference.apply(in_shape(commands[200:])) == fast.apply(in_shape(commands[200:]))
    assert reference.digest() == fast.digest() == fast.branch("reference").digest()
    assert repr(fast).startswith("<Venue fast: 2 instruments, ")
    assert_books_are_the_engines(fast)


@pytest.mark.parametrize("most", [1, 3])
def test_an_engine_that_stops_early_is_asked_again(most):
    commands = random_commands(200)
    whole, early = fx.Venue(**SMALL), fx.Venue(Recorder(most))

    assert early.apply(in_shape(commands)) == whole.apply(in_shape(commands))
    assert (early.snapshot(), early.sequence) == (whole.snapshot(), whole.sequence)


def test_a_stream_applies_only_what_is_asked_for(monkeypatch):
    monkeypatch.setattr(venue_module, "CHUNK", 10)
    commands = in_shape(random_commands(33))
    venue, whole = fx.Venue(**SMALL), fx.Venue(**SMALL)

    stream = venue.stream(commands)
    first = next(stream)

    assert (venue.sequence, first.sequence[-1]) == (10, 10)
    assert b"".join([bytes(first), *map(bytes, stream)]) == bytes(whole.apply(commands))


@pytest.mark.parametrize(
    ("commands", "options", "error", "text"),
    [
        (np.zeros(2), {}, TypeError, "dtype of ferrox.messages, this one has float64"),
        (np.zeros(2, [("price", "i8")]), {}, TypeError, "no field 'kind'"),
        (np.zeros(2, [("kind", "i8"), ("size", "i8")]), {}, TypeError, "a field 'size'"),
        (np.zeros(2, [("kind", "i8"), ("price", "f8")]), {}, TypeError, "the field 'price' is float64"),
        (np.full(2, 300, [("kind", "i8")]), {}, ValueError, "kind 300 does not fit its field, 0 .. 255"),
        (np.full(2, 255, [("kind", "u1")]), {}, ValueError, "command kind 255 is the journal's own"),
        (np.zeros((2, 2), COMMAND_DTYPE), {}, ValueError, "one dimension, this one has 2"),
        (np.zeros(2, COMMAND_DTYPE), {"time_ns": [1, 2, 3]}, ValueError, "2 commands and times of shape"),
        (np.zeros(2, COMMAND_DTYPE), {"time_ns": 1.5}, ValueError, "times are integers"),
        (np.zeros(2, COMMAND_DTYPE), {"time_ns": -1}, ValueError, "times are integers"),
        (np.zeros(2, RECORD_DTYPE), {"time_ns": 1}, ValueError, "records bring their own times"),
        (np.zeros(2, RECORD_DTYPE), {}, SequenceError, "record 0 has sequence 0, and 2 follows"),
        (bytes(65), {}, ValueError, "whole frames of 64 bytes, these are 65"),
        ([bytes(16), bytes(5)], {}, ValueError, "this frame has 5"),
        ([bytes([254]) + bytes(15)], {}, ValueError, "command kind 254 is the journal's own"),
        ([NewOrder(1, 1, 0, 1, 1, 1, 2**40)], {}, ValueError, "quantity 1099511627776 does not fit"),
        (["buy"], {}, TypeError, "a command is one of ferrox.messages"),
        ([bytes(16)], {"time_ns": [1]}, ValueError, "times one by one go with an array"),
    ],
)
def test_what_is_no_array_of_commands_is_refused_and_changes_nothing(venue, commands, options, error, text):
    before = venue.snapshot()

    with pytest.raises(error, match=text):
        venue.apply(commands, **options)

    assert (venue.snapshot(), venue.sequence) == (before, 1)


def test_no_commands_give_no_reports(venue):
    nothing: Any
    for nothing in ([], b"", np.zeros(0, COMMAND_DTYPE), np.zeros(0, RECORD_DTYPE)):
        assert venue.apply(nothing) == fx.Reports()


# ---------------------------------------------------------------------------------------------------------- books


def assert_books_are_the_engines(venue):
    state = unpack_state(venue.engine.snapshot())
    assert venue.instruments == state.instruments
    assert venue.books.orders() == state.orders
    assert venue.books.sequence == state.sequence
    venue.books.check()


def test_the_books_follow_whatever_was_sent_between_two_looks():
    rng = random.Random(7)
    commands = random_commands(600)
    venue = fx.Venue(**SMALL)
    while commands:
        several, commands = commands[:9], commands[9:]
        if rng.random() < 0.5:
            venue.apply(in_shape(several))
        else:
            for command in several:
                venue.send(command)
        if rng.random() < 0.7:
            assert_books_are_the_engines(venue)


def test_a_long_backlog_is_dropped_and_the_books_seeded_again(monkeypatch):
    monkeypatch.setattr(venue_module, "BACKLOG_BYTES", 48 * 20)
    commands = random_commands(120)
    venue = fx.Venue(**SMALL)
    assert_books_are_the_engines(venue)

    for command in commands[:60]:
        venue.send(command)
    assert venue._backlog is None
    assert_books_are_the_engines(venue)
    venue.apply(in_shape(commands[60:]))
    assert venue._backlog is None
    assert_books_are_the_engines(venue)


def test_nobody_who_never_looks_keeps_reports(venue):
    venue.buy(1, 1)

    assert venue._backlog is None


def test_the_venue_shows_its_books_at_three_depths(venue):
    venue.buy(10, 99)
    venue.buy(5, 99)
    venue.sell(4, 101, account=7)

    assert venue.top() == fx.Top(1, 4, 99, 15, 101, 4)
    assert venue.depth(1, levels=1).bid_levels == (fx.Level(99, 15, 2),)
    assert [order.order_id for order in venue.orders(1)] == [1, 2, 7 << 40 | 1]
    assert venue.order(2) == fx.RestingOrder(2, 99, 5, 0, 1, 1)
    assert venue.queue_position(2).quantity_ahead == 10
    assert venue.instruments == [DefineInstrument(2, 1, -1000, 1000, 1, 1)]
    with pytest.raises(UsageError, match="instrument 9 is not defined; defined are: 1"):
        venue.top(9)
    with pytest.raises(UsageError, match="order #77 does not rest"):
        venue.queue_position(77)


# --------------------------------------------------------------------------------------------------- engines, to last


def test_a_venue_shows_what_it_holds(venue, tmp_path):
    venue.apply(fx.new_orders("buy", 1, np.arange(12)))

    assert repr(venue) == "<Venue reference: 1 instrument, 12 orders, sequence 13>"
    assert repr(fx.Venue(Recorder())) == "<Venue Recorder: 0 instruments, 0 orders, sequence 0>"
    with fx.Venue(journal=tmp_path / "flow", **SMALL) as journaled:
        assert repr(journaled).endswith(f", journal {tmp_path / 'flow'}>")


def test_an_engine_is_chosen_by_name_or_given():
    with pytest.raises(UsageError, match="no engine named 'quick'; choose one of: reference, fast"):
        fx.Venue("quick")
    with pytest.raises(ValueError, match="'orders' must be >= 1"):
        fx.Venue(orders=0)
    with pytest.raises(UsageError, match="an engine object has its own capacities"):
        fx.Venue(Recorder(), orders=5)
    engine = Recorder()
    assert fx.Venue(engine).engine is engine
    assert fx.Venue(orders=5, instruments=2).state()[2:4] == (5, 2)


def test_a_venue_goes_on_from_the_past_of_its_engine():
    engine = Recorder()
    first = fx.Venue(engine)
    first.define(3)
    first.buy(10, 5, instrument=3, account=7)

    second = fx.Venue(engine)

    assert second.sequence == 2
    assert second.buy(1, 5, instrument=3, account=7).order_id == 7 << 40 | 2
    assert second.cancel(7 << 40 | 1)
    assert_books_are_the_engines(second)


def test_a_snapshot_and_a_branch_go_on_alike_and_apart(venue):
    venue.buy(10, 99)
    restored, branch = fx.Venue.from_snapshot(venue.snapshot()), venue.branch()
    assert venue.digest() == restored.digest() == branch.digest()

    assert venue.sell(4, 99) == restored.sell(4, 99) == branch.sell(4, 99)
    branch.mass_cancel()

    assert venue.digest() == restored.digest() != branch.digest()
    assert (venue.order(1).leaves, branch.order(1)) == (6, None)
    with pytest.raises(fx.SnapshotCorrupt):
        fx.Venue.from_snapshot(b"FRXSTATE")


def test_every_command_is_in_the_journal_before_the_engine_has_it(tmp_path):
    class Failing(Recorder):
        def apply(self, records):  # noqa: ARG002 (the seam's signature)
            raise RuntimeError

    with fx.Venue(Failing(), journal=tmp_path / "flow") as venue, pytest.raises(RuntimeError):
        venue.buy(10, 99)

    order, seal = np.frombuffer(b"".join(read(tmp_path / "flow")), RECORD_DTYPE)
    assert (order["sequence"], order["command"]["order_id"], order["command"]["price"]) == (1, 1, 99)
    assert seal["kind"] == 255


@pytest.fixture
def journaled(tmp_path):
    """A journal with two hundred commands, and the venue without one that was told the same."""
    commands = random_commands(198)
    with fx.Venue(journal=tmp_path / "flow", **SMALL) as venue:
        plain = fx.Venue(**SMALL)
        for command in commands[:50]:
            assert venue.send(command) == plain.send(command)
        assert venue.apply(in_shape(commands[50:])) == plain.apply(in_shape(commands[50:]))
        assert venue.digest() == plain.digest()
    return tmp_path / "flow", plain


def test_a_journal_is_loaded_and_gone_on_with(journaled):
    directory, plain = journaled

    with fx.Venue.load(directory) as venue:
        assert venue.sequence == 201  # the SEAL is a record too
        assert venue.books.orders() == plain.books.orders()
        venue.buy(1, 7, account=5)
        digest = venue.digest()
        assert_books_are_the_engines(venue)
    assert venue.sequence == 203
    assert venue.digest() == fx.Venue.load(directory, read_only=True).digest()
    with fx.Venue.load(directory, read_only=True) as again:
        assert again.branch().order(5 << 40 | 1) == again.order(5 << 40 | 1) == venue.order(5 << 40 | 1)
        assert again.sequence == 203
    assert fx.Venue.load(directory, until=202).digest() == digest


def test_a_journal_loaded_until_a_number_is_a_branch_in_memory(journaled):
    directory, plain = journaled
    before = {path.name: path.read_bytes() for path in directory.iterdir()}

    branch = fx.Venue.load(directory, until=200)
    early = fx.Venue.load(directory, until=20)
    early.mass_cancel()

    assert branch.digest() == plain.digest()
    assert (early.sequence, early.journal) == (21, None)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_a_snapshot_shortens_a_load(journaled, tmp_path):
    directory, _ = journaled
    with fx.Venue.load(directory) as venue:
        path = venue.save_snapshot()
        venue.buy(3, 7, account=6)
        digest = venue.digest()

    assert path.name == f"{201:020d}.snapshot"
    assert fx.Venue.from_snapshot(path).sequence == 201
    assert fx.Venue.load(directory, snapshots=True, until=202).digest() == digest
    assert fx.Venue.load(directory, snapshots=True, until=20).sequence == 20
    with fx.Venue.load(directory, snapshots=True) as last:
        assert last.order(6 << 40 | 1) == venue.order(6 << 40 | 1)
    assert fx.Venue(**SMALL).save_snapshot(tmp_path).exists()
    with pytest.raises(UsageError, match="no journal to keep the snapshot beside"):
        fx.Venue(**SMALL).save_snapshot()


def test_a_journal_and_an_engine_stand_at_the_same_place(tmp_path, venue):
    with pytest.raises(UsageError, match="the engine is at sequence 1 and the journal at 0"):
        fx.Venue(venue.engine, journal=tmp_path / "one")
    with (
        Journal.create(tmp_path / "two", Capacity(5, 5)) as journal,
        pytest.raises(UsageError, match="make them equal"),
    ):
        fx.Venue(journal=journal, **SMALL)
    with pytest.raises(UsageError, match="choose another one for a new journal"):
        fx.Venue(journal=tmp_path / "two", **SMALL)
    with pytest.raises(UsageError):
        fx.Venue.load(tmp_path / "three")


def test_a_load_that_fails_lets_go_of_the_journal(journaled):
    directory, _ = journaled

    with pytest.raises(UsageError, match="no engine named 'quick'"):
        fx.Venue.load(directory, "quick")
    with fx.Venue.load(directory) as venue:
        venue.buy(1, 7)
        venue.sync()
        assert venue.journal
        assert venue.journal.durable == venue.sequence


def test_a_venue_without_a_journal_syncs_and_closes_without_a_word(venue):
    venue.sync()
    venue.close()

    assert venue.buy(1, 1)


# ------------------------------------------------------------------------------- what is refused leaves nothing behind


def test_a_misspelt_engine_touches_no_journal(journaled):
    directory, _ = journaled
    before = {path.name: path.read_bytes() for path in directory.iterdir()}

    with pytest.raises(fx.UsageError, match="no engine named 'fats'"):
        fx.Venue.load(directory, "fats")

    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


@pytest.mark.parametrize("account", ["", [], 0.0, "1", 1.5])
def test_a_mass_cancel_of_what_is_no_account_cancels_nothing(venue, account):
    venue.buy(5, 10)

    with pytest.raises(TypeError, match="account"):
        venue.mass_cancel(account=account)

    assert venue.order(1)


def test_a_snapshot_that_had_to_be_passed_over_is_told(journaled):
    """SNAP-9."""
    directory, _ = journaled
    with fx.Venue.load(directory) as venue:
        venue.save_snapshot()
        venue.buy(1, 7, account=5)
        newest = venue.save_snapshot()
        digest = venue.digest()
    damaged = bytearray(newest.read_bytes())
    damaged[100] ^= 1
    newest.write_bytes(damaged)

    with pytest.warns(RuntimeWarning, match=newest.name):
        again = fx.Venue.load(directory, until=202, snapshots=True)

    assert again.digest() == digest


def test_a_snapshot_of_a_branch_is_not_kept_beside_the_journal(journaled, tmp_path):
    directory, _ = journaled
    (tmp_path / "elsewhere").mkdir()
    changed = fx.Venue.load(directory, read_only=True)
    changed.buy(1, 7)

    for branch in (changed, fx.Venue.load(directory, until=200), fx.Venue.load(directory, read_only=True).branch()):
        with pytest.raises(fx.UsageError, match="name another directory"):
            branch.save_snapshot(directory)
        assert branch.save_snapshot(tmp_path / "elsewhere").exists()

    assert scan(directory).verdict == "clean"


def test_a_state_that_the_journal_has_is_kept_beside_it_by_a_reader_too(journaled):
    directory, _ = journaled
    reader = fx.Venue.load(directory, read_only=True)

    path = reader.save_snapshot(directory)

    assert read_snapshot(path, identify(directory).uuid) == reader.snapshot()
    assert fx.Venue.load(directory, read_only=True, snapshots=True).save_snapshot(directory) == path


def test_what_a_reader_has_seen_and_the_disk_may_not_have_is_not_kept_beside_the_journal(tmp_path):
    """SNAP-10."""
    with fx.Venue(journal=tmp_path / "flow", **SMALL) as venue:
        venue.define(1)
        reader = fx.Venue.load(tmp_path / "flow", read_only=True)
        assert reader.sequence == 1

        with pytest.raises(fx.UsageError, match="name another directory"):
            reader.save_snapshot(tmp_path / "flow")

        venue.sync()
        assert fx.Venue.load(tmp_path / "flow", read_only=True).save_snapshot(tmp_path / "flow").exists()


def test_a_snapshot_is_kept_beside_no_other_journal_and_no_shorter_copy(tmp_path, journaled):
    directory, _ = journaled
    shutil.copytree(directory, tmp_path / "copy")
    with fx.Venue(journal=tmp_path / "other", **SMALL) as other:
        other.define(1)
        with pytest.raises(fx.UsageError, match="name another directory"):
            other.save_snapshot(directory)
        other.save_snapshot(tmp_path / "other")
    with fx.Venue.load(directory) as venue:
        venue.buy(1, 7)
        with pytest.raises(fx.UsageError, match="name another directory"):
            venue.save_snapshot(tmp_path / "copy")

    assert scan(directory).verdict == scan(tmp_path / "copy").verdict == "clean"


@pytest.mark.parametrize("options", [{"clock": 5}, {"until": 1.5}, {"until": "1"}, {"until": -1}])
def test_a_load_that_cannot_be_touches_no_journal(journaled, options):
    directory, _ = journaled
    before = {path.name: path.read_bytes() for path in directory.iterdir()}

    with pytest.raises((TypeError, UsageError), match=next(iter(options))):
        fx.Venue.load(directory, **options)

    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_a_damaged_slot_of_the_commit_mark_is_told(journaled):
    """JRN-13."""
    directory, _ = journaled
    mark = directory / "commit.mark"
    damaged = bytearray(mark.read_bytes())
    damaged[8] ^= 1
    mark.write_bytes(damaged)

    with pytest.warns(RuntimeWarning, match=r"commit\.mark") as told:
        fx.Venue.load(directory, read_only=True)

    assert len(told) == 1


def test_a_venue_that_was_closed_can_still_save_its_snapshot(tmp_path):
    with fx.Venue(journal=tmp_path / "flow", **SMALL) as venue:
        venue.define(1)

    (tmp_path / "elsewhere").mkdir()
    for path in (venue.save_snapshot(), venue.save_snapshot(tmp_path / "elsewhere")):
        assert fx.Venue.from_snapshot(path).digest() == venue.digest()


def test_a_venue_whose_journal_failed_keeps_no_snapshot_beside_it(tmp_path, monkeypatch):
    """SNAP-10."""
    (tmp_path / "elsewhere").mkdir()
    venue = fx.Venue(journal=tmp_path / "flow", **SMALL)
    venue.define(1)
    monkeypatch.setattr(venue.journal, "_failure", "the disk is gone")
    venue.close()

    with pytest.raises(fx.UsageError, match="name another directory"):
        venue.save_snapshot()

    path = venue.save_snapshot(tmp_path / "elsewhere")
    assert read_snapshot(path, bytes(16)) == venue.snapshot()


@pytest.mark.parametrize(("snapshot", "text"), [(b"", "at least 64 bytes"), (b"hello" * 30, "begins with b'FRXSTATE'")])
def test_what_is_no_snapshot_at_all_is_told_as_such(snapshot, text):
    with pytest.raises(fx.SnapshotCorrupt, match=text):
        fx.Venue.from_snapshot(snapshot)


@pytest.mark.parametrize(("place", "value"), [(32, 2**26 + 1), (32, 0), (36, 2**20)])
def test_a_snapshot_with_impossible_capacities_is_corrupt(venue, place, value):
    snapshot = bytearray(venue.snapshot())
    snapshot[place : place + 4] = value.to_bytes(4, "little")

    with pytest.raises(fx.SnapshotCorrupt, match="capacities"):
        fx.Venue.from_snapshot(bytes(snapshot))


def test_a_call_that_sends_nothing_uses_no_order_id(tmp_path):
    times = iter([1, 2])
    venue = fx.Venue(clock=lambda: next(times), **SMALL)
    venue.define(1)
    venue.buy(1, 1)
    with pytest.raises(StopIteration):
        venue.buy(1, 1)
    venue._clock = None
    with pytest.raises(TypeError):
        venue.buy(1, 1, order_id=50, instrument="x")  # type: ignore[arg-type]

    assert venue.buy(1, 1).order_id == 2
    with fx.Venue(journal=tmp_path / "flow", **SMALL) as closed:
        closed.define(1)
        closed.buy(1, 1)
    with pytest.raises(fx.UsageError):
        closed.buy(1, 1)
    for command in (NewOrder(1, 1, 0, 1, 50, 5, 1), NewOrder(1, 1, 0, 1, 50, 5, 1).pack()):
        with pytest.raises(fx.UsageError):
            closed.send(command)
    assert closed.branch().buy(1, 1).order_id == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda venue: venue.order(1.5),
        lambda venue: venue.order("1"),
        lambda venue: venue.buy(1, 1, account=1.0),
        lambda venue: venue.submit(1.0, 1, 1),
        lambda venue: venue.buy(1, 1, time_in_force=1.0),
        lambda venue: venue.buy(1, 1, time_in_force=[1]),
        lambda venue: venue.buy(1, 1, self_trade=1.0),
        lambda venue: venue.top(1.0),
        lambda venue: venue.depth([1]),
        lambda venue: setattr(venue, "time_ns", 1.0),
    ],
)
def test_what_only_equals_an_integer_is_none(venue, call):
    venue.buy(1, 1, account=1)

    with pytest.raises(TypeError, match=r"order_id|account|side|time_in_force|self_trade|instrument|time_ns"):
        call(venue)


# ------------------------------------------------------------------------------------------- what the journal states


def states_every(count, monkeypatch):
    monkeypatch.setattr(venue_module, "Tally", lambda first: Tally(first, every=count))
    monkeypatch.setattr(venue_module, "HELD_MAX", 1)


def marks(directory):
    records = np.frombuffer(b"".join(read(directory)), RECORD_DTYPE)
    return [
        (int(record["sequence"]), *MARK.unpack(record["command"].tobytes()))
        for record in records[records["kind"] == 254]
    ]


def stating(path):
    """Be told 90 commands one by one and 90 at once, twenty at a time; return the venue's last digest."""
    commands = random_commands(180)
    with fx.Venue(journal=path, **SMALL) as venue:
        for command in commands[:90]:
            venue.send(command)
        for at in range(90, 180, 20):
            venue.apply(in_shape(commands[at : at + 20]))
        digest = venue.digest()
        assert venue.journal is not None
        assert venue.journal.sequence == venue.sequence
    return digest


def test_a_venue_states_in_its_journal_what_the_engine_said(tmp_path, monkeypatch):
    """JRN-21: one by one or in arrays; a load holds either engine against it."""
    states_every(30, monkeypatch)

    digest = stating(tmp_path / "flow")

    found = marks(tmp_path / "flow")
    assert [mark[:2] for mark in found] == [(31, 1), (62, 32), (93, 63), (134, 94), (175, 135)]
    said = b"".join(reports for _, reports in replayed(tmp_path / "flow", 31))
    assert found[0][2:] == (len(said) // 48, crc32c(said))
    for engine in ("reference", "fast"):
        with fx.Venue.load(tmp_path / "flow", engine, read_only=True) as venue:
            assert venue.sequence == 188
            assert (
                unpack_state(venue.snapshot()).orders
                == unpack_state(fx.Venue.load(tmp_path / "flow", until=187).snapshot()).orders
            )
        assert fx.Venue.load(tmp_path / "flow", engine, until=187).digest() == digest


def replayed(directory, until):
    engine = ReferenceEngine(Capacity(**SMALL))
    for records in read(directory, until=until, batch=1):
        _, reports = engine.apply(records)
        yield records, bytes(reports)


def test_a_load_goes_on_with_what_was_counted_and_stated(tmp_path, monkeypatch):
    """JRN-21: after a crash as after a close, the next statement begins behind the last one."""
    states_every(30, monkeypatch)
    stating(tmp_path / "flow")

    with fx.Venue.load(tmp_path / "flow") as venue:
        for command in random_commands(40):
            venue.send(command)

    assert [mark[:2] for mark in marks(tmp_path / "flow")][5:] == [(206, 176)]
    assert fx.Venue.load(tmp_path / "flow", "fast", read_only=True).sequence == 232


def test_a_venue_from_a_snapshot_states_where_it_begins_and_goes_on_from_there(tmp_path, monkeypatch):
    """JRN-21."""
    with fx.Venue(journal=tmp_path / "flow", **SMALL) as venue:
        for command in random_commands(20):
            venue.send(command)
        venue.save_snapshot()
    states_every(30, monkeypatch)

    with fx.Venue.load(tmp_path / "flow", snapshots=True) as venue:
        for command in random_commands(80):
            venue.send(command)

    assert [mark[:2] for mark in marks(tmp_path / "flow")] == [(53, 53), (84, 54)]
    for snapshots in (True, False):
        assert fx.Venue.load(tmp_path / "flow", read_only=True, snapshots=snapshots).sequence == 108


def test_a_load_refuses_an_engine_that_says_otherwise(tmp_path, monkeypatch):
    """JRN-21: and lets go of the journal."""
    states_every(30, monkeypatch)
    stating(tmp_path / "flow")
    really = ReferenceEngine.apply

    def lying(self, records):
        taken, reports = really(self, records)
        return taken, memoryview(bytes(reports).replace(b"\x80", b"\x00", 1))

    with monkeypatch.context() as patch:
        patch.setattr(ReferenceEngine, "apply", lying)
        for read_only in (False, True):
            with pytest.raises(NotDeterministic, match="sequence 1 to 30: expected"):
                fx.Venue.load(tmp_path / "flow", read_only=read_only)
        fx.Venue.load(tmp_path / "flow", until=30)

    fx.Venue.load(tmp_path / "flow").close()


def test_records_that_bring_their_sequence_numbers_are_not_parted_by_a_statement(tmp_path, monkeypatch):
    states_every(30, monkeypatch)
    plain = fx.Venue(**SMALL)
    with fx.Venue(journal=tmp_path / "one", **SMALL) as source:
        for command in random_commands(29):
            source.send(command)
    records = b"".join(read(tmp_path / "one"))[: 29 * RECORD_SIZE]
    monkeypatch.setattr(venue_module, "CHUNK", 7)
    states_every(10, monkeypatch)

    with fx.Venue(journal=tmp_path / "two", **SMALL) as venue:
        assert venue.apply(records) == plain.apply(records)
        assert venue.sequence == 29
        venue.buy(1, 7)
        assert venue.sequence == 31

    assert [mark[:2] for mark in marks(tmp_path / "two")] == [(31, 1)]


def test_a_statement_that_cannot_be_written_does_not_lose_the_answer(tmp_path, monkeypatch):
    """The next command tells that the journal failed."""
    states_every(3, monkeypatch)
    with fx.Venue(journal=tmp_path / "flow", **SMALL) as venue:
        venue.define(1, band=(-1000, 1000))
        venue.buy(1, 7)
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "mark", lambda *_: (_ for _ in ()).throw(JournalFailed("the disk failed")))
            assert venue.buy(1, 8).accepted
            assert venue.sequence == 3
        assert venue.buy(1, 9).accepted
        assert venue.sequence == 5

    assert [mark[:2] for mark in marks(tmp_path / "flow")] == [(5, 1)]
