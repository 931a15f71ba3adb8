"""A pool of slots: the one freed last is the first to be used again, because it is still in the cache."""

from librt.vecs import vec
from mypy_extensions import i64

from ferrox.fast.layout import LINKS, SLOT


class Pool:
    """A stretch of the arena; free slots are a stack, linked where an order keeps its neighbours."""

    def __init__(self, start: i64, count: i64) -> None:
        """Lay a pool of `count` slots from word `start` on."""
        self.start = start
        self.end = start + count * SLOT
        self.fresh = start  # from here on no slot was ever used
        self.free: i64 = 0

    def clear(self) -> None:
        """Make every slot free."""
        self.fresh = self.start
        self.free = 0


def take(slots: vec[i64], pool: Pool) -> i64:
    """Take a slot; the caller knows that one is free."""
    slot = pool.free
    if slot != 0:
        pool.free = slots[slot + LINKS] >> 32
        return slot
    slot = pool.fresh
    pool.fresh = slot + SLOT
    return slot


def give(slots: vec[i64], pool: Pool, slot: i64) -> None:
    """Give a slot back."""
    slots[slot + LINKS] = pool.free << 32
    pool.free = slot
