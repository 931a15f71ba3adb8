"""`ferrox shadow`: an engine beside a running one, which writes its snapshots and checks what it says."""

from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, Final

import click

from ferrox.cli.engines import engine_option, open_engine, quickest
from ferrox.cli.output import Advance, examples, json_option, plural, print_json, print_note, progress
from ferrox.cli.signals import noted
from ferrox.journal import BATCH
from ferrox.shadow import EVERY, KEEP, Shadow
from ferrox.state import digest

IDLE_SECONDS: Final = 0.002


@click.command(
    epilog=examples(
        "ferrox shadow flow",
        "ferrox shadow flow --every 1000000 --every-seconds 60 --keep 3",
        "ferrox shadow flow --until-sealed --json",
    )
)
@click.argument("directory", metavar="DIR", type=click.Path())
@engine_option
@click.option(
    "--every",
    type=click.IntRange(1),
    default=EVERY,
    show_default=True,
    metavar="N",
    help="Write a snapshot every N records.",
)
@click.option(
    "--every-seconds",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="Write one S seconds after the last, too, if there were records.",
)
@click.option(
    "--keep",
    type=click.IntRange(1),
    default=KEEP,
    show_default=True,
    metavar="K",
    help="Keep the newest K sound snapshots, and remove older ones.",
)
@click.option("--until-sealed", is_flag=True, help="Stop when the journal is closed, with a last snapshot.")
@json_option
def command(
    directory: str,
    engine: str | None,
    every: int,
    every_seconds: float | None,
    keep: int,
    until_sealed: bool,
    as_json: bool,
) -> int:
    """Follow a journal while it is written, with an engine of its own.

    It writes snapshots beside the journal, so that a restart is quick and the live engine never stops for one, and
    holds what its engine says against what the journal states of the live one.  It begins from the newest sound
    snapshot, needs nothing from the writer, and may be stopped or killed at any time: Ctrl-C and SIGTERM end it in
    order.

    Exit status: 0 sealed or stopped, 1 the engine says something else than the journal states, 3 corrupt.
    """
    start = monotonic()
    name = engine or quickest()
    snapshots: list[str] = []
    with Shadow(directory, name, make=open_engine, keep=keep) as shadow:
        for warning in shadow.warnings:
            print_note(warning)
        tell = print if not as_json else lambda *_, **__: None
        tell(f"shadow    {directory}, engine {name}, from sequence {shadow.first}", flush=True)

        def save() -> None:
            path = str(shadow.save())
            snapshots.append(path)
            tell(f"snapshot  {path}", flush=True)

        with noted() as notes, progress("following", None, "records") as advance:
            stopped = _follow(shadow, every, every_seconds, until_sealed, save, advance, notes)
        result: dict[str, Any] = {
            "verb": "shadow",
            "directory": directory,
            "engine": name,
            "stopped": stopped,
            "first_sequence": shadow.first,
            "last_sequence": shadow.sequence,
            "reports": shadow.reports,
            "statements": shadow.tally.checked,
            "snapshots": snapshots,
            "state_digest": digest(shadow.engine.snapshot()),
            "seconds": round(monotonic() - start, 3),
            "notes": list(shadow.warnings),
        }
    if as_json:
        print_json(result)
    else:
        tell(
            f"stopped   {stopped} at sequence {shadow.sequence}, {plural(shadow.reports, 'report')}, "
            f"{plural(shadow.tally.checked, 'statement')} found right"
        )
        tell(f"state     {result['state_digest']}")
    return 0


def _follow(
    shadow: Shadow,
    every: int,
    every_seconds: float | None,
    until_sealed: bool,
    save: Callable[[], None],
    advance: Advance,
    notes: list[str],
) -> str:
    """Step until a signal is noted, or the journal is sealed if that is an end, and save when it is time; say which."""
    due, last = shadow.sequence + every, monotonic()
    while not notes:
        count = shadow.step(min(BATCH, due - shadow.sequence))
        advance(count)
        sealed = until_sealed and not count and shadow.tail.sealed
        late = every_seconds is not None and monotonic() - last >= every_seconds
        if shadow.sequence >= due or ((sealed or late) and shadow.sequence > shadow.saved):
            save()
            due, last = shadow.sequence + every, monotonic()
        if sealed:
            return "sealed"
        if not count:
            sleep(IDLE_SECONDS)
    return notes[0]
