"""The reference engine under the laws: random and hostile streams, any batches, any restart, any hash seed."""

import doctest
import hashlib
import os
import subprocess
import sys
import unittest
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from ferrox.engine import Capacity
from ferrox.errors import SequenceError, SnapshotCorrupt
from ferrox.messages import (
    RECORD_SIZE,
    CancelOrder,
    DefineInstrument,
    MassCancel,
    NewOrder,
    ReplaceOrder,
    Report,
    SetLimit,
    SetTradingState,
    unpack_reports,
)
from ferrox.reference import ReferenceEngine
from ferrox.terms import SELF_TRADE_MASK, OrderFlag, Reason, ReportFlag, ReportKind, TimeInForce, TradingState
from ferrox.testing import machine, strategies
from ferrox.testing.laws import (
    Auditor,
    LawBroken,
    Standing,
    check_book,
    check_conservation,
    check_laws,
    check_restart,
    check_splits,
    check_unchanged,
)
from ferrox.testing.machine import REJECTS, EngineMachine
from ferrox.testing.sessions import apply_all, read_session, session_records, to_record, to_records
from ferrox.testing.strategies import FEATURES, World, batch_splits, hostile_streams, records, streams
from ferrox.text import parse_command

pytestmark = pytest.mark.reference  # and of the tools; the fast engine has test_engines_agree.py

SMALL = Capacity(orders=6, instruments=2)
WORLDS = (
    World(),
    World(low=-3, high=3, accounts=1, references=8),  # around zero, and every order is one's own
    World(instruments=1, low=0, high=1, quantity_max=2),
    World(instruments=3, accounts=3, references=2, quantity_max=2**31 - 6),
    World(instruments=1, low=0, high=2, accounts=1, features={"post-only", "slide", "replace"}),
)
any_stream = st.sampled_from(WORLDS).flatmap(streams)
any_records = st.one_of(
    records(any_stream), records(st.sampled_from(WORLDS).flatmap(hostile_streams), wrong_envelopes=True)
)


def make() -> ReferenceEngine:
    return ReferenceEngine(SMALL)


def pack(commands) -> bytes:
    return to_records(command.pack() for command in commands)


class ReferenceMachine(EngineMachine):
    def engine(self) -> ReferenceEngine:
        return make()


class PlainMachine(EngineMachine):
    """What is left to an engine without any feature that can be left out."""

    capacity = Capacity(orders=3, instruments=1)
    world = World(instruments=1, features=frozenset())

    def engine(self) -> ReferenceEngine:
        return ReferenceEngine(self.capacity)


TestReference = ReferenceMachine.TestCase
TestPlain = PlainMachine.TestCase


# ------------------------------------------------------------------------------------------------ every stream


@given(any_stream)
def test_every_law_holds_on_any_stream(stream):
    """REPORT-1 .. REPORT-6, MATCH-1 .. MATCH-7, REJECT-0."""
    engine = make()

    reports = apply_all(engine, pack(stream))

    check_laws(pack(stream), reports, capacity=SMALL, after=engine.snapshot())
    engine.check()


@given(st.sampled_from(TradingState), streams(World(instruments=1, features=FEATURES - {"states"})))
def test_every_law_holds_whatever_state_an_instrument_begins_in(state, stream):
    """STATE-1 .. STATE-3."""
    engine = make()
    given_records = pack([stream[0]._replace(state=state), *stream[1:]])

    reports = apply_all(engine, given_records)

    check_laws(given_records, reports, capacity=SMALL, after=engine.snapshot())
    engine.check()


@given(records(st.sampled_from(WORLDS).flatmap(hostile_streams), wrong_envelopes=True))
def test_every_law_holds_on_any_bytes(given_records):
    """WIRE-5, WIRE-7, DET-8: a wrong frame is a reject, never an exception."""
    engine = make()

    reports = apply_all(engine, given_records)

    check_laws(given_records, reports, capacity=SMALL, after=engine.snapshot())
    engine.check()


@given(any_records)
def test_a_rejected_command_changes_nothing_but_sequence_and_time(given_records):
    """RPL-1, NEW-3: whatever was rejected."""
    hold_rejects(given_records)


TOUCHING = World(instruments=1, low=0, high=1, accounts=1, features={"post-only", "slide", "replace"})


@given(st.lists(strategies.replace_orders(TOUCHING), max_size=20))
def test_a_rejected_replace_keeps_its_place_in_the_queue(replaces):
    """RPL-1: two queues of three that touch, so that many a replace would cross and be rejected."""
    queues = [NewOrder(side, 1, 0, 1, 3 * side - 3 + place, side - 1, 3) for side in (1, 2) for place in (1, 2, 3)]

    hold_rejects(pack([*TOUCHING.definitions(), *queues, *replaces]))


def hold_rejects(given_records: bytes) -> None:
    engine = make()
    for start in range(0, len(given_records), RECORD_SIZE):
        before = engine.snapshot()
        reports = unpack_reports(apply_all(engine, given_records[start : start + RECORD_SIZE]))
        if any(report.kind in REJECTS for report in reports):
            check_unchanged(before, engine.snapshot())
            assert len(reports) == 1


@given(any_records, st.data())
def test_any_batches_give_the_same_bytes(given_records, data):
    """DET-1, DET-2: in one batch, one by one, and in any other split."""
    count = len(given_records) // RECORD_SIZE

    check_splits(make, given_records, [1] * count)
    check_splits(make, given_records, data.draw(batch_splits(count)))


@given(any_records, st.data())
def test_a_restart_after_any_record_goes_on_as_if_there_was_none(given_records, data):
    """DET-5, SNAP-4."""
    check_restart(make, given_records, data.draw(st.integers(0, len(given_records) // RECORD_SIZE)))


@given(any_stream)
def test_a_restart_after_every_record_goes_on_as_if_there_was_none(stream):
    """DET-5."""
    straight, engine, reports = make(), make(), b""

    for sequence, command in enumerate(stream, 1):
        reports += apply_all(engine, to_record(sequence, command.pack()))
        snapshot = engine.snapshot()
        engine = make()
        engine.restore(snapshot)
        engine.check()

    assert reports == apply_all(straight, pack(stream))
    assert engine.snapshot() == straight.snapshot()


@given(any_stream, st.integers(-3, 3).filter(lambda step: step != 1), st.data())
def test_a_gap_or_a_repeat_is_refused_and_changes_nothing(stream, step, data):
    """DET-3: from the engine's own sequence number + 1."""
    engine = make()
    apply_all(engine, pack(stream))
    before = engine.snapshot()

    with pytest.raises(SequenceError, match=f"sequence {len(stream)} and was given record {len(stream) + step}$"):
        engine.apply(to_record(len(stream) + step, data.draw(st.sampled_from(stream)).pack()))

    assert engine.snapshot() == before


@given(any_stream, st.data())
def test_the_records_before_a_gap_are_taken_with_their_reports(stream, data):
    """DET-3: the engine stops before the record that does not follow, and refuses it when it comes first."""
    place = data.draw(st.integers(1, len(stream)))
    wanted, engine = make(), make()
    reports = apply_all(wanted, pack(stream[:place]))
    gap = to_record(place + 2, stream[0].pack())

    taken, answer = engine.apply(pack(stream[:place]) + gap + pack(stream))

    assert (taken, bytes(answer)) == (place, reports)
    with pytest.raises(SequenceError):
        engine.apply(gap)
    assert engine.snapshot() == wanted.snapshot()


@given(any_stream, st.integers(1, RECORD_SIZE - 1))
def test_a_part_of_a_record_is_refused_and_changes_nothing(stream, missing):
    engine = make()

    with pytest.raises(ValueError, match="whole frames of 64 bytes"):
        engine.apply(pack(stream)[:-missing])

    assert engine.snapshot() == make().snapshot()


@given(st.lists(st.integers(0, 2**62), max_size=20))
def test_the_clock_is_the_greatest_time_and_no_report_depends_on_it(times):
    """DET-4, MATCH-6."""
    session = read_session("sell #1 5 @ 9 -> new\nsell #2 5 @ 9 -> new\nbuy #3 9 @ 9 -> new")
    frames = [line.command for line in session.whole()] * 6
    timed = b"".join(
        to_record(sequence, parse_command(line), time_ns)
        for sequence, (line, time_ns) in enumerate(zip(frames, times, strict=False), 1)
    )
    at_zero = b"".join(
        to_record(sequence, parse_command(line), 0) for sequence, line in enumerate(frames[: len(times)], 1)
    )
    engine, other = make(), make()

    assert apply_all(engine, timed) == apply_all(other, at_zero)
    assert int.from_bytes(engine.snapshot()[24:32], "little") == max(times, default=0)
    check_unchanged(engine.snapshot(), other.snapshot())


PROGRAM = """
import hashlib, sys
from ferrox.engine import Capacity, make_engine
from ferrox.testing.sessions import apply_all
engine = make_engine("reference", Capacity(64, 8))
records = sys.stdin.buffer.read()
print(hashlib.sha256(apply_all(engine, records)).hexdigest(), hashlib.sha256(engine.snapshot()).hexdigest())
"""


def test_no_hash_seed_changes_a_byte():
    """DET-1, DET-7: many accounts, instruments and levels, so that every table has something to be out of order."""
    lines = [f"instrument {number} tick 1 lot 1 band 0 99 open" for number in (7, 3, 1, 8, 5)]
    lines += [
        f"{'buy' if index % 2 else 'sell'} #{index % 5}/{index} 3 @ {index * 37 % 100} on {(7, 3, 1, 8, 5)[index % 3]}"
        for index in range(1, 60)
    ]
    lines += ["mass-cancel account 3", "mass-cancel on 7", "buy #9/1 5 @ 99 stp=decrement on 3", "mass-cancel all"]
    given_records = to_records(parse_command(line) for line in lines)
    engine = ReferenceEngine(Capacity(64, 8))
    here = [hashlib.sha256(part).hexdigest() for part in (apply_all(engine, given_records), engine.snapshot())]

    for seed in ("0", "1", "4294967295"):
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=given_records,
            capture_output=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert run.stdout.decode().split() == here


# ------------------------------------------------------------------------------------------------ a full engine


@pytest.mark.parametrize("orders", [1, 2, 3])
def test_an_engine_holds_exactly_its_capacity(orders):
    """NEW-3, LIM-7: the order that fits is the last one that rests."""
    engine = ReferenceEngine(Capacity(orders, 1))
    lines = ["instrument 1 tick 1 lot 1 band 0 9 open"]
    lines += [f"buy #{index} 1 @ {index}" for index in range(1, orders + 2)]

    reports = unpack_reports(apply_all(engine, to_records(parse_command(line) for line in lines)))

    assert [report.kind for report in reports[1:]] == [ReportKind.NEW] * orders + [ReportKind.REJECTED]
    assert reports[-1].reason == Reason.ORDERS_FULL


@given(st.sampled_from([Capacity(1, 1), Capacity(2, 1), Capacity(3, 2)]), any_stream)
def test_a_full_engine_obeys_every_law(capacity, stream):
    """REJECT-41, REJECT-42: a replace of a resting order goes on, a new order waits."""
    engine = ReferenceEngine(capacity)

    reports = apply_all(engine, pack(stream))

    check_laws(pack(stream), reports, capacity=capacity, after=engine.snapshot())


# ------------------------------------------------------------------------------------ the strategies themselves


def test_the_examples_in_the_documentation_of_the_strategies_run():
    failed, attempted = doctest.testmod(strategies, optionflags=doctest.ELLIPSIS)

    assert attempted >= 10
    assert not failed


def test_the_programs_in_the_documentation_of_the_tools_run():
    """Each is the one indented block of its module's docstring; what it defines for pytest is run here."""
    for tool, name in ((strategies, "test_my_engine_obeys_the_laws"), (machine, "TestMyEngine")):
        block = [line for line in (tool.__doc__ or "").splitlines() if line.startswith("    ") or not line]
        program: dict[str, Any] = {}
        exec("\n".join(line[4:] for line in block), program)
        defined = program[name]
        if isinstance(defined, type) and issubclass(defined, unittest.TestCase):
            defined("runTest").debug()
        else:
            defined()


def shows(command, feature: str) -> bool:
    flags = command.flags if isinstance(command, NewOrder | ReplaceOrder) else 0
    time_in_force = command.time_in_force if isinstance(command, NewOrder) else 0
    return {
        "ioc": time_in_force == TimeInForce.IOC,
        "fok": time_in_force == TimeInForce.FOK,
        "market": bool(flags & OrderFlag.MARKET),
        "post-only": bool(flags & OrderFlag.POST_ONLY),
        "slide": bool(flags & OrderFlag.SLIDE),
        "self-trade": bool(flags & SELF_TRADE_MASK),
        "replace": isinstance(command, ReplaceOrder),
        "mass-cancel": isinstance(command, MassCancel),
        "states": isinstance(command, SetTradingState),
        "definitions": isinstance(command, DefineInstrument),
        "limits": isinstance(command, SetLimit),
    }[feature]


@pytest.mark.parametrize("feature", sorted(FEATURES))
def test_a_feature_is_drawn_unless_it_is_left_out(feature):
    find(strategies.commands(), lambda command: shows(command, feature))

    with pytest.raises(NoSuchExample):
        find(strategies.commands(World(features=FEATURES - {feature})), lambda command: shows(command, feature))


def test_a_feature_that_does_not_exist_is_an_error():
    with pytest.raises(ValueError, match=r"no feature is named \['fokk'\]"):
        World(features={"fokk"})


@given(any_stream)
def test_every_command_of_a_stream_decodes(stream):
    """REJECT-1 .. REJECT-18 are for hostile streams."""
    reports = unpack_reports(apply_all(make(), pack(stream)))

    assert not [report for report in reports if 0 < report.reason < 32]


@pytest.mark.parametrize(
    "wanted",
    [
        lambda report: report.kind == ReportKind.TRADE,
        lambda report: bool(report.flags & ReportFlag.SLID),
    ],
    ids=["trade", "slid"],
)
def test_a_stream_that_shows_something_shrinks_to_a_few_commands(wanted):
    """One definition and a handful of orders; three commands are the fewest that show either of these."""

    def found_in(stream) -> bool:
        return any(wanted(report) for report in unpack_reports(apply_all(make(), pack(stream))))

    found = find(streams(World(instruments=1)), found_in, random=Random(7))

    assert 3 <= len(found) <= 8


def test_streams_reach_every_reason_of_the_state_and_every_kind_of_report():
    """REJECT-32 .. REJECT-43, REPORT-3: what is never drawn is never tested."""
    seen: Counter[int] = Counter()
    kinds: Counter[int] = Counter()

    @settings(max_examples=500)
    @given(st.sampled_from(WORLDS).flatmap(streams))
    def look(stream):
        for report in unpack_reports(apply_all(ReferenceEngine(Capacity(3, 2)), pack(stream))):
            seen[report.reason] += 1
            kinds[report.kind] += 1

    look()

    assert {reason for reason in Reason if reason >= Reason.UNKNOWN_INSTRUMENT} <= set(seen)
    assert set(ReportKind) <= set(kinds)


@given(st.integers(0, 50).flatmap(lambda count: st.tuples(st.just(count), batch_splits(count))))
def test_batches_hold_every_record_once(split):
    count, sizes = split

    assert sum(sizes) == count
    assert all(size > 0 for size in sizes)


# ------------------------------------------------------------------------------------------ the auditor itself


SESSION = """
    sell #1 10 @ 100 -> new
    sell #2 10 @ 100 -> new
    sell #3 10 @ 101 -> new
    buy #4 15 @ 101 -> new
    buy #5 50 @ 101 ioc -> new
    buy #6 7 @ 99 -> new
    replace buy #6 9 @ 99 -> replaced
    cancel #6 -> canceled
    cancel #6 -> cancel-rejected
    sell #7 1 @ 100 -> new
    buy #8 1 @ 100 stp=decrement -> new
    mass-cancel all -> mass-canceled
"""


def example() -> tuple[bytes, list[Report]]:
    given_records = session_records(read_session(SESSION))
    return given_records, unpack_reports(apply_all(make(), given_records))


def test_the_auditor_accepts_what_is_right():
    given_records, reports = example()

    auditor = check_laws(given_records, b"".join(report.pack() for report in reports), capacity=SMALL)

    assert not auditor.standing


def test_the_auditor_refuses_every_change_of_every_field_of_every_report():
    """REPORT-3: no field of no report is left unjudged."""
    given_records, reports = example()

    for place, report in enumerate(reports):
        for name in report._fields:
            value = getattr(report, name)
            changed = reports.copy()
            changed[place] = report._replace(**{name: value + 1 if value < 255 else value ^ 1})
            with pytest.raises(LawBroken):
                check_laws(given_records, b"".join(report.pack() for report in changed), capacity=SMALL)


def test_the_auditor_refuses_a_missing_a_repeated_and_a_swapped_report():
    """REPORT-1, REPORT-2."""
    given_records, reports = example()

    for place in range(len(reports)):
        missing = reports[:place] + reports[place + 1 :]
        repeated = reports[: place + 1] + reports[place:]
        swapped = reports[:place] + reports[place : place + 2][::-1] + reports[place + 2 :]
        for changed in (missing, repeated, *([swapped] if place + 1 < len(reports) else [])):
            with pytest.raises(LawBroken):
                check_laws(given_records, b"".join(report.pack() for report in changed), capacity=SMALL)


def test_the_auditor_names_the_rule_the_command_and_the_reports():
    """MATCH-2: the second order of a queue may not trade first."""
    lines = ["instrument 1 tick 1 lot 1 band 0 999 open", "sell #1 5 @ 100", "sell #2 5 @ 100", "buy #3 5 @ 100"]
    given_records = to_records(parse_command(line) for line in lines)
    reports = unpack_reports(apply_all(make(), given_records))
    reports[-1] = reports[-1]._replace(contra_id=2)

    with pytest.raises(LawBroken) as broken:
        check_laws(given_records, b"".join(report.pack() for report in reports))

    assert str(broken.value).splitlines()[:4] == [
        f"MATCH-2: {Standing(1, 1, 2, 100, 5)} has its place longer than {Standing(2, 1, 2, 100, 5)}",
        "  command 4: buy #3 5 @ 100",
        "  report new #3 5 @ 100",
        "  report trade #3 5 @ 100 with #2",
    ]


@given(any_stream, st.data())
def test_the_auditor_can_begin_at_any_snapshot(stream, data):
    place = data.draw(st.integers(0, len(stream)))
    engine = make()
    apply_all(engine, pack(stream)[: place * RECORD_SIZE])
    before = engine.snapshot()

    reports = apply_all(engine, pack(stream)[place * RECORD_SIZE :])

    check_laws(pack(stream)[place * RECORD_SIZE :], reports, before=before, after=engine.snapshot())


def test_reports_that_do_not_add_up_are_noticed_without_their_commands():
    """REPORT-6."""
    _, reports = example()
    check_conservation(b"".join(report.pack() for report in reports))

    for place, report in enumerate(reports):
        if report.kind == ReportKind.TRADE:
            changed = reports.copy()
            changed[place] = report._replace(quantity=report.quantity + 1)
            with pytest.raises(LawBroken, match="REPORT-6"):
                check_conservation(b"".join(report.pack() for report in changed))


def test_a_crossed_book_and_an_id_that_stands_twice_are_noticed():
    """MATCH-1, NEW-2."""
    engine = make()
    lines = ["instrument 1 tick 1 lot 1 band 0 999 open", "buy #1 5 @ 100", "sell #2 5 @ 101"]
    apply_all(engine, to_records(parse_command(line) for line in lines))
    snapshot = bytearray(engine.snapshot())
    crossed, doubled, empty = bytearray(snapshot), bytearray(snapshot), bytearray(snapshot)
    crossed[128 + 8] = 100  # the price of the second order
    doubled[128] = 1
    empty[96 + 16] = 0

    check_book(bytes(snapshot))
    for wrong, rule in ((crossed, "MATCH-1"), (doubled, "NEW-2"), (empty, "SNAP-5")):
        with pytest.raises(LawBroken, match=rule):
            check_book(bytes(wrong))
        if wrong is not empty:
            continue
        with pytest.raises(SnapshotCorrupt):
            engine.restore(bytes(wrong))


def test_engines_that_are_not_deterministic_are_noticed():
    """DET-1, DET-2, DET-5."""

    class Forgetful(ReferenceEngine):
        def apply(self, records):
            self.books = dict(list(self.books.items())[:1])
            return super().apply(records)

    class Lossy(ReferenceEngine):
        def restore(self, snapshot):
            super().restore(snapshot)
            for order in self.orders.values():
                order.filled = 0

    lines = ["instrument 1 tick 1 lot 1 band 0 9 open", "instrument 2 tick 1 lot 1 band 0 9 open", "buy #1 5 @ 9"]
    lines += ["sell #2 1 @ 9", "replace buy #1 4 @ 8", "cancel #1 on 2"]
    given_records = to_records(parse_command(line) for line in lines)

    with pytest.raises(LawBroken, match="DET-2"):
        check_splits(Forgetful, given_records, [1] * 6)
    with pytest.raises(LawBroken, match="DET-5"):
        check_restart(Lossy, given_records, 4)
    check_splits(ReferenceEngine, given_records, [1] * 6)
    check_restart(ReferenceEngine, given_records, 4)


def test_the_auditor_knows_what_an_annotation_is():
    """DET-8."""
    record = bytearray(to_record(1, CancelOrder(1, 1).pack()))
    record[24:26] = bytes((254, 0))
    record[32:] = bytes(32)
    engine = make()

    auditor = Auditor(SMALL)
    auditor.audit(bytes(record), apply_all(engine, bytes(record)))

    auditor.check_snapshot(engine.snapshot())
    with pytest.raises(LawBroken, match="DET-8"):
        Auditor(SMALL).audit(bytes(record), apply_all(make(), to_record(1, CancelOrder(1, 1).pack())))


def test_sessions_and_laws_are_imported_without_hypothesis():
    program = "import sys; import ferrox.testing, ferrox.testing.sessions, ferrox.testing.laws; "
    program += "sys.exit('hypothesis' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=Path(__file__).parents[2]).returncode == 0


def test_the_tools_are_named_by_their_package():
    program = "import ferrox.testing as tools; assert tools.strategies.streams and tools.laws.check_laws; "
    program += "assert 'machine' in dir(tools); tools.nothing"
    run = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )

    assert run.stderr.splitlines()[-1] == "AttributeError: module 'ferrox.testing' has no attribute 'nothing'"
