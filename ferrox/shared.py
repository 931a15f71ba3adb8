"""Sealed shared memory: what two processes both map, and neither can cut off under the other.

A memfd with seals against shrinking and growing, so a peer's mistake is never our SIGBUS.  Words are read and written
through `memoryview.cast("q")`, one aligned load or store each, which never tears (`struct.pack_into` writes zeros
first, and another process sees them).  What is written first is seen first: that is so on x86-64 and nowhere else that
Ferrox runs on, so anywhere else nothing here is made (RING-2).
"""

import fcntl
import mmap
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from ferrox.errors import FerroxError, UsageError

PAGE: Final = 4096
STRIDE: Final = 16
"""Words from one word that is shared to the next: 128 bytes, so that two writers never share a cache line."""
SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
ORDERED: Final = ("x86_64", "AMD64")
"""Machines on which stores become visible in their order."""


class SharedCorrupt(FerroxError):
    """Shared memory holds what no side of it writes: the process that sees it stops (RING-3)."""


def expect_ordered(machine: str | None = None) -> None:
    """Raise `UsageError` unless stores become visible in their order on this machine."""
    machine = machine or platform.machine()
    if machine not in ORDERED or sys.byteorder != "little" or sys.maxsize < 2**62:
        raise UsageError(
            f"the matching service shares memory between processes in a way that is right on x86-64 only, and this is "
            f"{machine}: run the service on another machine. Engines, journals and the oracle run here"
        )


WORD_MAGIC: Final = 0
WORD_VERSION: Final = 1
WORD_CAPACITY: Final = 2
"""The first words of a page that says what it is."""


class Shared:
    """A page of words, and bytes behind it."""

    def __init__(self, file: int) -> None:
        """Map what a descriptor holds, which is this object's from here on."""
        expect_ordered()
        self.file = file
        self.map = mmap.mmap(file, os.fstat(file).st_size)
        self.words = memoryview(self.map).cast("q")
        self.bytes = memoryview(self.map)[PAGE:]

    @classmethod
    def create(cls, name: str, size: int) -> Self:
        """Make a page and `size` bytes behind it, all zeros, under a name for people (/proc/PID/maps)."""
        expect_ordered()
        file = os.memfd_create(f"ferrox-{name}", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        os.ftruncate(file, PAGE + size)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, SEALS)
        return cls(file)

    @classmethod
    def keep(cls, path: Path, size: int) -> Self:
        """Map a file of at least a page and `size` bytes behind it, made if need be, that outlives all processes.

        Raise `UsageError` when it cannot be.
        """
        expect_ordered()
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            os.posix_fallocate(file, 0, -(-max(os.fstat(file).st_size, PAGE + size) // PAGE) * PAGE)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}; the service keeps a file of some pages there") from None
        return cls(file)

    def stamp(self, magic: int, version: int, capacity: int) -> Self:
        """Say on the page what this memory is, and for how many of what it holds."""
        self.words[WORD_MAGIC], self.words[WORD_VERSION], self.words[WORD_CAPACITY] = magic, version, capacity
        return self

    def expect(self, what: str, magic: int, version: int) -> int:
        """Return the capacity that stands on the page; raise `SharedCorrupt` when this memory is something else."""
        if self.words[WORD_MAGIC] != magic or self.words[WORD_VERSION] != version:
            raise SharedCorrupt(f"expected a {what} of version {version}, found other memory")
        return self.words[WORD_CAPACITY]

    def __del__(self) -> None:
        """Let go of the file; the mapping goes with the last view of it."""
        with suppress(OSError):
            os.close(self.file)
