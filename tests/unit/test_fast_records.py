"""Records sealed and followed by the compiled unit, against the same over the `crc32c` package (JRN-1 .. JRN-4)."""

import struct

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from ferrox.fast.crc import TABLE, of_half, of_word
from ferrox.journal import chain
from ferrox.journal.chain import Chain
from ferrox.messages import RECORD_SIZE

u32 = st.integers(0, 2**32 - 1)
times = st.sampled_from([0, 1, 2**62 - 1, 2**62]) | st.integers(0, 2**62)
bodies = st.binary(min_size=40, max_size=40)
given_records = st.lists(st.tuples(times, bodies), min_size=1, max_size=6).map(
    lambda items: b"".join(bytes(16) + time_ns.to_bytes(8, "little") + body for time_ns, body in items)
)
ends = st.builds(Chain, st.integers(1, 2**32 - 1), u32, st.integers(0, 2**61), times)


def both_ways(end, use):
    """Use a copy of a chain through Python and one through the compiled unit; hold what came of it equal."""
    came_of_it = []
    for compiled in (False, True):
        copy = Chain(end.salt, end.checksum, end.sequence, end.time_ns)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chain, "COMPILED", compiled)
            came_of_it.append((use(copy), copy.checksum, copy.sequence, copy.time_ns))
    assert came_of_it[0] == came_of_it[1]
    return came_of_it[0][0]


@given(u32, st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8), u32)
def test_the_checksum_of_words_is_that_of_their_bytes(start, words, half):
    """JRN-2: CRC32C, continued from any other."""
    state = of_half(TABLE, start ^ 0xFFFFFFFF, half)
    for word in words:
        state = of_word(TABLE, state, word)

    assert state ^ 0xFFFFFFFF == crc32c(struct.pack(f"<I{len(words)}q", half, *words), start)


def test_the_checksum_of_the_digits_is_the_one_in_the_books():
    """The check value of CRC-32C, 0xE3069283 of "123456789", from its last digit back and on again."""
    first, word = b"1234", b"56789\0\0\0"
    state = of_half(TABLE, 0xFFFFFFFF, int.from_bytes(first, "little"))
    assert of_word(TABLE, state, int.from_bytes(word, "little")) ^ 0xFFFFFFFF == crc32c(first + word)
    assert crc32c(b"123456789") == 0xE3069283


@given(ends, given_records, st.integers(0, 2**61), times)
def test_records_are_sealed_alike(end, records, durable, now_ns):
    """JRN-2, JRN-3, JRN-6."""
    durable = min(durable, end.sequence)
    sealed = both_ways(end, lambda copy: copy.seal(records, durable, now_ns))

    assert both_ways(end, lambda copy: copy.follow(sealed)) == len(records) // RECORD_SIZE


@given(ends, given_records, st.data())
def test_the_first_record_that_is_not_sound_is_the_same_to_both(end, records, data):
    """JRN-4: one bit anywhere, two records changed about, another chain, or nothing at all."""
    sealed = bytearray(Chain(end.salt, end.checksum, end.sequence, end.time_ns).seal(records, 0, 5))
    place = data.draw(st.integers(0, len(sealed) * 8 - 1))
    damage = data.draw(st.sampled_from(["bit", "swap", "chain", "none"]))
    if damage == "bit":
        sealed[place // 8] ^= 1 << place % 8
    if damage == "swap":
        sealed = sealed[RECORD_SIZE:] + sealed[:RECORD_SIZE]
    if damage == "chain":
        end.checksum ^= 1

    sound = both_ways(end, lambda copy: copy.follow(bytes(sealed)))

    if damage == "bit":
        assert sound == place // 8 // RECORD_SIZE
    if damage == "chain":
        assert sound == 0
