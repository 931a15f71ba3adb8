"""How a segment's bytes reach its file: two backends behind one interface, and the same fault suite runs on both.

    mmap    a store into a mapping of the file (the default): no system call, the shortest tail, survives kill -9;
            long batches by a call, which is quicker than the page faults that they would take
    pwrite  a call for each append: slower, but a failing disk is an error number instead of a signal

Both make room first, with `posix_fallocate`: a store into a mapping whose blocks are not there kills the process, and a
file that was filled with zeros by large writes costs a whole folio at every sync.  `sync` is `fdatasync` for both, for
it covers stores as well; `msync` would take the map's lock.

Considered and left: direct I/O.  It is as quick as the others where every append is synced at once, but a record that
is not in the page cache does not survive kill -9, so every append would wait for the disk, even at level D0.
"""

import mmap
import os
from typing import Final, Protocol

from ferrox.files import write_at

LET_GO: Final = 1 << 14
"""Bytes of a mapping that are let go of at a time, when they are written."""


CALL_SIZE: Final = 2048
"""Bytes beyond which a call costs less than the page fault that a store would take; both reach the same page cache."""


class Storage(Protocol):
    """The file of one segment, open for writing."""

    size: int
    """Bytes that have their place on disk: `write` must stay below."""

    def allocate(self, size: int) -> None:
        """Make room up to `size` bytes, all 0 where nothing was written; raise OSError when the disk is full."""

    def write(self, data: bytes, offset: int) -> None:
        """Put bytes into the page cache, at `offset`; raise OSError when it cannot be."""

    def sync(self) -> None:
        """Return when all that was written is on disk; raise OSError when it cannot be."""

    def close(self) -> None:
        """Let go of the file."""


class WrittenFile:
    """A file that is written by `pwrite`."""

    def __init__(self, file: int, size: int) -> None:
        """Take over a descriptor, open for reading and writing, of a file of `size` bytes."""
        self.file, self.size = file, size

    def allocate(self, size: int) -> None:
        """Make room up to `size` bytes."""
        if size > self.size:
            os.posix_fallocate(self.file, self.size, size - self.size)
            self.size = size

    def write(self, data: bytes, offset: int) -> None:
        """Write at `offset`, however many calls it takes."""
        write_at(self.file, data, offset)

    def sync(self) -> None:
        """Sync the file's data."""
        os.fdatasync(self.file)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.file)


class MappedFile:
    """A file that is written by stores into a mapping of it."""

    def __init__(self, file: int, size: int) -> None:
        """Take over a descriptor, open for reading and writing, of a file of `size` bytes that have their blocks."""
        self.file, self.size = file, size
        self.map = mmap.mmap(file, size)
        # Without this a first store may get a page of two megabytes, and zeroing that takes longer than a sync.
        self.map.madvise(mmap.MADV_RANDOM)
        self.kept = 0

    def allocate(self, size: int) -> None:
        """Make room up to `size` bytes, and map it."""
        if size > self.size:
            os.posix_fallocate(self.file, self.size, size - self.size)
            self.map.resize(size)
            self.size = size

    def write(self, data: bytes, offset: int) -> None:
        """Store at `offset`: one copy and no call, or one call where that is more than half a page."""
        if len(data) > CALL_SIZE:
            write_at(self.file, data, offset)
        else:
            self.map[offset : offset + len(data)] = data
        if offset - self.kept > 2 * LET_GO:
            # The pages stay in the cache.  While they are mapped here, a sync in another process takes each out of our
            # page table by an interrupt, and takes five times as long (docs/journal.md).
            done = (offset - LET_GO) // LET_GO * LET_GO
            self.map.madvise(mmap.MADV_DONTNEED, self.kept, done - self.kept)
            self.kept = done

    def sync(self) -> None:
        """Sync the file's data, what was stored through the mapping included."""
        os.fdatasync(self.file)

    def close(self) -> None:
        """Let go of the mapping and of the file."""
        self.map.close()
        os.close(self.file)


BACKENDS: Final[dict[str, type[MappedFile] | type[WrittenFile]]] = {"mmap": MappedFile, "pwrite": WrittenFile}
"""Each backend by its name."""
