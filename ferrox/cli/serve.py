"""`ferrox serve`: the matching service."""

import click

from ferrox.cli.output import examples, json_option, print_json, print_note
from ferrox.cli.service import config_option
from ferrox.cli.signals import noted
from ferrox.fast import COMPILED
from ferrox.service.config import read_config
from ferrox.service.supervisor import Supervisor


@click.command(
    epilog=examples(
        "ferrox init && ferrox serve        a first service, in this folder",
        "ferrox serve --config venue.toml",
        "ferrox status                      in another terminal",
        "ferrox watch",
    )
)
@config_option
@json_option
def command(config_file: str, as_json: bool) -> int:
    """Run the matching service that a configuration describes, until Ctrl-C or SIGTERM.

    It takes orders by TCP, keeps each in the journal before it is matched, and publishes every report by multicast. A
    journal that is there is recovered and gone on with. Processes that crash are started again; a journal that fails or
    an engine that is not deterministic stops the service.

    Exit status: 0 stopped in order, 1 the engine is not deterministic, 2 usage, 3 the journal is corrupt, 4 its disk
    failed, 70 a defect.
    """
    config = read_config(config_file)
    if not COMPILED:
        print_note("ferrox: the fast engine is not compiled here; the service is right, and about 100 times slower")
    with noted() as notes:
        supervisor = Supervisor(config)
        told = False

        def turn() -> None:
            nonlocal told
            if not told and supervisor.ready():
                told = True
                port = supervisor.board.get("gateway", "port")
                supervisor.tell("ready", entry=port, feed=config.feed.line_a, journal=str(config.journal))

        status = supervisor.run(lambda: bool(notes), turn=turn)
    if as_json:
        matcher = supervisor.board.row("matcher")
        print_json(
            {
                "verb": "serve",
                "stopped": notes[0] if notes else "asked" if not status else "failed",
                "exit_status": status,
                "last_sequence": matcher["sequence"],
                "reports": matcher["reports"],
            }
        )
    return status
