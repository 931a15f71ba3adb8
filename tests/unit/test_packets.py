"""Reports packed into packets in bulk, and taken out again."""

import random

import pytest

from ferrox.lanes.packets import pack_packets, unpack_packet
from ferrox.messages import REPORT_SIZE
from ferrox.mold import MOLD

SESSION = b"F00007ABCD"


def one_by_one(number, reports):
    """Pack as slowly as the specification reads."""
    packets = []
    for place in range(0, len(reports), 29 * 48):
        some = reports[place : place + 29 * 48]
        frames = [some[start : start + 48] for start in range(0, len(some), 48)]
        packets.append(MOLD.pack(SESSION, number, len(frames)) + b"".join(b"\0\x30" + frame for frame in frames))
        number += len(frames)
    return b"".join(packets)


@pytest.mark.parametrize("count", [0, 1, 2, 28, 29, 30, 58, 59, 1276])
@pytest.mark.parametrize("number", [1, 2**31 - 1, 2**32, 2**62 - 1276])
def test_packets_are_full_but_the_last_and_hold_every_report_in_order(count, number):
    """FEED-2, FEED-3: at most 29 messages of 48 bytes, numbered without a gap."""
    reports = random.Random(count).randbytes(count * REPORT_SIZE)

    packets = pack_packets(SESSION, number, reports)

    assert packets == one_by_one(number, reports)
    cut = [packets[place : place + 1470] for place in range(0, len(packets), 1470)]
    assert b"".join(unpack_packet(packet, (len(packet) - 20) // 50) for packet in cut) == reports


@pytest.mark.parametrize("message", [0, 1, 28])
@pytest.mark.parametrize("length", [b"\0\0", b"\0\x2f", b"\x01\x30", b"\x80\x30", b"\xff\xff"])
def test_a_message_that_is_no_report_gives_nothing(message, length):
    """FEED-7."""
    packet = bytearray(pack_packets(SESSION, 1, bytes(29 * 48)))
    packet[20 + 50 * message : 22 + 50 * message] = length

    assert unpack_packet(bytes(packet), 29) == b""


def test_what_is_not_whole_is_our_mistake():
    for wrong in (b"F0", b"F00007ABCDE"):
        with pytest.raises(AssertionError):
            pack_packets(wrong, 1, bytes(48))
    with pytest.raises(AssertionError):
        pack_packets(SESSION, 1, bytes(47))
    with pytest.raises(AssertionError):
        unpack_packet(bytes(69), 1)
