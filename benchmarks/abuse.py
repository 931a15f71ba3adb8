"""What abuse costs the others: the latency of one client beside another that misbehaves, as a ratio to a quiet service.

    PYTHONPATH=build/compiled python benchmarks/abuse.py [--rounds 5] [--trips 2000] [--json FILE] [--smoke] [PART ...]

The parts are `others`, `kill`, `sweep` and `engine`; without names all are run.

others   A client sends an order and then its cancel, one at a time, and waits until each is answered on its connection
         and was told on the feed.  Each pattern of abuse comes from a child process; in every round each is measured
         with and without it, one right behind the other, and the table shows the middle of the rounds' ratios.
         A pattern that only takes time from a core that it shares with the service is seen too: `busy` is a child that
         does nothing but count, to hold the others against.
kill     Two clients send all they can; from the operator's send to the first refusal that each of them reads.
sweep    One order over many makers of one lot; from the send of another client's order behind it to the answer.
engine   Time of an engine and of a desk, a command at a time, by what ids and prices are made to do; and how long a
         login takes whose user is wrong, beside one whose secret is.

Every figure is of one machine with all its processes on it: ratios are sound, tails are upper bounds.
"""

import argparse
import json
import multiprocessing
import random
import select
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from reference import surroundings  # type: ignore[import-not-found]
from service import Service, shared  # type: ignore[import-not-found]

from ferrox.client.feed import Feed, FeedReceiver
from ferrox.engine import Capacity, make_engine
from ferrox.entry import login, packet, packets, sign
from ferrox.lanes.desk import TRADER, Desk
from ferrox.lanes.routing import load_orders, route
from ferrox.messages import REPORT, CancelOrder, DefineInstrument, MassCancel, NewOrder, SetLimit
from ferrox.mold import MOLD
from ferrox.state import SNAPSHOT_ORDER
from ferrox.terms import Limit, Refusal, ReportKind, Scope
from ferrox.testing.sessions import to_record
from ferrox.users import User, write_users

CROWD: Final = 1_000
BURST: Final = 65_536
FAR: Final = 10
FORK: Final = multiprocessing.get_context("fork")
PERCENTILES: Final = (50, 99, 99.9)


class Link:
    """A connection that waits for its answers."""

    def __init__(self, service: Service, user: User | None = None) -> None:
        """Connect, and log in where a user is given."""
        self.socket = socket.create_connection(("127.0.0.1", service.port), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""
        self.reference = 0
        self.challenge = self.read()[0][1][:32]
        if user:
            self.socket.sendall(packet(b"L", login(user.name, user.secret, self.challenge)))
            (answer, payload), *_ = self.read()
            if answer != b"A":
                raise RuntimeError(f"{user.name} is not let in: {payload!r}")
            self.reference = int.from_bytes(payload[24:32], "little")

    def read(self) -> list[tuple[bytes, bytes]]:
        """Return the packets that have come, one at least."""
        while True:
            data = self.socket.recv(1 << 18)
            if not data:
                raise ConnectionError
            found, self.rest = packets(self.rest + data)
            found = [one for one in found if one[0] != b"H"]
            if found:
                return found

    def say(self, command: Any) -> bytes:
        """Return the packet of a command under the next reference."""
        self.reference += 1
        if isinstance(command, NewOrder) and not command.order_id:
            command = command._replace(order_id=self.reference)
        return packet(b"U", self.reference.to_bytes(8, "little") + command.pack())

    def taken(self) -> bytes:
        """Return what is there, without waiting."""
        return self.socket.recv(1 << 18) if select.select((self.socket,), (), (), 0)[0] else b""

    def drain(self) -> None:
        """Read what is there, and forget it."""
        while self.taken():
            pass


def order(side: int, price: int, quantity: int = 1) -> NewOrder:
    """Return an order that is GTC."""
    return NewOrder(side, 1, 0, 1, 0, price, quantity)


# -------------------------------------------------------------------------------------------------------------- others


def crowd(service: Service, *, text: bytes) -> list[socket.socket]:
    """Return many connections that have sent the beginning of a packet."""
    links = [Link(service).socket for _ in range(CROWD)]
    for link in links:
        link.sendall(text)
    return links


def nothing(_service: Service, stop: memoryview, ready: Callable[[], None]) -> None:
    """Sleep: what is measured beside it says how much of a ratio is chance."""
    ready()
    while not stop[0]:
        time.sleep(0.01)


def busy(_service: Service, stop: memoryview, ready: Callable[[], None]) -> None:
    """Take a core."""
    ready()
    while not stop[0]:
        pass


def idle_crowd(service: Service, stop: memoryview, ready: Callable[[], None]) -> None:
    """Keep a thousand connections in the middle of their login."""
    links = crowd(service, text=b"\0\x49L")
    ready()
    while not stop[0]:
        time.sleep(0.01)
    del links


def drip(service: Service, stop: memoryview, ready: Callable[[], None]) -> None:
    """Send a byte ten times a second on each of a thousand connections."""
    links = crowd(service, text=b"\0\x49L")
    ready()
    while not stop[0]:
        for link in links:
            with suppress(OSError):
                link.send(b"a")
            time.sleep(0.000_1)


def burst_of(one: Callable[[Link], bytes], every: float = 0.02) -> Callable[..., None]:
    """Return a pattern: 64 KiB at once, again and again."""

    def pattern(service: Service, stop: memoryview, ready: Callable[[], None]) -> None:
        link = Link(service, service.users[1])
        ready()
        while not stop[0]:
            data = bytearray()
            while len(data) < BURST - 300:
                data += one(link)
            select.select((), (link.socket,), (), 1.0)
            with suppress(BlockingIOError):
                link.socket.sendall(data)
            link.drain()
            time.sleep(every)

    return pattern


def logins(service: Service, stop: memoryview, ready: Callable[[], None]) -> None:
    """Log in with a wrong secret, as often as it goes."""
    ready()
    while not stop[0]:
        with suppress(OSError):
            link = Link(service)
            link.socket.sendall(packet(b"L", login("user1", b"w" * 32, link.challenge)))
            link.read()
            link.socket.close()


def requests(service: Service, stop: memoryview, ready: Callable[[], None]) -> None:
    """Ask for retransmissions, as often as a socket takes it."""
    place = ("127.0.0.1", service.retransmitter)
    text = MOLD.pack(service.session.encode(), 1, 29)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setblocking(False)
        ready()
        while not stop[0]:
            with suppress(BlockingIOError):
                link.sendto(text, place)


PATTERNS: Final[dict[str, Callable[..., None]]] = {
    "nothing": nothing,
    "busy": busy,
    "idle crowd": idle_crowd,
    "dripping crowd": drip,
    "bursts of heartbeats": burst_of(lambda _link: packet(b"R") * 1_000),
    "bursts of texts": burst_of(lambda _link: packet(b"+") * 1_000),
    "bursts of refused": burst_of(lambda _link: packet(b"U", bytes(8) + CancelOrder(1, 1).pack()) * 10),
    "bursts of rejected": burst_of(lambda link: link.say(CancelOrder(1, 1))),
    "wrong logins": logins,
    "requests": requests,
}


def trips(link: Link, receiver: FeedReceiver, count: int) -> tuple[Any, Any]:
    """Return the time of so many commands, in nanoseconds, to their answer and to the feed."""
    private, fed = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for n in range(count):
        command = CancelOrder(1, link.reference) if n % 2 else order(1, FAR)
        data = link.say(command)
        begin = time.monotonic_ns()
        link.socket.sendall(data)
        number = int.from_bytes(link.read()[-1][1][:8], "little")
        private[n] = time.monotonic_ns() - begin
        seen = 0
        while seen < number:
            found = receiver.read(1.0)
            if found is not None:
                seen = found[0] + len(found[1]) // 48 - 1
        fed[n] = time.monotonic_ns() - begin
    return private, fed


def beside(service: Service, pattern: Callable[..., None], measure: Callable[[], Any]) -> Any:
    """Return a measurement that is taken while a child misbehaves."""
    words = memoryview(shared(4_096)).cast("q")
    words[0] = words[1] = 0

    def ready() -> None:
        words[1] = 1

    child = FORK.Process(target=pattern, args=(service, words, ready))
    child.start()
    while not words[1] and child.is_alive():
        time.sleep(0.01)
    try:
        if not words[1]:
            raise RuntimeError("the child that was to misbehave ended before it began")
        return measure()
    finally:
        words[0] = 1
        child.join(5)
        child.kill()


def measure_others(options: argparse.Namespace) -> dict[str, Any]:
    """Print and return what each pattern does to the latency of another client."""
    results: dict[str, Any] = {}
    with served() as service:
        link = Link(service, service.users[0])
        with FeedReceiver(Feed(service.lines, retransmission=("127.0.0.1", service.retransmitter))) as receiver:
            trips(link, receiver, options.trips)
            for _ in range(options.rounds):
                for name, pattern in PATTERNS.items():
                    quiet = trips(link, receiver, options.trips)
                    loud = beside(service, pattern, lambda: trips(link, receiver, options.trips))
                    rows = results.setdefault(name, {"quiet": [], "beside it": []})
                    rows["quiet"].append([np.percentile(one, PERCENTILES).tolist() for one in quiet])
                    rows["beside it"].append([np.percentile(one, PERCENTILES).tolist() for one in loud])
                    time.sleep(0.2)
    print(f"\nothers: {options.trips} commands one by one, {options.rounds} rounds; microseconds, and the ratio")
    print(f"{'':<24}{'quiet P50':>12}{'P99':>9}{'beside P50':>12}{'P99':>9}{'P50 x':>8}{'P99 x':>8}{'feed P99 x':>12}")
    for name, rows in results.items():
        plain, abused = np.array(rows["quiet"]), np.array(rows["beside it"])
        ratio = np.median(abused / plain, axis=0)
        rows["ratio"] = ratio.tolist()
        before, after = np.median(plain, axis=0) / 1e3, np.median(abused, axis=0) / 1e3
        print(
            f"{name:<24}{before[0, 0]:>12.0f}{before[0, 1]:>9.0f}{after[0, 0]:>12.0f}{after[0, 1]:>9.0f}"
            f"{ratio[0, 0]:>8.2f}{ratio[0, 1]:>8.2f}{ratio[1, 1]:>12.2f}"
        )
    return results


# --------------------------------------------------------------------------------------------------------- kill, sweep


def flood(service: Service, user: User, words: memoryview, ready: Callable[[], None]) -> None:
    """Send orders, all that the socket takes, and note when the first refusal of each kill came."""
    link = Link(service, user)
    ready()
    killed = False
    while not words[0]:
        link.socket.sendall(b"".join(link.say(order(1, FAR)) for _ in range(100)))
        while data := link.taken():
            now = time.monotonic_ns()
            found, link.rest = packets(link.rest + data)
            hit = any(letter == b"U" and payload[13] == Refusal.KILLED for letter, payload in found)
            if hit and not killed and words[3]:
                words[2] = now
            killed = bool(words[3]) and (killed or hit)


def measure_kill(options: argparse.Namespace) -> dict[str, Any]:
    """Print and return how long it takes until a kill switch is felt by one who sends all it can."""
    taken = []
    with served() as service:
        operator = Link(service, service.users[-1])
        words = memoryview(shared(4_096)).cast("q")
        for place in range(4):
            words[place] = 0

        def ready() -> None:
            words[1] = 1

        child = FORK.Process(target=flood, args=(service, service.users[1], words, ready))
        child.start()
        while not words[1]:
            time.sleep(0.01)
        for _ in range(options.rounds * 4):
            time.sleep(0.2)
            words[2], words[3] = 0, 1
            begin = time.monotonic_ns()
            operator.socket.sendall(operator.say(SetLimit(Limit.KILL, 0, 0, 1)))
            while not words[2] and time.monotonic_ns() - begin < 5_000_000_000:
                time.sleep(0.000_1)
            taken.append(words[2] - begin)
            words[3] = 0
            operator.socket.sendall(operator.say(SetLimit(Limit.KILL, 0, 0, 0)))
            operator.socket.sendall(operator.say(MassCancel(Scope.VENUE)))
            operator.drain()
        words[0] = 1
        child.join(5)
        child.kill()
    found = np.percentile(taken, (0, 50, 100)) / 1e3
    print(f"\nkill: first refusal read, us: least {found[0]:.0f}, middle {found[1]:.0f}, most {found[2]:.0f}")
    return {"us": found.tolist()}


def measure_sweep(options: argparse.Namespace) -> dict[str, Any]:
    """Print and return how long another client waits behind an order that trades with many."""
    makers = 5_000 if options.smoke else 100_000
    quiet: list[int] = []
    behind: list[int] = []
    with served() as service:
        maker, taker, other = (Link(service, user) for user in service.users[:3])
        maker.socket.settimeout(60)
        for _ in range(options.rounds):
            for first in range(0, makers, 5_000):
                maker.socket.sendall(b"".join(maker.say(order(2, 500 + n % 100)) for n in range(first, first + 5_000)))
                expect(maker, 5_000)
            for told, sweep in ((quiet, False), (behind, True)):
                time.sleep(0.1)
                if sweep:
                    taker.socket.sendall(taker.say(order(1, 1_000, makers)))
                begin = time.monotonic_ns()
                other.socket.sendall(other.say(order(1, FAR)))
                other.read()
                told.append(time.monotonic_ns() - begin)
            expect(taker, makers + 1)
            expect(maker, makers)
    row = {"quiet": float(np.median(quiet)) / 1e6, "behind": float(np.median(behind)) / 1e6, "makers": makers}
    print(
        f"\nsweep: {makers:,} trades by one order; another's order, ms: quiet {row['quiet']:.2f}, "
        f"right behind it {row['behind']:.2f}, {row['behind'] / makers * 1e6:.0f} ns a trade"
    )
    return row


def expect(link: Link, count: int) -> None:
    """Read so many reports."""
    while count > 0:
        count -= sum(letter == b"S" for letter, _ in link.read())


# -------------------------------------------------------------------------------------------------------------- engine


def records_of(frames: list[bytes], first: int) -> list[bytes]:
    """Return the records of frames, one by one."""
    return [to_record(n, frame) for n, frame in enumerate(frames, first)]


def flows(count: int) -> dict[str, list[bytes]]:
    """Return flows of new orders and of cancels, by what they do to an index and to a book."""
    dice = random.Random(57)
    found: dict[str, list[bytes]] = {}

    def enter(name: str, ids: list[int], prices: list[int], gone: list[int]) -> None:
        frames = [NewOrder(1, 1, 0, 1, one, price, 1).pack() for one, price in zip(ids, prices, strict=True)]
        found[name] = frames + [CancelOrder(1, one).pack() for one in gone]

    plain = list(range(1, count + 1))
    near = [5_000 + dice.randrange(100) for _ in plain]
    shuffled = dice.sample(plain, count)
    enter("normal", plain, near, shuffled)
    for name, shift in (("equal low 20 bits", 20), ("multiples of the capacity", 16), ("equal low 4 bits", 4)):
        enter(name, [n << shift for n in plain], near, [n << shift for n in shuffled])
    levels = [n * (1_000_000 // count) for n in plain]
    enter("one order a level", plain, dice.sample(levels, count), shuffled)
    enter("cancel the best", plain, levels, plain[::-1])
    frames = []
    for n in range(0, count, 2):
        frames += [NewOrder(1, 1, 0, 1, n + 1, 999_999, 1).pack(), NewOrder(1, 1, 0, 1, n + 2, 1, 1).pack()]
        frames += [CancelOrder(1, n + 1).pack(), CancelOrder(1, n + 2).pack()]
    found["alternate best"] = frames
    return found


def measure_engine(options: argparse.Namespace) -> dict[str, Any]:
    """Print and return the time of commands that are made to be slow, beside those that are not."""
    count = 4_000 if options.smoke else 50_000
    chosen = flows(count)
    times: dict[str, list[list[float]]] = {}
    for _ in range(options.rounds):
        for name, frames in chosen.items():
            engine = make_engine("fast", Capacity(65_536, 4))
            engine.apply(to_record(1, DefineInstrument(2, 1, 0, 1_000_000, 1, 1).pack()))
            taken = np.zeros(len(frames), np.int64)
            for n, record in enumerate(records_of(frames, 2)):
                begin = time.perf_counter_ns()
                engine.apply(record)
                taken[n] = time.perf_counter_ns() - begin
            times.setdefault(name, []).append([*np.percentile(taken, PERCENTILES), taken.mean()])
    for _ in range(options.rounds):
        for name, shift in (("normal (desk)", 0), ("equal low 20 bits (desk)", 20)):
            desk = Desk(9, 1, 1, 65_536)
            desk.add_account(7, TRADER)
            ids = [7 << 40 | n << shift for n in range(1, count + 1)]
            load_orders(desk, b"".join(SNAPSHOT_ORDER.pack(one, 100, 1, 0, 1, 1) for one in ids))
            random.Random(3).shuffle(ids)
            taken = np.zeros(count, np.int64)
            for n, one in enumerate(ids):
                report = REPORT.pack(1, one, 0, 100, 1, 0, 1, ReportKind.CANCELED, 1, 0, 0x80)
                begin = time.perf_counter_ns()
                route(desk, report)
                taken[n] = time.perf_counter_ns() - begin
            times.setdefault(name, []).append([*np.percentile(taken, PERCENTILES), taken.mean()])
    print(f"\nengine: {count:,} orders, a command at a time, interpreter included; ns, and the ratio to normal")
    print(f"{'':<32}{'P50':>8}{'P99':>8}{'P99.9':>8}{'mean':>8}{'P99.9 x':>9}{'mean x':>8}")
    results: dict[str, Any] = {}
    for name, rows in times.items():
        normal = times["normal (desk)" if "desk" in name else "normal"]
        middle, ratio = np.median(rows, axis=0), np.median(np.array(rows) / np.array(normal), axis=0)
        results[name] = {"ns": middle.tolist(), "ratio": ratio.tolist()}
        print(f"{name:<32}" + "".join(f"{one:>8.0f}" for one in middle) + f"{ratio[2]:>9.2f}{ratio[3]:>8.2f}")
    results["logins"] = spread(options)
    return results


def spread(options: argparse.Namespace) -> dict[str, float]:
    """Print and return how the time of a mac with a user's secret differs from that with a challenge."""
    challenge, head = bytes(range(32)), bytes(40)
    taken: dict[str, list[int]] = {"wrong secret": [], "wrong user": []}
    for _ in range(options.trips * 5):
        for name, secret in (("wrong secret", b"m" * 32), ("wrong user", challenge)):
            begin = time.perf_counter_ns()
            sign(secret, challenge, head)
            taken[name].append(time.perf_counter_ns() - begin)
    middle = {name: float(np.median(times)) for name, times in taken.items()}
    noise = float(np.subtract(*np.percentile(taken["wrong user"], (75, 25))))
    print(f"\nlogins: a mac, ns: {middle}; half of all are within {noise:.0f}")
    return {**middle, "noise": noise}


# ---------------------------------------------------------------------------------------------------------------- main


class served:  # noqa: N801 - it reads as a function
    """A service in a folder of its own, with three traders and an operator."""

    def __enter__(self) -> Service:
        """Begin it."""
        self.folder = tempfile.TemporaryDirectory(dir=Path())
        place = Path(self.folder.name)
        options = argparse.Namespace(durability="D0", lines="a", orders=262_144, pin={})
        service = Service(place, options, users=3, sessions=CROWD + 64)
        (place / "ferrox.users").unlink()
        service.users.append(User("operator", 0, b"o" * 32, "operator"))
        write_users(place / "ferrox.users", service.users)
        self.service = service.__enter__()
        rows = service.status()["processes"]
        service.port, service.retransmitter = rows["gateway"]["port"], rows["retransmitter"]["port"]
        said = (place / "log").read_text()
        service.session = said.split("session=")[1].split()[0]
        return service

    def __exit__(self, *error: object) -> None:
        """End it."""
        self.service.__exit__(*error)
        self.folder.cleanup()


PARTS: Final = {"others": measure_others, "kill": measure_kill, "sweep": measure_sweep, "engine": measure_engine}


def main() -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trips", type=int, default=2_000, help="commands of a measurement")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--smoke", action="store_true", help="as little of each as shows that it works")
    options = parser.parse_args()
    if options.smoke:
        options.rounds, options.trips = 1, 200
    results: dict[str, Any] = surroundings("fast", options.rounds, 0)
    for name, value in results.items():
        print(f"{name:<12}{value}")
    for part in options.parts or PARTS:
        results[part] = PARTS[part](options)
        sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
