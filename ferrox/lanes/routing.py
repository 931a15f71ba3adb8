"""Routing: each report to the accounts that it is for, and into what the desk knows of them (ENTRY-7, RISK-3).

A taker is held in flight until the last report of its command, and only then rests with what it has left: only then is
it known that it neither traded, nor expired, nor was canceled.  So open orders and exposure are right behind every
command, and are never asked for in between.
"""

from typing import Final

from librt.strings import BytesWriter, read_i64_le, write_i16_be, write_i64_le
from mypy_extensions import i16, i64

from ferrox.fast.index import bucket, find, insert, remove
from ferrox.fast.layout import (
    ACCOUNT_SHIFT,
    CANCELED,
    EXPIRED,
    HALF,
    INSTRUMENT_DEFINED,
    KEY,
    MASS_CANCELED,
    NEW,
    ORDERS,
    OWNER,
    PRICE,
    REJECTED,
    REPLACED,
    SIZES,
    TRADE,
)
from ferrox.fast.pool import give, take
from ferrox.lanes.desk import (
    CONNECTION,
    DEFINED,
    EXPOSURE,
    EXPOSURE_BEYOND,
    INSTRUMENT_ROW,
    LAST_PRICE,
    MONEY_MAX,
    NUMBER,
    OPEN,
    RESTING,
    ROW,
    TAKER_ID,
    TAKER_LEAVES,
    TAKER_PRICE,
    TAKER_ROW,
    TRADED,
    Desk,
    land,
    touch,
)

REPORT_SIZE: Final = 48
SEQUENCED_LENGTH: Final = 57
LETTER_S: Final = 0x53
VALUE_BITS: Final = 31
VALUE_MASK: Final = (1 << VALUE_BITS) - 1
OPERATOR_ROW: Final = 1
"""The operator's row: account 0 is the first that a desk is given."""


def route(desk: Desk, reports: bytes) -> None:
    """Route the next whole reports: `NUMBER` of the state is that of the one before them."""
    size: i64 = len(reports)
    state = desk.state
    accounts = desk.accounts
    number = state[NUMBER]
    at: i64 = 0
    while at < size:
        number += 1
        order_id = read_i64_le(reports, at + 8)
        contra_id = read_i64_le(reports, at + 16)
        tail = read_i64_le(reports, at + 40)
        kind = (tail >> 32) & 0xFF
        row = row_of(desk, order_id)
        note(desk, kind, row, order_id, contra_id, reports, at, tail)
        if row != 0:
            connection = accounts[row * ROW + CONNECTION]
            if connection != 0:
                deliver(desk, connection, number, reports, at)
        if kind == TRADE:
            other = row_of(desk, contra_id)
            if other != 0 and other != row:
                connection = accounts[other * ROW + CONNECTION]
                if connection != 0:
                    deliver(desk, connection, number, reports, at)
        elif kind >= MASS_CANCELED or (kind == REJECTED and order_id == 0):
            connection = accounts[OPERATOR_ROW * ROW + CONNECTION]
            if connection != 0:
                deliver(desk, connection, number, reports, at)
        if tail < 0:  # LAST
            if state[TAKER_ID] != 0:
                rest(desk)
            land(desk)
        at += REPORT_SIZE
    state[NUMBER] = number


def collect(desk: Desk, row: i64, first: i64, reports: bytes, writer: BytesWriter) -> None:
    """Write those of some reports, the first of which has this number, that are for one account (ENTRY-8)."""
    size: i64 = len(reports)
    number = first
    at: i64 = 0
    while at < size:
        order_id = read_i64_le(reports, at + 8)
        kind = (read_i64_le(reports, at + 40) >> 32) & 0xFF
        mine = row_of(desk, order_id) == row
        if not mine:
            if kind == TRADE:
                mine = row_of(desk, read_i64_le(reports, at + 16)) == row
            elif row == OPERATOR_ROW:
                mine = kind >= MASS_CANCELED or (kind == REJECTED and order_id == 0)
        if mine:
            sequenced(writer, number, reports, at)
        number += 1
        at += REPORT_SIZE


def row_of(desk: Desk, order_id: i64) -> i64:
    """Return the row of the account of an order id, 0 where it has none; an operator's has no orders (ENTRY-12)."""
    account = order_id >> ACCOUNT_SHIFT
    if account > desk.account_max or account <= 0:
        return 0
    return i64(desk.rows[account])


def deliver(desk: Desk, connection: i64, number: i64, reports: bytes, at: i64) -> None:
    """Write a report to a connection."""
    sequenced(desk.writers[connection], number, reports, at)
    touch(desk, connection)


def sequenced(writer: BytesWriter, number: i64, reports: bytes, at: i64) -> None:
    """Write a packet of the sequenced stream."""
    write_i16_be(writer, i16(SEQUENCED_LENGTH))
    writer.append(LETTER_S)
    write_i64_le(writer, number)
    write_i64_le(writer, read_i64_le(reports, at))
    write_i64_le(writer, read_i64_le(reports, at + 8))
    write_i64_le(writer, read_i64_le(reports, at + 16))
    write_i64_le(writer, read_i64_le(reports, at + 24))
    write_i64_le(writer, read_i64_le(reports, at + 32))
    write_i64_le(writer, read_i64_le(reports, at + 40))


# ------------------------------------------------------------------------------------------------- what the desk learns


def note(desk: Desk, kind: i64, row: i64, order_id: i64, contra_id: i64, reports: bytes, at: i64, tail: i64) -> None:
    """Learn from one report."""
    state = desk.state
    price = read_i64_le(reports, at + 24)
    sizes = read_i64_le(reports, at + 32)
    quantity = sizes & HALF
    leaves = (sizes >> 32) & HALF
    if kind == NEW:
        if row != 0:
            state[TAKER_ID] = order_id
            state[TAKER_PRICE] = price
            state[TAKER_LEAVES] = leaves
            state[TAKER_ROW] = row
    elif kind == TRADE:
        if state[TAKER_ID] == order_id:
            state[TAKER_LEAVES] = leaves
        reduce(desk, contra_id, quantity)
        instrument = tail & HALF
        if instrument >= desk.instrument_count:
            desk.reach(instrument)
        place = instrument * INSTRUMENT_ROW
        desk.instruments[place + LAST_PRICE] = price
        desk.instruments[place + TRADED] = 1
    elif kind == CANCELED or kind == EXPIRED:
        if state[TAKER_ID] == order_id:
            state[TAKER_LEAVES] = leaves
        else:
            reduce(desk, order_id, quantity)
    elif kind == INSTRUMENT_DEFINED:
        instrument = tail & HALF
        desk.reach(instrument)
        desk.instruments[instrument * INSTRUMENT_ROW + DEFINED] = 1
    elif kind == REPLACED and row != 0:
        slot = find_order(desk, order_id)
        if slot != 0:
            reduce(desk, order_id, desk.slots[slot + SIZES])
        state[TAKER_ID] = order_id
        state[TAKER_PRICE] = price
        state[TAKER_LEAVES] = leaves
        state[TAKER_ROW] = row


def find_order(desk: Desk, order_id: i64) -> i64:
    """Return the slot of a resting order, or 0."""
    slots = desk.slots
    return find(slots, desk.heads, bucket(slots, 0, order_id), order_id)


def rest(desk: Desk) -> None:
    """Let the order of the command at hand rest with what it has left."""
    state = desk.state
    order_id = state[TAKER_ID]
    leaves = state[TAKER_LEAVES]
    state[TAKER_ID] = 0
    if leaves != 0:
        rest_order(desk, state[TAKER_ROW], order_id, state[TAKER_PRICE], leaves)


def rest_order(desk: Desk, row: i64, order_id: i64, price: i64, leaves: i64) -> None:
    """Enter a resting order of an account's row into the table."""
    slots = desk.slots
    slot = take(slots, ORDERS)
    slots[slot + KEY] = order_id
    slots[slot + PRICE] = price
    slots[slot + OWNER] = row
    slots[slot + SIZES] = leaves
    insert(slots, desk.heads, bucket(slots, 0, order_id), slot)
    desk.state[RESTING] += 1
    base = row * ROW
    desk.accounts[base + OPEN] += 1
    expose(desk, base, price, leaves)


def reduce(desk: Desk, order_id: i64, quantity: i64) -> None:
    """Take a quantity off a resting order, which leaves the table with its last lot; others' orders are not there."""
    slot = find_order(desk, order_id)
    if slot == 0:
        return
    slots = desk.slots
    base = slots[slot + OWNER] * ROW
    relieve(desk, base, slots[slot + PRICE], quantity)
    left = slots[slot + SIZES] - quantity
    slots[slot + SIZES] = left
    if left == 0:
        desk.accounts[base + OPEN] -= 1
        desk.state[RESTING] -= 1
        remove(slots, desk.heads, slot)
        give(slots, ORDERS, slot)


def expose(desk: Desk, base: i64, price: i64, leaves: i64) -> None:
    """Add the value of lots to an account's exposure.

    A price of 40 bits times lots of 31 is more than a word holds, so the price is taken in two parts.
    """
    value = value_of(price)
    gain(desk, base, (value & VALUE_MASK) * leaves)
    if value > VALUE_MASK:
        upper = (value >> VALUE_BITS) * leaves
        desk.accounts[base + EXPOSURE_BEYOND] += upper >> VALUE_BITS
        gain(desk, base, (upper & VALUE_MASK) << VALUE_BITS)


def gain(desk: Desk, base: i64, amount: i64) -> None:
    """Add less than 2^62 to an account's exposure."""
    accounts = desk.accounts
    exposure = accounts[base + EXPOSURE] + amount
    if exposure > MONEY_MAX:
        exposure = exposure - MONEY_MAX - 1
        accounts[base + EXPOSURE_BEYOND] += 1
    accounts[base + EXPOSURE] = exposure


def relieve(desk: Desk, base: i64, price: i64, quantity: i64) -> None:
    """Take the value of lots off an account's exposure."""
    value = value_of(price)
    lose(desk, base, (value & VALUE_MASK) * quantity)
    if value > VALUE_MASK:
        upper = (value >> VALUE_BITS) * quantity
        desk.accounts[base + EXPOSURE_BEYOND] -= upper >> VALUE_BITS
        lose(desk, base, (upper & VALUE_MASK) << VALUE_BITS)


def lose(desk: Desk, base: i64, amount: i64) -> None:
    """Take less than 2^62 off an account's exposure."""
    accounts = desk.accounts
    exposure = accounts[base + EXPOSURE] - amount
    if exposure < 0:
        exposure = exposure + MONEY_MAX + 1
        accounts[base + EXPOSURE_BEYOND] -= 1
    accounts[base + EXPOSURE] = exposure


def value_of(price: i64) -> i64:
    """Return a price without its sign."""
    if price < 0:
        return -price
    return price


def load_orders(desk: Desk, orders: bytes) -> None:
    """Enter the resting orders of a state, 32 bytes each (SNAPSHOT_ORDER)."""
    size: i64 = len(orders)
    at: i64 = 0
    while at < size:
        order_id = read_i64_le(orders, at)
        row = row_of(desk, order_id)
        if row != 0:
            rest_order(desk, row, order_id, read_i64_le(orders, at + 8), read_i64_le(orders, at + 16) & HALF)
        at += 32
