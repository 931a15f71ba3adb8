"""`ferrox init`: a commented configuration of a service, and users with fresh secrets."""

import os
import secrets
from pathlib import Path
from typing import Final

import click

from ferrox.cli.output import examples, json_option, print_json
from ferrox.errors import UsageError
from ferrox.users import User, write_users

SECRET_SIZE: Final = 32
CONFIG_NAME: Final = "ferrox.toml"
USERS_NAME: Final = "ferrox.users"
TRADERS: Final = {"maker": 1, "taker": 2}

TEMPLATE: Final = """\
# A matching service.  Every value here is the default, unless a line says otherwise: what you delete stays as it is.
# Relative paths begin at the folder of this file.  `ferrox serve` reads it once, at its start.

[venue]
directory = "journal"      # the journal: everything that was ever entered, and the snapshots
orders = 1_048_576         # how many orders may rest; 250 bytes of memory each.  Fixed when the journal is made
instruments = 16_384       # how many instruments may be defined.  Fixed when the journal is made
durability = "D0"          # what an answer survives: D0 the death of every process, D1 and D2 the loss of power
backend = "mmap"           # how the journal is written: mmap or pwrite
segment_records = 4_194_304  # records of a file of the journal: 256 MiB

# Instruments that are defined when the venue does not have them yet.  Prices are whole numbers of ticks.
[[instrument]]
number = 1
tick = 1                   # prices are multiples of it
lot = 1                    # quantities are multiples of it
low = 0                    # the lowest price that is taken
high = 1_000_000           # the highest
state = "open"             # pre-open, open, halted or closed

[entry]
listen = "127.0.0.1:7001"  # where clients connect, by TCP (specs/entry.md)
allow_remote = false       # true lets any address in this file be one that other machines reach
users = "ferrox.users"     # who may log in, and with which secret; readable by you alone
connections = 1_024        # how many at a time
heartbeat_ms = 1_000       # who is silent says so this often
timeout_ms = 15_000        # who was not heard for so long is gone

[feed]
line_a = "239.255.70.1:7101"  # the multicast group of line A (specs/feed.md)
line_b = "239.255.70.2:7102"  # and of line B, the same packets once more; "" leaves it out
interface = "127.0.0.1"    # the address of the interface by which they leave
ttl = 0                    # how many routers they pass; 0 stays on this machine
retransmission = "127.0.0.1:7103"  # who missed packets asks here, by UDP
snapshots = "127.0.0.1:7104"       # who comes late gets a state here, by TCP

# Limits for every account, 0 for none; an operator sets others while it runs: ferrox limit --help (specs/risk.md).
[risk]
max_quantity = 0           # lots of one order
max_notional = 0           # lots times ticks of one order
collar = 0                 # ticks from the last trade
max_open_orders = 0        # orders that rest or are on their way
max_exposure = 0           # lots times ticks of all of these
order_rate = 0             # new orders and replaces a second
cancel_rate = 0            # cancels a second

[memory]
ring = 65_536              # commands between gateway and matcher, a power of two: 16_384 for each client that floods
tape = 4_194_304           # reports that are kept for those who come back or missed some, a power of two

[snapshots]
every = 4_194_304          # records from one snapshot to the next: the quicker a restart, the smaller
keep = 2

[processes]
spin_us = 50               # how long gateway and matcher stay awake for more; with cores to spare, 1_000_000
# pin = { matcher = 1, gateway = 0 }   # cores, by process: matcher, syncer, gateway, publisher, retransmitter, shadow

[metrics]
listen = "127.0.0.1:7105"  # Prometheus, over HTTP; "" leaves it out

[log]
format = "text"            # or json, a line an event, to standard error
"""


@click.command(
    epilog=examples(
        "ferrox init                 into this folder",
        "ferrox init venue && cd venue && ferrox serve",
    )
)
@click.argument("directory", type=click.Path(), default=".")
@json_option
def command(directory: str, as_json: bool) -> int:
    """Write a service's configuration and its users.

    `ferrox.toml` has every setting with its default and what it is for. `ferrox.users` has an operator and two traders,
    each with a fresh secret, and is readable by you alone. What is there already is never replaced.
    """
    folder = Path(directory)
    config, users = folder / CONFIG_NAME, folder / USERS_NAME
    for path in (config, users):
        if path.exists():
            raise UsageError(f"{path}: this file is there already, and is not replaced; name another folder")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        people = [User("operator", 0, secrets.token_bytes(SECRET_SIZE), "operator")]
        people += [User(name, account, secrets.token_bytes(SECRET_SIZE), "trader") for name, account in TRADERS.items()]
        write_users(users, people)
        file = os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with os.fdopen(file, "w", encoding="utf-8") as stream:
            stream.write(TEMPLATE)
    except OSError as error:
        raise UsageError(f"{directory}: {error.strerror}; name a folder that can be written to") from None
    if as_json:
        print_json({"verb": "init", "config": str(config), "users": str(users), "names": [one.name for one in people]})
    else:
        print(f"wrote  {config}   every setting, with what it is for")
        print(f"wrote  {users}  {', '.join(one.name for one in people)}, each with a secret of its own")
        print(f"next   ferrox serve --config {config}")
    return 0
