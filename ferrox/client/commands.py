"""The words of a client: each method makes one command and sends it, whatever sending is (`Client`, `AsyncClient`)."""

import os
from enum import IntEnum
from operator import index
from typing import Generic, TypeVar

from ferrox.client.protocol import AnyCommand
from ferrox.messages import (
    CancelOrder,
    DefineInstrument,
    MassCancel,
    NewOrder,
    ReplaceOrder,
    SetTradingState,
)
from ferrox.terms import (
    PRICE_MAX,
    SELF_TRADE_SHIFT,
    OrderFlag,
    Scope,
    SelfTrade,
    Side,
    TimeInForce,
    TradingState,
)
from ferrox.users import read_secret

Sent = TypeVar("Sent")
Term = str | int


class Commands(Generic[Sent]):
    """What a user may ask for; what comes back says how the answer is reached."""

    @property
    def account(self) -> int:
        """The account of the user, 0 for an operator."""
        raise NotImplementedError

    def send(self, command: AnyCommand, reference: int = 0) -> Sent:
        """Send a command of `ferrox.messages` or a frame in bytes, under the next reference or one that is chosen."""
        raise NotImplementedError

    # -------------------------------------------------------------------------------------------------- of a trader

    def buy(
        self,
        quantity: int,
        price: int | None = None,
        *,
        instrument: int = 1,
        time_in_force: Term | None = None,
        post_only: bool = False,
        slide: bool = False,
        self_trade: Term = SelfTrade.ALLOW,
        market: bool = False,
    ) -> Sent:
        """Send an order to buy; see `new`."""
        return self.new(
            Side.BUY,
            quantity,
            price,
            instrument=instrument,
            time_in_force=time_in_force,
            post_only=post_only,
            slide=slide,
            self_trade=self_trade,
            market=market,
        )

    def sell(
        self,
        quantity: int,
        price: int | None = None,
        *,
        instrument: int = 1,
        time_in_force: Term | None = None,
        post_only: bool = False,
        slide: bool = False,
        self_trade: Term = SelfTrade.ALLOW,
        market: bool = False,
    ) -> Sent:
        """Send an order to sell; see `new`."""
        return self.new(
            Side.SELL,
            quantity,
            price,
            instrument=instrument,
            time_in_force=time_in_force,
            post_only=post_only,
            slide=slide,
            self_trade=self_trade,
            market=market,
        )

    def new(
        self,
        side: Term,
        quantity: int,
        price: int | None = None,
        *,
        instrument: int = 1,
        time_in_force: Term | None = None,
        post_only: bool = False,
        slide: bool = False,
        self_trade: Term = SelfTrade.ALLOW,
        market: bool = False,
    ) -> Sent:
        """Send an order of so many lots at a price in ticks; without a price it is a market order.

        A time in force is "gtc", "ioc" or "fok"; left out, it is GTC, or IOC for a market order.
        """
        if market and price is not None:
            raise ValueError(f"a market order has no price, this one has {price} (MARKET-2)")
        market = price is None
        if time_in_force is None:
            time_in_force = TimeInForce.IOC if market else TimeInForce.GTC
        flags = _flags(post_only, slide, self_trade) | (OrderFlag.MARKET if market else 0)
        return self.send(
            NewOrder(
                _number(Side, side),
                _number(TimeInForce, time_in_force),
                flags,
                instrument,
                0,
                0 if price is None else price,
                quantity,
            )
        )

    def cancel(self, order: int, *, instrument: int = 1) -> Sent:
        """Take out a resting order, named by its reference or its order id (CANCEL-1)."""
        return self.send(CancelOrder(instrument, order))

    def replace(
        self,
        order: int,
        side: Term,
        quantity: int,
        price: int,
        *,
        instrument: int = 1,
        post_only: bool = False,
        slide: bool = False,
        self_trade: Term = SelfTrade.ALLOW,
    ) -> Sent:
        """Give a resting order a new total in lots, what has filled included, and a new price in ticks (RPL-1, RPL-2).

        The side is the order's own.
        """
        flags = _flags(post_only, slide, self_trade)
        return self.send(ReplaceOrder(_number(Side, side), TimeInForce.GTC, flags, instrument, order, price, quantity))

    def mass_cancel(self, *, instrument: int | None = None, account: int | None = None) -> Sent:
        """Take out all own resting orders, or those in one instrument.

        An operator names an instrument, an account, both, or, without either, means the venue.
        """
        if self.account:
            if account not in (None, self.account):
                raise ValueError(f"account {account} is not this user's, {self.account}, whose orders alone it cancels")
            scope = Scope.ACCOUNT if instrument is None else Scope.ACCOUNT_IN_INSTRUMENT
            return self.send(MassCancel(scope, instrument or 0, 0))
        scopes = {(True, False): Scope.INSTRUMENT, (False, True): Scope.ACCOUNT, (False, False): Scope.VENUE}
        scope = scopes.get((instrument is not None, account is not None), Scope.ACCOUNT_IN_INSTRUMENT)
        return self.send(MassCancel(scope, instrument or 0, account or 0))

    # ------------------------------------------------------------------------------------------------ of an operator

    def define(
        self,
        instrument: int = 1,
        *,
        tick: int = 1,
        lot: int = 1,
        band: tuple[int, int] = (-PRICE_MAX, PRICE_MAX),
        state: Term = TradingState.OPEN,
    ) -> Sent:
        """Define an instrument, or an empty one again (INSTR-1); for operators."""
        low, high = band
        return self.send(DefineInstrument(_number(TradingState, state), instrument, low, high, tick, lot))

    def set_state(self, instrument: int, state: Term) -> Sent:
        """Move an instrument to pre-open, open, halted or closed (STATE-4); for operators."""
        return self.send(SetTradingState(_number(TradingState, state), instrument))

    def set_limit(self, limit: int, value: int, *, instrument: int = 0, account: int = 0) -> Sent:
        """Set a limit or a kill switch of specs/risk.md, by its number, for an account or an instrument or all."""
        from ferrox.messages import SetLimit  # type: ignore[attr-defined, unused-ignore]

        return self.send(SetLimit(limit, instrument, account, value))


def _flags(post_only: bool, slide: bool, self_trade: Term) -> int:
    flags = _number(SelfTrade, self_trade) << SELF_TRADE_SHIFT
    return flags | (OrderFlag.POST_ONLY if post_only else 0) | (OrderFlag.SLIDE if slide else 0)


def _number(terms: type[IntEnum], value: Term) -> int:
    """Return the number of a term given as a member, a number or a name; raise ValueError for an unknown name."""
    if isinstance(value, str):
        name = value.strip().upper().replace("-", "_").replace(" ", "_")
        if name not in terms.__members__:
            names = ", ".join(term.name.lower().replace("_", "-") for term in terms)
            raise ValueError(f"{value!r} is none of: {names}")
        return int(terms[name])
    return index(value)


def secret_of(user: str, secret: "bytes | str | os.PathLike[str]") -> bytes:
    """Return a user's secret, which is given itself or as the path of a file of users (`ferrox.users`)."""
    return secret if isinstance(secret, bytes) else read_secret(secret, user)
