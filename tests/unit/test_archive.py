"""Segments go only when sound snapshots stand for them, from the first on, and whatever interrupts it, all is sound."""

import fcntl
import gzip
import os
import shutil
import subprocess
import sys
import time

import pytest

import ferrox as fx
from ferrox.engine import Capacity, make_engine
from ferrox.errors import CorruptInput, UsageError
from ferrox.journal import Journal, Source, command_records, identify, read, scan
from ferrox.journal import archive as module
from ferrox.journal.archive import LOCK_NAME, archive, restore, retention
from ferrox.journal.layout import HEADER_SIZE
from ferrox.messages import RECORD_SIZE, DefineInstrument, NewOrder
from ferrox.snapshot import latest_snapshot, oldest_snapshot, write_snapshot
from ferrox.state import digest
from ferrox.terms import Side, TimeInForce, TradingState

CAPACITY = Capacity(orders=1000, instruments=10)
SIZE = 8
"""Records of a segment."""


def commands(count, first=1):
    frames = [
        DefineInstrument(TradingState.OPEN, 1, 0, 1000, 1, 1).pack()
        if number == 1
        else NewOrder(Side.BUY, TimeInForce.GTC, 0, 1, number, 100, 5).pack()
        for number in range(first, first + count)
    ]
    return command_records(frames, time_ns=range(first, first + count))


class Writer:
    """A journal with its engine, which writes snapshots beside it."""

    def __init__(self, path, **more):
        self.path, self.count = path, 0
        self.engine = make_engine("reference", CAPACITY)
        self.journal = Journal.create(path, CAPACITY, segment_records=SIZE, source=Source.seeded(7), **more)

    def append(self, count):
        self.engine.apply(self.journal.append(commands(count, self.count + 1)))
        self.count += count
        return self

    def snapshot(self):
        self.journal.sync()
        write_snapshot(self.path, self.engine.snapshot(), self.journal.uuid)
        return self

    def close(self):
        self.engine.apply(self.journal.close())
        return digest(self.engine.snapshot())


@pytest.fixture
def place(tmp_path):
    """43 records and a SEAL in six segments, and snapshots of 10, 20, 30."""
    make(tmp_path / "j")
    return tmp_path / "j"


def make(path):
    writer = Writer(path)
    for _ in range(3):
        writer.append(10).snapshot()
    writer.append(13)
    return writer.close()


def bases(path):
    return [int(file.name[:20]) for file in sorted(path.glob("*.wal"))]


def snapshots(path):
    return [int(file.name[:20]) for file in sorted(path.glob("*.snapshot"))]


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file() and file.name != LOCK_NAME}


def replayed(path):
    """Return the state digest at the end, from the oldest snapshot that there is a way from, or the first record."""
    found = scan(path)
    assert found.verdict == "clean", found.corruption
    engine = make_engine("reference", CAPACITY)
    start = 1
    if found.first > 1:
        oldest = oldest_snapshot(path, identify(path).uuid, found.first - 1)
        assert oldest.path
        engine.restore(oldest.state)
        start = oldest.sequence + 1
    for records in read(path, start):
        engine.apply(records)
    return digest(engine.snapshot())


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


# --------------------------------------------------------------------------------------------------------- what may go


def test_what_is_behind_the_oldest_kept_snapshot_may_go_and_nothing_else(place):
    """JRN-26."""
    before = contents(place)

    for keep, going, older in ((1, [1, 9, 17], [10, 20]), (2, [1, 9], [10]), (3, [1], []), (4, [], [])):
        found = retention(place, keep)
        assert [item.first for item in found.segments] == going
        assert [item.first for item in found.snapshots] == older
        assert found.size == sum(len(before[item.name]) for item in found.items)
    assert [item.last for item in retention(place).segments] == [8, 16]
    assert "expected 4 sound snapshots to stand for what goes, found 3" in retention(place, 4).reason
    assert contents(place) == before
    assert not (place / LOCK_NAME).exists()


def test_the_last_two_segments_stay_whatever_the_snapshots_say(tmp_path):
    writer = Writer(tmp_path / "j")
    for _ in range(4):
        writer.append(6).snapshot()

    assert bases(tmp_path / "j") == [1, 9, 17, 25]
    assert [item.first for item in retention(tmp_path / "j", 1).segments] == [1], "the fourth is only prepared"
    writer.close()


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_damaged_snapshot_does_not_count(which, place):
    """JRN-26."""
    path = sorted(place.glob("*.snapshot"))[which]
    flip(path, 100)

    found = retention(place)

    assert [item.first for item in found.segments] == ([1, 9] if which == 0 else [1])
    assert len(found.warnings) == 1
    archive(place, to=None)
    assert path.exists(), "what is damaged is left for people"


def test_with_too_few_sound_snapshots_nothing_goes(place):
    for path in sorted(place.glob("*.snapshot"))[:2]:
        flip(path, 100)
    before = contents(place)

    assert archive(place, to=None).items == ()

    assert contents(place) == before


@pytest.mark.parametrize("sequence", [1, 12, 25, 44])
def test_nothing_goes_from_a_damaged_journal(sequence, place):
    flip(sorted(place.glob("*.wal"))[(sequence - 1) // SIZE], HEADER_SIZE + (sequence - 1) % SIZE * RECORD_SIZE + 40)
    before = contents(place)

    with pytest.raises(CorruptInput):
        archive(place, to=None)

    assert contents(place) == before


def test_another_journals_snapshot_does_not_count(place):
    for path in place.glob("*.snapshot"):
        path.unlink()
    for sequence in (20, 30):
        engine = make_engine("reference", CAPACITY)
        for records in read(place, until=sequence):
            engine.apply(records)
        write_snapshot(place, engine.snapshot(), b"another journal.")

    assert retention(place).items == ()


# ----------------------------------------------------------------------------------------------------------- to do it


@pytest.mark.parametrize("packed", [False, True])
def test_what_went_is_gone_or_packed_and_the_rest_is_replayed_to_the_same_state(packed, place, tmp_path):
    """JRN-26, JRN-20."""
    whole = contents(place)
    expected = replayed(place)
    target = tmp_path / "archive"

    found = archive(place, to=target if packed else None)

    assert (bases(place), snapshots(place)) == ([17, 25, 33, 41], [20, 30])
    assert replayed(place) == expected
    assert archive(place, to=target if packed else None).items == ()
    if packed:
        names = [item.name for item in found.items]
        assert sorted(path.name for path in target.iterdir()) == sorted(f"{name}.gz" for name in names)
        for name in names:
            assert gzip.decompress((target / f"{name}.gz").read_bytes()) == whole[name]
        subprocess.run(["gzip", "--test", *target.iterdir()], check=True)
    with Journal.open(place) as journal:
        assert journal.sequence == 44
    assert scan(place).verdict == "clean"


def test_what_was_packed_comes_back_as_it_was(place, tmp_path):
    whole = contents(place)
    archive(place, to=tmp_path / "archive")
    packed = sorted(str(path) for path in (tmp_path / "archive").iterdir())

    with pytest.raises(UsageError, match="restore those between the two as well"):
        restore(place, [name for name in packed if f"{1:020d}-" in name])
    names = restore(place, packed)

    assert len(names) == 3
    assert contents(place) == whole
    with pytest.raises(UsageError, match="is there already"):
        restore(place, packed)


def test_what_does_not_belong_to_the_journal_does_not_come_back(place, tmp_path):
    archive(place, to=tmp_path / "archive")
    before = contents(place)
    last = next(path for path in (tmp_path / "archive").iterdir() if f"{9:020d}-" in path.name)
    data = last.read_bytes()

    last.write_bytes(data[:-20])
    with pytest.raises(CorruptInput, match="cut short or grew"):
        restore(place, [str(last)])
    last.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    with pytest.raises(CorruptInput):
        restore(place, [str(last)])
    damaged = bytearray(gzip.decompress(data))
    damaged[HEADER_SIZE + 40] ^= 1
    last.write_bytes(gzip.compress(bytes(damaged)))
    with pytest.raises(CorruptInput, match="expected checksum"):
        restore(place, [str(last)])
    with Journal.create(tmp_path / "other", CAPACITY, segment_records=SIZE, source=Source.seeded(8)) as journal:
        journal.append(commands(30))
    last.write_bytes(gzip.compress(sorted((tmp_path / "other").glob("*.wal"))[1].read_bytes()))
    with pytest.raises(CorruptInput, match="expected journal"):
        restore(place, [str(last)])
    for wrong, words in (("x.gz", "not the name"), (f"{9:020d}-00000009.wal.gz", "no such file")):
        with pytest.raises(UsageError, match=words):
            restore(place, [str(tmp_path / wrong)])

    assert contents(place) == before


def test_a_copy_that_is_there_already_is_compared_and_never_replaced(place, tmp_path):
    archive(place, to=tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(place)
    make(place)
    name = f"{9:020d}-00000001.wal"
    (tmp_path / "two" / f"{name}.gz").write_bytes(gzip.compress(b"mine"))

    with pytest.raises(UsageError, match="holds something else"):
        archive(place, to=tmp_path / "two")

    assert bases(place)[0] == 9
    archive(place, to=tmp_path / "one")
    assert bases(place)[0] == 17


def test_a_copy_that_does_not_read_back_keeps_the_original(place, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_packed", lambda chunks: [gzip.compress(b"".join(chunks)[:-1])])

    with pytest.raises(CorruptInput, match="was not removed"):
        archive(place, to=tmp_path / "archive")

    assert bases(place)[0] == 1


def test_a_place_that_cannot_take_an_archive_is_refused(place, tmp_path):
    (tmp_path / "file").write_text("mine")
    before = contents(place)

    for to, words in ((place, "the journal itself"), (tmp_path / "file", "cannot be made"), (tmp_path / "a/b", "made")):
        with pytest.raises(UsageError, match=words):
            archive(place, to=to)
    with pytest.raises(UsageError, match="at least one"):
        retention(place, 0)

    assert contents(place) == before


def test_a_full_disk_is_one_sentence_and_keeps_the_original(place, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "publish", full)

    with pytest.raises(UsageError, match=r"wal\.gz: No space left on device"):
        archive(place, to=tmp_path / "archive")

    assert bases(place)[0] == 1


def test_two_archivers_exclude_each_other_and_no_writer(place):
    holder = os.open(place / LOCK_NAME, os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match="another archiver is at work"):
        archive(place, to=None)
    os.close(holder)

    with Journal.open(place):
        assert len(archive(place, to=None).segments) == 2


@pytest.mark.parametrize("syncer", [False, True])
def test_a_writer_goes_on_while_its_journal_is_archived_again_and_again(syncer, tmp_path):
    """JRN-26."""
    writer = Writer(tmp_path / "j", syncer=syncer)
    whole: dict[str, bytes] = {}
    for _ in range(12):
        writer.append(7).snapshot()
        whole |= contents(tmp_path / "j")
        archive(tmp_path / "j", keep=1, to=tmp_path / "archive")
        assert scan(tmp_path / "j").verdict == "clean"
    expected = writer.close()

    assert bases(tmp_path / "j")[0] > 60
    assert replayed(tmp_path / "j") == expected
    restore(tmp_path / "j", [str(path) for path in (tmp_path / "archive").glob("*.wal.gz")])
    assert replayed(tmp_path / "j") == expected
    assert bases(tmp_path / "j")[0] == 1


# ---------------------------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize("packed", [False, True])
def test_stopped_before_any_step_it_leaves_a_sound_journal_and_goes_on_next_time(packed, place, tmp_path, monkeypatch):
    """JRN-26: every call that changes a directory or makes it durable."""
    whole, expected = contents(place), replayed(place)
    steps = 0
    for stop in range(1, 100):
        path, target = tmp_path / f"j{stop}", tmp_path / f"archive{stop}"
        shutil.copytree(place, path)
        steps = 0

        def step(call, stop=stop):
            def stepped(*arguments, **more):
                nonlocal steps
                steps += 1
                if steps == stop:
                    raise KeyboardInterrupt
                return call(*arguments, **more)

            return stepped

        with monkeypatch.context() as patch:
            for name in ("unlink", "rename", "fsync", "pwrite"):
                patch.setattr(os, name, step(getattr(os, name)))
            try:
                archive(path, to=target if packed else None)
            except KeyboardInterrupt:
                interrupted = True
            else:
                interrupted = False
        check_interrupted(path, target, whole, expected, packed=packed)
        if not interrupted:
            break
    assert steps < stop


def check_interrupted(path, target, whole, expected, *, packed):
    """Hold an interrupted archive to its promise, and let it go on."""
    assert replayed(path) == expected
    if packed:
        for name in set(whole) - set(contents(path)):
            assert gzip.decompress((target / f"{name}.gz").read_bytes()) == whole[name]
    archive(path, to=target if packed else None)
    assert replayed(path) == expected
    assert (bases(path), snapshots(path)) == ([17, 25, 33, 41], [20, 30])
    if packed:
        assert {name[:-3] for name in contents(target)} == set(whole) - set(contents(path))


KILLED = """
import os, random, signal, sys, time
from ferrox.journal.archive import archive

dice = random.Random(5)
for number in range(30):
    child = os.fork()
    if child == 0:
        archive(f"{sys.argv[1]}/j{number}", to=f"{sys.argv[1]}/archive{number}")
        os._exit(0)
    time.sleep(dice.random() * float(sys.argv[2]))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_killed_at_any_moment_it_leaves_a_sound_journal(place, tmp_path):
    """JRN-26: kill -9, thirty times."""
    whole, expected = contents(place), replayed(place)
    for number in range(30):
        shutil.copytree(place, tmp_path / f"j{number}")
    shutil.copytree(place, tmp_path / "timed")
    begin = time.monotonic()
    archive(tmp_path / "timed", to=tmp_path / "timed-archive")
    lasted = time.monotonic() - begin

    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(lasted * 1.3)], check=True)

    left = set()
    for number in range(30):
        left.add(tuple(bases(tmp_path / f"j{number}")))
        check_interrupted(tmp_path / f"j{number}", tmp_path / f"archive{number}", whole, expected, packed=True)
    assert left <= {(1, 9, 17, 25, 33, 41), (9, 17, 25, 33, 41), (17, 25, 33, 41)}


# ------------------------------------------------------------------------------------------ journals that begin later


def test_a_venue_loads_a_journal_that_begins_later(place):
    """JRN-20."""
    expected = replayed(place)
    archive(place, to=None)

    assert fx.Venue.load(place, read_only=True).digest() == expected
    assert fx.Venue.load(place, snapshots=True, read_only=True).digest() == expected
    venue = fx.Venue.load(place, until=25)
    assert venue.sequence == 25
    with pytest.raises(UsageError, match=r"begins at sequence 17"):
        fx.Venue.load(place, until=12)
    with fx.Venue.load(place) as venue:
        venue.buy(5, 100)
        assert venue.sequence == 45
    assert scan(place).last == 46


def test_the_oldest_and_the_newest_sound_snapshot_are_found(place):
    """JRN-20, SNAP-9."""
    uuid = identify(place).uuid

    assert [oldest_snapshot(place, uuid, start).sequence for start in (0, 10, 11, 30, 31)] == [10, 10, 20, 30, 0]
    assert [latest_snapshot(place, uuid, until).sequence for until in (9, 10, 29, 30, None)] == [0, 10, 20, 30, 30]
    flip(min(place.glob("*.snapshot")), 100)
    assert oldest_snapshot(place, uuid, 0).sequence == 20
    assert len(oldest_snapshot(place, uuid, 0).warnings) == 1
