"""What the Python API costs: one call a command, whole arrays, books and columns.

    python benchmarks/api.py [--count 200000] [--engines null,reference,fast]

The null engine answers every batch with one prepared report, so its column is the price of the API alone.  Figures are
the best of five runs, in thousands a second; the engines' columns hold the engine's own work too.
"""

import argparse
import io
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import ferrox as fx
from ferrox.columns import CSV_ROWS, _csv
from ferrox.messages import REPORT_SIZE, NewOrder, Report
from ferrox.terms import ReportFlag, ReportKind, Side

REPEATS = 5
ORDERS = 1 << 17


class NullEngine:
    """An engine that does nothing: what is left is the API.  It has one instrument, and no order ever rests in it."""

    def __init__(self) -> None:
        report = Report(1, 1, 0, 100, 10, 10, 1, ReportKind.NEW, Side.BUY, 0, ReportFlag.LAST)
        self.reports = memoryview(report.pack())
        venue = fx.Venue()
        venue.define(1)
        self.state = venue.snapshot()

    def apply(self, records: bytes) -> tuple[int, memoryview]:  # noqa: D102 (the seam's)
        return len(records) >> 6, self.reports

    def snapshot(self) -> bytes:  # noqa: D102 (the seam's)
        return self.state

    def restore(self, snapshot: bytes) -> None:  # noqa: D102 (the seam's)
        self.state = snapshot


def buy_and_cancel(venue: fx.Venue, count: int) -> None:
    """Ten orders come to rest, ten leave: the book stays small, every call gives one report."""
    buy, cancel = venue.buy, venue.cancel
    for _ in range(count // 20):
        ids = [buy(10, price).order_id for price in range(100, 110)]
        for order_id in ids:
            cancel(order_id, 1)


def submit_by_name(venue: fx.Venue, count: int) -> None:
    submit = venue.submit
    for order_id in range(1, count + 1):
        submit("buy", 10, 100, order_id=order_id, time_in_force="ioc", account=7)


def send_frames(venue: fx.Venue, count: int) -> None:
    send = venue.send
    frame = NewOrder(Side.BUY, 2, 0, 1, 5, 100, 10).pack()
    for _ in range(count):
        send(frame)


def send_typed(venue: fx.Venue, count: int) -> None:
    send = venue.send
    for order_id in range(1, count + 1):
        send(NewOrder(1, 2, 0, 1, order_id, 100, 10))


def look_at_results(venue: fx.Venue, count: int) -> None:
    """Send a command a call, and look at whether it was accepted and what it left."""
    buy = venue.buy
    for _ in range(count):
        result = buy(10, 100, time_in_force="IOC")
        if result.accepted:
            _ = result.leaves


def top_after_each(venue: fx.Venue, count: int) -> None:
    buy, cancel, top = venue.buy, venue.cancel, venue.top
    for _ in range(count // 2):
        order_id = buy(10, 100).order_id
        top()
        cancel(order_id, 1)
        top()


def whole_array(venue: fx.Venue, count: int) -> None:
    side = np.arange(count) % 2 + 1
    for _ in venue.stream(fx.new_orders(side, 10, 100 + side, order_id=np.arange(1, count + 1), time_in_force="ioc")):
        pass


TOP = "buy, cancel, look at the top after each"
CALLS: list[tuple[str, Callable[[fx.Venue, int], None]]] = [
    ("buy, cancel: one call a command", buy_and_cancel),
    ("submit with names and an account", submit_by_name),
    ("send a frame", send_frames),
    ("send a typed command", send_typed),
    ("buy IOC and look at the result", look_at_results),
    (TOP, top_after_each),
    ("apply an array", whole_array),
]


def rate(work: Callable[..., Any], count: int, prepare: Callable[[], tuple[Any, ...]] = tuple) -> float:
    """Return thousands a second of the best run; what each run needs is made before its time counts."""
    best = float("inf")
    for _ in range(REPEATS):
        needed = prepare()
        start = time.perf_counter()
        work(*needed)
        best = min(best, time.perf_counter() - start)
    return count / best / 1000


def fresh(name: str) -> fx.Venue:
    venue = fx.Venue(NullEngine()) if name == "null" else fx.Venue(name, orders=ORDERS)
    venue.define(1)
    return venue


def made(name: str, count: int) -> tuple[fx.Venue, int]:
    return fresh(name), count


def columns(count: int) -> list[tuple[str, float]]:
    """Return rates of what is done with reports, whichever engine gave them."""
    venue = fx.Venue(orders=ORDERS)
    random = np.random.default_rng(7)
    defined = venue.define(1).frames
    orders = fx.new_orders(
        random.integers(1, 3, count), random.integers(1, 100, count), random.integers(990, 1011, count)
    )
    reports = venue.apply(orders)
    rows = len(reports)

    def csv() -> None:
        out = io.BytesIO()
        for start in range(0, rows, CSV_ROWS):
            out.write(_csv(reports.array[start : start + CSV_ROWS]))

    def fold() -> None:
        fx.Books().fold(defined + bytes(reports))

    found = [
        ("reports to CSV", rate(csv, rows)),
        ("typed reports, one by one", rate(lambda: list(reports), rows)),
        ("reports folded into books", rate(fold, rows)),
        ("digest", rate(reports.digest, rows)),
        ("books seeded from a snapshot, orders", rate(lambda: fx.Venue(venue.engine), len(venue.state().orders))),
    ]
    try:
        found.append(("reports to Arrow", rate(reports.to_arrow, rows)))
    except fx.MissingPackage as error:
        print(error, file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, default=100_000, help="commands of a run")
    parser.add_argument("--engines", default="null,reference,fast", help="by name, with commas between")
    options = parser.parse_args()

    names = []
    for name in options.engines.split(","):
        try:
            fresh(name)
        except Exception as error:  # noqa: BLE001 (an engine that cannot be made is left out, and said so)
            print(f"without {name}: {error}", file=sys.stderr)
        else:
            names.append(name)
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores"
    )
    print(f"{options.count:,} commands, best of {REPEATS}; thousands a second (and ns each)\n")
    print(f"{'':42}" + "".join(f"{name:>20}" for name in names))
    for title, work in CALLS:
        cells = []
        for name in names:
            if name == "null" and title == TOP:  # its reports belong to no book
                cells.append(f"{'-':>20}")
                continue
            value = rate(work, options.count, partial(made, name, options.count))
            cells.append(f"{value:>11,.0f} {f'({1e6 / value:,.0f})':>8}")
        print(f"{title:42}" + "".join(cells), flush=True)
    print(f"\nreports of {REPORT_SIZE} bytes, thousands a second")
    for title, value in columns(options.count):
        print(f"{title:42}{value:>11,.0f}")


if __name__ == "__main__":
    main()
