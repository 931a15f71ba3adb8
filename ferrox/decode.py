"""Strict decoding: whether a command may be what it says, judged from its frame alone (WIRE-5).

Only the fields are looked at, never a book, so a gateway finds the same fault before the ring that an engine finds
after it.  The tests stand in the order of specs/rejects.md, and the first that fails is the smallest reason, which is
what REJECT-0 asks for.  All commands share one shape (see `ferrox.messages`), so one function reads them all; each
kind then names the fields by its own words.
"""

from typing import Final

from ferrox.messages import COMMAND, FRAME_SIZE
from ferrox.terms import (
    ACCOUNT_MAX,
    COUNT_MAX,
    INSTRUMENT_MAX,
    LOT_MAX,
    NOTIONAL_MAX,
    ORDER_FLAGS,
    PRICE_MAX,
    QUANTITY_MAX,
    SELF_TRADE_MASK,
    SELF_TRADE_SHIFT,
    TICK_MAX,
    CommandKind,
    Limit,
    OrderFlag,
    Reason,
    Scope,
    SelfTrade,
    TimeInForce,
    TradingState,
)

# Plain integers: a member of an enum costs a look-up on every command.
NEW_ORDER, CANCEL_ORDER, REPLACE_ORDER, MASS_CANCEL, DEFINE_INSTRUMENT = map(int, list(CommandKind)[:5])
SET_TRADING_STATE, SET_LIMIT = map(int, list(CommandKind)[5:])
GTC, IOC, FOK = map(int, TimeInForce)
MARKET, POST_ONLY, SLIDE = map(int, OrderFlag)
SELF_TRADE_MAX: Final = int(max(SelfTrade)) << SELF_TRADE_SHIFT
STATE_MAX: Final = int(max(TradingState))
SIZES: Final = {int(kind): size for kind, size in FRAME_SIZE.items()}

# What each scope of a mass cancel names: (instrument, account).
SCOPE_NAMES: Final = {
    int(Scope.INSTRUMENT): (True, False),
    int(Scope.ACCOUNT): (False, True),
    int(Scope.ACCOUNT_IN_INSTRUMENT): (True, True),
    int(Scope.VENUE): (False, False),
}

# What each limit is for, an instrument or an account, neither needed and never both; and its greatest value.
LIMIT_TAKES: Final = {
    int(Limit.KILL): (True, True, 1),
    int(Limit.MAX_QUANTITY): (False, True, QUANTITY_MAX),
    int(Limit.MAX_NOTIONAL): (False, True, NOTIONAL_MAX),
    int(Limit.COLLAR): (True, False, PRICE_MAX),
    int(Limit.MAX_OPEN_ORDERS): (False, True, COUNT_MAX),
    int(Limit.MAX_EXPOSURE): (False, True, NOTIONAL_MAX),
    int(Limit.ORDER_RATE): (False, True, COUNT_MAX),
    int(Limit.CANCEL_RATE): (False, True, COUNT_MAX),
}


def fault(
    kind: int, a: int, b: int, c: int, instrument: int, ident: int, price: int, quantity: int, display: int
) -> int:
    """Return the smallest `Reason` against a command in the common shape, or 0 when its fields are in order."""
    if kind in (NEW_ORDER, REPLACE_ORDER):
        return _order_fault(kind == NEW_ORDER, a, b, c, instrument, ident, price, quantity, display)
    if kind == CANCEL_ORDER:
        if a or b or c or price or quantity or display:
            return Reason.MALFORMED
        if not 1 <= instrument <= INSTRUMENT_MAX:
            return Reason.BAD_INSTRUMENT
        return 0 if ident > 0 else Reason.BAD_ORDER_ID
    if kind == MASS_CANCEL:
        if b or c or price or quantity or display:
            return Reason.MALFORMED
        return _mass_cancel_fault(a, instrument, ident)
    if kind == DEFINE_INSTRUMENT:
        if b or c:
            return Reason.MALFORMED
        return _definition_fault(a, instrument, ident, price, quantity, display)
    if kind == SET_TRADING_STATE:
        if b or c or ident or price or quantity or display:
            return Reason.MALFORMED
        if not 1 <= instrument <= INSTRUMENT_MAX:
            return Reason.BAD_INSTRUMENT
        return 0 if 1 <= a <= STATE_MAX else Reason.BAD_STATE
    if kind == SET_LIMIT:
        if b or c or quantity or display:
            return Reason.MALFORMED
        return _limit_fault(a, instrument, ident, price)
    return Reason.UNKNOWN_KIND


def _order_fault(
    is_new: bool,
    side: int,
    time_in_force: int,
    flags: int,
    instrument: int,
    order_id: int,
    price: int,
    quantity: int,
    display: int,
) -> int:
    """Judge a NewOrder or ReplaceOrder; no byte of theirs is reserved, so none is malformed here."""
    if not 1 <= side <= 2:
        return Reason.BAD_SIDE
    market = flags & MARKET
    if time_in_force != GTC:
        if not (is_new and IOC <= time_in_force <= FOK):
            return Reason.BAD_TIME_IN_FORCE
    elif market and is_new:
        return Reason.BAD_TIME_IN_FORCE
    if flags:
        if flags & ~(ORDER_FLAGS | SELF_TRADE_MASK) or flags & SELF_TRADE_MASK > SELF_TRADE_MAX:
            return Reason.BAD_FLAGS
        if market and not is_new:
            return Reason.BAD_FLAGS
        if flags & POST_ONLY:
            if market or time_in_force != GTC:
                return Reason.BAD_FLAGS
        elif flags & SLIDE:
            return Reason.BAD_FLAGS
    if not 1 <= instrument <= INSTRUMENT_MAX:
        return Reason.BAD_INSTRUMENT
    if order_id <= 0:
        return Reason.BAD_ORDER_ID
    if not -PRICE_MAX <= price <= PRICE_MAX or (market and price):
        return Reason.BAD_PRICE
    if not 1 <= quantity <= QUANTITY_MAX:
        return Reason.BAD_QUANTITY
    return Reason.BAD_DISPLAY if display else 0


def _mass_cancel_fault(scope: int, instrument: int, account: int) -> int:
    """Judge a MassCancel; of an unknown scope only what holds for every scope is asked of the other fields."""
    names = SCOPE_NAMES.get(scope)
    if names is None:
        if instrument > INSTRUMENT_MAX:
            return Reason.BAD_INSTRUMENT
        return Reason.BAD_SCOPE
    names_instrument, names_account = names
    if not (1 <= instrument <= INSTRUMENT_MAX if names_instrument else instrument == 0):
        return Reason.BAD_INSTRUMENT
    if not (0 <= account <= ACCOUNT_MAX if names_account else account == 0):
        return Reason.BAD_ACCOUNT
    return 0


def _definition_fault(state: int, instrument: int, low: int, high: int, tick: int, lot: int) -> int:
    """Judge a DefineInstrument."""
    if not 1 <= instrument <= INSTRUMENT_MAX:
        return Reason.BAD_INSTRUMENT
    if not 1 <= tick <= TICK_MAX:
        return Reason.BAD_TICK
    if not 1 <= lot <= LOT_MAX:
        return Reason.BAD_LOT
    if not (-PRICE_MAX <= low <= high <= PRICE_MAX):
        return Reason.BAD_BAND
    return 0 if 1 <= state <= STATE_MAX else Reason.BAD_STATE


def _limit_fault(limit: int, instrument: int, account: int, value: int) -> int:
    """Judge a SetLimit; of an unknown limit only what holds for every limit is asked of the other fields."""
    takes = LIMIT_TAKES.get(limit)
    for_instrument, for_account, value_max = takes or (True, True, 0)
    if not 0 <= instrument <= (INSTRUMENT_MAX if for_instrument else 0):
        return Reason.BAD_INSTRUMENT
    if not 0 <= account <= ACCOUNT_MAX or (account and not for_account):
        return Reason.BAD_ACCOUNT
    if takes is None:
        return Reason.BAD_LIMIT
    if account and instrument:
        return Reason.BAD_ACCOUNT
    return 0 if 0 <= value <= value_max else Reason.BAD_VALUE


def frame_fault(frame: bytes) -> int:
    """Return the smallest `Reason` against one frame of any length, or 0 when it is a command in order."""
    kind = frame[0] if frame else 0
    if kind not in SIZES:
        return Reason.UNKNOWN_KIND
    if len(frame) != SIZES[kind]:
        return Reason.MALFORMED
    return fault(*COMMAND.unpack(frame.ljust(COMMAND.size, b"\0")))
