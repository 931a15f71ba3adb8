"""Whole columns: reports as arrays, frames and files, and commands from arrays.

`Reports` holds report bytes and shows them in the form that is asked for: typed values one by one, a read-only numpy
view without a copy, Arrow for polars, pandas, pyarrow and duckdb, a table in a notebook, a file.  Nothing is decoded
before it is looked at.

In Arrow, Parquet and CSV the numbers of kind, side and reason are told by their words, those of specs/text.md, because
a person groups by them; everything else stands as in the report.  An absent reason or side is null.  Where a report is
not about an order, the word at the place of the side is the scope, the trading state or the limit, as REPORT-3 has it.

pyarrow is needed for Arrow and Parquet only, and is imported when it is.  CSV is written from columns turned into
lists: 1.5 M to 1.8 M rows/s, against 1.1 M to 1.4 M for a format string over `iter_unpack` (one core, CPython 3.11).
"""

import contextlib
import hashlib
import importlib
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from html import escape
from pathlib import Path
from stat import S_ISREG
from types import TracebackType
from typing import IO, Any, Final, Self, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ferrox.errors import UsageError
from ferrox.messages import (
    COMMAND_DTYPE,
    REPORT,
    REPORT_DTYPE,
    REPORT_SIZE,
    Report,
)
from ferrox.terms import (
    ACCOUNT_MAX,
    ACCOUNT_SHIFT,
    SELF_TRADE_SHIFT,
    CommandKind,
    Limit,
    OrderFlag,
    Reason,
    ReportKind,
    Scope,
    SelfTrade,
    Side,
    TimeInForce,
    TradingState,
)
from ferrox.text import format_report

COLUMNS: Final = tuple(REPORT_DTYPE.names or ())
BATCH_ROWS: Final = 1 << 20  # of an Arrow stream: few batches to join, and no more than 100 MB at a time
CSV_ROWS: Final = 8192  # turned into lists at a time: they stay in the cache
GROUP_ROWS: Final = 1 << 17  # of a Parquet row group
SUFFIXES: Final = (".bin", ".csv", ".parquet")

Terms = str | int | Iterable[str | int]
"""One or several terms of an enumeration, each as its member, its number or its name."""


class MissingPackage(UsageError, ImportError):
    """An optional package is not installed; the text names the extra that brings it."""


# -------------------------------------------------------------------------------------------------- the words


def word(term: IntEnum) -> str:
    """Return the word of specs/text.md for a term: `Reason.SELF_TRADE` is "self-trade"."""
    return term.name.lower().replace("_", "-")


def term_of(terms: type[IntEnum], value: object, what: str) -> int:
    """Return the number of a term given as member, number or name in any case; a number need not be one of the terms.

    Raise ValueError for an unknown name, TypeError for what is neither a name nor an integer.
    """
    if isinstance(value, str):
        name = value.strip().upper().replace("-", "_").replace(" ", "_")
        if name in terms.__members__:
            return int(terms[name])
        raise ValueError(f"{what} {value!r} is none of: {', '.join(map(word, terms))}")
    try:
        return operator.index(value)  # type: ignore[arg-type]  # what has no index raises, and is told
    except TypeError:
        raise TypeError(f"{what} {value!r} is neither a name nor an integer") from None


def _words(terms: Sequence[IntEnum], *skipped: int) -> tuple[list[str], NDArray[np.int8]]:
    """Return the words of an enumeration, and the index of each number's word; -1 where it has none."""
    shown = [term for term in terms if term not in skipped]
    indices = np.full(256, -1, np.int8)
    indices[[int(term) for term in shown]] = range(len(shown))
    return [word(term) for term in shown], indices


KIND_WORDS, _KIND_INDEX = _words(list(ReportKind))
REASON_WORDS, _REASON_INDEX = _words(list(Reason), Reason.NONE)
SIDE_WORDS: Final = [word(term) for terms in (Side, Scope, TradingState, Limit) for term in terms]
_SIDE_INDEX: Final = np.full((256, 256), -1, np.int8)  # by kind and number, as the place means different things
_SIDE_INDEX[:, list(Side)] = range(len(Side))
_INSTEAD_OF_SIDE: Final[dict[ReportKind, type[IntEnum]]] = {
    ReportKind.MASS_CANCELED: Scope,
    ReportKind.INSTRUMENT_DEFINED: TradingState,
    ReportKind.STATE_CHANGED: TradingState,
    ReportKind.LIMIT_SET: Limit,
}
for _kind, _terms_there in _INSTEAD_OF_SIDE.items():
    _first = SIDE_WORDS.index(word(next(iter(_terms_there))))
    _SIDE_INDEX[_kind] = -1
    _SIDE_INDEX[_kind, list(_terms_there)] = range(_first, _first + len(_terms_there))
_WITHOUT_SIDE: Final = list(map(int, _INSTEAD_OF_SIDE))
_WITHOUT_CONTRA: Final = (int(ReportKind.INSTRUMENT_DEFINED), int(ReportKind.LIMIT_SET))


# -------------------------------------------------------------------------------------------------- the reports


class Reports:
    """Reports in bytes, of which every form is a view: `reports[0]`, `reports.price`, `pl.DataFrame(reports)`.

    A slice shares the bytes.  Prices are in ticks, quantities in lots; REPORT-3 says what a field means for each kind.
    """

    __slots__ = ("_array", "_frames")

    def __init__(self, frames: "bytes | bytearray | memoryview | NDArray[np.void]" = b"") -> None:
        """Take whole 48-byte frames, or an array of `REPORT_DTYPE`; raise ValueError for any other length or dtype.

        Bytes are shared; whatever else could still be changed by someone is copied.
        """
        if isinstance(frames, np.ndarray):
            if frames.dtype != REPORT_DTYPE:
                raise ValueError(f"an array of reports has the dtype ferrox.REPORT_DTYPE, this one has {frames.dtype}")
            frames = frames.tobytes()
        elif not (isinstance(frames, bytes) or (isinstance(frames, memoryview) and isinstance(frames.obj, bytes))):
            frames = bytes(frames)
        self._frames = memoryview(frames).cast("B")
        if len(self._frames) % REPORT_SIZE:
            raise ValueError(f"reports come in whole frames of {REPORT_SIZE} bytes, these are {len(self._frames)}")
        self._array: NDArray[np.void] | None = None

    # ------------------------------------------------------------------------------------------- as a sequence

    def __len__(self) -> int:
        return len(self._frames) // REPORT_SIZE

    def __iter__(self) -> Iterator[Report]:
        return map(Report._make, REPORT.iter_unpack(self._frames))

    @overload
    def __getitem__(self, index: int) -> Report: ...
    @overload
    def __getitem__(self, index: "slice | NDArray[Any] | Sequence[int] | Sequence[bool]") -> "Reports": ...
    def __getitem__(self, index: "int | slice | NDArray[Any] | Sequence[int] | Sequence[bool]") -> "Report | Reports":
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return Reports(self._frames[start * REPORT_SIZE : max(start, stop) * REPORT_SIZE])
            return Reports(self.array[index])
        if isinstance(index, (np.ndarray, list, tuple)):
            return Reports(self.array[np.asarray(index, dtype=np.intp if len(index) == 0 else None)])
        number = operator.index(index)  # type: ignore[arg-type]  # arrays and sequences are gone
        count = len(self)
        if not -count <= number < count:
            raise IndexError(f"report {number} of {count}")
        return Report._make(REPORT.unpack_from(self._frames, number % count * REPORT_SIZE))

    def __eq__(self, other: object) -> bool:
        return self._frames == other._frames if isinstance(other, Reports) else NotImplemented

    def __hash__(self) -> int:
        return hash(bytes(self._frames))

    @property
    def frames(self) -> memoryview:
        """Return the reports as 48-byte frames, without a copy."""
        return self._frames

    def __bytes__(self) -> bytes:
        return bytes(self._frames)

    # ------------------------------------------------------------------------------------------------ as arrays

    @property
    def array(self) -> "NDArray[np.void]":
        """Return the reports as a read-only structured array of `REPORT_DTYPE`, without a copy."""
        if self._array is None:
            self._array = np.frombuffer(self._frames, REPORT_DTYPE)
            self._array.flags.writeable = False
        return self._array

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> "NDArray[Any]":
        array = self.array
        if dtype is not None and np.dtype(dtype) != array.dtype:
            if copy is False:
                raise ValueError(f"reports cannot be seen as {np.dtype(dtype)} without a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    @property
    def sequence(self) -> "NDArray[np.int64]":
        """Return the sequence number of each report's command."""
        return self.array["sequence"]

    @property
    def order_id(self) -> "NDArray[np.int64]":
        """Return the order that each report is about; of a trade, the taker."""
        return self.array["order_id"]

    @property
    def contra_id(self) -> "NDArray[np.int64]":
        """Return the other order: a trade's maker, or the other one of a self-trade."""
        return self.array["contra_id"]

    @property
    def price(self) -> "NDArray[np.int64]":
        """Return the prices in ticks; of a trade, the maker's."""
        return self.array["price"]

    @property
    def quantity(self) -> "NDArray[np.uint32]":
        """Return the quantities in lots; unsigned, so convert before subtracting."""
        return self.array["quantity"]

    @property
    def leaves(self) -> "NDArray[np.uint32]":
        """Return what each order still works, in lots."""
        return self.array["leaves"]

    @property
    def instrument(self) -> "NDArray[np.uint32]":
        """Return the instruments."""
        return self.array["instrument"]

    @property
    def kind(self) -> "NDArray[np.uint8]":
        """Return the kinds, numbers of `ReportKind`."""
        return self.array["kind"]

    @property
    def side(self) -> "NDArray[np.uint8]":
        """Return the sides, numbers of `Side`; of a trade, the taker's."""
        return self.array["side"]

    @property
    def reason(self) -> "NDArray[np.uint8]":
        """Return the reasons, numbers of `Reason`; 0 for none."""
        return self.array["reason"]

    @property
    def flags(self) -> "NDArray[np.uint8]":
        """Return the flags, bits of `ReportFlag`."""
        return self.array["flags"]

    @property
    def account(self) -> "NDArray[np.int64]":
        """Return the account that each order id belongs to (LIM-4)."""
        return self.array["order_id"] >> ACCOUNT_SHIFT

    # -------------------------------------------------------------------------------------------------- to choose

    @property
    def trades(self) -> "Reports":
        """Return the trades alone."""
        return self.where(kind=ReportKind.TRADE)

    @property
    def rejects(self) -> "Reports":
        """Return the rejections of every kind alone."""
        return self.where(kind=(ReportKind.REJECTED, ReportKind.CANCEL_REJECTED, ReportKind.REPLACE_REJECTED))

    def where(
        self,
        mask: "ArrayLike | None" = None,
        *,
        kind: Terms | None = None,
        side: Terms | None = None,
        reason: Terms | None = None,
        instrument: int | Iterable[int] | None = None,
        order_id: int | Iterable[int] | None = None,
        account: int | Iterable[int] | None = None,
    ) -> "Reports":
        """Return the reports for which all of this holds, copied; each takes one value or several.

        `mask` is an array of booleans, one a report.  `order_id` and `account` find an order as taker and as maker.
        """
        array = self.array
        chosen = np.ones(len(self), bool)
        if mask is not None:
            given = np.asarray(mask)
            if given.dtype != bool or given.shape != chosen.shape:
                raise ValueError(
                    f"a mask is {len(self)} booleans, one a report; this one has {given.shape} of {given.dtype}"
                )
            chosen &= given
        for name, terms, value in (("kind", ReportKind, kind), ("side", Side, side), ("reason", Reason, reason)):
            if value is not None:
                several = [value] if isinstance(value, (str, int, np.integer)) else list(value)
                chosen &= np.isin(array[name], [term_of(terms, one, name) for one in several])
        if side is not None:  # in these, the byte of the side is a scope, a trading state or a limit
            chosen &= ~np.isin(array["kind"], _WITHOUT_SIDE)
        if instrument is not None:
            chosen &= np.isin(array["instrument"], _integers(instrument))
        if order_id is not None:
            numbers = _integers(order_id)
            chosen &= np.isin(array["order_id"], numbers) | np.isin(self._contra(), numbers)
        if account is not None:
            numbers = _integers(account)
            contra = self._contra()
            of_maker = np.isin(contra >> ACCOUNT_SHIFT, numbers) & (contra > 0)
            chosen &= np.isin(self.account, numbers) & (array["order_id"] > 0) | of_maker
        return Reports(array[chosen])

    def _contra(self) -> "NDArray[np.int64]":
        """Return the contra ids; of a definition, whose band stands there, and of a limit, whose value does, 0."""
        array = self.array
        return np.where(np.isin(array["kind"], _WITHOUT_CONTRA), 0, array["contra_id"])

    # --------------------------------------------------------------------------------------------- as Arrow, files

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export the reports to any reader of the Arrow stream interface: polars, pandas, pyarrow, duckdb."""
        pa = _pyarrow("The Arrow stream of reports")
        starts = range(0, len(self), BATCH_ROWS)
        batches = (_record_batch(pa, self.array[start : start + BATCH_ROWS]) for start in starts)
        reader = pa.RecordBatchReader.from_batches(_schema(pa), batches)
        return reader.__arrow_c_stream__(requested_schema)

    def to_arrow(self) -> Any:
        """Return a `pyarrow.Table` with kind, side and reason as dictionary-encoded words."""
        pa = _pyarrow("A table of reports")
        return pa.Table.from_batches([_record_batch(pa, self.array)], _schema(pa))

    def write(self, path: "str | os.PathLike[str]") -> None:
        """Write the reports to a file, in place of one that exists: `.bin` the frames, `.csv`, `.parquet` a table."""
        with ReportWriter(path) as writer:
            writer.write(self._frames)

    def digest(self) -> str:
        """Return the reports digest: the SHA-256 of all frames joined, in hexadecimal (DET-7)."""
        return hashlib.sha256(self._frames).hexdigest()

    # -------------------------------------------------------------------------------------------------- to be shown

    def counts(self) -> dict[str, int]:
        """Return how many reports there are of each kind, by its word."""
        numbers, counts = np.unique(self.kind, return_counts=True)
        names = {int(kind): word(kind) for kind in ReportKind}
        return {
            names.get(int(number), f"kind-{number}"): int(count) for number, count in zip(numbers, counts, strict=True)
        }

    def __repr__(self) -> str:
        """Count the kinds, and show few reports as lines of specs/text.md."""
        if not len(self):
            return "<Reports: none>"
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.counts().items())
        head = f"<Reports {len(self):,} of sequence {self[0].sequence:,} to {self[-1].sequence:,}: {kinds}>"
        shown = [f"  {report.sequence:>6,}  {format_report(report)}" for report in self[:10]]
        if len(self) > 10:
            shown.append(f"          ... {len(self) - 10:,} more")
        return "\n".join([head, *shown])

    def _repr_html_(self) -> str:
        """Show the first rows and the last as a table, for a notebook."""
        left_out = max(0, len(self) - 15)
        shown = [*self[:10], *self[10 + left_out :]] if left_out else list(self)
        rows = [
            "".join(f'<td style="text-align:right">{escape(cell)}</td>' for cell in _cells(report)) for report in shown
        ]
        if left_out:
            rows.insert(10, f'<td colspan="{len(COLUMNS)}" style="text-align:center">{left_out:,} more</td>')
        head = "".join(f"<th>{name}</th>" for name in COLUMNS)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        caption = f"{len(self):,} report{'' if len(self) == 1 else 's'}"
        return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _integers(values: int | Iterable[int]) -> list[int]:
    return (
        [operator.index(values)] if isinstance(values, (int, np.integer)) else [operator.index(one) for one in values]
    )


def _cells(report: Report) -> list[str]:
    """Return a report as the cells of a row, in the words of the tables."""
    *numbers, kind, side, reason, flags = report
    kind_index, side_index, reason_index = _KIND_INDEX[kind], _SIDE_INDEX[kind, side], _REASON_INDEX[reason]
    return [
        *map(str, numbers),
        KIND_WORDS[kind_index] if kind_index >= 0 else str(kind),
        SIDE_WORDS[side_index] if side_index >= 0 else "",
        REASON_WORDS[reason_index] if reason_index >= 0 else "",
        str(flags),
    ]


def join(parts: "Iterable[Reports | bytes]") -> Reports:
    """Return several runs of reports as one."""
    return Reports(b"".join(bytes(part) for part in parts))


# -------------------------------------------------------------------------------------------------------- Arrow


def _pyarrow(what: str, module: str = "pyarrow") -> Any:
    """Return a module of pyarrow, or raise `MissingPackage` that names the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackage(f"{what} needs pyarrow; install it with: pip install 'ferrox[arrow]'") from error


def _schema(pa: Any) -> Any:
    """Return the Arrow schema of reports: the fields of a report, words where a person groups by them."""
    words = pa.dictionary(pa.int8(), pa.string())
    types = {"kind": words, "side": words, "reason": words}
    return pa.schema([pa.field(name, types.get(name) or pa.from_numpy_dtype(REPORT_DTYPE[name])) for name in COLUMNS])


def _record_batch(pa: Any, array: "NDArray[np.void]") -> Any:
    """Return rows of `REPORT_DTYPE` as Arrow columns; each number is copied once, because columns lie apart."""
    indices = {
        "kind": (_KIND_INDEX[array["kind"]], KIND_WORDS),
        "side": (_SIDE_INDEX[array["kind"], array["side"]], SIDE_WORDS),
        "reason": (_REASON_INDEX[array["reason"]], REASON_WORDS),
    }
    columns: list[Any] = []
    for name in COLUMNS:
        if name in indices:
            index, words = indices[name]
            columns.append(pa.DictionaryArray.from_arrays(pa.array(index, mask=index < 0), pa.array(words)))
        else:
            columns.append(pa.array(np.ascontiguousarray(array[name])))
    return pa.RecordBatch.from_arrays(columns, schema=_schema(pa))


# -------------------------------------------------------------------------------------------------------- files


class ReportWriter:
    """A file of reports written in constant memory: `with ReportWriter("reports.csv") as file: file.write(frames)`.

    The suffix chooses the form: `.bin` holds the frames as they are, `.csv` and `.parquet` the table of `Reports`.  The
    file takes its name when the writer closes; when the block ends by an exception, no file is left.
    """

    def __init__(self, path: "str | os.PathLike[str]") -> None:
        """Open the file; raise `UsageError` for another suffix, `MissingPackage` when Parquet needs pyarrow."""
        self.path = Path(path)
        self.count = 0
        """Reports written so far."""
        suffix = self.path.suffix.lower()
        if suffix not in SUFFIXES:
            raise UsageError(f"{self.path}: the suffix of a file of reports is one of: {', '.join(SUFFIXES)}")
        self._sha = hashlib.sha256()
        self._buffer = bytearray()
        self._pa: Any = None
        self._parquet: Any = None
        pq = _pyarrow("A Parquet file", "pyarrow.parquet") if suffix == ".parquet" else None
        # A special file (a pipe, a device) cannot be renamed to, so it is written in place.
        special = self.path.exists() and not S_ISREG(self.path.stat().st_mode)
        self._partial = self.path if special else self.path.with_name(f"{self.path.name}.partial")
        self._file: IO[bytes] | None = self._partial.open("wb")
        if pq is not None:
            self._pa = _pyarrow("A Parquet file")
            self._parquet = pq.ParquetWriter(self._file, _schema(self._pa), compression="zstd")
        elif suffix == ".csv":
            self._file.write(",".join(COLUMNS).encode() + b"\n")
        self._flush_at = REPORT_SIZE * {".bin": 1, ".csv": CSV_ROWS, ".parquet": GROUP_ROWS}[suffix]
        self._emit: Callable[[bytes | memoryview], None] = {
            ".bin": self._emit_frames,
            ".csv": self._emit_csv,
            ".parquet": self._emit_parquet,
        }[suffix]

    def write(self, frames: "bytes | bytearray | memoryview | Reports") -> None:
        """Write whole 48-byte frames; raise ValueError for another length, or when the writer is closed."""
        if self._file is None:
            raise ValueError(f"{self.path}: this writer is closed")
        given = frames.frames if isinstance(frames, Reports) else memoryview(frames).cast("B")
        if len(given) % REPORT_SIZE:
            raise ValueError(f"reports come in whole frames of {REPORT_SIZE} bytes, these are {len(given)}")
        self.count += len(given) // REPORT_SIZE
        self._sha.update(given)
        # Small writes gather to what the form writes well; a large one goes through in pieces, so memory is constant.
        if self._buffer:
            room = self._flush_at - len(self._buffer)
            self._buffer += given[:room]
            given = given[room:]
            if len(self._buffer) >= self._flush_at:
                self._flush()
        while len(given) >= self._flush_at:
            piece = max(self._flush_at, REPORT_SIZE * GROUP_ROWS)
            whole = given[: min(piece, len(given) // self._flush_at * self._flush_at)]
            self._emit(whole)
            given = given[len(whole) :]
        self._buffer += given

    def digest(self) -> str:
        """Return the digest of all reports written so far (DET-7)."""
        return self._sha.hexdigest()

    def close(self) -> None:
        """Write what is left, and give the file its name; closing twice is harmless."""
        if self._file is None:
            return
        if self._buffer:
            self._flush()
        if self._parquet is not None:
            self._parquet.close()
        self._file.close()
        self._file = None
        if self._partial != self.path:
            self._partial.replace(self.path)

    def discard(self) -> None:
        """Close without a file."""
        if self._file is None:
            return
        self._file.close()
        self._file = None
        if self._partial != self.path:
            with contextlib.suppress(FileNotFoundError):
                self._partial.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def __repr__(self) -> str:
        return f"<ReportWriter {self.path}: {self.count:,} reports>"

    def _flush(self) -> None:
        self._emit(bytes(self._buffer))
        self._buffer.clear()

    def _out(self) -> IO[bytes]:
        assert self._file is not None
        return self._file

    def _emit_frames(self, frames: bytes | memoryview) -> None:
        self._out().write(frames)

    def _emit_parquet(self, frames: bytes | memoryview) -> None:
        self._parquet.write_batch(_record_batch(self._pa, np.frombuffer(frames, REPORT_DTYPE)))

    def _emit_csv(self, frames: bytes | memoryview) -> None:
        array = np.frombuffer(frames, REPORT_DTYPE)
        for start in range(0, len(array), CSV_ROWS):
            self._out().write(_csv(array[start : start + CSV_ROWS]))


_CSV_LINE: Final = f"{','.join(['%d'] * 7)},%s,%s,%s,%d\n"


def _csv(array: "NDArray[np.void]") -> bytes:
    """Return rows as lines of CSV; an absent word is an empty cell, and no word needs quotes."""
    # An index of -1 takes the last word, so the empty one stands last.
    kinds, sides, reasons = [*KIND_WORDS, ""], [*SIDE_WORDS, ""], [*REASON_WORDS, ""]
    columns: list[list[Any]] = [array[name].tolist() for name in COLUMNS[:7]]
    columns.append([kinds[index] for index in _KIND_INDEX[array["kind"]].tolist()])
    columns.append([sides[index] for index in _SIDE_INDEX[array["kind"], array["side"]].tolist()])
    columns.append([reasons[index] for index in _REASON_INDEX[array["reason"]].tolist()])
    columns.append(array["flags"].tolist())
    return "".join([_CSV_LINE % row for row in zip(*columns, strict=True)]).encode()


# ----------------------------------------------------------------------------------------------------- commands


def new_orders(
    side: ArrayLike,
    quantity: ArrayLike,
    price: ArrayLike | None = None,
    *,
    order_id: ArrayLike | None = None,
    instrument: ArrayLike = 1,
    time_in_force: "str | int | ArrayLike | None" = None,
    post_only: ArrayLike = False,
    slide: ArrayLike = False,
    self_trade: "str | int | ArrayLike" = SelfTrade.ALLOW,
    account: ArrayLike = 0,
) -> "NDArray[np.void]":
    """Return new orders as an array of `COMMAND_DTYPE` for `Venue.apply`, from columns or single values.

    All that is given is broadcast to one length.  Sides, times in force and self-trade modes are names, numbers or
    arrays of them; without a price the orders are market orders; without order ids they take the account's references
    1, 2, 3, ...  Raise TypeError for numbers that are not integers, and ValueError for those that fit no field.
    """
    market = price is None
    default = TimeInForce.IOC if market else TimeInForce.GTC
    columns: dict[str, NDArray[Any]] = {
        "side": _terms(Side, side, "side"),
        "time_in_force": _terms(TimeInForce, default if time_in_force is None else time_in_force, "time in force"),
        "instrument": _column(instrument, "instrument"),
        "price": _column(0 if price is None else price, "price"),
        "quantity": _column(quantity, "quantity"),
        "flags": (OrderFlag.MARKET if market else 0)
        | np.where(np.asarray(post_only, bool), int(OrderFlag.POST_ONLY), 0)
        | np.where(np.asarray(slide, bool), int(OrderFlag.SLIDE), 0)
        | (_within(_terms(SelfTrade, self_trade, "self-trade mode"), "self-trade mode", 7) << SELF_TRADE_SHIFT),
    }
    accounts = _within(_column(account, "account"), "account", ACCOUNT_MAX).astype(np.int64)
    columns["order_id"] = accounts << ACCOUNT_SHIFT if order_id is None else _column(order_id, "order id")
    (length,) = np.broadcast_shapes((1,), *(column.shape for column in columns.values()))
    if order_id is None:
        columns["order_id"] = columns["order_id"] + np.arange(1, length + 1, dtype=np.int64)
    return _commands(CommandKind.NEW_ORDER, length, columns)


def cancel_orders(order_id: ArrayLike, instrument: ArrayLike = 1) -> "NDArray[np.void]":
    """Return cancels as an array of `COMMAND_DTYPE`, so that they join with `new_orders` by `np.concatenate`."""
    columns = {"order_id": _column(order_id, "order id"), "instrument": _column(instrument, "instrument")}
    (length,) = np.broadcast_shapes((1,), *(column.shape for column in columns.values()))
    return _commands(CommandKind.CANCEL_ORDER, length, columns)


def _commands(kind: int, length: int, columns: "dict[str, NDArray[Any]]") -> "NDArray[np.void]":
    """Return commands in the common shape; a field that is not given is 0."""
    commands = np.zeros(length, COMMAND_DTYPE)
    commands["kind"] = kind
    for name, column in columns.items():
        assign(commands, name, column)
    return commands


def assign(target: "NDArray[np.void]", name: str, column: "NDArray[Any]") -> None:
    """Set a field of a structured array; raise ValueError when a number does not fit, where numpy would cut it."""
    bounds = np.iinfo(target.dtype[name])
    if column.size and not (bounds.min <= column.min() and column.max() <= bounds.max):
        worst = column.min() if column.min() < bounds.min else column.max()
        raise ValueError(f"{name} {worst} does not fit its field, {bounds.min} .. {bounds.max}")
    target[name] = column


def _within(column: "NDArray[Any]", what: str, most: int) -> "NDArray[Any]":
    """Return the column, or raise ValueError when a number is not within 0 .. `most`."""
    if column.size and not (column.min() >= 0 and column.max() <= most):
        worst = column.min() if column.min() < 0 else column.max()
        raise ValueError(f"{what} {worst} is outside 0 .. {most}")
    return column


def _column(values: ArrayLike, what: str) -> "NDArray[Any]":
    """Return values as integers of whatever width, in one dimension or none."""
    column = np.asarray(values)
    if column.ndim > 1:
        raise ValueError(f"{what} has one dimension, this has {column.ndim}")
    if column.dtype.kind in "fO" and column.size:  # which is how numpy takes integers beyond 64 bits, too
        several = np.asarray(values, object)
        if all(isinstance(value, (int, np.integer)) for value in several.flat):
            try:
                column = several.astype(np.int64)
            except OverflowError:
                raise ValueError(f"{what} {max(several.flat, key=abs)} does not fit 64 bits") from None
    if column.dtype.kind not in "iu" and column.size:
        raise TypeError(f"{what} is integers, this is {column.dtype}; prices are counted in ticks, quantities in lots")
    return column if column.size else column.astype(np.int64)


def _terms(terms: type[IntEnum], values: "str | int | ArrayLike", what: str) -> "NDArray[np.int64]":
    """Return the numbers of one or many terms, given as names or numbers."""
    if isinstance(values, (str, int, np.integer)):
        return np.asarray(term_of(terms, values, what), dtype=np.int64)
    column = np.asarray(values)
    if column.ndim == 0:
        return np.asarray(term_of(terms, column.item(), what), dtype=np.int64)
    if column.ndim == 1 and column.dtype.kind in "UOT":
        words = column.tolist()
        numbers = {value: term_of(terms, value, what) for value in set(words)}
        return np.array([numbers[value] for value in words], dtype=np.int64)
    return _column(column, what).astype(np.int64)
