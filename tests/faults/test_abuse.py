"""Fault tests 50 to 58 and 61, byte by byte: what clients may send, and what comes of it.

The lanes are given packets, a gateway and a matcher in this process are given connections, and turns instead of time;
what each command must be answered with is what the model of `tests/properties/test_desk.py` says, or an engine that is
asked beside it.  Whole services, with signals, stand in `test_abuse_service.py`.
"""

import gc
import itertools
import random
import resource
import struct
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ferrox.service.gateway as gateway_module
from ferrox.client.protocol import EntryProtocol, Phase
from ferrox.engine import Capacity, make_engine
from ferrox.entry import login, packet, sign
from ferrox.fast import COMPILED, FastEngine
from ferrox.fast.layout import CHAIN, MULTIPLIER, RESTING
from ferrox.journal import read
from ferrox.lanes.admission import admit
from ferrox.lanes.desk import BATCH, OPERATOR, TRADER, Desk
from ferrox.lanes.packets import pack_packets
from ferrox.lanes.ring import Ring, make_ring
from ferrox.lanes.routing import load_orders, route
from ferrox.lanes.tape import TapeReader, TapeWriter, make_tape
from ferrox.messages import (
    RECORD_SIZE,
    REPORT,
    CancelOrder,
    Command,
    DefineInstrument,
    MassCancel,
    NewOrder,
    ReplaceOrder,
    Report,
    SetLimit,
    SetTradingState,
)
from ferrox.state import SNAPSHOT_ORDER
from ferrox.terms import CommandKind, Limit, Reason, Refusal, ReportKind, Scope
from ferrox.testing.sessions import apply_all, to_record, to_records
from ferrox.testing.strategies import RawFrame, World

sys.path.insert(0, str(Path(__file__).parent))

from abuse_kit import Packet, inside  # type: ignore[import-not-found]
from kit import share  # type: ignore[import-not-found]
from test_desk import ROWS, Venue  # type: ignore[import-not-found]

pytestmark = pytest.mark.faults

BUY, SELL, GTC, IOC = 1, 2, 1, 2
SECOND = 1_000_000_000
PRICE_MAX, QUANTITY_MAX, REFERENCE_MAX = 2**40 - 1, 2**31 - 1, 2**40 - 1
ENGINES = ["reference", "fast"]
WORLD = World(instruments=2)
BOUNDS = [0, 1, 2, 0x7F, 0x80, 0xFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40 - 1, 2**40, 2**62 - 1, 2**62, 2**63 - 1, 2**63]
BOUNDS += [2**64 - 1, 2**64 - 2**40, 2**64 - 2**40 + 1]


def order(side, price, quantity, instrument=1, time_in_force=GTC):
    return NewOrder(side, time_in_force, 0, instrument, 0, price, quantity)


def kinds(references):
    """Return one good frame of each kind; the orders among them name the reference, or the one before."""
    return [
        NewOrder(BUY, GTC, 0x10, 1, references, 100, 3).pack(),
        CancelOrder(1, references - 1).pack(),
        ReplaceOrder(BUY, GTC, 0, 1, references - 1, 101, 2).pack(),
        MassCancel(Scope.ACCOUNT_IN_INSTRUMENT, 1).pack(),
        DefineInstrument(2, 2, 98, 103, 1, 1).pack(),
        SetTradingState(2, 1).pack(),
        SetLimit(Limit.MAX_QUANTITY, 0, 7, 5).pack(),
    ]


# ----------------------------------------------------------------------------------------------------- 50: every byte


def opened(engine):
    """Return a desk, an engine behind it and the model beside it, with everybody logged in."""
    venue = Venue(engine, WORLD)
    for account in ROWS:
        venue.login(account, True)
    return venue


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("account", [1, 0], ids=["trader", "operator"])
def test_every_byte_of_every_command_is_answered_as_the_rules_say(engine, account, tally):
    """Fault test 50: each value at each place of each frame, and of its reference, through admission and an engine.

    After each step the desk holds what the model and the engine's own snapshot say: what is refused changes nothing.
    """
    venue = opened(engine)
    for which, frame in enumerate(kinds(2)):
        for place in range(-8, len(frame)):
            if len(venue.journal) > 100_000:  # it is copied with every record
                venue.finish()
                venue = opened(engine)
            seen = venue.model.accounts[account].seen
            if place < 0:
                for value in range(256):
                    venue.login(account, True)
                    seen = venue.model.accounts[account].seen
                    mutated = bytearray(struct.pack("<q", seen + 1))
                    mutated[place] = value
                    step = int.from_bytes(mutated, "little", signed=True) - seen
                    venue.send(account, [(RawFrame(kinds(seen + 1)[which]), step, -1)], BATCH, 0)
            else:
                said = [bytearray(kinds(seen + 1 + value)[which]) for value in range(256)]
                for value, mutated in enumerate(said):
                    mutated[place] = value
                for first in range(0, 256, 32):
                    part = [(RawFrame(bytes(one)), 1, -1) for one in said[first : first + 32]]
                    venue.send(account, part, BATCH, 0)
                    venue.answer(len(venue.waiting))
            venue.answer(len(venue.waiting))
            venue.check()
            tally.trial()
            tally["trials"] += 255
    venue.finish()
    assert tally["trials"] == 256 * (4 * 32 + 3 * 16 + 7 * 8)


def mutated(dice, reference, operator):
    """Return a frame that was good, and of which a few bytes or words are anything; or nothing but noise."""
    if dice.random() < 0.05:
        return dice.randbytes(dice.choice((16, 32)))
    good = kinds(reference)
    frame = bytearray(dice.choice(good[3:] if operator else good[:4]) if dice.random() < 0.95 else dice.choice(good))
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3))):
        if dice.random() < 0.5:
            frame[dice.randrange(len(frame))] = dice.randrange(256)
        else:
            at = dice.randrange(0, len(frame), 4)
            size = dice.choice((4, 8)) if at % 8 == 0 else 4
            frame[at : at + size] = (dice.choice(BOUNDS) & (1 << 8 * size) - 1).to_bytes(size, "little")
    if dice.random() < 0.02:  # of the other size than its kind
        frame = bytearray(bytes(frame[:16]) if len(frame) == 32 else bytes(frame) + bytes(16))
    return bytes(frame)


@pytest.mark.parametrize("engine", ENGINES)
def test_frames_that_are_anything_are_answered_as_the_rules_say(engine, tally):
    """Fault test 50: a hundred thousand, ten million in the long run, by three users, with limits and without."""
    dice = random.Random(f"frames {engine}")
    total = share(100_000, 5_000_000)
    reasons: Counter[int] = Counter()
    while tally["trials"] < total:
        venue = opened(engine)
        if dice.random() < 0.5:
            venue.set_limit(1, "MAX_NOTIONAL", dice.choice((1, 300, 2**61, 2**62 - 1)))
            venue.set_limit(2, "MAX_EXPOSURE", dice.choice((1, 900, 2**61, 2**62 - 1)))
            venue.set_limit(2, "MAX_QUANTITY", 2)
            venue.set_limit(2, "ORDER_RATE", 3)
        for _ in range(60):
            account = dice.choice((0, 1, 1, 1, 2, 2))
            venue.login(account, True)
            seen = venue.model.accounts[account].seen
            said = []
            for _ in range(32):
                step = 1 if dice.random() < 0.97 else dice.choice((0, -1, 2, 65_534, 65_535))
                said.append((RawFrame(mutated(dice, seen + step, account == 0)), step, -1))
                seen = max(seen, seen + step)
            venue.send(account, said, BATCH if dice.random() < 0.9 else 5, dice.choice((0, 1, SECOND // 3)))
            if dice.random() < 0.7:
                venue.answer(dice.choice((7, 100)))
            venue.check()
            tally["trials"] += 32
        venue.finish()
        reasons += venue.refused
    missing = {Refusal.DISK_LOW, Refusal.KILLED, Refusal.COLLAR, Refusal.OPEN_ORDERS}
    assert {*range(1, 19), *Refusal} - reasons.keys() <= missing


def test_both_engines_answer_every_byte_of_every_frame_alike(tally):
    """Fault test 50: behind the gateway, where every frame is judged again; a reject leaves the state as it was."""
    both = [make_engine(name, Capacity(64, 8)) for name in ENGINES]
    prelude: list[Command] = [
        *WORLD.definitions(),
        NewOrder(SELL, GTC, 0, 1, 1, 101, 2),
        NewOrder(SELL, GTC, 0, 1, 7, 102, 2),
    ]
    setting = to_records(command.pack() for command in prelude)
    for engine in both:
        apply_all(engine, setting)
    sequence = len(prelude)
    kept = [engine.snapshot() for engine in both]
    assert kept[0] == kept[1]
    rejects: Counter[int] = Counter()
    for frame in [*kinds(2), MassCancel(Scope.VENUE).pack()]:
        for place, value in itertools.product(range(len(frame)), range(256)):
            changed = bytearray(frame)
            changed[place] = value
            sequence += 1
            record = to_record(sequence, bytes(changed))
            reference, fast = (apply_all(engine, record) for engine in both)
            tally.trial()
            tally.expect("wrong", reference == fast, changed.hex())
            report = Report._make(REPORT.unpack(reference[:48]))
            if ReportKind.REJECTED <= report.kind <= ReportKind.REPLACE_REJECTED:
                rejects[report.reason] += 1
                after = both[1].snapshot()
                assert after[32:] == kept[1][32:], changed.hex()  # behind sequence and time
                continue
            for engine, snapshot in zip(both, kept, strict=True):
                engine.restore(snapshot)
            sequence = len(prelude)
    assert len(rejects) > 20


# ------------------------------------------------------------------------------------------ 50: every kind of packet

LENGTHS = [0, 1, 2, 24, 25, 26, 40, 41, 42, 72, 73, 74, 127, 128, 129, 255, 256, 6400, 65535]
RIGHT = {b"L": (73,), b"U": (25, 41), b"R": (1,), b"O": (1,), b"+": range(1, 129)}


def headers():
    """Return the headers to be tried: every type with the lengths that matter, and the known types with all."""
    every = range(share(0, 301))
    some = [(length, bytes((letter,))) for letter in range(256) for length in sorted({*LENGTHS, *every})]
    return some + [(length, letter) for letter in RIGHT for length in range(301)]


def crowd():
    """Give addresses of this machine, no two alike: logins fail by address."""
    return (f"127.{a}.{b}.{c}" for a in range(1, 255) for b in range(1, 255) for c in range(1, 255))


@pytest.mark.parametrize("logged_in", [False, True], ids=["before the login", "behind it"])
def test_every_header_is_a_packet_or_the_end_of_the_connection(logged_in, tmp_path, tally):
    """Fault test 50, ENTRY-2, ENTRY-5: what the table does not have ends the connection, and only that."""
    with inside(tmp_path) as venue:
        talker, addresses = None, crowd()
        before = venue.state()
        for length, letter in headers():
            if talker is None or talker.ended:
                talker = venue.talker("maker" if logged_in else "", address=next(addresses))
                assert logged_in or talker.challenge
            data = struct.pack(">HB", length, letter[0]) + bytes(max(0, min(length - 1, 200)))
            found = venue.answers(talker, data)
            talker.read()
            right = length in RIGHT.get(letter, ())
            if not right or (letter == b"L" if logged_in else letter in (b"U", b"R", b"O")):
                expected, ends = [], True
            elif letter == b"L":
                expected, ends = [Packet(b"J", b"A")], True
            elif letter == b"U":
                expected, ends = [Packet(b"U", bytes(13) + b"\x83" + bytes(2))], False
            elif letter == b"O":
                expected, ends = [Packet(b"Z", b"")], True
            else:
                expected, ends = [], False
            tally.trial()
            assert (found, talker.ended) == (expected, ends), (length, letter)
        assert venue.state() == before
        assert venue.gateway.ring.look() == 0


# ------------------------------------------------------------------------------------------------- 51: the boundaries

PRICES = [-(2**63), -(2**62), -(2**40), -PRICE_MAX, -PRICE_MAX + 1, -(2**31) - 2, -(2**31) - 1, -(2**31), -1, 0, 1]
PRICES += [2**31 - 1, 2**31, 2**31 + 1, 2**31 + 2, PRICE_MAX - 1, PRICE_MAX, 2**40, 2**62, 2**63 - 1]
QUANTITIES = [0, 1, 2, 2**22, 2**22 + 4, 2**22 + 5, QUANTITY_MAX - 1, QUANTITY_MAX, 2**31, 2**32 - 1]
IDS = [-(2**63), -1, 0, 1, 2, REFERENCE_MAX - 1, REFERENCE_MAX, REFERENCE_MAX + 1, 2**62, 2**63 - 1]
MONEY = [0, 1, 2**61, 2**62 - 2, 2**62 - 1]
WIDE = World(instruments=2, low=-PRICE_MAX, high=PRICE_MAX)


@pytest.mark.parametrize("money", MONEY)
def test_the_bounds_of_price_quantity_and_money_are_those_of_plain_integers(money, tally):
    """Fault test 51, RISK-1, RISK-3: products around 2^62, one behind the other, and both engines say the same."""
    venues = [Venue(name, WIDE) for name in ENGINES]
    for venue in venues:
        for account in ROWS:
            venue.login(account, True)
        venue.set_limit(1, "MAX_NOTIONAL", money)
        venue.set_limit(2, "MAX_EXPOSURE", money)
    for account, kind, side in itertools.product((1, 2), (1, 3), (BUY, SELL)):
        for price, quantity in itertools.product(PRICES, QUANTITIES):
            frame = struct.pack("<BBBBIqqII", kind, side, GTC, 0, 1, 0, price, quantity, 0)
            for venue in venues:
                venue.send(account, [(RawFrame(frame), 1, 0)], BATCH, 0)  # its own reference, or that of the last order
                if len(venue.waiting) > 3:
                    venue.answer(2)
                    venue.check()
            tally.trial()
    for venue in venues:
        venue.finish()
    tally.expect("wrong", venues[0].streams == venues[1].streams)
    assert venues[0].refused == venues[1].refused
    assert {Refusal.MAX_NOTIONAL, Refusal.EXPOSURE, Reason.BAD_PRICE, Reason.BAD_QUANTITY} <= venues[0].refused.keys()


def test_the_bounds_of_references_and_ids_are_those_of_plain_integers(tally):
    """Fault test 51, ENTRY-9, ENTRY-10, LIM-3: each reference with each id, of each kind that names an order."""
    venues = [Venue(name, WIDE) for name in ENGINES]
    for reference, ident, kind in itertools.product(IDS, IDS, (1, 2, 3)):
        frame = struct.pack("<BBBBIqqII", kind, BUY, GTC, 0, 1, ident, 5, 1, 0)
        frame = struct.pack("<BxxxIq", kind, 1, ident) if kind == 2 else frame
        for venue in venues:
            venue.login(1, True)
            step = reference - venue.model.accounts[1].seen
            venue.send(1, [(RawFrame(frame), step, -1)], BATCH, 0)
            venue.answer(1)
            venue.check()
        tally.trial()
    for venue in venues:
        venue.finish()
    tally.expect("wrong", venues[0].streams == venues[1].streams)
    assert venues[0].model.accounts[1].taken == REFERENCE_MAX


class Said(EntryProtocol):
    """A client that is logged in, and whose bytes nobody reads."""

    def __init__(self):
        super().__init__("maker", b"m" * 32)
        self.phase, self.account = Phase.ACTIVE, 7


@pytest.mark.parametrize("value", [2**63, 2**64, 2**61 - 1 << 70, -(2**63) - 1, 10**4000, 1.5, "5", None])
def test_what_no_frame_can_say_is_an_error_of_the_client(value, tally):
    """Fault test 58: unbounded integers, which could be made to collide in a dict, never get beyond the client."""
    attempts: list[Command] = [
        NewOrder(BUY, GTC, 0, 1, 0, value, 1),
        NewOrder(BUY, GTC, 0, 1, 0, 1, value),
        NewOrder(BUY, GTC, 0, value, 0, 1, 1),
        NewOrder(BUY, GTC, 0, 1, value, 1, 1),
        NewOrder(value, GTC, 0, 1, 0, 1, 1),
        CancelOrder(1, value),
        CancelOrder(value, 1),
        ReplaceOrder(BUY, GTC, 0, 1, value, 1, 1),
        MassCancel(Scope.ACCOUNT, value),
        SetLimit(1, 0, 0, value),
    ]
    for command in attempts:
        client = Said()
        tally.trial()
        with pytest.raises(ValueError, match="does not fit its frame") as told:
            client.send(command)
        assert len(str(told.value)) < 10_000
        assert (client.reference, client.waiting, client.data_to_send(0)) == (0, [], b"")
    if isinstance(value, int):
        with pytest.raises(ValueError, match="is not above 0, the last one, and below 2"):
            Said().send(CancelOrder(1, 1), value)


# ------------------------------------------------------------------------------------- 52: who sends little, and much


def answered_in(venue, talker, command):
    """Send an order, and return in how many turns it was answered."""
    talker.send(talker.command(command))
    turns = venue.until(talker.read)
    assert [one.letter for one in talker.take()] == [b"S"]
    return turns


def test_a_crowd_that_sends_byte_by_byte_costs_nobody_a_turn(tmp_path, tally, monkeypatch):
    """Fault test 52: a thousand connections that log in a byte at a time, and another client that trades meanwhile."""
    monkeypatch.setattr(gateway_module, "LOGIN_SECONDS", 600.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4_096), hard), hard))
    count = 1_000
    with inside(tmp_path, connections=1_100) as venue:
        taker = venue.talker("taker")
        slow = [venue.talker(address=f"127.1.{n // 250}.{n % 250 + 1}") for n in range(count)]
        texts = [packet(b"L", login("maker", b"w" * 32, one.challenge)) for one in slow]
        assert len(venue.gateway.connections) == count + 1
        for place in range(len(texts[0])):
            for one, text in zip(slow, texts, strict=True):
                one.send(text[place : place + 1])
            turns = answered_in(venue, taker, order(BUY, 10, 1))
            tally.trial(count)
            assert turns <= 2, place
        venue.until(lambda: len(venue.gateway.connections) == 1)
        assert all(one.take() == [Packet(b"J", b"A")] for one in slow)
        silent = [venue.talker(address=f"127.2.{n // 250}.{n % 250 + 1}") for n in range(count)]
        assert all(one.challenge for one in silent)
        monkeypatch.setattr(gateway_module, "LOGIN_SECONDS", 0.0)
        venue.gateway.tick_at = 0
        venue.until(lambda: len(venue.gateway.connections) == 1)
        assert answered_in(venue, taker, order(BUY, 10, 1)) <= 2


BURSTS = {
    "heartbeats": packet(b"R"),
    "empty texts": packet(b"+"),
    "texts": packet(b"+", b"U" * 127),
    "refused": packet(b"U", struct.pack("<q", 0) + CancelOrder(1, 1).pack()),
    "heartbeats and refused": packet(b"R")
    + packet(b"U", struct.pack("<q", 0) + CancelOrder(1, 1).pack())
    + packet(b"+"),
    "what the engine rejects": b"",
}


@pytest.mark.parametrize("what", BURSTS)
def test_a_burst_is_taken_in_a_few_calls_and_costs_nobody_a_turn(what, tmp_path, tally, monkeypatch):
    """Fault test 52: 64 KiB at once; the gateway's own loop, which is not compiled, sees none of its small packets."""
    with inside(tmp_path, ring=16_384) as venue:
        taker, loud = venue.talker("taker"), venue.talker("maker")
        calls = 0
        other = venue.gateway._other

        def counted(*arguments):
            nonlocal calls
            calls += 1
            return other(*arguments)

        monkeypatch.setattr(venue.gateway, "_other", counted)
        for _ in range(share(20, 500)):
            one = BURSTS[what]
            burst = (
                one * (65_536 // len(one)) if one else b"".join(loud.command(CancelOrder(1, 1)) for _ in range(2_400))
            )
            calls = 0
            loud.send(burst)
            turns = answered_in(venue, taker, order(BUY, 10, 1))
            tally.trial()
            assert turns <= 3  # the matcher takes the burst first, where the ring has it first
            assert calls <= 8 * turns
            venue.settle()
            loud.take()
        assert not loud.ended


# --------------------------------------------------------------------------------------------- 53: what is not there


def test_an_order_that_is_not_there_is_rejected_alike_whatever_became_of_it(tmp_path, tally):
    """Fault test 53: foreign, unknown, filled, canceled, and of a slot that another order has by now.

    The answers to cancels and replaces differ in their numbers and in the reference that was named, and nowhere else.
    """
    with inside(tmp_path) as venue:
        maker, taker = venue.talker("maker"), venue.talker("taker")
        say = [order(SELL, 101, 5), order(SELL, 102, 5), order(SELL, 103, 5), CancelOrder(1, 2), order(SELL, 104, 5)]
        for command in say:
            venue.answers(maker, maker.command(command))
        foreign = 50  # of the taker, who rests with it: nobody else has this reference
        venue.answers(taker, taker.command(order(BUY, 101, 5)))
        taker.reference = foreign - 1
        venue.answers(taker, taker.command(order(BUY, 99, 5)))
        maker.take()
        named = {"filled": 1, "canceled, its slot taken again": 2, "a cancel": 4, "foreign": foreign, "unknown": 60_000}
        before = venue.state()
        for instrument, make in itertools.product((1, 2), (CancelOrder, ReplaceOrder)):
            found = set()
            for what, reference in named.items():
                command = CancelOrder(instrument, reference)
                if make is ReplaceOrder:
                    command = ReplaceOrder(SELL, GTC, 0, instrument, reference, 104, 5)
                (answer,) = venue.answers(maker, maker.command(command))
                report = Report._make(REPORT.unpack(answer.payload[8:]))
                assert (report.order_id, report.reason) == (7 << 40 | reference, Reason.UNKNOWN_ORDER), what
                found.add((answer.letter, REPORT.pack(*report._replace(sequence=0, order_id=0))))
                tally.trial()
                tally.expect("wrong", venue.state() == before, what)
            assert len(found) == 1
        assert taker.take() == []


# ------------------------------------------------------------------------------------------------------- 55: logins


def test_a_thousand_bad_logins_are_rejected_and_then_throttled_by_address(tmp_path, tally):
    """Fault test 55, ENTRY-4: three an address are told why; a right one is taken all the while, from there as well."""
    with inside(tmp_path) as venue:
        taker = venue.talker("taker", address="127.9.9.9")
        answers: Counter[Packet] = Counter()
        for n, address in zip(range(200), crowd(), strict=False):
            for _ in range(5):
                talker = venue.talker(address=address)
                answer = talker.login("maker" if n % 2 else "nobody", secret=b"w" * 32)
                venue.until(lambda one=talker: one.read() and one.ended)
                answers[answer] += 1
                tally.trial()
            assert answer == Packet(b"J", b"T")
            if n % 20 == 0:
                talker = venue.talker("maker", address=address)
                assert venue.talker(address="127.9.9.9").login("maker") == Packet(b"J", b"U")
                talker.close()
                venue.until(lambda: len(venue.gateway.connections) == 1)
        assert answers == {Packet(b"J", b"A"): 600, Packet(b"J", b"T"): 400}
        assert venue.gateway.row.words[venue.gateway.row.places["refused_logins"]] == 1_010
        assert answered_in(venue, taker, order(BUY, 10, 1)) <= 2


def steps_of(venue, talker, *, user, secret, session=""):
    """Return each line of the gateway and of what it calls that a login goes through, and the answer."""
    lines: list[tuple[str, int]] = []

    def local(frame, event, _argument):
        if event == "line":
            lines.append((frame.f_code.co_qualname if hasattr(frame.f_code, "co_qualname") else "", frame.f_lineno))
        return local

    request = packet(b"L", login(user, secret, talker.challenge, session=session))
    (connection,) = (one for one in venue.gateway.connections.values() if one.user is None)
    sys.settrace(lambda *_call: local)
    try:
        venue.gateway._other(connection, request, 0)
    finally:
        sys.settrace(None)
    talker.read()
    return lines, talker.take(), talker.ended


def test_a_wrong_user_and_a_wrong_secret_take_the_same_way(tmp_path, tally, monkeypatch):
    """Fault test 55: the same lines in the same order, a mac computed in each, and the same bytes in the answer."""
    signed: list[int] = []

    def counted(secret, challenge, head):
        signed.append(len(secret))
        return sign(secret, challenge, head)

    monkeypatch.setattr(gateway_module, "sign", counted)
    with inside(tmp_path) as venue:
        ways: list[Any] = []
        for user, secret in (("maker", b"w" * 32), ("nobody", b"w" * 32), ("", b"w" * 32), ("operator", b"m" * 32)):
            talker = venue.talker(address=f"127.3.0.{len(ways) + 1}")
            ways.append(steps_of(venue, talker, user=user, secret=secret, session="F00000XXXX"))
            tally.trial()
        assert ways[0][1:] == ([Packet(b"J", b"A")], True)
        assert all(way == ways[0] for way in ways)
        assert signed == [32] * 4


# ------------------------------------------------------------------------------- 56: throttle, kill, disconnection


class Clock:
    """Time that stands still until it is told to go on."""

    def __init__(self, patch):
        self.now = 10**18
        import time

        patch.setattr(
            gateway_module,
            "time",
            SimpleNamespace(
                time_ns=lambda: self.now, monotonic=time.monotonic, monotonic_ns=time.monotonic_ns, sleep=time.sleep
            ),
        )


def test_a_rate_lets_through_exactly_what_it_says(tmp_path, tally, monkeypatch):
    """Fault test 56, RISK-4: n at once, and then one as soon as a token is there, not a nanosecond before."""
    rate = 1_000
    clock = Clock(monkeypatch)
    with inside(tmp_path, risk=f"order_rate = {rate}\ncancel_rate = {rate}", ring=16_384) as venue:
        maker = venue.talker("maker")

        def taken(commands):
            found = venue.answers(maker, b"".join(maker.command(one) for one in commands))
            assert all(one.letter == b"S" or one.payload[13] == Refusal.THROTTLED for one in found)
            return sum(one.letter == b"S" for one in found)

        for make in (lambda: order(BUY, 10, 1), lambda: CancelOrder(1, 1)):
            clock.now += 2 * SECOND
            assert [taken([make() for _ in range(rate + 50)]), taken([make()])] == [rate, 0]
            tally.trial(rate + 51)
            for _ in range(share(100, 1_000)):
                clock.now += SECOND // rate - 1
                assert taken([make()]) == 0
                clock.now += 1
                assert taken([make(), make()]) == 1
                tally.trial(3)


def test_buckets_are_full_when_a_gateway_begins(tmp_path, monkeypatch):
    """RISK-4: what an account used up counts no more behind a restart, and time need not pass for it."""
    Clock(monkeypatch)
    with inside(tmp_path, risk="order_rate = 3\ncancel_rate = 2") as venue:
        for _ in range(2):
            maker = venue.talker("maker")
            said = [order(BUY, 10, 1)] * 5 + [CancelOrder(1, 1)] * 4
            found = venue.answers(maker, b"".join(maker.command(one) for one in said))
            refused = [one.payload[12:14] for one in found if one.letter == b"U"]
            assert refused == [bytes([1, Refusal.THROTTLED])] * 2 + [bytes([2, Refusal.THROTTLED])] * 2
            venue.open()


@pytest.mark.parametrize("bounced", [-1, 0, 2, 3, 5], ids=lambda later: f"bounced-{later}")
def test_a_matcher_that_comes_back_passes_over_what_it_has_sent_back(tmp_path, bounced):
    """RING-6, JRN-23: it is not in the journal, and the gateway told its client that it was not taken."""
    with inside(tmp_path) as venue:
        maker = venue.talker("maker")
        venue.answers(maker, maker.command(order(BUY, 10, 1)))
        matcher, last = venue.matcher, venue.matcher.journal.time_ns
        records = [bytes(16) + (last + later).to_bytes(8, "little") + bytes(40) for later in range(6)]
        if bounced >= 0:
            matcher.bounces.push(records[bounced])

        assert matcher._unheard(b"".join(records)) == b"".join(records[max(bounced, 0) + 1 :])
        assert matcher.fresh == (bounced < 5)


def test_a_kill_switch_in_the_middle_of_all_that_comes_lets_nothing_through_behind_it(tmp_path, tally):
    """Fault test 56, RISK-7: two clients with 64 KiB waiting each; no order behind the switch, and none rests."""
    total = share(40, 1_000)
    dice = random.Random(56)
    with inside(tmp_path, orders=100_000, ring=16_384) as venue:
        operator = venue.talker("operator")
        loud = [venue.talker("maker"), venue.talker("taker")]
        for n in range(total):
            what = [(0, 0), (0, 7), (1, 0)][n % 3]
            for one in loud:
                for _ in range(3):
                    one.send(b"".join(one.command(order(*dice.choice(((BUY, 10), (SELL, 20))), 1)) for _ in range(500)))
            for _ in range(dice.randrange(3)):
                venue.turn()
            operator.send(operator.command(SetLimit(Limit.KILL, *what, 1)))
            venue.settle()
            for one in loud:
                one.send(one.command(order(BUY, 10, 1)))
            venue.settle()
            resting = venue.state().orders
            killed = [one for one in resting if what == (0, 0) or one.order_id >> 40 == what[1] or what[0]]
            tally.trial()
            tally.expect("wrong", not killed, what)
            operator.send(operator.command(SetLimit(Limit.KILL, *what, 0)))
            operator.send(operator.command(MassCancel(Scope.VENUE)))
            venue.settle()
            for one in (*loud, operator):
                one.take()
    switches = orders = 0
    killed_by: set[tuple[int, int]] = set()
    for data in read(tmp_path / "journal"):
        for at in range(0, len(data), RECORD_SIZE):
            kind, limit = data[at + 32], data[at + 33]
            instrument = int.from_bytes(data[at + 36 : at + 40], "little")
            ident, value = struct.unpack_from("<qq", data, at + 40)
            if kind == CommandKind.SET_LIMIT and limit == Limit.KILL:
                (killed_by.add if value else killed_by.discard)((instrument, ident))
                switches += value
            elif kind == CommandKind.NEW_ORDER:
                orders += 1
                assert not killed_by & {(0, 0), (0, ident >> 40), (instrument, 0)}
    assert switches == total
    assert orders > total * 300


# ------------------------------------------------------------------------------------------- 57: the pool, the book


def reports_of(found):
    """Return the reports among what was sent."""
    return [Report._make(REPORT.unpack(one.payload[8:])) for one in found if one.letter == b"S"]


def test_a_full_pool_refuses_the_next_order_and_goes_on_behind_a_cancel(tmp_path, tally):
    """Fault test 57, REJECT-42: at n + 1 the state is what it was, and what needs no place is still carried out."""
    n = 100
    with inside(tmp_path, orders=n) as venue:
        maker, taker = venue.talker("maker"), venue.talker("taker")
        venue.answers(maker, b"".join(maker.command(order(SELL, 100 + place, 5)) for place in range(n)))
        full = venue.state()
        assert len(full.orders) == n
        for attempt in range(share(300, 3_000)):
            (report,) = reports_of(venue.answers(taker, taker.command(order(BUY, 1 + attempt % 90, 1))))
            tally.trial()
            assert report.reason == Reason.ORDERS_FULL
            tally.expect("wrong", venue.state() == full)
        (moved,) = reports_of(venue.answers(maker, maker.command(ReplaceOrder(SELL, GTC, 0, 1, 1, 99, 5))))
        assert moved.kind == ReportKind.REPLACED
        told = reports_of(venue.answers(taker, taker.command(order(BUY, 99, 2, time_in_force=IOC))))
        assert [one.kind for one in told] == [ReportKind.NEW, ReportKind.TRADE]
        maker.take()
        for first in range(2, n + 1, 7):
            assert reports_of(venue.answers(maker, maker.command(CancelOrder(1, first))))[0].kind == ReportKind.CANCELED
            assert reports_of(venue.answers(maker, maker.command(order(SELL, 99, 1))))[0].kind == ReportKind.NEW
            report = reports_of(venue.answers(maker, maker.command(order(SELL, 99, 1))))[0]
            assert report.reason == Reason.ORDERS_FULL
        assert venue.gateway.desk.look(RESTING + 2) == n


def test_a_configuration_with_fewer_orders_than_rest_is_the_journal_s(tmp_path, tally):
    """Fault test 57: the capacity is the one that the journal began with, for the gateway as for the engine."""
    with inside(tmp_path, orders=200) as venue:
        maker = venue.talker("maker")
        venue.answers(maker, b"".join(maker.command(order(SELL, 100 + n, 5)) for n in range(150)))
    with inside(tmp_path, orders=2) as venue:
        maker = venue.talker("maker")
        found = reports_of(venue.answers(maker, b"".join(maker.command(order(SELL, 100, 5)) for n in range(51))))
        tally.trial()
        assert [report.reason for report in found] == [0] * 50 + [Reason.ORDERS_FULL]
        assert len(venue.state().orders) == venue.gateway.desk.look(RESTING + 2) == 200
        assert reports_of(venue.answers(maker, maker.command(MassCancel(Scope.ACCOUNT))))[-1].quantity == 200


def test_one_order_a_level_and_a_best_that_jumps_from_end_to_end(tmp_path, tally):
    """Fault test 57: across the band, through the gateway; both engines say the same of the journal."""
    levels, jumps = share(10_000, 100_000), share(1_000, 50_000)
    step = 100_000 // levels
    with inside(tmp_path, orders=131_072, tape=262_144, ring=16_384) as venue:
        maker, taker = venue.talker("maker"), venue.talker("taker")
        for first in range(1, levels, 500):
            said = [order(BUY if 2 * n < levels else SELL, n * step, 1) for n in range(first, first + 500)]
            assert len(venue.answers(maker, b"".join(maker.command(one) for one in said))) == 500
        assert len(venue.state().orders) == levels
        for n in range(jumps):
            best = levels // 2 * step
            said = [order(BUY, best - n % 2, 1, instrument=2), order(BUY, 1, 1, instrument=2)]
            data = b"".join(taker.command(one) for one in said)
            last = taker.reference
            data += taker.command(CancelOrder(2, last - 1)) + taker.command(CancelOrder(2, last))
            assert len(venue.answers(taker, data)) == 4
            tally.trial()
        before = venue.state()
        told = reports_of(venue.answers(taker, taker.command(order(BUY, 100_000, levels // 4))))
        assert [one.price for one in told[1:]] == sorted(one.price for one in told[1:])
        assert len(told) == levels // 4 + 1
        assert len(venue.state().orders) == len(before.orders) - levels // 4
    engines = [make_engine(name, Capacity(131_072, 64)) for name in ENGINES]
    for data in read(tmp_path / "journal"):
        slow, quick = (apply_all(engine, data) for engine in engines)
        tally.expect("wrong", slow == quick)
    assert engines[0].snapshot() == engines[1].snapshot()


# -------------------------------------------------------------------------------------------------- 58: the index


FLOODS = {
    "one after another": lambda n: n + 1,
    "equal low 20 bits": lambda n: (n + 1) << 20,
    "equal low 20 bits, all ones": lambda n: n << 20 | 0xFFFFF,
    "multiples of the capacity": lambda n: (n + 1) * 16_384,
    "equal low 4 bits": lambda n: (n + 1) * 16,
}


def chains(slots, heads, lines):
    """Return how many orders each chain of the table has."""
    found = []
    for place in range(lines * 16):
        slot, length = heads[place], 0
        while slot:
            slot = slots[slot + CHAIN]
            length += 1
        found.append(length)
    return found


@pytest.mark.parametrize("what", FLOODS)
def test_references_made_to_collide_share_chains_no_more_than_others(what, tally):
    """Fault test 58: looks at slots to find an order, counted, for many multipliers; in the desk and in the engine."""
    count = 16_384
    ids = [7 << 40 | FLOODS[what](n) for n in range(count)]
    dice = random.Random(58)
    looks = []
    for _ in range(share(12, 200)):
        multiplier = dice.randrange(1 << 63) | 1
        desk = Desk(9, 1, 1, count)
        desk.add_account(7, TRADER)
        engine = FastEngine(count, 1)
        desk.slots[MULTIPLIER] = engine.slots[MULTIPLIER] = multiplier
        load_orders(desk, b"".join(SNAPSHOT_ORDER.pack(ident, 100, 1, 0, 1, 1) for ident in ids))
        frames = [DefineInstrument(2, 1, 0, 1000, 1, 1).pack()]
        frames += [NewOrder(BUY, GTC, 0, 1, ident, 100, 1).pack() for ident in ids]
        apply_all(engine, to_records(frames))
        for slots, heads in ((desk.slots, desk.heads), (engine.slots, engine.heads)):
            lengths = chains(slots, heads, count // 16)
            tally.trial()
            assert sum(lengths) == count
            looks.append(sum(length * (length + 1) // 2 for length in lengths) / count)
    looks.sort()
    assert looks[len(looks) // 2] < 3.0, looks
    assert sum(looks) / len(looks) < 4.0, looks


# ------------------------------------------------------------------------------------------------- 61: the allocator


@pytest.mark.skipif(not COMPILED, reason="only the compiled build is free of allocations")
def test_a_hundred_thousand_commands_leave_no_block_behind_in_the_lanes(tally):
    """Fault test 61: admission, the ring, an engine, the tape, routing, and the packets of the feed."""
    desk = Desk(9, 3, 3, 4_096)
    desk.add_account(0, OPERATOR)
    row = desk.add_account(7, TRADER)
    desk.put(row, 19, 1)
    rings = make_ring("ring", 4_096)
    ring_in, ring_out = Ring(rings), Ring(rings)
    tapes = make_tape(16_384)
    writer, reader = TapeWriter(tapes), TapeReader(tapes, 0)
    writer.begin(1, 0)
    reader.attach(0)
    engine = make_engine("fast", Capacity(4_096, 16))
    sequence = 0

    def sealed(records):
        nonlocal sequence
        out = bytearray(records)
        for at in range(0, len(out), RECORD_SIZE):
            sequence += 1
            out[at + 8 : at + 16] = sequence.to_bytes(8, "little")
        return bytes(out)

    apply_all(engine, sealed(to_record(1, DefineInstrument(2, 1, 0, 1000, 1, 1).pack())))
    wires = []
    reference = 0
    for _ in range(share(120, 1_200)):
        data = b""
        for n in range(500):
            reference += 1
            frame = NewOrder(BUY if n % 3 else SELL, GTC, 0, 1, reference, 95 + n % 10, 1 + n % 4).pack()
            data += packet(b"U", reference.to_bytes(8, "little") + frame)
            reference += 1
            data += packet(b"U", reference.to_bytes(8, "little") + CancelOrder(1, max(1, reference - 40)).pack())
        wires.append(data + packet(b"R"))

    def carry(wire):
        assert admit(desk, row, desk.writers[1], wire, 0, 10**18) == len(wire) - 3
        records = desk.records()
        assert ring_in.push(records) * RECORD_SIZE == len(records)
        records = ring_out.peek(4_096)
        ring_out.take(len(records) // RECORD_SIZE)
        records = sealed(records)
        while records:
            taken, reports = engine.apply(records)
            writer.write(reports, 0)
            records = records[taken * RECORD_SIZE :]
        told = reader.read(16_384)
        route(desk, told)
        reader.advance(len(told) // 48)
        desk.take_touched()
        return len(desk.written(1)), len(pack_packets(b"F000000001", 1, told))

    for wire in wires[:20]:
        carry(wire)
    gc.collect()
    gc.disable()
    blocks = sys.getallocatedblocks()
    for wire in wires[20:]:
        carry(wire)
    grown = sys.getallocatedblocks() - blocks
    gc.enable()
    tally["trials"] += 1_000 * (len(wires) - 20)
    assert grown < 20
    assert desk.totals()[0] == 1_000 * len(wires)


def test_commands_that_came_back_for_a_gateway_that_died_hold_up_nobody(tmp_path, tally):
    """JRN-23, ENTRY-14: the next gateway throws them away; who sent them sends them again."""
    with inside(tmp_path / "venue") as venue:
        record = bytes(16) + (1).to_bytes(8, "little") + bytes(40)
        assert venue.matcher.bounces.push(record * 3) == 3
        venue.open()
        tally.trial()
        talker = venue.talker("maker")
        talker.send(talker.command(NewOrder(1, 1, 0, 1, 0, 1, 1)))
        venue.until(talker.read)
        tally.expect("wrong", venue.gateway.bounces.look() == 0 and talker.take()[0].letter == b"S")
