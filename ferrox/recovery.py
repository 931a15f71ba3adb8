"""Recovery: an engine that stands where its journal ends (JRN-14, JRN-20, SNAP-9).

The newest sound snapshot, then the records behind it.  The journal is verified in the same pass, all of it, also what
the snapshot stands for: nothing that is damaged is passed over because it is not needed today.
"""

import os
from collections.abc import Callable
from typing import Any

from attrs import frozen

from ferrox.engine import Engine, make_engine
from ferrox.journal import Journal, identify
from ferrox.journal.tally import Tally, parts
from ferrox.messages import RECORD_SIZE
from ferrox.snapshot import Latest, latest_snapshot


@frozen
class Recovered:
    """An engine and its journal, ready to go on together."""

    engine: Engine
    journal: Journal
    snapshot: int
    """The sequence number of the snapshot that it began from, 0 for none."""
    replayed: int
    """How many records were told to the engine."""
    tally: Tally
    """What the engine has said since the last statement, for the next one (JRN-21)."""
    warnings: tuple[str, ...]
    """What was damaged and could be passed over: snapshots, a slot of the commit mark."""


def recover(
    directory: str | os.PathLike[str],
    engine: str = "fast",
    *,
    snapshots: bool = True,
    until: int | None = None,
    begin: Callable[[int], object] | None = None,
    told: Callable[[bytes, memoryview], object] | None = None,
    **options: Any,
) -> Recovered:
    """Open a journal for append, with an engine that has replayed it; `options` are those of `Journal.open`.

    Without `snapshots` it is replayed from its first record, with `until` from a snapshot of at most that sequence
    number.  `begin` is called with the snapshot's sequence number, 0 for none, and `told` with each batch of records
    that is replayed and the reports to it, which are valid during the call.

    Raise `UsageError` when there is no journal or another process holds it, `CorruptInput` when it is damaged, with
    nothing changed, `NotDeterministic` when the engine says something else than the journal states of the one that ran
    with it (JRN-21).
    """
    header = identify(directory)
    made = make_engine(engine, header.capacity)
    if snapshots or header.base_sequence > 1:
        latest = latest_snapshot(directory, header.uuid, until)
    else:
        latest = Latest(None, b"", [])
    if latest.path:
        made.restore(latest.state)
    if begin:
        begin(latest.sequence)
    replayed = 0
    tally = Tally(latest.sequence + 1)

    def replay(records: bytes) -> None:
        nonlocal replayed
        replayed += len(records) // RECORD_SIZE
        for part in parts(records):
            left = part
            while left:
                taken, reports = made.apply(left)
                tally.note(reports)
                if told:
                    told(left[: taken * RECORD_SIZE], reports)
                left = left[taken * RECORD_SIZE :]
            tally.compare(part)

    journal = Journal.open(directory, replay=replay, start=latest.sequence + 1, **options)
    return Recovered(made, journal, latest.sequence, replayed, tally, (*latest.warnings, *journal.warnings))
