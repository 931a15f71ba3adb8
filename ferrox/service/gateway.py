"""The gateway: connections, logins, and the way from a client's bytes to the ring and from the tape to its socket.

One thread around epoll.  What comes by the million is done in the compiled lanes, a call a batch: `admit` reads the
commands out of what a socket gave and checks them, `route` writes each report to the connections that it is for.  Here
is what comes one by one: logins, heartbeats, connections that end, operators.

The gateway holds nothing that it could not find again.  When it starts it waits until the matcher has taken all that is
in the ring, follows the journal to that place with an engine of its own for a moment, and has every account's open
orders, references and limits from there.
"""

import errno
import gc
import hmac
import os
import resource
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ferrox.entry import (
    CHALLENGE,
    HEAD,
    LOGIN,
    LOGIN_ACCEPTED,
    MAC_OF,
    PACKET_MAX,
    REFUSED,
    VERSION,
    LoginFlag,
    packet,
    padded,
    sign,
)
from ferrox.errors import UsageError
from ferrox.journal import BATCH as JOURNAL_BATCH
from ferrox.journal import Durability, identify
from ferrox.lanes.admission import SKIP_MAX, admit, pass_over
from ferrox.lanes.desk import (
    ANSWERED,
    BATCH,
    CANCEL_RATE,
    COLLAR,
    CONNECTION,
    DEFINED,
    DISK_LOW,
    FLIGHT_FIRST,
    FLIGHT_NEXT,
    FLYING,
    INSTRUMENT_KILLED,
    KILLED,
    LAST_PRICE,
    MAX_EXPOSURE,
    MAX_NOTIONAL,
    MAX_OPEN,
    MAX_QUANTITY,
    NOW,
    NUMBER,
    OPERATOR,
    ORDER_RATE,
    REFERENCE,
    RESTING,
    ROOM,
    SEEN,
    STAMP,
    TRADED,
    TRADER,
    VENUE_KILLED,
    Desk,
    bounce,
    clock,
    enter,
)
from ferrox.lanes.latency import ANSWER
from ferrox.lanes.ring import Ring
from ferrox.lanes.routing import collect, load_orders, route
from ferrox.lanes.tape import TapeLost, TapeReader
from ferrox.messages import COMMAND_SIZE, RECORD, RECORD_SIZE, REPORT_SIZE, Command, DefineInstrument, MassCancel
from ferrox.mold import session_name
from ferrox.service.board import Board, Row, State
from ferrox.service.config import STATES, Config, split
from ferrox.service.history import History, first_number
from ferrox.service.latencies import Latencies
from ferrox.service.ledger import Ledger
from ferrox.service.links import READERS, Links
from ferrox.service.process import AGAIN
from ferrox.service.standing import stand
from ferrox.state import SNAPSHOT_HEADER
from ferrox.terms import CommandKind, Limit, Refusal, Scope
from ferrox.users import User, read_users

READ_SIZE: Final = 65_536
ROUTE_COUNT: Final = 16_384
"""Reports that are routed at a time."""
WAITING_MAX: Final = 8 << 20
"""Bytes that may wait for a client (ENTRY-16)."""
CATCH_UP: Final = 1 << 20
"""Bytes that may wait for a client that is being sent what it missed, before it is sent more."""
SLOW_SECONDS: Final = 5.0
"""In which a client that is told from the journal must have read, where others are told together with it."""
TICK_NS: Final = 50_000_000
COMPLAIN_SECONDS: Final = 10.0
"""From one line of the log to the next about what goes on and on."""
LOGIN_SECONDS: Final = 5.0
FAILURES: Final = 3
FAILURE_SECONDS: Final = 10.0
ADDRESSES: Final = 4_096
"""Addresses whose failures are remembered."""
WINDOW: Final = 16_384
"""Commands of one account on their way at which its connection is not read for a while (ENTRY-17)."""
RESERVE: Final = 64
"""Places in the ring that clients do not get: they are for what the gateway itself enters."""
OTHER_FILES: Final = 64
"""Descriptors beside those of connections, and some to spare."""
FEW: Final = 4
"""Commands on their way that the gateway stays awake for; where there are more, the cores have other things to do."""
NAP_SECONDS: Final = 0.001
IDLE_SECONDS: Final = 0.02
KIND_AT: Final = 24
SET_LIMIT: Final = int(CommandKind.SET_LIMIT)

SIZES: Final = {b"L": (1 + LOGIN.size,), b"U": (25, 41), b"R": (1,), b"O": (1,)}
"""What the length of each packet of a client says; `+` may have any."""

LIMIT_WORDS: Final = {
    Limit.MAX_QUANTITY: MAX_QUANTITY,
    Limit.MAX_NOTIONAL: MAX_NOTIONAL,
    Limit.MAX_OPEN_ORDERS: MAX_OPEN,
    Limit.MAX_EXPOSURE: MAX_EXPOSURE,
    Limit.ORDER_RATE: ORDER_RATE,
    Limit.CANCEL_RATE: CANCEL_RATE,
}


class Connection:
    """One client, from its challenge to its end."""

    __slots__ = (
        "address",
        "challenge",
        "heard",
        "number",
        "opened",
        "out",
        "position",
        "rest",
        "row",
        "said",
        "socket",
        "user",
        "waiting",
    )

    def __init__(self, number: int, sock: socket.socket, address: str, now: float) -> None:
        self.number, self.socket, self.address = number, sock, address
        self.challenge = os.urandom(32)
        self.opened = self.heard = self.said = now
        self.rest = b""
        self.out: deque[bytes] = deque()
        self.waiting = 0
        """Bytes in `out`."""
        self.user: User | None = None
        self.row = 0
        self.position = 0
        """The number of the last report it was sent, while it catches up."""


class Gateway:
    """All connections, and the desk behind them."""

    def __init__(self, config: Config, links: Links, stopping: Callable[[], bool], tell: Callable[..., None]) -> None:
        """Read the users, and take a place at ring and tape; nothing is listened to yet."""
        self.config, self.links, self.stopping, self.tell = config, links, stopping, tell
        self.users = read_users(config.users)
        self.ring = Ring(links.ring)
        self.bounces = Ring(links.bounces)
        self.tape = TapeReader(links.tape, READERS["gateway"])
        self.tape.detach()  # the matcher need not wait for one that died: what it missed is learnt from the journal
        self.board = Board(links.board)
        self.row = Row(self.board, "gateway")
        self.wake = links.wakes["gateway"]
        self.latencies = Latencies(links.latencies)
        self.presence = links.presence.bytes.cast("q")
        """By its row: an account whose orders are to be canceled when its connection is gone, 0 for none (ENTRY-15).

        This is kept in a file, so that they are also when everything was killed at once."""
        self.present: set[int] = set()
        """The rows of those whose connection is not gone,"""
        self.leaving: deque[tuple[int, int]] = deque()
        """and those who are let go of when so many commands are answered."""
        self.limits: dict[tuple[int, int, int], int] = {}
        self.desk: Desk
        self.rows: dict[int, int] = {}
        """Of the desk, by account."""
        self.connections: dict[int, Connection] = {}
        self.by_number: dict[int, Connection] = {}
        self.free = list(range(config.entry.connections, 0, -1))
        self.active: dict[str, Connection] = {}
        self.catching: set[Connection] = set()
        self.asking: set[Connection] = set()
        """Connections that wait to be told from the journal what the tape has no longer,"""
        self.told: dict[int, Connection] = {}
        """and those that are being told, by account,"""
        self.history: History | None = None
        """by this."""
        self.slow_since = 0.0
        self.held: set[Connection] = set()
        """Connections that are not read until more of what they sent is answered."""
        self.failures: dict[str, deque[float]] = {}
        self.owed: deque[tuple[int, bytes]] = deque()
        """Frames that the gateway itself enters as soon as there is room, each with a row that it lets go of, or 0."""
        self.epoll = select.epoll()
        self.session = ""
        self.listener: socket.socket
        self.delivered = 0
        self.spin_ns = config.processes.spin_us * 1_000
        self.pushed_ns = 0
        self.tick_at = 0
        self.deaf = False
        """Whether nobody is taken in for now."""
        self.complained = float("-inf")

    # ------------------------------------------------------------------------------------------------------- to begin

    def begin(self) -> None:
        """Learn where the venue stands, and listen."""
        while not self.board.get("matcher", "epoch"):
            self._wait()
        self._furnish()
        # Most of the way while the matcher is still on its own, the rest when it stands still.
        shadow, ledger = stand(self.config.journal, self.config.venue.engine)
        while shadow.step():
            self.row.beat()
        sequence = self._settled()
        while stale := self.bounces.peek(BATCH):  # who sent them is not connected any more, and sends them again
            self.bounces.take(len(stale) // RECORD_SIZE)
        while shadow.sequence < sequence:
            if not shadow.step(min(JOURNAL_BATCH, sequence - shadow.sequence)):
                self._wait()
        state = shadow.engine.snapshot()
        uuid, stood = shadow.tail.uuid, shadow.sequence
        shadow.close()
        del shadow
        number = self.tape.written()
        stands = stood == self.board.get("matcher", "sequence") == self.tape.sequence() == sequence
        if not stands or ledger.reports != number:
            self.tell("again", reason="the matcher went on while the gateway began")
            raise SystemExit(AGAIN)
        self.session = session_name(uuid, self.board.get("matcher", "epoch"))
        self._learn(ledger, state, number)
        self.tape.attach(number)
        self._define(state)
        for row, account in enumerate(self.presence.tolist()):
            if account:  # of a gateway that died, and all its connections with it
                self._owe(MassCancel(Scope.ACCOUNT, 0, account), row)
        for (limit, instrument, account), value in self.limits.items():
            if limit == Limit.KILL and value and self.desk.look(RESTING):  # the death may have come in between
                self._kill(instrument, account)
        del state
        gc.collect()  # something of the replay is in a cycle, and keeps an engine: 290 MiB for a million orders
        self._listen()
        self.tell("listening", port=self.listener.getsockname()[1], session=self.session, report=number)

    def _furnish(self) -> None:
        """Make a desk for all users, and for the orders of the journal: the configuration may have changed."""
        self.desk = Desk(
            max((user.account for user in self.users.values()), default=0),
            len(self.users) + 1,
            self.config.entry.connections,
            identify(self.config.journal).capacity.orders,
        )
        self.rows = {0: self.desk.add_account(0, OPERATOR)}
        for user in self.users.values():
            if user.account:
                self.rows[user.account] = self.desk.add_account(user.account, TRADER)

    def _settled(self) -> int:
        """Wait until the matcher has taken all that is in the ring; return the sequence number it stands at."""
        while True:
            running = self.board.get("matcher", "state") == State.RUNNING
            if running and self.ring.look() == 0:
                sequence = self.board.get("matcher", "sequence")
                if self.tape.sequence() == sequence and self.ring.look() == 0:
                    return sequence
            self.links.wake("matcher")
            self._wait()

    def _wait(self) -> None:
        """Wait a little for another process; end here when the stop is asked for meanwhile."""
        if self.stopping():
            raise SystemExit(0)
        self.row.beat()
        time.sleep(NAP_SECONDS)

    def _learn(self, ledger: Ledger, state: bytes, number: int) -> None:
        """Take over what the journal tells of accounts and orders."""
        desk = self.desk
        for account, row in self.rows.items():
            last = ledger.references.get(account) if account else 0
            for word in (REFERENCE, SEEN, ANSWERED):
                desk.put(row, word, last)
        instruments, orders = SNAPSHOT_HEADER.unpack_from(state)[8:10]
        begin = SNAPSHOT_HEADER.size + instruments * COMMAND_SIZE
        load_orders(desk, state[begin : begin + orders * 32])
        for at in range(SNAPSHOT_HEADER.size, begin, COMMAND_SIZE):
            desk.put_instrument(int.from_bytes(state[at + 4 : at + 8], "little"), DEFINED, 1)
        for instrument, price in ledger.prices.items():
            desk.put_instrument(instrument, LAST_PRICE, price)
            desk.put_instrument(instrument, TRADED, 1)
        desk.set(NUMBER, number)
        desk.set(STAMP, ledger.time_ns + 1)
        self.limits = dict(ledger.limits)
        self._apply_limits()

    def _define(self, state: bytes) -> None:
        """Enter the definitions of instruments that the venue does not have yet."""
        count = SNAPSHOT_HEADER.unpack_from(state)[8]
        known = {
            int.from_bytes(state[at + 4 : at + 8], "little")
            for at in range(SNAPSHOT_HEADER.size, SNAPSHOT_HEADER.size + count * COMMAND_SIZE, COMMAND_SIZE)
        }
        for one in self.config.instrument:
            if one.number not in known:
                self._owe(DefineInstrument(STATES[one.state], one.number, one.low, one.high, one.tick, one.lot))

    def _listen(self) -> None:
        """Listen for clients."""
        self._reach()
        address, port = split(self.config.entry.listen)
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.listener.bind((address, port))
        except OSError as error:
            raise UsageError(
                f"{self.config.entry.listen}: {error.strerror}; name another port in [entry] listen"
            ) from None
        self.listener.listen(1_024)
        self.epoll.register(self.listener, select.EPOLLIN)
        self.epoll.register(self.wake, select.EPOLLIN)
        self.row.put(port=self.listener.getsockname()[1])

    def _reach(self) -> None:
        """See that there are descriptors for all connections: 1,024 is what many systems give, and are too few."""
        wanted = self.config.entry.connections + OTHER_FILES
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return
        given = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (given, hard))
        if given < wanted:
            self.free = self.free[wanted - given :] or self.free[-1:]
            self.tell("few descriptors", warning=f"{given} files may be open, {wanted} are wanted: raise ulimit -n")

    # --------------------------------------------------------------------------------------------------------- to run

    def run(self) -> None:
        """Serve until the stop is asked for; then say goodbye."""
        self.row.state(State.RUNNING)
        while not self.stopping():
            self.turn()
        self.end()

    def turn(self) -> None:
        """Do what there is to do, and wait a little when there is nothing."""
        busy = self._route()
        if self.owed:
            self._pay()
        busy = busy or any(connection.waiting <= CATCH_UP for connection in self.catching)
        timeout = 0.0 if busy else self._patience()
        if timeout:
            self.tape.sleep(True)
            if self.tape.written() != self.tape.position:
                timeout = 0.0
        events = self.epoll.poll(timeout)
        self.tape.sleep(False)
        waiting = False
        for file, event in events:
            connection = self.connections.get(file)
            if connection:
                if event & select.EPOLLIN:
                    self._read(connection)
                elif event & (select.EPOLLHUP | select.EPOLLERR):
                    self.drop(connection, "closed")
                if event & select.EPOLLOUT and file in self.connections:
                    self._flush(connection)
            elif file == self.wake:
                with suppress(BlockingIOError):
                    os.eventfd_read(file)
            elif file == self.listener.fileno():
                waiting = True
        if waiting:  # behind all others, so that no event of a connection that just ended is taken for a new one's
            self._accept()
        if self.catching:
            for connection in list(self.catching):
                self._catch_up(connection)
        if self.history or self.asking:
            self._tell()
        if self.held:
            for connection in list(self.held):
                self._let_go(connection)
        now_ns = time.monotonic_ns()
        if now_ns >= self.tick_at:
            self.tick_at = now_ns + TICK_NS
            self._tick()

    def _patience(self) -> float:
        """Return how long to wait at most: a millisecond where something is awaited, for a wake-up may be lost.

        Who has just pushed a few commands does not wait at all: their answers are quicker than a sleep and its end.
        """
        flying = self.desk.look(FLIGHT_NEXT) - self.desk.look(FLIGHT_FIRST)
        if 0 < flying <= FEW and time.monotonic_ns() - self.pushed_ns < self.spin_ns:
            return 0.0
        if self.history or flying:
            return NAP_SECONDS
        return IDLE_SECONDS

    # ---------------------------------------------------------------------------------------------------- connections

    def _accept(self) -> None:
        """Take in who is waiting, each with a challenge."""
        for _ in range(64):
            try:
                sock, (address, _port) = self.listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._turn_away(error)
                return
            if not self.free:
                self._make_place()
            if not self.free:
                sock.close()
                self.row.add("dropped")
                continue
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(self.free.pop(), sock, address, time.monotonic())
            self.connections[sock.fileno()] = connection
            self.by_number[connection.number] = connection
            self.epoll.register(sock, select.EPOLLIN)
            entry = self.config.entry
            self._send(
                connection,
                packet(b"C", CHALLENGE.pack(connection.challenge, VERSION, entry.heartbeat_ms, entry.timeout_ms)),
            )

    def _turn_away(self, error: OSError) -> None:
        """Take in nobody until the next tick: the system has nothing left for another connection."""
        now = time.monotonic()
        if now - self.complained > COMPLAIN_SECONDS:
            self.complained = now
            self.tell("accept", warning=f"{error.strerror}: nobody is taken in meanwhile")
        self.epoll.modify(self.listener, 0)
        self.deaf = True

    def _make_place(self) -> None:
        """End the oldest connection without a login: who only connects keeps nobody out."""
        oldest = next((one for one in self.connections.values() if one.user is None), None)
        if oldest:
            self.drop(oldest, "no login, and its place is needed")

    def drop(self, connection: Connection, why: str) -> None:
        """End a connection; what it asked to be canceled is."""
        file = connection.socket.fileno()
        if file < 0 or self.connections.get(file) is not connection:
            return
        with suppress(OSError):
            self.epoll.unregister(file)
        connection.socket.close()
        del self.connections[file]
        del self.by_number[connection.number]
        self.desk.written(connection.number)
        self.free.append(connection.number)
        self.catching.discard(connection)
        self.asking.discard(connection)
        self.held.discard(connection)
        if connection.user:
            user = connection.user
            self.told.pop(user.account, None)
            del self.active[user.name]
            self.desk.put(connection.row, CONNECTION, 0)
            self._leave(connection)
            self.tell("gone", user=user.name, why=why)
        elif why != "closed":
            self.row.add("dropped")

    def _send(self, connection: Connection, data: bytes) -> None:
        """Send, or keep what the socket does not take."""
        if not data:
            return
        connection.said = time.monotonic()
        if not connection.out:
            try:
                sent = connection.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.drop(connection, "closed")
                return
            if sent == len(data):
                return
            data = data[sent:]
        connection.out.append(data)
        self._watch(connection)
        connection.waiting += len(data)
        if connection.waiting > WAITING_MAX:
            self.drop(connection, "it does not read what it is sent")

    def _flush(self, connection: Connection) -> None:
        """Send what was kept, as far as the socket takes it."""
        while connection.out:
            data = connection.out[0]
            try:
                sent = connection.socket.send(data)
            except BlockingIOError:
                return
            except OSError:
                self.drop(connection, "closed")
                return
            connection.waiting -= sent
            if sent < len(data):
                connection.out[0] = data[sent:]
                return
            connection.out.popleft()
        self._watch(connection)

    def _watch(self, connection: Connection) -> None:
        """Have epoll look for what a connection is waiting for."""
        reading = 0 if connection in self.held else select.EPOLLIN
        self.epoll.modify(connection.socket, reading | (select.EPOLLOUT if connection.out else 0))

    def _hold(self, connection: Connection) -> None:
        """Read no more of a client for now: it has sent far ahead of the answers (ENTRY-17)."""
        self.held.add(connection)
        self._watch(connection)

    def _let_go(self, connection: Connection) -> None:
        """Go on with a client that was held, when half of what it has sent ahead is answered."""
        if self.desk.get(connection.row, FLYING) < WINDOW // 2:
            self.held.discard(connection)
            self._watch(connection)
            connection.heard = time.monotonic()

    # -------------------------------------------------------------------------------------------------------- to read

    def _read(self, connection: Connection) -> None:
        """Read what a client has sent, and take what stands whole in it."""
        try:
            data = connection.socket.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            self.drop(connection, "closed")
            return
        if not data:
            self.drop(connection, "closed")
            return
        connection.heard = time.monotonic()
        if connection.rest:
            data = connection.rest + data
        connection.rest = b""
        place = 0
        desk = self.desk
        while place < len(data):
            if connection.row:
                now_ns = time.time_ns()
                clock(desk, now_ns)
                desk.set(ROOM, max(0, min(BATCH, self.ring.room() - RESERVE)))
                writer = desk.writers[connection.number]
                place = admit(desk, connection.row, writer, data, place, now_ns)
                full = self._push()
                refusals = desk.written(connection.number)
                if refusals:
                    self._send(connection, refusals)
                    if connection.socket.fileno() < 0:
                        return
                if full:
                    continue
            else:
                place = pass_over(data, place)
            size = self._other(connection, data, place)
            if size <= 0:
                break
            place += size
        if connection.socket.fileno() >= 0:
            connection.rest = data[place:]
            if connection.row and desk.get(connection.row, SEEN) - desk.get(connection.row, REFERENCE) >= SKIP_MAX:
                self.drop(connection, "so many refusals in a row that no cancel could be taken any more")
                return
            if connection.row and self.desk.get(connection.row, FLYING) >= WINDOW:
                self._hold(connection)

    def _push(self) -> bool:
        """Push what was admitted into the ring; return whether there may be more behind it."""
        records = self.desk.records()
        if not records:
            return False
        count = self.links.push(self.ring, records)
        self.pushed_ns = time.monotonic_ns()
        assert count * RECORD_SIZE == len(records), "there was room for all that was admitted"
        index = records[KIND_AT::RECORD_SIZE].find(SET_LIMIT)
        if index >= 0:
            self._limited(records)
        return count >= BATCH

    def _other(self, connection: Connection, data: bytes, place: int) -> int:
        """Take one packet that is no command; return its size, 0 when it is not all there or the connection ended."""
        if len(data) - place < HEAD.size:
            if data[place:] == b"\0\0":
                self.drop(connection, "an empty packet")
            return 0
        length, number = HEAD.unpack_from(data, place)
        letter = bytes((number,))
        sizes = SIZES.get(letter)
        right = length in sizes if sizes else letter == b"+" and 0 < length <= PACKET_MAX
        if not right:
            self.drop(connection, f"a packet {letter!r} of length {length}")
            return 0
        if len(data) - place < 2 + length:
            return 0
        payload = data[place + 3 : place + 2 + length]
        if letter == b"L":
            if connection.user:
                self.drop(connection, "a second login")
                return 0
            self._login(connection, payload)
        elif letter != b"+" and not connection.user:
            self.drop(connection, "a packet before the login")
        elif letter == b"O":
            self._send(connection, packet(b"Z"))
            self.drop(connection, "logout")
        elif letter == b"U":
            return 0  # admission stopped before it: there is no room in this turn
        return 2 + length if connection.socket.fileno() >= 0 else 0

    # --------------------------------------------------------------------------------------------------------- logins

    def _login(self, connection: Connection, payload: bytes) -> None:
        """Let a client in, or not (ENTRY-3, ENTRY-4)."""
        now = time.monotonic()
        name, session, flags, number, mac = LOGIN.unpack(payload)
        failures = self.failures.setdefault(connection.address, deque())
        while failures and now - failures[0] > FAILURE_SECONDS:
            failures.popleft()
        user = self.users.get(name.decode("ascii", "replace").rstrip())
        # Who is not known is checked like who is, against a secret that nobody has, so that both take the same time.
        secret = user.secret if user else connection.challenge
        right = hmac.compare_digest(sign(secret, connection.challenge, payload[:MAC_OF]), mac)
        if not right or user is None:
            # Only who is wrong is throttled: nobody keeps another one out who shares an address with them.
            throttled = len(failures) >= FAILURES
            if not throttled:
                failures.append(now)
            if len(self.failures) > ADDRESSES:
                self.failures.pop(next(iter(self.failures)))
            self._reject(connection, b"T" if throttled else b"A")
        elif flags & ~1 or any(payload[27:32]) or number < 0:
            self._reject(connection, b"F")
        elif session.strip() and session != padded(self.session, 10):
            self._reject(connection, b"S")
        elif user.name in self.active:
            self._reject(connection, b"U")
        elif number and not self._can_tell(number):
            self._reject(connection, b"N")
        else:
            self._admit(connection, user, flags, number)

    def _can_tell(self, number: int) -> bool:
        """Say whether a client can have all reports from a number on."""
        kept = number >= self.tape.oldest() or number >= first_number(self.config)
        return kept and number <= self.desk.look(NUMBER) + 1

    def _reject(self, connection: Connection, reason: bytes) -> None:
        """Say no, and end the connection."""
        self.row.add("refused_logins")
        self._send(connection, packet(b"J", reason))
        self.drop(connection, f"login rejected: {reason.decode()}")

    def _admit(self, connection: Connection, user: User, flags: int, number: int) -> None:
        """Let a client in, and begin with what it asks for."""
        connection.user = user
        connection.row = self.rows[user.account]
        self.active[user.name] = connection
        reference = self.desk.get(connection.row, REFERENCE)
        if not user.account:
            reference = 0
            self.desk.put(connection.row, REFERENCE, 0)
            self.desk.put(connection.row, ANSWERED, 0)
        self.desk.put(connection.row, SEEN, reference)
        routed = self.desk.look(NUMBER)
        begin = number or routed + 1
        accepted = LOGIN_ACCEPTED.pack(padded(self.session, 10), user.account, begin, reference)
        self._send(connection, packet(b"A", accepted))
        connection.position = begin - 1
        if flags & LoginFlag.CANCEL_ON_DISCONNECT and user.account:
            self.present.add(connection.row)
            self.presence[connection.row] = user.account
            if self.config.venue.durability != Durability.D0.name:
                self.links.presence.map.flush()
        self.row.add("logins")
        self.tell("login", user=user.name, account=user.account, number=begin)
        if begin <= routed:
            self.catching.add(connection)
        else:
            self.desk.put(connection.row, CONNECTION, connection.number)

    def _catch_up(self, connection: Connection) -> None:
        """Send a client the next of what it missed; where there is no more of it, let it have what comes (ENTRY-8)."""
        if connection.waiting > CATCH_UP:
            return
        routed = self.desk.look(NUMBER)
        last = min(routed, connection.position + ROUTE_COUNT)
        try:
            reports = self.tape.copy(connection.position + 1, last)
        except TapeLost:
            self.catching.discard(connection)
            self.asking.add(connection)
            return
        collect(self.desk, connection.row, connection.position + 1, reports, self.desk.writers[connection.number])
        connection.position = last
        if last == routed:
            self.catching.discard(connection)
            self.desk.put(connection.row, CONNECTION, connection.number)
        self._send(connection, self.desk.written(connection.number))

    def _tell(self) -> None:
        """Send those who missed more than the tape has what the journal tells (ENTRY-8)."""
        if not self.history:
            self.told = {connection.user.account: connection for connection in self.asking if connection.user}
            self.asking.clear()
            firsts = {account: connection.position + 1 for account, connection in self.told.items()}
            try:
                self.history = History(self.config, firsts, self.tape.written())
            except OSError as error:
                for connection in list(self.told.values()):
                    self.drop(connection, f"what it missed could not be told from the journal: {error.strerror}")
            return
        now = time.monotonic()
        slow = [connection for connection in self.told.values() if connection.waiting > CATCH_UP]
        if slow and (self.asking or len(slow) < len(self.told)):
            self.slow_since = self.slow_since or now
            if now - self.slow_since > SLOW_SECONDS:
                for connection in slow:
                    self.drop(connection, "it does not read what it is sent")
        if slow:
            return
        self.slow_since = 0.0
        for account, packets in self.history.read():
            if account in self.told:
                self._send(self.told[account], packets)
        if self.history.ended or not self.told:
            whole, last = self.history.close(), self.history.last
            self.history = None
            for connection in list(self.told.values()):
                if whole:
                    connection.position = last
                    self.catching.add(connection)
                else:
                    self.drop(connection, "what it missed could not be told from the journal")
            self.told.clear()

    # -------------------------------------------------------------------------------------------------------- reports

    def _route(self) -> bool:
        """Route the next reports; return whether there were any."""
        limit = ROUTE_COUNT
        bounced = self.bounces.peek(1)
        if bounced:
            behind = int.from_bytes(bounced[8:16], "little")
            if behind <= self.tape.position:
                self._bounced(bounced)
                return True
            limit = min(limit, behind - self.tape.position)
        reports = self.tape.read(limit)
        if not reports:
            return False
        self.desk.set(NOW, time.time_ns())
        route(self.desk, reports)
        self.tape.advance(len(reports) // REPORT_SIZE)
        for number in self.desk.take_touched():
            connection = self.by_number.get(number)
            data = self.desk.written(number)
            if connection:
                self.delivered += len(data) // 59
                self._send(connection, data)
        return True

    def _bounced(self, record: bytes) -> None:
        """Tell a client that its command came back from a full disk."""
        self.bounces.take(1)
        self.desk.set(NOW, time.time_ns())
        row, reference = bounce(self.desk)
        connection = self.by_number.get(self.desk.get(row, CONNECTION)) if row else None
        if connection:
            fields = RECORD.unpack(record)
            kind, instrument = fields[4], fields[12]
            self._send(connection, packet(b"U", REFUSED.pack(reference, instrument, kind, Refusal.DISK_LOW)))

    # --------------------------------------------------------------------------------------- what the gateway enters

    def _owe(self, command: Command, row: int = 0) -> None:
        """Enter a command of the gateway's own as soon as there is room for it, and let go of a row when it is done."""
        self.owed.append((row, command.pack()))

    def _leave(self, connection: Connection) -> None:
        """Have the orders canceled of who asked for that on this connection (ENTRY-15)."""
        if connection.row in self.present:
            self.present.discard(connection.row)
            self._owe(MassCancel(Scope.ACCOUNT, 0, self.presence[connection.row]), connection.row)

    def _kill(self, instrument: int, account: int) -> None:
        """Have the orders canceled of what is killed (RISK-7)."""
        scope = Scope.ACCOUNT if account else Scope.INSTRUMENT if instrument else Scope.VENUE
        self._owe(MassCancel(scope, instrument, account))

    def _pay(self) -> None:
        """Enter what is owed, as far as there is room."""
        desk = self.desk
        clock(desk, time.time_ns())
        room = min(BATCH, self.ring.room())
        while self.owed and room and desk.look(FLIGHT_NEXT) - desk.look(FLIGHT_FIRST) < 1 << 17:
            row, frame = self.owed.popleft()
            words = memoryview(frame.ljust(COMMAND_SIZE, b"\0")).cast("q")
            enter(desk, 0, 0, 0, frame[0] | len(frame) << 8, *words)
            if row:
                self.leaving.append((desk.look(FLIGHT_NEXT), row))
            room -= 1
        self._push()

    def _forget(self) -> None:
        """Let go of those whose orders are canceled by now."""
        while self.leaving and self.leaving[0][0] <= self.desk.look(FLIGHT_FIRST):
            _, row = self.leaving.popleft()
            if row not in self.present:
                self.presence[row] = 0

    def _limited(self, records: bytes) -> None:
        """Take notice of what an operator has just limited (RISK-7)."""
        for start in range(0, len(records), RECORD_SIZE):
            record = records[start : start + RECORD_SIZE]
            if record[KIND_AT] != SET_LIMIT:
                continue
            ledger = Ledger()
            ledger.learn(record[32:])
            for (limit, instrument, account), value in ledger.limits.items():
                self.limits[limit, instrument, account] = value
                if limit == Limit.KILL and value:
                    self._kill(instrument, account)
        self._apply_limits()

    def _apply_limits(self) -> None:
        """Write the limits that hold into the desk: an account's own, that for all, that of the configuration."""
        desk, limits, risk = self.desk, self.limits, self.config.risk
        defaults = {
            Limit.MAX_QUANTITY: risk.max_quantity,
            Limit.MAX_NOTIONAL: risk.max_notional,
            Limit.MAX_OPEN_ORDERS: risk.max_open_orders,
            Limit.MAX_EXPOSURE: risk.max_exposure,
            Limit.ORDER_RATE: risk.order_rate,
            Limit.CANCEL_RATE: risk.cancel_rate,
        }
        for account, row in self.rows.items():
            if not account:
                continue
            for limit, word in LIMIT_WORDS.items():
                value = limits.get((limit, 0, account)) or limits.get((limit, 0, 0)) or defaults[limit]
                if value != desk.get(row, word):
                    desk.put(row, word, value)
                    if limit in (Limit.ORDER_RATE, Limit.CANCEL_RATE):
                        desk.put(row, word + 1, value * 1_000_000_000)
            desk.put(row, KILLED, limits.get((Limit.KILL, 0, account), 0))
        desk.set(VENUE_KILLED, limits.get((Limit.KILL, 0, 0), 0))
        collar = limits.get((Limit.COLLAR, 0, 0)) or risk.collar
        for instrument in range(desk.instrument_count):
            desk.put_instrument(instrument, COLLAR, collar)
        for (number, instrument, _), value in limits.items():
            if number == Limit.COLLAR and instrument and value:
                desk.put_instrument(instrument, COLLAR, value)
            elif number == Limit.KILL and instrument:
                desk.put_instrument(instrument, INSTRUMENT_KILLED, value)

    # ------------------------------------------------------------------------------------------------- now and then

    def _tick(self) -> None:
        """Send heartbeats, end what is silent, and tell the board."""
        now = time.monotonic()
        entry, desk = self.config.entry, self.desk
        if self.deaf:
            self.deaf = False
            self.epoll.modify(self.listener, select.EPOLLIN)
        for connection in list(self.connections.values()):
            if connection.user is None:
                if now - connection.opened > LOGIN_SECONDS:
                    self.drop(connection, "no login")
            elif now - connection.heard > entry.timeout_ms / 1_000 and connection not in self.held:
                self.drop(connection, "silence")
            elif now - connection.said > entry.heartbeat_ms / 1_000:
                self._send(connection, packet(b"H"))
        desk.set(DISK_LOW, self.board.get("matcher", "disk_low"))
        self._forget()
        self.latencies.tell(ANSWER, desk.latencies)
        taken, refused = desk.totals()
        self.row.beat()
        self.row.put(
            connections=len(self.connections),
            commands=taken,
            refused=refused,
            delivered=self.delivered,
            number=desk.look(NUMBER),
            in_flight=desk.look(FLIGHT_NEXT) - desk.look(FLIGHT_FIRST),
            resting=desk.look(RESTING),
        )

    def end(self) -> None:
        """Take no more, let what is in the ring be answered, and say goodbye."""
        self.row.state(State.STOPPING)
        self.epoll.unregister(self.listener)
        self.listener.close()
        for connection in list(self.connections.values()):
            self._leave(connection)
        if self.history:
            self.history.close()
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            if not self._route():
                if self.desk.look(FLIGHT_NEXT) == self.desk.look(FLIGHT_FIRST) and not self.owed:
                    break
                if self.owed:
                    self._pay()
                time.sleep(NAP_SECONDS / 10)
        for connection in list(self.connections.values()):
            self._send(connection, packet(b"Z"))
            self._flush(connection)
            self.drop(connection, "end of session")
        self._tick()
        self.tape.detach()
        self.row.state(State.STOPPED)
