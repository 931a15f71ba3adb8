"""`ferrox demo`: a session, its last book, and the proof that its journal says it all.

A simulated market trades through one engine, and every command goes to a journal first.  Then a second engine, another
one where there is one, is told nothing but the journal, and must come to the same bytes.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Final

import click
import numpy as np
from attrs import define

import ferrox
from ferrox.cli.books import BookLevels, books_of
from ferrox.cli.engines import Run, fast_build, other_than, quickest
from ferrox.cli.journals import digest_of_journal, new_journal, size_of_journal
from ferrox.cli.output import draws_progress, examples, json_option, per_second, plural, print_json, show_bytes
from ferrox.cli.replay import replay_into
from ferrox.cli.simulate import SEED_MAX
from ferrox.journal import read
from ferrox.journal.reader import Reading
from ferrox.messages import REPORT_DTYPE, Report, unpack_reports
from ferrox.terms import SEQUENCE_MAX, ReportKind
from ferrox.testing.workload import Workload
from ferrox.text import SIDE_WORDS, format_order_id

if TYPE_CHECKING:
    from rich.text import Text

COMMANDS: Final = 400_000
TRADES_SHOWN: Final = 8
LEVELS: Final = 6
REFRESH_SECONDS: Final = 0.1
"""Between two pictures of the book, while a terminal watches."""


@define
class Session:
    """What the session came to, and its replay."""

    directory: str
    first: Run
    again: Run
    trades: list[Report]
    """The last ones."""
    books: list[BookLevels]
    digests: dict[str, str]
    bytes: int
    seconds: float

    @property
    def equal(self) -> bool:
        """Whether the replay came to the same reports and the same state."""
        return (self.digests["state_digest"], self.digests["reports_digest"]) == (
            self.digests["replay_state_digest"],
            self.digests["replay_reports_digest"],
        )


@click.command(
    epilog=examples(
        "ferrox demo",
        "ferrox demo --seed 42 --commands 1000000",
        "ferrox demo --keep flow && ferrox inspect flow",
    )
)
@click.option(
    "--seed", metavar="N", type=click.IntRange(0, SEED_MAX), default=7, show_default=True, help="Of the order flow."
)
@click.option(
    "--commands",
    metavar="N",
    type=click.IntRange(1, SEQUENCE_MAX),
    default=COMMANDS,
    show_default=True,
    help="How many commands.",
)
@click.option("--keep", metavar="DIR", type=click.Path(), help="Keep the journal here; a new or empty directory.")
@json_option
def command(seed: int, commands: int, keep: str | None, as_json: bool) -> int:
    """Run a simulated session and prove its replay equal.

    A seeded order flow trades through an engine, each command journaled first. Then another engine replays the journal
    and must give the same reports and the same state, byte for byte. It takes some seconds.

    Exit status: 0 the replay is equal, 1 it is not.
    """
    with nullcontext(None) if keep is not None else TemporaryDirectory(prefix="ferrox-demo-") as temporary:
        directory = keep if keep is not None else f"{temporary}/journal"
        session = play(directory, Workload(seed, commands))
    if as_json:
        print_json(to_json(session, seed, commands, keep))
    else:
        show_session(session, seed, keep)
    return 0 if session.equal else 1


def play(directory: str, workload: Workload) -> Session:
    """Trade, journal, and replay."""
    start = perf_counter()
    capacity = workload.capacity()
    trades: deque[Report] = deque(maxlen=TRADES_SHOWN)
    answers: list[bytes] = []

    def hear(frames: memoryview) -> None:
        answers.append(bytes(frames))
        reports = np.frombuffer(frames, REPORT_DTYPE)
        last = np.flatnonzero(reports["kind"] == ReportKind.TRADE)[-TRADES_SHOWN:]
        trades.extend(unpack_reports(reports[last].tobytes()))

    first = Run(quickest(), capacity, hear)
    with new_journal(directory, capacity, f"ferrox demo {workload.seed} {workload.commands}") as journal:

        def apply(records: bytes) -> bytes:
            answers.clear()
            first.feed(journal.append(records))  # what the engine is told is on its way to the disk already
            return b"".join(answers)

        with watched(workload.commands, first, trades) as advance:
            for chunk in workload.chunks(apply):
                advance(len(chunk))
    again = Run(other_than(first.name), capacity)
    with Reading(directory) as reading:
        reading.load()
        replay_into(again, reading, None)
    for records in read(directory, first.commands + 1):  # the SEAL, so that both have seen the same
        first.feed(records)
    snapshot = first.engine.snapshot()
    digests = {
        "journal_digest": digest_of_journal(directory),
        "state_digest": first.state_digest(),
        "reports_digest": first.reports_digest,
        "replay_state_digest": again.state_digest(),
        "replay_reports_digest": again.reports_digest,
    }
    seconds = perf_counter() - start
    size = size_of_journal(directory)
    return Session(directory, first, again, list(trades), list(books_of(snapshot)), digests, size, seconds)


@contextmanager
def watched(total: int, run: Run, trades: "deque[Report]") -> Iterator[Callable[[int], None]]:
    """Show a terminal the bar, the busiest book and the last trades, as they move."""
    if not draws_progress():
        yield lambda _count: None
        return
    from rich.console import Group
    from rich.live import Live

    from ferrox.cli.render import busiest, ladder
    from ferrox.cli.terminal import console, make_progress

    bar = make_progress("commands")
    task = bar.add_task("trading", total=total)
    chosen: list[int] = []
    drawn = 0.0

    def picture() -> Group:
        books = list(books_of(run.engine.snapshot(), LEVELS))
        if not chosen and (most := busiest(books)) and most.bids and most.asks:
            chosen.append(most.instrument)
        lines = [line for book in books if book.instrument in chosen for line in ladder(book, LEVELS)]
        return Group(bar, "", *lines, "", *trade_lines(list(trades)))

    with Live(bar, console=console(to_stderr=True), transient=True, refresh_per_second=10) as live:

        def advance(count: int) -> None:
            nonlocal drawn
            bar.advance(task, count)
            if monotonic() - drawn > REFRESH_SECONDS:
                live.update(picture())
                drawn = monotonic()

        yield advance


def trade_lines(trades: list[Report]) -> "list[Text]":
    """Return trades as a table, the latest last."""
    from rich.text import Text

    from ferrox.cli.terminal import ASK, BID, table

    rows: list[list[str | Text]] = [
        [
            f"{trade.sequence:,}",
            str(trade.instrument),
            Text(SIDE_WORDS.get(trade.side, "?"), BID if trade.side == 1 else ASK),
            f"{trade.quantity:,}",
            str(trade.price),
            format_order_id(trade.order_id),
            format_order_id(trade.contra_id),
        ]
        for trade in trades
    ]
    return (
        table(("sequence", "instrument", "taker", "quantity", "price", "order", "maker"), rows, left=(2,))
        if rows
        else []
    )


def to_json(session: Session, seed: int, commands: int, keep: str | None) -> dict[str, Any]:
    """Return the session as one object."""
    first, again = session.first, session.again
    return {
        "verb": "demo",
        "seed": seed,
        "commands": commands,
        "reports": first.reports,
        "trades": first.trades,
        "engine": first.name,
        "replay_engine": again.name,
        "fast_engine": fast_build(),
        "equal": session.equal,
        **session.digests,
        "commands_per_second": per_second(first.commands, first.seconds),
        "replay_commands_per_second": per_second(again.commands, again.seconds),
        "bytes": session.bytes,
        "directory": keep,
        "seconds": round(session.seconds, 3),
    }


def name_of(run: Run) -> str:
    """Return an engine's name with its build, where that matters."""
    return f"{run.name} ({fast_build()})" if run.name == "fast" else run.name


def show_session(session: Session, seed: int, keep: str | None) -> None:
    """Print the session for people: what happened, the book, the last trades, the proof."""
    from ferrox.cli.render import busiest, ladder
    from ferrox.cli.terminal import BAD, DIM, GOOD, HEAD, facts, show, styled

    first, again, digests = session.first, session.again, session.digests
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in first.kinds.items())
    show(styled(("Ferrox", HEAD), (f"  {ferrox.__version__}, a deterministic matching engine", DIM)), "")
    show(styled(("The session", HEAD)))
    show(
        *facts(
            [
                (
                    "  flow",
                    f"{plural(first.commands, 'command')}, seed {seed}, {plural(len(session.books), 'instrument')}",
                ),
                ("  reports", f"{first.reports:,}: {kinds}"),
                ("  engine", f"{name_of(first)}, {per_second(first.commands, first.seconds):,} commands a second"),
                ("  journal", f"{show_bytes(session.bytes)}{f' in {keep}' if keep else ''}"),
                ("  digest", digests["journal_digest"]),
            ]
        ),
        "",
    )
    book = busiest(session.books)
    if book is not None:
        show(styled(("The book it ends with", HEAD), ("  the busiest of them", DIM)))
        show(*[styled("  ", line) for line in ladder(book)], "")
    if session.trades:
        show(styled(("The last trades", HEAD)))
        show(*[styled("  ", line) for line in trade_lines(session.trades)], "")
    show(styled(("The proof", HEAD), ("  the same journal, told to a second engine", DIM)))
    show(
        *facts(
            [
                ("  session", f"{name_of(first)}"),
                ("    state", digests["state_digest"]),
                ("    reports", digests["reports_digest"]),
                ("  replay", f"{name_of(again)}, {per_second(again.commands, again.seconds):,} commands a second"),
                ("    state", digests["replay_state_digest"]),
                ("    reports", digests["replay_reports_digest"]),
            ]
        ),
        "",
    )
    if session.equal:
        show(
            styled(
                ("EQUAL", GOOD), f"  {plural(first.commands, 'command')}, the same bytes, in {session.seconds:.1f} s"
            )
        )
    else:
        show(
            styled(
                ("DIFFERENT", BAD),
                "  the replay came to other bytes; keep the journal with --keep and run: ferrox verify",
            )
        )
