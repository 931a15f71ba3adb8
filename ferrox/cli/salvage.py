"""`ferrox salvage`: what can be kept of a damaged journal, in a new one, with a report of the loss."""

import time
from typing import Any

import click

import ferrox
from ferrox.cli import CORRUPT
from ferrox.cli.output import examples, json_option, plural, print_json
from ferrox.errors import UsageError
from ferrox.journal.salvage import REPORT_JSON, REPORT_TEXT, UNCERTAIN, Plan, Survey, plan, salvage


@click.command(
    epilog=examples(
        "ferrox salvage flow                                    what would be lost?",
        "ferrox salvage flow --out saved --accept-loss",
        "ferrox salvage flow --from-snapshot --out saved --accept-loss",
        "ferrox salvage flow --json",
    )
)
@click.argument("directory", metavar="DIR", type=click.Path())
@click.option("--out", metavar="NEW", type=click.Path(), help="The journal to write: a directory that is new or empty.")
@click.option("--accept-loss", is_flag=True, help="Write NEW; without it, only tell what would be lost.")
@click.option(
    "--from-snapshot",
    is_flag=True,
    help="Allow NEW to begin with a sound snapshot behind the damage, if that keeps more.",
)
@json_option
def command(directory: str, out: str | None, accept_loss: bool, from_snapshot: bool, as_json: bool) -> int:
    """Keep what is sound of a journal that is refused, in a new one.

    DIR is never changed.  NEW gets the longest sound prefix of its records, under the same sequence numbers, and a
    report of what was lost: loss-report.txt and loss-report.json.  Records beyond a hole are counted and not used,
    because the state behind a hole is unknown.

    With --from-snapshot NEW may begin behind a sound snapshot; then nothing is lost for the state, and the records
    before it are.  The way that ends latest is taken.

    Restore a damaged file from a copy first, if there is one: that loses nothing.

    Exit status: 0 nothing is lost, or the loss was accepted and NEW written; 3 something would be lost.
    """
    if accept_loss:
        if out is None:
            raise UsageError("--accept-loss writes a new journal; name a directory for it: --out NEW")
        report = salvage(directory, out, from_snapshot=from_snapshot, now_ns=time.time_ns(), version=ferrox.__version__)
        if as_json:
            print_json({"verb": "salvage", "written": True} | report)
        else:
            show(report, out)
        return 0
    with Survey(directory) as survey:
        chosen = plan(survey, from_snapshot=from_snapshot)
        result = chosen.to_json()
    if as_json:
        print_json({"verb": "salvage", "written": False, "sound": chosen.sound} | result)
    else:
        show(result, None)
        advise(chosen)
    return CORRUPT if chosen.lost else 0


def show(result: dict[str, Any], out: str | None) -> None:
    """Print what is kept and what is lost."""
    from ferrox.cli.terminal import BAD, GOOD, facts, show, styled

    kept, lost, not_used = result["kept"], result["lost"], result["not_used"]
    span = f", sequence {kept['first_sequence']} to {kept['last_sequence']}" if kept["records"] else ""
    pairs: list[tuple[str, Any]] = [("journal", f"{result['source']['directory']}, {result['source']['verdict']}")]
    pairs += [
        (
            "found",
            f"{found['file']}: offset {found['offset']}, sequence {found['sequence']}: "
            + (f"expected {found['expected']}, found {found['found']}" if found["expected"] else found["found"]),
        )
        for found in result["found"]
    ]
    pairs.append(("keeps", f"{plural(kept['records'], 'record')}{span}"))
    pairs.append(("", kept["why"]))
    if kept["stood_for"]:
        pairs.append(
            ("", f"{plural(kept['stood_for'], 'record')} before that are not kept: the snapshot stands for them")
        )
    if lost["records"]:
        told = f"{plural(lost['records'], 'record')}, sequence {lost['first_sequence']} to {lost['last_sequence']}"
        pairs.append(("loses", styled((told, BAD))))
        pairs.append(("", f"{lost['acknowledged']:,} of them at or below the watermark, {lost['durable_sequence']}"))
    else:
        pairs.append(("loses", styled(("nothing", GOOD))))
    if not lost["certain"]:
        pairs.append(("", UNCERTAIN))
    if not_used["records"]:
        pairs.append(("not used", f"{plural(not_used['records'], 'record')} sound by themselves"))
        pairs += [
            ("", f"{run['first_sequence']} to {run['last_sequence']}, {run['file']}") for run in not_used["ranges"]
        ]
    show(*facts(pairs))
    if out is not None:
        show(f"written: {out}; the loss is told in {out}/{REPORT_TEXT} and {out}/{REPORT_JSON}")


def advise(chosen: Plan) -> None:
    """Print what could be done next."""
    from ferrox.cli.terminal import show

    if chosen.sound:
        show("sound: there is nothing to salvage")
        return
    if chosen.other:
        show(f"--from-snapshot would keep more: {chosen.other}")
    if chosen.survey.scan.verdict == "torn":
        show("a torn tail needs no salvage: opening the journal for append keeps it aside and goes on")
    show("nothing was written; to go on with this loss: --out NEW --accept-loss")
