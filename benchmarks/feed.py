"""What the feed carries: tape, publisher, loopback multicast, receiver; at offered rates, and what was lost on the way.

    python benchmarks/feed.py [--rates 0.5,1,2,4,0] [--seconds 2] [--lines 2] [--no-segments] [--no-many]

The writer of the tape, the publisher and a retransmission server are one process, the receiver is another.  A rate is
in millions of reports a second; 0 is as fast as the publisher can.  "Brought back" is what no line brought and a
request did; "missing" is what was not kept any more when it was asked for.
"""

import argparse
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from ferrox.client.arbiter import Timing
from ferrox.client.feed import Feed, FeedReceiver, ReportsLost
from ferrox.lanes import packets
from ferrox.lanes.tape import TapeReader, TapeWriter, make_tape
from ferrox.messages import REPORT_SIZE
from ferrox.mold import Line
from ferrox.service.publisher import BATCH, Publisher
from ferrox.service.retransmitter import Retransmitter

NAME = "F00001BNCH"
CAPACITY = 1 << 20


def commit() -> str:
    run = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return run.stdout.strip() or "unknown"


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} x {models[0] if models else platform.machine()}, Linux {platform.release()}"


def publish(options: argparse.Namespace, rate: int, count: int, lines: list[Line], ready: int, tell: int) -> None:
    """Write and publish everything, in the child; answer requests until the receiver is done."""
    shared = make_tape(CAPACITY)
    writer = TapeWriter(shared)
    writer.begin(1, 0)
    publisher = Publisher(TapeReader(shared, 0), NAME, lines, segment=options.segments)
    server = Retransmitter(writer, NAME, publisher=0)
    os.write(tell, b"%d\n" % server.address[1])
    os.read(ready, 1)
    batch = memoryview(os.urandom(BATCH * REPORT_SIZE))
    written = 0
    begun = time.perf_counter()
    while written < count or publisher.reader.position < writer.written():
        due = min(count, int((time.perf_counter() - begun) * rate)) if rate else count
        some = min(due - written, BATCH, writer.room())
        if some > 0:
            writer.write(batch[: some * REPORT_SIZE], 0)
            written += some
        publisher.step()
        server.step()
    seconds = time.perf_counter() - begun
    os.write(tell, b"%.2f\n" % (count / seconds / 1e6))
    publisher.end()
    while True:
        publisher.step()
        if not server.step():
            server.wait(0.001)


def measure(options: argparse.Namespace, rate: int) -> str:
    """Return a row of the table."""
    count = int(options.seconds * (rate or 5_000_000))
    lines = [Line(f"239.255.91.{place + 1}", 26_400 + place) for place in range(options.lines)]
    ready, set_ready = os.pipe()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        publish(options, rate, count, lines, ready, tell)
    feed = Feed(
        tuple(lines),
        retransmission=("127.0.0.1", int(os.read(told, 16))),
        receive_buffer=options.buffer,
        timing=Timing(window=1 << 20),
    )
    received = 0
    with FeedReceiver(feed, NAME, 1, many=options.many) as receiver:
        os.write(set_ready, b"!")
        begun = time.perf_counter()
        with suppress(ReportsLost):
            while received < count and (found := receiver.read(5.0)) is not None:
                received += len(found[1]) // REPORT_SIZE
        seconds = time.perf_counter() - begun
        counters = receiver.counters
    published = float(os.read(told, 16))
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)
    offered = f"{rate / 1e6:.2f}" if rate else "all"
    return (
        f"{offered:>8}  {published:>9.2f}  {received / seconds / 1e6:>8.2f}  {counters['recovered']:>12,}  "
        f"{counters['gaps']:>6,}  {counters['requests']:>8,}  {count - received:>10,}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default="0.5,1,2,4,0")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--lines", type=int, choices=(1, 2), default=2)
    parser.add_argument("--buffer", type=int, default=32 << 20)
    parser.add_argument("--no-segments", dest="segments", action="store_false")
    parser.add_argument("--no-many", dest="many", action="store_false")
    options = parser.parse_args()
    build = "pure" if packets.__file__.endswith(".py") else "compiled"
    print(f"{' '.join(sys.argv)}; commit {commit()}, {build}, Python {platform.python_version()}; {machine()}")
    print(" offered  published  received  brought back    gaps  requests     missing")
    for rate in options.rates.split(","):
        print(measure(options, int(float(rate) * 1e6)), flush=True)


if __name__ == "__main__":
    main()
