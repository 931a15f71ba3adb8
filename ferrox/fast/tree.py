"""The tree of blocks: which block of ticks is next to a new one.

Blocks that hold a level are the leaves of a critical-bit tree over their keys: a branch decides by one bit, the highest
in which the keys below it differ.  It is never rebalanced, no path is longer than a key has bits, and a book of n
blocks has n - 1 branches, so that each branch lives in a block of its own and the tree needs no memory beside them.  It
is walked only when a block gains its first level or loses its last.

An edge is the place of a word: positive, it holds a block (a leaf); negative, the block in which the next branch lives.

Considered and left: a 64-ary tree of bitmaps, as quick to walk, which needs up to six nodes a level when levels lie far
apart (185 MB at the default capacity, against none here).
"""

from librt.vecs import vec
from mypy_extensions import i64

from ferrox.fast.bits import highest
from ferrox.fast.layout import CRITICAL, KEY, LEFT, RIGHT


def plant(slots: vec[i64], root: i64, block: i64) -> i64:
    """Put a block, whose key is set, into the tree; return a block next to it: above as it is, below negated, or 0."""
    key = slots[block + KEY]
    edge = slots[root]
    if edge == 0:
        slots[root] = block
        return 0
    while edge < 0:  # any leaf on the way will do: it agrees with the key in every bit that is decided before theirs
        edge = slots[LEFT - edge + ((key >> slots[CRITICAL - edge]) & 1)]
    critical = highest(slots, key ^ slots[edge + KEY])

    place = root
    edge = slots[place]
    while edge < 0 and slots[CRITICAL - edge] > critical:
        place = LEFT - edge + ((key >> slots[CRITICAL - edge]) & 1)
        edge = slots[place]
    slots[block + CRITICAL] = critical
    slots[place] = -block
    if (key >> critical) & 1:
        slots[block + LEFT] = edge
        slots[block + RIGHT] = block
        return -outermost(slots, edge, RIGHT)
    slots[block + LEFT] = block
    slots[block + RIGHT] = edge
    return outermost(slots, edge, LEFT)


def outermost(slots: vec[i64], edge: i64, side: i64) -> i64:
    """Return the lowest (LEFT) or highest (RIGHT) block below an edge."""
    while edge < 0:
        edge = slots[-edge + side]
    return edge


def uproot(slots: vec[i64], root: i64, block: i64) -> None:
    """Take a block out of the tree, with the branch above it.

    The branch that lives in the block may still be needed; it then moves into the block whose branch just became free.
    A branch is always above the block it lives in, so that block lies below the moved branch as well.
    """
    key = slots[block + KEY]
    place = root  # of the edge that leads to `parent`
    parent: i64 = 0  # the branch above the block
    own: i64 = 0  # the place of the edge that leads to the branch living in the block
    edge = slots[place]
    above = place
    while edge < 0:
        if edge == -block:
            own = place
        above, parent = place, -edge
        place = parent + LEFT + ((key >> slots[parent + CRITICAL]) & 1)
        edge = slots[place]
    if parent == 0:
        slots[root] = 0
        return
    sibling = slots[parent + LEFT] if place == parent + RIGHT else slots[parent + RIGHT]
    slots[above] = sibling
    if own != 0 and parent != block:
        slots[parent + CRITICAL] = slots[block + CRITICAL]
        slots[parent + LEFT] = slots[block + LEFT]
        slots[parent + RIGHT] = slots[block + RIGHT]
        slots[own] = -parent
