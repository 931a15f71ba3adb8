"""Fault tests 44 to 49: the feed on bad lines, in bad hands, and over many lives of the venue behind it.

Up to 46 the network is a list of arrivals in virtual time, so that what takes a minute of a feed takes seconds, and a
seed brings back every loss.  From 47 on it is the real service, its real lines, and processes that are killed.
"""

import contextlib
import heapq
import itertools
import json
import os
import random
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from ferrox.client.arbiter import SECOND_NS, Arbiter
from ferrox.client.datagrams import Datagrams
from ferrox.client.feed import Feed, FeedReceiver, LiveBooks, join
from ferrox.engine import Capacity, make_engine
from ferrox.journal import identify, read
from ferrox.journal.layout import HEADER_SIZE
from ferrox.lanes.packets import MESSAGE_SIZE, REPORTS_MAX, pack_packets
from ferrox.lanes.tape import TapeReader, TapeWriter, make_tape
from ferrox.messages import RECORD_SIZE, REPORT_SIZE, NewOrder
from ferrox.mold import END, HEARTBEAT, MOLD, PACKET_MAX, REASONS, UNAVAILABLE, Line, session_name
from ferrox.service.matcher import SESSION_NAME
from ferrox.service.publisher import Publisher
from ferrox.service.retransmitter import Retransmitter
from ferrox.service.snapshots import SnapshotServer
from ferrox.state import unpack_state
from ferrox.terms import ReportFlag
from ferrox.testing.sessions import apply_all
from ferrox.testing.workload import Shape, Workload

sys.path.insert(0, str(Path(__file__).parents[1] / "system"))
sys.path.insert(0, str(Path(__file__).parent))

from kit import LONG, forked, share  # type: ignore[import-not-found]
from service_kit import Service, free_port  # type: ignore[import-not-found]

pytestmark = pytest.mark.faults
NAME = "F00007ABCD"
SESSION = NAME.encode()
MILLISECOND = 1_000_000
LAST = int(ReportFlag.LAST)


def reports_of(count, seed=1):
    return random.Random(seed).randbytes(count * REPORT_SIZE)


@pytest.fixture
def closing():
    with contextlib.ExitStack() as stack:
        yield lambda thing: stack.enter_context(contextlib.closing(thing))


# --------------------------------------------------------------------------------------------------- 44: bad lines

SPACING_NS = 20_000
ANSWER_NS = 200_000
SHUFFLE = 64
"""How many packets another one may overtake."""
TWICE = 0.1


class BadNetwork:
    """Lines A and B and the way to a server, drawn as a whole and played in virtual time."""

    def __init__(self, seed, reports, loss):
        self.rng, self.loss, self.reports = random.Random(seed), loss, reports
        dice = np.random.default_rng(seed)
        self.packets, self.sent, place, total = [], [], 0, len(reports) // REPORT_SIZE
        while place < total:
            # As a publisher cuts that has much to send, and as one that has little.
            count = min(REPORTS_MAX if self.rng.random() < 0.7 else self.rng.randint(1, REPORTS_MAX), total - place)
            part = reports[place * REPORT_SIZE : (place + count) * REPORT_SIZE]
            self.packets.append(pack_packets(SESSION, place + 1, part))
            place += count
            self.sent.append(place)
        leaves = np.arange(1, len(self.packets) + 1) * SPACING_NS
        which = np.tile(np.arange(len(self.packets)), 4)  # twice on each line, where it comes twice
        comes = dice.random(len(which)) >= loss
        comes[2 * len(self.packets) :] &= dice.random(2 * len(self.packets)) < TWICE
        arrives = np.tile(leaves, 4) + dice.integers(0, SHUFFLE * SPACING_NS, len(which))
        order = np.argsort(arrives, kind="stable")
        order = order[comes[order]]
        self.arrivals = list(zip(arrives[order].tolist(), which[order].tolist(), strict=True))
        self.last = int(leaves[-1]) + SHUFFLE * SPACING_NS
        self.lost = int(np.count_nonzero(~comes[: 2 * len(self.packets)]))

    def line(self):
        """Give moments and packets: those of the stream, then a heartbeat a second, then the end."""
        for moment, which in self.arrivals:
            yield moment, self.packets[which]
        number = self.sent[-1] + 1
        for second in itertools.count(1):
            if self.rng.random() >= self.loss:
                yield self.last + second * SECOND_NS, MOLD.pack(SESSION, number, HEARTBEAT if second < 3 else END)

    def answer(self, request, now_ns):
        """Answer as the retransmission server does."""
        _, number, count = MOLD.unpack(request)
        behind = min(now_ns // SPACING_NS, len(self.sent)) - 1
        sent = self.sent[behind] if behind >= 0 else 0
        if number > sent:
            return None
        last = min(number + min(count, REPORTS_MAX) - 1, sent)
        return pack_packets(SESSION, number, self.reports[(number - 1) * REPORT_SIZE : last * REPORT_SIZE])

    def play(self, arbiter, check):
        """Play everything to an arbiter, which asks when it wants to; give what it delivers, and its number."""
        answers: list[tuple[int, int, bytes]] = []
        order = itertools.count()
        line = self.line()
        moment, packet = next(line)
        while not arbiter.ended:
            due = arbiter.due_ns()
            if answers and answers[0][0] <= moment and (due is None or answers[0][0] <= due):
                now, _, answer = heapq.heappop(answers)
                arbiter.answer(answer, now)
            elif due is not None and due < moment:
                now = max(due, now)
            else:
                now = moment
                arbiter.receive(packet, now)
                moment, packet = next(line)
            due = arbiter.due_ns()
            if (arbiter.gap and due is None) or (due is not None and due <= now):
                for request in arbiter.poll(now):
                    found = self.answer(request, now)
                    if found and self.rng.random() >= self.loss and self.rng.random() >= self.loss:  # there, and back
                        heapq.heappush(answers, (now + ANSWER_NS, next(order), found))
                due = arbiter.due_ns()
                if due is not None and due <= now:
                    now += 100_000
            number, reports = arbiter.take()
            if reports:
                yield number, reports
            if check and next(order) % 512 == 0:
                arbiter.check()


@pytest.mark.parametrize("loss", [0.001, 0.01, 0.1, 0.5])
def test_the_delivered_stream_is_the_sent_one_byte_for_byte(loss, tally):
    """Fault test 44, FEED-6, FEED-9, FEED-14: loss on both lines and of answers, repetition, and disorder."""
    count = share(200_000, 1_000_000)
    reports = memoryview(reports_of(count, 44))
    for seed in range(share(5, 100)):
        network = BadNetwork(seed, bytes(reports), loss)
        arbiter = Arbiter(NAME, 1, chance=random.Random(seed))
        place = 1
        for number, found in network.play(arbiter, check=not LONG):
            after = number + len(found) // REPORT_SIZE
            tally.expect("wrong", number == place, (seed, number, place))
            tally.expect("wrong", reports[(number - 1) * REPORT_SIZE : (after - 1) * REPORT_SIZE] == found, seed)
            place = after
        arbiter.check()
        tally.expect("lost", place == count + 1, (seed, place))
        tally["trials"] += count
        tally["faults"] += network.lost
        assert arbiter.counters["recovered"] or loss < 0.1
        assert not any(name.startswith("dropped") for name in arbiter.counters)


# -------------------------------------------------------------------------------------- 45: gaps in all places


def answered(arbiter, server, now_ns):
    """Let a receiver ask a real server until it has all, or knows that it cannot; return the last moment."""
    for moment in range(now_ns, now_ns + 2 * SECOND_NS, MILLISECOND):
        for request in arbiter.poll(moment):
            answer = server.answer(request, "127.0.0.1", moment)
            if answer:
                arbiter.answer(answer, moment)
        if not arbiter.gap or arbiter.lost:
            return moment
    return now_ns + 2 * SECOND_NS


def stream(reports, number=1):
    """Return the packets of a session, with heartbeats before it, in it and behind it, and its end."""
    count = len(reports) // REPORT_SIZE
    packets = [MOLD.pack(SESSION, number, HEARTBEAT)]
    for first in range(0, count, REPORTS_MAX):
        part = reports[first * REPORT_SIZE : (first + REPORTS_MAX) * REPORT_SIZE]
        packets.append(pack_packets(SESSION, number + first, part))
        if first in (2 * REPORTS_MAX, 3 * REPORTS_MAX):
            packets.append(MOLD.pack(SESSION, number + min(first + REPORTS_MAX, count), HEARTBEAT))
    after = number + count
    return [*packets, MOLD.pack(SESSION, after, HEARTBEAT), MOLD.pack(SESSION, after, END)]


@pytest.mark.parametrize("asks", ["at once", "at the end"])
def test_any_packets_of_a_session_may_be_lost(asks, closing, tally):
    """Fault test 45: every set of packets, the first, the last, those behind a heartbeat; the end comes once more."""
    tape = TapeWriter(make_tape(256))
    tape.begin(1, 0)
    server = closing(Retransmitter(tape, NAME, rate=1_000_000_000))
    reports = reports_of(6 * REPORTS_MAX + 5)
    tape.write(memoryview(reports), 1)
    packets = stream(reports)
    assert len(packets) == 12
    for lost in range(1 << len(packets)):
        arbiter, now, out = Arbiter(NAME, 1, chance=random.Random(lost)), 0, []
        for place, packet in enumerate([*packets, packets[-1]]):
            if place == len(packets) or not lost >> place & 1:
                arbiter.receive(packet, now)
            if asks == "at once":
                now = answered(arbiter, server, now)
            out.append(arbiter.take()[1])
        answered(arbiter, server, now)
        out.append(arbiter.take()[1])
        tally.trial(lost.bit_count())
        tally.expect("lost", arbiter.ended, f"{lost:012b}")
        tally.expect("wrong", b"".join(out) == reports, f"{lost:012b}")


def test_what_is_older_than_the_tape_is_said_to_be_and_nothing_behind_it_is_given(closing, tally):
    """Fault test 45, FEED-11, FEED-14: tapes that begin at every place of a gap, and gaps of every length."""
    count = 6 * REPORTS_MAX
    reports = reports_of(count)
    packets = [packet for packet in stream(reports) if len(packet) > MOLD.size]
    for written in range(count, count + 64 + 1, 1):
        tape = TapeWriter(make_tape(64 if written > count else 256))
        tape.begin(1, 0)
        for first in range(0, written, 32):
            some = (reports + reports)[first * REPORT_SIZE : min(first + 32, written) * REPORT_SIZE]
            tape.write(memoryview(some), 1)
        server = closing(Retransmitter(tape, NAME, rate=1_000_000_000))
        oldest = tape.oldest()
        for first, last in itertools.combinations(range(len(packets) + 1), 2):
            arbiter = Arbiter(NAME, 1)
            for packet in packets[:first] + packets[last:]:
                arbiter.receive(packet, 0)
            arbiter.receive(MOLD.pack(SESSION, count + 1, HEARTBEAT), 0)
            answered(arbiter, server, 0)
            missing = first * REPORTS_MAX + 1
            kept = missing >= oldest
            tally.trial(last - first)
            tally.expect("lost", arbiter.lost != kept, (oldest, first, last))
            tally.expect("wrong", kept or arbiter.kept == oldest, (oldest, arbiter.kept))
            expected = reports if kept else reports[: first * REPORTS_MAX * REPORT_SIZE]
            tally.expect("wrong", arbiter.take()[1] == expected, (oldest, first, last))


# ------------------------------------------------------------------------------------------ 46: malformed packets


def malformed(packet, dice):
    """Give the word for what is wrong, and a packet in which it is, of every kind that can be told from a right one."""
    for place in range(10):
        for value in range(256):
            if value != packet[place]:
                yield "session", packet[:place] + bytes([value]) + packet[place + 1 :]
    for number in (0, 2**62 + 1, 2**63, 2**64 - 1, *(2**62 + 1 + dice.getrandbits(60) for _ in range(100))):
        yield "number", packet[:10] + number.to_bytes(8, "big") + packet[18:]
    right = int.from_bytes(packet[18:20], "big")
    for count in range(65_536):
        if count != right:
            fits = count <= REPORTS_MAX or count in (UNAVAILABLE, END)
            yield "length" if fits else "count", packet[:18] + count.to_bytes(2, "big") + packet[20:]
    for size in range(len(packet)):
        if size != 20:  # where a count of messages is all that is left, the length is wrong too
            yield "length", packet[:size]
    yield "length", packet[:20]
    for more in (1, 2, MESSAGE_SIZE, 400):
        yield "length", packet + bytes(more)
    for message in range(right):
        place = 20 + message * MESSAGE_SIZE
        for size in (0, 1, 47, 49, 0x3000, 0xFFFF, *(dice.getrandbits(16) | 0x100 for _ in range(20))):
            yield "message", packet[:place] + size.to_bytes(2, "big") + packet[place + 2 :]
    for _ in range(share(20_000, 500_000)):
        yield "", dice.randbytes(dice.randrange(0, 2 * PACKET_MAX))


def test_malformed_packets_of_every_kind_are_dropped_and_counted(tally):
    """Fault test 46, FEED-7: on a line and as an answer, while a gap is open; nothing of the receiver moves."""
    reports = reports_of(4 * REPORTS_MAX)
    packets = [packet for packet in stream(reports) if len(packet) > MOLD.size]
    arbiter = Arbiter(NAME, 1)
    arbiter.receive(packets[0], 0)
    arbiter.receive(packets[2], 0)
    expected: dict[str, int] = dict.fromkeys(REASONS, 0)
    unknown = 0
    before = receiver_of(arbiter)
    for reason, bad in malformed(packets[1], random.Random(46)):
        for take in (arbiter.receive, arbiter.answer):
            take(bad, 0)
            tally.trial()
            if reason:
                expected[reason] += 1
            else:
                unknown += 1
            if reason and arbiter.counters[f"dropped.{reason}"] != expected[reason] and not unknown:
                tally.expect("undetected", False, (reason, bad[:32].hex(), len(bad)))
        if tally["trials"] % 1024 == 0:
            tally.expect("undetected", receiver_of(arbiter) == before, bad.hex())
    dropped = {name: arbiter.counters[f"dropped.{name}"] for name in REASONS}
    tally.expect("undetected", sum(dropped.values()) == tally["trials"] == sum(expected.values()) + unknown, dropped)
    tally.expect("undetected", receiver_of(arbiter) == before)
    arbiter.receive(packets[1], 0)
    arbiter.receive(packets[3], 0)
    tally.expect("wrong", arbiter.take() == (1, reports))


def receiver_of(arbiter):
    """Return all that a receiver knows, but for what it has counted as dropped."""
    counters = {name: count for name, count in arbiter.counters.items() if not name.startswith("dropped")}
    known = (arbiter.next, arbiter.known, arbiter.kept, arbiter.end, arbiter.session)
    return known, counters, list(arbiter._starts), list(arbiter._ends), dict(arbiter._pieces)


def test_malformed_requests_get_no_answer_and_are_counted(closing, tally):
    """Fault test 46, FEED-12: none of them costs anybody's allowance, and a right one is answered behind them."""
    tape = TapeWriter(make_tape(64))
    tape.begin(1, 0)
    tape.write(memoryview(reports_of(40)), 1)
    server = closing(Retransmitter(tape, NAME))
    right, dice = MOLD.pack(SESSION, 1, 29), random.Random(47)
    bad = [
        right[:place] + bytes([right[place] ^ 1 + value]) + right[place + 1 :]
        for place in range(10)
        for value in range(255)
    ]
    bad += [right[:size] for size in range(20)] + [right + bytes(more) for more in range(1, 45)]
    bad += [MOLD.pack(SESSION, number, 1) for number in (0, 41, 2**62, 2**63, 2**64 - 1)]
    bad += [MOLD.pack(SESSION, number, 0) for number in range(100)]
    bad += [dice.randbytes(dice.randrange(64)) for _ in range(share(20_000, 500_000))]
    for request in bad:
        tally.trial()
        tally.expect("undetected", server.answer(request, "127.0.0.1", 0) == b"", request.hex())
    stats = server.stats
    tally.expect("undetected", stats["malformed"] + stats["foreign"] + stats["early"] == stats["requests"] == len(bad))
    assert not server.rates.full_at
    assert server.answer(right, "127.0.0.1", 0) == pack_packets(SESSION, 1, reports_of(40)[: 29 * REPORT_SIZE])


# ------------------------------------------------------------------------------------- 47: a flood of requests

UDP_SEGMENT = 103
FLOOD_SECONDS = 4.0
AT_ONCE = 64
PAUSE = AT_ONCE / 150_000


def flood(service, session, out):
    """Ask a service's retransmission server more than 100,000 times a second, from one address, and throw mud."""
    source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    source.bind(("127.0.0.2", 0))
    source.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, MOLD.size)
    source.connect(("127.0.0.1", service.row("retransmitter")["port"]))
    mud = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    mud.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    requests = MOLD.pack(session, 1, REPORTS_MAX) * AT_ONCE
    datagrams, dice = Datagrams(), random.Random(47)
    begun = time.monotonic()
    sent = thrown = turns = 0
    answers: list[bytes] = []
    while time.monotonic() - begun < FLOOD_SECONDS:
        with contextlib.suppress(BlockingIOError):
            source.send(requests)
            sent += AT_ONCE
        answers += datagrams.take(source)
        turns += 1
        if turns % 16 == 0:
            for line in service.config.feed.line_a, service.config.feed.line_b:
                group, port = line.split(":")
                bad = session + dice.randbytes(dice.randrange(4)) if turns % 32 else dice.randbytes(dice.randrange(99))
                mud.sendto(bad, (group, int(port)))
                thrown += 1
        behind = begun + turns * PAUSE - time.monotonic()
        if behind > 0.001:
            time.sleep(behind)
    time.sleep(0.2)
    while found := datagrams.take(source):
        answers += found
    seconds = time.monotonic() - begun
    told = {"sent": sent, "thrown": thrown, "answers": len(answers), "kinds": len(set(answers)), "seconds": seconds}
    os.write(out, json.dumps(told).encode())


def test_a_flood_of_requests_gets_its_rate_and_another_subscriber_the_whole_feed(tmp_path, tally):
    """Fault test 47, FEED-7, FEED-12, FEED-14: the other one comes late, and asks for all that it missed meanwhile."""
    with Service(tmp_path, orders=200_000, tape=1 << 20) as service:
        client = service.client("maker", number=1)
        dice, back_out = random.Random(47), os.pipe()
        session = identify(service.journal).uuid, service.row("matcher")["epoch"]
        trade(client, dice, 3_000)
        child = forked(lambda: flood(service, session_name(*session).encode(), back_out[1]))
        receiver = FeedReceiver(service.feed(), session_name(*session), 1)
        heard = Listener(receiver)
        while not select.select((back_out[0],), (), (), 0)[0]:
            trade(client, dice, 500)
        told = json.loads(os.read(back_out[0], 4096))
        assert os.waitpid(child, 0)[1] == 0
        number = service.row("matcher")["reports"]
        heard.until(number)
        stats = service.row("retransmitter")
        client.close()
        assert service.stop() == 0
        heard.close()
    records = list(read(service.journal))
    engine = make_engine("fast", identify(service.journal).capacity)
    expected = b"".join(apply_all(engine, some) for some in records)
    for file in back_out:
        os.close(file)

    tally["trials"] += told["sent"]
    tally["faults"] += told["sent"] + told["thrown"]
    tally.expect("wrong", b"".join(heard.parts) == expected[: number * REPORT_SIZE], "the other subscriber's stream")
    # An allowance of a second's worth, and what is added to it while the flood lasts.
    tally.expect("wrong", 0 < told["answers"] <= 1_000 * (told["seconds"] + 1) + 1, told)
    assert told["kinds"] == 1
    assert stats["limited"] > 0
    assert receiver.counters["recovered"] > 0
    assert sum(receiver.counters[f"dropped.{reason}"] for reason in REASONS) > 0
    tally.note(
        f"{told['sent'] / FLOOD_SECONDS:,.0f} requests a second for {FLOOD_SECONDS:.0f} s, "
        f"{told['answers']:,} answers; "
        f"{number:,} reports to the other one, {receiver.counters['recovered']:,} of them repeated"
    )


def trade(client, dice, count):
    """Send orders that trade with each other, and take the answers."""
    for _ in range(0, count, 50):
        client.send_many(
            [NewOrder(dice.choice((1, 2)), 1, 0, 1, 0, 1000 + dice.randrange(-5, 6), 2) for _ in range(50)]
        )
        for _ in client.events(10.0):
            if not client.waiting:
                break


class Listener(threading.Thread):
    """Takes what a receiver gives, in a thread of its own."""

    def __init__(self, receiver):
        super().__init__(daemon=True)
        self.receiver, self.parts, self.number, self.over = receiver, list[bytes](), 0, False
        self.start()

    def run(self):
        while not self.over:
            found = self.receiver.read(0.05)
            if found:
                assert found[0] == self.number + 1
                self.parts.append(found[1])
                self.number += len(found[1]) // REPORT_SIZE

    def until(self, number):
        until = time.monotonic() + 60
        while self.number < number and time.monotonic() < until:
            time.sleep(0.01)
        assert self.number >= number

    def close(self):
        self.over = True
        self.join()
        self.receiver.close()


# ----------------------------------------------------------------------------------------------- 48: many lives


class Ear(threading.Thread):
    """Keeps every packet of both lines, as it came."""

    def __init__(self, lines):
        super().__init__(daemon=True)
        self.sockets = [join(Line(group, int(port)), "127.0.0.1", 64 << 20) for group, port in lines]
        self.packets: set[bytes] = set()
        self.over = False
        self.start()

    def run(self):
        datagrams = Datagrams()
        while not self.over:
            for line in select.select(self.sockets, (), (), 0.05)[0]:
                self.packets.update(datagrams.take(line))

    def close(self):
        self.over = True
        self.join()
        for line in self.sockets:
            line.close()


def kill_everything(service):
    """Kill every process of a service, the syncer too."""
    pids = [row["pid"] for row in service.status()["processes"].values()]
    pids += children_of(service.row("matcher")["pid"])
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    service.process.wait()


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lose_power(service, wire, dice):
    """Leave what a machine leaves that loses power: nothing of the records behind the last sync, and another boot."""
    until = time.monotonic() + 30
    while (row := service.row("matcher"))["durable"] < row["sequence"]:
        assert time.monotonic() < until, row
        time.sleep(0.01)
    (syncer,) = children_of(row["pid"])
    os.kill(syncer, signal.SIGSTOP)
    stopped = service.row("matcher")["sequence"]
    enter(wire, dice, 60)
    kill_everything(service)
    bases = {(int(path.stem[:20]), path.stem[21:]): path for path in service.journal.glob("*.wal")}
    base, epoch = max(place for place in bases if place[0] <= stopped + 1)  # behind it, some are prepared
    with bases[base, epoch].open("r+b") as file:
        place = HEADER_SIZE + (stopped + 1 - base) * RECORD_SIZE
        size = os.fstat(file.fileno()).st_size
        file.seek(place)
        assert any(file.read(60 * RECORD_SIZE))
        file.seek(place)
        file.write(bytes(size - place))
    name = service.journal / SESSION_NAME
    name.write_text(json.dumps(json.loads(name.read_text()) | {"boot": f"boot {stopped}"}))


def enter(wire, dice, count):
    """Enter orders of which no two are alike, and none trades, and wait for the answers."""
    for _ in range(count):
        wire.send(NewOrder(1, 1, 0, 1, 0, dice.randrange(1, 100_000), dice.randrange(1, 100_000)))
    for _ in range(count):
        wire.answer()


def test_no_number_of_a_session_ever_stands_for_two_reports(tmp_path, tally):
    """Fault test 48, FEED-1, FEED-2, FEED-8: matchers and whole services are killed, and machines lose power."""
    service, dice, lives = Service(tmp_path), random.Random(48), share(5, 60)
    ear = Ear([line.split(":") for line in service.lines])
    powerless = 0
    for life in range(lives):
        with service:
            wire = service.wire("maker")
            for _ in range(2):
                enter(wire, dice, 40)
                service.kill(dice.choice(("matcher", "matcher", "publisher")))
                tally.trial()
            enter(wire, dice, 40)
            tally.trial()
            if life == lives - 1:
                time.sleep(0.3)
                assert service.stop() == 0
            elif life % 2:
                lose_power(service, wire, dice)
                powerless += 1
            else:
                kill_everything(service)
    ear.close()
    service.verified()

    engine = make_engine("fast", identify(service.journal).capacity)
    reports = b"".join(apply_all(engine, records) for records in read(service.journal))
    numbered: dict[tuple[bytes, int], bytes] = {}
    alone: dict[int, set[bytes]] = {}
    for packet in ear.packets:
        session, number, count = MOLD.unpack_from(packet)
        if count not in (HEARTBEAT, END):
            assert len(packet) == MOLD.size + count * MESSAGE_SIZE
            for place in range(count):
                report = packet[22 + place * MESSAGE_SIZE : 20 + (place + 1) * MESSAGE_SIZE]
                before = numbered.setdefault((session, number + place), report)
                tally.expect("wrong", before == report, (session, number + place))
                alone.setdefault(number + place, set()).add(report)
    sessions = sorted({session for session, _ in numbered})
    assert len(sessions) == powerless + 1
    assert any(len(reports) > 1 for reports in alone.values())  # so the same number alone did stand for two
    last = {number: report for (session, number), report in numbered.items() if session == sessions[-1]}
    count = len(reports) // REPORT_SIZE
    tally.expect("lost", sorted(last) == list(range(min(last), count + 1)), (len(last), count))
    for number, report in last.items():
        tally.expect("wrong", reports[(number - 1) * REPORT_SIZE : number * REPORT_SIZE] == report, number)
    tally.note(
        f"{lives} lives, {powerless} losses of power, {len(sessions)} sessions, {len(numbered):,} reports in them"
    )


# --------------------------------------------------------------------------------------------- 49: the same books

SMALL = Shape(
    instruments=3, accounts=8, half_width=100, prefill=5, immigrants=16, lifetime_ns=2_000_000, lifetime_max_ns=10**7
)


def test_the_books_of_a_subscriber_are_the_engines_after_every_message(closing, tally):
    """Fault test 49, FEED-14: through the real lines, by the client library, from a state in the middle of a flow."""
    workload = Workload(49, share(50_000, 1_000_000), shape=SMALL)
    engine, memory = make_engine("fast", Capacity(4_096, 8)), make_tape(1 << 14)
    tape = TapeWriter(memory)
    tape.begin(1, 0)
    group = os.getpid() % 200 + 1
    lines = tuple(Line(f"239.255.{group}.{9 + side}", free_port()) for side in (0, 1))
    publisher = closing(Publisher(TapeReader(memory, 0), NAME, lines))
    flow = b"".join(chunk.tobytes() for chunk in workload)
    states: deque[tuple[int, object, object]] = deque()

    def run(first, last):
        for place in range(first * RECORD_SIZE, last * RECORD_SIZE, RECORD_SIZE):
            reports = bytes(engine.apply(flow[place : place + RECORD_SIZE])[1])
            state = unpack_state(engine.snapshot())
            tape.write(memoryview(reports), state.sequence)
            states.append((tape.written(), state.instruments, state.orders))
        while publisher.reader.position < tape.written():
            publisher.step()

    middle = workload.commands // 10
    run(0, middle)
    server = closing(SnapshotServer())
    server.offer(NAME, tape.written(), middle, bytes(16), engine.snapshot())
    states.clear()
    with LiveBooks(Feed(lines, snapshots=server.address)) as live:
        for first in range(middle, workload.commands, 64):
            run(first, min(first + 64, workload.commands))
            while live.number < tape.written():
                number, reports = live.receiver.read(10.0) or (0, b"")
                tally.expect("lost", number == live.number + 1, (number, live.number))
                for place in range(0, len(reports), REPORT_SIZE):
                    report = reports[place : place + REPORT_SIZE]
                    live.books.fold(report)
                    live.number += 1
                    if report[-1] & LAST:
                        tally.trial(0)
                        books = live.number, live.books.definitions(), live.books.orders()
                        tally.expect("wrong", books == states.popleft(), live.books.sequence)
        live.books.check()
    assert not states
    assert tally["trials"] == workload.commands - middle
