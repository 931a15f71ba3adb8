"""What an engine said is stated in the journal, and a replay that says otherwise is refused."""

import pytest

from ferrox.engine import Capacity, make_engine
from ferrox.errors import NotDeterministic
from ferrox.journal import Journal, Source, Tally, command_records, read
from ferrox.journal.tally import parts
from ferrox.messages import RECORD_SIZE, REPORT_SIZE, DefineInstrument, NewOrder
from ferrox.terms import Side, TimeInForce, TradingState

CAPACITY = Capacity(orders=1000, instruments=10)
EVERY = 100
"""Records from one statement to the next, here."""


def create(path, seed=7):
    return Journal.create(path, CAPACITY, source=Source.seeded(seed))


def commands(count):
    """An instrument, then orders that trade now and then."""
    frames = [DefineInstrument(TradingState.OPEN, 1, 0, 1000, 1, 1).pack()]
    frames += [
        NewOrder(Side.SELL if n % 3 else Side.BUY, TimeInForce.GTC, 0, 1, n, 100 + n % 7, 1 + n % 5).pack()
        for n in range(1, count)
    ]
    return command_records(frames, time_ns=1)


def apply(engine, records):
    said = b""
    while records:
        taken, reports = engine.apply(records)
        said += bytes(reports)
        records = records[taken * RECORD_SIZE :]
    return said


def live(journal, engine, tally, records, step=7):
    """Be the live side: append, apply, note, and state when it is due."""
    for at in range(0, len(records), step * RECORD_SIZE):
        tally.note(apply(engine, journal.append(records[at : at + step * RECORD_SIZE])))
        if journal.sequence >= tally.due:
            apply(engine, journal.mark(*tally.statement(journal.sequence)))
            tally.restart(journal.sequence + 1, anchored=True)


def replay(path, start=1, batch=64, lie=lambda _sequence, said: said, engine=None):
    """Be the replaying side; `lie` may change what the engine said to a part, of which it gets the last sequence."""
    tally = Tally(start)
    engine = engine or make_engine("reference", CAPACITY)
    for records in read(path, start, batch=batch):
        for part in parts(records):
            tally.note(lie(int.from_bytes(part[-56:-48], "little"), apply(engine, part)))
            tally.compare(part)
    return tally


@pytest.fixture
def run(tmp_path):
    """A journal of 500 commands with statements at 106 (99 rounded up to whole steps, and the MARK), 213 and so on."""
    with create(tmp_path / "j") as journal:
        live(journal, make_engine("reference", CAPACITY), Tally(1, every=EVERY), commands(500))
    return tmp_path / "j"


@pytest.mark.parametrize("batch", [1, 7, 64, 106, 4096])
@pytest.mark.parametrize("name", ["reference", "fast"])
def test_every_engine_in_batches_of_any_size_says_what_was_stated(name, batch, run):
    """JRN-21."""
    assert replay(run, batch=batch, engine=make_engine(name, CAPACITY)).checked == 4


@pytest.mark.parametrize("turn", [0, 1, 3])
def test_a_report_that_differs_is_told_with_the_statement_that_it_breaks(turn, run):
    """JRN-21."""

    def lie(sequence, said):
        if sequence // 106 == turn and said:
            return bytes([said[0] ^ 1]) + said[1:]
        return said

    with pytest.raises(NotDeterministic) as error:
        replay(run, batch=1, lie=lie)

    assert error.value.first <= turn * 106 + 105 <= error.value.last + turn
    assert error.value.expected[0] == error.value.found[0]
    assert error.value.expected[1] != error.value.found[1]
    assert f"as the MARK of sequence {error.value.last + 1} states" in str(error.value)


def test_a_report_too_few_or_too_many_is_told(run):
    for lie, more in ((lambda _, said: said[REPORT_SIZE:], -1), (lambda _, said: said + said[:REPORT_SIZE], 1)):
        with pytest.raises(NotDeterministic) as error:
            replay(run, batch=4096, lie=lie)
        assert error.value.found[0] - error.value.expected[0] == more


@pytest.mark.parametrize(("start", "checked"), [(1, 4), (2, 3), (106, 3), (107, 3), (108, 2), (500, 0)])
def test_a_replay_that_begins_behind_what_a_statement_is_about_passes_over_it(start, checked, run):
    """JRN-21: from a snapshot, say."""
    engine = make_engine("reference", CAPACITY)
    before = b"".join(read(run, until=start - 1))
    apply(engine, before)

    assert replay(run, start, engine=engine).checked == checked


def test_a_run_that_begins_where_no_replay_does_states_where_it_begins_first(tmp_path):
    """JRN-21: a venue that began from a snapshot; what comes behind that first statement is checked again."""
    engine = make_engine("reference", CAPACITY)
    with create(tmp_path / "j") as journal:
        apply(engine, journal.append(commands(50)))
        live(journal, engine, Tally(51, every=EVERY), commands(500)[50 * RECORD_SIZE :])

    assert replay(tmp_path / "j").checked == 3
    with pytest.raises(NotDeterministic):
        replay(tmp_path / "j", lie=lambda sequence, said: said[REPORT_SIZE:] if sequence > 160 else said)


def test_marks_that_state_nothing_change_nothing(tmp_path):
    """JRN-21."""
    engine = make_engine("reference", CAPACITY)
    tally = Tally(1, every=EVERY)
    with create(tmp_path / "j") as journal:
        for at in range(0, 500, 50):
            live(journal, engine, tally, commands(500)[at * RECORD_SIZE : (at + 50) * RECORD_SIZE])
            apply(engine, journal.mark())  # which has a sequence number, too

    assert replay(tmp_path / "j").checked == 5


def test_parts_are_all_records_and_end_where_something_is_stated(tmp_path):
    with create(tmp_path / "j") as journal:
        one = journal.append(commands(3)) + journal.mark() + journal.mark(1, 2, 3)
        two = journal.mark(6, 0, 0)
        three = journal.append(commands(3))

    assert list(parts(one + two + three)) == [one, two, three]
    assert list(parts(one + two)) == [one, two]
    assert list(parts(three)) == [three]
    assert list(parts(b"")) == []
