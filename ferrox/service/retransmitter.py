"""The retransmission server: repeats reports that a receiver missed (FEED-9 .. FEED-12).

It reads the tape without attaching: what is overwritten while it looks is not kept any more, and that is an answer.
Twenty bytes may bring back 1,470, so it answers only networks that it was told of, one packet to a request, and each
address at a bounded rate.

The rate is kept as one number an address: the time at which its allowance is full again.  An address whose time has
come is no different from one never seen, so the table has a bound that costs nobody their limit.
"""

import select
import socket
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from ferrox.lanes.packets import REPORTS_MAX, pack_packets
from ferrox.lanes.tape import READERS, STRIDE, Tape, TapeLost
from ferrox.mold import MOLD, UNAVAILABLE, encode_session

RATE: Final = 1_000
SECOND_NS: Final = 1_000_000_000
SOURCES_MAX: Final = 1_024
LOOPBACK: Final = ("127.0.0.0/8",)

COUNTERS: Final = (
    "requests",
    "answers",
    "reports",
    "unavailable",
    "foreign",
    "malformed",
    "early",
    "limited",
    "failed",
)


class Retransmitter:
    """Answers requests; `step` when its socket is readable, or in a loop with `wait`."""

    def __init__(
        self,
        tape: Tape,
        session: str,
        address: tuple[str, int] = ("127.0.0.1", 0),
        *,
        publisher: int | None = None,
        allow: Sequence[str] = LOOPBACK,
        rate: int = RATE,
        sources_max: int = SOURCES_MAX,
        clock: Callable[[], int] = time.monotonic_ns,
        stats: dict[str, int] | None = None,
    ) -> None:
        """Listen at an address, for requests from the networks `allow`.

        `publisher` is the publisher's place among the readers of the tape: what it has not sent is not repeated.
        Without it all that is on the tape is.
        """
        self.tape = tape
        self.session = encode_session(session)
        self.rates = Rates(rate, sources_max)
        self.stats = {} if stats is None else stats
        for name in COUNTERS:
            self.stats.setdefault(name, 0)
        self._sent_word = None if publisher is None else READERS + publisher * STRIDE
        self._allow = [IPv4Network(network) for network in allow]
        self._clock = clock
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(address)

    @property
    def address(self) -> tuple[str, int]:
        """Return where it listens."""
        host, port = self.socket.getsockname()
        return host, port

    def step(self, limit: int = 64) -> int:
        """Answer what has come, at most `limit` requests; return how many there were."""
        for count in range(limit):
            try:
                request, source = self.socket.recvfrom(64)
            except BlockingIOError:
                return count
            answer = self.answer(request, source[0], self._clock())
            if answer:
                try:
                    self.socket.sendto(answer, source)
                except OSError:  # no room, or no way to there: who asked asks again
                    self.stats["failed"] += 1
        return limit

    def wait(self, seconds: float) -> None:
        """Sleep until there is a request, or at most so long."""
        select.select((self.socket,), (), (), seconds)

    def run(self, stop: Callable[[], bool]) -> None:
        """Step until told to stop."""
        while not stop():
            if not self.step():
                self.wait(0.1)

    def close(self) -> None:
        """Stop listening."""
        self.socket.close()

    def sent(self) -> int:
        """Return the number of the last report that may be repeated."""
        written = self.tape.written()
        if self._sent_word is None:
            return written
        sent: int = self.tape.words[self._sent_word]
        return min(sent, written)

    def answer(self, request: bytes, source: str, now_ns: int) -> bytes:
        """Return the answer to a request from an address, b"" for none (FEED-12)."""
        stats = self.stats
        stats["requests"] += 1
        if len(request) != MOLD.size:
            stats["malformed"] += 1
            return b""
        session, number, count = MOLD.unpack(request)
        if session != self.session or not self._known(source):
            stats["foreign"] += 1
            return b""
        if count == 0 or number == 0:
            stats["malformed"] += 1
            return b""
        sent = self.sent()
        if number > sent:
            stats["early"] += 1
            return b""
        if not self.rates.take(source, now_ns):
            stats["limited"] += 1
            return b""
        stats["answers"] += 1
        last = min(number + min(count, REPORTS_MAX) - 1, sent)
        oldest = self.tape.oldest()
        if number >= oldest:
            try:
                reports = self.tape.copy(number, last)
            except TapeLost:
                oldest = self.tape.oldest()
            else:
                stats["reports"] += last - number + 1
                return pack_packets(self.session, number, reports)
        stats["unavailable"] += 1
        return MOLD.pack(self.session, oldest, UNAVAILABLE)

    def _known(self, source: str) -> bool:
        address = IPv4Address(source)
        return any(address in network for network in self._allow)


class Rates:
    """How much each address was given: an allowance of a second's worth, which fills at the same rate."""

    def __init__(self, rate: int, sources_max: int) -> None:
        self.interval_ns = SECOND_NS // rate
        self.sources_max = sources_max
        self.full_at: dict[str, int] = {}  # the one that was used longest ago stands first

    def take(self, source: str, now_ns: int) -> bool:
        """Take one from an address's allowance; say whether there was one."""
        full_at = max(self.full_at.pop(source, 0), now_ns)
        if not self._room(now_ns):
            return False
        allowed = full_at + self.interval_ns - now_ns <= SECOND_NS
        self.full_at[source] = full_at + self.interval_ns if allowed else full_at
        return allowed

    def _room(self, now_ns: int) -> bool:
        """Make room for an address; an allowance that is full again needs no place in the table."""
        while len(self.full_at) >= self.sources_max:
            first = next(iter(self.full_at))
            if self.full_at[first] > now_ns:
                return False
            del self.full_at[first]
        return True
