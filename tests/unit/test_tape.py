"""The tape: reports by number, for any number of readers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrox.lanes.ring import make_ring
from ferrox.lanes.tape import INTENT, READERS, WRITTEN, TapeLost, TapeReader, TapeWriter, make_tape
from ferrox.shared import SharedCorrupt


def reports(first, count):
    return b"".join(number.to_bytes(8, "little") * 6 for number in range(first, first + count))


@pytest.fixture
def shared():
    return make_tape(64)


def test_a_reader_reads_what_was_written_in_order(shared):
    """RING-7: report n stands in slot n - 1 mod capacity, over many laps."""
    writer, reader = TapeWriter(shared), TapeReader(shared, 0)
    writer.begin(1, 0)
    reader.attach(0)
    seen = b""

    for first in range(1, 400, 40):
        writer.write(memoryview(reports(first, 40)), first)
        while part := reader.read(17):
            seen += part
            reader.advance(len(part) // 48)

    assert seen == reports(1, 400)
    assert writer.sequence() == 361


def test_what_was_written_over_is_lost_and_said_so(shared):
    """RING-8."""
    writer, late = TapeWriter(shared), TapeReader(shared, 1)
    writer.begin(1, 0)
    writer.write(memoryview(reports(1, 60)), 1)

    assert late.copy(1, 60) == reports(1, 60)
    writer.write(memoryview(reports(61, 10)), 2)
    assert late.oldest() == 7
    assert late.copy(7, 70) == reports(7, 64)
    with pytest.raises(TapeLost, match="report 6"):
        late.copy(6, 70)
    with pytest.raises(TapeLost, match="report 6"):
        late.attach(5)


def test_a_writer_that_has_begun_to_write_over_is_noticed(shared):
    """RING-8: what may be being overwritten is not taken, even when it still looks right."""
    writer, reader = TapeWriter(shared), TapeReader(shared, 1)
    writer.begin(1, 0)
    writer.write(memoryview(reports(1, 64)), 1)
    shared.words[INTENT] = 65

    with pytest.raises(TapeLost, match="begins with 2"):
        reader.copy(1, 3)


def test_the_writer_waits_for_those_that_are_attached(shared):
    """RING-9."""
    writer, slow, quick = TapeWriter(shared), TapeReader(shared, 0), TapeReader(shared, 1)
    writer.begin(1, 0)
    slow.attach(0)
    quick.attach(0)
    writer.write(memoryview(reports(1, 50)), 1)
    quick.advance(50)

    assert writer.room() == 14
    slow.advance(20)
    assert writer.room() == 34
    slow.detach()
    assert writer.room() == 64


@pytest.mark.parametrize("value", [-1, 2, 68, 2**62, -(2**63)])
def test_a_cursor_that_nobody_writes_is_corruption(shared, value):
    """RING-3: seen by the writer, whose it is, and by a reader that is attached."""
    writer, reader = TapeWriter(shared), TapeReader(shared, 0)
    writer.begin(1, 0)
    reader.attach(0)
    writer.write(memoryview(reports(1, 3)), 1)
    reader.advance(3)
    shared.words[WRITTEN] = value

    with pytest.raises(SharedCorrupt, match="tape corrupt: expected the last report to be 3"):
        writer.room()
    with pytest.raises(SharedCorrupt, match="tape corrupt: expected 0 <= written - read <= 64"):
        reader.read(10)


@pytest.mark.parametrize("value", [-1, 4, 2**62])
def test_a_reader_that_cannot_be_where_it_says_is_corruption(shared, value):
    """RING-3."""
    writer, reader = TapeWriter(shared), TapeReader(shared, 0)
    writer.begin(1, 0)
    reader.attach(0)
    writer.write(memoryview(reports(1, 3)), 1)
    shared.words[READERS] = value

    with pytest.raises(SharedCorrupt, match="tape corrupt: expected 0 <= read <= 3"):
        writer.room()


def test_a_tape_may_begin_with_any_number(shared):
    """RING-7: after a start from a snapshot the first report has the number that it would have had."""
    writer, reader = TapeWriter(shared), TapeReader(shared, 0)
    writer.begin(1_000_001, 500)

    assert (writer.written(), writer.oldest(), writer.sequence()) == (1_000_000, 1_000_001, 500)
    writer.write(memoryview(reports(1_000_001, 3)), 501)
    reader.attach(1_000_000)
    assert reader.read(10) == reports(1_000_001, 3)
    with pytest.raises(TapeLost):
        reader.copy(1_000_000, 1_000_001)


def test_a_reader_that_comes_back_goes_on_where_it_was(shared):
    writer = TapeWriter(shared)
    writer.begin(1, 0)
    first = TapeReader(shared, 2)
    first.attach(0)
    writer.write(memoryview(reports(1, 9)), 1)
    first.advance(4)

    again = TapeReader(shared, 2)

    assert again.position == 4
    assert again.read(100) == reports(5, 5)


def test_sleepers_are_bits(shared):
    """RING-5."""
    writer = TapeWriter(shared)
    TapeReader(shared, 0).sleep(True)
    TapeReader(shared, 3).sleep(True)

    assert writer.sleepers() == 0b1001
    TapeReader(shared, 3).sleep(False)
    assert writer.sleepers() == 0b0001


def test_other_memory_is_no_tape():
    with pytest.raises(SharedCorrupt, match="expected a tape"):
        TapeReader(make_ring("test", 8), 0)


@pytest.mark.parametrize("capacity", [0, 63, 100, 1 << 27])
def test_a_capacity_is_a_power_of_two(capacity):
    with pytest.raises(ValueError, match="power of two"):
        make_tape(capacity)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["write", "read", "late"]), st.integers(1, 70)), max_size=60))
def test_a_reader_sees_what_was_written_or_hears_that_it_is_lost(steps):
    """RING-7, RING-8, RING-9."""
    memory = make_tape(64)
    writer, reader, late = TapeWriter(memory), TapeReader(memory, 0), TapeReader(memory, 1)
    writer.begin(1, 0)
    reader.attach(0)
    number = 0

    for step, count in steps:
        if step == "write":
            written = min(count, writer.room())
            writer.write(memoryview(reports(number + 1, written)), number)
            number += written
        elif step == "read":
            found = reader.read(count)
            assert found == reports(reader.position + 1, min(count, number - reader.position))
            reader.advance(len(found) // 48)
        elif number:
            first = max(1, number - count)
            if first < late.oldest():
                with pytest.raises(TapeLost):
                    late.copy(first, number)
            else:
                assert late.copy(first, number) == reports(first, number - first + 1)
