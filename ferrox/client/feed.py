"""The feed on the subscriber's side: both lines, retransmissions, states, and the books that come of them.

    with LiveBooks(Feed(lines, retransmission=(host, port), snapshots=(host, port))) as books:
        while not books.ended:
            books.step(1.0)
            print(books[1].top())

What is in order, once, and without a gap is the `Arbiter`'s to say; here are its sockets and its clock.  `FeedReceiver`
never leaves out a report in silence: where one is not to be had any more it raises `ReportsLost`, or, when it was given
`begin`, takes a state and hands it over before the first report behind it.
"""

import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from random import Random
from types import TracebackType
from typing import Final, Self

from attrs import Factory, field, frozen

from ferrox.client.arbiter import Arbiter, FeedState, Timing
from ferrox.client.datagrams import Datagrams
from ferrox.depth import Books, BookView
from ferrox.errors import FerroxError, SnapshotCorrupt, UsageError
from ferrox.mold import FEED_SNAPSHOT, Line, Snapshot, unpack_snapshot_head
from ferrox.state import SNAPSHOT_HEADER, unpack_state

IP_MULTICAST_ALL: Final = 49  # <linux/in.h>
SO_RCVBUFFORCE: Final = 33  # <asm/socket.h>
RECEIVE_BUFFER: Final = 32 << 20
STATE_MAX: Final = 1 << 30
AGAIN_SECONDS: Final = 0.5
"""Between two attempts to get a state."""
DIGEST_SIZE: Final = 32


@frozen
class Feed:
    """Where a feed is to be had."""

    lines: tuple[Line, ...]
    """A, or A and B (FEED-6)."""
    interface: str = "127.0.0.1"
    """The address of the interface on which the lines are."""
    retransmission: tuple[str, int] | None = None
    snapshots: tuple[str, int] | None = None
    receive_buffer: int = RECEIVE_BUFFER
    """What the kernel is asked to hold for each line; it gives what it may (net.core.rmem_max)."""
    snapshot_seconds: float = 10.0
    """How long a state may take to come."""
    timing: Timing = field(default=Factory(Timing))


class ReportsLost(FerroxError):
    """Reports are missing that nobody keeps any more, and there is no state to go on from."""

    def __init__(self, number: int, kept: int) -> None:
        """Name the first report that is missing, and the first that is kept."""
        self.number, self.kept = number, kept
        super().__init__(
            f"report {number} of the feed is missing, and the oldest that is kept is {kept}; take a state from the "
            "snapshot server, and go on behind its number"
        )


class FeedReceiver:
    """The reports of a session, in order, each once, none behind a gap (FEED-14).

    Iterating gives the number of the first and the bytes of one or more reports, until the session ends.
    """

    def __init__(
        self,
        feed: Feed,
        session: str | None = None,
        number: int | None = None,
        *,
        begin: Callable[[Snapshot], None] | None = None,
        chance: Random | None = None,
        many: bool = True,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Join the lines, and want the reports from `number` on; for None, from what is heard first.

        `begin` is called with each state that is taken because there is no other way on.
        """
        if not feed.lines:
            raise UsageError("a receiver of the feed needs a line to listen to")
        self.feed = feed
        self.arbiter = Arbiter(session, number, timing=feed.timing, chance=chance)
        self._begin = begin
        self._clock = clock
        self._datagrams = Datagrams(many=many)
        self._sockets = [join(line, feed.interface, feed.receive_buffer) for line in feed.lines]
        self._server: socket.socket | None = None
        if feed.retransmission is not None:
            self._server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._server.connect(feed.retransmission)  # so that answers come from there and nowhere else
        self._watched = select.poll()
        for watched in [*self._sockets, *([self._server] if self._server else [])]:
            self._watched.register(watched, select.POLLIN)
        self._fetch_at = 0.0

    @property
    def counters(self) -> Counter[str]:
        """Return what was counted so far (`Arbiter.counters`), 0 for the rest."""
        return self.arbiter.counters.copy()

    @property
    def state(self) -> FeedState:
        """Return how we stand with the feed."""
        return self.arbiter.state(self._clock())

    @property
    def ended(self) -> bool:
        """Say whether the session is over, and every report of it was given."""
        return self.arbiter.ended

    @property
    def session(self) -> str | None:
        """Return the session, None as long as none was heard."""
        return None if self.arbiter.session is None else self.arbiter.session.decode("ascii")

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while not self.ended:
            found = self.read()
            if found is not None:
                yield found

    def read(self, timeout: float | None = None) -> tuple[int, bytes] | None:
        """Return the next reports and the number of the first; None when the time is over, or the session.

        Raise `ReportsLost` when the next report is not to be had, and there is no `begin`.
        """
        until_ns = None if timeout is None else self._clock() + int(timeout * 1e9)
        while True:
            heard = self._listen()
            number, reports = self.arbiter.take()
            if reports:
                return number, reports
            if self.arbiter.ended:
                return None
            now_ns = self._clock()
            self._repair(now_ns)
            if heard:
                continue
            if until_ns is not None and now_ns >= until_ns:
                return None
            self._watched.poll(self._patience_ms(now_ns, until_ns))

    def fetch(self) -> Snapshot:
        """Take a state from the snapshot server, and go on behind it."""
        if self.feed.snapshots is None:
            raise UsageError("no snapshot server is named in the feed's configuration")
        snapshot = fetch_snapshot(*self.feed.snapshots, timeout=self.feed.snapshot_seconds)
        self.arbiter.begin(snapshot.session, snapshot.number + 1)
        self.arbiter.counters["states"] += 1
        return snapshot

    def close(self) -> None:
        """Leave the lines."""
        for watched in [*self._sockets, *([self._server] if self._server else [])]:
            watched.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _listen(self) -> bool:
        """Give what has come to the arbiter; say whether there was anything."""
        arbiter, take = self.arbiter, self._datagrams.take
        heard = False
        for line in self._sockets:
            packets = take(line)
            if packets:
                heard = True
                now_ns = self._clock()
                for packet in packets:
                    arbiter.receive(packet, now_ns)
        if self._server is not None and arbiter.gap:
            packets = take(self._server)
            heard = heard or bool(packets)
            for packet in packets:
                arbiter.answer(packet, 0)
        return heard

    def _repair(self, now_ns: int) -> None:
        """Ask for what is missing: the reports, or a state when they are not kept or the session is another one."""
        arbiter = self.arbiter
        moved = arbiter.foreign is not None and arbiter.state(now_ns) is FeedState.STALE
        if arbiter.lost or (moved and self._begin is not None):
            if self._begin is None or self.feed.snapshots is None:
                raise ReportsLost(arbiter.next or 0, arbiter.kept or 0)
            if time.monotonic() >= self._fetch_at:
                self._fetch_at = time.monotonic() + AGAIN_SECONDS
                self._take_state(self._begin)
            return
        for request in arbiter.poll(now_ns):
            if self._server is not None:
                with suppress(OSError):  # no room, or nobody there: it is put again
                    self._server.send(request)

    def _take_state(self, begin: Callable[[Snapshot], None]) -> None:
        """Go on from a state, if there is one that is further on than we are."""
        assert self.feed.snapshots is not None
        try:
            snapshot = fetch_snapshot(*self.feed.snapshots, timeout=self.feed.snapshot_seconds)
        except (OSError, SnapshotCorrupt):
            self.arbiter.counters["states_failed"] += 1
            return
        if snapshot.session == self.session and snapshot.number + 1 < (self.arbiter.kept or snapshot.number + 2):
            return  # it leads to what is lost; a newer one will come
        self.arbiter.begin(snapshot.session, snapshot.number + 1)
        self.arbiter.counters["states"] += 1
        begin(snapshot)

    def _patience_ms(self, now_ns: int, until_ns: int | None) -> float:
        """Return how long nothing has to be done, unless something comes: a tenth of a second at most."""
        wait_ns = 100_000_000
        due_ns = self.arbiter.due_ns()
        for moment_ns in (due_ns, until_ns):
            if moment_ns is not None:
                wait_ns = min(wait_ns, moment_ns - now_ns)
        return max(wait_ns / 1e6, 0.0)


def join(line: Line, interface: str, receive_buffer: int) -> socket.socket:
    """Return a socket that hears one line, and no other group on its port."""
    joined = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        joined.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            joined.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive_buffer)
        except PermissionError:
            joined.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        joined.bind((line.group, line.port))
        joined.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
        membership = socket.inet_aton(line.group) + socket.inet_aton(interface)
        joined.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    except OSError:
        joined.close()
        raise
    return joined


def fetch_snapshot(host: str, port: int, *, timeout: float = 10.0, size_max: int = STATE_MAX) -> Snapshot:
    """Return the state that a snapshot server gives, every byte of it verified (FEED-13).

    Raise `SnapshotCorrupt` when it is damaged or not whole, OSError when there is no way to the server or it takes
    longer than `timeout` seconds.
    """
    until = time.monotonic() + timeout
    with socket.create_connection((host, port), timeout) as connection:
        head = _receive(connection, FEED_SNAPSHOT.size, until)
        snapshot, size = unpack_snapshot_head(head, size_max)
        state = _receive(connection, size, until)
        digest = _receive(connection, DIGEST_SIZE, until)
        connection.settimeout(max(until - time.monotonic(), 0.001))
        if connection.recv(1):
            raise SnapshotCorrupt(f"expected the end of the connection behind a state of {size} bytes, found more")
    expected = sha256(state).digest()
    if digest != expected:
        raise SnapshotCorrupt(f"expected the state's SHA-256 to be {expected.hex()}, found {digest.hex()}")
    if len(state) < SNAPSHOT_HEADER.size or SNAPSHOT_HEADER.unpack_from(state)[4] != snapshot.sequence:
        raise SnapshotCorrupt(f"expected a state at sequence {snapshot.sequence}, found another")
    return snapshot._replace(state=state)


def _receive(connection: socket.socket, size: int, until: float) -> bytes:
    """Return so many bytes of a connection, before a moment of `time.monotonic`."""
    parts, left = [], size
    while left:
        remaining = until - time.monotonic()
        if remaining <= 0:
            raise TimeoutError(f"a state did not come in time: {left} of {size} bytes are missing")
        connection.settimeout(remaining)
        part = connection.recv(min(left, 1 << 20))
        if not part:
            raise SnapshotCorrupt(f"expected {size} bytes from the snapshot server, found the end after {size - left}")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


class LiveBooks:
    """The books of a venue at the end of a wire, from whatever moment one begins; `books[1]` is a view (`Books`)."""

    def __init__(self, feed: Feed, *, chance: Random | None = None, many: bool = True) -> None:
        """Join the lines, take a state, and be ready to go on behind it.

        Raise OSError or `SnapshotCorrupt` when no state is to be had.
        """
        # The lines first: what is sent while the state is on its way waits in the sockets, and is not asked for.
        self.receiver = FeedReceiver(feed, begin=self._begin, chance=chance, many=many)
        try:
            snapshot = self.receiver.fetch()
            self.number, self.books = snapshot.number, Books(unpack_state(snapshot.state))
        except BaseException:
            self.receiver.close()
            raise

    number: int
    """Of the last report that is in the books."""
    books: Books

    @property
    def ended(self) -> bool:
        """Say whether the session is over, and all of it in the books."""
        return self.receiver.ended

    @property
    def state(self) -> FeedState:
        """Return how we stand with the feed: the books are the venue's while it is SYNC."""
        return self.receiver.state

    def step(self, timeout: float | None = None) -> int:
        """Take the next reports into the books; return how many, 0 when the time is over, or the session."""
        found = self.receiver.read(timeout)
        if found is None:
            return 0
        number, reports = found
        assert number == self.number + 1, "the receiver leaves no report out"
        self.books.fold(reports)
        count = len(reports) // 48
        self.number += count
        return count

    def __getitem__(self, instrument: int) -> BookView:
        return self.books[instrument]

    def close(self) -> None:
        """Leave the feed; the books stay as they are."""
        self.receiver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, snapshot: Snapshot) -> None:
        """Begin again with a state, because reports before it are lost."""
        self.number, self.books = snapshot.number, Books(unpack_state(snapshot.state))
