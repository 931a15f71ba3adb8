"""What the fault suite has done is counted, and told as a table at the end of the run, under xdist too."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

COLUMNS = {
    "trials": "trials",
    "faults": "faults injected",
    "lost": "acknowledged lost",
    "wrong": "wrong records",
    "false_alarms": "false alarms",
    "undetected": "undetected damage",
}
MUST_BE_ZERO = ("lost", "wrong", "false_alarms", "undetected")
TABLE: dict[str, Counter[str]] = {}
NOTES: dict[str, list[str]] = {}


class Tally(Counter[str]):
    """Counts of one test; those of `MUST_BE_ZERO` fail it when it is over."""

    notes: tuple[str, ...] = ()
    """What is measured and no count: it is told below the table, and decides nothing."""

    def note(self, text: str) -> None:
        """Tell something below the table."""
        self.notes = (*self.notes, text)

    def trial(self, faults: int = 1) -> None:
        """Count a trial with so many faults in it."""
        self["trials"] += 1
        self["faults"] += faults

    def expect(self, what: str, holds: object, told: object = "") -> None:
        """Count a failure of one kind unless something holds."""
        if not holds:
            self[what] += 1
            assert holds, f"{what}: {told}"


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """What a test counts into; a test that has tried nothing fails."""
    counts = Tally()
    yield counts
    assert counts["trials"] > 0
    assert not any(counts[name] for name in MUST_BE_ZERO)
    name = request.node.originalname
    TABLE.setdefault(name, Counter()).update(counts)
    TABLE[name]["runs"] += 1
    NOTES.setdefault(name, []).extend(counts.notes)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send a worker's counts to the one that prints them."""
    output: Any = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["faults"] = json.dumps([TABLE, NOTES])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take over the counts of a worker."""
    table, notes = json.loads(getattr(node, "workeroutput", {}).get("faults", "[{}, {}]"))
    for name, counts in table.items():
        TABLE.setdefault(name, Counter()).update(counts)
    for name, told in notes.items():
        NOTES.setdefault(name, []).extend(told)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table."""
    if not TABLE:
        return
    terminalreporter.section("faults")
    total: Counter[str] = Counter()
    width = max(map(len, TABLE))
    terminalreporter.line(f"{'':<{width}}" + "".join(f"{title:>20}" for title in COLUMNS.values()))
    for name, counts in sorted(TABLE.items()):
        total.update(counts)
        terminalreporter.line(f"{name:<{width}}" + "".join(f"{counts[column]:>20,}" for column in COLUMNS))
    terminalreporter.line(f"{'all':<{width}}" + "".join(f"{total[column]:>20,}" for column in COLUMNS))
    for name, told in sorted(NOTES.items()):
        for text in told:
            terminalreporter.line(f"{name}: {text}")


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory, where the machine has one: for crash states by the thousand."""
    with TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        yield Path(name)
