"""Fault tests 23 to 31: what the system may say, and what a journal makes of it.  The first failure is final."""

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ferrox.errors import CorruptInput, DiskLow, FerroxError, JournalFailed, UsageError
from ferrox.journal import Durability, Journal, Source, read, scan
from ferrox.journal.layout import HEADER_SIZE, MARK_NAME
from ferrox.messages import RECORD_SIZE

sys.path.insert(0, str(Path(__file__).parent))

from kit import create, fresh_directory, orders, overwrite, records_of, segments  # type: ignore[import-not-found]
from test_crashes import session, strace  # type: ignore[import-not-found]

pytestmark = pytest.mark.faults


class Fault:
    """One call of the system that fails, or some; it counts the calls on the way."""

    def __init__(self, patch: pytest.MonkeyPatch, call: str, code: int, at: int, *, once: bool = False) -> None:
        self.count, self.fired = 0, 0
        really = getattr(os, call)

        def step(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == at or (self.count > at and not once):
                self.fired += 1
                raise OSError(code, os.strerror(code))
            return really(*arguments, **options)

        patch.setattr(os, call, step)


def run(path: Path, durability: Durability, backend: str) -> tuple[int, bytes, FerroxError | None]:
    """Make a journal of two lives; return what was acknowledged, what was written, and what it failed with."""
    acknowledged, written = 0, b""
    try:
        with create(path, segment_records=8, durability=durability, backend=backend) as journal:
            for first in range(1, 30, 3):
                written += journal.append(orders(3, first))
                acknowledged = journal.released if durability else acknowledged
            journal.sync()
            acknowledged = journal.sequence
        with Journal.open(path, source=Source.seeded(8), durability=durability, backend=backend) as journal:
            journal.append(orders(2, 100))
    except FerroxError as error:
        return acknowledged, written, error
    return acknowledged, written, None


@pytest.mark.parametrize("backend", ["mmap", "pwrite"])
@pytest.mark.parametrize("call", ["fsync", "fdatasync", "pwrite", "rename", "posix_fallocate", "ftruncate"])
def test_an_error_at_every_call_is_final_and_told(call, backend, tmp_path, tally):
    """Fault test 23: EIO at the N-th call, for all N; nothing is acknowledged that is not on disk."""
    at = 0
    while True:
        at += 1
        shutil.rmtree(tmp_path / "j", ignore_errors=True)
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, call, errno.EIO, at)
            acknowledged, written, error = run(tmp_path / "j", Durability.D1, backend)
        if not fault.fired:
            break
        tally.trial()
        silent = call == "ftruncate" and error is None  # giving room back may fail: it is only zeros
        assert silent or isinstance(error, JournalFailed), (at, error)
        assert silent or "Input/output error" in str(error)
        if (tmp_path / "j").exists() and segments(tmp_path / "j"):
            given, damage = records_of(tmp_path / "j")
            tally.expect("false_alarms", damage is None, (at, damage))
            tally.expect("lost", len(given) >= acknowledged * RECORD_SIZE, (at, acknowledged))
            tally.expect("wrong", given[: len(written)] == written[: len(given)])
    assert tally["trials"] or (call, backend) in {("pwrite", "mmap"), ("ftruncate", "mmap")}


@pytest.mark.parametrize("durability", [Durability.D1, Durability.D2])
def test_a_sync_that_fails_once_is_never_tried_again(durability, tmp_path, tally):
    """Fault test 24: a second sync would succeed, and would mean nothing."""
    for at in range(1, 9):
        shutil.rmtree(tmp_path / "j", ignore_errors=True)
        with create(tmp_path / "j", durability=durability) as journal, pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, "fdatasync", errno.EIO, at, once=True)
            released = 0
            with pytest.raises(JournalFailed):  # noqa: PT012
                for first in range(1, 100):
                    journal.append(orders(1, first))
                    released = journal.released
            calls = fault.count
            for attempt in (lambda: journal.append(orders(1)), journal.sync, journal.mark):
                with pytest.raises(JournalFailed, match="Mend the disk, then open the journal again"):
                    attempt()
            assert fault.count == calls
            tally.trial()
            tally.expect("lost", journal.durable >= released)
            assert journal.close() == b""
            assert fault.count == calls


def test_an_error_in_the_syncer_is_final_too(tmp_path, tally):
    """Fault test 23: by strace, in the other process; reports that wait for it never leave."""
    script = (
        "import sys, os; sys.path.insert(0, sys.argv[1])\n"
        "from kit import create, orders\n"
        "from pathlib import Path\n"
        "from ferrox.journal import Durability\n"
        "from ferrox.errors import JournalFailed\n"
        "journal = create(Path(sys.argv[2]), durability=Durability.D1, syncer=True)\n"
        "released = 0\n"
        "try:\n"
        "    for first in range(1, 100_000):\n"
        "        journal.append(orders(3, first)); released = journal.released\n"
        "        if first % 50 == 0: journal.wait()\n"
        "except JournalFailed as error:\n"
        "    print(released, journal.durable, error)\n"
    )
    for at in (1, 2, 5):
        path = tmp_path / f"j{at}"
        command = strace("fdatasync", f"error=EIO:when={at}", path)
        command = [*command[: command.index(sys.executable)], "-f", sys.executable, "-c", script, *command[-2:]]
        done = subprocess.run(command, capture_output=True, check=False, env=environment(), timeout=120)
        released, durable, *words = done.stdout.decode().split()
        tally.trial()
        assert "Input/output error" in " ".join(words), done.stderr
        tally.expect("lost", scan(path).last >= int(released))
        assert int(released) <= int(durable)


def environment() -> dict[str, str]:
    """Return an environment in which this very Ferrox is found."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.mark.parametrize(("call", "code"), [("fdatasync", "EIO"), ("fsync", "EIO"), ("fallocate", "ENOSPC")])
def test_an_error_of_the_kernel_itself_is_final_and_told(call, code, tmp_path, tally):
    """Fault tests 23 and 25: by strace, at every call."""
    number = 0
    while True:
        number += 1
        path = tmp_path / "j"
        shutil.rmtree(path, ignore_errors=True)
        done = subprocess.run(
            strace(call, f"error={code}:when={number}+", path), capture_output=True, check=False, env=environment()
        )
        if done.returncode == 0:
            break
        tally.trial()
        last = done.stderr.decode().splitlines()[-1]  # a snapshot's failure is the system's own error, as documented
        assert last.startswith(("ferrox.errors.JournalFailed", "ferrox.errors.DiskLow", "OSError")), last
        assert os.strerror(getattr(errno, code)) in last
        if path.exists() and segments(path):
            tally.expect("false_alarms", scan(path).verdict in ("clean", "torn"))
    assert tally["trials"] > 0


def test_a_real_file_system_that_is_full_takes_cancels_and_then_orders_again(tmp_path, tally):
    """Fault test 25: a file system of one megabyte, in a name space of its own."""
    own = ["unshare", "--mount", "--map-root-user"]
    refused = subprocess.run([*own, "true"], capture_output=True, check=False)
    if refused.returncode:
        pytest.skip(f"this machine gives nobody a name space: {refused.stderr.decode().strip()}")
    place = tmp_path / "small"
    place.mkdir()
    script = (
        "import sys, os; sys.path.insert(0, sys.argv[1])\n"
        "from kit import create, orders\n"
        "from pathlib import Path\n"
        "from ferrox.journal import command_records, scan\n"
        "from ferrox.errors import DiskLow\n"
        "from ferrox.messages import NewOrder, CancelOrder\n"
        "place = Path(sys.argv[2])\n"
        "(place / 'ballast').write_bytes(bytes(200_000))\n"
        "journal = create(place / 'j', segment_records=1000)\n"
        "new = command_records([NewOrder(1, 1, 0, 1, 1, 100, 5).pack()] * 10)\n"
        "try:\n"
        "    while True: journal.append(new)\n"
        "except DiskLow as error: print(error)\n"
        "try:\n"
        "    while True: journal.append(new[:64])\n"
        "except DiskLow: pass\n"
        "assert not journal.look_for_room(), 'room for no order more is no room'\n"
        "full = journal.sequence\n"
        "for n in range(200): journal.append(orders(1))\n"
        "assert journal.disk_low\n"
        "(place / 'ballast').unlink()\n"
        "journal.append(new)\n"
        "assert not journal.disk_low\n"
        "journal.close()\n"
        "assert scan(place / 'j').verdict == 'clean'\n"
        "assert scan(place / 'j').last == full + 211, (scan(place / 'j').last, full)\n"
        "print('done', full)\n"
    )
    mount = f'mount -t tmpfs -o size=1m tmpfs {place} && exec {sys.executable} -c "$0" {Path(__file__).parent} {place}'
    done = subprocess.run(
        [*own, "sh", "-c", mount, script],
        capture_output=True,
        check=False,
        env=environment(),
    )
    tally.trial()
    assert done.returncode == 0, done.stderr
    assert b"No space left on device" in done.stdout
    assert b"done" in done.stdout


@pytest.mark.parametrize(
    "size", [0, 100, HEADER_SIZE - 1, HEADER_SIZE, HEADER_SIZE + 100, HEADER_SIZE + 5 * RECORD_SIZE]
)
def test_a_cut_or_sparse_segment_is_judged_and_never_kills_the_reader(size, tmp_path, tally):
    """Fault test 26: readers do not map, so there is no SIGBUS."""
    with create(tmp_path / "j") as journal:
        journal.append(orders(10))
    path = segments(tmp_path / "j")[0]
    full = path.stat().st_size
    for sparse in (False, True):
        os.truncate(path, size)
        if sparse:
            os.truncate(path, full)
        tally.trial()
        tally.expect("undetected", scan(tmp_path / "j").verdict == "corrupt")
        with pytest.raises(CorruptInput):
            Journal.open(tmp_path / "j")


@pytest.mark.parametrize("most", range(1, 64))
def test_short_writes_and_interrupts_are_gone_on_with(most, tmp_path, monkeypatch, tally):
    """Fault test 27: the system takes fewer bytes than it was given, always."""
    really = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: really(file, bytes(data)[:most], offset))
    with create(tmp_path / "j", segment_records=4, backend="pwrite", durability=Durability.D1) as journal:
        written = journal.append(orders(6))
    tally.trial()
    tally.expect("wrong", b"".join(read(tmp_path / "j")).startswith(written))


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENOSPC])
def test_an_error_at_every_opening_of_a_file_is_one_line(code, tmp_path, tally):
    """Fault test 28: for all N, on the way into a journal and out of it."""
    at = 0
    while True:
        at += 1
        shutil.rmtree(tmp_path / "j", ignore_errors=True)
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, "open", code, at, once=True)
            _, _, error = run(tmp_path / "j", Durability.D0, "mmap")
        if not fault.fired:
            break
        tally.trial()
        if error is not None:  # giving room back is silent
            assert isinstance(error, (JournalFailed, UsageError, CorruptInput, DiskLow)), (at, error)
            assert "\n" not in str(error)
            assert os.strerror(code) in str(error) or "may not be read" in str(error), (at, error)
    assert tally["trials"] > 5


def test_what_stands_in_the_place_of_a_journal_is_one_line(tmp_path, tally):
    """Fault test 28: missing, a file, a pipe, a link to nowhere; and the same for its files."""
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("missing", "file", "pipe", "link"):
        for attempt in (scan, Journal.open, lambda path: list(read(path))):
            tally.trial()
            with pytest.raises(UsageError) as error:
                attempt(tmp_path / name)
            assert str(error.value).startswith(str(tmp_path / name))
    for kind in ("missing", "directory", "pipe", "link"):
        for which in (MARK_NAME, "00000000000000000001-00000001.wal"):
            with create(fresh_directory(tmp_path / "place") / "j") as journal:
                journal.append(orders(3))
            path = tmp_path / "place" / "j" / which
            path.rename(tmp_path / "place" / "away")
            if kind == "directory":
                path.mkdir()
            elif kind == "pipe":
                os.mkfifo(path)
            elif kind == "link":
                path.symlink_to(tmp_path / "place" / "away")
            tally.trial()
            found = scan(tmp_path / "place" / "j")
            tally.expect("undetected", found.verdict == "corrupt")
            assert which in str(found.corruption) or MARK_NAME in str(found.corruption)


def test_a_disk_that_lies_is_found_out_at_the_next_start(tmp_path, tally):
    """Fault test 29: syncs were acknowledged and the data is gone; the mark remembers."""
    with create(tmp_path / "j", segment_records=8) as journal:
        journal.append(orders(20))
        journal.sync()
        shutil.copytree(tmp_path / "j", tmp_path / "lied")
    for path in segments(tmp_path / "lied"):
        data = path.read_bytes()
        for kept in range(8 if data[:8].strip(b"\0") else 0):
            overwrite(path, data[: HEADER_SIZE + kept * RECORD_SIZE].ljust(len(data), b"\0"))
            if path.read_bytes() != data:
                tally.trial()
                tally.expect("undetected", scan(tmp_path / "lied").verdict == "corrupt", (path, kept))
        overwrite(path, data)


def test_a_clock_that_jumps_never_takes_time_back(tmp_path, tally):
    """Fault test 30: a second back, a day on, and back again."""
    now = [10**18]
    with create(tmp_path / "j", 3) as journal:
        journal._source = Source.seeded(1, lambda: now[0])
        for jump in (0, -(10**9), 86_400 * 10**9, -(10**12), 5):
            now[0] += jump
            journal.append(orders(2).replace((1).to_bytes(8, "little"), bytes(8), 0))
            tally.trial()
    times = [int.from_bytes(record[16:24], "little") for record in split(b"".join(read(tmp_path / "j")))]
    tally.expect("wrong", times == sorted(times), times)
    assert scan(tmp_path / "j").verdict == "clean"


def split(records: bytes) -> list[bytes]:
    """Return records one by one."""
    return [records[at : at + RECORD_SIZE] for at in range(0, len(records), RECORD_SIZE)]


def test_a_second_writer_is_told_at_once(tmp_path, tally):
    """Fault test 31."""
    with create(tmp_path / "j", syncer=True):
        for _ in range(20):
            tally.trial()
            before = time.monotonic()
            with pytest.raises(UsageError, match="another process has this journal open"):
                Journal.open(tmp_path / "j")
            del before


def test_the_session_of_the_crash_tests_is_sound_when_nothing_fails(tmp_path, tally):
    """What is interrupted everywhere else comes to its end here."""
    said: list[int] = []
    session(tmp_path / "j")(said.append)
    tally.trial()
    assert said[-1] == 33
    assert scan(tmp_path / "j").verdict == "clean"
