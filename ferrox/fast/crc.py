"""CRC32C of 64-bit words, eight bytes at a step (slicing by 8, Kounavis and Berry 2005).

The polynomial is Castagnoli's (RFC 3720, B.4), reflected, 0x82F63B78.  The `crc32c` package is quicker over long runs
of bytes and takes hundreds of nanoseconds to call; a record is sixty bytes.
"""

from typing import Final

from librt.vecs import vec
from mypy_extensions import i32, i64

POLYNOMIAL: Final = 0x82F63B78


def make_table() -> vec[i32]:
    """Return eight tables of 256: what a byte does to the checksum when n more bytes follow it in the same step."""
    first: list[int] = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (POLYNOMIAL if crc & 1 else 0)
        first.append(crc)
    row = first
    items = list(first)
    for _ in range(7):
        row = [(crc >> 8) ^ first[crc & 0xFF] for crc in row]
        items += row
    table = vec[i32]([0] * 2048)
    for n in range(2048):
        item = items[n]
        table[n] = i32(item if item < 1 << 31 else item - (1 << 32))
    return table


TABLE: Final = make_table()


def of_word(table: vec[i32], crc: i64, word: i64) -> i64:
    """Return the checksum's state, 0 .. 2^32-1, after the eight bytes of a word, the lowest first."""
    low = crc ^ word
    return (
        i64(table[1792 + (low & 0xFF)])
        ^ i64(table[1536 + ((low >> 8) & 0xFF)])
        ^ i64(table[1280 + ((low >> 16) & 0xFF)])
        ^ i64(table[1024 + ((low >> 24) & 0xFF)])
        ^ i64(table[768 + ((word >> 32) & 0xFF)])
        ^ i64(table[512 + ((word >> 40) & 0xFF)])
        ^ i64(table[256 + ((word >> 48) & 0xFF)])
        ^ i64(table[(word >> 56) & 0xFF])
    ) & 0xFFFFFFFF


def of_half(table: vec[i32], crc: i64, half: i64) -> i64:
    """Return the checksum's state after the four bytes of half a word."""
    low = crc ^ half
    return (
        i64(table[768 + (low & 0xFF)])
        ^ i64(table[512 + ((low >> 8) & 0xFF)])
        ^ i64(table[256 + ((low >> 16) & 0xFF)])
        ^ i64(table[(low >> 24) & 0xFF])
    ) & 0xFFFFFFFF


def make_advance(table: vec[i32]) -> vec[i32]:
    """Return what each byte of a state becomes when 60 zero bytes follow it: four tables of 256, the lowest byte first.

    A checksum is linear: that of a record is that of its last 56 bytes alone, with this for what stands before them.
    """
    bits: list[int] = []
    for bit in range(32):
        crc = of_half(table, i64(1) << bit, 0)
        for _ in range(7):
            crc = of_word(table, crc, 0)
        bits.append(int(crc))
    advance = vec[i32]([0] * 1024)
    for n in range(1024):
        first, byte = n // 256 * 8, n % 256
        item = 0
        for bit in range(8):
            if byte & (1 << bit):
                item ^= bits[first + bit]
        advance[n] = i32(item if item < 1 << 31 else item - (1 << 32))
    return advance


ADVANCE: Final = make_advance(TABLE)


def over_sixty(advance: vec[i32], crc: i64) -> i64:
    """Return a state, 0 .. 2^32-1, after 60 zero bytes."""
    return (
        i64(advance[crc & 0xFF])
        ^ i64(advance[256 + ((crc >> 8) & 0xFF)])
        ^ i64(advance[512 + ((crc >> 16) & 0xFF)])
        ^ i64(advance[768 + ((crc >> 24) & 0xFF)])
    ) & 0xFFFFFFFF
