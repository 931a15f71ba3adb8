"""`ferrox watch`: a running service as it is now: a book, the last trades, the rates, the processes."""

import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from ferrox.cli.books import BookLevels
from ferrox.cli.output import examples, json_option, plural, print_json
from ferrox.cli.service import config_option
from ferrox.errors import UsageError
from ferrox.service.config import read_config
from ferrox.terms import INSTRUMENT_MAX

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from ferrox.cli.watching import Watch

LEVELS: Final = 8
LEVELS_MAX: Final = 50
FRAME_SECONDS: Final = 0.25
ONCE_SECONDS: Final = 1.0
"""What a single frame takes, because a rate needs two looks."""
FEED_SECONDS: Final = 10.0
"""How long it waits for the feed."""
WIDE: Final = 118
"""Columns from which on the picture stands in two halves."""
HALF: Final = 58
BAR_WIDTH: Final = 20
SILENT_MS: Final = 5_000
"""How old a beat is that is shown as trouble."""


@click.command(
    epilog=examples(
        "ferrox watch",
        "ferrox watch --instrument 2 --levels 12",
        "ferrox watch --once                    one picture, for a log or a pipe",
        "ferrox watch --json | jq .rates",
    )
)
@config_option
@click.option(
    "--instrument",
    metavar="N",
    type=click.IntRange(1, INSTRUMENT_MAX),
    help="Whose book and trades; by default the one with the most orders.",
)
@click.option(
    "--levels",
    metavar="N",
    type=click.IntRange(1, LEVELS_MAX),
    default=LEVELS,
    show_default=True,
    help="Levels of each side.",
)
@click.option("--seconds", metavar="S", type=click.FloatRange(0, min_open=True), help="Stop after so long.")
@click.option("--once", is_flag=True, help="Print one picture, and end.")
@json_option
def command(
    config_file: str, instrument: int | None, levels: int, seconds: float | None, once: bool, as_json: bool
) -> int:
    """Watch a running service: a book, its last trades, the rates, and how each process is.

    The book and the trades come from the feed, everything else from the service's board, so the service does no more
    for a watcher than for any other subscriber. Ctrl-C ends it. A process that dies, or all of the service, is shown
    as such, and the watch goes on.

    Exit status: 0 --seconds, --once or --json are done, 2 no service runs here, or there is no such instrument.
    """
    from ferrox.cli.watching import Watch

    config = read_config(config_file)
    alone = once or as_json
    if not alone and (not sys.stdout.isatty() or os.environ.get("TERM") == "dumb"):
        raise UsageError("a live picture needs a terminal on stdout; ask for one picture with --once, or with --json")
    with Watch(config, instrument) as watch:
        if not alone:
            watch_live(watch, levels, seconds)
            return 0
        await_feed(watch, ONCE_SECONDS if seconds is None else seconds)
        book = watch.book()
        frame = watch.frame(book, levels)
    if as_json:
        print_json(frame)
    else:
        show_frame(frame, book, levels)
    return 0


def await_feed(watch: "Watch", seconds: float) -> None:
    """Look until the books are there and a rate is known."""
    start = time.monotonic()
    while True:
        passed = time.monotonic() - start
        if passed >= seconds and (watch.settled() or passed >= max(seconds, FEED_SECONDS)):
            return
        time.sleep(FRAME_SECONDS)
        watch.look()
        watch.expect_instrument()


# ------------------------------------------------------------------------------------------------------------- to draw


def watch_live(watch: "Watch", levels: int, seconds: float | None) -> None:
    """Draw four pictures a second until the time is over."""
    from rich.live import Live

    from ferrox.cli.terminal import Terminal

    console = Terminal(file=sys.stdout, highlight=False, markup=False, emoji=False)
    until = None if seconds is None else time.monotonic() + seconds
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while until is None or time.monotonic() < until:
            start = time.monotonic()
            watch.look()
            watch.expect_instrument()
            width, height = console.size
            book = watch.book()
            frame = watch.frame(book, levels)
            live.update(picture(frame, book, levels, width, height), refresh=True)
            time.sleep(max(0.0, FRAME_SECONDS - (time.monotonic() - start)))
    show_frame(frame, book, levels)


def picture(frame: dict[str, Any], book: BookLevels | None, levels: int, width: int, height: int) -> "RenderableType":
    """Return a frame for a terminal: in two halves where it is wide enough, below each other where it is not."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    head, service = head_lines(frame), service_lines(frame)
    if width >= WIDE:
        halves = Table.grid(padding=(0, 2))
        halves.add_column(width=HALF, no_wrap=True, overflow="crop")
        halves.add_column(no_wrap=True, overflow="crop")
        market = market_lines(frame, book, levels, height - len(head) - 2)
        halves.add_row(Text("\n").join(market), Text("\n").join(service))
        lines: list[RenderableType] = [*map(cut, head), Text(), halves]
        return Group(*lines)
    market = market_lines(frame, book, levels, height - len(head) - len(service) - 3)
    return Group(*map(cut, [*head, Text(), *market, Text(), *service]))


def cut(line: "Text") -> "Text":
    """Have a line end where the terminal does."""
    line.no_wrap, line.overflow = True, "crop"
    return line


def show_frame(frame: dict[str, Any], book: BookLevels | None, levels: int) -> None:
    """Print a frame, line by line."""
    from rich.text import Text

    from ferrox.cli.terminal import show

    show(*head_lines(frame), Text(), *market_lines(frame, book, levels), Text(), *service_lines(frame))


def head_lines(frame: dict[str, Any]) -> "list[Text]":
    """Return what is watched, and what is wrong with it."""
    from ferrox.cli.terminal import BAD, DIM, GOOD, styled

    word = ("ready", GOOD) if frame["ready"] else ("NOT READY", BAD)
    if not frame["answers"]:
        word = ("NOT ANSWERING", BAD)
    up = f"  {frame['config']}, up {frame['up_seconds']:,.0f} s, level {frame['durability']}"
    lines = [styled(word, (up, DIM))]
    feed = frame["feed"]
    if feed["behind"]:
        lines.append(
            styled(("behind", BAD), "  the feed is quicker than these books; they begin again with states meanwhile")
        )
    if feed["problem"]:
        lines.append(styled(("feed", BAD), f"  {feed['problem']}"))
    return lines


def market_lines(frame: dict[str, Any], book: BookLevels | None, levels: int, room: int | None = None) -> "list[Text]":
    """Return the book and the last trades, in so many lines where there is no more room."""
    from rich.text import Text

    from ferrox.cli.render import ladder
    from ferrox.cli.terminal import ASK, BID, DIM, HEAD, styled, table

    trades = frame["trades"]
    if book is None:
        lines = [styled(("no book yet", DIM))]
    else:
        if room is not None:  # a head, the spread, the levels further away, and a few trades stand there as well
            levels = max(1, min(levels, (room - min(len(trades), 4) - 6) // 2))
        lines = ladder(book, levels, BAR_WIDTH)
    lines.append(Text())
    if room is not None:
        trades = trades[-max(1, room - len(lines) - 2) :]
    if not trades:
        return [*lines, styled(("no trade was seen", DIM))]
    rows: list[list[str | Text]] = [
        [
            f"{trade['sequence']:,}",
            Text(trade["taker"], BID if trade["taker"] == "buy" else ASK),
            f"{trade['quantity']:,}",
            str(trade["price"]),
            trade["order"],
            trade["maker"],
        ]
        for trade in reversed(trades)
    ]
    heads = ("sequence", "taker", "quantity", "price", "order", "maker")
    return [*lines, styled(("last trades", HEAD), ("  the latest first", DIM)), *table(heads, rows, left=(1,))]


def service_lines(frame: dict[str, Any]) -> "list[Text]":
    """Return rates, processes, and where journal, ring, tape and feed stand."""
    from rich.text import Text

    from ferrox.cli.terminal import BAD, facts, table

    rates = table(
        [f"{name.removesuffix('_per_second')}/s" for name in frame["rates"]],
        [[f"{rate:,}" for rate in frame["rates"].values()]],
    )
    latencies = table(
        ("latency us", "P50", "P90", "P99", "P99.9", "max"),
        [
            [stage, *(f"{values[name]:,.0f}" for name in ("p50_us", "p90_us", "p99_us", "p99_9_us", "max_us"))]
            for stage, values in frame["latencies"].items()
        ],
        left=(0,),
    )
    processes: list[list[str | Text]] = []
    for role, row in frame["processes"].items():
        beat = f"{row['beat_ms']:,} ms" if row["beat_ms"] < SILENT_MS else f"{row['beat_ms'] // 1000:,} s"
        processes.append(
            [
                role,
                Text(row["state"], "" if row["state"] == "running" else BAD),
                str(row["pid"]),
                Text(str(row["restarts"]), BAD if row["restarts"] else ""),
                Text(beat, "" if row["beat_ms"] < SILENT_MS else BAD),
            ]
        )
    repaired = "{}, {:,} recovered, {} taken"
    journal, ring, tape, feed = frame["journal"], frame["ring"], frame["tape"], frame["feed"]
    return [
        *rates,
        Text(),
        *latencies,
        Text(),
        *table(("process", "state", "pid", "restarts", "beat"), processes, left=(0, 1)),
        Text(),
        *facts(
            [
                (
                    "journal",
                    f"sequence {journal['sequence']:,}, durable {journal['durable']:,}, lag {journal['lag']:,}",
                ),
                ("ring", f"{plural(ring['waiting'], 'command')} of {ring['capacity']:,}"),
                ("tape", f"{plural(tape['unread'], 'report')} of {tape['capacity']:,} unread, last {tape['last']:,}"),
                (
                    "feed",
                    Text.assemble(
                        (feed["state"], "" if feed["state"] == "sync" else BAD),
                        f", report {feed['number']:,} of {feed['published']:,}",
                    ),
                ),
                ("", repaired.format(plural(feed["gaps"], "gap"), feed["recovered"], plural(feed["states"], "state"))),
            ]
        ),
    ]
