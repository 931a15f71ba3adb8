"""The desk against a model: specs/risk.md and the commands of specs/entry.md once more, in dictionaries.

Packets of several accounts go through admission, what was taken through an engine, and the reports through routing;
how far the answers lag behind is random.  After each step the desk holds what follows from the engine's own snapshot.
"""

import struct
from collections import Counter
from random import Random
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrox.decode import frame_fault
from ferrox.engine import Capacity, make_engine
from ferrox.entry import REFUSED, SEQUENCED, packet, packets
from ferrox.lanes import desk as words
from ferrox.lanes.admission import admit
from ferrox.lanes.desk import BATCH, OPERATOR, TRADER, Desk
from ferrox.lanes.ledger import References
from ferrox.lanes.routing import collect, load_orders, route
from ferrox.messages import COMMAND, RECORD, CancelOrder, MassCancel, NewOrder, ReplaceOrder, unpack_reports
from ferrox.state import SNAPSHOT_HEADER, unpack_state
from ferrox.terms import CommandKind, Reason, Refusal, ReportKind, Scope, account_of, compose_order_id
from ferrox.testing.sessions import apply_all, to_record
from ferrox.testing.strategies import (
    FEATURES,
    World,
    commands,
    define_instruments,
    hostile_frames,
    mass_cancels,
    set_limits,
    set_trading_states,
)

CAPACITY = Capacity(12, 4)
TRADERS = (1, 2)
ROWS = {0: 1, 1: 2, 2: 3}
STRANGER = 8
MONEY_MAX = 2**62 - 1
REFERENCE_MAX = 2**40 - 1
NEW, CANCEL, REPLACE, MASS = map(int, list(CommandKind)[:4])
SECOND = 1_000_000_000

# ------------------------------------------------------------------------------------------------------------ the model


@define
class Account:
    """What is known of an account; a limit that is not there is none."""

    taken: int = 0
    seen: int = 0
    limits: dict[str, int] = field(factory=dict)
    tokens: dict[str, int] = field(factory=dict)  # in billionths
    filled_at: dict[str, int] = field(factory=dict)
    killed: bool = False
    on_the_way: list[tuple[bool, int]] = field(factory=list)  # whether it is a new order, and what it is worth
    open: int = 0
    exposure: int = 0


@define
class Model:
    """The checks of RISK-1 in their order."""

    accounts: dict[int, Account] = field(factory=lambda: {account: Account() for account in ROWS})
    last: dict[int, int] = field(factory=dict)  # the price of each instrument's last trade
    collars: dict[int, int] = field(factory=dict)
    killed: set[int] = field(factory=set)  # instruments, and 0 for the venue
    defined: set[int] = field(factory=set)
    disk_low: bool = False

    def judge(self, account: int, reference: int, frame: bytes, room: bool, now_ns: int) -> tuple[int, bytes]:
        """Return the reason against a command, or 0 and what its record holds from its kind on."""
        me = self.accounts[account]
        kind, scope, _, flags, instrument, ident, price, quantity, _ = COMMAND.unpack(frame.ljust(32, b"\0"))
        duplicate = reference <= me.seen
        if 1 <= reference <= REFERENCE_MAX:
            me.seen = max(me.seen, reference)
        if not room:
            return Refusal.BUSY, b""
        if reference >= 1 and duplicate:
            return Refusal.DUPLICATE_REFERENCE, b""
        if not 1 <= reference <= REFERENCE_MAX:
            return Refusal.BAD_REFERENCE, b""
        if ident != reference if kind == NEW else reference - me.taken - 1 > 65_533:
            return Refusal.BAD_REFERENCE, b""
        if not self.permits(account, kind, scope, ident):
            return Refusal.NOT_PERMITTED, b""
        if account:
            frame = owned(account, frame)
        reason = frame_fault(frame)
        if reason:
            return reason, b""
        worth = 0
        if not account:
            if self.disk_low and kind == CommandKind.DEFINE_INSTRUMENT:
                return Refusal.DISK_LOW, b""
        elif kind in (NEW, REPLACE):
            market = bool(flags & 1)
            worth = abs(self.last.get(instrument, 0) if market else price) * quantity
            reason = self.weigh(me, kind, instrument, None if market else price, quantity, worth, now_ns)
        elif kind == MASS and scope == Scope.ACCOUNT_IN_INSTRUMENT and instrument not in self.defined:
            reason = Reason.UNKNOWN_INSTRUMENT
        elif not self.spend(me, "CANCEL_RATE", now_ns):
            reason = Refusal.THROTTLED
        if reason:
            return reason, b""
        me.taken = reference
        me.on_the_way.append((kind == NEW, worth))
        session = 0 if kind == NEW or not account else 1 + reference % 65_535
        return 0, struct.pack("<BBHI", kind, len(frame), session, 0) + frame.ljust(32, b"\0")

    @staticmethod
    def permits(account: int, kind: int, scope: int, ident: int) -> bool:
        """ENTRY-12."""
        if not account:
            return kind not in (NEW, CANCEL, REPLACE)
        if kind == MASS:
            return scope in (Scope.ACCOUNT, Scope.ACCOUNT_IN_INSTRUMENT) and ident == 0
        return kind in (NEW, CANCEL, REPLACE)

    def weigh(
        self, me: Account, kind: int, instrument: int, price: int | None, quantity: int, worth: int, now_ns: int
    ) -> int:
        """Return the reason against an order, from DISK_LOW on; a market order has no price."""
        limits = me.limits
        if self.disk_low:
            return Refusal.DISK_LOW
        if me.killed or self.killed & {0, instrument}:
            return Refusal.KILLED
        if not self.spend(me, "ORDER_RATE", now_ns):
            return Refusal.THROTTLED
        if quantity > (limits.get("MAX_QUANTITY") or quantity):
            return Refusal.MAX_QUANTITY
        if worth > (limits.get("MAX_NOTIONAL") or MONEY_MAX):
            return Refusal.MAX_NOTIONAL
        collar = self.collars.get(instrument)
        if collar and price is not None and abs(price - self.last.get(instrument, price)) > collar:
            return Refusal.COLLAR
        orders = me.open + sum(new for new, _ in me.on_the_way)
        if kind == NEW and limits.get("MAX_OPEN") and orders >= limits["MAX_OPEN"]:
            return Refusal.OPEN_ORDERS
        exposure = me.exposure + sum(reserved for _, reserved in me.on_the_way)
        if exposure + worth > (limits.get("MAX_EXPOSURE") or MONEY_MAX):
            return Refusal.EXPOSURE
        return 0

    @staticmethod
    def spend(me: Account, name: str, now_ns: int) -> bool:
        """RISK-4: a bucket of n tokens that fills at n a second."""
        rate = me.limits.get(name, 0)
        if not rate:
            return True
        passed = max(0, now_ns - me.filled_at.get(name, 0))
        me.filled_at[name] = now_ns
        tokens = min(rate * SECOND, me.tokens[name] + passed * rate)
        me.tokens[name] = tokens - SECOND if tokens >= SECOND else tokens
        return tokens >= SECOND


def owned(account: int, frame: bytes) -> bytes:
    """ENTRY-10, ENTRY-12: the account stands above the reference, and alone in a mass cancel."""
    ident = int.from_bytes(frame[8:16], "little", signed=True)
    if frame[0] != MASS:
        account = compose_order_id(account, ident) if 1 <= ident <= REFERENCE_MAX else 0
    return frame[:8] + struct.pack("<q", account) + frame[16:]


def concerns(account: int, report: Any) -> bool:
    """ENTRY-7."""
    if not account:
        return report.kind >= ReportKind.MASS_CANCELED or (report.kind == ReportKind.REJECTED and not report.order_id)
    contra = report.kind == ReportKind.TRADE and account_of(report.contra_id) == account
    return account_of(report.order_id) == account or contra


# ----------------------------------------------------------------------------------------------------------- both sides


class Venue:
    """The lanes, an engine behind them, and the model beside them."""

    def __init__(self, engine: str, world: World) -> None:
        """Begin with orders of strangers, which were there before the desk was."""
        self.engine = make_engine(engine, CAPACITY)
        self.desk = Desk(max(TRADERS), len(ROWS), len(ROWS), CAPACITY.orders)
        for account in ROWS:
            self.desk.add_account(account, TRADER if account else OPERATOR)
        self.model = Model()
        self.sequence = self.number = self.now_ns = 0
        self.waiting: list[tuple[int, bytes]] = []
        self.orders: dict[int, list[int]] = {account: [1] for account in ROWS}
        self.streams: dict[int, bytes] = dict.fromkeys(ROWS, b"")
        self.all_reports = b""
        self.journal = b""
        self.refused: Counter[int] = Counter()
        frames = [definition.pack() for definition in world.definitions()]
        for account, side, price in ((STRANGER, 2, world.high), (STRANGER, 1, world.low), (0, 1, world.low)):
            frames.append(NewOrder(side, 1, 0, 1, compose_order_id(account, side), price, 2).pack())
        reports = b"".join(self.enter(frame) for frame in frames)
        self.first = self.number = len(reports) // 48
        state = self.engine.snapshot()
        load_orders(self.desk, state[SNAPSHOT_HEADER.size + 32 * world.instruments :])
        self.desk.set(words.NUMBER, self.number)
        for instrument in range(1, world.instruments + 1):
            self.desk.put_instrument(instrument, words.DEFINED, 1)
            self.model.defined.add(instrument)

    def enter(self, frame: bytes, session: int = 0) -> bytes:
        """Apply the next record; return its reports."""
        self.sequence += 1
        fields = list(RECORD.unpack(to_record(self.sequence, frame)))
        fields[6] = session
        record = RECORD.pack(*fields)
        self.journal += record
        return apply_all(self.engine, record)

    def send(self, account: int, sent: list[tuple[Any, int, int]], room: int, passed: int) -> None:
        """Send commands in one piece; what is refused and what is taken is what the model says."""
        self.now_ns += passed
        model, row = self.model.accounts[account], ROWS[account]
        data, refusals = b"", []
        taken: list[bytes] = []
        for command, step, pick in sent:
            reference = model.seen + step
            frame = self.framed(account, command, reference, pick)
            data += packet(b"U", struct.pack("<q", reference) + frame)
            reason, record = self.model.judge(account, reference, frame, len(taken) < room, self.now_ns)
            if reason:
                self.refused[reason] += 1
                refusals.append((reference, int.from_bytes(frame[4:8], "little"), frame[0], reason))
            else:
                taken.append(record)
                if frame[0] == NEW:
                    self.orders[account].append(reference)
        self.desk.set(words.ROOM, room)

        place = admit(self.desk, row, self.desk.writers[row], data, 0, self.now_ns)

        found, _ = packets(self.desk.written(row))
        records = self.desk.records()
        assert place == len(data)
        assert [REFUSED.unpack(payload) for _, payload in found] == refusals
        assert [records[at + 24 : at + 64] for at in range(0, len(records), 64)] == taken
        self.waiting += [(account, record) for record in taken]

    def framed(self, account: int, command: Any, reference: int, pick: int) -> bytes:
        """Return a command's frame, as a client sends it that names its own orders."""
        frame: bytes = command.pack()
        frame = frame.ljust(16 if len(frame) <= 16 else 32, b"\0")
        if not account or not isinstance(pick, int) or pick < 0:
            return frame
        if frame[0] == MASS:
            return frame[:8] + bytes(8) + frame[16:]
        known = self.orders[account]
        named = reference if frame[0] == NEW else known[-1 - pick % len(known)]
        return frame[:8] + struct.pack("<q", named) + frame[16:]

    def answer(self, count: int) -> None:
        """Apply the oldest commands on their way, and route what comes of them."""
        reports = b""
        for account, record in self.waiting[:count]:
            self.model.accounts[account].on_the_way.pop(0)
            reports += self.enter(record[8 : 8 + record[1]], int.from_bytes(record[2:4], "little"))
        del self.waiting[:count]
        expected = dict.fromkeys(ROWS, b"")
        for report, at in zip(unpack_reports(reports), range(0, len(reports), 48), strict=True):
            self.number += 1
            for account in ROWS:
                if concerns(account, report):
                    expected[account] += packet(b"S", SEQUENCED.pack(self.number, reports[at : at + 48]))
            if report.kind == ReportKind.TRADE:
                self.model.last[report.instrument] = report.price
            if report.kind == ReportKind.INSTRUMENT_DEFINED:
                self.model.defined.add(report.instrument)
        self.all_reports += reports

        route(self.desk, reports)

        connected = {account for account, row in ROWS.items() if self.desk.get(row, words.CONNECTION)}
        assert set(self.desk.take_touched()) == {ROWS[account] for account in connected if expected[account]}
        for account, row in ROWS.items():
            assert self.desk.written(row) == (expected[account] if account in connected else b"")
            self.streams[account] += expected[account]

    def set_limit(self, account: int, name: str, value: int) -> None:
        """Set a limit in both; a rate begins with a full bucket."""
        me, row = self.model.accounts[account], ROWS[account]
        me.limits[name] = value
        self.desk.put(row, getattr(words, name), value)
        if name in ("ORDER_RATE", "CANCEL_RATE"):
            me.tokens[name] = value * SECOND
            self.desk.put(row, getattr(words, name) + 1, value * SECOND)

    def set_collar(self, instrument: int, collar: int) -> None:
        self.model.collars[instrument] = collar
        self.desk.put_instrument(instrument, words.COLLAR, collar)

    def kill(self, account: int, instrument: int, killed: bool) -> None:
        if account:
            self.model.accounts[account].killed = killed
            self.desk.put(ROWS[account], words.KILLED, int(killed))
            return
        self.model.killed.discard(instrument)
        if killed:
            self.model.killed.add(instrument)
        if instrument:
            self.desk.put_instrument(instrument, words.INSTRUMENT_KILLED, int(killed))
        else:
            self.desk.set(words.VENUE_KILLED, int(killed))

    def disk(self, low: bool) -> None:
        self.model.disk_low = low
        self.desk.set(words.DISK_LOW, int(low))

    def login(self, account: int, connected: bool) -> None:
        """Begin a connection, or end one (ENTRY-14)."""
        me, row = self.model.accounts[account], ROWS[account]
        if not account:
            me.taken = 0  # ENTRY-9
            self.desk.put(row, words.REFERENCE, 0)
        me.seen = me.taken
        self.desk.put(row, words.SEEN, me.taken)
        self.desk.put(row, words.CONNECTION, row * connected)

    def check(self) -> None:
        """Compare what the desk holds with the engine's snapshot, and with what is on its way (RISK-3)."""
        resting = unpack_state(self.engine.snapshot()).orders
        for account in TRADERS:
            me, row = self.model.accounts[account], ROWS[account]
            own = [order for order in resting if account_of(order.order_id) == account]
            me.open, me.exposure = len(own), sum(abs(order.price) * order.leaves for order in own)
            held = {
                "OPEN": me.open,
                "EXPOSURE": me.exposure % 2**62,
                "EXPOSURE_BEYOND": me.exposure // 2**62,
                "PENDING": sum(new for new, _ in me.on_the_way),
                "PENDING_EXPOSURE": sum(worth for _, worth in me.on_the_way),
                "FLYING": len(me.on_the_way),
                "REFERENCE": me.taken,
                "SEEN": me.seen,
            }
            assert {name: self.desk.get(row, getattr(words, name)) for name in held} == held
        ours = sum(me.open for me in self.model.accounts.values())
        assert self.desk.look(words.RESTING) == ours
        assert self.desk.look(words.FLIGHT_NEXT) - self.desk.look(words.FLIGHT_FIRST) == len(self.waiting)
        assert self.desk.look(words.NUMBER) == self.number

    def finish(self) -> None:
        """Answer all; then nothing is reserved, and what was sent live is what is sent to who comes later (ENTRY-8)."""
        self.answer(len(self.waiting))
        self.check()
        for account, row in ROWS.items():
            assert self.desk.get(row, words.PENDING) == self.desk.get(row, words.PENDING_EXPOSURE) == 0
            collect(self.desk, row, self.first + 1, self.all_reports, self.desk.writers[row])
            assert self.desk.written(row) == self.streams[account]
        references = References()
        references.follow(self.journal)
        known = {account: me.taken for account, me in self.model.accounts.items() if account and me.taken}
        assert {account: last for account, last in references.known().items() if account in TRADERS} == known


# ------------------------------------------------------------------------------------------------------------ the steps

WORLDS = [World(instruments=2), World(instruments=2, low=-3, high=3)]
LIMITS = {
    "MAX_QUANTITY": st.integers(0, 5),
    "MAX_NOTIONAL": st.one_of(st.integers(0, 500), st.integers(0, 9)),
    "MAX_OPEN": st.integers(0, 4),
    "MAX_EXPOSURE": st.one_of(st.integers(0, 1_500), st.integers(0, 30)),
    "ORDER_RATE": st.integers(0, 3),
    "CANCEL_RATE": st.integers(0, 3),
}
STEPS_OF_REFERENCES = [1] * 12 + [2, 0, -1, -(2**40), 65_533, 65_534, 65_535, 70_000]
PASSED = st.sampled_from([0, 0, 1, SECOND // 3, SECOND // 2, SECOND, -1, -SECOND])


def steps(world: World) -> st.SearchStrategy[list[Any]]:
    traders = commands(World(low=world.low, high=world.high, features=FEATURES - {"states", "definitions", "limits"}))
    operators = st.one_of(
        set_trading_states(world), define_instruments(world), mass_cancels(world), set_limits(world), traders
    )
    said = st.tuples(
        st.one_of(*[traders] * 9, hostile_frames()), st.sampled_from(STEPS_OF_REFERENCES), st.integers(-1, 8)
    )
    told = st.tuples(operators, st.sampled_from(STEPS_OF_REFERENCES), st.just(-1))
    room = st.sampled_from([BATCH] * 8 + [0, 1, 2])
    send = st.tuples(st.just("send"), st.sampled_from(TRADERS), st.lists(said, min_size=1, max_size=6), room, PASSED)
    answer = st.tuples(st.just("answer"), st.integers(1, 8))
    rare = [
        st.tuples(st.just("send"), st.just(0), st.lists(told, min_size=1, max_size=3), room, PASSED),
        *(
            st.tuples(st.just("set_limit"), st.sampled_from(TRADERS), st.just(name), values)
            for name, values in LIMITS.items()
        ),
        st.tuples(st.just("set_collar"), st.integers(1, 2), st.integers(0, 3)),
        st.tuples(st.just("kill"), st.sampled_from((0, *TRADERS)), st.integers(0, 2), st.sampled_from([False, True])),
        st.tuples(st.just("disk"), st.sampled_from([False, False, True])),
        st.tuples(st.just("login"), st.sampled_from(list(ROWS)), st.sampled_from([True, True, False])),
    ]
    return st.lists(st.one_of(*[send] * 6, *[answer] * 5, *rare), min_size=4, max_size=40)


@pytest.mark.parametrize("world", WORLDS, ids=["about 100", "about 0"])
@pytest.mark.parametrize("engine", ["reference", "fast"])
@settings(max_examples=40)
@given(data=st.data())
def test_the_desk_is_what_the_rules_say(engine, world, data):
    """RISK-1 .. RISK-5, ENTRY-7 .. ENTRY-14."""
    venue = Venue(engine, world)
    for account in ROWS:
        venue.login(account, True)
    venue.check()

    for name, *values in data.draw(steps(world)):
        getattr(venue, name)(*values)
        venue.check()

    venue.finish()


def some_commands(world: World, random: Random) -> list[tuple[Any, int, int]]:
    """Return commands of a client as `send` takes them, most of which go through."""
    found: list[tuple[Any, int, int]] = []
    for _ in range(random.randint(1, 6)):
        kind = random.choices([NEW, CANCEL, REPLACE, MASS], [60, 15, 23, 2])[0]
        side, instrument = random.randint(1, 2), random.choice([1, 1, 1, 2])
        price, quantity = random.randint(world.low, world.high), random.randint(1, world.quantity_max)
        time_in_force, flags = random.choice(world.styles())
        mode = random.choice(world.modes())
        command: Any
        if kind == NEW:
            price *= not flags & 1
            command = NewOrder(side, time_in_force, flags | mode, instrument, 0, price, quantity)
        elif kind == REPLACE:
            command = ReplaceOrder(side, 1, mode, instrument, 0, price, quantity)
        elif kind == CANCEL:
            command = CancelOrder(instrument, 0)
        else:
            command = MassCancel(*random.choice([(Scope.ACCOUNT, 0), (Scope.ACCOUNT_IN_INSTRUMENT, instrument)]))
        step = 1 if random.random() < 0.95 else random.choice(STEPS_OF_REFERENCES)
        found.append((command, step, random.randint(0, 8)))
    return found


@pytest.mark.parametrize("world", WORLDS, ids=["about 100", "about 0"])
@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_the_desk_is_what_the_rules_say_after_a_long_day(engine, world):
    """RISK-1 .. RISK-5, ENTRY-7 .. ENTRY-14: with everything that can be refused, many times over."""
    random = Random(7)
    venue = Venue(engine, world)
    for account in ROWS:
        venue.login(account, True)
    scale = 100 if world.low > 0 else 1
    greatest = {"MAX_QUANTITY": 5, "MAX_NOTIONAL": 5 * scale, "MAX_EXPOSURE": 25 * scale, "MAX_OPEN": 3}

    for _ in range(6_000):
        choice = random.random()
        if choice < 0.5:
            room = BATCH if random.random() < 0.95 else random.randint(0, 3)
            passed = random.choice([0, 1, SECOND // 3, SECOND, -SECOND])
            venue.send(random.choice(TRADERS), some_commands(world, random), room, passed)
        elif choice < 0.9:
            venue.answer(random.randint(1, 12))
        elif choice < 0.95:
            name = random.choice(list(LIMITS))
            venue.set_limit(
                random.choice(TRADERS), name, random.choice([0, 0, random.randint(1, greatest.get(name, 4))])
            )
        elif choice < 0.97:
            venue.set_collar(random.randint(1, 2), random.choice([0, 1, 2, 3]))
        elif choice < 0.99:
            venue.kill(random.choice((0, *TRADERS)), random.randint(0, 2), random.random() < 0.04)
            venue.disk(random.random() < 0.05)
        else:
            venue.login(random.choice(list(ROWS)), random.random() < 0.8)
        venue.check()

    venue.finish()
    kinds = Counter(report.kind for report in unpack_reports(venue.all_reports))
    assert min(venue.refused[reason] for reason in Refusal if reason != Refusal.NOT_PERMITTED) >= 5, venue.refused
    assert kinds[ReportKind.TRADE] > 200, kinds
