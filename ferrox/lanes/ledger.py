"""The last reference of each account, told from the journal alone (ENTRY-9, ENTRY-11).

The order id of a NewOrder holds its reference; the record of any other command of a client holds it modulo 65,535 in
its session, and is at most 65,534 ahead of the one before, so that there is one number it can be.
"""

from typing import Final

from librt.strings import read_i64_le
from librt.vecs import vec
from mypy_extensions import i64

from ferrox.fast.columns import zeros
from ferrox.fast.layout import (
    ACCOUNT_MAX,
    ACCOUNT_SHIFT,
    CANCEL_ORDER,
    MASS_CANCEL,
    NEW_ORDER,
    RECORD_SIZE,
    REPLACE_ORDER,
)

REFERENCE_MASK: Final = (1 << 40) - 1
SESSIONS: Final = 65_535


class References:
    """A last reference for each account."""

    def __init__(self) -> None:
        """Begin with none."""
        self.last: vec[i64] = zeros(1024)
        self.count: i64 = 1024

    def get(self, account: int) -> int:
        """Return the last reference of an account, 0 for none."""
        number: i64 = account
        if number >= self.count:
            return 0
        return int(self.last[number])

    def put(self, account: int, reference: int) -> None:
        """Set the last reference of an account, 0 .. 2^23-1."""
        self.reach(account)
        self.last[account] = reference

    def known(self) -> dict[int, int]:
        """Return the last reference of each account that has one."""
        found: dict[int, int] = {}
        account: i64 = 0
        while account < self.count:
            if self.last[account] != 0:
                found[int(account)] = int(self.last[account])
            account += 1
        return found

    def reach(self, account: i64) -> None:
        """Make the column long enough for an account."""
        if account < self.count:
            return
        count = self.count
        while count <= account:
            count += count
        longer = zeros(count)
        shorter = self.last
        place: i64 = 0
        while place < self.count:
            longer[place] = shorter[place]
            place += 1
        self.last = longer
        self.count = count

    def follow(self, records: bytes) -> None:
        """Go over the next whole records of the journal."""
        size: i64 = len(records)
        at: i64 = 0
        while at < size:
            envelope = read_i64_le(records, at + 24)
            kind = envelope & 0xFF
            session = (envelope >> 16) & 0xFFFF
            ident = read_i64_le(records, at + 40)
            at += RECORD_SIZE
            if kind == NEW_ORDER:
                account = ident >> ACCOUNT_SHIFT
                reference = ident & REFERENCE_MASK
            elif session == 0 or ident < 0:
                continue
            else:
                if kind == MASS_CANCEL:
                    account = ident
                elif kind == CANCEL_ORDER or kind == REPLACE_ORDER:
                    account = ident >> ACCOUNT_SHIFT
                else:
                    continue
                reference = 0
            if account < 0 or account > ACCOUNT_MAX:
                continue
            if account >= self.count:
                self.reach(account)
            last = self.last[account]
            if session != 0 and kind != NEW_ORDER:
                ahead = (session - 1 - last) % SESSIONS
                if ahead == 0:
                    ahead = SESSIONS
                reference = last + ahead
            if reference > last:
                self.last[account] = reference
