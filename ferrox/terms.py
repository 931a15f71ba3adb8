"""The words of Ferrox as numbers: what each byte of a frame may say, and the limits every field keeps.

Nothing here has behaviour.  The numbers are law: `specs/wire.md`, `specs/rejects.md` and `specs/limits.md` state
them, and `tests/specs` holds both sides equal.  Zero never means anything, so a frame of zeros is never valid.
"""

from enum import IntEnum, IntFlag
from operator import index
from typing import Final


class CommandKind(IntEnum):
    """What a command asks for: the first byte of its frame (WIRE-3)."""

    NEW_ORDER = 1
    CANCEL_ORDER = 2
    REPLACE_ORDER = 3
    MASS_CANCEL = 4
    DEFINE_INSTRUMENT = 5
    SET_TRADING_STATE = 6
    SET_LIMIT = 7


class Annotation(IntEnum):
    """Records the journal writes for itself; an engine passes over them (JRN-9)."""

    MARK = 254
    SEAL = 255


class Side(IntEnum):
    """Which side of the book an order is on."""

    BUY = 1
    SELL = 2


class TimeInForce(IntEnum):
    """How long an order works (TIF-1 .. TIF-4)."""

    GTC = 1
    IOC = 2
    FOK = 3


class OrderFlag(IntFlag):
    """Bits 0 to 2 of a command's flags; bits 4 to 6 hold a `SelfTrade` mode."""

    MARKET = 0x01
    POST_ONLY = 0x02
    SLIDE = 0x04


class SelfTrade(IntEnum):
    """What a taker wants done when it meets an order of its own account (STP-1 .. STP-6)."""

    ALLOW = 0
    CANCEL_TAKER = 1
    CANCEL_MAKER = 2
    CANCEL_BOTH = 3
    DECREMENT = 4


class Scope(IntEnum):
    """Which resting orders a mass cancel takes (MASS-1)."""

    INSTRUMENT = 1
    ACCOUNT = 2
    ACCOUNT_IN_INSTRUMENT = 3
    VENUE = 4


class TradingState(IntEnum):
    """What an instrument takes at the moment (STATE-1 .. STATE-4)."""

    PRE_OPEN = 1
    OPEN = 2
    HALTED = 3
    CLOSED = 4


class Limit(IntEnum):
    """What a gateway keeps accounts and instruments within; an engine only repeats it (LIMIT-1)."""

    KILL = 1
    MAX_QUANTITY = 2
    MAX_NOTIONAL = 3
    COLLAR = 4
    MAX_OPEN_ORDERS = 5
    MAX_EXPOSURE = 6
    ORDER_RATE = 7
    CANCEL_RATE = 8


class ReportKind(IntEnum):
    """What a report says (REPORT-3)."""

    NEW = 1
    TRADE = 2
    CANCELED = 3
    REPLACED = 4
    EXPIRED = 5
    REJECTED = 6
    CANCEL_REJECTED = 7
    REPLACE_REJECTED = 8
    MASS_CANCELED = 9
    INSTRUMENT_DEFINED = 10
    STATE_CHANGED = 11
    LIMIT_SET = 12


class ReportFlag(IntFlag):
    """Bits of a report's flags (REPORT-4)."""

    AGGRESSOR = 0x01
    PRIORITY_KEPT = 0x02
    SLID = 0x04
    LAST = 0x80


class Reason(IntEnum):
    """Why a command was rejected or an order canceled; when several apply, the smallest is told (REJECT-0)."""

    NONE = 0
    UNKNOWN_KIND = 1
    MALFORMED = 2
    BAD_SIDE = 3
    BAD_TIME_IN_FORCE = 4
    BAD_FLAGS = 5
    BAD_INSTRUMENT = 6
    BAD_ORDER_ID = 7
    BAD_PRICE = 8
    BAD_QUANTITY = 9
    BAD_DISPLAY = 10
    BAD_SCOPE = 11
    BAD_ACCOUNT = 12
    BAD_TICK = 13
    BAD_LOT = 14
    BAD_BAND = 15
    BAD_STATE = 16
    BAD_LIMIT = 17
    BAD_VALUE = 18
    UNKNOWN_INSTRUMENT = 32
    NOT_OPEN = 33
    UNKNOWN_ORDER = 34
    DUPLICATE_ORDER_ID = 35
    SIDE_MISMATCH = 36
    OFF_TICK = 37
    OFF_LOT = 38
    OUTSIDE_BAND = 39
    BOOK_NOT_EMPTY = 40
    INSTRUMENTS_FULL = 41
    ORDERS_FULL = 42
    WOULD_CROSS = 43
    SELF_TRADE = 64
    MASS_CANCEL = 65
    TOTAL_FILLED = 66


class Refusal(IntEnum):
    """Why the gateway did not take a command that is in order by itself; in a report there is a `Reason` (RISK-1)."""

    BUSY = 128
    THROTTLED = 129
    DUPLICATE_REFERENCE = 130
    BAD_REFERENCE = 131
    NOT_PERMITTED = 132
    DISK_LOW = 133
    KILLED = 134
    MAX_QUANTITY = 135
    MAX_NOTIONAL = 136
    COLLAR = 137
    OPEN_ORDERS = 138
    EXPOSURE = 139


SELF_TRADE_SHIFT: Final = 4
SELF_TRADE_MASK: Final = 0x70
ORDER_FLAGS: Final = int(OrderFlag.MARKET | OrderFlag.POST_ONLY | OrderFlag.SLIDE)

PRICE_MAX: Final = 2**40 - 1  # ticks, either sign (LIM-1)
QUANTITY_MAX: Final = 2**31 - 1  # lots (LIM-2)
ORDER_ID_MAX: Final = 2**63 - 1  # LIM-3
ACCOUNT_SHIFT: Final = 40  # an order id is account << 40 | reference (LIM-4)
ACCOUNT_MAX: Final = 2**23 - 1
REFERENCE_MAX: Final = 2**40 - 1
INSTRUMENT_MAX: Final = 2**20 - 1  # LIM-5
TICK_MAX: Final = 2**31 - 1  # LIM-6
LOT_MAX: Final = 2**31 - 1
NOTIONAL_MAX: Final = 2**62 - 1  # ticks times lots, the greatest value of a limit (REJECT-18)
COUNT_MAX: Final = 2**31 - 1  # orders, or commands a second, of a limit
SEQUENCE_MAX: Final = 2**62  # LIM-11
TIME_MAX: Final = 2**62  # nanoseconds

ORDER_CAPACITY: Final = 1_048_576  # resting orders, by default (LIM-7)
ORDER_CAPACITY_MAX: Final = 2**26
INSTRUMENT_CAPACITY: Final = 16_384  # defined instruments, by default (LIM-8)
INSTRUMENT_CAPACITY_MAX: Final = INSTRUMENT_MAX

RULES_VERSION: Final = 1  # of specs/matching.md and specs/rejects.md; a journal is replayed under its own (JRN-5)


def account_of(order_id: int) -> int:
    """Return the account that an order id belongs to, 0 .. 2^23-1 (LIM-4)."""
    return order_id >> ACCOUNT_SHIFT


def compose_order_id(account: int, reference: int) -> int:
    """Compose an order id from an account (0 .. 2^23-1) and its own reference (0 .. 2^40-1), not both 0 (LIM-4)."""
    account, reference = index(account), index(reference)  # a numpy integer would shift within its own width
    if not 0 <= account <= ACCOUNT_MAX:
        raise ValueError(f"account {account} is outside 0 .. {ACCOUNT_MAX}")
    if not 0 <= reference <= REFERENCE_MAX:
        raise ValueError(f"reference {reference} is outside 0 .. {REFERENCE_MAX}")
    if account == reference == 0:
        raise ValueError("account 0 with reference 0 would be order id 0, which is not an id")
    return account << ACCOUNT_SHIFT | reference
