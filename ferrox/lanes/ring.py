"""The ring: records from one producer to one consumer, in memory that both have mapped (RING-1 .. RING-5).

Two cursors, each on cache lines of its own and written by one side: how many records were ever pushed, and how many
ever taken.  Each side keeps what it last saw of the other's, and looks again only when that does not suffice, so that
in the common case a push or a take touches no line that the other side writes.

Both ends stand here together, because each is the other turned round.
"""

from typing import Final

from ferrox.shared import Shared, SharedCorrupt

MAGIC: Final = 0x474E49522D585246  # "FRX-RING"
VERSION: Final = 1
SLOT_SIZE: Final = 64

# Words of the header page.
PUSHED: Final = 16
TAKEN: Final = 32
SLEEPING: Final = 48
"""1 while the consumer sleeps, and wants to be woken."""


def make_ring(name: str, capacity: int) -> Shared:
    """Return shared memory for a ring of so many records, a power of two, 2 .. 2^20."""
    if not 2 <= capacity <= 1 << 20 or capacity & (capacity - 1):
        raise ValueError(f"a ring holds a power of two, 2 .. 2^20 records, not {capacity}")
    return Shared.create(name, capacity * SLOT_SIZE).stamp(MAGIC, VERSION, capacity)


class Ring:
    """Either end of a ring; a process uses it as one of them."""

    def __init__(self, shared: Shared) -> None:
        """Take a place at a ring; raise `SharedCorrupt` when it is none."""
        self.words: memoryview = shared.words
        self.slots: memoryview = shared.bytes
        self.capacity: int = shared.expect("ring", MAGIC, VERSION)
        self.pushed: int = 0
        self.taken: int = 0
        self.look()

    def look(self) -> int:
        """Read both cursors, and return how many records are in the ring."""
        # The consumer's first: it never passes the producer's, whatever happens in between.
        taken: int = self.words[TAKEN]
        pushed: int = self.words[PUSHED]
        if taken < 0 or pushed < taken or pushed - taken > self.capacity:
            # As the consumer reads its own, and the producer its own, only the other's can have moved between.
            taken = self.words[TAKEN]
            if taken < 0 or pushed < taken or pushed - taken > self.capacity:
                raise SharedCorrupt(
                    f"ring corrupt: expected 0 <= pushed - taken <= {self.capacity}, found {pushed} and {taken}"
                )
        self.pushed = pushed
        self.taken = taken
        return pushed - taken

    def room(self) -> int:
        """Return how many records the producer may push."""
        return self.capacity - self.look()

    def push(self, records: bytes) -> int:
        """Push as many whole records as there is room for; return how many (RING-4)."""
        count = len(records) // SLOT_SIZE
        pushed = self.pushed
        if count > self.capacity - (pushed - self.taken):
            room = self.room()
            if count > room:
                count = room
        start = pushed & (self.capacity - 1)
        first = self.capacity - start
        if count <= first:
            self.slots[start * SLOT_SIZE : (start + count) * SLOT_SIZE] = (
                records if count * SLOT_SIZE == len(records) else memoryview(records)[: count * SLOT_SIZE]
            )
        else:
            view = memoryview(records)
            self.slots[start * SLOT_SIZE :] = view[: first * SLOT_SIZE]
            self.slots[: (count - first) * SLOT_SIZE] = view[first * SLOT_SIZE : count * SLOT_SIZE]
        self.pushed = pushed + count
        self.words[PUSHED] = pushed + count
        return count

    def peek(self, limit: int) -> bytes:
        """Return the next records, at most `limit`, and leave them in the ring."""
        count = self.pushed - self.taken
        if count == 0:
            count = self.look()
            if count == 0:
                return b""
        if count > limit:
            count = limit
        start = self.taken & (self.capacity - 1)
        end = start + count
        if end <= self.capacity:
            return bytes(self.slots[start * SLOT_SIZE : end * SLOT_SIZE])
        return bytes(self.slots[start * SLOT_SIZE :]) + bytes(self.slots[: (end - self.capacity) * SLOT_SIZE])

    def last(self) -> bytes:
        """Return the record that was pushed last, be it taken or not; none when none ever was."""
        self.look()
        if self.pushed == 0:
            return b""
        start = (self.pushed - 1) & (self.capacity - 1)
        return bytes(self.slots[start * SLOT_SIZE : (start + 1) * SLOT_SIZE])

    def take(self, count: int) -> None:
        """Give back the slots of so many records that were peeked at."""
        self.taken += count
        self.words[TAKEN] = self.taken
