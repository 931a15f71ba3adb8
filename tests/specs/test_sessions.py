"""Every example in the specification comes out as it is written, from every engine, however it is applied."""

from pathlib import Path

import pytest

from ferrox.engine import Capacity, make_engine
from ferrox.messages import RECORD_SIZE
from ferrox.testing.sessions import (
    PREAMBLE,
    Session,
    SessionError,
    SessionMismatch,
    apply_all,
    read_session,
    read_sessions,
    run_session,
    session_records,
)

SPECS = Path(__file__).parents[2] / "specs"
SESSIONS = [
    session for path in sorted(SPECS.glob("*.md")) for session in read_sessions(path.read_text("utf-8"), path.name)
]
CAPACITY = Capacity(orders=4096, instruments=64)

every_session = pytest.mark.parametrize("session", SESSIONS, ids=[session.name for session in SESSIONS])


def test_the_specification_has_examples():
    assert len(SESSIONS) >= 16
    assert {session.path for session in SESSIONS} >= {"matching.md", "rejects.md"}


@every_session
def test_an_example_comes_out_as_written(session: Session, make):
    run_session(session, make())


@every_session
def test_an_example_comes_out_as_written_in_one_batch(session: Session, make):
    """DET-2."""
    run_session(session, make(), batched=True)


@every_session
def test_one_batch_and_single_records_leave_the_same_bytes(session: Session, make):
    """DET-2."""
    records = session_records(session)
    together, alone = make(), make()

    reports_together = apply_all(together, records)
    reports_alone = b"".join(
        apply_all(alone, records[start : start + RECORD_SIZE]) for start in range(0, len(records), RECORD_SIZE)
    )

    assert reports_together == reports_alone
    assert together.snapshot() == alone.snapshot()


@every_session
def test_an_example_comes_out_as_written_when_every_line_starts_from_a_snapshot(session: Session, make):
    """DET-5."""

    def restored(engine):
        fresh = make()
        fresh.restore(engine.snapshot())
        assert fresh.snapshot() == engine.snapshot()
        return fresh

    run_session(session, make(), between=restored)


@every_session
def test_every_engine_gives_the_same_bytes(session: Session, make_all):
    """DET-6."""
    records = session_records(session)
    engines = make_all()

    reports = {apply_all(engine, records) for engine in engines}
    snapshots = {engine.snapshot() for engine in engines}

    assert len(reports) == 1
    assert len(snapshots) == 1


@every_session
def test_an_example_goes_on_in_the_other_engine(session: Session, make_all):
    """DET-5, DET-6: a snapshot belongs to no engine, and each line is played by the next."""
    engines = make_all()

    def handed_over(engine):
        engines.append(engines.pop(0))
        engines[0].restore(engine.snapshot())
        return engines[0]

    run_session(session, engines[0], between=handed_over)


# The runner itself: an example that could not fail would prove nothing.


def test_a_different_answer_shows_its_place_and_both_streams():
    session = read_session("buy #1 10 @ 100 -> new #1 10 @ 100; expired #1 10 @ 100", "some.md", 7)

    with pytest.raises(SessionMismatch) as mismatch:
        run_session(session, make_engine("reference", CAPACITY))

    assert str(mismatch.value).splitlines() == [
        "some.md:8: buy #1 10 @ 100",
        "  expected   new #1 10 @ 100",
        "           > expired #1 10 @ 100",
        "  got        new #1 10 @ 100",
    ]


def test_a_report_too_many_is_a_difference():
    with pytest.raises(SessionMismatch, match="> expired #1 10 @ 100"):
        run_session(
            read_session("buy #1 10 @ 100 ioc -> new #1 10 @ 100"),
            make_engine("reference", CAPACITY),
        )


def test_another_book_is_a_difference():
    session = read_session("""
        buy #1 10 @ 100 -> new #1 10 @ 100
        book 1          -> bid 100: #1 11
    """)

    with pytest.raises(SessionMismatch, match="bid 100: #1 10"):
        run_session(session, make_engine("reference", CAPACITY))


def test_a_session_that_defines_an_instrument_has_no_preamble():
    with_preamble = read_session("cancel #1 -> cancel-rejected #1 unknown-order")
    without = read_session("instrument 2 tick 1 lot 1 band 0 1 open -> instrument-defined 2 tick 1 lot 1 band 0 1 open")

    assert [line.command for line in with_preamble.commands()] == [PREAMBLE, "cancel #1"]
    assert without.commands() == list(without.lines)


@pytest.mark.parametrize("line", ["buy #1 10 @ 100", "buy #1 10 @ 100 ->", "-> new #1 10 @ 100", "book 1 -> a;; b"])
def test_a_line_without_its_halves_is_no_session(line: str):
    with pytest.raises(SessionError, match=r"some\.md:4: "):
        read_session("\n" + line, "some.md", 2)


def test_a_command_that_is_none_is_told_with_its_place():
    session = read_session("bye #1 10 @ 100 -> new #1 10 @ 100", "some.md", 2)

    with pytest.raises(SessionError, match=r"some\.md:3: 'bye' stands where buy or sell"):
        run_session(session, make_engine("reference", CAPACITY))


def test_a_look_at_no_book_is_told_with_its_place():
    with pytest.raises(SessionError, match=r"some\.md:3: "):
        run_session(read_session("book one -> empty", "some.md", 2), make_engine("reference", CAPACITY))


def test_a_session_without_an_end_is_no_session():
    with pytest.raises(SessionError, match=r"some\.md:2: "):
        read_sessions("text\n```session\nbuy #1 10 @ 100 -> new #1 10 @ 100", "some.md")


def test_only_blocks_marked_session_are_read():
    markdown = "```\nbuy\n```\n\n    ```session\n    sell\n    ```\n\n```session\nbook 1 -> empty\n```\n"

    assert [session.name for session in read_sessions(markdown, "some.md")] == ["some.md:9"]
