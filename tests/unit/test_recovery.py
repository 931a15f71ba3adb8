"""An engine that is recovered stands where one stands that was never stopped (SNAP-9, JRN-14)."""

import shutil

import pytest

from ferrox.engine import ENGINES, make_engine
from ferrox.errors import CorruptInput, NotDeterministic, UsageError
from ferrox.journal import Durability, Journal, read
from ferrox.journal.tally import Tally
from ferrox.messages import RECORD_SIZE
from ferrox.recovery import recover
from ferrox.snapshot import write_snapshot
from ferrox.testing.workload import Workload, applier

WORKLOAD = Workload(5, 6000)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """A journal with snapshots at two places that was never closed, and the state at its end."""
    path = tmp_path_factory.mktemp("recovery")
    engine = make_engine("reference", WORKLOAD.capacity())
    apply = applier(engine)
    snapshots = []
    with Journal.create(path / "running", WORKLOAD.capacity(), segment_records=1000) as journal:
        for index, _ in enumerate(WORKLOAD.chunks(lambda records: apply(journal.append(records)))):
            if index in (1, 3):
                journal.sync()
                snapshots.append(write_snapshot(path / "running", engine.snapshot(), journal.uuid))
        shutil.copytree(path / "running", path / "crashed")
    return path / "crashed", engine.snapshot(), [int(snapshot.stem) for snapshot in snapshots]


@pytest.mark.parametrize("snapshots", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_recovered_engine_equals_one_that_was_never_stopped(engine, snapshots, crashed, tmp_path):
    """SNAP-9: from the first record and from the newest snapshot, on either engine."""
    source, state, sequences = crashed
    path = shutil.copytree(source, tmp_path / "j")

    found = recover(path, engine, snapshots=snapshots)

    assert found.engine.snapshot() == state
    assert found.snapshot == (sequences[-1] if snapshots else 0)
    assert found.replayed == 6000 - found.snapshot
    assert found.warnings == ()
    assert found.journal.sequence == 6000
    found.journal.close()


def test_a_damaged_snapshot_is_passed_over_with_a_warning(crashed, tmp_path):
    """SNAP-9."""
    source, state, sequences = crashed
    path = shutil.copytree(source, tmp_path / "j")
    newest = max(path.glob("*.snapshot"))
    data = bytearray(newest.read_bytes())
    data[100] ^= 1
    newest.write_bytes(data)

    found = recover(path)

    assert found.engine.snapshot() == state
    assert found.snapshot == sequences[0]
    assert newest.name in found.warnings[0]
    found.journal.close()


def test_damage_before_the_snapshot_is_refused_all_the_same(crashed, tmp_path):
    """JRN-14: what is not needed today is needed for the proof."""
    source, _, _ = crashed
    path = shutil.copytree(source, tmp_path / "j")
    first = min(path.glob("*.wal"))
    data = bytearray(first.read_bytes())
    data[5000] ^= 1
    first.write_bytes(data)

    with pytest.raises(CorruptInput):
        recover(path)


def test_a_journal_is_replayed_from_where_it_is_asked_for_or_refused(crashed, tmp_path):
    source, _, _ = crashed
    path = shutil.copytree(source, tmp_path / "j")
    whole = b"".join(read(path))
    batches: list[bytes] = []

    with pytest.raises(UsageError, match="ends at sequence 6000, before 6002"):
        Journal.open(path, start=6002)
    Journal.open(path, replay=batches.append, start=4001).close()

    assert b"".join(batches) == whole[4000 * RECORD_SIZE :]


def test_every_level_waits_for_what_it_promises(tmp_path):
    """JRN-22."""
    for level in (0, 1, 2):
        path = tmp_path / str(level)
        with Journal.create(path, WORKLOAD.capacity(), durability=Durability(level), syncer=True) as journal:
            for chunk in Workload(5, 500):
                journal.append(chunk.tobytes())
            journal.wait()
            assert journal.released == 500
            assert journal.durable >= (500 if level else 0)


@pytest.mark.parametrize("wrong", [False, True])
def test_recovery_holds_the_engine_against_what_the_journal_states(wrong, tmp_path):
    """JRN-21."""
    engine = make_engine("reference", WORKLOAD.capacity())
    apply = applier(engine)
    tally = Tally(1)
    with Journal.create(tmp_path / "j", WORKLOAD.capacity()) as journal:
        for chunk in Workload(5, 3000):
            tally.note(apply(journal.append(chunk.tobytes())))
        first, reports, crc = tally.statement(journal.sequence)
        journal.mark(first, reports + wrong, crc)

    if wrong:
        with pytest.raises(NotDeterministic):
            recover(tmp_path / "j")
        return
    found = recover(tmp_path / "j")
    assert found.tally.checked == 1
    found.journal.close()
