"""The feed in bytes: MoldUDP64 packets, the session's name, and the header of a state (specs/feed.md).

Big-endian stands here and nowhere else but in order entry, because MoldUDP64 has it; the reports inside stay as they
are.  `unpack` is strict: a packet is right in every byte or it is `Dropped`, with a word that says why.
"""

import re
from struct import Struct
from typing import Final, NamedTuple

from attrs import frozen

from ferrox.errors import FerroxError, SnapshotCorrupt, UsageError
from ferrox.lanes.packets import HEAD_SIZE, MESSAGE_SIZE, REPORTS_MAX, unpack_packet

MOLD: Final = Struct(">10sQH")  # session, sequence, count
FEED_SNAPSHOT: Final = Struct("<8sH10s4xqqq16s")  # magic, version, session, number, sequence, size, uuid
assert MOLD.size == HEAD_SIZE == 20
assert FEED_SNAPSHOT.size == 64

PACKET_MAX: Final = HEAD_SIZE + REPORTS_MAX * MESSAGE_SIZE
assert PACKET_MAX == 1470

# What `count` says where it counts nothing.
HEARTBEAT: Final = 0
UNAVAILABLE: Final = 65_534
END: Final = 65_535

NUMBER_MAX: Final = 2**62
SESSION: Final = re.compile(rb"F[0-9A-Z]{9}")
DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
EPOCH_DIGITS: Final = 5
UUID_DIGITS: Final = 4

SNAPSHOT_MAGIC: Final = b"\x89FRXF\r\n\x1a"
SNAPSHOT_VERSION: Final = 1

REASONS: Final = ("length", "session", "number", "count", "message")
"""Why a packet is dropped, in the order in which it is looked for."""


@frozen
class Line:
    """One of the feed's lines: a multicast group and a port (FEED-6)."""

    group: str
    port: int


class Dropped(FerroxError):
    """A packet that a receiver drops and counts under `reason`, one of `REASONS` (FEED-7)."""

    def __init__(self, reason: str) -> None:
        """Name the reason."""
        self.reason = reason
        super().__init__(f"packet dropped: its {reason} is not one of this feed's")


def session_name(uuid: bytes, epoch: int) -> str:
    """Return the name of the session that began in an epoch of a journal (FEED-8).

    F, five digits of the epoch, four of the uuid.  No two epochs of a journal share a name; names of two journals are
    the same once in 1.7 million.
    """
    if len(uuid) != 16:
        raise UsageError(f"a journal's uuid has 16 bytes, and this one has {len(uuid)}")
    if not 0 <= epoch < 36**EPOCH_DIGITS:
        raise UsageError(f"a session's name has room for epochs below {36**EPOCH_DIGITS}, not for {epoch}")
    return f"F{_digits(epoch, EPOCH_DIGITS)}{_digits(int.from_bytes(uuid, 'big'), UUID_DIGITS)}"


def _digits(number: int, count: int) -> str:
    """Return the lowest digits of a number in base 36."""
    digits = ""
    for _ in range(count):
        number, digit = divmod(number, 36)
        digits = DIGITS[digit] + digits
    return digits


def encode_session(session: str) -> bytes:
    """Return a session's name as its ten bytes; raise `UsageError` when it is none."""
    name = session.encode("ascii", "replace")
    if not SESSION.fullmatch(name):
        raise UsageError(f"a session is F and nine of 0-9 and A-Z, not {session!r}")
    return name


def unpack(packet: bytes, session: bytes | None) -> tuple[int, int, bytes]:
    """Return number, count and reports of a packet of a session, of any for None; raise `Dropped` (FEED-7).

    The number is that of the first report, or of the next one to come when `count` is HEARTBEAT or END.
    """
    if len(packet) < HEAD_SIZE:
        raise Dropped("length")
    named, number, count = MOLD.unpack_from(packet)
    if named != session and (session is not None or not SESSION.fullmatch(named)):
        raise Dropped("session")
    if not 0 < number <= NUMBER_MAX:
        raise Dropped("number")
    if 0 < count <= REPORTS_MAX:
        if len(packet) != HEAD_SIZE + MESSAGE_SIZE * count:
            raise Dropped("length")
        reports = unpack_packet(packet, count)
        if not reports:
            raise Dropped("message")
        return number, count, reports
    if count not in (HEARTBEAT, UNAVAILABLE, END):
        raise Dropped("count")
    if len(packet) != HEAD_SIZE:
        raise Dropped("length")
    return number, count, b""


class Snapshot(NamedTuple):
    """A state that a late subscriber begins with (FEED-13)."""

    session: str
    number: int
    """Of the last report that led to it."""
    sequence: int
    """Of the last record that led to it."""
    state: bytes
    uuid: bytes


def pack_snapshot_head(snapshot: Snapshot) -> bytes:
    """Return the header that goes before a state."""
    return FEED_SNAPSHOT.pack(
        SNAPSHOT_MAGIC,
        SNAPSHOT_VERSION,
        encode_session(snapshot.session),
        snapshot.number,
        snapshot.sequence,
        len(snapshot.state),
        snapshot.uuid,
    )


def unpack_snapshot_head(head: bytes, size_max: int) -> tuple[Snapshot, int]:
    """Return what a header says, with an empty state, and the size of the state behind it.

    Raise `SnapshotCorrupt` unless every byte is in order and the state has at most `size_max` bytes.
    """
    magic, version, session, number, sequence, size, uuid = FEED_SNAPSHOT.unpack(head)
    if magic != SNAPSHOT_MAGIC or version != SNAPSHOT_VERSION:
        raise SnapshotCorrupt(
            f"expected the header of a state, {SNAPSHOT_MAGIC.hex()} and version {SNAPSHOT_VERSION}, found "
            f"{magic.hex()} and {version}: is this the address of a snapshot server?"
        )
    if not SESSION.fullmatch(session) or any(head[20:24]):
        raise SnapshotCorrupt(f"expected a session and zeros behind it in the header of a state, found {head.hex()}")
    if not (0 <= number <= NUMBER_MAX and 0 <= sequence <= NUMBER_MAX and 0 <= size <= size_max):
        raise SnapshotCorrupt(
            f"expected a number, a sequence and at most {size_max} bytes of state, found {number}, {sequence}, {size}"
        )
    return Snapshot(session.decode("ascii"), number, sequence, b"", uuid), size
