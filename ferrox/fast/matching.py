"""What specs/matching.md says of orders, over the columns.

Each function that carries out a command returns the reason it did not, or 0, and has by then changed nothing.  Buy
and sell are written once: `sign` is 1 for a buyer and -1 for a seller, so that `(price - limit) * sign <= 0` is a price
good enough for either, and 3 - side is the other side.
"""

from librt.vecs import vec
from mypy_extensions import i32, i64

from ferrox.fast.index import bucket, find, insert, remove
from ferrox.fast.instruments import book_of
from ferrox.fast.ladder import drop, level_at, worse
from ferrox.fast.layout import (
    ACCOUNT_SHIFT,
    AGGRESSOR,
    ALLOW,
    BEST,
    BUY,
    CANCEL_BOTH,
    CANCEL_MAKER,
    CANCEL_TAKER,
    CANCELED,
    DUPLICATE_ORDER_ID,
    EXPIRED,
    FIRST_BOOK,
    FOK,
    GTC,
    HALF,
    HEAD,
    HIGH,
    INSTRUMENT,
    KEY,
    LINKS,
    LOT,
    LOW,
    MARKET,
    MASS_CANCEL_REASON,
    MASS_CANCELED,
    MODE_SHIFT,
    NEW,
    NEXT,
    NOT_OPEN,
    OFF_LOT,
    OFF_TICK,
    OPEN,
    ORDER_CAPACITY,
    ORDERS,
    ORDERS_FULL,
    OUTSIDE_BAND,
    OWNER,
    POST_ONLY,
    PRE_OPEN,
    PRICE,
    PRICE_MAX,
    PRIORITY_KEPT,
    REPLACED,
    RESTING,
    SCOPE_ACCOUNT,
    SCOPE_ACCOUNT_IN_INSTRUMENT,
    SELF_TRADE,
    SELL,
    SIDE_MISMATCH,
    SIZES,
    SLID,
    SLIDE,
    STATE,
    TICK,
    TOTAL_FILLED,
    TRADE,
    UNKNOWN_INSTRUMENT,
    UNKNOWN_ORDER,
    WOULD_CROSS,
)
from ferrox.fast.pool import give, take
from ferrox.fast.queue import append, unlink
from ferrox.fast.reports import report, tail_of


def new(
    slots: vec[i64],
    heads: vec[i32],
    out: vec[i64],
    head: i64,
    instrument: i64,
    order_id: i64,
    price: i64,
    quantity: i64,
) -> i64:
    """Match an order, then let what is left rest or expire (NEW-1 .. NEW-3)."""
    side = (head >> 8) & 0xFF
    time_in_force = (head >> 16) & 0xFF
    flags = (head >> 24) & 0xFF
    book = book_of(slots, heads, instrument)
    if book == 0:
        return UNKNOWN_INSTRUMENT
    state = slots[book + STATE]
    if state != OPEN and (state != PRE_OPEN or time_in_force != GTC):
        return NOT_OPEN
    place = bucket(slots, 0, order_id)
    if find(slots, heads, place, order_id) != 0:
        return DUPLICATE_ORDER_ID
    reason = off_grid(slots, book, price, quantity, flags)
    if reason != 0:
        return reason
    if time_in_force == GTC and slots[RESTING] >= slots[ORDER_CAPACITY]:
        return ORDERS_FULL
    slid: i64 = 0
    best = slots[book + BEST + 3 - side]
    if best == 0:  # nothing to meet
        pass
    elif (flags & POST_ONLY) != 0 or state != OPEN:
        entry = behind(slots, book, side, price, flags)
        if entry > PRICE_MAX:
            return WOULD_CROSS
        if entry != price:
            price, slid, best = entry, SLID, 0

    report(slots, out, order_id, 0, price, quantity | quantity << 32, tail_of(instrument, NEW, side, 0, slid))
    sizes = quantity
    if best != 0:
        sign = 3 - 2 * side  # a buyer's limit is met from below, a seller's from above
        limit = sign * 2 * PRICE_MAX if flags & MARKET != 0 else price
        if (slots[best + PRICE] - limit) * sign <= 0:
            mode = flags >> MODE_SHIFT
            if time_in_force != FOK or fillable(slots, book, side, order_id, limit, quantity, mode):
                sizes = match(slots, heads, out, book, side, order_id, price, limit, quantity, mode)
    leaves = sizes & HALF
    if leaves != 0:
        if time_in_force == GTC:
            rest(slots, heads, book, side, place, order_id, price, sizes)
        else:
            report(slots, out, order_id, 0, price, leaves, tail_of(instrument, EXPIRED, side, 0, 0))
    return 0


def cancel(slots: vec[i64], heads: vec[i32], out: vec[i64], instrument: i64, order_id: i64) -> i64:
    """Take a resting order out (CANCEL-1, CANCEL-2)."""
    if book_of(slots, heads, instrument) == 0:
        return UNKNOWN_INSTRUMENT
    order = find(slots, heads, bucket(slots, 0, order_id), order_id)
    if order == 0 or slots[order + OWNER] & HALF != instrument:
        return UNKNOWN_ORDER
    cancel_resting(slots, heads, out, order, 0)
    return 0


def replace(
    slots: vec[i64], heads: vec[i32], out: vec[i64], head: i64, instrument: i64, order_id: i64, price: i64, total: i64
) -> i64:
    """Change a resting order's price and total (RPL-1 .. RPL-7)."""
    side = (head >> 8) & 0xFF
    flags = (head >> 24) & 0xFF
    book = book_of(slots, heads, instrument)
    if book == 0:
        return UNKNOWN_INSTRUMENT
    state = slots[book + STATE]
    if state != OPEN and state != PRE_OPEN:
        return NOT_OPEN
    order = find(slots, heads, bucket(slots, 0, order_id), order_id)
    if order == 0 or slots[order + OWNER] & HALF != instrument:
        return UNKNOWN_ORDER
    if slots[order + OWNER] >> 32 != side:
        return SIDE_MISMATCH
    reason = off_grid(slots, book, price, total, flags)
    if reason != 0:
        return reason
    filled = slots[order + SIZES] >> 32
    leaves = total - filled
    if leaves <= 0:
        cancel_resting(slots, heads, out, order, TOTAL_FILLED)
        return 0
    if price == slots[order + PRICE] and leaves <= slots[order + SIZES] & HALF:
        slots[order + SIZES] = leaves | filled << 32
        tail = tail_of(instrument, REPLACED, side, 0, PRIORITY_KEPT)
        report(slots, out, order_id, 0, price, total | leaves << 32, tail)
        return 0
    slid: i64 = 0
    if (flags & POST_ONLY) != 0 or state != OPEN:
        entry = behind(slots, book, side, price, flags)
        if entry > PRICE_MAX:
            return WOULD_CROSS
        if entry != price:
            price, slid = entry, SLID

    place = slots[order + HEAD]
    take_out(slots, heads, order)
    report(slots, out, order_id, 0, price, total | leaves << 32, tail_of(instrument, REPLACED, side, 0, slid))
    sizes = match(slots, heads, out, book, side, order_id, price, price, leaves | filled << 32, flags >> MODE_SHIFT)
    if sizes & HALF != 0:
        rest(slots, heads, book, side, place, order_id, price, sizes)
    return 0


def mass_cancel(slots: vec[i64], heads: vec[i32], out: vec[i64], scope: i64, instrument: i64, account: i64) -> i64:
    """Take out every resting order in a scope, in canonical order (MASS-1 .. MASS-3)."""
    if instrument != 0 and book_of(slots, heads, instrument) == 0:
        return UNKNOWN_INSTRUMENT
    account_asked: i64 = account if scope == SCOPE_ACCOUNT or scope == SCOPE_ACCOUNT_IN_INSTRUMENT else -1
    before = slots[RESTING]
    if instrument != 0:
        clear_book(slots, heads, out, book_of(slots, heads, instrument), account_asked)
    else:
        book = slots[FIRST_BOOK]
        while book != 0:
            clear_book(slots, heads, out, book, account_asked)
            book = slots[book + NEXT]
    tail = tail_of(instrument, MASS_CANCELED, scope, 0, 0)
    report(slots, out, account << ACCOUNT_SHIFT, 0, 0, before - slots[RESTING], tail)
    return 0


# ------------------------------------------------------------------------------------------------------- their parts


def off_grid(slots: vec[i64], book: i64, price: i64, quantity: i64, flags: i64) -> i64:
    """Return why a price or quantity does not fit the instrument, or 0 (INSTR-3)."""
    tick, lot = slots[book + TICK], slots[book + LOT]
    if tick != 1 and price % tick != 0:
        return OFF_TICK
    if lot != 1 and quantity % lot != 0:
        return OFF_LOT
    if (price < slots[book + LOW] or price > slots[book + HIGH]) and flags & MARKET == 0:
        return OUTSIDE_BAND
    return 0


def behind(slots: vec[i64], book: i64, side: i64, price: i64, flags: i64) -> i64:
    """Return the price that an order which may not trade enters at, or more than any price (POST-1 .. POST-3)."""
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


def match(
    slots: vec[i64],
    heads: vec[i32],
    out: vec[i64],
    book: i64,
    side: i64,
    taker_id: i64,
    price: i64,
    limit: i64,
    sizes: i64,
    mode: i64,
) -> i64:
    """Trade with the best maker while there is one within the limit; return the taker's sizes after.

    A run of makers that are filled leaves its level in one cut, and goes to the free slots as it is linked.
    """
    maker_side = 3 - side
    sign = 3 - 2 * side
    instrument = slots[book + INSTRUMENT]
    tail = tail_of(instrument, TRADE, side, 0, AGGRESSOR)
    leaves, filled = sizes & HALF, sizes >> 32
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
                report(slots, out, taker_id, maker_id, at, traded, tail)
                break
            leaves -= traded
            filled += traded
            report(slots, out, taker_id, maker_id, at, traded | leaves << 32, tail)
            remove(slots, heads, maker)
            gone += 1
            last = maker
            maker = slots[maker + LINKS] >> 32
        if gone != 0:
            slots[RESTING] -= gone
            slots[last + LINKS] = slots[ORDERS] << 32
            slots[ORDERS] = oldest
            if maker == level:
                drop(slots, heads, maker_side, level)
            else:
                slots[level + LINKS] = (links & HALF) | maker << 32
                slots[maker + LINKS] = level | (slots[maker + LINKS] >> 32) << 32
        if own:
            leaves = prevent_self_trade(slots, heads, out, side, taker_id, price, leaves, maker, mode)
    return leaves | filled << 32


def prevent_self_trade(
    slots: vec[i64],
    heads: vec[i32],
    out: vec[i64],
    side: i64,
    taker_id: i64,
    price: i64,
    leaves: i64,
    maker: i64,
    mode: i64,
) -> i64:
    """Do what the taker's mode says when it meets its own order; return the taker's leaves (STP-3 .. STP-7)."""
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
        report(slots, out, maker_id, taker_id, slots[maker + PRICE], from_maker | remaining << 32, tail)
        if remaining == 0:
            take_out(slots, heads, maker)
        else:
            slots[maker + SIZES] = maker_sizes - from_maker
    if from_taker != 0:
        leaves -= from_taker
        tail = tail_of(instrument, CANCELED, side, SELF_TRADE, 0)
        report(slots, out, taker_id, maker_id, price, from_taker | leaves << 32, tail)
    return leaves


def fillable(slots: vec[i64], book: i64, side: i64, taker_id: i64, limit: i64, quantity: i64, mode: i64) -> bool:
    """Say whether a FOK order would trade its whole quantity at once; change nothing (TIF-3, TIF-4)."""
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


def rest(
    slots: vec[i64], heads: vec[i32], book: i64, side: i64, place: i64, order_id: i64, price: i64, sizes: i64
) -> None:
    """Let an order rest at the back of its queue (MATCH-5); `place` is that of its id's head."""
    level = level_at(slots, heads, book, side, price)
    order = take(slots, ORDERS)
    slots[order + KEY] = order_id
    slots[order + PRICE] = price
    slots[order + SIZES] = sizes
    slots[order + OWNER] = slots[book + INSTRUMENT] | side << 32
    append(slots, level, order)
    insert(slots, heads, place, order)
    slots[RESTING] += 1


def take_out(slots: vec[i64], heads: vec[i32], order: i64) -> None:
    """Take a resting order out of its queue, its level if that is empty then, and the index."""
    level = unlink(slots, order)
    if level != 0:
        drop(slots, heads, slots[order + OWNER] >> 32, level)
    remove(slots, heads, order)
    give(slots, ORDERS, order)
    slots[RESTING] -= 1


def cancel_resting(slots: vec[i64], heads: vec[i32], out: vec[i64], order: i64, reason: i64) -> None:
    """Take a resting order out and report what it still had (CANCEL-1, REPORT-5)."""
    owner = slots[order + OWNER]
    tail = tail_of(owner & HALF, CANCELED, owner >> 32, reason, 0)
    report(slots, out, slots[order + KEY], 0, slots[order + PRICE], slots[order + SIZES] & HALF, tail)
    take_out(slots, heads, order)


def clear_book(slots: vec[i64], heads: vec[i32], out: vec[i64], book: i64, account: i64) -> None:
    """Cancel every order of a book, or those of one account if that is not negative, in canonical order."""
    for side in (BUY, SELL):
        level = slots[book + BEST + side]
        while level != 0:
            next_level = worse(slots, side, level)
            order = slots[level + LINKS] >> 32
            while order != level:
                following = slots[order + LINKS] >> 32
                if account < 0 or slots[order + KEY] >> ACCOUNT_SHIFT == account:
                    cancel_resting(slots, heads, out, order, MASS_CANCEL_REASON)
                order = following
            level = next_level
