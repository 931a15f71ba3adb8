"""`ferrox import`: a CSV of orders becomes a journal (docs/orders_csv.md)."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, RawIOBase
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO, Final

import click

from ferrox.cli.journals import new_journal, out_option, size_of_journal
from ferrox.cli.output import examples, json_option, per_second, plural, print_json, print_note, progress, show_bytes
from ferrox.engine import Capacity
from ferrox.errors import UsageError
from ferrox.messages import RECORD_SIZE
from ferrox.orders_csv import Defaults, OrdersCsv
from ferrox.terms import (
    INSTRUMENT_CAPACITY,
    INSTRUMENT_CAPACITY_MAX,
    LOT_MAX,
    ORDER_CAPACITY,
    ORDER_CAPACITY_MAX,
    PRICE_MAX,
    TICK_MAX,
)

HEAD_SIZE: Final = 65_536
"""Bytes of the beginning that a journal's uuid is made from: a pipe cannot be read twice."""
PRICE: Final = click.IntRange(-PRICE_MAX, PRICE_MAX)


@click.command(
    epilog=examples(
        "ferrox import orders.csv --out flow",
        "ferrox import orders.csv --decimals 2 --tick 5 --out flow",
        "zcat orders.csv.gz | ferrox import - --out flow",
        "printf 'side,price,quantity\\nsell,100,5\\nbuy,100,3\\n' | ferrox import - --out tiny",
    )
)
@click.argument("file", metavar="FILE.csv", type=click.Path(allow_dash=True))
@out_option
@click.option(
    "--tick", metavar="N", type=click.IntRange(1, TICK_MAX), default=1, show_default=True, help="Tick of instruments."
)
@click.option(
    "--lot", metavar="N", type=click.IntRange(1, LOT_MAX), default=1, show_default=True, help="Lot of instruments."
)
@click.option(
    "--band",
    type=(PRICE, PRICE),
    default=(-PRICE_MAX, PRICE_MAX),
    metavar="LOW HIGH",
    help="Price band of instruments.  [default: every price]",
)
@click.option(
    "--decimals",
    metavar="N",
    type=click.IntRange(0, 12),
    default=0,
    show_default=True,
    help="Digits behind the point in prices: with 2, 10.25 becomes the price 1025.",
)
@click.option("--define/--no-define", default=True, show_default=True, help="Define an instrument at its first use.")
@click.option(
    "--orders", metavar="N", type=click.IntRange(1, ORDER_CAPACITY_MAX), default=ORDER_CAPACITY, help="Order capacity."
)
@click.option(
    "--instruments",
    metavar="N",
    type=click.IntRange(1, INSTRUMENT_CAPACITY_MAX),
    default=INSTRUMENT_CAPACITY,
    help="Instrument capacity.",
)
@json_option
def command(
    file: str,
    out: str,
    tick: int,
    lot: int,
    band: tuple[int, int],
    decimals: int,
    define: bool,
    orders: int,
    instruments: int,
    as_json: bool,
) -> int:
    """Turn a CSV of orders into a journal.

    The first line names the columns, each further line is a command; docs/orders_csv.md has them all. Only side, price
    and quantity must be there. An instrument that no row defines is defined by the options when it is first used. When
    a row is wrong, nothing is written, and up to 20 such rows are told.

    Exit status: 0 fine, 2 usage, 3 a row is wrong.
    """
    if band[0] > band[1]:
        raise UsageError(f"--band {band[0]} {band[1]}: the low end of a band is not above its high end")
    defaults = Defaults(tick, lot, band[0], band[1], decimals, define)
    start = perf_counter()
    with opened(file) as (stream, name):
        head = stream.read(HEAD_SIZE)
        rows = OrdersCsv(BufferedReader(Rejoined(head, stream), HEAD_SIZE), name, defaults)
        origin = f"ferrox import {hashlib.sha256(head).hexdigest()} {defaults} {orders} {instruments}"
        with new_journal(out, Capacity(orders, instruments), origin) as journal:
            with progress("importing", None, "records") as advance:
                for records in rows:
                    journal.append(records)
                    advance(len(records) // RECORD_SIZE)
            records_written, uuid = journal.sequence + 1, journal.uuid.hex()
    seconds = perf_counter() - start
    if rows.earlier:
        print_note(
            f"{name}: {plural(rows.earlier, 'row')} came with an earlier time than the row before; a journal's time "
            "never goes back, so they took the time of the row before (JRN-3)"
        )
    if as_json:
        print_json(
            {
                "verb": "import",
                "file": file,
                "directory": out,
                "commands": rows.rows + rows.defined,
                "rows": rows.rows,
                "instruments_defined": rows.defined,
                "earlier_times": rows.earlier,
                "records": records_written,
                "bytes": size_of_journal(out),
                "uuid": uuid,
                "seconds": round(seconds, 3),
                "rows_per_second": per_second(rows.rows, seconds),
            }
        )
        return 0
    from ferrox.cli.terminal import facts, show

    defined = f", {plural(rows.defined, 'instrument')} defined at first use" if rows.defined else ""
    show(
        *facts(
            [
                ("journal", f"{out}  {show_bytes(size_of_journal(out))}"),
                ("rows", f"{plural(rows.rows, 'command')}{defined}"),
                ("time", f"{seconds:.1f} s, {per_second(rows.rows, seconds):,} rows a second"),
            ]
        )
    )
    return 0


class Rejoined(RawIOBase):
    """A stream whose beginning has been read already, from its beginning."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = memoryview(head), rest

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer with what comes next; return how many bytes that is, 0 at the end."""
        room = memoryview(buffer)
        chunk = self._head[: len(room)] if self._head else memoryview(self._rest.read(len(room)))
        self._head = self._head[len(chunk) :]
        room[: len(chunk)] = chunk
        return len(chunk)


@contextmanager
def opened(path: str) -> Iterator[tuple[BinaryIO, str]]:
    """Give the stream of a file, or of stdin for "-", and what to call it."""
    if path == "-":
        try:
            with open(0, "rb", closefd=False) as stream:
                yield stream, "standard input"
        except OSError as error:
            raise UsageError(f"standard input: {error.strerror}") from error
        return
    if Path(path).is_dir():
        raise UsageError(f"{path}: this is a directory; name a CSV file, or - for standard input")
    with Path(path).open("rb") as stream:
        yield stream, path
