"""The syncer: a process that makes a journal durable while its writer never waits for the disk.

It shares one page of memory with the writer.  The writer says how far it has written; the syncer says how far that is
on disk, prepares the next two segments, hashes the full ones, and writes the commit mark.  Each word of the page is
written by one side, in one aligned store of eight bytes, so nothing is ever seen half written.

It must be another process, and not a thread: compiled code does not let go of the interpreter, and a thread would sync
when there is nothing to sync.  When the writer dies, whatever kills it, the syncer makes durable what was written, says
so in the commit mark, and ends.  Until then it holds a lock on the commit mark, which the next writer waits for.  When
the syncer dies or a sync fails, the writer fails at its next append: nobody can know any more what is on disk.
"""

import errno
import fcntl
import hashlib
import mmap
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ferrox.errors import JournalFailed
from ferrox.files import publish, remove
from ferrox.journal.chain import Chain
from ferrox.journal.keeper import HASH_SIZE, InlineKeeper, MarkFile, Place, SegmentFile
from ferrox.journal.layout import HEADER_SIZE, MARK_NAME, MARK_SIZE, unpack_marks
from ferrox.journal.storage import BACKENDS
from ferrox.messages import RECORD_SIZE

PROGRAM: Final = "from ferrox.journal.syncer import main; main()"
STRIDE: Final = 16
"""Words from one to the next: 128 bytes, two cache lines, so that the sides do not share any."""
APPENDED, WANTED, STOP, SLEEPING, DURABLE, MARKED, STATE, ERROR, READY, LOW, HASHED, DIGESTS = (
    STRIDE * n for n in range(12)
)
"""The words.  The writer's are APPENDED (sequence number), WANTED (one that it waits for, with its mark) and STOP;
the rest is the syncer's.  READY is the last sequence number that there is a file for, LOW the error number of a disk
that is full, HASHED the first sequence number whose segment's digest is not there yet; four digests follow."""
PAGE: Final = 4096
STARTING, RUNNING, FAILED, STOPPED = range(4)

AHEAD: Final = 2
"""Segments that are prepared behind the one that is written."""
STRICT: Final = 2
"""The level at which each commit mark is synced before it counts."""
PACE_SECONDS: Final = 0.01
"""From one sync to the next where no acknowledgement waits for it (D0)."""
SPIN_SECONDS: Final = 0.002
NAP_SECONDS: Final = 0.000_02
SLEEP_MS: Final = 50
RETRY_SECONDS: Final = 0.05
START_SECONDS: Final = 30.0
FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class SyncerKeeper:
    """A keeper whose work is done by a syncer: nothing here waits for the disk but `sync` and `stop`."""

    def __init__(self, directory: int, backend: str, marks: MarkFile, before: bytes, place: Place, level: int) -> None:
        """Start the syncer of a writer at the beginning of a segment, for a level of durability, 0 .. 2.

        Raise `JournalFailed` when it does not start.
        """
        self.directory, self.backend = directory, backend
        self.first, self.before = place, before
        self.memory = os.memfd_create("ferrox-journal", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        os.ftruncate(self.memory, PAGE)
        fcntl.fcntl(self.memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.map = mmap.mmap(self.memory, PAGE)
        self.words = memoryview(self.map).cast("q")
        self.words[APPENDED] = self.words[DURABLE] = self.words[MARKED] = place.base - 1
        self.words[READY] = place.base - 1 + place.records
        self.words[HASHED] = place.base
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.calls = 0
        fcntl.flock(marks.file, fcntl.LOCK_UN)  # the syncer's from here on
        # A description of its own: ours carries the lock of the journal, which must end with this process.
        shared = os.open(f"/proc/self/fd/{directory}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        package = str(Path(__file__).parents[2])
        arguments = [self.memory, self.wake, shared, *place, level]
        self.process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", "-c", PROGRAM, *map(str, arguments)],
            stdin=subprocess.PIPE,
            pass_fds=(self.memory, self.wake, shared),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))},
            start_new_session=True,
        )
        os.close(shared)
        try:
            self._wait(lambda: self.words[STATE] != STARTING, START_SECONDS)
        except BaseException:
            self.close()
            raise
        marks.close()

    @property
    def durable(self) -> int:
        """The sequence number up to which records are on disk."""
        return self.words[DURABLE]

    @property
    def marked(self) -> int:
        """The sequence number up to which the commit mark on disk says so."""
        return self.words[MARKED]

    def wrote(self, sequence: int) -> None:
        """Tell the syncer how far records are written; raise `JournalFailed` when it has failed or died."""
        words = self.words
        words[APPENDED] = sequence
        if words[SLEEPING]:
            os.eventfd_write(self.wake, 1)
        self.calls += 1
        if words[STATE] != RUNNING or self.calls & 0xFFF == 0:
            self.check()

    def check(self) -> None:
        """Raise `JournalFailed` unless the syncer is alive and well."""
        state = self.words[STATE]
        if state == FAILED:
            reason = os.strerror(self.words[ERROR])
            raise JournalFailed(f"the syncer failed: {reason}")
        if self.process.poll() is not None:
            raise JournalFailed(f"the syncer ended with status {self.process.returncode}")

    def extend(self, ahead: deque[SegmentFile]) -> bool:
        """Open the next file if it is prepared; raise OSError when it is not because the disk is full."""
        place = ahead[-1].place.following
        if self.words[READY] < place.base:
            self.check()
            if self.words[LOW]:
                raise OSError(self.words[LOW], os.strerror(self.words[LOW]))
            return False
        file = os.open(place.name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.directory)
        ahead.append(SegmentFile(place, BACKENDS[self.backend](file, place.full_size)))
        return True

    def turn(self, full: SegmentFile, chain: Chain) -> bytes:
        """Return the digest of the segment before a full one, which is ready since long, or wait for it."""
        self.wrote(chain.sequence)
        if full.place.base == self.first.base:
            return self.before
        self._wait(lambda: self.words[HASHED] >= full.place.base, None)
        index = (full.place.base - self.first.base) // full.place.records - 1
        start = DIGESTS * 8 + index % 4 * 32
        return self.map[start : start + 32]

    def sync(self, segment: SegmentFile, chain: Chain, *, mark: bool) -> None:  # noqa: ARG002
        """Wait until all records are on disk, and with `mark` until the commit mark is, too."""
        self.words[WANTED] = chain.sequence
        self.wrote(chain.sequence)
        self._wait(lambda: self.words[MARKED if mark else DURABLE] >= chain.sequence, None)

    def stop(self, current: Place) -> InlineKeeper:
        """Let the syncer finish and end; return a keeper that goes on in its place, in this segment."""
        self.words[STOP] = 1
        os.eventfd_write(self.wake, 1)
        self._wait(lambda: self.words[STATE] == STOPPED, None)
        self.process.wait()
        file = os.open(MARK_NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.directory)
        fcntl.flock(file, fcntl.LOCK_EX)
        mark, slot, _ = unpack_marks(os.pread(file, MARK_SIZE, 0), MARK_NAME)
        keeper = InlineKeeper(self.directory, self.backend, MarkFile(file, mark, slot), self.before)
        if current.base != self.first.base:
            keeper.resume(current.preceding)
        self.close()
        return keeper

    def close(self) -> None:
        """Let go of the syncer, which ends by itself when it has done what is left."""
        if self.process.stdin:
            self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(START_SECONDS)
        self.words.release()
        self.map.close()
        os.close(self.memory)
        os.close(self.wake)

    def _wait(self, condition: Callable[[], bool], seconds: float | None) -> None:
        """Return when a condition holds; raise `JournalFailed` when the syncer fails before, or it takes too long."""
        begin = time.monotonic()
        while not condition():
            if self.words[SLEEPING]:
                os.eventfd_write(self.wake, 1)
            if self.words[STATE] != STOPPED and time.monotonic() - begin > SPIN_SECONDS:
                self.check()
            if seconds is not None and time.monotonic() - begin > seconds:
                raise JournalFailed(f"the syncer has not started within {seconds:.0f} s")
            time.sleep(NAP_SECONDS)
        if self.words[STATE] == FAILED:
            self.check()


class Syncer:
    """The process's side."""

    def __init__(self, memory: int, wake: int, directory: int, place: Place, level: int) -> None:
        """Open what is there: the segment that is begun, and the commit mark, which is locked from here on."""
        self.map = mmap.mmap(memory, PAGE)
        self.words = memoryview(self.map).cast("q")
        self.wake, self.directory, self.first, self.level = wake, directory, place, level
        self.files: dict[int, int] = {0: self._open(place.name)}
        file = os.open(MARK_NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        fcntl.flock(file, fcntl.LOCK_EX)
        mark, slot, _ = unpack_marks(os.pread(file, MARK_SIZE, 0), MARK_NAME)
        self.marks = MarkFile(file, mark, slot)
        self.durable = self.words[DURABLE]
        self.ending = threading.Event()
        self.turned = threading.Event()
        self.poll = select.poll()
        self.poll.register(wake, select.POLLIN)
        self.poll.register(0, 0)  # the writer's end of this pipe: only its death is of interest

    def _open(self, name: str) -> int:
        """Return a descriptor of a segment's file."""
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.directory)

    def run(self) -> None:
        """Sync until the writer says stop, or dies; what a disk says against it is told in the page."""
        helper = threading.Thread(target=self._guarded, args=(self._look_ahead,), daemon=True)
        helper.start()
        self.words[STATE] = RUNNING
        self._guarded(self._sync_on)
        self.ending.set()
        self.turned.set()
        helper.join()
        if self.words[STATE] == RUNNING:
            if self.words[STOP]:
                self._clear()
            self.words[STATE] = STOPPED

    def _clear(self) -> None:
        """Remove what was prepared and is not needed any more."""
        for index in self.files:
            if index > self._index(self.durable + 1):
                remove(self.directory, self._place(index).name)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do something; the first error is final, and told."""
        try:
            work()
        except OSError as error:
            self.words[ERROR] = error.errno or errno.EIO
            self.words[STATE] = FAILED
            self.ending.set()
            self.turned.set()

    # ----------------------------------------------------------------------------------------------------- to sync

    def _sync_on(self) -> None:
        """Sync what is written, again and again."""
        words = self.words
        last_work = time.monotonic()
        while words[STATE] == RUNNING:
            leaving = words[STOP] or self._orphaned()
            appended = words[APPENDED]
            if appended > self.durable:
                pause = last_work + PACE_SECONDS - time.monotonic()
                if self.level == 0 and pause > 0 and not leaving and words[WANTED] <= self.durable:
                    # Nobody waits for this one, and every sync is a little in the writer's way.
                    time.sleep(min(pause, SPIN_SECONDS))
                    continue
                self._sync(appended)
                last_work = time.monotonic()
            elif words[MARKED] < self.durable and (
                leaving or words[WANTED] > words[MARKED] or time.monotonic() - last_work > SPIN_SECONDS
            ):
                self._sync_mark()
            elif leaving:
                return
            elif time.monotonic() - last_work < SPIN_SECONDS:
                time.sleep(NAP_SECONDS)
            else:
                self._sleep()

    def _sync(self, appended: int) -> None:
        """Make records up to a sequence number durable, then say so."""
        first, last = self._index(self.durable + 1), self._index(appended)
        for index in range(first, last + 1):
            if index not in self.files:
                self.files[index] = self._open(self._place(index).name)
            os.fdatasync(self.files[index])
        self.durable = appended
        self.words[DURABLE] = appended
        place = self._place(last)
        offset = HEADER_SIZE + (appended - place.base) * RECORD_SIZE
        self.marks.write(appended, int.from_bytes(os.pread(self.files[last], 4, offset), "little"))
        if self.level == STRICT:
            self._sync_mark()
        if last > first:
            self.turned.set()

    def _sync_mark(self) -> None:
        """Make durable what the commit mark says."""
        said = self.marks.mark.durable
        self.marks.sync()
        self.words[MARKED] = said

    def _sleep(self) -> None:
        """Wait for the writer to wake us; a wake-up that is lost costs one interval."""
        self.words[SLEEPING] = 1
        if self.words[APPENDED] == self.durable and not self.words[STOP]:
            self.poll.poll(SLEEP_MS)
        self.words[SLEEPING] = 0
        with suppress(BlockingIOError):
            os.eventfd_read(self.wake)

    def _orphaned(self) -> bool:
        """Say whether the writer is gone: its end of the pipe is closed."""
        return any(file == 0 for file, _ in self.poll.poll(0))

    def _index(self, sequence: int) -> int:
        """Return which segment of this life a record is in, from 0."""
        return (sequence - self.first.base) // self.first.records

    def _place(self, index: int) -> Place:
        """Return the place of a segment of this life."""
        return self.first._replace(base=self.first.base + index * self.first.records)

    # ---------------------------------------------------------------------------------------------- to look ahead

    def _look_ahead(self) -> None:
        """Prepare segments before they are needed, and hash those that are full and on disk."""
        prepared = hashed = 0
        while not self.ending.is_set():
            self.turned.clear()
            while prepared < self._index(self.words[APPENDED] + 1) + AHEAD and self._prepare(prepared + 1):
                prepared += 1
            while hashed < self._index(self.durable + 1) and not self.ending.is_set():
                self._hash(hashed)
                hashed += 1
            self.turned.wait(RETRY_SECONDS)

    def _prepare(self, index: int) -> bool:
        """Make the file of a segment, all zeros; say whether the disk had room for it."""
        place = self._place(index)
        try:
            self.files[index] = publish(self.directory, place.name, (), place.full_size)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.words[LOW] = error.errno
            return False
        self.words[LOW] = 0
        self.words[READY] = place.base - 1 + place.records
        return True

    def _hash(self, index: int) -> None:
        """Tell the SHA-256 of a full segment."""
        sha256 = hashlib.sha256()
        place, file = self._place(index), self.files[index]
        for offset in range(0, place.full_size, HASH_SIZE):
            sha256.update(os.pread(file, min(HASH_SIZE, place.full_size - offset), offset))
        start = DIGESTS * 8 + index % 4 * 32
        self.map[start : start + 32] = sha256.digest()
        self.words[HASHED] = place.base + place.records
        os.close(self.files.pop(index))


def main() -> None:
    """Be the syncer that a `SyncerKeeper` has started."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the writer gets these, and ends this process by ending itself
    memory, wake, directory, base, epoch, records, level = map(int, sys.argv[1:])
    Syncer(memory, wake, directory, Place(base, epoch, records), level).run()
