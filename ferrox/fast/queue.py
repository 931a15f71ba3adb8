"""The queue of a level: a circle of slots through the level itself.

The level is the head of its circle, so that taking out the first, the last, the only or a middle order is one and the
same thing, and nothing needs to be counted: a queue is empty when the level is its own neighbour.
"""

from librt.vecs import vec
from mypy_extensions import i64

from ferrox.fast.layout import HALF, LINKS


def make_empty(slots: vec[i64], level: i64) -> None:
    """Close the circle of a level around the level alone."""
    slots[level + LINKS] = level | level << 32


def append(slots: vec[i64], level: i64, order: i64) -> None:
    """Put an order at the back of a level's queue (MATCH-5)."""
    links = slots[level + LINKS]
    newest = links & HALF
    slots[order + LINKS] = newest | level << 32
    if newest == level:
        slots[level + LINKS] = order | order << 32
    else:
        slots[level + LINKS] = order | (links >> 32) << 32
        slots[newest + LINKS] = (slots[newest + LINKS] & HALF) | order << 32


def unlink(slots: vec[i64], order: i64) -> i64:
    """Take an order out of its queue, wherever in it the order stands; return its level if that is empty now, or 0."""
    links = slots[order + LINKS]
    before, after = links & HALF, links >> 32
    if before == after:  # only the level is on both sides
        slots[before + LINKS] = before | before << 32
        return before
    slots[before + LINKS] = (slots[before + LINKS] & HALF) | after << 32
    slots[after + LINKS] = before | (slots[after + LINKS] >> 32) << 32
    return 0
