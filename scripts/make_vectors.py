"""Make the golden vectors of specs/vectors again from their texts: `python scripts/make_vectors.py`.

The texts are written by people; the frames, the reports and the digests are made from them.  A change in what this
writes is a change of the law: look at the difference, and say why in the commit.  The engines must agree, or nothing
is written.
"""

import hashlib
import json
import sys
from pathlib import Path

from ferrox.engine import ENGINES, Capacity, make_engine
from ferrox.messages import REPORT_SIZE
from ferrox.state import digest
from ferrox.terms import RULES_VERSION
from ferrox.testing.sessions import apply_all, to_records
from ferrox.text import parse_commands

VECTORS = Path(__file__).parents[1] / "specs" / "vectors"
CAPACITY = Capacity(orders=4096, instruments=64)


def main() -> None:
    """Write the frames and reports of every text, and one table of digests."""
    streams = {path.stem: make(path) for path in sorted(VECTORS.glob("*.txt"))}
    table = {
        "rules_version": RULES_VERSION,
        "order_capacity": CAPACITY.orders,
        "instrument_capacity": CAPACITY.instruments,
        "streams": streams,
    }
    (VECTORS / "vectors.json").write_text(json.dumps(table, indent=2) + "\n", "utf-8")


def make(path: Path) -> dict[str, int | str]:
    """Write the frames and reports of one text beside it; return its counts and digests."""
    frames = list(parse_commands(path.read_text("utf-8").splitlines()))
    outcomes = set()
    for name in ENGINES:
        engine = make_engine(name, CAPACITY)
        outcomes.add((apply_all(engine, to_records(frames)), engine.snapshot()))
    if len(outcomes) != 1:
        sys.exit(f"{path.name}: the engines disagree; run the tests, mend one, and come back")
    reports, snapshot = outcomes.pop()
    split = [reports[start : start + REPORT_SIZE] for start in range(0, len(reports), REPORT_SIZE)]
    write_hex(path.with_suffix(".commands.hex"), frames)
    write_hex(path.with_suffix(".reports.hex"), split)
    return {
        "commands": len(frames),
        "reports": len(split),
        "commands_sha256": hashlib.sha256(b"".join(frames)).hexdigest(),
        "reports_sha256": hashlib.sha256(reports).hexdigest(),
        "state_sha256": digest(snapshot),
    }


def write_hex(path: Path, frames: list[bytes]) -> None:
    """Write frames as hexadecimal digits, one a line."""
    path.write_text("".join(f"{frame.hex()}\n" for frame in frames), "utf-8")


if __name__ == "__main__":
    main()
