"""The supervisor: starts the processes, watches them, and stops them in order.

It makes the shared memory and holds it, so whoever dies finds it again.  A process that a signal ended is started again
at once: that is what crashes look like.  A matcher that ended by itself did so because it must not go on (a journal
that failed, an engine that is not deterministic, memory that nobody could have written), and then nothing goes on.
"""

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ferrox.errors import UsageError
from ferrox.service.board import ROLES, Board, Row, State, ailments
from ferrox.service.config import Config
from ferrox.service.latencies import Latencies, summary
from ferrox.service.links import Links
from ferrox.service.process import AGAIN, PROGRAM, Teller
from ferrox.users import read_users

if TYPE_CHECKING:
    from ferrox.service.metrics import MetricsServer

CHILDREN: Final = ("matcher", "shadow", "publisher", "retransmitter", "gateway")
"""In the order in which they are started."""
STOPS: Final = ("gateway", "matcher", "publisher", "retransmitter", "shadow")
"""In the order in which they are stopped: nothing comes in, then nothing is matched, then all of it was sent."""
STOP_SECONDS: Final = 10.0
"""How long a process has to end before it is killed; the journal's last sync may take its time."""
RESTARTS: Final = 10
RESTART_SECONDS: Final = 60.0
"""More restarts than that in so many seconds, and the service gives up."""
OPTIONAL: Final = ("shadow", "retransmitter")
"""Whose failures end nothing: without them orders are matched, and nothing is lost."""
BACKOFF_SECONDS: Final = 5.0
"""How long who fails again and again waits, at most, before it is started once more."""
WATCHED: Final = ("gateway", "publisher", "retransmitter")
HUNG_SECONDS: Final = 15.0
"""In which one of these must have moved, or it is killed."""
LOOK_SECONDS: Final = 0.2
POLL_MS: Final = 50
HUGE_PAGES: Final = "glibc.malloc.hugetlb=1"
"""Has the columns of an engine begin on pages of 2 MiB, so that to make one takes half the time or less."""
REQUEST_MAX: Final = 4_096


class Supervisor:
    """All processes of one service."""

    def __init__(self, config: Config, tell: Teller | None = None) -> None:
        """Take the place of the service, which one at a time has; raise `UsageError` when it is taken."""
        self.config = config
        read_users(config.users)  # what is wrong with it is better said before anything runs
        self.tell = tell or Teller("supervisor", config.log.format)
        self.lock = _lock(config.lock)
        self.links = Links.create(config)
        self.board = Board(self.links.board)
        self.latencies = Latencies(self.links.latencies)
        self.row = Row(self.board, "supervisor")
        self.row.put(started_ns=time.time_ns())
        self.metrics = _measured(config, self.links)
        if self.metrics:
            self.row.put(metrics_port=self.metrics.port)
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.pidfds: dict[int, str] = {}
        self.poll = select.poll()
        self.restarts: dict[str, deque[float]] = {"needed": deque(), "optional": deque()}
        self.due: dict[str, float] = {}
        """When who ended is to be started again."""
        self.looked = time.monotonic()
        self.beats: dict[str, int] = {}
        self.still: dict[str, float] = {}
        """For how long each process has not moved, and the beat that it stands at."""
        self.ran: set[str] = set()
        """Roles that have run: what fails before it ever did will fail again."""
        self.listener = _listen(config.control)
        self.poll.register(self.listener, select.POLLIN)
        self.clients: dict[int, socket.socket] = {}
        self.status = 0
        self.stopping = False

    # -------------------------------------------------------------------------------------------------------- to run

    def run(self, stopping: Callable[[], bool], *, turn: Callable[[], None] | None = None) -> int:
        """Start all processes, and watch them until the stop is asked for; return the exit status.

        `turn` is called after each look, for who shows something.
        """
        try:
            for role in CHILDREN:
                self.start(role)
            self.row.state(State.RUNNING)
            while not self.stopping and not stopping():
                self.step()
                if turn:
                    turn()
        finally:
            self.stop()
        return self.status

    def ready(self) -> bool:
        """Say whether every process runs, and none hangs."""
        return not ailments(self.board)

    def start(self, role: str) -> None:
        """Start a process."""
        self.board.put(role, "state", State.STARTING)
        package = str(Path(__file__).parents[2])
        arguments = [role, str(self.config.path), self.links.handed(), str(os.getpid())]
        child = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", "-c", PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=self.links.descriptors,
            env={
                "GLIBC_TUNABLES": HUGE_PAGES,
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
            },
        )
        pidfd = os.pidfd_open(child.pid)
        self.children[role] = child
        self.pidfds[pidfd] = role
        self.poll.register(pidfd, select.POLLIN)
        self.board.put(role, "starts", self.board.get(role, "starts") + 1)

    def step(self) -> None:
        """Wait a little, and see to what happened."""
        self.row.beat()
        self._look_for_hung()
        self._start_again()
        self.ran |= {role for role in self.children if self.board.get(role, "state") == State.RUNNING}
        for file, _ in self.poll.poll(POLL_MS):
            if file in self.pidfds:
                self._ended(file)
            elif file == self.listener.fileno():
                self._accept()
            elif file in self.clients:
                self._answer(file)

    def _look_for_hung(self) -> None:
        """Kill a process that has not moved while we did: the matcher waits for it (RING-9), and its successor moves.

        Time counts in our own turns, so that after a sleep of the whole machine everybody has a chance to move.
        """
        now = time.monotonic()
        passed, self.looked = min(now - self.looked, LOOK_SECONDS), now
        for role in WATCHED:
            beat = self.board.get(role, "beat")
            if role not in self.children or self.beats.get(role) != beat:
                self.beats[role], self.still[role] = beat, 0.0
                continue
            self.still[role] += passed
            if self.still[role] > HUNG_SECONDS and self.board.get(role, "state") == State.RUNNING:
                self.tell("hangs", role=role, seconds=HUNG_SECONDS)
                self.still[role] = 0.0
                self.children[role].kill()

    def _ended(self, pidfd: int) -> None:
        """See why a process ended: start it again, or stop all."""
        role = self.pidfds.pop(pidfd)
        self.poll.unregister(pidfd)
        os.close(pidfd)
        status = self.children.pop(role).wait()
        self.board.put(role, "state", State.ABSENT)
        if self.stopping:
            return
        if status < 0:
            name = signal.Signals(-status).name
            hint = (
                " (a file of the journal was cut off, or the memory of the machine failed)" if name == "SIGBUS" else ""
            )
            self.tell("ended", role=role, by=name + hint)
        else:
            self.tell("ended", role=role, exit_status=status)
        if role == "matcher" and status >= 0:
            self.tell("stopping", reason="the matcher must not go on")
            self.fail(status or 70)
            return
        if status > 0 and status != AGAIN and role not in self.ran:
            self.tell("stopping", reason=f"the {role} cannot begin; what it met is told above")
            self.fail(status)
            return
        if role == "shadow" and status == 1:
            self.tell("stopping", reason="the shadow says something else than the engine")
            self.fail(1)
            return
        now = time.monotonic()
        restarts = self.restarts["optional" if role in OPTIONAL else "needed"]
        restarts.append(now)
        while now - restarts[0] > RESTART_SECONDS:
            restarts.popleft()
        if len(restarts) > RESTARTS and role not in OPTIONAL:
            self.tell("stopping", reason=f"more than {RESTARTS} restarts in {RESTART_SECONDS:.0f} s")
            self.fail(status if status > 0 and status != AGAIN else 70)
            return
        wait = 0.1 * len(restarts) if status > 0 or len(restarts) > RESTARTS else 0.0  # let what it met pass
        self.due[role] = now + min(wait, BACKOFF_SECONDS if role in OPTIONAL else 1.0)
        self._start_again()

    def _start_again(self) -> None:
        """Start those whose time has come."""
        for role, due in list(self.due.items()):
            if time.monotonic() >= due:
                del self.due[role]
                self.start(role)

    def fail(self, status: int) -> None:
        """Stop with an exit status."""
        self.status = status
        self.stopping = True

    # ------------------------------------------------------------------------------------------------------ to stop

    def stop(self) -> None:
        """Stop all processes in order, and let go of everything."""
        self.stopping = True
        self.row.state(State.STOPPING)
        for role in STOPS:
            child = self.children.get(role)
            if child is None:
                continue
            with suppress(ProcessLookupError):
                child.terminate()
            try:
                status = child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.tell("killed", role=role, reason=f"it did not end within {STOP_SECONDS:.0f} s")
                child.kill()
                status = child.wait()
            if role == "matcher" and status and not self.status and status != -signal.SIGTERM:
                self.status = status if status > 0 else 70  # our own signal may have come before it was minded
        if self.metrics:
            self.metrics.close()
        for client in self.clients.values():
            client.close()
        self.listener.close()
        with suppress(OSError):
            self.config.control.unlink()
        self.row.state(State.STOPPED)
        self.tell("stopped", exit_status=self.status)
        os.close(self.lock)

    # ------------------------------------------------------------------------------------------------------ to answer

    def _accept(self) -> None:
        """Take in who asks."""
        with suppress(OSError):
            client, _ = self.listener.accept()
            client.setblocking(False)
            self.clients[client.fileno()] = client
            self.poll.register(client, select.POLLIN)

    def _answer(self, file: int) -> None:
        """Answer one request, a line of JSON, with one line of JSON."""
        client = self.clients.pop(file)
        self.poll.unregister(file)
        with client, suppress(OSError, ValueError, RecursionError):
            request = json.loads(client.recv(REQUEST_MAX))
            if not isinstance(request, dict):
                request = {"ask": request}
            client.setblocking(True)
            client.settimeout(1.0)
            client.sendall(json.dumps(self.answer(request)).encode() + b"\n")

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request: `status`, or `stop`."""
        ask = request.get("ask")
        if ask == "status":
            return self.report() | ({"counts": self.latencies.counts()} if request.get("counts") else {})
        if ask == "stop":
            self.stopping = True
            return {"stopping": True}
        return {"error": f"there is nothing like {ask!r} to ask; ask for status or stop"}

    def report(self) -> dict[str, Any]:
        """Return what every process says of itself."""
        now = time.monotonic_ns()
        processes = {}
        for role in ROLES:
            row = self.board.row(role)
            row["beat_ms"] = (now - row.pop("beat")) // 1_000_000
            processes[role] = {**row, "state": State(row["state"]).name.lower()}
        tape = self.links.tape.words
        return {
            "ready": self.ready(),
            "config": str(self.config.path),
            "journal": str(self.config.journal),
            "durability": self.config.venue.durability,
            "feed": {"line_a": self.config.feed.line_a, "line_b": self.config.feed.line_b},
            "ring": {"capacity": self.config.memory.ring, "waiting": _waiting(self.links)},
            "tape": {"capacity": self.config.memory.tape, "last": tape[32], "unread": self.links.unread()},
            "latencies": {stage: summary(counts) for stage, counts in self.latencies.counts().items()},
            "processes": processes,
        }


def _waiting(links: Links) -> int:
    """Return how many records are in the ring."""
    words = links.ring.words
    return words[16] - words[32]


def _measured(config: Config, links: Links) -> "MetricsServer | None":
    """Return a server of the metrics if one is wanted; only then is its library imported."""
    if not config.metrics.listen:
        return None
    from ferrox.service.metrics import MetricsServer

    return MetricsServer(config, links)


def _lock(path: Path) -> int:
    """Return a descriptor that holds the place of a service; raise `UsageError` when it is taken."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; the service keeps a file there that it holds") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise UsageError(f"{path}: this service runs already; ask it with: ferrox status") from None
    return file


def _listen(path: Path) -> socket.socket:
    """Listen on the control socket, which nobody but its owner can open."""
    with suppress(FileNotFoundError):
        path.unlink()  # of a service that was killed: its place was free
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise UsageError(f"{path}: {error}; a path for a socket has at most 107 bytes: use a shorter folder") from None
    finally:
        os.umask(before)
    listener.listen(16)
    listener.setblocking(False)
    return listener


def ask(control: Path, request: dict[str, Any], *, timeout: float = 5.0) -> dict[str, Any]:
    """Ask a running service, and return its answer; raise `UsageError` when none runs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        try:
            client.connect(str(control))
            client.sendall(json.dumps(request).encode())
            data = b""
            while not data.endswith(b"\n"):
                part = client.recv(65_536)
                if not part:
                    break
                data += part
        except TimeoutError:
            raise UsageError(
                f"{control}: the service has not answered within {timeout:.0f} s: its supervisor hangs, and may do "
                "what it was asked later"
            ) from None
        except OSError as error:
            raise UsageError(
                f"{control}: no service answers there ({error.strerror or error}); start one with: ferrox serve"
            ) from None
    if not data.endswith(b"\n"):
        raise UsageError(f"{control}: the service went away before it answered; start one with: ferrox serve")
    answer: dict[str, Any] = json.loads(data)
    return answer
