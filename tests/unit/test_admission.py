"""Admission: every check of a command at its boundary, and what a desk keeps of orders and tokens.

The lanes are given packets that are written by hand, and reports that no engine made.
"""

from collections import deque
from pathlib import Path

import pytest

from ferrox.entry import REFERENCE as REFERENCE_HEAD
from ferrox.entry import REFUSED, packet, packets
from ferrox.lanes import desk as words
from ferrox.lanes.admission import admit, pass_over
from ferrox.lanes.desk import BATCH, FLIGHT, FLIGHT_FIRST, FLIGHT_NEXT, OPERATOR, ROOM, TRADER, Desk, clock
from ferrox.lanes.routing import load_orders, route
from ferrox.messages import (
    RECORD,
    REPORT,
    CancelOrder,
    Command,
    DefineInstrument,
    MassCancel,
    NewOrder,
    ReplaceOrder,
    SetLimit,
    SetTradingState,
)
from ferrox.service.config import Config, RiskConfig
from ferrox.service.gateway import Gateway
from ferrox.state import SNAPSHOT_ORDER
from ferrox.terms import Limit, Reason, Refusal, ReportKind, Scope, compose_order_id

CLERK, SEVEN, NINE = 1, 2, 3  # rows: of the operator, and of the accounts 7 and 9
LINE = 1  # the connection that is written to
SECOND = 1_000_000_000
LAST = 0x80
PRICE_MAX = 2**40 - 1
QUANTITY_MAX = 2**31 - 1
MONEY_MAX = 2**62 - 1
REFERENCE_MAX = 2**40 - 1


class Door:
    """A desk, and who speaks to it."""

    def __init__(self):
        self.desk = Desk(9, 3, 3, 64)
        self.desk.add_account(0, OPERATOR)
        self.desk.add_account(7, TRADER)
        self.desk.add_account(9, TRADER)
        self.desk.put_instrument(1, words.DEFINED, 1)
        self.reference = {CLERK: 0, SEVEN: 0, NINE: 0}

    def put(self, row=SEVEN, **values):
        for name, value in values.items():
            self.desk.put(row, getattr(words, name), value)

    def get(self, name, row=SEVEN):
        return self.desk.get(row, getattr(words, name))

    def traded(self, price, instrument=1):
        self.desk.put_instrument(instrument, words.LAST_PRICE, price)
        self.desk.put_instrument(instrument, words.TRADED, 1)

    def take(self, data, row=SEVEN, now=0):
        """Give bytes to admission; return the place where it stopped and the refusals."""
        place = admit(self.desk, row, self.desk.writers[LINE], data, 0, now)
        found, rest = packets(self.desk.written(LINE))
        assert rest == b""
        assert all(letter == b"U" for letter, _ in found)
        return place, [REFUSED.unpack(payload) for _, payload in found]

    def say(self, reference, frame, row=SEVEN, now=0):
        """Send one command; return the reason against it, 0 when it was taken."""
        before = self.desk.look(words.COUNT)
        data = sent(reference, frame)
        place, refusals = self.take(data, row, now)
        assert place == len(data)
        assert len(refusals) + self.desk.look(words.COUNT) - before == 1
        return refusals[0][3] if refusals else 0

    def next(self, row=SEVEN):
        self.reference[row] = max(self.reference[row], self.desk.get(row, words.SEEN)) + 1
        return self.reference[row]

    def buy(self, price, quantity, row=SEVEN, now=0, **others):
        """Send a new order under the next reference."""
        reference = self.next(row)
        return self.say(reference, buy(reference, price, quantity, **others), row, now)

    def records(self):
        return [RECORD.unpack(data) for data in cut(self.desk.records(), 64)]

    def hear(self, *reports):
        route(self.desk, b"".join(reports))
        return self.desk.written(LINE)


@pytest.fixture
def door():
    return Door()


def cut(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


def sent(reference, frame):
    return packet(b"U", REFERENCE_HEAD.pack(reference) + frame)


def buy(reference, price=100, quantity=1, *, time_in_force=1, flags=0, instrument=1):
    return NewOrder(1, time_in_force, flags, instrument, reference, price, quantity).pack()


def replace(reference, price=100, quantity=1):
    return ReplaceOrder(1, 1, 0, 1, reference, price, quantity).pack()


def cancel(reference):
    return CancelOrder(1, reference).pack()


MARKET = {"time_in_force": 2, "flags": 1}


def report(kind, order_id=0, contra_id=0, price=0, quantity=0, leaves=0, instrument=1, reason=0, flags=LAST):
    return REPORT.pack(1, order_id, contra_id, price, quantity, leaves, instrument, kind, 1, reason, flags)


def own(reference, account=7):
    return compose_order_id(account, reference)


# ------------------------------------------------------------------------------------------------- the limits (RISK-1)


def test_a_quantity_is_refused_above_the_limit(door):
    """RISK-1: MAX_QUANTITY, of a new order and of the total of a replace."""
    door.put(MAX_QUANTITY=10)

    assert [door.buy(0, quantity) for quantity in (9, 10, 11)] == [0, 0, Refusal.MAX_QUANTITY]
    assert [door.say(door.next(), replace(1, 0, total)) for total in (9, 10, 11)] == [0, 0, Refusal.MAX_QUANTITY]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_notional_is_refused_above_the_limit(door, sign):
    """RISK-1: MAX_NOTIONAL, by the absolute price."""
    door.put(MAX_NOTIONAL=1_000)

    assert [door.buy(sign * price, 10) for price in (99, 100, 101)] == [0, 0, Refusal.MAX_NOTIONAL]
    assert [door.buy(sign * 3, lots) for lots in (333, 334)] == [0, Refusal.MAX_NOTIONAL]
    assert door.say(door.next(), replace(1, sign * 1_001, 1)) == Refusal.MAX_NOTIONAL
    assert door.buy(0, QUANTITY_MAX) == 0


@pytest.mark.parametrize("last", [100, 0, -100, 3])
def test_a_price_is_refused_beyond_the_collar_on_either_side(door, last):
    """RISK-1: COLLAR, by the last trade of the instrument."""
    door.traded(last)
    door.desk.put_instrument(1, words.COLLAR, 5)

    apart = [-6, -5, -4, 0, 4, 5, 6]
    reasons = [door.buy(last + ticks, 1) for ticks in apart]

    assert reasons == [Refusal.COLLAR, 0, 0, 0, 0, 0, Refusal.COLLAR]
    assert door.say(door.next(), replace(1, last + 6)) == Refusal.COLLAR


def test_orders_are_refused_when_as_many_rest_or_are_on_their_way(door):
    """RISK-1: OPEN_ORDERS; a replace brings no order more."""
    door.put(MAX_OPEN=3)
    load_orders(door.desk, SNAPSHOT_ORDER.pack(own(1), 100, 1, 0, 1, 1))
    door.put(SEEN=1, REFERENCE=1)

    assert [door.buy(100, 1) for _ in range(3)] == [0, 0, Refusal.OPEN_ORDERS]
    assert door.say(door.next(), replace(1)) == 0

    door.hear(report(ReportKind.REJECTED, own(2), reason=33))

    assert [door.buy(100, 1) for _ in range(2)] == [0, Refusal.OPEN_ORDERS]


def test_an_exposure_is_refused_above_the_limit(door):
    """RISK-1: EXPOSURE, with what rests and what is on its way."""
    door.put(MAX_EXPOSURE=1_000)
    load_orders(door.desk, SNAPSHOT_ORDER.pack(own(1), -100, 3, 5, 1, 1))
    door.put(SEEN=1, REFERENCE=1)

    assert door.buy(100, 5) == 0
    assert door.buy(67, 3) == Refusal.EXPOSURE
    assert [door.say(door.next(), replace(1, price, 2)) for price in (101, 100)] == [Refusal.EXPOSURE, 0]
    assert door.buy(1, 1) == Refusal.EXPOSURE
    assert door.buy(0, 1) == 0


def test_a_limit_of_0_is_none(door):
    """RISK-6: and notional and exposure end at 2^62-1 all the same."""
    door.traded(100)

    assert door.buy(-PRICE_MAX, 2**22) == 0
    door.hear(report(ReportKind.REJECTED, own(1), reason=33))
    assert [door.buy(2**31 + 1, QUANTITY_MAX), door.buy(0, 1), door.buy(-1, 1)] == [0, 0, Refusal.EXPOSURE]
    assert door.get("PENDING_EXPOSURE") == MONEY_MAX
    for price, quantity in ((2**31 + 2, QUANTITY_MAX), (PRICE_MAX, QUANTITY_MAX), (-PRICE_MAX, 2**22 + 5)):
        assert door.buy(price, quantity) == Refusal.MAX_NOTIONAL


def test_the_greatest_limits_are_kept_without_an_overflow(door):
    """RISK-1, LIM-1, LIM-2."""
    door.put(MAX_QUANTITY=QUANTITY_MAX, MAX_NOTIONAL=MONEY_MAX, MAX_EXPOSURE=MONEY_MAX, MAX_OPEN=QUANTITY_MAX)
    door.traded(PRICE_MAX)
    door.desk.put_instrument(1, words.COLLAR, PRICE_MAX)

    assert door.buy(-1, 1) == Refusal.COLLAR
    assert door.buy(-PRICE_MAX, 1) == Refusal.COLLAR
    assert door.buy(PRICE_MAX, QUANTITY_MAX) == Refusal.MAX_NOTIONAL
    assert [door.buy(0, QUANTITY_MAX), door.buy(2**31 + 1, QUANTITY_MAX)] == [0, 0]
    assert [door.buy(PRICE_MAX, 1), door.buy(0, 1, **MARKET), door.buy(0, 1)] == [Refusal.EXPOSURE] * 2 + [0]


def test_a_limit_below_what_is_held_refuses_even_what_is_worth_nothing(door):
    """RISK-1: the exposure with this order would be above its limit."""
    assert door.buy(100, 10) == 0
    door.put(MAX_EXPOSURE=999)

    assert door.buy(0, 1) == Refusal.EXPOSURE


def test_a_kill_of_account_instrument_or_venue_refuses_orders(door):
    """RISK-1: KILLED, and nobody else is."""
    door.put(KILLED=1)
    assert [door.buy(1, 1), door.buy(1, 1, NINE), door.say(door.next(), replace(1))] == [134, 0, 134]
    door.put(KILLED=0)
    door.desk.put_instrument(2_000, words.INSTRUMENT_KILLED, 1)
    assert [door.buy(1, 1, instrument=number) for number in (2_000, 1, 1_999, 2**20 - 1)] == [134, 0, 0, 0]
    door.desk.put_instrument(2_000, words.INSTRUMENT_KILLED, 0)
    door.desk.set(words.VENUE_KILLED, 1)
    assert [door.buy(1, 1, row, instrument=2_000) for row in (SEVEN, NINE)] == [134, 134]


def test_the_first_of_the_table_is_the_reason(door):
    """RISK-1: everything applies at once, and is put in order a check at a time."""
    door.put(SEEN=50, KILLED=1, MAX_QUANTITY=5, MAX_NOTIONAL=500, MAX_OPEN=1, OPEN=1, MAX_EXPOSURE=400, ORDER_RATE=1)
    door.traded(0)
    door.desk.put_instrument(1, words.COLLAR, 1)
    door.desk.set(words.DISK_LOW, 1)
    door.desk.set(ROOM, 0)
    frame = {"ident": 7, "side": 3, "price": 100, "quantity": 6}

    def attempt(reference):
        ident = frame["ident"] or reference
        return door.say(reference, NewOrder(frame["side"], 1, 0, 1, ident, frame["price"], frame["quantity"]).pack())

    assert attempt(50) == Refusal.BUSY
    door.desk.set(ROOM, BATCH)
    assert attempt(50) == Refusal.DUPLICATE_REFERENCE
    assert attempt(51) == Refusal.BAD_REFERENCE
    frame["ident"] = 0
    assert attempt(52) == Reason.BAD_SIDE
    frame["side"] = 1
    assert attempt(53) == Refusal.DISK_LOW
    door.desk.set(words.DISK_LOW, 0)
    assert attempt(54) == Refusal.KILLED
    door.put(KILLED=0)
    assert attempt(55) == Refusal.THROTTLED
    door.put(ORDER_RATE=0)
    assert attempt(56) == Refusal.MAX_QUANTITY
    frame["quantity"] = 5
    frame["price"] = 101
    assert attempt(57) == Refusal.MAX_NOTIONAL
    frame["price"] = 100
    assert attempt(58) == Refusal.COLLAR
    door.desk.put_instrument(1, words.COLLAR, 0)
    assert attempt(59) == Refusal.OPEN_ORDERS
    door.put(OPEN=0)
    assert attempt(60) == Refusal.EXPOSURE
    door.put(MAX_EXPOSURE=500)
    assert attempt(61) == 0
    assert door.get("REFUSALS") == 12


def test_who_may_not_is_told_before_what_is_wrong_with_the_frame(door):
    """RISK-1: NOT_PERMITTED stands behind the reference and before the frame."""
    wrong = MassCancel(Scope.VENUE, 5, 3).pack()

    assert door.say(0, wrong) == Refusal.BAD_REFERENCE
    assert door.say(1, wrong) == Refusal.NOT_PERMITTED
    assert door.say(2, MassCancel(Scope.ACCOUNT, 5).pack()) == Reason.BAD_INSTRUMENT


def test_what_is_refused_takes_no_token_before_the_bucket_and_one_behind_it(door):
    """RISK-1, RISK-4."""
    door.put(ORDER_RATE=1, ORDER_CREDIT=SECOND, KILLED=1)
    assert [door.buy(1, 1), door.buy(1, 0)] == [Refusal.KILLED, Reason.BAD_QUANTITY]
    door.put(KILLED=0, MAX_QUANTITY=1)

    assert [door.buy(1, 2), door.buy(1, 1)] == [Refusal.MAX_QUANTITY, Refusal.THROTTLED]


def test_a_command_is_refused_when_there_is_no_room_or_too_much_is_on_its_way(door):
    """RISK-1: BUSY, a cancel as well (RISK-2)."""
    door.desk.set(ROOM, 1)
    assert [door.buy(1, 1), door.buy(1, 1), door.say(door.next(), cancel(1))] == [0, Refusal.BUSY, Refusal.BUSY]
    door.desk.set(ROOM, BATCH)

    door.desk.set(FLIGHT_FIRST, 5)
    door.desk.set(FLIGHT_NEXT, 5 + FLIGHT - 1)
    assert [door.buy(1, 1), door.buy(1, 1)] == [0, Refusal.BUSY]


# --------------------------------------------------------------------------------------------------- cancels (RISK-2)


def test_cancels_are_taken_whatever_is_killed_low_or_limited(door):
    """RISK-2."""
    door.put(KILLED=1, MAX_QUANTITY=1, MAX_NOTIONAL=1, MAX_OPEN=1, OPEN=5, MAX_EXPOSURE=1, EXPOSURE=9, ORDER_RATE=1)
    door.desk.set(words.VENUE_KILLED, 1)
    door.desk.set(words.DISK_LOW, 1)
    door.desk.put_instrument(1, words.INSTRUMENT_KILLED, 1)
    frames = [cancel(1), MassCancel(Scope.ACCOUNT).pack(), MassCancel(Scope.ACCOUNT_IN_INSTRUMENT, 1).pack()]

    assert [door.say(door.next(), frame) for frame in frames] == [0, 0, 0]
    assert door.buy(1, 1) == Refusal.DISK_LOW


def test_cancels_are_refused_by_reference_frame_and_their_own_rate(door):
    """RISK-2."""
    door.put(CANCEL_RATE=1, CANCEL_CREDIT=SECOND)

    assert door.say(0, cancel(1)) == Refusal.BAD_REFERENCE
    assert door.say(1, cancel(0)) == Reason.BAD_ORDER_ID
    assert door.say(2, cancel(1)) == 0
    assert door.say(2, cancel(1)) == Refusal.DUPLICATE_REFERENCE
    assert door.say(3, MassCancel(Scope.ACCOUNT).pack()) == Refusal.THROTTLED
    assert door.say(4, buy(4)) == 0


# --------------------------------------------------------------------------------------------------- exposure (RISK-3)


def test_exposure_follows_an_order_to_its_end(door):
    """RISK-3: its whole quantity on its way, its leaves while it rests."""
    held = []

    def note():
        held.append([door.get(name) for name in ("OPEN", "EXPOSURE", "PENDING", "PENDING_EXPOSURE", "FLYING")])

    door.buy(-100, 10)
    note()
    door.hear(report(ReportKind.NEW, own(1), 0, -100, 10, 10, flags=0))
    door.hear(report(ReportKind.TRADE, own(1), own(1, 9), -101, 4, 6, flags=1 | LAST))
    note()
    door.say(2, replace(1, 50, 10))
    note()
    door.hear(report(ReportKind.REPLACED, own(1), 0, 50, 10, 6))
    note()
    door.hear(report(ReportKind.TRADE, own(2, 9), own(1), 50, 2, 0, flags=1 | LAST))
    note()
    door.hear(report(ReportKind.CANCELED, own(1), 0, 50, 4, 0))
    note()

    assert held == [
        [0, 0, 1, 1_000, 1],
        [1, 600, 0, 0, 0],
        [1, 600, 0, 500, 1],
        [1, 300, 0, 0, 0],
        [1, 200, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_a_market_order_counts_with_the_last_trade_and_has_no_collar(door):
    """RISK-3, RISK-5: and until there was one it is worth nothing."""
    door.desk.put_instrument(1, words.COLLAR, 1)
    door.put(MAX_NOTIONAL=1_000, MAX_EXPOSURE=1_500)
    assert [door.buy(0, QUANTITY_MAX, **MARKET), door.buy(500, 2)] == [0, 0]
    assert door.get("PENDING_EXPOSURE") == 1_000

    door.traded(-100)

    assert door.buy(0, 11, **MARKET) == Refusal.MAX_NOTIONAL
    assert door.buy(0, 6, **MARKET) == Refusal.EXPOSURE
    assert door.buy(0, 5, **MARKET) == 0
    assert door.get("PENDING_EXPOSURE") == 1_500


def test_an_instrument_that_has_not_traded_has_no_collar(door):
    """RISK-5: nor has one that the table does not reach."""
    for instrument in range(1_024):
        door.desk.put_instrument(instrument, words.COLLAR, 1)
    door.traded(100, 2)

    assert [door.buy(500, 1, instrument=number) for number in (1, 2, 2**20 - 1)] == [0, Refusal.COLLAR, 0]

    door.hear(report(ReportKind.TRADE, own(1, 9), own(2, 9), 500, 1, 0, instrument=5_000))

    assert [door.buy(price, 1, instrument=5_000) for price in (501, 502)] == [0, Refusal.COLLAR]


@pytest.mark.parametrize("sign", [1, -1])
def test_an_exposure_beyond_2_to_the_62_is_counted_and_comes_back(door, sign):
    """RISK-3: orders that slid, or of a journal from before the service, may be worth any amount."""
    door.buy(1, 1)
    door.hear(report(ReportKind.NEW, own(1), 0, 1, 1, 1))
    orders = [SNAPSHOT_ORDER.pack(own(number), sign * PRICE_MAX, QUANTITY_MAX, 0, 1, 1) for number in range(2, 40)]
    load_orders(door.desk, b"".join(orders))

    total = 1 + 38 * PRICE_MAX * QUANTITY_MAX
    assert (door.get("EXPOSURE_BEYOND"), door.get("EXPOSURE")) == divmod(total, 2**62)
    assert [door.buy(0, 1), door.buy(1, 1), door.say(door.next(), replace(1, 0))] == [Refusal.EXPOSURE] * 3

    for number in range(2, 40):
        door.hear(report(ReportKind.TRADE, own(1, 9), own(number), sign * PRICE_MAX, 7, 0))
        door.hear(report(ReportKind.CANCELED, own(number), 0, sign * PRICE_MAX, QUANTITY_MAX - 7, 0))

    assert [door.get(name) for name in ("OPEN", "EXPOSURE", "EXPOSURE_BEYOND")] == [1, 1, 0]
    assert door.buy(1, 1) == 0


# ------------------------------------------------------------------------------------------------------ rates (RISK-4)


@pytest.mark.parametrize("name", ["ORDER", "CANCEL"])
def test_a_rate_gives_n_at_once_and_then_one_each_nth_of_a_second(door, name):
    """RISK-4: at the very nanosecond."""
    start = 10**18
    door.put(**{f"{name}_RATE": 4, f"{name}_CREDIT": 4 * SECOND, f"{name}_TIME": start})

    def ask(now):
        reference = door.next()
        frame = buy(reference) if name == "ORDER" else cancel(1)
        return door.say(reference, frame, now=now) != Refusal.THROTTLED

    assert [ask(start) for _ in range(5)] == [True] * 4 + [False]
    assert [ask(start + later) for later in (1, 249_999_999, 250_000_000, 250_000_000)] == [False, False, True, False]
    assert [ask(start + later) for later in (499_999_999, 500_000_001)] == [False, True]
    assert [ask(start + 3_600 * SECOND) for _ in range(5)] == [True] * 4 + [False]


def test_the_two_rates_are_two_buckets_and_each_account_has_its_own(door):
    """RISK-4."""
    door.put(ORDER_RATE=1, ORDER_CREDIT=SECOND, CANCEL_RATE=1, CANCEL_CREDIT=SECOND)

    first = [door.say(1, buy(1)), door.say(2, replace(1)), door.say(3, cancel(1)), door.say(4, cancel(1))]

    assert first == [0, Refusal.THROTTLED, 0, Refusal.THROTTLED]
    assert [door.buy(1, 1, NINE) for _ in range(3)] == [0, 0, 0]


def test_a_bucket_fills_from_a_clock_that_was_set_back(door):
    """RISK-4: it gives nothing for the step, and need not wait for the time before it."""
    late, early = 10**18, 10**18 - 3_600 * SECOND
    door.put(ORDER_RATE=2, ORDER_CREDIT=0, ORDER_TIME=late)

    times = [late, early, early + SECOND // 2 - 1, early + SECOND // 2, early, late, late, late]

    assert [door.buy(1, 1, now=now) for now in times] == [129, 129, 129, 0, 129, 0, 0, 129]


def test_the_greatest_rate_does_not_overflow(door):
    """RISK-4: 2^31-1 a second."""
    door.put(ORDER_RATE=QUANTITY_MAX, ORDER_CREDIT=QUANTITY_MAX * SECOND)

    assert door.buy(1, 1, now=2**62) == 0
    assert door.get("ORDER_CREDIT") == (QUANTITY_MAX - 1) * SECOND


# --------------------------------------------------------------------------------- what is sent back (JRN-23, ENTRY-9)


def test_the_last_command_that_is_sent_back_gives_its_reference_back(door):
    """ENTRY-9: none of these is in the journal, so that all of them may be sent again."""
    door.put(REFERENCE=4, SEEN=4, ANSWERED=4)
    assert [door.buy(100, 1), door.buy(100, 1), door.say(7, cancel(5))] == [0, 0, 0]

    sent_back = [(words.bounce(door.desk), door.get("REFERENCE")) for _ in range(4)]

    assert sent_back == [((SEVEN, 5), 7), ((SEVEN, 6), 7), ((SEVEN, 7), 4), ((0, 0), 4)]
    assert [door.get(name) for name in ("FLYING", "PENDING", "PENDING_EXPOSURE", "ANSWERED")] == [0, 0, 0, 4]


def test_what_was_answered_keeps_its_reference_when_the_one_behind_it_is_sent_back(door):
    """ENTRY-9: between them stands what the journal has."""
    assert [door.buy(100, 1), door.buy(100, 1)] == [0, 0]
    door.hear(report(ReportKind.NEW, own(1), price=100, quantity=1, leaves=1))

    assert words.bounce(door.desk) == (SEVEN, 2)
    assert [door.get(name) for name in ("REFERENCE", "ANSWERED", "FLYING", "OPEN")] == [1, 1, 0, 1]


def test_an_account_gets_nothing_back_for_what_another_is_sent_back(door):
    """ENTRY-9: the oldest on its way is the one, of whichever account; the operator's has no order."""
    assert [door.say(1, SetTradingState(1, 1).pack(), CLERK), door.buy(100, 1, NINE)] == [0, 0]

    assert words.bounce(door.desk) == (CLERK, 1)
    assert (door.get("REFERENCE", CLERK), door.get("REFERENCE", NINE)) == (0, 1)
    assert (door.get("FLYING", NINE), door.get("PENDING_EXPOSURE", NINE)) == (1, 100)


# ------------------------------------------------------------------------------------- limits that are set (RISK-6, 7)


@pytest.fixture
def gateway(door):
    """A gateway that has a desk and nothing else."""
    gateway = Gateway.__new__(Gateway)
    gateway.desk, gateway.limits, gateway.owed = door.desk, {}, deque()
    gateway.rows = {0: CLERK, 7: SEVEN, 9: NINE}
    gateway.config = Config(path=Path("ferrox.toml"), risk=RiskConfig(max_quantity=10, collar=3, order_rate=5))
    return gateway


def limited(gateway, door, *limits):
    for limit in limits:
        assert door.say(door.next(CLERK), limit.pack(), CLERK) == 0
    gateway._limited(door.desk.records())


def test_a_limit_of_an_account_stands_before_that_of_all_and_both_before_the_configuration(door, gateway):
    """RISK-6."""
    found = []

    def look(*limits):
        limited(gateway, door, *limits)
        found.append((door.get("MAX_QUANTITY", SEVEN), door.get("MAX_QUANTITY", NINE)))

    look()
    look(SetLimit(Limit.MAX_QUANTITY, 0, 7, 30))
    look(SetLimit(Limit.MAX_QUANTITY, 0, 0, 20))
    look(SetLimit(Limit.MAX_QUANTITY, 0, 7, 0))
    look(SetLimit(Limit.MAX_QUANTITY, 0, 0, 0))

    assert found == [(10, 10), (30, 10), (30, 20), (20, 20), (10, 10)]


def test_a_collar_of_an_instrument_stands_before_that_of_all(door, gateway):
    """RISK-6: of an instrument that the table did not reach as well."""
    limited(gateway, door, SetLimit(Limit.COLLAR, 5_000, 0, 7), SetLimit(Limit.COLLAR, 0, 0, 4))
    found = [door.desk.get_instrument(number, words.COLLAR) for number in (1, 5_000, 8_000)]
    door.desk.put_instrument(20_000, words.DEFINED, 1)

    limited(gateway, door, SetLimit(Limit.COLLAR, 5_000, 0, 0))

    assert found == [4, 7, 4]
    assert [door.desk.get_instrument(number, words.COLLAR) for number in (1, 5_000, 20_000)] == [4, 4, 4]


def test_a_new_rate_begins_with_a_full_bucket_and_one_that_stays_keeps_its_own(door, gateway):
    """RISK-4, RISK-6."""
    limited(gateway, door)
    assert [door.buy(1, 1) for _ in range(6)] == [0] * 5 + [Refusal.THROTTLED]
    door.desk.records()

    limited(gateway, door, SetLimit(Limit.ORDER_RATE, 0, 0, 5))
    assert door.buy(1, 1) == Refusal.THROTTLED
    limited(gateway, door, SetLimit(Limit.ORDER_RATE, 0, 7, 2))

    assert [door.buy(1, 1) for _ in range(3)] == [0, 0, Refusal.THROTTLED]


@pytest.mark.parametrize(
    ("instrument", "account", "scope", "refused"),
    [
        (0, 7, Scope.ACCOUNT, [134, 0, 134]),
        (2, 0, Scope.INSTRUMENT, [0, 0, 134]),
        (0, 0, Scope.VENUE, [134, 134, 134]),
    ],
)
def test_a_kill_acts_on_the_next_command_and_is_followed_by_a_mass_cancel(
    door, gateway, instrument, account, scope, refused
):
    """RISK-7: and its end is followed by nothing."""
    limited(gateway, door, SetLimit(Limit.KILL, instrument, account, 1))

    assert list(gateway.owed) == [(0, MassCancel(scope, instrument, account).pack())]
    assert [door.buy(1, 1), door.buy(1, 1, NINE), door.buy(1, 1, instrument=2)] == refused
    door.desk.records()

    limited(gateway, door, SetLimit(Limit.KILL, instrument, account, 0))

    assert len(gateway.owed) == 1
    assert [door.buy(1, 1), door.buy(1, 1, NINE), door.buy(1, 1, instrument=2)] == [0, 0, 0]


# ------------------------------------------------------------------------------------------- references (ENTRY-9 .. 14)


def test_references_strictly_increase(door):
    """ENTRY-9: over all commands of an account, and only of that account."""
    reasons = [door.say(reference, buy(reference)) for reference in (5, 5, 4, 1, 6)]

    assert reasons == [0, 130, 130, 130, 0]
    assert [door.say(reference, cancel(1)) for reference in (6, 7, 7)] == [130, 0, 130]
    assert door.say(1, buy(1), NINE) == 0
    assert [fields[13] for fields in door.records()] == [own(5), own(6), own(1), own(1, 9)]


@pytest.mark.parametrize("reference", [0, -1, -(2**63), 2**40, 2**63 - 1])
def test_a_reference_is_from_1_to_2_to_the_40_less_1(door, reference):
    """ENTRY-9: one that is not is refused as BAD_REFERENCE, and spends nothing."""
    assert door.say(reference, buy(reference)) == Refusal.BAD_REFERENCE
    assert door.say(reference, cancel(1)) == Refusal.BAD_REFERENCE
    assert door.say(1, buy(1)) == 0


def test_the_last_reference_is_taken_and_nothing_comes_after_it(door):
    """ENTRY-9."""
    assert door.say(REFERENCE_MAX, buy(REFERENCE_MAX)) == 0
    assert [door.say(reference, cancel(1)) for reference in (1, REFERENCE_MAX, 2**40)] == [130, 130, 131]
    assert door.records()[0][13] == 7 << 40 | REFERENCE_MAX


def test_a_new_order_has_its_reference_as_order_id(door):
    """ENTRY-10."""
    assert [door.say(5, buy(4)), door.say(6, buy(own(6))), door.say(7, buy(7))] == [131, 131, 0]


def test_the_account_stands_above_the_reference_of_an_order(door):
    """ENTRY-10, LIM-4: no client can name an order of another, and what is no reference is order id 0."""
    order_ids = [1, REFERENCE_MAX, 0, -1, 2**40, own(1), own(1, 9), -(2**63)]

    reasons = [door.say(door.next(), cancel(order_id)) for order_id in order_ids]
    reasons += [door.say(door.next(), replace(order_id)) for order_id in order_ids]

    assert reasons == ([0, 0] + [Reason.BAD_ORDER_ID] * 6) * 2
    assert [fields[13] for fields in door.records()] == [own(1), own(REFERENCE_MAX)] * 2


@pytest.mark.parametrize(
    "frame", [cancel(1), replace(1), MassCancel(Scope.ACCOUNT).pack()], ids=["cancel", "replace", "mass cancel"]
)
def test_what_is_no_new_order_skips_at_most_65533_references(door, frame):
    """ENTRY-11: so it is at most 65,534 above the last one that was taken."""
    assert door.say(100, buy(100)) == 0
    assert door.say(100 + 65_534, frame) == 0
    assert door.say(100 + 65_534 + 65_535, frame) == Refusal.BAD_REFERENCE
    reference = 100 + 65_534 + 65_536
    assert door.say(reference, buy(reference)) == 0
    assert door.say(reference + 1, frame) == 0


def test_references_that_were_refused_count_as_skipped(door):
    """ENTRY-11: what is counted is what was taken."""
    door.put(KILLED=1)
    for reference in (60_000, 65_534):
        assert door.say(reference, buy(reference)) == Refusal.KILLED

    assert door.say(65_535, cancel(1)) == Refusal.BAD_REFERENCE


@pytest.mark.parametrize("reference", [1, 65_534, 65_535, 65_536, 2 * 65_535 - 1])
def test_the_record_of_what_is_no_new_order_carries_its_reference(door, reference):
    """ENTRY-11."""
    door.put(SEEN=reference - 1, REFERENCE=reference - 1)
    frames = [cancel(1), replace(1), MassCancel(Scope.ACCOUNT).pack()]

    for step, frame in enumerate(frames):
        assert door.say(reference + step, frame) == 0
    assert door.say(reference + 3, buy(reference + 3)) == 0

    sessions = [fields[6] for fields in door.records()]
    assert sessions == [1 + (reference + step) % 65_535 for step in range(3)] + [0]


def test_a_client_s_mass_cancel_gets_its_account(door):
    """ENTRY-12."""
    frames = [MassCancel(Scope.ACCOUNT).pack(), MassCancel(Scope.ACCOUNT_IN_INSTRUMENT, 1).pack()]

    assert [door.say(door.next(), frame) for frame in frames] == [0, 0]
    assert [(fields[9], fields[12], fields[13]) for fields in door.records()] == [(2, 0, 7), (3, 1, 7)]


def test_a_client_s_mass_cancel_of_another_scope_account_or_instrument_is_refused(door):
    """ENTRY-12."""
    answers = {
        MassCancel(Scope.INSTRUMENT, 1): Refusal.NOT_PERMITTED,
        MassCancel(Scope.VENUE): Refusal.NOT_PERMITTED,
        MassCancel(0): Refusal.NOT_PERMITTED,
        MassCancel(5): Refusal.NOT_PERMITTED,
        MassCancel(Scope.ACCOUNT, 0, 7): Refusal.NOT_PERMITTED,
        MassCancel(Scope.ACCOUNT, 0, 9): Refusal.NOT_PERMITTED,
        MassCancel(Scope.ACCOUNT_IN_INSTRUMENT, 1, 7): Refusal.NOT_PERMITTED,
        MassCancel(Scope.ACCOUNT, 1): Reason.BAD_INSTRUMENT,
        MassCancel(Scope.ACCOUNT_IN_INSTRUMENT, 0): Reason.BAD_INSTRUMENT,
        MassCancel(Scope.ACCOUNT_IN_INSTRUMENT, 2**20): Reason.BAD_INSTRUMENT,
        MassCancel(Scope.ACCOUNT_IN_INSTRUMENT, 2): Reason.UNKNOWN_INSTRUMENT,
        MassCancel(Scope.ACCOUNT_IN_INSTRUMENT, 2**20 - 1): Reason.UNKNOWN_INSTRUMENT,
    }

    assert {command: door.say(door.next(), command.pack()) for command in answers} == answers
    assert door.say(door.next(), MassCancel(Scope.ACCOUNT).pack() + bytes(16)) == Reason.MALFORMED
    assert door.records() == []

    door.hear(report(ReportKind.INSTRUMENT_DEFINED, instrument=5_000))

    assert door.say(door.next(), MassCancel(Scope.ACCOUNT_IN_INSTRUMENT, 5_000).pack()) == 0


OPERATORS: list[Command] = [
    DefineInstrument(2, 3, -5, 5, 1, 1),
    SetTradingState(2, 1),
    SetLimit(Limit.KILL, 0, 7, 1),
    MassCancel(Scope.INSTRUMENT, 1),
    MassCancel(Scope.ACCOUNT, 0, 7),
    MassCancel(Scope.ACCOUNT_IN_INSTRUMENT, 9, 7),
    MassCancel(Scope.VENUE),
]


def test_an_operator_s_frames_are_taken_as_they_stand(door):
    """ENTRY-12: whatever is killed, and with the session of what no client sent."""
    door.desk.set(words.VENUE_KILLED, 1)
    frames = [command.pack() for command in OPERATORS]

    assert [door.say(door.next(CLERK), frame, CLERK) for frame in frames] == [0] * len(frames)

    records = cut(door.desk.records(), 64)
    assert [record[32:] for record in records] == [frame.ljust(32, b"\0") for frame in frames]
    assert [(record[24], record[25]) for record in records] == [(frame[0], len(frame)) for frame in frames]
    assert {RECORD.unpack(record)[6] for record in records} == {0}


def test_an_operator_has_no_orders_and_a_client_no_commands_of_an_operator(door):
    """ENTRY-12."""
    reference = door.next(CLERK)
    assert door.say(reference, buy(reference), CLERK) == Refusal.NOT_PERMITTED
    assert door.say(door.next(CLERK), cancel(1), CLERK) == Refusal.NOT_PERMITTED
    assert door.say(door.next(CLERK), replace(1), CLERK) == Refusal.NOT_PERMITTED
    for command in OPERATORS[:3]:
        assert door.say(door.next(), command.pack()) == Refusal.NOT_PERMITTED
    for kind in (0, 8, 254, 255):
        assert door.say(door.next(), bytes((kind,)) + bytes(15)) == Refusal.NOT_PERMITTED
        assert door.say(door.next(CLERK), bytes((kind,)) + bytes(31), CLERK) == Reason.UNKNOWN_KIND


def test_an_operator_s_frame_may_be_wrong(door):
    """RISK-1: the reasons of rejects.md."""
    assert door.say(1, SetLimit(9, 0, 0, 0).pack(), CLERK) == Reason.BAD_LIMIT
    assert door.say(2, DefineInstrument(2, 3, 5, -5, 1, 1).pack(), CLERK) == Reason.BAD_BAND


def test_on_a_full_disk_an_operator_may_do_all_but_define_an_instrument(door):
    """RISK-1, JRN-23."""
    door.desk.set(words.DISK_LOW, 1)

    reasons = [door.say(door.next(CLERK), command.pack(), CLERK) for command in OPERATORS]

    assert reasons == [Refusal.DISK_LOW] + [0] * 6


def test_a_refusal_says_reference_instrument_kind_and_reason(door):
    """ENTRY-13: in the bytes of the specification."""
    frame = NewOrder(3, 1, 0, 0x01020304, 0x0A0B0C0D0E, 1, 1).pack()

    admit(door.desk, SEVEN, door.desk.writers[LINE], sent(0x0A0B0C0D0E, frame), 0, 0)

    assert door.desk.written(LINE) == bytes.fromhex("0011 55 0e0d0c0b0a000000 04030201 01 03 0000")
    admit(door.desk, SEVEN, door.desk.writers[LINE], sent(-1, b"\xff" * 16), 0, 0)
    assert door.desk.written(LINE) == bytes.fromhex("0011 55 ffffffffffffffff ffffffff ff 83 0000")


def test_a_refused_command_gives_no_record_and_holds_nothing(door):
    """ENTRY-13."""
    door.put(MAX_QUANTITY=1)
    door.buy(100, 2)

    assert door.records() == []
    held = [door.get(name) for name in ("PENDING", "PENDING_EXPOSURE", "FLYING", "TAKEN", "REFERENCE", "REFUSALS")]
    assert held == [0, 0, 0, 0, 0, 1]
    assert door.desk.look(FLIGHT_NEXT) == 0


@pytest.mark.parametrize("reason", ["killed", "busy", "other id", "skip", "frame"])
def test_a_reference_that_was_refused_is_spent_until_the_next_login(door, reason):
    """ENTRY-14: and the last one taken is not another one for it."""
    door.say(3, buy(3))
    frame = {"other id": buy(8), "skip": cancel(1), "frame": buy(70_000, quantity=0)}.get(reason, buy(70_000))
    door.put(KILLED=int(reason == "killed"))
    door.desk.set(ROOM, 1 if reason == "busy" else BATCH)

    refused = door.say(70_000, frame)

    assert refused == {"killed": 134, "busy": 128, "other id": 131, "skip": 131, "frame": Reason.BAD_QUANTITY}[reason]
    door.put(KILLED=0)
    door.desk.set(ROOM, BATCH)
    assert [door.say(reference, buy(reference)) for reference in (70_000, 4)] == [130, 130]
    assert (door.get("REFERENCE"), door.get("SEEN")) == (3, 70_000)

    door.put(SEEN=door.get("REFERENCE"))

    assert [door.say(reference, buy(reference)) for reference in (3, 4, 70_000)] == [130, 0, 0]


# ------------------------------------------------------------------------------------------------------------- packets


def test_packets_have_no_relation_to_what_a_read_returns():
    """ENTRY-1: commands of both sizes, taken and refused, cut at every byte."""
    frames = [buy(1), cancel(1), buy(3, quantity=0), replace(1), MassCancel(Scope.ACCOUNT).pack(), buy(5)]
    data = b"".join(sent(reference, frame) for reference, frame in enumerate(frames, 1))
    whole = Door()
    expected = (*whole.take(data), whole.desk.records())
    assert [reason for *_, reason in expected[1]] == [Reason.BAD_QUANTITY, Refusal.BAD_REFERENCE]
    assert len(expected[2]) == 4 * 64

    for place in range(len(data) + 1):
        door = Door()
        first, refusals = door.take(data[:place])
        second, more = door.take(data[first:])

        assert (first + second, refusals + more, door.desk.records()) == expected
        assert place - 43 < first <= place


@pytest.mark.parametrize(
    "other",
    [
        packet(b"R", b"R"),
        packet(b"O"),
        packet(b"L", bytes(72)),
        packet(b"+", b"U" * 128),
        b"\x00\x00+",
        packet(b"S", bytes(24)),
        packet(b"u", bytes(24)),
        packet(b"U", bytes(23)),
        packet(b"U", bytes(25)),
        packet(b"U", bytes(41)),
        packet(b"U"),
        b"\x01\x19U" + bytes(280),
        b"\x00\x00U",
    ],
)
def test_admission_stops_at_a_packet_that_is_no_command(door, other):
    """ENTRY-2: that one, and what is behind it, are the gateway's."""
    ahead = sent(1, buy(1)) + sent(2, cancel(1))

    place, refusals = door.take(ahead + other + sent(3, buy(3)))

    assert (place, refusals, len(door.records())) == (len(ahead), [], 2)


def test_admission_stops_when_there_is_no_place_for_a_record_more(door):
    data = b"".join(sent(reference, cancel(1)) for reference in range(1, BATCH + 3))

    place, refusals = door.take(data)

    assert (place, refusals) == (BATCH * 27, [])
    assert len(door.desk.records()) == BATCH * 64
    assert door.take(data[place:]) == (2 * 27, [])


def test_admission_passes_over_heartbeats_and_debug_texts(door):
    """ENTRY-1, ENTRY-2: but not over one that is not all there."""
    texts = packet(b"+") + packet(b"R") + packet(b"+", b"U" * 127) + packet(b"R")
    last = packet(b"+", b"L" * 60)

    place, refusals = door.take(texts + sent(1, buy(1)) + texts + sent(2, cancel(1)) + texts + last[:-1])

    assert (refusals, len(door.records())) == ([], 2)
    assert place == 3 * len(texts) + 43 + 27
    assert pass_over(packet(b"+") * 9 + packet(b"+", b"?" * 127) + packet(b"R") + bytes(9), 0) == 27 + 130


def test_admission_begins_where_it_is_told_to(door):
    data = packet(b"O") + sent(1, buy(1))

    assert admit(door.desk, SEVEN, door.desk.writers[LINE], data, 3, 0) == len(data)
    assert len(door.records()) == 1


def test_each_record_is_later_than_the_one_before(door):
    """RING-6: by the clock where it goes on, by a nanosecond where it does not."""
    times = []
    for now in (50, 50, 10, 60):
        clock(door.desk, now)
        door.buy(1, 1, now=now)
        times += [fields[3] for fields in door.records()]

    assert times == [50, 51, 52, 60]
