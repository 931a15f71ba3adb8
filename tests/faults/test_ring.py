"""Fault tests 38 to 43: the ring between two processes that may die, on a machine that reorders, in memory gone wrong.

Where a matcher is killed it is the service's own, with a real journal, and so is the rule by which it passes over what
it has written already (RING-6).  What stands in for the gateway pushes records whose time is their number, so that the
journal itself says which of them are in it.
"""

import ast
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ferrox.engine import make_engine
from ferrox.journal import command_records, identify, read
from ferrox.lanes.ring import PUSHED, SLEEPING, TAKEN, Ring, make_ring
from ferrox.lanes.tape import ATTACHED, READERS, WRITTEN, TapeReader
from ferrox.messages import (
    RECORD_DTYPE,
    RECORD_SIZE,
    REPORT_SIZE,
    CancelOrder,
    DefineInstrument,
    NewOrder,
)
from ferrox.service.board import Board, State
from ferrox.service.gateway import Gateway
from ferrox.service.links import MEMORIES, Links, Nap
from ferrox.service.matcher import Matcher
from ferrox.service.process import DEFECT, Teller, guarded
from ferrox.shared import Shared, SharedCorrupt
from ferrox.terms import CommandKind, TradingState
from ferrox.testing.sessions import apply_all

sys.path.insert(0, str(Path(__file__).parents[1] / "system"))
sys.path.insert(0, str(Path(__file__).parent))

from kit import forked, share  # type: ignore[import-not-found]
from service_kit import Service  # type: ignore[import-not-found]
from weak import Machine, lane  # type: ignore[import-not-found]

pytestmark = pytest.mark.faults
NEW_ORDER, CANCEL_ORDER = int(CommandKind.NEW_ORDER), int(CommandKind.CANCEL_ORDER)
MIXED = np.uint64(0x9E3779B97F4A7C15)  # so that every byte of every word changes from record to record
WORDS = np.arange(1024 * 8, dtype=np.uint64) * MIXED


# ------------------------------------------------------------------------------------------------ 38: every word


EMPTY = 256
"""A word of the header page that the ring does not use: how often the consumer found nothing."""


def push_all(ring, total, dice):
    """Push records of which no two words are alike; return how often the ring was full."""
    number = full = 0
    while number < total:
        count = min(dice.randrange(1, 1025), total - number)
        with np.errstate(over="ignore"):
            block = (WORDS[: count * 8] + np.uint64(number * 8) * MIXED).tobytes()
        if number < total // 2 <= number + count:
            before = ring.words[EMPTY]
            while ring.words[EMPTY] == before:
                os.sched_yield()
        number += count
        while block:
            done = ring.push(block)
            if done * 64 < len(block):
                full += 1
                os.sched_yield()
            block = block[done * 64 :]
    return full


CAPACITIES = [1 << power for power in range(1, 17)]


def messages(capacity):
    """Return how many records go through a ring: nearly all of them where a switch of processes is not every one's."""
    small = 20 * capacity + 20_000
    return small if capacity < 1024 else share(50_000_000, 1_000_000_000) // 7 + 1


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_every_word_of_every_record_arrives_as_it_was_pushed(capacity, tally):
    """Fault test 38: two processes, batches of 1 to 1,024, rings of 2 to 65,536 records, wrapped, full and empty."""
    total = messages(capacity)
    memory = make_ring("fault", capacity)
    back, out = os.pipe()

    def producer():
        full = push_all(Ring(memory), total, random.Random(capacity))
        os.write(out, str(full).encode())

    child = forked(producer)
    ring, dice = Ring(memory), random.Random(-capacity)
    number = wrong = 0
    while ring.look() < capacity:
        os.sched_yield()
    while number < total:
        found = ring.peek(dice.randrange(1, 1025))
        if not found:
            memory.words[EMPTY] += 1
            os.sched_yield()
            continue
        words = np.frombuffer(found, np.uint64)
        with np.errstate(over="ignore"):
            wrong += int(np.count_nonzero(words - WORDS[: len(words)] != np.uint64(number * 8) * MIXED))
        ring.take(len(words) // 8)
        number += len(words) // 8
    assert os.waitpid(child, 0)[1] == 0
    full = int(os.read(back, 100))
    os.close(back)
    os.close(out)
    tally["trials"] += total
    tally.expect("wrong", wrong == 0, f"{wrong} words")
    tally.expect("wrong", (ring.look(), memory.words[PUSHED], memory.words[TAKEN]) == (0, total, total))
    assert full
    assert memory.words[EMPTY]
    assert total > 4 * capacity


# ----------------------------------------------------------------------------------------- 39: whoever is killed

BEGIN = 1 << 61
"""The time of the record before the first: later than any that the journal's own clock gives."""
SET_UP = command_records([DefineInstrument(TradingState.OPEN, 1, 1, 1000, 1, 1).pack()], time_ns=BEGIN)


def template():
    """Return 4,096 records of orders that rest and are canceled, as words, and what a record adds to them."""

    def some(first):
        frames = []
        for number in range(first, first + 4096, 2):
            frames += [NewOrder(1, 1, 0, 1, number, 100, 1).pack(), CancelOrder(1, number).pack()]
        records = command_records(frames, time_ns=range(BEGIN + first, BEGIN + first + 4096))
        return np.frombuffer(records, np.int64).copy()

    first, second = some(1), some(4097)
    return first, (second - first) // 4096


TEMPLATE, STEP = template()


def numbered(first, count):
    """Return the records `first` and following; their times are their numbers."""
    skip = (first - 1) % 2
    words = slice(skip * 8, (skip + count) * 8)
    return (TEMPLATE[words] + STEP[words] * (first - 1 - skip)).tobytes()


class Bench:
    """The service's matcher and what stands in for its gateway, on memory that this process holds."""

    def __init__(self, folder, dice):
        self.service = Service(folder, ring=128 << dice.randrange(7), tape=1 << 16)
        self.config, self.dice = self.service.config, dice
        self.links = Links.create(self.config)
        self.board = Board(self.links.board)
        self.log = folder / "log"
        self.pids: dict[str, int] = {}
        self.reader = TapeReader(self.links.tape, 0)
        self.reports: list[bytes] = []

    def start(self, role):
        if role == "matcher":
            self.board.put(role, "state", State.STARTING)
            tell = Teller(role, self.config.log.format)
            self.pids[role] = forked(lambda: guarded(role, self.config, self.links, lambda: False, tell), self.log)
        else:
            self.pids[role] = forked(self.produce, self.log)

    def kill(self, role):
        os.kill(self.pids[role], signal.SIGKILL)
        status = self.ended(role)
        assert status == -signal.SIGKILL, (status, self.log.read_text())

    def ended(self, role):
        return os.waitstatus_to_exitcode(os.waitpid(self.pids.pop(role), 0)[1])

    def stop(self):
        for role in list(self.pids):
            with suppress(ProcessLookupError):
                os.kill(self.pids[role], signal.SIGKILL)
            self.ended(role)

    def settled(self, wait=lambda: time.sleep(0.000_05)):
        """Wait as a gateway does until the matcher has taken all; return the number of the journal's last record."""
        ring, tape = Ring(self.links.ring), TapeReader(self.links.tape, 7)
        gateway = SimpleNamespace(ring=ring, tape=tape, board=self.board, links=self.links, _wait=wait)
        Gateway._settled(gateway)  # type: ignore[arg-type]
        return self.board.get("matcher", "time_ns") - BEGIN

    def produce(self):
        """Go on behind the last record that is in the journal, and never end."""
        number, dice = self.settled(), random.Random(os.getpid())
        ring = Ring(self.links.ring)
        if number < 0:
            assert self.links.push(ring, SET_UP) == 1
            number = 0
        try:
            while True:
                count = dice.randrange(1, 1 << dice.randrange(1, 9))
                records = numbered(number + 1, count)
                number += count
                while records:
                    done = self.links.push(ring, records)
                    records = records[done * RECORD_SIZE :]
                    if records:
                        os.sched_yield()
        except SharedCorrupt as error:
            Teller("producer", "text")("failed", error=str(error))
            return DEFECT

    def read(self):
        """Take what is on the tape, and return how much it was."""
        found = self.reader.read(1 << 14)
        self.reports.append(found)
        self.reader.advance(len(found) // REPORT_SIZE)
        return len(found)

    def read_for(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not self.read():
                time.sleep(0.000_2)

    def until_read(self):
        """Read until there is something, which shows that both sides are at work."""
        until = time.monotonic() + 60
        while not self.read():
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.000_2)

    def kill_at_random(self, role):
        """Kill one of the two in the midst of its work, or while it still begins, and start it again."""
        if self.dice.random() < 0.8:
            self.until_read()
            self.read_for(self.dice.random() * 0.003)
        else:
            self.read_for(self.dice.random() * 0.1)
        self.kill(role)
        while self.read():
            pass
        self.start(role)

    def first_to_end(self, cursor, value):
        """Wait until one of the two has ended, and return which; None when both go on behind a cursor's bad value."""
        until, enough = time.monotonic() + 60, 0
        while not enough or self.reader.position < enough:
            for role, pid in self.pids.items():
                if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    return role
            self.read()
            if not enough and value is not None and self.links.ring.words[cursor] != value:
                # What is behind that cannot have been on its way already.
                enough = self.reader.written() + 3 * self.config.memory.ring + 8_192
            assert time.monotonic() < until, self.log.read_text()
        return None

    def expect_all_of_it(self, tally):
        """Let everything come to rest, and hold journal, acknowledgements and engine against each other."""
        self.until_read()
        self.kill("producer")
        last = self.settled(self.read)
        while self.read():
            pass
        self.kill("matcher")
        records = b"".join(read(self.config.journal))
        fields = np.frombuffer(records, RECORD_DTYPE)
        numbers = fields["time_ns"][np.isin(fields["kind"], (NEW_ORDER, CANCEL_ORDER))] - BEGIN
        reports = b"".join(self.reports)
        acknowledged = len(reports) // REPORT_SIZE - 1  # but for the one that the set-up brings
        tally.expect("lost", len(set(numbers.tolist())) == last >= acknowledged > 0, (len(numbers), last, acknowledged))
        tally.expect("wrong", numbers.tolist() == list(range(1, last + 1)), "a record twice, or not in its turn")
        engine = make_engine("fast", identify(self.config.journal).capacity)
        tally.expect("wrong", apply_all(engine, records) == reports, "a report twice, or not in its turn")
        return last


def killed_world(folder, role, kills, dice, tally):
    """Kill one of the two so many times over one journal; return how many commands are in it, each once."""
    folder.mkdir()
    bench = Bench(folder, dice)
    bench.reader.attach(0)
    try:
        bench.start("matcher")
        bench.start("producer")
        for _ in range(kills):
            bench.kill_at_random(role)
            tally.trial()
        return bench.expect_all_of_it(tally)
    finally:
        bench.stop()


@pytest.mark.parametrize("role", ["producer", "matcher"])
def test_whoever_is_killed_every_acknowledged_command_is_in_the_journal_once(role, tmp_path, tally):
    """Fault test 39, RING-6, RING-10: SIGKILL in mid-traffic, and of a matcher that still recovers."""
    dice, kills = random.Random(role), share({"producer": 100, "matcher": 60}[role], 1_000)
    commands = sum(killed_world(tmp_path / str(world), role, 20, dice, tally) for world in range(kills // 20))
    tally.note(f"{role}: {commands:,} commands, all of them acknowledged once")


def test_a_matcher_that_hears_all_of_the_ring_again_carries_commands_out_twice(tmp_path, tally, monkeypatch):
    """Fault test 39, RING-6: without the rule of times, so the test before can fail."""
    monkeypatch.setattr(Matcher, "_unheard", lambda _, records: records)
    with pytest.raises(AssertionError, match=r"(lost|wrong): "):
        killed_world(tmp_path / "world", "matcher", 20, random.Random(39), type(tally)())
    tally.trial(20)


# ------------------------------------------------------------------------------- 40: memory that reorders stores


def ring_programs(ring, pushes, limits, again):
    """Return a producer and a consumer; the consumer dies before one of its turns, and another goes on (RING-6)."""

    def records(first, count):
        return b"".join(number.to_bytes(8, "little") * 2 for number in range(first, first + count))

    def producer(side):
        end, number = ring.Ring(side.shared), 0
        for count in pushes:
            number += end.push(records(number + 1, count))
        return number

    def consumer(side):
        end, number = ring.Ring(side.shared), 0
        for turn, limit in enumerate(limits):
            try:
                if turn == again:
                    end = ring.Ring(side.shared)
                found = end.peek(limit)
            except ring.SharedCorrupt:
                return "wrong: corrupt"
            count = len(found) // 16
            if found != records(number + 1, count):
                return f"wrong: {found.hex()} behind {number}"
            end.take(count)
            number += count
        return number

    return [producer, consumer]


def tape_programs(tape, writes, limits, late):
    """Return a matcher and a reader of the tape, attached or one that takes what is there."""

    def reports(first, count):
        return b"".join(number.to_bytes(8, "little") * 2 for number in range(first, first + count))

    def writer(side):
        end, number = tape.TapeWriter(side.shared), 0
        for count in writes:
            part = min(count, end.room())
            end.write(memoryview(reports(number + 1, part)), number)
            number += part
        return number

    def attached(side):
        end = tape.TapeReader(side.shared, 0)
        for limit in limits:
            found = end.read(limit)
            count = len(found) // 16
            if found != reports(end.position + 1, count):
                return f"wrong: {found.hex()} behind {end.position}"
            end.advance(count)
        return end.position

    def retransmitter(side):
        end, lost = tape.Tape(side.shared), 0
        for limit in limits:
            last = end.written()
            first = max(1, last - limit + 1)
            try:
                if end.copy(first, last) != reports(first, max(0, last - first + 1)):
                    return f"wrong: {first} to {last}"
            except tape.TapeLost:
                lost += 1
        return lost

    return [writer, retransmitter if late else attached]


TAPE_BEGUN = {3: 1}  # `begin(1, 0)`: the first report is number 1
ATTACHED_BEGUN = {**TAPE_BEGUN, READERS + ATTACHED: 1}


def explored(tally, states, *, ordered, ring=None, tape=None, until_wrong=False):
    """Go through so many states of programs that are drawn; return what went wrong in any of them."""
    dice, wrong, count = random.Random(40), set[object](), 0
    while count < states and not (wrong and until_wrong):
        ours, theirs = (tuple(dice.randrange(1, 3) for _ in range(dice.randrange(2, 5))) for _ in range(2))
        if ring:
            machine = Machine(ring_programs(ring, ours, theirs, dice.randrange(4)), 2, 16, ordered=ordered)
        else:
            late = dice.random() < 0.5
            begun = TAPE_BEGUN if late else ATTACHED_BEGUN
            machine = Machine(tape_programs(tape, ours, theirs, late), 2, 16, ordered=ordered, begun=begun)
        count += machine.explore(states - count)
        wrong |= {end for ends in machine.ends for end in ends if str(end).startswith("wrong")}
    tally["trials"] += count
    return wrong


RING = {"SLOT_SIZE": 16}
TAPE = {"REPORT_SIZE": 16, "READER_COUNT": 1}
STATES = share(150_000, 1_500_000)


def test_where_stores_come_true_in_their_order_nothing_else_is_ever_seen(tally):
    """Fault test 40, RING-2, RING-8: ring and tape, in every state that total store order can bring them to."""
    wrong = explored(tally, STATES, ordered=True, ring=lane("ring", **RING))
    tally.expect("wrong", not wrong, wrong)
    wrong = explored(tally, STATES, ordered=True, tape=lane("tape", **TAPE))
    tally.expect("wrong", not wrong, wrong)


def test_where_stores_come_true_in_any_order_records_are_wrong(tally):
    """Fault test 40, RING-2: so a machine that reorders stores is refused, and the test before can fail."""
    assert explored(tally, STATES, ordered=False, until_wrong=True, ring=lane("ring", **RING))
    assert explored(tally, STATES, ordered=False, until_wrong=True, tape=lane("tape", **TAPE))


CURSOR = "        self.words[PUSHED] = pushed + count\n"
WRITES = "        start = pushed & (self.capacity - 1)\n"
INTENDS = "            self.words[INTENT] = last\n"
WRITTEN_LINE = "            self.words[WRITTEN] = last\n"


def test_a_cursor_that_is_written_too_early_is_found(tally):
    """Fault test 40: the programs that are explored are the ones that are shipped, so a change to them is seen."""

    def cursor_first(source):
        assert source.count(CURSOR) == source.count(WRITES) == 1
        return source.replace(CURSOR, "").replace(WRITES, CURSOR + WRITES)

    def intent_last(source):
        assert source.count(INTENDS) == source.count(WRITTEN_LINE) == 1
        return source.replace(INTENDS, "").replace(WRITTEN_LINE, INTENDS + WRITTEN_LINE)

    assert explored(tally, STATES, ordered=True, until_wrong=True, ring=lane("ring", cursor_first, **RING))
    assert explored(tally, STATES, ordered=True, until_wrong=True, tape=lane("tape", intent_last, **TAPE))


# ------------------------------------------------------------------------------------- 41: memory gone wrong

OUTSIDE = [-1, -(2**63), 2**62, 2**63 - 1]


def test_a_cursor_is_corrupt_exactly_where_nobody_can_have_written_it(tally):
    """Fault test 41, RING-3: both cursors, any values, seen from both sides."""
    dice = random.Random(41)
    memories = [make_ring("fault", 1 << power) for power in range(1, 8)]
    for _ in range(share(20_000, 1_000_000)):
        memory = dice.choice(memories)
        words, capacity = memory.words, len(memory.bytes) // 64
        taken = dice.choice((dice.randrange(0, 1000), dice.getrandbits(63), *OUTSIDE))
        pushed = dice.choice((taken + dice.randrange(-3, capacity + 4), dice.getrandbits(63), *OUTSIDE))
        pushed = max(-(2**63), min(2**63 - 1, pushed))
        words[PUSHED], words[TAKEN] = pushed, taken
        tally.trial()
        try:
            found = Ring(memory).look()
        except SharedCorrupt:
            found = None
        right = pushed - taken if taken >= 0 and 0 <= pushed - taken <= capacity else None
        tally.expect("undetected" if right is None else "false_alarms", found == right, (pushed, taken, found))


def scribble(words, beyond, dice):
    """Write into a cursor what its owner does not, at least so far off; return which it was, and what."""
    cursor = dice.choice((PUSHED, TAKEN))
    beyond += dice.getrandbits(dice.randrange(1, 40))
    off = words[PUSHED] - beyond if cursor == TAKEN else words[TAKEN] + beyond
    value = dice.choice((-1, -1 - dice.getrandbits(62), off, 2**62 + dice.getrandbits(61)))
    words[cursor] = value
    return cursor, value


def test_a_scribbled_cursor_stops_who_sees_it_or_is_overwritten_unseen(tmp_path, tally):
    """Fault test 41, RING-3: at rest always with status 70, and in mid-traffic unless the owner writes it first."""
    dice, stopped = random.Random(42), 0
    trials = share(16, 300)
    for trial in range(trials):
        folder = tmp_path / str(trial)
        folder.mkdir()
        bench = Bench(folder, dice)
        bench.reader.attach(0)
        try:
            bench.start("matcher")
            bench.start("producer")
            bench.until_read()
            words = bench.links.ring.words
            if busy := trial % 2:
                bench.read_for(dice.random() * 0.005)
            else:
                bench.kill("producer")
                bench.settled(bench.read)
            # In mid-traffic the cursors move on while one is written: far off is off then too.
            cursor, value = scribble(words, 1 << 40 if busy else bench.config.memory.ring + 1, dice)
            tally.trial()
            role = bench.first_to_end(cursor, value if busy else None)
            if role:
                stopped += 1
                tally.expect("undetected", bench.ended(role) == DEFECT, bench.log.read_text())
                assert "ring corrupt: expected 0 <= pushed - taken <=" in bench.log.read_text()
            else:
                bench.expect_all_of_it(tally)
        finally:
            bench.stop()
    assert stopped >= trials // 2
    tally.note(f"{stopped} of {trials} stopped a side, the others were overwritten before anybody looked")


@pytest.mark.parametrize("memory", ["ring", "tape"])
def test_a_service_whose_memory_is_scribbled_over_stops_and_says_so(memory, tmp_path, tally):
    """Fault test 41, RING-3: the real processes, and a stranger who opens their memory by way of /proc."""
    with Service(tmp_path) as service:
        wire = service.wire("maker")
        for price in range(100, 120):
            wire.send(NewOrder(1, 1, 0, 1, 0, price, 1))
        wire.answers(20)
        opened = memories_of(service.process.pid)
        for name in SEALED:
            size = os.fstat(opened[name].file).st_size
            for other in (0, 64, size - 1, size + 1, 2 * size):
                tally.trial()
                with pytest.raises(PermissionError, match="not permitted"):
                    os.ftruncate(opened[name].file, other)
        tally.trial()
        if memory == "ring":
            opened["ring"].words[PUSHED] = -1
        else:
            opened["tape"].words[WRITTEN] += 1 << 40

        tally.expect("undetected", service.process.wait(60) == DEFECT, service.said())

        assert f"{memory} corrupt: expected 0 <= " in service.said()
        assert "Traceback" not in service.said()
    service.verified()


SEALED = [name for name in MEMORIES if name != "presence"]


def memories_of(pid):
    """Return the sealed memories of a process by name, opened once more; the presence is a file (ENTRY-15)."""
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            name = str(link.readlink()).removeprefix("/memfd:ferrox-").removesuffix(" (deleted)")
            if name in SEALED:
                found[name] = Shared(os.open(link, os.O_RDWR))
    assert sorted(found) == sorted(SEALED)
    return found


# -------------------------------------------------------------------------------------------- 42: a lost wake-up

NAPS, NAPS_THEN = 256, 272  # words of the header page that the ring does not use: naps now, and at the last take


@pytest.mark.parametrize("dropped", [0.0, 0.02, 1.0])
def test_a_wake_up_that_is_lost_costs_one_nap_and_no_more(dropped, tally):
    """Fault test 42, RING-5: a race of sleeping and pushing for each record, with wake-ups that are never sent."""
    races = share(60_000, 1_000_000) if dropped < 1 else share(2_000, 20_000)
    memory, wake = make_ring("fault", 64), os.eventfd(0, os.EFD_NONBLOCK)
    words = memory.words

    def consumer():
        ring, nap, number = Ring(memory), Nap(wake), 0

        def sleeps(sleeping):
            words[SLEEPING] = int(sleeping)
            words[NAPS] += int(sleeping)

        while number < races:
            found = len(ring.peek(64)) // 64
            if found:
                words[NAPS_THEN] = words[NAPS]
                ring.take(found)
                number += found
            else:
                nap.take(sleeps, lambda: ring.look() > 0)

    child = forked(consumer)
    ring, dice, lost, longest, record = Ring(memory), random.Random(42), 0, 0, numbered(1, 1)
    for number in range(races):
        for _ in range(dice.randrange(40)):
            pass  # meet it at another step of its way to sleep each time
        begun = time.perf_counter_ns()
        ring.push(record)
        naps = words[NAPS]
        if words[SLEEPING]:
            if dice.random() < dropped:
                lost += 1
            else:
                os.eventfd_write(wake, 1)
        while words[TAKEN] <= number:
            os.sched_yield()
        longest = max(longest, time.perf_counter_ns() - begun)
        # One that begins before our push has come true, and one in which it sees the record and does not sleep.
        tally.expect("lost", words[NAPS_THEN] - naps <= 2, (number, words[NAPS_THEN] - naps))
    assert os.waitpid(child, 0)[1] == 0
    os.close(wake)
    tally["trials"] += races
    tally["faults"] += lost
    assert bool(lost) == bool(dropped)
    tally.note(f"{lost:,} of {races:,} wake-ups not sent, the longest stall {longest / 1e6:.1f} ms")


def test_on_an_ordered_machine_a_wake_up_can_be_lost(tally):
    """Fault test 42, RING-5: both look before what the other said has come true, which is why a nap has an end."""
    module = lane("ring", **RING)

    def producer(side):
        ring = module.Ring(side.shared)
        ring.push((1).to_bytes(8, "little") * 2)
        return "wakes" if ring.words[SLEEPING] else "is silent"

    def consumer(side):
        ring = module.Ring(side.shared)
        ring.words[SLEEPING] = 1
        return "sees it" if ring.look() else "sleeps"

    machine = Machine([producer, consumer], 2, 16, ordered=True)
    tally["trials"] += machine.explore(10**6)

    assert ("is silent", "sleeps") in machine.ends
    assert len(machine.ends) == 4


# ------------------------------------------------------------------------------------------------------ 43: lint


def packs_into(source):
    """Return the lines in which something is packed into a buffer by the struct module."""
    names = {"pack_into"}
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.Name) and node.id in names)
        or (isinstance(node, ast.alias) and node.name in names)
        or (isinstance(node, ast.Constant) and node.value in names)
    ]


def test_nothing_is_packed_into_shared_memory(tally):
    """Fault test 43: `struct.pack_into` writes zeros first, and the other process sees them."""
    package = Path(__file__).parents[2] / "ferrox"
    for path in [
        package / "shared.py",
        *(path for part in ("lanes", "service") for path in (package / part).glob("*")),
    ]:
        if path.suffix == ".py":
            tally.trial()
            tally.expect("undetected", not packs_into(path.read_text()), path)
    assert tally["trials"] > 20
    assert packs_into("from struct import Struct\nStruct('<q').pack_into(words, 0, 1)") == [2]
    assert packs_into("from struct import pack_into as put") == [1]
