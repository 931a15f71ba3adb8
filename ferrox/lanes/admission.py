"""Admission: the commands in a client's bytes, each checked and made a record or refused (ENTRY-9 .. 13, RISK-1).

One loop reads packets until it meets one that is the gateway's (a login, a logout, anything wrong), or not all there.
Heartbeats and debug texts are passed over here: 64 KiB of them, one by one in the gateway, would keep everybody else
waiting for 50 ms.  The checks stand in the order of specs/risk.md.  A product of price and quantity is compared by
dividing the limit, so that nothing overflows.
"""

from typing import Final

from librt.strings import BytesWriter, read_i64_le, write_i16_be, write_i64_le
from mypy_extensions import i16, i64

from ferrox.fast.decode import fault
from ferrox.fast.layout import (
    ACCOUNT_SHIFT,
    CANCEL_ORDER,
    DEFINE_INSTRUMENT,
    HALF,
    MARKET,
    MASS_CANCEL,
    NEW_ORDER,
    REPLACE_ORDER,
    SCOPE_ACCOUNT,
    SCOPE_ACCOUNT_IN_INSTRUMENT,
    UNKNOWN_INSTRUMENT,
)
from ferrox.lanes.desk import (
    ACCOUNT,
    BATCH,
    BILLION,
    CANCEL_RATE,
    COLLAR,
    COUNT,
    DEFINED,
    DISK_LOW,
    EXPOSURE,
    EXPOSURE_BEYOND,
    FLIGHT,
    FLIGHT_FIRST,
    FLIGHT_NEXT,
    INSTRUMENT_KILLED,
    INSTRUMENT_ROW,
    KILLED,
    LAST_PRICE,
    MAX_EXPOSURE,
    MAX_NOTIONAL,
    MAX_OPEN,
    MAX_QUANTITY,
    MONEY_MAX,
    OPEN,
    OPERATOR,
    ORDER_RATE,
    PENDING,
    PENDING_EXPOSURE,
    REFERENCE,
    REFUSALS,
    ROLE,
    ROOM,
    ROW,
    SEEN,
    TAKEN,
    TRADED,
    VENUE_KILLED,
    Desk,
    enter,
)

BUSY: Final = 128
THROTTLED: Final = 129
DUPLICATE_REFERENCE: Final = 130
BAD_REFERENCE: Final = 131
NOT_PERMITTED: Final = 132
DISK_IS_LOW: Final = 133
IS_KILLED: Final = 134
ABOVE_QUANTITY: Final = 135
ABOVE_NOTIONAL: Final = 136
OUTSIDE_COLLAR: Final = 137
TOO_MANY_OPEN: Final = 138
ABOVE_EXPOSURE: Final = 139

LETTER_U: Final = 0x55
LETTER_R: Final = 0x52
LETTER_TEXT: Final = 0x2B
TEXT_MAX: Final = 128  # what the length of a packet may say (ENTRY-2)
SHORT: Final = 25  # what the length of a packet with a frame of 16 says
LONG: Final = 41
REFERENCE_MAX: Final = (1 << 40) - 1
SKIP_MAX: Final = 65_534
SESSIONS: Final = 65_535


def admit(desk: Desk, row: i64, writer: BytesWriter, data: bytes, start: i64, now_ns: i64) -> i64:
    """Take the commands that stand whole in a client's bytes from `start` on; return where they end.

    Records go to the desk's `out`, refusals to `writer`.  What stops it, before the end of what is whole, is a packet
    that is neither a command of a right size nor a heartbeat nor a debug text, or `out` being full.
    """
    size: i64 = len(data)
    at = start
    state = desk.state
    limit = state[ROOM]
    while size - at >= 2 + SHORT:
        first = read_i64_le(data, at)
        length = (first & 0xFF) << 8 | (first >> 8) & 0xFF
        letter = (first >> 16) & 0xFF
        if letter == LETTER_R and length == 1:
            at += 3
            continue
        if letter == LETTER_TEXT:
            after = pass_over(data, at)
            if after == at:
                break
            at = after
            continue
        if letter != LETTER_U or (length != SHORT and length != LONG):
            break
        if size - at < 2 + length or state[COUNT] >= BATCH:
            break
        reference = read_i64_le(data, at + 3)
        head = read_i64_le(data, at + 11)
        ident = read_i64_le(data, at + 19)
        price: i64 = 0
        sizes: i64 = 0
        if length == LONG:
            price = read_i64_le(data, at + 27)
            sizes = read_i64_le(data, at + 35)
        reason = judge(desk, row, limit, length - 9, reference, head, ident, price, sizes, now_ns)
        if reason != 0:
            refuse(writer, reference, head, reason)
            desk.accounts[row * ROW + REFUSALS] += 1
        at += 2 + length
    return at


def pass_over(data: bytes, start: i64) -> i64:
    """Return where the debug texts end that stand whole in some bytes from `start` on."""
    size: i64 = len(data)
    at = start
    while size - at >= 8:  # shorter ones at the very end are the gateway's
        first = read_i64_le(data, at)
        length = (first & 0xFF) << 8 | (first >> 8) & 0xFF
        if (first >> 16) & 0xFF != LETTER_TEXT or length == 0 or length > TEXT_MAX or size - at < 2 + length:
            break
        at += 2 + length
    return at


def refuse(writer: BytesWriter, reference: i64, head: i64, reason: i64) -> None:
    """Write the packet that says that a command was not taken (ENTRY-13)."""
    write_i16_be(writer, i16(17))
    writer.append(LETTER_U)
    write_i64_le(writer, reference)
    write_i64_le(writer, (head >> 32) & HALF | (head & 0xFF) << 32 | reason << 40)


def judge(
    desk: Desk,
    row: i64,
    limit: i64,
    size: i64,
    reference: i64,
    head: i64,
    ident: i64,
    price: i64,
    sizes: i64,
    now_ns: i64,
) -> i64:
    """Check one command, and enter it; or return the reason against it (RISK-1)."""
    state = desk.state
    accounts = desk.accounts
    base = row * ROW
    if state[COUNT] >= limit or state[FLIGHT_NEXT] - state[FLIGHT_FIRST] >= FLIGHT:
        if reference > accounts[base + SEEN] and reference <= REFERENCE_MAX:
            accounts[base + SEEN] = reference
        return BUSY
    if reference > REFERENCE_MAX or reference <= 0:
        return BAD_REFERENCE
    if reference <= accounts[base + SEEN]:
        return DUPLICATE_REFERENCE
    accounts[base + SEEN] = reference
    kind = head & 0xFF
    if kind == NEW_ORDER:
        if ident != reference:
            return BAD_REFERENCE
    elif reference > accounts[base + REFERENCE] + SKIP_MAX:
        return BAD_REFERENCE
    account = accounts[base + ACCOUNT]
    envelope = kind | size << 8
    if accounts[base + ROLE] == OPERATOR:
        if kind == NEW_ORDER or kind == CANCEL_ORDER or kind == REPLACE_ORDER:
            return NOT_PERMITTED
        reason = fault(envelope, head, ident, price, sizes)
        if reason != 0:
            return reason
        if kind == DEFINE_INSTRUMENT and state[DISK_LOW] != 0:
            return DISK_IS_LOW
        accounts[base + REFERENCE] = reference
        enter(desk, row, 0, 0, envelope, head, ident, price, sizes)
        accounts[base + TAKEN] += 1
        return 0
    named = envelope | (1 + reference % SESSIONS) << 16
    if kind == NEW_ORDER or kind == REPLACE_ORDER:
        ident = owned(account, ident)
        reason = fault(envelope, head, ident, price, sizes)
        if reason != 0:
            return reason
        amount = weigh(desk, base, kind == NEW_ORDER, head, price, sizes & HALF, now_ns)
        if amount < 0:
            return -amount
        accounts[base + REFERENCE] = reference
        if kind == NEW_ORDER:
            enter(desk, row, 1, amount, envelope, head, ident, price, sizes)
            accounts[base + PENDING] += 1
        else:
            enter(desk, row, 0, amount, named, head, ident, price, sizes)
        accounts[base + PENDING_EXPOSURE] += amount
    else:
        if kind == MASS_CANCEL:
            scope = (head >> 8) & 0xFF
            if (scope != SCOPE_ACCOUNT and scope != SCOPE_ACCOUNT_IN_INSTRUMENT) or ident != 0:
                return NOT_PERMITTED
            if scope == SCOPE_ACCOUNT_IN_INSTRUMENT and not is_defined(desk, (head >> 32) & HALF):
                ident = 0
                reason = fault(envelope, head, ident, price, sizes)
                if reason == 0:
                    reason = UNKNOWN_INSTRUMENT
                return reason
            ident = account
        elif kind == CANCEL_ORDER:
            ident = owned(account, ident)
        else:
            return NOT_PERMITTED
        reason = fault(envelope, head, ident, price, sizes)
        if reason != 0:
            return reason
        if not spend(desk, base + CANCEL_RATE, now_ns):
            return THROTTLED
        accounts[base + REFERENCE] = reference
        enter(desk, row, 0, 0, named, head, ident, price, sizes)
    accounts[base + TAKEN] += 1
    return 0


def is_defined(desk: Desk, instrument: i64) -> bool:
    """Say whether an instrument is defined, as far as reports told."""
    return instrument < desk.instrument_count and desk.instruments[instrument * INSTRUMENT_ROW + DEFINED] != 0


def owned(account: i64, reference: i64) -> i64:
    """Return the id of an account's order, or 0, which is nobody's, where this is no reference (ENTRY-10)."""
    if reference <= 0 or reference > REFERENCE_MAX:
        return 0
    return account << ACCOUNT_SHIFT | reference


def weigh(desk: Desk, base: i64, is_new: bool, head: i64, price: i64, quantity: i64, now_ns: i64) -> i64:
    """Return what an order adds to the exposure of its account, or the reason against it, below 0."""
    accounts = desk.accounts
    state = desk.state
    if state[DISK_LOW] != 0:
        return -DISK_IS_LOW
    instruments = desk.instruments
    place = (head >> 32) & HALF
    if place >= desk.instrument_count:
        place = 0
    place *= INSTRUMENT_ROW
    if state[VENUE_KILLED] != 0 or accounts[base + KILLED] != 0 or instruments[place + INSTRUMENT_KILLED] != 0:
        return -IS_KILLED
    if not spend(desk, base + ORDER_RATE, now_ns):
        return -THROTTLED
    most = accounts[base + MAX_QUANTITY]
    if most != 0 and quantity > most:
        return -ABOVE_QUANTITY
    market = (head >> 24) & MARKET
    if market != 0:
        price = instruments[place + LAST_PRICE]
    value = price
    if value < 0:
        value = -value
    most = accounts[base + MAX_NOTIONAL]
    if most == 0:
        most = MONEY_MAX
    if value != 0 and quantity > most // value:
        return -ABOVE_NOTIONAL
    collar = instruments[place + COLLAR]
    if collar != 0 and market == 0 and instruments[place + TRADED] != 0:
        apart = price - instruments[place + LAST_PRICE]
        if apart > collar or apart < -collar:
            return -OUTSIDE_COLLAR
    most = accounts[base + MAX_OPEN]
    if most != 0 and is_new and accounts[base + OPEN] + accounts[base + PENDING] >= most:
        return -TOO_MANY_OPEN
    amount = value * quantity
    most = accounts[base + MAX_EXPOSURE]
    if most == 0:
        most = MONEY_MAX
    held = accounts[base + EXPOSURE] + accounts[base + PENDING_EXPOSURE]
    if amount > most - held or accounts[base + EXPOSURE_BEYOND] != 0:
        return -ABOVE_EXPOSURE
    return amount


def spend(desk: Desk, place: i64, now_ns: i64) -> bool:
    """Take a token from the bucket whose rate stands here, credit and time behind it; say whether there was one."""
    accounts = desk.accounts
    rate = accounts[place]
    if rate == 0:
        return True
    passed = now_ns - accounts[place + 2]
    if passed < 0:  # the clock was set back: fill from there, or nothing would until it is where it was
        accounts[place + 2] = now_ns
    if passed > 0:
        if passed > BILLION:
            passed = BILLION
        credit = accounts[place + 1] + passed * rate
        if credit > rate * BILLION:
            credit = rate * BILLION
        accounts[place + 2] = now_ns
    else:
        credit = accounts[place + 1]
    if credit < BILLION:
        accounts[place + 1] = credit
        return False
    accounts[place + 1] = credit - BILLION
    return True
