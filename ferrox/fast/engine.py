"""The fast engine: what specs/matching.md says, over columns of words that are made once.

`apply` crosses the seam once a batch; inside, a command is four words read from its record, a report six words written
to the report buffer, and nothing is allocated.  All there is to an engine are its three columns (see `layout`), handed
from function to function: a column bound to a name costs nothing, one reached through an object is counted each time.
"""

from librt.strings import read_i64_le
from librt.vecs import vec
from mypy_extensions import i32, i64

from ferrox.errors import SequenceError
from ferrox.fast.ahead import DEEP, look_ahead
from ferrox.fast.columns import make_heads, make_slots, use_huge_pages, zeros
from ferrox.fast.decode import fault
from ferrox.fast.image import check, examine, load, save
from ferrox.fast.instruments import define, set_state
from ferrox.fast.layout import (
    ACCOUNT_SHIFT,
    CANCEL_ORDER,
    CANCEL_REJECTED,
    CLOCK,
    DEFINE_INSTRUMENT,
    HALF,
    LIMIT_SET,
    MARK,
    MASKS,
    MASS_CANCEL,
    NEW_ORDER,
    RECORD_SIZE,
    REJECTED,
    REPLACE_ORDER,
    REPLACE_REJECTED,
    REPORT_LIMIT,
    REPORT_WORDS,
    RESTING,
    SEAL,
    SEQUENCE,
    SEQUENCE_MAX,
    SET_LIMIT,
    SET_TRADING_STATE,
    TIME_MAX,
    WRITTEN,
)
from ferrox.fast.matching import cancel, mass_cancel, new, replace
from ferrox.fast.reports import report, tail_of


class FastEngine:
    """The engine for production; see `ferrox.engine.Engine` for what the three methods of the seam promise."""

    def __init__(self, order_capacity: int, instrument_capacity: int) -> None:
        """Allocate everything for so many resting orders (1 .. 2^26) and instruments (1 .. 2^20-1)."""
        self.slots: vec[i64] = make_slots(order_capacity, instrument_capacity)
        self.heads: vec[i32] = make_heads(self.slots)
        self.out: vec[i64] = zeros(self.slots[REPORT_LIMIT])
        self.view = memoryview(self.out).cast("B")
        use_huge_pages(self.slots)
        use_huge_pages(self.heads)

    def apply(self, records: bytes) -> tuple[int, memoryview]:
        """Apply whole 64-byte records; return how many were taken and their reports, valid until the next call."""
        size = len(records)
        if size % RECORD_SIZE:
            raise ValueError(f"records come in whole frames of {RECORD_SIZE} bytes, these are {size}")
        taken = run(self.slots, self.heads, self.out, records, size)
        return int(taken), self.view[: int(self.slots[WRITTEN]) * 8]

    def snapshot(self) -> bytes:
        """Return the whole state in the canonical layout (SNAP-1 .. SNAP-4)."""
        return save(self.slots)

    def restore(self, snapshot: bytes) -> None:
        """Replace the whole state with a snapshot, or raise `SnapshotCorrupt` and keep the state (SNAP-5)."""
        examine(self.slots, snapshot)
        self.heads = make_heads(self.slots)
        load(self.slots, self.heads, self.out, snapshot)

    def check(self) -> None:
        """Assert the whole invariant of the columns, slowly."""
        check(self.slots, self.heads)


def run(slots: vec[i64], heads: vec[i32], out: vec[i64], records: bytes, size: i64) -> i64:
    """Apply records until they end or the next one's reports might not fit; return how many were taken."""
    room = SEQUENCE_MAX - slots[SEQUENCE]
    if size // RECORD_SIZE > room:  # LIM-11, by DET-3
        if room == 0:
            raise SequenceError(f"the engine is at sequence {slots[SEQUENCE]}, the last there is")
        size = room * RECORD_SIZE
    last = slots[MASKS + 63]  # the LAST flag, where it stands in a report's last word: the sign
    at: i64 = 0
    seen: i64 = 0  # up to where was looked ahead
    slots[WRITTEN] = 0
    while at < size:
        if slots[WRITTEN] + (2 * slots[RESTING] + 4) * REPORT_WORDS > slots[REPORT_LIMIT] and at != 0:
            break
        if at == seen:
            seen = look_ahead(slots, heads, records, at, size) if slots[RESTING] >= DEEP else at + RECORD_SIZE
        sequence = read_i64_le(records, at + 8)
        if sequence != slots[SEQUENCE] + 1:
            if at != 0:
                break  # what was taken has its reports; the next call refuses this one (DET-3)
            raise SequenceError(f"the engine is at sequence {slots[SEQUENCE]} and was given record {sequence}")
        slots[SEQUENCE] = sequence
        time_ns = read_i64_le(records, at + 16)
        if time_ns > slots[CLOCK] and time_ns - 1 <= TIME_MAX - 1:  # DET-4
            slots[CLOCK] = time_ns
        envelope = read_i64_le(records, at + 24)
        named = envelope & 0xFFFF  # the kind, and above it the size
        if named != MARK and named != SEAL:  # both of size 0 (DET-8)
            head = read_i64_le(records, at + 32)
            ident = read_i64_le(records, at + 40)
            price = read_i64_le(records, at + 48)
            sizes = read_i64_le(records, at + 56)
            reason = fault(envelope, head, ident, price, sizes)
            if reason == 0:
                reason = carry_out(slots, heads, out, head, ident, price, sizes)
            if reason != 0:
                reject(slots, out, head, ident, reason)
            out[slots[WRITTEN] - 1] |= last
        at += RECORD_SIZE
    return at // RECORD_SIZE


def carry_out(slots: vec[i64], heads: vec[i32], out: vec[i64], head: i64, ident: i64, price: i64, sizes: i64) -> i64:
    """Carry out one command whose fields are in order; return why not, or 0."""
    kind = head & 0xFF
    instrument = (head >> 32) & HALF
    if kind == NEW_ORDER:
        return new(slots, heads, out, head, instrument, ident, price, sizes)
    if kind == CANCEL_ORDER:
        return cancel(slots, heads, out, instrument, ident)
    if kind == REPLACE_ORDER:
        return replace(slots, heads, out, head, instrument, ident, price, sizes)
    detail = (head >> 8) & 0xFF  # the scope, the trading state or the limit
    if kind == MASS_CANCEL:
        return mass_cancel(slots, heads, out, detail, instrument, ident)
    if kind == DEFINE_INSTRUMENT:
        return define(slots, heads, out, detail, instrument, ident, price, sizes)
    if kind == SET_TRADING_STATE:
        return set_state(slots, heads, out, detail, instrument)
    report(slots, out, ident << ACCOUNT_SHIFT, price, 0, 0, tail_of(instrument, LIMIT_SET, detail, 0, 0))
    return 0  # a limit is the gateway's to keep (LIMIT-1)


def reject(slots: vec[i64], out: vec[i64], head: i64, ident: i64, reason: i64) -> None:
    """Report a command that was not carried out (REPORT-3)."""
    kind = head & 0xFF
    answer: i64 = REJECTED
    if kind == CANCEL_ORDER:
        answer = CANCEL_REJECTED
    elif kind == REPLACE_ORDER:
        answer = REPLACE_REJECTED
    elif kind in (MASS_CANCEL, DEFINE_INSTRUMENT, SET_TRADING_STATE, SET_LIMIT):
        ident = 0
    report(slots, out, ident, 0, 0, 0, tail_of((head >> 32) & HALF, answer, 0, reason, 0))
