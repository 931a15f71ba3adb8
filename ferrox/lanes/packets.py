"""Packets of the feed: reports in MoldUDP64 framing, packed and unpacked in bulk (FEED-2, FEED-3).

A report is six words, so it is copied as six words: 9 ns a report packed, where `write(reports[place : place + 48])`
takes 20, numpy's strided copies 16, and `del packet[::50]` 24 to unpack; measured on the pages' usual machine.
"""

from typing import Final

from librt.strings import BytesWriter, read_i16_be, read_i64_le, write_i16_be, write_i64_be, write_i64_le
from mypy_extensions import i16, i64

HEAD_SIZE: Final = 20
REPORT_SIZE: Final = 48
MESSAGE_SIZE: Final = 50
REPORTS_MAX: Final = 29


def pack_packets(session: bytes, number: i64, reports: bytes) -> bytes:
    """Return packets one behind the other, each full but the last; the first report has this number.

    All are 1,470 bytes but the last, as the kernel wants them that cuts one send into packets (UDP_SEGMENT).
    """
    assert len(session) == 10
    assert len(reports) % REPORT_SIZE == 0
    packets = BytesWriter()
    place: i64 = 0
    left: i64 = len(reports) // REPORT_SIZE
    while left > 0:
        count = left
        if count > REPORTS_MAX:
            count = REPORTS_MAX
        packets.write(session)
        write_i64_be(packets, number)
        write_i16_be(packets, i16(count))
        number += count
        left -= count
        while count > 0:
            write_i16_be(packets, REPORT_SIZE)
            write_i64_le(packets, read_i64_le(reports, place))
            write_i64_le(packets, read_i64_le(reports, place + 8))
            write_i64_le(packets, read_i64_le(reports, place + 16))
            write_i64_le(packets, read_i64_le(reports, place + 24))
            write_i64_le(packets, read_i64_le(reports, place + 32))
            write_i64_le(packets, read_i64_le(reports, place + 40))
            place += REPORT_SIZE
            count -= 1
    return packets.getvalue()


def unpack_packet(packet: bytes, count: i64) -> bytes:
    """Return the reports of a packet that is as long as `count` of them make it; b"" when a message is not one."""
    assert len(packet) == HEAD_SIZE + MESSAGE_SIZE * count
    reports = BytesWriter()
    place: i64 = HEAD_SIZE
    while count > 0:
        if read_i16_be(packet, place) != REPORT_SIZE:
            return b""
        write_i64_le(reports, read_i64_le(packet, place + 2))
        write_i64_le(reports, read_i64_le(packet, place + 10))
        write_i64_le(reports, read_i64_le(packet, place + 18))
        write_i64_le(reports, read_i64_le(packet, place + 26))
        write_i64_le(reports, read_i64_le(packet, place + 34))
        write_i64_le(reports, read_i64_le(packet, place + 42))
        place += MESSAGE_SIZE
        count -= 1
    return reports.getvalue()
