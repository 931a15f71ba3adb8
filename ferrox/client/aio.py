"""A client for asyncio: the same words, answers awaited, reading and heartbeats in the background.

Each command goes out at once and gives an `Answer`, a future that also knows the command's reference; so commands are
pipelined by not awaiting them yet.  Answers are futures of their own, and `events` has only what answers no command.
It uses nothing but streams, so any event loop does, uvloop's as well.

With `backoff`, a connection that is lost is made again in the background, and what waits goes on to wait: a command
that was not taken is sent again, once.  Without it, answers that wait fail with `ConnectionLost`, and after `reconnect`
they come as events.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self

from ferrox.client.commands import Commands, secret_of
from ferrox.client.errors import ClientError, ConnectionLost, LoginRefused, login_refused
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
BACKOFF_MAX: Final = 30.0
"""Seconds between two attempts to connect, at most."""
BILLION: Final = 1_000_000_000

Outcome = list[Report] | Refused | Unanswered
Delivered = Sequenced | Answered | Refused | Unanswered | EndOfSession


class Answer(asyncio.Future[Outcome]):
    """What a command will come to; `reference` names it, and an order that it entered."""

    reference: int = 0


class AsyncClient(Commands[Answer]):
    """A user of the service, on asyncio.

    async with AsyncClient("127.0.0.1", 7001, user="maker", secret=secret) as client:
        reports = await client.buy(10, 100)
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
        backoff: float | None = None,
    ) -> None:
        """Say where and who; `async with` or `connect` does the rest.

        `backoff` is how many seconds to wait before connecting again by itself, doubled at each failure up to 30;
        None leaves it to `reconnect`.  The other arguments are `Client`'s.
        """
        self.host, self.port, self.timeout, self.backoff = host, port, timeout, backoff
        self.protocol = EntryProtocol(
            user,
            secret_of(user, secret),
            cancel_on_disconnect=cancel_on_disconnect,
            number=number,
            session=session,
        )
        self._answers: dict[int, Answer] = {}
        self._inbox: deque[Delivered] = deque()
        self._news = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._login: asyncio.Future[LoginAccepted] | None = None
        self._error: Exception | None = None  # what ended the connection
        self._closing = False

    # -------------------------------------------------------------------------------------------------- a connection

    async def connect(self, *, fresh: bool = False, resend: bool = True) -> LoginAccepted:
        """Connect and log in; raise `LoginRefused` when the gateway says no, `ConnectionLost` when there is none."""
        self._closing = False
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(self.host, self.port), self.timeout)
        except OSError as error:
            raise ConnectionLost(
                f"{self.host}:{self.port}: no connection ({error or 'timed out'}); see that the service runs there"
            ) from None
        self._error = None
        self.protocol.connect(_now(), fresh=fresh, resend=resend)
        login: asyncio.Future[LoginAccepted] = asyncio.get_running_loop().create_future()
        self._login, self._writer = login, writer
        self._task = asyncio.create_task(self._run(reader, writer))
        return await login

    async def reconnect(self, *, fresh: bool = False, resend: bool = True) -> LoginAccepted:
        """Connect again, and go on as `Client.reconnect` does."""
        await self._stop()
        return await self.connect(fresh=fresh, resend=resend)

    async def close(self) -> None:
        """Log out and close the connection; answers that still wait fail with `ConnectionLost`."""
        self._closing = True
        if self._writer is not None and self.protocol.phase == Phase.ACTIVE:
            self.protocol.logout()
            self._flush()
            if self._task is not None:
                await asyncio.wait([self._task], timeout=1)
        await self._stop()
        self._fail(ConnectionLost(f"{self.host}:{self.port}: the client was closed before the answer came"))
        self._news.set()

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._drop()

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self.protocol.disconnect()

    @property
    def account(self) -> int:
        """The account of the user, 0 for an operator."""
        return self.protocol.account

    @property
    def connected(self) -> bool:
        """Whether commands can be sent."""
        return self.protocol.phase == Phase.ACTIVE

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ------------------------------------------------------------------------------------------- commands and events

    def send(self, command: AnyCommand, reference: int = 0) -> Answer:
        """Send a command of `ferrox.messages` or a frame in bytes; await what it gives for the answer.

        It is written at once; `drain` waits where a sender is quicker than the gateway.
        """
        answer = Answer(loop=asyncio.get_running_loop())
        answer.reference = self.protocol.send(command, reference)
        self._answers[answer.reference] = answer
        self._flush()
        return answer

    async def drain(self) -> None:
        """Wait until the gateway has taken enough of what was sent."""
        if self._writer is not None:
            await self._writer.drain()

    async def events(self) -> AsyncIterator[Delivered]:
        """Give what answers no command here, in order, until the connection ends and is not made again.

        Raise what ended it, if that was not the end of the session.
        """
        while True:
            while self._inbox:
                yield self._inbox.popleft()
            if self._task is None or self._task.done():
                if self._error is not None and not self._closing:
                    raise self._error
                return
            self._news.clear()
            await self._news.wait()

    # ---------------------------------------------------------------------------------------------- in the background

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read and beat, over one connection after another."""
        error: Exception | None = None
        try:
            while True:
                self._writer = writer
                try:
                    await self._read(reader, writer)
                except (ClientError, OSError) as found:
                    error = found if isinstance(found, ClientError) else self._lost(found)
                else:
                    error = self._lost("the gateway ended the session")
                    self._closing = True
                self._drop()
                if self.backoff is None or self._closing or not self._may_pass(error):
                    return
                reader, writer = await self._again(self.backoff)
        except asyncio.CancelledError:
            error = None  # reconnect goes on with the answers that wait, close fails them
            raise
        finally:
            self._drop()
            self._error = error
            if error is not None:
                self._fail(error)
            self._news.set()

    def _may_pass(self, error: Exception) -> bool:
        """Say whether another connection may do better: not when the first login, or what was said, was wrong."""
        if self._login is not None and not self._login.done():
            return False
        if isinstance(error, LoginRefused):
            return error.reason in "UT"
        return isinstance(error, ConnectionLost)

    async def _again(self, wait: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect until it works, and begin to log in."""
        while True:
            await asyncio.sleep(wait)
            wait = min(wait * 2, BACKOFF_MAX)
            try:
                streams = await asyncio.wait_for(asyncio.open_connection(self.host, self.port), self.timeout)
            except OSError:
                continue
            self.protocol.connect(_now())
            return streams

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read until the session ends; raise what ends it otherwise."""
        beating = asyncio.create_task(self._beat(writer))
        try:
            while True:
                data = await reader.read(READ_SIZE)
                if not data:
                    raise self._lost("nothing was heard for too long" if beating.done() else "the gateway closed it")
                self.protocol.receive(data, _now())
                while (event := self.protocol.next_event()) is not None:
                    self._deliver(event)
                    if isinstance(event, EndOfSession):
                        return
                self._flush()
        finally:
            beating.cancel()

    async def _beat(self, writer: asyncio.StreamWriter) -> None:
        """Send heartbeats when they are due; end, and the connection with it, when none are heard."""
        while True:
            # A look every 20 ms until the login is through: the challenge brings the deadline nearer.
            wait = max(0.001, (self.protocol.deadline_ns - _now()) / BILLION)
            await asyncio.sleep(min(wait, 3600.0 if self.connected else 0.02))
            try:
                self.protocol.tick(_now())
            except ConnectionLost:
                writer.transport.abort()
                return
            self._flush()

    def _deliver(self, event: Event) -> None:
        if isinstance(event, LoginAccepted):
            if self._login is not None and not self._login.done():
                self._login.set_result(event)
            return
        if isinstance(event, LoginRejected):
            raise login_refused(event.reason)
        if isinstance(event, (Answered, Refused, Unanswered)):
            answer = self._answers.pop(event.reference, None)
            if answer is not None and not answer.done():
                answer.set_result(event.reports if isinstance(event, Answered) else event)
                return
            # One that was canceled, by a timeout say, becomes an event, because nothing is dropped.
        self._inbox.append(event)
        self._news.set()

    def _flush(self) -> None:
        if self._writer is not None and (data := self.protocol.data_to_send(_now())):
            self._writer.write(data)

    def _lost(self, why: object) -> ConnectionLost:
        return ConnectionLost(
            f"{self.host}:{self.port}: the connection is lost, {why}; "
            f"reconnect: {len(self.protocol.waiting)} commands wait for an answer"
        )

    def _fail(self, error: Exception) -> None:
        """Let what is awaited know that nothing comes; what the protocol keeps is answered by events later."""
        if self._login is not None and not self._login.done():
            self._login.set_exception(error)
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # one that nobody awaits is no noise: reconnect tells of it again


def _now() -> int:
    return time.monotonic_ns()
