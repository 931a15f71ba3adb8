"""Bad days of a service: full disks, processes that hang, clients that keep others out, streams that are closed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ferrox.engine import make_engine
from ferrox.entry import Refused, packet
from ferrox.journal import identify, read
from ferrox.messages import CancelOrder, MassCancel, NewOrder
from ferrox.state import unpack_state
from ferrox.terms import Refusal, ReportKind, Scope
from ferrox.testing.sessions import apply_all

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package; the kit stands beside this file

from service_kit import SERVE, Service, Wire  # type: ignore[import-not-found]

BUY, SELL, GTC = 1, 2, 1
SECONDS = 60


def order(side, price, quantity, instrument=1):
    return NewOrder(side, GTC, 0, instrument, 0, price, quantity)


def until(condition, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


# ---------------------------------------------------------------------------------------------------------- the disk


@pytest.fixture
def small_disk(tmp_path):
    """A folder for a journal on a file system of two megabytes, and how to run something that sees it."""
    refused = subprocess.run(["unshare", "--mount", "--map-root-user", "true"], capture_output=True, check=False)
    if refused.returncode:
        pytest.skip(f"this machine gives nobody a name space: {refused.stderr.decode().strip()}")
    place = tmp_path / "small"
    place.mkdir(mode=0o700)
    script = f"mount -t tmpfs -o size=2m,mode=0700 tmpfs {place} && echo && exec sleep 1000"
    holder = subprocess.Popen(["unshare", "--mount", "--map-root-user", "sh", "-c", script], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.read(1)
    seen = Path(f"/proc/{holder.pid}/root{place}")
    yield ["nsenter", "--user", "--mount", "--preserve-credentials", "--target", str(holder.pid)], seen
    holder.kill()
    with holder:
        holder.wait()


def test_a_full_disk_takes_cancels_refuses_orders_and_loses_nothing(tmp_path, small_disk):
    """JRN-23, RISK-1, RISK-2: what came back from the disk is refused, and nothing else comes of it."""
    service = Service(tmp_path, directory="small/journal", segment_records=2048, orders=100_000)
    service.before, disk = small_disk
    (disk / "ballast").write_bytes(bytes(700_000))
    with service:
        maker, taker = service.wire("maker"), service.wire("taker")
        answers: list[Any] = []
        while not answers or not isinstance(answers[-1], Refused):
            for _ in range(200):
                maker.send(order(BUY, 100, 1))
            answers += maker.answers(200)
        time.sleep(0.1)
        assert service.row("matcher")["disk_low"] == 1
        assert service.said().count("disk full") == 1
        placed = [one[1].order_id & (1 << 40) - 1 for one in answers if not isinstance(one, Refused)]
        refused = [one for one in answers if isinstance(one, Refused)]
        assert {one.reason for one in refused} == {Refusal.DISK_LOW}
        assert sorted(placed + [one.reference for one in refused]) == list(range(1, maker.reference + 1))

        for reference in placed[:50]:
            maker.send(CancelOrder(1, reference))
            taker.send(order(SELL, 100, 1))
        assert [one[1].kind for one in maker.answers(50)] == [ReportKind.CANCELED] * 50
        assert [one.reason for one in taker.answers(50)] == [Refusal.DISK_LOW] * 50
        (disk / "ballast").unlink()
        while service.row("matcher")["disk_low"]:
            time.sleep(0.01)
        time.sleep(0.2)  # the gateway hears of it with its next look at the board
        taker.send(order(SELL, 101, 1))
        number, report = taker.answer()
        assert report.kind == ReportKind.NEW
        taker.close()
        assert service.wire("taker", number=number).answer() == (number, report)
        assert service.stop() == 0
        service.journal = disk / "journal"
        service.verified()
        engine = make_engine("reference", identify(service.journal).capacity)
        for records in read(service.journal):
            apply_all(engine, records)
    assert len(unpack_state(engine.snapshot()).orders) == len(placed) - 50 + 1


def test_a_snapshot_that_finds_no_room_ends_nothing(tmp_path, small_disk):
    """JRN-23: the journal has all that a snapshot has; the shadow says so once in a while, and tries again."""
    service = Service(tmp_path, directory="small/journal", segment_records=2048, every=300, orders=100_000)
    service.before, disk = small_disk
    with service:
        wire = service.wire("maker")
        (disk / "ballast").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096 - 4096))  # room for a ledger only
        for price in range(1, 601):
            wire.send(order(BUY, price, 1))
        answers = wire.answers(600)
        until(lambda: "no snapshot" in service.said())
        wire.send(MassCancel(Scope.ACCOUNT))
        placed = [one for one in answers if not isinstance(one, Refused)]
        assert wire.answers(len(placed))[-1][1].kind == ReportKind.CANCELED
        wire.answer()
        assert service.row("shadow")["starts"] == 1
        (disk / "ballast").unlink()
        until(lambda: service.row("shadow")["snapshot"] >= 300)
        assert service.stop() == 0


# ----------------------------------------------------------------------------------------------- processes, and signals


def test_a_service_whose_syncer_died_says_so_with_its_exit_status(tmp_path):
    """Exit status 4, also when it is told to stop at the same moment."""
    with Service(tmp_path) as service:
        matcher = service.row("matcher")["pid"]
        (syncer,) = Path(f"/proc/{matcher}/task/{matcher}/children").read_text().split()
        os.kill(matcher, signal.SIGSTOP)
        os.kill(int(syncer), signal.SIGKILL)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        os.kill(matcher, signal.SIGCONT)
        assert service.process.wait(30) == 4
        assert "exit_status=4" in service.said()


def test_a_publisher_that_hangs_is_told_killed_and_started_again(tmp_path):
    """RING-9: the matcher waits for it, so nobody may be waited for without end."""
    with Service(tmp_path, tape=1024, timeout_ms=60_000) as service:
        publisher, wire = service.row("publisher")["pid"], service.wire("maker")
        os.kill(publisher, signal.SIGSTOP)
        for _ in range(3000):
            wire.send(order(BUY, 1, 1))
        until(lambda: not service.status()["ready"])
        assert len(wire.answers(3000)) == 3000
        assert service.row("publisher")["pid"] != publisher
        until(lambda: service.status()["ready"])
        assert service.stop() == 0
        assert "hangs role=publisher" in service.said()


def test_a_stop_does_not_wait_for_who_does_not_read(tmp_path):
    with Service(tmp_path, tape=1024) as service:
        publisher, wire = service.row("publisher")["pid"], service.wire("maker")
        os.kill(publisher, signal.SIGSTOP)
        for _ in range(1500):
            wire.send(order(BUY, 1, 1))
        until(lambda: service.row("matcher")["waits"] > 0)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(2)
        os.kill(publisher, signal.SIGCONT)
        assert service.process.wait(30) == 0
        service.verified()


def test_a_terminal_that_closes_stops_the_service_in_order(tmp_path):
    with Service(tmp_path) as service:
        service.wire("maker").send(order(BUY, 1, 1))
        assert service.stop(signal.SIGHUP) == 0
        assert "stopped exit_status=0" in service.said()
        service.verified()


@pytest.mark.parametrize("closed", [(2,), (0, 1, 2)])
def test_a_service_without_standard_streams_keeps_its_memory_to_itself(tmp_path, closed):
    service = Service(tmp_path)
    closing = " ".join(f"{number}>&-" for number in closed)
    command = f'exec "$0" -P -c "$1" serve --config "$2" {closing}'
    service.log = (tmp_path / "log").open("ab")
    service.process = subprocess.Popen(["sh", "-c", command, sys.executable, SERVE, service.config_file])
    try:
        service.until_ready()
        wire = service.wire("maker")
        wire.send(order(BUY, 1, 1))
        assert wire.answer()[1].kind == ReportKind.NEW
        assert service.stop() == 0
    finally:
        service.__exit__()
    service.verified()


def test_a_file_of_presence_of_any_size_is_taken(tmp_path):
    service = Service(tmp_path)
    service.config.presence.write_bytes(b"\0" * 4099 + b"x" * 2000)
    with service:
        assert service.stop() == 0


def test_a_venue_that_starts_again_publishes_the_end_of_its_reports_and_no_more(tmp_path):
    """FEED-8: all was sent; what may not have been can be had from the retransmission server."""
    service = Service(tmp_path, timeout_ms=60_000, ring=8192)
    with service:
        wire = service.wire("maker")
        for _ in range(6000):
            wire.send(order(BUY, 1, 1))
        last = max(one[0] for one in wire.answers(6000) if not isinstance(one, Refused))  # the others were too quick
        assert service.stop() == 0
    with service:
        assert "publishing session" in service.said()
        begun = [int(line.rsplit("report=", 1)[1]) for line in service.said().splitlines() if "publishing" in line]
        assert begun[0] == 0
        assert last - 4096 <= begun[1] <= last
        assert service.stop() == 0


# ------------------------------------------------------------------------------------------------------------ clients


def test_a_client_that_does_not_read_keeps_nobody_from_being_told_from_the_journal(tmp_path):
    """ENTRY-8, ENTRY-16."""
    with Service(tmp_path, tape=1024, orders=100_000) as service:
        maker, taker = service.wire("maker"), service.wire("taker")
        for _ in range(60):
            for _ in range(1000):
                maker.send(order(BUY, 1, 1))
            maker.answers(1000)
        taker.send(order(BUY, 2, 1))
        number, _ = taker.answer()
        maker.close()
        taker.close()
        deaf = Wire(service.row("gateway")["port"], receive_buffer=4096)
        service.opened.append(deaf)
        deaf.socket.sendall(packet(b"L", deaf.signed("maker", number=1)))
        time.sleep(0.5)
        again = service.wire("taker", number=number)
        assert again.answer()[0] == number
        assert service.stop() == 0


def test_who_is_right_is_let_in_whatever_others_at_its_address_do(tmp_path):
    """ENTRY-4: a throttle for who is wrong, and no lock for who is right; places for who logs in."""
    with Service(tmp_path, connections=8) as service:
        for _ in range(5):
            assert service.wire().login("maker", secret=b"wrong" * 8) in ((b"J", b"A"), (b"J", b"T"))
        assert service.wire().login("maker", secret=b"wrong" * 8) == (b"J", b"T")
        idle = [service.wire() for _ in range(40)]
        operator = service.wire("operator")
        operator.send(MassCancel(Scope.VENUE))
        assert operator.answer()[1].kind == ReportKind.MASS_CANCELED
        assert sum(one.next() == (b"", b"") for one in idle[:30]) == 30
        assert service.stop() == 0


def test_an_empty_packet_ends_the_connection(tmp_path):
    """ENTRY-2: also when nothing comes behind it."""
    with Service(tmp_path) as service:
        for wire in (service.wire(), service.wire("maker")):
            wire.socket.sendall(b"\0\0")
            assert wire.next() == (b"", b"")
        assert service.stop() == 0


def test_after_too_many_refusals_in_a_row_another_connection_can_cancel(tmp_path):
    """ENTRY-11, RISK-2: one that could not cancel any more is ended."""
    with Service(tmp_path, orders=100_000) as service:
        maker = service.wire("maker")
        maker.send(order(BUY, 1, 1))
        maker.answer()
        bad = b"".join(
            packet(b"U", n.to_bytes(8, "little") + NewOrder(7, GTC, 0, 1, n, 1, 1).pack()) for n in range(2, 65_600)
        )
        maker.socket.settimeout(0.0)
        got = b""
        while bad or got is not None:
            try:
                bad = bad[maker.socket.send(bad[:65_536]) :] if bad else bad
            except BlockingIOError:
                pass
            except ConnectionError:
                break
            try:
                if not maker.socket.recv(1 << 20):
                    break
            except BlockingIOError:
                time.sleep(0.001)
            except ConnectionError:
                break
        again = service.wire("maker")
        assert again.accepted.reference == 1
        again.send(CancelOrder(1, 1))
        assert again.answer()[1].kind == ReportKind.CANCELED
        assert service.stop() == 0
