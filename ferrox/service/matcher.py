"""The matcher: records from the ring into the journal, through the engine, and their reports onto the tape.

One process, one loop, and nothing in it that waits for a disk or a network.  The order of its steps is what makes a
crash harmless: a record is in the journal before it leaves the ring, and its reports are on the tape only when the
level of the journal says that they may leave.  A matcher that comes back replays the journal, gives what is missing on
the tape, and passes over what is in the ring and in the journal both (RING-6, RING-10).
"""

import json
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import frozen

from ferrox.engine import Capacity
from ferrox.errors import DiskLow, NotDeterministic, SnapshotCorrupt
from ferrox.fast.columns import zeros
from ferrox.files import open_directory, publish
from ferrox.journal import Durability, Journal, identify
from ferrox.journal.tally import Tally
from ferrox.lanes.latency import MATCH, note_records
from ferrox.lanes.latency import WORDS as LATENCY_WORDS
from ferrox.lanes.ring import SLEEPING, Ring
from ferrox.lanes.tape import WORD_FIRST, TapeWriter
from ferrox.messages import RECORD_DTYPE, RECORD_SIZE, REPORT_SIZE
from ferrox.recovery import Recovered, recover
from ferrox.service.board import Board, Row, State
from ferrox.service.config import Config
from ferrox.service.latencies import Latencies
from ferrox.service.ledger import load_ledger, newest_ledger
from ferrox.service.links import LONG_NAP_MS, NAP_MS, QUIET_SECONDS, Links, Nap
from ferrox.shared import SharedCorrupt
from ferrox.state import digest
from ferrox.terms import CommandKind

SET_LIMIT: Final = int(CommandKind.SET_LIMIT)
BATCH: Final = 4_096
"""Records that are taken from the ring at a time."""
SESSION_NAME: Final = "feed.session"
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
CANCELS: Final = bytes((CommandKind.CANCEL_ORDER, CommandKind.MASS_CANCEL, CommandKind.SET_TRADING_STATE, SET_LIMIT))
KIND_AT: Final = 24
NAP_SECONDS: Final = 0.000_02
SILENT_SECONDS: Final = 1.0
"""How long a matcher that is to stop waits for a reader of the tape."""
TELL_NS: Final = 50_000_000
"""From one telling of latencies to the next."""
ROOM_SECONDS: Final = 1.0
"""From one look for room on a full disk to the next."""


class Matcher:
    """The journal, the engine, and where they stand."""

    def __init__(self, config: Config, links: Links, stopping: Callable[[], bool], tell: Callable[..., None]) -> None:
        """Take a place at ring and tape; `stopping` says whether to end, `tell` writes a line of the log."""
        self.config, self.links, self.stopping, self.tell = config, links, stopping, tell
        self.ring = Ring(links.ring)
        self.bounces = Ring(links.bounces)
        self.tape = TapeWriter(links.tape)
        self.row = Row(Board(links.board), "matcher")
        self.nap = Nap(links.wakes["matcher"])
        self.directory = config.journal
        self.durability = Durability[config.venue.durability]
        self.number = 0
        """Of the last report that the engine gave."""
        self.held: deque[tuple[int, bytes, bytes]] = deque()
        """Reports that may not leave yet, the records to them, and the sequence number that has to be released first.
        """
        self.latencies = Latencies(links.latencies)
        self.counted = zeros(LATENCY_WORDS)
        self.told_at = 0
        self.fresh = False
        """Whether what comes from the ring is known to be later than what is in the journal."""
        self.looked = 0.0
        self.low = False
        """Whether the log says that the disk is full."""
        self.engine: Any = None
        self.journal: Journal
        self.tally: Tally

    # ------------------------------------------------------------------------------------------------------- to begin

    def begin(self) -> None:
        """Open the journal, or make it, and bring engine and tape to its end."""
        start = time.monotonic()
        venue = self.config.venue
        options: dict[str, Any] = {"backend": venue.backend, "durability": self.durability, "syncer": True}
        if not any(self.directory.glob("*.wal")):
            capacity = Capacity(venue.orders, venue.instruments)
            Journal.create(
                self.directory, capacity, backend=venue.backend, segment_records=venue.segment_records
            ).close()
        uuid = identify(self.directory).uuid
        session = read_session(self.directory, uuid)
        known = self._recover(options, uuid)
        whole = known and session is not None and (session.whole or self.durability is not Durability.D0)
        if self.tape.written() > self.number:
            raise SharedCorrupt(
                f"the tape has report {self.tape.written()} and the journal gives {self.number} only: "
                "reports have left that nothing in the journal tells of"
            )
        self.tape.write(memoryview(b""), self.journal.sequence)
        epoch = session.epoch if whole and session else self.journal.header.epoch
        write_session(self.directory, Session(uuid, epoch, boot_id(), clean=False))
        self.row.put(epoch=epoch, recovery_us=int((time.monotonic() - start) * 1e6))
        made = self.journal.header.capacity
        if made != Capacity(venue.orders, venue.instruments):
            self.tell(
                "capacity",
                warning=f"it is the journal's that holds: {made.orders} orders, {made.instruments} instruments",
            )
        self.tell("recovered", sequence=self.journal.sequence, report=self.number, session_epoch=epoch)
        self._say()

    def _recover(self, options: dict[str, Any], uuid: bytes) -> bool:
        """Recover from the newest snapshot that suits the tape; return whether reports keep their numbers."""
        cold = self.tape.words[WORD_FIRST] == 0
        until = newest_ledger(self.directory, uuid, None if cold else self.tape.sequence())
        if until:
            try:
                self._take(self._recovered(options, uuid, cold=cold, until=until))
            except SnapshotCorrupt as error:
                self.tell("no ledger", warning=str(error))
            else:
                return True
        if identify(self.directory).base_sequence == 1:
            self._take(self._recovered(options, uuid, cold=cold, snapshots=False))
            return True
        if not cold:
            raise SharedCorrupt("the ledger of the snapshot that the journal begins with is missing: stop, and start")
        self._take(self._recovered(options, uuid, cold=True, ledger=False))
        return False

    def _recovered(
        self, options: dict[str, Any], uuid: bytes, *, cold: bool, ledger: bool = True, **where: Any
    ) -> Recovered:
        """Replay once; raise `SnapshotCorrupt` when the number of the reports behind the snapshot is not known."""

        def begin(sequence: int) -> None:
            self.number = load_ledger(self.directory, uuid, sequence).reports if sequence and ledger else 0
            self.row.put(snapshot=sequence)
            if cold:
                self.tape.begin(self.number + 1, sequence)

        return recover(self.directory, self.config.venue.engine, begin=begin, told=self._told, **where, **options)

    def _told(self, records: bytes, reports: memoryview) -> None:
        """Hold what the engine says in the replay against the tape, and write what is missing there (RING-10)."""
        self.row.beat()
        count = len(reports) // REPORT_SIZE
        first, last = self.number + 1, self.number + count
        there = min(last, self.tape.written())
        begin = max(first, self.tape.oldest())
        if begin <= there:
            said = self.tape.copy(begin, there)
            if said != reports[(begin - first) * REPORT_SIZE : (there - first + 1) * REPORT_SIZE]:
                sequence = int.from_bytes(records[8:16], "little")
                end = sequence + len(records) // RECORD_SIZE - 1
                raise NotDeterministic(sequence, end, (there, 0), (there, 1))
        if last > there:
            sequence = int.from_bytes(records[-56:-48], "little")
            self._write(reports[(max(there, first - 1) - first + 1) * REPORT_SIZE :], sequence)
        self.number = last

    def _take(self, recovered: Recovered) -> None:
        """Go on with what was recovered."""
        self.engine, self.journal, self.tally = recovered.engine, recovered.journal, recovered.tally
        self.row.put(replayed=recovered.replayed)
        for warning in recovered.warnings:
            self.tell("warning", warning=warning)
        if self.journal.torn:
            self.tell("torn tail", warning=str(self.journal.torn))

    # --------------------------------------------------------------------------------------------------------- to run

    def run(self) -> None:
        """Match until the stop is asked for and the ring is empty; then end the journal in order."""
        self.row.state(State.RUNNING)
        spin_ns = self.config.processes.spin_us * 1_000
        idle_since = 0
        while True:
            if self.step():
                idle_since = 0
                continue
            if self.stopping() and not self.held:
                break
            now = time.monotonic_ns()
            idle_since = idle_since or now
            if now - idle_since >= spin_ns and not self.held:
                self._say()
                self.latencies.tell(MATCH, self.counted)
                quiet = now - idle_since >= QUIET_SECONDS * 1e9
                self.nap.take(self._sleeps, lambda: self.ring.look() > 0, LONG_NAP_MS if quiet else NAP_MS)
        self.end()

    def _sleeps(self, sleeping: bool) -> None:
        """Say in the ring whether we sleep."""
        self.ring.words[SLEEPING] = int(sleeping)

    def step(self) -> bool:
        """Take what there is, and return whether there was anything."""
        self.row.beat()
        if self.held:
            self._release()
        records = self.ring.peek(BATCH)
        if not records:
            if self.journal.disk_low and time.monotonic() - self.looked > ROOM_SECONDS:
                self.looked = time.monotonic()
                self.journal.look_for_room()
                self._say()
            return False
        count = len(records) // RECORD_SIZE
        if not self.fresh:
            records = self._unheard(records)
        try:
            if records:
                self._carry_out(records)
        except DiskLow:
            self._carry_out_what_fits(records)
        self.ring.take(count)
        if self.journal.sequence >= self.tally.due:
            sealed = self.journal.mark(*self.tally.statement(self.journal.sequence))
            self._apply(sealed)
            self.tally.restart(self.journal.sequence + 1, anchored=True)
        self.row.add("batches")
        self._say()
        return True

    def _unheard(self, records: bytes) -> bytes:
        """Return the records that are neither in the journal nor sent back: those later than the last such (RING-6)."""
        times = np.frombuffer(records, RECORD_DTYPE)["time_ns"]
        last = self.bounces.last()
        bounced = int.from_bytes(last[16:24], "little") if last else 0
        heard = int(np.searchsorted(times, max(self.journal.time_ns, bounced), side="right"))
        self.fresh = heard < len(times)
        return records[heard * RECORD_SIZE :]

    def _carry_out(self, records: bytes) -> None:
        """Write records to the journal, then tell them to the engine."""
        self._apply(self.journal.append(records))

    def _apply(self, sealed: bytes) -> None:
        """Tell records to the engine, and let their reports leave when they may."""
        sequence = self.journal.sequence - len(sealed) // RECORD_SIZE
        at_once = self.durability is Durability.D0
        while sealed:
            taken, reports = self.engine.apply(sealed)
            sequence += taken
            records = sealed[: taken * RECORD_SIZE]
            self.tally.note(reports)
            self.number += len(reports) // REPORT_SIZE
            if at_once:
                self._write(reports, sequence)
                self._count(records)
            else:
                self.held.append((sequence, bytes(reports), records))
            sealed = sealed[len(records) :] if len(records) < len(sealed) else b""
        if self.held:
            self._release()

    def _carry_out_what_fits(self, records: bytes) -> None:
        """Carry out the cancels of a batch on a full disk, and send everything else back (JRN-23)."""
        for start in range(0, len(records), RECORD_SIZE):
            record = records[start : start + RECORD_SIZE]
            try:
                self._carry_out(record)
            except DiskLow:
                if record[KIND_AT] in CANCELS:
                    raise  # the reserve is used up: nothing can be taken any more
                self._bounce(record)

    def _bounce(self, record: bytes) -> None:
        """Send a record back to the gateway, with the number of the report it would have been answered behind."""
        while self.held:
            self._release()
            time.sleep(NAP_SECONDS)
        while not self.bounces.push(record[:8] + self.number.to_bytes(8, "little") + record[16:]):
            self._wait()
        self.row.add("bounced")
        self.links.wake("gateway")

    def _release(self) -> None:
        """Let the reports leave that may (JRN-22)."""
        if self.journal.released < self.held[0][0]:
            # The level is the syncer's to reach; all that is to be seen here is whether it still lives.
            self.journal.expect_sound()
            return
        released = self.journal.released
        while self.held and self.held[0][0] <= released:
            sequence, reports, records = self.held.popleft()
            self._write(memoryview(reports), sequence)
            self._count(records)
        self._say()

    def _write(self, reports: memoryview, sequence: int) -> None:
        """Write reports onto the tape, and wait where a reader is far behind (RING-9)."""
        count = len(reports) // REPORT_SIZE
        most = self.tape.capacity // 2
        begin = time.monotonic()
        while count > most or count > self.tape.room():
            if self.stopping() and time.monotonic() - begin > SILENT_SECONDS:
                self.tell("stopping", warning="a reader of the tape does not read; it is not waited for")
                self.tape.let_go()
            part = min(count, most, self.tape.room())
            if part:
                self.tape.write(reports[: part * REPORT_SIZE], self.tape.sequence())
                self.links.wake_readers(self.tape.sleepers())
                reports = reports[part * REPORT_SIZE :]
                count -= part
            else:
                self._wait()
        self.tape.write(reports, sequence)
        bits = self.tape.sleepers()
        if bits:
            self.links.wake_readers(bits)

    def _count(self, records: bytes) -> None:
        """Count how long it took from the gateway's reading of records until their reports may leave."""
        now = time.time_ns()
        note_records(self.counted, records, now)
        if now - self.told_at > TELL_NS:
            self.told_at = now
            self.latencies.tell(MATCH, self.counted)

    def _wait(self) -> None:
        """Wait a little for another process."""
        self.row.add("waits")
        self.row.beat()
        time.sleep(NAP_SECONDS)

    def _say(self) -> None:
        """Tell the board where we stand, and the log when the disk is full and when it is no longer."""
        journal = self.journal
        if journal.disk_low != self.low:
            self.low = journal.disk_low
            if self.low:
                self.tell("disk full", warning=f"only cancels are taken until there is room: {journal.directory}")
            else:
                self.tell("room on the disk", sequence=journal.sequence)
        self.row.put(
            sequence=journal.sequence,
            durable=journal.durable,
            reports=self.number,
            time_ns=journal.time_ns,
            disk_low=int(journal.disk_low),
        )

    def end(self) -> None:
        """End the journal with a SEAL, everything of it on disk."""
        self.row.state(State.STOPPING)
        epoch = Board(self.links.board).get("matcher", "epoch")
        uuid = self.journal.uuid
        seal = self.journal.close()
        self.engine.apply(seal)  # so that this engine has heard all that a replay will hear
        write_session(self.directory, Session(uuid, epoch, boot_id(), clean=True))
        self._say_ended()
        self.tell("ended", sequence=self.journal.sequence, report=self.number, state=digest(self.engine.snapshot()))
        self.row.state(State.STOPPED)

    def _say_ended(self) -> None:
        """Tell the board where the journal ended."""
        self.row.put(sequence=self.journal.sequence, durable=self.journal.durable)


# ------------------------------------------------------------------------------------------------- the feed's session


@frozen
class Session:
    """Under which name reports have numbers, and whether all that had one is known to be there (FEED-8)."""

    uuid: bytes
    epoch: int
    """Of the journal, in which the session began."""
    boot: str
    clean: bool

    @property
    def whole(self) -> bool:
        """Whether nothing that was sent can be lost: the machine is up since, or the journal was closed in order."""
        return self.clean or self.boot == boot_id()


def boot_id() -> str:
    """Return what tells this start of the machine from any other."""
    return BOOT_ID.read_text().strip()


def read_session(directory: Path, uuid: bytes) -> Session | None:
    """Return the session of a journal, or None where there is none or the file is out of order."""
    try:
        fields = json.loads((directory / SESSION_NAME).read_bytes())
        session = Session(bytes.fromhex(fields["uuid"]), int(fields["epoch"]), fields["boot"], bool(fields["clean"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return session if session.uuid == uuid else None


def write_session(directory: Path, session: Session) -> None:
    """Write the session's file, durable when this returns."""
    fields = {"uuid": session.uuid.hex(), "epoch": session.epoch, "boot": session.boot, "clean": session.clean}
    descriptor = open_directory(directory)
    try:
        os.close(publish(descriptor, SESSION_NAME, [json.dumps(fields).encode() + b"\n"]))
    finally:
        os.close(descriptor)
