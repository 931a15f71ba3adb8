"""The golden vectors: every engine gives the stored bytes, and nothing here writes them."""

import hashlib
import json
from pathlib import Path

import pytest

from ferrox.engine import Capacity
from ferrox.messages import unpack_reports
from ferrox.state import digest, unpack_state
from ferrox.terms import RULES_VERSION, CommandKind, Reason, ReportKind
from ferrox.testing.sessions import apply_all, to_records
from ferrox.text import format_command, format_report, parse_command, parse_commands

VECTORS = Path(__file__).parents[2] / "specs" / "vectors"
TABLE = json.loads((VECTORS / "vectors.json").read_text("utf-8"))
CAPACITY = Capacity(TABLE["order_capacity"], TABLE["instrument_capacity"])
FAMILIES = [
    "limits",
    "many-instruments",
    "mass-cancel",
    "matching",
    "negative-prices",
    "rejects",
    "replace",
    "self-trade",
    "states",
    "time-in-force",
]
every_stream = pytest.mark.parametrize("name", FAMILIES)


def frames(name: str, part: str) -> list[bytes]:
    return [bytes.fromhex(line) for line in (VECTORS / f"{name}.{part}.hex").read_text("utf-8").splitlines()]


def test_every_family_has_its_vectors():
    """DET-6: and no file stands there that no test reads."""
    expected = {f"{name}.{part}" for name in FAMILIES for part in ("txt", "commands.hex", "reports.hex")}

    assert {path.name for path in VECTORS.iterdir()} == expected | {"vectors.json", "README.md"}
    assert list(TABLE["streams"]) == FAMILIES
    assert TABLE["rules_version"] == RULES_VERSION


@every_stream
def test_the_text_says_the_stored_frames(name: str):
    """TEXT-1."""
    stored = frames(name, "commands")

    assert list(parse_commands((VECTORS / f"{name}.txt").read_text("utf-8").splitlines())) == stored
    assert [parse_command(format_command(frame)) for frame in stored] == stored


@every_stream
def test_every_engine_gives_the_stored_bytes(name: str, make):
    """DET-6, DET-7."""
    entry = TABLE["streams"][name]
    commands, stored = frames(name, "commands"), frames(name, "reports")
    engine = make(CAPACITY.orders, CAPACITY.instruments)

    reports = apply_all(engine, to_records(commands))

    # As text first: a difference in words is quicker to read than one in digits.
    assert [format_report(report) for report in unpack_reports(reports)] == [
        format_report(report) for report in unpack_reports(b"".join(stored))
    ]
    assert reports == b"".join(stored)
    assert (len(commands), len(stored)) == (entry["commands"], entry["reports"])
    assert hashlib.sha256(b"".join(commands)).hexdigest() == entry["commands_sha256"]
    assert hashlib.sha256(reports).hexdigest() == entry["reports_sha256"]
    assert digest(engine.snapshot()) == entry["state_sha256"]


@every_stream
def test_the_stored_state_is_one_that_an_engine_takes(name: str, make):
    """SNAP-5, DET-5: and giving it back changes nothing."""
    engine, fresh = make(), make()
    apply_all(engine, to_records(frames(name, "commands")))

    fresh.restore(engine.snapshot())

    assert digest(fresh.snapshot()) == TABLE["streams"][name]["state_sha256"]
    assert unpack_state(fresh.snapshot()).orders, "a stream that ends with empty books tells less"


def test_the_vectors_hold_every_kind_and_every_reason_but_the_capacities():
    kinds: set[int] = set()
    reasons: set[int] = set()
    commands: set[int] = set()
    for name in FAMILIES:
        reports = unpack_reports(b"".join(frames(name, "reports")))
        kinds |= {report.kind for report in reports}
        reasons |= {report.reason for report in reports}
        commands |= {frame[0] for frame in frames(name, "commands")}

    assert kinds == set(ReportKind)
    assert commands >= set(CommandKind)
    assert set(Reason) - reasons == {Reason.INSTRUMENTS_FULL, Reason.ORDERS_FULL}
