"""The journal writes what it says, reads what it wrote, and refuses in one sentence what it cannot trust."""

import errno
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c

from ferrox.engine import Capacity
from ferrox.errors import (
    CorruptInput,
    FerroxError,
    JournalCorrupt,
    JournalFailed,
    SegmentCorrupt,
    UnknownVersion,
    UsageError,
)
from ferrox.journal import Journal, Source, command_records, identify, read, scan
from ferrox.journal.layout import HEADER_SIZE, MARK_NAME, MARK_SECTOR, unpack_header
from ferrox.messages import COMMAND_DTYPE, RECORD_DTYPE, CancelOrder, NewOrder
from ferrox.snapshot import write_snapshot
from ferrox.state import State, pack_state
from ferrox.terms import Annotation, Side, TimeInForce

CAPACITY = Capacity(orders=1000, instruments=10)


def order(reference=1, price=100):
    return NewOrder(Side.BUY, TimeInForce.GTC, 0, 1, reference, price, 5).pack()


def orders(count, first=1, time_ns=0):
    return command_records([order(first + index) for index in range(count)], time_ns=time_ns)


def create(path, segment_records=1000, seed=7, clock=lambda: 0, **more):
    source = Source.seeded(seed, clock)
    return Journal.create(path, CAPACITY, segment_records=segment_records, source=source, **more)


def make(path, count=10, segment_records=1000, seed=7):
    with create(path, segment_records, seed) as journal:
        return journal.append(orders(count))


def fields(records):
    return np.frombuffer(records, RECORD_DTYPE)


def everything(path, **more):
    return b"".join(read(path, **more))


def segments(path):
    return sorted(path.glob("*.wal"))


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def crash(path, target):
    """Copy a journal as a crash would leave it: without a SEAL."""
    shutil.copytree(path, target)
    return target


def refused(path, error=CorruptInput):
    """Return the one sentence that every way into a journal refuses it with, and see that nothing was changed."""
    before = contents(path)
    with pytest.raises(error) as reading:
        everything(path)
    with pytest.raises(error) as writing:
        Journal.open(path)
    assert contents(path) == before
    assert str(reading.value) == str(writing.value) == str(scan(path).corruption)
    assert scan(path).verdict == "corrupt"
    assert "\n" not in str(reading.value)
    return str(reading.value)


# ---------------------------------------------------------------------------------------------------------- records


def test_records_come_back_as_they_were_sealed_with_a_seal_behind_them(tmp_path):
    sealed = make(tmp_path / "j", 10)

    records = everything(tmp_path / "j")

    assert records[: len(sealed)] == sealed
    assert fields(records)["kind"].tolist() == [1] * 10 + [Annotation.SEAL]
    assert fields(records)["command"].tobytes()[:320] == b"".join(order(1 + index) for index in range(10))


def test_a_record_has_its_place_as_sequence_and_its_predecessor_in_it(tmp_path):
    """JRN-1, JRN-2, JRN-4."""
    with create(tmp_path / "j", segment_records=4) as journal:
        records = journal.append(orders(10))
    headers = [
        unpack_header(path.read_bytes()[:HEADER_SIZE], path.name, path.name) for path in segments(tmp_path / "j")
    ]

    assert fields(records)["sequence"].tolist() == list(range(1, 11))
    assert [header.base_sequence for header in headers] == [1, 5, 9]
    before = headers[0].salt
    for index, crc in enumerate(fields(records)["crc"].tolist()):
        record = records[64 * index : 64 * index + 64]
        assert int.from_bytes(record[4:8], "little") == before
        assert crc == crc32c(record[4:], headers[index // 4].salt)
        before = crc


def test_a_records_salt_is_as_if_it_were_the_checksum_of_bytes_before():
    """JRN-2."""
    assert crc32c(b"record", crc32c(b"salt")) == crc32c(b"saltrecord")


def test_time_never_goes_back_and_0_takes_the_clock(tmp_path):
    """JRN-3."""
    ticks = iter([50, 60, 70, 80])  # the header's, an append's, another's, the seal's
    frames = [order(index) for index in range(1, 6)]
    with create(tmp_path / "j", clock=lambda: next(ticks)) as journal:
        one = journal.append(command_records(frames, time_ns=[10, 5, 0, 100, 0]))
        two = journal.append(command_records(frames[:2], time_ns=[0, 2**62]))

    assert fields(one)["time_ns"].tolist() == [10, 10, 60, 100, 100]
    assert fields(two)["time_ns"].tolist() == [100, 2**62]
    assert fields(everything(tmp_path / "j"))["time_ns"][-1] == 2**62


def test_the_lag_of_a_record_is_what_was_not_durable_when_it_was_written(tmp_path):
    """JRN-12."""
    with create(tmp_path / "j") as journal:
        journal.append(orders(3))
        journal.sync()
        journal.append(orders(2))

    assert fields(everything(tmp_path / "j"))["lag"].tolist() == [1, 2, 3, 1, 2, 1]


def test_one_batch_and_single_records_give_the_same_journal(tmp_path):
    """JRN-18, DET-2."""
    make(tmp_path / "together", 10, segment_records=4)
    with create(tmp_path / "alone", segment_records=4) as journal:
        for index in range(10):
            journal.append(orders(1, first=1 + index))

    together, alone = contents(tmp_path / "together"), contents(tmp_path / "alone")

    # A rotation inside the batch syncs, so lags agree as well.
    assert together == alone


@pytest.mark.parametrize("size", [1, 63, 65])
def test_a_part_of_a_record_is_refused_before_anything_is_written(tmp_path, size):
    with create(tmp_path / "j") as journal, pytest.raises(UsageError, match="no whole number"):
        journal.append(bytes(size))

    assert scan(tmp_path / "j").kinds == {255: 1}


@pytest.mark.parametrize("kind", list(Annotation))
def test_a_caller_cannot_write_the_journals_own_records(tmp_path, kind):
    """JRN-9."""
    frame = bytes([kind]) + bytes(15)

    with create(tmp_path / "j") as journal, pytest.raises(UsageError, match="the journal's own"):
        journal.append(orders(1) + command_records([frame]))

    assert scan(tmp_path / "j").kinds == {255: 1}


def test_a_seal_repeats_the_time_before_it_and_is_given_to_the_caller_once(tmp_path):
    """JRN-9: the clock of an engine says when the last command came, and not when somebody closed a file."""
    journal = create(tmp_path / "j")
    journal.append(orders(1, time_ns=5))

    seal = journal.close()

    assert fields(seal)[["kind", "sequence", "time_ns"]].tolist() == [(255, 2, 5)]
    assert journal.close() == b""
    assert fields(b"".join(read(tmp_path / "j")))["time_ns"].tolist() == [5, 5]


@pytest.mark.parametrize("time_ns", [-1, -(2**63), 2**62 + 1, 2**63 - 1])
def test_a_time_beyond_the_limits_is_refused_before_anything_is_written(tmp_path, time_ns):
    """LIM-11."""
    with create(tmp_path / "j") as journal, pytest.raises(UsageError, match=str(time_ns)):
        journal.append(orders(1) + orders(1, time_ns=time_ns))

    assert scan(tmp_path / "j").kinds == {255: 1}


def test_no_records_are_no_records(tmp_path):
    with create(tmp_path / "j") as journal:
        assert journal.append(b"") == b""
        assert journal.sequence == 0


# --------------------------------------------------------------------------------------- commands as records


def test_frames_and_an_array_of_the_same_commands_are_the_same_records():
    frames = [order(1), CancelOrder(1, 1).pack(), order(2)]
    array = np.frombuffer(b"".join(frame.ljust(32, b"\0") for frame in frames), COMMAND_DTYPE)

    from_frames = command_records(frames, time_ns=[1, 2, 3], session=9)
    from_array = command_records(array, time_ns=np.array([1, 2, 3]), session=9)

    assert from_frames == from_array
    assert fields(from_frames)["size"].tolist() == [32, 16, 32]
    assert fields(from_frames)["kind"].tolist() == [1, 2, 1]
    assert command_records(frames, time_ns=5) == command_records(array, time_ns=5)


@pytest.mark.parametrize("frame", [b"", b"\1", bytes(15), bytes(17), bytes(33)])
def test_a_frame_of_another_length_is_no_command(frame):
    with pytest.raises(UsageError, match="16 or 32 bytes"):
        command_records([frame])


def test_each_command_needs_a_time():
    array = np.zeros(2, COMMAND_DTYPE)
    for commands in ([order(1), order(2)], array):
        for times in ([1], [1, 2, 3]):
            with pytest.raises(UsageError, match="needs a time"):
                command_records(commands, time_ns=times)


def test_an_array_of_something_else_is_no_commands():
    with pytest.raises(UsageError, match="COMMAND_DTYPE"):
        command_records(np.zeros(2, RECORD_DTYPE))


# --------------------------------------------------------------------------------------------- the journal's life


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(tmp_path):
    """JRN-18."""
    for name, seed in (("one", 7), ("two", 7), ("other", 8)):
        make(tmp_path / name, segment_records=4, seed=seed)

    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one").keys() == contents(tmp_path / "other").keys()
    assert all(contents(tmp_path / "other")[name] != data for name, data in contents(tmp_path / "one").items())


def test_a_journal_of_a_seed_has_the_golden_bytes(tmp_path):
    """JRN-1 .. JRN-4, JRN-9 .. JRN-13: what was written once can be read for ever."""
    make(tmp_path / "j", 3, segment_records=2, seed=1)

    digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(contents(tmp_path / "j").items())}

    assert digests == GOLDEN


def test_without_a_seed_no_two_journals_are_alike(tmp_path):
    headers = []
    for name in ("one", "two"):
        Journal.create(tmp_path / name).close()
        headers.append(identify(tmp_path / name))

    assert headers[0].uuid != headers[1].uuid
    assert headers[0].salt != headers[1].salt
    assert 0 not in (headers[0].salt, headers[0].created_ns)
    assert headers[0].capacity == Capacity()


def test_a_journal_knows_the_capacity_that_its_replay_needs(tmp_path):
    with create(tmp_path / "j") as journal:
        assert journal.capacity == CAPACITY
        uuid = journal.uuid

    assert identify(tmp_path / "j").capacity == CAPACITY
    assert identify(tmp_path / "j").uuid == uuid
    assert scan(tmp_path / "j").header == identify(tmp_path / "j")


def test_a_scan_tells_what_a_journal_is(tmp_path):
    make(tmp_path / "j", 10, segment_records=4)

    found = scan(tmp_path / "j")

    assert (found.verdict, found.first, found.last, found.durable, found.sealed) == ("clean", 1, 11, 11, True)
    assert found.kinds == {1: 10, 255: 1}
    assert found.segments == tuple(path.name for path in segments(tmp_path / "j"))
    assert len(found.segments) == 3
    assert (found.torn, found.corruption, found.warnings) == (None, None, ())


def test_a_segment_is_begun_when_one_is_full_and_at_every_opening(tmp_path):
    """JRN-11."""
    make(tmp_path / "j", 3, segment_records=4)  # and the seal fills it
    with Journal.open(tmp_path / "j", source=Source.seeded(8)) as journal:
        assert (journal.sequence, journal.durable, journal.torn) == (4, 4, None)
        assert journal.header.epoch == 2
        journal.append(orders(5))

    names = [path.name for path in segments(tmp_path / "j")]
    salts = {path.read_bytes()[56:60] for path in segments(tmp_path / "j")}

    assert names == [
        "00000000000000000001-00000001.wal",
        "00000000000000000005-00000002.wal",
        "00000000000000000009-00000002.wal",
    ]
    assert len(salts) == 3
    assert scan(tmp_path / "j").last == 10


def test_a_journal_may_be_opened_again_and_again_with_nothing_between(tmp_path):
    """JRN-11."""
    journal = create(tmp_path / "j")
    crash(tmp_path / "j", tmp_path / "crashed")
    journal.close()
    for _ in range(3):
        crashed = Journal.open(tmp_path / "crashed")
        shutil.copytree(tmp_path / "crashed", tmp_path / "again")
        crashed.close()
        shutil.rmtree(tmp_path / "crashed")
        (tmp_path / "again").rename(tmp_path / "crashed")

    assert len(segments(tmp_path / "crashed")) == 4  # three of them empty, and all begin at 1
    assert scan(tmp_path / "crashed").verdict == "clean"
    with Journal.open(tmp_path / "crashed") as journal:
        journal.append(orders(2))
    assert scan(tmp_path / "crashed").kinds == {1: 2, 255: 1}
    assert len(everything(tmp_path / "crashed", start=2)) == 2 * 64


def test_a_sync_moves_the_watermark_and_an_append_does_not(tmp_path):
    """JRN-13."""
    with create(tmp_path / "j") as journal:
        journal.append(orders(3))
        assert (journal.sequence, journal.durable) == (3, 0)
        assert scan(tmp_path / "j").durable == 0
        journal.sync()
        assert (journal.sequence, journal.durable) == (3, 3)
        assert scan(tmp_path / "j").durable == 3


def test_the_commit_mark_is_written_into_its_slots_by_turns(tmp_path):
    """JRN-13: whatever becomes of the slot that is being written, the other one stands."""
    with create(tmp_path / "j") as journal:
        before = (tmp_path / "j" / MARK_NAME).read_bytes()
        changed = []
        for _ in range(4):
            journal.append(orders(1))
            journal.sync()
            after = (tmp_path / "j" / MARK_NAME).read_bytes()
            changed.append([before[s : s + MARK_SECTOR] != after[s : s + MARK_SECTOR] for s in (0, MARK_SECTOR)])
            before = after

    assert changed in ([[True, False], [False, True]] * 2, [[False, True], [True, False]] * 2)


def test_a_clean_close_leaves_the_same_mark_in_both_slots(tmp_path):
    make(tmp_path / "j")

    mark = (tmp_path / "j" / MARK_NAME).read_bytes()

    assert mark[:MARK_SECTOR] == mark[MARK_SECTOR:]


def test_a_journal_killed_in_full_flight_keeps_every_record_that_append_returned(tmp_path):
    """The page cache outlives the process, so what an engine was given is in the journal."""
    program = (
        "import sys, os, signal\n"
        "from ferrox.journal import Journal, command_records\n"
        "from ferrox.messages import NewOrder\n"
        "journal = Journal.create(sys.argv[1])\n"
        "sealed = journal.append(command_records([NewOrder(1, 1, 0, 1, n + 1, 5, 5).pack() for n in range(1000)]))\n"
        "sys.stdout.buffer.write(sealed)\n"
        "sys.stdout.flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    run = subprocess.run([sys.executable, "-c", program, tmp_path / "j"], capture_output=True, check=False)

    assert run.returncode == -signal.SIGKILL
    assert everything(tmp_path / "j") == run.stdout
    assert len(run.stdout) == 64_000
    assert not scan(tmp_path / "j").sealed


def test_files_are_for_their_owner_only(tmp_path):
    """JRN-17."""
    before = os.umask(0)
    try:
        make(tmp_path / "j")
    finally:
        os.umask(before)

    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "j").iterdir()} == {0o600}


def test_a_closed_journal_takes_nothing_more(tmp_path):
    journal = create(tmp_path / "j")
    journal.close()
    journal.close()

    for call in (lambda: journal.append(orders(1)), journal.sync):
        with pytest.raises(UsageError, match="was closed"):
            call()


def test_a_failure_inside_a_with_block_still_seals_the_journal(tmp_path):
    def work():
        with create(tmp_path / "j") as journal:
            journal.append(orders(2))
            raise KeyError

    with pytest.raises(KeyError):
        work()

    assert scan(tmp_path / "j").sealed


# ------------------------------------------------------------------------------------------------ who may, and where


def test_an_existing_journal_is_never_replaced(tmp_path):
    """JRN-17."""
    make(tmp_path / "j")
    before = contents(tmp_path / "j")

    with pytest.raises(UsageError, match=r"already holds a journal; choose another one") as error:
        create(tmp_path / "j")

    assert "\n" not in str(error.value)
    assert contents(tmp_path / "j") == before


def test_a_journal_begins_in_an_empty_directory_and_in_no_other(tmp_path):
    """JRN-17."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")

    make(tmp_path / "empty")

    for name, words in (("full", "it holds 'mine'"), ("file", "not a directory"), ("none/j", "cannot be made")):
        with pytest.raises(UsageError, match=words):
            create(tmp_path / name)
    assert (tmp_path / "full" / "mine").read_text() == "mine"


@pytest.mark.parametrize("count", [0, -1, 2**26 + 1])
def test_a_segment_has_a_number_of_records_that_can_be(tmp_path, count):
    with pytest.raises(UsageError, match=r"1 \.\. 67108864"):
        create(tmp_path / "j", segment_records=count)

    assert not (tmp_path / "j").exists()


def test_a_second_process_is_told_that_the_journal_is_taken(tmp_path):
    """JRN-15: to append, not to read."""
    program = (
        "import sys\n"
        "from ferrox.errors import UsageError\n"
        "from ferrox.journal import Journal, scan\n"
        "print(scan(sys.argv[1]).verdict)\n"
        "try:\n"
        "    Journal.open(sys.argv[1]).close()\n"
        "except UsageError as error:\n"
        "    print(error)\n"
    )

    def second():
        return subprocess.run(
            [sys.executable, "-c", program, tmp_path / "j"], capture_output=True, text=True, check=True
        ).stdout

    with create(tmp_path / "j") as journal:
        journal.append(orders(1))
        refusal = second()
        with pytest.raises(UsageError, match="another process has this journal open"):
            Journal.open(tmp_path / "j")
        with pytest.raises(UsageError, match="another process has this journal open"):
            create(tmp_path / "j")

    assert (
        refusal == f"clean\n{tmp_path / 'j'}: another process has this journal open for append; close it there first\n"
    )
    assert second() == "clean\n"
    assert scan(tmp_path / "j").kinds == {1: 1, 255: 2}


def test_what_is_no_journal_is_a_usage_error_of_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    cases = {"none": "no such directory", "empty": "holds no journal", "file": "not a directory", "pipe": "not a dir"}

    for name, words in cases.items():
        for call in (everything, scan, identify, Journal.open):
            with pytest.raises(UsageError, match=words) as error:
                call(tmp_path / name)
            assert str(error.value).startswith(str(tmp_path / name))
            assert "\n" not in str(error.value)
    for name in ("a\nb", "", "\udcff"):
        with pytest.raises(UsageError) as error:
            scan(tmp_path / name if name else "")
        assert str(error.value).isprintable()
    with pytest.raises(UsageError):
        scan("a\0b")


@pytest.mark.parametrize(
    ("ending", "words"), [("j", "cannot be opened: Permission denied"), (".wal", "may not be read")]
)
def test_what_may_not_be_read_is_a_usage_error(tmp_path, monkeypatch, ending, words):
    make(tmp_path / "j")
    really = os.open

    def forbid(name, *arguments, **more):
        if str(name).endswith(ending):
            raise PermissionError(errno.EACCES, "Permission denied")
        return really(name, *arguments, **more)

    monkeypatch.setattr(os, "open", forbid)

    for call in (everything, scan, Journal.open):
        with pytest.raises(UsageError, match=words) as error:
            call(tmp_path / "j")
        assert str(tmp_path / "j") in str(error.value)


# -------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 100])
def test_reading_gives_whole_records_from_start_to_until(tmp_path, batch):
    sealed = make(tmp_path / "j", 10, segment_records=4)

    for start in range(1, 11):
        for until in range(start - 1, 11):
            batches = list(read(tmp_path / "j", start, until, batch))
            assert b"".join(batches) == sealed[64 * (start - 1) : 64 * until], (start, until)
            assert all(0 < len(some) <= 64 * batch for some in batches)


def test_reading_begins_behind_the_end_and_no_further(tmp_path):
    make(tmp_path / "j", 10, segment_records=4)

    assert everything(tmp_path / "j", start=12) == b""
    with pytest.raises(UsageError, match="ends at sequence 11, before 13"):
        everything(tmp_path / "j", start=13)


@pytest.mark.parametrize("wrong", [{"start": 0}, {"start": -1}, {"batch": 0}, {"until": -1}])
def test_a_range_that_cannot_be_is_a_usage_error(tmp_path, wrong):
    make(tmp_path / "j")

    with pytest.raises(UsageError, match="from 1"):
        everything(tmp_path / "j", **wrong)


def test_reading_changes_nothing_not_even_a_torn_journal(tmp_path):
    """JRN-14."""
    torn = torn_journal(tmp_path)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in torn.iterdir()}

    everything(torn)
    scan(torn)
    identify(torn)

    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in torn.iterdir()} == before


def test_a_reader_follows_while_a_writer_goes_on(tmp_path):
    with create(tmp_path / "j", segment_records=4) as journal:
        written = b""
        for index in range(10):
            written += journal.append(orders(1, first=1 + index))
            assert everything(tmp_path / "j") == written
            assert scan(tmp_path / "j").verdict == "clean"


def test_a_reader_never_takes_a_writer_at_work_for_damage(tmp_path):
    """JRN-15: whatever moment a reader comes, all that the mark vouches for is there to be read."""
    done = threading.Event()

    def write():
        with create(tmp_path / "j", segment_records=3) as journal:
            for index in range(60):
                journal.append(orders(2, first=1 + 2 * index))
                journal.sync()
                started.set()
        done.set()

    started = threading.Event()
    writer = threading.Thread(target=write)
    writer.start()
    started.wait(10)
    verdicts = []
    while not done.is_set():
        verdicts.append(scan(tmp_path / "j"))
    writer.join()

    assert verdicts
    assert [found.corruption for found in verdicts if found.corruption] == []
    assert [found.last for found in verdicts] == sorted(found.last for found in verdicts)


def test_snapshots_and_files_of_others_do_not_disturb(tmp_path):
    make(tmp_path / "j")
    (tmp_path / "j" / "notes.txt").write_text("mine")
    (tmp_path / "j" / "00000000000000000003.snapshot").write_bytes(b"junk")
    (tmp_path / "j" / "00000000000000000012-00000002.wal.tmp").write_bytes(b"cut short by a crash")

    assert scan(tmp_path / "j").verdict == "clean"
    Journal.open(tmp_path / "j").close()

    assert not list((tmp_path / "j").glob("*.tmp"))
    assert (tmp_path / "j" / "notes.txt").exists()


# --------------------------------------------------------------------------------------------- torn, and corrupt


def torn_journal(tmp_path, cut=26):
    """Return a journal of ten records, five of them durable, that a crash tore inside record 8."""
    with create(tmp_path / "whole") as journal:
        journal.append(orders(5))
        journal.sync()
        journal.append(orders(5, first=6))
        path = crash(tmp_path / "whole", tmp_path / "torn")
    os.truncate(segments(path)[0], HEADER_SIZE + 7 * 64 + cut)
    return path


def test_a_torn_tail_ends_the_journal_and_a_scan_tells_of_it(tmp_path):
    """JRN-8."""
    path = torn_journal(tmp_path)

    found = scan(path)

    assert (found.verdict, found.last, found.durable, found.sealed) == ("torn", 7, 5, False)
    assert found.torn
    assert found.torn.path == str(segments(path)[0])
    assert (found.torn.offset, found.torn.sequence) == (HEADER_SIZE + 7 * 64, 8)
    assert (found.torn.size, found.torn.records) == (26, 1)
    assert "26 bytes in the place of 1 records" in str(found.torn)
    assert len(everything(path)) == 7 * 64


def test_opening_keeps_a_torn_tail_beside_its_segment_before_it_cuts_it_off(tmp_path):
    """JRN-14."""
    path = torn_journal(tmp_path)
    segment = segments(path)[0]
    tail = segment.read_bytes()[HEADER_SIZE + 7 * 64 :]

    with Journal.open(path) as journal:
        assert journal.torn
        assert journal.torn.sequence == 8
        assert (journal.sequence, journal.durable) == (7, 7)
        journal.append(orders(1, first=8))

    assert Path(f"{segment}.torn").read_bytes() == tail
    assert segment.stat().st_size == HEADER_SIZE + 7 * 64
    assert (scan(path).verdict, scan(path).last) == ("clean", 9)


def test_sound_records_behind_a_hole_above_the_watermark_are_dropped(tmp_path):
    """JRN-8: a disk writes unsynced sectors in any order, so this is a crash and no corruption."""
    path = torn_journal(tmp_path, cut=64 * 3)
    segment = segments(path)[0]
    data = bytearray(segment.read_bytes())
    data[HEADER_SIZE + 6 * 64 : HEADER_SIZE + 7 * 64] = bytes(64)
    segment.write_bytes(data)

    found = scan(path)

    assert (found.verdict, found.last) == ("torn", 6)
    assert found.torn
    assert found.torn.records == 4


def test_zeros_behind_the_last_record_are_a_clean_end(tmp_path):
    """JRN-8: a segment may have been prepared in full before it was written."""
    path = torn_journal(tmp_path, cut=0)
    os.truncate(segments(path)[0], HEADER_SIZE + 20 * 64 + 5)

    assert (scan(path).verdict, scan(path).last) == ("clean", 7)
    with Journal.open(path) as journal:
        journal.append(orders(1))
    assert (scan(path).verdict, scan(path).last) == ("clean", 9)


def test_a_record_at_the_watermark_is_corrupt_and_the_one_above_is_torn(tmp_path):
    """JRN-7, JRN-8."""
    with create(tmp_path / "j") as journal:
        journal.append(orders(5))
        journal.sync()
        journal.append(orders(5))
        path = crash(tmp_path / "j", tmp_path / "crashed")
    flip(segments(path)[0], HEADER_SIZE + 5 * 64 + 40)
    assert (scan(path).verdict, scan(path).last) == ("torn", 5)

    flip(segments(path)[0], HEADER_SIZE + 4 * 64 + 40)

    assert (scan(path).verdict, scan(path).last) == ("corrupt", 4)
    sentence = refused(path, JournalCorrupt)
    assert re.fullmatch(
        rf"{re.escape(str(segments(path)[0]))}: offset {HEADER_SIZE + 256}, sequence 5: "
        r"expected checksum [0-9a-f]{8}, found [0-9a-f]{8}; durable up to sequence 5\. "
        r"Nothing was changed\. Restore this file from a copy, or replay only up to the sequence before\.",
        sentence,
    )
    assert len(everything(path, until=4)) == 4 * 64


def test_the_watermark_is_the_highest_of_its_four_witnesses(tmp_path):
    """JRN-6: each alone makes the loss of record 3 corruption."""
    with create(tmp_path / "j") as journal:
        journal.append(orders(5))
        crash(tmp_path / "j", tmp_path / "nothing")
        journal.sync()
        crash(tmp_path / "j", tmp_path / "mark")
        journal.append(orders(1))
        shutil.copytree(tmp_path / "nothing", tmp_path / "lag")
        shutil.copy(segments(tmp_path / "j")[0], tmp_path / "lag")
    shutil.copytree(tmp_path / "nothing", tmp_path / "snapshot")
    write_snapshot(tmp_path / "snapshot", pack_state(State(5, 0, 1, 1, [], [])), identify(tmp_path / "snapshot").uuid)
    shutil.copytree(tmp_path / "nothing", tmp_path / "segment")
    Journal.open(tmp_path / "segment").close()
    shutil.copy(tmp_path / "nothing" / MARK_NAME, tmp_path / "segment")
    shutil.copytree(tmp_path / "nothing", tmp_path / "foreign")
    write_snapshot(tmp_path / "foreign", pack_state(State(5, 0, 1, 1, [], [])), bytes(16))

    verdicts = {}
    for name in ("nothing", "foreign", "mark", "lag", "snapshot", "segment"):
        flip(segments(tmp_path / name)[0], HEADER_SIZE + 2 * 64 + 40)
        verdicts[name] = (scan(tmp_path / name).verdict, scan(tmp_path / name).durable)

    assert verdicts == {
        "nothing": ("torn", 0),
        "foreign": ("torn", 0),
        "mark": ("corrupt", 5),
        "lag": ("corrupt", 5),
        "snapshot": ("corrupt", 5),
        "segment": ("corrupt", 5),
    }


def test_the_watermark_of_sound_records_is_told_even_when_the_mark_is_older(tmp_path):
    """JRN-6."""
    with create(tmp_path / "j") as journal:
        journal.append(orders(5))
        before = (tmp_path / "j" / MARK_NAME).read_bytes()
        journal.sync()
        journal.append(orders(1))
        path = crash(tmp_path / "j", tmp_path / "crashed")
    (path / MARK_NAME).write_bytes(before)

    assert (scan(path).verdict, scan(path).durable) == ("clean", 5)


def test_a_torn_tail_ends_with_its_last_byte_that_is_not_0(tmp_path):
    """JRN-8: zeros behind it are prepared space, not part of it."""
    path = torn_journal(tmp_path)
    os.truncate(segments(path)[0], HEADER_SIZE + 500 * 64)

    torn = scan(path).torn
    assert torn
    assert torn.size == 26


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (4, bytes(4), "expected the checksum of the record before to be [0-9a-f]{8}, found 00000000"),
        (8, b"\x09", "expected sequence 3, found sequence 9"),
        (16, b"\1", "expected a time from 7 to 4611686018427387904, found 1"),
    ],
)
def test_a_record_that_is_sound_alone_and_does_not_follow_is_corrupt(tmp_path, offset, value, words):
    """JRN-4, JRN-7."""
    with create(tmp_path / "j") as journal:
        journal.append(orders(5, time_ns=7))
    path = segments(tmp_path / "j")[0]
    data = bytearray(path.read_bytes())
    record = slice(HEADER_SIZE + 2 * 64, HEADER_SIZE + 3 * 64)
    data[record.start + offset : record.start + offset + len(value)] = value
    salt = int.from_bytes(data[56:60], "little")
    data[record.start : record.start + 4] = crc32c(data[record.start + 4 : record.stop], salt).to_bytes(4, "little")
    path.write_bytes(data)

    assert re.search(f"sequence 3: {words}", refused(tmp_path / "j", JournalCorrupt))


def test_zeros_at_or_below_the_watermark_are_corrupt(tmp_path):
    """JRN-7: a write that was lost."""
    make(tmp_path / "j")
    path = segments(tmp_path / "j")[0]
    data = bytearray(path.read_bytes())
    data[HEADER_SIZE + 64 : HEADER_SIZE + 128] = bytes(64)
    path.write_bytes(data)

    assert "sequence 2: expected a record of 64 bytes, found zeros" in refused(tmp_path / "j", JournalCorrupt)


def flip(path, offset, bit=1):
    data = bytearray(path.read_bytes())
    data[offset] ^= bit
    path.write_bytes(data)


def test_one_damaged_slot_of_the_commit_mark_is_a_warning_and_two_are_corruption(tmp_path):
    """JRN-13."""
    make(tmp_path / "j")
    mark = tmp_path / "j" / MARK_NAME

    flip(mark, 33)

    found = scan(tmp_path / "j")
    assert (found.verdict, found.durable) == ("clean", 11)
    assert len(found.warnings) == 1
    assert f"{mark}: offset 0: a slot fails its checks" in found.warnings[0]

    flip(mark, MARK_SECTOR + 33)

    assert "two that do not" in refused(tmp_path / "j", SegmentCorrupt)


def test_opening_mends_a_damaged_slot(tmp_path):
    make(tmp_path / "j")
    flip(tmp_path / "j" / MARK_NAME, MARK_SECTOR)

    Journal.open(tmp_path / "j").close()

    assert scan(tmp_path / "j").warnings == ()


def test_a_mark_that_disagrees_with_its_record_is_corruption(tmp_path):
    """JRN-13: the mark repeats the checksum of its record, so a tail of another life cannot take its place."""
    for name, count in (("one", 5), ("two", 5)):
        with create(tmp_path / name) as journal:
            journal.append(orders(count, first=1 if name == "one" else 9))
    shutil.copy(tmp_path / "two" / MARK_NAME, tmp_path / "one")

    assert "as commit.mark has it" in refused(tmp_path / "one", JournalCorrupt)


def test_marks_of_two_journals_are_corruption(tmp_path):
    """JRN-13."""
    for name, seed in (("one", 7), ("two", 8)):
        make(tmp_path / name, seed=seed)
    one, two = (tmp_path / name / MARK_NAME for name in ("one", "two"))

    one.write_bytes(one.read_bytes()[:MARK_SECTOR] + two.read_bytes()[MARK_SECTOR:])

    assert "found slots of two" in refused(tmp_path / "one", SegmentCorrupt)


@pytest.mark.parametrize("size", [0, 1, 1023, 1025])
def test_a_commit_mark_of_another_length_is_corruption(tmp_path, size):
    make(tmp_path / "j")
    os.truncate(tmp_path / "j" / MARK_NAME, size)

    assert "expected a file of 1024 bytes" in refused(tmp_path / "j", SegmentCorrupt)


def test_a_mark_of_an_empty_journal_knows_its_salt(tmp_path):
    """JRN-13: with the same uuid, the first segment of another life is still another."""
    for name in ("one", "two"):
        journal = create(tmp_path / name)
        crash(tmp_path / name, tmp_path / f"{name}-crashed")
        journal.close()
    first = segments(tmp_path / "one-crashed")[0]
    forge(first, lambda header: header._replace(salt=5, prev_chain=5))

    assert "expected salt" in refused(tmp_path / "one-crashed", SegmentCorrupt)


def test_records_missing_at_the_end_below_the_watermark_are_corruption(tmp_path):
    """JRN-7."""
    make(tmp_path / "j")
    os.truncate(segments(tmp_path / "j")[0], HEADER_SIZE + 10 * 64)

    assert "sequence 11: expected a record of 64 bytes, found the end of the file" in refused(tmp_path / "j")


# ----------------------------------------------------------------------------------------------- segments and files


@pytest.fixture
def three(tmp_path):
    """A journal of three segments, and where it lies."""
    make(tmp_path / "j", 10, segment_records=4)
    return tmp_path / "j"


def test_a_missing_segment_is_refused_by_name(three):
    """JRN-10: the first, one in the middle, the last, or all."""
    files = segments(three)
    words = [
        f"{files[1].name}: offset 32, sequence 5: expected the segment that begins with sequence 1",
        (
            f"{files[0].name}: offset {HEADER_SIZE + 256}, sequence 5: expected records up to sequence 8, where "
            f"{files[2].name} follows"
        ),
        f"{files[1].name}: offset {HEADER_SIZE + 256}, sequence 9: expected a record of 64 bytes",
    ]
    for file, expected in zip(files, words, strict=True):
        data = file.read_bytes()
        file.unlink()
        assert expected in refused(three)
        file.write_bytes(data)
    for file in files:
        file.unlink()
    assert "expected a segment beside the commit mark" in refused(three)


def test_a_missing_commit_mark_is_refused_by_name(three):
    (three / MARK_NAME).unlink()

    assert f"{three / MARK_NAME}: this file is missing" in refused(three)


def test_a_short_segment_and_a_long_one_are_refused_by_name(three):
    """JRN-10."""
    first, *_, last = segments(three)
    data = first.read_bytes()

    os.truncate(first, len(data) - 1)
    assert "it was cut short, or a segment between the two is missing" in refused(three)
    first.write_bytes(data + bytes(64))
    assert f"expected at most {len(data)} bytes" in refused(three)
    first.write_bytes(data)
    last.write_bytes(last.read_bytes() + bytes(1 + 64 * 2))
    assert f"{last}: offset {HEADER_SIZE + 256}" in refused(three)


def test_bytes_behind_the_last_record_of_a_closed_segment_are_refused(tmp_path):
    """JRN-10: a segment that another follows ends before that one begins."""
    make(tmp_path / "j", 3)
    Journal.open(tmp_path / "j").close()
    first = segments(tmp_path / "j")[0]
    data = first.read_bytes()

    first.write_bytes(data + bytes(640))
    assert scan(tmp_path / "j").verdict == "clean"
    first.write_bytes(data + bytes(600) + b"\1")

    assert "expected zeros behind sequence 4" in refused(tmp_path / "j")


def test_the_segment_of_an_opening_is_missed_even_where_no_record_came_after_it(tmp_path):
    """JRN-10, JRN-13: of two slots that know the same watermark, that of the later epoch is the further one."""
    make(tmp_path / "j")
    with Journal.open(tmp_path / "j"):
        crash(tmp_path / "j", tmp_path / "copy")
    segments(tmp_path / "copy")[-1].unlink()

    assert "expected a segment of epoch 2, found none: it is missing" in refused(tmp_path / "copy")


def test_segments_that_changed_places_are_refused(three):
    """JRN-10."""
    one, two, _ = segments(three)
    data = one.read_bytes()

    one.write_bytes(two.read_bytes())
    two.write_bytes(data)

    assert f"{one}: offset 32, sequence 1: expected the segment that its name says" in refused(three)


def test_an_extra_segment_is_refused_by_name(three):
    """JRN-10."""
    extra = three / "00000000000000000005-00000002.wal"
    shutil.copy(segments(three)[1], extra)
    assert "this file was renamed" in refused(three)
    extra.unlink()

    (three / "notes.wal").write_text("mine")
    assert f"{three / 'notes.wal'}: offset 0, sequence 0: expected a segment's name" in refused(three)


def test_a_segment_of_another_journal_is_refused(three, tmp_path):
    """JRN-10."""
    make(tmp_path / "other", 10, segment_records=4, seed=8)
    one, two, _ = segments(three)
    data = two.read_bytes()

    shutil.copy(segments(tmp_path / "other")[1], two)
    assert "found one of" in refused(three)
    two.write_bytes(data)
    shutil.copy(segments(tmp_path / "other")[0], one)
    assert "which commit.mark belongs to" in refused(three)


def test_a_segment_of_another_life_of_the_same_journal_is_refused(tmp_path):
    """JRN-10: uuid, place and epoch agree; the chain and the SHA-256 do not."""
    make(tmp_path / "one", 3)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for name, first in (("one", 1), ("two", 2)):
        for _ in range(2):
            with Journal.open(tmp_path / name, source=Source.seeded(9)) as journal:
                journal.append(orders(2, first=first))
    shutil.copy(segments(tmp_path / "two")[-1], tmp_path / "one")
    shutil.copy(tmp_path / "two" / MARK_NAME, tmp_path / "one")

    assert "expected the checksum of the record before to be" in refused(tmp_path / "one", SegmentCorrupt)


def test_a_segment_that_agrees_in_all_but_its_own_header_is_refused(tmp_path):
    """JRN-10: the SHA-256 covers the header, created_ns included, that no record depends on."""
    make(tmp_path / "j", 3)
    Journal.open(tmp_path / "j").close()
    Journal.open(tmp_path / "j").close()
    first = segments(tmp_path / "j")[0]
    forge(first, lambda header: header._replace(created_ns=1))

    assert "expected the SHA-256 of an earlier segment to be" in refused(tmp_path / "j", SegmentCorrupt)


def test_an_empty_first_segment_is_verified_like_any_other(tmp_path):
    """JRN-10."""
    journal = create(tmp_path / "j")
    path = crash(tmp_path / "j", tmp_path / "crashed")
    journal.close()
    Journal.open(path).close()
    Journal.open(path).close()
    forge(segments(path)[0], lambda header: header._replace(created_ns=1))

    assert "expected the SHA-256 of an earlier segment to be" in refused(path, SegmentCorrupt)


def forge(path, change):
    """Give a segment a header that passes its own checks and is not its own."""
    data = path.read_bytes()
    header = change(unpack_header(data[:HEADER_SIZE], path.name, path.name))
    path.write_bytes(header.pack() + data[HEADER_SIZE:])


def forge_bytes(path, offset, value):
    """Change bytes of a segment's header, and its checksum with them."""
    data = bytearray(path.read_bytes())
    data[offset : offset + len(value)] = value
    data[124:128] = crc32c(data[:124]).to_bytes(4, "little")
    path.write_bytes(data)


def test_another_format_or_rules_version_is_refused_and_both_are_named(tmp_path):
    """JRN-5."""
    make(tmp_path / "format")
    forge_bytes(segments(tmp_path / "format")[0], 8, b"\3\0")
    make(tmp_path / "rules")
    forge(segments(tmp_path / "rules")[0], lambda header: header._replace(rules_version=2))

    assert "has format version 3, and this Ferrox reads format versions 1 and 2" in refused(
        tmp_path / "format", UnknownVersion
    )
    assert "is of rules version 2, and this Ferrox obeys rules version 1" in refused(tmp_path / "rules", UnknownVersion)


def test_a_version_that_damage_made_up_is_named_beside_the_checksum(tmp_path):
    make(tmp_path / "j")
    flip(segments(tmp_path / "j")[0], 8, 2)

    assert "(and format version 0, where this Ferrox reads 1 and 2)" in refused(tmp_path / "j", SegmentCorrupt)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (10, b"\x30"),  # record size
        (12, b"\1\2\3\4"),  # byte order
        (24, bytes(8)),  # epoch 0
        (32, bytes(8)),  # base sequence 0
        (32, b"\xff" * 8),  # base sequence -1
        (40 + 8, b"\xff" * 8),  # created before 1970
        (56, bytes(4)),  # salt 0
        (60, bytes(4)),  # chain of the first segment not its salt
        (64, b"\1"),  # SHA-256 of a segment before the first
        (100, bytes(4)),  # no room for orders
        (100, b"\xff" * 4),
        (104, bytes(4)),
        (104, b"\xff" * 4),
        (108, bytes(4)),  # no room for records
        (108, b"\xff" * 4),
        (112, b"\1"),  # reserved
        (123, b"\1"),
    ],
)
def test_a_header_field_that_cannot_be_is_refused_even_with_a_good_checksum(tmp_path, offset, value):
    make(tmp_path / "j")
    forge_bytes(segments(tmp_path / "j")[0], offset, value)

    refused(tmp_path / "j", SegmentCorrupt)


def test_a_later_segment_of_another_configuration_or_an_earlier_epoch_is_refused(tmp_path):
    """JRN-10."""
    make(tmp_path / "j", 3)
    for _ in range(2):
        Journal.open(tmp_path / "j").close()
    _, two, three = segments(tmp_path / "j")
    data = three.read_bytes()

    forge(three, lambda header: header._replace(order_capacity=1))
    assert "found one of" in refused(tmp_path / "j")
    three.write_bytes(data)
    forge(two, lambda header: header._replace(epoch=9))
    two = two.rename(two.with_name("00000000000000000005-00000009.wal"))
    assert "expected an epoch from 9, found 3" in refused(tmp_path / "j")


@pytest.mark.parametrize("which", ["segment", "mark"])
@pytest.mark.parametrize("what", ["link", "pipe", "directory", "nothing", "dangling"])
def test_what_stands_in_the_place_of_a_file_is_refused_by_name(tmp_path, which, what):
    make(tmp_path / "j")
    path = segments(tmp_path / "j")[0] if which == "segment" else tmp_path / "j" / MARK_NAME
    aside = tmp_path / "aside"
    path.rename(aside)
    if what == "link":
        path.symlink_to(aside)
    elif what == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    else:
        path.touch()

    for call in (everything, identify, Journal.open):
        with pytest.raises(CorruptInput) as error:
            call(tmp_path / "j")
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    assert scan(tmp_path / "j").verdict == "corrupt"


def test_the_journal_may_be_named_by_a_link_to_its_directory(tmp_path):
    sealed = make(tmp_path / "j")
    (tmp_path / "current").symlink_to(tmp_path / "j")

    assert everything(tmp_path / "current").startswith(sealed)


def test_a_disk_that_cannot_be_read_is_an_error_of_one_line(tmp_path, monkeypatch):
    make(tmp_path / "j")
    really = os.pread

    def fail(file, size, offset):
        if offset >= HEADER_SIZE:
            raise OSError(errno.EIO, "Input/output error")
        return really(file, min(size, 1000), offset)

    monkeypatch.setattr(os, "pread", fail)

    assert "cannot be read: Input/output error; copy the file to a sound disk" in str(scan(tmp_path / "j").corruption)


# ------------------------------------------------------------------------------------------------ the order of syncs


def traced(monkeypatch):
    """Record every sync and rename, by the name of the file."""
    calls = []
    for call in ("fsync", "fdatasync"):
        really = getattr(os, call)

        def sync(file, call=call, really=really):
            calls.append((call, Path(f"/proc/self/fd/{file}").readlink().name))
            really(file)

        monkeypatch.setattr(os, call, sync)
    rename = os.rename

    def renamed(source, target, **more):
        calls.append(("rename", target))
        rename(source, target, **more)

    monkeypatch.setattr(os, "rename", renamed)
    return calls


def test_a_journal_is_durable_with_its_names_before_the_first_record(tmp_path, monkeypatch):
    """JRN-17."""
    calls = traced(monkeypatch)

    with create(tmp_path / "j"):
        segment = "00000000000000000001-00000001.wal"
        assert calls == [
            ("fsync", tmp_path.name),
            ("fsync", f"{MARK_NAME}.tmp"),
            ("rename", MARK_NAME),
            ("fsync", "j"),
            ("fsync", f"{segment}.tmp"),
            ("rename", segment),
            ("fsync", "j"),
        ]


def test_a_sync_makes_the_records_durable_before_the_mark_says_so(tmp_path, monkeypatch):
    """JRN-11, JRN-13: and so does a rotation, whose file is there before it is needed."""
    with create(tmp_path / "j", segment_records=2) as journal:
        one, two = "00000000000000000001-00000001.wal", "00000000000000000003-00000001.wal"
        journal.append(orders(2))
        calls = traced(monkeypatch)
        journal.sync()
        assert calls == [("fdatasync", one), ("fdatasync", MARK_NAME)]
        calls.clear()
        journal.append(orders(1))
        assert calls == [("fsync", f"{two}.tmp"), ("rename", two), ("fsync", "j"), ("fdatasync", one)]


def test_opening_syncs_every_file_before_it_decides_and_keeps_the_tail_before_it_cuts(tmp_path, monkeypatch):
    """JRN-14: a verdict must not rest on bytes that only the page cache has."""
    path = torn_journal(tmp_path)
    one, two = "00000000000000000001-00000001.wal", "00000000000000000008-00000002.wal"
    calls = traced(monkeypatch)
    truncate = os.ftruncate
    monkeypatch.setattr(os, "ftruncate", lambda file, size: (calls.append(("cut", one)), truncate(file, size)))

    with Journal.open(path):
        assert calls == [
            ("fsync", one),
            ("fsync", MARK_NAME),
            ("fsync", path.name),
            ("fsync", f"{one}.torn.tmp"),
            ("rename", f"{one}.torn"),
            ("fsync", path.name),
            ("cut", one),
            ("fsync", one),
            ("fsync", f"{two}.tmp"),
            ("rename", two),
            ("fsync", path.name),
            ("fdatasync", MARK_NAME),
        ]


def test_a_directory_that_cannot_be_locked_is_a_usage_error(tmp_path, monkeypatch):
    make(tmp_path / "j")
    monkeypatch.setattr("fcntl.flock", failing(errno.ENOLCK, "No locks available"))

    with pytest.raises(UsageError, match="cannot be locked: No locks available"):
        Journal.open(tmp_path / "j")


# -------------------------------------------------------------------------------------------------- writes that fail


def failing(number, words="No space left on device"):
    def fail(*_):
        raise OSError(number, words)

    return fail


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_the_first_write_or_sync_that_fails_is_final(tmp_path, monkeypatch, call):
    """JRN-16."""
    journal = create(tmp_path / "j")
    journal.append(orders(2))
    journal.sync()

    def append_and_sync():
        journal.append(orders(1))
        journal.sync()

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(errno.EIO, "Input/output error"))
        with pytest.raises(JournalFailed, match="Input/output error; durable up to sequence 2"):
            append_and_sync()

    for again in (lambda: journal.append(orders(1)), journal.sync):
        with pytest.raises(JournalFailed, match="durable up to sequence 2"):
            again()
    assert journal.durable == 2
    journal.close()

    assert not scan(tmp_path / "j").sealed
    assert scan(tmp_path / "j").durable == 2
    with Journal.open(tmp_path / "j") as journal:
        assert journal.sequence in (2, 3)


def test_a_last_sync_that_fails_is_told_and_the_journal_is_let_go(tmp_path, monkeypatch):
    journal = create(tmp_path / "j")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing(errno.EIO))
        with pytest.raises(JournalFailed, match="the last sync failed"):
            journal.close()

    Journal.open(tmp_path / "j").close()


def test_a_journal_that_cannot_be_made_or_opened_leaves_no_lock_behind(tmp_path, monkeypatch):
    make(tmp_path / "j")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing(errno.ENOSPC))
        with pytest.raises(JournalFailed, match="cannot be created: No space left on device"):
            create(tmp_path / "new")
        with pytest.raises(JournalFailed, match="cannot be opened for append: No space left on device"):
            Journal.open(tmp_path / "j")

    assert list((tmp_path / "new").iterdir()) == []
    make(tmp_path / "new")
    Journal.open(tmp_path / "j").close()


def test_a_call_that_writes_only_a_part_is_gone_on_with(tmp_path, monkeypatch):
    really = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: really(file, bytes(data)[:1000], offset))

    sealed = make(tmp_path / "j", 100)

    assert everything(tmp_path / "j").startswith(sealed)


def test_an_append_that_was_interrupted_is_left_to_recovery(tmp_path, monkeypatch):
    """JRN-16: after a keyboard interrupt between two writes nobody knows what is in the file."""
    journal = create(tmp_path / "j", backend="pwrite")
    journal.append(orders(2))
    really = os.pwrite

    def interrupted(file, data, offset):
        really(file, bytes(data)[:100], offset)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.append(orders(3))
    with pytest.raises(JournalFailed, match="was interrupted"):
        journal.append(orders(1))
    journal.close()

    assert (scan(tmp_path / "j").verdict, scan(tmp_path / "j").last) == ("torn", 3)
    with Journal.open(tmp_path / "j") as journal:
        assert journal.sequence == 3


def test_every_error_of_a_journal_is_one_that_ferrox_explains():
    assert all(issubclass(error, FerroxError) for error in (JournalFailed, SegmentCorrupt, UnknownVersion))


GOLDEN = {
    "00000000000000000001-00000001.wal": "f05ddbac1a47c98ab34f8822f3d83f6704c6aea598f73cb3ee3aae20c52e1c01",
    "00000000000000000003-00000001.wal": "a646e2324c6feeb75bb73717f3da14c95537002a46b384bc08e953dc7e72d51f",
    "commit.mark": "94261be14991a9b80ab1c600b4ae10b714ecb62d1d99d02f3e7c553acdfa4405",
}
