"""Reading a journal that another process is writing: the next records, as soon as they are sound (JRN-24).

A record is in the file the moment it is written, so a reader needs nothing from the writer.  What is not sound *yet*
and what is not sound *any more* look alike, as a torn tail and damage do, and the same watermark tells them apart:
above it one waits, and at or below it the record was on disk once, so it is corrupt.  The mark may be newer than the
bytes that were read before it, so they are read once more before anything is said.

Where a segment is full, the next one has a name that is known, and begins when its header is sound.  Where the journal
was opened again, the commit mark names a later epoch, and that one's first segment says where the records before it
end.  When this is before what was given here already, a crash has taken records back, and that is an error: whoever
applied them knows a history that never was.

Considered and left: a mapping (a file that is cut off under it kills the process, and one copy costs next to nothing),
inotify (a store into a mapping is no event), and hashing the segments that pass (`ferrox verify` does).
"""

import os
import time
from collections.abc import Callable, Iterator
from typing import Final, Self, TypeVar

from ferrox.engine import Capacity
from ferrox.errors import CorruptInput, JournalCorrupt, JournalFailed, SegmentCorrupt, TakenBack, UsageError
from ferrox.files import joined, names_in, open_directory, open_file, read_at
from ferrox.journal.chain import Chain
from ferrox.journal.layout import HEADER_SIZE, CommitMark, SegmentHeader, parse_name, segment_name, unpack_header
from ferrox.journal.reader import BATCH, Reading, Segment, load_mark
from ferrox.messages import ENVELOPE, RECORD_SIZE
from ferrox.terms import Annotation

ATTEMPTS: Final = 10
"""Looks at the files of a journal before one that does not fit is believed: a writer makes and removes some."""
ATTEMPT_SECONDS: Final = 0.02
IDLE_SECONDS: Final = 0.001

Found = TypeVar("Found")


class Tail:
    """A reader at the end of a journal, wherever that is by now.  It writes nothing.

    `poll` it, and close it, or use it as a context manager.
    """

    def __init__(self, directory: str | os.PathLike[str], start: int = 1) -> None:
        """Begin with the record of sequence `start`, which need not be there yet.

        The segment that holds it is verified from its beginning.  Raise `UsageError` when there is no journal or it
        begins behind `start`, `CorruptInput` when its files do not fit together.
        """
        if start < 1:
            raise UsageError(f"sequence numbers are from 1, found start {start}")
        self.directory: Final = os.fspath(directory)
        self.start: Final = start
        self._chain = Chain(0, 0, 0, 0)
        self._file = self._before = -1  # the segment that is read, and the one before it
        self._kind = 0
        segment, file, self._durable = patiently(self._begin)
        self._path = segment.path
        self._header = segment.header
        self._descriptor = open_directory(directory)
        self._enter(segment.header, segment.path, file)

    def _begin(self) -> tuple[Segment, int, int]:
        """Return the segment to begin with, its descriptor, and the watermark."""
        with Reading(self.directory) as reading:
            reading.load()
            first = reading.segments[0].base
            if self.start < first:
                raise UsageError(
                    f"{self.directory}: the journal begins at sequence {first}, for what was before is archived; "
                    f"begin behind a snapshot, with {first} or a later sequence number"
                )
            segment = [segment for segment in reading.segments if segment.base <= self.start][-1]
            file = open_file(reading.descriptor, segment.header.name, segment.path)
            return segment, file, reading.durable

    def close(self) -> None:
        """Let go of all files."""
        for file in (self._descriptor, self._file, self._before):
            if file >= 0:
                os.close(file)
        self._descriptor = self._file = self._before = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------- to use it

    @property
    def sequence(self) -> int:
        """The sequence number of the last record that was sound."""
        return self._chain.sequence

    @property
    def durable(self) -> int:
        """The sequence number up to which records are known to be on disk, as the commit mark has it now."""
        self._read_mark()
        return self._durable

    @property
    def sealed(self) -> bool:
        """Whether the journal is closed: the last record is a SEAL, and no opening after it was seen so far."""
        return self._kind == Annotation.SEAL

    @property
    def header(self) -> SegmentHeader:
        """The header of the segment that is being read."""
        return self._header

    @property
    def uuid(self) -> bytes:
        """What tells this journal from any other, 16 bytes."""
        return self._header.uuid

    @property
    def capacity(self) -> Capacity:
        """What an engine that follows this journal must hold."""
        return self._header.capacity

    def poll(self, batch: int = BATCH) -> bytes:
        """Return the next records, at most `batch`, all of them sound; nothing when there are none by now.

        Raise `TakenBack` when a crash took back records that were given here, `CorruptInput` when a record that was
        durable is not sound, `UsageError` when the segments to come were archived before they were read.
        """
        if batch < 1:
            raise UsageError(f"a batch has at least 1 record, found {batch}")
        while True:
            before = self._chain.sequence
            records = self._read(batch)
            if not records:
                # The mark, then all that it vouches for once more: it may be newer than what was read before it.
                mark = self._read_mark()
                records = self._read(batch)
                if not records:
                    if self._turn(mark):
                        continue
                    if self._durable > before:
                        raise self._damage()
                    return b""
            if given := records[max(0, self.start - 1 - before) * RECORD_SIZE :]:
                return given

    def sync(self) -> None:
        """Return when every record that was given is on disk; raise `JournalFailed` when the disk fails.

        For who wants to build on them before the writer's own sync (SNAP-10).  Only the last two segments may hold
        records that are not on disk (JRN-11), and their files were open here before those records were read.
        """
        if self.durable >= self.sequence:
            return
        try:
            for file in (self._before, self._file):
                if file >= 0:
                    os.fsync(file)
        except OSError as error:
            raise JournalFailed(f"{self._path}: a reader's sync failed: {error.strerror}") from error

    # ------------------------------------------------------------------------------------------------------- the parts

    @property
    def _full(self) -> bool:
        """Whether the segment that is read can hold no more records."""
        return self._chain.sequence + 1 == self._header.base_sequence + self._header.segment_records

    @property
    def _offset(self) -> int:
        """Where the next record is in the segment, in bytes."""
        return HEADER_SIZE + (self._chain.sequence + 1 - self._header.base_sequence) * RECORD_SIZE

    def _read(self, batch: int) -> bytes:
        """Return the records of this segment that are sound by now, and go over them."""
        left = self._header.base_sequence + self._header.segment_records - 1 - self._chain.sequence
        if not left:
            return b""
        data = read_at(self._file, min(batch, left) * RECORD_SIZE, self._offset, self._path)
        whole = len(data) // RECORD_SIZE * RECORD_SIZE
        if not (passed := self._chain.follow(data[:whole])):
            return b""
        records = data[: passed * RECORD_SIZE]
        *_, self._kind, _, _, lag = ENVELOPE.unpack_from(records, len(records) - RECORD_SIZE)
        self._durable = max(self._durable, self._chain.sequence - lag)
        return records

    def _read_mark(self) -> CommitMark:
        """Return the commit mark as it is now."""
        mark, _, _ = load_mark(self._descriptor, self.directory)
        self._durable = max(self._durable, mark.durable)
        return mark

    def _turn(self, mark: CommitMark) -> bool:
        """Go on to the segment that follows, if there is one; the mark was read before, and this segment after it."""
        following = self._chain.sequence + 1
        if self._full and self._try(segment_name(following, self._header.epoch)):
            return True
        later = [entry for entry in self._segments() if entry[0] > self._header.epoch] if self._opened(mark) else []
        if not later:
            return False
        _, base, name = min(later)
        if base < following:
            raise TakenBack(self.directory, base, following - 1, f"{joined(self.directory, name)} begins with {base}")
        if base > following:
            return False  # the mark knows of all that was before this opening, and so of what is missing
        if self._try(name):
            return True
        raise self._flaw(name)

    def _opened(self, mark: CommitMark) -> bool:
        """Say whether the journal was opened again since this segment was begun."""
        return mark.epoch > self._header.epoch

    def _segments(self) -> list[tuple[int, int, str]]:
        """Return epoch, base sequence and name of all files of segments."""
        names = [name for name in names_in(self._descriptor) if name.endswith(".wal")]
        parsed = [(*parse_name(name, joined(self.directory, name)), name) for name in names]
        return [(epoch, base, name) for base, epoch, name in parsed]

    def _try(self, name: str) -> bool:
        """Go on to a segment if it is there, and begun."""
        path = joined(self.directory, name)
        try:
            file = open_file(self._descriptor, name, path)
        except CorruptInput:
            return False
        try:
            header = unpack_header(read_at(file, HEADER_SIZE, 0, path), name, path)
        except SegmentCorrupt:  # it is prepared, or about to begin
            os.close(file)
            return False
        except BaseException:
            os.close(file)
            raise
        self._enter(header, path, file)
        return True

    def _enter(self, header: SegmentHeader, path: str, file: int) -> None:
        """Begin a segment, and hold its header against the one before it (JRN-10)."""
        chain = self._chain
        if self._file >= 0:
            one = self._header
            if (header.uuid, header.rules_version, header.capacity) != (one.uuid, one.rules_version, one.capacity):
                os.close(file)
                raise SegmentCorrupt(
                    path, 16, header.base_sequence, f"expected a segment of journal {one.uuid.hex()}, found another"
                )
            if header.prev_chain != chain.checksum:
                os.close(file)
                found = (
                    f"expected the checksum of record {chain.sequence} to be {chain.checksum:08x}, "
                    f"found {header.prev_chain:08x}"
                )
                if header.epoch > one.epoch:
                    raise TakenBack(self.directory, chain.sequence, chain.sequence, f"{path}: offset 60: {found}")
                raise SegmentCorrupt(path, 60, header.base_sequence, found)
            if self._before >= 0:
                os.close(self._before)
        self._before, self._file, self._path, self._header = self._file, file, path, header
        self._kind = 0
        self._chain = Chain(header.salt, header.prev_chain, header.base_sequence - 1, chain.time_ns)

    def _damage(self) -> CorruptInput | UsageError:
        """Return what is wrong where the next record was durable and is not sound (JRN-7)."""
        following = self._chain.sequence + 1
        first = min((base for _, base, _ in self._segments()), default=following)
        if first > following:
            return UsageError(
                f"{self.directory}: the journal begins at sequence {first} by now, for what was before is archived, "
                f"and this reader is at {following}; begin again behind the newest snapshot"
            )
        if self._full:
            return self._flaw(segment_name(following, self._header.epoch))
        found = self._chain.flaw(read_at(self._file, RECORD_SIZE, self._offset, self._path))
        return JournalCorrupt(self._path, self._offset, following, found, durable=self._durable)

    def _flaw(self, name: str) -> CorruptInput:
        """Return what is wrong with a segment that must be there, and sound."""
        path = joined(self.directory, name)
        try:
            file = open_file(self._descriptor, name, path)
        except CorruptInput as error:
            return error
        try:
            unpack_header(read_at(file, HEADER_SIZE, 0, path), name, path)
        except CorruptInput as error:
            return error
        finally:
            os.close(file)
        return SegmentCorrupt(path, 0, self._chain.sequence + 1, "expected a header that stays as it is, found changes")


def patiently(look: Callable[[], Found]) -> Found:
    """Return what a look at the files of a live journal finds; where they do not fit, look again: some come and go."""
    for _ in range(ATTEMPTS - 1):
        try:
            return look()
        except CorruptInput:
            time.sleep(ATTEMPT_SECONDS)
    return look()


def follow(
    directory: str | os.PathLike[str],
    start: int = 1,
    *,
    batch: int = BATCH,
    idle: float | Callable[[], object] = IDLE_SECONDS,
    until_sealed: bool = False,
) -> Iterator[bytes]:
    """Give the records of a live journal from sequence `start` on, and those to come, in batches of at most `batch`.

    Where there are none by now, sleep for `idle` seconds, or call it.  With `until_sealed` this ends behind a SEAL that
    nothing follows; otherwise it does not end.
    """
    with Tail(directory, start) as tail:
        while True:
            if records := tail.poll(batch):
                yield records
            elif until_sealed and tail.sealed:
                return
            elif callable(idle):
                idle()
            else:
                time.sleep(idle)
