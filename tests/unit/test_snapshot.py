"""A snapshot file gives back the state it was made of, or says in one sentence where it is damaged."""

import hashlib
import os
import struct

import pytest
from crc32c import crc32c

from ferrox.errors import CorruptInput, SnapshotCorrupt, UnknownVersion, UsageError
from ferrox.messages import DefineInstrument
from ferrox.snapshot import BLOCK_SIZE, latest_snapshot, newest_sequence, read_snapshot, write_snapshot
from ferrox.state import RestingOrder, State, digest, pack_state
from ferrox.terms import Side, TradingState

UUID = bytes(range(16))


def state(sequence=7, orders=0):
    definition = DefineInstrument(TradingState.OPEN, 1, -1000, 1000, 1, 1)
    resting = [RestingOrder(1 + index, 100, 5, 0, 1, Side.BUY) for index in range(orders)]
    return pack_state(State(sequence, 1000 * sequence, 10**6, 10, [definition], resting))


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("orders", [0, 1, 2044, 2045, 2046, 5000])
def test_a_state_comes_back_as_it_was_whatever_its_length(tmp_path, orders):
    """SNAP-6: one block, exactly one block (2045 orders), more."""
    written = state(orders=orders)

    path = write_snapshot(tmp_path, written, UUID)

    assert path == tmp_path / "00000000000000000007.snapshot"
    assert read_snapshot(path) == read_snapshot(path, UUID) == written


def test_a_file_has_its_blocks_in_a_chain_of_checksums_and_the_state_digest_at_its_end(tmp_path):
    """SNAP-6, SNAP-7."""
    written = state(orders=5000)

    data = write_snapshot(tmp_path, written, UUID).read_bytes()

    assert len(written) > 2 * BLOCK_SIZE
    crc = int.from_bytes(data[60:64], "little")
    assert crc == crc32c(data[:60])
    body, place = b"", 64
    while len(body) < len(written):
        block = data[place : place + min(BLOCK_SIZE, len(written) - len(body))]
        crc = crc32c(block, crc)
        assert data[place + len(block) : place + len(block) + 4] == struct.pack("<I", crc)
        body += block
        place += len(block) + 4
    assert body == written
    assert data[place:].hex() == digest(written)


def test_a_file_has_the_golden_bytes(tmp_path):
    """SNAP-6, SNAP-7: what was written once can be read for ever."""
    data = write_snapshot(tmp_path, state(orders=3), UUID).read_bytes()

    assert hashlib.sha256(data).hexdigest() == GOLDEN


def test_a_file_appears_only_whole_and_for_its_owner_only(tmp_path, monkeypatch):
    """SNAP-8."""
    (tmp_path / "00000000000000000007.snapshot.tmp").write_bytes(b"cut short by a crash")
    renamed = []
    really = os.rename

    def rename(source, target, **more):
        renamed.append((source, target, (tmp_path / source).stat().st_size))
        really(source, target, **more)

    monkeypatch.setattr(os, "rename", rename)

    path = write_snapshot(tmp_path, state(), UUID)

    assert renamed == [(f"{path.name}.tmp", path.name, path.stat().st_size)]
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("call", ["pwrite", "fsync", "rename"])
def test_a_write_that_fails_leaves_the_old_file_and_no_remnant(tmp_path, monkeypatch, call):
    """SNAP-8."""
    path = write_snapshot(tmp_path, state(orders=1), UUID)
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)

    with pytest.raises(OSError, match="No space left"):
        write_snapshot(tmp_path, state(orders=2), UUID)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_what_is_no_state_or_no_uuid_is_not_written(tmp_path):
    for wrong in (b"", b"FRXSTATE", bytes(100)):
        with pytest.raises(UsageError, match="a state begins with"):
            write_snapshot(tmp_path, wrong, UUID)
    with pytest.raises(UsageError, match="16 bytes"):
        write_snapshot(tmp_path, state(), b"short")
    with pytest.raises(UsageError, match="no such directory"):
        write_snapshot(tmp_path / "none", state(), UUID)

    assert list(tmp_path.iterdir()) == []


def test_every_single_bit_flip_is_refused(tmp_path):
    """SNAP-9."""
    path = write_snapshot(tmp_path, state(orders=5), UUID)
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        flip(path, bit)

        with pytest.raises(CorruptInput) as error:
            read_snapshot(path)

        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
        path.write_bytes(data)


def test_every_other_length_is_refused(tmp_path):
    """SNAP-9."""
    path = write_snapshot(tmp_path, state(orders=1), UUID)
    data = path.read_bytes()

    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(SnapshotCorrupt, match=f"offset {size}: "):
            read_snapshot(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(SnapshotCorrupt, match=rf"expected a file of {len(data)} bytes, found {len(data) + 1}\. Use an"):
        read_snapshot(path)


def test_blocks_that_changed_places_are_refused_at_the_first(tmp_path):
    """SNAP-6, SNAP-9."""
    path = write_snapshot(tmp_path, state(orders=5000), UUID)
    data = path.read_bytes()
    one, two = slice(64, 64 + BLOCK_SIZE + 4), slice(64 + BLOCK_SIZE + 4, 64 + 2 * (BLOCK_SIZE + 4))

    path.write_bytes(data[: one.start] + data[two] + data[one] + data[two.stop :])

    with pytest.raises(SnapshotCorrupt, match="offset 64: expected block checksum"):
        read_snapshot(path)


def forge(path, offset, value):
    """Change bytes of the header, its checksum and the chain that begins there, so that only meaning is wrong."""
    data = bytearray(path.read_bytes())
    body = bytes(data[64:-36])
    assert len(body) <= BLOCK_SIZE
    data[offset : offset + len(value)] = value
    data[60:64] = crc32c(data[:60]).to_bytes(4, "little")
    data[-36:-32] = crc32c(body, crc32c(data[:60])).to_bytes(4, "little")
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (0, b"FRXSTATE", "the magic of a snapshot"),
        (10, b"\1", "zeros in reserved places"),
        (12, b"\1", "blocks of 65536 bytes"),
        (32, b"\x08", "expected sequence 7, as the file is named, found 8"),
        (32, b"\xff" * 8, "within specs/limits.md"),
        (40, b"\xff" * 7 + b"\x7f", "expected a file of"),
        (40, bytes(8), "within specs/limits.md"),
        (59, b"\1", "zeros in reserved places"),
    ],
)
def test_a_header_that_cannot_be_is_refused_even_with_a_good_checksum(tmp_path, offset, value, words):
    """SNAP-9."""
    path = write_snapshot(tmp_path, state(), UUID)
    forge(path, offset, value)

    with pytest.raises(SnapshotCorrupt, match=words):
        read_snapshot(path)


def test_another_format_version_is_refused_and_both_are_named(tmp_path):
    """SNAP-9."""
    path = write_snapshot(tmp_path, state(), UUID)
    forge(path, 8, b"\2")

    with pytest.raises(UnknownVersion, match="format version 2, and this Ferrox reads format version 1"):
        read_snapshot(path)


def test_a_snapshot_under_another_name_is_refused_when_its_state_is_another(tmp_path):
    """SNAP-9."""
    path = write_snapshot(tmp_path, state(7), UUID)
    renamed = path.rename(tmp_path / "mine")
    assert read_snapshot(renamed) == state(7)

    forge(renamed, 32, b"\x08")

    with pytest.raises(SnapshotCorrupt, match="expected a state at sequence 8, found another"):
        read_snapshot(renamed)


def test_a_snapshot_of_another_journal_is_refused_when_a_journal_is_named(tmp_path):
    path = write_snapshot(tmp_path, state(), UUID)

    with pytest.raises(SnapshotCorrupt, match=f"of journal {bytes(16).hex()}, found one of {UUID.hex()}"):
        read_snapshot(path, bytes(16))


def test_the_newest_snapshot_that_verifies_is_used_with_a_warning_for_each_newer_one(tmp_path):
    """SNAP-9."""
    for sequence in (3, 7, 9, 11):
        write_snapshot(tmp_path, state(sequence), UUID)
    (tmp_path / "notes.snapshot").write_text("mine")
    write_snapshot(tmp_path, state(12), bytes(16))
    flip(tmp_path / "00000000000000000011.snapshot", 8 * 80)
    (tmp_path / "00000000000000000009.snapshot").write_bytes(b"")

    latest = latest_snapshot(tmp_path, UUID)

    assert latest.path == tmp_path / "00000000000000000007.snapshot"
    assert latest.state == state(7)
    assert [warning.partition(":")[0] for warning in latest.warnings] == [
        str(tmp_path / f"{sequence:020d}.snapshot") for sequence in (12, 11, 9)
    ]
    assert latest_snapshot(tmp_path).state == state(12)


def test_without_snapshots_there_is_none(tmp_path):
    assert latest_snapshot(tmp_path) == (None, b"", [])
    with pytest.raises(UsageError, match="no such directory"):
        latest_snapshot(tmp_path / "none")


def test_the_sequence_that_snapshots_bear_witness_to_is_of_their_own_journal(tmp_path):
    """SNAP-10, JRN-6."""
    write_snapshot(tmp_path, state(3), UUID)
    write_snapshot(tmp_path, state(9), bytes(16))
    (tmp_path / "00000000000000000010.snapshot").write_bytes(b"junk")
    (tmp_path / "00000000000000000011.snapshot").mkdir()
    directory = os.open(tmp_path, os.O_RDONLY)

    try:
        assert newest_sequence(directory, UUID) == 3
        assert newest_sequence(directory, bytes(16)) == 9
        assert newest_sequence(directory, b"\1" * 16) == 0
    finally:
        os.close(directory)


@pytest.mark.parametrize("what", ["none", "directory", "pipe", "link"])
def test_what_is_no_file_is_refused_by_name(tmp_path, what):
    target = write_snapshot(tmp_path, state(), UUID)
    path = tmp_path / "other"
    if what == "directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "link":
        path.symlink_to(target)

    with pytest.raises(UsageError if what == "none" else CorruptInput) as error:
        read_snapshot(path)

    assert str(path) in str(error.value)


GOLDEN = "f47f06e2a7f1b3b174998ba68a39bcb8edafe1e1b9cafa5821e9d78ba4f1156e"
