"""What the tests of abuse share: a gateway and a matcher in this process, turn by turn, and clients that send bytes."""

import os
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ferrox.entry import CHALLENGE, login, packet, packets
from ferrox.lanes.desk import FLIGHT_FIRST, FLIGHT_NEXT
from ferrox.service.board import State as Doing
from ferrox.service.config import read_config
from ferrox.service.gateway import Gateway
from ferrox.service.links import Links
from ferrox.service.matcher import Matcher
from ferrox.state import State, unpack_state
from ferrox.users import User, write_users

sys.path.insert(0, str(Path(__file__).parents[1] / "system"))
sys.path.insert(0, str(Path(__file__).parents[1] / "properties"))

from service_kit import ACCOUNTS, CONFIG, DEFAULTS, SECRETS, Service  # type: ignore[import-not-found]

__all__ = ["SECRETS", "Inside", "Packet", "Service", "Talker", "inside"]

TURNS_MAX = 10_000
"""Turns after which what was to happen is taken not to."""


class Packet(NamedTuple):
    """What the gateway sent."""

    letter: bytes
    payload: bytes


class Talker:
    """A client's socket, which never blocks."""

    def __init__(self, venue: "Inside", address: str) -> None:
        self.venue = venue
        self.socket = socket.create_connection(("127.0.0.1", venue.port), 10, source_address=(address, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.rest = b""
        self.got: list[Packet] = []
        self.ended = False
        self.reference = 0

    def read(self) -> bool:
        """Take what has come; say whether there is anything, or the connection has ended."""
        while not self.ended:
            try:
                data = self.socket.recv(1 << 20)
            except BlockingIOError:
                break
            except ConnectionError:
                data = b""
            self.ended = not data
            found, self.rest = packets(self.rest + data)
            self.got += [Packet(*one) for one in found if one[0] != b"H"]
        return bool(self.got) or self.ended

    def take(self) -> list[Packet]:
        """Return what has come, and forget it."""
        self.read()
        found, self.got = self.got, []
        return found

    def send(self, data: bytes) -> None:
        """Send bytes, for which there is room."""
        assert self.socket.send(data) == len(data)

    def login(self, user: str, *, secret: bytes = b"", challenge: bytes = b"", **options: Any) -> Packet:
        """Log in, and return the answer."""
        secret = secret or SECRETS.get(user, b"x" * 32)
        self.send(packet(b"L", login(user, secret, challenge or self.challenge, **options)))
        self.venue.until(self.read)
        answer = self.got.pop(0)
        if answer.letter == b"A":
            self.reference = int.from_bytes(answer.payload[24:32], "little")
        return answer

    @property
    def challenge(self) -> bytes:
        """The challenge of the connection."""
        self.venue.until(self.read)
        assert self.got[0].letter == b"C"
        found: bytes = CHALLENGE.unpack(self.got.pop(0).payload)[0]
        return found

    def command(self, command: Any, reference: int = 0) -> bytes:
        """Return the packet of a command under the next reference; an order of its own has no id yet."""
        self.reference = reference or self.reference + 1
        if hasattr(command, "order_id") and not command.order_id:
            command = command._replace(order_id=self.reference)
        return packet(b"U", self.reference.to_bytes(8, "little") + command.pack())

    def close(self) -> None:
        """Close the socket, and let the gateway see it."""
        self.socket.close()


class Inside:
    """A venue without a supervisor: its gateway and its matcher make a turn when they are told to."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        folder.mkdir(exist_ok=True)
        values = DEFAULTS | {"line_a": "", "line_b": "", "port": 0} | settings
        path = folder / "ferrox.toml"
        path.write_text(CONFIG.format(**values))
        if not (folder / "ferrox.users").exists():
            users = [User(name, at, SECRETS[name], "trader" if at else "operator") for name, at in ACCOUNTS.items()]
            write_users(folder / "ferrox.users", users)
        self.config = read_config(path)
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.links = Links.create(self.config)
        self.matcher = Matcher(self.config, self.links, lambda: True, self.tell)
        self.matcher.begin()
        self.matcher.row.state(Doing.RUNNING)
        self.talkers: list[Talker] = []
        self.open()

    def open(self) -> None:
        """Begin a gateway; one that was there is gone without a word."""
        if hasattr(self, "gateway"):
            self.leave()
        self.gateway = Gateway(self.config, self.links, lambda: False, self.tell)
        self.gateway.begin()
        self.port = self.gateway.listener.getsockname()[1]
        while self.gateway.owed:
            self.turn()
        self.settle()

    def tell(self, event: str, **fields: Any) -> None:
        self.said.append((event, fields))

    def turn(self) -> None:
        """Let the gateway and then the matcher do what there is to do."""
        self.gateway.turn()
        while self.matcher.step():
            pass

    def settle(self) -> None:
        """Turn until nothing is on its way any more, and every report is routed."""
        for _ in range(TURNS_MAX):
            self.turn()
            desk = self.gateway.desk
            unread = self.links.unread()["gateway"] or desk.look(FLIGHT_NEXT) - desk.look(FLIGHT_FIRST)
            if not unread and not self.gateway.owed and not self.gateway.catching:
                return
        raise AssertionError("something is on its way for ever")

    def until(self, holds: Any) -> int:
        """Turn until something holds; return how many turns it took."""
        for count in range(TURNS_MAX):
            if holds():
                return count
            self.turn()
        raise AssertionError("it does not come to hold")

    def talker(self, user: str = "", *, address: str = "127.0.0.1", **options: Any) -> Talker:
        """Return a new connection, logged in where a user is named."""
        talker = Talker(self, address)
        self.talkers.append(talker)
        if user:
            answer = talker.login(user, **options)
            assert answer.letter == b"A", answer
        return talker

    def answers(self, talker: Talker, data: bytes) -> list[Packet]:
        """Send bytes, and return all that comes of them."""
        talker.send(data)
        select.select([self.gateway.epoll], [], [], 1.0)
        self.settle()
        return talker.take()

    def state(self) -> State:
        """Return the engine's state, as it would be at sequence 0."""
        return unpack_state(self.matcher.engine.snapshot())._replace(sequence=0, time_ns=0)

    def leave(self) -> None:
        """Close what the gateway has open, as the system does for a process that is gone."""
        self.gateway.listener.close()
        for connection in self.gateway.connections.values():
            connection.socket.close()
        self.gateway.epoll.close()
        self.gateway.tape.detach()

    def close(self) -> None:
        """End all."""
        for talker in self.talkers:
            talker.close()
        self.leave()
        while self.matcher.step():
            pass
        self.matcher.end()
        for wake in self.links.wakes.values():
            os.close(wake)


@contextmanager
def inside(folder: Path, **settings: Any) -> Iterator[Inside]:
    """A venue in this process, for a while."""
    venue = Inside(folder, **settings)
    try:
        yield venue
    finally:
        venue.close()
