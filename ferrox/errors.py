"""What Ferrox raises when the world is wrong: one sentence that says what was found, where, and what to do.

A wrong *client* never meets an exception; it gets a reject report with a `Reason`.
"""


class FerroxError(Exception):
    """Any failure that Ferrox explains itself; its text is one line for people."""


class UsageError(FerroxError):
    """The call or the input asked for cannot be carried out as it stands (exit status 2)."""


class CorruptInput(FerroxError):
    """A file or stream is not what it says it is (exit status 3)."""


class JournalCorrupt(CorruptInput):
    """A journal record or segment at or below the durable watermark failed its checks (JRN-7)."""

    def __init__(self, path: str, offset: int, sequence: int, found: str, *, durable: int) -> None:
        """Name the segment, the byte offset in it, the sequence number there, what was found, and the watermark."""
        self.path, self.offset, self.sequence, self.found, self.durable = path, offset, sequence, found, durable
        super().__init__(
            f"{path}: offset {offset}, sequence {sequence}: {found}; durable up to sequence {durable}. "
            "Nothing was changed. Restore this file from a copy, or replay only up to the sequence before."
        )


class SnapshotCorrupt(CorruptInput):
    """A snapshot is truncated, fails a checksum, or breaks an invariant of the canonical layout (SNAP-5)."""


class SequenceError(FerroxError):
    """An engine was given a record that does not follow the one before (DET-3)."""


class SegmentCorrupt(CorruptInput):
    """A file of a journal is missing, too short or long, in another's place, or fails the checks of its own header."""

    def __init__(self, path: str, offset: int, sequence: int, found: str) -> None:
        """Name the file, the byte offset in it, the sequence number it should begin with, and what was found."""
        self.path, self.offset, self.sequence, self.found = path, offset, sequence, found
        super().__init__(
            f"{path}: offset {offset}, sequence {sequence}: {found}. "
            "Nothing was changed. Restore the journal's files from a copy."
        )


class UnknownVersion(CorruptInput):
    """A file was written by a version of Ferrox whose format or rules this one does not have (JRN-5)."""


class JournalFailed(FerroxError):
    """A write or a sync of the journal failed; the first such error is final (JRN-16)."""


class TakenBack(FerroxError):
    """A crash took back records that a reader of the live journal has read: they were never durable (JRN-24)."""

    def __init__(self, directory: str, first: int, last: int, found: str) -> None:
        """Name the journal, the first and the last sequence number that are taken back, and what tells of it."""
        self.directory, self.first, self.last, self.found = directory, first, last, found
        super().__init__(
            f"{directory}: the journal took back the records {first} to {last}, which this reader has read and which "
            f"were never durable: {found}. Forget what came of them, and begin again from a snapshot."
        )


class NotDeterministic(FerroxError):
    """An engine says something else to a journal than the engine did that ran with it (JRN-21)."""

    def __init__(self, first: int, last: int, expected: tuple[int, int], found: tuple[int, int]) -> None:
        """Name the sequence numbers, and the number and the CRC-32C of the reports, as stated and as found."""
        self.first, self.last, self.expected, self.found = first, last, expected, found
        super().__init__(
            f"sequence {first} to {last}: expected {expected[0]} reports with CRC-32C {expected[1]:08x}, as the MARK "
            f"of sequence {last + 1} states, found {found[0]} with {found[1]:08x}: the engine is not the same as the "
            "one that ran with the journal, or is not deterministic. Keep the journal, and report this defect."
        )


class DiskLow(FerroxError):
    """The disk gives no more room: cancels are still taken, nothing else is written until there is room (JRN-23)."""
