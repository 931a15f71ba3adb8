"""Plain order flows for measuring: limit orders and cancels only, so that a bare C++ book can run them as well.

Each flow is a pure function of its name: arrivals, distances and lifetimes are drawn from PCG64's raw output, which
NumPy keeps stable, and cancels are arrivals plus lifetimes, sorted in.  Nothing looks at a book, so a few per cent of
the cancels come too late, as they do in a market.

balanced   10,000 resting orders near the touch, young ones canceled most
deep       500,000 resting orders on 20,000 levels and more, cancels anywhere
sweep      one message in 25 takes 20 resting orders and more
many       1,000 instruments with Zipf's activity, 200,000 resting orders
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ferrox.messages import COMMAND_DTYPE, RECORD_DTYPE
from ferrox.terms import CommandKind, TimeInForce, TradingState

MIDDLE: Final = 32_768
BAND: Final = 65_535
Integers = NDArray[np.int64]


class Flow(NamedTuple):
    """Records to run: the first `prefill` of them make the book and are not measured."""

    name: str
    records: bytes
    prefill: int
    instruments: int
    ladder_bits: int
    """Enough for every price: what a flat ladder of the yardstick needs."""

    @property
    def messages(self) -> int:
        """How many are measured."""
        return len(self.records) // RECORD_DTYPE.itemsize - self.prefill


class Dice:
    """Uniform numbers from the raw words of PCG64."""

    def __init__(self, seed: int) -> None:
        self.bits = np.random.PCG64(seed)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return numbers of 0 (included) .. 1 (excluded)."""
        words: NDArray[np.uint64] = np.asarray(self.bits.random_raw(count), dtype=np.uint64)
        fractions: NDArray[np.float64] = (words >> np.uint64(11)) * np.float64(2.0**-53)
        return fractions


def power_law(uniform: NDArray[np.float64], offset: int, largest: int) -> Integers:
    """Return distances of 0 .. largest with P(d) ~ (d + offset)^-1.6 (Bouchaud, Mezard, Potters 2002)."""
    low, high = float(offset) ** -0.6, float(offset + largest + 1) ** -0.6
    distance = (low - uniform * (low - high)) ** (-1 / 0.6) - offset
    reached: Integers = np.minimum(distance.astype(np.int64), largest)
    return reached


def make(
    name: str,
    *,
    seed: int,
    messages: int,
    prefill: int,
    marketable: float,
    lifetime: Callable[[NDArray[np.float64]], Integers],
    offset: int,
    largest: int,
    sweep: int = 0,
    instruments: int = 1,
    middle: int = MIDDLE,
) -> Flow:
    """Return the flow of these shares and lengths; lifetimes are in arrivals."""
    dice = Dice(seed)
    arrivals = messages + prefill  # more than will be needed: cancels take their share of the messages
    side = 1 + (dice.uniform(arrivals) < 0.5).astype(np.int64)
    sign = 3 - 2 * side
    takes = (dice.uniform(arrivals) < marketable) & (np.arange(arrivals) >= prefill)
    distance = 1 + power_law(dice.uniform(arrivals), offset, largest)
    price = middle - sign * distance
    lots = dice.uniform(arrivals)
    quantity = np.where(lots < 0.55, 100, np.where(lots < 0.8, 1 + (lots * 396).astype(np.int64) % 99, 200))
    reach = (dice.uniform(arrivals) * 3).astype(np.int64)
    price = np.where(takes, middle + sign * (largest if sweep else 3 + reach), price)
    quantity = np.where(takes, 110 * sweep if sweep else np.minimum(quantity, 100), quantity)
    ranks = np.cumsum(1 / np.arange(1, instruments + 1))
    instrument = 1 + np.searchsorted(ranks, dice.uniform(arrivals) * ranks[-1])
    instrument = np.minimum(instrument, instruments) * 389 % instruments + 1  # an instrument's number is not its rank

    ends = np.arange(arrivals) + 1 + lifetime(dice.uniform(arrivals))
    ends = np.where(ends < prefill, prefill + ends % max(1, messages), ends)  # the prefill ends after it began
    canceled = np.flatnonzero(~takes & (ends < arrivals))
    when = np.concatenate([np.arange(arrivals) * 2, ends[canceled] * 2 + 1])
    which = np.concatenate([np.arange(arrivals), canceled])
    is_cancel = np.concatenate([np.zeros(arrivals, bool), np.ones(len(canceled), bool)])
    order = np.argsort(when, kind="stable")[: messages + prefill]
    which, is_cancel = which[order], is_cancel[order]

    records = np.zeros(instruments + len(order), RECORD_DTYPE)
    records["sequence"] = np.arange(1, len(records) + 1)
    opening, body = records[:instruments], records[instruments:]
    define(opening, BAND if middle == MIDDLE else 2 * middle)
    command = body["command"]
    command["kind"] = body["kind"] = np.where(is_cancel, int(CommandKind.CANCEL_ORDER), int(CommandKind.NEW_ORDER))
    body["size"] = np.where(is_cancel, 16, 32)
    command["instrument"] = instrument[which]
    command["order_id"] = which + 1
    for field, values in (("side", side), ("price", price), ("quantity", quantity)):
        command[field] = np.where(is_cancel, 0, values[which])
    command["time_in_force"] = np.where(is_cancel, 0, int(TimeInForce.GTC))
    bits = (BAND if middle == MIDDLE else 2 * middle).bit_length()
    return Flow(name, records.tobytes(), instruments + prefill, instruments, bits)


def define(records: NDArray[Any], high: int) -> None:
    """Fill in the definitions of instruments 1 and up, open, with a band of 0 .. high."""
    records["kind"] = int(CommandKind.DEFINE_INSTRUMENT)
    records["size"] = 32
    command = records["command"]
    assert command.dtype == COMMAND_DTYPE
    command["kind"] = int(CommandKind.DEFINE_INSTRUMENT)
    command["side"] = int(TradingState.OPEN)  # the state stands where an order has its side
    command["instrument"] = np.arange(1, len(records) + 1)
    command["order_id"] = 0  # the low end of the band
    command["price"] = high
    command["quantity"] = command["display"] = 1  # tick and lot


def young(mean: int, longest: int) -> Callable[[NDArray[np.float64]], Integers]:
    """Return power-law lifetimes, P(age) ~ 1/age up to `longest`, about `mean` on average."""
    first = 1.0
    while (longest - first) / np.log(longest / first) < mean:
        first *= 1.1
    return lambda uniform: (first * (longest / first) ** uniform).astype(np.int64)


def any_age(mean: int) -> Callable[[NDArray[np.float64]], Integers]:
    """Return exponential lifetimes: every order alive is as likely to be the next to go."""
    return lambda uniform: (-mean * np.log1p(-uniform)).astype(np.int64)


def plain_flow(name: str, messages: int = 2_000_000) -> Flow:
    """Return one of the flows above by name."""
    common: dict[str, Any] = {"messages": messages}
    if name == "balanced":
        shape: dict[str, Any] = {"prefill": 10_000, "marketable": 0.2, "offset": 1, "largest": 2_000}
        return make(name, seed=11, lifetime=young(12_000, 200_000), **shape, **common)
    if name == "deep":
        shape = {"prefill": 500_000, "marketable": 0.05, "offset": 300, "largest": 12_000}
        return make(name, seed=12, lifetime=any_age(550_000), **shape, **common)
    if name == "sweep":
        shape = {"prefill": 20_000, "marketable": 0.038, "offset": 4, "largest": 2_000, "sweep": 21}
        return make(name, seed=13, lifetime=any_age(500_000), **shape, **common)
    if name == "many":
        shape = {"prefill": 200_000, "marketable": 0.15, "offset": 1, "largest": 800, "instruments": 1_000}
        return make(name, seed=15, lifetime=any_age(230_000), middle=2_047, **shape, **common)
    if name in GROWING:
        resting = int(name.removeprefix("book-"))
        shape = {"prefill": resting, "marketable": 0.05, "offset": 300, "largest": 12_000}
        return make(name, seed=16, lifetime=any_age(resting), **shape, **common)
    raise ValueError(f"there is no flow named {name!r}; choose one of: {', '.join(PLAIN + GROWING)}")


PLAIN: Final = ("balanced", "deep", "sweep", "many")
GROWING: Final = ("book-1000", "book-10000", "book-100000", "book-1000000")  # deep's shape, with so many orders resting


def write(flow: Flow, folder: Path) -> Path:
    """Write a flow's records to a file for the yardstick, and return its path."""
    path = folder / f"{flow.name}.records"
    path.write_bytes(flow.records)
    return path
