"""What the bytes of commands, reports and records oblige an engine to, for each rule of specs/wire.md."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrox.decode import frame_fault
from ferrox.messages import FRAME_SIZE, RECORD, REPORT_SIZE, Report, unpack_reports
from ferrox.terms import CommandKind, Reason, ReportKind
from ferrox.testing.sessions import apply_all, read_session, run_session, to_record, to_records
from ferrox.text import parse_command

SPECS = Path(__file__).parents[2] / "specs"
VALID = {
    "NEW_ORDER": parse_command("buy #9 1 @ 100"),
    "CANCEL_ORDER": parse_command("cancel #1"),
    "MASS_CANCEL": parse_command("mass-cancel on 1"),
    "DEFINE_INSTRUMENT": parse_command("instrument 1 tick 1 lot 1 band 0 1 open"),
    "SET_TRADING_STATE": parse_command("state 1 open"),
    "SET_LIMIT": parse_command("limit kill 1 account 7"),
}


def reserved() -> list[tuple[str, int]]:
    """Return every byte that a layout of a command calls reserved: the layout's name and the byte's offset."""
    found = []
    text = (SPECS / "wire.md").read_text("utf-8")
    for name, block in re.findall(r"^```layout (\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for offset, size, kind, _ in (line.split() for line in block.splitlines()[1:]):
            if kind == "zero":
                found += [(name, byte) for byte in range(int(offset), int(offset) + int(size))]
    return found


def answer(engine, record: bytes) -> list[Report]:
    return unpack_reports(apply_all(engine, record))


@pytest.mark.parametrize("kind", CommandKind)
def test_a_command_has_the_size_of_its_kind(kind: CommandKind, make):
    """WIRE-1: with any other, it is malformed, however the rest reads."""
    engine = make()
    other = 48 - FRAME_SIZE[kind]

    reports = answer(engine, to_record(1, bytes([kind]).ljust(other, b"\0")))

    assert [report.reason for report in reports] == [Reason.MALFORMED]


def test_reports_are_48_bytes(make):
    """WIRE-1."""
    reports = apply_all(make(), to_records(VALID.values()))

    assert len(reports) == 6 * REPORT_SIZE == 6 * 48


def test_a_command_of_16_bytes_reads_as_if_zeros_followed(make):
    """WIRE-2: one that has something there is malformed."""
    for name in ("CANCEL_ORDER", "MASS_CANCEL", "SET_TRADING_STATE"):
        for byte in range(48, 64):
            record = bytearray(to_record(1, VALID[name]))
            record[byte] = 1
            assert [report.reason for report in answer(make(), bytes(record))] == [Reason.MALFORMED], (name, byte)


def test_the_first_byte_of_a_command_is_its_kind(make):
    """WIRE-3: the answer of each kind is its own."""
    engine = run_session(read_session("buy #1 1 @ 1 -> new #1 1 @ 1"), make())
    rejected = {1: ReportKind.REJECTED, 2: ReportKind.CANCEL_REJECTED, 3: ReportKind.REPLACE_REJECTED}

    for sequence, kind in enumerate(CommandKind, 3):
        frame = bytes([kind]).ljust(FRAME_SIZE[kind], b"\0")
        reports = answer(engine, to_record(sequence, frame))
        assert [report.kind for report in reports] == [rejected.get(kind, ReportKind.REJECTED)]
        assert reports[0].reason != Reason.UNKNOWN_KIND


@pytest.mark.parametrize(("name", "byte"), reserved())
def test_a_reserved_byte_that_is_set_is_rejected(name: str, byte: int, make):
    """WIRE-4: every reserved byte of every layout, by its lowest bit, its highest, and all."""
    for value in (0x01, 0x80, 0xFF):
        frame = bytearray(VALID[name])
        frame[byte] = value

        reports = answer(make(), to_record(1, bytes(frame)))

        assert frame_fault(bytes(frame)) == Reason.MALFORMED
        assert [report.reason for report in reports] == [Reason.MALFORMED]


@pytest.mark.parametrize("bit", [3, 7])
def test_a_reserved_bit_that_is_set_is_rejected(bit: int, make):
    """WIRE-4: of the flags."""
    frame = bytearray(VALID["NEW_ORDER"])
    frame[3] |= 1 << bit

    assert frame_fault(bytes(frame)) == Reason.BAD_FLAGS
    assert [report.reason for report in answer(make(), to_record(1, bytes(frame)))] == [Reason.BAD_FLAGS]


def test_every_reserved_byte_is_known():
    """WIRE-4: three of a cancel, two of a mass cancel and a definition each, two and eight of a state and a limit."""
    assert len(reserved()) == 3 + 2 + 2 + 2 + 8 + 2 + 8


@given(st.lists(st.binary(min_size=16, max_size=16) | st.binary(min_size=32, max_size=32), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_answered_with_a_reason_and_never_an_exception(make_all, frames: list[bytes]):
    """WIRE-5: kinds are drawn low, so that most frames get past the first check."""
    frames = [bytes([frame[0] % 9]) + frame[1:] for frame in frames]
    answers = [unpack_reports(apply_all(engine, to_records(frames))) for engine in make_all(64, 8)]

    for reports in answers:
        assert reports == answers[0]
        assert {report.sequence for report in reports} == set(range(1, len(frames) + 1))
    for frame, report in zip(frames, answers[0], strict=False):
        if len(answers[0]) == len(frames) and frame_fault(frame):
            assert report.reason == frame_fault(frame)


def test_an_engine_reads_nothing_of_the_journals_fields(make):
    """WIRE-7: neither the checksums nor the session nor the lag change a byte of reports or state."""
    plain, filled = make(), make()
    frames = [*VALID.values(), parse_command("buy #1 1 @ 1")]
    records = to_records(frames)

    noise = b""
    for fields in RECORD.iter_unpack(records):
        noise += RECORD.pack(0xDEADBEEF, 0xCAFEBABE, *fields[2:6], 0xFFFF, 0xFFFFFFFF, *fields[8:])

    assert apply_all(plain, records) == apply_all(filled, noise)
    assert plain.snapshot() == filled.snapshot()


@pytest.mark.parametrize("field", ["sequence", "time", "kind", "size", "command"])
def test_an_engine_reads_the_rest_of_a_record(field: str, make):
    """WIRE-7."""
    places = {"time": (3, 9), "kind": (4, 2), "size": (5, 16), "command": (14, 200)}
    plain, other = make(), make()
    fields = list(RECORD.unpack(to_record(1, VALID["NEW_ORDER"])))
    answer(plain, RECORD.pack(*fields))

    if field == "sequence":
        fields[2] = 2
        with pytest.raises(Exception, match="sequence"):
            other.apply(RECORD.pack(*fields))
    else:
        index, value = places[field]
        fields[index] = value
        reports = answer(other, RECORD.pack(*fields))
        reason = Reason.MALFORMED if field in ("kind", "size") else Reason.UNKNOWN_INSTRUMENT
        assert [report.reason for report in reports] == [reason]
        assert (plain.snapshot() == other.snapshot()) == (field != "time")
