"""The journal: what an engine was told, in order, checksummed and chained, before the engine hears it.

A journal is a directory (specs/journal.md).  Its segments hold records of 64 bytes, so a record's place gives its
sequence number and a sequence number its place, and damage is found without a search.  Each record is checked in four
ways: a CRC-32C finds any five flipped bits; the segment's salt in it keeps the remains of an earlier life from passing
for records; the checksum of the record before chains them, so that none can be lost, doubled or moved; and the sequence
number catches a write that landed elsewhere.

    layout   the bytes of segment headers and of the commit mark
    chain    sealing records, and following them
    reader   verifying, and telling a torn tail from damage
    tail     reading what another process is writing
    writer   appending, syncing, and opening again after a crash
    archive  putting away what sound snapshots stand for
    salvage  what can be kept of a damaged one
    tally    stating what an engine said, and holding a replay against it

Considered and left: records of variable size (after damage the next record's place is a guess), a checksum over groups
(one flipped bit would cost them all), a text format (four times the bytes, and two ways to say one thing).
"""

from ferrox.journal.chain import command_records
from ferrox.journal.layout import COMMIT_MARK, SEGMENT_HEADER, SEGMENT_RECORDS, CommitMark, SegmentHeader
from ferrox.journal.reader import BATCH, Scan, TornTail, identify, read, scan
from ferrox.journal.tail import Tail, follow
from ferrox.journal.tally import Tally
from ferrox.journal.writer import Durability, Journal, Source

__all__ = [
    "BATCH",
    "COMMIT_MARK",
    "SEGMENT_HEADER",
    "SEGMENT_RECORDS",
    "CommitMark",
    "Durability",
    "Journal",
    "Scan",
    "SegmentHeader",
    "Source",
    "Tail",
    "Tally",
    "TornTail",
    "command_records",
    "follow",
    "identify",
    "read",
    "scan",
]
