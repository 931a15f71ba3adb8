"""The two engines give the same bytes: every report of every command, every snapshot, and after any restart (DET-6)."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrox.engine import Capacity, make_engine
from ferrox.errors import SequenceError, SnapshotCorrupt
from ferrox.fast import COMPILED, FastEngine
from ferrox.fast.ahead import DEEP
from ferrox.messages import RECORD_SIZE, CancelOrder, Command, DefineInstrument, MassCancel, NewOrder, ReplaceOrder
from ferrox.reference import ReferenceEngine
from ferrox.terms import (
    INSTRUMENT_MAX,
    PRICE_MAX,
    SEQUENCE_MAX,
    OrderFlag,
    Scope,
    SelfTrade,
    Side,
    TimeInForce,
    TradingState,
)
from ferrox.testing.machine import EngineMachine
from ferrox.testing.sessions import apply_all, to_record, to_records
from ferrox.testing.strategies import World, batch_splits, hostile_streams, records, streams
from ferrox.testing.workload import Workload

SMALL = Capacity(orders=6, instruments=2)
SCALE = 1 if COMPILED else 20  # interpreted columns are about a hundred times slower
WORLDS = (
    World(),
    World(low=-3, high=3, accounts=1, references=8),
    World(instruments=1, low=0, high=1, quantity_max=2),
    World(instruments=3, accounts=3, references=2, quantity_max=2**31 - 6),
)
BUY, SELL = int(Side.BUY), int(Side.SELL)
GTC, IOC, FOK = map(int, TimeInForce)


class Both:
    """Both engines behind one seam, each answering for the other."""

    def __init__(self, capacity: Capacity = SMALL) -> None:
        self.reference = ReferenceEngine(capacity)
        self.fast = FastEngine(capacity.orders, capacity.instruments)

    def apply(self, records: bytes) -> tuple[int, memoryview]:
        """Apply to both, and compare every byte."""
        expected = apply_all(self.reference, records)
        got = apply_all(self.fast, records)
        assert got == expected
        return len(records) // RECORD_SIZE, memoryview(expected)

    def snapshot(self) -> bytes:
        """Compare the snapshots, and return them."""
        snapshot = self.reference.snapshot()
        assert self.fast.snapshot() == snapshot
        return snapshot

    def restore(self, snapshot: bytes) -> None:
        """Restore both, or see both refuse."""
        try:
            self.reference.restore(snapshot)
        except SnapshotCorrupt:
            with pytest.raises(SnapshotCorrupt):
                self.fast.restore(snapshot)
            raise
        self.fast.restore(snapshot)

    def check(self) -> None:
        """Assert the invariants of both."""
        self.reference.check()
        self.fast.check()


class AgreementMachine(EngineMachine):
    """Every rule of the machine, sent to both engines, with the laws held on top."""

    capacity = SMALL

    def engine(self):
        return Both(self.capacity)


class WideAgreementMachine(AgreementMachine):
    """The same where levels lie far apart, so that blocks and their tree come and go."""

    capacity = Capacity(orders=30, instruments=3)
    world = World(instruments=3, low=-PRICE_MAX, high=-PRICE_MAX + 4000, accounts=2, references=30)


# Every restart makes two engines, which takes 30 ms interpreted, and a wide book is slow to check.
AgreementMachine.TestCase.settings = settings(
    settings(), max_examples=settings().max_examples // (1 if COMPILED else 4)
)
WideAgreementMachine.TestCase.settings = settings(settings(), max_examples=settings().max_examples // 4)
TestTheEnginesAgreeUnderEveryRule = AgreementMachine.TestCase
TestTheEnginesAgreeWhereLevelsLieFarApart = WideAgreementMachine.TestCase


@given(st.data())
def test_the_engines_agree_on_any_stream_in_any_batches(data):
    stream = st.sampled_from(WORLDS).flatmap(streams)
    hostile = st.sampled_from(WORLDS).flatmap(hostile_streams)
    given_records = data.draw(st.one_of(records(stream), records(hostile, wrong_envelopes=True)))
    both = Both()

    start = 0
    for size in data.draw(batch_splits(len(given_records) // RECORD_SIZE)):
        both.apply(given_records[start : start + size * RECORD_SIZE])
        start += size * RECORD_SIZE

    both.snapshot()
    both.check()


@given(st.data())
def test_either_engine_goes_on_from_the_others_snapshot(data):
    given_records = data.draw(records(st.sampled_from(WORLDS).flatmap(hostile_streams)))
    at = RECORD_SIZE * data.draw(st.integers(0, len(given_records) // RECORD_SIZE))
    first, second = Both(), Both()
    first.apply(given_records[:at])

    second.reference.restore(first.fast.snapshot())
    second.fast.restore(first.reference.snapshot())

    assert second.apply(given_records[at:])[1] == first.apply(given_records[at:])[1]
    assert second.snapshot() == first.snapshot()


@given(st.data())
def test_both_engines_refuse_the_same_snapshots_and_keep_their_state(data):
    both = Both()
    both.apply(data.draw(records(st.sampled_from(WORLDS).flatmap(streams))))
    snapshot = both.snapshot()
    damaged = bytearray(snapshot)
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))

    try:
        both.restore(bytes(damaged))
    except SnapshotCorrupt:
        assert both.snapshot() == snapshot
    else:
        assert both.snapshot() == bytes(damaged)
    both.check()


def test_both_engines_refuse_a_record_out_of_sequence():
    for sequence in (0, 2, 2**50, -1):
        for name in ("reference", "fast"):
            engine = make_engine(name, SMALL)
            with pytest.raises(SequenceError, match=f"at sequence 0 and was given record {sequence}"):
                engine.apply(to_records([CancelOrder(1, 1).pack()], sequence))
            assert engine.snapshot() == make_engine(name, SMALL).snapshot()


def test_both_engines_take_the_last_sequence_number_and_none_after_it():
    """DET-3, LIM-11: a snapshot near the end, a batch over it, and the snapshot that comes of it."""
    both = Both()
    snapshot = bytearray(both.snapshot())
    snapshot[16:24] = (SEQUENCE_MAX - 2).to_bytes(8, "little")
    both.restore(bytes(snapshot))
    define = DefineInstrument(int(TradingState.OPEN), 1, 0, 9, 1, 1).pack()
    given_records = b"".join(to_record(SEQUENCE_MAX - 1 + n, define, time_ns=7) for n in range(3))

    for engine in (both.reference, both.fast):
        assert engine.apply(given_records)[0] == 2
        with pytest.raises(SequenceError):
            engine.apply(given_records[2 * RECORD_SIZE :])

    both.restore(both.snapshot())


def test_the_engines_agree_when_a_deep_book_is_looked_ahead_in(monkeypatch):
    """Commands of every kind, sense and nonsense, over more resting orders than it takes for looking ahead."""
    if not COMPILED:
        monkeypatch.setattr("ferrox.fast.engine.DEEP", 100)
    rng = random.Random(6)
    count = 1_000 if not COMPILED else DEEP + 4_000
    both = Both(Capacity(orders=2 * count, instruments=2))
    both.apply(to_records([DefineInstrument(int(TradingState.OPEN), n, -(10**6), 10**6, n, 1).pack() for n in (1, 2)]))
    ids = list(range(1, count + 1))
    rng.shuffle(ids)
    send(
        both, [NewOrder(BUY, GTC, 0, 1 + n % 2, order_id, -2 * (n % (count // 7)), 3) for n, order_id in enumerate(ids)]
    )

    frames = []
    for _ in range(6_000 // SCALE):
        order_id = rng.choice([rng.choice(ids), rng.randrange(1, 2**63), rng.randrange(-(2**63), 0)])
        instrument = rng.choice([0, 1, 1, 2, 2, 3, INSTRUMENT_MAX, 2**32 - 1])
        price = rng.choice([-rng.randrange(2 * count // 7), rng.randrange(-(2**63), 2**63)])
        side, flags = rng.choice([0, 1, 1, 2, 2, 3, 255]), rng.choice([0, 0, 1, 255])
        commands: list[Command] = [
            CancelOrder(instrument, order_id),
            ReplaceOrder(side, GTC, flags, instrument, order_id, price, 2),
            ReplaceOrder(side, GTC, 0, instrument, order_id, price, 4),
            NewOrder(side, GTC, flags, instrument, order_id, price, 5),
            NewOrder(side, IOC, 0, instrument, order_id, price, 6),
        ]
        frames.append(rng.choice(commands).pack())
        frames.append(rng.randbytes(32))
    both.apply(to_records(frames, both.reference.sequence + 1))

    both.snapshot()
    both.check()


def test_the_engines_agree_on_a_realistic_flow():
    both = Both(Workload(5, 1).capacity())

    for chunk in Workload(5, 60_000 // SCALE):
        both.apply(chunk.tobytes())

    both.snapshot()
    both.check()


def test_the_engines_agree_on_every_tiny_world():
    """Every sequence of three commands out of 34, about 39,000 worlds compiled (a tenth of them interpreted).

    Each world begins where the one before was cleared by a mass cancel, so that slots and levels are used again.
    """
    orders = [
        NewOrder(side, time_in_force, flags, 1, (side % 2) << 40 | reference, price, quantity)
        for reference, side, price, quantity, (time_in_force, flags) in (
            (1, BUY, 100, 1, (GTC, 0)),
            (1, BUY, 101, 2, (GTC, 0)),
            (1, SELL, 100, 2, (GTC, 0)),
            (1, SELL, 101, 1, (GTC, 0)),
            (2, BUY, 100, 2, (GTC, 0)),
            (2, BUY, 101, 1, (IOC, 0)),
            (2, BUY, 101, 3, (FOK, 0)),
            (2, BUY, 101, 1, (GTC, int(OrderFlag.POST_ONLY))),
            (2, BUY, 101, 1, (GTC, int(OrderFlag.POST_ONLY | OrderFlag.SLIDE))),
            (2, BUY, 0, 3, (IOC, int(OrderFlag.MARKET))),
            (2, SELL, 100, 1, (GTC, 0)),
            (2, SELL, 100, 3, (FOK, 0)),
            (2, SELL, 100, 1, (GTC, int(OrderFlag.POST_ONLY | OrderFlag.SLIDE))),
        )
    ]
    own: list[Command] = [NewOrder(SELL, GTC, mode << 4, 1, 3, 100, 2) for mode in range(len(SelfTrade))]
    own += [NewOrder(BUY, FOK, mode << 4, 1, 1 << 40 | 4, 101, 2) for mode in range(len(SelfTrade))]
    changes: list[Command] = [
        ReplaceOrder(side, GTC, flags, 1, order_id, price, quantity)
        for side, order_id in ((BUY, 1 << 40 | 1), (SELL, 1))
        for flags, price, quantity in ((0, 100, 1), (0, 101, 2), (0, 100, 3), (6, 101, 1))
    ]
    cancels: list[Command] = [CancelOrder(1, 1), CancelOrder(1, 1 << 40 | 1), MassCancel(int(Scope.ACCOUNT), 0, 1)]
    commands: list[Command] = [*orders, *own, *changes, *cancels]
    frames = [command.pack() for command in commands]
    clear = MassCancel(int(Scope.VENUE)).pack()
    both = Both(Capacity(orders=2, instruments=1))
    both.apply(to_records([DefineInstrument(int(TradingState.OPEN), 1, 99, 102, 1, 1).pack()], 1))

    worlds = list(itertools.product(frames, repeat=3))[:: max(1, SCALE // 2)]
    for index, world in enumerate(worlds):
        both.apply(to_records([*world, clear], 2 + 4 * index))

    assert len(frames) == 34
    both.check()


def open_both(count, low=-PRICE_MAX, high=PRICE_MAX):
    both = Both(Capacity(orders=count, instruments=1))
    both.apply(to_records([DefineInstrument(int(TradingState.OPEN), 1, low, high, 1, 1).pack()], 1))
    return both


def send(both, commands):
    both.apply(to_records([command.pack() for command in commands], both.reference.sequence + 1))


HOSTILE_IDS = {
    "one after another": lambda n: n + 1,
    "multiples of a power of two": lambda n: (n + 1) << 30,
    "equal low bits": lambda n: n << 20 | 0xFFFFF,
    "one bit each": lambda n: 1 << n % 62 | n,
    "the highest there are": lambda n: 2**63 - 1 - n,
}


@pytest.mark.parametrize("name", HOSTILE_IDS)
def test_the_engines_agree_on_ids_made_to_flood_an_index(name):
    count = 4_000 // SCALE
    ids = list(dict.fromkeys(HOSTILE_IDS[name](n) for n in range(count)))
    both = open_both(count)

    send(both, [NewOrder(BUY, GTC, 0, 1, order_id, 100 + order_id % 3, 1) for order_id in ids])
    both.check()
    random.Random(3).shuffle(ids)
    send(both, [CancelOrder(1, order_id) for order_id in ids[: count // 2]])

    both.snapshot()
    both.check()


def spread_out(count):
    """Prices over the whole band, so that no two share a block."""
    return [-PRICE_MAX + n * (2 * PRICE_MAX // count) for n in range(count)]


def alternate_ends(count):
    """Prices from both ends of the band towards the middle."""
    return [sign * (PRICE_MAX - n) for n in range(count // 2) for sign in (-1, 1)]


def powers(count):
    """Prices that differ in one bit each, the deepest tree of blocks there is."""
    return sorted({sign * (1 << n % 40) + n // 40 for n in range(count // 2) for sign in (-1, 1)})


@pytest.mark.parametrize("prices_of", [spread_out, alternate_ends, powers])
@pytest.mark.parametrize("side", [BUY, SELL])
def test_the_engines_agree_on_one_order_a_level_over_the_whole_band(prices_of, side):
    prices = prices_of(2_000 // SCALE)
    random.Random(4).shuffle(prices)
    both = open_both(len(prices))

    send(both, [NewOrder(side, GTC, 0, 1, n + 1, price, 1) for n, price in enumerate(prices)])
    both.check()
    best_first = sorted(range(len(prices)), key=prices.__getitem__, reverse=side == BUY)
    send(both, [CancelOrder(1, n + 1) for n in best_first[: len(prices) // 2]])
    both.check()
    send(both, [NewOrder(3 - side, IOC, int(OrderFlag.MARKET), 1, 1, 0, len(prices))])

    both.snapshot()
    both.check()


def test_the_engines_agree_on_a_sweep_of_a_hundred_thousand_makers():
    count = 100_000 // SCALE
    both = open_both(count)
    send(both, [NewOrder(SELL, GTC, 0, 1, n + 1, 100 + n % 700, 1 + n % 3) for n in range(count)])

    send(both, [NewOrder(BUY, FOK, 0, 1, 2**40, 100 + 699, 2**31 - 1)])
    send(both, [NewOrder(BUY, IOC, 0, 1, 2**40, 100 + 499, 2**31 - 1)])
    both.check()
    send(both, [NewOrder(BUY, GTC, int(SelfTrade.CANCEL_MAKER) << 4, 1, 2**40 - 1, 900, 1)])

    both.snapshot()
    both.check()


def test_the_engines_agree_on_instruments_in_any_order():
    """Snapshots and mass cancels go through the books by instrument, however they were defined."""
    numbers = random.Random(5).sample(range(1, INSTRUMENT_MAX + 1), 3_000 // SCALE)
    numbers += [n for n in (1, 2, INSTRUMENT_MAX) if n not in numbers]
    both = Both(Capacity(len(numbers), len(numbers)))

    both.apply(to_records([DefineInstrument(int(TradingState.OPEN), n, 0, 9, 1, 1).pack() for n in numbers], 1))
    send(both, [NewOrder(BUY, GTC, 0, n, 1 + at, 5, 1) for at, n in enumerate(numbers)])
    both.snapshot()
    both.check()
    send(both, [MassCancel(int(Scope.VENUE))])

    both.snapshot()
    both.check()


def test_a_batch_stops_before_the_report_buffer_could_overflow_and_nothing_is_lost():
    """Two reports a maker (decrement) are the worst a command can do; the batch goes on in the next call."""
    count = 500 // SCALE
    both = open_both(count)
    frames = []
    for _ in range(8):
        frames += [NewOrder(SELL, GTC, 0, 1, n + 1, 100, 1).pack() for n in range(count)]
        frames += [NewOrder(BUY, IOC, int(SelfTrade.DECREMENT) << 4, 1, 2**39, 100, count).pack()]
    given_records = to_records(frames, 2)

    taken, _ = both.fast.apply(given_records)
    both.reference.apply(given_records[: taken * RECORD_SIZE])

    assert 0 < taken < len(frames)
    both.apply(given_records[taken * RECORD_SIZE :])
    both.snapshot()
