"""Salvage keeps the longest sound prefix under equal numbers, says what was lost, and never changes the old journal."""

import fcntl
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from ferrox.engine import Capacity, make_engine
from ferrox.errors import CorruptInput, JournalFailed, UsageError
from ferrox.journal import Journal, Source, command_records, read, scan
from ferrox.journal import salvage as module
from ferrox.journal.chain import Chain
from ferrox.journal.layout import HEADER_SIZE, MARK_NAME, pack_marks, unpack_header, unpack_marks
from ferrox.journal.salvage import REPORT_JSON, REPORT_TEXT, Survey, canonical, plan, read_report, salvage
from ferrox.messages import RECORD_DTYPE, RECORD_SIZE, DefineInstrument, NewOrder
from ferrox.snapshot import write_snapshot
from ferrox.state import digest
from ferrox.terms import Annotation, Side, TimeInForce, TradingState

CAPACITY = Capacity(orders=1000, instruments=10)
COUNT = 20
"""Records of the journal that is damaged: 8, 8, and 4 with a SEAL."""


def commands(count, first=1):
    frames = [
        DefineInstrument(TradingState.OPEN, 1, 0, 1000, 1, 1).pack()
        if number == 1
        else NewOrder(Side.BUY, TimeInForce.GTC, 0, 1, number, 100, 5).pack()
        for number in range(first, first + count)
    ]
    return command_records(frames, time_ns=range(first, first + count), session=3)


def make(path, seed=7, snapshots=()):
    """Write a journal of 20 records in three segments, with a MARK as record 6 and the SEAL last."""
    engine = make_engine("reference", CAPACITY)
    with Journal.create(path, CAPACITY, segment_records=8, source=Source.seeded(seed)) as journal:
        for number in range(1, COUNT):
            sealed = journal.mark(1, 5, 77) if number == 6 else journal.append(commands(1, number))
            engine.apply(sealed)
            if number in snapshots:
                journal.sync()
                write_snapshot(path, engine.snapshot(), journal.uuid)
    return path


@pytest.fixture
def place(tmp_path):
    return make(tmp_path / "old")


def segments(path):
    return sorted(Path(path).glob("*.wal"))


def contents(path):
    return {file.name: file.read_bytes() for file in Path(path).iterdir()}


def everything(path, start=1):
    return b"".join(read(path, start))


def state(path, start=1, origin=None):
    engine = make_engine("reference", CAPACITY)
    if origin is not None:
        engine.restore(origin)
    for records in read(path, start):
        engine.apply(records)
    return engine.snapshot()


def change(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def damage(path, sequence, flip=0x10, at=40):
    """Flip a bit of a record, wherever it stands."""
    file = segments(path)[(sequence - 1) // 8]
    offset = HEADER_SIZE + (sequence - 1) % 8 * RECORD_SIZE + at
    change(file, offset, bytes([file.read_bytes()[offset] ^ flip]))
    return file, offset - at


def save(path, out, **more):
    return salvage(path, out, now_ns=5, version="0", **more)


def saved(path, out, expected, whole, **more):
    """Salvage, and hold the new journal against the whole one: equal records under equal numbers up to `expected`."""
    before = contents(path)

    report = save(path, out, **more)

    assert contents(path) == before
    found = scan(out)
    assert (found.verdict, found.last, found.warnings) == ("clean", expected + 1, ())
    assert canonical(everything(out))[: expected * RECORD_SIZE] == canonical(whole)[: expected * RECORD_SIZE]
    kept = report["kept"]
    assert (kept["last_sequence"], kept["records"]) == (expected, expected)
    assert read_report(out / REPORT_JSON) == json.loads(json.dumps(report))
    with Journal.open(out) as journal:
        assert journal.sequence == expected + 1
    return report


# --------------------------------------------------------------------------------------------------------- records


@pytest.mark.parametrize("sequence", range(1, COUNT + 1))
def test_whichever_record_is_damaged_all_before_it_are_kept_and_those_behind_are_counted(sequence, place, tmp_path):
    """JRN-25."""
    whole = everything(place)
    file, offset = damage(place, sequence)

    report = saved(place, tmp_path / "new", sequence - 1, whole)

    lost, not_used, found = report["lost"], report["not_used"], report["found"]
    assert (lost["first_sequence"], lost["last_sequence"], lost["records"]) == (sequence, COUNT, COUNT + 1 - sequence)
    assert (lost["acknowledged"], lost["durable_sequence"]) == (COUNT + 1 - sequence, COUNT)
    assert not_used["records"] == COUNT - sequence
    assert [(one["file"], one["offset"], one["sequence"]) for one in found] == [(str(file), offset, sequence)]
    assert found[0]["expected"].startswith("checksum")
    assert found[0]["found"]


def test_every_byte_of_a_record_counts(place, tmp_path):
    whole = everything(place)
    for at in range(RECORD_SIZE):
        damage(place, 11, 0x01, at)
        saved(place, tmp_path / f"new{at}", 10, whole)
        damage(place, 11, 0x01, at)


def test_a_mark_stays_a_mark_and_a_seal_of_an_earlier_life_becomes_one_so_that_numbers_stay(place, tmp_path):
    """JRN-25, JRN-9."""
    with Journal.open(place, source=Source.seeded(9)) as journal:
        journal.append(commands(6, 21))
    whole = everything(place)
    change(segments(place)[-1], HEADER_SIZE + 3 * RECORD_SIZE, b"x")

    saved(place, tmp_path / "new", 23, whole)

    fields = np.frombuffer(everything(tmp_path / "new"), RECORD_DTYPE)
    assert fields["kind"][5] == fields["kind"][19] == Annotation.MARK
    assert fields["command"][5].tobytes() == np.frombuffer(whole, RECORD_DTYPE)["command"][5].tobytes()
    assert not any(fields["command"][19].tobytes())
    assert fields["session"][0] == 3
    assert fields["time_ns"].tolist()[:5] == [1, 2, 3, 4, 5]


def test_a_mark_keeps_its_time_whatever_the_clock_says_now(tmp_path):
    with Journal.create(tmp_path / "old", CAPACITY, source=Source(clock=lambda: 50)) as journal:
        journal.append(commands(5))
        journal.mark()
        journal.append(commands(5, 60))
    whole = everything(tmp_path / "old")
    change(segments(tmp_path / "old")[0], HEADER_SIZE + 9 * RECORD_SIZE, b"x")

    saved(tmp_path / "old", tmp_path / "new", 9, whole)


def test_a_replay_of_the_new_journal_comes_to_the_state_of_the_old_one_up_to_there(place, tmp_path):
    engine = make_engine("reference", CAPACITY)
    for records in read(place, until=13):
        engine.apply(records)
    damage(place, 14)

    save(place, tmp_path / "new")

    again = make_engine("reference", CAPACITY)
    for records in read(tmp_path / "new", until=13):
        again.apply(records)
    assert digest(again.snapshot()) == digest(engine.snapshot())


# ----------------------------------------------------------------------------------------------------------- files


def test_a_garbage_segment_ends_what_is_kept(place, tmp_path):
    whole = everything(place)
    two = segments(place)[1]
    two.write_bytes(bytes((7 * n + n // 3) % 256 for n in range(two.stat().st_size)))

    report = saved(place, tmp_path / "new", 8, whole)

    assert report["lost"]["records"] == 12
    assert report["not_used"]["ranges"] == [
        {"file": str(segments(place)[2]), "first_sequence": 17, "last_sequence": 20},
    ]


def test_a_missing_segment_ends_what_is_kept(place, tmp_path):
    whole = everything(place)
    one, two, three = segments(place)

    shutil.move(three, tmp_path)
    report = saved(place, tmp_path / "third", 16, whole)
    assert (report["lost"]["first_sequence"], report["lost"]["last_sequence"]) == (17, 20)
    shutil.move(tmp_path / three.name, three)
    shutil.move(two, tmp_path)
    assert saved(place, tmp_path / "second", 8, whole)["not_used"]["records"] == 4
    shutil.move(tmp_path / two.name, two)
    one.unlink()
    with pytest.raises(CorruptInput, match=r"neither a first segment nor a sound snapshot"):
        save(place, tmp_path / "first")
    assert not (tmp_path / "first").exists()


@pytest.mark.parametrize("what", ["missing", "both slots", "short", "a directory"])
def test_without_a_commit_mark_nothing_is_lost(what, place, tmp_path):
    whole = everything(place)
    mark = place / MARK_NAME
    if what == "both slots":
        change(mark, 20, b"x")
        change(mark, 532, b"x")
    elif what == "short":
        os.truncate(mark, 100)
    else:
        mark.unlink()
    if what == "a directory":
        mark.mkdir()
        report = save(place, tmp_path / "new")
    else:
        report = saved(place, tmp_path / "new", COUNT, whole)

    assert report["lost"]["records"] == 0
    assert MARK_NAME in report["found"][0]["file"]
    assert not report["lost"]["certain"], "a last segment that is gone leaves no trace then"
    assert module.UNCERTAIN in (tmp_path / "new" / REPORT_TEXT).read_text()


@pytest.mark.parametrize("left", [0, 100, HEADER_SIZE, HEADER_SIZE + 1, HEADER_SIZE + 3 * RECORD_SIZE + 5])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_truncated_segment_is_kept_up_to_its_end(left, index, place, tmp_path):
    whole = everything(place)
    os.truncate(segments(place)[index], left)

    report = saved(place, tmp_path / "new", 8 * index + max(0, left - HEADER_SIZE) // RECORD_SIZE, whole)

    assert report["lost"]["last_sequence"] == COUNT
    assert report["lost"]["acknowledged"] == report["lost"]["records"]


def test_a_foreign_segment_is_never_taken(place, tmp_path):
    whole = everything(place)
    other = make(tmp_path / "other", seed=8)
    for index in (1, 2):
        shutil.copytree(place, tmp_path / f"old{index}")
        shutil.copy(segments(other)[index], segments(tmp_path / f"old{index}")[index])

        report = saved(tmp_path / f"old{index}", tmp_path / f"new{index}", 8 * index, whole)

        assert any("expected" not in one["found"] and one["offset"] == 16 for one in report["found"])
    shutil.copy(segments(other)[0], segments(place)[0])
    assert saved(place, tmp_path / "new", 0, whole)["not_used"]["records"] == 12


def test_a_segment_of_another_life_of_the_journal_is_never_taken(tmp_path):
    """The uuid, the place and the epoch agree; the chain does not."""
    with Journal.create(tmp_path / "old", CAPACITY, segment_records=8, source=Source.seeded(7)) as journal:
        journal.append(commands(3))
    shutil.copytree(tmp_path / "old", tmp_path / "two")
    for name, first in (("old", 1), ("two", 2)):
        for _ in range(2):
            with Journal.open(tmp_path / name, source=Source.seeded(9)) as journal:
                journal.append(commands(2, first + 10))
    whole = everything(tmp_path / "old")
    shutil.copy(segments(tmp_path / "two")[-1], tmp_path / "old")

    saved(tmp_path / "old", tmp_path / "new", 7, whole)

    shutil.copy(segments(tmp_path / "two")[1], tmp_path / "old")
    shutil.copy(tmp_path / "two" / MARK_NAME, tmp_path / "other-mark")
    report = save(tmp_path / "old", tmp_path / "again")
    assert report["kept"]["last_sequence"] == 9, "the mark names record 10, and this is another life's"


def test_swapped_and_renamed_segments_are_known_by_their_headers_and_lose_nothing(place, tmp_path):
    whole = everything(place)
    one, two, _ = segments(place)
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)

    report = saved(place, tmp_path / "new", COUNT, whole)

    assert report["lost"]["records"] == 0
    assert sum("it was renamed" in one["found"] for one in report["found"]) == 2


def test_of_two_copies_of_a_segment_the_one_with_the_right_name_counts(place, tmp_path):
    whole = everything(place)
    shutil.copy(segments(place)[1], place / "00000000000000000003-00000001.wal")

    report = saved(place, tmp_path / "new", COUNT, whole)

    assert any("found another" in json.dumps(one) or one["found"] == "another" for one in report["found"])


@pytest.mark.parametrize("offset", [0, 9, 20, 30, 57, 61, 70, 100, 126, 200, 4095])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_an_unreadable_header_ends_what_is_kept(index, offset, place, tmp_path):
    whole = everything(place)
    change(segments(place)[index], offset, b"\xa5")

    report = saved(place, tmp_path / "new", 8 * index, whole)

    salt_is_there = offset != 57
    behind = COUNT - 8 * index if salt_is_there else max(0, COUNT - 8 * (index + 1))
    assert report["not_used"]["records"] == behind


def test_a_segment_that_names_another_past_is_never_taken(place, tmp_path):
    """JRN-10: the SHA-256 of the segment two before, under a checksum that is right."""
    whole, three = everything(place), segments(place)[2]
    header = unpack_header(three.read_bytes()[:HEADER_SIZE], three.name, "three")
    change(three, 0, header._replace(prev_sha256=bytes(range(32))).pack())

    assert saved(place, tmp_path / "new", 16, whole)["found"][0]["offset"] == 64


def test_two_segments_that_claim_the_same_records_end_what_is_kept(tmp_path):
    """An old copy of a segment, from before an opening cut off its tail, came back."""
    with Journal.create(tmp_path / "old", CAPACITY, segment_records=8, source=Source.seeded(7)) as journal:
        journal.append(commands(4))
        shutil.copytree(tmp_path / "old", tmp_path / "crashed")
        journal.append(commands(3, 5))
    whole = everything(tmp_path / "old")
    with Journal.open(tmp_path / "crashed", source=Source.seeded(9)) as journal:
        journal.append(commands(2, 15))
    shutil.copy(segments(tmp_path / "old")[0], tmp_path / "crashed")
    assert scan(tmp_path / "crashed").verdict == "corrupt"

    report = saved(tmp_path / "crashed", tmp_path / "new", 4, whole)

    assert report["lost"]["first_sequence"] == 5


def test_a_mark_that_says_another_thing_than_its_record_ends_what_is_kept(place, tmp_path):
    whole = everything(place)
    # What a second life of the same journal would leave behind.
    mark, _, _ = unpack_marks((place / MARK_NAME).read_bytes(), "mark")
    (place / MARK_NAME).write_bytes(pack_marks(mark._replace(chain=mark.chain ^ 1)))

    report = saved(place, tmp_path / "new", 19, whole)

    assert report["lost"]["records"] == 1


# ------------------------------------------------------------------------------------------------- torn, and sound


def test_a_torn_tail_is_a_loss_that_nobody_was_promised(tmp_path):
    with Journal.create(tmp_path / "running", CAPACITY, segment_records=100, source=Source.seeded(7)) as journal:
        journal.append(commands(6))
        journal.sync()
        journal.append(commands(6, 7))
        shutil.copytree(tmp_path / "running", tmp_path / "old")
        whole = everything(tmp_path / "running")
    change(segments(tmp_path / "old")[0], HEADER_SIZE + 8 * RECORD_SIZE, b"x")
    assert scan(tmp_path / "old").verdict == "torn"

    report = saved(tmp_path / "old", tmp_path / "new", 8, whole)

    lost = report["lost"]
    assert (lost["first_sequence"], lost["last_sequence"], lost["acknowledged"]) == (9, 12, 0)
    assert report["not_used"]["records"] == 3


def test_a_sound_journal_is_not_salvaged(place, tmp_path):
    with Survey(place) as survey:
        chosen = plan(survey)
    assert (chosen.sound, chosen.lost, chosen.way.last) == (True, 0, COUNT)
    with pytest.raises(UsageError, match="this journal is sound"):
        save(place, tmp_path / "new")
    assert not (tmp_path / "new").exists()


# ------------------------------------------------------------------------------------------------------- snapshots


@pytest.mark.parametrize("sequence", range(1, 12))
def test_from_a_snapshot_behind_the_damage_nothing_is_lost_for_the_state(sequence, tmp_path):
    """JRN-25, JRN-20."""
    place = make(tmp_path / "old", snapshots=(4, 11))
    whole, expected = everything(place), state(place)
    damage(place, sequence)
    before = contents(place)

    with Survey(place) as survey:
        chosen = plan(survey)
        assert (chosen.way.last, chosen.other) == (sequence - 1, survey.ways()[-1])

    report = save(place, tmp_path / "new", from_snapshot=True)

    first = 5 if sequence <= 4 else 12
    assert contents(place) == before
    assert (report["kept"]["first_sequence"], report["kept"]["last_sequence"]) == (first, COUNT)
    if sequence > 4:
        assert report["kept"]["snapshot"] == f"{11:020d}.snapshot"
    assert report["lost"]["records"] == 0
    found = scan(tmp_path / "new")
    assert (found.verdict, found.first, found.last) == ("clean", first, COUNT + 1)
    kept = everything(tmp_path / "new", first)
    assert canonical(kept)[: (COUNT + 1 - first) * RECORD_SIZE] == canonical(whole)[(first - 1) * RECORD_SIZE :]
    (snapshot,) = (tmp_path / "new").glob("*.snapshot")
    origin = snapshot.read_bytes()[64:-36]
    again = state(tmp_path / "new", first, origin)
    assert again[24:] == expected[24:], "all but the sequence number, which the new SEAL has moved"
    with Journal.open(tmp_path / "new") as journal:
        assert journal.append(commands(1, 30))


def test_records_that_do_not_follow_the_one_a_snapshot_ends_with_are_not_taken(tmp_path):
    """All are sound from record 12 on, and record 12 names another one before it than record 11."""
    place = make(tmp_path / "old", snapshots=(11,))
    two = segments(place)[1]
    header = unpack_header(two.read_bytes()[:HEADER_SIZE], two.name, "two")
    given = np.frombuffer(everything(place), RECORD_DTYPE)[11:16].tobytes()
    change(two, HEADER_SIZE + 3 * RECORD_SIZE, Chain(header.salt, 12345, 11, 0).seal(given, 0, 0))
    damage(place, 3)

    report = save(place, tmp_path / "new", from_snapshot=True)

    assert (report["kept"]["snapshot"], report["kept"]["records"]) == (f"{11:020d}.snapshot", 0)
    assert report["lost"]["first_sequence"] == 12


def test_a_snapshot_before_the_damage_keeps_no_more_than_the_beginning(tmp_path):
    place = make(tmp_path / "old", snapshots=(4,))
    whole = everything(place)
    damage(place, 9)

    report = saved(place, tmp_path / "new", 8, whole, from_snapshot=True)

    assert report["kept"]["snapshot"] is None


def test_a_damaged_snapshot_and_one_that_no_engine_takes_are_not_begun_with(tmp_path):
    place = make(tmp_path / "old", snapshots=(4, 11))
    whole = everything(place)
    damage(place, 3)
    for snapshot in place.glob("*.snapshot"):
        change(snapshot, 90, b"\xff")

    report = saved(place, tmp_path / "new", 2, whole, from_snapshot=True)

    assert len(report["found"]) == 3


def test_a_journal_that_began_later_begins_later_again(tmp_path):
    """JRN-20."""
    place = make(tmp_path / "old", snapshots=(11, 17))
    whole = everything(place, 9)
    damage(place, 15)
    segments(place)[0].unlink()

    report = save(place, tmp_path / "new")

    assert (report["kept"]["first_sequence"], report["kept"]["last_sequence"]) == (12, 14)
    assert canonical(everything(tmp_path / "new", 12))[: 3 * RECORD_SIZE] == canonical(whole)[3 * 64 : 6 * 64]
    assert save(place, tmp_path / "more", from_snapshot=True)["kept"]["last_sequence"] == COUNT


def test_a_snapshot_behind_all_records_is_a_journal_without_records(tmp_path):
    place = make(tmp_path / "old", snapshots=(19,))
    for sequence in (18, 20):
        damage(place, sequence)

    report = save(place, tmp_path / "new", from_snapshot=True)

    assert (report["kept"]["records"], report["lost"]["records"]) == (0, 1)
    assert (scan(tmp_path / "new").verdict, scan(tmp_path / "new").last) == ("clean", 20)
    assert scan(tmp_path / "new").first == 20


# ------------------------------------------------------------------------------------------------------ the report


def test_a_report_that_was_edited_is_noticed_and_names_every_file_by_its_digest(place, tmp_path):
    """JRN-25."""
    damage(place, 5)
    report = save(place, tmp_path / "new")
    path = tmp_path / "new" / REPORT_JSON

    assert sorted(report["source_files"]) == sorted(contents(place))
    assert set(report["new"]["files"]) == set(contents(tmp_path / "new")) - {REPORT_JSON, REPORT_TEXT}
    text = (tmp_path / "new" / REPORT_TEXT).read_text()
    assert report["checksum"] in text
    assert "16 of them at or below the watermark, 20" in text
    path.write_text(path.read_text().replace('"acknowledged": 16', '"acknowledged": 0'))
    with pytest.raises(CorruptInput, match="this report was changed"):
        read_report(path)
    path.write_text("nonsense")
    with pytest.raises(CorruptInput, match="no loss report"):
        read_report(path)


# ------------------------------------------------------------------------------------------- whatever comes together


@pytest.mark.parametrize("seed", range(120))
def test_whatever_happens_to_its_files_no_wrong_record_is_kept(seed, tmp_path):
    """JRN-25: several faults at once, of bits, files, names and other journals."""
    place, dice = make(tmp_path / "old", snapshots=(4, 11, 17)), random.Random(seed)
    for number in (1, 2):
        with Journal.open(place, source=Source.seeded(number)) as journal:
            journal.append(commands(5, 30 + 10 * number))
    whole = canonical(everything(place))
    other = make(tmp_path / "other", seed=8, snapshots=(4, 11))
    for _ in range(dice.choice([1, 1, 2, 3])):
        break_something(place, other, dice)
    before, found = contents(place), scan(place)

    try:
        report = save(place, tmp_path / "new", from_snapshot=dice.random() < 0.5)
    except UsageError:
        assert found.verdict == "clean"
        return
    except CorruptInput:
        assert found.verdict == "corrupt"
        return
    finally:
        assert contents(place) == before

    first, last = report["kept"]["first_sequence"], report["kept"]["last_sequence"]
    new = scan(tmp_path / "new")
    assert new.verdict == "clean"
    assert found.verdict != "clean"
    assert new.last - 1 >= found.last, "a reader gives no more"
    if report["kept"]["records"]:
        kept = b"".join(read(tmp_path / "new", first, last))
        assert canonical(kept) == whole[(first - 1) * RECORD_SIZE : last * RECORD_SIZE]


def break_something(place, other, dice):
    """Do one of eight things to a file of a journal."""
    files = sorted(place.iterdir())
    file, second, what = dice.choice(files), dice.choice(files), dice.randrange(8)
    data = bytearray(file.read_bytes())
    if what == 0 and data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    elif what == 1:
        del data[dice.randrange(len(data) + 1) :]
    elif what == 2 and len(files) > 3:
        file.unlink()
        return
    elif what == 3:
        data = bytearray(dice.randbytes(len(data)))
    elif what == 4:
        data, swapped = bytearray(second.read_bytes()), data
        second.write_bytes(swapped)
    elif what == 5:
        data = bytearray(dice.choice(sorted(other.iterdir())).read_bytes())
    elif what == 6 and len(data) > HEADER_SIZE + RECORD_SIZE:
        one, two = (HEADER_SIZE + RECORD_SIZE * dice.randrange((len(data) - HEADER_SIZE) // RECORD_SIZE) for _ in "12")
        data[one : one + RECORD_SIZE], data[two : two + RECORD_SIZE] = (
            data[two : two + RECORD_SIZE],
            data[one : one + RECORD_SIZE],
        )
    else:
        (place / dice.choice([f"{3:020d}-00000001.wal", f"{9:020d}-00000002.wal"])).write_bytes(data)
    file.write_bytes(data)


# ------------------------------------------------------------------------------------------------- what can go wrong


def test_a_place_that_is_taken_or_inside_the_journal_is_refused(place, tmp_path):
    damage(place, 5)
    before = contents(place)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("keep")

    with pytest.raises(UsageError, match="is not empty"):
        save(place, tmp_path / "full")
    with pytest.raises(UsageError, match="already holds a journal"):
        save(place, make(tmp_path / "other"))
    for inside in (place, place / "new"):
        with pytest.raises(UsageError, match="inside the journal"):
            save(place, inside)

    assert contents(place) == before
    assert (tmp_path / "full" / "mine").read_text() == "keep"


def test_a_journal_that_a_writer_has_open_is_left_alone(place, tmp_path):
    damage(place, 5)
    holder = os.open(place, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        with pytest.raises(UsageError, match="another process has this journal open"):
            save(place, tmp_path / "new")
    finally:
        os.close(holder)


def test_nothing_to_go_by_is_corrupt(place, tmp_path):
    for path in place.iterdir():
        os.truncate(path, 0)

    with pytest.raises(CorruptInput, match="neither the commit mark nor the header"):
        save(place, tmp_path / "new")


def test_a_new_journal_that_does_not_read_as_it_was_written_is_removed(place, tmp_path, monkeypatch):
    """JRN-25: whatever goes wrong in between, no wrong record is left behind."""
    damage(place, 12)
    copy = module._copy

    def wrong(records, journal, clock):
        data = bytearray(records)
        data[40] ^= 1
        copy(bytes(data), journal, clock)

    monkeypatch.setattr(module, "_copy", wrong)

    with pytest.raises(JournalFailed, match="does not read as it was written"):
        save(place, tmp_path / "new")
    assert not (tmp_path / "new").exists()
