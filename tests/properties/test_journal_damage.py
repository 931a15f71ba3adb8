"""Whatever happens to a journal's bytes, no wrong record comes out, and nothing that was on disk is lost in silence.

Damage is enumerated where it can be: every bit, every length, every pair of records.  Crashes are drawn: any of the
sectors that were not synced may have been written, in any combination.  Garbage must be refused in one sentence.
"""

import itertools
import os
import shutil

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrox.engine import Capacity
from ferrox.errors import CorruptInput, JournalCorrupt, SegmentCorrupt, UsageError
from ferrox.journal import Journal, Source, command_records, read, scan
from ferrox.journal.layout import HEADER_SIZE, MARK_NAME, MARK_SECTOR, unpack_header
from ferrox.messages import RECORD_SIZE, CancelOrder

SECTOR = 512


def orders(count, first=1):
    return command_records([CancelOrder(1, first + index).pack() for index in range(count)], time_ns=first)


def create(path, segment_records=1000, seed=7):
    return Journal.create(path, Capacity(10, 10), segment_records=segment_records, source=Source.seeded(seed))


def segments(path):
    return sorted(path.glob("*.wal"))


def records_of(path):
    """Return every record that a reader gets before the end or the damage, and the error if there is one."""
    given_out = b""
    try:
        for batch in read(path):
            given_out += batch
    except CorruptInput as error:
        return given_out, error
    return given_out, None


@pytest.fixture
def sealed(tmp_path):
    """A journal that was closed in order: 8 records and the seal, in two segments."""
    with create(tmp_path / "sealed", segment_records=5) as journal:
        journal.append(orders(8))
    return tmp_path / "sealed"


@pytest.fixture
def crashed(tmp_path):
    """A journal of ten records, five of them durable, that a crash left without a seal."""
    with create(tmp_path / "running") as journal:
        journal.append(orders(5))
        journal.sync()
        journal.append(orders(5, first=6))
        shutil.copytree(tmp_path / "running", tmp_path / "crashed")
    os.truncate(segments(tmp_path / "crashed")[0], HEADER_SIZE + 10 * RECORD_SIZE)
    return tmp_path / "crashed"


# ----------------------------------------------------------------------------------------------------- every one


def test_every_single_bit_flip_of_a_sealed_record_is_refused_at_that_record(sealed):
    """JRN-4, JRN-7."""
    whole, _ = records_of(sealed)
    base = 0
    for path in segments(sealed):
        data = path.read_bytes()
        for bit in range(8 * HEADER_SIZE, 8 * len(data)):
            index = base + (bit // 8 - HEADER_SIZE) // RECORD_SIZE
            overwrite(path, flipped(data, bit))

            given_out, error = records_of(sealed)

            assert isinstance(error, JournalCorrupt), bit
            assert (error.path, error.sequence) == (str(path), index + 1)
            assert error.offset == HEADER_SIZE + RECORD_SIZE * (index - base)
            assert given_out == whole[: len(given_out)]
        overwrite(path, data)
        base += (len(data) - HEADER_SIZE) // RECORD_SIZE
    assert base == 9


def test_every_single_bit_flip_of_an_unsealed_record_is_corrupt_up_to_the_watermark_and_torn_above(crashed):
    """JRN-6 .. JRN-8."""
    whole, _ = records_of(crashed)
    path = segments(crashed)[0]
    data = path.read_bytes()
    for bit in range(8 * HEADER_SIZE, 8 * len(data)):
        index = (bit // 8 - HEADER_SIZE) // RECORD_SIZE
        overwrite(path, flipped(data, bit))

        found = scan(crashed)

        assert found.last == index
        assert found.durable == 5
        if index < 5:
            assert (found.verdict, found.torn) == ("corrupt", None)
        else:
            assert (found.verdict, found.corruption) == ("torn", None)
            assert found.torn
            assert found.torn.sequence == index + 1
            if bit % 64 == 0:
                assert records_of(crashed) == (whole[: RECORD_SIZE * index], None)


def test_every_single_bit_flip_of_a_header_is_refused(sealed):
    """JRN-10: the fields by their checksum, the rest because it is zero."""
    for path in segments(sealed):
        page = path.read_bytes()[:HEADER_SIZE]
        for bit in range(8 * HEADER_SIZE):
            with pytest.raises(SegmentCorrupt):
                unpack_header(flipped(page, bit), path.name, str(path))


def test_a_header_that_is_refused_refuses_the_journal(sealed):
    for path in segments(sealed):
        data = path.read_bytes()
        for bit in range(0, 8 * HEADER_SIZE, 331):
            overwrite(path, flipped(data, bit))

            given_out, error = records_of(sealed)

            assert given_out == b""
            assert isinstance(error, SegmentCorrupt)
            assert error.path == str(path)
        overwrite(path, data)


def test_every_single_bit_flip_of_the_commit_mark_is_seen_and_loses_nothing(sealed):
    """JRN-13."""
    whole, _ = records_of(sealed)
    path = sealed / MARK_NAME
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        overwrite(path, flipped(data, bit))

        found = scan(sealed)

        assert (found.verdict, found.last, found.durable, len(found.warnings)) == ("clean", 9, 9, 1), bit
        assert f"offset {bit // 8 // MARK_SECTOR * MARK_SECTOR}:" in found.warnings[0]
    assert records_of(sealed) == (whole, None)


def test_every_length_of_a_sealed_segment_but_its_own_is_refused(sealed):
    """JRN-7, JRN-10."""
    for path in segments(sealed):
        data = path.read_bytes()
        for size in [*range(0, HEADER_SIZE, 97), *range(HEADER_SIZE, len(data))]:
            overwrite(path, data[:size])

            found = scan(sealed)

            assert found.verdict == "corrupt", size
            assert str(path) in str(found.corruption)
        overwrite(path, data)
    assert scan(sealed).verdict == "clean"


def test_every_length_of_an_unsealed_segment_is_clean_or_torn_above_the_watermark(crashed):
    """JRN-8: a crash at every byte."""
    whole, _ = records_of(crashed)
    path = segments(crashed)[0]
    data = path.read_bytes()
    for size in range(HEADER_SIZE, len(data) + 1):
        overwrite(path, data[:size])
        count, rest = divmod(size - HEADER_SIZE, RECORD_SIZE)

        found = scan(crashed)

        if count < 5:
            assert isinstance(found.corruption, JournalCorrupt)
            assert found.corruption.sequence == count + 1
        else:
            assert found.verdict == ("torn" if rest else "clean")
            assert records_of(crashed) == (whole[: RECORD_SIZE * count], None)


def test_after_a_crash_at_every_record_and_inside_it_a_journal_goes_on(crashed, tmp_path):
    """JRN-14: what was sound is kept, what was torn is aside, and the next reader finds a clean journal."""
    whole, _ = records_of(crashed)
    size = HEADER_SIZE + 10 * RECORD_SIZE
    for cut in range(HEADER_SIZE + 5 * RECORD_SIZE, size + 1, 16):
        path = tmp_path / f"cut{cut}"
        shutil.copytree(crashed, path)
        os.truncate(segments(path)[0], cut)

        with Journal.open(path, source=Source.seeded(cut)) as journal:
            kept = journal.sequence
            journal.append(orders(1, first=99))

        given_out, error = records_of(path)
        assert error is None
        assert kept == (cut - HEADER_SIZE) // RECORD_SIZE
        assert given_out[: RECORD_SIZE * kept] == whole[: RECORD_SIZE * kept]
        assert len(given_out) == RECORD_SIZE * (kept + 2)
        assert (journal.torn is not None) == bool(list(path.glob("*.torn"))) == (cut % RECORD_SIZE != 0)


def test_records_that_are_lost_doubled_swapped_or_moved_are_refused_in_a_sealed_journal(sealed):
    """JRN-2, JRN-4: each is sound by itself; only its place is wrong."""
    path = segments(sealed)[0]
    data = path.read_bytes()
    records = [data[place : place + RECORD_SIZE] for place in range(HEADER_SIZE, len(data), RECORD_SIZE)]

    for label, changed in rearranged(records):
        overwrite(path, data[:HEADER_SIZE] + b"".join(changed))

        assert scan(sealed).verdict == "corrupt", label


def test_records_rearranged_above_the_watermark_are_torn_where_they_stop_to_follow(crashed):
    """JRN-8."""
    whole, _ = records_of(crashed)
    path = segments(crashed)[0]
    data = path.read_bytes()
    records = [whole[place : place + RECORD_SIZE] for place in range(0, len(whole), RECORD_SIZE)]

    for label, changed in rearranged(records[5:]):
        overwrite(path, data[:HEADER_SIZE] + b"".join(records[:5] + changed))
        pairs = zip(records[5:], changed, strict=False)
        kept = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

        given_out, error = records_of(crashed)

        assert error is None, label
        assert given_out == whole[: RECORD_SIZE * (5 + kept)]


def rearranged(records):
    """Give every list that differs from the records by one that is lost, doubled, moved, or swapped with another."""
    for index in range(len(records)):
        yield f"lost {index}", records[:index] + records[index + 1 :]
        yield f"doubled {index}", records[: index + 1] + records[index:]
    for one, two in itertools.combinations(range(len(records)), 2):
        swapped = list(records)
        swapped[one], swapped[two] = swapped[two], swapped[one]
        yield f"swapped {one} {two}", swapped
        overwritten = list(records)
        overwritten[two] = records[one]
        yield f"{one} over {two}", overwritten


def overwrite(path, data):
    """Write a file in place: emptied first, as `write_bytes` does, it would be flushed to disk thousands of times."""
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# --------------------------------------------------------------------------------------------------- earlier lives


def test_the_remains_of_an_earlier_life_never_pass_for_records(tmp_path):
    """JRN-2, JRN-11: a disk that gives back old sectors gives them back with another salt."""
    with create(tmp_path / "j") as journal:
        journal.append(orders(10))
        shutil.copytree(tmp_path / "j", tmp_path / "first")
    path = tmp_path / "first"
    stale = segments(path)[0].read_bytes()
    os.truncate(segments(path)[0], HEADER_SIZE + 4 * RECORD_SIZE)
    with Journal.open(path, source=Source.seeded(8)) as journal:
        journal.append(orders(3, first=50))
        shutil.copytree(path, tmp_path / "second")

    path = tmp_path / "second"
    live = segments(path)[1].read_bytes()
    for kept in range(4):
        for first in range(10):
            tail = stale[HEADER_SIZE + RECORD_SIZE * first :]
            segments(path)[1].write_bytes(live[: HEADER_SIZE + RECORD_SIZE * kept] + tail)

            found = scan(path)

            assert (found.verdict, found.last) == ("torn", 4 + kept)


def test_a_record_with_the_right_checksum_still_has_to_follow(crashed):
    """JRN-1 .. JRN-4: forge each field in turn, and seal the record again."""
    path = segments(crashed)[0]
    data = path.read_bytes()
    salt = int.from_bytes(data[56:60], "little")
    place = HEADER_SIZE + 6 * RECORD_SIZE
    for offset, value in ((4, bytes(4)), (8, bytes(8)), (8, b"\x08"), (16, bytes(8)), (16, b"\xff" * 7 + b"\x7f")):
        record = bytearray(data[place : place + RECORD_SIZE])
        record[offset : offset + len(value)] = value
        record[:4] = crc32c(record[4:], salt).to_bytes(4, "little")
        path.write_bytes(data[:place] + record + data[place + RECORD_SIZE :])

        assert (scan(crashed).verdict, scan(crashed).last) == ("torn", 6), offset


# --------------------------------------------------------------------------------------------------- legal crashes


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_a_crash_loses_nothing_that_was_synced_and_is_never_taken_for_damage(data, tmp_path_factory):
    """JRN-6 .. JRN-8, JRN-13: unsynced sectors survive in any combination, and a mark's write with them or not."""
    path = tmp_path_factory.mktemp("crash") / "j"
    journal = create(path, data.draw(st.sampled_from([5, 1000])), seed=data.draw(st.integers(0, 99)))
    written = b""
    on_disk, mark_before = image(path), (path / MARK_NAME).read_bytes()
    for count in data.draw(st.lists(st.integers(-1, 12), min_size=1, max_size=6)):
        if count < 0:
            mark_before = (path / MARK_NAME).read_bytes()
            journal.sync()
            on_disk = image(path)
        else:
            written += journal.append(orders(count, first=1 + len(written)))
    in_cache, synced = image(path), journal.durable
    journal.close()

    for unused in path.iterdir():
        unused.unlink()
    *full, last = sorted(name for name in in_cache if name != MARK_NAME)
    for name in full:
        (path / name).write_bytes(in_cache[name])
    on_disk.setdefault(last, in_cache[last][:HEADER_SIZE])
    (path / last).write_bytes(survivor(on_disk[last], in_cache[last], data.draw))
    (path / MARK_NAME).write_bytes(survivor(mark_before, in_cache[MARK_NAME], data.draw))
    found = scan(path)
    given_out, error = records_of(path)

    assert error is None
    assert found.verdict in ("clean", "torn")
    assert len(given_out) >= synced * RECORD_SIZE
    assert given_out == written[: len(given_out)]
    with Journal.open(path) as journal:
        assert journal.sequence * RECORD_SIZE == len(given_out)


def image(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def survivor(old, new, draw):
    """Return what a crash leaves of a file: for each sector its old bytes or its new, up to any of the two lengths."""
    size = draw(st.sampled_from(sorted({len(old), len(new), max(len(old), len(new) // SECTOR * SECTOR)})))
    sectors = range(0, size, SECTOR)
    fresh = draw(st.lists(st.booleans(), min_size=len(sectors), max_size=len(sectors)))
    chunks = [
        (new if is_fresh else old)[place : place + SECTOR] for place, is_fresh in zip(sectors, fresh, strict=True)
    ]
    return b"".join(chunk.ljust(SECTOR, b"\0") for chunk in chunks)[:size]


# ---------------------------------------------------------------------------------------------------------- garbage


@settings(max_examples=150, deadline=None)
@given(
    which=st.integers(0, 2),
    garbage=st.one_of(st.binary(max_size=200), st.binary(min_size=HEADER_SIZE, max_size=HEADER_SIZE + 300)),
    place=st.integers(0, HEADER_SIZE + 400),
    replace=st.booleans(),
)
def test_garbage_in_the_place_of_a_file_or_inside_it_never_gets_past(which, garbage, place, replace, tmp_path_factory):
    path = tmp_path_factory.mktemp("garbage") / "j"
    with create(path, segment_records=5) as journal:
        written = journal.append(orders(8))
    file = [*segments(path), path / MARK_NAME][which]
    data = file.read_bytes()
    file.write_bytes(garbage if replace else data[:place] + garbage + data[place + len(garbage) :])

    found = scan(path)
    given_out, error = records_of(path)

    assert given_out[: len(written)] == written[: len(given_out)]
    assert (found.verdict == "corrupt") == (error is not None)
    assert str(found.corruption) == str(error)
    assert "\n" not in str(error)
    if error is None:
        assert len(given_out) == len(written) + RECORD_SIZE


@settings(max_examples=150, deadline=None)
@given(
    names=st.lists(
        st.one_of(
            st.from_regex(r"[0-9]{20}-[0-9a-f]{8}\.wal", fullmatch=True),
            st.sampled_from(["x.wal", ".wal", "a\nb.wal", "commit.mark", "00000000000000000001.snapshot"]),
        ),
        max_size=4,
        unique=True,
    ),
    content=st.binary(max_size=300),
)
def test_a_directory_of_garbage_is_refused_in_one_sentence(names, content, tmp_path_factory):
    path = tmp_path_factory.mktemp("directory")
    for name in names:
        (path / name).write_bytes(content)

    for call in (scan, lambda path: list(read(path)), Journal.open):
        sentence = refusal(call, path)
        assert sentence
        assert "\n" not in sentence


def refusal(call, path):
    """Return the sentence that a call fails with, or that the scan it returns tells."""
    try:
        return str(call(path).corruption)
    except (CorruptInput, UsageError) as error:
        return str(error)
