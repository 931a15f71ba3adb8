"""Our packets in the eyes of a stranger: Wireshark's own dissector of MoldUDP64 reads them as we mean them."""

import contextlib
import json
import os
import random
import select
import shutil
import socket
import struct
import subprocess

import pytest

from ferrox.client.feed import join
from ferrox.lanes.tape import TapeReader, TapeWriter, make_tape
from ferrox.messages import REPORT_SIZE
from ferrox.mold import END, HEARTBEAT, MOLD, Line
from ferrox.service.publisher import Publisher
from ferrox.service.retransmitter import Retransmitter

NAME = "F00007ABCD"
TSHARK = shutil.which("tshark") or ""

pytestmark = [
    pytest.mark.skipif(not TSHARK, reason="tshark is not installed (apt-get install tshark)"),
    pytest.mark.external,
]


def sum_of(data):
    """Return the Internet checksum of an even number of bytes."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pcap(packets, line):
    """Return a capture file of UDP datagrams over IPv4, in the format of libpcap, link type 228."""
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 228)]
    addresses = socket.inet_aton("127.0.0.1") + socket.inet_aton(line.group)
    for moment, packet in enumerate(packets):
        udp = struct.pack(">HHHH", 40_000, line.port, 8 + len(packet), 0) + packet
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), moment, 0, 0, 17, 0) + addresses
        frame = head[:10] + struct.pack(">H", sum_of(head)) + head[12:] + udp
        parts.append(struct.pack("<IIII", moment, 0, len(frame), len(frame)) + frame)
    return b"".join(parts)


def dissect(packets, line, path):
    """Return what the dissector finds in each packet, with all its repeated fields as lists."""
    path.write_bytes(pcap(packets, line))
    command = [
        TSHARK,
        "-r",
        str(path),
        "-d",
        f"udp.port=={line.port},moldudp64",
        "-T",
        "ek",
        "-J",
        "moldudp64 _ws.malformed",
    ]
    run = subprocess.run(
        command, capture_output=True, check=True, text=True, timeout=120, env={**os.environ, "LC_ALL": "C"}
    )
    found = [json.loads(text) for text in run.stdout.splitlines()]
    return [entry["layers"] for entry in found if "layers" in entry]


def listed(value):
    return value if isinstance(value, list) else [value]


def said(layers):
    """Return session, sequence and count of one packet, and its messages' numbers, lengths and payloads."""
    assert "_ws_malformed" not in layers, layers
    mold = {name.removeprefix("moldudp64_moldudp64_"): value for name, value in layers["moldudp64"].items()}
    assert not any("invalid" in name or "extra" in name for name in mold), mold
    messages = list(
        zip(
            [int(number) for number in listed(mold.get("msgseq", []))],
            [int(size) for size in listed(mold.get("msglen", []))],
            [bytes.fromhex(data.replace(":", "")) for data in listed(mold.get("msgdata", []))],
            strict=True,
        )
    )
    return mold["session"], int(mold["sequence"]), int(mold["count"]), messages


def test_wireshark_reads_what_the_publisher_sends(tmp_path):
    """FEED-2, FEED-3, FEED-4, FEED-5, FEED-10: heartbeat, full and short packets, the end, an answer."""
    with contextlib.ExitStack() as stack:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("", 0))
            line = Line("239.255.77.1", probe.getsockname()[1])
        heard = stack.enter_context(contextlib.closing(join(line, "127.0.0.1", 1 << 22)))
        shared = make_tape(1 << 10)
        writer = TapeWriter(shared)
        writer.begin(1_000_000_001, 0)
        clock = iter(range(0, 10**15, 10**9))
        publisher = stack.enter_context(
            contextlib.closing(Publisher(TapeReader(shared, 0), NAME, [line], clock=lambda: next(clock)))
        )
        server = stack.enter_context(contextlib.closing(Retransmitter(writer, NAME)))
        reports = random.Random(1).randbytes(100 * REPORT_SIZE)

        publisher.step()
        writer.write(memoryview(reports), 1)
        publisher.step()
        publisher.end()
        publisher.step()
        packets: list[bytes] = []
        while len(packets) < 6 and select.select((heard,), (), (), 10)[0]:
            packets.append(heard.recv(4096))
        packets.append(server.answer(MOLD.pack(NAME.encode(), 1_000_000_012, 3), "127.0.0.1", 0))

    found = dissect(packets, line, tmp_path / "feed.pcap")

    first = 1_000_000_001
    messages = [
        (first + place, REPORT_SIZE, reports[place * REPORT_SIZE : (place + 1) * REPORT_SIZE]) for place in range(100)
    ]
    assert [said(layers) for layers in found] == [
        (NAME, first, HEARTBEAT, []),
        (NAME, first, 29, messages[:29]),
        (NAME, first + 29, 29, messages[29:58]),
        (NAME, first + 58, 29, messages[58:87]),
        (NAME, first + 87, 13, messages[87:]),
        (NAME, first + 100, END, []),
        (NAME, first + 11, 3, messages[11:14]),
    ]
