"""The bytes of a journal beside its records: the header of a segment and the commit mark (specs/journal.md).

`pack` and `unpack` mirror each other, and `unpack` is strict: every byte of a page is checked, the reserved ones for
zero, so that no single flipped bit passes unseen.
"""

import re
from struct import Struct
from typing import Final, NamedTuple

from crc32c import crc32c

from ferrox.engine import Capacity
from ferrox.errors import SegmentCorrupt, UnknownVersion
from ferrox.files import is_zero
from ferrox.messages import RECORD_SIZE
from ferrox.terms import INSTRUMENT_CAPACITY_MAX, ORDER_CAPACITY_MAX, RULES_VERSION, SEQUENCE_MAX, TIME_MAX

FORMAT_VERSION: Final = 2
"""What is written; format 1 is read as well (JRN-5)."""
FORMATS: Final = (1, FORMAT_VERSION)

# As in PNG: a byte that is no text, the name, and the line ends that a transfer as text would change.
SEGMENT_MAGIC: Final = b"\x89FRXW\r\n\x1a"
BYTE_ORDER: Final = 0x01020304
HEADER_SIZE: Final = 4096
"""Bytes before a segment's first record, one page; the layout takes the first 128."""
SEGMENT_RECORDS: Final = 4_194_304
"""Records of a segment, by default: 256 MiB."""
SEGMENT_RECORDS_MAX: Final = 2**26

SEGMENT_HEADER: Final = Struct("<8sHHI16sQqqII32sIIII12xI")
assert SEGMENT_HEADER.size == 128

MARK_NAME: Final = "commit.mark"
MARK_MAGIC: Final = b"\x89FRXM\r\n\x1a"
MARK_SECTOR: Final = 512
"""A slot has a sector of its own, which a disk writes whole or not at all."""
MARK_SIZE: Final = 2 * MARK_SECTOR

COMMIT_MARK: Final = Struct("<8s16sQqI16xI")
assert COMMIT_MARK.size == 64

MARK: Final = Struct("<qqI12x")
"""The payload of a MARK record (JRN-21)."""
assert MARK.size == 32

SEGMENT_NAME: Final = re.compile(r"(\d{20})-([0-9a-f]{8})\.wal")


class SegmentHeader(NamedTuple):
    """What a segment says of itself before its first record."""

    uuid: bytes
    """Of the journal, 16 bytes."""
    epoch: int
    """How many times the journal has been opened for append, from 1."""
    base_sequence: int
    """The sequence number of its first record."""
    created_ns: int
    salt: int
    """The initial value of its checksums, never 0 (JRN-2)."""
    prev_chain: int
    """The checksum of the record before its first, or the salt in the first segment (JRN-2)."""
    prev_sha256: bytes
    """Of the header and all records of the segment two before, zeros in the first two (JRN-10)."""
    rules_version: int
    order_capacity: int
    instrument_capacity: int
    segment_records: int
    """How many records it may hold."""
    format_version: int = FORMAT_VERSION

    @property
    def name(self) -> str:
        """The name of its file."""
        return segment_name(self.base_sequence, self.epoch)

    @property
    def capacity(self) -> Capacity:
        """What an engine that replays it must hold, no more and no less."""
        return Capacity(self.order_capacity, self.instrument_capacity)

    def pack(self) -> bytes:
        """Return the whole page."""
        head = SEGMENT_HEADER.pack(SEGMENT_MAGIC, self.format_version, RECORD_SIZE, BYTE_ORDER, *self[:-1], 0)[:-4]
        return (head + crc32c(head).to_bytes(4, "little")).ljust(HEADER_SIZE, b"\0")


def segment_name(base_sequence: int, epoch: int) -> str:
    """Return the name of a segment's file."""
    return f"{base_sequence:020d}-{epoch:08x}.wal"


def parse_name(name: str, path: str) -> tuple[int, int]:
    """Return the base sequence and the epoch in a segment's name; raise `SegmentCorrupt` when it is no such name."""
    match = SEGMENT_NAME.fullmatch(name)
    if not match:
        raise SegmentCorrupt(
            path, 0, 0, "expected a segment's name, SEQUENCE of 20 digits - EPOCH of 8 hex digits .wal, found this one"
        )
    return int(match[1]), int(match[2], 16)


def unpack_header(page: bytes, name: str, path: str) -> SegmentHeader:
    """Return the header of the file `name`; raise `SegmentCorrupt` or `UnknownVersion` unless all of it is in order."""
    named_sequence, named_epoch = parse_name(name, path)

    def refuse(offset: int, found: str) -> SegmentCorrupt:
        return SegmentCorrupt(path, offset, named_sequence, found)

    if len(page) < HEADER_SIZE:
        raise refuse(len(page), f"expected a header of {HEADER_SIZE} bytes, found the end of the file")
    magic, version, record_size, byte_order, *fields, crc = SEGMENT_HEADER.unpack_from(page)
    if magic != SEGMENT_MAGIC:
        raise refuse(0, f"expected the magic of a segment, {SEGMENT_MAGIC.hex()}, found {magic.hex()}")
    expected = crc32c(page[: SEGMENT_HEADER.size - 4])
    if crc != expected:
        also = "" if version in FORMATS else f" (and format version {version}, where this Ferrox reads 1 and 2)"
        raise refuse(
            SEGMENT_HEADER.size - 4, f"expected the header's checksum to be {expected:08x}, found {crc:08x}{also}"
        )
    if version not in FORMATS:
        raise UnknownVersion(
            f"{path}: offset 8: this segment has format version {version}, and this Ferrox reads format versions "
            f"1 and {FORMAT_VERSION}. Nothing was changed. Use the Ferrox that wrote it."
        )
    header = SegmentHeader._make([*fields, version])
    if header.rules_version != RULES_VERSION:
        raise UnknownVersion(
            f"{path}: offset 96: this segment is of rules version {header.rules_version}, and this Ferrox obeys rules "
            f"version {RULES_VERSION}. Nothing was changed. Use the Ferrox that wrote it."
        )
    if record_size != RECORD_SIZE or byte_order != BYTE_ORDER:
        raise refuse(
            10, f"expected records of {RECORD_SIZE} bytes, little-endian, found {record_size}, tag {byte_order:08x}"
        )
    if not (
        0 < header.base_sequence <= SEQUENCE_MAX
        and 0 < header.epoch < 2**32
        and 0 <= header.created_ns <= TIME_MAX
        and header.salt > 0
        and 0 < header.order_capacity <= ORDER_CAPACITY_MAX
        and 0 < header.instrument_capacity <= INSTRUMENT_CAPACITY_MAX
        and 0 < header.segment_records <= SEGMENT_RECORDS_MAX
    ):
        raise refuse(16, f"expected fields within specs/limits.md, found {header}")
    if (header.base_sequence, header.epoch) != (named_sequence, named_epoch):
        raise refuse(32, f"expected the segment that its name says, found {header.name}: this file was renamed")
    if not (is_zero(page[112:124]) and is_zero(page[SEGMENT_HEADER.size :])):
        raise refuse(112, "expected zeros after the header's fields, found something else")
    return header


class CommitMark(NamedTuple):
    """How far a journal is known to be on disk (JRN-13)."""

    uuid: bytes
    epoch: int
    durable: int
    """The sequence number of the last record that is on disk, 0 for none."""
    chain: int
    """The checksum of that record, the first segment's salt for none."""

    def pack(self) -> bytes:
        """Return one slot, 64 bytes."""
        head = COMMIT_MARK.pack(MARK_MAGIC, *self, 0)[:-4]
        return head + crc32c(head).to_bytes(4, "little")


def pack_marks(mark: CommitMark) -> bytes:
    """Return the whole file with one mark in both slots."""
    return mark.pack().ljust(MARK_SECTOR, b"\0") * 2


def unpack_marks(page: bytes, path: str) -> tuple[CommitMark, int, list[str]]:
    """Return the mark that is furthest on, the index of its slot, and a warning for a slot that fails its checks.

    A crash may tear the slot that was being written, never both: when neither is in order, raise `SegmentCorrupt`.
    """
    if len(page) != MARK_SIZE:
        raise SegmentCorrupt(
            path, min(len(page), MARK_SIZE), 0, f"expected a file of {MARK_SIZE} bytes, found {len(page)}"
        )
    slots = [_unpack_mark(page[offset : offset + MARK_SECTOR]) for offset in (0, MARK_SECTOR)]
    good = [(mark, index) for index, mark in enumerate(slots) if mark]
    if not good:
        raise SegmentCorrupt(path, 0, 0, "expected a slot that passes its checks, found two that do not")
    # An opening repeats the watermark under its own epoch, and is the further one.
    mark, index = max(good, key=lambda entry: (entry[0].durable, entry[0].epoch))
    if any(other.uuid != mark.uuid for other, _ in good):
        raise SegmentCorrupt(path, MARK_SECTOR, 0, "expected two slots of one journal, found slots of two")
    warnings = [
        f"{path}: offset {MARK_SECTOR * slot}: a slot fails its checks; the other one, durable {mark.durable}, is used"
        for slot, other in enumerate(slots)
        if other is None
    ]
    return mark, index, warnings


def _unpack_mark(sector: bytes) -> CommitMark | None:
    """Return the mark in a sector, or None when any byte of it is out of order."""
    magic, *fields, crc = COMMIT_MARK.unpack_from(sector)
    mark = CommitMark(*fields)
    sound = (
        magic == MARK_MAGIC
        and crc == crc32c(sector[: COMMIT_MARK.size - 4])
        and is_zero(sector[44:60])
        and is_zero(sector[COMMIT_MARK.size :])
        and 0 <= mark.durable <= SEQUENCE_MAX
    )
    return mark if sound else None
