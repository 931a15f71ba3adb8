"""What was written once can be read for ever: a golden journal of each format version, and what its replay gives."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from ferrox.engine import ENGINES, make_engine
from ferrox.journal import Journal, identify, read, scan
from ferrox.journal.layout import FORMAT_VERSION
from ferrox.snapshot import latest_snapshot
from ferrox.state import digest
from ferrox.terms import Annotation
from ferrox.testing.workload import applier

GOLDEN = Path(__file__).parents[1] / "golden"
VERSIONS = range(1, FORMAT_VERSION + 1)


@pytest.fixture(params=VERSIONS)
def golden(request, tmp_path):
    """A copy of the golden journal of a format version, and what it must give."""
    source = GOLDEN / f"journal-{request.param}"
    shutil.copytree(source, tmp_path / "golden", ignore=shutil.ignore_patterns("expected.json"))
    return tmp_path / "golden", json.loads((source / "expected.json").read_text())


def test_a_golden_journal_is_sound_and_its_records_are_the_same(golden):
    """JRN-5."""
    path, expected = golden

    found = scan(path)

    assert (found.verdict, found.last, found.sealed) == ("clean", expected["records"], True)
    assert found.warnings == ()
    assert len(list(path.glob("*.torn"))) == 1
    assert hashlib.sha256(b"".join(read(path))).hexdigest() == expected["records_sha256"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_golden_journal_replays_to_the_same_reports_and_state(engine, golden):
    """JRN-5, SNAP-9: from the first record, and from its snapshot."""
    path, expected = golden
    whole, half = (make_engine(engine, identify(path).capacity) for _ in range(2))
    latest = latest_snapshot(path, identify(path).uuid)
    reports = hashlib.sha256()

    for records in read(path):
        reports.update(applier(whole)(records))
    half.restore(latest.state)
    for records in read(path, start=latest.sequence + 1):
        half.apply(records)

    assert reports.hexdigest() == expected["reports_sha256"]
    assert digest(whole.snapshot()) == digest(half.snapshot()) == expected["state_digest"]


def test_a_golden_journal_can_be_gone_on_with_and_is_then_of_two_formats(golden):
    """JRN-5: what is added has today's format."""
    path, expected = golden
    before = b"".join(read(path))

    with Journal.open(path) as journal:
        assert journal.torn is None
        assert journal.sequence == expected["records"]

    found = scan(path)
    assert (found.verdict, found.last) == ("clean", expected["records"] + 1)
    assert found.kinds[Annotation.SEAL] == 2
    assert b"".join(read(path)).startswith(before)
