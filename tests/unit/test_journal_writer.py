"""What a writer does beyond appending: backends, segments made ahead, levels, a disk that is full, a syncer."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crc32c import crc32c

from ferrox.engine import Capacity, make_engine
from ferrox.errors import DiskLow, JournalCorrupt, JournalFailed, SegmentCorrupt, UsageError
from ferrox.journal import Durability, Journal, Source, command_records, read, scan, syncer
from ferrox.journal.keeper import InlineKeeper, Place
from ferrox.journal.layout import HEADER_SIZE, MARK, MARK_NAME, unpack_marks
from ferrox.journal.storage import BACKENDS
from ferrox.messages import (
    COMMAND_SIZE,
    ENVELOPE,
    RECORD_DTYPE,
    RECORD_SIZE,
    CancelOrder,
    Command,
    DefineInstrument,
    MassCancel,
    NewOrder,
    SetLimit,
    SetTradingState,
)
from ferrox.snapshot import write_snapshot
from ferrox.terms import Annotation, Side, TimeInForce, TradingState
from ferrox.testing.workload import applier

CAPACITY = Capacity(orders=1000, instruments=10)


def orders(count, first=1):
    frames = [NewOrder(Side.BUY, TimeInForce.GTC, 0, 1, first + n, 100, 5).pack() for n in range(count)]
    return command_records(frames, time_ns=1)


def cancels(count, first=1):
    return command_records([CancelOrder(1, first + n).pack() for n in range(count)], time_ns=1)


def create(path, segment_records=1000, seed=7, **more):
    return Journal.create(path, CAPACITY, segment_records=segment_records, source=Source.seeded(seed), **more)


def segments(path):
    return sorted(Path(path).glob("*.wal"))


def keeper_of(journal: Journal) -> Any:
    return journal._keeper


def contents(path):
    return {file.name: file.read_bytes() for file in Path(path).iterdir()}


def everything(path):
    return b"".join(read(path))


# -------------------------------------------------------------------------------------------------------- backends


@pytest.mark.parametrize("syncer", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_with_a_syncer_or_without_writes_the_same_journal(backend, syncer, tmp_path):
    """JRN-18: once it is closed, nothing tells how it was written but the slots of the commit mark."""
    with create(tmp_path / "plain", segment_records=70) as journal:
        for first in range(1, 200, 10):
            journal.append(orders(10, first))
    with create(tmp_path / "other", segment_records=70, backend=backend, syncer=syncer) as journal:
        for first in range(1, 200, 10):
            journal.append(orders(10, first))

    plain, other = contents(tmp_path / "plain"), contents(tmp_path / "other")

    assert plain.keys() == other.keys()
    if not syncer:  # whose progress stands in the lag of the records
        assert plain == other
    assert (scan(tmp_path / "other").verdict, scan(tmp_path / "other").last) == ("clean", 201)


def test_an_unknown_backend_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="choose one of: mmap, pwrite"):
        create(tmp_path / "j", backend="tape")
    assert not (tmp_path / "j").exists()


def test_a_creation_that_was_interrupted_can_be_repeated(tmp_path, monkeypatch):
    """JRN-17: the first segment comes last, so without it nothing was ever written."""
    really = os.rename
    for steps in range(2):

        def rename(source, target, left=[steps], **more):  # noqa: B006
            if not left[0]:
                os._exit(0)
            left[0] -= 1
            really(source, target, **more)

        pid = os.fork()
        if not pid:
            monkeypatch.setattr(os, "rename", rename)
            create(tmp_path / "j")
        os.waitpid(pid, 0)
        assert not segments(tmp_path / "j")

    create(tmp_path / "j").close()
    assert scan(tmp_path / "j").verdict == "clean"


def test_a_commit_mark_that_knows_of_records_is_no_free_directory(tmp_path):
    with create(tmp_path / "j") as journal:
        journal.append(orders(1))
    segments(tmp_path / "j")[0].unlink()

    with pytest.raises(UsageError, match="already holds a journal"):
        create(tmp_path / "j")


# --------------------------------------------------------------------------------------------------- prepared files


def test_a_segment_that_is_only_prepared_is_not_part_of_the_journal(tmp_path):
    """JRN-19."""
    with create(tmp_path / "j", segment_records=8) as journal:
        journal.append(orders(7))
        assert [path.name for path in segments(tmp_path / "j")] == [
            "00000000000000000001-00000001.wal",
            "00000000000000000009-00000001.wal",
        ]
        assert not any(segments(tmp_path / "j")[1].read_bytes())
        found = scan(tmp_path / "j")
        assert (found.verdict, found.last, len(found.segments)) == ("clean", 7, 1)

    assert len(segments(tmp_path / "j")) == 1


def test_opening_removes_what_a_crash_left_prepared(tmp_path):
    """JRN-14, JRN-19."""
    with create(tmp_path / "j", segment_records=8) as journal:
        journal.append(orders(7))
        shutil.copytree(tmp_path / "j", tmp_path / "crashed")

    with Journal.open(tmp_path / "crashed") as journal:
        assert journal.torn is None
        assert [path.stat().st_size for path in segments(tmp_path / "crashed")[:1]] == [HEADER_SIZE + 7 * RECORD_SIZE]
        assert [path.name for path in segments(tmp_path / "crashed")] == [
            "00000000000000000001-00000001.wal",
            "00000000000000000008-00000002.wal",
        ]


@pytest.fixture
def rotated(tmp_path, monkeypatch):
    """A crash behind a rotation that did not wait for the disk: 8 records and 4, of which the first 4 are durable."""
    with create(tmp_path / "running", segment_records=8) as journal:
        journal.append(orders(4))
        journal.sync()
        with monkeypatch.context() as patch:
            patch.setattr(InlineKeeper, "_finish", lambda _: None)
            journal.append(orders(8, 5))
        shutil.copytree(tmp_path / "running", tmp_path / "crashed")
    return tmp_path / "crashed"


@pytest.mark.parametrize("lost", range(1, 13))
def test_a_hole_above_the_watermark_drops_all_behind_it_in_later_segments_too(lost, rotated):
    """JRN-8, JRN-14: and what was dropped is kept aside."""
    path = rotated
    whole = everything(path)
    one, two = segments(path)[:2]
    target, index = (one, lost - 1) if lost <= 8 else (two, lost - 9)
    with target.open("r+b") as file:
        file.seek(HEADER_SIZE + index * RECORD_SIZE)
        file.write(bytes(RECORD_SIZE))

    found = scan(path)

    # The second segment was begun when the syncs of the first were under way, so it is no witness for it.
    assert found.durable == 4
    if lost <= 4:
        assert isinstance(found.corruption, JournalCorrupt)
        assert (found.verdict, found.corruption.sequence) == ("corrupt", lost)
        return
    assert found.last == lost - 1
    # The last record may be missing without a trace.
    assert found.verdict == ("torn" if lost < 12 else "clean")
    with Journal.open(path) as journal:
        assert journal.sequence == lost - 1
        assert (journal.torn is not None) == (lost < 12)
    assert everything(path)[:-RECORD_SIZE] == whole[: RECORD_SIZE * (lost - 1)]
    assert (path / f"{two.name}.torn").exists() == (lost <= 11)
    assert len(segments(path)) == (2 if lost <= 8 else 3)


def test_records_of_a_later_segment_are_witnesses_of_the_watermark(tmp_path):
    """JRN-6: nothing else knows that the hole before them was on disk."""
    with create(tmp_path / "running", segment_records=8) as journal:
        before = (tmp_path / "running" / MARK_NAME).read_bytes()
        journal.append(orders(8))
        journal.sync()
        journal.append(orders(4, 9))
        shutil.copytree(tmp_path / "running", tmp_path / "j")
    (tmp_path / "j" / MARK_NAME).write_bytes(before)
    with segments(tmp_path / "j")[0].open("r+b") as file:
        file.seek(HEADER_SIZE + 4 * RECORD_SIZE)
        file.write(bytes(RECORD_SIZE))

    found = scan(tmp_path / "j").corruption

    assert isinstance(found, JournalCorrupt)
    assert (found.sequence, found.durable) == (5, 8)


def test_the_beginnings_of_segments_are_witnesses_of_the_watermark(tmp_path, monkeypatch):
    """JRN-6, JRN-11: when the third began, the first was on disk; when a life began, all before it was."""
    monkeypatch.setattr(InlineKeeper, "durable", 0)  # so that no record's lag tells
    with create(tmp_path / "running", segment_records=4) as journal:
        before = (tmp_path / "running" / MARK_NAME).read_bytes()
        journal.append(orders(10))
        shutil.copytree(tmp_path / "running", tmp_path / "j")
    (tmp_path / "j" / MARK_NAME).write_bytes(before)

    assert scan(tmp_path / "j").durable == 4

    with Journal.open(tmp_path / "j", source=Source.seeded(8)):
        shutil.copytree(tmp_path / "j", tmp_path / "again")
    (tmp_path / "again" / MARK_NAME).write_bytes(before)
    assert scan(tmp_path / "again").durable == 10


def test_a_lost_header_is_torn_above_the_watermark_and_corrupt_below(rotated, tmp_path):
    """JRN-8: it is judged as a record is."""
    path = rotated
    two = segments(path)[1]
    data = two.read_bytes()
    two.write_bytes(bytes(HEADER_SIZE) + data[HEADER_SIZE:])

    found = scan(path)
    assert found.torn
    assert (found.verdict, found.last, found.torn.files) == ("torn", 8, (two.name,))

    shutil.copy(tmp_path / "running" / MARK_NAME, path / MARK_NAME)  # which knows all twelve
    assert isinstance(scan(path).corruption, SegmentCorrupt)
    assert str(scan(path).corruption).startswith(f"{two}: offset 0, sequence 9: expected the magic")


def test_a_damaged_header_before_another_segment_is_corrupt(tmp_path):
    with create(tmp_path / "j", segment_records=2) as journal:
        journal.append(orders(6))
    two = segments(tmp_path / "j")[1]
    two.write_bytes(bytes(HEADER_SIZE) + two.read_bytes()[HEADER_SIZE:])
    (tmp_path / "j" / MARK_NAME).unlink()
    mark = create(tmp_path / "k", seed=7)
    shutil.copy(tmp_path / "k" / MARK_NAME, tmp_path / "j" / MARK_NAME)
    mark.close()

    assert str(scan(tmp_path / "j").corruption).startswith(f"{two}: offset 0, sequence 3")


def test_the_commit_mark_knows_of_an_opening_whose_segment_is_gone(tmp_path):
    """JRN-8, JRN-10."""
    create(tmp_path / "j").close()
    Journal.open(tmp_path / "j").close()
    segments(tmp_path / "j")[1].unlink()

    assert "expected a segment of epoch 2, found none" in str(scan(tmp_path / "j").corruption)


# ------------------------------------------------------------------------------------------------- a later beginning


def test_a_journal_may_begin_behind_a_snapshot_and_nowhere_else(tmp_path):
    """JRN-20."""
    engine = make_engine("reference", CAPACITY)
    with create(tmp_path / "j", segment_records=4) as journal:
        engine.apply(journal.append(orders(6)))
        engine.apply(journal.append(orders(4, 7)))
    segments(tmp_path / "j")[0].unlink()

    assert "and no sound snapshot of sequence 4 or later stands for it" in str(scan(tmp_path / "j").corruption)

    write_snapshot(tmp_path / "j", engine.snapshot(), journal.uuid)
    found = scan(tmp_path / "j")

    assert (found.verdict, found.first, found.last) == ("clean", 5, 11)
    assert len(b"".join(read(tmp_path / "j", start=5))) == 7 * RECORD_SIZE
    with pytest.raises(UsageError, match=r"begins at sequence 5, for what was before is archived; .* sequence 10"):
        everything(tmp_path / "j")
    with Journal.open(tmp_path / "j") as journal:
        assert journal.sequence == 11


# ------------------------------------------------------------------------------------------------------------- marks


def test_a_mark_carries_the_watermark_and_what_the_engine_said(tmp_path):
    """JRN-9, JRN-21."""
    engine = make_engine("reference", CAPACITY)
    with create(tmp_path / "j") as journal:
        define = DefineInstrument(TradingState.OPEN, 1, 0, 1000, 1, 1).pack()
        reports = applier(engine)(journal.append(command_records([define], time_ns=1)))
        journal.sync()
        sealed = journal.mark(1, 1, crc32c(reports))

    _crc, _before, sequence, time_ns, kind, size, session, lag = ENVELOPE.unpack_from(sealed)
    assert (sequence, time_ns, kind, size, session, lag) == (2, 1, Annotation.MARK, 0, 0, 1)
    assert MARK.unpack(sealed[-COMMAND_SIZE:]) == (1, 1, crc32c(reports))
    assert everything(tmp_path / "j")[RECORD_SIZE : 2 * RECORD_SIZE] == sealed


def test_a_mark_repeats_the_time_before_it_whatever_the_clock_says(tmp_path):
    """JRN-9."""
    with Journal.create(tmp_path / "j", CAPACITY) as journal:
        journal.append(orders(1))
        journal.mark()

    times = np.frombuffer(everything(tmp_path / "j"), RECORD_DTYPE)["time_ns"]
    assert times.tolist() == [1, 1, 1]


# ------------------------------------------------------------------------------------------------------------ levels


@pytest.mark.parametrize(
    ("durability", "durable", "marked"), [(Durability.D0, 0, 0), (Durability.D1, 3, 0), (Durability.D2, 3, 3)]
)
def test_a_level_says_what_is_on_disk_when_append_returns(durability, durable, marked, tmp_path):
    """JRN-22."""
    with create(tmp_path / "j", durability=durability) as journal:
        journal.append(orders(3))

        assert (journal.released, journal.durable, keeper_of(journal).marked) == (3, durable, marked)


@pytest.mark.parametrize("durability", Durability)
def test_with_a_syncer_append_returns_at_once_and_released_follows(durability, tmp_path):
    """JRN-22."""
    with create(tmp_path / "j", durability=durability, syncer=True, segment_records=100) as journal:
        for first in range(1, 1000, 10):
            journal.append(orders(10, first))
            assert journal.durable <= journal.sequence
            assert journal.released <= journal.sequence
        end = time.monotonic() + 30
        while journal.released < 1000 and time.monotonic() < end:
            time.sleep(0.001)
        assert journal.released == 1000
        journal.sync()
        assert journal.durable == 1000

    assert (scan(tmp_path / "j").verdict, scan(tmp_path / "j").last) == ("clean", 1001)


# ------------------------------------------------------------------------------------------------------ a disk is full


class Disk:
    """A disk that has room for so many more allocations."""

    def __init__(self, monkeypatch, room):
        self.room = room
        self.really = os.posix_fallocate
        monkeypatch.setattr(os, "posix_fallocate", self.allocate)

    def allocate(self, file, offset, size):
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= 1
        self.really(file, offset, size)


STILL_TAKEN: list[Command] = [CancelOrder(1, 1), MassCancel(4), SetTradingState(3, 1), SetLimit(1, 0, 7, 1)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("room", range(6))
def test_a_full_disk_takes_cancels_and_nothing_else_until_there_is_room(room, backend, tmp_path, monkeypatch):
    """JRN-23: at every allocation."""
    journal = create(tmp_path / "j", segment_records=100, backend=backend)
    disk = Disk(monkeypatch, room)
    with pytest.raises(DiskLow, match="kept for cancels; nothing was written"):  # noqa: PT012
        for first in range(1, 10_000, 5):
            journal.append(orders(5, first))
    assert journal.disk_low
    before = journal.sequence

    kept = 0
    with pytest.raises(DiskLow):  # noqa: PT012
        while True:
            journal.append(command_records([STILL_TAKEN[kept % 4].pack()], time_ns=1))
            kept += 1
    with pytest.raises(DiskLow):
        journal.append(orders(1))

    assert 20 <= kept <= 30
    assert journal.sequence == before + kept
    disk.room = 100
    journal.append(orders(50, 20_000))
    assert not journal.disk_low
    journal.close()
    assert (scan(tmp_path / "j").verdict, scan(tmp_path / "j").last) == ("clean", before + kept + 51)


def test_a_disk_that_stays_full_lets_a_journal_close(tmp_path, monkeypatch):
    """JRN-23: without a SEAL if there is no room for it, and nothing is lost."""
    journal = create(tmp_path / "j", segment_records=8)
    journal.append(orders(6))
    Disk(monkeypatch, 0)
    journal.append(cancels(2))

    assert journal.close() == b"" or scan(tmp_path / "j").sealed
    assert scan(tmp_path / "j").last >= 8


def test_another_failure_to_make_room_is_final(tmp_path, monkeypatch):
    """JRN-16."""
    journal = create(tmp_path / "j", segment_records=4)

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    with pytest.raises(JournalFailed, match="making room failed: Input/output error"):
        journal.append(orders(5))
    with pytest.raises(JournalFailed):
        journal.append(cancels(1))
    journal.close()


def test_a_long_segment_that_cannot_be_synced_beside_the_writer_stops_it(tmp_path, monkeypatch):
    """JRN-11, JRN-16: at the latest when the next one is full."""
    really = os.fdatasync

    def sync(file):
        if threading.current_thread().name == "ferrox-finish":
            raise OSError(errno.EIO, "Input/output error")
        really(file)

    monkeypatch.setattr(os, "fdatasync", sync)
    journal = create(tmp_path / "j", segment_records=20_000)
    journal.append(orders(20_001))
    with pytest.raises(JournalFailed, match="Input/output error; durable up to sequence 0"):
        journal.append(orders(20_000, 20_002))
    with pytest.raises(JournalFailed):
        journal.append(cancels(1))
    journal.close()


def test_a_long_segment_is_synced_and_hashed_beside_the_writer(tmp_path):
    """JRN-10, JRN-11."""
    with create(tmp_path / "j", segment_records=20_000) as journal:
        for first in range(1, 70_000, 5_000):
            journal.append(orders(5_000, first))
        assert journal.durable >= 40_000

    assert (scan(tmp_path / "j").verdict, scan(tmp_path / "j").last) == ("clean", 70_001)


# ------------------------------------------------------------------------------------------------------- the syncer


@pytest.mark.parametrize("level", Durability)
def test_a_syncer_says_durable_behind_the_sync_and_marked_behind_the_marks(level, tmp_path, monkeypatch):
    """JRN-13, JRN-22: its own side, in this process."""
    seen = []
    really = os.fdatasync
    with create(tmp_path / "j") as journal:
        journal.append(orders(3))
        fcntl.flock(keeper_of(journal).marks.file, fcntl.LOCK_UN)
        memory, wake = os.memfd_create("words"), os.eventfd(0)
        os.ftruncate(memory, syncer.PAGE)
        directory = os.open(tmp_path / "j", os.O_RDONLY)
        side = syncer.Syncer(memory, wake, directory, Place(1, 1, 1000), level)

        def sync(file):
            name = Path(f"/proc/self/fd/{file}").readlink().name
            seen.append((name, side.words[syncer.DURABLE], side.words[syncer.MARKED]))
            really(file)

        monkeypatch.setattr(os, "fdatasync", sync)
        side._sync(3)
        monkeypatch.undo()
        side.marks.close()
        for file in (memory, wake, directory, *side.files.values()):
            os.close(file)

    expected = [("00000000000000000001-00000001.wal", 0, 0)]
    assert seen == (expected if level < Durability.D2 else [*expected, (MARK_NAME, 3, 0)])
    assert (side.words[syncer.DURABLE], side.words[syncer.MARKED]) == (3, 3 if level == Durability.D2 else 0)
    assert side.marks.mark.durable == 3


def test_a_syncer_that_is_killed_stops_its_writer(tmp_path):
    """JRN-16: nobody can know any more what is on disk."""
    journal = create(tmp_path / "j", syncer=True)
    journal.append(orders(1))
    keeper_of(journal).process.kill()
    keeper_of(journal).process.wait()

    with pytest.raises(JournalFailed, match="a sync failed: the syncer ended with status -9"):
        journal.sync()
    with pytest.raises(JournalFailed):
        journal.append(orders(1, 2))
    assert journal.close() == b""
    with Journal.open(tmp_path / "j") as journal:
        assert journal.sequence == 1


WRITER = """
import sys
from ferrox.engine import Capacity
from ferrox.journal import Journal, command_records
from ferrox.messages import CancelOrder
journal = Journal.create(sys.argv[1], Capacity(10, 10), segment_records=1000, syncer=True)
records = command_records([CancelOrder(1, 1 + n).pack() for n in range(7)])
while True:
    journal.append(records)
    print(journal.sequence, flush=True)
"""


def test_when_a_writer_is_killed_its_syncer_finishes_what_was_written(tmp_path):
    """JRN-22: all that was acknowledged is there, and on disk, and the next writer waits for that."""
    acknowledged = 0
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "j")], stdout=subprocess.PIPE) as process:
        assert process.stdout
        for _ in range(1000):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, process.stdout.read().split(b"\n")[:-1])])

    with (tmp_path / "j" / MARK_NAME).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # which the syncer holds until it has finished
        assert unpack_marks(file.read(), MARK_NAME)[0].durable >= acknowledged
    with Journal.open(tmp_path / "j") as journal:
        assert journal.torn is None
        assert journal.sequence >= acknowledged > 0
        assert journal.durable >= acknowledged


def test_flipped_bits_below_the_syncers_watermark_are_corrupt(tmp_path):
    with create(tmp_path / "j", syncer=True) as journal:
        journal.append(orders(10))
        journal.sync()
        shutil.copytree(tmp_path / "j", tmp_path / "crashed", ignore=shutil.ignore_patterns("*.tmp"))
    path = segments(tmp_path / "crashed")[0]
    data = bytearray(path.read_bytes())
    data[HEADER_SIZE + 9 * RECORD_SIZE + 40] ^= 1
    path.write_bytes(data)

    assert isinstance(scan(tmp_path / "crashed").corruption, JournalCorrupt)
