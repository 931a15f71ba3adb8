"""Reports, written as six words into a buffer that is made once.

The last word holds the instrument in its low half and kind, side, reason and flags in the bytes above; the LAST flag is
its sign (REPORT-4).
"""

from librt.vecs import vec
from mypy_extensions import i64

from ferrox.fast.layout import REPORT_WORDS, SEQUENCE, WRITTEN


def report(slots: vec[i64], out: vec[i64], order_id: i64, contra_id: i64, price: i64, sizes: i64, tail: i64) -> None:
    """Write one report of the command at hand (REPORT-3); `sizes` is quantity and, above it, leaves."""
    place = slots[WRITTEN]
    slots[WRITTEN] = place + REPORT_WORDS
    out[place] = slots[SEQUENCE]
    out[place + 1] = order_id
    out[place + 2] = contra_id
    out[place + 3] = price
    out[place + 4] = sizes
    out[place + 5] = tail


def tail_of(instrument: i64, kind: i64, side: i64, reason: i64, flags: i64) -> i64:
    """Return a report's last word; the LAST flag is not among these flags."""
    return instrument | kind << 32 | side << 40 | reason << 48 | flags << 56
