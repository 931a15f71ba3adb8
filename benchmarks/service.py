"""How quick the service is, from the bytes of a client to the reports at clients and subscribers; where it collapses.

    PYTHONPATH=build/compiled python benchmarks/service.py [--seconds 3] [--rates 10000,...] [--durability D0]
        [--lines a|ab] [--clients 2] [--pin matcher=0,gateway=1,...] [--json FILE] [--smoke] [--memory] [PART ...]

The parts are `trip`, `rates`, `stages` and `peak`; without names all are run, and `memory` where it is named.  All is
on one machine and over its loopback: a gateway, a matcher, a publisher, a retransmission server and a shadow beside a
client process and a subscriber, and the operating system between them.

trip     A closed loop over TCP: an order at a far price and then its cancel, one at a time; and beside it an echo of as
         many bytes by a process that does nothing else.
rates    An open loop: each command has a time at which it is due, and its latency counts from there, so that no stall
         is left out, neither of the service nor of the generator.  What is due by now leaves in one send per client.
         Latency ends when the first report of a command was read from the client's socket (`private`), and when the
         subscriber was handed it (`feed`).  `sent` is how late the generator itself was; it is in the other two.
         Every report is decoded, after the run; nothing is sampled.
stages   The matcher alone: records pushed into a ring when they are due, reports read from the tape, by one process
         that spins.  Records that were due or on their way while that loop stood still for 10 us and more, or while
         the matcher had to wait so long for a core, are left out of the censored rows, which say what share they are.
peak     As fast as the clients' sockets take it; CPU time of each process a command.
memory   PSS of all processes with 1,000,000 resting orders, and with 1,000 sessions.

A probe that spins would take one of few cores from what is measured, so the machine's hiccups are those of an empty
loop for half a second before and after each rate, with the service idle.  Rows `less n %` leave out that share of the
slowest that was due while one core stood still; those that a gap met on their way, or on the other core, are left in.
All percentiles are those of an HDR histogram of three digits.

The flow is `balanced` of flows.py with more takers, and no cancel that comes too late: an engine of our own has run
it before, and cancels that it rejects are not sent.  Orders are dealt to the clients in turn.
"""

import argparse
import gc
import hashlib
import json
import mmap
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import CDLL
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
from flows import Flow, make, young  # type: ignore[import-not-found]
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]
from journal import hiccups  # type: ignore[import-not-found]
from numpy.typing import NDArray
from reference import surroundings  # type: ignore[import-not-found]

import ferrox.fast.engine
from ferrox.client.feed import Feed, FeedReceiver
from ferrox.engine import Capacity, make_engine
from ferrox.entry import login, packet
from ferrox.lanes.ring import Ring
from ferrox.lanes.tape import TapeReader
from ferrox.messages import CANCEL_ORDER_DTYPE, NEW_ORDER_DTYPE, RECORD_DTYPE, RECORD_SIZE, REPORT_DTYPE, REPORT_SIZE
from ferrox.mold import Line
from ferrox.service.board import State
from ferrox.service.config import read_config, split
from ferrox.service.supervisor import Supervisor, ask
from ferrox.terms import ACCOUNT_SHIFT, REFERENCE_MAX, CommandKind, ReportFlag, ReportKind
from ferrox.users import User, write_users

Integers = NDArray[np.int64]

RATES: Final = "10000,50000,100000,250000,500000,750000,1000000,1500000"
STAGE_RATES: Final = (100_000, 500_000, 1_000_000)
PERCENTILES: Final = (50, 90, 99, 99.9, 100)
LONGEST_NS: Final = 60_000_000_000
PREFILL: Final = 10_000
MARKETABLE: Final = 0.3
TRIPS: Final = 20_000
FAR: Final = 60_000
PROBE_SECONDS: Final = 0.5
HICCUP_NS: Final = 10_000
CHUNK_NS: Final = 20_000
"""The generator looks no more often than that: it is not to take the core of those that it measures."""
COLLAPSED_NS: Final = 100_000_000
"""A median above it is a queue that grew all the time."""
LOOK_NS: Final = 250_000
"""From one look to the next at how long the matcher waited for a core."""
READ_SIZE: Final = 1 << 18
RESTING: Final = 1_000_000
SESSIONS: Final = 1_000
PR_SET_TIMERSLACK: Final = 29
SUPERVISE: Final = """
import signal, sys
from ferrox.service.config import read_config
from ferrox.service.supervisor import Supervisor
notes = []
signal.signal(signal.SIGTERM, lambda number, frame: notes.append(number))
sys.exit(Supervisor(read_config(sys.argv[1])).run(lambda: bool(notes)))
"""
SEQUENCED: Final = 59
"""Bytes of a report on a client's connection, its length included."""
SIZES: Final = {ord("S"): SEQUENCED, ord("U"): 19, ord("H"): 3}

NEW_PACKET: Final = np.dtype([("length", ">u2"), ("type", "u1"), ("reference", "<i8"), ("frame", NEW_ORDER_DTYPE)])
CANCEL_PACKET: Final = np.dtype(
    [("length", ">u2"), ("type", "u1"), ("reference", "<i8"), ("frame", CANCEL_ORDER_DTYPE)]
)
REPORT_PACKET: Final = np.dtype([("length", ">u2"), ("type", "u1"), ("number", "<i8"), ("report", REPORT_DTYPE)])
assert (NEW_PACKET.itemsize, CANCEL_PACKET.itemsize, REPORT_PACKET.itemsize) == (43, 27, SEQUENCED)


# ------------------------------------------------------------------------------------------------------------ the flow


class Orders:
    """The commands of all clients in the order in which they are due, as packets, and whose answer a report is."""

    def __init__(self, count: int, clients: int) -> None:
        """Make so many commands, and the prefill before them, dealt to the clients in turn."""
        records, self.trades, self.dropped = living(count)
        self.records = records
        command = records["command"]
        self.cancels: NDArray[np.bool_] = command["kind"] == int(CommandKind.CANCEL_ORDER)
        ids = command["order_id"].astype(np.int64)
        self.owners: Integers = ids % clients
        self.references = np.zeros(len(records), np.int64)
        for client in range(clients):
            mine = np.flatnonzero(self.owners == client)
            self.references[mine] = np.arange(1, len(mine) + 1)
        entered = np.zeros(int(ids.max()) + 1, np.int64)  # the reference under which an order was entered
        fresh = np.flatnonzero(~self.cancels)
        entered[ids[fresh]] = self.references[fresh]
        self.targets = entered[ids]
        shape = (clients, int(self.references.max()) + 1)
        self.entries = np.full(shape, -1, np.int64)
        self.ends = np.full(shape, -1, np.int64)
        self.entries[self.owners[fresh], self.targets[fresh]] = fresh
        gone = np.flatnonzero(self.cancels)
        self.ends[self.owners[gone], self.targets[gone]] = gone
        self.streams = [self._stream(client) for client in range(clients)]

    def __len__(self) -> int:
        return len(self.records)

    def _stream(self, client: int) -> tuple[memoryview, Integers]:
        """Return the packets of a client, and how many bytes of them the first n of all commands are."""
        sizes = np.where(self.owners == client, np.where(self.cancels, 27, 43), 0)
        ends = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=ends[1:])
        stream = np.zeros(int(ends[-1]), np.uint8)
        for dtype, which in (
            (NEW_PACKET, np.flatnonzero((self.owners == client) & ~self.cancels)),
            (CANCEL_PACKET, np.flatnonzero((self.owners == client) & self.cancels)),
        ):
            packets = np.zeros(len(which), dtype)
            packets["length"] = dtype.itemsize - 2
            packets["type"] = ord("U")
            packets["reference"] = self.references[which]
            frame, command = packets["frame"], self.records["command"][which]
            for name in frame.dtype.names or ():
                frame[name] = command[name]
            frame["order_id"] = self.targets[which]
            rows = packets.view(np.uint8).reshape(len(which), dtype.itemsize)
            for column in range(dtype.itemsize):
                stream[ends[which] + column] = rows[:, column]
        return stream.data, ends

    def answered(self, reports: NDArray[Any]) -> Integers:
        """Return for each report the command that it is the first report of, or -1."""
        ids = reports["order_id"].astype(np.int64)
        kinds = reports["kind"]
        clients, references = (ids >> ACCOUNT_SHIFT) - 1, ids & REFERENCE_MAX
        known = (clients >= 0) & (clients < len(self.entries)) & (references < self.entries.shape[1])
        found = np.full(len(reports), -1, np.int64)
        fresh = known & (kinds == int(ReportKind.NEW))
        found[fresh] = self.entries[clients[fresh], references[fresh]]
        gone = known & ((kinds == int(ReportKind.CANCELED)) | (kinds == int(ReportKind.CANCEL_REJECTED)))
        found[gone] = self.ends[clients[gone], references[gone]]
        return found


def living(count: int) -> tuple[NDArray[Any], float, int]:
    """Return orders and cancels of which no cancel comes too late, trades a new order, and cancels left out."""
    flow: Flow = make(
        "service",
        seed=21,
        messages=count + count // 4,
        prefill=PREFILL,
        marketable=MARKETABLE,
        lifetime=young(12_000, 200_000),
        offset=1,
        largest=2_000,
    )
    engine = make_engine("fast", Capacity(1_000_000, 16))
    records = np.frombuffer(flow.records, RECORD_DTYPE)
    late = np.zeros(len(records), bool)
    trades, place = 0, 0
    while place < len(records):
        taken, reports = engine.apply(flow.records[place * RECORD_SIZE : (place + 4_096) * RECORD_SIZE])
        said = np.frombuffer(reports, REPORT_DTYPE)
        late[said["sequence"][said["kind"] == int(ReportKind.CANCEL_REJECTED)] - 1] = True
        trades += int((said["kind"] == int(ReportKind.TRADE)).sum())
        place += taken
    kept = np.flatnonzero(~late)[1 : 1 + PREFILL + count]  # the first defines the instrument
    body = records[kept].copy()
    fresh = int((body["command"]["kind"] == int(CommandKind.NEW_ORDER)).sum())
    return body, trades / fresh * len(body) / (len(records) - late.sum()), int(late.sum())


# --------------------------------------------------------------------------------------------------------- the service


class Service:
    """A service in a folder of its own, as a child process."""

    def __init__(self, place: Path, options: argparse.Namespace, *, users: int, sessions: int = 1_024) -> None:
        """Write its files."""
        self.users = [
            User(f"user{n}", n, hashlib.sha256(b"benchmark %d" % n).digest(), "trader") for n in range(1, users + 1)
        ]
        group = 1 + os.getpid() % 250
        port = 20_000 + os.getpid() % 10_000
        lines = [f"239.255.{group}.{n}:{port + n}" for n in range(1, 1 + len(options.lines))]
        self.path = write_config(place, options, lines, sessions)
        write_users(place / "ferrox.users", self.users)
        self.config = read_config(self.path)
        self.lines = tuple(Line(*split(line)) for line in lines)
        self.child: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        # No fork of ours: what we hold would count as the memory of the supervisor. -P: the build that we run, too.
        with (self.path.parent / "log").open("wb") as log:
            self.child = subprocess.Popen([sys.executable, "-P", "-c", SUPERVISE, str(self.path)], stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(Exception):
                if self.status()["ready"]:
                    return self
            if self.child.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"the service did not start: {(self.path.parent / 'log').read_text()}")

    def __exit__(self, *_: object) -> None:
        self.child.terminate()
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()

    def status(self) -> dict[str, Any]:
        """Return what the processes say of themselves."""
        return ask(self.config.control, {"ask": "status"})

    def settled(self, seconds: float = 60.0) -> dict[str, Any]:
        """Return the status when nothing is on its way any more, or the time is over."""
        deadline = time.monotonic() + seconds
        while True:
            status = self.status()
            rows = status["processes"]
            last = rows["matcher"]["reports"]
            still = status["ring"]["waiting"] == rows["gateway"]["in_flight"] == 0
            if (still and last == rows["gateway"]["number"] == rows["publisher"]["number"]) or (
                time.monotonic() > deadline
            ):
                return status
            time.sleep(0.02)

    def processes(self) -> dict[str, int]:
        """Return the process ids by role; what a process started itself has the name of its kind behind it."""
        roles = {row["pid"]: role for role, row in self.status()["processes"].items()}
        found = {"supervisor": self.child.pid}
        waiting = [self.child.pid]
        while waiting:
            parent = waiting.pop()
            for task in Path(f"/proc/{parent}/task").iterdir():
                for child in map(int, (task / "children").read_text().split()):
                    found[roles.get(child, "syncer")] = child
                    waiting.append(child)
        return found


def write_config(place: Path, options: argparse.Namespace, lines: list[str], sessions: int) -> Path:
    """Write a service's file, and return its path."""
    pins = {role: core for role, core in options.pin.items() if role not in ("client", "subscriber")}
    pin = ", ".join(f"{role} = {core}" for role, core in pins.items())
    line_a, line_b = [*lines, "", ""][:2]
    path = place / "ferrox.toml"
    path.write_text(
        f"""
[venue]
orders = {options.orders}
durability = "{options.durability}"
[[instrument]]
number = 1
low = 0
high = 1000000
[entry]
listen = "127.0.0.1:0"
connections = {sessions}
heartbeat_ms = 60000
timeout_ms = 600000
[feed]
line_a = "{line_a}"
line_b = "{line_b}"
retransmission = "127.0.0.1:0"
snapshots = "127.0.0.1:0"
[metrics]
listen = ""
[processes]
pin = {{ {pin} }}
"""
    )
    return path


def on_cpu_ns(process: int) -> int:
    """Return the time for which a process was on a core, all its threads."""
    total = 0
    for task in Path(f"/proc/{process}/task").iterdir():
        with suppress(OSError):
            total += int((task / "schedstat").read_text().split()[0])
    return total


def machine_ticks() -> tuple[int, int, int]:
    """Return ticks in which cores of the machine were busy, were idle, and were the host's."""
    user, nice, system, idle, wait, hard, soft, steal = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return user + nice + system + hard + soft, idle + wait, steal


def use_of_cores(
    before: tuple[int, int, int], after: tuple[int, int, int], ours_ns: int, time_ns: int
) -> dict[str, float]:
    """Return how many cores were in use by whom: beside a stranger on the machine every tail is the stranger's."""
    busy, idle, host = (
        (new - old) / os.sysconf("SC_CLK_TCK") * 1e9 / time_ns for old, new in zip(before, after, strict=True)
    )
    ours = ours_ns / time_ns
    return {"ours": ours, "others": max(busy - ours, 0.0), "host": host, "idle": idle}


def pin_self(options: argparse.Namespace, role: str) -> None:
    """Stay on the core that was asked for."""
    if role in options.pin:
        os.sched_setaffinity(0, {options.pin[role]})


# --------------------------------------------------------------------------------------------------------- subscribers


class Subscriber:
    """A child that keeps every report of the feed, and when it had it, in memory that both see."""

    def __init__(self, service: Service, options: argparse.Namespace, reports: int) -> None:
        """Make room for so many reports, all of it touched."""
        self.options = options
        self.reports = shared(reports * REPORT_SIZE)
        self.looks = shared(reports * 16)
        self.words = shared(4_096)
        port = service.status()["processes"]["retransmitter"]["port"]
        self.feed = Feed(service.lines, retransmission=("127.0.0.1", port))
        self.counters = multiprocessing.get_context("fork").SimpleQueue()
        self.child = multiprocessing.get_context("fork").Process(target=self._run)
        self.child.start()

    def _run(self) -> None:
        """Receive until told to stop."""
        pin_self(self.options, "subscriber")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        gc.disable()
        reports = memoryview(self.reports)
        looks, words = memoryview(self.looks).cast("q"), memoryview(self.words).cast("q")
        clock = time.monotonic_ns
        size = count = 0
        with FeedReceiver(self.feed, number=1) as receiver:
            words[1] = 1
            while not words[0]:
                found = receiver.read(0.05)
                if found is None:
                    continue
                data = found[1]
                looks[2 * count] = clock()
                reports[size : size + len(data)] = data
                size += len(data)
                looks[2 * count + 1] = size
                count += 1
                words[2], words[3] = size // REPORT_SIZE, count
            self.counters.put(receiver.counters)

    def __enter__(self) -> Self:
        words = memoryview(self.words).cast("q")
        while not words[1]:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        memoryview(self.words).cast("q")[0] = 1
        self.child.join(5)
        self.child.kill()

    def count(self) -> int:
        """Return how many reports it has."""
        return memoryview(self.words).cast("q")[2]

    def wait(self, number: int, seconds: float = 20.0) -> None:
        """Wait until it has so many."""
        deadline = time.monotonic() + seconds
        while self.count() < number and time.monotonic() < deadline:
            time.sleep(0.01)

    def heard(self) -> tuple[NDArray[Any], Integers]:
        """Return the reports, and the time of each."""
        size, count = memoryview(self.words).cast("q")[2:4]
        reports = np.frombuffer(self.reports, REPORT_DTYPE, size)
        looks = np.frombuffer(self.looks, np.int64, 2 * count).reshape(count, 2)
        return reports, times_of(looks[:, 0], looks[:, 1], np.arange(1, size + 1) * REPORT_SIZE)


def shared(size: int) -> mmap.mmap:
    """Return memory that a child shares with us, every page of it there."""
    return mmap.mmap(-1, size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)


def times_of(times: Integers, marks: Integers, ends: Integers) -> Integers:
    """Return when the byte before each end was there, where `marks` bytes were there at `times`."""
    found: Integers = np.asarray(times)[np.searchsorted(np.asarray(marks), ends)]
    return found


# ------------------------------------------------------------------------------------------------------------- clients


class Client:
    """A connection that sends what is ready made, and keeps what it is sent with the times."""

    def __init__(self, port: int, user: User, room: int = 1 << 20) -> None:
        """Connect, and log in."""
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        challenge = self._expect(43)[3:35]
        self.socket.sendall(packet(b"L", login(user.name, user.secret, challenge)))
        answer = self._expect(35)
        assert answer[2:3] == b"A", answer
        self.socket.setblocking(False)
        self.received = np.zeros(room, np.uint8)
        self.received[:: mmap.PAGESIZE] = 1  # so that no page is made while it is measured
        self.view = self.received.data
        self.got = self.sent = self.wanted = 0
        self.reads: list[tuple[int, int]] = []
        self.sends: list[tuple[int, int]] = []
        self.stream: memoryview
        self.ends: Integers

    def _expect(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise RuntimeError(f"the gateway closed the connection after {data!r}")
            data += part
        return data

    def push(self) -> None:
        """Send as much of what is wanted as the socket takes."""
        try:
            sent = self.socket.send(self.stream[self.sent : self.wanted])
        except BlockingIOError:
            return
        self.sent += sent
        self.sends.append((time.monotonic_ns(), self.sent))

    def read(self) -> None:
        """Take what has come."""
        size = self.socket.recv_into(self.view[self.got : self.got + READ_SIZE])
        if size == 0:
            raise RuntimeError("the gateway closed the connection")
        self.got += size
        self.reads.append((time.monotonic_ns(), self.got))

    def heard(self) -> tuple[NDArray[Any], Integers, int]:
        """Return the reports, the time of each, and how many commands were refused."""
        ends, refused = [], 0
        place, data = 0, self.received[: self.got]
        parts = []
        while place < len(data):
            letter = int(data[place + 2])
            size = SIZES[letter]
            rows = data[place : place + (len(data) - place) // size * size].reshape(-1, size)
            right = (rows[:, 2] == letter) & (rows[:, 1] == size - 2) & (rows[:, 0] == 0)
            count = len(rows) if right.all() else int(np.argmin(right))
            if not count:
                break
            if letter == ord("S"):
                parts.append(np.frombuffer(data, REPORT_PACKET, count, place)["report"])
                ends.append(place + SEQUENCED * np.arange(1, count + 1))
            elif letter == ord("U"):
                refused += count
            place += size * count
        if not parts:
            return np.zeros(0, REPORT_DTYPE), np.zeros(0, np.int64), refused
        reads = np.array(self.reads, np.int64)
        return np.concatenate(parts), times_of(reads[:, 0], reads[:, 1], np.concatenate(ends)), refused


def drive(clients: list[Client], begin: int, end: int, rate: float, seconds: float = 1e9) -> tuple[int, int]:
    """Send the commands from `begin` to `end` when they are due, all at once for a rate of 0; return start and count.

    It returns when all have been taken by the sockets, or when `seconds` are over.
    """
    clock, wait = time.monotonic_ns, select.select
    by_socket = {client.socket: client for client in clients}
    sockets = list(by_socket)
    told = begin
    start = clock() + 1_000_000
    until = start + int(seconds * 1e9)
    per_ns = rate / 1e9
    blocked: list[socket.socket] = []
    while True:
        now = clock()
        if now > until:
            end = told
        due = min(begin + int((now - start) * per_ns), end) if rate else min(told + 2_048, end)
        if due > told and (rate or not blocked):
            told = due
            for client in clients:
                client.wanted = int(client.ends[told])
        for client in clients:
            if client.sent < client.wanted and client.socket not in blocked:
                client.push()
        blocked = [client.socket for client in clients if client.sent < client.wanted]
        if told == end and not blocked:
            return start, told
        pause = 0.0
        if rate:
            pause = max(start + int((told + 1 - begin) / per_ns) - now, CHUNK_NS) / 1e9
        if len(blocked) == len(clients) or (blocked and not rate):
            pause = 0.001  # whatever becomes due meanwhile has to wait behind what the sockets do not take
        readable, writable, _ = wait(sockets, blocked, (), pause)
        for one in readable:
            by_socket[one].read()
        blocked = [one for one in blocked if one not in writable]


def drain(clients: list[Client], seconds: float) -> None:
    """Read until nothing has come for so long."""
    by_socket = {client.socket: client for client in clients}
    while True:
        readable, _, _ = select.select(list(by_socket), (), (), seconds)
        if not readable:
            return
        for one in readable:
            by_socket[one].read()


# ------------------------------------------------------------------------------------------------------------- figures


def percentiles(values: Integers) -> dict[str, float]:
    """Return the percentiles in microseconds, out of an HDR histogram."""
    histogram = HdrHistogram(1, LONGEST_NS, 3)
    if not len(values):
        return {f"p{p:g}": float("nan") for p in PERCENTILES}
    # Values that the histogram holds equal are counted first: it takes them one by one, in Python.
    limited = np.clip(values, 1, LONGEST_NS)
    shift = np.maximum(np.floor(np.log2(limited)).astype(np.int64) - 11, 0)  # 2,048 steps to a doubling
    for value, count in zip(*np.unique(limited >> shift << shift, return_counts=True), strict=True):
        histogram.record_value(int(value), int(count))
    return {f"p{p:g}": round(histogram.get_value_at_percentile(p) / 1000, 2) for p in PERCENTILES}


class Hiccups(NamedTuple):
    """The machine's own gaps of more than 10 us."""

    often: float
    """A second."""
    share: float
    """Of the time."""

    def less(self, values: Integers) -> tuple[Integers, float]:
        """Return values without the slowest that these explain, and the share of those."""
        share = min(self.share, float((values > HICCUP_NS).mean()) if len(values) else 0.0)
        kept = np.sort(values)[: len(values) - round(share * len(values))]
        return kept, share

    def __str__(self) -> str:
        """Say both."""
        return f"{self.often:,.0f} gaps a second over 10 us, {self.share:.2%} of the time"


def probe() -> Hiccups:
    """Return the gaps of an empty loop."""
    gaps = hiccups(PROBE_SECONDS)
    return Hiccups(len(gaps) / PROBE_SECONDS, float(gaps.sum()) / PROBE_SECONDS / 1e9)


def between(before: Hiccups, after: Hiccups) -> Hiccups:
    """Return the mean of two."""
    return Hiccups((before.often + after.often) / 2, (before.share + after.share) / 2)


def heading(first: str) -> None:
    """Print the heading of a table of percentiles."""
    names = [*(f"P{p:g}" for p in PERCENTILES[:-1]), "max"]
    print(f"{first:<40}" + "".join(f"{name:>12}" for name in names))


def show(name: str, values: Integers) -> dict[str, float]:
    """Print a row of percentiles, and return it."""
    row = percentiles(values)
    print(f"{name:<40}" + "".join(f"{value:>12,.1f}" for value in row.values()), flush=True)
    return row


def show_both(name: str, values: Integers, machine: Hiccups) -> dict[str, Any]:
    """Print a row as it is, and one without what the machine explains."""
    kept, share = machine.less(values)
    raw = show(name, values)
    return {"raw": raw, "censored": show(f"  less {share:.2%}", kept), "censored_share": share}


# ---------------------------------------------------------------------------------------------------------- the parts


@contextmanager
def served(options: argparse.Namespace, *, users: int, sessions: int = 1_024) -> Iterator[Service]:
    """Give a service that runs, in a folder that is removed."""
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="service-") as name:
        place = Path(name).absolute()
        with Service(place, options, users=users, sessions=sessions) as service:
            yield service
        if options.log:
            print((place / "log").read_text(), file=sys.stderr)


def measure_trip(options: argparse.Namespace) -> dict[str, Any]:
    """Print and return the round trip of one command at a time."""
    new = np.zeros(1, NEW_PACKET)
    cancel = np.zeros(1, CANCEL_PACKET)
    for one, kind in ((new, CommandKind.NEW_ORDER), (cancel, CommandKind.CANCEL_ORDER)):
        one["length"] = one.dtype.itemsize - 2
        one["type"] = ord("U")
        one["frame"]["kind"] = int(kind)
        one["frame"]["instrument"] = 1
    frame = new["frame"]
    frame["side"], frame["time_in_force"], frame["price"], frame["quantity"] = 2, 1, FAR, 1
    packets = []
    for reference in range(1, options.trips + 1, 2):
        new["reference"] = frame["order_id"] = cancel["frame"]["order_id"] = reference
        cancel["reference"] = reference + 1
        packets += [new.tobytes(), cancel.tobytes()]
    with served(options, users=1) as service:
        client = Client(service.status()["processes"]["gateway"]["port"], service.users[0])
        before = probe()
        client.socket.settimeout(10)
        clock, send, receive = time.monotonic_ns, client.socket.sendall, client.socket.recv
        took = []
        for command in packets:
            start = clock()
            send(command)
            got = len(receive(4_096))
            while got < SEQUENCED:
                got += len(receive(4_096))
            took.append(clock() - start)
        machine = between(before, probe())
    print(f"\nround trip of one command over TCP, {len(took):,} of them one after the other; us")
    print(f"the machine alone: {machine}")
    heading("")
    values = np.array(took, np.int64)
    return {
        "machine": machine._asdict(),
        "command and its report": show_both("command and its report", values, machine),
        "an echo": show_both("an echo, and nothing else", echoed(packets[0], len(took)), machine),
    }


def echoed(data: bytes, count: int) -> Integers:
    """Return the round trips of some bytes to a process that sends them back: what TCP and waking up cost here."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        echo = multiprocessing.get_context("fork").Process(target=echo_all, args=(listener,), daemon=True)
        echo.start()
        with socket.create_connection(listener.getsockname()) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            took = []
            for _ in range(count):
                start = time.monotonic_ns()
                link.sendall(data)
                link.recv(4_096)
                took.append(time.monotonic_ns() - start)
        echo.join()
    return np.array(took, np.int64)


def echo_all(listener: socket.socket) -> None:
    """Send back what comes from one connection."""
    link, _ = listener.accept()
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with link, select.epoll() as events:
        events.register(link, select.EPOLLIN)
        while events.poll() and (data := link.recv(4_096)):
            link.send(data)


class Run(NamedTuple):
    """What came of a flow."""

    counts: dict[str, int]
    lost: bool
    latency: dict[str, Integers]
    seconds: float
    """From the first command due to the last private report."""
    cpu_ns: dict[str, float]
    """On a core, a command."""
    achieved: float
    cores: dict[str, float]
    """In use by us and by others, taken by the host, and idle."""


def run_flow(options: argparse.Namespace, orders: Orders, count: int, rate: float) -> tuple[Run, Hiccups]:
    """Send a flow to a service of its own, at a rate or as fast as it goes."""
    with served(options, users=options.clients) as service:
        port = service.status()["processes"]["gateway"]["port"]
        last = PREFILL + count
        with Subscriber(service, options, 3 * last + 1_000) as subscriber:
            clients = [Client(port, user, 3 * last * SEQUENCED // len(service.users)) for user in service.users]
            for client, (stream, ends) in zip(clients, orders.streams, strict=True):
                client.stream, client.ends = stream, ends
            drive(clients, 0, PREFILL, 0)
            drain(clients, 0.2)
            service.settled()
            processes = service.processes() | {"client": os.getpid(), "subscriber": subscriber.child.pid or 0}
            before = probe()
            cpu_before = {role: on_cpu_ns(process) for role, process in processes.items()}
            ticks, begun = machine_ticks(), time.monotonic_ns()
            gc.collect()
            gc.disable()
            start, end = drive(clients, PREFILL, last, rate, 1e9 if rate else options.seconds)
            drain(clients, 0.2)
            gc.enable()
            status = service.settled()
            subscriber.wait(status["processes"]["matcher"]["reports"])
            cpu = {role: on_cpu_ns(process) - cpu_before[role] for role, process in processes.items()}
            cores = use_of_cores(ticks, machine_ticks(), sum(cpu.values()), time.monotonic_ns() - begun)
            time.sleep(0.1)
            machine = between(before, probe())
            drain(clients, 0.05)
            status = service.settled()
        return account(orders, start, end, rate, clients, subscriber, status, cpu, cores), machine


def account(
    orders: Orders,
    start: int,
    end: int,
    rate: float,
    clients: list[Client],
    subscriber: Subscriber,
    status: dict[str, Any],
    cpu: dict[str, int],
    cores: dict[str, float],
) -> Run:
    """Return what came of it: every command with its due time held against its reports."""
    due = np.zeros(end, np.int64)
    due[PREFILL:] = start + ((np.arange(end - PREFILL) + 1) / rate * 1e9 if rate else 0)
    sent = np.zeros(end, np.int64)
    private = np.zeros(end, np.int64)
    refused = delivered = 0
    for number, client in enumerate(clients):
        mine = np.flatnonzero(orders.owners[:end] == number)
        sends = np.array(client.sends, np.int64)
        sent[mine] = times_of(sends[:, 0], sends[:, 1], client.ends[mine + 1])
        reports, times, no = client.heard()
        first_times(private, orders.answered(reports), times)
        refused += no
        delivered += len(reports)
    reports, times = subscriber.heard()
    public = np.zeros(end, np.int64)
    first_times(public, orders.answered(reports), times)
    rows = status["processes"]
    counters = subscriber.counters.get()
    counts = {
        "commands sent": end,
        "refused": refused,
        "answered privately": int((private > 0).sum()),
        "answered on the feed": int((public > 0).sum()),
        "commands taken": rows["gateway"]["commands"],
        "journal sequence": rows["matcher"]["sequence"],
        "last reports on the feed": int(((reports["flags"] & int(ReportFlag.LAST)) > 0).sum()),
        "reports made": rows["matcher"]["reports"],
        "reports published": rows["publisher"]["number"],
        "reports on the feed": len(reports),
        "private reports sent": rows["gateway"]["delivered"],
        "private reports": delivered,
        "trades": int((reports["kind"] == int(ReportKind.TRADE)).sum()),
        "late cancels": int((reports["kind"] == int(ReportKind.CANCEL_REJECTED)).sum()),
        "retransmitted": rows["retransmitter"]["reports"],
        "matcher waits": rows["matcher"]["waits"],
        "matcher batches": rows["matcher"]["batches"],
        **{f"feed {name}": value for name, value in counters.items() if value and name not in ("reports", "packets")},
    }
    taken = end - refused
    lost = (
        not taken == counts["answered privately"] == counts["answered on the feed"]
        or not counts["reports made"] == counts["reports published"] == counts["reports on the feed"]
        or counts["private reports sent"] != delivered
    )
    both = (private > 0) & (public > 0)
    both[:PREFILL] = False
    latency = {
        "sent": sent[both] - due[both],
        "private": private[both] - due[both],
        "feed": public[both] - due[both],
        "private since sent": private[both] - sent[both],
    }
    measured = max(end - PREFILL, 1)
    seconds = float(max(private.max(), public.max()) - start) / 1e9
    return Run(
        counts,
        lost,
        latency,
        seconds,
        {role: used / measured for role, used in cpu.items()},
        measured / seconds,
        cores,
    )


def first_times(firsts: Integers, commands: Integers, times: Integers) -> None:
    """Note the time of the first report of each command, as far as these are known."""
    which = np.flatnonzero((commands >= 0) & (commands < len(firsts)))[::-1]  # of two, the earlier one is written last
    firsts[commands[which]] = times[which]


def show_counts(run: Run) -> None:
    """Print what was sent, made and delivered."""
    counts = run.counts
    verdict = "nothing lost"
    if run.lost:
        behind = counts["reports made"] == counts["reports published"] > counts["reports on the feed"]
        # It asks for what is missing a thousand times a second at most (FEED-12), 29 reports a time.
        verdict = "THE SUBSCRIBER IS STILL BEHIND" if behind else "SOMETHING IS MISSING"
    print(
        f"  {verdict}: {counts['commands sent']:,} commands sent, {counts['refused']:,} refused, "
        f"{counts['commands taken']:,} taken, journal at {counts['journal sequence']:,}; "
        f"answers {counts['answered privately']:,} private, {counts['answered on the feed']:,} on the feed; "
        f"reports {counts['reports made']:,} made, {counts['reports published']:,} published, "
        f"{counts['reports on the feed']:,} heard ({counts['retransmitted']:,} retransmitted), "
        f"private {counts['private reports sent']:,} sent, {counts['private reports']:,} heard"
    )
    if run.lost:
        print(f"  {counts}")


def show_cpu(run: Run) -> None:
    """Print CPU time a command."""
    used = " ".join(f"{role} {ns:,.0f}" for role, ns in sorted(run.cpu_ns.items(), key=lambda one: -one[1]))
    print(f"  CPU ns a command: {used}; all {sum(run.cpu_ns.values()):,.0f}")
    print("  cores: " + ", ".join(f"{name} {share:.2f}" for name, share in run.cores.items()), flush=True)


def measure_rates(options: argparse.Namespace, orders: Orders) -> dict[str, Any]:
    """Print and return latencies by rate, up to collapse."""
    print("\nopen loop, us from when a command was due; every command counted")
    results: dict[str, Any] = {}
    for rate in options.rates:
        count = min(int(rate * options.seconds), len(orders) - PREFILL)
        run, machine = run_flow(options, orders, count, rate)
        collapsed = float(np.median(run.latency["private"])) > COLLAPSED_NS
        heading(f"{rate:,} a second for {count / rate:g} s" + (": COLLAPSED" if collapsed else ""))
        row: dict[str, Any] = {"machine": machine._asdict(), "counts": run.counts, "lost": run.lost}
        row |= {"cpu_ns": run.cpu_ns, "cores": run.cores, "achieved": run.achieved, "collapsed": collapsed}
        row["sent"] = show("sent", run.latency["sent"])
        for name in ("private", "feed", "private since sent"):
            row[name] = show_both(name, run.latency[name], machine)
        print(f"  achieved {run.achieved:,.0f} a second; the machine alone: {machine}")
        show_counts(run)
        show_cpu(run)
        results[str(rate)] = row
        if collapsed:
            break
    return results


def measure_peak(options: argparse.Namespace, orders: Orders) -> dict[str, Any]:
    """Print and return how many commands a second go through."""
    run, machine = run_flow(options, orders, len(orders) - PREFILL, 0)
    print(f"\nas fast as it goes, for {options.seconds:g} s or {len(orders) - PREFILL:,} commands")
    made = run.counts["reports made"] / run.counts["commands sent"] * run.achieved
    print(f"  {run.achieved:,.0f} commands a second, {made:,.0f} reports a second, all answered and on the feed")
    print(
        f"  {run.counts['matcher batches']:,} batches, {run.counts['matcher waits']:,} waits for a reader of the tape"
    )
    print(f"  the machine alone: {machine}")
    show_counts(run)
    show_cpu(run)
    return {"achieved": run.achieved, "counts": run.counts, "lost": run.lost, "cpu_ns": run.cpu_ns, "cores": run.cores}


def measure_stages(options: argparse.Namespace, orders: Orders) -> dict[str, Any]:
    """Print and return the time from the ring to the tape, of a matcher and nothing else."""
    print("\nring to report: a matcher alone, us from when a record was due in the ring to its report on the tape")
    results: dict[str, Any] = {}
    for rate in (one for one in STAGE_RATES if one <= max(options.rates)):
        count = min(int(rate * options.seconds), len(orders) - PREFILL)
        before = probe()
        latency, gaps, collapsed = run_stage(options, orders, count, rate)
        machine = between(before, probe())
        heading(f"{rate:,} a second" + (": COLLAPSED" if collapsed else ""))
        row: dict[str, Any] = {"machine": machine._asdict(), "raw": show("ring to report", latency)}
        row["censored"] = show(f"  less {gaps.mean():.2%}: gaps of either process", latency[~gaps])
        row["gaps_share"] = float(gaps.mean())
        print(f"  the machine alone: {machine}")
        results[str(rate)] = row
    return results


def run_stage(
    options: argparse.Namespace, orders: Orders, count: int, rate: int
) -> tuple[Integers, NDArray[np.bool_], bool]:
    """Offer records to a matcher; return their latencies, and which were due or on their way while we stood still."""
    total = PREFILL + count
    records = orders.records[:total].copy()
    records["time_ns"] = time.time_ns() + 1_000_000_000 + np.arange(total)  # any, as long as each is later
    records["command"]["order_id"] = (orders.owners[:total] + 1 << ACCOUNT_SHIFT) + orders.targets[:total]
    records["kind"] = records["command"]["kind"]
    definition = np.frombuffer(define(), RECORD_DTYPE).copy()
    definition["time_ns"] = records["time_ns"][0] - 1
    data = memoryview(records.tobytes())
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="service-") as name:
        path = write_config(Path(name).absolute(), options, [], 16)
        write_users(path.parent / "ferrox.users", [])
        quiet, error = os.open(os.devnull, os.O_WRONLY), os.dup(2)
        if not options.log:
            os.dup2(quiet, 2)
        supervisor = Supervisor(read_config(path))
        try:
            supervisor.start("matcher")
            while supervisor.board.get("matcher", "state") != State.RUNNING:
                time.sleep(0.01)
            stage = Stage(supervisor, data, 2 * total + 1_000)
            stage.put(definition.tobytes())
            stage.offer(0, PREFILL, 0)
            time.sleep(0.1)
            pin_self(options, "client")
            gc.collect()
            gc.disable()
            start = stage.offer(PREFILL, total, rate)
            gc.enable()
        finally:
            supervisor.stop()
            os.dup2(error, 2)
            os.close(error)
            os.close(quiet)
    reports, times = stage.heard()
    seen = np.zeros(total, np.int64)
    first_times(seen, orders.answered(reports), times)
    assert (seen[PREFILL:] > 0).all(), "every record has its report"
    due = start + ((np.arange(count) + 1) / rate * 1e9).astype(np.int64)
    latency = seen[PREFILL:] - due
    hit = np.zeros(count, bool)
    answered = np.maximum.accumulate(seen[PREFILL:])
    for begin, end in stage.gaps:  # whose time from due to seen has a moment in common with a gap
        hit[np.searchsorted(answered, begin) : np.searchsorted(due, end, "right")] = True
    return latency, hit, float(np.median(latency)) > COLLAPSED_NS / 10


def define() -> bytes:
    """Return the record that defines the instrument."""
    flow: Flow = make("one", seed=1, messages=1, prefill=1, marketable=0.0, lifetime=young(2, 10), offset=1, largest=10)
    first: bytes = flow.records[:RECORD_SIZE]
    return first


class Stage:
    """Both ends of a matcher: its ring, and its tape."""

    def __init__(self, supervisor: Supervisor, data: memoryview, reports: int) -> None:
        """Take the places of gateway and publisher."""
        self.links = supervisor.links
        self.ring = Ring(self.links.ring)
        self.tape = TapeReader(self.links.tape, 0)
        self.tape.attach(0)
        self.data = data
        self.room = memoryview(bytearray(b"\1") * (reports * REPORT_SIZE))
        self.size = 0
        self.looks: list[tuple[int, int]] = []
        self.gaps: list[tuple[int, int]] = []
        self.schedule = os.open(f"/proc/{supervisor.children['matcher'].pid}/schedstat", os.O_RDONLY)

    def put(self, records: bytes) -> None:
        """Push records that are not part of the flow, and wait for their reports."""
        self.links.push(self.ring, records)
        while not self.take(time.monotonic_ns):
            pass

    def take(self, clock: Any) -> bytes:
        """Take what is on the tape."""
        reports: bytes = self.tape.read(16_384)
        if reports:
            now = clock()
            self.room[self.size : self.size + len(reports)] = reports
            self.size += len(reports)
            self.looks.append((now, self.size))
            self.tape.advance(len(reports) // REPORT_SIZE)
        return reports

    def offer(self, begin: int, end: int, rate: float) -> int:
        """Push records when they are due, and take reports, until all are answered; return the start.

        A gap is a look at the clock 10 us and more after the one before, or so much more time in which the matcher
        waited for a core, and lasts until the ring was seen empty again.
        """
        clock, push, data, ring = time.monotonic_ns, self.links.push, self.data, self.ring
        pushed = begin
        start = last = looked = clock()
        stood = 0
        waited = self.waited_ns()
        per_ns = rate / 1e9
        work = 0
        while True:
            now = clock()
            if now - last > HICCUP_NS + work:
                stood = stood or last
            last = now
            if now - looked > LOOK_NS:
                before, waited = waited, self.waited_ns()
                if waited - before > HICCUP_NS:
                    # It is counted when the matcher has its core again, which may be long after it began to wait.
                    stood = min(stood or looked, looked, now - LOOK_NS - (waited - before))
                looked = now
            if stood and not ring.look():
                self.gaps.append((stood, now))
                stood = 0
            due = min(begin + int((now - start) * per_ns), end) if rate else min(pushed + 256, end)
            work = 0  # what the turn may take us: a nanosecond a byte is plenty
            if due > pushed:
                due = min(due, pushed + 1_024)
                count = push(ring, bytes(data[pushed * RECORD_SIZE : due * RECORD_SIZE]))
                pushed += count
                work = count * RECORD_SIZE
            took = self.take(clock)
            work += len(took)
            if not took and pushed == end and self._rests():
                return start

    def waited_ns(self) -> int:
        """Return for how long the matcher was able to run and had no core."""
        return int(os.pread(self.schedule, 64, 0).split()[1])

    def _rests(self) -> bool:
        """Say whether nothing is on its way."""
        if self.ring.look():
            return False
        time.sleep(0.05)
        return self.tape.written() == self.tape.position

    def heard(self) -> tuple[NDArray[Any], Integers]:
        """Return the reports, and the time of each."""
        looks = np.array(self.looks, np.int64)
        reports = np.frombuffer(self.room[: self.size], REPORT_DTYPE)
        return reports, times_of(looks[:, 0], looks[:, 1], np.arange(1, len(reports) + 1) * REPORT_SIZE)


# -------------------------------------------------------------------------------------------------------------- memory


def measure_memory(options: argparse.Namespace) -> dict[str, Any]:
    """Print and return the memory of the service, with many orders and with many sessions."""
    print("\nmemory of all processes, PSS in MiB")
    resting = 10_000 if options.smoke else RESTING
    sessions = 20 if options.smoke else SESSIONS
    results: dict[str, Any] = {}
    with served(options, users=sessions, sessions=sessions + 24) as service:
        port = service.status()["processes"]["gateway"]["port"]
        results["idle"] = show_memory("idle", service)
        clients = [Client(port, user) for user in service.users[:1]]
        clients[0].received = np.zeros(resting * SEQUENCED + READ_SIZE, np.uint8)
        clients[0].view = clients[0].received.data
        packets = np.zeros(resting, NEW_PACKET)
        packets["length"], packets["type"] = NEW_PACKET.itemsize - 2, ord("U")
        packets["reference"] = packets["frame"]["order_id"] = np.arange(1, resting + 1)
        frame = packets["frame"]
        frame["kind"], frame["side"], frame["time_in_force"], frame["instrument"] = 1, 1, 1, 1
        frame["price"], frame["quantity"] = 1 + np.arange(resting) % 50_000, 1
        clients[0].stream = packets.view(np.uint8).data
        clients[0].ends = np.arange(resting + 1) * NEW_PACKET.itemsize
        drive(clients, 0, resting, 0)
        drain(clients, 0.3)
        held = service.settled()["processes"]["gateway"]["resting"]
        results["orders"] = show_memory(f"{held:,} resting orders", service)
        clients += [Client(port, user, 4_096) for user in service.users[1:]]
        time.sleep(0.5)
        count = service.status()["processes"]["gateway"]["connections"]
        results["sessions"] = show_memory(f"and {count:,} sessions", service)
    return results


def show_memory(name: str, service: Service) -> dict[str, float]:
    """Print and return the memory of each process."""
    sizes = {}
    for role, process in service.processes().items():
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        sizes[role] = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    sizes["all"] = sum(sizes.values())
    print(f"{name:<40}" + "  ".join(f"{role} {size:,.0f}" for role, size in sizes.items()), flush=True)
    return sizes


# ---------------------------------------------------------------------------------------------------------------- main


def parse() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="trip, rates, stages, peak, memory")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rates", default=RATES, help="commands a second of the open loop")
    parser.add_argument("--durability", default="D0", help="level of the journal")
    parser.add_argument("--lines", choices=("a", "ab"), default="a", help="of the feed")
    parser.add_argument("--clients", type=int, default=2, help="connections, each of an account")
    parser.add_argument("--orders", type=int, default=1_000_000, help="capacity of the book")
    parser.add_argument("--pin", default="", help="cores by role, as matcher=0,gateway=1; client and subscriber too")
    parser.add_argument("--directory", type=Path, default=Path(), help="where the files go")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--memory", action="store_true", help="the memory as well")
    parser.add_argument("--log", action="store_true", help="show what the service says")
    parser.add_argument("--smoke", action="store_true", help="as little of each as shows that it works")
    options = parser.parse_args()
    options.rates = [int(rate) for rate in options.rates.split(",")]
    options.pin = {role: int(core) for role, _, core in (one.partition("=") for one in options.pin.split(",") if one)}
    options.trips = TRIPS
    if options.smoke:
        options.seconds, options.rates, options.trips = 0.5, [10_000, 100_000], 1_000
    return options


def main() -> int:
    """Measure what is asked for, and return the exit status: 1 when anything was lost."""
    options = parse()
    CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    wanted = options.parts or ["trip", "rates", "stages", "peak"]
    results: dict[str, Any] = surroundings("fast", 1, 0)
    del results["rounds"], results["batch"]
    results["command"] = "python " + " ".join(["benchmarks/service.py", *sys.argv[1:]])
    compiled = not (ferrox.fast.engine.__file__ or "").endswith(".py")
    results["build"] = "compiled" if compiled else "PURE: these figures are of the interpreter"
    results["load"] = os.getloadavg()
    results |= {"durability": options.durability, "lines": options.lines, "clients": options.clients}
    results["pin"] = options.pin
    orders = None
    if set(wanted) & {"rates", "stages", "peak"}:
        orders = Orders(int(max(options.rates) * options.seconds), options.clients)
        fresh = float((~orders.cancels).mean())
        results["workload"] = (
            f"{fresh:.0%} new, {1 - fresh:.0%} cancels, {orders.trades:.2f} trades a new order, about 10,000 resting"
        )
    for name, value in results.items():
        print(f"{name:<12}{value}")
    sys.stdout.flush()
    if "trip" in wanted:
        results["trip"] = measure_trip(options)
    if orders is not None:
        for part, measure in (("rates", measure_rates), ("stages", measure_stages), ("peak", measure_peak)):
            if part in wanted:
                results[part] = measure(options, orders)
    if options.memory or "memory" in wanted:
        results["memory"] = measure_memory(options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    lost = [row["lost"] for row in (*results.get("rates", {}).values(), results.get("peak", {"lost": False}))]
    return int(any(lost))


if __name__ == "__main__":
    sys.exit(main())
