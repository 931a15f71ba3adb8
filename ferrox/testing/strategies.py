"""Order streams for Hypothesis: commands of a world so small that everything in it meets.

A few prices, ids, accounts and instruments are enough for orders to cross, queue, collide and be refused; a large world
would only make them miss each other.  Every element is drawn without a look at those before it, so a stream that fails
loses what it does not need and shrinks to a handful of plain commands.

All strategies give **typed commands** of `ferrox.messages`, which read well in a failure; what no typed command can
say is a `RawFrame`.  Both have `pack()`, which returns the frame of 16 or 32 bytes.  `records` turns commands into the
bytes that an engine applies.

    from hypothesis import given
    from ferrox.engine import make_engine
    from ferrox.testing.laws import check_laws
    from ferrox.testing.sessions import apply_all, to_records
    from ferrox.testing.strategies import FEATURES, World, streams

    @given(streams(World(features=FEATURES - {"fok"})))
    def test_my_engine_obeys_the_laws(commands):
        records = to_records(command.pack() for command in commands)

        check_laws(records, apply_all(make_engine("reference"), records))
"""

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, TypeVar, Union

from attrs import Attribute, field, frozen
from hypothesis import note
from hypothesis import strategies as st

from ferrox.messages import (
    COMMAND,
    COMMAND_SIZE,
    RECORD,
    CancelOrder,
    Command,
    DefineInstrument,
    MassCancel,
    NewOrder,
    ReplaceOrder,
    SetTradingState,
)
from ferrox.terms import (
    SELF_TRADE_SHIFT,
    Annotation,
    CommandKind,
    OrderFlag,
    Scope,
    SelfTrade,
    Side,
    TimeInForce,
    TradingState,
    compose_order_id,
)
from ferrox.text import format_command

FEATURES: Final = frozenset(
    {
        "ioc",
        "fok",
        "market",
        "post-only",
        "slide",
        "self-trade",
        "replace",
        "mass-cancel",
        "states",
        "definitions",
    }
)
"""What a stream may ask of an engine beside good-till-canceled limit orders and their cancels, by name.

"states" are changes of trading state, "definitions" are instruments defined again in mid-stream, "self-trade" are the
modes other than *allow*.  "slide" needs "post-only", and "market" needs "ioc" or "fok".
"""


def _known_features(_world: "World", _attribute: "Attribute[frozenset[str]]", names: frozenset[str]) -> None:
    if names - FEATURES:
        raise ValueError(f"no feature is named {sorted(names - FEATURES)}; choose from {sorted(FEATURES)}")


@frozen
class World:
    """How large the world of a stream is, and what its engine can do; the smaller, the more its orders meet."""

    instruments: int = 2
    """Instruments 1 .. this, of lot 1; odd ones have tick 1, even ones tick 2."""
    low: int = 98
    """The lowest price of the band, in ticks; commands name prices down to one below it."""
    high: int = 103
    """The highest price of the band, in ticks; commands name prices up to one above it."""
    quantity_max: int = 5
    """Orders have quantities of 1 .. this, in lots."""
    accounts: int = 2
    """Orders are of accounts 0 .. this - 1."""
    references: int = 4
    """Each account has references 1 .. this, so this many orders of it can rest at a time."""
    features: frozenset[str] = field(default=FEATURES, converter=frozenset, validator=_known_features)
    """Names out of `FEATURES`; an engine without one of them is tested with the others."""

    def order_ids(self) -> list[int]:
        """Return every order id of this world, those of account 0 first."""
        accounts, references = range(self.accounts), range(1, self.references + 1)
        return [compose_order_id(account, reference) for account in accounts for reference in references]

    def definitions(self) -> list[DefineInstrument]:
        """Return the commands that define and open every instrument."""
        ticks = [(number, 2 - number % 2) for number in range(1, self.instruments + 1)]
        return [DefineInstrument(TradingState.OPEN, number, self.low, self.high, tick, 1) for number, tick in ticks]

    def styles(self) -> list[tuple[int, int]]:
        """Return the pairs of time in force and flags that a new order may have, the plainest first and most often."""
        gtc, ioc, fok = TimeInForce
        market, post_only, slide = OrderFlag
        styles: list[tuple[str, int, int]] = [
            ("", gtc, 0),
            ("", gtc, 0),
            ("", gtc, 0),
            ("ioc", ioc, 0),
            ("fok", fok, 0),
            ("ioc market", ioc, market),
            ("fok market", fok, market),
            ("post-only", gtc, post_only),
            ("post-only slide", gtc, post_only | slide),
        ]
        return [
            (time_in_force, flags) for words, time_in_force, flags in styles if self.features.issuperset(words.split())
        ]

    def modes(self) -> list[int]:
        """Return the self-trade modes in their place among the flags; *allow* as often as all others together."""
        others = list(SelfTrade)[1:] if "self-trade" in self.features else []
        return [int(SelfTrade.ALLOW)] * max(1, len(others)) + [mode << SELF_TRADE_SHIFT for mode in others]


WORLD: Final = World()


class RawFrame(NamedTuple):
    """A frame of 1 .. 32 bytes that may be anything; sizes and bytes that no typed command has are said with it."""

    frame: bytes

    def pack(self) -> bytes:
        """Return the bytes as they stand."""
        return self.frame

    def __repr__(self) -> str:
        """Show the bytes as `raw` lines of a session do."""
        return f"RawFrame(bytes.fromhex({self.frame.hex()!r}))"


AnyCommand = Union[Command, RawFrame]
Element = TypeVar("Element")


# ---------------------------------------------------------------------------------------------------- commands


def instruments(world: World = WORLD) -> st.SearchStrategy[int]:
    """Give the instruments of a world, the first most often; shrink to 1."""
    numbers = list(range(1, world.instruments + 1))
    return st.sampled_from([1] * (2 * len(numbers) - 2) + numbers)


def order_ids(world: World = WORLD) -> st.SearchStrategy[int]:
    """Give the order ids of a world; shrink to account 0, reference 1."""
    return st.sampled_from(world.order_ids())


def prices(world: World = WORLD) -> st.SearchStrategy[int]:
    """Give prices in the band, and seldom one tick beyond either end of it; shrink to the lowest in the band."""
    inside = list(range(world.low, world.high + 1))
    return st.sampled_from(inside * 3 + [world.low - 1, world.high + 1])


def quantities(world: World = WORLD) -> st.SearchStrategy[int]:
    """Give quantities of 1 .. `quantity_max` lots; shrink to 1."""
    return st.integers(1, world.quantity_max)


def new_orders(world: World = WORLD, *, ids: st.SearchStrategy[int] | None = None) -> st.SearchStrategy[NewOrder]:
    """Give new orders that decode, of every style and mode in the world's features; `ids` replaces its order ids.

    >>> from hypothesis import find
    >>> find(new_orders(), lambda order: order.time_in_force == 3)
    NewOrder(side=1, time_in_force=3, flags=0, instrument=1, order_id=1, price=97, quantity=1, display=0)
    """

    def build(side: int, style: tuple[int, int], mode: int, number: int, ident: int, price: int, lots: int) -> NewOrder:
        time_in_force, flags = style
        return NewOrder(
            side, time_in_force, flags | mode, number, ident, 0 if flags & OrderFlag.MARKET else price, lots
        )

    return st.builds(
        build,
        st.sampled_from([int(side) for side in Side]),
        st.sampled_from(world.styles()),
        st.sampled_from(world.modes()),
        instruments(world),
        order_ids(world) if ids is None else ids,
        prices(world),
        quantities(world),
    )


def replace_orders(
    world: World = WORLD, *, ids: st.SearchStrategy[int] | None = None
) -> st.SearchStrategy[ReplaceOrder]:
    """Give replaces that decode, of totals up to twice `quantity_max` so that some enlarge what was filled."""
    flags = [int(flags) for time_in_force, flags in world.styles() if time_in_force == TimeInForce.GTC]
    return st.builds(
        lambda side, flag, mode, number, ident, price, total: ReplaceOrder(
            side, int(TimeInForce.GTC), flag | mode, number, ident, price, total
        ),
        st.sampled_from([int(side) for side in Side]),
        st.sampled_from(flags),
        st.sampled_from(world.modes()),
        instruments(world),
        order_ids(world) if ids is None else ids,
        prices(world),
        st.integers(1, 2 * world.quantity_max),
    )


def cancel_orders(world: World = WORLD, *, ids: st.SearchStrategy[int] | None = None) -> st.SearchStrategy[CancelOrder]:
    """Give cancels; most meet nothing, as in life, where the order has just traded."""
    return st.builds(CancelOrder, instruments(world), order_ids(world) if ids is None else ids)


def mass_cancels(world: World = WORLD) -> st.SearchStrategy[MassCancel]:
    """Give mass cancels of every scope; accounts go up to one that has no order."""
    number, account, none = instruments(world), st.integers(0, world.accounts), st.just(0)
    return st.one_of(
        st.builds(MassCancel, st.just(int(Scope.INSTRUMENT)), number, none),
        st.builds(MassCancel, st.just(int(Scope.ACCOUNT)), none, account),
        st.builds(MassCancel, st.just(int(Scope.ACCOUNT_IN_INSTRUMENT)), number, account),
        st.just(MassCancel(int(Scope.VENUE))),
    )


def define_instruments(world: World = WORLD) -> st.SearchStrategy[DefineInstrument]:
    """Give definitions of the world's instruments and one more, of ticks and lots 1 .. 3 and bands near its own."""

    def build(state: int, number: int, low: int, width: int, tick: int, lot: int) -> DefineInstrument:
        return DefineInstrument(state, number, low, low + width, tick, lot)

    return st.builds(
        build,
        _trading_states(),
        st.integers(1, world.instruments + 1),
        st.integers(world.low - 2, world.low + 1),
        st.integers(0, world.high - world.low + 3),
        st.sampled_from((1, 1, 2, 3)),
        st.sampled_from((1, 1, 2, 3)),
    )


def set_trading_states(world: World = WORLD) -> st.SearchStrategy[SetTradingState]:
    """Give changes of trading state, three of four to *open* so that streams do not stand still."""
    return st.builds(SetTradingState, _trading_states(), instruments(world))


def _trading_states() -> st.SearchStrategy[int]:
    others = [int(state) for state in TradingState if state != TradingState.OPEN]
    return st.sampled_from([int(TradingState.OPEN)] * 3 * len(others) + others)


def commands(world: World = WORLD) -> st.SearchStrategy[Command]:
    """Give single commands of every kind in the world's features, more than half of them new orders.

    >>> from hypothesis import find
    >>> find(commands(), lambda command: isinstance(command, CancelOrder))
    CancelOrder(instrument=1, order_id=1)
    """
    kinds: list[tuple[str, int, st.SearchStrategy[Command]]] = [
        ("", 16, new_orders(world)),
        ("", 3, cancel_orders(world)),
        ("replace", 6, replace_orders(world)),
        ("mass-cancel", 1, mass_cancels(world)),
        ("states", 1, set_trading_states(world)),
        ("definitions", 1, define_instruments(world)),
    ]
    return _weighed([(weight, kind) for word, weight, kind in kinds if world.features.issuperset(word.split())])


def _weighed(kinds: Sequence[tuple[int, st.SearchStrategy[Element]]]) -> st.SearchStrategy[Element]:
    """Choose by weight; `one_of` weighs every branch of its nested choices alike, and forgets those that repeat."""
    chosen = [kind for weight, kind in kinds for _ in range(weight)]
    return st.integers(0, len(chosen) - 1).flatmap(chosen.__getitem__)


# ----------------------------------------------------------------------------------------------------- streams


def streams(world: World = WORLD, *, max_size: int = 100) -> st.SearchStrategy[list[Command]]:
    """Give streams: the definition of every instrument, then up to `max_size` commands that all decode.

    Such a stream meets every reject of the state (REJECT-32 .. REJECT-43), given an engine of small capacity, and none
    of the frame.

    >>> from hypothesis import find
    >>> [type(command).__name__ for command in find(streams(World(instruments=1)), lambda stream: len(stream) > 2)]
    ['DefineInstrument', 'NewOrder', 'NewOrder']
    """
    definitions: list[Command] = [*world.definitions()]
    return _long_lists(commands(world), max_size).map(lambda stream: definitions + stream)


def hostile_frames(world: World = WORLD) -> st.SearchStrategy[AnyCommand]:
    """Give frames that may be anything: a good command with wrong fields or of the wrong size, or random bytes."""
    return st.one_of(_overwritten(world), _resized(world), st.binary(min_size=1, max_size=COMMAND_SIZE).map(RawFrame))


def hostile_streams(world: World = WORLD, *, max_size: int = 100) -> st.SearchStrategy[list[AnyCommand]]:
    """Give streams in which good commands and hostile frames are mixed, after the definition of every instrument.

    >>> from hypothesis import find
    >>> find(hostile_streams(World(instruments=1)), lambda stream: stream[-1].pack()[0] > 6)[1:]
    [RawFrame(bytes.fromhex('07'))]
    """
    definitions: list[AnyCommand] = [*world.definitions()]
    kinds: list[tuple[int, st.SearchStrategy[AnyCommand]]] = [(3, commands(world)), (1, hostile_frames(world))]
    return _long_lists(_weighed(kinds), max_size).map(lambda stream: definitions + stream)


def _long_lists(element: st.SearchStrategy[Element], max_size: int) -> st.SearchStrategy[list[Element]]:
    """Give lists of which half are long: a list of Hypothesis has about five elements unless a least size is asked for.

    A long list shrinks into the short ones, because both are drawn alike.
    """
    long = st.lists(element, min_size=min(20, max_size), max_size=max_size)
    return st.one_of(st.lists(element, max_size=max_size), long)


EDGES_U8: Final = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 64, 80, 128, 254, 255)
EDGES_U32: Final = (0, 1, 2, 2**20 - 1, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
EDGES_I64: Final = (0, 1, -1, 2**23 - 1, 2**23, 2**40 - 1, 2**40, 1 - 2**40, -(2**40), 2**63 - 1, -(2**63))
FIELD_EDGES: Final = (EDGES_U8,) * 4 + (EDGES_U32, EDGES_I64, EDGES_I64, EDGES_U32, EDGES_U32)
"""Values at and beyond the limits of every field of the common shape, in wire order (LIM-1 .. LIM-6)."""


def _overwritten(world: World) -> st.SearchStrategy[RawFrame]:
    """Give good frames of which one to three fields of the shape have a value at its limits."""
    values = st.integers(0, len(FIELD_EDGES) - 1).flatmap(
        lambda index: st.tuples(st.just(index), st.sampled_from(FIELD_EDGES[index]))
    )

    def overwrite(command: Command, changes: Sequence[tuple[int, int]]) -> RawFrame:
        frame = command.pack()
        shape = list(COMMAND.unpack(frame.ljust(COMMAND_SIZE, b"\0")))
        for index, value in changes:
            shape[index] = value
        return RawFrame(COMMAND.pack(*shape)[: len(frame)])

    return st.builds(overwrite, commands(world), st.lists(values, min_size=1, max_size=3))


def _resized(world: World) -> st.SearchStrategy[RawFrame]:
    """Give good frames that are cut short or lengthened."""

    def resize(command: Command, size: int, filler: int) -> RawFrame:
        return RawFrame(command.pack().ljust(COMMAND_SIZE, bytes([filler]))[:size])

    return st.builds(resize, commands(world), st.integers(1, COMMAND_SIZE), st.sampled_from((0, 1, 255)))


# ----------------------------------------------------------------------------------------------------- records


@st.composite
def records(
    draw: st.DrawFn,
    stream: st.SearchStrategy[Sequence[AnyCommand]] | None = None,
    *,
    first: int = 1,
    wrong_envelopes: bool = False,
) -> bytes:
    """Give the journal records, 64 bytes each, of a stream (`streams()` by default), in sequence from `first`.

    Times run from 0 to 2^62 and may go back (DET-4).  With `wrong_envelopes`, some records carry another kind or size
    than their command, bytes beyond a short command, or checksums, session and lag, which no engine reads (WIRE-7), and
    some are annotations (DET-8).  Failures show the stream as the lines of a session.
    """
    chosen = draw(streams() if stream is None else stream)
    times = st.one_of(st.integers(0, 10), st.integers(0, 2**62))
    packed = []
    for sequence, command in enumerate(chosen, first):
        frame = command.pack()
        kind, size, shape = frame[0], len(frame), frame.ljust(COMMAND_SIZE, b"\0")
        crc = session = 0
        if wrong_envelopes and draw(st.booleans()):
            crc, session = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**16 - 1))
            fault = draw(st.sampled_from(("none", "kind", "size", "beyond", "annotation")))
            if fault == "kind":
                kind = draw(st.sampled_from([*range(9), 253]))
            elif fault == "size":
                size = draw(st.integers(0, 255))
            elif fault == "beyond":
                shape = frame.ljust(COMMAND_SIZE, b"\1")
            elif fault == "annotation":
                kind, size, shape = draw(st.sampled_from([int(kind) for kind in Annotation])), 0, bytes(COMMAND_SIZE)
        packed.append(
            RECORD.pack(crc, crc ^ 1, sequence, draw(times), kind, size, session, crc >> 8, *COMMAND.unpack(shape))
        )
    note("\n".join(describe(chosen)))
    return b"".join(packed)


def describe(stream: Collection[AnyCommand]) -> list[str]:
    """Return the line of text that says each command (specs/text.md), to paste into a session.

    >>> describe([CancelOrder(1, 7), RawFrame(b"!")])
    ['cancel #7', 'raw 21']
    """
    frames = [command.pack() for command in stream]
    return [format_command(frame) if len(frame) in (16, 32) else f"raw {frame.hex()}" for frame in frames]


def batch_splits(count: int) -> st.SearchStrategy[list[int]]:
    """Give the sizes, each at least 1, of batches that hold `count` records together; shrink to one batch (DET-2).

    >>> from hypothesis import find
    >>> find(batch_splits(5), lambda sizes: len(sizes) == 3)
    [1, 1, 3]
    """
    if count <= 1:
        return st.just([count] if count else [])
    cuts = st.lists(st.integers(1, count - 1), unique=True, max_size=count - 1)
    return cuts.map(lambda places: _sizes([0, *sorted(places), count]))


def _sizes(ends: Sequence[int]) -> list[int]:
    return [end - start for start, end in pairwise(ends)]


assert tuple(map(int, CommandKind)) == (1, 2, 3, 4, 5, 6), "wrong envelopes name every kind and some beyond"
