"""Order flows from outside the project, and how they are put to an engine.

They lie next to the checkout, in `../shared/consensus` and `../shared/recorded`, or below the directory that
FERROX_EXTERNAL names.  They are not ours to redistribute, so whoever does not have them sees their tests skipped.

Both flows speak of changes by what is *left* of an order (a modify names the new leaves, a reduce takes some off), and
Ferrox by its new total (RPL-2).  So the driver remembers what every order has filled, from the engine's own reports,
and never sends a change before all commands ahead of it are answered.  Everything else goes in batches.
"""

import csv
import gzip
import hashlib
import json
import lzma
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from ferrox.engine import Engine
from ferrox.messages import (
    COMMAND,
    HALF,
    RECORD_SIZE,
    DefineInstrument,
    Report,
    unpack_reports,
)
from ferrox.state import unpack_state
from ferrox.terms import (
    PRICE_MAX,
    CommandKind,
    ReportKind,
    Side,
    TimeInForce,
    TradingState,
)
from ferrox.testing.sessions import to_record

PROJECT: Final = Path(__file__).parents[2]
BATCH: Final = 1024  # commands; a change of an order ends a batch before that

NEW, CANCEL, REPLACE = int(CommandKind.NEW_ORDER), int(CommandKind.CANCEL_ORDER), int(CommandKind.REPLACE_ORDER)
GTC, IOC = int(TimeInForce.GTC), int(TimeInForce.IOC)
BUY, SELL = int(Side.BUY), int(Side.SELL)
INSTRUMENT: Final = 1


class ExternalMissing(Exception):
    """The flows are not here; the text says where they were looked for."""


def external(name: str) -> Path:
    """Return the folder of an external flow, "consensus" or "recorded"; raise `ExternalMissing` when it is absent."""
    home = Path(os.environ.get("FERROX_EXTERNAL") or PROJECT.parent / "shared")
    if not (home / name).is_dir():
        raise ExternalMissing(f"no external flows in {home / name}; FERROX_EXTERNAL may name another directory")
    return home / name


class Answer(NamedTuple):
    """One message of a flow, by its place from 0, and every report it got."""

    place: int
    reports: list[Report]


class Driver:
    """Puts frames to an engine under numbers of the caller's, and remembers what each live order has filled."""

    def __init__(self, engine: Engine, *, batch: int = BATCH) -> None:
        self.engine = engine
        self.batch = batch
        self.sequence = 0
        self.records: list[bytes] = []
        self.places: list[int] = []
        self.filled: dict[int, int] = {}
        self.taken = bytearray()  # all records so far, for who wants to apply them once more
        definition = DefineInstrument(TradingState.OPEN, INSTRUMENT, -PRICE_MAX, PRICE_MAX, 1, 1)
        self.put(-1, definition.pack())
        [definitions] = self.flush()
        assert [report.kind for report in definitions.reports] == [ReportKind.INSTRUMENT_DEFINED]

    def put(self, place: int, frame: bytes) -> None:
        """Add the frame of one message to the batch."""
        self.sequence += 1
        self.records.append(to_record(self.sequence, frame))
        self.places.append(place)

    def full(self) -> bool:
        """Say whether it is time to flush."""
        return len(self.records) >= self.batch

    def flush(self) -> list[Answer]:
        """Apply the batch and return what each message got, in order."""
        records, places = b"".join(self.records), self.places
        first = self.sequence - len(places) + 1
        self.records, self.places = [], []
        self.taken += records
        answers = [Answer(place, []) for place in places]
        offset = 0
        while offset < len(records):
            count, frames = self.engine.apply(records[offset:] if offset else records)
            assert count > 0, "an engine takes at least one record"
            offset += count * RECORD_SIZE
            for report in unpack_reports(frames):
                answers[report.sequence - first].reports.append(report)
                self.note(report)
        assert all(answer.reports and answer.reports[-1].last for answer in answers), "every command is answered"
        return answers

    def note(self, report: Report) -> None:
        """Remember what is filled; an id that is entered anew starts from nothing."""
        if report.kind == ReportKind.TRADE:
            self.filled[report.contra_id] = self.filled.get(report.contra_id, 0) + report.quantity
            self.filled[report.order_id] = self.filled.get(report.order_id, 0) + report.quantity
        elif report.kind == ReportKind.NEW:
            self.filled[report.order_id] = 0


def new_order(side: int, time_in_force: int, order_id: int, price: int, quantity: int) -> bytes:
    """Return the frame of a plain new order."""
    return COMMAND.pack(NEW, side, time_in_force, 0, INSTRUMENT, order_id, price, quantity, 0)


def cancel_order(order_id: int) -> bytes:
    """Return the frame of a cancel."""
    return HALF.pack(CANCEL, 0, 0, 0, INSTRUMENT, order_id)


def replace_order(side: int, order_id: int, price: int, total: int) -> bytes:
    """Return the frame of a replace to a new total."""
    return COMMAND.pack(REPLACE, side, GTC, 0, INSTRUMENT, order_id, price, total, 0)


# --------------------------------------------------------------------------------------------------- consensus

MESSAGE_DTYPE: Final = np.dtype(
    [
        ("type", "u1"),
        ("side", "u1"),
        ("ioc", "u1"),
        ("pad", "u1"),
        ("quantity", "<u4"),
        ("sequence", "<u8"),
        ("order_id", "<u8"),
        ("price", "<i8"),
        ("reserved", "<i8"),
    ]
)
assert MESSAGE_DTYPE.itemsize == 40

# The leading number of a line, by the report that it stands for; trades are written out on their own.
LINE_TYPES: Final = {
    int(ReportKind.NEW): 0,
    int(ReportKind.TRADE): 1,
    int(ReportKind.CANCELED): 2,
    int(ReportKind.EXPIRED): 2,
    int(ReportKind.REPLACED): 3,
    int(ReportKind.CANCEL_REJECTED): 4,
    int(ReportKind.REPLACE_REJECTED): 5,
}


def expectations() -> list[dict[str, Any]]:
    """Return what is expected of each flow, or nothing where the flows are absent."""
    try:
        return list(json.loads((external("consensus") / "expected.json").read_text("utf-8")))
    except ExternalMissing:
        return []


def read_messages(file: str) -> "np.ndarray[Any, np.dtype[np.void]]":
    """Return the messages of one flow of the consensus."""
    data = lzma.decompress((external("consensus") / f"{file}.xz").read_bytes())
    messages = np.frombuffer(data, MESSAGE_DTYPE, offset=16)
    assert len(messages) == int.from_bytes(data[12:16], "little")
    return messages


def drive_messages(messages: "np.ndarray[Any, np.dtype[np.void]]", driver: Driver) -> Iterator[Answer]:
    """Put messages of the consensus to an engine; give the answers in order."""
    for index, (kind, side, ioc, _, quantity, _, order_id, price, _) in enumerate(messages.tolist()):
        if kind == 0:
            driver.put(index, new_order(side + 1, IOC if ioc else GTC, order_id, price, quantity))
        elif kind == 1:
            driver.put(index, cancel_order(order_id))
        else:
            yield from driver.flush()
            driver.put(index, replace_order(side + 1, order_id, price, quantity + driver.filled.get(order_id, 0)))
        if driver.full():
            yield from driver.flush()
    yield from driver.flush()


def report_lines(sequence: int, reports: list[Report]) -> list[str]:
    """Return the lines of one message: by their leading type, trades in match order."""
    lines = [(LINE_TYPES[report.kind], report_line(sequence, report)) for report in reports]
    lines.sort(key=lambda line: line[0])
    return [line for _, line in lines]


def report_line(sequence: int, report: Report) -> str:
    """Return the line of one report, in the form that the consensus is a hash of."""
    kind = LINE_TYPES[report.kind]
    if kind == 0:
        return f"0,{sequence},{report.side - 1},{report.order_id},{report.price},{report.quantity}"
    if kind == 1:
        return f"1,{sequence},{report.price},{report.quantity},{report.contra_id},{report.order_id}"
    if kind == 2:
        return f"2,{sequence},{report.side - 1},{report.order_id},{report.price}"
    if kind == 3:
        return f"3,{sequence},{report.side - 1},{report.order_id},{report.price},{report.leaves}"
    return f"{kind},{sequence},{report.order_id}"


def play_messages(messages: "np.ndarray[Any, np.dtype[np.void]]", driver: Driver) -> str:
    """Put messages of the consensus to an engine and return the whole report text."""
    sequences = messages["sequence"].tolist()
    lines: list[str] = []
    for answer in drive_messages(messages, driver):
        lines += report_lines(sequences[answer.place], answer.reports)
    return "\n".join(lines)


def figures(text: str, engine: Engine, messages: int) -> dict[str, int]:
    """Return the counts by which `expected.json` localises a difference, from the text and the engine's own state."""
    names = ("acks", "trades", "cack", "mack", "crej", "mrej")
    lines = text.split("\n")
    orders = unpack_state(engine.snapshot()).orders
    return {
        **{name: sum(line[0] == str(kind) for line in lines) for kind, name in enumerate(names)},
        "qty": sum(int(line.split(",")[3]) for line in lines if line[0] == "1"),
        "messages": messages,
        "reports": len(lines),
        "live": len(orders),
        "bid_levels": len({order.price for order in orders if order.side == BUY}),
        "ask_levels": len({order.price for order in orders if order.side == SELL}),
    }


def digest(text: str) -> str:
    """Return the SHA-256 of a report text."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()


# ---------------------------------------------------------------------------------------------------- recorded

COMMANDS: Final = "aapl_20120621_cmds.csv.gz"
CHECKPOINTS: Final = "aapl_20120621_bbo.csv.gz"


class Recorded(NamedTuple):
    """One command of the recorded hour: prices in 1/10,000 dollar; `expect` lists its fills, `maker:price:quantity`."""

    command: str
    order_id: int
    side: int
    price: int
    quantity: int
    time_in_force: int
    expect: tuple[str, ...]


class Best(NamedTuple):
    """The best bid and offer after a command, None where nothing rests."""

    bid: int | None
    bid_quantity: int | None
    ask: int | None
    ask_quantity: int | None


def read_recorded() -> list[Recorded]:
    """Return the commands of the recorded hour, their place in the list being their sequence there."""
    with gzip.open(external("recorded") / COMMANDS, "rt", encoding="utf-8", newline="") as lines:
        return [
            Recorded(
                row["cmd"],
                int(row["id"]),
                BUY if row["side"] == "B" else SELL,
                int(row["price"]),
                int(row["qty"]),
                IOC if row["tif"] == "IOC" else GTC,
                () if row["expect"] == "-" else tuple(row["expect"].split(";")),
            )
            for row in csv.DictReader(lines)
        ]


def read_checkpoints() -> dict[int, Best]:
    """Return the recorded best bid and offer by command."""
    with gzip.open(external("recorded") / CHECKPOINTS, "rt", encoding="utf-8", newline="") as lines:
        return {
            int(row["seq"]): Best(int(row["bid"]), int(row["bidqty"]), int(row["ask"]), int(row["askqty"]))
            for row in csv.DictReader(lines)
        }


def drive_recorded(commands: list[Recorded], driver: Driver, working: dict[int, tuple[int, int]]) -> Iterator[Answer]:
    """Put the recorded commands to an engine; `working` holds price and leaves by id, kept by who takes the answers."""
    for index, command in enumerate(commands):
        if command.command == "new":
            driver.put(
                index,
                new_order(command.side, command.time_in_force, command.order_id, command.price, command.quantity),
            )
        elif command.command == "cancel":
            driver.put(index, cancel_order(command.order_id))
        else:
            assert command.command == "reduce"
            yield from driver.flush()
            price, leaves = working[command.order_id]
            total = driver.filled[command.order_id] + leaves - command.quantity
            driver.put(index, replace_order(command.side, command.order_id, price, total))
        if driver.full():
            yield from driver.flush()
    yield from driver.flush()
