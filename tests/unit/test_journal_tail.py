"""A reader of a live journal gives every record once, waits for what is not yet sound, tells what was taken back."""

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c

from ferrox.engine import Capacity
from ferrox.errors import CorruptInput, JournalCorrupt, JournalFailed, SegmentCorrupt, TakenBack, UsageError
from ferrox.journal import Journal, Source, Tail, command_records, follow, read, scan
from ferrox.journal.layout import HEADER_SIZE, MARK_NAME, unpack_header
from ferrox.journal.storage import BACKENDS
from ferrox.messages import RECORD_DTYPE, RECORD_SIZE, NewOrder
from ferrox.snapshot import write_snapshot
from ferrox.state import State, pack_state
from ferrox.terms import Side, TimeInForce

CAPACITY = Capacity(orders=1000, instruments=10)

WRITER = """
import sys
from ferrox.engine import Capacity
from ferrox.journal import Journal, Source, command_records
from ferrox.messages import NewOrder

directory, backend, syncer, count, segment_records, openings = sys.argv[1:]
records = command_records([NewOrder(1, 1, 0, 1, 1 + n, 100, 5).pack() for n in range(1000)], time_ns=1)
sizes = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987]
options = dict(backend=backend, syncer=syncer == "True")
journal = Journal.create(directory, Capacity(1000, 10), segment_records=int(segment_records), **options)
print("created", flush=True)
done = turn = 0
for opening in range(int(openings)):
    while done < int(count) * (opening + 1) // int(openings):
        journal.append(records[: sizes[turn % len(sizes)] * 64])
        done += sizes[turn % len(sizes)]
        turn += 1
    if opening % 2:
        journal.sync()
    journal.close()
    if opening + 1 < int(openings):
        journal = Journal.open(directory, **options)
"""


ENDLESS = """
import sys
from pathlib import Path
from ferrox.engine import Capacity
from ferrox.journal import Journal, command_records
from ferrox.messages import NewOrder

directory, backend, syncer = sys.argv[1:]
records = command_records([NewOrder(1, 1, 0, 1, 1 + n, 100, 5).pack() for n in range(1000)], time_ns=1)
options = dict(backend=backend, syncer=syncer == "True")
if Path(directory).exists():
    journal = Journal.open(directory, **options)
else:
    journal = Journal.create(directory, Capacity(1000, 10), segment_records=3000, **options)
print("begun", flush=True)
turn = 0
while True:
    turn += 1
    journal.append(records[: turn % 97 * 64])
"""


def orders(count, first=1):
    frames = [NewOrder(Side.BUY, TimeInForce.GTC, 0, 1, first + n, 100, 5).pack() for n in range(count)]
    return command_records(frames, time_ns=1)


def create(path, segment_records=1000, seed=7, **more):
    return Journal.create(path, CAPACITY, segment_records=segment_records, source=Source.seeded(seed), **more)


def segments(path):
    return sorted(Path(path).glob("*.wal"))


def contents(path):
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in Path(path).iterdir()}


def all_of(tail, batch=4096):
    return b"".join(iter(lambda: tail.poll(batch), b""))


def state(sequence):
    return pack_state(State(sequence, 1, CAPACITY.orders, CAPACITY.instruments, [], []))


def crash(path, target):
    return shutil.copytree(path, target)


def put(path, sequence, data):
    """Write over a record in the first segment that may hold it."""
    path = max(file for file in segments(path) if int(file.name[:20]) <= sequence)
    with path.open("r+b") as file:
        file.seek(HEADER_SIZE + (sequence - int(path.name[:20])) * RECORD_SIZE)
        file.write(data)
    return path


# ----------------------------------------------------------------------------------------------- beside a live writer


@pytest.mark.parametrize("syncer", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tail_beside_a_writer_gives_every_record_once_and_in_order(backend, syncer, tmp_path):
    """JRN-24: over rotations, beside a process that appends in batches of all sizes."""
    program = [sys.executable, "-c", WRITER, tmp_path / "j", backend, str(syncer), "200000", "30000", "1"]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"created\n"
        batches = list(follow(tmp_path / "j", until_sealed=True, idle=0))
        assert writer.wait() == 0

    found = b"".join(batches)

    assert found == b"".join(read(tmp_path / "j"))
    assert len(found) // RECORD_SIZE > 200_000
    assert len(segments(tmp_path / "j")) == 7
    assert max(map(len, batches)) <= 4096 * RECORD_SIZE


def test_a_tail_goes_on_over_openings_while_they_happen(tmp_path):
    """JRN-24: sealed is not the end for ever."""
    program = [sys.executable, "-c", WRITER, tmp_path / "j", "mmap", "False", "30000", "4000", "6"]
    parts = []
    with subprocess.Popen(program, stdout=subprocess.PIPE) as writer, _begun(writer, tmp_path / "j") as tail:
        while not (tail.sealed and tail.header.epoch == 6):
            parts.append(tail.poll(500))
        assert writer.wait() == 0

    assert b"".join(parts) == b"".join(read(tmp_path / "j"))
    assert scan(tmp_path / "j").kinds[255] == 6


def _begun(writer, directory):
    assert writer.stdout.readline() == b"created\n"
    return Tail(directory)


@pytest.mark.parametrize("syncer", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_writer_that_is_killed_takes_nothing_back(backend, syncer, tmp_path):
    """JRN-24, JRN-22: what a tail was given survives every kill -9 of the writer, in the middle of whatever it did."""
    program = [sys.executable, "-c", ENDLESS, tmp_path / "j", backend, str(syncer)]
    parts: list[bytes] = []
    tail = None
    for turn in range(3):
        with subprocess.Popen(program, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"begun\n"
            tail = tail or Tail(tmp_path / "j")
            while sum(map(len, parts)) < 10_000 * (turn + 1) * RECORD_SIZE:
                parts.append(tail.poll(1000))
            writer.kill()
    assert tail is not None
    Journal.open(tmp_path / "j").close()
    with tail:
        parts.append(all_of(tail))

    assert b"".join(parts) == b"".join(read(tmp_path / "j"))
    assert tail.header.epoch == 4


def test_a_tail_gives_what_is_there_and_later_what_has_come(tmp_path):
    with create(tmp_path / "j", segment_records=4) as journal, Tail(tmp_path / "j") as tail:
        assert tail.poll() == b""
        one = journal.append(orders(3))
        assert (tail.poll(2), tail.poll(2), tail.poll(2)) == (one[: 2 * RECORD_SIZE], one[2 * RECORD_SIZE :], b"")
        two = journal.append(orders(10, 4))
        assert all_of(tail) == two
        assert (tail.sequence, tail.sealed) == (13, False)
        assert tail.durable == journal.durable == 12
        seal = journal.close()
        assert tail.poll() == seal
        assert (tail.sequence, tail.durable, tail.sealed) == (14, 14, True)
        assert (tail.uuid, tail.capacity) == (journal.uuid, journal.capacity)


@pytest.mark.parametrize("start", range(1, 16))
def test_a_tail_begins_where_it_is_asked_to(start, tmp_path):
    """And where there is no such record yet, it waits for it."""
    with create(tmp_path / "j", segment_records=4) as journal:
        sealed = journal.append(orders(9))
        with Tail(tmp_path / "j", start) as tail:
            found = all_of(tail)
            sealed += journal.append(orders(6, 10))
            assert found + all_of(tail) == sealed[(start - 1) * RECORD_SIZE :]


def test_a_tail_changes_nothing(tmp_path):
    """JRN-24, JRN-14."""
    with create(tmp_path / "j", segment_records=4) as journal:
        journal.append(orders(9))
        before = contents(tmp_path / "j")
        with Tail(tmp_path / "j") as tail:
            all_of(tail)
            tail.sync()
        assert contents(tmp_path / "j") == before


@pytest.mark.parametrize("wrong", [0, -1])
def test_what_cannot_be_asked_for_is_a_usage_error(wrong, tmp_path):
    create(tmp_path / "j").close()
    with pytest.raises(UsageError, match="sequence numbers are from 1"):
        Tail(tmp_path / "j", wrong)
    with Tail(tmp_path / "j") as tail, pytest.raises(UsageError, match="at least 1 record"):
        tail.poll(wrong)
    with pytest.raises(UsageError, match="no such directory"):
        Tail(tmp_path / "nowhere")


def test_follow_calls_what_it_is_given_when_there_is_nothing_new(tmp_path):
    waits = []
    with create(tmp_path / "j") as journal:
        sealed = journal.append(orders(3))

        def idle():
            waits.append(1)
            if len(waits) == 3:
                journal.close()

        records = b"".join(follow(tmp_path / "j", batch=2, idle=idle, until_sealed=True))

    assert records[: len(sealed)] == sealed
    assert (len(records) // RECORD_SIZE, len(waits)) == (4, 3)


# --------------------------------------------------------------------------------------------- what is not sound yet


def test_a_record_that_is_half_written_is_waited_for(tmp_path):
    """JRN-24."""
    with create(tmp_path / "j") as journal:
        records = journal.append(orders(5))
        with Tail(crash(tmp_path / "j", tmp_path / "copy")) as tail:
            for size in range(0, RECORD_SIZE - 4, 4):  # the last four bytes of these are zeros
                put(tmp_path / "copy", 4, records[3 * RECORD_SIZE :][:size].ljust(RECORD_SIZE, b"\0"))
                assert len(tail.poll()) in (0, 3 * RECORD_SIZE)
            put(tmp_path / "copy", 4, records[3 * RECORD_SIZE :])
            assert tail.poll() == records[3 * RECORD_SIZE :]


def test_a_segment_that_is_prepared_or_half_begun_is_waited_for(tmp_path):
    """JRN-19, JRN-24."""
    with create(tmp_path / "j", segment_records=4) as journal, Tail(tmp_path / "j") as tail:
        journal.append(orders(4))
        assert all_of(tail)
        (tmp_path / "copy").mkdir()
        journal.append(orders(1, 5))
        two = segments(tmp_path / "j")[1]
        page = two.read_bytes()
        two.write_bytes(page[:60].ljust(len(page), b"\0"))
        assert tail.poll() == b""
        two.write_bytes(page)
        assert len(tail.poll()) == RECORD_SIZE


def test_the_remains_of_an_earlier_life_are_never_given(tmp_path):
    """JRN-24: records of another journal at the right place, sound in themselves."""
    for name, seed in (("one", 7), ("two", 8)):
        with create(tmp_path / name, seed=seed) as journal:
            journal.append(orders(5))
            crash(tmp_path / name, tmp_path / f"{name} crashed")
    path = tmp_path / "one crashed"
    put(path, 4, segments(tmp_path / "two crashed")[0].read_bytes()[HEADER_SIZE + 3 * RECORD_SIZE :][: 2 * RECORD_SIZE])

    with Tail(path) as tail:
        assert len(all_of(tail)) == 3 * RECORD_SIZE


# ------------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("sequence", [1, 2, 6, 8])
def test_damage_at_or_below_the_watermark_is_told_with_its_place(sequence, tmp_path):
    """JRN-24, JRN-7: the records before it are given first."""
    with create(tmp_path / "j", segment_records=4) as journal:
        journal.append(orders(8))
        journal.sync()
        crash(tmp_path / "j", tmp_path / "copy")
    path = put(tmp_path / "copy", sequence, b"X")

    with Tail(tmp_path / "copy") as tail:
        given: list[bytes] = []
        with pytest.raises(JournalCorrupt) as error:
            given.extend(iter(tail.poll, b""))

    assert sum(map(len, given)) == (sequence - 1) * RECORD_SIZE
    offset = HEADER_SIZE + (sequence - 1) % 4 * RECORD_SIZE
    assert f"{path}: offset {offset}, sequence {sequence}: expected checksum" in str(error.value)
    assert error.value.durable == 8


def test_damage_that_the_mark_reaches_later_is_waited_for_until_then(tmp_path):
    """JRN-24."""
    with create(tmp_path / "j") as journal:
        journal.append(orders(8))
        with Tail(tmp_path / "j") as tail:
            put(tmp_path / "j", 5, b"X")
            assert len(tail.poll()) == 4 * RECORD_SIZE
            assert tail.poll() == b""
            journal.sync()
            with pytest.raises(JournalCorrupt, match="sequence 5: expected checksum"):
                tail.poll()


def test_a_mark_that_is_newer_than_what_was_read_is_no_damage(tmp_path, monkeypatch):
    """JRN-24: what the mark vouches for is read once more before anything is said."""
    with create(tmp_path / "j", segment_records=4) as journal, Tail(tmp_path / "j") as tail:
        really = Tail._read_mark

        def late(self):
            if journal.sequence < 12:
                journal.append(orders(3))
                journal.sync()
            return really(self)

        monkeypatch.setattr(Tail, "_read_mark", late)

        assert len(all_of(tail)) == 12 * RECORD_SIZE


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("lost", "this file is missing"),
        ("header", "offset 124, sequence 5: expected the header's checksum to be"),
        ("version", "offset 8: this segment has format version 3"),
    ],
)
def test_a_segment_that_is_lost_or_damaged_is_told(damage, words, tmp_path):
    """JRN-24, JRN-10, JRN-5."""
    with create(tmp_path / "j", segment_records=4) as journal, Tail(tmp_path / "j") as tail:
        journal.append(orders(4))
        assert len(all_of(tail)) == 4 * RECORD_SIZE
        journal.append(orders(8, 5))
        spoil(segments(tmp_path / "j")[1], damage)

        with pytest.raises(CorruptInput, match=words) as error:
            tail.poll()

    assert str(segments(tmp_path / "j")[0].with_name("00000000000000000005-00000001.wal")) in str(error.value)


@pytest.mark.parametrize(("damage", "words"), [("header", "the header's checksum"), ("version", "format version 3")])
def test_the_damaged_segment_of_an_opening_is_told(damage, words, tmp_path):
    """JRN-24: it was durable before a record could be in it."""
    create(tmp_path / "j").close()
    with Tail(tmp_path / "j") as tail:
        assert len(all_of(tail)) == RECORD_SIZE
        with Journal.open(tmp_path / "j"):
            spoil(segments(tmp_path / "j")[1], damage)
            with pytest.raises(CorruptInput, match=words):
                tail.poll()


def spoil(path, damage):
    """Lose a segment, flip a bit of its header, or let it be of another format."""
    data = bytearray(path.read_bytes())
    if damage == "lost":
        path.rename(path.parent.with_name("aside"))
        return
    if damage == "header":
        data[56] ^= 1
    else:
        data[8] = 3
        data[124:128] = crc32c(data[:124]).to_bytes(4, "little")
    path.write_bytes(data)


def test_a_segment_of_another_journal_is_told(tmp_path):
    """JRN-10, JRN-24."""
    for name, seed in (("one", 7), ("two", 8)):
        with create(tmp_path / name, segment_records=4, seed=seed) as journal:
            journal.append(orders(6))
            crash(tmp_path / name, tmp_path / f"{name} crashed")
    with Tail(tmp_path / "one crashed") as tail:
        shutil.copy(segments(tmp_path / "two crashed")[1], tmp_path / "one crashed")
        with pytest.raises(SegmentCorrupt, match="found another"):
            all_of(tail)


# ------------------------------------------------------------------------------------------------------ opened again


def test_records_that_a_crash_took_back_are_told_and_not_passed_over(tmp_path):
    """JRN-24: the reader had records 4 and 5, which were never durable; the journal goes on without them."""
    with create(tmp_path / "j") as journal:
        journal.append(orders(3))
        journal.sync()
        journal.append(orders(2, 4))
        crash(tmp_path / "j", tmp_path / "copy")
    with Tail(tmp_path / "copy") as tail:
        assert len(all_of(tail)) == 5 * RECORD_SIZE
        put(tmp_path / "copy", 4, bytes(2 * RECORD_SIZE))  # the power fails, and they were not on disk
        with Journal.open(tmp_path / "copy", source=Source.seeded(9)) as journal:
            assert journal.sequence == 3
            journal.append(orders(4, 100))
            for _ in range(2):
                with pytest.raises(TakenBack, match=r"took back the records 4 to 5, .* never durable") as error:
                    tail.poll()
            assert (error.value.first, error.value.last) == (4, 5)

        with Tail(tmp_path / "copy", 4) as again:
            assert len(all_of(again)) == 5 * RECORD_SIZE


def test_records_that_others_have_taken_the_place_of_are_told_even_where_the_numbers_fit(tmp_path):
    """JRN-24: the opening that says so is archived, and the next begins right behind what was read."""
    with create(tmp_path / "j") as journal:
        journal.append(orders(5))
        crash(tmp_path / "j", tmp_path / "copy")
    path = tmp_path / "copy"
    with Tail(path) as tail:
        assert len(all_of(tail)) == 5 * RECORD_SIZE
        put(path, 5, bytes(RECORD_SIZE))
        with Journal.open(path, source=Source.seeded(9)) as journal:
            uuid = journal.uuid
        with Journal.open(path, source=Source.seeded(10)) as journal:
            assert journal.header.base_sequence == 6
            write_snapshot(path, state(5), uuid)
            for segment in segments(path)[:-1]:
                segment.unlink()
            with pytest.raises(TakenBack, match="expected the checksum of record 5 to be"):
                tail.poll()


def test_a_tail_that_is_torn_behind_what_was_read_is_passed_over(tmp_path):
    """JRN-24: an opening cuts it off; nobody has seen it."""
    with create(tmp_path / "j") as journal:
        one = journal.append(orders(5))
        crash(tmp_path / "j", tmp_path / "copy")
    put(tmp_path / "copy", 4, b"X")
    with Tail(tmp_path / "copy") as tail:
        assert all_of(tail) == one[: 3 * RECORD_SIZE]
        for seed in (9, 10):
            with Journal.open(tmp_path / "copy", source=Source.seeded(seed)) as journal:
                assert all_of(tail) == b""
                assert tail.header.epoch == journal.header.epoch
                two = journal.append(orders(2, 100))
                assert tail.poll() == two
                assert not tail.sealed
            assert len(tail.poll()) == RECORD_SIZE
            assert tail.sealed


def test_openings_that_came_without_a_record_are_passed_over(tmp_path):
    with create(tmp_path / "j") as journal:
        sealed = journal.append(orders(2))
        crash(tmp_path / "j", tmp_path / "0")
    with Tail(tmp_path / "0") as tail:
        assert all_of(tail) == sealed
        for turn in range(3):
            journal = Journal.open(tmp_path / "0", source=Source.seeded(turn))
            saved = crash(tmp_path / "0", tmp_path / f"{turn + 1}")
            journal.close()
            for path in segments(tmp_path / "0"):
                shutil.copy(saved / path.name, path)
            shutil.copy(saved / MARK_NAME, tmp_path / "0")
        journal = Journal.open(tmp_path / "0", source=Source.seeded(5))
        assert journal.header.epoch == 5
        more = journal.append(orders(2, 3))
        assert all_of(tail) == more


# ------------------------------------------------------------------------------------------------ removed behind it


def test_segments_may_be_removed_behind_a_tail_and_under_it(tmp_path):
    """JRN-24, JRN-20."""
    with create(tmp_path / "j", segment_records=4) as journal, Tail(tmp_path / "j") as tail:
        journal.append(orders(10))
        assert len(tail.poll(2)) == 2 * RECORD_SIZE
        segments(tmp_path / "j")[0].unlink()
        assert len(all_of(tail)) == 8 * RECORD_SIZE


def test_a_tail_that_is_left_behind_says_so(tmp_path):
    """JRN-20: and so is one that wants to begin there."""
    with create(tmp_path / "j", segment_records=4) as journal, Tail(tmp_path / "j") as tail:
        journal.append(orders(10))
        assert len(tail.poll(2)) == 2 * RECORD_SIZE
        journal.sync()
        for segment in segments(tmp_path / "j")[:2]:
            segment.unlink()
        write_snapshot(tmp_path / "j", state(8), journal.uuid)
        assert len(tail.poll()) == 2 * RECORD_SIZE
        with pytest.raises(UsageError, match="begins at sequence 9 by now"):
            tail.poll()
        with pytest.raises(UsageError, match="begins at sequence 9, for what was before is archived"):
            Tail(tmp_path / "j", 8)
        with Tail(tmp_path / "j", 9) as late:
            assert len(all_of(late)) == 2 * RECORD_SIZE


def test_a_tails_sync_covers_the_segments_that_may_not_be_on_disk(tmp_path, monkeypatch):
    """SNAP-10, JRN-11: what the writer has synced is not synced again."""
    synced = []
    with create(tmp_path / "j", segment_records=4) as journal, Tail(tmp_path / "j") as tail:
        journal.append(orders(10))
        all_of(tail)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").readlink()))
            tail.sync()
        assert synced == segments(tmp_path / "j")[1:3]

        def fail(_file):
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(JournalFailed, match="a reader's sync failed: Input/output error"):
                tail.sync()
        journal.sync()
        monkeypatch.setattr(os, "fsync", fail)
        tail.sync()


def test_a_journal_whose_files_come_and_go_is_looked_at_again(tmp_path, monkeypatch):
    """A writer that closes removes what it prepared, between a look at the names and at the files."""
    with create(tmp_path / "j", segment_records=8) as journal:
        journal.append(orders(7))
        listed = os.listdir
        monkeypatch.setattr(os, "listdir", lambda at: [*listed(at), *([] if journal.closed else _gone(journal))])
        with Tail(tmp_path / "j") as tail:
            assert len(all_of(tail)) == 8 * RECORD_SIZE


def _gone(journal):
    journal.close()
    return ["00000000000000000009-00000001.wal"]


def test_records_of_a_tail_are_the_journals_with_every_field(tmp_path):
    """JRN-1, JRN-24."""
    with create(tmp_path / "j", segment_records=3) as journal, Tail(tmp_path / "j") as tail:
        journal.append(orders(7))
        fields = np.frombuffer(all_of(tail), RECORD_DTYPE)

    assert fields["sequence"].tolist() == list(range(1, 8))
    headers = [
        unpack_header(path.read_bytes()[:HEADER_SIZE], path.name, path.name) for path in segments(tmp_path / "j")
    ]
    assert all(two.base_sequence == one.base_sequence + 3 for one, two in pairwise(headers))
