"""The index: from a key to its slot, through bucket heads and a chain in the slots themselves.

The trick is where the heads lie.  Sixteen neighbouring keys have their heads on one cache line, because ids that are
near in time or prices that are near in the book are used together; the lines are scattered by a random odd multiplier,
and so is where in its line a key begins to count, so that nobody outside can choose ids that share a chain: without the
latter, ids with equal low bits would have one head of the sixteen to share.  The multiplier is drawn per engine and
never leaves it: which bucket a key has changes no report.  Considered and left: open addressing, whose runs cluster
without bound when neighbours stay together, and which costs 16 bytes an entry.

Orders, levels and blocks each have a table of their own in the one `heads` column; keys are not negative.
"""

from librt.vecs import vec
from mypy_extensions import i32, i64

from ferrox.fast.layout import CHAIN, HEAD, KEY, LINE_MASK, LINE_SHIFT, MULTIPLIER


def bucket(slots: vec[i64], table: i64, key: i64) -> i64:
    """Return the place of a key's head in the table that begins at `table`.

    The product wraps when compiled and grows when interpreted; the bits taken from it are the same.  Those that tell
    the line are the highest, 22 at most (LIM-7); the four below bit 42 are never among them.
    """
    product = (key >> 4) * slots[MULTIPLIER]
    line = (product >> slots[LINE_SHIFT]) & slots[LINE_MASK]
    return table + line * 16 + ((key ^ (product >> 38)) & 15)


def find(slots: vec[i64], heads: vec[i32], place: i64, key: i64) -> i64:
    """Return the slot with this key in the chain of its bucket, or 0."""
    slot = i64(heads[place])
    while slot != 0 and slots[slot + KEY] != key:
        slot = slots[slot + CHAIN]
    return slot


def insert(slots: vec[i64], heads: vec[i32], place: i64, slot: i64) -> None:
    """Put a slot, whose key is set, at the front of its bucket's chain."""
    slots[slot + HEAD] = place
    slots[slot + CHAIN] = i64(heads[place])
    heads[place] = i32(slot)


def remove(slots: vec[i64], heads: vec[i32], slot: i64) -> None:
    """Take a slot out of its bucket's chain, in which it stands."""
    place = slots[slot + HEAD]
    following = slots[slot + CHAIN]
    before = i64(heads[place])
    if before == slot:
        heads[place] = i32(following)
        return
    while slots[before + CHAIN] != slot:
        before = slots[before + CHAIN]
    slots[before + CHAIN] = following
