"""The last references and the ledger around them: told from the journal alone, and kept beside a snapshot."""

import json
from hashlib import sha256
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrox.engine import Capacity, make_engine
from ferrox.entry import REFERENCE
from ferrox.errors import SnapshotCorrupt
from ferrox.lanes.admission import admit
from ferrox.lanes.desk import DEFINED, OPERATOR, SEEN, TRADER, Desk
from ferrox.lanes.desk import REFERENCE as LAST
from ferrox.lanes.ledger import References
from ferrox.messages import RECORD, RECORD_SIZE, CancelOrder, Command, MassCancel, NewOrder, ReplaceOrder, SetLimit
from ferrox.service.ledger import Ledger, load_ledger, newest_ledger
from ferrox.terms import Scope, compose_order_id
from ferrox.testing.sessions import apply_all, to_record, to_records
from ferrox.testing.strategies import World, streams

UUID = bytes(range(16))
LAST_REFERENCE = 2**40 - 1


def packet(reference: int, frame: bytes) -> bytes:
    return (9 + len(frame)).to_bytes(2, "big") + b"U" + REFERENCE.pack(reference) + frame


def record(frame: bytes, session: int = 0, sequence: int = 1) -> bytes:
    fields = list(RECORD.unpack(to_record(sequence, frame)))
    fields[6] = session
    return RECORD.pack(*fields)


def follow(*records: bytes) -> dict[int, int]:
    references = References()
    for one in records:
        references.follow(one)
    return references.known()


def named(reference: int) -> int:
    """Return the session of a record that carries this reference (ENTRY-11)."""
    return 1 + reference % 65_535


# --------------------------------------------------------------------------------------------------------- references

KINDS = ("new", "cancel", "replace", "account", "instrument", "unknown")
STEPS = st.one_of(
    st.integers(1, 3), st.sampled_from([65_533, 65_534, 65_535, 65_536, 131_070, 2**39]), st.integers(1, 70_000)
)
SENT = st.lists(st.tuples(st.sampled_from([5, 2_000, 9_999]), st.sampled_from(KINDS), STEPS), max_size=60)


def frame_of(kind: str, reference: int) -> bytes:
    frames: dict[str, Command] = {
        "new": NewOrder(1, 1, 0, 1, reference, 100, 1),
        "cancel": CancelOrder(1, 1),
        "replace": ReplaceOrder(1, 1, 0, 1, 1, 100, 1),
        "account": MassCancel(Scope.ACCOUNT),
        "instrument": MassCancel(Scope.ACCOUNT_IN_INSTRUMENT, 1),
        "unknown": MassCancel(Scope.ACCOUNT_IN_INSTRUMENT, 9),
    }
    return frames[kind].pack()


@pytest.fixture(scope="module")
def desk():
    """One desk for all examples, for to make one takes long: three accounts, whose references begin anew each time."""
    desk = Desk(9_999, 4, 4, 64)
    desk.add_account(0, OPERATOR)
    for account in (5, 2_000, 9_999):
        desk.add_account(account, TRADER)
    desk.put_instrument(1, DEFINED, 1)
    return desk


@settings(max_examples=60)
@given(sent=SENT, cuts=st.lists(st.integers(0, 60), max_size=4))
def test_the_last_reference_of_each_account_follows_from_the_records_alone(desk, sent, cuts):
    """ENTRY-11: whatever was admitted, and wherever the journal is cut."""
    rows = {5: 2, 2_000: 3, 9_999: 4}
    reached = dict.fromkeys(rows, 0)
    for row in rows.values():
        desk.put(row, LAST, 0)
        desk.put(row, SEEN, 0)
    for account, kind, step in sent:
        reached[account] += step
        data = packet(reached[account], frame_of(kind, reached[account]))
        admit(desk, rows[account], desk.writers[1], data, 0, 0)
        desk.written(1)
    records = desk.records()
    ends = [0, *sorted(min(cut * RECORD_SIZE, len(records)) for cut in cuts), len(records)]

    known = follow(*(records[start:end] for start, end in pairwise(ends)))

    assert known == {account: desk.get(row, LAST) for account, row in rows.items() if desk.get(row, LAST)}


@pytest.mark.parametrize("last", [0, 1, 65_533, 65_534, 65_535, 131_069, 131_070, LAST_REFERENCE - 65_534])
def test_a_session_names_the_one_reference_that_it_can_be(last):
    """ENTRY-11: after any reference, each of the 65,534 that may follow."""
    for step in (1, 2, 1_000, 65_533, 65_534):
        references = References()
        references.put(7, last)

        references.follow(record(CancelOrder(1, compose_order_id(7, 1)).pack(), named(last + step)))

        assert references.get(7) == last + step


def test_every_kind_of_a_client_carries_its_reference():
    """ENTRY-11: the account is that of the order id, or of the mass cancel."""
    order_id = compose_order_id(7, 1)

    for frame in (
        CancelOrder(1, order_id).pack(),
        ReplaceOrder(1, 1, 0, 1, order_id, 1, 1).pack(),
        MassCancel(Scope.ACCOUNT, 0, 7).pack(),
        MassCancel(Scope.ACCOUNT_IN_INSTRUMENT, 1, 7).pack(),
    ):
        assert follow(record(frame, named(3))) == {7: 3}
    assert follow(record(NewOrder(1, 1, 0, 1, compose_order_id(7, 3), 1, 1).pack())) == {7: 3}


def test_what_no_client_sent_has_no_reference():
    """ENTRY-11: 0 is the session of what no client sent."""
    frames = [
        MassCancel(Scope.ACCOUNT, 0, 7).pack(),
        CancelOrder(1, compose_order_id(7, 5)).pack(),
        SetLimit(1, 0, 7, 1).pack(),
    ]

    assert follow(*map(record, frames)) == {}
    assert follow(record(SetLimit(1, 0, 7, 1).pack(), named(5))) == {}


def test_an_order_of_an_earlier_reference_does_not_set_it_back():
    new = [NewOrder(1, 1, 0, 1, compose_order_id(7, reference), 1, 1).pack() for reference in (9, 4)]

    assert follow(*map(record, new)) == {7: 9}


def test_accounts_and_order_ids_beyond_the_limits_are_passed_over():
    """LIM-4: an engine rejects these, and a journal may hold them."""
    frames = [
        NewOrder(1, 1, 0, 1, -1, 1, 1).pack(),
        CancelOrder(1, -(2**63)).pack(),
        MassCancel(Scope.ACCOUNT, 0, 2**23).pack(),
        MassCancel(Scope.ACCOUNT, 0, 2**63 - 1).pack(),
        MassCancel(Scope.ACCOUNT, 0, -1).pack(),
    ]

    assert follow(*(record(frame, 5) for frame in frames)) == {}


def test_the_column_grows_with_the_accounts():
    references = References()
    references.put(1_023, 4)

    references.put(8_388_607, LAST_REFERENCE)

    assert references.get(1_024) == references.get(8_388_606) == 0
    assert references.known() == {1_023: 4, 8_388_607: LAST_REFERENCE}
    assert References().get(8_388_607) == 0


# --------------------------------------------------------------------------------------------------------- ledger


def followed(frames: list[bytes], batch: int = 1_000) -> Ledger:
    engine, ledger = make_engine("reference", Capacity(64, 8)), Ledger()
    records = to_records(frames)
    for start in range(0, len(records), batch * RECORD_SIZE):
        some = records[start : start + batch * RECORD_SIZE]
        ledger.follow(some, memoryview(apply_all(engine, some)))
    return ledger


def fields(ledger: Ledger) -> dict[str, object]:
    return {**vars(ledger), "references": ledger.references.known()}


def small() -> Ledger:
    ledger = Ledger()
    ledger.sequence, ledger.time_ns, ledger.reports = 17, 2**61, 40
    ledger.references.put(7, LAST_REFERENCE)
    ledger.limits = {(3, 0, 7): 2**62 - 1, (4, 1, 0): 5}
    ledger.prices = {1: -(2**40 - 1), 2: 0}
    return ledger


@settings(max_examples=30)
@given(commands=streams(World(references=40), max_size=60), batch=st.integers(1, 20))
def test_a_ledger_is_the_same_from_any_split_and_through_its_file(commands, batch):
    """It is a fold, of which what is kept says all."""
    frames = [command.pack() for command in commands]
    whole = followed(frames)

    split = followed(frames, batch)
    kept = Ledger.unpack(split.pack(UUID), "ledger", UUID, split.sequence)

    assert fields(split) == fields(whole) == fields(kept)


def test_a_ledger_knows_limits_prices_and_the_number_of_reports():
    """RISK-6: a limit that is set again, to 0 as well, stands in the place of the one before."""
    ledger = followed(
        [
            *(definition.pack() for definition in World().definitions()),
            SetLimit(2, 0, 0, 500).pack(),
            SetLimit(2, 0, 7, 100).pack(),
            SetLimit(4, 1, 0, 5).pack(),
            SetLimit(2, 0, 0, 0).pack(),
            NewOrder(1, 1, 0, 1, 1, 101, 2).pack(),
            NewOrder(1, 1, 0, 1, 2, 100, 2).pack(),
            NewOrder(2, 1, 0, 1, 3, 100, 3).pack(),
        ]
    )

    assert ledger.limits == {(2, 0, 0): 0, (2, 0, 7): 100, (4, 1, 0): 5}
    assert ledger.prices == {1: 100}
    assert (ledger.sequence, ledger.reports) == (9, 11)


def test_a_limit_that_an_engine_rejects_is_none():
    """REJECT-0: what is malformed by its envelope or wrong by a field sets nothing."""
    good, other = SetLimit(2, 0, 7, 100).pack(), SetLimit(2, 0, 9, 100).pack()
    records = b"".join(
        [
            to_record(1, SetLimit(9, 0, 0, 5).pack()),
            to_record(2, SetLimit(2, 0, 0, 2**31).pack()),
            to_record(3, other)[:25] + b"\x10" + to_record(3, other)[26:],
            to_record(4, other)[:32] + b"\x04\x02" + bytes(6) + b"\x07" + bytes(23),
            to_record(5, good),
        ]
    )
    engine, ledger = make_engine("reference"), Ledger()
    reports = apply_all(engine, records)

    ledger.follow(records, memoryview(reports))

    assert [reports[at + 44] for at in range(0, len(reports), 48)] == [6, 6, 6, 6, 12]
    assert ledger.limits == {(2, 0, 7): 100}


def test_what_is_saved_is_loaded(tmp_path):
    ledger = small()

    path = ledger.save(tmp_path, UUID)

    assert path == tmp_path / "00000000000000000017.ledger"
    assert fields(load_ledger(tmp_path, UUID, 17)) == fields(ledger)


def test_every_flipped_byte_of_a_file_is_refused():
    data = bytearray(small().pack(UUID))
    random = Random(1)

    for place, right in enumerate(data):
        for wrong in {right ^ 1 << bit for bit in range(8)} | {random.randrange(256), 10, 11, 13, 32}:
            if wrong != right:
                data[place] = wrong
                with pytest.raises(SnapshotCorrupt):
                    Ledger.unpack(bytes(data), "ledger", UUID, 17)
        data[place] = right
    Ledger.unpack(bytes(data), "ledger", UUID, 17)


def test_a_file_that_was_cut_or_goes_on_is_refused():
    data = small().pack(UUID)

    for size in range(len(data)):
        with pytest.raises(SnapshotCorrupt):
            Ledger.unpack(data[:size], "ledger", UUID, 17)
    for more in (b"\n", b" ", b"\0", data):
        with pytest.raises(SnapshotCorrupt):
            Ledger.unpack(data + more, "ledger", UUID, 17)


def test_a_ledger_of_another_format_journal_or_place_is_refused():
    data = small().pack(UUID)
    line = data.partition(b"\n")[0]
    later = json.dumps({**json.loads(line), "format": 2}).encode() + b"\n"

    for found, uuid, sequence in (
        (later + sha256(later).hexdigest().encode() + b"\n", UUID, 17),
        (data, bytes(16), 17),
        (data, UUID, 18),
    ):
        with pytest.raises(SnapshotCorrupt, match="ledger: expected format 1, this journal and sequence"):
            Ledger.unpack(found, "ledger", uuid, sequence)


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b"7", b"{", b"\xff", b'{"format":1}'])
def test_a_line_that_is_no_ledger_is_refused_whatever_its_sum(line):
    data = line + b"\n" + sha256(line + b"\n").hexdigest().encode() + b"\n"

    with pytest.raises(SnapshotCorrupt, match=r"^ledger: "):
        Ledger.unpack(data, "ledger", UUID, 17)


def test_a_ledger_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SnapshotCorrupt, match=r"00000000000000000017\.ledger: No such file or directory"):
        load_ledger(tmp_path, UUID, 17)


def test_the_newest_sound_ledger_is_chosen(tmp_path):
    for sequence in (5, 9, 12, 100):
        ledger = small()
        ledger.sequence = sequence
        path = ledger.save(tmp_path, UUID if sequence != 12 else bytes(16))
        path.with_suffix(".snapshot").touch()
    path.write_bytes(path.read_bytes()[:-1])
    ledger.sequence = 10
    ledger.save(tmp_path, UUID)  # the snapshot beside it was not written any more
    for other in ("notes.ledger", "7.ledger", "00000000000000000011.ledger.tmp", "00000000000000000011.snapshot"):
        (tmp_path / other).write_bytes(b"")

    assert newest_ledger(tmp_path, UUID) == 9
    assert newest_ledger(tmp_path, UUID, 9) == 9
    assert newest_ledger(tmp_path, UUID, 8) == 5
    assert newest_ledger(tmp_path, UUID, 4) == 0


def test_an_empty_or_missing_directory_has_no_ledger(tmp_path):
    assert newest_ledger(tmp_path, UUID) == 0
    assert newest_ledger(tmp_path / "none", UUID) == 0
