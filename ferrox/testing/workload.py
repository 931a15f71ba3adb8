"""Simulated order flow: seeded, shaped like a real market's, endless, and the same bytes everywhere.

    for records in Workload(seed=7, commands=1_000_000):
        ...  # an array of RECORD_DTYPE, a thousand and some records; `records.tobytes()` is what an engine takes

It is a closed loop.  A window of some tens of simulated milliseconds is laid out at once, in whole arrays: who arrives,
at what price, which orders reach the end of their lifetime.  Then an engine carries it out, and its reports, nothing
else, tell what is alive and where the touch stands when the next window is laid out.  So cancels mostly hit, and those
that come too late do so for the reason they do in life: the order traded while the cancel was under way.  Which engine
closes the loop makes no difference, because all give the same reports (DET-6).

Every order draws its lifetime when it is made, which is the trick that lets a window be arrays: nobody has to search
for an order to cancel, no order is canceled twice, and the ages come out as they were drawn.

The shapes:

* A passive order stands at a distance d from its own side's best price with P(d) ~ (d + offset)^-(1 + 0.6): Bouchaud,
  Mezard and Potters, "Statistical properties of stock order books" (2002).
* Orders die by cancel, a few in a hundred by trade: the ratios of cancels to trades in the SEC's MIDAS data.  Lifetimes
  have the tail P(T > t) ~ t^-1/2, so most last milliseconds and some the whole day.
* Arrivals excite further ones in the same instrument, mostly on the same side, after delays with a power-law tail: a
  Hawkes process, drawn as what it equals, a cluster of children to each arrival.  Its pace changes between regimes.
* Activity of instruments and of accounts is Zipf's.

All arithmetic that decides anything is on integers, or is a single multiplication or division, which IEEE 754 rounds
alike everywhere; tables that need a logarithm take it from `decimal`, which rounds correctly.  Random words are
SplitMix64's, written out here, because the streams of numpy's distributions may change with its version.
"""

from collections.abc import Callable, Iterator
from decimal import Context, Decimal
from functools import lru_cache
from math import sqrt
from typing import Any, Final

import numpy as np
from attrs import asdict, field, frozen
from attrs.validators import and_, ge, instance_of, le
from numpy.typing import NDArray

from ferrox.engine import Capacity, Engine, make_engine
from ferrox.errors import UsageError
from ferrox.messages import RECORD_DTYPE, RECORD_SIZE, REPORT_DTYPE
from ferrox.terms import (
    ACCOUNT_SHIFT,
    ORDER_CAPACITY,
    REFERENCE_MAX,
    SELF_TRADE_SHIFT,
    CommandKind,
    OrderFlag,
    ReportKind,
    Scope,
    Side,
    TimeInForce,
    TradingState,
)

Integers = NDArray[np.int64]
Records = NDArray[np.void]

NEW_ORDER, CANCEL_ORDER, REPLACE_ORDER, MASS_CANCEL, DEFINE_INSTRUMENT, SET_TRADING_STATE = map(
    int, list(CommandKind)[:6]
)
BUY, SELL = map(int, Side)
GTC, IOC, FOK = map(int, TimeInForce)
MARKET, POST_ONLY, SLIDE = map(int, OrderFlag)
PRE_OPEN, OPEN, HALTED, _ = map(int, TradingState)
LONG_COMMANDS: Final = (NEW_ORDER, REPLACE_ORDER, DEFINE_INSTRUMENT)

WORD: Final = 1 << 32  # a random word is 0 .. 2^32-1, so a share of one is a threshold
NEVER: Final = 1 << 62
EPOCH_NS: Final = 1_767_623_400_000_000_000  # the first command: 2026-01-05 14:30 UTC
PROBABILITY: Final = 10_000  # shares below are parts of this


# ----------------------------------------------------------------------------------------------------- the shape


def _whole(default: int, low: int, high: int) -> int:
    """Return an attrs field for an integer of low .. high."""
    number: int = field(default=default, validator=and_(instance_of(int), ge(low), le(high)))
    return number


@frozen(kw_only=True)
class Shape:
    """What a flow is like; shares are parts of 10,000, distances are levels, of one tick each."""

    instruments: int = _whole(8, 1, 256)
    """How many; their ticks, lots and bands differ, and one in four trades around a price of zero."""
    accounts: int = _whole(24, 1, 4096)
    """How many send orders, with Zipf's activity; their numbers are 1 and up."""
    half_width: int = _whole(2_000, 100, 50_000)
    """Levels between the middle of an instrument's band and either end."""
    prefill: int = _whole(100, 0, 200_000)
    """Orders that each instrument gets before it opens."""
    immigrants: int = _whole(256, 16, 16_384)
    """Arrivals of their own accord in one window."""
    window_ns: int = _whole(40_000_000, 1_000, 10**12)
    """How long a window of the middle regime is; a busy one is shorter."""
    branching: int = _whole(6_000, 0, 9_000)
    """How many further arrivals each one excites: 6,000 is 0.6."""
    marketable: int = _whole(400, 0, 9_000)
    """Share of arrivals that mean to trade at once."""
    sweeps: int = _whole(8, 0, 2_000)
    """Share of arrivals that take many levels."""
    replaced: int = _whole(2_300, 0, 9_000)
    """Share of lifetimes that end with a replace, and then begin again."""
    faulty: int = _whole(60, 0, 2_000)
    """Share of arrivals that an engine has to reject."""
    lifetime_ns: int = _whole(2_000_000, 1_000, 10**12)
    """Three orders in ten live longer than ten times this, three in a hundred longer than a thousand times."""
    lifetime_max_ns: int = _whole(600 * 10**9, 1_000_000, 10**15)
    """No order is left alone for longer."""
    distance_offset: int = _whole(1, 1, 10_000)
    """Where the power law of distances bends: the larger, the flatter it is near the touch."""
    halts: int = _whole(60, 0, 2_000)
    """Share of windows in which one instrument is halted."""
    mass_cancels: int = _whole(500, 0, 10_000)
    """Share of windows in which one account or, rarely, more is mass-canceled."""


PRESETS: Final[dict[str, Shape]] = {
    "default": Shape(),
    "calm": Shape(branching=3_000, marketable=200, sweeps=2, faulty=20, halts=10, mass_cancels=100),
    "deep": Shape(
        instruments=2,
        half_width=12_000,
        prefill=100_000,
        immigrants=1_024,
        window_ns=160_000_000,
        lifetime_ns=10**9,
        lifetime_max_ns=60 * 10**9,
        distance_offset=300,
        mass_cancels=0,
        halts=0,
    ),
    "sweep": Shape(
        instruments=4, prefill=2_500, sweeps=60, lifetime_ns=50_000_000, lifetime_max_ns=60 * 10**9, mass_cancels=0
    ),
    "many": Shape(instruments=200, accounts=400, half_width=800, prefill=60, immigrants=512),
}
"""Shapes by name: the ordinary one, a quiet day, a book of 200,000 orders, a book that is swept, many instruments."""

SOURCES: Final = {
    "distance": "J.-P. Bouchaud, M. Mezard, M. Potters, Statistical properties of stock order books (2002): mu = 0.6",
    "cancels": "SEC MIDAS, market structure data: many cancels to each trade",
    "arrivals": "A. Hawkes, Spectra of some self-exciting and mutually exciting point processes (1971)",
    "lifetimes": "power-law ages at cancel, tail exponent 1/2, cut off",
    "random words": "SplitMix64: G. Steele, D. Lea, C. Flood (2014)",
}


class Workload:
    """A seeded order flow of a given number of commands; iterate it, as often as you like, for arrays of records.

    The records are of `RECORD_DTYPE`, with sequence numbers from 1, times that never go back, and checksums of 0.  The
    first `instruments` of them define the instruments 1 and up, pre-open; orders fill the books, and the instruments
    open.  The first n commands of a flow are those of a shorter one with the same seed and shape.  Memory is bounded by
    the orders alive, whatever the count.
    """

    def __init__(self, seed: int, commands: int, preset: str = "default", *, shape: Shape | None = None) -> None:
        """Take a seed of 0 .. 2^64-1, the number of commands, and a preset by name or a shape of one's own.

        Raise `UsageError` for a name, a seed or a number that there is not.
        """
        if preset not in PRESETS:
            raise UsageError(f"there is no preset named {preset!r}; choose one of: {', '.join(PRESETS)}")
        if not 0 <= seed < 1 << 64:
            raise UsageError(f"a seed is 0 .. 2^64-1, this one is {seed}")
        if commands < 0:
            raise UsageError(f"a flow has 0 commands or more, not {commands}")
        self.seed = seed
        self.commands = commands
        self.preset = "custom" if shape is not None else preset
        self.shape = PRESETS[preset] if shape is None else shape

    def __iter__(self) -> Iterator[Records]:
        """Give the records in arrays; a fresh reference engine closes the loop."""
        return self.chunks()

    def chunks(self, apply: Callable[[bytes], Any] | None = None) -> Iterator[Records]:
        """Give the records in arrays, each of which `apply` has carried out before it is given.

        `apply` takes the bytes of whole records that follow those before, and returns all their report frames: it is
        how a venue (`lambda records: bytes(venue.apply(records))`) or an engine (`applier(engine)`) of one's own closes
        the loop.  It must be fresh and have room for the orders (`capacity`); the records do not depend on which it is.
        """
        if apply is None:
            apply = applier(make_engine("reference", self.capacity()))
        flow = _Flow(self.seed, self.shape)
        left = self.commands
        while left > 0:
            records = flow.window()[:left]
            left -= len(records)
            flow.learn(np.frombuffer(apply(records.tobytes()), REPORT_DTYPE))
            yield records

    def capacity(self) -> Capacity:
        """Return capacities that the flow fits in."""
        return Capacity(ORDER_CAPACITY, max(1024, self.shape.instruments))

    def describe(self) -> dict[str, Any]:
        """Return all that makes the flow, by name, and where its shapes come from."""
        return {
            "seed": self.seed,
            "commands": self.commands,
            "preset": self.preset,
            "shape": asdict(self.shape),
            "sources": dict(SOURCES),
        }


def applier(engine: Engine) -> Callable[[bytes], bytes]:
    """Return a function that applies records to an engine, however many it takes at a time, and returns the reports."""

    def apply(records: bytes) -> bytes:
        reports = bytearray()
        while records:
            taken, some = engine.apply(records)
            reports += some
            records = records[taken * RECORD_SIZE :]
        return bytes(reports)

    return apply


# ------------------------------------------------------------------------------------------------------ the flow


class _Flow:
    """The loop's own state: the live orders as columns, the quantity of each level, and what is still to come."""

    def __init__(self, seed: int, shape: Shape) -> None:
        self.shape = shape
        self.words = _Words(seed)
        self.market = _Market(shape, self.words)
        self.orders = _Orders()
        self.sequence = 0
        self.number = 0  # of the last new order; the reference in its id (LIM-4)
        self.time_ns = EPOCH_NS
        self.started = False
        self.regime = 1
        self.pending = _Arrivals.none()  # excited, but due in a later window
        self.state_changes: list[tuple[int, int, int]] = []  # time, instrument index, state
        self.halted: list[tuple[int, int, int]] = []  # instrument index, from, until
        self.distances = _distances(shape.distance_offset, 2 * shape.half_width)
        self.instrument_activity = _zipf(shape.instruments)
        self.account_activity = _zipf(shape.accounts)

    # ------------------------------------------------------------------------------------------ laying out

    def window(self) -> Records:
        """Return the records of the next window."""
        if not self.started:
            self.started = True
            return self.opening()
        shape = self.shape
        start = self.time_ns
        length = self.pace()
        end = start + length
        events = [self.change_states(start, end), self.cancel_masses(start, length)]
        arrivals = self.leave_out_halted(self.arrive(start, end))
        events += self.enter(arrivals, end, shape.marketable, shape.sweeps, shape.faulty)
        self.time_ns = end
        return self.merge(events)

    def opening(self) -> Records:
        """Return the first records: definitions, orders that fill the books, and the opening of each instrument."""
        shape, market = self.shape, self.market
        start = self.time_ns
        count = shape.instruments
        numbers = np.arange(1, count + 1, dtype=np.int64)
        defined = _Events(count, start, DEFINE_INSTRUMENT)
        defined.instrument[:] = numbers
        defined.a[:] = PRE_OPEN
        defined.ident[:] = market.low
        defined.price[:] = market.low + (market.width - 1) * market.tick
        defined.quantity[:] = market.tick
        defined.display[:] = market.lot
        opened = _Events(count, start + 2_000_000_000, SET_TRADING_STATE)
        opened.instrument[:] = numbers
        opened.time[:] += np.arange(count) * 1_000
        opened.a[:] = OPEN

        total = count * shape.prefill
        words = self.words.draw(3, total)
        instrument = np.tile(np.arange(count, dtype=np.int64), shape.prefill)
        side = BUY + (words[0] >> 31)
        time = start + 1_000_000 + np.arange(total, dtype=np.int64) * (1_900_000_000 // max(total, 1))
        account = np.searchsorted(self.account_activity, words[1], "right")
        events = self.enter(_Arrivals(time, instrument, account, side), start + 2_500_000_000, 0, 0, 0, patient=True)
        self.time_ns = start + 2_500_000_000
        return self.merge([defined, *events, opened])

    def pace(self) -> int:
        """Return the length of the next window: calm, ordinary and busy times follow each other slowly."""
        [[word]] = self.words.draw(1, 1).tolist()
        if word < WORD // 8:
            self.regime = word % 3
        return (3 * self.shape.window_ns, self.shape.window_ns, self.shape.window_ns // 8)[self.regime]

    def arrive(self, start: int, end: int) -> "_Arrivals":
        """Return who arrives in a window: of their own accord, and excited by others, those of earlier windows too."""
        shape, market = self.shape, self.market
        words = self.words.draw(4, shape.immigrants)
        instrument = market.by_rank[np.searchsorted(self.instrument_activity, words[1], "right")]
        # Prices are pulled back to the middle of the band by a side that is a little more likely.
        pull = (shape.half_width - market.reference[instrument]) * (WORD // 4 // shape.half_width)
        own = _Arrivals(
            start + (words[0] * (end - start) >> 32),
            instrument,
            np.searchsorted(self.account_activity, words[2], "right"),
            np.where(words[3] < WORD // 2 + pull, BUY, SELL),
        )
        due = self.pending.time < end
        latest = _Arrivals.join([own, self.pending.choose(due)])
        later = [self.pending.choose(~due)]
        found = [latest]
        excites = WORD // PROBABILITY * shape.branching // 2
        while len(latest.time):
            words = self.words.draw(6, len(latest.time))
            generation = []
            for child in (0, 1):  # up to two each
                excited = words[child] < excites
                delayed = words[2 + child][excited]
                parents = latest.choose(excited)
                delay = np.minimum(200_000.0 * (WORD / (WORD - delayed) - 1.0), 2e9).astype(np.int64)
                other = words[4 + child][excited]
                account = np.where(other % 2, parents.account, (parents.account + other % 7) % shape.accounts)
                side = np.where(other >> 8 & 255 < 190, parents.side, BUY + SELL - parents.side)
                generation.append(_Arrivals(parents.time + 1 + delay, parents.instrument, account, side))
            children = _Arrivals.join(generation)
            due = children.time < end
            later.append(children.choose(~due))
            latest = children.choose(due)
            found.append(latest)
        self.pending = _Arrivals.join(later)
        every = _Arrivals.join(found)
        return every.choose(np.argsort(every.time, kind="stable"))

    def leave_out_halted(self, arrivals: "_Arrivals") -> "_Arrivals":
        """Return the arrivals without most of those in halted instruments: their senders have seen the halt."""
        if not self.halted:
            return arrivals
        kept = self.words.draw(1, len(arrivals.time))[0] < WORD // 16
        kept |= ~self.is_halted(arrivals.instrument, arrivals.time)
        self.halted = [halt for halt in self.halted if halt[2] > self.time_ns]
        return arrivals.choose(kept)

    def change_states(self, start: int, end: int) -> "_Events":
        """Return the changes of trading states in a window, and now and then plan a halt."""
        shape = self.shape
        [words] = self.words.draw(1, 4).tolist()
        if words[0] < WORD // PROBABILITY * shape.halts:
            instrument = words[1] % shape.instruments
            since = start + (words[2] * (end - start) >> 32)
            until = since + 20_000_000 + (words[3] % 8) * 30_000_000
            if not any(halt[0] == instrument and halt[2] + shape.window_ns > since for halt in self.halted):
                self.halted.append((instrument, since, until))
                self.state_changes.append((since, instrument, HALTED))
                if words[3] & 8:
                    self.state_changes.append((until, instrument, PRE_OPEN))
                self.state_changes.append((until + (words[3] & 8) * 500_000, instrument, OPEN))
        due = sorted(change for change in self.state_changes if change[0] < end)
        self.state_changes = [change for change in self.state_changes if change[0] >= end]
        events = _Events(len(due), start, SET_TRADING_STATE)
        for index, (time, instrument, state) in enumerate(due):
            events.time[index] = max(time, start)
            events.instrument[index] = instrument + 1
            events.a[index] = state
        return events

    def cancel_masses(self, start: int, length: int) -> "_Events":
        """Return no mass cancel or one: mostly of an account in an instrument, seldom of a whole instrument or more."""
        [words] = self.words.draw(1, 4).tolist()
        if words[0] >= WORD // PROBABILITY * self.shape.mass_cancels:
            return _Events(0, start, MASS_CANCEL)
        event = _Events(1, start + (words[1] * length >> 32), MASS_CANCEL)
        rarity = words[2] % 1_000
        scope = (
            Scope.VENUE
            if rarity < 3
            else Scope.INSTRUMENT
            if rarity < 40
            else Scope.ACCOUNT
            if rarity < 250
            else Scope.ACCOUNT_IN_INSTRUMENT
        )
        event.a[:] = scope
        if scope in (Scope.INSTRUMENT, Scope.ACCOUNT_IN_INSTRUMENT):
            event.instrument[:] = 1 + words[3] % self.shape.instruments
        if scope in (Scope.ACCOUNT, Scope.ACCOUNT_IN_INSTRUMENT):
            event.ident[:] = 1 + (words[3] >> 12) % self.shape.accounts
        return event

    def enter(
        self,
        arrivals: "_Arrivals",
        end: int,
        marketable: int,
        sweeps: int,
        faulty: int,
        *,
        patient: bool = False,
    ) -> "list[_Events]":
        """Return the orders that arrivals send, and what ends lifetimes in this window: cancels and replaces."""
        market, orders = self.market, self.orders
        count = len(arrivals.time)
        words = self.words.draw(9, count)
        instrument, side, time = arrivals.instrument, arrivals.side, arrivals.time
        outward = 2 * side - 3  # -1 for buys, +1 for sells: the way from the touch into the book

        # Where and how much: passive by default, at the far touch and beyond for those who mean to trade.
        intent = words[0]
        level = self.passive_level(instrument, side, outward, words[1], words[2])
        lots = self.sizes(words[3])
        sweeping = intent < WORD // PROBABILITY * sweeps
        trading = intent < WORD // PROBABILITY * (sweeps + marketable)
        far = np.where(side == BUY, market.ask[instrument], market.bid[instrument])
        nobody = (far < 0) | (far >= market.width)
        far = np.where(nobody, market.reference[instrument], far)
        reach = np.where(sweeping, 20 + words[2] % 41, words[2] % 3)
        lots = np.where(sweeping, 40 + words[3] % 400, np.where(trading, np.minimum(lots, 10), lots))
        level = np.where(trading, far - outward * reach, level)
        level = np.clip(level, 0, market.width - 1)

        # How: by shares of one word each.
        how = words[4] % 100
        time_in_force = np.where(trading & (how < 70), np.where(how < 60, IOC, FOK), GTC)
        time_in_force = np.where(trading & (how >= 95), FOK, time_in_force)
        at_market = trading & ((how < 20) | (how >= 97))
        post_only = ~trading & (how < 12)
        flags = MARKET * at_market + POST_ONLY * post_only + SLIDE * (post_only & (how < 5))
        level = np.where(post_only & (words[2] % 32 == 0), far, level)  # a maker that saw the touch too late
        mode = np.where(words[5] % 16 == 0, words[5] // 16 % 5, arrivals.account % 5)
        flags = flags | mode << SELF_TRADE_SHIFT

        self.number += count
        number = np.arange(self.number - count + 1, self.number + 1, dtype=np.int64)
        sent = _Events(count, 0, NEW_ORDER)
        sent.time[:] = time
        sent.a[:], sent.b[:], sent.c[:] = side, time_in_force, flags
        sent.instrument[:] = instrument + 1
        sent.ident[:] = (arrivals.account + 1) << ACCOUNT_SHIFT | number
        sent.price[:] = np.where(at_market, 0, market.price(instrument, level))
        sent.quantity[:] = lots * market.lot[instrument]

        resting = np.flatnonzero((time_in_force == GTC) & (words[6] >= WORD // PROBABILITY * faulty))
        ends = time + self.lifetimes(words[7], patient=patient)
        self.make_faulty(sent, words[6], words[8], instrument, faulty)

        first = orders.count
        orders.append(
            number[resting],
            arrivals.account[resting],
            instrument[resting],
            side[resting],
            level[resting],
            ends[resting],
        )
        return [sent, self.end_lifetimes(end, first, sent.quantity[resting])]

    def passive_level(
        self, instrument: Integers, side: Integers, outward: Integers, distance: Integers, inside: Integers
    ) -> Integers:
        """Return levels at a power-law distance from the own best, some of them better, none through the far touch."""
        market = self.market
        bid, ask, reference = market.bid[instrument], market.ask[instrument], market.reference[instrument]
        buying = side == BUY
        # A side without orders begins beside the other, or around the last price.
        near_bid = np.where(bid >= 0, bid, np.where(ask < market.width, ask, reference) - 1)
        near_ask = np.where(ask < market.width, ask, np.where(bid >= 0, bid, reference) + 1)
        level = np.where(buying, near_bid, near_ask)
        room = np.maximum(np.where(buying, near_bid + 1, market.width - near_ask), 1)  # to the end of the band
        improving = (inside < WORD // 4) & (near_ask - near_bid > 1) & (bid >= 0) & (ask < market.width)
        away = np.searchsorted(self.distances, distance, "right") % room
        level = level + outward * np.where(improving, -1, away)
        behind: Integers = np.where(buying, np.minimum(level, near_ask - 1), np.maximum(level, near_bid + 1))
        return behind

    def sizes(self, words: Integers) -> Integers:
        """Return sizes in lots: half of them one lot, a fifth ten, few large."""
        share, rest = words % 100, words // 100
        return np.where(
            share < 50, 1, np.where(share < 78, 2 + rest % 8, np.where(share < 98, 10, 20 + rest % 81))
        ).astype(np.int64)

    def lifetimes(self, words: Integers, *, patient: bool = False) -> Integers:
        """Return lifetimes in ns, P(T > t) ~ (1 + t / lifetime_ns)^-1/2, cut off; of the patient the longest 1/16."""
        shape = self.shape
        least = 1.0 / sqrt(1.0 + shape.lifetime_max_ns / shape.lifetime_ns)  # the share that would outlive the longest
        left = least + (1.0 - least) * ((WORD - words) / (16.0 * WORD if patient else 1.0 * WORD))
        lifetimes: Integers = (shape.lifetime_ns * (1.0 / (left * left) - 1.0)).astype(np.int64)
        return lifetimes + 1

    def make_faulty(self, sent: "_Events", chosen: Integers, what: Integers, instrument: Integers, faulty: int) -> None:
        """Spoil a few orders, each in one of the ways that clients find."""
        market, orders = self.market, self.orders
        for index in np.flatnonzero(chosen < WORD // PROBABILITY * faulty).tolist():
            way, choice = int(what[index]) % 10, int(what[index]) // 10
            tick = int(market.tick[instrument[index]])
            if way == 0:
                sent.quantity[index] = 0
            elif way == 1:
                sent.price[index] += 1 if tick > 1 else 1 << 40
            elif way == 2:
                sent.quantity[index] += 1 if market.lot[instrument[index]] > 1 else 1 << 31
            elif way == 3:
                sent.price[index] = market.low[instrument[index]] - tick
            elif way == 4:
                sent.instrument[index] = self.shape.instruments + 1 + choice % 100
            elif way == 5:
                sent.b[index] = 4 + choice % 8
            elif way == 6:
                sent.c[index] = MARKET | POST_ONLY
            elif way == 7 and orders.count and orders.leaves[choice % orders.count]:
                row = choice % orders.count  # the same order once more; if it is gone by then, a new one
                sent.ident[index] = orders.ident(np.array([row]))[0]
                sent.instrument[index], sent.a[index] = orders.instrument[row] + 1, orders.side[row]
                sent.b[index], sent.c[index] = GTC, 0
                sent.price[index] = market.price(orders.instrument[row], orders.level[row])
                sent.quantity[index] = orders.leaves[row]
            else:  # a cancel of what never was
                sent.kind[index] = CANCEL_ORDER
                sent.a[index] = sent.b[index] = sent.c[index] = sent.price[index] = sent.quantity[index] = 0
                sent.ident[index] += 1 << 38

    def end_lifetimes(self, end: int, first: int, quantity: Integers) -> "_Events":
        """Return the cancels and replaces due before `end`; rows from `first` on were made in this window."""
        shape, market, orders = self.shape, self.market, self.orders
        rows = np.flatnonzero(orders.ends < end)
        words = self.words.draw(6, len(rows))
        # What has gone is left alone, but some senders do not know yet.
        wanted = (orders.leaves[rows] > 0) | (rows >= first) | (words[0] < WORD // 10)
        time = orders.ends[rows][wanted]
        orders.ends[rows] = NEVER
        rows, words = rows[wanted], words[:, wanted]

        events = _Events(len(rows), 0, CANCEL_ORDER)
        events.time[:] = time
        events.instrument[:] = orders.instrument[rows] + 1
        events.ident[:] = orders.ident(rows)

        chosen = (words[1] < WORD // PROBABILITY * shape.replaced) & ~self.is_halted(orders.instrument[rows], time)
        at, words = np.flatnonzero(chosen), words[:, chosen]
        rows, time = rows[at], time[at]
        instrument, side = orders.instrument[rows], orders.side[rows]
        outward = 2 * side - 3
        lot = market.lot[instrument]
        made = rows >= first
        filled = np.where(made, 0, orders.filled[rows])
        leaves = orders.leaves[rows]
        leaves[made] = quantity[rows[made] - first]
        lots = np.maximum(leaves // lot, 1)

        way = words[2] % 100
        lots = np.where(way < 35, np.maximum(lots // 2, 1), np.where(way < 50, lots + 1 + words[3] % 5, lots))
        total = np.where(way < 4, lot, filled + lots * lot)  # a total that has no regard to what is filled
        far = np.where(side == BUY, market.ask[instrument], market.bid[instrument])
        far = np.where((far < 0) | (far >= market.width), market.reference[instrument], far)
        moved = self.passive_level(instrument, side, outward, words[3], words[4])
        level = np.where(way < 50, orders.level[rows], np.where(way < 90, moved, far))
        how = words[5] % 100
        post_only = (way >= 50) & (how < 14)
        flags = POST_ONLY * post_only + SLIDE * (post_only & (how < 6))

        events.kind[at] = REPLACE_ORDER
        events.a[at] = np.where(how == 99, BUY + SELL - side, side)  # a sender who mistakes the side
        events.b[at] = GTC
        events.c[at] = flags | orders.account[rows] % 5 << SELF_TRADE_SHIFT
        events.price[at] = market.price(instrument, level)
        events.quantity[at] = total
        orders.ends[rows] = np.maximum(time + self.lifetimes(words[0]), end)
        return events

    def is_halted(self, instrument: Integers, time: Integers) -> NDArray[np.bool_]:
        """Say of each place and time whether a halt is planned there."""
        halted = np.zeros(len(time), dtype=np.bool_)
        for number, since, until in self.halted:
            halted |= (instrument == number) & (time >= since) & (time < until)
        return halted

    def merge(self, events: "list[_Events]") -> Records:
        """Return the records of all events by time; of equal times, those listed first come first."""
        time = np.concatenate([some.time for some in events])
        order = np.argsort(time, kind="stable")
        records = np.zeros(len(order), RECORD_DTYPE)
        command = records["command"]
        for name, column in _COLUMNS.items():
            command[column] = np.concatenate([getattr(some, name) for some in events])[order]
        records["sequence"] = np.arange(self.sequence + 1, self.sequence + 1 + len(order))
        records["time_ns"] = time[order]
        records["kind"] = command["kind"]
        records["size"] = np.where(np.isin(command["kind"], LONG_COMMANDS), 32, 16)
        self.sequence += len(order)
        return records

    # ------------------------------------------------------------------------------------------------ learning

    def learn(self, reports: Records) -> None:
        """Take the reports of a window: what they say of orders changes the columns, and those the levels."""
        orders, market = self.orders, self.market
        kind, quantity = reports["kind"], reports["quantity"].astype(np.int64)
        position = np.arange(len(reports))
        row, known = orders.find(reports["order_id"])
        maker, known_maker = orders.find(reports["contra_id"])
        entered = np.flatnonzero(known & (kind == ReportKind.NEW))
        replaced = np.flatnonzero(known & (kind == ReportKind.REPLACED))
        took = np.flatnonzero(known & (kind == ReportKind.TRADE))
        made = np.flatnonzero(known_maker & (kind == ReportKind.TRADE))
        gone = np.flatnonzero(known & ((kind == ReportKind.CANCELED) | (kind == ReportKind.EXPIRED)))

        # One line for each thing that happened to one order.
        rows = np.concatenate([row[entered], row[took], maker[made], row[gone], row[replaced]])
        if not len(rows):
            return
        when = np.concatenate([entered, took, made, gone])
        change = np.concatenate([quantity[entered], -quantity[took], -quantity[made], -quantity[gone]])
        touched, index = np.unique(rows, return_inverse=True)
        of_change, of_replace = index[: len(when)], index[len(when) :]

        # A replace says what an order has from then on, so only changes after the last one count.
        since = np.full(len(touched), -1)
        np.maximum.at(since, of_replace, position[replaced])
        leaves, level = orders.leaves[touched], orders.level[touched]
        prices = reports["price"]
        of_new = of_change[: len(entered)]
        level[of_new] = market.level(orders.instrument[touched[of_new]], prices[entered])
        final = replaced == since[of_replace]
        of_final, final = of_replace[final], replaced[final]
        level[of_final] = market.level(orders.instrument[touched[of_final]], prices[final])
        leaves[of_final] = reports["leaves"][final]
        counts = when > since[of_change]
        np.add.at(leaves, of_change[counts], change[counts])
        fills = slice(len(entered), len(entered) + len(took) + len(made))
        np.add.at(orders.filled, touched[of_change[fills]], -change[fills])

        market.add(orders.instrument[touched], orders.side[touched], orders.level[touched], -orders.leaves[touched])
        market.add(orders.instrument[touched], orders.side[touched], level, leaves)
        market.find_touch(np.unique(orders.instrument[touched]))
        orders.leaves[touched], orders.level[touched] = leaves, level
        # An order that outlived its cancel, because its id was used once more, gets another.
        outlived = touched[(leaves > 0) & (orders.ends[touched] == NEVER)]
        orders.ends[outlived] = self.time_ns + 1_000_000_000
        orders.forget()


class _Arrivals:
    """Who wants to do something: time, instrument index, account index and side, a column each."""

    def __init__(self, time: Integers, instrument: Integers, account: Integers, side: Integers) -> None:
        self.time, self.instrument, self.account, self.side = time, instrument, account, side

    @staticmethod
    def none() -> "_Arrivals":
        """Return nobody."""
        return _Arrivals(*(np.zeros(0, dtype=np.int64) for _ in range(4)))

    @staticmethod
    def join(some: "list[_Arrivals]") -> "_Arrivals":
        """Return all of some groups."""
        names = ("time", "instrument", "account", "side")
        return _Arrivals(*(np.concatenate([getattr(one, name) for one in some]) for name in names))

    def choose(self, which: Any) -> "_Arrivals":
        """Return those that a mask or an array of places chooses."""
        return _Arrivals(self.time[which], self.instrument[which], self.account[which], self.side[which])


_COLUMNS: Final = {
    "kind": "kind",
    "a": "side",
    "b": "time_in_force",
    "c": "flags",
    "instrument": "instrument",
    "ident": "order_id",
    "price": "price",
    "quantity": "quantity",
    "display": "display",
}
"""The columns of events, and the fields of the common command shape that they fill."""


class _Events:
    """Commands to be, in the common shape, with their times; a column each."""

    def __init__(self, count: int, time: int, kind: int) -> None:
        self.time = np.full(count, time, dtype=np.int64)
        self.kind = np.full(count, kind, dtype=np.int64)
        self.a, self.b, self.c, self.instrument, self.ident, self.price, self.quantity, self.display = np.zeros(
            (8, count), dtype=np.int64
        )


class _Orders:
    """The orders that rest or may, by ascending number, in columns that grow by doubling."""

    NAMES: Final = ("number", "account", "instrument", "side", "level", "ends", "leaves", "filled")

    def __init__(self) -> None:
        self.count = 0
        self.table = np.zeros((len(self.NAMES), 4096), dtype=np.int64)
        self.name_columns()

    def name_columns(self) -> None:
        """Let the names show the rows in use."""
        used = self.table[:, : self.count]
        self.number, self.account, self.instrument, self.side, self.level, self.ends, self.leaves, self.filled = used

    def append(self, *columns: Integers) -> None:
        """Add orders by number, account, instrument, side, level and end; nothing of them rests yet."""
        first, self.count = self.count, self.count + len(columns[0])
        if self.count > self.table.shape[1]:
            grown = np.zeros((len(self.NAMES), 2 * self.count), dtype=np.int64)
            grown[:, :first] = self.table[:, :first]
            self.table = grown
        self.table[:, first : self.count] = 0
        for place, column in enumerate(columns):
            self.table[place, first : self.count] = column
        self.name_columns()

    def find(self, order_ids: Integers) -> tuple[Integers, NDArray[np.bool_]]:
        """Return the row of each order id, and whether there is one."""
        number = order_ids & REFERENCE_MAX
        if not self.count:
            return number, np.zeros(len(number), dtype=np.bool_)
        row = np.minimum(np.searchsorted(self.number, number), self.count - 1)
        return row, self.number[row] == number

    def ident(self, rows: Integers) -> Integers:
        """Return the order ids of rows."""
        ids: Integers = (self.account[rows] + 1) << ACCOUNT_SHIFT | self.number[rows]
        return ids

    def forget(self) -> None:
        """Drop what has gone, once it is most of the table."""
        alive = self.leaves > 0
        living = int(np.count_nonzero(alive))
        if self.count > 2 * living + 4096:
            kept = self.table[:, : self.count][:, alive]
            self.count = living
            self.table[:, :living] = kept
            self.name_columns()


class _Market:
    """The instruments, and what the reports say of their books: the quantity of each level, and the touch."""

    # tick, lot, middle of the band in ticks: shares in cents, coarser ones, a bond, a spread around zero
    KINDS: Final = ((1, 1, 150_000), (5, 10, 40_000), (25, 100, 9_000), (10, 5, 0))

    def __init__(self, shape: Shape, words: "_Words") -> None:
        self.width = 2 * shape.half_width + 1
        kinds = [self.KINDS[index % len(self.KINDS)] for index in range(shape.instruments)]
        self.tick = np.array([tick for tick, _, _ in kinds], dtype=np.int64)
        self.lot = np.array([lot for _, lot, _ in kinds], dtype=np.int64)
        middle = np.array([middle for _, _, middle in kinds], dtype=np.int64)
        self.low = (middle - shape.half_width) * self.tick
        self.reference = np.full(shape.instruments, shape.half_width, dtype=np.int64)
        self.bid = np.full(shape.instruments, -1, dtype=np.int64)  # no bid: below the band
        self.ask = np.full(shape.instruments, self.width, dtype=np.int64)  # no ask: above the band
        self.quantities = np.zeros((2, shape.instruments, self.width), dtype=np.int64)
        self.by_rank = np.argsort(words.draw(1, shape.instruments)[0], kind="stable")  # an activity's rank is no number

    def price(self, instrument: Integers, level: Integers) -> Integers:
        """Return prices of levels."""
        return self.low[instrument] + level * self.tick[instrument]

    def level(self, instrument: Integers, price: Integers) -> Integers:
        """Return levels of prices."""
        return (price - self.low[instrument]) // self.tick[instrument]

    def add(self, instrument: Integers, side: Integers, level: Integers, quantity: Integers) -> None:
        """Add quantities to levels."""
        np.add.at(self.quantities, (side - BUY, instrument, level), quantity)

    def find_touch(self, instruments: Integers) -> None:
        """Find the best levels of some instruments again."""
        for instrument in instruments.tolist():
            bids = np.flatnonzero(self.quantities[0, instrument])
            asks = np.flatnonzero(self.quantities[1, instrument])
            bid = self.bid[instrument] = bids[-1] if len(bids) else -1
            ask = self.ask[instrument] = asks[0] if len(asks) else self.width
            if len(bids) and len(asks):
                self.reference[instrument] = (bid + ask) // 2
            elif len(bids) or len(asks):
                self.reference[instrument] = bid if len(bids) else ask


class _Words:
    """Random words of 32 bits: SplitMix64, of which one step is a sum and so a whole array is one, too."""

    GAMMA: Final = 0x9E3779B97F4A7C15

    def __init__(self, seed: int) -> None:
        self.state = seed
        self.steps = np.arange(1, 1 << 12, dtype=np.uint64) * np.uint64(self.GAMMA)

    def draw(self, rows: int, count: int) -> Integers:
        """Return words, 0 .. 2^32-1, in an array of so many rows and columns."""
        steps = (rows * count + 1) // 2
        if steps > len(self.steps):
            self.steps = np.arange(1, 2 * steps, dtype=np.uint64) * np.uint64(self.GAMMA)
        z = self.steps[:steps] + np.uint64(self.state)
        self.state = (self.state + steps * self.GAMMA) % (1 << 64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        words = np.concatenate([z >> np.uint64(32), z & np.uint64(WORD - 1)]).astype(np.int64)
        return words[: rows * count].reshape(rows, count)


# ------------------------------------------------------------------------------------------------------ the tables


def _thresholds(weights: list[int]) -> Integers:
    """Return where to cut the words 0 .. 2^32-1 so that the parts have these weights; one cut less than parts."""
    total, below, cuts = sum(weights), 0, []
    for weight in weights[:-1]:
        below += weight
        cuts.append(below * WORD // total)
    return np.array(cuts, dtype=np.int64)


def _zipf(count: int) -> Integers:
    """Return the cuts of a Zipf distribution: the second is half as likely as the first, the third a third."""
    return _thresholds([10**12 // rank for rank in range(1, count + 1)])


@lru_cache(maxsize=8)
def _distances(offset: int, count: int) -> Integers:
    """Return the cuts of P(d) ~ (d + offset)^-1.6 for d of 0 .. count-1."""
    exact = Context(prec=20)
    exponent = Decimal("-1.6")
    weights = [exact.exp(exact.multiply(exponent, exact.ln(Decimal(d + offset)))) for d in range(count)]
    return _thresholds([int(exact.scaleb(weight, 18)) for weight in weights])
