"""Commands and reports as lines for people, in the grammar of specs/text.md.

`parse_command` and `format_command` mirror each other: parsing what was formatted gives the same bytes back, for every
frame of 16 or 32 bytes.  A frame that no sentence can say prints as `raw HEX`, so nothing is ever hidden.  The parser
asks only that a number fits its field; whether the number may stand there is the engine's to say (specs/rejects.md),
which is what lets a session show a rejection.

Reports are only formatted.  A line leaves out what follows from the command (TEXT-2), so it alone is not a report.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from ferrox.errors import UsageError
from ferrox.messages import (
    COMMAND,
    COMMAND_SIZE,
    FRAME_SIZE,
    HALF,
    HALF_SIZE,
    CancelOrder,
    DefineInstrument,
    MassCancel,
    NewOrder,
    ReplaceOrder,
    Report,
    SetLimit,
    SetTradingState,
    unpack_command,
)
from ferrox.terms import (
    ACCOUNT_MAX,
    ACCOUNT_SHIFT,
    REFERENCE_MAX,
    SELF_TRADE_MASK,
    SELF_TRADE_SHIFT,
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
)

# What the fields can hold, which is wider than what a command may say (specs/limits.md).
U32_MAX: Final = 2**32 - 1
I64_MIN: Final = -(2**63)
I64_MAX: Final = 2**63 - 1

SIDES: Final = {"buy": int(Side.BUY), "sell": int(Side.SELL)}
TIMES_IN_FORCE: Final = {term.name.lower(): int(term) for term in TimeInForce}
SELF_TRADES: Final = {f"stp={term.name.lower().replace('_', '-')}": int(term) for term in SelfTrade}
STATES: Final = {term.name.lower().replace("_", "-"): int(term) for term in TradingState}
LIMITS: Final = {term.name.lower().replace("_", "-"): int(term) for term in Limit}

SIDE_WORDS: Final = {number: word for word, number in SIDES.items()}
TIME_IN_FORCE_WORDS: Final = {number: word for word, number in TIMES_IN_FORCE.items()}
SELF_TRADE_WORDS: Final = {number: word for word, number in SELF_TRADES.items()}
STATE_WORDS: Final = {number: word for word, number in STATES.items()}
LIMIT_WORDS: Final = {number: word for word, number in LIMITS.items()}
REASON_WORDS: Final = {int(term): term.name.lower().replace("_", "-") for term in Reason}

VERBS: Final = {
    word: word for word in ("buy", "sell", "cancel", "replace", "mass-cancel", "instrument", "state", "limit", "raw")
}
SIZES: Final = {int(kind): size for kind, size in FRAME_SIZE.items()}
MARKET, POST_ONLY, SLIDE = map(int, OrderFlag)
GTC, IOC = int(TimeInForce.GTC), int(TimeInForce.IOC)

DIGITS: Final = re.compile(r"-?[0-9]{1,20}", re.ASCII)  # what is longer fits no field
FRAME_DIGITS: Final = re.compile(rf"([0-9a-fA-F]{{{2 * HALF_SIZE}}}){{1,2}}", re.ASCII)

Meaning = TypeVar("Meaning", int, str)


class TextError(UsageError):
    """A line that is not of specs/text.md (TEXT-3)."""

    def __init__(self, line: str, word: str | None, index: int, expected: str) -> None:
        """Name the word at fault, None at the end of the line, its index from 0, and what could stand there."""
        self.line, self.word, self.index, self.expected = line, word, index, expected
        found = "the end of the line" if word is None else f"{word!r}"
        super().__init__(f"{found} stands where {expected} could, as word {index + 1} of {line.strip()!r}")


# ---------------------------------------------------------------------------------------------------- commands


def parse_command(line: str) -> bytes:
    """Return the frame, 16 or 32 bytes, that a line says; raise `TextError` when it is no command (TEXT-1, TEXT-3)."""
    words = Words(line)
    verb = words.choice(VERBS)
    if verb in SIDES:
        frame = _parse_order(words, CommandKind.NEW_ORDER, SIDES[verb])
    elif verb == "replace":
        frame = _parse_order(words, CommandKind.REPLACE_ORDER, words.choice(SIDES))
    elif verb == "cancel":
        order_id = words.order_id()
        frame = HALF.pack(CommandKind.CANCEL_ORDER, 0, 0, 0, words.on(1), order_id)
    elif verb == "mass-cancel":
        frame = _parse_mass_cancel(words)
    elif verb == "instrument":
        frame = _parse_instrument(words)
    elif verb == "state":
        instrument = words.number("an instrument", 0, U32_MAX)
        frame = HALF.pack(CommandKind.SET_TRADING_STATE, words.choice(STATES), 0, 0, instrument, 0)
    elif verb == "limit":
        frame = _parse_limit(words)
    else:
        frame = words.frame()
    words.end()
    return frame


def parse_commands(lines: Iterable[str]) -> Iterator[bytes]:
    """Give the frame of each line that is not a comment; raise `TextError` at the first that is no command."""
    return (parse_command(line) for line in lines if not is_comment(line))


def is_comment(line: str) -> bool:
    """Say whether a line is empty or a comment."""
    return not line.strip() or line.lstrip().startswith("# ") or line.strip() == "#"


def format_command(frame: bytes) -> str:
    """Return the line that says a frame of 16 or 32 bytes, `raw HEX` where no other does (TEXT-1)."""
    if len(frame) not in (HALF_SIZE, COMMAND_SIZE):
        raise ValueError(f"a command has 16 or 32 bytes, this frame has {len(frame)}")
    raw = f"raw {frame.hex()}"
    if SIZES.get(frame[0]) != len(frame):
        return raw
    command = unpack_command(frame)
    if command.pack() != frame:  # a reserved byte is set
        return raw
    if isinstance(command, NewOrder):
        return _format_order(SIDE_WORDS.get(command.side), command) or raw
    if isinstance(command, ReplaceOrder):
        if command.flags & MARKET or command.side not in SIDE_WORDS:
            return raw
        return _format_order(f"replace {SIDE_WORDS[command.side]}", command) or raw
    if isinstance(command, CancelOrder):
        return f"cancel {format_order_id(command.order_id)}{_on(command.instrument)}"
    if isinstance(command, MassCancel):
        return _format_mass_cancel(command) or raw
    if isinstance(command, DefineInstrument):
        return f"instrument {_format_definition(command)}" if command.state in STATE_WORDS else raw
    if isinstance(command, SetTradingState):
        return f"state {command.instrument} {STATE_WORDS[command.state]}" if command.state in STATE_WORDS else raw
    assert isinstance(command, SetLimit)
    return f"limit {_format_limit(command)}" if command.limit in LIMIT_WORDS else raw


def _parse_order(words: "Words", kind: CommandKind, side: int) -> bytes:
    """Parse a new or replacing order from its id on."""
    order_id = words.order_id()
    quantity = words.number("a quantity", 0, U32_MAX)
    if kind == CommandKind.NEW_ORDER and words.option("market"):
        flags, price = MARKET, 0
        time_in_force = words.option_of(TIMES_IN_FORCE, IOC)
    else:
        words.word("@")
        flags, price = 0, words.number("a price", I64_MIN, I64_MAX)
        time_in_force = words.option_of(TIMES_IN_FORCE, GTC)
        if words.option("post-only"):
            flags |= POST_ONLY
        if words.option("slide"):
            flags |= SLIDE
    flags |= words.option_of(SELF_TRADES, 0) << SELF_TRADE_SHIFT
    instrument = words.on(1)
    return COMMAND.pack(kind, side, time_in_force, flags, instrument, order_id, price, quantity, 0)


def _format_order(verb: str | None, command: NewOrder | ReplaceOrder) -> str | None:
    """Return the line of an order, or None when no line but its bytes says it."""
    market = command.flags & MARKET
    mode = (command.flags & SELF_TRADE_MASK) >> SELF_TRADE_SHIFT
    sayable = MARKET | SELF_TRADE_MASK if market else POST_ONLY | SLIDE | SELF_TRADE_MASK
    if not (
        verb
        and command.time_in_force in TIME_IN_FORCE_WORDS
        and mode in SELF_TRADE_WORDS
        and not command.flags & ~sayable
        and not command.display
        and not (market and command.price)
    ):
        return None
    line = [verb, format_order_id(command.order_id), str(command.quantity)]
    line += ["market"] if market else ["@", str(command.price)]
    if command.time_in_force != (IOC if market else GTC):
        line.append(TIME_IN_FORCE_WORDS[command.time_in_force])
    if command.flags & POST_ONLY:
        line.append("post-only")
    if command.flags & SLIDE:
        line.append("slide")
    if mode:
        line.append(SELF_TRADE_WORDS[mode])
    return " ".join(line) + _on(command.instrument)


def _on(instrument: int) -> str:
    return "" if instrument == 1 else f" on {instrument}"


def _parse_mass_cancel(words: "Words") -> bytes:
    """Parse a mass cancel from its scope on; here, `on` left out is no instrument."""
    instrument = account = 0
    if words.option("all"):
        scope = Scope.VENUE
    elif words.option("account"):
        account = words.number("an account", I64_MIN, I64_MAX)
        instrument = words.on(-1)
        scope = Scope.ACCOUNT if instrument < 0 else Scope.ACCOUNT_IN_INSTRUMENT
        instrument = max(instrument, 0)
    else:
        words.word("on")
        scope, instrument = Scope.INSTRUMENT, words.number("an instrument", 0, U32_MAX)
    return HALF.pack(CommandKind.MASS_CANCEL, scope, 0, 0, instrument, account)


def _format_mass_cancel(command: MassCancel) -> str | None:
    """Return the line of a mass cancel, or None when a field is set that its scope does not name."""
    named: dict[int, tuple[int, int]] = {
        Scope.INSTRUMENT: (command.instrument, 0),
        Scope.ACCOUNT: (0, command.account),
        Scope.ACCOUNT_IN_INSTRUMENT: (command.instrument, command.account),
        Scope.VENUE: (0, 0),
    }
    if named.get(command.scope) != (command.instrument, command.account):
        return None
    return f"mass-cancel {_format_scope(command.scope, command.instrument, command.account)}"


def _format_scope(scope: int, instrument: int, account: int) -> str:
    """Return which orders a mass cancel takes."""
    if scope == Scope.INSTRUMENT:
        return f"on {instrument}"
    if scope == Scope.ACCOUNT:
        return f"account {account}"
    if scope == Scope.ACCOUNT_IN_INSTRUMENT:
        return f"account {account} on {instrument}"
    return "all"


def _parse_instrument(words: "Words") -> bytes:
    """Parse an instrument's definition from its number on."""
    instrument = words.number("an instrument", 0, U32_MAX)
    words.word("tick")
    tick = words.number("a tick", 0, U32_MAX)
    words.word("lot")
    lot = words.number("a lot", 0, U32_MAX)
    words.word("band")
    low = words.number("the low end of the band", I64_MIN, I64_MAX)
    high = words.number("the high end of the band", I64_MIN, I64_MAX)
    state = words.choice(STATES)
    return COMMAND.pack(CommandKind.DEFINE_INSTRUMENT, state, 0, 0, instrument, low, high, tick, lot)


def _format_definition(definition: DefineInstrument) -> str:
    """Return an instrument's number, tick, lot, band and trading state."""
    return (
        f"{definition.instrument} tick {definition.tick} lot {definition.lot} "
        f"band {definition.band_low} {definition.band_high} {STATE_WORDS.get(definition.state, definition.state)}"
    )


def _parse_limit(words: "Words") -> bytes:
    """Parse a limit from its word on; what is left out is 0, which names none or every one."""
    limit = words.choice(LIMITS)
    value = words.number("a value", I64_MIN, I64_MAX)
    account = words.number("an account", I64_MIN, I64_MAX) if words.option("account") else 0
    return SetLimit(limit, words.on(0), account, value).pack()


def _format_limit(command: SetLimit) -> str:
    """Return a limit, its value, and what it is for."""
    account = f" account {command.account}" if command.account else ""
    instrument = f" on {command.instrument}" if command.instrument else ""
    return f"{LIMIT_WORDS.get(command.limit, command.limit)} {command.value}{account}{instrument}"


class Words:
    """The words of one line, taken from left to right; whatever could have stood at the present word is remembered."""

    def __init__(self, line: str) -> None:
        self.line = line
        self.words = line.split()
        self.index = 0
        self.passed_over: list[str] = []

    def option(self, word: str) -> bool:
        """Take this word if it stands here, and say whether it did."""
        if self.index < len(self.words) and self.words[self.index] == word:
            self.step()
            return True
        self.passed_over.append(word)
        return False

    def option_of(self, meanings: dict[str, int], default: int) -> int:
        """Take one of these words if one stands here; return what it means, or the default."""
        if self.index < len(self.words) and self.words[self.index] in meanings:
            return self.choice(meanings)
        self.passed_over += meanings
        return default

    def word(self, word: str) -> None:
        """Take this word and no other."""
        if not self.option(word):
            raise self.error()

    def choice(self, meanings: dict[str, Meaning]) -> Meaning:
        """Take one of these words and return what it means."""
        if self.index < len(self.words):
            meaning = meanings.get(self.words[self.index])
            if meaning is not None:
                self.step()
                return meaning
        raise self.error(*meanings)

    def number(self, name: str, low: int, high: int) -> int:
        """Take a number within what its field holds, low .. high."""
        if self.index < len(self.words) and DIGITS.fullmatch(self.words[self.index]):
            number = int(self.words[self.index])
            if low <= number <= high:
                self.step()
                return number
        raise self.error(f"{name} ({low} .. {high})")

    def order_id(self) -> int:
        """Take an order id, `#ID` or `#ACCOUNT/REFERENCE`."""
        if self.index < len(self.words) and self.words[self.index].startswith("#"):
            account, slash, reference = self.words[self.index][1:].rpartition("/")
            if DIGITS.fullmatch(reference) and (not slash or DIGITS.fullmatch(account)):
                number = int(reference)
                if not slash and I64_MIN <= number <= I64_MAX:
                    self.step()
                    return number
                if slash and 0 <= int(account) <= ACCOUNT_MAX and 0 <= number <= REFERENCE_MAX:
                    self.step()
                    return int(account) << ACCOUNT_SHIFT | number
        raise self.error("an order id (#ID or #ACCOUNT/REFERENCE)")

    def on(self, default: int) -> int:
        """Take `on INSTRUMENT` if it stands here; return the instrument, or the default."""
        return self.number("an instrument", 0, U32_MAX) if self.option("on") else default

    def frame(self) -> bytes:
        """Take a frame of 16 or 32 bytes in hexadecimal digits."""
        if self.index < len(self.words) and FRAME_DIGITS.fullmatch(self.words[self.index]):
            self.step()
            return bytes.fromhex(self.words[self.index - 1])
        raise self.error("a frame of 32 or 64 hexadecimal digits")

    def end(self) -> None:
        """Take the end of the line."""
        if self.index < len(self.words):
            raise self.error("the end of the line")

    def step(self) -> None:
        """Go on to the next word."""
        self.index += 1
        self.passed_over.clear()

    def error(self, *expected: str) -> TextError:
        """Return the error that names the present word and all that could stand in its place."""
        word = self.words[self.index] if self.index < len(self.words) else None
        return TextError(self.line, word, self.index, " or ".join([*self.passed_over, *expected]))


# ----------------------------------------------------------------------------------------------------- reports


def format_report(report: Report) -> str:
    """Return the line that says a report (TEXT-2)."""
    kind = report.kind
    if kind == ReportKind.NEW:
        return f"new {_quantity_at_price(report)}{_slid(report)}{_of(report)}"
    if kind == ReportKind.TRADE:
        maker = format_order_id(report.contra_id)
        return f"trade {_quantity_at_price(report)} with {maker}{_leaves(report)}{_of(report)}"
    if kind == ReportKind.CANCELED:
        other = f" with {format_order_id(report.contra_id)}" if report.contra_id else ""
        reason = f" {format_reason(report.reason)}" if report.reason else ""
        return f"canceled {_quantity_at_price(report)}{other}{_leaves(report)}{reason}{_of(report)}"
    if kind == ReportKind.REPLACED:
        leaves = "" if report.leaves == report.quantity else f" leaves {report.leaves}"
        kept = " kept" if report.flags & ReportFlag.PRIORITY_KEPT else ""
        return f"replaced {_quantity_at_price(report)}{leaves}{kept}{_slid(report)}{_of(report)}"
    if kind == ReportKind.EXPIRED:
        return f"expired {_quantity_at_price(report)}{_of(report)}"
    if kind in REJECTED_WORDS:
        reason = format_reason(report.reason)
        return f"{REJECTED_WORDS[kind]} {format_order_id(report.order_id)} {reason}{_of(report)}"
    if kind == ReportKind.MASS_CANCELED:
        scope = _format_scope(report.side, report.instrument, report.order_id >> ACCOUNT_SHIFT)
        return f"mass-canceled {report.quantity} {scope}"
    if kind == ReportKind.INSTRUMENT_DEFINED:
        definition = DefineInstrument(
            state=report.side,
            instrument=report.instrument,
            band_low=report.price,
            band_high=report.contra_id,
            tick=report.quantity,
            lot=report.leaves,
        )
        return f"instrument-defined {_format_definition(definition)}"
    if kind == ReportKind.STATE_CHANGED:
        return f"state-changed {report.instrument} {STATE_WORDS.get(report.side, report.side)}"
    if kind == ReportKind.LIMIT_SET:
        account = report.order_id >> ACCOUNT_SHIFT
        return f"limit-set {_format_limit(SetLimit(report.side, report.instrument, account, report.contra_id))}"
    return f"raw {report.pack().hex()}"  # no engine says this; a damaged file may


def format_order_id(order_id: int) -> str:
    """Return `#ACCOUNT/REFERENCE`, or `#ID` for account 0 and for what is no order id."""
    account = order_id >> ACCOUNT_SHIFT
    return f"#{account}/{order_id & REFERENCE_MAX}" if account > 0 else f"#{order_id}"


def format_reason(reason: int) -> str:
    """Return the word for a reason, or `reason-N` where it has none."""
    return REASON_WORDS.get(reason, f"reason-{reason}")


REJECTED_WORDS: Final[dict[int, str]] = {
    ReportKind.REJECTED: "rejected",
    ReportKind.CANCEL_REJECTED: "cancel-rejected",
    ReportKind.REPLACE_REJECTED: "replace-rejected",
}


def _quantity_at_price(report: Report) -> str:
    return f"{format_order_id(report.order_id)} {report.quantity} @ {report.price}"


def _leaves(report: Report) -> str:
    return f" leaves {report.leaves}" if report.leaves else ""


def _slid(report: Report) -> str:
    return " slid" if report.flags & ReportFlag.SLID else ""


def _of(report: Report) -> str:
    return f" on {report.instrument}" if report.instrument > 1 else ""
