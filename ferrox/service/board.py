"""The board: what each process of the service says of itself, for the others and for whoever watches.

A page of words in shared memory.  Each process writes its own row, and nothing waits for anybody: a reader sees each
word as it is at some moment, and two words perhaps at two.  A row that stands still for long is a process that hangs.
"""

import os
import time
from enum import IntEnum
from typing import Final

from ferrox.shared import Shared

ROW: Final = 32
"""Words of a row."""

ROLES: Final = ("supervisor", "matcher", "gateway", "publisher", "retransmitter", "shadow")

SILENT_SECONDS: Final = 5.0
"""A process that runs and has not said so for this long hangs, and the service is not well."""

# What every row begins with.
PID: Final = 0
STATE: Final = 1
BEAT: Final = 2  # monotonic time of the last turn, nanoseconds
STARTS: Final = 3  # how many times the supervisor has started it
OWN: Final = 8  # the first word of the process's own


class State(IntEnum):
    """What a process is doing."""

    ABSENT = 0
    STARTING = 1
    RUNNING = 2
    STOPPING = 3
    STOPPED = 4


NAMES: Final = {
    "supervisor": ("started_ns", "metrics_port"),
    "matcher": (
        "sequence",
        "durable",
        "reports",
        "time_ns",
        "disk_low",
        "batches",
        "snapshot",
        "replayed",
        "recovery_us",
        "waits",
        "bounced",
        "epoch",
    ),
    "gateway": (
        "port",
        "connections",
        "logins",
        "commands",
        "refused",
        "delivered",
        "refused_logins",
        "dropped",
        "number",
        "in_flight",
        "resting",
    ),
    "publisher": ("number", "packets", "heartbeats", "blocked", "failed"),
    "retransmitter": ("port", "requests", "answers", "reports", "unavailable", "limited", "foreign", "failed"),
    "shadow": ("sequence", "snapshot", "statements", "port", "served", "reports"),
}
"""The words of each process's own, in their order."""


class Board:
    """All rows, by role and name."""

    def __init__(self, shared: Shared) -> None:
        """Look at a board that was made with `make_board`."""
        self.words = shared.words

    def place(self, role: str, name: str) -> int:
        """Return where a word stands."""
        common = {"pid": PID, "state": STATE, "beat": BEAT, "starts": STARTS}
        offset = common[name] if name in common else OWN + NAMES[role].index(name)
        return ROLES.index(role) * ROW + offset

    def get(self, role: str, name: str) -> int:
        """Return a word."""
        return self.words[self.place(role, name)]

    def put(self, role: str, name: str, value: int) -> None:
        """Set a word."""
        self.words[self.place(role, name)] = value

    def row(self, role: str) -> dict[str, int]:
        """Return all that a process says of itself."""
        return {name: self.get(role, name) for name in ("pid", "state", "beat", "starts", *NAMES[role])}


class Row:
    """A process's own row."""

    def __init__(self, board: Board, role: str) -> None:
        """Begin as starting."""
        self.words = board.words
        self.base = ROLES.index(role) * ROW
        self.places = {name: self.base + OWN + index for index, name in enumerate(NAMES[role])}
        self.words[self.base + PID] = os.getpid()
        self.state(State.STARTING)

    def state(self, state: State) -> None:
        """Say what the process is doing."""
        self.words[self.base + STATE] = state
        self.beat()

    def beat(self) -> None:
        """Say that the process lives."""
        self.words[self.base + BEAT] = time.monotonic_ns()

    def put(self, **values: int) -> None:
        """Set words by their names."""
        for name, value in values.items():
            self.words[self.places[name]] = value

    def add(self, name: str, count: int = 1) -> None:
        """Add to a word."""
        self.words[self.places[name]] += count


def ailments(board: Board, silent_seconds: float = SILENT_SECONDS) -> dict[str, str]:
    """Return what is wrong, by process: it does not run, or has said nothing for too long."""
    now = time.monotonic_ns()
    found = {}
    for role in ROLES:
        state = State(board.get(role, "state"))
        silent = (now - board.get(role, "beat")) / 1e9
        if state != State.RUNNING:
            found[role] = state.name.lower()
        elif silent > silent_seconds:
            found[role] = f"silent for {silent:.0f} s"
    return found


def make_board() -> Shared:
    """Return shared memory for a board."""
    return Shared.create("board", 0)


assert len(ROLES) * ROW * 8 <= 4096
