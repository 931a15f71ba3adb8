"""The arbiter: packets of both lines in, one stream of reports out, in order, each once, none behind a gap (FEED-14).

It touches no socket and asks no clock, so every loss, order and moment can be played to it.  Whatever came before its
turn is held as pieces that never overlap, because a repeated packet need not be cut where the first one was: an answer
begins where the gap does, and a publisher that came back cuts anew.

A gap is given a moment before anybody is asked, since the other line mostly brings what this one lost, and then a
random bit more, so that a thousand receivers that missed the same packet do not ask in the same microsecond.
"""

from bisect import bisect_right
from collections import Counter
from enum import Enum
from itertools import chain
from random import Random
from typing import Final

from attrs import define, field, frozen
from attrs.validators import gt

from ferrox.lanes.packets import REPORT_SIZE, REPORTS_MAX
from ferrox.mold import END, HEARTBEAT, MOLD, UNAVAILABLE, Dropped, encode_session, unpack

SECOND_NS: Final = 1_000_000_000
MILLISECOND_NS: Final = 1_000_000


class FeedState(Enum):
    """How a receiver stands with the feed."""

    SYNC = "sync"
    """Nothing is missing."""
    GAP = "gap"
    """Something is missing, and may yet come on the other line."""
    RECOVERING = "recovering"
    """A retransmission is asked for, or a state is."""
    STALE = "stale"
    """Nothing is heard of the session."""


@frozen
class Timing:
    """When a receiver asks, how often, and how much it holds meanwhile."""

    grace_ns: int = field(default=2 * MILLISECOND_NS, validator=gt(0))
    """How long a gap may fill by itself."""
    spread_ns: int = field(default=2 * MILLISECOND_NS, validator=gt(0))
    """The most that chance adds to that."""
    timeout_ns: int = field(default=20 * MILLISECOND_NS, validator=gt(0))
    """How long an answer may take before the question is put again; doubled each time,"""
    timeout_max_ns: int = field(default=SECOND_NS // 4, validator=gt(0))
    """up to this."""
    rate: int = field(default=800, validator=gt(0))
    """Requests a second; the server answers 1,000 (FEED-12), and one address may have several receivers."""
    at_once: int = field(default=64, validator=gt(0))
    """Requests under way at a time."""
    window: int = field(default=1 << 19, validator=gt(0))
    """Reports that are held behind a gap, 24 MB; what is further on is dropped, and asked for later.  Half a second of
    a million reports a second: a request and its answer may be lost a few times before a window is full."""
    give_up_ns: int = field(default=10 * SECOND_NS, validator=gt(0))
    """How long a report may be missing before it counts as lost, whatever a server says or does not say."""
    stale_ns: int = field(default=3 * SECOND_NS + SECOND_NS // 2, validator=gt(0))
    """Three heartbeats, and some."""


@define
class Request:
    """What is known of one request: when it is to be put, and how often it was."""

    due_ns: int
    tries: int = 0


class Arbiter:
    """Gives the stream of one session; `receive` and `answer` take packets, `take` gives what is complete."""

    def __init__(
        self,
        session: str | None = None,
        number: int | None = None,
        *,
        timing: Timing | None = None,
        chance: Random | None = None,
    ) -> None:
        """Want the reports from `number` on; for None, of the first session that is heard, from what is heard first."""
        self.timing = timing or Timing()
        self.counters: Counter[str] = Counter()
        """packets, reports, duplicates (packets), gaps, recovered (reports by retransmission), requests, unavailable,
        beyond (packets further on than the window), and dropped.REASON."""
        self.session: bytes | None = None if session is None else encode_session(session)
        self.next: int | None = number
        """The number of the report that is wanted next."""
        self.known = number or 0
        """The number of the first report of which nothing is known."""
        self.kept: int | None = None
        """The first number that can still be had, when it is known that the ones before cannot."""
        self.end: int | None = None
        """The number at which the session ends, when it was said."""
        self.foreign: str | None = None
        """The session that was heard last and is another one."""
        self._chance = chance or Random()  # noqa: S311 (it spreads requests, and keeps no secret)
        self._ready: list[bytes] = []
        self._starts: list[int] = []  # of the runs that are held, ascending: as many as there are gaps
        self._ends: list[int] = []  # and the numbers behind them
        self._pieces: dict[int, bytes] = {}
        self._held = 0
        self._requests: dict[int, Request] = {}  # by the first number that each asks for
        self._free_ns = 0  # when the next request may leave
        self._heard_ns: int | None = None
        self._waiting = (0, 0)  # for which number, since when

    # ------------------------------------------------------------------------------------------------ what comes in

    def receive(self, packet: bytes, now_ns: int) -> None:
        """Take a packet of either line; what is not right is dropped and counted (FEED-7)."""
        try:
            number, count, reports = unpack(packet, self.session)
            if count == UNAVAILABLE:
                raise Dropped("count")  # an answer, and no line carries those  # noqa: TRY301
        except Dropped as dropped:
            self._drop(packet, dropped)
            return
        self._heard_ns = now_ns
        self.counters["packets"] += 1
        if self.session is None:
            self.session = packet[:10]
        if self.next is None:
            self.next = self.known = number
        if count in (HEARTBEAT, END):
            if count == END:
                self.end = number
            self._know(number)
        else:
            self._add(number, count, reports)

    def answer(self, packet: bytes, now_ns: int) -> None:  # noqa: ARG002 (as `receive`)
        """Take a packet of the retransmission server."""
        try:
            number, count, reports = unpack(packet, self.session)
            if count in (HEARTBEAT, END):
                raise Dropped("count")  # noqa: TRY301
        except Dropped as dropped:
            self._drop(packet, dropped)
            return
        if self.next is None:
            return
        if count == UNAVAILABLE:
            if self.gap and number > self.next:
                self.counters["unavailable"] += 1
                self.kept = number
                self._know(number)
            return
        self.counters["recovered"] += self._add(number, count, reports)

    def begin(self, session: str, number: int) -> None:
        """Go on with another number, of this session or another one: that of the report behind a state."""
        name = encode_session(session)
        if name != self.session:
            self.session = name
            self._heard_ns = None
        self.next = self.known = number
        self.kept = self.end = self.foreign = None
        self._ready.clear()
        self._starts.clear()
        self._ends.clear()
        self._pieces.clear()
        self._requests.clear()
        self._held = 0

    # ----------------------------------------------------------------------------------------------- what comes out

    def take(self) -> tuple[int, bytes]:
        """Return the reports that are complete, and the number of the first; 0 and b"" when there are none."""
        if not self._ready:
            return 0, b""
        reports = self._ready[0] if len(self._ready) == 1 else b"".join(self._ready)
        self._ready.clear()
        count = len(reports) // REPORT_SIZE
        self.counters["reports"] += count
        assert self.next is not None
        return self.next - count, reports

    def poll(self, now_ns: int) -> list[bytes]:
        """Return the requests that are to be sent now."""
        if not self.gap or self.session is None:
            self._requests.clear()
            self._waiting = (0, 0)
            return []
        timing = self.timing
        if self._waiting[0] != self.next:
            self._waiting = (self.next or 0, now_ns)
        elif now_ns - self._waiting[1] > timing.give_up_ns:
            self.kept = self._starts[0] if self._starts else self.known
        requests: dict[int, Request] = {}
        packets = []
        for first, count in self.missing(timing.at_once):
            request = self._requests.get(first)
            if request is None:
                request = Request(now_ns + timing.grace_ns + self._chance.randrange(timing.spread_ns))
            requests[first] = request
            if request.due_ns <= now_ns and self._may_ask(now_ns):
                packets.append(MOLD.pack(self.session, first, count))
                timeout_ns = min(timing.timeout_ns << min(request.tries, 20), timing.timeout_max_ns)
                request.due_ns = now_ns + timeout_ns + self._chance.randrange(timing.spread_ns)
                request.tries += 1
        self._requests = requests
        self.counters["requests"] += len(packets)
        return packets

    def due_ns(self) -> int | None:
        """Return when `poll` has something to do next, as far as is known; None for never."""
        if not self._requests:
            return None
        return max(min(request.due_ns for request in self._requests.values()), self._free_ns - SECOND_NS // 10)

    def state(self, now_ns: int) -> FeedState:
        """Return how we stand."""
        if self._heard_ns is None or now_ns - self._heard_ns > self.timing.stale_ns:
            return FeedState.STALE
        if not self.gap:
            return FeedState.SYNC
        if self.lost or any(request.tries for request in self._requests.values()):
            return FeedState.RECOVERING
        return FeedState.GAP

    @property
    def gap(self) -> bool:
        """Say whether a report is missing that is known to be there."""
        return self.next is not None and self.next < self.known

    @property
    def lost(self) -> bool:
        """Say whether the next report is not kept any more, so that only a state helps."""
        return self.kept is not None and self.next is not None and self.next < self.kept

    @property
    def ended(self) -> bool:
        """Say whether the session is over, and every report of it here."""
        return self.end is not None and self.next == self.end and not self._ready

    def missing(self, limit: int) -> list[tuple[int, int]]:
        """Return what is missing in the window, the first and the count of each request for it, at most `limit`."""
        assert self.next is not None
        stop = self.next + self.timing.window
        found: list[tuple[int, int]] = []
        place = self.next
        for start, end in chain(zip(self._starts, self._ends, strict=True), ((self.known, 0),)):
            while place < start:
                if len(found) == limit or place >= stop:
                    return found
                count = min(start - place, REPORTS_MAX, stop - place)
                found.append((place, count))
                place += count
            place = end
        return found

    def check(self) -> None:
        """Assert the whole invariant, slowly."""
        place = self.next or 0
        held = 0
        for start, end in zip(self._starts, self._ends, strict=True):
            assert place < start < end, "something is missing before each run"
            place = start
            while place < end:
                count = len(self._pieces[place]) // REPORT_SIZE
                place += count
                held += count
            assert place == end, "the pieces of a run fill it"
        assert self._held == held == sum(map(len, self._pieces.values())) // REPORT_SIZE
        assert held == 0 or place <= self.known
        assert held == 0 or place - (self.next or 0) <= self.timing.window

    # -------------------------------------------------------------------------------------------------- how it goes

    def _drop(self, packet: bytes, dropped: Dropped) -> None:
        self.counters[f"dropped.{dropped.reason}"] += 1
        if dropped.reason == "session":
            self.foreign = packet[:10].decode("ascii", "replace")

    def _know(self, number: int) -> None:
        """Know that there are reports up to a number, without it."""
        if number > self.known:
            if not self.gap:
                self.counters["gaps"] += 1
            self.known = number

    def _add(self, number: int, count: int, reports: bytes) -> int:
        """Take reports for the stream, or hold them until it is their turn; return how many are new."""
        assert self.next is not None
        after = number + count
        if after <= self.next:
            self.counters["duplicates"] += 1
            return 0
        if number <= self.next and not self._starts:  # nearly always
            added = after - self.next
            self._ready.append(reports[(count - added) * REPORT_SIZE :])
            self.next = after
            self.known = max(self.known, after)
            return added
        if number > self.next:
            self._know(after)
        if after - self.next > self.timing.window:
            self.counters["beyond"] += 1
            return 0
        added = self._hold(max(number, self.next), after, number, reports)
        if not added:
            self.counters["duplicates"] += 1
        self._drain()
        return added

    def _hold(self, place: int, after: int, number: int, reports: bytes) -> int:
        """Hold of some reports what is not held yet; return how many."""
        starts, ends = self._starts, self._ends
        held = self._held
        index = bisect_right(starts, place)
        if index:
            place = max(place, ends[index - 1])
        while place < after:
            end = after if index == len(starts) else min(after, starts[index])
            self._pieces[place] = reports[(place - number) * REPORT_SIZE : (end - number) * REPORT_SIZE]
            self._held += end - place
            if index and ends[index - 1] == place:
                ends[index - 1] = end
            else:
                starts.insert(index, place)
                ends.insert(index, end)
                index += 1
            if index < len(starts) and starts[index] == end:
                ends[index - 1] = ends.pop(index)
                del starts[index]
            place = ends[index - 1]
        return self._held - held

    def _drain(self) -> None:
        """Put into the stream what is next and held."""
        assert self.next is not None
        if not self._starts or self._starts[0] != self.next:
            return
        del self._starts[0]
        end = self._ends.pop(0)
        self._held -= end - self.next
        while self.next < end:
            piece = self._pieces.pop(self.next)
            self._ready.append(piece)
            self.next += len(piece) // REPORT_SIZE
        self.known = max(self.known, self.next)

    def _may_ask(self, now_ns: int) -> bool:
        """Keep to the rate, a tenth of a second's worth at once."""
        free_ns = max(self._free_ns, now_ns)
        if free_ns - now_ns > SECOND_NS // 10:
            return False
        self._free_ns = free_ns + SECOND_NS // self.timing.rate
        return True
