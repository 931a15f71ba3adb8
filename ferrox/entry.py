"""Order entry in bytes: the packets between a client and the gateway (specs/entry.md).

Framing is SoupBinTCP's: a length of two bytes, big-endian, that counts what follows, a type of one byte, a payload.
What a payload holds is Ferrox's, little-endian, and laid out here once for both sides.
"""

import hashlib
import hmac
from enum import IntFlag
from struct import Struct
from typing import Final, NamedTuple

from ferrox.errors import CorruptInput

VERSION: Final = 1
HEAD: Final = Struct(">HB")  # length, type; the one place where big-endian stands, as SoupBinTCP has it
CHALLENGE: Final = Struct("<32sHHI")
LOGIN: Final = Struct("<16s10sB5xq32s")
LOGIN_ACCEPTED: Final = Struct("<10s2xIqq")
SEQUENCED: Final = Struct("<q48s")
REFUSED: Final = Struct("<qIBB2x")
REFERENCE: Final = Struct("<q")

assert CHALLENGE.size == 40
assert LOGIN.size == 72
assert LOGIN_ACCEPTED.size == 32
assert SEQUENCED.size == 56
assert REFUSED.size == 16

PACKET_MAX: Final = 128
"""What a client's packet may have behind its length (ENTRY-2)."""
MAC_OF: Final = 40
"""Bytes of a login request that its mac is over, behind the challenge (ENTRY-3)."""

SECRET_MIN: Final = 16
"""Bytes of a secret, at least."""


class LoginFlag(IntFlag):
    """Bits of a login's flags."""

    CANCEL_ON_DISCONNECT = 0x01


class LoginAccepted(NamedTuple):
    """What the gateway says to a login that it takes."""

    session: str
    """Of the feed, ten characters."""
    account: int
    number: int
    """Of the first report that may follow."""
    reference: int
    """The last one that was taken from this account, 0 for none."""


class Refused(NamedTuple):
    """A command that the gateway did not take: it changed nothing, and is in no journal (ENTRY-13)."""

    reference: int
    instrument: int
    kind: int
    reason: int


def packet(letter: bytes, payload: bytes = b"") -> bytes:
    """Return a packet of a type, one letter, and a payload."""
    return HEAD.pack(1 + len(payload), letter[0]) + payload


def packets(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return the whole packets at the beginning of some bytes, as type and payload, and the rest.

    Raise `CorruptInput` for a packet without a type.
    """
    found, place = [], 0
    while len(data) - place >= HEAD.size:
        size, letter = HEAD.unpack_from(data, place)
        if size == 0:
            raise CorruptInput("expected a packet with a type, found one of length 0")
        if len(data) - place < 2 + size:
            break
        found.append((bytes((letter,)), data[place + 3 : place + 2 + size]))
        place += 2 + size
    return found, data[place:]


def padded(text: str, size: int) -> bytes:
    """Return ASCII text padded with spaces; raise ValueError when it is longer, or is none."""
    data = text.encode("ascii")
    if len(data) > size:
        raise ValueError(f"{text!r} is longer than {size} characters")
    return data.ljust(size)


def login(user: str, secret: bytes, challenge: bytes, *, session: str = "", number: int = 0, flags: int = 0) -> bytes:
    """Return a login request's payload, signed with the secret for one challenge of 32 bytes (ENTRY-3)."""
    head = LOGIN.pack(padded(user, 16), padded(session, 10), flags, number, bytes(32))[:MAC_OF]
    return head + sign(secret, challenge, head)


def sign(secret: bytes, challenge: bytes, head: bytes) -> bytes:
    """Return the mac of a login request, 32 bytes."""
    return hmac.new(secret, challenge + head, hashlib.sha256).digest()
