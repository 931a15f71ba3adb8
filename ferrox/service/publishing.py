"""The processes of the feed: a publisher and a retransmission server, each around its loop."""

import time
from collections.abc import Callable
from typing import Final

from ferrox.errors import UsageError
from ferrox.journal import identify
from ferrox.journal.tail import patiently
from ferrox.lanes.tape import Tape, TapeReader
from ferrox.mold import Line, session_name
from ferrox.service.board import Board, Row, State
from ferrox.service.config import Config, split
from ferrox.service.links import LONG_NAP_MS, QUIET_SECONDS, READERS, Links
from ferrox.service.publisher import WAKE_SECONDS, Publisher
from ferrox.service.retransmitter import Retransmitter

WAIT_SECONDS: Final = 0.01
END_SECONDS: Final = 0.3
"""How long a publisher that stops goes on sending what is left."""
ENDS: Final = 3
"""How often it says then that the session is over."""


def publish(config: Config, links: Links, stopping: Callable[[], bool], tell: Callable[..., None]) -> None:
    """Publish until the stop is asked for; then send what is left, and say that the session is over."""
    row = Row(Board(links.board), "publisher")
    session = await_session(config, links, row, stopping)
    stats: dict[str, int] = {}
    try:
        publisher = Publisher(
            TapeReader(links.tape, READERS["publisher"]),
            session,
            [Line(*split(line)) for line in (config.feed.line_a, config.feed.line_b) if line],
            interface=config.feed.interface,
            ttl=config.feed.ttl,
            wake=links.wakes["publisher"],
            tell=lambda line: tell("line", warning=line),
            stats=stats,
        )
    except OSError as error:
        raise UsageError(
            f"[feed] interface {config.feed.interface}: {error.strerror}; name an address of this machine"
        ) from None
    row.state(State.RUNNING)
    tell("publishing", session=session, report=publisher.reader.position)

    def say() -> None:
        row.beat()
        row.put(
            number=publisher.reader.position,
            packets=stats["packets"],
            heartbeats=stats["heartbeats"],
            blocked=stats["blocked"],
            failed=stats["failed"],
        )

    busy_at = time.monotonic()
    while not stopping():
        sent = publisher.step()
        say()
        now = time.monotonic()
        if sent:
            busy_at = now
        else:
            publisher.wait(LONG_NAP_MS / 1000 if now - busy_at > QUIET_SECONDS else WAKE_SECONDS)
    row.state(State.STOPPING)
    deadline = time.monotonic() + END_SECONDS
    while publisher.reader.position < publisher.reader.written() and time.monotonic() < deadline:
        publisher.step()
    for _ in range(ENDS):
        publisher.ended = False
        publisher.end()
        publisher.step()
        time.sleep(END_SECONDS / 10)
    say()
    publisher.reader.detach()
    publisher.close()
    row.state(State.STOPPED)


def retransmit(config: Config, links: Links, stopping: Callable[[], bool], tell: Callable[..., None]) -> None:
    """Repeat what the feed lost, until the stop is asked for."""
    row = Row(Board(links.board), "retransmitter")
    session = await_session(config, links, row, stopping)
    stats: dict[str, int] = {}
    try:
        server = Retransmitter(
            Tape(links.tape),
            session,
            split(config.feed.retransmission),
            publisher=READERS["publisher"],
            stats=stats,
        )
    except OSError as error:
        raise UsageError(
            f"[feed] retransmission {config.feed.retransmission}: {error.strerror}; name another address or port"
        ) from None
    row.put(port=server.address[1])
    row.state(State.RUNNING)
    tell("answering", port=server.address[1])
    while not stopping():
        answered = server.step()
        row.beat()
        if not answered:
            row.put(**{name: count for name, count in stats.items() if name in row.places})
            server.wait(WAIT_SECONDS)
    server.close()
    row.state(State.STOPPED)


def await_session(config: Config, links: Links, row: Row, stopping: Callable[[], bool]) -> str:
    """Return the name of the feed's session, as soon as the matcher has one."""
    board = Board(links.board)
    while not board.get("matcher", "epoch"):
        if stopping():
            raise SystemExit(0)
        row.beat()
        time.sleep(WAIT_SECONDS)
    header = patiently(lambda: identify(config.journal))
    return session_name(header.uuid, board.get("matcher", "epoch"))
