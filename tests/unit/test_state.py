"""`ferrox.state`, by example: the bytes of a state, and the sentence that refuses each wrong one."""

import hashlib

import pytest

from ferrox.errors import SnapshotCorrupt
from ferrox.messages import DefineInstrument
from ferrox.state import RestingOrder, State, digest, pack_state, unpack_state

BOOK = DefineInstrument(state=2, instrument=1, band_low=-10, band_high=10, tick=2, lot=5)
OTHER = DefineInstrument(state=4, instrument=9, band_low=0, band_high=1, tick=1, lot=1)
BID = RestingOrder(order_id=1, price=2, leaves=5, filled=10, instrument=1, side=1)
ASK = RestingOrder(order_id=2, price=4, leaves=10, filled=0, instrument=1, side=2)
STATE = State(
    sequence=7, time_ns=8, order_capacity=16, instrument_capacity=2, instruments=[BOOK, OTHER], orders=[BID, ASK]
)


def test_a_state_has_its_bytes_in_the_order_of_the_layout():
    """SNAP-1, SNAP-3."""
    packed = pack_state(STATE)

    assert packed[:16] == b"FRXSTATE" + bytes((1, 0, 1, 0, 0, 0, 0, 0))
    assert packed[16:48] == b"".join(
        number.to_bytes(size, "little") for number, size in ((7, 8), (8, 8), (16, 4), (2, 4), (2, 4), (2, 4))
    )
    assert packed[48:64] == bytes(16)
    assert packed[64:128] == BOOK.pack() + OTHER.pack()
    assert packed[128:160] == b"".join(
        number.to_bytes(size, "little") for number, size in ((1, 8), (2, 8), (5, 4), (10, 4), (1, 4), (1, 4))
    )
    assert len(packed) == 192


def test_what_was_packed_is_unpacked():
    assert unpack_state(pack_state(STATE)) == STATE


def test_an_empty_state_is_a_header():
    empty = State(0, 0, 1, 1, [], [])

    assert len(pack_state(empty)) == 64
    assert unpack_state(pack_state(empty)) == empty


def test_a_digest_is_the_hash_of_the_whole_snapshot():
    """DET-7."""
    assert digest(pack_state(STATE)) == hashlib.sha256(pack_state(STATE)).hexdigest()


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (STATE._replace(sequence=-1), "sequence"),
        (STATE._replace(sequence=2**62 + 1), "sequence"),
        (STATE._replace(time_ns=-1), "time"),
        (STATE._replace(time_ns=2**62 + 1), "time"),
        (STATE._replace(instrument_capacity=1), "more"),
        (STATE._replace(order_capacity=1), "more"),
        (STATE._replace(instruments=[OTHER, BOOK]), "instrument 1 of the snapshot stands after 9"),
        (STATE._replace(instruments=[BOOK, BOOK]), "instrument 1 of the snapshot stands after 1"),
        (STATE._replace(instruments=[BOOK._replace(lot=0)]), "instrument 0 of the snapshot is not a valid"),
        (STATE._replace(instruments=[OTHER]), "instrument 1, which it lacks"),
        (STATE._replace(orders=[ASK, BID]), "canonical order"),
        (STATE._replace(orders=[BID, BID._replace(order_id=3, price=4), ASK]), "canonical order"),
        (STATE._replace(orders=[BID, ASK._replace(order_id=1)]), "id 1, cannot rest"),
        (STATE._replace(orders=[BID, ASK._replace(price=2)]), "crossed at 2"),
        (STATE._replace(orders=[BID, ASK._replace(price=0)]), "crossed at 0"),
        (STATE._replace(orders=[BID._replace(side=3)]), "cannot rest"),
        (STATE._replace(orders=[BID._replace(order_id=0)]), "cannot rest"),
        (STATE._replace(orders=[BID._replace(leaves=0)]), "cannot rest"),
        (STATE._replace(orders=[BID._replace(leaves=7)]), "cannot rest"),
        (STATE._replace(orders=[BID._replace(filled=7)]), "cannot rest"),
        (STATE._replace(orders=[BID._replace(filled=2**31 - 3)]), "cannot rest"),
        (STATE._replace(orders=[BID._replace(price=3)]), "cannot rest"),
        (STATE._replace(orders=[BID._replace(price=12)]), "cannot rest"),
        (STATE._replace(orders=[BID._replace(price=-12)]), "cannot rest"),
    ],
)
def test_a_state_that_breaks_a_rule_is_refused_with_its_reason(state: State, sentence: str):
    """SNAP-2, SNAP-5, LIM-2, LIM-11, INSTR-3."""
    with pytest.raises(SnapshotCorrupt, match=sentence):
        unpack_state(pack_state(state))


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (0, 0, "begins with b'FRXSTATE'"),
        (8, 2, "format 2 and rules 1"),
        (10, 2, "format 1 and rules 2"),
        (12, 1, "reserved byte"),
        (63, 1, "reserved byte"),
        (40, 3, "3 instruments and 2 orders"),
        (44, 1, "2 instruments and 1 orders"),
        (66, 1, "not a valid DefineInstrument"),
        (64, 1, "not a valid DefineInstrument"),
        (157, 1, "cannot rest"),
    ],
)
def test_a_byte_that_may_not_be_there_is_refused_with_its_reason(place: int, value: int, sentence: str):
    """SNAP-1, SNAP-5."""
    packed = bytearray(pack_state(STATE))
    packed[place] = value

    with pytest.raises(SnapshotCorrupt, match=sentence):
        unpack_state(bytes(packed))


@pytest.mark.parametrize("size", [0, 63])
def test_less_than_a_header_is_refused(size: int):
    with pytest.raises(SnapshotCorrupt, match=f"at least 64 bytes, this one has {size}"):
        unpack_state(pack_state(STATE)[:size])
