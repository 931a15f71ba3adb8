"""`ferrox salvage` and `ferrox archive`, and every other verb on a journal that begins later."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ferrox.engine import Capacity, make_engine
from ferrox.journal import Journal, Source, identify, read
from ferrox.journal.layout import HEADER_SIZE, MARK_NAME
from ferrox.journal.salvage import REPORT_JSON, REPORT_TEXT, read_report
from ferrox.messages import RECORD_SIZE
from ferrox.snapshot import write_snapshot
from ferrox.state import digest
from ferrox.testing.workload import Workload

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package; what starts a verb stands beside this file

from test_cli import call, expect_error, ferrox_json, ferrox_run  # type: ignore[import-not-found]  # noqa: F401

CAPACITY = Capacity(orders=10_000, instruments=100)
SNAPSHOTS = (900, 1500, 2300)
LAST = 3001


@pytest.fixture
def flow(tmp_path):
    """3,000 commands and a SEAL in segments of 500, and three snapshots; its parent is where verbs are called."""
    engine = make_engine("reference", CAPACITY)
    path = tmp_path / "flow"
    with Journal.create(path, CAPACITY, segment_records=500, source=Source.seeded(7)) as journal:
        records = b"".join(chunk.tobytes() for chunk in Workload(7, 3000))
        for start in range(0, len(records), 100 * RECORD_SIZE):
            engine.apply(journal.append(records[start : start + 100 * RECORD_SIZE]))
            if journal.sequence in SNAPSHOTS:
                journal.sync()
                write_snapshot(path, engine.snapshot(), journal.uuid)
    return path


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def damage(path, sequence):
    file = sorted(path.glob("*.wal"))[(sequence - 1) // 500]
    with file.open("r+b") as stream:
        stream.seek(HEADER_SIZE + (sequence - 1) % 500 * RECORD_SIZE + 40)
        stream.write(b"\xff\xfe")
    return file


def state_at(path, sequence):
    engine = make_engine("reference", identify(path).capacity)
    for records in read(path, until=sequence):
        engine.apply(records)
    return digest(engine.snapshot())


# -------------------------------------------------------------------------------------------------------- salvage


def test_a_dry_run_tells_the_loss_with_status_3_and_writes_nothing(flow):
    """JRN-25."""
    file = damage(flow, 1200)
    before = contents(flow)

    run = ferrox_run("salvage", "flow", cwd=flow.parent)

    text = run.stdout.decode()
    assert run.returncode == 3
    assert "keeps     1,199 records, sequence 1 to 1199" in text
    assert f"loses     {LAST - 1199:,} records, sequence 1200 to {LAST}" in text
    assert f"flow/{file.name}: offset {HEADER_SIZE + 199 * RECORD_SIZE}, sequence 1200: expected checksum" in text
    assert f"not used  {LAST - 1200:,} records sound by themselves" in text
    assert "--from-snapshot would keep more: records 1501 to 3001 behind" in text
    assert contents(flow) == before
    assert [path.name for path in flow.parent.iterdir()] == ["flow"]


def test_what_is_kept_verifies_and_replays_to_the_state_before_the_damage(flow):
    expected = state_at(flow, 1199)
    damage(flow, 1200)
    before = contents(flow)

    run = ferrox_run("salvage", "flow", "--out", "new", "--accept-loss", cwd=flow.parent)

    assert run.returncode == 0, run.stderr
    assert b"written: new; the loss is told in new/loss-report.txt and new/loss-report.json" in run.stdout
    assert contents(flow) == before
    assert ferrox_json("verify", "new", cwd=flow.parent)["verdict"] == "clean"
    assert ferrox_json("replay", "new", "--until", "1199", cwd=flow.parent)["state_digest"] == expected
    report = read_report(flow.parent / "new" / REPORT_JSON)
    assert report["lost"]["acknowledged"] == LAST - 1199
    assert report["checksum"] in (flow.parent / "new" / REPORT_TEXT).read_text()


def test_from_a_snapshot_the_last_state_is_the_same(flow):
    expected = ferrox_json("replay", "flow", cwd=flow.parent)
    damage(flow, 1200)

    value = ferrox_json("salvage", "flow", "--from-snapshot", "--out", "new", "--accept-loss", cwd=flow.parent)

    assert (value["written"], value["lost"]["records"], value["kept"]["first_sequence"]) == (True, 0, 1501)
    found = ferrox_json("verify", "new", cwd=flow.parent)
    assert (found["verdict"], found["began_with_snapshot"], found["first_sequence"]) == ("clean", 1500, 1501)
    again = ferrox_json("replay", "new", "--until", str(LAST), cwd=flow.parent)
    assert (again["state_digest"], again["first_sequence"]) == (expected["state_digest"], 1501)


def test_json_of_a_dry_run_says_what_the_text_says(flow):
    damage(flow, 1200)

    value = ferrox_json("salvage", "flow", cwd=flow.parent, status=3)

    assert (value["verb"], value["written"], value["sound"]) == ("salvage", False, False)
    assert value["would_keep_more"]["last_sequence"] == LAST
    assert value["found"][0]["sequence"] == 1200


def test_without_a_loss_a_dry_run_is_fine_and_a_sound_journal_is_not_salvaged(flow, call):  # noqa: F811
    run = call("salvage", "flow", cwd=flow.parent)
    assert run.returncode == 0
    assert b"sound: there is nothing to salvage" in run.stdout
    expect_error(call("salvage", "flow", "--out", "new", "--accept-loss", cwd=flow.parent), 2, "is sound")

    (flow / MARK_NAME).unlink()
    run = call("salvage", "flow", cwd=flow.parent)

    assert run.returncode == 0
    assert b"loses    nothing" in run.stdout
    assert call("salvage", "flow", "--out", "new", "--accept-loss", cwd=flow.parent).returncode == 0
    assert call("verify", "new", cwd=flow.parent).returncode == 0


def test_a_torn_journal_is_told_that_opening_it_does_the_same(flow, call):  # noqa: F811
    with Journal.create(flow.parent / "torn", source=Source.seeded(1)) as journal:
        journal.append(next(iter(read(flow, 1, 50))))
        copy = contents(flow.parent / "torn")
    (name,) = (name for name in copy if name.endswith(".wal"))
    data = bytearray(copy[name])
    data[HEADER_SIZE + 20 * RECORD_SIZE] ^= 1
    for file, content in copy.items():
        (flow.parent / "torn" / file).write_bytes(bytes(data) if file == name else content)

    run = call("salvage", "torn", cwd=flow.parent)

    assert run.returncode == 3
    assert b"0 of them at or below the watermark" in run.stdout
    assert b"a torn tail needs no salvage" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["salvage", "flow", "--accept-loss"], "--out NEW"),
        (["salvage", "flow", "--accept-loss", "--out", "flow/new"], "inside the journal"),
        (["salvage", "missing"], "no such directory"),
        (["archive", "flow", "--to", "a", "--delete"], "choose one"),
        (["archive", "flow", "--to", "flow"], "the journal itself"),
        (["archive", "flow", "--restore", "x.gz"], "not the name"),
        (["archive", "flow", "--keep", "0"], "--keep"),
        (["archive", "missing"], "no such directory"),
    ],
)
def test_a_wrong_call_is_one_line_and_status_2(arguments, words, flow, call):  # noqa: F811
    if arguments[0] == "salvage":
        damage(flow, 1200)

    expect_error(call(*arguments, cwd=flow.parent), 2, words)


# -------------------------------------------------------------------------------------------------------- archive


def test_a_dry_run_tells_what_could_go_and_changes_nothing(flow, call):  # noqa: F811
    """JRN-26."""
    before = contents(flow)

    run = call("archive", "flow", cwd=flow.parent)

    text = run.stdout.decode()
    assert run.returncode == 0
    assert f"could go  {1:020d}-00000001.wal  35.2 KiB" in text
    assert "in all    3 segments, 1 snapshot" in text
    assert "nothing was changed" in text
    assert contents(flow) == before


@pytest.mark.parametrize("how", [["--to", "away"], ["--delete"]])
def test_a_journal_that_begins_later_works_with_every_verb_and_says_where_it_began(how, flow):
    """JRN-20, JRN-26."""
    whole = contents(flow)
    expected = ferrox_json("replay", "flow", cwd=flow.parent)["state_digest"]

    value = ferrox_json("archive", "flow", *how, cwd=flow.parent)

    assert value["removed"]
    assert [one["last_sequence"] for one in value["segments"]] == [500, 1000, 1500]
    assert value["kept_snapshots"] == [2300, 1500]

    replayed = ferrox_json("replay", "flow", cwd=flow.parent)
    assert (replayed["state_digest"], replayed["first_sequence"]) == (expected, 2301)
    assert "this began at sequence 2301, with the snapshot of 2300" in replayed["notes"][0]
    assert ferrox_json("replay", "flow", "--until", "1600", cwd=flow.parent)["first_sequence"] == 1501
    expect_error(ferrox_run("replay", "flow", "--until", "900", cwd=flow.parent), 2, "begins at sequence 1501")

    verified = ferrox_json("verify", "flow", cwd=flow.parent)
    assert (verified["verdict"], verified["began_with_snapshot"]) == ("clean", 1500)
    assert [one["verdict"] for one in verified["snapshots"]] == ["origin", "equal"]
    assert {engine["state_digest"] for engine in verified["engines"].values()} == {expected}
    text = ferrox_run("verify", "flow", cwd=flow.parent).stdout.decode()
    assert "journal    1,501 records in 4 segments" in text
    assert "begins     at sequence 1501, with the snapshot of 1500: what was before is archived" in text

    shown = ferrox_run("inspect", "flow", cwd=flow.parent)
    assert shown.returncode == 0
    assert b"begins    behind what is archived" in shown.stdout
    assert b"records   sequence 1501 to 3001" in shown.stdout

    if how[0] == "--to":
        packed = sorted(str(path) for path in (flow.parent / "away").iterdir())
        arguments = [word for name in packed for word in ("--restore", name)]
        assert len(ferrox_json("archive", "flow", *arguments, cwd=flow.parent)["restored"]) == 4
        assert {name: data for name, data in contents(flow).items() if name in whole} == whole
        assert ferrox_json("verify", "flow", cwd=flow.parent)["began_with_snapshot"] is None


def test_a_snapshot_that_differs_is_found_in_a_journal_that_begins_later(flow):
    ferrox_json("archive", "flow", "--delete", cwd=flow.parent)
    engine = make_engine("reference", CAPACITY)
    empty = bytearray(engine.snapshot())
    empty[16:24] = (2300).to_bytes(8, "little")
    write_snapshot(flow, bytes(empty), identify(flow).uuid)

    value = ferrox_json("verify", "flow", cwd=flow.parent, status=1)

    assert [one["verdict"] for one in value["snapshots"]] == ["origin", "different"]


def test_gunzip_brings_a_segment_back_as_it_was(flow):
    whole = contents(flow)
    ferrox_json("archive", "flow", "--to", "away", cwd=flow.parent)
    for path in sorted((flow.parent / "away").iterdir(), reverse=True):
        with (flow / path.name.removesuffix(".gz")).open("wb") as file:
            subprocess.run(["gunzip", "--stdout", path], stdout=file, check=True)

    assert {name: data for name, data in contents(flow).items() if name in whole} == whole


def test_nothing_goes_from_a_corrupt_journal_and_the_status_says_so(flow, call):  # noqa: F811
    damage(flow, 1200)
    before = contents(flow)

    expect_error(call("archive", "flow", "--delete", cwd=flow.parent), 3, "sequence 1200")

    assert set(contents(flow)) - set(before) <= {"archive.lock"}
    assert {name: data for name, data in contents(flow).items() if name in before} == before


def test_an_archive_without_snapshots_says_why_nothing_goes(flow, call):  # noqa: F811
    for path in flow.glob("*.snapshot"):
        path.unlink()

    value = json.loads(call("archive", "flow", "--delete", "--json", cwd=flow.parent).stdout)

    assert (value["segments"], value["bytes"]) == ([], 0)
    assert value["reason"].startswith("expected 2 sound snapshots to stand for what goes, found 0")
