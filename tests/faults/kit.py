"""What the fault tests share: small journals, crash states of a recorded run, processes that die at a chosen step."""

import ctypes
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ferrox.engine import Capacity
from ferrox.errors import CorruptInput
from ferrox.journal import Journal, Source, command_records, read
from ferrox.journal.keeper import Finishing, InlineKeeper
from ferrox.journal.storage import MappedFile
from ferrox.messages import CancelOrder
from ferrox.service.process import PR_SET_PDEATHSIG

CAPACITY = Capacity(10, 10)
SECTOR = 512
PAGE = 4096
LONG = os.environ.get("FERROX_FAULTS") == "soak"
"""Whether the counts of the long run are to be reached."""


def share(usual: int, long: int) -> int:
    """Return how many trials this run makes."""
    return long if LONG else usual


def orders(count: int, first: int = 1) -> bytes:
    """Return records that no two of are alike."""
    return command_records([CancelOrder(1, first + n).pack() for n in range(count)], time_ns=first)


def create(path: Path, segment_records: int = 1000, seed: int = 7, **more: Any) -> Journal:
    """Begin a journal whose bytes depend on nothing but the seed."""
    return Journal.create(path, CAPACITY, segment_records=segment_records, source=Source.seeded(seed), **more)


def segments(path: Path) -> list[Path]:
    """Return the segments in order."""
    return sorted(path.glob("*.wal"))


def records_of(path: Path) -> tuple[bytes, CorruptInput | None]:
    """Return every record that a reader gets before the end or the damage, and the error if there is one."""
    given = b""
    try:
        for batch in read(path):
            given += batch
    except CorruptInput as error:
        return given, error
    return given, None


def overwrite(path: Path, data: bytes) -> None:
    """Write a file in place: emptied first, as `write_bytes` does, it would be flushed to disk thousands of times."""
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def fresh_directory(path: Path) -> Path:
    """Return an empty directory."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


# ------------------------------------------------------------------------------------------- the loss of power


class Step(NamedTuple):
    """Something that a run did to its files, or what it acknowledged."""

    what: str
    """ "create", "write", "size", "sync", "rename", "unlink", "syncdir" or "ack"."""
    file: int = 0
    name: str = ""
    other: str = ""
    offset: int = 0
    data: bytes = b""
    number: int = 0


class LazyKeeper(InlineKeeper):
    """A keeper that syncs a full segment only when the next one is full: as a syncer whose syncs come late."""

    late: Any = None
    """The full segment that is not on disk, and its end."""

    def turn(self, full: Any, chain: Any) -> bytes:
        """See that everything before the full segment is durable, and no more."""
        self._finish()
        before = self._before
        self.late = full.place, chain.sequence, chain.checksum
        return before

    def _finish(self) -> None:
        """Sync the full segment that was left."""
        if self.late:
            self._finishing = Finishing(self.directory, *self.late)
            self.late = None
        super()._finish()


class Recorder:
    """Takes down every step that a run in this process makes in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.steps = directory, list[Step]()
        self.inodes: dict[int, int] = {}

    def inode(self, file: int) -> int:
        """Return the number of a file that stays the same when it is renamed."""
        return os.fstat(file).st_ino

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record until the end of the block."""
        really = {name: getattr(os, name) for name in ("open", "pwrite", "fsync", "fdatasync", "rename", "unlink")}
        really |= {name: getattr(os, name) for name in ("ftruncate", "posix_fallocate")}
        store_really = MappedFile.write
        steps, place = self.steps, self.directory.stat().st_ino

        def opened(path: Any, flags: int, *more: Any, **options: Any) -> int:
            file: int = really["open"](path, flags, *more, **options)
            if flags & os.O_CREAT:
                steps.append(Step("create", self.inode(file), name=str(path)))
            return file

        def pwrite(file: int, data: Any, offset: int) -> int:
            steps.append(Step("write", self.inode(file), offset=offset, data=bytes(data)))
            written: int = really["pwrite"](file, data, offset)
            return written

        def synced(call: str) -> Callable[[int], None]:
            def sync(file: int) -> None:
                really[call](file)
                steps.append(Step("syncdir") if self.inode(file) == place else Step("sync", self.inode(file)))

            return sync

        def rename(source: str, target: str, **more: Any) -> None:
            steps.append(Step("rename", name=source, other=target))
            really["rename"](source, target, **more)

        def unlink(name: str, **more: Any) -> None:
            really["unlink"](name, **more)
            steps.append(Step("unlink", name=name))

        def ftruncate(file: int, size: int) -> None:
            steps.append(Step("size", self.inode(file), number=size))
            really["ftruncate"](file, size)

        def allocate(file: int, offset: int, size: int) -> None:
            steps.append(Step("size", self.inode(file), number=offset + size))
            really["posix_fallocate"](file, offset, size)

        def store(mapped: MappedFile, data: bytes, offset: int) -> None:
            steps.append(Step("write", self.inode(mapped.file), offset=offset, data=data))
            store_really(mapped, data, offset)

        patches: dict[str, Any] = {
            "open": opened,
            "pwrite": pwrite,
            "fsync": synced("fsync"),
            "fdatasync": synced("fdatasync"),
            "rename": rename,
            "unlink": unlink,
            "ftruncate": ftruncate,
            "posix_fallocate": allocate,
        }
        try:
            for name, patch in patches.items():
                setattr(os, name, patch)
            setattr(MappedFile, "write", store)  # noqa: B010
            yield
        finally:
            for name, original in really.items():
                setattr(os, name, original)
            setattr(MappedFile, "write", store_really)  # noqa: B010

    def acknowledge(self, number: int) -> None:
        """Take down that records up to a sequence number were acknowledged."""
        self.steps.append(Step("ack", number=number))


def unit_of(dice: random.Random) -> int:
    """Return what a disk writes whole or not at all, in this crash: a sector, a page, or hardly anything."""
    return dice.choice((SECTOR, SECTOR, PAGE, 8))


def crash(
    steps: list[Step], dice: random.Random, target: Path, *, upto: int | None = None, ordered: bool = True
) -> int:
    """Leave in a directory what a loss of power might leave of a run; return what had been acknowledged before.

    The power fails behind step `upto`, or anywhere.  Of each file every unit is in any of its versions since the last
    sync; of the directory's changes since its last sync any number of the first ones has happened, or, where they are
    not `ordered`, any of them that do not depend on one that has not.
    """
    upto = dice.randrange(len(steps) + 1) if upto is None else upto
    unit = unit_of(dice)
    durable: dict[int, bytearray] = {}
    pending: dict[int, list[Step]] = {}
    names: dict[str, int] = {}
    changes: list[Step] = []
    acknowledged = 0
    for step in steps[:upto]:
        if step.what == "create":
            durable[step.file], pending[step.file] = bytearray(), []
            changes.append(step)
        elif step.what in ("write", "size"):
            pending.setdefault(step.file, []).append(step)
        elif step.what == "sync":
            durable[step.file] = whole(durable.get(step.file, bytearray()), pending.pop(step.file, []))
            pending[step.file] = []
        elif step.what in ("rename", "unlink"):
            changes.append(step)
        elif step.what == "syncdir":
            for change in changes:
                happen(names, change)
            changes.clear()
        else:
            acknowledged = step.number
    happened = changes[: dice.randrange(len(changes) + 1)] if ordered else [c for c in changes if dice.random() < 0.7]
    for change in happened:
        happen(names, change)
    fresh_directory(target)
    for name, inode in names.items():
        data = survivor(durable.get(inode, bytearray()), pending.get(inode, []), unit, dice)
        (target / name).write_bytes(data)
    return acknowledged


def happen(names: dict[str, int], change: Step) -> None:
    """Let a change of the directory come true; one whose file is not there yet comes to nothing."""
    if change.what == "create":
        names[change.name] = change.file
    elif change.what == "unlink":
        names.pop(change.name, None)
    elif change.name in names:
        names[change.other] = names.pop(change.name)


def whole(data: bytearray, steps: list[Step]) -> bytearray:
    """Return a file after all of these steps."""
    for step in steps:
        if step.what == "size":
            data = data[: step.number].ljust(step.number, b"\0") if step.number < len(data) else data
            data.extend(bytes(step.number - len(data)))
        else:
            end = step.offset + len(step.data)
            data.extend(bytes(max(0, end - len(data))))
            data[step.offset : end] = step.data
    return data


def survivor(data: bytearray, steps: list[Step], unit: int, dice: random.Random) -> bytes:
    """Return a file of which any unit that was written since its sync is old, new, or in between."""
    sizes = [len(data)]
    versions: dict[int, list[bytes]] = {}
    now = bytearray(data)
    for step in steps:
        now = whole(now, [step])
        if step.what == "size":
            sizes.append(len(now))
            continue
        for number in range(step.offset // unit, -(-(step.offset + len(step.data)) // unit)):
            versions.setdefault(number, []).append(bytes(now[number * unit : (number + 1) * unit]))
    size = dice.choice(sizes)
    result = bytearray(data[:size]).ljust(size, b"\0")
    for number, contents in versions.items():
        if (choice := dice.randrange(len(contents) + 1)) and number * unit < size:
            content = contents[choice - 1][: size - number * unit]
            result[number * unit : number * unit + len(content)] = content
    return bytes(result)


# ------------------------------------------------------------------------------------------ the death of a process

CALLS = ("open", "pwrite", "fsync", "fdatasync", "rename", "unlink", "ftruncate", "posix_fallocate", "close", "pread")


def run_killed(work: Callable[[Callable[[int], None]], None], at: int | None) -> tuple[int, int, int]:
    """Run something in a process that is killed (SIGKILL) before its step `at`, or never.

    Return what it had acknowledged, how many steps it made, and its status as `os.waitpid` tells it.
    """
    back, out = os.pipe()
    process = os.fork()
    if process:
        os.close(out)
        said = b""
        while data := os.read(back, 65536):
            said += data
        os.close(back)
        status = os.waitpid(process, 0)[1]
        lines = [line.split() for line in said.split(b"\n")[:-1]]
        acknowledged = max([0, *(int(number) for word, number in lines if word == b"ack")])
        steps = max([0, *(int(number) for word, number in lines if word == b"steps")])
        return acknowledged, steps, status
    try:
        os.close(back)
        count = 0
        really = {name: getattr(os, name) for name in CALLS}

        def before(call: Any) -> Any:
            def step(*arguments: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **options)

            return step

        for name, call in really.items():
            setattr(os, name, before(call))
        store = MappedFile.write

        def stored(mapped: MappedFile, data: bytes, offset: int) -> None:
            nonlocal count
            count += 1
            if count == at:
                store(mapped, data[: len(data) // 3], offset)  # in the middle of a copy
                os.kill(os.getpid(), signal.SIGKILL)
            store(mapped, data, offset)

        setattr(MappedFile, "write", stored)  # noqa: B010
        work(lambda number: (os.write(out, b"ack %d\n" % number), None)[1])
        os.write(out, b"steps %d\n" % count)
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - a child that must not go on as a test
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)


def forked(work: Callable[[], int | None], log: Path | None = None) -> int:
    """Do something in a process of its own, which ends with the status that `work` returns; return its number.

    What it writes to standard error goes to `log`.
    """
    process = os.fork()
    if process:
        return process
    status: int | None = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a test that is ended leaves nothing behind
        if log is not None:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
        status = work()
    except BaseException as error:  # noqa: BLE001 - a child that must not go on as a test
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        status = 1
    finally:
        os._exit(status or 0)
