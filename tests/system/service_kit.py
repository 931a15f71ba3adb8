"""A whole service in a folder of its own, and clients that speak to it byte by byte."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

from ferrox.client import Client
from ferrox.client.feed import Feed
from ferrox.entry import CHALLENGE, LOGIN_ACCEPTED, REFUSED, LoginAccepted, Refused, login, packet, packets
from ferrox.errors import UsageError
from ferrox.messages import REPORT, Report
from ferrox.mold import Line
from ferrox.service.config import read_config
from ferrox.service.supervisor import ask
from ferrox.users import User, write_users

SECRETS = {"operator": b"o" * 32, "maker": b"m" * 32, "taker": b"t" * 32}
ACCOUNTS = {"operator": 0, "maker": 7, "taker": 9}
SERVE = "from ferrox.cli import main; main()"
READY_SECONDS = 60
NUMBERS = count(os.getpid() % 200 * 250)

CONFIG = """
[venue]
directory = "{directory}"
orders = {orders}
instruments = 64
durability = "{durability}"
segment_records = {segment_records}
[[instrument]]
number = 1
high = 100000
[[instrument]]
number = 2
high = 100000
[entry]
listen = "127.0.0.1:{port}"
connections = {connections}
heartbeat_ms = {heartbeat_ms}
timeout_ms = {timeout_ms}
[feed]
line_a = "{line_a}"
line_b = "{line_b}"
retransmission = "127.0.0.1:0"
snapshots = "127.0.0.1:0"
[memory]
ring = {ring}
tape = {tape}
[snapshots]
every = {every}
[metrics]
listen = ""
[risk]
{risk}
[processes]
{processes}
"""
DEFAULTS = {
    "directory": "journal",
    "orders": 4096,
    "segment_records": 65536,
    "durability": "D0",
    "connections": 64,
    "heartbeat_ms": 1000,
    "timeout_ms": 15000,
    "ring": 4096,
    "tape": 65536,
    "every": 4194304,
    "risk": "",
    "processes": "",
}


def free_port(kind=socket.SOCK_DGRAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Service:
    """`ferrox serve`, as an operator would run it."""

    def __init__(self, folder: Path, **settings):
        self.folder = folder
        self.config_file = folder / "ferrox.toml"
        number = next(NUMBERS)
        self.lines = [f"239.255.{71 + side}.{number % 250 + 1}:{free_port()}" for side in (0, 1)]
        places = {"line_a": self.lines[0], "line_b": self.lines[1], "port": free_port(socket.SOCK_STREAM)}
        values = DEFAULTS | places | settings
        self.config_file.write_text(CONFIG.format(**values))
        self.users = folder / "ferrox.users"
        if not self.users.exists():
            write_users(
                self.users,
                [
                    User(name, account, SECRETS[name], "trader" if account else "operator")
                    for name, account in ACCOUNTS.items()
                ],
            )
        self.config = read_config(self.config_file)
        self.journal = folder / "journal"
        self.before: list[str] = []
        """What stands before the command, to run it somewhere else."""
        self.process: subprocess.Popen[bytes]
        self.opened: list[Client | Wire] = []

    def start(self):
        self.log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [*self.before, sys.executable, "-P", "-c", SERVE, "serve", "--config", self.config_file],
            stdout=subprocess.DEVNULL,
            stderr=self.log,
        )
        return self

    def until_ready(self):
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.said()
            try:
                if self.status()["ready"]:
                    return self
            except UsageError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"not ready within {READY_SECONDS} s:\n{self.said()}")

    def __enter__(self):
        return self.start().until_ready()

    def let_go(self):
        """Close every connection that was opened to it."""
        for one in self.opened:
            one.close()
        self.opened.clear()

    def __exit__(self, *_):
        self.let_go()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()

    def said(self):
        return (self.folder / "log").read_text()

    def status(self):
        return ask(self.config.control, {"ask": "status"})

    def row(self, role):
        return self.status()["processes"][role]

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(30)

    def kill(self, role):
        """Kill a process of the service, and wait until another one is in its place."""
        before = self.row(role)
        os.kill(before["pid"], signal.SIGKILL)
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            row = self.row(role)
            if row["starts"] > before["starts"] and row["state"] == "running":
                return
            time.sleep(0.01)
        raise AssertionError(f"{role} did not come back:\n{self.said()}")

    def client(self, user, **options):
        client = Client("127.0.0.1", self.row("gateway")["port"], user=user, secret=SECRETS[user], **options)
        self.opened.append(client)
        return client

    def wire(self, user=None, **options):
        wire = Wire(self.row("gateway")["port"])
        self.opened.append(wire)
        if user:
            accepted = wire.login(user, **options)
            deadline = time.monotonic() + READY_SECONDS
            while accepted == (b"J", b"U") and time.monotonic() < deadline:
                # The gateway has not noticed yet that an earlier connection is gone.
                time.sleep(0.01)
                wire = Wire(self.row("gateway")["port"])
                self.opened.append(wire)
                accepted = wire.login(user, **options)
            assert isinstance(accepted, LoginAccepted), accepted
        return wire

    def feed(self):
        processes = self.status()["processes"]
        lines = []
        for line in self.lines:
            group, port = line.split(":")
            lines.append(Line(group, int(port)))
        return Feed(
            lines=tuple(lines),
            retransmission=("127.0.0.1", processes["retransmitter"]["port"]),
            snapshots=("127.0.0.1", processes["shadow"]["port"]),
        )

    def verified(self):
        """Both engines on the journal: what `ferrox verify` says of it."""
        done = subprocess.run(
            [sys.executable, "-P", "-c", "from ferrox.cli import main; main()", "verify", "--json", self.journal],
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)


class Wire:
    """A connection to the gateway, packet by packet."""

    def __init__(self, port, *, receive_buffer=0):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(10)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.queue: list[tuple[bytes, bytes]] = []
        self.reference = 0
        letter, payload = self.next()
        assert letter == b"C"
        self.challenge, self.version, self.heartbeat_ms, self.timeout_ms = CHALLENGE.unpack(payload)

    def next(self, *, heartbeats=False):
        """Return the next packet; a closed connection is (b"", b"")."""
        while True:
            while self.queue:
                letter, payload = self.queue.pop(0)
                if letter != b"H" or heartbeats:
                    return letter, payload
            data = self._received()
            if not data:
                return b"", b""
            found, self.buffer = packets(self.buffer + data)
            self.queue += found

    def _received(self):
        try:
            return self.socket.recv(65536)
        except ConnectionError:
            return b""

    def signed(self, user, *, secret=None, **options):
        """Return a login request."""
        return login(user, secret or SECRETS.get(user, b"x" * 32), self.challenge, **options)

    def login(self, user, **options):
        self.socket.sendall(packet(b"L", self.signed(user, **options)))
        letter, payload = self.next()
        if letter != b"A":
            return letter, payload
        session, account, number, reference = LOGIN_ACCEPTED.unpack(payload)
        self.reference = reference
        self.accepted = LoginAccepted(session.decode(), account, number, reference)
        return self.accepted

    def send(self, command, reference=None):
        """Send a command under the next reference; an order of its own has no id yet."""
        self.reference = reference or self.reference + 1
        if hasattr(command, "order_id") and not command.order_id:
            command = command._replace(order_id=self.reference)
        self.socket.sendall(packet(b"U", self.reference.to_bytes(8, "little") + command.pack()))
        return self.reference

    def answer(self):
        """Return the next report with its number, or the next refusal."""
        letter, payload = self.next()
        if letter == b"S":
            return int.from_bytes(payload[:8], "little"), Report._make(REPORT.unpack(payload[8:]))
        assert letter == b"U", (letter, payload)
        return Refused(*REFUSED.unpack(payload))

    def answers(self, count):
        return [self.answer() for _ in range(count)]

    def close(self):
        self.socket.close()
