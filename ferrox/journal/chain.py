"""The chain of records: how one is sealed so that the next can be checked (JRN-1, JRN-2, JRN-3).

A `Chain` is the end of a run of records: all that the next one depends on.  `seal` writes from there, `follow` reads
from there, and both leave the chain at the new end.  Sealing is a loop, for each record needs the checksum of the one
before it.  Reading need not be: the stored checksums are there already, so each record's own is calculated alone, and
what holds them together (chain, sequence, time) is compared for a whole batch at once.

Where the fast engine is compiled, `ferrox.fast.records` does both at its pace; here they stand for a build that is not.
"""

from collections.abc import Iterable
from struct import Struct
from typing import Any, Final

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from ferrox.errors import UsageError
from ferrox.fast import COMPILED
from ferrox.fast.records import count_fit, count_sound, seal_records
from ferrox.files import is_zero
from ferrox.journal.layout import MARK
from ferrox.messages import (
    COMMAND_DTYPE,
    COMMAND_SIZE,
    ENVELOPE,
    FRAME_SIZE,
    HALF_SIZE,
    RECORD,
    RECORD_DTYPE,
    RECORD_SIZE,
)
from ferrox.terms import TIME_MAX, Annotation

LAG_MAX: Final = 2**32 - 1
FIRST_ANNOTATION: Final = int(min(Annotation))

# Parts of a record, by what is done with them.
GIVEN: Final = Struct("<16xqBBH4x32s")  # what the caller fills: time_ns, kind, size, session, command
CHECKED: Final = Struct("<IqqBBHI32s")  # what the checksum is over: all but itself
CHECKED_OF: Final = Struct("<4x60s")
TIME_OF: Final = Struct("<16xq40x")
assert GIVEN.size == CHECKED_OF.size == TIME_OF.size == RECORD_SIZE == RECORD.size
assert CHECKED.size == RECORD_SIZE - 4

SIZE_OF_KIND: Final = np.full(256, COMMAND_SIZE, np.uint8)
SIZE_OF_KIND[[int(kind) for kind in FRAME_SIZE]] = list(FRAME_SIZE.values())


class Chain:
    """The end of a run of records: the last one's checksum, sequence and time, and the salt of the segment."""

    def __init__(self, salt: int, checksum: int, sequence: int, time_ns: int) -> None:
        self.salt, self.checksum, self.sequence, self.time_ns = salt, checksum, sequence, time_ns

    def seal(self, records: bytes, durable: int, now_ns: int) -> bytes:
        """Return the records with checksum, chain, sequence, time and lag filled in; a time of 0 becomes `now_ns`."""
        if COMPILED:
            sealed, self.checksum, self.time_ns = seal_records(
                records, self.salt, self.checksum, self.sequence, self.time_ns, durable, now_ns
            )
            self.sequence += len(records) // RECORD_SIZE
            return sealed
        salt, checksum, sequence, latest = self.salt, self.checksum, self.sequence, self.time_ns
        pack = CHECKED.pack
        parts: list[bytes] = []
        append = parts.append
        for time_ns, kind, size, session, command in GIVEN.iter_unpack(records):
            sequence += 1
            latest = max(latest, time_ns or now_ns)
            lag = min(sequence - durable, LAG_MAX)
            checked = pack(checksum, sequence, latest, kind, size, session, lag, command)
            checksum = crc32c(checked, salt)
            append(checksum.to_bytes(4, "little"))
            append(checked)
        self.checksum, self.sequence, self.time_ns = checksum, sequence, latest
        return b"".join(parts)

    def follow(self, records: bytes) -> int:
        """Go over the leading records that pass every check; return how many they are."""
        fields = np.frombuffer(records, RECORD_DTYPE)
        count = len(fields)
        if count == 0:
            return 0
        passed = self._count_sound(records, fields)
        if passed:
            self.checksum = int(fields["crc"][passed - 1])
            self.sequence += passed
            self.time_ns = int(fields["time_ns"][passed - 1])
        return passed

    def _count_sound(self, records: bytes, fields: "NDArray[np.void]") -> int:
        """Return how many of the leading records are sound; these are their bytes and their fields."""
        if COMPILED:
            return count_sound(records, self.salt, self.checksum, self.sequence, self.time_ns)
        count = len(fields)
        stored, times = fields["crc"], fields["time_ns"]
        before = np.empty(count, np.uint32)
        before[0], before[1:] = self.checksum, stored[:-1]
        earlier = np.empty(count, np.int64)
        earlier[0], earlier[1:] = self.time_ns, times[:-1]
        sound = (
            (stored == checksums(records, self.salt))
            & (fields["prev_crc"] == before)
            & (fields["sequence"] == np.arange(self.sequence + 1, self.sequence + 1 + count))
            & (times >= earlier)
            & (times <= TIME_MAX)
        )
        return count if sound.all() else int(sound.argmin())

    def flaw(self, record: bytes) -> str:
        """Return what is wrong with a record that does not follow: what was expected, and what was found."""
        if len(record) < RECORD_SIZE:
            return f"expected a record of {RECORD_SIZE} bytes, found the end of the file after {len(record)}"
        if is_zero(record):
            return f"expected a record of {RECORD_SIZE} bytes, found zeros"
        checksum, before, sequence, time_ns, *_ = RECORD.unpack(record)
        expected = crc32c(record[4:], self.salt)
        if checksum != expected:
            return f"expected checksum {expected:08x}, found {checksum:08x}"
        if sequence != self.sequence + 1:
            return f"expected sequence {self.sequence + 1}, found sequence {sequence}"
        if before != self.checksum:
            return f"expected the checksum of the record before to be {self.checksum:08x}, found {before:08x}"
        return f"expected a time from {self.time_ns} to {TIME_MAX}, found {time_ns}"


def checksums(records: bytes, salt: int) -> NDArray[np.uint32]:
    """Return what the checksum of each record should be (JRN-2)."""
    return np.array([crc32c(checked, salt) for (checked,) in CHECKED_OF.iter_unpack(records)], np.uint32)


def watermark(records: bytes) -> int:
    """Return the highest sequence number that any of these sound records knew to be on disk (JRN-6)."""
    fields = np.frombuffer(records, RECORD_DTYPE)
    return int((fields["sequence"] - fields["lag"]).max(initial=0))


def check_given(records: bytes) -> None:
    """Raise `UsageError` unless these are whole records that a caller may append; nothing is sealed before."""
    if len(records) % RECORD_SIZE:
        raise UsageError(f"records have {RECORD_SIZE} bytes each, and these {len(records)} bytes are no whole number")
    if COMPILED and len(records) == count_fit(records) * RECORD_SIZE:
        return
    if max(records[24::RECORD_SIZE], default=0) >= FIRST_ANNOTATION:
        raise UsageError(f"record kinds from {FIRST_ANNOTATION} on are the journal's own, and a command has another")
    # The highest byte of a time tells whether a closer look is needed: it is 0x3f until the year 2116.
    if max(records[23::RECORD_SIZE], default=0) > 0x3F:
        for (time_ns,) in TIME_OF.iter_unpack(records):
            if not 0 <= time_ns <= TIME_MAX:
                raise UsageError(f"a record's time is from 0 to {TIME_MAX} ns, and this one is {time_ns} (LIM-11)")


def command_records(
    commands: "Iterable[bytes] | NDArray[np.void]",
    *,
    time_ns: "int | Iterable[int] | NDArray[np.int64]" = 0,
    session: int = 0,
) -> bytes:
    """Return commands as records that a journal can seal: frames of 16 or 32 bytes, or one array of `COMMAND_DTYPE`.

    `time_ns` is one time for all or one for each; 0 asks for the journal's clock.  Raise `UsageError` for a frame of
    another length or a different number of times.
    """
    if isinstance(commands, np.ndarray):
        return _array_records(commands, time_ns, session)
    frames = list(commands)
    times = [time_ns] * len(frames) if isinstance(time_ns, int) else [int(time) for time in time_ns]
    if len(times) != len(frames):
        raise UsageError(f"each command needs a time: there are {len(frames)} commands and {len(times)} times")
    records = []
    for frame, time in zip(frames, times, strict=True):
        size = len(frame)
        if size not in (HALF_SIZE, COMMAND_SIZE):
            raise UsageError(f"a command has {HALF_SIZE} or {COMMAND_SIZE} bytes, and this frame has {size}")
        records.append(ENVELOPE.pack(0, 0, 0, time, frame[0], size, session, 0) + frame.ljust(COMMAND_SIZE, b"\0"))
    return b"".join(records)


def _array_records(commands: "NDArray[Any]", time_ns: Any, session: int) -> bytes:
    """Return the records of an array of commands, a column at a time."""
    if commands.dtype != COMMAND_DTYPE:
        raise UsageError(f"an array of commands has the dtype COMMAND_DTYPE, and this one has {commands.dtype}")
    if np.ndim(time_ns) and np.shape(time_ns) != commands.shape:
        raise UsageError(f"each command needs a time: there are {len(commands)} commands and {len(time_ns)} times")
    records = np.zeros(commands.shape, RECORD_DTYPE)
    records["time_ns"] = time_ns
    records["kind"] = commands["kind"]
    records["size"] = SIZE_OF_KIND[commands["kind"]]
    records["session"] = session
    records["command"] = commands
    return records.tobytes()


SEAL: Final = ENVELOPE.pack(0, 0, 0, 0, Annotation.SEAL, 0, 0, 0) + bytes(COMMAND_SIZE)
"""The record of a clean close, to be sealed (JRN-9)."""


def mark_record(first: int, reports: int, reports_crc: int) -> bytes:
    """Return a MARK, to be sealed, that states what the engine said since record `first`, or nothing (JRN-21)."""
    envelope = ENVELOPE.pack(0, 0, 0, 0, Annotation.MARK, 0, 0, 0)
    return envelope + MARK.pack(first, reports, reports_crc)
