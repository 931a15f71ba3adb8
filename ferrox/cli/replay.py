"""`ferrox replay`: an engine is told a journal again."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import click

from ferrox.cli.books import book_json, books_of
from ferrox.cli.engines import Run, engine_option, quickest
from ferrox.cli.output import examples, json_option, per_second, plural, print_json, print_note, progress
from ferrox.columns import SUFFIXES, ReportWriter
from ferrox.errors import CorruptInput, UsageError
from ferrox.journal.reader import BATCH, Reading
from ferrox.messages import RECORD_SIZE
from ferrox.snapshot import latest_snapshot
from ferrox.state import digest
from ferrox.terms import SEQUENCE_MAX


@click.command(
    epilog=examples(
        "ferrox replay flow",
        "ferrox replay flow --until 5000 --book",
        "ferrox replay flow --engine reference --json",
        "ferrox replay flow --reports reports.parquet",
        "ferrox replay flow --reports - | head -c 4800 | xxd -c 48",
    )
)
@click.argument("directory", metavar="DIR", type=click.Path())
@engine_option
@click.option("--until", type=click.IntRange(0, SEQUENCE_MAX), metavar="SEQ", help="Stop after this sequence number.")
@click.option(
    "--reports",
    "reports_file",
    metavar="FILE",
    type=click.Path(),
    help="Write all reports: .csv, .parquet, .bin (48 bytes each), or - for the bytes on stdout.",
)
@click.option("--book", "whole_book", is_flag=True, help="Show every level of every book.")
@json_option
def command(
    directory: str, engine: str | None, until: int | None, reports_file: str | None, whole_book: bool, as_json: bool
) -> int:
    """Tell an engine a journal again, and show the books it ends with.

    Every record is verified on the way.  The digests are the SHA-256 of the final state and of all reports; both
    engines give the same.  A journal whose first segments are archived begins with its newest snapshot.  Where it
    states what the engine said that ran with it, that is compared, too.

    Exit status: 0 fine, 1 the engine says something else than the journal states, 3 corrupt.
    """
    if reports_file == "-" and as_json:
        raise UsageError("--reports - and --json both want stdout; give --reports a file")
    start = perf_counter()
    with Reading(directory) as reading:
        reading.load()
        with report_sink(reports_file) as sink:
            run = Run(engine or quickest(), reading.segments[0].header.capacity, sink)
            last = replay_into(run, reading, until)
    seconds = perf_counter() - start
    notes = notes_on(reading, run.origin, until, last)
    for note in notes:
        print_note(note)
    snapshot = run.engine.snapshot()
    result: dict[str, Any] = {
        "verb": "replay",
        "directory": directory,
        "engine": run.name,
        "commands": run.commands,
        "reports": run.reports,
        "trades": run.trades,
        "state_digest": digest(snapshot),
        "reports_digest": run.reports_digest,
        "commands_per_second": per_second(run.commands, run.seconds),
        "first_sequence": run.origin + 1,
        "last_sequence": last,
        "until": until,
        "report_kinds": run.kinds,
        "statements": run.statements,
        "seconds": round(seconds, 3),
        "engine_seconds": round(run.seconds, 3),
        "notes": notes,
    }
    books = list(books_of(snapshot))
    if as_json:
        print_json(result | {"books": [book_json(book, depth=whole_book) for book in books]})
        return 0
    from ferrox.cli.render import show_books
    from ferrox.cli.terminal import console, facts

    out = console(to_stderr=reports_file == "-")  # stdout belongs to the reports then
    for line in [
        *show_books(books, everything=whole_book),
        "",
        *facts(
            [
                ("commands", f"{run.commands:,}"),
                ("reports", f"{run.reports:,}, of which {plural(run.trades, 'trade')}"),
                ("state digest", result["state_digest"]),
                ("reports digest", result["reports_digest"]),
                ("engine", f"{run.name}, {result['commands_per_second']:,} commands a second"),
            ]
        ),
    ]:
        out.print(line)
    return 0


def replay_into(run: Run, reading: Reading, until: int | None) -> int:
    """Feed an engine the records up to a sequence number; return the last one."""
    last = begin(run, reading, until)
    total = max(0, reading.segments[-1].base - 1 + reading.segments[-1].slots - last)
    with progress("replaying", total if until is None else min(total, until - last), "records") as advance:
        try:
            for records in reading.batches(last + 1, until, BATCH):
                run.feed(records)
                last += len(records) // RECORD_SIZE
                advance(len(records) // RECORD_SIZE)
        except CorruptInput as error:
            if last > run.origin:
                error.args = (f"{error} Sound up to sequence {last}: ferrox replay --until {last}",)
            raise
    return last


def begin(run: Run, reading: Reading, until: int | None) -> int:
    """Give an engine the newest snapshot, if the first record is archived; return its sequence, otherwise 0 (JRN-20).

    One that is later than `until` is of no use; where all are, the reading says so.
    """
    if reading.segments[0].base == 1:
        return 0
    latest = latest_snapshot(reading.directory, reading.mark.uuid, until)
    reading.warnings += latest.warnings
    if latest.path:
        run.restore(latest.state, latest.sequence)
    return latest.sequence


def notes_on(reading: Reading, origin: int, until: int | None, last: int) -> list[str]:
    """Return what somebody should know who sees only the result."""
    notes = list(reading.warnings)
    if origin:
        notes.append(f"what was before is archived; this began at sequence {origin + 1}, with the snapshot of {origin}")
    if reading.torn:
        notes.append(f"{reading.torn}; the journal ends before it")
    if until is not None and until > last:
        notes.append(f"the journal ends at sequence {last}, before --until {until}; all of it was replayed")
    return notes


@contextmanager
def report_sink(path: str | None) -> Iterator[Callable[[memoryview], object] | None]:
    """Give what takes reports: a file by its suffix, stdout for "-", nothing for None."""
    if path is None:
        yield None
    elif path == "-":
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
    else:
        if not path.lower().endswith(SUFFIXES):
            raise UsageError(
                f"{path}: the suffix says the form, and it is one of: .csv, .parquet, .bin (or - for raw on stdout)"
            )
        try:
            with ReportWriter(path) as writer:
                yield writer.write
        except BrokenPipeError:
            raise
        except OSError as error:
            with suppress(OSError):
                Path(f"{path}.partial").unlink()
            raise UsageError(f"{path}: {error.strerror or error}") from error
