"""Fault tests 11 to 22: torn tails, holes, second lives, and every point where a process or the power may fail."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest

from ferrox.engine import ENGINES, make_engine
from ferrox.errors import JournalCorrupt
from ferrox.journal import Durability, Journal, Source, chain, identify, read, scan
from ferrox.journal.chain import Chain
from ferrox.journal.layout import HEADER_SIZE, MARK_NAME
from ferrox.messages import RECORD_SIZE
from ferrox.recovery import recover
from ferrox.snapshot import write_snapshot
from ferrox.state import digest
from ferrox.testing.workload import Workload, applier

sys.path.insert(0, str(Path(__file__).parent))

import kit  # type: ignore[import-not-found]
from kit import (
    LONG,
    SECTOR,
    LazyKeeper,
    Recorder,
    create,
    fresh_directory,
    orders,
    overwrite,
    records_of,
    run_killed,
    segments,
    share,
)

pytestmark = pytest.mark.faults


def running(tmp_path, count, durable, segment_records=1000):
    """Return a copy of a journal that was not closed, without what was prepared behind it."""
    with create(tmp_path / "running", segment_records) as journal:
        journal.append(orders(durable))
        journal.sync()
        journal.append(orders(count - durable, 1 + durable))
        shutil.copytree(tmp_path / "running", tmp_path / "j")
    return tmp_path / "j"


# ---------------------------------------------------------------------------------------------- tails, second lives


def test_a_tail_torn_at_every_byte_is_dropped_counted_and_kept_aside(tmp_path, tally):
    """Fault test 11: every byte of the last of 256 records, the watermark below it."""
    path = running(tmp_path, 256, 255)
    data = segments(path)[0].read_bytes()[: HEADER_SIZE + 256 * RECORD_SIZE]
    last = data[-RECORD_SIZE:]
    mark = (path / MARK_NAME).read_bytes()
    for cut in range(1, RECORD_SIZE):
        fresh_directory(path)
        (path / MARK_NAME).write_bytes(mark)
        (path / "00000000000000000001-00000001.wal").write_bytes(data[: -RECORD_SIZE + cut])
        tally.trial()
        with Journal.open(path) as journal:
            tally.expect("false_alarms", journal.torn is not None)
            tally.expect("lost", journal.sequence == 255)
            assert journal.torn is not None
            assert (journal.torn.sequence, journal.torn.records) == (256, 1)
            kept = (path / "00000000000000000001-00000001.wal.torn").read_bytes()
            assert kept == last[:cut].rstrip(b"\0")


def test_a_tail_torn_at_the_watermark_is_corrupt(tmp_path, tally):
    """Fault test 12."""
    path = running(tmp_path, 256, 256)
    data = segments(path)[0].read_bytes()[: HEADER_SIZE + 256 * RECORD_SIZE]
    for cut in range(RECORD_SIZE):
        if data[-RECORD_SIZE + cut :].strip(b"\0"):  # else nothing is missing but zeros
            overwrite(segments(path)[0], data[: -RECORD_SIZE + cut].ljust(len(data) + cut % 3 * SECTOR, b"\0"))
            tally.trial()
            found = scan(path)
            tally.expect("undetected", isinstance(found.corruption, JournalCorrupt), cut)
            assert str(found.corruption).count("sequence 256")


@pytest.mark.parametrize("unit", [8, SECTOR, 4096])
def test_holes_above_the_watermark_are_never_taken_for_damage(unit, tmp_path, tally):
    """Fault test 13: any part of what was not synced is there, in any combination."""
    dice = random.Random(unit)
    for _ in range(12):
        durable, count = dice.randrange(1, 60), dice.randrange(80, 200)
        shutil.rmtree(tmp_path / "running", ignore_errors=True)
        shutil.rmtree(tmp_path / "j", ignore_errors=True)
        path = running(tmp_path, count, durable)
        segment = segments(path)[0]
        new = segment.read_bytes()
        end = HEADER_SIZE + durable * RECORD_SIZE
        old = new[:end].ljust(len(new), b"\0")
        for _ in range(share(500, 3_000)):
            data = bytearray(old)
            for place in range(end // unit * unit, HEADER_SIZE + count * RECORD_SIZE, unit):
                if dice.random() < 0.7:
                    data[place : place + unit] = new[place : place + unit]
            overwrite(segment, data)
            tally.trial()
            given, error = records_of(path)
            tally.expect("false_alarms", error is None, error)
            tally.expect("lost", len(given) >= durable * RECORD_SIZE)
            tally.expect("wrong", new[HEADER_SIZE:].startswith(given))


def second_lives(tmp_path, histories, tally, dice):
    """Let old sectors of the disk come back behind a second life's records; return how many old ones were taken."""
    resurrected = 0
    with create(tmp_path / "first", seed=1) as journal:
        journal.append(orders(60))
        shutil.copytree(tmp_path / "first", tmp_path / "crashed")
    stale = segments(tmp_path / "first")[0].read_bytes()[HEADER_SIZE:]
    os.truncate(segments(tmp_path / "crashed")[0], HEADER_SIZE + 10 * RECORD_SIZE)
    with Journal.open(tmp_path / "crashed", source=Source.seeded(2)) as journal:
        journal.append(orders(40, 1000))
        shutil.copytree(tmp_path / "crashed", tmp_path / "second")
    live = segments(tmp_path / "second")[1]
    whole = live.read_bytes()[: HEADER_SIZE + 40 * RECORD_SIZE]
    for _ in range(histories):
        kept = dice.randrange(40)
        # A record of the first life, in any place: at best in the very one that its sequence number asks for.
        data = bytearray(whole[: HEADER_SIZE + kept * RECORD_SIZE])
        first = kept + 10 if dice.random() < 0.7 else dice.randrange(50)
        data += stale[first * RECORD_SIZE :]
        overwrite(live, bytes(data))
        tally.trial()
        given, error = records_of(tmp_path / "second")
        resurrected += error is not None or len(given) != (10 + kept) * RECORD_SIZE
    return resurrected


def test_the_remains_of_an_earlier_life_never_come_back(tmp_path, tally):
    """Fault test 14."""
    found = second_lives(tmp_path, share(1_000, 5_000), tally, random.Random(14))
    tally.expect("wrong", found == 0, found)


def test_without_chain_and_salt_the_remains_do_come_back(tmp_path, tally, monkeypatch):
    """Fault test 14: so the test before can fail."""
    monkeypatch.setattr(chain, "COMPILED", False)
    monkeypatch.setattr(Source, "salt", lambda _: 77)
    monkeypatch.setattr(Chain, "_count_sound", unchained)
    assert second_lives(tmp_path, 200, tally, random.Random(14)) > 100


def unchained(self, records, fields):
    """Count sound records as `Chain` does, but for the chain and the time."""
    right = (fields["crc"] == chain.checksums(records, self.salt)) & (
        fields["sequence"] == range(self.sequence + 1, self.sequence + 1 + len(fields))
    )
    return len(fields) if right.all() else int(right.argmin())


def test_recovery_that_is_interrupted_at_every_step_and_again_gives_the_same(tmp_path, tally):
    """Fault test 15: killed at every step, in the second try at every step, in the third at some."""
    path = torn_over_two_segments(tmp_path)
    good, _ = records_of(path)
    whole = {file.name: file.read_bytes() for file in path.iterdir()}
    dice = random.Random(15)
    target = tmp_path / "trial"

    def opened(_acknowledge):
        Journal.open(target, source=Source.seeded(9)).close()

    def restored():
        fresh_directory(target)
        for name, data in whole.items():
            (target / name).write_bytes(data)

    restored()
    steps = run_killed(opened, None)[1]
    assert steps > 30
    plans: list[tuple[int, ...]] = [(one,) for one in range(1, steps + 1)]
    plans += [(one, two) for one, two in product(range(1, steps + 1), repeat=2) if LONG or dice.random() < 0.12]
    plans += [tuple(dice.randrange(1, steps + 1) for _ in range(3)) for _ in range(share(150, 2_000))]
    for plan in plans:
        restored()
        for at in plan:
            run_killed(opened, at)
        tally.trial(len(plan))
        given, error = records_of(target)
        tally.expect("false_alarms", error is None, (plan, error))
        tally.expect("lost", given.startswith(good), plan)
        run_killed(opened, None)
        found = scan(target)
        tally.expect("false_alarms", found.verdict == "clean", (plan, found))
        if len(plan) == 1:
            tail = b"".join(file.read_bytes() for file in sorted(target.glob("*.torn")))
            assert tail  # what was cut off is kept, wherever the first try ended


def torn_over_two_segments(tmp_path):
    """A crash whose torn tail begins in one segment and takes the next with it."""
    with create(tmp_path / "running", segment_records=8) as journal:
        lazy(journal)
        journal.append(orders(4))
        journal.sync()
        journal.append(orders(8, 5))
        shutil.copytree(tmp_path / "running", tmp_path / "j")
    first = segments(tmp_path / "j")[0]
    data = bytearray(first.read_bytes())
    data[HEADER_SIZE + 6 * RECORD_SIZE + 5] ^= 1
    overwrite(first, bytes(data))
    assert scan(tmp_path / "j").verdict == "torn"
    return tmp_path / "j"


def lazy(journal):
    """Let a writer go on at a rotation before the segment is on disk, as one with a syncer does."""
    keeper = journal._keeper
    keeper.__class__ = LazyKeeper
    return journal


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 4096, 1 << 20])
def test_zeros_behind_the_last_record_are_a_clean_end(size, tmp_path, tally):
    """Fault test 16."""
    path = running(tmp_path, 10, 5, segment_records=100_000)
    os.truncate(segments(path)[0], HEADER_SIZE + 10 * RECORD_SIZE)
    os.truncate(segments(path)[0], HEADER_SIZE + 10 * RECORD_SIZE + size)
    tally.trial()
    found = scan(path)
    tally.expect("false_alarms", (found.verdict, found.last, found.warnings) == ("clean", 10, ()), found)


# ----------------------------------------------------------------------------------------------------- kill -9


LEVELS = [(Durability.D0, "mmap"), (Durability.D0, "pwrite"), (Durability.D1, "mmap")]


@pytest.mark.parametrize(("durability", "backend"), LEVELS)
def test_what_was_acknowledged_survives_a_kill_at_a_random_moment(durability, backend, tmp_path, tally):
    """Fault test 17: one journal, killed and gone on with again and again; in the end both engines agree on it."""
    dice = random.Random(17)
    path = tmp_path / "j"
    capacity = Workload(1, 10).capacity()
    flow = b"".join(chunk.tobytes() for chunk in Workload(1, 20_000))
    Journal.create(path, capacity, segment_records=3000, backend=backend).close()
    trials = share(334, 3_400)
    for trial in range(trials):
        back, out = os.pipe()
        process = os.fork()
        if not process:
            try:
                journal = Journal.open(path, durability=durability, backend=backend)
                os.write(out, b"%d\n" % journal.sequence)
                while True:
                    first = dice.randrange(19_000)
                    journal.append(flow[first * RECORD_SIZE :][: dice.randrange(1, 200) * RECORD_SIZE])
                    os.write(out, b"%d\n" % journal.sequence)
            finally:
                os._exit(1)
        os.close(out)
        said = os.read(back, 1 << 16)
        time.sleep(dice.random() * 0.01)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        while data := os.read(back, 1 << 16):
            said += data
        os.close(back)
        acknowledged = int(said.split(b"\n")[-2])
        tally.trial()
        last = sum(len(batch) // RECORD_SIZE for batch in read(path, max(1, acknowledged - 1)))
        tally.expect("lost", last >= min(acknowledged, 2), (trial, acknowledged))
        dice.random()
        if scan_is_due(path):
            shutil.rmtree(path)
            Journal.create(path, capacity, segment_records=3000, backend=backend).close()
    found = scan(path)
    tally.expect("false_alarms", found.verdict in ("clean", "torn"), found)
    digests = set()
    for name in ENGINES:
        engine = make_engine(name, identify(path).capacity)
        apply = applier(engine)
        for records in read(path):
            apply(records)
        digests.add(digest(engine.snapshot()))
    tally.expect("wrong", len(digests) == 1)


def scan_is_due(path):
    """Say whether a journal has grown long enough; the verdict on all of it is asked for before it goes."""
    if len(segments(path)) < 30:  # each of them is synced when it is opened
        return False
    assert scan(path).verdict in ("clean", "torn")
    return True


def session(path, backend="mmap"):
    """Return a scripted session: records, syncs, rotations, a snapshot, a close."""

    def work(acknowledge):
        engine = make_engine("reference", kit.CAPACITY)
        apply = applier(engine)
        with create(path, segment_records=8, backend=backend) as journal:
            for first in range(1, 30, 3):
                apply(journal.append(orders(3, first)))
                acknowledge(journal.sequence)
                if first == 13:
                    journal.sync()
                    write_snapshot(path, engine.snapshot(), journal.uuid)
        with Journal.open(path, source=Source.seeded(8), backend=backend) as journal:
            acknowledge(journal.sequence)
            journal.append(orders(2, 100))
            acknowledge(journal.sequence)

    return work


@pytest.mark.parametrize("backend", ["mmap", "pwrite"])
def test_what_was_acknowledged_survives_a_kill_at_every_step(backend, tmp_path, tally):
    """Fault tests 18 and 19: creation, appends, syncs, rotations, a snapshot, the seal, an opening."""
    path = tmp_path / "j"
    acknowledged, steps, _ = run_killed(session(path, backend), None)
    assert acknowledged == 33
    for at in range(1, steps + 1):
        shutil.rmtree(path, ignore_errors=True)
        acknowledged, _, status = run_killed(session(path, backend), at)
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGKILL
        tally.trial()
        if not segments(path) if path.exists() else True:
            tally.expect("lost", acknowledged == 0)
            create(path).close()  # what an interrupted creation leaves is in nobody's way
            continue
        found = recover(path, "reference")
        tally.expect("lost", found.journal.sequence >= acknowledged, (at, acknowledged))
        plain = make_engine("fast", kit.CAPACITY)
        apply = applier(plain)
        for records in read(path):
            apply(records)
        tally.expect("wrong", digest(plain.snapshot()) == digest(found.engine.snapshot()), at)
        found.journal.close()
        tally.expect("false_alarms", scan(path).verdict == "clean")


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import test_crashes
from pathlib import Path
import os
test_crashes.session(Path(sys.argv[2]))(lambda number: os.write(1, b"ack %d\\n" % number))
"""


def strace(call, fault, path):
    """Return the command that runs the scripted session with a fault in one kind of call."""
    assert shutil.which("strace"), "strace is missing; install it (apt-get install strace)"
    refused = subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True, check=False)
    if refused.returncode:
        pytest.skip(f"this machine lets no process be traced: {refused.stderr.decode().strip()}")
    script = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(path)]
    return ["strace", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:{fault}", *script]


@pytest.mark.parametrize("call", ["fsync", "fdatasync", "renameat", "fallocate", "unlinkat", "ftruncate", "pwrite64"])
def test_what_was_acknowledged_survives_a_kill_at_every_call_of_the_kernel(call, tmp_path, tally):
    """Fault test 18: the same with the kernel's own calls, killed by strace as each is entered."""
    path = tmp_path / "j"
    number = 0
    while True:
        number += 1
        shutil.rmtree(path, ignore_errors=True)
        run = subprocess.run(
            strace(call, f"signal=SIGKILL:when={number}", path),
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        if run.returncode == 0:
            break
        assert run.returncode in (-9, 137), run.stderr
        tally.trial()
        acknowledged = max([0, *(int(line.split()[1]) for line in run.stdout.splitlines())])
        if path.exists() and segments(path):
            with Journal.open(path) as journal:
                tally.expect("lost", journal.sequence >= acknowledged, (call, number))
            tally.expect("false_alarms", scan(path).verdict == "clean")
        else:
            tally.expect("lost", acknowledged == 0)
    assert tally["trials"] > 0


# ------------------------------------------------------------------------------------------------ the loss of power


def recorded(tmp_path, durability, *, late_syncs, dice):
    """Record a run of some appends at a level, with rotations, a snapshot and a second life; return steps, records."""
    path = fresh_directory(tmp_path / "recorded")
    recorder = Recorder(path)
    written = b""
    with recorder.recording():
        journal = create(path, dice.choice((6, 9, 40)), seed=dice.randrange(1000), durability=durability)
        if late_syncs:
            lazy(journal)
        for life in range(2):
            for _ in range(dice.randrange(1, 9)):
                written += journal.append(orders(dice.randrange(1, 7), 1 + len(written)))
                if durability:
                    recorder.acknowledge(journal.released)
                if dice.random() < 0.2:
                    journal.sync()
                    recorder.acknowledge(journal.sequence)
            if life == 0:
                written += journal.close()
                recorder.acknowledge(journal.sequence)
                journal = Journal.open(path, source=Source.seeded(dice.randrange(1000)), durability=durability)
                if late_syncs:
                    lazy(journal)
    unfinished = journal
    steps = list(recorder.steps)
    unfinished.close()
    return steps, written


def survives(target, acknowledged, written, tally, told):
    """See that a crash state is no damage, holds all that was acknowledged, and can be gone on with."""
    if not (target.is_dir() and segments(target)):
        tally.expect("lost", acknowledged == 0, told)
        return
    given, error = records_of(target)
    tally.expect("false_alarms", error is None, (told, error))
    tally.expect("lost", len(given) >= acknowledged * RECORD_SIZE, (told, acknowledged, len(given) // RECORD_SIZE))
    tally.expect("wrong", written.startswith(given), told)
    with Journal.open(target) as journal:
        tally.expect("lost", journal.sequence * RECORD_SIZE == len(given), told)
    tally.expect("false_alarms", scan(target).verdict == "clean", told)


@pytest.mark.parametrize("late_syncs", [False, True])
@pytest.mark.parametrize("durability", Durability)
def test_what_was_acknowledged_survives_the_loss_of_power(durability, late_syncs, memory, tally):
    """Fault test 22: units of 8 bytes, 512 and 4,096; at any step, what was not synced in any combination."""
    dice = random.Random(22 + durability)
    target = memory / "crashed"
    for run in range(share(12, 200)):
        steps, written = recorded(memory, durability, late_syncs=late_syncs, dice=dice)
        for trial in range(share(60, 100)):
            acknowledged = kit.crash(steps, dice, target)
            tally.trial()
            survives(target, acknowledged, written, tally, (run, trial))


def test_changes_of_the_directory_in_any_order_lose_nothing(memory, tally):
    """Fault test 20: as before, but names appear and vanish in any order that their own history allows."""
    dice = random.Random(20)
    target = memory / "crashed"
    for run in range(share(20, 100)):
        steps, written = recorded(memory, Durability.D1, late_syncs=True, dice=dice)
        for trial in range(share(50, 100)):
            acknowledged = kit.crash(steps, dice, target, ordered=False)
            tally.trial()
            survives(target, acknowledged, written, tally, (run, trial))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_writer_with_all_it_acknowledged(number, tmp_path, tally):
    """Fault test 21: between two batches, after a stop and a continue."""
    frames = b"".join(chunk.tobytes() for chunk in Workload(3, 3000))
    commands = [frames[at + 32 : at + 32 + frames[at + 25]] for at in range(0, len(frames), RECORD_SIZE)]
    process = subprocess.Popen(
        [sys.executable, "-m", "ferrox", "pipe", "--journal", "j"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # noqa: PLW1509 - who runs this may ignore it
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"".join(commands[:2000]))
    process.stdin.flush()
    answered = process.stdout.read(48 * 500)
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGCONT)
    process.send_signal(number)
    rest, _ = process.communicate(timeout=60)
    tally.trial(3)
    last = int.from_bytes((answered + rest)[-48:][:8], "little")
    tally.expect("lost", scan(tmp_path / "j").last >= last)
    tally.expect("false_alarms", scan(tmp_path / "j").verdict == "clean")
    assert process.returncode in (130, 143)
