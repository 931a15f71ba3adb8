"""Arbitration: whatever the network does to packets, the stream that comes out is the one that went in (FEED-14).

The network here is a list of moments in virtual time: it loses, repeats and delays by seed.  What is delivered is
compared byte for byte, and the arbiter's whole invariant is asserted as it goes.
"""

import heapq
import os
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrox.client.arbiter import Arbiter, FeedState, Timing
from ferrox.lanes.packets import pack_packets
from ferrox.messages import REPORT_SIZE
from ferrox.mold import END, HEARTBEAT, MOLD, PACKET_MAX, UNAVAILABLE

NAME = "F00007ABCD"
SESSION = NAME.encode()
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
SEEDS = range(int(os.environ.get("FERROX_FEED_SEEDS", "3")))


def reports_of(count, seed=1):
    return random.Random(seed).randbytes(count * REPORT_SIZE)


def cut(number, reports, rng=None):
    """Cut a stream into packets, full ones or as a publisher cuts that is short of reports."""
    packets, place = [], 0
    while place < len(reports):
        size = (rng.randint(1, 29) if rng else 29) * REPORT_SIZE
        packets.append(pack_packets(SESSION, number + place // REPORT_SIZE, reports[place : place + size]))
        place += size
    return packets


class Server:
    """A retransmission server that has everything from `oldest` on."""

    def __init__(self, reports, oldest=1):
        self.reports, self.oldest = reports, oldest
        self.asked = []

    def answer(self, request, sent):
        session, number, count = MOLD.unpack(request)
        assert session == SESSION
        assert 1 <= count <= 29
        self.asked.append((number, count))
        if number > sent:
            return None
        if number < self.oldest:
            return MOLD.pack(SESSION, self.oldest, UNAVAILABLE)
        last = min(number + count - 1, sent)
        return pack_packets(SESSION, number, self.reports[(number - 1) * REPORT_SIZE : last * REPORT_SIZE])


class Network:
    """Two lines and a way to the server, all of them bad, in virtual time."""

    def __init__(self, seed, reports, *, loss, twice=0.0, shuffle=0, lines=2, spacing_ns=20_000, server_loss=None):
        self.rng = random.Random(seed)
        self.loss = loss
        self.server_loss = loss if server_loss is None else server_loss
        self.reports = reports
        self.server = Server(reports)
        self.moments = []
        self.order = 0
        sent = 0
        clock = 0
        for packet in cut(1, reports, self.rng):
            clock += spacing_ns
            sent += int.from_bytes(packet[18:20], "big")
            self.at(clock, "sent", sent)
            for _ in range(lines):
                self.deliver(clock, packet, twice, shuffle * spacing_ns)
        number = len(reports) // REPORT_SIZE + 1
        self.moments_end = clock
        for second in range(1, 30):
            packet = MOLD.pack(SESSION, number, HEARTBEAT if second < 3 else END)
            for _ in range(lines):
                self.deliver(clock + second * SECOND, packet, twice, 0)

    def at(self, moment, what, value):
        self.order += 1
        heapq.heappush(self.moments, (moment, self.order, what, value))

    def deliver(self, clock, packet, twice, delay):
        for _ in range(1 + (self.rng.random() < twice)):
            if self.rng.random() >= self.loss:
                self.at(clock + (self.rng.randrange(delay) if delay else 0), "line", packet)

    def play(self, arbiter, *, check=True):
        """Play everything to an arbiter; return what it delivered."""
        out, sent, place = [], 0, arbiter.next
        steps = waking = 0
        while self.moments and not arbiter.ended:
            now, _, what, value = heapq.heappop(self.moments)
            if what == "sent":
                sent = value
            elif what == "line":
                arbiter.receive(value, now)
            elif what == "answer":
                arbiter.answer(value, now)
            number, reports = arbiter.take()
            if reports:
                assert place is None or number == place
                place = number + len(reports) // REPORT_SIZE
                out.append(reports)
            for request in arbiter.poll(now):
                if self.rng.random() >= self.server_loss:
                    answer = self.server.answer(request, sent)
                    if answer and self.rng.random() >= self.server_loss:
                        self.at(now + 200_000, "answer", answer)
            due = arbiter.due_ns()
            if due is not None and not now < waking <= due:
                waking = max(due, now + 100_000)
                self.at(waking, "poll", None)
            steps += 1
            if check and steps % 50 == 0:
                arbiter.check()
        arbiter.check()
        return b"".join(out)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("lines", [1, 2])
@pytest.mark.parametrize("loss", [0.0, 0.001, 0.01, 0.1, 0.5])
def test_the_stream_is_the_same_whatever_is_lost_repeated_and_reordered(loss, lines, seed):
    """FEED-6, FEED-9, FEED-10, FEED-14: loss, one packet in ten twice, and up to 64 packets out of order."""
    reports = reports_of(20_000, seed)
    network = Network(seed, reports, loss=loss, twice=0.1, shuffle=64, lines=lines)
    arbiter = Arbiter(NAME, 1, chance=random.Random(seed))

    delivered = network.play(arbiter)

    assert delivered == reports
    assert arbiter.ended
    assert arbiter.counters["reports"] == 20_000
    assert not any(name.startswith("dropped") for name in arbiter.counters)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_server_line_b_brings_what_line_a_lost(seed):
    """FEED-6: a packet that one line loses comes on the other, and nobody is asked."""
    reports = reports_of(3_000, seed)
    rng = random.Random(seed)
    arbiter = Arbiter(NAME, 1)
    out = []

    for clock, packet in enumerate(cut(1, reports, rng)):
        lost = rng.choice("AB ")
        for line in "AB":
            if line != lost:
                arbiter.receive(packet, clock)
        out.append(arbiter.take()[1])
        assert arbiter.poll(clock) == []

    assert b"".join(out) == reports
    assert arbiter.counters["gaps"] == 0
    assert arbiter.counters["duplicates"] > 0


@given(st.randoms(use_true_random=False), st.integers(1, 40), st.integers(1, 200))
def test_pieces_of_any_cut_in_any_order_come_out_once(rng, pieces, count):
    """FEED-14: packets that overlap in every way, as when a publisher came back, deliver each report once."""
    reports = reports_of(count)
    arbiter = Arbiter(NAME, 1)
    packets = cut(1, reports, rng) + cut(1, reports, rng)
    for _ in range(pieces):
        first = rng.randrange(count)
        packets += cut(first + 1, reports[first * REPORT_SIZE : (first + rng.randint(1, 29)) * REPORT_SIZE])
    rng.shuffle(packets)
    out = []

    for packet in packets:
        rng.choice((arbiter.receive, arbiter.answer))(packet, 0)
        arbiter.check()
        out.append(arbiter.take()[1])

    assert b"".join(out) == reports
    assert arbiter.next == count + 1
    assert not arbiter.gap


# ------------------------------------------------------------------------------------------------ gaps in all places


def repair(arbiter, server, now, sent):
    """Let a gap be asked for and answered; return the requests that it took."""
    asked = []
    for moment in range(now, now + SECOND, MILLISECOND):
        for request in arbiter.poll(moment):
            asked.append(MOLD.unpack(request)[1:])
            answer = server.answer(request, sent)
            if answer:
                arbiter.answer(answer, moment)
    return asked


@pytest.mark.parametrize("lost", [0, 1, 4, 9])
def test_each_lost_packet_is_asked_for_once_and_comes_back(lost):
    """FEED-9, FEED-10: the first packet, one in the middle, the last."""
    reports = reports_of(290)
    arbiter, server = Arbiter(NAME, 1), Server(reports)

    for place, packet in enumerate(cut(1, reports)):
        if place != lost:
            arbiter.receive(packet, 0)
    arbiter.receive(MOLD.pack(SESSION, 291, HEARTBEAT), 0)
    before = arbiter.take()[1]
    assert arbiter.state(0) is FeedState.GAP
    asked = repair(arbiter, server, 0, 290)

    assert before == reports[: lost * 29 * REPORT_SIZE]
    assert before + arbiter.take()[1] == reports
    assert asked == [(lost * 29 + 1, 29)]
    assert arbiter.counters["recovered"] == 29
    assert arbiter.counters["gaps"] == 1
    assert arbiter.state(SECOND) is FeedState.SYNC


@pytest.mark.parametrize("says", [HEARTBEAT, END])
def test_what_is_lost_at_the_end_is_seen_by_the_next_heartbeat_or_the_end(says):
    """FEED-4, FEED-5: both say the number of the next report."""
    reports = reports_of(60)
    arbiter, server = Arbiter(NAME, 1), Server(reports)
    first, *_ = cut(1, reports)

    arbiter.receive(first, 0)
    assert arbiter.state(0) is FeedState.SYNC
    arbiter.receive(MOLD.pack(SESSION, 61, says), 0)
    assert arbiter.gap
    assert not arbiter.ended
    asked = repair(arbiter, server, 0, 60)

    assert sorted(asked) == [(30, 29), (59, 2)]
    assert arbiter.take() == (1, reports)
    assert arbiter.ended == (says == END)


def test_a_session_is_over_only_when_all_of_it_was_taken():
    """FEED-5."""
    reports = reports_of(10)
    arbiter = Arbiter(NAME, 1)

    arbiter.receive(pack_packets(SESSION, 1, reports), 0)
    arbiter.receive(MOLD.pack(SESSION, 11, END), 0)
    assert not arbiter.ended
    assert arbiter.take() == (1, reports)

    assert arbiter.ended


def test_a_gap_has_a_moment_to_fill_by_itself_and_who_asks_asks_by_chance():
    """FEED-9: nothing is asked in the grace, all in the spread after it, and not all receivers in one moment."""
    timing = Timing()
    reports = reports_of(87)
    first, _, third = cut(1, reports)
    moments = set()

    for seed in range(20):
        arbiter = Arbiter(NAME, 1, timing=timing, chance=random.Random(seed))
        arbiter.receive(first, 0)
        arbiter.receive(third, 0)
        assert arbiter.poll(0) == []
        assert arbiter.state(0) is FeedState.GAP
        due = arbiter.due_ns()
        assert due is not None
        assert timing.grace_ns <= due < timing.grace_ns + timing.spread_ns
        assert arbiter.poll(due - 1) == []
        assert arbiter.poll(due) == [MOLD.pack(SESSION, 30, 29)]
        assert arbiter.state(due) is FeedState.RECOVERING
        moments.add(due)

    assert len(moments) == 20


def test_a_request_that_is_lost_is_put_again_more_and_more_rarely():
    """FEED-9."""
    timing = Timing(give_up_ns=60 * SECOND)
    arbiter = Arbiter(NAME, 1, timing=timing, chance=random.Random(1))
    arbiter.receive(pack_packets(SESSION, 30, reports_of(1)), 0)

    moments = [now for now in range(0, 8 * SECOND, MILLISECOND) if arbiter.poll(now)]

    pauses = [after - before for before, after in pairwise(moments)]
    assert pauses[:4] == sorted(pauses[:4])
    assert max(pauses) <= timing.timeout_max_ns + timing.spread_ns + MILLISECOND
    assert 25 <= len(moments) <= 45


def test_requests_keep_to_their_rate():
    """FEED-12: a receiver that lost very much stays below what the server answers."""
    arbiter = Arbiter(NAME, 1, timing=Timing(timeout_ns=MILLISECOND, timeout_max_ns=MILLISECOND))
    arbiter.receive(MOLD.pack(SESSION, 1_000_001, HEARTBEAT), 0)

    requests = sum(len(arbiter.poll(now)) for now in range(0, 5 * SECOND, MILLISECOND))

    assert 3_900 <= requests <= 4_200


def test_what_is_not_kept_is_said_and_a_state_leads_on():
    """FEED-11, FEED-13, FEED-14: nothing behind the gap is delivered before a state is taken."""
    reports = reports_of(1_000)
    arbiter, server = Arbiter(NAME, 101), Server(reports, oldest=601)
    for packet in cut(1, reports)[20:]:
        arbiter.receive(packet, 0)

    repair(arbiter, server, 0, 1_000)
    assert arbiter.lost
    assert arbiter.kept == 601
    assert arbiter.state(0) is FeedState.RECOVERING
    assert arbiter.take() == (0, b"")
    arbiter.begin(NAME, 701)
    assert not arbiter.lost
    for packet in cut(1, reports)[30:]:
        arbiter.receive(packet, 0)
    repair(arbiter, server, 0, 1_000)

    assert arbiter.take() == (701, reports[700 * REPORT_SIZE :])


def test_where_nobody_answers_a_report_is_given_up():
    """FEED-14: and still nothing behind it is delivered."""
    arbiter = Arbiter(NAME, 1)
    arbiter.receive(pack_packets(SESSION, 30, reports_of(3)), 0)

    for now in range(0, 11 * SECOND, SECOND // 10):
        arbiter.poll(now)

    assert arbiter.lost
    assert arbiter.kept == 30
    assert arbiter.take() == (0, b"")


def test_more_than_the_window_is_asked_for_when_its_turn_comes():
    """FEED-14: memory has a bound, and the stream is whole all the same."""
    reports = reports_of(5_000)
    arbiter = Arbiter(NAME, 1, timing=Timing(window=400))
    server = Server(reports)

    for packet in cut(1, reports)[1:]:
        arbiter.receive(packet, 0)
        arbiter.check()
    assert arbiter.counters["beyond"] > 100
    repair(arbiter, server, 0, 5_000)

    assert arbiter.take() == (1, reports)


def test_a_receiver_is_stale_when_three_heartbeats_are_missing():
    """FEED-4: and it is in step again with the next packet."""
    arbiter = Arbiter(NAME, 1)
    heartbeat = MOLD.pack(SESSION, 1, HEARTBEAT)

    assert arbiter.state(0) is FeedState.STALE
    arbiter.receive(heartbeat, SECOND)
    assert arbiter.state(4 * SECOND) is FeedState.SYNC
    assert arbiter.state(5 * SECOND) is FeedState.STALE
    arbiter.receive(heartbeat, 6 * SECOND)
    assert arbiter.state(6 * SECOND) is FeedState.SYNC


def test_who_wants_no_number_begins_with_what_is_heard_first():
    """FEED-8, FEED-14."""
    reports = reports_of(5)
    arbiter = Arbiter()

    arbiter.receive(b"no feed at all", 0)
    arbiter.receive(pack_packets(SESSION, 77, reports), 0)
    arbiter.receive(pack_packets(b"F00008ABCD", 82, reports), 0)

    assert arbiter.take() == (77, reports)
    assert arbiter.session == SESSION
    assert arbiter.foreign == "F00008ABCD"
    assert arbiter.counters["dropped.length"] == arbiter.counters["dropped.session"] == 1


def test_packets_that_are_not_right_are_dropped_and_counted_and_change_nothing():
    """FEED-7: among right ones, on the lines and from the server."""
    reports = reports_of(290)
    arbiter = Arbiter(NAME, 1)
    packets = cut(1, reports)
    wrong = {
        "length": packets[3][:-1],
        "session": b"F00007ABCE" + packets[3][10:],
        "number": SESSION + bytes(8) + packets[3][18:],
        "count": SESSION + packets[3][10:18] + b"\0\x1e" + packets[3][20:] + bytes(50),
        "message": packets[3][:20] + b"\0\x31" + packets[3][22:],
    }

    for packet in packets:
        for bad in wrong.values():
            arbiter.receive(bad, 0)
            arbiter.answer(bad, 0)
        arbiter.receive(MOLD.pack(SESSION, 5, UNAVAILABLE), 0)  # an answer, on a line
        arbiter.answer(MOLD.pack(SESSION, 5, END), 0)  # what belongs to a line, as an answer
        arbiter.receive(packet, 0)

    assert arbiter.take() == (1, reports)
    expected = {f"dropped.{name}": 2 * len(packets) for name in wrong} | {"dropped.count": 4 * len(packets)}
    assert {name: arbiter.counters[name] for name in expected} == expected
    assert arbiter.counters["packets"] == len(packets)
    assert not arbiter.lost
    assert not arbiter.ended


def test_an_answer_that_nobody_waits_for_changes_nothing():
    """FEED-11: what is not kept matters only to who misses it."""
    arbiter = Arbiter(NAME, 1)

    arbiter.receive(pack_packets(SESSION, 1, reports_of(2)), 0)
    arbiter.answer(MOLD.pack(SESSION, 900, UNAVAILABLE), 0)

    assert not arbiter.lost
    assert arbiter.state(0) is FeedState.SYNC


def test_another_session_begins_where_its_state_says():
    """FEED-8: packets of the old one are foreign from there on."""
    reports = reports_of(2)
    arbiter = Arbiter(NAME, 1)
    arbiter.receive(pack_packets(SESSION, 1, reports), 0)
    arbiter.take()

    arbiter.begin("F00008ABCD", 2)
    arbiter.receive(pack_packets(SESSION, 3, reports), 0)
    arbiter.receive(pack_packets(b"F00008ABCD", 2, reports), 0)

    assert arbiter.take() == (2, reports)
    assert arbiter.counters["dropped.session"] == 1


def test_a_packet_has_the_size_of_29_reports_at_most():
    """FEED-3."""
    assert {len(packet) for packet in cut(1, reports_of(87))} == {PACKET_MAX}
