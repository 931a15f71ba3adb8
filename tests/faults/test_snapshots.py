"""Fault tests 32 to 34: snapshots that are damaged, foreign or ahead, and replays that must end in the same place."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ferrox.engine import ENGINES, Capacity, make_engine
from ferrox.errors import CorruptInput, SnapshotCorrupt
from ferrox.journal import Journal, identify, scan
from ferrox.messages import RECORD_SIZE
from ferrox.recovery import recover
from ferrox.snapshot import latest_snapshot, read_snapshot, write_snapshot
from ferrox.state import digest
from ferrox.testing.workload import Workload, applier

sys.path.insert(0, str(Path(__file__).parent))

from kit import LONG, create, orders, overwrite, share  # type: ignore[import-not-found]

pytestmark = pytest.mark.faults
WORKLOAD = Workload(32, 6_000, "deep")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A journal with two snapshots, of a thousand resting orders and more each, and its state at the end."""
    path = tmp_path_factory.mktemp("kept") / "j"
    engine = make_engine("fast", WORKLOAD.capacity())
    apply = applier(engine)
    with Journal.create(path, WORKLOAD.capacity(), segment_records=2000) as journal:
        flow = b"".join(chunk.tobytes() for chunk in WORKLOAD)
        for first in range(0, 6_000, 500):
            apply(journal.append(flow[first * RECORD_SIZE : (first + 500) * RECORD_SIZE]))
            if first in (2_500, 4_000):
                journal.sync()
                write_snapshot(path, engine.snapshot(), journal.uuid)
        apply(journal.close())
    assert len(list(path.glob("*.snapshot"))) == 2
    return path, digest(engine.snapshot())


def test_every_flipped_bit_of_a_snapshot_is_refused(kept, tally):
    """Fault test 32: some bits of every byte in a file of a thousand orders and more; all of them in the long run."""
    path, _ = kept
    newest = max(path.glob("*.snapshot"))
    data = bytearray(newest.read_bytes())
    assert int.from_bytes(read_snapshot(newest)[44:48], "little") > 1000
    for bit in range(0, 8 * len(data), share(61, 1)):
        data[bit // 8] ^= 1 << bit % 8
        overwrite(newest, bytes(data))
        data[bit // 8] ^= 1 << bit % 8
        tally.trial()
        with pytest.raises(CorruptInput):
            read_snapshot(newest)
    overwrite(newest, bytes(data))
    assert read_snapshot(newest)


def test_recovery_falls_back_to_an_older_snapshot_or_to_none(kept, tmp_path, tally):
    """Fault test 32: with a warning for each one that was passed over, and to the same state."""
    path, expected = kept
    for damaged in range(3):
        copy = shutil.copytree(path, tmp_path / f"j{damaged}")
        for snapshot in sorted(copy.glob("*.snapshot"), reverse=True)[:damaged]:
            data = bytearray(snapshot.read_bytes())
            data[len(data) // 2] ^= 4
            snapshot.write_bytes(data)
        found = recover(copy)
        tally.trial()
        tally.expect("wrong", digest(found.engine.snapshot()) == expected)
        assert len(found.warnings) == damaged
        assert (found.snapshot == 0) == (damaged == 2)
        found.journal.close()


def test_a_snapshot_ahead_of_the_journal_or_of_another_one_is_refused(kept, tmp_path, tally):
    """Fault test 33."""
    path, _ = kept
    newest = max(path.glob("*.snapshot"))
    state = read_snapshot(newest)
    sequence = int(newest.stem)
    cut = shutil.copytree(path, tmp_path / "cut")  # a journal that ends before its snapshot
    for segment in sorted(cut.glob("*.wal")):
        if int(segment.name[:20]) > sequence - 1000:
            segment.unlink()
    (cut / "commit.mark").write_bytes((path / "commit.mark").read_bytes())
    tally.trial()
    tally.expect("undetected", scan(cut).verdict == "corrupt")

    foreign = tmp_path / "foreign"
    with Journal.create(foreign, WORKLOAD.capacity()) as journal:
        journal.append(orders(10))
    shutil.copy(newest, foreign)
    tally.trial()
    tally.expect("wrong", latest_snapshot(foreign, identify(foreign).uuid).path is None)
    found = recover(foreign)
    tally.expect("wrong", found.snapshot == 0)
    found.journal.close()

    tally.trial()
    with pytest.raises(SnapshotCorrupt):  # other capacities are another configuration
        make_engine("fast", Capacity(5, 5)).restore(state)


REPLAY = """
import hashlib, sys
from ferrox.engine import make_engine
from ferrox.journal import identify, read
from ferrox.snapshot import read_snapshot
from ferrox.testing.workload import applier
from ferrox.state import digest
path, name = sys.argv[1:3]
engine = make_engine(name, identify(path).capacity)
apply = applier(engine)
start = 1
if len(sys.argv) > 3:
    engine.restore(read_snapshot(sys.argv[3]))
    start = int(sys.argv[3][-29:-9]) + 1
reports = hashlib.sha256()
for records in read(path, start=start):
    reports.update(apply(records))
print(digest(engine.snapshot()), reports.hexdigest())
"""


def test_every_replay_ends_in_the_same_place(kept, tmp_path, tally):
    """Fault test 34: both engines, from the first record and from every snapshot, under several hash seeds."""
    path, expected = kept
    if LONG:
        path = tmp_path / "long"
        engine = make_engine("fast", Workload(34, 10).capacity())
        apply = applier(engine)
        with Journal.create(path, Workload(34, 10).capacity()) as journal:
            for _ in Workload(34, 1_000_000).chunks(lambda records: apply(journal.append(records))):
                if journal.sequence > 300_000 and not list(path.glob("*.snapshot")):
                    write_snapshot(path, engine.snapshot(), journal.uuid)
            apply(journal.close())
        expected = digest(engine.snapshot())
    answers = set()
    for seed in range(share(2, 10)):
        for name in ENGINES:
            for snapshot in (None, *sorted(path.glob("*.snapshot"))):
                given = [str(snapshot)] if snapshot else []
                said = subprocess.run(
                    [sys.executable, "-c", REPLAY, str(path), name, *given],
                    capture_output=True,
                    check=True,
                    env={
                        **os.environ,
                        "PYTHONHASHSEED": str(seed),
                        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    },
                ).stdout.split()
                tally.trial()
                tally.expect("wrong", said[0].decode() == expected, (seed, name, snapshot))
                answers.add((str(snapshot), said[1]))
    # The reports behind each beginning are the same from both engines under every seed.
    tally.expect("wrong", len(answers) == 1 + len(list(path.glob("*.snapshot"))))


def test_a_snapshot_is_never_a_witness_of_more_than_is_on_disk(tmp_path, tally):
    """SNAP-10: at every step of an interrupted snapshot the journal is sound."""
    engine = make_engine("reference", Capacity(10, 10))
    with create(tmp_path / "j") as journal:
        engine.apply(journal.append(orders(5)))
        journal.sync()
        really = os.rename
        for fail in (True, False):

            def rename(source, target, *, fail=fail, **more):
                if fail:
                    raise OSError(5, "Input/output error")
                really(source, target, **more)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "rename", rename)
                if fail:
                    with pytest.raises(OSError, match="Input/output error"):
                        write_snapshot(tmp_path / "j", engine.snapshot(), journal.uuid)
                else:
                    write_snapshot(tmp_path / "j", engine.snapshot(), journal.uuid)
            tally.trial()
            tally.expect("false_alarms", scan(tmp_path / "j").verdict == "clean")
            assert bool(list((tmp_path / "j").glob("*.snapshot"))) != fail
