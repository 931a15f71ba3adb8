"""What an engine said, counted, so that a replay can be held against the run itself (JRN-21).

The engine that runs with a journal states now and then, in a MARK, how many reports it gave and their CRC-32C.  Whoever
tells the journal to an engine again counts as well and compares, so that an engine that is not deterministic, or not
the one that it was, is found where it parts, and not when somebody misses a trade.  One class serves both sides:

    live      note(reports) after each batch; when it is due, journal.mark(*tally.statement), then restart
    replay    for each of parts(records): apply it, note(reports), compare(part)

Considered and left: a digest of the state.  It tells more, but takes a snapshot of a million orders each time, and a
state that differs shows in the reports sooner or later.
"""

from collections.abc import Iterator
from typing import Final

from crc32c import crc32c

from ferrox.errors import NotDeterministic
from ferrox.journal.layout import MARK
from ferrox.messages import COMMAND_SIZE, ENVELOPE, RECORD_SIZE, REPORT_SIZE
from ferrox.terms import Annotation

EVERY: Final = 2**20
"""Sequence numbers from one statement to the next, by default."""
KIND_AT: Final = 24


class Tally:
    """The number and the checksum of the reports to all records since one."""

    def __init__(self, first: int, *, every: int = EVERY) -> None:
        """Begin with the record of sequence `first`."""
        self.every = every
        self.checked = 0
        """Statements that were compared and found right."""
        self.restart(first)

    def restart(self, first: int, *, anchored: bool = False) -> None:
        """Begin anew with a record; `anchored` says that a statement stands before it."""
        self.first = first
        self.due = first + self.every - 1
        """The sequence number at which the next statement should be made."""
        self.anchored = anchored or first == 1
        """Whether a replay from the journal's first record begins here, too, so that it can check what is stated."""
        self._reports = self._crc = 0

    def note(self, reports: bytes | memoryview) -> None:
        """Count the reports to the next records; for those of single commands it is cheaper to join some first."""
        self._reports += len(reports) // REPORT_SIZE
        self._crc = crc32c(reports, self._crc)

    @property
    def said(self) -> tuple[int, int]:
        """Number and CRC-32C of all reports since the first record."""
        return self._reports, self._crc

    def statement(self, sequence: int) -> tuple[int, int, int]:
        """Return what `Journal.mark` is to state behind the record of this sequence.

        A tally that begins where no replay would gives the statement that lets the next one begin.
        """
        return (self.first, *self.said) if self.anchored else (sequence + 1, 0, 0)

    def compare(self, part: bytes) -> None:
        """Hold the statement at the end of a part against what was noted, and begin behind it; without one do nothing.

        Raise `NotDeterministic` when they differ.  A statement that begins before this tally is passed over.
        """
        stated = _stated(part[-RECORD_SIZE:])
        if stated is None:
            return
        sequence, first, expected = stated
        found = self.said if first == self.first else (0, 0)
        if first in (self.first, sequence):
            if found != expected:
                raise NotDeterministic(first, sequence - 1, expected, found)
            self.checked += first < sequence
        self.restart(sequence + 1, anchored=True)


def parts(records: bytes) -> Iterator[bytes]:
    """Give sealed records in parts, each of which ends with a MARK that states something or with the last record."""
    kinds = records[KIND_AT::RECORD_SIZE]
    begin, index = 0, kinds.find(Annotation.MARK)
    while index >= 0:
        end = index + 1
        if _stated(records[index * RECORD_SIZE : end * RECORD_SIZE]):
            yield records[begin * RECORD_SIZE : end * RECORD_SIZE]
            begin = end
        index = kinds.find(Annotation.MARK, end)
    if begin < len(kinds):
        yield records[begin * RECORD_SIZE :] if begin else records


def _stated(record: bytes) -> tuple[int, int, tuple[int, int]] | None:
    """Return sequence number, first and what was said, of a MARK that states something; None for any other record."""
    if not record or record[KIND_AT] != Annotation.MARK:
        return None
    first, reports, crc = MARK.unpack_from(record, RECORD_SIZE - COMMAND_SIZE)
    return (ENVELOPE.unpack_from(record)[2], first, (reports, crc)) if first else None
