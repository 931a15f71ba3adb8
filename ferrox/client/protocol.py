"""The client's side of order entry without a socket: bytes and times in, events and bytes out (specs/entry.md).

One `EntryProtocol` outlives its connections.  It knows the number of the next report and keeps every command until its
answer has come, so after a loss it asks for the reports it has not seen, and sends the commands that were not taken
again, under the references they had: each is carried out once (ENTRY-8, ENTRY-9).

The one trick is how a report finds its command, which it does not name.  All reports of a command carry one sequence
number, and stand together; the commands of an account are answered in the order in which they were sent.  So the first
report of a sequence number is held against the oldest command that waits, and either says what only that one's answer
can say, or is what others did to our orders.  The one case that its first report does not tell is a mass cancel:
CANCELED (MASS_CANCEL) may be an operator's doing, and only MASS_CANCELED tells; therefore those are given out one by
one as they come, and once more in the answer if it was ours.
"""

import struct
from collections import deque
from enum import Enum, auto
from typing import Final, NamedTuple, NoReturn

from ferrox.client.errors import ConnectionLost, NotConnected, ProtocolBroken
from ferrox.entry import (
    CHALLENGE,
    HEAD,
    LOGIN_ACCEPTED,
    REFERENCE,
    REFUSED,
    SECRET_MIN,
    SEQUENCED,
    VERSION,
    LoginAccepted,
    LoginFlag,
    Refused,
    login,
    packet,
    padded,
)
from ferrox.messages import COMMAND, COMMAND_SIZE, HALF_SIZE, REPORT, Command, MassCancel, NewOrder, Report
from ferrox.terms import (
    ACCOUNT_SHIFT,
    REFERENCE_MAX,
    CommandKind,
    Reason,
    ReportFlag,
    ReportKind,
    Scope,
)

NEW_ORDER, CANCEL_ORDER, REPLACE_ORDER, MASS_CANCEL, DEFINE_INSTRUMENT, SET_TRADING_STATE = (
    int(CommandKind[name])
    for name in (
        "NEW_ORDER",
        "CANCEL_ORDER",
        "REPLACE_ORDER",
        "MASS_CANCEL",
        "DEFINE_INSTRUMENT",
        "SET_TRADING_STATE",
    )
)
OF_ORDERS: Final = (NEW_ORDER, CANCEL_ORDER, REPLACE_ORDER)

SKIP_MAX: Final = 65_533
"""References that a command other than NewOrder may skip, at most (ENTRY-11)."""
MILLION: Final = 1_000_000
LOGIN_TIMEOUT_NS: Final = 10_000 * MILLION
"""How long to wait for a challenge, which brings the gateway's own timeout."""

SIZES: Final = {b"C": 40, b"A": 32, b"J": 1, b"S": 56, b"U": 16, b"H": 0, b"Z": 0}
"""The payload of each packet that a gateway sends (ENTRY-1)."""

AnyCommand = Command | bytes
"""A typed command of `ferrox.messages`, or a frame of 16 or 32 bytes."""


class Phase(Enum):
    """Where a connection stands."""

    OFFLINE = auto()
    """There is none."""
    GREETING = auto()
    """The challenge has not come."""
    LOGIN = auto()
    """The login request is out."""
    ACTIVE = auto()
    ENDED = auto()
    """Rejected, ended or broken: the socket is to be closed."""


TAKEN_IN: Final = {
    Phase.OFFLINE: b"",
    Phase.GREETING: b"CHZ",
    Phase.LOGIN: b"AJHZ",
    Phase.ACTIVE: b"SUHZ",
    Phase.ENDED: b"",
}
"""The packets that may come in each phase."""


class LoginRejected(NamedTuple):
    """The gateway does not let us in; the connection is closed (ENTRY-4)."""

    reason: str
    """One letter."""


class Sequenced(NamedTuple):
    """A report that answers no command of ours: what others did to our orders, or what we did in an earlier life."""

    number: int
    """Its place among all reports of the venue."""
    report: Report


class Answered(NamedTuple):
    """A command was taken and carried out, or rejected: all its reports have come."""

    reference: int
    command: AnyCommand
    number: int
    """Of the last of the reports."""
    reports: list[Report]

    @property
    def accepted(self) -> bool:
        """Whether the command was carried out."""
        return not ReportKind.REJECTED <= self.reports[0].kind <= ReportKind.REPLACE_REJECTED

    @property
    def trades(self) -> list[Report]:
        """The trades that the command made at once."""
        return [report for report in self.reports if report.kind == ReportKind.TRADE]


class Unanswered(NamedTuple):
    """No answer to a command will come any more."""

    reference: int
    command: AnyCommand
    taken: bool | None
    """False: it was not taken, and changed nothing; True: it was, and the session lost the answer; None: unknown."""


class EndOfSession(NamedTuple):
    """The gateway ended the session in good order; the connection is closed."""


Event = LoginAccepted | LoginRejected | Sequenced | Answered | Refused | Unanswered | EndOfSession


class Waiting:
    """A command that was sent and is not answered yet; without a reference, one that the gateway may have entered."""

    __slots__ = ("a", "command", "connection", "done", "frame", "ident", "instrument", "kind", "reference")

    def __init__(self, reference: int, command: AnyCommand, frame: bytes, connection: int) -> None:
        self.reference, self.command, self.frame, self.connection = reference, command, frame, connection
        self.kind, self.a, _, _, self.instrument, self.ident, *_ = COMMAND.unpack(frame.ljust(COMMAND_SIZE, b"\0"))
        self.done = False


class EntryProtocol:
    """One user's conversation with the gateway, over as many connections as it takes.

    `connect` when a socket is open, `receive` what it brings, then `next_event` until it says None, and write what
    `data_to_send` gives; `tick` at `deadline_ns`.  Times are nanoseconds of any clock that does not go back.
    """

    def __init__(
        self,
        user: str,
        secret: bytes,
        *,
        cancel_on_disconnect: bool = False,
        number: int = 0,
        session: str = "",
    ) -> None:
        """Begin without a connection; `number` and `session` go on from where an earlier process was.

        Raise ValueError for a user, secret, number or session that no login can carry.
        """
        padded(user, 16)
        padded(session, 10)
        if len(secret) < SECRET_MIN:
            raise ValueError(f"a secret has {SECRET_MIN} bytes at least, this one has {len(secret)}")
        if number < 0:
            raise ValueError(f"number {number} is below 0; it is that of the first report wanted, 0 for those to come")
        self.user = user
        self.session = session
        self.number = number
        """Of the next report wanted."""
        self.account = 0
        self.phase = Phase.OFFLINE
        self.reference = 0
        """The last one that was given out."""
        self._secret = secret
        self._cancel_on_disconnect = cancel_on_disconnect
        self._taken = 0  # the last reference that is known to be taken
        self._known = 0  # the last that was taken before this login: reports about those may be of an earlier life
        self._waiting: deque[Waiting] = deque()  # oldest first; those that are done leave with the head
        self._by_reference: dict[int, Waiting] = {}
        self._sequence = 0  # of the reports at hand
        self._reports: list[tuple[int, Report]] = []  # those of that sequence, when they may be an answer
        self._owner: Waiting | None = None  # whose answer they are
        self._connection = 0  # how many there were
        self._logged_in = 0  # the last connection with a login that was accepted
        self._resend = True
        self._fresh = False
        self._in = b""
        self._place = 0
        self._out: list[bytes] = []
        self._events: deque[Event] = deque()
        self._broken = ""
        self._heartbeat_ns = 0
        self._timeout_ns = LOGIN_TIMEOUT_NS
        self._heard_ns = 0
        self._sent_ns = 0

    # -------------------------------------------------------------------------------------------------- a connection

    def connect(self, now_ns: int, *, fresh: bool = False, resend: bool = True) -> None:
        """Begin a connection: the first bytes to come are the challenge.

        With `fresh`, ask for the current session and the reports to come instead of those that were missed; what waits
        for an answer is then given up, as `Unanswered`.  Without `resend`, so is what turns out not to be taken.
        """
        if self.phase not in (Phase.OFFLINE, Phase.ENDED):
            raise NotConnected(f"a connection stands already, in phase {self.phase.name}; disconnect it first")
        self.phase = Phase.GREETING
        self._connection += 1
        self._fresh, self._resend = fresh, resend
        self._in, self._place, self._broken = b"", 0, ""
        self._out.clear()
        self._heartbeat_ns, self._timeout_ns = 0, LOGIN_TIMEOUT_NS
        self._heard_ns = self._sent_ns = now_ns

    def disconnect(self) -> None:
        """Note that the socket is closed; a packet that had come in part will come again, if it was a report."""
        self.phase = Phase.OFFLINE
        self._out.clear()

    def receive(self, data: bytes, now_ns: int) -> None:
        """Take bytes from the socket; `next_event` says what they mean."""
        self._in = self._in[self._place :] + data
        self._place = 0
        self._heard_ns = now_ns

    def next_event(self) -> Event | None:
        """Return the next event, or None when more bytes are needed.

        Raise `ProtocolBroken` for what may not come; the events before it have been returned by then.
        """
        while not self._events:
            if self._broken:
                raise ProtocolBroken(self._broken)
            if self.phase == Phase.OFFLINE or (found := self._next_packet()) is None:
                return None
            self._take(*found)
        return self._events.popleft()

    def data_to_send(self, now_ns: int) -> bytes:
        """Return what is to be written to the socket, and forget it."""
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        self._sent_ns = now_ns
        return data

    @property
    def deadline_ns(self) -> int:
        """When `tick` has something to do."""
        deadlines = [self._heard_ns + self._timeout_ns] if self._timeout_ns else []
        if self.phase == Phase.ACTIVE and self._heartbeat_ns:
            deadlines.append(self._sent_ns + self._heartbeat_ns)
        return min(deadlines, default=2**62)

    def tick(self, now_ns: int) -> None:
        """Send a heartbeat if one is due; raise `ConnectionLost` when nothing was heard for too long."""
        if self.phase in (Phase.OFFLINE, Phase.ENDED):
            return
        if self._timeout_ns and now_ns - self._heard_ns >= self._timeout_ns:
            silent_ms = (now_ns - self._heard_ns) // MILLION
            self.phase = Phase.ENDED
            raise ConnectionLost(f"nothing was heard for {silent_ms} ms; close the socket and reconnect")
        if self.phase == Phase.ACTIVE and self._heartbeat_ns and now_ns - self._sent_ns >= self._heartbeat_ns:
            self._out.append(packet(b"R"))
            self._sent_ns = now_ns

    def logout(self) -> None:
        """Ask for the end of the session; `EndOfSession` follows."""
        if self.phase == Phase.ACTIVE:
            self._out.append(packet(b"O"))

    # ------------------------------------------------------------------------------------------------------ commands

    def send(self, command: AnyCommand, reference: int = 0) -> int:
        """Send a command, and return its reference: the next one, or one that was chosen above all before it.

        A NewOrder gets the reference as its order id; an order that a cancel or replace names may be given by its
        reference or by its whole id.  Raise `NotConnected` when nobody is logged in, ValueError for what no packet
        can say.
        """
        if self.phase != Phase.ACTIVE:
            raise NotConnected(f"no command can be sent in phase {self.phase.name}; log in first, or reconnect")
        frame = frame_of(command)
        reference = reference or self.reference + 1
        if not self.reference < reference <= REFERENCE_MAX:
            raise ValueError(f"reference {reference} is not above {self.reference}, the last one, and below 2^40")
        kind = frame[0]
        if kind == NEW_ORDER:
            (order_id,) = REFERENCE.unpack_from(frame, 8)
            if order_id not in (0, reference):
                raise ValueError(
                    f"order id {order_id} is not the command's reference, {reference}; leave it 0 (ENTRY-10)"
                )
            frame = self._named(frame, reference)
            if isinstance(command, NewOrder):
                command = command._replace(order_id=reference)
        else:
            if reference - self._reach() - 1 > SKIP_MAX:
                raise ValueError(
                    f"reference {reference} skips more than {SKIP_MAX} behind {self._reach()}, the last that can have "
                    "been taken (ENTRY-11); reconnect, after which references go on from there, or enter a new order"
                )
            if kind in OF_ORDERS:
                frame = self._own(frame)
        entry = Waiting(reference, command, frame, self._connection)
        self.reference = reference
        self._waiting.append(entry)
        self._by_reference[reference] = entry
        self._out.append(packet(b"U", REFERENCE.pack(reference) + frame))
        return reference

    @property
    def waiting(self) -> list[int]:
        """The references of the commands that are not answered, oldest first."""
        return list(self._by_reference)

    def waits(self, reference: int) -> bool:
        """Whether the answer to a command is still to come."""
        return reference in self._by_reference

    def _reach(self) -> int:
        """Return the last reference that can have been taken."""
        while self._waiting and self._waiting[-1].done:
            self._waiting.pop()
        return max(self._taken, self._waiting[-1].reference if self._waiting else 0)

    def _named(self, frame: bytes, order_id: int) -> bytes:
        return frame[:8] + REFERENCE.pack(order_id) + frame[16:]

    def _own(self, frame: bytes) -> bytes:
        """Return the frame of a cancel or replace with the reference alone, without the account above it."""
        (order_id,) = REFERENCE.unpack_from(frame, 8)
        account = order_id >> ACCOUNT_SHIFT
        if account == 0:
            return frame
        if account != self.account:
            raise ValueError(f"order id {order_id} is of account {account}, and this user's is {self.account}")
        return self._named(frame, order_id & REFERENCE_MAX)

    # ------------------------------------------------------------------------------------------------------- packets

    def _next_packet(self) -> tuple[bytes, bytes] | None:
        """Return type and payload of the next whole packet; a wrong one is found by its first three bytes."""
        data, place = self._in, self._place
        if self.phase == Phase.ENDED or len(data) - place < HEAD.size:
            return None
        size, number = HEAD.unpack_from(data, place)
        letter = bytes((number,))
        if letter not in SIZES or size != 1 + SIZES[letter]:
            self._break(f"found a packet of type {letter!r} and length {size}, which no gateway sends")
        if letter not in TAKEN_IN[self.phase]:
            self._break(f"found a packet of type {letter!r} in phase {self.phase.name}, where none may come")
        end = place + 2 + size
        if len(data) < end:
            return None
        self._place = end
        return letter, data[place + HEAD.size : end]

    def _take(self, letter: bytes, payload: bytes) -> None:
        if letter == b"S":
            number, frame = SEQUENCED.unpack(payload)
            self._take_report(number, Report._make(REPORT.unpack(frame)))
        elif letter == b"U":
            self._take_refusal(Refused._make(REFUSED.unpack(payload)))
        elif letter == b"C":
            self._take_challenge(*CHALLENGE.unpack(payload))
        elif letter == b"A":
            session, account, number, reference = LOGIN_ACCEPTED.unpack(payload)
            self._take_login(LoginAccepted(session.decode("ascii", "replace").rstrip(), account, number, reference))
        elif letter == b"J":
            self.phase = Phase.ENDED
            self._events.append(LoginRejected(payload.decode("ascii", "replace")))
        elif letter == b"Z":
            self.phase = Phase.ENDED
            self._events.append(EndOfSession())

    def _take_challenge(self, challenge: bytes, version: int, heartbeat_ms: int, timeout_ms: int) -> None:
        if version != VERSION:
            self._break(f"the gateway speaks version {version} of order entry, this client version {VERSION}")
        self._heartbeat_ns, self._timeout_ns = heartbeat_ms * MILLION, timeout_ms * MILLION
        self.phase = Phase.LOGIN
        payload = login(
            self.user,
            self._secret,
            challenge,
            session="" if self._fresh else self.session,
            number=0 if self._fresh else self.number,
            flags=LoginFlag.CANCEL_ON_DISCONNECT if self._cancel_on_disconnect else 0,
        )
        self._out.append(packet(b"L", payload))

    def _take_login(self, accepted: LoginAccepted) -> None:
        """Go on where the last connection ended (ENTRY-8, ENTRY-9)."""
        again = self._logged_in > 0
        if again and accepted.account != self.account:
            self._break(f"this user's account was {self.account}, and the gateway says now {accepted.account}")
        if not self._fresh:
            if self.session and accepted.session != self.session:
                self._break(f"session {self.session!r} was asked for, and the gateway accepts {accepted.session!r}")
            if self.number and accepted.number != self.number:
                self._break(f"reports from {self.number} on were asked for, and come from {accepted.number} on")
        self.session, self.account, self.number = accepted.session, accepted.account, accepted.number
        self.phase = Phase.ACTIVE
        self._logged_in = self._connection
        self._taken = self._known = accepted.reference
        self._events.append(accepted)
        if self._fresh:
            self._give_up()
        else:
            self._go_on(again and self._cancel_on_disconnect)
        if not self._by_reference and self.reference - accepted.reference > SKIP_MAX:
            self.reference = accepted.reference  # what was refused may be used again (ENTRY-14)
        self.reference = max(self.reference, accepted.reference)

    def _go_on(self, canceled: bool) -> None:
        """Wait on for what was taken, and send again what was not; between them the gateway's own mass cancel."""
        waiting = [entry for entry in self._waiting if not entry.done]
        self._waiting = deque(entry for entry in waiting if entry.reference <= self._taken)
        if canceled:  # ENTRY-15: it came behind all that was taken
            command = MassCancel(Scope.ACCOUNT)
            self._waiting.append(Waiting(0, command, command.pack(), 0))
        for entry in waiting:
            if entry.reference <= self._taken:
                continue
            if self._resend:
                entry.connection = self._connection
                self._waiting.append(entry)
                self._out.append(packet(b"U", REFERENCE.pack(entry.reference) + entry.frame))
            else:
                self._drop(entry, taken=False)

    def _give_up(self) -> None:
        """Wait for nothing that was sent before."""
        if self._owner is not None:
            self._events.extend(Sequenced(number, report) for number, report in self._reports)
            self._drop(self._owner, taken=True)
        self._owner, self._reports, self._sequence = None, [], 0
        for entry in self._waiting:
            if not entry.done:
                self._drop(entry, taken=entry.reference <= self._taken)
        self._waiting.clear()

    def _drop(self, entry: Waiting, *, taken: bool | None) -> None:
        entry.done = True
        if entry.reference:
            del self._by_reference[entry.reference]
            self._events.append(Unanswered(entry.reference, entry.command, taken))

    def _take_refusal(self, refused: Refused) -> None:
        entry = self._by_reference.get(refused.reference)
        if entry is None or entry is self._owner:
            self._break(f"the gateway refuses reference {refused.reference}, which waits for no answer")
        entry.done = True
        del self._by_reference[refused.reference]
        self._events.append(refused)

    # ------------------------------------------------------------------------------------------------------- reports

    def _take_report(self, number: int, report: Report) -> None:
        """Add a report to its command's answer, or give it out."""
        if number < self.number:
            self._break(f"report {number} came where {self.number} or later is next")
        if report.sequence != self._sequence:
            if report.sequence < self._sequence:
                self._break(f"report {number} is of sequence {report.sequence}, behind one of {self._sequence}")
            if self._owner is not None:
                self._break(
                    f"report {number} begins sequence {report.sequence} before the last report of "
                    f"{self._sequence}, the answer to reference {self._owner.reference}, has come"
                )
            self._sequence, self._reports = report.sequence, []
        if self._owner is None:
            self._owner = self._claim(number, report)
        self.number = number + 1
        mass_cancel = report.kind == ReportKind.CANCELED and report.reason == Reason.MASS_CANCEL
        if self._owner is not None or mass_cancel:
            self._reports.append((number, report))
        if self._owner is None:
            self._events.append(Sequenced(number, report))
        elif report.last:
            owner, reports = self._owner, [one for _, one in self._reports]
            owner.done = True
            del self._by_reference[owner.reference]
            self._events.append(Answered(owner.reference, owner.command, number, reports))
            self._owner, self._reports = None, []

    def _claim(self, number: int, report: Report) -> Waiting | None:
        """Return the command that a report begins or ends the answer to, or None when it is none of ours."""
        if report.kind in (ReportKind.TRADE, ReportKind.EXPIRED):
            return None  # these never come first
        # What an operator may have asked for as well is only ours when nothing else of ours can come before it.
        certain = report.kind != ReportKind.MASS_CANCELED and report.order_id != 0
        skipped: list[Waiting] = []
        for entry in self._waiting:
            if entry.done:
                continue
            if self._answers(entry, report):
                for missing in skipped:
                    # An earlier connection took the refusal with it.  Only of a new order is that certain: a report
                    # names no cancel or replace, so two of one order may have been taken for each other.
                    self._drop(missing, taken=False if missing.kind == NEW_ORDER else None)
                entry.done = True
                while self._waiting and self._waiting[0].done:
                    self._waiting.popleft()
                self._taken = max(self._taken, entry.reference)
                return entry if entry.reference else None
            if entry.reference and not (certain and self._may_be_missing(entry)):
                break
            skipped.append(entry)
        if report.kind in (ReportKind.NEW, ReportKind.REJECTED) and report.order_id:
            reference = report.order_id & REFERENCE_MAX
            if report.order_id >> ACCOUNT_SHIFT == self.account and reference > self._known:
                self._break(
                    f"report {number} answers reference {reference}, which was not sent, or was answered already, "
                    "or is not the next to be answered"
                )
        return None

    def _may_be_missing(self, entry: Waiting) -> bool:
        """Say whether the answer to a command can be left out: the refusal was lost, or the reject was nobody's.

        A mass cancel in an instrument that is not defined is rejected with order id 0, and so is sent to the operator.
        """
        return entry.connection != self._connection or (
            entry.kind == MASS_CANCEL and entry.a == Scope.ACCOUNT_IN_INSTRUMENT
        )

    def _answers(self, entry: Waiting, report: Report) -> bool:
        """Say whether a report can be the first, of a mass cancel the last, of the answer to a command (REPORT-3)."""
        kind, reason = report.kind, report.reason
        if entry.kind == NEW_ORDER:
            mine = report.order_id == self.account << ACCOUNT_SHIFT | entry.reference
            return mine and kind in (ReportKind.NEW, ReportKind.REJECTED)
        if report.instrument != entry.instrument:
            return False
        if entry.kind in OF_ORDERS:
            if report.order_id != self.account << ACCOUNT_SHIFT | entry.ident:
                return False
            if entry.kind == CANCEL_ORDER:
                return kind == ReportKind.CANCEL_REJECTED or (kind == ReportKind.CANCELED and reason == Reason.NONE)
            if kind == ReportKind.REPLACED:
                price, quantity = COMMAND.unpack(entry.frame)[6:8]
                return report.quantity == quantity and (report.price == price or bool(report.flags & ReportFlag.SLID))
            return kind == ReportKind.REPLACE_REJECTED or (
                kind == ReportKind.CANCELED and reason == Reason.TOTAL_FILLED
            )
        if kind == ReportKind.REJECTED:
            return report.order_id == 0
        if entry.kind == MASS_CANCEL:
            account = self.account or entry.ident
            return (kind, report.side, report.order_id) == (
                ReportKind.MASS_CANCELED,
                entry.a,
                account << ACCOUNT_SHIFT,
            )
        if entry.kind == DEFINE_INSTRUMENT:
            return kind == ReportKind.INSTRUMENT_DEFINED
        if entry.kind == SET_TRADING_STATE:
            return kind == ReportKind.STATE_CHANGED
        return kind > ReportKind.STATE_CHANGED  # a kind that came later is answered by one that did

    def _break(self, found: str) -> NoReturn:
        """Raise `ProtocolBroken`, now and whenever the next event is asked for."""
        self._broken = f"{found}; the connection (user {self.user!r}) is of no more use: close it and reconnect"
        self.phase = Phase.ENDED
        raise ProtocolBroken(self._broken)


def frame_of(command: AnyCommand) -> bytes:
    """Return the frame of a command; raise TypeError or ValueError when it has none."""
    if isinstance(command, bytes):
        if len(command) not in (HALF_SIZE, COMMAND_SIZE):
            raise ValueError(f"a frame has {HALF_SIZE} or {COMMAND_SIZE} bytes, this one has {len(command)}")
        return command
    try:
        return command.pack()
    except AttributeError:
        raise TypeError(f"a command is one of ferrox.messages or a frame in bytes, this is {command!r}") from None
    except struct.error as error:
        raise ValueError(f"{command!r} does not fit its frame: {error}") from None
