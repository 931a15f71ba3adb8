"""What an engine answers: a claim for each rule of specs/reports.md, held by every engine."""

import itertools
import re
from collections import defaultdict
from pathlib import Path

import pytest

from ferrox.messages import RECORD_SIZE, Report, unpack_reports
from ferrox.state import unpack_state
from ferrox.terms import ReportFlag, ReportKind
from ferrox.testing.sessions import Session, apply_all, read_sessions, session_records, to_records
from ferrox.text import parse_command, parse_commands

SPECS = Path(__file__).parents[2] / "specs"
SESSIONS = [
    session for path in sorted(SPECS.glob("*.md")) for session in read_sessions(path.read_text("utf-8"), path.name)
]
STREAMS = {path.stem: path.read_text("utf-8").splitlines() for path in sorted((SPECS / "vectors").glob("*.txt"))}
every_session = pytest.mark.parametrize("session", SESSIONS, ids=[session.name for session in SESSIONS])
every_stream = pytest.mark.parametrize("name", STREAMS)

SELL, BUY, LAST = 2, 1, ReportFlag.LAST


def answer(engine, lines: str) -> list[Report]:
    """Send commands, one a line, and return all reports."""
    return unpack_reports(apply_all(engine, to_records(parse_commands(lines.splitlines()))))


@every_session
def test_every_command_gives_reports_with_its_sequence(session: Session, make):
    """REPORT-1: and no report has another."""
    engine = make()
    records = session_records(session)

    for sequence, start in enumerate(range(0, len(records), RECORD_SIZE), 1):
        reports = unpack_reports(apply_all(engine, records[start : start + RECORD_SIZE]))
        assert {report.sequence for report in reports} == {sequence}


@every_session
def test_reports_of_a_batch_stand_in_the_order_of_its_commands(session: Session, make):
    """REPORT-2, REPORT-4: LAST divides them, and nothing else does."""
    reports = unpack_reports(apply_all(make(), session_records(session)))

    sequences = [report.sequence for report in reports]
    ends = [report.sequence for report in reports if report.last]

    assert sequences == sorted(sequences)
    assert ends == list(range(1, len(session.commands()) + 1))
    assert all(one.sequence < other.sequence for one, other in itertools.pairwise(reports) if one.last)


def test_reports_of_a_command_stand_in_the_order_in_which_things_happened(play):
    """REPORT-2: entry, trades by priority, self-trades where they are met, then the end."""
    play("""
        sell #8/1 1 @ 100                          -> new #8/1 1 @ 100
        sell #7/1 1 @ 100                          -> new #7/1 1 @ 100
        sell #8/2 1 @ 101                          -> new #8/2 1 @ 101
        buy #7/2 5 @ 101 ioc stp=cancel-maker      -> new #7/2 5 @ 101; trade #7/2 1 @ 100 with #8/1 leaves 4; \
canceled #7/1 1 @ 100 with #7/2 self-trade; trade #7/2 1 @ 101 with #8/2 leaves 3; expired #7/2 3 @ 101
    """)


# One command of each kind of answer, with every field of its reports: sequence, order, contra, price, quantity,
# leaves, instrument, kind, side, reason, flags.
FIELDS = [
    ("instrument 3 tick 5 lot 2 band -50 500 open", [Report(1, 0, 500, -50, 5, 2, 3, 10, 2, 0, LAST)]),
    ("sell #8/1 10 @ 100 on 3", [Report(2, 8 << 40 | 1, 0, 100, 10, 10, 3, 1, SELL, 0, LAST)]),
    ("buy #9 4 @ 500 post-only slide on 3", [Report(3, 9, 0, 95, 4, 4, 3, 1, BUY, 0, 4 | LAST)]),
    (
        "buy #7 6 @ 100 on 3",
        [Report(4, 7, 0, 100, 6, 6, 3, 1, BUY, 0, 0), Report(4, 7, 8 << 40 | 1, 100, 6, 0, 3, 2, BUY, 0, 1 | LAST)],
    ),
    (
        "sell #6 6 market on 3",
        [
            Report(5, 6, 0, 0, 6, 6, 3, 1, SELL, 0, 0),
            Report(5, 6, 9, 95, 4, 2, 3, 2, SELL, 0, 1),
            Report(5, 6, 0, 0, 2, 0, 3, 5, SELL, 0, LAST),
        ],
    ),
    ("replace sell #8/1 8 @ 100 on 3", [Report(6, 8 << 40 | 1, 0, 100, 8, 2, 3, 4, SELL, 0, 2 | LAST)]),
    ("replace sell #8/1 20 @ 105 on 3", [Report(7, 8 << 40 | 1, 0, 105, 20, 14, 3, 4, SELL, 0, LAST)]),
    ("buy #5 2 @ 90 on 3", [Report(8, 5, 0, 90, 2, 2, 3, 1, BUY, 0, LAST)]),
    (
        "replace sell #8/1 20 @ 90 post-only slide on 3",
        [Report(9, 8 << 40 | 1, 0, 95, 20, 14, 3, 4, SELL, 0, 4 | LAST)],
    ),
    (
        "buy #8/2 4 @ 95 stp=decrement on 3",
        [
            Report(10, 8 << 40 | 2, 0, 95, 4, 4, 3, 1, BUY, 0, 0),
            Report(10, 8 << 40 | 1, 8 << 40 | 2, 95, 4, 10, 3, 3, SELL, 64, 0),
            Report(10, 8 << 40 | 2, 8 << 40 | 1, 95, 4, 0, 3, 3, BUY, 64, LAST),
        ],
    ),
    ("replace sell #8/1 6 @ 300 on 3", [Report(11, 8 << 40 | 1, 0, 95, 10, 0, 3, 3, SELL, 66, LAST)]),
    ("cancel #5 on 3", [Report(12, 5, 0, 90, 2, 0, 3, 3, BUY, 0, LAST)]),
    ("cancel #5 on 3", [Report(13, 5, 0, 0, 0, 0, 3, 7, 0, 34, LAST)]),
    ("replace buy #5 2 @ 5 on 3", [Report(14, 5, 0, 0, 0, 0, 3, 8, 0, 34, LAST)]),
    ("buy #4 2 @ 5 on 4", [Report(15, 4, 0, 0, 0, 0, 4, 6, 0, 32, LAST)]),
    ("mass-cancel account 8 on 4", [Report(16, 0, 0, 0, 0, 0, 4, 6, 0, 32, LAST)]),
    ("state 4 open", [Report(17, 0, 0, 0, 0, 0, 4, 6, 0, 32, LAST)]),
    ("instrument 0 tick 0 lot 0 band 0 0 open", [Report(18, 0, 0, 0, 0, 0, 0, 6, 0, 6, LAST)]),
    ("sell #8/3 2 @ 100 on 3", [Report(19, 8 << 40 | 3, 0, 100, 2, 2, 3, 1, SELL, 0, LAST)]),
    (
        "mass-cancel account 8",
        [
            Report(20, 8 << 40 | 3, 0, 100, 2, 0, 3, 3, SELL, 65, 0),
            Report(20, 8 << 40, 0, 0, 1, 0, 0, 9, 2, 0, LAST),
        ],
    ),
    ("mass-cancel account 8 on 3", [Report(21, 8 << 40, 0, 0, 0, 0, 3, 9, 3, 0, LAST)]),
    ("mass-cancel on 3", [Report(22, 0, 0, 0, 0, 0, 3, 9, 1, 0, LAST)]),
    ("mass-cancel all", [Report(23, 0, 0, 0, 0, 0, 0, 9, 4, 0, LAST)]),
    ("state 3 halted", [Report(24, 0, 0, 0, 0, 0, 3, 11, 3, 0, LAST)]),
    ("raw 09ffffff030000000500000000000000", [Report(25, 5, 0, 0, 0, 0, 3, 6, 0, 1, LAST)]),
    ("raw 04090000030000000500000000000000", [Report(26, 0, 0, 0, 0, 0, 3, 6, 0, 11, LAST)]),
    (
        "limit max-notional 4611686018427387903 account 8388607",
        [Report(27, 8388607 << 40, 2**62 - 1, 0, 0, 0, 0, 12, 3, 0, LAST)],
    ),
    ("limit kill 1 on 9", [Report(28, 0, 1, 0, 0, 0, 9, 12, 1, 0, LAST)]),
    ("limit collar 5 account 8 on 3", [Report(29, 0, 0, 0, 0, 0, 3, 6, 0, 12, LAST)]),
    ("raw 02000001ffffffffffffffffffffffff", [Report(30, -1, 0, 0, 0, 0, 2**32 - 1, 7, 0, 2, LAST)]),
]


def test_the_fields_of_every_kind_of_report(make):
    """REPORT-3, REPORT-4, REPORT-5: all twelve kinds, every field of each."""
    engine = make()

    for sequence, (line, expected) in enumerate(FIELDS, 1):
        assert unpack_reports(apply_all(engine, to_records([parse_command(line)], sequence))) == expected, line
    assert {report.kind for _, reports in FIELDS for report in reports} == set(ReportKind)


def filled_cells() -> dict[str, set[str]]:
    """Return the fields that the table of REPORT-3 fills, by kind."""
    rows = [
        line.strip("|").split("|") for line in (SPECS / "reports.md").read_text("utf-8").splitlines() if "|" in line
    ]
    names = [cell.strip() for cell in rows[0]]
    return {
        cells[0].strip(): {name for name, cell in zip(names, cells, strict=True) if cell.strip()}
        for cells in rows[2:]
        if re.fullmatch(r"[A-Z_]+", cells[0].strip())
    }


@every_stream
def test_a_field_that_the_table_leaves_out_is_0(name: str, make):
    """REPORT-3."""
    filled = filled_cells()

    for report in answer(make(), "\n".join(STREAMS[name])):
        kind = ReportKind(report.kind).name
        empty = set(Report._fields) - filled[kind] - {"sequence", "instrument", "kind", "flags"}
        assert not any(getattr(report, field) for field in empty), report


@every_stream
def test_the_flags_are_those_of_the_table(name: str, make):
    """REPORT-4: no other flag stands in any report."""
    may_stand = {ReportKind.NEW: 0x04, ReportKind.REPLACED: 0x06}

    for report in answer(make(), "\n".join(STREAMS[name])):
        flags = report.flags & ~LAST
        if report.kind == ReportKind.TRADE:
            assert flags == ReportFlag.AGGRESSOR
        else:
            assert not flags & ~may_stand.get(ReportKind(report.kind), 0), report


def test_the_reason_of_a_cancel_says_who_asked(play):
    """REPORT-5."""
    play("""
        buy #7/1 1 @ 100                    -> new #7/1 1 @ 100
        cancel #7/1                         -> canceled #7/1 1 @ 100
        buy #7/1 2 @ 100                    -> new #7/1 2 @ 100
        sell #7/2 1 @ 100 stp=cancel-taker  -> new #7/2 1 @ 100; canceled #7/2 1 @ 100 with #7/1 self-trade
        sell #7/2 1 @ 100                   -> new #7/2 1 @ 100; trade #7/2 1 @ 100 with #7/1
        replace buy #7/1 1 @ 100            -> canceled #7/1 1 @ 100 total-filled
        buy #7/1 2 @ 100                    -> new #7/1 2 @ 100
        mass-cancel all                     -> canceled #7/1 2 @ 100 mass-cancel; mass-canceled 1 all
    """)


def unbalanced(reports: list[Report], left: dict[int, int]) -> dict[int, int]:
    """Return by order id what is missing between what was entered and what became of it."""
    open_: dict[int, int] = defaultdict(int)
    for report in reports:
        if report.kind == ReportKind.NEW:
            assert not open_[report.order_id], "an id is used again only once its order has balanced"
            open_[report.order_id] = report.quantity
        elif report.kind == ReportKind.REPLACED:
            open_[report.order_id] = report.leaves
        elif report.kind == ReportKind.TRADE:
            open_[report.order_id] -= report.quantity
            open_[report.contra_id] -= report.quantity
        elif report.kind in (ReportKind.CANCELED, ReportKind.EXPIRED):
            open_[report.order_id] -= report.quantity
        if report.kind in (ReportKind.NEW, ReportKind.TRADE, ReportKind.REPLACED, ReportKind.CANCELED):
            assert report.leaves == open_[report.order_id], report
    return {number: open_[number] - left.get(number, 0) for number in {*open_, *left}}


@every_stream
def test_what_was_entered_traded_left_or_still_works(name: str, make):
    """REPORT-6: for every order, and the leaves of each report agree on the way."""
    engine = make()

    reports = answer(engine, "\n".join(STREAMS[name]))

    left = {order.order_id: order.leaves for order in unpack_state(engine.snapshot()).orders}
    assert not any(unbalanced(reports, left).values())


def test_a_lost_lot_would_be_found():
    """REPORT-6: the balance can fail."""
    reports = [Report(1, 1, 0, 100, 10, 10, 1, 1, 1, 0, 0), Report(2, 1, 0, 100, 9, 0, 1, 5, 1, 0, 0)]

    assert unbalanced(reports, {}) == {1: 1}
