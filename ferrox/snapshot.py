"""Snapshot files: a state on disk, so that a replay need not begin at the first record (SNAP-6 .. SNAP-10).

The state itself is `ferrox.state`'s; here it is only carried.  It lies in blocks of 64 KiB, each with a checksum that
begins from the one before, so damage is found where it is and blocks cannot change places.  The file ends with the
SHA-256 of the state, which is the state digest: `tail -c 32` shows what `ferrox replay` prints.

Considered and left: compression (a state is a few megabytes, and equal states should be equal files) and a checksum for
the whole file only (it tells that something is wrong, and not where).
"""

import os
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from crc32c import crc32c

from ferrox.errors import CorruptInput, SnapshotCorrupt, UnknownVersion, UsageError
from ferrox.files import is_zero, joined, names_in, open_directory, open_file, publish, read_at
from ferrox.state import SNAPSHOT_HEADER, STATE_MAGIC

SNAPSHOT_MAGIC: Final = b"\x89FRXS\r\n\x1a"
SNAPSHOT_FORMAT: Final = 1
BLOCK_SIZE: Final = 65_536
"""Bytes of state before each checksum; the last block may have fewer."""
CRC_SIZE: Final = 4
TRAILER_SIZE: Final = 32
SEQUENCE_MAX: Final = 2**62  # LIM-11

SNAPSHOT_FILE: Final = Struct("<8sHHI16sqq12xI")
assert SNAPSHOT_FILE.size == 64

SNAPSHOT_NAME: Final = re.compile(r"(\d{20})\.snapshot")


class SnapshotHeader(NamedTuple):
    """What a snapshot file says of itself."""

    uuid: bytes
    """Of the journal whose records led to the state, 16 bytes."""
    sequence: int
    """Of the last record applied, 0 for none."""
    body_size: int
    """Of the state in bytes."""

    @property
    def file_size(self) -> int:
        """Of the whole file in bytes."""
        blocks = -(-self.body_size // BLOCK_SIZE)
        return SNAPSHOT_FILE.size + self.body_size + CRC_SIZE * blocks + TRAILER_SIZE

    def pack(self) -> bytes:
        """Return the 64 bytes."""
        fields = (SNAPSHOT_MAGIC, SNAPSHOT_FORMAT, 0, BLOCK_SIZE, *self, 0)
        head = SNAPSHOT_FILE.pack(*fields)[:-CRC_SIZE]
        return head + crc32c(head).to_bytes(CRC_SIZE, "little")


class Latest(NamedTuple):
    """The newest snapshot that verifies, and what was passed over on the way to it."""

    path: Path | None
    """None when no snapshot verifies."""
    state: bytes
    warnings: list[str]

    @property
    def sequence(self) -> int:
        """The sequence number of the last record that the state has seen, 0 when there is none."""
        return _sequence_of(self.state) if self.path else 0


def write_snapshot(directory: str | os.PathLike[str], state: bytes, uuid: bytes) -> Path:
    """Write the state of an engine as `SEQUENCE.snapshot`, durable when this returns; return its path.

    The journal must be synced up to that sequence (SNAP-10).  Raise `UsageError` for what is no state, OSError when the
    disk fails; a file that is there already under the name is replaced as a whole or not at all.
    """
    if len(state) < SNAPSHOT_HEADER.size or not state.startswith(STATE_MAGIC):
        raise UsageError(f"a state begins with {STATE_MAGIC!r}, and these {len(state)} bytes do not")
    if len(uuid) != 16:
        raise UsageError(f"a journal's uuid has 16 bytes, and this one has {len(uuid)}")
    header = SnapshotHeader(uuid, _sequence_of(state), len(state))
    name = f"{header.sequence:020d}.snapshot"
    descriptor = open_directory(directory)
    try:
        os.close(publish(descriptor, name, _chunks(header, state)))
    finally:
        os.close(descriptor)
    return Path(directory) / name


def read_snapshot(path: str | os.PathLike[str], uuid: bytes | None = None) -> bytes:
    """Return the state in a snapshot file, every byte of it verified; with a `uuid`, it must be of that journal.

    Raise `UsageError` when there is no such file, `SnapshotCorrupt` when it is damaged or another journal's.
    """
    place = Path(path)
    descriptor = open_directory(place.parent)
    try:
        if not os.path.lexists(place):
            raise UsageError(f"{path}: there is no such file")
        return _read(descriptor, place.name, os.fspath(path), uuid)
    finally:
        os.close(descriptor)


def latest_snapshot(directory: str | os.PathLike[str], uuid: bytes | None = None, until: int | None = None) -> Latest:
    """Return the newest snapshot of a directory that verifies, with a warning for each newer one that does not.

    With `until`, those of later sequence numbers are passed over in silence.
    """
    return _first_sound(directory, uuid, lambda sequence: until is None or sequence <= until, oldest=False)


def oldest_snapshot(directory: str | os.PathLike[str], uuid: bytes, start: int) -> Latest:
    """Return the oldest snapshot from sequence `start` on that verifies, with a warning for each that does not."""
    return _first_sound(directory, uuid, lambda sequence: sequence >= start, oldest=True)


def newest_sequence(descriptor: int, uuid: bytes) -> int:
    """Return the highest sequence number of a journal's snapshots in an open directory, 0 for none (JRN-6).

    Only headers are looked at: that a snapshot was begun is enough to know that its records were on disk.
    """
    for name in _names(descriptor):
        try:
            file = open_file(descriptor, name, name)
        except (CorruptInput, UsageError):
            continue
        try:
            header = _unpack_header(read_at(file, SNAPSHOT_FILE.size, 0, name), name, name)
        except CorruptInput:
            continue
        finally:
            os.close(file)
        if header.uuid == uuid:
            return header.sequence
    return 0


def state_header(state: bytes) -> tuple[int, int, int, int]:
    """Return what a state says of itself: sequence number, clock, order capacity, instrument capacity."""
    fields = SNAPSHOT_HEADER.unpack_from(state)
    return fields[4], fields[5], fields[6], fields[7]


# ------------------------------------------------------------------------------------------------------------ the parts


def _sequence_of(state: bytes) -> int:
    """Return the sequence number that stands in a state's header."""
    return int(SNAPSHOT_HEADER.unpack_from(state)[4])


def _first_sound(
    directory: str | os.PathLike[str], uuid: bytes | None, wanted: Callable[[int], bool], *, oldest: bool
) -> Latest:
    """Return the first snapshot of a wanted sequence number that verifies, from the oldest on or from the newest."""
    descriptor = open_directory(directory)
    warnings: list[str] = []
    try:
        names = _names(descriptor)
        for name in reversed(names) if oldest else names:
            if not wanted(int(name.split(".")[0])):
                continue
            try:
                state = _read(descriptor, name, joined(directory, name), uuid)
            except (CorruptInput, UsageError) as error:
                warnings.append(str(error))
            else:
                return Latest(Path(directory) / name, state, warnings)
    finally:
        os.close(descriptor)
    return Latest(None, b"", warnings)


def _names(descriptor: int) -> list[str]:
    """Return the names of the snapshot files in a directory, newest first."""
    return list(filter(SNAPSHOT_NAME.fullmatch, reversed(names_in(descriptor))))


def _chunks(header: SnapshotHeader, state: bytes) -> Iterator[bytes]:
    """Give the bytes of the file, a block at a time."""
    head = header.pack()
    yield head
    crc = int.from_bytes(head[-CRC_SIZE:], "little")
    for offset in range(0, len(state), BLOCK_SIZE):
        block = state[offset : offset + BLOCK_SIZE]
        crc = crc32c(block, crc)
        yield block + crc.to_bytes(CRC_SIZE, "little")
    yield sha256(state).digest()


def _read(descriptor: int, name: str, path: str, uuid: bytes | None) -> bytes:
    """Return the verified state of a file in an open directory."""
    file = open_file(descriptor, name, path)
    try:
        head = read_at(file, SNAPSHOT_FILE.size, 0, path)
        header = _unpack_header(head, name, path)
        if uuid is not None and header.uuid != uuid:
            raise _damage(path, 16, f"expected a snapshot of journal {uuid.hex()}, found one of {header.uuid.hex()}")
        # The size first: a header must not make us ask for more memory than there is file.
        size = os.fstat(file).st_size
        if size != header.file_size:
            raise _damage(
                path, min(size, header.file_size), f"expected a file of {header.file_size} bytes, found {size}"
            )
        state = b"".join(_blocks(file, header, int.from_bytes(head[-CRC_SIZE:], "little"), path))
        trailer = read_at(file, TRAILER_SIZE, size - TRAILER_SIZE, path)
    finally:
        os.close(file)
    expected = sha256(state).digest()
    if trailer != expected:
        raise _damage(path, size - TRAILER_SIZE, f"expected SHA-256 {expected.hex()}, found {trailer.hex()}")
    if len(state) < SNAPSHOT_HEADER.size or _sequence_of(state) != header.sequence:
        raise _damage(path, SNAPSHOT_FILE.size, f"expected a state at sequence {header.sequence}, found another")
    return state


def _blocks(file: int, header: SnapshotHeader, crc: int, path: str) -> Iterator[bytes]:
    """Give the blocks of the state, each verified."""
    offset, left = SNAPSHOT_FILE.size, header.body_size
    while left:
        data = read_at(file, min(left, BLOCK_SIZE) + CRC_SIZE, offset, path)
        block, stored = data[:-CRC_SIZE], int.from_bytes(data[-CRC_SIZE:], "little")
        crc = crc32c(block, crc)
        if stored != crc:
            raise _damage(path, offset, f"expected block checksum {crc:08x}, found {stored:08x}")
        yield block
        offset += len(data)
        left -= len(block)


def _unpack_header(head: bytes, name: str, path: str) -> SnapshotHeader:
    """Return the header, or raise unless every byte of it is in order and it is that of the file `name`."""
    if len(head) < SNAPSHOT_FILE.size:
        raise _damage(path, len(head), f"expected a header of {SNAPSHOT_FILE.size} bytes, found the end of the file")
    magic, version, zero, block_size, *fields, crc = SNAPSHOT_FILE.unpack(head)
    if magic != SNAPSHOT_MAGIC:
        raise _damage(path, 0, f"expected the magic of a snapshot, {SNAPSHOT_MAGIC.hex()}, found {magic.hex()}")
    expected = crc32c(head[:-CRC_SIZE])
    if crc != expected:
        raise _damage(path, 60, f"expected the header's checksum to be {expected:08x}, found {crc:08x}")
    if version != SNAPSHOT_FORMAT:
        raise UnknownVersion(
            f"{path}: offset 8: this snapshot has format version {version}, and this Ferrox reads format version "
            f"{SNAPSHOT_FORMAT}. Use the Ferrox that wrote it, or replay the journal from its first record."
        )
    header = SnapshotHeader(*fields)
    if zero or block_size != BLOCK_SIZE or not is_zero(head[48:60]):
        raise _damage(path, 10, f"expected blocks of {BLOCK_SIZE} bytes and zeros in reserved places, found others")
    if not (0 <= header.sequence <= SEQUENCE_MAX and header.body_size >= SNAPSHOT_HEADER.size):
        raise _damage(path, 32, f"expected fields within specs/limits.md, found {header}")
    match = SNAPSHOT_NAME.fullmatch(name)
    if match and int(match[1]) != header.sequence:
        raise _damage(path, 32, f"expected sequence {int(match[1])}, as the file is named, found {header.sequence}")
    return header


def _damage(path: str, offset: int, found: str) -> SnapshotCorrupt:
    """Return the error that names the place and what to do."""
    return SnapshotCorrupt(
        f"{path}: offset {offset}: {found}. Use an older snapshot, or replay the journal from its first record."
    )
