"""The ring, one end in each hand, and in two processes."""

import os
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrox.errors import UsageError
from ferrox.lanes.ring import PUSHED, TAKEN, Ring, make_ring
from ferrox.shared import Shared, SharedCorrupt, expect_ordered


def record(number):
    return number.to_bytes(8, "little") * 8


def records(first, count):
    return b"".join(record(number) for number in range(first, first + count))


@pytest.fixture
def memory():
    return make_ring("test", 8)


@pytest.fixture
def ends(memory):
    return Ring(memory), Ring(memory)


def test_what_is_pushed_is_taken_in_order(ends):
    """RING-1, RING-2: slot n mod capacity holds the n-th record, over many laps."""
    producer, consumer = ends
    seen = []

    for first in range(0, 50, 5):
        assert producer.push(records(first, 5)) == 5
        taken = consumer.peek(100)
        seen += [taken[at : at + 64] for at in range(0, len(taken), 64)]
        consumer.take(len(taken) // 64)

    assert seen == [record(number) for number in range(50)]


def test_a_push_takes_what_there_is_room_for(ends):
    """RING-4."""
    producer, consumer = ends

    assert producer.push(records(0, 11)) == 8
    assert producer.push(records(8, 1)) == 0
    assert producer.room() == 0
    assert consumer.peek(3) == records(0, 3)
    consumer.take(3)
    assert producer.room() == 3
    assert producer.push(records(8, 5)) == 3


def test_what_is_peeked_at_stays_until_it_is_taken(memory, ends):
    """RING-6: a consumer that comes back finds what it had not taken."""
    producer, consumer = ends
    producer.push(records(0, 4))
    consumer.peek(4)
    consumer.take(1)

    again = Ring(memory)

    assert again.peek(10) == records(1, 3)


@pytest.mark.parametrize("values", [(-1, 0), (0, -1), (3, 4), (9, 0), (2**62, 0), (-(2**63), 2**62)])
def test_cursors_that_nobody_writes_are_corruption(ends, values):
    """RING-3."""
    producer, consumer = ends
    producer.words[PUSHED], producer.words[TAKEN] = values

    with pytest.raises(SharedCorrupt, match="ring corrupt"):
        consumer.look()
    with pytest.raises(SharedCorrupt, match="ring corrupt"):
        producer.room()


def test_the_memory_is_sealed(memory):
    """RING-1: nobody can cut it off under the other."""
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(memory.file, 64)


def test_other_memory_is_no_ring():
    shared = Shared.create("other", 8 * 64)

    with pytest.raises(SharedCorrupt, match="expected a ring"):
        Ring(shared)


@pytest.mark.parametrize("capacity", [0, 1, 3, 100, 1 << 21])
def test_a_capacity_is_a_power_of_two(capacity):
    with pytest.raises(ValueError, match="power of two"):
        make_ring("test", capacity)


@pytest.mark.parametrize("machine", ["aarch64", "arm64", "ppc64le", "riscv64"])
def test_a_machine_that_reorders_stores_is_refused(machine):
    """RING-2."""
    with pytest.raises(UsageError, match="x86-64 only"):
        expect_ordered(machine)


@settings(max_examples=200, deadline=None)
@given(
    capacity=st.sampled_from([2, 4, 16, 64]),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 80)), max_size=60),
)
def test_a_ring_is_a_queue_of_bounded_length(capacity, steps):
    """RING-1, RING-4: whatever the two sides do, the ring does what a list does."""
    shared = make_ring("test", capacity)
    producer, consumer, pushed, taken = Ring(shared), Ring(shared), 0, 0
    model: list[int] = []

    for pushes, count in steps:
        if pushes:
            done = producer.push(records(pushed, count))
            assert done == min(count, capacity - len(model))
            model += range(pushed, pushed + done)
            pushed += done
        else:
            found = consumer.peek(count) if count else b""
            expected = model[: min(count, len(model))]
            assert len(found) // 64 <= len(expected)
            assert found == b"".join(map(record, expected[: len(found) // 64]))
            assert found or not expected
            consumer.take(len(found) // 64)
            taken += len(found) // 64
            model = model[len(found) // 64 :]
        assert consumer.look() == len(model)


PROGRAM = """
import sys
from ferrox.lanes.ring import Ring
from ferrox.shared import Shared
ring, total, batch = Ring(Shared(int(sys.argv[1]))), int(sys.argv[2]), int(sys.argv[3])
number = 0
while number < total:
    count = min(batch, total - number)
    block = b"".join(n.to_bytes(8, "little") * 8 for n in range(number, number + count))
    while block:
        done = ring.push(block)
        block = block[done * 64:]
    number += count
"""


@pytest.mark.parametrize(("capacity", "batch"), [(2, 1), (64, 7), (4096, 1024)])
def test_two_processes_lose_nothing_and_tear_nothing(capacity, batch):
    """RING-2: every word of every record is as it was pushed."""
    total = 60_000
    shared = make_ring("test", capacity)
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(shared.file), str(total), str(batch)], pass_fds=(shared.file,)
    )
    consumer = Ring(shared)
    seen: list[int] = []

    while len(seen) < total:
        found = consumer.peek(1024)
        for at in range(0, len(found), 64):
            words = found[at : at + 64]
            assert words == words[:8] * 8
            seen.append(int.from_bytes(words[:8], "little"))
        consumer.take(len(found) // 64)

    assert child.wait() == 0
    assert seen[0] == 0
    assert all(after == before + 1 for before, after in pairwise(seen))
