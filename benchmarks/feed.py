"""What the feed carries: tape, publisher, loopback multicast, receiver; reports a second and what was lost on the way.

    python benchmarks/feed.py [--reports 5000000] [--lines 2] [--no-segments] [--no-many] [--buffer 33554432]

The writer of the tape and the publisher are one process, the receiver is another, with a retransmission server beside
the publisher; two processes on as many processors as there are.  "Lost" is what no line brought and a request had to
bring back; what the kernel dropped of line A alone is not told apart.
"""

import argparse
import os
import platform
import subprocess
import sys
import time

from ferrox.client.arbiter import Timing
from ferrox.client.feed import Feed, FeedReceiver
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
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return f"{len(models)} x {models[0] if models else platform.machine()}, Linux {platform.release()}"


def publish(options: argparse.Namespace, lines: list[Line], ready: int, tell: int) -> None:
    """Write and publish everything, in the child; answer requests until the receiver is done."""
    shared = make_tape(CAPACITY)
    writer = TapeWriter(shared)
    writer.begin(1, 0)
    publisher = Publisher(TapeReader(shared, 0), NAME, lines, segment=options.segments)
    server = Retransmitter(writer, NAME, publisher=0)
    os.write(tell, b"%d\n" % server.address[1])
    os.read(ready, 1)
    batch = memoryview(os.urandom(BATCH * REPORT_SIZE))
    left = options.reports
    begun = time.perf_counter()
    while left or publisher.reader.position < writer.written():
        if left and writer.room() >= BATCH:
            count = min(left, BATCH)
            writer.write(batch[: count * REPORT_SIZE], 0)
            left -= count
        if not publisher.step():
            publisher.wait()
        server.step()
    seconds = time.perf_counter() - begun
    print(f"publisher  {options.reports / seconds / 1e6:8.2f} M reports/s  {dict(publisher.stats)}", flush=True)
    publisher.end()
    until = time.monotonic() + 60
    while os.getppid() != 1 and time.monotonic() < until:
        publisher.step()
        if not server.step():
            server.wait(0.001)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--reports", type=int, default=5_000_000)
    parser.add_argument("--lines", type=int, choices=(1, 2), default=2)
    parser.add_argument("--buffer", type=int, default=32 << 20)
    parser.add_argument("--no-segments", dest="segments", action="store_false")
    parser.add_argument("--no-many", dest="many", action="store_false")
    options = parser.parse_args()
    build = "compiled" if not packets.__file__.endswith(".py") else "pure"
    print(f"{' '.join(sys.argv)}; commit {commit()}, {build}, Python {platform.python_version()}; {machine()}")

    lines = [Line(f"239.255.91.{place + 1}", 26_400 + place) for place in range(options.lines)]
    ready, set_ready = os.pipe()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        publish(options, lines, ready, tell)
        os._exit(0)
    port = int(os.read(told, 16))
    feed = Feed(
        tuple(lines),
        retransmission=("127.0.0.1", port),
        receive_buffer=options.buffer,
        timing=Timing(window=1 << 20),
    )
    with FeedReceiver(feed, NAME, 1, many=options.many) as receiver:
        os.write(set_ready, b"!")
        count = 0
        begun = time.perf_counter()
        while count < options.reports:
            found = receiver.read(5.0)
            if found is None:
                break
            count += len(found[1]) // REPORT_SIZE
        seconds = time.perf_counter() - begun
        counters = receiver.counters
    os.kill(child, 15)
    os.waitpid(child, 0)
    lost = counters["recovered"] / options.reports
    print(f"receiver   {count / seconds / 1e6:8.2f} M reports/s  {dict(counters)}")
    print(
        f"lost on every line and brought back: {counters['recovered']:,} reports, {lost:.2%}; missing: {options.reports - count:,}"
    )


if __name__ == "__main__":
    main()
