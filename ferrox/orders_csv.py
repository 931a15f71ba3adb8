"""Orders from a CSV file: one command a row, turned into records that a journal can seal (docs/orders_csv.md).

The file comes from elsewhere: a spreadsheet, another engine's log, somebody's research.  So what may be left out has a
sensible default, and what is wrong is told with line, column, value and what could stand there, for up to twenty rows
at once.  Nothing is guessed: a cell that is not understood is an error, never a zero.

One row is one line.  No cell of ours needs a line break, so a quote that does not close cannot swallow the file, and a
line has a greatest length, so memory is bounded whatever comes.  A line without quotes is split at its commas; only one
with quotes is looked at cell by cell.
"""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import BinaryIO, Final

from attrs import field, frozen
from attrs.validators import and_, ge, instance_of, le

from ferrox.decode import fault
from ferrox.errors import CorruptInput
from ferrox.messages import COMMAND, COMMAND_SIZE, ENVELOPE, FRAME_SIZE
from ferrox.terms import (
    ACCOUNT_MAX,
    ACCOUNT_SHIFT,
    INSTRUMENT_MAX,
    LOT_MAX,
    NOTIONAL_MAX,
    ORDER_ID_MAX,
    PRICE_MAX,
    QUANTITY_MAX,
    REFERENCE_MAX,
    SELF_TRADE_SHIFT,
    TICK_MAX,
    TIME_MAX,
    CommandKind,
    Limit,
    OrderFlag,
    Reason,
    Scope,
    SelfTrade,
    Side,
    TimeInForce,
    TradingState,
)

LINE_MAX: Final = 65_536
"""Bytes of a line, its end included."""
PROBLEMS_MAX: Final = 20
"""Rows that are told before reading on is given up."""
CHUNK_ROWS: Final = 4096
"""Records that are given at a time."""

COLUMNS: Final = (
    "command",
    "side",
    "order_id",
    "account",
    "price",
    "quantity",
    "time_in_force",
    "flags",
    "self_trade",
    "instrument",
    "time_ns",
    "tick",
    "lot",
    "band_low",
    "band_high",
    "state",
    "limit",
    "value",
)

COMMANDS: Final = {
    "new": int(CommandKind.NEW_ORDER),
    "cancel": int(CommandKind.CANCEL_ORDER),
    "replace": int(CommandKind.REPLACE_ORDER),
    "mass-cancel": int(CommandKind.MASS_CANCEL),
    "instrument": int(CommandKind.DEFINE_INSTRUMENT),
    "state": int(CommandKind.SET_TRADING_STATE),
    "limit": int(CommandKind.SET_LIMIT),
}
SIDES: Final = {"buy": int(Side.BUY), "sell": int(Side.SELL), "b": int(Side.BUY), "s": int(Side.SELL)}
TIMES_IN_FORCE: Final = {term.name.lower(): int(term) for term in TimeInForce}
FLAGS: Final = {flag.name.lower().replace("_", "-"): int(flag) for flag in OrderFlag if flag.name}
SELF_TRADES: Final = {mode.name.lower().replace("_", "-"): int(mode) for mode in SelfTrade}
STATES: Final = {state.name.lower().replace("_", "-"): int(state) for state in TradingState}
LIMITS: Final = {limit.name.lower().replace("_", "-"): int(limit) for limit in Limit}

NEW_ORDER, CANCEL_ORDER, REPLACE_ORDER, MASS_CANCEL, DEFINE_INSTRUMENT = map(int, list(CommandKind)[:5])
SET_TRADING_STATE, SET_LIMIT = map(int, list(CommandKind)[5:])
GTC, IOC = int(TimeInForce.GTC), int(TimeInForce.IOC)
MARKET: Final = int(OrderFlag.MARKET)
SIZES: Final = {int(kind): size for kind, size in FRAME_SIZE.items()}
# No part can give back what it took, so a line is judged in one pass; the blanks of a plain cell are cut off later.
CELL: Final = re.compile(r'(?:\s*+"((?:[^"]++|"")*+)"\s*+|([^",]*+))(,|$)')
DIGITS: Final = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
DECIMAL: Final = re.compile(r"([+-]?)([0-9]{1,20})(?:\.([0-9]{0,20}))?", re.ASCII)

# Which cell is at fault, and what it could hold, where each field by itself is in order and the whole is not.
FAULTS: Final[dict[int, tuple[str, str]]] = {
    Reason.BAD_TIME_IN_FORCE: ("time_in_force", "ioc or fok for a market order, gtc for a replace"),
    Reason.BAD_FLAGS: ("flags", "post-only only for a gtc order that is not market, and slide only beside post-only"),
    Reason.BAD_PRICE: ("price", "no price, or 0, for a market order"),
    Reason.BAD_BAND: ("band_low", "a low end that is not above the high end"),
    Reason.BAD_INSTRUMENT: ("instrument", "no instrument; only kill and collar are for one"),
    Reason.BAD_ACCOUNT: ("account", "no account, for a collar and beside an instrument"),
    Reason.BAD_VALUE: ("value", "a value that its limit takes (specs/risk.md)"),
}


@frozen
class Defaults:
    """What holds where the rows do not say it."""

    tick: int = field(default=1, validator=and_(instance_of(int), ge(1), le(TICK_MAX)))
    lot: int = field(default=1, validator=and_(instance_of(int), ge(1), le(LOT_MAX)))
    band_low: int = field(default=-PRICE_MAX, validator=and_(instance_of(int), ge(-PRICE_MAX), le(PRICE_MAX)))
    band_high: int = field(default=PRICE_MAX, validator=and_(instance_of(int), ge(-PRICE_MAX), le(PRICE_MAX)))
    decimals: int = field(default=0, validator=and_(instance_of(int), ge(0), le(12)))
    """Digits behind the point that prices of the file may have: with 2, 10.25 is the price 1025."""
    define: bool = True
    """Whether an instrument is defined, open, when a row uses it for the first time."""


@frozen
class Problem:
    """One row that cannot be a command."""

    line: int
    """Of the file, from 1; 0 for a file without any."""
    column: str
    """The cell at fault, empty for the whole row."""
    value: str
    expected: str

    def __str__(self) -> str:
        value = self.value if len(self.value) <= 40 else f"{self.value[:37]}..."
        where = f"line {self.line}" if self.line else "the file is empty"
        where += f", column {self.column}" if self.column else ""
        found = f"{value!r}" if self.value else "nothing"
        return f"{where}: expected {self.expected}, found {found}"


class OrdersCsvError(CorruptInput):
    """A file that is no CSV of orders; its text has a line for each row at fault."""

    def __init__(self, name: str, problems: list[Problem], *, gave_up: bool) -> None:
        """Take the file's name, the rows at fault, and whether more may follow that were not looked at."""
        self.name, self.problems, self.gave_up = name, tuple(problems), gave_up
        self.lines = [f"{name}: {problem}" for problem in problems]
        """The text, line by line."""
        if gave_up:
            self.lines.append(f"{name}: reading was given up here; more rows may be wrong")
        super().__init__("\n".join(self.lines))


class Wrong(Exception):
    """A cell at fault: its column, what it holds, and what it could hold."""

    def __init__(self, column: str, value: str, expected: str) -> None:
        self.column, self.value, self.expected = column, value, expected


class OrdersCsv:
    """The rows of a stream as unsealed 64-byte records, in chunks; iterate it once.

    Raise `OrdersCsvError` at the end of the stream, or after twenty rows at fault; nothing is given from the first one
    on.  The counts are those of what was given so far.
    """

    def __init__(self, stream: BinaryIO, name: str = "orders", defaults: Defaults | None = None) -> None:
        """Take a binary stream, what to call it in errors, and what holds where the rows do not say it."""
        self.name = name
        self.defaults = defaults or Defaults()
        self.rows = 0
        """Commands that came from rows."""
        self.defined = 0
        """Instruments that were defined because a row used them."""
        self.earlier = 0
        """Rows with an earlier time than the row before; a journal lets no time go back (JRN-3)."""
        self._stream = stream
        self._line = 0
        self._index: dict[str, int] = {}
        self._width = 0
        self._cells: list[str] = []
        self._known: set[int] = set()
        self._latest = 0

    def __iter__(self) -> Iterator[bytes]:
        problems: list[Problem] = []
        records: list[bytes] = []
        try:
            self._read_header()
            for cells in self._rows():
                if isinstance(cells, Problem):
                    problems.append(cells)
                else:
                    try:
                        records += self._records(cells)
                    except Wrong as wrong:
                        problems.append(Problem(self._line, wrong.column, wrong.value, wrong.expected))
                if len(problems) >= PROBLEMS_MAX:
                    break
                if len(records) >= CHUNK_ROWS:
                    if not problems:
                        yield b"".join(records)
                    records.clear()
        except Wrong as wrong:  # nothing can be read behind it
            problems.append(Problem(self._line, wrong.column, wrong.value, wrong.expected))
            raise OrdersCsvError(self.name, problems, gave_up=bool(self._index)) from None
        if problems:
            raise OrdersCsvError(self.name, problems, gave_up=len(problems) >= PROBLEMS_MAX)
        if records:
            yield b"".join(records)

    # ---------------------------------------------------------------------------------------------- lines and cells

    def _lines(self) -> Iterator[str]:
        """Give the lines that are neither empty nor comments, without their ends."""
        while data := self._stream.readline(LINE_MAX + 1):
            self._line += 1
            if len(data) > LINE_MAX:
                start = data[:20].decode("utf-8", "backslashreplace")
                raise Wrong("", f"{start}...", f"a line of at most {LINE_MAX} bytes")
            if self._line == 1:
                if data.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise Wrong("", "UTF-16", "text in UTF-8; save the file as UTF-8")
                data = data.removeprefix(b"\xef\xbb\xbf")
            line = data.decode("utf-8", "backslashreplace").strip()
            if line and not line.startswith("#"):
                yield line

    def _split(self, line: str) -> list[str]:
        """Return the cells of a line."""
        if '"' not in line:
            return line.split(",")
        cells: list[str] = []
        at = 0
        while found := CELL.match(line, at):
            quoted, plain, end = found.groups()
            cells.append(plain if quoted is None else quoted.replace('""', '"'))
            if not end:
                return cells
            at = found.end()
        raise Wrong("", line, "quotes that close within the line, around a whole cell")

    def _read_header(self) -> None:
        """Read the names of the columns."""
        line = next(self._lines(), None)
        if line is None:
            raise Wrong("", "", f"a first line with the names of the columns, of: {', '.join(COLUMNS)}")
        names = [name.strip().lower() for name in self._split(line)]
        for name in names:
            if name not in COLUMNS:
                close = get_close_matches(name, COLUMNS, 1)
                hint = f" ({close[0]}?)" if close else ""
                raise Wrong("", name, f"the name of a column{hint}, one of: {', '.join(COLUMNS)}")
            if names.count(name) > 1:
                raise Wrong("", name, "each column once")
        missing = {"side", "price", "quantity"} - set(names)
        if "command" not in names and missing - ({"price"} if "flags" in names else set()):
            raise Wrong("", line, "columns side, price and quantity, for without a column command all are new orders")
        self._index = {name: index for index, name in enumerate(names)}
        self._width = len(names)

    def _rows(self) -> Iterator[list[str] | Problem]:
        """Give the cells of each row, or what is wrong with the row as a whole."""
        for line in self._lines():
            try:
                cells = self._split(line)
            except Wrong as wrong:
                yield Problem(self._line, "", wrong.value, wrong.expected)
                continue
            if len(cells) == self._width:
                yield cells
            else:
                count = f"{len(cells)} cell{'' if len(cells) == 1 else 's'}"
                yield Problem(self._line, "", count, f"{self._width} cells, as the first line has")

    def _cell(self, column: str) -> str:
        """Return a cell of the present row, empty where there is no such column."""
        index = self._index.get(column)
        return self._cells[index].strip() if index is not None else ""

    def _integer(self, column: str, low: int, high: int, what: str, default: int | None = None) -> int:
        """Return a cell as an integer of low .. high."""
        cell = self._cell(column)
        if not cell and default is not None:
            return default
        if DIGITS.fullmatch(cell):
            number = int(cell)
            if low <= number <= high:
                return number
        raise Wrong(column, cell, f"{what}, an integer from {low} to {high}")

    def _word(self, column: str, words: dict[str, int], what: str, default: int | None = None) -> int:
        """Return what a cell's word means."""
        cell = self._cell(column)
        if not cell and default is not None:
            return default
        meaning = words.get(cell.lower().replace("_", "-"))
        if meaning is None:
            raise Wrong(column, cell, f"{what}: {', '.join(words)}")
        return meaning

    def _price(self, column: str, default: int | None = None) -> int:
        """Return a cell as a price in units of the last decimal that prices may have."""
        cell = self._cell(column)
        if not cell and default is not None:
            return default
        decimals = self.defaults.decimals
        match = DECIMAL.fullmatch(cell)
        if match:
            sign, whole, fraction = match[1], match[2], (match[3] or "").rstrip("0")
            if len(fraction) <= decimals:
                number = int(whole + fraction.ljust(decimals, "0"))
                if number <= PRICE_MAX:
                    return -number if sign == "-" else number
        shown = f"with at most {decimals} decimals" if decimals else "a whole number; decimals need --decimals"
        raise Wrong(column, cell, f"a price, {shown}, within {PRICE_MAX} units either side of 0")

    # --------------------------------------------------------------------------------------------------- the rows

    def _records(self, cells: list[str]) -> list[bytes]:
        """Return the record of a row, behind that of the instrument where the row is the first to use it."""
        self._cells = cells
        kind = self._word("command", COMMANDS, "a command", NEW_ORDER)
        time_ns = self._integer("time_ns", 0, TIME_MAX, "a time in nanoseconds since 1970", 0)
        shape = self._shape(kind)
        if reason := fault(*shape):
            column, expected = FAULTS.get(reason, ("", "a command that specs/limits.md allows"))
            raise Wrong(column, self._cell(column), expected)
        if time_ns:
            self.earlier += time_ns < self._latest
            self._latest = max(self._latest, time_ns)
        self.rows += 1
        records = [self._pack(time_ns, shape)]
        instrument = shape[4]
        if instrument and kind != SET_LIMIT and instrument not in self._known:  # a limit may come before
            self._known.add(instrument)
            if kind != DEFINE_INSTRUMENT and self.defaults.define:
                self.defined += 1
                records.insert(0, self._pack(time_ns, self._definition(instrument)))
        return records

    def _shape(self, kind: int) -> tuple[int, int, int, int, int, int, int, int, int]:
        """Return a row as the common shape of all commands (see `ferrox.messages`)."""
        if kind == MASS_CANCEL:
            return self._mass_cancel()
        if kind == SET_LIMIT:
            return self._limit()
        instrument = self._integer("instrument", 1, INSTRUMENT_MAX, "an instrument", 1)
        if kind == CANCEL_ORDER:
            return (kind, 0, 0, 0, instrument, self._order_id(kind), 0, 0, 0)
        if kind == SET_TRADING_STATE:
            return (kind, self._word("state", STATES, "a trading state"), 0, 0, instrument, 0, 0, 0, 0)
        if kind == DEFINE_INSTRUMENT:
            defaults = self.defaults
            return (
                kind,
                self._word("state", STATES, "a trading state", int(TradingState.OPEN)),
                0,
                0,
                instrument,
                self._price("band_low", defaults.band_low),
                self._price("band_high", defaults.band_high),
                self._integer("tick", 1, TICK_MAX, "a tick", defaults.tick),
                self._integer("lot", 1, LOT_MAX, "a lot", defaults.lot),
            )
        side = self._word("side", SIDES, "a side")
        order_id = self._order_id(kind)
        flags = self._flags()
        market = flags & MARKET
        price = self._price("price", 0 if market else None)
        quantity = self._integer("quantity", 1, QUANTITY_MAX, "a quantity in lots")
        time_in_force = self._word("time_in_force", TIMES_IN_FORCE, "a time in force", IOC if market else GTC)
        flags |= self._word("self_trade", SELF_TRADES, "a self-trade mode", 0) << SELF_TRADE_SHIFT
        return (kind, side, time_in_force, flags, instrument, order_id, price, quantity, 0)

    def _mass_cancel(self) -> tuple[int, int, int, int, int, int, int, int, int]:
        """Return a mass cancel of what the row names: an instrument, an account, both, or neither, which is all."""
        instrument = self._integer("instrument", 1, INSTRUMENT_MAX, "an instrument", 0)
        account = self._integer("account", 0, ACCOUNT_MAX, "an account", -1)
        if account < 0:
            scope = Scope.INSTRUMENT if instrument else Scope.VENUE
        else:
            scope = Scope.ACCOUNT_IN_INSTRUMENT if instrument else Scope.ACCOUNT
        return (MASS_CANCEL, scope, 0, 0, instrument, max(account, 0), 0, 0, 0)

    def _limit(self) -> tuple[int, int, int, int, int, int, int, int, int]:
        """Return a limit for what the row names: an instrument or an account, or neither, which is all."""
        limit = self._word("limit", LIMITS, "a limit")
        instrument = self._integer("instrument", 1, INSTRUMENT_MAX, "an instrument", 0)
        account = self._integer("account", 0, ACCOUNT_MAX, "an account", 0)
        value = self._integer("value", 0, NOTIONAL_MAX, "a value")
        return (SET_LIMIT, limit, 0, 0, instrument, account, value, 0, 0)

    def _order_id(self, kind: int) -> int:
        """Return the order id: a number, ACCOUNT/REFERENCE, or a reference beside an account.

        Without such a column, new orders are numbered by their rows.
        """
        if "order_id" not in self._index and kind == NEW_ORDER:
            account = self._integer("account", 0, ACCOUNT_MAX, "an account", 0)
            return account << ACCOUNT_SHIFT | self.rows + 1
        cell = self._cell("order_id").removeprefix("#")
        account_cell = self._cell("account")
        if account_cell:
            account = self._integer("account", 0, ACCOUNT_MAX, "an account")
            reference = int(cell) if DIGITS.fullmatch(cell) else -1
            if not 0 <= reference <= REFERENCE_MAX:
                expected = f"a reference beside an account, an integer from 0 to {REFERENCE_MAX}"
                raise Wrong("order_id", self._cell("order_id"), expected)
            order_id = account << ACCOUNT_SHIFT | reference
        elif "/" in cell:
            account_text, _, reference_text = cell.partition("/")
            order_id = 0
            if DIGITS.fullmatch(account_text) and DIGITS.fullmatch(reference_text):
                account, reference = int(account_text), int(reference_text)
                if 0 <= account <= ACCOUNT_MAX and 0 <= reference <= REFERENCE_MAX:
                    order_id = account << ACCOUNT_SHIFT | reference
        else:
            order_id = int(cell) if DIGITS.fullmatch(cell) else 0
        if not 1 <= order_id <= ORDER_ID_MAX:
            expected = f"an order id, an integer from 1 to {ORDER_ID_MAX}, or ACCOUNT/REFERENCE"
            raise Wrong("order_id", self._cell("order_id"), expected)
        return order_id

    def _flags(self) -> int:
        """Return the flags that a cell names, separated by blanks."""
        flags = 0
        for word in self._cell("flags").split():
            flag = FLAGS.get(word.lower().replace("_", "-"))
            if flag is None:
                raise Wrong("flags", word, f"words separated by blanks, of: {', '.join(FLAGS)}")
            flags |= flag
        return flags

    def _definition(self, instrument: int) -> tuple[int, int, int, int, int, int, int, int, int]:
        """Return the definition of an instrument by the defaults."""
        defaults, state = self.defaults, int(TradingState.OPEN)
        ends = defaults.band_low, defaults.band_high
        return (DEFINE_INSTRUMENT, state, 0, 0, instrument, *ends, defaults.tick, defaults.lot)

    def _pack(self, time_ns: int, shape: tuple[int, int, int, int, int, int, int, int, int]) -> bytes:
        """Return an unsealed record."""
        record = ENVELOPE.pack(0, 0, 0, time_ns, shape[0], SIZES[shape[0]], 0, 0) + COMMAND.pack(*shape)
        assert len(record) == ENVELOPE.size + COMMAND_SIZE
        return record
