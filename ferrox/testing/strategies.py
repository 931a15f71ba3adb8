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

from collections.abc import Collection, Iterable, Sequence
from itertools import chain, pairwise
from typing import Final, NamedTuple, TypeVar, Union, cast

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
    SetLimit,
    SetTradingState,
)
from ferrox.terms import (
    QUANTITY_MAX,
    SELF_TRADE_SHIFT,
    Annotation,
    CommandKind,
    Limit,
    OrderFlag,
    Scope,
    SelfTrade,
    Side,
    TimeInForce,
    TradingState,
    account_of,
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
        "limits",
    }
)
"""What a stream may ask of an engine beside good-till-canceled limit orders and their cancels, by name.

"states" are changes of trading state, "definitions" are instruments defined again in mid-stream, "limits" are those of
a gateway, which an engine only repeats, "self-trade" are the modes other than *allow*.  "slide" needs "post-only", and
"market" needs "ioc" or "fok".
"""


def _known_features(_world: "World", _attribute: "Attribute[frozenset[str]]", names: frozenset[str]) -> None:
    if names - FEATURES:
        raise ValueError(f"no feature is named {sorted(names - FEATURES)}; choose from {sorted(FEATURES)}")


def _names(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names)


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
    references: int = 6
    """Each account has references 1 .. this, so this many orders of it can rest at a time."""
    features: frozenset[str] = field(default=FEATURES, converter=_names, validator=_known_features)
    """Names out of `FEATURES`; an engine without one of them is tested with the others."""

    def order_ids(self) -> list[int]:
        """Return every order id of this world, those of account 0 first."""
        accounts, references = range(self.accounts), range(1, self.references + 1)
        return [compose_order_id(account, reference) for account in accounts for reference in references]

    def definitions(self) -> list[DefineInstrument]:
        """Return the commands that define and open every instrument, the last first: no order follows from theirs."""
        ticks = [(number, 2 - number % 2) for number in range(self.instruments, 0, -1)]
        return [
            DefineInstrument(int(TradingState.OPEN), number, self.low, self.high, tick, 1) for number, tick in ticks
        ]

    def styles(self) -> list[tuple[int, int]]:
        """Return the pairs of time in force and flags that a new order may have, the plainest first and most often."""
        gtc, ioc, fok = map(int, TimeInForce)
        market, post_only, slide = map(int, OrderFlag)
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
#
# Whatever its kind, a command is four choices: a *form* (its kind with time in force, flags, scope or state), a *place*
# (instrument and order id), a *limit* (price and side) and a quantity.  Hypothesis deletes up to five neighbouring
# choices in one step, and a list adds one for each element.  With a choice for every field, a failing stream kept
# dozens of commands that it did not need; with four it shrinks to what it takes.


class Form(NamedTuple):
    """The kind of a command and what stands in `a`, `b` and `c` of the common shape, where its kind decides that."""

    kind: int
    a: int = 0
    b: int = 0
    c: int = 0


def _build(form: Form, place: tuple[int, int], limit: tuple[int, int], quantity: int) -> Command:
    """Return the command that four choices make."""
    (instrument, order_id), (price, side) = place, limit
    if form.kind == CommandKind.NEW_ORDER:
        price = 0 if form.c & OrderFlag.MARKET else price
        return NewOrder(side, form.b, form.c, instrument, order_id, price, quantity)
    if form.kind == CommandKind.REPLACE_ORDER:
        return ReplaceOrder(side, form.b, form.c, instrument, order_id, price, quantity)
    if form.kind == CommandKind.CANCEL_ORDER:
        return CancelOrder(instrument, order_id)
    if form.kind == CommandKind.MASS_CANCEL:
        names_instrument = form.a in (Scope.INSTRUMENT, Scope.ACCOUNT_IN_INSTRUMENT)
        names_account = form.a in (Scope.ACCOUNT, Scope.ACCOUNT_IN_INSTRUMENT)
        return MassCancel(form.a, instrument * names_instrument, account_of(order_id) * names_account)
    if form.kind == CommandKind.DEFINE_INSTRUMENT:
        # A band around the price, an instrument beyond the world's now and then.
        low, high = price - quantity % 4, price + quantity
        return DefineInstrument(form.a, instrument + (side == Side.SELL), low, high, form.b, form.c)
    if form.kind == CommandKind.SET_LIMIT:
        account = account_of(order_id) * (form.b == FOR_ACCOUNT)
        value = side - 1 if form.a == Limit.KILL else quantity
        return SetLimit(form.a, instrument * (form.b == FOR_INSTRUMENT), account, value)
    return SetTradingState(form.a, instrument)


def _commands(
    world: World, forms: Sequence[Form], ids: Sequence[int] | None = None, quantity_max: int | None = None
) -> st.SearchStrategy[Command]:
    """Give commands of these forms at any place, price and side of a world."""
    return st.builds(_build, *_three_choices(world, forms, ids), st.integers(1, quantity_max or world.quantity_max))


def _three_choices(
    world: World, forms: Sequence[Form], ids: Sequence[int] | None = None
) -> tuple[
    st.SearchStrategy[Form],
    st.SearchStrategy[tuple[int, int]],
    st.SearchStrategy[tuple[int, int]],
]:
    """Return the strategies of form, place and limit."""
    numbers = list(range(1, world.instruments + 1))
    places = [(number, ident) for number in numbers for ident in ids or world.order_ids()]
    places = [place for place in places if place[0] == 1] * (2 * len(numbers) - 2) + places
    inside = list(range(world.low, world.high + 1))
    limits = [(price, side) for price in [*inside, *inside, world.low - 1, world.high + 1] for side in map(int, Side)]
    return st.sampled_from(forms), st.sampled_from(places), st.sampled_from(limits)


def _new_forms(world: World) -> list[Form]:
    return [
        Form(CommandKind.NEW_ORDER, 0, time_in_force, flags | mode)
        for mode in world.modes()
        for time_in_force, flags in world.styles()
    ]


def _replace_forms(world: World) -> list[Form]:
    gtc = int(TimeInForce.GTC)
    flags = dict.fromkeys(flags for time_in_force, flags in world.styles() if time_in_force == gtc)
    return [Form(CommandKind.REPLACE_ORDER, 0, gtc, flag | mode) for mode in world.modes() for flag in flags]


CANCEL_FORMS: Final = [Form(CommandKind.CANCEL_ORDER)]
MASS_CANCEL_FORMS: Final = [Form(CommandKind.MASS_CANCEL, int(scope)) for scope in Scope]
# More than half of the states are *open*, so that streams do not stand still.
STATES: Final = [int(TradingState.OPEN)] * 5 + [int(state) for state in TradingState if state != TradingState.OPEN]
STATE_FORMS: Final = [Form(CommandKind.SET_TRADING_STATE, state) for state in STATES]
# `b` says what a limit is set for; of these forms, all decode.
FOR_ALL, FOR_ACCOUNT, FOR_INSTRUMENT = range(3)
LIMIT_FORMS: Final = [
    Form(CommandKind.SET_LIMIT, int(limit), named)
    for limit in Limit
    for named in (FOR_ALL, FOR_ACCOUNT, FOR_INSTRUMENT)
    if (limit != Limit.COLLAR or named != FOR_ACCOUNT)
    and (limit in (Limit.KILL, Limit.COLLAR) or named != FOR_INSTRUMENT)
]
DEFINE_FORMS: Final = [
    Form(CommandKind.DEFINE_INSTRUMENT, state, tick, lot)
    for tick, lot in ((1, 1), (1, 1), (2, 1), (3, 1), (1, 2), (2, 3))
    for state in STATES
]


def new_orders(world: World = WORLD, *, ids: Sequence[int] | None = None) -> st.SearchStrategy[NewOrder]:
    """Give new orders that decode, of every style and mode in the world's features; `ids` replaces its order ids.

    Prices are in the band and seldom one tick beyond it; all shrink to a buy of 1 at the lowest price in the band.

    >>> from hypothesis import find
    >>> find(new_orders(), lambda order: order.time_in_force == 3)
    NewOrder(side=1, time_in_force=3, flags=0, instrument=1, order_id=1, price=98, quantity=1, display=0)
    """
    return cast("st.SearchStrategy[NewOrder]", _commands(world, _new_forms(world), ids))


def replace_orders(world: World = WORLD, *, ids: Sequence[int] | None = None) -> st.SearchStrategy[ReplaceOrder]:
    """Give replaces that decode, of totals up to twice `quantity_max` so that some enlarge what was filled."""
    total_max = min(2 * world.quantity_max, QUANTITY_MAX)
    return cast("st.SearchStrategy[ReplaceOrder]", _commands(world, _replace_forms(world), ids, total_max))


def cancel_orders(world: World = WORLD, *, ids: Sequence[int] | None = None) -> st.SearchStrategy[CancelOrder]:
    """Give cancels; most meet nothing, as in life, where the order has just traded."""
    return cast("st.SearchStrategy[CancelOrder]", _commands(world, CANCEL_FORMS, ids))


def mass_cancels(world: World = WORLD) -> st.SearchStrategy[MassCancel]:
    """Give mass cancels of every scope."""
    return cast("st.SearchStrategy[MassCancel]", _commands(world, MASS_CANCEL_FORMS))


def define_instruments(world: World = WORLD) -> st.SearchStrategy[DefineInstrument]:
    """Give definitions of the world's instruments and one more, with ticks and lots of 1 .. 3, mostly 1."""
    return cast("st.SearchStrategy[DefineInstrument]", _commands(world, DEFINE_FORMS))


def set_trading_states(world: World = WORLD) -> st.SearchStrategy[SetTradingState]:
    """Give changes of trading state, more than half of them to *open*."""
    return cast("st.SearchStrategy[SetTradingState]", _commands(world, STATE_FORMS))


def set_limits(world: World = WORLD) -> st.SearchStrategy[SetLimit]:
    """Give limits of every kind, for all, for an account or for an instrument."""
    return cast("st.SearchStrategy[SetLimit]", _commands(world, LIMIT_FORMS))


def _forms(world: World) -> list[Form]:
    """Return forms of every kind in the world's features, of which Hypothesis draws each as often as the others.

    It prefers the first of more than 300 choices, so every kind is thinned out or repeated to its part of 240.
    """
    parts: list[tuple[str, int, list[Form]]] = [
        ("", 131, _new_forms(world)),
        ("", 25, CANCEL_FORMS),
        ("replace", 55, _replace_forms(world)),
        ("mass-cancel", 8, MASS_CANCEL_FORMS),
        ("states", 8, STATE_FORMS),
        ("definitions", 7, DEFINE_FORMS),
        ("limits", 6, LIMIT_FORMS),
    ]
    return [
        forms[index * len(forms) // count]
        for word, count, forms in parts
        if world.features.issuperset(word.split())
        for index in range(count)
    ]


def commands(world: World = WORLD) -> st.SearchStrategy[Command]:
    """Give single commands of every kind in the world's features, more than half of them new orders.

    >>> from hypothesis import find
    >>> find(commands(), lambda command: isinstance(command, CancelOrder))
    CancelOrder(instrument=1, order_id=1)
    """
    return _commands(world, _forms(world))


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
    return _long_lists(commands(world), max_size).map(lambda stream: definitions + _aimed(stream))


def _aimed(stream: Sequence[Command]) -> list[Command]:
    """Return a stream whose cancels and replaces mostly name one of the last four orders that were to rest.

    By chance alone nine of ten would meet nothing.  This looks back; what is drawn does not, so shrinking stays easy.
    """
    aimed: list[Command] = []
    recent: list[NewOrder] = []
    for command in stream:
        if isinstance(command, NewOrder) and command.time_in_force == TimeInForce.GTC:
            recent = [command, *recent[:3]]
        elif isinstance(command, ReplaceOrder) and recent and command.quantity % 4:
            order = recent[command.order_id % len(recent)]
            command = command._replace(  # noqa: PLW2901  # aimed in place
                instrument=order.instrument, order_id=order.order_id, side=order.side
            )
        elif isinstance(command, CancelOrder) and recent and command.order_id % 4:
            order = recent[command.order_id % len(recent)]
            command = CancelOrder(order.instrument, order.order_id)  # noqa: PLW2901  # likewise
        aimed.append(command)
    return aimed


EDGES_U8: Final = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 64, 80, 128, 254, 255)
EDGES_U32: Final = (0, 1, 2, 2**20 - 1, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
EDGES_I64: Final = (
    *(0, 1, 2, -1, 2**23 - 1, 2**23, 2**31 - 1, 2**31, 2**40 - 1, 2**40, 2**62 - 1, 2**62, 2**63 - 1),
    *(1 - 2**40, -(2**40), -(2**63)),
)
FIELD_EDGES: Final = (EDGES_U8,) * 4 + (EDGES_U32, EDGES_I64, EDGES_I64, EDGES_U32, EDGES_U32)
"""Values at and beyond the limits of every field of the common shape, in wire order (LIM-1 .. LIM-6, REJECT-18)."""


class Harm(NamedTuple):
    """One thing that is wrong with a frame: a field of the shape overwritten, or another size, padded with a filler."""

    field: int = -1
    value: int = 0
    size: int = 0


HARMS: Final = [
    *(Harm(field, value) for field, edges in enumerate(FIELD_EDGES) for value in edges),
    *(Harm(size=size, value=filler) for filler in (0, 255) for size in (1, 8, 15, 16, 17, 24, 31, 32)),
]


def _harm(command: AnyCommand, harms: Sequence[Harm]) -> AnyCommand:
    """Return a command with what is wrong with it; as it stands when nothing is."""
    frame = command.pack()
    for harm in harms:
        if harm.size:
            frame = frame.ljust(COMMAND_SIZE, bytes([harm.value]))[: harm.size]
        else:
            shape = list(COMMAND.unpack(frame.ljust(COMMAND_SIZE, b"\0")))
            shape[harm.field] = harm.value
            frame = COMMAND.pack(*shape)[: len(frame)]
    return RawFrame(frame) if harms else command


def _noise() -> st.SearchStrategy[AnyCommand]:
    return st.binary(min_size=1, max_size=COMMAND_SIZE).map(RawFrame)


def hostile_frames(world: World = WORLD) -> st.SearchStrategy[AnyCommand]:
    """Give frames that may be anything: a good command with up to three wrong fields or sizes, or random bytes.

    >>> from hypothesis import find
    >>> find(hostile_frames(), lambda command: len(command.pack()) == 1 and command.pack()[0] > 7)
    RawFrame(bytes.fromhex('08'))
    """
    harms = st.lists(st.sampled_from(HARMS), min_size=1, max_size=3)
    return st.one_of(st.builds(_harm, commands(world), harms), _noise())


def hostile_streams(world: World = WORLD, *, max_size: int = 100) -> st.SearchStrategy[list[AnyCommand]]:
    """Give streams in which good commands and hostile frames are mixed, after the definition of every instrument.

    >>> from hypothesis import find
    >>> describe(find(hostile_streams(World(instruments=1)), lambda stream: True))
    ['instrument 1 tick 1 lot 1 band 98 103 open']
    """
    definitions: list[AnyCommand] = [*world.definitions()]
    # Quantity and harm in one choice, so that an element has four and is deleted in one step.
    good = [1 + index % min(world.quantity_max, 9) for index in range(300 - len(HARMS))]
    amounts: list[tuple[int, tuple[Harm, ...]]] = [(quantity, ()) for quantity in sorted(good)]
    amounts += [(1, (harm,)) for harm in HARMS]

    def build(
        form: Form, place: tuple[int, int], limit: tuple[int, int], amount: tuple[int, tuple[Harm, ...]]
    ) -> AnyCommand:
        quantity, harms = amount
        return _harm(_build(form, place, limit, quantity), harms)

    mixed = _long_lists(st.builds(build, *_three_choices(world, _forms(world)), st.sampled_from(amounts)), max_size)
    parts = st.tuples(mixed, st.lists(_noise(), max_size=3), mixed)
    return parts.map(lambda parts: definitions + list(chain.from_iterable(parts))[:max_size])


def _long_lists(element: st.SearchStrategy[Element], max_size: int) -> st.SearchStrategy[list[Element]]:
    """Give lists of about 25 elements: a plain list of Hypothesis has five, and a list of lists shrinks as well."""
    return st.lists(st.lists(element, max_size=max_size), max_size=10).map(
        lambda parts: list(chain.from_iterable(parts))[:max_size]
    )


# ----------------------------------------------------------------------------------------------------- records


ENVELOPE_FAULTS: Final = (
    *[("none", 0)] * 30,
    *[("kind", kind) for kind in (*range(10), 253)],
    *[("size", size) for size in (0, 1, 15, 16, 17, 31, 32, 33, 64, 255)],
    *[("beyond", 1), ("beyond", 255)],
    *[("unread", 1), ("unread", 2**16 - 1)],
    *[("annotation", int(kind)) for kind in Annotation],
)


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
    packed = []
    for sequence, command in enumerate(chosen, first):
        frame = command.pack()
        kind, size, shape = frame[0], len(frame), frame.ljust(COMMAND_SIZE, b"\0")
        unread = 0
        fault, value = draw(st.sampled_from(ENVELOPE_FAULTS)) if wrong_envelopes else ("none", 0)
        if fault == "kind":
            kind = value
        elif fault == "size":
            size = value
        elif fault == "beyond":
            shape = frame.ljust(COMMAND_SIZE, bytes([value]))
        elif fault == "unread":
            unread = value
        elif fault == "annotation":
            kind, size, shape = value, 0, bytes(COMMAND_SIZE)
        time_ns = draw(st.sampled_from((sequence, 0, sequence * 1_000, 2**62)))
        envelope = (unread, unread, sequence, time_ns, kind, size, unread, unread)
        packed.append(RECORD.pack(*envelope, *COMMAND.unpack(shape)))
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
