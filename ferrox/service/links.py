"""What joins the processes: shared memory and wake-ups, made by the supervisor and handed on by number.

The supervisor holds all of it as long as it lives, so a process that is started again finds what the one before left.
"""

import json
import os
import select
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

from ferrox.lanes.ring import SLEEPING, Ring, make_ring
from ferrox.lanes.tape import ATTACHED, STRIDE, WRITTEN, make_tape
from ferrox.lanes.tape import READERS as FIRST_READER
from ferrox.service.board import make_board
from ferrox.service.config import Config
from ferrox.service.latencies import make_latencies
from ferrox.shared import Shared
from ferrox.users import read_users

MEMORIES: Final = ("ring", "bounces", "tape", "board", "presence", "latencies")
WAKES: Final = ("matcher", "gateway", "publisher")
"""Who sleeps on an eventfd of its own."""
READERS: Final = {"gateway": 0, "publisher": 1}
"""The places of those that the tape waits for."""
BOUNCES: Final = 65_536
"""Commands that a full disk may send back before the gateway has looked."""
NAP_MS: Final = 1
LONG_NAP_MS: Final = 10
"""Of who had nothing to do for a second."""
QUIET_SECONDS: Final = 1.0


class Links:
    """The memory that all share, and an eventfd for each that sleeps."""

    def __init__(self, memories: dict[str, Shared], wakes: dict[str, int]) -> None:
        places = (memories[name] for name in MEMORIES)
        self.ring, self.bounces, self.tape, self.board, self.presence, self.latencies = places
        self.memories, self.wakes = memories, wakes

    @classmethod
    def create(cls, config: Config) -> Self:
        """Make them for a service."""
        memories = {
            "ring": make_ring("ring", config.memory.ring),
            "bounces": make_ring("bounces", BOUNCES),
            "tape": make_tape(config.memory.tape),
            "board": make_board(),
            "presence": Shared.keep(config.presence, 8 * (len(read_users(config.users)) + 2)),
            "latencies": make_latencies(),
        }
        return cls(memories, {name: os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for name in WAKES})

    @classmethod
    def attach(cls, text: str) -> Self:
        """Take what a supervisor handed on."""
        numbers = json.loads(text)
        memories = {name: Shared(number) for name, number in numbers["memories"].items()}
        return cls(memories, numbers["wakes"])

    @property
    def descriptors(self) -> list[int]:
        """All numbers, for a child to keep."""
        return [*(shared.file for shared in self.memories.values()), *self.wakes.values()]

    def handed(self) -> str:
        """Return the numbers as text for a child's command line."""
        return json.dumps({"memories": {name: one.file for name, one in self.memories.items()}, "wakes": self.wakes})

    def wake(self, name: str) -> None:
        """Wake a process that sleeps."""
        with suppress(BlockingIOError):
            os.eventfd_write(self.wakes[name], 1)

    def wake_readers(self, bits: int) -> None:
        """Wake the readers of the tape whose bits are set."""
        for name, reader in READERS.items():
            if bits >> reader & 1:
                self.wake(name)

    def unread(self) -> dict[str, int]:
        """Return how many reports each reader that the tape waits for has still to read; 0 for one that is away."""
        words = self.tape.words
        lines = {name: FIRST_READER + reader * STRIDE for name, reader in READERS.items()}
        return {
            name: max(0, words[WRITTEN] - words[line]) if words[line + ATTACHED] else 0 for name, line in lines.items()
        }

    def push(self, ring: Ring, records: bytes) -> int:
        """Push records for the matcher, wake it if it sleeps, and return how many were taken."""
        count = ring.push(records)
        if ring.words[SLEEPING]:
            self.wake("matcher")
        return count


class Nap:
    """Waiting on an eventfd, with a look in between so that a wake-up that is lost costs little (RING-5)."""

    def __init__(self, wake: int) -> None:
        self.wake = wake
        self.poll = select.poll()
        self.poll.register(wake, select.POLLIN)

    def take(self, say: Callable[[bool], None], awake: Callable[[], bool], milliseconds: int = NAP_MS) -> None:
        """Say that we sleep, look once more, and sleep until woken or for so long."""
        say(True)
        if not awake():
            self.poll.poll(milliseconds)
        say(False)
        with suppress(BlockingIOError):
            os.eventfd_read(self.wake)
