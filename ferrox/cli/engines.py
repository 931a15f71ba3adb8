"""Which engines there are, and one engine on its way through a journal."""

import hashlib
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import Final

import click
import numpy as np

import ferrox
from ferrox.engine import ENGINES, Capacity, Engine, make_engine
from ferrox.fast import COMPILED
from ferrox.journal.tally import Tally, parts
from ferrox.messages import RECORD_SIZE, REPORT_SIZE
from ferrox.state import digest
from ferrox.terms import Annotation, ReportKind

KIND_OF_RECORD: Final = 24  # the byte of a record that says its kind
KIND_OF_REPORT: Final = 44
FIRST_ANNOTATION: Final = int(min(Annotation))

Sink = Callable[[memoryview], object]

engine_option = click.option(
    "--engine",
    type=click.Choice(ENGINES),
    help="Which engine.  [default: fast where it is compiled, otherwise reference]",
)


def fast_build() -> str:
    """Return how the fast engine is built: "compiled" or "interpreted"."""
    return "compiled" if COMPILED else "interpreted"


def quickest() -> str:
    """Return the engine to take where none was asked for."""
    return "fast" if fast_build() == "compiled" else "reference"


def other_than(name: str) -> str:
    """Return the engine to hold against this one."""
    return next(other for other in ENGINES if other != name)


def open_engine(name: str, capacity: Capacity) -> Engine:
    """Return a fresh engine; raise `UsageError` for a name that is none's."""
    return make_engine(name, capacity)


def describe_build() -> dict[str, str]:
    """Return what is running."""
    return {
        "version": ferrox.__version__,
        "fast_engine": "COMPILED" if COMPILED else "interpreted (right, and about 100 times slower than compiled)",
        "python": platform.python_version(),
        "librt": installed("librt"),
    }


def installed(package: str) -> str:
    """Return the version of a package, or "absent"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def count_commands(records: bytes) -> int:
    """Return how many of these records are commands, and not the journal's own (JRN-9)."""
    return int(np.count_nonzero(np.frombuffer(records, np.uint8)[KIND_OF_RECORD::RECORD_SIZE] < FIRST_ANNOTATION))


class Run:
    """One engine on its way through a journal: what it was given, and what it has said."""

    def __init__(self, name: str, capacity: Capacity, sink: Sink | None = None) -> None:
        """Begin with a fresh engine; `sink` gets the reports of each step, valid only during the call."""
        self.name = name
        self.capacity = capacity
        self.engine = open_engine(name, capacity)
        self.commands = 0
        self.origin = 0
        """The sequence number of the snapshot that it began with, 0 where it began with nothing."""
        self.seconds = 0.0
        """In the engine alone."""
        self._kinds = np.zeros(256, np.int64)
        self._sha256 = hashlib.sha256()
        self._sink = sink
        self.tally = Tally(1)

    def restore(self, state: bytes, sequence: int) -> None:
        """Begin with the state of a snapshot of this sequence number, for a journal that begins later (JRN-20)."""
        self.engine.restore(state)
        self.origin = sequence
        self.tally.restart(sequence + 1)

    def take_over(self, engine: Engine, tally: Tally) -> None:
        """Go on with an engine that was recovered with its journal, and with what it has said since a statement."""
        self.engine, self.tally = engine, tally

    def feed(self, records: bytes) -> None:
        """Apply whole records, all of them, from the journal's first on.

        Raise `NotDeterministic` when a MARK states that something else was said to them (JRN-21).
        """
        for part in parts(records):
            self.commands += count_commands(part)
            left = part
            while left:
                start = perf_counter()
                taken, reports = self.engine.apply(left)
                self.seconds += perf_counter() - start
                self._note(reports)
                left = left[taken * RECORD_SIZE :]
            self.tally.compare(part)

    @property
    def statements(self) -> int:
        """How many statements of the journal were held against what the engine said, and found right."""
        return self.tally.checked

    def _note(self, reports: memoryview) -> None:
        """Take down what the engine said."""
        self.tally.note(reports)
        self._sha256.update(reports)
        self._kinds += np.bincount(np.frombuffer(reports, np.uint8)[KIND_OF_REPORT::REPORT_SIZE], minlength=256)
        if self._sink is not None:
            self._sink(reports)

    @property
    def reports(self) -> int:
        """How many reports it gave."""
        return int(self._kinds.sum())

    @property
    def trades(self) -> int:
        """How many of them are trades."""
        return int(self._kinds[ReportKind.TRADE])

    @property
    def kinds(self) -> dict[str, int]:
        """How many reports of each kind, by its word."""
        return {kind.name.lower().replace("_", "-"): int(self._kinds[kind]) for kind in ReportKind if self._kinds[kind]}

    @property
    def reports_digest(self) -> str:
        """The SHA-256 of all reports so far (DET-7)."""
        return self._sha256.hexdigest()

    def state_digest(self) -> str:
        """Return the SHA-256 of the state as it is now (DET-7)."""
        return digest(self.engine.snapshot())
