"""A shadow: an engine beside the one that trades, which learns all it knows from the journal.

It reads the journal while it is written, so nothing waits for it.  It holds its own books, which makes it good for two
things.  It writes snapshots, which would stop a live engine for as long as they take.  And it is a replay that never
ends: where the journal states what the live engine said, it compares (JRN-21), so that an engine that is not
deterministic is found while it runs.

A snapshot must not know more than the disk (SNAP-10), and the shadow may be ahead of the writer's syncs.  So it syncs
the segments itself before it writes one.  Older snapshots go when the new one was read back, byte for byte, from the
disk.  It keeps nothing else: killed at any moment, it begins again from the newest sound snapshot.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from ferrox.engine import Capacity, Engine, make_engine
from ferrox.errors import CorruptInput, SnapshotCorrupt, UsageError
from ferrox.files import TEMPORARY, names_in, open_directory, remove
from ferrox.journal import BATCH, Tail, Tally, identify
from ferrox.journal.tail import patiently
from ferrox.journal.tally import parts
from ferrox.messages import RECORD_SIZE, REPORT_SIZE
from ferrox.snapshot import SNAPSHOT_NAME, latest_snapshot, read_snapshot, write_snapshot

KEEP: Final = 2
"""Snapshots that are kept, by default: one may be damaged."""
EVERY: Final = 4_194_304
"""Records from one snapshot to the next, by default."""
LOCK_NAME: Final = "shadow.lock"
"""The file that a shadow holds, so that there is one of them to a journal."""


class Shadow:
    """An engine that follows a journal, and its snapshots.  `step` it, `save` now and then, and close it."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        engine: str = "fast",
        *,
        keep: int = KEEP,
        make: Callable[[str, Capacity], Engine] = make_engine,
        until: int | None = None,
        alone: bool = True,
        told: Callable[[bytes, memoryview], object] | None = None,
    ) -> None:
        """Begin from the newest sound snapshot, or from the first record, with an engine that `make` gives by its name.

        With `until` the snapshot has at most that sequence number, and with 0 there is none.  One that is not `alone`
        does not ask to be the only one, and must not `save`; `told` is called with the
        records of each batch that was applied and the reports to them, which are valid during the call.

        Raise `UsageError` when there is no journal or it has a shadow already, `CorruptInput` when it is damaged.
        """
        if keep < 1:
            raise UsageError(f"a shadow keeps at least 1 snapshot, found {keep}")
        self.directory: Final = os.fspath(directory)
        self.keep: Final = keep
        header = patiently(lambda: identify(directory))
        self._lock = _lock(self.directory) if alone else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.engine: Final = make(engine, header.capacity)
            latest = latest_snapshot(directory, header.uuid, until)
            if latest.path:
                self.engine.restore(latest.state)
            self.first: Final = latest.sequence + 1
            """The sequence number of the first record that was read."""
            self.warnings: Final = tuple(latest.warnings)
            """What was damaged and could be passed over: newer snapshots."""
            self.tail: Final = Tail(directory, self.first)
        except BaseException:
            os.close(self._lock)
            raise
        self.tally: Final = Tally(self.first)
        self.sequence = latest.sequence
        """The sequence number of the last record that was applied."""
        self.saved = latest.sequence
        """The sequence number of the newest snapshot, 0 for none."""
        self.reports = 0
        """How many the engine gave."""
        self._told = told

    def step(self, batch: int = BATCH) -> int:
        """Apply the next records, at most `batch`, and return how many there were; 0 when there are none by now.

        Raise `NotDeterministic` when the engine says something else than the journal states, and what `Tail.poll` does.
        """
        records = self.tail.poll(batch)
        for part in parts(records):
            left = part
            while left:
                taken, reports = self.engine.apply(left)
                self.tally.note(reports)
                self.reports += len(reports) // REPORT_SIZE
                if self._told:
                    self._told(left[: taken * RECORD_SIZE], reports)
                left = left[taken * RECORD_SIZE :]
            self.tally.compare(part)
        self.sequence += len(records) // RECORD_SIZE
        return len(records) // RECORD_SIZE

    def save(self) -> Path:
        """Write a snapshot of what the engine knows, durable and read back; then remove those that are too old.

        Raise `SnapshotCorrupt` when what was read back is not what was written, `JournalFailed` or OSError when the
        disk fails; the older snapshots stay then.
        """
        self.tail.sync()
        state = self.engine.snapshot()
        path = write_snapshot(self.directory, state, self.tail.uuid)
        _let_go(path)
        if read_snapshot(path, self.tail.uuid) != state:
            raise SnapshotCorrupt(f"{path}: expected the state that was written, found another: do not use this disk")
        self.saved = self.sequence
        self._remove_old()
        return path

    def _remove_old(self) -> None:
        """Remove the snapshots of this journal that are older than those to keep, of which each is sound.

        And what a shadow that was killed had begun: the writer's own are never older than what is saved here.
        """
        descriptor = open_directory(self.directory)
        try:
            kept = 0
            for name in filter(SNAPSHOT_NAME.fullmatch, reversed(names_in(descriptor))):
                sound = _is_sound(Path(self.directory) / name, self.tail.uuid)
                if sound and kept >= self.keep:
                    remove(descriptor, name)
                kept += sound
            for name in names_in(descriptor):
                match = SNAPSHOT_NAME.fullmatch(name.removesuffix(TEMPORARY))
                if match and name.endswith(TEMPORARY) and int(match[1]) < self.saved:
                    remove(descriptor, name)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the journal."""
        self.tail.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lock(directory: str) -> int:
    """Return a descriptor that holds the shadow's place beside a journal; raise `UsageError` when it is taken."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(Path(directory) / LOCK_NAME, flags, 0o600)
    except OSError as error:
        raise UsageError(f"{directory}/{LOCK_NAME}: the file cannot be made: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise UsageError(f"{directory}: this journal has a shadow already; stop it there first") from None
    return file


def _let_go(path: Path) -> None:
    """See to it that what is read next from a file comes from the disk, and not from the page cache."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def _is_sound(path: Path, uuid: bytes) -> bool:
    """Say whether a file is a sound snapshot of this journal; what is not is nobody's to remove but people's."""
    try:
        read_snapshot(path, uuid)
    except (CorruptInput, UsageError):
        return False
    return True
