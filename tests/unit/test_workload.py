"""The simulated flow: the same bytes for the same seed, and shaped as its docstring says."""

import hashlib
import subprocess
import sys
import tracemalloc
from collections import Counter
from functools import lru_cache

import numpy as np
import pytest

from ferrox.decode import frame_fault
from ferrox.engine import Capacity, make_engine
from ferrox.errors import UsageError
from ferrox.messages import RECORD_DTYPE, REPORT_DTYPE
from ferrox.state import unpack_state
from ferrox.terms import (
    REFERENCE_MAX,
    SELF_TRADE_MASK,
    SELF_TRADE_SHIFT,
    CommandKind,
    OrderFlag,
    Reason,
    ReportKind,
    Scope,
    SelfTrade,
    Side,
    TimeInForce,
    TradingState,
    account_of,
)
from ferrox.testing.workload import PRESETS, Shape, Workload, _distances, _Flow, _Words, applier

SEED = 20_261_123
COUNT = 150_000
DIGESTS = {
    "default": "96f91c696797d505ded2bd90ec25ebd0119a156638ab70ae2a6ef861047cc37c",
    "calm": "543051b5d805f5e213eb23bc1a9ccb2eccebef93d151ccb4a5bba1de411b051a",
    "deep": "56d3a27cfa7c75057a7d9d1e29a8f1d053a42af6b4d0653a607836893b1de39f",
    "sweep": "653bde8dc777634ae8cb548207200b19c153eef396ac0c9a3b5586032eb991e2",
    "many": "5e4b150d9fd2fa940fef2e1d3669965cded2d78380004d891275edab8765cbe4",
}


def digest(workload: Workload) -> str:
    return hashlib.sha256(b"".join(records.tobytes() for records in workload)).hexdigest()


@lru_cache(maxsize=2)
def played(preset: str = "default", count: int = COUNT):
    """Return records, reports and final state of a flow."""
    workload = Workload(SEED, count, preset)
    engine = make_engine("reference", workload.capacity())
    carry_out, answers = applier(engine), []

    def apply(records: bytes) -> bytes:
        answers.append(carry_out(records))
        return answers[-1]

    records = np.concatenate(list(workload.chunks(apply)))
    return records, np.frombuffer(b"".join(answers), REPORT_DTYPE), unpack_state(engine.snapshot())


# ------------------------------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize("preset", PRESETS)
def test_a_seed_gives_these_very_bytes(preset: str):
    """DET-1.  A change here changes every published figure over simulated flows: say so in the change log."""
    count = 250_000 if preset == "deep" else 20_000

    assert digest(Workload(SEED, count, preset)) == DIGESTS[preset]


def test_another_seed_gives_another_flow():
    assert digest(Workload(SEED + 1, 3_000)) != digest(Workload(SEED, 3_000))


def test_a_workload_can_be_iterated_again():
    workload = Workload(SEED, 3_000)

    assert digest(workload) == digest(workload)


def test_the_hash_seed_of_the_process_does_not_matter():
    program = (
        "import hashlib; from ferrox.testing.workload import Workload; "
        f"print(hashlib.sha256(b''.join(records.tobytes() for records in Workload({SEED}, 5_000))).hexdigest())"
    )

    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1", "4242")
    }

    assert digests == {digest(Workload(SEED, 5_000))}


@pytest.mark.parametrize("count", [0, 1, 7, 900, 3_001, 20_000])
def test_a_shorter_flow_is_the_beginning_of_a_longer_one(count: int):
    longer = np.concatenate(list(Workload(SEED, 25_000)))

    shorter = [*Workload(SEED, count)]

    assert b"".join(records.tobytes() for records in shorter) == longer[:count].tobytes()


def test_either_engine_closes_the_loop_alike():
    """DET-6."""
    workload = Workload(SEED, 4_000)

    chunks = workload.chunks(applier(make_engine("fast", Capacity(1 << 14, 16))))

    assert hashlib.sha256(b"".join(records.tobytes() for records in chunks)).hexdigest() == digest(workload)


def test_the_words_are_those_of_splitmix64():
    """The first outputs for seed 1234567, as the algorithm's authors' reference code gives them."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]

    words = _Words(1234567)

    high, low = words.draw(2, 5).tolist()
    assert [upper << 32 | lower for upper, lower in zip(high, low, strict=True)] == expected
    assert words.draw(1, 1)[0, 0] == _Words(1234567).draw(2, 6)[0, 5]


def test_memory_does_not_grow_with_the_count():
    workload = Workload(SEED, 60_000, shape=Shape(instruments=2, prefill=20, lifetime_max_ns=1_000_000_000))
    peaks = []

    tracemalloc.start()
    for index, _ in enumerate(workload):
        if index % 20 == 19:
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.reset_peak()
    tracemalloc.stop()

    assert len(peaks) >= 2
    assert peaks[-1] < 1.3 * peaks[0] + 1_000_000


# ----------------------------------------------------------------------------------------------------- records


def test_records_are_whole_and_in_sequence():
    """DET-3, WIRE-7."""
    records, _, _ = played()

    assert records.dtype == RECORD_DTYPE
    assert len(records) == COUNT
    assert (records["sequence"] == np.arange(1, COUNT + 1)).all()
    assert (records["kind"] == records["command"]["kind"]).all()
    assert (np.diff(records["time_ns"]) >= 0).all()
    assert records["time_ns"][0] > 0
    assert not records["crc"].any()
    assert set(records["size"][np.isin(records["kind"], (1, 3, 5))].tolist()) == {32}
    assert set(records["size"][np.isin(records["kind"], (2, 4, 6))].tolist()) == {16}


def test_the_instruments_are_defined_first_and_differ():
    records, reports, state = played()
    count = PRESETS["default"].instruments

    first = records["command"][:count]

    assert set(first["kind"].tolist()) == {CommandKind.DEFINE_INSTRUMENT}
    assert first["instrument"].tolist() == list(range(1, count + 1))
    assert set(reports["kind"][:count].tolist()) == {ReportKind.INSTRUMENT_DEFINED}
    for name in ("tick", "lot", "band_low"):
        assert len({getattr(definition, name) for definition in state.instruments}) > 2, name
    assert min(definition.band_low for definition in state.instruments) < 0
    assert any(order.price < 0 for order in state.orders)


def test_every_word_of_the_wire_occurs():
    records, reports, _ = played()
    command = records["command"]
    new = command[(records["kind"] == CommandKind.NEW_ORDER)]
    answered = reports["reason"][np.isin(reports["kind"], (6, 7, 8))]

    # A limit is the gateway's to keep, and a flow has none: the digests of the flows stay what they were.
    assert set(records["kind"].tolist()) == set(CommandKind) - {CommandKind.SET_LIMIT}
    assert set(reports["kind"].tolist()) == set(ReportKind) - {ReportKind.LIMIT_SET}
    assert set(new["side"].tolist()) == set(Side)
    assert {term.value for term in TimeInForce} <= set(new["time_in_force"].tolist())
    assert set(((new["flags"] & SELF_TRADE_MASK) >> SELF_TRADE_SHIFT).tolist()) == set(SelfTrade)
    plain = {flags & ~SELF_TRADE_MASK for flags in new["flags"].tolist()}
    assert {0, int(OrderFlag.MARKET), int(OrderFlag.POST_ONLY), int(OrderFlag.POST_ONLY | OrderFlag.SLIDE)} <= plain
    assert len({account_of(order_id) for order_id in new["order_id"].tolist()}) == PRESETS["default"].accounts
    assert {
        Reason.UNKNOWN_ORDER,
        Reason.WOULD_CROSS,
        Reason.SIDE_MISMATCH,
        Reason.DUPLICATE_ORDER_ID,
        Reason.OFF_TICK,
        Reason.OFF_LOT,
        Reason.OUTSIDE_BAND,
        Reason.UNKNOWN_INSTRUMENT,
        Reason.BAD_QUANTITY,
        Reason.NOT_OPEN,
    } <= set(answered.tolist())
    states = command["side"][records["kind"] == CommandKind.SET_TRADING_STATE]
    assert set(states.tolist()) == {TradingState.PRE_OPEN, TradingState.OPEN, TradingState.HALTED}


def test_replaces_change_in_every_way():
    _, reports, _ = played()
    replaced = reports[reports["kind"] == ReportKind.REPLACED]
    canceled = reports["reason"][reports["kind"] == ReportKind.CANCELED]
    after = reports["kind"][1:][reports["kind"][:-1] == ReportKind.REPLACED]

    assert set((replaced["flags"] & 0x06).tolist()) == {0, 2, 4}  # moved, kept, slid
    assert ReportKind.TRADE in after
    assert {0, Reason.SELF_TRADE, Reason.MASS_CANCEL, Reason.TOTAL_FILLED} == set(canceled.tolist())


def test_mass_cancels_of_every_scope_come_in_time():
    shape = Shape(instruments=2, accounts=4, prefill=10, immigrants=16, window_ns=10_000_000, mass_cancels=10_000)

    records = np.concatenate(list(Workload(1, 60_000, shape=shape)))

    scopes = records["command"]["side"][records["kind"] == CommandKind.MASS_CANCEL]
    assert set(scopes.tolist()) == set(Scope)


def test_only_faults_that_are_meant_are_in_the_frames():
    """WIRE-5: what is malformed would be a defect of the generator, not of a client."""
    records, _, _ = played()

    faults = Counter(
        frame_fault(record[32 : 32 + record[25]]) for record in (records[index].tobytes() for index in range(30_000))
    )

    assert set(faults) <= {0, Reason.BAD_QUANTITY, Reason.BAD_PRICE, Reason.BAD_TIME_IN_FORCE, Reason.BAD_FLAGS}
    assert faults[0] > 29_500


# ------------------------------------------------------------------------------------------------------ shapes


def test_most_orders_die_by_cancel_and_most_cancels_hit():
    _, reports, _ = played()
    kinds = Counter(reports["kind"].tolist())

    assert kinds[ReportKind.CANCEL_REJECTED] < 0.1 * kinds[ReportKind.CANCELED]
    assert kinds[ReportKind.CANCELED] > 4 * kinds[ReportKind.TRADE]
    assert 0.35 < kinds[ReportKind.NEW] / COUNT < 0.6
    assert 0.02 < kinds[ReportKind.TRADE] / COUNT < 0.15
    assert 0.05 < kinds[ReportKind.REPLACED] / COUNT < 0.2
    rejected = kinds[ReportKind.REJECTED] + kinds[ReportKind.CANCEL_REJECTED] + kinds[ReportKind.REPLACE_REJECTED]
    assert 0.003 < rejected / COUNT < 0.05


def test_distances_are_drawn_from_the_power_law():
    cuts = np.concatenate([[0], _distances(1, 4_000), [1 << 32]])
    shares = np.diff(cuts) / (1 << 32)

    for near, far in ((0, 3), (9, 99), (99, 999)):
        assert shares[far] / shares[near] == pytest.approx(((far + 1) / (near + 1)) ** -1.6, rel=0.01)


def test_passive_orders_stand_at_a_power_law_distance_from_the_touch():
    """The slope of the tail in the orders as they were sent, not as they were drawn."""
    records, _, state = played()
    count = PRESETS["default"].instruments
    command = records["command"][records["kind"] == CommandKind.NEW_ORDER]
    [opened] = np.flatnonzero(command["order_id"] & REFERENCE_MAX == count * PRESETS["default"].prefill)
    book_building = command[count : opened + 1]  # around one known price, before anything trades
    distances = []
    for definition in state.instruments:
        some = book_building[book_building["instrument"] == definition.instrument]
        middle = (definition.band_low + definition.band_high) // 2
        distances += (np.abs(some["price"] - middle) // definition.tick).tolist()
    beyond = {distance: np.mean(np.array(distances) > distance) for distance in (4, 16, 64)}

    assert len(distances) > 700
    assert beyond[16] / beyond[4] == pytest.approx(4**-0.6, rel=0.3)
    assert beyond[64] / beyond[16] == pytest.approx(4**-0.6, rel=0.45)


def test_ages_at_cancel_have_a_long_tail():
    records, reports, _ = played()
    born = {
        record[0]: record[1]
        for record in zip(
            records["command"]["order_id"].tolist(), records["time_ns"].tolist(), records["kind"].tolist(), strict=True
        )
        if record[2] == CommandKind.NEW_ORDER
    }
    when = dict(zip(records["sequence"].tolist(), records["time_ns"].tolist(), strict=True))
    canceled = reports[(reports["kind"] == ReportKind.CANCELED) & (reports["reason"] == 0)]
    ages = np.array(
        [
            when[sequence] - born[order_id]
            for sequence, order_id in zip(canceled["sequence"].tolist(), canceled["order_id"].tolist(), strict=True)
        ]
    )

    assert np.median(ages) < 20_000_000
    assert np.mean(ages > 200_000_000) > 0.05
    assert np.mean(ages > 2_000_000_000) > 0.001  # the flow is 6 seconds long


def test_activity_is_zipf_over_instruments():
    records, _, _ = played()
    counts = np.sort(np.bincount(records["command"]["instrument"], minlength=9)[1:9])[::-1]
    weights = 1 / np.arange(1, 9)

    assert counts / counts.sum() == pytest.approx(weights / weights.sum(), abs=0.035)


def test_arrivals_come_in_bursts():
    """More than Poisson: the counts in equal slices of time vary far more than their mean."""
    records, _, _ = played()
    times = records["time_ns"][records["kind"] == CommandKind.NEW_ORDER]
    times = times[times > times[1_000]]
    counts = np.bincount((times - times[0]) // 5_000_000)

    assert np.var(counts) > 5 * np.mean(counts)


@pytest.mark.parametrize("preset", ["default", "calm", "sweep"])
def test_the_last_book_is_two_sided_and_deep(preset: str):
    _, _, state = played(preset, 60_000)

    for definition in state.instruments:
        bids, asks = (
            [order for order in state.orders if order.instrument == definition.instrument and order.side == side]
            for side in Side
        )
        assert min(len(bids), len(asks)) > 10, definition
        assert min(len({order.price for order in side}) for side in (bids, asks)) > 5, definition
        assert 0 < asks[0].price - bids[0].price < 400 * definition.tick, definition


def test_sweeps_take_many_levels_at_once():
    _, reports, _ = played("sweep", 60_000)
    trades = reports[reports["kind"] == ReportKind.TRADE]

    most = Counter(trades["sequence"].tolist()).most_common(20)

    assert most[0][1] > 50
    assert most[-1][1] > 20


def test_the_deep_book_is_deep():
    _, _, state = played("deep", 220_000)

    assert len(state.orders) > 150_000
    assert len({(order.instrument, order.side, order.price) for order in state.orders}) > 15_000


def test_the_flow_knows_the_book_from_its_reports_alone():
    shape = Shape(instruments=3, immigrants=64, mass_cancels=2_000, halts=1_000, faulty=500)
    workload = Workload(5, 0, shape=shape)
    engine = make_engine("reference", workload.capacity())
    apply, flow = applier(engine), _Flow(5, shape)

    for _ in range(120):
        flow.learn(np.frombuffer(apply(flow.window().tobytes()), REPORT_DTYPE))

    expected = np.zeros_like(flow.market.quantities)
    for order in unpack_state(engine.snapshot()).orders:
        level = (order.price - flow.market.low[order.instrument - 1]) // flow.market.tick[order.instrument - 1]
        expected[order.side - 1, order.instrument - 1, level] += order.leaves
    assert (flow.market.quantities == expected).all()
    alive = flow.orders.leaves > 0
    resting = {order.order_id: (order.leaves, order.filled) for order in unpack_state(engine.snapshot()).orders}
    rows = np.flatnonzero(alive)
    known = zip(flow.orders.leaves[rows].tolist(), flow.orders.filled[rows].tolist(), strict=True)
    assert dict(zip(flow.orders.ident(rows).tolist(), known, strict=True)) == resting


# ------------------------------------------------------------------------------------------------------- usage


def test_a_workload_tells_what_it_is():
    description = Workload(SEED, 10, "calm").describe()

    assert description["seed"] == SEED
    assert description["preset"] == "calm"
    assert description["shape"]["marketable"] == PRESETS["calm"].marketable
    assert "2002" in description["sources"]["distance"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": -1, "commands": 1}, "a seed is"),
        ({"seed": 1 << 64, "commands": 1}, "a seed is"),
        ({"seed": 1, "commands": -1}, "0 commands or more"),
        ({"seed": 1, "commands": 1, "preset": "stormy"}, "choose one of: default, calm"),
    ],
)
def test_what_there_is_not_is_refused(arguments, words: str):
    with pytest.raises(UsageError, match=words):
        Workload(**arguments)


def test_a_shape_out_of_range_is_refused():
    with pytest.raises(ValueError, match="branching"):
        Shape(branching=10_000)
