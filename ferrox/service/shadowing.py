"""The shadow of a service: snapshots with their ledgers, and states for who comes late to the feed.

`ferrox.shadow` does the work; here it is told when, and what it knows is offered to the snapshot server.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ferrox.journal import BATCH
from ferrox.mold import session_name
from ferrox.service.board import Board, Row, State
from ferrox.service.config import Config, split
from ferrox.service.ledger import SUFFIX
from ferrox.service.links import LONG_NAP_MS, QUIET_SECONDS, Links
from ferrox.service.snapshots import Limits, SnapshotServer
from ferrox.service.standing import stand

IDLE_SECONDS: Final = 0.002
LOOK_SECONDS: Final = 0.1
"""How often the journal is looked at all the same when the matcher tells of nothing new."""
AGAIN_SECONDS: Final = 10.0
"""From one attempt to write a snapshot to the next."""
FRESH_SECONDS: Final = 0.5
"""How old a state may be that is sent to who comes late."""


class Shadowing:
    """A shadow, its ledger, and the server of states."""

    def __init__(self, config: Config, links: Links, stopping: Callable[[], bool], tell: Callable[..., None]) -> None:
        """Wait until there is a journal, and begin beside it."""
        self.config, self.stopping, self.tell = config, stopping, tell
        self.board = Board(links.board)
        self.row = Row(self.board, "shadow")
        while not self.board.get("matcher", "epoch"):
            if stopping():
                raise SystemExit(0)
            self.row.beat()
            time.sleep(IDLE_SECONDS)
        self.shadow, self.ledger = stand(config.journal, config.venue.engine, alone=True)
        self.session = session_name(self.shadow.tail.uuid, self.board.get("matcher", "epoch"))
        self.wanted = threading.Event()
        self.stats: dict[str, int] = {}
        self.server = SnapshotServer(
            split(config.feed.snapshots),
            ask=self.wanted.set,
            limits=Limits(fresh_seconds=FRESH_SECONDS),
            stats=self.stats,
        )

    def run(self) -> None:
        """Follow the journal until the stop is asked for."""
        self.row.state(State.RUNNING)
        self.tell("following", sequence=self.shadow.sequence, port=self.server.address[1])
        every = self.config.snapshots.every
        due = self.shadow.saved + every
        look_at = save_at = busy_at = 0.0
        while not self.stopping():
            # The matcher says how far the journal goes.  To find its end by reading costs 33 us a look, most of it for
            # 256 KiB of zeros.
            count = min(self.board.get("matcher", "sequence") - self.shadow.sequence, BATCH)
            if count > 0:
                count = self.shadow.step(count)
            elif time.monotonic() >= look_at:
                look_at = time.monotonic() + LOOK_SECONDS
                count = self.shadow.step(BATCH)
            if self.shadow.sequence >= due and time.monotonic() >= save_at:
                if self.save():
                    due = self.shadow.sequence + every
                else:
                    save_at = time.monotonic() + AGAIN_SECONDS
            if self.wanted.is_set():
                self.wanted.clear()
                self.offer()
            self.row.beat()
            self.row.put(
                sequence=self.shadow.sequence,
                snapshot=self.shadow.saved,
                statements=self.shadow.tally.checked,
                port=self.server.address[1],
                served=self.stats["served"],
                reports=self.ledger.reports,
            )
            if count > 0:
                busy_at = time.monotonic()
            else:
                quiet = time.monotonic() - busy_at > QUIET_SECONDS
                time.sleep(LONG_NAP_MS / 1000 if quiet else IDLE_SECONDS)
        self.row.state(State.STOPPED)
        self.server.close()
        self.shadow.close()

    def save(self) -> bool:
        """Write a snapshot and its ledger, the ledger first: a snapshot without one is of no use to a service.

        Say whether the disk took it; one that is full is no reason to end, for the journal has all that a snapshot has.
        """
        try:
            self.shadow.tail.sync()
            self.ledger.save(self.config.journal, self.shadow.tail.uuid)
            path = self.shadow.save()
        except OSError as error:
            where = self.config.journal
            self.tell("no snapshot", warning=f"{where}: {error.strerror}; tried again in {AGAIN_SECONDS:.0f} s")
            return False
        for old in Path(self.config.journal).glob(f"*{SUFFIX}"):
            if not old.with_suffix(".snapshot").exists():
                with suppress(FileNotFoundError):
                    old.unlink()
        self.tell("snapshot", path=str(path), sequence=self.shadow.sequence)
        return True

    def offer(self) -> None:
        """Give the server the state as it is now."""
        self.server.offer(
            self.session,
            self.ledger.reports,
            self.shadow.sequence,
            self.shadow.tail.uuid,
            self.shadow.engine.snapshot(),
        )
