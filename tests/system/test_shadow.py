"""`ferrox shadow`: an engine beside a running one comes to the same state, keeps snapshots, survives being killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ferrox import cli
from ferrox.cli import engines
from ferrox.engine import make_engine
from ferrox.errors import JournalFailed, NotDeterministic, SnapshotCorrupt, TakenBack, UsageError
from ferrox.journal import Journal, Tail, read, scan
from ferrox.messages import RECORD_SIZE
from ferrox.shadow import LOCK_NAME, Shadow
from ferrox.snapshot import latest_snapshot, read_snapshot, write_snapshot
from ferrox.state import digest
from ferrox.testing.workload import Workload, applier

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package; what starts a verb stands beside this file

from test_cli import environment, expect_error, ferrox_json, ferrox_run, ferrox_start  # type: ignore[import-not-found]

COMMANDS = 20_000
EVERY = 1500
"""Records from one statement to the next."""

LIVE = """
import sys
from ferrox.engine import make_engine
from ferrox.journal import Journal, Tally
from ferrox.state import digest
from ferrox.testing.workload import Workload, applier

directory, syncer, count = sys.argv[1:]
flow = Workload(seed=7, commands=int(count))
journal = Journal.create(directory, flow.capacity(), segment_records=6000, syncer=syncer == "True")
engine, tally = make_engine("reference", flow.capacity()), Tally(1, every=1500)
apply = applier(engine)
print("created", flush=True)
for records in flow:
    tally.note(apply(journal.append(records.tobytes())))
    if journal.sequence >= tally.due:
        apply(journal.mark(*tally.statement(journal.sequence)))
        tally.restart(journal.sequence + 1, anchored=True)
apply(journal.close())
print(digest(engine.snapshot()))
"""


def start_live(place, syncer=False, count=COMMANDS):
    live = subprocess.Popen(
        [sys.executable, "-c", LIVE, place / "live", str(syncer), str(count)],
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    assert live.stdout is not None
    assert live.stdout.readline() == "created\n"
    return live


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A journal that a live engine has written and closed, and the digest that it ended with."""
    place = tmp_path_factory.mktemp("shadow")
    with start_live(place) as live:
        out, _ = live.communicate()
    return place / "live", out.strip()


@pytest.fixture
def place(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "live")
    return tmp_path


def snapshots(directory):
    return sorted(path.name for path in Path(directory).glob("*.snapshot"))


def follow_to_the_end(shadow):
    while shadow.step():
        pass
    return shadow


# ------------------------------------------------------------------------------------------------------- beside it


@pytest.mark.parametrize("syncer", [False, True])
def test_a_shadow_comes_to_the_state_of_the_live_engine_and_of_a_replay(syncer, tmp_path):
    """JRN-24, JRN-21, SNAP-10: in another process, while the journal is written."""
    with start_live(tmp_path, syncer) as live:
        value = ferrox_json("shadow", "live", "--until-sealed", "--every", "7000", cwd=tmp_path)
        assert live.stdout
        said = live.stdout.read().strip()

    assert value["stopped"] == "sealed"
    assert value["state_digest"] == said
    assert value["state_digest"] == ferrox_json("replay", "live", cwd=tmp_path)["state_digest"]
    found = scan(tmp_path / "live")
    assert value["statements"] == found.kinds[254] > 5
    assert value["last_sequence"] == found.last
    assert len(value["snapshots"]) == 3
    assert snapshots(tmp_path / "live") == [Path(path).name for path in value["snapshots"][-2:]]
    checked = ferrox_json("verify", "live", cwd=tmp_path)
    assert [check["verdict"] for check in checked["snapshots"]] == ["equal", "equal"]
    assert checked["verdict"] == "clean"


def test_a_shadow_that_is_killed_at_any_time_goes_on_where_its_snapshots_are(tmp_path):
    """SNAP-8: and what it leaves behind is gone with the next snapshot."""
    statuses = []
    with start_live(tmp_path) as live:
        for turn in range(6):
            options = ["--every", "400", "--until-sealed"]
            with ferrox_start("shadow", "live", *options, cwd=tmp_path) as shadow:
                told = [shadow.stdout.readline().decode() for _ in range(turn + 1)]
                shadow.kill()
            statuses.append(shadow.returncode)
            newest = latest_snapshot(tmp_path / "live")
            assert not newest.warnings
            if told[-1].startswith("snapshot"):
                assert f"live/{newest.sequence:020d}.snapshot" >= told[-1].split()[1]
        (tmp_path / "live" / "00000000000000000007.snapshot.tmp").touch()
        value = ferrox_json("shadow", "live", "--until-sealed", cwd=tmp_path)
        assert live.stdout
        said = live.stdout.read().strip()

    assert statuses[:2] == [-signal.SIGKILL] * 2
    assert value["state_digest"] == said
    assert value["first_sequence"] > 400
    assert len(snapshots(tmp_path / "live")) == 2
    assert not list((tmp_path / "live").glob("*.tmp"))
    assert ferrox_json("verify", "live", cwd=tmp_path)["verdict"] == "clean"


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_ends_a_shadow_in_order(number, word, place):
    with ferrox_start("shadow", "live", "--every", "15000", cwd=place) as shadow:
        assert shadow.stdout.readline().startswith(b"shadow    live, engine ")
        assert shadow.stdout.readline() == b"snapshot  live/00000000000000015000.snapshot\n"
        shadow.send_signal(number)
        out, err = shadow.communicate()

    assert (shadow.returncode, err) == (0, b"")
    assert out.decode().startswith(f"stopped   {word} at sequence ")


def test_people_are_told_each_snapshot_and_the_end(place, finished):
    run = ferrox_run("shadow", "live", "--until-sealed", "--every", "8000", "--keep", "1", cwd=place)

    lines = run.stdout.decode().splitlines()
    assert (run.returncode, run.stderr) == (0, b"")
    assert lines[0].endswith(", from sequence 1")
    assert [line.split()[0] for line in lines] == ["shadow", "snapshot", "snapshot", "snapshot", "stopped", "state"]
    assert lines[1] == "snapshot  live/00000000000000008000.snapshot"
    assert lines[4].startswith("stopped   sealed at sequence ")
    assert lines[4].endswith(f", {scan(place / 'live').kinds[254]} statements found right")
    assert lines[5] == f"state     {finished[1]}"
    assert len(snapshots(place / "live")) == 1


def test_a_shadow_writes_by_time_too(place):
    value = ferrox_json("shadow", "live", "--until-sealed", "--every-seconds", "0.000001", cwd=place)

    assert len(value["snapshots"]) > 3
    assert len(snapshots(place / "live")) == 2


def test_a_journal_has_one_shadow_at_a_time(place):
    with Shadow(place / "live", "reference"):
        expect_error(ferrox_run("shadow", "live", cwd=place), 2, "live: this journal has a shadow already")
    Shadow(place / "live", "reference").close()


def test_what_cannot_be_shadowed_is_one_line(tmp_path, place):
    expect_error(ferrox_run("shadow", "nowhere", cwd=tmp_path), 2, "there is no such directory")
    (place / "live" / LOCK_NAME).symlink_to("elsewhere")
    expect_error(ferrox_run("shadow", "live", cwd=place), 2, LOCK_NAME, "cannot be made")
    with pytest.raises(UsageError, match="at least 1 snapshot"):
        Shadow(place / "live", keep=0)


def test_damage_is_told_with_file_offset_and_sequence(place):
    """JRN-24: and no snapshot knows of anything behind it."""
    first = min((place / "live").glob("*.wal"))
    with first.open("r+b") as file:
        file.seek(4096 + 4999 * RECORD_SIZE)
        file.write(b"X")

    run = ferrox_run("shadow", "live", "--every", "1000", cwd=place)

    assert run.returncode == 3
    assert f"offset {4096 + 4999 * RECORD_SIZE}, sequence 5000: expected checksum" in run.stderr.decode()
    assert snapshots(place / "live")[-1] < "00000000000000005000.snapshot"


# -------------------------------------------------------------------------------------------------- what is not equal


class Forgetful:
    """An engine that changes one report, and nothing else."""

    def __init__(self, engine, sequence):
        self.engine, self.sequence = engine, sequence
        self.snapshot, self.restore = engine.snapshot, engine.restore

    def apply(self, records):
        taken, reports = self.engine.apply(records)
        changed = bytearray(reports)
        for at in range(0, len(changed), 48):
            if int.from_bytes(changed[at : at + 8], "little") == self.sequence:
                changed[at + 24] ^= 1
                break
        return taken, memoryview(bytes(changed))


@pytest.mark.parametrize("sequence", [1, 1700, 9000])
def test_an_engine_that_changes_one_report_is_caught(sequence, place, monkeypatch, capsys):
    """JRN-21: by the statement that follows."""
    monkeypatch.setattr(engines, "make_engine", lambda name, capacity: Forgetful(make_engine(name, capacity), sequence))
    monkeypatch.chdir(place)

    status = cli.run(["shadow", "live", "--until-sealed", "--engine", "reference", "--json"])

    value = json.loads(capsys.readouterr().out)
    assert (status, value["exit_status"]) == (1, 1)
    first, last = map(int, value["error"].split(": ")[0].removeprefix("sequence ").split(" to "))
    assert first <= sequence <= last
    assert last - first < EVERY + 1500
    assert "Keep the journal, and report this defect." in value["error"]


def test_a_live_engine_that_lied_is_caught(tmp_path):
    """JRN-21: the shadow's engine is right, and the statement is not."""
    flow = Workload(seed=7, commands=1000)
    with Journal.create(tmp_path / "j", flow.capacity()) as journal, Shadow(tmp_path / "j", "reference") as shadow:
        for records in flow:
            journal.append(records.tobytes())
        follow_to_the_end(shadow)
        journal.mark(1, shadow.reports, 1 ^ shadow.tally.said[1])
        with pytest.raises(NotDeterministic, match=f"expected {shadow.reports} reports with CRC-32C"):
            shadow.step()


def test_records_that_a_crash_took_back_end_a_shadow(tmp_path):
    """JRN-24."""
    flow = Workload(seed=7, commands=1000)
    with Journal.create(tmp_path / "j", flow.capacity()) as journal:
        for records in flow:
            journal.append(records.tobytes())
        shutil.copytree(tmp_path / "j", tmp_path / "copy")
    with Shadow(tmp_path / "copy", "reference") as shadow:
        follow_to_the_end(shadow)
        (segment,) = [path for path in (tmp_path / "copy").glob("*.wal") if path.read_bytes()[0]]
        with segment.open("r+b") as file:
            file.seek(4096 + 900 * RECORD_SIZE)
            file.write(bytes(100 * RECORD_SIZE))
        Journal.open(tmp_path / "copy").close()
        with pytest.raises(TakenBack, match="took back the records 901 to 1000"):
            shadow.step()

    with Shadow(tmp_path / "copy", "reference") as shadow:
        assert follow_to_the_end(shadow).sequence == 901


# --------------------------------------------------------------------------------------------------------- snapshots


def test_a_snapshot_never_knows_more_than_the_disk(tmp_path, monkeypatch):
    """SNAP-10, JRN-6: the segments are synced before it is written, and it is not when they cannot be."""
    flow = Workload(seed=7, commands=1000)
    with Journal.create(tmp_path / "j", flow.capacity()) as journal, Shadow(tmp_path / "j", "reference") as shadow:
        for records in flow:
            journal.append(records.tobytes())
        follow_to_the_end(shadow)
        assert journal.durable < 1000
        calls = []
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda file: calls.append(Path(f"/proc/self/fd/{file}").readlink().name))
            shadow.save()
        assert calls[0] == "00000000000000000001-00000001.wal"
        assert calls[1] == "00000000000000001000.snapshot.tmp"
        (tmp_path / "j" / "00000000000000001000.snapshot").unlink()

        def fail(_file):
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(JournalFailed, match="a reader's sync failed"):
                shadow.save()
        assert snapshots(tmp_path / "j") == []
        assert scan(tmp_path / "j").durable < 1000
        shadow.save()
        assert scan(tmp_path / "j").durable == 1000


def test_old_snapshots_go_only_when_the_new_one_is_sound_and_only_our_own(place, monkeypatch):
    """SNAP-9: what is damaged, or another journal's, is left to people."""
    live = place / "live"
    with Shadow(live, "reference") as shadow:
        saved = []
        for _ in range(3):
            shadow.step(1000)
            saved.append(shadow.save().name)
        assert snapshots(live) == saved[1:]
        foreign = write_snapshot(place, make_engine("reference", shadow.tail.capacity).snapshot(), bytes(16))
        foreign = foreign.rename(live / foreign.name)
        shadow.step(1000)
        with monkeypatch.context() as patch:
            patch.setattr("ferrox.shadow.read_snapshot", lambda *_: b"other")
            with pytest.raises(SnapshotCorrupt, match="expected the state that was written"):
                shadow.save()
        assert len(snapshots(live)) == 4
        damaged = live / saved[2]
        damaged.write_bytes(damaged.read_bytes()[:-1])
        shadow.step(1000)
        shadow.save()

        assert damaged.name in snapshots(live)
        assert foreign.name in snapshots(live)
        assert len(snapshots(live)) == 4


@pytest.mark.parametrize("name", ["reference", "fast"])
def test_a_shadow_from_any_of_its_snapshots_is_the_replay(name, place, finished):
    """JRN-21, SNAP-9: a damaged one is passed over with a word."""
    live = place / "live"
    with Shadow(live, name, keep=9) as shadow:
        while shadow.step(3000):
            shadow.save()
        assert digest(shadow.engine.snapshot()) == finished[1]
    for path in sorted(live.glob("*.snapshot"), reverse=True):
        path.write_bytes(path.read_bytes()[:-1])
        with Shadow(live, name) as shadow:
            follow_to_the_end(shadow)
            assert shadow.first < int(path.name[:20])
            assert shadow.warnings
            assert digest(shadow.engine.snapshot()) == finished[1]


def test_a_live_writer_never_meets_its_shadow(tmp_path):
    """The shadow takes no lock that an opening wants, and leaves no file that a reader minds."""
    flow = Workload(seed=7, commands=500)
    journal = Journal.create(tmp_path / "j", flow.capacity())
    with Shadow(tmp_path / "j", "reference") as shadow:
        for records in flow:
            journal.append(records.tobytes())
            shadow.step()
        journal.close()
        with Journal.open(tmp_path / "j") as journal, Tail(tmp_path / "j") as other:
            follow_to_the_end(shadow)
            shadow.save()
            assert journal.sequence == shadow.sequence == 501
            assert len(other.poll()) == 501 * RECORD_SIZE
    engine = make_engine("reference", flow.capacity())
    applier(engine)(b"".join(read(tmp_path / "j", until=501)))
    assert engine.snapshot() == read_snapshot(tmp_path / "j" / f"{501:020d}.snapshot")
