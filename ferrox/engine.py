"""The seam: what every engine is, and how one is chosen by name.

An engine is a deterministic fold, crossed once a batch.  Neither engine imports the other; only this module knows both,
and it imports the chosen one when it is asked for.
"""

from typing import Final, Protocol

from attrs import field, frozen
from attrs.validators import and_, ge, instance_of, le

from ferrox.errors import UsageError
from ferrox.terms import (
    INSTRUMENT_CAPACITY,
    INSTRUMENT_CAPACITY_MAX,
    ORDER_CAPACITY,
    ORDER_CAPACITY_MAX,
)


class Engine(Protocol):
    """A deterministic fold: journal records in, report frames out."""

    def apply(self, records: bytes) -> tuple[int, memoryview]:
        """Apply whole 64-byte records; return how many were taken and their reports, valid until the next call.

        Fewer records than given are taken when the next one's reports might not fit the report buffer, or when the
        next one does not follow (DET-3); of a batch that is not empty, at least one is taken.  Raise `SequenceError`
        when already the first does not follow, ValueError when the length is not a multiple of 64; either way nothing
        is changed.
        """

    def snapshot(self) -> bytes:
        """Return the whole state in the canonical layout of specs/snapshot.md: equal states are equal bytes."""

    def restore(self, snapshot: bytes) -> None:
        """Replace the whole state with a snapshot taken by any engine of the same capacities.

        Raise `SnapshotCorrupt`, and keep the state, when the snapshot breaks a rule (SNAP-5).
        """


@frozen
class Capacity:
    """How much an engine holds; part of the configuration, obeyed by every engine alike (LIM-7, LIM-8)."""

    orders: int = field(default=ORDER_CAPACITY, validator=and_(instance_of(int), ge(1), le(ORDER_CAPACITY_MAX)))
    """Resting orders, 1 .. 2^26."""
    instruments: int = field(
        default=INSTRUMENT_CAPACITY, validator=and_(instance_of(int), ge(1), le(INSTRUMENT_CAPACITY_MAX))
    )
    """Defined instruments, 1 .. 2^20-1."""


ENGINES: Final = ("reference", "fast")


def check_name(name: str) -> None:
    """Raise `UsageError` for a name that is no engine's."""
    if name not in ENGINES:
        raise UsageError(f"there is no engine named {name!r}; choose one of: {', '.join(ENGINES)}")


def make_engine(name: str = "reference", capacity: Capacity | None = None) -> Engine:
    """Return a fresh engine by name, "reference" or "fast"; raise `UsageError` for any other name."""
    check_name(name)
    capacity = capacity or Capacity()
    if name == "reference":
        from ferrox.reference.engine import ReferenceEngine

        return ReferenceEngine(capacity)
    from ferrox.fast import FastEngine

    return FastEngine(capacity.orders, capacity.instruments)
