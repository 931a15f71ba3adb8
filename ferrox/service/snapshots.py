"""The snapshot server: gives a state to whoever connects, and closes (FEED-13).

One thread of its own serves all connections, so a subscriber on a slow line takes nothing from the process around it:
the number of connections has a bound, and each has a time in which it must have taken everything.
"""

import select
import socket
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from attrs import define, frozen

from ferrox.mold import Snapshot, pack_snapshot_head

CONNECTIONS_MAX: Final = 16
SECONDS: Final = 30.0
FRESH_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 2.0
COUNTERS: Final = ("connections", "served", "cut", "refused", "offers")


@frozen
class Limits:
    """What a snapshot server allows."""

    connections: int = CONNECTIONS_MAX
    seconds: float = SECONDS
    """In which a connection must have taken its state."""
    fresh_seconds: float = FRESH_SECONDS
    """How old a state may be before a new one is asked for,"""
    patience_seconds: float = PATIENCE_SECONDS
    """and how long that may take before the old one is given after all."""


@define(eq=False)
class _Connection:
    """Who is connected, until when, and what is left for it."""

    socket: socket.socket
    came: float
    rest: memoryview | None = None


class SnapshotServer:
    """Serves the state that was offered last."""

    def __init__(
        self,
        address: tuple[str, int] = ("127.0.0.1", 0),
        *,
        ask: Callable[[], None] | None = None,
        limits: Limits | None = None,
        stats: dict[str, int] | None = None,
    ) -> None:
        """Listen at an address, and serve in a thread from here on.

        `ask` is called in that thread when somebody comes and the state is too old, or there is none; it returns soon,
        and has `offer` called, by whomever and from any thread.
        """
        self.limits = limits or Limits()
        self.stats = {} if stats is None else stats
        for name in COUNTERS:
            self.stats.setdefault(name, 0)
        self._ask = ask
        self._asked = float("-inf")
        self._offered: tuple[float, bytes] = (float("-inf"), b"")
        self._connections: dict[int, _Connection] = {}
        self._closing = False
        self._listener = socket.create_server(address)
        self._listener.setblocking(False)
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Return where it listens."""
        host, port = self._listener.getsockname()[:2]
        return host, port

    def offer(self, session: str, number: int, sequence: int, uuid: bytes, state: bytes) -> None:
        """Serve this state from here on: all reports up to `number`, all records up to `sequence` led to it."""
        head = pack_snapshot_head(Snapshot(session, number, sequence, state, uuid))
        self._offered = (time.monotonic(), b"".join((head, state, sha256(state).digest())))
        self.stats["offers"] += 1
        self._ring()

    def close(self) -> None:
        """Stop, and let go of whoever is connected."""
        self._closing = True
        self._ring()
        self._thread.join()
        for end in (self._listener, self._bell, self._ringer):
            end.close()

    def _ring(self) -> None:
        try:
            self._ringer.send(b"!")
        except BlockingIOError:
            return  # it has been rung often enough

    def _run(self) -> None:
        while not self._closing:
            reading = [self._listener, self._bell]
            writing = [held.socket for held in self._connections.values() if held.rest is not None]
            readable, writable, _ = select.select(reading, writing, (), 0.05 if self._connections else 1.0)
            if self._bell in readable:
                self._bell.recv(4096)
            if self._listener in readable:
                self._accept()
            self._prepare()
            for ready in writable:
                self._send(self._connections[ready.fileno()])
            self._cut()
        for held in list(self._connections.values()):
            self._drop(held)

    def _accept(self) -> None:
        """Take who comes, unless there are too many."""
        try:
            came, _ = self._listener.accept()
        except OSError:  # it left again, or there are no descriptors left
            return
        if len(self._connections) >= self.limits.connections:
            self.stats["refused"] += 1
            came.close()
            return
        came.setblocking(False)
        self.stats["connections"] += 1
        self._connections[came.fileno()] = _Connection(came, time.monotonic())

    def _prepare(self) -> None:
        """Give a state to each who has none yet: one that is fresh, or the old one when no fresh one comes."""
        now = time.monotonic()
        for held in self._connections.values():
            if held.rest is not None:
                continue
            oldest = min(held.came, now - self.limits.fresh_seconds)
            if self._offered[0] < oldest and self._ask is not None and self._asked < held.came:
                self._asked = now
                self._ask()
            offered, state = self._offered
            fresh = offered >= oldest
            late = self._ask is None or now - held.came > self.limits.patience_seconds
            if state and (fresh or late):
                held.rest = memoryview(state)

    def _send(self, held: _Connection) -> None:
        """Send as much as there is room for, and close behind the last byte."""
        assert held.rest is not None
        try:
            held.rest = held.rest[held.socket.send(held.rest) :]
        except BlockingIOError:
            return
        except OSError:  # it left
            self.stats["cut"] += 1
            self._drop(held)
            return
        if not held.rest:
            self.stats["served"] += 1
            self._drop(held)

    def _cut(self) -> None:
        """Let go of those whose time is over."""
        now = time.monotonic()
        for held in list(self._connections.values()):
            if now - held.came > self.limits.seconds:
                self.stats["cut"] += 1
                self._drop(held)

    def _drop(self, held: _Connection) -> None:
        del self._connections[held.socket.fileno()]
        held.socket.close()
