"""Writing a journal: one process appends, and what its level says was acknowledged is kept (JRN-22).

The order of writes is the whole design.  A record is sealed, then written, then given to the caller, so an engine never
applies what the journal lacks.  A sync makes the records durable first and says so in the commit mark second, so the
mark never promises too much.  A segment is begun by one store, its header, into a file that was made before.

What the disk does is a keeper's: `InlineKeeper`, in the call that needs it, or a syncer, in another process.
"""

import errno
import fcntl
import os
import random
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from typing import Final, Self

from attrs import frozen

from ferrox.engine import Capacity
from ferrox.errors import DiskLow, JournalFailed, UsageError
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
)
from ferrox.journal.chain import SEAL, Chain, check_given, mark_record
from ferrox.journal.keeper import (
    FIRST_SIZE,
    InlineKeeper,
    Keeper,
    MarkFile,
    Place,
    SegmentFile,
    make_segment_file,
)
from ferrox.journal.layout import (
    FORMAT_VERSION,
    HEADER_SIZE,
    MARK_NAME,
    MARK_SIZE,
    SEGMENT_HEADER,
    SEGMENT_RECORDS,
    SEGMENT_RECORDS_MAX,
    CommitMark,
    SegmentHeader,
    pack_marks,
    segment_name,
    unpack_marks,
)
from ferrox.journal.reader import Reading, TornTail
from ferrox.journal.storage import BACKENDS
from ferrox.journal.syncer import SyncerKeeper
from ferrox.messages import RECORD_SIZE
from ferrox.terms import RULES_VERSION, Annotation, CommandKind

COPY_SIZE: Final = 1 << 20
"""Bytes of a torn tail that are copied at a time."""
TORN: Final = ".torn"
"""What the name of a segment's torn tail ends with."""
RESERVE: Final = 4096
"""Records that there is room for ahead of need, kept for cancels when the disk gives no more (JRN-23)."""
FULL: Final = (errno.ENOSPC, errno.EDQUOT)
TAKEN_WHEN_LOW: Final = bytes(
    (
        CommandKind.CANCEL_ORDER,
        CommandKind.MASS_CANCEL,
        CommandKind.SET_TRADING_STATE,
        CommandKind.SET_LIMIT,
        Annotation.MARK,
        Annotation.SEAL,
    )
)
KIND_AT: Final = 24
HELD_SECONDS: Final = 30.0
"""How long an opening waits for the syncer of a writer that died."""
NAP_SECONDS: Final = 0.000_02


class Durability(IntEnum):
    """What an acknowledged record survives (JRN-22); every figure of a journal names its level."""

    D0 = 0
    """The death of the process."""
    D1 = 1
    """The loss of power."""
    D2 = 2
    """As D1, and a single fault of the medium is told from a crash."""


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
        keeper: Keeper,
        segment: SegmentFile,
        header: SegmentHeader,
        durability: Durability,
        torn: TornTail | None = None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        """Take over an open and locked directory; not for callers, who use `create` and `open`."""
        self.directory: Final = directory
        """The path, as it was given."""
        self.durability: Final = durability
        self.torn: Final = torn
        """What `open` cut off and kept beside the segment, if a crash had torn it (JRN-14)."""
        self.warnings: Final = warnings
        """What `open` found damaged and could pass over: a slot of the commit mark."""
        self._descriptor = descriptor
        self._source = source
        self._chain = chain
        self._keeper = keeper
        self._syncs = durability > Durability.D0 and isinstance(keeper, InlineKeeper)
        self._files = deque([segment])
        self._store = segment.storage.write
        self._header = header
        self._offset = HEADER_SIZE
        self._reserve = min(RESERVE, header.segment_records // 4)
        self._easy = 0
        self._low = 0
        self._ended = 0
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
        backend: str = "mmap",
        durability: Durability = Durability.D0,
        syncer: bool = False,
        after: int = 0,
        after_ns: int = 0,
    ) -> Self:
        """Begin a journal in a new or empty directory, for engines of one capacity; never touch an existing one.

        A segment takes `segment_records`, 1 .. 2^26, before the next begins.  `backend` is "mmap" or "pwrite"
        (`ferrox.journal.storage`).  With `durability` D1 or D2 a record is acknowledged when it is on disk: `append`
        returns then, or, with a `syncer`, `released` says so.  A syncer is a process that syncs all the time and
        prepares segments, so that `append` never waits for the disk; without one an append may, where a segment ends.
        The first record follows sequence `after` and time `after_ns`: above 0, it is no journal until the caller has
        written the snapshot of that sequence beside it (JRN-20).
        Raise `UsageError` when the directory is taken or cannot be made, `JournalFailed` when the disk fails.
        """
        path = os.fspath(directory)
        if not 1 <= segment_records <= SEGMENT_RECORDS_MAX:
            raise UsageError(f"a segment holds 1 .. {SEGMENT_RECORDS_MAX} records, not {segment_records}")
        _check_backend(backend)
        capacity, source = capacity or Capacity(), source or Source()
        _make_directory(path)
        descriptor = _lock(path)
        with ExitStack() as undo, _explained(f"{path}: the journal cannot be created"):
            undo.callback(os.close, descriptor)
            _expect_free(path, descriptor)
            uuid, salt = source.random_bytes(16), source.salt()
            chain = Chain(salt, salt, after, after_ns)
            mark = CommitMark(uuid, 1, after, salt)
            marks = MarkFile(publish(descriptor, MARK_NAME, [pack_marks(mark)]), mark, 0)
            undo.callback(marks.close)
            fcntl.flock(marks.file, fcntl.LOCK_EX)
            header = SegmentHeader(
                uuid=uuid,
                epoch=1,
                base_sequence=after + 1,
                created_ns=source.clock(),
                salt=salt,
                prev_chain=salt,
                prev_sha256=bytes(32),
                rules_version=RULES_VERSION,
                order_capacity=capacity.orders,
                instrument_capacity=capacity.instruments,
                segment_records=segment_records,
            )
            return cls._begin(
                undo, path, descriptor, source, chain, marks, header, bytes(32), backend, durability, syncer=syncer
            )

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        *,
        source: Source | None = None,
        backend: str = "mmap",
        durability: Durability = Durability.D0,
        syncer: bool = False,
        replay: Callable[[bytes], object] | None = None,
        start: int | None = None,
    ) -> Self:
        """Go on with a journal in a new segment, after verifying all of it (JRN-11); the options are those of `create`.

        The records from sequence `start` on, all without it, go to `replay` on the way, a batch at a time, so that an
        engine is ready when the journal is.  When this raises, what was replayed is to be thrown away.

        A torn tail is kept beside its segment, cut off, and told of in `torn`.  Raise `UsageError` when there is no
        journal or another process holds it; raise `CorruptInput`, with nothing changed, when it is damaged.
        """
        path = os.fspath(directory)
        _check_backend(backend)
        source = source or Source()
        descriptor = _lock(path)
        with ExitStack() as undo, _explained(f"{path}: the journal cannot be opened for append"):
            undo.callback(os.close, descriptor)
            mark_file = _lock_mark(path, descriptor)
            if isinstance(mark_file, int):
                undo.callback(os.close, mark_file)
            reading = _verify(path, descriptor, replay, start)
            if isinstance(mark_file, OSError):
                raise mark_file
            _cut(reading, descriptor)
            last = reading.segments[-1].header
            before = reading.hashes.get(len(reading.segments) - 2, bytes(32))
            header = last._replace(
                epoch=last.epoch + 1,
                base_sequence=reading.chain.sequence + 1,
                created_ns=source.clock(),
                salt=source.salt(),
                prev_chain=reading.chain.checksum,
                prev_sha256=before,
                format_version=FORMAT_VERSION,
            )
            reading.chain.salt = header.salt
            marks = MarkFile(mark_file, reading.mark._replace(epoch=header.epoch), reading.mark_slot)
            return cls._begin(
                undo,
                path,
                descriptor,
                source,
                reading.chain,
                marks,
                header,
                reading.hashes[len(reading.segments) - 1],
                backend,
                durability,
                torn=reading.torn,
                warnings=tuple(reading.warnings),
                syncer=syncer,
            )

    @classmethod
    def _begin(
        cls,
        undo: ExitStack,
        path: str,
        descriptor: int,
        source: Source,
        chain: Chain,
        marks: MarkFile,
        header: SegmentHeader,
        before: bytes,
        backend: str,
        durability: Durability,
        *,
        torn: TornTail | None = None,
        warnings: tuple[str, ...] = (),
        syncer: bool,
    ) -> Self:
        """Make the segment of a header, and return a journal that writes it; `before` is the digest of the last one."""
        place = Place(header.base_sequence, header.epoch, header.segment_records)
        segment = make_segment_file(
            descriptor, backend, place, place.full_size if syncer else FIRST_SIZE, header.pack()
        )
        undo.callback(segment.storage.close)
        if header.epoch > 1:
            # All that was verified had been synced before, so it is durable from here on, whatever the mark said.
            marks.write(chain.sequence, chain.checksum)
            marks.sync()
        keeper: Keeper
        if syncer:
            keeper = SyncerKeeper(descriptor, backend, marks, before, place, int(durability))
        else:
            keeper = InlineKeeper(descriptor, backend, marks, before)
        undo.pop_all()
        return cls(path, descriptor, source, chain, keeper, segment, header, Durability(durability), torn, warnings)

    # ------------------------------------------------------------------------------------------------------- to use it

    @property
    def sequence(self) -> int:
        """The sequence number of the last record, 0 when there is none."""
        return self._chain.sequence

    @property
    def time_ns(self) -> int:
        """The time of the last record, nanoseconds; the next one's is not before it (JRN-3)."""
        return self._chain.time_ns

    @property
    def durable(self) -> int:
        """The sequence number up to which records are known to be on disk."""
        return self._ended if self._closed else self._keeper.durable

    @property
    def released(self) -> int:
        """The sequence number up to which reports may leave, by the level of the journal (JRN-22)."""
        if self.durability is Durability.D0:
            return self._chain.sequence
        return self.durable if self.durability is Durability.D1 or self._closed else self._keeper.marked

    @property
    def disk_low(self) -> bool:
        """Whether the disk gave no more room when it was asked last, so that only cancels are taken (JRN-23)."""
        return self._low != 0

    @property
    def header(self) -> SegmentHeader:
        """The header of the segment that is being written: uuid, epoch, capacity."""
        return self._header

    @property
    def uuid(self) -> bytes:
        """What tells this journal from any other, 16 bytes."""
        return self._header.uuid

    @property
    def capacity(self) -> Capacity:
        """What an engine that replays this journal must hold."""
        return self._header.capacity

    @property
    def closed(self) -> bool:
        """Whether it was closed, so that nothing can be written any more."""
        return self._closed

    def append(self, records: bytes) -> bytes:
        """Write commands' records and return them sealed, in the form that engines apply.

        Kind, size, session, time and command are the caller's; a time of 0 becomes the clock's, and none goes back.
        The rest is filled in here.  Raise `UsageError`, with nothing written, for what is no command's record,
        `DiskLow`, with nothing written, when the disk is full and a record is no cancel, `JournalFailed` when the disk
        fails.
        """
        self._expect_usable()
        check_given(records)
        return self._append(records, self._source.clock())

    def mark(self, first: int = 0, reports: int = 0, reports_crc: int = 0) -> bytes:
        """Append a MARK and return it sealed: the watermark, and what the engine said to the records from `first` on.

        `reports` and `reports_crc` are the number and the CRC-32C of all reports since then; `first` 0 states nothing
        (JRN-21).
        """
        self._expect_usable()
        return self._append(mark_record(first, reports, reports_crc), 0)

    def look_for_room(self) -> bool:
        """Ask the disk once more for room, after `DiskLow`; return whether there is some (JRN-23)."""
        self._expect_usable()
        with suppress(DiskLow):
            self._make_room(b"", self._chain.sequence + 1)
        return not self._low

    def wait(self) -> None:
        """Return when reports to all records so far may leave (JRN-22); raise `JournalFailed` if they never may."""
        while self.released < self._chain.sequence:
            self.expect_sound()
            time.sleep(NAP_SECONDS)

    def expect_sound(self) -> None:
        """Raise `JournalFailed` when what is written will never be on disk; return at once otherwise."""
        self._expect_usable()
        try:
            self._keeper.wrote(self._chain.sequence)
        except JournalFailed as error:
            raise self._failed("a sync", error) from error

    def sync(self) -> None:
        """Return when every record appended so far is on disk, and the commit mark says so (JRN-13)."""
        self._expect_usable()
        try:
            self._sync(mark=True)
        except (OSError, JournalFailed) as error:
            raise self._failed("a sync", error) from error

    def close(self) -> bytes:
        """Sync, end the journal with a SEAL, and let go of it; after a failure, only let go of it.

        Return the SEAL, which an engine that goes on as a replay would must be given too, or nothing where none was
        written: the journal had failed, or was closed before.
        """
        if self._closed:
            return b""
        sealed = b""
        try:
            if not self._failure:
                sealed = self._seal()
        except (OSError, JournalFailed) as error:
            raise self._failed("the last sync", error) from error
        finally:
            self._ended = self._keeper.durable
            self._closed = True
            for file in self._files:
                file.storage.close()
            if sealed:
                self._trim()
            self._keeper.close()
            os.close(self._descriptor)  # and the lock with it
        return sealed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------- the parts

    def _append(self, records: bytes, now_ns: int) -> bytes:
        """Write records that may be written; most are far from the end of the segment and of the room made."""
        last = self._chain.sequence + len(records) // RECORD_SIZE
        easy = last <= self._easy
        if not easy:
            self._make_room(records, last)
        # Whatever interrupts what follows, a keyboard included, leaves a journal that only recovery can judge.
        self._failure = "an append was interrupted; open the journal again to go on"
        try:
            if easy:
                sealed = self._write(records, now_ns)
            else:
                sealed = b"".join(self._write(part, now_ns) for part in self._parts(records))
            self._keeper.wrote(last)
            if self._syncs:
                self._sync(mark=self.durability is Durability.D2)
        except OSError as error:
            raise self._failed("a write", error) from error
        except JournalFailed as error:
            raise self._failed("a sync", error) from error
        self._failure = ""
        return sealed

    def _write(self, records: bytes, now_ns: int) -> bytes:
        """Seal records and write them to the segment, which has room for them."""
        sealed = self._chain.seal(records, self._keeper.durable, now_ns)
        self._store(sealed, self._offset)
        self._offset += len(sealed)
        return sealed

    def _parts(self, records: bytes) -> Iterator[bytes]:
        """Give records in parts that a segment has room for, and begin the next one between them."""
        done = 0
        while done < len(records):
            left = self._header.base_sequence + self._header.segment_records - 1 - self._chain.sequence
            if left == 0:
                self._rotate()
                left = self._header.segment_records
            yield records[done : done + left * RECORD_SIZE]
            done += left * RECORD_SIZE

    def _make_room(self, records: bytes, last: int) -> None:
        """See that there is a place on disk for records up to `last`, and for the reserve behind them (JRN-23)."""
        try:
            while last + self._reserve > self._files[-1].last:
                if not self._keeper.extend(self._files):
                    if last <= self._files[-1].last:
                        return  # the next file is being prepared; there is enough without it
                    time.sleep(NAP_SECONDS)
        except OSError as error:
            if error.errno not in FULL:
                raise self._failed("making room", error) from error
            self._low = error.errno
            if last > self._files[-1].last or records[KIND_AT::RECORD_SIZE].strip(TAKEN_WHEN_LOW):
                kept = self._files[-1].last - self._chain.sequence
                raise DiskLow(
                    f"{self.directory}: the disk is full ({error.strerror}), and the last room, for {kept} records, is "
                    "kept for cancels; nothing was written. Make room on the disk, and orders are taken again."
                ) from error
        except JournalFailed as error:
            raise self._failed("a sync", error) from error
        else:
            self._low = 0
            self._easy = min(
                self._files[-1].last - self._reserve, self._header.base_sequence + self._header.segment_records - 1
            )

    def _rotate(self) -> None:
        """End a full segment and begin the next (JRN-11): its file is there, so this is one store."""
        full = self._files.popleft()
        before = self._keeper.turn(full, self._chain)
        self._header = self._header._replace(
            base_sequence=self._chain.sequence + 1,
            created_ns=self._source.clock(),
            salt=self._source.salt(),
            prev_chain=self._chain.checksum,
            prev_sha256=before,
        )
        self._store = self._files[0].storage.write
        self._store(self._header.pack()[: SEGMENT_HEADER.size], 0)
        self._chain.salt = self._header.salt
        self._offset = HEADER_SIZE
        full.storage.close()

    def _sync(self, *, mark: bool) -> None:
        """Make the records durable, then say so."""
        self._keeper.sync(self._files[0], self._chain, mark=mark)

    def _seal(self) -> bytes:
        """Write the SEAL behind durable records, so that its lag of 1 repeats the watermark, and fill both marks."""
        if isinstance(self._keeper, SyncerKeeper):
            self._keeper = self._keeper.stop(self._files[0].place)
        self._sync(mark=True)
        try:
            self._make_room(SEAL, self._chain.sequence + 1)
        except DiskLow:
            return b""
        sealed = b"".join(self._write(part, 0) for part in self._parts(SEAL))
        self._sync(mark=True)
        self._sync(mark=True)
        return sealed

    def _trim(self) -> None:
        """Give back the room that was made and is not needed; what is left of it is zeros, and no damage."""
        used, *prepared = (file.place.name for file in self._files)
        with suppress(OSError):
            file = os.open(used, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._descriptor)
            os.ftruncate(file, self._offset)
            os.close(file)
            for name in prepared:
                remove(self._descriptor, name)

    def _expect_usable(self) -> None:
        """Raise unless records may still be written."""
        if self._closed:
            raise UsageError(f"{self.directory}: this journal was closed; open it again to go on")
        if self._failure:
            raise JournalFailed(self._failure)

    def _failed(self, what: str, error: OSError | JournalFailed) -> JournalFailed:
        """Make the first failure the last word: what is on disk can no longer be known from here (JRN-16)."""
        path = joined(self.directory, self._header.name)
        reason = error.strerror if isinstance(error, OSError) else error
        self._failure = (
            f"{path}: {what} failed: {reason}; durable up to sequence {self.durable}. "
            "Nothing more is written. Mend the disk, then open the journal again."
        )
        return JournalFailed(self._failure)


def _expect_free(path: str, descriptor: int) -> None:
    """Raise `UsageError` unless a directory is empty, but for what a creation that was interrupted has left.

    The first segment is made last, so without it nothing was ever written.
    """
    first = segment_name(1, 1)
    for name in names_in(descriptor):
        if name == MARK_NAME:
            file = open_file(descriptor, name, joined(path, name))
            page = read_at(file, MARK_SIZE + 1, 0, joined(path, name))
            os.close(file)
            unwritten = pack_marks(unpack_marks(page, joined(path, name))[0]._replace(durable=0)) == page
            if unwritten and not any(other.endswith(".wal") for other in names_in(descriptor)):
                continue
        elif name in (MARK_NAME + TEMPORARY, first + TEMPORARY):
            continue
        there = names_in(descriptor)
        what = "already holds a journal" if MARK_NAME in there else f"is not empty (it holds {name!r})"
        raise UsageError(f"{path}: this directory {what}; choose another one for a new journal")


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
        with _explained(f"{path}: the directory cannot be made durable"):
            os.fsync(parent)
    finally:
        os.close(parent)


def _lock(path: str) -> int:
    """Return the descriptor of the directory, held alone; raise `UsageError` when another holds it (JRN-15, JRN-17)."""
    descriptor = open_directory(path)
    found = os.fstat(descriptor)
    why = ""
    if found.st_uid != os.geteuid():
        why = f"this directory is user {found.st_uid}'s, and we are {os.geteuid()}; chown it to us"
    elif found.st_mode & 0o022:
        why = f"others may write into this directory, its mode is {stat.S_IMODE(found.st_mode):04o}; chmod it to 0700"
    if why:
        os.close(descriptor)
        raise UsageError(f"{path}: {why}")
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


def _check_backend(backend: str) -> None:
    """Raise `UsageError` unless there is a backend of this name."""
    if backend not in BACKENDS:
        raise UsageError(f"there is no backend {backend!r}; choose one of: {', '.join(BACKENDS)}")


def _lock_mark(path: str, descriptor: int) -> int | OSError:
    """Return a descriptor of the commit mark, held alone, or why it cannot be opened: verifying tells more about it.

    The syncer of a writer that died holds it until what was written is on disk.
    """
    try:
        file = os.open(MARK_NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=descriptor)
    except OSError as error:
        return error
    end = time.monotonic() + HELD_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not isinstance(error, BlockingIOError) or time.monotonic() > end:
                os.close(file)
                raise UsageError(
                    f"{joined(path, MARK_NAME)}: the syncer of a writer that is gone still holds this file; "
                    "wait until it has ended"
                ) from None
            time.sleep(NAP_SECONDS)
        else:
            return file


def _verify(path: str, descriptor: int, replay: Callable[[bytes], object] | None, start: int | None) -> Reading:
    """Return a reading of the whole journal, and replay what is asked for; raise `CorruptInput` when it is damaged.

    Every file is synced first, and then let go by the page cache, so that no decision rests on bytes that the cache has
    and the disk has not.
    """
    with Reading(path) as reading:
        for name in names_in(descriptor):
            if name != MARK_NAME and not name.endswith(".wal"):
                continue
            file = open_file(descriptor, name, joined(path, name))
            try:
                os.fsync(file)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)
        os.fsync(descriptor)
        reading.load()
        for records in reading.batches():
            if replay:
                last = reading.chain.sequence
                wanted = (
                    len(records) // RECORD_SIZE if start is None else min(last + 1 - start, len(records) // RECORD_SIZE)
                )
                if wanted > 0:
                    replay(records[-wanted * RECORD_SIZE :])
        if start is not None and start > reading.chain.sequence + 1:
            raise UsageError(f"{path}: the journal ends at sequence {reading.chain.sequence}, before {start}")
    return reading


def _cut(reading: Reading, descriptor: int) -> None:
    """Keep a torn tail aside, and take away all that is behind the last record.

    Each step leaves what the next reading judges alike, so that it may be interrupted anywhere.
    """
    tail, last = reading.torn, reading.segments[-1].header.name
    if tail:
        last = Path(tail.path).name
        file = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        try:
            if tail.size:
                os.close(publish(descriptor, last + TORN, _copy(file, tail)))
        finally:
            os.close(file)
        for name in reversed(tail.files):
            os.rename(name, name + TORN, src_dir_fd=descriptor, dst_dir_fd=descriptor)
            os.fsync(descriptor)
        reading.segments = [segment for segment in reading.segments if segment.header.name not in tail.files]
    prepared = {remainder.name for remainder in reading.remainders}
    left = [name for name in names_in(descriptor) if name in prepared or name.endswith(".wal" + TEMPORARY)]
    for name in left:
        remove(descriptor, name)
    if left:
        os.fsync(descriptor)
    end = HEADER_SIZE + (reading.chain.sequence + 1 - reading.segments[-1].base) * RECORD_SIZE
    if reading.segments[-1].size > end:
        file = os.open(last, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        try:
            os.ftruncate(file, end)
            os.fsync(file)
        finally:
            os.close(file)


def _copy(file: int, tail: TornTail) -> Iterator[bytes]:
    """Give the bytes of a torn tail that are in the segment where it begins."""
    end = tail.offset + tail.size
    for offset in range(tail.offset, end, COPY_SIZE):
        yield read_at(file, min(COPY_SIZE, end - offset), offset, tail.path)
