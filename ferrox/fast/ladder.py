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
    BLOCK_NUMBER_MASK,
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
    TICK,
    TICK_NUMBER,
    TICK_NUMBER_BITS,
    TICK_NUMBER_ZERO,
)
from ferrox.fast.pool import give, take
from ferrox.fast.queue import make_empty
from ferrox.fast.tree import outermost, plant, uproot


def level_at(slots: vec[i64], heads: vec[i32], book: i64, side: i64, price: i64) -> i64:
    """Return the level of a price, a new and empty one where there was none."""
    best = slots[book + BEST + side]
    if best != 0 and slots[best + PRICE] == price:
        return best
    tick = slots[book + TICK]
    tick_number = (price if tick == 1 else price // tick) + TICK_NUMBER_ZERO
    key = level_key(slots, book, side, tick_number)
    place = bucket(slots, slots[LEVEL_HEADS], key)
    level = find(slots, heads, place, key)
    if level != 0:
        return level

    level = take(slots, LEVELS)
    slots[level + KEY] = key
    slots[level + PRICE] = price
    slots[level + TICK_NUMBER] = tick_number
    make_empty(slots, level)
    insert(slots, heads, place, level)
    add(slots, heads, book, side, tick_number, level, best)
    return level


def add(slots: vec[i64], heads: vec[i32], book: i64, side: i64, tick_number: i64, level: i64, best: i64) -> None:
    """Put a new level on the ladder, between its neighbours and into its block."""
    key = block_key(slots, book, side, tick_number)
    place = bucket(slots, slots[BLOCK_HEADS], key)
    block = find(slots, heads, place, key)
    beside: i64 = 0
    present: i64 = 0
    if block != 0:
        present = slots[block + BITS]
    else:
        block = take(slots, BLOCKS)
        slots[block + KEY] = key
        insert(slots, heads, place, block)
        beside = plant(slots, book + ROOT + side, block)
    slots[block + BITS] = present | slots[MASKS + (tick_number & 63)]
    slots[level + OWNER] = book | block << 32

    # Better than the best is what most new levels are, and then there is nothing to look for.
    if best == 0 or (slots[level + PRICE] > slots[best + PRICE]) == (side == BUY):
        slots[book + BEST + side] = level
        if best == 0:
            slots[level + NEIGHBOURS] = 0
        elif side == BUY:
            slots[level + NEIGHBOURS] = best
            slots[best + NEIGHBOURS] = (slots[best + NEIGHBOURS] & HALF) | level << 32
        else:
            slots[level + NEIGHBOURS] = best << 32
            slots[best + NEIGHBOURS] = level | (slots[best + NEIGHBOURS] >> 32) << 32
        return

    above = next_above(slots, heads, book, side, tick_number, present, beside)
    if above > 0:
        below = slots[above + NEIGHBOURS] & HALF
    else:
        below, above = -above, slots[NEIGHBOURS - above] >> 32
    slots[level + NEIGHBOURS] = below | above << 32
    if below != 0:
        slots[below + NEIGHBOURS] = (slots[below + NEIGHBOURS] & HALF) | level << 32
    if above != 0:
        slots[above + NEIGHBOURS] = level | (slots[above + NEIGHBOURS] >> 32) << 32


def next_above(
    slots: vec[i64], heads: vec[i32], book: i64, side: i64, tick_number: i64, present: i64, beside: i64
) -> i64:
    """Return the level next above a tick, or, negated, the one next below; there is at least one other level.

    `present` are the other ticks of its block that have a level; where there are none, `beside` is a block next to it,
    as `plant` returns it.
    """
    if present != 0:
        base = tick_number & -64
        higher = present & -slots[MASKS + (tick_number & 63)]  # from the tick up; it is not set itself
        if higher != 0:
            return level_of(slots, heads, book, side, base + lowest(slots, higher))
        return -level_of(slots, heads, book, side, base + highest(slots, present))
    if beside > 0:
        base = (slots[beside + KEY] & BLOCK_NUMBER_MASK) << BLOCK_SHIFT
        return level_of(slots, heads, book, side, base + lowest(slots, slots[beside + BITS]))
    base = (slots[KEY - beside] & BLOCK_NUMBER_MASK) << BLOCK_SHIFT
    return -level_of(slots, heads, book, side, base + highest(slots, slots[BITS - beside]))


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
    owner = slots[level + OWNER]
    book, block = owner & HALF, owner >> 32
    neighbours = slots[level + NEIGHBOURS]
    below, above = neighbours & HALF, neighbours >> 32
    if below != 0:
        slots[below + NEIGHBOURS] = (slots[below + NEIGHBOURS] & HALF) | above << 32
    if above != 0:
        slots[above + NEIGHBOURS] = below | (slots[above + NEIGHBOURS] >> 32) << 32
    if slots[book + BEST + side] == level:
        slots[book + BEST + side] = below if side == BUY else above

    present = slots[block + BITS] ^ slots[MASKS + (slots[level + TICK_NUMBER] & 63)]
    slots[block + BITS] = present
    if present == 0:
        uproot(slots, book + ROOT + side, block)
        remove(slots, heads, block)
        give(slots, BLOCKS, block)
    remove(slots, heads, level)
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
        assert slots[level + OWNER] & HALF == book
        assert slots[slots[level + OWNER] >> 32] == block_key(slots, book, side, slots[level + TICK_NUMBER])
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
        base = (slots[block + KEY] & BLOCK_NUMBER_MASK) << BLOCK_SHIFT
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
