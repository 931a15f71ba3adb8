"""Drawing: rich's console without its surprises, tables of plain columns, and the progress bar.

Text is never wrapped or cut, so what a pipe gets is what a terminal shows, without the colours.  NO_COLOR is rich's to
honour.  This module is imported only when something is drawn, because rich takes a while.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ferrox.cli.output import Advance

HEAD: Final = "bold"
DIM: Final = "dim"
GOOD: Final = "bold green"
BAD: Final = "bold red"
BID: Final = "green"
ASK: Final = "red"


class Terminal(Console):
    """A console that leaves a closed pipe to `ferrox.cli.run`."""

    def on_broken_pipe(self) -> None:
        """Raise the error on, where rich would exit with a status of its own."""
        raise  # noqa: PLE0704 - called from rich's own except clause


def console(*, to_stderr: bool = False) -> Terminal:
    """Return the console of stdout, or of stderr."""
    return Terminal(
        file=sys.stderr if to_stderr else sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True
    )


def show(*lines: Text | str) -> None:
    """Print lines on stdout."""
    for line in lines:
        console().print(line)


def speaks_unicode() -> bool:
    """Say whether stdout can draw more than ASCII."""
    return not console().options.ascii_only


def styled(*parts: "str | Text | tuple[str, str]") -> Text:
    """Return a line from words, lines and (word, style) pairs."""
    return Text.assemble(*parts)


def facts(pairs: Sequence[tuple[str, "str | Text"]]) -> list[Text]:
    """Return names and what they are, aligned."""
    width = max((len(name) for name, _ in pairs), default=0)
    return [Text.assemble((f"{name:<{width}}  ", DIM), value) for name, value in pairs]


def table(heads: Sequence[str], rows: Sequence[Sequence["str | Text"]], left: Sequence[int] = ()) -> list[Text]:
    """Return a table as lines: numbers to the right, the columns named in `left` to the left."""
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    lines = [[Text(head, HEAD) for head in heads], *cells]
    widths = [max(row[column].cell_len for row in lines) for column in range(len(heads))]
    drawn = []
    for row in lines:
        line = Text()
        for column, cell in enumerate(row):
            padding = " " * (widths[column] - cell.cell_len)
            line.append_text(Text("  ") if column else Text())
            line.append_text(Text.assemble(cell, padding) if column in left else Text.assemble(padding, cell))
        line.rstrip()
        drawn.append(line)
    return drawn


class RateColumn(ProgressColumn):
    """How many a second, of late."""

    def render(self, task: Task) -> Text:
        """Return the rate, or nothing as long as there is none."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", DIM)


def make_progress(unit: str) -> Progress:
    """Return a progress display for stderr that is gone when it ends."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit, style=DIM),
        RateColumn(),
        TimeRemainingColumn(),
        console=console(to_stderr=True),
        transient=True,
    )


@contextmanager
def progress_bar(label: str, total: int | None, unit: str) -> Iterator[Advance]:
    """Show a bar on stderr while the block runs; it is gone afterwards."""
    with make_progress(unit) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)
