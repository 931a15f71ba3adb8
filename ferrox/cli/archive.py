"""`ferrox archive`: segments that sound snapshots stand for are put away, or come back."""

from typing import Any

import click

from ferrox.cli.output import examples, json_option, plural, print_json, print_note, show_bytes
from ferrox.errors import UsageError
from ferrox.journal.archive import KEPT, Retention, archive, restore, retention


@click.command(
    epilog=examples(
        "ferrox archive flow                      what could go?",
        "ferrox archive flow --to /backup/flow    pack it, compare it, then take it out",
        "ferrox archive flow --keep 5 --delete",
        "ferrox archive flow --restore /backup/flow/00000000000000000001-00000001.wal.gz",
        "ferrox archive flow --json",
    )
)
@click.argument("directory", metavar="DIR", type=click.Path())
@click.option(
    "--keep",
    type=click.IntRange(1, 1_000_000),
    default=KEPT,
    show_default=True,
    metavar="N",
    help="How many sound snapshots stay, with all records behind the oldest of them.",
)
@click.option(
    "--to", metavar="DIR2", type=click.Path(), help="Pack what goes into this directory, as .gz, and compare."
)
@click.option("--delete", is_flag=True, help="Take it out without a copy.")
@click.option(
    "--restore", "back", metavar="FILE.gz", type=click.Path(), multiple=True, help="Put an archived file back; repeat."
)
@json_option
def command(directory: str, keep: int, to: str | None, delete: bool, back: tuple[str, ...], as_json: bool) -> int:
    """Put away the segments that sound snapshots stand for.

    A segment may go when all its records are behind the oldest of the snapshots that stay, and the journal and these
    snapshots were read whole and found sound.  The last two segments stay in any case, so a writer may be at work.
    Without --to and --delete nothing is changed, and it is told what could go.

    A journal that begins later is replayed from a snapshot.  gunzip, or --restore, brings back an archived file as it
    was; restore the last segment first, or all at once.

    Exit status: 0 fine, 2 another archiver is at work, 3 the journal is corrupt, and nothing went.
    """
    if (to is not None) + delete + bool(back) > 1:
        raise UsageError("--to, --delete and --restore are three different things; choose one")
    if back:
        names = restore(directory, list(back))
        if as_json:
            print_json({"verb": "archive", "directory": directory, "restored": names})
        else:
            for name in names:
                click.echo(f"restored  {name}")
        return 0
    changing = delete or to is not None
    found = archive(directory, keep=keep, to=to) if changing else retention(directory, keep)
    for warning in found.warnings:
        print_note(warning)
    if as_json:
        print_json(to_json(found, to, changed=changing))
    else:
        show(found, to, changed=changing)
    return 0


def to_json(found: Retention, to: str | None, *, changed: bool) -> dict[str, Any]:
    """Return what went, or what could go, as JSON has it."""
    return {
        "verb": "archive",
        "directory": found.directory,
        "to": to,
        "removed": changed,
        "segments": [
            {"name": item.name, "bytes": item.size, "first_sequence": item.first, "last_sequence": item.last}
            for item in found.segments
        ],
        "snapshots": [{"name": item.name, "bytes": item.size, "sequence": item.first} for item in found.snapshots],
        "bytes": found.size,
        "kept_snapshots": list(found.kept),
        "reason": found.reason,
        "warnings": list(found.warnings),
    }


def show(found: Retention, to: str | None, *, changed: bool) -> None:
    """Print what went, or what could go."""
    from ferrox.cli.terminal import facts, show

    word = "archived" if to is not None else "deleted" if changed else "could go"
    pairs = [(word, f"{item.name}  {show_bytes(item.size)}") for item in found.items]
    total = f"{plural(len(found.segments), 'segment')}, {plural(len(found.snapshots), 'snapshot')}"
    pairs += [("in all", f"{total}, {show_bytes(found.size)}"), ("stays", found.reason)]
    show(*facts(pairs))
    if found.items and not changed:
        show("nothing was changed; to take it out: --to DIR2, or --delete")
