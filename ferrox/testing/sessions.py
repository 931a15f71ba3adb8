"""Sessions: the examples in the specification, run against any engine.

A session is a fenced block in a Markdown file, a command and its reports on each line, in the words of specs/text.md.
`read_sessions` finds them and remembers where each line stands; `run_session` plays one to an engine and raises
`SessionMismatch`, which reads like a compiler's message, at the first line that comes out differently.

Beside the words of a session, what every command must obey is checked as well: reports come in the order of the
commands and carry their sequence numbers, the last of each command says so, and trades name the aggressor (REPORT-1,
REPORT-2, REPORT-4).  The book is read from the engine's own snapshot, so the seam's three methods are all it takes.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Final

from attrs import frozen

from ferrox.engine import Engine
from ferrox.errors import UsageError
from ferrox.messages import COMMAND, COMMAND_SIZE, RECORD, RECORD_SIZE, Report, unpack_reports
from ferrox.state import RestingOrder, unpack_state
from ferrox.terms import ReportFlag, ReportKind, Side
from ferrox.text import TextError, format_order_id, format_report, is_comment, parse_command

PREAMBLE: Final = "instrument 1 tick 1 lot 1 band -1000000 1000000 open"
"""What stands before a session that defines no instrument itself."""

FENCE: Final = "```"


@frozen
class Line:
    """One line of a session: a command, or `book N`, and what must come out."""

    number: int
    """Of its file, from 1."""
    command: str
    expected: tuple[str, ...]

    @property
    def is_book(self) -> bool:
        """Whether this line shows a book instead of sending a command."""
        return self.command.startswith("book ")


@frozen
class Session:
    """The lines of one session, and the file they stand in."""

    path: str
    number: int
    """The line of the file that its block begins at, from 1."""
    lines: tuple[Line, ...]

    @property
    def name(self) -> str:
        """File and line, for people and for the names of tests."""
        return f"{self.path}:{self.number}"

    def commands(self) -> list[Line]:
        """Return the lines that are commands, with the preamble where one is due."""
        return [line for line in self.whole() if not line.is_book]

    def whole(self) -> list[Line]:
        """Return all lines, with the preamble where one is due: where no line defines an instrument."""
        if any(line.command.startswith("instrument ") for line in self.lines):
            return list(self.lines)
        return [Line(self.number, PREAMBLE, (PREAMBLE.replace("instrument", "instrument-defined"),)), *self.lines]


class SessionError(UsageError):
    """A session that cannot be played as it is written."""


class SessionMismatch(AssertionError):
    """An engine that answered a line of a session differently."""

    def __init__(self, session: Session, line: Line, got: Sequence[str]) -> None:
        """Show the line with its place, and both answers below each other, the first difference marked."""
        self.session, self.line, self.got = session, line, tuple(got)
        pairs = zip(line.expected, got, strict=False)
        first = next((index for index, (one, other) in enumerate(pairs) if one != other), None)
        if first is None:
            first = min(len(line.expected), len(got))
        shown = [f"{session.path}:{line.number}: {line.command}"]
        for title, reports in (("expected", line.expected), ("got", got)):
            for index, report in enumerate(reports or ["nothing"]):
                mark = ">" if index == first else " "
                shown.append(f"  {title if index == 0 else '':<9}{mark} {report}")
        super().__init__("\n".join(shown))


# ------------------------------------------------------------------------------------------------------ to read


def read_sessions(markdown: str, path: str = "session") -> list[Session]:
    """Return every session of a Markdown text; raise `SessionError` where one is not written as it should be."""
    sessions: list[Session] = []
    opened: list[str] | None = None
    start = 0
    for number, text in enumerate(markdown.splitlines(), 1):
        if opened is not None and text.startswith(FENCE):
            sessions.append(read_session("\n".join(opened), path, start))
            opened = None
        elif opened is not None:
            opened.append(text)
        elif text.split() == [f"{FENCE}session"] and text.startswith(FENCE):
            opened, start = [], number
    if opened is not None:
        raise SessionError(f"{path}:{start}: this session has no end; close it with {FENCE}")
    return sessions


def read_session(text: str, path: str = "session", number: int = 0) -> Session:
    """Return the session of bare lines that begin below line `number` of a file."""
    lines = []
    for place, line in enumerate(text.splitlines(), number + 1):
        if is_comment(line):
            continue
        command, arrow, reports = line.partition("->")
        expected = tuple(" ".join(report.split()) for report in reports.split(";"))
        if not (arrow and command.strip() and all(expected)):
            raise SessionError(f"{path}:{place}: a line reads COMMAND -> REPORT; REPORT, this one is {line.strip()!r}")
        lines.append(Line(place, " ".join(command.split()), expected))
    return Session(path, number, tuple(lines))


# ------------------------------------------------------------------------------------------------------ to play


def run_session(
    session: Session,
    engine: Engine,
    *,
    batched: bool = False,
    between: Callable[[Engine], Engine] | None = None,
) -> Engine:
    """Play a session to a fresh engine and return it; raise `SessionMismatch` at the first different answer.

    `batched` applies the commands between two looks at a book in one batch (DET-2); `between` is called after each
    line and returns the engine to go on with, for one that was restored from a snapshot, say (DET-5).
    """
    sequence = 0
    for lines in _steps(session.whole(), batched=batched):
        if lines[0].is_book:
            _compare_book(session, lines[0], engine)
        else:
            records = b"".join(
                to_record(sequence + index, _frame(session, line)) for index, line in enumerate(lines, 1)
            )
            answered = answers(apply_all(engine, records), sequence + 1, len(lines))
            for line, reports in zip(lines, answered, strict=True):
                got = [format_report(report) for report in reports]
                if tuple(got) != line.expected:
                    raise SessionMismatch(session, line, got)
            sequence += len(lines)
        if between is not None:
            engine = between(engine)
    return engine


def session_records(session: Session) -> bytes:
    """Return the records of all commands of a session, the preamble's first where one is due."""
    return to_records(_frame(session, line) for line in session.commands())


def to_record(sequence: int, frame: bytes, time_ns: int | None = None) -> bytes:
    """Return the 64-byte record of a frame, at 1000 ns times its sequence if no time is given, checksums 0."""
    shape = COMMAND.unpack(frame.ljust(COMMAND_SIZE, b"\0"))
    time_ns = 1000 * sequence if time_ns is None else time_ns
    return RECORD.pack(0, 0, sequence, time_ns, frame[0], len(frame), 0, 0, *shape)


def to_records(frames: Iterable[bytes], first: int = 1) -> bytes:
    """Return the records of frames in sequence, from `first`."""
    return b"".join(to_record(sequence, frame) for sequence, frame in enumerate(frames, first))


def apply_all(engine: Engine, records: bytes) -> bytes:
    """Apply every record, however many the engine takes at a time; return all their report frames joined."""
    reports = bytearray()
    offset = 0
    while offset < len(records):
        taken, some = engine.apply(records[offset:])
        assert taken > 0, "an engine takes at least one record"
        reports += some
        offset += taken * RECORD_SIZE
    return bytes(reports)


def answers(reports: bytes, first: int, count: int) -> list[list[Report]]:
    """Return the reports of each of `count` commands from sequence `first` on; check REPORT-1, REPORT-2, REPORT-4."""
    answered = [list(of_one) for _, of_one in groupby(unpack_reports(reports), key=lambda report: report.sequence)]
    sequences = [of_one[0].sequence for of_one in answered]
    assert sequences == list(range(first, first + count)), f"reports of {first} .. {first + count - 1}: {sequences}"
    for of_one in answered:
        assert [report.last for report in of_one] == [False] * (len(of_one) - 1) + [True], f"LAST in {of_one}"
        for report in of_one:
            aggressor = bool(report.flags & ReportFlag.AGGRESSOR)
            assert aggressor == (report.kind == ReportKind.TRADE), f"AGGRESSOR in {report}"
    return answered


def format_book(orders: Iterable[RestingOrder], instrument: int) -> str:
    """Return the orders of an instrument by level, as a `book` line shows them; they must stand in canonical order."""
    resting = [order for order in orders if order.instrument == instrument]
    levels = []
    for (side, price), level in groupby(resting, key=lambda order: (order.side, order.price)):
        queue = ", ".join(f"{format_order_id(order.order_id)} {order.leaves}" for order in level)
        levels.append(f"{'bid' if side == Side.BUY else 'ask'} {price}: {queue}")
    return "; ".join(levels) or "empty"


def _steps(lines: Sequence[Line], *, batched: bool) -> list[list[Line]]:
    """Return the lines to apply together: each alone, or all commands between two looks at a book."""
    if not batched:
        return [[line] for line in lines]
    runs = [list(run) for _, run in groupby(lines, key=lambda line: line.is_book)]
    return [step for run in runs for step in ([[line] for line in run] if run[0].is_book else [run])]


def _compare_book(session: Session, line: Line, engine: Engine) -> None:
    """Raise `SessionMismatch` when the book of a `book N` line is another one."""
    number = line.command.removeprefix("book ")
    if not number.isdecimal():
        raise SessionError(f"{session.path}:{line.number}: a look at a book reads `book N`, this one {line.command!r}")
    got = format_book(unpack_state(engine.snapshot()).orders, int(number)).split("; ")
    if tuple(got) != line.expected:
        raise SessionMismatch(session, line, got)


def _frame(session: Session, line: Line) -> bytes:
    """Return the frame of a command, or raise `SessionError` that says where the line stands."""
    try:
        return parse_command(line.command)
    except TextError as error:
        raise SessionError(f"{session.path}:{line.number}: {error}") from error
