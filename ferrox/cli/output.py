"""What all verbs share of their output: data goes to stdout, everything else to stderr.

Nothing here imports rich, so `--json` and `--help` do not pay for it; `ferrox.cli.terminal` does, and is imported when
something is drawn.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click

JSON_OPTION: Final = "--json"
NANOSECONDS: Final = 10**9

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Advance = Callable[[int], None]


def json_option(function: Decorated) -> Decorated:
    """Give a verb `--json`."""
    return click.option(JSON_OPTION, "as_json", is_flag=True, help="Print one JSON object instead.")(function)


def examples(*lines: str) -> str:
    """Return what stands below a verb's help: its examples, line by line."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def print_json(value: Mapping[str, object]) -> None:
    """Print one JSON object as one line on stdout."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_note(message: str) -> None:
    """Say something on stderr that is no data."""
    with suppress(OSError):  # what is only said may get lost
        print(one_line(message), file=sys.stderr, flush=True)


def print_error(message: str) -> None:
    """Say on stderr what went wrong, in one line."""
    print_note(f"ferrox: {message}")


def one_line(message: str) -> str:
    """Return a message without what would move a terminal's cursor: file names and values come from anywhere."""
    if message.isprintable():
        return message
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in message)


def draws_progress() -> bool:
    """Say whether somebody watches: progress is for a terminal, and one that can move its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress(label: str, total: int | None, unit: str = "commands") -> Iterator[Advance]:
    """Show a bar on stderr while the block runs, if that is a terminal; the block gets what to call with counts."""
    if not draws_progress():
        yield lambda _count: None
        return
    from ferrox.cli.terminal import progress_bar

    with progress_bar(label, total, unit) as advance:
        yield advance


def show_time(time_ns: int) -> str:
    """Return a time in nanoseconds since 1970 as people write it, or the bare number where that has no date."""
    seconds, nanoseconds = divmod(time_ns, NANOSECONDS)
    try:
        date = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{time_ns} ns"
    return f"{date:%Y-%m-%d %H:%M:%S}.{nanoseconds:09d}" if time_ns else "not told"


def show_span(first_ns: int, last_ns: int) -> str:
    """Return the time from a first to a last event."""
    return f"{show_time(first_ns)} to {show_time(last_ns)}" if first_ns or last_ns else "not told"


def show_bytes(size: int) -> str:
    """Return a size in bytes, and in larger units where that is easier to read."""
    if size < 1 << 10:
        return f"{size} bytes"
    amount, units = size / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:.1f} {units[0]}"


def show_rate(count: int, seconds: float) -> str:
    """Return how many a second, in three digits or so."""
    return f"{per_second(count, seconds):,} a second"


def per_second(count: int, seconds: float) -> int:
    """Return how many a second."""
    return round(count / seconds) if seconds > 0 else 0


def plural(count: int, what: str) -> str:
    """Return a count with its noun."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
