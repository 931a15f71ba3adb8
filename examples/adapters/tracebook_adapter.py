r"""Ferrox behind tracebook-conformance's process protocol, so that a public referee can judge it.

    tracebook-conformance qualify --profile fifo-full-v1 --output-dir evidence \
        --candidate-cmd 'python examples/adapters/tracebook_adapter.py fast'

The protocol is one JSON object a line: `hello` is answered by `ready`, an `event` by an `observation`, a `snapshot` by
the whole book, `finish` by `complete`.  Every decision is the engine's; this file only translates, and these are the
places where the two speak differently:

* **Prices** are floats there, rounded to the tick by `round(price / tick_size)`; here they are integers.  The band
  begins at 1, so a price that rounds to zero is the engine's OUTSIDE_BAND, there INVALID_ORDER.
* **Quantities** are floats there.  A lot is 2^-22, which is exact for the halves of halves that traces are made of, and
  holds quantities below 512.  Whatever is no whole number of lots ends the run with an error; nothing is rounded.
* **Symbols** become instruments when a `new` or a `clear` first names them; a book stays in the state when it is empty.
* **Order ids** are unique by symbol there and in the whole venue here, and the account is part of them here.  So an
  order gets the next reference of its owner's account, but one whose id still rests is sent under that very id, for the
  engine to reject.
* **reduce** takes a quantity off; here it is a replace to a smaller total, which keeps the place in the queue, or a
  cancel when nothing is left.
* **replace** names the new leaves and always loses the place; here a replace names the new total, and one that only
  makes the order smaller keeps its place (RPL-2, RPL-4).  That last case is sent as a cancel and a new order.
* **clear** is a mass cancel of the instrument.
* **Self-trade policies** are the venue's there and the taker's here: every order is sent with the mode of the policy,
  save anonymous ones (owner -1, here account 0).

`pro_rata` is the one configuration that Ferrox cannot be: its queues are price-time only, so it says so and stops.
"""

import hashlib
import json
import sys
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from typing import Any, Final, NoReturn

from ferrox import __version__
from ferrox.engine import Capacity, make_engine
from ferrox.messages import CancelOrder, Command, DefineInstrument, MassCancel, NewOrder, ReplaceOrder, Report
from ferrox.messages import unpack_reports as unpack
from ferrox.state import RestingOrder, unpack_state
from ferrox.terms import (
    PRICE_MAX,
    SELF_TRADE_SHIFT,
    OrderFlag,
    Reason,
    ReportKind,
    Scope,
    SelfTrade,
    Side,
    TimeInForce,
    TradingState,
    account_of,
    compose_order_id,
)
from ferrox.testing.sessions import to_record

PROTOCOL: Final = {"protocol": "tracebook.conformance", "protocol_version": 1}
LOTS: Final = 1 << 22  # to a quantity of 1
ANONYMOUS: Final = -1

SIDES: Final = {"BUY": Side.BUY, "SELL": Side.SELL}
KINDS: Final = {
    "LIMIT": (TimeInForce.GTC, 0),
    "IOC": (TimeInForce.IOC, 0),
    "FOK": (TimeInForce.FOK, 0),
    "MARKET": (TimeInForce.IOC, OrderFlag.MARKET),
}
MODES: Final = {
    "NONE": SelfTrade.ALLOW,
    "CANCEL_RESTING": SelfTrade.CANCEL_MAKER,
    "CANCEL_INCOMING": SelfTrade.CANCEL_TAKER,
}
REASONS: Final = {
    Reason.UNKNOWN_ORDER: "ORDER_NOT_ACTIVE",
    Reason.UNKNOWN_INSTRUMENT: "ORDER_NOT_ACTIVE",
    Reason.DUPLICATE_ORDER_ID: "DUPLICATE_ORDER_ID",
}
OTHER_REASONS: Final = {"replace": "INVALID_REPLACEMENT", "cancel": "INVALID_CANCEL"}
REJECTIONS: Final = (ReportKind.REJECTED, ReportKind.CANCEL_REJECTED, ReportKind.REPLACE_REJECTED)


class Refused(Exception):
    """An event that names nothing an engine could be asked for; the text is the referee's code for it."""


class Adapter:
    """One run: an engine, and the names that the referee has for what is in it."""

    def __init__(self, engine: str, config: dict[str, Any]) -> None:
        if config.get("matching_algorithm", "fifo") != "fifo":
            raise ValueError("Ferrox matches by price-time priority only; pro-rata is not in its rules")
        self.engine = make_engine(engine, Capacity(orders=1 << 14, instruments=256))
        self.tick_size = Decimal(str(config.get("tick_size", "0.01")))
        self.places = int(config.get("quantity_decimal_places", 12))
        self.mode = MODES[config.get("self_trade_policy", "NONE")]
        self.sequence = 0
        self.reference = 0
        self.instruments: dict[str, int] = {}
        self.order_ids: dict[tuple[str, int], int] = {}  # by symbol and the referee's id
        self.names: dict[int, int] = {}  # the referee's id, by ours
        self.resting: dict[int, RestingOrder] = {}

    # ---------------------------------------------------------------------------------------------------- events

    def apply(self, index: int, event: dict[str, Any]) -> dict[str, Any]:
        """Carry out one event and return the observation of it."""
        reports: list[Report] = []
        outcome: dict[str, Any] = {"status": "applied", "reason": None, "message": None}
        try:
            for command in getattr(self, event["op"])(event):
                reports += self.send(command)
        except Refused as refused:
            outcome = {"status": "rejected", "reason": str(refused), "message": None}
        rejected = next((report for report in reports if report.kind in REJECTIONS), None)
        if rejected is not None:
            reason = REASONS.get(Reason(rejected.reason), OTHER_REASONS.get(event["op"], "INVALID_ORDER"))
            outcome = {"status": "rejected", "reason": reason, "message": Reason(rejected.reason).name}
        self.resting = {order.order_id: order for order in unpack_state(self.engine.snapshot()).orders}
        return {
            "type": "observation",
            "index": index,
            "outcome": outcome,
            "trades": [self.trade(event["symbol"], report) for report in reports if report.kind == ReportKind.TRADE],
            "state_hash": self.state_hash(),
            "resting_order_count": len(self.resting),
        }

    def new(self, event: dict[str, Any]) -> list[Command]:
        """Return the new order, after its instrument's definition if it is the first."""
        commands = self.define(event["symbol"])
        key = event["symbol"], event["order_id"]
        order_id = self.order_ids.get(key, 0)
        owner = event.get("owner", ANONYMOUS)
        if order_id not in self.resting:
            self.reference += 1
            order_id = compose_order_id(0 if owner == ANONYMOUS else owner, self.reference)
            self.order_ids[key], self.names[order_id] = order_id, event["order_id"]
        time_in_force, flags = KINDS[event.get("order_type") or "LIMIT"]
        flags |= 0 if owner == ANONYMOUS else self.mode << SELF_TRADE_SHIFT
        price = 0 if flags & OrderFlag.MARKET else self.ticks(event["price"])
        instrument = self.instruments[event["symbol"]]
        side = SIDES[event["side"]]
        return [
            *commands,
            NewOrder(side, time_in_force, flags, instrument, order_id, price, self.lots(event["quantity"])),
        ]

    def cancel(self, event: dict[str, Any]) -> list[Command]:
        """Return the cancel."""
        instrument, order_id, _ = self.named(event)
        return [CancelOrder(instrument, order_id)]

    def reduce(self, event: dict[str, Any]) -> list[Command]:
        """Return a replace to a smaller total, or a cancel when all that is left is taken off."""
        instrument, order_id, order = self.named(event)
        if order is None:
            return [CancelOrder(instrument, order_id)]  # which the engine refuses
        leaves = order.leaves - self.lots(event["quantity"])
        if leaves < 0:
            raise Refused("INVALID_ORDER")
        if leaves == 0:
            return [CancelOrder(instrument, order_id)]
        total = order.filled + leaves
        return [ReplaceOrder(order.side, TimeInForce.GTC, 0, instrument, order_id, order.price, total)]

    def replace(self, event: dict[str, Any]) -> list[Command]:
        """Return a replace, or a cancel and a new order where a replace would keep the place in the queue."""
        instrument, order_id, order = self.named(event)
        if order is None:
            return [CancelOrder(instrument, order_id)]  # which the engine refuses
        price = order.price if event.get("price") is None else self.ticks(event["price"])
        leaves = order.leaves if event.get("quantity") is None else self.lots(event["quantity"])
        flags = (self.mode if account_of(order_id) else SelfTrade.ALLOW) << SELF_TRADE_SHIFT
        if leaves <= 0:
            raise Refused("INVALID_REPLACEMENT")
        if price == order.price and leaves <= order.leaves:
            again = NewOrder(order.side, TimeInForce.GTC, flags, instrument, order_id, price, leaves)
            return [CancelOrder(instrument, order_id), again]
        return [ReplaceOrder(order.side, TimeInForce.GTC, flags, instrument, order_id, price, order.filled + leaves)]

    def clear(self, event: dict[str, Any]) -> list[Command]:
        """Return the mass cancel of the instrument, which is there from now on."""
        return [*self.define(event["symbol"]), MassCancel(Scope.INSTRUMENT, self.instruments[event["symbol"]])]

    def define(self, symbol: str) -> list[Command]:
        """Return the definition of an instrument that is not there yet."""
        if symbol in self.instruments:
            return []
        self.instruments[symbol] = instrument = len(self.instruments) + 1
        return [DefineInstrument(TradingState.OPEN, instrument, 1, PRICE_MAX, 1, 1)]

    def named(self, event: dict[str, Any]) -> tuple[int, int, RestingOrder | None]:
        """Return instrument, order id and order that an event names; what is unknown gets numbers that are, too."""
        instrument = self.instruments.get(event["symbol"], len(self.instruments) + 1)
        order_id = self.order_ids.get((event["symbol"], event["order_id"]), compose_order_id(0, self.reference + 1))
        return instrument, order_id, self.resting.get(order_id)

    def send(self, command: Command) -> list[Report]:
        """Apply one command and return its reports."""
        self.sequence += 1
        _, reports = self.engine.apply(to_record(self.sequence, command.pack()))
        return unpack(reports)

    # --------------------------------------------------------------------------------------------------- numbers

    def ticks(self, price: float) -> int:
        """Return a price in ticks, rounded as the referee rounds."""
        return round(price / float(self.tick_size))

    def lots(self, quantity: float) -> int:
        """Return a quantity in lots; raise ValueError when it is no whole number of them."""
        lots = Fraction(quantity) * LOTS
        if lots.denominator != 1:
            raise ValueError(f"a quantity of {quantity} is no whole number of lots of 1/{LOTS}")
        return int(lots)

    def price_text(self, ticks: int) -> str:
        """Return a price in ticks as the referee's decimal."""
        return decimal_text(self.tick_size * ticks)

    def quantity_text(self, lots: int) -> str:
        """Return a quantity in lots as the referee's decimal, with as many places as it asked for."""
        with localcontext() as context:
            context.prec = 60
            exact = Decimal(lots) / LOTS
            return decimal_text(exact.quantize(Decimal(1).scaleb(-self.places), rounding=ROUND_HALF_EVEN))

    # ----------------------------------------------------------------------------------------------------- state

    def trade(self, symbol: str, report: Report) -> dict[str, Any]:
        """Return one trade in the referee's words."""
        taker, maker = self.names[report.order_id], self.names[report.contra_id]
        buyer, seller = (taker, maker) if report.side == Side.BUY else (maker, taker)
        return {
            "symbol": symbol,
            "buy_order_id": buyer,
            "sell_order_id": seller,
            "price": self.price_text(report.price),
            "quantity": self.quantity_text(report.quantity),
        }

    def state(self) -> dict[str, Any]:
        """Return every book with both queues in order of priority, which is the order of a snapshot (SNAP-2)."""
        books = []
        for symbol, instrument in sorted(self.instruments.items()):
            orders = [order for order in self.resting.values() if order.instrument == instrument]
            books.append(
                {
                    "symbol": symbol,
                    "bids": [self.order(order) for order in orders if order.side == Side.BUY],
                    "asks": [self.order(order) for order in orders if order.side == Side.SELL],
                }
            )
        return {"books": books}

    def order(self, order: RestingOrder) -> dict[str, Any]:
        """Return one resting order in the referee's words."""
        return {
            "order_id": self.names[order.order_id],
            "price": self.price_text(order.price),
            "remaining_quantity": self.quantity_text(order.leaves),
            "owner": account_of(order.order_id) or ANONYMOUS,
            "order_type": "LIMIT",
        }

    def state_hash(self) -> str:
        """Return the SHA-256 of the state as the referee writes it."""
        text = json.dumps(self.state(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def decimal_text(number: Decimal) -> str:
    """Return a decimal without exponent and without trailing zeros."""
    return format(number.normalize(), "f") if number else "0"


def answer(engine: str) -> None:
    """Answer the referee's messages until it finishes."""
    adapter: Adapter | None = None
    for line in sys.stdin:
        message = json.loads(line)
        kind = message["type"]
        if kind == "hello":
            if message["protocol_version"] != PROTOCOL["protocol_version"]:
                raise ValueError(f"this adapter speaks version 1 of the protocol, not {message['protocol_version']}")
            adapter = Adapter(engine, message["config"])
            identity = {"name": f"ferrox-{engine}", "version": __version__, "language": "Python"}
            say({"type": "ready", **PROTOCOL, "engine": identity})
            continue
        if adapter is None:
            raise ValueError(f"the first message is hello, not {kind}")
        if kind == "event":
            say(adapter.apply(message["index"], message["event"]))
        elif kind == "snapshot":
            say({"type": "snapshot", "index": message["index"], "state": adapter.state()})
        elif kind == "finish":
            say({"type": "complete", "event_count": message["event_count"]})
            return
        else:
            raise ValueError(f"there is no message {kind!r} in version 1 of the protocol")
    raise ValueError("the stream ended before finish")


def say(message: dict[str, Any]) -> None:
    """Write one message."""
    print(json.dumps(message, separators=(",", ":")), flush=True)


def main() -> NoReturn:
    """Serve the engine named on the command line, the reference if none is."""
    try:
        answer(sys.argv[1] if len(sys.argv) > 1 else "reference")
    except (KeyError, TypeError, ValueError) as error:
        say({"type": "error", "code": "ADAPTER_ERROR", "message": str(error)})
        sys.exit(2)
    sys.exit(0)


if __name__ == "__main__":
    main()
