"""`ferrox pipe`: an engine on stdin and stdout, for programs in any language.

The peer may wait for each answer before it goes on, so nothing may linger in a buffer: what is there is read, told to
the engine, answered and written, before anything is read again.  Commands carry no time here, and every time is 0, so
equal commands give equal bytes, the state included.

With `--journal` each batch is in the journal before the engine hears it, and acknowledged by its reports: what a peer
has an answer to survives a crash by the level that was chosen.

With `--json` stdout belongs to one object at the end, so the reports then go to `--reports FILE`, or nowhere.  Refusing
`--json` was considered and left: counts and digests of a command stream are worth having, and it is every verb's.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from ferrox.cli.engines import Run, engine_option, quickest
from ferrox.cli.output import examples, json_option, per_second, plural, print_json, print_note
from ferrox.cli.replay import report_sink
from ferrox.engine import Capacity
from ferrox.errors import CorruptInput, UsageError
from ferrox.journal import Durability, Journal
from ferrox.messages import COMMAND_SIZE, ENVELOPE, FRAME_SIZE, unpack_reports
from ferrox.recovery import recover
from ferrox.terms import (
    INSTRUMENT_CAPACITY,
    INSTRUMENT_CAPACITY_MAX,
    ORDER_CAPACITY,
    ORDER_CAPACITY_MAX,
    Annotation,
)
from ferrox.text import TextError, format_report, is_comment, parse_command

READ_SIZE: Final = 65_536
LINE_MAX: Final = 65_536
"""Bytes of a line of text."""
BAD_LINES_MAX: Final = 20
"""Lines that are no commands before the rest is given up; on a terminal, somebody is still typing."""
SIZES: Final = {int(kind): size for kind, size in FRAME_SIZE.items()}
FIRST_ANNOTATION: Final = int(min(Annotation))
END_MARK: Final = b".\n"

Write = Callable[[Any], object]


@click.command(
    epilog=examples(
        "ferrox pipe < commands.bin > reports.bin",
        "ferrox pipe --json < commands.bin",
        "ferrox pipe --journal flow --durability D1 < commands.bin > reports.bin",
        "ferrox pipe --text --end",
        "  instrument 1 tick 1 lot 1 band 0 1000 open",
        "  sell #1 10 @ 100",
        "  buy #2 4 @ 101",
    )
)
@engine_option
@click.option("--text", "as_text", is_flag=True, help="Lines of specs/text.md instead of bytes, both ways.")
@click.option("--end", "with_end", is_flag=True, help="With --text: a line with a single dot ends each answer.")
@click.option(
    "--reports",
    "reports_file",
    metavar="FILE",
    type=click.Path(),
    help="Write the reports to a file instead: .csv, .parquet or .bin.",
)
@click.option(
    "--orders", metavar="N", type=click.IntRange(1, ORDER_CAPACITY_MAX), default=ORDER_CAPACITY, help="Order capacity."
)
@click.option(
    "--instruments",
    metavar="N",
    type=click.IntRange(1, INSTRUMENT_CAPACITY_MAX),
    default=INSTRUMENT_CAPACITY,
    help="Instrument capacity.",
)
@click.option(
    "--journal",
    "directory",
    metavar="DIR",
    type=click.Path(),
    help="Keep every command in a journal; go on with the one that is there.",
)
@click.option(
    "--durability",
    type=click.Choice([level.name for level in Durability]),
    help="With --journal, what an answer survives: D0 a kill, D1 and D2 the loss of power.  [default: D0]",
)
@click.option("--syncer", is_flag=True, help="With --journal: sync in another process, and prepare segments there.")
@json_option
def command(
    engine: str | None,
    as_text: bool,
    with_end: bool,
    reports_file: str | None,
    orders: int,
    instruments: int,
    directory: str | None,
    durability: str | None,
    syncer: bool,
    as_json: bool,
) -> int:
    """Be an engine: commands on stdin, reports on stdout, and nothing else there.

    Bytes are frames of 16 or 32, one after another, and reports of 48 (specs/wire.md). A peer knows that a command's
    reports are complete by the flag LAST (bit 7) of the last one. Every answer is written before more is read.

    With --text, a command and a report is a line (specs/text.md); empty lines and comments are passed over. --end
    writes a line with a single dot behind each command's reports, so that an adapter knows that the answer is complete.
    A line that is no command is told on stderr, takes no sequence number, and is answered by the dot alone.

    With --journal every command is in the journal before it is answered, under the time of the clock. A journal that is
    there is recovered, from its newest snapshot, and gone on with; one that is damaged is refused. Without --journal
    commands carry no time, and equal commands give equal bytes.

    An engine begins empty: define an instrument first. --json reads to the end and prints one object with the counts
    and digests; the reports then go to --reports FILE, or nowhere.

    Exit status: 0 fine, 3 when the input is cut off, has an unknown kind, or a line that is no command, 4 when the disk
    of the journal fails or is full.
    """
    if with_end and not as_text:
        raise UsageError("--end ends answers in text; bytes have the flag LAST. Add --text, or leave --end out")
    if reports_file == "-":
        raise UsageError("--reports - is where reports go anyway; leave it out, or name a file")
    if directory is None and (durability or syncer):
        raise UsageError(
            "--durability and --syncer say how a journal is kept; name one with --journal, or leave them out"
        )
    with answers(reports_file, as_json=as_json, as_text=as_text, with_end=with_end) as sink:
        run = Run(engine or quickest(), Capacity(orders, instruments), sink)
        with kept_in(directory, run, Durability[durability or "D0"], syncer=syncer) as journal:
            peer: Peer
            if as_text:
                peer = TextPeer(run, journal, with_end=with_end and not (as_json or reports_file))
            else:
                peer = BinaryPeer(run, journal)
            try:
                bad_lines, damage = peer.serve(), None
            except CorruptInput as error:  # raised only behind this block: what was answered stands
                bad_lines, damage = 0, error
    if damage:
        raise damage
    if as_json:
        print_json(
            {
                "verb": "pipe",
                "engine": run.name,
                "commands": run.commands,
                "reports": run.reports,
                "trades": run.trades,
                "state_digest": run.state_digest(),
                "reports_digest": run.reports_digest,
                "commands_per_second": per_second(run.commands, run.seconds),
                "last_sequence": journal.sequence if journal else peer.sequence,
                "report_kinds": run.kinds,
                "bad_lines": bad_lines,
                "reports_file": reports_file,
            }
        )
    elif reports_file:
        print_note(f"{reports_file}: {plural(run.reports, 'report')} of {plural(run.commands, 'command')}")
    return 3 if bad_lines else 0


@contextmanager
def kept_in(directory: str | None, run: Run, durability: Durability, *, syncer: bool) -> Iterator[Journal | None]:
    """Give the journal that commands are kept in, if there is to be one; a journal that is there is recovered first."""
    if directory is None:
        yield None
        return
    if any(Path(directory).glob("*.wal")):  # without a segment nothing was ever written
        recovered = recover(directory, run.name, durability=durability, syncer=syncer)
        journal = recovered.journal
        run.take_over(recovered.engine, recovered.tally)
        for warning in recovered.warnings:
            print_note(f"ferrox: {warning}")
        if journal.torn:
            print_note(f"ferrox: {journal.torn}")
        print_note(f"{directory}: going on behind sequence {journal.sequence}")
    else:
        journal = Journal.create(directory, run.capacity, durability=durability, syncer=syncer)
    with journal:
        yield journal


@contextmanager
def answers(path: str | None, *, as_json: bool, as_text: bool, with_end: bool) -> Iterator[Write | None]:
    """Give what takes the reports of a batch: a file, nothing, or stdout as bytes or text."""
    if path is not None:
        with report_sink(path) as sink:
            yield sink
    elif as_json:
        yield None
    elif as_text:
        yield lambda frames: write_all(text_of(frames, with_end=with_end))
    else:
        yield write_all


def read_some() -> bytes:
    """Return what is there on stdin, waiting for it if need be; nothing at the end."""
    try:
        return os.read(0, READ_SIZE)
    except OSError as error:
        raise UsageError(f"standard input: {error.strerror}") from error


def write_all(data: "bytes | memoryview") -> None:
    """Write all of it to stdout, past any buffer, so that the peer has it when this returns."""
    left = memoryview(data)
    while left:
        left = left[os.write(1, left) :]


def text_of(frames: "bytes | memoryview", *, with_end: bool) -> bytes:
    """Return reports as lines, and the mark behind the last one of each command."""
    lines: list[bytes] = []
    for report in unpack_reports(frames):
        lines.append(format_report(report).encode() + b"\n")
        if with_end and report.last:
            lines.append(END_MARK)
    return b"".join(lines)


class Peer:
    """Who sends commands: bytes come in, whole commands are cut from them and told to the engine."""

    def __init__(self, run: Run, journal: Journal | None) -> None:
        self.run, self.journal = run, journal
        self.sequence = 0
        self._records: list[bytes] = []

    def serve(self) -> int:
        """Answer until the input ends; return how many lines were no commands."""
        raise NotImplementedError

    def take(self, frame: bytes) -> None:
        """Keep a command for the next batch."""
        self.sequence += 1
        # A frame that pretends to be the journal's own record is a command of unknown kind like any other.
        kind = frame[0] if frame[0] < FIRST_ANNOTATION else 0
        self._records.append(
            ENVELOPE.pack(0, 0, self.sequence, 0, kind, len(frame), 0, 0) + frame.ljust(COMMAND_SIZE, b"\0")
        )

    def answer(self) -> None:
        """Tell the engine what was kept; its reports go out on the way."""
        if not self._records:
            return
        records = b"".join(self._records)
        self._records.clear()
        if self.journal:
            records = self.journal.append(records)
            self.journal.wait()
        self.run.feed(records)
        if self.journal and self.journal.sequence >= self.run.tally.due:
            self.run.feed(self.journal.mark(*self.run.tally.statement(self.journal.sequence)))


class BinaryPeer(Peer):
    """Frames of 16 and 32 bytes, one after another."""

    def serve(self) -> int:
        """Answer every frame; raise `CorruptInput` where no next frame can be found (WIRE-6)."""
        if sys.stdin.isatty():
            print_note("reading bytes from the terminal; for typing there is: ferrox pipe --text")
        buffer = b""
        offset = 0  # of the buffer in the stream
        while data := read_some():
            buffer += data
            place = 0
            while place < len(buffer):
                size = SIZES.get(buffer[place])
                if size is None:
                    self.answer()
                    raise CorruptInput(
                        f"standard input: offset {offset + place}, after {plural(self.sequence, 'command')}: expected "
                        f"the kind of a command, one of {', '.join(map(str, SIZES))}, found {buffer[place]}; the size "
                        "of its frame is not known, so nothing behind it can be read (WIRE-6)"
                    )
                if len(buffer) - place < size:
                    break
                self.take(buffer[place : place + size])
                place += size
            self.answer()
            offset += place
            buffer = buffer[place:]
        if buffer:
            raise CorruptInput(
                f"standard input: offset {offset}, after {plural(self.sequence, 'command')}: expected a frame of "
                f"{SIZES[buffer[0]]} bytes, found the end of the input after {len(buffer)}"
            )
        return 0


class TextPeer(Peer):
    """Lines of specs/text.md."""

    def __init__(self, run: Run, journal: Journal | None, *, with_end: bool) -> None:
        super().__init__(run, journal)
        self._with_end = with_end
        self._number = 0
        self._bad = 0
        self._patient = sys.stdin.isatty()

    def serve(self) -> int:
        """Answer every line; raise `CorruptInput` when a line has no end or too many are no commands."""
        rest = b""
        while data := read_some():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._line(line)
            self.answer()
            if len(rest) > LINE_MAX:
                raise CorruptInput(f"standard input: line {self._number + 1} is longer than {LINE_MAX} bytes")
        if rest:  # the last line may lack its end
            self._line(rest)
            self.answer()
        return self._bad

    def _line(self, data: bytes) -> None:
        """Take a line: a command, a comment, or neither."""
        self._number += 1
        line = data.decode("utf-8", "backslashreplace")
        if is_comment(line):
            return
        try:
            self.take(parse_command(line))
        except TextError as error:
            self.answer()
            self._bad += 1
            print_note(f"ferrox: standard input: line {self._number}: {abridged(str(error))}")
            if self._with_end:
                write_all(END_MARK)
            if self._bad >= BAD_LINES_MAX and not self._patient:
                raise CorruptInput(
                    f"standard input: {BAD_LINES_MAX} lines were no commands; the rest was not read"
                ) from None


def abridged(message: str) -> str:
    """Return a message without the middle of a very long line."""
    return message if len(message) <= 400 else f"{message[:250]} ... {message[-140:]}"
