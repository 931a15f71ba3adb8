"""The publisher: every report on the tape, in order, to lines A and B (FEED-2 .. FEED-6).

It holds on to what it reads until both lines have taken it, and its place stands in the tape's own memory: who comes
after a publisher that died goes on there, and at worst sends the last batch again, which receivers know (FEED-14).

The trick that makes it quick is the kernel's: 44 packets leave with one `send` (UDP_SEGMENT), which is 2.5 times what
one `send` a packet gives.  Where the kernel or the device does not have it, each packet leaves alone.
"""

import errno
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from ferrox.lanes.packets import REPORT_SIZE, REPORTS_MAX, pack_packets
from ferrox.lanes.tape import ATTACHED, TapeLost, TapeReader
from ferrox.mold import END, HEARTBEAT, MOLD, PACKET_MAX, Line, encode_session

UDP_SEGMENT: Final = 103  # <linux/udp.h>; Python has no name for it
PACKETS_AT_ONCE: Final = 44  # 64,680 bytes: what fits a datagram before it is cut
BATCH: Final = PACKETS_AT_ONCE * REPORTS_MAX
IDLE_NS: Final = 1_000_000_000
SEND_BUFFER: Final = 4 << 20
WAKE_SECONDS: Final = 0.001  # RING-5

AGAIN: Final = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EINTR)
"""The kernel has no room now."""
NO_SEGMENTS: Final = (errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP, errno.ENOPROTOOPT)
"""What a device says that does not cut, or whose packets are smaller than ours."""

COUNTERS: Final = ("reports", "packets", "sends", "heartbeats", "ends", "blocked", "failed")

REPEATED: Final = 4_096
"""Reports that a venue sends once more when it starts again: the last ones before its end may not have left."""


class Publisher:
    """Sends what is on a tape; `step` in a loop, or `run`."""

    def __init__(
        self,
        reader: TapeReader,
        session: str,
        lines: Sequence[Line],
        *,
        interface: str = "127.0.0.1",
        ttl: int = 0,
        send_buffer: int = SEND_BUFFER,
        segment: bool = True,
        wake: int | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        tell: Callable[[str], None] | None = None,
        stats: dict[str, int] | None = None,
    ) -> None:
        """Attach to the tape where the last publisher was, or where the tape begins, and open the lines.

        Packets leave by the address `interface` and go no further than `ttl` routers: 0 is this machine.  `wake` is an
        eventfd that the tape's writer rings for this reader when it sleeps.
        """
        self.session = encode_session(session)
        self.reader = reader
        self.stats = {} if stats is None else stats
        for name in COUNTERS:
            self.stats.setdefault(name, 0)
        self.ended = False
        self._clock = clock
        self._tell = tell or (lambda _: None)
        self._wake = wake
        self._batch = b""
        self._count = 0
        self._down = False
        self._sent_at = clock() - IDLE_NS  # so that the first thing heard of us does not wait for a second
        attach(reader)
        self._wires = [Wire(line, interface, ttl, send_buffer, segment, self.stats) for line in lines]
        for wire in self._wires:
            if segment and not wire.segment:
                self._tell(f"feed: {wire.name}: the kernel does not cut packets (UDP_SEGMENT); sending one by one")

    def step(self) -> int:
        """Send what there is, or a heartbeat when it is time; return how many reports left on every line."""
        if not self._count:
            reports = self.reader.read(BATCH)
            if reports:
                self._count = len(reports) // REPORT_SIZE
                self._batch = pack_packets(self.session, self.reader.position + 1, reports)
            elif self._clock() - self._sent_at >= IDLE_NS:
                self._beat()
        return self._push() if self._count else 0

    def end(self) -> None:
        """Say from now on, when all reports have left, that the session is over (FEED-5)."""
        if not self.ended:
            self.ended = True
            self._sent_at = self._clock() - IDLE_NS

    def wait(self, seconds: float = WAKE_SECONDS) -> None:
        """Sleep until there is more, or at most so long (RING-5)."""
        if self._down:
            time.sleep(seconds)
            return
        if self._count:  # a line had no room
            select.select((), [wire.socket for wire in self._wires], (), seconds)
            return
        self.reader.sleep(sleeping=True)
        if self.reader.written() == self.reader.position:
            if self._wake is None:
                time.sleep(seconds)
            elif select.select((self._wake,), (), (), seconds)[0]:
                with suppress(BlockingIOError):
                    os.read(self._wake, 8)
        self.reader.sleep(sleeping=False)

    def run(self, stop: Callable[[], bool]) -> None:
        """Step until told to stop."""
        while not stop():
            if not self.step():
                self.wait()

    def close(self) -> None:
        """Close the lines; the tape goes on holding what was not sent, for the next publisher."""
        for wire in self._wires:
            wire.socket.close()

    def _push(self) -> int:
        """Bring the batch at hand to every line; only when all that can take it have, it is sent."""
        for wire in self._wires:
            if wire.place < len(self._batch):
                wire.push(self._batch)
        if any(wire.place < len(self._batch) for wire in self._wires):
            return 0
        if all(wire.failed for wire in self._wires):  # nobody has it: it waits for a line to come back
            self._down = True
            for wire in self._wires:
                wire.rewind()
            return 0
        self._down = False
        for wire in self._wires:
            if wire.failed:
                self._tell(f"feed: {wire.name}: a batch was not taken: {wire.failed}")
            wire.rewind()
        count, self._count, self._batch = self._count, 0, b""
        self.reader.advance(count)
        self._sent_at = self._clock()
        self.stats["reports"] += count
        return count

    def _beat(self) -> None:
        """Say that we are there, and what comes next."""
        head = MOLD.pack(self.session, self.reader.position + 1, END if self.ended else HEARTBEAT)
        for wire in self._wires:
            wire.push(head)
            wire.rewind()  # one that is lost is followed by another
        self.stats["ends" if self.ended else "heartbeats"] += 1
        self._sent_at = self._clock()


def attach(reader: TapeReader) -> None:
    """Attach a reader where the one before it was, or, when there was none, a little before the end of the tape.

    A venue that starts again has sent nearly all that its recovery brings back, if not all of it; what was not is known
    to be missing from the next number on, and the retransmission server has it.
    """
    if reader.words[reader.line + ATTACHED]:
        reader.attach(reader.position)
        return
    while True:
        with suppress(TapeLost):  # the writer may overtake us here; then the tape begins later
            reader.attach(max(reader.position or reader.written() - REPEATED, reader.oldest() - 1))
            return


class Wire:
    """One line: its socket, and how much of the batch at hand it has taken."""

    def __init__(
        self, line: Line, interface: str, ttl: int, send_buffer: int, segment: bool, stats: dict[str, int]
    ) -> None:
        self.name = f"{line.group}:{line.port}"
        self.stats = stats
        self.place = 0
        self.failed: OSError | None = None
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.socket.connect((line.group, line.port))
        self.segment = segment and self._segment(PACKET_MAX)

    def push(self, batch: bytes) -> None:
        """Take as much of a batch as there is room for; what fails for good counts as taken, and is in `failed`."""
        while self.place < len(batch):
            piece = batch if self.segment and not self.place else batch[self.place : self.place + PACKET_MAX]
            try:
                self.socket.send(piece)
            except OSError as error:
                if error.errno in AGAIN:
                    self.stats["blocked"] += 1
                    return
                if self.segment and error.errno in NO_SEGMENTS:
                    self._segment(0)
                    self.segment = False
                    continue
                self.stats["failed"] += 1
                self.failed = error
                self.place = len(batch)
                return
            self.stats["sends"] += 1
            self.stats["packets"] += -(-len(piece) // PACKET_MAX)
            self.place += len(piece)

    def rewind(self) -> None:
        """Be ready for the next batch, or for the same one again."""
        self.place = 0
        self.failed = None

    def _segment(self, size: int) -> bool:
        """Have the kernel cut what is sent into packets of a size, or none for 0; say whether it does."""
        try:
            self.socket.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        except OSError:
            return False
        return True
