"""A client that blocks: one socket, no thread, everything pipelined.

Sending never waits for an answer, and never for a gateway that is itself waiting to be read: whatever is written, what
comes meanwhile is read.  What has been read and not handed out stands in one ordered table, the inbox, keyed by the
number of a report or by the negative reference of an answer, so `wait` can take one answer out of the middle.

There is no thread, so heartbeats are sent when a method is called.  A client that has nothing to do calls `poll` more
often than every `heartbeat_ms`, or lives in `events` or `wait`, which see to it.
"""

import os
import select
import socket
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Self

from ferrox.client.commands import Commands, secret_of
from ferrox.client.errors import ClientError, ConnectionLost, NotConnected, ProtocolBroken, login_refused
from ferrox.client.protocol import (
    Answered,
    AnyCommand,
    EndOfSession,
    EntryProtocol,
    Event,
    LoginRejected,
    Phase,
    Sequenced,
    Unanswered,
)
from ferrox.entry import LoginAccepted, Refused
from ferrox.messages import Report

READ_SIZE: Final = 1 << 16
BILLION: Final = 1_000_000_000
Delivered = Sequenced | Answered | Refused | Unanswered | EndOfSession
"""What `events` hands out."""
Answer = list[Report] | Refused | Unanswered
"""What `wait` hands out: the reports of the command, or why there are none."""


class Client(Commands[int]):
    """A user of the service, over one connection at a time; every command returns its reference at once.

    with Client("127.0.0.1", 7001, user="maker", secret=secret) as client:
        reference = client.buy(10, 100)
        reports = client.wait(reference)
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        user: str,
        secret: "bytes | str | os.PathLike[str]",
        cancel_on_disconnect: bool = False,
        number: int = 0,
        session: str = "",
        timeout: float = 10.0,
    ) -> None:
        """Connect and log in; `secret` is the secret itself, or the path of a file of users that has it.

        With `cancel_on_disconnect` the gateway cancels all orders of the account when the connection ends (ENTRY-15).
        `number` and `session` go on where an earlier process was.  `timeout` is for connecting, in seconds.  Raise
        `LoginRefused` when the gateway says no, `ConnectionLost` when there is none.
        """
        self.host, self.port, self.timeout = host, port, timeout
        self.protocol = EntryProtocol(
            user,
            secret_of(user, secret),
            cancel_on_disconnect=cancel_on_disconnect,
            number=number,
            session=session,
        )
        self._socket: socket.socket | None = None
        self._poll = select.poll()
        self._inbox: OrderedDict[int, Delivered] = OrderedDict()
        self._login: LoginAccepted | LoginRejected | None = None
        self._open(fresh=False, resend=True)

    # -------------------------------------------------------------------------------------------------- a connection

    def reconnect(self, *, fresh: bool = False, resend: bool = True) -> LoginAccepted:
        """Connect again, and go on: reports that were missed come, commands that were not taken are sent again.

        Without `resend`, those that were not taken are given up as `Unanswered`.  With `fresh`, go on with the current
        session and with the reports to come, and give up all that waits: after `SessionChanged`, and when the reports
        are not kept any more.
        """
        self._drop()
        return self._open(fresh=fresh, resend=resend)

    def close(self) -> None:
        """Log out and close the connection; what was read can still be handed out."""
        if self._socket is not None and self.protocol.phase == Phase.ACTIVE:
            try:
                self.protocol.logout()
                self._flush()
                deadline = _now() + BILLION
                while self.protocol.phase == Phase.ACTIVE and _now() < deadline:
                    self._pump(deadline)
            except (ClientError, OSError):
                pass  # it is closed either way
        self._drop()

    def _open(self, *, fresh: bool, resend: bool) -> LoginAccepted:
        try:
            self._socket = socket.create_connection((self.host, self.port), self.timeout)
        except OSError as error:
            raise ConnectionLost(
                f"{self.host}:{self.port}: no connection ({error}); see that the service runs there, and reconnect"
            ) from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._login = None
        self.protocol.connect(_now(), fresh=fresh, resend=resend)
        try:
            while self._login is None:
                self._pump(2**62)
                self._flush()
        except BaseException:
            self._drop()
            raise
        if isinstance(self._login, LoginRejected):
            self._drop()
            raise login_refused(self._login.reason)
        return self._login

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self.protocol.disconnect()

    @property
    def account(self) -> int:
        """The account of the user, 0 for an operator."""
        return self.protocol.account

    @property
    def session(self) -> str:
        """The session of the feed; with `number`, all that another process needs to go on."""
        return self.protocol.session

    @property
    def number(self) -> int:
        """The number of the next report wanted."""
        return self.protocol.number

    @property
    def waiting(self) -> list[int]:
        """The references of the commands that are not answered, oldest first."""
        return self.protocol.waiting

    @property
    def connected(self) -> bool:
        """Whether commands can be sent."""
        return self.protocol.phase == Phase.ACTIVE

    # ------------------------------------------------------------------------------------------------------ commands

    def send(self, command: AnyCommand, reference: int = 0) -> int:
        """Send a command of `ferrox.messages` or a frame in bytes, and return its reference.

        When the connection is lost in it, `ConnectionLost` is raised, and the command is kept: `waiting` ends with it,
        and `reconnect` sees that it is carried out once.
        """
        given = self.protocol.send(command, reference)
        self._flush()
        return given

    def send_many(self, commands: Iterable[AnyCommand]) -> list[int]:
        """Send commands in as few system calls as they fit into, and return their references."""
        try:
            return [self.protocol.send(command) for command in commands]
        finally:  # those before a command that cannot be sent are on their way
            self._flush()

    # -------------------------------------------------------------------------------------------------------- events

    def wait(self, reference: int, timeout: float | None = None) -> Answer:
        """Return the reports of a command when the last has come, or why there are none; raise `TimeoutError`.

        An answer is handed out once, here or by `events`; other events stay for `events`.
        """
        deadline = _deadline(timeout)
        while -reference not in self._inbox:
            if not self.protocol.waits(reference):
                raise ClientError(f"reference {reference} waits for no answer; it was never sent, or handed out before")
            self._needs_connection()
            if not self._pump(deadline):
                raise TimeoutError(f"reference {reference} was not answered within {timeout} s; it still waits")
        answer = self._inbox.pop(-reference)
        if isinstance(answer, Answered):
            return answer.reports
        assert isinstance(answer, (Refused, Unanswered))
        return answer

    def events(self, timeout: float | None = None) -> Iterator[Delivered]:
        """Give events in order as they come; end after `timeout` seconds without one, or with the session.

        They are `Sequenced` reports of what others did, and `Answered`, `Refused` and `Unanswered` for each command of
        ours.  Without a timeout, wait for ever; with 0, give what has come.
        """
        while True:
            deadline = _deadline(timeout)
            while not self._inbox:
                if not self.connected or not self._pump(deadline):
                    return
            yield self._inbox.popitem(last=False)[1]

    def __iter__(self) -> Iterator[Delivered]:
        return self.events()

    def poll(self) -> int:
        """Read what has come, send a heartbeat if one is due, and return how many events stand ready."""
        if self._socket is not None:
            self._pump(0)
        return len(self._inbox)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<Client {self.protocol.user} of account {self.account} at {self.host}:{self.port}, "
            f"{self.protocol.phase.name.lower()}, {len(self.waiting)} waiting>"
        )

    # --------------------------------------------------------------------------------------------------- the socket

    def _needs_connection(self) -> socket.socket:
        if self._socket is None:
            raise NotConnected("the connection is closed; reconnect, and what waits is answered")
        return self._socket

    def _pump(self, deadline_ns: int) -> bool:
        """Wait for bytes until the deadline, and sort what they mean; say whether any came in time."""
        link = self._needs_connection()
        while True:
            now = _now()
            self._beat(now)
            self._flush()
            until = min(deadline_ns, self.protocol.deadline_ns)
            if self._poll.poll(max(0, -(-(until - now) // 1_000_000)) if until < 2**62 else None):
                self._read(link)
                return True
            if _now() >= deadline_ns:
                return False

    def _beat(self, now: int) -> None:
        try:
            self.protocol.tick(now)
        except ConnectionLost:
            self._drop()
            raise

    def _read(self, link: socket.socket) -> None:
        try:
            data = link.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(f"reading failed ({error})")
        else:
            if not data:
                self._lost("the gateway closed it")
            self.protocol.receive(data, _now())
            self._sort()

    def _sort(self) -> None:
        """Put the events that have come into the inbox."""
        try:
            while (event := self.protocol.next_event()) is not None:
                self._keep(self._inbox, event)
        except ProtocolBroken:
            self._drop()
            raise

    def _keep(self, inbox: "OrderedDict[int, Delivered]", event: Event) -> None:
        if isinstance(event, Sequenced):
            inbox[event.number] = event
        elif isinstance(event, (Answered, Refused, Unanswered)):
            inbox[-event.reference] = event
        elif isinstance(event, EndOfSession):
            inbox[0] = event
            self._drop()
        else:
            self._login = event

    def _flush(self) -> None:
        """Write what is to be sent; when the gateway takes no more, read what it has to say meanwhile."""
        data = memoryview(self.protocol.data_to_send(_now()))
        while data:
            link = self._needs_connection()
            try:
                data = data[link.send(data) :]
            except BlockingIOError:
                self._poll.modify(link, select.POLLIN | select.POLLOUT)
                ready = self._poll.poll(max(0, (self.protocol.deadline_ns - _now()) // 1_000_000 + 1))
                self._poll.modify(link, select.POLLIN)
                if not ready:
                    self._beat(_now())
                elif ready[0][1] & ~select.POLLOUT:
                    self._read(link)
            except OSError as error:
                self._lost(f"writing failed ({error})")

    def _lost(self, why: str) -> None:
        """Sort what was read, close the socket and raise `ConnectionLost`."""
        self._drop()
        raise ConnectionLost(
            f"{self.host}:{self.port}: the connection is lost, {why}; "
            f"reconnect: {len(self.waiting)} commands wait for an answer, report {self.number} is the next"
        )


def _now() -> int:
    return time.monotonic_ns()


def _deadline(timeout: float | None) -> int:
    return 2**62 if timeout is None else _now() + int(timeout * BILLION)
