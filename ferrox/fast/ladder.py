"""The ladder: the levels of one side of a book, found by price and linked in the order of price.

A level is found through the index by its tick number.  Only when a level appears, its neighbours must be found: in the
bitmap of its block of 64 adjacent ticks, or, when it is the first of its block, in the tree of blocks.  Either step is
bounded for any price in any band, and no step depends on how many ticks lie between two levels.  The best level's place
is kept in the book, and the way on to the next one is a link, so a sweep never searches.
"""

from librt.vecs import vec
from mypy_extensions import i32, i64

from ferrox.fast.bits import highest, lowest
from ferrox.fast.index import bucket, find, insert, remove
from ferrox.fast.layout import (
    BEST,
    BITS,
    BLOCK_HEADS,
    BLOCK_NUMBER_BITS,
    BLOCK_SHIFT,
    BLOCKS,
    BUY,
    CRITICAL,
    HALF,
    INSTRUMENT,
    KEY,
    LEFT,
    LEVEL_HEADS,
    LEVELS,
    MASKS,
    NEIGHBOURS,
    OWNER,
    PRICE,
    RIGHT,
    ROOT,
    TICK_NUMBER,
    TICK_NUMBER_BITS,
)
from ferrox.fast.pool import give, take
from ferrox.fast.queue import make_empty
from ferrox.fast.tree import outermost, plant, uproot


def level_at(slots: vec[i64], heads: vec[i32], book: i64, side: i64, tick_number: i64, price: i64) -> i64:
    """Return the level of a price, a new and empty one where there was none."""
    key = level_key(slots, book, side, tick_number)
    place = bucket(slots, slots[LEVEL_HEADS], key)
    level = find(slots, heads, place, key)
    return level if level != 0 else add(slots, heads, book, side, tick_number, price, key, place)


def add(
    slots: vec[i64],
    heads: vec[i32],
    book: i64,
    side: i64,
    tick_number: i64,
    price: i64,
    key: i64,
    place: i64,
) -> i64:
    """Put a new and empty level on the ladder, its key and the place of its head given; return it."""
    level = take(slots, LEVELS)
    slots[level + KEY] = key
    slots[level + PRICE] = price
    slots[level + OWNER] = book
    slots[level + TICK_NUMBER] = tick_number
    make_empty(slots, level)
    insert(slots, heads, place, level)
    below, above = enter(slots, heads, book, side, tick_number)
    slots[level + NEIGHBOURS] = below | above << 32
    if below != 0:
        slots[below + NEIGHBOURS] = (slots[below + NEIGHBOURS] & HALF) | level << 32
    if above != 0:
        slots[above + NEIGHBOURS] = level | (slots[above + NEIGHBOURS] >> 32) << 32
    if (above if side == BUY else below) == 0:
        slots[book + BEST + side] = level
    return level


def enter(slots: vec[i64], heads: vec[i32], book: i64, side: i64, tick_number: i64) -> tuple[i64, i64]:
    """Mark a tick in its block; return the levels below and above it, 0 where there is none."""
    number = tick_number & 63
    key = block_key(slots, book, side, tick_number)
    place = bucket(slots, slots[BLOCK_HEADS], key)
    block = find(slots, heads, place, key)
    base = tick_number - number
    if block != 0:
        present = slots[block + BITS]
        slots[block + BITS] = present | slots[MASKS + number]
        higher = present & -slots[MASKS + number]  # the bits from `number` up; its own is not set yet
        if higher != 0:
            above = level_of(slots, heads, book, side, base + lowest(slots, higher))
            return slots[above + NEIGHBOURS] & HALF, above
        below = level_of(slots, heads, book, side, base + highest(slots, present))
        return below, slots[below + NEIGHBOURS] >> 32

    block = take(slots, BLOCKS)
    slots[block + KEY] = key
    slots[block + BITS] = slots[MASKS + number]
    insert(slots, heads, place, block)
    beside = plant(slots, book + ROOT + side, block)
    if beside == 0:
        return 0, 0
    if beside > 0:
        base = (slots[beside + KEY] & 0x7FFFFFFFF) << BLOCK_SHIFT
        above = level_of(slots, heads, book, side, base + lowest(slots, slots[beside + BITS]))
        return slots[above + NEIGHBOURS] & HALF, above
    base = (slots[KEY - beside] & 0x7FFFFFFFF) << BLOCK_SHIFT
    below = level_of(slots, heads, book, side, base + highest(slots, slots[BITS - beside]))
    return below, slots[below + NEIGHBOURS] >> 32


def level_key(slots: vec[i64], book: i64, side: i64, tick_number: i64) -> i64:
    """Return the key of a level, below 2^62: instrument, side, tick number, so that neighbours are neighbours."""
    return (slots[book + INSTRUMENT] * 2 + side - 1) << TICK_NUMBER_BITS | tick_number


def block_key(slots: vec[i64], book: i64, side: i64, tick_number: i64) -> i64:
    """Return the key of a block, below 2^56: instrument, side and the number of 64 adjacent ticks."""
    return (slots[book + INSTRUMENT] * 2 + side - 1) << BLOCK_NUMBER_BITS | tick_number >> BLOCK_SHIFT


def level_of(slots: vec[i64], heads: vec[i32], book: i64, side: i64, tick_number: i64) -> i64:
    """Return the level of a tick that has one."""
    key = level_key(slots, book, side, tick_number)
    return find(slots, heads, bucket(slots, slots[LEVEL_HEADS], key), key)


def drop(slots: vec[i64], heads: vec[i32], side: i64, level: i64) -> None:
    """Take an empty level off the ladder, and its block when it was the last there."""
    book = slots[level + OWNER]
    neighbours = slots[level + NEIGHBOURS]
    below, above = neighbours & HALF, neighbours >> 32
    if below != 0:
        slots[below + NEIGHBOURS] = (slots[below + NEIGHBOURS] & HALF) | above << 32
    if above != 0:
        slots[above + NEIGHBOURS] = below | (slots[above + NEIGHBOURS] >> 32) << 32
    if slots[book + BEST + side] == level:
        slots[book + BEST + side] = below if side == BUY else above

    tick_number = slots[level + TICK_NUMBER]
    key = block_key(slots, book, side, tick_number)
    place = bucket(slots, slots[BLOCK_HEADS], key)
    block = find(slots, heads, place, key)
    present = slots[block + BITS] ^ slots[MASKS + (tick_number & 63)]
    slots[block + BITS] = present
    if present == 0:
        uproot(slots, book + ROOT + side, block)
        remove(slots, heads, place, block)
        give(slots, BLOCKS, block)
    remove(slots, heads, bucket(slots, slots[LEVEL_HEADS], slots[level + KEY]), level)
    give(slots, LEVELS, level)


def worse(slots: vec[i64], side: i64, level: i64) -> i64:
    """Return the next worse level, or 0."""
    neighbours = slots[level + NEIGHBOURS]
    return neighbours & HALF if side == BUY else neighbours >> 32


def check_ladder(slots: vec[i64], heads: vec[i32], book: i64, side: i64) -> None:
    """Assert the whole invariant of one ladder, slowly."""
    level = slots[book + BEST + side]
    ticks = []
    outer: i64 = 0
    while level != 0:
        ticks.append(slots[level + TICK_NUMBER])
        assert slots[level + OWNER] == book
        assert level_of(slots, heads, book, side, slots[level + TICK_NUMBER]) == level
        neighbours = slots[level + NEIGHBOURS]
        assert (neighbours >> 32 if side == BUY else neighbours & HALF) == outer, "levels are linked both ways"
        outer = level
        level = worse(slots, side, level)
    assert ticks == sorted(ticks, reverse=side == BUY), "levels are linked in the order of price"
    blocks: list[i64] = []
    check_tree(slots, slots[book + ROOT + side], 64, blocks)
    marked = []
    for block in blocks:
        base = (slots[block + KEY] & 0x7FFFFFFFF) << BLOCK_SHIFT
        marked += [base + n for n in range(64) if slots[block + BITS] & slots[MASKS + n]]
        assert find(slots, heads, bucket(slots, slots[BLOCK_HEADS], slots[block + KEY]), slots[block + KEY]) == block
    assert marked == sorted(ticks), "blocks mark the ticks that have a level, and stand in the order of the tree"


def check_tree(slots: vec[i64], edge: i64, above: i64, blocks: list[i64]) -> None:
    """Assert that branches decide by ever lower bits and are above the block they live in; collect the blocks."""
    if edge > 0:
        blocks.append(edge)
    elif edge < 0:
        branch = -edge
        critical = slots[branch + CRITICAL]
        assert critical < above
        first = len(blocks)
        check_tree(slots, slots[branch + LEFT], critical, blocks)
        middle = len(blocks)
        check_tree(slots, slots[branch + RIGHT], critical, blocks)
        assert branch in blocks[first:], "a branch is above the block it lives in"
        assert all(not (slots[block + KEY] >> critical) & 1 for block in blocks[first:middle])
        assert all((slots[block + KEY] >> critical) & 1 for block in blocks[middle:])
        assert outermost(slots, slots[branch + LEFT], LEFT) == blocks[first]
