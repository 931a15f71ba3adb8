"""Strict decoding of a command from the four words of its shape (WIRE-5).

The tests stand in the order of specs/rejects.md; the first that fails is the reason (REJECT-0).  No conditional
expression chooses between two constants here: mypyc makes a Python integer of what is chosen, twenty instructions.
"""

from mypy_extensions import i64

from ferrox.fast.layout import (
    ACCOUNT_MAX,
    BAD_ACCOUNT,
    BAD_BAND,
    BAD_DISPLAY,
    BAD_FLAGS,
    BAD_INSTRUMENT,
    BAD_LIMIT,
    BAD_LOT,
    BAD_ORDER_ID,
    BAD_PRICE,
    BAD_QUANTITY,
    BAD_SCOPE,
    BAD_SIDE,
    BAD_STATE,
    BAD_TICK,
    BAD_TIME_IN_FORCE,
    BAD_VALUE,
    CANCEL_ORDER,
    CLOSED,
    DECREMENT,
    DEFINE_INSTRUMENT,
    FOK,
    GTC,
    HALF,
    INSTRUMENT_MAX,
    LIMIT_CANCEL_RATE,
    LIMIT_COLLAR,
    LIMIT_KILL,
    LIMIT_MAX_EXPOSURE,
    LIMIT_MAX_NOTIONAL,
    MALFORMED,
    MARKET,
    MASS_CANCEL,
    MODE_SHIFT,
    NEW_ORDER,
    POST_ONLY,
    PRICE_MAX,
    QUANTITY_MAX,
    REPLACE_ORDER,
    SCOPE_ACCOUNT,
    SCOPE_ACCOUNT_IN_INSTRUMENT,
    SCOPE_INSTRUMENT,
    SCOPE_VENUE,
    SET_LIMIT,
    SET_TRADING_STATE,
    SLIDE,
    UNKNOWN_FLAGS,
    UNKNOWN_KIND,
)


def fault(envelope: i64, head: i64, ident: i64, price: i64, sizes: i64) -> i64:
    """Return the smallest reason against a command, or 0; `envelope` is the record's word of kind and size."""
    kind = head & 0xFF
    named = envelope & 0xFFFF  # kind, and the size above it
    if kind == NEW_ORDER or kind == REPLACE_ORDER:
        if named != (32 << 8 | kind):
            return MALFORMED
        return order_fault(kind == NEW_ORDER, head, ident, price, sizes)
    if kind == CANCEL_ORDER:
        if named != (16 << 8 | CANCEL_ORDER) or (head >> 8) & 0xFFFFFF != 0 or price != 0 or sizes != 0:
            return MALFORMED
        instrument = (head >> 32) & HALF
        if instrument == 0 or instrument > INSTRUMENT_MAX:
            return BAD_INSTRUMENT
        if ident > 0:
            return 0
        return BAD_ORDER_ID
    return rare_fault(kind, named, head, ident, price, sizes)


def order_fault(is_new: bool, head: i64, order_id: i64, price: i64, sizes: i64) -> i64:
    """Judge a NewOrder or ReplaceOrder."""
    side = (head >> 8) & 0xFF
    time_in_force = (head >> 16) & 0xFF
    flags = (head >> 24) & 0xFF
    instrument = (head >> 32) & HALF
    if side != 1 and side != 2:
        return BAD_SIDE
    market = flags & MARKET
    if time_in_force != GTC:
        if not is_new or time_in_force == 0 or time_in_force > FOK:
            return BAD_TIME_IN_FORCE
    elif market != 0 and is_new:
        return BAD_TIME_IN_FORCE
    if flags != 0:
        if flags & UNKNOWN_FLAGS != 0 or (flags >> MODE_SHIFT) > DECREMENT:
            return BAD_FLAGS
        if market != 0 and not is_new:
            return BAD_FLAGS
        if flags & POST_ONLY != 0:
            if market != 0 or time_in_force != GTC:
                return BAD_FLAGS
        elif flags & SLIDE != 0:
            return BAD_FLAGS
    if instrument == 0 or instrument > INSTRUMENT_MAX:
        return BAD_INSTRUMENT
    if order_id <= 0:
        return BAD_ORDER_ID
    if price > PRICE_MAX or price < -PRICE_MAX or (market != 0 and price != 0):
        return BAD_PRICE
    quantity = sizes & HALF
    if quantity == 0 or quantity > QUANTITY_MAX:
        return BAD_QUANTITY
    if sizes == quantity:
        return 0
    return BAD_DISPLAY


def rare_fault(kind: i64, named: i64, head: i64, ident: i64, price: i64, sizes: i64) -> i64:
    """Judge a command that does not come by the million."""
    detail = (head >> 8) & 0xFF  # the scope, the trading state or the limit
    reserved = (head >> 16) & 0xFFFF
    instrument = (head >> 32) & HALF
    if kind == MASS_CANCEL:
        if named != (16 << 8 | MASS_CANCEL) or reserved != 0 or price != 0 or sizes != 0:
            return MALFORMED
        if detail == SCOPE_INSTRUMENT or detail == SCOPE_ACCOUNT_IN_INSTRUMENT:
            if instrument == 0 or instrument > INSTRUMENT_MAX:
                return BAD_INSTRUMENT
        elif detail == SCOPE_ACCOUNT or detail == SCOPE_VENUE:
            if instrument != 0:
                return BAD_INSTRUMENT
        else:
            return BAD_INSTRUMENT if instrument > INSTRUMENT_MAX else BAD_SCOPE
        if detail == SCOPE_ACCOUNT or detail == SCOPE_ACCOUNT_IN_INSTRUMENT:
            if 0 <= ident <= ACCOUNT_MAX:
                return 0
            return BAD_ACCOUNT
        if ident == 0:
            return 0
        return BAD_ACCOUNT
    if kind == DEFINE_INSTRUMENT:
        if named != (32 << 8 | DEFINE_INSTRUMENT) or reserved != 0:
            return MALFORMED
        if instrument == 0 or instrument > INSTRUMENT_MAX:
            return BAD_INSTRUMENT
        tick, lot = sizes & HALF, (sizes >> 32) & HALF
        if tick == 0 or tick > QUANTITY_MAX:
            return BAD_TICK
        if lot == 0 or lot > QUANTITY_MAX:
            return BAD_LOT
        if ident < -PRICE_MAX or ident > price or price > PRICE_MAX:
            return BAD_BAND
        if 1 <= detail <= CLOSED:
            return 0
        return BAD_STATE
    if kind == SET_TRADING_STATE:
        if named != (16 << 8 | SET_TRADING_STATE) or reserved != 0 or ident != 0 or price != 0 or sizes != 0:
            return MALFORMED
        if instrument == 0 or instrument > INSTRUMENT_MAX:
            return BAD_INSTRUMENT
        if 1 <= detail <= CLOSED:
            return 0
        return BAD_STATE
    if kind == SET_LIMIT:
        if named != (32 << 8 | SET_LIMIT) or reserved != 0 or sizes != 0:
            return MALFORMED
        return limit_fault(detail, instrument, ident, price)
    return UNKNOWN_KIND


def limit_fault(limit: i64, instrument: i64, account: i64, value: i64) -> i64:
    """Judge a SetLimit."""
    known = limit != 0 and limit <= LIMIT_CANCEL_RATE
    if instrument > INSTRUMENT_MAX:
        return BAD_INSTRUMENT
    if instrument != 0 and known and limit != LIMIT_KILL and limit != LIMIT_COLLAR:
        return BAD_INSTRUMENT
    if account < 0 or account > ACCOUNT_MAX:
        return BAD_ACCOUNT
    if account != 0 and (limit == LIMIT_COLLAR or (limit == LIMIT_KILL and instrument != 0)):
        return BAD_ACCOUNT
    if not known:
        return BAD_LIMIT
    bits: i64 = 31  # every range is 0 .. 2^bits-1, and a negative value is never 0 when shifted
    if limit == LIMIT_KILL:
        bits = 1
    elif limit == LIMIT_COLLAR:
        bits = 40
    elif limit == LIMIT_MAX_NOTIONAL or limit == LIMIT_MAX_EXPOSURE:
        bits = 62
    if value >> bits == 0:
        return 0
    return BAD_VALUE
