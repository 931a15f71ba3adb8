"""Salvage: what can be kept of a journal that is refused, in a new journal, with a report of what was lost (JRN-25).

Salvage trusts no file for its name or its place.  A segment is what its header says, if the header is in order; the
chain of checksums says what follows what; and the watermark says how much was promised.  From that come the *ways* in
which the journal can be kept: from its beginning up to the first record that is not sound, or from a snapshot behind
the damage on, in which case nothing is lost for the state.  The way that ends latest keeps most.

Records beyond a hole are counted and never used.  Each may be sound by itself, but what an engine says to it depends on
every record before it: the state behind a hole is unknown, and a guess would be a wrong record for all that follow.

Considered and left: mending a copy in place.  What is written here goes through the writer like any other journal, so
one reader judges both, and nothing that was wrong in the old files can be in the new ones.
"""

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
from attrs import frozen

from ferrox.engine import Capacity, make_engine
from ferrox.errors import CorruptInput, FerroxError, JournalFailed, SegmentCorrupt, UsageError
from ferrox.files import is_zero, joined, names_in, open_directory, open_file, publish, read_at
from ferrox.journal.chain import FIRST_ANNOTATION, Chain, checksums
from ferrox.journal.layout import (
    HEADER_SIZE,
    MARK,
    MARK_NAME,
    MARK_SIZE,
    SEGMENT_HEADER,
    SEGMENT_NAME,
    SEGMENT_RECORDS,
    CommitMark,
    segment_name,
    unpack_header,
    unpack_marks,
)
from ferrox.journal.reader import BATCH, Scan, Segment, read, scan, written
from ferrox.journal.writer import Journal, Source
from ferrox.messages import COMMAND_SIZE, RECORD_DTYPE, RECORD_SIZE
from ferrox.snapshot import SNAPSHOT_NAME, newest_sequence, read_snapshot, state_header, write_snapshot
from ferrox.terms import SEQUENCE_MAX, Annotation

REPORT_JSON: Final = "loss-report.json"
REPORT_TEXT: Final = "loss-report.txt"
REPORT_FORMAT: Final = 1
COPY_SIZE: Final = 1 << 20
KIND_AT: Final = 24
NOT_USED: Final = (
    "Records beyond a hole are not used, even where each is sound by itself: what an engine says to a record depends "
    "on every record before it, and behind a hole that is unknown. Those before a snapshot that is begun with are in "
    "its state."
)


UNCERTAIN: Final = (
    "there is no commit mark to say how far the journal went: a last segment that is gone leaves no trace"
)


class Finding(NamedTuple):
    """Something that is not as it should be, and where."""

    file: str
    offset: int
    sequence: int
    found: str
    """What was expected, and what was found."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        expected, comma, found = self.found.removeprefix("expected ").rpartition(", found ")
        return {
            "file": self.file,
            "offset": self.offset,
            "sequence": self.sequence,
            "expected": expected if comma else None,
            "found": found if comma else self.found,
        }


class Way(NamedTuple):
    """A way to keep a part of a journal: a beginning, and all that soundly follows from it."""

    first: int
    """The sequence number of the first record that is kept."""
    last: int
    """Of the last one, or `first` - 1 where there is none."""
    snapshot: Path | None
    """What stands for the records before the first; None where that is record 1."""
    end: Finding | None
    """Why it ends there; None at the end of the journal."""

    @property
    def length(self) -> int:
        """How many records are kept."""
        return self.last + 1 - self.first

    def __str__(self) -> str:
        records = f"records {self.first} to {self.last}" if self.length else "no record"
        return f"{records} behind {self.snapshot.name}" if self.snapshot else records


class Seen(NamedTuple):
    """A run of records that are sound by themselves: checksum and place are right; the chain to them is broken."""

    file: str
    first: int
    last: int


@frozen
class Stray:
    """A segment whose header is not in order: its records are looked at, and never used."""

    path: str
    size: int
    base: int
    salt: int


class Survey:
    """All that can be known of a journal whose files need not be what they say; it changes nothing."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Look at every file; raise `UsageError` when there is no journal or a writer has it open."""
        self.directory: Final = os.fspath(directory)
        self.scan: Final[Scan] = scan(directory)
        self.findings: list[Finding] = []
        self.segments: list[Segment] = []
        """Those with a header in order, in the order of their records, whatever their files are called."""
        self.strays: list[Stray] = []
        self.snapshots: list[tuple[int, Path]] = []
        """Those that an engine takes, by ascending sequence number."""
        self.times: dict[int, int] = {}
        """The clock of each, by its sequence number."""
        self.capacity: Capacity | None = None
        self.end: Finding | None = None
        """Why the last call of `records` ended where it did."""
        self.descriptor: Final = open_directory(directory)
        try:
            self._lock()
            if hasattr(self.scan.corruption, "path"):
                self._note(self.scan.corruption)
            self.mark: Final[CommitMark | None] = self._read_mark()
            self._read_headers()
            self.uuid: Final = self._find_uuid()
            self._sort_out()
            self._read_snapshots()
            if self.scan.corruption and not self.findings:
                self._note(self.scan.corruption)
            self.watermark, self.highest, self.seen = self._look_everywhere()
        except BaseException:
            os.close(self.descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    # ------------------------------------------------------------------------------------------------- what is there

    def _lock(self) -> None:
        """Hold off writers while we look; raise `UsageError` when there is one."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{self.directory}: another process has this journal open for append; close it there first"
            ) from None

    def _note(self, error: Exception | None, path: str | None = None) -> None:
        """Take down what is wrong with a file, each once."""
        found = Finding(
            getattr(error, "path", path) or self.directory,
            getattr(error, "offset", 0),
            getattr(error, "sequence", 0),
            getattr(error, "found", str(error)),
        )
        if found[:2] not in {other[:2] for other in self.findings}:
            self.findings.append(found)

    def _read_mark(self) -> CommitMark | None:
        """Return the commit mark, or None when it is missing or neither slot is in order."""
        path = joined(self.directory, MARK_NAME)
        try:
            page, _ = self._page(MARK_NAME, path, MARK_SIZE + 1)
            return unpack_marks(page, path)[0]
        except CorruptInput as error:
            self._note(error, path)
            return None

    def _read_headers(self) -> None:
        """Read the header of every segment, under the name that it gives itself."""
        for name in names_in(self.descriptor):
            if not name.endswith(".wal"):
                continue
            path = joined(self.directory, name)
            try:
                page, size = self._page(name, path, HEADER_SIZE)
            except CorruptInput as error:
                self._note(error, path)
                continue
            named = SEGMENT_NAME.fullmatch(name)
            fields = SEGMENT_HEADER.unpack_from(page.ljust(HEADER_SIZE, b"\0"))
            base, epoch, salt = int(fields[6]), int(fields[5]), int(fields[8])
            own = segment_name(base, epoch) if base >= 0 else name
            try:
                header = unpack_header(page, own if SEGMENT_NAME.fullmatch(own) else name, path)
            except SegmentCorrupt as error:
                if is_zero(page) and not any(True for _ in self._written(path, size)):
                    continue  # only prepared (JRN-19)
                self._note(error, path)
                if named and int(named[1]) <= SEQUENCE_MAX:
                    self.strays.append(Stray(path, size, int(named[1]), salt))
                continue
            if own != name:
                self.findings.append(
                    Finding(path, 32, base, f"expected the segment that its name says, found {own}: it was renamed")
                )
            self.segments.append(Segment(header, path, size))

    def _find_uuid(self) -> bytes:
        """Return the journal's uuid: the commit mark's, or that of most segments."""
        if self.mark:
            return self.mark.uuid
        uuids = Counter(segment.header.uuid for segment in self.segments)
        if not uuids:
            raise CorruptInput(
                f"{self.directory}: nothing can be salvaged here: neither the commit mark nor the header of any "
                "segment is in order. Nothing was changed. Restore the journal's files from a copy."
            )
        return uuids.most_common(1)[0][0]

    def _sort_out(self) -> None:
        """Leave out segments of other journals and all but one of several copies, and put the rest in order."""
        ours: dict[tuple[int, int], Segment] = {}
        for segment in self.segments:
            header = segment.header
            if header.uuid != self.uuid:
                self._refuse(segment, 16, f"expected a segment of journal {self.uuid.hex()}, found {header.uuid.hex()}")
                continue
            other = ours.get((segment.base, header.epoch))
            better = other is None or Path(segment.path).name == header.name
            if better:
                ours[segment.base, header.epoch] = segment
            if other:
                worse = other if better else segment
                self._refuse(worse, 32, f"expected one segment of base sequence {segment.base}, found another")
        self.segments = [ours[key] for key in sorted(ours)]
        if self.segments:
            self.capacity = self.segments[0].header.capacity
        for segment in self.segments[1:]:
            if segment.header.capacity != self.capacity:
                self._refuse(segment, 100, f"expected {self.capacity}, found {segment.header.capacity}")
                self.segments.remove(segment)

    def _refuse(self, segment: Segment, offset: int, found: str) -> None:
        """Take down why a segment is left out."""
        self.findings.append(Finding(segment.path, offset, segment.base, found))

    def _read_snapshots(self) -> None:
        """Read every snapshot whole, and let an engine take it (SNAP-5)."""
        for name in names_in(self.descriptor):
            match = SNAPSHOT_NAME.fullmatch(name)
            if not match:
                continue
            path = Path(self.directory) / name
            try:
                state = read_snapshot(path, self.uuid)
                _, time_ns, orders, instruments = state_header(state)
                capacity = Capacity(orders, instruments)
                if capacity != (self.capacity or capacity):
                    raise CorruptInput(f"expected a state for {self.capacity}, found one for {capacity}")
                make_engine("reference", capacity).restore(state)
            except (FerroxError, ValueError) as error:
                self.findings.append(Finding(joined(self.directory, name), 0, int(match[1]), str(error)))
            else:
                self.capacity = capacity
                self.snapshots.append((int(match[1]), path))
                self.times[int(match[1])] = time_ns

    def _look_everywhere(self) -> tuple[int, int, list[Seen]]:
        """Return the watermark (JRN-6), the highest sequence number with a trace, and what is sound by itself."""
        watermark = max(self.mark.durable if self.mark else 0, newest_sequence(self.descriptor, self.uuid))
        for segment, following in pairwise(self.segments):
            begins = following.header.epoch > segment.header.epoch or following.header.format_version == 1
            watermark = max(watermark, (following if begins else segment).base - 1)
        highest = watermark
        seen: list[Seen] = []
        stray = [(item.path, item.size, item.base, item.salt, False) for item in self.strays]
        ours = [(item.path, item.size, item.base, item.header.salt, True) for item in self.segments]
        most = self.segments[0].header.segment_records if self.segments else SEGMENT_RECORDS
        for path, size, base, salt, trusted in ours + stray:
            for place, chunk in self._written(path, min(size, HEADER_SIZE + most * RECORD_SIZE)):
                first = base + (place - HEADER_SIZE) // RECORD_SIZE
                highest = max(highest, first - 1 + -(-len(chunk.rstrip(b"\0")) // RECORD_SIZE))
                fields = np.frombuffer(chunk, RECORD_DTYPE, len(chunk) // RECORD_SIZE)
                expected = checksums(chunk[: len(fields) * RECORD_SIZE], salt)
                alone = (fields["crc"] == expected) & (fields["sequence"] == first + np.arange(len(fields)))
                if trusted:
                    watermark = max(watermark, int((fields["sequence"] - fields["lag"])[alone].max(initial=0)))
                for index in np.flatnonzero(alone).tolist():
                    if seen and seen[-1].file == path and seen[-1].last == first + index - 1:
                        seen[-1] = seen[-1]._replace(last=first + index)
                    else:
                        seen.append(Seen(path, first + index, first + index))
        return watermark, max(highest, watermark), seen

    def _page(self, name: str, path: str, size: int) -> tuple[bytes, int]:
        """Return the first `size` bytes of a file, and how many it has."""
        file = open_file(self.descriptor, name, path)
        try:
            return read_at(file, size, 0, path), os.fstat(file).st_size
        finally:
            os.close(file)

    def _written(self, path: str, size: int) -> Iterator[tuple[int, bytes]]:
        """Give the parts of a segment's records that are not all zero, with their offsets."""
        file = open_file(self.descriptor, Path(path).name, path)
        try:
            yield from written(file, HEADER_SIZE, size, path)
        finally:
            os.close(file)

    # ---------------------------------------------------------------------------------------------- what can be kept

    def ways(self) -> list[Way]:
        """Return how the journal can be kept: first from its own beginning, then from each snapshot behind damage."""
        matches = filter(None, map(SEGMENT_NAME.fullmatch, names_in(self.descriptor)))
        named = min((int(match[1]) for match in matches), default=1)
        ways: list[Way] = []
        if named <= 1:
            ways.append(self._way(1, None))
        for sequence, path in self.snapshots:
            # A journal that begins later begins with a snapshot (JRN-20); and what begins where a way has not ended
            # leads to the same end.
            if sequence >= named - 1 and (not ways or sequence > ways[-1].last):
                ways.append(self._way(sequence + 1, path))
        return ways

    def _way(self, first: int, snapshot: Path | None) -> Way:
        """Return what soundly follows from a beginning."""
        last = first - 1
        for records in self.records(first):
            last += len(records) // RECORD_SIZE
        if self.end is None and last < self.highest:
            found = f"expected records up to sequence {self.highest}, found none: a segment is missing or was cut short"
            self.end = Finding(self.directory, 0, last + 1, found)
        return Way(first, last, snapshot, self.end)

    def records(self, start: int) -> Iterator[bytes]:
        """Give the records from `start` on up to the first that does not follow; say in `end` what that was."""
        self.end = None
        chain: Chain | None = None
        hashes: dict[int, bytes] = {}
        for index, following in enumerate([*self.segments[1:], None]):
            if index == len(self.segments):
                return
            if chain is None and following and following.base <= start:
                continue
            try:
                chain = self._enter(index, start, chain, hashes)
                yield from self._follow(index, chain, hashes)
            except SegmentCorrupt as error:
                self.end = Finding(error.path, error.offset, error.sequence, error.found)
                return

    def _enter(self, index: int, start: int, before: Chain | None, hashes: dict[int, bytes]) -> Chain:
        """Return the chain at the beginning of a segment, or, of the first that is read, before record `start`.

        Raise `SegmentCorrupt` when the segment is not the one that follows (JRN-2, JRN-10).
        """
        segment, header = self.segments[index], self.segments[index].header

        def refuse(offset: int, expected: str, found: object) -> SegmentCorrupt:
            return SegmentCorrupt(segment.path, offset, max(start, segment.base), f"expected {expected}, found {found}")

        if before is None:
            if segment.base > start:
                raise refuse(32, f"a segment that holds sequence {start}", f"base sequence {segment.base}")
            if segment.base == 1 and header.prev_chain != header.salt:
                raise refuse(60, "a first segment", "one with another before it")
            if segment.base == 1 and self.mark and self.mark.durable == 0 and self.mark.chain != header.salt:
                raise refuse(56, f"salt {self.mark.chain:08x}, as {MARK_NAME} has it", f"{header.salt:08x}")
            chain = Chain(header.salt, header.prev_chain, start - 1, self.times.get(start - 1, 0))
            self._link(index, chain)
            return chain
        previous = self.segments[index - 1].header
        hashed = index - (1 if header.format_version == 1 else 2)
        sha256 = hashes.get(hashed, bytes(32) if hashed < 0 and self.segments[0].base == 1 else header.prev_sha256)
        if header.epoch < previous.epoch:
            raise refuse(24, f"an epoch from {previous.epoch}", header.epoch)
        full = previous.base_sequence + previous.segment_records
        if header.epoch == previous.epoch and segment.base != full:
            raise refuse(32, f"base sequence {full}", segment.base)
        if header.prev_chain != before.checksum:
            raise refuse(
                60, f"the checksum of the record before to be {before.checksum:08x}", f"{header.prev_chain:08x}"
            )
        if header.prev_sha256 != sha256:
            raise refuse(64, f"the SHA-256 of an earlier segment to be {sha256.hex()}", header.prev_sha256.hex())
        return Chain(header.salt, header.prev_chain, segment.base - 1, before.time_ns)

    def _link(self, index: int, chain: Chain) -> None:
        """Let a chain that begins in the middle begin from the record before, if that one is sound by itself.

        Where it is not, what the first record says of it has to do: that is under the first record's own checksum.
        """
        segment = self.segments[index]
        first = self._record(segment, chain.sequence + 1)
        if chain.sequence + 1 > segment.base and first:
            chain.checksum = int.from_bytes(first[4:8], "little")
        holder = segment if chain.sequence >= segment.base else self.segments[index - 1] if index else None
        if holder and holder.base <= chain.sequence:
            before = self._record(holder, chain.sequence)
            alone = Chain(holder.header.salt, int.from_bytes(before[4:8], "little"), chain.sequence - 1, 0)
            if before and alone.follow(before):
                chain.checksum, chain.time_ns = alone.checksum, max(chain.time_ns, alone.time_ns)

    def _record(self, segment: Segment, sequence: int) -> bytes:
        """Return the record of a sequence number as it stands in a segment, or nothing where the file has ended."""
        file = open_file(self.descriptor, Path(segment.path).name, segment.path)
        try:
            record = read_at(file, RECORD_SIZE, segment.offset(sequence), segment.path)
        finally:
            os.close(file)
        return record if len(record) == RECORD_SIZE else b""

    def _follow(self, index: int, chain: Chain, hashes: dict[int, bytes]) -> Iterator[bytes]:
        """Give the sound records of one segment; raise `SegmentCorrupt` unless all are that should be there."""
        segment = self.segments[index]
        following = self.segments[index + 1] if index + 1 < len(self.segments) else None
        last = following.base - 1 if following else segment.base - 1 + segment.slots
        file = open_file(self.descriptor, Path(segment.path).name, segment.path)
        try:
            sha256 = hashlib.sha256(read_at(file, HEADER_SIZE, 0, segment.path))
            whole = chain.sequence == segment.base - 1
            while chain.sequence < last:
                asked = min(BATCH, last - chain.sequence)
                offset = segment.offset(chain.sequence + 1)
                records = read_at(file, asked * RECORD_SIZE, offset, segment.path)
                records = records[: len(records) // RECORD_SIZE * RECORD_SIZE]
                before = chain.sequence
                passed = chain.follow(records)
                sound = records[: passed * RECORD_SIZE]
                sha256.update(sound)
                agreed = self._agreed(sound, before)
                if agreed:
                    yield sound[: agreed * RECORD_SIZE]
                if agreed < passed and self.mark:
                    crc = int.from_bytes(sound[agreed * RECORD_SIZE :][:4], "little")
                    raise SegmentCorrupt(
                        segment.path,
                        segment.offset(self.mark.durable),
                        self.mark.durable,
                        f"expected checksum {self.mark.chain:08x}, as {MARK_NAME} has it, found {crc:08x}",
                    )
                if passed < asked:
                    if not following and chain.sequence >= self.highest:
                        return
                    offset = segment.offset(chain.sequence + 1)
                    flaw = chain.flaw(read_at(file, RECORD_SIZE, offset, segment.path))
                    raise SegmentCorrupt(segment.path, offset, chain.sequence + 1, flaw)
            for place, _ in written(file, segment.offset(last + 1), segment.size, segment.path):
                raise SegmentCorrupt(
                    segment.path, place, last + 1, f"expected zeros behind sequence {last}, found something else"
                )
            if whole:
                hashes[index] = sha256.digest()
        finally:
            os.close(file)

    def _agreed(self, sound: bytes, before: int) -> int:
        """Return how many of these records stand before the one that the commit mark says another thing of, or all."""
        count = len(sound) // RECORD_SIZE
        index = self.mark.durable - before - 1 if self.mark else -1
        if self.mark is None or not 0 <= index < count:
            return count
        crc = int.from_bytes(sound[index * RECORD_SIZE :][:4], "little")
        return count if crc == self.mark.chain else index


# ------------------------------------------------------------------------------------------------------- to decide


@frozen
class Plan:
    """What a salvage would keep, and what it would lose."""

    survey: Survey
    way: Way
    """The one to take: of those that are allowed, the one that ends latest."""
    other: Way | None
    """One that keeps more, and needs `from_snapshot`."""

    @property
    def sound(self) -> bool:
        """Whether the journal is read as it is, so that there is nothing to salvage."""
        return self.survey.scan.verdict == "clean"

    @property
    def lost(self) -> int:
        """How many sequence numbers are lost at the end."""
        return max(0, self.survey.highest - self.way.last)

    @property
    def acknowledged(self) -> int:
        """How many of them are at or below the watermark: somebody may have been told that they are kept."""
        return max(0, self.survey.watermark - self.way.last)

    @property
    def not_used(self) -> list[Seen]:
        """The runs of records that are sound by themselves and not kept."""
        runs: list[Seen] = []
        for run in self.survey.seen:
            if run.first < self.way.first:
                runs.append(run._replace(last=min(run.last, self.way.first - 1)))
            if run.last > self.way.last:
                runs.append(run._replace(first=max(run.first, self.way.last + 1)))
        return runs

    def why(self) -> str:
        """Say in one sentence why this way was taken."""
        if self.way.snapshot is None:
            told = "the records from the first on, as far as each soundly follows the one before"
        else:
            told = (
                f"the state of {self.way.snapshot.name} stands for all records before {self.way.first}, and what "
                "follows is kept as far as each record soundly follows the one before"
            )
        return f"{told}; of the ways that were allowed, none ends later"

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON has it."""
        survey, way = self.survey, self.way
        return {
            "source": {"directory": survey.directory, "uuid": survey.uuid.hex(), "verdict": survey.scan.verdict},
            "found": [finding.to_json() for finding in self.findings()],
            "kept": {
                "first_sequence": way.first if way.length else 0,
                "last_sequence": way.last if way.length else 0,
                "records": way.length,
                "snapshot": way.snapshot.name if way.snapshot else None,
                "stood_for": way.first - 1,
                "why": self.why(),
            },
            "lost": {
                "first_sequence": way.last + 1 if self.lost else 0,
                "last_sequence": survey.highest if self.lost else 0,
                "records": self.lost,
                "acknowledged": self.acknowledged,
                "durable_sequence": survey.watermark,
                "certain": survey.mark is not None,
            },
            "not_used": {
                "records": sum(run.last + 1 - run.first for run in self.not_used),
                "ranges": [
                    {"file": run.file, "first_sequence": run.first, "last_sequence": run.last} for run in self.not_used
                ],
                "why": NOT_USED,
            },
            "would_keep_more": {"from_snapshot": self.other.snapshot.name, "last_sequence": self.other.last}
            if self.other and self.other.snapshot
            else None,
        }

    def findings(self) -> list[Finding]:
        """Return what was found, the end of the way included."""
        findings = list(self.survey.findings)
        if self.lost and self.way.end and self.way.end[:2] not in {finding[:2] for finding in findings}:
            findings.append(self.way.end)
        return findings


def plan(survey: Survey, *, from_snapshot: bool = False) -> Plan:
    """Choose the way that keeps most: the highest last sequence number, and of equal ones the one that begins first.

    A snapshot behind damage is begun with only where `from_snapshot` allows it.  Raise `CorruptInput` when there is
    nothing to begin with.
    """
    ways = survey.ways()
    if not ways or survey.capacity is None:
        raise CorruptInput(
            f"{survey.directory}: nothing can be salvaged here: there is neither a first segment nor a sound snapshot "
            "to begin with. Nothing was changed. Restore the journal's files from a copy."
        )
    best = max(ways, key=lambda way: way.last)
    own = ways[0]
    if from_snapshot or best is own:
        return Plan(survey, best, None)
    return Plan(survey, own, best if best.last > own.last else None)


# ---------------------------------------------------------------------------------------------------------- to do it


def salvage(
    directory: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    from_snapshot: bool = False,
    now_ns: int,
    version: str,
) -> dict[str, Any]:
    """Write what can be kept of a journal as a new one, and a report of what was lost; return the report.

    The new journal is in a new or empty directory.  It is read again and held against the old one before the report is
    written, and removed when anything goes wrong before: one without a report is not finished.  `now_ns` and `version`
    go into the report.  Raise `UsageError` when the journal is sound or `out` is taken, `CorruptInput` when there is
    nothing to keep, `JournalFailed` when the disk fails.
    """
    with Survey(directory) as survey:
        chosen = plan(survey, from_snapshot=from_snapshot)
        if chosen.sound:
            raise UsageError(
                f"{survey.directory}: this journal is sound; there is nothing to salvage. Copy it instead."
            )
        _check_out(survey, out)
        files = _digests(survey.directory)
        with _undone(out):
            with _create(chosen, out) as (journal, clock):
                for records in survey.records(chosen.way.first):
                    _copy(records, journal, clock)
            kept = _verify(chosen, out)
            report = {
                "report": REPORT_FORMAT,
                "ferrox": version,
                "time_ns": now_ns,
                **chosen.to_json(),
                "kept_sha256": kept,
                "source_files": files,
                "new": {"directory": os.fspath(out), "uuid": journal.uuid.hex(), "files": _digests(out)},
            }
            report["checksum"] = _checksum(report)
            _publish(out, REPORT_TEXT, show_report(report))
            _publish(out, REPORT_JSON, json.dumps(report, indent=2, allow_nan=False) + "\n")
    return report


def read_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a loss report; raise `CorruptInput` when it is not as it was written.

    Its checksum tells a report that was changed by accident or in passing.  It is no signature: whoever edits the
    report can calculate it again.
    """
    try:
        report = json.loads(Path(path).read_text("utf-8"))
        found, expected = report["checksum"], _checksum(report)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptInput(f"{path}: this is no loss report: {error}") from None
    if found != expected:
        raise CorruptInput(f"{path}: expected checksum {expected}, found {found}: this report was changed")
    return dict(report)


def show_report(report: dict[str, Any]) -> str:
    """Return a loss report as text."""
    source, kept, lost, not_used = report["source"], report["kept"], report["lost"], report["not_used"]
    lines = [
        f"Loss report of journal {source['uuid']}, salvaged by Ferrox {report['ferrox']}",
        f"at {datetime.fromtimestamp(report['time_ns'] // 10**9, UTC):%Y-%m-%d %H:%M:%S} UTC",
        "",
        f"source      {source['directory']}, {source['verdict']}",
        f"new         {report['new']['directory']}, journal {report['new']['uuid']}",
        f"kept        {kept['records']} records, {kept['first_sequence']} to {kept['last_sequence']}",
        f"            {kept['why']}",
        f"            {kept['stood_for']} records are not kept, for a snapshot stands for them",
        f"lost        {lost['records']} records, {lost['first_sequence']} to {lost['last_sequence']}",
        f"            {lost['acknowledged']} of them at or below the watermark, {lost['durable_sequence']}",
        *([] if lost["certain"] else [f"            {UNCERTAIN}"]),
        f"not used    {not_used['records']} records that are sound by themselves",
    ]
    lines += [
        f"            {run['first_sequence']} to {run['last_sequence']}, {run['file']}" for run in not_used["ranges"]
    ]
    lines += [f"            {not_used['why']}", ""]
    lines += [
        f"found       {found['file']}: offset {found['offset']}, sequence {found['sequence']}: "
        + (f"expected {found['expected']}, found {found['found']}" if found["expected"] else found["found"])
        for found in report["found"]
    ]
    lines += ["", f"records     SHA-256 {report['kept_sha256']}, of the kept records as JRN-25 says"]
    lines += [f"source      SHA-256 {file['sha256']}  {name}" for name, file in report["source_files"].items()]
    lines += [f"new         SHA-256 {file['sha256']}  {name}" for name, file in report["new"]["files"].items()]
    lines += ["", f"checksum    {report['checksum']}, of {REPORT_JSON}; a checksum, no signature", ""]
    return "\n".join(lines)


class Clock:
    """The time for records that the journal dates itself: that of the record which is copied."""

    now_ns = 0

    def __call__(self) -> int:
        """Return it."""
        return self.now_ns


@contextmanager
def _create(chosen: Plan, out: str | os.PathLike[str]) -> Iterator[tuple[Journal, Clock]]:
    """Begin the new journal, with its snapshot if it begins with one, and close it behind the block."""
    way, survey, clock = chosen.way, chosen.survey, Clock()
    journal = Journal.create(
        out,
        survey.capacity,
        segment_records=survey.segments[0].header.segment_records if survey.segments else SEGMENT_RECORDS,
        source=Source(clock=clock),
        after=way.first - 1,
        after_ns=survey.times.get(way.first - 1, 0),
    )
    with journal:
        if way.snapshot:
            write_snapshot(out, read_snapshot(way.snapshot, survey.uuid), journal.uuid)
        yield journal, clock


def _copy(records: bytes, journal: Journal, clock: Clock) -> None:
    """Append records with the times, kinds, sessions and commands that they have.

    The journal's own records take sequence numbers, too.  Each becomes a MARK in its place: a SEAL says that a journal
    was closed there, and this one was not.
    """
    fields = np.frombuffer(records, RECORD_DTYPE)
    done = 0
    for index in np.flatnonzero(fields["kind"] >= FIRST_ANNOTATION).tolist():
        if index > done:
            journal.append(records[done * RECORD_SIZE : index * RECORD_SIZE])
        clock.now_ns = int(fields["time_ns"][index])
        done = index + 1
        said = MARK.unpack(records[done * RECORD_SIZE - COMMAND_SIZE : done * RECORD_SIZE])
        journal.mark(*(said if fields["kind"][index] == Annotation.MARK else ()))
    if done < len(fields):
        journal.append(records[done * RECORD_SIZE :])


def _verify(chosen: Plan, out: str | os.PathLike[str]) -> str:
    """Read the new journal whole, hold it against the old one, and return the SHA-256 of the records kept."""
    way = chosen.way
    found = scan(out)
    told = hashlib.sha256()
    for records in chosen.survey.records(way.first):
        told.update(canonical(records))
    again = hashlib.sha256()
    if way.length:
        for records in read(out, way.first, way.last):
            again.update(canonical(records))
    if (found.verdict, found.first, found.last) != (
        "clean",
        way.first,
        way.last + 1,
    ) or told.digest() != again.digest():
        raise JournalFailed(
            f"{os.fspath(out)}: the new journal does not read as it was written ({found.corruption or found.verdict}); "
            "it was removed. Choose another disk."
        )
    return told.hexdigest()


def canonical(records: bytes) -> bytes:
    """Return records without what belongs to the journal that holds them: checksum, chain and lag 0, a SEAL a MARK."""
    fields = np.frombuffer(records, RECORD_DTYPE).copy()
    for name in ("crc", "prev_crc", "lag"):
        fields[name] = 0
    fields["kind"][fields["kind"] == Annotation.SEAL] = Annotation.MARK
    return fields.tobytes()


def _check_out(survey: Survey, out: str | os.PathLike[str]) -> None:
    """Raise `UsageError` for a place inside the old journal, which is never changed."""
    if Path(survey.directory).resolve() in (place := Path(out).resolve(), *place.parents):
        raise UsageError(f"{os.fspath(out)}: this is inside the journal to salvage, which is left as it is")


@contextmanager
def _undone(out: str | os.PathLike[str]) -> Iterator[None]:
    """Remove what was written into a new or empty directory, when the block fails."""
    place = Path(out)
    existed = place.is_dir()
    ours = not os.path.lexists(place) or (existed and not any(place.iterdir()))
    try:
        yield
    except BaseException as error:
        if ours:
            with suppress(OSError):
                for path in place.iterdir():
                    path.unlink()
                if not existed:
                    place.rmdir()
        if isinstance(error, OSError):
            raise JournalFailed(f"{os.fspath(out)}: {error.strerror}; nothing was kept here") from error
        raise


def _digests(directory: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of every file of a directory, by its name."""
    digests: dict[str, dict[str, Any]] = {}
    descriptor = open_directory(directory)
    try:
        for name in names_in(descriptor):
            path = joined(directory, name)
            try:
                file = open_file(descriptor, name, path)
            except CorruptInput as error:
                digests[name] = {"bytes": None, "sha256": None, "error": str(error)}
                continue
            sha256, offset = hashlib.sha256(), 0
            try:
                while chunk := read_at(file, COPY_SIZE, offset, path):
                    sha256.update(chunk)
                    offset += len(chunk)
                digests[name] = {"bytes": offset, "sha256": sha256.hexdigest()}
            except CorruptInput as error:
                digests[name] = {"bytes": None, "sha256": None, "error": str(error)}
            finally:
                os.close(file)
    finally:
        os.close(descriptor)
    return digests


def _checksum(report: dict[str, Any]) -> str:
    """Return the SHA-256 of a report without its checksum, as JSON with sorted keys and no spaces."""
    bare = {name: value for name, value in report.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(bare, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _publish(directory: str | os.PathLike[str], name: str, text: str) -> None:
    """Write a text file that appears whole and durable."""
    descriptor = open_directory(directory)
    try:
        os.close(publish(descriptor, name, [text.encode()]))
    finally:
        os.close(descriptor)
