"""Retention: segments that sound snapshots stand for are put away, so that a journal can run for years (JRN-26).

A segment may go when all its records are behind the oldest of the snapshots that are kept, each of which has been read
whole, and all of the journal was found sound.  Segments go from the first on, one at a time, each durably before the
next, so that whatever interrupts it leaves a journal that begins later (JRN-20) and nothing else.

It runs beside a writer and takes no lock of it: the last two segments that were begun, and those that are only
prepared, are the writer's and its syncer's, and are never touched.  Two archivers keep apart by a lock on a file of
their own.

Considered and left: a list of what was archived, beside the journal.  The names of segments say all of it, and a list
could say something else.
"""

import fcntl
import hashlib
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from attrs import frozen

from ferrox.errors import CorruptInput, SegmentCorrupt, UsageError
from ferrox.files import (
    DIRECTORY_MODE,
    FILE_MODE,
    joined,
    names_in,
    open_directory,
    open_file,
    publish,
    read_at,
    remove,
)
from ferrox.journal.layout import HEADER_SIZE, SEGMENT_NAME, unpack_header
from ferrox.journal.reader import Reading, Segment
from ferrox.messages import RECORD_SIZE
from ferrox.snapshot import SNAPSHOT_NAME, read_snapshot

KEPT: Final = 2
"""Sound snapshots that stay, by default: the newest, and one in case that it is damaged."""
BEGUN: Final = 2
"""Segments at the end that are never touched: a writer, its syncer and its hashing still use them."""
LOCK_NAME: Final = "archive.lock"
PACKED: Final = ".gz"
CHUNK: Final = 1 << 20
GZIP: Final = 31
"""What zlib calls the gzip format; its header says neither name nor time, so equal files are equal when packed."""


class Item(NamedTuple):
    """A file that may go."""

    name: str
    size: int
    first: int
    """The sequence number of its first record; of a snapshot, its own."""
    last: int


@frozen
class Retention:
    """What may go from a journal, and why no more."""

    directory: str
    segments: tuple[Item, ...]
    """In the order in which they go, the first first."""
    snapshots: tuple[Item, ...]
    """Older than those that are kept."""
    kept: tuple[int, ...]
    """Sequence numbers of the sound snapshots that stay, the newest first."""
    wanted: int
    """How many should stay."""
    warnings: tuple[str, ...]

    @property
    def items(self) -> tuple[Item, ...]:
        """All that may go, in order."""
        return self.segments + self.snapshots

    @property
    def size(self) -> int:
        """How many bytes that is."""
        return sum(item.size for item in self.items)

    @property
    def reason(self) -> str:
        """Why nothing more may go, in one sentence."""
        if len(self.kept) < self.wanted:
            return f"expected {self.wanted} sound snapshots to stand for what goes, found {len(self.kept)}"
        return f"snapshots up to sequence {self.kept[-1]} stand for what may go, and the last {BEGUN} segments stay"


def retention(directory: str | os.PathLike[str], keep: int = KEPT) -> Retention:
    """Say what may go from a journal when `keep` sound snapshots stay; change nothing.

    All of the journal is read, and every snapshot that is counted on.  Raise `UsageError` when there is no journal,
    `CorruptInput` when it is damaged: from such a one nothing goes.
    """
    if keep < 1:
        raise UsageError(f"at least one snapshot has to stay, not {keep}")
    with Reading(directory) as reading:
        reading.load()
        for _ in reading.batches():
            pass
        return _retention(reading, keep)


def archive(directory: str | os.PathLike[str], *, keep: int = KEPT, to: str | os.PathLike[str] | None) -> Retention:
    """Take out of a journal what may go, and return what that was.

    With `to` each file is first packed into that directory, read back and compared.  It may be interrupted anywhere:
    calling it again goes on.  Raise `UsageError` when another archiver is at work, `to` cannot be used or the disk
    fails, `CorruptInput` when the journal is damaged; what had not gone by then stays.
    """
    with _alone(directory) as descriptor:
        if to is not None and Path(to).resolve() == Path(directory).resolve():
            raise UsageError(f"{to}: this is the journal itself; name another directory to archive to")
        found = retention(directory, keep)
        target = _open_target(to) if to is not None and found.items else None
        try:
            for item in found.items:
                if target is not None and to is not None:
                    with _explained(joined(to, item.name + PACKED)):
                        _pack(descriptor, directory, target, to, item)
                with _explained(joined(directory, item.name)):
                    remove(descriptor, item.name)
                    # One at a time: the journal on disk must never begin behind a hole.
                    os.fsync(descriptor)
        finally:
            if target is not None:
                os.close(target)
    return found


def restore(directory: str | os.PathLike[str], files: list[str]) -> list[str]:
    """Put packed segments and snapshots back into their journal, the last first; return their names.

    Raise `UsageError` when one is there already or would leave a hole, `CorruptInput` when it is damaged or another
    journal's.  Those before it in that order are back then.
    """
    places = sorted((Path(file) for file in files), key=lambda place: place.name, reverse=True)
    for place in places:
        name = place.name.removesuffix(PACKED)
        if place.suffix != PACKED or not (SEGMENT_NAME.fullmatch(name) or SNAPSHOT_NAME.fullmatch(name)):
            raise UsageError(f"{place}: this is not the name of an archived segment or snapshot")
        if not place.is_file():
            raise UsageError(f"{place}: there is no such file")
        if (Path(directory) / name).exists():
            raise UsageError(f"{joined(directory, name)}: this file is there already; it was not replaced")
    with _alone(directory) as descriptor:
        for place in places:
            _unpack(directory, descriptor, place)
    return [place.name.removesuffix(PACKED) for place in places]


# ------------------------------------------------------------------------------------------------------------ the parts


def _retention(reading: Reading, keep: int) -> Retention:
    """Say what may go from a journal that was read."""
    warnings = list(reading.warnings)
    kept: list[int] = []
    older: list[Item] = []
    for name in reversed(names_in(reading.descriptor)):
        if not SNAPSHOT_NAME.fullmatch(name):
            continue
        path, sequence = joined(reading.directory, name), int(name.split(".")[0])
        if sequence > reading.chain.sequence:
            continue  # written since we read
        try:
            size = _settle(reading.descriptor, name, path)
            read_snapshot(Path(reading.directory) / name, reading.mark.uuid)
        except (CorruptInput, UsageError) as error:
            warnings.append(str(error))  # neither counted on nor taken away: it may be all that tells of a damage
            continue
        if len(kept) < keep:
            kept.append(sequence)
        else:
            older.append(Item(name, size, sequence, sequence))
    if len(kept) < keep:
        return Retention(reading.directory, (), (), tuple(kept), keep, tuple(warnings))
    going = [
        _item(segment, following.base - 1)
        for segment, following in zip(reading.segments[:-BEGUN], reading.segments[1:], strict=False)
        if following.base - 1 <= min(kept[-1], reading.durable)
    ]
    return Retention(reading.directory, tuple(going), tuple(reversed(older)), tuple(kept), keep, tuple(warnings))


def _item(segment: Segment, last: int) -> Item:
    """Return a segment as what may go."""
    return Item(segment.header.name, segment.size, segment.base, last)


def _settle(descriptor: int, name: str, path: str) -> int:
    """Have a file on disk, not only in the page cache, so that it is read from there; return its size."""
    file = open_file(descriptor, name, path)
    try:
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.fstat(file).st_size
    finally:
        os.close(file)


@contextmanager
def _alone(directory: str | os.PathLike[str]) -> Iterator[int]:
    """Give the journal's directory to one archiver at a time; raise `UsageError` to a second one."""
    with Reading(directory) as reading:  # before a lock is left where no journal is
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(LOCK_NAME, flags, FILE_MODE, dir_fd=reading.descriptor)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"{joined(directory, LOCK_NAME)}: another archiver is at work here; wait until it has ended"
                ) from None
            yield reading.descriptor
        finally:
            os.close(lock)


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turn the system's error into one sentence."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; what had not gone by then stays") from error


def _open_target(to: str | os.PathLike[str]) -> int:
    """Return a descriptor of the directory that takes what goes, made if it is not there."""
    place = Path(to)
    try:
        place.mkdir(DIRECTORY_MODE, exist_ok=True)
        parent = open_directory(place.absolute().parent)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    except OSError as error:
        raise UsageError(f"{place}: the directory cannot be made: {error.strerror}") from None
    return open_directory(place)


def _pack(
    descriptor: int, directory: str | os.PathLike[str], target: int, to: str | os.PathLike[str], item: Item
) -> None:
    """Have a packed copy of a file, whole and durable, that was read back and compared."""
    packed = item.name + PACKED
    path, packed_path = joined(directory, item.name), joined(to, packed)
    file = open_file(descriptor, item.name, path)
    try:
        expected = _digest(_chunks(file, path))
        if packed in names_in(target):
            # From a call that was interrupted, or from another journal.
            if _unpacked_digest(target, packed, packed_path) != expected:
                raise UsageError(f"{packed_path}: this file is there already and holds something else; choose another")
            _settle(target, packed, packed_path)
            os.fsync(target)
            return
        os.close(publish(target, packed, _packed(_chunks(file, path))))
    finally:
        os.close(file)
    _settle(target, packed, packed_path)
    found = _unpacked_digest(target, packed, packed_path)
    if found != expected:
        raise CorruptInput(
            f"{packed_path}: expected SHA-256 {expected} when unpacked, found {found}; {path} was not removed. "
            "Choose another disk."
        )


def _unpack(directory: str | os.PathLike[str], descriptor: int, place: Path) -> None:
    """Put one packed file back, and take it away again if the journal does not read with it."""
    name, path = place.name.removesuffix(PACKED), os.fspath(place)
    parent = open_directory(place.parent)
    try:
        file = open_file(parent, place.name, path)
        try:
            if SEGMENT_NAME.fullmatch(name):
                _check_fits(directory, name, file, path)
            with _explained(joined(directory, name)):
                os.close(publish(descriptor, name, _unpacked(_chunks(file, path), path)))
        finally:
            os.close(file)
    finally:
        os.close(parent)
    try:
        if SNAPSHOT_NAME.fullmatch(name):
            read_snapshot(Path(directory) / name)
        with Reading(directory) as reading:
            reading.load()
            for _ in reading.batches(None, reading.segments[min(1, len(reading.segments) - 1)].base):
                pass
    except CorruptInput:
        remove(descriptor, name)
        os.fsync(descriptor)
        raise


def _check_fits(directory: str | os.PathLike[str], name: str, file: int, path: str) -> None:
    """Raise unless a packed segment ends where the journal begins."""
    head, size = b"", 0
    for data in _unpacked(_chunks(file, path), path):
        head += data[: HEADER_SIZE - len(head)]
        size += len(data)
    header = unpack_header(head, name, path)
    with Reading(directory) as reading:
        reading.load()
        first = reading.segments[0].header
    if header.uuid != first.uuid:
        raise SegmentCorrupt(
            path, 16, header.base_sequence, f"expected journal {first.uuid.hex()}, found {header.uuid.hex()}"
        )
    if not header.base_sequence <= first.base_sequence <= header.base_sequence + (size - HEADER_SIZE) // RECORD_SIZE:
        raise UsageError(
            f"{path}: the journal begins at sequence {first.base_sequence}, and this segment does not end before it; "
            "restore those between the two as well"
        )


def _chunks(file: int, path: str) -> Iterator[bytes]:
    """Give the bytes of a file."""
    offset = 0
    while chunk := read_at(file, CHUNK, offset, path):
        yield chunk
        offset += len(chunk)


def _packed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Give bytes in the gzip format."""
    packer = zlib.compressobj(wbits=GZIP)
    for chunk in chunks:
        yield packer.compress(chunk)
    yield packer.flush()


def _unpacked(chunks: Iterator[bytes], path: str) -> Iterator[bytes]:
    """Give the bytes that were packed; raise `CorruptInput` when not all of them are there."""
    unpacker = zlib.decompressobj(wbits=GZIP)
    try:
        for chunk in chunks:
            while chunk:
                yield unpacker.decompress(chunk, CHUNK)
                chunk = unpacker.unconsumed_tail  # noqa: PLW2901 - what is left of it
        yield unpacker.flush()
    except zlib.error as error:
        raise CorruptInput(f"{path}: this file cannot be unpacked: {error}") from None
    if not unpacker.eof or unpacker.unused_data:
        raise CorruptInput(
            f"{path}: expected a packed file and its end, found something else: it was cut short or grew"
        )


def _digest(chunks: Iterator[bytes]) -> str:
    """Return the SHA-256 of bytes."""
    sha256 = hashlib.sha256()
    for chunk in chunks:
        sha256.update(chunk)
    return sha256.hexdigest()


def _unpacked_digest(directory: int, name: str, path: str) -> str:
    """Return the SHA-256 of what a packed file holds."""
    file = open_file(directory, name, path)
    try:
        return _digest(_unpacked(_chunks(file, path), path))
    finally:
        os.close(file)
