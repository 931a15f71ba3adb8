"""Pools of slots: the one freed last is the first to be used again, because it is still in the cache.

A pool is two control words, the first free slot and the first that was never used; free slots are a stack, linked where
an order keeps its neighbours.  Every pool has as many slots as could ever be in use, so taking one cannot fail.
"""

from librt.vecs import vec
from mypy_extensions import i64

from ferrox.fast.layout import FRESH, LINKS, SLOT


def take(slots: vec[i64], pool: i64) -> i64:
    """Take a slot."""
    slot = slots[pool]
    if slot != 0:
        slots[pool] = slots[slot + LINKS] >> 32
        return slot
    slot = slots[pool + FRESH]
    slots[pool + FRESH] = slot + SLOT
    return slot


def give(slots: vec[i64], pool: i64, slot: i64) -> None:
    """Give a slot back."""
    slots[slot + LINKS] = slots[pool] << 32
    slots[pool] = slot
