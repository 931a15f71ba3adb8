"""Fault tests 50, 52, 54, 56, 59 and 60 on whole services: real processes, signals, sockets and files."""

import base64
import json
import os
import random
import resource
import socket
import stat
import struct
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from ferrox.client.feed import FeedReceiver
from ferrox.engine import Capacity, make_engine
from ferrox.entry import Refused, packet
from ferrox.errors import UsageError
from ferrox.journal import Journal, identify, read
from ferrox.messages import (
    COMMAND,
    RECORD_SIZE,
    REPORT,
    REPORT_DTYPE,
    CancelOrder,
    DefineInstrument,
    MassCancel,
    NewOrder,
    Report,
    SetLimit,
)
from ferrox.state import unpack_state
from ferrox.terms import CommandKind, Limit, Refusal, ReportKind, Scope
from ferrox.testing.sessions import apply_all, to_record

sys.path.insert(0, str(Path(__file__).parent))

from abuse_kit import SECRETS, Service  # type: ignore[import-not-found]
from kit import share  # type: ignore[import-not-found]
from test_abuse import BUY, SELL, mutated, order  # type: ignore[import-not-found]
from test_desk import Model  # type: ignore[import-not-found]

pytestmark = pytest.mark.faults

LAST = 0x80


@pytest.fixture
def service(tmp_path):
    with Service(tmp_path) as running:
        yield running


def eventually(holds, told, seconds=60):
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, told()
        time.sleep(0.01)


# ---------------------------------------------------------------------------------------------------- 50: over TCP


class Oracle:
    """What a service must answer to one client: the rules of admission in a model, and the reference engine."""

    def __init__(self, account):
        self.account, self.sequence, self.model = account, 0, Model()
        self.model.accounts = {account: self.model.accounts[1]}
        self.model.defined = {1, 2}
        self.engine = make_engine("reference", Capacity(4096, 64))
        for number in (1, 2):
            self.enter(DefineInstrument(2, number, 0, 100_000, 1, 1).pack())

    def enter(self, frame):
        self.sequence += 1
        found = apply_all(self.engine, to_record(self.sequence, frame))
        return [Report._make(fields) for fields in REPORT.iter_unpack(found)]

    def answer(self, reference, frame):
        """Return what the client is told, reports with the sequence number 0."""
        me = self.model.accounts[self.account]
        reason, record = self.model.judge(self.account, reference, frame, True, 0)
        if reason:
            return Refused(reference, int.from_bytes(frame[4:8], "little"), frame[0], reason)
        reports = self.enter(record[8 : 8 + record[1]])
        me.on_the_way.clear()
        resting = unpack_state(self.engine.snapshot()).orders
        me.open, me.exposure = len(resting), sum(abs(one.price) * one.leaves for one in resting)
        self.model.last |= {one.instrument: one.price for one in reports if one.kind == ReportKind.TRADE}
        return [one._replace(sequence=0) for one in reports if one.order_id >> 40 == self.account]


def test_a_service_answers_anything_over_tcp_as_the_oracle_does(service, tally):
    """Fault test 50: frames that are anything, one behind the other, each in pieces; garbage ends its connection."""
    dice = random.Random(50)
    oracle = Oracle(7)
    wire = service.wire("maker", number=1)
    for n in range(share(6_000, 300_000)):
        me = oracle.model.accounts[7]
        frame = MassCancel(Scope.ACCOUNT).pack() if n % 60 == 59 else mutated(dice, me.seen + 1, False)
        reference = me.seen + 1 if dice.random() < 0.97 else dice.choice((0, -1, me.seen, me.seen + 65_600, 2**40))
        data = packet(b"U", struct.pack("<q", reference) + frame)
        cut = dice.randrange(len(data)) if dice.random() < 0.1 else 0
        if cut:
            wire.socket.sendall(data[:cut])
        wire.socket.sendall(data[cut:])
        expected = oracle.answer(reference, frame)
        tally.trial()
        if isinstance(expected, Refused):
            tally.expect("wrong", wire.answer() == expected, (n, data.hex()))
        else:
            found = [report._replace(sequence=0) for _, report in wire.answers(len(expected))]
            tally.expect("wrong", found == expected, (n, data.hex()))
        if me.seen - me.taken >= 65_534:  # ENTRY-11: no cancel could be taken any more
            assert wire.next() == (b"", b"")
            wire = service.wire("maker")
            me.seen = me.taken
        if n % 100 == 0:
            broken = bytearray(data)
            broken[dice.randrange(3)] ^= 1 << dice.randrange(8)
            wire.socket.sendall(broken + bytes(70_000))
            assert wire.next() == (b"", b"") or wire.next() == (b"", b"")
            wire = service.wire("maker")
            assert wire.accepted.reference == me.taken
            me.seen = me.taken
    assert service.row("gateway")["starts"] == service.row("matcher")["starts"] == 1
    state = unpack_state(oracle.engine.snapshot())
    assert service.stop() == 0
    engine = make_engine("fast", identify(service.journal).capacity)
    for data in read(service.journal):
        apply_all(engine, data)
    assert unpack_state(engine.snapshot()).orders == state.orders


# ------------------------------------------------------------------------------------------ 52: more than there is


def test_a_gateway_has_descriptors_for_all_its_connections_or_says_so(tmp_path, tally):
    """Fault test 52: where the system gives 256, a service for 600 connections takes what it needs."""
    count = 600
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    service = Service(tmp_path, connections=count)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        service.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4_096), hard), hard))
    try:
        service.until_ready()
        taker = service.wire("taker")
        idle = [service.wire() for _ in range(count - 1)]
        tally.trial(len(idle))
        with socket.create_connection(("127.0.0.1", service.row("gateway")["port"]), 10) as one_more:
            assert one_more.recv(100)[2:3] == b"C"
            assert idle[0].next() == (b"", b"")  # the oldest without a login made place for it
        taker.send(order(BUY, 10, 1))
        assert taker.answer()[1].kind == ReportKind.NEW
        assert service.row("gateway")["connections"] <= count
        assert "few descriptors" not in service.said()
        assert service.stop() == 0
    finally:
        service.__exit__()


def test_whoever_asks_the_supervisor_for_nonsense_gets_no_harm_done(service, tally):
    """Fault test 52: the control socket takes a line of JSON; any other leaves the service as it is."""
    dice = random.Random(52)
    said = [b"", b"[]", b"5", b"null", b'"status"', b"[" * 4_000, b"{" * 4_096, b'{"ask": []}', b"\xff" * 4_096]
    said += [dice.randbytes(dice.randrange(1, 5_000)) for _ in range(share(30, 3_000))]
    for data in said:
        with socket.socket(socket.AF_UNIX) as link, suppress(OSError):
            link.settimeout(5)
            link.connect(str(service.config.control))
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            link.recv(65_536)
        tally.trial()
        assert service.process.poll() is None, data[:50]
    assert service.status()["ready"]


# ----------------------------------------------------------------------------------------------- 54: once and again


def test_commands_sent_again_after_kills_of_the_gateway_are_carried_out_once(tmp_path, tally):
    """Fault test 54, ENTRY-9, ENTRY-14: the last 1,000 sent again, in disorder too, with a kill -9 in between."""
    dice = random.Random(54)
    with Service(tmp_path, orders=100_000) as service:
        base, rounds = 0, share(4, 8)  # a service that restarts more often within a minute gives up
        for n in range(rounds):
            wire = service.wire("maker", number=1 if n == 0 else 0)
            assert wire.accepted.reference == base
            first = base + 1
            frames = {}
            for reference in range(first, first + 1_000):
                command = order(BUY if reference % 2 else SELL, 100, 1)._replace(order_id=reference)
                if reference % 5 == 0:
                    command = CancelOrder(1, max(1, reference - dice.randrange(1, 9)))
                frames[reference] = packet(b"U", struct.pack("<q", reference) + command.pack())
            wire.socket.sendall(b"".join(frames.values())[: dice.randrange(1, 36_000)])
            if n % 2:
                wire.answers(1)
            service.kill("gateway")
            wire.close()
            wire = service.wire("maker")
            last = wire.accepted.reference
            assert base <= last <= first + 999
            again = [*frames.values()]  # all from the first, as one who does not know
            stray = [frames[dice.choice(list(frames))] for _ in range(50)]  # and behind them decreasing and replayed
            wire.socket.sendall(b"".join(again + stray))
            refused: Counter[int] = Counter()
            done: set[int] = set()
            while len(done) + refused[Refusal.DUPLICATE_REFERENCE] < 1_050:
                answer = wire.answer()
                if isinstance(answer, Refused):
                    refused[answer.reason] += 1
                    continue
                _, report = answer
                if report.flags & LAST and report.sequence not in done:
                    done.add(report.sequence)
            tally.trial(1_050)
            assert set(refused) == {Refusal.DUPLICATE_REFERENCE}
            assert refused[Refusal.DUPLICATE_REFERENCE] == last - base + 50
            wire.close()
            base = first + 999
        assert service.stop() == 0
    entered: Counter[int] = Counter()
    others = 0
    for data in read(service.journal):
        for at in range(0, len(data), RECORD_SIZE):
            kind, ident = data[at + 32], int.from_bytes(data[at + 40 : at + 48], "little")
            if kind == CommandKind.NEW_ORDER:
                entered[ident & 2**40 - 1] += 1
            others += kind == CommandKind.CANCEL_ORDER
    tally.expect("lost", len(entered) == 800 * rounds, len(entered))
    tally.expect("wrong", set(entered.values()) == {1})
    assert others == 200 * rounds
    service.verified()


# -------------------------------------------------------------------------------------- 56: kill, and disconnection


def test_a_kill_switch_under_full_load_is_the_end_of_orders(tmp_path, tally):
    """Fault test 56, RISK-7: while two clients send all they can; what is behind it in the journal is no order."""
    rounds = share(5, 100)
    with Service(tmp_path, orders=100_000) as service:
        operator = service.wire("operator")
        clients = [service.wire(name) for name in ("maker", "taker")]
        stop = threading.Event()

        def load(wire, side, price):
            wire.socket.settimeout(0.5)
            while not stop.is_set():
                data = b""
                for _ in range(200):
                    wire.reference += 1
                    command = order(side, price, 1)._replace(order_id=wire.reference)
                    data += packet(b"U", wire.reference.to_bytes(8, "little") + command.pack())
                wire.socket.sendall(data)
                with suppress(TimeoutError):
                    wire.socket.recv(1 << 20)

        threads = [
            threading.Thread(target=load, args=(wire, side, price))
            for wire, side, price in zip(clients, (BUY, SELL), (10, 20), strict=True)
        ]
        for thread in threads:
            thread.start()
        for n in range(rounds):
            what = [(0, 0), (1, 0), (0, 7)][n % 3]
            before = service.row("gateway")["commands"]
            eventually(lambda past=before + 500: service.row("gateway")["commands"] > past, service.said)
            for value in (1, 0):
                operator.send(SetLimit(Limit.KILL, *what, value))
                report = operator.answer()[1]
                assert report.kind == ReportKind.LIMIT_SET
                if value:
                    assert operator.answer()[1].kind == ReportKind.MASS_CANCELED
            tally.trial()
        stop.set()
        for thread in threads:
            thread.join()
        assert service.stop() == 0
    engine = make_engine("fast", identify(service.journal).capacity)
    killed: set[tuple[int, int]] = set()
    owing: list[tuple[int, int]] = []
    switches = 0
    for data in read(service.journal):
        for at in range(0, len(data), RECORD_SIZE):
            record = data[at : at + RECORD_SIZE]
            apply_all(engine, record)
            kind, limit, _, _, instrument, ident, value, _, _ = COMMAND.unpack(record[32:])
            if kind == CommandKind.SET_LIMIT and limit == Limit.KILL:
                (killed.add if value else killed.discard)((instrument, ident))
                switches += value
                owing += [(instrument, ident)] if value else []
            elif kind == CommandKind.NEW_ORDER:
                tally.expect("wrong", not killed & {(0, 0), (instrument, 0), (0, ident >> 40)})
            elif kind == CommandKind.MASS_CANCEL and owing:
                assert (instrument, ident) == owing.pop()
                resting = unpack_state(engine.snapshot()).orders
                left = [one for one in resting if instrument or ident == 0 or one.order_id >> 40 == ident]
                tally.expect("wrong", not left, len(left))
    assert switches == rounds
    assert not owing


def test_ten_thousand_orders_are_canceled_when_their_connection_ends(tmp_path, tally):
    """Fault test 56, ENTRY-15: all of them, and nobody else's, also when the gateway is killed with the connection."""
    count = share(10_000, 100_000)
    with Service(tmp_path, orders=131_072) as service:
        taker = service.wire("taker")
        taker.send(order(SELL, 200, 1))
        taker.answer()
        for how in ("close", "kill the gateway"):
            maker = service.wire("maker", flags=1)
            for first in range(0, count, 1_000):
                frames = b""
                for n in range(first, first + 1_000):
                    maker.reference += 1
                    command = order(BUY, 1 + n % 190, 1)._replace(order_id=maker.reference)
                    frames += packet(b"U", maker.reference.to_bytes(8, "little") + command.pack())
                maker.socket.sendall(frames)
                maker.answers(1_000)
            if how == "close":
                eventually(lambda: service.row("gateway")["resting"] == count + 1, service.said)
                maker.close()
            else:
                service.kill("gateway")
            eventually(lambda: service.row("gateway")["resting"] == 1, service.said)
            tally.trial(count)
        assert service.stop() == 0
    engine = make_engine("fast", identify(service.journal).capacity)
    canceled = 0
    for data in read(service.journal):
        reports = np.frombuffer(apply_all(engine, data), REPORT_DTYPE)
        canceled += int(((reports["kind"] == ReportKind.CANCELED) & (reports["order_id"] >> 40 == 7)).sum())
    tally.expect("lost", canceled == 2 * count, canceled)
    assert [one.order_id >> 40 for one in unpack_state(engine.snapshot()).orders] == [9]


# ------------------------------------------------------------------------------------------------- 59: a long sweep


class Drain(threading.Thread):
    """Reads a socket to the end of what is expected, and takes it apart when all is there."""

    def __init__(self, wire, size):
        super().__init__()
        self.wire, self.size, self.data = wire, size, bytearray()
        self.start()

    def run(self):
        self.wire.socket.settimeout(60)
        with suppress(TimeoutError):
            while len(self.data) < self.size:
                part = self.wire.socket.recv(1 << 20)
                if not part:
                    return
                self.data += part

    def reports(self):
        """Return number and report of each, heartbeats left out."""
        self.join()
        found, place, numbers = bytearray(), 0, []
        while place + 2 < len(self.data):
            size = 2 + int.from_bytes(self.data[place : place + 2], "big")
            if self.data[place + 2 : place + 3] == b"S":
                numbers.append(int.from_bytes(self.data[place + 3 : place + 11], "little"))
                found += self.data[place + 11 : place + 59]
            place += size
        return numbers, np.frombuffer(bytes(found), REPORT_DTYPE)


def test_a_sweep_of_a_hundred_thousand_orders_loses_no_report(tmp_path, tally):
    """Fault test 59: one taker, as many makers of one lot; both private streams and the feed have it all, in order.

    The tape is smaller than the sweep: the matcher waits for its readers.
    """
    count = share(100_000, 1_000_000)
    with Service(tmp_path, orders=1 << 17 if count < 1 << 17 else 1 << 20, tape=65_536, ring=65_536) as service:
        told = []
        receiver = FeedReceiver(service.feed(), number=1)
        stop = threading.Event()

        def follow():
            while not stop.is_set():
                found = receiver.read(0.05)
                if found is not None:
                    told.append(found[1])

        listener = threading.Thread(target=follow)
        listener.start()
        maker, taker = service.wire("maker"), service.wire("taker")
        for first in range(1, count + 1, 10_000):
            data = b"".join(
                packet(b"U", n.to_bytes(8, "little") + NewOrder(SELL, 1, 0, 1, n, 100 + n % 1_000, 1).pack())
                for n in range(first, first + 10_000)
            )
            drain = Drain(maker, 59 * 10_000)
            maker.socket.sendall(data)
            numbers, _ = drain.reports()
            assert len(numbers) == 10_000
        streams = [Drain(maker, 59 * count), Drain(taker, 59 * (count + 1))]
        taker.send(NewOrder(BUY, 1, 0, 1, 0, 5_000, count))
        (maker_numbers, maker_told), (taker_numbers, taker_told) = (one.reports() for one in streams)
        tally.trial(count)
        tally.expect("lost", len(maker_told) == count, len(maker_told))
        tally.expect("lost", len(taker_told) == count + 1, len(taker_told))
        assert maker_numbers == taker_numbers[1:] == list(range(maker_numbers[0], maker_numbers[0] + count))
        assert (maker_told == taker_told[1:]).all()
        eventually(lambda: sum(map(len, told)) >= 48 * taker_numbers[-1], lambda: sum(map(len, told)) // 48)
        stop.set()
        listener.join()
        receiver.close()
        taker.send(order(BUY, 1, 1))
        assert taker.answer()[1].kind == ReportKind.NEW
        assert service.stop() == 0
    fed = np.frombuffer(b"".join(told), REPORT_DTYPE)
    engine = make_engine("reference" if count <= 100_000 else "fast", identify(service.journal).capacity)
    oracle = np.frombuffer(b"".join(apply_all(engine, data) for data in read(service.journal)), REPORT_DTYPE)
    tally.expect("wrong", (fed[: taker_numbers[-1]] == oracle[: taker_numbers[-1]]).all())
    trades = oracle[taker_numbers[1] - 1 : taker_numbers[-1]]
    assert (trades == maker_told).all()
    assert (np.diff(trades["price"]) >= 0).all()
    same = np.diff(trades["price"]) == 0
    assert (np.diff(trades["contra_id"])[same] > 0).all()  # the oldest first


# ------------------------------------------------------------------------------------------- 60: files and secrets


def test_the_files_of_a_service_are_its_owner_s_alone_whatever_the_umask(tmp_path, tally):
    """Fault test 60, JRN-17: under umask 0, with snapshots and after a kill; and no file anywhere says a secret."""
    before = os.umask(0)
    try:
        (tmp_path / "place").mkdir(0o700)
        service = Service(tmp_path / "place", every=200)
        text = service.config_file.read_text().replace('listen = ""', 'listen = "127.0.0.1:0"')
        service.config_file.write_text(text + '[log]\nformat = "json"\n')
        service.start()
    finally:
        os.umask(before)
    try:
        service.until_ready()
        mine = {"ferrox.toml", "log"}  # written by this test
        wire = service.wire("maker")
        assert service.wire().login("maker", secret=b"w" * 32) == (b"J", b"A")
        assert service.wire().login("taker", secret=SECRETS["maker"]) == (b"J", b"A")
        for n in range(600):
            wire.send(order(BUY if n % 2 else SELL, 100, 1))
        eventually(lambda: service.row("shadow")["snapshot"] >= 200, service.said)
        service.kill("matcher")
        port = service.row("supervisor")["metrics_port"]
        with socket.create_connection(("127.0.0.1", port)) as link:
            link.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            metrics = b""
            while part := link.recv(65_536):
                metrics += part
        told = [metrics, json.dumps(service.status()).encode()]
        for row in service.status()["processes"].values():
            told += [Path(f"/proc/{row['pid']}/{name}").read_bytes() for name in ("cmdline", "environ")]
        modes = {
            str(path.relative_to(service.folder)): path.lstat().st_mode
            for path in service.folder.rglob("*")
            if path.name not in mine
        }
        assert {"ferrox.lock", "ferrox.sock", "ferrox.users", "journal"} <= modes.keys()
        assert any(name.endswith(".ledger") for name in modes)
        assert any(name.endswith(".snapshot") for name in modes)
        for name, mode in modes.items():
            tally.trial()
            expected = 0o700 if stat.S_ISDIR(mode) else 0o600
            assert stat.S_IMODE(mode) == expected, f"{name} has mode {stat.S_IMODE(mode):04o}"
        assert service.stop() == 0
    finally:
        service.__exit__()
    told += [path.read_bytes() for path in service.folder.rglob("*") if path.is_file() and path.name != "ferrox.users"]
    assert b"maker" in b"".join(told)
    for secret in (*SECRETS.values(), b"w" * 32):
        for written in (secret, secret.hex().encode(), base64.b64encode(secret)[:-2], repr(secret).encode()):
            tally.trial()
            assert all(written not in data for data in told)


def test_a_place_that_others_could_change_is_refused(tmp_path, tally, monkeypatch):
    """Fault test 60, JRN-17: links in the place of files, and a directory of the journal that is not ours alone."""
    service = Service(tmp_path)
    with service:
        wire = service.wire("maker")
        wire.send(order(BUY, 100, 1))
        wire.answer()
        assert service.stop() == 0

    def refused(words, status):
        size = len(service.said())
        service.start()
        assert service.process.wait(60) == status
        tally.trial()
        assert words in service.said()[size:]
        assert "Traceback" not in service.said()
        service.log.close()

    aside = tmp_path / "aside"
    for file, status in ((service.users, 2), (service.config.lock, 2), (min(service.journal.glob("*.wal")), 3)):
        file.rename(aside)
        file.symlink_to(aside)
        refused(str(file), status)
        file.unlink()
        aside.rename(file)
    for mode in (0o777, 0o720):
        service.journal.chmod(mode)
        with pytest.raises(UsageError, match=f"others may write into this directory, its mode is {mode:04o}; chmod"):
            Journal.open(service.journal)
        tally.trial()
    refused("others may write into this directory, its mode is 0720; chmod it to 0700", 2)
    service.journal.chmod(0o700)
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UsageError, match=f"this directory is user {os.getuid()}'s, and we are {os.getuid() + 1}"):
        Journal.open(service.journal)
