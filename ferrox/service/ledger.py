"""The ledger: what the service knows beside the book, and can tell from the journal alone.

The last reference of each account, what operators have limited, the last price of each instrument, and how many reports
there were: a fold over records and the reports to them.  It is kept beside a snapshot (`SEQUENCE.ledger`), so that it
need not begin at the first record either (SNAP-11).
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np

from ferrox.decode import fault
from ferrox.errors import SnapshotCorrupt
from ferrox.files import open_directory, publish
from ferrox.lanes.ledger import References
from ferrox.messages import COMMAND, COMMAND_SIZE, RECORD_SIZE, REPORT_DTYPE, REPORT_SIZE
from ferrox.terms import CommandKind, ReportKind

FORMAT: Final = 1
SUFFIX: Final = ".ledger"
FILE_NAME: Final = re.compile(r"[0-9]{20}\.ledger")
KIND_AT: Final = 24
SIZE_AT: Final = 25
SET_LIMIT: Final = int(CommandKind.SET_LIMIT)
TRADE: Final = int(ReportKind.TRADE)


class Ledger:
    """References, limits and the number of reports, up to a sequence number."""

    def __init__(self) -> None:
        """Begin before the first record."""
        self.sequence = 0
        self.time_ns = 0
        """Of the last record."""
        self.reports = 0
        """How many reports were given to all records so far."""
        self.references = References()
        self.limits: dict[tuple[int, int, int], int] = {}
        """The values that were set, by limit, instrument and account."""
        self.prices: dict[int, int] = {}
        """Of the last trade of each instrument that has traded."""

    def follow(self, records: bytes, reports: memoryview) -> None:
        """Go over the next whole records, and the reports to them."""
        if not records:
            return
        self.references.follow(records)
        kinds = records[KIND_AT::RECORD_SIZE]
        index = kinds.find(SET_LIMIT)
        while index >= 0:
            start = index * RECORD_SIZE
            if records[start + SIZE_AT] == COMMAND_SIZE:
                self.learn(records[start + 32 : start + RECORD_SIZE])
            index = kinds.find(SET_LIMIT, index + 1)
        self.sequence += len(records) // RECORD_SIZE
        self.time_ns = int.from_bytes(records[-48:-40], "little")
        self.reports += len(reports) // REPORT_SIZE
        fields = np.frombuffer(reports, REPORT_DTYPE)
        trades = fields[fields["kind"] == TRADE]
        self.prices.update(zip(trades["instrument"].tolist(), trades["price"].tolist(), strict=True))

    def learn(self, frame: bytes) -> None:
        """Take down what a SetLimit sets, if it is in order."""
        fields = COMMAND.unpack(frame)
        kind, limit, _, _, instrument, account, value, _, _ = fields
        if kind == SET_LIMIT and not fault(*fields):
            self.limits[limit, instrument, account] = value

    def pack(self, uuid: bytes) -> bytes:
        """Return the file's bytes: a line of JSON, and a line with its SHA-256."""
        fields = {
            "format": FORMAT,
            "uuid": uuid.hex(),
            "sequence": self.sequence,
            "time_ns": self.time_ns,
            "reports": self.reports,
            "references": {str(account): last for account, last in self.references.known().items()},
            "prices": {str(instrument): price for instrument, price in sorted(self.prices.items())},
            "limits": [[*key, value] for key, value in sorted(self.limits.items())],
        }
        line = json.dumps(fields, separators=(",", ":")).encode() + b"\n"
        return line + sha256(line).hexdigest().encode() + b"\n"

    @classmethod
    def unpack(cls, data: bytes, path: str, uuid: bytes, sequence: int) -> "Ledger":
        """Return what a file holds; raise `SnapshotCorrupt` when a byte of it is out of order."""
        line, _, digest = data.partition(b"\n")
        if digest != sha256(line + b"\n").hexdigest().encode() + b"\n":
            raise SnapshotCorrupt(f"{path}: offset {len(line) + 1}: expected the SHA-256 of the line before")
        try:
            return cls._unpack(json.loads(line), path, uuid, sequence)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SnapshotCorrupt(f"{path}: expected the fields of a ledger: {error!r}") from None

    @classmethod
    def _unpack(cls, fields: dict[str, Any], path: str, uuid: bytes, sequence: int) -> "Ledger":
        """Return what the fields of a file say."""
        if (fields["format"], fields["uuid"], fields["sequence"]) != (FORMAT, uuid.hex(), sequence):
            raise SnapshotCorrupt(f"{path}: expected format {FORMAT}, this journal and sequence {sequence}")
        ledger = cls()
        ledger.sequence, ledger.time_ns, ledger.reports = sequence, fields["time_ns"], fields["reports"]
        for account, last in fields["references"].items():
            ledger.references.put(int(account), last)
        ledger.prices = {int(instrument): price for instrument, price in fields["prices"].items()}
        ledger.limits = {(limit, instrument, account): value for limit, instrument, account, value in fields["limits"]}
        return ledger

    def save(self, directory: str | os.PathLike[str], uuid: bytes) -> Path:
        """Write the ledger beside the snapshot of its sequence number, durable when this returns."""
        name = f"{self.sequence:020d}{SUFFIX}"
        descriptor = open_directory(directory)
        try:
            os.close(publish(descriptor, name, [self.pack(uuid)]))
        finally:
            os.close(descriptor)
        return Path(directory) / name


def load_ledger(directory: str | os.PathLike[str], uuid: bytes, sequence: int) -> Ledger:
    """Return the ledger beside a snapshot; raise `SnapshotCorrupt` when it is missing or out of order."""
    path = Path(directory) / f"{sequence:020d}{SUFFIX}"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SnapshotCorrupt(f"{path}: {error.strerror}: there is no ledger beside this snapshot") from None
    return Ledger.unpack(data, str(path), uuid, sequence)


def ledgers(directory: str | os.PathLike[str], uuid: bytes) -> Iterator[Ledger]:
    """Go through the sound ledgers beside snapshots of a journal, the newest first."""
    for path in sorted(Path(directory).glob(f"*{SUFFIX}"), reverse=True):
        if FILE_NAME.fullmatch(path.name) and path.with_suffix(".snapshot").exists():
            with suppress(SnapshotCorrupt):
                yield load_ledger(directory, uuid, int(path.stem))


def newest_ledger(directory: str | os.PathLike[str], uuid: bytes, until: int | None = None) -> int:
    """Return the highest sequence number, at most `until`, that has a sound ledger; 0 when none has."""
    found = (ledger.sequence for ledger in ledgers(directory, uuid))
    return next((sequence for sequence in found if until is None or sequence <= until), 0)
