"""The history: what a client missed and the tape has no longer, told from the journal (ENTRY-8).

Reports are a function of the journal, so none that a client may ask for is ever gone.  The gateway has no time to
replay, so a process of its own does it, at the lowest priority, for all who wait at that moment, and gives the packets
of each through a pipe:

    account u32 | size u32 | packets

It begins at the newest snapshot whose ledger tells of fewer reports than the first one that is wanted.
"""

import fcntl
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from ferrox.errors import FerroxError
from ferrox.journal import BATCH, identify
from ferrox.journal.tail import patiently
from ferrox.lanes.desk import CONNECTION, NUMBER, OPERATOR, TRADER, Desk
from ferrox.lanes.routing import collect, route
from ferrox.messages import REPORT_SIZE
from ferrox.service.config import Config, read_config
from ferrox.service.ledger import ledgers
from ferrox.service.process import end_with
from ferrox.service.standing import stand

PROGRAM: Final = "from ferrox.service.history import main; main()"
HEAD: Final = struct.Struct("<II")
PIPE_SIZE: Final = 1 << 20
F_SETPIPE_SZ: Final = 1031
NICE: Final = 10
WAIT_SECONDS: Final = 0.001


def first_number(config: Config) -> int:
    """Return the number of the first report that the journal can tell: 1, unless its first segments are archived."""
    try:
        header = patiently(lambda: identify(config.journal))
    except (FerroxError, OSError):
        return sys.maxsize  # the journal's owner finds that out, and does what is to be done
    if header.base_sequence == 1:
        return 1
    known = [ledger.reports + 1 for ledger in ledgers(config.journal, header.uuid)]
    return min(known, default=sys.maxsize)


class History:
    """The gateway's end: a process that replays, and the pipe from it."""

    def __init__(self, config: Config, firsts: Mapping[int, int], last: int) -> None:
        """Begin to tell each of some accounts its reports, from its first number to one last number for all.

        Raise OSError when the system has no process or no descriptor left.
        """
        self.last = last
        asked = [f"{account}:{first}" for account, first in firsts.items()]
        self.process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", "-c", PROGRAM, str(config.path), str(os.getpid()), str(last), *asked],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.file = self.process.stdout.fileno()
        os.set_blocking(self.file, False)
        with suppress(OSError):  # a user has so much of pipes and no more; a small one is slower, and that is all
            fcntl.fcntl(self.file, F_SETPIPE_SZ, PIPE_SIZE)
        self.rest = b""
        self.ended = False
        """Whether all was read that there will be; `close` says whether it was whole."""

    def read(self) -> Iterator[tuple[int, bytes]]:
        """Read what has come: an account and whole packets for it, each time."""
        try:
            data = os.read(self.file, PIPE_SIZE)
        except BlockingIOError:
            return
        self.ended = not data
        data = self.rest + data
        place = 0
        while len(data) - place >= HEAD.size:
            account, size = HEAD.unpack_from(data, place)
            if len(data) - place < HEAD.size + size:
                break
            yield account, data[place + HEAD.size : place + HEAD.size + size]
            place += HEAD.size + size
        self.rest = data[place:]

    def close(self) -> bool:
        """Let go of the process, and say whether it had told everything."""
        if not self.ended:
            self.process.kill()
        with self.process:
            return self.process.wait() == 0 and self.ended and not self.rest


class Telling:
    """The other end: a desk that has nothing but the accounts that are told."""

    def __init__(self, orders: int, firsts: Mapping[int, int], last: int, out: int) -> None:
        """Begin a desk for accounts, where so many orders may rest, and write to a descriptor."""
        self.out, self.last = out, last
        self.desk = Desk(max(firsts), len(firsts) + 1, len(firsts) + 1, orders)
        self.rows = {0: self.desk.add_account(0, OPERATOR)}
        for account in firsts:
            if account:
                self.rows[account] = self.desk.add_account(account, TRADER)
        self.waiting = dict(firsts)
        """Those whose first number has not been reached."""

    def heard(self, before: int, reports: memoryview) -> None:
        """Pass on the reports behind a number, up to the last one that is wanted, to whom they are for."""
        count = min(len(reports) // REPORT_SIZE, self.last - before)
        if count <= 0:
            return
        desk, data = self.desk, bytes(reports[: count * REPORT_SIZE])
        desk.set(NUMBER, before)
        route(desk, data)
        for account, first in list(self.waiting.items()):
            if first <= before + count:
                row, skipped = self.rows[account], max(0, first - before - 1)
                collect(desk, row, before + skipped + 1, data[skipped * REPORT_SIZE :], desk.writers[row])
                desk.put(row, CONNECTION, row)
                del self.waiting[account]
        desk.take_touched()
        for account, row in self.rows.items():
            packets = desk.written(row)
            if packets:
                self._write(HEAD.pack(account, len(packets)) + packets)

    def _write(self, data: bytes) -> None:
        """Write all of it."""
        while data:
            data = data[os.write(self.out, data) :]


def tell(config: Config, firsts: Mapping[int, int], last: int, out: int) -> None:
    """Write what each account missed, up to the report with the last number, to a descriptor."""
    directory, wanted = config.journal, min(firsts.values())
    header = patiently(lambda: identify(directory))
    telling = Telling(header.capacity.orders, firsts, last, out)
    until = max((ledger.sequence for ledger in ledgers(directory, header.uuid) if ledger.reports < wanted), default=0)
    shadow, ledger = stand(directory, config.venue.engine, until, heard=telling.heard)
    while ledger.reports < last:
        if not shadow.step(BATCH):
            time.sleep(WAIT_SECONDS)


def main() -> None:
    """Be the process that the command line names: configuration, parent, last number, ACCOUNT:FIRST of each."""
    path, parent, last, *asked = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(int(parent), signal.SIGKILL)
    os.nice(NICE)
    firsts = {int(account): int(first) for account, first in (one.split(":") for one in asked)}
    try:
        tell(read_config(Path(path)), firsts, int(last), sys.stdout.fileno())
    except BrokenPipeError:
        sys.exit(1)
    except (FerroxError, OSError) as error:
        sys.exit(f"history: {error}")
