"""Where the venue stands: an engine and a ledger that have followed the journal up to a sequence number.

What a process needs that comes to a venue which runs already.  It takes nothing from anybody but the files.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

from ferrox.errors import UsageError
from ferrox.journal import identify
from ferrox.journal.tail import patiently
from ferrox.service.ledger import Ledger, load_ledger, newest_ledger
from ferrox.shadow import Shadow


class Standing(NamedTuple):
    """A shadow, and the ledger that goes with it."""

    shadow: Shadow
    ledger: Ledger


def stand(
    directory: str | os.PathLike[str],
    engine: str,
    until: int | None = None,
    *,
    alone: bool = False,
    heard: Callable[[int, memoryview], object] | None = None,
) -> Standing:
    """Return a shadow of a journal that begins at the newest snapshot with a ledger, at most at `until`.

    One that is `alone` may save snapshots; `heard` is called with the reports of each batch, and how many there were
    before them.  Raise `UsageError` when there is none and the journal does not begin with
    its first record.
    """
    header = patiently(lambda: identify(directory))
    ledger = Ledger()

    def told(records: bytes, reports: memoryview) -> None:
        if heard:
            heard(ledger.reports, reports)
        ledger.follow(records, reports)

    limit = until
    while sequence := newest_ledger(directory, header.uuid, limit):
        shadow = Shadow(directory, engine, until=sequence, told=told, alone=alone)
        if shadow.first == sequence + 1:
            ledger = load_ledger(directory, header.uuid, sequence)
            return Standing(shadow, ledger)
        shadow.close()
        limit = sequence - 1
    if header.base_sequence != 1:
        raise UsageError(
            f"{os.fspath(directory)}: the journal begins with sequence {header.base_sequence}, and no snapshot has a "
            "sound ledger beside it: references and limits are not known. Restore the .ledger files from a copy"
        )
    return Standing(Shadow(directory, engine, until=0, told=told, alone=alone), ledger)
