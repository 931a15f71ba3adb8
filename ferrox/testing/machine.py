"""A Hypothesis state machine over one engine: every command kind, aimed at what rests, and every law after each step.

Say how an engine is made, and give its test case to pytest or unittest:

    from ferrox.engine import Engine, make_engine
    from ferrox.testing.machine import EngineMachine

    class MyMachine(EngineMachine):
        def engine(self) -> Engine:
            return make_engine("reference", self.capacity)

    TestMyEngine = MyMachine.TestCase

`World` names the features an engine has (see `ferrox.testing.strategies`).  A random stream seldom hits an order that
rests; the machine knows from the auditor which do, and aims its cancels and replaces at them.
"""

from typing import ClassVar

from attrs import evolve
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ferrox.engine import Capacity, Engine
from ferrox.messages import RECORD_SIZE, CancelOrder, MassCancel, ReplaceOrder, Report
from ferrox.terms import Annotation, ReportKind, Side, TimeInForce
from ferrox.testing.laws import Auditor, Standing, by_command, check_book, check_conservation, check_unchanged
from ferrox.testing.sessions import apply_all, to_record
from ferrox.testing.strategies import (
    WORLD,
    AnyCommand,
    World,
    batch_splits,
    commands,
    define_instruments,
    describe,
    hostile_frames,
    mass_cancels,
    new_orders,
    set_limits,
    set_trading_states,
)

REJECTS = (ReportKind.REJECTED, ReportKind.CANCEL_REJECTED, ReportKind.REPLACE_REJECTED)


class EngineMachine(RuleBasedStateMachine):
    """One engine, the auditor that follows its reports, and the records it was given."""

    capacity: ClassVar[Capacity] = Capacity(orders=6, instruments=2)
    """Small, so that the machine comes to its limits."""
    world: ClassVar[World] = WORLD
    """What is played; leave out the features that an engine does not have."""

    def engine(self) -> Engine:
        """Return a fresh engine of `capacity`; subclasses must say which."""
        raise NotImplementedError("a machine needs an engine: override engine()")

    def __init__(self) -> None:
        super().__init__()
        self.sut = self.engine()
        self.auditor = Auditor(self.capacity)
        self.records = b""
        self.reports = b""
        self.moved = True  # since the invariants were last held

    def send(self, *stream: AnyCommand, sizes: list[int] | None = None) -> list[list[Report]]:
        """Apply commands, each alone or in batches of `sizes`, audit their reports, and return them by command."""
        note("; ".join(describe(stream)))
        frames = [command.pack() for command in stream]
        first = len(self.records) // RECORD_SIZE + 1
        return self.apply([to_record(first + index, frame) for index, frame in enumerate(frames)], sizes)

    def apply(self, records: list[bytes], sizes: list[int] | None = None) -> list[list[Report]]:
        """Apply records, each alone or in batches of `sizes`, audit their reports, and return them by command."""
        answered, start = b"", 0
        for size in sizes or [1] * len(records):
            batch = b"".join(records[start : start + size])
            before = self.sut.snapshot()
            reports = apply_all(self.sut, batch)
            self.auditor.audit(batch, reports)
            if all(report.kind in REJECTS for of_one in by_command(reports) for report in of_one):
                check_unchanged(before, self.sut.snapshot())
            self.records += batch
            answered += reports
            start += size
        self.reports += answered
        self.moved = True
        return by_command(answered)

    def resting(self, index: int) -> Standing:
        """Return a resting order, whichever an index falls on; there must be one."""
        return self.auditor.standing[index % len(self.auditor.standing)]

    def wants(self, feature: str) -> bool:
        """Say whether the world has a feature."""
        return feature in self.world.features

    @initialize()
    def open_the_venue(self) -> None:
        """Define and open every instrument."""
        self.send(*self.world.definitions())

    @rule(data=st.data())
    def enter(self, data: st.DataObject) -> None:
        """Send a new order."""
        self.send(data.draw(new_orders(self.world), label="order"))

    @rule(data=st.data())
    def enter_two_that_may_meet(self, data: st.DataObject) -> None:
        """Send a plain order and one of any style on the other side, whatever else rests."""
        maker = data.draw(new_orders(evolve(self.world, features=())), label="maker")
        taker = data.draw(new_orders(self.world), label="taker")
        self.send(maker, taker._replace(side=Side.BUY + Side.SELL - maker.side, instrument=maker.instrument))

    @precondition(lambda self: self.auditor.standing)
    @rule(index=st.integers(0, 7))
    def cancel(self, index: int) -> None:
        """Cancel an order that rests."""
        order = self.resting(index)
        self.send(CancelOrder(order.instrument, order.order_id))

    @precondition(lambda self: self.auditor.standing and self.wants("replace"))
    @rule(data=st.data(), index=st.integers(0, 7))
    def replace(self, data: st.DataObject, index: int) -> None:
        """Replace an order that rests: mostly on its own side, often at its own price, with a total near its own."""
        order = self.resting(index)
        styles = [flags for time_in_force, flags in self.world.styles() if time_in_force == TimeInForce.GTC]
        price = data.draw(st.one_of(st.just(order.price), st.integers(self.world.low, self.world.high)), label="price")
        total = data.draw(st.integers(1, order.filled + order.leaves + 2), label="total")
        flags = data.draw(st.sampled_from(styles)) | data.draw(st.sampled_from(self.world.modes()), label="mode")
        side = data.draw(st.sampled_from([order.side] * 5 + [Side.BUY + Side.SELL - order.side]), label="side")
        self.send(ReplaceOrder(side, TimeInForce.GTC, flags, order.instrument, order.order_id, price, total))

    @precondition(lambda self: self.wants("mass-cancel"))
    @rule(data=st.data())
    def mass_cancel(self, data: st.DataObject) -> None:
        """Cancel many orders at once; twice, because the second finds nothing (MASS-3)."""
        command = data.draw(mass_cancels(self.world), label="mass cancel")
        _, [second] = self.send(command, command)
        assert (second.kind, second.quantity) in ((ReportKind.MASS_CANCELED, 0), (ReportKind.REJECTED, 0))

    @precondition(lambda self: self.wants("states"))
    @rule(data=st.data())
    def set_trading_state(self, data: st.DataObject) -> None:
        """Move an instrument to another state."""
        self.send(data.draw(set_trading_states(self.world), label="state"))

    @precondition(lambda self: self.wants("limits"))
    @rule(data=st.data())
    def set_limit(self, data: st.DataObject) -> None:
        """Set a limit, which the engine only repeats (LIMIT-1)."""
        before = self.auditor.standing.copy()
        [[report]] = self.send(data.draw(set_limits(self.world), label="limit"))
        assert report.kind == ReportKind.LIMIT_SET
        assert self.auditor.standing == before

    @precondition(lambda self: self.wants("definitions"))
    @rule(data=st.data(), empty=st.booleans())
    def define(self, data: st.DataObject, empty: bool) -> None:
        """Define an instrument again, on an empty book where mass cancels can empty it."""
        command = data.draw(define_instruments(self.world), label="definition")
        if empty and self.wants("mass-cancel"):
            self.send(MassCancel(1, command.instrument))
        self.send(command)

    @rule(data=st.data())
    def send_anything(self, data: st.DataObject) -> None:
        """Send a frame that may be anything."""
        self.send(data.draw(hostile_frames(self.world), label="frame"))

    @rule(data=st.data())
    def send_a_batch(self, data: st.DataObject) -> None:
        """Send many commands in batches of any size (DET-2)."""
        stream = data.draw(st.lists(commands(self.world), min_size=2, max_size=12), label="commands")
        self.send(*stream, sizes=data.draw(batch_splits(len(stream)), label="sizes"))

    @rule(kind=st.sampled_from([int(kind) for kind in Annotation]))
    def annotate(self, kind: int) -> None:
        """Apply a record that the journal writes for itself (DET-8)."""
        record = bytearray(to_record(len(self.records) // RECORD_SIZE + 1, bytes(32)))
        record[24], record[25] = kind, 0
        self.apply([bytes(record)])

    @rule()
    def restart(self) -> None:
        """Go on in a fresh engine, restored from a snapshot (DET-5)."""
        snapshot = self.sut.snapshot()
        self.sut = self.engine()
        self.sut.restore(snapshot)
        assert self.sut.snapshot() == snapshot, "a restored engine has the snapshot that it was given"

    @invariant()
    def every_law_holds(self) -> None:
        """Hold the state against the reports, and the engine against its own invariant where it has a `check`."""
        if not self.moved:
            return
        snapshot = self.sut.snapshot()
        self.auditor.check_snapshot(snapshot)
        check_book(snapshot)
        check = getattr(self.sut, "check", None)
        if check is not None:
            check()
        self.moved = False

    def teardown(self) -> None:
        """Apply all records again at once, to a fresh engine: equal input, equal bytes (DET-1, REPORT-6)."""
        again = self.engine()
        assert apply_all(again, self.records) == self.reports, "the same records give the same reports"
        assert again.snapshot() == self.sut.snapshot(), "the same records give the same state"
        check_conservation(self.reports)
