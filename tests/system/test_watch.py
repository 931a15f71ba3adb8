"""`ferrox watch` and the metrics, beside a service that runs: what they show is what the service and its feed say."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ferrox.cli import watching
from ferrox.cli.watching import Follower, Watch
from ferrox.errors import UsageError
from ferrox.messages import NewOrder
from ferrox.service.board import NAMES, OWN, ROLES, SILENT_SECONDS, Board, State, ailments
from ferrox.service.config import read_config
from ferrox.service.links import Links
from ferrox.service.metrics import FAMILIES, NO_METRIC, MetricsServer
from ferrox.terms import Side, TimeInForce

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package; the kit stands beside this file

from service_kit import Service  # type: ignore[import-not-found]

CHECKOUT = Path(__file__).parents[2]
FERROX = [sys.executable, "-P", "-c", "from ferrox.cli import main; main()"]
UNTIL_SECONDS = 60
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
ROW_OF_TABLE = re.compile(r"^\| `(ferrox_\w+)` \| (counter|gauge|histogram) \| ([^|]*) \| ([^|]*) \|$", re.MULTILINE)


class Measured(Service):  # type: ignore[misc]
    """A service with metrics on a port that the system chooses."""

    def __init__(self, folder, **settings):
        super().__init__(folder, **settings)
        text = self.config_file.read_text().replace('[metrics]\nlisten = ""', '[metrics]\nlisten = "127.0.0.1:0"')
        self.config_file.write_text(text)
        self.config = read_config(self.config_file)

    def trade(self):
        """Six orders and two trades in instrument 1: what the tests expect to see."""
        with self.client("maker") as maker, self.client("taker") as taker:
            for price, quantity in ((101, 10), (102, 20), (103, 5)):
                maker.wait(maker.sell(quantity, price))
            for price, quantity in ((99, 8), (98, 4)):
                maker.wait(maker.buy(quantity, price))
            taker.wait(taker.buy(13, 102))
        until(self.told)

    def told(self):
        """Whether every process has told the board of every report."""
        rows = self.status()["processes"]
        words = {"gateway": "number", "publisher": "number", "shadow": "reports"}
        return {rows[role][word] for role, word in words.items()} == {rows["matcher"]["reports"]}

    def watch(self, *arguments):
        return subprocess.run(
            [*FERROX, "watch", "--config", self.config_file, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def get(self, path):
        return get(self.row("supervisor")["metrics_port"], path)


def get(port, path):
    """Return status and body of an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def until(condition):
    end = time.monotonic() + UNTIL_SECONDS
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def traded(tmp_path_factory):
    """One service with a few orders and trades, for all tests that only look."""
    with Measured(tmp_path_factory.mktemp("traded")) as running:
        running.trade()
        yield running


@pytest.fixture
def service(tmp_path):
    with Measured(tmp_path) as running:
        running.trade()
        yield running


# ---------------------------------------------------------------------------------------------------------- one picture


def test_one_picture_shows_book_trades_processes_and_where_all_of_it_stands(traded):
    done = traded.watch("--once")

    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("█")[0].split() for line in done.stdout.splitlines()]
    for expected in ("ask 102 17 (1)", "ask 103 5 (1)", "bid 99 8 (1)", "bid 98 4 (1)"):
        assert expected.split() in [line[:4] for line in lines]
    assert [line[1:] for line in lines if "#9/1" in line] == [
        ["buy", "3", "102", "#9/1", "#7/2"],
        ["buy", "10", "101", "#9/1", "#7/1"],
    ]
    for role in ROLES:
        assert [line[:2] for line in lines if line[:1] == [role]] == [[role, "running"]]
    sequence = traded.row("matcher")["sequence"]
    assert f"journal  sequence {sequence}, durable" in done.stdout


def test_json_has_the_numbers_of_status_and_book(traded):
    done = traded.watch("--json")
    status = traded.status()
    value = json.loads(done.stdout)

    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    assert (value["verb"], value["ready"], value["answers"]) == ("watch", True, True)
    assert value["book"] == {
        "instrument": 1,
        "state": "open",
        "orders": 4,
        "bid": 99,
        "bid_quantity": 8,
        "ask": 102,
        "ask_quantity": 17,
        "bids": [[99, 8, 1], [98, 4, 1]],
        "asks": [[102, 17, 1], [103, 5, 1]],
        "sequence": status["processes"]["matcher"]["sequence"],
    }
    assert [(trade["quantity"], trade["price"], trade["maker"]) for trade in value["trades"]] == [
        (10, 101, "#7/1"),
        (3, 102, "#7/2"),
    ]
    assert value["journal"]["sequence"] == status["processes"]["matcher"]["sequence"]
    assert value["feed"]["number"] == value["feed"]["published"] == status["processes"]["publisher"]["number"]
    assert (value["feed"]["state"], value["feed"]["behind"], value["feed"]["problem"]) == ("sync", False, None)
    assert (value["feed"]["gaps"], value["feed"]["recovered"]) == (0, 0)
    assert value["tape"] == {"unread": 0, "last": status["tape"]["last"], "capacity": 65536}
    assert {role: row["pid"] for role, row in value["processes"].items()} == {
        role: row["pid"] for role, row in status["processes"].items()
    }


def test_levels_and_instrument_choose_what_is_shown(traded):
    one = json.loads(traded.watch("--json", "--levels", "1").stdout)
    other = json.loads(traded.watch("--json", "--instrument", "2").stdout)

    assert (one["book"]["bids"], one["book"]["asks"]) == ([[99, 8, 1]], [[102, 17, 1]])
    assert (other["book"]["instrument"], other["book"]["orders"], other["trades"]) == (2, 0, [])


def test_an_instrument_that_is_not_defined_is_one_line(traded):
    done = traded.watch("--once", "--instrument", "9")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "ferrox: instrument 9 is not defined; defined are: 1, 2\n"


@pytest.mark.parametrize("option", ["--once", "--json"])
def test_a_reader_that_went_away_and_a_full_disk_end_it_as_any_verb(option, traded):
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [*FERROX, "watch", "--config", traded.config_file, option, "--seconds", "0.1"]

    gone = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    os.close(write_end)
    with Path("/dev/full").open("wb") as full:
        disk = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)

    assert (gone.returncode, gone.stderr) == (128 + signal.SIGPIPE, "")
    assert (disk.returncode, len(disk.stderr.splitlines())) == (2, 1)
    assert "No space left on device" in disk.stderr


def test_a_live_picture_asks_for_a_terminal(traded):
    done = traded.watch()

    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "--once" in done.stderr


@pytest.mark.parametrize("option", [[], ["--once"], ["--json"]])
def test_where_no_service_runs_it_is_one_line_and_status_2(option, tmp_path):
    stopped = Measured(tmp_path)

    done = stopped.watch(*option)

    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    if option:
        assert "no service answers there" in line
    if option == ["--json"]:
        assert json.loads(done.stdout)["exit_status"] == 2


# ---------------------------------------------------------------------------------------------------------------- live


class Live:
    """`ferrox watch` on a terminal of its own."""

    def __init__(self, service, *arguments, columns=140, lines=40):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        left_out = ("COLUMNS", "LINES", "NO_COLOR")
        self.process = subprocess.Popen(
            [*FERROX, "watch", "--config", service.config_file, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name not in left_out}
            | {"TERM": "xterm-256color"},
        )
        os.close(slave)
        assert self.process.stderr is not None
        self.errors = self.process.stderr
        self.shown = b""
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # nobody writes there any more
                return
            self.shown += data

    def frame(self):
        """Return the last picture that was drawn whole, as lines."""
        frames = self.shown.decode(errors="replace").split("\x1b[H")
        return [line.rstrip() for line in ESCAPE.sub("", frames[-2] if len(frames) > 1 else "").split("\r\n")]

    def shows(self, pattern):
        assert self.process.poll() is None, self.errors.read()
        return any(re.search(pattern, line) for line in self.frame())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.errors.close()
        self.thread.join(10)
        os.close(self.master)


def test_a_watch_goes_on_while_processes_die_and_ctrl_c_ends_it_as_any_verb(service):
    with Live(service) as live:
        until(lambda: live.shows(r"ask  102  17 \(1\)"))
        for role in ("matcher", "shadow", "publisher", "retransmitter", "gateway"):
            service.kill(role)
            until(lambda role=role: live.shows(rf"{role} +running +{service.row(role)['pid']} +1 "))
        with service.client("maker") as maker:
            maker.wait(maker.buy(6, 100))
        until(lambda: live.shows(r"bid  100   6 \(1\)") and live.shows(r"feed +sync"))

        live.process.send_signal(signal.SIGINT)

        assert live.process.wait(30) == 130
        assert live.errors.read() == b"ferrox: interrupted\n"
        live.thread.join(10)
        assert live.shown.endswith(b"\x1b[?25h\x1b[?1049l")  # the cursor and the screen are as they were


@pytest.mark.parametrize(("fresh", "asked"), [(False, r"ask  102  34 \(2\)"), (True, r"ask  102  17 \(1\)")])
def test_a_service_that_ends_and_comes_back_is_watched_on_be_it_with_another_journal(fresh, asked, service):
    with Live(service) as live:
        until(lambda: live.shows(r"ask  102  17 \(1\)"))

        service.stop()
        until(lambda: live.shows("^NOT ANSWERING") and live.shows("matcher +unknown"))
        service.log.close()
        if fresh:
            shutil.rmtree(service.journal)
        service.start().until_ready()
        service.trade()
        with service.client("maker") as maker:
            maker.wait(maker.buy(6, 100))

        until(lambda: live.shows("^ready") and live.shows(asked) and live.shows(r"bid  100   6 \(1\)"))


@pytest.mark.parametrize(("columns", "lines"), [(140, 40), (60, 30), (30, 10)])
def test_a_picture_keeps_to_the_terminal_and_to_its_seconds(columns, lines, traded):
    with Live(traded, "--seconds", "1.5", columns=columns, lines=lines) as live:
        until(lambda: live.process.poll() is not None)
        live.thread.join(10)
        drawn = live.shown.decode().split("\x1b[?1049l")[0].split("\x1b[H")[1:]

    assert live.process.returncode == 0
    assert drawn
    for frame in drawn:
        rows = ESCAPE.sub("", frame).split("\r\n")
        assert len(rows) <= lines
        assert max(map(len, rows)) <= columns
    assert "processes" in live.shown.decode() or "shadow" in live.shown.decode()  # the last one stays, whole


def test_books_that_are_slower_than_the_feed_begin_again_with_states_and_say_so(service, monkeypatch):
    fold = Follower._fold

    def slow(follower, reports):
        time.sleep(len(reports) / 48 * 0.002)
        fold(follower, reports)

    monkeypatch.setattr(Follower, "_fold", slow)
    monkeypatch.setattr(watching, "BEHIND_REPORTS", 200)
    passing = NewOrder(int(Side.BUY), int(TimeInForce.IOC), 0, 1, 0, 1, 1)

    with Watch(service.config) as watch, service.client("maker") as maker:

        def behind():
            for reference in maker.send_many([passing] * 50):
                maker.wait(reference)
            watch.look()
            feed = watch.frame(None, 1)["feed"]
            return feed["behind"] and feed["states"] > 0

        def in_step():
            watch.look()
            feed = watch.frame(None, 1)["feed"]
            return feed["number"] == feed["published"] == service.row("matcher")["reports"] and feed["state"] == "sync"

        until(watch.settled)
        until(behind)
        maker.wait(maker.buy(6, 100))
        until(in_step)
        book = watch.book()

    assert book is not None
    assert (book.order_count, book.bids[0], book.asks[0]) == (5, (100, 6, 1), (102, 17, 1))


def test_a_watch_of_nothing_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no service answers there"):
        Watch(Measured(tmp_path).config)


# ------------------------------------------------------------------------------------------------------------- metrics


def scraped(service):
    """Return what was scraped by name and process, and the kind of each family by the name of its samples."""
    status, body = service.get("/metrics")
    assert status == 200
    samples, kinds = {}, {}
    for family in text_string_to_metric_families(body):
        for sample in family.samples:
            samples[sample.name, sample.labels.get("process")] = sample.value
            kinds[family.name if family.type == "histogram" else sample.name] = family.type
    return samples, kinds


def test_what_prometheus_scrapes_is_what_the_status_says(traded):
    before = traded.status()
    samples, _ = scraped(traded)
    after = traded.status()

    def agrees(value, first, last):
        return min(first, last) * (1 - 1e-12) <= value <= max(first, last) * (1 + 1e-12)

    for name, family in FAMILIES.items():
        for role, (word, scale) in family.words.items():
            first, last = (status["processes"][role][word] * scale for status in (before, after))
            assert agrees(samples[name, role], first, last), (name, role)
    for role in ROLES:
        assert samples["ferrox_process_state", role] == State.RUNNING
        assert samples["ferrox_process_beat_age_seconds", role] >= 0
    for role in ROLES[1:]:
        assert samples["ferrox_process_starts_total", role] == after["processes"][role]["starts"]
    assert samples["ferrox_ready", None] == 1
    assert samples["ferrox_ring_capacity_records", None] == after["ring"]["capacity"]
    assert samples["ferrox_tape_reports_total", None] == after["tape"]["last"]
    assert samples["ferrox_resting_orders", "gateway"] == 4


def test_latencies_count_every_command_in_metrics_status_and_picture(traded):
    """Two stages: a command is matched before it is answered, and none is left out."""
    deadline = time.monotonic() + 10
    while len(counts := {one["count"] for one in traded.status()["latencies"].values()}) > 1:
        assert time.monotonic() < deadline, counts
        time.sleep(0.05)
    (count,) = counts
    assert count >= traded.row("gateway")["commands"]
    found = traded.status()["latencies"]
    for values in found.values():
        assert 0 < values["p50_us"] <= values["p90_us"] <= values["p99_us"] <= values["p99_9_us"] <= values["max_us"]
    _, body = traded.get("/metrics")
    for stage in ("match", "answer"):
        assert f'ferrox_latency_seconds_count{{stage="{stage}"}} {count:.1f}' in body


def test_the_table_of_the_documentation_has_every_metric_that_is_served(traded):
    samples, kinds = scraped(traded)
    processes = {name: {role for sample, role in samples if sample == name and role} for name in kinds}
    table = ROW_OF_TABLE.findall((CHECKOUT / "docs" / "metrics.md").read_text())

    documented = {name: (kind, set(roles.replace(",", "").split())) for name, kind, roles, _ in table}

    assert len(documented) == len(table)
    assert documented == {
        name: (kind, {"all"} if processes[name] == set(ROLES) else processes[name]) for name, kind in kinds.items()
    }


def test_every_word_of_the_board_is_measured_or_left_out_on_purpose():
    for role, words in NAMES.items():
        measured = {word for family in FAMILIES.values() for name, (word, _) in family.words.items() if name == role}
        assert measured | set(NO_METRIC.get(role, ())) == set(words)
        assert not measured & set(NO_METRIC.get(role, ()))
        assert OWN + len(words) <= 32


def test_other_paths_are_not_there(traded):
    assert traded.get("/")[0] == traded.get("/metricsx")[0] == 404


def test_health_says_503_while_a_process_hangs_and_200_again_when_it_goes_on(service):
    assert service.get("/health") == (200, '{"ready": true, "processes": {}}\n')
    pid = service.row("retransmitter")["pid"]

    os.kill(pid, signal.SIGSTOP)
    until(lambda: service.get("/health")[0] == 503)
    _, body = service.get("/health")
    os.kill(pid, signal.SIGCONT)
    until(lambda: service.get("/health")[0] == 200)

    assert list(json.loads(body)["processes"]) == ["retransmitter"]
    assert "silent" in json.loads(body)["processes"]["retransmitter"]


def test_health_is_503_until_every_process_runs(tmp_path):
    config = Measured(tmp_path).config
    links = Links.create(config)
    board = Board(links.board)
    server = MetricsServer(config, links)

    answers = []
    for role in ROLES:
        board.put(role, "state", State.RUNNING)
        board.put(role, "beat", time.monotonic_ns())
        answers.append(get(server.port, "/health")[0])
    board.put("shadow", "state", State.STARTING)
    starting = json.loads(get(server.port, "/health")[1])
    board.put("shadow", "state", State.RUNNING)
    board.put("matcher", "beat", time.monotonic_ns() - int(SILENT_SECONDS * 2e9))
    server.close()

    assert answers == [503] * 5 + [200]
    assert starting == {"ready": False, "processes": {"shadow": "starting"}}
    assert list(ailments(board)) == ["matcher"]


def test_a_port_that_is_taken_is_one_line(tmp_path):
    config = Measured(tmp_path).config
    links = Links.create(config)
    server = MetricsServer(config, links)
    text = config.path.read_text()
    config.path.write_text(
        text.replace('[metrics]\nlisten = "127.0.0.1:0"', f'[metrics]\nlisten = "127.0.0.1:{server.port}"')
    )

    with pytest.raises(UsageError, match=rf"listen: 127.0.0.1:{server.port}: .*name another port"):
        MetricsServer(read_config(config.path), links)
    server.close()
