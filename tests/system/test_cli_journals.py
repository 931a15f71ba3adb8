"""`ferrox simulate`, `replay`, `verify`, `inspect` and `demo`: journals written, told again, judged and shown."""

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from crc32c import crc32c

import ferrox as fx
from ferrox import cli
from ferrox.cli import engines
from ferrox.columns import Reports
from ferrox.engine import make_engine
from ferrox.fast import COMPILED
from ferrox.journal import Journal, identify, read, scan
from ferrox.journal.layout import HEADER_SIZE
from ferrox.messages import RECORD_SIZE, REPORT_DTYPE
from ferrox.snapshot import write_snapshot
from ferrox.state import digest
from ferrox.testing.workload import Workload

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package; what starts a verb stands beside this file

from test_cli import copy_flow, expect_error, ferrox_json, ferrox_run, make_flow  # type: ignore[import-not-found]

SEGMENT = "00000000000000000001-00000001.wal"
HEX = re.compile(r"[0-9a-f]{64}")


@pytest.fixture(scope="session")
def flow(tmp_path_factory):
    return make_flow(tmp_path_factory.mktemp("journals"))


@pytest.fixture
def place(flow, tmp_path):
    return copy_flow(flow, tmp_path)


def files_of(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


# ------------------------------------------------------------------------------------------------------- simulate


def test_equal_seeds_give_equal_files_and_other_seeds_others(tmp_path):
    for name, seed in (("one", "3"), ("two", "3"), ("three", "4")):
        assert ferrox_run("simulate", "--seed", seed, "--commands", "3000", "--out", name, cwd=tmp_path).returncode == 0

    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert files_of(tmp_path / "one") != files_of(tmp_path / "three")


def test_a_simulated_journal_is_the_workload_of_its_seed(tmp_path):
    value = ferrox_json(
        "simulate", "--seed", "9", "--commands", "2000", "--preset", "calm", "--out", "new", cwd=tmp_path
    )

    records = np.frombuffer(b"".join(read(tmp_path / "new")), np.uint8).reshape(-1, 64)
    expected = b"".join(chunk.tobytes() for chunk in Workload(9, 2000, "calm"))
    assert records[:2000, 32:].tobytes() == np.frombuffer(expected, np.uint8).reshape(-1, 64)[:, 32:].tobytes()
    assert (value["seed"], value["preset"], value["commands"], value["records"]) == (9, "calm", 2000, 2001)
    assert scan(tmp_path / "new").verdict == "clean"


def test_the_journal_digest_is_what_sha256sum_says_of_the_segments(tmp_path):
    value = ferrox_json("simulate", "--commands", "500", "--out", "new", cwd=tmp_path)

    joined = b"".join(path.read_bytes() for path in sorted((tmp_path / "new").glob("*.wal")))
    assert value["journal_digest"] == hashlib.sha256(joined).hexdigest()


@pytest.mark.parametrize(("seed", "commands"), [("0", "1"), (str(2**64 - 1), "0")])
def test_the_smallest_flows_and_the_ends_of_the_seeds_are_fine(seed, commands, tmp_path):
    ferrox_json("simulate", "--seed", seed, "--commands", commands, "--out", "new", cwd=tmp_path)

    value = ferrox_json("verify", "new", cwd=tmp_path)
    assert (value["verdict"], value["commands"]) == ("clean", int(commands))


def test_an_empty_directory_is_taken_and_kept_when_the_call_fails(tmp_path):
    (tmp_path / "new").mkdir()

    assert ferrox_run("import", "-", "--out", "new", cwd=tmp_path, stdin=b"nonsense").returncode == 3
    assert not list((tmp_path / "new").iterdir())
    assert ferrox_run("simulate", "--commands", "10", "--out", "new", cwd=tmp_path).returncode == 0


# --------------------------------------------------------------------------------------------------------- replay


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_a_replay_counts_and_digests_what_an_engine_says(engine, flow):
    value = ferrox_json("replay", "flow", "--engine", engine, cwd=flow.parent)

    oracle = make_engine("reference", identify(flow).capacity)
    reports = b"".join(bytes(oracle.apply(records)[1]) for records in read(flow))
    assert value["engine"] == engine
    assert value["commands"] == 5000
    assert value["reports"] == len(reports) // 48
    assert value["trades"] == len(Reports(reports).trades)
    assert value["reports_digest"] == hashlib.sha256(reports).hexdigest()
    assert value["state_digest"] == digest(oracle.snapshot())
    assert value["commands_per_second"] > 0


def test_the_books_of_a_replay_are_those_of_the_state(flow):
    value = ferrox_json("replay", "flow", "--book", cwd=flow.parent)

    from ferrox.venue import Venue

    venue = Venue.load(flow, read_only=True)
    for book in value["books"]:
        depth = venue.depth(book["instrument"])
        top = venue.top(book["instrument"])
        assert book["bids"] == [list(level) for level in depth.bid_levels]
        assert book["asks"] == [list(level) for level in depth.ask_levels]
        assert (book["bid"], book["ask"]) == (top.bid, top.ask)
        assert (book["bid_quantity"], book["ask_quantity"]) == (top.bid_quantity, top.ask_quantity)
        assert book["orders"] == len(venue.orders(book["instrument"]))


def test_people_see_the_top_of_every_book_and_the_depth_of_the_busiest(flow):
    run = ferrox_run("replay", "flow", cwd=flow.parent)

    text = run.stdout.decode()
    assert "bid" in text
    assert "spread" in text
    assert text.count("█") > 10
    assert len(HEX.findall(text)) == 2


def test_reports_come_in_the_form_of_their_suffix(flow, tmp_path):
    for name in ("r.bin", "r.csv", "r.parquet", "R.CSV"):
        value = ferrox_json("replay", flow, "--reports", name, cwd=tmp_path)

    raw = (tmp_path / "r.bin").read_bytes()
    rows = (tmp_path / "r.csv").read_text().splitlines()
    table = pq.read_table(tmp_path / "r.parquet")
    assert hashlib.sha256(raw).hexdigest() == value["reports_digest"]
    assert len(rows) == 1 + value["reports"]
    assert table["order_id"].to_numpy().tolist() == np.frombuffer(raw, REPORT_DTYPE)["order_id"].tolist()
    assert (tmp_path / "R.CSV").read_text().splitlines() == rows


def test_a_dash_sends_the_bytes_to_stdout_and_the_summary_elsewhere(flow):
    run = ferrox_run("replay", "flow", "--reports", "-", cwd=flow.parent)

    value = ferrox_json("replay", "flow", cwd=flow.parent)
    assert hashlib.sha256(run.stdout).hexdigest() == value["reports_digest"]
    assert value["state_digest"] in run.stderr.decode()


def test_reports_and_json_cannot_both_have_stdout(flow):
    run = ferrox_run("replay", "flow", "--reports", "-", "--json", cwd=flow.parent)

    assert run.returncode == 2
    assert "stdout" in json.loads(run.stdout)["error"]


@pytest.mark.parametrize("name", ["missing/r.csv", "folder.csv", "/dev/null/r.csv"])
def test_a_place_that_takes_no_file_of_reports_is_named(name, flow, tmp_path):
    (tmp_path / "folder.csv").mkdir()

    run = ferrox_run("replay", flow, "--reports", name, cwd=tmp_path)

    expect_error(run, 2, name)


def test_until_stops_there_and_is_told_when_it_lies_beyond_the_end(flow):
    until = ferrox_json("replay", "flow", "--until", "1234", cwd=flow.parent)
    nothing = ferrox_json("replay", "flow", "--until", "0", cwd=flow.parent)
    beyond = ferrox_run("replay", "flow", "--until", "99999", cwd=flow.parent)

    assert (until["commands"], until["last_sequence"]) == (1234, 1234)
    assert nothing["commands"] == nothing["reports"] == 0
    assert beyond.returncode == 0
    assert "ends at sequence 5001, before --until 99999" in beyond.stderr.decode()


def test_a_replay_of_a_damaged_journal_says_how_far_it_is_sound(place):
    flip(place / "flow" / SEGMENT, 4096 + 64 * 2999 + 40)

    run = ferrox_run("replay", "flow", "--reports", "r.csv", cwd=place)

    expect_error(run, 3, SEGMENT, "offset 196032", "sequence 3000", "expected", "found", "--until 2999")
    assert not list(place.glob("r.csv*"))
    assert ferrox_json("replay", "flow", "--until", "2999", cwd=place)["commands"] == 2999


# --------------------------------------------------------------------------------------------------------- verify


def test_a_sound_journal_is_verified_on_both_engines(flow):
    value = ferrox_json("verify", "flow", cwd=flow.parent)

    reference, fast = value["engines"]["reference"], value["engines"]["fast"]
    assert value["verdict"] == "clean"
    assert value["engines_equal"] is True
    assert reference["state_digest"] == fast["state_digest"]
    assert reference["reports_digest"] == fast["reports_digest"]
    assert (value["first_sequence"], value["last_sequence"], value["sealed"]) == (1, 5001, True)


@pytest.mark.parametrize("offset", [0, 50, 100, 4095, 4096 + 64 * 10, 4096 + 64 * 5000 + 63])
def test_one_flipped_bit_anywhere_is_corrupt_and_its_place_is_told(offset, place):
    flip(place / "flow" / SEGMENT, offset)

    value = ferrox_json("verify", "flow", cwd=place, status=3)

    damage = value["corruption"]
    assert value["verdict"] == "corrupt"
    assert damage["path"] == f"flow/{SEGMENT}"
    assert damage["expected"]
    assert damage["found"]
    if offset >= 4096:
        assert damage["offset"] == offset // 64 * 64
        assert damage["sequence"] == (offset - 4096) // 64 + 1
        assert value["last_sequence"] == damage["sequence"] - 1


def test_damage_is_told_to_people_with_file_offset_and_sequence(place):
    flip(place / "flow" / SEGMENT, 4096 + 64 * 9)

    run = ferrox_run("verify", "flow", cwd=place)

    text = run.stdout.decode()
    assert run.returncode == 3
    assert f"flow/{SEGMENT}: offset 4672, sequence 10: expected checksum" in text
    assert text.splitlines()[-1].startswith("CORRUPT")


def test_garbage_and_missing_files_are_corrupt_and_never_a_traceback(place):
    (place / "garbage").mkdir()
    (place / "garbage" / SEGMENT).write_bytes(os.urandom(10_000))
    (place / "garbage" / "commit.mark").write_bytes(os.urandom(1024))
    (place / "flow" / "commit.mark").unlink()

    for name in ("garbage", "flow"):
        run = ferrox_run("verify", name, cwd=place)
        assert run.returncode == 3
        assert b"CORRUPT" in run.stdout
        assert b"Traceback" not in run.stderr + run.stdout


def torn(directory):
    """Make a journal that a crash has torn: unsynced records, the last of them cut."""
    with Journal.create(directory.with_name("running")) as journal:
        chunks = iter(Workload(1, 2000))
        journal.append(next(chunks).tobytes())
        journal.sync()
        durable = journal.durable
        journal.append(next(chunks).tobytes())
        shutil.copytree(journal.directory, directory)
        os.truncate(next(directory.glob("*.wal")), HEADER_SIZE + journal.sequence * RECORD_SIZE - 30)
    return durable


def test_a_torn_tail_is_told_and_is_no_damage(tmp_path):
    torn(tmp_path / "torn")

    value = ferrox_json("verify", "torn", cwd=tmp_path)
    verified = ferrox_run("verify", "torn", cwd=tmp_path)
    replayed = ferrox_run("replay", "torn", cwd=tmp_path)
    inspected = ferrox_run("inspect", "torn", cwd=tmp_path)

    assert value["verdict"] == "torn"
    assert value["torn"]["size"] == 34
    assert verified.returncode == replayed.returncode == inspected.returncode == 0
    assert b"torn tail" in verified.stdout
    assert b"torn tail" in replayed.stderr
    assert b"torn tail" in inspected.stdout


def with_snapshot(directory, until, change=None):
    header = identify(directory)
    engine = make_engine("reference", header.capacity)
    for records in read(directory, until=until):
        engine.apply(records)
    if change:
        change(engine)
    return write_snapshot(directory, engine.snapshot(), header.uuid)


def test_snapshot_files_are_held_against_the_replay_at_their_sequence(place):
    with_snapshot(place / "flow", 1000)
    with_snapshot(place / "flow", 5001)

    value = ferrox_json("verify", "flow", cwd=place)

    assert [(check["sequence"], check["verdict"]) for check in value["snapshots"]] == [(1000, "equal"), (5001, "equal")]


def test_a_snapshot_of_another_state_is_a_difference(place):
    def move_clock(engine):
        engine.time_ns += 1

    with_snapshot(place / "flow", 1000, move_clock)

    value = ferrox_json("verify", "flow", cwd=place, status=1)

    assert value["verdict"] == "different"
    assert value["snapshots"][0]["verdict"] == "different"


def test_a_damaged_snapshot_is_corrupt_and_its_place_is_told(place):
    path = with_snapshot(place / "flow", 1000)
    flip(path, 200)

    run = ferrox_run("verify", "flow", cwd=place)
    shown = ferrox_run("inspect", path, cwd=place)

    assert run.returncode == 3
    assert f"{path.name}: offset 64: expected block checksum" in run.stdout.decode()
    assert shown.returncode == 0
    assert b"damage" in shown.stdout


class Liar:
    """The reference engine, but for one thing from one sequence number on."""

    def __init__(self, engine, sequence, lie):
        self.engine, self.sequence, self.lie = engine, sequence, lie

    def apply(self, records):
        taken, reports = self.engine.apply(records)
        return taken, memoryview(self.lie(bytes(reports), self.sequence))

    def snapshot(self):
        return self.engine.snapshot()


def another_price(reports, sequence):
    array = np.frombuffer(reports, REPORT_DTYPE).copy()
    array["price"][array["sequence"] >= sequence] += 1
    return array.tobytes()


def one_report_less(reports, sequence):
    array = np.frombuffer(reports, REPORT_DTYPE)
    return array[array["sequence"] != sequence].tobytes()


def fail(reports, sequence):
    if reports and np.frombuffer(reports, REPORT_DTYPE)["sequence"].max() >= sequence:
        raise AssertionError("every level holds an order")
    return reports


def verify_with(lie, sequence, directory, monkeypatch, capsys):
    def make(name, capacity):
        engine = make_engine("reference", capacity)
        return Liar(engine, sequence, lie) if name == "fast" else engine

    monkeypatch.setattr(engines, "make_engine", make)
    status = cli.run(["verify", str(directory), "--json"])
    people = cli.run(["verify", str(directory)])
    out = capsys.readouterr().out.split("\n", 1)
    assert people == status
    return status, json.loads(out[0]), out[1]


@pytest.mark.parametrize("sequence", [1, 4096, 4097, 4999])
def test_the_first_report_that_differs_is_named_with_its_command_and_both_reports(sequence, flow, monkeypatch, capsys):
    status, value, text = verify_with(another_price, sequence, flow, monkeypatch, capsys)

    assert status == 1
    assert value["difference"]["sequence"] == sequence
    assert value["difference"]["command"]
    assert value["difference"]["reports"]["reference"] != value["difference"]["reports"]["fast"]
    assert f"first at sequence {sequence}" in text
    assert text.splitlines()[-1].startswith("DIFFERENT")


def test_a_report_that_one_engine_lacks_is_a_difference_at_its_sequence(flow, monkeypatch, capsys):
    status, value, _ = verify_with(one_report_less, 5000, flow, monkeypatch, capsys)

    assert status == 1
    assert value["difference"]["sequence"] == 5000
    assert value["difference"]["reports"]["fast"] == "no report"


@pytest.fixture
def stated(tmp_path):
    """A journal that states wrongly what the engine said to the first 2,000 records, and rightly where that ends."""
    said = bytearray()
    with Journal.create(tmp_path / "stated") as journal:
        engine = make_engine("reference", journal.capacity)
        for records in Workload(seed=7, commands=2000):
            left = journal.append(records.tobytes())
            while left:
                taken, reports = engine.apply(left)
                said += reports
                left = left[taken * RECORD_SIZE :]
        journal.mark(1, len(said) // 48, crc32c(said))
        journal.mark(2002, 1, 0)
    return tmp_path / "stated"


def test_a_statement_that_neither_engine_repeats_is_a_difference(stated):
    """JRN-21: in a replay and in a verification."""
    told = "sequence 2002 to 2001: expected 1 reports with CRC-32C 00000000, as the MARK of sequence 2002 states"

    value = ferrox_json("verify", stated, cwd=stated.parent, status=1)
    assert value["verdict"] == "different"
    assert value["difference"]["sequence"] == 2002
    assert all(told in said for said in value["difference"]["reports"].values())
    assert len(value["difference"]["reports"]) == 2
    run = ferrox_run("replay", stated, cwd=stated.parent)
    expect_error(run, 1, told, "Keep the journal, and report this defect.")
    value = ferrox_json("replay", stated, "--until", "2001", cwd=stated.parent)
    assert value["statements"] == 1


def test_an_engine_that_fails_is_a_difference(flow, monkeypatch, capsys):
    status, value, _ = verify_with(fail, 2000, flow, monkeypatch, capsys)

    assert status == 1
    assert "every level holds an order" in value["difference"]["reports"]["fast"]


# -------------------------------------------------------------------------------------------------------- inspect


def test_a_journal_is_shown_with_its_counts_its_times_and_a_table_of_commands(flow):
    run = ferrox_run("inspect", "flow", "--from", "9", "--limit", "3", cwd=flow.parent)
    value = ferrox_json("inspect", "flow", "--from", "4999", "--limit", "100", cwd=flow.parent)

    text = run.stdout.decode()
    assert "clean, sealed" in text
    assert "2026-01-05 14:30:00.000000000 to" in text
    assert re.search(r"^ +9  2026.*buy #", text, re.MULTILINE)
    assert [row["sequence"] for row in value["records"]] == [4999, 5000, 5001]
    assert value["records"][-1]["text"] == "(seal)"
    assert sum(value["kinds"].values()) == 5001


def test_segments_marks_and_snapshots_are_shown_as_files_under_any_name(place):
    snapshot = with_snapshot(place / "flow", 5000)
    (place / "copy.wal").write_bytes((place / "flow" / SEGMENT).read_bytes())

    segment = ferrox_json("inspect", "copy.wal", "--limit", "2", "--hex", cwd=place)
    mark = ferrox_json("inspect", "flow/commit.mark", cwd=place)
    state = ferrox_json("inspect", snapshot, "--limit", "5", cwd=place)

    assert (segment["kind"], segment["header_flaw"], segment["flawed_records"]) == ("segment", None, 0)
    assert segment["records"][0]["hex"] == (place / "copy.wal").read_bytes()[4096 : 4096 + 64].hex()
    assert mark["slots"][0]["durable"] == 5001
    assert (state["kind"], state["sequence"], len(state["records"])) == ("snapshot", 5000, 5)


def test_a_segment_is_shown_from_standard_input(flow):
    data = (flow / SEGMENT).read_bytes()

    value = ferrox_json("inspect", "-", "--limit", "1", cwd=flow.parent, stdin=data)

    assert value["kinds"]["seal"] == 1


@pytest.mark.parametrize("offset", [0, 40, 110, 4096, 4096 + 64 * 100 + 3, 4096 + 64 * 100 + 9, 4096 + 64 * 5000])
def test_damage_is_shown_where_it_is_and_stops_nothing(offset, place):
    flip(place / "flow" / SEGMENT, offset)

    for name in ("flow", f"flow/{SEGMENT}"):
        run = ferrox_run("inspect", name, "--from", "99", "--limit", "4", "--hex", cwd=place)
        assert run.returncode == 0, run.stderr
        assert b"damage" in run.stdout


@pytest.mark.parametrize("size", [0, 1, 100, 4095, 4096, 4097, 4096 + 63, 50_000])
@pytest.mark.parametrize("name", [SEGMENT, "x.wal", "commit.mark", "00000000000000000007.snapshot", "x.wal.torn"])
def test_any_bytes_under_a_name_of_ours_are_shown_without_a_failure(size, name, tmp_path, capsys):
    path = tmp_path / name
    path.write_bytes(np.random.default_rng(size).bytes(size))

    assert cli.run(["inspect", str(path), "--hex"]) == 0
    assert cli.run(["inspect", str(path), "--json"]) == 0
    assert cli.run(["inspect", str(tmp_path)]) == (0 if name.endswith(".wal") or name == "commit.mark" else 2)
    capsys.readouterr()


def test_every_prefix_of_a_snapshot_is_shown(place, capsys):
    data = with_snapshot(place / "flow", 5000).read_bytes()
    path = place / "cut.snapshot"

    for size in [*range(0, 200, 7), len(data) // 2, len(data) - 1, len(data)]:
        path.write_bytes(data[:size])
        assert cli.run(["inspect", str(path)]) == 0
    capsys.readouterr()


def test_a_file_that_is_none_of_ours_is_refused_by_its_first_bytes(place):
    (place / "noise").write_bytes(b"\x7fELF\0\0\0\0more")
    (place / "nothing").write_bytes(b"")

    expect_error(ferrox_run("inspect", "noise", cwd=place), 3, "7f 45 4c 46")
    expect_error(ferrox_run("inspect", "nothing", cwd=place), 3, "is empty")
    expect_error(ferrox_run("inspect", "/dev/null", cwd=place), 2, "neither a file nor a directory")


# ----------------------------------------------------------------------------------------------------------- demo


def test_the_demo_proves_its_replay_equal_and_shows_the_book_and_the_trades(tmp_path):
    run = ferrox_run("demo", "--commands", "5000", cwd=tmp_path)

    text = run.stdout.decode()
    assert run.returncode == 0
    assert run.stderr == b""
    assert "EQUAL  5,000 commands" in text
    assert "spread" in text
    assert "taker" in text
    assert text.count("█") > 10
    states = re.findall(r"state +([0-9a-f]{64})", text)
    assert len(states) == 2
    assert states[0] == states[1]


def test_what_the_demo_keeps_replays_to_the_digests_that_it_showed(tmp_path):
    shown = ferrox_json("demo", "--commands", "5000", "--keep", "kept", cwd=tmp_path)

    again = ferrox_json("replay", "kept", cwd=tmp_path)

    assert shown["equal"] is True
    assert (again["state_digest"], again["reports_digest"]) == (shown["state_digest"], shown["reports_digest"])
    assert shown["engine"] == ("fast" if COMPILED else "reference")
    assert shown["engine"] != shown["replay_engine"]


def test_a_demo_whose_engines_differ_says_so_and_has_status_1(tmp_path, monkeypatch, capsys):
    def make(name, capacity):
        engine = make_engine("reference", capacity)
        return Liar(engine, 100, another_price) if name == engines.other_than(engines.quickest()) else engine

    monkeypatch.setattr(engines, "make_engine", make)

    status = cli.run(["demo", "--commands", "2000"])

    assert status == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_a_snapshot_of_the_beginning_is_held_against_the_replay_too(tmp_path):
    with fx.Venue(journal=tmp_path / "flow", orders=16, instruments=2) as venue:
        venue.save_snapshot()
        venue.define(1)

    value = ferrox_json("verify", "flow", cwd=tmp_path)

    assert [(check["sequence"], check["verdict"]) for check in value["snapshots"]] == [(0, "equal")]
