"""Writing a journal: one process appends, and what `sync` has returned for is on disk.

The order of writes is the whole design.  A record is sealed, then written, then given to the caller, so an engine never
applies what the journal lacks.  `sync` makes the records durable first and says so in the commit mark second, so the
mark never promises too much.  A segment is begun only when all before it is durable, and it appears under its name only
with its header, so a segment's mere name raises the watermark (JRN-6).

`SegmentFile` is the seam for other ways of writing: append, sync, close.  Here they are pwrite and fdatasync.
"""

import fcntl
import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

from attrs import frozen

from ferrox.engine import Capacity
from ferrox.errors import JournalFailed, UsageError
from ferrox.files import (
    DIRECTORY_MODE,
    TEMPORARY,
    joined,
    names_in,
    open_directory,
    open_file,
    publish,
    read_at,
    remove,
    write_at,
)
from ferrox.journal.chain import SEAL, Chain, check_given
from ferrox.journal.layout import (
    HEADER_SIZE,
    MARK_NAME,
    MARK_SECTOR,
    SEGMENT_NAME,
    SEGMENT_RECORDS,
    SEGMENT_RECORDS_MAX,
    CommitMark,
    SegmentHeader,
    pack_marks,
)
from ferrox.journal.reader import Reading, TornTail
from ferrox.messages import RECORD_SIZE
from ferrox.terms import RULES_VERSION

COPY_SIZE: Final = 1 << 20
"""Bytes of a torn tail that are copied at a time."""
TORN: Final = ".torn"
"""What the name of a segment's torn tail ends with."""


@frozen
class Source:
    """Where a journal takes its time and its random bytes from; the same source gives the same journal (JRN-18)."""

    clock: Callable[[], int] = time.time_ns
    """Nanoseconds since 1970, asked for records without a time and for headers."""
    random_bytes: Callable[[int], bytes] = os.urandom
    """As many random bytes as asked for: 16 for the uuid, 4 for each salt."""

    @classmethod
    def seeded(cls, seed: int, clock: Callable[[], int] = lambda: 0) -> "Source":
        """Return the source of a journal that can be made again: bytes from the seed, and a clock that stands at 0."""
        return cls(clock, random.Random(seed).randbytes)  # noqa: S311 - to be repeated, not to be secret

    def salt(self) -> int:
        """Return a fresh salt, 1 .. 2^32-1."""
        return 1 + int.from_bytes(self.random_bytes(4), "little") % (2**32 - 1)


class SegmentFile:
    """The segment that is being written."""

    def __init__(self, directory: int, header: SegmentHeader) -> None:
        """Make the file, durable with its header; raise OSError when that fails."""
        page = header.pack()
        self.header = header
        self.file = publish(directory, header.name, [page])
        self.end = len(page)
        self.sha256 = hashlib.sha256(page)

    @property
    def room(self) -> int:
        """How many more records it may hold."""
        return self.header.segment_records - (self.end - HEADER_SIZE) // RECORD_SIZE

    def append(self, records: bytes) -> None:
        """Write sealed records behind the last ones."""
        write_at(self.file, records, self.end)
        self.end += len(records)
        self.sha256.update(records)

    def sync(self) -> None:
        """Return when all that was appended is on disk."""
        os.fdatasync(self.file)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.file)


class MarkFile:
    """The commit mark: two slots that are written by turns, so that a torn write leaves the other one (JRN-13)."""

    def __init__(self, file: int, mark: CommitMark, slot: int) -> None:
        """Take over a file, the mark that counts in it, and the slot of that mark, 0 or 1."""
        self.file, self.mark, self.slot = file, mark, slot

    def write(self, chain: Chain) -> None:
        """Say that all records of a chain are on disk; return when that is on disk, too."""
        mark = self.mark._replace(durable=chain.sequence, chain=chain.checksum)
        self.slot = 1 - self.slot
        write_at(self.file, mark.pack().ljust(MARK_SECTOR, b"\0"), self.slot * MARK_SECTOR)
        os.fdatasync(self.file)
        self.mark = mark

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.file)


class Journal:
    """A journal open for append: records in, the same records sealed out.

    Make one with `Journal.create` or `Journal.open`, and close it, or use it as a context manager.  One process at a
    time may hold a journal (JRN-15), and one thread at a time may call it.
    """

    def __init__(
        self,
        directory: str,
        descriptor: int,
        source: Source,
        chain: Chain,
        marks: MarkFile,
        segment: SegmentFile,
        torn: TornTail | None = None,
    ) -> None:
        """Take over an open and locked directory; not for callers, who use `create` and `open`."""
        self.directory: Final = directory
        """The path, as it was given."""
        self.torn: Final = torn
        """What `open` cut off and kept beside the segment, if a crash had torn it (JRN-14)."""
        self._descriptor = descriptor
        self._source = source
        self._chain = chain
        self._marks = marks
        self._segment = segment
        self._failure = ""
        self._closed = False

    # -------------------------------------------------------------------------------------------------- to begin one

    @classmethod
    def create(
        cls,
        directory: str | os.PathLike[str],
        capacity: Capacity | None = None,
        *,
        segment_records: int = SEGMENT_RECORDS,
        source: Source | None = None,
    ) -> Self:
        """Begin a journal in a new or empty directory, for engines of one capacity; never touch an existing one.

        A segment takes `segment_records`, 1 .. 2^26, before the next begins.  Raise `UsageError` when the directory is
        taken or cannot be made, `JournalFailed` when the disk fails.
        """
        path = os.fspath(directory)
        if not 1 <= segment_records <= SEGMENT_RECORDS_MAX:
            raise UsageError(f"a segment holds 1 .. {SEGMENT_RECORDS_MAX} records, not {segment_records}")
        capacity, source = capacity or Capacity(), source or Source()
        _make_directory(path)
        descriptor = _lock(path)
        with ExitStack() as undo, _explained(f"{path}: the journal cannot be created"):
            undo.callback(os.close, descriptor)
            if taken := names_in(descriptor):
                what = "already holds a journal" if MARK_NAME in taken else f"is not empty (it holds {taken[0]!r})"
                raise UsageError(f"{path}: this directory {what}; choose another one for a new journal")
            uuid, salt = source.random_bytes(16), source.salt()
            chain = Chain(salt, salt, 0, 0)
            mark = CommitMark(uuid, 1, 0, salt)
            marks = MarkFile(publish(descriptor, MARK_NAME, [pack_marks(mark)]), mark, 0)
            undo.callback(marks.close)
            header = SegmentHeader(
                uuid=uuid,
                epoch=1,
                base_sequence=1,
                created_ns=source.clock(),
                salt=salt,
                prev_chain=salt,
                prev_sha256=bytes(32),
                rules_version=RULES_VERSION,
                order_capacity=capacity.orders,
                instrument_capacity=capacity.instruments,
                segment_records=segment_records,
            )
            journal = cls(path, descriptor, source, chain, marks, SegmentFile(descriptor, header))
            undo.pop_all()
        return journal

    @classmethod
    def open(cls, directory: str | os.PathLike[str], *, source: Source | None = None) -> Self:
        """Go on with a journal in a new segment, after verifying all of it (JRN-11).

        A torn tail is kept beside its segment, cut off, and told of in `torn`.  Raise `UsageError` when there is no
        journal or another process holds it; raise `CorruptInput`, with nothing changed, when it is damaged.
        """
        path = os.fspath(directory)
        source = source or Source()
        descriptor = _lock(path)
        with ExitStack() as undo, _explained(f"{path}: the journal cannot be opened for append"):
            undo.callback(os.close, descriptor)
            reading = _verify(path, descriptor)
            last = reading.segments[-1].header
            if reading.torn:
                _cut(reading.torn, last.name, descriptor)
            for name in names_in(descriptor):
                if SEGMENT_NAME.match(name) and name.endswith(TEMPORARY):
                    remove(descriptor, name)
            last = last._replace(epoch=last.epoch + 1)
            file = os.open(MARK_NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            marks = MarkFile(file, reading.mark._replace(epoch=last.epoch), reading.mark_slot)
            undo.callback(marks.close)
            # All that was verified had been synced before, so it is durable from here on, whatever the mark said.
            marks.write(reading.chain)
            segment = _next_segment(descriptor, last, reading.chain, reading.sha256, source)
            journal = cls(path, descriptor, source, reading.chain, marks, segment, reading.torn)
            undo.pop_all()
        return journal

    # ------------------------------------------------------------------------------------------------------- to use it

    @property
    def sequence(self) -> int:
        """The sequence number of the last record, 0 when there is none."""
        return self._chain.sequence

    @property
    def durable(self) -> int:
        """The sequence number up to which records are known to be on disk."""
        return self._marks.mark.durable

    @property
    def header(self) -> SegmentHeader:
        """The header of the segment that is being written: uuid, epoch, capacity."""
        return self._segment.header

    @property
    def uuid(self) -> bytes:
        """What tells this journal from any other, 16 bytes."""
        return self._segment.header.uuid

    @property
    def capacity(self) -> Capacity:
        """What an engine that replays this journal must hold."""
        return self._segment.header.capacity

    @property
    def closed(self) -> bool:
        """Whether it was closed, so that nothing can be written any more."""
        return self._closed

    def append(self, records: bytes) -> bytes:
        """Write commands' records and return them sealed, in the form that engines apply.

        Kind, size, session, time and command are the caller's; a time of 0 becomes the clock's, and none goes back.
        The rest is filled in here.  Raise `UsageError`, with nothing written, for what is no command's record,
        `JournalFailed` when the disk fails.
        """
        self._expect_usable()
        check_given(records)
        now_ns = self._source.clock()
        sealed = []
        # Whatever interrupts what follows, a keyboard included, leaves a journal that only recovery can judge.
        self._failure = "an append was interrupted; open the journal again to go on"
        try:
            offset = 0
            while offset < len(records):
                if self._segment.room == 0:
                    self._rotate()
                part = records[offset : offset + self._segment.room * RECORD_SIZE]
                sealed.append(self._write(part, now_ns))
                offset += len(part)
        except OSError as error:
            raise self._failed("a write", error) from error
        self._failure = ""
        return sealed[0] if len(sealed) == 1 else b"".join(sealed)

    def sync(self) -> None:
        """Return when every record appended so far is on disk, and the commit mark says so (JRN-13)."""
        self._expect_usable()
        try:
            self._sync()
        except OSError as error:
            raise self._failed("a sync", error) from error

    def close(self) -> bytes:
        """Sync, end the journal with a SEAL, and let go of it; after a failure, only let go of it.

        Return the SEAL, which an engine that goes on as a replay would must be given too, or nothing where none was
        written: the journal had failed, or was closed before.
        """
        if self._closed:
            return b""
        try:
            return b"" if self._failure else self._seal()
        except OSError as error:
            raise self._failed("the last sync", error) from error
        finally:
            self._closed = True
            self._segment.close()
            self._marks.close()
            os.close(self._descriptor)  # and the lock with it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------- the parts

    def _write(self, records: bytes, now_ns: int) -> bytes:
        """Seal records and write them to the segment, which has room for them."""
        sealed = self._chain.seal(records, self.durable, now_ns)
        self._segment.append(sealed)
        return sealed

    def _sync(self) -> None:
        """Make the records durable, then say so."""
        self._segment.sync()
        self._marks.write(self._chain)

    def _rotate(self) -> None:
        """End a full segment and begin the next (JRN-11)."""
        self._sync()
        full = self._segment
        self._segment = _next_segment(self._descriptor, full.header, self._chain, full.sha256.digest(), self._source)
        full.close()

    def _seal(self) -> bytes:
        """Write the SEAL behind durable records, so that its lag of 1 repeats the watermark, and fill both marks."""
        self._sync()
        if self._segment.room == 0:
            self._rotate()
        sealed = self._write(SEAL, 0)
        self._sync()
        self._marks.write(self._chain)
        return sealed

    def _expect_usable(self) -> None:
        """Raise unless records may still be written."""
        if self._closed:
            raise UsageError(f"{self.directory}: this journal was closed; open it again to go on")
        if self._failure:
            raise JournalFailed(self._failure)

    def _failed(self, what: str, error: OSError) -> JournalFailed:
        """Make the first failure the last word: what is on disk can no longer be known from here (JRN-16)."""
        path = joined(self.directory, self._segment.header.name)
        self._failure = (
            f"{path}: {what} failed: {error.strerror}; durable up to sequence {self.durable}. "
            "Nothing more is written. Mend the disk, then open the journal again."
        )
        return JournalFailed(self._failure)


def _make_directory(path: str) -> None:
    """Make the directory, unless it is there, and make its name durable."""
    place = Path(path)
    try:
        place.mkdir(DIRECTORY_MODE)
    except FileExistsError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: the directory cannot be made: {reason}") from None
    parent = open_directory(place.absolute().parent)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _lock(path: str) -> int:
    """Return the descriptor of the directory, held alone; raise `UsageError` when another holds it (JRN-15)."""
    descriptor = open_directory(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UsageError(f"{path}: another process has this journal open for append; close it there first") from None
    except OSError as error:
        os.close(descriptor)
        raise UsageError(f"{path}: the directory cannot be locked: {error.strerror}") from None
    return descriptor


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn the system's error into one sentence."""
    try:
        yield
    except OSError as error:
        raise JournalFailed(f"{what}: {error.strerror}") from error


def _verify(path: str, descriptor: int) -> Reading:
    """Return a reading of the whole journal; raise `CorruptInput` when it is damaged.

    Every file is synced first, so that no decision rests on bytes that the page cache has and the disk has not.
    """
    with Reading(path) as reading:
        for name in names_in(descriptor):
            if name != MARK_NAME and not name.endswith(".wal"):
                continue
            file = open_file(descriptor, name, joined(path, name))
            try:
                os.fsync(file)
            finally:
                os.close(file)
        os.fsync(descriptor)
        reading.load()
        for _ in reading.batches():
            pass
    return reading


def _next_segment(descriptor: int, last: SegmentHeader, chain: Chain, sha256: bytes, source: Source) -> SegmentFile:
    """Begin a segment behind another, all of which is durable, and let the chain go on with its salt."""
    header = last._replace(
        base_sequence=chain.sequence + 1,
        created_ns=source.clock(),
        salt=source.salt(),
        prev_chain=chain.checksum,
        prev_sha256=sha256,
    )
    segment = SegmentFile(descriptor, header)
    chain.salt = header.salt
    return segment


def _cut(tail: TornTail, name: str, descriptor: int) -> None:
    """Keep a torn tail beside its segment, then cut it off."""
    file = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
    try:
        end = tail.offset + tail.size
        copies = (
            read_at(file, min(COPY_SIZE, end - offset), offset, tail.path)
            for offset in range(tail.offset, end, COPY_SIZE)
        )
        os.close(publish(descriptor, name + TORN, copies))
        os.ftruncate(file, tail.offset)
        os.fsync(file)
    finally:
        os.close(file)
