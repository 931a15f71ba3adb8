"""The feed over real sockets: loopback multicast, a relay that loses, servers that repeat and that give states."""

import contextlib
import os
import random
import select
import socket
import struct
import threading
import time
from hashlib import sha256

import pytest

from ferrox.client.arbiter import FeedState, Timing
from ferrox.client.feed import Feed, FeedReceiver, LiveBooks, ReportsLost, fetch_snapshot, join
from ferrox.depth import Books
from ferrox.engine import Capacity, make_engine
from ferrox.errors import SnapshotCorrupt
from ferrox.lanes.packets import pack_packets
from ferrox.lanes.tape import ATTACHED, TapeReader, TapeWriter, make_tape
from ferrox.messages import RECORD_SIZE, REPORT_SIZE
from ferrox.mold import END, HEARTBEAT, MOLD, UNAVAILABLE, Line, Snapshot, pack_snapshot_head
from ferrox.service.publisher import Publisher
from ferrox.service.retransmitter import Rates, Retransmitter
from ferrox.service.snapshots import Limits, SnapshotServer
from ferrox.state import unpack_state
from ferrox.testing.workload import Workload

NAME = "F00007ABCD"
SESSION = NAME.encode()
UUID = bytes(range(16))
LAST_FLAG = 0x80
PATIENCE = 10.0
QUICK = Timing(timeout_ns=20_000_000, rate=5_000)

pytestmark = pytest.mark.timeout(60)


def reports_of(count, seed=1):
    return random.Random(seed).randbytes(count * REPORT_SIZE)


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


@pytest.fixture
def lines():
    """Two lines of this test alone: groups of this machine, ports that nobody has."""
    return tuple(Line(f"239.255.{os.getpid() % 200 + 1}.{place}", free_port()) for place in (1, 2))


@pytest.fixture
def closing():
    with contextlib.ExitStack() as stack:
        yield lambda thing: stack.enter_context(contextlib.closing(thing))


class Tapes:
    """A tape of which one writes and others read."""

    def __init__(self, capacity=1 << 14, first=1):
        self.shared = make_tape(capacity)
        self.writer = TapeWriter(self.shared)
        self.writer.begin(first, 0)
        self.sequence = 0

    def write(self, reports):
        self.sequence += 1
        assert self.writer.room() * REPORT_SIZE >= len(reports)
        self.writer.write(memoryview(reports), self.sequence)

    def reader(self):
        return TapeReader(self.shared, 0)


def send_all(publisher):
    """Step until nothing is left."""
    until = time.monotonic() + PATIENCE
    while publisher.reader.position < publisher.reader.written():
        assert time.monotonic() < until
        publisher.step()


def receive(heard, count=1):
    """Return packets that a plain socket hears."""
    packets: list[bytes] = []
    until = time.monotonic() + PATIENCE
    while len(packets) < count:
        assert select.select((heard,), (), (), until - time.monotonic())[0], f"{len(packets)} of {count} packets came"
        packets.append(heard.recv(4096))
    return packets


def silent(heard):
    return not select.select((heard,), (), (), 0.05)[0]


# ------------------------------------------------------------------------------------------------------ publisher


@pytest.mark.parametrize("segment", [True, False])
def test_lines_a_and_b_carry_the_same_packets_full_but_the_last(lines, closing, segment):
    """FEED-2, FEED-3, FEED-6: with the kernel cutting the packets, and one by one, the same bytes."""
    tapes = Tapes()
    heard = [closing(join(line, "127.0.0.1", 1 << 22)) for line in lines]
    publisher = closing(Publisher(tapes.reader(), NAME, lines, segment=segment))
    reports = reports_of(2_000)

    tapes.write(reports)
    send_all(publisher)
    a, b = (receive(line, 44 + 25) for line in heard)

    # A batch holds 44 packets; what is behind it begins a packet of its own.
    first = pack_packets(SESSION, 1, reports[: 1276 * REPORT_SIZE])
    second = pack_packets(SESSION, 1277, reports[1276 * REPORT_SIZE :])
    assert b"".join(a) == first + second
    assert a == b
    assert max(map(len, a)) == 1470
    assert publisher.stats["reports"] == 2_000
    assert publisher.stats["packets"] == 2 * len(a)
    assert publisher.stats["sends"] == (4 if segment else 2 * len(a))


class Clock:
    def __init__(self):
        self.now = 10**9

    def __call__(self):
        return self.now


def test_a_second_without_reports_brings_a_heartbeat_and_after_the_end_the_end(lines, closing):
    """FEED-4, FEED-5: once a second, with the number of the next report, and the end only behind all reports."""
    tapes, clock = Tapes(first=41), Clock()
    heard = closing(join(lines[0], "127.0.0.1", 1 << 20))
    publisher = closing(Publisher(tapes.reader(), NAME, lines, clock=clock))

    publisher.step()
    publisher.step()
    assert receive(heard) == [MOLD.pack(SESSION, 41, HEARTBEAT)]
    clock.now += 999_999_999
    publisher.step()
    assert silent(heard)
    clock.now += 1
    publisher.step()
    assert receive(heard) == [MOLD.pack(SESSION, 41, HEARTBEAT)]
    tapes.write(reports_of(1))
    publisher.end()
    publisher.step()
    assert receive(heard) == [pack_packets(SESSION, 41, reports_of(1))]
    for _ in range(3):
        clock.now += 1_000_000_000
        publisher.step()
        publisher.step()
    assert receive(heard, 3) == [MOLD.pack(SESSION, 42, END)] * 3
    assert silent(heard)
    assert (publisher.stats["heartbeats"], publisher.stats["ends"]) == (2, 3)


def test_a_publisher_that_comes_back_goes_on_where_the_last_one_was(lines, closing):
    """FEED-2, FEED-14: whenever it dies, no report is left out, and those that are sent twice are delivered once."""
    tapes = Tapes(capacity=1 << 12)
    reports = reports_of(3_000)
    out = []
    place = 0

    with FeedReceiver(Feed(lines), NAME, 1) as receiver:
        for generation in range(6):
            publisher = Publisher(tapes.reader(), NAME, lines)
            tapes.write(reports[place : place + 500 * REPORT_SIZE])
            place += 500 * REPORT_SIZE
            if generation % 2:
                # It dies when the packets have left and its place is not written yet.
                publisher.reader = Forgetful(publisher.reader)  # type: ignore[assignment]
                publisher.step()
            elif generation % 3:
                send_all(publisher)
            publisher.close()
        assert tapes.shared.words[64 + ATTACHED] == 1  # RING-9: the writer waits for who comes back
        publisher = closing(Publisher(tapes.reader(), NAME, lines))
        send_all(publisher)
        publisher.end()
        publisher.step()
        out = [found for _, found in receiver]

    assert b"".join(out) == reports
    assert receiver.counters["duplicates"] > 0
    assert receiver.counters["gaps"] == 0


class Forgetful:
    """A reader of a tape that dies before it has written down how far it is."""

    def __init__(self, reader):
        self.reader = reader

    def advance(self, count):
        pass

    def __getattr__(self, name):
        return getattr(self.reader, name)


def test_a_line_without_room_is_tried_again_and_nothing_is_lost(lines, closing):
    """FEED-6: EAGAIN and ENOBUFS of one line keep the batch, and the other line has it once."""
    tapes = Tapes()
    heard = [closing(join(line, "127.0.0.1", 1 << 20)) for line in lines]
    publisher = closing(Publisher(tapes.reader(), NAME, lines))
    wire = publisher._wires[1]
    real = wire.socket
    wire.socket = Full(real, [BlockingIOError(11, "full"), OSError(105, "no buffers")])
    reports = reports_of(100)
    tapes.write(reports)

    assert [publisher.step(), publisher.step()] == [0, 0]
    assert publisher.reader.position == 0
    assert publisher.step() == 100

    wire.socket = real
    assert publisher.reader.position == 100
    assert publisher.stats["blocked"] == 2
    for line in heard:
        assert b"".join(receive(line, 4)) == pack_packets(SESSION, 1, reports)
        assert silent(line)


def test_a_device_that_cannot_cut_gets_one_packet_after_the_other(lines, closing):
    """FEED-3."""
    tapes = Tapes()
    heard = closing(join(lines[0], "127.0.0.1", 1 << 20))
    publisher = closing(Publisher(tapes.reader(), NAME, lines))
    wire = publisher._wires[0]
    real = wire.socket
    wire.socket = Full(real, [OSError(5, "input/output error")])
    tapes.write(reports_of(100))

    assert publisher.step() == 100

    wire.socket = real
    assert not wire.segment
    assert b"".join(receive(heard, 4)) == pack_packets(SESSION, 1, reports_of(100))


def test_a_line_that_is_down_does_not_stop_the_other_and_both_down_wait(lines, closing):
    """FEED-6: what no line took is not sent."""
    tapes = Tapes()
    told: list[str] = []
    heard = closing(join(lines[0], "127.0.0.1", 1 << 20))
    publisher = closing(Publisher(tapes.reader(), NAME, lines, tell=told.append))
    first, second = publisher._wires
    real = first.socket, second.socket
    down = OSError(101, "network is unreachable")
    first.socket, second.socket = Full(real[0], [down]), Full(real[1], [down, down])
    tapes.write(reports_of(3))

    assert publisher.step() == 0
    publisher.wait()
    assert publisher.step() == 3

    first.socket, second.socket = real
    assert receive(heard) == [pack_packets(SESSION, 1, reports_of(3))]
    assert publisher.stats["failed"] == 3
    assert "unreachable" in told[0]


class Full:
    """A socket that fails some times and works then."""

    def __init__(self, real, errors):
        self.real, self.errors = real, errors

    def send(self, data):
        if self.errors:
            raise self.errors.pop(0)
        return self.real.send(data)

    def __getattr__(self, name):
        return getattr(self.real, name)


def test_a_publisher_that_sleeps_is_woken(lines, closing):
    """RING-5: it says that it sleeps; the writer rings."""
    tapes = Tapes()
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    publisher = closing(Publisher(tapes.reader(), NAME, lines, wake=wake))
    slept = []

    def ring():
        while not tapes.writer.sleepers() & 1:
            time.sleep(0.001)
        slept.append(True)
        tapes.write(reports_of(1))
        os.eventfd_write(wake, 1)

    ringer = threading.Thread(target=ring)
    ringer.start()
    publisher.wait(PATIENCE)
    ringer.join()

    assert slept
    assert publisher.step() == 1
    assert tapes.writer.sleepers() == 0
    os.close(wake)


# -------------------------------------------------------------------------------------------------- retransmission


def ask(number, count, session=SESSION):
    return MOLD.pack(session, number, count)


def test_a_request_is_answered_with_what_fits_and_is_there(closing):
    """FEED-9, FEED-10: in the bytes of the tape, at most 29, from a number in the middle of a packet too."""
    tapes = Tapes()
    server = closing(Retransmitter(tapes.writer, NAME))
    reports = reports_of(100)
    tapes.write(reports)

    def part(number, count):
        return pack_packets(SESSION, number, reports[(number - 1) * REPORT_SIZE : (number + count - 1) * REPORT_SIZE])

    assert server.answer(ask(1, 29), "127.0.0.1", 0) == part(1, 29)
    assert server.answer(ask(13, 1), "127.0.0.1", 0) == part(13, 1)
    assert server.answer(ask(20, 1_000), "127.0.0.1", 0) == part(20, 29)
    assert server.answer(ask(95, 29), "127.0.0.1", 0) == part(95, 6)


def test_what_is_not_kept_is_said(closing):
    """FEED-11: with the first number that is; so is what is overwritten while it is read."""
    tapes = Tapes(capacity=64)
    server = closing(Retransmitter(tapes.writer, NAME))
    for _ in range(4):
        tapes.write(reports_of(40))

    assert server.answer(ask(1, 29), "127.0.0.1", 0) == MOLD.pack(SESSION, 97, UNAVAILABLE)
    assert server.answer(ask(96, 29), "127.0.0.1", 0) == MOLD.pack(SESSION, 97, UNAVAILABLE)
    assert len(server.answer(ask(97, 29), "127.0.0.1", 0)) == 1470
    server.tape = Overtaking(tapes)
    assert server.answer(ask(97, 29), "127.0.0.1", 0) == MOLD.pack(SESSION, 137, UNAVAILABLE)


class Overtaking:
    """A tape whose writer is always quicker than who copies from it."""

    def __init__(self, tapes):
        self.tapes = tapes

    def copy(self, first, last):
        self.tapes.write(reports_of(40))
        return self.tapes.writer.copy(first, last)

    def __getattr__(self, name):
        return getattr(self.tapes.writer, name)


def test_some_requests_get_no_answer(closing):
    """FEED-12: another session, a count of 0, what is not sent yet, a wrong length, another network."""
    tapes = Tapes()
    tapes.write(reports_of(10))
    reader = tapes.reader()
    reader.attach(0)
    reader.advance(4)
    server = closing(Retransmitter(tapes.writer, NAME, publisher=0))

    for request in (
        ask(1, 1, b"F00008ABCD"),
        ask(1, 0),
        ask(0, 1),
        ask(5, 1),
        ask(2**64 - 1, 65_535),
        b"",
        ask(1, 1)[:-1],
    ):
        assert server.answer(request, "127.0.0.1", 0) == b""
    assert server.answer(ask(1, 1) + b"\0", "127.0.0.1", 0) == b""
    assert server.answer(ask(1, 1), "192.0.2.1", 0) == b""

    assert server.stats["answers"] == 0
    assert server.answer(ask(1, 29), "127.0.0.1", 0) == pack_packets(SESSION, 1, reports_of(10)[: 4 * REPORT_SIZE])


def test_a_flood_of_requests_is_answered_1000_times_a_second(closing):
    """FEED-12: by address, in the server's own time; another address is not touched by it."""
    clock = Clock()
    tapes = Tapes()
    tapes.write(reports_of(29))
    server = closing(Retransmitter(tapes.writer, NAME, clock=clock))
    flood = closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    other = closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    other.bind(("127.0.0.2", 0))

    for _ in range(300):  # three seconds: 100 requests each hundredth of one, ten times what is allowed
        for _ in range(100):
            flood.sendto(ask(1, 29), server.address)
        while server.step():
            pass
        clock.now += 10_000_000
    other.sendto(ask(1, 29), server.address)
    server.step()

    assert server.stats["requests"] == 30_001
    assert 3_000 <= server.stats["answers"] <= 4_001  # and what had gathered before the first
    assert len(receive(other)[0]) == 1470


def test_the_table_of_addresses_has_a_bound_that_gives_nobody_more():
    """FEED-12."""
    rates = Rates(10, 4)

    assert [rates.take("a", 0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert all(rates.take(source, 0) for source in "bcd")
    assert not rates.take("e", 0)
    assert len(rates.full_at) == 4
    assert not rates.take("a", 0)
    assert rates.take("e", 200_000_000)  # whose place was b's
    assert rates.take("a", 200_000_000)
    assert len(rates.full_at) <= 4


# -------------------------------------------------------------------------------------------- receiver, end to end


class Relay(threading.Thread):
    """Hears the publisher's lines, and passes on to others what it does not lose, in a wrong order at times."""

    def __init__(self, sources, targets, loss, seed):
        super().__init__(daemon=True)
        self.rng = random.Random(seed)
        self.loss = loss
        self.sources = [join(line, "127.0.0.1", 1 << 22) for line in sources]
        self.targets = targets
        self.stopping = False
        self.start()

    def run(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
            held = []
            while not self.stopping:
                for source in select.select(self.sources, (), (), 0.02)[0]:
                    packet = source.recv(4096)
                    target = self.targets[self.sources.index(source)]
                    copies = 1 + (self.rng.random() < 0.1)
                    held += [(target, packet) for _ in range(copies) if self.rng.random() >= self.loss]
                if held:
                    self.rng.shuffle(held)
                    count = len(held) if len(held) > 64 else self.rng.randint(0, len(held))
                    for target, packet in held[:count]:
                        out.sendto(packet, (target.group, target.port))
                    del held[:count]

    def close(self):
        self.stopping = True
        self.join()
        for source in self.sources:
            source.close()


class Loop(threading.Thread):
    """Steps something in a thread, as a process of the service does."""

    def __init__(self, thing):
        super().__init__(daemon=True)
        self.thing = thing
        self.stopping = False
        self.start()

    def run(self):
        self.thing.run(lambda: self.stopping)

    def close(self):
        self.stopping = True
        self.join()


@pytest.mark.parametrize("many", [True, False])
@pytest.mark.parametrize("loss", [0.0, 0.1, 0.5])
def test_what_a_bad_network_leaves_becomes_the_whole_stream(lines, closing, loss, many):
    """FEED-6, FEED-9, FEED-10, FEED-14: through a relay that loses, repeats and shuffles, with both lines."""
    tapes = Tapes(capacity=1 << 13)
    behind = tuple(Line(line.group, free_port()) for line in lines)
    server = closing(Retransmitter(tapes.writer, NAME, publisher=0, rate=100_000))
    publisher = closing(Publisher(tapes.reader(), NAME, lines))
    reports = reports_of(6_000)
    rng = random.Random(5)

    receiver = closing(FeedReceiver(Feed(behind, retransmission=server.address, timing=QUICK), NAME, 1, many=many))
    closing(Relay(lines, behind, loss, 7))
    closing(Loop(server))
    loop = closing(Loop(publisher))
    place = 0
    while place < len(reports):
        size = rng.randint(1, 200) * REPORT_SIZE
        while tapes.writer.room() < 200:
            time.sleep(0.001)
        tapes.write(reports[place : place + size])
        place += size
        time.sleep(0.001)
    publisher.end()
    out, following = [], 1
    for number, found in receiver:
        assert number == following
        following += len(found) // REPORT_SIZE
        out.append(found)
    loop.close()

    assert b"".join(out) == reports
    if loss > 0.1:
        assert receiver.counters["recovered"] > 0
    assert receiver.state is FeedState.SYNC


def test_what_is_lost_for_good_raises(lines, closing):
    """FEED-11, FEED-14: nothing behind it is delivered in silence."""
    tapes = Tapes(capacity=64)
    server = closing(Retransmitter(tapes.writer, NAME))
    for _ in range(3):
        tapes.write(reports_of(50))
    publisher = closing(Publisher(tapes.reader(), NAME, lines))
    receiver = closing(FeedReceiver(Feed(lines, retransmission=server.address, timing=QUICK), NAME, 1))
    closing(Loop(server))

    send_all(publisher)
    with pytest.raises(ReportsLost) as lost:
        receiver.read(PATIENCE)

    assert (lost.value.number, lost.value.kept) == (1, 87)


def test_reading_has_a_time_and_packets_of_others_are_counted(lines, closing):
    """FEED-7, FEED-8: another session on the same line is not ours."""
    tapes = Tapes()
    publisher = closing(Publisher(tapes.reader(), "F00008ABCD", lines))
    receiver = closing(FeedReceiver(Feed(lines), NAME, 1))
    tapes.write(reports_of(1))
    publisher.step()

    assert receiver.read(0.05) is None
    assert receiver.state is FeedState.STALE
    assert receiver.counters["dropped.session"] == 2
    assert receiver.arbiter.foreign == "F00008ABCD"


# ---------------------------------------------------------------------------------------------------------- states


def test_a_state_is_sent_with_its_header_and_its_hash_and_the_connection_closed(closing):
    """FEED-13."""
    state = make_engine("reference", Capacity(64, 4)).snapshot()
    server = closing(SnapshotServer())
    server.offer(NAME, 0, 0, UUID, state)

    with socket.create_connection(server.address, PATIENCE) as connection:
        data = b"".join(iter(lambda: connection.recv(65_536), b""))

    expected = Snapshot(NAME, 0, 0, state, UUID)
    assert data == pack_snapshot_head(expected) + state + sha256(state).digest()
    assert fetch_snapshot(*server.address) == expected


@pytest.mark.parametrize("place", [0, 9, 12, 40, 63, 64, 70, -33, -1, "short", "long"])
def test_a_state_that_is_damaged_is_refused(place):
    """FEED-13: any byte of it, fewer of them, or more."""
    state = make_engine("reference", Capacity(64, 4)).snapshot()
    data = bytearray(pack_snapshot_head(Snapshot(NAME, 3, 0, state, UUID)) + state + sha256(state).digest())
    if place == "short":
        del data[-1]
    elif place == "long":
        data.append(0)
    else:
        data[place] ^= 0x80
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        came, _ = listener.accept()
        with came:
            came.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    if place == 63:  # the uuid, which any value fits
        assert fetch_snapshot(*listener.getsockname(), timeout=PATIENCE).uuid != UUID
    else:
        with pytest.raises(SnapshotCorrupt):
            fetch_snapshot(*listener.getsockname(), timeout=PATIENCE)
    thread.join()
    listener.close()


def test_an_old_state_is_served_only_when_no_fresh_one_comes(closing):
    """FEED-13: who connects has a fresh one asked for; patience has an end."""
    state = make_engine("reference", Capacity(64, 4)).snapshot()
    asked = []
    server = closing(
        SnapshotServer(ask=lambda: asked.append(1), limits=Limits(fresh_seconds=0.0, patience_seconds=0.2))
    )
    server.offer(NAME, 1, 0, UUID, state)

    assert fetch_snapshot(*server.address).number == 1
    assert asked == [1]

    prompt = closing(SnapshotServer(ask=lambda: prompt.offer(NAME, 9, 0, UUID, state)))
    assert fetch_snapshot(*prompt.address).number == 9
    assert fetch_snapshot(*prompt.address).number == 9
    assert prompt.stats["offers"] == 1


def test_who_does_not_take_its_state_is_cut_and_others_are_bounded(closing):
    """FEED-13: a slow reader keeps nobody else out for long."""
    state = bytes(32 << 20)
    server = closing(SnapshotServer(limits=Limits(connections=2, seconds=0.5)))
    server.offer(NAME, 1, 0, UUID, state)
    slow = [socket.create_connection(server.address, PATIENCE) for _ in range(2)]
    until = time.monotonic() + PATIENCE

    while server.stats["connections"] < 2 and time.monotonic() < until:
        time.sleep(0.005)
    with socket.create_connection(server.address, PATIENCE) as third:
        assert third.recv(1) == b""
    while server.stats["cut"] < 2 and time.monotonic() < until:
        time.sleep(0.01)

    assert (server.stats["cut"], server.stats["refused"], server.stats["served"]) == (2, 1, 0)
    for connection in slow:
        connection.close()


def commands_of(count):
    """Return records of a busy venue, one by one."""
    records = b"".join(part.tobytes() for part in Workload(3, count))
    return [records[place : place + RECORD_SIZE] for place in range(0, len(records), RECORD_SIZE)]


def by_command(reports):
    """Cut reports behind the last one of each command (REPORT-4)."""
    start = 0
    for place in range(0, len(reports), REPORT_SIZE):
        if reports[place + 47] & LAST_FLAG:
            yield reports[start : place + REPORT_SIZE]
            start = place + REPORT_SIZE
    if start < len(reports):
        yield reports[start:]


def test_who_comes_late_has_the_engines_books_at_every_command(lines, closing):
    """FEED-1, FEED-13, FEED-14: a state in the middle, then the reports behind it, and after each command the books.

    The number of a report is counted from the first report of the first record, as anybody can who has the journal.
    """
    engine = make_engine("reference", Capacity(1 << 14, 512))
    tapes = Tapes(capacity=1 << 15)
    publisher = closing(Publisher(tapes.reader(), NAME, lines))
    states = {}
    number = 0
    records = commands_of(600)

    def run(some):
        nonlocal number
        for record in some:
            reports = bytes(engine.apply(record)[1])
            number += len(reports) // REPORT_SIZE
            state = unpack_state(engine.snapshot())
            states[state.sequence] = (state.instruments, state.orders)
            tapes.write(reports)
            publisher.step()

    run(records[:200])
    server = closing(SnapshotServer())
    repeater = closing(Retransmitter(tapes.writer, NAME, publisher=0))
    server.offer(NAME, number, unpack_state(engine.snapshot()).sequence, UUID, engine.snapshot())
    run(records[200:300])  # on the wire before the subscriber listens: it has to ask for them
    feed = Feed(lines, retransmission=repeater.address, snapshots=server.address, timing=QUICK)
    closing(Loop(repeater))
    with LiveBooks(feed) as live:
        run(records[300:])
        publisher.end()
        publisher.step()
        compared = 0
        while not live.ended:
            found = live.receiver.read(PATIENCE)
            if found is None:
                continue
            assert found[0] == live.number + 1
            for part in by_command(found[1]):
                live.books.fold(part)
                live.number += len(part) // REPORT_SIZE
                if part[-1] & LAST_FLAG:
                    assert (live.books.definitions(), live.books.orders()) == states[live.books.sequence]
                    compared += 1
        live.books.check()

        assert compared > 350
        assert live.number == number
        assert live.receiver.counters["recovered"] > 0
        for instrument in live.books:
            assert live[instrument].top() == live.books[instrument].top()


def test_books_whose_reports_are_lost_begin_again_with_a_state(lines, closing):
    """FEED-11, FEED-13, FEED-14: and are the engine's when all is read."""
    engine = make_engine("reference", Capacity(1 << 14, 512))
    tapes = Tapes(capacity=256)
    publisher = closing(Publisher(tapes.reader(), NAME, lines))
    number = 0

    def offer():
        state = engine.snapshot()
        server.offer(NAME, number, unpack_state(state).sequence, UUID, state)

    server = closing(SnapshotServer(ask=offer, limits=Limits(fresh_seconds=0.0)))
    repeater = closing(Retransmitter(tapes.writer, NAME, publisher=0))
    offer()
    feed = Feed(lines, retransmission=repeater.address, snapshots=server.address, timing=QUICK)
    for record in commands_of(600):
        reports = bytes(engine.apply(record)[1])
        number += len(reports) // REPORT_SIZE
        tapes.write(reports)
        send_all(publisher)
    assert number > 512

    begun: list[Snapshot] = []
    late = closing(FeedReceiver(feed, NAME, 1, begin=begun.append))
    closing(Loop(repeater))
    publisher.end()
    closing(Loop(publisher))
    assert list(late) == []

    assert [snapshot.number for snapshot in begun] == [number]
    books, state = Books(unpack_state(begun[0].state)), unpack_state(engine.snapshot())
    assert (books.definitions(), books.orders()) == (state.instruments, state.orders)
    assert late.counters["states"] == 1


def test_a_new_session_is_followed_by_way_of_its_state(lines, closing):
    """FEED-8, FEED-13: when the old one is silent and another one is heard."""
    state = make_engine("reference", Capacity(64, 4)).snapshot()
    server = closing(SnapshotServer())
    server.offer(NAME, 0, 0, UUID, state)
    feed = Feed(lines, snapshots=server.address, timing=Timing(stale_ns=100_000_000))
    with LiveBooks(feed) as live:
        assert live.receiver.session == NAME
        server.offer("F00008ABCD", 0, 0, UUID, state)
        publisher = closing(Publisher(Tapes().reader(), "F00008ABCD", lines))
        publisher.step()
        publisher.end()
        until = time.monotonic() + PATIENCE
        while not live.ended and time.monotonic() < until:
            publisher.step()
            live.step(0.05)

        assert live.ended
        assert live.receiver.session == "F00008ABCD"


def test_a_line_goes_no_further_than_this_machine(lines, closing):
    """FEED-6: unless its configuration says so."""
    publisher = closing(Publisher(Tapes().reader(), NAME, lines))

    for wire in publisher._wires:
        assert wire.socket.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 0
        interface = wire.socket.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, 4)
        assert struct.unpack("4B", interface) == (127, 0, 0, 1)
