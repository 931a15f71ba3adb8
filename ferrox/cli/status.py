"""`ferrox status` and `ferrox stop`: a look at a running service, and its end."""

import time
from typing import Any, Final

import click

from ferrox.cli.output import examples, json_option, plural, print_json
from ferrox.cli.service import config_option, status_of
from ferrox.errors import UsageError
from ferrox.service.config import read_config
from ferrox.service.supervisor import ask

STOP_SECONDS: Final = 60.0
NAP_SECONDS: Final = 0.05
SHOWN: Final = {
    "matcher": ("sequence", "durable", "reports", "disk_low", "waits"),
    "gateway": ("port", "connections", "commands", "refused", "delivered", "in_flight"),
    "publisher": ("number", "packets", "heartbeats"),
    "retransmitter": ("port", "requests", "reports"),
    "shadow": ("sequence", "snapshot", "statements", "served"),
}


@click.command(epilog=examples("ferrox status", "ferrox status --json | jq .processes.matcher"))
@config_option
@json_option
def command(config_file: str, as_json: bool) -> int:
    """Show how a running service is: its processes, its journal, its clients.

    Exit status: 0 every process runs, 1 one of them does not or has said nothing for 5 seconds, 2 no service runs here.
    """
    status = status_of(read_config(config_file))
    if as_json:
        print_json({"verb": "status", **status})
    else:
        print("\n".join(lines_of(status)))
    return 0 if status["ready"] else 1


def lines_of(status: dict[str, Any]) -> list[str]:
    """Return a status as lines for people."""
    processes = status["processes"]
    seconds = max(0.0, time.time() - processes["supervisor"]["started_ns"] / 1e9)
    lines = [
        f"{'ready' if status['ready'] else 'NOT READY'}  {status['config']}, up {seconds:,.0f} s",
        f"level    {status['durability']}",
        f"journal  {status['journal']}, sequence {processes['matcher']['sequence']:,}",
        f"feed     {status['feed']['line_a']} {status['feed']['line_b']}".rstrip(),
        "",
        f"{'process':<14}{'state':<10}{'pid':>8}{'starts':>8}{'beat':>10}",
    ]
    for role, names in SHOWN.items():
        row = processes[role]
        words = ", ".join(f"{name.replace('_', ' ')} {row[name]:{'' if name == 'port' else ','}}" for name in names)
        beat = f"{max(0, row['beat_ms']):,} ms"
        lines.append(f"{role:<14}{row['state']:<10}{row['pid']:>8}{row['starts']:>8}{beat:>10}  {words}")
    ring = status["ring"]
    lines.append("")
    lines.append(f"ring     {plural(ring['waiting'], 'command')} of {ring['capacity']:,}")
    return lines


@click.command("stop", epilog=examples("ferrox stop"))
@config_option
@json_option
def stop(config_file: str, as_json: bool) -> int:
    """Stop a running service in order, and wait until it has ended."""
    config = read_config(config_file)
    ask(config.control, {"ask": "stop"})
    deadline = time.monotonic() + STOP_SECONDS
    while config.control.exists():
        if time.monotonic() > deadline:
            raise UsageError(f"{config.control}: the service has not ended within {STOP_SECONDS:.0f} s")
        time.sleep(NAP_SECONDS)
    if as_json:
        print_json({"verb": "stop", "stopped": True})
    else:
        print("stopped")
    return 0
