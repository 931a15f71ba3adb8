"""Write the golden journal of today's format: two lives, a rotation, a crash with a torn tail, a snapshot, a SEAL.

    python scripts/make_golden_journal.py tests/golden/journal-1

Each format version has one, made once by the Ferrox that wrote it and never again: what was written once can be read
for ever (tests/unit/test_golden_journals.py).  `expected.json` beside the files says what a replay must give.
"""

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

from ferrox.engine import Capacity, make_engine
from ferrox.journal import Journal, Source, read
from ferrox.journal.layout import FORMAT_VERSION, HEADER_SIZE
from ferrox.messages import RECORD_SIZE
from ferrox.snapshot import write_snapshot
from ferrox.state import digest
from ferrox.testing.workload import Workload, applier

CAPACITY = Capacity(orders=1000, instruments=64)
SEGMENT_RECORDS = 16
CRASH = 41
"""Commands before the crash, which tears the last one."""
COMMANDS = 60


def written(path: Path) -> bytes:
    """Return a file without what was only prepared behind its last record."""
    data = path.read_bytes()
    if path.suffix != ".wal":
        return data
    used = len(data.rstrip(b"\0"))
    return data[: max(HEADER_SIZE, -(-used // RECORD_SIZE) * RECORD_SIZE)]


def main() -> int:
    """Write the journal and what its replay gives; return the exit status."""
    target = Path(sys.argv[1])
    if target.exists():
        print(f"{target}: there is one already; a golden journal is made once", file=sys.stderr)
        return 2
    engine = make_engine("reference", CAPACITY)
    commands = b"".join(chunk.tobytes() for chunk in Workload(7, COMMANDS, "deep").chunks(applier(engine)))
    crashed, rest = commands[: CRASH * RECORD_SIZE], commands[(CRASH - 1) * RECORD_SIZE :]
    with tempfile.TemporaryDirectory() as place:
        life = Journal.create(
            Path(place) / "j", CAPACITY, segment_records=SEGMENT_RECORDS, source=Source.seeded(FORMAT_VERSION)
        )
        life.append(crashed[: 20 * RECORD_SIZE])
        life.sync()
        life.append(crashed[20 * RECORD_SIZE :])
        target.mkdir(parents=True)
        for path in sorted((Path(place) / "j").iterdir()):
            (target / path.name).write_bytes(written(path))
        life.close()
    last = max(target.glob("*.wal"))
    os.truncate(last, last.stat().st_size - 20)
    replayed = make_engine("reference", CAPACITY)
    apply = applier(replayed)
    reports = hashlib.sha256()
    with Journal.open(target, source=Source.seeded(FORMAT_VERSION + 100)) as journal:
        journal.append(rest)
        journal.sync()
        for records in read(target):
            reports.update(apply(records))
        write_snapshot(target, replayed.snapshot(), journal.uuid)
    records = b"".join(read(target))
    reports.update(apply(records[journal.sequence * RECORD_SIZE - RECORD_SIZE :]))
    expected = {
        "format_version": FORMAT_VERSION,
        "records": journal.sequence,
        "records_sha256": hashlib.sha256(records).hexdigest(),
        "reports_sha256": reports.hexdigest(),
        "state_digest": digest(replayed.snapshot()),
    }
    (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    print(f"{target}: {journal.sequence} records, format {FORMAT_VERSION}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
