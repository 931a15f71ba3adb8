"""The tape: the last reports of the venue by number, written by the matcher, read by whoever likes (RING-7 .. RING-10).

A reader takes nothing away, so there may be any number of them, and one that comes late finds what is still there.  The
writer says first how far it is going to write, and last how far it has; who has copied reports looks at the first word
again, and knows whether they may have been written over meanwhile.  A reader that must miss nothing attaches itself,
and the writer waits for it (`room`).
"""

from typing import Final

from ferrox.errors import FerroxError
from ferrox.shared import Shared, SharedCorrupt

MAGIC: Final = 0x455041542D585246  # "FRX-TAPE"
VERSION: Final = 1
REPORT_SIZE: Final = 48

# Words of the header page.
WORD_FIRST: Final = 3  # the number of the first report that ever stood on this tape
INTENT: Final = 16  # the number of the last report that may be being written
WRITTEN: Final = 32  # the number of the last report that is there, and behind it, in the same line,
SEQUENCE: Final = 33  # the sequence number up to which all reports are there
READERS: Final = 64  # each reader's line: how far it has read; whether it is attached; whether it sleeps
STRIDE: Final = 16
ATTACHED: Final = 1
SLEEPING: Final = 2
READER_COUNT: Final = 8


class TapeLost(FerroxError):
    """Reports that a reader wants are not on the tape any more."""


def make_tape(capacity: int) -> Shared:
    """Return shared memory for a tape of so many reports, a power of two, 64 .. 2^26."""
    if not 64 <= capacity <= 1 << 26 or capacity & (capacity - 1):
        raise ValueError(f"a tape holds a power of two, 64 .. 2^26 reports, not {capacity}")
    return Shared.create("tape", capacity * REPORT_SIZE).stamp(MAGIC, VERSION, capacity)


class Tape:
    """What both sides see of a tape."""

    def __init__(self, shared: Shared) -> None:
        """Look at a tape; raise `SharedCorrupt` when it is none."""
        self.words: memoryview = shared.words
        self.slots: memoryview = shared.bytes
        self.capacity: int = shared.expect("tape", MAGIC, VERSION)

    def written(self) -> int:
        """Return the number of the last report that is there, 0 for none."""
        number: int = self.words[WRITTEN]
        return number

    def sequence(self) -> int:
        """Return the sequence number up to which all reports are there."""
        number: int = self.words[SEQUENCE]
        return number

    def oldest(self) -> int:
        """Return the number of the oldest report that is kept; one more than the last when none is."""
        kept: int = self.words[INTENT] - self.capacity + 1
        first: int = self.words[WORD_FIRST]
        return first if first > kept else kept

    def copy(self, first: int, last: int) -> bytes:
        """Return the reports of these numbers, which are there or were; raise `TapeLost` when they are not any more."""
        if last < first:
            return b""
        start = (first - 1) & (self.capacity - 1)
        end = start + last - first + 1
        if end <= self.capacity:
            reports = bytes(self.slots[start * REPORT_SIZE : end * REPORT_SIZE])
        else:
            reports = bytes(self.slots[start * REPORT_SIZE :]) + bytes(
                self.slots[: (end - self.capacity) * REPORT_SIZE]
            )
        if first < self.oldest():
            raise TapeLost(f"expected report {first} on the tape, which begins with {self.oldest()} by now")
        return reports


class TapeWriter(Tape):
    """The matcher's side."""

    def __init__(self, shared: Shared) -> None:
        """Go on behind the last report that is there."""
        super().__init__(shared)
        self.number: int = self.words[WRITTEN]

    def begin(self, number: int, sequence: int) -> None:
        """Say that the next report has this number, and follows all those up to `sequence`; the tape is empty."""
        self.number = number - 1
        self.words[WORD_FIRST] = number
        self.words[INTENT] = number - 1
        self.words[SEQUENCE] = sequence
        self.words[WRITTEN] = number - 1

    def let_go(self) -> None:
        """Wait for no reader any more."""
        for reader in range(READER_COUNT):
            self.words[READERS + reader * STRIDE + ATTACHED] = 0

    def room(self) -> int:
        """Return how many reports can be written without taking any from an attached reader (RING-3, RING-9)."""
        written = self.number
        found: int = self.words[WRITTEN]
        if found != written:
            raise SharedCorrupt(f"tape corrupt: expected the last report to be {written}, found {found}")
        slowest = written
        for reader in range(READER_COUNT):
            line = READERS + reader * STRIDE
            if self.words[line + ATTACHED] != 0:
                read: int = self.words[line]
                if read < 0 or read > written:
                    raise SharedCorrupt(f"tape corrupt: expected 0 <= read <= {written}, found {read}")
                if read < slowest:
                    slowest = read
        return slowest + self.capacity - written

    def write(self, reports: memoryview, sequence: int) -> None:
        """Write reports for which there is room; all up to `sequence` are there then."""
        count = len(reports) // REPORT_SIZE
        written = self.number
        last = written + count
        if count > 0:
            self.number = last
            self.words[INTENT] = last
            start = written & (self.capacity - 1)
            first = self.capacity - start
            if count <= first:
                self.slots[start * REPORT_SIZE : (start + count) * REPORT_SIZE] = reports
            else:
                self.slots[start * REPORT_SIZE :] = reports[: first * REPORT_SIZE]
                self.slots[: (count - first) * REPORT_SIZE] = reports[first * REPORT_SIZE :]
            self.words[WRITTEN] = last
        self.words[SEQUENCE] = sequence

    def sleepers(self) -> int:
        """Return which readers sleep, as bits: reader n is bit n."""
        bits = 0
        for reader in range(READER_COUNT):
            line = READERS + reader * STRIDE
            if self.words[line + SLEEPING] != 0:
                bits |= 1 << reader
        return bits


class TapeReader(Tape):
    """A reader of its own place on the tape, 0 .. 7, which nobody else has."""

    def __init__(self, shared: Shared, reader: int) -> None:
        """Take the place of a reader; what one before it has read is `position`."""
        super().__init__(shared)
        self.line: int = READERS + reader * STRIDE
        self.position: int = self.words[self.line]

    def attach(self, position: int) -> None:
        """Have read up to a number, and have the writer wait from here on; raise `TapeLost` when that is not there."""
        self.position = position
        self.words[self.line] = position
        self.words[self.line + ATTACHED] = 1
        if position + 1 < self.oldest():
            self.detach()
            raise TapeLost(f"expected report {position + 1} on the tape, which begins with {self.oldest()} by now")

    def detach(self) -> None:
        """Let the writer go on alone."""
        self.words[self.line + ATTACHED] = 0

    def read(self, limit: int) -> bytes:
        """Return the next reports, at most `limit`, the first of number `position` + 1, and hold on to them.

        Raise `SharedCorrupt` when the writer, which waits for an attached reader, cannot be where it says (RING-3).
        """
        last: int = self.words[WRITTEN]
        if last == self.position:
            return b""
        if last < self.position or last - self.position > self.capacity:
            raise SharedCorrupt(
                f"tape corrupt: expected 0 <= written - read <= {self.capacity}, found {last} and {self.position}"
            )
        if last > self.position + limit:
            last = self.position + limit
        return self.copy(self.position + 1, last)

    def advance(self, count: int) -> None:
        """Have read so many more."""
        self.position += count
        self.words[self.line] = self.position

    def sleep(self, sleeping: bool) -> None:
        """Say whether this reader sleeps, and wants to be woken when there is more."""
        self.words[self.line + SLEEPING] = 1 if sleeping else 0
