"""What a writer needs around its stores: files made ahead, syncs, the commit mark, hashes of full segments.

`InlineKeeper` does all of it in the call that needs it, which may wait for the disk.  `ferrox.journal.syncer` does the
same in another process, so that its writer never waits; both are a `Keeper`.
"""

import hashlib
import os
from collections import deque
from threading import Thread
from typing import Final, NamedTuple, Protocol

from ferrox.files import publish, write_at
from ferrox.journal.chain import Chain
from ferrox.journal.layout import HEADER_SIZE, MARK_SECTOR, CommitMark, segment_name
from ferrox.journal.storage import BACKENDS, Storage
from ferrox.messages import RECORD_SIZE

FIRST_SIZE: Final = 1 << 16
"""Bytes that a file begins with when it may grow; it doubles from there."""
GROWTH_MAX: Final = 1 << 24
"""Bytes that it grows by at most."""
HASH_SIZE: Final = 1 << 20
"""Bytes that are hashed at a time, and beyond which it is done beside the writer."""


class Place(NamedTuple):
    """Which records a segment's file is for."""

    base: int
    """The sequence number of the first."""
    epoch: int
    records: int
    """How many there may be."""

    @property
    def name(self) -> str:
        """The name of the file."""
        return segment_name(self.base, self.epoch)

    @property
    def full_size(self) -> int:
        """Bytes that the file has when it is full."""
        return HEADER_SIZE + self.records * RECORD_SIZE

    @property
    def following(self) -> "Place":
        """The next one."""
        return self._replace(base=self.base + self.records)

    @property
    def preceding(self) -> "Place":
        """The one before, which is of the same epoch and full."""
        return self._replace(base=self.base - self.records)


class SegmentFile(NamedTuple):
    """A segment's file on the writer's side: the one that is written, or one that is prepared."""

    place: Place
    storage: Storage

    @property
    def last(self) -> int:
        """The last sequence number that there is room for by now."""
        return self.place.base - 1 + (self.storage.size - HEADER_SIZE) // RECORD_SIZE


class Keeper(Protocol):
    """What serves a writer."""

    @property
    def durable(self) -> int:
        """The sequence number up to which records are on disk."""

    @property
    def marked(self) -> int:
        """The sequence number up to which the commit mark on disk says so."""

    def wrote(self, sequence: int) -> None:
        """Take note that records up to a sequence number are written; raise `JournalFailed` when a sync has failed."""

    def extend(self, ahead: deque[SegmentFile]) -> bool:
        """Make more room, in the last of these files or in another; say whether there is more now.

        Raise OSError when the disk gives no more.
        """

    def turn(self, full: SegmentFile, chain: Chain) -> bytes:
        """Take a full segment; return the SHA-256 of the one before it, zeros when there is none."""

    def sync(self, segment: SegmentFile, chain: Chain, *, mark: bool) -> None:
        """Return when all records are on disk, and with `mark` the commit mark too; raise OSError when it fails."""

    def close(self) -> None:
        """Let go of everything."""


class MarkFile:
    """The commit mark: two slots that are written by turns, so that a torn write leaves the other one (JRN-13)."""

    def __init__(self, file: int, mark: CommitMark, slot: int) -> None:
        """Take over a file, the mark that counts in it, and the slot of that mark, 0 or 1."""
        self.file, self.mark, self.slot = file, mark, slot
        self.synced = True

    def write(self, sequence: int, checksum: int) -> None:
        """Say that all records up to one are on disk, and what its checksum is."""
        self.mark = self.mark._replace(durable=sequence, chain=checksum)
        if self.synced:  # else the other slot is the only one that is on disk for sure
            self.slot = 1 - self.slot
        self.synced = False
        write_at(self.file, self.mark.pack().ljust(MARK_SECTOR, b"\0"), self.slot * MARK_SECTOR)

    def sync(self) -> None:
        """Return when what was said is on disk."""
        os.fdatasync(self.file)
        self.synced = True

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.file)


class InlineKeeper:
    """A keeper that does its work in the caller's process, most of it in the call that needs it."""

    def __init__(self, directory: int, backend: str, marks: MarkFile, before: bytes) -> None:
        """Serve a writer in an open directory; `before` is the SHA-256 of the segment before the one it begins."""
        self.directory, self.backend, self.marks = directory, backend, marks
        self._durable = self._marked = marks.mark.durable
        self._before = before
        self._finishing: Finishing | None = None

    @property
    def durable(self) -> int:
        """The sequence number up to which records are on disk."""
        return self._durable

    @property
    def marked(self) -> int:
        """The sequence number up to which the commit mark on disk says so."""
        return self._marked

    def wrote(self, sequence: int) -> None:
        """Nothing waits here for the news that records are written."""

    def extend(self, ahead: deque[SegmentFile]) -> bool:
        """Let the last file grow, or make another; there is always an answer at once."""
        last = ahead[-1]
        size, full_size = last.storage.size, last.place.full_size
        if size < full_size:
            last.storage.allocate(min(full_size, size + min(size, GROWTH_MAX)))
        else:
            ahead.append(make_segment_file(self.directory, self.backend, last.place.following, FIRST_SIZE))
        return True

    def turn(self, full: SegmentFile, chain: Chain) -> bytes:
        """Wait until the segment before a full one is on disk, which it is since long, and begin to finish this one."""
        self._finish()
        before = self._before
        self._finishing = Finishing(self.directory, full.place, chain.sequence, chain.checksum)
        if not self._finishing.thread:
            self._finish()
        return before

    def resume(self, place: Place) -> None:
        """Take over behind a segment that is on disk already, and needs its digest only."""
        self._finishing = Finishing(self.directory, place, 0, 0)

    def sync(self, segment: SegmentFile, chain: Chain, *, mark: bool) -> None:
        """Sync the records, then write the commit mark, which is synced now or with the next."""
        self._finish()
        segment.storage.sync()
        self.marks.write(chain.sequence, chain.checksum)
        self._durable = chain.sequence
        if mark:
            self.marks.sync()
            self._marked = chain.sequence

    def _finish(self) -> None:
        """Wait until the full segment is on disk, if one is not; say so in the commit mark, to be synced later."""
        if self._finishing is None:
            return
        self._before = self._finishing.result()
        if self._finishing.sequence > self._durable:
            self._durable = self._finishing.sequence
            self.marks.write(self._durable, self._finishing.checksum)
        self._finishing = None

    def close(self) -> None:
        """Let go of the commit mark."""
        self.marks.close()


class Finishing:
    """A full segment on its way to the disk, and its SHA-256; beside the writer when it is long."""

    def __init__(self, directory: int, place: Place, sequence: int, checksum: int) -> None:
        """Begin to sync and to hash the segment that ends with a record; raise OSError when it cannot be opened."""
        self.sequence, self.checksum, self.size = sequence, checksum, place.full_size
        self.sha256 = hashlib.sha256()
        self.error: OSError | None = None
        self.thread: Thread | None = None
        self.file = os.open(place.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        if self.size <= HASH_SIZE:
            self._work()
        else:
            # Syncing and hashing both let go of the interpreter, so the writer goes on.
            self.thread = Thread(target=self._work, name="ferrox-finish", daemon=True)
            self.thread.start()

    def _work(self) -> None:
        """Sync, hash, and close the file."""
        try:
            os.fdatasync(self.file)
            for offset in range(0, self.size, HASH_SIZE):
                self.sha256.update(os.pread(self.file, min(HASH_SIZE, self.size - offset), offset))
        except OSError as error:
            self.error = error
        finally:
            os.close(self.file)

    def result(self) -> bytes:
        """Return the digest as soon as all of it is on disk; raise OSError when the sync or the reading failed."""
        if self.thread:
            self.thread.join()
        if self.error:
            raise self.error
        return self.sha256.digest()


def make_segment_file(directory: int, backend: str, place: Place, size: int, header: bytes = b"") -> SegmentFile:
    """Make the file of a segment, all 0 behind its header if it gets one now, with room for `size` bytes; durable.

    Raise OSError when the disk gives no room, or fails.
    """
    size = min(size, place.full_size)
    file = publish(directory, place.name, [header], size)
    return SegmentFile(place, BACKENDS[backend](file, size))
