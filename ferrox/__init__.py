"""Ferrox: a deterministic, event-sourced limit-order matching engine.

    import ferrox as fx

    venue = fx.Venue()
    venue.define(1, tick=1, lot=1, band=(0, 10_000))
    venue.sell(10, 100)
    venue.buy(15, 101).trades

Everything a notebook needs is here; `ferrox.messages`, `ferrox.state` and `ferrox.depth` have the rest.  Importing this
loads numpy and nothing heavier: pyarrow waits until Arrow or Parquet is asked for.
"""

from ferrox.columns import MissingPackage, Reports, ReportWriter, cancel_orders, new_orders
from ferrox.depth import Books, BookView, Depth, ForeignReport, Level, Orders, QueuePosition, Top
from ferrox.engine import Capacity, Engine, make_engine
from ferrox.errors import CorruptInput, FerroxError, JournalCorrupt, SequenceError, SnapshotCorrupt, UsageError
from ferrox.messages import (
    CANCEL_ORDER_DTYPE,
    COMMAND_DTYPE,
    DEFINE_INSTRUMENT_DTYPE,
    MASS_CANCEL_DTYPE,
    NEW_ORDER_DTYPE,
    RECORD_DTYPE,
    REPLACE_ORDER_DTYPE,
    REPORT_DTYPE,
    SET_LIMIT_DTYPE,
    SET_TRADING_STATE_DTYPE,
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
from ferrox.state import RestingOrder, State
from ferrox.terms import (
    CommandKind,
    Limit,
    OrderFlag,
    Reason,
    ReportFlag,
    ReportKind,
    Scope,
    SelfTrade,
    Side,
    TimeInForce,
    TradingState,
    account_of,
    compose_order_id,
)
from ferrox.venue import Result, Venue

__version__ = "0.1.0"

__all__ = [
    "CANCEL_ORDER_DTYPE",
    "COMMAND_DTYPE",
    "DEFINE_INSTRUMENT_DTYPE",
    "MASS_CANCEL_DTYPE",
    "NEW_ORDER_DTYPE",
    "RECORD_DTYPE",
    "REPLACE_ORDER_DTYPE",
    "REPORT_DTYPE",
    "SET_LIMIT_DTYPE",
    "SET_TRADING_STATE_DTYPE",
    "BookView",
    "Books",
    "CancelOrder",
    "Capacity",
    "Command",
    "CommandKind",
    "CorruptInput",
    "DefineInstrument",
    "Depth",
    "Engine",
    "FerroxError",
    "ForeignReport",
    "JournalCorrupt",
    "Level",
    "Limit",
    "MassCancel",
    "MissingPackage",
    "NewOrder",
    "OrderFlag",
    "Orders",
    "QueuePosition",
    "Reason",
    "ReplaceOrder",
    "Report",
    "ReportFlag",
    "ReportKind",
    "ReportWriter",
    "Reports",
    "RestingOrder",
    "Result",
    "Scope",
    "SelfTrade",
    "SequenceError",
    "SetLimit",
    "SetTradingState",
    "Side",
    "SnapshotCorrupt",
    "State",
    "TimeInForce",
    "Top",
    "TradingState",
    "UsageError",
    "Venue",
    "account_of",
    "cancel_orders",
    "compose_order_id",
    "make_engine",
    "new_orders",
]
