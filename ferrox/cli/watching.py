"""What `ferrox watch` knows of a service: what the board says, and its own books at the end of the feed.

The feed has a thread of its own, because a state that takes long to come must not stop the picture.  It folds in
Python, at a few hundred thousand reports a second, and an engine may be quicker.  Whoever follows such a feed only
falls back further; so here the books are let go when they are too far behind what was published, and begin again with
a state, at most once in a while.  Trades are still read, as arrays, from what is passed over.
"""

import threading
import time
from collections import Counter, deque
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from attrs import define, evolve

from ferrox.cli.books import BookLevels, book_json, books_of
from ferrox.cli.service import status_of
from ferrox.client.arbiter import FeedState
from ferrox.client.feed import Feed, FeedReceiver, fetch_snapshot
from ferrox.depth import Books, ForeignReport
from ferrox.errors import CorruptInput, UsageError
from ferrox.messages import REPORT_DTYPE, REPORT_SIZE, Report, unpack_reports
from ferrox.mold import Line, Snapshot
from ferrox.service.board import ROLES
from ferrox.service.config import Config, split
from ferrox.service.latencies import since, summary
from ferrox.service.supervisor import ask
from ferrox.state import unpack_state
from ferrox.terms import ReportKind, Side
from ferrox.text import format_order_id

TRADES: Final = 12
"""Trades that are kept for the tape."""
HISTORY: Final = 29 * 16
"""Reports before the state that are asked for, so that the tape shows what traded before we came."""
PASSED_REPORTS: Final = 1 << 19
"""Reports that are kept to lead on from the next state, 24 MB."""
BEHIND_REPORTS: Final = 50_000
"""How far the books may be behind what was published before they begin again with a state."""
PIECE: Final = 4_096 * REPORT_SIZE
"""Bytes of reports that are folded at a time."""
STATE_SECONDS: Final = 1.0
"""From one state to the next, at least: the shadow has other work too."""
TOLD_SECONDS: Final = 3.0
"""How long the picture says so."""
FETCH_SECONDS: Final = 5.0
READ_SECONDS: Final = 0.1
ASK_SECONDS: Final = 1.0
BREATH_SECONDS: Final = 0.005
RATE_SECONDS: Final = 2.0
"""Over how long a rate is taken."""
RATES: Final = ("commands", "reports", "trades", "refused")


def feed_of(config: Config, status: dict[str, Any]) -> Feed:
    """Return where the feed of a running service is; raise `UsageError` when it has no lines."""
    processes, feed = status["processes"], config.feed
    lines = tuple(Line(*split(line)) for line in (feed.line_a, feed.line_b) if line)
    if not lines:
        raise UsageError(f"{config.path}: [feed] line_a and line_b are both empty, so there is no feed to watch")
    retransmission, snapshots = split(feed.retransmission), split(feed.snapshots)
    return Feed(
        lines=lines,
        interface=feed.interface,
        retransmission=(retransmission[0], retransmission[1] or processes["retransmitter"]["port"]),
        snapshots=(snapshots[0], snapshots[1] or processes["shadow"]["port"]),
        snapshot_seconds=FETCH_SECONDS,
    )


def reachable(feed: Feed) -> bool:
    """Say whether the ports of a feed are known by now."""
    return all(place is None or place[1] for place in (feed.retransmission, feed.snapshots))


@define
class Seen:
    """The feed as it is at one moment."""

    state: str = "waiting"
    session: str | None = None
    number: int = 0
    """Of the last report that is in the books."""
    behind: bool = False
    whole: bool = False
    """Whether the books have all that was published when we came."""
    gaps: int = 0
    recovered: int = 0
    states: int = 0
    """Taken since we came, the first one left out."""
    trades: int = 0
    problem: str | None = None
    """Why there are no books, or no newer ones."""


class Follower:
    """The books and the last trades of a feed, kept by a thread of its own."""

    def __init__(self) -> None:
        """Wait for `aim` to say where the feed is."""
        self.published = 0
        """The number of the last report that was sent, as far as the board has told."""
        self.books: Books | None = None
        self.busiest: int | None = None
        """The instrument with the most orders when we came."""
        self.trades: deque[tuple[int, Report]] = deque(maxlen=TRADES)
        self.lock = threading.Lock()
        self._feed: Feed | None = None
        self._receiver: FeedReceiver | None = None
        self._seen = Seen()
        self._folding = False
        self._position = 0  # of the last report that was read, be it in the books or not
        self._from = 0  # the number of the last state: a trade up to it is history, and counts in no rate
        self._passed: deque[tuple[int, bytes]] = deque()  # what was read and is not in the books
        self._before: Counter[str] = Counter()  # what the receiver had counted when the history was there
        self._state_due = 0.0
        self._allowed = BEHIND_REPORTS
        self._behind_at = -TOLD_SECONDS
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def aim(self, feed: Feed) -> None:
        """Follow this feed from now on."""
        self._feed = feed

    def seen(self) -> Seen:
        """Return how we stand with the feed."""
        with self.lock:
            return evolve(self._seen, behind=time.monotonic() - self._behind_at < TOLD_SECONDS)

    def book(self, instrument: int) -> BookLevels | None:
        """Return a book as it is now, None when there is none."""
        with self.lock:
            if self.books is None or instrument not in self.books:
                return None
            view = self.books[instrument]
            depth, definition = view.depth(), view.definition
        return BookLevels(
            instrument,
            depth.sequence,
            int(view.state),
            definition.tick,
            definition.lot,
            definition.band_low,
            definition.band_high,
            sum(level.orders for level in (*depth.bid_levels, *depth.ask_levels)),
            depth.bid_levels,
            depth.ask_levels,
        )

    def last_trades(self, instrument: int) -> list[tuple[int, Report]]:
        """Return the last trades of an instrument with their numbers, the latest last."""
        with self.lock:
            return [(number, trade) for number, trade in self.trades if trade.instrument == instrument]

    def close(self) -> None:
        """Leave the feed."""
        self._leave.set()
        self._thread.join(0.5)  # where it waits for a state it ends with the process

    # -------------------------------------------------------------------------------------------- the feed's own thread

    def _run(self) -> None:
        """Follow until we leave; whatever goes wrong is told in the picture, and tried again."""
        while not self._leave.is_set():
            try:
                if self._receiver is None or self._receiver.feed != self._feed:
                    self._open()
                else:
                    self._step(self._receiver)
            except (OSError, CorruptInput) as error:
                with self.lock:
                    self._seen.problem = f"{error}"
                    self._folding = False
                self._leave.wait(STATE_SECONDS)
        if self._receiver:
            self._receiver.close()

    def _open(self) -> None:
        """Join the lines, take a state, and begin some reports before it."""
        feed = self._feed
        if feed is None:
            self._leave.wait(BREATH_SECONDS)
            return
        assert feed.snapshots is not None
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None
        receiver = FeedReceiver(feed, begin=self._begin)
        try:
            snapshot = fetch_snapshot(*feed.snapshots, timeout=feed.snapshot_seconds)
        except BaseException:
            receiver.close()
            raise
        first = max(1, snapshot.number + 1 - HISTORY)
        receiver.arbiter.begin(snapshot.session, first)
        self._begin(snapshot)
        with self.lock:
            self._position = first - 1
            self._seen.whole = False
            self.trades.clear()
        self._receiver = receiver

    def _begin(self, snapshot: Snapshot) -> None:
        """Begin the books again with a state, behind which the stream goes on."""
        books = Books(unpack_state(snapshot.state))
        busiest = max(books_of(snapshot.state, 1), key=lambda book: book.order_count, default=None)
        with self.lock:
            self.books, self._folding = books, True
            self._passed.clear()
            self._position = self._from = self._seen.number = snapshot.number
            self._seen.problem = None
            if self.busiest is None and busiest is not None:
                self.busiest = busiest.instrument

    def _step(self, receiver: FeedReceiver) -> None:
        """Take what has come; let the books go when they are too far behind, and begin them again when it is time."""
        found = receiver.read(READ_SECONDS)
        if found is not None:
            start = time.monotonic()
            self._take(*found)
            taken = time.monotonic() - start
            if taken > BREATH_SECONDS:
                self._leave.wait(taken)  # half of a core is enough; what comes meanwhile waits in the sockets
        elif receiver.ended:
            self._leave.wait(READ_SECONDS)
        lag = self.published - self._position
        if lag <= BEHIND_REPORTS:
            self._allowed = BEHIND_REPORTS
        elif lag > self._allowed and self._seen.whole:
            self._folding = False
        if not self._folding:
            self._behind_at = time.monotonic()
            if self._behind_at >= self._state_due:
                self._catch_up(receiver)
                # The larger the books, the longer a state takes, and the more is published meanwhile: that much is no
                # reason to take another one.
                now = time.monotonic()
                self._state_due = now + max(STATE_SECONDS, 4 * (now - self._behind_at))
                self._allowed = max(BEHIND_REPORTS, 2 * (self.published - self._seen.number))
        self._tell(receiver)

    def _catch_up(self, receiver: FeedReceiver) -> None:
        """Take a state; follow it again if what was passed over since leads on from it and is not too much."""
        assert receiver.feed.snapshots is not None
        snapshot = fetch_snapshot(*receiver.feed.snapshots, timeout=receiver.feed.snapshot_seconds)
        position, passed = self._position, list(self._passed)
        moved = snapshot.session != receiver.session or self.published - position > BEHIND_REPORTS
        self._begin(snapshot)
        with self.lock:
            self._seen.states += 1
        if moved:
            receiver.arbiter.begin(snapshot.session, snapshot.number + 1)
            return
        self._position = self._from = position  # the stream goes on where it was
        left = position - snapshot.number
        if left > PASSED_REPORTS or (left > 0 and not (passed and passed[0][0] <= snapshot.number + 1)):
            self._folding = False  # what is shown is the state, until the next one
            return
        for _, reports in passed:
            if self._folding:
                self._fold(reports)

    def _take(self, number: int, reports: bytes) -> None:
        """Take reports into the books, unless those were let go, and their trades onto the tape."""
        columns = np.frombuffer(reports, REPORT_DTYPE)
        trades = np.flatnonzero(columns["kind"] == ReportKind.TRADE)
        shown = unpack_reports(columns[trades[-TRADES:]].tobytes())
        with self.lock:
            self._seen.trades += int(np.count_nonzero(trades + number > self._from))
            self.trades.extend(
                (number + int(place), trade) for place, trade in zip(trades[-TRADES:], shown, strict=True)
            )
            self._position = number + len(columns) - 1
        if self._folding:
            self._fold(reports)
            return
        self._passed.append((number, reports))
        while self._position - self._passed[0][0] > PASSED_REPORTS:
            self._passed.popleft()

    def _fold(self, reports: bytes) -> None:
        """Take reports into the books, in pieces, so that no picture waits long; what the books hold they pass over."""
        assert self.books is not None
        try:
            for start in range(0, len(reports), PIECE):
                with self.lock:
                    self.books.fold(reports[start : start + PIECE])
        except ForeignReport:
            self._folding = False
            return
        with self.lock:
            self._seen.number = max(self._seen.number, self._position)

    def _tell(self, receiver: FeedReceiver) -> None:
        """Say how we stand."""
        counters = receiver.counters
        with self.lock:
            seen = self._seen
            seen.state = receiver.state.value
            seen.session = receiver.session
            if not seen.whole and self._position >= self._from and receiver.state is FeedState.SYNC:
                seen.whole = True
                self._before = Counter(counters)  # the history was missing because we wanted it, not by loss
            if seen.whole:
                seen.gaps = counters.get("gaps", 0) - self._before["gaps"]
                seen.recovered = counters.get("recovered", 0) - self._before["recovered"]
                seen.states += counters.get("states", 0) - self._before["states"]
                self._before["states"] = counters.get("states", 0)


# ----------------------------------------------------------------------------------------------------------- all of it


class Watch:
    """A service under watch: `look` asks it, `frame` is what there is to show."""

    def __init__(self, config: Config, instrument: int | None = None) -> None:
        """Ask once, and begin to follow the feed; raise `UsageError` when no service runs."""
        self.config, self.chosen = config, instrument
        self.status = status_of(config)
        self.answers = True
        self.asked = time.monotonic()
        self.began = self.asked
        self.samples: deque[tuple[float, tuple[int, ...], dict[str, list[int]]]] = deque()
        feed = feed_of(config, self.status)
        self.follower = Follower()
        self.follower.published = self.status["processes"]["publisher"]["number"]
        self._aim(feed)
        self._sample()

    def look(self) -> None:
        """Ask the service how it is; one that does not answer is no reason to end."""
        try:
            self.status = ask(self.config.control, {"ask": "status", "counts": True}, timeout=ASK_SECONDS)
        except UsageError:
            self.answers = False
            self.samples = deque([self.samples[-1]])
            return
        self.answers = True
        self.asked = time.monotonic()
        self.follower.published = self.status["processes"]["publisher"]["number"]
        self._aim(feed_of(self.config, self.status))
        self._sample()

    @property
    def instrument(self) -> int | None:
        """Return the instrument that is shown: the one asked for, or the busiest when we came."""
        return self.chosen if self.chosen is not None else self.follower.busiest

    def expect_instrument(self) -> None:
        """Raise `UsageError` when the instrument asked for is not in the books."""
        books = self.follower.books
        if self.chosen is not None and books is not None:
            _ = books[self.chosen]

    def settled(self) -> bool:
        """Say whether there is something to show: the books are the venue's."""
        return self.follower.seen().whole

    def book(self) -> BookLevels | None:
        """Return the book that is shown, with all its levels."""
        return None if self.instrument is None else self.follower.book(self.instrument)

    def frame(self, book: BookLevels | None, levels: int) -> dict[str, Any]:
        """Return all there is to show, for JSON."""
        seen, status = self.follower.seen(), self.status
        rows = status["processes"]
        instrument = self.instrument
        trades = [] if instrument is None else self.follower.last_trades(instrument)
        matcher, ring, tape = rows["matcher"], status["ring"], status["tape"]
        quiet_ms = 0 if self.answers else int((time.monotonic() - self.asked) * 1e3)
        return {
            "verb": "watch",
            "config": status["config"],
            "answers": self.answers,
            "ready": self.answers and status["ready"],
            "seconds": round(time.monotonic() - self.began, 3),
            "up_seconds": round(max(0.0, time.time() - rows["supervisor"]["started_ns"] / 1e9), 3),
            "durability": status["durability"],
            "book": None
            if book is None
            else book_json(book._replace(bids=book.bids[:levels], asks=book.asks[:levels]), depth=True)
            | {"sequence": book.sequence},
            "trades": [trade_json(number, trade) for number, trade in trades],
            "rates": self.rates(),
            "latencies": self.latencies(),
            "journal": {
                "sequence": matcher["sequence"],
                "durable": matcher["durable"],
                "lag": max(0, matcher["sequence"] - matcher["durable"]),
            },
            "ring": {"waiting": max(0, ring["waiting"]), "capacity": ring["capacity"]},
            "tape": {
                "unread": max(tape["unread"].values()),
                "last": tape["last"],
                "capacity": tape["capacity"],
            },
            "feed": {
                "state": seen.state,
                "session": seen.session,
                "number": seen.number,
                "published": rows["publisher"]["number"],
                "behind": seen.behind,
                "gaps": seen.gaps,
                "recovered": seen.recovered,
                "states": seen.states,
                "problem": seen.problem,
            },
            "processes": {
                role: {
                    "state": rows[role]["state"] if self.answers else "unknown",
                    "pid": rows[role]["pid"],
                    "restarts": max(0, rows[role]["starts"] - 1),
                    "beat_ms": max(0, rows[role]["beat_ms"]) + quiet_ms,
                }
                for role in ROLES
            },
        }

    def rates(self) -> dict[str, int]:
        """Return how many a second, of late."""
        (then, before, _), (now, after, _) = self.samples[0], self.samples[-1]
        seconds = now - then
        return {
            f"{name}_per_second": round(max(0, last - first) / seconds) if seconds > 0 else 0
            for name, first, last in zip(RATES, before, after, strict=True)
        }

    def latencies(self) -> dict[str, dict[str, float]]:
        """Return percentiles in microseconds by stage, of late; of all there was where nothing came of late."""
        before, after = self.samples[0][2], self.samples[-1][2]
        found = {}
        for stage, counts in after.items():
            late = since(before[stage], counts) if stage in before else counts
            found[stage] = summary(late if any(late) else counts)
        return found

    def close(self) -> None:
        """Watch no more."""
        self.follower.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _aim(self, feed: Feed) -> None:
        """Have the feed followed where it is by now, as soon as its ports are known."""
        rows = self.status["processes"]
        if reachable(feed) and all(rows[role]["state"] == "running" for role in ("shadow", "retransmitter")):
            self.follower.aim(feed)

    def _sample(self) -> None:
        """Keep what rates are made of: a counter that begins again, or goes back, is a rate of 0 for a moment."""
        rows = self.status["processes"]
        counts = (
            rows["gateway"]["commands"],
            rows["matcher"]["reports"],
            self.follower.seen().trades,
            rows["gateway"]["refused"],
        )
        self.samples.append((self.asked, counts, self.status.get("counts", {})))
        while self.asked - self.samples[0][0] > RATE_SECONDS and len(self.samples) > 2:
            self.samples.popleft()


def trade_json(number: int, trade: Report) -> dict[str, Any]:
    """Return a trade as JSON has it."""
    return {
        "number": number,
        "sequence": trade.sequence,
        "taker": "buy" if trade.side == Side.BUY else "sell",
        "quantity": trade.quantity,
        "price": trade.price,
        "order": format_order_id(trade.order_id),
        "maker": format_order_id(trade.contra_id),
    }
