"""Equal input, equal bytes: a claim for each rule of specs/determinism.md, held by every engine."""

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ferrox.engine import Capacity, make_engine
from ferrox.errors import SequenceError
from ferrox.messages import RECORD, RECORD_SIZE, unpack_reports
from ferrox.state import digest, unpack_state
from ferrox.terms import Annotation, Reason, ReportKind
from ferrox.testing.sessions import apply_all, to_record, to_records
from ferrox.text import parse_command, parse_commands

VECTORS = Path(__file__).parents[2] / "specs" / "vectors"
STREAMS = {
    path.stem: to_records(parse_commands(path.read_text("utf-8").splitlines())) for path in VECTORS.glob("*.txt")
}
every_stream = pytest.mark.parametrize("name", sorted(STREAMS))

ALONE = """
import sys
from ferrox.engine import Capacity, make_engine
from ferrox.state import digest
from ferrox.testing.sessions import apply_all
import hashlib
engine = make_engine(sys.argv[1], Capacity(4096, 64))
reports = apply_all(engine, bytes.fromhex(sys.stdin.read()))
print(hashlib.sha256(reports).hexdigest(), digest(engine.snapshot()))
"""


def annotation(kind: Annotation, sequence: int, time_ns: int) -> bytes:
    """Return a record that the journal writes for itself."""
    return RECORD.pack(0, 0, sequence, time_ns, kind, 0, 0, 0, *[0] * 9)


def test_neither_hash_seed_nor_process_changes_a_byte(engine_name: str):
    """DET-1: two processes with other seeds, and this one."""
    records = STREAMS["many-instruments"]
    engine = make_engine(engine_name, Capacity(4096, 64))
    expected = [hashlib.sha256(apply_all(engine, records)).hexdigest(), digest(engine.snapshot())]

    for seed in ("1", "4242"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        found = subprocess.run(
            [sys.executable, "-P", "-c", ALONE, engine_name],
            input=records.hex(),
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.split() == expected


def test_what_other_engines_did_changes_nothing(make):
    """DET-1: two engines in one process, fed in turns, are two engines."""
    records = STREAMS["matching"]
    alone, other, in_turns = make(), make(), make()
    expected = apply_all(alone, records)

    reports = b""
    for start in range(0, len(records), RECORD_SIZE):
        reports += apply_all(in_turns, records[start : start + RECORD_SIZE])
        apply_all(other, to_record(start // RECORD_SIZE + 1, parse_command("mass-cancel all")))

    assert reports == expected
    assert in_turns.snapshot() == alone.snapshot()


@every_stream
def test_any_split_gives_the_same_bytes(name: str, make):
    """DET-2."""
    records = STREAMS[name]
    whole, split = make(), make()
    sizes = random.Random(name)

    reports, start = b"", 0
    while start < len(records):
        end = start + sizes.choice([0, 1, 1, 2, 3, 17]) * RECORD_SIZE
        reports += apply_all(split, records[start:end])
        start = min(end, len(records))

    assert reports == apply_all(whole, records)
    assert split.snapshot() == whole.snapshot()


@pytest.mark.parametrize("wrong", [0, 1, 3, 5, -1, 2**62, -(2**63)])
def test_a_record_out_of_sequence_is_refused_and_changes_nothing(make, wrong: int):
    """DET-3: the engine is at 3 then, and takes 4 afterwards."""
    engine = make()
    commands = list(parse_commands(["instrument 1 tick 1 lot 1 band 0 9 open", "buy #1 1 @ 1", "buy #2 1 @ 1"]))
    apply_all(engine, to_records(commands))
    before = engine.snapshot()

    with pytest.raises(SequenceError):
        engine.apply(to_record(wrong, parse_command("cancel #1"), 0))

    assert engine.snapshot() == before
    assert apply_all(engine, to_record(4, parse_command("cancel #1")))


def test_the_records_before_a_gap_are_taken_with_their_reports(make):
    """DET-3: as the seam promises (`Engine.apply`)."""
    engine, other = make(), make()
    commands = list(parse_commands(["instrument 1 tick 1 lot 1 band 0 9 open", "buy #1 1 @ 1"]))
    gap = to_record(4, parse_command("cancel #1"))

    taken, answer = engine.apply(to_records(commands) + gap)

    assert (taken, bytes(answer)) == (2, apply_all(other, to_records(commands)))
    with pytest.raises(SequenceError):
        engine.apply(gap)
    assert engine.snapshot() == other.snapshot()


def test_a_time_beyond_its_limit_does_not_move_the_clock(make):
    """DET-4, LIM-11: so a snapshot can always be restored."""
    engine = make()
    frame = parse_command("instrument 1 tick 1 lot 1 band 0 9 open")

    apply_all(engine, to_record(1, frame, 7) + to_record(2, frame, 2**62 + 1) + to_record(3, frame, -1))

    assert unpack_state(engine.snapshot()).time_ns == 7


def test_a_command_that_begins_like_an_annotation_is_answered(make):
    """DET-8, REPORT-1: a MARK or SEAL has size 0, so no client's frame is passed over."""
    for kind in (254, 255):
        engine = make()

        (report,) = unpack_reports(apply_all(engine, to_record(1, bytes([kind]) + bytes(31))))

        assert (report.kind, report.reason) == (ReportKind.REJECTED, Reason.UNKNOWN_KIND)


@pytest.mark.parametrize("size", [1, 63, 65, 127])
def test_half_a_record_is_none(make, size: int):
    engine = make()

    with pytest.raises(ValueError, match="64"):
        engine.apply(bytes(size))


def test_no_records_are_no_reports(make):
    taken, reports = make().apply(b"")

    assert (taken, bytes(reports)) == (0, b"")


@pytest.mark.parametrize("times", [[0, 0, 0], [5, 3, 4], [1, 2, 2**62], [7, 0, 0]])
def test_the_clock_is_the_greatest_time_given(make, times: list[int]):
    """DET-4."""
    engine = make()

    for sequence, time_ns in enumerate(times, 1):
        apply_all(engine, to_record(sequence, parse_command("mass-cancel all"), time_ns))

    state = unpack_state(engine.snapshot())
    assert (state.sequence, state.time_ns) == (len(times), max(times))


@every_stream
def test_no_rule_reads_the_clock(name: str, make):
    """DET-4: whatever the times, the reports are the same."""
    times = random.Random(name)
    fields = list(RECORD.iter_unpack(STREAMS[name]))
    shuffled = b"".join(RECORD.pack(*one[:3], times.choice([0, 1, 2**62, one[3]]), *one[4:]) for one in fields)

    assert apply_all(make(), shuffled) == apply_all(make(), STREAMS[name])


@every_stream
def test_a_restored_engine_goes_on_as_if_it_had_seen_all(name: str, make):
    """DET-5: from several places of each stream, into an engine that held something else."""
    records = STREAMS[name]
    count = len(records) // RECORD_SIZE
    whole = make()
    expected = apply_all(whole, records)

    for cut in {0, 1, count // 3, count // 2, count - 1, count}:
        first, second = make(), make()
        head = apply_all(first, records[: cut * RECORD_SIZE])
        apply_all(second, STREAMS["states"])
        second.restore(first.snapshot())
        assert second.snapshot() == first.snapshot()
        assert head + apply_all(second, records[cut * RECORD_SIZE :]) == expected
        assert second.snapshot() == whole.snapshot()


@every_stream
def test_all_engines_give_the_same_bytes(name: str, make_all):
    """DET-6."""
    engines = make_all()

    reports = {apply_all(engine, STREAMS[name]) for engine in engines}
    snapshots = {engine.snapshot() for engine in engines}

    assert len(reports) == len(snapshots) == 1


def test_the_state_digest_is_the_sha_256_of_the_snapshot(make):
    """DET-7."""
    snapshot = make().snapshot()

    assert digest(snapshot) == hashlib.sha256(snapshot).hexdigest()
    assert digest(b"").startswith("e3b0c442")


@pytest.mark.parametrize("kind", Annotation)
def test_an_annotation_moves_sequence_and_clock_and_gives_no_report(make, kind: Annotation):
    """DET-8: in the midst of commands and alone."""
    engine, plain = make(), make()
    define = parse_command("instrument 1 tick 1 lot 1 band 0 9 open")
    buy = parse_command("buy #1 1 @ 1")

    reports = apply_all(engine, to_record(1, define, 5) + annotation(kind, 2, 70) + to_record(3, buy, 6))
    taken, none = engine.apply(annotation(kind, 4, 60))
    expected = apply_all(plain, to_record(1, define, 5) + to_record(2, buy, 6))

    assert (taken, bytes(none)) == (1, b"")
    assert len(reports) == len(expected)
    after, without = unpack_state(engine.snapshot()), unpack_state(plain.snapshot())
    assert after == without._replace(sequence=4, time_ns=70)
