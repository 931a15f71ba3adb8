"""`ferrox rehearse`: a whole service, two clients, a kill in the middle, and the proof that nothing was lost.

Everything in it is real: `ferrox serve` as a process of its own, clients on sockets, a subscriber on multicast, and
SIGKILL.  Afterwards the reference engine is told the journal, and nothing else.  Its reports must be those that every
client and the subscriber got, and its state the one that the live engine ended with.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Self

import click
from attrs import Factory, define

import ferrox
from ferrox.cli.engines import Run, other_than, quickest
from ferrox.cli.output import examples, json_option, plural, print_json, print_note
from ferrox.cli.service import status_of
from ferrox.cli.signals import noted
from ferrox.client import Answered, Client, ClientError, Refused
from ferrox.client.feed import FeedReceiver
from ferrox.errors import UsageError
from ferrox.journal import identify, read
from ferrox.messages import REPORT_SIZE, CancelOrder, NewOrder, unpack_reports
from ferrox.service.config import Config, read_config
from ferrox.terms import TimeInForce
from ferrox.users import User, write_users

if TYPE_CHECKING:
    from ferrox.cli.watching import Watch

SECONDS: Final = 30.0
RATE: Final = 1_000
"""Commands a second of each client."""
ROLES: Final = ("matcher", "gateway", "publisher", "retransmitter", "shadow", "none")
READY_SECONDS: Final = 60.0
END_SECONDS: Final = 30.0
"""How long the last answers may take."""
FRAME_SECONDS: Final = 0.25
LOG_SECONDS: Final = 10.0
"""Between two pictures where no terminal watches."""
LEVELS: Final = 8
RESTING_MAX: Final = 200
WAITING_MAX: Final = 5_000
"""Commands that a client sends ahead of the answers."""
MIDDLE: Final = 10_000

CONFIG: Final = """\
[venue]
orders = 65_536
[[instrument]]
number = 1
high = 100_000
[entry]
listen = "127.0.0.1:{entry}"
[feed]
line_a = "239.255.70.1:{line_a}"
line_b = "239.255.70.2:{line_b}"
retransmission = "127.0.0.1:0"
snapshots = "127.0.0.1:0"
[metrics]
listen = ""
[log]
format = "json"
"""


@define
class Trader:
    """A simulated client: what it sent, and what it was told."""

    name: str
    account: int
    sent: int = 0
    refused: int = 0
    reconnections: int = 0
    doubled: int = 0
    waiting: int = 0
    """Commands without an answer at the end."""
    answers: dict[int, list[ferrox.Report]] = Factory(dict)
    """The reports of each command, by its reference."""


@click.command(
    epilog=examples(
        "ferrox rehearse",
        "ferrox rehearse --seconds 10 --kill gateway",
        "ferrox rehearse --keep venue && ferrox inspect venue/journal",
    )
)
@click.option(
    "--seconds", metavar="S", type=click.FloatRange(2, 86_400), default=SECONDS, show_default=True, help="How long."
)
@click.option("--kill", type=click.Choice(ROLES), default="matcher", show_default=True, help="Which process.")
@click.option(
    "--rate",
    metavar="N",
    type=click.IntRange(1, 100_000),
    default=RATE,
    show_default=True,
    help="A second, of each client.",
)
@click.option("--keep", metavar="DIR", type=click.Path(), help="Keep everything here; a new or empty directory.")
@json_option
def command(seconds: float, kill: str, rate: int, keep: str | None, as_json: bool) -> int:
    """Run a whole service with two clients, kill a process of it, and prove that nothing was lost.

    A maker and a taker trade over TCP, and a subscriber listens to the feed. In the middle a process gets SIGKILL. At
    the end the reference engine replays the journal, and what it says is compared with what each client, the
    subscriber and the live engine have.

    Exit status: 0 nothing was lost or doubled and everything is equal, 1 otherwise.
    """
    with nullcontext(None) if keep is not None else TemporaryDirectory(prefix="ferrox-rehearsal-") as temporary:
        folder = Path(keep if keep is not None else str(temporary))
        result = rehearse(folder, seconds, kill, rate, quiet=as_json)
    if as_json:
        print_json(result)
    else:
        show(result)
    return 0 if result["proved"] else 1


def rehearse(folder: Path, seconds: float, kill: str, rate: int, *, quiet: bool) -> dict[str, Any]:
    """Play it through, and return what came of it."""
    config, secrets = prepare(folder)
    log = folder / "service.log"
    traders = [Trader("maker", 1), Trader("taker", 2)]
    with log.open("wb") as stream, noted() as notes:
        service = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "ferrox", "serve", "--config", str(config.path)],
            stdout=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,
        )
        try:
            await_ready(config, service, log)
            heard, back = run_session(config, secrets, traders, seconds, kill, rate, notes, quiet=quiet)
            service.terminate()
            status = service.wait(END_SECONDS)
        finally:
            if service.poll() is None:
                os.killpg(service.pid, signal.SIGKILL)
                service.wait()
    return verdict(config, traders, heard, log, status, kill, back)


def prepare(folder: Path) -> tuple[Config, dict[str, bytes]]:
    """Write configuration and users of a service on free ports; return what they say."""
    import socket

    def free(kind: int) -> int:
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"{folder}: this directory is not empty; name a new one")
        path = folder / "ferrox.toml"
        udp = socket.SOCK_DGRAM
        path.write_text(CONFIG.format(entry=free(socket.SOCK_STREAM), line_a=free(udp), line_b=free(udp)))
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}") from None
    secrets = {"maker": os.urandom(32), "taker": os.urandom(32)}
    people = [User(name, account, secrets[name]) for account, name in enumerate(secrets, 1)]
    write_users(folder / "ferrox.users", [User("operator", 0, os.urandom(32), "operator"), *people])
    return read_config(path), secrets


def await_ready(config: Config, service: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return when every process runs."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and service.poll() is None:
        try:
            if status_of(config)["ready"]:
                return
        except UsageError:
            pass
        time.sleep(0.05)
    raise UsageError(f"the service did not start: {log.read_text(errors='replace')[-2_000:]}")


# --------------------------------------------------------------------------------------------------------- to trade


def run_session(
    config: Config,
    secrets: dict[str, bytes],
    traders: list[Trader],
    seconds: float,
    kill: str,
    rate: int,
    notes: list[str],
    *,
    quiet: bool,
) -> tuple["Subscriber", float]:
    """Trade, draw, and kill; return what the feed gave, and how long the process was away."""
    from ferrox.cli.watching import Watch

    stop = threading.Event()
    subscriber = Subscriber(config)
    threads = [
        threading.Thread(target=trade, args=(config, secrets[one.name], one, rate, stop), daemon=True)
        for one in traders
    ]
    for thread in (subscriber, *threads):
        thread.start()
    start = time.monotonic()
    killed = back = 0.0
    starts = 0
    with Watch(config, 1) as watch, Picture(quiet=quiet) as draw:
        while time.monotonic() - start < seconds and not notes:
            watch.look()
            told = (
                f"{kill} killed at {killed - start:.1f} s" + (f", back after {back:.2f} s" if back else "")
                if killed
                else f"{kill} gets SIGKILL at {seconds / 2:.0f} s"
            )
            draw(watch, f"{time.monotonic() - start:5.1f} s of {seconds:.0f}   {told if kill != 'none' else ''}")
            if kill != "none" and not killed and time.monotonic() - start > seconds / 2:
                row = status_of(config)["processes"][kill]
                starts = row["starts"]
                os.kill(row["pid"], signal.SIGKILL)
                killed = time.monotonic()
            if killed and not back and is_back(config, kill, starts):
                back = time.monotonic() - killed
            time.sleep(0.02 if killed and not back else FRAME_SECONDS)
    while killed and not back and time.monotonic() - killed < READY_SECONDS:
        time.sleep(0.02)
        if is_back(config, kill, starts):
            back = time.monotonic() - killed
    stop.set()
    for thread in threads:
        thread.join(END_SECONDS)
    subscriber.finish(status_of(config)["processes"]["matcher"]["reports"])
    return subscriber, back


def is_back(config: Config, role: str, starts: int) -> bool:
    """Say whether a process runs that was started so many times before it was killed."""
    row = status_of(config)["processes"][role]
    return bool(row["starts"] > starts and row["state"] == "running")


def trade(config: Config, secret: bytes, trader: Trader, rate: int, stop: threading.Event) -> None:
    """Send commands at a rate until told to stop, over as many connections as it takes, and take the answers."""
    rng = random.Random(trader.account)  # noqa: S311 - a simulation
    host, _, port = config.entry.listen.rpartition(":")
    client = Client(host, int(port), user=trader.name, secret=secret, number=1)
    resting: list[int] = []
    begin = time.monotonic()
    deadline = float("inf")
    while time.monotonic() < deadline and (client.waiting or not stop.is_set()):
        if stop.is_set():
            deadline = min(deadline, time.monotonic() + END_SECONDS)
        try:
            if not client.connected:
                trader.reconnections += 1
                client.reconnect()
            due = int((time.monotonic() - begin) * rate) - trader.sent
            if not stop.is_set() and due > 0 and len(client.waiting) < WAITING_MAX:
                commands = [choose(trader, rng, resting) for _ in range(min(due, 500))]
                trader.sent += len(commands)
                given = client.send_many(commands)
                resting += [
                    one
                    for one, sent in zip(given, commands, strict=True)
                    if isinstance(sent, NewOrder) and sent.time_in_force == TimeInForce.GTC
                ]
            take(client, trader)
        except (ClientError, OSError):
            time.sleep(0.02)
    trader.waiting = len(client.waiting)
    client.close()


def choose(trader: Trader, rng: random.Random, resting: list[int]) -> "NewOrder | CancelOrder":
    """Return the next command of a client: a maker quotes around the middle, a taker takes."""
    if len(resting) > RESTING_MAX or (resting and rng.random() < 0.3):
        return CancelOrder(1, resting.pop(rng.randrange(len(resting))))
    side = rng.choice((1, 2))
    away = rng.randrange(1, 30) if trader.name == "maker" else -rng.randrange(0, 5)
    price = MIDDLE - away if side == 1 else MIDDLE + away
    time_in_force = TimeInForce.GTC if trader.name == "maker" else TimeInForce.IOC
    return NewOrder(side, int(time_in_force), 0, 1, 0, price, rng.randrange(1, 20))


def take(client: Client, trader: Trader) -> None:
    """Take down what has come."""
    for event in client.events(0.002):
        if isinstance(event, Answered):
            trader.doubled += event.reference in trader.answers
            trader.answers[event.reference] = event.reports
        elif isinstance(event, Refused):
            trader.refused += 1


class Subscriber(threading.Thread):
    """Who listens to the feed from the first report on, and keeps the digest of all of it."""

    def __init__(self, config: Config) -> None:
        from ferrox.cli.watching import feed_of

        super().__init__(daemon=True)
        self.receiver = FeedReceiver(feed_of(config, status_of(config)), number=1)
        self.reports = 0
        self.sha256 = hashlib.sha256()
        self.wanted = 2**62
        self.deadline = float("inf")

    def run(self) -> None:
        """Listen until as many reports are there as there should be."""
        while self.reports < self.wanted and time.monotonic() < self.deadline:
            found = self.receiver.read(0.1)
            if found:
                self.sha256.update(found[1])
                self.reports += len(found[1]) // REPORT_SIZE

    def finish(self, reports: int) -> None:
        """Wait for the last report."""
        self.deadline = time.monotonic() + END_SECONDS
        self.wanted = reports
        self.join()
        self.receiver.close()


# --------------------------------------------------------------------------------------------------------- to prove


def verdict(
    config: Config, traders: list[Trader], heard: Subscriber, log: Path, status: int, kill: str, back: float
) -> dict[str, Any]:
    """Tell the oracle the journal, and compare."""
    by_sequence: dict[int, list[ferrox.Report]] = {}

    def note(frames: memoryview) -> None:
        for report in unpack_reports(frames):
            by_sequence.setdefault(report.sequence, []).append(report)

    oracle = Run("reference", identify(config.journal).capacity, note)
    for records in read(config.journal):
        oracle.feed(records)
    live = ended(log)
    lost = sum(one.waiting for one in traders)
    wrong = sum(
        report not in by_sequence.get(report.sequence, ())
        for one in traders
        for reports in one.answers.values()
        for report in reports
    )
    counters = heard.receiver.counters
    result: dict[str, Any] = {
        "verb": "rehearse",
        "killed": kill,
        "back_after_seconds": round(back, 3),
        "engine": quickest(),
        "oracle": other_than("fast"),
        "commands": sum(one.sent for one in traders),
        "answered": sum(len(one.answers) for one in traders),
        "refused": sum(one.refused for one in traders),
        "trades": oracle.trades,
        "reports": oracle.reports,
        "reconnections": sum(one.reconnections for one in traders),
        "lost": lost,
        "doubled": sum(one.doubled for one in traders),
        "wrong": wrong,
        "feed_reports": heard.reports,
        "feed_recovered": counters.get("recovered", 0),
        "feed_digest": heard.sha256.hexdigest(),
        "reports_digest": oracle.reports_digest,
        "live_state_digest": live.get("state", "unknown"),
        "state_digest": oracle.state_digest(),
        "exit_status": status,
    }
    result["proved"] = (
        status == 0
        and not (lost or wrong or result["doubled"])
        and result["answered"] + result["refused"] == result["commands"]
        and heard.reports == oracle.reports
        and result["feed_digest"] == result["reports_digest"]
        and result["live_state_digest"] == result["state_digest"]
    )
    return result


def ended(log: Path) -> dict[str, Any]:
    """Return what the matcher said when it ended."""
    last: dict[str, Any] = {}
    for line in log.read_text(errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("event") == "ended" and event.get("process") == "matcher":
            last = event
    return last


# ---------------------------------------------------------------------------------------------------------- to draw


class Picture:
    """Draws a watch for whoever looks: a terminal gets four pictures a second, a file one now and then."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.live: Any = None
        self.due = time.monotonic() + LOG_SECONDS / 2

    def __enter__(self) -> Self:
        if not self.quiet and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            from rich.live import Live

            from ferrox.cli.terminal import Terminal

            self.console = Terminal(file=sys.stdout, highlight=False, markup=False, emoji=False)
            self.live = Live(console=self.console, screen=True, auto_refresh=False)
            self.live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.__exit__(None, None, None)

    def __call__(self, watch: "Watch", line: str) -> None:
        """Draw what is to be seen, under a line of our own."""
        from ferrox.cli import watch as verb

        if self.live:
            from rich.console import Group
            from rich.text import Text

            width, height = self.console.size
            book = watch.book()
            frame = watch.frame(book, LEVELS)
            body = verb.picture(frame, book, LEVELS, width, height - 2)
            self.live.update(Group(Text(line), Text(), body), refresh=True)
        elif not self.quiet and time.monotonic() >= self.due:
            self.due = time.monotonic() + LOG_SECONDS
            print(line, flush=True)
            book = watch.book()
            verb.show_frame(watch.frame(book, LEVELS), book, LEVELS)
            print(flush=True)


def show(result: dict[str, Any]) -> None:
    """Print the verdict."""
    if result["killed"] != "none":
        print(f"killed     {result['killed']}, by SIGKILL; running again after {result['back_after_seconds']:.2f} s")
    print(
        f"clients    {plural(result['commands'], 'command')}, {result['answered']:,} answered, "
        f"{result['refused']:,} refused, {plural(result['reconnections'], 'reconnection')}"
    )
    print(f"trades     {result['trades']:,}")
    print(
        f"feed       {plural(result['feed_reports'], 'report')} of {result['reports']:,}, "
        f"{result['feed_recovered']:,} of them repeated on request"
    )
    print(f"lost       {result['lost']}")
    print(f"doubled    {result['doubled']}")
    print(f"wrong      {result['wrong']}")
    print(f"\nThe proof  the journal, told to the {result['oracle']} engine")
    print(f"  live     {result['live_state_digest']}")
    print(f"  replay   {result['state_digest']}")
    print(f"  feed     {result['feed_digest']}")
    print(f"  replay   {result['reports_digest']}")
    if result["proved"]:
        print("\nEQUAL      nothing was lost, nothing was doubled, and every byte is the oracle's")
    else:
        print_note("ferrox: NOT EQUAL: something was lost, doubled or differs; run it with --keep, and report this")
