"""When several reasons apply to one command, the smallest number is told (REJECT-0).

`reasons` says for a command and a fixed small world *every* reason of specs/rejects.md that applies, each tested on its
own: it knows nothing of precedence.  From a few commands, all that differ from one of them in up to three places are
made; an engine must tell the least of the reasons.  How many pairs of reasons meet is pinned, because a grid that grew
blind would pass everything.
"""

from collections.abc import Iterator
from itertools import combinations, product
from typing import Final, NamedTuple

import pytest

from ferrox.messages import COMMAND, RECORD, unpack_reports
from ferrox.state import unpack_state
from ferrox.terms import ACCOUNT_MAX, INSTRUMENT_MAX, PRICE_MAX, QUANTITY_MAX, Reason, ReportKind
from ferrox.testing.sessions import apply_all, read_session, run_session

# As many orders rest and as many instruments are defined as the engine can hold, so that both may be full.
WORLD: Final = """
    instrument 1 tick 5 lot 10 band -1000 1000 open -> instrument-defined 1 tick 5 lot 10 band -1000 1000 open
    instrument 2 tick 5 lot 10 band 0 1000 open     -> instrument-defined 2 tick 5 lot 10 band 0 1000 open
    instrument 3 tick 5 lot 10 band 0 1000 open     -> instrument-defined 3 tick 5 lot 10 band 0 1000 open
    buy  #1 20 @ 100                                -> new #1 20 @ 100
    sell #2 20 @ 200                                -> new #2 20 @ 200
    buy  #3 20 @ 100 on 3                           -> new #3 20 @ 100 on 3
    sell #4 20 @ 200 on 3                           -> new #4 20 @ 200 on 3
    buy  #5 20 @ 100 on 2                           -> new #5 20 @ 100 on 2
    sell #6 20 @ 200 on 2                           -> new #6 20 @ 200 on 2
    state 2 halted                                  -> state-changed 2 halted
    state 3 pre-open                                -> state-changed 3 pre-open
"""
RESTING: Final = {1: (1, 1), 2: (1, 2), 3: (3, 1), 4: (3, 2), 5: (2, 1), 6: (2, 2)}  # id: instrument, side
BID, ASK = 100, 200  # in every book
STATES: Final = {1: "open", 2: "halted", 3: "pre-open"}
BANDS: Final = {1: (-1000, 1000), 2: (0, 1000), 3: (0, 1000)}

NEW_ORDER, CANCEL_ORDER, REPLACE_ORDER, MASS_CANCEL, DEFINE_INSTRUMENT, SET_TRADING_STATE, SET_LIMIT = range(1, 8)
SIZES: Final = {1: 32, 2: 16, 3: 32, 4: 16, 5: 32, 6: 16, 7: 32}


class Sent(NamedTuple):
    """A command in the common shape, with the two bytes of the envelope that judge it."""

    envelope_kind: int
    size: int
    kind: int
    a: int
    b: int
    c: int
    instrument: int
    ident: int
    price: int
    quantity: int
    display: int


def reasons(sent: Sent) -> set[Reason]:
    """Return every reason that applies; one that cannot be asked, such as the tick of no instrument, does not."""
    if sent.kind not in SIZES:
        return {Reason.UNKNOWN_KIND}
    found = {Reason.MALFORMED} if (sent.envelope_kind, sent.size) != (sent.kind, SIZES[sent.kind]) else set()
    if sent.kind in (NEW_ORDER, REPLACE_ORDER):
        return found | order_reasons(sent, new=sent.kind == NEW_ORDER)
    if sent.kind == SET_LIMIT:
        return found | limit_reasons(sent)
    if sent.b or sent.c or (sent.kind != DEFINE_INSTRUMENT and (sent.price or sent.quantity or sent.display)):
        found.add(Reason.MALFORMED)
    if sent.kind == MASS_CANCEL:
        return found | mass_cancel_reasons(sent)
    if not 1 <= sent.instrument <= INSTRUMENT_MAX:
        found.add(Reason.BAD_INSTRUMENT)
    if sent.kind == DEFINE_INSTRUMENT:
        return found | definition_reasons(sent)
    if sent.instrument not in STATES:
        found.add(Reason.UNKNOWN_INSTRUMENT)
    if sent.kind == CANCEL_ORDER:
        if sent.a:
            found.add(Reason.MALFORMED)
        if sent.ident <= 0:
            found.add(Reason.BAD_ORDER_ID)
        if RESTING.get(sent.ident, (0, 0))[0] != sent.instrument:
            found.add(Reason.UNKNOWN_ORDER)
        return found
    if sent.ident:
        found.add(Reason.MALFORMED)
    if not 1 <= sent.a <= 4:
        found.add(Reason.BAD_STATE)
    return found


def order_reasons(sent: Sent, *, new: bool) -> set[Reason]:
    """Return what applies to a new order or a replace."""
    side, time_in_force, flags = sent.a, sent.b, sent.c
    market, post_only, slide = bool(flags & 1), bool(flags & 2), bool(flags & 4)
    state = STATES.get(sent.instrument)
    low, high = BANDS.get(sent.instrument, (0, 0))
    crosses = not market and ((side == 1 and sent.price >= ASK) or (side == 2 and sent.price <= BID))
    resting = RESTING.get(sent.ident)
    rests_here = resting is not None and resting[0] == sent.instrument
    wrong = {
        Reason.BAD_SIDE: side not in (1, 2),
        Reason.BAD_TIME_IN_FORCE: time_in_force not in (1, 2, 3)
        or (new and market and time_in_force == 1)
        or (not new and time_in_force != 1),
        Reason.BAD_FLAGS: bool(flags & 0x88)
        or flags >> 4 > 4
        or (post_only and (market or time_in_force != 1))
        or (slide and not post_only)
        or (market and not new),
        Reason.BAD_INSTRUMENT: not 1 <= sent.instrument <= INSTRUMENT_MAX,
        Reason.BAD_ORDER_ID: sent.ident <= 0,
        Reason.BAD_PRICE: abs(sent.price) > PRICE_MAX or (market and sent.price != 0),
        Reason.BAD_QUANTITY: not 1 <= sent.quantity <= QUANTITY_MAX,
        Reason.BAD_DISPLAY: sent.display != 0,
        Reason.UNKNOWN_INSTRUMENT: state is None,
        Reason.NOT_OPEN: state == "halted" or (state == "pre-open" and new and (time_in_force != 1 or market)),
        Reason.UNKNOWN_ORDER: not new and not rests_here,
        Reason.DUPLICATE_ORDER_ID: new and resting is not None,
        Reason.SIDE_MISMATCH: not new and resting is not None and rests_here and resting[1] != side,
        Reason.OFF_TICK: state is not None and sent.price % 5 != 0 and not market,
        Reason.OFF_LOT: state is not None and sent.quantity % 10 != 0,
        Reason.OUTSIDE_BAND: state is not None and not low <= sent.price <= high and not market,
        Reason.ORDERS_FULL: new and time_in_force == 1 and not market,
        Reason.WOULD_CROSS: crosses and not slide and state is not None and (post_only or state == "pre-open"),
    }
    return {reason for reason, applies in wrong.items() if applies}


def mass_cancel_reasons(sent: Sent) -> set[Reason]:
    """Return what applies to a mass cancel."""
    names_instrument, names_account = sent.a in (1, 3), sent.a in (2, 3)
    known = 1 <= sent.a <= 4
    wrong = {
        Reason.BAD_INSTRUMENT: sent.instrument > INSTRUMENT_MAX
        or (known and (sent.instrument != 0) != names_instrument),
        Reason.BAD_SCOPE: not known,
        Reason.BAD_ACCOUNT: not 0 <= sent.ident <= ACCOUNT_MAX or (known and not names_account and sent.ident != 0),
        Reason.UNKNOWN_INSTRUMENT: names_instrument and sent.instrument not in STATES,
    }
    return {reason for reason, applies in wrong.items() if applies}


def definition_reasons(sent: Sent) -> set[Reason]:
    """Return what applies to a definition."""
    wrong = {
        Reason.BAD_TICK: not 1 <= sent.quantity <= 2**31 - 1,
        Reason.BAD_LOT: not 1 <= sent.display <= 2**31 - 1,
        Reason.BAD_BAND: sent.ident > sent.price or abs(sent.ident) > PRICE_MAX or abs(sent.price) > PRICE_MAX,
        Reason.BAD_STATE: not 1 <= sent.a <= 4,
        Reason.BOOK_NOT_EMPTY: sent.instrument in STATES,
        Reason.INSTRUMENTS_FULL: sent.instrument not in STATES,
    }
    return {reason for reason, applies in wrong.items() if applies}


def limit_reasons(sent: Sent) -> set[Reason]:
    """Return what applies to a limit: 1 is a kill, 4 a collar, 3 and 6 are of ticks times lots."""
    known = 1 <= sent.a <= 8
    greatest = {1: 1, 4: 2**40 - 1, 3: 2**62 - 1, 6: 2**62 - 1}.get(sent.a, 2**31 - 1)
    wrong = {
        Reason.MALFORMED: bool(sent.b or sent.c or sent.quantity or sent.display),
        Reason.BAD_INSTRUMENT: sent.instrument > INSTRUMENT_MAX
        or (known and sent.a not in (1, 4) and sent.instrument != 0),
        Reason.BAD_ACCOUNT: not 0 <= sent.ident <= ACCOUNT_MAX
        or (sent.a == 4 and sent.ident != 0)
        or (sent.a == 1 and sent.instrument != 0 and sent.ident != 0),
        Reason.BAD_LIMIT: not known,
        Reason.BAD_VALUE: known and not 0 <= sent.price <= greatest,
    }
    return {reason for reason, applies in wrong.items() if applies}


# For each kind: commands to start from, what each place may be changed to, in how many places at once, and how many
# pairs of reasons meet then.
ENVELOPES: Final = {"size": [16, 32], "envelope_kind": [1, 2, 3, 4, 5, 6, 7], "kind": [9]}
PRICES: Final = [200, 100, 101, 1005, 1006, 201, 1099511627775, 1099511627776, 2**63 - 1, -(2**63), 0]
ORDERS: Final = ENVELOPES | {
    "a": [0, 1, 2, 3],
    "b": [0, 1, 2, 3, 4],
    "c": [0, 1, 2, 4, 6, 8, 0x50, 0x83],
    "instrument": [0, 1, 2, 3, 9, 2**20, 2**32 - 1],
    "ident": [0, 1, 2, 3, 5, 9, -(2**63)],
    "price": PRICES,
    "quantity": [0, 1, 10, 11, 2**31, 2**32 - 1],
    "display": [0, 1],
}
CHANGES: Final[dict[int, tuple[list[Sent], dict[str, list[int]], int, int]]] = {
    NEW_ORDER: (
        [
            Sent(1, 32, 1, 1, 1, 2, 1, 9, 200, 10, 0),
            Sent(1, 32, 1, 1, 2, 0, 3, 9, 200, 10, 0),
            Sent(1, 32, 1, 2, 2, 1, 1, 1, 0, 10, 0),
        ],
        ORDERS,
        2,
        123,
    ),
    REPLACE_ORDER: (
        [
            Sent(3, 32, 3, 1, 1, 2, 1, 1, 200, 20, 0),
            Sent(3, 32, 3, 1, 1, 0, 3, 3, 200, 20, 0),
            Sent(3, 32, 3, 1, 1, 2, 2, 5, 200, 20, 0),
        ],
        ORDERS,
        2,
        121,
    ),
    CANCEL_ORDER: (
        [Sent(2, 16, 2, 0, 0, 0, 1, 9, 0, 0, 0)],
        ENVELOPES
        | {"a": [1], "b": [1], "c": [1], "instrument": [0, 2, 9, 2**20], "ident": [0, -1, 3]}
        | {"price": [1], "quantity": [1], "display": [1]},
        3,
        10,
    ),
    MASS_CANCEL: (
        [Sent(4, 16, 4, 1, 0, 0, 9, 0, 0, 0, 0), Sent(4, 16, 4, 2, 0, 0, 1, 7, 0, 0, 0)],
        ENVELOPES
        | {"a": [0, 1, 2, 3, 4, 5], "b": [1], "c": [1], "instrument": [0, 1, 9, 2**20], "ident": [0, 7, -1, 2**23]}
        | {"price": [1], "quantity": [1], "display": [1]},
        3,
        9,
    ),
    DEFINE_INSTRUMENT: (
        [Sent(5, 32, 5, 1, 0, 0, 1, 0, 10, 1, 1), Sent(5, 32, 5, 1, 0, 0, 9, 0, 10, 1, 1)],
        ENVELOPES
        | {"a": [0, 5], "b": [1], "c": [1], "instrument": [0, 2, 2**20], "ident": [11, -(2**40)]}
        | {"price": [-1, 2**40], "quantity": [0, 2**31], "display": [0, 2**31]},
        3,
        26,
    ),
    SET_TRADING_STATE: (
        [Sent(6, 16, 6, 1, 0, 0, 9, 0, 0, 0, 0)],
        ENVELOPES
        | {"a": [0, 5], "b": [1], "c": [1], "instrument": [0, 2**20], "ident": [1]}
        | {"price": [1], "quantity": [1], "display": [1]},
        3,
        6,
    ),
    SET_LIMIT: (
        [Sent(7, 32, 7, 1, 0, 0, 0, 7, 1, 0, 0), Sent(7, 32, 7, 4, 0, 0, 9, 0, 1, 0, 0)],
        ENVELOPES
        | {"a": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255], "b": [1], "c": [1], "instrument": [0, 9, 2**20]}
        | {"ident": [0, 7, -1, 2**23], "price": [-1, 2, 2**31, 2**40, 2**62], "quantity": [1], "display": [1]},
        3,
        9,
    ),
}


def commands(bases: list[Sent], changes: dict[str, list[int]], places: int) -> Iterator[Sent]:
    """Give every command that differs from a base in at most so many places."""
    seen = set()
    for base in bases:
        for count in range(places + 1):
            for names in combinations(changes, count):
                for values in product(*(changes[name] for name in names)):
                    sent = base._replace(**dict(zip(names, values, strict=True)))
                    if sent not in seen:
                        seen.add(sent)
                        yield sent


@pytest.mark.parametrize("kind", CHANGES)
def test_the_smallest_reason_is_told(kind: int, make):
    """REJECT-0."""
    bases, changes, places, pairs = CHANGES[kind]
    rejected = [(sent, told) for sent in commands(bases, changes, places) if (told := reasons(sent))]
    engine = run_session(read_session(WORLD), make(orders=6, instruments=3))
    first = unpack_state(engine.snapshot()).sequence + 1

    records = b"".join(
        RECORD.pack(0, 0, sequence, 0, sent.envelope_kind, sent.size, 0, 0, *sent[2:])
        for sequence, (sent, _) in enumerate(rejected, first)
    )
    reports = unpack_reports(apply_all(engine, records))

    assert len(reports) == len(rejected)
    for (sent, told), report in zip(rejected, reports, strict=True):
        assert Reason(report.reason) == min(told), (sent, sorted(told), COMMAND.pack(*sent[2:]).hex())
        assert report.kind in (ReportKind.REJECTED, ReportKind.CANCEL_REJECTED, ReportKind.REPLACE_REJECTED)
    met = {pair for _, told in rejected for pair in combinations(sorted(told), 2)}
    assert len(met) == pairs
