"""Records as a journal writes and reads them, at the pace of the engine (JRN-1 .. JRN-4).

`ferrox.journal.chain` says the same in Python over the `crc32c` package, for a build that is not compiled; a test holds
the two equal.
"""

from librt.strings import read_i64_le
from mypy_extensions import i64

from ferrox.fast.columns import zeros
from ferrox.fast.crc import ADVANCE, TABLE, of_half, of_word, over_sixty
from ferrox.fast.layout import HALF, MARK, RECORD_SIZE, TIME_MAX


def seal_records(
    records: bytes, salt: int, checksum: int, sequence: int, latest: int, durable: int, now_ns: int
) -> tuple[bytes, int, int]:
    """Return whole records sealed, the last one's checksum and its time; see `ferrox.journal.chain.Chain.seal`."""
    table = TABLE
    advance = ADVANCE
    size: i64 = len(records)
    out = zeros(size // 8)
    key: i64 = salt
    key ^= HALF
    before: i64 = checksum
    number: i64 = sequence
    time_ns: i64 = latest
    known: i64 = durable
    now: i64 = now_ns
    at: i64 = 0
    while at < size:
        number += 1
        given = read_i64_le(records, at + 16)
        if given == 0:
            given = now
        if given > time_ns:
            time_ns = given
        lag = number - known
        if lag > HALF:
            lag = HALF
        envelope = (read_i64_le(records, at + 24) & HALF) | high_half(lag)
        # What does not depend on the record before is calculated first, so that the processor can do two at a time.
        crc = of_word(table, 0, number)
        crc = of_word(table, crc, time_ns)
        crc = of_word(table, crc, envelope)
        place = at // 8
        for n in range(4, 8):
            word = read_i64_le(records, at + n * 8)
            crc = of_word(table, crc, word)
            out[place + n] = word
        crc ^= over_sixty(advance, key ^ before) ^ HALF
        out[place] = crc | high_half(before)
        out[place + 1] = number
        out[place + 2] = time_ns
        out[place + 3] = envelope
        before = crc
        at += RECORD_SIZE
    return bytes(memoryview(out)), int(before), int(time_ns)


def count_fit(records: bytes) -> int:
    """Return how many of the leading records a caller may append: no annotation, and a time that can be."""
    size: i64 = len(records)
    at: i64 = 0
    while at < size:
        time_ns = read_i64_le(records, at + 16)
        if read_i64_le(records, at + 24) & 0xFF >= MARK or time_ns < 0 or time_ns - 1 > TIME_MAX - 1:
            break
        at += RECORD_SIZE
    return int(at // RECORD_SIZE)


def high_half(half: i64) -> i64:
    """Return a word with 32 bits in its high half, whose highest is the sign."""
    return ((half ^ 0x80000000) - 0x80000000) << 32


def count_sound(records: bytes, salt: int, checksum: int, sequence: int, latest: int) -> int:
    """Return how many of the leading records are sound; see `ferrox.journal.chain.Chain.follow`."""
    table = TABLE
    size: i64 = len(records)
    key: i64 = salt
    before: i64 = checksum
    number: i64 = sequence
    time_ns: i64 = latest
    at: i64 = 0
    while at < size:
        first = read_i64_le(records, at)
        stated = read_i64_le(records, at + 16)
        number += 1
        if (first >> 32) & HALF != before or read_i64_le(records, at + 8) != number:
            break
        if stated < time_ns or stated - 1 > TIME_MAX - 1:
            break
        crc = of_half(table, key ^ HALF, before)
        for n in range(1, 8):
            crc = of_word(table, crc, read_i64_le(records, at + n * 8))
        crc ^= HALF
        if first & HALF != crc:
            break
        before = crc
        time_ns = stated
        at += RECORD_SIZE
    return int(at // RECORD_SIZE)
