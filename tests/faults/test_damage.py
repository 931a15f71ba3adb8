"""Fault tests 1 to 10: truncation and corruption, every one where it can be every one.

A journal of 256 records that was closed in order stands for all: its watermark is its end, so anything that is not as
it was must be refused.  Flipped bits are judged in memory by the same functions that a reader uses, all of them, and
every so many in a file by the reader itself.
"""

import os
import random
import shutil
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c

from ferrox.errors import CorruptInput, FerroxError, JournalCorrupt, SegmentCorrupt
from ferrox.journal import Journal, scan
from ferrox.journal.chain import Chain
from ferrox.journal.layout import HEADER_SIZE, MARK_NAME, unpack_header
from ferrox.messages import RECORD_SIZE

sys.path.insert(0, str(Path(__file__).parent))

from kit import (  # type: ignore[import-not-found]
    PAGE,
    SECTOR,
    create,
    orders,
    overwrite,
    records_of,
    segments,
    share,
)

pytestmark = pytest.mark.faults
COUNT = 256
SIZE = HEADER_SIZE + COUNT * RECORD_SIZE
assert SIZE == 20_480


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """A journal of 256 records, the last of them its SEAL, in one segment."""
    path = tmp_path_factory.mktemp("sealed") / "j"
    with create(path) as journal:
        journal.append(orders(COUNT - 1))
    assert segments(path)[0].stat().st_size == SIZE
    return path


@pytest.fixture
def whole(sealed):
    """The segment's bytes, which are there again after the test."""
    data = segments(sealed)[0].read_bytes()
    yield data
    overwrite(segments(sealed)[0], data)


def start_of(data, index):
    """Return the chain before record `index`, 0 for the first."""
    header = unpack_header(data[:HEADER_SIZE], "00000000000000000001-00000001.wal", "")
    if index == 0:
        return Chain(header.salt, header.prev_chain, 0, 0)
    record = data[HEADER_SIZE + (index - 1) * RECORD_SIZE :][:RECORD_SIZE]
    return Chain(
        header.salt, int.from_bytes(record[:4], "little"), index, int.from_bytes(record[16:24], "little", signed=True)
    )


def refused_at(path, data, tally):
    """See that a reader refuses these bytes, and gives nothing but what was written before the damage; where it is."""
    target = segments(path)[0]
    before = segments(path)[0].read_bytes()
    overwrite(target, data)
    given, error = records_of(path)
    tally.expect("undetected", isinstance(error, CorruptInput), error)
    tally.expect("wrong", before[HEADER_SIZE:].startswith(given))
    assert error is not None
    assert str(target) in str(error)
    overwrite(target, before)
    return error


def test_every_length_of_a_sealed_journal_is_refused(sealed, whole, tally):
    """Fault test 1: 20,481 lengths, all of them by the reader."""
    path = segments(sealed)[0]
    for size in range(SIZE, -1, -1):
        os.truncate(path, size)
        found = scan(sealed)
        tally.trial()
        tally.expect("undetected", size == SIZE or found.verdict == "corrupt", size)
        tally.expect("false_alarms", size < SIZE or found.verdict == "clean", size)
        if isinstance(found.corruption, JournalCorrupt):
            assert found.corruption.sequence == (size - HEADER_SIZE) // RECORD_SIZE + 1
    assert tally["trials"] == 20_481


def test_every_length_of_an_unsealed_journal_is_a_prefix_or_refused(tmp_path, tally):
    """Fault test 1: above the watermark the sound records before the cut, below it a refusal."""
    durable = 100
    with create(tmp_path / "running") as journal:
        journal.append(orders(durable))
        journal.sync()
        journal.append(orders(COUNT - durable, 1 + durable))
        shutil.copytree(tmp_path / "running", tmp_path / "j")
    path = segments(tmp_path / "j")[0]
    os.truncate(path, SIZE)
    for size in range(SIZE, -1, -1):
        os.truncate(path, size)
        found = scan(tmp_path / "j")
        tally.trial()
        count, rest = divmod(size - HEADER_SIZE, RECORD_SIZE)
        if count < durable:
            tally.expect("undetected", found.verdict == "corrupt", size)
        else:
            tally.expect("false_alarms", found.verdict == ("torn" if rest else "clean"), size)
            tally.expect("lost", found.last == count)


def test_every_flipped_bit_of_the_header_is_refused(sealed, whole, tally):
    """Fault test 2: 32,768 bits, reserved ones too."""
    name = segments(sealed)[0].name
    page = bytearray(whole[:HEADER_SIZE])
    for bit in range(8 * HEADER_SIZE):
        page[bit // 8] ^= 1 << bit % 8
        tally.trial()
        with pytest.raises(SegmentCorrupt):
            unpack_header(bytes(page), name, name)
        page[bit // 8] ^= 1 << bit % 8
        if bit % 257 == 0:
            data = bytearray(whole)
            data[bit // 8] ^= 1 << bit % 8
            refused_at(sealed, bytes(data), tally)


def flips(data, count, tally):
    """Flip every bit of so many records in turn; each must fail the checks, or fail those of the record behind it."""
    for index in range(count):
        place = HEADER_SIZE + index * RECORD_SIZE
        record = bytearray(data[place : place + RECORD_SIZE])
        start = start_of(data, index)
        for bit in range(8 * RECORD_SIZE):
            record[bit // 8] ^= 1 << bit % 8
            passed = Chain(start.salt, start.checksum, start.sequence, start.time_ns).follow(bytes(record))
            record[bit // 8] ^= 1 << bit % 8
            tally.trial()
            tally.expect("undetected", passed == 0, (index, bit))


def test_every_flipped_bit_of_every_record_is_refused(sealed, whole, tally):
    """Fault test 2: 131,072 bits."""
    flips(whole, COUNT, tally)
    assert tally["trials"] == 131_072


def test_the_reader_refuses_flipped_bits_at_their_record(sealed, whole, tally):
    """Fault test 2: some bits of each record, by the whole way of a reader."""
    for index in range(COUNT):
        for bit in {index * 61 % 512, (index * 61 + 256) % 512}:
            data = bytearray(whole)
            data[HEADER_SIZE + index * RECORD_SIZE + bit // 8] ^= 1 << bit % 8
            error = refused_at(sealed, bytes(data), tally)
            tally.trial()
            assert (error.sequence, error.offset) == (index + 1, HEADER_SIZE + index * RECORD_SIZE)


def test_every_flipped_bit_of_a_thousand_records_is_refused(tmp_path, tally):
    """Fault test 3: 512,000 bits."""
    with create(tmp_path / "j") as journal:
        journal.append(orders(999))
    flips(segments(tmp_path / "j")[0].read_bytes(), 1000, tally)
    assert tally["trials"] == 512_000


def test_every_two_flipped_bits_of_a_record_are_refused(sealed, whole, tally):
    """Fault test 4: 130,816 pairs."""
    record = bytearray(whole[HEADER_SIZE + 100 * RECORD_SIZE :][:RECORD_SIZE])
    start = start_of(whole, 100)
    for one, two in combinations(range(8 * RECORD_SIZE), 2):
        record[one // 8] ^= 1 << one % 8
        record[two // 8] ^= 1 << two % 8
        passed = Chain(start.salt, start.checksum, start.sequence, start.time_ns).follow(bytes(record))
        record[one // 8] ^= 1 << one % 8
        record[two // 8] ^= 1 << two % 8
        tally.trial()
        tally.expect("undetected", passed == 0, (one, two))
    assert tally["trials"] == 130_816


def test_no_three_four_or_five_flipped_bits_of_a_record_can_pass(tally):
    """Fault test 4: a proof.  A checksum is linear, so bits pass together only if their syndromes cancel out.

    There are 512 syndromes, of 480 bits under the checksum and of the 32 bits of the checksum itself.  Five of them
    cancel out only if the sum of some two is that of three others, and so on; all sums are compared.
    """
    nothing = crc32c(bytes(60))
    single = []
    for bit in range(480):
        data = bytearray(60)
        data[bit // 8] = 1 << bit % 8
        single.append(crc32c(bytes(data)) ^ nothing)
    syndromes = np.array(single + [1 << bit for bit in range(32)], np.uint32)
    first, second = np.triu_indices(512, 1)
    pairs = syndromes[first] ^ syndromes[second]
    assert len(np.unique(syndromes)) == 512  # two
    assert 0 not in syndromes  # one
    assert not np.isin(pairs, syndromes).any()  # three
    assert len(np.unique(pairs)) == len(pairs)  # four
    ordered = np.sort(pairs)
    seen = np.zeros(1 << 24, bool)
    seen[ordered >> np.uint32(8)] = True
    for index in range(512):  # five: a pair equals a triple whose third is this one, and shares no bit with it
        triples = pairs ^ syndromes[index]
        candidates = triples[seen[triples >> np.uint32(8)]]
        hits = candidates[ordered[np.minimum(np.searchsorted(ordered, candidates), len(ordered) - 1)] == candidates]
        # Those are the pairs that hold this bit themselves: (a, i) ^ i is a, and no sum of two equals one (three).
        assert len(hits) == 0, index
        tally["trials"] += len(triples)
        tally["faults"] += len(triples) * 5


@pytest.mark.parametrize("kind", ["zero", "ones", "random", "plus one"])
def test_every_changed_byte_is_refused(kind, sealed, whole, tally):
    """Fault test 5: 20,480 bytes in four ways; those that are as they should be already are left out."""
    dice = random.Random(5)
    name = segments(sealed)[0].name
    for place in range(SIZE):
        was = whole[place]
        new = {"zero": 0, "ones": 255, "random": dice.randrange(256), "plus one": (was + 1) % 256}[kind]
        if new == was:
            continue
        tally.trial()
        if place < HEADER_SIZE:
            page = bytearray(whole[:HEADER_SIZE])
            page[place] = new
            with pytest.raises(CorruptInput):
                unpack_header(bytes(page), name, name)
            continue
        index = (place - HEADER_SIZE) // RECORD_SIZE
        record = bytearray(whole[HEADER_SIZE + index * RECORD_SIZE :][:RECORD_SIZE])
        record[(place - HEADER_SIZE) % RECORD_SIZE] = new
        tally.expect("undetected", start_of(whole, index).follow(bytes(record)) == 0, place)


@pytest.mark.parametrize("unit", [SECTOR, PAGE])
def test_every_sector_and_page_that_is_lost_swapped_or_old_is_refused(unit, sealed, whole, tmp_path, tally):
    """Fault test 6."""
    with create(tmp_path / "older", seed=8) as journal:
        journal.append(orders(COUNT - 1, 5000))
    older = segments(tmp_path / "older")[0].read_bytes()
    parts = [whole[place : place + unit] for place in range(0, SIZE, unit)]
    changes = [
        {index: other}
        for index in range(len(parts))
        for other in (bytes(unit), b"\xff" * unit, older[index * unit : (index + 1) * unit])
    ]
    changes += [{one: parts[two], two: parts[one]} for one, two in combinations(range(len(parts)), 2)]
    for change in changes:
        data = b"".join(change.get(index, part) for index, part in enumerate(parts))
        if data != whole:
            tally.trial(len(change))
            refused_at(sealed, data, tally)


def test_every_two_records_swapped_and_every_one_lost_doubled_or_over_another_is_refused(sealed, whole, tally):
    """Fault test 7: 32,640 swaps, and some of each kind by the whole way of a reader."""
    records = [whole[place : place + RECORD_SIZE] for place in range(HEADER_SIZE, SIZE, RECORD_SIZE)]
    for one, two in combinations(range(COUNT), 2):
        tally.trial()
        tally.expect("undetected", start_of(whole, one).follow(records[two]) == 0, (one, two))
    assert tally["trials"] == 32_640
    for index in range(COUNT):
        doubled = records[: index + 1] + records[index:]
        lost = records[:index] + records[index + 1 :]
        over = [*records[:index], records[(index + 7) % COUNT], *records[index + 1 :]]
        for changed in (doubled, lost, [*lost, bytes(RECORD_SIZE)], over):
            tally.trial()
            if changed == [*records, records[-1]]:  # behind the end is no record: it is cut off as a torn tail is
                overwrite(segments(sealed)[0], whole[:HEADER_SIZE] + b"".join(changed))
                assert (scan(sealed).verdict, scan(sealed).last) == ("torn", COUNT)
            else:
                refused_at(sealed, whole[:HEADER_SIZE] + b"".join(changed), tally)


def test_a_record_in_another_segment_is_refused(tmp_path, tally):
    """Fault test 7: a write that landed in another file of the same journal, at each of its places."""
    with create(tmp_path / "j", segment_records=8) as journal:
        journal.append(orders(20))
    paths = segments(tmp_path / "j")
    for source in paths:
        for target in paths:
            data = target.read_bytes()
            for index in range((len(data) - HEADER_SIZE) // RECORD_SIZE):
                place = HEADER_SIZE + index * RECORD_SIZE
                record = source.read_bytes()[place : place + RECORD_SIZE]
                if source != target and record:
                    overwrite(target, data[:place] + record + data[place + RECORD_SIZE :])
                    tally.trial()
                    tally.expect("undetected", scan(tmp_path / "j").verdict == "corrupt")
            overwrite(target, data)


def test_a_lost_write_below_the_watermark_is_refused(sealed, whole, tmp_path, tally):
    """Fault test 8: each record as zeros, and as it was in an earlier life of the disk."""
    with create(tmp_path / "older", seed=8) as journal:
        journal.append(orders(COUNT - 1))
    older = segments(tmp_path / "older")[0].read_bytes()
    for index in range(COUNT):
        place = HEADER_SIZE + index * RECORD_SIZE
        for record in (bytes(RECORD_SIZE), older[place : place + RECORD_SIZE]):
            tally.trial()
            error = refused_at(sealed, whole[:place] + record + whole[place + RECORD_SIZE :], tally)
            assert error.sequence == index + 1


def test_a_record_with_a_right_checksum_and_a_wrong_field_is_refused(sealed, whole, tally):
    """Fault test 9: sequence, chain and time forged with the right salt; and all of it with another salt."""
    salt = int.from_bytes(whole[56:60], "little")
    for index in range(COUNT - 1):
        place = HEADER_SIZE + index * RECORD_SIZE
        for offset, value, key in (
            (4, b"\1\2\3\4", salt),
            (8, (index + 2).to_bytes(8, "little"), salt),
            (8, b"\xff" * 8, salt),
            (16, b"\xff" * 7 + b"\x7f", salt),
            (16, b"\xff" * 8, salt),
            (8, (index + 1).to_bytes(8, "little"), salt ^ 1),
        ):
            record = bytearray(whole[place : place + RECORD_SIZE])
            record[offset : offset + len(value)] = value
            record[:4] = crc32c(bytes(record[4:]), key).to_bytes(4, "little")
            tally.trial()
            tally.expect("undetected", start_of(whole, index).follow(bytes(record)) == 0, (index, offset))
        if index % 16 == 0:
            refused_at(sealed, whole[:place] + bytes(record) + whole[place + RECORD_SIZE :], tally)


def test_garbage_of_any_size_is_refused_in_one_sentence(tmp_path, tally):
    """Fault test 10: in the place of a segment, of the mark, of both; with the right name and a wrong one."""
    dice = random.Random(10)
    with create(tmp_path / "j", segment_records=50) as journal:
        journal.append(orders(120))
    files = [*segments(tmp_path / "j"), tmp_path / "j" / MARK_NAME]
    kept = {path: path.read_bytes() for path in files}
    noise = dice.randbytes(1 << 20)
    for number in range(share(2_000, 10_000)):
        size = dice.choice((dice.randrange(6000), dice.randrange(6000), dice.randrange(1 << 20)))
        target = files[number % len(files)]
        garbage = noise[dice.randrange(1000) :][:size]
        if number % 3 == 0:  # behind a header that is right
            garbage = kept[target][:HEADER_SIZE] + garbage
        overwrite(target, garbage)
        tally.trial()
        given, error = records_of(tmp_path / "j")
        tally.expect("undetected", isinstance(error, CorruptInput), (target, size))
        assert "\n" not in str(error)
        with pytest.raises(FerroxError):
            Journal.open(tmp_path / "j")
        del given
        overwrite(target, kept[target])
    assert scan(tmp_path / "j").verdict == "clean"
