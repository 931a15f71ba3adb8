"""The fast engine: what specs/matching.md says, over columns of 64-bit words that are made once.

`apply` crosses the seam once a batch; inside, a command is four words read from its record, a report six words written
to the report buffer, and nothing is allocated.  The methods follow specs/matching.md in its order; what a slot, a level
or a bucket is, the small modules beside this one know.  Each method that carries out a command returns the reason it
did not, or 0, and has by then changed nothing.
"""

import os
from bisect import insort

from librt.strings import read_i64_le
from librt.vecs import vec
from mypy_extensions import i32, i64

from ferrox.errors import SequenceError, SnapshotCorrupt
from ferrox.fast.decode import fault
from ferrox.fast.index import Table, bucket, find, insert, remove
from ferrox.fast.ladder import Ladder, check_ladder, drop, level_at, worse
from ferrox.fast.layout import (
    ACCOUNT_SHIFT,
    AGGRESSOR,
    ALLOW,
    BEST,
    BOOK_NOT_EMPTY,
    BOOK_SLOTS,
    BUY,
    CANCEL_BOTH,
    CANCEL_MAKER,
    CANCEL_ORDER,
    CANCEL_REJECTED,
    CANCEL_TAKER,
    CANCELED,
    CHAIN,
    DEFINE_INSTRUMENT,
    DUPLICATE_ORDER_ID,
    EXPIRED,
    FOK,
    GTC,
    HALF,
    HIGH,
    INSTRUMENT,
    INSTRUMENT_DEFINED,
    INSTRUMENT_MAX,
    INSTRUMENTS_FULL,
    KEY,
    LAST_WORD,
    LINKS,
    LOT,
    LOW,
    MARK,
    MARKET,
    MASS_CANCEL,
    MASS_CANCEL_REASON,
    MASS_CANCELED,
    MODE_SHIFT,
    NEIGHBOURS,
    NEW,
    NEW_ORDER,
    NOT_OPEN,
    OFF_LOT,
    OFF_TICK,
    OPEN,
    ORDERS_FULL,
    OUTSIDE_BAND,
    OWNER,
    POST_ONLY,
    PRE_OPEN,
    PRICE,
    PRICE_MAX,
    PRIORITY_KEPT,
    QUANTITY_MAX,
    RECORD_SIZE,
    REJECTED,
    REPLACE_ORDER,
    REPLACE_REJECTED,
    REPLACED,
    REPORT_WORDS,
    ROOT,
    RULES_VERSION,
    SCOPE_ACCOUNT,
    SCOPE_ACCOUNT_IN_INSTRUMENT,
    SELF_TRADE,
    SELL,
    SET_TRADING_STATE,
    SIDE_MISMATCH,
    SIZES,
    SLID,
    SLIDE,
    SLOT,
    STATE,
    STATE_CHANGED,
    TICK,
    TICK_NUMBER_ZERO,
    TOTAL_FILLED,
    TRADE,
    UNKNOWN_INSTRUMENT,
    UNKNOWN_ORDER,
    WOULD_CROSS,
)
from ferrox.fast.memory import aligned_at, zeros
from ferrox.fast.pool import Pool, give, take
from ferrox.fast.queue import append, unlink
from ferrox.fast.reports import report, tail_of

HEADER_SIZE = 64  # of a snapshot; instruments and orders have 32 bytes each


class FastEngine:
    """The engine for production; see `ferrox.engine.Engine` for what the three methods of the seam promise."""

    def __init__(self, order_capacity: int, instrument_capacity: int) -> None:
        """Allocate everything for so many resting orders (1 .. 2^26) and instruments (1 .. 2^20-1)."""
        self.order_capacity: i64 = order_capacity
        self.instrument_capacity: i64 = instrument_capacity
        # One slot more than orders can rest: a level and a block appear before the order that they are for is counted.
        count: i64 = self.order_capacity + 1
        books: i64 = self.instrument_capacity * BOOK_SLOTS
        self.slots: vec[i64] = zeros((3 * count + books + 2) * SLOT)
        first: i64 = aligned_at(self.slots)
        if first == 0:
            first = SLOT  # place 0 is nobody
        self.order_pool = Pool(first, count)
        level_pool = Pool(self.order_pool.end, count)
        block_pool = Pool(level_pool.end, count)
        self.books_at: i64 = block_pool.end

        line_bits: i64 = 0
        lines: i64 = 1
        while lines * 16 < count:
            lines += lines
            line_bits += 1
        multiplier: i64 = int.from_bytes(os.urandom(8), "little") >> 1 | 1
        self.orders = Table(0, line_bits, multiplier)
        levels = Table(lines * 16, line_bits, multiplier)
        blocks = Table(lines * 32, line_bits, multiplier)
        self.heads: vec[i32] = vec[i32](memoryview(bytes(int(lines) * 16 * 3 * 4)).cast("i"))
        self.ladder = Ladder(levels, blocks, level_pool, block_pool)

        self.book_of: vec[i32] = vec[i32](memoryview(bytes((INSTRUMENT_MAX + 1) * 4)).cast("i"))
        self.numbers: list[int] = []  # of the defined instruments, ascending
        self.sequence: i64 = 0
        self.time_ns: i64 = 0
        self.resting: i64 = 0

        # The worst a command can do is to cancel every maker against itself, two reports each, and say so.
        self.report_limit: i64 = (2 * self.order_capacity + 64) * REPORT_WORDS
        self.out: vec[i64] = zeros(self.report_limit)
        self.view = memoryview(self.out).cast("B")
        self.written: i64 = 0

    # ---------------------------------------------------------------------------------------------------- the seam

    def apply(self, records: bytes) -> tuple[int, memoryview]:
        """Apply whole 64-byte records; return how many were taken and their reports, valid until the next call."""
        size = len(records)
        if size % RECORD_SIZE:
            raise ValueError(f"records come in whole frames of {RECORD_SIZE} bytes, these are {size}")
        taken = self.run(records, size)
        return int(taken), self.view[: int(self.written) * 8]

    def run(self, records: bytes, size: i64) -> i64:
        """Apply records until they end or the next one's reports might not fit; return how many were taken."""
        out = self.out
        at: i64 = 0
        self.written = 0
        while at < size:
            if self.written + (2 * self.resting + 4) * REPORT_WORDS > self.report_limit and at != 0:
                break
            sequence = read_i64_le(records, at + 8)
            if sequence != self.sequence + 1:
                raise SequenceError(f"the engine is at sequence {self.sequence} and was given record {sequence}")
            self.sequence = sequence
            time_ns = read_i64_le(records, at + 16)
            if time_ns > self.time_ns:
                self.time_ns = time_ns
            envelope = read_i64_le(records, at + 24)
            if envelope & 0xFF < MARK:  # DET-8
                self.command(
                    envelope,
                    read_i64_le(records, at + 32),
                    read_i64_le(records, at + 40),
                    read_i64_le(records, at + 48),
                    read_i64_le(records, at + 56),
                )
                out[self.written - 1] |= LAST_WORD
            at += RECORD_SIZE
        return at // RECORD_SIZE

    def command(self, envelope: i64, head: i64, ident: i64, price: i64, sizes: i64) -> None:
        """Carry out one command, or reject it; either way there is a report (REPORT-1)."""
        kind = head & 0xFF
        instrument = (head >> 32) & HALF
        reason = fault(envelope, head, ident, price, sizes)
        if reason == 0:
            if kind == NEW_ORDER:
                reason = self.new(head, instrument, ident, price, sizes)
            elif kind == CANCEL_ORDER:
                reason = self.cancel(instrument, ident)
            elif kind == REPLACE_ORDER:
                reason = self.replace(head, instrument, ident, price, sizes)
            elif kind == MASS_CANCEL:
                reason = self.mass_cancel((head >> 8) & 0xFF, instrument, ident)
            elif kind == DEFINE_INSTRUMENT:
                reason = self.define((head >> 8) & 0xFF, instrument, ident, price, sizes)
            else:
                reason = self.set_state((head >> 8) & 0xFF, instrument)
            if reason == 0:
                return
        answer: i64 = REJECTED
        if kind == CANCEL_ORDER:
            answer = CANCEL_REJECTED
        elif kind == REPLACE_ORDER:
            answer = REPLACE_REJECTED
        elif kind == MASS_CANCEL or kind == DEFINE_INSTRUMENT or kind == SET_TRADING_STATE:
            ident = 0
        self.report(ident, 0, 0, 0, tail_of(instrument, answer, 0, reason, 0))

    # ------------------------------------------------------------------------------------------------------ commands

    def new(self, head: i64, instrument: i64, order_id: i64, price: i64, quantity: i64) -> i64:
        """Match an order, then let what is left rest or expire (NEW-1 .. NEW-3)."""
        slots, heads = self.slots, self.heads
        side = (head >> 8) & 0xFF
        time_in_force = (head >> 16) & 0xFF
        flags = (head >> 24) & 0xFF
        book = i64(self.book_of[instrument])
        if book == 0:
            return UNKNOWN_INSTRUMENT
        state = slots[book + STATE]
        if state != OPEN and (state != PRE_OPEN or time_in_force != GTC):
            return NOT_OPEN
        if find(slots, heads, bucket(self.orders, order_id), order_id) != 0:
            return DUPLICATE_ORDER_ID
        reason = self.off_grid(book, price, quantity, flags)
        if reason != 0:
            return reason
        if time_in_force == GTC and self.resting >= self.order_capacity:
            return ORDERS_FULL
        slid: i64 = 0
        best = slots[book + BEST + 3 - side]
        if best == 0:  # nothing to meet
            pass
        elif (flags & POST_ONLY) != 0 or state != OPEN:
            entry = self.behind(book, side, price, flags)
            if entry > PRICE_MAX:
                return WOULD_CROSS
            if entry != price:
                price, slid, best = entry, SLID, 0

        self.report(order_id, 0, price, quantity | quantity << 32, tail_of(instrument, NEW, side, 0, slid))
        sizes = quantity
        if best != 0:
            sign = 3 - 2 * side  # a buyer's limit is met from below, a seller's from above
            limit = sign * 2 * PRICE_MAX if flags & MARKET != 0 else price
            if (slots[best + PRICE] - limit) * sign <= 0:
                mode = flags >> MODE_SHIFT
                if time_in_force != FOK or self.fillable(book, side, order_id, limit, quantity, mode):
                    sizes = self.match(book, side, order_id, price, limit, quantity, mode)
        leaves = sizes & HALF
        if leaves != 0:
            if time_in_force == GTC:
                self.rest(book, side, order_id, price, sizes)
            else:
                self.report(order_id, 0, price, leaves, tail_of(instrument, EXPIRED, side, 0, 0))
        return 0

    def cancel(self, instrument: i64, order_id: i64) -> i64:
        """Take a resting order out (CANCEL-1, CANCEL-2)."""
        if self.book_of[instrument] == 0:
            return UNKNOWN_INSTRUMENT
        slots = self.slots
        order = find(slots, self.heads, bucket(self.orders, order_id), order_id)
        if order == 0 or slots[order + OWNER] & HALF != instrument:
            return UNKNOWN_ORDER
        self.cancel_resting(order, 0)
        return 0

    def replace(self, head: i64, instrument: i64, order_id: i64, price: i64, total: i64) -> i64:
        """Change a resting order's price and total (RPL-1 .. RPL-7)."""
        slots = self.slots
        side = (head >> 8) & 0xFF
        flags = (head >> 24) & 0xFF
        book = i64(self.book_of[instrument])
        if book == 0:
            return UNKNOWN_INSTRUMENT
        state = slots[book + STATE]
        if state != OPEN and state != PRE_OPEN:
            return NOT_OPEN
        order = find(slots, self.heads, bucket(self.orders, order_id), order_id)
        if order == 0 or slots[order + OWNER] & HALF != instrument:
            return UNKNOWN_ORDER
        if slots[order + OWNER] >> 32 != side:
            return SIDE_MISMATCH
        reason = self.off_grid(book, price, total, flags)
        if reason != 0:
            return reason
        filled = slots[order + SIZES] >> 32
        leaves = total - filled
        if leaves <= 0:
            self.cancel_resting(order, TOTAL_FILLED)
            return 0
        if price == slots[order + PRICE] and leaves <= slots[order + SIZES] & HALF:
            slots[order + SIZES] = leaves | filled << 32
            tail = tail_of(instrument, REPLACED, side, 0, PRIORITY_KEPT)
            self.report(order_id, 0, price, total | leaves << 32, tail)
            return 0
        slid: i64 = 0
        if (flags & POST_ONLY) != 0 or state != OPEN:
            entry = self.behind(book, side, price, flags)
            if entry > PRICE_MAX:
                return WOULD_CROSS
            if entry != price:
                price, slid = entry, SLID

        self.take_out(order)
        self.report(order_id, 0, price, total | leaves << 32, tail_of(instrument, REPLACED, side, 0, slid))
        sizes = self.match(book, side, order_id, price, price, leaves | filled << 32, flags >> MODE_SHIFT)
        if sizes & HALF != 0:
            self.rest(book, side, order_id, price, sizes)
        return 0

    def mass_cancel(self, scope: i64, instrument: i64, account: i64) -> i64:
        """Take out every resting order in a scope, in canonical order (MASS-1 .. MASS-3)."""
        if instrument != 0 and self.book_of[instrument] == 0:
            return UNKNOWN_INSTRUMENT
        account_asked: i64 = account if scope == SCOPE_ACCOUNT or scope == SCOPE_ACCOUNT_IN_INSTRUMENT else -1
        before = self.resting
        if instrument != 0:
            self.clear_book(i64(self.book_of[instrument]), account_asked)
        else:
            for number in self.numbers:
                self.clear_book(i64(self.book_of[number]), account_asked)
        tail = tail_of(instrument, MASS_CANCELED, scope, 0, 0)
        self.report(account << ACCOUNT_SHIFT, 0, 0, before - self.resting, tail)
        return 0

    def define(self, state: i64, instrument: i64, low: i64, high: i64, sizes: i64) -> i64:
        """Define an instrument, or define an empty one again (INSTR-1, INSTR-2)."""
        slots = self.slots
        book = i64(self.book_of[instrument])
        if book == 0:
            if len(self.numbers) >= self.instrument_capacity:
                return INSTRUMENTS_FULL
            book = self.books_at + len(self.numbers) * BOOK_SLOTS * SLOT
            self.book_of[instrument] = i32(book)
            insort(self.numbers, int(instrument))
            slots[book + INSTRUMENT] = instrument
            slots[book + BEST + BUY] = slots[book + BEST + SELL] = 0
            slots[book + ROOT + BUY] = slots[book + ROOT + SELL] = 0
        elif slots[book + BEST + BUY] != 0 or slots[book + BEST + SELL] != 0:
            return BOOK_NOT_EMPTY
        slots[book + STATE] = state
        slots[book + TICK] = sizes & HALF
        slots[book + LOT] = sizes >> 32
        slots[book + LOW] = low
        slots[book + HIGH] = high
        self.report(0, high, low, sizes, tail_of(instrument, INSTRUMENT_DEFINED, state, 0, 0))
        return 0

    def set_state(self, state: i64, instrument: i64) -> i64:
        """Move an instrument to another trading state (STATE-4)."""
        book = i64(self.book_of[instrument])
        if book == 0:
            return UNKNOWN_INSTRUMENT
        self.slots[book + STATE] = state
        self.report(0, 0, 0, 0, tail_of(instrument, STATE_CHANGED, state, 0, 0))
        return 0

    # --------------------------------------------------------------------------------------------------- their parts

    def off_grid(self, book: i64, price: i64, quantity: i64, flags: i64) -> i64:
        """Return why a price or quantity does not fit the instrument, or 0 (INSTR-3)."""
        slots = self.slots
        tick, lot = slots[book + TICK], slots[book + LOT]
        if tick != 1 and price % tick != 0:
            return OFF_TICK
        if lot != 1 and quantity % lot != 0:
            return OFF_LOT
        if (price < slots[book + LOW] or price > slots[book + HIGH]) and flags & MARKET == 0:
            return OUTSIDE_BAND
        return 0

    def behind(self, book: i64, side: i64, price: i64, flags: i64) -> i64:
        """Return the price that an order which may not trade enters at, or more than any price (POST-1 .. POST-3)."""
        slots = self.slots
        best = slots[book + BEST + 3 - side]
        if best == 0:
            return price
        sign = 3 - 2 * side
        touch = slots[best + PRICE]
        if (touch - price) * sign > 0:
            return price
        entry = touch - sign * slots[book + TICK]
        if flags & SLIDE == 0 or entry < slots[book + LOW] or entry > slots[book + HIGH]:
            return PRICE_MAX + 1
        return entry

    def match(self, book: i64, side: i64, taker_id: i64, price: i64, limit: i64, sizes: i64, mode: i64) -> i64:
        """Trade with the best maker while there is one within the limit; return the taker's sizes after.

        A run of makers that are filled leaves its level in one cut, and goes to the free slots as it is linked.
        """
        slots, heads, out = self.slots, self.heads, self.out
        orders, pool = self.orders, self.order_pool
        maker_side = 3 - side
        sign = 3 - 2 * side
        instrument = slots[book + INSTRUMENT]
        tail = tail_of(instrument, TRADE, side, 0, AGGRESSOR)
        leaves, filled = sizes & HALF, sizes >> 32
        sequence = self.sequence
        while leaves > 0:
            level = slots[book + BEST + maker_side]
            if level == 0:
                break
            at = slots[level + PRICE]
            if (at - limit) * sign > 0:
                break
            links = slots[level + LINKS]
            oldest = links >> 32
            maker = oldest
            last: i64 = 0  # of the run of makers that are filled
            gone: i64 = 0
            own = False
            written = self.written
            while leaves > 0 and maker != level:
                maker_id = slots[maker + KEY]
                if mode != ALLOW and (maker_id ^ taker_id) >> ACCOUNT_SHIFT == 0:
                    own = True
                    break
                maker_sizes = slots[maker + SIZES]
                traded = maker_sizes & HALF
                if traded > leaves:
                    traded = leaves
                    leaves = 0
                    filled += traded
                    slots[maker + SIZES] = maker_sizes - traded + (traded << 32)
                    report(out, written, sequence, taker_id, maker_id, at, traded, tail)
                    written += REPORT_WORDS
                    break
                leaves -= traded
                filled += traded
                report(out, written, sequence, taker_id, maker_id, at, traded | leaves << 32, tail)
                written += REPORT_WORDS
                remove(slots, heads, bucket(orders, maker_id), maker)
                gone += 1
                last = maker
                maker = slots[maker + LINKS] >> 32
            self.written = written
            if gone != 0:
                self.resting -= gone
                slots[last + LINKS] = pool.free << 32
                pool.free = oldest
                if maker == level:
                    drop(slots, heads, self.ladder, maker_side, level)
                else:
                    slots[level + LINKS] = (links & HALF) | maker << 32
                    slots[maker + LINKS] = level | (slots[maker + LINKS] >> 32) << 32
            if own:
                leaves = self.prevent_self_trade(side, taker_id, price, leaves, maker, mode)
        return leaves | filled << 32

    def prevent_self_trade(self, side: i64, taker_id: i64, price: i64, leaves: i64, maker: i64, mode: i64) -> i64:
        """Do what the taker's mode says when it meets its own order; return the taker's leaves (STP-3 .. STP-7)."""
        slots = self.slots
        maker_id = slots[maker + KEY]
        maker_sizes = slots[maker + SIZES]
        maker_leaves = maker_sizes & HALF
        from_maker: i64 = 0
        from_taker: i64 = 0
        if mode == CANCEL_MAKER or mode == CANCEL_BOTH:
            from_maker = maker_leaves
        if mode == CANCEL_TAKER or mode == CANCEL_BOTH:
            from_taker = leaves
        if mode > CANCEL_BOTH:
            from_maker = maker_leaves if maker_leaves < leaves else leaves
            from_taker = from_maker
        instrument = slots[maker + OWNER] & HALF
        if from_maker != 0:
            remaining = maker_leaves - from_maker
            tail = tail_of(instrument, CANCELED, 3 - side, SELF_TRADE, 0)
            self.report(maker_id, taker_id, slots[maker + PRICE], from_maker | remaining << 32, tail)
            if remaining == 0:
                self.take_out(maker)
            else:
                slots[maker + SIZES] = maker_sizes - from_maker
        if from_taker != 0:
            leaves -= from_taker
            tail = tail_of(instrument, CANCELED, side, SELF_TRADE, 0)
            self.report(taker_id, maker_id, price, from_taker | leaves << 32, tail)
        return leaves

    def fillable(self, book: i64, side: i64, taker_id: i64, limit: i64, quantity: i64, mode: i64) -> bool:
        """Say whether a FOK order would trade its whole quantity at once; change nothing (TIF-3, TIF-4)."""
        slots = self.slots
        maker_side = 3 - side
        sign = 3 - 2 * side
        level = slots[book + BEST + maker_side]
        while level != 0 and (slots[level + PRICE] - limit) * sign <= 0:
            maker = slots[level + LINKS] >> 32
            while maker != level:
                if mode != ALLOW and (slots[maker + KEY] ^ taker_id) >> ACCOUNT_SHIFT == 0:
                    if mode != CANCEL_MAKER:
                        return False
                else:
                    quantity -= slots[maker + SIZES] & HALF
                    if quantity <= 0:
                        return True
                maker = slots[maker + LINKS] >> 32
            level = worse(slots, maker_side, level)
        return False

    def rest(self, book: i64, side: i64, order_id: i64, price: i64, sizes: i64) -> None:
        """Let an order rest at the back of its queue (MATCH-5)."""
        slots, heads = self.slots, self.heads
        tick = slots[book + TICK]
        tick_number = (price if tick == 1 else price // tick) + TICK_NUMBER_ZERO
        level = level_at(slots, heads, self.ladder, book, side, tick_number, price)
        order = take(slots, self.order_pool)
        slots[order + KEY] = order_id
        slots[order + PRICE] = price
        slots[order + SIZES] = sizes
        slots[order + OWNER] = slots[book + INSTRUMENT] | side << 32
        append(slots, level, order)
        insert(slots, heads, bucket(self.orders, order_id), order)
        self.resting += 1

    def take_out(self, order: i64) -> None:
        """Take a resting order out of its queue, its level if that is empty then, and the index."""
        slots, heads = self.slots, self.heads
        level = unlink(slots, order)
        if level != 0:
            drop(slots, heads, self.ladder, slots[order + OWNER] >> 32, level)
        remove(slots, heads, bucket(self.orders, slots[order + KEY]), order)
        give(slots, self.order_pool, order)
        self.resting -= 1

    def cancel_resting(self, order: i64, reason: i64) -> None:
        """Take a resting order out and report what it still had (CANCEL-1, REPORT-5)."""
        slots = self.slots
        owner = slots[order + OWNER]
        tail = tail_of(owner & HALF, CANCELED, owner >> 32, reason, 0)
        self.report(slots[order + KEY], 0, slots[order + PRICE], slots[order + SIZES] & HALF, tail)
        self.take_out(order)

    def clear_book(self, book: i64, account: i64) -> None:
        """Cancel every order of a book, or those of one account if that is not negative, in canonical order."""
        slots = self.slots
        for side in (BUY, SELL):
            level = slots[book + BEST + side]
            while level != 0:
                next_level = worse(slots, side, level)
                order = slots[level + LINKS] >> 32
                while order != level:
                    following = slots[order + LINKS] >> 32
                    if account < 0 or slots[order + KEY] >> ACCOUNT_SHIFT == account:
                        self.cancel_resting(order, MASS_CANCEL_REASON)
                    order = following
                level = next_level

    def report(self, order_id: i64, contra_id: i64, price: i64, sizes: i64, tail: i64) -> None:
        """Write one report of the command at hand (REPORT-3)."""
        report(self.out, self.written, self.sequence, order_id, contra_id, price, sizes, tail)
        self.written += REPORT_WORDS

    # ----------------------------------------------------------------------------------------------------- the state

    def snapshot(self) -> bytes:
        """Return the whole state in the canonical layout (SNAP-1 .. SNAP-4)."""
        slots = self.slots
        words = zeros((HEADER_SIZE + 32 * (len(self.numbers) + self.resting)) // 8)
        words[0] = int.from_bytes(b"FRXSTATE", "little")
        words[1] = 1 | RULES_VERSION << 16
        words[2] = self.sequence
        words[3] = self.time_ns
        words[4] = self.order_capacity | self.instrument_capacity << 32
        words[5] = len(self.numbers) | self.resting << 32
        at: i64 = HEADER_SIZE // 8
        for number in self.numbers:
            book = i64(self.book_of[number])
            words[at] = DEFINE_INSTRUMENT | slots[book + STATE] << 8 | slots[book + INSTRUMENT] << 32
            words[at + 1] = slots[book + LOW]
            words[at + 2] = slots[book + HIGH]
            words[at + 3] = slots[book + TICK] | slots[book + LOT] << 32
            at += 4
        for number in self.numbers:
            book = i64(self.book_of[number])
            for side in (BUY, SELL):
                level = slots[book + BEST + side]
                while level != 0:
                    order = slots[level + LINKS] >> 32
                    while order != level:
                        words[at] = slots[order + KEY]
                        words[at + 1] = slots[order + PRICE]
                        words[at + 2] = slots[order + SIZES]
                        words[at + 3] = slots[order + OWNER]
                        at += 4
                        order = slots[order + LINKS] >> 32
                    level = worse(slots, side, level)
        return bytes(memoryview(words))

    def restore(self, snapshot: bytes) -> None:
        """Replace the whole state with a snapshot, or raise `SnapshotCorrupt` and keep the state (SNAP-5)."""
        self.examine(snapshot)
        slots, heads = self.slots, self.heads
        for place in range(len(heads)):
            heads[place] = 0
        self.order_pool.clear()
        self.ladder.level_pool.clear()
        self.ladder.block_pool.clear()
        for number in self.numbers:
            self.book_of[number] = 0
        self.numbers = []
        self.resting = 0
        self.written = 0
        counts = read_i64_le(snapshot, 40)
        at: i64 = HEADER_SIZE
        for _ in range(counts & HALF):
            head = read_i64_le(snapshot, at)
            low, high, sizes = (
                read_i64_le(snapshot, at + 8),
                read_i64_le(snapshot, at + 16),
                read_i64_le(snapshot, at + 24),
            )
            self.define((head >> 8) & 0xFF, head >> 32, low, high, sizes)
            self.written = 0
            at += 32
        for _ in range(counts >> 32):
            owner = read_i64_le(snapshot, at + 24)
            book = i64(self.book_of[owner & HALF])
            price, sizes = read_i64_le(snapshot, at + 8), read_i64_le(snapshot, at + 16)
            self.rest(book, owner >> 32, read_i64_le(snapshot, at), price, sizes)
            at += 32
        self.sequence = read_i64_le(snapshot, 16)
        self.time_ns = read_i64_le(snapshot, 24)

    def examine(self, snapshot: bytes) -> None:
        """Raise `SnapshotCorrupt` unless a snapshot obeys SNAP-1 .. SNAP-5 and is of this engine's capacities."""
        size = len(snapshot)
        if size < HEADER_SIZE:
            raise SnapshotCorrupt(f"a snapshot has at least {HEADER_SIZE} bytes, this one has {size}")
        if snapshot[:8] != b"FRXSTATE":
            raise SnapshotCorrupt(f"a snapshot begins with b'FRXSTATE', this one with {snapshot[:8]!r}")
        versions = read_i64_le(snapshot, 8)
        if versions != 1 | RULES_VERSION << 16:
            raise SnapshotCorrupt(
                f"the snapshot has format {versions & 0xFFFF} and rules {(versions >> 16) & 0xFFFF} and reserved bytes "
                f"{(versions >> 32) & HALF}, this version of Ferrox reads format 1 and rules {RULES_VERSION}"
            )
        sequence, time_ns = read_i64_le(snapshot, 16), read_i64_le(snapshot, 24)
        capacities, counts = read_i64_le(snapshot, 32), read_i64_le(snapshot, 40)
        if not (0 <= sequence <= 2**62 and 0 <= time_ns <= 2**62) or any(snapshot[48:64]):
            raise SnapshotCorrupt("the snapshot's header has a reserved byte that is not zero, or breaks LIM-11")
        if capacities != self.order_capacity | self.instrument_capacity << 32:
            raise SnapshotCorrupt(
                f"the snapshot is of an engine for {capacities & HALF} orders and {(capacities >> 32) & HALF} "
                f"instruments, this one is for {self.order_capacity} and {self.instrument_capacity}; "
                "make the engine with the snapshot's capacities"
            )
        instruments, orders = counts & HALF, (counts >> 32) & HALF
        if size != HEADER_SIZE + 32 * (instruments + orders):
            raise SnapshotCorrupt(
                f"the snapshot names {instruments} instruments and {orders} orders and has {size} bytes"
            )
        if instruments > self.instrument_capacity or orders > self.order_capacity:
            raise SnapshotCorrupt(f"the snapshot holds more ({instruments}, {orders}) than its own capacities allow")
        places: dict[int, int] = {}
        before: i64 = 0
        at: i64 = HEADER_SIZE
        for _ in range(instruments):
            head = read_i64_le(snapshot, at)
            low, high = read_i64_le(snapshot, at + 8), read_i64_le(snapshot, at + 16)
            instrument = (head >> 32) & HALF
            if head & 0xFF != DEFINE_INSTRUMENT or fault(32 << 8 | 5, head, low, high, read_i64_le(snapshot, at + 24)):
                raise SnapshotCorrupt(f"the instrument at offset {at} of the snapshot is not a valid DefineInstrument")
            if instrument <= before:
                raise SnapshotCorrupt(f"instrument {instrument} of the snapshot stands after {before}")
            before = instrument
            places[int(instrument)] = int(at)
            at += 32
        seen: set[int] = set()
        group: i64 = 0  # instrument and side of the order before
        rank: i64 = 0
        best_bid: i64 = 0
        bid_of: i64 = 0  # the instrument that `best_bid` is of
        for _ in range(orders):
            order_id, price = read_i64_le(snapshot, at), read_i64_le(snapshot, at + 8)
            sizes, owner = read_i64_le(snapshot, at + 16), read_i64_le(snapshot, at + 24)
            instrument = owner & HALF
            side = owner >> 32
            place: i64 = places.get(int(instrument), 0)
            if place == 0 or (side != BUY and side != SELL):
                raise SnapshotCorrupt(f"the order at offset {at} of the snapshot has no book or no side: {owner:#x}")
            tick_lot = read_i64_le(snapshot, place + 24)
            tick, lot = tick_lot & HALF, tick_lot >> 32
            leaves, filled = sizes & HALF, (sizes >> 32) & HALF
            if (
                order_id <= 0
                or int(order_id) in seen
                or leaves == 0
                or leaves + filled > QUANTITY_MAX
                or leaves % lot != 0
                or filled % lot != 0
                or price % tick != 0
                or price < read_i64_le(snapshot, place + 8)
                or price > read_i64_le(snapshot, place + 16)
            ):
                raise SnapshotCorrupt(
                    f"the order at offset {at} of the snapshot, id {order_id}, cannot rest as it stands"
                )
            order_group = instrument * 2 + side
            order_rank = -price if side == BUY else price
            if order_group < group or (order_group == group and order_rank < rank):
                raise SnapshotCorrupt(f"the order at offset {at} of the snapshot is not in canonical order")
            if side == BUY and order_group != group:
                best_bid, bid_of = price, instrument
            if side == SELL and bid_of == instrument and price <= best_bid:
                raise SnapshotCorrupt(f"the snapshot's book of instrument {instrument} is crossed at {price}")
            group, rank = order_group, order_rank
            seen.add(int(order_id))
            at += 32

    def check(self) -> None:
        """Assert the whole invariant of the columns, slowly."""
        slots, heads = self.slots, self.heads
        resting: i64 = 0
        assert self.numbers == sorted(set(self.numbers))
        for number in self.numbers:
            book = i64(self.book_of[number])
            assert slots[book + INSTRUMENT] == number
            for side in (BUY, SELL):
                check_ladder(slots, heads, self.ladder, book, side)
                level = slots[book + BEST + side]
                while level != 0:
                    order = slots[level + LINKS] >> 32
                    assert order != level, "a level holds at least one order"
                    before = level
                    while order != level:
                        assert slots[order + LINKS] & HALF == before, "a queue is linked both ways"
                        assert slots[order + PRICE] == slots[level + PRICE]
                        assert slots[order + OWNER] == number | i64(side) << 32
                        assert slots[order + SIZES] & HALF > 0
                        assert find(slots, heads, bucket(self.orders, slots[order + KEY]), slots[order + KEY]) == order
                        resting += 1
                        before = order
                        order = slots[order + LINKS] >> 32
                    assert slots[level + LINKS] & HALF == before
                    level = worse(slots, side, level)
            bid, ask = slots[book + BEST + BUY], slots[book + BEST + SELL]
            assert bid == 0 or ask == 0 or slots[bid + PRICE] < slots[ask + PRICE], "a book is never crossed"
        assert resting == self.resting
        assert resting <= self.order_capacity
