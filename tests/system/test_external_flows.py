"""Matching is what others say it is: five flows that 160 engines agree on, and an hour of a recorded market.

The flows are not part of the project (see `external_flows`), so these tests skip where they are absent.  The fast
engine would take minutes where it is not compiled; there it gets the first part of each flow, and its report text is
compared with the reference's, whose whole text is compared with the hash.
"""

import sys
from bisect import bisect_left, insort
from pathlib import Path

import pytest

from ferrox.engine import ENGINES, Capacity, Engine, make_engine
from ferrox.fast import COMPILED
from ferrox.state import unpack_state
from ferrox.terms import ReportFlag, ReportKind

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package; the driver stands beside this file

from external_flows import (  # type: ignore[import-not-found]
    BUY,
    Best,
    Driver,
    ExternalMissing,
    digest,
    drive_recorded,
    expectations,
    external,
    figures,
    play_messages,
    read_checkpoints,
    read_messages,
    read_recorded,
)

pytestmark = pytest.mark.external

EXPECTATIONS = {expected["scenario"]: expected for expected in expectations()}
SCENARIOS = ("static", "normal", "swing-25", "swing-40", "flash-crash")
CAPACITY = Capacity(orders=1 << 16, instruments=16)
PART = 4_000  # messages, for an engine that is not compiled


@pytest.fixture(params=ENGINES)
def engine(request) -> Engine:
    return make_engine(request.param, CAPACITY)


@pytest.fixture
def present():
    """Skip where the flows are absent."""

    def check(name: str) -> None:
        try:
            external(name)
        except ExternalMissing as missing:
            pytest.skip(str(missing))

    return check


def is_quick(engine: Engine) -> bool:
    """Say whether a whole flow takes seconds: with the reference, and with the fast engine where it is compiled."""
    return COMPILED or type(engine) is type(make_engine("reference", CAPACITY))


# --------------------------------------------------------------------------------------------------- consensus


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_report_stream_is_the_one_that_the_consensus_agrees_on(scenario: str, engine: Engine, present):
    """MATCH-1 .. MATCH-6, TIF-2, CANCEL-2, RPL-4, RPL-5."""
    present("consensus")
    expected = EXPECTATIONS[scenario]
    messages = read_messages(expected["file"])

    if is_quick(engine):
        text = play_messages(messages, Driver(engine))

        assert figures(text, engine, len(messages)) == expected["stats"]
        assert digest(text) == expected["sha256_of_reports"]
    else:
        oracle = make_engine("reference", CAPACITY)

        assert play_messages(messages[:PART], Driver(engine)) == play_messages(messages[:PART], Driver(oracle))
        assert engine.snapshot() == oracle.snapshot()


def test_every_flow_of_the_consensus_is_looked_at(present):
    present("consensus")

    assert set(EXPECTATIONS) == set(SCENARIOS)


def test_the_driver_gets_the_same_text_message_by_message(present):
    """DET-2: nothing of the answer is owed to the batches that the driver makes."""
    present("consensus")
    messages = read_messages(EXPECTATIONS["normal"]["file"])[:20_000]

    texts = {play_messages(messages, Driver(make_engine("reference", CAPACITY), batch=batch)) for batch in (1, 4096)}

    assert len(texts) == 1


# ---------------------------------------------------------------------------------------------------- recorded


class Image:
    """The book as its reports tell it: what a subscriber would know, and nothing of the engine's own."""

    def __init__(self) -> None:
        self.working: dict[int, tuple[int, int]] = {}  # price and leaves, by order id
        self.sides: dict[int, int] = {}
        self.totals: tuple[dict[int, int], dict[int, int]] = ({}, {})  # bids, asks: quantity by price
        self.prices: tuple[list[int], list[int]] = ([], [])  # ascending

    def change(self, order_id: int, price: int, quantity: int) -> None:
        """Add to what rests of an order; nothing is left of it at zero."""
        _, leaves = self.working.get(order_id, (price, 0))
        at = 0 if self.sides[order_id] == BUY else 1
        totals, prices = self.totals[at], self.prices[at]
        if price not in totals:
            insort(prices, price)
        totals[price] = totals.get(price, 0) + quantity
        if not totals[price]:
            del totals[price]
            del prices[bisect_left(prices, price)]
        self.working[order_id] = (price, leaves + quantity)
        if not leaves + quantity:
            del self.working[order_id]

    def take(self, reports) -> list[str]:
        """Take the reports of one command; return its fills as the recording writes them."""
        fills = []
        taker = None
        for report in reports:
            if report.kind == ReportKind.NEW:
                self.sides[report.order_id] = report.side
                taker = report
                left = report.quantity
            elif report.kind == ReportKind.TRADE:
                fills.append(f"{report.contra_id}:{report.price}:{report.quantity}")
                self.change(report.contra_id, report.price, -report.quantity)
                left = report.leaves
            elif report.kind == ReportKind.EXPIRED:
                left = 0
            elif report.kind == ReportKind.CANCELED:
                self.change(report.order_id, report.price, -report.quantity)
            else:
                assert report.kind == ReportKind.REPLACED, report
                price, leaves = self.working[report.order_id]
                assert report.price == price, "the recording only reduces"
                assert report.flags & ReportFlag.PRIORITY_KEPT, report
                self.change(report.order_id, price, report.leaves - leaves)
        if taker is not None and left:
            self.change(taker.order_id, taker.price, left)
        return fills

    def best(self) -> Best:
        """Return the best bid and offer."""
        (bids, asks), (bid_prices, ask_prices) = self.totals, self.prices
        bid = bid_prices[-1] if bid_prices else None
        ask = ask_prices[0] if ask_prices else None
        return Best(bid, None if bid is None else bids[bid], ask, None if ask is None else asks[ask])


def test_a_recorded_hour_trades_as_it_did(engine: Engine, present):
    """Every execution of the recording, and its best bid and offer after each command (MATCH-1 .. MATCH-5, RPL-4)."""
    present("recorded")
    commands, checkpoints = read_recorded(), read_checkpoints()
    if not is_quick(engine):
        commands = commands[:PART]
    image, seen = Image(), 0

    for answer in drive_recorded(commands, Driver(engine), image.working):
        command = commands[answer.place]
        assert tuple(image.take(answer.reports)) == command.expect, f"command {answer.place}: {command}"
        if answer.place in checkpoints:
            assert image.best() == checkpoints[answer.place], f"after command {answer.place}: {command}"
            seen += 1

    resting = {order.order_id: (order.price, order.leaves) for order in unpack_state(engine.snapshot()).orders}
    assert resting == image.working
    assert seen == sum(index < len(commands) for index in checkpoints) > 0
