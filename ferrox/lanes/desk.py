"""The desk: all that the gateway knows about accounts, instruments and orders, in columns that are made once.

Everything here follows from the journal: what an account has open from the reports, its last reference and its limits
from the records.  So a gateway that dies leaves nothing behind that is missed (`ferrox.service.gateway` rebuilds it).

    accounts     a row for each account that may log in; row 0 is nobody's
    instruments  a row for each instrument, by its number; row 0 stands for those beyond the table
    orders       a slot for each resting order of these accounts, found by its id as in the fast engine
    flight       what was pushed into the ring and is not answered yet, oldest first: row and kind, reserved
                 amount, time, reference

The table of orders is laid out as the engine's is, and found with the same functions (`ferrox.fast.index`): a slot is
known by the place of its first word.
"""

import os
from typing import Final

from librt.strings import BytesWriter
from librt.vecs import vec
from mypy_extensions import i32, i64

from ferrox.fast.columns import zeros
from ferrox.fast.layout import CONTROL, FRESH, LINE_MASK, LINE_SHIFT, MULTIPLIER, ORDERS, SLOT
from ferrox.lanes.latency import WORDS as LATENCY_WORDS
from ferrox.lanes.latency import note

# ------------------------------------------------------------------------------------------------------- words of a row
ACCOUNT: Final = 0
REFERENCE: Final = 1  # the last one taken (ENTRY-9)
SEEN: Final = 2  # the last one used on this connection (ENTRY-14)
ROLE: Final = 3
KILLED: Final = 4
OPEN: Final = 5  # orders that rest
EXPOSURE: Final = 6  # of them, modulo 2^62
PENDING: Final = 7  # new orders on their way
PENDING_EXPOSURE: Final = 8  # of all orders on their way
MAX_QUANTITY: Final = 9
MAX_NOTIONAL: Final = 10
MAX_OPEN: Final = 11
MAX_EXPOSURE: Final = 12
ORDER_RATE: Final = 13
ORDER_CREDIT: Final = 14  # tokens, in billionths
ORDER_TIME: Final = 15
CANCEL_RATE: Final = 16
CANCEL_CREDIT: Final = 17
CANCEL_TIME: Final = 18
CONNECTION: Final = 19  # the number of the connection that gets the account's reports, 0 for none
TAKEN: Final = 20  # commands that went into the ring
REFUSALS: Final = 21
FLYING: Final = 22  # commands on their way
EXPOSURE_BEYOND: Final = 23  # how often 2^62 stands above the exposure: a slide or an old journal may bring it there
ANSWERED: Final = 24  # the last reference that is in the journal
ROW: Final = 25

TRADER: Final = 1
OPERATOR: Final = 2

LAST_PRICE: Final = 0  # of the last trade
TRADED: Final = 1
COLLAR: Final = 2
INSTRUMENT_KILLED: Final = 3
DEFINED: Final = 4
INSTRUMENT_ROW: Final = 8

# --------------------------------------------------------------------------------------------------- words of the state
ROOM: Final = 0  # records that may still be written to `out`
COUNT: Final = 1  # records in `out`
STAMP: Final = 2  # the time given last (RING-6)
VENUE_KILLED: Final = 3
DISK_LOW: Final = 4
FLIGHT_FIRST: Final = 5  # commands answered, ever
FLIGHT_NEXT: Final = 6  # commands pushed, ever
NUMBER: Final = 7  # of the last report routed
TAKER_ID: Final = 8  # the order that the command at hand is about, and what it will rest with
TAKER_PRICE: Final = 9
TAKER_LEAVES: Final = 10
TAKER_ROW: Final = 11
TOUCHED: Final = 12  # connections that were written to
RESTING: Final = 13  # orders in the table
NOW: Final = 14  # the time at which reports are routed
STATE_WORDS: Final = 16

BATCH: Final = 8192
"""Records that `out` has room for."""
FLIGHT: Final = 1 << 18
"""Commands on their way, at most."""
FLIGHT_WORDS: Final = 4
RECORD_WORDS: Final = 8
BILLION: Final = 1_000_000_000
MONEY_MAX: Final = (1 << 61) - 1 + (1 << 61)  # 2^62 - 1: notional and exposure stay at or below it


class Desk:
    """The columns, and what is written for each connection."""

    def __init__(self, account_max: int, accounts: int, connections: int, order_capacity: int) -> None:
        """Make room for so many accounts of numbers up to `account_max`, connections from 1 on, and resting orders."""
        self.state: vec[i64] = zeros(STATE_WORDS)
        self.rows: vec[i32] = vec[i32]([0] * (account_max + 1))
        self.account_max: i64 = account_max
        self.accounts: vec[i64] = zeros((accounts + 1) * ROW)
        self.account_count: i64 = 0
        self.instruments: vec[i64] = zeros(1024 * INSTRUMENT_ROW)
        self.instrument_count: i64 = 1024
        self.flight: vec[i64] = zeros(FLIGHT * FLIGHT_WORDS)
        self.latencies: vec[i64] = zeros(LATENCY_WORDS)
        self.out: vec[i64] = zeros(BATCH * RECORD_WORDS)
        self.out_bytes: memoryview = memoryview(self.out).cast("B")
        self.touched: vec[i64] = zeros(connections + 1)
        self.dirty: vec[i64] = zeros(connections + 1)
        self.writers: list[BytesWriter] = [BytesWriter() for _ in range(connections + 1)]
        self.slots: vec[i64] = make_order_slots(order_capacity)
        self.heads: vec[i32] = vec[i32]([0] * ((self.slots[LINE_MASK] + 1) * 16))
        self.state[ROOM] = BATCH

    def add_account(self, account: int, role: int) -> int:
        """Give an account its row, and return the row's number, from 1."""
        self.account_count += 1
        row = self.account_count
        base = row * ROW
        self.accounts[base + ACCOUNT] = account
        self.accounts[base + ROLE] = role
        self.rows[account] = i32(row)
        return int(row)

    def get(self, row: int, word: int) -> int:
        """Return a word of an account's row."""
        return int(self.accounts[row * ROW + word])

    def put(self, row: int, word: int, value: int) -> None:
        """Set a word of an account's row."""
        self.accounts[row * ROW + word] = value

    def totals(self) -> tuple[int, int]:
        """Return how many commands were taken and refused, of all accounts."""
        taken: i64 = 0
        refused: i64 = 0
        row: i64 = 1
        while row <= self.account_count:
            taken += self.accounts[row * ROW + TAKEN]
            refused += self.accounts[row * ROW + REFUSALS]
            row += 1
        return int(taken), int(refused)

    def look(self, word: int) -> int:
        """Return a word of the state."""
        return int(self.state[word])

    def set(self, word: int, value: int) -> None:
        """Set a word of the state."""
        self.state[word] = value

    def get_instrument(self, instrument: int, word: int) -> int:
        """Return a word of an instrument's row."""
        place: i64 = instrument
        if place >= self.instrument_count:
            place = 0
        return int(self.instruments[place * INSTRUMENT_ROW + word])

    def put_instrument(self, instrument: int, word: int, value: int) -> None:
        """Set a word of an instrument's row, and make the table longer if need be."""
        self.reach(instrument)
        self.instruments[instrument * INSTRUMENT_ROW + word] = value

    def reach(self, instrument: i64) -> None:
        """Make the table of instruments long enough for one."""
        if instrument < self.instrument_count:
            return
        count = self.instrument_count
        while count <= instrument:
            count += count
        longer = zeros(count * INSTRUMENT_ROW)
        shorter = self.instruments
        word: i64 = 0
        while word < self.instrument_count * INSTRUMENT_ROW:
            longer[word] = shorter[word]
            word += 1
        word = self.instrument_count
        while word < count:
            longer[word * INSTRUMENT_ROW + COLLAR] = shorter[COLLAR]
            word += 1
        self.instruments = longer
        self.instrument_count = count

    def records(self) -> bytes:
        """Return the records that were written, and begin anew."""
        count = self.state[COUNT]
        self.state[COUNT] = 0
        return bytes(self.out_bytes[: int(count * RECORD_WORDS * 8)])

    def written(self, connection: int) -> bytes:
        """Return what was written for a connection, and forget it."""
        writer = self.writers[connection]
        data = writer.getvalue()
        writer.truncate(0)
        return data

    def take_touched(self) -> list[int]:
        """Return the connections that something was written for, and begin anew."""
        count = self.state[TOUCHED]
        found: list[int] = []
        place: i64 = 0
        while place < count:
            connection = self.touched[place]
            self.dirty[connection] = 0
            found.append(int(connection))
            place += 1
        self.state[TOUCHED] = 0
        return found


def make_order_slots(capacity: i64) -> vec[i64]:
    """Return an empty table of orders: control words as the engine's index wants them, and slots."""
    slots = zeros(CONTROL + (capacity + 1) * SLOT)
    bits: i64 = 0
    lines: i64 = 1
    while lines * 16 < capacity:
        lines += lines
        bits += 1
    slots[LINE_MASK] = lines - 1
    if bits != 0:
        slots[LINE_SHIFT] = 64 - bits
    multiplier: i64 = int.from_bytes(os.urandom(8), "little") >> 1 | 1
    slots[MULTIPLIER] = multiplier
    slots[ORDERS + FRESH] = CONTROL
    return slots


def enter(
    desk: Desk, row: i64, is_new: i64, amount: i64, envelope: i64, head: i64, ident: i64, price: i64, sizes: i64
) -> None:
    """Write a record, later than the one before, and note it as on its way under the row's last reference.

    There is room for it.
    """
    state = desk.state
    out = desk.out
    flight = desk.flight
    count = state[COUNT]
    state[COUNT] = count + 1
    stamp = state[STAMP]
    place = count * RECORD_WORDS
    out[place] = 0
    out[place + 1] = 0
    out[place + 2] = stamp
    out[place + 3] = envelope
    out[place + 4] = head
    out[place + 5] = ident
    out[place + 6] = price
    out[place + 7] = sizes
    state[STAMP] = stamp + 1
    following = state[FLIGHT_NEXT]
    state[FLIGHT_NEXT] = following + 1
    entry = (following & (FLIGHT - 1)) * FLIGHT_WORDS
    flight[entry] = row | is_new << 32
    flight[entry + 1] = amount
    flight[entry + 2] = stamp
    flight[entry + 3] = desk.accounts[row * ROW + REFERENCE]
    desk.accounts[row * ROW + FLYING] += 1


def land(desk: Desk) -> None:
    """Take the oldest command on its way for answered: what was reserved for it is free."""
    state = desk.state
    first = state[FLIGHT_FIRST]
    if first == state[FLIGHT_NEXT]:
        return  # answers to what a gateway before this one has sent
    state[FLIGHT_FIRST] = first + 1
    entry = (first & (FLIGHT - 1)) * FLIGHT_WORDS
    flight = desk.flight
    note(desk.latencies, state[NOW] - flight[entry + 2])
    owner = flight[entry]
    row = (owner & 0xFFFFFFFF) * ROW
    accounts = desk.accounts
    accounts[row + FLYING] -= 1
    if row != 0:
        accounts[row + PENDING] -= owner >> 32
        accounts[row + PENDING_EXPOSURE] -= flight[entry + 1]
        accounts[row + ANSWERED] = flight[entry + 3]


def bounce(desk: Desk) -> tuple[int, int]:
    """Take the oldest command on its way for one that is not in the journal; return its row and its reference.

    When nothing else of its account is on its way, the reference is as if it had never been taken.
    """
    state = desk.state
    if state[FLIGHT_FIRST] == state[FLIGHT_NEXT]:
        return 0, 0
    entry = (state[FLIGHT_FIRST] & (FLIGHT - 1)) * FLIGHT_WORDS
    row = desk.flight[entry] & 0xFFFFFFFF
    base = row * ROW
    accounts = desk.accounts
    before = accounts[base + ANSWERED]
    reference = desk.flight[entry + 3]
    land(desk)
    accounts[base + ANSWERED] = before
    if accounts[base + FLYING] == 0:
        accounts[base + REFERENCE] = before
    return int(row), int(reference)


def clock(desk: Desk, now_ns: i64) -> None:
    """Let the next record have this time, if it is later than that of the last (RING-6)."""
    state = desk.state
    if now_ns > state[STAMP]:
        state[STAMP] = now_ns


def touch(desk: Desk, connection: i64) -> None:
    """Remember that something was written for a connection."""
    if desk.dirty[connection] == 0:
        desk.dirty[connection] = 1
        count = desk.state[TOUCHED]
        desk.touched[count] = connection
        desk.state[TOUCHED] = count + 1
