"""The whole service: real processes, real sockets, real signals."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ferrox.client import Answered, ClientError, Refused, Unanswered
from ferrox.client.feed import LiveBooks
from ferrox.engine import make_engine
from ferrox.entry import packet
from ferrox.journal import identify, read
from ferrox.messages import CancelOrder, MassCancel, NewOrder, Report, SetLimit, SetTradingState, unpack_reports
from ferrox.recovery import recover
from ferrox.service.ledger import newest_ledger
from ferrox.state import unpack_state
from ferrox.terms import Limit, Reason, Refusal, ReportKind, Scope, TradingState
from ferrox.testing.sessions import apply_all

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package; the kit stands beside this file

from service_kit import SECRETS, Service  # type: ignore[import-not-found]

BUY, SELL, GTC = 1, 2, 1


def order(side, price, quantity, instrument=1):
    return NewOrder(side, GTC, 0, instrument, 0, price, quantity)


@pytest.fixture
def service(tmp_path):
    with Service(tmp_path) as running:
        yield running


@pytest.fixture
def shared(one_for_all):
    yield one_for_all
    one_for_all.let_go()


@pytest.fixture(scope="module")
def one_for_all(tmp_path_factory):
    """One service for all tests of a worker that leave nothing behind but orders and references."""
    with Service(tmp_path_factory.mktemp("shared"), orders=100_000) as running:
        yield running
        assert running.row("gateway")["starts"] == 1
        assert running.stop() == 0
        running.verified()


def replayed(service, name="reference"):
    """Return the reports of the whole journal, told to an engine."""
    engine = make_engine(name, identify(service.journal).capacity)
    return unpack_reports(b"".join(apply_all(engine, records) for records in read(service.journal))), engine


# ------------------------------------------------------------------------------------------------------- a session


def test_a_session_of_two_clients_is_what_the_oracle_says(service):
    """ENTRY-1, ENTRY-7, ENTRY-10, ENTRY-13, FEED-1: each report comes to whom it is for, under its number."""
    maker, taker = service.wire("maker", number=1), service.wire("taker", number=1)

    maker.send(order(SELL, 101, 10))
    first = maker.answer()
    taker.send(order(BUY, 101, 4))
    second, third = taker.answers(2)
    passed_on = maker.answer()
    maker.send(CancelOrder(1, 1))
    canceled = maker.answer()

    assert first[1].order_id == 7 << 40 | 1
    assert (third[1].kind, third[1].contra_id, third[1].quantity) == (ReportKind.TRADE, 7 << 40 | 1, 4)
    assert passed_on == third
    assert canceled[1].kind == ReportKind.CANCELED
    assert service.stop() == 0
    reports, _ = replayed(service)
    numbered = dict(enumerate(reports, 1))
    for number, report in (first, second, third, canceled):
        assert numbered[number] == report


def test_the_service_stops_in_order_on_a_signal(tmp_path):
    """The journal is sealed, the session ends with a packet that says so, and nothing is left behind."""
    for number in (signal.SIGTERM, signal.SIGINT):
        with Service(tmp_path) as service:
            wire = service.wire("maker")
            wire.send(order(BUY, 100, 1))
            wire.answer()

            assert service.stop(number) == 0

            assert wire.next() == (b"Z", b"")
            assert wire.next() == (b"", b"")
            assert not service.config.control.exists()
            recovered = recover(service.journal)
            recovered.journal.close()
            assert recovered.journal.torn is None


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_processes_have_the_cores_that_they_are_given(tmp_path):
    first, second = sorted(os.sched_getaffinity(0))[:2]
    pin = f"pin = {{ matcher = {first}, syncer = {second}, publisher = {second} }}"
    with Service(tmp_path, processes=pin) as service:
        pids = {role: row["pid"] for role, row in service.status()["processes"].items()}
        (syncer,) = Path(f"/proc/{pids['matcher']}/task/{pids['matcher']}/children").read_text().split()
        assert os.sched_getaffinity(pids["matcher"]) == {first}
        assert os.sched_getaffinity(int(syncer)) == os.sched_getaffinity(pids["publisher"]) == {second}
        assert os.sched_getaffinity(pids["gateway"]) == os.sched_getaffinity(0)
        assert service.stop() == 0


def test_a_second_service_on_the_same_configuration_is_told(service):
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from ferrox.cli import main; main()", "serve", "--config", service.config_file],
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 2
    assert b"runs already" in done.stderr


@pytest.mark.parametrize("wrong", ["users that others may read", "no users", "a port that is taken", "no such core"])
def test_a_service_that_cannot_begin_says_why_once_and_ends(tmp_path, wrong):
    """It is not tried again: what fails before it ever ran will fail again."""
    service = Service(tmp_path, processes="pin = { matcher = 1000 }" if wrong == "no such core" else "")
    words = {
        "users that others may read": "others may access the file",
        "no users": "No such file",
        "no such core": "[processes] pin: matcher = 1000: cores that may be used here are 0",
    }
    with socket.create_server(("127.0.0.1", 0)) as taken:
        if wrong == "users that others may read":
            service.users.chmod(0o644)
        elif wrong == "no users":
            service.users.unlink()
        elif wrong == "a port that is taken":
            text = service.config_file.read_text()
            before = service.config.entry.listen
            service.config_file.write_text(text.replace(before, f"127.0.0.1:{taken.getsockname()[1]}"))
        service.start()

        assert service.process.wait(60) == 2
        assert service.said().count(words.get(wrong, "Address already in use")) == 1
        assert "Traceback" not in service.said()
        service.log.close()


# ---------------------------------------------------------------------------------------------------- kill -9


def trade(client, rng, seconds, living, taken, refused):
    """Send a random flow for a while, reconnecting where the connection is lost."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if len(client.waiting) > 1000:
            gather(client, taken, refused)
            time.sleep(0.005)
            continue
        commands = []
        for _ in range(rng.randrange(1, 12)):
            if living and rng.random() < 0.35:
                commands.append(CancelOrder(1, living.pop(rng.randrange(len(living)))))
            else:
                commands.append(order(rng.choice((BUY, SELL)), 1000 + rng.randrange(-9, 10), rng.randrange(1, 9)))
        try:
            given = client.send_many(commands)
            living += [one for one, command in zip(given, commands, strict=True) if isinstance(command, NewOrder)]
        except ClientError:
            pass
        gather(client, taken, refused)


def gather(client, taken, refused, *, until_all=False):
    """Take what has come, over a new connection where it must be."""
    deadline = time.monotonic() + 60
    last: Exception | None = None
    while time.monotonic() < deadline:
        try:
            if not client.connected:
                client.reconnect()
            for event in client.events(0.5 if until_all else 0.0):
                if isinstance(event, Answered):
                    assert event.reference not in taken, "a command is answered once"
                    taken[event.reference] = event.reports
                elif isinstance(event, Refused):
                    refused.append(event.reference)
                else:
                    assert not isinstance(event, Unanswered), event
            if not until_all or not client.waiting:
                return
        except (ClientError, OSError) as error:
            last = error
            time.sleep(0.02)
    raise AssertionError(f"not everything was answered within 60 s: {last!r}")


@pytest.mark.parametrize("role", ["matcher", "gateway", "publisher", "retransmitter", "shadow"])
def test_a_process_that_is_killed_loses_nothing_and_doubles_nothing(tmp_path, role):
    """RING-6, RING-9, RING-10, ENTRY-8, ENTRY-9, FEED-8: whoever dies, clients and feed go on where they were."""
    rng = random.Random(f"kill {role}")
    with Service(tmp_path) as service:
        books = LiveBooks(service.feed())
        stop = threading.Event()
        listener = threading.Thread(target=lambda: follow(books, stop))
        listener.start()
        client = service.client("maker", number=1)
        living: list[int] = []
        taken: dict[int, list[Report]] = {}
        refused: list[int] = []
        for _ in range(2):
            trade(client, rng, 0.4, living, taken, refused)
            killer = threading.Thread(target=service.kill, args=(role,))
            killer.start()
            while killer.is_alive():
                trade(client, rng, 0.1, living, taken, refused)
            killer.join()
        gather(client, taken, refused, until_all=True)
        number = service.row("matcher")["reports"]
        deadline = time.monotonic() + 30
        while books.number < number and time.monotonic() < deadline:
            time.sleep(0.01)
        stop.set()
        listener.join()
        orders = books.books.orders()
        books.close()
        client.close()

        assert service.stop() == 0

    service.verified()
    reports, engine = replayed(service)
    state = unpack_state(engine.snapshot())
    assert len(reports) == number
    assert orders == state.orders
    assert not refused
    for reference, answer in taken.items():
        for report in answer:
            assert report in reports, (reference, report)
    entered = [report.order_id for report in reports if report.kind == ReportKind.NEW]
    assert len(entered) == len(set(entered)), "no order is entered twice"


def follow(books, stop):
    while not stop.is_set():
        books.step(0.05)


def test_the_death_of_the_whole_service_leaves_what_was_acknowledged(tmp_path):
    """RING-6, ENTRY-9, ENTRY-11: after kill -9 of everything, references and limits stand where they were."""
    service = Service(tmp_path)
    with service:
        maker, operator = service.wire("maker"), service.wire("operator")
        operator.send(SetLimit(Limit.MAX_QUANTITY, 0, 9, 5))
        operator.answer()
        maker.send(order(SELL, 101, 10))
        maker.send(CancelOrder(1, 1))
        maker.send(order(SELL, 102, 10))
        answers = maker.answers(3)
        kill_all(service)

    with service:
        maker, taker = service.wire("maker", number=answers[0][0]), service.wire("taker")
        assert maker.accepted.reference == 3
        assert maker.answers(3) == answers
        maker.send(order(SELL, 103, 10), reference=3)
        assert maker.answer().reason == Refusal.DUPLICATE_REFERENCE
        taker.send(order(BUY, 1, 6))
        assert taker.answer().reason == Refusal.MAX_QUANTITY
        assert service.stop() == 0


def test_a_journal_that_is_damaged_stops_the_service(tmp_path):
    """Exit status 3, and a line that names the place."""
    service = Service(tmp_path)
    with service:
        wire = service.wire("maker")
        wire.send(order(BUY, 100, 1))
        wire.answer()
        assert service.stop() == 0
    segment = min(service.journal.glob("*.wal"))
    damaged = bytearray(segment.read_bytes())
    damaged[4096 + 40] ^= 1
    segment.write_bytes(damaged)

    service.start()

    assert service.process.wait(60) == 3
    assert f"{segment}: offset 4096, sequence 1" in service.said()
    service.log.close()


def test_the_journal_decides_at_every_level(tmp_path):
    """JRN-22, RING-9: at D1 a report leaves when its record is on disk, and a kill of the matcher loses nothing."""
    with Service(tmp_path, durability="D1") as service:
        wire = service.wire("maker")
        for price in range(100, 150):
            wire.send(order(BUY, price, 1))
        first = wire.answers(50)
        deadline = time.monotonic() + 10
        while service.row("matcher")["durable"] < first[-1][1].sequence:  # told to the board a moment later
            assert time.monotonic() < deadline
        service.kill("matcher")
        wire.send(order(BUY, 200, 1))
        assert wire.answer()[0] == first[-1][0] + 1
        assert service.stop() == 0


# ----------------------------------------------------------------------------------------------- the session layer


def test_who_may_log_in_and_who_may_not(service):
    """ENTRY-3, ENTRY-4, ENTRY-6: unknown and wrong look alike; a user has one connection at a time."""
    assert service.wire().login("nobody") == (b"J", b"A")
    assert service.wire().login("maker", secret=b"w" * 32) == (b"J", b"A")
    maker = service.wire()
    assert maker.login("maker").account == 7
    assert service.wire().login("maker") == (b"J", b"U")
    assert service.wire().login("taker", session="F00000XXXX") == (b"J", b"S")
    assert service.wire().login("taker", number=10**9) == (b"J", b"N")
    assert service.wire().login("taker", flags=2) == (b"J", b"F")
    assert service.wire().login("taker", number=3, session=maker.accepted.session).account == 9
    assert service.wire().login("maker", secret=b"w" * 32) == (b"J", b"A")
    assert service.wire().login("maker", secret=b"w" * 32) == (b"J", b"T")
    assert service.wire().login("operator").account == 0
    assert all(secret.hex() not in service.said() for secret in SECRETS.values())


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0",
        b"\0\x01X",
        b"\xff\xffU" + bytes(200),
        b"\0\x19U" + bytes(24),
        packet(b"R"),
        packet(b"L", b"short"),
        packet(b"S", bytes(56)),
    ],
)
def test_what_is_no_login_ends_the_connection(shared, data):
    """ENTRY-2, ENTRY-5."""
    wire = shared.wire()
    wire.socket.sendall(data)

    assert wire.next() == (b"", b"")


def test_packets_may_come_in_any_pieces(shared):
    """ENTRY-1: cut at every byte, they say the same; debug text is passed over."""
    wire = shared.wire("maker")
    number = wire.reference + 1
    frame = NewOrder(BUY, GTC, 0, 1, number, 10, 1).pack()
    data = packet(b"+", b"hello") + packet(b"U", number.to_bytes(8, "little") + frame) + packet(b"R")
    for byte in data:
        wire.socket.sendall(bytes((byte,)))
        time.sleep(0.001)

    assert wire.answer()[1].kind == ReportKind.NEW


def test_hostile_bytes_hurt_nobody_else(shared):
    """ENTRY-2, ENTRY-16: garbage behind a login ends that connection, and the others are answered all the while."""
    rng = random.Random(5)
    other = shared.wire("taker")

    for _ in range(60):
        wire = shared.wire("maker")
        wire.socket.sendall(rng.randbytes(rng.randrange(1, 400)))
        other.send(order(BUY, 10, 1))
        assert other.answer()[1].kind == ReportKind.NEW
        wire.close()

    assert shared.row("gateway")["starts"] == 1


def test_a_silent_client_is_sent_heartbeats_and_then_let_go(tmp_path):
    """ENTRY-15: and its orders are canceled, as it asked for."""
    with Service(tmp_path, heartbeat_ms=50, timeout_ms=400) as service:
        taker = service.wire("taker")
        maker = service.wire("maker", flags=1)
        maker.send(order(SELL, 101, 10))
        maker.answer()
        seen = set()
        while True:
            letter, _ = maker.next(heartbeats=True)
            seen.add(letter)
            taker.socket.sendall(packet(b"R"))
            if not letter:
                break

        assert b"H" in seen
        taker.send(order(BUY, 101, 10))
        assert taker.answer()[1].kind == ReportKind.NEW
        assert service.stop() == 0
    reports, _ = replayed(service)
    assert [report.kind for report in reports if report.order_id == 7 << 40 | 1] == [
        ReportKind.NEW,
        ReportKind.CANCELED,
    ]


@pytest.mark.parametrize("how", ["close", "reset", "logout", "kill the gateway", "kill all", "stop"])
def test_orders_are_canceled_however_the_connection_ends(tmp_path, how):
    """ENTRY-15."""
    service = Service(tmp_path)
    with service:
        maker = service.wire("maker", flags=1)
        for price in (101, 102, 103):
            maker.send(order(SELL, price, 10))
        maker.answers(3)
        if how == "close":
            maker.close()
        elif how == "reset":
            maker.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            maker.close()
        elif how == "logout":
            maker.socket.sendall(packet(b"O"))
        elif how == "kill the gateway":
            service.kill("gateway")
        elif how == "kill all":
            kill_all(service)
            service.__exit__()
            assert len(unpack_state(replayed(service)[1].snapshot()).orders) == 3
            service.start().until_ready()
        deadline = time.monotonic() + 30
        while how != "stop" and service.row("gateway")["resting"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert service.stop() == 0
    _, engine = replayed(service)
    assert not unpack_state(engine.snapshot()).orders
    assert not any(service.config.presence.read_bytes())


def kill_all(service):
    """Kill all processes at one moment, so that none hears of another's death."""
    pids = [row["pid"] for row in service.status()["processes"].values()]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)


def test_what_was_missed_comes_first_and_then_what_comes(shared):
    """ENTRY-8: resumed at every number, the stream is the same."""
    maker, taker = shared.wire("maker"), shared.wire("taker")
    for price in range(60_000, 60_010):
        maker.send(order(SELL, price, 1))
    stream = maker.answers(10)
    taker.send(order(BUY, 60_009, 5))
    stream += maker.answers(5)
    assert [report.kind for _, report in stream[10:]] == [ReportKind.TRADE] * 5
    maker.close()

    for number, _ in stream:
        again = shared.wire("maker", number=number)
        expected = [one for one in stream if one[0] >= number]
        assert again.answers(len(expected)) == expected
        again.close()
    operator = shared.wire("operator")
    operator.send(MassCancel(Scope.VENUE))
    operator.answer()


def stream_of(reports, account):
    """Return the numbered reports that are an account's (ENTRY-7)."""
    numbered = enumerate(reports, 1)
    return [(n, r) for n, r in numbered if r.order_id >> 40 == account or r.contra_id >> 40 == account]


def test_what_the_tape_has_no_longer_is_told_from_the_journal(tmp_path):
    """ENTRY-8: while commands go on, to several at once, and by a service that began behind it."""
    service = Service(tmp_path, tape=1024, every=2000)
    with service:
        maker, taker = service.wire("maker"), service.wire("taker")
        for round_ in range(30):
            for n in range(200):
                (maker if n % 2 else taker).send(order(BUY if n % 2 else SELL, 100 + n % 7, 1 + n % 3))
            while service.row("gateway")["commands"] < (round_ + 1) * 200:
                time.sleep(0.002)
        maker.close()
        taker.close()
        for number in (1, 77, 3000):
            wires = {name: service.wire(name, number=number) for name in ("maker", "taker")}
            last = wires["maker"].send(order(BUY, 1, 1))  # answered behind all that was missed
            wires["taker"].send(order(SELL, 99_999, 1))
            for account, name in ((7, "maker"), (9, "taker")):
                answers = [wires[name].answer()]
                while answers[-1][1].order_id != account << 40 | wires[name].reference:
                    answers.append(wires[name].answer())
                expected = [one for one in stream_of(replayed(service)[0], account) if one[0] >= number]
                assert answers == expected
                wires[name].close()
        assert service.row("gateway")["starts"] == 1
        while service.row("shadow")["snapshot"] < 4000:
            time.sleep(0.01)
        assert service.stop() == 0

    with service:
        assert service.row("matcher")["snapshot"] >= 4000
        wire = service.wire("maker", number=1)
        expected = stream_of(replayed(service)[0], 7)
        assert wire.answers(len(expected)) == expected
        assert wire.reference == last
        assert service.stop() == 0
    service.verified()


def test_commands_that_are_sent_again_are_carried_out_once(service):
    """ENTRY-9, ENTRY-14: the last 1,000, after a reconnection, and none of them twice."""
    wire = service.wire("maker")
    for _ in range(1000):
        wire.send(order(BUY, 100, 1))
    wire.answers(500)
    wire.close()
    again = service.wire("maker", number=1)
    last = again.accepted.reference
    for reference in range(1, 1001):
        again.send(order(BUY, 100, 1), reference=reference)

    answers = again.answers(1000 + last)

    entered = [answer[1].order_id for answer in answers if not isinstance(answer, Refused)]
    refused = [answer.reference for answer in answers if isinstance(answer, Refused)]
    assert sorted(entered) == [7 << 40 | reference for reference in range(1, 1001)]
    assert sorted(refused) == list(range(1, 1001))[:last]
    assert all(answer.reason == Refusal.DUPLICATE_REFERENCE for answer in answers if isinstance(answer, Refused))


def test_a_client_that_sends_far_ahead_waits_and_loses_nothing(shared):
    """ENTRY-17, RING-4: 60,000 orders at once, through a ring of 4,096 places."""
    wire = shared.wire("maker")
    total = 60_000
    frames = [
        packet(b"U", n.to_bytes(8, "little") + NewOrder(BUY if n % 2 else SELL, 2, 0, 1, n, 50_000, 1).pack())
        for n in range(wire.reference + 1, wire.reference + total + 1)
    ]
    sender = threading.Thread(target=wire.socket.sendall, args=(b"".join(frames),))
    sender.start()

    answered = refused = 0
    while answered + refused < total:
        letter, payload = wire.next()
        if letter == b"U":
            assert payload[13] == Refusal.BUSY
            refused += 1
        else:
            assert letter == b"S"
            answered += payload[8 + 44] == ReportKind.NEW
    sender.join()

    assert answered >= 1


def test_a_client_that_does_not_read_loses_its_connection_and_nobody_waits(tmp_path):
    """ENTRY-16: 8 MiB wait for it at most; what it missed it gets when it comes back."""
    with Service(tmp_path, orders=60_000, tape=1 << 20) as service:
        slow, quick = service.wire(), service.wire("taker")
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        begin = slow.login("maker").number
        trades = 0
        while "it does not read" not in service.said():
            assert trades < 600_000
            for _ in range(10):
                with suppress(OSError):  # the last one may meet a closed connection
                    slow.send(order(SELL, 100, 1000))
                for _ in range(1000):
                    quick.send(order(BUY, 100, 1))
                entered = 0
                while entered < 1000:
                    kind = quick.answer()[1].kind
                    entered += kind == ReportKind.NEW
                    trades += kind == ReportKind.TRADE
        again = service.wire("maker", number=begin)

        assert sum(again.answer()[1].kind == ReportKind.TRADE for _ in range(5000)) > 4000
        assert service.row("gateway")["starts"] == 1


# ------------------------------------------------------------------------------------------------- operators, risk


def test_an_operator_halts_and_opens_an_instrument(shared):
    """ENTRY-7, ENTRY-12: what an operator does is a command like any other, and not a client's."""
    operator, maker = shared.wire("operator"), shared.wire("maker")

    operator.send(SetTradingState(TradingState.HALTED, 1))
    assert operator.answer()[1].kind == ReportKind.STATE_CHANGED
    maker.send(order(BUY, 100, 1))
    assert maker.answer()[1].reason == Reason.NOT_OPEN
    operator.send(SetTradingState(TradingState.OPEN, 1))
    assert operator.answer()[1].kind == ReportKind.STATE_CHANGED
    maker.send(order(BUY, 100, 1))
    assert maker.answer()[1].kind == ReportKind.NEW
    maker.send(SetTradingState(TradingState.HALTED, 1))
    assert maker.answer().reason == Refusal.NOT_PERMITTED
    operator.send(order(BUY, 100, 1))
    assert operator.answer().reason == Refusal.NOT_PERMITTED


@pytest.mark.parametrize(
    ("what", "scope"),
    [((0, 7), Scope.ACCOUNT), ((1, 0), Scope.INSTRUMENT), ((0, 0), Scope.VENUE)],
    ids=["account", "instrument", "venue"],
)
def test_a_kill_switch_refuses_orders_and_cancels_those_that_rest(tmp_path, what, scope):
    """RISK-2, RISK-7: at once, and after a restart of everything as well."""
    instrument, account = what
    service = Service(tmp_path)
    with service:
        operator, maker = service.wire("operator"), service.wire("maker")
        maker.send(order(BUY, 100, 1))
        maker.send(order(BUY, 99, 1, instrument=2))
        maker.answers(2)
        operator.send(SetLimit(Limit.KILL, instrument, account, 1))
        kinds = [operator.answer()[1] for _ in range(2)]
        assert [one.kind for one in kinds] == [ReportKind.LIMIT_SET, ReportKind.MASS_CANCELED]
        assert (kinds[1].side, kinds[1].quantity) == (scope, 1 if instrument else 2)
        seen = maker.answers(kinds[1].quantity + (account > 0) * 2)
        assert any(report.kind == ReportKind.CANCELED for _, report in seen)
        maker.send(order(BUY, 100, 1))
        assert maker.answer().reason == Refusal.KILLED
        maker.send(MassCancel(Scope.ACCOUNT))
        assert not isinstance(maker.answer(), Refused)
        assert service.stop() == 0

    with service:
        operator, maker = service.wire("operator"), service.wire("maker")
        maker.send(order(BUY, 100, 1))
        assert maker.answer().reason == Refusal.KILLED
        operator.send(SetLimit(Limit.KILL, instrument, account, 0))
        assert operator.answer()[1].kind == ReportKind.LIMIT_SET
        while isinstance(answer := _again(maker), Refused):
            assert answer.reason == Refusal.KILLED
        assert service.stop() == 0


def _again(maker):
    maker.send(order(BUY, 100, 1))
    while True:
        answer = maker.answer()
        if isinstance(answer, Refused) or answer[1].kind == ReportKind.NEW:
            return answer


def test_open_orders_and_references_come_back_with_the_gateway(tmp_path):
    """RISK-3, ENTRY-9: what a gateway that was killed knew, the next one finds in the journal."""
    with Service(tmp_path, risk="max_open_orders = 3") as service:
        maker = service.wire("maker")
        for price in (100, 101, 102):
            maker.send(order(BUY, price, 1))
        maker.answers(3)
        maker.send(order(BUY, 103, 1))
        assert maker.answer().reason == Refusal.OPEN_ORDERS
        service.kill("gateway")
        maker = service.wire("maker")
        assert maker.accepted.reference == 3
        maker.send(order(BUY, 103, 1))
        assert maker.answer().reason == Refusal.OPEN_ORDERS
        maker.send(CancelOrder(1, 1))
        maker.answer()
        maker.send(order(BUY, 103, 1))
        assert maker.answer()[1].kind == ReportKind.NEW
        assert service.row("gateway")["resting"] == 3
        assert service.stop() == 0


def test_snapshots_have_a_ledger_and_a_service_goes_on_from_them(tmp_path):
    """SNAP-11, RING-7, FEED-1: numbers, references and limits are the same as if all had been replayed."""
    service = Service(tmp_path, every=500)
    with service:
        operator, maker = service.wire("operator"), service.wire("maker")
        operator.send(SetLimit(Limit.COLLAR, 1, 0, 5))
        operator.answer()
        for n in range(700):
            maker.send(order(BUY if n % 2 else SELL, 100, 1))
        while maker.reference < 700 or service.row("shadow")["snapshot"] < 500:
            time.sleep(0.01)
        assert service.stop() == 0
    uuid = identify(service.journal).uuid
    assert newest_ledger(service.journal, uuid) >= 500

    with service:
        assert service.row("matcher")["snapshot"] >= 500
        wire = service.wire("maker")
        assert wire.accepted.reference == 700
        wire.send(order(BUY, 106, 1))
        assert wire.answer().reason == Refusal.COLLAR
        wire.send(order(BUY, 1, 1))
        assert wire.answer().reason == Refusal.COLLAR
        wire.send(order(BUY, 95, 1))
        number, _ = wire.answer()
        assert service.stop() == 0
    reports, _ = replayed(service)
    assert reports[number - 1].order_id == 7 << 40 | 703
    service.verified()
