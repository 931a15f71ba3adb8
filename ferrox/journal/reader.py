"""Reading a journal: verify every byte, give whole records, change nothing (JRN-14).

Two questions are asked of a record that fails its checks, and they must not be confused.  *What is wrong with it* is in
its bytes.  *Whether that is a crash or damage* is not: a tail that a crash tore and a record that the disk lost look
alike.  The durable watermark decides (JRN-6 .. JRN-8).  At or below it the record was on disk once, so it is corrupt
and the journal is refused; above it nobody was told that it would last, so it and all behind it is a torn tail.

The watermark is in three places, so that no single fault lowers it: the commit mark, the lag in every record, and the
segment names, since a segment is begun only when all before it is on disk.  "A sound record behind a bad one means
corruption" was considered instead and left: disks write unsynced sectors in any order, and it refused one legal crash
in six.
"""

import errno
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np
from attrs import frozen

from ferrox.errors import CorruptInput, JournalCorrupt, SegmentCorrupt, UsageError
from ferrox.files import is_zero, joined, names_in, open_directory, open_file, read_at
from ferrox.journal.chain import Chain, checksums, watermark
from ferrox.journal.layout import (
    HEADER_SIZE,
    MARK_NAME,
    MARK_SIZE,
    CommitMark,
    SegmentHeader,
    parse_name,
    unpack_header,
    unpack_marks,
)
from ferrox.messages import RECORD_DTYPE, RECORD_SIZE
from ferrox.snapshot import latest_snapshot, newest_sequence
from ferrox.terms import Annotation

BATCH: Final = 4096
"""Records read at a time, by default: 256 KiB."""


@frozen
class TornTail:
    """What a crash left above the watermark: never acknowledged as durable, not part of the journal (JRN-8)."""

    path: str
    """Of the segment where the sound records end."""
    offset: int
    """In bytes, where the last sound record ends."""
    sequence: int
    """The first sequence number that is lost."""
    size: int
    """Bytes up to the last one that is not 0, in this segment."""
    records: int
    """How many records it may have held: the slots that it touches."""
    files: tuple[str, ...] = ()
    """Names of later segments, all of which belong to it."""

    def __str__(self) -> str:
        later = f", {self.files[0]}" + (f" .. {self.files[-1]}" if len(self.files) > 1 else "") if self.files else ""
        return (
            f"{self.path}: offset {self.offset}, sequence {self.sequence}: a torn tail of {self.size} bytes "
            f"in the place of {self.records} records{later}, none of which was known to be on disk"
        )


@frozen
class Scan:
    """What a journal is, after a look at every byte of it."""

    directory: str
    verdict: str
    """"clean", "torn" or "corrupt"."""
    header: SegmentHeader | None
    """Of the first segment, None when that one cannot be read."""
    segments: tuple[str, ...]
    """File names in order."""
    first: int
    """Sequence number of the first record, 0 when there is none."""
    last: int
    """Sequence number of the last record that passed, 0 when there is none."""
    durable: int
    """The watermark (JRN-6)."""
    sealed: bool
    """Whether the journal was closed in order, that is, ends with a SEAL."""
    kinds: dict[int, int]
    """How many records of each kind passed, by kind."""
    torn: TornTail | None
    corruption: CorruptInput | None
    """What stands in the way of reading on, ready to be raised."""
    warnings: tuple[str, ...]


class Segment(NamedTuple):
    """A segment as it lies on disk."""

    header: SegmentHeader
    path: str
    size: int
    """Of the file in bytes, the header included."""

    @property
    def base(self) -> int:
        """The sequence number of the first record."""
        return self.header.base_sequence

    @property
    def slots(self) -> int:
        """How many whole records the file has room for."""
        return (self.size - HEADER_SIZE) // RECORD_SIZE

    def offset(self, sequence: int) -> int:
        """Return where in the file the record of a sequence number stands."""
        return HEADER_SIZE + RECORD_SIZE * (sequence - self.base)


class Remainder(NamedTuple):
    """A file from the first one on whose header is not in order: prepared, or torn (JRN-8, JRN-19)."""

    name: str
    path: str
    size: int
    base: int
    epoch: int
    error: SegmentCorrupt
    """What is wrong with the header, or with the one before it, in case that it was on disk."""
    header: SegmentHeader | None = None
    """If it is in order: the segment was begun before the one before it was on disk."""


def read(
    directory: str | os.PathLike[str], start: int = 1, until: int | None = None, batch: int = BATCH
) -> Iterator[bytes]:
    """Give the records from sequence `start` to `until`, both included, in verified batches of at most `batch`.

    Memory is bounded by the batch.  Segments that end before `start` are passed over; any other is verified from its
    beginning.  A torn tail ends the journal (`scan` tells of it).  Raise `UsageError` when there is no journal or it
    ends before `start`; raise `CorruptInput` when it is damaged, after the sound records before the damage.
    """
    if start < 1 or batch < 1 or (until is not None and until < 0):
        raise UsageError(f"sequence numbers and batches are from 1, found start {start}, until {until}, batch {batch}")
    with Reading(directory) as reading:
        reading.load()
        yield from reading.batches(start, until, batch)


def identify(directory: str | os.PathLike[str]) -> SegmentHeader:
    """Return the header of a journal's first segment: its uuid, and the `capacity` its replay needs."""
    with Reading(directory) as reading:
        reading.load()
        return reading.segments[0].header


def scan(directory: str | os.PathLike[str]) -> Scan:
    """Look at every byte of a journal and say what it is; raise `UsageError` only when there is none to look at."""
    with Reading(directory) as reading:
        corruption: CorruptInput | None = None
        try:
            reading.load()
            for _ in reading.batches():
                pass
        except CorruptInput as error:
            corruption = error
        return reading.scan(corruption)


def load_mark(descriptor: int, directory: str) -> tuple[CommitMark, int, list[str]]:
    """Return the commit mark of an open directory, its slot, and a warning for a slot that fails its checks.

    One that fails may be one that is being written, so it is read again.
    """
    path = joined(directory, MARK_NAME)
    for _ in range(3):
        file = open_file(descriptor, MARK_NAME, path)
        try:
            page = read_at(file, MARK_SIZE + 1, 0, path)
        finally:
            os.close(file)
        mark, slot, warnings = unpack_marks(page, path)
        if not warnings:
            break
    return mark, slot, warnings


class Reading:
    """One pass over a journal, and what it has found out so far."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Open the directory, and nothing in it; raise `UsageError` when there is none or it holds no journal."""
        self.directory = os.fspath(directory)
        self.descriptor = open_directory(directory)
        if not any(name == MARK_NAME or name.endswith(".wal") for name in names_in(self.descriptor)):
            os.close(self.descriptor)
            raise UsageError(
                f"{self.directory}: this directory holds no journal: no segment (*.wal) and no {MARK_NAME}"
            )
        self.mark: CommitMark
        self.mark_slot = 0
        self.segments: list[Segment] = []
        self.remainders: list[Remainder] = []
        self.chain = Chain(0, 0, 0, 0)
        self.first = 0
        self.durable = 0
        self.kinds: Counter[int] = Counter()
        self.last_kind = 0
        self.hashes: dict[int, bytes] = {}
        """SHA-256 of each segment that was read whole, by its index."""
        self.torn: TornTail | None = None
        self.warnings: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    # ------------------------------------------------------------------------------------- the files, and their order

    def load(self) -> None:
        """Read the commit mark and every header, and hold them against each other (JRN-10)."""
        # The witnesses of the watermark first: all that they vouch for was there before them, so that a writer who goes
        # on meanwhile can only add to what they say, and is never mistaken for damage.
        self._load_mark()
        snapshot = newest_sequence(self.descriptor, self.mark.uuid)
        names = [name for name in names_in(self.descriptor) if name.endswith(".wal")]
        if not names:
            path = joined(self.directory, MARK_NAME)
            raise SegmentCorrupt(path, 0, 1, "expected a segment beside the commit mark, found none")
        for name in names:
            self._load_header(name)
        self._check_first(self.segments[0])
        for segment, following in pairwise(self.segments):
            self._check_following(segment, following)
        for segment in self.segments:
            room = HEADER_SIZE + segment.header.segment_records * RECORD_SIZE
            if segment.size > room:
                raise SegmentCorrupt(
                    segment.path, room, segment.base, f"expected at most {room} bytes, found {segment.size}"
                )
        self.durable = max(self.mark.durable, self._witnessed(), snapshot)
        self._check_end()

    def _load_mark(self) -> None:
        """Read the commit mark."""
        self.mark, self.mark_slot, warnings = load_mark(self.descriptor, self.directory)
        self.warnings += warnings

    def _load_header(self, name: str) -> None:
        """Read the header of a file; one that is not in order can only be the end of the journal, if anything."""
        path = joined(self.directory, name)
        page, size = self._page(name, path, HEADER_SIZE)
        base, epoch = parse_name(name, path)
        try:
            header = unpack_header(page, name, path)
        except SegmentCorrupt as error:
            if not self.segments or size < HEADER_SIZE:
                raise
            self.remainders.append(Remainder(name, path, size, base, epoch, error))
            return
        if not self.remainders:
            self.segments.append(Segment(header, path, size))
            return
        # A segment may be begun while all of the one before it, its header too, is not on disk, and no more than that.
        last, lost = self.segments[-1].header, self.remainders[0]
        following = last._replace(base_sequence=lost.base + last.segment_records).name
        if len(self.remainders) > 1 or header.uuid != last.uuid or name != following:
            raise lost.error
        self.remainders.append(Remainder(name, path, size, base, epoch, lost.error, header))

    def _witnessed(self) -> int:
        """Return how far the segments say that the journal is on disk (JRN-6)."""
        known = 0
        for segment, following in pairwise(self.segments):
            begins = following.header.epoch > segment.header.epoch or following.header.format_version == 1
            known = following.base - 1 if begins else segment.base - 1
        if any(remainder.header for remainder in self.remainders):
            known = max(known, self.remainders[0].base - 1)
        return known

    def _check_end(self) -> None:
        """Refuse a journal that lacks a segment which the commit mark knows of, or the header of one."""
        for remainder in self.remainders:
            if remainder.base <= self.durable or self.segments[-1].header.epoch < remainder.epoch <= self.mark.epoch:
                raise remainder.error
        if self.mark.epoch <= self.segments[-1].header.epoch:
            return
        path = joined(self.directory, MARK_NAME)
        raise SegmentCorrupt(
            path, 24, self.mark.durable + 1, f"expected a segment of epoch {self.mark.epoch}, found none: it is missing"
        )

    def _page(self, name: str, path: str, size: int) -> tuple[bytes, int]:
        """Return the first `size` bytes of a file, and how many it has."""
        file = open_file(self.descriptor, name, path)
        try:
            return read_at(file, size, 0, path), os.fstat(file).st_size
        finally:
            os.close(file)

    def _check_first(self, segment: Segment) -> None:
        """Refuse a journal whose beginning is missing or is another journal's."""
        header = segment.header
        if header.uuid != self.mark.uuid:
            raise SegmentCorrupt(
                segment.path,
                16,
                1,
                f"expected a segment of journal {self.mark.uuid.hex()}, which {MARK_NAME} belongs to, "
                f"found one of {header.uuid.hex()}",
            )
        if self.mark.durable == 0 and header.base_sequence == 1 and self.mark.chain != header.salt:
            raise SegmentCorrupt(
                segment.path,
                56,
                1,
                f"expected salt {self.mark.chain:08x}, as {MARK_NAME} has it, found {header.salt:08x}",
            )
        if header.base_sequence > 1:
            self._check_origin(segment)
        elif header.prev_chain != header.salt or any(header.prev_sha256):
            raise SegmentCorrupt(segment.path, 60, 1, "expected a first segment, found one with another before it")

    def _check_origin(self, segment: Segment) -> None:
        """Refuse a journal whose first segments are gone, unless a snapshot stands for them (JRN-20)."""
        latest = latest_snapshot(self.directory, self.mark.uuid)
        if latest.path is None or latest.sequence < segment.base - 1:
            raise SegmentCorrupt(
                segment.path,
                32,
                segment.base,
                f"expected the segment that begins with sequence 1, found sequence {segment.base}: a segment before "
                f"this one is missing, and no sound snapshot of sequence {segment.base - 1} or later stands for it",
            )

    def _check_following(self, segment: Segment, following: Segment) -> None:
        """Refuse a segment that is not the next one: of another journal, or with records missing in between."""
        one, two = segment.header, following.header
        if (two.uuid, two.rules_version, two.capacity) != (one.uuid, one.rules_version, one.capacity):
            raise SegmentCorrupt(
                following.path,
                16,
                two.base_sequence,
                f"expected a segment of journal {one.uuid.hex()} for {one.order_capacity} orders and "
                f"{one.instrument_capacity} instruments, found one of {two.uuid.hex()} for {two.order_capacity} and "
                f"{two.instrument_capacity}",
            )
        count = two.base_sequence - one.base_sequence
        if count > segment.slots:
            missing = one.base_sequence + segment.slots
            raise SegmentCorrupt(
                segment.path,
                segment.size,
                missing,
                f"expected records up to sequence {two.base_sequence - 1}, where {two.name} follows, "
                "found the end of the file: it was cut short, or a segment between the two is missing",
            )
        if two.epoch < one.epoch:
            raise SegmentCorrupt(
                following.path, 24, two.base_sequence, f"expected an epoch from {one.epoch}, found {two.epoch}"
            )
        if two.epoch == one.epoch and count != one.segment_records:
            raise SegmentCorrupt(
                following.path,
                32,
                two.base_sequence,
                f"expected base sequence {one.base_sequence + one.segment_records}, where {one.name} is full, "
                f"found {two.base_sequence}",
            )

    # ----------------------------------------------------------------------------------------------------- the records

    def batches(self, start: int | None = None, until: int | None = None, batch: int = BATCH) -> Iterator[bytes]:
        """Verify and give records, all without a `start`; at the end, say whether it is a clean or a torn one."""
        first = self.segments[0].base
        start = first if start is None else start
        if start < first > 1:
            raise UsageError(
                f"{self.directory}: the journal begins at sequence {first}, for what was before is archived; "
                f"begin with the snapshot of sequence {latest_snapshot(self.directory, self.mark.uuid).sequence}"
            )
        for index, segment in enumerate(self.segments):
            following = self.segments[index + 1] if index + 1 < len(self.segments) else None
            if following and 1 < start >= following.base:
                continue
            if until is not None and segment.base > until:
                return
            self._enter(index)
            yield from self._records(index, start, until, batch)
            if self.torn:
                break
        if until is None and start > self.chain.sequence + 1:
            raise UsageError(f"{self.directory}: the journal ends at sequence {self.chain.sequence}, before {start}")

    def _enter(self, index: int) -> None:
        """Begin a segment, and hold its header against the segments that were read before it (JRN-2, JRN-10)."""
        segment = self.segments[index]
        header = segment.header
        hashed = index - (1 if header.format_version == 1 else 2)
        checks = []
        if index and index - 1 in self.hashes:
            checks.append(
                ("checksum of the record before", 60, f"{self.chain.checksum:08x}", f"{header.prev_chain:08x}")
            )
        if hashed in self.hashes:
            checks.append(("SHA-256 of an earlier segment", 64, self.hashes[hashed].hex(), header.prev_sha256.hex()))
        elif hashed < 0 and self.segments[0].base == 1:
            checks.append(("SHA-256 of a segment that is not there", 64, bytes(32).hex(), header.prev_sha256.hex()))
        for field, offset, expected, found in checks:
            if expected != found:
                raise SegmentCorrupt(
                    segment.path, offset, segment.base, f"expected the {field} to be {expected}, found {found}"
                )
        self.first = self.first or segment.base
        self.chain = Chain(header.salt, header.prev_chain, segment.base - 1, self.chain.time_ns)

    def _records(self, index: int, start: int, until: int | None, batch: int) -> Iterator[bytes]:
        """Verify and give the records of one segment, then judge what stands behind them."""
        chain = self.chain
        segment = self.segments[index]
        count = self.segments[index + 1].base - segment.base if index + 1 < len(self.segments) else segment.slots
        file = open_file(self.descriptor, segment.header.name, segment.path)
        try:
            sha256 = hashlib.sha256(read_at(file, HEADER_SIZE, 0, segment.path))
            while count:
                if until is not None and chain.sequence >= until:
                    return
                offset = HEADER_SIZE + RECORD_SIZE * (chain.sequence + 1 - segment.base)
                records = read_at(file, min(batch, count) * RECORD_SIZE, offset, segment.path)
                before = chain.sequence
                asked = len(records) // RECORD_SIZE
                passed = chain.follow(records[: asked * RECORD_SIZE])
                sound = records[: passed * RECORD_SIZE]
                self._note(segment, sound, before)
                sha256.update(sound)
                count -= passed
                last = passed if until is None else min(passed, until - before)
                if last > (skipped := max(0, start - 1 - before)):
                    yield sound[skipped * RECORD_SIZE : last * RECORD_SIZE]
                if passed < asked or not asked:
                    break
            if until is None or chain.sequence < until:
                self._judge(index, file)
            self.hashes[index] = sha256.digest()
        finally:
            os.close(file)

    def _note(self, segment: Segment, sound: bytes, before: int) -> None:
        """Take down what sound records tell: their kinds, the watermark they knew, and whether the mark agrees."""
        fields = np.frombuffer(sound, RECORD_DTYPE)
        if not len(fields):
            return
        for kind, number in enumerate(np.bincount(fields["kind"]).tolist()):
            if number:
                self.kinds[kind] += number
        self.last_kind = int(fields["kind"][-1])
        self.durable = max(self.durable, watermark(sound))
        index = self.mark.durable - before - 1
        if 0 <= index < len(fields) and (found := int(fields["crc"][index])) != self.mark.chain:
            raise JournalCorrupt(
                segment.path,
                HEADER_SIZE + RECORD_SIZE * (self.mark.durable - segment.base),
                self.mark.durable,
                f"expected checksum {self.mark.chain:08x}, as {MARK_NAME} has it, found {found:08x}",
                durable=self.durable,
            )

    def _judge(self, index: int, file: int) -> None:
        """Say what stands behind the last sound record: nothing, a torn tail, or damage (JRN-7, JRN-8)."""
        segment, later = self.segments[index], self.segments[index + 1 :]
        sequence = self.chain.sequence + 1
        offset = HEADER_SIZE + RECORD_SIZE * (sequence - segment.base)
        end = offset
        for place, chunk in written(file, offset, segment.size, segment.path):
            if later and sequence == later[0].base:
                raise SegmentCorrupt(
                    segment.path,
                    place,
                    sequence,
                    f"expected zeros behind sequence {sequence - 1}, for {later[0].header.name} follows, "
                    "found something else",
                )
            # A sound record further on may know of a higher watermark than all that came before it.
            self.durable = max(self.durable, _known(chunk, segment.header.salt))
            end = place + len(chunk.rstrip(b"\0"))
        if later and sequence == later[0].base:
            return
        sizes = {following.header.name: self._behind(following, following.header.salt) for following in later}
        sizes |= {
            remainder.name: size
            for remainder in self.remainders
            if (size := self._behind(remainder, remainder.header.salt if remainder.header else None))
        }
        if sequence <= self.durable and (later or sequence not in {other.base for other in self.remainders}):
            found = self.chain.flaw(read_at(file, RECORD_SIZE, offset, segment.path))
            raise JournalCorrupt(segment.path, offset, sequence, found, durable=self.durable)
        for remainder in self.remainders:
            if remainder.base <= self.durable:
                raise remainder.error
        if end > offset or sizes:
            slots = -(-(end - offset) // RECORD_SIZE)
            slots += sum(-(-max(0, size - HEADER_SIZE) // RECORD_SIZE) for size in sizes.values())
            self.torn = TornTail(segment.path, offset, sequence, end - offset, slots, tuple(sizes))

    def _behind(self, other: Segment | Remainder, salt: int | None) -> int:
        """Return how many bytes a later file has up to the last one that is not 0; note what its records knew."""
        end = 0
        file = open_file(self.descriptor, Path(other.path).name, other.path)
        try:
            for place, chunk in written(file, 0, other.size, other.path):
                end = place + len(chunk.rstrip(b"\0"))
                if salt is not None:
                    self.durable = max(self.durable, _known(chunk, salt))
        finally:
            os.close(file)
        return end

    def scan(self, corruption: CorruptInput | None) -> Scan:
        """Return what was found."""
        last = self.chain.sequence
        return Scan(
            directory=self.directory,
            verdict="corrupt" if corruption else "torn" if self.torn else "clean",
            header=self.segments[0].header if self.segments else None,
            segments=tuple(segment.header.name for segment in self.segments),
            first=self.first if last else 0,
            last=last,
            durable=self.durable,
            sealed=self.last_kind == Annotation.SEAL and not self.torn and not corruption,
            kinds=dict(sorted(self.kinds.items())),
            torn=self.torn,
            corruption=corruption,
            warnings=tuple(self.warnings),
        )


def written(file: int, start: int, size: int, path: str) -> Iterator[tuple[int, bytes]]:
    """Give the parts of a file from `start` to `size` that are not all zero, in whole slots, with their offsets."""
    place = start
    while place < size:
        place = _data_from(file, place, start)
        if place >= size:
            return
        chunk = read_at(file, min(BATCH * RECORD_SIZE, size - place), place, path)
        if not chunk:
            return
        if not is_zero(chunk):
            yield place, chunk
        place += len(chunk)


def _data_from(file: int, place: int, start: int) -> int:
    """Return where the file's next data is, at or before it, a number of whole slots from `start`; holes are zeros."""
    try:
        data = os.lseek(file, place, os.SEEK_DATA)
    except OSError as error:
        return place if error.errno != errno.ENXIO else sys.maxsize  # ENXIO: there is no more
    return max(place, start + (data - start) // RECORD_SIZE * RECORD_SIZE)


def _known(chunk: bytes, salt: int) -> int:
    """Return the highest watermark that a record of a chunk knows, wherever it stands, if its checksum is right."""
    whole = chunk[: len(chunk) // RECORD_SIZE * RECORD_SIZE]
    fields = np.frombuffer(whole, RECORD_DTYPE)
    return watermark(fields[fields["crc"] == checksums(whole, salt)].tobytes())
