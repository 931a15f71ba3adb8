"""Where every number of the fast engine lies: one column of 64-bit words, cut into slots of a cache line.

A *slot* is eight words, and is known by the place of its first word, so that `slots[order + PRICE]` is one addition.
Orders, levels, blocks of levels and books are all slots of the one column; place 0 is *nobody*.  Two halves of a word
hold what is small: a pair of places, or the two sizes of an order, whose word is the one a snapshot stores.

    word       0      1      2     3              4         5                6              7
    order      KEY    PRICE  HEAD  before|after   CHAIN     instrument|side  leaves|filled  -
    level      KEY    PRICE  HEAD  newest|oldest  CHAIN     book|block       below|above    tick number
    block      KEY    BITS   HEAD  -              CHAIN     critical bit     LEFT           RIGHT
    book       state  best bid, best ask    root of bids, root of asks    tick   lot     low
    - its leaf KEY    high   -     NEXT           PREVIOUS  critical bit     LEFT           RIGHT

Before the slots stand the control words: counters, where pools and tables begin, and two small tables for single bits.
A second column, `heads`, holds 32-bit places: the heads of the index's chains, and the book of each instrument.  With
the report buffer that is all an engine has; a function is given the columns it needs and keeps no others.

The enumerations of `ferrox.terms` stand here once more as plain integers, because a compiled comparison with a `Final`
integer is one instruction; `tests/unit/test_fast_layout.py` keeps the two equal.
"""

from typing import Final

SLOT: Final = 8  # words of a slot, 64 bytes: a cache line
BOOK_SLOTS: Final = 2

# ------------------------------------------------------------------------------------------------------ control words
WRITTEN: Final = 8  # words of the report buffer in use
SEQUENCE: Final = 9
CLOCK: Final = 10  # the greatest time given, nanoseconds (DET-4)
RESTING: Final = 11  # orders in all books
ORDER_CAPACITY: Final = 12
REPORT_LIMIT: Final = 13  # words of the report buffer
LINE_MASK: Final = 14  # of the index: how its lines are scattered
LINE_SHIFT: Final = 15
MULTIPLIER: Final = 16
LEVEL_HEADS: Final = 17  # where in `heads` the table of levels begins; that of orders begins at 0
BLOCK_HEADS: Final = 18
BOOK_HEADS: Final = 19  # where in `heads` the places of books begin, by instrument
BOOKS_AT: Final = 26  # the place of the first book
INSTRUMENTS: Final = 27  # defined instruments
INSTRUMENT_CAPACITY: Final = 28
BOOK_ROOT: Final = 29  # of the tree of books
FIRST_BOOK: Final = 30  # the book with the smallest instrument
ORDERS: Final = 20  # the pool of order slots: its first free slot, and after it the first that was never used
LEVELS: Final = 22
BLOCKS: Final = 24
FRESH: Final = 1
MASKS: Final = 64  # 64 words with one bit each
BIT_PLACES: Final = 128  # 64 words: where the only bit of a word stands, by its product with DE_BRUIJN
WINDOW: Final = 192  # what looking ahead has found of each message of a window
SINK: Final = 31  # where it leaves what nobody needs, so that no compiler leaves the reading out
CONTROL: Final = 256  # control words in all

# -------------------------------------------------------------------------------------------------- the words of a slot
# What orders, levels and blocks share: the index finds them by KEY, in the chain through CHAIN that begins at HEAD.
KEY: Final = 0
HEAD: Final = 2
CHAIN: Final = 4

PRICE: Final = 1
LINKS: Final = 3  # of an order: before and after; of a level, which is the head of its circle: newest and oldest
OWNER: Final = 5  # of an order: instrument in the low half, side in the high half; of a level: its book and its block
SIZES: Final = 6  # of an order: leaves in the low half, filled in the high half

NEIGHBOURS: Final = 6  # of a level: the next one below in the low half, the next one above in the high half
TICK_NUMBER: Final = 7  # of a level: its price in ticks of the instrument, shifted so that it is never negative

BITS: Final = 1  # of a block: which of its 64 ticks have a level
CRITICAL: Final = 5  # of a block: the bit that its own branch of the tree decides by
LEFT: Final = 6  # of a block: where keys with that bit 0 are
RIGHT: Final = 7  # the next word, so that the bit chooses by addition

STATE: Final = 0  # of a book
BEST: Final = 0  # plus the side: 1 bids, 2 asks
ROOT: Final = 2  # plus the side
TICK: Final = 5
LOT: Final = 6
LOW: Final = 7
LEAF: Final = 8  # a book's second line is a leaf of the tree of books, laid out as a block is
INSTRUMENT: Final = 8  # which is its key
HIGH: Final = 9
NEXT: Final = 11  # the book with the next greater instrument, or nobody
PREVIOUS: Final = 12  # and the one with the next smaller

HALF: Final = 0xFFFFFFFF

TICK_NUMBER_BITS: Final = 41
TICK_NUMBER_ZERO: Final = 1 << 40  # the tick number of price 0
BLOCK_SHIFT: Final = 6  # 64 adjacent ticks
BLOCK_NUMBER_BITS: Final = 35
BLOCK_NUMBER_MASK: Final = (1 << 35) - 1

# Frames: words of a record, and of a report.
RECORD_SIZE: Final = 64
REPORT_WORDS: Final = 6

# ------------------------------------------------------------------------------------------ the words of ferrox.terms
NEW_ORDER: Final = 1
CANCEL_ORDER: Final = 2
REPLACE_ORDER: Final = 3
MASS_CANCEL: Final = 4
DEFINE_INSTRUMENT: Final = 5
SET_TRADING_STATE: Final = 6
SET_LIMIT: Final = 7
MARK: Final = 254
SEAL: Final = 255

BUY: Final = 1
SELL: Final = 2

GTC: Final = 1
IOC: Final = 2
FOK: Final = 3

MARKET: Final = 0x01
POST_ONLY: Final = 0x02
SLIDE: Final = 0x04
UNKNOWN_FLAGS: Final = 0x88
MODE_SHIFT: Final = 4
ALLOW: Final = 0
CANCEL_TAKER: Final = 1
CANCEL_MAKER: Final = 2
CANCEL_BOTH: Final = 3
DECREMENT: Final = 4

SCOPE_INSTRUMENT: Final = 1
SCOPE_ACCOUNT: Final = 2
SCOPE_ACCOUNT_IN_INSTRUMENT: Final = 3
SCOPE_VENUE: Final = 4

LIMIT_KILL: Final = 1
LIMIT_MAX_QUANTITY: Final = 2
LIMIT_MAX_NOTIONAL: Final = 3
LIMIT_COLLAR: Final = 4
LIMIT_MAX_OPEN_ORDERS: Final = 5
LIMIT_MAX_EXPOSURE: Final = 6
LIMIT_ORDER_RATE: Final = 7
LIMIT_CANCEL_RATE: Final = 8

PRE_OPEN: Final = 1
OPEN: Final = 2
CLOSED: Final = 4

NEW: Final = 1
TRADE: Final = 2
CANCELED: Final = 3
REPLACED: Final = 4
EXPIRED: Final = 5
REJECTED: Final = 6
CANCEL_REJECTED: Final = 7
REPLACE_REJECTED: Final = 8
MASS_CANCELED: Final = 9
INSTRUMENT_DEFINED: Final = 10
STATE_CHANGED: Final = 11
LIMIT_SET: Final = 12

AGGRESSOR: Final = 0x01
PRIORITY_KEPT: Final = 0x02
SLID: Final = 0x04

UNKNOWN_KIND: Final = 1
MALFORMED: Final = 2
BAD_SIDE: Final = 3
BAD_TIME_IN_FORCE: Final = 4
BAD_FLAGS: Final = 5
BAD_INSTRUMENT: Final = 6
BAD_ORDER_ID: Final = 7
BAD_PRICE: Final = 8
BAD_QUANTITY: Final = 9
BAD_DISPLAY: Final = 10
BAD_SCOPE: Final = 11
BAD_ACCOUNT: Final = 12
BAD_TICK: Final = 13
BAD_LOT: Final = 14
BAD_BAND: Final = 15
BAD_STATE: Final = 16
BAD_LIMIT: Final = 17
BAD_VALUE: Final = 18
UNKNOWN_INSTRUMENT: Final = 32
NOT_OPEN: Final = 33
UNKNOWN_ORDER: Final = 34
DUPLICATE_ORDER_ID: Final = 35
SIDE_MISMATCH: Final = 36
OFF_TICK: Final = 37
OFF_LOT: Final = 38
OUTSIDE_BAND: Final = 39
BOOK_NOT_EMPTY: Final = 40
INSTRUMENTS_FULL: Final = 41
ORDERS_FULL: Final = 42
WOULD_CROSS: Final = 43
SELF_TRADE: Final = 64
MASS_CANCEL_REASON: Final = 65
TOTAL_FILLED: Final = 66

PRICE_MAX: Final = (1 << 40) - 1
QUANTITY_MAX: Final = (1 << 31) - 1
ACCOUNT_SHIFT: Final = 40
ACCOUNT_MAX: Final = (1 << 23) - 1
INSTRUMENT_MAX: Final = (1 << 20) - 1
SEQUENCE_MAX: Final = 1 << 62  # one more than a small integer of mypyc holds: beware of these two in a loop
TIME_MAX: Final = 1 << 62
RULES_VERSION: Final = 1
