"""How quick the Python API is beside comparable packages from PyPI: one call a message, flow by flow.

    pip install orderly-chaos bourse obook lightmatchingengine
    PYTHONPATH=build/compiled python benchmarks/peers.py [--messages 20000] [--rounds 5] [--json FILE]

Every package gets the same limit orders and cancels (`flows.py`) through the calls that its documentation shows, one at
a time, from a plain Python loop; what a package returns or records of a trade is as it comes.  They are no equals:
orderly-chaos (C++), bourse (Rust) and obook (Go) keep books of one instrument, and lightmatchingengine is pure Python;
none checks ticks, lots, bands or accounts, writes sequenced reports, or can be replayed to the same bytes.  Packages
that are not installed are left out, and said so.  Each runs in a process of its own, pinned, once a round; the table
has the middle of the rounds by CPU time, and how many trades each made, where it tells.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from flows import plain_flow  # type: ignore[import-not-found]
from reference import surroundings  # type: ignore[import-not-found]

import ferrox as fx
from ferrox.messages import RECORD_DTYPE
from ferrox.terms import CommandKind, Side

BUY: Final = int(Side.BUY)
FLOWS: Final = ("balanced", "sweep")
MESSAGES: Final = 20_000


class Message(NamedTuple):
    """A limit order, or a cancel when the quantity is 0."""

    side: int
    order_id: int
    price: int
    quantity: int


Loop = Callable[[Iterable[Message]], None]


def ferrox_venue(engine: str) -> tuple[Loop, Callable[[], int]]:
    """Call Ferrox as a person does; a result is decoded when it is looked at."""
    venue = fx.Venue(engine)
    venue.define(1, band=(0, 2**40 - 1))
    trades = 0

    def loop(messages: Iterable[Message]) -> None:
        nonlocal trades
        buy, sell, cancel = venue.buy, venue.sell, venue.cancel
        for side, order_id, price, quantity in messages:
            if not quantity:
                cancel(order_id)
            else:
                result = (buy if side == BUY else sell)(quantity, price, order_id=order_id)
                trades += len(result) - 1

    return loop, lambda: trades


def orderly_chaos() -> tuple[Loop, Callable[[], int]]:
    """Drive a C++ core behind a C interface and ctypes; a call returns the quantity filled at once."""
    from orderly_chaos import LimitOrderBook, UnknownOrderIdError

    book = LimitOrderBook()

    def loop(messages: Iterable[Message]) -> None:
        buy, sell, cancel = book.limit_buy, book.limit_sell, book.cancel
        for side, order_id, price, quantity in messages:
            if quantity:
                (buy if side == BUY else sell)(order_id, quantity, price)
            else:
                with suppress(UnknownOrderIdError):
                    cancel(order_id)

    return loop, lambda: -1


def bourse() -> tuple[Loop, Callable[[], int]]:
    """Drive a Rust core; it numbers the orders itself."""
    from bourse.core import OrderBook

    book = OrderBook(0, True)
    numbers: dict[int, int] = {}
    clock = count(1)

    def loop(messages: Iterable[Message]) -> None:
        place, cancel, set_time = book.place_order, book.cancel_order, book.set_time
        for side, order_id, price, quantity in messages:
            set_time(next(clock))  # orders of one time would take each other's place
            if quantity:
                numbers[order_id] = place(side == BUY, quantity, 0, price=price)
            else:
                cancel(numbers[order_id])

    return loop, lambda: len(book.get_trades())


def obook() -> tuple[Loop, Callable[[], int]]:
    """Drive a Go core behind a C interface and ctypes; it numbers the orders itself."""
    import obook as package

    book = package.Book(max_orders=1_000_000)
    numbers: dict[int, int] = {}

    def loop(messages: Iterable[Message]) -> None:
        submit, cancel, buy_side, sell_side = book.submit, book.cancel, package.BUY, package.SELL
        for side, order_id, price, quantity in messages:
            if quantity:
                result = submit(user=1, side=buy_side if side == BUY else sell_side, price=price, qty=quantity)
                numbers[order_id] = result.order_id
            else:
                cancel(numbers[order_id], 1)

    return loop, lambda: -1


def lightmatchingengine() -> tuple[Loop, Callable[[], int]]:
    """Drive dictionaries and lists in plain Python."""
    from lightmatchingengine.lightmatchingengine import LightMatchingEngine
    from lightmatchingengine.lightmatchingengine import Side as Sides

    engine = LightMatchingEngine()
    numbers: dict[int, int] = {}
    trades = 0

    def loop(messages: Iterable[Message]) -> None:
        nonlocal trades
        for side, order_id, price, quantity in messages:
            if quantity:
                order, made = engine.add_order("X", price, quantity, Sides.BUY if side == BUY else Sides.SELL)
                numbers[order_id] = order.order_id
                trades += max(0, len(made) - 1)  # the taker's is one of them
            else:
                with suppress(AssertionError):  # raised for an order that has filled
                    engine.cancel_order(numbers[order_id], "X")

    return loop, lambda: trades


PACKAGES: Final[dict[str, tuple[str, Callable[[], tuple[Loop, Callable[[], int]]]]]] = {
    "ferrox, fast": ("ferrox", lambda: ferrox_venue("fast")),
    "ferrox, reference": ("ferrox", lambda: ferrox_venue("reference")),
    "orderly-chaos": ("orderly-chaos", orderly_chaos),
    "bourse": ("bourse", bourse),
    "obook": ("obook", obook),
    "lightmatchingengine": ("lightmatchingengine", lightmatchingengine),
}


def messages_of(name: str, number: int) -> tuple[list[Message], int]:
    """Return a flow's messages, and how many of them are its prefill."""
    flow = plain_flow(name, number)
    commands = np.frombuffer(flow.records, RECORD_DTYPE)["command"][flow.instruments :]
    commands = commands[: flow.prefill + number]
    quantities = np.where(commands["kind"] == CommandKind.NEW_ORDER, commands["quantity"], 0)
    columns = (commands["side"], commands["order_id"], commands["price"], quantities)
    return [Message(*values) for values in zip(*(column.tolist() for column in columns), strict=True)], flow.prefill


def run(package: str, flow: str, number: int) -> None:
    """Print ns a message and the number of trades of one run, as JSON."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    messages, prefill = messages_of(flow, number)
    loop, trades = PACKAGES[package][1]()
    loop(messages[:prefill])
    rest = messages[prefill:]
    start = time.process_time_ns()
    loop(rest)
    elapsed = time.process_time_ns() - start
    print(json.dumps([elapsed / len(rest), trades()]))


def installed(package: str) -> str:
    """Return a package's version, or nothing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def measure(rounds: int, number: int) -> dict[str, Any]:
    """Print a table of all packages that are installed, flow by flow, and return its figures."""
    versions = {
        name: fx.__version__ if package == "ferrox" else installed(package) for name, (package, _) in PACKAGES.items()
    }
    results: dict[str, Any] = {"messages": number, "versions": versions, "ns": {}}
    for flow in FLOWS:
        figures: dict[str, list[float]] = {name: [] for name, version in versions.items() if version}
        trades: dict[str, int] = {}
        for _ in range(rounds):
            for name, values in figures.items():
                command = [sys.executable, __file__, "--run", name, flow, "--messages", str(number)]
                nanoseconds, trades[name] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                values.append(nanoseconds)
        print(f"\n{flow}, one call a message from Python")
        first = next(iter(figures))
        for name, values in figures.items():
            middle = statistics.median(values)
            ratio = statistics.median(mine / best for mine, best in zip(values, figures[first], strict=True))
            told = f"{trades[name]:,} trades" if trades[name] >= 0 else ""
            print(f"  {name:<20} {versions[name]:<12} {middle:9,.0f} ns {1000 / middle:7.3f} M/s {ratio:7.2f}x  {told}")
        results["ns"][flow] = figures
    for name, version in versions.items():
        if not version:
            print(f"{name} is not installed, and was left out")
    return results


def main() -> int:
    """Measure all packages in rounds, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--run", nargs=2, metavar=("PACKAGE", "FLOW"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        package, flow = options.run
        run(package, flow, options.messages)
        return 0
    results = surroundings("fast", options.rounds, 1) | measure(options.rounds, options.messages)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
