"""Fault test 62: the service for a long time, with steady load and kills at intervals, and what is left of it.

Twenty seconds here, an hour in the long run.  What is counted is files and memory of every process, once all is warm,
and at the end what the oracle says of the journal.
"""

import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from ferrox.client import Answered, ClientError, Refused, Unanswered
from ferrox.engine import make_engine
from ferrox.journal import identify, read
from ferrox.messages import CancelOrder, Command, NewOrder
from ferrox.terms import ReportKind
from ferrox.testing.sessions import apply_all

sys.path.insert(0, str(Path(__file__).parent))

from abuse_kit import Service  # type: ignore[import-not-found]
from kit import share  # type: ignore[import-not-found]

pytestmark = pytest.mark.faults

SECONDS = share(20, 3_600)
KILL_EVERY = share(5, 30)  # more than ten restarts within a minute are too many for a service
ROLES = ["gateway", "shadow", "matcher", "publisher", "retransmitter"]
AHEAD = 1_000
WARM_PAGES = 24_576
"""96 MiB that a process may still grow by: the pages of the journal and the tape that it maps and has not touched."""
HELD_PAGES = 1_024


class Load:
    """A client that enters, takes and cancels, counts what becomes of each command, and comes back when it is cut."""

    def __init__(self, service, user, stop):
        self.dice, self.stop = random.Random(user), stop
        self.client = service.client(user, number=1)
        self.alive: list[int] = []
        self.answered: set[int] = set()
        self.numbers: list[int] = []
        self.refused = 0
        self.failure = ""
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        """Go on until told to stop, and then until all is answered."""
        deadline = 0.0
        while not self.stop.is_set() or self.client.waiting:
            if self.stop.is_set():
                deadline = deadline or time.monotonic() + 60
                if time.monotonic() > deadline:
                    self.failure = f"{len(self.client.waiting)} commands were never answered"
                    return
            try:
                if not self.client.connected:
                    self.client.reconnect()
                if not self.stop.is_set() and len(self.client.waiting) < AHEAD:
                    self.client.send_many(self.commands())
                for event in self.client.events(0.005):
                    self.take(event)
                    if len(self.client.waiting) < AHEAD // 2:
                        break
            except (ClientError, OSError):
                time.sleep(0.05)
        for event in self.client.events(0.0):  # what was answered, and not handed out yet
            self.take(event)

    def commands(self):
        """Return some commands: as many orders leave the book as come, but for what trades."""
        found: list[Command] = []
        for _ in range(self.dice.randrange(1, 40)):
            if len(self.alive) > 500 or (self.alive and self.dice.random() < 0.3):
                found.append(CancelOrder(1, self.alive.pop(self.dice.randrange(len(self.alive)))))
            else:
                price, side = 1_000 + self.dice.randrange(-20, 21), self.dice.choice((1, 2))
                found.append(NewOrder(side, 1, 0, 1, 0, price, self.dice.randrange(1, 9)))
        return found

    def take(self, event):
        """Count an answer."""
        if isinstance(event, Answered):
            if event.reference in self.answered:
                self.failure = f"reference {event.reference} was answered twice"
            self.answered.add(event.reference)
            self.numbers.append(event.number)
            if event.reports[0].kind == ReportKind.NEW and event.reports[-1].leaves:
                self.alive.append(event.reference)
        elif isinstance(event, Refused):
            self.refused += 1
        elif isinstance(event, Unanswered):
            self.failure = f"there is no answer to {event}"


def held(service):
    """Return the open files and the resident pages of each process."""
    found = {}
    for role, row in service.status()["processes"].items():
        if role == "supervisor" or row["state"] == "running":
            place = Path(f"/proc/{row['pid']}")
            pages = int((place / "statm").read_text().split()[1]) - int((place / "statm").read_text().split()[2])
            found[role, row["pid"]] = len(list((place / "fd").iterdir())), pages
    return found


def test_the_service_holds_no_more_after_a_long_time_and_loses_nothing(tmp_path, tally):
    """Fault test 62: files and memory of each process are constant once it is warm; the journal has every answer."""
    looks: dict[tuple[str, int], list[tuple[int, int]]] = {}
    with Service(tmp_path, orders=65_536, tape=65_536, ring=16_384, every=50_000) as service:
        stop = threading.Event()
        loads = [Load(service, user, stop) for user in ("maker", "taker")]
        begin = time.monotonic()
        kills: Counter[str] = Counter()
        while time.monotonic() - begin < SECONDS:
            until = time.monotonic() + KILL_EVERY
            while time.monotonic() < until:
                time.sleep(KILL_EVERY / 20)
                for process, found in held(service).items():
                    looks.setdefault(process, []).append(found)
            role = ROLES[kills.total() % len(ROLES)]
            service.kill(role)
            kills[role] += 1
            tally.trial()
        stop.set()
        for load in loads:
            load.thread.join()
        assert [load.failure for load in loads] == ["", ""]
        starts = {role: row["starts"] for role, row in service.status()["processes"].items() if role != "supervisor"}
        assert starts == {role: 1 + kills[role] for role in ROLES}
        last = service.row("matcher")["reports"]
        for load in loads:
            load.client.close()
        assert service.stop() == 0
    sent = sum(load.client.protocol.reference for load in loads)
    tally["trials"] += sent
    for process, found in looks.items():
        warm = found[len(found) // 3 :]
        if len(found) < 12:
            continue
        files = [count for count, _ in warm]
        # A process opens a file now and then for a moment: a snapshot, a segment, a request for its status.
        assert min(files[len(files) // 2 :]) <= min(files[: len(files) // 2]) + 2, (process, files)
        pages = [count for _, count in warm]
        assert min(pages[-3:]) <= min(pages) + HELD_PAGES * share(4, 1) + WARM_PAGES // share(4, 24), (process, pages)
    engine = make_engine("reference" if sent < 500_000 else "fast", identify(service.journal).capacity)
    kinds: Counter[int] = Counter()
    number = 0
    entered: Counter[int] = Counter()
    answered = [set(load.numbers) for load in loads]
    for data in read(service.journal):
        reports = apply_all(engine, data)
        for at in range(0, len(reports), 48):
            number += 1
            kinds[reports[at + 44]] += 1
            if reports[at + 44] == ReportKind.NEW:
                entered[int.from_bytes(reports[at + 8 : at + 16], "little")] += 1
            for numbers in answered:
                numbers.discard(number)
    tally.expect("lost", number == last, (number, last))
    tally.expect("lost", not any(answered))
    tally.expect("lost", sum(len(load.answered) + load.refused for load in loads) == sent)
    tally.expect("wrong", set(entered.values()) == {1})
    service.verified()
