"""Packets of the feed in bytes: what is right is read, what is not is dropped with a reason."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrox.errors import SnapshotCorrupt, UsageError
from ferrox.lanes.packets import pack_packets
from ferrox.mold import (
    END,
    HEARTBEAT,
    MOLD,
    NUMBER_MAX,
    PACKET_MAX,
    REASONS,
    UNAVAILABLE,
    Dropped,
    Snapshot,
    encode_session,
    pack_snapshot_head,
    session_name,
    unpack,
    unpack_snapshot_head,
)

SESSION = b"F00007ABCD"
REPORTS = bytes(range(48)) + bytes(range(100, 148))
PACKET = pack_packets(SESSION, 7, REPORTS)


def reason(packet, session=SESSION):
    with pytest.raises(Dropped) as dropped:
        unpack(packet, session)
    assert dropped.value.reason in REASONS
    return dropped.value.reason


def test_a_packet_is_a_header_and_messages_with_their_lengths():
    """FEED-2: the number of the first report stands in the header, and the others follow it."""
    first, second = REPORTS[:48], REPORTS[48:]

    assert PACKET == SESSION + struct.pack(">QH", 7, 2) + b"\0\x30" + first + b"\0\x30" + second
    assert unpack(PACKET, SESSION) == (7, 2, REPORTS)
    assert unpack(PACKET, None) == (7, 2, REPORTS)


@pytest.mark.parametrize("count", [HEARTBEAT, UNAVAILABLE, END])
def test_a_packet_that_only_says_something_is_a_header(count):
    """FEED-4, FEED-5, FEED-11: heartbeat, end of session and what is not kept have no messages."""
    assert unpack(MOLD.pack(SESSION, 8, count), SESSION) == (8, count, b"")
    assert reason(MOLD.pack(SESSION, 8, count) + b"\0") == "length"


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (b"", "length"),
        (PACKET[:19], "length"),
        (PACKET[:-1], "length"),
        (PACKET + b"\0", "length"),
        (b"G" + PACKET[1:], "session"),
        (MOLD.pack(SESSION, 0, 0), "number"),
        (MOLD.pack(SESSION, NUMBER_MAX + 1, 0), "number"),
        (MOLD.pack(SESSION, 2**64 - 1, 0), "number"),
        (MOLD.pack(SESSION, 1, 30) + (b"\0\x30" + bytes(48)) * 30, "count"),
        (MOLD.pack(SESSION, 1, UNAVAILABLE - 1), "count"),
        (MOLD.pack(SESSION, 1, 1), "length"),
        (PACKET[:20] + b"\0\x2f" + PACKET[22:], "message"),
        (PACKET[:70] + b"\x01\x30" + PACKET[72:], "message"),
        (PACKET[:70] + b"\xff\xff" + PACKET[72:], "message"),
    ],
)
def test_a_packet_that_is_not_right_is_dropped_with_its_reason(packet, expected):
    """FEED-7: another session, a wrong length, a count and messages that do not fit."""
    assert reason(packet) == expected


@pytest.mark.parametrize("place", range(20))
def test_every_byte_of_the_header_is_looked_at(place):
    """FEED-7: a byte that is changed either makes the packet wrong, or is the number's and changes it."""
    for bit in range(8):
        changed = bytearray(PACKET)
        changed[place] ^= 1 << bit
        if 10 <= place < 18:
            number = int.from_bytes(changed[10:18], "big")
            if number <= NUMBER_MAX:
                assert unpack(bytes(changed), SESSION) == (number, 2, REPORTS)
                continue
        assert reason(bytes(changed)) in REASONS


@given(st.binary(max_size=1600))
def test_any_bytes_are_a_packet_or_are_dropped(data):
    for packet in (data, SESSION + data):
        with suppress(Dropped):
            number, count, reports = unpack(packet, SESSION)
            assert count in (HEARTBEAT, UNAVAILABLE, END) or pack_packets(SESSION, number, reports) == packet


def test_any_session_is_one_that_the_feed_could_have():
    """FEED-8: F and nine of the digits and upper-case letters."""
    assert reason(b"f00007ABCD" + PACKET[10:], None) == "session"
    assert unpack(b"FZZZZZZZZZ" + PACKET[10:], None)[0] == 7


def test_no_two_epochs_of_a_journal_give_one_name():
    """FEED-8: five digits of the epoch stand in the name whole."""
    uuid = bytes(range(16))
    epochs = [*range(3000), 36**5 - 1]

    names = [session_name(uuid, epoch) for epoch in epochs]

    assert len(set(names)) == len(names)
    assert [int(name[1:6], 36) for name in names] == epochs
    assert all(encode_session(name) == name.encode() for name in names)
    assert session_name(uuid, 1)[:6] == "F00001"
    assert session_name(bytes(16), 1) != session_name(b"\xff" * 16, 1)


def test_a_name_that_cannot_be_made_is_refused():
    """FEED-8."""
    with pytest.raises(UsageError, match="epochs below"):
        session_name(bytes(16), 36**5)
    with pytest.raises(UsageError, match="16 bytes"):
        session_name(bytes(15), 1)
    for wrong in ("", "F12345678", "G123456789", "F12345678a", "F12345678é"):
        with pytest.raises(UsageError, match="a session is F"):
            encode_session(wrong)


def test_the_header_of_a_state_comes_back():
    """FEED-13."""
    snapshot = Snapshot("F00007ABCD", 41, 17, b"state", bytes(range(16)))

    head = pack_snapshot_head(snapshot)

    assert head[:8] == bytes.fromhex("89 46 52 58 46 0D 0A 1A")
    assert unpack_snapshot_head(head, 5) == (snapshot._replace(state=b""), 5)
    for place, size_max in ((0, 5), (8, 5), (10, 5), (21, 5), (31, 5), (39, 5), (47, 5), (99, 4)):
        changed = bytearray(head)
        if place < 64:
            changed[place] ^= 0x80
        with pytest.raises(SnapshotCorrupt):
            unpack_snapshot_head(bytes(changed), size_max)


def test_a_full_packet_fits_an_ethernet_frame():
    """FEED-3: 1,470 bytes, and 28 of IP and UDP."""
    assert len(pack_packets(SESSION, 1, bytes(48 * 29))) == PACKET_MAX == 1470
