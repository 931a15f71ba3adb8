"""`ferrox simulate`: a seeded order flow, written as a journal."""

from time import perf_counter
from typing import Final

import click

from ferrox.cli.engines import open_engine, quickest
from ferrox.cli.journals import digest_of_journal, new_journal, out_option, size_of_journal
from ferrox.cli.output import examples, json_option, per_second, plural, print_json, progress, show_bytes
from ferrox.terms import SEQUENCE_MAX
from ferrox.testing.workload import PRESETS, Workload, applier

SEED_MAX: Final = 2**64 - 1


@click.command(
    epilog=examples(
        "ferrox simulate --seed 7 --commands 100000 --out flow",
        "ferrox simulate --preset deep --commands 1000000 --out deep",
        "ferrox simulate --seed 7 --commands 1000 --out small --json",
    )
)
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(0, SEED_MAX),
    default=1,
    show_default=True,
    help="Equal seeds, equal bytes.",
)
@click.option(
    "--commands",
    metavar="N",
    type=click.IntRange(0, SEQUENCE_MAX),
    default=100_000,
    show_default=True,
    help="How many commands.",
)
@out_option
@click.option(
    "--preset", type=click.Choice(list(PRESETS)), default="default", show_default=True, help="Kind of market."
)
@json_option
def command(seed: int, commands: int, out: str, preset: str, as_json: bool) -> int:
    """Write a seeded, realistic order flow as a journal.

    Orders arrive in bursts, at distances from the touch with a power-law tail, and most are canceled; instruments and
    accounts differ in activity as Zipf's law says.  The same seed, preset and number give the same bytes, on any
    machine; the first N commands of a longer flow are those of a shorter one.
    """
    workload = Workload(seed, commands, preset)
    start = perf_counter()
    with new_journal(out, workload.capacity(), f"ferrox simulate {preset} {seed} {commands}") as journal:
        engine = open_engine(quickest(), workload.capacity())
        with progress("simulating", commands) as advance:
            for chunk in workload.chunks(applier(engine)):
                journal.append(chunk.tobytes())
                advance(len(chunk))
        records, uuid = journal.sequence + 1, journal.uuid.hex()  # the SEAL of a clean close is a record, too
    seconds = perf_counter() - start
    result = {
        "verb": "simulate",
        "directory": out,
        "seed": seed,
        "preset": preset,
        "commands": commands,
        "records": records,
        "bytes": size_of_journal(out),
        "uuid": uuid,
        "journal_digest": digest_of_journal(out),
        "seconds": round(seconds, 3),
        "commands_per_second": per_second(commands, seconds),
    }
    if as_json:
        print_json(result)
        return 0
    from ferrox.cli.terminal import facts, show

    show(
        *facts(
            [
                ("journal", f"{out}  {show_bytes(size_of_journal(out))}"),
                ("flow", f"{plural(commands, 'command')}, seed {seed}, preset {preset}"),
                ("digest", str(result["journal_digest"])),
                ("time", f"{seconds:.1f} s"),
            ]
        )
    )
    return 0
